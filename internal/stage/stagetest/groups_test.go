package stagetest

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

func (w *world) autoscaling() *autoscaling.Client { return autoscaling.NewFromConfig(w.config) }

// groupRole makes the role and profile of a group's instances.
func (w *world) groupRole() {
	w.t.Helper()
	ctx, i := w.t.Context(), w.iam
	w.must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("hosts"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
	w.must(i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("hosts"), PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role")}))
	w.must(i.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: new("hosts")}))
	w.must(i.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: new("hosts"), RoleName: new("hosts")}))
}

// template makes a launch template of a type whose user data is a script.
func (w *world) template(name, kind, script string) {
	w.t.Helper()
	var out struct {
		ID string `xml:"launchTemplate>launchTemplateId"`
	}
	w.ec2("CreateLaunchTemplate&LaunchTemplateName="+name+"&LaunchTemplateData.InstanceType="+kind+"&LaunchTemplateData.ImageId=ami-0123456789abcdef0&LaunchTemplateData.IamInstanceProfile.Name=hosts"+
		"&LaunchTemplateData.UserData="+url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(script))), &out)
	if !strings.HasPrefix(out.ID, "lt-") {
		w.t.Fatalf("the template %s has the id %q", name, out.ID)
	}
}

// scalingGroup makes a group of a template in subnets.
func (w *world) scalingGroup(name string, desired, most int32, subnets []string, change func(*autoscaling.CreateAutoScalingGroupInput)) {
	w.t.Helper()
	in := &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: &name, MinSize: new(int32(0)), MaxSize: &most, DesiredCapacity: &desired, VPCZoneIdentifier: new(strings.Join(subnets, ",")),
		LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateName: &name, Version: new("$Latest")}}
	if change != nil {
		change(in)
	}
	w.must(w.autoscaling().CreateAutoScalingGroup(w.t.Context(), in))
}

// groupOf is a group as it is described.
func (w *world) groupOf(name string) astypes.AutoScalingGroup {
	w.t.Helper()
	out, err := w.autoscaling().DescribeAutoScalingGroups(w.t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
	w.must(out, err)
	if len(out.AutoScalingGroups) != 1 {
		w.t.Fatalf("there are %d groups named %s", len(out.AutoScalingGroups), name)
	}
	return out.AutoScalingGroups[0]
}

// becomesSorted waits for a fleet, whichever of two alike is which.
func (w *world) becomesSorted(want string) {
	w.t.Helper()
	seen := ""
	if err := w.eventually("the fleet is "+want, func() bool {
		list := strings.Split(w.shape(), ", ")
		slices.Sort(list)
		seen = strings.Join(list, ", ")
		return seen == want
	}); err != nil {
		w.t.Fatalf("%v; it is %s", err, seen)
	}
}

const intoDefault = "#!/bin/bash\necho ECS_CLUSTER=default >> /etc/ecs/ecs.config\n"

// fromNothing makes a provider whose group has no instance yet, and most of a type
// at the most.
func (w *world) fromNothing(kind string, most int32, subnets []string) {
	w.t.Helper()
	w.groupRole()
	w.template("asg", kind, intoDefault)
	w.scalingGroup("asg", 0, most, subnets, nil)
	w.groupProvider(nil)
}

// hosts makes a role, a template of m5.large and a group of it.
func (w *world) hosts(desired int32, subnets []string, change func(*autoscaling.CreateAutoScalingGroupInput)) {
	w.t.Helper()
	w.groupRole()
	w.template("asg", "m5.large", intoDefault)
	w.scalingGroup("asg", desired, 10, subnets, change)
}

// groupProvider makes the provider asg of the group asg, and associates it.
func (w *world) groupProvider(change func(*types.AutoScalingGroupProvider)) {
	w.t.Helper()
	p := &types.AutoScalingGroupProvider{AutoScalingGroupArn: w.groupOf("asg").AutoScalingGroupARN, ManagedScaling: &types.ManagedScaling{Status: types.ManagedScalingStatusEnabled, TargetCapacity: new(int32(100))}}
	if change != nil {
		change(p)
	}
	w.must(w.ecs.CreateCapacityProvider(w.t.Context(), &ecs.CreateCapacityProviderInput{Name: new("asg"), AutoScalingGroupProvider: p}))
	w.must(w.ecs.PutClusterCapacityProviders(w.t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{"asg"}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}}))
}

