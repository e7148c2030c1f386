package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
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

// A command and a URL stand in for the functions of a release's hooks.
func TestFunctionsOfAReleaseAreStoodInFor(t *testing.T) {
	const arn = "arn:aws:lambda:us-east-1:000000000000:function:"
	heard := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		event, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		heard <- string(event)
		io.WriteString(w, `{"hookStatus":"SUCCEEDED"}`)
	}))
	t.Cleanup(server.Close)
	said := filepath.Join(t.TempDir(), "event")
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined", "--function", arn+"web="+server.URL, "--function", arn+`shell=cat >`+said+`; echo '{"hookStatus":"SUCCEEDED"}'`, "--function", arn+"broken=echo no room >&2; exit 3")
	ctx, c := t.Context(), admin(t, endpoint)
	e, i := ecs.NewFromConfig(c), iam.NewFromConfig(c)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("hooks"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
	must(i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("hooks"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"*"}]}`)}))
	must(e.CreateCluster(ctx, &ecs.CreateClusterInput{}))
	must(e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("64"), ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1")}}}))
	hook := func(name string, stage types.DeploymentLifecycleHookStage) types.DeploymentLifecycleHook {
		return types.DeploymentLifecycleHook{HookTargetArn: new(arn + name), RoleArn: new("arn:aws:iam::000000000000:role/hooks"), LifecycleStages: []types.DeploymentLifecycleHookStage{stage}}
	}
	must(e.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(0)),
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}},
		DeploymentConfiguration: &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyBlueGreen, BakeTimeInMinutes: new(int32(0)),
			LifecycleHooks: []types.DeploymentLifecycleHook{hook("web", types.DeploymentLifecycleHookStagePreScaleUp), hook("shell", types.DeploymentLifecycleHookStagePostScaleUp)}}}))
	run := func(code int, want string, args ...string) {
		t.Helper()
		out, got := serin(t, nil, append(args, "--endpoint-url", endpoint, "--service", "s", "--interval", "20ms")...)
		if got != code || !strings.Contains(out, want) {
			t.Errorf("%v exits %d, want %d with %q:\n%s", args, got, code, want, out)
		}
	}
	run(exitOK, "SUCCESSFUL", "watch")
	shell, err := os.ReadFile(said)
	if web := <-heard; err != nil || !strings.Contains(web, `"lifecycleStage":"PRE_SCALE_UP"`) || !strings.Contains(string(shell), `"lifecycleStage":"POST_SCALE_UP"`) {
		t.Errorf("the functions heard %s and %s, %v", web, shell, err)
	}
	must(e.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: []types.DeploymentLifecycleHook{hook("broken", types.DeploymentLifecycleHookStagePreScaleUp)}}}))
	run(exitRolledBack, "exit status 3 no room", "deploy", "--force")
	must(e.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: []types.DeploymentLifecycleHook{hook("nobody", types.DeploymentLifecycleHookStagePreScaleUp)}}}))
	run(exitRolledBack, "serin up --function "+arn+"nobody=URL", "deploy", "--force")
}
