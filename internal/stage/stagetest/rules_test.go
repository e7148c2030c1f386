package stagetest

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
)

// balancing is an application load balancer with a group and a listener.
type balancing struct {
	t                         *testing.T
	config                    aws.Config
	ctx                       context.Context
	elb                       *elb.Client
	balancer, group, listener string // ARNs
}

func newBalancing(t *testing.T) *balancing {
	t.Helper()
	_, c := RunT(t, 1)
	b := &balancing{t: t, config: c, ctx: t.Context(), elb: elb.NewFromConfig(c)}
	b.balancer = b.balance("lb", types.LoadBalancerTypeEnumApplication)
	b.group = b.groupOf(&elb.CreateTargetGroupInput{Name: new("g"), Protocol: types.ProtocolEnumHttp, Port: new(int32(80))})
	l, err := b.elb.CreateListener(b.ctx, &elb.CreateListenerInput{LoadBalancerArn: &b.balancer, Port: new(int32(8080)), Protocol: types.ProtocolEnumHttp, DefaultActions: b.forward()})
	b.must(l, err)
	b.listener = *l.Listeners[0].ListenerArn
	return b
}

func (b *balancing) must(_ any, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *balancing) balance(name string, kind types.LoadBalancerTypeEnum) string {
	b.t.Helper()
	out, err := b.elb.CreateLoadBalancer(b.ctx, &elb.CreateLoadBalancerInput{Name: &name, Subnets: []string{"a", "b"}, Type: kind})
	b.must(out, err)
	return *out.LoadBalancers[0].LoadBalancerArn
}

// groupOf makes a target group, of addresses unless it says otherwise.
func (b *balancing) groupOf(in *elb.CreateTargetGroupInput) string {
	b.t.Helper()
	if in.TargetType == "" {
		in.TargetType = types.TargetTypeEnumIp
	}
	out, err := b.elb.CreateTargetGroup(b.ctx, in)
	b.must(out, err)
	return *out.TargetGroups[0].TargetGroupArn
}

func (b *balancing) forward() []types.Action {
	return []types.Action{{Type: types.ActionTypeEnumForward, TargetGroupArn: &b.group}}
}

// refuses wants an error of a code whose text contains something.
func (b *balancing) refuses(what, code, text string, err error) {
	b.t.Helper()
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() != code || !strings.Contains(api.ErrorMessage(), text) {
		b.t.Errorf("%s: want %s %q, got %v", what, code, text, err)
	}
}

// rule makes a rule with a priority and returns it.
func (b *balancing) rule(priority int32, conditions []types.RuleCondition, actions []types.Action) (types.Rule, error) {
	out, err := b.elb.CreateRule(b.ctx, &elb.CreateRuleInput{ListenerArn: &b.listener, Priority: &priority, Conditions: conditions, Actions: actions})
	if err != nil {
		return types.Rule{}, err
	}
	return out.Rules[0], nil
}

func hosts(names ...string) types.RuleCondition {
	return types.RuleCondition{Field: new("host-header"), HostHeaderConfig: &types.HostHeaderConditionConfig{Values: names}}
}

func paths(patterns ...string) types.RuleCondition {
	return types.RuleCondition{Field: new("path-pattern"), PathPatternConfig: &types.PathPatternConditionConfig{Values: patterns}}
}

func header(name string, values ...string) types.RuleCondition {
	return types.RuleCondition{Field: new("http-header"), HttpHeaderConfig: &types.HttpHeaderConditionConfig{HttpHeaderName: &name, Values: values}}
}

func methods(names ...string) types.RuleCondition {
	return types.RuleCondition{Field: new("http-request-method"), HttpRequestMethodConfig: &types.HttpRequestMethodConditionConfig{Values: names}}
}

func query(pairs ...string) types.RuleCondition {
	c := &types.QueryStringConditionConfig{}
	for _, p := range pairs {
		pair := types.QueryStringKeyValuePair{Value: &p}
		if key, value, ok := strings.Cut(p, "="); ok {
			pair = types.QueryStringKeyValuePair{Key: &key, Value: &value}
		}
		c.Values = append(c.Values, pair)
	}
	return types.RuleCondition{Field: new("query-string"), QueryStringConfig: c}
}

func sources(blocks ...string) types.RuleCondition {
	return types.RuleCondition{Field: new("source-ip"), SourceIpConfig: &types.SourceIpConditionConfig{Values: blocks}}
}

