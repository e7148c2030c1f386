package stagetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"
)

// blueGreen bakes no time at all.
func blueGreen() *types.DeploymentConfiguration {
	return &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyBlueGreen, DeploymentCircuitBreaker: breaker, BakeTimeInMinutes: new(int32(0))}
}

// shifting is a request for a canary service that is right.
func (w *world) shifting() *ecs.CreateServiceInput {
	return &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(1)), DeploymentConfiguration: canary(),
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}},
		LoadBalancers: []types.LoadBalancer{{TargetGroupArn: &w.groups[0], ContainerName: new("web"), ContainerPort: new(int32(8080)),
			AdvancedConfiguration: &types.AdvancedConfiguration{AlternateTargetGroupArn: &w.groups[1], ProductionListenerRule: &w.rule, RoleArn: new("arn:aws:iam::" + Account + ":role/infra")}}}}
}

// forwardTo makes the rule forward to groups, all of the traffic to the first.
func (w *world) forwardTo(groups ...string) {
	w.t.Helper()
	var tuples []elbtypes.TargetGroupTuple
	for i, g := range groups {
		tuples = append(tuples, elbtypes.TargetGroupTuple{TargetGroupArn: &g, Weight: new(int32(max(100-100*i, 0)))})
	}
	w.must(w.elb.ModifyRule(w.t.Context(), &elb.ModifyRuleInput{RuleArn: &w.rule, Actions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, ForwardConfig: &elbtypes.ForwardActionConfig{TargetGroups: tuples}}}}))
}

// group makes another target group, which no rule forwards to.
func (w *world) group(name string) string {
	w.t.Helper()
	out, err := w.elb.CreateTargetGroup(w.t.Context(), &elb.CreateTargetGroupInput{Name: &name, Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(8080)), TargetType: elbtypes.TargetTypeEnumIp})
	w.must(out, err)
	return *out.TargetGroups[0].TargetGroupArn
}