func onEC2(in *ecs.RegisterTaskDefinitionInput) {
	in.RequiresCompatibilities = []types.Compatibility{types.CompatibilityEc2}
}

// The whole path: no instances, a service, the group scales out for it, and in again
// when it is gone.
func TestAGroupScalesWithItsTasks(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(2)
		zones := w.subnets()[:2]
		w.hosts(0, zones, func(in *autoscaling.CreateAutoScalingGroupInput) { in.NewInstancesProtectedFromScaleIn = new(true) })
		w.groupProvider(func(p *types.AutoScalingGroupProvider) {
			p.ManagedTerminationProtection = types.ManagedTerminationProtectionEnabled
		})
		began := time.Now()
		w.on("s", w.taskOf("web", "1024", "3072", onEC2), 4, zones, "asg")
		w.until("the tasks wait", func() bool { return w.service().PendingCount == 4 })
		w.becomes("m5.large a ACTIVE 2, m5.large b ACTIVE 2")
		if d := time.Since(began); d < 90*time.Second || d > 150*time.Second {
			t.Errorf("it took %v, want a minute until the group is told and half a minute to boot", d)
		}
		for _, i := range w.groupOf("asg").Instances {
			if i.LifecycleState != astypes.LifecycleStateInService || !*i.ProtectedFromScaleIn {
				t.Errorf("%s is %s, protected: %v", *i.InstanceId, i.LifecycleState, *i.ProtectedFromScaleIn)
			}
		}
		for _, i := range w.fleet() {
			if aws.ToString(i.CapacityProviderName) != "asg" {
				t.Errorf("an instance is of %q", aws.ToString(i.CapacityProviderName))
			}
		}
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(0))}))
		began = time.Now()
		w.becomes("")
		if d := time.Since(began); d < 15*time.Minute || d > 20*time.Minute {
			t.Errorf("it scaled in after %v, want a quarter of an hour", d)
		}
		if g := w.groupOf("asg"); *g.DesiredCapacity != 0 || len(g.Instances) != 0 {
			t.Errorf("the group wants %d and has %d", *g.DesiredCapacity, len(g.Instances))
		}
	})
}

// ask is a service of launch type EC2, or of a provider, that is changed before it is
// made.
func (w *world) ask(name, definition string, desired int32, subnets []string, change func(*ecs.CreateServiceInput)) error {
	in := &ecs.CreateServiceInput{ServiceName: &name, TaskDefinition: &definition, DesiredCount: &desired, NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: subnets}}}
	if change != nil {
		change(in)
	}
	_, err := w.ecs.CreateService(w.t.Context(), in)
	return err
}

// Tasks of launch type EC2 run on the cluster's container instances, and no more of
// them than those hold.
func TestLaunchTypeEC2IsBoundByItsInstances(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(1, zones, nil)
		w.becomes("m5.large a ACTIVE 0")
		big := w.taskOf("big", "1024", "3072", onEC2)
		w.must(nil, w.ask("s", big, 3, zones, nil))
		w.told("(service s) was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance ")
		w.told(") has insufficient CPU units available. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
		w.becomes("m5.large a ACTIVE 2")
		run, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &big, Count: new(int32(2)), LaunchType: types.LaunchTypeEc2, NetworkConfiguration: awsvpc(zones[0])})
		w.must(run, err)
		if len(run.Tasks) != 0 || len(run.Failures) != 1 || *run.Failures[0].Reason != "RESOURCE:CPU" || *run.Failures[0].Arn != *w.fleet()[0].ContainerInstanceArn {
			t.Errorf("a task ran, or failed as %+v", run.Failures)
		}
		time.Sleep(10 * time.Minute)
		count := 0
		for _, e := range w.service().Events {
			if strings.Contains(*e.Message, "was unable to place a task") {
				count++
			}
		}
		if count < 2 || count > 4 {
			t.Errorf("in ten minutes it was told %d times that a task has no place, want about every five", count)
		}
		w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(2))}))
		w.until("the third task runs on a second instance", func() bool { return w.service().RunningCount == 3 })
		w.becomesSorted("m5.large a ACTIVE 1, m5.large a ACTIVE 2")
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{LaunchType: types.LaunchTypeEc2})
		w.must(list, err)
		if len(list.TaskArns) != 3 {
			t.Errorf("%d tasks are of launch type EC2", len(list.TaskArns))
		}
		// Without managed draining the group ends an instance with the tasks on it.
		w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(0))}))
		w.becomes("")
		stopped, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{DesiredStatus: types.DesiredStatusStopped})
		w.must(stopped, err)
		out, err := w.ecs.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: stopped.TaskArns})
		w.must(out, err)
		for _, x := range out.Tasks {
			if x.StopCode != types.TaskStopCodeTerminationNotice || !strings.HasPrefix(*x.StoppedReason, "Host EC2 (instance i-") {
				t.Errorf("a task stopped with %s: %s", x.StopCode, *x.StoppedReason)
			}
		}
		w.told("was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances were found in your cluster.")
		if _, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &big, LaunchType: types.LaunchTypeEc2, NetworkConfiguration: awsvpc(zones[0])}); err == nil || !strings.Contains(err.Error(), "No Container Instances were found in your cluster.") {
			t.Errorf("without instances RunTask says %v", err)
		}
	})
}

