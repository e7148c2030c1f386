package stagetest

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// ec2 asks EC2, whose SDK takes gigabytes to compile, and reads the answer.
func (w *world) ec2(query string, into any) {
	w.t.Helper()
	said := w.signed("ec2", "Version=2016-11-15&Action="+query, "application/x-www-form-urlencoded", "")
	w.must(nil, xml.Unmarshal([]byte(said), into))
}

// subnets are those of the default VPC, one in each zone.
func (w *world) subnets() (ids []string) {
	var out struct {
		Items []struct {
			ID   string `xml:"subnetId"`
			Zone string `xml:"availabilityZone"`
		} `xml:"subnetSet>item"`
	}
	w.ec2("DescribeSubnets", &out)
	slices.SortFunc(out.Items, func(x, y struct {
		ID   string `xml:"subnetId"`
		Zone string `xml:"availabilityZone"`
	}) int {
		return strings.Compare(x.Zone, y.Zone)
	})
	for _, s := range out.Items {
		ids = append(ids, s.ID)
	}
	return ids
}

// fleetRoles makes the two roles of Managed Instances and the profile.
func (w *world) fleetRoles(instanceRole string) {
	w.t.Helper()
	ctx, i := w.t.Context(), w.iam
	trust := func(service string) *string {
		return new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + service + `"},"Action":"sts:AssumeRole"}]}`)
	}
	w.must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("fleet"), AssumeRolePolicyDocument: trust("ecs.amazonaws.com")}))
	w.must(i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("fleet"), PolicyArn: new("arn:aws:iam::aws:policy/AmazonECSInfrastructureRolePolicyForManagedInstances")}))
	w.must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &instanceRole, AssumeRolePolicyDocument: trust("ec2.amazonaws.com")}))
	w.must(i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &instanceRole, PolicyArn: new("arn:aws:iam::aws:policy/AmazonECSInstanceRolePolicyForManagedInstances")}))
	w.must(i.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: new("fleet")}))
	w.must(i.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: new("fleet"), RoleName: &instanceRole}))
}

// providerOf is a provider to be made.
func providerOf(name string, subnets []string) *ecs.CreateCapacityProviderInput {
	return &ecs.CreateCapacityProviderInput{Name: &name, Cluster: new("default"), ManagedInstancesProvider: &types.CreateManagedInstancesProviderConfiguration{
		InfrastructureRoleArn: new("arn:aws:iam::" + Account + ":role/fleet"),
		InstanceLaunchTemplate: &types.InstanceLaunchTemplate{
			Ec2InstanceProfileArn: new("arn:aws:iam::" + Account + ":instance-profile/fleet"), NetworkConfiguration: &types.ManagedInstancesNetworkConfiguration{Subnets: subnets},
		},
	}}
}

// provider makes a provider and waits until it can be used.
func (w *world) provider(in *ecs.CreateCapacityProviderInput) {
	w.t.Helper()
	w.must(w.ecs.CreateCapacityProvider(w.t.Context(), in))
	w.active(*in.Name)
}

// managed makes the roles and a provider named mi in some subnets, which it answers.
func (w *world) managed(subnets []string) []string {
	w.t.Helper()
	w.fleetRoles("ecsInstanceRole")
	w.provider(providerOf("mi", subnets))
	return subnets
}

func (w *world) active(name string) {
	w.t.Helper()
	w.must(nil, w.eventually("the provider is active", func() bool {
		out, err := w.ecs.DescribeCapacityProviders(w.t.Context(), &ecs.DescribeCapacityProvidersInput{CapacityProviders: []string{name}})
		w.must(out, err)
		return out.CapacityProviders[0].Status == types.CapacityProviderStatusActive
	}))
}

// eventually is until where there need not be a service.
func (w *world) eventually(what string, fn func() bool) error {
	for began := time.Now(); !fn(); time.Sleep(w.tick) {
		if time.Since(began) > w.limit {
			return fmt.Errorf("never: %s", what)
		}
	}
	return nil
}

// taskOf registers a definition of a size.
func (w *world) taskOf(family, cpu, memory string, change func(*ecs.RegisterTaskDefinitionInput)) string {
	w.t.Helper()
	in := &ecs.RegisterTaskDefinitionInput{Family: &family, NetworkMode: types.NetworkModeAwsvpc, Cpu: &cpu, Memory: &memory, RequiresCompatibilities: []types.Compatibility{types.CompatibilityManagedInstances},
		RuntimePlatform:      &types.RuntimePlatform{CpuArchitecture: types.CPUArchitectureX8664, OperatingSystemFamily: types.OSFamilyLinux},
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1"), PortMappings: []types.PortMapping{{ContainerPort: new(int32(8080))}}}}}
	if change != nil {
		change(in)
	}
	out, err := w.ecs.RegisterTaskDefinition(w.t.Context(), in)
	w.must(out, err)
	return *out.TaskDefinition.TaskDefinitionArn
}

// on makes a service of a definition on providers of one weight.
func (w *world) on(name, definition string, desired int32, subnets []string, providers ...string) {
	w.t.Helper()
	in := &ecs.CreateServiceInput{ServiceName: &name, TaskDefinition: &definition, DesiredCount: &desired, NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: subnets}}}
	for _, p := range providers {
		in.CapacityProviderStrategy = append(in.CapacityProviderStrategy, types.CapacityProviderStrategyItem{CapacityProvider: &p, Weight: 1})
	}
	w.must(w.ecs.CreateService(w.t.Context(), in))
}

