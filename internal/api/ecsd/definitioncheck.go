package ecsd

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// What RegisterTaskDefinition refuses, in the words that were observed on AWS. The
// first fault is told, and the order of a container's memory before Fargate's
// sizes is observed, too. Texts about Managed Instances and ECS Anywhere, about
// stopTimeout and the GPU's value are guessed.

var (
	imageNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]*$`)
	privateECR = regexp.MustCompile(`^\d{12}\.dkr\.ecr\.`)
)

func checkDefinition(in *ecs.RegisterTaskDefinitionInput) error {
	family := aws.ToString(in.Family)
	switch {
	case family == "":
		return client("Family should not be null or empty.")
	case !familyName.MatchString(family):
		return client("Family contains invalid characters.")
	case len(in.ContainerDefinitions) == 0:
		return client("Container list cannot be empty.")
	case len(in.ContainerDefinitions) > 10:
		return client("Too many containers.")
	}
	for _, size := range []struct {
		name string
		text *string
	}{{"cpu", normalSize(in.Cpu, 1024, "vcpu")}, {"memory", normalSize(in.Memory, 1024, "gb")}} {
		if n, err := strconv.Atoi(aws.ToString(size.text)); size.text != nil && (err != nil || n <= 0) {
			return client("Invalid '%s' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.", size.name)
		}
	}
	names, essential := map[string]bool{}, false
	for _, c := range in.ContainerDefinitions {
		if err := checkContainer(in, c); err != nil {
			return err
		}
		if names[*c.Name] {
			return client("Container names must be unique within a task definition.")
		}
		names[*c.Name] = true
		essential = essential || c.Essential == nil || *c.Essential
	}
	if !essential {
		return client("Task definition doesn't have any essential container.")
	}
	for _, check := range []func(*ecs.RegisterTaskDefinitionInput) error{checkSums, checkPorts, func(in *ecs.RegisterTaskDefinitionInput) error { return checkDefined(in.PlacementConstraints) }} {
		if err := check(in); err != nil {
			return err
		}
	}
	for _, c := range in.RequiresCompatibilities {
		if err := compatible[c](in); err != nil {
			return err
		}
	}
	return nil
}

func checkContainer(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	name, image := aws.ToString(c.Name), aws.ToString(c.Image)
	switch {
	case name == "":
		return client("Container.name should not be null or empty.")
	case !familyName.MatchString(name):
		return client("Container.name contains invalid characters.")
	case image == "":
		return client("Container.image should not be null or empty.")
	case !imageNames.MatchString(image):
		return client("Container.image contains invalid characters.")
	case in.Memory == nil && c.Memory == nil && c.MemoryReservation == nil:
		return client("Invalid setting for container '%s'. At least one of 'memory' or 'memoryReservation' must be specified.", name)
	case c.Memory != nil && *c.Memory < 6:
		return client("Invalid setting for container '%s'. 'memory' must be at least 6 MiB.", name)
	case c.Memory != nil && c.MemoryReservation != nil && *c.Memory < *c.MemoryReservation:
		return client("Invalid setting for container '%s'. 'memory' must be greater than or equal to 'memoryReservation'.", name)
	case c.StopTimeout != nil && (*c.StopTimeout < 0 || *c.StopTimeout > 120 && slices.Contains(in.RequiresCompatibilities, types.CompatibilityFargate)):
		return client("Invalid setting for container '%s'. 'stopTimeout' must be between 0 and 120 seconds.", name)
	}
	for _, r := range c.ResourceRequirements {
		if r.Type != types.ResourceTypeGpu {
			return client("Serin performs the resource requirement GPU; '%s' of container '%s' is not performed yet.", r.Type, name)
		}
		if n, err := strconv.Atoi(aws.ToString(r.Value)); err != nil || n < 1 || n > 16 {
			return client("Invalid 'resourceRequirements' setting for container '%s': the GPU value '%s' must be a whole number.", name, aws.ToString(r.Value))
		}
	}
	if err := checkHealth(name, c.HealthCheck); err != nil {
		return err
	}
	if c.LogConfiguration != nil {
		return checkLogs(name, c.LogConfiguration)
	}
	return nil
}

// logOptions is awslogs' options and whether they are performed.
var logOptions = map[string]bool{
	"awslogs-group": true, "awslogs-region": true, "awslogs-stream-prefix": true, "awslogs-create-group": true, "mode": true, "max-buffer-size": true,
	"awslogs-datetime-format": false, "awslogs-multiline-pattern": false, "awslogs-endpoint": false, "awslogs-credentials-endpoint": false, "awslogs-format": false,
}

func checkLogs(name string, l *types.LogConfiguration) error {
	if l.LogDriver != types.LogDriverAwslogs {
		return client("Serin performs the log driver awslogs; '%s' of container '%s' is not performed yet.", l.LogDriver, name)
	}
	var missing, unknown []string
	for _, option := range []string{"awslogs-region", "awslogs-group"} {
		if l.Options[option] == "" {
			missing = append(missing, option)
		}
	}
	for option := range l.Options {
		performed, known := logOptions[option]
		switch {
		case !known:
			unknown = append(unknown, option)
		case !performed:
			return client("Log driver awslogs: the option '%s' of container '%s' is not performed by Serin yet.", option, name)
		}
	}
	slices.Sort(unknown)
	switch {
	case len(missing) > 0:
		return client("Log driver awslogs requires options: %s", strings.Join(missing, ", "))
	case len(unknown) > 0:
		return client("Log driver awslogs disallows options: %s", strings.Join(unknown, ", "))
	}
	if create, ok := l.Options["awslogs-create-group"]; ok && create != "true" {
		return client("Log driver awslogs option 'awslogs-create-group' should only be set to 'true', else omit option.")
	}
	return nil
}

// checkSums compares the containers with the task.
func checkSums(in *ecs.RegisterTaskDefinitionInput) error {
	cpu, memory := units(in.Cpu, "vcpu"), units(in.Memory, "gb")
	sum := int32(0)
	for _, c := range in.ContainerDefinitions {
		sum += c.Cpu
		if most := max(aws.ToInt32(c.Memory), aws.ToInt32(c.MemoryReservation)); in.Memory != nil && int(most) > memory {
			return client("The 'memory' setting for container '%s' is greater than for the task.", *c.Name)
		}
	}
	if in.Cpu != nil && int(sum) > cpu {
		return client("The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.")
	}
	return nil
}

// units is a size in ECS's whole units.
func units(size *string, unit string) int {
	n, _ := strconv.Atoi(aws.ToString(normalSize(size, 1024, unit)))
	return n
}

func checkPorts(in *ecs.RegisterTaskDefinitionInput) error {
	taken, named := map[string]bool{}, map[string]bool{}
	shared := in.NetworkMode == types.NetworkModeAwsvpc || in.NetworkMode == types.NetworkModeHost
	for _, c := range in.ContainerDefinitions {
		for _, p := range c.PortMappings {
			port, host := aws.ToInt32(p.ContainerPort), aws.ToInt32(p.HostPort)
			switch {
			case port < 1 || port > 65535:
				return client("Invalid 'containerPort' setting for container '%s'.", *c.Name)
			case host < 0 || host > 65535:
				return client("Invalid 'hostPort' setting for container '%s'.", *c.Name)
			case shared && host != 0 && host != port:
				return client("When networkMode=%s, the host ports and container ports in port mappings must match.", in.NetworkMode)
			}
			if shared {
				host = port
			}
			key := fmt.Sprintf("%s host port '%d'", strings.ToUpper(string(cmp.Or(p.Protocol, types.TransportProtocolTcp))), host)
			if host != 0 && taken[key] {
				return client("%s is mapped multiple times in task.", key)
			}
			taken[key] = true
			if name := aws.ToString(p.Name); name != "" {
				if named[name] {
					return client("When networkMode=%s, port mapping name is already used", in.NetworkMode)
				}
				named[name] = true
			}
		}
	}
	return nil
}

// compatible is what each kind of capacity asks of a definition.
var compatible = map[types.Compatibility]func(*ecs.RegisterTaskDefinitionInput) error{
	types.CompatibilityEc2:      func(*ecs.RegisterTaskDefinitionInput) error { return nil },
	types.CompatibilityFargate:  checkFargate,
	types.CompatibilityExternal: checkAnywhere,
	types.CompatibilityManagedInstances: func(in *ecs.RegisterTaskDefinitionInput) error {
		if in.NetworkMode != types.NetworkModeAwsvpc && in.NetworkMode != types.NetworkModeHost {
			return client("Managed Instances only support network modes 'awsvpc' and 'host'.")
		}
		return nil
	},
}

func checkAnywhere(in *ecs.RegisterTaskDefinitionInput) error {
	named := false
	for _, c := range in.ContainerDefinitions {
		for _, p := range c.PortMappings {
			named = named || aws.ToString(p.Name) != "" || p.AppProtocol != ""
		}
	}
	if in.NetworkMode == types.NetworkModeAwsvpc || named {
		return client("The EXTERNAL launch type does not support network mode 'awsvpc', nor names and application protocols of port mappings.")
	}
	return nil
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
	case !fargatePair(cpu, memory):
		return client("No Fargate configuration exists for given values: %d CPU, %d memory. See the Amazon ECS documentation for the valid values.", cpu, memory)
	case len(in.PlacementConstraints) > 0:
		return client("Fargate compatible task definitions do not support constraints")
	}
	for _, c := range in.ContainerDefinitions {
		l := c.LogConfiguration
		switch {
		case len(c.ResourceRequirements) > 0:
			return client("Tasks using the Fargate launch type do not support GPU resource requirements.")
		case in.ExecutionRoleArn == nil && privateECR.MatchString(aws.ToString(c.Image)):
			return client("Fargate requires task definition to have execution role ARN to support ECR images.")
		case in.ExecutionRoleArn == nil && l != nil:
			return client("Fargate requires task definition to have execution role ARN to support log driver %s.", l.LogDriver)
		case l != nil && l.Options["awslogs-stream-prefix"] == "":
			return client("Fargate requires log configuration options to include awslogs-stream-prefix to support log driver awslogs.")
		}
	}
	return nil
}

// compatibilities is every kind of capacity whose rules the content meets;
// observed: EC2 always, whatever is required. AWS keeps no order.
func compatibilities(in *ecs.RegisterTaskDefinitionInput) (list []types.Compatibility) {
	for _, c := range []types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2, types.CompatibilityManagedInstances, types.CompatibilityFargate} {
		if compatible[c](in) == nil {
			list = append(list, c)
		}
	}
	return list
}

// attributes derives what a container instance must be able to do, as observed in
// what AWS answers, of Fargate's definitions, too. No attributes are nil.
func attributes(d types.TaskDefinition) (list []types.Attribute) {
	names := map[string]bool{}
	docker := func(version int) {
		names[fmt.Sprintf("com.amazonaws.ecs.capability.docker-remote-api.1.%d", version)] = true
	}
	has := func(name string) { names["ecs.capability."+name] = true }
	legacy := func(name string) { names["com.amazonaws.ecs.capability."+name] = true }
	if d.NetworkMode == types.NetworkModeAwsvpc {
		has("task-eni")
		docker(18)
	}
	if d.TaskRoleArn != nil {
		legacy("task-iam-role")
	}
	if units(d.Cpu, "vcpu") > 10240 {
		has("increased-task-cpu-limit")
	}
	for _, c := range d.ContainerDefinitions {
		if l := c.LogConfiguration; l != nil {
			legacy("logging-driver." + string(l.LogDriver))
			docker(19)
			if d.ExecutionRoleArn != nil {
				has("execution-role-awslogs")
			}
			if l.Options["awslogs-create-group"] != "" {
				docker(29)
			}
			if l.Options["mode"]+l.Options["max-buffer-size"] != "" {
				docker(28)
			}
		}
		if privateECR.MatchString(*c.Image) {
			legacy("ecr-auth")
			if d.ExecutionRoleArn != nil {
				has("execution-role-ecr-pull")
			}
		}
		if c.MemoryReservation != nil || strings.Contains(*c.Image, "@sha256:") {
			docker(21)
		}
		if c.User != nil || c.WorkingDirectory != nil {
			docker(17)
		}
		if c.StopTimeout != nil {
			has("container-ordering")
		}
		if h := c.HealthCheck; h != nil {
			has("container-health-check")
			if h.StartPeriod != nil {
				docker(29)
			} else {
				docker(24)
			}
		}
	}
	for name := range names {
		list = append(list, types.Attribute{Name: new(name)})
	}
	slices.SortFunc(list, func(x, y types.Attribute) int { return strings.Compare(*x.Name, *y.Name) })
	return list
}
