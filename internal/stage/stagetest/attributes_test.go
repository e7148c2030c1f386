package stagetest

import (
	"strings"
	"testing"

	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

func (b *balancing) setBalancer(balancer string, pairs ...string) error {
	in := &elb.ModifyLoadBalancerAttributesInput{LoadBalancerArn: &balancer}
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		in.Attributes = append(in.Attributes, types.LoadBalancerAttribute{Key: &key, Value: &value})
	}
	_, err := b.elb.ModifyLoadBalancerAttributes(b.ctx, in)
	return err
}

func (b *balancing) setListener(pairs ...string) error {
	in := &elb.ModifyListenerAttributesInput{ListenerArn: &b.listener}
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		in.Attributes = append(in.Attributes, types.ListenerAttribute{Key: &key, Value: &value})
	}
	_, err := b.elb.ModifyListenerAttributes(b.ctx, in)
	return err
}

func TestALoadBalancerHasTheAttributesOfItsType(t *testing.T) {
	b := newBalancing(t)
	b.must(nil, b.setBalancer(b.balancer, "idle_timeout.timeout_seconds=4000", "access_logs.s3.enabled=true", "access_logs.s3.bucket=logs", "routing.http2.enabled=false"))
	out, err := b.elb.DescribeLoadBalancerAttributes(b.ctx, &elb.DescribeLoadBalancerAttributesInput{LoadBalancerArn: &b.balancer})
	b.must(out, err)
	told := map[string]string{}
	for _, a := range out.Attributes {
		told[*a.Key] = *a.Value
	}
	for key, want := range map[string]string{"idle_timeout.timeout_seconds": "4000", "client_keep_alive.seconds": "3600", "routing.http.desync_mitigation_mode": "defensive", "routing.http2.enabled": "false",
		"deletion_protection.enabled": "false", "access_logs.s3.prefix": "", "routing.http.xff_header_processing.mode": "append", "load_balancing.cross_zone.enabled": "true"} {
		if got, ok := told[key]; !ok || got != want {
			t.Errorf("%s is %q", key, got)
		}
	}
	nlb := b.balance("edge", types.LoadBalancerTypeEnumNetwork)
	for _, c := range []struct{ balancer, pair, code, text string }{
		{b.balancer, "color=red", "ValidationError", "Load balancer attribute key 'color' is not recognized"},
		{nlb, "idle_timeout.timeout_seconds=60", "InvalidConfigurationRequest", "Load balancer attribute key 'idle_timeout.timeout_seconds' is not supported on load balancers with type 'network'"},
		{b.balancer, "idle_timeout.timeout_seconds=0", "InvalidConfigurationRequest", "must be between '1-4000' inclusive"},
		{b.balancer, "routing.http.desync_mitigation_mode=lax", "InvalidConfigurationRequest", "must be one of 'defensive, monitor, strictest'"},
		{b.balancer, "load_balancing.cross_zone.enabled=false", "InvalidConfigurationRequest", "must be one of 'true'"},
		{b.balancer, "connection_logs.s3.enabled=true", "ValidationError", "as false; 'true' is not performed yet"},
		{b.balancer, "access_logs.s3.bucket=../etc", "InvalidConfigurationRequest", "must be a name of a bucket"},
		{b.balancer, "access_logs.s3.prefix=a/../../b", "InvalidConfigurationRequest", "a prefix of keys without 'AWSLogs'"},
		{b.balancer, "access_logs.s3.bucket=", "InvalidConfigurationRequest", "'access_logs.s3.bucket' must be specified"},
	} {
		b.refuses(c.pair, c.code, c.text, b.setBalancer(c.balancer, c.pair))
	}
}

func TestAProtectedLoadBalancerIsNotDeleted(t *testing.T) {
	b := newBalancing(t)
	remove := func() error {
		_, err := b.elb.DeleteLoadBalancer(b.ctx, &elb.DeleteLoadBalancerInput{LoadBalancerArn: &b.balancer})
		return err
	}
	b.must(nil, b.setBalancer(b.balancer, "deletion_protection.enabled=true"))
	b.refuses("deleting", "OperationNotPermitted", "Load balancer '"+b.balancer+"' cannot be deleted because deletion protection is enabled", remove())
	b.must(nil, b.setBalancer(b.balancer, "deletion_protection.enabled=false"))
	b.must(nil, remove())
}

