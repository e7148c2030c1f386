package stagetest

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

func (w *world) runs(in *ecs.RunTaskInput) []types.Task {
	w.t.Helper()
	out, err := w.ecs.RunTask(w.t.Context(), in)
	w.must(out, err)
	if len(out.Failures) > 0 {
		w.t.Fatalf("failures: %+v", out.Failures)
	}
	return out.Tasks
}

func (w *world) task(arn *string) types.Task {
	w.t.Helper()
	out, err := w.ecs.DescribeTasks(w.t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*arn}, Include: []types.TaskField{types.TaskFieldTags}})
	w.must(out, err)
	return out.Tasks[0]
}

func awsvpc(subnets ...string) *types.NetworkConfiguration {
	return &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: subnets}}
}

// A task of nobody's, with everything overridden that can be, as a migration that
// is run before a release.
func TestATaskIsRunWithItsOverrides(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.must(w.iam.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: new("migrate"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
		w.must(w.ecs.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("128"), Tags: []types.Tag{{Key: new("team"), Value: new("shop")}},
			ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1"), Command: []string{"serve"},
				Environment: []types.KeyValuePair{{Name: new("A"), Value: new("1")}, {Name: new("B"), Value: new("2")}}}}}))
		tasks := w.runs(&ecs.RunTaskInput{
			TaskDefinition: new("web"), Count: new(int32(2)), NetworkConfiguration: awsvpc("a"), StartedBy: new("release/7"), EnableECSManagedTags: true, PropagateTags: types.PropagateTagsTaskDefinition,
			Tags: []types.Tag{{Key: new("for"), Value: new("7")}},
			Overrides: &types.TaskOverride{Memory: new("256"), TaskRoleArn: new("arn:aws:iam::" + Account + ":role/migrate"), ContainerOverrides: []types.ContainerOverride{{Name: new("web"), Command: []string{"migrate", "--up"},
				Environment: []types.KeyValuePair{{Name: new("B"), Value: new("3")}, {Name: new("C"), Value: new("4")}}}}},
		})
		if len(tasks) != 2 || *tasks[0].LastStatus != "PROVISIONING" || *tasks[0].DesiredStatus != "RUNNING" || *tasks[0].Group != "family:web" || *tasks[0].StartedBy != "release/7" || *tasks[0].Memory != "256" || tasks[0].LaunchType != types.LaunchTypeEc2 {
			t.Fatalf("answered %+v", tasks)
		}
		w.must(nil, ecs.NewTasksRunningWaiter(w.ecs).Wait(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*tasks[0].TaskArn, *tasks[1].TaskArn}}, time.Hour))
		task := w.task(tasks[0].TaskArn)
		at := *task.Containers[0].NetworkInterfaces[0].PrivateIpv4Address
		resp, err := w.client.Get("http://" + at + ":8080/command")
		w.must(nil, err)
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		w.must(nil, err)
		lines := strings.Split(string(said), "\n")
		for _, want := range []string{"migrate", "--up", "A=1", "B=3", "C=4"} {
			if !slices.Contains(lines, want) {
				t.Errorf("the task was not told %s: %q", want, lines)
			}
		}
		if slices.Contains(lines, "B=2") || slices.Contains(lines, "serve") || !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "AWS_CONTAINER_CREDENTIALS_") }) {
			t.Errorf("the task was told %q", lines)
		}
		labels := map[string]string{}
		for _, tag := range task.Tags {
			labels[*tag.Key] = *tag.Value
		}
		if len(labels) != 3 || labels["team"] != "shop" || labels["for"] != "7" || labels["aws:ecs:clusterName"] != "default" {
			t.Errorf("it is tagged %v", labels)
		}
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{StartedBy: new("release/7")})
		w.must(list, err)
		if len(list.TaskArns) != 2 {
			t.Errorf("listed are %v", list.TaskArns)
		}
		w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: tasks[0].TaskArn, Reason: new("enough")}))
		w.must(nil, ecs.NewTasksStoppedWaiter(w.ecs).Wait(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*tasks[0].TaskArn}}, time.Hour))
		if task = w.task(tasks[0].TaskArn); *task.StoppedReason != "enough" || task.StopCode != types.TaskStopCodeUserInitiated {
			t.Errorf("it stopped as %s, %s", task.StopCode, *task.StoppedReason)
		}
		time.Sleep(2 * time.Hour) // what has stopped is forgotten, though no service lives
		out, err := w.ecs.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*tasks[0].TaskArn, *tasks[1].TaskArn}})
		w.must(out, err)
		if len(out.Tasks) != 1 || *out.Tasks[0].TaskArn != *tasks[1].TaskArn || *out.Tasks[0].LastStatus != "RUNNING" {
			t.Errorf("two hours later there are %+v", out.Tasks)
		}
	})
}

