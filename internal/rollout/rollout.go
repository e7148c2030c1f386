// Package rollout decides what a deployment does next.
//
// Decide is a pure function: the state of a deployment, a full snapshot of what
// is observed, and now go in; the new state and the wanted levels come out. It
// has no clock, no socket, no goroutine and no store, and it knows revisions
// and counts, not tasks. It is asked again after every change; asking twice
// changes nothing. Percentages are whole permille.
//
// The order of the lifecycle, the counts and the weights are ECS's, documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-blue-green.html
// A lifecycle stage is one function in lifecycle.go; rolling.go has the one
// strategy that moves tasks instead of traffic.
package rollout

import (
	"fmt"
	"strings"
	"time"
)

// Permille is a share of traffic in thousandths.
type Permille int

// All is the whole traffic.
const All Permille = 1000

// Strategy is one of ECS's deployment strategies.
type Strategy string

const (
	Rolling   Strategy = "ROLLING"
	BlueGreen Strategy = "BLUE_GREEN"
	Canary    Strategy = "CANARY"
	Linear    Strategy = "LINEAR"
)

// Status is the status of a service deployment.
type Status string

const (
	Pending            Status = "PENDING"
	InProgress         Status = "IN_PROGRESS"
	Successful         Status = "SUCCESSFUL"
	StopRequested      Status = "STOP_REQUESTED"
	Stopped            Status = "STOPPED"
	RollbackRequested  Status = "ROLLBACK_REQUESTED"
	RollbackInProgress Status = "ROLLBACK_IN_PROGRESS"
	RollbackSuccessful Status = "ROLLBACK_SUCCESSFUL"
	RollbackFailed     Status = "ROLLBACK_FAILED"
)

// Terminal reports whether nothing follows.
func (s Status) Terminal() bool {
	return s == Successful || s == Stopped || s == RollbackSuccessful || s == RollbackFailed
}

// Stage is a lifecycle stage. A rolling deployment has none.
type Stage string

const (
	ReconcileService Stage = "RECONCILE_SERVICE"
	PreScaleUp       Stage = "PRE_SCALE_UP"
	ScaleUp          Stage = "SCALE_UP"
	PostScaleUp      Stage = "POST_SCALE_UP"
	TestShift        Stage = "TEST_TRAFFIC_SHIFT"
	PostTestShift    Stage = "POST_TEST_TRAFFIC_SHIFT"
	PreProduction    Stage = "PRE_PRODUCTION_TRAFFIC_SHIFT"
	ProductionShift  Stage = "PRODUCTION_TRAFFIC_SHIFT"
	PostProduction   Stage = "POST_PRODUCTION_TRAFFIC_SHIFT"
	BakeTime         Stage = "BAKE_TIME"
	CleanUp          Stage = "CLEAN_UP"
)

// stageLimit is how long a stage may take, documented.
const stageLimit = 24 * time.Hour

// Config is a deployment's parameters, copied into it when it was made.
type Config struct {
	Strategy       Strategy
	CanaryShare    Permille
	CanaryBake     time.Duration
	StepShare      Permille
	StepBake       time.Duration
	Bake           time.Duration
	Traffic        bool          // a production rule is to be shifted
	TestTraffic    bool          // a test rule is to be shifted, too
	Settle         time.Duration // how long a shift of traffic takes beyond its weights
	MinimumHealthy int           // percent of the desired count, rolling only
	Maximum        int           // percent of the desired count, rolling only
	Early          Early
	Breaker        Breaker
	Alarms         Alarms
	Hooks          *Hooks `json:",omitempty"`
}

// Early is the early success criteria of a rolling deployment.
type Early struct {
	Enabled  bool
	Healthy  int  // percent of the desired count
	Deferred bool // the source's tasks go after the success, not before
}

// required is how many tasks of the target must be healthy, documented: at least
// one, where any are wanted.
func (e Early) required(desired int) int {
	if !e.Enabled {
		return desired
	}
	return min(max((desired*e.Healthy+99)/100, 1), desired)
}

// Breaker is the deployment circuit breaker's configuration.
type Breaker struct {
	Enabled       bool
	Rollback      bool
	Threshold     ThresholdType
	Value         int
	KeepOnHealthy bool // a healthy task does not reset the count
}

// ThresholdType says how a breaker's threshold follows from its value.
type ThresholdType string

const (
	BoundedPercent   ThresholdType = "BOUNDED_PERCENT"
	UnboundedPercent ThresholdType = "UNBOUNDED_PERCENT"
	Count            ThresholdType = "COUNT"
)

