package policy

import (
	"errors"
	"strings"
	"testing"
)

func doc(t *testing.T, text string, kind Kind) *Document {
	t.Helper()
	d, err := Parse(text, kind)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return d
}

func TestConditionOperators(t *testing.T) {
	ctx := map[string][]string{
		"s": {"Main"}, "n": {"10"}, "d": {"2026-11-25T10:00:00Z"}, "b": {"true"}, "ip": {"10.1.2.3"},
		"arn": {"arn:aws:iam::1:role/a/b"}, "tags": {"env", "team"}, "aws:username": {"joe"}, "star": {"a*c"},
	}
	for _, c := range []struct {
		condition string
		want      bool
	}{
		{`{"StringEquals":{"s":"Main"}}`, true},
		{`{"StringEquals":{"S":"Main"}}`, true},
		{`{"StringEquals":{"s":"main"}}`, false},
		{`{"StringEquals":{"s":["x","Main"]}}`, true},
		{`{"StringEquals":{"s":"M*"}}`, false},
		{`{"StringNotEquals":{"s":["x","Main"]}}`, false},
		{`{"StringNotEquals":{"missing":"x"}}`, true},
		{`{"StringEquals":{"missing":"x"}}`, false},
		{`{"StringEqualsIfExists":{"missing":"x"}}`, true},
		{`{"StringEqualsIfExists":{"s":"x"}}`, false},
		{`{"StringEqualsIgnoreCase":{"s":"MAIN"}}`, true},
		{`{"StringLike":{"s":"M?i*"}}`, true},
		{`{"StringNotLike":{"s":"M*"}}`, false},
		{`{"StringLike":{"star":"a${*}c"}}`, true},
		{`{"StringLike":{"s":"M${*}"}}`, false},
		{`{"StringEquals":{"aws:username":"${aws:username}"}}`, true},
		{`{"StringEquals":{"aws:username":"${missing, 'joe'}"}}`, true},
		{`{"StringEquals":{"aws:username":"${missing}"}}`, false},
		{`{"StringNotEquals":{"aws:username":"${missing}"}}`, true},
		{`{"NumericLessThan":{"n":11}}`, true},
		{`{"NumericGreaterThanEquals":{"n":"10"}}`, true},
		{`{"NumericEquals":{"s":"1"}}`, false},
		{`{"DateGreaterThan":{"d":"2026-01-01T00:00:00Z"}}`, true},
		{`{"DateLessThan":{"d":"1700000000"}}`, false},
		{`{"Bool":{"b":true}}`, true},
		{`{"IpAddress":{"ip":"10.0.0.0/8"}}`, true},
		{`{"NotIpAddress":{"ip":"10.1.2.3"}}`, false},
		{`{"ArnLike":{"arn":"arn:aws:iam::*:role/a/*"}}`, true},
		{`{"ArnEquals":{"arn":"arn:aws:*:role/a/b"}}`, false},
		{`{"Null":{"missing":"true"}}`, true},
		{`{"Null":{"s":"true"}}`, false},
		{`{"ForAllValues:StringEquals":{"tags":["env","team","x"]}}`, true},
		{`{"ForAllValues:StringEquals":{"tags":["env"]}}`, false},
		{`{"ForAllValues:StringEquals":{"missing":["env"]}}`, true},
		{`{"ForAnyValue:StringEquals":{"tags":["env"]}}`, true},
		{`{"ForAnyValue:StringEquals":{"missing":["env"]}}`, false},
		{`{"StringEquals":{"s":"Main"},"NumericEquals":{"n":"11"}}`, false},
	} {
		d := doc(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"x:*","Resource":"*","Condition":`+c.condition+`}}`, Identity)
		if got := d.Grants(&Request{Action: "x:Do", Resource: "*", Context: ctx}); got != c.want {
			t.Errorf("%s gave %v", c.condition, got)
		}
	}
}

func TestStatementsMatchActionsAndResources(t *testing.T) {
	for _, c := range []struct {
		statement, action, resource string
		want                        bool
	}{
		{`"Action":"ecs:*","Resource":"*"`, "ecs:UpdateService", "arn:aws:ecs:r:a:service/c/s", true},
		{`"Action":"ECS:updateservice","Resource":"*"`, "ecs:UpdateService", "x", true},
		{`"Action":"ecs:Update?ervice","Resource":"arn:aws:ecs:*:*:service/c/*"`, "ecs:UpdateService", "arn:aws:ecs:r:a:service/c/s", true},
		{`"Action":"ecs:*","Resource":"arn:aws:ecs:r:a:service/C/s"`, "ecs:UpdateService", "arn:aws:ecs:r:a:service/c/s", false},
		{`"Action":"ecs:*","Resource":"arn:aws:ecs:r:a:task-definition/web:*"`, "ecs:ListClusters", "*", false},
		{`"NotAction":"iam:*","Resource":"*"`, "ecs:UpdateService", "x", true},
		{`"NotAction":"ecs:*","Resource":"*"`, "ecs:UpdateService", "x", false},
		{`"Action":"*","NotResource":"arn:aws:ecs:r:a:cluster/prod"`, "ecs:DeleteCluster", "arn:aws:ecs:r:a:cluster/prod", false},
	} {
		d := doc(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow",`+c.statement+`}}`, Identity)
		if got := d.Grants(&Request{Action: c.action, Resource: c.resource}); got != c.want {
			t.Errorf("%s on %s %s gave %v", c.statement, c.action, c.resource, got)
		}
	}
}

