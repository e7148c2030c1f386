package policy

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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
	ctx := Context{
		"s": {"Main"}, "n": {"10"}, "d": {"2026-11-25T10:00:00Z"}, "b": {"true"}, "ip": {"10.1.2.3"},
		"arn": {"arn:aws:iam::1:role/a/b"}, "tags": {"env", "team"}, "aws:username": {"joe"}, "star": {"a*c"}, "nan": {"NaN"}, "korean": {"team-한"},
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
		{`{"NumericLessThanEquals":{"nan":11}}`, false},
		{`{"NumericEquals":{"n":"NaN"}}`, false},
		{`{"StringLike":{"korean":"team-?"}}`, true},
		{`{"StringLike":{"korean":"*-?"}}`, true},
		{`{"StringLike":{"korean":"team-??"}}`, false},
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
	named := func(name, text string, kind Kind) Named { return Named{name, doc(t, text, kind)} }
	all := named("all", st(`"Effect":"Allow","Action":"*","Resource":"*"`), Identity)
	none := named("deny", st(`"Effect":"Deny","Action":"ecs:*","Resource":"*"`), Identity)
	logs := named("logs", st(`"Effect":"Allow","Action":"logs:*","Resource":"*"`), Identity)
	repo := func(principal string) *Named {
		n := named("repo", st(`"Effect":"Allow","Principal":{"AWS":"`+principal+`"},"Action":"ecs:*"`), Resource)
		return &n
	}
	const session, role, root = "arn:aws:sts::1:assumed-role/r/s", "arn:aws:iam::1:role/path/r", "arn:aws:iam::1:root"
	r := &Request{Action: "ecs:UpdateService", Resource: "svc", Principal: Principal{ARN: session, Role: role, Account: "1"}}
	for name, c := range map[string]struct {
		p    Policies
		want Reason
		text string
	}{
		"nothing":        {Policies{}, NoIdentityAllow, "because no identity-based policy allows the ecs:UpdateService action"},
		"identity":       {Policies{Identity: []Named{all}}, Allowed, ""},
		"deny wins":      {Policies{Identity: []Named{all, none}}, ExplicitDeny, "with an explicit deny in an identity-based policy"},
		"boundary":       {Policies{Identity: []Named{all}, Boundary: &logs}, NoBoundaryAllow, "because no permissions boundary allows"},
		"boundary alone": {Policies{Boundary: &all}, NoIdentityAllow, ""},
		"boundary deny":  {Policies{Identity: []Named{all}, Boundary: &none}, ExplicitDeny, "with an explicit deny in a permissions boundary"},
		"session":        {Policies{Identity: []Named{all}, Session: []Named{logs}}, NoSessionAllow, "because no session policy allows"},
		"empty session":  {Policies{Identity: []Named{all}, Session: []Named{}}, NoSessionAllow, ""},
		"session denies": {Policies{Resource: repo(session), Session: []Named{none}}, ExplicitDeny, "with an explicit deny in a session policy"},
		// A resource policy that names the session is not limited by implicit
		// denies; one that names the role is; one that names the account grants nothing.
		"resource session":           {Policies{Resource: repo(session), Boundary: &logs, Session: []Named{logs}}, Allowed, ""},
		"resource role":              {Policies{Resource: repo(role)}, Allowed, ""},
		"resource role, boundary":    {Policies{Resource: repo(role), Boundary: &logs}, NoBoundaryAllow, ""},
		"resource role, session":     {Policies{Resource: repo(role), Session: []Named{logs}}, NoSessionAllow, ""},
		"resource account":           {Policies{Resource: repo(root)}, NoIdentityAllow, ""},
		"resource account, identity": {Policies{Resource: repo("1"), Identity: []Named{all}}, Allowed, ""},
		"resource somebody else":     {Policies{Resource: repo("arn:aws:iam::2:root")}, NoIdentityAllow, ""},
		// Another account's resource needs both sides.
		"elsewhere, identity only": {Policies{Identity: []Named{all}, Elsewhere: true}, NoResourceAllow, "because no resource-based policy allows the ecs:UpdateService action"},
		"elsewhere, resource only": {Policies{Resource: repo(session), Elsewhere: true}, NoIdentityAllow, ""},
		"elsewhere, both":          {Policies{Identity: []Named{all}, Resource: repo(root), Elsewhere: true}, Allowed, ""},
		// A trust policy must allow in any case.
		"trust, identity only":    {Policies{Identity: []Named{all}, Resource: repo("arn:aws:iam::1:role/other"), Trust: true}, NoResourceAllow, ""},
		"trust names the role":    {Policies{Resource: repo(role), Trust: true}, Allowed, ""},
		"trust names the account": {Policies{Resource: repo(root), Trust: true}, NoIdentityAllow, ""},
	} {
		d := Evaluate(r, c.p)
		if d.Reason != c.want || c.text != "" && !strings.Contains(d.Text(session, r.Action, r.Resource), c.text) {
			t.Errorf("%s: got %+v, %s", name, d, d.Text(session, r.Action, r.Resource))
		}
	}
}

