package place

import "slices"

// Whole is a whole GPU, in the thousandths that a Room counts.
const Whole = 1000

// Device is a GPU that an instance has whole. Either one task has it, or tasks share it as
// far as its memory goes; documented.
type Device struct {
	Memory int // MiB
	Left   int // that no task has
}

func (g Device) idle() bool { return g.Left == g.Memory }

// Devices is the GPUs of an instance with so much room, which are alike. A part of a
// GPU is none: it is not shared.
func (r *Room) Devices() []Device {
	if r.GPUs < Whole {
		return nil
	}
	n := r.GPUs / Whole
	return slices.Repeat([]Device{{r.Shared / n, r.Shared / n}}, n)
}

// gives says whether the instance has GPUs for a task: idle ones, or exactly the part
// that it asks for, documented, or one that has the memory.
func (i *Instance) gives(n *Need) bool {
	switch {
	case n.Shared > 0:
		return i.sharedBy(n.Shared) >= 0
	case n.GPUs < Whole:
		return i.Free.GPUs == n.GPUs
	}
	return i.Free.GPUs >= n.GPUs
}

// sharedBy is the GPU that a task shares: the one that is filled best, so that idle
// ones stay idle; guessed. -1: none has the memory.
func (i *Instance) sharedBy(memory int) int {
	best := -1
	for at, g := range i.GPUs {
		if g.Left >= memory && (best < 0 || g.Left < i.GPUs[best].Left) {
			best = at
		}
	}
	return best
}

// Choose is the GPUs that a task gets, by their place in the instance.
func (i *Instance) Choose(n *Need) (list []int) {
	if n.GPUs > 0 && n.GPUs < Whole {
		return []int{0}
	}
	if at := i.sharedBy(n.Shared); n.Shared > 0 && at >= 0 {
		list = append(list, at)
	}
	for at, g := range i.GPUs {
		if g.idle() && len(list) < n.GPUs/Whole {
			list = append(list, at)
		}
	}
	return list
}

// take takes GPUs from the instance, and from its room what else goes with them: what
// is shared is not to be had whole, and the other way about.
func (i *Instance) take(n *Need, on []int) {
	if n.GPUs > 0 && n.GPUs < Whole {
		return
	}
	for _, at := range on {
		g := &i.GPUs[at]
		switch {
		case n.Shared == 0:
			i.Free.Shared -= g.Left
			g.Left = 0
			continue
		case g.idle():
			i.Free.GPUs -= Whole
		}
		g.Left -= n.Shared
	}
}
