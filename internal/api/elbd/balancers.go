package elbd

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) balancerOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("CreateLoadBalancer", a.CreateLoadBalancer, creating("CreateLoadBalancer", func(c *wire.Call, in *elb.CreateLoadBalancerInput) string {
			return resource(c, "loadbalancer/"+pathOf(in.Type)+"/"+aws.ToString(in.Name)+"/*")
		}, func(in *elb.CreateLoadBalancerInput) []types.Tag { return in.Tags }), wire.Members{Performed: "Name SubnetMappings Type Tags", Recorded: "Scheme SecurityGroups Subnets IpAddressType", Refused: "CustomerOwnedIpv4Pool EnablePrefixForIpv6SourceNat IpamPools"}),
		wire.Handle("DescribeLoadBalancers", a.DescribeLoadBalancers, anywhere[elb.DescribeLoadBalancersInput]("DescribeLoadBalancers"),
			wire.Members{Performed: "LoadBalancerArns Marker Names PageSize"}),
		wire.Handle("DeleteLoadBalancer", a.DeleteLoadBalancer, on("DeleteLoadBalancer", func(_ *wire.Call, in *elb.DeleteLoadBalancerInput) string { return aws.ToString(in.LoadBalancerArn) }),
			wire.Members{Performed: "LoadBalancerArn"}),
	}
}

