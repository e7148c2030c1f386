package elbd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"serin/internal/balance"
	"serin/internal/metric"
	"serin/internal/store"
)

// What load balancers carry, for whoever watches. Counts are of all time since a
// listener, a rule, a group or a target is there, and start again with the stage.

// BalancerTraffic is a load balancer and what it has carried.
type BalancerTraffic struct {
	ARN       string            `json:"arn"`
	Name      string            `json:"name"`
	Type      string            `json:"type"`
	Listeners []ListenerTraffic `json:"listeners"`
}

// ListenerTraffic is what one listener has carried.
type ListenerTraffic struct {
	ARN      string         `json:"arn"`
	Protocol string         `json:"protocol"`
	Port     int32          `json:"port"`
	Address  string         `json:"address,omitempty"` // where it listens
	UnderWay int64          `json:"underWay"`          // requests
	Open     int64          `json:"open"`              // connections, from clients and to targets
	Opened   uint64         `json:"opened"`
	Bytes    uint64         `json:"bytes"`             // from and to clients
	Own      map[int]uint64 `json:"own"`               // the load balancer's own answers, by code
	Refused  uint64         `json:"refused,omitempty"` // connections that a network load balancer found no target for
	Rules    []RuleTraffic  `json:"rules"`
}

// RuleTraffic is what one rule has had of its listener's requests.
type RuleTraffic struct {
	ARN      string         `json:"arn"`
	Priority string         `json:"priority"`
	Requests uint64         `json:"requests"`
	Groups   []ShareTraffic `json:"targetGroups"` // that it forwards to
}

// ShareTraffic is what a target group has had of a rule's requests. A network load
// balancer's connection counts as a request.
type ShareTraffic struct {
	Group    string         `json:"targetGroup"`
	Wanted   int            `json:"weightWanted"`
	InForce  int            `json:"weight"`
	Requests uint64         `json:"requests"` // for which a target was chosen
	Codes    Codes          `json:"codes"`    // of the targets' answers
	Times    *metric.Counts `json:"times"`    // from the end of a request to the head of its answer
	Failed   uint64         `json:"failed"`   // connections to targets that could not be made
	Active   int            `json:"active,omitempty"`
	Bytes    uint64         `json:"bytes,omitempty"` // these two only of a network load balancer
}

// GroupTraffic is what a target group has carried, for all rules.
type GroupTraffic struct {
	ARN     string          `json:"arn"`
	Name    string          `json:"name"`
	Retried uint64          `json:"retried"` // at a second target, after the first died
	Targets []TargetTraffic `json:"targets"`
}

// TargetTraffic is what a target has had since it was registered. Of one that drains
// only what is under way is known.
type TargetTraffic struct {
	Address  string    `json:"address"`
	Since    time.Time `json:"registered"`
	Health   string    `json:"health"`
	Requests uint64    `json:"requests"`
	Codes    Codes     `json:"codes"`
	UnderWay int       `json:"underWay"`
	Revision string    `json:"serviceRevision,omitempty"` // whose it is, for ECS to say
}

// Codes counts answers by their hundreds, up to 5.
type Codes [6]uint64

