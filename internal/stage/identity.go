package stage

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

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

// authenticate says who signed a request.
func (s *Stage) authenticate(r *http.Request, body []byte, service *wire.Service) (wire.Principal, string, error) {
	var session stsd.Session
	sig, err := sigv4.Verify(r, body, service.Signing, time.Now(), func(key, token string) (string, error) {
		if key == adminKey || arn.IsAccount(key) {
			return adminSecret, nil
		}
		found, ok := s.sts.Find(key)
		if !ok || subtle.ConstantTimeCompare([]byte(found.Token), []byte(token)) != 1 {
			return "", sigv4.ErrUnknown
		}
		if time.Now().After(found.Expires) {
			return "", sigv4.ErrExpired
		}
		session = found
		return found.Secret, nil
	})
	if err != nil {
		return wire.Principal{}, "", signatureError(err, service)
	}
	region := sig.Region
	if session.AccessKey == "" {
		account := s.config.Account
		if arn.IsAccount(sig.AccessKey) {
			account = sig.AccessKey
		}
		return wire.Principal{Account: account, Admin: true, AccessKey: sig.AccessKey, UserID: account,
			ARN: arn.Scope{Account: account}.For("iam", "root").String()}, region, nil
	}
	return wire.Principal{
		Account: session.Account, ARN: session.ARN(), UserID: session.UserID(), Role: session.RoleARN, Session: session.Name,
		AccessKey: session.AccessKey, Provider: session.Provider, Claims: session.Claims,
	}, region, nil
}

// signatureError puts a refused signature into the service's own words.
func signatureError(err error, service *wire.Service) error {
	e, ok := errors.AsType[*sigv4.Error](err)
	if !ok {
		return err
	}
	codes := map[sigv4.Kind][2]string{ // query, JSON
		sigv4.Missing:    {"MissingAuthenticationToken", "MissingAuthenticationTokenException"},
		sigv4.Incomplete: {"IncompleteSignature", "IncompleteSignatureException"},
		sigv4.Unknown:    {"InvalidClientTokenId", "UnrecognizedClientException"},
		sigv4.Expired:    {"ExpiredToken", "ExpiredTokenException"},
		sigv4.Mismatch:   {"SignatureDoesNotMatch", "InvalidSignatureException"},
		sigv4.Skewed:     {"SignatureDoesNotMatch", "InvalidSignatureException"},
	}
	if service.Protocol == wire.JSON {
		text := e.Message
		if e.Kind == sigv4.Missing {
			text = "Missing Authentication Token"
		}
		return &wire.Error{Code: codes[e.Kind][1], Message: text, Status: 400}
	}
	status := http.StatusForbidden
	if e.Kind == sigv4.Incomplete {
		status = http.StatusBadRequest
	}
	return &wire.Error{Code: codes[e.Kind][0], Message: e.Message, Status: status}
}

// authorize asks the policies about each check, and keeps the reason of a
// denial for whoever asks.
func (s *Stage) authorize(ctx context.Context, call *wire.Call, checks []wire.Check) error {
	if call.Principal.Admin || s.config.IAM == Off {
		return nil
	}
	policies, err := s.policiesOf(call.Principal)
	if err != nil {
		return err
	}
	for _, check := range checks {
		r := &policy.Request{Action: check.Action, Resource: check.Resource, Context: s.conditions(call, check),
			Principals: map[string][]string{"AWS": {call.Principal.ARN, call.Principal.Role}}}
		decision := policy.Evaluate(r, policies)
		if elsewhere(call.Principal, check) {
			decision = policy.OtherAccount
		}
		if decision.Allowed() {
			continue
		}
		text := decision.Text(call.Principal.ARN, check.Action, check.Resource)
		s.denials.add(Denial{Time: time.Now().UTC(), RequestID: call.RequestID, Principal: call.Principal.ARN, Role: call.Principal.Role,
			Action: check.Action, Resource: check.Resource, Message: text})
		if s.config.IAM == Report {
			s.log.Warn("would be denied", "request", call.RequestID, "reason", text)
			continue
		}
		return deniedIn(call.Service, text)
	}
	return nil
}

