package ecsd

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/rollout"
	"serin/internal/store"
)

// Control is the one loop for all services, until ctx ends: observe, decide,
// write. It looks at the services that a changed row may mean something to, and
// at those whose time has come.
func (a *API) Control(ctx context.Context) error {
	feed := a.store.Follow(a.wakeController, slices.Concat([]store.AnyTable{a.services, a.deployments, a.sets, a.tasks, a.instances, a.definitions}, a.deps.Traffic.Observations(), a.deps.Alarms.Observations())...)
	defer feed.Stop()
	agenda := map[string]time.Time{} // service → when it wants to be looked at again
	var sweep time.Time
	for {
		now := a.clock.Now()
		changed := feed.Take()
		due := a.concerned(changed)
		for key, at := range agenda {
			if !at.After(now) {
				due[key] = true
			}
		}
		for batch := range slices.Chunk(slices.Sorted(maps.Keys(due)), atOnce) {
			if err := a.reconcile(batch, agenda); err != nil {
				return err
			}
		}
		if !sweep.IsZero() && !sweep.After(now) {
			var err error
			if sweep, err = a.sweep(); err != nil {
				return err
			}
		}
		if len(due)+len(changed) > 0 { // what ends from now on is kept for that long
			sweep = clock.Sooner(sweep, now.Add(keepStopped))
		}
		next := sweep
		for _, at := range agenda {
			next = clock.Sooner(next, at)
		}
		if _, err := a.clock.Wait(ctx, next, a.wakeController); err != nil {
			return nil
		}
	}
}

// atOnce is how many services, or tasks, share a transaction: they share its sync
// to disk, and others wait for it.
const atOnce = 16

// concerned is the services that changed rows may mean something to.
func (a *API) concerned(keys []store.Key) map[string]bool {
	services := map[string]bool{}
	a.store.View(func(tx *store.Tx) {
		for _, k := range keys {
			switch k.Table {
			case a.services:
				services[k.Row] = true
			case a.deployments:
				services[k.Row[:strings.LastIndexByte(k.Row, '/')]] = true
			case a.sets:
				services[k.Row[:strings.LastIndex(k.Row, "/ecs-svc/")]] = true
			case a.instances: // a drained one lets its tasks be replaced, until it is drained no more
				if i, ok := a.instances.Get(tx, k.Row); ok {
					scope, _ := arn.ParseKey(k.Row)
					for _, t := range a.tasksOn(tx, i.ID) {
						if t.Service != "" {
							services[scope.Key(t.Cluster+"/"+t.Service)] = true
						}
					}
				}
			case a.tasks:
				if t, ok := a.tasks.Get(tx, k.Row); ok && t.Service != "" {
					scope, _ := arn.ParseKey(k.Row)
					services[scope.Key(t.Cluster+"/"+t.Service)] = true
				}
			case a.definitions: // they matter to the sweep
			default:
				if scope, name, ok := a.deps.Alarms.About(k); ok {
					for _, d := range a.watching.Scan(tx, scope.Key(name)) {
						services[d.Service] = true
					}
					continue
				}
				for _, name := range a.deps.Traffic.About(k) {
					for _, r := range a.revisionsBy.Scan(tx, name) {
						services[r.Service] = true
					}
				}
			}
		}
	})
	return services
}

// reconcile looks at services and writes what follows, in one transaction, and
// when each is to be looked at again.
func (a *API) reconcile(keys []string, agenda map[string]time.Time) error {
	return a.store.UpdateFirst(func(tx *store.Tx) error {
		for _, key := range keys {
			delete(agenda, key)
			s, ok := a.services.Get(tx, key)
			if !ok || s.Status == "INACTIVE" {
				continue
			}
			c := &control{API: a, tx: tx, key: key, s: s, now: a.clock.Now(), healths: map[string]map[string]TargetHealth{}, living: map[string][]task{}, defined: map[string]types.TaskDefinition{}}
			switch c.d, ok = a.deployments.Get(tx, deploymentKey(s.Deployment)); {
			case s.external():
				c.runSets()
			case !ok:
				return fmt.Errorf("controlling service %s: its deployment %s is missing", key, s.Deployment)
			default:
				c.endSuperseded()
				c.run()
			}
			if !c.wake.IsZero() {
				agenda[key] = c.wake
			}
		}
		return nil
	})
}

