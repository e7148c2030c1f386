package place

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"serin/internal/catalogue"
)

// market is what a provider without requirements of its own buys from.
func market(r *catalogue.Requirements, zones ...string) Market {
	var m Market
	for _, t := range r.Select("us-east-1") {
		usd, _ := t.OnDemand("us-east-1")
		room := Room{CPU: t.VCPU * 1024, Memory: int(t.Registered()), GPUs: t.GPUs * int(t.GPUPart), Interfaces: t.TaskInterfaces()}
		if t.GPUPart == catalogue.Whole {
			room.Shared = t.GPUs * int(t.GPUMemory)
		}
		m.Offers = append(m.Offers, Offer{t.Name, string(t.Arch), room, usd})
	}
	for _, z := range zones {
		m.Zones = append(m.Zones, Zone{z, "subnet-" + z})
	}
	return m
}

func task(group string, cpu, memory int) Need {
	return Need{Room: Room{CPU: cpu, Memory: memory, Interfaces: 1}, Group: group, Arch: "X86_64"}
}

// AWS's own example: two services of two tasks in two zones share two instances,
// one task of each on both; and when one service is gone, smaller ones do.
func TestAWSsExampleComesOutAsItSays(t *testing.T) {
	m := market(&catalogue.General, "a", "b")
	needs := []Need{task("small", 1024, 5632), task("small", 1024, 5632), task("large", 1024, 9728), task("large", 1024, 9728)}
	plan, left := m.Buy(needs, map[string]map[string]int{})
	if len(left) > 0 || len(plan) != 2 {
		t.Fatalf("planned %d instances and left %v: %+v", len(plan), left, plan)
	}
	for i, p := range plan {
		if p.Type != "r5a.large" || p.Zone.Name != m.Zones[i].Name || len(p.For) != 2 || needs[p.For[0]].Group == needs[p.For[1]].Group {
			t.Errorf("bought %s in %s for %v, want an r5a.large in each zone for one of each", p.Type, p.Zone.Name, p.For)
		}
	}
	var loaded []Loaded
	for i, p := range plan {
		l := Loaded{Instance: p.Instance(p.Zone), USD: p.USD, Tasks: []Need{needs[i]}}
		l.ID = fmt.Sprint("i", i)
		l.Put(&needs[i])
		loaded = append(loaded, l)
	}
	if at := m.Shrink(loaded); at != 0 {
		t.Fatalf("drains %d, want one of the two", at)
	}
	plan, _ = m.Buy(needs[:1], map[string]map[string]int{})
	if plan[0].Type != "r7a.medium" {
		t.Errorf("bought %s for one small task, want r7a.medium", plan[0].Type)
	}
}

func TestATaskGoesToTheZoneWithTheFewestAndFillsAnInstance(t *testing.T) {
	at := func(id, zone string, cpu, memory int) Instance {
		return Instance{ID: id, Zone: zone, Arch: "X86_64", Free: Room{CPU: cpu, Memory: memory, Interfaces: 9}}
	}
	instances := []Instance{at("1", "a", 4096, 16000), at("2", "a", 1024, 2000), at("3", "b", 4096, 16000)}
	n := task("web", 1024, 1500)
	for _, c := range []struct {
		name   string
		spread map[string]int
		want   string
	}{
		{"nothing runs: the fullest that fits", nil, "2"},
		{"one in a: zone b, though it packs worse", map[string]int{"a": 1}, "3"},
		{"one in each: packing decides again", map[string]int{"a": 1, "b": 1}, "2"},
	} {
		got, why := Pick(&n, instances, c.spread)
		if got < 0 || instances[got].ID != c.want {
			t.Errorf("%s: picked %d (%v), want %s", c.name, got, why, c.want)
		}
	}
}

