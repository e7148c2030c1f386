// Package balance carries requests and connections: listeners, rules, weighted
// target groups, health checks and draining.
//
// It is told levels, not changes: Set replaces the whole configuration of a
// listener or a group, and saying the same twice is harmless. A new weight
// holds for the next request. Requests under way are never cut by a change: a
// target that is taken out gets no new ones and is gone when its last is
// answered. It knows addresses and weights; it never sees a row or an ARN.
package balance

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"serin/internal/clock"
)

// Health is what the checks say of a target.
type Health struct {
	Generation int64
	State      HealthState
	Detail     string // why it is unhealthy
	InFlight   int    // requests under way
	Draining   bool   // out of the group, its last requests under way
}

// HealthState is what a target is taken for.
type HealthState string

const (
	Initial   HealthState = "initial"   // not checked often enough yet
	Healthy   HealthState = "healthy"   //
	Unhealthy HealthState = "unhealthy" //
	Unused    HealthState = "unused"    // no rule forwards to its group, so nobody checks
)

// Traffic counts what became of a group's requests beside their answers.
type Traffic struct {
	Retried    uint64 // sent to a second target after the first died
	Unanswered uint64 // sent, and answered by no target
}

// Balancer is a set of listeners and groups. Run must run for health checks.
type Balancer struct {
	Clock *clock.Clock
	Log   *slog.Logger
	// Changed is called with a group when a target's health changed or one has
	// drained, or when a rule began or ceased to forward to it.
	Changed func(group string)
	// Network is where it listens and where its targets are.
	Network Network

	drain      atomic.Int64       // how long requests may go on when Run ends
	exchanges  *sync.Pool         // of *exchange
	transports [2]*http.Transport // for requests of HTTP/2, to targets of HTTP/1.1 and of HTTP/2
	wake       chan struct{}

	mu        sync.RWMutex
	closed    bool // Run has ended
	listeners map[string]*listener
	groups    map[string]*group
	uses      map[string]int // by group, of rules that forward to it
	due       due
	loads     map[string]*load // by listener, those that are gone and not measured yet included
}

type listener struct {
	server server
	socket net.Listener
	addr   netip.AddrPort
	at     string // addr in words
	live   atomic.Pointer[live]
	load   *load
}

// live is what a listener is to do now.
type live struct {
	Listener
	rules []*rule
	tls   *tls.Config // nil without TLS
}

func (l *live) idle() time.Duration { return cmp.Or(l.Idle, 60*time.Second) }
func (l *live) life() time.Duration { return cmp.Or(l.Life, time.Hour) }

// match is the rule of a request, nil if there is none.
func (l *live) match(r *request) *rule {
	for _, rule := range l.rules {
		if rule.matches(r) {
			return rule
		}
	}
	return nil
}

// server is what serves a listener's socket: a *front or a *flowServer.
type server interface {
	Shutdown(context.Context) error
	Close() error
}

type rule struct {
	Rule
	match   []*condition
	tally   *tally
	mu      sync.Mutex
	current []int    // smooth weighted round robin, one for each of Forward
	groups  []*group // of Forward
	meters  []*meter // of Forward
}

type group struct {
	id      string
	tag     string      // in cookies
	known   atomic.Bool // it is wanted, not only forwarded to
	sticky  atomic.Pointer[Sticky]
	version atomic.Pointer[groupVersion]
	mu      sync.Mutex
	spec    Group
	used    bool // some rule forwards to it
	next    int
	seed    maphash.Seed
	targets []*target // in the group
	leaving []*target // taken out, answering their last requests

	retried, unanswered atomic.Uint64 // requests
	flows               flowCounts
}

// groupVersion is what a group's targets speak.
type groupVersion struct {
	Version
	tls bool
}

type target struct {
	tally
	addr       netip.AddrPort
	at         string // addr in words
	tag        string // in cookies
	generation int64
	inFlight   atomic.Int64
	leaving    atomic.Bool // taken out
	kept       kept

	// Under the group's mutex:
	state    HealthState
	detail   string
	healthy  time.Time // when it became so after it was not, in stage time; zero: it was from the first
	turn     int       // in the slow start's round robin
	ok, bad  int       // consecutive results
	queued   bool      // its next check has a time
	checking bool      // it is being checked
	gone     bool      // from the group
	flows    map[*flow]bool
	cut      bool // no flow may be to it any longer
}

// identity is what makes a target the same.
type identity struct {
	addr       netip.AddrPort
	generation int64
}

// New returns an empty balancer.
func New(c *clock.Clock, log *slog.Logger) *Balancer {
	b := &Balancer{
		Clock: c, Log: log, Changed: func(string) {}, Network: machine{}, wake: make(chan struct{}, 1), exchanges: newExchanges(),
		listeners: map[string]*listener{}, groups: map[string]*group{}, uses: map[string]int{}, loads: map[string]*load{},
	}
	b.transports = b.newTransports()
	b.Drain(drained)
	return b
}

// drained is how long requests go on if nobody says more.
const drained = 2 * time.Second

