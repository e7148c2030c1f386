package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"serin/internal/api/stsd"
	"serin/internal/oidc"
)

// text is an API error's own text.
func text(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorMessage()
	}
	return fmt.Sprint(err)
}

// as is a configuration with a session's credentials.
func as(c aws.Config, k *ststypes.Credentials) aws.Config {
	c = c.Copy()
	c.Credentials = credentials.NewStaticCredentialsProvider(*k.AccessKeyId, *k.SecretAccessKey, *k.SessionToken)
	return c
}

// mint signs a token of the played issuer for the settings of a job.
func mint(t *testing.T, s *Stage, audience string, at time.Time, settings map[string]string) string {
	t.Helper()
	job, err := oidc.NewJob(settings)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := s.issuerKeys(false)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := keys[0].Mint(job, audience, at)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// offline is a network where no issuer is reached.
type offline struct{}

func (offline) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("offline") }

// Facts sheet section 2.5: what AssumeRoleWithWebIdentity says to what.
func TestWebIdentityIsRefusedInAWSsWords(t *testing.T) {
	s, admin := account(t, Enforce)
	s.verifier.Client = &http.Client{Transport: offline{}}
	gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	now, web := time.Now(), map[string]string{"repo": "acme/web"}
	good := mint(t, s, "sts.amazonaws.com", now, web)
	foreign, _ := oidc.Keys(nil).Rotate()
	job, _ := oidc.NewJob(web)
	forged, _ := foreign[0].Mint(job, "sts.amazonaws.com", now)
	const role = "arn:aws:iam::111111111111:role/deploy"
	for name, c := range map[string]struct {
		role, session, token string
		seconds              int32
		code, text           string
	}{
		"a short session name":   {role, "x", good, 0, "ValidationError", "1 validation error detected: Value 'x' at 'roleSessionName' failed to satisfy constraint: Member must have length greater than or equal to 2"},
		"a blank in the name":    {role, "x y", good, 0, "ValidationError", `1 validation error detected: Value 'x y' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]*`},
		"a short duration":       {role, "xx", good, 60, "ValidationError", "1 validation error detected: Value '60' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"},
		"two things wrong":       {role, "x", good, 60, "ValidationError", "2 validation errors detected: Value 'x' at 'roleSessionName'"},
		"no role's ARN":          {"arn:aws:iam::111111111111:user/u", "xx", good, 0, "ValidationError", "Request ARN is invalid"},
		"longer than the role":   {role, "xx", good, 7200, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."},
		"no token":               {role, "xx", "not.a.token", 0, "InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"},
		"a token too long":       {role, "xx", strings.Repeat("x", 20_001), 0, "ValidationError", "1 validation error detected: Value at 'webIdentityToken' failed to satisfy constraint: Member must have length less than or equal to 20000"},
		"a role not there":       {"arn:aws:iam::111111111111:role/nobody", "xx", good, 0, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		"a role elsewhere":       {"arn:aws:iam::222222222222:role/deploy", "xx", good, 0, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://token.actions.githubusercontent.com"},
		"another path":           {"arn:aws:iam::111111111111:role/path/deploy", "xx", good, 0, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		"another repository":     {role, "xx", mint(t, s, "sts.amazonaws.com", now, map[string]string{"repo": "acme/fork"}), 0, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		"another case":           {role, "xx", mint(t, s, "sts.amazonaws.com", now, map[string]string{"repo": "Acme/web"}), 0, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		"another audience":       {role, "xx", mint(t, s, "", now, web), 0, "InvalidIdentityToken", "Incorrect token audience"},
		"a tampered token":       {role, "xx", good[:len(good)-8] + "AAAAAAAA", 0, "InvalidIdentityToken", "Token signature invalid"},
		"a key of nobody":        {role, "xx", forged, 0, "InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements"},
		"an old token":           {role, "xx", mint(t, s, "sts.amazonaws.com", now.Add(-20*time.Minute), web), 0, "ExpiredTokenException", fmt.Sprintf("must be before the expiration date/time %d", now.Add(-15*time.Minute).Unix())},
		"a token of the future":  {role, "xx", mint(t, s, "sts.amazonaws.com", now.Add(20*time.Minute), web), 0, "InvalidIdentityToken", "The web identity token provided could not be validated."},
		"a token just expired":   {role, "xx", mint(t, s, "sts.amazonaws.com", now.Add(-8*time.Minute), web), 0, "", ""},
		"a good one":             {role, "xx", good, 0, "", ""},
		"a policy that is none":  {role, "policy", good, 0, "MalformedPolicyDocument", "Syntax errors in policy."},
		"a policy's ARN of none": {role, "policyarn", good, 0, "ValidationError", "Policy arn:aws:iam::aws:policy/Nothing does not exist or is not attachable."},
	} {
		in := &sts.AssumeRoleWithWebIdentityInput{RoleArn: &c.role, RoleSessionName: &c.session, WebIdentityToken: &c.token}
		if c.seconds != 0 {
			in.DurationSeconds = &c.seconds
		}
		if c.session == "policy" {
			in.Policy = new("{")
		}
		if c.session == "policyarn" {
			in.PolicyArns = []ststypes.PolicyDescriptorType{{Arn: new("arn:aws:iam::aws:policy/Nothing")}}
		}
		_, err := sts.NewFromConfig(admin).AssumeRoleWithWebIdentity(t.Context(), in)
		if code(err) != c.code || !strings.Contains(text(err), c.text) {
			t.Errorf("%s gives %s: %s", name, code(err), text(err))
		}
		if strings.Contains(text(err), c.token) && err != nil {
			t.Errorf("%s: the token is repeated", name)
		}
	}
}

// Tokens that lack or double what must be there.
func TestTokensThatCannotBe(t *testing.T) {
	s, admin := account(t, Enforce)
	gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	keys, err := s.issuerKeys(false)
	if err != nil {
		t.Fatal(err)
	}
	claims := func(change func(map[string]any)) string {
		c := map[string]any{"iss": oidc.GitHub, "aud": "sts.amazonaws.com", "sub": "repo:acme/web:ref:refs/heads/main", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
		change(c)
		raw, err := keys[0].Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for want, token := range map[string]string{
		"Missing a required claim: iat.": claims(func(c map[string]any) { delete(c, "iat") }),
		"Token audience contains more than one audience while authorized party is not present": claims(func(c map[string]any) { c["aud"] = []string{"sts.amazonaws.com", "other"} }),
		"No OpenIDConnect provider found in your account for https://example.com":              claims(func(c map[string]any) { c["iss"] = "https://example.com" }),
		"": claims(func(c map[string]any) {
			c["aud"], c["azp"] = []string{"sts.amazonaws.com", "other"}, "sts.amazonaws.com"
		}),
	} {
		_, err := sts.NewFromConfig(admin).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
			RoleArn: new("arn:aws:iam::111111111111:role/deploy"), RoleSessionName: new("xx"), WebIdentityToken: &token})
		if want == "" && err != nil || want != "" && (code(err) != "InvalidIdentityToken" || text(err) != want) {
			t.Errorf("%q was wanted, got %s: %s", want, code(err), text(err))
		}
	}
}

// The ten claims that AWS offers since January 2026 decide; others never match.
func TestOnlyTheClaimsThatAWSOffersDecide(t *testing.T) {
	s, admin := account(t, Enforce)
	gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	i := iam.NewFromConfig(admin)
	for claim, matches := range map[string]bool{
		"actor": true, "actor_id": true, "enterprise_id": true, "environment": true, "job_workflow_ref": true, "ref": true, "repository": true, "repository_id": true,
		"repository_owner_id": true, "workflow": true, "event_name": false, "runner_environment": false, "repository_owner": false, "sha": false,
	} {
		document := strings.Replace(trust, `"StringLike":{`, `"StringLike":{"token.actions.githubusercontent.com:`+claim+`":"?*",`, 1)
		if _, err := i.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: new("deploy"), PolicyDocument: &document}); err != nil {
			t.Fatalf("%v in %s", err, document)
		}
		token := mint(t, s, "sts.amazonaws.com", time.Now(), map[string]string{"repo": "acme/web", "environment": "prod", "enterprise_id": "7"})
		_, err := sts.NewFromConfig(admin).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: new("arn:aws:iam::111111111111:role/deploy"), RoleSessionName: new("xx"), WebIdentityToken: &token})
		if (err == nil) != matches {
			t.Errorf("a condition on %s gives %v", claim, err)
		}
		if d, ok := s.decisions.find("last"); !matches && (!ok || !strings.Contains(d.Text(), "AWS does not offer GitHub's claim "+claim+" to policies")) {
			t.Errorf("%s is not explained: %s", claim, d.Text())
		}
	}
}

func TestASessionCarriesItsPolicyTagsAndSource(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	must := musts(t)
	caller := user(t, admin, "joe")
	must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("team"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/joe"},
		"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"],"Condition":{"StringEquals":{"sts:ExternalId":"secret"}}}]}`)}))
	must(i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("team"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ecs:CreateCluster","Resource":"arn:aws:ecs:*:*:cluster/${aws:PrincipalTag/team}-*"},
		{"Effect":"Allow","Action":"ecs:ListClusters","Resource":"*","Condition":{"StringEquals":{"aws:SourceIdentity":"joe@example.com"}}},
		{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Resource":"*"}]}`)}))
	in := &sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::111111111111:role/team"), RoleSessionName: new("work"), ExternalId: new("secret"), SourceIdentity: new("joe@example.com"),
		Tags: []ststypes.Tag{{Key: new("team"), Value: new("web")}}, TransitiveTagKeys: []string{"team"}}
	out, err := sts.NewFromConfig(caller).AssumeRole(ctx, in)
	must(out, err)
	if *out.SourceIdentity != "joe@example.com" {
		t.Errorf("the source identity is %s", *out.SourceIdentity)
	}
	session := as(admin, out.Credentials)
	e := ecs.NewFromConfig(session)
	must(e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("web-1")}))
	must(e.ListClusters(ctx, &ecs.ListClustersInput{}))
	if _, err := e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("api-1")}); code(err) != "AccessDeniedException" {
		t.Errorf("another team's cluster gave %v", err)
	}
	// Without the external id, and with another, the trust does not hold.
	for _, id := range []*string{nil, new("other")} {
		in.ExternalId = id
		_, err := sts.NewFromConfig(caller).AssumeRole(ctx, in)
		if code(err) != "AccessDenied" || text(err) != "User: arn:aws:iam::111111111111:user/joe is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::111111111111:role/team" {
			t.Errorf("external id %v gives %s: %s", id, code(err), text(err))
		}
	}
	// Chained: a role that trusts the first; tags and source go on, an hour at most.
	must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("next"), MaxSessionDuration: new(int32(7200)), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"sts:AssumeRole"}]}`)}))
	must(i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("next"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/team":"web","aws:SourceIdentity":"joe@example.com"}}}]}`)}))
	chained := &sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::111111111111:role/next"), RoleSessionName: new("on"), Policy: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:ListClusters","Resource":"*"}]}`)}
	next, err := sts.NewFromConfig(session).AssumeRole(ctx, chained)
	must(next, err)
	e = ecs.NewFromConfig(as(admin, next.Credentials))
	must(e.ListClusters(ctx, &ecs.ListClustersInput{}))
	_, err = e.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{"web-1"}})
	if !strings.Contains(text(err), "because no session policy allows the ecs:DescribeClusters action") {
		t.Errorf("what the session's policy does not allow gives %v", err)
	}
	chained.DurationSeconds = new(int32(7200))
	if _, err := sts.NewFromConfig(session).AssumeRole(ctx, chained); code(err) != "ValidationError" || !strings.Contains(text(err), "1 hour session limit") {
		t.Errorf("a long chained session gives %v", err)
	}
	// A token of the registry has the session's rights, and no more.
	if _, err := ecr.NewFromConfig(session).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{}); code(err) != "AccessDeniedException" {
		t.Errorf("a registry token gives %v", err)
	}
	// Whoever deletes the role ends its sessions, though another of the name is made.
	must(i.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: new("team"), PolicyName: new("p")}))
	must(i.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: new("team")}))
	must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("team"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"sts:AssumeRole"}]}`)}))
	must(i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("team"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")}))
	if _, err := ecs.NewFromConfig(session).ListClusters(ctx, &ecs.ListClustersInput{}); code(err) != "UnrecognizedClientException" {
		t.Errorf("a session of a role that is gone gives %v", err)
	}
}

func TestAUsersSessionTokenIsTheUser(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	c := user(t, admin, "joe")
	if _, err := i.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: new("joe"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")}); err != nil {
		t.Fatal(err)
	}
	out, err := sts.NewFromConfig(c).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	session := as(admin, out.Credentials)
	who, err := sts.NewFromConfig(session).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *who.Arn != "arn:aws:iam::111111111111:user/joe" || !strings.HasPrefix(*who.UserId, "AIDA") {
		t.Errorf("it is %+v, %v", who, err)
	}
	if _, err := ecs.NewFromConfig(session).CreateCluster(ctx, &ecs.CreateClusterInput{}); err != nil {
		t.Error(err)
	}
	// Without MFA such a session cannot call IAM, whatever it may, documented.
	if _, err := iam.NewFromConfig(session).ListUsers(ctx, &iam.ListUsersInput{}); code(err) != "InvalidClientTokenId" {
		t.Errorf("IAM says %v", err)
	}
	if _, err := sts.NewFromConfig(session).GetSessionToken(ctx, &sts.GetSessionTokenInput{}); code(err) != "AccessDenied" {
		t.Errorf("a session token for a session token gives %v", err)
	}
	// A key that is switched off, with a token it does not have, or deleted, is no key.
	k, _ := c.Credentials.Retrieve(ctx)
	off := func(change func() error) {
		t.Helper()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := sts.NewFromConfig(c).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); code(err) != "InvalidClientTokenId" {
			t.Errorf("the key gives %v", err)
		}
	}
	with := c.Copy()
	with.Credentials = credentials.NewStaticCredentialsProvider(k.AccessKeyID, k.SecretAccessKey, "token")
	if _, err := sts.NewFromConfig(with).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); code(err) != "InvalidClientTokenId" {
		t.Errorf("a long-term key with a token gives %v", err)
	}
	used, err := i.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &k.AccessKeyID})
	if err != nil || *used.AccessKeyLastUsed.ServiceName != "sts" {
		t.Errorf("it was last used for %+v, %v", used, err)
	}
	off(func() error {
		_, err := i.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: new("joe"), AccessKeyId: &k.AccessKeyID, Status: "Inactive"})
		return err
	})
	off(func() error {
		_, err := i.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: new("joe"), AccessKeyId: &k.AccessKeyID})
		return err
	})
}

