package ecsd

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// whole is a definition with everything that EC2 takes and the stage performs.
func whole() *ecs.RegisterTaskDefinitionInput {
	return &ecs.RegisterTaskDefinitionInput{
		Family: new("whole"), NetworkMode: types.NetworkModeBridge, Memory: new("512"), ExecutionRoleArn: new("arn:aws:iam::111111111111:role/execution"), IpcMode: types.IpcModeNone, EnableFaultInjection: new(false),
		Volumes: []types.Volume{{Name: new("scratch")}, {Name: new("host"), Host: &types.HostVolumeProperties{SourcePath: new("/var/lib/x")}, ConfiguredAtLaunch: new(false)},
			{Name: new("kept"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeShared, Autoprovision: new(true), Driver: new("local"), Labels: map[string]string{"a": "b"}}}},
		ContainerDefinitions: []types.ContainerDefinition{
			{Name: new("web"), Image: new("web:1"), Hostname: new("web.local"), Interactive: new(true), PseudoTerminal: new(true), ReadonlyRootFilesystem: new(true), Privileged: new(false), DisableNetworking: new(false),
				StartTimeout: new(int32(2)), StopTimeout: new(int32(300)), DnsServers: []string{"10.0.0.2", "fd00::1"}, DnsSearchDomains: []string{"svc.local"}, ExtraHosts: []types.HostEntry{{Hostname: new("db"), IpAddress: new("10.0.0.9")}},
				DockerSecurityOptions: []string{"no-new-privileges", "no-new-privileges:true"}, SystemControls: []types.SystemControl{{Namespace: new("net.core.somaxconn"), Value: new("1024")}},
				RestartPolicy:   &types.ContainerRestartPolicy{Enabled: new(true), IgnoredExitCodes: []int32{0, 3}, RestartAttemptPeriod: new(int32(60))},
				MountPoints:     []types.MountPoint{{SourceVolume: new("scratch"), ContainerPath: new("/scratch")}, {SourceVolume: new("host"), ContainerPath: new("/host"), ReadOnly: new(true)}, {SourceVolume: new("kept"), ContainerPath: new("/kept")}},
				VolumesFrom:     []types.VolumeFrom{{SourceContainer: new("side"), ReadOnly: new(true)}},
				DependsOn:       []types.ContainerDependency{{ContainerName: new("side"), Condition: types.ContainerConditionHealthy}, {ContainerName: new("init"), Condition: types.ContainerConditionSuccess}},
				Ulimits:         []types.Ulimit{{Name: types.UlimitNameNofile, SoftLimit: 1024, HardLimit: 4096}, {Name: types.UlimitNameMemlock, SoftLimit: -1, HardLimit: -1}},
				LinuxParameters: &types.LinuxParameters{InitProcessEnabled: new(true), SharedMemorySize: new(int32(128)), Capabilities: &types.KernelCapabilities{Add: []string{"NET_ADMIN"}, Drop: []string{"ALL"}}, Tmpfs: []types.Tmpfs{{ContainerPath: new("/run"), Size: 16, MountOptions: []string{"noexec", "mode=1777"}}}},
				Secrets: []types.Secret{{Name: new("A"), ValueFrom: new("/team/a")}, {Name: new("B"), ValueFrom: new("arn:aws:ssm:eu-west-1:111111111111:parameter/team/b")},
					{Name: new("C"), ValueFrom: new("arn:aws:secretsmanager:us-east-1:222222222222:secret:c-AbCdEf:key::")}},
				ResourceRequirements: []types.ResourceRequirement{mps(1024, 50)}},
			{Name: new("side"), Image: new("side:1"), HealthCheck: &types.HealthCheck{Command: []string{"CMD", "true"}}, LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverJsonFile}, ResourceRequirements: []types.ResourceRequirement{mps(1, 0)}},
			{Name: new("init"), Image: new("init:1"), Essential: new(false)},
		},
	}
}

// mps is a share of a GPU; no percentage is none.
func mps(memory, percent int32) types.ResourceRequirement {
	share := types.NvidiaMpsAllocation{Memory: &memory}
	if percent != 0 {
		share.MaxComputePercent = &percent
	}
	return types.ResourceRequirement{Type: types.ResourceTypeGpu, SharingStrategy: &types.SharingStrategyMemberNvidiaMps{Value: share}}
}

