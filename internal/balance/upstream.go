package balance

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// upstream is a connection to a target. It carries one request at a time, and is
// kept by its target between two.
type upstream struct {
	conn
	target *target
	load   *load // of the listener that it was made for
	since  time.Time
	used   bool // it has carried a request
	doubt  bool // more may come of the last answer than its head says
	peek   func(fd uintptr)
	silent bool // what peek found: open, and nothing has come
}

// kept is a target's connections that carry nothing, the last used last.
type kept struct {
	mu   sync.Mutex
	list []*upstream
	over bool // the target is gone
}

// Of a target: how many connections are kept, and for how long.
const (
	maxKept  = 1024
	keptFor  = 60 * time.Second
	freshFor = 2 * time.Millisecond // a connection that was used just now is not looked at
)

// reach returns a connection to a target: one that is kept, or a new one. Whether the
// target has closed one that it kept is looked at, unless it was used just now and the
// request can be repeated if it has.
func (b *Balancer) reach(t *target, m *meter, tlsToo bool, now time.Time, fresh, repeatable bool) (*upstream, error) {
	for !fresh {
		u := t.kept.take()
		if u == nil {
			break
		}
		if repeatable && !u.doubt && now.Sub(u.since) < freshFor || u.alive() {
			return u, nil
		}
		u.end()
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	nc, err := b.dialTarget(ctx, t.at)
	if err == nil && tlsToo {
		nc, err = agree(ctx, nc, unverified())
	}
	if err != nil {
		m.failed.Add(1)
		return nil, err
	}
	m.load.connected()
	u := &upstream{target: t, load: m.load}
	u.init(nc, larges)
	u.peek = u.tryPeek
	return u, nil
}

// dialTarget makes a connection to a target, which has a while to take it.
func (b *Balancer) dialTarget(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return b.Network.Dial(ctx, addr)
}

// dialTimeout is how long a target has to take a connection, and again to agree on
// TLS, documented: https://repost.aws/knowledge-center/504-error-alb
const dialTimeout = 10 * time.Second

// unverified is how TLS is spoken to targets: whose certificate it is is not asked,
// documented.
func unverified() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
}

// agree makes a connection to a target one of TLS, or ends it.
func agree(ctx context.Context, nc net.Conn, config *tls.Config) (net.Conn, error) {
	secure := tls.Client(nc, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return secure, nil
}

func (k *kept) take() *upstream {
	k.mu.Lock()
	defer k.mu.Unlock()
	last := len(k.list) - 1
	if last < 0 {
		return nil
	}
	u := k.list[last]
	k.list[last] = nil
	k.list = k.list[:last]
	return u
}

// keep keeps a connection for the next request, or ends it. With doubt it is looked at
// before it is used.
func (u *upstream) keep(now time.Time, doubt bool) {
	u.since, u.used, u.doubt = now, true, doubt
	k := &u.target.kept
	k.mu.Lock()
	if !k.over && len(k.list) < maxKept {
		k.list = append(k.list, u)
		u = nil
	}
	k.mu.Unlock()
	if u != nil {
		u.end()
	}
}

// end closes it, once.
func (u *upstream) end() {
	u.release()
	u.load.open.Add(-1)
	u.Close()
}

// alive reports whether the target has kept its side open and said nothing since its
// answer, as far as can be seen. Under TLS, too, what has come is no part of an answer
// to a request that was not sent.
func (u *upstream) alive() bool {
	if u.socket == nil {
		return true
	}
	u.silent = false
	return u.socket.Control(u.peek) == nil && u.silent
}

func (u *upstream) tryPeek(fd uintptr) {
	_, err := peekAt(fd)
	u.silent = err == unix.EAGAIN
}

// peekAt looks for a byte that has come at a socket and leaves it there.
func peekAt(fd uintptr) (n int, err syscall.Errno) {
	var one [1]byte
	return receive(fd, one[:], unix.MSG_PEEK)
}

// prune ends connections that were not used since; all, once the target is gone.
func (k *kept) prune(since time.Time, gone bool) {
	k.mu.Lock()
	k.over = k.over || gone
	n := 0
	for n < len(k.list) && (k.over || k.list[n].since.Before(since)) {
		n++
	}
	old := append([]*upstream(nil), k.list[:n]...)
	k.list = append(k.list[:0], k.list[n:]...)
	k.mu.Unlock()
	for _, u := range old {
		u.end()
	}
}
