// Package stsd is the stage's STS: it exchanges tokens and trust for sessions
// that expire.
//
// The order of checks in AssumeRoleWithWebIdentity is the one that reproduces
// AWS's answers, observed: parameters, token structure, role, duration, issuer
// and audience, trust policy, client ids, signature, expiry. AWS says nothing
// about a failed trust policy; the reason is kept for the stage's own
// introspection. AssumeRole's trust policy is asked before the handler, like
// the policy of any resource.
package stsd

import (
	"context"
	"fmt"
	"maps"
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
	"serin/internal/tags"
	"serin/internal/wire"
)

// API performs STS's operations.
type API struct {
	store    *store.Store
	sessions *store.Table[Session]
	deps     Deps
	verifier *oidc.Verifier
}

// Deps is what STS needs of others. The stage fits it together.
type Deps struct {
	IAM IAM
	// Trust asks a role's trust policy, and nothing else, about a request; it
	// notes why it let nobody in. The error is nil when the caller may go on.
	Trust func(call *wire.Call, role Role, r *policy.Request) error
	// Admitted hears of the requests with which somebody really got in.
	Admitted func(role Role, requests []*policy.Request)
	// Decode opens an encoded authorization message of the stage.
	Decode func(message string) (text string, ok bool)
}

// IAM is what STS asks of IAM.
type IAM interface {
	Role(account, nameOrARN string) (Role, bool)
	Provider(account, issuer string) (providerARN string, clientIDs []string, ok bool)
	Managed(account, policyARN string) (*policy.Document, bool)
	Key(accessKeyID string) (account string, ok bool)
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
	Issued, Expires          time.Time // wall time
	Account                  string
	RoleARN, RoleID          string
	User                     string // of GetSessionToken: unique id of the user whose session it is; empty for the account's root
	Name                     string // role session name
	Provider                 string // ARN of the identity provider, for web identities
	Service                  string // the AWS service that acts, if one does
	Claims                   map[string]string
	Policy                   string // session policy document
	PolicyARNs               []string
	Tags                     map[string]string
	Transitive               []string // keys of the tags that go on to further roles
	SourceIdentity           string
}

// ARN is the session's own ARN; the role's path is not in it.
func (s Session) ARN() string {
	return arn.Scope{Account: s.Account}.For("sts", "assumed-role/"+roleNameOf(s.RoleARN)+"/"+s.Name).String()
}

// UserID is aws:userid.
func (s Session) UserID() string { return s.RoleID + ":" + s.Name }

func roleNameOf(roleARN string) string { return roleARN[strings.LastIndexByte(roleARN, '/')+1:] }

// New adds STS's table to the store.
func New(s *store.Store, d Deps, v *oidc.Verifier) *API {
	return &API{store: s, sessions: store.NewTable[Session](s, "sts/sessions"), deps: d, verifier: v}
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
			"Tag":                  {Performed: "Key Value"},
		},
	}
	// No policy can take GetCallerIdentity and GetSessionToken away, documented;
	// so they name no check.
	s.Register(
		wire.Public(wire.Handle("AssumeRoleWithWebIdentity", a.AssumeRoleWithWebIdentity, nil, wire.Members{
			Performed: "RoleArn RoleSessionName WebIdentityToken DurationSeconds Policy PolicyArns ProviderId", Refused: "MinimumSessionTokenSize"})),
		wire.Handle("AssumeRole", a.AssumeRole, assumeChecks, wire.Members{
			Performed: "RoleArn RoleSessionName DurationSeconds Policy PolicyArns ExternalId SourceIdentity Tags TransitiveTagKeys",
			Refused:   "MinimumSessionTokenSize ProvidedContexts SerialNumber TokenCode"}),
		wire.Handle("GetCallerIdentity", a.GetCallerIdentity, func(*wire.Call, *sts.GetCallerIdentityInput) []wire.Check { return nil }, wire.Members{}),
		wire.Handle("GetSessionToken", a.GetSessionToken, func(*wire.Call, *sts.GetSessionTokenInput) []wire.Check { return nil },
			wire.Members{Performed: "DurationSeconds", Refused: "MinimumSessionTokenSize SerialNumber TokenCode"}),
		wire.Handle("GetAccessKeyInfo", a.GetAccessKeyInfo, func(*wire.Call, *sts.GetAccessKeyInfoInput) []wire.Check {
			return []wire.Check{{Action: "sts:GetAccessKeyInfo", Resource: "*"}}
		}, wire.Members{Performed: "AccessKeyId"}),
		wire.Handle("DecodeAuthorizationMessage", a.DecodeAuthorizationMessage, func(*wire.Call, *sts.DecodeAuthorizationMessageInput) []wire.Check {
			return []wire.Check{{Action: "sts:DecodeAuthorizationMessage", Resource: "*"}}
		}, wire.Members{Performed: "EncodedMessage"}),
	)
	return s
}

