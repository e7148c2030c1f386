package elbd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/store"
)

// What a network load balancer has of its own: connections instead of requests.
// Its listeners have no rules but the default one, which forwards; its target
// groups speak TCP.

const (
	network     = string(types.LoadBalancerTypeEnumNetwork)
	application = string(types.LoadBalancerTypeEnumApplication)
	overTLS     = string(types.ProtocolEnumTls)
	overTCP     = string(types.ProtocolEnumTcp)
	overHTTP    = string(types.ProtocolEnumHttp)
	overHTTPS   = string(types.ProtocolEnumHttps)
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
	own, others, list := []types.ProtocolEnum{types.ProtocolEnumHttp, types.ProtocolEnumHttps}, []types.ProtocolEnum(nil), "HTTPS, HTTP"
	if lb.network() {
		own, others, list = []types.ProtocolEnum{types.ProtocolEnumTcp, types.ProtocolEnumTls}, []types.ProtocolEnum{types.ProtocolEnumUdp, types.ProtocolEnumTcpUdp, types.ProtocolEnumQuic, types.ProtocolEnumTcpQuic}, "TLS, TCP, TCP_UDP, UDP"
	}
	switch {
	case slices.Contains(own, p):
		return string(p), nil
	case p == "":
		return "", invalid("A listener protocol must be specified")
	case slices.Contains(others, p):
		return "", &types.UnsupportedProtocolException{Message: new(fmt.Sprintf("Serin performs TCP and TLS listeners; Protocol '%s' is not performed yet", p))}
	}
	return "", invalid("Listener protocol '%s' must be one of '%s'", p, list)
}

// checkProtocol refuses what is not for the listener's protocol: a rule's action
// and its target groups. Of the text about protocols the beginning is observed, the
// rest is guessed.
func (a *API) checkProtocol(tx *store.Tx, r rule, protocol string) error {
	if carriesConnections(protocol) {
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
		g, _ := a.groups.Get(tx, keyOf(w.Group))
		if v := g.ProtocolVersion; protocol == overHTTP && (v == overHTTP2 || v == overGRPC) { // observed
			return badAction("Listener protocol 'HTTP' is not supported with a target group with the protocol-version '%s'", v)
		}
		if carriesConnections(g.protocol()) != carriesConnections(protocol) {
			return &types.IncompatibleProtocolsException{Message: new(fmt.Sprintf("The listener and its associated target group '%s' have incompatible protocols: '%s' and '%s'", w.Group, protocol, g.protocol()))}
		}
	}
	return nil
}

// carriesConnections tells the protocols of network load balancers from those of the
// others.
func carriesConnections(protocol string) bool { return protocol == overTCP || protocol == overTLS }

// rulesOnly refuses the operations on rules where the listener can have none;
// the text is a guess.
func rulesOnly(l listener) error {
	if carriesConnections(l.protocol()) {
		return invalid("Rules are unsupported for Network Load Balancer listeners")
	}
	return nil
}

// Rows that are older than network load balancers do not say.
func (l listener) protocol() string    { return cmp.Or(l.Protocol, overHTTP) }
func (g targetGroup) protocol() string { return cmp.Or(g.Protocol, overHTTP) }

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
