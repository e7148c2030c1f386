package ecsd

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/run"
	"serin/internal/store"
)

// What a container is told of itself and of its task, in the shape in which an ECS
// agent tells it, observed. What the stage does not know is left out.
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-response.html

// Keys are the secrets that a container asks the stage with.
type Keys struct {
	Credentials string // of its task's role; empty: it has none
	Metadata    string // of itself
}

// metadataLabel is before a container's key, as credentialsLabel is before its role's.
const metadataLabel = "metadata "

// Asker is a container that asked with its key, as it is now. Its task has not
// stopped.
type Asker struct {
	Scope       arn.Scope
	Task        string // ARN
	Cluster     string
	Credentials string // id of its role's; empty: it has none
	Host        Home   // zero where its task is on no instance
	Faults      bool   // it may ask for faults in its network

	key        string
	row        task
	at         int // of its task's containers
	definition types.TaskDefinition
	handle     run.Task // nil before it is made
	state      run.State
	vpc        string
}

// Home is the container instance that a task is on.
type Home struct {
	ARN, EC2 string
	Profile  string // ARN of the instance profile that it was launched with
}

// Asker finds the container that has a key.
func (a *API) Asker(metadata string) (q Asker, ok bool) {
	a.store.View(func(tx *store.Tx) {
		for key, t := range a.tasksBy.Scan(tx, metadataLabel+metadata) {
			scope, _ := arn.ParseKey(key)
			at := slices.IndexFunc(t.Containers, func(c container) bool { return c.Metadata == metadata })
			d, found := a.definitionOf(tx, scope, t)
			if ok = found && at >= 0; !ok {
				return
			}
			q = Asker{Scope: scope, Task: taskARN(scope, t), Cluster: t.Cluster, Credentials: t.Credentials, Faults: aws.ToBool(d.EnableFaultInjection), key: key, row: t, at: at, definition: d}
			if i, on := a.instances.Get(tx, instanceKey(scope, t.Cluster, t.Instance)); on && t.Instance != "" {
				p, _ := a.providers.Get(tx, providerKey(scope, i.Cluster, i.Provider))
				q.Host = Home{ARN: instanceARN(scope, i), EC2: i.EC2}
				if l := p.Managed.InstanceLaunchTemplate; l != nil {
					q.Host.Profile = aws.ToString(l.Ec2InstanceProfileArn)
				}
			}
			return
		}
	})
	if !ok {
		return q, false
	}
	if g := a.agent.Load(); g != nil {
		if q.handle, _ = g.handle(q.key); q.handle != nil {
			q.state, _ = q.handle.State()
		}
	}
	if q.row.Instance != "" {
		_, q.vpc, _ = a.deps.Machines.Network(q.Scope, []string{q.row.Subnet}, nil) // a subnet that is gone has none
	}
	return q, true
}

// TaskMetadata is what a task is told of itself.
type TaskMetadata struct {
	Cluster, TaskARN, Family, Revision string
	DesiredStatus, KnownStatus         string
	Limits                             *Limits             `json:",omitempty"`
	PullStartedAt                      *time.Time          `json:",omitempty"`
	PullStoppedAt                      *time.Time          `json:",omitempty"`
	ExecutionStoppedAt                 *time.Time          `json:",omitempty"`
	AvailabilityZone                   string              `json:",omitempty"`
	TaskTags                           map[string]string   `json:",omitempty"`
	ContainerInstanceTags              map[string]string   `json:",omitempty"`
	LaunchType                         types.LaunchType    `json:",omitempty"`
	Errors                             []MetadataError     `json:",omitempty"`
	Containers                         []ContainerMetadata `json:",omitempty"`
	VPCID                              string              `json:",omitempty"`
	ServiceName                        string              `json:",omitempty"`
	FaultInjectionEnabled              *bool               `json:",omitempty"`
}

// Limits are CPU, in vCPUs for a task and in units for a container, and MiB.
type Limits struct {
	CPU    float64 `json:",omitempty"`
	Memory int64   `json:",omitempty"`
}

// MetadataError is why a field is not there.
type MetadataError struct {
	ErrorField, ErrorCode, ErrorMessage string
	StatusCode                          int    `json:",omitempty"`
	RequestId                           string `json:",omitempty"`
	ResourceARN                         string
}

// ContainerMetadata is what a container is told of itself.
type ContainerMetadata struct {
	ID                         string `json:"DockerId"`
	Name, DockerName           string
	Image, ImageID             string
	Ports                      []PortMetadata    `json:",omitempty"`
	Labels                     map[string]string `json:",omitempty"`
	DesiredStatus, KnownStatus string
	ExitCode                   *int32 `json:",omitempty"`
	Limits                     Limits
	CreatedAt                  *time.Time `json:",omitempty"`
	StartedAt                  *time.Time `json:",omitempty"`
	FinishedAt                 *time.Time `json:",omitempty"`
	Type                       string
	Health                     *HealthMetadata   `json:",omitempty"`
	Volumes                    []VolumeMetadata  `json:",omitempty"`
	LogDriver                  types.LogDriver   `json:",omitempty"`
	LogOptions                 map[string]string `json:",omitempty"`
	ContainerARN               string            `json:",omitempty"`
	Networks                   []NetworkMetadata `json:",omitempty"`
	RestartCount               *int              `json:",omitempty"`
}

