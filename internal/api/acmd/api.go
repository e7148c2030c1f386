// Package acmd is the stage's Certificate Manager: certificates that an authority
// of the stage's own issues, those that are imported, and their keys, for the
// listeners of load balancers.
//
// A request is validated by nobody: it is pending for a moment of stage time, and
// issued then. What holds for the network is wall time: from when until when a
// certificate is good. Nothing renews one.
package acmd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// API performs Certificate Manager's operations.
type API struct {
	store        *store.Store
	clock        *clock.Clock
	certificates *store.Table[certificate]
	authorities  *store.Table[pair]
	tags         *tags.Table

	// InUse is what uses a certificate, by ARN.
	InUse func(tx *store.Tx, certificateARN string) []string
}

// certificate is one that was requested or imported.
type certificate struct {
	ARN         string
	Domain      string
	Names       []string // Domain first
	Imported    bool
	Pair        pair
	Chain       string // PEM
	Algorithm   string
	Method      string            // of validation
	Domains     map[string]string // by name: the domain that is asked for it, where it is another
	Token       string            // of the request
	Created, At time.Time         // requested or first imported, and issued or imported; stage time
}

// pair is a certificate and its key, in PEM.
type pair struct{ Certificate, Key string }

// New adds the tables to the store.
func New(s *store.Store, c *clock.Clock) *API {
	return &API{
		store: s, clock: c, InUse: func(*store.Tx, string) []string { return nil },
		certificates: store.NewTable[certificate](s, "acm/certificates"), authorities: store.NewTable[pair](s, "acm/authority"), tags: tags.NewTable(s, "acm/tags", tags.Exact),
	}
}

// Service is Certificate Manager on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "acm", Signing: "acm", Protocol: wire.JSON, Target: "CertificateManager", Version: "2015-12-08",
		Naming:  &wire.Naming{},
		Invalid: func(m string) error { return invalid("%s", m) },
		Types: map[string]wire.Members{
			"CertificateOptions":     {Ignored: "CertificateTransparencyLoggingPreference", Refused: "Export ValidationMethod"},
			"DomainValidationOption": {Performed: "DomainName ValidationDomain"},
			"Filters":                {Performed: "keyTypes", Refused: "exportOption extendedKeyUsage keyUsage managedBy"},
			"Tag":                    {Performed: "Key Value"},
		},
		Refused: "CreateAcmeDomainValidation CreateAcmeEndpoint CreateAcmeExternalAccountBinding DeleteAcmeDomainValidation DeleteAcmeEndpoint DeleteAcmeExternalAccountBinding DescribeAcmeAccount " +
			"DescribeAcmeDomainValidation DescribeAcmeEndpoint DescribeAcmeExternalAccountBinding ExportCertificate GetAccountConfiguration GetAcmeExternalAccountBindingCredentials ListAcmeAccounts " +
			"ListAcmeDomainValidations ListAcmeEndpoints ListAcmeExternalAccountBindings ListCertificateDomainValidations ListTagsForResource PutAccountConfiguration RenewCertificate ResendValidationEmail " +
			"RevokeAcmeAccount RevokeAcmeExternalAccountBinding RevokeCertificate SearchCertificates TagResource UntagResource UpdateAcmeDomainValidation UpdateAcmeEndpoint UpdateCertificateOptions",
	}
	s.Naming.Except = map[string]string{"Filters.ExportOption": "exportOption", "Filters.ExtendedKeyUsage": "extendedKeyUsage", "Filters.KeyTypes": "keyTypes", "Filters.KeyUsage": "keyUsage", "Filters.ManagedBy": "managedBy"}
	s.Register(
		wire.Handle("RequestCertificate", a.RequestCertificate, func(_ *wire.Call, in *acm.RequestCertificateInput) []wire.Check {
			return making("RequestCertificate", "*", in.Tags)
		}, wire.Members{Performed: "DomainName DomainValidationOptions IdempotencyToken KeyAlgorithm Options SubjectAlternativeNames Tags ValidationMethod", Refused: "CertificateAuthorityArn ManagedBy"}),
		wire.Handle("ImportCertificate", a.ImportCertificate, func(c *wire.Call, in *acm.ImportCertificateInput) []wire.Check {
			into := aws.ToString(in.CertificateArn)
			if into == "" {
				into = c.ARN("certificate/*")
			}
			return making("ImportCertificate", into, in.Tags)
		}, wire.Members{Performed: "Certificate CertificateArn CertificateChain PrivateKey Tags"}),
		wire.Handle("DescribeCertificate", a.DescribeCertificate, func(_ *wire.Call, in *acm.DescribeCertificateInput) []wire.Check {
			return one("DescribeCertificate", in.CertificateArn)
		}, wire.Members{Performed: "CertificateArn"}),
		wire.Handle("GetCertificate", a.GetCertificate, func(_ *wire.Call, in *acm.GetCertificateInput) []wire.Check {
			return one("GetCertificate", in.CertificateArn)
		}, wire.Members{Performed: "CertificateArn"}),
		wire.Handle("ListCertificates", a.ListCertificates, func(*wire.Call, *acm.ListCertificatesInput) []wire.Check {
			return []wire.Check{{Action: "acm:ListCertificates", Resource: "*"}}
		}, wire.Members{Performed: "CertificateStatuses Includes MaxItems NextToken SortBy SortOrder", Refused: "CertificateKeyPairOrigins"}),
		wire.Handle("DeleteCertificate", a.DeleteCertificate, func(_ *wire.Call, in *acm.DeleteCertificateInput) []wire.Check {
			return one("DeleteCertificate", in.CertificateArn)
		}, wire.Members{Performed: "CertificateArn"}),
		wire.Handle("AddTagsToCertificate", a.AddTagsToCertificate, func(_ *wire.Call, in *acm.AddTagsToCertificateInput) []wire.Check {
			return one("AddTagsToCertificate", in.CertificateArn)
		}, wire.Members{Performed: "CertificateArn Tags"}),
		wire.Handle("RemoveTagsFromCertificate", a.RemoveTagsFromCertificate, func(_ *wire.Call, in *acm.RemoveTagsFromCertificateInput) []wire.Check {
			return one("RemoveTagsFromCertificate", in.CertificateArn)
		}, wire.Members{Performed: "CertificateArn Tags"}),
		wire.Handle("ListTagsForCertificate", a.ListTagsForCertificate, func(_ *wire.Call, in *acm.ListTagsForCertificateInput) []wire.Check {
			return one("ListTagsForCertificate", in.CertificateArn)
		}, wire.Members{Performed: "CertificateArn"}),
	)
	return s
}

