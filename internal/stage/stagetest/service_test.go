package stagetest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"

	"serin/internal/stage"
)

// world is a cluster with a load balancer of two target groups.
type world struct {
	t      *testing.T
	stage  *stage.Stage
	config aws.Config
	client *http.Client // of what listens in the stage
	tick   time.Duration
	limit  time.Duration
	ecs    *ecs.Client
	elb    *elb.Client
	iam    *iam.Client
	cw     *cloudwatch.Client
	groups [2]string
	rule   string
}

// newWorld is a world on this machine's sockets.
func newWorld(t *testing.T) *world {
	s, c := RunT(t, 600)
	return worldOf(t, s, c, http.DefaultClient, 5*time.Millisecond, 30*time.Second)
}

// bubble runs a test in a bubble with a world in it: time passes when nobody has
// anything to do.
func bubble(t *testing.T, f Function, test func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, c, client := Bubble(t, f)
		test(t, worldOf(t, s, c, client, time.Second, 30*24*time.Hour))
	})
}

func worldOf(t *testing.T, s *stage.Stage, c aws.Config, client *http.Client, tick, limit time.Duration) *world {
	w := &world{t: t, stage: s, config: c, client: client, tick: tick, limit: limit, ecs: ecs.NewFromConfig(c), elb: elb.NewFromConfig(c), iam: iam.NewFromConfig(c), cw: cloudwatch.NewFromConfig(c)}
	ctx, i := t.Context(), w.iam
	w.must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("infra"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
	w.must(i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("infra"), PolicyArn: new("arn:aws:iam::aws:policy/AmazonECSInfrastructureRolePolicyForLoadBalancers")}))
	w.must(w.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{}))
	lb, err := w.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("lb"), Subnets: []string{"a"}})
	w.must(lb, err)
	var forward []elbtypes.TargetGroupTuple
	for n := range w.groups {
		g, err := w.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new(fmt.Sprint("g", n)), Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(8080)), TargetType: elbtypes.TargetTypeEnumIp,
			HealthCheckIntervalSeconds: new(int32(10)), HealthCheckTimeoutSeconds: new(int32(5))})
		w.must(g, err)
		w.groups[n] = *g.TargetGroups[0].TargetGroupArn
		forward = append(forward, elbtypes.TargetGroupTuple{TargetGroupArn: &w.groups[n], Weight: new(int32(100 - 100*n))})
	}
	l, err := w.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(8088)), Protocol: elbtypes.ProtocolEnumHttp,
		DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, ForwardConfig: &elbtypes.ForwardActionConfig{TargetGroups: forward}}}})
	w.must(l, err)
	r, err := w.elb.DescribeRules(ctx, &elb.DescribeRulesInput{ListenerArn: l.Listeners[0].ListenerArn})
	w.must(r, err)
	w.rule = *r.Rules[0].RuleArn
	return w
}

func (w *world) must(_ any, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// define registers the image of a tag and returns the definition's ARN.
func (w *world) define(tag string) string {
	w.t.Helper()
	return w.defineSized(tag, nil, new("128"))
}

// defineSized does so for a task of a size; Fargate takes one of 256 and 512.
func (w *world) defineSized(tag string, cpu, memory *string) string {
	w.t.Helper()
	out, err := w.ecs.RegisterTaskDefinition(w.t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Cpu: cpu, Memory: memory,
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:" + tag), PortMappings: []types.PortMapping{{ContainerPort: new(int32(8080))}}}}})
	w.must(out, err)
	return *out.TaskDefinition.TaskDefinitionArn
}

// serviceOf is the service s of two tasks, to be made.
func (w *world) serviceOf(tag string, c *types.DeploymentConfiguration) *ecs.CreateServiceInput {
	w.t.Helper()
	in := &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new(w.define(tag)), DesiredCount: new(int32(2)), DeploymentConfiguration: c,
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}},
		LoadBalancers:        []types.LoadBalancer{{TargetGroupArn: &w.groups[0], ContainerName: new("web"), ContainerPort: new(int32(8080))}}}
	if c != nil && c.Strategy != types.DeploymentStrategyRolling {
		in.LoadBalancers[0].AdvancedConfiguration = &types.AdvancedConfiguration{AlternateTargetGroupArn: &w.groups[1], ProductionListenerRule: &w.rule, RoleArn: new("arn:aws:iam::" + Account + ":role/infra")}
	}
	return in
}

