package stagetest

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// headless makes the service s without a load balancer: every stage is passed,
// and nobody checks anything for a fortnight.
func (w *world) headless(tag string, c *types.DeploymentConfiguration) string {
	w.t.Helper()
	c.Strategy = types.DeploymentStrategyBlueGreen
	in := w.serviceOf(tag, c)
	in.LoadBalancers = nil
	out, err := w.ecs.CreateService(w.t.Context(), in)
	w.must(out, err)
	return *out.Service.CurrentServiceDeployment
}

func TestAPauseLastsAFortnightToTheMinute(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		hooks := pauseAt(types.DeploymentLifecycleHookStagePostScaleUp)
		hooks[0].TimeoutConfiguration = &types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: new(int32(20160)), Action: types.DeploymentLifecycleHookActionContinue}
		d := w.headless("1", &types.DeploymentConfiguration{BakeTimeInMinutes: new(int32(0)), LifecycleHooks: hooks})
		began := time.Now()
		hook := w.paused(d)
		if left := time.Until(*hook.ExpiresAt); left < 14*24*time.Hour-time.Minute || left > 14*24*time.Hour {
			t.Errorf("it expires in %v", left)
		}
		end := w.ends(d, types.ServiceDeploymentStatusSuccessful)
		if took := end.FinishedAt.Sub(began); took < 14*24*time.Hour || took > 14*24*time.Hour+5*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAStageLastsADayToTheMinute(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first := w.headless("1", &types.DeploymentConfiguration{BakeTimeInMinutes: new(int32(0))})
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		second := w.update("missing") // and no circuit breaker
		end := w.ends(second, types.ServiceDeploymentStatusRollbackSuccessful)
		if took := end.Rollback.StartedAt.Sub(*end.StartedAt); took < 24*time.Hour || took > 24*time.Hour+time.Minute {
			t.Errorf("it took %v", took)
		}
		if got := aws.ToString(end.StatusReason); got != "Service deployment rolled back because the SCALE_UP lifecycle stage timed out." {
			t.Errorf("the reason is %s", got)
		}
	})
}
