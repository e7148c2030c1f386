package elbd

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/wire"
)

// The security policies of listeners of TLS, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html
//
// Of the ciphers crypto/tls has most: of TLS 1.2 not ECDHE-*-AES256-SHA384 and
// AES256-SHA256. Which of TLS 1.3 are used is its choice, as is the exchange of keys,
// which is the hybrid one of the PQ policies where a client can. So a FIPS or PQ policy
// is told and is, on the wire, the one that it is named after.

// cipher is one of TLS 1.2 and older, by OpenSSL's name.
type cipher struct {
	name  string
	id    uint16 // 0: crypto/tls has none
	class byte   // g GCM, c CBC with SHA-2, s with SHA-1; r and R: likewise with RSA alone; d: 3DES
}

// ciphers are in the order in which AWS prefers them.
var ciphers = []cipher{
	{"ECDHE-ECDSA-AES128-GCM-SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 'g'}, {"ECDHE-RSA-AES128-GCM-SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, 'g'},
	{"ECDHE-ECDSA-AES128-SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, 'c'}, {"ECDHE-RSA-AES128-SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, 'c'},
	{"ECDHE-ECDSA-AES128-SHA", tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, 's'}, {"ECDHE-RSA-AES128-SHA", tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, 's'},
	{"ECDHE-ECDSA-AES256-GCM-SHA384", tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, 'g'}, {"ECDHE-RSA-AES256-GCM-SHA384", tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, 'g'},
	{"ECDHE-ECDSA-AES256-SHA384", 0, 'c'}, {"ECDHE-RSA-AES256-SHA384", 0, 'c'},
	{"ECDHE-RSA-AES256-SHA", tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, 's'}, {"ECDHE-ECDSA-AES256-SHA", tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, 's'},
	{"AES128-GCM-SHA256", tls.TLS_RSA_WITH_AES_128_GCM_SHA256, 'r'}, {"AES128-SHA256", tls.TLS_RSA_WITH_AES_128_CBC_SHA256, 'r'}, {"AES128-SHA", tls.TLS_RSA_WITH_AES_128_CBC_SHA, 'R'},
	{"AES256-GCM-SHA384", tls.TLS_RSA_WITH_AES_256_GCM_SHA384, 'r'}, {"AES256-SHA256", 0, 'r'}, {"AES256-SHA", tls.TLS_RSA_WITH_AES_256_CBC_SHA, 'R'},
	{"DES-CBC3-SHA", tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, 'd'},
}

// newest are the ciphers of TLS 1.3; those that FIPS does not approve of last.
var newest = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

// policy is a security policy.
type policy struct {
	name     string
	min, max uint16
	classes  string
}

const defaultPolicy = "ELBSecurityPolicy-2016-08" // of requests that name none, documented

// policies are in the order in which they are told.
var policies = allPolicies()

