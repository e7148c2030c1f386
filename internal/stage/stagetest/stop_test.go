package stagetest

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/run"
	"serin/internal/stage"
)

func (w *world) stop(deployment string, how types.StopServiceDeploymentStopType) error {
	w.t.Helper()
	out, err := w.ecs.StopServiceDeployment(w.t.Context(), &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &deployment, StopType: how})
	if err == nil && *out.ServiceDeploymentArn != deployment {
		w.t.Errorf("the answer names %s", *out.ServiceDeploymentArn)
	}
	return err
}

// get reads one of the stage's own paths.
func (w *world) get(path string, into any) {
	w.t.Helper()
	resp, err := w.client.Get(*w.config.BaseEndpoint + path)
	w.must(nil, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	w.must(nil, err)
	w.must(nil, json.Unmarshal(raw, into))
}

// A deployment in the middle of its canary is stopped: with the stop type or
// without, with a circuit breaker or without, and again while it goes back. How
// long it took until the traffic was safe is kept.
func TestAStopSendsTheTrafficBackFirst(t *testing.T) {
	var hold chan struct{} // keeps the rollback from ending
	function := func(ctx context.Context, _ string, event []byte) ([]byte, error) {
		var h heard
		if err := json.Unmarshal(event, &h); err != nil {
			return nil, err
		}
		if h.ExecutionDetails.ProductionTrafficWeights[h.ExecutionDetails.TargetServiceRevisionARN] == 0 {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		return []byte(`{"hookStatus":"SUCCEEDED"}`), nil
	}
	bubble(t, function, func(t *testing.T, w *world) {
		w.hooksRole("lambda:InvokeFunction")
		c := canary()
		c.DeploymentCircuitBreaker, c.LifecycleHooks = nil, nil
		c.Strategy, c.CanaryConfiguration, c.BakeTimeInMinutes = types.DeploymentStrategyBlueGreen, nil, new(int32(0))
		first, err := w.create("1", c)
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyCanary, BakeTimeInMinutes: new(int32(1440)),
			LifecycleHooks: functionAt(checker, types.DeploymentLifecycleHookStageProductionTrafficShift)}}))
		for _, how := range []types.StopServiceDeploymentStopType{"", types.StopServiceDeploymentStopTypeRollback} {
			hold = make(chan struct{})
			before, _ := w.weights()
			second := w.update("2")
			w.until("the canary has its share", func() bool { a, _ := w.weights(); return a != before })
			w.must(nil, w.stop(second, how))
			if s := w.look(second).Status; s != types.ServiceDeploymentStatusRollbackRequested && s != types.ServiceDeploymentStatusRollbackInProgress {
				t.Errorf("a deployment in progress that is stopped is %s", s)
			}
			w.must(nil, w.stop(second, how)) // and goes on
			w.until("the traffic is back", func() bool { a, _ := w.weights(); return a == before })
			w.until("it goes back", func() bool {
				return w.look(second).Status == types.ServiceDeploymentStatusRollbackInProgress
			})
			w.must(nil, w.stop(second, how))
			close(hold)
			d := w.ends(second, types.ServiceDeploymentStatusRollbackSuccessful)
			if *d.StatusReason != "Service deployment rolled back because a user requested it." || d.FinishedAt == nil || d.StoppedAt != nil || *d.TargetServiceRevision.RequestedProductionTrafficWeight != 0 || *d.SourceServiceRevisions[0].RequestedProductionTrafficWeight != 100 {
				t.Errorf("it ended as %+v", d)
			}
			var told []struct {
				Deployment, Reason, TimeToSafety string
				Started, Safe                    time.Time
			}
			w.get("/_serin/rollbacks", &told)
			i := slices.IndexFunc(told, func(r struct {
				Deployment, Reason, TimeToSafety string
				Started, Safe                    time.Time
			}) bool {
				return r.Deployment == second
			})
			if i < 0 {
				t.Fatalf("the rollback is not told: %+v", told)
			}
			if r := told[i]; r.Safe.Before(r.Started) || r.Safe.After(*d.FinishedAt) || r.TimeToSafety == "" || r.Reason != *d.StatusReason {
				t.Errorf("the rollback is told as %+v", r)
			}
			if err := w.stop(second, how); code(err) != "ConflictException" {
				t.Errorf("a stop of what was rolled back gives %v", err)
			}
			if err := w.stop(second, types.StopServiceDeploymentStopTypeAbort); code(err) != "InvalidParameterException" {
				t.Errorf("ABORT gives %v", err)
			}
		}
	})
}

// Half of the tasks are enough, and the source's tasks go after the success: until
// they have gone both are told.
func TestADeferredCleanUpIsStillTold(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyRolling, MinimumHealthyPercent: new(int32(50)), EarlySuccessCriteria: early(50, types.ServiceRevisionCleanupDeferred)})
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		second := w.update("2")
		var told types.Service
		w.until("it succeeds with tasks of its source", func() bool {
			told = w.service()
			d := told.Deployments
			return len(d) == 2 && d[0].RolloutState == types.DeploymentRolloutStateCompleted || len(d) == 1 && *w.look(second).TargetServiceRevision.Arn == *told.CurrentServiceRevisions[0].Arn && w.look(second).FinishedAt != nil
		})
		if d := told.Deployments; len(d) == 2 && (*d[0].Status != "PRIMARY" || *d[1].Status != "ACTIVE" || d[1].RolloutState != types.DeploymentRolloutStateCompleted || len(told.CurrentServiceRevisions) != 2) {
			t.Errorf("the deployments are %+v, the revisions %+v", d, told.CurrentServiceRevisions)
		}
		if *told.CurrentServiceDeployment != second || !strings.HasSuffix(*told.Deployments[0].RolloutStateReason, " completed.") {
			t.Errorf("the current deployment is %s, %s", *told.CurrentServiceDeployment, *told.Deployments[0].RolloutStateReason)
		}
		if err := w.stop(second, ""); code(err) != "ConflictException" {
			t.Errorf("a stop during the clean-up gives %v", err)
		}
		w.until("one is left", func() bool {
			s := w.service()
			return len(s.Deployments) == 1 && len(s.CurrentServiceRevisions) == 1 && s.RunningCount == 2
		})
	})
}

