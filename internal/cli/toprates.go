package cli

import (
	"cmp"
	"slices"
	"time"

	"serin/internal/metric"
	"serin/internal/stage"
)

// What was carried between two looks at a stage, as serin top tells it.

// topView is an interval.
type topView struct {
	At            time.Time     `json:"at"`
	StageTime     time.Time     `json:"stageTime"`
	Seconds       float64       `json:"seconds"`
	LoadBalancers []topBalancer `json:"loadBalancers"` // those with the most requests first
	Services      []topService  `json:"services"`
}

// topCounts is what was counted in the interval. Of a network load balancer
// connections count as requests.
type topCounts struct {
	Requests uint64      `json:"requests"`
	Rate     float64     `json:"requestsPerSecond"`
	Codes    stage.Codes `json:"codes"`
	Times    *topTimes   `json:"responseSeconds,omitempty"` // nil: no target answered, or nobody knows whose answers they were
	times    metric.Counts
}

// topTimes is how long targets took, in seconds.
type topTimes struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// topLoad is what a listener's clients cost.
type topLoad struct {
	UnderWay int64   `json:"underWay"` // requests now
	Open     int64   `json:"open"`     // connections now
	Bytes    float64 `json:"bytesPerSecond"`
}

type topBalancer struct {
	ARN  string `json:"arn"`
	Name string `json:"name"`
	Type string `json:"type"`
	topCounts
	topLoad
	Listeners []topListener `json:"listeners"`
}

type topListener struct {
	ARN      string `json:"arn"`
	Protocol string `json:"protocol"`
	Port     int32  `json:"port"`
	Address  string `json:"address,omitempty"`
	topCounts
	topLoad
	Own     map[int]uint64 `json:"own,omitempty"` // the load balancer's own answers, by code; among the codes, too
	Refused uint64         `json:"refused,omitempty"`
	Rules   []topRule      `json:"rules"`
}

type topRule struct {
	ARN      string `json:"arn"`
	Priority string `json:"priority"`
	topCounts
	Groups []topGroup `json:"targetGroups"`
}

type topGroup struct {
	ARN  string `json:"arn"`
	Name string `json:"name"`
	topCounts
	Share     *float64   `json:"share,omitempty"` // percent of the rule's requests; nil while there are none
	Weight    float64    `json:"weight"`          // percent of the rule's weights, in force
	Wanted    float64    `json:"weightWanted"`
	Failed    uint64     `json:"failed"`  // connections to targets that could not be made
	Retried   uint64     `json:"retried"` // for all rules
	UnderWay  int64      `json:"underWay"`
	Open      *int64     `json:"open,omitempty"` // these two of a network load balancer
	Bytes     *float64   `json:"bytesPerSecond,omitempty"`
	Targets   topTargets `json:"targets"`
	Revisions []string   `json:"serviceRevisions"` // whose targets these are
}

type topTargets struct {
	Healthy int `json:"healthy"`
	All     int `json:"all"`
}

type topService struct {
	ARN       string        `json:"arn"`
	Cluster   string        `json:"cluster"`
	Name      string        `json:"name"`
	Status    string        `json:"status,omitempty"` // of the deployment that runs
	Stage     string        `json:"lifecycleStage,omitempty"`
	Rate      float64       `json:"requestsPerSecond"`
	Revisions []topRevision `json:"revisions"`
}

type topRevision struct {
	ARN            string `json:"arn"`
	TaskDefinition string `json:"taskDefinition"`
	Role           string `json:"role,omitempty"`
	topCounts
	Share      *float64       `json:"share,omitempty"`      // percent of the service's requests
	Production *float64       `json:"production,omitempty"` // percent that the deployment asks for
	Test       *float64       `json:"test,omitempty"`
	UnderWay   int64          `json:"underWay"`
	Targets    topTargets     `json:"targets"`
	Tasks      map[string]int `json:"tasks"`
}

// topInterval is two looks, the earlier by what it is about.
type topInterval struct {
	now       stage.Traffic
	seconds   float64
	listeners map[string]stage.ListenerTraffic
	shares    map[[2]string]stage.ShareTraffic // by rule and group
	rules     map[string]uint64                // requests
	retried   map[string]uint64                // by group
	targets   map[topTarget]stage.TargetTraffic

	groups map[string]stage.GroupTraffic // of now
	taken  map[string]*metric.Counts     // by group, what its targets took in the interval
	names  map[string]string             // of revisions
}

// topTarget tells a target from one that was at its address before.
type topTarget struct {
	group, address string
	since          int64
}

