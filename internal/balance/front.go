package balance

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// front carries the clients of a listener that speak HTTP. Each connection has a
// goroutine, which reads a request, has it answered by a target in an exchange, and
// goes on to the next. Those that speak HTTP/2 are handed to net/http.
//
// No deadline is set for each request: a warden looks at all connections four times
// a second and ends what has waited too long, or whose client has gone.
type front struct {
	b        *Balancer
	l        *listener
	socket   net.Listener
	accepted chan struct{} // closed when no more will be
	carried  sync.WaitGroup
	quit     chan struct{} // closed when everybody has gone
	once     sync.Once
	watched  sync.WaitGroup
	began    time.Time
	coarse   atomic.Int64 // nanoseconds since began, when the warden looked last: no clock that is set

	mu      sync.Mutex
	h2      *streams
	former  map[*streams]bool // that still carry what they had
	open    map[*client]bool
	warden  bool        // it is there
	closing atomic.Bool // set with the mutex held
}

// client is a connection of a client.
type client struct {
	conn
	f      *front
	under  net.Conn // as it was accepted; Conn is its goroutine's alone, and may become one of TLS
	peer   netip.AddrPort
	secure *tls.ConnectionState // nil without TLS
	since  time.Time
	meters bool // it counts its bytes and its end itself
	phase  atomic.Int32
	moved  atomic.Int64 // when something happened last, by the front's coarse time

	mu      sync.Mutex
	up      *upstream // that its request is sent to, or is answered by
	verdict verdict
}

// What a client's goroutine does.
const (
	waiting    int32 = iota // for the first byte of a request
	heading                 // it reads a request's head
	asking                  // a target has the request, or gets it
	answering               // bytes of the answer go to the client
	tunnelling              // bytes go both ways, and either side may end first
	ended                   // it takes no more requests
)

// verdict is why the warden has ended an exchange.
type verdict uint8

const (
	none verdict = iota
	left         // its client has gone
	late         // nothing happened for too long
)

const wardenRound = 250 * time.Millisecond

func newFront(b *Balancer, l *listener, socket net.Listener) *front {
	f := &front{began: time.Now(), b: b, l: l, socket: socket, former: map[*streams]bool{}, open: map[*client]bool{}, accepted: make(chan struct{}), quit: make(chan struct{})}
	f.h2 = f.newStreams(l.live.Load().idle())
	return f
}

// serve accepts until the front is shut down.
func (f *front) serve() {
	defer close(f.accepted)
	accept(f.socket, f.admit)
}

// accept hands over every connection that comes, until the socket is closed.
func accept(socket net.Listener, each func(net.Conn)) {
	const atFirst = 5 * time.Millisecond
	for pause := atFirst; ; {
		nc, err := socket.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptor is free; one may be soon
			<-time.After(pause)
			pause = min(2*pause, time.Second)
		default:
			pause = atFirst
			each(nc)
		}
	}
}

// admit begins to serve a connection: one that has been accepted has its answer, also
// when the front is closing.
func (f *front) admit(nc net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &client{f: f, under: nc, peer: peerOf(nc), since: time.Now()}
	if f.l.live.Load().TLS == nil {
		c.init(nc, pages)
	} else {
		c.Conn = nc
	}
	if !f.warden {
		f.warden = true
		f.coarse.Store(int64(time.Since(f.began)))
		f.watched.Go(f.watch)
	}
	c.moved.Store(f.coarse.Load())
	f.open[c] = true
	f.l.load.connected()
	f.carried.Go(func() { f.carry(c) })
}

// carry serves a connection to its end.
func (f *front) carry(c *client) {
	kept := false
	defer func() {
		f.mu.Lock()
		delete(f.open, c)
		f.mu.Unlock()
		if !kept {
			c.release()
			c.Close()
			if !c.meters {
				f.l.load.open.Add(-1)
			}
		}
	}()
	if spec := f.l.live.Load(); spec.TLS != nil {
		if kept = f.handshake(c, spec); kept || c.secure == nil {
			return
		}
	}
	for c.await() {
		if c.secure == nil && !f.l.live.Load().Headers.NoHTTP2 && c.speaksHTTP2() { // under TLS it would have said so before
			c.meters = true
			first := c.buffered()
			c.Conn = &clientConn{connection{Conn: c.Conn, load: f.l.load}}
			kept = f.hand(&replayed{c.Conn, first})
			return
		}
		x := f.b.exchanges.Get().(*exchange)
		x.c, x.f = c, f
		again, parts := x.run(), x.parts
		x.reset()
		f.b.exchanges.Put(x)
		if parts {
			c.linger()
		}
		if !again {
			return
		}
	}
}

