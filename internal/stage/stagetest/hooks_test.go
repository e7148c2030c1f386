package stagetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
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
	bubble(t, nil, func(t *testing.T, w *world) {
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
	})
}

func TestAPauseThatNobodyAnswersTimesOut(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
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
	})
}

func TestHooksThatAreNone(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		of := func(change func(*types.DeploymentConfiguration)) error {
			c := canary()
			c.LifecycleHooks = pauseAt(types.DeploymentLifecycleHookStagePostScaleUp)
			change(c)
			_, err := w.create("1", c)
			return err
		}
		for want, err := range map[string]error{
			"Invalid targetType. Valid values are: AWS_LAMBDA, PAUSE": of(func(c *types.DeploymentConfiguration) { c.LifecycleHooks[0].TargetType = "BELL" }),
			"Lifecycle stage cannot be null or empty":                 of(func(c *types.DeploymentConfiguration) { c.LifecycleHooks[0].LifecycleStages = nil }),
			"Invalid lifecycle stage provided for Pause Hook": of(func(c *types.DeploymentConfiguration) {
				c.LifecycleHooks = pauseAt(types.DeploymentLifecycleHookStageProductionTrafficShift)
			}),
			"timeoutInMinutes must be between 1 and 20160": of(func(c *types.DeploymentConfiguration) {
				c.LifecycleHooks[0].TimeoutConfiguration = &types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: new(int32(20161))}
			}),
			"Role arn or Hook Target arn is missing": of(func(c *types.DeploymentConfiguration) { c.LifecycleHooks[0].TargetType = "" }),
			"is not the ARN of a Lambda function": of(func(c *types.DeploymentConfiguration) {
				c.LifecycleHooks = functionAt("arn:aws:lambda:us-east-1:111111111111:layer:x", types.DeploymentLifecycleHookStagePreScaleUp)
			}),
			"between 1 and 1440": of(func(c *types.DeploymentConfiguration) {
				c.LifecycleHooks = functionAt(checker, types.DeploymentLifecycleHookStagePreScaleUp)
				c.LifecycleHooks[0].TimeoutConfiguration = &types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: new(int32(1441))}
			}),
			"cannot be given with targetType PAUSE": of(func(c *types.DeploymentConfiguration) {
				c.LifecycleHooks[0].RoleArn = new("arn:aws:iam::" + Account + ":role/hooks")
			}),
			"lifecycleHooks need a strategy": of(func(c *types.DeploymentConfiguration) {
				c.Strategy, c.CanaryConfiguration = types.DeploymentStrategyRolling, nil
			}),
			"at most 10 hooks": of(func(c *types.DeploymentConfiguration) {
				for range 10 { // and the one that is there
					c.LifecycleHooks = append(c.LifecycleHooks, c.LifecycleHooks[0])
				}
			}),
		} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", want, err)
			}
		}
	})
}

const checker = "arn:aws:lambda:us-east-1:" + Account + ":function:check"

func functionAt(target string, stages ...types.DeploymentLifecycleHookStage) []types.DeploymentLifecycleHook {
	return []types.DeploymentLifecycleHook{{TargetType: types.DeploymentLifecycleHookTargetTypeAwsLambda, HookTargetArn: &target, RoleArn: new("arn:aws:iam::" + Account + ":role/hooks"), LifecycleStages: stages}}
}

