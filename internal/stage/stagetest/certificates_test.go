package stagetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/acm"
	acmtypes "github.com/aws/aws-sdk-go-v2/service/acm/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"

	"serin/internal/memnet"
)

// certified is a world with certificates.
type certified struct {
	*world
	acm *acm.Client
}

func withCertificates(t *testing.T, test func(*testing.T, *certified)) {
	t.Helper()
	bubble(t, nil, func(t *testing.T, w *world) { test(t, &certified{w, acm.NewFromConfig(w.config)}) })
}

// request requests a certificate and waits until it is issued.
func (w *certified) request(names ...string) string {
	w.t.Helper()
	out, err := w.acm.RequestCertificate(w.t.Context(), &acm.RequestCertificateInput{DomainName: &names[0], SubjectAlternativeNames: names[1:], ValidationMethod: acmtypes.ValidationMethodDns, KeyAlgorithm: acmtypes.KeyAlgorithmEcPrime256v1})
	w.must(out, err)
	time.Sleep(time.Second)
	return *out.CertificateArn
}

func (w *certified) describe(certificate string) *acmtypes.CertificateDetail {
	w.t.Helper()
	out, err := w.acm.DescribeCertificate(w.t.Context(), &acm.DescribeCertificateInput{CertificateArn: &certificate})
	w.must(out, err)
	return out.Certificate
}

// refuses wants an error of a code whose text contains something.
func (w *world) refuses(what, code, text string, err error) {
	w.t.Helper()
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() != code || !strings.Contains(api.ErrorMessage(), text) {
		w.t.Errorf("%s: want %s %q, got %v", what, code, text, err)
	}
}

func TestACertificateIsIssuedByTheStagesAuthority(t *testing.T) {
	withCertificates(t, func(t *testing.T, w *certified) {
		ctx := t.Context()
		in := &acm.RequestCertificateInput{DomainName: new("Example.com"), SubjectAlternativeNames: []string{"*.example.com"}, ValidationMethod: acmtypes.ValidationMethodDns, IdempotencyToken: new("once"), Tags: []acmtypes.Tag{{Key: new("team"), Value: new("web")}}}
		out, err := w.acm.RequestCertificate(ctx, in)
		w.must(out, err)
		c := w.describe(*out.CertificateArn)
		if c.Status != acmtypes.CertificateStatusPendingValidation || c.IssuedAt != nil || c.DomainValidationOptions[0].ValidationStatus != acmtypes.DomainStatusPendingValidation {
			t.Errorf("at first it is %+v", c)
		}
		if a, b := c.DomainValidationOptions[0].ResourceRecord, c.DomainValidationOptions[1].ResourceRecord; *a.Name != *b.Name || !strings.HasSuffix(*a.Name, ".example.com.") || !strings.HasSuffix(*a.Value, ".acm-validations.aws.") {
			t.Errorf("the records are %+v and %+v", a, b)
		}
		_, err = w.acm.GetCertificate(ctx, &acm.GetCertificateInput{CertificateArn: out.CertificateArn})
		w.refuses("getting it", "RequestInProgressException", "has not been issued yet", err)
		time.Sleep(time.Second)
		if c = w.describe(*out.CertificateArn); c.Status != acmtypes.CertificateStatusIssued || c.IssuedAt == nil || c.KeyAlgorithm != acmtypes.KeyAlgorithmRsa2048 || *c.SignatureAlgorithm != "SHA256WITHECDSA" || len(c.InUseBy) != 0 {
			t.Errorf("then it is %+v", c)
		}
		again, err := w.acm.RequestCertificate(ctx, in)
		w.must(again, err)
		if *again.CertificateArn != *out.CertificateArn {
			t.Error("the same request makes another")
		}
		got, err := w.acm.GetCertificate(ctx, &acm.GetCertificateInput{CertificateArn: out.CertificateArn})
		w.must(got, err)
		trusted, err := os.ReadFile(w.stage.AuthorityFile())
		w.must(nil, err)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(trusted)
		block, _ := pem.Decode([]byte(*got.Certificate))
		leaf, err := x509.ParseCertificate(block.Bytes)
		w.must(leaf, err)
		for _, name := range []string{"example.com", "shop.example.com"} {
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
				t.Error(err)
			}
		}
		tags, err := w.acm.ListTagsForCertificate(ctx, &acm.ListTagsForCertificateInput{CertificateArn: out.CertificateArn})
		w.must(tags, err)
		if len(tags.Tags) != 1 || *tags.Tags[0].Value != "web" {
			t.Errorf("its tags are %+v", tags.Tags)
		}
		w.request("small.example.com")
		for keys, n := range map[acmtypes.KeyAlgorithm]int{"": 1, acmtypes.KeyAlgorithmEcPrime256v1: 1} {
			list := &acm.ListCertificatesInput{CertificateStatuses: []acmtypes.CertificateStatus{acmtypes.CertificateStatusIssued}}
			if keys != "" {
				list.Includes = &acmtypes.Filters{KeyTypes: []acmtypes.KeyAlgorithm{keys}}
			}
			found, err := w.acm.ListCertificates(ctx, list)
			w.must(found, err)
			if len(found.CertificateSummaryList) != n {
				t.Errorf("%d are listed of %q", len(found.CertificateSummaryList), keys)
			}
		}
	})
}

