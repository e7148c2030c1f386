package elbd

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) ruleOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("CreateRule", a.CreateRule, creating("CreateRule", func(_ *wire.Call, in *elb.CreateRuleInput) string { return aws.ToString(in.ListenerArn) }, func(in *elb.CreateRuleInput) []types.Tag { return in.Tags }),
			wire.Members{Performed: "Actions Conditions ListenerArn Priority Tags", Refused: "Transforms"}),
		wire.Handle("DescribeRules", a.DescribeRules, anywhere[elb.DescribeRulesInput]("DescribeRules"),
			wire.Members{Performed: "ListenerArn Marker PageSize RuleArns"}),
		wire.Handle("ModifyRule", a.ModifyRule, on("ModifyRule", func(_ *wire.Call, in *elb.ModifyRuleInput) string { return aws.ToString(in.RuleArn) }),
			wire.Members{Performed: "RuleArn Actions Conditions", Refused: "ResetTransforms Transforms"}),
		wire.Handle("DeleteRule", a.DeleteRule, on("DeleteRule", func(_ *wire.Call, in *elb.DeleteRuleInput) string { return aws.ToString(in.RuleArn) }),
			wire.Members{Performed: "RuleArn"}),
		wire.Handle("SetRulePriorities", a.SetRulePriorities, func(_ *wire.Call, in *elb.SetRulePrioritiesInput) (checks []wire.Check) {
			for _, p := range in.RulePriorities {
				checks = append(checks, wire.Check{Action: "elasticloadbalancing:SetRulePriorities", Resource: aws.ToString(p.RuleArn)})
			}
			return checks
		}, wire.Members{Performed: "RulePriorities"}),
	}
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

// action is what a rule does.
func (r rule) action() rule {
	return rule{Forward: r.Forward, Sticky: r.Sticky, StickyFor: r.StickyFor, Fixed: r.Fixed, Redirect: r.Redirect}
}

func order(r rule) int {
	if r.Priority == 0 {
		return 1 << 30
	}
	return r.Priority
}

func ruleNotFound() error {
	return &types.RuleNotFoundException{Message: new("One or more rules not found")}
}

// CreateRule adds a rule to a listener.
func (a *API) CreateRule(ctx context.Context, in *elb.CreateRuleInput) (*elb.CreateRuleOutput, error) {
	call := wire.From(ctx)
	listenerARN := aws.ToString(in.ListenerArn)
	priority := aws.ToInt32(in.Priority)
	if err := checkPriority("priority", priority); err != nil {
		return nil, err
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
		if slices.ContainsFunc(a.rulesOf(tx, listenerARN), func(o rule) bool { return o.Priority == r.Priority }) {
			return priorityInUse(r.Priority)
		}
		if a.countRules(tx, l.LoadBalancer) >= mostRules {
			return &types.TooManyRulesException{Message: new(fmt.Sprintf("The maximum number of rules on load balancer '%s' has been reached", l.LoadBalancer))}
		}
		r.ARN = resource(call, "listener-rule/"+last(listenerARN)+"/"+newID())
		if err := a.setActions(tx, &r, l, in.Actions); err != nil {
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

func priorityInUse(priority int) error {
	return &types.PriorityInUseException{Message: new(fmt.Sprintf("Priority '%d' is currently in use", priority))}
}

// countRules is how many rules a load balancer has, but for the default ones.
func (a *API) countRules(tx *store.Tx, lbARN string) (n int) {
	for _, l := range a.listenersBy.Scan(tx, lbARN) {
		n += len(a.rulesOf(tx, l.ARN)) - 1
	}
	return n
}

func ruleView(r rule) types.Rule {
	v := types.Rule{RuleArn: new(r.ARN), Actions: actionsView(r), IsDefault: new(r.Priority == 0), Priority: new("default"), Conditions: []types.RuleCondition{}}
	if r.Priority > 0 {
		v.Priority = new(strconv.Itoa(r.Priority))
	}
	for _, c := range r.Conditions {
		v.Conditions = append(v.Conditions, conditionView(c))
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
	if in.Actions == nil && in.Conditions == nil {
		return nil, invalid("Either conditions or actions must be specified")
	}
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
			if err := a.setActions(tx, &r, l, in.Actions); err != nil {
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

func checkPriority(at string, priority int32) error {
	if priority < 1 || priority > 50000 {
		return invalid("1 validation error detected: Value '%d' at '%s' failed to satisfy constraint: Member must have value between 1 and 50000", priority, at)
	}
	return nil
}

// SetRulePriorities gives rules of one listener other priorities, all at once: so
// they can change places. The texts are guessed.
func (a *API) SetRulePriorities(ctx context.Context, in *elb.SetRulePrioritiesInput) (*elb.SetRulePrioritiesOutput, error) {
	call := wire.From(ctx)
	if len(in.RulePriorities) == 0 {
		return nil, invalid("A rule priority must be specified")
	}
	var changed []rule
	err := a.store.Update(func(tx *store.Tx) error {
		var err error
		if changed, err = a.reordered(tx, call, in.RulePriorities); err != nil {
			return err
		}
		for _, o := range a.rulesOf(tx, changed[0].Listener) {
			for _, r := range changed {
				if r.Priority == o.Priority && !slices.ContainsFunc(changed, func(c rule) bool { return c.ARN == o.ARN }) {
					return priorityInUse(r.Priority)
				}
			}
		}
		for _, r := range changed {
			a.rules.Put(tx, keyOf(r.ARN), r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &elb.SetRulePrioritiesOutput{}
	for _, r := range changed {
		out.Rules = append(out.Rules, ruleView(r))
	}
	return out, nil
}

// reordered is the rules that are named with the priorities that they are to have.
func (a *API) reordered(tx *store.Tx, call *wire.Call, pairs []types.RulePriorityPair) (list []rule, err error) {
	for i, p := range pairs {
		priority := aws.ToInt32(p.Priority)
		if err := checkPriority(fmt.Sprintf("rulePriorities.%d.member.priority", i+1), priority); err != nil {
			return nil, err
		}
		r, ok := a.rules.Get(tx, keyOf(aws.ToString(p.RuleArn)))
		switch {
		case !ok || !inScope(call, r.ARN):
			return nil, ruleNotFound()
		case r.Priority == 0:
			return nil, &types.OperationNotPermittedException{Message: new("Default rule '" + r.ARN + "' priority cannot be modified")}
		case len(list) > 0 && list[0].Listener != r.Listener:
			return nil, invalid("All rules must belong to the same listener")
		case slices.ContainsFunc(list, func(o rule) bool { return o.ARN == r.ARN }):
			return nil, invalid("Rule '%s' was provided multiple times", r.ARN)
		case slices.ContainsFunc(list, func(o rule) bool { return o.Priority == int(priority) }):
			return nil, invalid("Priority '%d' was provided multiple times", priority)
		}
		r.Priority = int(priority)
		list = append(list, r)
	}
	return list, nil
}
