package rollout

import "time"

// Lifecycle hooks: a stage that has some ends only when all of them have, and one
// that says no turns the deployment back. What a hook is, a pause or a function,
// is its performer's business; Decide is told the answers. Documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-lifecycle-hooks.html

// Hook is a lifecycle hook of a deployment.
type Hook struct {
	Pause    bool // waits for a person's word, which may take longer than a stage may
	Stages   []Stage
	Timeout  time.Duration
	Continue bool // when the time is up; else back
}

// Hooks never change; a State holds a pointer, so that it can be compared.
type Hooks struct{ List []Hook }

// Call is a hook that a stage waits for, or waited for. Each production step has
// calls of its own.
type Call struct {
	Hook    int // its place in Hooks
	Stage   Stage
	Step    int
	Back    bool // of a rollback: the hooks of the shifts are called again
	Status  CallStatus
	Began   time.Time
	Expires time.Time
}

// Same says that two are the same call, whatever has become of it.
func (c Call) Same(as Call) bool {
	return c.Hook == as.Hook && c.Stage == as.Stage && c.Step == as.Step && c.Back == as.Back
}

// Calls are all of a deployment so far. They never change either.
type Calls struct{ List []Call }

// CallStatus is what became of a call.
type CallStatus string

const (
	Waiting    CallStatus = "WAITING"
	Succeeded  CallStatus = "SUCCEEDED"
	CallFailed CallStatus = "FAILED"
	TimedOut   CallStatus = "TIMED_OUT"
)

// Answer is what a hook says to a call.
type Answer struct {
	Hook   int
	Stage  Stage
	Step   int
	Back   bool
	OK     bool
	Reason string // why not
}

// To says that it answers a call.
func (a Answer) To(c Call) bool {
	return a.Hook == c.Hook && a.Stage == c.Stage && a.Step == c.Step && a.Back == c.Back
}

// Answers are all that were given.
type Answers struct{ List []Answer }

// call begins the calls of a stage's hooks.
func (d *decision) call(stage Stage) {
	hooks := d.s.Config.Hooks
	if hooks == nil {
		return
	}
	var list []Call
	for i, h := range hooks.List {
		for _, s := range h.Stages {
			if s == stage {
				list = append(list, Call{Hook: i, Stage: stage, Step: d.s.Step + 1, Status: Waiting, Began: d.now, Expires: d.now.Add(h.Timeout)})
				d.tell(HookCalled, string(stage))
			}
		}
	}
	if list != nil {
		if d.s.Calls != nil {
			list = append(append([]Call(nil), d.s.Calls.List...), list...)
		}
		d.s.Calls = &Calls{list}
	}
}

// hear takes the answers in. It returns why the deployment must turn back, if so:
// one answer that says so wins over all others.
func (d *decision) hear() (back string) {
	if d.s.Calls == nil {
		return ""
	}
	var list []Call
	for i, c := range d.s.Calls.List {
		if c.Status != Waiting {
			continue
		}
		h := d.s.Config.Hooks.List[c.Hook]
		status, why := c.Status, ""
		if a, ok := d.o.answer(c); ok {
			status = Succeeded
			if !a.OK {
				status, why = CallFailed, a.Reason
			}
		} else if !d.now.Before(c.Expires) {
			status = TimedOut
			if !h.Continue {
				what := " lifecycle hook(s) timed out."
				if h.Pause {
					what = " pause hook timed out."
				}
				why = string(c.Stage) + what
			}
		}
		if status == Waiting {
			d.wake(c.Expires)
			continue
		}
		if list == nil {
			list = append([]Call(nil), d.s.Calls.List...)
		}
		list[i].Status = status
		d.tell(HookEnded, string(c.Stage)+" "+string(status))
		if back == "" {
			back = why
		}
		if h.Pause {
			d.s.Since = d.now // a pause is not of the stage's time
		}
	}
	if list != nil {
		d.s.Calls = &Calls{list}
	}
	return back
}

func (o *Observed) answer(c Call) (Answer, bool) {
	if o.Answers != nil {
		for _, a := range o.Answers.List {
			if a.To(c) {
				return a, true
			}
		}
	}
	return Answer{}, false
}

// waits says that the stage has a hook that did not answer yet, and whether one of
// them is a pause.
func (d *decision) waits() (any, pause bool) {
	if d.s.Calls == nil {
		return false, false
	}
	for _, c := range d.s.Calls.List {
		if c.Status == Waiting {
			any = true
			pause = pause || d.s.Config.Hooks.List[c.Hook].Pause
		}
	}
	return any, pause
}

// callBack begins the calls of a rollback, documented: the hooks of a traffic shift
// that were called are called again, now that the traffic goes the other way.
func (d *decision) callBack() {
	if d.s.Calls == nil {
		return
	}
	called := d.s.Calls.List
	d.s.abandon()
	list := append([]Call(nil), d.s.Calls.List...)
	for _, stage := range []Stage{TestShift, ProductionShift} {
		for i, h := range d.s.Config.Hooks.List {
			for _, c := range called {
				if c.Hook == i && c.Stage == stage {
					list = append(list, Call{Hook: i, Stage: stage, Back: true, Status: Waiting, Began: d.now, Expires: d.now.Add(h.Timeout)})
					d.tell(HookCalled, string(stage))
					break
				}
			}
		}
	}
	d.s.Calls = &Calls{list}
}

// free says that the stage waits for no hook.
func (d *decision) free() bool {
	any, _ := d.waits()
	return !any
}

// abandon ends the calls that nobody waits for any longer.
func (s *State) abandon() {
	if s.Calls == nil {
		return
	}
	var list []Call
	for _, c := range s.Calls.List {
		if c.Status != Waiting {
			list = append(list, c)
		}
	}
	if len(list) != len(s.Calls.List) {
		s.Calls = &Calls{list}
	}
}
