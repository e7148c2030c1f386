package ecsd

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/place"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// Tasks that nobody makes room for: those of launch type EC2 in a cluster that has
// container instances, and those of a group provider without managed scaling. They
// are placed when they are started, or not started.

// mostWaiting is how many tasks of a cluster may be in PROVISIONING; documented.
const mostWaiting = 500

// seatAgain is how soon the scheduler tries again to place what it could not, and
// tellSeat how soon it says the same again; guessed.
const (
	seatAgain = 15 * time.Second
	tellSeat  = 5 * time.Minute
)

// seats is a cluster's container instances as tasks are put on them.
type seats struct {
	*keeping
	by map[string]*bench // by provider; "": all that groups have
}

type bench struct {
	rows   []instance
	spaces []place.Instance
	all    int // with those that are drained
}

// seatsOf looks at a cluster's container instances.
func (a *API) seatsOf(tx *store.Tx, scope arn.Scope, cluster string, now time.Time) *seats {
	k := &keeping{API: a, tx: tx, scope: scope, cluster: cluster, now: now}
	for _, i := range a.instances.Scan(tx, scope.Key(cluster+"/")) {
		if i.registered() {
			k.instances = append(k.instances, i)
		}
	}
	return &seats{keeping: k, by: map[string]*bench{}}
}

// needsSeat says that a task is placed when it is started.
func (s *seats) needsSeat(t task) bool {
	if t.Provider == "" {
		c, _ := s.clusters.Get(s.tx, s.scope.Key(s.cluster))
		d, _ := s.definitionOf(s.tx, s.scope, t)
		return t.LaunchType == types.LaunchTypeEc2 && (c.Hosts || behindHost(d))
	}
	p, ok := s.providerIn(s.tx, s.scope, s.cluster, t.Provider)
	return ok && !p.scaled()
}

// bench is the instances for tasks of a provider, or of launch type EC2.
func (s *seats) bench(provider string) *bench {
	if b := s.by[provider]; b != nil {
		return b
	}
	b := &bench{}
	of := func(i instance) bool { return i.Group != "" && (provider == "" || i.Provider == provider) }
	b.rows, b.spaces, _ = s.spacesWhere(of)
	for _, i := range s.instances {
		if of(i) {
			b.all++
		}
	}
	s.by[provider] = b
	return b
}

// sit puts a task on an instance, or says why none takes it.
func (s *seats) sit(t *task) (why place.Refusal, ok bool) {
	b, n := s.bench(t.Provider), s.need(*t)
	at, why := place.PickBy(&n, b.spaces, ordersOf(t.Placement))
	if at < 0 {
		return why, false
	}
	s.seat(t, b.rows[at], n)
	b.spaces[at].Put(&n)
	return place.Refusal{}, true
}

// ordersOf is placement strategies as package place has them.
func ordersOf(list []types.PlacementStrategy) (orders []place.Order) {
	for _, p := range list {
		field := strings.TrimPrefix(aws.ToString(p.Field), "attribute:")
		if field == "host" {
			field = place.InstanceID
		}
		orders = append(orders, place.Order{Kind: place.OrderKind(p.Type), Field: field})
	}
	if orders == nil {
		return place.ByZone
	}
	return orders
}

// seedOf makes a task's random choices, the same ones again.
func seedOf(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return h.Sum64()
}

// waitingIn is how many of a cluster's tasks wait for an instance.
func (a *API) waitingIn(tx *store.Tx, scope arn.Scope, cluster string) (n int) {
	for range a.tasksBy.Scan(tx, waitingLabel+scope.Key(cluster)) {
		n++
	}
	return n
}

// troubleshooting ends the events that say why a task was not placed; documented.
const troubleshooting = " For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."

// unplaced is why a service's task was not placed, as its event says; observed.
func (s *seats) unplaced(t task, why place.Refusal) string {
	const text = "was unable to place a task because no container instance met all of its requirements."
	switch {
	case why.Closest != "":
		return text + " The closest matching (container-instance " + why.Closest + ") " + place.Lacking(why.Lack) + "." + troubleshooting
	case t.Provider != "":
		return text + " Reason: No Container Instances were found in your capacity provider." + troubleshooting
	}
	return text + " Reason: No Container Instances were found in your cluster." + troubleshooting
}

// tooMany is the event of a cluster with as many tasks in PROVISIONING as may be;
// documented.
const tooMany = "was unable to place tasks in your cluster because the tasks provisioning capacity limit was exceeded."

// put gives a service's new task its instance, where it has to have one at once. What
// keeps the task from being started is told, not too often, and tried again.
func (c *control) put(s *seats, t *task) bool {
	text := ""
	if s.needsSeat(*t) {
		if why, ok := s.sit(t); !ok {
			text = s.unplaced(*t, why)
		}
	} else if managedTask(*t) && c.waitingIn(c.tx, s.scope, s.cluster) >= mostWaiting {
		text = tooMany
	} else if !managedTask(*t) {
		s.house(t)
	}
	if text == "" {
		return true
	}
	c.later(c.now.Add(seatAgain))
	for _, e := range c.s.Events {
		if strings.HasSuffix(e.Message, text) && c.now.Sub(e.At) < tellSeat {
			return false
		}
	}
	c.tell(&c.s, c.now, "%s", text)
	return false
}

// failureWords is a lack as RunTask and StartTask tell it of an instance;
// documented, but for the words of distinctInstance.
func failureWords(l place.Lack) string {
	switch l {
	case place.Arch:
		return "ATTRIBUTE"
	case place.Agent:
		return "AGENT"
	case place.Location:
		return "LOCATION"
	case place.Member:
		return "MemberOf placement constraint unsatisfied."
	case place.Distinct:
		return "DistinctInstance placement constraint unsatisfied."
	}
	return "RESOURCE:" + string(l)
}

