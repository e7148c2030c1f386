package ecsd

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/rollout"
	"serin/internal/store"
	"serin/internal/tags"
)

// halt asks for a task's end.
func (c *control) halt(t task, code types.TaskStopCode, reason string) {
	c.stopFor(c.tx, c.key, t, c.now, code, reason)
	delete(c.living, t.Revision)
}

// leaves says that a task is to be replaced: its instance is drained, or another
// zone needs it more.
func (c *control) leaves(t task) bool {
	if t.Move != "" {
		return true
	}
	if t.Instance == "" {
		return false
	}
	scope, _ := arn.ParseKey(c.key)
	i, ok := c.instances.Get(c.tx, instanceKey(scope, t.Cluster, t.Instance))
	return ok && i.Status == types.ContainerInstanceStatusDraining
}

// scale brings the number of a revision's tasks that are to run to n. Tasks that
// leave are replaced first and stopped then, as far as the service's limits let.
func (c *control) scale(revisionARN string, n int) {
	r, ok := c.revisions.Get(c.tx, revisionKey(revisionARN))
	if !ok {
		return
	}
	var stay, leave []task
	for _, t := range c.tasksOf(r) {
		if t.Desired != running {
			continue
		}
		if c.leaves(t) {
			leave = append(leave, t)
		} else {
			stay = append(stay, t)
		}
	}
	c.stopSome(r, leave, c.spare(stay, leave, n))
	if missing := n - len(stay); missing > 0 {
		if len(leave) > 0 {
			most, _ := c.s.limits()
			missing = min(missing, max(most, n)-len(stay)-len(leave)-c.beside(r))
		}
		if missing > 0 {
			c.launch(r, missing, leave)
		}
		return
	}
	c.stopSome(r, stay, len(stay)-n)
}

// limits is how many tasks a service may have at most, and must have running.
func (s service) limits() (most, least int) {
	return s.Desired * int(aws.ToInt32(s.Config.MaximumPercent)) / 100, s.leastOf(s.Desired)
}

// leastOf is how many of n tasks must run.
func (s service) leastOf(n int) int {
	return (n*int(aws.ToInt32(s.Config.MinimumHealthyPercent)) + 99) / 100
}

// beside is the tasks of other revisions that count against the same limit: those of
// a rolling update. Other strategies run two revisions at full strength anyway.
func (c *control) beside(r revision) (n int) {
	if c.s.external() || c.d.State.Config.Strategy != rollout.Rolling {
		return 0
	}
	for _, other := range c.revisionsOf(c.tx, c.key) {
		if other.ARN == r.ARN {
			continue
		}
		for _, t := range c.tasksOf(other) {
			if t.Desired == running {
				n++
			}
		}
	}
	return n
}

// spare is how many of the tasks that leave can be stopped: those that others stand
// in for and, where no other may be started beside them, those that the service can
// do without.
func (c *control) spare(stay, leave []task, n int) int {
	if len(leave) == 0 {
		return 0
	}
	healthy, idle := 0, 0
	for _, t := range stay {
		if t.Last == running && c.healthy(t) {
			healthy++
		}
	}
	for _, t := range leave {
		if t.Last != running { // stopped at once, documented
			idle++
		}
	}
	need := n
	if most, _ := c.s.limits(); most <= n {
		need = c.s.leastOf(n)
	}
	return min(len(leave), max(idle, healthy+len(leave)-need))
}

// stopSome stops some of the tasks: those that carry nothing yet first, then the
// youngest. Those that are protected stay until they are not.
func (c *control) stopSome(r revision, tasks []task, n int) {
	if n <= 0 {
		return
	}
	kept := 0
	tasks = slices.DeleteFunc(slices.Clone(tasks), func(t task) bool {
		if !t.protected(c.now) {
			return false
		}
		c.later(t.Protected)
		kept++
		return true
	})
	if n > len(tasks) {
		c.tellKept(r, kept)
		n = len(tasks)
	}
	slices.SortStableFunc(tasks, func(x, y task) int {
		if (x.Last == running) != (y.Last == running) {
			if x.Last == running {
				return 1
			}
			return -1
		}
		return y.Times.Created.Compare(x.Times.Created)
	})
	var ids []string
	for _, t := range tasks[:n] {
		if t.Move != "" {
			c.halt(t, types.TaskStopCodeServiceSchedulerInitiated, "Availability-zone rebalancing initiated by (deployment "+r.Legacy+")")
			c.tell(&c.s, c.now, "has stopped 1 running tasks in %s due to AZ rebalancing: (task %s).", t.Zone, t.ID)
			continue
		}
		c.halt(t, types.TaskStopCodeServiceSchedulerInitiated, "Scaling activity initiated by (deployment "+r.Legacy+")")
		ids = append(ids, "(task "+t.ID+")")
	}
	if len(ids) > 0 {
		c.tellAs(&c.s, r.setID(), c.now, "has stopped %d running tasks: %s.", len(ids), strings.Join(ids, " "))
	}
	if n > 0 {
		c.tellAction(c.tx, c.key, c.now, tasksStopped, "")
	}
}

