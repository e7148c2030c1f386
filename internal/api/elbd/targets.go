package elbd

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) targetOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("RegisterTargets", a.RegisterTargets, on("RegisterTargets", func(_ *wire.Call, in *elb.RegisterTargetsInput) string { return aws.ToString(in.TargetGroupArn) }),
			wire.Members{Performed: "TargetGroupArn Targets"}),
		wire.Handle("DeregisterTargets", a.DeregisterTargets, on("DeregisterTargets", func(_ *wire.Call, in *elb.DeregisterTargetsInput) string { return aws.ToString(in.TargetGroupArn) }),
			wire.Members{Performed: "TargetGroupArn Targets"}),
		wire.Handle("DescribeTargetHealth", a.DescribeTargetHealth, anywhere[elb.DescribeTargetHealthInput]("DescribeTargetHealth"),
			wire.Members{Performed: "Include TargetGroupArn Targets"}),
	}
}

// instances reports whether the group's targets are instances.
func (g targetGroup) instances() bool { return g.Type == string(types.TargetTypeEnumInstance) }

// addr is where a target listens.
func (t target) addr() (netip.AddrPort, bool) {
	addr, err := netip.ParseAddrPort(endpoint(cmp.Or(t.Address, t.ID), t.Port))
	return addr, err == nil
}

var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

// private are the blocks that addresses of targets may be of, documented; the
// loopback's are the stage's VPC.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"),
}

func badTarget(format string, args ...any) error {
	return &types.InvalidTargetException{Message: new(fmt.Sprintf(format, args...))}
}

// targetsIn reads the targets of a request, as they are for the group. The texts but
// that about ports are observed.
func (g targetGroup) targetsIn(in []types.TargetDescription) ([]target, error) {
	if len(in) == 0 {
		return nil, invalid("A target must be specified")
	}
	var out []target
	for _, t := range in {
		id := aws.ToString(t.Id)
		if t.Port != nil && (*t.Port < 1 || *t.Port > 65535) {
			return nil, invalid("1 validation error detected: Value '%d' at 'targets' failed to satisfy constraint: Member must have value between 1 and 65535", *t.Port)
		}
		if g.instances() {
			if !instanceID.MatchString(id) {
				return nil, invalid("Instance ID '%s' is not valid", id)
			}
		} else if addr, err := netip.ParseAddr(id); err != nil || !addr.Is4() {
			return nil, badTarget("The IP address '%s' is not a valid IPv4 address", id)
		}
		out = append(out, g.withPort(target{ID: id, Port: aws.ToInt32(t.Port), Zone: aws.ToString(t.AvailabilityZone)}))
	}
	return out, nil
}

// locate finds where the targets to be registered are. An address must be a private
// one and an instance must run, documented.
func (a *API) locate(tx *store.Tx, g targetGroup, targets []target) error {
	for _, t := range targets {
		if !g.instances() {
			addr, err := netip.ParseAddr(t.ID)
			if err != nil {
				return badTarget("The IP address '%s' is not a valid IPv4 address", t.ID)
			}
			if !slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				return badTarget("The IP address '%s' is not within a range that targets can be in: 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 or the VPC's", t.ID)
			}
			continue
		}
		if t.Zone != "" {
			return invalid("You cannot specify an Availability Zone for instance targets")
		}
		switch state := a.deps.Network.State(tx, scopeOf(g.ARN), t.ID); {
		case state == "":
			return badTarget("The instance ID '%s' does not exist", t.ID)
		case state == "running" && t.Address == "": // where it is depends on the runtime
			return badTarget("Serin registers instances where ECS does, with the ports of its tasks; '%s' cannot be registered by hand", t.ID)
		case state != "running":
			return badTarget("The following targets are not in a running state and cannot be registered: '%s'", t.ID)
		}
	}
	return nil
}

// scopeOf is the account and region of a row's ARN.
func scopeOf(resourceARN string) arn.Scope {
	parsed, err := arn.Parse(resourceARN)
	if err != nil {
		panic("elbd: a row's ARN is none: " + resourceARN)
	}
	return parsed.Scope()
}

// enlist registers targets within a group and refuses too many.
func (a *API) enlist(tx *store.Tx, g *targetGroup, targets []target) error {
	if err := a.locate(tx, *g, targets); err != nil {
		return err
	}
	g.register(targets, a.clock.Now())
	if len(g.Targets) > mostTargets {
		return &types.TooManyTargetsException{Message: new(fmt.Sprintf("You've reached the limit on the number of targets of the target group '%s': %d", g.ARN, mostTargets))}
	}
	return nil
}

// RegisterTargets adds addresses or instances to a group.
func (a *API) RegisterTargets(ctx context.Context, in *elb.RegisterTargetsInput) (*elb.RegisterTargetsOutput, error) {
	_, err := a.change(ctx, in.TargetGroupArn, func(tx *store.Tx, g *targetGroup) error {
		targets, err := g.targetsIn(in.Targets)
		if err != nil {
			return err
		}
		return a.enlist(tx, g, targets)
	})
	return &elb.RegisterTargetsOutput{}, err
}