func TestARefusalSaysWhichInstanceWasClosestAndWhatItLacked(t *testing.T) {
	at := func(id string, free Room) Instance {
		return Instance{ID: id, Type: "m5.large", Zone: "a", Subnet: "s", Arch: "X86_64", Free: free}
	}
	roomy := Room{8192, 32000, Whole, 22888, 9}
	where := func(text string) []Expr {
		e, err := ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		return []Expr{e}
	}
	with := func(change func(*Need)) Need {
		n := Need{Room: Room{CPU: 1024, Memory: 2048, Interfaces: 1}, Group: "web"}
		change(&n)
		return n
	}
	away := at("away", roomy)
	away.Away = true
	busy := at("busy", roomy)
	busy.Put(&Need{Group: "web", Ports: []Port{{80, false}}})
	for _, c := range []struct {
		name      string
		need      Need
		instances []Instance
		closest   string
		lack      Lack
		text      string
	}{
		{"no instance", with(func(*Need) {}), nil, "", "", "No Container Instances were found in your capacity provider."},
		{"the agent's connection", with(func(*Need) {}), []Instance{away}, "away", Agent, `The closest matching container-instance away encountered error "AGENT".`},
		{"processors", with(func(n *Need) { n.CPU = 9000 }), []Instance{at("i", roomy)}, "i", CPU, "The closest matching container-instance i has insufficient CPU units available."},
		{"memory", with(func(n *Need) { n.Memory = 64000 }), []Instance{at("i", roomy)}, "i", Memory, "The closest matching container-instance i has insufficient memory available."},
		{"GPUs", with(func(n *Need) { n.GPUs = 2 * Whole }), []Instance{at("i", roomy)}, "i", GPU, "The closest matching container-instance i has insufficient GPU resource available."},
		{"a part of a GPU where there are whole ones", with(func(n *Need) { n.GPUs = 250 }), []Instance{at("i", roomy)}, "i", GPU, "The closest matching container-instance i has insufficient GPU resource available."},
		{"a share of a GPU where there is a part of one", with(func(n *Need) { n.Shared = 1 }), []Instance{at("i", Room{8192, 32000, 500, 0, 9})}, "i", GPU, "The closest matching container-instance i has insufficient GPU resource available."},
		{"interfaces", with(func(n *Need) { n.Interfaces = 10 }), []Instance{at("i", roomy)}, "i", Interface, `The closest matching container-instance i encountered error "RESOURCE:ENI".`},
		{"a port", with(func(n *Need) { n.Ports = []Port{{80, false}} }), []Instance{busy}, "busy", Ports, "The closest matching container-instance busy is already using a port required by your task."},
		{"an architecture", with(func(n *Need) { n.Arch = "ARM64" }), []Instance{at("i", roomy)}, "i", Arch, `The closest matching container-instance i encountered error "RESOURCE:ecs.cpu-architecture".`},
		{"a zone", with(func(n *Need) { n.Zones = []string{"other"} }), []Instance{at("i", roomy)}, "i", Location, `The closest matching container-instance i encountered error "LOCATION".`},
		{"a constraint", with(func(n *Need) { n.Where = where("attribute:ecs.instance-type =~ c5.*") }), []Instance{at("i", roomy)}, "i", Member, "The closest matching container-instance i is missing an attribute required by your task."},
		{"an instance of its own", with(func(n *Need) { n.Distinct = true }), []Instance{busy}, "busy", Distinct, `The closest matching container-instance busy encountered error "distinctInstance placement constraint unsatisfied".`},
		{"the closest is the one with the room", with(func(n *Need) { n.Distinct = true }), []Instance{at("small", Room{CPU: 1, Memory: 1, Interfaces: 9}), busy}, "busy", Distinct, `The closest matching container-instance busy encountered error "distinctInstance placement constraint unsatisfied".`},
	} {
		got, why := Pick(&c.need, c.instances, nil)
		if got != -1 || why.Closest != c.closest || why.Lack != c.lack || why.String() != c.text {
			t.Errorf("%s: picked %d, %q, want %q", c.name, got, why, c.text)
		}
	}
}