// create makes the service s.
func (w *world) create(tag string, c *types.DeploymentConfiguration) (string, error) {
	w.t.Helper()
	out, err := w.ecs.CreateService(w.t.Context(), w.serviceOf(tag, c))
	if err != nil {
		return "", err
	}
	return *out.Service.CurrentServiceDeployment, nil
}

func (w *world) update(tag string) string {
	w.t.Helper()
	out, err := w.ecs.UpdateService(w.t.Context(), &ecs.UpdateServiceInput{Service: new("s"), TaskDefinition: new(w.define(tag))})
	w.must(out, err)
	return *out.Service.CurrentServiceDeployment
}

func (w *world) look(deployment string) types.ServiceDeployment {
	w.t.Helper()
	out, err := w.ecs.DescribeServiceDeployments(w.t.Context(), &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{deployment}})
	w.must(out, err)
	return out.ServiceDeployments[0]
}

func (w *world) service() types.Service {
	w.t.Helper()
	out, err := w.ecs.DescribeServices(w.t.Context(), &ecs.DescribeServicesInput{Services: []string{"s"}})
	w.must(out, err)
	return out.Services[0]
}

// until looks again and again; the stage's own loops do the work.
func (w *world) until(what string, fn func() bool) {
	w.t.Helper()
	began, tick := time.Now(), time.NewTimer(w.tick)
	defer tick.Stop()
	for !fn() {
		waited := time.Since(began)
		if waited > w.limit {
			s := w.service()
			var said []string
			for _, e := range s.Events {
				said = append(said, *e.Message)
			}
			state := fmt.Sprintf("%+v", s.TaskSets)
			if s.CurrentServiceDeployment != nil {
				state = string(w.look(*s.CurrentServiceDeployment).Status)
			}
			w.t.Fatalf("never: %s\n%s\n%s", what, state, strings.Join(said, "\n"))
		}
		<-tick.C
		tick.Reset(max(w.tick, waited/100)) // the longer it takes, the less it matters when
	}
}

func (w *world) ends(deployment string, want types.ServiceDeploymentStatus) types.ServiceDeployment {
	w.t.Helper()
	var d types.ServiceDeployment
	w.until("it ends "+string(want), func() bool { d = w.look(deployment); return d.FinishedAt != nil || d.StoppedAt != nil })
	if d.Status != want {
		w.t.Fatalf("it ended %s: %s", d.Status, aws.ToString(d.StatusReason))
	}
	return d
}

func (w *world) said(text string) bool {
	for _, e := range w.service().Events {
		if strings.Contains(*e.Message, text) {
			return true
		}
	}
	return false
}

var breaker = &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}

func canary() *types.DeploymentConfiguration {
	return &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyCanary, DeploymentCircuitBreaker: breaker, BakeTimeInMinutes: new(int32(2)),
		CanaryConfiguration: &types.CanaryConfiguration{CanaryPercent: new(10.0), CanaryBakeTimeInMinutes: new(int32(20))}}
}

func (w *world) weights() (a, b int32) {
	w.t.Helper()
	r, err := w.elb.DescribeRules(w.t.Context(), &elb.DescribeRulesInput{RuleArns: []string{w.rule}})
	w.must(r, err)
	for _, g := range r.Rules[0].Actions[0].ForwardConfig.TargetGroups {
		if *g.TargetGroupArn == w.groups[0] {
			a = *g.Weight
		} else {
			b = *g.Weight
		}
	}
	return a, b
}

func TestARollingServiceLives(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", nil)
		w.must(first, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		// The same again is nothing.
		out, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), TaskDefinition: w.service().TaskDefinition})
		w.must(out, err)
		if *out.Service.CurrentServiceDeployment != first {
			t.Error("an update to the same started a deployment")
		}
		second := w.update("2")
		w.ends(second, types.ServiceDeploymentStatusSuccessful)
		w.until("one deployment is left", func() bool { s := w.service(); return len(s.Deployments) == 1 && s.RunningCount == 2 })
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(3))}))
		w.until("three run", func() bool { return w.service().RunningCount == 3 })
		tasks, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{ServiceName: new("s")})
		w.must(tasks, err)
		w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: &tasks.TaskArns[0]}))
		w.until("a stopped task is replaced", func() bool {
			now, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{ServiceName: new("s")})
			return err == nil && len(now.TaskArns) == 3 && w.service().RunningCount == 3 && !strings.Contains(strings.Join(now.TaskArns, " "), tasks.TaskArns[0])
		})
		if _, err := w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s")}); err == nil {
			t.Error("a service that is scaled up was deleted without force")
		}
		w.must(w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s"), Force: new(true)}))
		w.until("it is gone", func() bool { return *w.service().Status == "INACTIVE" })
	})
}

