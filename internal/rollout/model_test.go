package rollout

import (
	"testing"
	"time"
)

// world is a deployment and all that is around it, at a moment.
type world struct {
	s       State
	o       Observed
	now     time.Time
	mishaps int // that may still happen
	updates int // that may still come
}

// moment is a world without its date: what differs only in when it is is the same.
type moment struct {
	s       State
	o       Observed
	mishaps int
	updates int
}

func (w world) key() moment {
	ago := func(t time.Time) time.Time {
		if t.IsZero() {
			return t
		}
		return time.Unix(0, 0).Add(t.Sub(w.now))
	}
	s := w.s
	s.Since, s.Moved, s.Shifted, s.Baked, s.Rollback.Started = ago(s.Since), ago(s.Moved), ago(s.Shifted), ago(s.Baked), ago(s.Rollback.Started)
	s.Started, s.Finished, s.StoppedAt, s.Rollback.Safe = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return moment{s, w.o, w.mishaps, w.updates}
}

// next is every world that can follow: each task and each weight moves by itself,
// time passes, tasks fail, and somebody asks to stop.
func (w world) next(want Wanted) (list []world) {
	add := func(change func(*world)) {
		n := w
		change(&n)
		list = append(list, n)
	}
	for _, side := range []struct {
		of   func(*world) *Counts
		want int
	}{{func(n *world) *Counts { return &n.o.Source }, want.Source}, {func(n *world) *Counts { return &n.o.Target }, want.Target}, {func(n *world) *Counts { return &n.o.Others }, want.Others}} {
		c := *side.of(&w)
		if c.Active() < side.want {
			add(func(n *world) { side.of(n).Pending++ })
		}
		if c.Pending > 0 {
			add(func(n *world) { side.of(n).Pending--; side.of(n).Running++ })
		}
		if c.Healthy < c.Running {
			add(func(n *world) { side.of(n).Healthy++ })
		}
		if c.Active() > side.want {
			add(func(n *world) {
				c := side.of(n)
				if c.Pending > 0 {
					c.Pending--
				} else {
					c.Running--
					c.Healthy = min(c.Healthy, c.Running)
				}
			})
		}
		if w.mishaps > 0 && c.Pending > 0 {
			add(func(n *world) { side.of(n).Pending--; side.of(n).FailedToStart++; n.mishaps-- })
		}
		if w.mishaps > 0 && c.Healthy > 0 {
			add(func(n *world) {
				c := side.of(n)
				c.Healthy--
				c.Running--
				c.FailedUnhealthy++
				n.mishaps--
			})
		}
	}
	if w.o.Production != want.Production || w.o.Test != want.Test {
		add(func(n *world) { n.o.Production, n.o.Test = want.Production, want.Test })
	}
	if want.WakeAt.After(w.now) {
		add(func(n *world) { n.now = want.WakeAt })
	}
	if w.updates > 0 && w.s.HasSource {
		add(func(n *world) { n.update() })
	}
	if !w.o.Stop && w.s.Status == InProgress {
		add(func(n *world) { n.o.Stop = true })
	}
	if w.s.AlarmMonitor == Monitoring && w.o.Alarms == "" {
		add(func(n *world) { n.o.Alarms = "errors" })
	}
	return list
}

// update is a newer deployment that takes over: what this one began is in its way,
// and its own tasks come into the group that has what traffic was shifted.
func (w *world) update() {
	w.updates--
	left := w.o.Others
	left.Pending, left.Running, left.Healthy = left.Pending+w.o.Target.Pending, left.Running+w.o.Target.Running, left.Healthy+w.o.Target.Healthy
	w.s = Begin(w.s.Config, true, left.Left() > 0)
	w.o.Target, w.o.Others, w.o.Stop, w.o.Alarms = Counts{}, left, false, ""
}