// ownCertificate is a certificate in PEM that nobody else signed, and its key.
func ownCertificate(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func TestACertificateIsImported(t *testing.T) {
	withCertificates(t, func(t *testing.T, w *certified) {
		ctx := t.Context()
		own, key := ownCertificate(t, "own.example.com")
		_, other := ownCertificate(t, "other.example.com")
		take := func(in acm.ImportCertificateInput) (string, error) {
			out, err := w.acm.ImportCertificate(ctx, &in)
			if err != nil {
				return "", err
			}
			return *out.CertificateArn, nil
		}
		made, err := take(acm.ImportCertificateInput{Certificate: own, PrivateKey: key})
		w.must(made, err)
		if c := w.describe(made); c.Type != acmtypes.CertificateTypeImported || *c.DomainName != "own.example.com" || c.ImportedAt == nil || c.DomainValidationOptions != nil || *c.Issuer != "own.example.com" || *c.Serial != "07" {
			t.Errorf("it is %+v", c)
		}
		for what, c := range map[string]struct {
			text string
			in   acm.ImportCertificateInput
		}{
			"another key":        {"The private key does not match", acm.ImportCertificateInput{Certificate: own, PrivateKey: other}},
			"two certificates":   {"contains more than one certificate", acm.ImportCertificateInput{Certificate: append(own, own...), PrivateKey: key}},
			"none":               {"does not contain a valid certificate", acm.ImportCertificateInput{Certificate: []byte("x"), PrivateKey: key}},
			"another chain":      {"Could not validate the certificate with the certificate chain.", acm.ImportCertificateInput{Certificate: own, PrivateKey: key, CertificateChain: func() []byte { c, _ := ownCertificate(t, "x.example.com"); return c }()}},
			"tags when replaced": {"Tagging is not permitted on re-import.", acm.ImportCertificateInput{Certificate: own, PrivateKey: key, CertificateArn: &made, Tags: []acmtypes.Tag{{Key: new("a")}}}},
			"over an issued one": {"was not imported", acm.ImportCertificateInput{Certificate: own, PrivateKey: key, CertificateArn: new(w.request("a.example.com"))}},
		} {
			_, err := take(c.in)
			w.refuses(what, "ValidationException", c.text, err)
		}
		_, err = w.acm.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: new(made + "0")})
		w.refuses("another ARN", "ResourceNotFoundException", "Could not find certificate "+made+"0.", err)
		_, err = w.acm.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: new("certificate-of-mine-1")})
		w.refuses("no ARN", "InvalidArnException", "Invalid arn", err)
		_, err = w.acm.RequestCertificate(ctx, &acm.RequestCertificateInput{DomainName: new("localhost")})
		w.refuses("a name", "ValidationException", "failed to satisfy constraint", err)
	})
}

