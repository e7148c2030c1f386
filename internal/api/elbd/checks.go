package elbd

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/balance"
)

// How targets are checked: ranges and defaults are documented, some texts guessed:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html

const (
	overHTTP1 = "HTTP1"
	overHTTP2 = "HTTP2"
	overGRPC  = "GRPC"

	trafficPort = "traffic-port"
)

// checks is the protocol of the health checks.
func (g targetGroup) checks() string { return cmp.Or(g.HealthProtocol, overHTTP) }

// web reports whether the health checks are requests.
func (g targetGroup) web() bool { return g.checks() != overTCP }

func (g targetGroup) grpc() bool { return g.ProtocolVersion == overGRPC }

// setHealthProtocol takes the protocol of health checks over.
func (g *targetGroup) setHealthProtocol(p types.ProtocolEnum) error {
	switch {
	case p == "" || string(p) == g.checks():
		return nil
	case p == types.ProtocolEnumTcp && g.protocol() != overTCP || p != types.ProtocolEnumTcp && p != types.ProtocolEnumHttp && p != types.ProtocolEnumHttps:
		return invalid("Health check protocol '%s' is not supported for target groups with protocol '%s'", p, g.protocol())
	case p != types.ProtocolEnumTcp && g.web():
		g.HealthProtocol = string(p)
		return nil
	}
	g.checkBy(string(p))
	return nil
}

// checkBy is a health check's protocol with what it brings.
func (g *targetGroup) checkBy(protocol string) {
	g.HealthProtocol, g.HealthPath, g.Matcher = protocol, "", ""
	switch {
	case protocol == overTCP:
	case g.grpc():
		g.HealthPath, g.Matcher = "/AWS.ALB/healthcheck", "12"
	case g.protocol() == overTCP:
		g.HealthPath, g.Matcher = "/", "200-399"
	default:
		g.HealthPath, g.Matcher = "/", "200"
	}
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
		if n, err := strconv.Atoi(*h.port); *h.port != trafficPort && (err != nil || n < 1 || n > 65535) {
			return invalid("Health check port '%s' must be 'traffic-port' or in the range '1-65535'", *h.port)
		}
		g.HealthPort = *h.port
	}
	return g.setWeb(h.path, h.matcher)
}

var methodPath = regexp.MustCompile(`^/[A-Za-z0-9_.]+/[A-Za-z0-9_]+$`)

// setWeb takes over what only checks by requests have.
func (g *targetGroup) setWeb(path *string, matcher *types.Matcher) error {
	if !g.web() {
		if path != nil || matcher != nil {
			return invalid("HealthCheckPath and Matcher are not supported for health checks with protocol %s", g.checks())
		}
		return nil
	}
	if path != nil {
		switch {
		case !strings.HasPrefix(*path, "/"):
			return invalid("Health check path '%s' must begin with a '/' character", *path)
		case len(*path) > 1024:
			return invalid("1 validation error detected: Value at 'healthCheckPath' failed to satisfy constraint: Member must have length less than or equal to 1024")
		case g.grpc() && !methodPath.MatchString(*path):
			return invalid("Health check path '%s' must have the format '/package.service/method' when the protocol version is GRPC", *path)
		}
		g.HealthPath = *path
	}
	return g.setMatcher(matcher)
}

// setMatcher takes the codes over that a healthy target answers.
func (g *targetGroup) setMatcher(m *types.Matcher) error {
	if m == nil {
		return nil
	}
	kind, codes, other, low, most := "HTTP", m.HttpCode, m.GrpcCode, 200, 499
	switch {
	case g.grpc():
		kind, codes, other, low, most = "gRPC", m.GrpcCode, m.HttpCode, 0, 99
	case g.protocol() == overTCP:
		most = 599
	}
	if other != nil {
		return invalid("Health check matcher of target group '%s' can only have %s codes", g.Name, kind)
	}
	if codes == nil {
		return nil
	}
	for part := range strings.SplitSeq(*codes, ",") {
		from, to, isRange := strings.Cut(part, "-")
		l, err := strconv.Atoi(from)
		u, err2 := strconv.Atoi(to)
		if err != nil || l < low || l > most || isRange && (err2 != nil || u < l || u > most) {
			return invalid("Health check matcher %s code '%s' must be within '%d-%d'", kind, *codes, low, most)
		}
	}
	g.Matcher = *codes
	return nil
}

// checkSpec is a group's health checks in the balancer's words.
func (g targetGroup) checkSpec() balance.Check {
	c := balance.Check{TCP: !g.web(), TLS: g.checks() == overHTTPS, Version: g.version(), Path: g.HealthPath, Matcher: g.Matcher,
		Interval: time.Duration(g.Interval) * time.Second, Timeout: time.Duration(g.Timeout) * time.Second, Healthy: int(g.Healthy), Unhealthy: int(g.Unhealthy)}
	if n, err := strconv.ParseUint(g.HealthPort, 10, 16); err == nil {
		c.Port = uint16(n)
	}
	return c
}

// version is what a group's targets speak.
func (g targetGroup) version() balance.Version {
	if g.ProtocolVersion == overHTTP1 {
		return balance.HTTP1
	}
	return balance.Version(g.ProtocolVersion)
}

// setVersion takes a new group's protocol version over.
func (g *targetGroup) setVersion(version *string) error {
	switch {
	case g.protocol() == overTCP && version != nil:
		return invalid("ProtocolVersion cannot be specified for target groups with protocol TCP")
	case g.protocol() == overTCP:
		return nil
	case version == nil:
		g.ProtocolVersion = overHTTP1
		return nil
	}
	switch *version {
	case overHTTP1, overHTTP2, overGRPC:
		g.ProtocolVersion = *version
		return nil
	}
	return invalid("Protocol version '%s' must be one of '%s'", *version, fmt.Sprintf("%s, %s, %s", overGRPC, overHTTP1, overHTTP2))
}
