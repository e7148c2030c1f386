package stagetest

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func pauseAt(stages ...types.DeploymentLifecycleHookStage) []types.DeploymentLifecycleHook {
	return []types.DeploymentLifecycleHook{{TargetType: types.DeploymentLifecycleHookTargetTypePause, LifecycleStages: stages}}
}

// paused waits until a deployment awaits an action, and returns its hook.
func (w *world) paused(deployment string) (hook types.DeploymentLifecycleHookDetail) {
	w.t.Helper()
	w.until("a pause", func() bool {
		d := w.look(deployment)
		for _, h := range d.LifecycleHookDetails {
			if h.Status == types.DeploymentLifecycleHookStatusAwaitingAction {
				hook = h
				return true
			}
		}
		return false
	})
	return hook
}

func (w *world) goOn(deployment, hook string, action types.DeploymentLifecycleHookAction) error {
	_, err := w.ecs.ContinueServiceDeployment(w.t.Context(), &ecs.ContinueServiceDeploymentInput{ServiceDeploymentArn: &deployment, HookId: &hook, Action: action})
	return err
}

func TestADeploymentPausesAtEveryStep(t *testing.T) {
	w := newWorld(t)
	c := canary()
	first, err := w.create("1", c)
	w.must(nil, err)
	w.ends(first, types.ServiceDeploymentStatusSuccessful)
	_, err = w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: pauseAt(types.DeploymentLifecycleHookStagePreProductionTrafficShift)}})
	w.must(nil, err)

	second := w.update("2")
	hook := w.paused(second)
	if !regexp.MustCompile(`^ecs-pause-[A-Za-z0-9_-]{43}$`).MatchString(*hook.HookId) || hook.TimeoutAction != types.DeploymentLifecycleHookActionRollback || time.Until(*hook.ExpiresAt) < 0 {
		t.Errorf("the hook is %+v", hook)
	}
	d := w.look(second)
	if d.Status != types.ServiceDeploymentStatusInProgress || *d.TargetServiceRevision.RequestedProductionTrafficWeight != 0 {
		t.Errorf("a paused deployment is %s with %g %% of the traffic", d.Status, *d.TargetServiceRevision.RequestedProductionTrafficWeight)
	}
	w.must(nil, w.goOn(second, *hook.HookId, ""))
	next := w.paused(second)
	if *next.HookId == *hook.HookId {
		t.Error("the second step has the hook of the first")
	}
	if d := w.look(second); *d.TargetServiceRevision.RequestedProductionTrafficWeight != 10 {
		t.Errorf("at the second pause the target has %g %% of the traffic", *d.TargetServiceRevision.RequestedProductionTrafficWeight)
	}
	for want, err := range map[string]error{
		"Invalid hookId: hookId must follow the format: ecs-{hookType}-{id}": w.goOn(second, "pause", ""),
		"Provided hookId is either completed, unavailable":                   w.goOn(second, *hook.HookId, ""),
		"The service deployment does not exist.":                             w.goOn(strings.Replace(second, "/s/", "/other/", 1), *next.HookId, ""),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	w.must(nil, w.goOn(second, *next.HookId, types.DeploymentLifecycleHookActionRollback))
	d = w.ends(second, types.ServiceDeploymentStatusRollbackSuccessful)
	if *d.StatusReason != "Service deployment rolled back because a user requested it." {
		t.Errorf("the reason is %s", *d.StatusReason)
	}
	if err := w.goOn(second, *next.HookId, ""); err == nil || !strings.Contains(err.Error(), "not allowed for service deployment in terminal states") {
		t.Errorf("continuing what is over gives %v", err)
	}
}

func TestAPauseThatNobodyAnswersTimesOut(t *testing.T) {
	w := newWorld(t)
	c := canary()
	first, err := w.create("1", c)
	w.must(nil, err)
	w.ends(first, types.ServiceDeploymentStatusSuccessful)
	hooks := pauseAt(types.DeploymentLifecycleHookStagePostScaleUp)
	hooks[0].TimeoutConfiguration = &types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: new(int32(2))}
	_, err = w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: hooks}})
	w.must(nil, err)
	second := w.update("2")
	d := w.ends(second, types.ServiceDeploymentStatusRollbackSuccessful)
	if *d.StatusReason != "Service deployment rolled back because POST_SCALE_UP pause hook timed out." || len(d.LifecycleHookDetails) != 1 || d.LifecycleHookDetails[0].Status != types.DeploymentLifecycleHookStatusTimedOut {
		t.Errorf("it ended with %s, %+v", *d.StatusReason, d.LifecycleHookDetails)
	}
}

func TestHooksThatAreNone(t *testing.T) {
	w := newWorld(t)
	of := func(change func(*types.DeploymentConfiguration)) error {
		c := canary()
		c.LifecycleHooks = pauseAt(types.DeploymentLifecycleHookStagePostScaleUp)
		change(c)
		_, err := w.create("1", c)
		return err
	}
	for want, err := range map[string]error{
		"Member must satisfy enum value set: [AWS_LAMBDA, PAUSE]": of(func(c *types.DeploymentConfiguration) { c.LifecycleHooks[0].TargetType = "BELL" }),
		"Lifecycle stage cannot be null or empty":                 of(func(c *types.DeploymentConfiguration) { c.LifecycleHooks[0].LifecycleStages = nil }),
		"Invalid lifecycle stage provided for Pause Hook": of(func(c *types.DeploymentConfiguration) {
			c.LifecycleHooks = pauseAt(types.DeploymentLifecycleHookStageProductionTrafficShift)
		}),
		"timeoutInMinutes must be between 1 and 20160": of(func(c *types.DeploymentConfiguration) {
			c.LifecycleHooks[0].TimeoutConfiguration = &types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: new(int32(20161))}
		}),
		"AWS_LAMBDA is not performed yet": of(func(c *types.DeploymentConfiguration) { c.LifecycleHooks[0].TargetType = "" }),
		"lifecycleHooks need a strategy": of(func(c *types.DeploymentConfiguration) {
			c.Strategy, c.CanaryConfiguration = types.DeploymentStrategyRolling, nil
		}),
		"at most 10 hooks": of(func(c *types.DeploymentConfiguration) {
			for range 10 {
				c.LifecycleHooks = append(c.LifecycleHooks, c.LifecycleHooks[0])
			}
		}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
