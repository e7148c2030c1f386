package ecsd

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// What each kind of capacity asks of a definition. The texts of Fargate and of
// EC2's ephemeral storage are observed, the others guessed in their form.

// compatible is the rules by kind of capacity.
var compatible = map[types.Compatibility]func(*ecs.RegisterTaskDefinitionInput) error{
	types.CompatibilityEc2:              checkEC2,
	types.CompatibilityFargate:          checkFargate,
	types.CompatibilityExternal:         checkAnywhere,
	types.CompatibilityManagedInstances: checkManaged,
}

// compatibilities is every kind of capacity whose rules the content meets;
// observed: EC2 whatever is required. AWS keeps no order.
func compatibilities(in *ecs.RegisterTaskDefinitionInput) (list []types.Compatibility) {
	for _, c := range []types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2, types.CompatibilityManagedInstances, types.CompatibilityFargate} {
		if compatible[c](in) == nil {
			list = append(list, c)
		}
	}
	return list
}

// checkKinds asks those kinds that are required. Where none is, and none would take
// the definition, EC2 says why, guessed.
func checkKinds(in *ecs.RegisterTaskDefinitionInput) error {
	for _, c := range in.RequiresCompatibilities {
		if err := compatible[c](in); err != nil {
			return err
		}
	}
	if len(in.RequiresCompatibilities) == 0 && len(compatibilities(in)) == 0 {
		return checkEC2(in)
	}
	return nil
}

func checkEC2(in *ecs.RegisterTaskDefinitionInput) error {
	if in.EphemeralStorage != nil {
		return client("Tasks using the EC2 launch type do not support EphemeralStorage.")
	}
	if err := checkProcessors(in); err != nil {
		return err
	}
	return checkAdded(in, "EC2", func(name string) bool { return name != "BPF" })
}

// checkProcessors: from an eighth of a processor to 192, documented.
func checkProcessors(in *ecs.RegisterTaskDefinitionInput) error {
	if cpu := units(in.Cpu, "vcpu"); in.Cpu != nil && (cpu < 128 || cpu > 192*1024) {
		return wrongSize("cpu")
	}
	return nil
}

func checkAnywhere(in *ecs.RegisterTaskDefinitionInput) error {
	named := false
	for _, c := range in.ContainerDefinitions {
		for _, p := range c.PortMappings {
			named = named || aws.ToString(p.Name) != "" || p.AppProtocol != ""
		}
		for _, r := range c.ResourceRequirements { // documented of both
			switch {
			case mpsOf(r) != nil:
				return client("The EXTERNAL launch type does not support 'sharingStrategy', which container '%s' has.", *c.Name)
			case slices.Contains(fractions, aws.ToString(r.Value)):
				return client("The EXTERNAL launch type does not support fractions of a GPU, which container '%s' has.", *c.Name)
			}
		}
	}
	switch {
	case in.NetworkMode == types.NetworkModeAwsvpc || named:
		return client("The EXTERNAL launch type does not support network mode 'awsvpc', nor names and application protocols of port mappings.")
	case in.EphemeralStorage != nil:
		return client("Tasks using the EXTERNAL launch type do not support EphemeralStorage.")
	}
	if err := checkProcessors(in); err != nil {
		return err
	}
	return checkAdded(in, "the EXTERNAL launch type", func(name string) bool { return name != "BPF" })
}

// checkAdded refuses capabilities that a kind does not add; its text is observed of
// Fargate.
func checkAdded(in *ecs.RegisterTaskDefinitionInput, kind string, takes func(string) bool) error {
	for _, c := range in.ContainerDefinitions {
		if c.LinuxParameters == nil || c.LinuxParameters.Capabilities == nil {
			continue
		}
		for _, name := range c.LinuxParameters.Capabilities.Add {
			if !takes(name) {
				return client("%s is not allowed on %s.", name, kind)
			}
		}
	}
	return nil
}

