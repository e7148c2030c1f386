package elbd

// What an account may have by default, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
const (
	mostValues    = 5 // of a rule's conditions
	mostWildcards = 5
	mostForward   = 5    // target groups of an action
	mostTargets   = 1000 // of a group
	mostRules     = 100  // of a load balancer, but for the default ones
)
