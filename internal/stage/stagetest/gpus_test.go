package stagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// accelerated makes a provider mi that buys some types.
func (w *world) accelerated(zones []string, allowed ...string) {
	w.t.Helper()
	w.fleetRoles("ecsInstanceRole")
	in := providerOf("mi", zones)
	in.ManagedInstancesProvider.InstanceLaunchTemplate.InstanceRequirements = &types.InstanceRequirementsRequest{
		VCpuCount: &types.VCpuCountRangeRequest{Min: new(int32(1))}, MemoryMiB: &types.MemoryMiBRequest{Min: new(int32(1))}, AllowedInstanceTypes: allowed,
		AcceleratorTypes: []types.AcceleratorType{types.AcceleratorTypeGpu}, AcceleratorManufacturers: []types.AcceleratorManufacturer{types.AcceleratorManufacturerNvidia}, AcceleratorCount: &types.AcceleratorCountRequest{Min: new(int32(1)), Max: new(int32(1))}}
	w.provider(in)
}

// mps is a share of a GPU; no percentage is none.
func mps(memory, percent int32) types.ResourceRequirement {
	share := types.NvidiaMpsAllocation{Memory: &memory}
	if percent != 0 {
		share.MaxComputePercent = &percent
	}
	return types.ResourceRequirement{Type: types.ResourceTypeGpu, SharingStrategy: &types.SharingStrategyMemberNvidiaMps{Value: share}}
}

func gpu(value string) types.ResourceRequirement {
	return types.ResourceRequirement{Type: types.ResourceTypeGpu, Value: &value}
}

// wanting has each container of a definition, and more of them, ask for GPUs.
func wanting(kind types.Compatibility, each ...types.ResourceRequirement) func(*ecs.RegisterTaskDefinitionInput) {
	return func(in *ecs.RegisterTaskDefinitionInput) {
		in.RequiresCompatibilities = []types.Compatibility{kind}
		for n, r := range each {
			if n > 0 {
				in.ContainerDefinitions = append(in.ContainerDefinitions, types.ContainerDefinition{Name: new(fmt.Sprint("side", n)), Image: new("example.com/side:1")})
			}
			in.ContainerDefinitions[n].ResourceRequirements = []types.ResourceRequirement{r}
		}
	}
}

// gpus is the fleet's GPUs in words: type, mode, containers and what is left of the
// memory; and the GPUs that are left whole.
func (w *world) gpus() string {
	var list []string
	for _, i := range w.fleet() {
		for _, g := range i.GpuDevices {
			idle := "given"
			for _, r := range i.RemainingResources {
				if *r.Name == "GPU" && slices.Contains(r.StringSetValue, *g.GpuId) {
					idle = "whole"
				}
			}
			list = append(list, fmt.Sprintf("%s %s %d %d/%d %s", value(i, "ecs.instance-type"), g.SharingMode, *g.ContainerCount, *g.RemainingMemoryInMiB, *g.TotalMemoryInMiB, idle))
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func (w *world) wantGPUs(want string) {
	w.t.Helper()
	seen := ""
	if err := w.eventually("the GPUs are "+want, func() bool { seen = w.gpus(); return seen == want }); err != nil {
		w.t.Fatalf("%v; they are %s", err, seen)
	}
}

func (w *world) scale(service string, desired int32) {
	w.t.Helper()
	w.must(w.ecs.UpdateService(w.t.Context(), &ecs.UpdateServiceInput{Service: &service, DesiredCount: &desired}))
}

// One provider buys whole GPUs for who asks for them, and parts for the others; a part
// is one task's.
func TestAFractionOfAGPUIsBoughtBesideWholeOnes(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.accelerated(zones, "g6.*", "g6f.*", "gr6f.*")
		managed := types.CompatibilityManagedInstances
		w.on("s", w.taskOf("part", "256", "512", wanting(managed, gpu("0.25"))), 1, zones, "mi")
		w.on("whole", w.taskOf("whole", "256", "512", wanting(managed, gpu("1"))), 1, zones, "mi")
		w.becomes("g6.xlarge a ACTIVE 1, g6f.2xlarge a ACTIVE 1")
		w.wantGPUs("g6.xlarge DEDICATED 1 0/22888 given, g6f.2xlarge DEDICATED 1 0/5722 given")
		for _, i := range w.fleet() {
			tasks, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{ContainerInstance: i.ContainerInstanceArn})
			w.must(tasks, err)
			if c := w.task(&tasks.TaskArns[0]).Containers[0]; !slices.Equal(c.GpuIds, []string{*i.GpuDevices[0].GpuId}) {
				t.Errorf("the instance has %+v, and its container %v", i.GpuDevices, c.GpuIds)
			}
		}
		// There is room for many tasks of its size, but not for another's part.
		w.scale("s", 2)
		w.becomes("g6.xlarge a ACTIVE 1, g6f.2xlarge a ACTIVE 1, g6f.2xlarge a ACTIVE 1")
		w.on("large", w.taskOf("large", "256", "100000", wanting(managed, gpu("0.5"))), 1, zones, "mi")
		w.becomes("g6.xlarge a ACTIVE 1, g6f.2xlarge a ACTIVE 1, g6f.2xlarge a ACTIVE 1, gr6f.4xlarge a ACTIVE 1")

		w.scale("s", 0)
		w.scale("large", 0)
		w.becomes("g6.xlarge a ACTIVE 1")
	})
}

