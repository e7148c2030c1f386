package stagetest

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

func alarms(rollback bool, names ...string) *types.DeploymentAlarms {
	return &types.DeploymentAlarms{AlarmNames: names, Enable: true, Rollback: rollback}
}

// alarm makes an alarm that looks back over some minutes and is quiet without data.
func (w *world) alarm(name string, minutes int32, change func(*cloudwatch.PutMetricAlarmInput)) {
	w.t.Helper()
	in := &cloudwatch.PutMetricAlarmInput{AlarmName: &name, Namespace: new("Shop"), MetricName: new("Failures"), Statistic: cwtypes.StatisticSum, Period: new(int32(60)),
		EvaluationPeriods: &minutes, DatapointsToAlarm: new(int32(1)), Threshold: new(5.0), ComparisonOperator: cwtypes.ComparisonOperatorGreaterThanThreshold, TreatMissingData: new("notBreaching")}
	change(in)
	w.must(w.cw.PutMetricAlarm(w.t.Context(), in))
}

// loadBalancerName is what CloudWatch calls a load balancer.
func loadBalancerName(lb elbtypes.LoadBalancer) string {
	return (*lb.LoadBalancerArn)[strings.Index(*lb.LoadBalancerArn, "app/"):]
}

func (w *world) setAlarm(name string, state cwtypes.StateValue) {
	w.t.Helper()
	w.must(w.cw.SetAlarmState(w.t.Context(), &cloudwatch.SetAlarmStateInput{AlarmName: &name, StateValue: state, StateReason: new("a test says so")}))
}

// Errors of the new version, that its health checks do not see: the load balancer
// counts them, an alarm counts those, and the deployment goes back.
func TestTheLoadBalancersErrorsTurnACanaryBack(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		lbs, err := w.elb.DescribeLoadBalancers(t.Context(), &elb.DescribeLoadBalancersInput{})
		w.must(lbs, err)
		lb := lbs.LoadBalancers[0]
		w.alarm("5xx", 1, func(in *cloudwatch.PutMetricAlarmInput) {
			in.Namespace, in.MetricName = new("AWS/ApplicationELB"), new("HTTPCode_Target_5XX_Count")
			in.Dimensions = []cwtypes.Dimension{{Name: new("LoadBalancer"), Value: new(loadBalancerName(lb))}}
		})
		c := canary()
		c.Alarms = alarms(true, "5xx")
		first, err := w.create("1", c)
		w.must(nil, err)
		failed := w.users("http://" + *lb.DNSName + ":8088/")
		end := w.ends(first, types.ServiceDeploymentStatusSuccessful)
		if end.Alarms.Status != types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete || len(end.Alarms.AlarmNames) != 1 || end.DeploymentCircuitBreaker.Status != types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete {
			t.Errorf("a good version ends with %+v %+v", end.Alarms, end.DeploymentCircuitBreaker)
		}
		before := failed()
		second := w.update("faulty")
		end = w.ends(second, types.ServiceDeploymentStatusRollbackSuccessful)
		if *end.StatusReason != "Service deployment rolled back because a CloudWatch alarm was triggered: 5xx." || end.Alarms.Status != types.ServiceDeploymentRollbackMonitorsStatusTriggered ||
			strings.Join(end.Alarms.TriggeredAlarmNames, " ") != "5xx" || end.DeploymentCircuitBreaker.Status != types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete {
			t.Errorf("it ended because %q, %+v %+v", *end.StatusReason, end.Alarms, end.DeploymentCircuitBreaker)
		}
		if n := failed() - before; n < 6 || n > 60 { // a tenth of the users, for a minute or two
			t.Errorf("%d users saw the faulty version", n)
		}
		if !w.said("deployment failed: alarm detected.") || !w.said("rolling back to deployment") {
			t.Errorf("the events are %+v", w.service().Events)
		}
		before = failed()
		time.Sleep(10 * time.Minute)
		if n := failed() - before; n != 0 {
			t.Errorf("%d users saw it after it was over", n)
		}
	})
}

