package stagetest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"

	"serin/internal/memnet"
)

// network is a world behind a network load balancer, with a listener for tests.
type network struct {
	*world
	balancer, test string // ARNs
	address        string
}

// behindNetwork runs a test in a bubble with such a world in it.
func behindNetwork(t *testing.T, test func(*testing.T, *network)) {
	t.Helper()
	bubble(t, nil, func(t *testing.T, w *world) {
		n := &network{world: w}
		lb, err := w.elb.CreateLoadBalancer(t.Context(), &elb.CreateLoadBalancerInput{Name: new("edge"), Subnets: []string{"a"}, Type: elbtypes.LoadBalancerTypeEnumNetwork})
		w.must(lb, err)
		n.balancer, n.address = *lb.LoadBalancers[0].LoadBalancerArn, *lb.LoadBalancers[0].DNSName
		for i := range w.groups {
			g, err := w.elb.CreateTargetGroup(t.Context(), &elb.CreateTargetGroupInput{Name: new(fmt.Sprint("n", i)), Protocol: elbtypes.ProtocolEnumTcp, Port: new(int32(8080)), TargetType: elbtypes.TargetTypeEnumIp})
			w.must(g, err)
			w.groups[i] = *g.TargetGroups[0].TargetGroupArn
		}
		w.rule, n.test = n.listen(8088), n.listen(8089)
		test(t, n)
	})
}

// listen makes a listener whose traffic is the first group's.
func (w *network) listen(port int32) string {
	w.t.Helper()
	l, err := w.elb.CreateListener(w.t.Context(), &elb.CreateListenerInput{LoadBalancerArn: &w.balancer, Port: &port, Protocol: elbtypes.ProtocolEnumTcp, DefaultActions: []elbtypes.Action{w.forward(100, 0)}})
	w.must(l, err)
	return *l.Listeners[0].ListenerArn
}

// dialer is a client with connections of its own.
func (w *network) dialer() (*http.Client, *http.Transport) {
	transport := w.client.Transport.(memnet.Transport).Clone()
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, transport
}

// forward is an action with the weights of the two groups.
func (w *world) forward(weights ...int32) elbtypes.Action {
	a := elbtypes.Action{Type: elbtypes.ActionTypeEnumForward, ForwardConfig: &elbtypes.ForwardActionConfig{}}
	for i := range weights {
		a.ForwardConfig.TargetGroups = append(a.ForwardConfig.TargetGroups, elbtypes.TargetGroupTuple{TargetGroupArn: &w.groups[i], Weight: &weights[i]})
	}
	return a
}

// share is the weights of a listener.
func (w *network) share(listener string) (a, b int32) {
	w.t.Helper()
	out, err := w.elb.DescribeListeners(w.t.Context(), &elb.DescribeListenersInput{ListenerArns: []string{listener}})
	w.must(out, err)
	tuples := out.Listeners[0].DefaultActions[0].ForwardConfig.TargetGroups
	if *tuples[0].TargetGroupArn != w.groups[0] {
		tuples[0], tuples[1] = tuples[1], tuples[0]
	}
	return *tuples[0].Weight, *tuples[1].Weight
}

func (w *network) advanced() *types.AdvancedConfiguration {
	return &types.AdvancedConfiguration{AlternateTargetGroupArn: &w.groups[1], ProductionListenerRule: &w.rule, TestListenerRule: &w.test, RoleArn: new("arn:aws:iam::" + Account + ":role/infra")}
}

// serve makes the service s of one task.
func (w *network) serve(tag string, adv *types.AdvancedConfiguration, c *types.DeploymentConfiguration) (string, error) {
	out, err := w.ecs.CreateService(w.t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new(w.define(tag)), DesiredCount: new(int32(1)), DeploymentConfiguration: c,
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}},
		LoadBalancers:        []types.LoadBalancer{{TargetGroupArn: &w.groups[0], ContainerName: new("web"), ContainerPort: new(int32(8080)), AdvancedConfiguration: adv}}})
	if err != nil {
		return "", err
	}
	return *out.Service.CurrentServiceDeployment, nil
}