const gitHub = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
 "Principal":{"Federated":"arn:aws:iam::1:oidc-provider/token.actions.githubusercontent.com"},
 "Action":"sts:AssumeRoleWithWebIdentity",
 "Condition":{"StringEquals":{"token.actions.githubusercontent.com:aud":"sts.amazonaws.com"},
  "StringLike":{"token.actions.githubusercontent.com:sub":"SUB"}}}]}`

const gitHubProvider = "arn:aws:iam::1:oidc-provider/token.actions.githubusercontent.com"

// job is a request of a GitHub job with the subject.
func job(sub string) *Request {
	return &Request{Action: "sts:AssumeRoleWithWebIdentity", Principal: Principal{Federated: gitHubProvider}, Context: Context{
		"token.actions.githubusercontent.com:aud": {"sts.amazonaws.com"},
		"token.actions.githubusercontent.com:sub": {sub},
	}}
}

// The usual reasons why GitHub's jobs are refused, from the issues of
// configure-aws-credentials: facts sheet section 6.1.
func TestATrustPolicyExplainsItself(t *testing.T) {
	const branch, environment = "repo:acme/web:ref:refs/heads/main", "repo:acme/web:environment:prod"
	for _, c := range []struct{ trust, sub, hint, fix string }{
		{"repo:acme/web:*", branch, "", ""},
		{branch, environment, "the job names an environment, and then sub holds the environment in place of :ref:", environment},
		{"repo:Acme/web:*", branch, "only the case differs", "repo:acme/web:*"},
		{"repo:someone/else:*", branch, "", branch},
		{"repo:acme/web:*", "repo:acme@12/web@34:ref:refs/heads/main", "immutable subject", "repo:acme@12/web@34:ref:refs/heads/main"},
		{branch, "repo:acme/web:pull_request", "the job runs for a pull request", "repo:acme/web:pull_request"},
		{branch, "repo:acme/web:ref:refs/tags/v1", "the job runs for a tag", "repo:acme/web:ref:refs/tags/v1"},
	} {
		d := doc(t, strings.Replace(gitHub, "SUB", c.trust, 1), Trust)
		r := job(c.sub)
		if got := d.Assume(r); got != (c.fix == "") {
			t.Errorf("%s: assumed %v", c.trust, got)
		}
		if c.fix == "" {
			continue
		}
		p := Policies{Resource: &Named{"the trust policy", d}, Trust: true}
		looks := Explain(r, p)
		missed := looks[0].Details[0].Parts[3]
		if missed.Met || missed.Key != "token.actions.githubusercontent.com:sub" || missed.Request[0] != c.sub || missed.Policy[0] != c.trust || !strings.Contains(missed.Hint, c.hint) {
			t.Errorf("%s: explained %+v", c.trust, missed)
		}
		fix := Fix(r, p, Evaluate(r, p))
		if fix.Document == nil || !fix.Document.Assume(r) || !strings.Contains(fix.Advice, c.fix) {
			t.Errorf("%s: the fix is %+v", c.trust, fix)
		}
		if fix.Document.Assume(job("repo:evil/fork:ref:refs/heads/main")) {
			t.Errorf("%s: the fix lets others in", c.trust)
		}
	}
	// Wildcards under StringEquals are literal.
	d := doc(t, strings.NewReplacer("StringLike", "StringEqualsIgnoreCase", "SUB", "repo:acme/web:*").Replace(gitHub), Trust)
	p := Policies{Resource: &Named{"t", d}, Trust: true}
	if fix := Fix(job(branch), p, Evaluate(job(branch), p)); !strings.Contains(fix.Advice, "write StringLike instead") || !fix.Document.Assume(job(branch)) {
		t.Errorf("the fix is %+v", fix)
	}
}

func TestADenialIsExplainedAndMended(t *testing.T) {
	const service = "arn:aws:ecs:us-east-1:1:service/prod/web"
	r := &Request{Action: "ecs:UpdateService", Resource: service, Principal: Principal{ARN: "arn:aws:sts::1:assumed-role/r/s"}, Context: Context{"aws:sourceip": {"10.0.0.1"}}}
	for name, c := range map[string]struct{ statement, element, hint string }{
		"case":    {`"Effect":"Allow","Action":"ecs:*","Resource":"arn:aws:ecs:us-east-1:1:service/Prod/web"`, "Resource", "only the case differs"},
		"region":  {`"Effect":"Allow","Action":"ecs:*","Resource":"arn:aws:ecs:eu-west-1:1:service/prod/web"`, "Resource", "only the region differs"},
		"account": {`"Effect":"Allow","Action":"ecs:*","Resource":"arn:aws:ecs:*:2:service/prod/web"`, "Resource", "only the account differs"},
		"action":  {`"Effect":"Allow","Action":"ecs:Describe*","Resource":"*"`, "Action", ""},
		"absent":  {`"Effect":"Allow","Action":"ecs:*","Resource":"*","Condition":{"StringEquals":{"ecs:cluster":"x"}}`, "Condition", "the request carries no ecs:cluster"},
	} {
		p := Policies{Identity: []Named{{"p", doc(t, st(c.statement), Identity)}}}
		looks := Explain(r, p)
		var missed []Part
		for _, part := range looks[0].Details[0].Parts {
			if !part.Met {
				missed = append(missed, part)
			}
		}
		if len(missed) != 1 || missed[0].Element != c.element || !strings.Contains(missed[0].Hint, c.hint) {
			t.Errorf("%s: missed %+v", name, missed)
		}
		fix := Fix(r, p, Evaluate(r, p))
		p.Identity = append(p.Identity, Named{"fix", fix.Document})
		if !Evaluate(r, p).Allowed() {
			t.Errorf("%s: the fix %+v does not help", name, fix)
		}
	}
	p := Policies{Identity: []Named{{"p", doc(t, st(`"Sid":"NoUpdates","Effect":"Deny","Action":"ecs:Update*","Resource":"*"`), Identity)}}}
	if fix := Fix(r, p, Evaluate(r, p)); fix.Document != nil || !strings.Contains(fix.Advice, "NoUpdates of p denies it") {
		t.Errorf("an explicit deny is mended by %+v", fix)
	}
}

// What a caller chooses itself, like a session name, never becomes a wildcard.
func TestAVariablesValueIsNoPattern(t *testing.T) {
	d := doc(t, st(`"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::home/${aws:userid}/x"`), Identity)
	for id, want := range map[string]bool{"joe": true, "*": false, "j?e": false, "\x00*": false} {
		r := &Request{Action: "s3:Get", Resource: "arn:aws:s3:::home/joe/x", Context: Context{"aws:userid": {id}}}
		if got := d.Grants(r); got != want {
			t.Errorf("%q gave %v", id, got)
		}
	}
	like := doc(t, st(`"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"k":"${aws:userid}"}}`), Identity)
	if !like.Grants(&Request{Action: "s3:Get", Resource: "x", Context: Context{"aws:userid": {"a*"}, "k": {"a*"}}}) {
		t.Error("a value with a star does not equal itself")
	}
}

