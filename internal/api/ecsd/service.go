package ecsd

import (
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// Service is ECS on the wire: every operation with what it needs permission
// for, and every member with what is done with it.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "ecs", Signing: "ecs", Protocol: wire.JSON, Target: "AmazonEC2ContainerServiceV20141113", Version: "2014-11-13",
		Naming:  &wire.Naming{Lower: true, Document: func(value any) any { return newDocument(value) }, Unions: unions()},
		Status:  map[string]int{"ServerException": 500},
		Invalid: func(m string) error { return invalid("%s", m) },
		Types:   allTypes(),
		Words:   map[string]string{"DeploymentLifecycleHookTargetType": "Invalid targetType. Valid values are: AWS_LAMBDA, PAUSE"}, // documented
		AnyCase: []string{"ManagedInstancesMonitoringOptions"},                                                                     // AWS's own examples say basic
		Buckets: buckets(), Refused: notPerformed,
	}
	cluster := func(name *string) func(*wire.Call) string {
		return func(c *wire.Call) string { return clusterARN(c.Scope, clusterName(name)) }
	}
	one := func(action string, c *wire.Call, resource string) []wire.Check {
		return []wire.Check{{Action: "ecs:" + action, Resource: resource}}
	}
	inCluster := func(action string, c *wire.Call, resource string, name *string) []wire.Check {
		return []wire.Check{{Action: "ecs:" + action, Resource: resource, Context: map[string][]string{"ecs:cluster": {cluster(name)(c)}}}}
	}
	onTasks := func(c *wire.Call, action string, in *string, tasks []string) (checks []wire.Check) {
		for _, t := range tasks {
			checks = append(checks, inCluster(action, c, taskResource(c, t, in), in)...)
		}
		return checks
	}
	onService := func(action string, c *wire.Call, name, in *string) []wire.Check {
		// An ARN names its cluster itself; what else is sent does not count.
		if key, ok := rowKey(aws.ToString(name), "service"); ok {
			_, path := arn.ParseKey(key)
			cluster, _, _ := strings.Cut(path, "/")
			in = &cluster
		}
		return inCluster(action, c, serviceResource(c, aws.ToString(name), in), in)
	}
	s.Register(
		wire.Handle("CreateCluster", a.CreateCluster, func(c *wire.Call, in *ecs.CreateClusterInput) []wire.Check {
			return append(one("CreateCluster", c, cluster(in.ClusterName)(c)), tagged(c, in.Tags, cluster(in.ClusterName)(c))...)
		}, wire.Members{Performed: "clusterName configuration tags capacityProviders defaultCapacityProviderStrategy", Refused: "serviceConnectDefaults settings"}),
		wire.Handle("UpdateCluster", a.UpdateCluster, func(c *wire.Call, in *ecs.UpdateClusterInput) []wire.Check {
			return one("UpdateCluster", c, cluster(in.Cluster)(c))
		}, wire.Members{Performed: "cluster configuration", Refused: "serviceConnectDefaults settings"}),
		wire.Handle("DescribeClusters", a.DescribeClusters, func(c *wire.Call, in *ecs.DescribeClustersInput) []wire.Check {
			var checks []wire.Check
			for _, name := range orDefault(in.Clusters) {
				checks = append(checks, one("DescribeClusters", c, cluster(&name)(c))...)
			}
			return checks
		}, wire.Members{Performed: "clusters include"}),
		wire.Handle("ListClusters", a.ListClusters, func(c *wire.Call, _ *ecs.ListClustersInput) []wire.Check { return one("ListClusters", c, "*") },
			wire.Members{Performed: "maxResults nextToken"}),
		wire.Handle("DeleteCluster", a.DeleteCluster, func(c *wire.Call, in *ecs.DeleteClusterInput) []wire.Check {
			return one("DeleteCluster", c, cluster(in.Cluster)(c))
		}, wire.Members{Performed: "cluster"}),

		wire.Handle("RegisterTaskDefinition", a.RegisterTaskDefinition, func(c *wire.Call, in *ecs.RegisterTaskDefinitionInput) []wire.Check {
			checks := one("RegisterTaskDefinition", c, c.ARN("task-definition/"+aws.ToString(in.Family)+":*"))
			checks[0].Context, checks[0].Wild = definitionKeys(in), true
			checks = append(checks, tagged(c, in.Tags, checks[0].Resource)...)
			for _, role := range []*string{in.TaskRoleArn, in.ExecutionRoleArn} {
				checks = append(checks, passRole(c, role, "ecs-tasks.amazonaws.com")...)
			}
			return checks
		}, wire.Members{
			Performed: "containerDefinitions family cpu memory networkMode requiresCompatibilities executionRoleArn tags taskRoleArn runtimePlatform placementConstraints volumes ipcMode pidMode",
			Recorded:  "ephemeralStorage enableFaultInjection",
			Refused:   "inferenceAccelerators proxyConfiguration"}),
		wire.Handle("DescribeTaskDefinition", a.DescribeTaskDefinition, func(c *wire.Call, _ *ecs.DescribeTaskDefinitionInput) []wire.Check {
			return one("DescribeTaskDefinition", c, "*")
		}, wire.Members{Performed: "taskDefinition include"}),
		wire.Handle("ListTaskDefinitions", a.ListTaskDefinitions, func(c *wire.Call, _ *ecs.ListTaskDefinitionsInput) []wire.Check {
			return one("ListTaskDefinitions", c, "*")
		}, wire.Members{Performed: "familyPrefix maxResults nextToken sort status"}),
		wire.Handle("ListTaskDefinitionFamilies", a.ListTaskDefinitionFamilies, func(c *wire.Call, _ *ecs.ListTaskDefinitionFamiliesInput) []wire.Check {
			return one("ListTaskDefinitionFamilies", c, "*")
		}, wire.Members{Performed: "familyPrefix maxResults nextToken status"}),
		wire.Handle("DeregisterTaskDefinition", a.DeregisterTaskDefinition, func(c *wire.Call, _ *ecs.DeregisterTaskDefinitionInput) []wire.Check {
			return one("DeregisterTaskDefinition", c, "*")
		}, wire.Members{Performed: "taskDefinition"}),
		wire.Handle("DeleteTaskDefinitions", a.DeleteTaskDefinitions, func(c *wire.Call, in *ecs.DeleteTaskDefinitionsInput) []wire.Check {
			var checks []wire.Check
			for _, name := range in.TaskDefinitions {
				checks = append(checks, one("DeleteTaskDefinitions", c, definitionResource(c, name))...)
			}
			return checks
		}, wire.Members{Performed: "taskDefinitions"}),

		wire.Handle("CreateService", a.CreateService, func(c *wire.Call, in *ecs.CreateServiceInput) []wire.Check {
			checks := onService("CreateService", c, in.ServiceName, in.Cluster)
			checks = append(checks, tagged(c, in.Tags, checks[0].Resource)...)
			serviceKeys{in.TaskDefinition, in.CapacityProviderStrategy, in.NetworkConfiguration, &in.EnableECSManagedTags, &in.EnableExecuteCommand, in.PropagateTags,
				in.ServiceConnectConfiguration != nil && in.ServiceConnectConfiguration.Enabled, len(in.VpcLatticeConfigurations) > 0, len(in.VolumeConfigurations) > 0}.fill(c, checks[0].Context)
			return append(checks, passDeploymentRoles(c, in.LoadBalancers, in.DeploymentConfiguration)...)
		}, wire.Members{
			Performed: "serviceName cluster taskDefinition desiredCount loadBalancers deploymentConfiguration healthCheckGracePeriodSeconds clientToken deploymentController schedulingStrategy tags enableECSManagedTags propagateTags capacityProviderStrategy availabilityZoneRebalancing placementConstraints placementStrategy enableExecuteCommand",
			Recorded:  "networkConfiguration launchType",
			Refused:   "platformVersion gatewayConnectors monitoring role serviceConnectConfiguration serviceRegistries volumeConfigurations vpcLatticeConfigurations"}),
		wire.Handle("UpdateService", a.UpdateService, func(c *wire.Call, in *ecs.UpdateServiceInput) []wire.Check {
			checks := onService("UpdateService", c, in.Service, in.Cluster)
			serviceKeys{in.TaskDefinition, in.CapacityProviderStrategy, in.NetworkConfiguration, in.EnableECSManagedTags, in.EnableExecuteCommand, in.PropagateTags,
				in.ServiceConnectConfiguration != nil && in.ServiceConnectConfiguration.Enabled, len(in.VpcLatticeConfigurations) > 0, len(in.VolumeConfigurations) > 0}.fill(c, checks[0].Context)
			return append(checks, passDeploymentRoles(c, in.LoadBalancers, in.DeploymentConfiguration)...)
		}, wire.Members{
			Performed: "service cluster taskDefinition desiredCount deploymentConfiguration deploymentController enableExecuteCommand forceNewDeployment healthCheckGracePeriodSeconds loadBalancers enableECSManagedTags propagateTags capacityProviderStrategy availabilityZoneRebalancing placementConstraints placementStrategy",
			Recorded:  "networkConfiguration",
			Refused:   "platformVersion gatewayConnectors monitoring serviceConnectConfiguration serviceRegistries volumeConfigurations vpcLatticeConfigurations"}),
		wire.Handle("DescribeServices", a.DescribeServices, func(c *wire.Call, in *ecs.DescribeServicesInput) []wire.Check {
			var checks []wire.Check
			for _, name := range in.Services {
				checks = append(checks, onService("DescribeServices", c, &name, in.Cluster)...)
			}
			return checks
		}, wire.Members{Performed: "services cluster include"}),
		wire.Handle("ListServices", a.ListServices, func(c *wire.Call, in *ecs.ListServicesInput) []wire.Check {
			return inCluster("ListServices", c, "*", in.Cluster)
		}, wire.Members{Performed: "cluster launchType maxResults nextToken resourceManagementType schedulingStrategy"}),
		wire.Handle("DeleteService", a.DeleteService, func(c *wire.Call, in *ecs.DeleteServiceInput) []wire.Check {
			return onService("DeleteService", c, in.Service, in.Cluster)
		}, wire.Members{Performed: "service cluster force"}),

		wire.Handle("ListServiceDeployments", a.ListServiceDeployments, func(c *wire.Call, in *ecs.ListServiceDeploymentsInput) []wire.Check {
			return onService("ListServiceDeployments", c, in.Service, in.Cluster)
		}, wire.Members{Performed: "service cluster createdAt maxResults nextToken status"}),
		wire.Handle("DescribeServiceDeployments", a.DescribeServiceDeployments, func(c *wire.Call, in *ecs.DescribeServiceDeploymentsInput) []wire.Check {
			var checks []wire.Check
			for _, d := range in.ServiceDeploymentArns {
				checks = append(checks, ofService("DescribeServiceDeployments", d))
			}
			return checks
		}, wire.Members{Performed: "serviceDeploymentArns"}),
		wire.Handle("DescribeServiceRevisions", a.DescribeServiceRevisions, func(c *wire.Call, in *ecs.DescribeServiceRevisionsInput) []wire.Check {
			var checks []wire.Check
			for _, r := range in.ServiceRevisionArns {
				checks = append(checks, ofService("DescribeServiceRevisions", r))
			}
			return checks
		}, wire.Members{Performed: "serviceRevisionArns"}),
		wire.Handle("StopServiceDeployment", a.StopServiceDeployment, func(c *wire.Call, in *ecs.StopServiceDeploymentInput) []wire.Check {
			return []wire.Check{ofService("StopServiceDeployment", aws.ToString(in.ServiceDeploymentArn))}
		}, wire.Members{Performed: "serviceDeploymentArn stopType"}),
		wire.Handle("ContinueServiceDeployment", a.ContinueServiceDeployment, func(c *wire.Call, in *ecs.ContinueServiceDeploymentInput) []wire.Check {
			return []wire.Check{ofService("ContinueServiceDeployment", aws.ToString(in.ServiceDeploymentArn))}
		}, wire.Members{Performed: "action hookId serviceDeploymentArn"}),

		wire.Handle("CreateTaskSet", a.CreateTaskSet, func(c *wire.Call, in *ecs.CreateTaskSetInput) []wire.Check {
			check := setOwner{in.Service, in.Cluster}.check(c, "CreateTaskSet", "*")
			checks := tagged(c, in.Tags, check.Resource)
			check.Resource = "*" // no resource can be named, documented
			serviceKeys{definition: in.TaskDefinition, capacity: in.CapacityProviderStrategy}.deployed(c, check.Context)
			return append(checks, check)
		}, wire.Members{
			Performed: "service cluster taskDefinition loadBalancers scale externalId clientToken tags capacityProviderStrategy",
			Recorded:  "networkConfiguration launchType",
			Refused:   "platformVersion serviceRegistries"}),
		wire.Handle("DescribeTaskSets", a.DescribeTaskSets, func(c *wire.Call, in *ecs.DescribeTaskSetsInput) []wire.Check {
			var checks []wire.Check
			for _, set := range in.TaskSets {
				checks = append(checks, setOwner{in.Service, in.Cluster}.check(c, "DescribeTaskSets", set))
			}
			return checks
		}, wire.Members{Performed: "service cluster taskSets include"}),
		wire.Handle("UpdateTaskSet", a.UpdateTaskSet, func(c *wire.Call, in *ecs.UpdateTaskSetInput) []wire.Check {
			return []wire.Check{setOwner{in.Service, in.Cluster}.check(c, "UpdateTaskSet", aws.ToString(in.TaskSet))}
		}, wire.Members{Performed: "service cluster taskSet scale"}),
		wire.Handle("UpdateServicePrimaryTaskSet", a.UpdateServicePrimaryTaskSet, func(c *wire.Call, in *ecs.UpdateServicePrimaryTaskSetInput) []wire.Check {
			return onService("UpdateServicePrimaryTaskSet", c, in.Service, in.Cluster)
		}, wire.Members{Performed: "service cluster primaryTaskSet"}),
		wire.Handle("DeleteTaskSet", a.DeleteTaskSet, func(c *wire.Call, in *ecs.DeleteTaskSetInput) []wire.Check {
			return []wire.Check{setOwner{in.Service, in.Cluster}.check(c, "DeleteTaskSet", aws.ToString(in.TaskSet))}
		}, wire.Members{Performed: "service cluster taskSet force"}),

		wire.Handle("ListTasks", a.ListTasks, func(c *wire.Call, in *ecs.ListTasksInput) []wire.Check {
			checks := inCluster("ListTasks", c, c.ARN("container-instance/"+clusterName(in.Cluster)+"/*"), in.Cluster) // observed in denials, hosts or not
			checks[0].Wild = true
			return checks
		}, wire.Members{Performed: "cluster containerInstance desiredStatus family launchType maxResults nextToken serviceName startedBy", Refused: "daemonName"}),
		wire.Handle("DescribeTasks", a.DescribeTasks, func(c *wire.Call, in *ecs.DescribeTasksInput) []wire.Check {
			return onTasks(c, "DescribeTasks", in.Cluster, in.Tasks)
		}, wire.Members{Performed: "tasks cluster include"}),
		wire.Handle("RunTask", a.RunTask, func(c *wire.Call, in *ecs.RunTaskInput) []wire.Check {
			resource := definitionResource(c, aws.ToString(in.TaskDefinition))
			a.store.View(func(tx *store.Tx) { // a family is its newest revision
				if d, ok := a.definition(tx, c.Scope, aws.ToString(in.TaskDefinition)); ok {
					resource = *d.TaskDefinitionArn
				}
			})
			checks := inCluster("RunTask", c, resource, in.Cluster)
			serviceKeys{in.TaskDefinition, in.CapacityProviderStrategy, in.NetworkConfiguration, &in.EnableECSManagedTags, &in.EnableExecuteCommand, in.PropagateTags, false, false, len(in.VolumeConfigurations) > 0}.fill(c, checks[0].Context)
			delete(checks[0].Context, "ecs:task-definition") // it is the resource
			checks = append(checks, tagged(c, in.Tags, c.ARN("task/"+clusterName(in.Cluster)+"/*"))...)
			if o := in.Overrides; o != nil {
				checks = append(append(checks, passRole(c, o.TaskRoleArn, tasksService)...), passRole(c, o.ExecutionRoleArn, tasksService)...)
			}
			return checks
		}, wire.Members{
			Performed: "taskDefinition capacityProviderStrategy clientToken cluster count enableECSManagedTags enableExecuteCommand group launchType networkConfiguration overrides placementConstraints placementStrategy propagateTags startedBy tags",
			Refused:   "platformVersion referenceId volumeConfigurations"}),
		wire.Handle("StopTask", a.StopTask, func(c *wire.Call, in *ecs.StopTaskInput) []wire.Check {
			return inCluster("StopTask", c, taskResource(c, aws.ToString(in.Task), in.Cluster), in.Cluster)
		}, wire.Members{Performed: "task cluster reason"}),

		wire.Handle("UpdateTaskProtection", a.UpdateTaskProtection, func(c *wire.Call, in *ecs.UpdateTaskProtectionInput) []wire.Check {
			return onTasks(c, "UpdateTaskProtection", in.Cluster, in.Tasks)
		}, wire.Members{Performed: "cluster expiresInMinutes protectionEnabled tasks"}),
		wire.Handle("GetTaskProtection", a.GetTaskProtection, func(c *wire.Call, in *ecs.GetTaskProtectionInput) []wire.Check {
			if len(in.Tasks) == 0 {
				return onTasks(c, "GetTaskProtection", in.Cluster, []string{"*"})
			}
			return onTasks(c, "GetTaskProtection", in.Cluster, in.Tasks)
		}, wire.Members{Performed: "cluster tasks"}),

		wire.Handle("TagResource", a.TagResource, func(c *wire.Call, in *ecs.TagResourceInput) []wire.Check {
			return one("TagResource", c, aws.ToString(in.ResourceArn))
		}, wire.Members{Performed: "resourceArn tags"}),
		wire.Handle("UntagResource", a.UntagResource, func(c *wire.Call, in *ecs.UntagResourceInput) []wire.Check {
			return one("UntagResource", c, aws.ToString(in.ResourceArn))
		}, wire.Members{Performed: "resourceArn tagKeys"}),
		wire.Handle("ListTagsForResource", a.ListTagsForResource, func(c *wire.Call, in *ecs.ListTagsForResourceInput) []wire.Check {
			return one("ListTagsForResource", c, aws.ToString(in.ResourceArn))
		}, wire.Members{Performed: "resourceArn"}),
	)
	s.Register(a.capacityOps()...)
	s.Register(a.execOp())
	return s
}

