package ecsd

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/rollout"
	"serin/internal/store"
	"serin/internal/wire"
)

// Documented, row by row; no controller runs, so that what the call itself does
// is seen.
func TestWhatAStopDoesToEveryStatus(t *testing.T) {
	a := newAPI(t)
	scope := arn.Scope{Account: "111111111111", Region: "us-east-1"}
	name := scope.For("ecs", "service-deployment/default/s/x").String()
	ctx := wire.WithCall(t.Context(), &wire.Call{Scope: scope})
	for status, want := range map[rollout.Status]rollout.Status{
		rollout.Pending: rollout.RollbackRequested, rollout.InProgress: rollout.RollbackRequested, rollout.StopRequested: rollout.StopRequested,
		rollout.RollbackRequested: rollout.RollbackRequested, rollout.RollbackInProgress: rollout.RollbackInProgress,
		rollout.Successful: "", rollout.Stopped: "", rollout.RollbackSuccessful: "", rollout.RollbackFailed: "",
	} {
		err := a.store.Update(func(tx *store.Tx) error {
			a.deployments.Put(tx, deploymentKey(name), deployment{ARN: name, State: rollout.State{Status: status}})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := a.StopServiceDeployment(ctx, &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &name})
		var now rollout.Status
		a.store.View(func(tx *store.Tx) {
			d, _ := a.deployments.Get(tx, deploymentKey(name))
			now = d.State.Status
		})
		if want == "" {
			conflict, ok := errors.AsType[*types.ConflictException](err)
			if !ok || len(conflict.ResourceIds) != 1 || conflict.ResourceIds[0] != name || now != status {
				t.Errorf("a stop of %s gives %v and leaves it %s", status, err, now)
			}
			continue
		}
		if err != nil || *out.ServiceDeploymentArn != name || now != want {
			t.Errorf("a stop of %s gives %v and leaves it %s, want %s", status, err, now, want)
		}
	}
}
