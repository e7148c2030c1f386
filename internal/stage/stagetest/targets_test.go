package stagetest

import (
	"fmt"
	"strings"
	"testing"

	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

func TestATargetGroupIsCheckedAsItsProtocolAsks(t *testing.T) {
	b := newBalancing(t)
	for name, c := range map[string]struct {
		in   elb.CreateTargetGroupInput
		want string
	}{
		"plain":      {elb.CreateTargetGroupInput{Protocol: "HTTP"}, "HTTP1 HTTP / http=200 5"},
		"secure":     {elb.CreateTargetGroupInput{Protocol: "HTTPS", ProtocolVersion: new("HTTP2")}, "HTTP2 HTTP / http=200 5"},
		"grpc":       {elb.CreateTargetGroupInput{Protocol: "HTTP", ProtocolVersion: new("GRPC")}, "GRPC HTTP /AWS.ALB/healthcheck grpc=12 5"},
		"grpc-named": {elb.CreateTargetGroupInput{Protocol: "HTTP", ProtocolVersion: new("GRPC"), HealthCheckPath: new("/a.B/Check"), Matcher: &types.Matcher{GrpcCode: new("0-5")}}, "GRPC HTTP /a.B/Check grpc=0-5 5"},
		"flows":      {elb.CreateTargetGroupInput{Protocol: "TCP", HealthCheckProtocol: "HTTPS"}, " HTTPS / http=200-399 10"},
	} {
		c.in.Name, c.in.Port, c.in.TargetType = &name, new(int32(80)), types.TargetTypeEnumIp
		out, err := b.elb.CreateTargetGroup(b.ctx, &c.in)
		b.must(out, err)
		again, err := b.elb.CreateTargetGroup(b.ctx, &c.in)
		b.must(again, err)
		g, codes := out.TargetGroups[0], ""
		if m := g.Matcher; m.HttpCode != nil {
			codes = "http=" + *m.HttpCode
		} else {
			codes = "grpc=" + *m.GrpcCode
		}
		version := ""
		if g.ProtocolVersion != nil {
			version = *g.ProtocolVersion
		}
		if got := fmt.Sprint(version, " ", g.HealthCheckProtocol, " ", *g.HealthCheckPath, " ", codes, " ", *g.HealthCheckTimeoutSeconds); got != c.want {
			t.Errorf("%s is %q", name, got)
		}
		if *again.TargetGroups[0].TargetGroupArn != *g.TargetGroupArn {
			t.Errorf("%s is made twice", name)
		}
	}
	changed, err := b.elb.ModifyTargetGroup(b.ctx, &elb.ModifyTargetGroupInput{TargetGroupArn: &b.group, HealthCheckProtocol: "HTTPS", HealthCheckPath: new("/up"), HealthyThresholdCount: new(int32(2))})
	b.must(changed, err)
	if g := changed.TargetGroups[0]; g.HealthCheckProtocol != "HTTPS" || *g.HealthCheckPath != "/up" || *g.Matcher.HttpCode != "200" || len(g.LoadBalancerArns) != 1 || g.LoadBalancerArns[0] != b.balancer {
		t.Errorf("it became %+v", g)
	}
	create := func(in elb.CreateTargetGroupInput) error {
		in.Name, in.Port = new("x"), new(int32(80))
		_, err := b.elb.CreateTargetGroup(b.ctx, &in)
		return err
	}
	b.refuses("lambda", "ValidationError", "TargetType 'lambda' is not performed yet", create(elb.CreateTargetGroupInput{Protocol: "HTTP", TargetType: "lambda"}))
	b.refuses("TLS", "UnsupportedProtocol", "'TLS' is not performed yet", create(elb.CreateTargetGroupInput{Protocol: "TLS"}))
	b.refuses("a version", "ValidationError", "Protocol version 'HTTP3' must be one of 'GRPC, HTTP1, HTTP2'", create(elb.CreateTargetGroupInput{Protocol: "HTTP", ProtocolVersion: new("HTTP3")}))
	b.refuses("TCP checks", "ValidationError", "Health check protocol 'TCP' is not supported", create(elb.CreateTargetGroupInput{Protocol: "HTTP", HealthCheckProtocol: "TCP"}))
	b.refuses("gRPC's codes", "ValidationError", "can only have HTTP codes", create(elb.CreateTargetGroupInput{Protocol: "HTTP", Matcher: &types.Matcher{GrpcCode: new("0")}}))
	b.refuses("a code", "ValidationError", "Health check matcher gRPC code '100' must be within '0-99'", create(elb.CreateTargetGroupInput{Protocol: "HTTP", ProtocolVersion: new("GRPC"), Matcher: &types.Matcher{GrpcCode: new("100")}}))
	b.refuses("a path", "ValidationError", "must have the format '/package.service/method'", create(elb.CreateTargetGroupInput{Protocol: "HTTP", ProtocolVersion: new("GRPC"), HealthCheckPath: new("/health")}))
	b.refuses("other settings", "DuplicateTargetGroupName", "exists, but with different settings", func() error {
		_, err := b.elb.CreateTargetGroup(b.ctx, &elb.CreateTargetGroupInput{Name: new("plain"), Protocol: "HTTP", Port: new(int32(81)), TargetType: "ip"})
		return err
	}())
	grpc, err := b.elb.DescribeTargetGroups(b.ctx, &elb.DescribeTargetGroupsInput{Names: []string{"grpc"}})
	b.must(grpc, err)
	_, err = b.elb.ModifyListener(b.ctx, &elb.ModifyListenerInput{ListenerArn: &b.listener, DefaultActions: []types.Action{{Type: "forward", TargetGroupArn: grpc.TargetGroups[0].TargetGroupArn}}})
	b.refuses("gRPC on HTTP", "InvalidLoadBalancerAction", "Listener protocol 'HTTP' is not supported with a target group with the protocol-version 'GRPC'", err)
}

// attributes are what a request sets, from key=value.
func (b *balancing) setGroup(group string, pairs ...string) error {
	in := &elb.ModifyTargetGroupAttributesInput{TargetGroupArn: &group}
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		in.Attributes = append(in.Attributes, types.TargetGroupAttribute{Key: &key, Value: &value})
	}
	_, err := b.elb.ModifyTargetGroupAttributes(b.ctx, in)
	return err
}

