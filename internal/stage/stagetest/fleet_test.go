package stagetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// wanted is how many tasks are to run, all and those of a definition.
func (w *world) wanted(definition string) (all, own int) {
	w.t.Helper()
	list, err := w.ecs.ListTasks(w.t.Context(), &ecs.ListTasksInput{})
	w.must(list, err)
	if len(list.TaskArns) == 0 {
		return 0, 0
	}
	out, err := w.ecs.DescribeTasks(w.t.Context(), &ecs.DescribeTasksInput{Tasks: list.TaskArns})
	w.must(out, err)
	for _, t := range out.Tasks {
		if *t.TaskDefinitionArn == definition && *t.LastStatus == "RUNNING" {
			own++
		}
	}
	return len(out.Tasks), own
}

// An instance is drained while a rolling update has both revisions running: what
// is replaced on the way counts against maximumPercent with everything else.
func TestADrainDuringARollingUpdateKeepsTheLimit(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.managed(w.subnets()[:2])
		w.on("s", w.taskOf("web", "1024", "2048", nil), 4, zones, "mi")
		w.until("it is steady", func() bool { return w.said("has reached a steady state") })
		first := w.fleet()[0].ContainerInstanceArn
		second := w.taskOf("web", "1024", "2048", func(in *ecs.RegisterTaskDefinitionInput) { in.ContainerDefinitions[0].Image = new("example.com/web:2") })
		out, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), TaskDefinition: &second})
		w.must(out, err)
		w.until("the target runs", func() bool { _, own := w.wanted(second); return own == 4 })
		w.must(w.ecs.UpdateContainerInstancesState(t.Context(), &ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{*first}, Status: types.ContainerInstanceStatusDraining}))
		for range 600 {
			if all, _ := w.wanted(second); all > 8 || all < 4 {
				t.Fatalf("%d tasks are wanted of a service of 4 with at most 200 percent", all)
			}
			time.Sleep(time.Second)
		}
		w.ends(*out.Service.CurrentServiceDeployment, types.ServiceDeploymentStatusSuccessful)
	})
}

// Who comes while an instance boots neither takes it from the tasks that it was
// bought for, nor forgets where they will be.
func TestAnInstanceIsForTheTasksItWasBoughtFor(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.managed(w.subnets()[:1])
		w.on("s", w.taskOf("small", "512", "1024", nil), 1, zones, "mi")
		w.on("b", w.taskOf("large", "1024", "2048", nil), 2, zones, "mi")
		w.until("three run", func() bool {
			n := int32(0)
			for _, i := range w.fleet() {
				n += i.RunningTasksCount
			}
			return n == 3
		})
		if n := len(w.fleet()); n != 2 {
			t.Errorf("three tasks were given %s", w.shape())
		}
	})
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.managed(w.subnets()[:2])
		w.on("s", w.taskOf("web", "1024", "6144", nil), 1, zones, "mi")
		w.until("one is bought", func() bool { return len(w.fleet()) == 1 })
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(2))}))
		w.until("two run", func() bool { return w.service().RunningCount == 2 })
		if got := w.shape(); got != "r7a.medium a ACTIVE 1, r7a.medium b ACTIVE 1" {
			t.Errorf("while the first booted the second was given %s", got)
		}
	})
}

// The source of a release runs on: its provider cannot be deleted, though no service
// names it any more. And a name that lives again is described as it lives.
func TestAProviderLivesAsLongAsItsTasks(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(2)
		w.fleetRoles("ecsInstanceRole")
		zones := w.subnets()[:1]
		for _, name := range []string{"one", "two"} {
			w.provider(providerOf(name, zones))
		}
		in := w.serviceOf("1", canary())
		in.TaskDefinition, in.NetworkConfiguration = new(w.taskOf("web", "1024", "2048", nil)), awsvpc(zones...)
		on := func(name string) []types.CapacityProviderStrategyItem {
			return []types.CapacityProviderStrategyItem{{CapacityProvider: &name, Weight: 1}}
		}
		in.CapacityProviderStrategy = on("one")
		w.must(w.ecs.CreateService(t.Context(), in))
		w.until("it is steady", func() bool { return w.said("has reached a steady state") })
		out, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), ForceNewDeployment: true, CapacityProviderStrategy: on("two")})
		w.must(out, err)
		w.until("the canary takes traffic", func() bool { a, b := w.weights(); return a == 10 || b == 10 })
		remove := func() error {
			_, err := w.ecs.DeleteCapacityProvider(t.Context(), &ecs.DeleteCapacityProviderInput{CapacityProvider: new("one"), Cluster: new("default")})
			return err
		}
		if err := remove(); err == nil || !strings.Contains(err.Error(), "by tasks of a service") {
			t.Errorf("the provider of the source was deleted: %v", err)
		}
		w.ends(*out.Service.CurrentServiceDeployment, types.ServiceDeploymentStatusSuccessful)
		w.until("the source is gone", func() bool { all, _ := w.wanted(""); return all == 2 })
		w.must(nil, remove())
		time.Sleep(10 * time.Minute)
		w.must(w.ecs.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("other")}))
		again := providerOf("one", zones)
		again.Cluster = new("other")
		w.provider(again)
	})
}

