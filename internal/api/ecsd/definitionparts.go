package ecsd

import (
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
)

// The parts of a container that its runtime is told of. Where AWS's words are not
// known they are guessed, as "Invalid setting for container …" and the member.

// wrong refuses a container's member in the form of AWS's own texts.
func wrong(container, format string, args ...any) error {
	return client("Invalid setting for container '%s'. "+format, append([]any{container}, args...)...)
}

// partChecks are what checkContainer asks about parts, in this order.
var partChecks = []func(*ecs.RegisterTaskDefinitionInput, types.ContainerDefinition) error{
	checkTimeouts, checkRestarts, checkMounts, checkUlimits, checkLinux, checkNames, checkLinks, checkSecurity, checkControls, checkGPUs,
}

// checkTimeouts: both texts are observed by others.
func checkTimeouts(_ *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	switch {
	case c.StartTimeout != nil && *c.StartTimeout < 2:
		return client("Granular start timeout on container '%s' must be at least 2 seconds.", *c.Name)
	case c.StopTimeout != nil && *c.StopTimeout < 2:
		return client("Granular stop timeout on container '%s' must be at least 2 seconds.", *c.Name)
	}
	return nil
}

// checkRestarts: the text of the period is observed.
func checkRestarts(_ *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	p := c.RestartPolicy
	switch {
	case p == nil:
	case p.Enabled == nil:
		return wrong(*c.Name, "'enabled' of 'restartPolicy' must be specified.")
	case len(p.IgnoredExitCodes) > 50:
		return client("The 'ignoredExitCodes' setting for container '%s' can have at most 50 items.", *c.Name)
	case p.RestartAttemptPeriod != nil && (*p.RestartAttemptPeriod < 60 || *p.RestartAttemptPeriod > 1800):
		return client("The 'restartAttemptPeriod' setting for container '%s' must be between 60 and 1800.", *c.Name)
	}
	return nil
}

// checkMounts: the texts of what does not exist are observed.
func checkMounts(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	at := map[string]bool{}
	for _, m := range c.MountPoints {
		volume, to := aws.ToString(m.SourceVolume), aws.ToString(m.ContainerPath)
		switch {
		case !slices.ContainsFunc(in.Volumes, func(v types.Volume) bool { return aws.ToString(v.Name) == volume }):
			return client("Unknown volume '%s'.", volume)
		case !path.IsAbs(to):
			return wrong(*c.Name, "'containerPath' of the mount point of volume '%s' must be an absolute path, got '%s'.", volume, to)
		case at[path.Clean(to)]:
			return wrong(*c.Name, "'mountPoints' has two volumes at '%s'.", to)
		}
		at[path.Clean(to)] = true
	}
	for _, from := range c.VolumesFrom {
		if name := aws.ToString(from.SourceContainer); !slices.ContainsFunc(in.ContainerDefinitions, func(c types.ContainerDefinition) bool { return aws.ToString(c.Name) == name }) {
			return client("Invalid 'volumesFrom' setting. Unknown container: '%s'.", name)
		}
	}
	return nil
}

// unlimited is a ulimit without a limit, observed.
const unlimited = -1

func checkUlimits(_ *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	seen := map[types.UlimitName]bool{}
	for _, u := range c.Ulimits {
		soft, hard := int64(u.SoftLimit), int64(u.HardLimit)
		switch {
		case u.Name == "":
			return wrong(*c.Name, "'name' of a ulimit must be specified.")
		case seen[u.Name]:
			return wrong(*c.Name, "'ulimits' has '%s' twice.", u.Name)
		case soft < unlimited || hard < unlimited:
			return wrong(*c.Name, "The limits of ulimit '%s' must not be negative, or -1 for none.", u.Name)
		case hard != unlimited && (soft == unlimited || soft > hard):
			return wrong(*c.Name, "The softLimit of ulimit '%s' must be less than or equal to its hardLimit.", u.Name)
		}
		seen[u.Name] = true
	}
	return nil
}

