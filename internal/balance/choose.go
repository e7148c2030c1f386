package balance

import (
	"hash/maphash"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// take chooses a target by the group's algorithm among those that are healthy or,
// when too few are, among all: a load balancer fails open, documented. One that not
// names is passed over, and then only a healthy one will do. It is counted as under
// way until left.
func (g *group) take(not *target, now func() time.Time) *target {
	g.mu.Lock()
	defer g.mu.Unlock()
	open := not == nil && g.failsOpen()
	var t *target
	switch {
	case g.spec.Algorithm == LeastOutstanding:
		t = g.least(not, open)
	case g.spec.Algorithm == WeightedRandom:
		t = g.random(not, open)
	case g.spec.SlowStart > 0:
		t = g.ramped(not, open, now())
	default:
		t = g.inTurn(not, open)
	}
	if t != nil {
		t.inFlight.Add(1)
	}
	return t
}

// failsOpen reports whether fewer targets are healthy than have to be.
func (g *group) failsOpen() bool {
	need := max(g.spec.MinHealthy, 1)
	for _, t := range g.targets {
		if t.state == Healthy {
			if need--; need == 0 {
				return false
			}
		}
	}
	return true
}

func (t *target) takes(not *target, open bool) bool {
	return t != not && (open || t.state == Healthy)
}

// inTurn is round robin.
func (g *group) inTurn(not *target, open bool) *target {
	for i := range g.targets {
		at := (g.next + i) % len(g.targets)
		if t := g.targets[at]; t.takes(not, open) {
			g.next = (at + 1) % len(g.targets)
			return t
		}
	}
	return nil
}

// least is the target with the fewest requests under way, in turn among equals.
func (g *group) least(not *target, open bool) (best *target) {
	next := g.next
	for i := range g.targets {
		at := (g.next + i) % len(g.targets)
		t := g.targets[at]
		if t.takes(not, open) && (best == nil || t.inFlight.Load() < best.inFlight.Load()) {
			best, next = t, at+1
		}
	}
	if best != nil {
		g.next = next % len(g.targets)
	}
	return best
}

func (g *group) random(not *target, open bool) (chosen *target) {
	n := 0
	for _, t := range g.targets {
		if t.takes(not, open) {
			if n++; rand.IntN(n) == 0 {
				chosen = t
			}
		}
	}
	return chosen
}

// ramped is round robin in which a target that became healthy a while ago has the
// share of that while in the slow start, documented. Smooth, as pick is.
func (g *group) ramped(not *target, open bool, now time.Time) (best *target) {
	sum := 0
	for _, t := range g.targets {
		if !t.takes(not, open) {
			continue
		}
		share := 1000
		if since := now.Sub(t.healthy); !t.healthy.IsZero() && since < g.spec.SlowStart {
			share = max(1, int(1000*since/g.spec.SlowStart))
		}
		sum += share
		if t.turn += share; best == nil || t.turn > best.turn {
			best = t
		}
	}
	if best != nil {
		best.turn -= sum
	}
	return best
}

// beginsSlowly is now, for a target that becomes healthy while another is that is
// not slow itself; zero otherwise, documented. The group is locked.
func (g *group) beginsSlowly(now time.Time) time.Time {
	for _, t := range g.targets {
		if t.state == Healthy && (t.healthy.IsZero() || now.Sub(t.healthy) >= g.spec.SlowStart) {
			return now
		}
	}
	return time.Time{}
}

// takeBy takes the target that a client's address says, by rendezvous: it changes
// for those alone whose target goes.
func (g *group) takeBy(client netip.Addr, not *target) (best *target) {
	g.mu.Lock()
	defer g.mu.Unlock()
	open := not == nil && g.failsOpen()
	var most uint64
	for _, t := range g.targets {
		if !t.takes(not, open) {
			continue
		}
		if n := maphash.Comparable(g.seed, [2]any{client, t.addr}); best == nil || n > most {
			best, most = t, n
		}
	}
	if best != nil {
		best.inFlight.Add(1)
	}
	return best
}

// takeNamed takes the target that a cookie names, if it is in the group and healthy.
func (g *group) takeNamed(tag string) *target {
	g.mu.Lock()
	defer g.mu.Unlock()
	open := g.failsOpen()
	for _, t := range g.targets {
		if t.tag == tag && t.takes(nil, open) {
			t.inFlight.Add(1)
			return t
		}
	}
	return nil
}

// leave ends a request; the last of a draining target lets it go.
func (b *Balancer) leave(g *group, t *target) {
	if t.inFlight.Add(-1) > 0 || !t.leaving.Load() {
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

// route is where a request goes, and who counts it.
type route struct {
	group *group
	meter *meter
}

// route picks a group of the rule; its group is nil when there is none to go to.
func (r *rule) route() route {
	at := r.pick()
	if at < 0 {
		return route{}
	}
	return route{r.groups[at], r.meters[at]}
}

// routeTo is the way to the group that a cookie names, if the rule forwards to it.
func (r *rule) routeTo(tag string) (route, bool) {
	for i, g := range r.groups {
		if g.tag == tag {
			return route{r.groups[i], r.meters[i]}, true
		}
	}
	return route{}, false
}

// mismatched is the code of a request that a group's targets cannot be asked in,
// documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html#http-464-issues
const mismatched = 464

// refusal is the code of a request for which no target is asked, 0 if one is.
func (c *choice) refusal(r *request, of Version, grpc bool) int {
	switch {
	case r.sources() > maxSources:
		return 463
	case c.target == nil:
		return http.StatusServiceUnavailable
	}
	return c.group.mismatch(of, grpc)
}

// mismatch is 464 if a request of a version is none for the group, 0 otherwise.
func (g *group) mismatch(of Version, grpc bool) int {
	switch v := g.version.Load().Version; {
	case v == HTTP1 && grpc, v == HTTP2 && of == HTTP1, v == GRPC && (of == HTTP1 || !grpc):
		return mismatched
	}
	return 0
}
