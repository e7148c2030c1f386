package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Request is what is asked of the policies; one goroutine asks it at a time.
type Request struct {
	Action    string // svc:Action
	Resource  string // an ARN, or * where the action has none
	Alias     string // another form in which policies may name the resource
	Wild      bool   // Resource ends in a star that is the service's, not the caller's
	Principal Principal
	Context   Context

	action string // Action in lower case, once it was needed
}

// Principal is the forms under which a trust or resource policy may name the
// caller. Empty ones name nobody.
type Principal struct {
	ARN       string // of the session or the user
	Role      string // ARN of the session's role
	Account   string
	Federated string // ARN of the identity provider
	Service   string // ecs-tasks.amazonaws.com
}

// element is the principal as a policy would name it: a session by its role.
func (p Principal) element() (kind, value string) {
	switch {
	case p.Federated != "":
		return "Federated", p.Federated
	case p.Service != "":
		return "Service", p.Service
	}
	return "AWS", cmp.Or(p.Role, p.ARN)
}

// Context holds the condition keys of a request. Keys match in any case, so
// they are kept in lower case: use Set.
type Context map[string][]string

// Set gives a key its values; none removes it.
func (c Context) Set(key string, values ...string) {
	key = strings.ToLower(key)
	if len(values) == 0 {
		delete(c, key)
		return
	}
	c[key] = values
}

// Get is a key's values.
func (c Context) Get(key string) []string { return c[strings.ToLower(key)] }

// expand replaces ${key}, ${key, 'default'} and the literals ${*}, ${?}, ${$}.
// It fails where a key has not exactly one value and no default.
func (r *Request) expand(s string) (string, bool) {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "${")
		b.WriteString(before)
		if !ok {
			return b.String(), true
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			return "", false
		}
		s = after
		if name == "*" || name == "?" || name == "$" {
			b.WriteByte(escape)
			b.WriteString(name)
			continue
		}
		key, fallback, hasDefault := strings.Cut(name, ",")
		values := r.Context.Get(strings.TrimSpace(key))
		switch {
		case len(values) == 1:
			b.WriteString(quoted(values[0]))
		case len(values) == 0 && hasDefault:
			b.WriteString(quoted(strings.Trim(strings.TrimSpace(fallback), "'")))
		default:
			return "", false
		}
	}
}