// addable are the capabilities of the kernel that can be added and dropped,
// documented; BPF is one of Managed Instances.
var addable = strings.Fields("ALL AUDIT_CONTROL AUDIT_WRITE BLOCK_SUSPEND BPF CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE " +
	"MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT " +
	"SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG SYSLOG WAKE_ALARM")

// tmpfsOptions are the options of a tmpfs mount, documented; the last six have a
// value.
var tmpfsOptions = strings.Fields("defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime nodiratime bind rbind unbindable runbindable " +
	"private rprivate shared rshared slave rslave relatime norelatime strictatime nostrictatime mode uid gid nr_inodes nr_blocks mpol")

// checkLinux: the text of a tmpfs's size is observed.
func checkLinux(_ *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	l := c.LinuxParameters
	if l == nil {
		return nil
	}
	if l.SharedMemorySize != nil && *l.SharedMemorySize < 0 {
		return wrong(*c.Name, "'sharedMemorySize' must not be negative.")
	}
	if l.Capabilities != nil {
		for _, name := range slices.Concat(l.Capabilities.Add, l.Capabilities.Drop) {
			if !slices.Contains(addable, name) {
				return wrong(*c.Name, "'capabilities' has '%s', which is no capability. Valid values are: %s.", name, strings.Join(addable, ", "))
			}
		}
	}
	for _, t := range l.Tmpfs {
		if !path.IsAbs(aws.ToString(t.ContainerPath)) {
			return wrong(*c.Name, "'containerPath' of a tmpfs must be an absolute path, got '%s'.", aws.ToString(t.ContainerPath))
		}
		if t.Size <= 0 {
			return client("The container has an invalid tmpfs size value specified. It must be a non-zero, non-negative integer.")
		}
		for _, option := range t.MountOptions {
			if name, _, _ := strings.Cut(option, "="); !slices.Contains(tmpfsOptions, name) {
				return wrong(*c.Name, "'mountOptions' of the tmpfs at '%s' has '%s', which is no option of a mount.", *t.ContainerPath, option)
			}
		}
	}
	return nil
}

