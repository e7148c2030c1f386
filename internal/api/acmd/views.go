package acmd

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"

	"serin/internal/store"
	"serin/internal/wire"
)

// DescribeCertificate describes a certificate.
func (a *API) DescribeCertificate(ctx context.Context, in *acm.DescribeCertificateInput) (out *acm.DescribeCertificateOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		var c certificate
		if c, err = a.certificate(tx, wire.From(ctx), in.CertificateArn); err == nil {
			out = &acm.DescribeCertificateOutput{}
			out.Certificate, err = c.view(a.clock.Now(), a.InUse(tx, c.ARN))
		}
	})
	return out, err
}

// view is a certificate as it is described. Of one that is pending is told only what
// was asked for, observed.
func (c certificate) view(now time.Time, users []string) (*types.CertificateDetail, error) {
	if users == nil {
		users = []string{}
	}
	status := c.status(now)
	v := &types.CertificateDetail{
		CertificateArn: &c.ARN, DomainName: &c.Domain, SubjectAlternativeNames: c.Names, Status: status, Type: types.CertificateTypeAmazonIssued, KeyAlgorithm: types.KeyAlgorithm(c.Algorithm),
		Subject: new("CN=" + c.Domain), InUseBy: users, CreatedAt: &c.Created, RenewalEligibility: types.RenewalEligibilityIneligible, DomainValidationOptions: c.validations(status),
		Options: &types.CertificateOptions{Export: types.CertificateExportDisabled},
	}
	if c.Imported {
		v.Type, v.ImportedAt, v.DomainValidationOptions = types.CertificateTypeImported, &c.At, nil
	}
	if status == types.CertificateStatusPendingValidation {
		return v, nil
	}
	leaf, err := c.Pair.leaf()
	if err != nil {
		return nil, err
	}
	if !c.Imported {
		v.IssuedAt = &c.At
	}
	v.Issuer, v.Serial, v.NotBefore, v.NotAfter, v.SignatureAlgorithm = &leaf.Issuer.CommonName, new(serial(leaf.SerialNumber.Bytes())), &leaf.NotBefore, &leaf.NotAfter, new(signatureOf(leaf.SignatureAlgorithm))
	v.KeyUsages = []types.KeyUsage{{Name: types.KeyUsageNameDigitalSignature}, {Name: types.KeyUsageNameKeyEncipherment}}
	v.ExtendedKeyUsages = []types.ExtendedKeyUsage{{Name: types.ExtendedKeyUsageNameTlsWebServerAuthentication, OID: new("1.3.6.1.5.5.7.3.1")}}
	return v, nil
}

// signatureOf is a signature's algorithm as ACM writes it: SHA256WITHRSA.
func signatureOf(a x509.SignatureAlgorithm) string {
	hash, kind, _ := strings.Cut(a.String(), "-")
	if hash == "ECDSA" {
		hash, kind = kind, hash
	}
	return hash + "WITH" + kind
}

// serial is a serial number as ACM writes it: aa:bb:….
func serial(number []byte) string {
	parts := make([]string, len(number))
	for i := range number {
		parts[i] = hex.EncodeToString(number[i : i+1])
	}
	return strings.Join(parts, ":")
}

// validations is what would have to be done for each name. Nobody looks for it.
func (c certificate) validations(status types.CertificateStatus) (list []types.DomainValidation) {
	state := types.DomainStatusSuccess
	if status == types.CertificateStatusPendingValidation {
		state = types.DomainStatusPendingValidation
	}
	for _, name := range c.Names {
		v := types.DomainValidation{DomainName: new(name), ValidationMethod: types.ValidationMethod(c.Method), ValidationStatus: state, ValidationDomain: new(name)}
		if domain := c.Domains[name]; domain != "" {
			v.ValidationDomain = new(domain)
		}
		if c.Method == string(types.ValidationMethodDns) {
			token := sha256.Sum256([]byte(c.ARN[:strings.LastIndexByte(c.ARN, '/')] + base(name)))
			code := hex.EncodeToString(token[:])
			v.ResourceRecord = &types.ResourceRecord{Type: types.RecordTypeCname, Name: new("_" + code[:32] + "." + base(name) + "."), Value: new("_" + code[32:] + ".acm-validations.aws.")}
		} else {
			for _, who := range []string{"admin", "administrator", "hostmaster", "postmaster", "webmaster"} {
				v.ValidationEmails = append(v.ValidationEmails, who+"@"+base(*v.ValidationDomain))
			}
		}
		list = append(list, v)
	}
	return list
}

