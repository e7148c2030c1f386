package autoscalingd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/tags"
)

// All of it is stage time.
const (
	starting = 15 * time.Second // from a launch to InService; guessed
	ending   = 10 * time.Second // of a member, guessed
	// longestWait is how long a member waits for ECS to drain it, documented as the
	// longest of a lifecycle hook.
	longestWait = 48 * time.Hour
	again       = time.Minute // after a launch that failed, guessed
	// atOnce is how many instances a group launches before others have their turn:
	// those of its other looks follow at once.
	atOnce = 100
	// keepActivities is documented: six weeks.
	keepActivities = 6 * 7 * 24 * time.Hour
)

// Run keeps the groups until ctx ends.
func (a *API) Run(ctx context.Context) error {
	feed := a.store.Follow(a.wake, a.groups, a.members)
	defer feed.Stop()
	var next time.Time
	for {
		changed := feed.Take()
		if now := a.clock.Now(); len(changed) > 0 || !next.IsZero() && !next.After(now) {
			next = time.Time{}
			err := a.store.UpdateFirst(func(tx *store.Tx) error {
				next = time.Time{}
				for key, g := range a.groups.Scan(tx, "") {
					scope, _ := arn.ParseKey(key)
					k := &keeping{API: a, tx: tx, scope: scope, now: now}
					k.keep(g)
					next = clock.Sooner(next, k.wake)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("keeping Auto Scaling groups: %w", err)
			}
		}
		if _, err := a.clock.Wait(ctx, next, a.wake); err != nil {
			return nil
		}
	}
}

// keeping is one look at one group.
type keeping struct {
	*API
	tx    *store.Tx
	scope arn.Scope
	now   time.Time
	wake  time.Time
}

// due says that a time has come, or has the loop look again when it does.
func (k *keeping) due(at time.Time) bool {
	if at.After(k.now) {
		k.wake = clock.Sooner(k.wake, at)
		return false
	}
	return true
}

// keep brings a group's members to their next states, and their number to what is
// desired.
func (k *keeping) keep(g group) {
	var live []member
	left := 0
	for _, m := range k.membersOf(k.tx, k.scope, g.Name) {
		if m, there := k.step(g, m); there {
			left++
			if !m.leaving() {
				live = append(live, m)
			}
		}
	}
	if g.Deleting && left == 0 {
		k.groups.Delete(k.tx, k.scope.Key(g.Name))
		for key := range k.activities.Scan(k.tx, k.scope.Key(g.Name+":")) {
			k.activities.Delete(k.tx, key)
		}
		return
	}
	if missing := g.Desired - len(live); missing > 0 && k.due(g.Retry) {
		k.launch(g, live, missing)
	}
	for range len(live) - g.Desired {
		at := leaver(live, g.Deleting)
		if at < 0 {
			return // the others are protected; they are asked again when one is not
		}
		k.end(k.tx, k.scope, g, live[at], fmt.Sprintf("an instance was taken out of service in response to a difference between desired and actual capacity, shrinking the capacity from %d to %d.", len(live), len(live)-1))
		live = slices.Delete(live, at, at+1)
	}
}

// step brings a member to its next state, where its time has come; there is false
// when it has ended.
func (k *keeping) step(g group, m member) (after member, there bool) {
	switch m.State {
	case types.LifecycleStatePending:
		if k.due(m.Due) {
			m.State = types.LifecycleStateInService
			k.members.Put(k.tx, k.scope.Key(m.ID), m)
			k.done(m)
		}
	case types.LifecycleStateTerminatingWait:
		if !g.Drain || k.due(m.Due) {
			m.State, m.Due = types.LifecycleStateTerminatingProceed, k.now
			k.members.Put(k.tx, k.scope.Key(m.ID), m)
			return k.step(g, m)
		}
	case types.LifecycleStateTerminating, types.LifecycleStateTerminatingProceed:
		if k.due(m.Due) {
			k.deps.Machines.Terminate(k.tx, k.scope, m.ID, k.now)
			k.members.Delete(k.tx, k.scope.Key(m.ID))
			k.done(m)
			return m, false
		}
	}
	return m, true
}

// done ends a member's activity.
func (k *keeping) done(m member) {
	key := k.scope.Key(m.Group + ":" + m.Activity)
	if x, ok := k.activities.Get(k.tx, key); ok {
		x.Status, x.End = types.ScalingActivityStatusCodeSuccessful, k.now
		k.activities.Put(k.tx, key, x)
	}
}

// launch launches members, each in the zone with the fewest.
func (k *keeping) launch(g group, live []member, missing int) {
	t, err := k.template(k.scope, g)
	var places []Place
	if err == nil {
		places, err = k.deps.Machines.Places(k.scope, g.Subnets, g.Zones, t.SecurityGroups)
	}
	for range min(missing, atOnce) {
		var ec2 string
		x := activity{
			ID: id.UUID(), Group: g.Name, Description: "Launching a new EC2 instance", Status: types.ScalingActivityStatusCodeInProgress, Start: k.now,
			Cause: k.at() + fmt.Sprintf("an instance was started in response to a difference between desired and actual capacity, increasing the capacity from %d to %d.", len(live), len(live)+1),
		}
		p := emptiest(places, live)
		if err == nil {
			labels := slices.Clone(t.Tags)
			for _, tag := range g.Tags {
				if aws.ToBool(tag.PropagateAtLaunch) {
					labels = append(labels, tags.Tag{Key: *tag.Key, Value: aws.ToString(tag.Value)})
				}
			}
			what := t
			what.Tags = append(labels, tags.Tag{Key: "aws:autoscaling:groupName", Value: g.Name})
			ec2, err = k.deps.Machines.Launch(k.tx, k.scope, Machine{Group: g.Name, Template: what, Place: p, At: k.now})
		}
		if err != nil {
			x.Status, x.Said, x.End = types.ScalingActivityStatusCodeFailed, strings.TrimSuffix(err.Error(), ".")+". Launching EC2 instance failed.", k.now
			x.Description += ".  Status Reason: " + x.Said
			k.activities.Put(k.tx, k.scope.Key(g.Name+":"+x.ID), x)
			g.Retry = k.now.Add(again)
			k.groups.Put(k.tx, k.scope.Key(g.Name), g)
			k.due(g.Retry)
			return
		}
		x.Description += ": " + ec2
		x.Details = fmt.Sprintf(`{"Subnet ID":"%s","Availability Zone":"%s"}`, p.Subnet, p.Zone)
		k.activities.Put(k.tx, k.scope.Key(g.Name+":"+x.ID), x)
		m := member{
			ID: ec2, Group: g.Name, Type: t.Type, Image: t.Image, Zone: p.Zone, Subnet: p.Subnet, Profile: t.Profile, UserData: t.UserData, TemplateID: t.ID, TemplateName: t.Name,
			State: types.LifecycleStatePending, Protected: g.Protect, Launched: k.now, Due: k.now.Add(starting), Activity: x.ID,
		}
		k.members.Put(k.tx, k.scope.Key(ec2), m)
		k.due(m.Due)
		live = append(live, m)
	}
}

// at begins a cause as AWS does: with when.
func (k *keeping) at() string { return "At " + k.now.UTC().Format("2006-01-02T15:04:05Z") + " " }

// emptiest is the place in whose zone the fewest members are.
func emptiest(places []Place, live []member) Place {
	if len(places) == 0 {
		return Place{}
	}
	zones, subnets := map[string]int{}, map[string]int{}
	for _, m := range live {
		zones[m.Zone]++
		subnets[m.Subnet]++
	}
	return slices.MinFunc(places, func(x, y Place) int {
		return cmp.Or(cmp.Compare(zones[x.Zone], zones[y.Zone]), cmp.Compare(subnets[x.Subnet], subnets[y.Subnet]))
	})
}

// leaver is who leaves when there are too many: of the zone with the most, the
// oldest that is not protected, documented but for the choice by age; -1: nobody.
func leaver(live []member, all bool) int {
	zones := map[string]int{}
	for _, m := range live {
		zones[m.Zone]++
	}
	best := -1
	for at, m := range live { // oldest first
		if (all || !m.Protected) && (best < 0 || zones[m.Zone] > zones[live[best].Zone]) {
			best = at
		}
	}
	return best
}

// end begins the end of a member: at once, or when ECS has drained it.
func (a *API) end(tx *store.Tx, scope arn.Scope, g group, m member, why string) member {
	now := a.clock.Now()
	x := activity{
		ID: id.UUID(), Group: g.Name, Description: "Terminating EC2 instance: " + m.ID, Cause: "At " + now.UTC().Format("2006-01-02T15:04:05Z") + " " + why, Status: types.ScalingActivityStatusCodeInProgress, Start: now,
		Details: fmt.Sprintf(`{"Subnet ID":"%s","Availability Zone":"%s"}`, m.Subnet, m.Zone),
	}
	m.State, m.Due, m.Activity = types.LifecycleStateTerminating, now.Add(ending), x.ID
	if g.Drain {
		m.State, m.Due, x.Status = types.LifecycleStateTerminatingWait, now.Add(longestWait), types.ScalingActivityStatusCodeMidLifecycleAction
	}
	for key, old := range a.activities.Scan(tx, scope.Key(g.Name+":")) {
		if now.Sub(old.Start) > keepActivities {
			a.activities.Delete(tx, key)
		}
	}
	a.activities.Put(tx, scope.Key(g.Name+":"+x.ID), x)
	a.members.Put(tx, scope.Key(m.ID), m)
	return m
}
