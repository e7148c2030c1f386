// Package ecsd is the stage's ECS control plane.
//
// A handler writes rows and returns. The controller (controller.go) watches the
// rows of all services: it observes, asks package rollout what follows, and
// writes task rows and listener weights. The agent (agent.go) makes the tasks'
// rows true: it pulls, starts, drains and stops, and writes back what it sees.
// So every count that is told is a fact about processes, and a crash anywhere
// is followed by the same loops looking at the same rows.
package ecsd

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/rollout"
	"serin/internal/run"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// API performs ECS's operations.
type API struct {
	store   *store.Store
	clock   *clock.Clock
	log     *slog.Logger
	runtime run.Runtime
	deps    Deps

	clusters    *store.Table[cluster]
	families    *store.Table[family]
	definitions *store.Table[definition]
	services    *store.Table[service]
	revisions   *store.Table[revision]
	deployments *store.Table[deployment]
	sets        *store.Table[taskSet]
	tasks       *store.Table[task]
	offsets     *store.Table[offset]
	providers   *store.Table[provider]
	instances   *store.Table[instance]
	denials     *store.Table[denial]
	hosts       *store.Table[host]
	started     *store.Table[started]
	sessions    *store.Table[execSession]
	tags        *tags.Table
	naming      *wire.Naming // of events

	tasksBy     *store.Index[task]       // revision and target groups, by ARN, id of credentials, keys of containers, instance, or cluster while it waits for one
	revisionsBy *store.Index[revision]   // target groups and rules, by ARN
	watching    *store.Index[deployment] // that run: alarms that they watch, by key, and whether they call hooks

	wakeController chan struct{}
	wakeAgent      chan struct{}
	wakeCapacity   chan struct{}

	agent    atomic.Pointer[agent] // that runs; nil before
	observed observed
}

type cluster struct {
	Name      string
	Status    string // ACTIVE, INACTIVE
	Created   time.Time
	Providers []string // that are associated, of whatever kind
	Strategy  []types.CapacityProviderStrategyItem
	Exec      *types.ExecuteCommandConfiguration
	Hosts     bool // instances of Auto Scaling groups have registered: tasks of launch type EC2 run on such
}

type family struct{ Last int32 } // the newest revision's number

type service struct {
	Cluster, Name  string
	Status         string                         // ACTIVE, DRAINING, INACTIVE
	Controller     types.DeploymentControllerType // ECS where it is empty
	Desired        int
	TaskDefinition string // ARN; empty where there is no primary task set
	LoadBalancers  []types.LoadBalancer
	Network        *types.NetworkConfiguration
	Config         types.DeploymentConfiguration
	HookDetails    details
	Capacity       []types.CapacityProviderStrategyItem
	LaunchType     types.LaunchType
	Grace          *int32 // health check grace period, seconds
	Created        time.Time
	CreatedBy      string
	ManagedTags    bool
	Exec           bool // its new tasks have an agent that runs commands
	PropagateTags  types.PropagateTags
	Request        string // tells the request that made it from others
	Deployment     string // ARN of the newest service deployment
	Steady         bool   // the steady state was announced
	Unbalanced     bool   // tasks are moved between zones, as was announced
	Rebalance      types.AvailabilityZoneRebalancing
	RebalanceAt    time.Time // not before
	Constraints    []types.PlacementConstraint
	Placement      []types.PlacementStrategy
	Events         []event // newest first, at most 100
}

type event struct {
	ID      string
	At      time.Time
	Message string
}

// revision is an immutable record of what a deployment or a task set deploys, and
// what has been learned of it: image digests, failures.
type revision struct {
	ARN            string
	Legacy         string // ecs-svc/…: the deployment id of DescribeServices, or the task set's
	Set            bool   // it is a task set's
	Service        string // key of the service
	TaskDefinition string
	LoadBalancers  []types.LoadBalancer
	Network        *types.NetworkConfiguration
	Capacity       []types.CapacityProviderStrategyItem
	LaunchType     types.LaunchType
	Created        time.Time
	Groups         []string          // target group of each load balancer, once resolved
	Images         map[string]string // container → digest

	FailedToStart   int
	FailedUnhealthy int
	LastFailure     time.Time // stage time; launches wait after it
	Completed       bool      // it has been in service
}