// control is one look at one service.
type control struct {
	*API
	tx   *store.Tx
	key  string
	s    service
	d    deployment
	now  time.Time
	wake time.Time
	// What the load balancers say, by target group, and the tasks of each revision
	// as they are now; asked once.
	healths map[string]map[string]TargetHealth
	living  map[string][]task
	defined map[string]types.TaskDefinition
}

// tasksOf is a revision's tasks that have not stopped, oldest first.
func (c *control) tasksOf(r revision) []task {
	list, asked := c.living[r.ARN]
	if !asked {
		list = c.API.tasksOf(c.tx, r)
		c.living[r.ARN] = list
	}
	return list
}

// count counts a revision's tasks. Healthy is left to look.
func (c *control) count(r revision) rollout.Counts {
	counts, gone := countOf(r, c.tasksOf(r)), c.replaced(r)
	for _, t := range c.tasksOf(r) {
		if !gone[t.ID] {
			continue
		}
		counts.Stopping++
		if t.Last == running {
			counts.Running--
		} else {
			counts.Pending--
		}
	}
	return counts
}

// replaced is the tasks of a revision that leave and that another stands for
// already: beyond what was wanted at the last look. They are on their way out, and
// a decision must not take them for more of the same.
func (c *control) replaced(r revision) map[string]bool {
	wanted := 0
	switch r.ARN {
	case c.d.Target:
		wanted = c.d.Wanted.Target
	case c.d.Source:
		wanted = c.d.Wanted.Source
	default:
		return nil
	}
	var leave []string
	live := 0
	for _, t := range c.tasksOf(r) {
		if t.Desired == running {
			live++
			if c.leaves(t) {
				leave = append(leave, t.ID)
			}
		}
	}
	gone := map[string]bool{}
	for _, id := range leave[:max(0, min(len(leave), live-wanted))] {
		gone[id] = true
	}
	return gone
}

// health is what a load balancer says of a task.
func (c *control) health(t task, r registration) TargetHealth {
	group, asked := c.healths[r.Group]
	if !asked {
		group = c.deps.Traffic.Health(r.Group)
		c.healths[r.Group] = group
	}
	return group[t.targetOf(r).String()]
}

func (c *control) later(at time.Time) {
	if at.After(c.now) {
		c.wake = clock.Sooner(c.wake, at)
	}
}

// endSuperseded stops deployments that a newer one has replaced.
func (c *control) endSuperseded() {
	for key, old := range c.deployments.Scan(c.tx, c.key+"/") {
		if old.ARN == c.d.ARN || old.State.Status.Terminal() {
			continue
		}
		old.State, _ = rollout.Decide(old.State, rollout.Observed{Superseded: true}, c.now)
		old.Final = &finalCounts{Source: c.final(old, old.Source), Target: c.final(old, old.Target)}
		old.Updated = c.now
		c.deployments.Put(c.tx, key, old)
	}
}

