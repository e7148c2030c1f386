package ecsd

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"serin/internal/wire"
)

// capacityOps are the operations on capacity providers and container instances.
func (a *API) capacityOps() []*wire.Op {
	on := func(c *wire.Call, action, name string) []wire.Check {
		return []wire.Check{{Action: "ecs:" + action, Resource: providerARN(c.Scope, lastPart(name))}}
	}
	onInstances := func(c *wire.Call, action string, in *string, names []string) (checks []wire.Check) {
		cluster := clusterName(in)
		for _, name := range names {
			checks = append(checks, wire.Check{
				Action: "ecs:" + action, Resource: instanceARN(c.Scope, instance{Cluster: cluster, ID: lastPart(name)}),
				Context: map[string][]string{"ecs:cluster": {clusterARN(c.Scope, cluster)}},
			})
		}
		return checks
	}
	return []*wire.Op{
		wire.Handle("CreateCapacityProvider", a.CreateCapacityProvider, func(c *wire.Call, in *ecs.CreateCapacityProviderInput) []wire.Check {
			checks := append(on(c, "CreateCapacityProvider", aws.ToString(in.Name)), tagged(c, in.Tags, providerARN(c.Scope, aws.ToString(in.Name)))...)
			if m := in.ManagedInstancesProvider; m != nil {
				checks = append(checks, passRole(c, m.InfrastructureRoleArn, ecsService)...)
			}
			return checks
		}, wire.Members{Performed: "name cluster autoScalingGroupProvider managedInstancesProvider tags"}),
		wire.Handle("UpdateCapacityProvider", a.UpdateCapacityProvider, func(c *wire.Call, in *ecs.UpdateCapacityProviderInput) []wire.Check {
			checks := on(c, "UpdateCapacityProvider", aws.ToString(in.Name))
			if m := in.ManagedInstancesProvider; m != nil {
				checks = append(checks, passRole(c, m.InfrastructureRoleArn, ecsService)...)
			}
			return checks
		}, wire.Members{Performed: "name cluster autoScalingGroupProvider managedInstancesProvider"}),
		wire.Handle("DeleteCapacityProvider", a.DeleteCapacityProvider, func(c *wire.Call, in *ecs.DeleteCapacityProviderInput) []wire.Check {
			return on(c, "DeleteCapacityProvider", aws.ToString(in.CapacityProvider))
		}, wire.Members{Performed: "capacityProvider cluster"}),
		wire.Handle("DescribeCapacityProviders", a.DescribeCapacityProviders, func(c *wire.Call, in *ecs.DescribeCapacityProvidersInput) (checks []wire.Check) {
			for _, name := range in.CapacityProviders {
				checks = append(checks, on(c, "DescribeCapacityProviders", name)...)
			}
			if checks == nil {
				checks = []wire.Check{{Action: "ecs:DescribeCapacityProviders", Resource: "*"}}
			}
			return checks
		}, wire.Members{Performed: "capacityProviders cluster include maxResults nextToken"}),
		wire.Handle("PutClusterCapacityProviders", a.PutClusterCapacityProviders, func(c *wire.Call, in *ecs.PutClusterCapacityProvidersInput) []wire.Check {
			return []wire.Check{{Action: "ecs:PutClusterCapacityProviders", Resource: clusterARN(c.Scope, clusterName(in.Cluster))}}
		}, wire.Members{Performed: "cluster capacityProviders defaultCapacityProviderStrategy"}),

		wire.Handle("ListContainerInstances", a.ListContainerInstances, func(c *wire.Call, in *ecs.ListContainerInstancesInput) []wire.Check {
			return []wire.Check{{Action: "ecs:ListContainerInstances", Resource: clusterARN(c.Scope, clusterName(in.Cluster))}}
		}, wire.Members{Performed: "cluster filter maxResults nextToken status"}),
		wire.Handle("DescribeContainerInstances", a.DescribeContainerInstances, func(c *wire.Call, in *ecs.DescribeContainerInstancesInput) []wire.Check {
			return onInstances(c, "DescribeContainerInstances", in.Cluster, in.ContainerInstances)
		}, wire.Members{Performed: "cluster containerInstances include"}),
		wire.Handle("UpdateContainerInstancesState", a.UpdateContainerInstancesState, func(c *wire.Call, in *ecs.UpdateContainerInstancesStateInput) []wire.Check {
			return onInstances(c, "UpdateContainerInstancesState", in.Cluster, in.ContainerInstances)
		}, wire.Members{Performed: "cluster containerInstances status"}),
		wire.Handle("DeregisterContainerInstance", a.DeregisterContainerInstance, func(c *wire.Call, in *ecs.DeregisterContainerInstanceInput) []wire.Check {
			return []wire.Check{{Action: "ecs:DeregisterContainerInstance", Resource: clusterARN(c.Scope, clusterName(in.Cluster))}}
		}, wire.Members{Performed: "cluster containerInstance force"}),
		a.startOp(),
	}
}

