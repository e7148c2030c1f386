package elbd

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) groupOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("CreateTargetGroup", a.CreateTargetGroup, creating("CreateTargetGroup", func(c *wire.Call, in *elb.CreateTargetGroupInput) string {
			return resource(c, "targetgroup/"+aws.ToString(in.Name)+"/*")
		}, func(in *elb.CreateTargetGroupInput) []types.Tag { return in.Tags }), wire.Members{
			Performed: "Name HealthCheckEnabled HealthCheckIntervalSeconds HealthCheckPath HealthCheckPort HealthCheckProtocol HealthCheckTimeoutSeconds HealthyThresholdCount Matcher Port Protocol TargetType UnhealthyThresholdCount ProtocolVersion IpAddressType Tags",
			Recorded:  "VpcId", Refused: "TargetControlPort"}),
		wire.Handle("ModifyTargetGroup", a.ModifyTargetGroup, on("ModifyTargetGroup", func(_ *wire.Call, in *elb.ModifyTargetGroupInput) string { return aws.ToString(in.TargetGroupArn) }),
			wire.Members{Performed: "TargetGroupArn HealthCheckEnabled HealthCheckIntervalSeconds HealthCheckPath HealthCheckPort HealthCheckProtocol HealthCheckTimeoutSeconds HealthyThresholdCount Matcher UnhealthyThresholdCount"}),
		wire.Handle("DescribeTargetGroups", a.DescribeTargetGroups, anywhere[elb.DescribeTargetGroupsInput]("DescribeTargetGroups"),
			wire.Members{Performed: "LoadBalancerArn Marker Names PageSize TargetGroupArns"}),
		wire.Handle("DeleteTargetGroup", a.DeleteTargetGroup, on("DeleteTargetGroup", func(_ *wire.Call, in *elb.DeleteTargetGroupInput) string { return aws.ToString(in.TargetGroupArn) }),
			wire.Members{Performed: "TargetGroupArn"}),
		wire.Handle("ModifyTargetGroupAttributes", a.ModifyTargetGroupAttributes, on("ModifyTargetGroupAttributes", func(_ *wire.Call, in *elb.ModifyTargetGroupAttributesInput) string {
			return aws.ToString(in.TargetGroupArn)
		}), wire.Members{Performed: "Attributes TargetGroupArn"}),
		wire.Handle("DescribeTargetGroupAttributes", a.DescribeTargetGroupAttributes, anywhere[elb.DescribeTargetGroupAttributesInput]("DescribeTargetGroupAttributes"),
			wire.Members{Performed: "TargetGroupArn"}),
		wire.Handle("RegisterTargets", a.RegisterTargets, on("RegisterTargets", func(_ *wire.Call, in *elb.RegisterTargetsInput) string { return aws.ToString(in.TargetGroupArn) }),
			wire.Members{Performed: "TargetGroupArn Targets"}),
		wire.Handle("DeregisterTargets", a.DeregisterTargets, on("DeregisterTargets", func(_ *wire.Call, in *elb.DeregisterTargetsInput) string { return aws.ToString(in.TargetGroupArn) }),
			wire.Members{Performed: "TargetGroupArn Targets"}),
		wire.Handle("DescribeTargetHealth", a.DescribeTargetHealth, anywhere[elb.DescribeTargetHealthInput]("DescribeTargetHealth"),
			wire.Members{Performed: "TargetGroupArn Targets", Refused: "Include"}),
	}
}

