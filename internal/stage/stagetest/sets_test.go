package stagetest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
)

var external = &types.DeploymentController{Type: types.DeploymentControllerTypeExternal}

// external makes the service s without deployments.
func (w *world) external(desired int32) {
	w.t.Helper()
	w.must(w.ecs.CreateService(w.t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), DeploymentController: external, DesiredCount: &desired}))
}

// setInput asks for a task set of an image behind one of the two target groups,
// or behind none.
func (w *world) setInput(tag string, group int, scale float64) *ecs.CreateTaskSetInput {
	in := &ecs.CreateTaskSetInput{Cluster: new("default"), Service: new("s"), TaskDefinition: new(w.defineSized(tag, new("256"), new("512"))), LaunchType: types.LaunchTypeFargate,
		Scale:                &types.Scale{Unit: types.ScaleUnitPercent, Value: scale},
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}}}
	if group >= 0 {
		in.LoadBalancers = []types.LoadBalancer{{TargetGroupArn: &w.groups[group], ContainerName: new("web"), ContainerPort: new(int32(8080))}}
	}
	return in
}

func (w *world) makeSet(tag string, group int, scale float64) types.TaskSet {
	w.t.Helper()
	out, err := w.ecs.CreateTaskSet(w.t.Context(), w.setInput(tag, group, scale))
	w.must(out, err)
	return *out.TaskSet
}

// taskSet describes one set; nil when it is gone.
func (w *world) taskSet(set types.TaskSet) *types.TaskSet {
	w.t.Helper()
	out, err := w.ecs.DescribeTaskSets(w.t.Context(), &ecs.DescribeTaskSetsInput{Cluster: set.ClusterArn, Service: set.ServiceArn, TaskSets: []string{*set.TaskSetArn}, Include: []types.TaskSetField{types.TaskSetFieldTags}})
	w.must(out, err)
	if len(out.TaskSets) == 0 {
		if len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" || *out.Failures[0].Arn != *set.TaskSetArn {
			w.t.Fatalf("a set that is not there gives %+v", out.Failures)
		}
		return nil
	}
	return &out.TaskSets[0]
}

// steady waits until a set has so many tasks in a steady state.
func (w *world) steady(set types.TaskSet, tasks int32) types.TaskSet {
	w.t.Helper()
	var now types.TaskSet
	w.until(fmt.Sprintf("%s is steady with %d tasks", *set.Id, tasks), func() bool {
		now = *w.taskSet(set)
		return now.StabilityStatus == types.StabilityStatusSteadyState && now.RunningCount == tasks
	})
	if now.ComputedDesiredCount != tasks || now.PendingCount != 0 || now.StabilityStatusAt.Before(*now.CreatedAt) {
		w.t.Errorf("a steady set is %+v", now)
	}
	return now
}

func (w *world) primary(set types.TaskSet) {
	w.t.Helper()
	out, err := w.ecs.UpdateServicePrimaryTaskSet(w.t.Context(), &ecs.UpdateServicePrimaryTaskSetInput{Cluster: set.ClusterArn, Service: set.ServiceArn, PrimaryTaskSet: set.TaskSetArn})
	w.must(out, err)
	if *out.TaskSet.Status != "PRIMARY" || *w.service().TaskDefinition != *set.TaskDefinition {
		w.t.Errorf("the primary set is %s, its service describes %s", *out.TaskSet.Status, *w.service().TaskDefinition)
	}
}

// drop deletes a set as PipeCD does, its task definition with it.
func (w *world) drop(set types.TaskSet) {
	w.t.Helper()
	out, err := w.ecs.DeleteTaskSet(w.t.Context(), &ecs.DeleteTaskSetInput{Cluster: set.ClusterArn, Service: set.ServiceArn, TaskSet: set.TaskSetArn})
	w.must(out, err)
	if *out.TaskSet.Status != "DRAINING" || out.TaskSet.StabilityStatus != types.StabilityStatusStabilizing {
		w.t.Errorf("a deleted set is %s, %s", *out.TaskSet.Status, out.TaskSet.StabilityStatus)
	}
	w.must(w.ecs.DeregisterTaskDefinition(w.t.Context(), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: set.TaskDefinition}))
}

