package ecsd

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// web is a definition that everything takes: with Fargate's sizes, in a network of
// its own.
func web() *ecs.RegisterTaskDefinitionInput {
	return &ecs.RegisterTaskDefinitionInput{
		Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Cpu: new("256"), Memory: new("512"), ExecutionRoleArn: new("arn:aws:iam::111111111111:role/execution"),
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("111111111111.dkr.ecr.us-east-1.amazonaws.com/web:1"), PortMappings: []types.PortMapping{{ContainerPort: new(int32(8080))}},
			LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "ecs", "awslogs-create-group": "true"}}}},
	}
}

func TestWhatATaskDefinitionMustBe(t *testing.T) {
	type in = *ecs.RegisterTaskDefinitionInput
	first := func(change func(*types.ContainerDefinition)) func(in) {
		return func(i in) { change(&i.ContainerDefinitions[0]) }
	}
	fargate := func(change func(in)) func(in) {
		return func(i in) {
			i.RequiresCompatibilities = []types.Compatibility{types.CompatibilityFargate}
			change(i)
		}
	}
	port := func(container, host int32, protocol types.TransportProtocol) types.PortMapping {
		return types.PortMapping{ContainerPort: &container, HostPort: &host, Protocol: protocol}
	}
	ports := func(list ...types.PortMapping) func(in) {
		return first(func(c *types.ContainerDefinition) { c.PortMappings = list })
	}
	span := func(ports string, protocol types.TransportProtocol) types.PortMapping {
		return types.PortMapping{ContainerPortRange: &ports, Protocol: protocol}
	}
	on := func(mode types.NetworkMode, list ...types.PortMapping) func(in) {
		return func(i in) { i.NetworkMode = mode; ports(list...)(i) }
	}
	twice := func(mode types.NetworkMode, list ...types.PortMapping) func(in) { // in two containers
		return func(i in) {
			on(mode, list...)(i)
			other := i.ContainerDefinitions[0]
			other.Name = new("other")
			i.ContainerDefinitions = append(i.ContainerDefinitions, other)
		}
	}
	many := func(n int) (list []types.PortMapping) {
		for i := range n {
			list = append(list, span(portRange{int32(2*i + 1), int32(2*i + 2)}.String(), ""))
		}
		return list
	}
	option := func(name, value string) func(in) {
		return first(func(c *types.ContainerDefinition) {
			if value == "" {
				delete(c.LogConfiguration.Options, name)
			} else {
				c.LogConfiguration.Options[name] = value
			}
		})
	}
	file := func(options map[string]string) func(in) {
		return first(func(c *types.ContainerDefinition) {
			c.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverJsonFile, Options: options}
		})
	}
	for _, c := range []struct {
		name   string
		change func(in)
		want   string // empty: it is taken
	}{
		{"as it is", func(in) {}, ""},
		{"as it is, for Fargate", fargate(func(in) {}), ""},
		{"32 processors", fargate(func(i in) { i.Cpu, i.Memory = new("32 vCPU"), new("244 GB") }), ""},
		{"UDP and TCP on one port", ports(port(53, 0, "tcp"), port(53, 0, "udp")), ""},
		{"two ports of the host that are chosen for it", func(i in) { i.NetworkMode = types.NetworkModeBridge; ports(port(80, 0, ""), port(81, 0, ""))(i) }, ""},
		{"ranges of ports", ports(span("8000-8010", ""), span("8011-8020", "tcp"), span("8000-8020", "udp"), port(80, 0, "")), ""},
		{"ranges on a bridge, the same in two containers", twice("", span("1-65535", "")), ""},
		{"a hundred ranges", ports(many(100)...), ""},

		{"a range and a port", ports(types.PortMapping{ContainerPort: new(int32(80)), ContainerPortRange: new("80-90")}), "Invalid port mapping for container 'web', cannot specify both single port and port range."},
		{"a range and a host's port", on("bridge", types.PortMapping{HostPort: new(int32(80)), ContainerPortRange: new("80-90")}), "Invalid port mapping for container 'web', cannot specify both single port and port range."},
		{"a range the other way round", ports(span("90-80", "")), "Invalid 'containerPortRange' setting for container 'web'."},
		{"a range of one", ports(span("80-80", "")), "Invalid 'containerPortRange' setting for container 'web'."},
		{"a range without an end", ports(span("80", "")), "Invalid 'containerPortRange' setting for container 'web'."},
		{"a range from 0", ports(span("0-80", "")), "Invalid 'containerPortRange' setting for container 'web'."},
		{"a range beyond all ports", ports(span("80-65536", "")), "Invalid 'containerPortRange' setting for container 'web'."},
		{"ranges that overlap", ports(span("8080-8090", ""), span("8085-8095", "")), "TCP container port '8085' is used multiple times in task when networkMode=awsvpc."},
		{"a range over a port", ports(port(53, 0, "udp"), span("50-60", "udp")), "UDP container port '53' is used multiple times in task when networkMode=awsvpc."},
		{"one range in two containers", twice("awsvpc", span("80-90", "")), "TCP container port '80' is used multiple times in task when networkMode=awsvpc."},
		{"a range over a port on a bridge", on("bridge", port(85, 8085, ""), span("80-90", "")), "TCP container port '85' is used multiple times in task when networkMode=bridge."},
		{"a range on the host's network", on("host", span("80-90", "")), "Invalid port mapping for container 'web', cannot specify port range when networkMode=host."},
		{"a hundred and one ranges", ports(many(101)...), "Too many port ranges for container 'web': 101, of at most 100."},

		{"no family", func(i in) { i.Family = nil }, "Family should not be null or empty."},
		{"a family", func(i in) { i.Family = new("a b") }, "Family contains invalid characters."},
		{"no containers", func(i in) { i.ContainerDefinitions = nil }, "Container list cannot be empty."},
		{"eleven containers", func(i in) { i.ContainerDefinitions = slices.Repeat(i.ContainerDefinitions, 11) }, "Too many containers."},
		{"two of one name", func(i in) { i.ContainerDefinitions = slices.Repeat(i.ContainerDefinitions, 2) }, "Container names must be unique within a task definition."},
		{"none is essential", first(func(c *types.ContainerDefinition) { c.Essential = new(false) }), "Task definition doesn't have any essential container."},
		{"cpu", func(i in) { i.Cpu = new("much") }, "Invalid 'cpu' setting for task."},
		{"no image", first(func(c *types.ContainerDefinition) { c.Image = new("") }), "Container.image should not be null or empty."},
		{"a placeholder", first(func(c *types.ContainerDefinition) {
			c.Image = new("<AWS_ACCOUNT_ID>.dkr.ecr.us-east-1.amazonaws.com/web:1")
		}), "Container.image contains invalid characters."},
		{"no memory at all", func(i in) { i.Memory = nil }, "Invalid setting for container 'web'. At least one of 'memory' or 'memoryReservation' must be specified."},
		{"no memory at all comes before Fargate's sizes", fargate(func(i in) { i.Memory, i.Cpu = nil, nil }), "Invalid setting for container 'web'. At least one of 'memory' or 'memoryReservation' must be specified."},
		{"less than reserved", first(func(c *types.ContainerDefinition) { c.Memory, c.MemoryReservation = new(int32(64)), new(int32(65)) }), "'memory' must be greater than or equal to 'memoryReservation'"},
		{"more than the task", first(func(c *types.ContainerDefinition) { c.Memory = new(int32(513)) }), "The 'memory' setting for container 'web' is greater than for the task."},
		{"more processors than the task", first(func(c *types.ContainerDefinition) { c.Cpu = 257 }), "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'."},
		{"a port", ports(port(0, 0, "")), "Invalid 'containerPort' setting for container 'web'."},
		{"a port of the host", func(i in) { i.NetworkMode = types.NetworkModeBridge; ports(port(80, 70000, ""))(i) }, "Invalid 'hostPort' setting for container 'web'."},
		{"two ports for one", ports(port(80, 8080, "")), "When networkMode=awsvpc, the host ports and container ports in port mappings must match."},
		{"the same on the host's network", func(i in) { i.NetworkMode = types.NetworkModeHost; ports(port(80, 8080, ""))(i) }, "When networkMode=host, the host ports and container ports in port mappings must match."},
		{"a port twice", ports(port(80, 0, ""), port(80, 80, "tcp")), "TCP host port '80' is mapped multiple times in task."},
		{"a host's port twice", func(i in) { i.NetworkMode = types.NetworkModeBridge; ports(port(80, 8080, ""), port(81, 8080, ""))(i) }, "TCP host port '8080' is mapped multiple times in task."},
		{"a health check", first(func(c *types.ContainerDefinition) {
			c.HealthCheck = &types.HealthCheck{Command: []string{"CMD-SHELL", "true"}, StartPeriod: new(int32(0))}
		}), ""},
		{"a health check's interval", first(func(c *types.ContainerDefinition) {
			c.HealthCheck = &types.HealthCheck{Command: []string{"CMD", "true"}, Interval: new(int32(301))}
		}), "Health check interval must be less than or equal to the maximum allowed value 300 for container 'web'"},
		{"a health check's retries", first(func(c *types.ContainerDefinition) {
			c.HealthCheck = &types.HealthCheck{Command: []string{"CMD", "true"}, Retries: new(int32(0))}
		}), "Health check retries must be greater than or equal to the minimum allowed value 1 for container 'web'"},
		{"a health check without its first word", first(func(c *types.ContainerDefinition) {
			c.HealthCheck = &types.HealthCheck{Command: []string{"curl", "localhost"}}
		}), "must begin with CMD or CMD-SHELL"},
		{"no group", option("awslogs-group", ""), "Log driver awslogs requires options: awslogs-group"},
		{"neither group nor region", func(i in) { option("awslogs-group", "")(i); option("awslogs-region", "")(i) }, "Log driver awslogs requires options: awslogs-region, awslogs-group"},
		{"an option that there is not", option("log_key", "x"), "Log driver awslogs disallows options: log_key"},
		{"a group not to be made", option("awslogs-create-group", "false"), "Log driver awslogs option 'awslogs-create-group' should only be set to 'true', else omit option."},
		{"lines in one event", option("awslogs-multiline-pattern", "^x"), ""},
		{"lines in one event by their time", option("awslogs-datetime-format", "%Y"), ""},
		{"lines in one event by both", func(i in) { option("awslogs-datetime-format", "%Y")(i); option("awslogs-multiline-pattern", "^x")(i) }, "Invalid setting for container 'web'. Log driver awslogs takes 'awslogs-datetime-format' or 'awslogs-multiline-pattern', not both."},
		{"a mode", option("mode", "sometimes"), "Invalid setting for container 'web'. Log driver awslogs: the option 'mode' cannot be 'sometimes'."},
		{"a buffer", option("max-buffer-size", "25m"), ""},
		{"a buffer of no size", option("max-buffer-size", "much"), "the option 'max-buffer-size' cannot be 'much'"},
		{"an option that is not performed", option("awslogs-format", "json/emf"), "Log driver awslogs: the option 'awslogs-format' of container 'web' is not performed by Serin."},
		{"another driver", first(func(c *types.ContainerDefinition) { c.LogConfiguration.LogDriver = types.LogDriverSyslog }), "Serin performs the log drivers awslogs and json-file; 'syslog' of container 'web' is not performed."},
		{"no driver", first(func(c *types.ContainerDefinition) { c.LogConfiguration.LogDriver = "" }), "'logDriver' of 'logConfiguration' must be specified"},
		{"files", file(map[string]string{"max-size": "10m", "max-file": "3"}), ""},
		{"files of a group", file(map[string]string{"awslogs-group": "g"}), "Log driver json-file disallows options: awslogs-group"},
		{"a number of files alone", file(map[string]string{"max-file": "3"}), "Invalid setting for container 'web'. Log driver json-file takes 'max-file' with 'max-size' only."},
		{"no number of files", file(map[string]string{"max-size": "1k", "max-file": "some"}), "the option 'max-file' cannot be 'some'"},
		{"labelled files", file(map[string]string{"labels": "a"}), "Log driver json-file: the option 'labels' of container 'web' is not performed by Serin."},
		{"files on Fargate", fargate(file(nil)), "json-file is not a valid log driver. Must be one of [awslogs,splunk,awsfirelens]"},
		{"a constraint of a service's kind", func(i in) {
			i.PlacementConstraints = []types.TaskDefinitionPlacementConstraint{{Type: "distinctInstance"}}
		}, "constraint.type 'distinctInstance' is not supported."},

		{"Fargate's network", fargate(func(i in) { i.NetworkMode = "" }), "Fargate only supports network mode ‘awsvpc’."},
		{"Fargate's cpu", fargate(func(i in) { i.Cpu = nil }), "Fargate requires that 'cpu' be defined at the task level."},
		{"Fargate's memory", fargate(func(i in) { i.Memory = nil; i.ContainerDefinitions[0].Memory = new(int32(64)) }), "Fargate requires that 'memory' be defined at the task level."},
		{"a pair that Fargate has not", fargate(func(i in) { i.Memory = new("513") }), "No Fargate configuration exists for given values: 256 CPU, 513 memory. See the Amazon ECS documentation for the valid values."},
		{"a GPU on Fargate", fargate(first(func(c *types.ContainerDefinition) {
			c.ResourceRequirements = []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: new("1")}}
		})), "Tasks using the Fargate launch type do not support GPU resource requirements."},
		{"an image of ECR without a role on Fargate", fargate(func(i in) { i.ExecutionRoleArn = nil }), "Fargate requires task definition to have execution role ARN to support ECR images."},
		{"logs without a role on Fargate", fargate(func(i in) { i.ExecutionRoleArn = nil; i.ContainerDefinitions[0].Image = new("nginx") }), "Fargate requires task definition to have execution role ARN to support log driver awslogs."},
		{"logs without a prefix on Fargate", fargate(option("awslogs-stream-prefix", "")), "Fargate requires log configuration options to include awslogs-stream-prefix to support log driver awslogs."},
		{"a constraint on Fargate", fargate(func(i in) {
			i.PlacementConstraints = []types.TaskDefinitionPlacementConstraint{{Type: "memberOf", Expression: new("attribute:a exists")}}
		}), "Fargate compatible task definitions do not support constraints"},
		{"a bridge on Managed Instances", func(i in) {
			i.RequiresCompatibilities, i.NetworkMode = []types.Compatibility{types.CompatibilityManagedInstances}, types.NetworkModeBridge
		}, "Managed Instances only support network modes 'awsvpc' and 'host'."},
		{"a network of its own anywhere", func(i in) { i.RequiresCompatibilities = []types.Compatibility{types.CompatibilityExternal} }, "The EXTERNAL launch type does not support network mode 'awsvpc'"},
	} {
		i := web()
		c.change(i)
		if err := checkDefinition("111111111111", i); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Lists that AWS answered, by what was sent.
func TestWhatFollowsFromADefinition(t *testing.T) {
	const own, legacy = "ecs.capability.", "com.amazonaws.ecs.capability."
	docker := legacy + "docker-remote-api.1."
	seed := struct {
		ecs.RegisterTaskDefinitionInput
	}{}
	raw, err := os.ReadFile("../../../examples/blog/task-definition.json")
	if err == nil {
		var sent map[string]any
		if err = json.Unmarshal([]byte(strings.ReplaceAll(string(raw), "<AWS_ACCOUNT_ID>", "111111111111")), &sent); err == nil {
			for _, own := range []string{"taskDefinitionArn", "registeredAt", "status", "requiresAttributes", "compatibilities", "revision", "registeredBy"} {
				delete(sent, own)
			}
			raw, _ = json.Marshal(sent)
			err = json.Unmarshal(raw, &seed.RegisterTaskDefinitionInput)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		in            *ecs.RegisterTaskDefinitionInput
		compatibility []types.Compatibility
		attributes    []string
	}{
		{"the blog's", &seed.RegisterTaskDefinitionInput, []types.Compatibility{types.CompatibilityEc2, types.CompatibilityManagedInstances},
			[]string{legacy + "logging-driver.awslogs", own + "execution-role-awslogs", legacy + "ecr-auth", docker + "19", own + "execution-role-ecr-pull", docker + "18", own + "task-eni", docker + "29"}},
		{"Fargate's, with modes", func() *ecs.RegisterTaskDefinitionInput {
			i := web()
			i.ContainerDefinitions[0].LogConfiguration.Options["mode"] = "non-blocking"
			i.TaskRoleArn = i.ExecutionRoleArn
			return i
		}(), []types.Compatibility{types.CompatibilityEc2, types.CompatibilityFargate, types.CompatibilityManagedInstances},
			[]string{legacy + "logging-driver.awslogs", own + "execution-role-awslogs", legacy + "ecr-auth", docker + "19", docker + "28", legacy + "task-iam-role", own + "execution-role-ecr-pull", docker + "18", own + "task-eni", docker + "29"}},
		{"a command", &ecs.RegisterTaskDefinitionInput{ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("busybox"), Command: []string{"true"}, Memory: new(int32(64))}}},
			[]types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2}, nil},
		{"a large one of Docker Hub", &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeAwsvpc, Cpu: new("16384"), Memory: new("32768"), ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("nginx")}}},
			[]types.Compatibility{types.CompatibilityEc2, types.CompatibilityFargate, types.CompatibilityManagedInstances}, []string{own + "increased-task-cpu-limit", docker + "18", own + "task-eni"}},
		{"memory reserved", &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeBridge, ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("jenkins"), MemoryReservation: new(int32(64))}}},
			[]types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2}, []string{docker + "21"}},
		{"a health check with a start period", &ecs.RegisterTaskDefinitionInput{ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("nginx"), Memory: new(int32(64)),
			HealthCheck: &types.HealthCheck{Command: []string{"CMD", "true"}, StartPeriod: new(int32(5))}}}},
			[]types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2}, []string{docker + "29", own + "container-health-check"}},
		{"names of ports", &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeBridge, ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("nginx"), WorkingDirectory: new("/"), Memory: new(int32(64)),
			PortMappings: []types.PortMapping{{ContainerPort: new(int32(80)), Name: new("http"), AppProtocol: "http"}}}}},
			[]types.Compatibility{types.CompatibilityEc2}, []string{docker + "17"}},
		{"a range of ports", &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeBridge, ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("nginx"), Memory: new(int32(64)), PortMappings: []types.PortMapping{{ContainerPortRange: new("80-90")}}}}},
			[]types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2}, []string{own + "network.container-port-range"}},
		{"a sidecar that waits for health, its volume, and parameters", inOrder(), []types.Compatibility{types.CompatibilityEc2, types.CompatibilityFargate, types.CompatibilityManagedInstances},
			[]string{own + "execution-role-awslogs", legacy + "ecr-auth", docker + "21", legacy + "task-iam-role", own + "container-health-check", own + "execution-role-ecr-pull", own + "secrets.ssm.environment-variables",
				docker + "18", own + "task-eni", docker + "29", legacy + "logging-driver.awslogs", docker + "19", own + "container-ordering"}},
		{"the host's directories, and empty lists of the console", console(), []types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2},
			[]string{docker + "17", legacy + "task-iam-role", own + "secrets.ssm.environment-variables", docker + "18"}},
		{"a volume of Docker's", &ecs.RegisterTaskDefinitionInput{Volumes: []types.Volume{{Name: new("data"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Autoprovision: new(true), Scope: types.ScopeShared, Driver: new("local")}}},
			ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("nxprivatecloud/nxcloud:latest"), Memory: new(int32(2000)), MountPoints: []types.MountPoint{{SourceVolume: new("data"), ContainerPath: new("/data")}},
				LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{"awslogs-group": "/ecs/DeployCloud", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "ecs"}}}}},
			[]types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2}, []string{legacy + "logging-driver.awslogs", docker + "19", own + "docker-plugin.local", docker + "25"}},
		{"GPUs, locked memory, a large /dev/shm and the host's network", trainer(), []types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2},
			[]string{own + "execution-role-awslogs", legacy + "task-iam-role-network-host", legacy + "ecr-auth", docker + "28", legacy + "task-iam-role", docker + "22", own + "execution-role-ecr-pull", docker + "18", docker + "29",
				legacy + "logging-driver.awslogs", docker + "19", own + "pid-ipc-namespace-sharing"}},
		{"timeouts, a secret and a parameter", timed(), []types.Compatibility{types.CompatibilityEc2, types.CompatibilityManagedInstances},
			[]string{own + "execution-role-awslogs", legacy + "ecr-auth", docker + "17", docker + "28", legacy + "task-iam-role", own + "execution-role-ecr-pull", own + "secrets.ssm.environment-variables", docker + "18", own + "task-eni",
				legacy + "logging-driver.awslogs", docker + "19", own + "secrets.asm.environment-variables", own + "container-ordering"}},
		{"an init process, restarts and a read-only root, as documented and guessed", &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeAwsvpc, PidMode: types.PidModeTask, ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("nginx"), Memory: new(int32(64)),
			ReadonlyRootFilesystem: new(true), RestartPolicy: &types.ContainerRestartPolicy{Enabled: new(true)}, LinuxParameters: &types.LinuxParameters{InitProcessEnabled: new(true), Tmpfs: []types.Tmpfs{{ContainerPath: new("/tmp"), Size: 8}}}}}},
			[]types.Compatibility{types.CompatibilityEc2, types.CompatibilityManagedInstances}, []string{docker + "17", docker + "18", docker + "22", docker + "25", own + "container-restart-policy", own + "pid-ipc-namespace-sharing", own + "task-eni"}},
	} {
		alone := *named(c.in) // whose containers share nothing with a host: that is not performed
		alone.PidMode, alone.IpcMode = "", ""
		if err := checkDefinition("111111111111", &alone); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got := compatibilities(c.in)
		slices.Sort(got)
		slices.Sort(c.compatibility)
		if !slices.Equal(got, c.compatibility) {
			t.Errorf("%s is compatible with %v, want %v", c.name, got, c.compatibility)
		}
		var names []string
		for _, a := range taskDefinition(c.in).RequiresAttributes {
			names = append(names, *a.Name)
		}
		slices.Sort(c.attributes)
		if !slices.Equal(names, c.attributes) {
			t.Errorf("%s requires\n%v, want\n%v", c.name, names, c.attributes)
		}
	}
}

