package stagetest

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// deployAction is amazon-ecs-deploy-task-definition v2, call by call as it was
// measured: register, describe, update, wait, describe again. It returns what
// the action says at its end.
func (w *world) deployAction(tag string) string {
	w.t.Helper()
	ctx := w.t.Context()
	arn := w.define(tag)
	primary := func(s types.Service) string {
		for _, d := range s.Deployments {
			if *d.Status == "PRIMARY" {
				return *d.Id
			}
		}
		w.t.Fatal("there is no PRIMARY deployment")
		return ""
	}
	in := &ecs.DescribeServicesInput{Services: []string{"s"}, Cluster: new("default")}
	described, err := w.ecs.DescribeServices(ctx, in)
	w.must(described, err)
	if len(described.Failures) > 0 || *described.Services[0].Status != "ACTIVE" || described.Services[0].DeploymentController.Type != types.DeploymentControllerTypeEcs {
		w.t.Fatalf("the action would end at %+v", described)
	}
	before := primary(described.Services[0])
	updated, err := w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), Cluster: new("default"), TaskDefinition: &arn, VolumeConfigurations: []types.ServiceVolumeConfiguration{}})
	w.must(updated, err)
	after := primary(*updated.Service)
	w.must(nil, ecs.NewServicesStableWaiter(w.ecs).Wait(ctx, in, time.Hour))
	if after == before {
		return "no new deployment"
	}
	if described, err = w.ecs.DescribeServices(ctx, in); err != nil {
		w.t.Fatal(err)
	}
	for _, d := range described.Services[0].Deployments {
		if *d.Id == after {
			if d.RolloutState == types.DeploymentRolloutStateFailed {
				return "FAILED: " + aws.ToString(d.RolloutStateReason)
			}
			return "verified" // COMPLETED, or still IN_PROGRESS: the action takes both (its issue 838)
		}
	}
	return "not found after stabilization"
}

func TestTheOfficialActionsStepsEndAsOnAWS(t *testing.T) {
	for name, c := range map[string]*types.DeploymentConfiguration{
		"ROLLING": {Strategy: types.DeploymentStrategyRolling, DeploymentCircuitBreaker: breaker},
		"CANARY":  canary(),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, w *world) {
				first, err := w.create("1", c)
				w.must(first, err)
				w.ends(first, types.ServiceDeploymentStatusSuccessful)
				if got := w.deployAction("2"); got != "verified" {
					t.Errorf("a good version ends %s", got)
				}
				if got := w.deployAction("missing"); got != "not found after stabilization" {
					t.Errorf("a version that was rolled back ends %s", got)
				}
				if got := w.deployAction("3"); got != "verified" {
					t.Errorf("the next good version ends %s", got)
				}
			})
		})
	}
}
