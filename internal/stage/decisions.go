package stage

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/wire"
)

// Decision is a refusal with what AWS does not say: what was looked at, why it
// did not allow the request, and what would.
type Decision struct {
	ID        string              `json:"id"` // of the request
	Time      time.Time           `json:"time"`
	Outcome   string              `json:"outcome"` // denied, or would be denied where denials are only reported
	Service   string              `json:"service"`
	Operation string              `json:"operation"`
	Principal string              `json:"principal,omitempty"`
	Role      string              `json:"role,omitempty"`
	Action    string              `json:"action"`
	Resource  string              `json:"resource"`
	Message   string              `json:"message"` // what the caller was told
	Keys      map[string][]string `json:"conditionKeys"`
	Policies  []policy.Look       `json:"policies"`
	Remedy    policy.Remedy       `json:"remedy"`

	byService bool // an AWS service acted, not a caller
}

// decisions keeps the last ones, the oldest first.
type decisions struct {
	mu   sync.Mutex
	list []Decision
}

const mostDecisions = 500

func (d *decisions) add(x Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x.byService { // what an agent tries again and again is one decision
		d.list = slices.DeleteFunc(d.list, func(o Decision) bool {
			return o.byService && o.Principal == x.Principal && o.Action == x.Action && o.Resource == x.Resource
		})
	}
	if d.list = append(d.list, x); len(d.list) > mostDecisions {
		d.list = d.list[1:]
	}
}

// all is the decisions that are kept, the newest first.
func (d *decisions) all() []Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.list)
	slices.Reverse(out)
	return out
}

// find is the decision on a request; "last" is the newest.
func (d *decisions) find(id string) (Decision, bool) {
	for _, x := range d.all() {
		if x.ID == id || id == "last" {
			return x, true
		}
	}
	return Decision{}, false
}

func (d *decisions) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = nil
}

// decide keeps why a request was denied.
func (s *Stage) decide(call *wire.Call, r *policy.Request, p policy.Policies, d policy.Decision, text string) {
	x := Decision{
		ID: call.RequestID, Time: time.Now().UTC(), Outcome: "denied", Service: call.Service, Operation: call.Operation,
		Principal: call.Principal.ARN, Role: call.Principal.Role, Action: r.Action, Resource: r.Resource, Message: text,
		Keys: maps.Clone(r.Context), Policies: policy.Explain(r, p), Remedy: policy.Fix(r, p, d), byService: call.Principal.Service != "",
	}
	if s.config.IAM == Report {
		x.Outcome = "would be denied"
		s.log.Warn("would be denied", "request", call.RequestID, "reason", text)
	}
	if x.Principal == "" {
		x.Principal = r.Principal.Federated
	}
	if p.Trust && p.Resource == nil {
		x.Remedy = policy.Remedy{Advice: s.noRole(r.Resource)}
	}
	s.decisions.add(x)
}

// noRole says of a role that is not there what is there instead.
func (s *Stage) noRole(roleARN string) string {
	parsed, err := arn.Parse(roleARN)
	if err != nil {
		return roleARN + " is not the ARN of a role"
	}
	name := parsed.Resource[strings.LastIndexByte(parsed.Resource, '/')+1:]
	if r, ok := s.iam.Role(parsed.Account, name); ok {
		return fmt.Sprintf("there is no role %s; there is %s", roleARN, r.ARN)
	}
	return fmt.Sprintf("there is no role %s in account %s", name, parsed.Account)
}

