package ecsd

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/catalogue"
	"serin/internal/place"
	"serin/internal/store"
	"serin/internal/wire"
)

// instance is the row of a container instance: a simulated host, with a type's
// capacity in a zone. The tasks on it are real.
type instance struct {
	ID, Cluster, Provider   string
	Group                   string // the Auto Scaling group that it is of; empty: ECS has bought it
	EC2, Type, Zone, Subnet string
	Status                  types.ContainerInstanceStatus // or INACTIVE
	Reason                  string
	Spot                    bool
	GPUs                    []string
	Attributes              map[string]string // its own
	Impaired                []impairment
	Launched, Registered    time.Time
	Due                     time.Time // when registering or deregistering is done
	Ended                   time.Time
	Draining                time.Time // since when
	Shrinking               bool      // it is drained to save its price
	Notice                  time.Time // that Spot takes it back two minutes later
	Interrupt               time.Time // when that notice will be given by chance
	For                     []string  // tasks that it was bought for
	Tasks                   []string  // that were on it at the last look
	Changed                 time.Time // when they last changed
	Version                 int64
}

const inactiveInstance types.ContainerInstanceStatus = "INACTIVE"

func instanceKey(scope arn.Scope, cluster, id string) string { return scope.Key(cluster + "/" + id) }

func instanceARN(scope arn.Scope, i instance) string {
	return scope.For("ecs", "container-instance/"+i.Cluster+"/"+i.ID).String()
}

// arch is the architecture as attributes have it.
func (i instance) arch() string {
	t, _ := catalogue.Find(i.Type)
	return strings.ToLower(string(t.Arch))
}

// registered says that the instance is its cluster's: booted, and not on its way out.
func (i instance) registered() bool {
	return i.Status == types.ContainerInstanceStatusActive || i.Status == types.ContainerInstanceStatusDraining
}

// gone says that no task can be on the instance any more.
func (i instance) gone() bool {
	return i.Status == types.ContainerInstanceStatusDeregistering || i.Status == inactiveInstance
}

// putInstance writes the next version of an instance, and tells it.
func (a *API) putInstance(tx *store.Tx, scope arn.Scope, i instance, at time.Time) instance {
	i.Version++
	key := instanceKey(scope, i.Cluster, i.ID)
	a.instances.Put(tx, key, i)
	v := a.instanceView(tx, scope, i)
	v.Tags = nil
	detail := a.told(v, "clusterArn", clusterARN(scope, i.Cluster), "updatedAt", wire.ISO(at))
	a.event(tx, key, "ECS Container Instance State Change", at, detail, *v.ContainerInstanceArn)
	return i
}

// tasksOn is the tasks on an instance that have not stopped.
func (a *API) tasksOn(tx *store.Tx, id string) (list []task) {
	for _, t := range a.tasksBy.Scan(tx, instanceLabel+id) {
		list = append(list, t)
	}
	return list
}

// agentPorts are the ports that an instance keeps for itself, documented.
var agentPorts = []uint16{22, 2376, 2375, 51678, 51679}

func (a *API) instanceView(tx *store.Tx, scope arn.Scope, i instance) types.ContainerInstance {
	t, _ := catalogue.Find(i.Type)
	all, free := room(t), room(t)
	v := types.ContainerInstance{
		ContainerInstanceArn: new(instanceARN(scope, i)), Ec2InstanceId: new(i.EC2), Status: new(string(i.Status)), AgentConnected: i.registered() && !i.impaired(types.InstanceHealthCheckTypeAgentConnectivity),
		Version: i.Version, Tags: a.tagsOut(tx, instanceARN(scope, i)), Attachments: []types.Attachment{}, RegisteredAt: pointer(i.Registered),
		VersionInfo: &types.VersionInfo{AgentVersion: new("1.100.0"), AgentHash: new("00000000"), DockerVersion: new("DockerVersion:25.0.0")},
	}
	if i.Reason != "" {
		v.StatusReason = new(i.Reason)
	}
	if i.Provider != "" {
		v.CapacityProviderName = new(i.Provider)
	}
	for _, name := range slices.Sorted(maps.Keys(i.Attributes)) {
		v.Attributes = append(v.Attributes, types.Attribute{Name: new(name), Value: new(i.Attributes[name])})
	}
	var ports []place.Port
	use := map[string]gpuUse{}
	for _, t := range a.tasksOn(tx, i.ID) {
		if t.Last == running {
			v.RunningTasksCount++
		} else {
			v.PendingTasksCount++
		}
		d, _ := a.definitionOf(tx, scope, t)
		free, ports = free.Minus(needOf(d).Room), append(ports, namedPorts(d)...)
		t.useGPUs(use, d)
	}
	idle := slices.DeleteFunc(slices.Clone(i.GPUs), func(id string) bool { return use[id].containers > 0 })
	v.RegisteredResources, v.RemainingResources = resources(all, nil, i.GPUs), resources(free, ports, idle)
	for _, at := range [][2]string{
		{"ecs.availability-zone", i.Zone}, {"ecs.instance-type", i.Type}, {"ecs.os-type", "linux"}, {osFamily, "LINUX"}, {"ecs.cpu-architecture", i.arch()}, {"ecs.subnet-id", i.Subnet},
	} {
		v.Attributes = append(v.Attributes, types.Attribute{Name: new(at[0]), Value: new(at[1])})
	}
	for _, name := range capabilities {
		v.Attributes = append(v.Attributes, types.Attribute{Name: new(name)})
	}
	v.GpuDevices = i.gpuDevices(use)
	return v
}

