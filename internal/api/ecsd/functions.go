package ecsd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/id"
	"serin/internal/rollout"
	"serin/internal/store"
)

// Lambda hooks: each call that waits is a function to be invoked, again and again
// while it says that it is in progress. Documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-lifecycle-hooks.html

// invocation is how far a call of a function is.
type invocation struct {
	Hook  int
	Stage rollout.Stage
	Step  int
	Back  bool
	ID    string    // executionId
	Next  time.Time // stage time; not before that
}

func (i invocation) of(c rollout.Call) bool {
	return i.Hook == c.Hook && i.Stage == c.Stage && i.Step == c.Step && i.Back == c.Back
}

// What a function may take, and when it is asked again if it does not say,
// documented.
const (
	longestInvocation = 15 * time.Minute // wall time: a stand-in is a program like any other
	askAgain          = 30 * time.Second // stage time
)

// hookEvent is what a function is invoked with.
type hookEvent struct {
	ExecutionID      string                     `json:"executionId"`
	LifecycleStage   rollout.Stage              `json:"lifecycleStage"`
	ResourceARN      string                     `json:"resourceArn"`
	ExecutionDetails executionDetails           `json:"executionDetails"`
	HookDetails      map[string]json.RawMessage `json:"hookDetails,omitempty"`
}

type executionDetails struct {
	ServiceARN               string             `json:"serviceArn"`
	TargetServiceRevisionARN string             `json:"targetServiceRevisionArn"`
	TestTrafficWeights       map[string]float64 `json:"testTrafficWeights"`
	ProductionTrafficWeights map[string]float64 `json:"productionTrafficWeights"`
}

// hookAnswer is what a function says. The delay has two names in AWS's documents.
type hookAnswer struct {
	HookStatus           string                     `json:"hookStatus"`
	CallBackDelay        *float64                   `json:"callBackDelay"`
	CallBackDelaySeconds *float64                   `json:"callBackDelaySeconds"`
	HookDetails          map[string]json.RawMessage `json:"hookDetails"`
}

// Invoke is the one loop for the functions of all deployments, until ctx ends.
func (a *API) Invoke(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	defer a.store.Watch(wake, a.deployments)()
	var running sync.WaitGroup
	defer running.Wait()
	var mu sync.Mutex
	busy := map[string]bool{}
	for {
		var next time.Time
		now := a.clock.Now()
		for _, d := range a.calling() {
			for _, c := range d.State.Calls.List {
				if c.Status != rollout.Waiting || d.State.Config.Hooks.List[c.Hook].Pause || d.answered(c) {
					continue
				}
				if at := d.invocation(c).Next; at.After(now) {
					next = clock.Sooner(next, at)
					continue
				}
				key := fmt.Sprint(d.ARN, c.Hook, c.Stage, c.Step, c.Back)
				mu.Lock()
				taken := busy[key]
				busy[key] = true
				mu.Unlock()
				if taken {
					continue
				}
				running.Go(func() {
					err := a.invoke(ctx, d, c)
					mu.Lock()
					delete(busy, key)
					mu.Unlock()
					if err != nil {
						a.log.Error("keeping a hook's answer", "deployment", d.ARN, "error", err)
						return
					}
					clock.Poke(wake) // its next time may have come already
				})
			}
		}
		if _, err := a.clock.Wait(ctx, next, wake); err != nil {
			return nil
		}
	}
}

// callingLabel is of every deployment that has called hooks and is not over.
const callingLabel = "calling"

func (a *API) calling() (list []deployment) {
	a.store.View(func(tx *store.Tx) {
		for _, d := range a.watching.Scan(tx, callingLabel) {
			list = append(list, d)
		}
	})
	return list
}

func (d deployment) answered(c rollout.Call) bool {
	return slices.ContainsFunc(d.Answers, func(a rollout.Answer) bool { return a.To(c) })
}

func (d deployment) invocation(c rollout.Call) invocation {
	if i := slices.IndexFunc(d.Invocations, func(i invocation) bool { return i.of(c) }); i >= 0 {
		return d.Invocations[i]
	}
	return invocation{Hook: c.Hook, Stage: c.Stage, Step: c.Step, Back: c.Back, ID: id.UUID()}
}