// A task that ends by itself is over; nobody starts another.
// As the answers of RunTask and DescribeTasks are documented in the AWS CLI's examples.
func TestANewTaskHasItsNetworkInterfaceAndNamesItsContainers(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.define("1")
		task := w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0]
		names := func(task types.Task) (list []string) {
			for _, d := range task.Attachments[0].Details {
				list = append(list, *d.Name)
			}
			return list
		}
		if eni := task.Attachments; len(eni) != 1 || *eni[0].Status != "PRECREATED" || *eni[0].Type != "ElasticNetworkInterface" || !slices.Equal(names(task), []string{"subnetId"}) {
			t.Errorf("a new task has %+v", eni)
		}
		if over := task.Overrides.ContainerOverrides; len(over) != 1 || *over[0].Name != "web" || over[0].Command != nil {
			t.Errorf("a task as it is defined has the overrides %+v", over)
		}
		w.must(nil, ecs.NewTasksRunningWaiter(w.ecs).Wait(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*task.TaskArn}}, time.Hour))
		now := w.task(task.TaskArn)
		if eni := now.Attachments[0]; *eni.Id != *task.Attachments[0].Id || *eni.Status != "ATTACHED" || !slices.Equal(names(now), []string{"subnetId", "privateIPv4Address"}) {
			t.Errorf("once it runs it has %+v", eni)
		}
	})
}

func TestATaskOfNobodysIsNotReplaced(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.define("exits")
		task := w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0]
		w.must(nil, ecs.NewTasksStoppedWaiter(w.ecs).Wait(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*task.TaskArn}}, time.Hour))
		if task = w.task(task.TaskArn); task.StopCode != types.TaskStopCodeEssentialContainerExited || *task.Containers[0].ExitCode != 1 {
			t.Errorf("it stopped as %s with %d", task.StopCode, *task.Containers[0].ExitCode)
		}
		w.define("missing")
		task = w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0]
		w.must(nil, ecs.NewTasksStoppedWaiter(w.ecs).Wait(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*task.TaskArn}}, time.Hour))
		if task = w.task(task.TaskArn); task.StopCode != types.TaskStopCodeTaskFailedToStart || !strings.HasPrefix(*task.StoppedReason, "CannotPullContainerError: ") {
			t.Errorf("it stopped as %s, %s", task.StopCode, *task.StoppedReason)
		}
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		if len(list.TaskArns) != 0 {
			t.Errorf("%d tasks run", len(list.TaskArns))
		}
	})
}

func TestARunIsRepeatedByItsToken(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.define("1")
		in := &ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a"), ClientToken: new("once")}
		first, again := w.runs(in)[0], w.runs(in)[0]
		if *first.TaskArn != *again.TaskArn {
			t.Error("the same call started another task")
		}
		in.Count = new(int32(2))
		_, err := w.ecs.RunTask(t.Context(), in)
		if conflict, ok := errors.AsType[*types.ConflictException](err); !ok || !slices.Equal(conflict.ResourceIds, []string{*first.TaskArn}) {
			t.Errorf("another call with the token gives %v", err)
		}
		time.Sleep(25 * time.Hour)
		if n := len(w.runs(in)); n != 2 {
			t.Errorf("a day later it starts %d tasks", n)
		}
	})
}

// A task on Managed Instances waits for its instance; while it runs, the instance
// is let be, however large it is.
func TestATaskIsRunOnManagedInstances(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		zones := w.managed(w.subnets()[:1])
		w.must(w.ecs.PutClusterCapacityProviders(t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"mi"},
			DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("mi"), Weight: 1}}}))
		w.taskOf("large", "4096", "8192", nil)
		w.taskOf("small", "1024", "2048", nil)
		large := w.runs(&ecs.RunTaskInput{TaskDefinition: new("large"), NetworkConfiguration: awsvpc(zones...)})[0]
		if *large.LastStatus != "PROVISIONING" || *large.CapacityProviderName != "mi" || large.ContainerInstanceArn != nil {
			t.Errorf("answered %+v", large)
		}
		w.must(nil, ecs.NewTasksRunningWaiter(w.ecs).Wait(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*large.TaskArn}}, time.Hour))
		small := w.runs(&ecs.RunTaskInput{TaskDefinition: new("small"), NetworkConfiguration: awsvpc(zones...), Overrides: &types.TaskOverride{Cpu: new("2 vCPU"), Memory: new("4 GB")}})[0]
		w.must(nil, ecs.NewTasksRunningWaiter(w.ecs).Wait(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*small.TaskArn}}, time.Hour))
		before := w.shape()
		if n := len(w.fleet()); n != 2 {
			t.Fatalf("the overrides were not counted: %s", before)
		}
		time.Sleep(24 * time.Hour)
		if now := w.shape(); now != before {
			t.Errorf("an instance with a task of nobody's became %s, was %s", now, before)
		}
		for _, task := range []*string{large.TaskArn, small.TaskArn} {
			w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: task}))
		}
		w.becomes("")
	})
}

