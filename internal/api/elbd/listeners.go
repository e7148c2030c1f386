package elbd

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/balance"
	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) listenerOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("CreateListener", a.CreateListener, creating("CreateListener", func(_ *wire.Call, in *elb.CreateListenerInput) string { return aws.ToString(in.LoadBalancerArn) }, func(in *elb.CreateListenerInput) []types.Tag { return in.Tags }),
			wire.Members{Performed: "DefaultActions LoadBalancerArn Port Protocol Tags", Refused: "AlpnPolicy Certificates MutualAuthentication SslPolicy"}),
		wire.Handle("DescribeListeners", a.DescribeListeners, anywhere[elb.DescribeListenersInput]("DescribeListeners"),
			wire.Members{Performed: "ListenerArns LoadBalancerArn Marker PageSize"}),
		wire.Handle("ModifyListener", a.ModifyListener, on("ModifyListener", func(_ *wire.Call, in *elb.ModifyListenerInput) string { return aws.ToString(in.ListenerArn) }),
			wire.Members{Performed: "ListenerArn DefaultActions Port Protocol", Refused: "AlpnPolicy Certificates MutualAuthentication SslPolicy"}),
		wire.Handle("DeleteListener", a.DeleteListener, on("DeleteListener", func(_ *wire.Call, in *elb.DeleteListenerInput) string { return aws.ToString(in.ListenerArn) }),
			wire.Members{Performed: "ListenerArn"}),
		wire.Handle("CreateRule", a.CreateRule, creating("CreateRule", func(_ *wire.Call, in *elb.CreateRuleInput) string { return aws.ToString(in.ListenerArn) }, func(in *elb.CreateRuleInput) []types.Tag { return in.Tags }),
			wire.Members{Performed: "Actions Conditions ListenerArn Priority Tags", Refused: "Transforms"}),
		wire.Handle("DescribeRules", a.DescribeRules, anywhere[elb.DescribeRulesInput]("DescribeRules"),
			wire.Members{Performed: "ListenerArn Marker PageSize RuleArns"}),
		wire.Handle("ModifyRule", a.ModifyRule, on("ModifyRule", func(_ *wire.Call, in *elb.ModifyRuleInput) string { return aws.ToString(in.RuleArn) }),
			wire.Members{Performed: "RuleArn Actions Conditions", Refused: "ResetTransforms Transforms"}),
		wire.Handle("DeleteRule", a.DeleteRule, on("DeleteRule", func(_ *wire.Call, in *elb.DeleteRuleInput) string { return aws.ToString(in.RuleArn) }),
			wire.Members{Performed: "RuleArn"}),
	}
}

