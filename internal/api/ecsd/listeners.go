package ecsd

import (
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// checkShared refuses, at once, listener rules that could never carry a
// deployment, in ECS's documented words. A rule that is not there is found when
// the deployment begins.
func (a *API) checkShared(lbs []types.LoadBalancer) error {
	test := map[string]bool{}
	for _, lb := range lbs {
		if adv := lb.AdvancedConfiguration; adv != nil && aws.ToString(adv.TestListenerRule) != "" {
			test[*adv.TestListenerRule] = true
		}
	}
	for _, lb := range lbs {
		adv := lb.AdvancedConfiguration
		if adv == nil {
			continue
		}
		if rule := aws.ToString(adv.ProductionListenerRule); test[rule] {
			return invalid("The following rules cannot be used as both production and test listener rules: %s", rule)
		}
		groups := []string{aws.ToString(lb.TargetGroupArn), aws.ToString(adv.AlternateTargetGroupArn)}
		shares, _, err := a.deps.Traffic.Weights(*adv.ProductionListenerRule)
		if err == nil && aws.ToString(adv.TestListenerRule) == "" && !isListener(*adv.ProductionListenerRule) && len(unused(groups, shares)) > 0 {
			return invalid("For Application LoadBalancer, testListenerRule is required when productionListenerRule is not associated with both targetGroup and alternateTargetGroup")
		}
	}
	return nil
}

// unused are the groups that no share is of.
func unused(groups []string, shares []Share) []string {
	return slices.DeleteFunc(slices.Clone(groups), func(g string) bool {
		return slices.ContainsFunc(shares, func(s Share) bool { return s.Group == g })
	})
}

// live is the one target group of a load balancer's two that the production rule
// sends traffic to. Or why there is none, in ECS's documented words; in
// which order they are looked for is a guess.
func (c *control) live(lb types.LoadBalancer) (group, broken string) {
	adv := lb.AdvancedConfiguration
	main, alternate, rule := aws.ToString(lb.TargetGroupArn), aws.ToString(adv.AlternateTargetGroupArn), aws.ToString(adv.ProductionListenerRule)
	production, _, err := c.deps.Traffic.Weights(rule)
	shares := production
	if test := aws.ToString(adv.TestListenerRule); err == nil && test != "" {
		var more []Share
		more, _, err = c.deps.Traffic.Weights(test)
		shares = slices.Concat(production, more)
	}
	if err != nil {
		return "", ruleGone(rule)
	}
	serving := slices.DeleteFunc(slices.Clone(production), func(s Share) bool { return s.Weight == 0 })
	if len(serving) == 1 && serving[0].Group != main && serving[0].Group != alternate {
		return "", fmt.Sprintf("of invalid networking configuration. Production listener rule is forwarding traffic to unexpected target group %s. Expected traffic to be forwarded to either targetGroupArn: %s or alternateTargetGroupArn: %s", serving[0].Group, main, alternate)
	}
	if len(serving) < 2 {
		switch missing := unused([]string{main, alternate}, shares); len(missing) {
		case 1:
			return "", fmt.Sprintf("of invalid networking configuration: Target group %s is not associated with either productionListenerRule or testListenerRule.", missing[0])
		case 2:
			return "", "of invalid networking configuration. Both targetGroup and alternateTargetGroup must be associated with the productionListenerRule or testListenerRule."
		}
	}
	if len(serving) != 1 {
		return "", fmt.Sprintf("of invalid networking configuration. productionListenerRule %s should have exactly one target group serving traffic but found %d target groups which are serving traffic", rule, len(serving))
	}
	return serving[0].Group, ""
}
