package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Assume decides whether a trust policy lets the caller assume its role.
func (d *Document) Assume(r *Request) bool { return d.effect(r, true) == allow }

// Grants decides whether the document, by itself, allows the request.
func (d *Document) Grants(r *Request) bool { return d.effect(r, false) == allow }

// Explanation says, for people, why a trust policy let nobody in. AWS never
// says; the stage keeps it for whoever asks.
type Explanation struct {
	Statement string   // Sid or position
	Problem   string   // in one sentence
	Condition string   // operator and key, when a condition failed
	Wanted    []string // the policy's values
	Had       []string // the request's values, nil when it has none
	Hint      string   // what would fix it, when we know
}

// Explain compares each Allow statement with the request and returns what kept
// it from matching, the nearest miss first.
func (d *Document) Explain(r *Request) []Explanation {
	var out []Explanation
	for i := range d.Statements {
		st := &d.Statements[i]
		name := st.Sid
		if name == "" {
			name = fmt.Sprintf("statement %d", i+1)
		}
		if !st.Allow {
			if st.matches(r, d.Version, true) {
				return []Explanation{{Statement: name, Problem: "it denies the request explicitly"}}
			}
			continue
		}
		if e, ok := st.explain(r, d.Version); ok {
			e.Statement = name
			out = append(out, e)
		}
	}
	// A statement that got as far as its conditions is nearer than one about others.
	slices.SortStableFunc(out, func(a, b Explanation) int { return rank(a) - rank(b) })
	return out
}

func rank(e Explanation) int {
	if e.Condition != "" {
		return 0
	}
	return 1
}

func (st *Statement) explain(r *Request, version string) (Explanation, bool) {
	if !st.matchesAction(r.Action) {
		return Explanation{Problem: "it is about other actions: " + strings.Join(st.Actions, ", ")}, true
	}
	if !st.matchesPrincipal(r) {
		var wanted, had []string
		for _, v := range st.Principals {
			wanted = append(wanted, v...)
		}
		for _, v := range r.Principals {
			had = append(had, v...)
		}
		return Explanation{Problem: "it trusts another principal", Wanted: wanted, Had: had}, true
	}
	for _, c := range st.Conditions {
		if c.holds(r, version) {
			continue
		}
		had, _ := r.lookup(c.Key)
		e := Explanation{
			Problem:   fmt.Sprintf("its condition %s on %s is not met", c.Operator, c.Key),
			Condition: c.Operator + " " + c.Key,
			Wanted:    c.Values,
			Had:       had,
		}
		e.Hint = hint(c, had)
		return e, true
	}
	return Explanation{}, false
}

// hint recognises the usual mistakes with GitHub's tokens.
func hint(c Condition, had []string) string {
	if len(had) == 0 {
		return fmt.Sprintf("the request carries no %s; a condition on it is never met", c.Key)
	}
	have := had[0]
	for _, want := range c.Values {
		switch {
		case strings.EqualFold(want, have) || strings.HasPrefix(c.Operator, "StringLike") && Glob(strings.ToLower(want), strings.ToLower(have)):
			return "only the case differs; values are case-sensitive"
		case !strings.Contains(c.Operator, "Like") && strings.ContainsAny(want, "*?") && Glob(want, have):
			return c.Operator + " takes * and ? literally; use StringLike"
		}
	}
	if !strings.HasSuffix(c.Key, ":sub") {
		return ""
	}
	switch {
	case strings.Contains(have, ":environment:") && !anyContains(c.Values, ":environment:"):
		return "the job names an environment, and then sub holds the environment instead of the branch"
	case strings.Contains(have, "@") && !anyContains(c.Values, "@"):
		return "the repository uses GitHub's immutable subject, repo:OWNER@ID/REPO@ID:…; the policy must, too"
	case strings.HasSuffix(have, ":pull_request") && !anyContains(c.Values, "pull_request"):
		return "the job runs for a pull request, and then sub ends in pull_request"
	}
	return "allow " + have + " in the condition, or run the workflow from a repository and ref that it names"
}

func anyContains(values []string, part string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, part) })
}

// SharedIssuers are the OIDC providers that serve many tenants, with the claim
// that a trust policy must pin. Documented:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_oidc_secure-by-default.html
var SharedIssuers = map[string]string{
	"token.actions.githubusercontent.com":                "sub",
	"vstoken.actions.githubusercontent.com":              "sub",
	"oidc-configuration.audit-log.githubusercontent.com": "sub",
	"gitlab.com":              "sub",
	"agent.buildkite.com":     "sub",
	"app.terraform.io":        "sub",
	"oidc.codefresh.io":       "sub",
	"studio.datachain.ai/api": "sub",
	"scalr.io":                "sub",
	"tokens.cloud.shisho.dev": "sub",
	"proidc.upbound.io":       "sub",
	"api.pulumi.com/oidc":     "aud",
	"sandboxes.cloud":         "aud",
	"oidc.vercel.com":         "aud",
}

// CheckTenancy refuses a trust policy that lets every tenant of a shared
// issuer in. The rule is documented, its text is not: ours is a guess.
func (d *Document) CheckTenancy() error {
	for i := range d.Statements {
		st := &d.Statements[i]
		if !st.Allow {
			continue
		}
		for _, federated := range st.Principals["Federated"] {
			_, issuer, ok := strings.Cut(federated, ":oidc-provider/")
			claim := SharedIssuers[issuer]
			if !ok || claim == "" {
				continue
			}
			key := issuer + ":" + claim
			if !slices.ContainsFunc(st.Conditions, func(c Condition) bool { return strings.EqualFold(c.Key, key) && c.pins() }) {
				return syntax("The trust policy trusts the shared OpenID Connect provider %q without a condition that limits %q to your own tenant.", issuer, key)
			}
		}
	}
	return nil
}

// pins reports whether a condition limits its key to something: a positive
// string operator with no value that lets everything through.
func (c Condition) pins() bool {
	op, err := parseOperator(c.Operator)
	if err != nil || op.negated || !strings.HasPrefix(op.base, "String") || len(c.Values) == 0 {
		return false
	}
	return !slices.ContainsFunc(c.Values, func(v string) bool {
		return strings.Trim(v, "*") == "" || strings.Contains(op.base, "Like") && strings.Trim(v, "*?") == ""
	})
}