// hooksRole makes the role that functions are invoked as.
func (w *world) hooksRole(action string) {
	w.t.Helper()
	ctx := w.t.Context()
	w.must(w.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("hooks"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
	w.must(w.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("hooks"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"` + action + `","Resource":"*"}]}`)}))
}

// heard is what a function was told.
type heard struct {
	ExecutionID      string `json:"executionId"`
	LifecycleStage   string
	ResourceARN      string `json:"resourceArn"`
	ExecutionDetails struct {
		ServiceARN               string `json:"serviceArn"`
		TargetServiceRevisionARN string `json:"targetServiceRevisionArn"`
		TestTrafficWeights       map[string]float64
		ProductionTrafficWeights map[string]float64
	}
	HookDetails map[string]any
}

func TestFunctionsSeeTheDeploymentThrough(t *testing.T) {
	var mu sync.Mutex
	var calls []heard
	fail := ""
	bubble(t, func(_ context.Context, functionARN string, event []byte) ([]byte, error) {
		var h heard
		if err := json.Unmarshal(event, &h); err != nil || functionARN != checker {
			t.Errorf("%s is told %s: %v", functionARN, event, err)
		}
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, h)
		switch {
		case h.LifecycleStage == fail:
			return []byte(`{"hookStatus":"FAILED","reason":"not today"}`), nil
		case h.LifecycleStage == "POST_SCALE_UP" && h.HookDetails["asked"] == nil: // once more, with what it says now
			return []byte(`{"hookStatus":"IN_PROGRESS","callBackDelay":5,"hookDetails":{"asked":true}}`), nil
		}
		return []byte(`{"hookStatus":"SUCCEEDED"}`), nil
	}, func(t *testing.T, w *world) {
		w.hooksRole("lambda:InvokeFunction")
		first, err := w.create("1", canary())
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		_, err = w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{
			LifecycleHooks: functionAt(checker, types.DeploymentLifecycleHookStagePostScaleUp, types.DeploymentLifecycleHookStagePreProductionTrafficShift, types.DeploymentLifecycleHookStageProductionTrafficShift)}})
		w.must(nil, err)

		second := w.update("2")
		d := w.ends(second, types.ServiceDeploymentStatusSuccessful)
		target, source := *d.TargetServiceRevision.Arn, *d.SourceServiceRevisions[0].Arn
		mu.Lock()
		var told []string
		for _, h := range calls {
			if h.ResourceARN != second || h.ExecutionDetails.TargetServiceRevisionARN != target || h.ExecutionID == "" || len(h.ExecutionDetails.TestTrafficWeights) != 0 {
				t.Errorf("a function is told %+v", h)
			}
			p := h.ExecutionDetails.ProductionTrafficWeights
			told = append(told, fmt.Sprintf("%s %g/%g", h.LifecycleStage, p[source], p[target]))
		}
		want := "[POST_SCALE_UP 0/0 POST_SCALE_UP 0/0 PRE_PRODUCTION_TRAFFIC_SHIFT 100/0 PRODUCTION_TRAFFIC_SHIFT 90/10 PRE_PRODUCTION_TRAFFIC_SHIFT 90/10 PRODUCTION_TRAFFIC_SHIFT 0/100]"
		if fmt.Sprint(told) != want {
			t.Errorf("functions were called at\n%v, want\n%s", told, want)
		}
		calls, fail = nil, "PRODUCTION_TRAFFIC_SHIFT"
		mu.Unlock()
		for _, h := range d.LifecycleHookDetails {
			if h.Status != types.DeploymentLifecycleHookStatusSucceeded || h.TargetType != types.DeploymentLifecycleHookTargetTypeAwsLambda || *h.TargetArn != checker {
				t.Errorf("a hook ended as %+v", h)
			}
		}

		third := w.update("3")
		d = w.ends(third, types.ServiceDeploymentStatusRollbackSuccessful)
		if want := "Service deployment rolled back because PRODUCTION_TRAFFIC_SHIFT lifecycle hook(s) failed. Lifecycle hook target " + checker + " returned FAILED status."; *d.StatusReason != want {
			t.Errorf("the reason is %s, want %s", *d.StatusReason, want)
		}
		mu.Lock()
		last := calls[len(calls)-1]
		mu.Unlock()
		if p := last.ExecutionDetails.ProductionTrafficWeights; last.LifecycleStage != "PRODUCTION_TRAFFIC_SHIFT" || p[*d.TargetServiceRevision.Arn] != 0 || p[*d.SourceServiceRevisions[0].Arn] != 100 {
			t.Errorf("on the way back a function is told %+v", last)
		}
	})
}

func TestFunctionsThatCannotBeAsked(t *testing.T) {
	answers := map[string]string{"POST_SCALE_UP": `{"hookStatus":null}`}
	bubble(t, func(_ context.Context, _ string, event []byte) ([]byte, error) {
		var h heard
		if err := json.Unmarshal(event, &h); err != nil {
			return nil, err
		}
		if a, ok := answers[h.LifecycleStage]; ok {
			return []byte(a), nil
		}
		return nil, errors.New("Function not found")
	}, func(t *testing.T, w *world) {
		first, err := w.create("1", canary())
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		reason := func(tag string, stage types.DeploymentLifecycleHookStage) string {
			t.Helper()
			_, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: functionAt(checker, stage)}})
			w.must(nil, err)
			return *w.ends(w.update(tag), types.ServiceDeploymentStatusRollbackSuccessful).StatusReason
		}
		const because = "Service deployment rolled back because "
		if got := reason("2", types.DeploymentLifecycleHookStagePreScaleUp); got != because+"PRE_SCALE_UP lifecycle hook(s) failed. ECS was unable to assume role arn:aws:iam::"+Account+":role/hooks" {
			t.Errorf("without a role: %s", got)
		}
		w.hooksRole("lambda:GetFunction")
		if got := reason("3", types.DeploymentLifecycleHookStagePreScaleUp); !strings.Contains(got, "ECS was unable to invoke hook target "+checker+" due to User: arn:aws:sts::"+Account+":assumed-role/hooks/") || !strings.Contains(got, "is not authorized to perform: lambda:InvokeFunction on resource: "+checker) {
			t.Errorf("without permission: %s", got)
		}
		w.must(w.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("hooks"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"lambda:*","Resource":"*"}]}`)}))
		if got := reason("4", types.DeploymentLifecycleHookStagePreScaleUp); !strings.HasSuffix(got, "due to Function not found") {
			t.Errorf("without a function: %s", got)
		}
		if got := reason("5", types.DeploymentLifecycleHookStagePostScaleUp); !strings.HasSuffix(got, "ECS was unable to parse the response from "+checker+" due to HookStatus must not be null") {
			t.Errorf("with half an answer: %s", got)
		}
	})
}