// allTypes is what is done with the members of every nested structure.
func allTypes() map[string]wire.Members {
	all := maps.Clone(memberTypes)
	maps.Copy(all, capacityTypes)
	return all
}

func orDefault(names []string) []string {
	if len(names) == 0 {
		return []string{"default"}
	}
	return names
}

// tagged is what it takes to create a resource with tags.
func tagged(c *wire.Call, tags []types.Tag, resource string) []wire.Check {
	return wire.WhenTagged(tags, wire.Check{Action: "ecs:TagResource", Resource: resource, Wild: strings.HasSuffix(resource, "*"), Context: map[string][]string{"ecs:CreateAction": {c.Operation}}})
}

// passDeploymentRoles is what it takes to hand ECS the roles with which it
// shifts a load balancer's weights and invokes functions.
func passDeploymentRoles(c *wire.Call, balancers []types.LoadBalancer, config *types.DeploymentConfiguration) (checks []wire.Check) {
	for _, lb := range balancers {
		if lb.AdvancedConfiguration != nil {
			checks = append(checks, passRole(c, lb.AdvancedConfiguration.RoleArn, ecsService)...)
		}
	}
	if config != nil {
		for _, h := range config.LifecycleHooks {
			checks = append(checks, passRole(c, h.RoleArn, ecsService)...)
		}
	}
	return checks
}