// named gives a definition the family that these rows leave out.
func named(in *ecs.RegisterTaskDefinitionInput) *ecs.RegisterTaskDefinitionInput {
	out := *in
	out.Family = new("f")
	return &out
}

// Definitions of which AWS's answers were published.

func awslogs(more ...string) *types.LogConfiguration {
	options := map[string]string{"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "ecs"}
	for i := 0; i < len(more); i += 2 {
		options[more[i]] = more[i+1]
	}
	return &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: options}
}

func inOrder() *ecs.RegisterTaskDefinitionInput {
	health := &types.HealthCheck{Command: []string{"CMD-SHELL", "true"}, StartPeriod: new(int32(300))}
	mount := []types.MountPoint{{SourceVolume: new("sockets"), ContainerPath: new("/app/tmp/sockets")}}
	role := new("arn:aws:iam::111111111111:role/r")
	return &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeAwsvpc, Cpu: new("256"), Memory: new("512"), TaskRoleArn: role, ExecutionRoleArn: role, Volumes: []types.Volume{{Name: new("sockets"), Host: &types.HostVolumeProperties{}}},
		ContainerDefinitions: []types.ContainerDefinition{
			{Name: new("rails"), Image: new("111111111111.dkr.ecr.us-east-1.amazonaws.com/rails:1"), MemoryReservation: new(int32(512)), MountPoints: mount, HealthCheck: health, LogConfiguration: awslogs("awslogs-create-group", "true"),
				Secrets: []types.Secret{{Name: new("DB_HOST"), ValueFrom: new("/staging/db/host")}}},
			{Name: new("nginx"), Image: new("111111111111.dkr.ecr.us-east-1.amazonaws.com/nginx:1"), MountPoints: mount, HealthCheck: health, LogConfiguration: awslogs(),
				DependsOn: []types.ContainerDependency{{ContainerName: new("rails"), Condition: types.ContainerConditionHealthy}}}}}
}