// A provider without managed scaling has what its group has.
func TestAProviderWithoutManagedScalingMakesNoRoom(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(0, zones, nil)
		w.groupProvider(func(p *types.AutoScalingGroupProvider) { p.ManagedScaling.Status = types.ManagedScalingStatusDisabled })
		web := w.taskOf("web", "1024", "3072", onEC2)
		run, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &web, CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("asg"), Weight: 1}}, NetworkConfiguration: awsvpc(zones[0])})
		w.must(run, err)
		if len(run.Failures) != 1 || *run.Failures[0].Reason != "EMPTY CAPACITY PROVIDER" {
			t.Errorf("RunTask failed as %+v", run.Failures)
		}
		w.on("s", web, 1, zones, "asg")
		w.told("Reason: No Container Instances were found in your capacity provider.")
		w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(1))}))
		w.becomes("m5.large a ACTIVE 1")
		time.Sleep(time.Hour)
		if n := *w.groupOf("asg").DesiredCapacity; n != 1 {
			t.Errorf("the group wants %d", n)
		}
	})
}

// A group's instance that leaves is drained first: a task of a service is replaced,
// one of nobody is waited for.
func TestAnInstanceThatLeavesItsGroupIsDrained(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(1, zones, nil)
		w.groupProvider(nil)
		web := w.taskOf("web", "1024", "3072", onEC2)
		w.on("s", web, 1, zones, "asg")
		w.becomes("m5.large a ACTIVE 1")
		gone := *w.fleet()[0].Ec2InstanceId
		run, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &web, CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("asg"), Weight: 1}}, NetworkConfiguration: awsvpc(zones[0])})
		w.must(run, err)
		w.becomes("m5.large a ACTIVE 2")
		out, err := w.autoscaling().TerminateInstanceInAutoScalingGroup(t.Context(), &autoscaling.TerminateInstanceInAutoScalingGroupInput{InstanceId: &gone, ShouldDecrementDesiredCapacity: new(false)})
		w.must(out, err)
		if out.Activity.StatusCode != astypes.ScalingActivityStatusCodeMidLifecycleAction {
			t.Errorf("the activity is %s", out.Activity.StatusCode)
		}
		w.becomesSorted("m5.large a ACTIVE 1, m5.large a DRAINING 1")
		time.Sleep(10 * time.Minute)
		w.becomesSorted("m5.large a ACTIVE 1, m5.large a DRAINING 1")
		w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: run.Tasks[0].TaskArn}))
		w.becomes("m5.large a ACTIVE 1")
		if *w.fleet()[0].Ec2InstanceId == gone {
			t.Error("the one that was to go has stayed")
		}
	})
}

