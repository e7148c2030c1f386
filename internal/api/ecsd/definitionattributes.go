package ecsd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// demands collects the names of attributes.
type demands map[string]bool

func (n demands) docker(version int) {
	n[fmt.Sprintf("com.amazonaws.ecs.capability.docker-remote-api.1.%d", version)] = true
}
func (n demands) has(name string)    { n["ecs.capability."+name] = true }
func (n demands) legacy(name string) { n["com.amazonaws.ecs.capability."+name] = true }

// attributes derives what a container instance must be able to do, as observed in
// what AWS answers, of Fargate's definitions, too. No attributes are nil.
func attributes(d types.TaskDefinition) (list []types.Attribute) {
	n := demands{}
	if d.NetworkMode == types.NetworkModeAwsvpc {
		n.has("task-eni")
		n.docker(18)
	}
	if d.TaskRoleArn != nil {
		n.legacy("task-iam-role")
		if d.NetworkMode == types.NetworkModeHost {
			n.legacy("task-iam-role-network-host")
		}
	}
	if units(d.Cpu, "vcpu") > 10240 {
		n.has("increased-task-cpu-limit")
	}
	if d.PidMode != "" || d.IpcMode != "" {
		n.has("pid-ipc-namespace-sharing")
	}
	for _, v := range d.Volumes {
		if docker := v.DockerVolumeConfiguration; docker != nil {
			n.has("docker-plugin." + cmp.Or(aws.ToString(docker.Driver), "local"))
			n.docker(25)
		}
	}
	for _, c := range d.ContainerDefinitions {
		n.ofLogs(d, c.LogConfiguration)
		n.ofImage(d, *c.Image)
		n.ofOrder(c)
		n.ofDocker(c)
		n.ofSecrets(c)
	}
	for name := range n {
		list = append(list, types.Attribute{Name: new(name)})
	}
	slices.SortFunc(list, func(x, y types.Attribute) int { return strings.Compare(*x.Name, *y.Name) })
	return list
}

// ofLogs: awslogs came with Docker's API 1.19, observed; the other drivers with
// 1.18, documented.
func (n demands) ofLogs(d types.TaskDefinition, l *types.LogConfiguration) {
	if l == nil {
		return
	}
	n.legacy("logging-driver." + string(l.LogDriver))
	if l.LogDriver != types.LogDriverAwslogs {
		n.docker(18)
		return
	}
	n.docker(19)
	if d.ExecutionRoleArn != nil {
		n.has("execution-role-awslogs")
	}
	if l.Options["awslogs-create-group"] != "" {
		n.docker(29)
	}
	if l.Options["mode"]+l.Options["max-buffer-size"] != "" {
		n.docker(28)
	}
}

func (n demands) ofImage(d types.TaskDefinition, image string) {
	if privateECR.MatchString(image) {
		n.legacy("ecr-auth")
		if d.ExecutionRoleArn != nil {
			n.has("execution-role-ecr-pull")
		}
	}
	if strings.Contains(image, "@sha256:") {
		n.docker(21)
	}
}

// ofOrder: the attribute of restarts is the agent's, the others are observed.
func (n demands) ofOrder(c types.ContainerDefinition) {
	if len(c.DependsOn) > 0 || c.StartTimeout != nil || c.StopTimeout != nil {
		n.has("container-ordering")
	}
	if c.RestartPolicy != nil {
		n.has("container-restart-policy")
	}
	if h := c.HealthCheck; h != nil {
		n.has("container-health-check")
		if h.StartPeriod != nil {
			n.docker(29)
		} else {
			n.docker(24)
		}
	}
}

// ofDocker is the versions of Docker's API that members came with: those of links,
// user, workingDirectory, labels, ulimits, reservations, and shared memory are
// observed, an empty list counting as one, that of an init process is documented,
// the others are guessed from their age.
func (n demands) ofDocker(c types.ContainerDefinition) {
	if c.User != nil || c.WorkingDirectory != nil || c.Links != nil || c.Hostname != nil || c.DnsServers != nil || c.DnsSearchDomains != nil ||
		c.ExtraHosts != nil || c.DockerSecurityOptions != nil || c.ReadonlyRootFilesystem != nil || c.Privileged != nil {
		n.docker(17)
	}
	if c.DockerLabels != nil || c.Ulimits != nil {
		n.docker(18)
	}
	if slices.ContainsFunc(c.PortMappings, func(p types.PortMapping) bool { return p.ContainerPortRange != nil }) { // the attribute is the agent's
		n.has("network.container-port-range")
	}
	if c.MemoryReservation != nil {
		n.docker(21)
	}
	if l := c.LinuxParameters; l != nil {
		if l.SharedMemorySize != nil || len(l.Tmpfs) > 0 {
			n.docker(22)
		}
		if l.InitProcessEnabled != nil {
			n.docker(25)
		}
	}
}

func (n demands) ofSecrets(c types.ContainerDefinition) {
	for _, s := range c.Secrets {
		if strings.HasPrefix(secretService(*s.ValueFrom), "secretsmanager") {
			n.has("secrets.asm.environment-variables")
		} else {
			n.has("secrets.ssm.environment-variables")
		}
	}
}
