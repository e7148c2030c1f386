package ecsd

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/catalogue"
	"serin/internal/clock"
	"serin/internal/id"
	"serin/internal/place"
	"serin/internal/store"
)

// The loop of capacity: it gives waiting tasks an instance, buys instances for
// those that fit nowhere, and lets go of what is not worth its price. As all
// loops, it looks at rows and writes rows; package place decides.

// All of it is stage time.
const (
	// booting is from a purchase to a registered instance; measured are 26 to 42 s.
	booting = 30 * time.Second
	// batching is how long a task waits for others to be bought for together;
	// that ECS does so is documented, how long is guessed.
	batching = 2 * time.Second
	// idling is how long an instance is kept without tasks, or with too few, where
	// the provider does not say; measured are 427 to 463 s for idle ones.
	idling = 7 * time.Minute
	// patching is when an instance is drained for being old; documented.
	patching = 14 * 24 * time.Hour
	// longestDrain is how long a drained instance waits for its tasks; documented, as
	// is that no instance is older than 21 days.
	longestDrain = 7 * 24 * time.Hour
	// notice is how long before Spot takes an instance back it says so; documented.
	notice = 2 * time.Minute
)

// Labels of tasksBy.
const (
	instanceLabel = "instance "
	waitingLabel  = "waiting " // of a cluster's key: for an instance
)

// Capacity keeps the clusters' instances until ctx ends.
func (a *API) Capacity(ctx context.Context) error {
	feed := a.store.Follow(a.wakeCapacity, append([]store.AnyTable{a.tasks, a.instances, a.providers, a.denials, a.clusters}, a.deps.Groups.Observations()...)...)
	defer feed.Stop()
	agenda := map[string]time.Time{} // cluster key → when it is to be looked at again
	for {
		clusters := a.clustersOf(feed.Take())
		now := a.clock.Now()
		var next time.Time
		for key, at := range agenda {
			if !at.After(now) {
				clusters[key] = true
			}
		}
		for _, key := range slices.Sorted(maps.Keys(clusters)) {
			wake, err := a.keepCapacity(key)
			if err != nil {
				return fmt.Errorf("keeping the capacity of cluster %s: %w", key, err)
			}
			delete(agenda, key)
			if !wake.IsZero() {
				agenda[key] = wake
			}
		}
		for _, at := range agenda {
			next = clock.Sooner(next, at)
		}
		if _, err := a.clock.Wait(ctx, next, a.wakeCapacity); err != nil {
			return nil
		}
	}
}

// clustersOf is the clusters with providers that changed rows may mean something to.
func (a *API) clustersOf(keys []store.Key) map[string]bool {
	found := map[string]bool{}
	a.store.View(func(tx *store.Tx) {
		for _, k := range keys {
			scope, path := arn.ParseKey(k.Row)
			switch k.Table {
			case store.AnyTable(a.denials):
				for key := range a.providers.Scan(tx, scope.Key("")) {
					found[clusterKey(key)] = true
				}
				continue
			case store.AnyTable(a.clusters):
				found[k.Row] = true
				continue
			case store.AnyTable(a.providers):
				if name, of := strings.CutPrefix(path, "/"); of { // a group's, of the clusters that have it
					for _, c := range a.clustersOfProvider(tx, scope, name) {
						found[scope.Key(c)] = true
					}
					continue
				}
			case store.AnyTable(a.instances):
			case store.AnyTable(a.tasks):
				if t, ok := a.tasks.Get(tx, k.Row); ok && !managedTask(t) {
					continue
				}
			default: // a group, or an instance of one: it may be any cluster's
				for key := range a.clusters.Scan(tx, scope.Key("")) {
					found[key] = true
				}
				continue
			}
			found[clusterKey(k.Row)] = true
		}
	})
	return found
}

// clusterKey is the key of the cluster that a row belongs to.
func clusterKey(key string) string {
	scope, path := arn.ParseKey(key)
	name, _, _ := strings.Cut(path, "/")
	return scope.Key(name)
}

// managedTask says that a task runs on an instance of a capacity provider.
func managedTask(t task) bool { return t.Provider != "" && !isFargate(t.Provider) }