// PortMetadata is a port that a container's definition maps.
type PortMetadata struct {
	ContainerPort int32
	Protocol      types.TransportProtocol
	HostPort      int32  `json:",omitempty"`
	HostIP        string `json:"HostIp,omitempty"`
}

// HealthMetadata is a container's health as its check says.
type HealthMetadata struct {
	Status types.HealthStatus `json:"status"`
}

// VolumeMetadata is a directory that a container mounts; Source is its host's.
type VolumeMetadata struct {
	Source      string `json:",omitempty"`
	Destination string
}

// NetworkMetadata is an interface of a container.
type NetworkMetadata struct {
	NetworkMode     types.NetworkMode
	IPv4Addresses   []string `json:",omitempty"`
	AttachmentIndex *int     `json:",omitempty"`
}

// Statuses that only an agent speaks of, observed.
const (
	notPulled = "NONE"
	pulled    = "PULLED"
)

// statuses are a container's, in the order of its life.
var statuses = []string{notPulled, pulled, running, stopped}

// live is what the runtime knows of a container, before its row does.
func (q Asker) live(at int) (s run.ContainerState, ok bool) {
	if q.handle == nil || at >= len(q.state.Containers) {
		return s, false
	}
	return q.state.Containers[at], true
}

// known is a container's status as an agent knows it.
func (q Asker) known(at int) string {
	row := q.row.Containers[at]
	s, ok := q.live(at)
	switch {
	case ok && s.Runs():
		return running
	case ok && s.Starts > 0:
		return stopped
	case !ok && (row.Status == running || row.Status == stopped):
		return row.Status
	case !q.row.Times.PullStopped.IsZero():
		return pulled
	}
	return notPulled
}

// Metadata is what the asker's task is told, by version 3 or 4 of the endpoint.
func (q Asker) Metadata(version int) TaskMetadata {
	t := q.row
	family, revision, _ := strings.Cut(lastPart(t.TaskDefinition), ":")
	m := TaskMetadata{
		Cluster: q.clusterName(), TaskARN: q.Task, Family: family, Revision: revision, DesiredStatus: t.Desired, Limits: taskLimits(q.definition),
		PullStartedAt: utc(t.Times.PullStarted), PullStoppedAt: utc(t.Times.PullStopped), ExecutionStoppedAt: utc(t.Times.ExecutionStopped), AvailabilityZone: t.Zone,
	}
	earliest := len(statuses) - 1 // a task is as far as the last of its containers, observed
	for at := range t.Containers {
		earliest = min(earliest, slices.Index(statuses, q.known(at)))
		m.Containers = append(m.Containers, q.container(at, version))
	}
	m.KnownStatus = statuses[earliest]
	if version >= 4 {
		m.LaunchType, m.VPCID, m.ServiceName, m.FaultInjectionEnabled = t.LaunchType, q.vpc, t.Service, &q.Faults
	}
	return m
}

// Container is what the asker itself is told.
func (q Asker) Container(version int) ContainerMetadata { return q.container(q.at, version) }

// clusterName is the cluster's ARN, or on EC2 its name; documented by examples.
func (q Asker) clusterName() string {
	if q.row.LaunchType == types.LaunchTypeEc2 || q.row.LaunchType == types.LaunchTypeExternal {
		return q.Cluster
	}
	return clusterARN(q.Scope, q.Cluster)
}

// taskLimits is a task's size, where it has one.
func taskLimits(d types.TaskDefinition) *Limits {
	var l Limits
	if n, err := strconv.ParseFloat(aws.ToString(d.Cpu), 64); err == nil {
		l.CPU = n / 1024
	}
	if n, err := strconv.ParseInt(aws.ToString(d.Memory), 10, 64); err == nil {
		l.Memory = n
	}
	if l == (Limits{}) {
		return nil
	}
	return &l
}

// leastCPU is what an agent says of a container that reserves less, observed.
const leastCPU = 2

// runtimeID is what a container is known by below ECS.
func runtimeID(t task, name string) string { return t.ID + "-" + name }