// The texts are ECS's, documented or observed.
func TestWhatAServiceIsRefusedFor(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.define("1")
		lonely := w.group("lonely")
		second := func(in *ecs.CreateServiceInput) *types.LoadBalancer {
			in.LoadBalancers = append(in.LoadBalancers, types.LoadBalancer{TargetGroupArn: &lonely, ContainerName: new("web"), ContainerPort: new(int32(8080))})
			return &in.LoadBalancers[1]
		}
		function := functionAt(checker, types.DeploymentLifecycleHookStagePreScaleUp)
		for _, c := range []struct {
			want   string
			change func(*ecs.CreateServiceInput)
		}{
			{"productionListenerRule has an invalid ARN format. Must be RuleArn for ALB or ListenerArn for NLB. Got: nonsense", func(in *ecs.CreateServiceInput) {
				in.LoadBalancers[0].AdvancedConfiguration.ProductionListenerRule = new("nonsense")
			}},
			{"The following rules cannot be used as both production and test listener rules: " + w.rule, func(in *ecs.CreateServiceInput) {
				in.LoadBalancers[0].AdvancedConfiguration.TestListenerRule = &w.rule
			}},
			{"For Application LoadBalancer, testListenerRule is required when productionListenerRule is not associated with both targetGroup and alternateTargetGroup", func(in *ecs.CreateServiceInput) {
				in.LoadBalancers[0].AdvancedConfiguration.AlternateTargetGroupArn = &lonely
			}},
			{"Duplicate targetGroupArn found: " + w.groups[0], func(in *ecs.CreateServiceInput) {
				in.LoadBalancers[0].AdvancedConfiguration.AlternateTargetGroupArn = &w.groups[0]
			}},
			{"All loadBalancers must be strictly either ELBv1 (defining loadBalancerName) or ELBv2 (defining targetGroupArn)", func(in *ecs.CreateServiceInput) {
				in.LoadBalancers[0].TargetGroupArn = nil
			}},
			{"Either all or none of the provided loadBalancers must have advancedConfiguration defined", func(in *ecs.CreateServiceInput) { second(in) }},
			{"advancedConfiguration field is required for all loadBalancers when using a non-ROLLING deployment strategy", func(in *ecs.CreateServiceInput) {
				in.LoadBalancers[0].AdvancedConfiguration = nil
			}},
			{"Invalid targetType. Valid values are: AWS_LAMBDA, PAUSE", func(in *ecs.CreateServiceInput) {
				in.DeploymentConfiguration.LifecycleHooks = []types.DeploymentLifecycleHook{{TargetType: "BELL"}}
			}},
			{"Invalid lifecycle stage provided for Pause Hook", func(in *ecs.CreateServiceInput) {
				in.DeploymentConfiguration.LifecycleHooks = pauseAt(types.DeploymentLifecycleHookStageTestTrafficShift)
			}},
			{"Lifecycle stage cannot be null or empty for any deployment lifecycle hooks", func(in *ecs.CreateServiceInput) { in.DeploymentConfiguration.LifecycleHooks = pauseAt() }},
			{"Role arn or Hook Target arn is missing for one or more deployment lifecycle hooks", func(in *ecs.CreateServiceInput) {
				in.DeploymentConfiguration.LifecycleHooks = []types.DeploymentLifecycleHook{{LifecycleStages: function[0].LifecycleStages, HookTargetArn: function[0].HookTargetArn}}
			}},
			{"Linear configuration can only be present with LINEAR deployment strategy", func(in *ecs.CreateServiceInput) {
				in.DeploymentConfiguration.LinearConfiguration = &types.LinearConfiguration{}
			}},
			{"Canary configuration can only be present with CANARY deployment strategy", func(in *ecs.CreateServiceInput) {
				in.DeploymentConfiguration.Strategy = types.DeploymentStrategyBlueGreen
			}},
			{"Invalid deployment circuit breaker threshold value.", func(in *ecs.CreateServiceInput) {
				in.DeploymentConfiguration.DeploymentCircuitBreaker = &types.DeploymentCircuitBreaker{ThresholdConfiguration: &types.ThresholdConfiguration{Type: types.ThresholdTypeBoundedPercent, Value: 101}}
			}},
			{"Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.", func(in *ecs.CreateServiceInput) {
				in.DeploymentConfiguration.MaximumPercent = new(int32(100))
			}},
			{"minimumHealthyPercent must be at most 100", func(in *ecs.CreateServiceInput) {
				in.DeploymentConfiguration.MinimumHealthyPercent = new(int32(101))
			}},
			{"maximumPercent must be at least 100", func(in *ecs.CreateServiceInput) { in.DeploymentConfiguration.MaximumPercent = new(int32(99)) }},
			{"The container web did not have a container port 9090 defined", func(in *ecs.CreateServiceInput) { in.LoadBalancers[0].ContainerPort = new(int32(9090)) }},
			{"The target group with targetGroupArn " + lonely + " does not have an associated load balancer.", func(in *ecs.CreateServiceInput) {
				in.LoadBalancers[0].TargetGroupArn = &lonely
			}},
			{"healthCheckGracePeriodSeconds must be between 0 and 2147483647, got -1.", func(in *ecs.CreateServiceInput) { in.HealthCheckGracePeriodSeconds = new(int32(-1)) }},
			{"desiredCount must be between 0 and 5000, got 5001.", func(in *ecs.CreateServiceInput) { in.DesiredCount = new(int32(5001)) }},
		} {
			in := w.shifting()
			c.change(in)
			_, err := w.ecs.CreateService(t.Context(), in)
			if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != "InvalidParameterException" || api.ErrorMessage() != c.want {
				t.Errorf("got %v, want\n%s", err, c.want)
			}
		}
		for _, half := range []string{`{"value":5}`, `{"type":"COUNT"}`} { // the SDK itself would not send it
			if said := w.raw("CreateService", `{"serviceName":"s","taskDefinition":"web","desiredCount":1,"networkConfiguration":{"awsvpcConfiguration":{"subnets":["a"]}},"deploymentConfiguration":{"deploymentCircuitBreaker":{"enable":true,"rollback":true,"thresholdConfiguration":`+half+`}}}`); said != `{"__type":"InvalidParameterException","message":"Invalid deployment circuit breaker threshold value."}` {
				t.Errorf("the threshold %s gives %s", half, said)
			}
		}
		for want, definition := range map[string]string{"TaskDefinition not found.": "none", "TaskDefinition is inactive": w.inactive()} {
			in := w.shifting()
			in.TaskDefinition = &definition
			if _, err := w.ecs.CreateService(t.Context(), in); code(err) != "ClientException" || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		// A rule that names both groups needs no test rule, nor does one with a test rule.
		w.must(w.ecs.CreateService(t.Context(), w.shifting()))
	})
}

// inactive is a task definition that was deregistered.
func (w *world) inactive() string {
	w.t.Helper()
	d := w.define("old")
	w.must(w.ecs.DeregisterTaskDefinition(w.t.Context(), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &d}))
	return d
}

