package balance

import (
	"net/netip"
	"testing"
	"time"
)

// grouped is a group of n healthy targets.
func grouped(n int, spec Group) (*group, []*target) {
	g := &group{spec: spec}
	for i := range n {
		g.targets = append(g.targets, &target{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80), state: Healthy})
	}
	return g, g.targets
}

func TestTheTargetWithTheFewestRequestsIsChosen(t *testing.T) {
	g, all := grouped(3, Group{Algorithm: LeastOutstanding})
	now := func() time.Time { return time.Time{} }
	all[0].inFlight.Store(2)
	all[2].inFlight.Store(1)
	for i, want := range []int{1, 2, 1, 2, 0, 1} { // in turn among equals
		if got := g.take(nil, now); got != all[want] {
			t.Fatalf("request %d went to %v, not to %v", i, got.addr, all[want].addr)
		}
	}
	all[1].state = Unhealthy
	all[1].inFlight.Store(0)
	if got := g.take(nil, now); got == all[1] {
		t.Error("an unhealthy target was chosen")
	}
}

func TestRandomChoiceIsFair(t *testing.T) {
	g, all := grouped(4, Group{Algorithm: WeightedRandom})
	for range 8000 {
		g.take(nil, time.Now)
	}
	for _, x := range all {
		if n := x.inFlight.Load(); n < 1700 || n > 2300 {
			t.Errorf("a target had %d of 8000", n)
		}
	}
}

// Half the slow start over, a target has half of a full share.
func TestASlowStartRampsUp(t *testing.T) {
	g, all := grouped(2, Group{SlowStart: time.Minute})
	began := time.Unix(1000, 0)
	all[1].healthy = began
	for at, want := range map[time.Duration]int64{6 * time.Second: 91, 30 * time.Second: 333, time.Minute: 500, time.Hour: 500} {
		all[1].inFlight.Store(0)
		for range 1000 {
			g.take(nil, func() time.Time { return began.Add(at) })
		}
		if n := all[1].inFlight.Load(); n < want-1 || n > want+1 {
			t.Errorf("after %v it had %d of 1000, want %d", at, n, want)
		}
	}
	if since := g.beginsSlowly(began.Add(time.Hour)); since.IsZero() {
		t.Error("a further target begins at once")
	}
	fresh, _ := grouped(1, Group{SlowStart: time.Minute})
	fresh.targets[0].state = Initial
	if !fresh.beginsSlowly(began).IsZero() {
		t.Error("a group of no healthy target begins slowly")
	}
}

func TestTooFewHealthyTargetsAreHelpedByAll(t *testing.T) {
	g, all := grouped(3, Group{MinHealthy: 2})
	all[0].state, all[1].state = Unhealthy, Unhealthy
	seen := map[*target]bool{}
	for range 3 {
		seen[g.take(nil, time.Now)] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d targets had a request", len(seen))
	}
	if g.take(all[2], time.Now) != nil {
		t.Error("a request was repeated at an unhealthy target")
	}
}

// An address keeps its target while others come and go.
func TestAnAddressKeepsItsTarget(t *testing.T) {
	g, all := grouped(5, Group{})
	before := map[netip.Addr]*target{}
	for i := range 100 {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		before[a] = g.takeBy(a, nil)
	}
	all[3].state = Unhealthy
	moved := 0
	for a, was := range before {
		if now := g.takeBy(a, nil); now != was {
			if was != all[3] {
				t.Errorf("%v went from a healthy target to another", a)
			}
			moved++
		}
	}
	if moved == 0 || moved > 50 {
		t.Errorf("%d of 100 have moved", moved)
	}
}
