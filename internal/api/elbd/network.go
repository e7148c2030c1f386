package elbd

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/store"
)

// What a network load balancer has of its own: connections instead of requests.
// Its listeners have no rules but the default one, which forwards; its target
// groups speak TCP.

const (
	network   = string(types.LoadBalancerTypeEnumNetwork)
	overTCP   = string(types.ProtocolEnumTcp)
	overHTTP  = string(types.ProtocolEnumHttp)
	overHTTPS = string(types.ProtocolEnumHttps)
)

func (lb loadBalancer) network() bool { return lb.Type == network }

// pathOf is a load balancer type's word in ARNs.
func pathOf(t types.LoadBalancerTypeEnum) string {
	if t == types.LoadBalancerTypeEnumNetwork {
		return "net"
	}
	return "app"
}

// listenerProtocol reads the protocol of a listener: it goes by the load balancer.
// The texts about those of another type are AWS's, observed.
func listenerProtocol(lb loadBalancer, p types.ProtocolEnum) (string, error) {
	own, others, list := types.ProtocolEnumHttp, []types.ProtocolEnum{types.ProtocolEnumHttps}, "HTTPS, HTTP"
	if lb.network() {
		own, others, list = types.ProtocolEnumTcp, []types.ProtocolEnum{types.ProtocolEnumTls, types.ProtocolEnumUdp, types.ProtocolEnumTcpUdp, types.ProtocolEnumQuic, types.ProtocolEnumTcpQuic}, "TLS, TCP, TCP_UDP, UDP"
	}
	switch {
	case p == own || p == "" && !lb.network():
		return string(own), nil
	case p == "":
		return "", invalid("A listener protocol must be specified")
	case slices.Contains(others, p):
		return "", &types.UnsupportedProtocolException{Message: new(fmt.Sprintf("Serin performs %s listeners; Protocol '%s' is not performed yet", own, p))}
	}
	return "", invalid("Listener protocol '%s' must be one of '%s'", p, list)
}

// checkProtocol refuses what is not for the listener's protocol: a rule's action
// and its target groups. Of the text about protocols the beginning is observed, the
// rest is guessed.
func (a *API) checkProtocol(tx *store.Tx, r rule, protocol string) error {
	if protocol == overTCP {
		switch {
		case r.Fixed != nil:
			return badAction("The action type 'fixed-response' is not valid with a network load balancer")
		case r.Redirect != nil:
			return badAction("The action type 'redirect' is not valid with a network load balancer")
		case r.Sticky:
			return badAction("Target group stickiness is not valid with a network load balancer")
		}
	}
	for _, w := range r.Forward {
		if g, _ := a.groups.Get(tx, keyOf(w.Group)); g.protocol() != protocol {
			return &types.IncompatibleProtocolsException{Message: new(fmt.Sprintf("The listener and its associated target group '%s' have incompatible protocols: '%s' and '%s'", w.Group, protocol, g.protocol()))}
		}
	}
	return nil
}

// rulesOnly refuses the operations on rules where the listener can have none;
// the text is a guess.
func rulesOnly(l listener) error {
	if l.protocol() == overTCP {
		return invalid("Rules are unsupported for Network Load Balancer listeners")
	}
	return nil
}

// Rows that are older than network load balancers do not say.
func (l listener) protocol() string    { return cmpOr(l.Protocol, overHTTP) }
func (g targetGroup) protocol() string { return cmpOr(g.Protocol, overHTTP) }

// checks is the protocol of the health checks.
func (g targetGroup) checks() string { return cmpOr(g.HealthProtocol, overHTTP) }

// setHealthProtocol takes the protocol of health checks over.
func (g *targetGroup) setHealthProtocol(p types.ProtocolEnum) error {
	if p == "" || string(p) == g.checks() {
		return nil
	}
	if p != types.ProtocolEnumHttp && (p != types.ProtocolEnumTcp || g.protocol() != overTCP) {
		return invalid("Serin performs HTTP health checks, and TCP health checks of TCP target groups; '%s' is not performed yet", p)
	}
	g.checkBy(string(p))
	return nil
}