// fleet is the cluster's instances, by type and zone.
func (w *world) fleet() (list []types.ContainerInstance) {
	w.t.Helper()
	arns, err := w.ecs.ListContainerInstances(w.t.Context(), &ecs.ListContainerInstancesInput{})
	w.must(arns, err)
	if len(arns.ContainerInstanceArns) == 0 {
		return nil
	}
	out, err := w.ecs.DescribeContainerInstances(w.t.Context(), &ecs.DescribeContainerInstancesInput{ContainerInstances: arns.ContainerInstanceArns})
	w.must(out, err)
	slices.SortFunc(out.ContainerInstances, func(x, y types.ContainerInstance) int {
		return cmp.Or(strings.Compare(value(x, "ecs.instance-type"), value(y, "ecs.instance-type")), strings.Compare(value(x, "ecs.availability-zone"), value(y, "ecs.availability-zone")))
	})
	return out.ContainerInstances
}

func value(i types.ContainerInstance, name string) string {
	for _, a := range i.Attributes {
		if *a.Name == name {
			return aws.ToString(a.Value)
		}
	}
	return ""
}

// shape is the fleet in words: type zone status running.
func (w *world) shape() string {
	var list []string
	for _, i := range w.fleet() {
		zone := value(i, "ecs.availability-zone")
		list = append(list, fmt.Sprintf("%s %s %s %d", value(i, "ecs.instance-type"), zone[len(zone)-1:], *i.Status, i.RunningTasksCount))
	}
	return strings.Join(list, ", ")
}

// becomes waits for a fleet.
func (w *world) becomes(want string) {
	w.t.Helper()
	seen := ""
	if err := w.eventually("the fleet is "+want, func() bool { seen = w.shape(); return seen == want }); err != nil {
		w.t.Fatalf("%v; it is %s", err, seen)
	}
}

// hours is a bubble's world that gives up after some hours.
func (w *world) hours(n int) { w.limit = time.Duration(n) * time.Hour }

// AWS's own example of placement and consolidation, from start to end.
func TestAWSsExampleOfTwoServicesInTwoZones(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(2)
		zones := w.managed(w.subnets()[:2])
		w.on("s", w.taskOf("small", "1 vCPU", "5632", nil), 2, zones, "mi")
		w.on("large", w.taskOf("large", "1 vCPU", "9728", nil), 2, zones, "mi")
		w.becomes("r5a.large a ACTIVE 2, r5a.large b ACTIVE 2")
		tasks, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{ContainerInstance: w.fleet()[0].ContainerInstanceArn})
		w.must(tasks, err)
		out, err := w.ecs.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: tasks.TaskArns})
		w.must(out, err)
		if len(out.Tasks) != 2 || *out.Tasks[0].Group == *out.Tasks[1].Group {
			t.Errorf("an instance has two tasks of one service: %+v", out.Tasks)
		}
		for _, task := range out.Tasks {
			if task.LaunchType != types.LaunchTypeManagedInstances || *task.CapacityProviderName != "mi" || *task.ContainerInstanceArn != *w.fleet()[0].ContainerInstanceArn || *task.AvailabilityZone != "us-east-1a" {
				t.Errorf("a task says %s %s %s %s", task.LaunchType, *task.CapacityProviderName, *task.ContainerInstanceArn, *task.AvailabilityZone)
			}
		}
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("large"), DesiredCount: new(int32(0))}))
		drained := map[string]bool{}
		w.until("the fleet fits again", func() bool {
			draining := 0
			for _, i := range w.fleet() {
				if *i.Status == "DRAINING" {
					draining++
					drained[*i.Ec2InstanceId] = true
				}
			}
			if draining > 1 {
				t.Fatalf("both are drained at once: %s", w.shape())
			}
			if n := w.service().RunningCount; n < 2 {
				t.Fatalf("%d tasks run while the fleet shrinks: %s", n, w.shape())
			}
			return w.shape() == "r7a.medium a ACTIVE 1, r7a.medium b ACTIVE 1"
		})
		for _, text := range []string{"is not AZ balanced with", "AZ Rebalancing in progress.", "to AZ Rebalance: (task ", "due to AZ rebalancing: (task ", "is AZ balanced with 1 tasks in us-east-1"} {
			if !w.said(text) {
				t.Errorf("no event says %q", text)
			}
		}
		if len(drained) == 0 {
			t.Error("nothing was drained")
		}
		time.Sleep(time.Hour)
		w.becomes("r7a.medium a ACTIVE 1, r7a.medium b ACTIVE 1") // and stays so
	})
}