func TestAListenerHasTheAttributesOfItsProtocol(t *testing.T) {
	b := newBalancing(t)
	b.must(nil, b.setListener("routing.http.response.server.enabled=false", "routing.http.response.x_frame_options.header_value=DENY"))
	out, err := b.elb.DescribeListenerAttributes(b.ctx, &elb.DescribeListenerAttributesInput{ListenerArn: &b.listener})
	b.must(out, err)
	if len(out.Attributes) != 11 {
		t.Errorf("it has %d attributes", len(out.Attributes))
	}
	for _, a := range out.Attributes {
		if *a.Key == "routing.http.response.x_frame_options.header_value" && *a.Value != "DENY" {
			t.Errorf("%s is %s", *a.Key, *a.Value)
		}
	}
	b.refuses("a key", "ValidationError", "Listener attribute key 'color' is not recognized", b.setListener("color=red"))
	b.refuses("another's", "InvalidConfigurationRequest", "is not supported on listeners with protocol 'HTTP'", b.setListener("tcp.idle_timeout.seconds=60"))
	b.refuses("a value", "InvalidConfigurationRequest", "must be a value of a header", b.setListener("routing.http.response.x_frame_options.header_value=a\nb"))
}

func TestALoadBalancersPlaceIsSet(t *testing.T) {
	b := newBalancing(t)
	made, err := b.elb.CreateLoadBalancer(b.ctx, &elb.CreateLoadBalancerInput{Name: new("mapped"), SubnetMappings: []types.SubnetMapping{{SubnetId: new("m")}}})
	b.must(made, err)
	if z := made.LoadBalancers[0].AvailabilityZones; len(z) != 1 || *z[0].SubnetId != "m" {
		t.Errorf("its zones are %+v", z)
	}
	set, err := b.elb.SetSubnets(b.ctx, &elb.SetSubnetsInput{LoadBalancerArn: &b.balancer, SubnetMappings: []types.SubnetMapping{{SubnetId: new("x")}}})
	b.must(set, err)
	if z := set.AvailabilityZones; len(z) != 1 || *z[0].SubnetId != "x" {
		t.Errorf("its zones are %+v", z)
	}
	_, err = b.elb.SetSubnets(b.ctx, &elb.SetSubnetsInput{LoadBalancerArn: &b.balancer, Subnets: []string{"y"}, SubnetMappings: []types.SubnetMapping{{SubnetId: new("x")}}})
	b.refuses("both", "ValidationError", "either subnets or subnet mappings", err)
	groups, err := b.elb.SetSecurityGroups(b.ctx, &elb.SetSecurityGroupsInput{LoadBalancerArn: &b.balancer, SecurityGroups: []string{"sg-9"}})
	b.must(groups, err)
	if got := groups.SecurityGroupIds; len(got) != 1 || got[0] != "sg-9" {
		t.Errorf("its groups are %v", got)
	}
	nlb := b.balance("edge", types.LoadBalancerTypeEnumNetwork)
	_, err = b.elb.SetSecurityGroups(b.ctx, &elb.SetSecurityGroupsInput{LoadBalancerArn: &nlb, SecurityGroups: []string{"sg-9"}})
	b.refuses("groups later", "InvalidConfigurationRequest", "after it was created", err)
	_, err = b.elb.SetIpAddressType(b.ctx, &elb.SetIpAddressTypeInput{LoadBalancerArn: &b.balancer, IpAddressType: types.IpAddressTypeDualstack})
	b.refuses("dualstack", "ValidationError", "'dualstack' is not performed yet", err)
	_, err = b.elb.CreateLoadBalancer(b.ctx, &elb.CreateLoadBalancerInput{Name: new("internal-x")})
	b.refuses("a name", "ValidationError", "cannot begin with 'internal-'", err)
}