func TestAFirstDeploymentThatFailsHasNothingToGoBackTo(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		d, err := w.create("missing", &types.DeploymentConfiguration{DeploymentCircuitBreaker: breaker, Strategy: types.DeploymentStrategyRolling})
		w.must(d, err)
		end := w.ends(d, types.ServiceDeploymentStatusRollbackFailed)
		if *end.StatusReason != "No rollback candidate was found to run the rollback." || end.DeploymentCircuitBreaker.Status != types.ServiceDeploymentRollbackMonitorsStatusTriggered {
			t.Errorf("it ended %q, breaker %+v", *end.StatusReason, end.DeploymentCircuitBreaker)
		}
		if s := w.service(); *s.Status != "ACTIVE" || s.Deployments[0].RolloutState != types.DeploymentRolloutStateFailed || !w.said("CannotPullContainerError") || !w.said("deployment failed: tasks failed to start.") {
			t.Errorf("the service is %s, %+v", *s.Status, s.Deployments)
		}
	})
}

func TestTheTargetGroupsSwapTheirRoles(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		d, err := w.create("1", canary())
		w.must(d, err)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		if a, b := w.weights(); a != 0 || b != 100 {
			t.Errorf("the first lands in the alternate group; weights are %d/%d", a, b)
		}
		second := w.update("2")
		w.ends(second, types.ServiceDeploymentStatusSuccessful)
		if a, b := w.weights(); a != 100 || b != 0 {
			t.Errorf("the second lands in the other; weights are %d/%d", a, b)
		}
		out, err := w.ecs.DescribeServiceRevisions(t.Context(), &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{*w.look(second).TargetServiceRevision.Arn}})
		w.must(out, err)
		r := out.ServiceRevisions[0]
		if *r.ResolvedConfiguration.LoadBalancers[0].TargetGroupArn != w.groups[0] || !strings.HasPrefix(aws.ToString(r.ContainerImages[0].ImageDigest), "sha256:") {
			t.Errorf("the revision is %+v", r)
		}
	})
}

func TestANewerUpdateTakesOver(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		d, err := w.create("1", canary())
		w.must(d, err)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		second := w.update("2")
		w.until("the canary has its share", func() bool { _, b := w.weights(); return b == 90 })
		third := w.update("3")
		w.ends(second, types.ServiceDeploymentStatusStopped)
		end := w.ends(third, types.ServiceDeploymentStatusSuccessful)
		if got := aws.ToString(end.SourceServiceRevisions[0].Arn); got != *w.look(d).TargetServiceRevision.Arn {
			t.Errorf("its source is %s", got)
		}
		w.until("one deployment is left", func() bool { s := w.service(); return len(s.Deployments) == 1 && s.RunningCount == 2 })
	})
}

func TestAFirstDeploymentCanBeOvertaken(t *testing.T) {
	for _, c := range []*types.DeploymentConfiguration{{Strategy: types.DeploymentStrategyCanary, BakeTimeInMinutes: new(int32(1))}, {Strategy: types.DeploymentStrategyRolling}} {
		t.Run(string(c.Strategy), func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, w *world) {
				first, err := w.create("broken", c) // never healthy, and no breaker to end it
				w.must(first, err)
				w.until("one runs", func() bool { return w.service().RunningCount > 0 })
				second := w.update("2")
				w.ends(first, types.ServiceDeploymentStatusStopped)
				w.ends(second, types.ServiceDeploymentStatusSuccessful)
				w.until("one deployment is left", func() bool { s := w.service(); return len(s.Deployments) == 1 && s.RunningCount == 2 })
			})
		})
	}
}

func TestSomebodyElseMovedTheRule(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		d, err := w.create("1", canary())
		w.must(d, err)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		w.must(w.elb.ModifyRule(t.Context(), &elb.ModifyRuleInput{RuleArn: &w.rule, Actions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, ForwardConfig: &elbtypes.ForwardActionConfig{
			TargetGroups: []elbtypes.TargetGroupTuple{{TargetGroupArn: &w.groups[0], Weight: new(int32(50))}, {TargetGroupArn: &w.groups[1], Weight: new(int32(50))}}}}}}))
		end := w.ends(w.update("2"), types.ServiceDeploymentStatusRollbackSuccessful)
		if !strings.Contains(*end.StatusReason, "should have exactly one target group serving traffic but found 2 target groups") {
			t.Errorf("it ended %q", *end.StatusReason)
		}
	})
}

