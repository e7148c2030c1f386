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
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
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

// Traffic counts what a group has answered.
type Traffic struct {
	Requests uint64
	Codes    [6]uint64 // by hundreds; 0: no answer from a target
	Retried  uint64    // answered by a second target after the first died
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

	transport *http.Transport
	wake      chan struct{}

	mu        sync.RWMutex
	closed    bool // Run has ended
	listeners map[string]*listener
	groups    map[string]*group
	uses      map[string]int // by group, of rules that forward to it
	due       due
	loads     map[string]*load // by listener, those that are gone and not measured yet included
}

type listener struct {
	spec   Listener
	server server
	addr   netip.AddrPort
	rules  atomic.Pointer[[]*rule]
	load   *load
}

// server is what serves a listener's socket: an *http.Server or a *flowServer.
type server interface {
	Shutdown(context.Context) error
	Close() error
}

type rule struct {
	Rule
	mu      sync.Mutex
	current []int    // smooth weighted round robin, one for each of Forward
	meters  []*meter // of Forward
}

type group struct {
	id      string
	spec    Group
	used    bool // some rule forwards to it
	mu      sync.Mutex
	next    int
	targets []*target // in the group
	leaving []*target // taken out, answering their last requests

	requests, retried atomic.Uint64
	codes             [6]atomic.Uint64
	flows             flowCounts
}

type target struct {
	addr       netip.AddrPort
	generation int64
	inFlight   atomic.Int64

	// Under the group's mutex:
	state    HealthState
	detail   string
	ok, bad  int  // consecutive results
	queued   bool // its next check has a time
	checking bool // it is being checked
	gone     bool // from the group
	flows    map[*flow]bool
	cut      bool // no flow may be to it any longer
}

const dialTimeout = 2 * time.Second

// New returns an empty balancer.
func New(c *clock.Clock, log *slog.Logger) *Balancer {
	b := &Balancer{
		Clock: c, Log: log, Changed: func(string) {}, Network: machine{}, wake: make(chan struct{}, 1),
		listeners: map[string]*listener{}, groups: map[string]*group{}, uses: map[string]int{}, loads: map[string]*load{},
	}
	b.transport = &http.Transport{
		DialContext:         b.dial,
		MaxIdleConns:        4096,
		MaxIdleConnsPerHost: 1024,
		IdleConnTimeout:     60 * time.Second,
		DisableCompression:  true,
	}
	return b
}

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
	if l != nil && (l.spec.Bind != spec.Bind || l.spec.TCP != spec.TCP) {
		delete(b.listeners, spec.ID)
		defer b.use(*l.rules.Load(), -1) // when the new ones are counted
		go shutdown(l.server)
		l = nil
	}
	if l == nil {
		socket, err := b.listen(spec.Bind)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("listening on %s: %w", spec.Bind, err)
		}
		l = &listener{addr: socket.Addr().(*net.TCPAddr).AddrPort(), load: b.loadOf(spec.ID)}
		b.listeners[spec.ID] = l
		defer b.serve(l, socket, spec.TCP) // when its rules are there
	}
	l.spec = spec
	rules := make([]*rule, len(spec.Rules))
	for i, r := range spec.Rules {
		rules[i] = &rule{Rule: r, current: make([]int, len(r.Forward)), meters: make([]*meter, len(r.Forward))}
		for n, w := range r.Forward {
			rules[i].meters[n] = l.load.meter(w.Group)
		}
		// A rule whose shares did not change goes on where it was, so that
		// repeating a level does not disturb the distribution.
		if old := l.rules.Load(); old != nil {
			for _, o := range *old {
				if o.ID == r.ID && slices.Equal(o.Forward, r.Forward) {
					o.mu.Lock()
					copy(rules[i].current, o.current)
					o.mu.Unlock()
				}
			}
		}
	}
	b.use(rules, 1)
	if old := l.rules.Swap(&rules); old != nil {
		b.use(*old, -1)
	}
	return l.addr, nil
}

// serve begins to serve a listener's socket.
func (b *Balancer) serve(l *listener, socket net.Listener, tcp bool) {
	if tcp {
		s := &flowServer{b: b, l: l, socket: socket, open: map[*flow]bool{}}
		l.server = s
		go s.serve()
		return
	}
	s := &http.Server{
		Handler:           b.handler(l),
		ReadHeaderTimeout: 60 * time.Second,
		IdleTimeout:       60 * time.Second,
		ErrorLog:          slog.NewLogLogger(b.Log.Handler(), slog.LevelDebug),
	}
	l.server = s
	go s.Serve(counting{socket, l.load})
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
		b.use(*l.rules.Load(), -1)
		go shutdown(l.server)
	}
}