// An instance whose role may not register does not, until the role may; and one
// without a name in its user data registers with the cluster default.
func TestAnInstanceRegistersWhereItsRoleMay(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.groupRole()
		policy := "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
		w.must(w.iam.DetachRolePolicy(t.Context(), &iam.DetachRolePolicyInput{RoleName: new("hosts"), PolicyArn: &policy}))
		w.template("asg", "g4dn.xlarge", "#!/bin/bash\necho 'ECS_INSTANCE_ATTRIBUTES={\"stack\":\"prod\"}' >> /etc/ecs/ecs.config\n")
		w.scalingGroup("asg", 1, 1, w.subnets()[:1], nil)
		w.template("other", "m5.large", "#!/bin/bash\ncat <<EOF >> /etc/ecs/ecs.config\nECS_CLUSTER=elsewhere\nEOF\n")
		w.scalingGroup("other", 1, 1, w.subnets()[:1], nil)
		time.Sleep(10 * time.Minute)
		if w.shape() != "" {
			t.Errorf("there is %s", w.shape())
		}
		w.must(w.iam.AttachRolePolicy(t.Context(), &iam.AttachRolePolicyInput{RoleName: new("hosts"), PolicyArn: &policy}))
		w.becomes("g4dn.xlarge a ACTIVE 0")
		i := w.fleet()[0]
		if value(i, "stack") != "prod" || len(i.GpuDevices) != 1 || i.CapacityProviderName != nil {
			t.Errorf("it has %+v and %+v", i.Attributes, i.GpuDevices)
		}
		w.must(w.ecs.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("elsewhere")}))
		w.must(nil, w.eventually("the other registers with a cluster that was made later", func() bool {
			out, err := w.ecs.ListContainerInstances(t.Context(), &ecs.ListContainerInstancesInput{Cluster: new("elsewhere")})
			w.must(out, err)
			return len(out.ContainerInstanceArns) == 1
		}))
		// One that leaves the cluster does not come back, though it runs on.
		w.must(w.ecs.DeregisterContainerInstance(t.Context(), &ecs.DeregisterContainerInstanceInput{ContainerInstance: i.ContainerInstanceArn}))
		time.Sleep(3 * time.Hour)
		if w.shape() != "" || len(w.groupOf("asg").Instances) != 1 {
			t.Errorf("there is %s, and the group has %d", w.shape(), len(w.groupOf("asg").Instances))
		}
	})
}

// StartTask starts on the instances that are named, and says what each other lacks.
func TestATaskIsStartedOnInstancesByName(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(2, zones, nil)
		w.becomes("m5.large a ACTIVE 0, m5.large a ACTIVE 0")
		web := w.taskOf("web", "1024", "5120", onEC2)
		one, two := *w.fleet()[0].ContainerInstanceArn, *w.fleet()[1].ContainerInstanceArn
		start := func(names ...string) *ecs.StartTaskOutput {
			out, err := w.ecs.StartTask(t.Context(), &ecs.StartTaskInput{TaskDefinition: &web, ContainerInstances: names, NetworkConfiguration: awsvpc(zones[0]), StartedBy: new("me"), Group: new("mine"),
				Overrides: &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: new("web"), Command: []string{"now"}}}}})
			w.must(out, err)
			return out
		}
		out := start(one, "none")
		if len(out.Tasks) != 1 || *out.Tasks[0].ContainerInstanceArn != one || *out.Tasks[0].Group != "mine" || out.Tasks[0].Overrides.ContainerOverrides[0].Command[0] != "now" {
			t.Fatalf("started %+v", out.Tasks)
		}
		if len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
			t.Errorf("failed: %+v", out.Failures)
		}
		w.must(nil, w.eventually("it runs", func() bool { return w.fleet()[0].RunningTasksCount+w.fleet()[1].RunningTasksCount == 1 }))
		w.must(w.ecs.UpdateContainerInstancesState(t.Context(), &ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{two}, Status: types.ContainerInstanceStatusDraining}))
		out = start(one, two)
		reasons := []string{*out.Failures[0].Reason, *out.Failures[1].Reason}
		if len(out.Tasks) != 0 || !slices.Equal(reasons, []string{"RESOURCE:MEMORY", "INACTIVE"}) {
			t.Errorf("started %d, failed: %v", len(out.Tasks), reasons)
		}
		w.must(w.ecs.UpdateContainerInstancesState(t.Context(), &ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{two}, Status: types.ContainerInstanceStatusActive}))
		for _, i := range w.fleet() {
			if *i.ContainerInstanceArn == two {
				w.must(nil, w.stage.Impair("us-east-1", *i.Ec2InstanceId, "AGENT_CONNECTIVITY"))
			}
		}
		if out = start(two); len(out.Failures) != 1 || *out.Failures[0].Reason != "AGENT" {
			t.Errorf("failed: %+v", out.Failures)
		}
	})
}