const osFamily = "ecs.os-family"

// capabilities are the attributes without a value that every instance's agent has.
var capabilities = []string{
	"com.amazonaws.ecs.capability.docker-remote-api.1.18", "com.amazonaws.ecs.capability.docker-remote-api.1.19", "com.amazonaws.ecs.capability.docker-remote-api.1.29",
	"com.amazonaws.ecs.capability.logging-driver.awslogs", "com.amazonaws.ecs.capability.ecr-auth", "com.amazonaws.ecs.capability.task-iam-role",
	"ecs.capability.task-eni", "ecs.capability.task-eni-trunking", "ecs.capability.execution-role-ecr-pull", "ecs.capability.execution-role-awslogs", "ecs.capability.network.container-port-range",
}

// attribute is the value of an attribute that does not follow from what the instance
// is, its own or every instance's; what is told of it is what constraints find.
func (i instance) attribute(name string) (string, bool) {
	if v, ok := i.Attributes[name]; ok {
		return v, true
	}
	if name == osFamily {
		return "LINUX", true
	}
	return "", slices.Contains(capabilities, name)
}

// resources are an instance's, with the ports that are reserved: its agent's, and
// those that definitions of its tasks name; documented.
func resources(r place.Room, reserved []place.Port, gpus []string) []types.Resource {
	tcp, udp := []string{}, []string{}
	for _, n := range agentPorts {
		tcp = append(tcp, itoa(int32(n)))
	}
	for _, p := range reserved {
		if p.UDP {
			udp = append(udp, itoa(int32(p.Number)))
		} else {
			tcp = append(tcp, itoa(int32(p.Number)))
		}
	}
	list := []types.Resource{
		{Name: new("CPU"), Type: new("INTEGER"), IntegerValue: int32(r.CPU)}, {Name: new("MEMORY"), Type: new("INTEGER"), IntegerValue: int32(r.Memory)},
		{Name: new("PORTS"), Type: new("STRINGSET"), StringSetValue: tcp}, {Name: new("PORTS_UDP"), Type: new("STRINGSET"), StringSetValue: udp},
	}
	if len(gpus) > 0 {
		list = append(list, types.Resource{Name: new("GPU"), Type: new("STRINGSET"), StringSetValue: gpus})
	}
	return list
}