type deployment struct {
	ARN            string
	Service        string   // key of the service
	Source, Target string   // revision ARNs; Source is empty for the first
	Others         []string // revisions that an interrupted deployment left behind
	State          rollout.State
	Config         types.DeploymentConfiguration
	Created        time.Time
	Updated        time.Time
	StopRequested  bool
	Answers        []rollout.Answer // of hooks
	Invocations    []invocation     // of functions that said they are in progress
	// HookDetails are of the configuration, Said what each hook's function said for
	// its next call.
	HookDetails details
	Said        details
	Superseded  bool
	Resolved    bool   // the target groups were chosen
	Broken      string // why the traffic resources cannot be used
	Threshold   int    // of the breaker, at the last look
	Wanted      wanted // at the last look
	// Counts when it ended; while it runs they are counted.
	Final *finalCounts
	Hints []string // that were given
}

// wanted is how many tasks of each revision are asked for.
type wanted struct{ Source, Target int }

type finalCounts struct{ Source, Target [3]int } // requested, pending, running

type task struct {
	ID, Cluster, Service string // Service is empty for a task of its own
	Revision             string // ARN
	StartedBy            string
	Group                string
	TaskDefinition       string
	Desired, Last        string
	StopCode             types.TaskStopCode
	StopReason           string
	Unhealthy            bool // it was replaced for failing health checks
	Address              string
	Targets              []registration
	Containers           []container
	Version              int64
	Times                times
	Network              *types.NetworkConfiguration
	LaunchType           types.LaunchType
	Overrides            *types.TaskOverride
	Constraints          []types.PlacementConstraint // beside its definition's
	Placement            []types.PlacementStrategy
	Provider             string     // capacity provider; empty for a launch type
	Instance             string     // id of the container instance; empty while it waits for one
	Zone, Subnet         string     // of the instance
	GPUs                 []string   // of the instance, that are its own
	Ports                []hostPort // of the instance, or of its cluster's one host
	In                   string     // zone that it is started in, to balance a service
	For                  string     // id of the task that it stands in for then
	Move                 string     // zone that another is started in before this one stops
	Protected            time.Time  // until when it is not stopped to scale in
	Attachment           string
	Exec                 bool   // its containers have an agent that runs commands
	Credentials          string // id by which its containers get its role's credentials
}

type registration struct {
	Group    string
	Port     int32
	Instance string // EC2's id; empty: it is the task's own address
}

type container struct {
	Name, ID, Image, Digest string
	Metadata                string // key by which it asks about itself, a secret
	Status                  string
	Starts                  int                // how often it was started
	Stays                   bool               // it has ended for good: it could not be started again
	Began, Ended            time.Time          // of the last time it ran, stage time
	Health                  types.HealthStatus // as its check says; empty before
	Exit                    *int32
	Reason                  string
	LogGroup, LogStream     string
}

type times struct {
	Created, PullStarted, PullStopped, Started, Stopping, ExecutionStopped, Stopped time.Time
}

type offset struct{ At int64 } // bytes of a container's output that are in its log stream

// New adds ECS's tables to the store.
func New(s *store.Store, c *clock.Clock, log *slog.Logger, r run.Runtime, d Deps) *API {
	a := &API{
		store: s, clock: c, log: log, runtime: r, deps: d,
		clusters:    store.NewTable[cluster](s, "ecs/clusters"),
		families:    store.NewTable[family](s, "ecs/families"),
		definitions: store.NewTable[definition](s, "ecs/definitions"),
		services:    store.NewTable[service](s, "ecs/services"),
		revisions:   store.NewTable[revision](s, "ecs/revisions"),
		deployments: store.NewTable[deployment](s, "ecs/deployments"),
		sets:        store.NewTable[taskSet](s, "ecs/sets"),
		tasks:       store.NewTable[task](s, "ecs/tasks"),
		offsets:     store.NewTable[offset](s, "ecs/offsets"),
		providers:   store.NewTable[provider](s, "ecs/providers"),
		instances:   store.NewTable[instance](s, "ecs/instances"),
		denials:     store.NewTable[denial](s, "ecs/denials"),
		hosts:       store.NewTable[host](s, "ecs/hosts"),
		started:     store.NewTable[started](s, "ecs/started"),
		sessions:    store.NewTable[execSession](s, "ecs/sessions"),
		tags:        tags.NewTable(s, "ecs/tags", tags.Exact),
		naming:      &wire.Naming{Lower: true, ISO: true, Unions: unions()},

		wakeController: make(chan struct{}, 1),
		wakeAgent:      make(chan struct{}, 1),
		wakeCapacity:   make(chan struct{}, 1),
	}
	a.tasksBy = store.NewIndex(s, a.tasks, func(key string, t task) []string {
		if t.Last == stopped {
			return nil
		}
		labels := []string{t.Revision}
		if t.Credentials != "" {
			labels = append(labels, credentialsLabel+t.Credentials)
		}
		for _, c := range t.Containers {
			if c.Metadata != "" {
				labels = append(labels, metadataLabel+c.Metadata)
			}
		}
		for _, r := range t.Targets {
			labels = append(labels, r.Group)
		}
		switch {
		case t.Instance != "":
			labels = append(labels, instanceLabel+t.Instance)
		case managedTask(t) && t.Last == provisioning:
			scope, _ := arn.ParseKey(key)
			labels = append(labels, waitingLabel+scope.Key(t.Cluster))
		}
		return labels
	})
	a.revisionsBy = store.NewIndex(s, a.revisions, func(_ string, r revision) []string { return trafficOf(r.LoadBalancers) })
	a.watching = store.NewIndex(s, a.deployments, func(_ string, d deployment) (labels []string) {
		if d.State.Status.Terminal() {
			return nil
		}
		if d.State.Calls != nil {
			labels = append(labels, callingLabel)
		}
		scope, _ := arn.ParseKey(d.Service)
		for _, name := range watched(d.Config) {
			labels = append(labels, scope.Key(name))
		}
		return labels
	})
	return a
}

