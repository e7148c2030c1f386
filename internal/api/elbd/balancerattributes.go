package elbd

import (
	"cmp"
	"context"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/balance"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// The attributes of load balancers, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_LoadBalancerAttribute.html

const (
	protectedAttribute = "deletion_protection.enabled"
	idleAttribute      = "idle_timeout.timeout_seconds"
	lifeAttribute      = "client_keep_alive.seconds"
	desyncAttribute    = "routing.http.desync_mitigation_mode"
	dropAttribute      = "routing.http.drop_invalid_header_fields.enabled"
	keepHostAttribute  = "routing.http.preserve_host_header.enabled"
	tlsInfoAttribute   = "routing.http.x_amzn_tls_version_and_cipher_suite.enabled"
	portAttribute      = "routing.http.xff_client_port.enabled"
	forwardedAttribute = "routing.http.xff_header_processing.mode"
	http2Attribute     = "routing.http2.enabled"
	logsAttribute      = "access_logs.s3.enabled"
	bucketAttribute    = "access_logs.s3.bucket"
	prefixAttribute    = "access_logs.s3.prefix"
	deny6Attribute     = "ipv6.deny_all_igw_traffic"
)

var (
	bucketName = text(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`, 63, "a name of a bucket")
	keyPrefix  = text(`^[A-Za-z0-9!_.*'()/-]+$`, 512, "a prefix of keys")
)

// everyBalancer is what load balancers of both types have. What is said of zones,
// gateways and firewalls is recorded.
var everyBalancer = map[string]attribute{
	protectedAttribute: offAtFirst, deny6Attribute: offAtFirst, bucketAttribute: bucketName, prefixAttribute: keyPrefix,
	"zonal_shift.config.enabled": offAtFirst,
}

var webBalancer = joined(everyBalancer, map[string]attribute{
	logsAttribute: offAtFirst, idleAttribute: number("60", 1, 4000), lifeAttribute: number("3600", 60, 604800),
	desyncAttribute: oneOf("defensive", "monitor", "strictest"), dropAttribute: offAtFirst, keepHostAttribute: offAtFirst, tlsInfoAttribute: offAtFirst, portAttribute: offAtFirst,
	forwardedAttribute: oneOf("append", "preserve", "remove"), http2Attribute: onAtFirst,
	"connection_logs.s3.enabled": offAtFirst.performing("false"), "connection_logs.s3.bucket": bucketName, "connection_logs.s3.prefix": keyPrefix,
	"health_check_logs.s3.enabled": offAtFirst.performing("false"), "health_check_logs.s3.bucket": bucketName, "health_check_logs.s3.prefix": keyPrefix,
	"load_balancing.cross_zone.enabled": oneOf(switchedOn), "waf.fail_open.enabled": offAtFirst,
})

var connectionBalancer = joined(everyBalancer, map[string]attribute{
	logsAttribute:                            offAtFirst.performing("false"),
	"load_balancing.cross_zone.enabled":      offAtFirst,
	"dns_record.client_routing_policy":       oneOf("any_availability_zone", "availability_zone_affinity", "partial_availability_zone_affinity"),
	"secondary_ips.auto_assigned.per_subnet": number("0", 0, 7).performing("0"),
})

// attributes is what a load balancer has.
func (lb loadBalancer) attributes() attributeTable {
	t := attributeTable{what: "Load balancer", of: "load balancers with type '" + cmp.Or(lb.Type, application) + "'", own: webBalancer, others: []map[string]attribute{connectionBalancer}}
	if lb.network() {
		t.own, t.others = connectionBalancer, []map[string]attribute{webBalancer}
	}
	if lb.Scheme == string(types.LoadBalancerSchemeEnumInternal) {
		t.own = joined(t.own, map[string]attribute{deny6Attribute: onAtFirst})
	}
	return t
}

// setting is one attribute of a load balancer.
func (lb loadBalancer) setting(key string) string { return lb.attributes().value(lb.Attributes, key) }

// on reports whether an attribute of a load balancer is switched on.
func (lb loadBalancer) on(key string) bool { return lb.setting(key) == switchedOn }

var reservedPrefix = regexp.MustCompile(`(^|/)AWSLogs(/|$)`)

// agrees refuses attributes that do not go together; the texts are guessed.
func (lb loadBalancer) agrees() error {
	prefix := lb.setting(prefixAttribute)
	switch {
	case lb.setting(bucketAttribute) == "" && lb.on(logsAttribute):
		return badAttribute("'%s' must be specified when '%s' is 'true'", bucketAttribute, logsAttribute)
	case prefix != "" && (!filepath.IsLocal(prefix) || strings.HasSuffix(prefix, "/") || reservedPrefix.MatchString(prefix)):
		return badAttribute("The value of '%s' must be a prefix of keys without 'AWSLogs', and neither begin nor end with '/'", prefixAttribute)
	}
	return nil
}

// headers is what an application load balancer does to headers.
func (lb loadBalancer) headers() balance.Headers {
	return balance.Headers{
		ForwardedFor: lb.setting(forwardedAttribute), ClientPort: lb.on(portAttribute), KeepHost: lb.on(keepHostAttribute), DropInvalid: lb.on(dropAttribute),
		TLSInfo: lb.on(tlsInfoAttribute), Desync: lb.setting(desyncAttribute), NoHTTP2: !lb.on(http2Attribute),
	}
}

func (a *API) balancerAttributeOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("ModifyLoadBalancerAttributes", a.ModifyLoadBalancerAttributes, on("ModifyLoadBalancerAttributes", func(_ *wire.Call, in *elb.ModifyLoadBalancerAttributesInput) string {
			return aws.ToString(in.LoadBalancerArn)
		}), wire.Members{Performed: "Attributes LoadBalancerArn"}),
		wire.Handle("DescribeLoadBalancerAttributes", a.DescribeLoadBalancerAttributes, anywhere[elb.DescribeLoadBalancerAttributesInput]("DescribeLoadBalancerAttributes"),
			wire.Members{Performed: "LoadBalancerArn"}),
		wire.Handle("SetSubnets", a.SetSubnets, on("SetSubnets", func(_ *wire.Call, in *elb.SetSubnetsInput) string { return aws.ToString(in.LoadBalancerArn) }),
			wire.Members{Performed: "IpAddressType LoadBalancerArn SubnetMappings", Recorded: "Subnets", Refused: "EnablePrefixForIpv6SourceNat"}),
		wire.Handle("SetSecurityGroups", a.SetSecurityGroups, on("SetSecurityGroups", func(_ *wire.Call, in *elb.SetSecurityGroupsInput) string { return aws.ToString(in.LoadBalancerArn) }),
			wire.Members{Performed: "LoadBalancerArn", Recorded: "SecurityGroups", Refused: "EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic"}),
		wire.Handle("SetIpAddressType", a.SetIpAddressType, on("SetIpAddressType", func(_ *wire.Call, in *elb.SetIpAddressTypeInput) string { return aws.ToString(in.LoadBalancerArn) }),
			wire.Members{Performed: "IpAddressType LoadBalancerArn"}),
	}
}

// changeBalancer replaces one load balancer by what fn makes of it.
func (a *API) changeBalancer(ctx context.Context, lbARN *string, fn func(*loadBalancer) error) (lb loadBalancer, err error) {
	call := wire.From(ctx)
	err = a.store.Update(func(tx *store.Tx) error {
		var ok bool
		if lb, ok = a.balancers.Get(tx, keyOf(aws.ToString(lbARN))); !ok || !inScope(call, lb.ARN) {
			return balancerNotFound(aws.ToString(lbARN))
		}
		if err := fn(&lb); err != nil {
			return err
		}
		a.balancers.Put(tx, keyOf(lb.ARN), lb)
		return nil
	})
	return lb, err
}

// ModifyLoadBalancerAttributes sets how a load balancer treats its traffic.
func (a *API) ModifyLoadBalancerAttributes(ctx context.Context, in *elb.ModifyLoadBalancerAttributesInput) (*elb.ModifyLoadBalancerAttributesOutput, error) {
	lb, err := a.changeBalancer(ctx, in.LoadBalancerArn, func(lb *loadBalancer) (err error) {
		if lb.Attributes, err = lb.attributes().with(lb.Attributes, tags.In(in.Attributes)); err != nil {
			return err
		}
		return lb.agrees()
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyLoadBalancerAttributesOutput{Attributes: tags.Out[types.LoadBalancerAttribute](lb.attributes().all(lb.Attributes))}, nil
}

// DescribeLoadBalancerAttributes lists a load balancer's attributes.
func (a *API) DescribeLoadBalancerAttributes(ctx context.Context, in *elb.DescribeLoadBalancerAttributesInput) (*elb.DescribeLoadBalancerAttributesOutput, error) {
	lb, ok := loadBalancer{}, false
	a.store.View(func(tx *store.Tx) { lb, ok = a.balancers.Get(tx, keyOf(aws.ToString(in.LoadBalancerArn))) })
	if !ok || !inScope(wire.From(ctx), lb.ARN) {
		return nil, balancerNotFound(aws.ToString(in.LoadBalancerArn))
	}
	return &elb.DescribeLoadBalancerAttributesOutput{Attributes: tags.Out[types.LoadBalancerAttribute](lb.attributes().all(lb.Attributes))}, nil
}

// SetSubnets replaces a load balancer's subnets.
func (a *API) SetSubnets(ctx context.Context, in *elb.SetSubnetsInput) (*elb.SetSubnetsOutput, error) {
	if err := onlyIPv4(in.IpAddressType); err != nil {
		return nil, err
	}
	subnets, err := subnetsIn(in.Subnets, in.SubnetMappings)
	if err != nil {
		return nil, err
	}
	if len(subnets) == 0 {
		return nil, invalid("At least one subnet must be specified")
	}
	lb, err := a.changeBalancer(ctx, in.LoadBalancerArn, func(lb *loadBalancer) error {
		lb.Subnets = subnets
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := a.balancerView(lb)
	return &elb.SetSubnetsOutput{AvailabilityZones: v.AvailabilityZones, IpAddressType: v.IpAddressType}, nil
}

// SetSecurityGroups replaces a load balancer's security groups. A network load
// balancer that was made without any stays without, documented.
func (a *API) SetSecurityGroups(ctx context.Context, in *elb.SetSecurityGroupsInput) (*elb.SetSecurityGroupsOutput, error) {
	lb, err := a.changeBalancer(ctx, in.LoadBalancerArn, func(lb *loadBalancer) error {
		if lb.network() && (len(lb.Groups) == 0) != (len(in.SecurityGroups) == 0) {
			return badAttribute("You cannot add security groups to, or remove all from, a Network Load Balancer after it was created")
		}
		lb.Groups = in.SecurityGroups
		return nil
	})
	return &elb.SetSecurityGroupsOutput{SecurityGroupIds: lb.Groups}, err
}

// SetIpAddressType sets what there is but one of.
func (a *API) SetIpAddressType(ctx context.Context, in *elb.SetIpAddressTypeInput) (*elb.SetIpAddressTypeOutput, error) {
	if err := onlyIPv4(in.IpAddressType); err != nil {
		return nil, err
	}
	_, err := a.changeBalancer(ctx, in.LoadBalancerArn, func(*loadBalancer) error { return nil })
	return &elb.SetIpAddressTypeOutput{IpAddressType: types.IpAddressTypeIpv4}, err
}

func onlyIPv4(t types.IpAddressType) error {
	if t != "" && t != types.IpAddressTypeIpv4 {
		return invalid("Serin performs the IpAddressType ipv4; '%s' is not performed yet", t)
	}
	return nil
}

// subnetsIn reads subnets in either of the two ways; the text is guessed.
func subnetsIn(subnets []string, mappings []types.SubnetMapping) ([]string, error) {
	if len(subnets) > 0 && len(mappings) > 0 {
		return nil, invalid("You must specify either subnets or subnet mappings, but not both")
	}
	for _, m := range mappings {
		subnets = append(subnets, aws.ToString(m.SubnetId))
	}
	return subnets, nil
}
