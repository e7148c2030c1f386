package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"serin/internal/rehearse"
)

// cliOf runs the AWS CLI against a stage; what it prints must be JSON.
func cliOf(t *testing.T, d *demo) func(args ...string) map[string]any {
	t.Helper()
	program, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("there is no aws here")
	}
	return func(args ...string) (v map[string]any) {
		t.Helper()
		cmd := exec.Command(program, append(args, "--output", "json")...)
		cmd.Env = append(os.Environ(), "AWS_PAGER=", "AWS_ENDPOINT_URL="+d.endpoint, "AWS_ACCESS_KEY_ID="+d.account, "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION="+d.region, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil || json.Unmarshal(out, &v) != nil {
			t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return v
	}
}

// users asks for a second and returns who answered.
func users(t *testing.T, d *demo) rehearse.Counts {
	t.Helper()
	load := &rehearse.Load{URL: d.listener, Rate: 200, Version: func(r *http.Response) string { return r.Header.Get("X-Version") }}
	ctx, enough := context.WithTimeout(t.Context(), time.Second)
	defer enough()
	load.Run(ctx)
	return load.Seen()
}

// setWalk is a service with task sets, x, beside the load balancer of a demo.
type setWalk struct {
	*demo
	t      *testing.T
	aws    func(args ...string) map[string]any
	groups [2]string
	rule   string
}

// on is a call of ECS that says something of the service.
func (w *setWalk) on(op string, args ...string) map[string]any {
	w.t.Helper()
	return w.aws(append([]string{"ecs", op, "--cluster", w.service.Cluster, "--service", "x"}, args...)...)
}

// build makes the load balancer, without the service it was made for, and two versions.
func (w *setWalk) build() {
	w.t.Helper()
	ctx, e := w.t.Context(), elb.NewFromConfig(w.admin)
	w.must(w.clickTogether(ctx))
	w.must(w.first(ctx))
	_, err := ecs.NewFromConfig(w.admin).DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: &w.service.Cluster, Service: &w.service.Name, Force: new(true)})
	w.must(err)
	w.must(w.push(ctx, "2"))
	groups, err := e.DescribeTargetGroups(ctx, &elb.DescribeTargetGroupsInput{})
	w.must(err)
	w.groups = [2]string{*groups.TargetGroups[0].TargetGroupArn, *groups.TargetGroups[1].TargetGroupArn}
	listeners, err := e.DescribeListeners(ctx, &elb.DescribeListenersInput{LoadBalancerArn: &groups.TargetGroups[0].LoadBalancerArns[0]})
	w.must(err)
	rules, err := e.DescribeRules(ctx, &elb.DescribeRulesInput{ListenerArn: listeners.Listeners[0].ListenerArn})
	w.must(err)
	w.rule = *rules.Rules[0].RuleArn
}

func (w *setWalk) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// make makes a task set of a version in the group of its number.
func (w *setWalk) make(version, group int, scale string) string {
	w.t.Helper()
	definition, err := w.definition(fmt.Sprint(version))
	w.must(err)
	registered, err := ecs.NewFromConfig(w.admin).RegisterTaskDefinition(w.t.Context(), definition)
	w.must(err)
	out := w.on("create-task-set", "--task-definition", *registered.TaskDefinition.TaskDefinitionArn, "--scale", "unit=PERCENT,value="+scale,
		"--network-configuration", "awsvpcConfiguration={subnets=[subnet-a]}", "--load-balancers", "targetGroupArn="+w.groups[group]+",containerName=gpu-test,containerPort=8080")
	id := out["taskSet"].(map[string]any)["id"].(string)
	w.settle(id)
	return id
}

func (w *setWalk) settle(id string) {
	w.t.Helper()
	for { // the test's own time limit ends it
		if sets := w.on("describe-task-sets", "--task-sets", id)["taskSets"].([]any); len(sets) == 1 && sets[0].(map[string]any)["stabilityStatus"] == "STEADY_STATE" {
			return
		}
	}
}

func (w *setWalk) weigh(a, b int) {
	w.t.Helper()
	w.aws("elbv2", "modify-rule", "--rule-arn", w.rule, "--actions",
		fmt.Sprintf(`[{"Type":"forward","ForwardConfig":{"TargetGroups":[{"TargetGroupArn":"%s","Weight":%d},{"TargetGroupArn":"%s","Weight":%d}]}}]`, w.groups[0], a, w.groups[1], b))
}

// The AWS CLI makes two task sets and gives the second a tenth of the users. The
// stage is killed then, and the next one goes on with the same tasks: the second
// set is promoted and the first goes, and no user notices.
func TestAKilledStageKeepsItsTaskSets(t *testing.T) {
	args := []string{"--port", "0", "--data", t.TempDir(), "--account", "123456789012", "--speed", "60"}
	cmd, endpoint := up(t, args...)
	w := &setWalk{demo: path(t, endpoint), t: t}
	w.aws = cliOf(t, w.demo)
	w.build()
	w.aws("ecs", "create-service", "--cluster", w.service.Cluster, "--service-name", "x", "--desired-count", "2", "--deployment-controller", "type=EXTERNAL")
	first := w.make(1, 0, "100")
	w.on("update-service-primary-task-set", "--primary-task-set", first)
	second := w.make(2, 1, "50")
	w.weigh(90, 10)
	if seen := users(t, w.demo); seen.Failed > 0 || seen.By["1"] < 8*seen.By["2"] || seen.By["2"] == 0 {
		t.Errorf("with a tenth at the second set users saw %+v", seen)
	}

	before, listener := tasksOf(t, w.demo), w.listener
	w.must(cmd.Process.Kill())
	cmd.Wait()
	_, endpoint = up(t, args...)
	w.demo = path(t, endpoint)
	w.aws, w.listener = cliOf(t, w.demo), listener
	w.settle(first)
	w.settle(second)
	for id := range tasksOf(t, w.demo) {
		if !before[id] {
			t.Errorf("task %s was started anew", id)
		}
	}
	w.on("update-task-set", "--task-set", second, "--scale", "unit=PERCENT,value=100")
	w.settle(second)
	w.weigh(0, 100)
	w.on("update-service-primary-task-set", "--primary-task-set", second)
	w.on("delete-task-set", "--task-set", first)
	for len(w.on("describe-task-sets", "--task-sets", first)["failures"].([]any)) == 0 {
	}
	if seen := users(t, w.demo); seen.Failed > 0 || seen.By["2"] == 0 || seen.By["1"] > 0 {
		t.Errorf("with all at the second set users saw %+v", seen)
	}
	if out, code := serin(t, nil, "status", "--endpoint-url", endpoint, "--region", w.region, "--cluster", w.service.Cluster, "--service", "x"); code != 0 || !strings.Contains(out, second+" PRIMARY, 2 of 2 running, 0 pending, STEADY_STATE") {
		t.Errorf("serin status exits %d:\n%s", code, out)
	}
	w.on("delete-service", "--force")
	for len(tasksOf(t, w.demo)) > 0 {
	}
}