// assumeChecks is what AssumeRole must be allowed, by the caller's policies and
// the role's trust: the role itself, and its tags and source identity.
func assumeChecks(_ *wire.Call, in *sts.AssumeRoleInput) []wire.Check {
	keys := map[string][]string{"sts:RoleSessionName": {aws.ToString(in.RoleSessionName)}}
	if in.ExternalId != nil {
		keys["sts:ExternalId"] = []string{*in.ExternalId}
	}
	if in.SourceIdentity != nil {
		keys["sts:SourceIdentity"] = []string{*in.SourceIdentity}
	}
	if len(in.TransitiveTagKeys) > 0 {
		keys["sts:TransitiveTagKeys"] = in.TransitiveTagKeys
	}
	checks := []wire.Check{{Action: "sts:AssumeRole", Resource: aws.ToString(in.RoleArn), Context: keys}}
	if len(in.Tags) > 0 {
		checks = append(checks, wire.Check{Action: "sts:TagSession", Resource: aws.ToString(in.RoleArn), Context: keys})
	}
	if in.SourceIdentity != nil {
		checks = append(checks, wire.Check{Action: "sts:SetSourceIdentity", Resource: aws.ToString(in.RoleArn), Context: keys})
	}
	return checks
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

// GetAccessKeyInfo says which account an access key belongs to.
func (a *API) GetAccessKeyInfo(_ context.Context, in *sts.GetAccessKeyInfoInput) (*sts.GetAccessKeyInfoOutput, error) {
	key := aws.ToString(in.AccessKeyId)
	if s, ok := a.Find(key); ok {
		return &sts.GetAccessKeyInfoOutput{Account: new(s.Account)}, nil
	}
	if account, ok := a.deps.IAM.Key(key); ok {
		return &sts.GetAccessKeyInfoOutput{Account: new(account)}, nil
	}
	return nil, validation("Invalid Access Key ID '%s'", key)
}

// DecodeAuthorizationMessage opens the message that a refused EC2 call carries.
func (a *API) DecodeAuthorizationMessage(_ context.Context, in *sts.DecodeAuthorizationMessageInput) (*sts.DecodeAuthorizationMessageOutput, error) {
	text, ok := a.deps.Decode(aws.ToString(in.EncodedMessage))
	if !ok {
		return nil, &types.InvalidAuthorizationMessageException{Message: new("Message is not valid")}
	}
	return &sts.DecodeAuthorizationMessageOutput{DecodedMessage: &text}, nil
}

// GetSessionToken makes temporary credentials of long-term ones; they may do
// what their user may.
func (a *API) GetSessionToken(ctx context.Context, in *sts.GetSessionTokenInput) (*sts.GetSessionTokenOutput, error) {
	p := wire.From(ctx).Principal
	if !p.Issued.IsZero() {
		return nil, &wire.Error{Code: "AccessDenied", Message: "Cannot call GetSessionToken with session credentials", Status: 403}
	}
	var c wire.Constraints
	c.Range("durationSeconds", in.DurationSeconds, 900, 129600)
	if err := c.Err(); err != nil {
		return nil, err
	}
	duration := 12 * time.Hour
	if p.User == "" { // the account's root, documented
		duration = time.Hour
	}
	if in.DurationSeconds != nil {
		duration = min(time.Duration(*in.DurationSeconds)*time.Second, map[bool]time.Duration{true: time.Hour, false: 36 * time.Hour}[p.User == ""])
	}
	owner := ""
	if p.User != "" {
		owner = p.UserID
	}
	s, err := a.issue(Session{Account: p.Account, User: owner}, duration, nil, nil)
	if err != nil {
		return nil, err
	}
	return &sts.GetSessionTokenOutput{Credentials: s.credentials()}, nil
}

// AssumeRole exchanges a caller's own identity for a session of a role.
func (a *API) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	call := wire.From(ctx)
	if err := checkAssume(in); err != nil {
		return nil, err
	}
	account, err := checkRole(in.RoleArn)
	if err != nil {
		return nil, err
	}
	labels := tags.In(in.Tags)
	if err := tags.Check(labels, tags.AnyCase); err != nil {
		return nil, &wire.Error{Code: "InvalidParameterValue", Message: "Duplicate tag keys found. Please note that Tag keys are case insensitive."}
	}
	role, ok := a.deps.IAM.Role(account, *in.RoleArn)
	if !ok { // the administrator is told what others are told
		return nil, denied(fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", call.Principal.ARN, *in.RoleArn))
	}
	duration := seconds(in.DurationSeconds)
	if call.Principal.Role != "" && duration > time.Hour {
		return nil, validation("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	if duration > role.MaxSession {
		return nil, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	s := Session{Account: account, RoleARN: role.ARN, RoleID: role.ID, Name: *in.RoleSessionName, SourceIdentity: aws.ToString(in.SourceIdentity), Transitive: in.TransitiveTagKeys}
	for _, t := range labels {
		s.Tags = with(s.Tags, t.Key, t.Value)
	}
	if err := a.inherit(call.Principal, &s); err != nil {
		return nil, err
	}
	if s, err = a.issue(s, duration, in.Policy, in.PolicyArns); err != nil {
		return nil, err
	}
	return &sts.AssumeRoleOutput{AssumedRoleUser: s.user(), Credentials: s.credentials(), SourceIdentity: optional(s.SourceIdentity)}, nil
}

// inherit carries over what role chaining carries over: transitive tags, which
// cannot be given another value, and the source identity, which cannot change.
func (a *API) inherit(p wire.Principal, s *Session) error {
	before, _ := a.Find(p.AccessKey) // long-term keys have no session, and pass nothing on
	for _, key := range before.Transitive {
		if _, given := find(s.Tags, key); given {
			return &wire.Error{Code: "InvalidParameterValue", Message: "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session."}
		}
		s.Tags = with(s.Tags, key, before.Tags[key])
		s.Transitive = append(slices.Clone(s.Transitive), key)
	}
	if before.SourceIdentity != "" {
		if s.SourceIdentity != "" && s.SourceIdentity != before.SourceIdentity {
			return denied("The source identity of a session cannot be changed")
		}
		s.SourceIdentity = before.SourceIdentity
	}
	for _, key := range s.Transitive {
		if _, ok := find(s.Tags, key); !ok {
			return validation("The specified transitive tag key must be included in the requested tags.")
		}
	}
	return nil
}

// find is a tag by its key in any case.
func find(m map[string]string, key string) (string, bool) {
	for k, v := range m {
		if strings.EqualFold(k, key) {
			return v, true
		}
	}
	return "", false
}

func with(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

var (
	sessionName = regexp.MustCompile(`^[\w+=,.@-]*$`)
	externalID  = regexp.MustCompile(`^[\w+=,.@:\/-]*$`)
)

func checkAssume(in *sts.AssumeRoleInput) error {
	var c wire.Constraints
	checkSession(&c, in.RoleArn, in.RoleSessionName, in.DurationSeconds, in.Policy)
	c.Length("externalId", in.ExternalId, 2, 1224)
	c.Pattern("externalId", in.ExternalId, externalID)
	c.Length("sourceIdentity", in.SourceIdentity, 2, 64)
	c.Pattern("sourceIdentity", in.SourceIdentity, sessionName)
	c.Count("tags", len(in.Tags), 50)
	c.Count("transitiveTagKeys", len(in.TransitiveTagKeys), 50)
	return c.Err()
}

func checkSession(c *wire.Constraints, role, name *string, duration *int32, document *string) {
	c.Required("roleArn", role)
	c.Length("roleArn", role, 20, 2048)
	c.Required("roleSessionName", name)
	c.Length("roleSessionName", name, 2, 64)
	c.Pattern("roleSessionName", name, sessionName)
	c.Range("durationSeconds", duration, 900, 43200)
	c.Length("policy", document, 1, 2048)
}

// checkRole is the account of a role's ARN.
func checkRole(role *string) (account string, err error) {
	parsed, err := arn.Parse(*role)
	if err != nil || parsed.Service != "iam" || !strings.HasPrefix(parsed.Resource, "role/") || !arn.IsAccount(parsed.Account) {
		return "", validation("Request ARN is invalid")
	}
	return parsed.Account, nil
}

// seconds is how long a session is to last; an hour where nothing is said,
// whatever the role's longest.
func seconds(n *int32) time.Duration {
	if n == nil {
		return time.Hour
	}
	return time.Duration(*n) * time.Second
}

// issue makes credentials for a session and stores them.
func (a *API) issue(s Session, duration time.Duration, document *string, policies []types.PolicyDescriptorType) (Session, error) {
	if document != nil {
		if _, err := policy.Parse(*document, policy.Identity); err != nil {
			return s, &types.MalformedPolicyDocumentException{Message: new(err.Error())}
		}
		s.Policy = *document
	}
	var c wire.Constraints
	c.Count("policyArns", len(policies), 10)
	if err := c.Err(); err != nil {
		return s, err
	}
	for _, p := range policies {
		if _, ok := a.deps.IAM.Managed(s.Account, aws.ToString(p.Arn)); !ok {
			return s, validation("Policy %s does not exist or is not attachable.", aws.ToString(p.Arn))
		}
		s.PolicyARNs = append(s.PolicyARNs, aws.ToString(p.Arn))
	}
	return a.Issue(s, duration)
}

// Issue stores a session and makes its credentials; the stage itself issues
// those of a task's role.
func (a *API) Issue(s Session, duration time.Duration) (Session, error) {
	s.AccessKey, s.Secret, s.Token = id.Unique("ASIA"), id.Secret(40), id.Secret(280)
	s.Issued = time.Now().UTC().Truncate(time.Second)
	s.Expires = s.Issued.Add(duration)
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

func validation(format string, args ...any) error {
	return &wire.Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

func denied(message string) error { return &wire.Error{Code: "AccessDenied", Message: message} }
