package balance

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"serin/internal/metric"
)

// Load is what a listener has carried since it was measured last. Each event is
// in the measurement that it happened in: of a request under way meanwhile, the
// one counts that it was sent, the next its answer.
type Load struct {
	Listener  string
	Own       map[int]uint64 // the balancer's own answers, by code
	Fixed     uint64         // those of them that a rule wanted
	Redirects uint64         // as fixed answers, elsewhere
	Opened    uint64         // connections that clients made, and those made to targets
	Open      int64          // the most of both that were open at one time
	Bytes     uint64         // from and to clients
	Flows     Flows          // of a TCP listener; Active is the most that were open at one time
	Groups    map[string]GroupLoad
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
	own              [600]atomic.Uint64
	fixed, redirects atomic.Uint64
	bytes            atomic.Uint64
	opened           atomic.Uint64
	open             atomic.Int64
	most             atomic.Int64 // of open
	underWay         atomic.Int64 // requests
	flows            flowCounts

	// Under the balancer's mutex:
	told      sums                 // at the last measurement
	toldOwn   map[int]uint64       // codes
	toldFlows Flows                //
	meters    map[[2]string]*meter // by rule and group, all that it ever had
	rules     map[string]*tally    // every rule that it ever had
	over      bool                 // it had no listener and no load at the last measurement
}

type sums struct{ fixed, redirects, bytes, opened uint64 }

// codes is the balancer's own answers so far.
func (l *load) codes() map[int]uint64 {
	out := map[int]uint64{}
	for code := range l.own {
		if n := l.own[code].Load(); n > 0 {
			out[code] = n
		}
	}
	return out
}

// tally counts requests and answers.
type tally struct {
	requests atomic.Uint64
	codes    [6]atomic.Uint64 // by hundreds; 0: no answer
	took     atomic.Int64     // nanoseconds of all answers
}

// Tally is what was counted since the balancer began.
type Tally struct {
	Requests uint64
	Codes    [6]uint64 // answers, by hundreds
	Took     time.Duration
}

func (t *tally) read() (out Tally) {
	out.Requests, out.Took = t.requests.Load(), time.Duration(t.took.Load())
	for i := range t.codes {
		out.Codes[i] = t.codes[i].Load()
	}
	return out
}

// answered counts an answer and the time that it took.
func (t *tally) answered(code int, took time.Duration) {
	if class := code / 100; class < len(t.codes) {
		t.codes[class].Add(1)
	}
	t.took.Add(int64(took))
}

func (t Tally) since(before Tally) Tally {
	t.Requests, t.Took = t.Requests-before.Requests, t.Took-before.Took
	for i := range t.Codes {
		t.Codes[i] -= before.Codes[i]
	}
	return t
}

// meter counts for one group of a rule.
type meter struct {
	tally
	load   *load
	flows  flowCounts
	failed atomic.Uint64
	times  atomic.Pointer[metric.Histogram] // nil until there is an answer

	// What was told at the last measurement, under the balancer's mutex:
	told      Tally
	toldTimes *metric.Counts // nil: nothing
	toldFails uint64
}

// answered counts a target's answer and the time that it took.
func (m *meter) answered(code int, took time.Duration) {
	m.tally.answered(code, took)
	h := m.times.Load()
	if h == nil {
		m.times.CompareAndSwap(nil, new(metric.Histogram))
		h = m.times.Load()
	}
	h.Add(took)
}