// told waits for an event of the service s.
func (w *world) told(text string) {
	w.t.Helper()
	w.until("an event says "+text, func() bool { return w.said(text) })
}

// The most frequent trap: the infrastructure policy passes roles named
// ecsInstanceRole… alone. And the others of the failure texts.
func TestWhyNoInstanceComes(t *testing.T) {
	spot := func(in *ecs.CreateCapacityProviderInput) {
		in.ManagedInstancesProvider.InstanceLaunchTemplate.CapacityOptionType = types.CapacityOptionTypeSpot
	}
	only := func(name string) func(*ecs.CreateCapacityProviderInput) {
		return func(in *ecs.CreateCapacityProviderInput) {
			in.ManagedInstancesProvider.InstanceLaunchTemplate.InstanceRequirements = &types.InstanceRequirementsRequest{
				VCpuCount: &types.VCpuCountRangeRequest{Min: new(int32(1))}, MemoryMiB: &types.MemoryMiBRequest{Min: new(int32(1))}, AllowedInstanceTypes: []string{name}}
		}
	}
	const launching = "(service s) was unable to place a task. Reason: ResourceInitializationError: Unable to launch instance(s) for capacity provider mi. "
	for _, c := range []struct {
		name, role string
		provider   func(*ecs.CreateCapacityProviderInput)
		task       func(*ecs.RegisterTaskDefinitionInput)
		deny       string
		said       string
	}{
		{"a role of another name", "myInstanceRole", nil, nil, "", launching + "UnauthorizedOperation: You are not authorized to perform this operation. User: arn:aws:sts::" + Account +
			":assumed-role/fleet/ECSManagedInstances is not authorized to perform: iam:PassRole on resource: arn:aws:iam::" + Account + ":role/myInstanceRole because no identity-based policy allows the iam:PassRole action. RequestId: "},
		{"a GPU that the provider does not buy", "ecsInstanceRole", nil, func(in *ecs.RegisterTaskDefinitionInput) {
			in.ContainerDefinitions[0].ResourceRequirements = []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: new("1")}}
		}, "", "(service s) was unable to place a task. Reason: TaskFailedToStart: RESOURCE:GPU"},
		{"more memory than there is", "ecsInstanceRole", only("m5.large"), func(in *ecs.RegisterTaskDefinitionInput) { in.Memory = new("16384") }, "", "TaskFailedToStart: RESOURCE:MEMORY"},
		{"another architecture", "ecsInstanceRole", only("m5.large"), func(in *ecs.RegisterTaskDefinitionInput) {
			in.RuntimePlatform.CpuArchitecture = types.CPUArchitectureArm64
		}, "", "TaskFailedToStart: ATTRIBUTE"},
		{"nothing is to be had", "ecsInstanceRole", only("m5.large"), nil, "m5.large", launching + "InsufficientInstanceCapacity: "},
		{"nothing is to be had on Spot", "ecsInstanceRole", func(in *ecs.CreateCapacityProviderInput) { only("m5.large")(in); spot(in) }, nil, "m5.large",
			launching + "UnfulfillableCapacity: Unable to fulfill capacity due to your request configuration. Please adjust your request and try again. RequestId: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, w *world) {
				w.hours(1)
				w.fleetRoles(c.role)
				zones := w.subnets()
				in := providerOf("mi", zones)
				if c.provider != nil {
					c.provider(in)
				}
				w.provider(in)
				if c.deny != "" {
					w.must(nil, w.stage.Deny("us-east-1", c.deny, true))
				}
				w.on("s", w.taskOf("web", "256", "512", c.task), 1, zones, "mi")
				w.told(c.said)
				if n := len(w.fleet()); n > 0 {
					t.Errorf("%d instances came", n)
				}
				if c.deny == "" {
					return
				}
				w.must(nil, w.stage.Deny("us-east-1", c.deny, false))
				w.until("it runs when there is capacity again", func() bool { return w.service().RunningCount == 1 })
			})
		})
	}
}