// users ask once a second, until the test ends; how many were answered with an
// error is what is returned.
func (w *world) users(url string) (failed func() int) {
	asked := make(chan int)
	w.t.Cleanup(func() {
		for range asked { // until it has ended
		}
	})
	ctx := w.t.Context()
	go func() {
		defer close(asked)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		n := 0
		for {
			select {
			case <-ctx.Done():
				return
			case asked <- n:
			case <-tick.C:
				if resp, err := w.client.Get(url); err == nil {
					resp.Body.Close()
					if resp.StatusCode == http.StatusInternalServerError {
						n++
					}
				}
			}
		}
	}()
	return func() int { return <-asked }
}

func TestARollingDeploymentBakesForItsAlarms(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.alarm("failures", 3, func(*cloudwatch.PutMetricAlarmInput) {})
		w.alarm("others", 1, func(*cloudwatch.PutMetricAlarmInput) {})
		first, err := w.create("1", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyRolling, Alarms: alarms(true, "failures", "others", "nobody made this one")})
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		second := w.update("2")
		w.until("the source is gone", func() bool { s := w.service(); return s.RunningCount == 2 && len(s.Deployments) == 1 })
		baking := time.Now()
		end := w.ends(second, types.ServiceDeploymentStatusSuccessful)
		if bake := end.FinishedAt.Sub(baking); bake < 3*time.Minute-2*time.Second || bake > 3*time.Minute+2*time.Second {
			t.Errorf("it baked for %v, and its slowest alarm looks back over three minutes", bake)
		}
		third := w.update("3")
		w.until("the source is gone", func() bool { s := w.service(); return s.RunningCount == 2 && len(s.Deployments) == 1 })
		w.setAlarm("others", cwtypes.StateValueAlarm)
		end = w.ends(third, types.ServiceDeploymentStatusRollbackSuccessful)
		if strings.Join(end.Alarms.TriggeredAlarmNames, " ") != "others" || end.Rollback == nil {
			t.Errorf("it ended with %+v", end.Alarms)
		}
		if got := w.service(); got.Deployments[0].RolloutState != types.DeploymentRolloutStateCompleted || *got.Deployments[0].TaskDefinition != *w.look(second).TargetServiceRevision.Arn && got.RunningCount != 2 {
			t.Errorf("the service is %+v", got.Deployments)
		}
	})
}

func TestAlarmsThatDoNotTurnADeploymentBack(t *testing.T) {
	for name, c := range map[string]struct {
		alarms *types.DeploymentAlarms
		before cwtypes.StateValue // the deployment
		status types.ServiceDeploymentStatus
		says   types.ServiceDeploymentRollbackMonitorsStatus
	}{
		"it fired before the deployment began": {alarms(true, "failures"), cwtypes.StateValueAlarm, types.ServiceDeploymentStatusSuccessful, types.ServiceDeploymentRollbackMonitorsStatusDisabled},
		"it is not enabled":                    {&types.DeploymentAlarms{AlarmNames: []string{"failures"}}, cwtypes.StateValueOk, types.ServiceDeploymentStatusSuccessful, types.ServiceDeploymentRollbackMonitorsStatusDisabled},
		"it does not roll back":                {alarms(false, "failures"), cwtypes.StateValueOk, types.ServiceDeploymentStatusStopped, types.ServiceDeploymentRollbackMonitorsStatusTriggered},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, w *world) {
				w.alarm("failures", 1, func(in *cloudwatch.PutMetricAlarmInput) { in.TreatMissingData = new("ignore") })
				first, err := w.create("1", canary())
				w.must(nil, err)
				w.ends(first, types.ServiceDeploymentStatusSuccessful)
				w.setAlarm("failures", c.before)
				w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{Alarms: c.alarms}}))
				second := w.update("2")
				w.until("the canary has its share", func() bool { _, b := w.weights(); return b == 90 })
				w.setAlarm("failures", cwtypes.StateValueOk)
				w.setAlarm("failures", cwtypes.StateValueAlarm)
				end := w.ends(second, c.status)
				if end.Alarms.Status != c.says {
					t.Errorf("the alarms are %s", end.Alarms.Status)
				}
			})
		})
	}
}

func TestAlarmsThatAreNone(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		for want, a := range map[string]*types.DeploymentAlarms{
			"alarmNames must be specified when alarms is enabled":     {AlarmNames: []string{}, Enable: true},
			"alarmNames must have between 1 and 255 characters each,": {AlarmNames: []string{strings.Repeat("a", 256)}, Enable: true},
		} {
			if _, err := w.create("1", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyRolling, Alarms: a}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", want, err)
			}
		}
	})
}
