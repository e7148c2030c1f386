package ecsd

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/catalogue"
	"serin/internal/place"
	"serin/internal/store"
)

// Capacity providers of Auto Scaling groups: ECS moves the group's desired number,
// and the group launches and ends.

// All of it is stage time.
const (
	// scalingOut and scalingIn are how long the reservation is above or below its
	// target before the group is told: the periods of the alarms of a target tracking
	// policy, documented.
	scalingOut = time.Minute
	scalingIn  = 15 * time.Minute
	// longestWait is how long a task waits in PROVISIONING for an instance of a
	// group; guessed.
	longestWait = 15 * time.Minute
	// warmup is how long an instance warms up where the provider does not say;
	// documented.
	warmup = 300
)

// groupProvider is the row's form of a group provider that is asked for, with what
// ECS fills in.
func (a *API) groupProvider(tx *store.Tx, scope arn.Scope, name string, in types.AutoScalingGroupProvider) (types.AutoScalingGroupProvider, error) {
	g, ok := a.deps.Groups.Find(tx, scope, aws.ToString(in.AutoScalingGroupArn))
	if !ok {
		return in, client("The specified Auto Scaling group ARN is not valid or the Auto Scaling group was not found. Specify a valid Auto Scaling group and try again.") // guessed
	}
	in.AutoScalingGroupArn = &g.ARN
	for _, p := range a.providers.Scan(tx, scope.Key("/")) {
		if p.Name != name && p.Status != types.CapacityProviderStatusInactive && *p.Group.AutoScalingGroupArn == g.ARN {
			return in, client("The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a unique Auto Scaling group ARN and try again.") // guessed
		}
	}
	s := *cmp.Or(in.ManagedScaling, &types.ManagedScaling{})
	s.Status = cmp.Or(s.Status, types.ManagedScalingStatusDisabled)
	s.TargetCapacity = cmp.Or(s.TargetCapacity, new(int32(100)))
	s.MinimumScalingStepSize = cmp.Or(s.MinimumScalingStepSize, new(int32(1)))
	s.MaximumScalingStepSize = cmp.Or(s.MaximumScalingStepSize, new(int32(10000)))
	s.InstanceWarmupPeriod = cmp.Or(s.InstanceWarmupPeriod, new(int32(warmup)))
	in.ManagedScaling = &s
	in.ManagedTerminationProtection = cmp.Or(in.ManagedTerminationProtection, types.ManagedTerminationProtectionDisabled)
	in.ManagedDraining = cmp.Or(in.ManagedDraining, types.ManagedDrainingEnabled)
	for _, x := range []struct {
		name     string
		value    int32
		low, top int32
	}{{"targetCapacity", *s.TargetCapacity, 1, 100}, {"minimumScalingStepSize", *s.MinimumScalingStepSize, 1, 10000}, {"maximumScalingStepSize", *s.MaximumScalingStepSize, 1, 10000}, {"instanceWarmupPeriod", *s.InstanceWarmupPeriod, 0, 10000}} {
		if x.value < x.low || x.value > x.top {
			return in, client("The %s of managed scaling must be between %d and %d, got %d.", x.name, x.low, x.top, x.value) // the range is documented, the words are not
		}
	}
	protects := in.ManagedTerminationProtection == types.ManagedTerminationProtectionEnabled
	switch {
	case *s.MinimumScalingStepSize > *s.MaximumScalingStepSize:
		return in, client("The minimumScalingStepSize of managed scaling must not be greater than its maximumScalingStepSize.") // guessed
	case protects && !scales(s):
		return in, client("The managed termination protection setting for the capacity provider is invalid. To enable managed termination protection for a capacity provider, managed scaling must be enabled.") // guessed
	case protects && !g.Protect:
		return in, client("The managed termination protection setting for the capacity provider is invalid. To enable managed termination protection for a capacity provider, the Auto Scaling group must have instance protection from scale in enabled.") // observed
	}
	return in, nil
}

func scales(s types.ManagedScaling) bool { return s.Status == types.ManagedScalingStatusEnabled }

