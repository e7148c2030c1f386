package elbd

import (
	"context"
	"strconv"

	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/wire"
)

// What an account may have by default, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
const (
	mostBalancers    = 50   // of a type
	mostListeners    = 50   // of a load balancer
	mostCertificates = 25   // of a load balancer, but for the default ones
	mostRules        = 100  // of a load balancer, but for the default ones
	mostGroups       = 100  // that a load balancer forwards to
	mostForward      = 5    // target groups of an action
	mostTargets      = 1000 // of a group
	mostInRegion     = 3000 // target groups
	mostValues       = 5    // of a rule's conditions
	mostWildcards    = 5
)

// limits are the names by which they are told, in the order of AWS's own example.
var limits = []struct {
	name string
	most int
}{
	{"application-load-balancers", mostBalancers}, {"target-groups", mostInRegion}, {"targets-per-application-load-balancer", mostTargets}, {"listeners-per-application-load-balancer", mostListeners},
	{"rules-per-application-load-balancer", mostRules}, {"network-load-balancers", mostBalancers}, {"targets-per-network-load-balancer", 3000},
	{"targets-per-availability-zone-per-network-load-balancer", 500}, {"listeners-per-network-load-balancer", mostListeners}, {"condition-values-per-alb-rule", mostValues},
	{"condition-wildcards-per-alb-rule", mostWildcards}, {"target-groups-per-application-load-balancer", mostGroups}, {"target-groups-per-action-on-application-load-balancer", mostForward},
	{"target-groups-per-action-on-network-load-balancer", mostForward}, {"certificates-per-application-load-balancer", mostCertificates}, {"certificates-per-network-load-balancer", mostCertificates},
	{"targets-per-target-group", mostTargets},
}

func (a *API) limitOps() []*wire.Op {
	return []*wire.Op{wire.Handle("DescribeAccountLimits", a.DescribeAccountLimits, anywhere[elb.DescribeAccountLimitsInput]("DescribeAccountLimits"), wire.Members{Performed: "Marker PageSize"})}
}

// DescribeAccountLimits lists what an account may have.
func (a *API) DescribeAccountLimits(_ context.Context, in *elb.DescribeAccountLimitsInput) (*elb.DescribeAccountLimitsOutput, error) {
	var list []types.Limit
	for _, l := range limits {
		list = append(list, types.Limit{Name: new(l.name), Max: new(strconv.Itoa(l.most))})
	}
	list, next, err := page(list, func(l types.Limit) string { return *l.Name }, in.Marker, in.PageSize)
	return &elb.DescribeAccountLimitsOutput{Limits: list, NextMarker: next}, err
}