func TestAListenerShowsItsCertificates(t *testing.T) {
	withCertificates(t, func(t *testing.T, w *certified) {
		ctx := t.Context()
		lb, err := w.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Names: []string{"lb"}})
		w.must(lb, err)
		first, second := w.request("a.example.com"), w.request("b.example.com")
		create := func(p elbtypes.ProtocolEnum, change func(*elb.CreateListenerInput)) (elbtypes.Listener, error) {
			in := &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(8443)), Protocol: p, DefaultActions: []elbtypes.Action{w.forward(1)}, Certificates: []elbtypes.Certificate{{CertificateArn: &first}}}
			change(in)
			out, err := w.elb.CreateListener(ctx, in)
			if err != nil {
				return elbtypes.Listener{}, err
			}
			return out.Listeners[0], nil
		}
		for what, c := range map[string]struct {
			protocol   elbtypes.ProtocolEnum
			code, text string
			change     func(*elb.CreateListenerInput)
		}{
			"no certificate":   {"HTTPS", "ValidationError", "A certificate must be specified for HTTPS listeners", func(in *elb.CreateListenerInput) { in.Certificates = nil }},
			"a plain listener": {"HTTP", "ValidationError", "A certificate cannot be specified for HTTP listeners", func(*elb.CreateListenerInput) {}},
			"two certificates": {"HTTPS", "ValidationError", "Exactly one certificate", func(in *elb.CreateListenerInput) { in.Certificates = append(in.Certificates, in.Certificates[0]) }},
			"a default":        {"HTTPS", "ValidationError", "'IsDefault'", func(in *elb.CreateListenerInput) { in.Certificates[0].IsDefault = new(true) }},
			"no such one":      {"HTTPS", "CertificateNotFound", "Certificate '" + first + "0' not found", func(in *elb.CreateListenerInput) { in.Certificates[0].CertificateArn = new(first + "0") }},
			"a policy":         {"HTTPS", "SSLPolicyNotFound", "SSL policy 'mine' not found", func(in *elb.CreateListenerInput) { in.SslPolicy = new("mine") }},
			"ALPN":             {"HTTPS", "ValidationError", "for TLS listeners", func(in *elb.CreateListenerInput) { in.AlpnPolicy = []string{"None"} }},
		} {
			_, err := create(c.protocol, c.change)
			w.refuses(what, c.code, c.text, err)
		}
		l, err := create("HTTPS", func(*elb.CreateListenerInput) {})
		w.must(l, err)
		if *l.SslPolicy != "ELBSecurityPolicy-2016-08" || len(l.Certificates) != 1 || *l.Certificates[0].CertificateArn != first || *l.MutualAuthentication.Mode != "off" {
			t.Errorf("it is %+v", l)
		}
		w.must(w.elb.AddListenerCertificates(ctx, &elb.AddListenerCertificatesInput{ListenerArn: l.ListenerArn, Certificates: []elbtypes.Certificate{{CertificateArn: &second}}}))
		shown := func() (list []string) {
			out, err := w.elb.DescribeListenerCertificates(ctx, &elb.DescribeListenerCertificatesInput{ListenerArn: l.ListenerArn})
			w.must(out, err)
			for i, c := range out.Certificates {
				if *c.IsDefault != (i == 0) {
					t.Errorf("certificate %d is default: %t", i, *c.IsDefault)
				}
				list = append(list, *c.CertificateArn)
			}
			return list
		}
		if got := shown(); len(got) != 2 || got[0] != first || got[1] != second {
			t.Errorf("it shows %v", got)
		}
		if got := w.describe(second).InUseBy; len(got) != 1 || got[0] != *l.LoadBalancerArn {
			t.Errorf("the second is used by %v", got)
		}
		_, err = w.acm.DeleteCertificate(ctx, &acm.DeleteCertificateInput{CertificateArn: &second})
		w.refuses("deleting it", "ResourceInUseException", "Certificate "+second+" in account "+Account+" is in use.", err)
		_, err = w.elb.RemoveListenerCertificates(ctx, &elb.RemoveListenerCertificatesInput{ListenerArn: l.ListenerArn, Certificates: []elbtypes.Certificate{{CertificateArn: &first}}})
		w.refuses("the default", "OperationNotPermitted", "Default certificate", err)
		w.must(w.elb.RemoveListenerCertificates(ctx, &elb.RemoveListenerCertificatesInput{ListenerArn: l.ListenerArn, Certificates: []elbtypes.Certificate{{CertificateArn: &second}}}))
		w.must(w.acm.DeleteCertificate(ctx, &acm.DeleteCertificateInput{CertificateArn: &second}))
		changed, err := w.elb.ModifyListener(ctx, &elb.ModifyListenerInput{ListenerArn: l.ListenerArn, SslPolicy: new("ELBSecurityPolicy-TLS13-1-3-2021-06")})
		w.must(changed, err)
		if *changed.Listeners[0].SslPolicy != "ELBSecurityPolicy-TLS13-1-3-2021-06" || *changed.Listeners[0].Certificates[0].CertificateArn != first {
			t.Errorf("it became %+v", changed.Listeners[0])
		}
		if changed, err = w.elb.ModifyListener(ctx, &elb.ModifyListenerInput{ListenerArn: l.ListenerArn, Protocol: "HTTP"}); err != nil {
			t.Fatal(err)
		}
		if changed.Listeners[0].Certificates != nil || changed.Listeners[0].SslPolicy != nil {
			t.Errorf("in plain it is %+v", changed.Listeners[0])
		}
		_, err = w.elb.ModifyListener(ctx, &elb.ModifyListenerInput{ListenerArn: l.ListenerArn, Port: new(int32(8088))})
		w.refuses("another's port", "ValidationError", "Listener port '8088' is already in use", err)
	})
}