// Four tasks share the GPU of one instance; a fifth buys another.
func TestTasksShareAGPU(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.accelerated(zones, "g6.xlarge")
		managed := types.CompatibilityManagedInstances
		w.on("s", w.taskOf("shares", "256", "512", wanting(managed, mps(5000, 25))), 4, zones, "mi")
		w.becomes("g6.xlarge a ACTIVE 4")
		w.wantGPUs("g6.xlarge NVIDIA_MPS 4 2888/22888 given")
		device := *w.fleet()[0].GpuDevices[0].GpuId
		tasks, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(tasks, err)
		for _, arn := range tasks.TaskArns {
			if c := w.task(&arn).Containers[0]; !slices.Equal(c.GpuIds, []string{device}) {
				t.Errorf("a container has %v, want %s", c.GpuIds, device)
			}
		}
		w.scale("s", 5)
		w.becomesSorted("g6.xlarge a ACTIVE 1, g6.xlarge a ACTIVE 4")
		w.wantGPUs("g6.xlarge NVIDIA_MPS 1 17888/22888 given, g6.xlarge NVIDIA_MPS 4 2888/22888 given")

		// A task's containers share one GPU: where there is room for both.
		w.on("pair", w.taskOf("pair", "256", "512", wanting(managed, mps(2000, 0), mps(4000, 100))), 1, zones, "mi")
		w.becomesSorted("g6.xlarge a ACTIVE 2, g6.xlarge a ACTIVE 4")
		w.wantGPUs("g6.xlarge NVIDIA_MPS 3 11888/22888 given, g6.xlarge NVIDIA_MPS 4 2888/22888 given")
		of, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{ServiceName: new("pair")})
		w.must(of, err)
		if c := w.task(&of.TaskArns[0]).Containers; len(c) != 2 || len(c[0].GpuIds) != 1 || !slices.Equal(c[0].GpuIds, c[1].GpuIds) {
			t.Errorf("its containers have %+v", c)
		}

		// What is shared is not to be had whole, and the other way about.
		w.on("whole", w.taskOf("whole", "256", "512", wanting(managed, gpu("1"))), 1, zones, "mi")
		w.becomesSorted("g6.xlarge a ACTIVE 1, g6.xlarge a ACTIVE 2, g6.xlarge a ACTIVE 4")
		w.scale("s", 9)
		w.becomesSorted("g6.xlarge a ACTIVE 1, g6.xlarge a ACTIVE 2, g6.xlarge a ACTIVE 4, g6.xlarge a ACTIVE 4")
		w.scale("s", 0)
		w.scale("whole", 0)
		w.wantGPUs("g6.xlarge NVIDIA_MPS 2 16888/22888 given")

		w.scale("pair", 0)
		w.on("most", w.taskOf("most", "256", "512", wanting(managed, mps(22889, 0))), 1, zones, "mi")
		w.must(nil, w.eventually("it is told", func() bool {
			return w.toldOf("most", "(service most) was unable to place a task. Reason: TaskFailedToStart: RESOURCE:GPU")
		}))
	})
}

func (w *world) toldOf(service, text string) bool {
	out, err := w.ecs.DescribeServices(w.t.Context(), &ecs.DescribeServicesInput{Services: []string{service}})
	w.must(out, err)
	return slices.ContainsFunc(out.Services[0].Events, func(e types.ServiceEvent) bool { return strings.HasPrefix(*e.Message, text) })
}

