package balance

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Flows counts the TCP connections that a listener or a group has carried.
type Flows struct {
	New     uint64 // accepted
	Active  int    // open now
	Refused uint64 // reset, because no target took them
	Retried uint64 // taken by a second target after the first did not answer
	In, Out uint64 // bytes from clients, bytes from targets
}

type flowCounts struct {
	fresh, refused, retried, in, out atomic.Uint64
	active, most                     atomic.Int64
}

func (c *flowCounts) began() {
	c.fresh.Add(1)
	raise(&c.most, c.active.Add(1))
}

func (c *flowCounts) read() Flows {
	return Flows{c.fresh.Load(), int(c.active.Load()), c.refused.Load(), c.retried.Load(), c.in.Load(), c.out.Load()}
}

// since is what was counted after before was taken, and what is active.
func (f Flows) since(before Flows) Flows {
	return Flows{f.New - before.New, f.Active, f.Refused - before.Refused, f.Retried - before.Retried, f.In - before.In, f.Out - before.Out}
}

// ListenerFlows is what a TCP listener has carried since it was made.
func (b *Balancer) ListenerFlows(id string) Flows {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if l := b.listeners[id]; l != nil {
		return l.load.flows.read()
	}
	return Flows{}
}

// GroupFlows is what a group has carried for TCP listeners since it was made.
func (b *Balancer) GroupFlows(id string) Flows {
	if g := b.group(id); g != nil {
		return g.flows.read()
	}
	return Flows{}
}

// flowServer carries a TCP listener's connections. A connection has one target,
// chosen when it comes, and stays with it whatever the weights do after.
type flowServer struct {
	b       *Balancer
	l       *listener
	socket  net.Listener
	carried sync.WaitGroup

	mu     sync.Mutex
	open   map[*flow]bool
	closed bool // takes no new connections
	broken bool // nor keeps those that are open
}

// flow is a connection of a client and one to its target.
type flow struct{ client, target *conn }

// cut resets both.
func (f *flow) cut() {
	reset(f.client.Conn)
	reset(f.target.Conn)
}

// closeWrite ends one way of a connection, where its kind of network can: TCP does,
// and that in memory.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// reset ends a connection as nobody can take it for an end: under TLS nothing is said.
func reset(c net.Conn) {
	if s, ok := c.(*tls.Conn); ok {
		reset(s.NetConn())
	} else if l, ok := c.(interface{ SetLinger(seconds int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}

// serve accepts until the server is shut down.
func (s *flowServer) serve() { accept(s.socket, s.admit) }

// admit begins to carry a connection, unless the server takes no new ones.
func (s *flowServer) admit(client net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		reset(client)
		return
	}
	s.carried.Go(func() { s.carry(client) })
}

// Shutdown takes no new connections and waits until those that are open have
// ended, or ctx has.
func (s *flowServer) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.socket.Close()
	ended := make(chan struct{})
	go func() { s.carried.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close cuts all connections and returns when they have ended.
func (s *flowServer) Close() error {
	s.mu.Lock()
	s.closed, s.broken = true, true
	var open []*flow
	for f := range s.open {
		open = append(open, f)
	}
	s.mu.Unlock()
	cutAll(open)
	err := s.socket.Close()
	s.carried.Wait()
	return err
}

// carry finds a target for a client and moves bytes until both sides have ended.
func (s *flowServer) carry(client net.Conn) {
	counts := []*flowCounts{&s.l.load.flows}
	var g *group
	spec := s.l.live.Load()
	if to := spec.rules[0].route(); to.group != nil && to.group.known.Load() {
		g = to.group
		counts = append(counts, &g.flows, &to.meter.flows)
	}
	for _, c := range counts {
		c.began()
		defer c.active.Add(-1)
	}
	if spec.tls != nil {
		if client = secured(client, spec); client == nil {
			return
		}
	}
	t, to := s.reach(g, peerOf(client), counts)
	if to == nil {
		for _, c := range counts {
			c.refused.Add(1)
		}
		reset(client)
		return
	}
	defer s.b.leave(g, t)
	f := &flow{new(conn), new(conn)}
	f.client.init(client, larges)
	f.target.init(to, larges)
	if s.enlist(g, t, f) && g.introduces(f) == nil {
		limit := cmp.Or(spec.Idle, flowIdle)
		idle := time.AfterFunc(limit, f.cut)
		defer idle.Stop()
		f.carry(func(n int) {
			idle.Reset(limit)
			for _, c := range counts {
				c.in.Add(uint64(n))
			}
		}, func(n int) {
			idle.Reset(limit)
			for _, c := range counts {
				c.out.Add(uint64(n))
			}
		})
	} else {
		f.cut()
	}
	s.delist(g, t, f)
}

// flowIdle is after how long a connection is reset on which nothing moves, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/network/network-load-balancers.html#connection-idle-timeout
const flowIdle = 350 * time.Second

// secured is a client's connection under TLS, nil if they do not agree.
func secured(client net.Conn, spec *live) net.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	secure := tls.Server(client, spec.tls)
	if secure.HandshakeContext(ctx) != nil {
		client.Close()
		return nil
	}
	return secure
}

// peerOf is the address of a connection's other side, if it has one.
func peerOf(c net.Conn) (peer netip.AddrPort) {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		peer = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), uint16(a.Port))
	}
	return peer
}

