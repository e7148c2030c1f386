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
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"serin/internal/id"
)

// GitHub is the issuer that is played.
const GitHub = "https://token.actions.githubusercontent.com"

// Lifetime of a token after its issue; GitHub documents five minutes, and a
// not-before ten minutes earlier.
const Lifetime = 5 * time.Minute

// Leeway is how long after its expiry AWS still takes a token; observed.
const Leeway = 5 * time.Minute

// Key is a signing key of the played issuer.
type Key struct {
	ID      string
	private *rsa.PrivateKey
}

// NewKey makes an RSA key of 2048 bits, as GitHub's are.
func NewKey() (*Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making the issuer's key: %w", err)
	}
	return keyOf(private), nil
}

func keyOf(private *rsa.PrivateKey) *Key {
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&private.PublicKey))
	return &Key{ID: "serin-" + base64.RawURLEncoding.EncodeToString(sum[:9]), private: private}
}

// Marshal is the key in PEM; ParseKey reads it back.
func (k *Key) Marshal() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k.private)}))
}

// ParseKey reads what Marshal wrote.
func ParseKey(text string) (*Key, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the issuer's key is not PEM")
	}
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the issuer's key: %w", err)
	}
	return keyOf(private), nil
}

// JWKS is the key's public half as a key set document.
func (k *Key) JWKS() any {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &k.private.PublicKey, KeyID: k.ID, Algorithm: "RS256", Use: "sig"}}}
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
			"environment", "runner_environment", "repository_visibility"},
	}
}

// Job is the workflow job a token speaks for.
type Job struct {
	Repository  string // OWNER/NAME
	Ref         string // refs/heads/main
	Environment string
	Event       string // push by default
	Actor       string
	SHA         string
	Workflow    string
}

// Validate names the field that a token cannot be made of.
func (j Job) Validate() error {
	owner, name, ok := strings.Cut(j.Repository, "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("repo must be OWNER/NAME, got %q", j.Repository)
	}
	if j.Ref != "" && !strings.HasPrefix(j.Ref, "refs/") {
		return fmt.Errorf("ref must be a full reference such as refs/heads/main, got %q", j.Ref)
	}
	return nil
}

// Subject is the sub claim: environment before pull request before ref,
// documented. A colon inside a value becomes %3A.
func (j Job) Subject() string {
	prefix := "repo:" + j.Repository
	switch {
	case j.Environment != "":
		return prefix + ":environment:" + strings.ReplaceAll(j.Environment, ":", "%3A")
	case j.Event == "pull_request":
		return prefix + ":pull_request"
	}
	return prefix + ":ref:" + j.Ref
}

// Mint signs a token for the job. An empty audience is GitHub's default, the
// owner's page.
func (k *Key) Mint(j Job, audience string, now time.Time) (string, error) {
	if err := j.Validate(); err != nil {
		return "", err
	}
	owner, _, _ := strings.Cut(j.Repository, "/")
	if audience == "" {
		audience = "https://github.com/" + owner
	}
	if j.Ref == "" {
		j.Ref = "refs/heads/main"
	}
	if j.Event == "" {
		j.Event = "push"
	}
	refType := "branch"
	if strings.HasPrefix(j.Ref, "refs/tags/") {
		refType = "tag"
	}
	workflow := j.Repository + "/.github/workflows/" + orElse(j.Workflow, "deploy.yml") + "@" + j.Ref
	sha := orElse(j.SHA, strings.Repeat("0", 40))
	claims := map[string]any{
		"iss": GitHub, "aud": audience, "sub": j.Subject(), "jti": id.UUID(),
		"iat": now.Unix(), "nbf": now.Add(-10 * time.Minute).Unix(), "exp": now.Add(Lifetime).Unix(),
		"actor": orElse(j.Actor, owner), "actor_id": "1", "base_ref": "", "head_ref": "", "event_name": j.Event,
		"job_workflow_ref": workflow, "job_workflow_sha": sha, "ref": j.Ref, "ref_protected": "false", "ref_type": refType,
		"repository": j.Repository, "repository_id": "1", "repository_owner": owner, "repository_owner_id": "1",
		"repository_visibility": "private", "run_id": "1", "run_number": "1", "run_attempt": "1",
		"runner_environment": "self-hosted", "sha": sha, "workflow": orElse(j.Workflow, "deploy.yml"), "workflow_ref": workflow, "workflow_sha": sha,
	}
	if j.Environment != "" {
		claims["environment"] = j.Environment
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: k.private},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", k.ID))
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return signed.CompactSerialize()
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
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
	Own    func() *Key  // the played issuer's key; nil while none was made
	Client *http.Client // for the issuers' keys; nil: the default with a time limit

	mu     sync.Mutex
	remote map[string]gooidc.KeySet
}

// VerifySignature checks that the token was signed by its issuer.
func (v *Verifier) VerifySignature(ctx context.Context, t *Token) error {
	var own *Key
	if v.Own != nil {
		own = v.Own()
	}
	if t.Issuer == GitHub && own != nil && t.KeyID == own.ID {
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
	defer v.mu.Unlock()
	if k, ok := v.remote[issuer]; ok {
		return k, nil
	}
	client := v.Client
	if client == nil {
		client = &http.Client{Timeout: 5 * time.Second}
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
	if v.remote == nil {
		v.remote = map[string]gooidc.KeySet{}
	}
	// The key set outlives this request, so it must not hold its context.
	v.remote[issuer] = gooidc.NewRemoteKeySet(gooidc.ClientContext(context.Background(), client), doc.JWKS)
	return v.remote[issuer], nil
}
