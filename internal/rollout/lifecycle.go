package rollout

import "fmt"

// stages is the work of each lifecycle stage, run for as long as it lasts.
var stages map[Stage]func(*decision)

func init() {
	stages = map[Stage]func(*decision){
		ReconcileService: (*decision).reconcileService,
		PreScaleUp:       (*decision).preScaleUp,
		ScaleUp:          (*decision).scaleUp,
		PostScaleUp:      (*decision).postScaleUp,
		TestShift:        (*decision).testShift,
		PostTestShift:    (*decision).postTestShift,
		PreProduction:    (*decision).preProduction,
		ProductionShift:  (*decision).productionShift,
		PostProduction:   (*decision).postProduction,
		BakeTime:         (*decision).bakeTime,
		CleanUp:          (*decision).cleanUp,
	}
}

// edges is every way from one stage to the next.
var edges = map[Stage][]Stage{
	"":               {ReconcileService, PreScaleUp},
	ReconcileService: {PreScaleUp},
	PreScaleUp:       {ScaleUp},
	ScaleUp:          {PostScaleUp},
	PostScaleUp:      {TestShift},
	TestShift:        {PostTestShift},
	PostTestShift:    {PreProduction},
	PreProduction:    {ProductionShift},
	ProductionShift:  {PreProduction, PostProduction},
	PostProduction:   {BakeTime},
	BakeTime:         {CleanUp},
}

// worksMeanwhile are the stages that do their work while their hooks run; the
// others do nothing but wait for them.
var worksMeanwhile = map[Stage]bool{ReconcileService: true, TestShift: true, ProductionShift: true}

// enter does the bookkeeping of a new stage.
func (d *decision) enter(next Stage) {
	allowed := false
	for _, e := range edges[d.s.Stage] {
		allowed = allowed || e == next
	}
	if !allowed {
		panic(fmt.Sprintf("rollout: no way from %q to %q", d.s.Stage, next))
	}
	d.s.Stage, d.s.Since, d.s.Moved = next, d.now, zero
	d.tell(Entered, string(next))
	d.call(next)
}

// reconcileService brings a service with several revisions back to one: all
// traffic on the source, no tasks of others.
func (d *decision) reconcileService() {
	if d.o.Production == 0 && d.o.Test == 0 && d.o.Others.Left() == 0 && (!d.s.HasSource || d.o.Source.Healthy >= d.o.Desired) && d.free() {
		d.enter(PreScaleUp)
	}
}

func (d *decision) preScaleUp() { d.enter(ScaleUp) }

// scaleUp brings the target to its full count before any traffic.
func (d *decision) scaleUp() {
	if d.o.Target.Healthy >= d.o.Desired {
		d.enter(PostScaleUp)
	}
}

func (d *decision) postScaleUp() { d.enter(TestShift) }

// settled says that the weights that were asked for are in force, and have been
// for as long as the load balancer takes to follow them. A rollback does not wait
// for that; guessed.
func (d *decision) settled(inForce bool) bool {
	switch {
	case !inForce:
		d.s.Moved = zero
		return false
	case d.s.Config.Settle == 0:
		return true
	case d.s.Moved.IsZero():
		d.s.Moved = d.now
	}
	end := d.s.Moved.Add(d.s.Config.Settle)
	if d.now.Before(end) {
		d.wake(end)
		return false
	}
	return true
}

// testShift moves test traffic in one step.
func (d *decision) testShift() {
	if d.s.Config.TestTraffic {
		d.s.Test = All
		if !d.settled(d.o.Test == All) {
			return
		}
	}
	if d.free() {
		d.enter(PostTestShift)
	}
}

func (d *decision) postTestShift() { d.enter(PreProduction) }

// preProduction begins the next step. A target that has lost a task meanwhile is
// brought to its full count first, as before any traffic; guessed.
func (d *decision) preProduction() {
	if d.o.Target.Healthy < d.o.Desired {
		return
	}
	d.enter(ProductionShift)
	d.s.Step++
	if d.s.Config.Traffic {
		d.s.Production = d.s.Config.share(d.s.Step)
		d.tell(Shift, fmt.Sprintf("%d/%d", All-d.s.Production, d.s.Production))
	}
}

// productionShift moves the weights, lets them settle, then bakes the step; the
// last step has no bake of its own, the final bake follows.
func (d *decision) productionShift() {
	last := d.s.Step >= d.s.Config.Steps()
	if d.s.Config.Traffic && !d.settled(d.o.Production == d.s.Production) || !d.free() {
		return
	}
	if last {
		d.enter(PostProduction)
		return
	}
	if d.s.Shifted.IsZero() {
		d.s.Shifted = d.now
	}
	if end := d.s.Shifted.Add(d.s.Config.stepBake()); d.now.Before(end) {
		d.wake(end)
		return
	}
	d.s.Shifted = zero
	d.enter(PreProduction)
}

func (d *decision) postProduction() { d.enter(BakeTime) }

// bakeTime keeps both revisions at full size, and the source for as long as the
// target is not whole: it may have to carry all of the traffic; guessed.
func (d *decision) bakeTime() {
	if d.s.Baked.IsZero() {
		d.s.Baked = d.now
	}
	if end := d.s.Baked.Add(d.s.Config.Bake); d.now.Before(end) {
		d.wake(end)
		return
	}
	if d.o.Target.Healthy < d.o.Desired {
		if limit := d.s.Baked.Add(d.s.Config.Bake + stageLimit); d.now.Before(limit) {
			d.wake(limit)
		} else {
			d.timeOut()
		}
		return
	}
	d.s.Baked = zero
	d.enter(CleanUp)
}

// cleanUp lets the source go.
func (d *decision) cleanUp() {
	if d.o.Source.Left() == 0 && d.o.Others.Left() == 0 && d.o.Target.Healthy >= d.o.Desired {
		d.tell(Completed, "")
		d.end(Successful, "")
	}
}