// scaled says that ECS makes room for the provider's tasks, so that they wait for
// it: it buys, or has a group scale.
func (p provider) scaled() bool { return p.Group == nil || scales(*p.Group.ManagedScaling) }

// createGroupProvider makes a provider of a group, which is nobody's cluster's.
func (a *API) createGroupProvider(tx *store.Tx, scope arn.Scope, name string, in types.AutoScalingGroupProvider) (provider, error) {
	if other, ok := a.providerNamed(tx, scope, name); ok {
		if other.Cluster != "" {
			return other, client("The specified capacity provider already exists with account or a different cluster")
		}
		return other, client("The specified capacity provider already exists. To change the configuration of an existing capacity provider, update the capacity provider.")
	}
	g, err := a.groupProvider(tx, scope, name, in)
	if err != nil {
		return provider{}, err
	}
	p := provider{Name: name, Status: types.CapacityProviderStatusActive, Update: types.CapacityProviderUpdateStatusCreateComplete, Group: &g}
	a.manage(tx, scope, p)
	a.forgetProvider(tx, scope, name)
	a.providers.Put(tx, providerKey(scope, "", name), p)
	return p, nil
}

// manage marks the provider's group as ECS's, which drains its instances or not.
func (a *API) manage(tx *store.Tx, scope arn.Scope, p provider) {
	drains := p.Status == types.CapacityProviderStatusActive && p.Group.ManagedDraining == types.ManagedDrainingEnabled && len(a.clustersOfProvider(tx, scope, p.Name)) > 0
	if g, ok := a.deps.Groups.Find(tx, scope, *p.Group.AutoScalingGroupArn); ok {
		a.deps.Groups.Manage(tx, scope, g.Name, drains)
	}
}

// manageAll is manage of those of some providers that are groups': ECS drains their
// instances while a cluster has them.
func (a *API) manageAll(tx *store.Tx, scope arn.Scope, names []string) {
	for _, name := range names {
		if p, _ := a.providerNamed(tx, scope, name); p.Group != nil {
			a.manage(tx, scope, p)
		}
	}
}

