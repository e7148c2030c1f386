// Package oidc plays GitHub's token issuer for local runs and verifies the
// tokens of any issuer.
//
// Tokens say iss https://token.actions.githubusercontent.com, as GitHub's do.
// A token whose key id is ours is checked with our key; any other is checked
// against the real issuer's published keys over HTTPS, so that a rehearsal
// inside GitHub Actions verifies GitHub's own token. Expiry is wall time.
package oidc

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

// GitHub is the issuer that is played.
const GitHub = "https://token.actions.githubusercontent.com"

// Lifetime of a token after its issue; GitHub documents five minutes, and a
// not-before ten minutes earlier.
const Lifetime = 5 * time.Minute

// Leeway is how long after its expiry AWS still takes a token; observed.
const Leeway = 5 * time.Minute

// Key is a signing key of the played issuer with its certificate.
type Key struct {
	ID      string
	private *rsa.PrivateKey
	cert    *x509.Certificate
}

// NewKey makes an RSA key of 2048 bits, as GitHub's are, and its certificate.
func NewKey() (*Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making the issuer's key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "serin plays token.actions.githubusercontent.com"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(2, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, fmt.Errorf("making the issuer's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making the issuer's certificate: %w", err)
	}
	return keyOf(private, cert), nil
}

func keyOf(private *rsa.PrivateKey, cert *x509.Certificate) *Key {
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&private.PublicKey))
	return &Key{ID: "serin-" + encode(sum[:9]), private: private, cert: cert}
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// thumbprint is the certificate's SHA-1, the x5t of header and key set.
func (k *Key) thumbprint() []byte {
	sum := sha1.Sum(k.cert.Raw)
	return sum[:]
}

// Keys are the issuer's keys, the newest first: it signs, the others are still
// published, so that tokens they signed are taken until they expire.
type Keys []*Key

// mostKeys is how many keys are published; GitHub publishes several, too.
const mostKeys = 3

// Rotate puts a new key in front.
func (k Keys) Rotate() (Keys, error) {
	fresh, err := NewKey()
	if err != nil {
		return k, err
	}
	return append(Keys{fresh}, k[:min(len(k), mostKeys-1)]...), nil
}

// Find is the key with the id.
func (k Keys) Find(id string) (*Key, bool) {
	i := slices.IndexFunc(k, func(key *Key) bool { return key.ID == id })
	if i < 0 {
		return nil, false
	}
	return k[i], true
}

// Marshal is the keys in PEM, each with its certificate; ParseKeys reads them back.
func (k Keys) Marshal() string {
	var b []byte
	for _, key := range k {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key.private)})...)
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: key.cert.Raw})...)
	}
	return string(b)
}

// ParseKeys reads what Marshal wrote.
func ParseKeys(text string) (Keys, error) {
	var out Keys
	for rest := []byte(text); len(rest) > 0; {
		first, more := pem.Decode(rest)
		second, after := pem.Decode(more)
		if first == nil || second == nil {
			return nil, errors.New("the issuer's keys are not pairs of key and certificate in PEM")
		}
		private, err := x509.ParsePKCS1PrivateKey(first.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading the issuer's key: %w", err)
		}
		cert, err := x509.ParseCertificate(second.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading the issuer's certificate: %w", err)
		}
		out, rest = append(out, keyOf(private, cert)), after
	}
	return out, nil
}

// JWKS is the keys' public halves as a key set document.
func (k Keys) JWKS() any {
	var set jose.JSONWebKeySet
	for _, key := range k {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &key.private.PublicKey, KeyID: key.ID, Algorithm: "RS256", Use: "sig",
			Certificates: []*x509.Certificate{key.cert}, CertificateThumbprintSHA1: key.thumbprint()})
	}
	return set
}