// startOp is StartTask, with what it needs permission for.
func (a *API) startOp() *wire.Op {
	return wire.Handle("StartTask", a.StartTask, func(c *wire.Call, in *ecs.StartTaskInput) []wire.Check {
		checks := []wire.Check{{Action: "ecs:StartTask", Resource: definitionResource(c, aws.ToString(in.TaskDefinition)), Context: map[string][]string{"ecs:cluster": {clusterARN(c.Scope, clusterName(in.Cluster))}, "ecs:enable-execute-command": {fmt.Sprint(in.EnableExecuteCommand)}}}}
		checks = append(checks, tagged(c, in.Tags, c.ARN("task/"+clusterName(in.Cluster)+"/*"))...)
		if o := in.Overrides; o != nil {
			checks = append(append(checks, passRole(c, o.TaskRoleArn, tasksService)...), passRole(c, o.ExecutionRoleArn, tasksService)...)
		}
		return checks
	}, wire.Members{
		Performed: "taskDefinition containerInstances cluster enableECSManagedTags enableExecuteCommand group networkConfiguration overrides propagateTags startedBy tags",
		Refused:   "referenceId volumeConfigurations"})
}

// capacityTypes is what is done with the members of their structures. A price
// above the lowest is never paid: the cheapest that fits is bought.
var capacityTypes = map[string]wire.Members{
	"AutoScalingGroupProvider":                    {Performed: "autoScalingGroupArn managedDraining managedScaling managedTerminationProtection"},
	"AutoScalingGroupProviderUpdate":              {Performed: "managedDraining managedScaling managedTerminationProtection"},
	"ManagedScaling":                              {Performed: "instanceWarmupPeriod maximumScalingStepSize minimumScalingStepSize status targetCapacity"},
	"PlacementStrategy":                           {Performed: "field type"},
	"CreateManagedInstancesProviderConfiguration": {Performed: "infrastructureRoleArn instanceLaunchTemplate infrastructureOptimization propagateTags autoRepairConfiguration"},
	"UpdateManagedInstancesProviderConfiguration": {Performed: "infrastructureRoleArn instanceLaunchTemplate infrastructureOptimization propagateTags autoRepairConfiguration"},
	"InstanceLaunchTemplate": {
		Performed: "ec2InstanceProfileArn networkConfiguration capacityOptionType instanceRequirements",
		Recorded:  "fipsEnabled instanceMetadataTagsPropagation localStorageConfiguration monitoring storageConfiguration", Refused: "capacityReservations"},
	"InstanceLaunchTemplateUpdate": {
		Performed: "ec2InstanceProfileArn networkConfiguration instanceRequirements",
		Recorded:  "instanceMetadataTagsPropagation localStorageConfiguration monitoring storageConfiguration", Refused: "capacityReservations"},
	"ManagedInstancesNetworkConfiguration":      {Performed: "subnets securityGroups"},
	"ManagedInstancesStorageConfiguration":      {Recorded: "storageSizeGiB"},
	"ManagedInstancesLocalStorageConfiguration": {Recorded: "useLocalStorage"},
	"InfrastructureOptimization":                {Performed: "scaleInAfter"},
	"AutoRepairConfiguration":                   {Performed: "actionsStatus"},
	"InstanceRequirementsRequest": {
		Performed: "vCpuCount memoryMiB cpuManufacturers memoryGiBPerVCpu excludedInstanceTypes allowedInstanceTypes instanceGenerations bareMetal burstablePerformance networkInterfaceCount " +
			"localStorage localStorageTypes totalLocalStorageGB networkBandwidthGbps acceleratorTypes acceleratorCount acceleratorManufacturers acceleratorNames acceleratorTotalMemoryMiB requireHibernateSupport",
		Recorded: "spotMaxPricePercentageOverLowestPrice maxSpotPriceAsPercentageOfOptimalOnDemandPrice onDemandMaxPricePercentageOverLowestPrice",
		Refused:  "baselineEbsBandwidthMbps"},
	"VCpuCountRangeRequest":            {Performed: "min max"},
	"MemoryMiBRequest":                 {Performed: "min max"},
	"MemoryGiBPerVCpuRequest":          {Performed: "min max"},
	"NetworkInterfaceCountRequest":     {Performed: "min max"},
	"TotalLocalStorageGBRequest":       {Performed: "min max"},
	"NetworkBandwidthGbpsRequest":      {Performed: "min max"},
	"AcceleratorCountRequest":          {Performed: "min max"},
	"AcceleratorTotalMemoryMiBRequest": {Performed: "min max"},
}
