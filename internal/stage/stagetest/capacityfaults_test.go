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