// Whatever services come and are scaled, the fleet comes to rest: a day later it is
// no more changed, and no two instances have one address.
func TestAFleetComesToRest(t *testing.T) {
	for seed := range uint64(8) {
		bubble(t, nil, func(t *testing.T, w *world) {
			r := rand.New(rand.NewPCG(seed, 6))
			w.hours(48)
			w.fleetRoles("ecsInstanceRole")
			zones := w.subnets()[:1+r.IntN(3)]
			in := providerOf("mi", zones)
			if r.IntN(2) == 0 {
				in.ManagedInstancesProvider.InfrastructureOptimization = &types.InfrastructureOptimization{ScaleInAfter: new(int32(r.IntN(300)))}
			}
			w.provider(in)
			said := ""
			services := 1 + r.IntN(5)
			scaled := func(n int) (string, int32) {
				name, desired := fmt.Sprint("s", n), int32(r.IntN(7))
				said += fmt.Sprintf("%s × %d, ", name, desired)
				return name, desired
			}
			for n := range services {
				cpu, memory := fmt.Sprint(256<<r.IntN(5)), fmt.Sprint(512*(1+r.IntN(24)))
				name, desired := scaled(n)
				w.on(name, w.taskOf(name, cpu, memory, nil), desired, zones, "mi")
				time.Sleep(time.Duration(r.IntN(60)) * time.Second)
			}
			time.Sleep(time.Hour)
			for n := range services {
				name, desired := scaled(n)
				w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: &name, DesiredCount: &desired}))
			}
			time.Sleep(20 * time.Hour)
			fleets, addresses := map[string]bool{}, map[string]bool{}
			for range 60 {
				time.Sleep(5 * time.Minute)
				ids := ""
				for _, i := range w.fleet() {
					ids += *i.Ec2InstanceId + " "
				}
				fleets[ids] = true
			}
			if len(fleets) != 1 {
				t.Errorf("seed %d, %d zones, %s: %d fleets in five hours, now %s", seed, len(zones), said, len(fleets), w.shape())
			}
			for _, i := range w.fleet() {
				var of struct {
					Address string `xml:"reservationSet>item>instancesSet>item>privateIpAddress"`
				}
				w.ec2("DescribeInstances&InstanceId.1="+*i.Ec2InstanceId, &of)
				if addresses[of.Address] || of.Address == "" {
					t.Errorf("seed %d: the address %q is given twice", seed, of.Address)
				}
				addresses[of.Address] = true
			}
		})
	}
}

// A zone that has nothing to sell does not keep a service from what it needs.
func TestAMoveThatCannotBeMadeHoldsNothingUp(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(5)
		w.fleetRoles("ecsInstanceRole")
		zones := w.subnets()[:2]
		in := providerOf("mi", zones)
		in.ManagedInstancesProvider.InstanceLaunchTemplate.InstanceRequirements = &types.InstanceRequirementsRequest{
			VCpuCount: &types.VCpuCountRangeRequest{Min: new(int32(1))}, MemoryMiB: &types.MemoryMiBRequest{Min: new(int32(1))}, AllowedInstanceTypes: []string{"m5.2xlarge"}}
		in.ManagedInstancesProvider.InfrastructureOptimization = &types.InfrastructureOptimization{ScaleInAfter: new(int32(-1))}
		w.provider(in)
		w.on("x", w.taskOf("x", "1024", "2048", nil), 1, zones, "mi")
		w.becomes("m5.2xlarge a ACTIVE 1")
		w.must(nil, w.stage.Deny("us-east-1", "m5.2xlarge", true))
		w.on("s", w.taskOf("web", "1024", "2048", nil), 2, zones, "mi")
		w.until("a move was tried", func() bool { return w.said("is unable to place a task in us-east-1b because") })
		time.Sleep(3 * time.Hour)
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{ServiceName: new("s")})
		w.must(list, err)
		w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: &list.TaskArns[0]}))
		began := time.Now()
		w.until("it stops", func() bool { return *w.task(&list.TaskArns[0]).LastStatus == "STOPPED" })
		w.until("it is replaced", func() bool { return w.service().RunningCount == 2 })
		if took := time.Since(began); took > time.Minute {
			t.Errorf("a task was replaced after %v, though there is room", took)
		}
		w.must(nil, w.stage.Deny("us-east-1", "m5.2xlarge", false))
		w.until("it is moved when that can be", func() bool { return w.shape() == "m5.2xlarge a ACTIVE 2, m5.2xlarge b ACTIVE 1" })
	})
}

