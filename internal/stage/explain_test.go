package stage

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
)

func get(t *testing.T, s *Stage, path, accept string) (int, string) {
	t.Helper()
	r, _ := http.NewRequest("GET", "http://localhost:4566"+path, nil)
	r.Header.Set("Accept", accept)
	resp, err := s.HTTPClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw)
}

func TestARefusalIsExplainedByItsRequestID(t *testing.T) {
	s, admin := account(t, Enforce)
	if status, told := get(t, s, "/_serin/decisions/last", ""); status != 404 || !strings.Contains(told, "nothing was denied") {
		t.Errorf("before any, %d: %s", status, told)
	}
	session, _ := gitHub(t, s, admin, `{"Sid":"Mine","Effect":"Allow","Action":"ecs:*","Resource":"arn:aws:ecs:us-east-1:*:cluster/Mine"}`)
	_, err := ecs.NewFromConfig(session).CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("mine")})
	refused, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	ecs.NewFromConfig(session).DescribeClusters(t.Context(), &ecs.DescribeClustersInput{Clusters: []string{"another"}}) // denied after it
	status, told := get(t, s, "/_serin/decisions/"+refused.ServiceRequestID(), "text/plain")
	if status != 200 {
		t.Fatalf("%d: %s", status, told)
	}
	for _, want := range []string{
		"denied: ecs:CreateCluster on arn:aws:ecs:us-east-1:111111111111:cluster/mine", "assumed-role/deploy/GitHubActions", refused.ServiceRequestID(),
		"role deploy inline policy p (identity-based policy) does not speak of it", "Mine (Allow) does not match", "met      Action: ecs:*",
		"the policy says  arn:aws:ecs:us-east-1:*:cluster/Mine", "the request has  arn:aws:ecs:us-east-1:111111111111:cluster/mine", "only the case differs",
		"to allow it: attach this policy", `"Action": "ecs:CreateCluster"`,
	} {
		if !strings.Contains(told, want) {
			t.Errorf("the explanation lacks %q:\n%s", want, told)
		}
	}
	if status, told := get(t, s, "/_serin/decisions/none", ""); status != 404 || !strings.Contains(told, "denied no request none") {
		t.Errorf("another id gives %d: %s", status, told)
	}
}

// No explanation, and nothing that is learned, holds a secret.
func TestSecretsNeverAppear(t *testing.T) {
	s, admin := account(t, Enforce)
	session, out := gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecr:*","Resource":"*"}`)
	ecs.NewFromConfig(session).ListClusters(t.Context(), &ecs.ListClustersInput{})
	raw := token(t, s, "acme/fork")
	sts.NewFromConfig(admin).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: new("arn:aws:iam::111111111111:role/deploy"), RoleSessionName: new("xx"), WebIdentityToken: &raw})
	password, err := ecr.NewFromConfig(session).GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/_serin/decisions", "/_serin/policy", "/_serin/status"} {
		_, told := get(t, s, path, "")
		for what, secret := range map[string]string{"secret key": *out.Credentials.SecretAccessKey, "session token": *out.Credentials.SessionToken, "web identity token": raw, "registry password": *password.AuthorizationData[0].AuthorizationToken} {
			if strings.Contains(told, secret) {
				t.Errorf("%s tells a %s", path, what)
			}
		}
	}
}

// What was learned of a run is enough for the same run, and for nothing else.
func TestTheLeastPrivilegeIsEnoughAndNoMore(t *testing.T) {
	s, admin := account(t, Report)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	gitHub(t, s, admin, `{"Effect":"Allow","Action":"logs:*","Resource":"*"}`)
	if _, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("execution"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}); err != nil {
		t.Fatal(err)
	}
	enter := func(repo, name string) (aws.Config, error) {
		raw := token(t, s, repo)
		out, err := sts.NewFromConfig(admin).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: new("arn:aws:iam::111111111111:role/deploy"), RoleSessionName: &name, WebIdentityToken: &raw})
		if err != nil {
			return admin, err
		}
		return as(admin, out.Credentials), nil
	}
	release := func(c aws.Config) error {
		e := ecs.NewFromConfig(c)
		if _, err := ecr.NewFromConfig(c).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{}); err != nil {
			return err
		}
		if _, err := e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("prod")}); err != nil {
			return err
		}
		_, err := e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), Memory: new("128"), ExecutionRoleArn: new("arn:aws:iam::111111111111:role/execution"),
			ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("web:1")}}})
		return err
	}
	c, err := enter("acme/web", "learning")
	if err == nil {
		err = release(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(s.decisions.all()) == 0 {
		t.Error("a report noted nothing")
	}
	_, told := get(t, s, "/_serin/policy?"+url.Values{"session": {"learning"}}.Encode(), "")
	var list []LeastPrivilege
	if err := json.Unmarshal([]byte(told), &list); err != nil || len(list) != 1 || list[0].Principal != "arn:aws:iam::111111111111:role/deploy" || list[0].Identity == nil || list[0].Trust == nil {
		t.Fatalf("%v in %s", err, told)
	}
	identity, _ := json.Marshal(list[0].Identity)
	trusted, _ := json.Marshal(list[0].Trust)
	for _, want := range []string{`"iam:PassedToService":"ecs-tasks.amazonaws.com"`, "arn:aws:ecs:us-east-1:111111111111:cluster/prod", "task-definition/web:*"} {
		if !strings.Contains(string(identity), want) {
			t.Errorf("the policy lacks %s: %s", want, identity)
		}
	}

	s.config.IAM = Enforce
	if _, err := i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("deploy"), PolicyName: new("p"), PolicyDocument: new(string(identity))}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: new("deploy"), PolicyDocument: new(string(trusted))}); err != nil {
		t.Fatal(err)
	}
	if c, err = enter("acme/web", "again"); err == nil {
		err = release(c)
	}
	if err != nil {
		t.Errorf("the same run is refused: %v", err)
	}
	e := ecs.NewFromConfig(c)
	for what, step := range map[string]func() error{
		"another cluster": func() error {
			_, err := e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("other")})
			return err
		},
		"another action": func() error {
			_, err := e.DeleteCluster(ctx, &ecs.DeleteClusterInput{Cluster: new("prod")})
			return err
		},
		"another family": func() error {
			_, err := e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("api"), Memory: new("128"), ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("web:1")}}})
			return err
		},
		"another role": func() error {
			_, err := e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), Memory: new("128"), TaskRoleArn: new("arn:aws:iam::111111111111:role/deploy"), ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("web:1")}}})
			return err
		},
		"another repository": func() error { _, err := enter("acme/fork", "xx"); return err },
	} {
		if err := step(); !denied(code(err)) {
			t.Errorf("%s gives %v", what, err)
		}
	}
}