// Measure returns what every listener has carried since the last call, and
// those that are gone meanwhile a last time.
func (b *Balancer) Measure() []Load {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Load
	for id, l := range b.loads {
		underWay := l.underWay.Load()+l.flows.active.Load() > 0 // before its counters: what they miss is still there the next time
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

// take is what was counted since the last call, and reports whether there was anything.
func (l *load) take(id string) (out Load, some bool) {
	now := sums{l.fixed.Load(), l.redirects.Load(), l.bytes.Load(), l.opened.Load()}
	out = Load{
		Listener: id, Own: map[int]uint64{}, Groups: map[string]GroupLoad{},
		Fixed: now.fixed - l.told.fixed, Redirects: now.redirects - l.told.redirects,
		Bytes: now.bytes - l.told.bytes, Opened: now.opened - l.told.opened, Open: l.most.Swap(0),
	}
	l.told = now
	raise(&l.most, l.open.Load())
	for code, n := range l.codes() {
		if since := n - l.toldOwn[code]; since > 0 {
			out.Own[code], l.toldOwn[code] = since, n
		}
	}
	flows := l.flows.read()
	out.Flows, l.toldFlows = flows.since(l.toldFlows), flows
	out.Flows.Active = int(l.flows.most.Swap(0))
	raise(&l.flows.most, l.flows.active.Load())
	for of, m := range l.meters {
		if g, some := m.take(); some {
			out.Groups[of[1]] = out.Groups[of[1]].plus(g)
		}
	}
	return out, len(out.Own)+len(out.Groups) > 0 || out.Bytes+out.Opened+out.Flows.New+out.Flows.In+out.Flows.Out > 0
}

// plus is what a group has had of two rules.
func (g GroupLoad) plus(other GroupLoad) GroupLoad {
	g.Requests, g.Failed = g.Requests+other.Requests, g.Failed+other.Failed
	for i, n := range other.Codes {
		g.Codes[i] += n
	}
	g.Times.Merge(other.Times)
	return g
}

// take is what was counted since the last call.
func (m *meter) take() (out GroupLoad, some bool) {
	now, fails := m.read(), m.failed.Load()
	since := now.since(m.told)
	out = GroupLoad{Requests: since.Requests, Codes: since.Codes, Failed: fails - m.toldFails}
	m.told, m.toldFails = now, fails
	if h := m.times.Load(); h != nil {
		counts := h.Counts()
		if m.toldTimes == nil {
			m.toldTimes = new(metric.Counts)
		}
		out.Times, m.toldTimes = counts.Since(m.toldTimes).Set(), counts
	}
	return out, since != Tally{} || out.Failed > 0 || out.Times.Count > 0
}

// loadOf is the counters of a listener: those that it had before, if any.
func (b *Balancer) loadOf(listener string) *load {
	l := b.loads[listener]
	if l == nil {
		l = &load{toldOwn: map[int]uint64{}, meters: map[[2]string]*meter{}, rules: map[string]*tally{}}
		b.loads[listener] = l
	}
	return l
}

func (l *load) rule(id string) *tally {
	t := l.rules[id]
	if t == nil {
		t = &tally{}
		l.rules[id] = t
	}
	return t
}

func (l *load) meter(rule, group string) *meter {
	of := [2]string{rule, group}
	m := l.meters[of]
	if m == nil {
		m = &meter{load: l}
		l.meters[of] = m
	}
	return m
}

// answered counts an answer that the balancer made itself.
func (l *load) answered(code int) {
	if code < len(l.own) {
		l.own[code].Add(1)
	}
}

// clientGone is the code that a load balancer notes when its client did not wait
// for an answer, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html
const clientGone = 460

func (l *load) connected() {
	l.opened.Add(1)
	raise(&l.most, l.open.Add(1))
}

// raise makes the most what is open, if that is more.
func raise(most *atomic.Int64, open int64) {
	for {
		was := most.Load()
		if open <= was || most.CompareAndSwap(was, open) {
			return
		}
	}
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

// clientConn is a connection of a client that counts what goes over it.
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

// SetLinger is what reset asks for.
func (c *clientConn) SetLinger(seconds int) error {
	if l, ok := c.Conn.(interface{ SetLinger(seconds int) error }); ok {
		return l.SetLinger(seconds)
	}
	return nil
}

// CloseWrite lets the server end an answer before it ends the connection.
func (c *clientConn) CloseWrite() error { return closeWrite(c.Conn) }

// Stats is what a listener has carried since it was made.
type Stats struct {
	Listener string
	Own      map[int]uint64 // the balancer's own answers, by code
	Opened   uint64         // connections that clients made, and those made to targets
	Open     int64          // of both, now
	UnderWay int64          // requests
	Bytes    uint64         // from and to clients
	Flows    Flows          // of a TCP listener
	Rules    map[string]RuleStats
}

// RuleStats is what a rule has had of a listener's requests.
type RuleStats struct {
	Tally
	Groups map[string]GroupStats // that it forwards to now
}

// GroupStats is what one group has had of a rule's requests.
type GroupStats struct {
	Tally
	Failed uint64         // connections to targets that could not be made
	Times  *metric.Counts // from the end of a request to the head of its answer
	Flows  Flows          // of a TCP listener
}

// TargetStats is what a target has had since it was put into its group; of a TCP
// listener its requests are flows.
type TargetStats struct {
	Target
	Tally
	InFlight int
}

// Stats is what every listener has carried.
func (b *Balancer) Stats() (list []Stats) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for id, l := range b.loads {
		if b.listeners[id] == nil {
			continue
		}
		s := Stats{
			Listener: id, Own: l.codes(), Opened: l.opened.Load(), Open: l.open.Load(), UnderWay: l.underWay.Load(), Bytes: l.bytes.Load(),
			Flows: l.flows.read(), Rules: map[string]RuleStats{},
		}
		for _, r := range b.listeners[id].live.Load().rules {
			rule := RuleStats{r.tally.read(), map[string]GroupStats{}}
			for i, m := range r.meters {
				rule.Groups[r.Forward[i].Group] = GroupStats{m.read(), m.failed.Load(), m.times.Load().Counts(), m.flows.read()}
			}
			s.Rules[r.ID] = rule
		}
		list = append(list, s)
	}
	return list
}

// TargetStats is what the targets of a group have had; those that drain are not
// among them.
func (b *Balancer) TargetStats(group string) (list []TargetStats) {
	g := b.group(group)
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.targets {
		list = append(list, TargetStats{Target{Addr: t.addr, Generation: t.generation}, t.read(), int(t.inFlight.Load())})
	}
	return list
}
