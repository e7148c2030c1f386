// Package catalogue is the EC2 instance types that ECS Managed Instances can
// buy: what they have and what they cost.
//
// The figures are those of the public ec2instances.info data set of 28 May 2025, and
// for types with a part of a GPU, which came later, of the sources that fractions.csv
// names; whoever shows a price shows its date. What the data does not say and Serin
// needs all the same is derived, and each such rule is marked as guessed.
package catalogue

import (
	"cmp"
	_ "embed"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Date is when the figures were right, and FractionsDate when those of types with a
// part of a GPU were.
const (
	Date          = "28 May 2025"
	FractionsDate = "September 2026"
)

// Arch is a processor architecture in ECS's words.
type Arch string

const (
	X86 Arch = "X86_64"
	ARM Arch = "ARM64"
)

// MiB is an amount of memory.
type MiB int

// Permille is thousandths.
type Permille int

// Whole is a whole GPU.
const Whole Permille = 1000

// Type is an instance type.
type Type struct {
	Name         string // m5.large
	Arch         Arch
	Manufacturer string // of the processor: intel, amd, amazon-web-services
	Previous     bool   // of the previous generation
	VCPU         int
	Memory       MiB
	GPUs         int
	GPUPart      Permille // of a GPU, that each is: Whole, or less
	GPU          string   // t4, l4, …
	GPUMemory    MiB      // of each
	LocalGB      float64
	Disks        bool    // its local storage is hdd, not ssd
	Interfaces   int     // network interfaces, without trunking
	Gbps         float64 // baseline of the network; 0: not known, as of burstable types
	BareMetal    bool
	Burstable    bool

	prices [len(regions)]prices
}

// prices are US dollars an hour; 0 says that a type is not sold so, or that no source
// gives the price at which it is.
type prices struct {
	onDemand, spot float64
	unknown        bool
}

// regions are those that the data has prices of.
var regions = [...]string{"us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-northeast-1", "ap-northeast-2"}

var (
	//go:embed ec2-instances.csv
	data string
	//go:embed fractions.csv
	fractions string
)

var load = sync.OnceValue(func() (c struct {
	types  []Type
	byName map[string]int
}) {
	c.types = append(readAll(data), readAll(fractions)...)
	fillNetwork(c.types)
	slices.SortFunc(c.types, func(x, y Type) int { return strings.Compare(x.Name, y.Name) })
	c.byName = map[string]int{}
	for i, t := range c.types {
		c.byName[t.Name] = i
	}
	return c
})

// readAll reads a file of types. What it has no column of is empty.
func readAll(data string) (types []Type) {
	in := csv.NewReader(strings.NewReader(data))
	in.Comment = '#'
	rows, err := in.ReadAll()
	if err != nil {
		panic("catalogue: " + err.Error()) // the file is part of the program
	}
	head := map[string]int{}
	for i, name := range rows[0] {
		head[name] = i
	}
	for _, row := range rows[1:] {
		types = append(types, read(func(column string) string {
			if i, ok := head[column]; ok {
				return row[i]
			}
			return ""
		}))
	}
	return types
}

// unknown is a price that no source gives.
const unknown = "?"

func read(field func(string) string) Type {
	number := func(column string) float64 {
		text := field(column)
		if text == "" || text == unknown {
			return 0
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			panic(fmt.Sprintf("catalogue: %s of %s: %v", column, field("instance_type"), err))
		}
		return f
	}
	t := Type{
		Name: field("instance_type"), Arch: X86, Manufacturer: field("cpu_manufacturer"), Previous: field("generation") == "previous",
		VCPU: int(number("vcpu")), Memory: MiB(number("memory_mib")), GPUs: int(number("gpu_count")), LocalGB: number("local_storage_gb"),
		Interfaces: int(number("max_enis")), BareMetal: field("bare_metal") == "true",
	}
	if field("arch") == "arm64" {
		t.Arch = ARM
	}
	if t.Manufacturer == "aws" {
		t.Manufacturer = "amazon-web-services"
	}
	family := t.Family()
	t.Burstable = slices.Contains([]string{"t3", "t3a", "t4g"}, family)
	t.Disks = slices.Contains([]string{"d3", "d3en"}, family)
	if t.GPUs > 0 {
		t.GPU, t.GPUPart = gpuName(field("gpu_model")), cmp.Or(Permille(number("gpu_part")), Whole)
		t.GPUMemory = MiB(number("gpu_memory_mib_total")) / MiB(t.GPUs)
		if t.GPU == "l4" && t.GPUPart == Whole {
			t.GPUMemory = 22888 // measured: what a g6.xlarge reports
		}
	}
	if text, ok := strings.CutSuffix(field("network_performance"), " Gigabit"); ok && !strings.HasPrefix(text, "Up to") {
		t.Gbps, _ = strconv.ParseFloat(text, 64)
	}
	for i, region := range regions {
		demand := "usd_per_hour_on_demand_" + region
		t.prices[i] = prices{number(demand), number("usd_per_hour_spot_avg_" + region), field(demand) == unknown}
	}
	return t
}

// gpuName is a model in the words of attribute-based selection: NVIDIA T4 Tensor
// Core is t4.
func gpuName(model string) string {
	model = strings.TrimPrefix(strings.TrimPrefix(model, "NVIDIA "), "Tesla ")
	name, _, _ := strings.Cut(strings.ToLower(model), " ")
	return name
}

// fillNetwork gives the sizes that are sold with "up to" some bandwidth their
// share of the smallest size with a bandwidth of its own, which is the baseline
// that AWS publishes for the families compared; guessed for the others.
func fillNetwork(types []Type) {
	smallest := map[string]Type{}
	for _, t := range types {
		if s, ok := smallest[t.Family()]; t.Gbps > 0 && !t.BareMetal && (!ok || t.VCPU < s.VCPU) {
			smallest[t.Family()] = t
		}
	}
	for i, t := range types {
		if s := smallest[t.Family()]; t.Gbps == 0 && s.VCPU > 0 {
			types[i].Gbps = s.Gbps * float64(t.VCPU) / float64(s.VCPU)
		}
	}
}

// All is every type, by name. It must not be changed.
func All() []Type { return load().types }

// Find finds a type by its name.
func Find(name string) (Type, bool) {
	c := load()
	i, ok := c.byName[name]
	if !ok {
		return Type{}, false
	}
	return c.types[i], true
}

// Family is the name before the dot: m5 of m5.large.
func (t Type) Family() string {
	family, _, _ := strings.Cut(t.Name, ".")
	return family
}

// Size is the name behind the dot: large of m5.large.
func (t Type) Size() string {
	_, size, _ := strings.Cut(t.Name, ".")
	return size
}

// spotShare is what a Spot hour costs of an On-Demand hour where the data has no
// Spot price; guessed, the median of those that it has.
const spotShare = 0.35

// Region is the region whose prices are those of a region: itself, or, where the
// data does not have it, us-east-1.
func Region(region string) string {
	if slices.Contains(regions[:], region) {
		return region
	}
	return regions[0]
}

// in is a type's prices in Region(region).
func (t *Type) in(region string) prices { return t.prices[slices.Index(regions[:], Region(region))] }

// Sold says whether a type is sold in Region(region), at a price that is known or not.
func (t Type) Sold(region string) bool {
	p := t.in(region)
	return p.onDemand > 0 || p.unknown
}

// Dated is when a type's prices were right.
func (t Type) Dated() string {
	if t.GPUs > 0 && t.GPUPart < Whole {
		return FractionsDate
	}
	return Date
}

// OnDemand is US dollars an hour in Region(region); ok is false where the type is
// not sold there, or no source gives its price.
func (t Type) OnDemand(region string) (usd float64, ok bool) {
	usd = t.in(region).onDemand
	return usd, usd > 0
}

// Compared is what types are compared by when one is to be bought, in US dollars an
// hour: the price, or the one in us-east-1 where no source gives it. It is not shown.
func (t Type) Compared(region string, spot bool) (usd float64) {
	if _, ok := t.OnDemand(region); !ok {
		region = regions[0]
	}
	if spot {
		usd, _, _ = t.Spot(region)
	} else {
		usd, _ = t.OnDemand(region)
	}
	return usd
}

// Spot is an average of US dollars an hour on Spot. guessed says that it is
// a share of the On-Demand price.
func (t Type) Spot(region string) (usd float64, guessed, ok bool) {
	usd, ok = t.OnDemand(region)
	if own := t.in(region).spot; own > 0 {
		return own, false, ok
	}
	return usd * spotShare, true, ok
}

// Registered is the memory that an instance offers tasks: what the kernel and the
// hypervisor leave. Fitted to what self-managed instances of the fifth generation
// register, observed; guessed for Managed Instances, which may keep more.
func (t Type) Registered() MiB {
	const fixed = 216
	share := 0.0365
	if t.Name[0] == 'c' {
		share = 0.043
	}
	return t.Memory - fixed - MiB(share*float64(t.Memory))
}

// untrunked is the families whose interfaces are not trunked, documented.
var untrunked = []string{"t3", "t3a", "t4g", "c5n", "d3", "d3en", "g4dn", "m5dn", "m5n", "m5zn", "r5b", "r5n", "r5dn", "z1d", "p3dn"}

// TaskInterfaces is how many tasks with a network interface of their own run on an
// instance: with trunking as documented, by size, else all interfaces but the
// host's. That Managed Instances do not trunk where EC2 does not is guessed.
func (t Type) TaskInterfaces() int {
	family := t.Family()
	switch {
	case slices.Contains(untrunked, family):
		return t.Interfaces - 1
	case strings.HasSuffix(family, "-flex"):
		return map[int]int{2: 4, 4: 10, 8: 20, 16: 40, 32: 60}[min(t.VCPU, 32)] * (1 + t.VCPU/48)
	}
	sixth := family[1] >= '6' && !strings.HasPrefix(family[2:], "g") && strings.Contains("cmr", family[:1])
	switch {
	case t.VCPU <= 1:
		return 4
	case t.VCPU <= 2:
		return 10
	case t.VCPU <= 4:
		return 20
	case t.VCPU <= 8:
		return 40
	case t.VCPU <= 16:
		return 60
	case t.VCPU <= 32 && sixth:
		return 90
	case t.VCPU < 64 && !sixth:
		return 60
	}
	return 120
}