// clustersOfProvider is the clusters that a provider is associated with.
func (a *API) clustersOfProvider(tx *store.Tx, scope arn.Scope, name string) (names []string) {
	for _, c := range a.clusters.Scan(tx, scope.Key("")) {
		if c.Status == "ACTIVE" && slices.Contains(c.Providers, name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// updateGroupProvider changes what is sent of a group provider.
func (a *API) updateGroupProvider(tx *store.Tx, scope arn.Scope, name string, u types.AutoScalingGroupProviderUpdate) (provider, error) {
	p, ok := a.providers.Get(tx, providerKey(scope, "", name))
	if !ok || p.Status != types.CapacityProviderStatusActive {
		return p, client("The specified capacity provider was not found. Specify a valid capacity provider and try again")
	}
	g := *p.Group
	if m := u.ManagedScaling; m != nil {
		s := *g.ManagedScaling
		s.Status, s.TargetCapacity, s.InstanceWarmupPeriod = cmp.Or(m.Status, s.Status), cmp.Or(m.TargetCapacity, s.TargetCapacity), cmp.Or(m.InstanceWarmupPeriod, s.InstanceWarmupPeriod)
		s.MinimumScalingStepSize, s.MaximumScalingStepSize = cmp.Or(m.MinimumScalingStepSize, s.MinimumScalingStepSize), cmp.Or(m.MaximumScalingStepSize, s.MaximumScalingStepSize)
		g.ManagedScaling = &s
	}
	g.ManagedTerminationProtection = cmp.Or(u.ManagedTerminationProtection, g.ManagedTerminationProtection)
	g.ManagedDraining = cmp.Or(u.ManagedDraining, g.ManagedDraining)
	g, err := a.groupProvider(tx, scope, name, g)
	if err != nil {
		return p, err
	}
	p.Group, p.Update = &g, types.CapacityProviderUpdateStatusUpdateComplete
	a.manage(tx, scope, p)
	a.providers.Put(tx, providerKey(scope, "", name), p)
	return p, nil
}

// deleteGroupProvider lets a provider go that no cluster has; its group stays. That
// it is gone at once is guessed.
func (a *API) deleteGroupProvider(tx *store.Tx, scope arn.Scope, p provider) (provider, error) {
	if of := a.clustersOfProvider(tx, scope, p.Name); len(of) > 0 {
		return p, client("The capacity provider cannot be deleted because it is associated with cluster: %s. Remove the capacity provider from the cluster and try again.", strings.Join(of, ", ")) // observed
	}
	p.Status, p.Update = types.CapacityProviderStatusInactive, types.CapacityProviderUpdateStatusDeleteComplete
	a.manage(tx, scope, p)
	a.providers.Put(tx, providerKey(scope, "", p.Name), p)
	return p, nil
}

// providerIn is a cluster's provider, of whatever kind.
func (a *API) providerIn(tx *store.Tx, scope arn.Scope, cluster, name string) (provider, bool) {
	if p, ok := a.providers.Get(tx, providerKey(scope, cluster, name)); ok {
		return p, true
	}
	return a.providers.Get(tx, providerKey(scope, "", name))
}

// coming is the instances of a provider's group that are not registered yet, as rows
// that take no tasks but may be waited for.
func (k *keeping) coming(p provider, g Group) (rows []instance) {
	live := 0
	for _, ec2 := range k.hostsOf(g.Name) {
		h := k.hosts[ec2]
		if row, _ := k.API.hosts.Get(k.tx, k.scope.Key(ec2)); row.Instance == "" {
			rows = append(rows, instance{ID: "coming " + ec2, Provider: p.Name, Group: g.Name, EC2: ec2, Type: h.Type, Zone: h.Zone, Subnet: h.Subnet, Launched: h.Launched, Status: types.ContainerInstanceStatusRegistering})
		}
		live++
	}
	zones, _, _ := k.deps.Machines.Network(k.scope, g.Subnets, nil) // without zones nothing is launched
	for n := live; n < g.Desired && len(g.Subnets) > 0; n++ {
		subnet := g.Subnets[n%len(g.Subnets)]
		rows = append(rows, instance{ID: "coming", Provider: p.Name, Group: g.Name, Type: g.Type, Zone: zones[subnet], Subnet: subnet, Launched: k.now, Status: types.ContainerInstanceStatusRegistering})
	}
	return rows
}

// hostsOf is the EC2 ids of a group's instances that stay, in their order.
func (k *keeping) hostsOf(group string) (ids []string) {
	for id, h := range k.hosts {
		if h.Group == group && !h.Leaving {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// keepGroup places a group provider's waiting tasks, and moves the number of its
// instances to what they take.
func (k *keeping) keepGroup(p provider) {
	left, _ := k.placeTasks(p)
	left = k.expire(p, left)
	g, ok := k.deps.Groups.Find(k.tx, k.scope, *p.Group.AutoScalingGroupArn)
	if !ok { // its tasks have waited for nothing
		return
	}
	k.release(g)
	if !p.scaled() {
		return
	}
	// Of the tasks that fit on no instance, some fit on those that come.
	rows := k.coming(p, g)
	var spaces []place.Instance
	for _, i := range rows {
		spaces = append(spaces, whereOf(i))
	}
	var needs []place.Need
	taken := map[int]bool{}
	for _, w := range left {
		if at, _ := place.PickBy(&w.need, spaces, ordersOf(w.Placement)); at >= 0 {
			spaces[at].Put(&w.need)
			taken[at] = true
			continue
		}
		n := w.need
		n.Zones, n.Where = nil, nil // what a new instance has is not asked, documented
		needs = append(needs, n)
	}
	used := len(taken)
	for _, i := range k.instances {
		if i.Provider == p.Name && !k.hosts[i.EC2].Leaving {
			on := len(k.tasksOn(k.tx, i.ID))
			if on > 0 {
				used++
			}
			k.protect(p, i, on > 0)
		}
	}
	k.scale(p, g, used, k.more(g, needs))
}

// release lets those of a group's instances end that wait to be drained and are no
// container instances, or no more; that ECS does so is guessed.
func (k *keeping) release(g Group) {
	for _, h := range k.deps.Groups.Hosts(k.tx, k.scope) {
		if h.Group != g.Name || !h.Waiting {
			continue
		}
		row, _ := k.API.hosts.Get(k.tx, k.scope.Key(h.ID))
		if i, ok := k.API.instances.Get(k.tx, instanceKey(k.scope, row.Cluster, row.Instance)); !ok || i.Status == inactiveInstance {
			k.deps.Groups.Drained(k.tx, k.scope, h.ID)
		}
	}
}

// more is how many instances of the group's type carry tasks that fit nowhere; what
// none carries is not counted.
func (k *keeping) more(g Group, needs []place.Need) int {
	t, ok := catalogue.Find(g.Type)
	if !ok {
		return 0
	}
	m := place.Market{Offers: []place.Offer{{Type: t.Name, Arch: string(t.Arch), Room: room(t), USD: 1}}, Zones: []place.Zone{{}}}
	plan, _ := m.Buy(needs, map[string]map[string]int{})
	return len(plan)
}

// protect keeps an instance with tasks from scaling in, where ECS manages that.
func (k *keeping) protect(p provider, i instance, busy bool) {
	if p.Group.ManagedTerminationProtection == types.ManagedTerminationProtectionEnabled {
		k.deps.Groups.Protect(k.tx, k.scope, i.EC2, busy)
	}
}

// scale tells a group how many instances it is to have, when that has been another
// number for long enough.
func (k *keeping) scale(p provider, g Group, used, need int) {
	s := p.Group.ManagedScaling
	load := place.Load{Have: g.Desired, Used: used, Need: need}
	for _, id := range k.hostsOf(g.Name) {
		if warm := k.hosts[id].Launched.Add(time.Duration(*s.InstanceWarmupPeriod) * time.Second); !k.due(warm) {
			load.Warming++
		}
	}
	want := place.Scaling{Target: int(*s.TargetCapacity), MinStep: int(*s.MinimumScalingStepSize), MaxStep: int(*s.MaximumScalingStepSize)}.Want(load)
	want = min(max(want, g.Min), g.Max)
	since, after := p.High, scalingOut
	if want < g.Desired {
		since, after = p.Low, scalingIn
	}
	before := p
	switch {
	case want == g.Desired || want < g.Desired && load.Warming > 0: // it does not scale in while instances warm up, documented
		p.High, p.Low = time.Time{}, time.Time{}
	case since.IsZero():
		p.High, p.Low = time.Time{}, time.Time{}
		if want > g.Desired {
			p.High = k.now
		} else {
			p.Low = k.now
		}
		k.later(k.now.Add(after))
	case k.due(since.Add(after)):
		p.High, p.Low = time.Time{}, time.Time{}
		k.deps.Groups.Desire(k.tx, k.scope, g.Name, want)
		k.log.Info("a group is scaled", "provider", p.Name, "from", g.Desired, "to", want, "reservation", place.Reservation(used+need, g.Desired))
	}
	if p.High != before.High || p.Low != before.Low {
		k.API.providers.Put(k.tx, providerKey(k.scope, "", p.Name), p)
	}
}

// expire ends tasks that have waited too long for an instance of a group.
func (k *keeping) expire(p provider, left []waiting) (rest []waiting) {
	rows, spaces, _ := k.spaces(p)
	for _, w := range left {
		if !k.due(w.Times.Created.Add(longestWait)) {
			rest = append(rest, w)
			continue
		}
		why := "EMPTY CAPACITY PROVIDER"
		if len(rows) > 0 {
			_, r := place.PickBy(&w.need, spaces, nil)
			why = failureWords(r.Lack)
		}
		k.fail([]waiting{w}, "TaskFailedToStart: "+why)
	}
	return rest
}