func TestSecurityPoliciesTellTheirProtocolsAndCiphers(t *testing.T) {
	b := newBalancing(t)
	all, err := b.elb.DescribeSSLPolicies(b.ctx, &elb.DescribeSSLPoliciesInput{})
	b.must(all, err)
	if n := len(all.SslPolicies); n != 37 {
		t.Errorf("there are %d", n)
	}
	for name, want := range map[string]struct {
		protocols string
		ciphers   int
	}{
		"ELBSecurityPolicy-2016-08":                        {"TLSv1 TLSv1.1 TLSv1.2", 18},
		"ELBSecurityPolicy-TLS13-1-2-2021-06":              {"TLSv1.2 TLSv1.3", 11},
		"ELBSecurityPolicy-TLS13-1-2-Res-FIPS-2023-04":     {"TLSv1.2 TLSv1.3", 6},
		"ELBSecurityPolicy-TLS13-1-3-PQ-2025-09":           {"TLSv1.3", 3},
		"ELBSecurityPolicy-TLS13-1-2-Ext0-FIPS-PQ-2025-09": {"TLSv1.2 TLSv1.3", 14},
		"ELBSecurityPolicy-FS-1-2-Res-2020-10":             {"TLSv1.2", 4},
	} {
		out, err := b.elb.DescribeSSLPolicies(b.ctx, &elb.DescribeSSLPoliciesInput{Names: []string{name}})
		b.must(out, err)
		if p := out.SslPolicies[0]; strings.Join(p.SslProtocols, " ") != want.protocols || len(p.Ciphers) != want.ciphers || *p.Ciphers[0].Priority != 1 {
			t.Errorf("%s has %v and %d ciphers", name, p.SslProtocols, len(p.Ciphers))
		}
	}
	_, err = b.elb.DescribeSSLPolicies(b.ctx, &elb.DescribeSSLPoliciesInput{Names: []string{"mine"}})
	b.refuses("another", "SSLPolicyNotFound", "SSL policy 'mine' not found", err)
}

// shake makes a handshake with the load balancer and tells which name the certificate
// is for that it shows.
func (w *certified) shake(address, name string) string {
	w.t.Helper()
	trusted, err := os.ReadFile(w.stage.AuthorityFile())
	w.must(nil, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trusted)
	conn, err := w.client.Transport.(memnet.Transport).Clone().DialContext(w.t.Context(), "tcp", address)
	w.must(conn, err)
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: name, NextProtos: []string{"h2"}})
	if err := c.Handshake(); err != nil {
		return err.Error()
	}
	state := c.ConnectionState()
	return state.PeerCertificates[0].DNSNames[0] + " " + tls.VersionName(state.Version)
}