// weigh moves the traffic as PipeCD does: it goes from a target group to its
// load balancer's listeners and changes the actions that forward to both groups;
// those of a default rule are the listener's.
func (w *world) weigh(a, b int32) {
	w.t.Helper()
	ctx := w.t.Context()
	groups, err := w.elb.DescribeTargetGroups(ctx, &elb.DescribeTargetGroupsInput{TargetGroupArns: w.groups[:1]})
	w.must(groups, err)
	listeners, err := w.elb.DescribeListeners(ctx, &elb.DescribeListenersInput{LoadBalancerArn: &groups.TargetGroups[0].LoadBalancerArns[0]})
	w.must(listeners, err)
	rules, err := w.elb.DescribeRules(ctx, &elb.DescribeRulesInput{ListenerArn: listeners.Listeners[0].ListenerArn})
	w.must(rules, err)
	rule := rules.Rules[0]
	if !aws.ToBool(rule.IsDefault) || len(rule.Actions[0].ForwardConfig.TargetGroups) != 2 {
		w.t.Fatalf("the rule is %+v", rule)
	}
	w.must(w.elb.ModifyListener(ctx, &elb.ModifyListenerInput{ListenerArn: listeners.Listeners[0].ListenerArn, DefaultActions: []elbtypes.Action{{
		Type: elbtypes.ActionTypeEnumForward, Order: rule.Actions[0].Order, ForwardConfig: &elbtypes.ForwardActionConfig{
			TargetGroups: []elbtypes.TargetGroupTuple{{TargetGroupArn: &w.groups[0], Weight: &a}, {TargetGroupArn: &w.groups[1], Weight: &b}}}}}}))
}

// targets is the states of a group's targets.
func (w *world) targets(group int) (states []string) {
	w.t.Helper()
	out, err := w.elb.DescribeTargetHealth(w.t.Context(), &elb.DescribeTargetHealthInput{TargetGroupArn: &w.groups[group]})
	w.must(out, err)
	for _, h := range out.TargetHealthDescriptions {
		states = append(states, string(h.TargetHealth.State))
	}
	return states
}

func (w *world) tasksOf(set types.TaskSet) []string {
	w.t.Helper()
	out, err := w.ecs.ListTasks(w.t.Context(), &ecs.ListTasksInput{StartedBy: set.Id})
	w.must(out, err)
	return out.TaskArns
}

