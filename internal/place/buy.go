package place

import (
	"cmp"
	"maps"
	"slices"
)

// Offer is an instance type that can be bought.
type Offer struct {
	Type, Arch string
	Room       Room
	USD        float64 // an hour
}

// Zone is where instances can be bought.
type Zone struct{ Name, Subnet string }

// Market is what can be bought, and where.
type Market struct {
	Offers []Offer
	Zones  []Zone
}

// Purchase is an instance to be bought, and the tasks that it is bought for, as
// indexes of what was asked for.
type Purchase struct {
	Offer
	Zone
	For []int
}

// Instance is a purchase as it will be.
func (o *Offer) Instance(z Zone) Instance {
	return Instance{Type: o.Type, Arch: o.Arch, Zone: z.Name, Subnet: z.Subnet, Free: o.Room, GPUs: o.Room.Devices()}
}

// Buy plans instances for tasks that fit nowhere: each task goes to the zone with
// the fewest of its group; in a zone the largest come first, and that offer is
// taken which packs most for its price. spread is the tasks by group and zone,
// and is brought up to date. What cannot be bought for is told apart.
func (m Market) Buy(needs []Need, spread map[string]map[string]int) (plan []Purchase, left []int) {
	zones := map[Zone][]int{}
	for at := range needs {
		n := &needs[at]
		z, ok := m.zone(n, spread[n.Group])
		if !ok {
			left = append(left, at)
			continue
		}
		if spread[n.Group] == nil {
			spread[n.Group] = map[string]int{}
		}
		spread[n.Group][z.Name]++
		zones[z] = append(zones[z], at)
	}
	largest := m.largest()
	for _, z := range m.Zones {
		waiting := zones[z]
		slices.SortStableFunc(waiting, func(x, y int) int {
			return cmp.Compare(largest.share(&needs[y].Room), largest.share(&needs[x].Room))
		})
		least := smallest(needs, waiting)
		for len(waiting) > 0 {
			p, rest := m.best(needs, waiting, z, least)
			plan = append(plan, p)
			waiting = rest
		}
	}
	return plan, left
}

// zone is where a task is bought for: a zone in which some offer holds it.
func (m Market) zone(n *Need, spread map[string]int) (Zone, bool) {
	zones := slices.Clone(m.Zones)
	compare := byZone(spread)
	slices.SortStableFunc(zones, func(x, y Zone) int { return compare(x.Name, y.Name) })
	for _, z := range zones {
		for _, o := range m.Offers {
			i := o.Instance(z)
			if i.Lacks(n) == "" {
				return z, true
			}
		}
	}
	return Zone{}, false
}

// largest is the most of everything that an offer has: what tasks are compared by.
func (m Market) largest() (r Room) {
	for _, o := range m.Offers {
		r = Room{max(r.CPU, o.Room.CPU), max(r.Memory, o.Room.Memory), max(r.GPUs, o.Room.GPUs), max(r.Shared, o.Room.Shared), max(r.Interfaces, o.Room.Interfaces)}
	}
	return r
}

// best is the offer that carries the first of the waiting tasks and, filled with
// those behind it, costs the least for what it carries; and who waits on.
func (m Market) best(needs []Need, waiting []int, z Zone, small Room) (best Purchase, rest []int) {
	least := 0.0
	for n := range m.Offers {
		o := &m.Offers[n]
		if best.For != nil && o.USD/weight(&o.Room) > least*(1+1e-9) {
			continue // even full it costs more for what it carries
		}
		filled := o.fill(needs, waiting, z, small)
		if len(filled) == 0 {
			continue
		}
		var sum Room
		for _, at := range filled {
			sum = sum.Plus(needs[at].Room)
		}
		cost := o.USD / weight(&sum)
		same := cost <= least*(1+1e-9)
		if best.For == nil || cost < least*(1-1e-9) || same && (len(filled) > len(best.For) || len(filled) == len(best.For) && o.Type < best.Type) {
			best, least = Purchase{*o, z, filled}, cost
		}
	}
	carried := map[int]bool{}
	for _, at := range best.For {
		carried[at] = true
	}
	return best, slices.DeleteFunc(waiting, func(at int) bool { return carried[at] })
}

// weight makes one number of what tasks take: a processor is worth about as much
// as 4 GiB of memory, the shape of a general-purpose instance, a GPU as 8 processors,
// and 3 GiB of a GPU that is shared as one: a GPU of 24 GiB comes to the same.
func weight(r *Room) float64 {
	return max(float64(r.CPU)/1024+float64(r.Memory)/4096+float64(r.GPUs)*8/Whole+float64(r.Shared)/3072, 1e-6)
}

// fill is the tasks that an instance of the offer carries, in their order. The
// first of them must fit; none takes less than small.
func (o *Offer) fill(needs []Need, waiting []int, z Zone, small Room) (carried []int) {
	i := o.Instance(z)
	for n, at := range waiting {
		if !i.Free.holds(&small) {
			break
		}
		need := &needs[at]
		if i.Free.holds(&need.Room) && i.Lacks(need) == "" { // most are too large, which is soon seen
			i.Put(need)
			carried = append(carried, at)
		} else if n == 0 {
			return nil
		}
	}
	return carried
}

// smallest is the least of everything that a task takes.
func smallest(needs []Need, waiting []int) (r Room) {
	for n, at := range waiting {
		o := needs[at].Room
		if n == 0 {
			r = o
		}
		r = Room{min(r.CPU, o.CPU), min(r.Memory, o.Memory), min(r.GPUs, o.GPUs), min(r.Shared, o.Shared), min(r.Interfaces, o.Interfaces)}
	}
	return r
}

// Loaded is an instance with its tasks, for Shrink.
type Loaded struct {
	Instance
	USD   float64 // an hour
	Tasks []Need
	Keep  bool // it stays, whatever it costs; others' tasks may come
}

// Better is what an instance must cost more than the cheapest that carries its
// tasks, to be worth replacing; guessed.
const Better = 1.1

// Shrink is the instance that is worth its price least, where one is not worth it:
// what its tasks would cost anew, beside those of its zone, is clearly less. One
// at a time, documented; the dearest waste first. -1: all are as they should be.
func (m Market) Shrink(instances []Loaded) int {
	worst, waste := -1, 0.0
	for at, l := range instances {
		if l.Keep || len(l.Tasks) == 0 {
			continue // what has no tasks is idle, not under-used
		}
		usd, ok := m.without(instances, at)
		if w := l.USD - usd; ok && usd*Better < l.USD && w > waste {
			worst, waste = at, w
		}
	}
	return worst
}

// without is what has to be bought for an instance's tasks when it is gone: for
// those that fit on no other of its zone.
func (m Market) without(instances []Loaded, at int) (usd float64, ok bool) {
	gone := instances[at]
	var others []Instance
	for n, l := range instances {
		if n != at && l.Zone == gone.Zone {
			i := l.Instance
			i.Ports, i.Groups, i.GPUs = maps.Clone(i.Ports), maps.Clone(i.Groups), slices.Clone(i.GPUs)
			others = append(others, i)
		}
	}
	var left []Need
	for _, n := range gone.Tasks {
		if to, _ := Pick(&n, others, nil); to >= 0 {
			others[to].Put(&n)
		} else {
			left = append(left, n)
		}
	}
	m.Zones = []Zone{{gone.Zone, gone.Subnet}}
	plan, lost := m.Buy(left, map[string]map[string]int{})
	for _, p := range plan {
		usd += p.USD
	}
	return usd, len(lost) == 0
}