// The blog's task: a GPU of a g6.xlarge, in a network of its own.
func TestATaskWithAGPU(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.fleetRoles("ecsInstanceRole")
		zones := w.subnets()[:1]
		in := providerOf("gpu", zones)
		in.ManagedInstancesProvider.InstanceLaunchTemplate.InstanceRequirements = &types.InstanceRequirementsRequest{
			VCpuCount: &types.VCpuCountRangeRequest{Min: new(int32(4))}, MemoryMiB: &types.MemoryMiBRequest{Min: new(int32(8192))},
			AcceleratorTypes: []types.AcceleratorType{types.AcceleratorTypeGpu}, AcceleratorManufacturers: []types.AcceleratorManufacturer{types.AcceleratorManufacturerNvidia},
			AcceleratorCount: &types.AcceleratorCountRequest{Min: new(int32(1)), Max: new(int32(1))}, AllowedInstanceTypes: []string{"g6.*", "g5.*"}}
		w.provider(in)
		w.on("s", w.taskOf("gpu", "1024", "2048", func(in *ecs.RegisterTaskDefinitionInput) {
			in.RequiresCompatibilities = []types.Compatibility{types.CompatibilityEc2} // and compatible with Managed Instances all the same
			in.ContainerDefinitions[0].ResourceRequirements = []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: new("1")}}
		}), 1, zones, "gpu")
		w.becomes("g6.xlarge a ACTIVE 1")
		box := w.fleet()[0]
		tasks, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(tasks, err)
		out, err := w.ecs.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: tasks.TaskArns})
		w.must(out, err)
		if g := box.GpuDevices; len(g) != 1 || g[0].SharingMode != types.GpuSharingModeDedicated || *g[0].TotalMemoryInMiB != 22888 || !slices.Equal(out.Tasks[0].Containers[0].GpuIds, []string{*g[0].GpuId}) {
			t.Errorf("the instance has %+v, the task %v", g, out.Tasks[0].Containers[0].GpuIds)
		}
		for _, r := range box.RemainingResources {
			if *r.Name == "GPU" && len(r.StringSetValue) > 0 || *r.Name == "CPU" && r.IntegerValue != 3*1024 {
				t.Errorf("left are %+v", r)
			}
		}
		var of struct {
			Type      string `xml:"reservationSet>item>instancesSet>item>instanceType"`
			Principal string `xml:"reservationSet>item>instancesSet>item>operator>principal"`
			State     string `xml:"reservationSet>item>instancesSet>item>instanceState>name"`
		}
		w.ec2("DescribeInstances&InstanceId.1="+*box.Ec2InstanceId, &of)
		if of.Type != "g6.xlarge" || of.Principal != "ecs.amazonaws.com" || of.State != "running" {
			t.Errorf("EC2 says %+v", of)
		}
		// Gone, the instance is kept for a while, then ends; and EC2 says so.
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(0))}))
		began := time.Now()
		w.becomes("")
		if took := time.Since(began); took < 7*time.Minute || took > 9*time.Minute {
			t.Errorf("an idle instance was gone after %v, measured are 427 to 463 s", took)
		}
		w.ec2("DescribeInstances&InstanceId.1="+*box.Ec2InstanceId, &of)
		if of.State != "terminated" {
			t.Errorf("EC2 says it is %s", of.State)
		}
	})
}

func TestSpotTakesAnInstanceBack(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.fleetRoles("ecsInstanceRole")
		zones := w.subnets()[:2]
		in := providerOf("spot", zones)
		in.ManagedInstancesProvider.InstanceLaunchTemplate.CapacityOptionType = types.CapacityOptionTypeSpot
		w.provider(in)
		w.on("s", w.taskOf("web", "1024", "2048", nil), 2, zones, "spot")
		w.until("two run", func() bool { return w.service().RunningCount == 2 })
		taken := w.fleet()[0]
		if err := w.stage.Interrupt("us-east-1", "i-none"); err == nil {
			t.Error("an instance that is not there was interrupted")
		}
		w.must(nil, w.stage.Interrupt("us-east-1", *taken.Ec2InstanceId))
		began := time.Now()
		var stopped []types.Task
		w.until("the task on it stops", func() bool {
			list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{DesiredStatus: types.DesiredStatusStopped})
			w.must(list, err)
			if len(list.TaskArns) == 0 {
				return false
			}
			out, err := w.ecs.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: list.TaskArns})
			w.must(out, err)
			stopped = out.Tasks
			return *stopped[0].LastStatus == "STOPPED"
		})
		if s := stopped[0]; len(stopped) != 1 || s.StopCode != types.TaskStopCodeSpotInterruption || *s.StoppedReason != "Your Spot Task was interrupted." || *s.ContainerInstanceArn != *taken.ContainerInstanceArn {
			t.Errorf("stopped are %+v", stopped)
		}
		w.until("it runs elsewhere, and the instance is gone", func() bool {
			return w.service().RunningCount == 2 && !strings.Contains(w.shape(), "DRAINING") && !slices.ContainsFunc(w.fleet(), func(i types.ContainerInstance) bool { return *i.Ec2InstanceId == *taken.Ec2InstanceId })
		})
		if took := time.Since(began); took > 3*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// At day 14 an instance is drained, start before stop; never fewer tasks run than
// are wanted.
func TestAnInstanceIsReplacedAfterAFortnight(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		zones := w.managed(w.subnets()[:1])
		w.on("s", w.taskOf("web", "1024", "2048", nil), 1, zones, "mi")
		w.until("it runs", func() bool { return w.service().RunningCount == 1 })
		first := *w.fleet()[0].Ec2InstanceId
		time.Sleep(14*24*time.Hour - 10*time.Minute)
		if f := w.fleet(); len(f) != 1 || *f[0].Ec2InstanceId != first || *f[0].Status != "ACTIVE" {
			t.Fatalf("before the fortnight is over: %s", w.shape())
		}
		w.until("another carries the task", func() bool {
			if n := w.service().RunningCount; n < 1 {
				t.Fatalf("%d tasks run: %s", n, w.shape())
			}
			f := w.fleet()
			return len(f) == 1 && *f[0].Ec2InstanceId != first && f[0].RunningTasksCount == 1
		})
	})
}