func TestAStopIsRefusedWhenAllIsOver(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		d, err := w.create("1", nil)
		w.must(d, err)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		_, err = w.ecs.StopServiceDeployment(t.Context(), &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &d})
		conflict, ok := errors.AsType[*types.ConflictException](err)
		if !ok || len(conflict.ResourceIds) != 1 || conflict.ResourceIds[0] != d {
			t.Errorf("got %v", err)
		}
	})
}

func early(healthy int32, cleanup types.ServiceRevisionCleanup) *types.DeploymentEarlySuccessCriteria {
	return &types.DeploymentEarlySuccessCriteria{Enable: true, HealthyPercent: &healthy, SourceServiceRevisionCleanup: cleanup}
}

// The deployment succeeds when half of its tasks are healthy, and its source goes
// all the same.
func TestARollingServiceSucceedsEarly(t *testing.T) {
	for _, cleanup := range types.ServiceRevisionCleanup("").Values() {
		bubble(t, nil, func(t *testing.T, w *world) {
			first, err := w.create("1", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyRolling, MinimumHealthyPercent: new(int32(50)), EarlySuccessCriteria: early(50, cleanup)})
			w.must(nil, err)
			w.ends(first, types.ServiceDeploymentStatusSuccessful)
			if e := w.service().DeploymentConfiguration.EarlySuccessCriteria; e == nil || *e.HealthyPercent != 50 || e.SourceServiceRevisionCleanup != cleanup {
				t.Errorf("the service says %+v", e)
			}
			second := w.update("2")
			d := w.ends(second, types.ServiceDeploymentStatusSuccessful)
			if left := d.SourceServiceRevisions[0].RunningTaskCount; cleanup == types.ServiceRevisionCleanupBlocking && left != 0 {
				t.Errorf("it succeeded with %d tasks of its source", left)
			}
			w.until("the source to go", func() bool {
				s := w.service()
				return s.RunningCount == 2 && len(s.Deployments) == 1
			})
		})
	}
}

func TestWhatAServiceMayNotBe(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		for want, c := range map[string]*types.DeploymentConfiguration{
			"Both maximumPercent and minimumHealthyPercent cannot be 100": {MinimumHealthyPercent: new(int32(100)), MaximumPercent: new(int32(100)), Strategy: types.DeploymentStrategyRolling},
			"Linear configuration can only be present with LINEAR":        {Strategy: types.DeploymentStrategyRolling, LinearConfiguration: &types.LinearConfiguration{}},
			"canaryPercent must be between 0.1 and 100.0":                 {Strategy: types.DeploymentStrategyCanary, CanaryConfiguration: &types.CanaryConfiguration{CanaryPercent: new(0.05)}},
			"bakeTimeInMinutes must be between 0 and 1440":                {Strategy: types.DeploymentStrategyRolling, BakeTimeInMinutes: new(int32(2000))},
			"Invalid deployment circuit breaker threshold value.":         {Strategy: types.DeploymentStrategyRolling, DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{ThresholdConfiguration: &types.ThresholdConfiguration{Type: types.ThresholdTypeCount}}},
			"earlySuccessCriteria can only be present with ROLLING":       {Strategy: types.DeploymentStrategyCanary, EarlySuccessCriteria: early(100, types.ServiceRevisionCleanupBlocking)},
			"healthyPercent and sourceServiceRevisionCleanup must be":     {Strategy: types.DeploymentStrategyRolling, EarlySuccessCriteria: &types.DeploymentEarlySuccessCriteria{Enable: true}},
			"healthyPercent must be between minimumHealthyPercent, 100,":  {Strategy: types.DeploymentStrategyRolling, EarlySuccessCriteria: early(50, types.ServiceRevisionCleanupBlocking)},
		} {
			_, err := w.create("1", c)
			api, ok := errors.AsType[smithy.APIError](err)
			if !ok || api.ErrorCode() != "InvalidParameterException" || !strings.Contains(api.ErrorMessage(), want) {
				t.Errorf("%s: got %v", want, err)
			}
		}
	})
}