func console() *ecs.RegisterTaskDefinitionInput {
	role := new("arn:aws:iam::111111111111:role/r")
	c := types.ContainerDefinition{Name: new("agent"), Image: new("docker.io/deepfenceio/deepfence_agent_ce:1.4.0"), Links: []string{}, EntryPoint: []string{}, Command: []string{}, DnsServers: []string{}, DnsSearchDomains: []string{},
		ExtraHosts: []types.HostEntry{}, DockerSecurityOptions: []string{}, DockerLabels: map[string]string{}, Ulimits: []types.Ulimit{}, Secrets: []types.Secret{{Name: new("KEY"), ValueFrom: new("key")}},
		MountPoints: []types.MountPoint{{SourceVolume: new("Host"), ContainerPath: new("/fenced/mnt/host"), ReadOnly: new(true)}, {SourceVolume: new("VarLogFenced"), ContainerPath: new("/var/log/fenced"), ReadOnly: new(false)}}}
	return &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeBridge, Cpu: new("512"), Memory: new("2048"), TaskRoleArn: role, ExecutionRoleArn: role, ContainerDefinitions: []types.ContainerDefinition{c},
		Volumes: []types.Volume{{Name: new("Host"), Host: &types.HostVolumeProperties{SourcePath: new("/")}}, {Name: new("VarLogFenced"), Host: &types.HostVolumeProperties{}}}}
}