// The desired count changes in the middle of a deployment: no other deployment,
// both revisions follow, and so does the circuit breaker.
func TestADeploymentFollowsTheDesiredCount(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		c := blueGreen()
		first, err := w.create("1", c)
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: pauseAt(types.DeploymentLifecycleHookStagePostScaleUp)}}))
		second := w.update("2")
		hook := w.paused(second)
		for _, x := range []struct{ desired, threshold int32 }{{8, 4}, {1, 3}, {7, 4}} {
			out, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: &x.desired})
			w.must(out, err)
			if *out.Service.CurrentServiceDeployment != second {
				t.Error("a desired count started a deployment")
			}
			w.until("both follow", func() bool {
				d := w.look(second)
				return d.TargetServiceRevision.RunningTaskCount == x.desired && d.SourceServiceRevisions[0].RunningTaskCount == x.desired && d.DeploymentCircuitBreaker.Threshold == x.threshold
			})
		}
		w.must(nil, w.goOn(second, *hook.HookId, ""))
		d := w.ends(second, types.ServiceDeploymentStatusSuccessful)
		if d.TargetServiceRevision.RunningTaskCount != 7 || d.DeploymentCircuitBreaker.Threshold != 4 || d.DeploymentCircuitBreaker.Status != types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete {
			t.Errorf("it ended as %+v, breaker %+v", d.TargetServiceRevision, d.DeploymentCircuitBreaker)
		}
		// What has ended says what it was.
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(20))}))
		w.until("twenty run", func() bool { return w.service().RunningCount == 20 })
		if now := w.look(second); now.TargetServiceRevision.RunningTaskCount != 7 || now.DeploymentCircuitBreaker.Threshold != 4 || !now.UpdatedAt.Equal(*d.UpdatedAt) {
			t.Errorf("after its end it is told as %+v, breaker %+v", now.TargetServiceRevision, now.DeploymentCircuitBreaker)
		}
	})
}

// A service that is deleted in the middle of a deployment takes its deployments
// and revisions with it.
func TestADeletedServiceTakesItsDeploymentsAlong(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", blueGreen())
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: pauseAt(types.DeploymentLifecycleHookStagePostScaleUp)}}))
		second := w.update("2")
		w.paused(second)
		revision := *w.look(second).TargetServiceRevision.Arn
		if _, err := w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s")}); code(err) != "InvalidParameterException" {
			t.Errorf("without force it gives %v", err)
		}
		out, err := w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s"), Force: new(true)})
		w.must(out, err)
		if *out.Service.Status != "DRAINING" || out.Service.DesiredCount != 0 {
			t.Errorf("it is %s with %d tasks wanted", *out.Service.Status, out.Service.DesiredCount)
		}
		w.until("it is gone", func() bool {
			now, err := w.ecs.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{"s"}})
			return err == nil && *now.Services[0].Status == "INACTIVE" && len(now.Services[0].Deployments) == 0 && now.Services[0].RunningCount == 0
		})
		d, err := w.ecs.DescribeServiceDeployments(t.Context(), &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{first, second}})
		w.must(d, err)
		r, err := w.ecs.DescribeServiceRevisions(t.Context(), &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{revision}})
		w.must(r, err)
		if len(d.Failures) != 2 || len(r.Failures) != 1 {
			t.Errorf("of its deployments and revisions %+v and %+v are left", d.ServiceDeployments, r.ServiceRevisions)
		}
		if list, err := w.ecs.ListServices(t.Context(), &ecs.ListServicesInput{}); err != nil || len(list.ServiceArns) != 0 {
			t.Errorf("%v, %v are listed", list, err)
		}
	})
}

// stuck is a runtime whose tasks cannot be removed.
type stuck struct{ *run.Fake }

type stuckTask struct{ run.Task }

func (r stuck) Create(ctx context.Context, spec run.Spec) (run.Task, error) {
	t, err := r.Fake.Create(ctx, spec)
	return stuckTask{t}, err
}

func (stuckTask) Remove(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// What a task leaves is gc's in the end: its row does not wait for it for ever.
func TestATaskThatCannotBeRemovedIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := run.NewFake()
		s, c, client := inBubbleOn(t, stage.Config{}, fake, stuck{fake})
		w := worldOf(t, s, c, client, time.Second, time.Hour)
		w.define("1")
		arn := w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		w.until("it runs", func() bool { return *w.task(arn).LastStatus == "RUNNING" })
		w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: arn}))
		w.must(nil, w.eventually("it has stopped", func() bool { return *w.task(arn).LastStatus == "STOPPED" }))
	})
}