// On instances of a group GPUs are given in the same way, and RunTask says what each
// lacks.
func TestInstancesOfAGroupShareTheirGPUs(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.groupRole()
		for name, kind := range map[string]string{"whole": "g6.12xlarge", "part": "g6f.xlarge"} {
			w.template(name, kind, intoDefault)
			w.scalingGroup(name, 1, 1, zones, nil)
		}
		w.becomes("g6.12xlarge a ACTIVE 0, g6f.xlarge a ACTIVE 0")
		w.wantGPUs("g6.12xlarge IDLE 0 22888/22888 whole, g6.12xlarge IDLE 0 22888/22888 whole, g6.12xlarge IDLE 0 22888/22888 whole, g6.12xlarge IDLE 0 22888/22888 whole, g6f.xlarge IDLE 0 2861/2861 whole")
		ec2 := types.CompatibilityEc2
		shares, part, three := w.taskOf("shares", "256", "512", wanting(ec2, mps(12000, 50))), w.taskOf("part", "256", "512", wanting(ec2, gpu("0.125"))), w.taskOf("three", "256", "512", wanting(ec2, gpu("3")))
		w.taskOf("little", "256", "512", wanting(ec2, mps(10000, 0)))
		run := func(definition string, count int32) (string, []string) {
			t.Helper()
			out, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &definition, Count: &count, LaunchType: types.LaunchTypeEc2, NetworkConfiguration: awsvpc(zones[0])})
			w.must(out, err)
			var arns []string
			for _, task := range out.Tasks {
				arns = append(arns, *task.TaskArn)
			}
			var reasons []string
			for _, f := range out.Failures {
				reasons = append(reasons, aws.ToString(f.Reason))
			}
			slices.Sort(reasons)
			return strings.Join(slices.Compact(reasons), " "), arns
		}
		if why, _ := run(part, 1); why != "" {
			t.Errorf("a part: %s", why)
		}
		if why, _ := run(part, 1); why != "RESOURCE:GPU" {
			t.Errorf("a second part: %s", why)
		}
		why, two := run(shares, 2)
		if why != "" {
			t.Errorf("two shares: %s", why)
		}
		if why, _ := run(three, 1); why != "RESOURCE:GPU" {
			t.Errorf("three whole ones: %s", why)
		}
		if why, _ := run("little", 1); why != "" {
			t.Errorf("a share beside another: %s", why)
		}
		w.wantGPUs("g6.12xlarge IDLE 0 22888/22888 whole, g6.12xlarge IDLE 0 22888/22888 whole, g6.12xlarge NVIDIA_MPS 1 10888/22888 given, g6.12xlarge NVIDIA_MPS 2 888/22888 given, g6f.xlarge DEDICATED 1 0/2861 given")
		// A GPU that nobody shares any more is whole again, though one before it is shared.
		for _, arn := range two {
			w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: &arn}))
		}
		w.wantGPUs("g6.12xlarge IDLE 0 22888/22888 whole, g6.12xlarge IDLE 0 22888/22888 whole, g6.12xlarge IDLE 0 22888/22888 whole, g6.12xlarge NVIDIA_MPS 1 12888/22888 given, g6f.xlarge DEDICATED 1 0/2861 given")
		if why, _ := run(three, 1); why != "" {
			t.Errorf("three whole ones beside a shared one: %s", why)
		}
		w.wantGPUs("g6.12xlarge DEDICATED 1 0/22888 given, g6.12xlarge DEDICATED 1 0/22888 given, g6.12xlarge DEDICATED 1 0/22888 given, g6.12xlarge NVIDIA_MPS 1 12888/22888 given, g6f.xlarge DEDICATED 1 0/2861 given")
		for name, want := range map[string]string{"0.3": "the GPU value '0.3' must be a whole number", "ALL": "Serin performs numbers of GPUs"} {
			_, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &part, LaunchType: types.LaunchTypeEc2, NetworkConfiguration: awsvpc(zones[0]),
				Overrides: &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: new("web"), ResourceRequirements: []types.ResourceRequirement{gpu(name)}}}}})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("an override with %s: %v", name, err)
			}
		}
	})
}

// The group of a provider grows by as many instances as its shared GPUs need.
func TestAGroupScalesForSharesOfGPUs(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.fromNothing("g6.xlarge", 4, zones)
		w.on("s", w.taskOf("shares", "256", "512", wanting(types.CompatibilityEc2, mps(11444, 0))), 3, zones, "asg")
		w.becomesSorted("g6.xlarge a ACTIVE 1, g6.xlarge a ACTIVE 2")
		began := time.Now()
		w.scale("s", 4)
		w.becomes("g6.xlarge a ACTIVE 2, g6.xlarge a ACTIVE 2")
		if took := time.Since(began); took > time.Minute {
			t.Errorf("a task that fits beside another waited for %v", took)
		}
	})
}
