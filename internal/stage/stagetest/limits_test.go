package stagetest

import (
	"fmt"
	"testing"

	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

func TestAnAccountsLimitsAreToldPageByPage(t *testing.T) {
	b := newBalancing(t)
	told := map[string]string{}
	var marker *string
	for {
		out, err := b.elb.DescribeAccountLimits(b.ctx, &elb.DescribeAccountLimitsInput{PageSize: new(int32(5)), Marker: marker})
		b.must(out, err)
		for _, l := range out.Limits {
			told[*l.Name] = *l.Max
		}
		if marker = out.NextMarker; marker == nil {
			break
		}
	}
	if len(told) != 17 || told["rules-per-application-load-balancer"] != "100" {
		t.Errorf("the limits are %v", told)
	}
	_, err := b.elb.DescribeAccountLimits(b.ctx, &elb.DescribeAccountLimitsInput{PageSize: new(int32(401))})
	b.refuses("a page size", "ValidationError", "between 1 and 400", err)
	_, err = b.elb.DescribeAccountLimits(b.ctx, &elb.DescribeAccountLimitsInput{Marker: new("x")})
	b.refuses("a marker", "ValidationError", "The marker is not valid", err)
}

func TestALoadBalancerHasSoManyRulesAndGroups(t *testing.T) {
	b := newBalancing(t)
	for i := range int32(100) {
		r, err := b.rule(i+1, []types.RuleCondition{paths(fmt.Sprint("/", i))}, b.forward())
		b.must(r, err)
	}
	_, err := b.rule(101, []types.RuleCondition{paths("/x")}, b.forward())
	b.refuses("a rule more", "TooManyRules", "The maximum number of rules on load balancer '"+b.balancer+"' has been reached", err)
	rules, err := b.elb.DescribeRules(b.ctx, &elb.DescribeRulesInput{ListenerArn: &b.listener, PageSize: new(int32(3))})
	b.must(rules, err)
	if len(rules.Rules) != 3 || rules.NextMarker == nil || *rules.Rules[2].Priority != "3" {
		t.Errorf("the first page is %+v", rules)
	}
	for i, r := range func() []types.Rule {
		all, err := b.elb.DescribeRules(b.ctx, &elb.DescribeRulesInput{ListenerArn: &b.listener})
		b.must(all, err)
		return all.Rules[:100]
	}() {
		group := b.groupOf(&elb.CreateTargetGroupInput{Name: new(fmt.Sprint("more-", i)), Protocol: "HTTP", Port: new(int32(80))})
		_, err := b.elb.ModifyRule(b.ctx, &elb.ModifyRuleInput{RuleArn: r.RuleArn, Actions: []types.Action{{Type: "forward", TargetGroupArn: &group}}})
		if i == 99 {
			b.refuses("a group more", "TooManyUniqueTargetGroupsPerLoadBalancer", "unique target groups", err)
		} else {
			b.must(nil, err)
		}
	}
	six := types.Action{Type: "forward", ForwardConfig: &types.ForwardActionConfig{}}
	for range 6 {
		six.ForwardConfig.TargetGroups = append(six.ForwardConfig.TargetGroups, types.TargetGroupTuple{TargetGroupArn: &b.group})
	}
	_, err = b.elb.ModifyListener(b.ctx, &elb.ModifyListenerInput{ListenerArn: &b.listener, DefaultActions: []types.Action{six}})
	b.refuses("six groups", "TooManyTargetGroups", "between 1 and 5", err)
}

func TestATargetGroupIsOfOneLoadBalancer(t *testing.T) {
	b := newBalancing(t)
	other := b.balance("other", types.LoadBalancerTypeEnumApplication)
	_, err := b.elb.CreateListener(b.ctx, &elb.CreateListenerInput{LoadBalancerArn: &other, Port: new(int32(80)), Protocol: "HTTP", DefaultActions: b.forward()})
	b.refuses("another's group", "TargetGroupAssociationLimit", "The following target groups cannot be associated with more than one load balancer: "+b.group, err)
	_, err = b.elb.DeleteTargetGroup(b.ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: &b.group})
	b.refuses("deleting it", "ResourceInUse", "is currently in use by a listener or a rule", err)
	_, err = b.elb.CreateListener(b.ctx, &elb.CreateListenerInput{LoadBalancerArn: &b.balancer, Port: new(int32(8080)), Protocol: "HTTP", DefaultActions: []types.Action{{Type: "redirect", RedirectConfig: &types.RedirectActionConfig{StatusCode: "HTTP_301", Port: new("81")}}}})
	b.refuses("a port twice", "DuplicateListener", "A listener already exists on this port for this load balancer", err)
	_, err = b.elb.DescribeTargetGroups(b.ctx, &elb.DescribeTargetGroupsInput{LoadBalancerArn: new(b.balancer + "0")})
	b.refuses("groups of none", "LoadBalancerNotFound", "Load balancer '"+b.balancer+"0' not found", err)
	_, err = b.elb.DescribeLoadBalancers(b.ctx, &elb.DescribeLoadBalancersInput{Names: []string{"lb", "none"}})
	b.refuses("no such name", "LoadBalancerNotFound", "Load balancers '[none]' not found", err)
	_, err = b.elb.DescribeTargetHealth(b.ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: new(b.group + "0")})
	b.refuses("no such group", "TargetGroupNotFound", "Target groups '"+b.group+"0' not found", err)
	for i := range 48 {
		b.balance(fmt.Sprint("lb-", i), types.LoadBalancerTypeEnumApplication)
	}
	_, err = b.elb.CreateLoadBalancer(b.ctx, &elb.CreateLoadBalancerInput{Name: new("one-more")})
	b.refuses("one more", "TooManyLoadBalancers", "The maximum number of load balancers has been reached: 50", err)
}

