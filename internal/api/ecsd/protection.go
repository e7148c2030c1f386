package ecsd

import (
	"cmp"
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// A task that is protected is not stopped to scale in, nor by a deployment, until
// the protection is over: documented. It may be stopped by hand, and fail.
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html

// usualProtection is how long a protection is where nothing is said, documented.
const usualProtection = 120

// protected says that a task may not be stopped yet.
func (t task) protected(now time.Time) bool { return t.Protected.After(now) }

// UpdateTaskProtection protects tasks of services, or lets them go.
func (a *API) UpdateTaskProtection(ctx context.Context, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error) {
	call := wire.From(ctx)
	minutes := aws.ToInt32(cmp.Or(in.ExpiresInMinutes, new(int32(usualProtection))))
	switch {
	case len(in.Tasks) == 0:
		return nil, invalid("Tasks cannot be empty.")
	case len(in.Tasks) > 10:
		return nil, invalid("tasks can have at most 10 items, got %d.", len(in.Tasks))
	case minutes < 1 || minutes > 2880:
		return nil, invalid("expiresInMinutes must be between 1 and 2880, got %d.", minutes)
	}
	out := &ecs.UpdateTaskProtectionOutput{ProtectedTasks: []types.ProtectedTask{}, Failures: []types.Failure{}}
	err := a.store.Update(func(tx *store.Tx) error {
		list, failures, err := a.protectable(tx, call, in.Cluster, in.Tasks)
		if err != nil {
			return err
		}
		out.Failures = failures
		for _, t := range list {
			t.Protected = time.Time{}
			if in.ProtectionEnabled {
				t.Protected = a.clock.Now().Add(time.Duration(minutes) * time.Minute)
			}
			a.tasks.Put(tx, taskKey(call.Scope, t), t) // no event tells of it, documented by what events hold
			out.ProtectedTasks = append(out.ProtectedTasks, a.protection(call.Scope, t))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetTaskProtection says which tasks are protected: those named, or all of the
// cluster's services.
func (a *API) GetTaskProtection(ctx context.Context, in *ecs.GetTaskProtectionInput) (*ecs.GetTaskProtectionOutput, error) {
	call := wire.From(ctx)
	if len(in.Tasks) > 100 {
		return nil, invalid("tasks can have at most 100 items, got %d.", len(in.Tasks))
	}
	out := &ecs.GetTaskProtectionOutput{ProtectedTasks: []types.ProtectedTask{}, Failures: []types.Failure{}}
	var err error
	a.store.View(func(tx *store.Tx) {
		names := in.Tasks
		if len(names) == 0 {
			var c cluster
			if c, err = a.cluster(tx, call.Scope, in.Cluster); err != nil {
				return
			}
			for _, t := range a.tasks.Scan(tx, call.Scope.Key(c.Name+"/")) {
				if t.Service != "" && t.Last == running {
					names = append(names, t.ID)
				}
			}
		}
		var list []task
		if list, out.Failures, err = a.protectable(tx, call, in.Cluster, names); err != nil {
			return
		}
		for _, t := range list {
			out.ProtectedTasks = append(out.ProtectedTasks, a.protection(call.Scope, t))
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// protectable finds tasks of services that have not stopped, and failures for the
// others.
func (a *API) protectable(tx *store.Tx, call *wire.Call, in *string, names []string) (list []task, failures []types.Failure, err error) {
	c, err := a.cluster(tx, call.Scope, in)
	if err != nil {
		return nil, nil, err
	}
	failures = []types.Failure{}
	for _, name := range names {
		t, ok, err := a.taskNamed(tx, call.Scope, c.Name, name)
		if err != nil {
			return nil, nil, err
		}
		switch {
		case !ok:
			failures = append(failures, missing(taskResource(call, name, in)))
		case t.Service == "" || t.Desired == stopped:
			failures = append(failures, types.Failure{Arn: new(taskARN(call.Scope, t)), Reason: new("TASK_NOT_VALID")})
		default:
			list = append(list, t)
		}
	}
	return list, failures, nil
}

func (a *API) protection(scope arn.Scope, t task) types.ProtectedTask {
	p := types.ProtectedTask{TaskArn: new(taskARN(scope, t)), ProtectionEnabled: t.protected(a.clock.Now())}
	if p.ProtectionEnabled {
		p.ExpirationDate = new(t.Protected)
	}
	return p
}
