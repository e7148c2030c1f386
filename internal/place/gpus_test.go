package place

import (
	"reflect"
	"testing"

	"serin/internal/catalogue"
)

// ledger is who has which GPUs of an instance, kept apart from what the instance says.
type ledger struct {
	whole  map[int]bool // GPUs that a task has for itself
	shared map[int]int  // MiB that tasks have of the others
}

// put puts a task on an instance and looks whether that was right: nothing is given
// twice, or whole and shared at once, and what is left is what is told.
func (l *ledger) put(t *testing.T, i *Instance, n *Need) {
	t.Helper()
	if l.whole == nil {
		*l = ledger{map[int]bool{}, map[int]int{}}
	}
	on := i.Choose(n)
	if again := i.Choose(n); !reflect.DeepEqual(on, again) {
		t.Fatalf("chose %v and then %v", on, again)
	}
	i.Put(n)
	want := 0
	switch {
	case n.Shared > 0, n.GPUs > 0 && n.GPUs < Whole:
		want = 1
	default:
		want = n.GPUs / Whole
	}
	if len(on) != want {
		t.Fatalf("%+v got the GPUs %v", n.Room, on)
	}
	for _, at := range on {
		if l.whole[at] || n.Shared == 0 && l.shared[at] > 0 {
			t.Fatalf("GPU %d is given twice: %+v", at, l)
		}
		if n.Shared > 0 {
			l.shared[at] += n.Shared
		} else {
			l.whole[at] = true
		}
	}
	idle, left := 0, 0
	for at, g := range i.GPUs {
		has := g.Memory - l.shared[at]
		if l.whole[at] {
			has = 0
		}
		if has < 0 || g.Left != has {
			t.Fatalf("GPU %d has %d MiB left, and says %+v", at, has, g)
		}
		if left += has; has == g.Memory {
			idle += Whole
		}
	}
	f := i.Free
	if i.GPUs != nil && (f.GPUs != idle || f.Shared != left) || min(f.CPU, f.Memory, f.GPUs, f.Shared, f.Interfaces) < 0 {
		t.Fatalf("there are %d thousandths and %d MiB, and it says %+v", idle, left, f)
	}
}

func TestTasksShareAGPUAsFarAsItsMemoryGoes(t *testing.T) {
	o := Offer{Room: Room{CPU: 9000, Memory: 90000, GPUs: 2 * Whole, Shared: 2 * 16000, Interfaces: 99}}
	share := func(memory int) *Need { return &Need{Room: Room{Shared: memory}} }
	whole := &Need{Room: Room{GPUs: Whole}}
	i := o.Instance(Zone{})
	for _, c := range []struct {
		name string
		need *Need
		on   []int
		free Room
	}{
		{"the first takes an idle one", share(6000), []int{0}, Room{GPUs: Whole, Shared: 26000}},
		{"what does not fit beside it takes another", share(11000), []int{1}, Room{Shared: 15000}},
		{"a third goes where it fills best", share(4000), []int{1}, Room{Shared: 11000}},
		{"or where there is room", share(4001), []int{0}, Room{Shared: 6999}},
		{"what the GPUs have together, none has", share(6000), nil, Room{Shared: 6999}},
		{"none is idle", whole, nil, Room{Shared: 6999}},
		{"to the last MiB", share(5999), []int{0}, Room{Shared: 1000}},
	} {
		if lack := i.Lacks(c.need); (lack == "") != (c.on != nil) || lack != "" && lack != GPU {
			t.Errorf("%s: it lacks %q", c.name, lack)
		}
		if c.on != nil {
			if on := i.Choose(c.need); !reflect.DeepEqual(on, c.on) {
				t.Errorf("%s: GPUs %v, want %v", c.name, on, c.on)
			}
			i.Put(c.need)
		}
		if i.Free.GPUs != c.free.GPUs || i.Free.Shared != c.free.Shared {
			t.Errorf("%s: %+v is left", c.name, i.Free)
		}
	}
	// A task that is there keeps the GPU that it has, whoever came before it.
	i = o.Instance(Zone{})
	i.PutOn(share(100), []int{1})
	i.PutOn(whole, []int{0})
	if i.Lacks(whole) != GPU || i.Free.Shared != 15900 || i.GPUs[1].Left != 15900 {
		t.Errorf("there is %+v and %+v", i.Free, i.GPUs)
	}
}