// elsewhere reports whether a check is about a resource of another account.
// Identity policies reach no further than their own; the policies of resources
// that could allow it are not performed yet. Roles have their trust policies.
func elsewhere(p wire.Principal, check wire.Check) bool {
	a, err := arn.Parse(check.Resource)
	return err == nil && a.Account != "" && a.Account != p.Account && check.Action != "sts:AssumeRole"
}

// deniedIn is a denial in a service's protocol.
func deniedIn(service, text string) error {
	switch service {
	case "iam", "sts", "elasticloadbalancing":
		return &wire.Error{Code: "AccessDenied", Message: text, Status: http.StatusForbidden}
	case "ec2":
		return &wire.Error{Code: "UnauthorizedOperation", Message: text, Status: http.StatusForbidden}
	}
	return &wire.Error{Code: "AccessDeniedException", Message: text, Status: http.StatusBadRequest}
}

// policiesOf gathers what bears on a session: its role's policies as they are
// now, and its own.
func (s *Stage) policiesOf(p wire.Principal) (policy.Policies, error) {
	policies, ok := s.iam.PoliciesOf(p.Account, p.Role)
	if !ok {
		return policies, nil // a role that is gone allows nothing
	}
	session, ok := s.sts.Find(p.AccessKey)
	if !ok || session.Policy == "" && len(session.PolicyARNs) == 0 {
		return policies, nil
	}
	policies.Session = []policy.Named{}
	if session.Policy != "" {
		d, err := policy.Parse(session.Policy, policy.Identity)
		if err != nil {
			return policies, fmt.Errorf("reading the policy of session %s: %w", p.ARN, err)
		}
		policies.Session = append(policies.Session, policy.Named{Name: "session", Document: d})
	}
	for _, name := range session.PolicyARNs {
		if d, ok := s.iam.Managed(p.Account, name); ok {
			policies.Session = append(policies.Session, policy.Named{Name: name, Document: d})
		}
	}
	return policies, nil
}

// conditions are the global condition keys and those of the check.
func (s *Stage) conditions(call *wire.Call, check wire.Check) map[string][]string {
	p, now := call.Principal, time.Now().UTC()
	c := map[string][]string{
		"aws:PrincipalArn":     {p.Role},
		"aws:PrincipalAccount": {p.Account},
		"aws:PrincipalType":    {"AssumedRole"},
		"aws:userid":           {p.UserID},
		"aws:RequestedRegion":  {call.Scope.Region},
		"aws:SecureTransport":  {fmt.Sprint(call.Secure)},
		"aws:CurrentTime":      {now.Format(time.RFC3339)},
		"aws:EpochTime":        {fmt.Sprint(now.Unix())},
	}
	for key, value := range map[string]string{"aws:SourceIp": call.SourceIP, "aws:UserAgent": call.UserAgent, "aws:FederatedProvider": p.Provider} {
		if value != "" {
			c[key] = []string{value}
		}
	}
	for key, value := range p.Claims {
		c[key] = []string{value}
	}
	for key, values := range check.Context {
		c[key] = values
	}
	return c
}

// Denial is a refusal with what AWS does not say.
type Denial struct {
	Time      time.Time            `json:"time"`
	RequestID string               `json:"requestId"`
	Principal string               `json:"principal,omitempty"`
	Role      string               `json:"role,omitempty"`
	Action    string               `json:"action"`
	Resource  string               `json:"resource,omitempty"`
	Message   string               `json:"message"`
	Why       []policy.Explanation `json:"why,omitempty"`
}

// denials keeps the last hundred.
type denials struct {
	mu   sync.Mutex
	list []Denial
}

func (d *denials) add(x Denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, x)
	if len(d.list) > 100 {
		d.list = d.list[1:]
	}
}

func (d *denials) find(requestID string) []Denial {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []Denial{}
	for _, x := range d.list {
		if requestID == "" || x.RequestID == requestID {
			out = append(out, x)
		}
	}
	return out
}

func (s *Stage) explain(call *wire.Call, role string, why []policy.Explanation) {
	action := "sts:" + call.Operation
	var parts []string
	for _, e := range why {
		parts = append(parts, e.Problem)
	}
	s.denials.add(Denial{Time: time.Now().UTC(), RequestID: call.RequestID, Principal: call.Principal.ARN, Role: role, Action: action,
		Message: "Not authorized to perform " + action + ": " + strings.Join(parts, "; "), Why: why})
}