// one is the check of an operation on a certificate.
func one(action string, certificateARN *string) []wire.Check {
	return []wire.Check{{Action: "acm:" + action, Resource: aws.ToString(certificateARN)}}
}

// making is the checks of an operation that makes a certificate, perhaps with tags.
func making(action, resource string, labels []types.Tag) []wire.Check {
	wild := strings.HasSuffix(resource, "*")
	return append([]wire.Check{{Action: "acm:" + action, Resource: resource, Wild: wild}}, wire.WhenTagged(labels, wire.Check{Action: "acm:AddTagsToCertificate", Resource: resource, Wild: wild})...)
}

func invalid(format string, args ...any) error {
	return &types.ValidationException{Message: new(fmt.Sprintf(format, args...))}
}

// keyOf is the key of a row that is named by its ARN.
func keyOf(certificateARN string) string {
	a, err := arn.Parse(certificateARN)
	if err != nil {
		return "|" + certificateARN
	}
	return a.Scope().Key(certificateARN)
}

// pendingFor is how long nobody has looked at a request yet. AWS takes minutes;
// its waiter looks each minute.
const pendingFor = time.Second

// status is a certificate's state at a time: what is requested is issued after a
// moment.
func (c certificate) status(now time.Time) types.CertificateStatus {
	if now.Before(c.At) {
		return types.CertificateStatusPendingValidation
	}
	if leaf, err := c.Pair.leaf(); err == nil && time.Now().After(leaf.NotAfter) {
		return types.CertificateStatusExpired
	}
	return types.CertificateStatusIssued
}

// Certificate is a certificate with its key, if there is one and it was issued.
func (a *API) Certificate(tx *store.Tx, certificateARN string) (tls.Certificate, bool) {
	c, ok := a.certificates.Get(tx, keyOf(certificateARN))
	if !ok || c.status(a.clock.Now()) == types.CertificateStatusPendingValidation {
		return tls.Certificate{}, false
	}
	t, err := tls.X509KeyPair([]byte(c.Pair.Certificate+c.Chain), []byte(c.Pair.Key))
	return t, err == nil
}