// A canary as PipeCD makes one: a small set beside the primary one, a share of
// the traffic, a new set in the primary's group, and the others away.
func TestACanaryOfTaskSets(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.external(10)
	s := w.service()
	if s.TaskDefinition != nil || s.TaskSets == nil || len(s.TaskSets)+len(s.Deployments) != 0 || s.LaunchType != types.LaunchTypeEc2 || s.DeploymentController.Type != types.DeploymentControllerTypeExternal || s.CurrentServiceDeployment != nil {
		t.Errorf("a new service is %+v", s)
	}
	in := w.setInput("1", 0, 100)
	in.Tags, in.ExternalId = []types.Tag{{Key: new("pipecd-dev-managed-by"), Value: new("piped")}}, new("stable")
	out, err := w.ecs.CreateTaskSet(ctx, in)
	w.must(out, err)
	first := *out.TaskSet
	if !regexp.MustCompile(`^ecs-svc/\d{19}$`).MatchString(*first.Id) || *first.TaskSetArn != "arn:aws:ecs:us-east-1:"+Account+":task-set/default/s/"+*first.Id ||
		*first.Status != "ACTIVE" || first.ComputedDesiredCount != 0 || first.StabilityStatus != types.StabilityStatusStabilizing || *first.ExternalId != "stable" || said(first.Tags) != "pipecd-dev-managed-by=piped" {
		t.Errorf("a new set is %+v", first)
	}
	now := w.steady(first, 10)
	if said(now.Tags) != "pipecd-dev-managed-by=piped" || now.LaunchType != types.LaunchTypeFargate || *now.LoadBalancers[0].TargetGroupArn != w.groups[0] {
		t.Errorf("it is described as %+v", now)
	}
	w.primary(first)
	// What PipeCD sends before each rollout.
	w.must(w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), EnableExecuteCommand: new(false), EnableECSManagedTags: new(false), PropagateTags: types.PropagateTagsService, DesiredCount: new(int32(10))}))

	small := w.steady(w.makeSet("2", 1, 10), 1)
	w.weigh(90, 10)
	if a, b := w.weights(); a != 90 || b != 10 || len(w.targets(1)) != 1 {
		t.Errorf("the canary has %d of %d with %v", b, a+b, w.targets(1))
	}
	next := w.steady(w.makeSet("2", 0, 100), 10)
	w.primary(next)
	if got := *w.taskSet(first).Status; got != "ACTIVE" {
		t.Errorf("the primary set before is %s", got)
	}
	w.drop(first)
	w.weigh(100, 0)
	w.drop(small)
	w.until("the old sets are gone", func() bool { return len(w.service().TaskSets) == 1 })
	if w.taskSet(first) != nil || w.taskSet(small) != nil || len(w.targets(0)) != 10 || len(w.targets(1)) != 0 {
		t.Errorf("what is left: %v, %v", w.targets(0), w.targets(1))
	}
	if s := w.service(); s.RunningCount != 10 || s.PendingCount != 0 || *s.TaskSets[0].Id != *next.Id || *s.TaskSets[0].Status != "PRIMARY" || s.LaunchType != types.LaunchTypeFargate || *s.LoadBalancers[0].TargetGroupArn != w.groups[0] {
		t.Errorf("the service is %+v", s)
	}
	for _, text := range []string{
		"(service s) updated computedDesiredCount for taskSet " + *small.Id + " to 1.",
		"(service s, taskSet " + *small.Id + ") has started 1 tasks: (task ",
		"(service s, taskSet " + *small.Id + ") registered 1 targets in (target-group " + w.groups[1] + ")",
		"(service s, taskSet " + *small.Id + ") updated state to STEADY_STATE.",
		"(service s, taskSet " + *small.Id + ") has begun draining connections on 1 tasks.",
		"(service s) deregistered 1 targets in (target-group " + w.groups[1] + ")",
	} {
		if !w.said(text) {
			t.Errorf("nobody said: %s", text)
		}
	}
	w.until("the service is steady", func() bool {
		return strings.HasSuffix(*w.service().Events[0].Message, "(service s) has reached a steady state.")
	})
}

// PipeCD does not use the SDK's waiter, with reason: it counts deployments, of
// which there are none, so that it waits for as long as it may; on AWS too.
func TestTheWaiterFindsNoDeploymentOfTaskSets(t *testing.T) {
	w := newWorld(t)
	w.external(1)
	w.steady(w.makeSet("1", 0, 100), 1)
	waiter := ecs.NewServicesStableWaiter(w.ecs, func(o *ecs.ServicesStableWaiterOptions) { o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond })
	if waiter.Wait(t.Context(), &ecs.DescribeServicesInput{Services: []string{"s"}}, 20*time.Millisecond) == nil {
		t.Error("the waiter found a deployment")
	}
	if s := w.service(); s.PendingCount != 0 || s.RunningCount < s.DesiredCount { // what PipeCD waits for
		t.Errorf("the service is %+v", s)
	}
}