// hasHosts says that instances of Auto Scaling groups are to register with a cluster.
func (a *API) hasHosts(tx *store.Tx, scope arn.Scope, cluster string) bool {
	return slices.ContainsFunc(a.deps.Groups.Hosts(tx, scope), func(h Host) bool { return configOf(h.UserData).Cluster == cluster })
}

// keeping is one look at one cluster.
type keeping struct {
	*API
	tx        *store.Tx
	scope     arn.Scope
	cluster   string
	now       time.Time
	wake      time.Time
	providers map[string]provider
	instances []instance
	hosts     map[string]Host // of the cluster, by EC2's id
}

func (a *API) keepCapacity(key string) (time.Time, error) {
	scope, name := arn.ParseKey(key)
	k := &keeping{API: a, scope: scope, cluster: name}
	empty := true
	a.store.View(func(tx *store.Tx) { // most clusters have no providers
		for range a.providers.Scan(tx, scope.Key(name+"/")) {
			empty = false
			return
		}
		c, _ := a.clusters.Get(tx, key)
		empty = !c.Hosts && len(c.Providers) == 0 && !a.hasHosts(tx, scope, name)
	})
	if empty {
		return time.Time{}, nil
	}
	err := a.store.UpdateFirst(func(tx *store.Tx) error {
		k.tx, k.now, k.wake, k.instances, k.providers = tx, a.clock.Now(), time.Time{}, nil, map[string]provider{}
		k.keepProviders()
		k.keepHosts()
		k.keepInstances()
		k.forgetHosts()
		for _, p := range slices.Sorted(maps.Keys(k.providers)) {
			if k.providers[p].Group != nil {
				k.keepGroup(k.providers[p])
				continue
			}
			if left, spread := k.placeTasks(k.providers[p]); len(left) > 0 {
				k.buy(k.providers[p], left, spread)
			}
			k.shrink(k.providers[p])
		}
		return nil
	})
	return k.wake, err
}

func (k *keeping) later(at time.Time) { k.wake = clock.Sooner(k.wake, at) }

// due says that a time has come, or has the loop look again when it does.
func (k *keeping) due(at time.Time) bool {
	if at.IsZero() {
		return false
	}
	if at.After(k.now) {
		k.later(at)
		return false
	}
	return true
}

// keepProviders brings providers to their next state.
func (k *keeping) keepProviders() {
	for key, p := range k.API.providers.Scan(k.tx, k.scope.Key(k.cluster+"/")) {
		switch p.Status {
		case types.CapacityProviderStatusProvisioning:
			if k.due(p.Due) {
				p.Status, p.Update, p.Due = types.CapacityProviderStatusActive, types.CapacityProviderUpdateStatusCreateComplete, time.Time{}
				k.API.providers.Put(k.tx, key, p)
			}
		case types.CapacityProviderStatusDeprovisioning:
			k.letGo(key, p)
		}
		k.providers[p.Name] = p
	}
	c, _ := k.clusters.Get(k.tx, k.scope.Key(k.cluster))
	for _, name := range c.Providers {
		if p, ok := k.API.providers.Get(k.tx, providerKey(k.scope, "", name)); ok {
			k.providers[name] = p
		}
	}
}

// letGo ends a provider's instances, then the provider.
func (k *keeping) letGo(key string, p provider) {
	left := false
	for _, i := range k.API.instances.Scan(k.tx, k.scope.Key(k.cluster+"/")) {
		if i.Provider != p.Name || i.Status == inactiveInstance {
			continue
		}
		left = true
		if !i.gone() && len(k.tasksOn(k.tx, i.ID)) == 0 {
			k.end(k.tx, k.scope, i, "", "")
		}
	}
	if left || !k.due(p.Due) {
		return
	}
	p.Status, p.Update, p.Due = types.CapacityProviderStatusInactive, types.CapacityProviderUpdateStatusDeleteComplete, time.Time{}
	k.API.providers.Put(k.tx, key, p)
	c, _ := k.clusters.Get(k.tx, k.scope.Key(k.cluster))
	c.Providers = slices.DeleteFunc(slices.Clone(c.Providers), func(n string) bool { return n == p.Name })
	k.clusters.Put(k.tx, k.scope.Key(k.cluster), c)
}