// The same again is the same, whoever asks, and what is asked for twice is told once.
func TestWhatIsMadeTwiceIsMadeOnce(t *testing.T) {
	b := newBalancing(t)
	again, err := b.elb.CreateListener(b.ctx, &elb.CreateListenerInput{LoadBalancerArn: &b.balancer, Port: new(int32(8080)), Protocol: "HTTP", DefaultActions: b.forward()})
	b.must(again, err)
	if got := *again.Listeners[0].ListenerArn; got != b.listener {
		t.Errorf("the listener is %s, was %s", got, b.listener)
	}
	b.must(b.rule(1, []types.RuleCondition{{Field: new("path-pattern"), Values: []string{"/a"}}}, b.forward()))
	rules, err := b.elb.DescribeRules(b.ctx, &elb.DescribeRulesInput{ListenerArn: &b.listener})
	b.must(rules, err)
	if len(rules.Rules) != 2 {
		t.Errorf("it has %d rules", len(rules.Rules))
	}
	for _, sticky := range []bool{false, true} {
		action := b.forward()
		action[0].ForwardConfig = &types.ForwardActionConfig{TargetGroups: []types.TargetGroupTuple{{TargetGroupArn: &b.group, Weight: new(int32(2))}}, TargetGroupStickinessConfig: &types.TargetGroupStickinessConfig{Enabled: &sticky, DurationSeconds: new(int32(60))}}
		_, err = b.elb.CreateListener(b.ctx, &elb.CreateListenerInput{LoadBalancerArn: &b.balancer, Port: new(int32(8080)), Protocol: "HTTP", DefaultActions: action})
		b.refuses("another action", "DuplicateListener", "A listener already exists on this port", err)
	}
	lb, err := b.elb.CreateLoadBalancer(b.ctx, &elb.CreateLoadBalancerInput{Name: new("lb"), Subnets: []string{"b", "a"}})
	b.must(lb, err)
	if got := *lb.LoadBalancers[0].LoadBalancerArn; got != b.balancer {
		t.Errorf("the load balancer is %s, was %s", got, b.balancer)
	}
	_, err = b.elb.CreateLoadBalancer(b.ctx, &elb.CreateLoadBalancerInput{Name: new("lb"), Subnets: []string{"a", "b"}, SecurityGroups: []string{"sg-1"}})
	b.refuses("other security groups", "DuplicateLoadBalancerName", "with different settings", err)
	listeners, err := b.elb.DescribeListeners(b.ctx, &elb.DescribeListenersInput{ListenerArns: []string{b.listener, b.listener}})
	b.must(listeners, err)
	groups, err := b.elb.DescribeTargetGroups(b.ctx, &elb.DescribeTargetGroupsInput{TargetGroupArns: []string{b.group, b.group}})
	b.must(groups, err)
	if len(listeners.Listeners) != 1 || len(groups.TargetGroups) != 1 {
		t.Errorf("told are %d listeners and %d groups", len(listeners.Listeners), len(groups.TargetGroups))
	}
}
