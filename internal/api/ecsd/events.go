package ecsd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/events"
	"serin/internal/rollout"
	"serin/internal/store"
	"serin/internal/wire"
)

// What ECS tells EventBridge, put into the log in the transaction of the change.
// The forms are documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_cwe_events.html

// event appends an event of ECS about a resource of the row's scope.
func (a *API) event(tx *store.Tx, near, detailType string, at time.Time, detail any, resources ...string) {
	scope, _ := arn.ParseKey(near)
	a.deps.Events.Append(tx, events.New("aws.ecs", detailType, scope, at, detailJSON(detail), resources...))
}

func detailJSON(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("ecsd: the detail of an event: %v", err))
	}
	return raw
}

// tellTask tells a task as DescribeTasks does, but for its times, its attachments'
// type and the time of the change; documented.
func (a *API) tellTask(tx *store.Tx, key string, t task, at time.Time) {
	scope, _ := arn.ParseKey(key)
	v := a.taskView(tx, scope, t)
	v.Tags = nil
	for i := range v.Attachments {
		v.Attachments[i].Type = new("eni")
	}
	a.event(tx, key, "ECS Task State Change", at, a.told(v, "updatedAt", wire.ISO(at)), *v.TaskArn)
}

// told is a view as events hold it, with more names and values, which the SDK's type
// does not have.
func (a *API) told(view any, more ...string) json.RawMessage {
	detail := a.naming.JSON(view)
	detail = detail[:len(detail)-1]
	for i := 0; i < len(more); i += 2 {
		detail = append(append(append(detail, ','), detailJSON(more[i])...), ':')
		detail = append(detail, detailJSON(more[i+1])...)
	}
	return append(detail, '}')
}

// deploymentDetail is of an ECS Deployment State Change.
type deploymentDetail struct {
	EventType    string `json:"eventType"`
	EventName    string `json:"eventName"`
	DeploymentID string `json:"deploymentId"`
	UpdatedAt    string `json:"updatedAt"`
	Reason       string `json:"reason"`
}

// The reasons of a deployment's state, observed; the second failure is guessed.
func inProgress(legacy string) string { return "ECS deployment " + legacy + " in progress." }
func completed(legacy string) string  { return "ECS deployment " + legacy + " completed." }
func rollingBack(legacy string) string {
	return "ECS deployment circuit breaker: rolling back to deploymentId " + legacy + "."
}

const (
	breakerFailed = "ECS deployment circuit breaker: tasks failed to start."
	otherwise     = "ECS deployment failed: "
)

// tellDeployment tells what a decision did. A failure is told whatever failed,
// which is guessed: AWS documents it for the circuit breaker and alarms.
func (c *control) tellDeployment(kind rollout.EventKind, reason string, source, target revision) {
	d := deploymentDetail{EventType: "INFO", UpdatedAt: wire.ISO(c.now)}
	switch kind {
	case rollout.Began:
		d.EventName, d.DeploymentID, d.Reason = "SERVICE_DEPLOYMENT_IN_PROGRESS", target.Legacy, inProgress(target.Legacy)
	case rollout.Completed:
		d.EventName, d.DeploymentID, d.Reason = "SERVICE_DEPLOYMENT_COMPLETED", target.Legacy, completed(target.Legacy)
	case rollout.Failed:
		d.EventType, d.EventName, d.DeploymentID, d.Reason = "ERROR", "SERVICE_DEPLOYMENT_FAILED", target.Legacy, otherwise+reason
		if c.d.State.Monitor == rollout.Triggered {
			d.Reason = breakerFailed
		}
	case rollout.RollingBack:
		d.EventName, d.DeploymentID, d.Reason = "SERVICE_DEPLOYMENT_IN_PROGRESS", source.Legacy, rollingBack(source.Legacy)
	case rollout.RolledBack:
		d.EventName, d.DeploymentID, d.Reason = "SERVICE_DEPLOYMENT_COMPLETED", source.Legacy, completed(source.Legacy)
	default:
		return
	}
	c.event(c.tx, c.key, "ECS Deployment State Change", c.now, d, serviceOf(c.key))
}