// keepInstances brings instances to their next state by the time that has passed,
// and gathers those that live.
func (k *keeping) keepInstances() {
	for _, i := range k.API.instances.Scan(k.tx, k.scope.Key(k.cluster+"/")) {
		if i.Status == inactiveInstance {
			continue
		}
		if i = k.keepInstance(i); !i.gone() {
			k.instances = append(k.instances, i)
		}
	}
}

func (k *keeping) keepInstance(i instance) instance {
	if i.Group != "" {
		return k.keepHost(i)
	}
	switch {
	case i.Status == types.ContainerInstanceStatusRegistering && k.due(i.Due):
		i.Status, i.Registered, i.Changed, i.Due = types.ContainerInstanceStatusActive, k.now, k.now, time.Time{}
		i = k.putInstance(k.tx, k.scope, i, k.now)
	case i.Status == types.ContainerInstanceStatusDeregistering && k.due(i.Due) && len(k.tasksOn(k.tx, i.ID)) == 0:
		// A task that takes its time to stop, which is real, holds its host.
		k.deps.Machines.Terminate(k.tx, k.scope, i.EC2, k.now)
		i.Status, i.Due, i.Ended = inactiveInstance, time.Time{}, k.now
		i = k.putInstance(k.tx, k.scope, i, k.now)
	}
	if i.Registered.IsZero() || i.gone() {
		return i
	}
	host := "Host EC2 (instance " + i.EC2 + ") terminated."
	if i.Notice.IsZero() && k.due(i.Interrupt) {
		i.Notice = k.now
		i = k.putInstance(k.tx, k.scope, i, k.now)
	}
	if !i.Notice.IsZero() && k.due(i.Notice.Add(notice)) {
		return k.end(k.tx, k.scope, i, types.TaskStopCodeTerminationNotice, host)
	}
	if !i.Notice.IsZero() { // all tasks on it are told, whatever they are
		if i.Status == types.ContainerInstanceStatusActive {
			i = k.drain(i, "Spot interruption")
		}
		for _, t := range k.tasksOn(k.tx, i.ID) {
			k.stopFor(k.tx, k.scope.Key(""), t, k.now, types.TaskStopCodeSpotInterruption, "Your Spot Task was interrupted.")
		}
	}
	if !i.Draining.IsZero() && k.due(i.Draining.Add(longestDrain)) {
		return k.end(k.tx, k.scope, i, types.TaskStopCodeTerminationNotice, host)
	}
	if i.Status == types.ContainerInstanceStatusActive && k.due(i.Launched.Add(patching)) {
		i = k.drain(i, "")
	}
	i, on := k.noteTasks(k.repair(i))
	if i.Status == types.ContainerInstanceStatusDraining && on == 0 {
		return k.end(k.tx, k.scope, i, "", "")
	}
	return i
}

// noteTasks notes which tasks are on an instance, and says how many.
func (k *keeping) noteTasks(i instance) (instance, int) {
	var on []string
	for _, t := range k.tasksOn(k.tx, i.ID) {
		on = append(on, t.ID)
	}
	if slices.Sort(on); !slices.Equal(on, i.Tasks) {
		i.Tasks, i.Changed = on, k.now
		i = k.putInstance(k.tx, k.scope, i, k.now)
	}
	return i, len(on)
}

func (k *keeping) drain(i instance, reason string) instance {
	i.Status, i.Draining, i.Reason = types.ContainerInstanceStatusDraining, k.now, reason
	i = k.putInstance(k.tx, k.scope, i, k.now)
	k.log.Info("an instance is drained", "cluster", k.cluster, "instance", i.EC2, "reason", reason)
	return i
}

// waiting is a task that has no instance, with what it needs.
type waiting struct {
	task
	need place.Need
}

