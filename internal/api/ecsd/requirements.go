package ecsd

import (
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/catalogue"
)

var typePattern = regexp.MustCompile(`^[a-zA-Z0-9.*-]{1,30}$`)

// requirementsOf is what a provider asks of instance types; nothing asked is
// general purpose.
func requirementsOf(in *types.InstanceRequirementsRequest) (catalogue.Requirements, error) {
	if in == nil {
		return catalogue.General, nil
	}
	r := catalogue.Requirements{
		Allowed: in.AllowedInstanceTypes, Excluded: in.ExcludedInstanceTypes, Manufacturers: words(in.CpuManufacturers), Generations: words(in.InstanceGenerations),
		BareMetal: catalogue.Choice(in.BareMetal), Burstable: catalogue.Choice(in.BurstablePerformance), Local: catalogue.Choice(in.LocalStorage), LocalTypes: words(in.LocalStorageTypes),
		AcceleratorTypes: words(in.AcceleratorTypes), AcceleratorMakers: words(in.AcceleratorManufacturers), AcceleratorNames: words(in.AcceleratorNames),
	}
	switch {
	case in.VCpuCount == nil || in.VCpuCount.Min == nil:
		return r, client("instanceRequirements.vCpuCount.min must be specified.")
	case in.MemoryMiB == nil || in.MemoryMiB.Min == nil:
		return r, client("instanceRequirements.memoryMiB.min must be specified.")
	case len(r.Allowed) > 0 && len(r.Excluded) > 0:
		return r, client("instanceRequirements can have allowedInstanceTypes or excludedInstanceTypes, not both.")
	case len(r.Allowed) > 400 || len(r.Excluded) > 400:
		return r, client("allowedInstanceTypes and excludedInstanceTypes can have at most 400 items.")
	case in.BaselineEbsBandwidthMbps != nil:
		return r, client("Serin's catalogue of instance types does not know baselineEbsBandwidthMbps; it is not performed.")
	case aws.ToBool(in.RequireHibernateSupport):
		return r, client("Serin's catalogue of instance types does not know requireHibernateSupport; it is not performed.")
	}
	for _, p := range append(append([]string(nil), r.Allowed...), r.Excluded...) {
		if !typePattern.MatchString(p) {
			return r, client("The instance type pattern '%s' must have up to 30 letters, digits, dots, hyphens and asterisks.", p)
		}
	}
	r.VCPU, r.MemoryMiB = between(in.VCpuCount.Min, in.VCpuCount.Max), between(in.MemoryMiB.Min, in.MemoryMiB.Max)
	if x := in.MemoryGiBPerVCpu; x != nil {
		r.GiBPerVCPU = between(x.Min, x.Max)
	}
	if x := in.TotalLocalStorageGB; x != nil {
		r.LocalGB = between(x.Min, x.Max)
	}
	if x := in.NetworkInterfaceCount; x != nil {
		r.Interfaces = between(x.Min, x.Max)
	}
	if x := in.NetworkBandwidthGbps; x != nil {
		r.Gbps = between(x.Min, x.Max)
	}
	if x := in.AcceleratorCount; x != nil {
		r.AcceleratorCount = between(x.Min, x.Max)
	}
	if x := in.AcceleratorTotalMemoryMiB; x != nil {
		r.AcceleratorMemoryMiB = between(x.Min, x.Max)
	}
	for _, x := range []struct {
		name string
		catalogue.Range
	}{{"vCpuCount", r.VCPU}, {"memoryMiB", r.MemoryMiB}, {"memoryGiBPerVCpu", r.GiBPerVCPU}, {"totalLocalStorageGB", r.LocalGB}, {"networkInterfaceCount", r.Interfaces}, {"networkBandwidthGbps", r.Gbps},
		{"acceleratorCount", r.AcceleratorCount}, {"acceleratorTotalMemoryMiB", r.AcceleratorMemoryMiB}} {
		if x.Min < 0 || x.Max > 0 && x.Max < x.Min {
			return r, client("instanceRequirements.%s must go from a min to a max that is not less, got %v to %v.", x.name, x.Min, x.Max)
		}
	}
	return r, nil
}

func words[T ~string](in []T) (out []string) {
	for _, w := range in {
		out = append(out, string(w))
	}
	return out
}

func between[N int32 | float64](low, high *N) (r catalogue.Range) {
	if low != nil {
		r.Min = float64(*low)
	}
	if high != nil {
		r.Max, r.Zero = float64(*high), *high == 0
	}
	return r
}
