package catalogue

import (
	"cmp"
	"slices"
	"strings"
)

// Range is from Min to Max, both included; 0 for Max is no limit unless Zero says
// that it is meant.
type Range struct {
	Min, Max float64
	Zero     bool
}

func (r Range) holds(n float64) bool { return n >= r.Min && (r.Max == 0 && !r.Zero || n <= r.Max) }

// Choice is what is done with a property that a type has or has not.
type Choice string

const (
	Included Choice = "included"
	Required Choice = "required"
	Excluded Choice = "excluded"
)

func (c Choice) allows(has bool) bool {
	return c == Included || c == Required && has || c == Excluded && !has
}

// Requirements is attribute-based selection of instance types: all that is said
// must hold, of several values one. What is not said is as EC2 has it, but for
// prices: who buys the cheapest that fits needs no limit above the cheapest.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceRequirementsRequest.html
type Requirements struct {
	VCPU, MemoryMiB, GiBPerVCPU            Range
	Manufacturers                          []string // of processors
	Allowed, Excluded                      []string // patterns of names
	Generations                            []string // current, previous
	BareMetal, Burstable                   Choice   // empty: excluded
	Local                                  Choice   // storage; empty: included
	LocalTypes                             []string // hdd, ssd
	LocalGB, Interfaces, Gbps              Range
	AcceleratorTypes, AcceleratorMakers    []string
	AcceleratorNames                       []string
	AcceleratorCount, AcceleratorMemoryMiB Range // the memory is of all together
}

// General is what is chosen from where nothing is said: general-purpose types.
// Documented in kind; that it is the families c, m and r is guessed, and agrees
// with AWS's example.
var General = Requirements{Generations: []string{"current"}, AcceleratorCount: Range{Zero: true}, Allowed: []string{"c*", "m*", "r*"}}

// never is the sizes that Managed Instances never use, documented.
var never = []string{"nano", "micro"}

// Match says whether a type meets all requirements but that of its price.
func (r *Requirements) Match(t Type) bool {
	anyOf := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	generation := "current"
	if t.Previous {
		generation = "previous"
	}
	disk := "ssd"
	if t.Disks {
		disk = "hdd"
	}
	return !slices.Contains(never, t.Size()) &&
		r.VCPU.holds(float64(t.VCPU)) && r.MemoryMiB.holds(float64(t.Memory)) && r.GiBPerVCPU.holds(float64(t.Memory)/1024/float64(t.VCPU)) &&
		anyOf(r.Manufacturers, t.Manufacturer) && anyOf(r.Generations, generation) &&
		(len(r.Allowed) == 0 || matchAny(r.Allowed, t.Name)) && !matchAny(r.Excluded, t.Name) &&
		cmp.Or(r.BareMetal, Excluded).allows(t.BareMetal) && cmp.Or(r.Burstable, Excluded).allows(t.Burstable) && cmp.Or(r.Local, Included).allows(t.LocalGB > 0) &&
		(t.LocalGB == 0 || anyOf(r.LocalTypes, disk)) && r.LocalGB.holds(t.LocalGB) && r.Interfaces.holds(float64(t.Interfaces)) && r.Gbps.holds(t.Gbps) &&
		r.accelerated(t)
}

// accelerated says whether a type meets what is asked of accelerators. A part of a GPU
// counts as one GPU with the memory that it has: EC2 lists it as one of one device,
// documented; that it is counted so here, too, is guessed.
func (r *Requirements) accelerated(t Type) bool {
	wanted := len(r.AcceleratorTypes)+len(r.AcceleratorMakers)+len(r.AcceleratorNames) > 0
	if t.GPUs == 0 {
		return !wanted && r.AcceleratorCount.holds(0) && r.AcceleratorMemoryMiB.holds(0)
	}
	in := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	return in(r.AcceleratorTypes, "gpu") && in(r.AcceleratorMakers, "nvidia") && in(r.AcceleratorNames, t.GPU) &&
		r.AcceleratorCount.holds(float64(t.GPUs)) && r.AcceleratorMemoryMiB.holds(float64(t.GPUs)*float64(t.GPUMemory))
}

// Select is the types that meet the requirements and are sold in a region, the
// cheapest first, as they are compared.
func (r *Requirements) Select(region string) []Type {
	type priced struct {
		at  int
		usd float64
	}
	var list []priced
	all := All()
	for at := range all {
		if all[at].Sold(region) && r.Match(all[at]) {
			list = append(list, priced{at, all[at].Compared(region, false)})
		}
	}
	slices.SortStableFunc(list, func(x, y priced) int { return cmp.Compare(x.usd, y.usd) })
	out := make([]Type, len(list))
	for i, p := range list {
		out[i] = all[p.at]
	}
	return out
}

// matchAny says whether a name is that of a pattern: * stands for any text, and
// a pattern without a dot for a beginning's whole family: c5* is c5a.large, too.
func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if Glob(p, name) {
			return true
		}
	}
	return false
}

// Glob says whether a text is what a pattern with * says.
func Glob(pattern, text string) bool {
	first, rest, more := strings.Cut(pattern, "*")
	if !more {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	for i := range len(text) + 1 {
		if Glob(rest, text[i:]) {
			return true
		}
	}
	return false
}
