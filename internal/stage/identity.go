package stage

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"serin/internal/api/iamd"
	"serin/internal/api/stsd"
	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/sigv4"
	"serin/internal/wire"
)

// adminKey and adminSecret are the built-in administrator's. A 12-digit access
// key with the same secret is the administrator of that account.
const (
	adminKey    = "test"
	adminSecret = "test"
)

// authenticate says who signed a request: the administrator, a user by a
// long-term key, or a session by temporary credentials.
func (s *Stage) authenticate(r *http.Request, body []byte, service *wire.Service) (wire.Principal, string, error) {
	var session stsd.Session
	var user iamd.Key
	sig, err := sigv4.Verify(r, body, service.Signing, time.Now(), func(key, token string) (string, error) {
		if key == adminKey || arn.IsAccount(key) {
			return adminSecret, nil
		}
		if k, ok := s.iam.Key(key); ok && k.Active && token == "" {
			user = k
			return k.Secret, nil
		}
		found, ok := s.sts.Find(key)
		if !ok || subtle.ConstantTimeCompare([]byte(found.Token), []byte(token)) != 1 {
			return "", sigv4.ErrUnknown
		}
		if time.Now().After(found.Expires) {
			return "", sigv4.ErrExpired
		}
		if found.RoleARN == "" && service.Name == "iam" { // GetSessionToken's without MFA cannot call IAM, documented
			return "", sigv4.ErrUnknown
		}
		session = found
		return found.Secret, nil
	})
	if err != nil {
		return wire.Principal{}, "", signatureError(err, service)
	}
	var p wire.Principal
	known := true
	switch {
	case session.RoleARN != "":
		p, known = s.assumed(session)
	case session.AccessKey != "":
		p, known = s.userSession(session)
	case user.User != "":
		p, known = s.user(user, sig.AccessKey)
		s.iam.Used(sig.AccessKey, service.Signing, sig.Region)
	default:
		p = s.administrator(sig.AccessKey)
	}
	if !known { // a user or role that is gone takes its credentials with it
		return p, "", signatureError(&sigv4.Error{Kind: sigv4.Unknown, Message: "The security token included in the request is invalid."}, service)
	}
	return p, sig.Region, nil
}

// administrator is the root of an account.
func (s *Stage) administrator(accessKey string) wire.Principal {
	account := s.config.Account
	if arn.IsAccount(accessKey) {
		account = accessKey
	}
	return root(account, accessKey)
}

func root(account, accessKey string) wire.Principal {
	return wire.Principal{Account: account, ARN: arn.Scope{Account: account}.For("iam", "root").String(), UserID: account, Type: "Account", Admin: true, AccessKey: accessKey}
}

// user is an IAM user by a long-term key.
func (s *Stage) user(k iamd.Key, accessKey string) (wire.Principal, bool) {
	u, ok := s.iam.User(k.Account, k.User)
	return userPrincipal(k.Account, u, accessKey), ok
}

func userPrincipal(account string, u iamd.Principal, accessKey string) wire.Principal {
	return wire.Principal{Account: account, ARN: u.ARN, UserID: u.ID, Type: "User", User: u.Name, AccessKey: accessKey, Tags: u.Tags}
}

// userSession is a user, or an account's root, by a session token.
func (s *Stage) userSession(x stsd.Session) (wire.Principal, bool) {
	p, ok := root(x.Account, x.AccessKey), true
	if x.User != "" {
		var u iamd.Principal
		u, ok = s.iam.UserByID(x.Account, x.User)
		p = userPrincipal(x.Account, u, x.AccessKey)
	}
	p.Issued, p.MFA = x.Issued, new(false)
	return p, ok
}

