package stsd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"serin/internal/oidc"
	"serin/internal/policy"
	"serin/internal/wire"
)

// DeniedWebIdentity is all that AWS says when a trust policy lets nobody in.
const DeniedWebIdentity = "Not authorized to perform sts:AssumeRoleWithWebIdentity"

// AssumeRoleWithWebIdentity exchanges an identity provider's token for a session.
func (a *API) AssumeRoleWithWebIdentity(ctx context.Context, in *sts.AssumeRoleWithWebIdentityInput) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	call := wire.From(ctx)
	if err := checkWebIdentity(in); err != nil {
		return nil, err
	}
	account, err := checkRole(in.RoleArn)
	if err != nil {
		return nil, err
	}
	token, err := oidc.Parse(*in.WebIdentityToken)
	if err != nil {
		return nil, invalidToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	role, found := a.deps.IAM.Role(account, *in.RoleArn)
	if !found {
		role = Role{ARN: *in.RoleArn} // the trust of nobody lets nobody in
	}
	duration := seconds(in.DurationSeconds)
	if found && duration > role.MaxSession {
		return nil, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if len(token.Audience) > 1 && token.String("azp") == "" {
		return nil, invalidToken("Token audience contains more than one audience while authorized party is not present")
	}
	providerARN, clientIDs, ok := a.deps.IAM.Provider(account, token.Issuer)
	if !ok {
		return nil, invalidToken("No OpenIDConnect provider found in your account for " + token.Issuer)
	}
	s := Session{Account: account, RoleARN: role.ARN, RoleID: role.ID, Name: *in.RoleSessionName, Provider: providerARN, Claims: lasting(token)}
	requests := a.entry(role, token, &s)
	if err := a.admit(call, role, requests); err != nil || !found {
		if err == nil { // nothing that is there could be assumed, however lenient the stage
			err = denied(DeniedWebIdentity)
		}
		return nil, err
	}
	if !slices.ContainsFunc(token.Audience, func(aud string) bool { return slices.Contains(clientIDs, aud) }) {
		return nil, invalidToken("Incorrect token audience")
	}
	if err := a.verify(ctx, token, time.Now()); err != nil {
		return nil, err
	}
	if s, err = a.issue(s, duration, in.Policy, in.PolicyArns); err != nil {
		return nil, err
	}
	a.deps.Admitted(role, requests)
	return &sts.AssumeRoleWithWebIdentityOutput{
		AssumedRoleUser: s.user(), Credentials: s.credentials(), SourceIdentity: optional(s.SourceIdentity),
		SubjectFromWebIdentityToken: new(token.String("sub")), Audience: new(token.Audience[0]), Provider: new(token.Issuer),
	}, nil
}

func checkWebIdentity(in *sts.AssumeRoleWithWebIdentityInput) error {
	var c wire.Constraints
	checkSession(&c, in.RoleArn, in.RoleSessionName, in.DurationSeconds, in.Policy)
	c.Required("webIdentityToken", in.WebIdentityToken)
	if err := c.Err(); err != nil {
		return err
	}
	if n := len(*in.WebIdentityToken); n < 4 || n > 20000 { // the token itself is not repeated
		bound := "greater than or equal to 4"
		if n > 20000 {
			bound = "less than or equal to 20000"
		}
		return validation("1 validation error detected: Value at 'webIdentityToken' failed to satisfy constraint: Member must have length %s", bound)
	}
	if in.ProviderId != nil { // OAuth 2.0 tokens of three old providers, which are not verified here
		return invalidToken("Serin verifies OpenID Connect tokens; ProviderId is only for OAuth 2.0 access tokens")
	}
	return nil
}

// entry is what the trust policy is asked: about the role, and about the tags and
// source identity that the token brings along.
func (a *API) entry(role Role, token *oidc.Token, s *Session) []*policy.Request {
	keys := claims(token)
	keys.Set("sts:RoleSessionName", s.Name)
	s.Tags, s.Transitive = tokenTags(token)
	s.SourceIdentity = token.String("https://aws.amazon.com/source_identity")
	actions := []string{"sts:AssumeRoleWithWebIdentity"}
	if len(s.Tags) > 0 {
		actions = append(actions, "sts:TagSession")
		keys.Set("aws:TagKeys", slices.Sorted(maps.Keys(s.Tags))...)
		keys.Set("sts:TransitiveTagKeys", s.Transitive...)
		for k, v := range s.Tags {
			keys.Set("aws:RequestTag/"+k, v)
		}
	}
	if s.SourceIdentity != "" {
		actions = append(actions, "sts:SetSourceIdentity")
		keys.Set("sts:SourceIdentity", s.SourceIdentity)
	}
	var out []*policy.Request
	for _, action := range actions {
		out = append(out, &policy.Request{Action: action, Resource: role.ARN, Principal: policy.Principal{Federated: s.Provider}, Context: keys})
	}
	return out
}

func (a *API) admit(call *wire.Call, role Role, requests []*policy.Request) error {
	for _, r := range requests {
		if err := a.deps.Trust(call, role, r); err != nil {
			return err
		}
	}
	return nil
}

// tokenTags are the session tags that a token can carry; documented:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
func tokenTags(t *oidc.Token) (tags map[string]string, transitive []string) {
	claim, _ := t.Claims["https://aws.amazon.com/tags"].(map[string]any)
	principal, _ := claim["principal_tags"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(principal)) {
		value := principal[key]
		switch value := value.(type) {
		case string:
			tags = withOnce(tags, key, value)
		case []any:
			if len(value) == 1 {
				if text, ok := value[0].(string); ok {
					tags = withOnce(tags, key, text)
				}
			}
		}
	}
	list, _ := claim["transitive_tag_keys"].([]any)
	for _, item := range list {
		key, _ := item.(string)
		if _, ok := find(tags, key); ok {
			transitive = append(transitive, key)
		}
	}
	return tags, transitive
}

// withOnce adds a tag unless its key is there in another case: keys are one then.
func withOnce(tags map[string]string, key, value string) map[string]string {
	if _, there := find(tags, key); there {
		return tags
	}
	return with(tags, key, value)
}

// verify checks what only the issuer can vouch for.
func (a *API) verify(ctx context.Context, token *oidc.Token, now time.Time) error {
	err := a.verifier.VerifySignature(ctx, token)
	if _, unreachable := errors.AsType[*oidc.KeysError](err); unreachable {
		return invalidToken("Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements")
	}
	if err != nil {
		return invalidToken("Token signature invalid")
	}
	expires, ok := token.Time("exp")
	if !ok {
		return invalidToken("Missing a required claim: exp.")
	}
	if now.After(expires.Add(oidc.Leeway)) {
		return &types.ExpiredTokenException{Message: new(fmt.Sprintf("Token expired: current date/time %d must be before the expiration date/time %d", now.Unix(), expires.Unix()))}
	}
	if _, ok := token.Time("iat"); !ok {
		return invalidToken("Missing a required claim: iat.")
	}
	if begin, ok := token.Time("nbf"); ok && now.Add(oidc.Leeway).Before(begin) {
		return invalidToken("The web identity token provided could not be validated. See the AssumeRoleWithWebIdentity documentation for requirements.")
	}
	return nil
}

// gitHubClaims are those that AWS offers to conditions since January 2026; on
// any other claim a condition never matches. Documented.
var gitHubClaims = []string{"actor", "actor_id", "enterprise_id", "environment", "job_workflow_ref", "ref", "repository", "repository_id", "repository_owner_id", "workflow"}

// claims are the condition keys that a token fills.
func claims(t *oidc.Token) policy.Context {
	prefix := strings.TrimPrefix(t.Issuer, "https://") + ":"
	out := policy.Context{}
	names := []string{"sub", "amr", "email"}
	if t.Issuer == oidc.GitHub || strings.HasPrefix(t.Issuer, oidc.GitHub+"/") {
		names = append(names, gitHubClaims...)
	}
	for _, name := range names {
		if v := t.String(name); v != "" {
			out.Set(prefix+name, v)
		}
	}
	if len(t.Audience) > 0 {
		out.Set(prefix+"aud", t.Audience[0])
		out.Set(prefix+"oaud", t.Audience[0])
	}
	if azp := t.String("azp"); azp != "" {
		out.Set(prefix+"aud", azp)
	}
	return out
}

// lasting are the claims that later requests of the session carry too.
func lasting(t *oidc.Token) map[string]string {
	out := map[string]string{}
	for key, values := range claims(t) {
		if strings.HasSuffix(key, ":aud") || strings.HasSuffix(key, ":sub") || strings.HasSuffix(key, ":amr") {
			out[key] = values[0]
		}
	}
	return out
}

func invalidToken(message string) error {
	return &types.InvalidIdentityTokenException{Message: &message}
}