// MarshalJSON names the hundreds.
func (c Codes) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"1xx":%d,"2xx":%d,"3xx":%d,"4xx":%d,"5xx":%d}`, c[1], c[2], c[3], c[4], c[5]), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Codes) UnmarshalJSON(raw []byte) error {
	var in map[string]uint64
	err := json.Unmarshal(raw, &in)
	for class := 1; class < len(c); class++ {
		c[class] = in[fmt.Sprintf("%dxx", class)]
	}
	return err
}

// Traffic is every load balancer and every target group, by their names.
func (a *API) Traffic() (balancers []BalancerTraffic, groups []GroupTraffic) {
	stats := map[string]balance.Stats{}
	for _, s := range a.balance.Stats() {
		stats[s.Listener] = s
	}
	a.store.View(func(tx *store.Tx) {
		for _, lb := range a.balancers.Scan(tx, "") {
			b := BalancerTraffic{ARN: lb.ARN, Name: lb.Name, Type: cmp.Or(lb.Type, "application"), Listeners: []ListenerTraffic{}}
			for _, l := range a.listenersBy.Scan(tx, lb.ARN) {
				b.Listeners = append(b.Listeners, a.listenerTraffic(tx, l, stats[l.ARN]))
			}
			slices.SortFunc(b.Listeners, func(x, y ListenerTraffic) int { return int(x.Port - y.Port) })
			balancers = append(balancers, b)
		}
		for _, g := range a.groups.Scan(tx, "") {
			groups = append(groups, a.groupTraffic(tx, g))
		}
	})
	slices.SortFunc(balancers, func(x, y BalancerTraffic) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.ARN, y.ARN))
	})
	slices.SortFunc(groups, func(x, y GroupTraffic) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.ARN, y.ARN))
	})
	return balancers, groups
}

func (a *API) listenerTraffic(tx *store.Tx, l listener, s balance.Stats) ListenerTraffic {
	at, _ := a.bound.Get(tx, keyOf(l.ARN))
	out := ListenerTraffic{
		ARN: l.ARN, Protocol: l.protocol(), Port: l.Port, Address: at.Address, UnderWay: s.UnderWay, Own: s.Own, Rules: []RuleTraffic{},
		Open: s.Open + int64(s.Flows.Active), Opened: s.Opened + s.Flows.New, Bytes: s.Bytes + s.Flows.In + s.Flows.Out, Refused: s.Flows.Refused,
	}
	for _, r := range a.rulesOf(tx, l.ARN) {
		had := s.Rules[r.ARN]
		view := RuleTraffic{ARN: r.ARN, Priority: "default", Requests: had.Requests, Groups: []ShareTraffic{}}
		if r.Priority > 0 {
			view.Priority = fmt.Sprint(r.Priority)
		}
		in, _ := a.applied.Get(tx, keyOf(r.ARN))
		for _, w := range r.Forward {
			g := had.Groups[w.Group]
			share := ShareTraffic{
				Group: w.Group, Wanted: w.Weight, Requests: g.Requests + g.Flows.New, Codes: g.Codes, Times: g.Times, Failed: g.Failed,
				Active: g.Flows.Active, Bytes: g.Flows.In + g.Flows.Out,
			}
			if share.Times == nil {
				share.Times = new(metric.Counts)
			}
			if i := slices.IndexFunc(in.Forward, func(f weighted) bool { return f.Group == w.Group }); i >= 0 {
				share.InForce = in.Forward[i].Weight
			}
			view.Requests += g.Flows.New
			view.Groups = append(view.Groups, share)
		}
		out.Rules = append(out.Rules, view)
	}
	return out
}

func (a *API) groupTraffic(tx *store.Tx, g targetGroup) GroupTraffic {
	out := GroupTraffic{ARN: g.ARN, Name: g.Name, Retried: a.balance.Traffic(g.ARN).Retried + a.balance.GroupFlows(g.ARN).Retried, Targets: []TargetTraffic{}}
	states, live := a.healthOf(tx, g.ARN), a.balance.Health(g.ARN)
	had := map[balance.Target]balance.TargetStats{}
	for _, s := range a.balance.TargetStats(g.ARN) {
		had[s.Target] = s
	}
	for _, t := range slices.Concat(g.Targets, g.Draining) {
		at := endpoint(t.ID, t.Port)
		addr, _ := netip.ParseAddrPort(at)
		s := had[balance.Target{Addr: addr, Generation: t.At.UnixNano()}]
		view := TargetTraffic{Address: at, Since: t.At, Health: states[at].State, Requests: s.Requests, Codes: s.Codes, UnderWay: s.InFlight}
		if h := live[addr]; h.Draining {
			view.UnderWay = h.InFlight
		}
		out.Targets = append(out.Targets, view)
	}
	slices.SortFunc(out.Targets, func(x, y TargetTraffic) int { return cmp.Compare(x.Address, y.Address) })
	return out
}