func TestTasksGoToProvidersByBaseAndWeight(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.must(w.ecs.PutClusterCapacityProviders(t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"FARGATE", "FARGATE_SPOT"},
			DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("FARGATE"), Base: 2, Weight: 1}, {CapacityProvider: new("FARGATE_SPOT"), Weight: 3}}}))
		w.on("s", w.taskOf("web", "256", "512", func(in *ecs.RegisterTaskDefinitionInput) {
			in.RequiresCompatibilities = []types.Compatibility{types.CompatibilityFargate}
		}), 10, []string{"a"})
		w.until("all run", func() bool { return w.service().RunningCount == 10 })
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		out, err := w.ecs.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: list.TaskArns})
		w.must(out, err)
		have := map[string]int{}
		for _, task := range out.Tasks {
			have[*task.CapacityProviderName]++
			if task.LaunchType != types.LaunchTypeFargate {
				t.Errorf("a task says it was launched as %s", task.LaunchType)
			}
		}
		if have["FARGATE"] != 4 || have["FARGATE_SPOT"] != 6 { // 2, then 2 to 6
			t.Errorf("the tasks are on %v", have)
		}
		if s := w.service(); s.LaunchType != "" || len(s.CapacityProviderStrategy) != 2 {
			t.Errorf("the service says %s, %+v", s.LaunchType, s.CapacityProviderStrategy)
		}
	})
}

func TestWhatACapacityProviderMustBe(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		zones := w.managed(w.subnets())
		w.must(w.ecs.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("other")}))
		size := func(n int32) *types.ManagedInstancesStorageConfiguration {
			return &types.ManagedInstancesStorageConfiguration{StorageSizeGiB: &n}
		}
		type in = *ecs.CreateCapacityProviderInput
		needs := func(change func(*types.InstanceRequirementsRequest)) func(in) {
			return func(i in) {
				r := &types.InstanceRequirementsRequest{VCpuCount: &types.VCpuCountRangeRequest{Min: new(int32(1))}, MemoryMiB: &types.MemoryMiBRequest{Min: new(int32(1))}}
				change(r)
				i.ManagedInstancesProvider.InstanceLaunchTemplate.InstanceRequirements = r
			}
		}
		for _, c := range []struct {
			name   string
			change func(in)
			want   string
		}{
			{"a reserved name", func(i in) { i.Name = new("ecs-mine") }, `The name cannot be prefixed with "aws", "ecs", or "fargate"`},
			{"a name that is taken", func(i in) { i.Name = new("mi") }, "The specified capacity provider already exists."},
			{"a name that is taken elsewhere", func(i in) { i.Name, i.Cluster = new("mi"), new("other") }, "The specified capacity provider already exists with account or a different cluster"},
			{"no cluster", func(i in) { i.Cluster = nil }, "Managed Instances Provider is not supported without a Cluster Name"},
			{"a cluster that is not there", func(i in) { i.Cluster = new("none") }, "Cluster not found."},
			{"nothing", func(i in) { i.ManagedInstancesProvider = nil }, "The Managed Instances provider details are required when creating a Managed Instances capacity provider"},
			{"an Auto Scaling group", func(i in) {
				i.AutoScalingGroupProvider = &types.AutoScalingGroupProvider{AutoScalingGroupArn: new("x")}
			}, "autoScalingGroupProvider"},
			{"a role's name for its ARN", func(i in) { i.ManagedInstancesProvider.InfrastructureRoleArn = new("fleet") }, "The specified infrastructure role arn is invalid"},
			{"a role that does not trust ECS", func(i in) {
				i.ManagedInstancesProvider.InfrastructureRoleArn = new("arn:aws:iam::" + Account + ":role/ecsInstanceRole")
			}, "Caught ServiceAccessDeniedException for ECSInfrastructureRole[arn:aws:iam::" + Account + ":role/ecsInstanceRole]"},
			{"a role for a profile", func(i in) {
				i.ManagedInstancesProvider.InstanceLaunchTemplate.Ec2InstanceProfileArn = new("arn:aws:iam::" + Account + ":role/ecsInstanceRole")
			}, "The specified instance profile role arn is invalid"},
			{"no subnets", func(i in) {
				i.ManagedInstancesProvider.InstanceLaunchTemplate.NetworkConfiguration.Subnets = []string{}
			}, "Managed Instances capacity provider must specify a Network Configuration with non empty subnets"},
			{"a subnet's name", func(i in) {
				i.ManagedInstancesProvider.InstanceLaunchTemplate.NetworkConfiguration.Subnets = []string{"a"}
			}, "The specified subnet id is invalid"},
			{"a subnet that is not there", func(i in) {
				i.ManagedInstancesProvider.InstanceLaunchTemplate.NetworkConfiguration.Subnets = []string{"subnet-00000000000000000"}
			}, "The subnet ID 'subnet-00000000000000000' does not exist"},
			{"a security group that is not there", func(i in) {
				i.ManagedInstancesProvider.InstanceLaunchTemplate.NetworkConfiguration.SecurityGroups = []string{"sg-00000000"}
			}, "The security group 'sg-00000000' does not exist"},
			{"storage", func(i in) { i.ManagedInstancesProvider.InstanceLaunchTemplate.StorageConfiguration = size(29) }, "storageSizeGiB must be between 30 and 16384, got 29"},
			{"reserved capacity", func(i in) {
				i.ManagedInstancesProvider.InstanceLaunchTemplate.CapacityOptionType = types.CapacityOptionTypeReserved
			}, "RESERVED"},
			{"a time to scale in", func(i in) {
				i.ManagedInstancesProvider.InfrastructureOptimization = &types.InfrastructureOptimization{ScaleInAfter: new(int32(3601))}
			}, "scaleInAfter must be -1, or between 0 and 3600 seconds, got 3601"},
			{"a mis-spelt type", needs(func(r *types.InstanceRequirementsRequest) { r.AllowedInstanceTypes = []string{"g6.xlrage"} }), "No instance types satisfy the instance requirements specified in the Managed Instances capacity provider."},
			{"types allowed and excluded", needs(func(r *types.InstanceRequirementsRequest) {
				r.AllowedInstanceTypes, r.ExcludedInstanceTypes = []string{"m5.*"}, []string{"c5.*"}
			}), "allowedInstanceTypes or excludedInstanceTypes, not both"},
			{"a range the wrong way round", needs(func(r *types.InstanceRequirementsRequest) {
				r.VCpuCount = &types.VCpuCountRangeRequest{Min: new(int32(4)), Max: new(int32(2))}
			}), "got 4 to 2"},
			{"what the catalogue does not know", needs(func(r *types.InstanceRequirementsRequest) {
				r.BaselineEbsBandwidthMbps = &types.BaselineEbsBandwidthMbpsRequest{Min: new(int32(1))}
			}), "baselineEbsBandwidthMbps"},
		} {
			i := providerOf("new", zones)
			c.change(i)
			if _, err := w.ecs.CreateCapacityProvider(t.Context(), i); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
		}
		out, err := w.ecs.DescribeCapacityProviders(t.Context(), &ecs.DescribeCapacityProvidersInput{})
		w.must(out, err)
		var names []string
		for _, p := range out.CapacityProviders {
			names = append(names, *p.Name+" "+string(p.Type)+" "+string(p.Status))
		}
		if got := strings.Join(names, ", "); got != "FARGATE FARGATE ACTIVE, FARGATE_SPOT FARGATE_SPOT ACTIVE, mi MANAGED_INSTANCES ACTIVE" {
			t.Errorf("after all refusals there are %s", got)
		}
	})
}

