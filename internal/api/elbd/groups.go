package elbd

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"

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
	}
}

// CreateTargetGroup makes a target group of addresses or instances, spoken to in a
// version of HTTP or, by network load balancers, in whatever their clients say over
// TCP.
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
		others := 0
		for _, other := range a.groups.Scan(tx, call.Scope.Key("")) {
			others++
			if other.Name == g.Name {
				if reflect.DeepEqual(other.settings(), g.settings()) {
					g = other // the same again is the same, documented
					return nil
				}
				return &types.DuplicateTargetGroupNameException{Message: new("A target group with the same name '" + g.Name + "' exists, but with different settings")}
			}
		}
		if others >= mostInRegion {
			return &types.TooManyTargetGroupsException{Message: new(fmt.Sprintf("The maximum number of target groups has been reached: %d", mostInRegion))}
		}
		a.groups.Put(tx, keyOf(g.ARN), g)
		a.tags.Set(tx, g.ARN, labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elb.CreateTargetGroupOutput{TargetGroups: []types.TargetGroup{a.groupNow(g)}}, nil
}

// groupIn reads a new group.
func groupIn(call *wire.Call, in *elb.CreateTargetGroupInput) (g targetGroup, err error) {
	name := aws.ToString(in.Name)
	if !resourceName.MatchString(name) {
		return g, invalid("The target group name '%s' must have 1 to 32 characters, alphanumeric or hyphens, not beginning or ending with a hyphen", name)
	}
	kind := cmp.Or(in.TargetType, types.TargetTypeEnumInstance)
	switch {
	case kind == types.TargetTypeEnumLambda || kind == types.TargetTypeEnumAlb:
		return g, invalid("Serin performs target groups of the types instance and ip; TargetType '%s' is not performed yet", kind)
	case in.Protocol == "":
		return g, invalid("A protocol must be specified")
	case !slices.Contains([]types.ProtocolEnum{types.ProtocolEnumHttp, types.ProtocolEnumHttps, types.ProtocolEnumTcp}, in.Protocol):
		return g, &types.UnsupportedProtocolException{Message: new(fmt.Sprintf("Serin performs target groups of the protocols HTTP, HTTPS and TCP; '%s' is not performed yet", in.Protocol))}
	case in.IpAddressType != "" && in.IpAddressType != types.TargetGroupIpAddressTypeEnumIpv4:
		return g, invalid("Serin performs the IpAddressType ipv4; '%s' is not performed yet", in.IpAddressType)
	case in.Port == nil || *in.Port < 1 || *in.Port > 65535:
		return g, invalid("A port between 1 and 65535 must be specified")
	}
	g = targetGroup{
		ARN: resource(call, "targetgroup/"+name+"/"+newID()), Name: name, VPC: aws.ToString(in.VpcId), Type: string(kind), Protocol: string(in.Protocol), Port: *in.Port,
		HealthPort: trafficPort, Interval: 30, Timeout: 5, Healthy: 5, Unhealthy: 2,
	}
	if err := g.setVersion(in.ProtocolVersion); err != nil {
		return g, err
	}
	switch {
	case g.protocol() != overTCP:
		g.checkBy(overHTTP)
	case in.HealthCheckProtocol == types.ProtocolEnumHttp:
		g.checkBy(overTCP)
		g.Timeout = 6
	default:
		g.checkBy(overTCP)
		g.Timeout = 10
	}
	return g, g.setHealth(healthSettings{in.HealthCheckEnabled, in.HealthCheckIntervalSeconds, in.HealthCheckPath, in.HealthCheckPort, in.HealthCheckProtocol, in.HealthCheckTimeoutSeconds, in.HealthyThresholdCount, in.UnhealthyThresholdCount, in.Matcher})
}

// settings is what a group was made with: another of the same is the same.
func (g targetGroup) settings() targetGroup {
	g.ARN, g.Attributes, g.Targets, g.Draining = "", nil, nil, nil
	return g
}

