package ecsd

import (
	"context"
	"fmt"
	"time"

	"serin/internal/arn"
	"serin/internal/events"
	"serin/internal/run"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// Deps is what ECS needs of other services, in ECS's words. The stage fits
// them together.
type Deps struct {
	Traffic  Traffic
	Images   Images
	Logs     Logs
	Secrets  Secrets
	Roles    Roles
	Alarms   Alarms
	Machines Machines
	Groups   Groups
	Events   *events.Log
	// SpotInterruptions is how often Spot takes an instance back by chance, an hour.
	SpotInterruptions float64
	// Inside is what a container finds in its environment: where the stage is, what
	// it tells the container of itself, and its role's credentials, if it has a role.
	Inside func(Keys) []string
	// Stream is the URL at which a session's client finds it.
	Stream func(session string) string
	// Function invokes what stands in for a Lambda function, by its ARN.
	Function func(ctx context.Context, functionARN string, payload []byte) ([]byte, error)
}

// Traffic is the load balancers.
type Traffic interface {
	// Weights reads a listener rule, or a listener of a network load balancer: what
	// is wanted and what is in force.
	Weights(ruleARN string) (wanted, inForce []Share, err error)
	SetWeights(tx *store.Tx, ruleARN string, weights []Share) error
	Group(groupARN string) (g TargetGroup, exists bool)
	Register(tx *store.Tx, groupARN string, m Member) error
	Deregister(tx *store.Tx, groupARN string, m Member) error
	// Health is the health of a group's targets, by Member.String.
	Health(groupARN string) map[string]TargetHealth
	// Observations are the tables whose changes may change an answer above.
	Observations() []store.AnyTable
	// About is the ARNs of what a row of them is about.
	About(store.Key) []string
}

// TargetGroup is what a target group speaks and to whom, and whether a rule forwards to it.
type TargetGroup struct {
	Protocol string
	Targets  string // their kind: ip or instance
	Used     bool
}

// Member is a member of a target group: an address, or an instance and where it is.
type Member struct {
	ID, Address string
	Port        int32
}

func (m Member) String() string { return fmt.Sprintf("%s:%d", m.ID, m.Port) }

// Share is a target group's weight in a rule.
type Share struct {
	Group  string
	Weight int
}

// TargetHealth is a target's state and why, in ELB's words.
type TargetHealth struct{ State, Description string }

// Images finds where an image is to be pulled from, and with what.
type Images interface {
	Resolve(ctx context.Context, scope arn.Scope, image string, as Actor) (ref string, auth run.Auth, err error)
}

// Logs is CloudWatch Logs, written to as the execution role.
type Logs interface {
	// Open makes sure that a stream can be written: the group is there, or is
	// made where create says so and the role may.
	Open(scope arn.Scope, as Actor, group, stream string, create bool) error
	// Put writes events, or drops them where the role may not, as the driver does.
	Put(scope arn.Scope, as Actor, group, stream string, events []LogEvent) error
}

// LogEvent is one line of a container.
type LogEvent struct {
	At      time.Time // stage time
	Message string
}

// Alarms is CloudWatch. ECS asks it as itself, not as a role.
type Alarms interface {
	// Alarm says whether an alarm fires, and how long it looks back: its period
	// times its evaluation periods. ok is false where there is none of the name.
	Alarm(scope arn.Scope, name string) (firing bool, evaluation time.Duration, ok bool)
	// Observations are the tables whose changes may change an answer.
	Observations() []store.AnyTable
	// About is the alarm that a row of them is about; ok is false for other tables.
	About(store.Key) (scope arn.Scope, name string, ok bool)
}

// Machines is EC2 as ECS buys instances of it.
type Machines interface {
	// Network is the zone of each subnet and the VPC of all; an error says what is
	// not there, or that they are of several VPCs, in AWS's words.
	Network(scope arn.Scope, subnets, groups []string) (zones map[string]string, vpc string, err error)
	// Launch makes an instance and returns its id, or says in EC2's words why there is
	// none.
	Launch(tx *store.Tx, scope arn.Scope, m Machine) (string, error)
	Terminate(tx *store.Tx, scope arn.Scope, id string, at time.Time)
}

// Machine is an instance to launch.
type Machine struct {
	Type, Zone, Subnet string
	Groups             []string
	Spot               bool
	At                 time.Time
	Tags               []tags.Tag
}

// managedTags are those that ECS gives the instances that it manages, documented.
func managedTags(cluster, provider, instance string) []tags.Tag {
	return []tags.Tag{
		{Key: "AmazonECSManaged", Value: "true"}, {Key: "AmazonECSCreated", Value: "true"}, {Key: "aws:ecs:clusterName", Value: cluster},
		{Key: "aws:ecs:capacityProviderName", Value: provider}, {Key: "aws:ecs:containerInstanceId", Value: instance}, {Key: "aws:ec2:managed-launch", Value: "ecs-managed-instances"},
	}
}

// Groups is the Auto Scaling groups, as ECS manages them with its own role.
type Groups interface {
	// Find finds a group by its name or ARN.
	Find(tx *store.Tx, scope arn.Scope, nameOrARN string) (Group, bool)
	// Hosts is the instances of all groups.
	Hosts(tx *store.Tx, scope arn.Scope) []Host
	// Desire asks for a number of instances.
	Desire(tx *store.Tx, scope arn.Scope, name string, n int)
	// Manage marks a group as ECS's, which drains its instances before they end, or not.
	Manage(tx *store.Tx, scope arn.Scope, name string, drain bool)
	// Protect protects an instance from scaling in, or no more.
	Protect(tx *store.Tx, scope arn.Scope, id string, protect bool)
	// Drained lets an instance end that waited to be drained.
	Drained(tx *store.Tx, scope arn.Scope, id string)
	// Observations are the tables whose changes may change an answer.
	Observations() []store.AnyTable
}

// Group is an Auto Scaling group.
type Group struct {
	Name, ARN, Type   string
	Min, Max, Desired int
	Protect           bool // new instances from scaling in
	Subnets           []string
}

// Host is an instance of a group.
type Host struct {
	ID, Group          string
	Type, Zone, Subnet string
	Profile, UserData  string
	Leaving            bool // it ends, or waits to be drained
	Waiting            bool // for that
	Launched           time.Time
}

// Roles is IAM and STS as ECS itself uses them.
type Roles interface {
	// Check returns why a service cannot act as a role, or may not do what it
	// must, in AWS's words; nil when it may. The resource is * where none can be named.
	Check(as Actor, action, resource string) error
	// MayLaunch returns why ECS, as an infrastructure role, may not launch instances
	// of a profile, in EC2's words; nil when it may.
	MayLaunch(scope arn.Scope, infrastructureRole, profile string) error
	// MayRegister returns why an instance with a profile may not register with a
	// cluster, in AWS's words; nil when it may.
	MayRegister(scope arn.Scope, profile, instance, cluster string) error
	// LinkedRole makes ECS's own role in the account, where the caller may.
	LinkedRole(call *wire.Call) error
}

// Actor is an AWS service acting as a role, in a session that it names, for a
// resource: aws:SourceArn.
type Actor struct{ Role, Service, Session, Source string }

// ecsService is who assumes the roles of services and capacity providers.
const ecsService = "ecs.amazonaws.com"