// Drain says how long requests under way may go on when Run ends; wall time. If that
// is more than usual, somebody takes the sockets over, and connections are parted from
// gently.
func (b *Balancer) Drain(d time.Duration) { b.drain.Store(int64(d)) }

// Network is TCP: this machine's, or one in memory.
type Network interface {
	Listen(addr string) (net.Listener, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

type machine struct{}

func (machine) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (machine) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

// SetListener makes a listener as wanted and returns where it listens. A
// listener that stays keeps its socket. When its port cannot be had, port 0 of
// the same address is tried, and the caller is told by the address returned. After
// Run has ended there is none: net.ErrClosed.
func (b *Balancer) SetListener(spec Listener) (netip.AddrPort, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return netip.AddrPort{}, net.ErrClosed
	}
	l := b.listeners[spec.ID]
	if l != nil {
		if was := l.live.Load(); was.Bind != spec.Bind || was.TCP != spec.TCP || (was.TLS == nil) != (spec.TLS == nil) {
			delete(b.listeners, spec.ID)
			defer b.use(was.rules, -1) // when the new ones are counted
			l.socket.Close()           // its port may be wanted again at once
			go shutdown(l.server)
			l = nil
		}
	}
	next, err := b.prepare(spec, l)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if l == nil {
		socket, err := b.listen(spec.Bind)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("listening on %s: %w", spec.Bind, err)
		}
		l = &listener{socket: socket, addr: socket.Addr().(*net.TCPAddr).AddrPort(), load: b.loadOf(spec.ID)}
		l.at = l.addr.String()
		b.listeners[spec.ID] = l
		defer b.serve(l, socket, spec.TCP) // when its rules are there
	}
	b.use(next.rules, 1)
	if old := l.live.Swap(next); old != nil {
		b.use(old.rules, -1)
		if f, ok := l.server.(*front); ok {
			f.rest(next.idle())
		}
	}
	return l.addr, nil
}

// prepare makes a listener's wish ready to be followed. A rule whose shares did not
// change goes on where it was, so that repeating a level does not disturb the
// distribution.
func (b *Balancer) prepare(spec Listener, l *listener) (*live, error) {
	next := &live{Listener: spec, tls: spec.TLS.config(spec.TCP, !spec.Headers.NoHTTP2)}
	load := b.loadOf(spec.ID)
	for _, r := range spec.Rules {
		n := &rule{Rule: r, tally: load.rule(r.ID), current: make([]int, len(r.Forward))}
		for _, c := range r.Match {
			ready, err := c.prepare()
			if err != nil {
				return nil, fmt.Errorf("reading the rule %s: %w", r.ID, err)
			}
			n.match = append(n.match, ready)
		}
		for _, w := range r.Forward {
			n.groups, n.meters = append(n.groups, b.groupOf(w.Group)), append(n.meters, load.meter(r.ID, w.Group))
		}
		if l != nil {
			for _, o := range l.live.Load().rules {
				if o.ID == r.ID && slices.Equal(o.Forward, r.Forward) {
					o.mu.Lock()
					copy(n.current, o.current)
					o.mu.Unlock()
				}
			}
		}
		next.rules = append(next.rules, n)
	}
	return next, nil
}

// config is nil without TLS.
func (t *TLS) config(tcp, http2 bool) *tls.Config {
	if t == nil {
		return nil
	}
	c := &tls.Config{Certificates: t.Certificates, MinVersion: cmp.Or(t.Min, tls.VersionTLS12), MaxVersion: t.Max, CipherSuites: t.Suites}
	switch {
	case tcp:
		c.NextProtos = t.Next
	case http2:
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	return c
}

// serve begins to serve a listener's socket.
func (b *Balancer) serve(l *listener, socket net.Listener, tcp bool) {
	if tcp {
		s := &flowServer{b: b, l: l, socket: socket, open: map[*flow]bool{}}
		l.server = s
		go s.serve()
		return
	}
	f := newFront(b, l, socket)
	l.server = f
	go f.serve()
}

// listen binds the address that is asked for or, where the machine refuses its
// port, another port of the same address.
func (b *Balancer) listen(bind string) (net.Listener, error) {
	socket, err := b.Network.Listen(bind)
	if err == nil {
		return socket, nil
	}
	host, _, splitErr := net.SplitHostPort(bind)
	if splitErr != nil {
		return nil, err
	}
	other, err2 := b.Network.Listen(net.JoinHostPort(host, "0"))
	if err2 != nil {
		return nil, errors.Join(err, err2)
	}
	return other, nil
}

// shutdown lets requests under way end.
func shutdown(s server) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		s.Close()
	}
}

// RemoveListener closes a listener; its requests under way end.
func (b *Balancer) RemoveListener(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.listeners[id]; l != nil {
		delete(b.listeners, id)
		b.use(l.live.Load().rules, -1)
		l.socket.Close() // its port may be wanted again at once
		go shutdown(l.server)
	}
}