// tellKept says that protected tasks keep the service from its steady state, once
// for each number of them; observed.
func (c *control) tellKept(r revision, kept int) {
	text := fmt.Sprintf("was unable to reach steady state because (taskSet %s) was unable to scale in due to (reason %d tasks under protection)", r.Legacy, kept)
	for _, e := range c.s.Events {
		if strings.HasSuffix(e.Message, text) {
			return
		}
	}
	c.tell(&c.s, c.now, "%s", text)
}

// launch writes rows for new tasks, in place of those that leave. After failures
// it waits, longer each time: documented in kind and in its end of 27 minutes, the
// first steps are a guess.
func (c *control) launch(r revision, n int, leave []task) {
	if failures := r.FailedToStart; failures > 0 {
		pause := min(5*time.Second<<min(failures-1, 10), 27*time.Minute)
		if due := r.LastFailure.Add(pause); due.After(c.now) {
			c.later(due)
			return
		}
	}
	scope, _ := arn.ParseKey(c.key)
	d, ok := c.definition(c.tx, scope, r.TaskDefinition)
	if !ok {
		c.log.Error("a task definition is missing", "service", c.key, "definition", r.TaskDefinition)
		return
	}
	have := map[string]int{}
	for _, t := range c.tasksOf(r) {
		if t.Desired == running && !c.leaves(t) {
			have[t.Provider]++
		}
	}
	moves := c.moves(r, leave)
	var ids []string
	seats := c.seatsOf(c.tx, scope, c.s.Cluster, c.now)
	for i := range n {
		t := newTask(scope, c.s.Cluster, d, c.now)
		t.Service, t.Revision, t.StartedBy, t.Group = c.s.Name, r.ARN, r.Legacy, "service:"+c.s.Name
		t.Network, t.LaunchType, t.Constraints, t.Placement = r.Network, r.LaunchType, c.s.Constraints, c.s.Placement
		t.Exec = c.s.Exec
		if len(r.Capacity) > 0 {
			t.Provider = nextProvider(r.Capacity, have)
			t.LaunchType = c.launchTypeOf(c.tx, scope, c.s.Cluster, t.Provider)
			have[t.Provider]++
		}
		if i < len(moves) {
			t.In, t.For, t.Provider = moves[i].Move, moves[i].ID, moves[i].Provider
		}
		if !c.put(seats, &t) {
			break
		}
		c.tags.Set(c.tx, taskARN(scope, t), c.tagsForTask(scope, r))
		if t.In != "" {
			c.tell(&c.s, c.now, "has started 1 tasks in %s to AZ Rebalance: (task %s).", t.In, t.ID)
		} else {
			ids = append(ids, "(task "+t.ID+")")
		}
		c.putTask(c.tx, t, c.key, c.now)
		delete(c.living, r.ARN)
	}
	if len(ids) > 0 {
		c.tellAs(&c.s, r.setID(), c.now, "has started %d tasks: %s.", len(ids), strings.Join(ids, " "))
	}
}

// moves is the tasks that leave for another zone and that nobody stands in for yet.
func (c *control) moves(r revision, leave []task) (list []task) {
	for _, t := range leave {
		stands := slices.ContainsFunc(c.tasksOf(r), func(o task) bool { return o.For == t.ID && o.Desired == running })
		if t.Move != "" && !stands {
			list = append(list, t)
		}
	}
	return list
}

// newTask is the row of a task of a definition, not yet anybody's.
func newTask(scope arn.Scope, cluster string, d types.TaskDefinition, now time.Time) task {
	t := task{
		ID: id.Hex(32), Cluster: cluster, TaskDefinition: *d.TaskDefinitionArn, Desired: running, Last: provisioning, Times: times{Created: now}, Attachment: id.UUID(),
	}
	if d.TaskRoleArn != nil {
		t.Credentials = id.UUID()
	}
	for _, def := range d.ContainerDefinitions {
		t.Containers = append(t.Containers, container{Name: *def.Name, ID: id.UUID(), Image: *def.Image, Status: pending, Metadata: id.UUID()})
	}
	return t
}

// tagsForTask is what a new task of the service is tagged with: ECS's own two
// tags where the service wants them, and those that propagate.
func (c *control) tagsForTask(scope arn.Scope, r revision) []tags.Tag {
	var list []tags.Tag
	switch c.s.PropagateTags {
	case types.PropagateTagsService:
		list = c.tags.Of(c.tx, serviceARN(scope, c.s.Cluster, c.s.Name))
	case types.PropagateTagsTaskDefinition:
		list = c.tags.Of(c.tx, r.TaskDefinition)
	}
	if c.s.ManagedTags {
		list = append(slices.Clone(list), tags.Tag{Key: "aws:ecs:clusterName", Value: c.s.Cluster}, tags.Tag{Key: "aws:ecs:serviceName", Value: c.s.Name})
	}
	return list
}