// checkManaged is what Managed Instances ask, documented on the page of their
// parameters, which says that paths of the host must be under /var or /tmp. Since
// January 2026 they have tmpfs.
func checkManaged(in *ecs.RegisterTaskDefinitionInput) error {
	switch {
	case in.NetworkMode != types.NetworkModeAwsvpc && in.NetworkMode != types.NetworkModeHost:
		return client("Managed Instances only support network modes 'awsvpc' and 'host'.")
	case in.EphemeralStorage != nil:
		return notManaged("ephemeralStorage", "")
	case in.IpcMode != "":
		return notManaged("ipcMode", "")
	case windows(in):
		return client("Managed Instances only support the operating system family LINUX.")
	}
	for _, v := range in.Volumes {
		if v.DockerVolumeConfiguration != nil {
			return notManaged("dockerVolumeConfiguration", "")
		}
		if path := sourcePath(v); path != "" && !under(path, "/var") && !under(path, "/tmp") {
			return client("Managed Instances only support a sourcePath under /var or /tmp, not '%s' of volume '%s'.", path, aws.ToString(v.Name))
		}
	}
	for _, c := range in.ContainerDefinitions {
		for _, not := range []struct {
			member string
			set    bool
		}{
			{"dnsServers", len(c.DnsServers) > 0}, {"dnsSearchDomains", len(c.DnsSearchDomains) > 0}, {"dockerSecurityOptions", len(c.DockerSecurityOptions) > 0},
			{"extraHosts", len(c.ExtraHosts) > 0}, {"hostname", aws.ToString(c.Hostname) != ""}, {"sharedMemorySize", c.LinuxParameters != nil && c.LinuxParameters.SharedMemorySize != nil},
		} {
			if not.set {
				return notManaged(not.member, *c.Name)
			}
		}
		if err := checkDriver(c, "awslogs", "splunk", "awsfirelens", "json-file"); err != nil {
			return err
		}
	}
	for _, c := range in.PlacementConstraints {
		for _, m := range attributeNames.FindAllStringSubmatch(aws.ToString(c.Expression), -1) {
			if !slices.Contains(managedAttributes, m[1]) {
				return client("Managed Instances only support placement constraints on %s, not on '%s'.", strings.Join(managedAttributes, ", "), m[1])
			}
		}
	}
	return nil
}

func notManaged(member, container string) error {
	if container != "" {
		return client("Managed Instances compatible task definitions do not support %s, which container '%s' has", member, container)
	}
	return client("Managed Instances compatible task definitions do not support %s", member)
}

// checkDriver refuses a log driver that a kind has not, observed.
func checkDriver(c types.ContainerDefinition, has ...string) error {
	if l := c.LogConfiguration; l != nil && !slices.Contains(has, string(l.LogDriver)) {
		return client("%s is not a valid log driver. Must be one of [%s]", l.LogDriver, strings.Join(has, ","))
	}
	return nil
}

func windows(in *ecs.RegisterTaskDefinitionInput) bool {
	return in.RuntimePlatform != nil && strings.HasPrefix(string(in.RuntimePlatform.OperatingSystemFamily), "WINDOWS")
}

// under says whether a path is a directory or in it.
func under(path, directory string) bool {
	return path == directory || strings.HasPrefix(path, directory+"/")
}

// sourcePath is the host's directory that a volume is, if it is one.
func sourcePath(v types.Volume) string {
	if v.Host == nil {
		return ""
	}
	return aws.ToString(v.Host.SourcePath)
}

// fargateMemory is the memory in MiB that goes with each cpu, documented.
var fargateMemory = map[int]struct{ low, high, step int }{
	256: {512, 2048, 512}, 512: {1024, 4096, 1024}, 1024: {2048, 8192, 1024}, 2048: {4096, 16384, 1024},
	4096: {8192, 30720, 1024}, 8192: {16384, 61440, 4096}, 16384: {32768, 122880, 8192},
}