func TestNamesThatNameNothing(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", nil)
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		w.must(w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("gone"), TaskDefinition: new("web"), DesiredCount: new(int32(0)), NetworkConfiguration: w.service().NetworkConfiguration}))
		w.must(w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("gone")}))
		update := func(service, cluster string) error {
			_, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: &service, Cluster: &cluster})
			return err
		}
		_, stop := w.ecs.StopServiceDeployment(t.Context(), &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: new(strings.Replace(first, "/s/", "/t/", 1))})
		_, abort := w.ecs.StopServiceDeployment(t.Context(), &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &first, StopType: types.StopServiceDeploymentStopTypeAbort})
		_, list := w.ecs.ListServiceDeployments(t.Context(), &ecs.ListServiceDeploymentsInput{Service: new("none")})
		_, scaled := w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s")})
		for _, c := range []struct {
			err        error
			code, text string
		}{
			{update("none", "default"), "ServiceNotFoundException", "Service not found."},
			{update("gone", "default"), "ServiceNotActiveException", "Service was not ACTIVE."},
			{update("s", "none"), "ClusterNotFoundException", "Cluster not found."},
			{list, "ServiceNotFoundException", "Service not found."},
			{stop, "ServiceDeploymentNotFoundException", "The service deployment does not exist."},
			{abort, "InvalidParameterException", "The stopType ABORT is not supported. Valid values are ROLLBACK."},
			{scaled, "InvalidParameterException", "The service cannot be stopped while it is scaled above 0."},
		} {
			if code(c.err) != c.code || !strings.HasSuffix(c.err.Error(), c.text) {
				t.Errorf("got %v, want %s: %s", c.err, c.code, c.text)
			}
		}
	})
}

// What ECS finds out only when the deployment begins, or later: each ends with a
// reason that names it, and an event that says the same.
func TestWhatADeploymentFailsFor(t *testing.T) {
	const network = "of invalid networking configuration"
	for name, c := range map[string]struct {
		breaks func(*world) string // and returns how the reason goes on
		tag    string
		event  string // how the event says it, where it is not the reason
	}{
		"the rule forwards to the serving group alone": {breaks: func(w *world) string {
			w.forwardTo(w.groups[1])
			return network + ": Target group " + w.groups[0] + " is not associated with either productionListenerRule or testListenerRule."
		}},
		"the rule forwards to another group": {breaks: func(w *world) string {
			other := w.group("other")
			w.forwardTo(other, w.groups[0], w.groups[1])
			return network + ". Production listener rule is forwarding traffic to unexpected target group " + other + ". Expected traffic to be forwarded to either targetGroupArn: " + w.groups[0] + " or alternateTargetGroupArn: " + w.groups[1]
		}},
		"the rule forwards nowhere": {breaks: func(w *world) string {
			w.must(w.elb.ModifyRule(w.t.Context(), &elb.ModifyRuleInput{RuleArn: &w.rule, Actions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumFixedResponse, FixedResponseConfig: &elbtypes.FixedResponseActionConfig{StatusCode: new("503")}}}}))
			return network + ". Both targetGroup and alternateTargetGroup must be associated with the productionListenerRule or testListenerRule."
		}},
		"the rule is gone": {breaks: func(w *world) string {
			w.must(w.elb.DeleteListener(w.t.Context(), &elb.DeleteListenerInput{ListenerArn: new(strings.Replace(w.rule[:strings.LastIndex(w.rule, "/")], ":listener-rule/", ":listener/", 1))}))
			return network + ". One or more rules not found"
		}},
		"the role may nothing any more": {breaks: func(w *world) string {
			w.must(w.iam.DetachRolePolicy(w.t.Context(), &iam.DetachRolePolicyInput{RoleName: new("infra"), PolicyArn: new("arn:aws:iam::aws:policy/AmazonECSInfrastructureRolePolicyForLoadBalancers")}))
			return network + ". ECS was unable to manage the ELB resources due to missing permissions on ECS Infrastructure Role 'arn:aws:iam::" + Account + ":role/infra'."
		}},
		"no task starts": {breaks: func(*world) string { return "the circuit breaker threshold was exceeded." }, tag: "missing", event: "tasks failed to start."},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, w *world) {
				first, err := w.create("1", blueGreen())
				w.must(nil, err)
				w.ends(first, types.ServiceDeploymentStatusSuccessful)
				want := "Service deployment rolled back because " + c.breaks(w)
				tag := "2"
				if c.tag != "" {
					tag = c.tag
				}
				second := w.update(tag)
				var d types.ServiceDeployment
				w.until("it turns back", func() bool { d = w.look(second); return d.Rollback != nil })
				if *d.StatusReason != want || *d.Rollback.Reason != want || *d.Rollback.ServiceRevisionArn != *w.look(first).TargetServiceRevision.Arn {
					t.Errorf("it ended\n%s, want\n%s\n%+v", *d.StatusReason, want, d.Rollback)
				}
				if c.event == "" {
					c.event = want
				}
				if !w.said("deployment failed: " + c.event) {
					t.Error("no event says so")
				}
			})
		})
	}
}