// ListContainerInstances lists the ARNs of a cluster's instances.
func (a *API) ListContainerInstances(ctx context.Context, in *ecs.ListContainerInstancesInput) (*ecs.ListContainerInstancesOutput, error) {
	call := wire.From(ctx)
	var list []string
	var filter place.Expr
	var err error
	if in.Filter != nil {
		if filter, err = place.ParseExpr(*in.Filter); err != nil {
			return nil, invalid("Invalid filter: %v", err)
		}
	}
	a.store.View(func(tx *store.Tx) {
		var c cluster
		if c, err = a.cluster(tx, call.Scope, in.Cluster); err != nil {
			return
		}
		for _, i := range a.instances.Scan(tx, call.Scope.Key(c.Name+"/")) {
			shown := i.Status == in.Status || in.Status == "" && i.Status != inactiveInstance
			if shown && in.Filter != nil {
				where := whereOf(i)
				shown = filter.Holds(where.Attribute)
			}
			if shown {
				list = append(list, instanceARN(call.Scope, i))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	list, next, err := page(list, in.NextToken, in.MaxResults, 100, 100)
	return &ecs.ListContainerInstancesOutput{ContainerInstanceArns: list, NextToken: next}, err
}

// whereOf is an instance as placement sees it, empty.
func whereOf(i instance) place.Instance {
	t, _ := catalogue.Find(i.Type)
	all := room(t)
	return place.Instance{ID: i.ID, Type: i.Type, Zone: i.Zone, Subnet: i.Subnet, Arch: string(t.Arch), Free: all, GPUs: all.Devices(), Ports: takenPorts(nil), Other: i.attribute, Away: i.impaired(types.InstanceHealthCheckTypeAgentConnectivity)}
}

// named finds the instances that a request names, and failures for the others.
func (a *API) named(tx *store.Tx, scope arn.Scope, in *string, names []string) (list []instance, failures []types.Failure, err error) {
	c, err := a.cluster(tx, scope, in)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		id, err := identifier(scope, "container-instance", c.Name, name)
		if err != nil {
			return nil, nil, err
		}
		i, ok := a.instances.Get(tx, instanceKey(scope, c.Name, id))
		if !ok {
			failures = append(failures, missing(instanceARN(scope, instance{Cluster: c.Name, ID: id})))
			continue
		}
		list = append(list, i)
	}
	return list, failures, nil
}

// DescribeContainerInstances describes up to a hundred instances.
func (a *API) DescribeContainerInstances(ctx context.Context, in *ecs.DescribeContainerInstancesInput) (*ecs.DescribeContainerInstancesOutput, error) {
	call := wire.From(ctx)
	if n := len(in.ContainerInstances); n == 0 {
		return nil, client("Container Instances cannot be empty.")
	} else if n > 100 {
		return nil, invalid("instanceIds can have at most 100 items.")
	}
	out := &ecs.DescribeContainerInstancesOutput{}
	var err error
	a.store.View(func(tx *store.Tx) {
		var list []instance
		if list, out.Failures, err = a.named(tx, call.Scope, in.Cluster, in.ContainerInstances); err != nil {
			return
		}
		for _, i := range list {
			v := a.instanceView(tx, call.Scope, i)
			if !slices.Contains(in.Include, types.ContainerInstanceFieldTags) {
				v.Tags = []types.Tag{}
			}
			if slices.Contains(in.Include, types.ContainerInstanceFieldContainerInstanceHealth) {
				v.HealthStatus = i.health()
			}
			out.ContainerInstances = append(out.ContainerInstances, v)
		}
	})
	return out, err
}

// UpdateContainerInstancesState drains instances, or takes tasks onto them again.
func (a *API) UpdateContainerInstancesState(ctx context.Context, in *ecs.UpdateContainerInstancesStateInput) (*ecs.UpdateContainerInstancesStateOutput, error) {
	call := wire.From(ctx)
	switch {
	case len(in.ContainerInstances) == 0:
		return nil, client("Container Instances cannot be empty.")
	case len(in.ContainerInstances) > 10:
		return nil, invalid("instanceIds can have at most 10 items.")
	case in.Status != types.ContainerInstanceStatusActive && in.Status != types.ContainerInstanceStatusDraining:
		return nil, invalid("Container instances status should be one of [ACTIVE,DRAINING]")
	}
	out := &ecs.UpdateContainerInstancesStateOutput{}
	err := a.store.Update(func(tx *store.Tx) error {
		list, failures, err := a.named(tx, call.Scope, in.Cluster, in.ContainerInstances)
		if err != nil {
			return err
		}
		out.Failures = failures
		for _, i := range list {
			if !i.registered() {
				return invalid("The container instance %s is %s; its state cannot be changed.", i.ID, i.Status) // guessed
			}
			if i.Status != in.Status {
				i.Status, i.Draining, i.Shrinking = in.Status, time.Time{}, false
				if in.Status == types.ContainerInstanceStatusDraining {
					i.Draining = a.clock.Now()
				}
				i = a.putInstance(tx, call.Scope, i, a.clock.Now())
			}
			out.ContainerInstances = append(out.ContainerInstances, a.instanceView(tx, call.Scope, i))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeregisterContainerInstance ends a managed instance, or has one of a group leave the
// cluster; with force its tasks end, too.
func (a *API) DeregisterContainerInstance(ctx context.Context, in *ecs.DeregisterContainerInstanceInput) (*ecs.DeregisterContainerInstanceOutput, error) {
	call := wire.From(ctx)
	var view types.ContainerInstance
	err := a.store.Update(func(tx *store.Tx) error {
		list, _, err := a.named(tx, call.Scope, in.Cluster, []string{aws.ToString(in.ContainerInstance)})
		if err != nil {
			return err
		}
		if len(list) == 0 || list[0].Status == inactiveInstance {
			return client("Referenced container instance ID not found.")
		}
		i := list[0]
		if len(a.tasksOn(tx, i.ID)) > 0 && !aws.ToBool(in.Force) {
			return invalid("Found running tasks on the instance.")
		}
		const forced = "Container instance deregistration forced by user"
		if i.Group != "" {
			i = a.part(tx, call.Scope, i, types.TaskStopCodeUserInitiated, forced)
		} else if !i.gone() { // one that is ending is told as it is
			i = a.end(tx, call.Scope, i, types.TaskStopCodeUserInitiated, forced)
		}
		view = a.instanceView(tx, call.Scope, i)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeregisterContainerInstanceOutput{ContainerInstance: &view}, nil
}

// terminating is how long an instance is deregistering; guessed.
const terminating = 10 * time.Second

// end begins the end of an instance; tasks that are on it stop, for a reason.
func (a *API) end(tx *store.Tx, scope arn.Scope, i instance, code types.TaskStopCode, reason string) instance {
	now := a.clock.Now()
	for _, t := range a.tasksOn(tx, i.ID) {
		a.stopFor(tx, instanceKey(scope, i.Cluster, i.ID), t, now, code, reason)
	}
	i.Status, i.Due = types.ContainerInstanceStatusDeregistering, now.Add(terminating)
	return a.putInstance(tx, scope, i, now)
}

// stopFor asks for a task's end, if nobody has.
func (a *API) stopFor(tx *store.Tx, near string, t task, at time.Time, code types.TaskStopCode, reason string) {
	if t.Desired == stopped {
		return
	}
	t.Desired, t.StopCode, t.StopReason, t.Times.Stopping = stopped, code, reason, at
	a.putTask(tx, t, near, at)
}