// Explaining and mending leave the policies as they are: others are evaluating
// them meanwhile.
func TestMendingTouchesNoOtherDocument(t *testing.T) {
	d := doc(t, `{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"1"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"a":"b"}}},
		{"Effect":"Allow","Principal":{"AWS":"1"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:RoleSessionName":"${aws:username}"}}}]}`, Trust)
	r := &Request{Action: "sts:AssumeRole", Principal: Principal{Account: "1", ARN: "u"}, Context: Context{"a": {"c"}, "sts:rolesessionname": {"joe"}, "aws:username": {"joe"}}}
	p := Policies{Resource: &Named{"t", d}, Trust: true}
	for range 2 { // a document of 2008 has no variables
		if d.Assume(r) {
			t.Error("a variable was expanded")
		}
		Fix(r, p, Evaluate(r, p))
	}
}

// A remedy opens no more than the request, and takes no protection away.
func TestARemedyIsNoWiderThanItsRequest(t *testing.T) {
	p := Policies{Identity: []Named{}}
	r := &Request{Action: "iam:GetRole", Resource: "arn:aws:iam::1:role/*"}
	fix := Fix(r, p, Evaluate(r, p))
	if fix.Document.Grants(&Request{Action: "iam:GetRole", Resource: "arn:aws:iam::1:role/admin"}) || !fix.Document.Grants(r) {
		t.Errorf("a role called * opens %+v", fix.Document.Statements)
	}
	r = &Request{Action: "ecs:RegisterTaskDefinition", Resource: "arn:aws:ecs:r:1:task-definition/web:*", Wild: true}
	if fix = Fix(r, p, Evaluate(r, p)); !fix.Document.Grants(&Request{Action: r.Action, Resource: "arn:aws:ecs:r:1:task-definition/web:3"}) {
		t.Errorf("a service's own star was lost: %+v", fix.Document.Statements)
	}
	for condition, keys := range map[string]Context{
		`"StringEquals":{"sts:ExternalId":"secret"}`:           {},
		`"Bool":{"aws:MultiFactorAuthPresent":"true"}`:         {"aws:multifactorauthpresent": {"false"}},
		`"StringNotLike":{"sts:RoleSessionName":"evil*"}`:      {"sts:rolesessionname": {"evil-1"}},
		`"ForAllValues:StringEquals":{"aws:TagKeys":["team"]}`: {"aws:tagkeys": {"other"}},
	} {
		d := doc(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole","Condition":{`+condition+`}}]}`, Trust)
		p := Policies{Resource: &Named{"t", d}, Trust: true}
		r := &Request{Action: "sts:AssumeRole", Principal: Principal{ARN: "u"}, Context: keys}
		if fix := Fix(r, p, Evaluate(r, p)); fix.Document != nil || !strings.Contains(fix.Advice, "the request must change, not the policy") {
			t.Errorf("%s is mended by %+v", condition, fix)
		}
	}
	d := doc(t, strings.Replace(gitHub, "SUB", "repo:acme/web:*", 1), Trust)
	p = Policies{Resource: &Named{"t", d}, Trust: true}
	if fix := Fix(job("repo:*"), p, Evaluate(job("repo:*"), p)); fix.Document == nil || fix.Document.Assume(job("repo:evil/fork:ref:refs/heads/main")) {
		t.Errorf("a subject with a star opens %+v", fix)
	}
}

func TestANotPrincipalExemptsOnlyWhomItNames(t *testing.T) {
	d := doc(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","NotPrincipal":{"AWS":["arn:aws:iam::1:user/bob","arn:aws:iam::1:root"]},"Action":"ecr:*"}]}`, Resource)
	for user, want := range map[string]effect{"bob": silent, "alice": deny} {
		if got, _ := d.resourceEffect(&Request{Action: "ecr:PutImage", Principal: Principal{ARN: "arn:aws:iam::1:user/" + user, Account: "1"}}); got != want {
			t.Errorf("%s: %v", user, got)
		}
	}
	d = doc(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotPrincipal":{"AWS":"arn:aws:iam::1:role/r"},"Action":"ecr:*"}]}`, Resource)
	if got, _ := d.resourceEffect(&Request{Action: "ecr:PutImage", Principal: Principal{ARN: "arn:aws:sts::1:assumed-role/r/s", Role: "arn:aws:iam::1:role/r"}}); got != silent {
		t.Errorf("a session of the role that is left out: %v", got)
	}
}

// One statement for each audience: what came with one is not let in with another.
func TestTheTightestTrustCrossesNothing(t *testing.T) {
	entry := func(aud, sub string) Entry {
		return Entry{Action: "sts:AssumeRoleWithWebIdentity", Principal: Principal{Federated: gitHubProvider}, Keys: map[string]string{"token.actions.githubusercontent.com:aud": aud}, Key: "token.actions.githubusercontent.com:sub", Value: sub}
	}
	d := TightestTrust([]Entry{entry("a", "x"), entry("a", "y"), entry("b", "z"), {Action: "sts:AssumeRole", Principal: Principal{ARN: "arn:aws:iam::1:user/joe"}, Keys: map[string]string{"sts:ExternalId": "secret"}}})
	for got, want := range map[[2]string]bool{{"a", "x"}: true, {"a", "y"}: true, {"b", "z"}: true, {"a", "z"}: false, {"b", "x"}: false} {
		r := job(got[1])
		r.Context.Set("token.actions.githubusercontent.com:aud", got[0])
		if d.Assume(r) != want {
			t.Errorf("%v: %v", got, !want)
		}
	}
	if d.Assume(&Request{Action: "sts:AssumeRole", Principal: Principal{ARN: "arn:aws:iam::1:user/joe"}}) {
		t.Error("the external id was dropped")
	}
}

func TestADocumentReadsBackAsWritten(t *testing.T) {
	text := `{"Version":"2012-10-17","Statement":[{"Sid":"A","Effect":"Allow","Action":["a:B","a:C"],"Resource":"*","Condition":{"StringLike":{"k":["x","y"],"l":"z"}}},{"Effect":"Deny","NotAction":"a:*","NotResource":"arn:aws:a:::b"}]}`
	raw, err := doc(t, text, Identity).MarshalJSON()
	if err != nil || string(raw) != text {
		t.Errorf("got %s, %v", raw, err)
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
	for what, text := range map[string]string{
		"ten thousand statements": `{"Version":"2012-10-17","Statement":[` + strings.Repeat(`{"Effect":"Allow","Action":"a:b","Resource":"*"},`, 10_000) + `{}]}`,
		"a thousand levels":       strings.Repeat("[", 1000) + strings.Repeat("]", 1000),
		"a name given twice":      st(`"Effect":"Allow","Effect":"Deny","Action":"a:b","Resource":"*"`),
		"a Sid given twice":       `{"Version":"2012-10-17","Statement":[{"Sid":"A","Effect":"Allow","Action":"a:b","Resource":"*"},{"Sid":"A","Effect":"Allow","Action":"a:b","Resource":"*"}]}`,
		"broken UTF-8":            st("\"Sid\":\"\xff\",\"Effect\":\"Allow\",\"Action\":\"a:b\",\"Resource\":\"*\""),
		"two documents":           st(`"Effect":"Allow","Action":"a:b","Resource":"*"`) + st(`"Effect":"Allow","Action":"a:b","Resource":"*"`),
		"a number for an action":  st(`"Effect":"Allow","Action":{"a":1},"Resource":"*"`),
	} {
		if _, err := Parse(text, Identity); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	_, err := Parse(st(`"Effect":"Allow","Principal":{"AWS":"*"},"Action":"ecs:*"`), Trust)
	if err == nil || err.Error() != "AssumeRole policy may only specify STS AssumeRole actions." {
		t.Errorf("a trust of ecs gave %v", err)
	}
}

func st(body string) string { return `{"Version":"2012-10-17","Statement":{` + body + `}}` }

func FuzzParse(f *testing.F) {
	f.Add(gitHub)
	f.Add(st(`"Effect":"Allow","Action":"ecs:*","Resource":"${a, 'b'}*"`))
	f.Fuzz(func(t *testing.T, text string) {
		r := &Request{Action: "ecs:X", Resource: "arn:aws:ecs:r:1:x", Principal: Principal{ARN: "a", Account: "1"}, Context: Context{"a": {"b"}}}
		for _, kind := range []Kind{Identity, Trust, Resource} {
			d, err := Parse(text, kind)
			if err != nil {
				continue
			}
			p := Policies{Resource: &Named{"d", d}, Identity: []Named{{"d", d}}}
			Fix(r, p, Evaluate(r, p))
			d.CheckTenancy()
			raw, err := d.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(string(raw), kind)
			if err != nil {
				t.Fatalf("%s became %s: %v", text, raw, err)
			}
			if again.effect(r) != d.effect(r) {
				t.Fatalf("%s and %s differ", text, raw)
			}
		}
	})
}

// Adding a Deny never allows more, and adding an Allow never allows less.
func FuzzEvaluate(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		pick := func(list ...string) string { return list[r.IntN(len(list))] }
		operators := slices.Sorted(maps.Keys(baseOperators))
		statement := func(effect string) string {
			body := `"Effect":"` + effect + `","` + pick("Action", "NotAction") + `":"` + pick("*", "ecs:*", "ecs:Update*", "logs:*") + `","` +
				pick("Resource", "NotResource") + `":"` + pick("*", "arn:aws:ecs:*:1:service/*", "arn:aws:ecs:r:1:service/c/${aws:userid}") + `"`
			if r.IntN(2) == 0 {
				body += `,"Condition":{"` + pick("", "ForAllValues:", "ForAnyValue:") + pick(operators...) + pick("", "IfExists") + `":{"` + pick("aws:userid", "n", "none") + `":["` + pick("s", "5", "${aws:userid}", "*") + `"]}}`
			}
			return "{" + body + "}"
		}
		policy := func(statements ...string) Named {
			return Named{"p", doc(t, `{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+`]}`, Identity)}
		}
		some := func() (out []Named) {
			for range 1 + r.IntN(3) {
				out = append(out, policy(statement(pick("Allow", "Allow", "Deny"))))
			}
			return out
		}
		request := &Request{Action: pick("ecs:UpdateService", "logs:PutLogEvents"), Resource: pick("arn:aws:ecs:r:1:service/c/s", "*"), Context: Context{"aws:userid": {"s"}, "n": {"4", "5"}}}
		p := Policies{Identity: some()}
		if r.IntN(2) == 0 {
			p.Boundary = &some()[0]
		}
		if r.IntN(2) == 0 {
			p.Session = some()
		}
		before := Evaluate(request, p)
		denied := p
		denied.Identity = append(slices.Clone(p.Identity), policy(statement("Deny")))
		if !before.Allowed() && Evaluate(request, denied).Allowed() {
			t.Error("a Deny allowed more")
		}
		allowed := p
		allowed.Identity = append(slices.Clone(p.Identity), policy(statement("Allow")))
		if before.Allowed() && !Evaluate(request, allowed).Allowed() {
			t.Error("an Allow allowed less")
		}
		if before.Reason == ExplicitDeny && Evaluate(request, allowed).Reason != ExplicitDeny {
			t.Error("an Allow outweighed a Deny")
		}
	})
}

// A role with ten managed policies of twenty actions each.
func BenchmarkEvaluate(b *testing.B) {
	var p Policies
	for n := range 10 {
		var actions []string
		for m := range 20 {
			actions = append(actions, fmt.Sprintf(`"svc%d:Action%d*"`, n, m))
		}
		d, err := Parse(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[`+strings.Join(actions, ",")+`],"Resource":["arn:aws:ecs:*:*:service/*","arn:aws:ecs:*:*:task/*"],"Condition":{"StringEquals":{"aws:RequestedRegion":["us-east-1","eu-west-1"]}}}]}`, Identity)
		if err != nil {
			b.Fatal(err)
		}
		p.Identity = append(p.Identity, Named{fmt.Sprint(n), d})
	}
	r := &Request{Action: "svc9:Action19", Resource: "arn:aws:ecs:us-east-1:1:service/c/s", Context: Context{"aws:requestedregion": {"eu-west-1"}}}
	for b.Loop() {
		if !Evaluate(r, p).Allowed() {
			b.Fatal("denied")
		}
	}
}
