package elbd

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/balance"
	"serin/internal/store"
	"serin/internal/wire"
)

// Listeners of HTTPS and TLS. The texts about a certificate that is missing, not
// found or not fit are observed, the others guessed.

func (a *API) certificateOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("AddListenerCertificates", a.AddListenerCertificates, on("AddListenerCertificates", func(_ *wire.Call, in *elb.AddListenerCertificatesInput) string {
			return aws.ToString(in.ListenerArn)
		}), wire.Members{Performed: "Certificates ListenerArn"}),
		wire.Handle("RemoveListenerCertificates", a.RemoveListenerCertificates, on("RemoveListenerCertificates", func(_ *wire.Call, in *elb.RemoveListenerCertificatesInput) string {
			return aws.ToString(in.ListenerArn)
		}), wire.Members{Performed: "Certificates ListenerArn"}),
		wire.Handle("DescribeListenerCertificates", a.DescribeListenerCertificates, anywhere[elb.DescribeListenerCertificatesInput]("DescribeListenerCertificates"),
			wire.Members{Performed: "ListenerArn Marker PageSize"}),
	}
}

// encrypted reports whether a protocol is one that needs certificates.
func encrypted(protocol string) bool { return protocol == overHTTPS || protocol == overTLS }

// secured is the members of a request that only such listeners have.
type secured struct {
	certificates []types.Certificate
	policy       *string
	alpn         []string
}

// alpnPolicies are what a TLS listener can offer, by the policies' names.
var alpnPolicies = map[string][]string{
	"HTTP1Only": {"http/1.1"}, "HTTP2Only": {"h2"}, "HTTP2Optional": {"http/1.1", "h2"}, "HTTP2Preferred": {"h2", "http/1.1"}, "None": nil,
}

// secure reads the members that only listeners of HTTPS and TLS have; what is not
// there stays as it is.
func (a *API) secure(tx *store.Tx, l *listener, in secured) error {
	if !encrypted(l.protocol()) {
		switch {
		case len(in.certificates) > 0:
			return invalid("A certificate cannot be specified for %s listeners", l.protocol())
		case in.policy != nil:
			return invalid("An SSL policy cannot be specified for %s listeners", l.protocol())
		case len(in.alpn) > 0:
			return invalid("An ALPN policy cannot be specified for %s listeners", l.protocol())
		}
		l.Certificates, l.Policy, l.ALPN = nil, "", ""
		return nil
	}
	if in.certificates != nil {
		given, err := a.certificatesIn(tx, *l, in.certificates)
		if err != nil {
			return err
		}
		l.Certificates = append(given, slices.DeleteFunc(slices.Clone(tail(l.Certificates)), func(c string) bool { return c == given[0] })...)
	}
	if len(l.Certificates) == 0 {
		return invalid("A certificate must be specified for %s listeners", l.protocol())
	}
	policy, err := policyNamed(cmp.Or(aws.ToString(in.policy), l.Policy, defaultPolicy))
	if err != nil {
		return err
	}
	if l.Policy = policy.name; in.alpn == nil {
		return nil
	}
	if len(in.alpn) != 1 || l.protocol() != overTLS {
		return invalid("One ALPN policy can be specified, for TLS listeners")
	}
	if l.ALPN = in.alpn[0]; !slices.Contains(slices.Collect(maps.Keys(alpnPolicies)), l.ALPN) {
		return &types.ALPNPolicyNotSupportedException{Message: new(fmt.Sprintf("ALPN policy '%s' is not supported", l.ALPN))}
	}
	return nil
}

// tail is all but the first of a list.
func tail(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list[1:]
}

// certificatesIn reads the one certificate of a request.
func (a *API) certificatesIn(tx *store.Tx, l listener, in []types.Certificate) ([]string, error) {
	if len(in) != 1 {
		return nil, invalid("Exactly one certificate must be specified, got %d", len(in))
	}
	name := aws.ToString(in[0].CertificateArn)
	switch _, ok := a.deps.Certificates.Certificate(tx, name); {
	case in[0].IsDefault != nil:
		return nil, invalid("You cannot specify the 'IsDefault' parameter")
	case !sameScope(name, l.ARN) || !ok:
		return nil, &types.CertificateNotFoundException{Message: new(fmt.Sprintf("Certificate '%s' not found", name))}
	}
	return []string{name}, nil
}

