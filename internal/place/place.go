// Package place decides where tasks run: which instance gets a task, which
// instances are bought for those that fit nowhere, and which instance is not
// worth its price any more.
//
// It is pure: the same input gives the same plan. The order is ECS's for Managed
// Instances, documented: what does not have the room or does not meet the
// constraints is out; of what is left, the Availability Zone with the fewest
// tasks of the group comes first, and within it the instance that the task fills
// best. What fits nowhere is spread over the zones, then packed with first-fit
// decreasing, then bought for the lowest price. A refusal says which instance was
// closest and what it lacked. GPUs are given whole, in the parts that instances have,
// or shared by their memory.
package place

import (
	"cmp"
	"fmt"
	"slices"
)

// Room is an amount of what an instance has and a task takes.
type Room struct {
	CPU        int // 1024 is one processor
	Memory     int // MiB
	GPUs       int // thousandths of them, for tasks that do not share; an instance may have less than Whole
	Shared     int // MiB of memory of whole GPUs, for tasks that share one
	Interfaces int // of the network
}

func (r *Room) holds(o *Room) bool {
	return r.CPU >= o.CPU && r.Memory >= o.Memory && r.GPUs >= o.GPUs && r.Shared >= o.Shared && r.Interfaces >= o.Interfaces
}

// Plus and Minus add and subtract amounts.
func (r Room) Plus(o Room) Room {
	return Room{r.CPU + o.CPU, r.Memory + o.Memory, r.GPUs + o.GPUs, r.Shared + o.Shared, r.Interfaces + o.Interfaces}
}

func (r Room) Minus(o Room) Room {
	return Room{r.CPU - o.CPU, r.Memory - o.Memory, r.GPUs - o.GPUs, r.Shared - o.Shared, r.Interfaces - o.Interfaces}
}

// share is how much of r an amount takes, by what it takes most of.
func (r *Room) share(o *Room) float64 {
	most := max(part(o.CPU, r.CPU), part(o.Memory, r.Memory), part(o.Interfaces, r.Interfaces))
	if o.GPUs|o.Shared != 0 {
		most = max(most, part(o.GPUs, r.GPUs), part(o.Shared, r.Shared))
	}
	return most
}

func part(n, of int) float64 { return float64(n) / float64(max(of, 1)) }

// Port is a port of the host that a task takes for itself.
type Port struct {
	Number uint16
	UDP    bool
}

// Need is what a task needs of an instance. It shares a GPU, or has whole ones, or a
// part of one: less than Whole is the part of an instance that has just that much.
type Need struct {
	Room
	Group    string // tasks of one group are spread
	Arch     string // ECS's word; empty: any
	Ports    []Port
	Zones    []string // that its interface may be in; empty: any
	Where    []Expr   // memberOf constraints
	Distinct bool     // no other task of the group on the same instance
	Seed     uint64   // what a random choice is made by
}

// Instance is where tasks may run. Other is the value of an attribute beside those
// that follow from its fields; nil: it has none.
type Instance struct {
	ID, Type, Zone, Subnet, Arch string
	Free                         Room
	Ports                        map[Port]bool
	Groups                       map[string]int // tasks by group
	Other                        func(name string) (string, bool)
	GPUs                         []Device
	Away                         bool // its agent is not connected, so that no task comes
}

// Attribute is a value that constraints speak of.
func (i *Instance) Attribute(name string) (string, bool) {
	switch name {
	case "ecs.instance-type":
		return i.Type, true
	case "ecs.availability-zone":
		return i.Zone, true
	case "ecs.subnet-id":
		return i.Subnet, true
	case "ecs.cpu-architecture":
		return map[string]string{"X86_64": "x86_64", "ARM64": "arm64"}[i.Arch], true
	case "ecs.os-type":
		return "linux", true
	}
	if i.Other == nil {
		return "", false
	}
	return i.Other(name)
}

// Lack is what an instance lacks for a task; empty: nothing.
type Lack string

const (
	CPU       Lack = "CPU"
	Memory    Lack = "MEMORY"
	GPU       Lack = "GPU"
	Interface Lack = "ENI"
	Ports     Lack = "PORTS"
	Arch      Lack = "ARCHITECTURE"
	Location  Lack = "LOCATION"
	Member    Lack = "MEMBER_OF"
	Distinct  Lack = "DISTINCT_INSTANCE"
	Agent     Lack = "AGENT"
)