func TestTheOrderOfTheDecision(t *testing.T) {
	all := Named{"all", doc(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`, Identity)}
	none := Named{"deny", doc(t, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"ecs:*","Resource":"*"}}`, Identity)}
	logs := Named{"logs", doc(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"logs:*","Resource":"*"}}`, Identity)}
	repo := Named{"repo", doc(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"me"},"Action":"ecs:*"}}`, Resource)}
	r := &Request{Action: "ecs:UpdateService", Resource: "svc", Principals: map[string][]string{"AWS": {"me"}}}
	for name, c := range map[string]struct {
		p    Policies
		want Reason
		text string
	}{
		"nothing":        {Policies{}, NoIdentityAllow, "because no identity-based policy allows the ecs:UpdateService action"},
		"identity":       {Policies{Identity: []Named{all}}, Allowed, ""},
		"deny wins":      {Policies{Identity: []Named{all, none}}, ExplicitDeny, "with an explicit deny in an identity-based policy"},
		"boundary":       {Policies{Identity: []Named{all}, Boundary: &logs}, NoBoundaryAllow, "because no permissions boundary allows"},
		"session":        {Policies{Identity: []Named{all}, Session: []Named{logs}}, NoSessionAllow, "because no session policy allows"},
		"resource":       {Policies{Resource: &repo}, Allowed, ""},
		"session denies": {Policies{Resource: &repo, Session: []Named{none}}, ExplicitDeny, "with an explicit deny in a session policy"},
	} {
		d := Evaluate(r, c.p)
		if d.Reason != c.want || c.text != "" && !strings.Contains(d.Text("me", r.Action, r.Resource), c.text) {
			t.Errorf("%s: got %+v, %s", name, d, d.Text("me", r.Action, r.Resource))
		}
	}
}

