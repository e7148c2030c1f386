package catalogue

import (
	"fmt"
	"slices"
	"testing"
)

func names(types []Type) (out []string) {
	for _, t := range types {
		out = append(out, t.Name)
	}
	return out
}

func TestEveryTypeIsWhole(t *testing.T) {
	if n := len(All()); n != 764 {
		t.Errorf("the catalogue has %d types, want 759 and 5 by hand", n)
	}
	unknown := 0
	for _, x := range All() {
		if x.Gbps == 0 {
			unknown++
		}
		if x.VCPU < 1 || x.Memory < 512 || x.Interfaces < 2 || x.Registered() >= x.Memory || x.Registered() <= 0 || (x.GPUs > 0) != (x.GPU != "" && x.GPUMemory > 0 && x.GPUPart > 0) {
			t.Errorf("%+v", x)
		}
		if usd, ok := x.OnDemand("us-east-1"); !ok || usd <= 0 {
			t.Errorf("%s has no price in us-east-1", x.Name)
		}
		if found, ok := Find(x.Name); !ok || found.Name != x.Name {
			t.Errorf("%s is not found", x.Name)
		}
	}
	if unknown > 40 {
		t.Errorf("the bandwidth of %d types is not known", unknown)
	}
	if _, ok := Find("m5.huge"); ok {
		t.Error("m5.huge was found")
	}
}

func TestPrices(t *testing.T) {
	g6, _ := Find("g6.xlarge")
	r7a, _ := Find("r7a.medium")
	r7aSpot, _ := r7a.OnDemand("eu-west-1")
	r7aSpot *= spotShare
	for _, c := range []struct {
		what    string
		t       Type
		region  string
		spot    bool
		usd     float64
		guessed bool
		ok      bool
	}{
		{"as it is", g6, "ap-northeast-2", false, 0.9896, false, true},
		{"another region", g6, "us-east-1", false, 0.8048, false, true},
		{"not sold there", g6, "eu-west-1", false, 0, false, false},
		{"a region that the data lacks counts as us-east-1", g6, "sa-east-1", false, 0.8048, false, true},
		{"Spot", g6, "us-east-1", true, 0.354112, false, true},
		{"Spot where the data has none", r7a, "eu-west-1", true, r7aSpot, true, true},
	} {
		usd, ok := c.t.OnDemand(c.region)
		guessed := false
		if c.spot {
			usd, guessed, ok = c.t.Spot(c.region)
		}
		if usd != c.usd || guessed != c.guessed || ok != c.ok {
			t.Errorf("%s: %v, guessed %v, sold %v", c.what, usd, guessed, ok)
		}
	}
}

// Parts of GPUs are whole types but for their prices, which are not known everywhere:
// where none is known, none is shown, and the type is bought all the same.
func TestTypesWithAPartOfAGPU(t *testing.T) {
	for _, c := range []struct {
		name         string
		part         Permille
		memory       MiB
		vcpu         int
		usd          float64
		tokyo, seoul string // of what is known there
	}{
		{"g6f.large", 125, 2861, 2, 0.202, "0.293", "unknown"},
		{"g6f.xlarge", 125, 2861, 4, 0.2375, "0.344", "unknown"},
		{"g6f.2xlarge", 250, 5722, 8, 0.475, "0.689", "unknown"},
		{"g6f.4xlarge", 500, 11444, 16, 0.95, "unknown", "unknown"},
		{"gr6f.4xlarge", 500, 11444, 16, 1.066, "unknown", "unknown"},
	} {
		x, ok := Find(c.name)
		if usd, _ := x.OnDemand("us-east-1"); !ok || x.GPUs != 1 || x.GPUPart != c.part || x.GPUMemory != c.memory || x.VCPU != c.vcpu || usd != c.usd || x.GPU != "l4" || x.Dated() != FractionsDate {
			t.Errorf("%+v", x)
		}
		for region, want := range map[string]string{"ap-northeast-1": c.tokyo, "ap-northeast-2": c.seoul, "eu-west-1": "not sold"} {
			usd, ok := x.OnDemand(region)
			_, _, spot := x.Spot(region)
			got := fmt.Sprint(usd)
			switch {
			case !x.Sold(region):
				got = "not sold"
			case !ok:
				got = "unknown"
			}
			if got != want || spot != ok {
				t.Errorf("in %s %s costs %s, want %s", region, c.name, got, want)
			}
			if usd := x.Compared(region, false); usd <= 0 || x.Compared(region, true) != usd*spotShare {
				t.Errorf("in %s %s is compared by %v", region, c.name, usd)
			}
		}
	}
	if g6, _ := Find("g6.xlarge"); g6.GPUPart != Whole || g6.Dated() != Date || g6.GPUMemory != 22888 {
		t.Errorf("%+v", g6)
	}
}

