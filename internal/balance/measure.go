package balance

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"serin/internal/metric"
)

// Load is what a listener has carried since it was measured last. Each event is
// in the measurement that it happened in: of a request under way meanwhile, the
// one counts that it was sent, the next its answer.
type Load struct {
	Listener string
	Own      map[int]uint64 // the balancer's own answers, by code
	Fixed    uint64         // those of them that a rule wanted
	Opened   uint64         // connections that clients made, and those made to targets
	Open     int64          // the most of both that were open at one time
	Bytes    uint64         // from and to clients
	Groups   map[string]GroupLoad
}

// GroupLoad is what one group has had of a listener's load.
type GroupLoad struct {
	Requests uint64     // for which a target was chosen
	Codes    [6]uint64  // answers of targets, by hundreds
	Times    metric.Set // seconds from the end of a request to the head of its answer
	Failed   uint64     // connections to targets that could not be made
}

// load counts for one listener. It outlives its listener until its last request
// is answered and measured.
type load struct {
	own      [600]atomic.Uint64
	fixed    atomic.Uint64
	bytes    atomic.Uint64
	opened   atomic.Uint64
	open     atomic.Int64
	most     atomic.Int64 // of open
	underWay atomic.Int64 // requests

	// Under the balancer's mutex:
	groups map[string]*meter // every group that it ever forwarded to
	over   bool              // it had no listener and no load at the last measurement
}

// meter counts for one group of a listener.
type meter struct {
	load             *load
	requests, failed atomic.Uint64
	codes            [6]atomic.Uint64
	mu               sync.Mutex
	times            metric.Set
}

// Measure returns what every listener has carried since the last call, and
// those that are gone meanwhile a last time.
func (b *Balancer) Measure() []Load {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Load
	for id, l := range b.loads {
		underWay := l.underWay.Load() > 0 // before its counters: what they miss is still there the next time
		taken, some := l.take(id)
		if b.listeners[id] == nil && !underWay && !some {
			// A request may have found its rule and not be counted yet: once more.
			if l.over {
				delete(b.loads, id)
			}
			l.over = true
			continue
		}
		l.over = false
		out = append(out, taken)
	}
	return out
}

// take empties the counters and reports whether there was anything in them.
func (l *load) take(id string) (out Load, some bool) {
	out = Load{
		Listener: id, Own: map[int]uint64{}, Groups: map[string]GroupLoad{},
		Fixed: l.fixed.Swap(0), Bytes: l.bytes.Swap(0), Opened: l.opened.Swap(0), Open: l.most.Swap(0),
	}
	l.raise(l.open.Load())
	for code := range l.own {
		if n := l.own[code].Swap(0); n > 0 {
			out.Own[code] = n
		}
	}
	for group, m := range l.groups {
		if g, some := m.take(); some {
			out.Groups[group] = g
		}
	}
	return out, len(out.Own)+len(out.Groups) > 0 || out.Bytes+out.Opened > 0
}

func (m *meter) take() (out GroupLoad, some bool) {
	out = GroupLoad{Requests: m.requests.Swap(0), Failed: m.failed.Swap(0)}
	some = out.Requests+out.Failed > 0
	for class := range m.codes {
		out.Codes[class] = m.codes[class].Swap(0)
		some = some || out.Codes[class] > 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out.Times, m.times = m.times, metric.Set{}
	return out, some || out.Times.Count > 0
}

// loadOf is the counters of a listener: those that it had before, if any.
func (b *Balancer) loadOf(listener string) *load {
	l := b.loads[listener]
	if l == nil {
		l = &load{groups: map[string]*meter{}}
		b.loads[listener] = l
	}
	return l
}

func (l *load) meter(group string) *meter {
	m := l.groups[group]
	if m == nil {
		m = &meter{load: l}
		l.groups[group] = m
	}
	return m
}

// answered counts an answer that the balancer made itself.
func (l *load) answered(code int) {
	if code < len(l.own) {
		l.own[code].Add(1)
	}
}

// refuse answers a request for which no target does.
func (l *load) refuse(w http.ResponseWriter, code int, text string) {
	l.answered(code)
	http.Error(w, text, code)
}

func (l *load) connected() {
	l.opened.Add(1)
	l.raise(l.open.Add(1))
}

func (l *load) raise(open int64) {
	for {
		most := l.most.Load()
		if open <= most || l.most.CompareAndSwap(most, open) {
			return
		}
	}
}

// answered counts a target's answer and the seconds that it took.
func (m *meter) answered(code int, took time.Duration) {
	if class := code / 100; class < len(m.codes) {
		m.codes[class].Add(1)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.times.Add(took.Seconds(), 1)
}

// sending notes when a request has been sent.
type sending struct {
	began time.Time
	sent  atomic.Int64 // since it began; 0: it is still being sent
}

// track makes the transport tell when it has sent a request.
func track(ctx context.Context) (context.Context, *sending) {
	s := &sending{began: time.Now()}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) {
		s.sent.Store(int64(time.Since(s.began)))
	}}), s
}

// took is how long a target has needed so far. One that answers before it has
// been sent everything is timed from the beginning.
func (s *sending) took() time.Duration { return time.Since(s.began) - time.Duration(s.sent.Load()) }

// counting counts the connections of clients and what goes over them.
type counting struct {
	net.Listener
	load *load
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.load.connected()
	return &clientConn{connection{Conn: conn, load: c.load}}, nil
}

// connection is a connection that is counted as open until it is closed.
type connection struct {
	net.Conn
	load *load
	once sync.Once
}

func (c *connection) Close() error {
	c.once.Do(func() { c.load.open.Add(-1) })
	return c.Conn.Close()
}

type clientConn struct{ connection }

func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.load.bytes.Add(uint64(n))
	return n, err
}

func (c *clientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.load.bytes.Add(uint64(n))
	return n, err
}

// CloseWrite lets the server end an answer before it ends the connection.
func (c *clientConn) CloseWrite() error { return closeWrite(c.Conn) }

// dial makes a connection to a target and counts it for the listener whose
// request wanted one.
func (b *Balancer) dial(ctx context.Context, _, address string) (net.Conn, error) {
	m := ctx.Value(routeKey{}).(*route).meter
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := b.Network.Dial(ctx, address)
	if err != nil {
		m.failed.Add(1)
		return nil, err
	}
	m.load.connected()
	return &connection{Conn: conn, load: m.load}, nil
}