// Discovery is the document at /.well-known/openid-configuration, served under base.
func Discovery(base string) any {
	return map[string]any{
		"issuer":                                GitHub,
		"jwks_uri":                              base + "/.well-known/jwks",
		"subject_types_supported":               []string{"public", "pairwise"},
		"response_types_supported":              []string{"id_token"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid"},
		"claims_supported": []string{"sub", "aud", "exp", "iat", "iss", "jti", "nbf", "ref", "sha", "repository", "repository_id",
			"repository_owner", "repository_owner_id", "run_id", "run_number", "run_attempt", "actor", "actor_id", "workflow", "workflow_ref",
			"workflow_sha", "head_ref", "base_ref", "event_name", "ref_protected", "ref_type", "job_workflow_ref", "job_workflow_sha",
			"environment", "runner_environment", "repository_visibility", "check_run_id", "enterprise", "enterprise_id"},
	}
}

// Token is a token taken apart. Nothing in it is to be believed before Verify.
type Token struct {
	Issuer   string
	Audience []string
	Claims   map[string]any
	KeyID    string
	raw      string
}

// ErrNotJWT says that a text is no token at all.
var ErrNotJWT = errors.New("not a JSON web token")

var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// Parse takes a token apart without believing it.
func Parse(raw string) (*Token, error) {
	sig, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil || len(sig.Signatures) != 1 {
		return nil, ErrNotJWT
	}
	t := &Token{raw: raw, KeyID: sig.Signatures[0].Header.KeyID}
	if json.Unmarshal(sig.UnsafePayloadWithoutVerification(), &t.Claims) != nil {
		return nil, ErrNotJWT
	}
	t.Issuer = t.String("iss")
	switch aud := t.Claims["aud"].(type) {
	case string:
		t.Audience = []string{aud}
	case []any:
		for _, a := range aud {
			if s, ok := a.(string); ok {
				t.Audience = append(t.Audience, s)
			}
		}
	}
	return t, nil
}

// String is a claim's text, empty when it is absent or no string.
func (t *Token) String(claim string) string { s, _ := t.Claims[claim].(string); return s }

// Time is a claim in epoch seconds.
func (t *Token) Time(claim string) (time.Time, bool) {
	f, ok := t.Claims[claim].(float64)
	return time.Unix(int64(f), 0), ok
}

// ErrSignature says that the issuer's key does not vouch for the token.
var ErrSignature = errors.New("the token's signature is invalid")

// KeysError says that the issuer's keys could not be had.
type KeysError struct {
	Issuer string
	Err    error
}

func (e *KeysError) Error() string { return "fetching the keys of " + e.Issuer + ": " + e.Err.Error() }
func (e *KeysError) Unwrap() error { return e.Err }

// Verifier checks signatures against our own key or the issuers' published ones.
type Verifier struct {
	Own    func() Keys  // the played issuer's keys; none while none was made
	Client *http.Client // for the issuers' keys; nil: the default with a time limit

	mu     sync.Mutex
	remote map[string]known
	flight singleflight.Group
}

// known is what was found out about an issuer. A failure is remembered for a
// while: a token that cannot be checked must not be slow each time.
type known struct {
	keys gooidc.KeySet
	err  error
	at   time.Time
}

const retryIssuer = 30 * time.Second

// VerifySignature checks that the token was signed by its issuer.
func (v *Verifier) VerifySignature(ctx context.Context, t *Token) error {
	var own *Key
	if v.Own != nil && t.Issuer == GitHub {
		own, _ = v.Own().Find(t.KeyID)
	}
	if own != nil {
		sig, err := jose.ParseSignedCompact(t.raw, algorithms)
		if err != nil {
			return ErrNotJWT
		}
		if _, err := sig.Verify(&own.private.PublicKey); err != nil {
			return ErrSignature
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	keys, err := v.keys(ctx, t.Issuer)
	if err != nil {
		return &KeysError{t.Issuer, err}
	}
	if _, err := keys.VerifySignature(ctx, t.raw); err != nil {
		if strings.Contains(err.Error(), "fetching keys") {
			return &KeysError{t.Issuer, err}
		}
		return ErrSignature
	}
	return nil
}

// keys finds the issuer's key set by discovery, once.
func (v *Verifier) keys(ctx context.Context, issuer string) (gooidc.KeySet, error) {
	v.mu.Lock()
	k, ok := v.remote[issuer]
	v.mu.Unlock()
	if ok && (k.err == nil || time.Since(k.at) < retryIssuer) {
		return k.keys, k.err
	}
	found, err, _ := v.flight.Do(issuer, func() (any, error) {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // others wait for it, too
		defer cancel()
		keys, err := v.discover(own, issuer)
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.remote == nil {
			v.remote = map[string]known{}
		}
		v.remote[issuer] = known{keys, err, time.Now()}
		return keys, err
	})
	if err != nil {
		return nil, err
	}
	return found.(gooidc.KeySet), nil
}

func (v *Verifier) discover(ctx context.Context, issuer string) (gooidc.KeySet, error) {
	client := v.Client
	if client == nil {
		client = &http.Client{Timeout: 3 * time.Second}
	}
	provider, err := gooidc.NewProvider(gooidc.ClientContext(ctx, client), issuer)
	if err != nil {
		return nil, err
	}
	var doc struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := provider.Claims(&doc); err != nil {
		return nil, err
	}
	// The key set outlives this request, so it must not hold its context.
	return gooidc.NewRemoteKeySet(gooidc.ClientContext(context.Background(), client), doc.JWKS), nil
}
