package elbd

import (
	"serin/internal/balance"
	"serin/internal/metric"
)

// flowing is what a network load balancer has carried in a minute, by protocol;
// under "" in all.
type flowing map[string]carriedFlows

type carriedFlows struct{ active, fresh, bytes float64 }

func (m *minute) addFlows(l balance.Load, protocol string) {
	lb := balancerOf(l.Listener)
	f := m.networks[lb]
	if f == nil {
		f = flowing{}
		m.networks[lb] = f
	}
	kinds := []string{""}
	if protocol != "" { // its row is there
		kinds = append(kinds, "_"+protocol)
	}
	for _, kind := range kinds {
		c := f[kind]
		f[kind] = carriedFlows{c.active + float64(l.Flows.Active), c.fresh + float64(l.Flows.New), c.bytes + float64(l.Flows.In+l.Flows.Out)}
	}
}

// data is reported always in all, and of a protocol what is not zero; documented.
// How active flows are sampled is not: they are the most at one time, as an
// application load balancer's connections are here.
func (f flowing) data() (out []metric.Datum) {
	for kind, c := range f {
		for _, d := range []struct {
			name, unit string
			n          float64
		}{{"ActiveFlowCount", "Count", c.active}, {"NewFlowCount", "Count", c.fresh}, {"ProcessedBytes", "Bytes", c.bytes}} {
			set := one(d.n)
			if kind == "" && d.n == 0 {
				set.Add(0, 1)
			}
			out = reported(out, d.name+kind, d.unit, set)
		}
	}
	return out
}
