package ecsd

import (
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Traffic is shifted at a rule of an application load balancer or, where that is a
// network load balancer, at the listener itself, which has no rules. Documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/nlb-resources-for-blue-green.html

// networkSettle is what ECS adds to the stages that shift the traffic of a network
// load balancer, documented; to every step of PRODUCTION_TRAFFIC_SHIFT, guessed. An
// older edition of the page named PRE_SCALE_UP, too.
const networkSettle = 10 * time.Minute

func isListener(ruleARN string) bool { return strings.Contains(ruleARN, ":listener/net/") }

// settleOf is how long the traffic of these load balancers takes to settle.
func settleOf(lbs []types.LoadBalancer) time.Duration {
	for _, lb := range lbs {
		if adv := lb.AdvancedConfiguration; adv != nil && isListener(aws.ToString(adv.ProductionListenerRule)) {
			return networkSettle
		}
	}
	return 0
}

// shiftAction is what it takes to shift traffic there.
func shiftAction(ruleARN *string) string {
	if isListener(aws.ToString(ruleARN)) {
		return "ModifyListener"
	}
	return "ModifyRule"
}

// ruleGone is why a deployment cannot go on without its rule, observed, or its
// listener, guessed.
func ruleGone(ruleARN string) string {
	if isListener(ruleARN) {
		return "of invalid networking configuration. One or more listeners not found"
	}
	return "of invalid networking configuration. One or more rules not found"
}

// checkRules checks where traffic is to be shifted. That the two must be of one
// kind is a guess.
func checkRules(adv *types.AdvancedConfiguration) error {
	rule, test := aws.ToString(adv.ProductionListenerRule), aws.ToString(adv.TestListenerRule)
	for _, r := range []struct{ member, arn string }{{"productionListenerRule", rule}, {"testListenerRule", test}} {
		if !isListener(r.arn) && !strings.Contains(r.arn, ":listener-rule/app/") && (r.arn != "" || r.member == "productionListenerRule") {
			return invalid("%s has an invalid ARN format. Must be RuleArn for ALB or ListenerArn for NLB. Got: %s", r.member, r.arn)
		}
	}
	switch {
	case test == rule:
		return invalid("The following rules cannot be used as both production and test listener rules: %s", rule)
	case test != "" && isListener(test) != isListener(rule):
		return invalid("productionListenerRule and testListenerRule must both be a RuleArn for ALB or both a ListenerArn for NLB. Got: %s and %s", rule, test)
	}
	return nil
}

// fits refuses a target group that its load balancer cannot forward to; the text
// is a guess.
func (g TargetGroup) fits(groupARN string, adv *types.AdvancedConfiguration) error {
	if adv == nil {
		return nil
	}
	rule, network := aws.ToString(adv.ProductionListenerRule), g.Protocol == "TCP"
	if network != isListener(rule) {
		return invalid("The target group %s with protocol %s cannot be used with productionListenerRule %s", groupARN, g.Protocol, rule)
	}
	return nil
}
