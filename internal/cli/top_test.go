package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/credentials"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/api/ecsd"
	"serin/internal/metric"
	"serin/internal/stage"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func took(n int, d time.Duration) *metric.Counts {
	var h metric.Histogram
	for range n {
		h.Add(d)
	}
	return h.Counts()
}

// looks is two looks, two seconds apart, at a canary with a fifth of the traffic:
// 80 requests went to the source and 20 to the target, five of them in vain, and a
// network load balancer had ten connections.
func looks() (before, now stage.Traffic) {
	at := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	since := at.Add(-time.Hour)
	look := func(at time.Time, old, fresh, broken uint64, took func(int, time.Duration) *metric.Counts) stage.Traffic {
		shares := []stage.ShareTraffic{
			{Group: "arn:blue", Wanted: 80, InForce: 80, Requests: old, Codes: stage.Codes{2: old}, Times: took(int(old), 4*time.Millisecond)},
			{Group: "arn:green", Wanted: 20, InForce: 20, Requests: fresh, Codes: stage.Codes{2: fresh - broken, 5: broken}, Times: took(int(fresh), 80*time.Millisecond), Failed: broken},
		}
		return stage.Traffic{
			At: at, StageTime: at,
			LoadBalancers: []stage.BalancerTraffic{
				{ARN: "arn:edge", Name: "edge", Type: "network", Listeners: []stage.ListenerTraffic{
					{ARN: "arn:edge/1", Protocol: "TCP", Port: 9000, Open: 3, Opened: fresh / 2, Bytes: fresh * 50, Refused: broken, Rules: []stage.RuleTraffic{
						{ARN: "arn:edge/1/d", Priority: "default", Requests: fresh / 2, Groups: []stage.ShareTraffic{{Group: "arn:flows", Wanted: 1, InForce: 1, Requests: fresh / 2, Times: new(metric.Counts), Active: 3, Bytes: fresh * 50}}}}}}},
				{ARN: "arn:web", Name: "web", Type: "application", Listeners: []stage.ListenerTraffic{
					{ARN: "arn:web/1", Protocol: "HTTP", Port: 80, Address: "127.1.2.3:80", UnderWay: 2, Open: 12, Opened: 40, Bytes: (old + fresh) * 1000, Own: map[int]uint64{503: 3 + broken, 302: 7}, Rules: []stage.RuleTraffic{
						{ARN: "arn:web/1/10", Priority: "10", Requests: 7, Groups: []stage.ShareTraffic{}},
						{ARN: "arn:web/1/d", Priority: "default", Requests: old + fresh + broken, Groups: shares}}}}},
			},
			TargetGroups: []stage.GroupTraffic{
				{ARN: "arn:blue", Name: "blue", Targets: []stage.TargetTraffic{{Address: "10.0.0.1:80", Since: since, Health: "healthy", Requests: old, Codes: stage.Codes{2: old}, Revision: "arn:r1"}}},
				{ARN: "arn:flows", Name: "flows", Targets: []stage.TargetTraffic{{Address: "10.0.0.9:80", Since: since, Health: "healthy", Requests: fresh / 2, UnderWay: 3}}},
				{ARN: "arn:green", Name: "green", Retried: broken, Targets: []stage.TargetTraffic{
					{Address: "10.0.0.2:80", Since: since, Health: "healthy", Requests: fresh, Codes: stage.Codes{2: fresh - broken, 5: broken}, UnderWay: 2, Revision: "arn:r2"},
					{Address: "10.0.0.3:80", Since: since, Health: "unhealthy", Revision: "arn:r2"},
					{Address: "10.0.0.4:80", Since: since, Health: "draining", Revision: "arn:r2"}}},
			},
			Services: []stage.ServiceTraffic{{ARN: "arn:s", Cluster: "default", Name: "web", Deployment: deploying("PRODUCTION_TRAFFIC_SHIFT"), Revisions: []stage.RevisionTraffic{
				{ARN: "arn:r1", TaskDefinition: "web:1", Role: "source", Production: new(80.0), Test: new(0.0), Tasks: map[string]int{"RUNNING": 1}, Targets: placed("arn:blue", "10.0.0.1:80")},
				{ARN: "arn:r2", TaskDefinition: "web:2", Role: "target", Production: new(20.0), Test: new(100.0), Tasks: map[string]int{"RUNNING": 2, "DEACTIVATING": 1}, Targets: placed("arn:green", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80")}}}},
		}
	}
	return look(at, 1000, 100, 0, func(n int, _ time.Duration) *metric.Counts { return took(n, time.Second) }),
		look(at.Add(2*time.Second), 1080, 120, 5, func(n int, d time.Duration) *metric.Counts {
			before := 1000
			if n < before {
				before = 100
			}
			all := took(before, time.Second)
			all.Merge(took(n-before, d))
			return all
		})
}

func TestAnIntervalIsTheDifferenceOfTwoLooks(t *testing.T) {
	v := topBetween(looks())
	if v.Seconds != 2 || len(v.LoadBalancers) != 2 || v.LoadBalancers[0].Name != "web" {
		t.Fatalf("it is %v s of %d load balancers", v.Seconds, len(v.LoadBalancers))
	}
	web := v.LoadBalancers[0]
	l := web.Listeners[0]
	if web.Rate != 52.5 || web.Codes != (stage.Codes{2: 95, 5: 10}) || web.Bytes != 50_000 || web.UnderWay != 2 || web.Open != 12 {
		t.Errorf("the load balancer had %+v and %+v", web.Codes, web.topLoad)
	}
	if len(l.Own) != 1 || l.Own[503] != 5 {
		t.Errorf("it answered itself %v", l.Own)
	}
	blue, green := l.Rules[1].Groups[0], l.Rules[1].Groups[1]
	if blue.Requests != 80 || *blue.Share != 80 || blue.Weight != 80 || green.Requests != 20 || *green.Share != 20 || green.Codes != (stage.Codes{2: 15, 5: 5}) || green.Failed != 5 || green.Retried != 5 || green.UnderWay != 2 {
		t.Errorf("the groups had %+v and %+v", blue.Codes, green.Codes)
	}
	if green.Targets != (topTargets{1, 2}) || green.Revisions[0] != "web:2" {
		t.Errorf("the targets are %v of %v", green.Targets, green.Revisions)
	}
	near := func(got, want float64) bool { return got > want*0.99 && got < want*1.01 }
	if p := l.Rules[1].Times; !near(p.P50, 0.004) || !near(p.P95, 0.08) || !near(p.P99, 0.08) {
		t.Errorf("the rule's targets took %+v", p)
	}
	if p := blue.Times; !near(p.P99, 0.004) {
		t.Errorf("the first group took %+v", p)
	}
	if r := v.Services[0].Revisions; r[0].Requests != 80 || *r[1].Share != 20 || r[1].Codes[5] != 5 || !near(r[1].Times.P50, 0.08) || r[1].Targets != (topTargets{1, 2}) {
		t.Errorf("the revisions are %+v", r[1].topCounts.Codes)
	}
	flows := v.LoadBalancers[1].Listeners[0]
	if g := flows.Rules[0].Groups[0]; flows.Refused != 5 || g.Requests != 10 || *g.Open != 3 || *g.Bytes != 500 || g.Times != nil {
		t.Errorf("the network load balancer had %+v", g)
	}
}

func TestNothingHasNoShare(t *testing.T) {
	_, now := looks()
	later := now
	later.At = now.At.Add(time.Second)
	v := topBetween(now, later)
	g := v.LoadBalancers[0].Listeners[0].Rules[0].Groups
	if len(g) > 0 && g[0].Share != nil || v.LoadBalancers[0].Rate != 0 || v.Services[0].Revisions[0].Times != nil || v.Services[0].Revisions[0].Share != nil {
		t.Errorf("nothing is told as %+v", v)
	}
}

// A stage that was started again counts from zero: what it has counted is what was
// in the interval.
func TestCountsThatBeganAgainAreNotNegative(t *testing.T) {
	before, now := looks()
	before, now = now, before
	now.At = before.At.Add(time.Second)
	v := topBetween(before, now)
	if g := v.LoadBalancers[0].Listeners[0].Rules[1].Groups[0]; g.Requests != 1000 || g.Times == nil || g.Times.P50 < 0.99 {
		t.Errorf("the first group had %d, %v", g.Requests, g.Times)
	}
}

// Of a group with targets of two revisions nobody knows how long those of one took.
func TestTimesAreNotToldOfARevisionThatSharesItsGroup(t *testing.T) {
	before, now := looks()
	now.TargetGroups[2].Targets[1].Revision = "arn:r1"
	v := topBetween(before, now)
	if r := v.Services[0].Revisions[1]; r.Times != nil || r.Requests != 20 {
		t.Errorf("the revision had %d requests, %v", r.Requests, r.Times)
	}
}

func TestTheTableFitsItsTerminal(t *testing.T) {
	v := topBetween(looks())
	var out bytes.Buffer
	for _, width := range []int{0, 120, 80, 40} {
		lines := v.table(width, false)
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); width > 0 && n > width {
				t.Errorf("%d characters in %d: %s", n, width, line)
			}
		}
		out.WriteString(strings.Join(lines, "\n") + "\n\n")
	}
	golden := filepath.Join("testdata", "top.txt")
	if *rewrite {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(want, out.Bytes()) {
		t.Errorf("%v; it is\n%s", err, out.String())
	}
	for width := range 30 {
		v.table(width, true) // anything but a panic
	}
}

func TestATerminalIsGivenBack(t *testing.T) {
	v := topBetween(looks())
	var out bytes.Buffer
	s := &topScreen{out: &out, colour: true, whole: true, size: func() (int, int) { return 100, 6 }}
	if err := s.show(v, "http://localhost:4566"); err != nil {
		t.Fatal(err)
	}
	s.close()
	drawn, ok := strings.CutSuffix(out.String(), giveScreen)
	if lines := strings.Count(drawn, "\n") + 1; !ok || lines != 6 || !strings.Contains(drawn, "more lines") || !strings.Contains(drawn, red) {
		t.Errorf("%d lines were drawn: %q", lines, drawn)
	}
	out.Reset()
	if err := (&topScreen{out: &out}).show(v, ""); err != nil || strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "\r") {
		t.Errorf("what is no terminal is told %q, %v", out.String(), err)
	}
	out.Reset()
	if err := (&topScreen{out: &out, json: true}).show(v, ""); err != nil || strings.Count(out.String(), "\n") != 1 || !json.Valid(out.Bytes()) {
		t.Errorf("as JSON it is %q, %v", out.String(), err)
	}
}

func TestTopIsOfTheStageOnly(t *testing.T) {
	out, code := serin(t, nil, "top", "--target", "aws")
	if code != exitUsage || !strings.Contains(out, "CloudWatch has them") || !strings.Contains(out, "AWS/ApplicationELB") {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code := serin(t, nil, "top", "--interval", "1ms"); code != exitUsage || !strings.Contains(out, "at least 100ms") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// The program runs a stage with traffic on it, and looks at it.
func TestTopSeesTheTrafficOfARealStage(t *testing.T) {
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--speed", "60")
	address, group := balanced(t, endpoint)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				if resp, err := http.Get(address); err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
		}
	}()
	out, code := serin(t, nil, "top", "--once", "-o", "json", "--endpoint-url", endpoint)
	text, _ := serin(t, nil, "top", "-n", "2", "--interval", "200ms", "--endpoint-url", endpoint)
	close(done)
	<-ended
	var v topView
	if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil || len(v.LoadBalancers) != 1 {
		t.Fatalf("exit %d, %v: %s", code, err, out)
	}
	g := v.LoadBalancers[0].Listeners[0].Rules[0].Groups[0]
	if g.ARN != group || g.Requests == 0 || g.Codes[2] == 0 || g.Codes[5] != 0 || *g.Share != 100 || g.Targets.All != 1 || g.Times == nil || v.Seconds < 0.9 {
		t.Errorf("the group had %+v in %g s", g, v.Seconds)
	}
	if strings.Count(text, "NAME ") != 2 || strings.Contains(text, "\x1b") || !strings.Contains(text, "edge application") {
		t.Errorf("in words it is %s", text)
	}
}

func deploying(lifecycle string) *ecsd.Underway {
	return &ecsd.Underway{ARN: "arn:d", Status: "IN_PROGRESS", Stage: lifecycle}
}

func placed(group string, addresses ...string) (list []ecsd.ServingTarget) {
	for _, at := range addresses {
		list = append(list, ecsd.ServingTarget{Group: group, Address: at})
	}
	return list
}

// balanced makes a load balancer with one target that answers, and returns where it
// listens and the ARN of its target group.
func balanced(t *testing.T, endpoint string) (url, group string) {
	t.Helper()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	t.Cleanup(server.Close)
	at := netip.MustParseAddrPort(strings.TrimPrefix(server.URL, "http://"))
	b, ctx := elb.New(elb.Options{Region: "us-east-1", BaseEndpoint: &endpoint, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}), t.Context()
	lb, err := b.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("edge"), Subnets: []string{"a"}})
	must(lb, err)
	g, err := b.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new("g"), Protocol: types.ProtocolEnumHttp, Port: new(int32(80)), TargetType: types.TargetTypeEnumIp})
	must(g, err)
	group = *g.TargetGroups[0].TargetGroupArn
	must(b.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: &group, Targets: []types.TargetDescription{{Id: new(at.Addr().String()), Port: new(int32(at.Port()))}}}))
	must(b.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(8097)), Protocol: types.ProtocolEnumHttp,
		DefaultActions: []types.Action{{Type: types.ActionTypeEnumForward, TargetGroupArn: &group}}}))
	must(nil, elb.NewTargetInServiceWaiter(b, func(o *elb.TargetInServiceWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	}).
		Wait(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: &group}, time.Minute))
	said, code := serin(t, nil, "status", "--url", "edge", "--endpoint-url", endpoint)
	if code != 0 {
		t.Fatal(said)
	}
	return strings.TrimSpace(said), group
}
