package oidc

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var job = Job{Repository: "acme/web", Ref: "refs/heads/main"}

func key(t *testing.T) *Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTheSubjectFollowsGitHubsPrecedence(t *testing.T) {
	for want, j := range map[string]Job{
		"repo:acme/web:ref:refs/heads/main":   job,
		"repo:acme/web:pull_request":          {Repository: "acme/web", Ref: "refs/pull/1/merge", Event: "pull_request"},
		"repo:acme/web:environment:prod%3Aeu": {Repository: "acme/web", Event: "pull_request", Environment: "prod:eu"},
	} {
		if got := j.Subject(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestATokenIsVerifiedByItsOwnKeyOnly(t *testing.T) {
	ours, theirs := key(t), key(t)
	raw, err := ours.Mint(job, "sts.amazonaws.com", time.Now())
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
	if err := (&Verifier{Own: func() *Key { return ours }}).VerifySignature(t.Context(), tok); err != nil {
		t.Error(err)
	}
	again, err := ParseKey(ours.Marshal())
	if err != nil || again.ID != ours.ID {
		t.Errorf("the key did not survive: %v", err)
	}
	// A forger who names our key id.
	theirs.ID = ours.ID
	forged, _ := theirs.Mint(job, "sts.amazonaws.com", time.Now())
	tok, _ = Parse(forged)
	if err := (&Verifier{Own: func() *Key { return ours }}).VerifySignature(t.Context(), tok); !errors.Is(err, ErrSignature) {
		t.Errorf("a forged token gave %v", err)
	}
}

func TestATokenOfAnotherKeyIsCheckedAtItsIssuer(t *testing.T) {
	k := key(t)
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
	raw, _ := k.Mint(job, "a", time.Now())
	tok, _ := Parse(raw)
	tok.Issuer = issuer.URL
	own := key(t)
	v := &Verifier{Own: func() *Key { return own }, Client: issuer.Client()}
	if err := v.VerifySignature(t.Context(), tok); err != nil {
		t.Error(err)
	}
	other, _ := key(t).Mint(job, "a", time.Now())
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

func TestWhatIsNoTokenIsSaidToBeNone(t *testing.T) {
	for _, raw := range []string{"", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."} {
		if _, err := Parse(raw); !errors.Is(err, ErrNotJWT) {
			t.Errorf("%q gave %v", raw, err)
		}
	}
	if _, err := key(t).Mint(Job{Repository: "web"}, "", time.Now()); err == nil {
		t.Error("a repository without an owner was accepted")
	}
}