// A part of a GPU is bought for who asks for it, and used up by one; whole ones are
// for the others, and tasks that share one are packed by its memory.
func TestAMarketHasGPUsWholeAndInParts(t *testing.T) {
	m := market(&catalogue.Requirements{Allowed: []string{"g6.*", "g6f.*", "gr6f.*"}}, "a")
	need := func(gpus, shared int) Need {
		return Need{Room: Room{CPU: 256, Memory: 512, GPUs: gpus, Shared: shared, Interfaces: 1}}
	}
	for _, c := range []struct {
		name  string
		needs []Need
		want  map[string]int
	}{
		{"an eighth", []Need{need(125, 0)}, map[string]int{"g6f.large": 1}},
		{"a quarter", []Need{need(250, 0)}, map[string]int{"g6f.2xlarge": 1}},
		{"a half", []Need{need(500, 0)}, map[string]int{"g6f.4xlarge": 1}},
		{"a half with much memory", []Need{{Room: Room{CPU: 256, Memory: 100000, GPUs: 500}}}, map[string]int{"gr6f.4xlarge": 1}},
		{"two quarters are two instances", []Need{need(250, 0), need(250, 0)}, map[string]int{"g6f.2xlarge": 2}},
		{"a quarter with another task beside it", []Need{need(250, 0), need(0, 0)}, map[string]int{"g6f.2xlarge": 1}},
		{"a whole one and a quarter", []Need{need(Whole, 0), need(250, 0)}, map[string]int{"g6.xlarge": 1, "g6f.2xlarge": 1}},
		{"four that share one", []Need{need(0, 5000), need(0, 5000), need(0, 5000), need(0, 5000)}, map[string]int{"g6.xlarge": 1}},
		{"a fifth", []Need{need(0, 5000), need(0, 5000), need(0, 5000), need(0, 5000), need(0, 5000)}, map[string]int{"g6.xlarge": 2}},
		{"one that shares and one that does not", []Need{need(0, 5000), need(Whole, 0)}, map[string]int{"g6.xlarge": 2}},
		{"another part", []Need{need(375, 0)}, map[string]int{}},
		{"more than a GPU's memory", []Need{need(0, 22889)}, map[string]int{}},
	} {
		plan, left := m.Buy(c.needs, map[string]map[string]int{})
		got := map[string]int{}
		for _, p := range plan {
			got[p.Type]++
		}
		if !reflect.DeepEqual(got, c.want) || (len(left) > 0) != (len(c.want) == 0) {
			t.Errorf("%s: bought %v and left %v, want %v", c.name, got, left, c.want)
		}
	}
}

// Tasks that leave an instance are counted with the GPUs of those that stay.
func TestShrinkLeavesGPUsAsTheyAre(t *testing.T) {
	m := market(&catalogue.Requirements{Allowed: []string{"g6.*"}}, "a")
	need := Need{Room: Room{CPU: 256, Memory: 512, Shared: 10000, Interfaces: 1}}
	load := func(id string, tasks int) Loaded {
		l := Loaded{Instance: m.Offers[0].Instance(m.Zones[0]), USD: m.Offers[0].USD}
		l.ID = id
		for range tasks {
			l.Put(&need)
			l.Tasks = append(l.Tasks, need)
		}
		return l
	}
	for _, c := range []struct {
		name  string
		tasks [2]int
		want  int
	}{
		{"two that fit on one GPU are on two", [2]int{1, 1}, 0},
		{"a third does not fit", [2]int{2, 1}, -1},
	} {
		loaded := []Loaded{load("1", c.tasks[0]), load("2", c.tasks[1])}
		before := []Device{loaded[0].GPUs[0], loaded[1].GPUs[0]}
		if got := m.Shrink(loaded); got != c.want {
			t.Errorf("%s: drains %d, want %d", c.name, got, c.want)
		}
		if after := []Device{loaded[0].GPUs[0], loaded[1].GPUs[0]}; !reflect.DeepEqual(before, after) {
			t.Errorf("%s: the GPUs were %v and are %v", c.name, before, after)
		}
	}
}