// trainer was published with privileged, a device and ipcMode host, which are not
// performed: it has the task's own, and Docker's API 1.17 is not asked for.
func trainer() *ecs.RegisterTaskDefinitionInput {
	role := new("arn:aws:iam::111111111111:role/r")
	return &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeHost, Memory: new("1843200"), IpcMode: types.IpcModeTask, TaskRoleArn: role, ExecutionRoleArn: role,
		Volumes: []types.Volume{{Name: new("mylustre"), Host: &types.HostVolumeProperties{SourcePath: new("/fsx/hzworkspace")}}}, PlacementConstraints: []types.TaskDefinitionPlacementConstraint{{Type: "memberOf", Expression: new("attribute:node==node002")}},
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("111111111111.dkr.ecr.us-east-1.amazonaws.com/t:1"), LogConfiguration: awslogs("awslogs-create-group", "true", "mode", "non-blocking"),
			LinuxParameters: &types.LinuxParameters{SharedMemorySize: new(int32(16384))}, Ulimits: []types.Ulimit{{Name: types.UlimitNameMemlock, SoftLimit: -1, HardLimit: -1}},
			MountPoints:          []types.MountPoint{{SourceVolume: new("mylustre"), ContainerPath: new("/workspace"), ReadOnly: new(false)}},
			ResourceRequirements: []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: new("8")}}}}}
}

// timed was published with a volume of EFS, which is not performed.
func timed() *ecs.RegisterTaskDefinitionInput {
	role := new("arn:aws:iam::111111111111:role/r")
	return &ecs.RegisterTaskDefinitionInput{NetworkMode: types.NetworkModeAwsvpc, Cpu: new("128"), Memory: new("512"), TaskRoleArn: role, ExecutionRoleArn: role,
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("111111111111.dkr.ecr.us-east-1.amazonaws.com/h:1"), Memory: new(int32(512)), Links: []string{}, LogConfiguration: awslogs("mode", "non-blocking"),
			StartTimeout: new(int32(40)), StopTimeout: new(int32(15)), Secrets: []types.Secret{
				{Name: new("A"), ValueFrom: new("arn:aws:secretsmanager:us-east-1:111111111111:secret:a-AbCdEf")}, {Name: new("B"), ValueFrom: new("arn:aws:ssm:us-east-1:111111111111:parameter/b")}}}}}
}
