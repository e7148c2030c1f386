// deployments deploys many services at once on a stage in this process, with
// tasks that cost nothing, and prints what that took: of the machine, for each
// service, and from a decision to the load balancer.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"golang.org/x/sync/errgroup"

	"serin/internal/memnet"
	"serin/internal/run"
	"serin/internal/stage"
)

const (
	account       = "111111111111"
	perBalancer   = 50 // services that share a load balancer
	tasks         = 10
	canaryMinutes = 1
)

func main() {
	counts := flag.String("services", "10,100,1000", "how many services, one run for each number")
	profile := flag.String("cpuprofile", "", "write a CPU profile here")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	for n := range strings.SplitSeq(*counts, ",") {
		var services int
		if _, err := fmt.Sscan(n, &services); err != nil {
			fmt.Fprintln(os.Stderr, "services:", err)
			os.Exit(2)
		}
		if err := bench(services); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// bench makes the services, then deploys all of them at once, and measures that.
func bench(services int) error {
	dir, err := os.MkdirTemp("", "serin-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	network, fake, watch := memnet.New(), run.NewFake(), &watch{asked: map[string]time.Time{}}
	fake.Listen = network.Listen
	l, err := network.Listen("127.0.0.1:4566")
	if err != nil {
		return err
	}
	s, err := stage.New(stage.Config{
		Dir: dir, Account: account, Region: "us-east-1", Endpoint: "127.0.0.1:4566", Speed: 2, IAM: stage.Enforce, Network: network, Log: slog.New(watch),
		Runtime: func(context.Context, run.Config) (run.Runtime, string, error) { return fake, "a bench", nil },
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	w := newWorld(network)
	err = w.measure(ctx, services, watch)
	stop()
	if err2 := <-ended; err == nil {
		err = err2
	}
	return err
}

func (w *world) measure(ctx context.Context, services int, watch *watch) error {
	if err := w.build(ctx, services); err != nil {
		return fmt.Errorf("making %d services: %w", services, err)
	}
	if err := w.settled(ctx, services); err != nil {
		return err
	}
	watch.reset()
	began, used := time.Now(), cpu()
	if err := w.each(services, func(n int) error {
		_, err := w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new(name(n)), ForceNewDeployment: true})
		return err
	}); err != nil {
		return fmt.Errorf("deploying: %w", err)
	}
	if err := w.settled(ctx, services); err != nil {
		return err
	}
	wall, spent := time.Since(began), cpu()-used
	p50, p99, shifts := watch.percentiles()
	fmt.Printf("%5d services x %d tasks: %5.1f s, %.2f cores, %5.1f ms of CPU for a service; %d shifts, decision to balancer p50 %.1f ms, p99 %.1f ms\n",
		services, tasks, wall.Seconds(), spent.Seconds()/wall.Seconds(), spent.Seconds()*1000/float64(services), shifts, p50.Seconds()*1000, p99.Seconds()*1000)
	return nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no other way to fail than a bad pointer
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// world is the clients of the stage, and the services' names in it.
type world struct {
	ecs *ecs.Client
	elb *elb.Client
	iam *iam.Client
}

func newWorld(n *memnet.Network) *world {
	c := aws.Config{
		Region: "us-east-1", BaseEndpoint: new("http://127.0.0.1:4566"), Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
		HTTPClient: n.Client(),
	}
	return &world{ecs: ecs.NewFromConfig(c), elb: elb.NewFromConfig(c), iam: iam.NewFromConfig(c)}
}

func name(n int) string { return fmt.Sprint("s", n) }

func (w *world) each(services int, fn func(n int) error) error {
	var g errgroup.Group
	g.SetLimit(8)
	for n := range services {
		g.Go(func() error { return fn(n) })
	}
	return g.Wait()
}

func (w *world) build(ctx context.Context, services int) error {
	if _, err := w.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("infra"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}); err != nil {
		return err
	}
	if _, err := w.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("infra"), PolicyArn: new("arn:aws:iam::aws:policy/AmazonECSInfrastructureRolePolicyForLoadBalancers")}); err != nil {
		return err
	}
	if _, err := w.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{}); err != nil {
		return err
	}
	if _, err := w.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("128"),
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1"), PortMappings: []types.PortMapping{{ContainerPort: new(int32(8080))}}}}}); err != nil {
		return err
	}
	var listeners []string
	for n := range (services + perBalancer - 1) / perBalancer {
		lb, err := w.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new(fmt.Sprint("lb", n)), Subnets: []string{"a"}})
		if err != nil {
			return err
		}
		l, err := w.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(80)), Protocol: elbtypes.ProtocolEnumHttp,
			DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumFixedResponse, FixedResponseConfig: &elbtypes.FixedResponseActionConfig{StatusCode: new("404")}}}})
		if err != nil {
			return err
		}
		listeners = append(listeners, *l.Listeners[0].ListenerArn)
	}
	return w.each(services, func(n int) error { return w.service(ctx, n, listeners[n/perBalancer]) })
}

