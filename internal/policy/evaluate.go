package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Request is what is asked of the policies.
type Request struct {
	Action   string // svc:Action
	Resource string // an ARN, or * where the action has none
	// Principals are the forms under which a trust or resource policy may name
	// the caller: AWS → session ARN, role ARN, account; Federated; Service.
	Principals map[string][]string
	// Context holds the condition keys of the request; names match in any case.
	Context map[string][]string
}

func (r *Request) lookup(key string) ([]string, bool) {
	if v, ok := r.Context[key]; ok {
		return v, true
	}
	for k, v := range r.Context {
		if strings.EqualFold(k, key) {
			return v, true
		}
	}
	return nil, false
}

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
		values, _ := r.lookup(strings.TrimSpace(key))
		switch {
		case len(values) == 1:
			b.WriteString(values[0])
		case len(values) == 0 && hasDefault:
			b.WriteString(strings.Trim(strings.TrimSpace(fallback), "'"))
		default:
			return "", false
		}
	}
}

// Named is a document with the name it is known by, for explanations.
type Named struct {
	Name     string // policy name or ARN
	Document *Document
}

// Policies is all that bears on one caller, within one account.
type Policies struct {
	Identity []Named
	Boundary *Named  // permissions boundary: must allow, grants nothing
	Session  []Named // session policies: must allow, grant nothing; nil when the session has none
	Resource *Named  // the resource's own policy
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

// OtherAccount is the decision on another account's resource that no policy of
// its own opens.
var OtherAccount = Decision{NoResourceAllow, "", kindResource}

// Decision is the outcome and its reason.
type Decision struct {
	Reason Reason
	Policy string // the policy of an explicit deny, or of the allow
	Kind   string // identity-based policy, session policy, permissions boundary, resource-based policy
}

// Allowed reports whether the request may go on.
func (d Decision) Allowed() bool { return d.Reason == Allowed }

// Text is AWS's wording of a denial, documented:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
func (d Decision) Text(user, action, resource string) string {
	head := fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s", user, action, resource)
	if d.Reason == ExplicitDeny {
		return head + " with an explicit deny in " + article(d.Kind) + " " + d.Kind
	}
	return head + " because no " + d.Kind + " allows the " + action + " action"
}

func article(kind string) string {
	if strings.HasPrefix(kind, "i") {
		return "an"
	}
	return "a"
}

const (
	kindIdentity = "identity-based policy"
	kindBoundary = "permissions boundary"
	kindSession  = "session policy"
	kindResource = "resource-based policy"
)

// Evaluate decides a request of a caller in the resource's own account:
// an explicit deny anywhere wins; a resource policy that names the session or
// user suffices; else identity policies must allow, and the boundary and the
// session policies, where there are any, must allow as well.
func Evaluate(r *Request, p Policies) Decision {
	groups := []struct {
		kind  string
		named []Named
	}{
		{kindIdentity, p.Identity},
		{kindBoundary, optional(p.Boundary)},
		{kindSession, p.Session},
		{kindResource, optional(p.Resource)},
	}
	for _, g := range groups {
		for _, n := range g.named {
			if n.Document.effect(r, g.kind == kindResource) == deny {
				return Decision{ExplicitDeny, n.Name, g.kind}
			}
		}
	}
	if p.Resource != nil && p.Resource.Document.effect(r, true) == allow {
		return Decision{Allowed, p.Resource.Name, kindResource}
	}
	by, ok := firstAllow(r, p.Identity)
	if !ok {
		return Decision{NoIdentityAllow, "", kindIdentity}
	}
	if p.Boundary != nil && p.Boundary.Document.effect(r, false) != allow {
		return Decision{NoBoundaryAllow, p.Boundary.Name, kindBoundary}
	}
	if p.Session != nil {
		if _, ok := firstAllow(r, p.Session); !ok {
			return Decision{NoSessionAllow, "", kindSession}
		}
	}
	return Decision{Allowed, by, kindIdentity}
}

func optional(n *Named) []Named {
	if n == nil {
		return nil
	}
	return []Named{*n}
}

func firstAllow(r *Request, named []Named) (string, bool) {
	for _, n := range named {
		if n.Document.effect(r, false) == allow {
			return n.Name, true
		}
	}
	return "", false
}

type effect int

const (
	silent effect = iota
	allow
	deny
)

// effect is what the document as a whole says of the request.
func (d *Document) effect(r *Request, withPrincipal bool) effect {
	result := silent
	for i := range d.Statements {
		st := &d.Statements[i]
		if !st.matches(r, d.Version, withPrincipal) {
			continue
		}
		if !st.Allow {
			return deny
		}
		result = allow
	}
	return result
}

func (st *Statement) matches(r *Request, version string, withPrincipal bool) bool {
	if withPrincipal && !st.matchesPrincipal(r) {
		return false
	}
	if !st.matchesAction(r.Action) || !st.matchesResource(r, version) {
		return false
	}
	return !slices.ContainsFunc(st.Conditions, func(c Condition) bool { return !c.holds(r, version) })
}

func (st *Statement) matchesAction(action string) bool {
	action = strings.ToLower(action)
	among := func(list []string) bool {
		return slices.ContainsFunc(list, func(p string) bool { return Glob(strings.ToLower(p), action) })
	}
	if st.NotActions != nil {
		return !among(st.NotActions)
	}
	return among(st.Actions)
}

func (st *Statement) matchesResource(r *Request, version string) bool {
	among := func(list []string) bool {
		return slices.ContainsFunc(list, func(p string) bool {
			if version == "2012-10-17" {
				expanded, ok := r.expand(p)
				if !ok {
					return false
				}
				p = expanded
			}
			return Glob(p, r.Resource)
		})
	}
	switch {
	case st.NotResources != nil:
		return !among(st.NotResources)
	case st.Resources != nil:
		return among(st.Resources)
	}
	return true // trust and repository policies are about what they hang on
}

func (st *Statement) matchesPrincipal(r *Request) bool {
	among := func(named map[string][]string) bool {
		for kind, values := range named {
			for _, v := range values {
				if v == "*" || slices.Contains(r.Principals[kind], v) {
					return true
				}
			}
		}
		return false
	}
	if st.NotPrincipals != nil {
		return !among(st.NotPrincipals)
	}
	return among(st.Principals)
}