func TestWhatAStrategyMustBe(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.fleetRoles("ecsInstanceRole")
		zones := w.subnets()
		for _, name := range []string{"one", "two"} {
			w.provider(providerOf(name, zones))
		}
		w.must(w.ecs.CreateCapacityProvider(t.Context(), providerOf("young", zones)))
		_, err := w.ecs.PutClusterCapacityProviders(t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"young"}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}})
		if err == nil || !strings.Contains(err.Error(), "The specified capacity provider 'young' is not in an ACTIVE state.") {
			t.Errorf("a provider that is being made is associated: %v", err)
		}
		w.must(w.ecs.PutClusterCapacityProviders(t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"one", "FARGATE"}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}}))
		item := func(name string, base, weight int32) types.CapacityProviderStrategyItem {
			return types.CapacityProviderStrategyItem{CapacityProvider: &name, Base: base, Weight: weight}
		}
		definition, bridge := w.taskOf("web", "256", "512", nil), w.taskOf("bridge", "256", "512", func(in *ecs.RegisterTaskDefinitionInput) {
			in.NetworkMode, in.RequiresCompatibilities = types.NetworkModeBridge, nil
		})
		try := func(definition string, launch types.LaunchType, list ...types.CapacityProviderStrategyItem) error {
			_, err := w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: &definition, DesiredCount: new(int32(1)), LaunchType: launch, CapacityProviderStrategy: list,
				NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: zones}}})
			return err
		}
		for _, c := range []struct {
			name   string
			launch types.LaunchType
			list   []types.CapacityProviderStrategyItem
			want   string
		}{
			{"a launch type, too", types.LaunchTypeEc2, []types.CapacityProviderStrategyItem{item("one", 0, 1)}, "Specifying both a launch type and capacity provider strategy is not supported."},
			{"a provider that is not there", "", []types.CapacityProviderStrategyItem{item("none", 0, 1)}, "cannot contain a capacity provider that is not associated with the cluster."},
			{"one that is not associated", "", []types.CapacityProviderStrategyItem{item("FARGATE_SPOT", 0, 1)}, "cannot contain a capacity provider that is not associated with the cluster."},
			{"one that is being made", "", []types.CapacityProviderStrategyItem{item("young", 0, 1)}, "The specified capacity provider 'young' is not in an ACTIVE state."},
			{"no weight", "", []types.CapacityProviderStrategyItem{item("one", 0, 0)}, "There are no capacity providers in the capacity provider strategy with a weight value greater than zero."},
			{"two bases", "", []types.CapacityProviderStrategyItem{item("one", 1, 1), item("two", 1, 1)}, "There are multiple capacity providers in the specified capacity provider strategy with a base value greater than zero."},
			{"two kinds", "", []types.CapacityProviderStrategyItem{item("one", 0, 1), item("FARGATE", 0, 1)}, "cannot contain a mix of capacity providers using Managed Instances and Fargate providers."},
			{"one twice", "", []types.CapacityProviderStrategyItem{item("one", 0, 1), item("one", 0, 1)}, "named twice"},
			{"a weight", "", []types.CapacityProviderStrategyItem{item("one", 0, 1001)}, "between 0 and 1000, got 1001"},
		} {
			if err := try(definition, c.launch, c.list...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
		}
		if err := try(bridge, "", item("one", 0, 1)); err == nil || !strings.Contains(err.Error(), "Network Configuration is not valid for the given networkMode") {
			t.Errorf("a definition without a network of its own: %v", err)
		}
		w.must(nil, try(definition, "", item("one", 0, 1)))
		change := func(force bool, list ...types.CapacityProviderStrategyItem) error {
			_, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), CapacityProviderStrategy: list, ForceNewDeployment: force})
			return err
		}
		if err := change(false, item("two", 0, 1)); err == nil || !strings.Contains(err.Error(), "you must force a new deployment.") {
			t.Errorf("another strategy without force: %v", err)
		}
		w.must(nil, change(false, item("one", 0, 1))) // the same
		w.until("it runs on one", func() bool { return w.service().RunningCount == 1 })
		w.must(nil, change(true, item("two", 0, 1)))
		w.until("it runs on two", func() bool {
			f := w.fleet()
			return w.service().RunningCount == 1 && len(f) == 1 && *f[0].CapacityProviderName == "two"
		})
		remove := func(name string) (types.CapacityProvider, error) {
			out, err := w.ecs.DeleteCapacityProvider(t.Context(), &ecs.DeleteCapacityProviderInput{CapacityProvider: &name, Cluster: new("default")})
			if err != nil {
				return types.CapacityProvider{}, err
			}
			return *out.CapacityProvider, nil
		}
		if _, err := remove("two"); err == nil || !strings.Contains(err.Error(), "used in a service's capacity provider strategy") {
			t.Errorf("a provider in use is deleted: %v", err)
		}
		if p, err := remove("one"); err != nil || p.Status != types.CapacityProviderStatusDeprovisioning || p.UpdateStatus != types.CapacityProviderUpdateStatusDeleteInProgress {
			t.Errorf("deleting answers %+v, %v", p, err)
		}
		w.must(nil, w.eventually("it is gone", func() bool {
			out, err := w.ecs.DescribeCapacityProviders(t.Context(), &ecs.DescribeCapacityProvidersInput{CapacityProviders: []string{"one"}})
			w.must(out, err)
			return out.CapacityProviders[0].Status == types.CapacityProviderStatusInactive && out.CapacityProviders[0].UpdateStatus == types.CapacityProviderUpdateStatusDeleteComplete
		}))
		w.provider(providerOf("one", zones)) // its name is free again
	})
}

