package stagetest

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// dropped deletes a provider of the default cluster and waits until it is gone.
func (w *world) dropped(name string, cluster *string) {
	w.t.Helper()
	w.must(w.ecs.DeleteCapacityProvider(w.t.Context(), &ecs.DeleteCapacityProviderInput{CapacityProvider: &name, Cluster: cluster}))
	w.must(nil, w.eventually("the provider is gone", func() bool {
		out, err := w.ecs.DescribeCapacityProviders(w.t.Context(), &ecs.DescribeCapacityProvidersInput{CapacityProviders: []string{name}})
		w.must(out, err)
		return out.CapacityProviders[0].Status == types.CapacityProviderStatusInactive
	}))
}

// What is left of a provider that is gone says nothing of the one that has its name
// now, whichever of the two kinds they are.
func TestAProvidersNameLivesAgainAsTheOtherKind(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(2)
		zones := w.subnets()[:1]
		w.fleetRoles("ecsInstanceRole")
		w.provider(providerOf("asg", zones))
		w.dropped("asg", new("default"))

		w.fromNothing("m5.large", 4, zones)
		w.on("s", w.taskOf("web", "1024", "3072", nil), 2, zones, "asg")
		w.becomes("m5.large a ACTIVE 2")
		w.must(w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s"), Force: new(true)}))
		w.until("the service is gone", func() bool { return *w.service().Status == "INACTIVE" })
		w.must(w.ecs.PutClusterCapacityProviders(t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: []string{}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}}))
		w.dropped("asg", nil)

		w.provider(providerOf("asg", zones))
		w.on("t", w.taskOf("web", "1024", "3072", nil), 1, zones, "asg")
		w.becomes("m5.large a ACTIVE 0, m7a.medium a ACTIVE 1")
		time.Sleep(time.Hour)
		if g := w.groupOf("asg"); *g.DesiredCapacity != 1 {
			t.Errorf("a provider that is gone has its group have %d instances", *g.DesiredCapacity)
		}
	})
}

// associate gives the default cluster its providers.
func (w *world) associate(names ...string) error {
	_, err := w.ecs.PutClusterCapacityProviders(w.t.Context(), &ecs.PutClusterCapacityProvidersInput{Cluster: new("default"), CapacityProviders: append([]string{}, names...), DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}})
	return err
}

// runOn runs a task of nobody's on a provider, or, where that is empty, as launch type EC2.
func (w *world) runOn(provider, definition string, subnets []string, change func(*ecs.RunTaskInput)) (*ecs.RunTaskOutput, error) {
	in := &ecs.RunTaskInput{TaskDefinition: &definition, LaunchType: types.LaunchTypeEc2, NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: subnets}}}
	if provider != "" {
		in.LaunchType, in.CapacityProviderStrategy = "", []types.CapacityProviderStrategyItem{{CapacityProvider: &provider, Weight: 1}}
	}
	if change != nil {
		change(in)
	}
	return w.ecs.RunTask(w.t.Context(), in)
}

// A provider that tasks wait for or run on stays with its cluster: nobody else would
// ever end their wait.
func TestAProviderThatTasksUseIsNotTakenFromItsCluster(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.fromNothing("m5.large", 0, zones)
		out, err := w.runOn("asg", w.taskOf("web", "1024", "2048", onEC2), zones, nil)
		w.must(out, err)
		w.refused("while a task waits", w.associate(), "ResourceInUseException: The specified capacity provider is in use and cannot be removed.")
		w.must(nil, w.eventually("the task has stopped", func() bool { return *w.task(out.Tasks[0].TaskArn).LastStatus == "STOPPED" }))
		w.must(nil, w.associate())
	})
}

// A cluster goes with its association to a group's provider; the group is drained by
// ECS no more.
func TestAClusterIsDeletedWithTheProviderOfAGroup(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.fromNothing("m5.large", 4, w.subnets()[:1])
		w.must(w.ecs.DeleteCluster(t.Context(), &ecs.DeleteClusterInput{Cluster: new("default")}))
		w.dropped("asg", nil)
		w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(1)), HonorCooldown: new(false)}))
		w.must(nil, w.eventually("an instance is there", func() bool { return len(w.groupOf("asg").Instances) == 1 }))
		w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(int32(0))}))
		began := time.Now()
		w.must(nil, w.eventually("the instance is gone", func() bool { return len(w.groupOf("asg").Instances) == 0 }))
		if d := time.Since(began); d > time.Minute {
			t.Errorf("it was waited for for %v", d)
		}
	})
}

func TestWhatRunsOnManagedInstancesNamesAProvider(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		definition, zones := w.taskOf("web", "1024", "2048", nil), w.subnets()[:1]
		_, err := w.runOn("", definition, zones, func(in *ecs.RunTaskInput) { in.LaunchType = types.LaunchTypeManagedInstances })
		w.refused("a task", err, "specify a capacity provider strategy and omit the launch type")
		w.refused("a service", w.ask("s", definition, 1, zones, func(in *ecs.CreateServiceInput) { in.LaunchType = types.LaunchTypeManagedInstances }), "specify a capacity provider strategy and omit the launch type")
	})
}

