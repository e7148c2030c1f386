package stage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// account is a stage in this process and its administrator's configuration.
func account(t *testing.T, mode Mode) (*Stage, aws.Config) {
	t.Helper()
	s, err := New(Config{Dir: t.TempDir(), Ephemeral: true, Account: "111111111111", Region: "us-east-1", Endpoint: "localhost:4566", Speed: 1, IAM: mode, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s, aws.Config{Region: "us-east-1", HTTPClient: s.HTTPClient(), BaseEndpoint: new("http://localhost:4566"), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111111111111:oidc-provider/token.actions.githubusercontent.com"},
	"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringLike":{"token.actions.githubusercontent.com:sub":"repo:acme/web:*"}}}]}`

// gitHub makes the provider and a role, and a session of it with a policy.
func gitHub(t *testing.T, s *Stage, c aws.Config, statement string) (aws.Config, *sts.AssumeRoleWithWebIdentityOutput) {
	t.Helper()
	ctx, i := t.Context(), iam.NewFromConfig(c)
	if _, err := i.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: new("https://token.actions.githubusercontent.com"), ClientIDList: []string{"sts.amazonaws.com"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("deploy"), AssumeRolePolicyDocument: new(trust)}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("deploy"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[` + statement + `]}`)}); err != nil {
		t.Fatal(err)
	}
	out, err := sts.NewFromConfig(c).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: new("arn:aws:iam::111111111111:role/deploy"), RoleSessionName: new("GitHubActions"), WebIdentityToken: new(token(t, s, "acme/web"))})
	if err != nil {
		t.Fatal(err)
	}
	session := c.Copy()
	session.Credentials = credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	return session, out
}

func token(t *testing.T, s *Stage, repo string) string {
	t.Helper()
	r, _ := http.NewRequest("GET", "http://localhost:4566/_serin/github/token?api-version=2.0&repo="+repo+"&audience=sts.amazonaws.com", nil)
	r.Header.Set("Authorization", "Bearer x")
	resp, err := s.HTTPClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Value string }
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.Value == "" {
		t.Fatalf("no token: %v", err)
	}
	return out.Value
}

func TestASessionMayWhatItsRoleMay(t *testing.T) {
	s, admin := account(t, Enforce)
	session, _ := gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecs:*","Resource":"arn:aws:ecs:us-east-1:*:cluster/mine"}`)
	ctx, e := t.Context(), ecs.NewFromConfig(session)
	who, err := sts.NewFromConfig(session).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *who.Arn != "arn:aws:sts::111111111111:assumed-role/deploy/GitHubActions" {
		t.Errorf("the session is %v, %v", who, err)
	}
	if _, err := e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("mine")}); err != nil {
		t.Error(err)
	}
	_, err = e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("other")})
	if code(err) != "AccessDeniedException" || !strings.Contains(err.Error(), "because no identity-based policy allows the ecs:CreateCluster action") {
		t.Errorf("another cluster gave %v", err)
	}
	_, err = iam.NewFromConfig(session).ListRoles(ctx, &iam.ListRolesInput{})
	if code(err) != "AccessDenied" {
		t.Errorf("iam:ListRoles gave %v", err)
	}
	// A policy that names every account still reaches only its own.
	_, err = e.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{"mine"}})
	if err != nil {
		t.Error(err)
	}
	_, err = e.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: new("mine"), Service: new("arn:aws:ecs:us-east-1:222222222222:service/mine/s")})
	if code(err) != "AccessDeniedException" {
		t.Errorf("another account's service gave %v", err)
	}
}

