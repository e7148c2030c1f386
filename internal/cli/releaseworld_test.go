package cli

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"serin/internal/rehearse"
	"serin/internal/release"
)

const hookFunction = "arn:aws:lambda:ap-northeast-2:123456789012:function:verify"

// hookCalls answers for a function and remembers at which weights it was asked.
type hookCalls struct {
	mu     sync.Mutex
	stages []string
}

func (h *hookCalls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var event struct{ LifecycleStage string }
	if json.NewDecoder(r.Body).Decode(&event) == nil {
		h.mu.Lock()
		h.stages = append(h.stages, event.LifecycleStage)
		h.mu.Unlock()
	}
	io.WriteString(w, `{"hookStatus":"SUCCEEDED"}`)
}

// A linear release under 500 requests a second: a person and a function are asked,
// tasks of both versions are replaced in the middle of it, each step gets its share.
// Then a slow version, which an alarm on the load balancer's own measurements turns
// back. No request fails.
func TestALinearReleaseUnderLoad(t *testing.T) {
	calls := &hookCalls{}
	function := httptest.NewServer(calls)
	defer function.Close()
	_, endpoint := up(t, "--ephemeral", "--port", "0", "--speed", "60", "--function", hookFunction+"="+function.URL)
	d := path(t, endpoint)
	ctx, stop := context.WithTimeout(t.Context(), 4*time.Minute)
	defer stop()
	for _, do := range []func(context.Context) error{d.clickTogether, d.first} {
		if err := do(ctx); err != nil {
			t.Fatal(err)
		}
	}
	e, alarm := ecs.NewFromConfig(d.admin), slowAlarm(t, d)
	hookRole(t, d)
	_, err := e.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: &d.service.Cluster, Service: &d.service.Name, DeploymentConfiguration: &ecstypes.DeploymentConfiguration{
		Strategy: ecstypes.DeploymentStrategyLinear, LinearConfiguration: &ecstypes.LinearConfiguration{StepPercent: new(25.0), StepBakeTimeInMinutes: new(int32(5))}, BakeTimeInMinutes: new(int32(2)),
		Alarms: &ecstypes.DeploymentAlarms{AlarmNames: []string{alarm}, Enable: true, Rollback: true},
		LifecycleHooks: []ecstypes.DeploymentLifecycleHook{
			{TargetType: ecstypes.DeploymentLifecycleHookTargetTypePause, LifecycleStages: []ecstypes.DeploymentLifecycleHookStage{ecstypes.DeploymentLifecycleHookStagePostScaleUp}},
			{HookTargetArn: new(hookFunction), RoleArn: new(d.role("hooks")), LifecycleStages: []ecstypes.DeploymentLifecycleHookStage{ecstypes.DeploymentLifecycleHookStageProductionTrafficShift}},
		}}})
	if err != nil {
		t.Fatal(err)
	}
	d.load = &rehearse.Load{URL: d.listener, Rate: 500, Version: func(r *http.Response) string { return r.Header.Get("X-Version") }}
	loading, quiet := context.WithCancel(ctx)
	var loaded sync.WaitGroup
	loaded.Go(func() { d.load.Run(loading) })
	defer loaded.Wait()
	defer quiet()

	deployment, err := d.releaseVersion(ctx, "2")
	if err != nil {
		t.Fatal(err)
	}
	steps := seeSteps(ctx, t, d, deployment, release.Deployed)
	for _, want := range []float64{25, 50, 75} {
		got := steps[want]
		n, share := float64(got.Sent-got.Failed), got.Share("2")
		t.Logf("at %g %% version 2 had %.2f %% of %g answers", want, 100*share, n)
		// Four standard errors of a random choice; weights are kept better than that.
		if margin := 4 * math.Sqrt(want/100*(1-want/100)/n); n < 500 || math.Abs(share-want/100) > margin {
			t.Errorf("at %g %% version 2 had %.2f %% of %g answers", want, 100*share, n)
		}
	}
	calls.mu.Lock()
	if len(calls.stages) != 4 || strings.Join(calls.stages, " ") != strings.TrimSpace(strings.Repeat("PRODUCTION_TRAFFIC_SHIFT ", 4)) {
		t.Errorf("the function was called at %v", calls.stages)
	}
	calls.mu.Unlock()

	slow, err := d.releaseVersion(ctx, "3", "DELAY=2s")
	if err != nil {
		t.Fatal(err)
	}
	seeSteps(ctx, t, d, slow, release.RolledBack)
	dep, err := release.Describe(ctx, e, slow)
	if err != nil {
		t.Fatal(err)
	}
	if dep.Alarms.Status != ecstypes.ServiceDeploymentRollbackMonitorsStatusTriggered || !strings.Contains(aws.ToString(dep.StatusReason), alarm) {
		t.Errorf("it was turned back because %q, alarms %+v", aws.ToString(dep.StatusReason), dep.Alarms)
	}
	quiet()
	loaded.Wait()
	seen := d.load.Seen()
	if seen.Failed > 0 || seen.By["3"] == 0 {
		t.Errorf("of %d requests %d failed, %d were answered by the slow version: %s", seen.Sent, seen.Failed, seen.By["3"], seen.Problem)
	}
	t.Logf("%d requests, %d failed", seen.Sent, seen.Failed)
}

