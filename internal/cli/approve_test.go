package cli

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A release that pauses ends with exit code 5, and is approved or sent back by
// another call, as from another job.
func TestAPausedReleaseIsApproved(t *testing.T) {
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	ctx, e := t.Context(), ecs.NewFromConfig(admin(t, endpoint))
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(e.CreateCluster(ctx, &ecs.CreateClusterInput{}))
	must(e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("64"), ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1")}}}))
	// A service of no tasks: what is shown here is the way, not the tasks.
	must(e.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(0)),
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}},
		DeploymentConfiguration: &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyBlueGreen, BakeTimeInMinutes: new(int32(0)),
			LifecycleHooks: []types.DeploymentLifecycleHook{{TargetType: types.DeploymentLifecycleHookTargetTypePause, LifecycleStages: []types.DeploymentLifecycleHookStage{types.DeploymentLifecycleHookStagePreScaleUp, types.DeploymentLifecycleHookStagePostScaleUp}}}}}))
	run := func(code int, want string, args ...string) {
		t.Helper()
		out, got := serin(t, nil, append(args, "--endpoint-url", endpoint, "--service", "s", "--interval", "20ms")...)
		if got != code || !strings.Contains(out, want) {
			t.Errorf("%v exits %d, want %d with %q:\n%s", args, got, code, want, out)
		}
	}
	run(exitPaused, "IN_PROGRESS PRE_SCALE_UP (paused)", "watch")
	run(exitPaused, "serin approve --cluster default --service s; to go back: add --rollback", "approve")
	run(exitOK, "SUCCESSFUL", "approve")
	run(exitFailed, "waits for no such approval", "approve")
	run(exitPaused, "PRE_SCALE_UP (paused)", "deploy", "--force")
	run(exitFailed, "waits for no such approval", "approve", "--hook", "ecs-pause-another")
	run(exitRolledBack, "ROLLBACK_SUCCESSFUL", "approve", "--rollback")
}