// use counts rules that forward to their groups, or no longer do; only groups that
// some rule forwards to are checked.
func (b *Balancer) use(rules []*rule, by int) {
	for _, r := range rules {
		for _, w := range r.Forward {
			b.uses[w.Group] += by
			if n := b.uses[w.Group]; n == 0 {
				delete(b.uses, w.Group)
			}
			if g := b.groups[w.Group]; g != nil {
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

// setGroup returns the flows that are to be cut.
func (b *Balancer) setGroup(spec Group) (over []*flow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.groups[spec.ID]
	if g == nil {
		g = &group{id: spec.ID}
		b.groups[spec.ID] = g
	}
	g.mu.Lock()
	g.spec = spec
	left := map[Target]*target{}
	for _, t := range g.targets {
		left[Target{t.addr, t.generation}] = t
	}
	g.targets = make([]*target, len(spec.Targets))
	for i, want := range spec.Targets {
		t, stays := left[want]
		delete(left, want)
		if !stays {
			t = &target{addr: want.Addr, generation: want.Generation, state: Initial}
		}
		g.targets[i] = t
	}
	for _, t := range left {
		t.gone = true
		if t.inFlight.Load() > 0 {
			g.leaving = append(g.leaving, t)
		}
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
	delete(b.groups, id)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.targets {
		t.gone = true
	}
}

// Knows reports whether there is a group.
func (b *Balancer) Knows(group string) bool { return b.group(group) != nil }

// Groups is the ids of all groups.
func (b *Balancer) Groups() []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return slices.Collect(maps.Keys(b.groups))
}

// Health is what is known of a group's targets, those that drain included.
func (b *Balancer) Health(id string) map[netip.AddrPort]Health {
	b.mu.RLock()
	g := b.groups[id]
	b.mu.RUnlock()
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

// Traffic is what a group has carried since it was made.
func (b *Balancer) Traffic(id string) Traffic {
	b.mu.RLock()
	g := b.groups[id]
	b.mu.RUnlock()
	var t Traffic
	if g == nil {
		return t
	}
	t.Requests, t.Retried = g.requests.Load(), g.retried.Load()
	for i := range t.Codes {
		t.Codes[i] = g.codes[i].Load()
	}
	return t
}

// handler answers the requests of a listener.
func (b *Balancer) handler(l *listener) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport:    &carrier{b},
		BufferPool:   buffers{},
		ErrorLog:     slog.NewLogLogger(b.Log.Handler(), slog.LevelDebug),
		Rewrite:      func(r *httputil.ProxyRequest) { forwarded(r, l.addr.Port()) },
		ErrorHandler: l.load.answerFailure,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.load.underWay.Add(1)
		defer l.load.underWay.Add(-1)
		for _, rule := range *l.rules.Load() {
			if !rule.matches(r) {
				continue
			}
			if f := rule.Fixed; f != nil {
				l.load.answered(f.Code)
				l.load.fixed.Add(1)
				w.Header().Set("Content-Type", f.ContentType)
				w.WriteHeader(f.Code)
				fmt.Fprint(w, f.Body)
				return
			}
			to := b.route(rule)
			if to == nil {
				l.load.refuse(w, http.StatusServiceUnavailable, "503 Service Temporarily Unavailable")
				return
			}
			proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routeKey{}, to)))
			return
		}
		l.load.refuse(w, http.StatusNotFound, "404 Not Found")
	})
}

// route is where a request goes, and who counts it.
type route struct {
	group *group
	meter *meter
}

type routeKey struct{}

// route picks a group of the rule; nil when there is none to go to.
func (b *Balancer) route(r *rule) *route {
	at := r.pick()
	if at < 0 {
		return nil
	}
	g := b.group(r.Forward[at].Group)
	if g == nil {
		return nil
	}
	return &route{g, r.meters[at]}
}

func (b *Balancer) group(id string) *group {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.groups[id]
}

// forwarded sets the headers that a load balancer adds, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html
func forwarded(r *httputil.ProxyRequest, port uint16) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host
	r.Out.Host = r.In.Host
	if prior := r.In.Header.Values("X-Forwarded-For"); prior != nil {
		r.Out.Header["X-Forwarded-For"] = prior
	}
	r.SetXForwarded()
	r.Out.Header.Del("X-Forwarded-Host")
	r.Out.Header.Set("X-Forwarded-Port", fmt.Sprint(port))
}