// placeTasks gives a provider's waiting tasks their instances, oldest first, and
// returns those that fit on none, with the tasks by group and zone. A task for which
// an instance is booting waits, and gets the one that was bought for it.
func (k *keeping) placeTasks(p provider) (left []waiting, spread map[string]map[string]int) {
	var tasks []task
	for _, t := range k.tasksBy.Scan(k.tx, waitingLabel+k.scope.Key(k.cluster)) {
		if t.Provider == p.Name && t.Desired == running {
			tasks = append(tasks, t)
		}
	}
	if len(tasks) == 0 {
		return nil, nil
	}
	slices.SortFunc(tasks, func(x, y task) int { return cmp.Or(x.Times.Created.Compare(y.Times.Created), cmp.Compare(x.ID, y.ID)) })
	rows, spaces, _ := k.spaces(p)
	spread = k.spread()
	put := func(w waiting, at int) {
		spaces[at].Put(&w.need)
		count(spread, w.need.Group, spaces[at].Zone)
		if rows[at].Status == types.ContainerInstanceStatusActive {
			k.assign(w.task, rows[at], w.need)
		}
	}
	var others []waiting
	for _, t := range tasks {
		w := waiting{t, k.need(t)}
		at := slices.IndexFunc(rows, func(i instance) bool { return slices.Contains(i.For, t.ID) })
		if at >= 0 && spaces[at].Lacks(&w.need) == "" {
			put(w, at)
		} else {
			others = append(others, w)
		}
	}
	for _, w := range others {
		if at := k.pick(p, w, spaces, spread); at >= 0 {
			put(w, at)
		} else {
			left = append(left, w)
		}
	}
	return left, spread
}

// pick is ECS's own choice for its instances; those of groups are chosen by the
// task's strategies.
func (k *keeping) pick(p provider, w waiting, spaces []place.Instance, spread map[string]map[string]int) (at int) {
	if p.Group != nil {
		at, _ = place.PickBy(&w.need, spaces, ordersOf(w.Placement))
	} else {
		at, _ = place.Pick(&w.need, spaces, spread[w.need.Group])
	}
	return at
}

// spaces is a provider's instances that take tasks, with the room that is left and
// the tasks on each.
func (k *keeping) spaces(p provider) (rows []instance, spaces []place.Instance, on [][]task) {
	return k.spacesWhere(func(i instance) bool { return i.Provider == p.Name })
}

func (k *keeping) spacesWhere(of func(instance) bool) (rows []instance, spaces []place.Instance, on [][]task) {
	for _, i := range k.instances {
		if !of(i) || i.Status == types.ContainerInstanceStatusDraining {
			continue
		}
		tasks := k.tasksOn(k.tx, i.ID)
		rows, spaces, on = append(rows, i), append(spaces, k.spaceOf(i, tasks)), append(on, tasks)
	}
	return rows, spaces, on
}

// spaceOf is an instance with the tasks that are on it.
func (k *keeping) spaceOf(i instance, on []task) place.Instance {
	space := whereOf(i)
	for _, t := range on {
		n := k.need(t)
		i.seated(&space, t, &n)
	}
	return space
}

// spread is the cluster's tasks on instances that stay, by group and zone.
func (k *keeping) spread() map[string]map[string]int {
	spread := map[string]map[string]int{}
	for _, i := range k.instances {
		for _, t := range k.tasksOn(k.tx, i.ID) {
			if i.Status == types.ContainerInstanceStatusActive && t.Desired == running && t.Move == "" {
				count(spread, t.Group, i.Zone)
			}
		}
	}
	return spread
}

func count(spread map[string]map[string]int, group, zone string) {
	if spread[group] == nil {
		spread[group] = map[string]int{}
	}
	spread[group][zone]++
}

// assign puts a task on an instance; the agent starts it.
func (k *keeping) assign(t task, i instance, n place.Need) {
	k.seat(&t, i, n)
	k.putTask(k.tx, t, k.scope.Key(""), k.now)
}

// seat notes on a task where it is.
func (k *keeping) seat(t *task, i instance, n place.Need) {
	t.Instance, t.Zone, t.Subnet = i.ID, i.Zone, i.Subnet
	on := k.tasksOn(k.tx, i.ID)
	d, _ := k.definitionOf(k.tx, k.scope, *t)
	t.Ports, t.GPUs = portsFor(d, t.ID, takenPorts(on)), k.gpusFor(&n, i, on)
}