func (c *control) run() {
	c.replaceUnhealthy()
	if c.s.Status == "DRAINING" {
		c.drain()
		return
	}
	before := c.d
	if !c.d.Resolved {
		c.resolve()
	}
	o := c.observe()
	state, wanted := rollout.Decide(c.d.State, o, c.now)
	c.later(wanted.WakeAt)
	c.d.State = state
	if state.Config.Breaker.Enabled && c.d.Final == nil { // what has ended says what it was
		c.d.Threshold = state.Config.Breaker.ThresholdFor(o.Desired)
	}
	if c.d.Final == nil {
		c.d.Wanted.Source, c.d.Wanted.Target = wanted.Source, wanted.Target
	}
	c.tellEvents(wanted.Events)
	c.tellHooks(before.State.Calls)
	c.shift(wanted)
	c.scale(c.d.Target, wanted.Target)
	if c.d.Source != "" {
		c.scale(c.d.Source, wanted.Source)
	}
	budget := wanted.Others
	for _, other := range c.others() {
		r, _ := c.revisions.Get(c.tx, revisionKey(other))
		keep := min(budget, c.count(r).Active())
		budget -= keep
		c.scale(other, keep)
	}
	if state.Status.Terminal() && c.d.Final == nil {
		c.d.Final = &finalCounts{Source: c.final(c.d, c.d.Source), Target: c.final(c.d, c.d.Target)}
		if winner := inService(c.d); winner != "" {
			r, _ := c.revisions.Get(c.tx, revisionKey(winner))
			r.Completed = true
			c.revisions.Put(c.tx, revisionKey(winner), r)
		}
	}
	if changed(before, c.d) {
		c.d.Updated = c.now
		c.deployments.Put(c.tx, deploymentKey(c.d.ARN), c.d)
	}
	c.announceSteady(o)
	c.rebalance()
	c.keep()
}

// keep writes the service's row where it changed.
func (c *control) keep() {
	if old, _ := c.services.Get(c.tx, c.key); !reflect.DeepEqual(old, c.s) {
		c.services.Put(c.tx, c.key, c.s)
	}
}

func (c *control) final(d deployment, revisionARN string) [3]int {
	if revisionARN == "" {
		return [3]int{}
	}
	return c.counts(c.tx, d, revisionARN)
}

func changed(x, y deployment) bool {
	x.Updated, y.Updated = time.Time{}, time.Time{}
	return !reflect.DeepEqual(x, y)
}

// others is every revision with tasks that this deployment does not know.
func (c *control) others() []string {
	var list []string
	for _, r := range c.revisionsOf(c.tx, c.key) {
		if r.ARN != c.d.Source && r.ARN != c.d.Target && c.count(r).Left() > 0 {
			list = append(list, r.ARN)
		}
	}
	return list
}

// resolve chooses the target group of each revision once, when the deployment
// begins: the one that serves is read from the rule, the new tasks go to the
// other, observed.
func (c *control) resolve() {
	r, _ := c.revisions.Get(c.tx, revisionKey(c.d.Target))
	source, _ := c.revisions.Get(c.tx, revisionKey(c.d.Source))
	r.Groups = nil
	c.d.Broken = ""
	for i, lb := range r.LoadBalancers {
		main := aws.ToString(lb.TargetGroupArn)
		adv := lb.AdvancedConfiguration
		if adv == nil || !c.d.State.Config.Traffic {
			r.Groups = append(r.Groups, main)
			continue
		}
		// A deployment that interrupts another finds the traffic on its way: it
		// belongs to the source, and is brought there.
		if (c.d.State.Reconcile || !source.Completed) && i < len(source.Groups) {
			r.Groups = append(r.Groups, otherOf(source.Groups[i], main, *adv.AlternateTargetGroupArn))
			continue
		}
		live, broken := c.live(lb)
		if broken != "" {
			c.d.Broken, live = broken, main
		}
		r.Groups = append(r.Groups, otherOf(live, main, *adv.AlternateTargetGroupArn))
	}
	c.d.Resolved = true
	c.revisions.Put(c.tx, revisionKey(r.ARN), r)
}

func otherOf(one, a, b string) string {
	if one == a {
		return b
	}
	return a
}

