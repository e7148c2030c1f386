package rollout

import "time"

var zero time.Time

// roll replaces tasks under the two percentages until only the target is left; with
// early success criteria, until enough of the target is healthy for the bake.
func (d *decision) roll() {
	early, left := d.s.Config.Early, d.o.Source.Left() > 0 || d.o.Others.Left() > 0
	if d.o.Target.Healthy < early.required(d.o.Desired) || !early.Enabled && left {
		d.s.Baked, d.s.Settled = zero, false
		return
	}
	if !d.s.Settled {
		if d.s.Baked.IsZero() {
			d.s.Baked = d.now
		}
		if end := d.s.Baked.Add(d.s.Config.Bake); d.now.Before(end) {
			d.wake(end)
			return
		}
		d.s.Settled = true
	}
	if left && !early.Deferred {
		return
	}
	d.tell(Completed, "")
	d.end(Successful, "")
}

// replace returns how many tasks of the leaving and of the coming revision
// there should be now, documented: at most floor(maximum) are active at once,
// at least ceil(minimum) stay healthy. Where the maximum leaves room, tasks are
// started before others are stopped, and then the desired count stays healthy.
//
// Others are what an interrupted deployment left: they go when the coming are
// whole, or before, as far as the minimum allows, where there is no room.
func replace(c Config, desired int, leaving, coming, others Counts) (leave, come, other int) {
	most := desired * c.Maximum / 100
	least := (desired*c.MinimumHealthy + 99) / 100
	room := max(most-leaving.Active()-coming.Active()-others.Active(), 0)
	missing := max(desired-coming.Active(), 0)
	come = coming.Active() + min(room, missing)
	if coming.Active() > desired {
		come = desired
	}
	if room >= missing {
		least = desired
	}
	sick := leaving.Active() - leaving.Healthy
	spare := max(leaving.Healthy+coming.Healthy+others.Healthy-least, 0)
	// Tasks that are not healthy carry nothing; they make room first.
	stop := min(leaving.Active(), spare+min(sick, max(missing-room, 0)))
	spare = max(spare-stop, 0)
	drop := 0
	if room < missing {
		drop = min(others.Active(), spare+others.Active()-others.Healthy)
	}
	if coming.Healthy >= desired {
		stop, drop = leaving.Active(), others.Active()
	}
	return leaving.Active() - stop, come, others.Active() - drop
}

// share is the target's production weight after step k, counted from 1.
func (c Config) share(k int) Permille {
	switch c.Strategy {
	case Canary:
		if k == 1 {
			return c.CanaryShare
		}
	case Linear:
		return min(c.StepShare*Permille(k), All)
	}
	return All
}

// Steps is the number of production shifts.
func (c Config) Steps() int {
	switch c.Strategy {
	case Canary:
		if c.CanaryShare >= All {
			return 1
		}
		return 2
	case Linear:
		return int((All + c.StepShare - 1) / c.StepShare)
	}
	return 1
}

func (c Config) stepBake() time.Duration {
	if c.Strategy == Canary {
		return c.CanaryBake
	}
	return c.StepBake
}

// Moment is a line of a preview.
type Moment struct {
	At         time.Duration // since the start, in an ideal world
	Stage      Stage
	Production Permille
	Source     int
	Target     int
}

// Preview runs the decision over a world in which everything wanted is so at
// once, and returns what happens when.
func Preview(c Config, desired int, hasSource bool) []Moment {
	start := time.Unix(0, 0)
	now := start
	c.Hooks = nil // as if they answered at once
	s := Begin(c, hasSource, false)
	o := Observed{Desired: desired}
	if hasSource {
		o.Source = Counts{Running: desired, Healthy: desired}
	}
	var out []Moment
	for range 10_000 {
		var w Wanted
		before := o
		s, w = Decide(s, o, now)
		o.Source.Running, o.Source.Healthy = w.Source, w.Source
		o.Target.Running, o.Target.Healthy = w.Target, w.Target
		o.Production, o.Test = w.Production, w.Test
		m := Moment{now.Sub(start), s.Stage, w.Production, w.Source, w.Target}
		if n := len(out); n == 0 || out[n-1].Stage != m.Stage || out[n-1].Production != m.Production || out[n-1].Source != m.Source || out[n-1].Target != m.Target {
			out = append(out, m)
		}
		if s.Status.Terminal() {
			return out
		}
		if o == before {
			if w.WakeAt.IsZero() {
				return out
			}
			now = w.WakeAt
		}
	}
	return out
}
