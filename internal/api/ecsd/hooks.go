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

// Limits of lifecycle hooks, documented; times are in minutes.
const (
	mostOfAKind     = 10
	longestPause    = 20160 // a fortnight
	longestFunction = 1440
	hookUnlessGiven = 1440
)

// mergeHooks fills in what a hook does not say, documented. What is sent replaces
// all that was there.
func mergeHooks(in []types.DeploymentLifecycleHook) []types.DeploymentLifecycleHook {
	out := []types.DeploymentLifecycleHook{}
	for _, h := range in {
		t := types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: new(int32(hookUnlessGiven)), Action: types.DeploymentLifecycleHookActionRollback}
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
	kinds := map[types.DeploymentLifecycleHookTargetType]int{}
	for _, h := range c.LifecycleHooks {
		kinds[h.TargetType]++
		longest := int32(longestPause)
		if isLambda(h) {
			longest = longestFunction
		}
		target, role, minutes := aws.ToString(h.HookTargetArn), aws.ToString(h.RoleArn), *h.TimeoutConfiguration.TimeoutInMinutes
		switch {
		case len(h.LifecycleStages) == 0:
			return invalid("Lifecycle stage cannot be null or empty for any deployment lifecycle hooks")
		case isLambda(h) && (target == "" || role == ""):
			return invalid("Role arn or Hook Target arn is missing for one or more deployment lifecycle hooks")
		case isLambda(h) && !functionARN.MatchString(target):
			return invalid("hookTargetArn '%s' is not the ARN of a Lambda function", target)
		case !isLambda(h) && (target != "" || role != "" || h.HookDetails != nil):
			return invalid("hookTargetArn, roleArn and hookDetails cannot be given with targetType PAUSE")
		case h.HookDetails != nil && objectOf(h.HookDetails) == nil:
			return invalid("hookDetails must be a JSON object")
		case minutes < 1 || minutes > longest:
			return invalid("timeoutInMinutes must be between 1 and %d for a hook of targetType %s, got %d", longest, h.TargetType, minutes)
		case kinds[h.TargetType] > mostOfAKind:
			return invalid("lifecycleHooks can have at most %d hooks of targetType %s", mostOfAKind, h.TargetType)
		}
		for _, stage := range h.LifecycleStages {
			if !isLambda(h) && (stage == types.DeploymentLifecycleHookStageTestTrafficShift || stage == types.DeploymentLifecycleHookStageProductionTrafficShift) {
				return invalid("Invalid lifecycle stage provided for Pause Hook")
			}
		}
	}
	return nil
}

var functionARN = regexp.MustCompile(`^arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]+(:[A-Za-z0-9_$-]+)?$`)

// rolloutHooks is the hooks in the words of the decision.
func rolloutHooks(list []types.DeploymentLifecycleHook) *rollout.Hooks {
	if len(list) == 0 {
		return nil
	}
	out := &rollout.Hooks{}
	for _, h := range list {
		hook := rollout.Hook{
			Pause: !isLambda(h), Timeout: time.Duration(*h.TimeoutConfiguration.TimeoutInMinutes) * time.Minute, Continue: h.TimeoutConfiguration.Action == types.DeploymentLifecycleHookActionContinue,
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
	kind := "pause"
	if !d.State.Config.Hooks.List[c.Hook].Pause {
		kind = "lambda"
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %d %t", d.ARN, c.Hook, c.Stage, c.Step, c.Back))
	return "ecs-" + kind + "-" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// hookStatus is what ECS calls the state of a call; a function's is in progress
// where a pause waits.
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
		for _, a := range d.Answers { // one that the controller has not looked at yet is given all the same
			if c.Status == rollout.Waiting && a.To(c) {
				if c.Status = rollout.CallFailed; a.OK {
					c.Status = rollout.Succeeded
				}
			}
		}
		v := types.DeploymentLifecycleHookDetail{
			HookId: new(hookID(d, c)), TargetType: types.DeploymentLifecycleHookTargetTypePause, Status: hookStatus[c.Status], ExpiresAt: new(c.Expires), TimeoutAction: types.DeploymentLifecycleHookActionRollback,
		}
		if !d.State.Config.Hooks.List[c.Hook].Pause {
			v.TargetType, v.TargetArn = types.DeploymentLifecycleHookTargetTypeAwsLambda, d.Config.LifecycleHooks[c.Hook].HookTargetArn
			if c.Status == rollout.Waiting {
				v.Status = types.DeploymentLifecycleHookStatusInProgress
			}
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
		if c.Status == rollout.Waiting && d.State.Config.Hooks.List[c.Hook].Pause && hookID(d, c) == hook && !d.answered(c) {
			return rollout.Answer{Hook: c.Hook, Stage: c.Stage, Step: c.Step, Back: c.Back}, true
		}
	}
	return rollout.Answer{}, false
}
