package place

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestStrategiesChooseAmongWhatTheOnesBeforeLeft(t *testing.T) {
	at := func(id, zone, rack string, cpu, memory, tasks int) Instance {
		return Instance{ID: id, Zone: zone, Free: Room{CPU: cpu, Memory: memory, Interfaces: 9}, Groups: map[string]int{"web": tasks}, Other: func(name string) (string, bool) { return rack, name == "rack" }}
	}
	instances := []Instance{at("1", "a", "x", 4096, 3000, 2), at("2", "a", "y", 2048, 9000, 0), at("3", "b", "x", 3000, 2500, 1), at("4", "b", "y", 512, 100, 0)}
	n := &Need{Room: Room{CPU: 1024, Memory: 1024, Interfaces: 1}, Group: "web", Seed: 7}
	for _, c := range []struct {
		name   string
		orders []Order
		want   string
	}{
		{"the zone with the fewest, though its other instance is full", []Order{{Spread, "ecs.availability-zone"}}, "3"},
		{"the instance with the fewest", []Order{{Spread, InstanceID}}, "2"},
		{"an attribute's value with the fewest", []Order{{Spread, "rack"}}, "2"},
		{"the least processors", []Order{{Binpack, "cpu"}}, "2"},
		{"the least memory", []Order{{Binpack, "memory"}}, "3"},
		{"the least memory of a zone", []Order{{Spread, "ecs.availability-zone"}, {Binpack, "memory"}}, "3"},
		{"what a task draws", []Order{{Kind: Random}}, "2"}, // 7 of three
		{"without any, by name", nil, "1"},
	} {
		got, _ := PickBy(n, instances, c.orders)
		if got < 0 || instances[got].ID != c.want {
			t.Errorf("%s: picked %d, want %s", c.name, got, c.want)
		}
	}
	if at, why := PickBy(&Need{Room: Room{CPU: 9000, Memory: 1, Interfaces: 1}}, instances, ByZone); at >= 0 || why.Lack != CPU || why.Closest == "" {
		t.Errorf("picked %d: %v", at, why)
	}
}

// Whatever the strategies: nothing is overcommitted, nothing is against a constraint,
// what fits is placed, and the same input gives the same choice.
func TestStrategiesKeepWhatAnInstanceCanTake(t *testing.T) {
	kinds := []Order{{Spread, "ecs.availability-zone"}, {Spread, InstanceID}, {Binpack, "cpu"}, {Binpack, "memory"}, {Kind: Random}}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		var instances []Instance
		for i := range 1 + r.IntN(8) {
			o := Offer{Arch: "X86_64", Room: Room{CPU: r.IntN(8) * 512, Memory: r.IntN(8) * 1024, GPUs: []int{0, 250, Whole, 2 * Whole}[r.IntN(4)], Interfaces: r.IntN(4)}}
			if o.Room.GPUs >= Whole {
				o.Room.Shared = o.Room.GPUs / Whole * 16384
			}
			n := o.Instance(Zone{Name: string('a' + rune(r.IntN(3)))})
			n.ID = fmt.Sprint("i", i)
			instances = append(instances, n)
		}
		kept := make([]ledger, len(instances))
		for range 30 {
			n := Need{Room: Room{CPU: r.IntN(4) * 512, Memory: r.IntN(4) * 512, Interfaces: 1}, Group: fmt.Sprint(r.IntN(3)), Distinct: r.IntN(4) == 0, Seed: r.Uint64()}
			if r.IntN(2) == 0 {
				gpus(r, &n)
			}
			if r.IntN(3) == 0 {
				n.Zones = []string{"a"}
			}
			var orders []Order
			for range r.IntN(3) {
				orders = append(orders, kinds[r.IntN(len(kinds))])
			}
			at, why := PickBy(&n, instances, orders)
			if again, _ := PickBy(&n, instances, orders); again != at {
				t.Fatalf("seed %d: picked %d and then %d", seed, at, again)
			}
			if at < 0 {
				for i := range instances {
					if instances[i].Lacks(&n) == "" {
						t.Fatalf("seed %d: %s would have taken it, but: %v", seed, instances[i].ID, why)
					}
				}
				continue
			}
			if lack := instances[at].Lacks(&n); lack != "" {
				t.Fatalf("seed %d: picked an instance that lacks %s", seed, lack)
			}
			kept[at].put(t, &instances[at], &n)
		}
	}
}

func TestAGroupHasAsManyInstancesAsItsTargetSays(t *testing.T) {
	s := Scaling{Target: 100, MinStep: 1, MaxStep: 10000}
	for _, c := range []struct {
		name string
		s    Scaling
		l    Load
		want int
	}{
		{"nothing to do", s, Load{Have: 2, Used: 2}, 2},
		{"from nothing", s, Load{Need: 3}, 3},
		{"more beside those that are full", s, Load{Have: 2, Used: 2, Need: 1}, 3},
		{"fewer than there are", s, Load{Have: 4, Used: 1}, 1},
		{"none at all", s, Load{Have: 4}, 0},
		{"a tenth to spare", Scaling{90, 1, 10000}, Load{Have: 9, Used: 9}, 10},
		{"half to spare", Scaling{50, 1, 10000}, Load{Have: 2, Used: 2}, 4},
		{"at least the step", Scaling{100, 3, 10000}, Load{Have: 1, Used: 1, Need: 1}, 4},
		{"at most the step", Scaling{100, 1, 2}, Load{Need: 9}, 2},
		{"the step is taken up by those that warm up", Scaling{100, 1, 2}, Load{Have: 2, Used: 2, Need: 7, Warming: 2}, 2},
		{"a part of it is", Scaling{100, 1, 3}, Load{Have: 2, Used: 2, Need: 7, Warming: 2}, 3},
	} {
		if got := c.s.Want(c.l); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := []int{Reservation(0, 0), Reservation(1, 0), Reservation(3, 4), Reservation(3, 2)}; !reflect.DeepEqual(got, []int{100, 200, 75, 150}) {
		t.Errorf("the reservations are %v", got)
	}
}