// observe takes the snapshot that the decision is made on.
func (c *control) observe() rollout.Observed {
	o := rollout.Observed{Desired: c.s.Desired, Stop: c.d.StopRequested, Broken: c.d.Broken, Alarms: c.firing()}
	if c.d.Answers != nil {
		o.Answers = &rollout.Answers{List: c.d.Answers}
	}
	o.Target = c.look(c.d.Target)
	if c.d.Source != "" {
		o.Source = c.look(c.d.Source)
	}
	for _, other := range c.others() {
		n := c.look(other)
		o.Others.Pending += n.Pending
		o.Others.Running += n.Running
		o.Others.Healthy += n.Healthy
		o.Others.Stopping += n.Stopping
	}
	if !c.d.State.Config.Traffic || c.d.Broken != "" {
		o.Production, o.Test = c.d.State.Production, c.d.State.Test
		return o
	}
	if o.Production, o.Broken = c.inForce(func(adv *types.AdvancedConfiguration) *string { return adv.ProductionListenerRule }); o.Broken == "" && c.d.State.Config.TestTraffic {
		o.Test, o.Broken = c.inForce(func(adv *types.AdvancedConfiguration) *string { return adv.TestListenerRule })
	}
	if role := c.infrastructureRole(); o.Broken == "" && !c.d.State.Status.Terminal() {
		o.Broken = role
	}
	return o
}

// infrastructureRole says why ECS cannot move the traffic as the role given.
func (c *control) infrastructureRole() string {
	r, _ := c.revisions.Get(c.tx, revisionKey(c.d.Target))
	for _, lb := range r.LoadBalancers {
		adv := lb.AdvancedConfiguration
		scope, path := arn.ParseKey(c.key)
		as := Actor{aws.ToString(adv.RoleArn), ecsService, "ECSNetworkingWithELB", scope.For("ecs", "service/"+path).String()}
		for _, need := range []struct {
			action   string
			resource *string
		}{
			{shiftAction(adv.ProductionListenerRule), adv.ProductionListenerRule}, {shiftAction(adv.TestListenerRule), adv.TestListenerRule},
			{"RegisterTargets", lb.TargetGroupArn}, {"DeregisterTargets", lb.TargetGroupArn},
			{"RegisterTargets", adv.AlternateTargetGroupArn}, {"DeregisterTargets", adv.AlternateTargetGroupArn},
		} {
			if aws.ToString(need.resource) == "" {
				continue
			}
			switch err := c.deps.Roles.Check(as, "elasticloadbalancing:"+need.action, *need.resource); {
			case err == nil:
			case need.action == "ModifyListener" && c.deps.Roles.Check(as, "", "") == nil: // it is ECS, but may not
				return err.Error()
			default:
				return "of invalid networking configuration. ECS was unable to manage the ELB resources due to missing permissions on ECS Infrastructure Role '" + as.Role + "'."
			}
		}
	}
	return ""
}

// inForce is the target's share in a rule of every load balancer; where they
// differ, the smallest on the way up says how far all have come.
func (c *control) inForce(rule func(*types.AdvancedConfiguration) *string) (rollout.Permille, string) {
	r, _ := c.revisions.Get(c.tx, revisionKey(c.d.Target))
	share, first := rollout.Permille(0), true
	for i, lb := range r.LoadBalancers {
		name := aws.ToString(rule(lb.AdvancedConfiguration))
		if name == "" {
			continue
		}
		_, in, err := c.deps.Traffic.Weights(name)
		if err != nil {
			return 0, ruleGone(name)
		}
		p := shareOf(in, r.Groups[i])
		goingBack := c.d.State.Status == rollout.RollbackInProgress
		if first || p < share && !goingBack || p > share && goingBack {
			share, first = p, false
		}
	}
	return share, ""
}

func shareOf(weights []Share, group string) rollout.Permille {
	sum, own := 0, 0
	for _, w := range weights {
		sum += w.Weight
		if w.Group == group {
			own = w.Weight
		}
	}
	if sum == 0 {
		return 0
	}
	return rollout.Permille((own*1000 + sum/2) / sum)
}