// Table is the table of the certificates.
func (a *API) Table() store.AnyTable { return a.certificates }

// Tags is a certificate's tags by its ARN, for conditions on aws:ResourceTag.
func (a *API) Tags(certificateARN string) (m map[string]string) {
	a.store.View(func(tx *store.Tx) { m = a.tags.Map(tx, certificateARN) })
	return m
}

var (
	domainPattern = regexp.MustCompile(`^(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	tokenPattern  = regexp.MustCompile(`^\w{1,32}$`)
	arnPattern    = regexp.MustCompile(`^arn:[\w+=/,.@-]+:acm:[\w+=/,.@-]*:[0-9]+:[\w+=,.@-]+(/[\w+=,.@-]+)*$`)
)

// mostNames is how many names a certificate can have, documented as what the quota of
// ten can be raised to.
const mostNames = 100

// RequestCertificate makes a certificate that is issued after a moment.
func (a *API) RequestCertificate(ctx context.Context, in *acm.RequestCertificateInput) (*acm.RequestCertificateOutput, error) {
	call := wire.From(ctx)
	c, err := a.requested(call, in)
	if err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	signer, err := a.authority()
	if err != nil {
		return nil, err
	}
	if c.Pair, err = signer.issue(c.Names, c.Algorithm); err != nil {
		return nil, err
	}
	c.Chain = signer.pem
	err = a.store.Update(func(tx *store.Tx) error {
		for _, other := range a.certificates.Scan(tx, call.Scope.Key("")) {
			if c.Token != "" && other.Token == c.Token && slices.Equal(other.Names, c.Names) && c.Created.Sub(other.Created) < time.Hour {
				c = other // the same again is the same, documented
				return nil
			}
		}
		a.certificates.Put(tx, keyOf(c.ARN), c)
		a.tags.Set(tx, c.ARN, labels)
		return nil
	})
	return &acm.RequestCertificateOutput{CertificateArn: &c.ARN}, err
}

// requested reads a request.
func (a *API) requested(call *wire.Call, in *acm.RequestCertificateInput) (certificate, error) {
	now := a.clock.Now()
	c := certificate{
		ARN: call.ARN("certificate/" + id.UUID()), Domain: aws.ToString(in.DomainName), Algorithm: string(types.KeyAlgorithmRsa2048), Method: string(types.ValidationMethodEmail),
		Domains: map[string]string{}, Token: aws.ToString(in.IdempotencyToken), Created: now, At: now.Add(pendingFor),
	}
	for _, name := range append([]string{c.Domain}, in.SubjectAlternativeNames...) {
		if len(name) > 253 || !domainPattern.MatchString(name) {
			return c, invalid("1 validation error detected: Value '%s' at 'domainName' failed to satisfy constraint: Member must satisfy regular expression pattern: %s", name, domainPattern)
		}
		if name = strings.ToLower(name); !slices.Contains(c.Names, name) {
			c.Names = append(c.Names, name)
		}
	}
	if len(c.Names) > mostNames {
		return c, &types.LimitExceededException{Message: new(fmt.Sprintf("A certificate can have at most %d names", mostNames))}
	}
	if c.Domain = c.Names[0]; c.Token != "" && !tokenPattern.MatchString(c.Token) {
		return c, invalid("1 validation error detected: Value '%s' at 'idempotencyToken' failed to satisfy constraint: Member must satisfy regular expression pattern: \\w+", c.Token)
	}
	switch in.ValidationMethod {
	case "":
	case types.ValidationMethodEmail, types.ValidationMethodDns:
		c.Method = string(in.ValidationMethod)
	default:
		return c, invalid("Serin performs the validation methods DNS and EMAIL; '%s' is not performed yet", in.ValidationMethod)
	}
	switch in.KeyAlgorithm {
	case "":
	case types.KeyAlgorithmRsa2048, types.KeyAlgorithmEcPrime256v1, types.KeyAlgorithmEcSecp384r1: // documented for requests
		c.Algorithm = string(in.KeyAlgorithm)
	default:
		return c, invalid("The key algorithm '%s' is not supported for certificates that are requested", in.KeyAlgorithm)
	}
	for _, o := range in.DomainValidationOptions {
		name, domain := strings.ToLower(aws.ToString(o.DomainName)), strings.ToLower(aws.ToString(o.ValidationDomain))
		if !slices.Contains(c.Names, name) || base(name) != domain && !strings.HasSuffix(name, "."+domain) {
			return c, &types.InvalidDomainValidationOptionsException{Message: new("The validation domain '" + domain + "' must be the domain '" + name + "' or a superdomain of it")}
		}
		c.Domains[name] = domain
	}
	return c, nil
}

// base is a domain without its star.
func base(name string) string { return strings.TrimPrefix(name, "*.") }

// certificate is the one that a call asks for. The text is observed.
func (a *API) certificate(tx *store.Tx, call *wire.Call, certificateARN *string) (certificate, error) {
	name := aws.ToString(certificateARN)
	if !arnPattern.MatchString(name) {
		return certificate{}, &types.InvalidArnException{Message: new("Invalid arn: " + name)}
	}
	parsed, err := arn.Parse(name)
	c, ok := a.certificates.Get(tx, keyOf(name))
	if err != nil || !ok || parsed.Scope() != call.Scope {
		return c, &types.ResourceNotFoundException{Message: new("Could not find certificate " + name + ".")}
	}
	return c, nil
}

// DeleteCertificate removes a certificate that nothing uses. The text is observed.
func (a *API) DeleteCertificate(ctx context.Context, in *acm.DeleteCertificateInput) (*acm.DeleteCertificateOutput, error) {
	call := wire.From(ctx)
	return &acm.DeleteCertificateOutput{}, a.store.Update(func(tx *store.Tx) error {
		c, err := a.certificate(tx, call, in.CertificateArn)
		if err != nil {
			return err
		}
		if len(a.InUse(tx, c.ARN)) > 0 {
			return &types.ResourceInUseException{Message: new(fmt.Sprintf("Certificate %s in account %s is in use.", c.ARN, call.Scope.Account))}
		}
		a.certificates.Delete(tx, keyOf(c.ARN))
		a.tags.Set(tx, c.ARN, nil)
		return nil
	})
}

// tagsIn reads the tags of a request and refuses what no tag may be.
func tagsIn(in []types.Tag) ([]tags.Tag, error) {
	list := tags.In(in)
	return list, tagError(tags.Check(list, tags.Exact))
}

func tagError(err error) error {
	e, ok := errors.AsType[*tags.Error](err)
	switch {
	case !ok:
		return err
	case e.Problem == tags.TooMany:
		return &types.TooManyTagsException{Message: &e.Message}
	}
	return &types.InvalidTagException{Message: &e.Message}
}

// AddTagsToCertificate adds tags, or gives those that are there another value.
func (a *API) AddTagsToCertificate(ctx context.Context, in *acm.AddTagsToCertificateInput) (*acm.AddTagsToCertificateOutput, error) {
	list, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	return &acm.AddTagsToCertificateOutput{}, a.store.Update(func(tx *store.Tx) error {
		c, err := a.certificate(tx, wire.From(ctx), in.CertificateArn)
		if err != nil {
			return err
		}
		return tagError(a.tags.Add(tx, c.ARN, list))
	})
}

// RemoveTagsFromCertificate removes tags by their keys, those that are given with a
// value only if it is theirs, documented.
func (a *API) RemoveTagsFromCertificate(ctx context.Context, in *acm.RemoveTagsFromCertificateInput) (*acm.RemoveTagsFromCertificateOutput, error) {
	return &acm.RemoveTagsFromCertificateOutput{}, a.store.Update(func(tx *store.Tx) error {
		c, err := a.certificate(tx, wire.From(ctx), in.CertificateArn)
		if err != nil {
			return err
		}
		var keys []string
		for _, has := range a.tags.Of(tx, c.ARN) {
			for _, t := range in.Tags {
				if aws.ToString(t.Key) == has.Key && (t.Value == nil || *t.Value == has.Value) {
					keys = append(keys, has.Key)
				}
			}
		}
		a.tags.Remove(tx, c.ARN, keys)
		return nil
	})
}

// ListTagsForCertificate lists a certificate's tags.
func (a *API) ListTagsForCertificate(ctx context.Context, in *acm.ListTagsForCertificateInput) (out *acm.ListTagsForCertificateOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		var c certificate
		if c, err = a.certificate(tx, wire.From(ctx), in.CertificateArn); err == nil {
			out = &acm.ListTagsForCertificateOutput{Tags: tags.Out[types.Tag](a.tags.Of(tx, c.ARN))}
		}
	})
	return out, err
}