// need is what a task needs, by its definition and its service.
func (k *keeping) need(t task) place.Need {
	d, _ := k.definitionOf(k.tx, k.scope, t)
	n := needOf(d)
	n.Group, n.Seed = t.Group, seedOf(t.ID)
	if t.Ports != nil {
		n.Ports = nil
	}
	for _, p := range t.Ports { // dynamic ones, too
		n.Ports = append(n.Ports, p.ports()...)
	}
	for _, c := range d.PlacementConstraints {
		n.Where = append(n.Where, parsed(c.Expression))
	}
	for _, c := range t.Constraints {
		if c.Type == types.PlacementConstraintTypeDistinctInstance {
			n.Distinct = true
		} else {
			n.Where = append(n.Where, parsed(c.Expression))
		}
	}
	if t.Network != nil && t.Network.AwsvpcConfiguration != nil {
		zones, _, err := k.deps.Machines.Network(k.scope, t.Network.AwsvpcConfiguration.Subnets, nil)
		if err != nil {
			n.Zones = []string{"none"} // its subnets are gone: no instance is in their zones
		}
		for _, z := range zones {
			if t.In == "" || t.In == z {
				n.Zones = append(n.Zones, z)
			}
		}
	}
	return n
}

// needOf is what a task of a definition needs of an instance.
func needOf(d types.TaskDefinition) place.Need {
	var n place.Need
	n.CPU, _ = strconv.Atoi(aws.ToString(d.Cpu))
	n.Memory, _ = strconv.Atoi(aws.ToString(d.Memory))
	for _, c := range d.ContainerDefinitions {
		if d.Cpu == nil {
			n.CPU += int(c.Cpu)
		}
		if d.Memory == nil {
			n.Memory += int(aws.ToInt32(cmp.Or(c.MemoryReservation, c.Memory)))
		}
		gpus, shared := gpusWanted(c)
		n.GPUs, n.Shared = n.GPUs+gpus, n.Shared+shared
	}
	n.Ports = namedPorts(d)
	if !behindHost(d) {
		n.Interfaces = 1
	}
	if d.RuntimePlatform != nil {
		n.Arch = string(d.RuntimePlatform.CpuArchitecture)
	}
	return n
}

// buy buys instances for tasks that fit on none, all that waited together.
func (k *keeping) buy(p provider, left []waiting, spread map[string]map[string]int) {
	if p.Status == types.CapacityProviderStatusProvisioning || !k.due(left[0].Times.Created.Add(batching)) {
		return
	}
	if p.Status != types.CapacityProviderStatusActive {
		k.fail(left, "TaskFailedToStart: EMPTY CAPACITY PROVIDER")
		return
	}
	needs := make([]place.Need, len(left))
	for i, w := range left {
		needs[i] = w.need
	}
	market := k.market(p, true)
	plan, lost := market.Buy(needs, spread)
	for _, at := range lost {
		k.fail(left[at:at+1], k.refusal(p, left[at].need))
	}
	if len(plan) == 0 {
		return
	}
	if err := k.deps.Roles.MayLaunch(k.scope, *p.Managed.InfrastructureRoleArn, *p.Managed.InstanceLaunchTemplate.Ec2InstanceProfileArn); err != nil {
		for _, b := range plan {
			for _, at := range b.For {
				k.fail(left[at:at+1], launchFailure(p, err.Error()))
			}
		}
		return
	}
	for _, b := range plan {
		var ids []string
		for _, at := range b.For {
			ids = append(ids, left[at].ID)
		}
		if err := k.launchInstance(p, b, ids); err != nil {
			for _, at := range b.For {
				k.fail(left[at:at+1], launchFailure(p, err.Error()))
			}
		}
	}
}

// market is what a provider buys from; available leaves out the types that were
// denied.
func (k *keeping) market(p provider, available bool) (m place.Market) {
	t := p.Managed.InstanceLaunchTemplate
	r, err := requirementsOf(t.InstanceRequirements)
	if err != nil { // validated when it was set
		panic(fmt.Sprintf("ecsd: a broken requirement was stored: %v", err))
	}
	for _, x := range r.Select(k.scope.Region) {
		if _, denied := k.denials.Get(k.tx, k.scope.Key(x.Name)); denied && available {
			continue
		}
		m.Offers = append(m.Offers, place.Offer{Type: x.Name, Arch: string(x.Arch), Room: room(x), USD: x.Compared(k.scope.Region, p.spot())})
	}
	zones, _, err := k.deps.Machines.Network(k.scope, t.NetworkConfiguration.Subnets, nil)
	if err != nil {
		return m // without zones nothing can be bought
	}
	for _, subnet := range t.NetworkConfiguration.Subnets {
		m.Zones = append(m.Zones, place.Zone{Name: zones[subnet], Subnet: subnet})
	}
	return m
}