// GetCertificate tells a certificate and its chain. The text is guessed.
func (a *API) GetCertificate(ctx context.Context, in *acm.GetCertificateInput) (out *acm.GetCertificateOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		var c certificate
		if c, err = a.certificate(tx, wire.From(ctx), in.CertificateArn); err != nil {
			return
		}
		if c.status(a.clock.Now()) == types.CertificateStatusPendingValidation {
			err = &types.RequestInProgressException{Message: new("The certificate " + c.ARN + " has not been issued yet.")}
			return
		}
		out = &acm.GetCertificateOutput{Certificate: &c.Pair.Certificate}
		if c.Chain != "" {
			out.CertificateChain = &c.Chain
		}
	})
	return out, err
}

// listedKeys are the key types of a list that names none, documented.
var listedKeys = []types.KeyAlgorithm{types.KeyAlgorithmRsa1024, types.KeyAlgorithmRsa2048}

// ListCertificates lists certificates, the oldest first unless asked otherwise.
func (a *API) ListCertificates(ctx context.Context, in *acm.ListCertificatesInput) (*acm.ListCertificatesOutput, error) {
	if in.MaxItems != nil && (*in.MaxItems < 1 || *in.MaxItems > 1000) {
		return nil, invalid("1 validation error detected: Value '%d' at 'maxItems' failed to satisfy constraint: Member must have value between 1 and 1000", *in.MaxItems)
	}
	if (in.SortBy == "") != (in.SortOrder == "") {
		return nil, &types.InvalidArgsException{Message: new("SortBy and SortOrder must be specified together")}
	}
	keys := listedKeys
	if in.Includes != nil && len(in.Includes.KeyTypes) > 0 {
		keys = in.Includes.KeyTypes
	}
	now, limit := a.clock.Now(), 100
	if in.MaxItems != nil {
		limit = int(*in.MaxItems)
	}
	var rows []types.CertificateSummary
	a.store.View(func(tx *store.Tx) {
		for _, c := range a.certificates.Scan(tx, wire.From(ctx).Scope.Key("")) {
			if (len(in.CertificateStatuses) == 0 || slices.Contains(in.CertificateStatuses, c.status(now))) && slices.Contains(keys, types.KeyAlgorithm(c.Algorithm)) {
				rows = append(rows, c.summary(now, len(a.InUse(tx, c.ARN)) > 0))
			}
		}
	})
	rows, next, err := wire.Page(rows, func(s types.CertificateSummary) string {
		return placeOf(*s.CreatedAt, in.SortOrder == types.SortOrderDescending) + *s.CertificateArn
	}, aws.ToString(in.NextToken), limit)
	if err != nil {
		return nil, invalid("The NextToken is not valid")
	}
	out := &acm.ListCertificatesOutput{CertificateSummaryList: rows}
	if rows == nil {
		out.CertificateSummaryList = []types.CertificateSummary{}
	}
	if next != "" {
		out.NextToken = &next
	}
	return out, nil
}

// placeOf puts times into an order of letters.
func placeOf(at time.Time, newestFirst bool) string {
	place := []byte(at.UTC().Format("20060102150405.000000000"))
	if newestFirst {
		for i := range place {
			place[i] = '0' + '9' - place[i]
		}
	}
	return string(place)
}

func (c certificate) summary(now time.Time, used bool) types.CertificateSummary {
	v := types.CertificateSummary{
		CertificateArn: &c.ARN, DomainName: &c.Domain, SubjectAlternativeNameSummaries: c.Names, HasAdditionalSubjectAlternativeNames: new(false), Status: c.status(now),
		Type: types.CertificateTypeAmazonIssued, KeyAlgorithm: types.KeyAlgorithm(c.Algorithm), InUse: &used, CreatedAt: &c.Created, RenewalEligibility: types.RenewalEligibilityIneligible,
	}
	leaf, err := c.Pair.leaf()
	switch {
	case c.Imported:
		v.Type, v.ImportedAt = types.CertificateTypeImported, &c.At
	case v.Status != types.CertificateStatusPendingValidation:
		v.IssuedAt = &c.At
	}
	if err == nil && v.Status != types.CertificateStatusPendingValidation {
		v.NotBefore, v.NotAfter = &leaf.NotBefore, &leaf.NotAfter
	}
	return v
}