// introduces tells the target whose connection it is, where its group wants that:
// the header of version 2 of the PROXY protocol.
// https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
func (g *group) introduces(f *flow) error {
	g.mu.Lock()
	wanted := g.spec.ProxyHeader
	g.mu.Unlock()
	if !wanted {
		return nil
	}
	from, to := peerOf(f.client.Conn), localOf(f.client.Conn)
	out := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21) // version 2, PROXY
	if from.Addr().Is4() && to.Addr().Is4() {
		out = append(out, 0x11, 0, 12) // TCP over IPv4
	} else {
		out = append(out, 0x21, 0, 36)
		from, to = netip.AddrPortFrom(netip.AddrFrom16(from.Addr().As16()), from.Port()), netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	out = append(append(out, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	out = binary.BigEndian.AppendUint16(out, from.Port())
	out = binary.BigEndian.AppendUint16(out, to.Port())
	_, err := f.target.Write(out)
	return err
}

// byAddress reports whether a client's address says which target it has.
func (g *group) byAddress() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.spec.StickyIP
}

func localOf(c net.Conn) (local netip.AddrPort) {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		local = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), uint16(a.Port))
	}
	return local
}

// reach connects to a target of the group. One that does not answer is passed
// over, once, for another that is healthy; guessed.
func (s *flowServer) reach(g *group, client netip.AddrPort, counts []*flowCounts) (*target, net.Conn) {
	if g == nil {
		return nil, nil
	}
	take := func(not *target) *target { return g.take(not, s.b.Clock.Now) }
	if g.byAddress() {
		take = func(not *target) *target { return g.takeBy(client.Addr(), not) }
	}
	var first *target
	for range 2 {
		t := take(first)
		if t == nil {
			break
		}
		if first != nil {
			for _, c := range counts {
				c.retried.Add(1)
			}
		}
		conn, err := s.b.dialTarget(context.Background(), t.at)
		if err == nil {
			t.requests.Add(1)
			return t, conn
		}
		s.b.leave(g, t)
		first = t
	}
	return nil, nil
}

// enlist notes a flow where it can be found to be cut: at its server and at its
// target. It says no when one of them was cut while the flow came to be.
func (s *flowServer) enlist(g *group, t *target, f *flow) bool {
	g.mu.Lock()
	cut := t.cut
	if t.flows == nil {
		t.flows = map[*flow]bool{}
	}
	t.flows[f] = true
	g.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[f] = true
	return !cut && !s.broken
}

func (s *flowServer) delist(g *group, t *target, f *flow) {
	g.mu.Lock()
	delete(t.flows, f)
	g.mu.Unlock()
	s.mu.Lock()
	delete(s.open, f)
	s.mu.Unlock()
}

// carry moves bytes both ways. The end of one side is told to the other, which
// may go on: a half-close. A side that breaks breaks the other.
func (f *flow) carry(in, out func(n int)) {
	var both sync.WaitGroup
	both.Go(func() { f.move(f.target, f.client, in) })
	f.move(f.client, f.target, out)
	both.Wait()
	f.client.Close()
	f.target.Close()
}

func (f *flow) move(to, from *conn, moved func(n int)) {
	whole := body{toEnd: true}
	if whole.move(to.Conn, from, false, moved) != nil {
		f.cut()
	} else {
		closeWrite(to)
	}
	from.release()
}

// overdue marks the targets whose draining is over, where that cuts their flows,
// and returns the flows. One that was put back has not drained. The group is locked.
func (g *group) overdue() (flows []*flow) {
	for _, t := range g.leaving {
		back := slices.ContainsFunc(g.targets, func(o *target) bool { return o.addr == t.addr })
		if g.spec.Cut && !back && !slices.Contains(g.spec.Draining, t.addr) {
			t.cut = true
			flows = append(flows, t.all()...)
		}
	}
	return flows
}

// doomed is the flows of unhealthy targets, where there is a healthy one and that
// cuts them, documented. The group is locked.
func (g *group) doomed() (flows []*flow) {
	if !g.spec.CutUnhealthy || !slices.ContainsFunc(g.targets, func(t *target) bool { return t.state == Healthy }) {
		return nil
	}
	for _, t := range g.targets {
		if t.state == Unhealthy {
			flows = append(flows, t.all()...)
		}
	}
	return flows
}

func (t *target) all() (flows []*flow) {
	for f := range t.flows {
		flows = append(flows, f)
	}
	return flows
}

func cutAll(flows []*flow) {
	for _, f := range flows {
		f.cut()
	}
}
