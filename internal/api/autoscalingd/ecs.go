package autoscalingd

import (
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"serin/internal/arn"
	"serin/internal/store"
)

// What ECS asks of groups and does to them, with the rights of its own role.

// Group is a group as ECS sees it.
type Group struct {
	Name, ARN, Type   string
	Min, Max, Desired int
	Protect           bool // new members from scaling in
	Subnets           []string
}

// Member is an instance of a group as ECS sees it.
type Member struct {
	ID, Group          string
	Type, Zone, Subnet string
	Profile, UserData  string
	Leaving            bool // it ends, or waits to be drained
	Waiting            bool // for that
	Launched           time.Time
}

// Find finds a group by its name or ARN.
func (a *API) Find(tx *store.Tx, scope arn.Scope, nameOrARN string) (Group, bool) {
	name := nameOrARN
	if arn.Is(nameOrARN) {
		_, name, _ = strings.Cut(nameOrARN, nameOf)
	}
	g, ok := a.groups.Get(tx, scope.Key(name))
	if !ok || g.Deleting || arn.Is(nameOrARN) && g.ARN != nameOrARN {
		return Group{}, false
	}
	out := Group{Name: g.Name, ARN: g.ARN, Min: g.Min, Max: g.Max, Desired: g.Desired, Protect: g.Protect, Subnets: g.Subnets}
	if t, err := a.template(scope, g); err == nil { // one that is gone launches nothing
		out.Type = t.Type
	}
	if len(out.Subnets) == 0 {
		places, _ := a.deps.Machines.Places(scope, nil, g.Zones, nil) // none: it can launch nothing either
		for _, p := range places {
			out.Subnets = append(out.Subnets, p.Subnet)
		}
	}
	return out, true
}

// Members is all instances of all groups of a scope, oldest first.
func (a *API) Members(tx *store.Tx, scope arn.Scope) (list []Member) {
	var rows []member
	for _, m := range a.members.Scan(tx, scope.Key("")) {
		rows = append(rows, m)
	}
	sortMembers(rows)
	for _, m := range rows {
		list = append(list, Member{ID: m.ID, Group: m.Group, Type: m.Type, Zone: m.Zone, Subnet: m.Subnet, Profile: m.Profile, UserData: m.UserData, Leaving: m.leaving(), Waiting: m.State == types.LifecycleStateTerminatingWait, Launched: m.Launched})
	}
	return list
}

// Desire asks for a number of members, within the group's limits.
func (a *API) Desire(tx *store.Tx, scope arn.Scope, name string, n int) {
	if g, ok := a.groups.Get(tx, scope.Key(name)); ok {
		g.Desired = min(max(n, g.Min), g.Max)
		a.groups.Put(tx, scope.Key(name), g)
	}
}

// Manage marks a group as one that ECS manages, and says whether ECS drains its
// members before they end.
func (a *API) Manage(tx *store.Tx, scope arn.Scope, name string, drain bool) {
	g, ok := a.groups.Get(tx, scope.Key(name))
	if !ok {
		return
	}
	g.Drain = drain
	const tag = "AmazonECSManaged"
	if !slices.ContainsFunc(g.Tags, func(t types.TagDescription) bool { return *t.Key == tag }) {
		g.Tags = append(slices.Clone(g.Tags), types.TagDescription{Key: aws.String(tag), Value: aws.String(""), PropagateAtLaunch: aws.Bool(true), ResourceId: &g.Name, ResourceType: aws.String("auto-scaling-group")})
	}
	a.groups.Put(tx, scope.Key(name), g)
}

// Protect protects a member from scaling in, or no more.
func (a *API) Protect(tx *store.Tx, scope arn.Scope, id string, protect bool) {
	if m, ok := a.members.Get(tx, scope.Key(id)); ok && m.Protected != protect && !m.leaving() {
		m.Protected = protect
		a.members.Put(tx, scope.Key(id), m)
	}
}

// Drained lets a member go that waited to be drained.
func (a *API) Drained(tx *store.Tx, scope arn.Scope, id string) {
	if m, ok := a.members.Get(tx, scope.Key(id)); ok && m.State == types.LifecycleStateTerminatingWait {
		m.State, m.Due = types.LifecycleStateTerminatingProceed, a.clock.Now().Add(ending)
		a.members.Put(tx, scope.Key(id), m)
	}
}

// Observations are the tables whose changes may change an answer above.
func (a *API) Observations() []store.AnyTable { return []store.AnyTable{a.groups, a.members} }