// answerFailure is what a client gets when no target answered: 504 when one was
// too slow, 502 when it broke off, 503 when there was none.
func (l *load) answerFailure(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusBadGateway
	switch {
	case errors.Is(err, errNoTarget):
		code = http.StatusServiceUnavailable
	case errors.Is(err, context.Canceled):
		l.answered(clientGone)
		return
	case errors.Is(err, context.DeadlineExceeded):
		code = http.StatusGatewayTimeout
	}
	l.refuse(w, code, fmt.Sprintf("%d %s", code, http.StatusText(code)))
}

// clientGone is the code that a load balancer notes when its client did not wait
// for an answer, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html
const clientGone = 460

var errNoTarget = errors.New("the target group has no targets")

// pick chooses a group by smooth weighted round robin: over any run of requests
// as long as the weights' sum each gets its exact share, evenly spread. It
// returns its place in Forward, -1 when all weights are zero.
func (r *rule) pick() int {
	if len(r.Forward) == 1 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	sum, best := 0, -1
	for i, w := range r.Forward {
		sum += w.Weight
		r.current[i] += w.Weight
		if w.Weight > 0 && (best < 0 || r.current[i] > r.current[best]) {
			best = i
		}
	}
	if best >= 0 {
		r.current[best] -= sum
	}
	return best
}

// take chooses the next target that is healthy or, when none is, any: a load
// balancer fails open, documented. It is counted as under way until left.
func (g *group) take(not *target) *target {
	g.mu.Lock()
	defer g.mu.Unlock()
	var open *target
	for i := range g.targets {
		t := g.targets[(g.next+i)%len(g.targets)]
		if t == not {
			continue
		}
		if t.state == Healthy {
			g.next = (g.next + i + 1) % len(g.targets)
			t.inFlight.Add(1)
			return t
		}
		if open == nil {
			open = t
		}
	}
	if not != nil || open == nil {
		return nil
	}
	if i := slices.Index(g.targets, open); i >= 0 {
		g.next = (i + 1) % len(g.targets)
	}
	open.inFlight.Add(1)
	return open
}

// leave ends a request; the last of a draining target lets it go.
func (b *Balancer) leave(g *group, t *target) {
	if t.inFlight.Add(-1) > 0 {
		return
	}
	g.mu.Lock()
	i := slices.Index(g.leaving, t)
	if i >= 0 && t.inFlight.Load() == 0 {
		g.leaving = slices.Delete(g.leaving, i, i+1)
	}
	g.mu.Unlock()
	if i >= 0 {
		b.Changed(g.id)
	}
}

// carrier sends a request to a target of its group.
type carrier struct{ b *Balancer }

func (c *carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	to := r.Context().Value(routeKey{}).(*route)
	g := to.group
	g.requests.Add(1)
	t := g.take(nil)
	if t == nil {
		g.codes[5].Add(1)
		return nil, errNoTarget
	}
	to.meter.requests.Add(1)
	resp, err := c.send(r, to, t)
	if err != nil && repeatable(r) && r.Context().Err() == nil {
		if other := g.take(t); other != nil {
			g.retried.Add(1)
			resp, err = c.send(r, to, other)
		}
	}
	if err != nil {
		g.codes[0].Add(1)
		return nil, err
	}
	if class := resp.StatusCode / 100; class < len(g.codes) {
		g.codes[class].Add(1)
	}
	return resp, nil
}

// repeatable reports whether a request may be sent again: it is safe to repeat
// and has no body that is used up.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0
	}
	return false
}

func (c *carrier) send(r *http.Request, to *route, t *target) (*http.Response, error) {
	ctx, sending := track(r.Context())
	out := r.Clone(ctx)
	out.URL.Host = t.addr.String()
	resp, err := c.b.transport.RoundTrip(out)
	if err != nil {
		c.b.leave(to.group, t)
		return nil, err
	}
	to.meter.answered(resp.StatusCode, sending.took())
	var once sync.Once
	done := func() { once.Do(func() { c.b.leave(to.group, t) }) }
	if rw, ok := resp.Body.(readWriteCloser); ok { // an upgraded connection
		resp.Body = &upgraded{rw, done}
		return resp, nil
	}
	resp.Body = &counted{resp.Body, done}
	return resp, nil
}