func TestAttributeBasedSelection(t *testing.T) {
	from := func(low float64) Range { return Range{Min: low} }
	for _, c := range []struct {
		name string
		r    Requirements
		// the cheapest in us-east-1, some that match and some that do not
		first   string
		in, out []string
	}{
		{"what is not said: no bare metal, nothing burstable, no nano", Requirements{VCPU: from(2), MemoryMiB: from(8192)}, "m6g.large", []string{"g6.xlarge", "m5d.large"}, []string{"m5.metal", "t3.large", "t4g.nano", "c5.large"}},
		{"a range of processors and memory", Requirements{VCPU: Range{2, 2, false}, MemoryMiB: Range{16384, 16384, false}}, "r6g.large", []string{"r5a.large"}, []string{"r7a.medium", "m5.xlarge"}},
		{"memory for each processor", Requirements{GiBPerVCPU: Range{8, 8, false}}, "r6g.medium", []string{"r7a.medium"}, []string{"m5.large"}},
		{"a manufacturer", Requirements{VCPU: from(2), Manufacturers: []string{"intel"}}, "", []string{"m5.large"}, []string{"m5a.large", "m6g.large"}},
		{"allowed types", Requirements{Allowed: []string{"g6.xlarge", "g5.*"}}, "g6.xlarge", []string{"g5.48xlarge"}, []string{"g6.2xlarge", "g5g.xlarge"}},
		{"excluded types: a star stands for more of the family's name, too", Requirements{Excluded: []string{"c5*", "m5a.*"}}, "", []string{"m5ad.large", "c6i.large"}, []string{"c5.large", "c5a.large", "c5n.large", "m5a.large"}},
		{"burstable required, and never a micro", Requirements{Burstable: Required}, "t4g.small", []string{"t3.small"}, []string{"t3.micro", "m5.large"}},
		{"bare metal required", Requirements{BareMetal: Required}, "", []string{"m5.metal"}, []string{"m5.large"}},
		{"local storage required", Requirements{Local: Required, LocalGB: from(100)}, "", []string{"g6.xlarge"}, []string{"m5.large"}},
		{"local storage excluded", Requirements{Local: Excluded}, "", []string{"m5.large"}, []string{"m5d.large"}},
		{"disks", Requirements{Local: Required, LocalTypes: []string{"hdd"}}, "", []string{"d3.xlarge"}, []string{"m5d.large"}},
		{"a GPU by count, maker and kind, or a part of one", Requirements{AcceleratorCount: from(1), AcceleratorMakers: []string{"nvidia"}, AcceleratorTypes: []string{"gpu"}}, "g6f.large", []string{"g5g.xlarge", "g4dn.xlarge", "gr6f.4xlarge"}, []string{"m5.large"}},
		{"one GPU, or a part of one", Requirements{AcceleratorCount: Range{1, 1, false}, Allowed: []string{"g6*"}}, "g6f.large", []string{"g6.xlarge", "g6f.4xlarge"}, []string{"g6.12xlarge", "gr6f.4xlarge"}},
		{"more memory than parts of a GPU have", Requirements{AcceleratorMemoryMiB: from(11445)}, "g5g.xlarge", []string{"g6.xlarge"}, []string{"g6f.4xlarge"}},
		{"a part's memory, nominally", Requirements{AcceleratorMemoryMiB: Range{3072, 12288, false}}, "g6f.2xlarge", []string{"g6f.4xlarge", "gr6f.4xlarge"}, []string{"g6f.xlarge", "g6.xlarge"}},
		{"a family of parts", Requirements{Allowed: []string{"g6f.*"}}, "g6f.large", []string{"g6f.2xlarge"}, []string{"g6.xlarge", "gr6f.4xlarge"}},
		{"a GPU by name", Requirements{AcceleratorNames: []string{"a10g"}}, "g5.xlarge", []string{"g5.2xlarge"}, []string{"g5g.xlarge", "g4dn.xlarge"}},
		{"a nominal 24 GB is more than a g6.xlarge reports", Requirements{AcceleratorMemoryMiB: from(24576), AcceleratorCount: Range{1, 1, false}}, "g5.xlarge", nil, []string{"g6.xlarge"}},
		{"no accelerator", Requirements{AcceleratorCount: Range{Zero: true}}, "", []string{"m5.large"}, []string{"g6.xlarge", "g6f.large"}},
		{"another kind of accelerator", Requirements{AcceleratorTypes: []string{"inference"}}, "", nil, []string{"g6.xlarge", "m5.large"}},
		{"network bandwidth is the baseline", Requirements{Gbps: from(12), VCPU: Range{1, 8, false}}, "", []string{"c6in.2xlarge"}, []string{"m5.2xlarge"}},
		{"network interfaces", Requirements{Interfaces: from(15)}, "", []string{"m5.24xlarge"}, []string{"m5.large"}},
		{"general purpose", General, "c6g.medium", []string{"r5a.large", "m7a.medium"}, []string{"g6.xlarge", "t3.medium", "i4i.large"}},
	} {
		got := names(c.r.Select("us-east-1"))
		if c.first != "" && (len(got) == 0 || got[0] != c.first) {
			t.Errorf("%s: the cheapest is %v, want %s", c.name, got[:min(3, len(got))], c.first)
		}
		for _, name := range c.in {
			if !slices.Contains(got, name) {
				t.Errorf("%s: %s is not selected", c.name, name)
			}
		}
		for _, name := range c.out {
			if slices.Contains(got, name) {
				t.Errorf("%s: %s is selected", c.name, name)
			}
		}
	}
}