func TestExpressionsOfTheClusterQueryLanguage(t *testing.T) {
	has := map[string]string{"ecs.instance-type": "m5.large", "ecs.availability-zone": "us-east-1a", "stack": "prod", "n": "7"}
	attribute := func(name string) (string, bool) { v, ok := has[name]; return v, ok }
	for text, want := range map[string]bool{
		"attribute:ecs.instance-type == m5.large":                                              true,
		"attribute:ecs.instance-type != m5.large":                                              false,
		"attribute:ecs.instance-type =~ m5.*":                                                  true,
		"attribute:ecs.instance-type =~ m(5|6).large":                                          true,
		"attribute:ecs.instance-type !~ m5.*":                                                  false,
		"attribute:ecs.availability-zone in [us-east-1a, us-east-1b]":                          true,
		"attribute:ecs.availability-zone !in [us-east-1a, us-east-1b]":                         false,
		"attribute:ecs.availability-zone in [us-east-1c]":                                      false,
		"attribute:stack exists":                                                               true,
		"attribute:stack !exists":                                                              false,
		"attribute:other exists":                                                               false,
		"attribute:n > 6 and attribute:n <= 7":                                                 true,
		"attribute:stack == prod && not (attribute:n > 6 or attribute:stack == test)":          false,
		"attribute:stack == test or attribute:stack == 'prod'":                                 true,
		"(attribute:stack == prod) and (attribute:n >= 7 || attribute:ecs.instance-type == x)": true,
	} {
		e, err := ParseExpr(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := e.Holds(attribute); got != want {
			t.Errorf("%s is %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"", "attribute:", "ecs.instance-type == x", "attribute:a", "attribute:a == ", "attribute:a in x", "attribute:a in [x", "attribute:a =~ (", "(attribute:a == b", "attribute:a == b c", "attribute:a ~ b"} {
		if e, err := ParseExpr(text); err == nil {
			t.Errorf("%q was read as %v", text, e)
		}
	}
}

// gpus has a task ask for GPUs, a part of one or a share of one.
func gpus(r *rand.Rand, n *Need) {
	switch r.IntN(3) {
	case 0:
		n.GPUs = (1 + r.IntN(2)) * Whole
	case 1:
		n.GPUs = []int{125, 250, 500}[r.IntN(3)]
	default:
		n.Shared = 1 + r.IntN(24000)
	}
}

// random is a cluster and tasks that ask for all kinds of things.
func random(r *rand.Rand) (m Market, instances []Instance, needs []Need) {
	all := market(&catalogue.Requirements{Burstable: catalogue.Included}, "a", "b", "c")
	some := market(&catalogue.Requirements{Allowed: []string{"g*"}})
	m.Zones = all.Zones[:1+r.IntN(3)]
	for range 1 + r.IntN(12) {
		from := all.Offers
		if r.IntN(3) == 0 {
			from = some.Offers
		}
		m.Offers = append(m.Offers, from[r.IntN(len(from))])
	}
	for n := range r.IntN(10) {
		i := m.Offers[r.IntN(len(m.Offers))].Instance(m.Zones[r.IntN(len(m.Zones))])
		i.ID = fmt.Sprint("i", n)
		instances = append(instances, i)
	}
	for range 1 + r.IntN(40) {
		n := Need{Room: Room{CPU: r.IntN(9000), Memory: r.IntN(40000), Interfaces: r.IntN(2)}, Group: fmt.Sprint("g", r.IntN(4)), Distinct: r.IntN(5) == 0}
		if r.IntN(3) == 0 {
			gpus(r, &n)
		}
		if r.IntN(3) == 0 {
			n.Arch = []string{"X86_64", "ARM64"}[r.IntN(2)]
		}
		if r.IntN(4) == 0 {
			n.Ports = []Port{{uint16(80 + r.IntN(2)), r.IntN(2) == 0}}
		}
		if r.IntN(6) == 0 {
			n.Zones = []string{"a"}
		}
		if r.IntN(6) == 0 {
			e, _ := ParseExpr("attribute:ecs.instance-type =~ m.*")
			n.Where = []Expr{e}
		}
		needs = append(needs, n)
	}
	return m, instances, needs
}

// Whatever is asked: nothing is overcommitted, nothing is placed against a
// constraint, nobody is forgotten or placed twice, nobody is refused whom an
// offer would hold, and the same input gives the same plan.
func TestPlansKeepTheirPromises(t *testing.T) {
	for seed := range uint64(3000) {
		m, instances, needs := random(rand.New(rand.NewPCG(seed, 1)))
		m2, _, needs2 := random(rand.New(rand.NewPCG(seed, 1)))
		kept := make([]ledger, len(instances))
		for n := range needs {
			if at, _ := Pick(&needs[n], instances, nil); at >= 0 {
				if lack := instances[at].Lacks(&needs[n]); lack != "" {
					t.Fatalf("seed %d: a task is on an instance that lacks %s", seed, lack)
				}
				kept[at].put(t, &instances[at], &needs[n])
			} else if slices.ContainsFunc(instances, func(i Instance) bool { return i.Lacks(&needs[n]) == "" }) {
				t.Fatalf("seed %d: a task was refused that an instance has room for", seed)
			}
		}
		plan, left := m.Buy(needs, map[string]map[string]int{})
		again, _ := m2.Buy(needs2, map[string]map[string]int{})
		if len(plan) != len(again) {
			t.Fatalf("seed %d: two plans of the same", seed)
		}
		seen := map[int]int{}
		for n, p := range plan {
			if !reflect.DeepEqual(p.For, again[n].For) || p.Type != again[n].Type || p.Zone != again[n].Zone {
				t.Fatalf("seed %d: two plans of the same", seed)
			}
			i := p.Instance(p.Zone)
			var l ledger
			for _, at := range p.For {
				if lack := i.Lacks(&needs[at]); lack != "" {
					t.Fatalf("seed %d: %s is bought for a task and lacks %s", seed, p.Type, lack)
				}
				l.put(t, &i, &needs[at])
				seen[at]++
			}
		}
		for _, at := range left {
			seen[at]++
			for _, z := range m.Zones {
				for _, o := range m.Offers {
					if i := o.Instance(z); i.Lacks(&needs[at]) == "" {
						t.Fatalf("seed %d: nothing is bought for a task that %s would hold", seed, o.Type)
					}
				}
			}
		}
		for at := range needs {
			if seen[at] != 1 {
				t.Fatalf("seed %d: task %d is in the plan %d times", seed, at, seen[at])
			}
		}
	}
}

// What is drained does not come back: the cheapest instances for what they carry
// are left alone, and an instance whose tasks fit beside others is not.
func TestShrinkComesToAnEnd(t *testing.T) {
	for seed := range uint64(500) {
		m, _, needs := random(rand.New(rand.NewPCG(seed, 2)))
		plan, left := m.Buy(needs, map[string]map[string]int{})
		if len(left) > 0 {
			continue
		}
		var loaded []Loaded
		for n, p := range plan {
			l := Loaded{Instance: p.Instance(p.Zone), USD: p.USD}
			l.ID = fmt.Sprint("i", n)
			for _, at := range p.For {
				l.Put(&needs[at])
				l.Tasks = append(l.Tasks, needs[at])
			}
			loaded = append(loaded, l)
		}
		for round := 0; ; round++ {
			at := m.Shrink(loaded)
			if at < 0 {
				break
			}
			if round > 100 {
				t.Fatalf("seed %d: draining does not end", seed)
			}
			gone := loaded[at]
			loaded = slices.Delete(loaded, at, at+1)
			var homeless []Need
			for _, n := range gone.Tasks {
				var free []Instance
				var of []int
				for at, l := range loaded {
					if l.Zone == gone.Zone {
						free, of = append(free, l.Instance), append(of, at)
					}
				}
				if to, _ := Pick(&n, free, nil); to >= 0 {
					l := &loaded[of[to]]
					l.Put(&n)
					l.Tasks = append(l.Tasks, n)
				} else {
					homeless = append(homeless, n)
				}
			}
			one := Market{m.Offers, []Zone{{gone.Zone, gone.Subnet}}}
			bought, _ := one.Buy(homeless, map[string]map[string]int{})
			for _, p := range bought {
				l := Loaded{Instance: p.Instance(p.Zone), USD: p.USD}
				l.ID = fmt.Sprint("r", round, p.For)
				for _, at := range p.For {
					l.Put(&homeless[at])
					l.Tasks = append(l.Tasks, homeless[at])
				}
				loaded = append(loaded, l)
			}
		}
	}
}

func BenchmarkBuyForTenThousandTasks(b *testing.B) {
	m := market(&catalogue.General, "a", "b", "c")
	var needs []Need
	for n := range 10_000 {
		needs = append(needs, task(fmt.Sprint("s", n%100), 256*(1+n%16), 512*(1+n%31)))
	}
	for b.Loop() {
		if _, left := m.Buy(needs, map[string]map[string]int{}); len(left) > 0 {
			b.Fatal(left)
		}
	}
}

func BenchmarkPickAmongFiveThousandInstances(b *testing.B) {
	m := market(&catalogue.General, "a", "b", "c")
	var instances []Instance
	for n := range 5000 {
		i := m.Offers[n%len(m.Offers)].Instance(m.Zones[n%3])
		i.ID = fmt.Sprint("i", n)
		instances = append(instances, i)
	}
	n := task("web", 1024, 2048)
	spread := map[string]int{"a": 3, "b": 2, "c": 1}
	for b.Loop() {
		if at, _ := Pick(&n, instances, spread); at < 0 {
			b.Fatal("refused")
		}
	}
}