func TestWhatARunMustBe(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.define("1")
		for _, c := range []struct {
			name   string
			change func(*ecs.RunTaskInput)
			want   string
		}{
			{"no network", func(in *ecs.RunTaskInput) { in.NetworkConfiguration = nil }, "Network Configuration must be provided when networkMode 'awsvpc' is specified."},
			{"too many", func(in *ecs.RunTaskInput) { in.Count = new(int32(11)) }, "count must be between 1 and 10, got 11."},
			{"none", func(in *ecs.RunTaskInput) { in.Count = new(int32(0)) }, "count must be between 1 and 10, got 0."},
			{"a definition that is not there", func(in *ecs.RunTaskInput) { in.TaskDefinition = new("none") }, "TaskDefinition not found."},
			{"a container that is not there", func(in *ecs.RunTaskInput) {
				in.Overrides = &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: new("db")}}}
			}, "Override for container named db is not a container in the TaskDefinition."},
			{"a share of a GPU", func(in *ecs.RunTaskInput) {
				in.Overrides = &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: new("web"), ResourceRequirements: []types.ResourceRequirement{
					mps(1, 0)}}}}
			}, "Serin does not perform sharingStrategy in an override, which container 'web' has"},
			{"a size", func(in *ecs.RunTaskInput) { in.Overrides = &types.TaskOverride{Cpu: new("much")} }, "Invalid 'cpu' setting for task: 'much'."},
			{"a role of another account", func(in *ecs.RunTaskInput) {
				in.Overrides = &types.TaskOverride{TaskRoleArn: new("arn:aws:iam::222222222222:role/r")}
			}, "Role is not valid"},
			{"overrides that are too long", func(in *ecs.RunTaskInput) {
				in.Overrides = &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: new("web"), Command: []string{strings.Repeat("x", 9000)}}}}
			}, "overrides can have at most 8192 characters"},
			{"a token", func(in *ecs.RunTaskInput) { in.ClientToken = new("a b") }, "clientToken must have"},
			{"who starts it", func(in *ecs.RunTaskInput) { in.StartedBy = new("a b") }, "startedBy must have"},
			{"tags of a service", func(in *ecs.RunTaskInput) { in.PropagateTags = types.PropagateTagsService }, "propagateTags must be TASK_DEFINITION or NONE"},
			{"a launch type that has another size", func(in *ecs.RunTaskInput) { in.LaunchType = types.LaunchTypeFargate }, "InvalidParameterException: Task definition does not support launch_type FARGATE."},
			{"a launch type without networks of tasks", func(in *ecs.RunTaskInput) { in.LaunchType = types.LaunchTypeExternal }, "InvalidParameterException: Task definition does not support launch_type EXTERNAL."},
			{"a provider that is not there", func(in *ecs.RunTaskInput) {
				in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{{CapacityProvider: new("mi"), Weight: 1}}
			}, "cannot contain a capacity provider that is not associated with the cluster."},
			{"a placement constraint", func(in *ecs.RunTaskInput) {
				in.PlacementConstraints = []types.PlacementConstraint{{Type: types.PlacementConstraintTypeDistinctInstance}}
			}, "Serin performs placement constraints on container instances"},
			{"a placement strategy", func(in *ecs.RunTaskInput) {
				in.PlacementStrategy = []types.PlacementStrategy{{Type: types.PlacementStrategyTypeRandom}}
			}, "Serin performs placement strategies on container instances"},
		} {
			in := &ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")}
			c.change(in)
			if _, err := w.ecs.RunTask(t.Context(), in); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
		}
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		if len(list.TaskArns) != 0 {
			t.Errorf("refused calls started %d tasks", len(list.TaskArns))
		}
	})
}