// Every world that a small service can come to is looked at: none is without a way
// to an end, none shifts traffic to a target that is not whole, none cuts what
// carries the traffic.
func TestEveryWorldHasAWayOut(t *testing.T) {
	linear := Config{Strategy: Linear, StepShare: 400, StepBake: time.Minute, Bake: time.Minute, Traffic: true}
	for name, c := range map[string]Config{
		"reconcile": linear, // a newer update has come in the middle of a shift
		"linear":    {Strategy: Linear, StepShare: 400, StepBake: time.Minute, Bake: time.Minute, Traffic: true, Breaker: Breaker{Enabled: true, Rollback: true, Threshold: Count, Value: 2}},
		"canary":    {Strategy: Canary, CanaryShare: 100, CanaryBake: time.Minute, Bake: time.Minute, Traffic: true, TestTraffic: true, Alarms: Alarms{Enabled: true, Rollback: true}},
		"network":   {Strategy: Canary, CanaryShare: 100, CanaryBake: time.Minute, Bake: time.Minute, Traffic: true, TestTraffic: true, Settle: 10 * time.Minute},
		"rolling":   {Strategy: Rolling, MinimumHealthy: 50, Maximum: 150, Bake: time.Minute, Breaker: Breaker{Enabled: true, Rollback: true, Threshold: Count, Value: 2}},
		"early":     {Strategy: Rolling, MinimumHealthy: 50, Maximum: 200, Bake: time.Minute, Early: Early{Enabled: true, Healthy: 50}},
	} {
		t.Run(name, func(t *testing.T) {
			const desired = 2
			first := world{s: Begin(c, true, false), o: Observed{Desired: desired, Source: Counts{Running: desired, Healthy: desired}}, now: time.Unix(0, 0), mishaps: 2, updates: 1}
			if name == "reconcile" {
				first.s.Reconcile, first.o.Production, first.o.Others = true, 400, Counts{Running: desired, Healthy: desired}
			}
			at := map[moment]int{}
			var before [][]int // whence each world was come to
			var ends []int
			queue := []world{first}
			see := func(w world, from int) {
				k := w.key()
				n, known := at[k]
				if !known {
					n = len(at)
					at[k] = n
					before = append(before, nil)
					queue = append(queue, w)
				}
				before[n] = append(before[n], from)
			}
			queue = nil
			see(first, 0)
			for n := 0; n < len(queue); n++ {
				if n > 2_000_000 {
					t.Fatal("there is no end of worlds")
				}
				w := queue[n]
				s, want := Decide(w.s, w.o, w.now)
				promised(t, c, desired, w, s, want)
				w.s = s
				if s.Status.Terminal() {
					ends = append(ends, n)
					continue
				}
				for _, follows := range w.next(want) {
					see(follows, n)
				}
			}
			out := make([]bool, len(queue))
			for len(ends) > 0 {
				n := ends[len(ends)-1]
				ends = ends[:len(ends)-1]
				if out[n] {
					continue
				}
				out[n] = true
				ends = append(ends, before[n]...)
			}
			for n, ok := range out {
				if !ok {
					t.Fatalf("no way out of %+v", queue[n])
				}
			}
			t.Logf("%d worlds", len(queue))
		})
	}
}

func promised(t *testing.T, c Config, desired int, w world, s State, want Wanted) {
	t.Helper()
	if s.Status == Successful && w.o.Target.Healthy < c.Early.required(desired) {
		t.Fatalf("a success that is none in %+v", w)
	}
	if c.Strategy == Rolling {
		if most := desired * c.Maximum / 100; s.Status == InProgress && want.Source+want.Target > max(most, w.o.Source.Active()+w.o.Target.Active(), desired) {
			t.Fatalf("%d+%d tasks over the maximum in %+v", want.Source, want.Target, w)
		}
		return
	}
	if unsettled(c, w.s, s, w.now) {
		t.Fatalf("%s goes on before its traffic has settled in %+v", w.s.Stage, w)
	}
	if s.Status == InProgress && s.Production > w.s.Production && w.o.Target.Healthy < desired {
		t.Fatalf("traffic is shifted to a target that is not whole in %+v", w)
	}
	if s.Status == InProgress && s.Stage != CleanUp && want.Source < desired {
		t.Fatalf("the source is cut while it may have to carry all in %+v", w)
	}
	if s.Stage == CleanUp && w.s.Stage != CleanUp && w.o.Target.Healthy < desired {
		t.Fatalf("the source goes while the target is not whole in %+v", w)
	}
	if s.Status == RollbackInProgress && w.o.Production > 0 && want.Target < w.o.Target.Active() {
		t.Fatalf("tasks with traffic are stopped in %+v", w)
	}
}

func BenchmarkDecide(b *testing.B) {
	c := Config{Strategy: Canary, CanaryShare: 100, CanaryBake: time.Minute, Bake: time.Minute, Traffic: true}
	now := time.Unix(0, 0)
	o := Observed{Desired: 10, Source: Counts{Running: 10, Healthy: 10}, Target: Counts{Running: 10, Healthy: 9}}
	s, _ := Decide(Begin(c, true, false), o, now)
	b.ReportAllocs()
	for b.Loop() {
		Decide(s, o, now)
	}
}