// shift writes the weights that are wanted into the rules.
func (c *control) shift(w rollout.Wanted) {
	// Once it is over, the rule is its owner's again: an outside change stands.
	if st := c.d.State.Status; !c.d.State.Config.Traffic || c.d.Broken != "" || st == rollout.Pending || st.Terminal() {
		return
	}
	r, _ := c.revisions.Get(c.tx, revisionKey(c.d.Target))
	for i, lb := range r.LoadBalancers {
		adv := lb.AdvancedConfiguration
		other := otherOf(r.Groups[i], *lb.TargetGroupArn, *adv.AlternateTargetGroupArn)
		c.weigh(*adv.ProductionListenerRule, r.Groups[i], other, w.Production)
		if test := aws.ToString(adv.TestListenerRule); test != "" {
			c.weigh(test, r.Groups[i], other, w.Test)
		}
	}
}

func (c *control) weigh(rule, group, other string, p rollout.Permille) {
	wanted, _, err := c.deps.Traffic.Weights(rule)
	if err != nil || shareOf(wanted, group) == p {
		return // a rule that is gone is found by observe; one that is right stays as it is
	}
	c.log.Debug("weights asked for", "service", c.key, "rule", rule)
	if err := c.deps.Traffic.SetWeights(c.tx, rule, weights(group, other, p)); err != nil {
		c.log.Warn("a listener rule could not be changed", "service", c.key, "err", err)
	}
}

// weights is a share in ELB's whole numbers: hundredths where they suffice,
// else thousandths.
func weights(group, other string, p rollout.Permille) []Share {
	if p%10 == 0 {
		return []Share{{other, int((rollout.All - p) / 10)}, {group, int(p / 10)}}
	}
	return []Share{{other, min(int(rollout.All-p), 999)}, {group, min(int(p), 999)}}
}

// count counts a revision's tasks, but not which are healthy.
func (a *API) count(tx *store.Tx, r revision) rollout.Counts { return countOf(r, a.tasksOf(tx, r)) }

func countOf(r revision, tasks []task) rollout.Counts {
	c := rollout.Counts{FailedToStart: r.FailedToStart, FailedUnhealthy: r.FailedUnhealthy}
	for _, t := range tasks {
		switch {
		case t.Desired == stopped:
			c.Stopping++
		case t.Last == running:
			c.Running++
		default:
			c.Pending++
		}
	}
	return c
}

// tasksOf is a revision's tasks that have not stopped, oldest first.
func (a *API) tasksOf(tx *store.Tx, r revision) []task {
	var list []task
	for _, t := range a.tasksBy.Scan(tx, r.ARN) {
		list = append(list, t)
	}
	slices.SortFunc(list, func(x, y task) int { return x.Times.Created.Compare(y.Times.Created) })
	return list
}

// settle is how long a task without a load balancer must have run to count as
// healthy, documented.
const settle = 40 * time.Second

func (c *control) look(revisionARN string) rollout.Counts {
	r, _ := c.revisions.Get(c.tx, revisionKey(revisionARN))
	counts, gone := c.count(r), c.replaced(r)
	for _, t := range c.tasksOf(r) {
		if t.Last == running && t.Desired == running && !gone[t.ID] && c.healthy(t) {
			counts.Healthy++
		}
	}
	return counts
}

func (c *control) healthy(t task) bool {
	if d := c.definedAs(t); checked(d) {
		if t.healthOf(d) != types.HealthStatusHealthy {
			return false
		}
		if len(t.Targets) == 0 {
			return true
		}
	}
	if len(t.Targets) == 0 {
		ready := t.Times.Started.Add(settle)
		c.later(ready)
		return !ready.After(c.now)
	}
	for _, r := range t.Targets {
		// A group that no rule sends traffic to is not checked; documented as the
		// reason why both groups must hang on a rule.
		if c.health(t, r).State != "healthy" {
			return false
		}
	}
	return true
}

// definedAs is a task's definition, read once for all of a look.
func (c *control) definedAs(t task) types.TaskDefinition {
	d, known := c.defined[t.TaskDefinition]
	if !known {
		scope, _ := arn.ParseKey(c.key)
		d, _ = c.definition(c.tx, scope, t.TaskDefinition)
		c.defined[t.TaskDefinition] = d
	}
	return d
}