func passRole(c *wire.Call, role *string, to string) []wire.Check {
	if aws.ToString(role) == "" {
		return nil
	}
	resource := *role
	if !arn.Is(resource) { // a name stands for a role of the caller's account
		resource = arn.Scope{Account: c.Scope.Account}.For("iam", "role/"+resource).String()
	}
	return []wire.Check{{Action: "iam:PassRole", Resource: resource, Context: map[string][]string{"iam:PassedToService": {to}}}}
}

func serviceResource(c *wire.Call, nameOrARN string, cluster *string) string {
	if arn.Is(nameOrARN) {
		return nameOrARN
	}
	return serviceARN(c.Scope, clusterName(cluster), nameOrARN)
}

// taskResource is the task that is meant: of the cluster named beside it, as the
// handlers look it up, whatever cluster its ARN speaks of.
func taskResource(c *wire.Call, idOrARN string, cluster *string) string {
	return taskARN(c.Scope, task{Cluster: clusterName(cluster), ID: lastPart(idOrARN)})
}

func definitionResource(c *wire.Call, nameOrARN string) string {
	if arn.Is(nameOrARN) {
		return nameOrARN
	}
	return c.ARN("task-definition/" + nameOrARN)
}

// memberTypes is what is done with the members of nested structures.
var memberTypes = map[string]wire.Members{
	"Tag":                          {Performed: "key value"},
	"LoadBalancer":                 {Performed: "advancedConfiguration containerName containerPort targetGroupArn", Refused: "loadBalancerName"},
	"AdvancedConfiguration":        {Performed: "alternateTargetGroupArn productionListenerRule testListenerRule roleArn"},
	"NetworkConfiguration":         {Recorded: "awsvpcConfiguration"},
	"AwsVpcConfiguration":          {Recorded: "subnets assignPublicIp securityGroups"},
	"CapacityProviderStrategyItem": {Performed: "capacityProvider base weight"},
	"DeploymentController":         {Performed: "type"},
	"Scale":                        {Performed: "unit value"},
	"DeploymentConfiguration": {
		Performed: "alarms bakeTimeInMinutes canaryConfiguration deploymentCircuitBreaker earlySuccessCriteria lifecycleHooks linearConfiguration maximumPercent minimumHealthyPercent strategy"},
	"DeploymentAlarms":                            {Performed: "alarmNames enable rollback"},
	"DeploymentEarlySuccessCriteria":              {Performed: "enable healthyPercent sourceServiceRevisionCleanup"},
	"DeploymentLifecycleHook":                     {Performed: "hookDetails hookTargetArn lifecycleStages roleArn targetType timeoutConfiguration"},
	"DeploymentLifecycleHookTimeoutConfiguration": {Performed: "action timeoutInMinutes"},
	"CanaryConfiguration":                         {Performed: "canaryBakeTimeInMinutes canaryPercent"},
	"LinearConfiguration":                         {Performed: "stepBakeTimeInMinutes stepPercent"},
	"DeploymentCircuitBreaker":                    {Performed: "enable rollback resetOnHealthyTask thresholdConfiguration"},
	"ThresholdConfiguration":                      {Performed: "type value"},
	"ClusterConfiguration":                        {Performed: "executeCommandConfiguration", Refused: "managedStorageConfiguration"},
	"ExecuteCommandConfiguration":                 {Performed: "logConfiguration logging", Refused: "kmsKeyId"},
	"ExecuteCommandLogConfiguration":              {Performed: "cloudWatchLogGroupName", Refused: "cloudWatchEncryptionEnabled s3BucketName s3EncryptionEnabled s3KeyPrefix"},
	"CreatedAt":                                   {Performed: "after before"},
	"ContainerDefinition": {
		Performed: "command cpu dependsOn dnsSearchDomains dnsServers dockerSecurityOptions entryPoint environment essential extraHosts healthCheck hostname image interactive linuxParameters links logConfiguration " +
			"memory memoryReservation mountPoints name portMappings pseudoTerminal readonlyRootFilesystem resourceRequirements restartPolicy secrets startTimeout stopTimeout systemControls ulimits user " +
			"versionConsistency volumesFrom workingDirectory",
		Recorded: "dockerLabels disableNetworking privileged", // the last two as false; true is refused
		Refused:  "credentialSpecs environmentFiles firelensConfiguration repositoryCredentials"},
	"ContainerDependency":               {Performed: "condition containerName"},
	"ContainerRestartPolicy":            {Performed: "enabled ignoredExitCodes restartAttemptPeriod"},
	"HostEntry":                         {Performed: "hostname ipAddress"},
	"LinuxParameters":                   {Performed: "capabilities initProcessEnabled sharedMemorySize tmpfs", Refused: "devices maxSwap swappiness"},
	"KernelCapabilities":                {Performed: "add drop"},
	"Tmpfs":                             {Performed: "containerPath mountOptions size"},
	"MountPoint":                        {Performed: "containerPath readOnly sourceVolume"},
	"VolumeFrom":                        {Performed: "readOnly sourceContainer"},
	"Ulimit":                            {Performed: "hardLimit name softLimit"},
	"Secret":                            {Performed: "name valueFrom"},
	"SystemControl":                     {Performed: "namespace value"},
	"EphemeralStorage":                  {Recorded: "sizeInGiB"},
	"Volume":                            {Performed: "dockerVolumeConfiguration host name", Recorded: "configuredAtLaunch", Refused: "efsVolumeConfiguration fsxWindowsFileServerVolumeConfiguration s3filesVolumeConfiguration"},
	"HostVolumeProperties":              {Performed: "sourcePath"},
	"DockerVolumeConfiguration":         {Performed: "autoprovision driver labels scope", Refused: "driverOpts"},
	"SharingStrategy":                   {Performed: "nvidiaMps"},
	"NvidiaMpsAllocation":               {Performed: "maxComputePercent memory"},
	"PlacementConstraint":               {Performed: "expression type"},
	"TaskDefinitionPlacementConstraint": {Performed: "expression type"},
	"TaskOverride":                      {Performed: "containerOverrides cpu executionRoleArn memory taskRoleArn", Refused: "ephemeralStorage inferenceAcceleratorOverrides"},
	"ContainerOverride":                 {Performed: "command cpu environment memory memoryReservation name resourceRequirements", Refused: "environmentFiles"},
	"HealthCheck":                       {Performed: "command interval retries startPeriod timeout"},
	"KeyValuePair":                      {Performed: "name value"},
	"PortMapping":                       {Performed: "containerPort containerPortRange hostPort protocol", Recorded: "appProtocol name"},
	"LogConfiguration":                  {Performed: "logDriver options", Refused: "secretOptions"},
	"ResourceRequirement":               {Performed: "type value sharingStrategy"},
	"RuntimePlatform":                   {Performed: "cpuArchitecture", Recorded: "operatingSystemFamily"},
}