// DeregisterTargets takes targets out; they drain. Those that are not there are as
// good as taken out, documented.
func (a *API) DeregisterTargets(ctx context.Context, in *elb.DeregisterTargetsInput) (*elb.DeregisterTargetsOutput, error) {
	_, err := a.change(ctx, in.TargetGroupArn, func(_ *store.Tx, g *targetGroup) error {
		targets, err := g.targetsIn(in.Targets)
		if err != nil {
			return err
		}
		g.deregister(targets, a.clock.Now())
		return nil
	})
	return &elb.DeregisterTargetsOutput{}, err
}

// register adds targets; one that is there stays, one that drains comes back.
func (g *targetGroup) register(targets []target, now time.Time) {
	g.Targets, g.Draining = slices.Clone(g.Targets), slices.Clone(g.Draining)
	for _, t := range targets {
		t = g.withPort(t)
		g.Draining = slices.DeleteFunc(g.Draining, t.same)
		if !slices.ContainsFunc(g.Targets, t.same) {
			t.At = now
			g.Targets = append(g.Targets, t)
		}
	}
}

// deregister takes targets out and lets them drain.
func (g *targetGroup) deregister(targets []target, now time.Time) {
	g.Targets, g.Draining = slices.Clone(g.Targets), slices.Clone(g.Draining)
	for _, t := range targets {
		t = g.withPort(t)
		i := slices.IndexFunc(g.Targets, t.same)
		if i < 0 {
			continue
		}
		gone := g.Targets[i]
		g.Targets = slices.Delete(g.Targets, i, i+1)
		gone.At = now
		g.Draining = append(g.Draining, gone)
	}
}

func (g *targetGroup) withPort(t target) target {
	if t.Port == 0 {
		t.Port = g.Port
	}
	return t
}

func (t target) same(o target) bool { return t.ID == o.ID && t.Port == o.Port }

var (
	drainingHealth     = Health{State: "draining", Reason: "Target.DeregistrationInProgress", Description: "Target deregistration is in progress"}
	registeringHealth  = Health{State: "initial", Reason: "Elb.RegistrationInProgress", Description: "Target registration is in progress"}
	unregisteredHealth = Health{State: "unused", Reason: "Target.NotRegistered", Description: "Target is not registered to the target group"}
)

// DescribeTargetHealth tells the health of a group's targets as it was last
// observed; of those that are asked for by name also that they are not registered,
// documented.
func (a *API) DescribeTargetHealth(ctx context.Context, in *elb.DescribeTargetHealthInput) (*elb.DescribeTargetHealthOutput, error) {
	g, ok := a.group(wire.From(ctx), in.TargetGroupArn)
	if !ok {
		return nil, groupNotFound(aws.ToString(in.TargetGroupArn))
	}
	known := append(slices.Clone(g.Targets), g.Draining...)
	wanted := known
	if len(in.Targets) > 0 {
		asked, err := g.targetsIn(in.Targets)
		if err != nil {
			return nil, err
		}
		wanted = nil
		for _, t := range asked {
			if i := slices.IndexFunc(known, t.same); i >= 0 {
				t = known[i]
			}
			wanted = append(wanted, t)
		}
	}
	slices.SortStableFunc(wanted, func(x, y target) int {
		if c := strings.Compare(x.ID, y.ID); c != 0 {
			return c
		}
		return int(x.Port - y.Port)
	})
	health := a.HealthOf(g.ARN)
	out := &elb.DescribeTargetHealthOutput{TargetHealthDescriptions: []types.TargetHealthDescription{}}
	for _, t := range wanted {
		h, ok := health[endpoint(t.ID, t.Port)]
		if !ok {
			h = unregisteredHealth
		}
		out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, g.healthView(t, h, len(in.Include) > 0))
	}
	return out, nil
}

// healthView is a target's health as it is described. Anomalies are not looked for:
// the result is that of a group in which none were, told where it is asked for and
// there is an application load balancer's group.
func (g targetGroup) healthView(t target, h Health, anomalies bool) types.TargetHealthDescription {
	v := types.TargetHealthDescription{
		Target:          &types.TargetDescription{Id: new(t.ID), Port: new(t.Port)},
		HealthCheckPort: new(strconv.Itoa(int(t.Port))),
		TargetHealth:    &types.TargetHealth{State: types.TargetHealthStateEnum(h.State), Reason: types.TargetHealthReasonEnum(h.Reason)},
		AdministrativeOverride: &types.AdministrativeOverride{State: types.TargetAdministrativeOverrideStateEnumNoOverride,
			Reason: types.TargetAdministrativeOverrideReasonEnumNoOverrideEngaged, Description: new("No override is currently active on target")},
	}
	if t.Zone != "" {
		v.Target.AvailabilityZone = new(t.Zone)
	}
	if g.HealthPort != trafficPort {
		v.HealthCheckPort = new(g.HealthPort)
	}
	if h.Description != "" {
		v.TargetHealth.Description = new(h.Description)
	}
	if anomalies && g.protocol() != overTCP {
		v.AnomalyDetection = &types.AnomalyDetection{Result: types.AnomalyResultEnumNormal, MitigationInEffect: types.MitigationInEffectEnumNo}
	}
	return v
}
