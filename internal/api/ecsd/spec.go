package ecsd

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/run"
)

// A task definition as the runtime is given it.

const mib = 1 << 20

// spec is a task to create.
func (g *agent) spec(key string, t task, d types.TaskDefinition, images []run.Image, secrets map[string][]string) run.Spec {
	scope, _ := arn.ParseKey(key)
	spec := run.Spec{ID: t.ID, Labels: map[string]string{labelKey: key}, Sysctls: map[string]string{}}
	if n, err := strconv.ParseInt(aws.ToString(d.Memory), 10, 64); err == nil {
		spec.Memory = n * mib
	}
	if n, err := strconv.ParseInt(aws.ToString(d.Cpu), 10, 64); err == nil {
		spec.CPU = n
	}
	// A host's directory is its instance's; without one the cluster is one host.
	host := scope.Key(t.Cluster + "/" + cmp.Or(t.Instance, "-"))
	for _, v := range d.Volumes {
		spec.Volumes = append(spec.Volumes, run.Volume{Name: aws.ToString(v.Name), Shared: sharedAs(v, host)})
	}
	for i, c := range d.ContainerDefinitions {
		r := containerSpec(c)
		r.Image, r.Mounts = images[i].Ref, mountsOf(d, c)
		r.Env = append(r.Env, "AWS_EXECUTION_ENV="+executionEnv(t.LaunchType), "AWS_REGION="+scope.Region)
		r.Env = append(r.Env, g.deps.Inside(Keys{t.Credentials, t.Containers[i].Metadata})...)
		for _, e := range c.Environment {
			r.Env = append(r.Env, aws.ToString(e.Name)+"="+aws.ToString(e.Value))
		}
		r.Env = append(append(r.Env, secrets[*c.Name]...), mpsEnv(c)...)
		for _, s := range c.SystemControls {
			spec.Sysctls[aws.ToString(s.Namespace)] = aws.ToString(s.Value)
		}
		spec.Containers = append(spec.Containers, r)
	}
	networked(&spec, d, t, host)
	return spec
}

// sharedAs is what a volume is known by beyond its task; empty: it is the task's own.
func sharedAs(v types.Volume, host string) string {
	switch docker := v.DockerVolumeConfiguration; {
	case v.Host != nil && aws.ToString(v.Host.SourcePath) != "":
		return "host " + host + " " + *v.Host.SourcePath
	case docker != nil && docker.Scope == types.ScopeShared:
		return "docker " + host + " " + aws.ToString(v.Name)
	}
	return ""
}

// mountsOf is what a container mounts, each path once: its own mounts hide those of
// containers that it takes volumes from, and a later one's those of an earlier, as
// Docker has it.
func mountsOf(d types.TaskDefinition, c types.ContainerDefinition) (list []run.Mount) {
	add := func(m run.Mount) {
		list = append(slices.DeleteFunc(list, func(o run.Mount) bool { return path.Clean(o.Path) == path.Clean(m.Path) }), m)
	}
	for _, from := range c.VolumesFrom {
		i := slices.IndexFunc(d.ContainerDefinitions, func(c types.ContainerDefinition) bool { return *c.Name == aws.ToString(from.SourceContainer) })
		for _, m := range mountsOf(d, d.ContainerDefinitions[i]) {
			m.ReadOnly = m.ReadOnly || aws.ToBool(from.ReadOnly)
			add(m)
		}
	}
	for _, m := range c.MountPoints {
		add(run.Mount{Volume: aws.ToString(m.SourceVolume), Path: aws.ToString(m.ContainerPath), ReadOnly: aws.ToBool(m.ReadOnly)})
	}
	return list
}

// containerSpec is what a container's definition says by itself.
func containerSpec(c types.ContainerDefinition) run.Container {
	r := run.Container{
		Name: *c.Name, Entrypoint: c.EntryPoint, Command: c.Command, Workdir: aws.ToString(c.WorkingDirectory), User: aws.ToString(c.User),
		Memory: int64(aws.ToInt32(c.Memory)) * mib, Shares: int64(c.Cpu), StopTimeout: 30 * time.Second,
		ReadOnly: aws.ToBool(c.ReadonlyRootFilesystem), Terminal: aws.ToBool(c.PseudoTerminal), Input: aws.ToBool(c.Interactive),
		Hostname: aws.ToString(c.Hostname), DNS: c.DnsServers, Search: c.DnsSearchDomains, GPUs: gpusOf(c),
		Again:       c.RestartPolicy != nil && aws.ToBool(c.RestartPolicy.Enabled),
		NoNewRights: slices.ContainsFunc(c.DockerSecurityOptions, func(o string) bool { return strings.HasPrefix(o, "no-new-privileges") }),
	}
	if c.StopTimeout != nil {
		r.StopTimeout = time.Duration(*c.StopTimeout) * time.Second
	}
	for _, h := range c.ExtraHosts {
		r.Hosts = append(r.Hosts, aws.ToString(h.IpAddress)+" "+aws.ToString(h.Hostname))
	}
	for _, u := range c.Ulimits {
		r.Ulimits = append(r.Ulimits, run.Ulimit{Name: string(u.Name), Soft: int64(u.SoftLimit), Hard: int64(u.HardLimit)})
	}
	if l := c.LinuxParameters; l != nil {
		r.Init, r.SharedMemory = aws.ToBool(l.InitProcessEnabled), int64(aws.ToInt32(l.SharedMemorySize))*mib
		for _, t := range l.Tmpfs {
			r.Tmpfs = append(r.Tmpfs, run.Tmpfs{Path: aws.ToString(t.ContainerPath), Size: int64(t.Size) * mib, Options: t.MountOptions})
		}
		if l.Capabilities != nil {
			r.Add, r.Drop = l.Capabilities.Add, l.Capabilities.Drop
		}
	}
	return r
}

// executionEnv is how ECS names where a task runs; documented for EC2 and Fargate,
// guessed for Managed Instances.
func executionEnv(launched types.LaunchType) string {
	switch launched {
	case types.LaunchTypeFargate:
		return "AWS_ECS_FARGATE"
	case types.LaunchTypeManagedInstances:
		return "AWS_ECS_MANAGED_INSTANCES"
	}
	return "AWS_ECS_EC2"
}
