// Package elbd is the stage's Elastic Load Balancing: application and network
// load balancers, listeners, rules and target groups as rows, and the loop that
// makes package balance carry traffic as the rows say.
//
// A row holds what is wanted. What is in force, the weights of a rule and the
// health of a target, is written back by sync.go into rows of its own; so the
// wish is never reported as the fact. Each load balancer has an address of its
// own on the loopback interface, which is also its DNS name: it needs no
// resolver. Where the machine refuses a listener's port, another is taken and
// shown in the listener's row and in the stage's status.
package elbd

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/arn"
	"serin/internal/balance"
	"serin/internal/clock"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// API performs ELBv2's operations.
type API struct {
	store     *store.Store
	clock     *clock.Clock
	balance   *balance.Balancer
	deps      Deps
	wake      chan struct{} // rows or observations changed
	balancers *store.Table[loadBalancer]
	listeners *store.Table[listener]
	rules     *store.Table[rule]
	groups    *store.Table[targetGroup]
	bound     *store.Table[bound]   // listener → where it listens
	applied   *store.Table[applied] // rule → weights in force
	health    *store.Table[health]  // target group → its targets' health
	tags      *tags.Table

	logs        accessLogs
	listenersBy *store.Index[listener] // load balancer, and certificates that it shows
	rulesBy     *store.Index[rule]     // listener, and groups that it forwards to

	changedMu sync.Mutex
	changed   map[string]bool // groups of which the balancer has seen something new
}

type loadBalancer struct {
	ARN, Name, VPC, Scheme string
	Type                   string // of older rows empty: application
	Address                string
	Subnets, Groups        []string
	Attributes             map[string]string // that somebody set
	Created                time.Time
}

type listener struct {
	ARN, LoadBalancer string
	Protocol          string
	Port              int32
	Attributes        map[string]string // that somebody set
	Certificates      []string          // of HTTPS and TLS, the default one first
	Policy, ALPN      string
}

type rule struct {
	ARN, Listener string
	Priority      int // 0 is the default rule, tried last
	Conditions    []balance.Condition
	Forward       []weighted
	Sticky        bool  // a client stays with its group,
	StickyFor     int32 // so many seconds
	Fixed         *balance.Fixed
	Redirect      *balance.Redirect
}

type weighted struct {
	Group  string // ARN
	Weight int
}

type targetGroup struct {
	ARN, Name, VPC, Type, ProtocolVersion string
	Protocol                              string
	Port                                  int32
	HealthProtocol                        string
	HealthPort, HealthPath, Matcher       string
	Interval, Timeout                     int32 // seconds
	Healthy, Unhealthy                    int32
	Attributes                            map[string]string
	Targets                               []target
	Draining                              []target
}

type target struct {
	ID      string // an address or an instance
	Port    int32
	Zone    string    // as it was given
	Address string    // of an instance
	At      time.Time // registered, or deregistered while draining; stage time
}

type bound struct{ Address string }

type applied struct{ Forward []weighted }

type health struct{ Targets map[string]Health } // address:port →

// Health is a target's health as ELB tells it.
type Health struct {
	State, Reason, Description string
	Registered                 time.Time // the registration that it was observed of
}

// New adds ELB's tables to the store.
func New(s *store.Store, c *clock.Clock, b *balance.Balancer, deps Deps) *API {
	a := &API{
		store: s, clock: c, balance: b, deps: deps, wake: make(chan struct{}, 1), changed: map[string]bool{},
		balancers: store.NewTable[loadBalancer](s, "elb/balancers"),
		listeners: store.NewTable[listener](s, "elb/listeners"),
		rules:     store.NewTable[rule](s, "elb/rules"),
		groups:    store.NewTable[targetGroup](s, "elb/groups"),
		bound:     store.NewTable[bound](s, "elb/bound"),
		applied:   store.NewTable[applied](s, "elb/applied"),
		health:    store.NewTable[health](s, "elb/health"),
		tags:      tags.NewTable(s, "elb/tags", tags.Exact),
	}
	a.listenersBy = store.NewIndex(s, a.listeners, func(_ string, l listener) []string { return append([]string{l.LoadBalancer}, l.Certificates...) })
	a.rulesBy = store.NewIndex(s, a.rules, func(_ string, r rule) []string {
		labels := []string{r.Listener}
		for _, w := range r.Forward {
			labels = append(labels, w.Group)
		}
		return labels
	})
	a.logs = accessLogs{dir: deps.LogDir, clock: c, files: map[string]*logFile{}}
	b.Changed = a.saw
	return a
}