// What self-managed instances register, observed, and how many tasks have an
// interface of their own, documented.
func TestWhatAnInstanceOffersTasks(t *testing.T) {
	for _, c := range []struct {
		name       string
		memory     MiB
		interfaces int
	}{
		{"m5.large", 7680, 10}, {"m5.xlarge", 15576, 20}, {"m5.2xlarge", 31368, 40}, {"m5.4xlarge", 62950, 60}, {"m5.12xlarge", 189283, 60}, {"m5.24xlarge", 378652, 120},
		{"c5.large", 3704, 10}, {"c5.4xlarge", 31142, 60}, {"c5.9xlarge", 70341, 60}, {"c5.18xlarge", 140768, 120},
		{"m7a.medium", 0, 4}, {"m6i.8xlarge", 0, 90}, {"m6i.12xlarge", 0, 120}, {"m6g.8xlarge", 0, 60}, {"m7i-flex.large", 0, 4}, {"m7i-flex.8xlarge", 0, 60}, {"m7i-flex.12xlarge", 0, 120},
		{"t3.medium", 0, 2}, {"g4dn.xlarge", 0, 2},
	} {
		x, ok := Find(c.name)
		if !ok || x.TaskInterfaces() != c.interfaces {
			t.Errorf("%s has %d interfaces for tasks, want %d", c.name, x.TaskInterfaces(), c.interfaces)
		}
		if off := float64(x.Registered()-c.memory) / float64(x.Memory); c.memory > 0 && (off < -0.02 || off > 0.02) {
			t.Errorf("%s registers %d MiB, observed are %d", c.name, x.Registered(), c.memory)
		}
	}
}
