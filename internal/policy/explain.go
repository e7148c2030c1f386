package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Look is one policy that was looked at, and what each of its statements said.
type Look struct {
	Policy  string   `json:"policy"`
	Kind    string   `json:"kind"`
	Says    string   `json:"says"` // allow, deny or nothing
	Details []Detail `json:"statements"`
}

// Detail is one statement beside the request.
type Detail struct {
	Statement string `json:"statement"` // its Sid, or its position from 1
	Effect    string `json:"effect"`
	Matched   bool   `json:"matched"`
	Parts     []Part `json:"parts"`
}

// Part is one element of a statement: what the policy wants and what the
// request has. An element that is met is told too.
type Part struct {
	Element  string   `json:"element"` // Principal, Action, Resource, Condition
	Operator string   `json:"operator,omitempty"`
	Key      string   `json:"key,omitempty"`
	Policy   []string `json:"policy"`
	Request  []string `json:"request"` // nil when the request has no such key
	Met      bool     `json:"met"`
	Hint     string   `json:"hint,omitempty"`
}

// Explain puts every policy beside the request, statement by statement.
func Explain(r *Request, p Policies) []Look {
	var out []Look
	add := func(kind string, list []Named) {
		for _, n := range list {
			out = append(out, look(r, n, kind))
		}
	}
	if p.Resource != nil {
		add(p.resourceKind(), []Named{*p.Resource})
	}
	add(KindIdentity, p.Identity)
	if p.Boundary != nil {
		add(KindBoundary, []Named{*p.Boundary})
	}
	add(KindSession, p.Session)
	return out
}

func look(r *Request, n Named, kind string) Look {
	l := Look{Policy: n.Name, Kind: kind, Says: "nothing", Details: []Detail{}}
	for i := range n.Document.Statements {
		d := n.Document.Statements[i].detail(r, i, kind == KindResource || kind == KindTrust)
		if d.Matched && l.Says != "deny" {
			l.Says = strings.ToLower(d.Effect)
		}
		l.Details = append(l.Details, d)
	}
	return l
}

// Name is what a statement is called: its Sid, or its position.
func (st *Statement) Name(index int) string {
	if st.Sid != "" {
		return st.Sid
	}
	return fmt.Sprintf("statement %d", index+1)
}

func (st *Statement) detail(r *Request, index int, withPrincipal bool) Detail {
	d := Detail{Statement: st.Name(index), Effect: "Deny", Matched: true}
	if st.Allow {
		d.Effect = "Allow"
	}
	add := func(p Part) {
		d.Matched = d.Matched && p.Met
		d.Parts = append(d.Parts, p)
	}
	if withPrincipal {
		add(st.principalPart(r))
	}
	name, values := "Action", st.Actions
	if st.NotActions != nil {
		name, values = "NotAction", st.NotActions
	}
	add(Part{Element: name, Policy: values, Request: []string{r.Action}, Met: st.matchesAction(r)})
	if st.resources != nil {
		name, values = "Resource", st.Resources
		if st.NotResources != nil {
			name, values = "NotResource", st.NotResources
		}
		p := Part{Element: name, Policy: values, Request: []string{r.Resource}, Met: st.matchesResource(r)}
		if !p.Met && st.NotResources == nil {
			p.Hint = resourceHint(st.Resources, r.Resource)
		}
		add(p)
	}
	for i := range st.Conditions {
		c := &st.Conditions[i]
		have := r.Context[c.key]
		p := Part{Element: "Condition", Operator: c.Operator, Key: c.Key, Policy: c.Values, Request: have, Met: c.holds(r)}
		if !p.Met {
			p.Hint = c.hint(have)
		}
		add(p)
	}
	return d
}