// fargatePair says whether Fargate has a task of the size. 32 processors come with
// 60, 120 or 244 GB.
func fargatePair(cpu, memory int) bool {
	if cpu == 32768 {
		return slices.Contains([]int{61440, 122880, 249856}, memory)
	}
	m, ok := fargateMemory[cpu]
	return ok && memory >= m.low && memory <= m.high && (memory-m.low)%m.step == 0 && (cpu != 256 || memory != 1536)
}

func checkFargate(in *ecs.RegisterTaskDefinitionInput) error {
	cpu, memory := units(in.Cpu, "vcpu"), units(in.Memory, "gb")
	switch {
	case in.NetworkMode != types.NetworkModeAwsvpc:
		return client("Fargate only supports network mode ‘awsvpc’.")
	case in.Cpu == nil:
		return client("Fargate requires that 'cpu' be defined at the task level.")
	case in.Memory == nil:
		return client("Fargate requires that 'memory' be defined at the task level.")
	case !fargatePair(cpu, memory), windows(in) && (cpu < 1024 || cpu > 4096):
		return client("No Fargate configuration exists for given values: %d CPU, %d memory. See the Amazon ECS documentation for the valid values.", cpu, memory)
	case len(in.PlacementConstraints) > 0:
		return client("Fargate compatible task definitions do not support constraints")
	case in.IpcMode != "":
		return client("Fargate compatible task definitions do not support ipcMode")
	case in.PidMode == types.PidModeHost:
		return client("Tasks using the Fargate launch type do not support pidMode 'host'. The supported value for pidMode is 'task'.")
	}
	for _, v := range in.Volumes {
		switch {
		case v.DockerVolumeConfiguration != nil:
			return client("Fargate compatible task definitions do not support dockerVolumeConfiguration")
		case sourcePath(v) != "":
			return client("Fargate compatible task definitions do not support sourcePath")
		}
	}
	for _, c := range in.ContainerDefinitions {
		if err := checkOnFargate(in, c); err != nil {
			return err
		}
	}
	return checkAdded(in, "Fargate", func(name string) bool { return name == "SYS_PTRACE" })
}

// longest is the most seconds that Fargate waits for a container, documented.
const longest = 120

func checkOnFargate(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	l := c.LogConfiguration
	if err := checkDriver(c, "awslogs", "splunk", "awsfirelens"); err != nil {
		return err
	}
	switch {
	case aws.ToBool(c.Privileged):
		return client("Fargate requires that the ‘privileged’ setting be ‘false’ at the container level.")
	case len(c.ResourceRequirements) > 0:
		return client("Tasks using the Fargate launch type do not support GPU resource requirements.")
	case len(c.DockerSecurityOptions) > 0:
		return client("Fargate compatible task definitions do not support dockerSecurityOptions")
	case c.LinuxParameters != nil && c.LinuxParameters.SharedMemorySize != nil:
		return client("Fargate compatible task definitions do not support sharedMemorySize")
	case aws.ToInt32(c.StopTimeout) > longest: // observed by others
		return client("Tasks using the Fargate launch type must have a container stop timeout of less than 120 seconds.")
	case aws.ToInt32(c.StartTimeout) > longest:
		return client("Tasks using the Fargate launch type must have a container start timeout of less than 120 seconds.")
	case in.ExecutionRoleArn == nil && privateECR.MatchString(aws.ToString(c.Image)):
		return client("Fargate requires task definition to have execution role ARN to support ECR images.")
	case in.ExecutionRoleArn == nil && l != nil:
		return client("Fargate requires task definition to have execution role ARN to support log driver %s.", l.LogDriver)
	case l != nil && l.LogDriver == types.LogDriverAwslogs && l.Options["awslogs-stream-prefix"] == "":
		return client("Fargate requires log configuration options to include awslogs-stream-prefix to support log driver awslogs.")
	}
	return nil
}