func allPolicies() []policy {
	const v0, v1, v2, v3 = tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13
	list := []policy{{defaultPolicy, v0, v2, "gcsrR"}}
	for _, suffix := range []string{"2021-06", "PQ-2025-09", "FIPS-2023-04", "FIPS-PQ-2025-09"} {
		fips := strings.HasPrefix(suffix, "FIPS")
		for _, p := range []policy{
			{"1-3", v3, v3, ""}, {"1-2-Res", v2, v3, "g"}, {"1-2", v2, v3, "gc"}, {"1-2-Ext0", v2, v3, "gcs"}, {"1-2-Ext1", v2, v3, "gcr"}, {"1-2-Ext2", v2, v3, "gcsrR"},
			{"1-1", v1, v3, "gcsrR"}, {"1-0", v0, v3, "gcsrR"},
		} {
			if p.name == "1-2-Ext0" && !fips || p.min < v2 && strings.Contains(suffix, "PQ") {
				continue // there are none
			}
			p.name = "ELBSecurityPolicy-TLS13-" + p.name + "-" + suffix
			list = append(list, p)
		}
	}
	return append(list,
		policy{"ELBSecurityPolicy-FS-1-2-Res-2020-10", v2, v2, "g"}, policy{"ELBSecurityPolicy-FS-1-2-Res-2019-08", v2, v2, "gc"}, policy{"ELBSecurityPolicy-FS-1-2-2019-08", v2, v2, "gcs"},
		policy{"ELBSecurityPolicy-FS-1-1-2019-08", v1, v2, "gcs"}, policy{"ELBSecurityPolicy-FS-2018-06", v0, v2, "gcs"},
		policy{"ELBSecurityPolicy-TLS-1-2-Ext-2018-06", v2, v2, "gcsrR"}, policy{"ELBSecurityPolicy-TLS-1-2-2017-01", v2, v2, "gcr"}, policy{"ELBSecurityPolicy-TLS-1-1-2017-01", v1, v2, "gcsrR"},
		policy{"ELBSecurityPolicy-2015-05", v0, v2, "gcsrR"}, policy{"ELBSecurityPolicy-TLS-1-0-2015-04", v0, v2, "gcsrRd"})
}

// policyNamed is a policy by its name.
func policyNamed(name string) (policy, error) {
	i := slices.IndexFunc(policies, func(p policy) bool { return p.name == name })
	if i < 0 {
		return policy{}, &types.SSLPolicyNotFoundException{Message: new(fmt.Sprintf("SSL policy '%s' not found", name))}
	}
	return policies[i], nil
}

// old is the policy's ciphers of TLS 1.2 and older.
func (p policy) old() (list []cipher) {
	for _, c := range ciphers {
		if strings.IndexByte(p.classes, c.class) >= 0 {
			list = append(list, c)
		}
	}
	return list
}

// suites is those of them that crypto/tls has.
func (p policy) suites() (list []uint16) {
	for _, c := range p.old() {
		if c.id != 0 {
			list = append(list, c.id)
		}
	}
	return list
}

func (p policy) view() types.SslPolicy {
	v := types.SslPolicy{Name: new(p.name), SupportedLoadBalancerTypes: []string{application, network}}
	for at, name := range []string{"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"} {
		if version := tls.VersionTLS10 + uint16(at); p.min <= version && version <= p.max {
			v.SslProtocols = append(v.SslProtocols, name)
		}
	}
	var names []string
	if p.max == tls.VersionTLS13 {
		names = slices.Clone(newest)
		if strings.Contains(p.name, "FIPS") {
			names = names[:2]
		}
	}
	for _, c := range p.old() {
		names = append(names, c.name)
	}
	for i, name := range names {
		v.Ciphers = append(v.Ciphers, types.Cipher{Name: new(name), Priority: new(int32(i + 1))})
	}
	return v
}

// DescribeSSLPolicies lists the security policies, or those that are named.
func (a *API) DescribeSSLPolicies(_ context.Context, in *elb.DescribeSSLPoliciesInput) (*elb.DescribeSSLPoliciesOutput, error) {
	var list []policy
	for _, name := range in.Names {
		p, err := policyNamed(name)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	if t := in.LoadBalancerType; t == types.LoadBalancerTypeEnumGateway {
		list = nil
	} else if in.Names == nil {
		list = slices.Clone(policies)
	}
	list, next, err := page(list, func(p policy) string { return fmt.Sprintf("%03d", slices.Index(policies, p)) }, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elb.DescribeSSLPoliciesOutput{NextMarker: next}
	for _, p := range list {
		out.SslPolicies = append(out.SslPolicies, p.view())
	}
	return out, nil
}

func (a *API) policyOps() []*wire.Op {
	return []*wire.Op{wire.Handle("DescribeSSLPolicies", a.DescribeSSLPolicies, anywhere[elb.DescribeSSLPoliciesInput]("DescribeSSLPolicies"), wire.Members{Performed: "LoadBalancerType Marker Names PageSize"})}
}
