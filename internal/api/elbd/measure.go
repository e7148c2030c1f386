package elbd

import (
	"strings"
	"time"

	"serin/internal/arn"
	"serin/internal/balance"
	"serin/internal/metric"
	"serin/internal/store"
)

// Measure is what the load balancers have carried since the last call, and how
// their targets are, as the metrics of the minute at. The names, dimensions and
// the conditions under which each is reported are documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html
// https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-cloudwatch-metrics.html
//
// Who carried what follows from the ARNs alone, so that a listener and a group
// that are gone have their last minute.
func (a *API) Measure(at time.Time) map[arn.Scope][]metric.Datum {
	m := minute{at: at, balancers: map[string]*carried{}, networks: map[string]flowing{}, groups: map[[2]string]*carried{}, data: map[arn.Scope][]metric.Datum{}}
	loads := a.balance.Measure()
	a.store.View(func(tx *store.Tx) {
		for _, l := range loads {
			if ofNetwork(l.Listener) {
				row, _ := a.listeners.Get(tx, keyOf(l.Listener))
				m.addFlows(l, row.Protocol)
			} else {
				m.add(l)
			}
		}
		for _, g := range a.groups.Scan(tx, "") {
			for _, lb := range a.usersOf(tx, g.ARN) {
				m.group(lb, g.ARN).used = true
			}
		}
	})
	for lb, f := range m.networks {
		m.report(lb, f.data(), metric.Dimension{Name: "LoadBalancer", Value: last(lb)})
	}
	for lb, c := range m.balancers {
		m.report(lb, c.data(), metric.Dimension{Name: "LoadBalancer", Value: last(lb)})
	}
	counts := map[string]targetCounts{}
	for pair := range m.groups {
		counts[pair[1]] = countTargets(a.HealthOf(pair[1]))
	}
	for pair, c := range m.groups {
		// Only while requests flow is a metric reported that is zero.
		c.flows = m.balancers[pair[0]] != nil && m.balancers[pair[0]].flows
		n := counts[pair[1]]
		data := append(c.data(), c.perTarget(n)...)
		if c.used {
			data = append(data, n.data()...)
		}
		m.report(pair[0], data, metric.Dimension{Name: "TargetGroup", Value: groupName(pair[1])}, metric.Dimension{Name: "LoadBalancer", Value: last(pair[0])})
	}
	for group, c := range m.byGroup() {
		m.report(group, c.perTarget(counts[group]), metric.Dimension{Name: "TargetGroup", Value: groupName(group)})
	}
	return m.data
}

// ofNetwork says that an ARN is of a network load balancer, whose metrics have
// another namespace.
func ofNetwork(resourceARN string) bool { return strings.Contains(resourceARN, "/net/") }

// groupName is a target group as a dimension: targetgroup/NAME/ID.
func groupName(groupARN string) string { return "targetgroup/" + last(groupARN) }

// balancerOf is the load balancer of a listener.
func balancerOf(listenerARN string) string {
	before, path, _ := strings.Cut(listenerARN, ":listener/")
	return before + ":loadbalancer/" + path[:strings.LastIndexByte(path, '/')]
}

// minute collects what was carried in one.
type minute struct {
	at        time.Time
	balancers map[string]*carried    // by ARN
	networks  map[string]flowing     // by ARN
	groups    map[[2]string]*carried // by the ARNs of load balancer and group
	data      map[arn.Scope][]metric.Datum
}

func (m *minute) group(lb, group string) *carried {
	c := m.groups[[2]string{lb, group}]
	if c == nil {
		c = &carried{}
		m.groups[[2]string{lb, group}] = c
	}
	return c
}

func (m *minute) add(l balance.Load) {
	lb := balancerOf(l.Listener)
	c := m.balancers[lb]
	if c == nil {
		c = &carried{}
		m.balancers[lb] = c
	}
	c.fixed, c.redirects = c.fixed+float64(l.Fixed), c.redirects+float64(l.Redirects)
	c.bytes, c.opened, c.open = c.bytes+float64(l.Bytes), c.opened+float64(l.Opened), c.open+float64(l.Open)
	c.flows = c.flows || len(l.Own)+len(l.Groups) > 0
	for code, n := range l.Own {
		if class := code / 100; class < len(c.ownClasses) {
			c.ownClasses[class] += float64(n)
		}
		if at := code - 500; at >= 0 && at < len(c.own5XX) {
			c.own5XX[at] += float64(n)
		}
	}
	for group, g := range l.Groups {
		c.add(g)
		m.group(lb, group).add(g)
	}
}

// byGroup is what each group has had of all load balancers.
func (m *minute) byGroup() map[string]*carried {
	out := map[string]*carried{}
	for pair, c := range m.groups {
		sum := out[pair[1]]
		if sum == nil {
			sum = &carried{}
			out[pair[1]] = sum
		}
		sum.requests, sum.flows = sum.requests+c.requests, sum.flows || c.flows
	}
	return out
}

func (m *minute) report(of string, data []metric.Datum, dimensions ...metric.Dimension) {
	a, err := arn.Parse(of)
	if err != nil {
		return // it has no account to tell
	}
	namespace := "AWS/ApplicationELB"
	if ofNetwork(of) {
		namespace = "AWS/NetworkELB"
	}
	for _, d := range data {
		d.Namespace, d.At, d.Dimensions = namespace, m.at, dimensions
		m.data[a.Scope()] = append(m.data[a.Scope()], d)
	}
}