// ThresholdFor is the number of failures that trips the breaker at a desired
// count, documented: a percentage is rounded up and, when bounded, kept
// between 3 and 200.
func (b Breaker) ThresholdFor(desired int) int {
	value, kind := b.Value, b.Threshold
	if kind == "" {
		kind, value = BoundedPercent, 50
	}
	if kind == Count {
		return value
	}
	n := (desired*value + 99) / 100
	if kind == BoundedPercent {
		n = min(max(n, 3), 200)
	}
	return max(n, 1) // no failure at all never trips it
}

// Monitor is the status of a breaker, or of the alarms.
type Monitor string

const (
	Disabled           Monitor = "DISABLED"
	Monitoring         Monitor = "MONITORING"
	MonitoringComplete Monitor = "MONITORING_COMPLETE"
	Triggered          Monitor = "TRIGGERED"
)

// State is all that a deployment remembers.
type State struct {
	Config    Config
	HasSource bool // a revision to go back to
	Reconcile bool // other revisions had tasks when it began

	Status  Status
	Reason  string
	Stage   Stage
	Since   time.Time // when the stage was entered
	Step    int       // production shifts begun
	Moved   time.Time // since when the weights of the present shift are in force, where they settle
	Shifted time.Time // when the bake of the present step began, zero before
	Baked   time.Time // when the final bake began, zero before
	Settled bool      // early success: the bake is over, and the source's tasks go

	// Requested weights of the target; the source has the rest.
	Production Permille
	Test       Permille

	Calls *Calls `json:",omitempty"` // of hooks

	Failures      int
	SeenToStart   int  // failures to start that were counted
	SeenUnhealthy int  // failures of health checks that were counted
	Ran           bool // a task of the target has run
	Monitor       Monitor

	AlarmMonitor Monitor
	Fired        string // the alarms that ended it

	Started   time.Time
	Finished  time.Time // terminal, by success or rollback
	StoppedAt time.Time // terminal, by a stop or a failure without rollback
	Rollback  Rollback
}

// Rollback is when and why a deployment went back.
type Rollback struct {
	Reason  string
	Started time.Time
	Safe    time.Time // when all traffic was back on the source
}

// Counts is what is observed of one revision.
type Counts struct {
	Pending  int // started, not yet running
	Running  int
	Healthy  int
	Stopping int // told to stop, not yet gone
	// Cumulative, within this deployment:
	FailedToStart   int // never reached RUNNING
	FailedUnhealthy int // replaced because a health check failed
}

// Active is the tasks that take up room.
func (c Counts) Active() int { return c.Pending + c.Running }

// Left is every task that is not gone.
func (c Counts) Left() int { return c.Active() + c.Stopping }

// Observed is a full snapshot of the world.
type Observed struct {
	Desired int
	Source  Counts
	Target  Counts
	Others  Counts // any other revision
	// Weights of the target that are in force.
	Production Permille
	Test       Permille
	Stop       bool   // a user asked to roll back
	Superseded bool   // a newer deployment takes over
	Broken     string // the traffic resources are not as they must be: why
	Alarms     string // names of those of its alarms that fire, a line each
	Answers    *Answers
}

// Wanted is the levels that the world is to be brought to.
type Wanted struct {
	Source     int // tasks of the source revision
	Others     int // tasks of any other revision
	Target     int // tasks of the target revision
	Production Permille
	Test       Permille
	WakeAt     time.Time // ask again then, at the latest; zero: only on a change
	Events     []Event   // happened in this decision
}

// Event is something to tell people.
type Event struct {
	Kind   EventKind
	Reason string
}

// EventKind says what happened.
type EventKind string

const (
	Began       EventKind = "began"
	Entered     EventKind = "entered"      // Reason: the stage
	Shift       EventKind = "shift"        // Reason: the production weights requested
	Completed   EventKind = "completed"    // the target is in service
	Failed      EventKind = "failed"       // Reason: why
	RollingBack EventKind = "rolling back" // the source takes over again
	RolledBack  EventKind = "rolled back"
	HookCalled  EventKind = "hook called" // Reason: the stage
	HookEnded   EventKind = "hook ended"  // Reason: the stage and the call's status
	GaveUp      EventKind = "gave up"     // failed, and nothing to go back to or not asked to

	AlarmsIgnored EventKind = "alarms ignored" // Reason: those that fired before it began
)

// Begin is the state of a new deployment.
func Begin(c Config, hasSource, reconcile bool) State {
	s := State{Config: c, HasSource: hasSource, Reconcile: reconcile, Status: Pending, Monitor: Disabled, AlarmMonitor: Disabled}
	if c.Breaker.Enabled {
		s.Monitor = Monitoring
	}
	return s
}

// decision is one run of Decide.
type decision struct {
	s   State
	o   Observed
	now time.Time
	out Wanted
}