// assumed is a session of a role that is still there, and still the same.
func (s *Stage) assumed(x stsd.Session) (wire.Principal, bool) {
	p := wire.Principal{
		Account: x.Account, ARN: x.ARN(), UserID: x.UserID(), Type: "AssumedRole", Role: x.RoleARN, RoleID: x.RoleID, Session: x.Name, Service: x.Service,
		AccessKey: x.AccessKey, Provider: x.Provider, Claims: x.Claims, SourceIdentity: x.SourceIdentity, Issued: x.Issued, MFA: new(false), Tags: x.Tags,
	}
	role, ok := s.iam.Role(x.Account, x.RoleARN)
	if len(role.Tags) > 0 {
		p.Tags = role.Tags
		for key := range p.Tags {
			for own := range x.Tags { // the session's own win, documented; keys match in any case
				if strings.EqualFold(key, own) {
					delete(p.Tags, key)
				}
			}
		}
		maps.Copy(p.Tags, x.Tags)
	}
	return p, ok && role.ID == x.RoleID
}

// signatureError puts a refused signature into the service's own words.
func signatureError(err error, service *wire.Service) error {
	e, ok := errors.AsType[*sigv4.Error](err)
	if !ok {
		return err
	}
	switch {
	case service.Protocol == wire.JSON:
		text := e.Message
		if e.Kind == sigv4.Missing {
			text = "Missing Authentication Token"
		}
		return &wire.Error{Code: signatureCodes[e.Kind][1], Message: text, Status: http.StatusBadRequest}
	case service.Protocol == wire.EC2 && (e.Kind == sigv4.Unknown || e.Kind == sigv4.Mismatch):
		return &wire.Error{Code: "AuthFailure", Message: "AWS was not able to validate the provided access credentials", Status: http.StatusUnauthorized}
	case service.Protocol == wire.EC2 && (e.Kind == sigv4.Expired || e.Kind == sigv4.Skewed):
		return &wire.Error{Code: "RequestExpired", Message: "Request has expired.", Status: http.StatusBadRequest}
	}
	status := http.StatusForbidden
	if e.Kind == sigv4.Incomplete {
		status = http.StatusBadRequest
	}
	return &wire.Error{Code: signatureCodes[e.Kind][0], Message: e.Message, Status: status}
}

// signatureCodes are the codes of the query services and of the JSON ones.
var signatureCodes = map[sigv4.Kind][2]string{
	sigv4.Missing:    {"MissingAuthenticationToken", "MissingAuthenticationTokenException"},
	sigv4.Incomplete: {"IncompleteSignature", "IncompleteSignatureException"},
	sigv4.Unknown:    {"InvalidClientTokenId", "UnrecognizedClientException"},
	sigv4.Expired:    {"ExpiredToken", "ExpiredTokenException"},
	sigv4.Mismatch:   {"SignatureDoesNotMatch", "InvalidSignatureException"},
	sigv4.Skewed:     {"SignatureDoesNotMatch", "InvalidSignatureException"},
}

// authorize asks the policies about each check of a call. What goes on is
// learned; what is denied is explained and kept for whoever asks.
func (s *Stage) authorize(_ context.Context, call *wire.Call, checks []wire.Check) error {
	if call.Principal.Admin {
		return nil
	}
	var done []*policy.Request
	for _, check := range checks {
		if len(check.Resource) > longestResource {
			return &wire.Error{Code: "ValidationError", Message: fmt.Sprintf("The name of the resource of %s has more than %d characters", check.Action, longestResource), Status: http.StatusBadRequest}
		}
		r := s.request(call, check)
		if s.config.IAM != Off {
			p, there := s.policiesFor(call.Principal, check)
			if !there { // nobody: no policy names who is gone
				r.Principal = policy.Principal{}
			}
			if d := policy.Evaluate(r, p); !d.Allowed() {
				if err := s.deny(call, r, p, d); err != nil {
					return err
				}
			}
		}
		done = append(done, r)
	}
	for _, r := range done {
		s.learned.note(call, r)
	}
	return nil
}

// longestResource is the most characters of an ARN, documented for IAM's.
const longestResource = 2048

// may asks the policies quietly: for what a service does where it may.
func (s *Stage) may(call *wire.Call, check wire.Check) bool {
	if call.Principal.Admin || s.config.IAM != Enforce {
		return true
	}
	p, there := s.policiesFor(call.Principal, check)
	return there && policy.Evaluate(s.request(call, check), p).Allowed()
}

// request puts a check into the words of the policies.
func (s *Stage) request(call *wire.Call, check wire.Check) *policy.Request {
	p := call.Principal
	return &policy.Request{
		Action: check.Action, Resource: check.Resource, Alias: check.Alias, Wild: check.Wild, Context: s.conditions(call, check),
		Principal: policy.Principal{ARN: p.ARN, Role: p.Role, Account: p.Account},
	}
}

// deny keeps the reason of a denial and puts it into the service's words; nil
// where denials are only reported.
func (s *Stage) deny(call *wire.Call, r *policy.Request, p policy.Policies, d policy.Decision) error {
	shown := d
	if strings.HasPrefix(r.Action, "sts:") && p.Trust && d.Reason != policy.ExplicitDeny {
		shown.Kind = policy.KindTrust // STS never says which side did not allow
	}
	text := shown.Text(call.Principal.ARN, r.Action, r.Resource)
	s.decide(call, r, p, d, text)
	if s.config.IAM == Report {
		return nil
	}
	return s.deniedIn(call, r, d, text)
}

// deniedIn is a denial in a service's protocol.
func (s *Stage) deniedIn(call *wire.Call, r *policy.Request, d policy.Decision, text string) error {
	switch call.Service {
	case "iam", "sts", "elasticloadbalancing", "cloudwatch", "autoscaling":
		return &wire.Error{Code: "AccessDenied", Message: text, Status: http.StatusForbidden}
	case "ec2":
		return &wire.Error{Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation. " + text + ". Encoded authorization failure message: " + s.sealDenial(call, r, d.Reason == policy.ExplicitDeny), Status: http.StatusForbidden}
	}
	return &wire.Error{Code: "AccessDeniedException", Message: text, Status: http.StatusBadRequest}
}

// policiesFor gathers what bears on a caller and a resource; there is false when
// the caller's user, role or session is gone.
func (s *Stage) policiesFor(p wire.Principal, check wire.Check) (policies policy.Policies, there bool) {
	policies, there = s.policiesOf(p)
	resource, err := arn.Parse(check.Resource)
	if err != nil {
		return policies, there
	}
	policies.Elsewhere = arn.IsAccount(resource.Account) && resource.Account != p.Account
	switch {
	case strings.HasPrefix(check.Action, "sts:") && resource.Service == "iam":
		policies.Trust = true
		if role, ok := s.iam.Role(resource.Account, check.Resource); ok {
			policies.Resource = &policy.Named{Name: trustOf(role.Name), Document: role.Trust}
		}
	case resource.Service == "ecr":
		if d, name, ok := s.ecr.Policy(resource, check.Action); ok {
			policies.Resource = &policy.Named{Name: name, Document: d}
		}
	}
	return policies, there
}

func trustOf(role string) string { return "the trust policy of role " + role }

// policiesOf gathers what bears on a caller: the policies of its user or role as
// they are now, and its session's own.
func (s *Stage) policiesOf(p wire.Principal) (policies policy.Policies, there bool) {
	kind, name, id := iamd.Role, p.Role, p.RoleID
	if p.User != "" {
		kind, name, id = iamd.User, p.ARN, p.UserID
	}
	if policies, there = s.iam.PoliciesOf(kind, p.Account, name, id); !there || p.Issued.IsZero() {
		return policies, there
	}
	session, ok := s.sts.Find(p.AccessKey)
	if !ok {
		return policy.Policies{}, false
	}
	if session.Policy == "" && len(session.PolicyARNs) == 0 {
		return policies, true
	}
	policies.Session = []policy.Named{}
	if session.Policy != "" {
		policies.Session = append(policies.Session, policy.Named{Name: "the policy of session " + session.Name, Document: s.iam.Document(session.Policy)})
	}
	for _, name := range session.PolicyARNs {
		if d, ok := s.iam.Managed(p.Account, name); ok {
			policies.Session = append(policies.Session, policy.Named{Name: name, Document: d})
		}
	}
	return policies, true
}

// conditions are the global condition keys, documented, and those of the check:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
func (s *Stage) conditions(call *wire.Call, check wire.Check) policy.Context {
	p, now := call.Principal, time.Now().UTC()
	c := make(policy.Context, 32)
	for _, kv := range [][2]string{
		{"aws:principalaccount", p.Account}, {"aws:principaltype", p.Type}, {"aws:userid", p.UserID}, {"aws:username", p.User}, {"aws:principalarn", p.ARN},
		{"aws:federatedprovider", p.Provider}, {"aws:sourceidentity", p.SourceIdentity}, {"aws:requestedregion", call.Scope.Region}, {"aws:sourceip", call.SourceIP},
		{"aws:useragent", call.UserAgent}, {"aws:securetransport", fmt.Sprint(call.Secure)}, {"aws:currenttime", now.Format(time.RFC3339)}, {"aws:epochtime", fmt.Sprint(now.Unix())},
		{"aws:principalisawsservice", "false"}, {"aws:viaawsservice", "false"},
	} {
		if kv[1] != "" {
			c[kv[0]] = []string{kv[1]}
		}
	}
	if p.Role != "" {
		c["aws:principalarn"] = []string{p.Role} // the role, with its path, not the session
	}
	if !p.Issued.IsZero() {
		c["aws:tokenissuetime"] = []string{p.Issued.Format(time.RFC3339)}
	}
	if p.MFA != nil {
		c["aws:multifactorauthpresent"] = []string{fmt.Sprint(*p.MFA)}
	}
	for key, value := range p.Claims {
		c.Set(key, value)
	}
	setTags(c, "aws:PrincipalTag/", p.Tags)
	setTags(c, "aws:RequestTag/", call.Tags)
	if len(call.TagKeys) > 0 {
		c["aws:tagkeys"] = call.TagKeys
	}
	if resource, err := arn.Parse(check.Resource); err == nil {
		if arn.IsAccount(resource.Account) {
			c["aws:resourceaccount"] = []string{resource.Account}
		}
		tags := s.tagsOf(resource)
		setTags(c, "aws:ResourceTag/", tags)
		setTags(c, resource.Service+":ResourceTag/", tags)
	}
	for key, values := range check.Context {
		c.Set(key, values...)
	}
	return c
}

// setTags fills one key for each tag. A condition on a key matches a tag of that
// name in any case, but not two of them, documented: then it has a value that is
// neither's.
func setTags(c policy.Context, prefix string, tags map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		name := prefix + key
		if before := c.Get(name); len(before) > 0 {
			c.Set(name, before[0]+" or "+tags[key])
			continue
		}
		c.Set(name, tags[key])
	}
}