// failures is why a task of nobody's is not started: what each instance lacks.
func (s *seats) failures(t task) (list []types.Failure) {
	b, n := s.bench(t.Provider), s.need(t)
	for at := range b.spaces {
		list = append(list, types.Failure{Arn: new(instanceARN(s.scope, b.rows[at])), Reason: new(failureWords(b.spaces[at].Lacks(&n)))})
	}
	switch {
	case len(list) > 0:
	case b.all > 0:
		list = []types.Failure{{Reason: new("NO ACTIVE INSTANCES")}}
	case t.Provider != "":
		list = []types.Failure{{Arn: new(providerARN(s.scope, t.Provider)), Reason: new("EMPTY CAPACITY PROVIDER")}}
	}
	return list
}

// noHosts is RunTask's refusal in a cluster whose instances are gone; guessed from the event of services.
func noHosts() error { return invalid("No Container Instances were found in your cluster.") }

// StartTask starts a task on each of the container instances that are named.
func (a *API) StartTask(ctx context.Context, in *ecs.StartTaskInput) (*ecs.StartTaskOutput, error) {
	call := wire.From(ctx)
	run := &ecs.RunTaskInput{
		Cluster: in.Cluster, TaskDefinition: in.TaskDefinition, Overrides: in.Overrides, Group: in.Group, StartedBy: in.StartedBy, NetworkConfiguration: in.NetworkConfiguration,
		Tags: in.Tags, PropagateTags: in.PropagateTags, EnableECSManagedTags: in.EnableECSManagedTags, EnableExecuteCommand: in.EnableExecuteCommand, LaunchType: types.LaunchTypeEc2,
	}
	switch n := len(in.ContainerInstances); {
	case n == 0:
		return nil, client("Container Instances cannot be empty.")
	case n > 10:
		return nil, invalid("instanceIds can have at most 10 items.")
	}
	if err := checkRun(run); err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	out := &ecs.StartTaskOutput{Tasks: []types.Task{}, Failures: []types.Failure{}}
	err = a.store.Update(func(tx *store.Tx) error {
		out.Tasks, out.Failures = []types.Task{}, []types.Failure{}
		c, err := a.cluster(tx, call.Scope, in.Cluster)
		if err != nil {
			return err
		}
		first, d, err := a.firstTask(tx, call.Scope, c, run)
		if err != nil {
			return err
		}
		s := a.seatsOf(tx, call.Scope, c.Name, a.clock.Now())
		for _, name := range in.ContainerInstances {
			id, err := identifier(call.Scope, "container-instance", c.Name, name)
			if err != nil {
				return err
			}
			t, failure := s.startOn(id, first, d)
			if failure != nil {
				out.Failures = append(out.Failures, *failure)
				continue
			}
			a.tags.Set(tx, taskARN(call.Scope, t), a.labelsOf(tx, c, d, run, labels))
			t = a.putTask(tx, t, call.Scope.Key(""), s.now)
			out.Tasks = append(out.Tasks, a.taskView(tx, call.Scope, t))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// startOn makes a task for one instance.
func (s *seats) startOn(id string, first task, d types.TaskDefinition) (task, *types.Failure) {
	i, ok := s.API.instances.Get(s.tx, instanceKey(s.scope, s.cluster, id))
	fail := func(reason string) (task, *types.Failure) {
		return task{}, &types.Failure{Arn: new(instanceARN(s.scope, instance{Cluster: s.cluster, ID: id})), Reason: &reason}
	}
	switch {
	case !ok || i.Group == "": // ECS chooses what runs on its own, guessed
		return fail("MISSING")
	case i.Status != types.ContainerInstanceStatusActive:
		return fail("INACTIVE")
	case i.impaired(types.InstanceHealthCheckTypeAgentConnectivity):
		return fail("AGENT")
	}
	t := s.newOf(first, d)
	t.Provider = i.Provider
	b, n := s.bench(""), s.need(t)
	at := slices.IndexFunc(b.rows, func(o instance) bool { return o.ID == i.ID })
	if lack := b.spaces[at].Lacks(&n); lack != "" {
		return fail(failureWords(lack))
	}
	s.seat(&t, i, n)
	b.spaces[at].Put(&n)
	return t, nil
}

// newOf is another task like the first that was asked for.
func (s *seats) newOf(first task, d types.TaskDefinition) task {
	t := newTask(s.scope, s.cluster, overridden(d, first.Overrides), s.now)
	t.StartedBy, t.Group, t.Network, t.LaunchType, t.Overrides, t.Constraints, t.Placement = first.StartedBy, first.Group, first.Network, first.LaunchType, first.Overrides, first.Constraints, first.Placement
	t.Exec = first.Exec
	return t
}

// labelsOf is the tags of tasks that are run or started.
func (a *API) labelsOf(tx *store.Tx, c cluster, d types.TaskDefinition, in *ecs.RunTaskInput, labels []tags.Tag) []tags.Tag {
	if in.PropagateTags == types.PropagateTagsTaskDefinition {
		labels = append(slices.Clone(a.tags.Of(tx, *d.TaskDefinitionArn)), labels...)
	}
	if in.EnableECSManagedTags {
		labels = append(slices.Clone(labels), tags.Tag{Key: "aws:ecs:clusterName", Value: c.Name})
	}
	return labels
}

// tooManyTasks is the failure of RunTask where too many tasks wait; guessed from the
// event of services.
func tooManyTasks(c string) types.Failure {
	return types.Failure{Reason: new("RESOURCE:PROVISIONING"), Detail: new(fmt.Sprintf("The cluster %s has %d tasks in PROVISIONING, which is the limit.", c, mostWaiting))}
}
