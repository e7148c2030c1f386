package oidc

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func jobOf(t *testing.T, settings ...string) Job {
	t.Helper()
	m := map[string]string{"repo": "acme/web"}
	for i := 0; i < len(settings); i += 2 {
		m[settings[i]] = settings[i+1]
	}
	j, err := NewJob(m)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func keys(t *testing.T) Keys {
	t.Helper()
	k, err := Keys(nil).Rotate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Facts sheet section 1.3, row by row.
func TestTheSubjectFollowsGitHubsPrecedence(t *testing.T) {
	for want, settings := range map[string][]string{
		"repo:acme/web:ref:refs/heads/main":                   {},
		"repo:acme/web:ref:refs/tags/v1.2.3":                  {"ref", "refs/tags/v1.2.3"},
		"repo:acme/web:pull_request":                          {"ref", "refs/pull/1/merge", "event", "pull_request"},
		"repo:acme/web:environment:prod%3Aeu":                 {"event", "pull_request", "environment", "prod:eu"},
		"repo:acme@123/web@456:ref:refs/heads/main":           {"immutable", "true", "owner_id", "123", "repository_id", "456"},
		"repo:acme@123/web@456:environment:prod":              {"immutable", "true", "owner_id", "123", "repository_id", "456", "environment", "prod"},
		"repository_owner:acme:repository_visibility:private": {"subject_keys", "repository_owner+repository_visibility"},
		"repo:acme/web:environment:prod:job_workflow_ref:acme/ci/.github/workflows/oidc.yml@refs/heads/main": {
			"subject_keys", "repo+context+job_workflow_ref", "environment", "prod", "job_workflow_ref", "acme/ci/.github/workflows/oidc.yml@refs/heads/main"},
	} {
		if got := jobOf(t, settings...).Subject(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Facts sheet section 1.2: the claims of a token, all of them strings but the times.
func TestATokenHasGitHubsClaims(t *testing.T) {
	now := time.Now()
	raw, err := keys(t)[0].Mint(jobOf(t, "environment", "prod", "repo_property_team", "web"), "", now)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, claim := range []string{"iss", "aud", "sub", "jti", "actor", "actor_id", "check_run_id", "environment", "event_name", "job_workflow_ref", "job_workflow_sha",
		"ref", "ref_protected", "ref_type", "repository", "repository_id", "repository_owner", "repository_owner_id", "repository_visibility", "run_id", "run_number",
		"run_attempt", "runner_environment", "sha", "workflow", "workflow_ref", "workflow_sha", "repo_property_team"} {
		if tok.String(claim) == "" {
			t.Errorf("the token has no %s", claim)
		}
	}
	for _, claim := range []string{"base_ref", "head_ref"} {
		if v, ok := tok.Claims[claim]; !ok || v != "" {
			t.Errorf("%s is %v", claim, v)
		}
	}
	if tok.Audience[0] != "https://github.com/acme" {
		t.Errorf("the audience is %s", tok.Audience)
	}
	issued, _ := tok.Time("iat")
	expires, _ := tok.Time("exp")
	begins, _ := tok.Time("nbf")
	if expires.Sub(issued) != 5*time.Minute || issued.Sub(begins) != 10*time.Minute {
		t.Errorf("it lives from %s to %s, issued %s", begins, expires, issued)
	}
	without, _ := keys(t)[0].Mint(jobOf(t), "x", now)
	if tok, _ = Parse(without); tok.Claims["environment"] != nil {
		t.Error("a job without an environment has one in its token")
	}
}

func TestAJobThatCannotBeIsNamed(t *testing.T) {
	for want, settings := range map[string]map[string]string{
		`repo must be OWNER/NAME, got "web"`:    {"repo": "web"},
		`repo must be OWNER/NAME, got ""`:       {},
		"ref must be a full reference":          {"repo": "a/b", "ref": "main"},
		`a job has no "colour"`:                 {"repo": "a/b", "colour": "red"},
		"immutable must be true or false":       {"repo": "a/b", "immutable": "maybe"},
		`subject_keys has "environment", which`: {"repo": "a/b", "subject_keys": "repo+environment"},
		`a job has no "repo_property_"; it has`: {"repo": "a/b", "repo_property_": "x"},
	} {
		if _, err := NewJob(settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v gave %v", settings, err)
		}
	}
}

func TestOldKeysAreTakenUntilTheyAreRotatedOut(t *testing.T) {
	k := keys(t)
	raw, _ := k[0].Mint(jobOf(t), "a", time.Now())
	tok, _ := Parse(raw)
	v := &Verifier{Own: func() Keys { return k }, Client: &http.Client{Transport: offline{}}}
	for n := range mostKeys {
		if err := v.VerifySignature(t.Context(), tok); err != nil {
			t.Errorf("after %d rotations: %v", n, err)
		}
		var err error
		if k, err = k.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := errors.AsType[*KeysError](v.VerifySignature(t.Context(), tok)); !ok || len(k) != mostKeys {
		t.Errorf("a key that is published no more was taken; %d are published", len(k))
	}
}

type offline struct{}

func (offline) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("offline") }

func TestATokenIsVerifiedByItsOwnKeyOnly(t *testing.T) {
	ours, theirs := keys(t), keys(t)
	job := jobOf(t)
	raw, err := ours[0].Mint(job, "sts.amazonaws.com", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Issuer != GitHub || tok.Audience[0] != "sts.amazonaws.com" || tok.String("sub") != job.Subject() {
		t.Errorf("read %+v", tok.Claims)
	}
	if err := (&Verifier{Own: func() Keys { return ours }}).VerifySignature(t.Context(), tok); err != nil {
		t.Error(err)
	}
	again, err := ParseKeys(append(ours, theirs...).Marshal())
	if err != nil || len(again) != 2 || again[0].ID != ours[0].ID || again[1].ID != theirs[0].ID {
		t.Errorf("the keys did not survive: %v", err)
	}
	// A forger who names our key id.
	theirs[0].ID = ours[0].ID
	forged, _ := theirs[0].Mint(job, "sts.amazonaws.com", time.Now())
	tok, _ = Parse(forged)
	if err := (&Verifier{Own: func() Keys { return ours }}).VerifySignature(t.Context(), tok); !errors.Is(err, ErrSignature) {
		t.Errorf("a forged token gave %v", err)
	}
}

func TestATokenOfAnotherKeyIsCheckedAtItsIssuer(t *testing.T) {
	k := keys(t)
	job := jobOf(t)
	var issuer *httptest.Server
	issuer = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "jwks") {
			json.NewEncoder(w).Encode(k.JWKS())
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"issuer": issuer.URL, "jwks_uri": issuer.URL + "/jwks",
			"authorization_endpoint": issuer.URL, "token_endpoint": issuer.URL})
	}))
	defer issuer.Close()
	raw, _ := k[0].Mint(job, "a", time.Now())
	tok, _ := Parse(raw)
	tok.Issuer = issuer.URL
	own := keys(t)
	v := &Verifier{Own: func() Keys { return own }, Client: issuer.Client()}
	if err := v.VerifySignature(t.Context(), tok); err != nil {
		t.Error(err)
	}
	other, _ := keys(t)[0].Mint(job, "a", time.Now())
	tok, _ = Parse(other)
	tok.Issuer = issuer.URL
	if err := v.VerifySignature(t.Context(), tok); !errors.Is(err, ErrSignature) {
		t.Errorf("an unknown key gave %v", err)
	}
	issuer.Close()
	if _, ok := errors.AsType[*KeysError](func() error {
		tok.Issuer = issuer.URL + "/gone"
		return v.VerifySignature(t.Context(), tok)
	}()); !ok {
		t.Error("an unreachable issuer gave no KeysError")
	}
}

// The classics: a token without a signature, and one signed with the public key
// as if it was a shared secret.
func TestWhatIsNoTokenIsSaidToBeNone(t *testing.T) {
	k := keys(t)[0]
	public, err := x509.MarshalPKIXPublicKey(&k.private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: public}, (&jose.SignerOptions{}).WithHeader("kid", k.ID))
	if err != nil {
		t.Fatal(err)
	}
	signed, _ := signer.Sign([]byte(`{"iss":"` + GitHub + `","aud":"a","sub":"repo:acme/web:ref:refs/heads/main"}`))
	confused, _ := signed.CompactSerialize()
	for _, raw := range []string{"", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", confused, strings.Repeat("a.", 10_000)} {
		if _, err := Parse(raw); !errors.Is(err, ErrNotJWT) {
			t.Errorf("%.40q gave %v", raw, err)
		}
	}
}