// Lacks is what keeps a task from an instance: the first of room, ports and
// constraints, in the order that ECS asks.
func (i *Instance) Lacks(n *Need) Lack {
	switch {
	case i.Free.CPU < n.CPU:
		return CPU
	case i.Free.Memory < n.Memory:
		return Memory
	case n.GPUs|n.Shared != 0 && !i.gives(n):
		return GPU
	case i.Free.Interfaces < n.Interfaces:
		return Interface
	}
	for _, p := range n.Ports {
		if i.Ports[p] {
			return Ports
		}
	}
	return i.unfit(n)
}

// unfit is what room cannot mend.
func (i *Instance) unfit(n *Need) Lack {
	if n.Arch != "" && i.Arch != n.Arch {
		return Arch
	}
	if len(n.Zones) > 0 && !slices.Contains(n.Zones, i.Zone) {
		return Location
	}
	if n.Distinct && i.Groups[n.Group] > 0 {
		return Distinct
	}
	for _, e := range n.Where {
		if !e.Holds(i.Attribute) {
			return Member
		}
	}
	if i.Away {
		return Agent
	}
	return ""
}

// Put takes a task's room from the instance.
func (i *Instance) Put(n *Need) {
	if n.GPUs|n.Shared != 0 {
		i.take(n, i.Choose(n))
	}
	i.put(n)
}

// PutOn is Put for a task that has its GPUs already.
func (i *Instance) PutOn(n *Need, gpus []int) {
	i.take(n, gpus)
	i.put(n)
}

func (i *Instance) put(n *Need) {
	i.Free = i.Free.Minus(n.Room)
	for _, p := range n.Ports {
		if i.Ports == nil {
			i.Ports = map[Port]bool{}
		}
		i.Ports[p] = true
	}
	if i.Groups == nil {
		i.Groups = map[string]int{}
	}
	i.Groups[n.Group]++
}

// Refusal is why no instance gets a task.
type Refusal struct {
	Closest string // id of the instance that lacked least; empty where there is none
	Lack    Lack
}

// Closest says in ECS's words what the closest instance lacked; observed.
func (r Refusal) String() string {
	if r.Closest == "" {
		return "No Container Instances were found in your capacity provider."
	}
	return fmt.Sprintf("The closest matching container-instance %s %s.", r.Closest, lacking[r.Lack])
}

// lacking is how a lack is told of an instance. The texts of architecture, location,
// member and distinct are guessed, the agent's is documented, the others are observed.
var lacking = map[Lack]string{
	CPU: "has insufficient CPU units available", Memory: "has insufficient memory available", Ports: "is already using a port required by your task",
	GPU: "has insufficient GPU resource available", Interface: "encountered error \"RESOURCE:ENI\"",
	Arch: "encountered error \"RESOURCE:ecs.cpu-architecture\"", Location: "encountered error \"LOCATION\"",
	Member: "is missing an attribute required by your task", Distinct: "encountered error \"distinctInstance placement constraint unsatisfied\"",
	Agent: "encountered error \"AGENT\"",
}

// Lacking is a lack in the words of ECS's events.
func Lacking(l Lack) string { return lacking[l] }

// order is how far an instance was with a task: who lacks a constraint has had
// the room.
var order = []Lack{Agent, Distinct, Member, Location, Arch, Ports, Interface, GPU, Memory, CPU}

// Pick chooses the instance for a task; -1 and a refusal where there is none.
// spread is the tasks of its group by zone.
func Pick(n *Need, instances []Instance, spread map[string]int) (int, Refusal) {
	best, why, rank := -1, Refusal{}, len(order)
	zone, fill := 0, 0.0
	for at := range instances {
		i := &instances[at]
		if lack := i.Lacks(n); lack != "" {
			if best < 0 {
				if r := slices.Index(order, lack); r < rank {
					why, rank = Refusal{i.ID, lack}, r
				}
			}
			continue
		}
		z := spread[i.Zone]
		f := i.Free.share(&n.Room)
		if best < 0 || z < zone || z == zone && (f > fill || f == fill && i.ID < instances[best].ID) {
			best, zone, fill = at, z, f
		}
	}
	if best >= 0 {
		return best, Refusal{}
	}
	return -1, why
}

// byZone compares zones by their tasks, then by name.
func byZone(spread map[string]int) func(x, y string) int {
	return func(x, y string) int { return cmp.Or(cmp.Compare(spread[x], spread[y]), cmp.Compare(x, y)) }
}