// quoted keeps a value's own * and ? from being taken for wildcards: whoever
// chooses a session name must not choose what a policy matches.
func quoted(value string) string {
	const special = "*?\x00"
	if !strings.ContainsAny(value, special) {
		return value
	}
	var b strings.Builder
	for i := range len(value) {
		if strings.IndexByte(special, value[i]) >= 0 {
			b.WriteByte(escape)
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// Named is a document with the name it is known by, for explanations.
type Named struct {
	Name     string // policy name or ARN
	Document *Document
}

// Policies is all that bears on one caller and one resource.
type Policies struct {
	Identity []Named
	Boundary *Named  // permissions boundary: must allow, grants nothing
	Session  []Named // session policies: must allow, grant nothing; nil when the session has none
	Resource *Named  // the resource's own policy
	// Trust says that Resource is a role's trust policy, which must allow.
	Trust bool
	// Elsewhere says that the resource is another account's: both sides must allow.
	Elsewhere bool
}

// Reason is why a request was decided as it was.
type Reason int

const (
	Allowed Reason = iota
	ExplicitDeny
	NoIdentityAllow
	NoBoundaryAllow
	NoSessionAllow
	NoResourceAllow
)

// Decision is the outcome and its reason.
type Decision struct {
	Reason Reason
	Policy string // the policy of an explicit deny, or of the allow
	Kind   string // identity-based policy, session policy, permissions boundary, resource-based policy, role trust policy
}

// Allowed reports whether the request may go on.
func (d Decision) Allowed() bool { return d.Reason == Allowed }

// Text is AWS's wording of a denial, documented:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
func (d Decision) Text(user, action, resource string) string {
	head := fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s", user, action, resource)
	switch {
	case d.Reason == ExplicitDeny:
		return head + " with an explicit deny in " + article(d.Kind) + " " + d.Kind
	case d.Kind == KindTrust: // STS says no more
		return head
	}
	return head + " because no " + d.Kind + " allows the " + action + " action"
}

func article(kind string) string {
	if strings.HasPrefix(kind, "i") {
		return "an"
	}
	return "a"
}

// The kinds of policies, as AWS's denials name them.
const (
	KindIdentity = "identity-based policy"
	KindBoundary = "permissions boundary"
	KindSession  = "session policy"
	KindResource = "resource-based policy"
	KindTrust    = "role trust policy"
)

// grade is how closely a resource policy names the caller.
type grade int

const (
	nobody  grade = iota
	account       // the account: its identity policies decide
	role          // the role, or everybody: boundary and session policies still limit
	direct        // the session or the user itself: nothing but a deny limits
)

// Evaluate decides a request as the user guide documents for one account: an
// explicit deny anywhere wins. A resource policy that names the session or user
// suffices; one that names the role suffices within boundary and session
// policies; else identity policies must allow, and the boundary and the session
// policies, where there are any, as well. A trust policy must allow in any
// case, and so must the policy of another account's resource.
func Evaluate(r *Request, p Policies) Decision {
	resource, named := silent, nobody
	if p.Resource != nil {
		if resource, named = p.Resource.Document.resourceEffect(r); resource == deny {
			return Decision{ExplicitDeny, p.Resource.Name, p.resourceKind()}
		}
	}
	identity, by, denied := effectOf(r, p.Identity)
	if denied {
		return Decision{ExplicitDeny, by, KindIdentity}
	}
	boundary := p.Boundary == nil
	if p.Boundary != nil {
		switch p.Boundary.Document.effect(r) {
		case deny:
			return Decision{ExplicitDeny, p.Boundary.Name, KindBoundary}
		case allow:
			boundary = true
		}
	}
	session, sessionBy, denied := effectOf(r, p.Session)
	if denied {
		return Decision{ExplicitDeny, sessionBy, KindSession}
	}
	session = session || p.Session == nil

	if resource != allow && (p.Trust || p.Elsewhere) {
		return Decision{NoResourceAllow, "", p.resourceKind()}
	}
	if resource == allow && named == direct && !p.Elsewhere {
		return Decision{Allowed, p.Resource.Name, p.resourceKind()}
	}
	opened := resource == allow && named == role && !p.Elsewhere
	switch {
	case !identity && !opened:
		return Decision{NoIdentityAllow, "", KindIdentity}
	case !boundary:
		return Decision{NoBoundaryAllow, p.Boundary.Name, KindBoundary}
	case !session:
		return Decision{NoSessionAllow, "", KindSession}
	case !identity:
		return Decision{Allowed, p.Resource.Name, p.resourceKind()}
	}
	return Decision{Allowed, by, KindIdentity}
}

func (p *Policies) resourceKind() string {
	if p.Trust {
		return KindTrust
	}
	return KindResource
}

// effectOf is whether any of the policies allows, and whether one denies; by
// names that policy.
func effectOf(r *Request, list []Named) (allowed bool, by string, denied bool) {
	for i := range list {
		switch list[i].Document.effect(r) {
		case deny:
			return false, list[i].Name, true
		case allow:
			if !allowed {
				allowed, by = true, list[i].Name
			}
		}
	}
	return allowed, by, false
}

// Assume decides whether a trust policy alone lets the caller in, whatever
// identity policies say: for services and for web identities, which have none.
func (d *Document) Assume(r *Request) bool {
	e, _ := d.resourceEffect(r)
	return e == allow
}

// Grants decides whether the document, by itself, allows the request.
func (d *Document) Grants(r *Request) bool { return d.effect(r) == allow }

type effect int

const (
	silent effect = iota
	allow
	deny
)

// effect is what the document as a whole says of the request.
func (d *Document) effect(r *Request) effect {
	result := silent
	for i := range d.Statements {
		st := &d.Statements[i]
		if !st.matches(r) {
			continue
		}
		if !st.Allow {
			return deny
		}
		result = allow
	}
	return result
}

// resourceEffect is what a document with principals says, and how closely the
// statement that allows names the caller.
func (d *Document) resourceEffect(r *Request) (effect, grade) {
	result, closest := silent, nobody
	for i := range d.Statements {
		st := &d.Statements[i]
		g := st.names(&r.Principal)
		if g == nobody || !st.matches(r) {
			continue
		}
		if !st.Allow {
			return deny, g
		}
		result, closest = allow, max(closest, g)
	}
	return result, closest
}

func (st *Statement) matches(r *Request) bool {
	if !st.matchesAction(r) || !st.matchesResource(r) {
		return false
	}
	for i := range st.Conditions {
		if !st.Conditions[i].holds(r) {
			return false
		}
	}
	return true
}

func (st *Statement) matchesAction(r *Request) bool {
	if r.action == "" {
		r.action = strings.ToLower(r.Action)
	}
	return slices.ContainsFunc(st.actions, func(p pattern) bool { return p.match(r.action, r) }) == (st.NotActions == nil)
}

func (st *Statement) matchesResource(r *Request) bool {
	if st.resources == nil {
		return true // trust and repository policies are about what they hang on
	}
	hit := slices.ContainsFunc(st.resources, func(p pattern) bool { return p.match(r.Resource, r) || r.Alias != "" && p.match(r.Alias, r) })
	return hit == (st.NotResources == nil)
}

// names grades how the statement names the caller. A NotPrincipal names
// everybody else. From a Deny it exempts the session or user itself: a role or
// an account in it exempts nobody alone, documented.
func (st *Statement) names(p *Principal) grade {
	if st.NotPrincipals != nil {
		g := among(st.NotPrincipals, p)
		if g == direct || st.Allow && g != nobody {
			return nobody
		}
		return role
	}
	return among(st.Principals, p)
}

func among(list map[string][]string, p *Principal) grade {
	g := nobody
	for kind, values := range list {
		for _, v := range values {
			g = max(g, gradeOf(kind, v, p))
		}
	}
	return g
}

func gradeOf(kind, value string, p *Principal) grade {
	switch {
	case value == "":
	case kind == "AWS" && value == "*":
		return role
	case kind == "Service" && value == p.Service, kind == "Federated" && value == p.Federated, kind == "AWS" && value == p.ARN:
		return direct
	case kind == "AWS" && value == p.Role:
		return role
	case kind == "AWS" && p.Account != "" && (value == p.Account || value == "arn:aws:iam::"+p.Account+":root"):
		return account
	}
	return nobody
}