// A refused EC2 call carries a message that only those may read who may decode it.
func TestARefusedEC2CallCanBeDecoded(t *testing.T) {
	s, admin := account(t, Enforce)
	c := user(t, admin, "joe")
	ec2 := s.ec2.Service()
	told := answer(t, s, c, ec2, "DescribeVpcs")
	_, message, ok := strings.Cut(told, "Encoded authorization failure message: ")
	message, _, _ = strings.Cut(message, "<")
	if !ok || !strings.Contains(told, "<Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation. User: arn:aws:iam::111111111111:user/joe is not authorized to perform: ec2:DescribeVpcs") {
		t.Fatalf("got %s", told)
	}
	out, err := sts.NewFromConfig(admin).DecodeAuthorizationMessage(t.Context(), &sts.DecodeAuthorizationMessageInput{EncodedMessage: &message})
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Allowed bool
		Context struct{ Action, Resource string }
	}
	if err := json.Unmarshal([]byte(*out.DecodedMessage), &said); err != nil || said.Allowed || said.Context.Action != "ec2:DescribeVpcs" {
		t.Errorf("decoded %s, %v", *out.DecodedMessage, err)
	}
	if _, err := sts.NewFromConfig(admin).DecodeAuthorizationMessage(t.Context(), &sts.DecodeAuthorizationMessageInput{EncodedMessage: new("bm90aGluZw")}); code(err) != "InvalidAuthorizationMessageException" {
		t.Errorf("nonsense decodes to %v", err)
	}
}