// CreateListener makes a listener with its default rule.
func (a *API) CreateListener(ctx context.Context, in *elb.CreateListenerInput) (*elb.CreateListenerOutput, error) {
	call := wire.From(ctx)
	lbARN := aws.ToString(in.LoadBalancerArn)
	if in.Port == nil {
		return nil, invalid("A port must be specified")
	}
	if err := checkPort(in.Port); err != nil {
		return nil, err
	}
	l := listener{ARN: resource(call, "listener/"+last(lbARN)+"/"+newID()), LoadBalancer: lbARN, Port: *in.Port}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	err = a.store.Update(func(tx *store.Tx) error {
		lb, ok := a.balancers.Get(tx, keyOf(lbARN))
		if !ok || !inScope(call, lbARN) {
			return balancerNotFound()
		}
		if l.Protocol, err = listenerProtocol(lb, in.Protocol); err != nil {
			return err
		}
		for _, other := range a.listenersBy.Scan(tx, lbARN) {
			if other.Port == l.Port {
				return &types.DuplicateListenerException{Message: new("A listener already exists on this port for this load balancer '" + lbARN + "'")}
			}
		}
		r := rule{ARN: resource(call, "listener-rule/"+last(l.ARN)+"/"+newID()), Listener: l.ARN}
		if err := a.setActions(tx, &r, l.protocol(), in.DefaultActions); err != nil {
			return err
		}
		a.listeners.Put(tx, keyOf(l.ARN), l)
		a.tags.Set(tx, l.ARN, labels)
		a.rules.Put(tx, keyOf(r.ARN), r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.CreateListenerOutput{Listeners: []types.Listener{a.listenerView(l)}}, nil
}

func checkPort(port *int32) error {
	if port != nil && (*port < 1 || *port > 65535) {
		return invalid("1 validation error detected: Value '%d' at 'port' failed to satisfy constraint: Member must have value between 1 and 65535", *port)
	}
	return nil
}

// setActions reads the actions of a rule: exactly one, forward or fixed-response,
// that suits the listener's protocol.
func (a *API) setActions(tx *store.Tx, r *rule, protocol string, actions []types.Action) error {
	if len(actions) != 1 {
		return &types.InvalidLoadBalancerActionException{Message: new("A rule must have exactly one of the actions that Serin performs: forward, fixed-response")}
	}
	r.Forward, r.Fixed = nil, nil
	switch action := actions[0]; action.Type {
	case types.ActionTypeEnumForward:
		tuples := []types.TargetGroupTuple{{TargetGroupArn: action.TargetGroupArn, Weight: new(int32(1))}}
		if action.ForwardConfig != nil {
			tuples = action.ForwardConfig.TargetGroups
		}
		if len(tuples) == 0 || len(tuples) > 5 {
			return &types.TooManyTargetGroupsException{Message: new("A forward action must have between 1 and 5 target groups")}
		}
		for _, t := range tuples {
			if _, ok := a.groups.Get(tx, keyOf(aws.ToString(t.TargetGroupArn))); !ok || !sameScope(aws.ToString(t.TargetGroupArn), r.Listener) {
				return groupNotFound()
			}
			weight := int32(1)
			if t.Weight != nil {
				weight = *t.Weight
			}
			if weight < 0 || weight > 999 {
				return invalid("The target group weight must be between 0 and 999, got %d", weight)
			}
			if slices.ContainsFunc(r.Forward, func(w weighted) bool { return w.Group == *t.TargetGroupArn }) {
				return invalid("The target group '%s' is named twice in one action", *t.TargetGroupArn)
			}
			r.Forward = append(r.Forward, weighted{*t.TargetGroupArn, int(weight)})
		}
	case types.ActionTypeEnumFixedResponse:
		f := action.FixedResponseConfig
		if f == nil {
			return &types.InvalidLoadBalancerActionException{Message: new("FixedResponseConfig must be specified for the action type fixed-response")}
		}
		code, err := strconv.Atoi(aws.ToString(f.StatusCode))
		if err != nil || code < 200 || code > 599 {
			return invalid("The fixed response status code '%s' is not valid", aws.ToString(f.StatusCode))
		}
		r.Fixed = &balance.Fixed{Code: code, Body: aws.ToString(f.MessageBody), ContentType: aws.ToString(f.ContentType)}
		if r.Fixed.ContentType == "" {
			r.Fixed.ContentType = "text/plain"
		}
	default:
		return &types.InvalidLoadBalancerActionException{Message: new(fmt.Sprintf("Serin performs the actions forward and fixed-response; '%s' is not performed yet", action.Type))}
	}
	return a.checkProtocol(tx, *r, protocol)
}

func actionsView(r rule) []types.Action {
	if r.Fixed != nil {
		return []types.Action{{Type: types.ActionTypeEnumFixedResponse, Order: new(int32(1)), FixedResponseConfig: &types.FixedResponseActionConfig{
			StatusCode: new(strconv.Itoa(r.Fixed.Code)), ContentType: new(r.Fixed.ContentType), MessageBody: new(r.Fixed.Body)}}}
	}
	v := types.Action{Type: types.ActionTypeEnumForward, Order: new(int32(1)), ForwardConfig: &types.ForwardActionConfig{
		TargetGroupStickinessConfig: &types.TargetGroupStickinessConfig{Enabled: new(false)}}}
	for _, w := range r.Forward {
		v.ForwardConfig.TargetGroups = append(v.ForwardConfig.TargetGroups, types.TargetGroupTuple{TargetGroupArn: new(w.Group), Weight: new(int32(w.Weight))})
	}
	if len(r.Forward) == 1 {
		v.TargetGroupArn = new(r.Forward[0].Group)
	}
	return []types.Action{v}
}

func (a *API) listenerView(l listener) types.Listener {
	v := types.Listener{ListenerArn: new(l.ARN), LoadBalancerArn: new(l.LoadBalancer), Port: new(l.Port), Protocol: types.ProtocolEnum(l.protocol())}
	a.store.View(func(tx *store.Tx) {
		for _, r := range a.rulesOf(tx, l.ARN) {
			if r.Priority == 0 {
				v.DefaultActions = actionsView(r)
			}
		}
	})
	return v
}

// rulesOf is a listener's rules in the order they are tried.
func (a *API) rulesOf(tx *store.Tx, listenerARN string) []rule {
	var rows []rule
	for _, r := range a.rulesBy.Scan(tx, listenerARN) {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(x, y rule) int { return order(x) - order(y) })
	return rows
}

func order(r rule) int {
	if r.Priority == 0 {
		return 1 << 30
	}
	return r.Priority
}

// DescribeListeners lists listeners of a load balancer or by ARN.
func (a *API) DescribeListeners(ctx context.Context, in *elb.DescribeListenersInput) (*elb.DescribeListenersOutput, error) {
	call := wire.From(ctx)
	if in.LoadBalancerArn == nil && len(in.ListenerArns) == 0 {
		return nil, invalid("You must specify either listener ARNs or a load balancer ARN")
	}
	var rows []listener
	known := in.LoadBalancerArn == nil
	a.store.View(func(tx *store.Tx) {
		if in.LoadBalancerArn != nil {
			_, known = a.balancers.Get(tx, keyOf(*in.LoadBalancerArn))
		}
		for _, l := range a.listeners.Scan(tx, call.Scope.Key("")) {
			if in.LoadBalancerArn != nil && l.LoadBalancer == *in.LoadBalancerArn || slices.Contains(in.ListenerArns, l.ARN) {
				rows = append(rows, l)
			}
		}
	})
	if !known {
		return nil, balancerNotFound()
	}
	if len(rows) < len(in.ListenerArns) {
		return nil, listenerNotFound()
	}
	rows, next, err := page(rows, func(l listener) string { return l.ARN }, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elb.DescribeListenersOutput{NextMarker: next}
	for _, l := range rows {
		out.Listeners = append(out.Listeners, a.listenerView(l))
	}
	return out, nil
}

func listenerNotFound() error {
	return &types.ListenerNotFoundException{Message: new("One or more listeners not found")}
}

func ruleNotFound() error {
	return &types.RuleNotFoundException{Message: new("One or more rules not found")}
}

// ModifyListener changes a listener's port or default action.
func (a *API) ModifyListener(ctx context.Context, in *elb.ModifyListenerInput) (*elb.ModifyListenerOutput, error) {
	call := wire.From(ctx)
	if err := checkPort(in.Port); err != nil {
		return nil, err
	}
	var l listener
	err := a.store.Update(func(tx *store.Tx) error {
		var ok bool
		if l, ok = a.listeners.Get(tx, keyOf(aws.ToString(in.ListenerArn))); !ok || !inScope(call, l.ARN) {
			return listenerNotFound()
		}
		if lb, ok := a.balancers.Get(tx, keyOf(l.LoadBalancer)); ok && in.Protocol != "" { // it may be what it is
			if _, err := listenerProtocol(lb, in.Protocol); err != nil {
				return err
			}
		}
		if in.Port != nil {
			l.Port = *in.Port
			a.listeners.Put(tx, keyOf(l.ARN), l)
		}
		if in.DefaultActions == nil {
			return nil
		}
		rules := a.rulesOf(tx, l.ARN)
		r := rules[len(rules)-1]
		if err := a.setActions(tx, &r, l.protocol(), in.DefaultActions); err != nil {
			return err
		}
		a.rules.Put(tx, keyOf(r.ARN), r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyListenerOutput{Listeners: []types.Listener{a.listenerView(l)}}, nil
}

// DeleteListener removes a listener with its rules.
func (a *API) DeleteListener(ctx context.Context, in *elb.DeleteListenerInput) (*elb.DeleteListenerOutput, error) {
	call := wire.From(ctx)
	return &elb.DeleteListenerOutput{}, a.store.Update(func(tx *store.Tx) error {
		l, ok := a.listeners.Get(tx, keyOf(aws.ToString(in.ListenerArn)))
		if !ok || !inScope(call, l.ARN) {
			return listenerNotFound()
		}
		a.dropListener(tx, l.ARN)
		return nil
	})
}

func (a *API) dropListener(tx *store.Tx, listenerARN string) {
	for _, r := range a.rulesOf(tx, listenerARN) {
		a.rules.Delete(tx, keyOf(r.ARN))
		a.tags.Set(tx, r.ARN, nil)
	}
	a.listeners.Delete(tx, keyOf(listenerARN))
	a.tags.Set(tx, listenerARN, nil)
}

// CreateRule adds a rule to a listener.
func (a *API) CreateRule(ctx context.Context, in *elb.CreateRuleInput) (*elb.CreateRuleOutput, error) {
	call := wire.From(ctx)
	listenerARN := aws.ToString(in.ListenerArn)
	priority := aws.ToInt32(in.Priority)
	if priority < 1 || priority > 50000 {
		return nil, invalid("1 validation error detected: Value '%d' at 'priority' failed to satisfy constraint: Member must have value between 1 and 50000", priority)
	}
	conditions, err := conditionsIn(in.Conditions)
	if err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	r := rule{Listener: listenerARN, Priority: int(priority), Conditions: conditions}
	err = a.store.Update(func(tx *store.Tx) error {
		l, ok := a.listeners.Get(tx, keyOf(listenerARN))
		if !ok || !inScope(call, listenerARN) {
			return listenerNotFound()
		}
		if err := rulesOnly(l); err != nil {
			return err
		}
		rules := a.rulesOf(tx, listenerARN)
		if slices.ContainsFunc(rules, func(o rule) bool { return o.Priority == r.Priority }) {
			return &types.PriorityInUseException{Message: new(fmt.Sprintf("Priority '%d' is currently in use", priority))}
		}
		if len(rules) > 100 {
			return &types.TooManyRulesException{Message: new("The maximum number of rules has been reached")}
		}
		r.ARN = resource(call, "listener-rule/"+last(listenerARN)+"/"+newID())
		if err := a.setActions(tx, &r, l.protocol(), in.Actions); err != nil {
			return err
		}
		a.rules.Put(tx, keyOf(r.ARN), r)
		a.tags.Set(tx, r.ARN, labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.CreateRuleOutput{Rules: []types.Rule{ruleView(r)}}, nil
}

func conditionsIn(in []types.RuleCondition) ([]balance.Condition, error) {
	if len(in) == 0 {
		return nil, invalid("A condition must be specified")
	}
	var out []balance.Condition
	for i, c := range in {
		b := balance.Condition{Field: aws.ToString(c.Field), Values: c.Values}
		switch {
		case c.HostHeaderConfig != nil:
			b.Field, b.Values = "host-header", c.HostHeaderConfig.Values
		case c.PathPatternConfig != nil:
			b.Field, b.Values = "path-pattern", c.PathPatternConfig.Values
		case c.HttpHeaderConfig != nil:
			b.Field, b.Header, b.Values = "http-header", aws.ToString(c.HttpHeaderConfig.HttpHeaderName), c.HttpHeaderConfig.Values
		case c.HttpRequestMethodConfig != nil:
			b.Field, b.Values = "http-request-method", c.HttpRequestMethodConfig.Values
		}
		if !slices.Contains([]string{"host-header", "path-pattern", "http-header", "http-request-method"}, b.Field) {
			return nil, invalid("Conditions[%d]: Serin performs host-header, path-pattern, http-header and http-request-method; '%s' is not performed yet", i, b.Field)
		}
		if len(b.Values) == 0 {
			return nil, invalid("Conditions[%d]: a condition must have at least one value", i)
		}
		out = append(out, b)
	}
	return out, nil
}

func ruleView(r rule) types.Rule {
	v := types.Rule{RuleArn: new(r.ARN), Actions: actionsView(r), IsDefault: new(r.Priority == 0), Priority: new("default"), Conditions: []types.RuleCondition{}}
	if r.Priority > 0 {
		v.Priority = new(strconv.Itoa(r.Priority))
	}
	for _, c := range r.Conditions {
		w := types.RuleCondition{Field: new(c.Field)}
		switch c.Field {
		case "host-header":
			w.Values, w.HostHeaderConfig = c.Values, &types.HostHeaderConditionConfig{Values: c.Values}
		case "path-pattern":
			w.Values, w.PathPatternConfig = c.Values, &types.PathPatternConditionConfig{Values: c.Values}
		case "http-header":
			w.HttpHeaderConfig = &types.HttpHeaderConditionConfig{HttpHeaderName: new(c.Header), Values: c.Values}
		case "http-request-method":
			w.HttpRequestMethodConfig = &types.HttpRequestMethodConditionConfig{Values: c.Values}
		}
		v.Conditions = append(v.Conditions, w)
	}
	return v
}

// DescribeRules lists the rules of a listener or by ARN, the default rule last.
func (a *API) DescribeRules(ctx context.Context, in *elb.DescribeRulesInput) (*elb.DescribeRulesOutput, error) {
	call := wire.From(ctx)
	if (in.ListenerArn == nil) == (len(in.RuleArns) == 0) {
		return nil, invalid("You must specify either rule ARNs or a listener ARN")
	}
	var rows []rule
	known := true
	a.store.View(func(tx *store.Tx) {
		if in.ListenerArn != nil {
			_, known = a.listeners.Get(tx, keyOf(*in.ListenerArn))
			rows = a.rulesOf(tx, *in.ListenerArn)
			return
		}
		for _, ruleARN := range in.RuleArns {
			if r, ok := a.rules.Get(tx, keyOf(ruleARN)); ok && inScope(call, ruleARN) {
				rows = append(rows, r)
			}
		}
	})
	if !known {
		return nil, listenerNotFound()
	}
	if len(rows) < len(in.RuleArns) {
		return nil, ruleNotFound()
	}
	rows, next, err := page(rows, func(r rule) string { return fmt.Sprintf("%012d", order(r)) }, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elb.DescribeRulesOutput{NextMarker: next}
	for _, r := range rows {
		out.Rules = append(out.Rules, ruleView(r))
	}
	return out, nil
}

// ModifyRule replaces a rule's actions or conditions; what is not sent stays.
func (a *API) ModifyRule(ctx context.Context, in *elb.ModifyRuleInput) (*elb.ModifyRuleOutput, error) {
	call := wire.From(ctx)
	var r rule
	err := a.store.Update(func(tx *store.Tx) error {
		var ok bool
		if r, ok = a.rules.Get(tx, keyOf(aws.ToString(in.RuleArn))); !ok || !inScope(call, r.ARN) {
			return ruleNotFound()
		}
		l, _ := a.listeners.Get(tx, keyOf(r.Listener))
		if err := rulesOnly(l); err != nil {
			return err
		}
		if in.Conditions != nil {
			if r.Priority == 0 {
				return &types.OperationNotPermittedException{Message: new("Default rule's conditions cannot be modified")}
			}
			conditions, err := conditionsIn(in.Conditions)
			if err != nil {
				return err
			}
			r.Conditions = conditions
		}
		if in.Actions != nil {
			if err := a.setActions(tx, &r, l.protocol(), in.Actions); err != nil {
				return err
			}
		}
		a.rules.Put(tx, keyOf(r.ARN), r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyRuleOutput{Rules: []types.Rule{ruleView(r)}}, nil
}

// DeleteRule removes a rule; the default rule stays with its listener.
func (a *API) DeleteRule(ctx context.Context, in *elb.DeleteRuleInput) (*elb.DeleteRuleOutput, error) {
	call := wire.From(ctx)
	return &elb.DeleteRuleOutput{}, a.store.Update(func(tx *store.Tx) error {
		r, ok := a.rules.Get(tx, keyOf(aws.ToString(in.RuleArn)))
		if !ok || !inScope(call, r.ARN) {
			return ruleNotFound()
		}
		if r.Priority == 0 {
			return &types.OperationNotPermittedException{Message: new("Default rule '" + r.ARN + "' cannot be deleted")}
		}
		a.rules.Delete(tx, keyOf(r.ARN))
		a.tags.Set(tx, r.ARN, nil)
		return nil
	})
}
