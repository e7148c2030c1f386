package place

import (
	"cmp"
	"slices"
)

// Order is a placement strategy: of the instances that can take a task, those
// that it likes best are left.
type Order struct {
	Kind  OrderKind
	Field string // attribute or instanceId, to spread by; cpu or memory, to pack by
}

// OrderKind is ECS's word for a strategy.
type OrderKind string

const (
	Spread  OrderKind = "spread"
	Binpack OrderKind = "binpack"
	Random  OrderKind = "random"
)

// ByZone spreads over Availability Zones: what ECS does for services without a
// strategy, documented; then over instances, guessed.
var ByZone = []Order{{Spread, "ecs.availability-zone"}, {Spread, InstanceID}}

// InstanceID is the field by which tasks are spread over instances.
const InstanceID = "instanceId"

// PickBy chooses the instance for a task by strategies, each among what the one
// before has left; -1 and a refusal where no instance can take it.
func PickBy(n *Need, instances []Instance, orders []Order) (int, Refusal) {
	var fit []int
	why, rank := Refusal{}, len(order)
	for at := range instances {
		lack := instances[at].Lacks(n)
		if lack == "" {
			fit = append(fit, at)
		} else if r := slices.Index(order, lack); r < rank {
			why, rank = Refusal{instances[at].ID, lack}, r
		}
	}
	if len(fit) == 0 {
		return -1, why
	}
	slices.SortFunc(fit, func(x, y int) int { return cmp.Compare(instances[x].ID, instances[y].ID) })
	for _, o := range orders {
		if o.Kind == Random {
			return fit[n.Seed%uint64(len(fit))], Refusal{}
		}
		liked := o.liking(n, instances)
		least := liked(fit[0])
		for _, at := range fit {
			least = min(least, liked(at))
		}
		fit = slices.DeleteFunc(fit, func(at int) bool { return liked(at) > least })
	}
	return fit[0], Refusal{}
}

// liking is a number for each instance: the less, the better.
func (o Order) liking(n *Need, instances []Instance) func(at int) int {
	switch {
	case o.Kind == Binpack && o.Field == "cpu":
		return func(at int) int { return instances[at].Free.CPU }
	case o.Kind == Binpack:
		return func(at int) int { return instances[at].Free.Memory }
	case o.Field == InstanceID:
		return func(at int) int { return instances[at].Groups[n.Group] }
	}
	tasks := map[string]int{}
	for at := range instances {
		value, _ := instances[at].Attribute(o.Field)
		tasks[value] += instances[at].Groups[n.Group]
	}
	return func(at int) int {
		value, _ := instances[at].Attribute(o.Field)
		return tasks[value]
	}
}