func TestARuleTellsItsConditionsAsTheyWereGiven(t *testing.T) {
	b := newBalancing(t)
	made, err := b.rule(1, []types.RuleCondition{hosts("*.example.com"), paths("/a/*"), header("X-Team", "blue"), query("v=2", "beta")}, b.forward())
	b.must(made, err)
	hostsTold, pathsTold := hosts("*.example.com"), paths("/a/*")
	hostsTold.Values, pathsTold.Values = []string{"*.example.com"}, []string{"/a/*"}
	told, err := b.elb.DescribeRules(b.ctx, &elb.DescribeRulesInput{RuleArns: []string{*made.RuleArn}})
	b.must(told, err)
	if want := []types.RuleCondition{hostsTold, pathsTold, header("X-Team", "blue"), query("v=2", "beta")}; !reflect.DeepEqual(told.Rules[0].Conditions, want) {
		t.Errorf("it tells %+v", told.Rules[0].Conditions)
	}
	more := []types.RuleCondition{methods("GET", "X-PURGE"), sources("10.0.0.0/8", "2001:db8::/32"), {Field: new("path-pattern"), Values: []string{"/x"}}}
	changed, err := b.elb.ModifyRule(b.ctx, &elb.ModifyRuleInput{RuleArn: made.RuleArn, Conditions: more})
	b.must(changed, err)
	more[2].PathPatternConfig = &types.PathPatternConditionConfig{Values: []string{"/x"}}
	if !reflect.DeepEqual(changed.Rules[0].Conditions, more) {
		t.Errorf("it tells %+v", changed.Rules[0].Conditions)
	}
	regex := []types.RuleCondition{{Field: new("path-pattern"), PathPatternConfig: &types.PathPatternConditionConfig{RegexValues: []string{"^/v[0-9]+/"}}},
		{Field: new("http-header"), RegexValues: []string{"^Mozilla"}, HttpHeaderConfig: &types.HttpHeaderConditionConfig{HttpHeaderName: new("User-Agent")}}}
	if changed, err = b.elb.ModifyRule(b.ctx, &elb.ModifyRuleInput{RuleArn: made.RuleArn, Conditions: regex}); err != nil {
		t.Fatal(err)
	}
	if c := changed.Rules[0].Conditions; c[0].RegexValues[0] != "^/v[0-9]+/" || c[1].HttpHeaderConfig.RegexValues[0] != "^Mozilla" || c[0].Values != nil {
		t.Errorf("it tells %+v", c)
	}
}

func TestWhatAConditionMayNotBe(t *testing.T) {
	b := newBalancing(t)
	long := strings.Repeat("a", 129)
	both, two := hosts("a.example.com"), hosts("a.example.com")
	both.Values, two.PathPatternConfig = []string{"b.example.com"}, paths("/").PathPatternConfig
	mixed := paths("/a")
	mixed.PathPatternConfig.RegexValues = []string{"/b"}
	for what, c := range map[string]struct {
		text       string
		conditions []types.RuleCondition
	}{
		"an unknown field":     {"Condition field 'colour' must be one of", []types.RuleCondition{{Field: new("colour"), Values: []string{"red"}}}},
		"no value":             {"A condition value must be specified", []types.RuleCondition{{Field: new("path-pattern")}}},
		"six values":           {"A rule can only have '5' condition values", []types.RuleCondition{paths("/1", "/2", "/3"), hosts("a.b", "c.d", "e.f")}},
		"six wildcards":        {"A rule can only have '5' condition wildcards", []types.RuleCondition{paths("/*/*/*"), hosts("*.*.example.?")}},
		"two hosts":            {"A rule can only have one 'host-header' condition", []types.RuleCondition{hosts("a.b"), hosts("c.d")}},
		"values twice":         {"values in both the condition and its 'HostHeaderConfig'", []types.RuleCondition{both}},
		"two structures":       {"Only 'HostHeaderConfig' can be specified with 'host-header'", []types.RuleCondition{two}},
		"two short values":     {"The 'path-pattern' field contains too many values; the limit is '1'", []types.RuleCondition{{Field: new("path-pattern"), Values: []string{"/a", "/b"}}}},
		"a short method":       {"A 'HttpRequestMethodConfig' must be specified", []types.RuleCondition{{Field: new("http-request-method"), Values: []string{"GET"}}}},
		"a long host":          {"The 'host-header' value is too long; the limit is '128'", []types.RuleCondition{hosts(long + ".com")}},
		"a host without a dot": {"is not valid", []types.RuleCondition{hosts("localhost")}},
		"a path with a space":  {"contains a character that is not valid", []types.RuleCondition{paths("/a b")}},
		"a long path":          {"The 'path-pattern' value is too long", []types.RuleCondition{paths("/" + long)}},
		"a method in small":    {"The 'http-request-method' value is invalid", []types.RuleCondition{methods("get")}},
		"the host as a header": {"The 'HttpHeaderName' value 'Host' is not valid", []types.RuleCondition{header("Host", "x")}},
		"a long header":        {"The 'HttpHeaderName' value is too long; the limit is '40'", []types.RuleCondition{header(long[:41], "x")}},
		"an address":           {"The 'source-ip' value '10.0.0.1' is not a valid CIDR block", []types.RuleCondition{sources("10.0.0.1")}},
		"all ones":             {"is not a valid CIDR block", []types.RuleCondition{sources("255.255.255.255/32")}},
		"a key alone":          {"A 'Value' must be specified", []types.RuleCondition{query("a=")}},
		"a broken regex":       {"The regex value '(' of a 'path-pattern' condition is not valid", []types.RuleCondition{{Field: new("path-pattern"), RegexValues: []string{"("}}}},
		"values of both kinds": {"cannot be specified with other values", []types.RuleCondition{mixed}},
	} {
		_, err := b.rule(9, c.conditions, b.forward())
		b.refuses(what, "ValidationError", c.text, err)
	}
	if _, err := b.rule(9, []types.RuleCondition{query(`\*=a\?`, "*", "*", "*", "*")}, b.forward()); err != nil {
		t.Errorf("wildcards that are none: %v", err)
	}
}