// credentialsLabel is before an id of credentials, which is a secret: nothing else
// that an index knows may be taken for one.
const credentialsLabel = "credentials "

// trafficOf is every target group and listener rule that load balancers name.
func trafficOf(lbs []types.LoadBalancer) (arns []string) {
	for _, lb := range lbs {
		names := []*string{lb.TargetGroupArn}
		if adv := lb.AdvancedConfiguration; adv != nil {
			names = append(names, adv.AlternateTargetGroupArn, adv.ProductionListenerRule, adv.TestListenerRule)
		}
		for _, n := range names {
			if aws.ToString(n) != "" {
				arns = append(arns, *n)
			}
		}
	}
	return arns
}

// Keys: clusters NAME; services and tasks CLUSTER/NAME and CLUSTER/ID;
// definitions FAMILY:REVISION; revisions and deployments CLUSTER/SERVICE/ID; task
// sets CLUSTER/SERVICE/ecs-svc/ID.

func clusterARN(s arn.Scope, name string) string { return s.For("ecs", "cluster/"+name).String() }
func serviceARN(s arn.Scope, cluster, name string) string {
	return s.For("ecs", "service/"+cluster+"/"+name).String()
}
func taskARN(s arn.Scope, t task) string {
	return s.For("ecs", "task/"+t.Cluster+"/"+t.ID).String()
}
func containerARN(s arn.Scope, t task, c container) string {
	return s.For("ecs", "container/"+t.Cluster+"/"+t.ID+"/"+c.ID).String()
}

// rowKey is the key of a row that is named by an ARN of the kind: service/C/S.
func rowKey(resourceARN, kind string) (string, bool) {
	a, err := arn.Parse(resourceARN)
	if err != nil || a.Service != "ecs" {
		return "", false
	}
	rest, ok := a.Under(kind + "/")
	return a.Scope().Key(rest), ok
}

// lastPart is what follows the last slash of a name or ARN.
func lastPart(nameOrARN string) string { return nameOrARN[strings.LastIndexByte(nameOrARN, '/')+1:] }

// clusterName is the name in a name, an ARN or nothing, which is "default".
func clusterName(nameOrARN *string) string {
	if n := lastPart(aws.ToString(nameOrARN)); n != "" {
		return n
	}
	return "default"
}

func (a *API) cluster(tx *store.Tx, s arn.Scope, nameOrARN *string) (cluster, error) {
	c, ok := a.clusters.Get(tx, s.Key(clusterName(nameOrARN)))
	if key, named := rowKey(aws.ToString(nameOrARN), "cluster"); named && !within(s, key) {
		ok = false
	}
	if !ok || c.Status != "ACTIVE" {
		return c, &types.ClusterNotFoundException{Message: new("Cluster not found.")}
	}
	return c, nil
}

func invalid(format string, args ...any) error {
	return &types.InvalidParameterException{Message: new(fmt.Sprintf(format, args...))}
}

func client(format string, args ...any) error {
	return &types.ClientException{Message: new(fmt.Sprintf(format, args...))}
}

// page cuts a list of ARNs as ECS does.
func page(items []string, token *string, max *int32, usual, most int) ([]string, *string, error) {
	limit := usual
	if max != nil {
		if *max < 1 || int(*max) > most {
			return nil, nil, invalid("maxResults must be between 1 and %d, got %d", most, *max)
		}
		limit = int(*max)
	}
	items, next, err := wire.Page(items, func(s string) string { return s }, aws.ToString(token), limit)
	if err != nil {
		return nil, nil, invalid("Invalid token.")
	}
	if next == "" {
		return items, nil, nil
	}
	return items, &next, nil
}

func pointer(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }
