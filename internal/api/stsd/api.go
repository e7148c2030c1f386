// Package stsd is the stage's STS: it exchanges tokens and trust for sessions
// that expire.
//
// The order of checks in AssumeRoleWithWebIdentity is the one that reproduces
// AWS's answers, observed: parameters, token structure, role, duration, issuer
// and audience, trust policy, client ids, signature, expiry. AWS says nothing
// about a failed trust policy; the reason is kept for the stage's own
// introspection.
package stsd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/oidc"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

// API performs STS's operations.
type API struct {
	store    *store.Store
	sessions *store.Table[Session]
	iam      IAM
	verifier *oidc.Verifier
	// Explain is told why a trust policy let nobody in.
	Explain func(call *wire.Call, role string, why []policy.Explanation)
}

// IAM is what STS asks of IAM.
type IAM interface {
	Role(account, nameOrARN string) (Role, bool)
	Provider(account, issuer string) (providerARN string, clientIDs []string, ok bool)
	Managed(account, policyARN string) (*policy.Document, bool)
}

// Role is a role as STS sees it.
type Role struct {
	ARN, Name, ID string
	Trust         *policy.Document
	MaxSession    time.Duration
}

// Session is a row: a set of temporary credentials and what they may do.
type Session struct {
	AccessKey, Secret, Token string
	Expires                  time.Time // wall time
	Account                  string
	RoleARN, RoleID          string
	Name                     string
	Provider                 string            // ARN of the identity provider, for web identities
	Claims                   map[string]string // provider-qualified aud, sub, amr
	Policy                   string            // session policy document
	PolicyARNs               []string
}

// ARN is the session's own ARN; the role's path is not in it.
func (s Session) ARN() string {
	return arn.Scope{Account: s.Account}.For("sts", "assumed-role/"+roleNameOf(s.RoleARN)+"/"+s.Name).String()
}

// UserID is aws:userid.
func (s Session) UserID() string { return s.RoleID + ":" + s.Name }

func roleNameOf(roleARN string) string { return roleARN[strings.LastIndexByte(roleARN, '/')+1:] }

// New adds STS's table to the store.
func New(s *store.Store, iam IAM, v *oidc.Verifier) *API {
	return &API{store: s, sessions: store.NewTable[Session](s, "sts/sessions"), iam: iam, verifier: v}
}

// Service is STS on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "sts", Signing: "sts", Protocol: wire.Query, Version: "2011-06-15", Global: true,
		Namespace: "https://sts.amazonaws.com/doc/2011-06-15/",
		Naming:    &wire.Naming{Except: map[string]string{"PolicyDescriptorType.Arn": "arn"}},
		Status:    map[string]int{"AccessDenied": 403, "IDPRejectedClaim": 403, "RegionDisabledException": 403},
		Invalid:   func(m string) error { return &wire.Error{Code: "ValidationError", Message: m} },
		Types: map[string]wire.Members{
			"PolicyDescriptorType": {Performed: "arn"},
		},
	}
	s.Register(
		wire.Public(wire.Handle("AssumeRoleWithWebIdentity", a.AssumeRoleWithWebIdentity, nil, wire.Members{
			Performed: "RoleArn RoleSessionName WebIdentityToken DurationSeconds Policy PolicyArns", Refused: "MinimumSessionTokenSize ProviderId"})),
		wire.Handle("AssumeRole", a.AssumeRole, func(c *wire.Call, in *sts.AssumeRoleInput) []wire.Check {
			return []wire.Check{{Action: "sts:AssumeRole", Resource: aws.ToString(in.RoleArn)}}
		}, wire.Members{Performed: "RoleArn RoleSessionName DurationSeconds Policy PolicyArns ExternalId",
			Refused: "MinimumSessionTokenSize ProvidedContexts SerialNumber SourceIdentity Tags TokenCode TransitiveTagKeys"}),
		// No policy can take GetCallerIdentity away, documented; so it names no check.
		wire.Handle("GetCallerIdentity", a.GetCallerIdentity, func(*wire.Call, *sts.GetCallerIdentityInput) []wire.Check { return nil }, wire.Members{}),
	)
	return s
}

// Find returns the session of an access key. Sessions that ended a day ago are
// forgotten by Sweep; until then they are told that they expired.
func (a *API) Find(accessKey string) (s Session, ok bool) {
	a.store.View(func(tx *store.Tx) { s, ok = a.sessions.Get(tx, accessKey) })
	return s, ok
}

