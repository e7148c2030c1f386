package stagetest

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestIdentifiersHaveECSsForms(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", nil)
		w.must(nil, err)
		d := w.ends(first, types.ServiceDeploymentStatusSuccessful)
		s := w.service()
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		out, err := w.ecs.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: list.TaskArns})
		w.must(out, err)
		task := out.Tasks[0]
		const here = `arn:aws:ecs:us-east-1:` + Account + `:`
		for _, c := range []struct{ what, is, form string }{
			{"the service", *s.ServiceArn, here + `service/default/s`},
			{"the cluster", *s.ClusterArn, here + `cluster/default`},
			{"the deployment", *d.ServiceDeploymentArn, here + `service-deployment/default/s/[A-Za-z0-9_-]{21}`},
			{"the revision", *d.TargetServiceRevision.Arn, here + `service-revision/default/s/\d{19}`},
			{"the legacy deployment", *s.Deployments[0].Id, `ecs-svc/\d{19}`},
			{"who started a task", *task.StartedBy, regexp.QuoteMeta(*s.Deployments[0].Id)},
			{"a task's group", *task.Group, `service:s`},
			{"a task", *task.TaskArn, here + `task/default/[0-9a-f]{32}`},
			{"a container", *task.Containers[0].ContainerArn, regexp.QuoteMeta(here+"container/default/"+lastParts(list.TaskArns[:1])) + `/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`},
			{"an event", *s.Events[0].Id, `[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`},
		} {
			if !regexp.MustCompile(`^` + c.form + `$`).MatchString(c.is) {
				t.Errorf("%s is %s, want %s", c.what, c.is, c.form)
			}
		}
	})
}

// The guide's example of a first rolling deployment that has ended.
func TestAFinishedDeploymentReadsAsInTheGuide(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyRolling, DeploymentCircuitBreaker: breaker})
		w.must(nil, err)
		d := w.ends(first, types.ServiceDeploymentStatusSuccessful)
		target, guard := d.TargetServiceRevision, d.DeploymentCircuitBreaker
		if len(d.SourceServiceRevisions) != 0 || target.RequestedTaskCount != 2 || target.RunningTaskCount != 2 || target.PendingTaskCount != 0 || target.RequestedProductionTrafficWeight != nil || target.RequestedTestTrafficWeight != nil {
			t.Errorf("its revisions are %+v and %+v", d.SourceServiceRevisions, target)
		}
		if guard.Status != types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete || guard.FailureCount != 0 || guard.Threshold != 3 || d.Alarms.Status != types.ServiceDeploymentRollbackMonitorsStatusDisabled {
			t.Errorf("its monitors are %+v and %+v", guard, d.Alarms)
		}
		if d.CreatedAt == nil || d.StartedAt == nil || d.FinishedAt == nil || d.UpdatedAt == nil || d.StoppedAt != nil || d.LifecycleStage != "" || d.Rollback != nil {
			t.Errorf("it is %+v", d)
		}
		list, err := w.ecs.ListServiceDeployments(t.Context(), &ecs.ListServiceDeploymentsInput{Service: new("s")})
		w.must(list, err)
		if b := list.ServiceDeployments[0]; *b.ServiceDeploymentArn != first || *b.ServiceArn != *d.ServiceArn || *b.ClusterArn != *d.ClusterArn || *b.TargetServiceRevisionArn != *target.Arn || b.Status != d.Status || !b.FinishedAt.Equal(*d.FinishedAt) {
			t.Errorf("in the list it is %+v", b)
		}
	})
}

// Counts and weights at each stage that can be stopped at: what is asked for is
// told as such, also where nothing runs yet.
func TestCountsAndWeightsFollowTheStages(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", blueGreen())
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		c := canary()
		c.CanaryConfiguration.CanaryBakeTimeInMinutes, c.BakeTimeInMinutes = new(int32(0)), new(int32(0))
		c.LifecycleHooks = pauseAt(types.DeploymentLifecycleHookStagePreScaleUp, types.DeploymentLifecycleHookStagePostScaleUp, types.DeploymentLifecycleHookStagePreProductionTrafficShift, types.DeploymentLifecycleHookStagePostProductionTrafficShift)
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: c}))
		second := w.update("2")
		counts := func(s types.ServiceRevisionSummary) string {
			return fmt.Sprintf("%d/%d/%d %g", s.RequestedTaskCount, s.PendingTaskCount, s.RunningTaskCount, aws.ToFloat64(s.RequestedProductionTrafficWeight))
		}
		for _, want := range []string{"PRE_SCALE_UP 2/0/2 100 0/0/0 0", "POST_SCALE_UP 2/0/2 100 2/0/2 0", "PRE_PRODUCTION_TRAFFIC_SHIFT 2/0/2 100 2/0/2 0", "PRE_PRODUCTION_TRAFFIC_SHIFT 2/0/2 90 2/0/2 10", "POST_PRODUCTION_TRAFFIC_SHIFT 2/0/2 0 2/0/2 100"} {
			hook := w.paused(second)
			d := w.look(second)
			if got := fmt.Sprintf("%s %s %s", d.LifecycleStage, counts(d.SourceServiceRevisions[0]), counts(*d.TargetServiceRevision)); got != want {
				t.Errorf("it is at %s, want %s", got, want)
			}
			w.must(nil, w.goOn(second, *hook.HookId, ""))
		}
		d := w.ends(second, types.ServiceDeploymentStatusSuccessful)
		if got := counts(d.SourceServiceRevisions[0]) + " " + counts(*d.TargetServiceRevision); got != "0/0/0 0 2/0/2 100" {
			t.Errorf("it ended at %s", got)
		}
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: []types.DeploymentLifecycleHook{}, DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{}}}))
		third := w.update("missing")
		w.until("its tasks fail", func() bool { s := w.service(); return s.Deployments[0].FailedTasks > 1 })
		if d := w.look(third); d.TargetServiceRevision.RequestedTaskCount != 2 || d.TargetServiceRevision.RunningTaskCount != 0 {
			t.Errorf("tasks that never start are told as %+v", d.TargetServiceRevision)
		}
	})
}