// invoke asks a function once, and keeps what it says.
func (a *API) invoke(ctx context.Context, d deployment, c rollout.Call) error {
	i := d.invocation(c)
	answer, err := a.ask(ctx, d, c, i)
	if ctx.Err() != nil {
		return ctx.Err() // the stage ends; the next one asks again
	}
	say := rollout.Answer{Hook: c.Hook, Stage: c.Stage, Step: c.Step, Back: c.Back, OK: err == nil}
	if err != nil {
		say.Reason = string(c.Stage) + " lifecycle hook(s) failed. " + err.Error()
	}
	return a.store.Update(func(tx *store.Tx) error {
		d, ok := a.deployments.Get(tx, deploymentKey(d.ARN))
		if !ok || d.State.Status.Terminal() || d.answered(c) {
			return nil // it is over without the answer
		}
		if err == nil && len(answer.HookDetails) > 0 {
			said := maps.Clone(d.Said)
			if said == nil {
				said = details{}
			}
			said[c.Hook] = merged(said[c.Hook], answer.HookDetails)
			d.Said = said
		}
		if err == nil && answer.HookStatus == "IN_PROGRESS" {
			i.Next = a.clock.Now().Add(answer.delay())
			d.Invocations = append(slices.DeleteFunc(slices.Clone(d.Invocations), func(i invocation) bool { return i.of(c) }), i)
		} else {
			d.Answers = append(slices.Clone(d.Answers), say)
		}
		d.Updated = a.clock.Now()
		a.deployments.Put(tx, deploymentKey(d.ARN), d)
		return nil
	})
}

func (h hookAnswer) delay() time.Duration {
	for _, seconds := range []*float64{h.CallBackDelay, h.CallBackDelaySeconds} {
		if seconds != nil && *seconds > 0 {
			return time.Duration(min(*seconds, 86400) * float64(time.Second))
		}
	}
	return askAgain
}

// ask invokes a function as the hook's role. The error is why the hook failed, in
// ECS's words where they are known.
func (a *API) ask(ctx context.Context, d deployment, c rollout.Call, i invocation) (answer hookAnswer, err error) {
	hook := d.Config.LifecycleHooks[c.Hook]
	target, role := *hook.HookTargetArn, *hook.RoleArn
	scope, path := arn.ParseKey(d.Service)
	as := Actor{Role: role, Service: ecsService, Session: "ECSDeploymentLifecycleHook", Source: scope.For("ecs", "service/"+path).String()}
	if a.deps.Roles.Check(as, "", "") != nil {
		return answer, fmt.Errorf("ECS was unable to assume role %s", role)
	}
	if err := a.deps.Roles.Check(as, "lambda:InvokeFunction", target); err != nil {
		return answer, fmt.Errorf("ECS was unable to invoke hook target %s due to %w", target, err)
	}
	payload, err := json.Marshal(hookEvent{ExecutionID: i.ID, LifecycleStage: c.Stage, ResourceARN: d.ARN, ExecutionDetails: a.executionDetails(d, c), HookDetails: merged(d.HookDetails[c.Hook], d.Said[c.Hook])})
	if err != nil {
		return answer, err
	}
	ctx, cancel := context.WithTimeout(ctx, longestInvocation)
	defer cancel()
	raw, err := a.deps.Function(ctx, target, payload)
	if err != nil {
		return answer, fmt.Errorf("ECS was unable to invoke hook target %s due to %w", target, err)
	}
	unreadable := func(why string) error {
		return fmt.Errorf("ECS was unable to parse the response from %s due to %s", target, why)
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return answer, unreadable(err.Error())
	}
	switch answer.HookStatus {
	case "SUCCEEDED", "IN_PROGRESS":
		return answer, nil
	case "FAILED":
		return answer, fmt.Errorf("%s", "Lifecycle hook target "+target+" returned FAILED status.")
	case "":
		return answer, unreadable("HookStatus must not be null")
	}
	return answer, unreadable(fmt.Sprintf("HookStatus must be SUCCEEDED, FAILED or IN_PROGRESS, got '%s'", answer.HookStatus))
}

// executionDetails tells a function what is deployed, and at the traffic's stages
// the weights: those asked for while it moves, the present ones before it does.
func (a *API) executionDetails(d deployment, c rollout.Call) executionDetails {
	scope, path := arn.ParseKey(d.Service)
	e := executionDetails{
		ServiceARN: scope.For("ecs", "service/"+path).String(), TargetServiceRevisionARN: d.Target,
		TestTrafficWeights: map[string]float64{}, ProductionTrafficWeights: map[string]float64{},
	}
	weigh := func(into map[string]float64, target rollout.Permille) {
		into[d.Target] = float64(target) / 10
		if d.Source != "" {
			into[d.Source] = float64(rollout.All-target) / 10
		}
	}
	switch c.Stage {
	case rollout.TestShift:
		weigh(e.TestTrafficWeights, d.State.Test)
	case rollout.PreProduction, rollout.ProductionShift:
		weigh(e.ProductionTrafficWeights, d.State.Production)
	}
	return e
}

// isLambda says that a hook's target is a function.
func isLambda(h types.DeploymentLifecycleHook) bool {
	return h.TargetType == types.DeploymentLifecycleHookTargetTypeAwsLambda
}
