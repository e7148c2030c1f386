// Package autoscalingd is the stage's EC2 Auto Scaling, as far as a capacity
// provider of ECS needs it: groups that keep a number of instances of a launch
// template in their subnets, protect some from scaling in, and let ECS drain
// those that leave.
//
// A handler writes a group's row; the loop (loop.go) launches and ends members
// until they are as many as is desired, and notes each in an activity. What ECS
// asks of the groups beside their API is in ecs.go. The members are simulated,
// like all instances of the stage.
package autoscalingd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// API performs Auto Scaling's operations.
type API struct {
	store      *store.Store
	clock      *clock.Clock
	deps       Deps
	groups     *store.Table[group]
	members    *store.Table[member]
	activities *store.Table[activity]
	wake       chan struct{}
}

// Deps is what Auto Scaling needs of others.
type Deps struct{ Machines Machines }

// Machines is EC2 as Auto Scaling launches instances of it.
type Machines interface {
	// Template is a version of a launch template; an error has EC2's words.
	Template(scope arn.Scope, id, name, version string) (Template, error)
	// Places is the subnets with their zones, or the default subnets of zones; an
	// error has EC2's words: for security groups, too, that their VPC does not have.
	Places(scope arn.Scope, subnets, zones, groups []string) ([]Place, error)
	// Launch makes an instance and returns its id, or says in EC2's words why there
	// is none to be had.
	Launch(tx *store.Tx, scope arn.Scope, m Machine) (string, error)
	Terminate(tx *store.Tx, scope arn.Scope, id string, at time.Time)
	// MayLaunch returns why who calls may not launch instances of a template in
	// places, or why nobody can, in EC2's words; nil when it may.
	MayLaunch(ctx context.Context, call *wire.Call, t Template, places []Place) error
	// LinkedRole makes Auto Scaling's own role in the account, where there is none.
	LinkedRole(ctx context.Context, call *wire.Call) error
}

// Template is what a launch template says of instances.
type Template struct {
	ID, Name          string
	Type, Image       string
	Profile, UserData string
	SecurityGroups    []string
	Tags              []tags.Tag
	Asked             string // the id or name that it was asked for by
}

// Place is a subnet and its zone.
type Place struct{ Subnet, Zone string }

// Machine is an instance to launch.
type Machine struct {
	Group string
	Template
	Place
	At time.Time
}

// group is the row of an Auto Scaling group.
type group struct {
	Name, ARN         string
	Min, Max, Desired int
	Template          types.LaunchTemplateSpecification
	Zones, Subnets    []string // one of them
	Protect           bool     // new members from scaling in
	Drain             bool     // ECS drains members before they end
	Deleting          bool
	Tags              []types.TagDescription
	Created           time.Time
	Retry             time.Time // not launched before: the last launch failed
	Cooldown, Grace   int32
	Check             string // of health
	Policies          []string
}

// member is the row of a group's instance.
type member struct {
	ID, Group                string
	Type, Image              string
	Zone, Subnet             string
	Profile, UserData        string
	TemplateID, TemplateName string
	State                    types.LifecycleState
	Protected                bool
	Launched                 time.Time
	Due                      time.Time // when it goes on to the next state
	Activity                 string    // id of its last
}

// activity is the row of something that a group did.
type activity struct {
	ID, Group                         string
	Description, Cause, Details, Said string
	Status                            types.ScalingActivityStatusCode
	Start, End                        time.Time
}

// New adds Auto Scaling's tables to the store.
func New(s *store.Store, c *clock.Clock, d Deps) *API {
	return &API{
		store: s, clock: c, deps: d, wake: make(chan struct{}, 1),
		groups: store.NewTable[group](s, "autoscaling/groups"), members: store.NewTable[member](s, "autoscaling/members"), activities: store.NewTable[activity](s, "autoscaling/activities"),
	}
}

// Keys: groups NAME; members ID; activities GROUP:ID, as a name has no colon.