// ask is what answers at a port of the load balancer.
func (w *network) ask(c *http.Client, port string) string {
	resp, err := c.Get("http://" + w.address + ":" + port + "/")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// Every shift is held for ten minutes; a connection that is open stays with the
// old tasks until they have drained.
func TestACanaryBehindANetworkLoadBalancer(t *testing.T) {
	behindNetwork(t, func(t *testing.T, w *network) {
		first, err := w.serve("1", w.advanced(), &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyCanary, BakeTimeInMinutes: new(int32(0)),
			CanaryConfiguration: &types.CanaryConfiguration{CanaryPercent: new(10.0), CanaryBakeTimeInMinutes: new(int32(1))}})
		w.must(first, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)

		listeners, err := w.elb.DescribeListeners(t.Context(), &elb.DescribeListenersInput{LoadBalancerArn: &w.balancer})
		w.must(listeners, err)
		for _, l := range listeners.Listeners { // a connection may be silent for longer than 350 s
			w.must(w.elb.ModifyListenerAttributes(t.Context(), &elb.ModifyListenerAttributesInput{ListenerArn: l.ListenerArn, Attributes: []elbtypes.ListenerAttribute{{Key: new("tcp.idle_timeout.seconds"), Value: new("6000")}}}))
		}
		synctest.Wait() // until the listeners have it
		open, _ := w.dialer()
		fresh, transport := w.dialer()
		transport.DisableKeepAlives = true
		if got := w.ask(open, "8088"); got != "1" {
			t.Fatalf("before the shift %q answers", got)
		}
		second := w.update("2")
		w.until("the test traffic shifts", func() bool { return w.ask(fresh, "8089") == "2" })
		d := w.look(second)
		if a, b := w.share(w.rule); a != 0 || b != 100 || d.LifecycleStage != types.ServiceDeploymentLifecycleStageTestTrafficShift {
			t.Errorf("in %s the weights are %d/%d", d.LifecycleStage, a, b)
		}
		w.until("the canary has its share", func() bool { a, b := w.share(w.rule); return a == 10 && b == 90 })
		w.until("all new connections are the target's", func() bool {
			a, _ := w.share(w.rule)
			return a == 100 && w.ask(fresh, "8088") == "2"
		})
		if got := w.ask(open, "8088"); got != "1" {
			t.Errorf("after the shift %q answers the connection that was open", got)
		}
		d = w.ends(second, types.ServiceDeploymentStatusSuccessful)
		// Three shifts of ten minutes, a step's bake of one, a deregistration of five.
		if took := d.FinishedAt.Sub(*d.StartedAt); took < 36*time.Minute || took > 38*time.Minute {
			t.Errorf("it took %v", took)
		}
		if got := w.ask(open, "8088"); got != "2" {
			t.Errorf("when the old task is gone %q answers", got)
		}
	})
}

