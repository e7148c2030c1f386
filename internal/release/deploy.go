package release

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

type containerDefinition = types.ContainerDefinition

// Service names a service.
type Service struct{ Cluster, Name string }

// Update registers a task definition, if one is given, and updates the service
// to it. The result is the ARN of the service deployment that is now current,
// and whether the update started it.
func Update(ctx context.Context, c *ecs.Client, s Service, definition *ecs.RegisterTaskDefinitionInput, force bool) (deployment string, started bool, err error) {
	before, err := Current(ctx, c, s)
	if err != nil {
		return "", false, err
	}
	in := &ecs.UpdateServiceInput{Cluster: &s.Cluster, Service: &s.Name, ForceNewDeployment: force}
	if definition != nil {
		out, err := c.RegisterTaskDefinition(ctx, definition)
		if err != nil {
			return "", false, fmt.Errorf("registering the task definition: %w", err)
		}
		in.TaskDefinition = out.TaskDefinition.TaskDefinitionArn
	}
	out, err := c.UpdateService(ctx, in)
	if err != nil {
		return "", false, fmt.Errorf("updating service %s: %w", s.Name, err)
	}
	deployment = aws.ToString(out.Service.CurrentServiceDeployment)
	if deployment == "" { // AWS may name it a moment later
		if deployment, err = Current(ctx, c, s); err != nil {
			return "", false, err
		}
	}
	return deployment, deployment != before, nil
}

// Current is the ARN of a service's newest deployment.
func Current(ctx context.Context, c *ecs.Client, s Service) (string, error) {
	out, err := c.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Cluster: &s.Cluster, Service: &s.Name, MaxResults: new(int32(1))})
	if err != nil {
		return "", fmt.Errorf("listing the deployments of service %s: %w", s.Name, err)
	}
	if len(out.ServiceDeployments) == 0 {
		return "", fmt.Errorf("service %s has no deployment", s.Name)
	}
	return *out.ServiceDeployments[0].ServiceDeploymentArn, nil
}

// Rollback asks a deployment to go back to its source.
func Rollback(ctx context.Context, c *ecs.Client, deployment string) error {
	_, err := c.StopServiceDeployment(ctx, &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &deployment, StopType: types.StopServiceDeploymentStopTypeRollback})
	if err != nil {
		return fmt.Errorf("rolling back: %w", err)
	}
	return nil
}

// Describe returns a deployment.
func Describe(ctx context.Context, c *ecs.Client, deployment string) (types.ServiceDeployment, error) {
	out, err := c.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{deployment}})
	if err != nil {
		return types.ServiceDeployment{}, fmt.Errorf("describing the deployment: %w", err)
	}
	if len(out.ServiceDeployments) == 0 {
		return types.ServiceDeployment{}, fmt.Errorf("deployment %s does not exist", deployment)
	}
	return out.ServiceDeployments[0], nil
}

// Verdict is how a deployment ended.
type Verdict int

const (
	Deployed   Verdict = iota // stable on the target
	Failed                    // stopped, or a rollback that failed
	RolledBack                // stable on the source
	Running                   // not ended
	Paused                    // not ended, and waits for somebody's word
)

// VerdictOf reads a deployment. A rollback is never a success.
func VerdictOf(d types.ServiceDeployment) Verdict {
	switch d.Status {
	case types.ServiceDeploymentStatusSuccessful:
		return Deployed
	case types.ServiceDeploymentStatusRollbackSuccessful:
		return RolledBack
	case types.ServiceDeploymentStatusStopped, types.ServiceDeploymentStatusRollbackFailed:
		return Failed
	case types.ServiceDeploymentStatusInProgress:
		if Waiting(d) != nil {
			return Paused
		}
	}
	return Running
}

// Waiting is the hooks of a deployment that wait for somebody's word.
func Waiting(d types.ServiceDeployment) (hooks []types.DeploymentLifecycleHookDetail) {
	for _, h := range d.LifecycleHookDetails {
		if h.TargetType == types.DeploymentLifecycleHookTargetTypePause && h.Status == types.DeploymentLifecycleHookStatusAwaitingAction {
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// Answer tells a paused deployment to go on, or to go back.
func Answer(ctx context.Context, c *ecs.Client, deployment, hook string, action types.DeploymentLifecycleHookAction) error {
	_, err := c.ContinueServiceDeployment(ctx, &ecs.ContinueServiceDeploymentInput{ServiceDeploymentArn: &deployment, HookId: &hook, Action: action})
	if err != nil {
		return fmt.Errorf("answering the pause: %w", err)
	}
	return nil
}

// Watch describes a deployment every interval and calls see with each look,
// until it has ended, see says that this is enough, or ctx ends. Transient errors
// are passed over for a minute.
func Watch(ctx context.Context, c *ecs.Client, deployment string, every time.Duration, see func(types.ServiceDeployment) (enough bool)) (types.ServiceDeployment, error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last types.ServiceDeployment
	var failing time.Time
	for {
		d, err := Describe(ctx, c, deployment)
		switch {
		case err == nil:
			failing, last = time.Time{}, d
			enough := see(d)
			if v := VerdictOf(d); enough || v != Running && v != Paused {
				return d, nil
			}
		case ctx.Err() != nil:
			return last, ctx.Err()
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > time.Minute:
			return last, err
		}
		if denied, ok := errors.AsType[*types.AccessDeniedException](err); ok {
			return last, denied
		}
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-tick.C:
		}
	}
}