func TestInstancesAreDrainedAndEndedByHand(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.managed(w.subnets()[:1])
		w.on("s", w.taskOf("web", "1024", "2048", nil), 1, zones, "mi")
		w.until("it runs", func() bool { return w.service().RunningCount == 1 })
		first := w.fleet()[0]
		end := func(force bool) error {
			_, err := w.ecs.DeregisterContainerInstance(t.Context(), &ecs.DeregisterContainerInstanceInput{ContainerInstance: w.fleet()[0].ContainerInstanceArn, Force: &force})
			return err
		}
		if err := end(false); err == nil || !strings.Contains(err.Error(), "Found running tasks on the instance.") {
			t.Errorf("an instance with a task is deregistered: %v", err)
		}
		if _, err := w.ecs.UpdateContainerInstancesState(t.Context(), &ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{*first.ContainerInstanceArn}, Status: types.ContainerInstanceStatusRegistering}); err == nil || !strings.Contains(err.Error(), "Container instances status should be one of [ACTIVE,DRAINING]") {
			t.Errorf("a state that cannot be set: %v", err)
		}
		out, err := w.ecs.UpdateContainerInstancesState(t.Context(), &ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{*first.ContainerInstanceArn, "none"}, Status: types.ContainerInstanceStatusDraining})
		w.must(out, err)
		if len(out.ContainerInstances) != 1 || *out.ContainerInstances[0].Status != "DRAINING" || len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
			t.Errorf("draining answers %+v", out)
		}
		w.until("another carries the task, and the first is gone", func() bool {
			if n := w.service().RunningCount; n < 1 {
				t.Fatal("the task stopped before another ran")
			}
			f := w.fleet()
			return len(f) == 1 && *f[0].Ec2InstanceId != *first.Ec2InstanceId
		})
		w.must(nil, end(true))
		w.until("the task is replaced", func() bool { f := w.fleet(); return len(f) == 1 && f[0].RunningTasksCount == 1 })
		list, err := w.ecs.ListContainerInstances(t.Context(), &ecs.ListContainerInstancesInput{Filter: new("attribute:ecs.availability-zone == us-east-1a and attribute:ecs.instance-type =~ m7.*")})
		w.must(list, err)
		if n := len(list.ContainerInstanceArns); n != 1 {
			t.Errorf("the filter finds %d instances of %s", n, w.shape())
		}
		if _, err := w.ecs.ListContainerInstances(t.Context(), &ecs.ListContainerInstancesInput{Filter: new("zone is a")}); err == nil {
			t.Error("a filter that is none is taken")
		}
		if _, err := w.ecs.DeleteCluster(t.Context(), &ecs.DeleteClusterInput{Cluster: new("default")}); err == nil {
			t.Error("a cluster with services, instances and a provider is deleted")
		}
	})
}