type (
	input = *ecs.RegisterTaskDefinitionInput
	part  = types.ContainerDefinition
)

// web is the first container, side the second one.
func ofWeb(change func(*part)) func(input) {
	return func(i input) { change(&i.ContainerDefinitions[0]) }
}
func ofSide(change func(*part)) func(input) {
	return func(i input) { change(&i.ContainerDefinitions[1]) }
}

func inMode(mode types.NetworkMode, change func(*part)) func(input) {
	return func(i input) {
		c := &i.ContainerDefinitions[0]
		c.Hostname, c.DnsServers, c.DnsSearchDomains, c.ExtraHosts, c.SystemControls = nil, nil, nil, nil, nil
		i.NetworkMode = mode
		change(c)
	}
}

func gpu(value string) types.ResourceRequirement {
	return types.ResourceRequirement{Type: types.ResourceTypeGpu, Value: &value}
}

func TestWhatThePartsOfAContainerMustBe(t *testing.T) {
	const here = "Invalid setting for container 'web'. "
	secret := func(name, from string) func(input) {
		return ofWeb(func(c *part) { c.Secrets = []types.Secret{{Name: &name, ValueFrom: &from}} })
	}
	volume := func(v types.Volume) func(input) { return func(i input) { i.Volumes = append(i.Volumes, v) } }
	depends := func(on string, condition types.ContainerCondition) func(input) {
		return ofSide(func(c *part) {
			c.DependsOn = []types.ContainerDependency{{ContainerName: &on, Condition: condition}}
		})
	}
	for _, c := range []struct {
		name   string
		change func(input)
		want   string // empty: it is taken
	}{
		{"as it is", func(input) {}, ""},
		{"what does not exist", depends("x", "START"), "Cannot depend on container + 'x' because it does not exist"},
		{"no condition", depends("init", ""), "Invalid setting for container 'side'. 'condition' of 'dependsOn' must be one of"},
		{"the end of an essential one", depends("web", "COMPLETE"), "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container"},
		{"the success of an essential one", depends("web", "SUCCESS"), "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container"},
		{"the health of one without a check", depends("init", "HEALTHY"), "A dependency container with HEALTHY condition must have health check configured"},
		{"the health of one whose check is none", func(i input) {
			i.ContainerDefinitions[1].HealthCheck.Command = []string{"NONE"}
		}, "A dependency container with HEALTHY condition must have health check configured"},
		{"each other", depends("web", "START"), "'dependsOn', 'links' and 'volumesFrom' must not go in a circle."},
		{"itself", depends("side", "START"), "'dependsOn', 'links' and 'volumesFrom' must not go in a circle."},
		{"each other by volumes", ofSide(func(c *part) { c.VolumesFrom = []types.VolumeFrom{{SourceContainer: new("web")}} }), "'dependsOn', 'links' and 'volumesFrom' must not go in a circle."},

		{"a short start", ofWeb(func(c *part) { c.StartTimeout = new(int32(1)) }), "Granular start timeout on container 'web' must be at least 2 seconds."},
		{"a short stop", ofWeb(func(c *part) { c.StopTimeout = new(int32(1)) }), "Granular stop timeout on container 'web' must be at least 2 seconds."},
		{"a restart or not", ofWeb(func(c *part) { c.RestartPolicy.Enabled = nil }), here + "'enabled' of 'restartPolicy' must be specified."},
		{"a short period", ofWeb(func(c *part) { c.RestartPolicy.RestartAttemptPeriod = new(int32(59)) }), "The 'restartAttemptPeriod' setting for container 'web' must be between 60 and 1800."},
		{"a long period", ofWeb(func(c *part) { c.RestartPolicy.RestartAttemptPeriod = new(int32(1801)) }), "The 'restartAttemptPeriod' setting for container 'web' must be between 60 and 1800."},
		{"fifty exit codes", ofWeb(func(c *part) { c.RestartPolicy.IgnoredExitCodes = make([]int32, 50) }), ""},
		{"one more", ofWeb(func(c *part) { c.RestartPolicy.IgnoredExitCodes = make([]int32, 51) }), "The 'ignoredExitCodes' setting for container 'web' can have at most 50 items."},
		{"no memory", ofWeb(func(c *part) { c.MemoryReservation = new(int32(0)) }), here + "'memoryReservation' must be at least 1 MiB."},
		{"no processors", ofWeb(func(c *part) { c.Cpu = -1 }), here + "'cpu' must not be negative."},

		{"a volume that is not there", ofWeb(func(c *part) { c.MountPoints[0].SourceVolume = new("nope") }), "Unknown volume 'nope'."},
		{"a path", ofWeb(func(c *part) { c.MountPoints[0].ContainerPath = new("scratch") }), here + "'containerPath' of the mount point of volume 'scratch' must be an absolute path, got 'scratch'."},
		{"one path twice", ofWeb(func(c *part) { c.MountPoints[0].ContainerPath = new("/host/") }), here + "'mountPoints' has two volumes at '/host'."},
		{"volumes of nobody", ofWeb(func(c *part) { c.VolumesFrom[0].SourceContainer = new("x") }), "Invalid 'volumesFrom' setting. Unknown container: 'x'."},
		{"a volume without a name", volume(types.Volume{}), "Volume.name should not be null or empty."},
		{"a volume's name", volume(types.Volume{Name: new("a b")}), "Volume.name contains invalid characters: 'a b'."},
		{"two volumes of one name", volume(types.Volume{Name: new("host")}), "Volume names must be unique within a task definition: 'host'."},
		{"a blank directory", volume(types.Volume{Name: new("v"), Host: &types.HostVolumeProperties{SourcePath: new("")}}), "host.sourcePath should not be blank."},
		{"a directory", volume(types.Volume{Name: new("v"), Host: &types.HostVolumeProperties{SourcePath: new("tmp")}}), "host.sourcePath of volume 'v' must be an absolute path, got 'tmp'."},
		{"two kinds of volume", volume(types.Volume{Name: new("v"), Host: &types.HostVolumeProperties{}, DockerVolumeConfiguration: &types.DockerVolumeConfiguration{}}), "Volume 'v' must have one configuration"},
		{"a task's volume", volume(types.Volume{Name: new("v"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeTask}}), ""},
		{"a task's volume that is not made", volume(types.Volume{Name: new("v"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeTask, Autoprovision: new(false)}}), "When 'scope' parameter is 'task', 'autoprovision' must either not be specified or set to 'True'."},
		{"another driver of volumes", volume(types.Volume{Name: new("v"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Driver: new("rexray/ebs")}}), "Serin performs the volume driver local; 'rexray/ebs' of volume 'v' is not performed."},
		{"a volume made at launch", volume(types.Volume{Name: new("v"), ConfiguredAtLaunch: new(true)}), "Serin does not perform configuredAtLaunch of volume 'v'"},

		{"a limit above its limit", ofWeb(func(c *part) { c.Ulimits[0].SoftLimit = 4097 }), here + "The softLimit of ulimit 'nofile' must be less than or equal to its hardLimit."},
		{"none above a limit", ofWeb(func(c *part) { c.Ulimits[0].SoftLimit = -1 }), here + "The softLimit of ulimit 'nofile' must be less than or equal to its hardLimit."},
		{"a limit of less than none", ofWeb(func(c *part) { c.Ulimits[1].HardLimit = -2 }), here + "The limits of ulimit 'memlock' must not be negative"},
		{"a limit twice", ofWeb(func(c *part) { c.Ulimits[1].Name = "nofile" }), here + "'ulimits' has 'nofile' twice."},
		{"a limit of nothing", ofWeb(func(c *part) { c.Ulimits[0].Name = "" }), here + "'name' of a ulimit must be specified."},
		{"a capability", ofWeb(func(c *part) { c.LinuxParameters.Capabilities.Drop = []string{"CAP_KILL"} }), here + "'capabilities' has 'CAP_KILL', which is no capability."},
		{"a capability of Managed Instances", func(i input) {
			ofWeb(func(c *part) { c.LinuxParameters.Capabilities.Add = []string{"BPF"} })(i)
			i.RequiresCompatibilities = []types.Compatibility{types.CompatibilityEc2}
		}, "BPF is not allowed on EC2."},
		{"shared memory", ofWeb(func(c *part) { c.LinuxParameters.SharedMemorySize = new(int32(-1)) }), here + "'sharedMemorySize' must not be negative."},
		{"a tmpfs of no size", ofWeb(func(c *part) { c.LinuxParameters.Tmpfs[0].Size = 0 }), "The container has an invalid tmpfs size value specified. It must be a non-zero, non-negative integer."},
		{"a tmpfs nowhere", ofWeb(func(c *part) { c.LinuxParameters.Tmpfs[0].ContainerPath = nil }), here + "'containerPath' of a tmpfs must be an absolute path"},
		{"an option of a tmpfs", ofWeb(func(c *part) { c.LinuxParameters.Tmpfs[0].MountOptions = []string{"fast"} }), here + "'mountOptions' of the tmpfs at '/run' has 'fast'"},

		{"a name of the host", ofWeb(func(c *part) { c.Hostname = new("a_b") }), here + "'hostname' contains invalid characters or is too long: 'a_b'."},
		{"an address of a host", ofWeb(func(c *part) { c.ExtraHosts[0].IpAddress = new("db") }), here + "'ipAddress' of the extra host 'db' must be an address, got 'db'."},
		{"a host without a name", ofWeb(func(c *part) { c.ExtraHosts[0].Hostname = nil }), here + "'hostname' of an extra host contains invalid characters: ''."},
		{"a name server", ofWeb(func(c *part) { c.DnsServers = []string{"ns"} }), here + "'dnsServers' must have addresses, got 'ns'."},
		{"a domain", ofWeb(func(c *part) { c.DnsSearchDomains = []string{"a b"} }), here + "'dnsSearchDomains' has a name with invalid characters: 'a b'."},
		{"a network of its own", inMode("awsvpc", func(*part) {}), ""},
		{"a name in a network of its own", inMode("awsvpc", func(c *part) { c.Hostname = new("web") }), "hostname is not supported on container when networkMode=awsvpc."},
		{"hosts in a network of its own", inMode("awsvpc", func(c *part) { c.ExtraHosts = make([]types.HostEntry, 1) }), "Extra hosts are not supported on container when networkMode=awsvpc."},
		{"name servers in a network of its own", inMode("awsvpc", func(c *part) { c.DnsServers = []string{"10.0.0.2"} }), "DNS servers are not supported on container when networkMode=awsvpc."},
		{"domains in a network of its own", inMode("awsvpc", func(c *part) { c.DnsSearchDomains = []string{"a"} }), "DNS search domains are not supported on container when networkMode=awsvpc."},
		{"no network in a network of its own", inMode("awsvpc", func(c *part) { c.DisableNetworking = new(true) }), "Disable Networking is not supported on container when networkMode=awsvpc."},
		{"controls of the host's network", inMode("host", func(c *part) {
			c.SystemControls = []types.SystemControl{{Namespace: new("net.ipv4.tcp_syncookies"), Value: new("1")}}
		}), here + "The system control 'net.ipv4.tcp_syncookies' is not supported when networkMode=host."},
		{"a port without a network", inMode("none", func(c *part) { c.PortMappings = []types.PortMapping{{ContainerPort: new(int32(80))}} }), "When networkMode=none, port mappings are not supported, and container 'web' has one."},
		{"no network at all", inMode("none", func(*part) {}), ""},

		{"an option of security", ofWeb(func(c *part) { c.DockerSecurityOptions = []string{"seccomp:unconfined"} }), here + "'dockerSecurityOptions' has 'seccomp:unconfined'."},
		{"a profile of AppArmor", ofWeb(func(c *part) { c.DockerSecurityOptions = []string{"apparmor:x"} }), "Serin performs the security option no-new-privileges; 'apparmor:x' of container 'web' is not performed."},
		{"new privileges", ofWeb(func(c *part) { c.DockerSecurityOptions = []string{"no-new-privileges:false"} }), "'no-new-privileges:false' of container 'web' is not performed"},
		{"a control of the kernel", ofWeb(func(c *part) { c.SystemControls[0].Namespace = new("vm.swappiness") }), here + "'systemControls' has the namespace 'vm.swappiness'."},
		{"a control that climbs", ofWeb(func(c *part) { c.SystemControls[0].Namespace = new("net./../kernel") }), here + "'systemControls' has the namespace"},
		{"a control without a value", ofWeb(func(c *part) { c.SystemControls[0].Value = nil }), here + "'value' of the system control 'net.core.somaxconn' must be specified."},
		{"a control of queues", ofWeb(func(c *part) { c.SystemControls[0].Namespace = new("fs.mqueue.msg_max") }), "Serin performs system controls of the network; 'fs.mqueue.msg_max' of container 'web' is not performed."},

		{"a secret twice", ofWeb(func(c *part) { c.Secrets[1].Name = new("A") }), "The secret name must be unique and not shared with any new or existing environment variables set on the container, such as 'A'."},
		{"a secret that is a variable, too", ofWeb(func(c *part) { c.Environment = []types.KeyValuePair{{Name: new("C")}} }), "such as 'C'."},
		{"a secret without a name", secret("", "x"), here + "'name' of a secret must be that of an environment variable, got ''."},
		{"a secret of nobody", secret("A", ""), here + "'valueFrom' of the secret 'A' must be an ARN, or the name of a parameter, got ''."},
		{"a secret of another service", secret("A", "arn:aws:s3:::bucket/key"), here + "'valueFrom' of the secret 'A' must be the ARN of a Systems Manager parameter or of a Secrets Manager secret"},
		{"a secret's halves", secret("A", "arn:aws:secretsmanager:us-east-1:111111111111:secret:a:key"), here + "'valueFrom' of the secret 'A' must be the ARN"},
		{"a parameter of another account", secret("A", "arn:aws:ssm:us-east-1:222222222222:parameter/a"), "The Systems Manager parameter ARN has a different account ID than the current account. The current account ID is 111111111111 and the ARN account ID is 222222222222. Cross-account access for ARNs is not currently supported."},
		{"secrets without a role", func(i input) { i.ExecutionRoleArn = nil }, "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'."},

		{"a GPU and a share", ofWeb(func(c *part) { c.ResourceRequirements[0].Value = new("1") }), here + "A resource requirement has 'value' or 'sharingStrategy', not both."},
		{"neither", ofWeb(func(c *part) { c.ResourceRequirements[0].SharingStrategy = nil }), here + "'value' of the resource requirement GPU must be specified."},
		{"some share, some do not", ofSide(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{gpu("1")} }), here + "All containers of a task must share GPUs or none, and 'side' asks for whole ones."},
		{"a share of no memory", ofWeb(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{mps(0, 1)} }), here + "'memory' of 'nvidiaMps' must be at least 1 MiB."},
		{"a share of too much", ofWeb(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{mps(1, 101)} }), here + "'maxComputePercent' of 'nvidiaMps' must be between 1 and 100."},
		{"a share of something else", ofWeb(func(c *part) { c.ResourceRequirements[0].Type = "NeuronDevice" }), here + "'sharingStrategy' is of the resource type GPU, not of NeuronDevice."},
		{"a resource of no type", ofWeb(func(c *part) { c.ResourceRequirements[0].Type = "" }), here + "'type' of a resource requirement must be specified."},
		{"whole GPUs", requirements(gpu("1"), gpu("2")), ""},
		{"no number of GPUs", requirements(gpu("0.3"), gpu("1")), "Invalid 'resourceRequirements' setting for container 'web': the GPU value '0.3' must be a whole number, or one of 0.125, 0.25, 0.5."},
		{"two fractions", requirements(gpu("0.5"), gpu("0.25")), "Invalid setting for container 'side'. A container with a fraction of a GPU must be the only one of its task with a GPU resource requirement; there are web, side."},
		{"a fraction beside a whole one", requirements(gpu("0.5"), gpu("1")), here + "A container with a fraction of a GPU must be the only one of its task with a GPU resource requirement; there are web, side."},
		{"a fraction beside a share", requirements(gpu("0.5"), mps(1, 0)), "Invalid setting for container 'side'. All containers of a task must share GPUs or none, and 'web' asks for whole ones."},
		{"a fraction", func(i input) {
			i.ContainerDefinitions[0].ResourceRequirements, i.ContainerDefinitions[1].ResourceRequirements = []types.ResourceRequirement{gpu("0.5")}, nil
		}, ""},
		{"shares", func(input) {}, ""},
		{"two shares of one container", ofWeb(func(c *part) { c.ResourceRequirements = append(c.ResourceRequirements, mps(1, 0)) }), here + "A container can have one 'sharingStrategy'."},
		{"all GPUs", requirements(gpu("ALL"), gpu("1")), "Serin performs numbers of GPUs; 'ALL' of container 'web' is not performed."},
		{"a Neuron device", requirements(types.ResourceRequirement{Type: types.ResourceTypeNeuronDevice, Value: new("ALL")}, gpu("1")), "Serin performs the resource requirement GPU; 'NeuronDevice' of container 'web' is not performed."},

		{"the host's processes", func(i input) { i.PidMode = types.PidModeHost }, "Serin does not perform the pidMode 'host'"},
		{"the host's memory", func(i input) { i.IpcMode = types.IpcModeHost }, "Serin does not perform the ipcMode 'host'"},
		{"faults", func(i input) { i.EnableFaultInjection = new(true) }, "Serin does not perform enableFaultInjection"},
		{"privileges", ofWeb(func(c *part) { c.Privileged = new(true) }), "Serin does not perform privileged, which container 'web' has"},
		{"no network for one", ofWeb(func(c *part) { c.DisableNetworking = new(true) }), "Serin does not perform disableNetworking, which container 'web' has."},
		{"eleven constraints", func(i input) {
			i.PlacementConstraints = slices.Repeat([]types.TaskDefinitionPlacementConstraint{{Type: "memberOf", Expression: new("attribute:a exists")}}, 11)
		}, "A task definition can have at most 10 placement constraints."},
		{"room on EC2", func(i input) { i.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 30} }, "Tasks using the EC2 launch type do not support EphemeralStorage."},
		{"little room", func(i input) { i.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 20} }, "EphemeralStorage size should be at least 21"},
		{"much room", func(i input) { i.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 201} }, "EphemeralStorage size should be at most 200"},
	} {
		i := whole()
		c.change(i)
		if err := checkDefinition("111111111111", i); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func requirements(web, side types.ResourceRequirement) func(input) {
	return func(i input) {
		i.ContainerDefinitions[0].ResourceRequirements, i.ContainerDefinitions[1].ResourceRequirements = []types.ResourceRequirement{web}, []types.ResourceRequirement{side}
	}
}

// What a kind of capacity does not take is refused where it is required, and the
// definition is not compatible with the kind where it is not.
func TestWhatEachKindOfCapacityTakes(t *testing.T) {
	fargate, managed, anywhere, ec2 := types.CompatibilityFargate, types.CompatibilityManagedInstances, types.CompatibilityExternal, types.CompatibilityEc2
	linux := func(p types.LinuxParameters) func(input) {
		return ofWeb(func(c *part) { c.LinuxParameters = &p })
	}
	volume := func(v types.Volume) func(input) {
		return func(i input) { v.Name = new("v"); i.Volumes = []types.Volume{v} }
	}
	host := func(change func(*part)) func(input) {
		return func(i input) { i.NetworkMode = types.NetworkModeHost; change(&i.ContainerDefinitions[0]) }
	}
	all := []types.Compatibility{ec2, fargate, managed}
	for _, c := range []struct {
		name   string
		change func(input)
		kind   types.Compatibility
		want   string // empty: it is taken
		left   []types.Compatibility
	}{
		{"as it is", func(input) {}, fargate, "", all},
		{"room", func(i input) { i.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 200} }, fargate, "", []types.Compatibility{fargate}},
		{"room", func(i input) { i.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 21} }, ec2, "Tasks using the EC2 launch type do not support EphemeralStorage.", []types.Compatibility{fargate}},
		{"room", func(i input) { i.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 21} }, managed, "Managed Instances compatible task definitions do not support ephemeralStorage", []types.Compatibility{fargate}},
		{"a tmpfs", linux(types.LinuxParameters{Tmpfs: []types.Tmpfs{{ContainerPath: new("/t"), Size: 1}}, InitProcessEnabled: new(true)}), fargate, "", all},
		{"shared memory", linux(types.LinuxParameters{SharedMemorySize: new(int32(1))}), fargate, "Fargate compatible task definitions do not support sharedMemorySize", []types.Compatibility{ec2}},
		{"shared memory", linux(types.LinuxParameters{SharedMemorySize: new(int32(1))}), managed, "Managed Instances compatible task definitions do not support sharedMemorySize, which container 'web' has", []types.Compatibility{ec2}},
		{"tracing", linux(types.LinuxParameters{Capabilities: &types.KernelCapabilities{Add: []string{"SYS_PTRACE"}}}), fargate, "", all},
		{"the network's administration", linux(types.LinuxParameters{Capabilities: &types.KernelCapabilities{Add: []string{"NET_ADMIN"}}}), fargate, "NET_ADMIN is not allowed on Fargate.", []types.Compatibility{ec2, managed}},
		{"BPF", linux(types.LinuxParameters{Capabilities: &types.KernelCapabilities{Add: []string{"BPF"}}}), managed, "", []types.Compatibility{managed}},
		{"security", ofWeb(func(c *part) { c.DockerSecurityOptions = []string{"no-new-privileges"} }), fargate, "Fargate compatible task definitions do not support dockerSecurityOptions", []types.Compatibility{ec2}},
		{"a slow start", ofWeb(func(c *part) { c.StartTimeout = new(int32(121)) }), fargate, "must have a container start timeout of less than 120 seconds", []types.Compatibility{ec2, managed}},
		{"a slow stop", ofWeb(func(c *part) { c.StopTimeout = new(int32(121)) }), fargate, "Tasks using the Fargate launch type must have a container stop timeout of less than 120 seconds.", []types.Compatibility{ec2, managed}},
		{"two minutes", ofWeb(func(c *part) { c.StopTimeout, c.StartTimeout = new(int32(120)), new(int32(120)) }), fargate, "", all},
		{"privileges", ofWeb(func(c *part) { c.Privileged = new(true) }), fargate, "Fargate requires that the ‘privileged’ setting be ‘false’ at the container level.", []types.Compatibility{ec2, managed}},
		{"one memory", func(i input) { i.IpcMode = types.IpcModeTask }, fargate, "Fargate compatible task definitions do not support ipcMode", []types.Compatibility{ec2}},
		{"one memory", func(i input) { i.IpcMode = types.IpcModeTask }, managed, "Managed Instances compatible task definitions do not support ipcMode", []types.Compatibility{ec2}},
		{"one tree of processes", func(i input) { i.PidMode = types.PidModeTask }, fargate, "", all},
		{"the host's processes", func(i input) { i.PidMode = types.PidModeHost }, fargate, "Tasks using the Fargate launch type do not support pidMode 'host'. The supported value for pidMode is 'task'.", []types.Compatibility{ec2, managed}},
		{"a directory", volume(types.Volume{}), fargate, "", all},
		{"the host's directory", volume(types.Volume{Host: &types.HostVolumeProperties{SourcePath: new("/etc")}}), fargate, "Fargate compatible task definitions do not support sourcePath", []types.Compatibility{ec2}},
		{"the host's directory", volume(types.Volume{Host: &types.HostVolumeProperties{SourcePath: new("/variety")}}), managed, "Managed Instances only support a sourcePath under /var or /tmp, not '/variety' of volume 'v'.", []types.Compatibility{ec2}},
		{"the host's directory that can be written", volume(types.Volume{Host: &types.HostVolumeProperties{SourcePath: new("/var/x")}}), managed, "", []types.Compatibility{ec2, managed}},
		{"Docker's volume", volume(types.Volume{DockerVolumeConfiguration: &types.DockerVolumeConfiguration{}}), fargate, "Fargate compatible task definitions do not support dockerVolumeConfiguration", []types.Compatibility{ec2}},
		{"Docker's volume", volume(types.Volume{DockerVolumeConfiguration: &types.DockerVolumeConfiguration{}}), managed, "Managed Instances compatible task definitions do not support dockerVolumeConfiguration", []types.Compatibility{ec2}},
		{"files", ofWeb(func(c *part) { c.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverJsonFile} }), managed, "", []types.Compatibility{ec2, managed}},
		{"a log of the system's", ofWeb(func(c *part) { c.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverSyslog} }), managed, "syslog is not a valid log driver. Must be one of [awslogs,splunk,awsfirelens,json-file]", []types.Compatibility{ec2}},
		{"a host's name", host(func(c *part) { c.Hostname = new("web") }), managed, "Managed Instances compatible task definitions do not support hostname, which container 'web' has", []types.Compatibility{anywhere, ec2}},
		{"name servers", host(func(c *part) { c.DnsServers = []string{"10.0.0.2"} }), managed, "do not support dnsServers", []types.Compatibility{anywhere, ec2}},
		{"domains", host(func(c *part) { c.DnsSearchDomains = []string{"a"} }), managed, "do not support dnsSearchDomains", []types.Compatibility{anywhere, ec2}},
		{"hosts", host(func(c *part) { c.ExtraHosts = []types.HostEntry{{Hostname: new("a"), IpAddress: new("10.0.0.2")}} }), managed, "do not support extraHosts", []types.Compatibility{anywhere, ec2}},
		{"a share of a GPU", host(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{mps(1, 0)} }), anywhere, "The EXTERNAL launch type does not support 'sharingStrategy', which container 'web' has.", []types.Compatibility{ec2, managed}},
		{"a share of a GPU", ofWeb(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{mps(1, 0)} }), fargate, "Tasks using the Fargate launch type do not support GPU resource requirements.", []types.Compatibility{ec2, managed}},
		{"a fraction of a GPU", host(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{gpu("0.25")} }), anywhere, "The EXTERNAL launch type does not support fractions of a GPU, which container 'web' has.", []types.Compatibility{ec2, managed}},
		{"a fraction of a GPU", ofWeb(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{gpu("0.25")} }), fargate, "Tasks using the Fargate launch type do not support GPU resource requirements.", []types.Compatibility{ec2, managed}},
		{"a fraction of a GPU", ofWeb(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{gpu("0.25")} }), managed, "", []types.Compatibility{ec2, managed}},
		{"a share of a GPU", ofWeb(func(c *part) { c.ResourceRequirements = []types.ResourceRequirement{mps(1, 0)} }), managed, "", []types.Compatibility{ec2, managed}},
		{"room anywhere", func(i input) {
			i.NetworkMode = types.NetworkModeHost
			i.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 21}
		}, anywhere, "Tasks using the EXTERNAL launch type do not support EphemeralStorage.", nil},
		{"a tenth of a processor", func(i input) { i.Cpu = new("102") }, ec2, "Invalid 'cpu' setting for task.", []types.Compatibility{managed}},
		{"193 processors", func(i input) { i.Cpu = new("193 vCPU") }, anywhere, "does not support network mode 'awsvpc'", []types.Compatibility{managed}},
		{"a small Windows", func(i input) {
			i.RuntimePlatform = &types.RuntimePlatform{OperatingSystemFamily: types.OSFamilyWindowsServer2022Core}
		}, fargate, "No Fargate configuration exists for given values: 256 CPU, 512 memory.", []types.Compatibility{ec2}},
		{"Windows", func(i input) {
			i.RuntimePlatform = &types.RuntimePlatform{OperatingSystemFamily: types.OSFamilyWindowsServer2022Core}
		}, managed, "Managed Instances only support the operating system family LINUX.", []types.Compatibility{ec2}},
		{"a constraint on an attribute of one's own", func(i input) {
			i.PlacementConstraints = []types.TaskDefinitionPlacementConstraint{{Type: "memberOf", Expression: new("attribute:node==node002")}}
		}, managed, "Managed Instances only support placement constraints on ecs.subnet-id, ecs.availability-zone, ecs.instance-type, ecs.cpu-architecture, not on 'node'.", []types.Compatibility{ec2}},
	} {
		t.Run(fmt.Sprintf("%s on %s", c.name, c.kind), func(t *testing.T) {
			i := web()
			c.change(i)
			got := compatibilities(i)
			if slices.Sort(got); !slices.Equal(got, sorted(c.left)) {
				t.Errorf("it is compatible with %v, want %v", got, c.left)
			}
			i.RequiresCompatibilities = []types.Compatibility{c.kind}
			if err := checkDefinition("111111111111", i); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func sorted(list []types.Compatibility) []types.Compatibility {
	out := slices.Clone(list)
	slices.Sort(out)
	return out
}

// A row is kept as JSON, and one that an earlier release wrote is read, too.
func TestADefinitionOutlivesAStage(t *testing.T) {
	was := definition{taskDefinition(whole())}
	raw, err := json.Marshal(was)
	if err != nil {
		t.Fatal(err)
	}
	var back, earlier definition
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, was) {
		t.Errorf("it was\n%+v\nand is\n%+v", was, back)
	}
	if raw, err = json.Marshal(taskDefinition(web())); err == nil {
		err = json.Unmarshal(raw, &earlier)
	}
	if err != nil || !reflect.DeepEqual(earlier.TaskDefinition, taskDefinition(web())) {
		t.Errorf("an earlier one is %+v, %v", earlier, err)
	}
}