// replaceUnhealthy stops tasks that fail their container's or their load balancer's
// health checks
// after the grace period; scale starts others.
func (c *control) replaceUnhealthy() {
	grace := time.Duration(aws.ToInt32(c.s.Grace)) * time.Second
	for _, r := range c.revisionsOf(c.tx, c.key) {
		for _, t := range c.tasksOf(r) {
			if t.Last != running || t.Desired != running {
				continue
			}
			if t.healthOf(c.definedAs(t)) == types.HealthStatusUnhealthy {
				if end := t.Times.Started.Add(grace); end.After(c.now) {
					c.later(end)
				} else {
					c.tell(&c.s, c.now, "(task %s) failed container health checks.", t.ID)
					r = c.replace(t, r, "Task failed container health checks")
					continue
				}
			}
			for _, reg := range t.Targets {
				h := c.health(t, reg)
				if h.State != "unhealthy" {
					continue
				}
				if end := t.Times.Started.Add(grace); end.After(c.now) {
					c.later(end)
					continue
				}
				c.tell(&c.s, c.now, "(task %s) (port %d) is unhealthy in (target-group %s) due to (reason %s).", t.ID, reg.Port, reg.Group, h.Description)
				r = c.replace(t, r, "Task failed ELB health checks in (target-group "+reg.Group+")")
				break
			}
		}
	}
}

// replace stops a task that is not healthy and counts it on its revision.
func (c *control) replace(t task, r revision, reason string) revision {
	t.Unhealthy = true
	c.halt(t, types.TaskStopCodeServiceSchedulerInitiated, reason)
	c.tellAction(c.tx, c.key, c.now, tasksStopped, "")
	r.FailedUnhealthy++
	r.LastFailure = c.now
	c.revisions.Put(c.tx, revisionKey(r.ARN), r)
	return r
}

// tellEvents puts what happened into the service's events, in the observed forms.
func (c *control) tellEvents(events []rollout.Event) {
	target, _ := c.revisions.Get(c.tx, revisionKey(c.d.Target))
	source, _ := c.revisions.Get(c.tx, revisionKey(c.d.Source))
	for _, e := range events {
		c.log.Info("deployment", "service", c.key, "deployment", c.d.ARN, "event", string(e.Kind), "detail", e.Reason)
		c.tellDeployment(e.Kind, e.Reason, source, target)
		switch e.Kind {
		case rollout.Completed:
			c.tell(&c.s, c.now, "(deployment %s) deployment completed.", target.Legacy)
		case rollout.Failed:
			c.tell(&c.s, c.now, "(deployment %s) deployment failed: %s", target.Legacy, e.Reason)
		case rollout.RollingBack:
			c.tell(&c.s, c.now, "rolling back to deployment %s.", source.Legacy)
		}
	}
}

func (c *control) announceSteady(o rollout.Observed) {
	in := o.Target
	if inService(c.d) == c.d.Source {
		in = o.Source
	}
	steady := c.d.State.Status.Terminal() && in.Healthy == c.s.Desired && in.Active() == c.s.Desired
	if steady && !c.s.Steady {
		c.tell(&c.s, c.now, "has reached a steady state.")
		c.tellAction(c.tx, c.key, c.now, steadyState, "")
	}
	c.s.Steady = steady
}

// drain ends a service that is being deleted: its tasks, then itself.
func (c *control) drain() {
	left := 0
	for _, r := range c.revisionsOf(c.tx, c.key) {
		c.scale(r.ARN, 0)
		left += c.count(r).Left()
	}
	if left == 0 {
		c.s.Status = "INACTIVE"
		for k := range c.deployments.Scan(c.tx, c.key+"/") {
			c.deployments.Delete(c.tx, k)
		}
		for k := range c.revisions.Scan(c.tx, c.key+"/") {
			c.revisions.Delete(c.tx, k)
		}
	}
	c.keep()
}