// use counts rules that forward to their groups, or no longer do; only groups that
// some rule forwards to are checked.
func (b *Balancer) use(rules []*rule, by int) {
	for _, r := range rules {
		for _, w := range r.Forward {
			b.uses[w.Group] += by
			g := b.groups[w.Group]
			if b.uses[w.Group] == 0 {
				delete(b.uses, w.Group)
				if g != nil && !g.known.Load() {
					delete(b.groups, w.Group)
				}
			}
			if g != nil && g.known.Load() {
				b.mark(g)
			}
		}
	}
}

// mark notes whether a group is used; if it is since now, its targets are checked.
func (b *Balancer) mark(g *group) {
	used := b.uses[g.id] > 0
	g.mu.Lock()
	changed := g.used != used
	g.used = used
	for _, t := range g.targets {
		b.plan(g, t, b.Clock.Now())
		if !used { // no check comes by to end what is kept
			t.kept.prune(time.Now(), false)
		}
	}
	g.mu.Unlock()
	if changed {
		b.Changed(g.id)
	}
}

// plan has a target checked, if its group is used and no check of it is planned or
// under way. The group is locked.
func (b *Balancer) plan(g *group, t *target, at time.Time) {
	if !g.used || t.gone || t.queued || t.checking {
		return
	}
	t.queued = true
	b.due.push(dueCheck{at, g, t})
	clock.Poke(b.wake)
}

// SetGroup makes a group as wanted. A target that stays keeps its health; one
// that is gone drains.
func (b *Balancer) SetGroup(spec Group) { cutAll(b.setGroup(spec)) }

// groupOf is a group, made where it is not there: a rule may forward to it before it
// is wanted.
func (b *Balancer) groupOf(id string) *group {
	g := b.groups[id]
	if g == nil {
		g = &group{id: id, tag: tagOf(id), seed: maphash.MakeSeed()}
		g.version.Store(&groupVersion{})
		b.groups[id] = g
	}
	return g
}

// setGroup returns the flows that are to be cut.
func (b *Balancer) setGroup(spec Group) (over []*flow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.groupOf(spec.ID)
	g.known.Store(true)
	g.sticky.Store(spec.Sticky)
	g.version.Store(&groupVersion{spec.Version, spec.TLS})
	g.mu.Lock()
	if g.spec.Check != spec.Check {
		b.due.hasten(g, b.Clock.Now().Add(spec.Check.Interval))
		clock.Poke(b.wake)
	}
	g.spec = spec
	left := map[identity]*target{}
	for _, t := range g.targets {
		left[identity{t.addr, t.generation}] = t
	}
	g.targets = make([]*target, len(spec.Targets))
	for i, want := range spec.Targets {
		t, stays := left[identity{want.Addr, want.Generation}]
		delete(left, identity{want.Addr, want.Generation})
		if !stays {
			at := want.Addr.String()
			t = &target{addr: want.Addr, at: at, tag: tagOf(fmt.Sprint(spec.ID, at, want.Generation)), generation: want.Generation, state: cmp.Or(want.Was, Initial)}
		}
		g.targets[i] = t
	}
	for _, t := range left {
		t.gone = true
		t.leaving.Store(true) // before it is looked whether it carries something
		if t.inFlight.Load() > 0 {
			g.leaving = append(g.leaving, t)
		}
		t.kept.prune(time.Time{}, true)
	}
	over = g.overdue()
	g.mu.Unlock()
	b.mark(g)
	return over
}

// RemoveGroup forgets a group.
func (b *Balancer) RemoveGroup(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.groups[id]
	if g == nil {
		return
	}
	g.known.Store(false)
	if b.uses[id] == 0 {
		delete(b.groups, id)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.targets {
		t.gone = true
		t.leaving.Store(true)
		t.kept.prune(time.Time{}, true)
	}
	g.targets, g.spec = nil, Group{ID: id}
}

// Knows reports whether there is a group.
func (b *Balancer) Knows(group string) bool { return b.group(group) != nil }

// Groups is the ids of all groups.
func (b *Balancer) Groups() (ids []string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for id, g := range b.groups {
		if g.known.Load() {
			ids = append(ids, id)
		}
	}
	return ids
}

// group is a group that is wanted, or nil.
func (b *Balancer) group(id string) *group {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if g := b.groups[id]; g != nil && g.known.Load() {
		return g
	}
	return nil
}

// Health is what is known of a group's targets, those that drain included.
func (b *Balancer) Health(id string) map[netip.AddrPort]Health {
	g := b.group(id)
	out := map[netip.AddrPort]Health{}
	if g == nil {
		return out
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.leaving {
		if n := t.inFlight.Load(); n > 0 {
			out[t.addr] = Health{Generation: t.generation, State: t.state, InFlight: int(n), Draining: true}
		}
	}
	for _, t := range g.targets {
		h := Health{Generation: t.generation, State: t.state, Detail: t.detail, InFlight: int(t.inFlight.Load())}
		if !g.used {
			h.State, h.Detail = Unused, ""
		}
		out[t.addr] = h
	}
	return out
}

// Traffic is what became of a group's requests since it was made.
func (b *Balancer) Traffic(id string) (t Traffic) {
	if g := b.group(id); g != nil {
		t = Traffic{g.retried.Load(), g.unanswered.Load()}
	}
	return t
}