func TestATargetGroupHasTheAttributesOfItsProtocol(t *testing.T) {
	b := newBalancing(t)
	flows := b.groupOf(&elb.CreateTargetGroupInput{Name: new("flows"), Protocol: "TCP", Port: new(int32(80)), TargetType: "instance"})
	for group, want := range map[string]map[string]string{
		b.group: {"deregistration_delay.timeout_seconds": "300", "stickiness.enabled": "true", "stickiness.type": "app_cookie", "stickiness.app_cookie.cookie_name": "SID", "stickiness.app_cookie.duration_seconds": "60",
			"stickiness.lb_cookie.duration_seconds": "86400", "slow_start.duration_seconds": "30", "load_balancing.algorithm.type": "round_robin", "load_balancing.algorithm.anomaly_mitigation": "off"},
		flows: {"preserve_client_ip.enabled": "true", "proxy_protocol_v2.enabled": "true", "stickiness.type": "source_ip", "target_health_state.unhealthy.connection_termination.enabled": "true",
			"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "50"},
	} {
		if group == b.group {
			b.must(nil, b.setGroup(group, "stickiness.enabled=true", "stickiness.type=app_cookie", "stickiness.app_cookie.cookie_name=SID", "stickiness.app_cookie.duration_seconds=60", "slow_start.duration_seconds=30"))
		} else {
			b.must(nil, b.setGroup(group, "proxy_protocol_v2.enabled=true", "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage=50"))
		}
		out, err := b.elb.DescribeTargetGroupAttributes(b.ctx, &elb.DescribeTargetGroupAttributesInput{TargetGroupArn: &group})
		b.must(out, err)
		for _, a := range out.Attributes {
			if w, ok := want[*a.Key]; ok && *a.Value != w {
				t.Errorf("%s is %s", *a.Key, *a.Value)
			}
			delete(want, *a.Key)
		}
		for key := range want {
			t.Errorf("%s is not told", key)
		}
	}
	for _, c := range []struct{ group, pair, code, text string }{
		{b.group, "color=red", "ValidationError", "Target group attribute key 'color' is not recognized"},
		{b.group, "proxy_protocol_v2.enabled=true", "InvalidConfigurationRequest", "is not supported on target groups with protocol 'HTTP'"},
		{flows, "slow_start.duration_seconds=30", "InvalidConfigurationRequest", "is not supported on target groups with protocol 'TCP'"},
		{b.group, "slow_start.duration_seconds=20", "InvalidConfigurationRequest", "The value of 'slow_start.duration_seconds' must be between '30-900' inclusive or 0"},
		{b.group, "load_balancing.algorithm.type=least_outstanding_requests", "InvalidConfigurationRequest", "'slow_start.duration_seconds' cannot be set when"},
		{b.group, "stickiness.app_cookie.cookie_name=AWSALBX", "InvalidConfigurationRequest", "cannot start with 'AWSALB'"},
		{b.group, "stickiness.app_cookie.cookie_name=", "InvalidConfigurationRequest", "must be specified when 'stickiness.type' is 'app_cookie'"},
		{b.group, "stickiness.lb_cookie.duration_seconds=604801", "InvalidConfigurationRequest", "must be between '1-604800' inclusive"},
		{b.group, "load_balancing.algorithm.anomaly_mitigation=on", "ValidationError", "as off; 'on' is not performed yet"},
		{b.group, "stickiness.enabled=yes", "InvalidConfigurationRequest", "must be one of 'false, true'"},
	} {
		b.refuses(c.pair, c.code, c.text, b.setGroup(c.group, c.pair))
	}
}

func TestATargetIsAnAddressOrAnInstanceThatRuns(t *testing.T) {
	b := newBalancing(t)
	instances := b.groupOf(&elb.CreateTargetGroupInput{Name: new("hosts"), Protocol: "HTTP", Port: new(int32(80)), TargetType: "instance"})
	register := func(group string, targets ...types.TargetDescription) error {
		_, err := b.elb.RegisterTargets(b.ctx, &elb.RegisterTargetsInput{TargetGroupArn: &group, Targets: targets})
		return err
	}
	at := func(id string) types.TargetDescription { return types.TargetDescription{Id: &id} }
	b.refuses("a name", "InvalidTarget", "The IP address 'web' is not a valid IPv4 address", register(b.group, at("web")))
	b.refuses("a public address", "InvalidTarget", "is not within a range", register(b.group, at("8.8.8.8")))
	b.refuses("an address", "ValidationError", "Instance ID '10.0.0.1' is not valid", register(instances, at("10.0.0.1")))
	b.refuses("no instance", "InvalidTarget", "The instance ID 'i-0123456789abcdef0' does not exist", register(instances, at("i-0123456789abcdef0")))
	b.refuses("a port", "ValidationError", "Value '70000'", register(b.group, types.TargetDescription{Id: new("10.0.0.1"), Port: new(int32(70000))}))

	b.must(nil, register(b.group, types.TargetDescription{Id: new("10.0.0.1"), AvailabilityZone: new("all")}, types.TargetDescription{Id: new("10.0.0.1"), Port: new(int32(81))}, at("10.0.0.2")))
	health := func(include bool, targets ...types.TargetDescription) []types.TargetHealthDescription {
		in := &elb.DescribeTargetHealthInput{TargetGroupArn: &b.group, Targets: targets}
		if include {
			in.Include = []types.DescribeTargetHealthInputIncludeEnum{types.DescribeTargetHealthInputIncludeEnumAll}
		}
		out, err := b.elb.DescribeTargetHealth(b.ctx, in)
		b.must(out, err)
		return out.TargetHealthDescriptions
	}
	all := health(true)
	if len(all) != 3 || *all[0].Target.AvailabilityZone != "all" || *all[1].Target.Port != 81 || all[0].AnomalyDetection.Result != types.AnomalyResultEnumNormal || all[0].AdministrativeOverride.State != types.TargetAdministrativeOverrideStateEnumNoOverride {
		t.Errorf("the targets are %+v", all)
	}
	some := health(false, at("10.0.0.9"), at("10.0.0.2"))
	if len(some) != 2 || some[0].AnomalyDetection != nil || some[1].TargetHealth.Reason != types.TargetHealthReasonEnumNotRegistered || *some[1].TargetHealth.Description != "Target is not registered to the target group" {
		t.Errorf("those asked for are %+v", some)
	}
	_, err := b.elb.DeregisterTargets(b.ctx, &elb.DeregisterTargetsInput{TargetGroupArn: &b.group, Targets: []types.TargetDescription{at("10.0.0.1")}})
	b.must(nil, err)
	for _, h := range health(false) {
		if h.TargetHealth.State == types.TargetHealthStateEnumDraining && *h.Target.Port == 81 {
			t.Errorf("a target at another port drains: %+v", h)
		}
	}
	many := make([]types.TargetDescription, 1001)
	for i := range many {
		many[i] = at(fmt.Sprintf("10.1.%d.%d", i/256, i%256))
	}
	b.refuses("too many", "TooManyTargets", "1000", register(b.group, many...))
}