// carried is the load of a load balancer, or what one of its groups had of it.
type carried struct {
	flows               bool // requests came
	used                bool // a rule forwards to it now
	requests, failed    float64
	codes               [6]float64
	times               metric.Set
	ownClasses          [6]float64 // and these only of a load balancer
	own5XX              [5]float64
	fixed, redirects    float64
	bytes, opened, open float64
}

func (c *carried) add(g balance.GroupLoad) {
	c.requests, c.failed = c.requests+float64(g.Requests), c.failed+float64(g.Failed)
	for class, n := range g.Codes {
		c.codes[class] += float64(n)
	}
	c.times.Merge(g.Times)
}

// measures are the metrics that are reported when they are not zero.
var measures = []struct {
	name, unit string
	set        func(*carried) metric.Set
}{
	{"HTTPCode_Target_2XX_Count", "Count", func(c *carried) metric.Set { return ones(c.codes[2]) }},
	{"HTTPCode_Target_3XX_Count", "Count", func(c *carried) metric.Set { return ones(c.codes[3]) }},
	{"HTTPCode_Target_4XX_Count", "Count", func(c *carried) metric.Set { return ones(c.codes[4]) }},
	{"HTTPCode_Target_5XX_Count", "Count", func(c *carried) metric.Set { return ones(c.codes[5]) }},
	{"TargetResponseTime", "Seconds", func(c *carried) metric.Set { return c.times }},
	{"TargetConnectionErrorCount", "Count", func(c *carried) metric.Set { return ones(c.failed) }},
	{"HTTPCode_ELB_3XX_Count", "Count", func(c *carried) metric.Set { return ones(c.ownClasses[3]) }},
	{"HTTPCode_ELB_4XX_Count", "Count", func(c *carried) metric.Set { return ones(c.ownClasses[4]) }},
	{"HTTPCode_ELB_5XX_Count", "Count", func(c *carried) metric.Set { return ones(c.ownClasses[5]) }},
	{"HTTPCode_ELB_500_Count", "Count", func(c *carried) metric.Set { return ones(c.own5XX[0]) }},
	{"HTTPCode_ELB_502_Count", "Count", func(c *carried) metric.Set { return ones(c.own5XX[2]) }},
	{"HTTPCode_ELB_503_Count", "Count", func(c *carried) metric.Set { return ones(c.own5XX[3]) }},
	{"HTTPCode_ELB_504_Count", "Count", func(c *carried) metric.Set { return ones(c.own5XX[4]) }},
	{"HTTP_Fixed_Response_Count", "Count", func(c *carried) metric.Set { return ones(c.fixed) }},
	{"HTTP_Redirect_Count", "Count", func(c *carried) metric.Set { return ones(c.redirects) }},
	{"ActiveConnectionCount", "Count", func(c *carried) metric.Set { return one(c.open) }},
	{"NewConnectionCount", "Count", func(c *carried) metric.Set { return one(c.opened) }},
	{"ProcessedBytes", "Bytes", func(c *carried) metric.Set { return one(c.bytes) }},
}

// ones is n events: their sum is n, and the least, the greatest and the average
// are 1, documented.
func ones(n float64) (s metric.Set) {
	s.Add(1, n)
	return s
}

// one is a single sample, nothing when it is zero.
func one(value float64) (s metric.Set) {
	if value != 0 {
		s.Add(value, 1)
	}
	return s
}

func (c *carried) data() (out []metric.Datum) {
	// RequestCount counts those for which a target was chosen, and is reported
	// always, but nothing is while no requests flow; all documented.
	requests := ones(c.requests)
	if c.flows && c.requests == 0 {
		requests.Add(0, 1)
	}
	out = reported(out, "RequestCount", "Count", requests)
	for _, m := range measures {
		out = reported(out, m.name, m.unit, m.set(c))
	}
	return out
}

// perTarget is the average over the targets, whose only valid statistic is the
// sum, documented. Which targets count when they change within the minute is
// guessed: those at its end, and one where none is left.
func (c *carried) perTarget(n targetCounts) []metric.Datum {
	var average metric.Set
	if c.flows || c.requests > 0 {
		average.Add(c.requests/max(n.all, 1), 1)
	}
	return reported(nil, "RequestCountPerTarget", "Count", average)
}

func reported(data []metric.Datum, name, unit string, set metric.Set) []metric.Datum {
	if set.Count == 0 {
		return data
	}
	return append(data, metric.Datum{Name: name, Unit: unit, Set: set})
}

// targetCounts is how many of a group's targets are how.
type targetCounts struct{ all, healthy, unhealthy float64 }

func countTargets(targets map[string]Health) (n targetCounts) {
	for _, h := range targets {
		n.all++
		switch h.State {
		case "healthy":
			n.healthy++
		case "unhealthy":
			n.unhealthy++
		}
	}
	return n
}

// data is reported, zeros too, of a group that has targets and to which a rule
// forwards. That no requests need flow for it is guessed: who wants to know how
// many are healthy wants it then too.
func (n targetCounts) data() (out []metric.Datum) {
	if n.all == 0 {
		return nil
	}
	for name, count := range map[string]float64{"HealthyHostCount": n.healthy, "UnHealthyHostCount": n.unhealthy} {
		var s metric.Set
		s.Add(count, 1)
		out = reported(out, name, "Count", s)
	}
	return out
}