const gitHub = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
 "Principal":{"Federated":"arn:aws:iam::1:oidc-provider/token.actions.githubusercontent.com"},
 "Action":"sts:AssumeRoleWithWebIdentity",
 "Condition":{"StringEquals":{"token.actions.githubusercontent.com:aud":"sts.amazonaws.com"},
  "StringLike":{"token.actions.githubusercontent.com:sub":"SUB"}}}]}`

func TestATrustPolicyExplainsItself(t *testing.T) {
	for sub, want := range map[string]string{
		"repo:acme/web:*":                   "",
		"repo:acme/web:ref:refs/heads/main": "the job names an environment",
		"repo:Acme/web:*":                   "only the case differs",
		"repo:someone/else:environment:*":   "allow repo:acme/web:environment:prod",
	} {
		d := doc(t, strings.Replace(gitHub, "SUB", sub, 1), Trust)
		r := &Request{
			Action:     "sts:AssumeRoleWithWebIdentity",
			Principals: map[string][]string{"Federated": {"arn:aws:iam::1:oidc-provider/token.actions.githubusercontent.com"}},
			Context: map[string][]string{
				"token.actions.githubusercontent.com:aud": {"sts.amazonaws.com"},
				"token.actions.githubusercontent.com:sub": {"repo:acme/web:environment:prod"},
			},
		}
		if got := d.Assume(r); got != (want == "") {
			t.Errorf("%s: assumed %v", sub, got)
		}
		if want == "" {
			continue
		}
		e := d.Explain(r)
		if len(e) != 1 || !strings.Contains(e[0].Hint, want) || e[0].Had[0] != "repo:acme/web:environment:prod" || e[0].Wanted[0] != sub {
			t.Errorf("%s: explained %+v", sub, e)
		}
	}
}

func TestATrustMustPinItsTenant(t *testing.T) {
	for sub, ok := range map[string]bool{"repo:acme/web:*": true, "*": false, "**?": false, "": false} {
		d := doc(t, strings.Replace(gitHub, "SUB", sub, 1), Trust)
		if err := d.CheckTenancy(); (err == nil) != ok {
			t.Errorf("sub %q gave %v", sub, err)
		}
	}
	open := strings.Replace(gitHub, "StringLike", "StringNotLike", 1)
	if doc(t, open, Trust).CheckTenancy() == nil {
		t.Error("a negated condition was taken for a pin")
	}
}

func TestDocumentsThatIAMRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                                 "Syntax errors in policy.",
		`{"Version":"2012-10-17"}`:          "Could not parse the policy: Statement is empty!",
		`{"Version":"2020","Statement":[]}`: "The policy must contain a valid version string",
		`{"Version":"2012-10-17","Version":"2012-10-17"}`:                                         "Syntax errors in policy.",
		st(`"Action":"ecs:*","Resource":"*"`):                                                     "Missing required field Effect",
		st(`"Effect":"allow","Action":"ecs:*","Resource":"*"`):                                    "Invalid effect: allow",
		st(`"Effect":"Allow","Resource":"*"`):                                                     "Policy statement must contain actions.",
		st(`"Effect":"Allow","Action":"ecs:*"`):                                                   "Policy statement must contain resources.",
		st(`"Effect":"Allow","Action":"list","Resource":"*"`):                                     "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
		st(`"Effect":"Allow","Action":"ecs:*","Resource":"web"`):                                  `Resource web must be in ARN format or "*".`,
		st(`"Effect":"Allow","Action":"ecs:*","Resource":"arn:x:s:r:a:b"`):                        `Partition "x" is not valid for resource "arn:x:s:r:a:b".`,
		st(`"Effect":"Allow","Action":"ecs:*","Resource":"*","Principal":"*"`):                    "Policy document should not specify a principal.",
		st(`"Effect":"Allow","Action":"ecs:*","Resource":"*","Condition":{"StringIs":{"a":"b"}}`): "Invalid Condition type : StringIs.",
	} {
		_, err := Parse(text, Identity)
		if e, ok := errors.AsType[*SyntaxError](err); !ok || e.Message != want {
			t.Errorf("%s gave %v, want %s", text, err, want)
		}
	}
	_, err := Parse(st(`"Effect":"Allow","Principal":"*","Action":"ecs:*"`), Trust)
	if err == nil || err.Error() != "AssumeRole policy may only specify STS AssumeRole actions." {
		t.Errorf("a trust of ecs gave %v", err)
	}
}

func st(body string) string { return `{"Version":"2012-10-17","Statement":{` + body + `}}` }

func FuzzParse(f *testing.F) {
	f.Add(gitHub)
	f.Add(st(`"Effect":"Allow","Action":"ecs:*","Resource":"${a, 'b'}*"`))
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []Kind{Identity, Trust, Resource} {
			if d, err := Parse(text, kind); err == nil {
				d.Assume(&Request{Action: "ecs:X", Resource: "r", Context: map[string][]string{"a": {"b"}}})
				d.CheckTenancy()
			}
		}
	})
}