// Service is ELBv2 on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "elasticloadbalancing", Signing: "elasticloadbalancing", Protocol: wire.Query, Version: "2015-12-01",
		Namespace: "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/",
		Naming:    &wire.Naming{},
		Status:    map[string]int{"AccessDenied": 403},
		Invalid:   func(m string) error { return invalid("%s", m) },
		Refused: "AddTrustStoreRevocations CreateTrustStore DeleteSharedTrustStoreAssociation DeleteTrustStore DescribeCapacityReservation DescribeTrustStoreAssociations DescribeTrustStoreRevocations " +
			"DescribeTrustStores GetResourcePolicy GetTrustStoreCaCertificatesBundle GetTrustStoreRevocationContent ModifyCapacityReservation ModifyIpPools ModifyTrustStore RemoveTrustStoreRevocations",
		Types: map[string]wire.Members{
			"Action":                           {Performed: "Type ForwardConfig FixedResponseConfig RedirectConfig TargetGroupArn Order", Refused: "AuthenticateCognitoConfig AuthenticateOidcConfig JwtValidationConfig"},
			"ForwardActionConfig":              {Performed: "TargetGroups TargetGroupStickinessConfig"},
			"TargetGroupStickinessConfig":      {Performed: "DurationSeconds Enabled"},
			"RedirectActionConfig":             {Performed: "StatusCode Host Path Port Protocol Query"},
			"RulePriorityPair":                 {Performed: "Priority RuleArn"},
			"TargetGroupTuple":                 {Performed: "TargetGroupArn Weight"},
			"FixedResponseActionConfig":        {Performed: "StatusCode ContentType MessageBody"},
			"RuleCondition":                    {Performed: "Field HostHeaderConfig HttpHeaderConfig HttpRequestMethodConfig PathPatternConfig QueryStringConfig RegexValues SourceIpConfig Values"},
			"HostHeaderConditionConfig":        {Performed: "RegexValues Values"},
			"HttpHeaderConditionConfig":        {Performed: "HttpHeaderName RegexValues Values"},
			"PathPatternConditionConfig":       {Performed: "RegexValues Values"},
			"QueryStringConditionConfig":       {Performed: "Values"},
			"QueryStringKeyValuePair":          {Performed: "Key Value"},
			"SourceIpConditionConfig":          {Performed: "Values", Refused: "IpAddressType"},
			"HttpRequestMethodConditionConfig": {Performed: "Values"},
			"TargetDescription":                {Performed: "Id Port", Recorded: "AvailabilityZone", Refused: "QuicServerId"},
			"Matcher":                          {Performed: "GrpcCode HttpCode"},
			"TargetGroupAttribute":             {Performed: "Key Value"},
			"LoadBalancerAttribute":            {Performed: "Key Value"},
			"ListenerAttribute":                {Performed: "Key Value"},
			"Certificate":                      {Performed: "CertificateArn IsDefault"},
			"SubnetMapping":                    {Recorded: "SubnetId", Refused: "AllocationId IPv6Address PrivateIPv4Address SourceNatIpv6Prefix"},
			"Tag":                              {Performed: "Key Value"},
		},
	}
	s.Register(a.balancerOps()...)
	s.Register(a.balancerAttributeOps()...)
	s.Register(a.listenerOps()...)
	s.Register(a.listenerAttributeOps()...)
	s.Register(a.ruleOps()...)
	s.Register(a.certificateOps()...)
	s.Register(a.policyOps()...)
	s.Register(a.groupOps()...)
	s.Register(a.targetOps()...)
	s.Register(a.tagOps()...)
	s.Register(a.limitOps()...)
	return s
}

// on makes the permission check of an operation on the resource.
func on[I any](action string, resource func(*wire.Call, *I) string) func(*wire.Call, *I) []wire.Check {
	return func(c *wire.Call, in *I) []wire.Check {
		return []wire.Check{{Action: "elasticloadbalancing:" + action, Resource: resource(c, in)}}
	}
}

// creating makes the checks of an operation that makes a resource, perhaps with tags.
func creating[I any](action string, resource func(*wire.Call, *I) string, tags func(*I) []types.Tag) func(*wire.Call, *I) []wire.Check {
	return func(c *wire.Call, in *I) []wire.Check {
		made := resource(c, in)
		return append([]wire.Check{{Action: "elasticloadbalancing:" + action, Resource: made, Wild: true}},
			wire.WhenTagged(tags(in), wire.Check{Action: "elasticloadbalancing:AddTags", Resource: made, Wild: true, Context: map[string][]string{"elasticloadbalancing:CreateAction": {action}}})...)
	}
}

// anywhere is for the Describe operations, which have no resource.
func anywhere[I any](action string) func(*wire.Call, *I) []wire.Check {
	return on(action, func(*wire.Call, *I) string { return "*" })
}

func invalid(format string, args ...any) error {
	return &wire.Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

func resource(c *wire.Call, path string) string {
	return c.Scope.For("elasticloadbalancing", path).String()
}

// keyOf is the key of a row that is named by its ARN.
func keyOf(resourceARN string) string {
	a, err := arn.Parse(resourceARN)
	if err != nil {
		return "|" + resourceARN
	}
	return a.Scope().Key(resourceARN)
}

// inScope reports whether an ARN belongs to the caller's account and region.
func inScope(c *wire.Call, resourceARN string) bool {
	a, err := arn.Parse(resourceARN)
	return err == nil && a.Scope() == c.Scope
}

// sameScope reports whether two ARNs are of one account and region.
func sameScope(x, y string) bool {
	a, err := arn.Parse(x)
	b, err2 := arn.Parse(y)
	return err == nil && err2 == nil && a.Scope() == b.Scope()
}

func newID() string { return id.Hex(16) }

// loopback picks an address of its own for a load balancer.
func loopback(taken func(string) bool) string {
	for {
		a := fmt.Sprintf("127.77.%d.%d", rand.N(256), 1+rand.N(254))
		if !taken(a) {
			return a
		}
	}
}

// last is the ARN's resource path after its first word: app/NAME/ID.
func last(resourceARN string) string {
	_, path, _ := strings.Cut(resourceARN[strings.LastIndexByte(resourceARN, ':')+1:], "/")
	return path
}

func page[T any](items []T, key func(T) string, marker *string, size *int32) ([]T, *string, error) {
	limit := 400
	if size != nil {
		if *size < 1 || *size > 400 {
			return nil, nil, invalid("1 validation error detected: Value '%d' at 'pageSize' failed to satisfy constraint: Member must have value between 1 and 400", *size)
		}
		limit = int(*size)
	}
	items, next, err := wire.Page(items, key, aws.ToString(marker), limit)
	if err != nil {
		return nil, nil, invalid("The marker is not valid")
	}
	if next == "" {
		return items, nil, nil
	}
	return items, &next, nil
}
