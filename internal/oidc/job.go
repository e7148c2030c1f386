package oidc

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"serin/internal/id"
)

// Job is the workflow job that a token speaks for, by the names of GitHub's
// claims; documented: https://docs.github.com/en/actions/reference/security/oidc
type Job struct {
	claims map[string]string
	// Immutable says that the repository was made after 15 July 2026: its subject
	// begins with repo:OWNER@ID/REPO@ID.
	Immutable bool
	// SubjectKeys are the claims that a customised subject is made of, in order
	// (include_claim_keys); none is GitHub's own form.
	SubjectKeys []string
}

// The claims that a job can be given, with what they are otherwise. Those that
// are derived from others have no value here.
var jobClaims = map[string]string{
	"repository": "", "ref": "refs/heads/main", "environment": "", "event_name": "push", "actor": "", "actor_id": "1", "sha": strings.Repeat("0", 40),
	"workflow": "deploy.yml", "job_workflow_ref": "", "base_ref": "", "head_ref": "", "check_run_id": "1", "enterprise": "", "enterprise_id": "",
	"repository_id": "1", "repository_owner_id": "1", "repository_visibility": "private", "ref_protected": "false",
	"run_id": "1", "run_number": "1", "run_attempt": "1", "runner_environment": "self-hosted",
}

// shorter names, as people type them.
var jobAliases = map[string]string{"repo": "repository", "event": "event_name", "owner_id": "repository_owner_id", "visibility": "repository_visibility"}

// NewJob makes a job of settings: claims by their names or repo, event, owner_id
// and visibility; immutable=true; subject_keys=repo+context+…; and
// repo_property_NAME for custom properties.
func NewJob(settings map[string]string) (Job, error) {
	j := Job{claims: maps.Clone(jobClaims)}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		claim := name
		if alias, ok := jobAliases[name]; ok {
			claim = alias
		}
		_, known := jobClaims[claim]
		switch {
		case name == "immutable":
			b, err := strconv.ParseBool(value)
			if err != nil {
				return j, fmt.Errorf("immutable must be true or false, got %q", value)
			}
			j.Immutable = b
		case name == "subject_keys":
			j.SubjectKeys = strings.Split(value, "+")
		case known && value == "": // as if it was not there
		case known, strings.HasPrefix(name, "repo_property_") && len(name) > len("repo_property_"):
			j.claims[claim] = value
		default:
			return j, fmt.Errorf("a job has no %q; it has %s, immutable, subject_keys and repo_property_NAME", name, strings.Join(slices.Sorted(maps.Keys(jobClaims)), ", "))
		}
	}
	return j, j.complete()
}

// JobOf reads a job from the query of the runner's token endpoint.
func JobOf(q url.Values) (Job, error) {
	settings := map[string]string{}
	for name, values := range q {
		if name != "api-version" && name != "audience" {
			settings[name] = values[0]
		}
	}
	return NewJob(settings)
}

// complete checks what was set and derives the rest.
func (j *Job) complete() error {
	c := j.claims
	owner, name, ok := strings.Cut(c["repository"], "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("repo must be OWNER/NAME, got %q", c["repository"])
	}
	if !strings.HasPrefix(c["ref"], "refs/") {
		return fmt.Errorf("ref must be a full reference such as refs/heads/main, got %q", c["ref"])
	}
	c["repository_owner"] = owner
	if c["actor"] == "" {
		c["actor"] = owner
	}
	c["ref_type"] = "branch"
	if strings.HasPrefix(c["ref"], "refs/tags/") {
		c["ref_type"] = "tag"
	}
	c["workflow_ref"] = c["repository"] + "/.github/workflows/" + c["workflow"] + "@" + c["ref"]
	c["workflow_sha"] = c["sha"]
	if c["job_workflow_ref"] == "" { // of a reusable workflow it is the called file's
		c["job_workflow_ref"] = c["workflow_ref"]
	}
	c["job_workflow_sha"] = c["sha"]
	for _, absent := range []string{"environment", "enterprise", "enterprise_id"} { // not there rather than empty
		if c[absent] == "" {
			delete(c, absent)
		}
	}
	for _, key := range j.SubjectKeys {
		if _, ok := c[key]; !ok && key != "repo" && key != "context" {
			return fmt.Errorf("subject_keys has %q, which this job has no claim for", key)
		}
	}
	return nil
}

// Subject is the sub claim: environment before pull request before ref; a
// customised one is its keys and values. A colon inside a value becomes %3A.
func (j Job) Subject() string {
	repo := "repo:" + j.claims["repository"]
	if j.Immutable {
		_, name, _ := strings.Cut(j.claims["repository"], "/")
		repo = fmt.Sprintf("repo:%s@%s/%s@%s", j.claims["repository_owner"], j.claims["repository_owner_id"], name, j.claims["repository_id"])
	}
	if len(j.SubjectKeys) == 0 {
		return repo + ":" + j.context()
	}
	var parts []string
	for _, key := range j.SubjectKeys {
		switch key {
		case "repo":
			parts = append(parts, repo)
		case "context":
			parts = append(parts, j.context())
		default:
			parts = append(parts, key+":"+colons(j.claims[key]))
		}
	}
	return strings.Join(parts, ":")
}

func (j Job) context() string {
	switch {
	case j.claims["environment"] != "":
		return "environment:" + colons(j.claims["environment"])
	case j.claims["event_name"] == "pull_request":
		return "pull_request"
	}
	return "ref:" + colons(j.claims["ref"])
}

func colons(value string) string { return strings.ReplaceAll(value, ":", "%3A") }

// Mint signs a token for the job. An empty audience is GitHub's default, the
// owner's page.
func (k *Key) Mint(j Job, audience string, now time.Time) (string, error) {
	if audience == "" {
		audience = "https://github.com/" + j.claims["repository_owner"]
	}
	claims := map[string]any{
		"iss": GitHub, "aud": audience, "sub": j.Subject(), "jti": id.UUID(),
		"iat": now.Unix(), "nbf": now.Add(-10 * time.Minute).Unix(), "exp": now.Add(Lifetime).Unix(),
	}
	for name, value := range j.claims {
		claims[name] = value
	}
	return k.Sign(claims)
}

// Sign makes a token of any claims.
func (k *Key) Sign(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: k.private},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", k.ID).WithHeader("x5t", encode(k.thumbprint())))
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return signed.CompactSerialize()
}