// service makes a service behind two target groups and a rule of its own.
func (w *world) service(ctx context.Context, n int, listener string) error {
	var groups [2]string
	for i := range groups {
		g, err := w.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new(fmt.Sprintf("%s-%d", name(n), i)), Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(8080)), TargetType: elbtypes.TargetTypeEnumIp})
		if err != nil {
			return err
		}
		groups[i] = *g.TargetGroups[0].TargetGroupArn
	}
	r, err := w.elb.CreateRule(ctx, &elb.CreateRuleInput{ListenerArn: &listener, Priority: new(int32(n%perBalancer + 1)),
		Conditions: []elbtypes.RuleCondition{{Field: new("path-pattern"), Values: []string{"/" + name(n) + "/*"}}},
		Actions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, ForwardConfig: &elbtypes.ForwardActionConfig{
			TargetGroups: []elbtypes.TargetGroupTuple{{TargetGroupArn: &groups[0], Weight: new(int32(100))}, {TargetGroupArn: &groups[1], Weight: new(int32(0))}}}}}})
	if err != nil {
		return err
	}
	_, err = w.ecs.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new(name(n)), TaskDefinition: new("web"), DesiredCount: new(int32(tasks)),
		DeploymentConfiguration: &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyCanary, BakeTimeInMinutes: new(int32(0)),
			CanaryConfiguration: &types.CanaryConfiguration{CanaryPercent: new(10.0), CanaryBakeTimeInMinutes: new(int32(canaryMinutes))}},
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}},
		LoadBalancers: []types.LoadBalancer{{TargetGroupArn: &groups[0], ContainerName: new("web"), ContainerPort: new(int32(8080)),
			AdvancedConfiguration: &types.AdvancedConfiguration{AlternateTargetGroupArn: &groups[1], ProductionListenerRule: r.Rules[0].RuleArn, RoleArn: new("arn:aws:iam::" + account + ":role/infra")}}}})
	return err
}

// settled waits until every service's deployment has succeeded.
func (w *world) settled(ctx context.Context, services int) error {
	for n := range services {
		for {
			out, err := w.ecs.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Service: new(name(n)), MaxResults: new(int32(1))})
			if err != nil {
				return err
			}
			d := out.ServiceDeployments[0]
			if d.Status == types.ServiceDeploymentStatusSuccessful {
				break
			}
			if d.FinishedAt != nil || d.Status == types.ServiceDeploymentStatusStopped {
				return fmt.Errorf("service %s ended %s: %s", name(n), d.Status, aws.ToString(d.StatusReason))
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
}

// watch reads the stage's log: when a deployment decided to shift traffic, and
// when its rule had the weights in force.
type watch struct {
	mu    sync.Mutex
	asked map[string]time.Time
	took  []time.Duration
}

func (w *watch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.asked)
	w.took = nil
}

func (w *watch) Enabled(context.Context, slog.Level) bool { return true }
func (w *watch) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *watch) WithGroup(string) slog.Handler            { return w }

func (w *watch) Handle(_ context.Context, r slog.Record) error {
	what := map[string]string{}
	r.Attrs(func(a slog.Attr) bool { what[a.Key] = a.Value.String(); return true })
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case r.Message == "weights asked for":
		w.asked[what["rule"]] = r.Time
	case r.Message == "weights in force":
		if at, ok := w.asked[what["rule"]]; ok {
			w.took = append(w.took, r.Time.Sub(at))
			delete(w.asked, what["rule"])
		}
	case r.Level >= slog.LevelWarn:
		fmt.Fprintln(os.Stderr, r.Message, what)
	}
	return nil
}

func (w *watch) percentiles() (p50, p99 time.Duration, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n = len(w.took); n == 0 {
		return 0, 0, 0
	}
	slices.Sort(w.took)
	return w.took[n/2], w.took[min(n*99/100, n-1)], n
}