func redirect(c types.RedirectActionConfig) []types.Action {
	if c.StatusCode == "" {
		c.StatusCode = types.RedirectActionStatusCodeEnumHttp301
	}
	return []types.Action{{Type: types.ActionTypeEnumRedirect, RedirectConfig: &c}}
}

func TestARuleTellsItsAction(t *testing.T) {
	b := newBalancing(t)
	made, err := b.rule(1, []types.RuleCondition{paths("/")}, redirect(types.RedirectActionConfig{Protocol: new("HTTPS"), Port: new("443"), StatusCode: types.RedirectActionStatusCodeEnumHttp302}))
	b.must(made, err)
	want := types.RedirectActionConfig{Protocol: new("HTTPS"), Port: new("443"), Host: new("#{host}"), Path: new("/#{path}"), Query: new("#{query}"), StatusCode: types.RedirectActionStatusCodeEnumHttp302}
	if got := made.Actions[0]; got.Type != types.ActionTypeEnumRedirect || !reflect.DeepEqual(*got.RedirectConfig, want) {
		t.Errorf("it redirects as %+v", got.RedirectConfig)
	}
	sticky := b.forward()
	sticky[0].ForwardConfig = &types.ForwardActionConfig{TargetGroups: []types.TargetGroupTuple{{TargetGroupArn: &b.group, Weight: new(int32(7))}}, TargetGroupStickinessConfig: &types.TargetGroupStickinessConfig{Enabled: new(true), DurationSeconds: new(int32(90))}}
	changed, err := b.elb.ModifyRule(b.ctx, &elb.ModifyRuleInput{RuleArn: made.RuleArn, Actions: sticky})
	b.must(changed, err)
	if got := changed.Rules[0].Actions[0]; got.RedirectConfig != nil || !*got.ForwardConfig.TargetGroupStickinessConfig.Enabled || *got.ForwardConfig.TargetGroupStickinessConfig.DurationSeconds != 90 || *got.ForwardConfig.TargetGroups[0].Weight != 7 {
		t.Errorf("it forwards as %+v", got)
	}
	fixed := []types.Action{{Type: types.ActionTypeEnumFixedResponse, Order: new(int32(50000)), FixedResponseConfig: &types.FixedResponseActionConfig{StatusCode: new("503"), ContentType: new("application/json"), MessageBody: new("{}")}}}
	if changed, err = b.elb.ModifyRule(b.ctx, &elb.ModifyRuleInput{RuleArn: made.RuleArn, Actions: fixed}); err != nil {
		t.Fatal(err)
	}
	if got := changed.Rules[0].Actions[0]; got.ForwardConfig != nil || *got.FixedResponseConfig.ContentType != "application/json" {
		t.Errorf("it answers as %+v", got)
	}
}