// rebalance moves one task of a service in its steady state from the zone with the
// most to the one with the fewest, where they differ by more than one; documented.
func (c *control) rebalance() {
	if !c.s.Steady || c.s.Rebalance != types.AvailabilityZoneRebalancingEnabled {
		return
	}
	if c.s.RebalanceAt.After(c.now) {
		c.later(c.s.RebalanceAt)
		return
	}
	r, _ := c.revisions.Get(c.tx, revisionKey(inService(c.d)))
	if c.bound(r) {
		return
	}
	zones := c.zonesOf(r)
	byZone := map[string]task{} // the youngest of each that may be stopped
	for _, t := range c.tasksOf(r) {
		if t.Desired != running || t.Last != running || t.Zone == "" || c.leaves(t) {
			return // something is on its way
		}
		if _, ok := zones[t.Zone]; ok {
			zones[t.Zone]++
			if t.protected(c.now) {
				c.later(t.Protected)
			} else {
				byZone[t.Zone] = t
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(zones), func(x, y string) int { return cmp.Or(cmp.Compare(zones[y], zones[x]), cmp.Compare(x, y)) })
	if len(names) < 2 {
		return
	}
	most, least := names[0], names[len(names)-1]
	if zones[most]-zones[least] < 2 {
		if c.s.Unbalanced {
			c.s.Unbalanced = false
			c.tell(&c.s, c.now, "is AZ balanced with %s.", counted(names, zones))
		}
		return
	}
	t, free := byZone[most]
	if _, there := c.zonesWhere(r, t.Provider)[least]; !free || !there {
		return // all that could move are protected, or their provider is not there
	}
	c.s.Unbalanced = true
	c.tell(&c.s, c.now, "is not AZ balanced with %s. AZ Rebalancing in progress.", counted(names, zones))
	t.Move = least
	c.putTask(c.tx, t, c.key, c.now)
	delete(c.living, r.ARN)
	c.later(c.now.Add(time.Nanosecond))
}

// bound says that constraints choose the zones: then tasks are not moved,
// documented.
func (c *control) bound(r revision) bool {
	scope, _ := arn.ParseKey(c.key)
	d, _ := c.definition(c.tx, scope, r.TaskDefinition)
	var expressions []string
	for _, p := range c.s.Constraints {
		expressions = append(expressions, aws.ToString(p.Expression))
	}
	for _, p := range d.PlacementConstraints {
		expressions = append(expressions, aws.ToString(p.Expression))
	}
	return slices.ContainsFunc(expressions, func(e string) bool {
		return strings.Contains(e, "ecs.availability-zone") || strings.Contains(e, "ecs.subnet-id")
	})
}

// notMoved is a task that could not be started in the zone that needs it: the one
// that was to stop for it stays, and it is tried again later.
func (a *API) notMoved(tx *store.Tx, t task, r revision) {
	at := t.Times.Stopped
	for key, other := range a.tasksBy.Scan(tx, r.ARN) {
		if other.Move == t.In {
			other.Move = ""
			a.tasks.Put(tx, key, other)
		}
	}
	if s, ok := a.services.Get(tx, r.Service); ok {
		s.RebalanceAt = at.Add(moveAgain)
		a.tell(&s, at, "is unable to place a task in %s because no container instance met all of its requirements. Reason: %s", t.In, t.StopReason)
		a.services.Put(tx, r.Service, s)
	}
	a.tellAction(tx, r.Service, at, placementFailure, t.StopReason)
}

// moveAgain is when a move that failed is tried again; guessed.
const moveAgain = 30 * time.Minute

func counted(names []string, zones map[string]int) string {
	var list []string
	for _, z := range names {
		list = append(list, fmt.Sprintf("%d tasks in %s", zones[z], z))
	}
	return strings.Join(list, ", ")
}

// zonesOf is the zones that a revision's tasks can be in: those of its subnets and
// of its capacity providers.
func (c *control) zonesOf(r revision) map[string]int {
	out := map[string]int{}
	for _, item := range r.Capacity {
		maps.Copy(out, c.zonesWhere(r, aws.ToString(item.CapacityProvider)))
	}
	return out
}

// zonesWhere is those of one provider.
func (c *control) zonesWhere(r revision, name string) map[string]int {
	out := map[string]int{}
	scope, _ := arn.ParseKey(c.key)
	p, ok := c.providerIn(c.tx, scope, c.s.Cluster, name)
	if !ok || r.Network == nil || r.Network.AwsvpcConfiguration == nil || !p.scaled() {
		return out // what is placed at once is not moved
	}
	own, _, err := c.deps.Machines.Network(scope, r.Network.AwsvpcConfiguration.Subnets, nil)
	if err != nil {
		return out
	}
	var subnets []string
	if p.Group == nil {
		subnets = p.Managed.InstanceLaunchTemplate.NetworkConfiguration.Subnets
	} else if g, found := c.deps.Groups.Find(c.tx, scope, *p.Group.AutoScalingGroupArn); found {
		subnets = g.Subnets
	}
	its, _, err := c.deps.Machines.Network(scope, subnets, nil)
	if err != nil {
		return out
	}
	for _, z := range its {
		for _, o := range own {
			if o == z {
				out[z] = 0
			}
		}
	}
	return out
}