func TestScaleInAfterIsKept(t *testing.T) {
	for _, c := range []struct {
		seconds int32
		gone    time.Duration // less than 0: never
	}{{0, 0}, {600, 10 * time.Minute}, {-1, -1}} {
		bubble(t, nil, func(t *testing.T, w *world) {
			w.hours(1)
			w.fleetRoles("ecsInstanceRole")
			zones := w.subnets()[:1]
			in := providerOf("mi", zones)
			in.ManagedInstancesProvider.InfrastructureOptimization = &types.InfrastructureOptimization{ScaleInAfter: &c.seconds}
			w.provider(in)
			w.on("s", w.taskOf("web", "1024", "2048", nil), 1, zones, "mi")
			w.until("it runs", func() bool { return w.service().RunningCount == 1 })
			w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(0))}))
			w.must(nil, w.eventually("the task is gone", func() bool { return len(w.fleet()) == 0 || w.fleet()[0].RunningTasksCount == 0 }))
			began := time.Now()
			if c.gone < 0 {
				time.Sleep(2 * 24 * time.Hour)
				if n := len(w.fleet()); n != 1 {
					t.Errorf("never scaling in, %d instances are left", n)
				}
				return
			}
			w.becomes("")
			if took := time.Since(began); took < c.gone || took > c.gone+time.Minute {
				t.Errorf("after %d s: gone after %v", c.seconds, took)
			}
		})
	}
}

func TestPlacementConstraintsAreKept(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.managed(w.subnets())
		definition := w.taskOf("web", "256", "512", func(in *ecs.RegisterTaskDefinitionInput) {
			in.PlacementConstraints = []types.TaskDefinitionPlacementConstraint{{Type: types.TaskDefinitionPlacementConstraintTypeMemberOf, Expression: new("attribute:ecs.instance-type =~ c6.*")}}
		})
		make := func(constraints ...types.PlacementConstraint) error {
			_, err := w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: &definition, DesiredCount: new(int32(3)), NetworkConfiguration: awsvpc(zones...), PlacementConstraints: constraints,
				CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("mi"), Weight: 1}}})
			return err
		}
		member := func(text string) types.PlacementConstraint {
			return types.PlacementConstraint{Type: types.PlacementConstraintTypeMemberOf, Expression: &text}
		}
		distinct := types.PlacementConstraint{Type: types.PlacementConstraintTypeDistinctInstance}
		for _, c := range []struct {
			constraint types.PlacementConstraint
			want       string
		}{
			{types.PlacementConstraint{Type: types.PlacementConstraintTypeDistinctInstance, Expression: new("")}, "distinctInstance expression should not be specified."},
			{member("zone is a"), "Invalid placement constraint: "},
			{member("attribute:stack == prod"), "not 'stack'"},
		} {
			if err := make(c.constraint); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		}
		w.must(nil, make(distinct, member("attribute:ecs.availability-zone in [us-east-1a, us-east-1b]")))
		w.until("all run", func() bool { return w.service().RunningCount == 3 })
		for _, i := range w.fleet() {
			if zone := value(i, "ecs.availability-zone"); i.RunningTasksCount != 1 || zone == "us-east-1c" || !strings.HasPrefix(value(i, "ecs.instance-type"), "c6") {
				t.Errorf("the fleet is %s", w.shape())
			}
		}
		time.Sleep(time.Hour)
		if s := w.service(); w.said("AZ Rebalanc") || s.RunningCount != 3 || len(s.PlacementConstraints) != 2 || len(w.fleet()) != 3 {
			t.Errorf("an hour later %d run on %s, under %v", s.RunningCount, w.shape(), s.PlacementConstraints)
		}
	})
}