func (p provider) spot() bool {
	return p.Managed.InstanceLaunchTemplate.CapacityOptionType == types.CapacityOptionTypeSpot
}

// What EC2 answers where it has nothing to sell: the first is observed on Spot, of the
// second only the code is.
const (
	unfulfillable = "UnfulfillableCapacity: Unable to fulfill capacity due to your request configuration. Please adjust your request and try again."
	insufficient  = "InsufficientInstanceCapacity: There is not enough capacity."
)

// refusal is why nothing is bought for a task: nothing is to be had of what would
// hold it, or nothing that the provider may buy would.
func (k *keeping) refusal(p provider, n place.Need) string {
	m := k.market(p, false)
	var all []place.Instance
	for _, o := range m.Offers {
		for _, z := range m.Zones {
			i := o.Instance(z)
			i.ID = o.Type
			all = append(all, i)
		}
	}
	at, why := place.Pick(&n, all, nil)
	switch {
	case at >= 0 && p.spot():
		return launchFailure(p, unfulfillable)
	case at >= 0:
		return launchFailure(p, insufficient)
	case len(all) == 0:
		return launchFailure(p, "InvalidSubnetID.NotFound: The subnets of the capacity provider do not exist.")
	}
	switch why.Lack {
	case place.Member:
		return "TaskFailedToStart: MemberOf placement constraint unsatisfied"
	case place.Arch:
		return "TaskFailedToStart: ATTRIBUTE"
	case place.Location, place.Distinct:
		return "TaskFailedToStart: " + string(why.Lack)
	}
	return "TaskFailedToStart: RESOURCE:" + string(why.Lack)
}

// launchFailure is why no instance comes, in the observed form.
func launchFailure(p provider, why string) string {
	return fmt.Sprintf("ResourceInitializationError: Unable to launch instance(s) for capacity provider %s. %s. RequestId: %s.", p.Name, strings.TrimSuffix(why, "."), id.UUID())
}

// fail ends tasks that get no instance. That they stop, and their service starts
// others, is guessed from the events, which come again every five minutes.
func (k *keeping) fail(list []waiting, reason string) {
	for _, w := range list {
		k.apply(k.tx, taskKey(k.scope, w.task), k.settle(placementFailure, func(t *task) { t.markStopped(k.now, types.TaskStopCodeTaskFailedToStart, reason) }))
	}
}

// launchInstance buys an instance; it registers when it has booted.
func (k *keeping) launchInstance(p provider, b place.Purchase, tasks []string) error {
	t, _ := catalogue.Find(b.Type)
	i := instance{
		ID: id.Hex(32), Cluster: k.cluster, Provider: p.Name, Type: b.Type, Zone: b.Zone.Name, Subnet: b.Subnet, Status: types.ContainerInstanceStatusRegistering, Spot: p.spot(),
		Launched: k.now, Due: k.now.Add(booting), Changed: k.now, For: tasks,
	}
	for range t.GPUs {
		i.GPUs = append(i.GPUs, "GPU-"+id.UUID())
	}
	if i.Spot && k.deps.SpotInterruptions > 0 {
		hours := min(rand.ExpFloat64()/k.deps.SpotInterruptions, 24*365*100) // or it is not told from the past
		i.Interrupt = k.now.Add(time.Duration(hours * float64(time.Hour)))
	}
	labels := k.providerTags(k.tx, k.scope, p)
	ec2, err := k.deps.Machines.Launch(k.tx, k.scope, Machine{
		Type: i.Type, Zone: i.Zone, Subnet: i.Subnet, Groups: p.Managed.InstanceLaunchTemplate.NetworkConfiguration.SecurityGroups, Spot: i.Spot, At: k.now,
		Tags: append(slices.Clone(labels), managedTags(k.cluster, p.Name, i.ID)...),
	})
	if err != nil {
		return err
	}
	i.EC2 = ec2
	k.tags.Set(k.tx, instanceARN(k.scope, i), labels)
	i = k.putInstance(k.tx, k.scope, i, k.now)
	k.instances = append(k.instances, i)
	k.later(i.Due)
	k.log.Info("an instance is bought", "cluster", k.cluster, "instance", i.EC2, "type", i.Type, "zone", i.Zone, "tasks", len(b.For))
	return nil
}