func (st *Statement) principalPart(r *Request) Part {
	p := Part{Element: "Principal", Met: st.names(&r.Principal) != nobody}
	values := st.Principals
	if st.NotPrincipals != nil {
		p.Element, values = "NotPrincipal", st.NotPrincipals
	}
	for _, kind := range []string{"AWS", "Federated", "Service", "CanonicalUser"} {
		for _, v := range values[kind] {
			p.Policy = append(p.Policy, kind+": "+v)
		}
	}
	for _, had := range [][2]string{{"AWS", r.Principal.ARN}, {"AWS", r.Principal.Role}, {"Federated", r.Principal.Federated}, {"Service", r.Principal.Service}} {
		if had[1] != "" {
			p.Request = append(p.Request, had[0]+": "+had[1])
		}
	}
	if p.Met || st.NotPrincipals != nil {
		return p
	}
	for _, want := range p.Policy {
		for _, have := range p.Request {
			if strings.EqualFold(want, have) {
				p.Hint = "only the case differs; principals are case-sensitive"
			}
		}
	}
	return p
}

func resourceHint(wanted []string, have string) string {
	for _, w := range wanted {
		switch {
		case Glob(strings.ToLower(w), strings.ToLower(have)):
			return "only the case differs; ARNs are case-sensitive"
		case have == "*":
			return "this action has no resource: only a statement on * can allow it"
		}
		wp, hp := strings.SplitN(w, ":", 6), strings.SplitN(have, ":", 6)
		if len(wp) != 6 || len(hp) != 6 || !Glob(wp[2], hp[2]) || !Glob(wp[5], hp[5]) {
			continue
		}
		if !Glob(wp[3], hp[3]) {
			return fmt.Sprintf("only the region differs: the policy says %q, the resource is in %q", wp[3], hp[3])
		}
		if !Glob(wp[4], hp[4]) {
			return fmt.Sprintf("only the account differs: the policy says %q, the resource is in %q", wp[4], hp[4])
		}
	}
	return ""
}

// hint recognises the usual mistakes, above all those with GitHub's tokens.
func (c *Condition) hint(had []string) string {
	if len(had) == 0 {
		if claim, ok := strings.CutPrefix(c.key, "token.actions.githubusercontent.com:"); ok && slices.Contains(hiddenClaims, claim) {
			return fmt.Sprintf("AWS does not offer GitHub's claim %s to policies: a condition on it is never met", claim)
		}
		return fmt.Sprintf("the request carries no %s", c.Key)
	}
	have := had[0]
	for _, want := range c.Values {
		switch {
		case c.op.negated:
		case strings.EqualFold(want, have), c.op.globs && Glob(strings.ToLower(want), strings.ToLower(have)):
			return "only the case differs; values are case-sensitive"
		case !c.op.globs && strings.ContainsAny(want, "*?") && Glob(want, have):
			return c.Operator + " takes * and ? literally; use StringLike"
		}
	}
	if strings.HasSuffix(c.key, ":aud") && strings.HasPrefix(have, "https://github.com/") {
		return "the token was asked for without an audience, so it has GitHub's own; ask for sts.amazonaws.com"
	}
	if !strings.HasSuffix(c.key, ":sub") {
		return ""
	}
	switch {
	case strings.Contains(have, ":environment:") && !anyContains(c.Values, ":environment:"):
		return "the job names an environment, and then sub holds the environment in place of :ref:"
	case strings.Contains(have, "@") && !anyContains(c.Values, "@"):
		return "the repository has GitHub's immutable subject, repo:OWNER@ID/REPO@ID:…; the policy must, too"
	case !strings.Contains(have, "@") && anyContains(c.Values, "@"):
		return "the policy has GitHub's immutable subject, repo:OWNER@ID/REPO@ID:…; this repository's tokens do not"
	case strings.HasSuffix(have, ":pull_request") && !anyContains(c.Values, "pull_request"):
		return "the job runs for a pull request, and then sub ends in :pull_request in place of :ref:"
	case strings.Contains(have, ":ref:refs/tags/") && anyContains(c.Values, ":ref:refs/heads/"):
		return "the job runs for a tag; the policy names a branch"
	}
	return ""
}

