package cli

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// groupWalk is a service on the instances of an Auto Scaling group, under a stage
// that is killed.
type groupWalk struct {
	*demo
	t      *testing.T
	aws    func(args ...string) map[string]any
	subnet string
}

// on turns the walk to another stage of the same data.
func (w *groupWalk) on(endpoint string) {
	w.demo = path(w.t, endpoint)
	w.aws = cliOf(w.t, w.demo)
}

func (w *groupWalk) must(_ any, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// quiet is a command that answers nothing.
func (w *groupWalk) quiet(args ...string) {
	w.t.Helper()
	if said := stranger(w.endpoint, "aws", append(args, "--region", w.region)...); said != "" {
		w.t.Fatalf("aws %s: %s", strings.Join(args, " "), said)
	}
}

// build makes the roles, the images, the group and its provider.
func (w *groupWalk) build() {
	w.t.Helper()
	ctx := w.t.Context()
	w.must(nil, w.clickTogether(ctx))
	w.deployer = w.admin
	for _, version := range []string{"1", "2"} {
		w.must(nil, w.push(ctx, version))
	}
	w.aws("iam", "create-role", "--role-name", "hosts", "--assume-role-policy-document", serviceTrust("ec2.amazonaws.com"))
	w.aws("iam", "create-instance-profile", "--instance-profile-name", "hosts")
	w.subnet = w.aws("ec2", "describe-subnets")["Subnets"].([]any)[0].(map[string]any)["SubnetId"].(string)
	w.quiet("iam", "attach-role-policy", "--role-name", "hosts", "--policy-arn", "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role")
	w.quiet("iam", "add-role-to-instance-profile", "--instance-profile-name", "hosts", "--role-name", "hosts")
	script := base64.StdEncoding.EncodeToString([]byte("#!/bin/bash\necho ECS_CLUSTER=" + w.service.Cluster + " >> /etc/ecs/ecs.config\n"))
	w.aws("ec2", "create-launch-template", "--launch-template-name", "asg", "--launch-template-data", fmt.Sprintf(`{"InstanceType":"m5.large","IamInstanceProfile":{"Name":"hosts"},"UserData":%q}`, script))
	w.quiet("autoscaling", "create-auto-scaling-group", "--auto-scaling-group-name", "asg", "--launch-template", "LaunchTemplateName=asg", "--min-size", "0", "--max-size", "8", "--vpc-zone-identifier", w.subnet)
	w.aws("ecs", "create-capacity-provider", "--name", "asg", "--auto-scaling-group-provider", "autoScalingGroupArn="+*w.groups()[0].AutoScalingGroupARN+",managedScaling={status=ENABLED},managedDraining=ENABLED")
	w.aws("ecs", "put-cluster-capacity-providers", "--cluster", w.service.Cluster, "--capacity-providers", "asg", "--default-capacity-provider-strategy", "capacityProvider=asg,weight=1")
}

// groups is all groups there are.
func (w *groupWalk) groups() []astypes.AutoScalingGroup {
	w.t.Helper()
	out, err := w.scaling().DescribeAutoScalingGroups(w.t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{})
	w.must(out, err)
	return out.AutoScalingGroups
}

func (w *groupWalk) scaling() *autoscaling.Client { return autoscaling.NewFromConfig(w.admin) }

// members are the instances of the groups, and their states.
func (w *groupWalk) members() map[string]astypes.LifecycleState {
	w.t.Helper()
	states := map[string]astypes.LifecycleState{}
	for _, g := range w.groups() {
		for _, i := range g.Instances {
			states[*i.InstanceId] = i.LifecycleState
		}
	}
	return states
}

// until waits for something that comes of itself.
func (w *groupWalk) until(what string, there func() bool) {
	w.t.Helper()
	enough := time.After(time.Minute)
	for !there() {
		select {
		case <-enough:
			w.t.Fatalf("never: %s; the instances are %v", what, w.members())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stable says that the service has its tasks, and no deployment.
func (w *groupWalk) stable() bool {
	w.t.Helper()
	out, err := ecs.NewFromConfig(w.admin).DescribeServices(w.t.Context(), &ecs.DescribeServicesInput{Cluster: &w.service.Cluster, Services: []string{"hosted"}})
	w.must(out, err)
	s := out.Services[0]
	return len(s.Deployments) == 1 && s.RunningCount == s.DesiredCount && s.PendingCount == 0 && s.Deployments[0].RolloutState == ecstypes.DeploymentRolloutStateCompleted
}

// launched holds what EC2 has launched against what the group says that it has.
func (w *groupWalk) launched() (n int) {
	w.t.Helper()
	told := map[string]bool{}
	out, err := w.scaling().DescribeScalingActivities(w.t.Context(), &autoscaling.DescribeScalingActivitiesInput{})
	w.must(out, err)
	for _, x := range out.Activities {
		if id, ok := strings.CutPrefix(*x.Description, "Launching a new EC2 instance: "); ok {
			told[id] = true
		}
	}
	for _, r := range w.aws("ec2", "describe-instances")["Reservations"].([]any) {
		for _, i := range r.(map[string]any)["Instances"].([]any) {
			n++
			if id := i.(map[string]any)["InstanceId"].(string); !told[id] {
				w.t.Errorf("%s was launched, and the group says nothing of it", id)
			}
		}
	}
	if n != len(told) {
		w.t.Errorf("the group says that it launched %d, EC2 has %d", len(told), n)
	}
	return n
}

// definitionOnHosts registers a version for container instances; two fit on one.
func (w *groupWalk) definitionOnHosts(version string) *string {
	w.t.Helper()
	in, err := w.definition(version)
	w.must(in, err)
	in.Family, in.Cpu, in.Memory, in.RequiresCompatibilities = new("hosted"), new("1024"), new("2048"), []ecstypes.Compatibility{ecstypes.CompatibilityEc2}
	in.ContainerDefinitions[0].ResourceRequirements = nil
	out, err := ecs.NewFromConfig(w.admin).RegisterTaskDefinition(w.t.Context(), in)
	w.must(out, err)
	return out.TaskDefinition.TaskDefinitionArn
}

// A stage is killed while a group launches, while an instance is drained, and in the
// middle of a deployment. The one after it ends each, launches nothing twice, and
// leaves tasks alone that are where they should be.
func TestAGroupOutlivesAStageThatIsKilled(t *testing.T) {
	args := []string{"--port", "0", "--data", t.TempDir(), "--account", "123456789012", "--default-region", "ap-northeast-2", "--speed", "60"}
	cmd, endpoint := up(t, args...)
	w := &groupWalk{t: t}
	w.on(endpoint)
	w.build()
	again := func() {
		t.Helper()
		w.must(nil, cmd.Process.Kill())
		cmd.Wait()
		cmd, endpoint = up(t, args...)
		w.on(endpoint)
	}
	ctx := t.Context()
	w.must(ecs.NewFromConfig(w.admin).CreateService(ctx, &ecs.CreateServiceInput{Cluster: &w.service.Cluster, ServiceName: new("hosted"), TaskDefinition: w.definitionOnHosts("1"), DesiredCount: new(int32(4)),
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{w.subnet}}}}))
	w.until("the group launches", func() bool { return len(w.members()) > 0 })
	again()
	w.until("the service runs on two instances", func() bool { return w.stable() && len(w.members()) == 2 })
	if n := w.launched(); n != 2 {
		t.Errorf("%d instances were launched for two", n)
	}

	var leaves string
	for leaves = range w.members() {
		break
	}
	stay := w.tasksElsewhere(leaves)
	w.must(w.scaling().TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{InstanceId: &leaves, ShouldDecrementDesiredCapacity: new(false)}))
	again()
	w.until("another is there for the one that left", func() bool {
		_, there := w.members()[leaves]
		return !there && len(w.members()) == 2 && w.stable()
	})
	if n := w.launched(); n != 3 {
		t.Errorf("%d instances were launched for three", n)
	}
	now := tasksOf(t, w.demo)
	for _, task := range stay {
		if !now[task] {
			t.Errorf("%s, which was on the other instance, is gone", task)
		}
	}

	w.must(ecs.NewFromConfig(w.admin).UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: &w.service.Cluster, Service: new("hosted"), TaskDefinition: w.definitionOnHosts("2")}))
	w.until("tasks of both versions are there", func() bool { return len(tasksOf(t, w.demo)) > 4 })
	again()
	w.until("the deployment has ended", w.stable)
	w.launched()
	w.must(ecs.NewFromConfig(w.admin).DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: &w.service.Cluster, Service: new("hosted"), Force: new(true)}))
	w.must(w.scaling().DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: new("asg"), ForceDelete: new(true)}))
	again()
	w.until("the group is gone", func() bool { return len(w.groups()) == 0 })
	w.until("its instances are gone", func() bool {
		out, err := ecs.NewFromConfig(w.admin).ListContainerInstances(ctx, &ecs.ListContainerInstancesInput{Cluster: &w.service.Cluster})
		w.must(out, err)
		return len(out.ContainerInstanceArns) == 0
	})
}

// tasksElsewhere are the tasks that are not on an instance.
func (w *groupWalk) tasksElsewhere(ec2 string) (tasks []string) {
	w.t.Helper()
	e, ctx, c := ecs.NewFromConfig(w.admin), w.t.Context(), &w.service.Cluster
	list, err := e.ListContainerInstances(ctx, &ecs.ListContainerInstancesInput{Cluster: c})
	w.must(list, err)
	hosts, err := e.DescribeContainerInstances(ctx, &ecs.DescribeContainerInstancesInput{Cluster: c, ContainerInstances: list.ContainerInstanceArns})
	w.must(hosts, err)
	for _, h := range hosts.ContainerInstances {
		if aws.ToString(h.Ec2InstanceId) == ec2 {
			continue
		}
		on, err := e.ListTasks(ctx, &ecs.ListTasksInput{Cluster: c, ContainerInstance: h.ContainerInstanceArn})
		w.must(on, err)
		tasks = append(tasks, on.TaskArns...)
	}
	return tasks
}