var (
	hostNames   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)
	domainNames = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}$`)
)

// checkNames: what a network of its own excludes is observed, but for search domains,
// of which it is guessed.
func checkNames(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	if in.NetworkMode == types.NetworkModeAwsvpc {
		switch {
		case aws.ToString(c.Hostname) != "":
			return client("hostname is not supported on container when networkMode=awsvpc.")
		case len(c.ExtraHosts) > 0:
			return client("Extra hosts are not supported on container when networkMode=awsvpc.")
		case len(c.DnsServers) > 0:
			return client("DNS servers are not supported on container when networkMode=awsvpc.")
		case len(c.DnsSearchDomains) > 0:
			return client("DNS search domains are not supported on container when networkMode=awsvpc.")
		case aws.ToBool(c.DisableNetworking):
			return client("Disable Networking is not supported on container when networkMode=awsvpc.")
		}
	}
	if h := aws.ToString(c.Hostname); h != "" && !hostNames.MatchString(h) {
		return wrong(*c.Name, "'hostname' contains invalid characters or is too long: '%s'.", h)
	}
	for _, h := range c.ExtraHosts {
		if !domainNames.MatchString(aws.ToString(h.Hostname)) {
			return wrong(*c.Name, "'hostname' of an extra host contains invalid characters: '%s'.", aws.ToString(h.Hostname))
		}
		if _, err := netip.ParseAddr(aws.ToString(h.IpAddress)); err != nil {
			return wrong(*c.Name, "'ipAddress' of the extra host '%s' must be an address, got '%s'.", *h.Hostname, aws.ToString(h.IpAddress))
		}
	}
	for _, s := range c.DnsServers {
		if _, err := netip.ParseAddr(s); err != nil {
			return wrong(*c.Name, "'dnsServers' must have addresses, got '%s'.", s)
		}
	}
	for _, d := range c.DnsSearchDomains {
		if !domainNames.MatchString(d) {
			return wrong(*c.Name, "'dnsSearchDomains' has a name with invalid characters: '%s'.", d)
		}
	}
	return nil
}

// securityOptions are the beginnings of those that AWS has, documented.
var securityOptions = []string{"no-new-privileges", "apparmor:", "label:", "credentialspec:"}

func checkSecurity(_ *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	for _, o := range c.DockerSecurityOptions {
		if !slices.ContainsFunc(securityOptions, func(known string) bool { return strings.HasPrefix(o, known) }) {
			return wrong(*c.Name, "'dockerSecurityOptions' has '%s'. Valid values are: no-new-privileges, apparmor:PROFILE, label:value, credentialspec:CredentialSpecFilePath.", o)
		}
	}
	return nil
}

// ipcControls are the kernel's parameters of a namespace of processes'
// communication, documented.
var ipcControls = strings.Fields("kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced")

// ofIPC says whether a kernel's parameter is one of them.
func ofIPC(namespace string) bool {
	return slices.Contains(ipcControls, namespace) || strings.HasPrefix(namespace, "fs.mqueue.")
}

var netControls = regexp.MustCompile(`^net(\.[A-Za-z0-9_-]+)+$`)

func checkControls(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	for _, s := range c.SystemControls {
		name := aws.ToString(s.Namespace)
		net := netControls.MatchString(name)
		switch {
		case !net && !ofIPC(name):
			return wrong(*c.Name, "'systemControls' has the namespace '%s'. Valid are those of communication between processes, and those that begin with net.", name)
		case aws.ToString(s.Value) == "":
			return wrong(*c.Name, "'value' of the system control '%s' must be specified.", name)
		case net && in.NetworkMode == types.NetworkModeHost: // documented
			return wrong(*c.Name, "The system control '%s' is not supported when networkMode=host.", name)
		}
	}
	return nil
}

var parameterNames = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)

// checkSecrets: the texts of names used twice, of parameters of another account and
// of the role are observed, in this order.
func checkSecrets(account string, in *ecs.RegisterTaskDefinitionInput) error {
	secret := false
	for _, c := range in.ContainerDefinitions {
		names := map[string]bool{}
		for _, e := range c.Environment {
			names[aws.ToString(e.Name)] = true
		}
		for _, s := range c.Secrets {
			name := aws.ToString(s.Name)
			if name == "" || strings.ContainsAny(name, "=\x00") {
				return wrong(*c.Name, "'name' of a secret must be that of an environment variable, got '%s'.", name)
			}
			if names[name] {
				return client("The secret name must be unique and not shared with any new or existing environment variables set on the container, such as '%s'.", name)
			}
			if err := checkSecret(account, *c.Name, name, aws.ToString(s.ValueFrom)); err != nil {
				return err
			}
			names[name], secret = true, true
		}
	}
	if secret && aws.ToString(in.ExecutionRoleArn) == "" {
		return client("When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.")
	}
	return nil
}

func checkSecret(account, container, name, from string) error {
	if !arn.Is(from) {
		if !parameterNames.MatchString(from) {
			return wrong(container, "'valueFrom' of the secret '%s' must be an ARN, or the name of a parameter, got '%s'.", name, from)
		}
		return nil
	}
	a, err := arn.Parse(from)
	switch kind := secretService(from); {
	case err == nil && kind == "ssm" && strings.HasPrefix(a.Resource, "parameter/"):
		if a.Account != account {
			return client("The Systems Manager parameter ARN has a different account ID than the current account. The current account ID is %s and the ARN account ID is %s. Cross-account access for ARNs is not currently supported.", account, a.Account)
		}
		return nil
	case err == nil && kind == "secretsmanager" && strings.HasPrefix(a.Resource, "secret:"):
		if parts := strings.Count(a.Resource, ":"); parts == 1 || parts == 4 { // a key, a stage and an id follow, or nothing
			return nil
		}
	}
	return wrong(container, "'valueFrom' of the secret '%s' must be the ARN of a Systems Manager parameter or of a Secrets Manager secret, got '%s'.", name, from)
}

// secretService is who keeps a secret: ssm or secretsmanager.
func secretService(from string) string {
	if a, err := arn.Parse(from); err == nil {
		return a.Service
	}
	return "ssm"
}

// checkOrder asks that containers wait for what there is, and not for each other;
// the texts are observed but that of a circle.
func checkOrder(in *ecs.RegisterTaskDefinitionInput) error {
	by := map[string]types.ContainerDefinition{}
	for _, c := range in.ContainerDefinitions {
		by[*c.Name] = c
	}
	for _, c := range in.ContainerDefinitions {
		for _, d := range c.DependsOn {
			on, ok := by[aws.ToString(d.ContainerName)]
			essential := on.Essential == nil || *on.Essential
			switch {
			case !ok:
				return client("Cannot depend on container + '%s' because it does not exist", aws.ToString(d.ContainerName))
			case d.Condition == "":
				return wrong(*c.Name, "'condition' of 'dependsOn' must be one of COMPLETE, HEALTHY, START, SUCCESS.")
			case essential && (d.Condition == types.ContainerConditionSuccess || d.Condition == types.ContainerConditionComplete):
				return client("A dependency container with SUCCESS or COMPLETE condition cannot be an essential container")
			case d.Condition == types.ContainerConditionHealthy && checkCommand(on.HealthCheck) == nil:
				return client("A dependency container with HEALTHY condition must have health check configured")
			}
		}
	}
	done := map[string]bool{}
	for _, c := range in.ContainerDefinitions {
		if circular(by, *c.Name, map[string]bool{}, done) {
			return wrong(*c.Name, "'dependsOn', 'links' and 'volumesFrom' must not go in a circle.")
		}
	}
	return nil
}

// circular says whether a container waits, in the end, for one that waits for it.
// Volumes are those of a container that was started before.
func circular(by map[string]types.ContainerDefinition, name string, open, done map[string]bool) bool {
	if open[name] || done[name] {
		return open[name]
	}
	open[name] = true
	for _, d := range waitsFor(by[name]) {
		if circular(by, *d.ContainerName, open, done) {
			return true
		}
	}
	for _, v := range by[name].VolumesFrom {
		if circular(by, *v.SourceContainer, open, done) {
			return true
		}
	}
	delete(open, name)
	done[name] = true
	return false
}

// checkVolumes: the texts of a blank path and of a scope are observed.
func checkVolumes(in *ecs.RegisterTaskDefinitionInput) error {
	names := map[string]bool{}
	for _, v := range in.Volumes {
		name, docker := aws.ToString(v.Name), v.DockerVolumeConfiguration
		switch {
		case name == "":
			return client("Volume.name should not be null or empty.")
		case !familyName.MatchString(name):
			return client("Volume.name contains invalid characters: '%s'.", name)
		case names[name]:
			return client("Volume names must be unique within a task definition: '%s'.", name)
		case v.Host != nil && v.Host.SourcePath != nil && *v.Host.SourcePath == "":
			return client("host.sourcePath should not be blank.")
		case sourcePath(v) != "" && !path.IsAbs(sourcePath(v)):
			return client("host.sourcePath of volume '%s' must be an absolute path, got '%s'.", name, sourcePath(v))
		case docker != nil && v.Host != nil:
			return client("Volume '%s' must have one configuration, got 'host' and 'dockerVolumeConfiguration'.", name)
		case docker != nil && docker.Scope != types.ScopeShared && docker.Autoprovision != nil && !*docker.Autoprovision:
			return client("When 'scope' parameter is 'task', 'autoprovision' must either not be specified or set to 'True'.")
		}
		names[name] = true
	}
	return nil
}