// Text is the decision for people.
func (d Decision) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s on %s\n", d.Outcome, d.Action, orNothing(d.Resource))
	fmt.Fprintf(&b, "  who      %s\n", orNothing(d.Principal))
	fmt.Fprintf(&b, "  when     %s, request %s (%s:%s)\n", d.Time.Format(time.RFC3339), d.ID, d.Service, d.Operation)
	fmt.Fprintf(&b, "  AWS says %s\n", d.Message)
	if len(d.Policies) == 0 {
		b.WriteString("\nthere is no policy that speaks of it\n")
	}
	for _, l := range d.Policies {
		verdict := map[string]string{"nothing": "does not speak of it", "allow": "allows it", "deny": "denies it"}[l.Says]
		fmt.Fprintf(&b, "\n%s (%s) %s\n", l.Policy, l.Kind, verdict)
		for _, st := range l.Details {
			d.statement(&b, st)
		}
	}
	if d.Remedy.Advice != "" {
		fmt.Fprintf(&b, "\nto allow it: %s\n", d.Remedy.Advice)
	}
	if d.Remedy.Document != nil {
		if raw, err := json.MarshalIndent(d.Remedy.Document, "", "  "); err == nil {
			fmt.Fprintf(&b, "%s\n", raw)
		}
	}
	return b.String()
}

func (d Decision) statement(b *strings.Builder, st policy.Detail) {
	how := "does not match"
	if st.Matched {
		how = "matches"
	}
	fmt.Fprintf(b, "  %s (%s) %s\n", st.Statement, st.Effect, how)
	for _, part := range st.Parts {
		name := part.Element
		if part.Element == "Condition" {
			name = part.Operator + " " + part.Key
		}
		if part.Met {
			fmt.Fprintf(b, "    met      %s: %s\n", name, some(part.Policy))
			continue
		}
		fmt.Fprintf(b, "    not met  %s\n", name)
		fmt.Fprintf(b, "               the policy says  %s\n", some(part.Policy))
		fmt.Fprintf(b, "               the request has  %s\n", some(part.Request))
		if part.Hint != "" {
			fmt.Fprintf(b, "               %s\n", part.Hint)
		}
	}
}

// some is a list for people: its first few items.
func some(list []string) string {
	const few = 4
	switch {
	case len(list) == 0:
		return "nothing"
	case len(list) > few:
		return fmt.Sprintf("%s, … (%d in all)", strings.Join(list[:few], ", "), len(list))
	}
	return strings.Join(list, ", ")
}

func orNothing(s string) string {
	if s == "" {
		return "nobody"
	}
	return s
}

// seal is a key for the messages that a refused EC2 call carries. AWS's cannot
// be read without sts:DecodeAuthorizationMessage, so ours cannot either.
type seal struct{ gcm cipher.AEAD }

func newSeal(secret string) (seal, error) {
	key := sha256.Sum256([]byte("encoded authorization message\x00" + secret))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return seal{}, err
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	return seal{gcm}, err
}

func (x seal) close(text []byte) string {
	return base64.RawURLEncoding.EncodeToString(x.gcm.Seal(nil, nil, text, nil))
}

func (x seal) open(message string) (string, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(message)
	if err != nil {
		return "", false
	}
	text, err := x.gcm.Open(nil, nil, raw, nil)
	return string(text), err == nil
}

// sealDenial is what DecodeAuthorizationMessage tells of a denial, in AWS's
// shape, documented by example.
func (s *Stage) sealDenial(call *wire.Call, r *policy.Request, explicit bool) string {
	type item struct {
		Key    string `json:"key"`
		Values any    `json:"values"`
	}
	type value struct {
		Value string `json:"value"`
	}
	items := func(list any) map[string]any { return map[string]any{"items": list} }
	conditions := []item{}
	for _, key := range slices.Sorted(maps.Keys(r.Context)) {
		var values []value
		for _, v := range r.Context[key] {
			values = append(values, value{v})
		}
		conditions = append(conditions, item{key, items(values)})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(map[string]any{
		"allowed": false, "explicitDeny": explicit, "matchedStatements": items([]any{}), "failures": items([]any{}),
		"context": map[string]any{
			"principal": map[string]string{"id": call.Principal.UserID, "arn": call.Principal.ARN},
			"action":    r.Action, "resource": r.Resource, "conditions": items(conditions),
		},
	})
	if err != nil { // strings always encode
		panic(err)
	}
	return s.seal.close(bytes.TrimSpace(b.Bytes()))
}