// Facts sheet section 3.1: a repository's policy is enough in its own account;
// another account's caller needs both sides.
func TestRepositoryPoliciesOpenAndClose(t *testing.T) {
	_, admin := account(t, Enforce)
	ctx := t.Context()
	other := admin.Copy()
	other.Credentials = credentials.NewStaticCredentialsProvider("222222222222", "test", "")
	r := ecr.NewFromConfig(admin)
	if _, err := r.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("web")}); err != nil {
		t.Fatal(err)
	}
	c := user(t, admin, "joe")
	look := func(c aws.Config) error {
		_, err := ecr.NewFromConfig(c).DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: new("web")})
		return err
	}
	set := func(statement string) {
		t.Helper()
		if _, err := r.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: new("web"), PolicyText: new(`{"Version":"2012-10-17","Statement":[` + statement + `]}`)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := look(c); code(err) != "AccessDeniedException" || !strings.Contains(text(err), "no identity-based policy allows") {
		t.Errorf("without a policy: %v", err)
	}
	set(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/joe"},"Action":"ecr:DescribeImages"}`)
	if err := look(c); err != nil {
		t.Errorf("a policy that names the user: %v", err)
	}
	set(`{"Effect":"Deny","Principal":"*","Action":"ecr:DescribeImages"}`)
	if err := look(c); !strings.Contains(text(err), "with an explicit deny in a resource-based policy") {
		t.Errorf("a policy that denies everybody: %v", err)
	}
	got, err := r.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: new("web")})
	if err != nil || !strings.Contains(*got.PolicyText, "Deny") {
		t.Errorf("the policy reads %v, %v", got, err)
	}
	if _, err := r.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: new("web"), PolicyText: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecr:*"}]}`)}); code(err) != "InvalidParameterException" {
		t.Errorf("a policy without a principal gives %v", err)
	}
	if _, err := r.DeleteRepositoryPolicy(ctx, &ecr.DeleteRepositoryPolicyInput{RepositoryName: new("web")}); err != nil {
		t.Error(err)
	}
	if _, err := r.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: new("web")}); code(err) != "RepositoryPolicyNotFoundException" {
		t.Errorf("no policy reads %v", err)
	}
	// A service of another account is refused, whatever the caller's own policies say.
	if _, err := iam.NewFromConfig(admin).AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: new("joe"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")}); err != nil {
		t.Fatal(err)
	}
	if _, err := ecs.NewFromConfig(other).CreateCluster(ctx, &ecs.CreateClusterInput{}); err != nil {
		t.Fatal(err)
	}
	_, err = ecs.NewFromConfig(c).UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("arn:aws:ecs:us-east-1:222222222222:service/default/s")})
	if !strings.Contains(text(err), "because no resource-based policy allows the ecs:UpdateService action") {
		t.Errorf("another account's service gives %v", err)
	}
	// A role of another account opens for whom its trust names, if theirs lets them.
	if _, err := iam.NewFromConfig(other).CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("partner"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":"sts:AssumeRole"}]}`)}); err != nil {
		t.Fatal(err)
	}
	assume := &sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::222222222222:role/partner"), RoleSessionName: new("joe"), Tags: []ststypes.Tag{}}
	if out, err := sts.NewFromConfig(c).AssumeRole(ctx, assume); err != nil || *out.AssumedRoleUser.Arn != "arn:aws:sts::222222222222:assumed-role/partner/joe" {
		t.Errorf("a partner's role gives %v", err)
	}
	if _, err := iam.NewFromConfig(admin).DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: new("joe"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")}); err != nil {
		t.Fatal(err)
	}
	if _, err := sts.NewFromConfig(c).AssumeRole(ctx, assume); code(err) != "AccessDenied" {
		t.Errorf("without a policy of their own: %v", err)
	}
}