func TestAnotherRepositoryIsToldWhyOnlyOnRequest(t *testing.T) {
	s, admin := account(t, Enforce)
	gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	_, err := sts.NewFromConfig(admin).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: new("arn:aws:iam::111111111111:role/deploy"), RoleSessionName: new("GitHubActions"), WebIdentityToken: new(token(t, s, "acme/fork"))})
	if code(err) != "AccessDenied" || !strings.HasSuffix(err.Error(), "Not authorized to perform sts:AssumeRoleWithWebIdentity") {
		t.Errorf("got %v", err)
	}
	resp, err := s.HTTPClient().Get("http://localhost:4566/_serin/decisions/last")
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := io.ReadAll(resp.Body)
	for _, want := range []string{"repo:acme/fork:ref:refs/heads/main", "repo:acme/web:*"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the reason lacks %s: %s", want, raw)
		}
	}
}

func TestWhatCannotBeBelievedIsRefused(t *testing.T) {
	s, admin := account(t, Enforce)
	session, out := gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	with := func(key, secret, sessionToken string) error {
		c := session.Copy()
		c.Credentials = credentials.NewStaticCredentialsProvider(key, secret, sessionToken)
		_, err := ecs.NewFromConfig(c).ListClusters(t.Context(), &ecs.ListClustersInput{})
		return err
	}
	c := out.Credentials
	if got := code(with(*c.AccessKeyId, "wrong", *c.SessionToken)); got != "InvalidSignatureException" {
		t.Errorf("a wrong secret gave %s", got)
	}
	if got := code(with(*c.AccessKeyId, *c.SecretAccessKey, "wrong")); got != "UnrecognizedClientException" {
		t.Errorf("a wrong token gave %s", got)
	}
	if got := code(with("AKIANOBODY", "x", "")); got != "UnrecognizedClientException" {
		t.Errorf("an unknown key gave %s", got)
	}
	found, _ := s.sts.Find(*c.AccessKeyId)
	if found.Expires.Before(time.Now()) || found.Expires.After(time.Now().Add(time.Hour)) {
		t.Errorf("the session ends %v", found.Expires)
	}
	_, err := sts.NewFromConfig(admin).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: new("arn:aws:iam::111111111111:role/deploy"), RoleSessionName: new("GitHubActions"), WebIdentityToken: new(token(t, s, "acme/web") + "x")})
	if code(err) != "InvalidIdentityToken" {
		t.Errorf("a tampered token gave %v", err)
	}
}

func TestReportLetsThroughAndOffDoesNotAsk(t *testing.T) {
	for mode, noted := range map[Mode]int{Report: 1, Off: 0} {
		s, admin := account(t, mode)
		session, _ := gitHub(t, s, admin, `{"Effect":"Allow","Action":"logs:*","Resource":"*"}`)
		if _, err := ecs.NewFromConfig(session).CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("c")}); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if got := len(s.decisions.all()); got != noted {
			t.Errorf("%s noted %d denials", mode, got)
		}
	}
}

func TestAResetEmptiesOnlyAnEphemeralStage(t *testing.T) {
	s, admin := account(t, Enforce)
	if _, err := ecs.NewFromConfig(admin).CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("c")}); err != nil {
		t.Fatal(err)
	}
	reset := func(s *Stage) int {
		resp, err := s.HTTPClient().Post("http://localhost:4566/moto-api/reset", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	if got := reset(s); got != 200 {
		t.Errorf("reset answered %d", got)
	}
	if out, err := ecs.NewFromConfig(admin).ListClusters(context.Background(), &ecs.ListClustersInput{}); err != nil || len(out.ClusterArns) != 0 {
		t.Errorf("after it there are %v, %v", out, err)
	}
	authority, err := s.acm.Authority()
	if shown, readErr := os.ReadFile(s.AuthorityFile()); err != nil || readErr != nil || string(shown) != authority {
		t.Errorf("after it another authority is shown than issues certificates: %v, %v", err, readErr)
	}
	kept, err := New(Config{Dir: t.TempDir(), Account: "111111111111", Region: "us-east-1", Endpoint: "localhost:4566", Speed: 1, IAM: Enforce, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.store.Close()
	if got := reset(kept); got != 409 {
		t.Errorf("a stage with a data directory answered %d", got)
	}
}

func sha(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}