// serviceOf is the ARN of the service at a key.
func serviceOf(key string) string {
	scope, path := arn.ParseKey(key)
	return scope.For("ecs", "service/"+path).String()
}

// clusterOf is the ARN of the cluster of the service at a key.
func clusterOf(key string) string {
	return clusterARN(arn.ParseKey(clusterKey(key)))
}

// serviceAction is what a service's scheduler did, or could not do.
type serviceAction string

const (
	steadyState          serviceAction = "SERVICE_STEADY_STATE"
	setSteady            serviceAction = "TASKSET_STEADY_STATE"
	desiredUpdated       serviceAction = "SERVICE_DESIRED_COUNT_UPDATED"
	tasksStopped         serviceAction = "TASKS_STOPPED"
	startImpaired        serviceAction = "SERVICE_TASK_START_IMPAIRED"
	placementFailure     serviceAction = "SERVICE_TASK_PLACEMENT_FAILURE"
	configurationFailure serviceAction = "SERVICE_TASK_CONFIGURATION_FAILURE"
)

// actionTypes are the event types of the actions, documented.
var actionTypes = map[serviceAction]string{
	steadyState: "INFO", setSteady: "INFO", desiredUpdated: "INFO", tasksStopped: "INFO", startImpaired: "WARN", placementFailure: "ERROR", configurationFailure: "ERROR",
}

type actionDetail struct {
	EventType  string        `json:"eventType"`
	EventName  serviceAction `json:"eventName"`
	ClusterARN string        `json:"clusterArn"`
	Reason     string        `json:"reason,omitempty"`
	CreatedAt  string        `json:"createdAt"`
}

// tellAction tells an action of the service at key. That a task set is named beside
// its service is guessed.
func (a *API) tellAction(tx *store.Tx, key string, at time.Time, did serviceAction, reason string, set ...string) {
	a.event(tx, key, "ECS Service Action", at, actionDetail{actionTypes[did], did, clusterOf(key), reason, wire.ISO(at)}, append([]string{serviceOf(key)}, set...)...)
}

// impaired is how many tasks of a revision must have failed to start for the
// service to be called unable to start them consistently; a guess.
const impaired = 3

// configurationError is that a task cannot start as the service is configured,
// wherever it is placed.
type configurationError struct{ error }

func (e configurationError) Unwrap() error { return e.error }

// tellFailure tells that a service's task did not start.
func (a *API) tellFailure(tx *store.Tx, t task, r revision, why serviceAction) {
	at := t.Times.Stopped
	a.tellService(tx, r.Service, "", at, "was unable to place a task. Reason: %s", t.StopReason)
	a.tellAction(tx, r.Service, at, why, t.StopReason)
	if r.FailedToStart == impaired {
		a.tellService(tx, r.Service, "", at, "is unable to consistently start tasks successfully.")
		a.tellAction(tx, r.Service, at, startImpaired, "")
	}
}

// hookDetail is of an ECS Hook State Change.
type hookDetail struct {
	EventType            string                                  `json:"eventType"`
	EventName            string                                  `json:"eventName"`
	HookID               string                                  `json:"hookId"`
	HookType             types.DeploymentLifecycleHookTargetType `json:"hookType"`
	ExpiresAt            string                                  `json:"expiresAt"`
	LifecycleStage       rollout.Stage                           `json:"lifecycleStage"`
	ClusterARN           string                                  `json:"clusterArn"`
	ServiceARN           string                                  `json:"serviceArn"`
	ServiceDeploymentARN string                                  `json:"serviceDeploymentArn"`
	UpdatedAt            string                                  `json:"updatedAt"`
}

// tellHooks tells what became of the deployment's hooks since before.
func (c *control) tellHooks(before *rollout.Calls) {
	if c.d.State.Calls == before || c.d.State.Calls == nil {
		return
	}
	for _, call := range c.d.State.Calls.List {
		was := rollout.CallStatus("")
		if before != nil {
			if i := slices.IndexFunc(before.List, call.Same); i >= 0 {
				was = before.List[i].Status
			}
		}
		if was != call.Status {
			c.tellHook(call)
		}
	}
}