// shrink ends a provider's idle instances, and drains the one that is worth its
// price least, one at a time.
func (k *keeping) shrink(p provider) {
	after := idling
	if o := p.Managed.InfrastructureOptimization; o != nil && o.ScaleInAfter != nil {
		if *o.ScaleInAfter < 0 {
			return
		}
		after = time.Duration(*o.ScaleInAfter) * time.Second
	}
	rows, spaces, on := k.spaces(p)
	var loaded []place.Loaded
	asked, busy := false, false
	for n, i := range rows {
		if i.Status != types.ContainerInstanceStatusActive {
			busy = true // one is booting: who needs it is not placed yet
			continue
		}
		ripe := k.due(i.Changed.Add(after))
		if len(on[n]) == 0 {
			if ripe {
				k.end(k.tx, k.scope, i, "", "")
			}
			continue
		}
		l := place.Loaded{Instance: spaces[n], USD: k.price(i), Keep: !ripe}
		for _, t := range on[n] {
			// A task of nobody's, a protected one, or one that is not settled, is left
			// where it is.
			if t.protected(k.now) {
				k.later(t.Protected)
				l.Keep = true
			}
			l.Keep = l.Keep || t.Service == "" || t.Last != running || t.Desired != running || !k.movable(t)
			l.Tasks = append(l.Tasks, k.need(t))
		}
		asked = asked || !l.Keep
		loaded = append(loaded, l)
	}
	draining := slices.ContainsFunc(k.instances, func(i instance) bool { return i.Provider == p.Name && i.Shrinking })
	if !asked || busy || draining || p.Status != types.CapacityProviderStatusActive {
		return
	}
	if at := k.market(p, true).Shrink(loaded); at >= 0 {
		n := slices.IndexFunc(rows, func(i instance) bool { return i.ID == loaded[at].ID })
		rows[n].Shrinking = true
		k.drain(rows[n], "")
	}
}

// movable says that a task's service lets another be started beside it, or lets it
// stop before.
func (k *keeping) movable(t task) bool {
	s, ok := k.services.Get(k.tx, k.scope.Key(t.Cluster+"/"+t.Service))
	if !ok || s.external() {
		return ok
	}
	most, least := s.limits()
	return most > s.Desired || least < s.Desired
}

// price is what an instance is compared by, in USD an hour.
func (k *keeping) price(i instance) float64 {
	t, _ := catalogue.Find(i.Type)
	return t.Compared(k.scope.Region, i.Spot)
}

// Interrupt has Spot take an instance back: the notice comes at once, the end two
// minutes later.
func (a *API) Interrupt(scope arn.Scope, ec2 string) error {
	return a.changeInstance(scope, ec2, func(i *instance) error {
		if !i.Spot {
			return fmt.Errorf("the instance %s is not a Spot instance", ec2)
		}
		if i.Notice.IsZero() {
			i.Notice = a.clock.Now()
		}
		return nil
	})
}

func (a *API) changeInstance(scope arn.Scope, ec2 string, change func(*instance) error) error {
	return a.store.Update(func(tx *store.Tx) error {
		for _, i := range a.instances.Scan(tx, scope.Key("")) {
			if i.EC2 == ec2 && !i.gone() {
				if err := change(&i); err != nil {
					return err
				}
				a.putInstance(tx, scope, i, a.clock.Now())
				return nil
			}
		}
		return fmt.Errorf("there is no instance %s in %s", ec2, scope.Region)
	})
}

// denial says that EC2 has nothing of a type.
type denial struct{ Since time.Time }

// Denied says that EC2 has nothing of a type.
func (a *API) Denied(tx *store.Tx, scope arn.Scope, name string) bool {
	_, denied := a.denials.Get(tx, scope.Key(name))
	return denied
}

// Deny has EC2 run out of a type, or have it again.
func (a *API) Deny(scope arn.Scope, name string, deny bool) error {
	if _, ok := catalogue.Find(name); !ok {
		return fmt.Errorf("there is no instance type %q", name)
	}
	return a.store.Update(func(tx *store.Tx) error {
		if deny {
			a.denials.Put(tx, scope.Key(name), denial{a.clock.Now()})
		} else {
			a.denials.Delete(tx, scope.Key(name))
		}
		return nil
	})
}