// An instance is not drained to save its price with a task that its service lets
// neither stop nor be doubled.
func TestWhatCannotMoveIsLeft(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.managed(w.subnets()[:1])
		w.on("x", w.taskOf("x", "3072", "6144", nil), 1, zones, "mi")
		w.becomes("c6a.xlarge a ACTIVE 1")
		w.must(w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new(w.taskOf("web", "256", "512", nil)), DesiredCount: new(int32(1)), NetworkConfiguration: awsvpc(zones...),
			CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("mi"), Weight: 1}},
			DeploymentConfiguration:  &types.DeploymentConfiguration{MaximumPercent: new(int32(150)), MinimumHealthyPercent: new(int32(100))}}))
		w.becomes("c6a.xlarge a ACTIVE 2")
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("x"), DesiredCount: new(int32(0))}))
		time.Sleep(24 * time.Hour)
		if got := w.shape(); got != "c6a.xlarge a ACTIVE 1" {
			t.Errorf("a day later: %s", got)
		}
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: new(int32(200))}}))
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), ForceNewDeployment: true}))
		w.until("it is moved when it may be", func() bool {
			return strings.HasPrefix(w.shape(), "c7a.medium a ACTIVE 1") || w.shape() == "c6a.medium a ACTIVE 1" || (len(w.fleet()) == 1 && !strings.HasPrefix(w.shape(), "c6a.xlarge"))
		})
	})
}

// Two providers in different zones share a service by weight: that is no want of
// balance, and nothing is tried that cannot be.
func TestProvidersInDifferentZonesAreLeftAsTheirWeightsSay(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.fleetRoles("ecsInstanceRole")
		zones := w.subnets()
		w.provider(providerOf("a", zones[:1]))
		w.provider(providerOf("b", zones[1:2]))
		w.must(w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new(w.taskOf("web", "1024", "2048", nil)), DesiredCount: new(int32(4)), NetworkConfiguration: awsvpc(zones...),
			CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: new("a"), Weight: 3}, {CapacityProvider: new("b"), Weight: 1}}}))
		w.until("all run", func() bool { return w.service().RunningCount == 4 })
		time.Sleep(12 * time.Hour)
		if w.said("unable to place") || w.said("AZ Rebalanc") || w.service().RunningCount != 4 {
			t.Errorf("half a day later: %s, %d run", w.shape(), w.service().RunningCount)
		}
	})
}

// An instance that is drained no more takes its service back to what it wants.
func TestAnInstanceIsTakenBackFromDraining(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		zones := w.managed(w.subnets()[:1])
		w.on("s", w.taskOf("web", "1024", "2048", nil), 2, zones, "mi")
		w.until("it is steady", func() bool { return w.said("has reached a steady state") })
		first := *w.fleet()[0].ContainerInstanceArn
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		w.must(w.ecs.UpdateTaskProtection(t.Context(), &ecs.UpdateTaskProtectionInput{Cluster: new("default"), Tasks: list.TaskArns, ProtectionEnabled: true, ExpiresInMinutes: new(int32(2880))}))
		set := func(state types.ContainerInstanceStatus) {
			w.must(w.ecs.UpdateContainerInstancesState(t.Context(), &ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{first}, Status: state}))
		}
		set(types.ContainerInstanceStatusDraining)
		w.until("others stand in", func() bool { return w.service().RunningCount == 4 })
		set(types.ContainerInstanceStatusActive)
		w.until("they are stopped", func() bool { return w.service().RunningCount == 2 })
	})
}