// Strategies and constraints choose among a group's instances.
func TestStrategiesAndConstraintsOfLaunchTypeEC2(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:2]
		w.hosts(4, zones, nil)
		w.becomes("m5.large a ACTIVE 0, m5.large a ACTIVE 0, m5.large b ACTIVE 0, m5.large b ACTIVE 0")
		small := w.taskOf("small", "256", "512", onEC2)
		for _, c := range []struct {
			name   string
			change func(*ecs.CreateServiceInput)
			shape  string
		}{
			{"by default over zones and instances", nil, "m5.large a ACTIVE 1, m5.large a ACTIVE 1, m5.large b ACTIVE 1, m5.large b ACTIVE 1"},
			{"packed", func(in *ecs.CreateServiceInput) {
				in.PlacementStrategy = []types.PlacementStrategy{{Type: types.PlacementStrategyTypeBinpack, Field: new("memory")}}
			}, "4"},
			{"in one zone", func(in *ecs.CreateServiceInput) {
				in.PlacementConstraints = []types.PlacementConstraint{{Type: types.PlacementConstraintTypeMemberOf, Expression: new("attribute:ecs.availability-zone == us-east-1b")}}
			}, "m5.large a ACTIVE 0, m5.large a ACTIVE 0, m5.large b ACTIVE 2, m5.large b ACTIVE 2"},
			{"each on its own", func(in *ecs.CreateServiceInput) {
				in.PlacementConstraints = []types.PlacementConstraint{{Type: types.PlacementConstraintTypeDistinctInstance}}
				in.PlacementStrategy = []types.PlacementStrategy{{Type: types.PlacementStrategyTypeBinpack, Field: new("cpu")}}
			}, "m5.large a ACTIVE 1, m5.large a ACTIVE 1, m5.large b ACTIVE 1, m5.large b ACTIVE 1"},
		} {
			w.must(nil, w.ask("s", small, 4, zones, c.change))
			w.until(c.name+": all run", func() bool { return w.service().RunningCount == 4 })
			if got := w.shape(); c.shape == "4" && !strings.Contains(got, "ACTIVE 4") || c.shape != "4" && got != c.shape {
				t.Errorf("%s: %s", c.name, got)
			}
			if c.change != nil {
				var in ecs.CreateServiceInput
				c.change(&in)
				if got := w.service(); len(got.PlacementStrategy) != len(in.PlacementStrategy) || len(got.PlacementConstraints) != len(in.PlacementConstraints) {
					t.Errorf("%s: it is described with %+v and %+v", c.name, got.PlacementStrategy, got.PlacementConstraints)
				}
			}
			w.must(w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s"), Force: new(true)}))
			w.must(nil, w.eventually("nothing is left of it", func() bool {
				return strings.Count(w.shape(), "ACTIVE 0") == 4 && *w.service().Status == "INACTIVE"
			}))
		}
		err := w.ask("f", small, 1, zones, func(in *ecs.CreateServiceInput) {
			in.PlacementStrategy = []types.PlacementStrategy{{Type: types.PlacementStrategyTypeBinpack, Field: new("disk")}}
		})
		if err == nil || !strings.Contains(err.Error(), "must be cpu or memory") {
			t.Errorf("a field that is none: %v", err)
		}
	})
}

