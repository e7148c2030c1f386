package acmd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"

	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

// ImportCertificate takes a certificate in, or puts it into the place of one that was
// imported before: what uses that uses it from then on.
func (a *API) ImportCertificate(ctx context.Context, in *acm.ImportCertificateInput) (*acm.ImportCertificateOutput, error) {
	call := wire.From(ctx)
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	c, err := imported(in)
	if err != nil {
		return nil, err
	}
	c.ARN, c.Created, c.At = call.ARN("certificate/"+id.UUID()), a.clock.Now(), a.clock.Now()
	err = a.store.Update(func(tx *store.Tx) error {
		if in.CertificateArn != nil {
			old, err := a.certificate(tx, call, in.CertificateArn)
			switch {
			case err != nil:
				return err
			case !old.Imported:
				return invalid("The certificate %s was not imported and cannot be replaced by an import", old.ARN)
			case len(labels) > 0: // observed
				return invalid("Tagging is not permitted on re-import.")
			}
			c.ARN, c.Created = old.ARN, old.Created
		}
		a.certificates.Put(tx, keyOf(c.ARN), c)
		if in.CertificateArn == nil {
			a.tags.Set(tx, c.ARN, labels)
		}
		return nil
	})
	return &acm.ImportCertificateOutput{CertificateArn: aws.String(c.ARN)}, err
}

// imported reads what is to be imported. The texts about the number of certificates
// and the chain are observed, the others guessed.
func imported(in *acm.ImportCertificateInput) (c certificate, err error) {
	own, err := certificatesIn(in.Certificate)
	if err != nil || len(own) == 0 {
		return c, invalid("The certificate field does not contain a valid certificate in PEM format.")
	}
	if len(own) > 1 {
		return c, invalid("The certificate field contains more than one certificate. You can specify only one certificate in this field.")
	}
	leaf := own[0]
	c = certificate{Imported: true, Domain: strings.ToLower(leaf.Subject.CommonName), Algorithm: algorithmOf(leaf.PublicKey),
		Pair: pair{string(bytes.TrimSpace(in.Certificate)) + "\n", string(in.PrivateKey)}}
	for _, name := range leaf.DNSNames {
		if name = strings.ToLower(name); !slices.Contains(c.Names, name) {
			c.Names = append(c.Names, name)
		}
	}
	if c.Domain == "" && len(c.Names) > 0 {
		c.Domain = c.Names[0]
	}
	switch _, err := tls.X509KeyPair(in.Certificate, in.PrivateKey); {
	case err != nil:
		return c, invalid("The private key does not match the certificate or is not an unencrypted key in PEM format.")
	case c.Algorithm == "":
		return c, invalid("The certificate's key algorithm is not supported.")
	case time.Now().After(leaf.NotAfter):
		return c, invalid("The certificate has expired.")
	case time.Now().Before(leaf.NotBefore):
		return c, invalid("The certificate is not valid yet.")
	}
	if len(in.CertificateChain) > 0 {
		chain, err := certificatesIn(in.CertificateChain)
		if err != nil || !chained(leaf, chain) {
			return c, invalid("Could not validate the certificate with the certificate chain.")
		}
		c.Chain = string(bytes.TrimSpace(in.CertificateChain)) + "\n"
	}
	return c, nil
}

// certificatesIn reads all certificates of a text in PEM.
func certificatesIn(text []byte) (list []*x509.Certificate, err error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return list, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list, text = append(list, c), rest
	}
}

// chained reports whether each certificate is signed by the next.
func chained(leaf *x509.Certificate, chain []*x509.Certificate) bool {
	for _, next := range chain {
		if leaf.CheckSignatureFrom(next) != nil {
			return false
		}
		leaf = next
	}
	return len(chain) > 0
}