// CertificateUsers is the load balancers whose listeners show a certificate.
func (a *API) CertificateUsers(tx *store.Tx, certificateARN string) (list []string) {
	for _, l := range a.listenersBy.Scan(tx, certificateARN) {
		if !slices.Contains(list, l.LoadBalancer) {
			list = append(list, l.LoadBalancer)
		}
	}
	slices.Sort(list)
	return list
}

// showing puts what a listener shows into the balancer's words, and tells which
// certificate is shown for a name.
func (a *API) showing(tx *store.Tx, l listener) (*balance.TLS, func(name string) string) {
	policy, err := policyNamed(l.Policy)
	if err != nil {
		panic("elbd: a security policy that is none was stored")
	}
	shown := &balance.TLS{Min: policy.min, Max: policy.max, Suites: policy.suites(), Next: alpnPolicies[l.ALPN]}
	leaves := map[string]*x509.Certificate{}
	for _, name := range l.Certificates {
		if c, ok := a.deps.Certificates.Certificate(tx, name); ok {
			shown.Certificates, leaves[name] = append(shown.Certificates, c), c.Leaf
		}
	}
	return shown, func(name string) string {
		for _, c := range l.Certificates {
			if leaf := leaves[c]; leaf != nil && name != "" && leaf.VerifyHostname(name) == nil {
				return c
			}
		}
		return l.Certificates[0]
	}
}

// AddListenerCertificates adds a certificate for clients that ask for its names.
func (a *API) AddListenerCertificates(ctx context.Context, in *elb.AddListenerCertificatesInput) (*elb.AddListenerCertificatesOutput, error) {
	l, err := a.changeListener(ctx, in.ListenerArn, func(tx *store.Tx, l *listener) error {
		if !encrypted(l.protocol()) {
			return invalid("A certificate cannot be specified for %s listeners", l.protocol())
		}
		given, err := a.certificatesIn(tx, *l, in.Certificates)
		if err != nil {
			return err
		}
		if slices.Contains(l.Certificates, given[0]) {
			return nil // it is there, documented
		}
		shown := 0
		for _, other := range a.listenersBy.Scan(tx, l.LoadBalancer) {
			shown += len(tail(other.Certificates))
		}
		if shown >= mostCertificates {
			return &types.TooManyCertificatesException{Message: new(fmt.Sprintf("The maximum number of certificates has been reached on load balancer '%s'", l.LoadBalancer))}
		}
		l.Certificates = append(slices.Clone(l.Certificates), given[0])
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &elb.AddListenerCertificatesOutput{}
	for i, c := range l.Certificates {
		if c == aws.ToString(in.Certificates[0].CertificateArn) {
			out.Certificates = append(out.Certificates, types.Certificate{CertificateArn: &c, IsDefault: new(i == 0)})
		}
	}
	return out, nil
}

// RemoveListenerCertificates takes a certificate away; the default one stays.
func (a *API) RemoveListenerCertificates(ctx context.Context, in *elb.RemoveListenerCertificatesInput) (*elb.RemoveListenerCertificatesOutput, error) {
	_, err := a.changeListener(ctx, in.ListenerArn, func(_ *store.Tx, l *listener) error {
		if len(in.Certificates) != 1 {
			return invalid("Exactly one certificate must be specified, got %d", len(in.Certificates))
		}
		name := aws.ToString(in.Certificates[0].CertificateArn)
		switch i := slices.Index(l.Certificates, name); {
		case i == 0:
			return &types.OperationNotPermittedException{Message: new(fmt.Sprintf("Default certificate '%s' cannot be removed from listener '%s'", name, l.ARN))}
		case i > 0:
			l.Certificates = slices.Delete(slices.Clone(l.Certificates), i, i+1)
		}
		return nil
	})
	return &elb.RemoveListenerCertificatesOutput{}, err
}

// DescribeListenerCertificates lists a listener's certificates, the default one first.
func (a *API) DescribeListenerCertificates(ctx context.Context, in *elb.DescribeListenerCertificatesInput) (*elb.DescribeListenerCertificatesOutput, error) {
	l, ok := a.listener(wire.From(ctx), in.ListenerArn)
	if !ok {
		return nil, listenerNotFound()
	}
	list, next, err := page(slices.Clone(l.Certificates), func(c string) string { return fmt.Sprintf("%03d", slices.Index(l.Certificates, c)) }, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elb.DescribeListenerCertificatesOutput{NextMarker: next, Certificates: []types.Certificate{}}
	for _, c := range list {
		out.Certificates = append(out.Certificates, types.Certificate{CertificateArn: &c, IsDefault: new(c == l.Certificates[0])})
	}
	return out, nil
}