func TestTaskSetsFollowTheirService(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.external(3)
	a, b := w.makeSet("1", 0, 100), w.makeSet("2", -1, 50)
	w.steady(a, 3)
	w.steady(b, 2) // half of three, rounded up
	w.must(w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(4))}))
	if got := w.taskSet(a).StabilityStatus; w.taskSet(a).RunningCount != 4 && got != types.StabilityStatusStabilizing {
		t.Errorf("a set that is to grow is %s", got)
	}
	w.steady(a, 4)
	out, err := w.ecs.UpdateTaskSet(ctx, &ecs.UpdateTaskSetInput{Cluster: new("default"), Service: new("s"), TaskSet: b.Id, Scale: &types.Scale{Value: 25, Unit: types.ScaleUnitPercent}})
	w.must(out, err)
	if out.TaskSet.Scale.Value != 25 || out.TaskSet.StabilityStatus != types.StabilityStatusStabilizing {
		t.Errorf("an updated set is %+v", out.TaskSet)
	}
	w.steady(b, 1)

	// A task that goes is replaced in its own set.
	before := w.tasksOf(b)
	described, err := w.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{Tasks: before})
	w.must(described, err)
	if task := described.Tasks[0]; *task.StartedBy != *b.Id || *task.Group != "service:s" || *task.TaskDefinitionArn != *b.TaskDefinition || task.LaunchType != types.LaunchTypeFargate {
		t.Errorf("a task of the set is %+v", task)
	}
	w.must(w.ecs.StopTask(ctx, &ecs.StopTaskInput{Task: &before[0]}))
	w.until("another takes its place", func() bool {
		now := w.tasksOf(b)
		return len(now) == 1 && now[0] != before[0] && w.taskSet(b).RunningCount == 1
	})
	if n := len(w.tasksOf(a)); n != 4 {
		t.Errorf("the other set has %d tasks", n)
	}
	all, err := w.ecs.ListTasks(ctx, &ecs.ListTasksInput{ServiceName: new("s")})
	w.must(all, err)
	if len(all.TaskArns) != 5 || w.service().RunningCount != 5 {
		t.Errorf("the service has %d tasks, says %d", len(all.TaskArns), w.service().RunningCount)
	}

	// PipeCD prunes a service so.
	w.must(w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(0))}))
	w.steady(a, 0)
	w.steady(b, 0)
	w.until("no target is left", func() bool { return len(w.targets(0)) == 0 })
}

func TestATaskSetThatFailsDisturbsNoOther(t *testing.T) {
	w := newWorld(t)
	w.external(2)
	good := w.steady(w.makeSet("1", 0, 100), 2)
	w.primary(good)
	bad, missing := w.makeSet("broken", 1, 50), w.makeSet("missing", -1, 50)
	w.until("its unhealthy tasks are replaced, again and again", func() bool {
		replaced := map[string]bool{}
		for _, e := range w.service().Events {
			if strings.Contains(*e.Message, "is unhealthy in (target-group "+w.groups[1]+")") {
				replaced[*e.Message] = true
			}
		}
		return len(replaced) >= 2 && w.said("was unable to place a task. Reason: CannotPullContainerError")
	})
	for _, set := range []types.TaskSet{bad, missing} {
		if now := w.taskSet(set); now.StabilityStatus != types.StabilityStatusStabilizing || now.ComputedDesiredCount != 1 {
			t.Errorf("a set that fails is %+v", now)
		}
		w.drop(set)
	}
	w.until("they are gone", func() bool { return len(w.service().TaskSets) == 1 && len(w.targets(1)) == 0 })
	if now := w.steady(good, 2); !now.StabilityStatusAt.Equal(*good.StabilityStatusAt) || !slices.Equal(w.targets(0), []string{"healthy", "healthy"}) {
		t.Errorf("the other set was disturbed: %+v, %v", now, w.targets(0))
	}
}

