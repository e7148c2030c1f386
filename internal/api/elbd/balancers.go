package elbd

import (
	"cmp"
	"context"
	"regexp"
	"slices"

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
		}, func(in *elb.CreateLoadBalancerInput) []types.Tag { return in.Tags }), wire.Members{Performed: "Name Type Tags", Recorded: "Scheme SecurityGroups Subnets IpAddressType", Refused: "CustomerOwnedIpv4Pool EnablePrefixForIpv6SourceNat IpamPools SubnetMappings"}),
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
	name := aws.ToString(in.Name)
	if !resourceName.MatchString(name) {
		return nil, invalid("The load balancer name '%s' must have 1 to 32 characters, alphanumeric or hyphens, not beginning or ending with a hyphen", name)
	}
	kind := cmp.Or(in.Type, types.LoadBalancerTypeEnumApplication)
	if kind != types.LoadBalancerTypeEnumApplication && kind != types.LoadBalancerTypeEnumNetwork {
		return nil, invalid("Serin performs application and network load balancers; Type '%s' is not performed yet", in.Type)
	}
	if in.IpAddressType != "" && in.IpAddressType != types.IpAddressTypeIpv4 {
		return nil, invalid("Serin performs the IpAddressType ipv4; '%s' is not performed yet", in.IpAddressType)
	}
	scheme := string(in.Scheme)
	if scheme == "" {
		scheme = string(types.LoadBalancerSchemeEnumInternetFacing)
	}
	lb := loadBalancer{
		ARN: resource(call, "loadbalancer/"+pathOf(kind)+"/"+name+"/"+newID()), Name: name, Scheme: scheme, Type: string(kind),
		Subnets: in.Subnets, Groups: in.SecurityGroups, Created: a.clock.Now(),
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	if err := a.deps.LinkedRole(call); err != nil {
		return nil, err
	}
	err = a.store.Update(func(tx *store.Tx) error {
		addresses := map[string]bool{}
		for _, other := range a.balancers.Scan(tx, "") {
			addresses[other.Address] = true
		}
		for _, other := range a.balancers.Scan(tx, call.Scope.Key("")) {
			if other.Name == name {
				if slices.Equal(other.Subnets, lb.Subnets) && other.Scheme == scheme && other.network() == lb.network() {
					lb = other // the same again is the same, documented
					return nil
				}
				return &types.DuplicateLoadBalancerNameException{Message: new("A load balancer with the same name '" + name + "' exists, but with different settings")}
			}
		}
		lb.Address = loopback(func(s string) bool { return addresses[s] })
		a.balancers.Put(tx, keyOf(lb.ARN), lb)
		a.tags.Set(tx, lb.ARN, labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.CreateLoadBalancerOutput{LoadBalancers: []types.LoadBalancer{balancerView(lb)}}, nil
}

func balancerView(lb loadBalancer) types.LoadBalancer {
	v := types.LoadBalancer{
		LoadBalancerArn: new(lb.ARN), LoadBalancerName: new(lb.Name), DNSName: new(lb.Address), CreatedTime: new(lb.Created),
		Scheme: types.LoadBalancerSchemeEnum(lb.Scheme), Type: cmp.Or(types.LoadBalancerTypeEnum(lb.Type), types.LoadBalancerTypeEnumApplication), IpAddressType: types.IpAddressTypeIpv4,
		State: &types.LoadBalancerState{Code: types.LoadBalancerStateEnumActive}, SecurityGroups: lb.Groups, AvailabilityZones: []types.AvailabilityZone{},
	}
	for _, s := range lb.Subnets {
		v.AvailabilityZones = append(v.AvailabilityZones, types.AvailabilityZone{SubnetId: new(s)})
	}
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
	if len(rows) < len(in.LoadBalancerArns) || len(rows) < len(in.Names) {
		return nil, balancerNotFound()
	}
	rows, next, err := page(rows, func(lb loadBalancer) string { return lb.ARN }, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elb.DescribeLoadBalancersOutput{NextMarker: next}
	for _, lb := range rows {
		out.LoadBalancers = append(out.LoadBalancers, balancerView(lb))
	}
	return out, nil
}

func balancerNotFound() error {
	return &types.LoadBalancerNotFoundException{Message: new("One or more load balancers not found")}
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
