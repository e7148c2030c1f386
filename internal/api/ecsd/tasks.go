package ecsd

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// A task's last status, in the order of its life; documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
const (
	provisioning   = "PROVISIONING"
	pending        = "PENDING"
	activating     = "ACTIVATING"
	running        = "RUNNING"
	deactivating   = "DEACTIVATING"
	stopping       = "STOPPING"
	deprovisioning = "DEPROVISIONING"
	stopped        = "STOPPED"
)

// taskKey is the key of a task's row.
func taskKey(scope arn.Scope, t task) string { return scope.Key(t.Cluster + "/" + t.ID) }

// putTask writes the next version of a task, beside a row of the same scope, and
// tells it as of a time.
func (a *API) putTask(tx *store.Tx, t task, near string, at time.Time) task {
	scope, _ := arn.ParseKey(near)
	t.Version++
	a.tasks.Put(tx, taskKey(scope, t), t)
	a.tellTask(tx, taskKey(scope, t), t, at)
	return t
}

// ListTasks lists the ARNs of tasks that are to run, or of those stopped.
func (a *API) ListTasks(ctx context.Context, in *ecs.ListTasksInput) (*ecs.ListTasksOutput, error) {
	call := wire.From(ctx)
	desired := cmp.Or(string(in.DesiredStatus), running)
	var list []string
	var err error
	a.store.View(func(tx *store.Tx) {
		var c cluster
		if c, err = a.cluster(tx, call.Scope, in.Cluster); err != nil {
			return
		}
		filters := *in
		if filters.ServiceName, err = optionalID(call.Scope, "service", c.Name, in.ServiceName); err != nil {
			return
		}
		if filters.ContainerInstance, err = optionalID(call.Scope, "container-instance", c.Name, in.ContainerInstance); err != nil {
			return
		}
		if filters.ServiceName != nil {
			if _, ok := a.services.Get(tx, call.Scope.Key(c.Name+"/"+*filters.ServiceName)); !ok {
				err = &types.ServiceNotFoundException{Message: new("Service not found.")}
				return
			}
		}
		for _, t := range a.tasks.Scan(tx, call.Scope.Key(c.Name+"/")) {
			if t.Desired == desired && t.meets(filters) {
				list = append(list, taskARN(call.Scope, t))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	list, next, err := page(list, in.NextToken, in.MaxResults, 100, 100)
	return &ecs.ListTasksOutput{TaskArns: list, NextToken: next}, err
}

// meets says that a task passes the filters of a list, which have ids and no ARNs.
func (t task) meets(in ecs.ListTasksInput) bool {
	family, _, _ := strings.Cut(lastPart(t.TaskDefinition), ":")
	return (in.ContainerInstance == nil || t.Instance != "" && t.Instance == *in.ContainerInstance) && (in.ServiceName == nil || t.Service == *in.ServiceName) && (in.Family == nil || family == *in.Family) &&
		(in.StartedBy == nil || t.StartedBy == *in.StartedBy) && (in.LaunchType == "" || t.LaunchType == in.LaunchType)
}

// DescribeTasks describes up to a hundred tasks.
func (a *API) DescribeTasks(ctx context.Context, in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
	call := wire.From(ctx)
	if n := len(in.Tasks); n < 1 {
		return nil, invalid("Tasks cannot be empty.") // observed
	} else if n > 100 {
		return nil, invalid("tasks can have at most 100 items, got %d.", n)
	}
	out := &ecs.DescribeTasksOutput{}
	var err error
	a.store.View(func(tx *store.Tx) {
		var c cluster
		if c, err = a.cluster(tx, call.Scope, in.Cluster); err != nil {
			return
		}
		for _, name := range in.Tasks {
			var t task
			var ok bool
			if t, ok, err = a.taskNamed(tx, call.Scope, c.Name, name); err != nil {
				return
			}
			if !ok {
				out.Failures = append(out.Failures, missing(taskResource(call, name, in.Cluster)))
				continue
			}
			v := a.taskView(tx, call.Scope, t)
			if !slices.Contains(in.Include, types.TaskFieldTags) {
				v.Tags = []types.Tag{}
			}
			out.Tasks = append(out.Tasks, v)
		}
	})
	return out, err
}

// StopTask asks for the end of a task; a service replaces it.
func (a *API) StopTask(ctx context.Context, in *ecs.StopTaskInput) (*ecs.StopTaskOutput, error) {
	call := wire.From(ctx)
	var view types.Task
	err := a.store.Update(func(tx *store.Tx) error {
		c, err := a.cluster(tx, call.Scope, in.Cluster)
		if err != nil {
			return err
		}
		t, ok, err := a.taskNamed(tx, call.Scope, c.Name, aws.ToString(in.Task))
		if err != nil {
			return err
		}
		if !ok {
			return invalid("The referenced task was not found.")
		}
		if t.Desired != stopped {
			t.Desired, t.StopCode, t.Times.Stopping = stopped, types.TaskStopCodeUserInitiated, a.clock.Now()
			t.StopReason = cmp.Or(aws.ToString(in.Reason), "Task stopped by user")
			t = a.putTask(tx, t, taskKey(call.Scope, t), t.Times.Stopping)
		}
		view = a.taskView(tx, call.Scope, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.StopTaskOutput{Task: &view}, nil
}

// overridesView has each container, also one of which nothing is overridden; documented
// in examples of RunTask.
func (t task) overridesView() *types.TaskOverride {
	var v types.TaskOverride
	if t.Overrides != nil {
		v = *t.Overrides
	}
	v.ContainerOverrides = slices.Clone(v.ContainerOverrides)
	for _, c := range t.Containers {
		if !slices.ContainsFunc(v.ContainerOverrides, func(o types.ContainerOverride) bool { return aws.ToString(o.Name) == c.Name }) {
			v.ContainerOverrides = append(v.ContainerOverrides, types.ContainerOverride{Name: new(c.Name)})
		}
	}
	return &v
}

// attachment is a task's network interface, which there is with the task: its subnet is
// chosen, its address follows; documented in examples of RunTask.
func (t task) attachment() types.Attachment {
	status := "PRECREATED"
	switch {
	case t.Last == stopped:
		status = "DELETED"
	case t.Address != "":
		status = "ATTACHED"
	}
	eni := types.Attachment{Id: new(t.Attachment), Type: new("ElasticNetworkInterface"), Status: new(status), Details: []types.KeyValuePair{}}
	if t.Network != nil && t.Network.AwsvpcConfiguration != nil && len(t.Network.AwsvpcConfiguration.Subnets) > 0 {
		eni.Details = append(eni.Details, types.KeyValuePair{Name: new("subnetId"), Value: new(cmp.Or(t.Subnet, t.Network.AwsvpcConfiguration.Subnets[0]))})
	}
	if t.Address != "" {
		eni.Details = append(eni.Details, types.KeyValuePair{Name: new("privateIPv4Address"), Value: new(t.Address)})
	}
	return eni
}

func (a *API) taskView(tx *store.Tx, scope arn.Scope, t task) types.Task {
	v := types.Task{
		TaskArn: new(taskARN(scope, t)), ClusterArn: new(clusterARN(scope, t.Cluster)), TaskDefinitionArn: new(t.TaskDefinition),
		DesiredStatus: new(t.Desired), LastStatus: new(t.Last), Group: new(t.Group), StartedBy: new(t.StartedBy), Version: t.Version,
		LaunchType: t.LaunchType, CreatedAt: new(t.Times.Created), HealthStatus: types.HealthStatusUnknown,
		Overrides: t.overridesView(), Tags: a.tagsOut(tx, taskARN(scope, t)), Attributes: []types.Attribute{},
		Attachments: []types.Attachment{}, StopCode: t.StopCode, EnableExecuteCommand: t.Exec,
	}
	if t.Provider != "" {
		v.CapacityProviderName = new(t.Provider)
	}
	if t.Instance != "" {
		if i, ok := a.instances.Get(tx, instanceKey(scope, t.Cluster, t.Instance)); ok {
			v.Attributes = append(v.Attributes, types.Attribute{Name: new("ecs.cpu-architecture"), Value: new(i.arch())})
		}
		v.ContainerInstanceArn, v.AvailabilityZone = new(instanceARN(scope, instance{Cluster: t.Cluster, ID: t.Instance})), new(t.Zone)
	}
	if t.StopReason != "" {
		v.StoppedReason = new(t.StopReason)
	}
	at := t.Times
	v.PullStartedAt, v.PullStoppedAt, v.StartedAt = pointer(at.PullStarted), pointer(at.PullStopped), pointer(at.Started)
	v.StoppingAt, v.ExecutionStoppedAt, v.StoppedAt = pointer(at.Stopping), pointer(at.ExecutionStopped), pointer(at.Stopped)
	if !at.Started.IsZero() || !at.PullStarted.IsZero() {
		v.Connectivity, v.ConnectivityAt = types.ConnectivityConnected, pointer(at.Created)
	}
	d, ok := a.definitionOf(tx, scope, t)
	own := t.Address != "" && !behindHost(d)
	if own || ok && !behindHost(d) && (!managedTask(t) || t.Instance != "") {
		v.Attachments = append(v.Attachments, t.attachment())
	}
	if ok {
		v.Cpu, v.Memory, v.HealthStatus = d.Cpu, d.Memory, t.healthOf(d)
	}
	gpus := t.gpuIDs(d)
	for _, c := range t.Containers {
		w := types.Container{
			ContainerArn: new(containerARN(scope, t, c)), TaskArn: v.TaskArn, Name: new(c.Name), Image: new(c.Image),
			LastStatus: new(c.Status), ExitCode: c.Exit, HealthStatus: cmp.Or(c.Health, types.HealthStatusUnknown), NetworkBindings: t.bindings(d, c), NetworkInterfaces: []types.NetworkInterface{},
			ManagedAgents: t.agents(c),
		}
		if c.Digest != "" {
			w.ImageDigest = new(c.Digest)
		}
		if c.Reason != "" {
			w.Reason = new(c.Reason)
		}
		if t.Last != provisioning && t.Last != pending {
			w.RuntimeId = new(runtimeID(t, c.Name))
		}
		if own {
			w.NetworkInterfaces = append(w.NetworkInterfaces, types.NetworkInterface{AttachmentId: new(t.Attachment), PrivateIpv4Address: new(t.Address)})
		}
		if i := slices.IndexFunc(d.ContainerDefinitions, func(def types.ContainerDefinition) bool { return *def.Name == c.Name }); i >= 0 {
			w.Cpu = new(itoa(d.ContainerDefinitions[i].Cpu))
			w.GpuIds = gpus[c.Name]
		}
		v.Containers = append(v.Containers, w)
	}
	return v
}