func TestTheProviderOfAGroupIsNoClusters(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.fromNothing("m5.large", 4, w.subnets()[:1])
		_, err := w.ecs.UpdateCapacityProvider(t.Context(), &ecs.UpdateCapacityProviderInput{Name: new("asg"), Cluster: new("default"), AutoScalingGroupProvider: &types.AutoScalingGroupProviderUpdate{ManagedDraining: types.ManagedDrainingDisabled}})
		w.refused("an update", err, "A cluster can be specified only for a capacity provider of Managed Instances.")
		_, err = w.ecs.DeleteCapacityProvider(t.Context(), &ecs.DeleteCapacityProviderInput{CapacityProvider: new("asg"), Cluster: new("default")})
		w.refused("a deletion", err, "A cluster can be specified only for a capacity provider of Managed Instances.")
	})
}

// What an instance is told to have is what constraints and filters find.
func TestConstraintsFindEveryAttributeThatIsTold(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(1, zones, nil)
		w.becomes("m5.large a ACTIVE 0")
		definition := w.taskOf("web", "128", "128", onEC2)
		for _, a := range w.fleet()[0].Attributes {
			expression := "attribute:" + *a.Name + " exists"
			if a.Value != nil {
				expression = "attribute:" + *a.Name + " == " + *a.Value
			}
			list, err := w.ecs.ListContainerInstances(t.Context(), &ecs.ListContainerInstancesInput{Filter: &expression})
			w.must(list, err)
			out, err := w.runOn("", definition, zones, func(in *ecs.RunTaskInput) {
				in.PlacementConstraints = []types.PlacementConstraint{{Type: types.PlacementConstraintTypeMemberOf, Expression: &expression}}
			})
			w.must(out, err)
			if len(list.ContainerInstanceArns) != 1 || len(out.Failures) > 0 {
				t.Errorf("%s: %d instances, %d failures", expression, len(list.ContainerInstanceArns), len(out.Failures))
			}
			for _, run := range out.Tasks { // there are fewer interfaces than attributes
				w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: run.TaskArn}))
				w.must(nil, w.eventually("it has stopped", func() bool { return *w.task(run.TaskArn).LastStatus == "STOPPED" }))
			}
		}
	})
}

// An instance whose agent is not connected gets no task.
func TestATaskIsNotPlacedWhereNoAgentAnswers(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.subnets()[:1]
		w.hosts(1, zones, nil)
		w.becomes("m5.large a ACTIVE 0")
		w.must(nil, w.stage.Impair("us-east-1", *w.fleet()[0].Ec2InstanceId, "AGENT_CONNECTIVITY"))
		definition := w.taskOf("web", "1024", "2048", onEC2)
		out, err := w.runOn("", definition, zones, nil)
		w.must(out, err)
		if len(out.Failures) != 1 || *out.Failures[0].Reason != "AGENT" {
			t.Errorf("a task: %+v, %+v", out.Failures, out.Tasks)
		}
		w.must(nil, w.ask("s", definition, 1, zones, func(in *ecs.CreateServiceInput) { in.LaunchType = types.LaunchTypeEc2 }))
		w.told(`encountered error "AGENT". For more information`)
	})
}

// An empty group has its lists all the same: programs look into them without asking.
func TestAnEmptyGroupIsDescribedWithItsLists(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.fromNothing("m5.large", 0, w.subnets()[:1])
		said := w.signed("autoscaling", "Version=2011-01-01&Action=DescribeAutoScalingGroups", "application/x-www-form-urlencoded", "")
		for _, list := range []string{"Instances", "SuspendedProcesses", "EnabledMetrics", "LoadBalancerNames", "TargetGroupARNs", "TrafficSources"} {
			if !strings.Contains(said, "<"+list+"></"+list+">") {
				t.Errorf("%s is missing", list)
			}
		}
	})
}

func TestATemplateIsNamedOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		zones := w.subnets()[:1]
		w.fromNothing("m5.large", 0, zones)
		both := &astypes.LaunchTemplateSpecification{LaunchTemplateId: w.groupOf("asg").LaunchTemplate.LaunchTemplateId, LaunchTemplateName: new("other")}
		w.refused("a new group", w.tryGroup("two", zones, func(in *autoscaling.CreateAutoScalingGroupInput) { in.LaunchTemplate = both }), "either launchTemplateId or LaunchTemplateName")
		_, err := w.autoscaling().UpdateAutoScalingGroup(t.Context(), &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: new("asg"), LaunchTemplate: both})
		w.refused("a change", err, "either launchTemplateId or LaunchTemplateName")
	})
}
