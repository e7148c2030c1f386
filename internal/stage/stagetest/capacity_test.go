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

// roles makes the two roles of Managed Instances and the profile.
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
		w.fleetRoles("ecsInstanceRole")
		zones := w.subnets()[:2]
		w.provider(providerOf("mi", zones))
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