func TestWhatAGroupProviderMustBe(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(0, zones, nil)
		w.managed(zones)
		arn := *w.groupOf("asg").AutoScalingGroupARN
		create := func(name string, p types.AutoScalingGroupProvider) error {
			_, err := w.ecs.CreateCapacityProvider(t.Context(), &ecs.CreateCapacityProviderInput{Name: &name, AutoScalingGroupProvider: &p})
			return err
		}
		refused := func(name string, err error, want string) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
		scaled := func(s types.ManagedScaling) *types.ManagedScaling {
			s.Status = types.ManagedScalingStatusEnabled
			return &s
		}
		refused("no group", create("p", types.AutoScalingGroupProvider{AutoScalingGroupArn: new("none")}), "was not found")
		refused("a target", create("p", types.AutoScalingGroupProvider{AutoScalingGroupArn: &arn, ManagedScaling: scaled(types.ManagedScaling{TargetCapacity: new(int32(0))})}), "targetCapacity of managed scaling must be between 1 and 100, got 0")
		refused("protection without scaling", create("p", types.AutoScalingGroupProvider{AutoScalingGroupArn: &arn, ManagedTerminationProtection: types.ManagedTerminationProtectionEnabled}), "managed scaling must be enabled")
		refused("protection of a group without", create("p", types.AutoScalingGroupProvider{AutoScalingGroupArn: &arn, ManagedScaling: scaled(types.ManagedScaling{}), ManagedTerminationProtection: types.ManagedTerminationProtectionEnabled}),
			"ClientException: The managed termination protection setting for the capacity provider is invalid. To enable managed termination protection for a capacity provider, the Auto Scaling group must have instance protection from scale in enabled.")
		w.must(nil, create("p", types.AutoScalingGroupProvider{AutoScalingGroupArn: &arn}))
		refused("the same name", create("p", types.AutoScalingGroupProvider{AutoScalingGroupArn: &arn}), "The specified capacity provider already exists.")
		refused("the same group", create("q", types.AutoScalingGroupProvider{AutoScalingGroupArn: &arn}), "already being used by another capacity provider")
		put := func(names ...string) error {
			_, err := w.ecs.PutClusterCapacityProviders(t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: names, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}})
			return err
		}
		w.must(nil, put("p", "FARGATE"))
		item := func(name string) types.CapacityProviderStrategyItem {
			return types.CapacityProviderStrategyItem{CapacityProvider: &name, Weight: 1}
		}
		for mix, want := range map[string]string{
			"FARGATE": "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and Fargate providers. Specify one or the other and try again.",
			"mi":      "cannot contain a mix of capacity providers using Auto Scaling groups and Managed Instances providers",
		} {
			refused(mix, w.ask("s", w.taskOf("web", "256", "512", onEC2), 1, zones, func(in *ecs.CreateServiceInput) {
				in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{item("p"), item(mix)}
			}), want)
		}
		for provider, want := range map[string]string{"FARGATE": "Placement strategies are not supported with FARGATE launch type.", "mi": "Placement strategies are not supported with MANAGED_INSTANCES launch type."} {
			refused("a strategy on "+provider, w.ask("s", w.taskOf("any", "256", "512", func(in *ecs.RegisterTaskDefinitionInput) {
				in.RequiresCompatibilities = append(in.RequiresCompatibilities, types.CompatibilityFargate)
			}), 1, zones, func(in *ecs.CreateServiceInput) {
				in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{item(provider)}
				in.PlacementStrategy = []types.PlacementStrategy{{Type: types.PlacementStrategyTypeRandom}}
			}), want)
		}
		_, err := w.ecs.DeleteCapacityProvider(t.Context(), &ecs.DeleteCapacityProviderInput{CapacityProvider: new("p")})
		refused("it is associated", err, "The capacity provider cannot be deleted because it is associated with cluster: default. Remove the capacity provider from the cluster and try again.")
		w.must(w.ecs.UpdateCapacityProvider(t.Context(), &ecs.UpdateCapacityProviderInput{Name: new("p"), AutoScalingGroupProvider: &types.AutoScalingGroupProviderUpdate{ManagedScaling: scaled(types.ManagedScaling{TargetCapacity: new(int32(80))})}}))
		out, err := w.ecs.DescribeCapacityProviders(t.Context(), &ecs.DescribeCapacityProvidersInput{CapacityProviders: []string{"p"}})
		w.must(out, err)
		if p := out.CapacityProviders[0]; p.Type != types.CapacityProviderTypeEc2Autoscaling || *p.AutoScalingGroupProvider.ManagedScaling.TargetCapacity != 80 || *p.AutoScalingGroupProvider.ManagedScaling.InstanceWarmupPeriod != 300 || p.AutoScalingGroupProvider.ManagedDraining != types.ManagedDrainingEnabled {
			t.Errorf("the provider is %+v", *p.AutoScalingGroupProvider)
		}
		w.must(nil, put("FARGATE"))
		w.must(w.ecs.DeleteCapacityProvider(t.Context(), &ecs.DeleteCapacityProviderInput{CapacityProvider: new("p")}))
		w.must(nil, create("q", types.AutoScalingGroupProvider{AutoScalingGroupArn: &arn}))
	})
}

