package stage

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"serin/internal/arn"
)

// metrics is the view of the traffic as Prometheus reads it. Load balancers and
// target groups have the names that they have as dimensions in CloudWatch.
func (s *Stage) metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p := pour{}
		p.traffic(s.Traffic())
		w.Header().Set("Content-Type", expositionType)
		if err := p.write(w); err != nil {
			s.log.Debug("telling what is carried", "err", err)
		}
	})
}

// responseBounds are the buckets of response times: those of Prometheus' clients,
// with a finer beginning, for a target here is near, and a longer end.
var responseBounds = []time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
}

// What a series is of, as its labels.
var (
	ofListener = []string{"account", "region", "load_balancer", "listener"}
	ofRule     = append(ofListener[:4:4], "rule")
	ofShare    = append(ofRule[:5:5], "target_group")
	ofGroup    = []string{"account", "region", "target_group"}
	ofTarget   = append(ofGroup[:3:3], "target", "cluster", "service", "revision", "task_definition")
	ofRevision = []string{"account", "region", "cluster", "service", "revision", "task_definition"}
)

var (
	seriesInFlight        = describe("lb_requests_in_flight", "Requests under way.", ofListener)
	seriesOpen            = describe("lb_connections_open", "Connections that are open, from clients and, of an application load balancer, to targets.", ofListener)
	seriesOpened          = describe("lb_connections_opened_total", "Connections that were opened, from clients and, of an application load balancer, to targets.", ofListener)
	seriesRefused         = describe("lb_connections_refused_total", "Connections to a network load balancer that no target took.", ofListener)
	seriesBytes           = describe("lb_bytes_total", "Bytes from and to clients.", ofListener)
	seriesOwn             = describe("lb_own_responses_total", "Answers that the load balancer gave itself, by their code.", ofListener, "code")
	seriesMatched         = describe("lb_rule_requests_total", "Requests that a rule matched; of a network load balancer, connections.", ofRule)
	seriesRequests        = describe("lb_requests_total", "Requests for which a target was chosen; of a network load balancer, connections.", ofShare)
	seriesResponses       = describe("lb_responses_total", "Answers of targets, by the class of their code.", ofShare, "code")
	seriesSeconds         = describe("lb_response_seconds", "Time from the end of a request to the head of its target's answer.", ofShare)
	seriesUnreached       = describe("lb_connection_errors_total", "Connections to targets that could not be made.", ofShare)
	seriesWeight          = describe("lb_weight", "Weight of a target group in a rule that is in force.", ofShare)
	seriesWeightWanted    = describe("lb_weight_wanted", "Weight of a target group in a rule that is wanted.", ofShare)
	seriesRetries         = describe("target_group_retries_total", "Requests and connections that a second target had after the first died.", ofGroup)
	seriesTargets         = describe("target_group_targets", "Targets by their health.", ofGroup, "state")
	seriesTargetRequests  = describe("target_requests_total", "Requests that were sent to a target since it was registered.", ofTarget)
	seriesTargetResponses = describe("target_responses_total", "Answers of a target since it was registered, by the class of their code.", ofTarget, "code")
	seriesTargetInFlight  = describe("target_requests_in_flight", "Requests and connections under way at a target.", ofTarget)
	seriesTasks           = describe("service_tasks", "Tasks of a service's revision by their status.", ofRevision, "status")
	seriesTraffic         = describe("service_traffic_weight", "Percent of traffic that the running deployment asks for a revision.", ofRevision, "traffic")
)

// traffic is the view now.
func (p pour) traffic(view Traffic) {
	for _, lb := range view.LoadBalancers {
		for _, l := range lb.Listeners {
			p.listener(l, append(placeOf(lb.ARN), balancerName(lb.ARN), strconv.Itoa(int(l.Port))))
		}
	}
	revisions := map[string][]string{}
	for _, s := range view.Services {
		for _, r := range s.Revisions {
			revisions[r.ARN] = []string{s.Cluster, s.Name, lastPart(r.ARN), r.TaskDefinition}
			p.revision(r, append(placeOf(s.ARN), revisions[r.ARN]...))
		}
	}
	for _, g := range view.TargetGroups {
		p.group(g, append(placeOf(g.ARN), groupDimension(g.ARN)), revisions)
	}
}

// placeOf is the account and region of an ARN.
func placeOf(resourceARN string) []string {
	a, err := arn.Parse(resourceARN)
	if err != nil {
		return []string{"", ""}
	}
	return []string{a.Account, a.Region}
}

func balancerName(resourceARN string) string {
	_, name, _ := strings.Cut(resourceARN, ":loadbalancer/")
	return name
}

func groupDimension(groupARN string) string { return groupARN[strings.LastIndexByte(groupARN, ':')+1:] }

func lastPart(resourceARN string) string {
	return resourceARN[strings.LastIndexByte(resourceARN, '/')+1:]
}

// codes is a series for each class of codes, those that nobody has had too, so that
// a rate begins at zero.
func (p pour) codes(s *series, codes Codes, labels []string) {
	for class := 1; class < len(codes); class++ {
		p.count(s, codes[class], labels, strconv.Itoa(class)+"xx")
	}
}

func (p pour) listener(l ListenerTraffic, labels []string) {
	p.level(seriesInFlight, float64(l.UnderWay), labels)
	p.level(seriesOpen, float64(l.Open), labels)
	p.count(seriesOpened, l.Opened, labels)
	p.count(seriesRefused, l.Refused, labels)
	p.count(seriesBytes, l.Bytes, labels)
	for code, n := range l.Own {
		p.count(seriesOwn, n, labels, strconv.Itoa(code))
	}
	for _, r := range l.Rules {
		labels := append(labels[:len(labels):len(labels)], r.Priority)
		p.count(seriesMatched, r.Requests, labels)
		for _, share := range r.Groups {
			p.share(share, append(labels[:len(labels):len(labels)], groupDimension(share.Group)))
		}
	}
}

func (p pour) share(s ShareTraffic, labels []string) {
	p.count(seriesRequests, s.Requests, labels)
	p.codes(seriesResponses, s.Codes, labels)
	p.count(seriesUnreached, s.Failed, labels)
	p.level(seriesWeight, float64(s.InForce), labels)
	p.level(seriesWeightWanted, float64(s.Wanted), labels)
	p.times(seriesSeconds, s.Times, responseBounds, labels)
}

func (p pour) group(g GroupTraffic, labels []string, revisions map[string][]string) {
	p.count(seriesRetries, g.Retried, labels)
	states := map[string]int{}
	for _, t := range g.Targets {
		states[t.Health]++
		of := revisions[t.Revision]
		if of == nil { // not a service's
			of = []string{"", "", "", ""}
		}
		of = append(append(labels[:len(labels):len(labels)], t.Address), of...)
		p.level(seriesTargetInFlight, float64(t.UnderWay), of)
		if t.Health != "draining" { // what it had is not known any more
			p.count(seriesTargetRequests, t.Requests, of)
			p.codes(seriesTargetResponses, t.Codes, of)
		}
	}
	for _, state := range []string{"initial", "healthy", "unhealthy", "unused", "draining"} {
		p.level(seriesTargets, float64(states[state]), labels, state)
	}
}

func (p pour) revision(r RevisionTraffic, labels []string) {
	for status, n := range r.Tasks {
		p.level(seriesTasks, float64(n), labels, status)
	}
	if r.Production != nil {
		p.level(seriesTraffic, *r.Production, labels, "production")
	}
	if r.Test != nil {
		p.level(seriesTraffic, *r.Test, labels, "test")
	}
}