func (q Asker) container(at, version int) ContainerMetadata {
	t, row, d := q.row, q.row.Containers[at], q.definition.ContainerDefinitions[at]
	m := ContainerMetadata{
		ID: runtimeID(t, row.Name), Name: row.Name, DockerName: row.Name, Image: row.Image, ImageID: row.Digest, Labels: q.labels(d), DesiredStatus: t.Desired, KnownStatus: q.known(at),
		Limits: Limits{CPU: float64(max(d.Cpu, leastCPU)), Memory: int64(aws.ToInt32(d.Memory))}, Type: "NORMAL", Ports: q.ports(d), Volumes: q.volumes(d), Networks: q.networks(at, version),
	}
	if q.handle != nil { // it is made when the images are there
		m.CreatedAt = utc(t.Times.PullStopped)
	}
	if s, ok := q.live(at); !ok || s.Starts == row.Starts {
		m.StartedAt = utc(row.Began)
		if m.KnownStatus == stopped {
			m.FinishedAt, m.ExitCode = utc(row.Ended), row.Exit
		}
	}
	if checkCommand(d.HealthCheck) != nil {
		m.Health = &HealthMetadata{cmp.Or(row.Health, types.HealthStatusUnknown)}
	}
	if version < 4 {
		return m
	}
	m.ContainerARN = containerARN(q.Scope, t, row)
	if l := d.LogConfiguration; l != nil {
		m.LogDriver, m.LogOptions = l.LogDriver, logged(l.Options, row.LogStream)
	}
	if d.RestartPolicy != nil && aws.ToBool(d.RestartPolicy.Enabled) {
		s, ok := q.live(at)
		if !ok {
			s.Starts = row.Starts
		}
		m.RestartCount = new(max(s.Starts-1, 0))
	}
	return m
}

// labels are a container's own and ECS's, documented.
func (q Asker) labels(d types.ContainerDefinition) map[string]string {
	family, revision, _ := strings.Cut(lastPart(q.row.TaskDefinition), ":")
	all := map[string]string{}
	maps.Copy(all, d.DockerLabels)
	maps.Copy(all, map[string]string{
		"com.amazonaws.ecs.cluster": q.clusterName(), "com.amazonaws.ecs.container-name": *d.Name, "com.amazonaws.ecs.task-arn": q.Task,
		"com.amazonaws.ecs.task-definition-family": family, "com.amazonaws.ecs.task-definition-version": revision,
	})
	return all
}

// ports are those that the definition maps, of a range each (guessed); where the task
// has an address of its own its host's are the same.
func (q Asker) ports(d types.ContainerDefinition) (list []PortMetadata) {
	for _, p := range d.PortMappings {
		r := insideOf(p)
		for port := r.first; port <= r.last; port++ {
			m := PortMetadata{ContainerPort: port, Protocol: p.Protocol}
			if q.definition.NetworkMode == types.NetworkModeAwsvpc {
				m.HostPort = m.ContainerPort
			}
			for _, h := range q.row.Ports {
				if h.Container == *d.Name && h.Inside <= port && port <= h.Inside+h.More && h.protocol() == p.Protocol {
					if m.HostPort = h.Host + port - h.Inside; modeOf(q.definition) == types.NetworkModeBridge {
						m.HostIP = "0.0.0.0"
					}
				}
			}
			list = append(list, m)
		}
	}
	return list
}

func (q Asker) volumes(d types.ContainerDefinition) (list []VolumeMetadata) {
	for _, mount := range mountsOf(q.definition, d) {
		v := VolumeMetadata{Destination: mount.Path}
		for _, volume := range q.definition.Volumes {
			if aws.ToString(volume.Name) == mount.Volume && volume.Host != nil {
				v.Source = aws.ToString(volume.Host.SourcePath)
			}
		}
		list = append(list, v)
	}
	return list
}

// networks is the container's one interface, once it has an address: the task's, or
// on a bridge its own. A host's addresses are not told.
func (q Asker) networks(at, version int) []NetworkMetadata {
	mode := modeOf(q.definition)
	if mode != types.NetworkModeAwsvpc {
		s, ok := q.live(at)
		switch {
		case !ok || mode == types.NetworkModeBridge && !s.Address.IsValid():
			return nil
		case s.Address.IsValid():
			return []NetworkMetadata{{NetworkMode: mode, IPv4Addresses: []string{s.Address.String()}}}
		}
		return []NetworkMetadata{{NetworkMode: mode}}
	}
	address := q.row.Address
	if q.handle != nil && q.handle.Address().IsValid() {
		address = q.handle.Address().String()
	}
	if address == "" {
		return nil
	}
	n := NetworkMetadata{NetworkMode: mode, IPv4Addresses: []string{address}}
	if version >= 4 {
		n.AttachmentIndex = new(0)
	}
	return []NetworkMetadata{n}
}

// logged is a log driver's options as the driver has them: the stream, where its
// prefix was asked for; documented by examples.
func logged(options map[string]string, stream string) map[string]string {
	all := maps.Clone(options)
	if _, prefixed := all["awslogs-stream-prefix"]; prefixed && stream != "" {
		delete(all, "awslogs-stream-prefix")
		all["awslogs-stream"] = stream
	}
	return all
}

func utc(t time.Time) *time.Time { return pointer(t.UTC()) }
