package ecsd

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/rollout"
	"serin/internal/store"
	"serin/internal/wire"
)

// Limits of lifecycle hooks, documented.
const (
	mostPauses       = 10
	longestPause     = 20160 // minutes: a fortnight
	pauseUnlessGiven = 1440
)

// mergeHooks fills in what a hook does not say, documented. What is sent replaces
// all that was there.
func mergeHooks(in []types.DeploymentLifecycleHook) []types.DeploymentLifecycleHook {
	out := []types.DeploymentLifecycleHook{}
	for _, h := range in {
		t := types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: new(int32(pauseUnlessGiven)), Action: types.DeploymentLifecycleHookActionRollback}
		if given := h.TimeoutConfiguration; given != nil {
			if given.TimeoutInMinutes != nil {
				t.TimeoutInMinutes = given.TimeoutInMinutes
			}
			if given.Action != "" {
				t.Action = given.Action
			}
		}
		h.TimeoutConfiguration = &t
		if h.TargetType == "" {
			h.TargetType = types.DeploymentLifecycleHookTargetTypeAwsLambda
		}
		out = append(out, h)
	}
	return out
}

// checkHooks validates the lifecycle hooks of a configuration, in ECS's words
// where they are known.
func checkHooks(c types.DeploymentConfiguration) error {
	if len(c.LifecycleHooks) > 0 && c.Strategy == types.DeploymentStrategyRolling {
		return invalid("lifecycleHooks need a strategy with lifecycle stages: BLUE_GREEN, CANARY or LINEAR")
	}
	if n := len(c.LifecycleHooks); n > mostPauses {
		return invalid("lifecycleHooks can have at most %d hooks of targetType PAUSE, got %d", mostPauses, n)
	}
	for _, h := range c.LifecycleHooks {
		switch t := h.TimeoutConfiguration; {
		case h.TargetType == types.DeploymentLifecycleHookTargetTypeAwsLambda:
			return invalid("Serin performs lifecycle hooks of targetType PAUSE; AWS_LAMBDA is not performed yet.")
		case len(h.LifecycleStages) == 0:
			return invalid("Lifecycle stage cannot be null or empty for any deployment lifecycle hooks")
		case *t.TimeoutInMinutes < 1 || *t.TimeoutInMinutes > longestPause:
			return invalid("timeoutInMinutes must be between 1 and %d for a hook of targetType PAUSE, got %d", longestPause, *t.TimeoutInMinutes)
		}
		for _, stage := range h.LifecycleStages {
			if stage == types.DeploymentLifecycleHookStageTestTrafficShift || stage == types.DeploymentLifecycleHookStageProductionTrafficShift {
				return invalid("Invalid lifecycle stage provided for Pause Hook")
			}
		}
	}
	return nil
}

// rolloutHooks is the hooks in the words of the decision.
func rolloutHooks(list []types.DeploymentLifecycleHook) *rollout.Hooks {
	if len(list) == 0 {
		return nil
	}
	out := &rollout.Hooks{}
	for _, h := range list {
		hook := rollout.Hook{
			Pause: true, Timeout: time.Duration(*h.TimeoutConfiguration.TimeoutInMinutes) * time.Minute, Continue: h.TimeoutConfiguration.Action == types.DeploymentLifecycleHookActionContinue,
		}
		for _, stage := range h.LifecycleStages {
			hook.Stages = append(hook.Stages, rollout.Stage(stage))
		}
		out.List = append(out.List, hook)
	}
	return out
}

// hookID names a call of a deployment's hook, in the observed form. It follows
// from the call, so that nothing needs to remember it.
func hookID(d deployment, c rollout.Call) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %d", d.ARN, c.Hook, c.Stage, c.Step))
	return "ecs-pause-" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// hookStatus is what ECS calls the state of a pause.
var hookStatus = map[rollout.CallStatus]types.DeploymentLifecycleHookStatus{
	rollout.Waiting: types.DeploymentLifecycleHookStatusAwaitingAction, rollout.Succeeded: types.DeploymentLifecycleHookStatusSucceeded,
	rollout.CallFailed: types.DeploymentLifecycleHookStatusFailed, rollout.TimedOut: types.DeploymentLifecycleHookStatusTimedOut,
}

// hookDetails is the deployment's hooks so far.
func hookDetails(d deployment) (list []types.DeploymentLifecycleHookDetail) {
	if d.State.Calls == nil {
		return nil
	}
	for _, c := range d.State.Calls.List {
		v := types.DeploymentLifecycleHookDetail{
			HookId: new(hookID(d, c)), TargetType: types.DeploymentLifecycleHookTargetTypePause, Status: hookStatus[c.Status], ExpiresAt: new(c.Expires), TimeoutAction: types.DeploymentLifecycleHookActionRollback,
		}
		if d.State.Config.Hooks.List[c.Hook].Continue {
			v.TimeoutAction = types.DeploymentLifecycleHookActionContinue
		}
		list = append(list, v)
	}
	return list
}

var hookIDForm = regexp.MustCompile(`^ecs-[a-z]+-[A-Za-z0-9_-]+$`)

// ContinueServiceDeployment answers a pause: on, or back.
func (a *API) ContinueServiceDeployment(ctx context.Context, in *ecs.ContinueServiceDeploymentInput) (*ecs.ContinueServiceDeploymentOutput, error) {
	name, hook := aws.ToString(in.ServiceDeploymentArn), aws.ToString(in.HookId)
	if !hookIDForm.MatchString(hook) {
		return nil, invalid("Invalid hookId: hookId must follow the format: ecs-{hookType}-{id}")
	}
	err := a.store.Update(func(tx *store.Tx) error {
		d, ok := a.deployments.Get(tx, deploymentKey(name))
		if !ok || !within(wire.From(ctx).Scope, deploymentKey(name)) {
			return &types.ServiceDeploymentNotFoundException{Message: new("The service deployment does not exist.")}
		}
		if d.State.Status.Terminal() {
			return invalid("Continuing a service deployment is not allowed for service deployment in terminal states.")
		}
		answer, ok := d.answer(hook)
		if !ok {
			return invalid("Provided hookId is either completed, unavailable, or not associated with the given Resource ARN")
		}
		if answer.OK = in.Action != types.DeploymentLifecycleHookActionRollback; !answer.OK {
			answer.Reason = "a user requested it."
		}
		d.Answers, d.Updated = append(slices.Clone(d.Answers), answer), a.clock.Now()
		a.deployments.Put(tx, deploymentKey(name), d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.ContinueServiceDeploymentOutput{ServiceDeploymentArn: &name}, nil
}

// answer is the beginning of an answer to a call that waits and has none yet.
func (d deployment) answer(hook string) (rollout.Answer, bool) {
	if d.State.Calls == nil {
		return rollout.Answer{}, false
	}
	for _, c := range d.State.Calls.List {
		given := slices.ContainsFunc(d.Answers, func(a rollout.Answer) bool { return a.To(c) })
		if c.Status == rollout.Waiting && hookID(d, c) == hook && !given {
			return rollout.Answer{Hook: c.Hook, Stage: c.Stage, Step: c.Step, Back: c.Back}, true
		}
	}
	return rollout.Answer{}, false
}