// seeSteps follows a deployment to its end, approves where it waits, replaces a
// task of each version once, and returns what users saw at each weight.
func seeSteps(ctx context.Context, t *testing.T, d *demo, deployment string, want release.Verdict) map[float64]rehearse.Counts {
	t.Helper()
	e := ecs.NewFromConfig(d.admin)
	first, steps, answered, replaced := map[float64]rehearse.Counts{}, map[float64]rehearse.Counts{}, map[string]bool{}, false
	err := d.see(ctx, deployment, want, func(dep ecstypes.ServiceDeployment) error {
		for _, hook := range release.Waiting(dep) {
			if id := *hook.HookId; !answered[id] {
				answered[id] = true
				return release.Answer(ctx, e, deployment, id, ecstypes.DeploymentLifecycleHookActionContinue)
			}
		}
		weight := aws.ToFloat64(dep.TargetServiceRevision.RequestedProductionTrafficWeight)
		if dep.LifecycleStage != ecstypes.ServiceDeploymentLifecycleStageProductionTrafficShift || dep.Status != ecstypes.ServiceDeploymentStatusInProgress {
			return nil
		}
		seen := d.load.Seen()
		if _, began := first[weight]; !began {
			first[weight] = seen // from now on the weights have been in force for a while
			return nil
		}
		steps[weight] = seen.Since(first[weight])
		if weight == 50 && !replaced && want == release.Deployed {
			replaced = true
			return d.replaceOneOfEach(ctx)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// replaceOneOfEach stops a task of each revision; the service starts others.
func (d *demo) replaceOneOfEach(ctx context.Context) error {
	e := ecs.NewFromConfig(d.admin)
	list, err := e.ListTasks(ctx, &ecs.ListTasksInput{Cluster: &d.service.Cluster, ServiceName: &d.service.Name})
	if err != nil {
		return err
	}
	tasks, err := e.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &d.service.Cluster, Tasks: list.TaskArns})
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, task := range tasks.Tasks {
		if by := aws.ToString(task.StartedBy); !done[by] {
			done[by] = true
			if _, err := e.StopTask(ctx, &ecs.StopTaskInput{Cluster: &d.service.Cluster, Task: task.TaskArn, Reason: new("a test")}); err != nil {
				return err
			}
		}
	}
	return nil
}

func hookRole(t *testing.T, d *demo) {
	t.Helper()
	i := iam.NewFromConfig(d.admin)
	if _, err := i.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: new("hooks"), AssumeRolePolicyDocument: new(serviceTrust("ecs.amazonaws.com"))}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("hooks"), PolicyName: new("invoke"),
		PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"` + hookFunction + `"}]}`)}); err != nil {
		t.Fatal(err)
	}
}

// slowAlarm is an alarm on what the load balancer measures of its targets: more than a
// busy machine makes of a quick one, less than the slow version takes.
func slowAlarm(t *testing.T, d *demo) string {
	t.Helper()
	lbs, err := elb.NewFromConfig(d.admin).DescribeLoadBalancers(t.Context(), &elb.DescribeLoadBalancersInput{})
	if err != nil {
		t.Fatal(err)
	}
	_, name, _ := strings.Cut(*lbs.LoadBalancers[0].LoadBalancerArn, "loadbalancer/")
	_, err = cloudwatch.NewFromConfig(d.admin).PutMetricAlarm(t.Context(), &cloudwatch.PutMetricAlarmInput{
		AlarmName: new("slow"), Namespace: new("AWS/ApplicationELB"), MetricName: new("TargetResponseTime"), ExtendedStatistic: new("p95"), Period: new(int32(60)), EvaluationPeriods: new(int32(1)),
		Threshold: new(1.0), ComparisonOperator: cwtypes.ComparisonOperatorGreaterThanThreshold, TreatMissingData: new("notBreaching"),
		Dimensions: []cwtypes.Dimension{{Name: new("LoadBalancer"), Value: &name}}})
	if err != nil {
		t.Fatal(err)
	}
	return "slow"
}
