package ecsd

import (
	"slices"
	"time"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/store"
)

// What has been over for long enough is forgotten: by the controller, when it is
// due, and not when somebody looks.

// keepStopped is how long a stopped task can be described, documented as at
// least an hour; keepHistory is how long a deployment can, documented.
const (
	keepStopped = time.Hour
	keepHistory = 90 * 24 * time.Hour
)

// sweep forgets what is due, and says when there will be more of it; a minute
// gathers what ends together.
func (a *API) sweep() (next time.Time, err error) {
	now := a.clock.Now()
	// due notes when something ends, and says whether that is now.
	due := func(at time.Time) bool {
		if at.After(now) {
			next = clock.Sooner(next, at.Add(time.Minute))
		}
		return !at.After(now)
	}
	err = a.store.Update(func(tx *store.Tx) error {
		a.forgetTasks(tx, due)
		for key, i := range a.instances.Scan(tx, "") {
			if i.Status == inactiveInstance && due(i.Ended.Add(keepStopped)) {
				a.instances.Delete(tx, key)
				scope, _ := arn.ParseKey(key)
				a.tags.Set(tx, instanceARN(scope, i), nil)
			}
		}
		for key, r := range a.started.Scan(tx, "") {
			if due(r.At.Add(keepToken)) {
				a.started.Delete(tx, key)
			}
		}
		a.forgetDeployments(tx, due)
		a.forgetDefinitions(tx, due)
		return nil
	})
	return next, err
}

func (a *API) forgetTasks(tx *store.Tx, due func(time.Time) bool) {
	for key, t := range a.tasks.Scan(tx, "") {
		if t.Last != stopped || !due(t.Times.Stopped.Add(keepStopped)) {
			continue
		}
		a.tasks.Delete(tx, key)
		scope, _ := arn.ParseKey(key)
		a.tags.Set(tx, taskARN(scope, t), nil)
		for place := range a.offsets.Scan(tx, key+"/") {
			a.offsets.Delete(tx, place)
		}
	}
}

// forgetDeployments forgets deployments, save the newest of each service, and
// the revisions that only they knew.
func (a *API) forgetDeployments(tx *store.Tx, due func(time.Time) bool) {
	var gone []string // services
	for key, d := range a.deployments.Scan(tx, "") {
		s, _ := a.services.Get(tx, d.Service)
		if d.State.Status.Terminal() && s.Deployment != d.ARN && due(d.ended().Add(keepHistory)) {
			a.deployments.Delete(tx, key)
			gone = append(gone, d.Service)
		}
	}
	for _, service := range gone {
		known := map[string]bool{}
		for _, d := range a.deployments.Scan(tx, service+"/") {
			known[d.Source], known[d.Target] = true, true
		}
		for _, r := range a.revisionsOf(tx, service) {
			if !known[r.ARN] && a.count(tx, r).Left() == 0 {
				a.revisions.Delete(tx, revisionKey(r.ARN))
			}
		}
	}
}

// ended is when a deployment came to its end.
func (d deployment) ended() time.Time {
	if d.State.Finished.IsZero() {
		return d.State.StoppedAt
	}
	return d.State.Finished
}

// Rollback is how a deployment went back.
type Rollback struct {
	Deployment string    `json:"deployment"`
	Reason     string    `json:"reason"`
	Status     string    `json:"status"`
	Started    time.Time `json:"started"`
	// Safe is when all traffic was back on the source; without traffic to move,
	// when the source was whole. Nil while it is not.
	Safe         *time.Time `json:"safe,omitempty"`
	TimeToSafety string     `json:"timeToSafety,omitempty"`
}

// Rollbacks is every deployment that went back, the newest first; times are of
// the stage.
func (a *API) Rollbacks() []Rollback {
	list := []Rollback{}
	a.store.View(func(tx *store.Tx) {
		for _, d := range a.deployments.Scan(tx, "") {
			back := d.State.Rollback
			if back.Started.IsZero() {
				continue
			}
			r := Rollback{Deployment: d.ARN, Reason: back.Reason, Status: string(d.State.Status), Started: back.Started, Safe: pointer(back.Safe)}
			if r.Safe != nil {
				r.TimeToSafety = back.Safe.Sub(back.Started).Round(time.Millisecond).String()
			}
			list = append(list, r)
		}
	})
	slices.SortFunc(list, func(x, y Rollback) int { return y.Started.Compare(x.Started) })
	return list
}