func TestAServiceGoesWithItsTaskSets(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.external(2)
	set := w.steady(w.makeSet("1", 0, 100), 2)
	w.primary(set)
	remove := func(force *bool) error {
		_, err := w.ecs.DeleteService(ctx, &ecs.DeleteServiceInput{Service: new("s"), Force: force})
		return err
	}
	if err := remove(nil); err == nil || !strings.Contains(err.Error(), "scaled above 0") {
		t.Errorf("a service with tasks: %v", err)
	}
	w.must(w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(0))}))
	if err := remove(nil); err == nil || !strings.Contains(err.Error(), "The service cannot be stopped while deployments are active.") {
		t.Errorf("a service with a task set: %v", err)
	}
	w.must(nil, remove(new(true)))
	w.until("it is gone", func() bool { return *w.service().Status == "INACTIVE" })
	if s := w.service(); len(s.TaskSets) != 0 || len(w.targets(0)) != 0 {
		t.Errorf("it leaves %+v, %v", s.TaskSets, w.targets(0))
	}
	w.external(0) // its name is free again
}

func TestWhatTaskSetsMayNotBe(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.external(1)
	network := w.setInput("1", -1, 0).NetworkConfiguration
	create := func(change func(*ecs.CreateServiceInput)) error {
		in := &ecs.CreateServiceInput{ServiceName: new("t"), DeploymentController: external}
		change(in)
		_, err := w.ecs.CreateService(ctx, in)
		return err
	}
	configured := func(c types.DeploymentConfiguration) error {
		return create(func(in *ecs.CreateServiceInput) { in.DeploymentConfiguration = &c })
	}
	update := func(in *ecs.UpdateServiceInput) error {
		in.Service = new("s")
		_, err := w.ecs.UpdateService(ctx, in)
		return err
	}
	makeSet := func(change func(*ecs.CreateTaskSetInput)) error {
		in := w.setInput("1", 0, 100)
		change(in)
		_, err := w.ecs.CreateTaskSet(ctx, in)
		return err
	}
	w.must(w.ecs.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("rolling"), TaskDefinition: new(w.define("1")), DesiredCount: new(int32(0)), NetworkConfiguration: network}))
	set := w.makeSet("1", 0, 0)
	w.primary(set)
	remove := func(id string) error {
		_, err := w.ecs.DeleteTaskSet(ctx, &ecs.DeleteTaskSetInput{Cluster: new("default"), Service: new("s"), TaskSet: &id})
		return err
	}
	for want, err := range map[string]error{
		"TaskDefinition must be blank":                create(func(in *ecs.CreateServiceInput) { in.TaskDefinition = new("web") }),
		"NetworkConfiguration must be null.":          create(func(in *ecs.CreateServiceInput) { in.NetworkConfiguration = network }),
		"LoadBalancers must be null.":                 create(func(in *ecs.CreateServiceInput) { in.LoadBalancers = w.setInput("1", 0, 0).LoadBalancers }),
		"LaunchType must be blank":                    create(func(in *ecs.CreateServiceInput) { in.LaunchType = types.LaunchTypeEc2 }),
		"not supported for services using the DAEMON": create(func(in *ecs.CreateServiceInput) { in.SchedulingStrategy = types.SchedulingStrategyDaemon }),
		"use ECS with the strategy BLUE_GREEN": create(func(in *ecs.CreateServiceInput) {
			in.DeploymentController = &types.DeploymentController{Type: types.DeploymentControllerTypeCodeDeploy}
		}),
		"Deployment circuit breaker feature is only supported with ECS": configured(types.DeploymentConfiguration{DeploymentCircuitBreaker: breaker}),
		"CANARY deployment strategy feature is only supported with ECS": configured(types.DeploymentConfiguration{Strategy: types.DeploymentStrategyCanary}),
		"maximumPercent must be at least 100":                           configured(types.DeploymentConfiguration{MaximumPercent: new(int32(50))}),

		"Unable to update task definition on services with an EXTERNAL":    update(&ecs.UpdateServiceInput{TaskDefinition: new("web")}),
		"Unable to update network parameters on services with an EXTERNAL": update(&ecs.UpdateServiceInput{NetworkConfiguration: network}),
		"Cannot force a new deployment":                                    update(&ecs.UpdateServiceInput{ForceNewDeployment: true}),
		"from EXTERNAL to ECS":                                             update(&ecs.UpdateServiceInput{DeploymentController: &types.DeploymentController{Type: types.DeploymentControllerTypeEcs}}),
		"Serin does not perform the deployment controller CODE_DEPLOY":     update(&ecs.UpdateServiceInput{DeploymentController: &types.DeploymentController{Type: types.DeploymentControllerTypeCodeDeploy}}),

		"Amazon ECS only supports task set management on services configured": makeSet(func(in *ecs.CreateTaskSetInput) { in.Service = new("rolling") }),
		"between 0 and 100 percent": makeSet(func(in *ecs.CreateTaskSetInput) { in.Scale.Value = 101 }),
		"at most one load balancer target group": makeSet(func(in *ecs.CreateTaskSetInput) {
			in.LoadBalancers = append(in.LoadBalancers, w.setInput("1", 1, 0).LoadBalancers...)
		}),
		"Network Configuration must be provided": makeSet(func(in *ecs.CreateTaskSetInput) { in.NetworkConfiguration = nil }),
		"Specifying both a launch type and capacity provider strategy": makeSet(func(in *ecs.CreateTaskSetInput) {
			in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{{CapacityProvider: new("p")}}
		}),
		"ClientException: TaskDefinition not found.":                      makeSet(func(in *ecs.CreateTaskSetInput) { in.TaskDefinition = new("none") }),
		"Primary TaskSet cannot be deleted":                               remove(*set.Id),
		"Task Set Identifier is invalid":                                  remove("set"),
		"TaskSetNotFoundException":                                        remove("ecs-svc/1"),
		"TaskSetNotFoundException: The specified task set was not found.": remove(strings.Replace(*set.TaskSetArn, "/s/", "/rolling/", 1)),
	} {
		api, ok := errors.AsType[smithy.APIError](err)
		if !ok || !strings.Contains(err.Error(), want) || !strings.Contains(want, "Exception") && api.ErrorCode() != "InvalidParameterException" {
			t.Errorf("%s: got %v", want, err)
		}
	}
	// What it is already is no change.
	w.must(nil, update(&ecs.UpdateServiceInput{DeploymentController: external, HealthCheckGracePeriodSeconds: new(int32(60))}))
	if s := w.service(); aws.ToInt32(s.HealthCheckGracePeriodSeconds) != 60 {
		t.Errorf("its grace period is %v", s.HealthCheckGracePeriodSeconds)
	}

}

func TestATokenMakesATaskSetOnceAndFiveAreTheMost(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.external(1)
	set := w.makeSet("1", 0, 0)
	var ids []string
	for range 2 {
		in := w.setInput("1", -1, 0)
		in.ClientToken = new("once")
		out, err := w.ecs.CreateTaskSet(ctx, in)
		w.must(out, err)
		ids = append(ids, *out.TaskSet.Id)
	}
	if ids[0] != ids[1] {
		t.Errorf("one token made two sets: %v", ids)
	}
	for range 3 {
		w.makeSet("1", -1, 0)
	}
	if _, err := w.ecs.CreateTaskSet(ctx, w.setInput("1", -1, 0)); err == nil || !strings.Contains(err.Error(), "5 deployments exist on the service. Unable to create new TaskSet since this exceeds the maximum limit.") {
		t.Errorf("a sixth set: %v", err)
	}
	w.must(w.ecs.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: set.TaskSetArn, Tags: []types.Tag{{Key: new("k"), Value: new("v")}}}))
	if got := said(w.taskSet(set).Tags); got != "k=v" {
		t.Errorf("a set is tagged %q", got)
	}
}