// await waits for the first byte of a request.
func (c *client) await() bool {
	c.moved.Store(c.f.coarse.Load())
	c.phase.Store(waiting)
	last := c.f.closing.Load() // so part may have looked before
	if last {
		c.SetReadDeadline(time.Now().Add(parting))
	}
	if len(c.unread()) == 0 && c.fill() != nil {
		return false
	}
	if last {
		c.SetReadDeadline(time.Time{})
	}
	return c.phase.CompareAndSwap(waiting, heading)
}

// progress tells the warden that something happens.
func (c *client) progress() { c.moved.Store(c.f.coarse.Load()) }

// watched tells the warden which target the client waits for; of nil it is told
// when there is none any more, and says whether it has ended the exchange meanwhile.
func (c *client) watched(up *upstream) verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = up
	return c.verdict
}

// watch is the warden; it is there as long as there are connections.
func (f *front) watch() {
	for {
		select {
		case <-f.quit:
			return
		case <-time.After(wardenRound):
		}
		now := time.Since(f.began)
		f.coarse.Store(int64(now))
		spec := f.l.live.Load()
		f.mu.Lock()
		if len(f.open) == 0 {
			f.warden = false
			f.mu.Unlock()
			return
		}
		for c := range f.open {
			c.look(now-time.Duration(c.moved.Load()), spec.idle())
		}
		f.mu.Unlock()
	}
}

// wake ends whoever reads from the connection, or will.
func (c *client) wake() { c.under.SetReadDeadline(longAgo) }

// look is the warden's look at a client where nothing has happened for so long.
func (c *client) look(for_, limit time.Duration) {
	over := for_ > limit
	switch c.phase.Load() {
	case waiting:
		if over && c.phase.CompareAndSwap(waiting, ended) {
			c.wake()
		}
	case heading:
		if over {
			c.sentence(late)
			c.wake()
		}
	case asking, answering, tunnelling:
		if over {
			c.sentence(late)
		} else if for_ >= wardenRound && c.phase.Load() != tunnelling && c.ended() {
			c.sentence(left)
		}
	}
}

// sentence ends what a client's goroutine waits for. One whose target is late is
// still answered.
func (c *client) sentence(v verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.verdict != none || c.phase.Load() != heading && c.up == nil {
		return
	}
	c.verdict = v
	if c.up != nil {
		c.up.SetDeadline(longAgo)
		if v == late && c.phase.Load() == asking {
			c.wake() // whoever reads its body
		} else {
			c.under.SetDeadline(longAgo)
		}
	}
}

// Shutdown takes no new connections and no more requests, and waits until those
// under way have ended, or ctx has.
func (f *front) Shutdown(ctx context.Context) error {
	f.mu.Lock()
	f.closing.Store(true)
	f.mu.Unlock()
	f.socket.Close()
	<-f.accepted
	f.part(ctx)
	err := f.h2.Shutdown(ctx)
	f.h2.handed.Close()
	done := make(chan struct{})
	go func() { f.leave(); close(done) }()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// part ends the connections that wait for a request. They are given a moment first:
// to a request that comes in it the answer says that it was the last, while one that
// crosses with the end of its connection is lost.
func (f *front) part(ctx context.Context) {
	idle := func(do func(c *client)) (n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for c := range f.open {
			if c.phase.Load() == waiting {
				n++
				do(c)
			}
		}
		return n
	}
	if f.b.drain.Load() > int64(drained) && idle(func(*client) {}) > 0 {
		select {
		case <-time.After(parting):
		case <-ctx.Done():
		}
	}
	idle(func(c *client) {
		if c.phase.CompareAndSwap(waiting, ended) {
			c.wake()
		}
	})
}

const parting = time.Second

// Close cuts all connections and returns when they have ended.
func (f *front) Close() error {
	f.closing.Store(true)
	err := f.socket.Close()
	<-f.accepted
	f.mu.Lock()
	for c := range f.open {
		c.phase.Store(ended)
		c.mu.Lock()
		if c.verdict == none {
			c.verdict = left // or the target's connection would be kept, with its deadline
		}
		if c.up != nil {
			c.up.SetDeadline(longAgo)
		}
		c.under.SetDeadline(longAgo)
		c.mu.Unlock()
	}
	former := slices.Collect(maps.Keys(f.former))
	f.mu.Unlock()
	for _, s := range append(former, f.h2) {
		err = errors.Join(err, s.Close())
	}
	f.h2.handed.Close()
	f.leave()
	return err
}

// leave waits until everybody has gone, the warden last.
func (f *front) leave() {
	f.carried.Wait()
	f.once.Do(func() { close(f.quit) })
	f.watched.Wait()
}