// hiddenClaims are in GitHub's tokens but not among the condition keys of AWS,
// documented.
var hiddenClaims = []string{"event_name", "run_id", "run_number", "run_attempt", "runner_environment", "repository_owner", "repository_visibility", "sha", "workflow_ref", "workflow_sha", "job_workflow_sha", "ref_type", "ref_protected", "base_ref", "head_ref", "jti", "enterprise", "check_run_id"}

func anyContains(values []string, part string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, part) })
}

// Remedy is the smallest change that would allow a request.
type Remedy struct {
	Advice   string    `json:"advice"`             // in one sentence
	Policy   string    `json:"policy,omitempty"`   // the policy to change, when it is one that is there
	Document *Document `json:"document,omitempty"` // to paste: a policy to add, or the changed one
}

// Fix finds what would allow a request that was denied.
func Fix(r *Request, p Policies, d Decision) Remedy {
	switch d.Reason {
	case ExplicitDeny:
		for _, l := range Explain(r, p) {
			for _, st := range l.Details {
				if l.Policy == d.Policy && st.Matched && st.Effect == "Deny" {
					return Remedy{Advice: fmt.Sprintf("%s of %s denies it, and nothing that is added can outweigh that: narrow or remove that statement", st.Statement, l.Policy), Policy: l.Policy}
				}
			}
		}
	case NoIdentityAllow:
		return Remedy{Advice: "attach this policy to the role or user", Document: grant(r)}
	case NoBoundaryAllow:
		return Remedy{Advice: "the permissions boundary must allow it, too: add this statement to it", Policy: d.Policy, Document: grant(r)}
	case NoSessionAllow:
		return Remedy{Advice: "the session was limited when it was made: its session policy must contain this statement", Document: grant(r)}
	case NoResourceAllow:
		if p.Resource != nil {
			return fixResource(r, p)
		}
		return Remedy{Advice: "the resource belongs to another account: a policy on it must name the caller"}
	}
	return Remedy{}
}

// grant is a policy that allows the request and little else.
func grant(r *Request) *Document {
	st := Statement{Allow: true, Actions: []string{r.Action}, Resources: []string{Literal(cmp.Or(r.Alias, r.Resource), r.Wild)}}
	if to := r.Context.Get("iam:PassedToService"); len(to) > 0 {
		st.Conditions = []Condition{{Operator: "StringEquals", Key: "iam:PassedToService", Values: to}}
	}
	return newDocument(st)
}

// Literal writes a resource so that nothing of it is a wildcard or a variable,
// but for a star at its end if that is the service's own. What a caller called
// its resources must not widen a policy that is made of them.
func Literal(resource string, wild bool) string {
	star := ""
	if wild {
		resource, star = strings.TrimSuffix(resource, "*"), "*"
	}
	if resource == "*" { // an action without a resource
		return resource
	}
	return literal(resource) + star
}

func literal(value string) string {
	return strings.NewReplacer("${", "${$}{", "*", "${*}", "?", "${?}").Replace(value)
}

func newDocument(statements ...Statement) *Document {
	return compiled("2012-10-17", statements)
}

// compiled is a document of copies of the statements: what is shared with other
// documents is not touched.
func compiled(version string, statements []Statement) *Document {
	d := &Document{Version: version, Statements: slices.Clone(statements)}
	for i := range d.Statements {
		d.Statements[i].Conditions = slices.Clone(d.Statements[i].Conditions)
		d.Statements[i].compile(version)
	}
	return d
}

