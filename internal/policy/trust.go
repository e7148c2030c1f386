package policy

import (
	"slices"
	"strings"
)

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
	op := c.op
	if op.negated || !strings.HasPrefix(op.base, "String") || len(c.Values) == 0 {
		return false
	}
	return !slices.ContainsFunc(c.Values, func(v string) bool {
		return strings.Trim(v, "*") == "" || strings.Contains(op.base, "Like") && strings.Trim(v, "*?") == ""
	})
}