// tagsOf is the tags of any service's resource.
func (s *Stage) tagsOf(resource arn.ARN) map[string]string {
	switch resource.Service {
	case "iam":
		return s.iam.Tags(resource.String())
	case "ecs":
		return s.ecs.Tags(resource.String())
	case "elasticloadbalancing":
		return s.elb.Tags(resource.String())
	case "ecr":
		return s.ecr.Tags(resource.String())
	case "acm":
		return s.acm.Tags(resource.String())
	case "cloudwatch":
		return s.cw.Tags(resource.String())
	case "autoscaling":
		return s.asg.Tags(resource.String())
	}
	return nil
}

// trust asks a role's trust policy about a web identity.
func (s *Stage) trust(call *wire.Call, role stsd.Role, r *policy.Request) error {
	if s.config.IAM == Off && role.Trust != nil {
		return nil
	}
	p := policy.Policies{Trust: true}
	if role.Trust != nil {
		p.Resource = &policy.Named{Name: trustOf(role.Name), Document: role.Trust}
		if role.Trust.Assume(r) {
			return nil
		}
	}
	d := policy.Decision{Reason: policy.NoResourceAllow, Kind: policy.KindTrust}
	for _, l := range policy.Explain(r, p) {
		if l.Says == "deny" {
			d = policy.Decision{Reason: policy.ExplicitDeny, Policy: l.Policy, Kind: policy.KindTrust}
		}
	}
	s.decide(call, r, p, d, stsd.DeniedWebIdentity)
	if s.config.IAM == Report {
		return nil
	}
	return &wire.Error{Code: "AccessDenied", Message: stsd.DeniedWebIdentity}
}