// Decide returns what follows from s, given o, at now.
func Decide(s State, o Observed, now time.Time) (State, Wanted) {
	d := &decision{s: s, o: o, now: now}
	// Some stages end as soon as they are entered; the number of steps that can
	// follow each other without the world moving is small and known.
	for range 64 {
		before := d.s
		d.step()
		if d.s == before {
			d.levels()
			return d.s, d.out
		}
	}
	panic(fmt.Sprintf("rollout: no rest in %s %s", d.s.Status, d.s.Stage))
}

func (d *decision) step() {
	d.out.WakeAt = zero
	if d.s.Status.Terminal() {
		return
	}
	if d.o.Superseded {
		d.stop(Stopped, "A new service deployment was started.")
		return
	}
	d.count()
	d.alarm()
	if d.o.Stop && (d.s.Status == Pending || d.s.Status == InProgress) {
		d.s.Status = RollbackRequested
	}
	switch d.s.Status {
	case Pending:
		d.begin()
	case InProgress:
		d.advance()
	case RollbackRequested:
		if d.s.Stage == CleanUp { // too late: the source's tasks are going
			d.advance()
			return
		}
		d.rollBack("Service deployment rolled back because a user requested it.")
	case RollbackInProgress:
		d.goBack()
	}
}

func (d *decision) tell(k EventKind, reason string) {
	d.out.Events = append(d.out.Events, Event{k, reason})
}

func (d *decision) wake(at time.Time) {
	if d.out.WakeAt.IsZero() || at.Before(d.out.WakeAt) {
		d.out.WakeAt = at
	}
}

func (d *decision) begin() {
	d.s.Status, d.s.Started = InProgress, d.now
	d.tell(Began, "")
	d.watchAlarms()
	switch {
	case d.s.Config.Strategy == Rolling:
	case d.s.Reconcile:
		d.enter(ReconcileService)
	default:
		d.enter(PreScaleUp)
	}
}

func (d *decision) advance() {
	if d.s.Monitor == Triggered && d.s.Stage != CleanUp { // then there is nothing left to go back to
		d.fail("tasks failed to start.", "Service deployment rolled back because the circuit breaker threshold was exceeded.", d.s.Config.Breaker.Rollback)
		return
	}
	if d.s.AlarmMonitor == Triggered {
		// The event is observed, the reason guessed after those that are documented.
		d.fail("alarm detected.", "Service deployment rolled back because a CloudWatch alarm was triggered: "+strings.ReplaceAll(d.s.Fired, "\n", ", ")+".", d.s.Config.Alarms.Rollback)
		return
	}
	if d.o.Broken != "" && d.s.Stage != CleanUp {
		d.failBecause(d.o.Broken)
		return
	}
	if d.s.Config.Strategy == Rolling {
		d.roll()
		return
	}
	if back := d.hear(); back != "" {
		d.failBecause(back)
		return
	}
	held, paused := d.waits()
	if limit := d.s.Since.Add(stageLimit); d.s.Shifted.IsZero() && d.s.Baked.IsZero() && d.s.Stage != CleanUp && !paused {
		if !d.now.Before(limit) {
			d.timeOut()
			return
		}
		d.wake(limit)
	}
	if held && !worksMeanwhile[d.s.Stage] {
		return
	}
	stages[d.s.Stage](d)
}

func (d *decision) timeOut() {
	d.failBecause("the " + string(d.s.Stage) + " lifecycle stage timed out.")
}

// count adds up failures as the circuit breaker sees them, documented: until a
// task has run, each that does not get so far; after that, each that is
// replaced for failing a health check. A task that runs and then exits by
// itself is neither: ECS's own blind spot.
func (d *decision) count() {
	t, s := d.o.Target, &d.s
	toStart, unhealthy := t.FailedToStart-s.SeenToStart, t.FailedUnhealthy-s.SeenUnhealthy
	s.SeenToStart, s.SeenUnhealthy = t.FailedToStart, t.FailedUnhealthy
	if !s.Ran {
		s.Failures += toStart
	}
	s.Failures += unhealthy
	s.Ran = s.Ran || t.Running > 0
	if t.Healthy > 0 && !s.Config.Breaker.KeepOnHealthy {
		s.Failures = 0
	}
	if s.Monitor == Monitoring && s.Status == InProgress && s.Failures >= s.Config.Breaker.ThresholdFor(d.o.Desired) {
		s.Monitor = Triggered
	}
}

// fail ends the way forward: back to the source, or a stop where the failing
// mechanism does not roll back or there is nothing to go back to.
func (d *decision) fail(event, reason string, rollback bool) {
	d.tell(Failed, event)
	switch {
	case !rollback:
		d.tell(GaveUp, "")
		d.stop(Stopped, reason)
	case !d.s.HasSource:
		d.s.Rollback = Rollback{Reason: reason, Started: d.now}
		d.tell(GaveUp, "")
		d.s.Production, d.s.Test = d.o.Production, d.o.Test
		d.end(RollbackFailed, "No rollback candidate was found to run the rollback.")
	default:
		d.rollBack(reason)
	}
}