// The limit of tasks that wait, of a service and of RunTask.
func TestNoMoreThan500TasksWaitForCapacity(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.fromNothing("m5.large", 0, zones)
		web := w.taskOf("web", "1024", "3072", onEC2)
		w.on("s", web, 501, zones, "asg")
		w.told("(service s) was unable to place tasks in your cluster because the tasks provisioning capacity limit was exceeded.")
		if n := w.service().PendingCount; n != 500 {
			t.Errorf("%d tasks wait", n)
		}
		run, err := w.ecs.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: &web, CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("asg"), Weight: 1}}, NetworkConfiguration: awsvpc(zones[0])})
		w.must(run, err)
		if len(run.Tasks) != 0 || len(run.Failures) != 1 {
			t.Errorf("started %d, failed %+v", len(run.Tasks), run.Failures)
		}
	})
}

// A group at its greatest size leaves tasks waiting, for a quarter of an hour.
func TestATaskDoesNotWaitForEver(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.fromNothing("m5.large", 1, zones)
		w.on("s", w.taskOf("web", "2048", "3072", onEC2), 2, zones, "asg")
		began := time.Now()
		w.told("(service s) was unable to place a task. Reason: TaskFailedToStart: RESOURCE:CPU")
		if d := time.Since(began); d < 14*time.Minute || d > 16*time.Minute {
			t.Errorf("it waited %v", d)
		}
		w.becomes("m5.large a ACTIVE 1")
	})
}

// Auto repair drains and replaces what is impaired, or only tells.
func TestAnImpairedInstanceIsReplacedWhereItsProviderRepairs(t *testing.T) {
	for _, status := range []types.AutoRepairActionsStatus{types.AutoRepairActionsStatusEnabled, types.AutoRepairActionsStatusDisabled} {
		t.Run(string(status), func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, w *world) {
				w.hours(1)
				zones := w.subnets()[:1]
				w.fleetRoles("ecsInstanceRole")
				in := providerOf("mi", zones)
				in.ManagedInstancesProvider.AutoRepairConfiguration = &types.AutoRepairConfiguration{ActionsStatus: status}
				w.provider(in)
				w.on("s", w.taskOf("web", "1024", "2048", nil), 1, zones, "mi")
				w.until("it runs", func() bool { return w.service().RunningCount == 1 })
				ill := w.fleet()[0]
				health := func() *types.ContainerInstanceHealthStatus {
					out, err := w.ecs.DescribeContainerInstances(t.Context(), &ecs.DescribeContainerInstancesInput{ContainerInstances: []string{*ill.ContainerInstanceArn}, Include: []types.ContainerInstanceField{types.ContainerInstanceFieldContainerInstanceHealth}})
					w.must(out, err)
					return out.ContainerInstances[0].HealthStatus
				}
				if h := health(); h.OverallStatus != types.InstanceHealthCheckStateOk {
					t.Errorf("it is %s", h.OverallStatus)
				}
				if err := w.stage.Impair("us-east-1", *ill.Ec2InstanceId, "ACCELERATED_COMPUTE"); err == nil {
					t.Error("it has no accelerator")
				}
				w.must(nil, w.stage.Impair("us-east-1", *ill.Ec2InstanceId, "CONTAINER_RUNTIME"))
				if h := health(); h.OverallStatus != types.InstanceHealthCheckStateImpaired || h.Details[0].Type != types.InstanceHealthCheckTypeContainerRuntime || h.Details[0].Status != types.InstanceHealthCheckStateImpaired || h.Details[1].Status != types.InstanceHealthCheckStateOk {
					t.Errorf("it is %s: %+v", h.OverallStatus, h.Details)
				}
				if status == types.AutoRepairActionsStatusDisabled {
					time.Sleep(time.Hour)
					if *w.fleet()[0].Ec2InstanceId != *ill.Ec2InstanceId {
						t.Error("it was replaced")
					}
					return
				}
				w.until("another has its task", func() bool {
					if n := w.service().RunningCount; n < 1 {
						t.Fatal("nothing runs while it is replaced")
					}
					f := w.fleet()
					return len(f) == 1 && *f[0].Ec2InstanceId != *ill.Ec2InstanceId && f[0].RunningTasksCount == 1
				})
			})
		})
	}
}