var resourceName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?$`)

// CreateLoadBalancer makes an application or network load balancer with a
// loopback address of its own.
func (a *API) CreateLoadBalancer(ctx context.Context, in *elb.CreateLoadBalancerInput) (*elb.CreateLoadBalancerOutput, error) {
	call := wire.From(ctx)
	lb, err := balancerIn(call, in, a.clock.Now())
	if err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	if err := a.deps.LinkedRole(call); err != nil {
		return nil, err
	}
	err = a.store.Update(func(tx *store.Tx) error {
		addresses, alike := map[string]bool{}, 0
		for _, other := range a.balancers.Scan(tx, "") {
			addresses[other.Address] = true
		}
		for _, other := range a.balancers.Scan(tx, call.Scope.Key("")) {
			if other.Name == lb.Name {
				if sameSet(other.Subnets, lb.Subnets) && sameSet(other.Groups, lb.Groups) && other.Scheme == lb.Scheme && other.network() == lb.network() {
					lb = other // the same again is the same, documented
					return nil
				}
				return &types.DuplicateLoadBalancerNameException{Message: new("A load balancer with the same name '" + lb.Name + "' exists, but with different settings")}
			}
			if other.network() == lb.network() {
				alike++
			}
		}
		if alike >= mostBalancers {
			return &types.TooManyLoadBalancersException{Message: new(fmt.Sprintf("The maximum number of load balancers has been reached: %d", mostBalancers))}
		}
		lb.Address = loopback(func(s string) bool { return addresses[s] })
		a.balancers.Put(tx, keyOf(lb.ARN), lb)
		a.tags.Set(tx, lb.ARN, labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.CreateLoadBalancerOutput{LoadBalancers: []types.LoadBalancer{a.balancerView(lb)}}, nil
}

func sameSet(x, y []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y)))
}

// balancerIn reads a new load balancer.
func balancerIn(call *wire.Call, in *elb.CreateLoadBalancerInput, now time.Time) (lb loadBalancer, err error) {
	name := aws.ToString(in.Name)
	if strings.HasPrefix(name, "internal-") { // observed
		return lb, invalid("The load balancer name '%s' cannot begin with 'internal-'", name)
	}
	if !resourceName.MatchString(name) {
		return lb, invalid("The load balancer name '%s' must have 1 to 32 characters, alphanumeric or hyphens, not beginning or ending with a hyphen", name)
	}
	kind := cmp.Or(in.Type, types.LoadBalancerTypeEnumApplication)
	if kind != types.LoadBalancerTypeEnumApplication && kind != types.LoadBalancerTypeEnumNetwork {
		return lb, invalid("Serin performs application and network load balancers; Type '%s' is not performed yet", in.Type)
	}
	if err := onlyIPv4(in.IpAddressType); err != nil {
		return lb, err
	}
	subnets, err := subnetsIn(in.Subnets, in.SubnetMappings)
	if err != nil {
		return lb, err
	}
	scheme := string(in.Scheme)
	if scheme == "" {
		scheme = string(types.LoadBalancerSchemeEnumInternetFacing)
	}
	return loadBalancer{
		ARN: resource(call, "loadbalancer/"+pathOf(kind)+"/"+name+"/"+newID()), Name: name, Scheme: scheme, Type: string(kind),
		Subnets: subnets, Groups: in.SecurityGroups, Created: now,
	}, nil
}

func (a *API) balancerView(lb loadBalancer) types.LoadBalancer {
	v := types.LoadBalancer{
		LoadBalancerArn: new(lb.ARN), LoadBalancerName: new(lb.Name), DNSName: new(lb.Address), CreatedTime: new(lb.Created),
		Scheme: types.LoadBalancerSchemeEnum(lb.Scheme), Type: cmp.Or(types.LoadBalancerTypeEnum(lb.Type), types.LoadBalancerTypeEnumApplication), IpAddressType: types.IpAddressTypeIpv4,
		State: &types.LoadBalancerState{Code: types.LoadBalancerStateEnumActive}, SecurityGroups: lb.Groups, AvailabilityZones: []types.AvailabilityZone{},
	}
	a.store.View(func(tx *store.Tx) {
		for _, s := range lb.Subnets {
			in := types.AvailabilityZone{SubnetId: new(s)}
			if zone, vpc := a.deps.Network.Subnet(tx, scopeOf(lb.ARN), s); zone != "" {
				in.ZoneName, v.VpcId = new(zone), new(vpc)
			}
			v.AvailabilityZones = append(v.AvailabilityZones, in)
		}
	})
	return v
}

// DescribeLoadBalancers lists load balancers, all or those named.
func (a *API) DescribeLoadBalancers(ctx context.Context, in *elb.DescribeLoadBalancersInput) (*elb.DescribeLoadBalancersOutput, error) {
	call := wire.From(ctx)
	var rows []loadBalancer
	a.store.View(func(tx *store.Tx) {
		for _, lb := range a.balancers.Scan(tx, call.Scope.Key("")) {
			if (in.LoadBalancerArns == nil || slices.Contains(in.LoadBalancerArns, lb.ARN)) && (in.Names == nil || slices.Contains(in.Names, lb.Name)) {
				rows = append(rows, lb)
			}
		}
	})
	for _, asked := range slices.Concat(in.LoadBalancerArns, in.Names) {
		if !slices.ContainsFunc(rows, func(lb loadBalancer) bool { return asked == lb.ARN || asked == lb.Name }) {
			return nil, &types.LoadBalancerNotFoundException{Message: new("Load balancers '[" + asked + "]' not found")}
		}
	}
	rows, next, err := page(rows, func(lb loadBalancer) string { return lb.ARN }, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elb.DescribeLoadBalancersOutput{NextMarker: next}
	for _, lb := range rows {
		out.LoadBalancers = append(out.LoadBalancers, a.balancerView(lb))
	}
	return out, nil
}

// The texts about what is not found are observed.
func balancerNotFound(lbARN string) error {
	return &types.LoadBalancerNotFoundException{Message: new("Load balancer '" + lbARN + "' not found")}
}

// DeleteLoadBalancer removes a load balancer with its listeners and rules. One
// that is not there is as good as deleted, documented.
func (a *API) DeleteLoadBalancer(ctx context.Context, in *elb.DeleteLoadBalancerInput) (*elb.DeleteLoadBalancerOutput, error) {
	call := wire.From(ctx)
	lbARN := aws.ToString(in.LoadBalancerArn)
	return &elb.DeleteLoadBalancerOutput{}, a.store.Update(func(tx *store.Tx) error {
		if !inScope(call, lbARN) {
			return nil
		}
		if lb, ok := a.balancers.Get(tx, keyOf(lbARN)); ok && lb.on(protectedAttribute) { // the text is observed
			return &types.OperationNotPermittedException{Message: new("Load balancer '" + lbARN + "' cannot be deleted because deletion protection is enabled")}
		}
		a.balancers.Delete(tx, keyOf(lbARN))
		a.tags.Set(tx, lbARN, nil)
		for _, l := range a.listeners.Scan(tx, call.Scope.Key("")) {
			if l.LoadBalancer == lbARN {
				a.dropListener(tx, l.ARN)
			}
		}
		return nil
	})
}