// Sweep forgets sessions that ended more than a day before now.
func (a *API) Sweep(now time.Time) error {
	return a.store.Update(func(tx *store.Tx) error {
		for key, s := range a.sessions.Scan(tx, "") {
			if now.Sub(s.Expires) > 24*time.Hour {
				a.sessions.Delete(tx, key)
			}
		}
		return nil
	})
}

// GetCallerIdentity says who calls.
func (a *API) GetCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	p := wire.From(ctx).Principal
	return &sts.GetCallerIdentityOutput{Account: new(p.Account), Arn: new(p.ARN), UserId: new(p.UserID)}, nil
}

const deniedWebIdentity = "Not authorized to perform sts:AssumeRoleWithWebIdentity"

// AssumeRoleWithWebIdentity exchanges an identity provider's token for a session.
func (a *API) AssumeRoleWithWebIdentity(ctx context.Context, in *sts.AssumeRoleWithWebIdentityInput) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	call := wire.From(ctx)
	duration, err := checkSession(in.RoleSessionName, in.DurationSeconds)
	if err != nil {
		return nil, err
	}
	roleARN, err := arn.Parse(aws.ToString(in.RoleArn))
	if err != nil {
		return nil, validation("Request ARN is invalid")
	}
	token, err := oidc.Parse(aws.ToString(in.WebIdentityToken))
	if err != nil {
		return nil, invalidToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	role, ok := a.iam.Role(roleARN.Account, aws.ToString(in.RoleArn))
	if !ok {
		a.explain(call, aws.ToString(in.RoleArn), []policy.Explanation{{Problem: "there is no such role in account " + roleARN.Account}})
		return nil, denied(deniedWebIdentity)
	}
	if duration > role.MaxSession {
		return nil, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if len(token.Audience) > 1 && token.String("azp") == "" {
		return nil, invalidToken("Token audience contains more than one audience while authorized party is not present")
	}
	providerARN, clientIDs, ok := a.iam.Provider(roleARN.Account, token.Issuer)
	if !ok {
		return nil, invalidToken("No OpenIDConnect provider found in your account for " + token.Issuer)
	}
	context := claims(token)
	request := &policy.Request{
		Action:     "sts:AssumeRoleWithWebIdentity",
		Resource:   role.ARN,
		Principals: map[string][]string{"Federated": {providerARN}},
		Context:    withSessionName(context, aws.ToString(in.RoleSessionName)),
	}
	if !role.Trust.Assume(request) {
		a.explain(call, role.ARN, role.Trust.Explain(request))
		return nil, denied(deniedWebIdentity)
	}
	if !slices.ContainsFunc(token.Audience, func(aud string) bool { return slices.Contains(clientIDs, aud) }) {
		return nil, invalidToken("Incorrect token audience")
	}
	if err := a.verify(ctx, token, time.Now()); err != nil {
		return nil, err
	}
	session := Session{Account: roleARN.Account, RoleARN: role.ARN, RoleID: role.ID, Name: aws.ToString(in.RoleSessionName), Provider: providerARN,
		Claims: lasting(token)}
	session, err = a.issue(session, duration, in.Policy, in.PolicyArns)
	if err != nil {
		return nil, err
	}
	return &sts.AssumeRoleWithWebIdentityOutput{
		AssumedRoleUser: session.user(), Credentials: session.credentials(),
		SubjectFromWebIdentityToken: new(token.String("sub")), Audience: new(token.Audience[0]), Provider: new(token.Issuer),
	}, nil
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
func claims(t *oidc.Token) map[string][]string {
	prefix := strings.TrimPrefix(t.Issuer, "https://") + ":"
	out := map[string][]string{}
	names := []string{"sub", "amr", "email"}
	if t.Issuer == oidc.GitHub || strings.HasPrefix(t.Issuer, oidc.GitHub+"/") {
		names = append(names, gitHubClaims...)
	}
	for _, name := range names {
		if v := t.String(name); v != "" {
			out[prefix+name] = []string{v}
		}
	}
	if len(t.Audience) > 0 {
		out[prefix+"aud"], out[prefix+"oaud"] = t.Audience[:1], t.Audience[:1]
	}
	if azp := t.String("azp"); azp != "" {
		out[prefix+"aud"] = []string{azp}
	}
	return out
}

func withSessionName(context map[string][]string, name string) map[string][]string {
	context["sts:RoleSessionName"] = []string{name}
	return context
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

// AssumeRole exchanges a caller's own identity for a session of a role.
func (a *API) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	call := wire.From(ctx)
	duration, err := checkSession(in.RoleSessionName, in.DurationSeconds)
	if err != nil {
		return nil, err
	}
	roleARN, err := arn.Parse(aws.ToString(in.RoleArn))
	if err != nil {
		return nil, validation("Request ARN is invalid")
	}
	refusal := denied(fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", call.Principal.ARN, aws.ToString(in.RoleArn)))
	role, ok := a.iam.Role(roleARN.Account, aws.ToString(in.RoleArn))
	if !ok {
		return nil, refusal
	}
	if !call.Principal.Admin {
		who := call.Principal
		request := &policy.Request{
			Action: "sts:AssumeRole", Resource: role.ARN,
			Principals: map[string][]string{"AWS": {who.ARN, who.Role, who.Account, arn.Scope{Account: who.Account}.For("iam", "root").String()}},
			Context:    withSessionName(map[string][]string{"aws:PrincipalArn": {who.Role}, "aws:PrincipalAccount": {who.Account}}, aws.ToString(in.RoleSessionName)),
		}
		if in.ExternalId != nil {
			request.Context["sts:ExternalId"] = []string{*in.ExternalId}
		}
		if !role.Trust.Assume(request) {
			a.explain(call, role.ARN, role.Trust.Explain(request))
			return nil, refusal
		}
		if duration > time.Hour { // role chaining, documented
			return nil, validation("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
		}
	}
	if duration > role.MaxSession {
		return nil, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	session, err := a.issue(Session{Account: roleARN.Account, RoleARN: role.ARN, RoleID: role.ID, Name: aws.ToString(in.RoleSessionName)}, duration, in.Policy, in.PolicyArns)
	if err != nil {
		return nil, err
	}
	return &sts.AssumeRoleOutput{AssumedRoleUser: session.user(), Credentials: session.credentials()}, nil
}

var sessionName = regexp.MustCompile(`^[\w+=,.@-]*$`)

func checkSession(name *string, seconds *int32) (time.Duration, error) {
	n := aws.ToString(name)
	if !sessionName.MatchString(n) {
		return 0, validation(`1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]*`, n)
	}
	if len(n) < 2 || len(n) > 64 {
		return 0, validation("1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must have length between 2 and 64", n)
	}
	duration := int32(3600)
	if seconds != nil {
		duration = *seconds
	}
	if duration < 900 {
		return 0, validation("1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900", duration)
	}
	if duration > 43200 {
		return 0, validation("1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to 43200", duration)
	}
	return time.Duration(duration) * time.Second, nil
}

// issue makes credentials for a session and stores them.
func (a *API) issue(s Session, duration time.Duration, document *string, policies []types.PolicyDescriptorType) (Session, error) {
	if document != nil {
		if len(*document) > 2048 {
			return s, &types.PackedPolicyTooLargeException{Message: new("Packed size of session policy exceeds the limit of 2048 characters")}
		}
		if _, err := policy.Parse(*document, policy.Identity); err != nil {
			return s, &types.MalformedPolicyDocumentException{Message: new(err.Error())}
		}
		s.Policy = *document
	}
	if len(policies) > 10 {
		return s, validation("1 validation error detected: Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to 10")
	}
	for _, p := range policies {
		if _, ok := a.iam.Managed(s.Account, aws.ToString(p.Arn)); !ok {
			return s, validation("Policy %s does not exist or is not attachable.", aws.ToString(p.Arn))
		}
		s.PolicyARNs = append(s.PolicyARNs, aws.ToString(p.Arn))
	}
	s.AccessKey, s.Secret, s.Token = id.Unique("ASIA"), id.Secret(40), id.Secret(280)
	s.Expires = time.Now().Add(duration).UTC().Truncate(time.Second)
	return s, a.store.Update(func(tx *store.Tx) error {
		a.sessions.Put(tx, s.AccessKey, s)
		return nil
	})
}

func (s Session) user() *types.AssumedRoleUser {
	return &types.AssumedRoleUser{Arn: new(s.ARN()), AssumedRoleId: new(s.UserID())}
}

func (s Session) credentials() *types.Credentials {
	return &types.Credentials{AccessKeyId: new(s.AccessKey), SecretAccessKey: new(s.Secret), SessionToken: new(s.Token), Expiration: new(s.Expires)}
}

func (a *API) explain(call *wire.Call, role string, why []policy.Explanation) {
	if a.Explain != nil {
		a.Explain(call, role, why)
	}
}

func validation(format string, args ...any) error {
	return &wire.Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

func denied(message string) error { return &wire.Error{Code: "AccessDenied", Message: message} }

func invalidToken(message string) error {
	return &types.InvalidIdentityTokenException{Message: &message}
}