// checkBy is a health check's protocol with what it brings, documented.
func (g *targetGroup) checkBy(protocol string) {
	g.HealthProtocol, g.HealthPath, g.Matcher = protocol, "", ""
	switch {
	case protocol == overHTTP && g.protocol() == overHTTP:
		g.HealthPath, g.Matcher = "/", "200"
	case protocol == overHTTP:
		g.HealthPath, g.Matcher = "/", "200-399"
	}
}

// setWeb takes over what only HTTP checks have.
func (g *targetGroup) setWeb(path *string, matcher *types.Matcher) error {
	if g.checks() != overHTTP {
		if path != nil || matcher != nil {
			return invalid("HealthCheckPath and Matcher are not supported for health checks with protocol %s", g.checks())
		}
		return nil
	}
	if path != nil {
		if !strings.HasPrefix(*path, "/") {
			return invalid("Health check path '%s' must begin with a '/' character", *path)
		}
		g.HealthPath = *path
	}
	if matcher == nil || matcher.HttpCode == nil {
		return nil
	}
	most := 499
	if g.protocol() == overTCP {
		most = 599
	}
	for part := range strings.SplitSeq(*matcher.HttpCode, ",") {
		low, high, isRange := strings.Cut(part, "-")
		l, err := strconv.Atoi(low)
		u, err2 := strconv.Atoi(high)
		if err != nil || l < 200 || l > most || isRange && (err2 != nil || u < l || u > most) {
			return invalid("Health check matcher HTTP code '%s' must be within '200-%d'", *matcher.HttpCode, most)
		}
	}
	g.Matcher = *matcher.HttpCode
	return nil
}

const (
	drainAttribute     = "deregistration_delay.timeout_seconds"
	cutAttribute       = "deregistration_delay.connection_termination.enabled"
	unhealthyAttribute = "target_health_state.unhealthy.connection_termination.enabled"
)

// attribute is what a target group's attribute may be; the first is the default.
// Of those with one value the other is not performed. Cross-zone balancing makes no
// difference in one zone and is recorded.
var attributes = map[string]map[string][]string{
	overHTTP: {drainAttribute: {"300"}},
	overTCP: {
		drainAttribute: {"300"}, cutAttribute: {"false", "true"}, unhealthyAttribute: {"true", "false"},
		"preserve_client_ip.enabled": {"false"}, "proxy_protocol_v2.enabled": {"false"}, "stickiness.enabled": {"false"},
		"load_balancing.cross_zone.enabled": {"use_load_balancer_configuration", "true", "false"},
	},
}

// defaultAttributes is what a new group of a protocol has.
func defaultAttributes(protocol string) map[string]string {
	out := map[string]string{}
	for key, values := range attributes[protocol] {
		out[key] = values[0]
	}
	return out
}

// setAttribute takes one attribute over.
func (g *targetGroup) setAttribute(at types.TargetGroupAttribute) error {
	key, value := aws.ToString(at.Key), aws.ToString(at.Value)
	values, ok := attributes[g.protocol()][key]
	switch {
	case !ok:
		known := slices.Sorted(maps.Keys(attributes[g.protocol()]))
		return invalid("Serin performs these attributes of a target group of protocol %s: %s; '%s' is not performed yet", g.protocol(), strings.Join(known, ", "), key)
	case key == drainAttribute:
		if n, err := strconv.Atoi(value); err != nil || n < 0 || n > 3600 {
			return &types.InvalidConfigurationRequestException{Message: new("The value of '" + key + "' must be between '0-3600' inclusive")}
		}
	case !slices.Contains(values, value):
		return invalid("Serin performs '%s' as %s; '%s' is not performed yet", key, strings.Join(values, ", "), value)
	}
	g.Attributes[key] = value
	return nil
}

// ruleOf is a rule by its ARN or, by a listener's, its default rule.
func (a *API) ruleOf(tx *store.Tx, resourceARN string) (rule, bool) {
	if strings.Contains(resourceARN, ":listener/") {
		rules := a.rulesOf(tx, resourceARN)
		if len(rules) == 0 {
			return rule{}, false
		}
		return rules[len(rules)-1], true
	}
	return a.rules.Get(tx, keyOf(resourceARN))
}