// failBecause fails for what always rolls back; the event says what the status
// does, observed.
func (d *decision) failBecause(why string) {
	reason := "Service deployment rolled back because " + why
	d.fail(reason, reason, true)
}

func (d *decision) rollBack(reason string) {
	if !d.s.HasSource {
		d.s.Rollback = Rollback{Reason: reason, Started: d.now}
		d.tell(GaveUp, "")
		d.end(RollbackFailed, "No rollback candidate was found to run the rollback.")
		return
	}
	d.s.Status, d.s.Reason = RollbackInProgress, reason
	d.s.Settled = false
	d.callBack()
	d.s.Rollback = Rollback{Reason: reason, Started: d.now}
	d.s.Production, d.s.Test = 0, 0
	d.s.Moved, d.s.Shifted, d.s.Baked = zero, zero, zero
	d.tell(RollingBack, reason)
}

// goBack returns the traffic first; the target's tasks go after it.
func (d *decision) goBack() {
	limit := d.s.Rollback.Started.Add(stageLimit)
	if !d.now.Before(limit) {
		d.tell(GaveUp, "")
		d.end(RollbackFailed, "The rollback timed out.")
		return
	}
	d.wake(limit)
	d.hear() // whatever they say, there is no other way than back
	if d.o.Production != 0 || d.o.Test != 0 {
		return
	}
	if d.s.Rollback.Safe.IsZero() && (d.s.Config.Traffic || d.o.Source.Healthy >= d.o.Desired) {
		d.s.Rollback.Safe = d.now
	}
	if d.o.Target.Left() == 0 && d.o.Source.Healthy >= d.o.Desired && d.o.Others.Left() == 0 && d.free() {
		if d.s.Rollback.Safe.IsZero() {
			d.s.Rollback.Safe = d.now
		}
		d.tell(RolledBack, "")
		d.end(RollbackSuccessful, d.s.Reason)
	}
}

// stop ends without a result: a stop, or a failure that does not roll back.
func (d *decision) stop(status Status, reason string) {
	d.s.Status, d.s.Reason, d.s.StoppedAt = status, reason, d.now
	d.complete()
}

// end is the terminal status of a success or a rollback.
func (d *decision) end(status Status, reason string) {
	d.s.Status, d.s.Reason, d.s.Finished = status, reason, d.now
	d.complete()
}

func (d *decision) complete() {
	d.s.abandon()
	if d.s.Monitor == Monitoring {
		d.s.Monitor = MonitoringComplete
	}
	if d.s.AlarmMonitor == Monitoring {
		d.s.AlarmMonitor = MonitoringComplete
	}
}

// levels computes the wanted counts and weights from the state alone and what
// is observed, so that saying them again is harmless.
func (d *decision) levels() {
	d.out.Production, d.out.Test = d.s.Production, d.s.Test
	n := d.o.Desired
	if d.o.Production != 0 || d.o.Test != 0 {
		d.out.Others = d.o.Others.Active() // traffic may still reach them
	}
	switch d.s.Status {
	case Pending:
		d.out.Source, d.out.Others = n, d.o.Others.Active()
	case InProgress, RollbackRequested:
		if d.s.Settled {
			d.out.Target, d.out.Others = n, 0
			return
		}
		if d.s.Config.Strategy == Rolling {
			d.out.Source, d.out.Target, d.out.Others = replace(d.s.Config, n, d.o.Source, d.o.Target, d.o.Others)
			return
		}
		d.out.Source, d.out.Target = n, n
		switch d.s.Stage {
		case ReconcileService:
			d.out.Target = 0
			if d.s.HasSource && d.o.Source.Healthy < n { // no traffic for what is not whole
				d.out.Production, d.out.Test = d.o.Production, d.o.Test
			}
		case PreScaleUp:
			d.out.Target = 0
		case CleanUp:
			d.out.Source = 0
		}
	case RollbackInProgress:
		if d.s.Config.Strategy == Rolling {
			d.out.Target, d.out.Source, d.out.Others = replace(d.s.Config, n, d.o.Target, d.o.Source, d.o.Others)
			return
		}
		d.out.Source = n
		if d.o.Production != 0 || d.o.Test != 0 {
			d.out.Target = d.o.Target.Active() // until no traffic reaches them
		}
	case Successful:
		d.out.Target = n
	case RollbackSuccessful:
		d.out.Source = n
	case Stopped, RollbackFailed:
		// What runs is kept, nothing is launched.
		d.out.Target = min(n, d.o.Target.Running)
		d.out.Source = min(n, d.o.Source.Active())
		switch {
		case !d.s.HasSource:
		case d.s.Config.Strategy == Rolling:
			d.out.Source = n - d.out.Target
		case d.s.Production < All: // it has the traffic
			d.out.Source = n
		}
	}
}