// Service is Auto Scaling on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "autoscaling", Signing: "autoscaling", Protocol: wire.Query, Version: "2011-01-01", Namespace: "http://autoscaling.amazonaws.com/doc/2011-01-01/",
		Naming:  &wire.Naming{Except: map[string]string{"CpuPerformanceFactorRequest.References": "Reference"}},
		Status:  map[string]int{"AccessDenied": 403},
		Invalid: func(m string) error { return invalid("%s", m) },
		Types: map[string]wire.Members{
			"LaunchTemplateSpecification": {Performed: "LaunchTemplateId LaunchTemplateName Version"},
			"Tag":                         {Performed: "Key Value PropagateAtLaunch", Ignored: "ResourceId ResourceType"},
			"Filter":                      {Performed: "Name Values"},
		},
		Refused: notPerformed,
	}
	s.Register(a.groupOps()...)
	s.Register(a.memberOps()...)
	return s
}

func invalid(format string, args ...any) error {
	return &wire.Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

// nameOf is what stands before a group's name in its ARN.
const nameOf = ":autoScalingGroupName/"

// groupARN is the ARN of a group; its id is part of it.
func groupARN(scope arn.Scope, id, name string) string {
	return scope.For("autoscaling", "autoScalingGroup:"+id+nameOf+name).String()
}

// onGroup is the permission check of an operation on a group, whose id who asks
// does not know.
func (a *API) onGroup(c *wire.Call, action string, name *string) []wire.Check {
	check := wire.Check{Action: "autoscaling:" + action, Resource: groupARN(c.Scope, "*", aws.ToString(name)), Wild: true}
	a.store.View(func(tx *store.Tx) {
		if g, ok := a.groups.Get(tx, c.Scope.Key(aws.ToString(name))); ok {
			check.Resource, check.Wild = g.ARN, false
		}
	})
	return []wire.Check{check}
}

func anywhere(action string) []wire.Check {
	return []wire.Check{{Action: "autoscaling:" + action, Resource: "*"}}
}

// group finds a group by its name.
func (a *API) group(tx *store.Tx, scope arn.Scope, name *string) (group, error) {
	g, ok := a.groups.Get(tx, scope.Key(aws.ToString(name)))
	if !ok {
		return g, invalid("AutoScalingGroup name not found - AutoScalingGroup %s not found", aws.ToString(name))
	}
	return g, nil
}

// changeable finds a group that is not being deleted; the words are observed.
func (a *API) changeable(tx *store.Tx, scope arn.Scope, name *string) (group, error) {
	g, err := a.group(tx, scope, name)
	if err == nil && g.Deleting {
		err = invalid("The AutoScaling group may not be modified while it is pending delete")
	}
	return g, err
}

// membersOf is a group's members, oldest first.
func (a *API) membersOf(tx *store.Tx, scope arn.Scope, name string) (list []member) {
	for _, m := range a.members.Scan(tx, scope.Key("")) {
		if m.Group == name {
			list = append(list, m)
		}
	}
	sortMembers(list)
	return list
}

// leaving says that a member is on its way out.
func (m member) leaving() bool { return strings.HasPrefix(string(m.State), "Terminating") }

// page is a page of items: as many as are asked for, or as usual.
func page[T any](items []T, key func(T) string, token *string, size *int32, usual, most int) ([]T, *string, error) {
	limit := usual
	if size != nil {
		if *size < 1 || int(*size) > most {
			return nil, nil, invalid("1 validation error detected: Value '%d' at 'maxRecords' failed to satisfy constraint: Member must have value between 1 and %d", *size, most)
		}
		limit = int(*size)
	}
	items, next, err := wire.Page(items, key, aws.ToString(token), limit)
	if err != nil {
		return nil, nil, &types.InvalidNextToken{Message: new("The token '" + aws.ToString(token) + "' is invalid.")}
	}
	if next == "" {
		return items, nil, nil
	}
	return items, &next, nil
}