func TestAHandshakeIsWithTheCertificateOfTheName(t *testing.T) {
	withCertificates(t, func(t *testing.T, w *certified) {
		ctx := t.Context()
		first, second := w.request("a.example.com"), w.request("b.example.com")
		nlb, err := w.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("edge"), Subnets: []string{"a"}, Type: elbtypes.LoadBalancerTypeEnumNetwork})
		w.must(nlb, err)
		flows, err := w.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new("flows"), Protocol: elbtypes.ProtocolEnumTcp, Port: new(int32(8080)), TargetType: elbtypes.TargetTypeEnumIp})
		w.must(flows, err)
		web, err := w.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Names: []string{"lb"}})
		w.must(web, err)
		for _, c := range []struct {
			balancer elbtypes.LoadBalancer
			protocol elbtypes.ProtocolEnum
			action   elbtypes.Action
		}{
			{web.LoadBalancers[0], elbtypes.ProtocolEnumHttps, w.forward(1)},
			{nlb.LoadBalancers[0], elbtypes.ProtocolEnumTls, elbtypes.Action{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: flows.TargetGroups[0].TargetGroupArn}},
		} {
			l, err := w.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: c.balancer.LoadBalancerArn, Port: new(int32(8443)), Protocol: c.protocol, DefaultActions: []elbtypes.Action{c.action}, Certificates: []elbtypes.Certificate{{CertificateArn: &first}}})
			w.must(l, err)
			w.must(w.elb.AddListenerCertificates(ctx, &elb.AddListenerCertificatesInput{ListenerArn: l.Listeners[0].ListenerArn, Certificates: []elbtypes.Certificate{{CertificateArn: &second}}}))
			time.Sleep(time.Second)
			address := *c.balancer.DNSName + ":8443"
			for name, want := range map[string]string{"a.example.com": "a.example.com TLS 1.2", "b.example.com": "b.example.com TLS 1.2"} {
				if got := w.shake(address, name); got != want {
					t.Errorf("%s: who asks for %s gets %q", c.protocol, name, got)
				}
			}
			w.must(w.elb.ModifyListener(ctx, &elb.ModifyListenerInput{ListenerArn: l.Listeners[0].ListenerArn, SslPolicy: new("ELBSecurityPolicy-TLS13-1-3-2021-06")}))
			time.Sleep(time.Second)
			if got := w.shake(address, "b.example.com"); got != "b.example.com TLS 1.3" {
				t.Errorf("%s: with a newer policy it is %q", c.protocol, got)
			}
		}
	})
}

func TestAnImportInAnothersPlaceIsShownAtOnce(t *testing.T) {
	withCertificates(t, func(t *testing.T, w *certified) {
		ctx := t.Context()
		take := func(into *string) (string, string) {
			own, key := ownCertificate(t, "own.example.com")
			out, err := w.acm.ImportCertificate(ctx, &acm.ImportCertificateInput{Certificate: own, PrivateKey: key, CertificateArn: into})
			w.must(out, err)
			return *out.CertificateArn, string(own)
		}
		made, _ := take(nil)
		lb, err := w.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Names: []string{"lb"}})
		w.must(lb, err)
		w.must(w.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(8443)), Protocol: elbtypes.ProtocolEnumHttps, DefaultActions: []elbtypes.Action{w.forward(1)}, Certificates: []elbtypes.Certificate{{CertificateArn: &made}}}))
		time.Sleep(time.Second)
		_, other := take(&made)
		time.Sleep(time.Second)
		conn, err := w.client.Transport.(memnet.Transport).Clone().DialContext(ctx, "tcp", *lb.LoadBalancers[0].DNSName+":8443")
		w.must(conn, err)
		defer conn.Close()
		c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		w.must(nil, c.Handshake())
		if got := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ConnectionState().PeerCertificates[0].Raw}); string(got) != other {
			t.Error("the listener shows the one that was replaced")
		}
	})
}
