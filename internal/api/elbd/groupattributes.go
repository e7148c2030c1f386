package elbd

import (
	"context"
	"maps"
	"regexp"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/balance"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// The attributes of target groups, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetGroupAttribute.html

const (
	drainAttribute      = "deregistration_delay.timeout_seconds"
	cutAttribute        = "deregistration_delay.connection_termination.enabled"
	unhealthyAttribute  = "target_health_state.unhealthy.connection_termination.enabled"
	algorithmAttribute  = "load_balancing.algorithm.type"
	slowAttribute       = "slow_start.duration_seconds"
	stickyAttribute     = "stickiness.enabled"
	stickyTypeAttribute = "stickiness.type"
	cookieAttribute     = "stickiness.app_cookie.cookie_name"
	appLifeAttribute    = "stickiness.app_cookie.duration_seconds"
	ownLifeAttribute    = "stickiness.lb_cookie.duration_seconds"
	proxyAttribute      = "proxy_protocol_v2.enabled"
	clientIPAttribute   = "preserve_client_ip.enabled"
	fewAttribute        = "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count"
	fewShareAttribute   = "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage"
)

// everyGroup is what groups of all protocols have. There is one zone: what is said
// of zones and their names is recorded.
var everyGroup = map[string]attribute{
	drainAttribute:                      number("300", 0, 3600),
	stickyAttribute:                     offAtFirst,
	fewAttribute:                        number("1", 1, mostTargets),
	fewShareAttribute:                   number("off", 1, 100, "off"),
	"load_balancing.cross_zone.enabled": oneOf("use_load_balancer_configuration", switchedOn, "false"),
	"target_group_health.dns_failover.minimum_healthy_targets.count":      number("1", 1, mostTargets, "off"),
	"target_group_health.dns_failover.minimum_healthy_targets.percentage": number("off", 1, 100, "off"),
}

var webGroup = joined(everyGroup, map[string]attribute{
	algorithmAttribute: oneOf("round_robin", string(balance.LeastOutstanding), string(balance.WeightedRandom)),
	"load_balancing.algorithm.anomaly_mitigation": oneOf("off", "on").performing("off"),
	slowAttribute:       number("0", 30, 900, "0"),
	stickyTypeAttribute: oneOf("lb_cookie", "app_cookie"),
	cookieAttribute:     text("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", 512, "a name of a cookie"),
	appLifeAttribute:    number("86400", 1, mostSticky),
	ownLifeAttribute:    number("86400", 1, mostSticky),
})

// connectionGroup is what groups of connections have. Whose address a target sees
// makes no difference where all are the loopback's: it is recorded.
var connectionGroup = joined(everyGroup, map[string]attribute{
	cutAttribute: offAtFirst, unhealthyAttribute: onAtFirst, proxyAttribute: offAtFirst, clientIPAttribute: offAtFirst,
	stickyTypeAttribute: oneOf("source_ip"),
	"target_health_state.unhealthy.draining_interval_seconds": number("0", 0, 360000).performing("0"),
})

func joined(tables ...map[string]attribute) map[string]attribute {
	out := map[string]attribute{}
	for _, t := range tables {
		maps.Copy(out, t)
	}
	return out
}

// attributes is what a group has.
func (g targetGroup) attributes() attributeTable {
	t := attributeTable{what: "Target group", of: "target groups with protocol '" + g.protocol() + "'", own: webGroup, others: []map[string]attribute{connectionGroup}}
	if g.protocol() == overTCP {
		t.own, t.others = connectionGroup, []map[string]attribute{webGroup}
		if g.instances() { // documented
			t.own = joined(connectionGroup, map[string]attribute{clientIPAttribute: onAtFirst})
		}
	}
	return t
}

// setting is one attribute of a group.
func (g targetGroup) setting(key string) string { return g.attributes().value(g.Attributes, key) }

// on reports whether an attribute of a group is switched on.
func (g targetGroup) on(key string) bool { return g.setting(key) == switchedOn }

// seconds is an attribute that is a number of seconds.
func (g targetGroup) seconds(key string) time.Duration { return inSeconds(g.setting(key)) }

// inSeconds reads a number that was checked when it was set.
func inSeconds(value string) time.Duration {
	n, err := strconv.Atoi(value)
	if err != nil {
		panic("elbd: a broken number of seconds was stored")
	}
	return time.Duration(n) * time.Second
}

var ownCookie = regexp.MustCompile(`^(AWSALB|AWSALBAPP|AWSALBTG)`)

// agrees refuses attributes that do not go together, documented; the texts are
// guessed.
func (g targetGroup) agrees() error {
	if g.protocol() == overTCP {
		return nil
	}
	cookie := g.setting(cookieAttribute)
	switch {
	case g.setting(slowAttribute) != "0" && g.setting(algorithmAttribute) != "round_robin":
		return badAttribute("'%s' cannot be set when '%s' is '%s'", slowAttribute, algorithmAttribute, g.setting(algorithmAttribute))
	case ownCookie.MatchString(cookie):
		return badAttribute("The value of '%s' cannot start with 'AWSALB', 'AWSALBAPP' or 'AWSALBTG'", cookieAttribute)
	case cookie == "" && g.on(stickyAttribute) && g.setting(stickyTypeAttribute) == "app_cookie":
		return badAttribute("'%s' must be specified when '%s' is 'app_cookie'", cookieAttribute, stickyTypeAttribute)
	}
	return nil
}

// shape puts a group's attributes into the balancer's words.
func (g targetGroup) shape(spec *balance.Group) {
	spec.MinHealthy = g.fewest(len(g.Targets))
	if g.protocol() == overTCP {
		spec.Cut, spec.CutUnhealthy, spec.StickyIP, spec.ProxyHeader = g.on(cutAttribute), g.on(unhealthyAttribute), g.on(stickyAttribute), g.on(proxyAttribute)
		return
	}
	if a := g.setting(algorithmAttribute); a != "round_robin" {
		spec.Algorithm = balance.Algorithm(a)
	}
	spec.SlowStart = g.seconds(slowAttribute)
	switch {
	case !g.on(stickyAttribute):
	case g.setting(stickyTypeAttribute) == "app_cookie":
		spec.Sticky = &balance.Sticky{Cookie: g.setting(cookieAttribute), Life: g.seconds(appLifeAttribute)}
	default:
		spec.Sticky = &balance.Sticky{Life: g.seconds(ownLifeAttribute)}
	}
}

// fewest is how many of the targets must be healthy for the others to be left out:
// by number or by share, whichever is more.
func (g targetGroup) fewest(targets int) int {
	n, err := strconv.Atoi(g.setting(fewAttribute))
	if err != nil {
		panic("elbd: a broken number of targets was stored")
	}
	if share, err := strconv.Atoi(g.setting(fewShareAttribute)); err == nil {
		n = max(n, (targets*share+99)/100)
	}
	return n
}

// ModifyTargetGroupAttributes sets how targets are chosen and taken leave of.
func (a *API) ModifyTargetGroupAttributes(ctx context.Context, in *elb.ModifyTargetGroupAttributesInput) (*elb.ModifyTargetGroupAttributesOutput, error) {
	g, err := a.change(ctx, in.TargetGroupArn, func(_ *store.Tx, g *targetGroup) (err error) {
		if g.Attributes, err = g.attributes().with(g.Attributes, tags.In(in.Attributes)); err != nil {
			return err
		}
		return g.agrees()
	})
	if err != nil {
		return nil, err
	}
	return &elb.ModifyTargetGroupAttributesOutput{Attributes: tags.Out[types.TargetGroupAttribute](g.attributes().all(g.Attributes))}, nil
}

// DescribeTargetGroupAttributes lists a group's attributes.
func (a *API) DescribeTargetGroupAttributes(ctx context.Context, in *elb.DescribeTargetGroupAttributesInput) (*elb.DescribeTargetGroupAttributesOutput, error) {
	g, ok := a.group(wire.From(ctx), in.TargetGroupArn)
	if !ok {
		return nil, groupNotFound(aws.ToString(in.TargetGroupArn))
	}
	return &elb.DescribeTargetGroupAttributesOutput{Attributes: tags.Out[types.TargetGroupAttribute](g.attributes().all(g.Attributes))}, nil
}