func targetKey(group string, t stage.TargetTraffic) topTarget {
	return topTarget{group, t.Address, t.Since.UnixNano()}
}

// topBetween is what was carried between two looks.
func topBetween(before, now stage.Traffic) topView {
	i := topInterval{
		now: now, seconds: max(now.At.Sub(before.At).Seconds(), 1e-3),
		listeners: map[string]stage.ListenerTraffic{}, shares: map[[2]string]stage.ShareTraffic{}, rules: map[string]uint64{}, retried: map[string]uint64{},
		targets: map[topTarget]stage.TargetTraffic{}, groups: map[string]stage.GroupTraffic{}, taken: map[string]*metric.Counts{}, names: map[string]string{},
	}
	for _, lb := range before.LoadBalancers {
		for _, l := range lb.Listeners {
			i.listeners[l.ARN] = l
			for _, r := range l.Rules {
				i.rules[r.ARN] = r.Requests
				for _, s := range r.Groups {
					i.shares[[2]string{r.ARN, s.Group}] = s
				}
			}
		}
	}
	for _, g := range before.TargetGroups {
		i.retried[g.ARN] = g.Retried
		for _, t := range g.Targets {
			i.targets[targetKey(g.ARN, t)] = t
		}
	}
	for _, g := range now.TargetGroups {
		i.groups[g.ARN], i.taken[g.ARN] = g, new(metric.Counts)
	}
	for _, s := range now.Services {
		for _, r := range s.Revisions {
			i.names[r.ARN] = r.TaskDefinition
		}
	}
	return i.view()
}

func (i *topInterval) view() topView {
	v := topView{At: i.now.At, StageTime: i.now.StageTime, Seconds: i.seconds, LoadBalancers: []topBalancer{}, Services: []topService{}}
	for _, lb := range i.now.LoadBalancers {
		v.LoadBalancers = append(v.LoadBalancers, i.balancer(lb))
	}
	for _, s := range i.now.Services { // when it is known what targets took
		v.Services = append(v.Services, i.service(s))
	}
	slices.SortStableFunc(v.LoadBalancers, func(x, y topBalancer) int { return cmp.Compare(y.Requests, x.Requests) })
	slices.SortStableFunc(v.Services, func(x, y topService) int { return cmp.Compare(y.Rate, x.Rate) })
	return v
}