// CreateTargetGroup makes a target group of addresses or instances, spoken to in HTTP/1.1 or,
// by network load balancers, in whatever their clients say over TCP.
func (a *API) CreateTargetGroup(ctx context.Context, in *elb.CreateTargetGroupInput) (*elb.CreateTargetGroupOutput, error) {
	call := wire.From(ctx)
	g, err := groupIn(call, in)
	if err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	err = a.store.Update(func(tx *store.Tx) error {
		for _, other := range a.groups.Scan(tx, call.Scope.Key("")) {
			if other.Name == g.Name {
				return &types.DuplicateTargetGroupNameException{Message: new("A target group with the same name '" + g.Name + "' exists, but with different settings")}
			}
		}
		a.groups.Put(tx, keyOf(g.ARN), g)
		a.tags.Set(tx, g.ARN, labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.CreateTargetGroupOutput{TargetGroups: []types.TargetGroup{groupView(g, nil)}}, nil
}

// groupIn reads a new group.
func groupIn(call *wire.Call, in *elb.CreateTargetGroupInput) (g targetGroup, err error) {
	name := aws.ToString(in.Name)
	if !resourceName.MatchString(name) {
		return g, invalid("The target group name '%s' must have 1 to 32 characters, alphanumeric or hyphens, not beginning or ending with a hyphen", name)
	}
	switch {
	case in.Protocol != types.ProtocolEnumHttp && in.Protocol != types.ProtocolEnumTcp:
		return g, &types.UnsupportedProtocolException{Message: new(fmt.Sprintf("Serin performs target groups of the protocols HTTP and TCP; '%s' is not performed yet", in.Protocol))}
	case in.Protocol == types.ProtocolEnumTcp && in.ProtocolVersion != nil:
		return g, invalid("ProtocolVersion cannot be specified for target groups with protocol TCP")
	case in.TargetType != "" && in.TargetType != types.TargetTypeEnumIp && in.TargetType != types.TargetTypeEnumInstance:
		return g, invalid("Serin performs target groups of the types ip and instance; TargetType '%s' is not performed yet", in.TargetType)
	case in.ProtocolVersion != nil && *in.ProtocolVersion != "HTTP1":
		return g, invalid("Serin performs the protocol version HTTP1; '%s' is not performed yet", *in.ProtocolVersion)
	case in.IpAddressType != "" && in.IpAddressType != types.TargetGroupIpAddressTypeEnumIpv4:
		return g, invalid("Serin performs the IpAddressType ipv4; '%s' is not performed yet", in.IpAddressType)
	case in.Port == nil || *in.Port < 1 || *in.Port > 65535:
		return g, invalid("A port between 1 and 65535 must be specified")
	}
	g = targetGroup{
		ARN: resource(call, "targetgroup/"+name+"/"+newID()), Name: name, VPC: aws.ToString(in.VpcId), Type: cmpOr(string(in.TargetType), "instance"), Protocol: string(in.Protocol), Port: *in.Port,
		HealthPort: "traffic-port", Interval: 30, Timeout: 5, Healthy: 5, Unhealthy: 2, Attributes: defaultAttributes(string(in.Protocol)),
	}
	g.checkBy(g.Protocol)
	switch {
	case g.Protocol == overHTTP:
		g.ProtocolVersion = "HTTP1"
	case in.HealthCheckProtocol == types.ProtocolEnumHttp:
		g.Timeout = 6
	default:
		g.Timeout = 10
	}
	return g, g.setHealth(healthSettings{in.HealthCheckEnabled, in.HealthCheckIntervalSeconds, in.HealthCheckPath, in.HealthCheckPort, in.HealthCheckProtocol, in.HealthCheckTimeoutSeconds, in.HealthyThresholdCount, in.UnhealthyThresholdCount, in.Matcher})
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// healthSettings are the members that creating and modifying share.
type healthSettings struct {
	enabled            *bool
	interval           *int32
	path, port         *string
	protocol           types.ProtocolEnum
	timeout            *int32
	healthy, unhealthy *int32
	matcher            *types.Matcher
}

func (g *targetGroup) setHealth(h healthSettings) error {
	if h.enabled != nil && !*h.enabled {
		return invalid("Health check enabled must be true for target groups with target type '%s'", g.Type)
	}
	if err := g.setHealthProtocol(h.protocol); err != nil {
		return err
	}
	for _, n := range []struct {
		name      string
		value     *int32
		low, high int32
		to        *int32
	}{
		{"healthCheckIntervalSeconds", h.interval, 5, 300, &g.Interval}, {"healthCheckTimeoutSeconds", h.timeout, 2, 120, &g.Timeout},
		{"healthyThresholdCount", h.healthy, 2, 10, &g.Healthy}, {"unhealthyThresholdCount", h.unhealthy, 2, 10, &g.Unhealthy},
	} {
		if n.value == nil {
			continue
		}
		if *n.value < n.low || *n.value > n.high {
			return invalid("1 validation error detected: Value '%d' at '%s' failed to satisfy constraint: Member must have value between %d and %d", *n.value, n.name, n.low, n.high)
		}
		*n.to = *n.value
	}
	if g.Timeout >= g.Interval {
		return invalid("Health check interval must be greater than the timeout.")
	}
	if h.port != nil {
		if n, err := strconv.Atoi(*h.port); *h.port != "traffic-port" && (err != nil || n < 1 || n > 65535) {
			return invalid("Health check port '%s' must be 'traffic-port' or in the range '1-65535'", *h.port)
		}
		g.HealthPort = *h.port
	}
	return g.setWeb(h.path, h.matcher)
}

func groupView(g targetGroup, balancers []string) types.TargetGroup {
	if balancers == nil {
		balancers = []string{}
	}
	v := types.TargetGroup{
		TargetGroupArn: new(g.ARN), TargetGroupName: new(g.Name), Protocol: types.ProtocolEnum(g.protocol()),
		Port: new(g.Port), TargetType: types.TargetTypeEnum(g.Type), IpAddressType: types.TargetGroupIpAddressTypeEnumIpv4, LoadBalancerArns: balancers,
		HealthCheckEnabled: new(true), HealthCheckProtocol: types.ProtocolEnum(g.checks()), HealthCheckPort: new(g.HealthPort),
		HealthCheckIntervalSeconds: new(g.Interval), HealthCheckTimeoutSeconds: new(g.Timeout), HealthyThresholdCount: new(g.Healthy),
		UnhealthyThresholdCount: new(g.Unhealthy),
	}
	if g.ProtocolVersion != "" {
		v.ProtocolVersion = new(g.ProtocolVersion)
	}
	if g.checks() == overHTTP {
		v.HealthCheckPath, v.Matcher = new(g.HealthPath), &types.Matcher{HttpCode: new(g.Matcher)}
	}
	if g.VPC != "" {
		v.VpcId = new(g.VPC)
	}
	return v
}

// usersOf is the load balancers whose rules forward to the group.
func (a *API) usersOf(tx *store.Tx, groupARN string) []string {
	users := map[string]bool{}
	for _, r := range a.rulesBy.Scan(tx, groupARN) {
		if l, ok := a.listeners.Get(tx, keyOf(r.Listener)); ok {
			users[l.LoadBalancer] = true
		}
	}
	return slices.Sorted(maps.Keys(users))
}

func groupNotFound() error {
	return &types.TargetGroupNotFoundException{Message: new("One or more target groups not found")}
}

// change replaces one target group by what fn makes of it.
func (a *API) change(ctx context.Context, groupARN *string, fn func(*targetGroup) error) (targetGroup, error) {
	call := wire.From(ctx)
	var g targetGroup
	err := a.store.Update(func(tx *store.Tx) error {
		var ok bool
		if g, ok = a.groups.Get(tx, keyOf(aws.ToString(groupARN))); !ok || !inScope(call, g.ARN) {
			return groupNotFound()
		}
		if err := fn(&g); err != nil {
			return err
		}
		a.groups.Put(tx, keyOf(g.ARN), g)
		return nil
	})
	return g, err
}

// ModifyTargetGroup changes how targets are checked.
func (a *API) ModifyTargetGroup(ctx context.Context, in *elb.ModifyTargetGroupInput) (*elb.ModifyTargetGroupOutput, error) {
	g, err := a.change(ctx, in.TargetGroupArn, func(g *targetGroup) error {
		return g.setHealth(healthSettings{in.HealthCheckEnabled, in.HealthCheckIntervalSeconds, in.HealthCheckPath, in.HealthCheckPort, in.HealthCheckProtocol, in.HealthCheckTimeoutSeconds, in.HealthyThresholdCount, in.UnhealthyThresholdCount, in.Matcher})
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyTargetGroupOutput{TargetGroups: []types.TargetGroup{groupView(g, nil)}}, nil
}

// DescribeTargetGroups lists target groups: all, by name, by ARN, or those
// that a load balancer forwards to.
func (a *API) DescribeTargetGroups(ctx context.Context, in *elb.DescribeTargetGroupsInput) (*elb.DescribeTargetGroupsOutput, error) {
	call := wire.From(ctx)
	var list []types.TargetGroup
	a.store.View(func(tx *store.Tx) {
		for _, g := range a.groups.Scan(tx, call.Scope.Key("")) {
			users := a.usersOf(tx, g.ARN)
			if (in.TargetGroupArns == nil || slices.Contains(in.TargetGroupArns, g.ARN)) && (in.Names == nil || slices.Contains(in.Names, g.Name)) &&
				(in.LoadBalancerArn == nil || slices.Contains(users, *in.LoadBalancerArn)) {
				list = append(list, groupView(g, users))
			}
		}
	})
	if len(list) < len(in.TargetGroupArns) || len(list) < len(in.Names) {
		return nil, groupNotFound()
	}
	list, next, err := page(list, func(g types.TargetGroup) string { return *g.TargetGroupArn }, in.Marker, in.PageSize)
	return &elb.DescribeTargetGroupsOutput{TargetGroups: list, NextMarker: next}, err
}

// DeleteTargetGroup removes a target group that no rule forwards to.
func (a *API) DeleteTargetGroup(ctx context.Context, in *elb.DeleteTargetGroupInput) (*elb.DeleteTargetGroupOutput, error) {
	call := wire.From(ctx)
	groupARN := aws.ToString(in.TargetGroupArn)
	return &elb.DeleteTargetGroupOutput{}, a.store.Update(func(tx *store.Tx) error {
		if !inScope(call, groupARN) {
			return groupNotFound()
		}
		if len(a.usersOf(tx, groupARN)) > 0 {
			return &types.ResourceInUseException{Message: new("Target group '" + groupARN + "' is currently in use by a listener or a rule")}
		}
		a.groups.Delete(tx, keyOf(groupARN))
		a.tags.Set(tx, groupARN, nil)
		return nil
	})
}

// ModifyTargetGroupAttributes sets how targets are taken leave of.
func (a *API) ModifyTargetGroupAttributes(ctx context.Context, in *elb.ModifyTargetGroupAttributesInput) (*elb.ModifyTargetGroupAttributesOutput, error) {
	g, err := a.change(ctx, in.TargetGroupArn, func(g *targetGroup) error {
		g.Attributes = maps.Clone(g.Attributes)
		for _, at := range in.Attributes {
			if err := g.setAttribute(at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyTargetGroupAttributesOutput{Attributes: attributesView(g)}, nil
}

// DescribeTargetGroupAttributes lists a group's attributes.
func (a *API) DescribeTargetGroupAttributes(ctx context.Context, in *elb.DescribeTargetGroupAttributesInput) (*elb.DescribeTargetGroupAttributesOutput, error) {
	g, ok := a.group(wire.From(ctx), in.TargetGroupArn)
	if !ok {
		return nil, groupNotFound()
	}
	return &elb.DescribeTargetGroupAttributesOutput{Attributes: attributesView(g)}, nil
}

func (a *API) group(call *wire.Call, groupARN *string) (g targetGroup, ok bool) {
	a.store.View(func(tx *store.Tx) { g, ok = a.groups.Get(tx, keyOf(aws.ToString(groupARN))) })
	return g, ok && inScope(call, g.ARN)
}

func attributesView(g targetGroup) []types.TargetGroupAttribute {
	out := []types.TargetGroupAttribute{}
	for _, key := range slices.Sorted(maps.Keys(g.Attributes)) {
		out = append(out, types.TargetGroupAttribute{Key: new(key), Value: new(g.Attributes[key])})
	}
	return out
}

// RegisterTargets adds addresses to a group. Instances are where their tasks are,
// and that ECS alone knows.
func (a *API) RegisterTargets(ctx context.Context, in *elb.RegisterTargetsInput) (*elb.RegisterTargetsOutput, error) {
	_, err := a.change(ctx, in.TargetGroupArn, func(g *targetGroup) error {
		targets, err := g.targetsIn(in.Targets)
		if err != nil {
			return err
		}
		if g.Type == string(types.TargetTypeEnumInstance) {
			return &types.InvalidTargetException{Message: new("Serin registers instances where ECS does, with the ports of its tasks; '" + targets[0].ID + "' cannot be registered by hand")}
		}
		g.register(targets, a.clock.Now())
		return nil
	})
	return &elb.RegisterTargetsOutput{}, err
}

var instanceIDs = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

// targetsIn reads targets of the group's type.
func (g *targetGroup) targetsIn(in []types.TargetDescription) ([]target, error) {
	if len(in) == 0 {
		return nil, invalid("A target must be specified")
	}
	var out []target
	for _, t := range in {
		if g.Type == string(types.TargetTypeEnumInstance) {
			if !instanceIDs.MatchString(aws.ToString(t.Id)) {
				return nil, &types.InvalidTargetException{Message: new("The following targets are not valid instances: '" + aws.ToString(t.Id) + "'")}
			}
		} else if addr, err := netip.ParseAddr(aws.ToString(t.Id)); err != nil || !addr.Is4() {
			return nil, &types.InvalidTargetException{Message: new("The IP address '" + aws.ToString(t.Id) + "' is not a valid IPv4 address")}
		}
		out = append(out, target{ID: *t.Id, Port: aws.ToInt32(t.Port)})
	}
	return out, nil
}

// DeregisterTargets takes addresses out; they drain.
func (a *API) DeregisterTargets(ctx context.Context, in *elb.DeregisterTargetsInput) (*elb.DeregisterTargetsOutput, error) {
	_, err := a.change(ctx, in.TargetGroupArn, func(g *targetGroup) error {
		targets, err := g.targetsIn(in.Targets)
		if err != nil {
			return err
		}
		g.deregister(targets, a.clock.Now())
		return nil
	})
	return &elb.DeregisterTargetsOutput{}, err
}

// DescribeTargetHealth tells the health of a group's targets as it was last
// observed.
func (a *API) DescribeTargetHealth(ctx context.Context, in *elb.DescribeTargetHealthInput) (*elb.DescribeTargetHealthOutput, error) {
	call := wire.From(ctx)
	g, ok := a.group(call, in.TargetGroupArn)
	if !ok {
		return nil, groupNotFound()
	}
	wanted := map[string]bool{}
	for _, t := range in.Targets {
		port := g.Port
		if t.Port != nil {
			port = *t.Port
		}
		wanted[endpoint(aws.ToString(t.Id), port)] = true
	}
	out := &elb.DescribeTargetHealthOutput{}
	for at, h := range a.HealthOf(g.ARN) {
		if len(wanted) > 0 && !wanted[at] {
			continue
		}
		id, port, _ := strings.Cut(at, ":")
		number, _ := strconv.Atoi(port)
		v := types.TargetHealthDescription{
			Target:          &types.TargetDescription{Id: new(id), Port: new(int32(number))},
			HealthCheckPort: new(port),
			TargetHealth:    &types.TargetHealth{State: types.TargetHealthStateEnum(h.State), Reason: types.TargetHealthReasonEnum(h.Reason)},
		}
		if g.HealthPort != "traffic-port" {
			v.HealthCheckPort = new(g.HealthPort)
		}
		if h.Description != "" {
			v.TargetHealth.Description = new(h.Description)
		}
		out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, v)
	}
	slices.SortFunc(out.TargetHealthDescriptions, func(x, y types.TargetHealthDescription) int {
		return cmp.Or(strings.Compare(*x.Target.Id, *y.Target.Id), cmp.Compare(*x.Target.Port, *y.Target.Port))
	})
	return out, nil
}
