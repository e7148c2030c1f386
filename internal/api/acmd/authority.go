package acmd

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/acm/types"

	"serin/internal/store"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         string
}

const (
	authorityName = "Serin's local authority"
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 395 * 24 * time.Hour // thirteen months, as documented for ACM's
)

// Authority is the certificate of the stage's authority, in PEM. It is made when it
// is first asked for.
func (a *API) Authority() (string, error) {
	signer, err := a.authority()
	return signer.pem, err
}

func (a *API) authority() (authority, error) {
	var row pair
	a.store.View(func(tx *store.Tx) { row, _ = a.authorities.Get(tx, "authority") })
	if row.Key == "" {
		made, err := newAuthority()
		if err != nil {
			return authority{}, fmt.Errorf("making the authority: %w", err)
		}
		err = a.store.Update(func(tx *store.Tx) error {
			if old, ok := a.authorities.Get(tx, "authority"); ok {
				made = old
				return nil
			}
			a.authorities.Put(tx, "authority", made)
			return nil
		})
		if err != nil {
			return authority{}, err
		}
		row = made
	}
	t, err := tls.X509KeyPair([]byte(row.Certificate), []byte(row.Key))
	if err != nil {
		return authority{}, fmt.Errorf("reading the authority: %w", err)
	}
	return authority{t.Leaf, t.PrivateKey.(crypto.Signer), row.Certificate}, nil
}

func newAuthority() (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	t, err := template(pkix.Name{CommonName: authorityName, Organization: []string{"Serin"}}, authorityLife)
	if err != nil {
		return pair{}, err
	}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	return sign(t, t, key, key)
}

// template is a certificate that is good from now on; a little before, because the
// clocks of clients differ.
func template(subject pkix.Name, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}, nil
}

// sign makes a certificate of a key and writes both.
func sign(t, parent *x509.Certificate, key, parentKey crypto.Signer) (pair, error) {
	raw, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), parentKey)
	if err != nil {
		return pair{}, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	return pair{inPEM("CERTIFICATE", raw), inPEM("PRIVATE KEY", secret)}, nil
}

func inPEM(kind string, raw []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
}

// issue makes a certificate of the names.
func (s authority) issue(names []string, algorithm string) (pair, error) {
	key, err := newKey(algorithm)
	if err != nil {
		return pair{}, fmt.Errorf("making a key: %w", err)
	}
	t, err := template(pkix.Name{CommonName: names[0]}, leafLife)
	if err != nil {
		return pair{}, err
	}
	t.DNSNames, t.KeyUsage, t.ExtKeyUsage = names, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return sign(t, s.certificate, key, s.key)
}

func newKey(algorithm string) (crypto.Signer, error) {
	switch types.KeyAlgorithm(algorithm) {
	case types.KeyAlgorithmEcPrime256v1:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case types.KeyAlgorithmEcSecp384r1:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 2048)
}

var errNoPEM = errors.New("there is no certificate in PEM")

// leaf is the certificate, read.
func (p pair) leaf() (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(p.Certificate))
	if block == nil {
		return nil, errNoPEM
	}
	return x509.ParseCertificate(block.Bytes)
}

// algorithmOf is a public key in ACM's words, empty for one that it does not take.
func algorithmOf(key any) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); bits {
		case 1024, 2048, 3072, 4096:
			return fmt.Sprintf("RSA_%d", bits)
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return string(types.KeyAlgorithmEcPrime256v1)
		case elliptic.P384():
			return string(types.KeyAlgorithmEcSecp384r1)
		case elliptic.P521():
			return string(types.KeyAlgorithmEcSecp521r1)
		}
	}
	return ""
}