// tellHook tells the state of one call. That all of them are INFO is guessed.
func (c *control) tellHook(call rollout.Call) {
	kind, status := types.DeploymentLifecycleHookTargetTypePause, hookStatus[call.Status]
	if !c.d.State.Config.Hooks.List[call.Hook].Pause {
		kind = types.DeploymentLifecycleHookTargetTypeAwsLambda
		if call.Status == rollout.Waiting {
			status = types.DeploymentLifecycleHookStatusInProgress
		}
	}
	c.event(c.tx, c.key, "ECS Hook State Change", c.now, hookDetail{
		EventType: "INFO", EventName: "HOOK_" + string(status), HookID: hookID(c.d, call), HookType: kind, ExpiresAt: wire.ISO(call.Expires), LifecycleStage: call.Stage,
		ClusterARN: clusterOf(c.key), ServiceARN: serviceOf(c.key), ServiceDeploymentARN: c.d.ARN, UpdatedAt: wire.ISO(c.now),
	}, c.d.ARN)
}

// Hints are Serin's own: what one should know and AWS does not say. Each is given
// once in a deployment.
const exitNotCounted = "TASK_EXIT_NOT_COUNTED"

type hint struct {
	EventType            string `json:"eventType"`
	EventName            string `json:"eventName"`
	ClusterARN           string `json:"clusterArn"`
	ServiceARN           string `json:"serviceArn"`
	ServiceDeploymentARN string `json:"serviceDeploymentArn"`
	TaskARN              string `json:"taskArn"`
	Containers           []exit `json:"containers"`
	Message              string `json:"message"`
	Remedy               string `json:"remedy"`
}

type exit struct {
	Name string `json:"name"`
	Code int32  `json:"exitCode"`
}

// hintExit hints at a task of a running deployment's target that ran and then
// ended by itself: the circuit breaker's blind spot, documented by what it counts.
func (a *API) hintExit(tx *store.Tx, t task, r revision) {
	s, _ := a.services.Get(tx, r.Service)
	d, ok := a.deployments.Get(tx, deploymentKey(s.Deployment))
	blind := ok && d.Target == r.ARN && !d.State.Status.Terminal() && d.State.Config.Breaker.Enabled && !slices.Contains(d.Hints, exitNotCounted)
	if !blind || t.StopCode != types.TaskStopCodeEssentialContainerExited || t.Times.Started.IsZero() {
		return
	}
	var exits []exit
	var said []string
	for _, c := range t.Containers {
		if c.Exit != nil {
			exits = append(exits, exit{c.Name, aws.ToInt32(c.Exit)})
			said = append(said, fmt.Sprintf("%s with exit code %d", c.Name, *c.Exit))
		}
	}
	if exits == nil {
		return // nobody saw its end
	}
	d.Hints = append(slices.Clone(d.Hints), exitNotCounted)
	a.deployments.Put(tx, deploymentKey(d.ARN), d)
	scope, _ := arn.ParseKey(r.Service)
	task := taskARN(scope, t)
	a.deps.Events.Append(tx, events.New("serin", "Serin Hint", scope, t.Times.Stopped, detailJSON(hint{
		EventType: "WARN", EventName: exitNotCounted, ClusterARN: clusterOf(r.Service), ServiceARN: serviceOf(r.Service), ServiceDeploymentARN: d.ARN, TaskARN: task, Containers: exits,
		Message: fmt.Sprintf("Task %s ran and ended by itself (%s). The deployment circuit breaker, here as on AWS, does not count that: it counts tasks that never run and, once one has run, tasks that fail a health check.", t.ID, strings.Join(said, ", ")),
		Remedy:  "A health check of the load balancer's target group or of the container that fails before the process ends would count.",
	}), d.ARN, task))
}
