package stage

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/arn"
	"serin/internal/metric"
	"serin/internal/run"
)

// published is what a stage published, by minute.
type published struct {
	mu      sync.Mutex
	minutes map[time.Time]map[string]metric.Set // name and dimensions → what was measured
	changed chan struct{}
}

func (p *published) take(scope arn.Scope, data []metric.Datum) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range data {
		if p.minutes[d.At] == nil {
			p.minutes[d.At] = map[string]metric.Set{}
		}
		name := scope.Region + " " + d.Name
		for _, dim := range d.Dimensions {
			name += " " + dim.Name
		}
		p.minutes[d.At][name] = d.Set
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// of waits for a metric of a minute.
func (p *published) of(t *testing.T, minute time.Time, name string) metric.Set {
	t.Helper()
	enough := time.After(time.Minute)
	for {
		p.mu.Lock()
		set, ok := p.minutes[minute][name]
		p.mu.Unlock()
		if ok {
			return set
		}
		select {
		case <-p.changed:
		case <-enough:
			t.Fatalf("%s of %v is never published; there is %v", name, minute, p.minutes)
		}
	}
}

// next pushes time to the beginning of a minute, so that it does not end by
// itself, and waits until the one before is measured.
func (p *published) next(t *testing.T, s *Stage) (minute time.Time) {
	t.Helper()
	now := s.Clock().Now()
	minute = now.Truncate(time.Minute).Add(time.Minute)
	if err := s.Clock().Advance(minute.Sub(now)); err != nil {
		t.Fatal(err)
	}
	p.of(t, minute.Add(-time.Minute), "us-east-1 HealthyHostCount TargetGroup LoadBalancer")
	return minute
}

// measured runs a stage whose tasks use 64 MiB each.
func measured(t *testing.T) (*Stage, aws.Config, *published) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake := run.NewFake()
	fake.Use(func(string) run.Usage { return run.Usage{Memory: 64 << 20} })
	endpoint := l.Addr().String()
	s, err := New(Config{Dir: t.TempDir(), Ephemeral: true, Account: "111111111111", Region: "us-east-1", Endpoint: endpoint, Speed: 1, IAM: Off, Log: slog.New(slog.DiscardHandler),
		Runtime: func(context.Context, run.Config) (run.Runtime, string, error) { return fake, "a test", nil }})
	if err != nil {
		t.Fatal(err)
	}
	p := &published{minutes: map[time.Time]map[string]metric.Set{}, changed: make(chan struct{}, 1)}
	s.publish = p.take
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error("the stage ended with", err)
		}
	})
	return s, aws.Config{Region: "us-east-1", BaseEndpoint: new("http://" + endpoint), Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}, p
}

// serve makes a service of two tasks behind a load balancer and waits until they
// are healthy.
func serve(t *testing.T, c aws.Config) {
	t.Helper()
	e, b, ctx := ecs.NewFromConfig(c), elb.NewFromConfig(c), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(e.CreateCluster(ctx, &ecs.CreateClusterInput{}))
	lb, err := b.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("lb"), Subnets: []string{"a"}})
	must(lb, err)
	g, err := b.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new("g"), Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(8080)), TargetType: elbtypes.TargetTypeEnumIp})
	must(g, err)
	group := *g.TargetGroups[0].TargetGroupArn
	must(b.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(8089)), Protocol: elbtypes.ProtocolEnumHttp,
		DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &group}}}))
	d, err := e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("256"), Cpu: new("256"),
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1"), PortMappings: []types.PortMapping{{ContainerPort: new(int32(8080))}}}}})
	must(d, err)
	must(e.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: d.TaskDefinition.TaskDefinitionArn, DesiredCount: new(int32(2)),
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}},
		LoadBalancers:        []types.LoadBalancer{{TargetGroupArn: &group, ContainerName: new("web"), ContainerPort: new(int32(8080))}}}))
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for healthy := 0; healthy < 2; <-tick.C {
		healthy = 0
		h, err := b.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: &group})
		must(h, err)
		for _, target := range h.TargetHealthDescriptions {
			if target.TargetHealth.State == elbtypes.TargetHealthStateEnumHealthy {
				healthy++
			}
		}
	}
}

func TestEachMinuteIsPublishedWhenItIsOver(t *testing.T) {
	s, c, p := measured(t)
	serve(t, c)
	minute := p.next(t, s)
	url := s.elb.Endpoints()["lb"][0]
	for range 10 {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err := s.Clock().Advance(time.Minute); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"RequestCount LoadBalancer":                          "10 10",
		"RequestCount TargetGroup LoadBalancer":              "10 10",
		"HTTPCode_Target_2XX_Count TargetGroup LoadBalancer": "10 10",
		"RequestCountPerTarget TargetGroup":                  "1 5",
		"HealthyHostCount TargetGroup LoadBalancer":          "1 2",
		"UnHealthyHostCount TargetGroup LoadBalancer":        "1 0",
		"CPUUtilization ClusterName ServiceName":             "2 0",
		"MemoryUtilization ClusterName ServiceName":          "2 50",
		"MemoryUtilization ClusterName":                      "2 50",
	} {
		set := p.of(t, minute, "us-east-1 "+name)
		if got := fmt.Sprintf("%g %g", set.Count, set.Sum); got != want {
			t.Errorf("%s: count and sum are %s, want %s", name, got, want)
		}
	}
	if took := p.of(t, minute, "us-east-1 TargetResponseTime TargetGroup LoadBalancer"); took.Count != 10 || took.Percentile(99) <= 0 || took.Max > 5 {
		t.Errorf("the targets' times are %+v", took)
	}
	// The minute that follows has no requests: nothing is told of any.
	if err := s.Clock().Advance(time.Minute); err != nil {
		t.Fatal(err)
	}
	quiet := minute.Add(time.Minute)
	p.of(t, quiet, "us-east-1 CPUUtilization ClusterName ServiceName")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range []string{"RequestCount LoadBalancer", "RequestCountPerTarget TargetGroup", "HTTPCode_Target_2XX_Count LoadBalancer"} {
		if set, told := p.minutes[quiet]["us-east-1 "+name]; told {
			t.Errorf("%s of a quiet minute: %+v", name, set)
		}
	}
	for at := range p.minutes {
		if !at.Equal(at.Truncate(time.Minute)) {
			t.Errorf("a minute begins at %v", at)
		}
	}
}

// Time may be pushed at any moment: what was measured is of the minute in which
// the push began.
func TestAPushOverManyMinutesLosesNothing(t *testing.T) {
	s, c, p := measured(t)
	serve(t, c)
	minute := p.next(t, s)
	resp, err := http.Get(s.elb.Endpoints()["lb"][0])
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := s.Clock().Advance(time.Hour); err != nil {
		t.Fatal(err)
	}
	if set := p.of(t, minute, "us-east-1 RequestCount LoadBalancer"); set.Sum != 1 {
		t.Errorf("it counts %g", set.Sum)
	}
	if err := s.Clock().Advance(time.Minute); err != nil {
		t.Fatal(err)
	}
	p.of(t, minute.Add(time.Hour), "us-east-1 HealthyHostCount TargetGroup LoadBalancer")
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.minutes[minute.Add(30*time.Minute)]) > 0 {
		t.Error("a minute that was pushed over has data")
	}
}