// Facts sheet sections 4.2 and 4.3: who cannot be believed is told so in each
// protocol's own words, and in every mode.
func TestSignaturesAreVerifiedInEveryModeAndProtocol(t *testing.T) {
	for _, mode := range []Mode{Enforce, Report, Off} {
		s, admin := account(t, mode)
		session, out := gitHub(t, s, admin, `{"Effect":"Allow","Action":"*","Resource":"*"}`)
		k := out.Credentials
		expired, err := s.sts.Issue(stsd.Session{Account: "111111111111", RoleARN: "arn:aws:iam::111111111111:role/deploy", Name: "old"}, -time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			key, secret, token   string
			query, json, ec2code string
		}{
			"an unknown key":       {"AKIANOBODY", "x", "", "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure"},
			"a wrong secret":       {*k.AccessKeyId, "x", *k.SessionToken, "SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure"},
			"another token":        {*k.AccessKeyId, *k.SecretAccessKey, "x", "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure"},
			"a session, no token":  {*k.AccessKeyId, *k.SecretAccessKey, "", "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure"},
			"a session that ended": {expired.AccessKey, expired.Secret, expired.Token, "ExpiredToken", "ExpiredTokenException", "RequestExpired"},
		} {
			with := session.Copy()
			with.Credentials = credentials.NewStaticCredentialsProvider(c.key, c.secret, c.token)
			_, err := sts.NewFromConfig(with).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			if code(err) != c.query {
				t.Errorf("%s, %s: STS says %v", mode, name, err)
			}
			_, err = ecs.NewFromConfig(with).ListClusters(t.Context(), &ecs.ListClustersInput{})
			if code(err) != c.json {
				t.Errorf("%s, %s: ECS says %v", mode, name, err)
			}
			if got := raw(t, s, with, s.ec2.Service(), "DescribeVpcs"); got != c.ec2code {
				t.Errorf("%s, %s: EC2 says %s", mode, name, got)
			}
		}
	}
}