// groupNow is a group as it is described, with the load balancers that use it.
func (a *API) groupNow(g targetGroup) (v types.TargetGroup) {
	a.store.View(func(tx *store.Tx) { v = groupView(g, a.usersOf(tx, g.ARN)) })
	return v
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
	switch {
	case g.grpc():
		v.HealthCheckPath, v.Matcher = new(g.HealthPath), &types.Matcher{GrpcCode: new(g.Matcher)}
	case g.web():
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

func groupNotFound(groupARN string) error {
	return &types.TargetGroupNotFoundException{Message: new("Target groups '" + groupARN + "' not found")}
}

// change replaces one target group by what fn makes of it.
func (a *API) change(ctx context.Context, groupARN *string, fn func(*store.Tx, *targetGroup) error) (targetGroup, error) {
	call := wire.From(ctx)
	var g targetGroup
	err := a.store.Update(func(tx *store.Tx) error {
		var ok bool
		if g, ok = a.groups.Get(tx, keyOf(aws.ToString(groupARN))); !ok || !inScope(call, g.ARN) {
			return groupNotFound(aws.ToString(groupARN))
		}
		if err := fn(tx, &g); err != nil {
			return err
		}
		a.groups.Put(tx, keyOf(g.ARN), g)
		return nil
	})
	return g, err
}

// ModifyTargetGroup changes how targets are checked.
func (a *API) ModifyTargetGroup(ctx context.Context, in *elb.ModifyTargetGroupInput) (*elb.ModifyTargetGroupOutput, error) {
	g, err := a.change(ctx, in.TargetGroupArn, func(_ *store.Tx, g *targetGroup) error {
		return g.setHealth(healthSettings{in.HealthCheckEnabled, in.HealthCheckIntervalSeconds, in.HealthCheckPath, in.HealthCheckPort, in.HealthCheckProtocol, in.HealthCheckTimeoutSeconds, in.HealthyThresholdCount, in.UnhealthyThresholdCount, in.Matcher})
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyTargetGroupOutput{TargetGroups: []types.TargetGroup{a.groupNow(g)}}, nil
}

// DescribeTargetGroups lists target groups: all, by name, by ARN, or those
// that a load balancer forwards to.
func (a *API) DescribeTargetGroups(ctx context.Context, in *elb.DescribeTargetGroupsInput) (*elb.DescribeTargetGroupsOutput, error) {
	call := wire.From(ctx)
	var list []types.TargetGroup
	known := in.LoadBalancerArn == nil
	a.store.View(func(tx *store.Tx) {
		if !known {
			_, known = a.balancers.Get(tx, keyOf(*in.LoadBalancerArn))
		}
		for _, g := range a.groups.Scan(tx, call.Scope.Key("")) {
			users := a.usersOf(tx, g.ARN)
			if (in.TargetGroupArns == nil || slices.Contains(in.TargetGroupArns, g.ARN)) && (in.Names == nil || slices.Contains(in.Names, g.Name)) &&
				(in.LoadBalancerArn == nil || slices.Contains(users, *in.LoadBalancerArn)) {
				list = append(list, groupView(g, users))
			}
		}
	})
	if !known {
		return nil, balancerNotFound(*in.LoadBalancerArn)
	}
	for _, asked := range slices.Concat(in.TargetGroupArns, in.Names) {
		if !slices.ContainsFunc(list, func(g types.TargetGroup) bool { return asked == *g.TargetGroupArn || asked == *g.TargetGroupName }) {
			return nil, &types.TargetGroupNotFoundException{Message: new("One or more target groups not found")}
		}
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
			return groupNotFound(groupARN)
		}
		if len(a.usersOf(tx, groupARN)) > 0 {
			return &types.ResourceInUseException{Message: new("Target group '" + groupARN + "' is currently in use by a listener or a rule")}
		}
		a.groups.Delete(tx, keyOf(groupARN))
		a.tags.Set(tx, groupARN, nil)
		return nil
	})
}

func (a *API) group(call *wire.Call, groupARN *string) (g targetGroup, ok bool) {
	a.store.View(func(tx *store.Tx) { g, ok = a.groups.Get(tx, keyOf(aws.ToString(groupARN))) })
	return g, ok && inScope(call, g.ARN)
}