func TestWhatAnActionMayNotBe(t *testing.T) {
	b := newBalancing(t)
	fixed := func(code, kind, body string) []types.Action {
		return []types.Action{{Type: types.ActionTypeEnumFixedResponse, FixedResponseConfig: &types.FixedResponseActionConfig{StatusCode: &code, ContentType: &kind, MessageBody: &body}}}
	}
	sticky := func(seconds *int32) []types.Action {
		return []types.Action{{Type: types.ActionTypeEnumForward, ForwardConfig: &types.ForwardActionConfig{TargetGroups: []types.TargetGroupTuple{{TargetGroupArn: &b.group}},
			TargetGroupStickinessConfig: &types.TargetGroupStickinessConfig{Enabled: new(true), DurationSeconds: seconds}}}}
	}
	other := append(b.forward(), b.forward()...)
	wrong := b.forward()
	wrong[0].RedirectConfig = &types.RedirectActionConfig{StatusCode: types.RedirectActionStatusCodeEnumHttp301}
	const loop = "The redirect configuration is not valid because it creates a loop."
	for what, c := range map[string]struct {
		code, text string
		actions    []types.Action
	}{
		"two actions":          {"InvalidLoadBalancerAction", "exactly one", other},
		"another's member":     {"InvalidLoadBalancerAction", "RedirectConfig cannot be specified for the action type forward", wrong},
		"a token to check":     {"InvalidLoadBalancerAction", "'jwt-validation' is not performed yet", []types.Action{{Type: types.ActionTypeEnumJwtValidation}}},
		"nothing changed":      {"InvalidLoadBalancerAction", loop, redirect(types.RedirectActionConfig{})},
		"the query changed":    {"InvalidLoadBalancerAction", loop, redirect(types.RedirectActionConfig{Query: new("a=b")})},
		"the same by name":     {"InvalidLoadBalancerAction", loop, redirect(types.RedirectActionConfig{Protocol: new("HTTP"), Port: new("8080"), Path: new("/#{path}"), Host: new("#{host}")})},
		"a protocol":           {"InvalidLoadBalancerAction", "The redirect protocol 'TCP' is not valid", redirect(types.RedirectActionConfig{Protocol: new("TCP")})},
		"a port":               {"InvalidLoadBalancerAction", "The redirect port '70000' is not valid", redirect(types.RedirectActionConfig{Port: new("70000")})},
		"a path without slash": {"InvalidLoadBalancerAction", "The redirect path 'a' is not valid", redirect(types.RedirectActionConfig{Path: new("a")})},
		"a keyword":            {"InvalidLoadBalancerAction", "has the reserved keyword '#{query}'", redirect(types.RedirectActionConfig{Path: new("/#{query}")})},
		"half a keyword":       {"InvalidLoadBalancerAction", "has the reserved keyword", redirect(types.RedirectActionConfig{Path: new("/#{path")})},
		"a code of 3XX":        {"ValidationError", "Member must satisfy regular expression pattern: ^(2|4|5)", fixed("302", "text/plain", "")},
		"a content type":       {"InvalidLoadBalancerAction", "The ContentType must be one of:'text/plain', 'text/css'", fixed("200", "image/png", "")},
		"a long body":          {"ValidationError", "less than or equal to 1024", fixed("200", "text/plain", strings.Repeat("x", 1025))},
		"no duration":          {"InvalidLoadBalancerAction", "between 1 and 604800 seconds", sticky(nil)},
		"a long duration":      {"InvalidLoadBalancerAction", "between 1 and 604800 seconds", sticky(new(int32(604801)))},
	} {
		_, err := b.rule(9, []types.RuleCondition{paths("/")}, c.actions)
		b.refuses(what, c.code, c.text, err)
	}
}

func TestRulesChangePlaces(t *testing.T) {
	b := newBalancing(t)
	var made [2]types.Rule
	for i := range made {
		r, err := b.rule(int32(i+1), []types.RuleCondition{paths("/")}, b.forward())
		b.must(r, err)
		made[i] = r
	}
	set := func(pairs ...types.RulePriorityPair) error {
		_, err := b.elb.SetRulePriorities(b.ctx, &elb.SetRulePrioritiesInput{RulePriorities: pairs})
		return err
	}
	pair := func(r types.Rule, priority int32) types.RulePriorityPair {
		return types.RulePriorityPair{RuleArn: r.RuleArn, Priority: &priority}
	}
	b.must(nil, set(pair(made[0], 2), pair(made[1], 1)))
	told, err := b.elb.DescribeRules(b.ctx, &elb.DescribeRulesInput{ListenerArn: &b.listener})
	b.must(told, err)
	if r := told.Rules; len(r) != 3 || *r[0].RuleArn != *made[1].RuleArn || *r[0].Priority != "1" || *r[2].Priority != "default" {
		t.Errorf("the rules are %+v", r)
	}
	b.refuses("a priority in use", "PriorityInUse", "Priority '2' is currently in use", set(pair(made[1], 2)))
	b.refuses("a priority twice", "ValidationError", "Priority '5' was provided multiple times", set(pair(made[0], 5), pair(made[1], 5)))
	b.refuses("the default rule", "OperationNotPermitted", "Default rule", set(pair(told.Rules[2], 5)))
	b.refuses("no such rule", "RuleNotFound", "One or more rules not found", set(types.RulePriorityPair{RuleArn: new(*made[0].RuleArn + "0"), Priority: new(int32(4))}))
	_, err = b.elb.ModifyRule(b.ctx, &elb.ModifyRuleInput{RuleArn: made[0].RuleArn})
	b.refuses("nothing to modify", "ValidationError", "Either conditions or actions must be specified", err)
	_, err = b.elb.DeleteRule(b.ctx, &elb.DeleteRuleInput{RuleArn: told.Rules[2].RuleArn})
	b.refuses("deleting the default rule", "OperationNotPermitted", "cannot be deleted", err)
}