// since is what was counted after before was; a count that is less began again.
func since(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

func codesSince(now, before stage.Codes) (out stage.Codes) {
	for class := range now {
		out[class] = since(now[class], before[class])
	}
	return out
}

func timesSince(now, before *metric.Counts) *metric.Counts {
	if now == nil {
		return new(metric.Counts)
	}
	if before == nil {
		return now
	}
	for at, n := range now.Buckets {
		if n < before.Buckets[at] {
			return now
		}
	}
	return now.Since(before)
}

// add adds what a part of it was counted.
func (c *topCounts) add(part *topCounts) {
	c.Requests += part.Requests
	for class, n := range part.Codes {
		c.Codes[class] += n
	}
	c.times.Merge(&part.times)
}

// told works out what is told of what was added.
func (i *topInterval) told(c *topCounts) {
	c.Rate = float64(c.Requests) / i.seconds
	if c.times.Count() > 0 {
		c.Times = &topTimes{c.times.Percentile(50).Seconds(), c.times.Percentile(95).Seconds(), c.times.Percentile(99).Seconds()}
	}
}

func (i *topInterval) balancer(lb stage.BalancerTraffic) topBalancer {
	out := topBalancer{ARN: lb.ARN, Name: lb.Name, Type: lb.Type, Listeners: []topListener{}}
	for _, l := range lb.Listeners {
		part := i.listener(l, lb.Type == "network")
		out.add(&part.topCounts)
		out.UnderWay, out.Open, out.Bytes = out.UnderWay+part.UnderWay, out.Open+part.Open, out.Bytes+part.Bytes
		out.Listeners = append(out.Listeners, part)
	}
	i.told(&out.topCounts)
	return out
}

func (i *topInterval) listener(l stage.ListenerTraffic, network bool) topListener {
	before := i.listeners[l.ARN]
	out := topListener{
		ARN: l.ARN, Protocol: l.Protocol, Port: l.Port, Address: l.Address, Own: map[int]uint64{}, Refused: since(l.Refused, before.Refused), Rules: []topRule{},
		topLoad: topLoad{l.UnderWay, l.Open, float64(since(l.Bytes, before.Bytes)) / i.seconds},
	}
	for _, r := range l.Rules {
		part := i.rule(r, network)
		out.add(&part.topCounts)
		out.Rules = append(out.Rules, part)
	}
	for code, n := range l.Own {
		if n = since(n, before.Own[code]); n > 0 {
			out.Own[code] = n
			out.Codes[min(code/100, len(out.Codes)-1)] += n
		}
	}
	i.told(&out.topCounts)
	return out
}

func (i *topInterval) rule(r stage.RuleTraffic, network bool) topRule {
	out := topRule{ARN: r.ARN, Priority: r.Priority, Groups: []topGroup{}}
	var inForce, wanted int
	for _, s := range r.Groups {
		inForce, wanted = inForce+s.InForce, wanted+s.Wanted
	}
	for _, s := range r.Groups {
		part := i.group(s, i.shares[[2]string{r.ARN, s.Group}], network)
		part.Weight, part.Wanted = percent(s.InForce, inForce), percent(s.Wanted, wanted)
		out.add(&part.topCounts)
		out.Groups = append(out.Groups, part)
	}
	for at := range out.Groups {
		out.Groups[at].Share = shareOf(out.Groups[at].Requests, out.Requests)
	}
	out.Requests = since(r.Requests, i.rules[r.ARN]) // those without a target, too
	i.told(&out.topCounts)
	return out
}

func percent(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

func shareOf(part, whole uint64) *float64 {
	if whole == 0 {
		return nil
	}
	return new(percent(int(part), int(whole)))
}

func (i *topInterval) group(s, before stage.ShareTraffic, network bool) topGroup {
	g := i.groups[s.Group]
	out := topGroup{ARN: s.Group, Name: g.Name, Failed: since(s.Failed, before.Failed), Retried: since(g.Retried, i.retried[s.Group]), Revisions: []string{}}
	out.Requests, out.Codes, out.times = since(s.Requests, before.Requests), codesSince(s.Codes, before.Codes), *timesSince(s.Times, before.Times)
	if network {
		out.Open, out.Bytes = new(int64(s.Active)), new(float64(since(s.Bytes, before.Bytes))/i.seconds)
	}
	for _, t := range g.Targets {
		out.UnderWay += int64(t.UnderWay)
		out.Targets.add(t)
		if name := i.names[t.Revision]; name != "" && !slices.Contains(out.Revisions, name) {
			out.Revisions = append(out.Revisions, name)
		}
	}
	if taken := i.taken[s.Group]; taken != nil {
		taken.Merge(&out.times)
	}
	i.told(&out.topCounts)
	return out
}

// add counts a target; one that drains is not of its group any more.
func (n *topTargets) add(t stage.TargetTraffic) {
	switch t.Health {
	case "draining":
		return
	case "healthy":
		n.Healthy++
	}
	n.All++
}

func (i *topInterval) service(s stage.ServiceTraffic) topService {
	out := topService{ARN: s.ARN, Cluster: s.Cluster, Name: s.Name, Revisions: []topRevision{}}
	if d := s.Deployment; d != nil {
		out.Status, out.Stage = d.Status, d.Stage
	}
	all := uint64(0)
	for _, r := range s.Revisions {
		part := i.revision(r)
		all += part.Requests
		out.Revisions = append(out.Revisions, part)
	}
	for at := range out.Revisions {
		out.Revisions[at].Share = shareOf(out.Revisions[at].Requests, all)
	}
	out.Rate = float64(all) / i.seconds
	return out
}

// revision sums up the revision's targets. How long they took is known of groups
// only: it is told where those have no other targets.
func (i *topInterval) revision(r stage.RevisionTraffic) topRevision {
	out := topRevision{ARN: r.ARN, TaskDefinition: r.TaskDefinition, Role: r.Role, Production: r.Production, Test: r.Test, Tasks: r.Tasks}
	seen, alone := map[string]bool{}, true
	for _, place := range r.Targets {
		g := i.groups[place.Group]
		if seen[place.Group] {
			continue
		}
		seen[place.Group] = true
		for _, t := range g.Targets {
			if t.Revision != r.ARN {
				alone = false
				continue
			}
			before := i.targets[targetKey(g.ARN, t)]
			out.Requests += since(t.Requests, before.Requests)
			for class, n := range codesSince(t.Codes, before.Codes) {
				out.Codes[class] += n
			}
			out.UnderWay += int64(t.UnderWay)
			out.Targets.add(t)
		}
		if taken := i.taken[place.Group]; taken != nil {
			out.times.Merge(taken)
		}
	}
	if !alone {
		out.times = metric.Counts{}
	}
	i.told(&out.topCounts)
	return out
}