// fixResource changes the Allow statement that came nearest.
func fixResource(r *Request, p Policies) Remedy {
	doc := p.Resource.Document
	best, misses := -1, 0
	var nearest Detail
	for i := range doc.Statements {
		d := doc.Statements[i].detail(r, i, true)
		n := 0
		for _, part := range d.Parts {
			if !part.Met {
				n++
				if part.Element != "Condition" { // another principal or action is further away
					n += 10
				}
			}
		}
		if d.Effect == "Allow" && (best < 0 || n < misses) {
			best, misses, nearest = i, n, d
		}
	}
	if best < 0 {
		return Remedy{Advice: "no statement of " + p.Resource.Name + " allows anything", Policy: p.Resource.Name}
	}
	statements := slices.Clone(doc.Statements)
	st := statements[best]
	var advice []string
	for _, part := range nearest.Parts {
		if part.Met {
			continue
		}
		how, ok := st.allowPart(r, part, doc.Version)
		if !ok { // a condition that protects something is not taken away
			return Remedy{Advice: fmt.Sprintf("%s of %s wants %s", nearest.Statement, p.Resource.Name, how), Policy: p.Resource.Name}
		}
		advice = append(advice, how)
	}
	statements[best] = st
	fixed := compiled(doc.Version, statements)
	opened := doc.CheckTenancy() == nil && fixed.CheckTenancy() != nil
	if len(advice) == 0 || opened || !fixed.Assume(r) {
		return Remedy{Advice: "no small change of " + p.Resource.Name + " would let this request in", Policy: p.Resource.Name}
	}
	return Remedy{Advice: fmt.Sprintf("in %s of %s, %s", nearest.Statement, p.Resource.Name, strings.Join(advice, "; ")), Policy: p.Resource.Name, Document: fixed}
}

// allowPart changes the statement so that one element is met, and says how; ok is
// false where the request is what should change.
func (st *Statement) allowPart(r *Request, part Part, version string) (how string, ok bool) {
	switch part.Element {
	case "Principal":
		kind, value := r.Principal.element()
		principals := map[string][]string{}
		for k, v := range st.Principals {
			principals[k] = slices.Clone(v)
		}
		principals[kind] = append(principals[kind], value)
		st.Principals = principals
		return "trust " + value, true
	case "Action":
		st.Actions = append(slices.Clone(st.Actions), r.Action)
		return "allow " + r.Action, true
	case "Condition":
		return st.allowCondition(part, version)
	}
	return "another " + part.Element, false
}

func (st *Statement) allowCondition(part Part, version string) (how string, ok bool) {
	st.Conditions = slices.Clone(st.Conditions)
	i := slices.IndexFunc(st.Conditions, func(c Condition) bool { return c.Operator == part.Operator && c.Key == part.Key })
	c := &st.Conditions[i]
	if len(part.Request) == 0 || c.op.negated || c.op.set != "" || !strings.HasPrefix(c.op.base, "String") {
		return fmt.Sprintf("%s on %s to hold: the request must change, not the policy", part.Operator, part.Key), false
	}
	if strings.Contains(part.Hint, "use StringLike") {
		c.Operator = "StringLike"
		return "write StringLike instead of " + part.Operator, true
	}
	have := part.Request[0]
	for i, want := range c.Values {
		if strings.HasPrefix(part.Hint, "only the case differs") && Glob(strings.ToLower(want), strings.ToLower(have)) {
			c.Values = slices.Clone(c.Values)
			c.Values[i] = recase(want, have)
			return fmt.Sprintf("write %s instead of %s", c.Values[i], want), true
		}
	}
	value := have
	if version == "2012-10-17" && (c.op.globs || strings.Contains(have, "${")) {
		if value = literal(have); !c.op.globs {
			value = strings.ReplaceAll(have, "${", "${$}{")
		}
	} else if c.op.globs && strings.ContainsAny(have, "*?") {
		return fmt.Sprintf("%s without wildcards: the request has %s", part.Key, have), false
	}
	c.Values = append(slices.Clone(c.Values), value)
	return fmt.Sprintf("let %s be %s", part.Key, value), true
}

// recase writes a value as the request has it; a star at its end stays.
func recase(want, have string) string {
	if prefix, ok := strings.CutSuffix(want, "*"); ok && !strings.ContainsAny(prefix, "*?") && len(prefix) <= len(have) {
		return literal(have[:len(prefix)]) + "*"
	}
	return literal(have)
}