func TestARollingServiceBehindANetworkLoadBalancer(t *testing.T) {
	behindNetwork(t, func(t *testing.T, w *network) {
		c, transport := w.dialer()
		transport.DisableKeepAlives = true
		first, err := w.serve("1", nil, nil)
		w.must(first, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		if got := w.ask(c, "8088"); got != "1" {
			t.Errorf("%q answers when 1 is deployed", got)
		}
		w.ends(w.update("2"), types.ServiceDeploymentStatusSuccessful)
		if got := w.ask(c, "8088"); got != "2" {
			t.Errorf("%q answers when 2 is deployed", got)
		}
	})
}

func TestTheRoleMustMayModifyTheListener(t *testing.T) {
	behindNetwork(t, func(t *testing.T, w *network) {
		w.must(w.iam.DetachRolePolicy(t.Context(), &iam.DetachRolePolicyInput{RoleName: new("infra"), PolicyArn: new("arn:aws:iam::aws:policy/AmazonECSInfrastructureRolePolicyForLoadBalancers")}))
		w.must(w.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("infra"), PolicyName: new("rules"),
			PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["elasticloadbalancing:ModifyRule","elasticloadbalancing:RegisterTargets","elasticloadbalancing:DeregisterTargets"],"Resource":"*"}]}`)}))
		d, err := w.serve("1", w.advanced(), &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyBlueGreen})
		w.must(d, err)
		w.ends(d, types.ServiceDeploymentStatusRollbackFailed)
		if want := "/ECSNetworkingWithELB is not authorized to perform: elasticloadbalancing:ModifyListener on resource: " + w.rule; !w.said(want) {
			t.Errorf("no event says %q", want)
		}
	})
}

func TestWhatAServiceBehindANetworkLoadBalancerMayNotBe(t *testing.T) {
	behindNetwork(t, func(t *testing.T, w *network) {
		g, err := w.elb.CreateTargetGroup(t.Context(), &elb.CreateTargetGroupInput{Name: new("web"), Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(80)), TargetType: elbtypes.TargetTypeEnumIp})
		w.must(g, err)
		rules, err := w.elb.DescribeRules(t.Context(), &elb.DescribeRulesInput{ListenerArn: &w.rule})
		w.must(rules, err)
		other := "arn:aws:elasticloadbalancing:us-east-1:" + Account + ":listener-rule/app/lb/1/2/3"
		for want, change := range map[string]func(*types.AdvancedConfiguration){
			"productionListenerRule has an invalid ARN format. Must be RuleArn for ALB or ListenerArn for NLB. Got: " + w.balancer: func(a *types.AdvancedConfiguration) { a.ProductionListenerRule = &w.balancer },
			"Got: " + *rules.Rules[0].RuleArn: func(a *types.AdvancedConfiguration) { a.ProductionListenerRule = rules.Rules[0].RuleArn },
			"The following rules cannot be used as both production and test listener rules: " + w.rule: func(a *types.AdvancedConfiguration) { a.TestListenerRule = &w.rule },
			"must both be a RuleArn for ALB or both a ListenerArn for NLB":                             func(a *types.AdvancedConfiguration) { a.TestListenerRule = &other },
			"with protocol HTTP cannot be used with productionListenerRule":                            func(a *types.AdvancedConfiguration) { a.AlternateTargetGroupArn = g.TargetGroups[0].TargetGroupArn },
		} {
			adv := w.advanced()
			change(adv)
			_, err := w.serve("1", adv, &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyLinear})
			api, ok := errors.AsType[smithy.APIError](err)
			if !ok || api.ErrorCode() != "InvalidParameterException" || !strings.Contains(api.ErrorMessage(), want) {
				t.Errorf("%s: got %v", want, err)
			}
		}
	})
}

func TestWhatANetworkLoadBalancerMayNotBe(t *testing.T) {
	behindNetwork(t, func(t *testing.T, w *network) {
		ctx, e := t.Context(), w.elb
		listener := func(p elbtypes.ProtocolEnum, a elbtypes.Action) error {
			_, err := e.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: &w.balancer, Port: new(int32(7000)), Protocol: p, DefaultActions: []elbtypes.Action{a}})
			return err
		}
		group := func(in elb.CreateTargetGroupInput) (string, error) {
			in.Name, in.Port, in.TargetType = new("other"), new(int32(80)), elbtypes.TargetTypeEnumIp
			out, err := e.CreateTargetGroup(ctx, &in)
			if err != nil {
				return "", err
			}
			return *out.TargetGroups[0].TargetGroupArn, nil
		}
		failed := func(_ any, err error) error { return err }
		attribute := func(key, value string) error {
			return failed(e.ModifyTargetGroupAttributes(ctx, &elb.ModifyTargetGroupAttributesInput{TargetGroupArn: &w.groups[0], Attributes: []elbtypes.TargetGroupAttribute{{Key: &key, Value: &value}}}))
		}
		rules, err := e.DescribeRules(ctx, &elb.DescribeRulesInput{ListenerArn: &w.rule})
		w.must(rules, err)
		if r := rules.Rules; len(r) != 1 || !*r[0].IsDefault || !strings.Contains(*r[0].RuleArn, ":listener-rule/net/edge/") {
			t.Errorf("its rules are %+v", rules.Rules)
		}
		web, err := group(elb.CreateTargetGroupInput{Protocol: elbtypes.ProtocolEnumHttp})
		w.must(web, err)
		alb, err := e.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("other"), Subnets: []string{"a"}})
		w.must(alb, err)
		path := []elbtypes.RuleCondition{{Field: new("path-pattern"), Values: []string{"/x"}}}
		for _, c := range []struct {
			code, text string
			err        error
		}{
			{"ValidationError", "Listener protocol 'HTTP' must be one of 'TLS, TCP, TCP_UDP, UDP'", listener("HTTP", w.forward(1))},
			{"ValidationError", "A certificate must be specified for TLS listeners", listener("TLS", w.forward(1))},
			{"UnsupportedProtocol", "Protocol 'UDP' is not performed yet", listener("UDP", w.forward(1))},
			{"ValidationError", "A listener protocol must be specified", listener("", w.forward(1))},
			{"InvalidLoadBalancerAction", "'fixed-response' is not valid with a network load balancer", listener("TCP", elbtypes.Action{Type: "fixed-response", FixedResponseConfig: &elbtypes.FixedResponseActionConfig{StatusCode: new("200")}})},
			{"IncompatibleProtocols", "have incompatible protocols: 'TCP' and 'HTTP'", listener("TCP", elbtypes.Action{Type: "forward", TargetGroupArn: &web})},
			{"ValidationError", "Rules are unsupported for Network Load Balancer listeners", failed(e.CreateRule(ctx, &elb.CreateRuleInput{ListenerArn: &w.rule, Priority: new(int32(1)), Conditions: path, Actions: []elbtypes.Action{w.forward(1)}}))},
			{"ValidationError", "Rules are unsupported", failed(e.ModifyRule(ctx, &elb.ModifyRuleInput{RuleArn: rules.Rules[0].RuleArn, Actions: []elbtypes.Action{w.forward(1)}}))},
			{"ValidationError", "Listener protocol 'HTTP' must be one of", failed(e.ModifyListener(ctx, &elb.ModifyListenerInput{ListenerArn: &w.rule, Protocol: "HTTP"}))},
			{"ValidationError", "Listener protocol 'TCP' must be one of 'HTTPS, HTTP'", failed(e.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: alb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(80)), Protocol: "TCP", DefaultActions: []elbtypes.Action{w.forward(1)}}))},
			{"IncompatibleProtocols", "have incompatible protocols: 'HTTP' and 'TCP'", failed(e.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: alb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(80)), Protocol: "HTTP", DefaultActions: []elbtypes.Action{w.forward(1)}}))},
			{"UnsupportedProtocol", "'UDP' is not performed yet", failed(group(elb.CreateTargetGroupInput{Protocol: "UDP"}))},
			{"ValidationError", "ProtocolVersion cannot be specified", failed(group(elb.CreateTargetGroupInput{Protocol: "TCP", ProtocolVersion: new("HTTP1")}))},
			{"ValidationError", "not supported for health checks with protocol TCP", failed(group(elb.CreateTargetGroupInput{Protocol: "TCP", HealthCheckPath: new("/")}))},
			{"ValidationError", "Health check protocol 'UDP' is not supported for target groups with protocol 'TCP'", failed(group(elb.CreateTargetGroupInput{Protocol: "TCP", HealthCheckProtocol: "UDP"}))},
			{"ValidationError", "must be within '200-599'", failed(group(elb.CreateTargetGroupInput{Protocol: "TCP", HealthCheckProtocol: "HTTP", Matcher: &elbtypes.Matcher{HttpCode: new("600")}}))},
			{"ValidationError", "'target_health_state.unhealthy.draining_interval_seconds' as 0; '1' is not performed yet", attribute("target_health_state.unhealthy.draining_interval_seconds", "1")},
		} {
			api, ok := errors.AsType[smithy.APIError](c.err)
			if !ok || api.ErrorCode() != c.code || !strings.Contains(api.ErrorMessage(), c.text) {
				t.Errorf("%s %s: got %v", c.code, c.text, c.err)
			}
		}
	})
}

func TestATargetGroupOfConnectionsTellsWhatItIs(t *testing.T) {
	behindNetwork(t, func(t *testing.T, w *network) {
		ctx := t.Context()
		in := &elb.CreateTargetGroupInput{Name: new("web"), Protocol: elbtypes.ProtocolEnumTcp, Port: new(int32(80)), TargetType: elbtypes.TargetTypeEnumIp, HealthCheckProtocol: elbtypes.ProtocolEnumHttp}
		out, err := w.elb.CreateTargetGroup(ctx, in)
		w.must(out, err)
		if g := out.TargetGroups[0]; *g.HealthCheckPath != "/" || *g.Matcher.HttpCode != "200-399" || *g.HealthCheckTimeoutSeconds != 6 || g.ProtocolVersion != nil {
			t.Errorf("checked over HTTP it is %+v", g)
		}
		changed, err := w.elb.ModifyTargetGroup(ctx, &elb.ModifyTargetGroupInput{TargetGroupArn: out.TargetGroups[0].TargetGroupArn, HealthCheckProtocol: elbtypes.ProtocolEnumTcp})
		w.must(changed, err)
		if g := changed.TargetGroups[0]; g.HealthCheckPath != nil || g.Matcher != nil || g.HealthCheckProtocol != elbtypes.ProtocolEnumTcp || g.Protocol != elbtypes.ProtocolEnumTcp {
			t.Errorf("checked over TCP it is %+v", g)
		}
		for key, value := range map[string]string{"deregistration_delay.connection_termination.enabled": "true", "load_balancing.cross_zone.enabled": "true", "preserve_client_ip.enabled": "false"} {
			w.must(w.elb.ModifyTargetGroupAttributes(ctx, &elb.ModifyTargetGroupAttributesInput{TargetGroupArn: &w.groups[0], Attributes: []elbtypes.TargetGroupAttribute{{Key: &key, Value: &value}}}))
			all, err := w.elb.DescribeTargetGroupAttributes(ctx, &elb.DescribeTargetGroupAttributesInput{TargetGroupArn: &w.groups[0]})
			w.must(all, err)
			found := false
			for _, a := range all.Attributes {
				found = found || *a.Key == key && *a.Value == value
			}
			if !found {
				t.Errorf("%s=%s does not come back in %v", key, value, all.Attributes)
			}
		}
	})
}
