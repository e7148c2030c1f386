package stage

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// pushTo begins a push to the registry of an account, with a password of c's.
func pushTo(t *testing.T, s *Stage, c aws.Config, host, repo string) (int, string) {
	t.Helper()
	token, err := ecr.NewFromConfig(c).GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://localhost:4566/v2/"+repo+"/blobs/uploads/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Authorization", "Basic "+*token.AuthorizationData[0].AuthorizationToken)
	resp, err := s.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// A registry's policy lets another account in, and shuts its own out.
func TestARegistryPolicyDecides(t *testing.T) {
	s, admin, joe := within(t, `{"Effect":"Allow","Action":"ecr:*","Resource":"*"}`)
	ctx, theirs := t.Context(), ecr.NewFromConfig(other(admin))
	if _, err := theirs.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("team/web")}); err != nil {
		t.Fatal(err)
	}
	const host = "222222222222.dkr.ecr.us-east-1.amazonaws.com"
	if status, body := pushTo(t, s, joe, host, "team/web"); status != http.StatusForbidden || !strings.Contains(body, "no resource-based policy allows the ecr:InitiateLayerUpload action") {
		t.Errorf("without a policy another account's registry gives %d %s", status, body)
	}
	if status, body := pushTo(t, s, admin, host, "team/web"); status != http.StatusForbidden {
		t.Errorf("an administrator gets into another account's registry: %d %s", status, body)
	}
	put := func(r *ecr.Client, effect, principal, resource string) {
		t.Helper()
		text := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"%s","Principal":{"AWS":"%s"},"Action":["ecr:InitiateLayerUpload"],"Resource":"%s"}]}`, effect, principal, resource)
		if _, err := r.PutRegistryPolicy(ctx, &ecr.PutRegistryPolicyInput{PolicyText: &text}); err != nil {
			t.Fatal(err)
		}
	}
	put(theirs, "Allow", "111111111111", "arn:aws:ecr:us-east-1:222222222222:repository/team/*")
	if status, body := pushTo(t, s, joe, host, "team/web"); status != http.StatusAccepted {
		t.Errorf("with a registry policy another account's registry gives %d %s", status, body)
	}
	if status, _ := pushTo(t, s, joe, "222222222222.dkr.ecr.eu-west-1.amazonaws.com", "team/web"); status != http.StatusForbidden {
		t.Errorf("a token of another region gives %d", status)
	}

	own := ecr.NewFromConfig(admin)
	if _, err := own.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("web")}); err != nil {
		t.Fatal(err)
	}
	put(own, "Deny", "*", "*")
	if status, body := pushTo(t, s, joe, "", "web"); status != http.StatusForbidden || !strings.Contains(body, "explicit deny in a resource-based policy") {
		t.Errorf("a registry policy that denies gives %d %s", status, body)
	}
	if _, err := own.DeleteRegistryPolicy(ctx, &ecr.DeleteRegistryPolicyInput{}); err != nil {
		t.Fatal(err)
	}
	if status, body := pushTo(t, s, joe, "", "web"); status != http.StatusAccepted {
		t.Errorf("without the policy a push gives %d %s", status, body)
	}
}

func TestRegistryPoliciesAndSettingsThatAreNone(t *testing.T) {
	_, admin, _ := within(t, `{"Effect":"Allow","Action":"ecr:*","Resource":"*"}`)
	ctx, r := t.Context(), ecr.NewFromConfig(admin)
	statement := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"ecr:PutImage"%s}]}`
	_, noResource := r.PutRegistryPolicy(ctx, &ecr.PutRegistryPolicyInput{PolicyText: new(fmt.Sprintf(statement, ""))})
	_, noPolicy := r.GetRegistryPolicy(ctx, &ecr.GetRegistryPolicyInput{})
	_, noName := r.PutAccountSetting(ctx, &ecr.PutAccountSettingInput{Name: new("COLOUR"), Value: new("RED")})
	_, noValue := r.PutAccountSetting(ctx, &ecr.PutAccountSettingInput{Name: new("BLOB_MOUNTING"), Value: new("SOMETIMES")})
	if _, err := r.PutAccountSetting(ctx, &ecr.PutAccountSettingInput{Name: new("REGISTRY_POLICY_SCOPE"), Value: new("V1")}); err != nil {
		t.Fatal(err)
	}
	_, noAction := r.PutRegistryPolicy(ctx, &ecr.PutRegistryPolicyInput{PolicyText: new(fmt.Sprintf(statement, `,"Resource":"*"`))})
	for want, err := range map[string]error{
		"'Invalid registry policy provided' (statement 1 has no Resource)": noResource,
		"statement 1 has the action ecr:PutImage":                          noAction,
		"RegistryPolicyNotFoundException: Registry policy does not exist":  noPolicy,
		"name must be BASIC_SCAN_TYPE_VERSION":                             noName,
		"value of BLOB_MOUNTING must be DISABLED or ENABLED":               noValue,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	got, err := r.GetAccountSetting(ctx, &ecr.GetAccountSettingInput{Name: new("BLOB_MOUNTING")})
	if err != nil || *got.Value != "DISABLED" {
		t.Errorf("a new account mounts: %+v %v", got, err)
	}
}

var createOnPush = []types.RCTAppliedFor{types.RCTAppliedForCreateOnPush}

// A template's role must trust ECR, and be allowed what the template does.
func TestATemplatesRoleIsAsked(t *testing.T) {
	s, admin, joe := within(t, `{"Effect":"Allow","Action":["ecr:*","iam:PassRole"],"Resource":"*"}`)
	ctx, i := t.Context(), iam.NewFromConfig(admin)
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"%s"},"Action":"sts:AssumeRole"}]}`
	role, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("templates"), AssumeRolePolicyDocument: new(fmt.Sprintf(trust, "ecs.amazonaws.com"))})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ecr.NewFromConfig(joe).CreateRepositoryCreationTemplate(ctx, &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("team"), AppliedFor: createOnPush, CustomRoleArn: role.Role.Arn})
	if err != nil {
		t.Fatal(err)
	}
	if status, body := pushTo(t, s, joe, "", "team/web"); status < 400 || !strings.Contains(body, "its trust policy allows the service ecr.amazonaws.com") {
		t.Errorf("a role that does not trust ECR gives %d %s", status, body)
	}
	if _, err := i.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: new("templates"), PolicyDocument: new(fmt.Sprintf(trust, "ecr.amazonaws.com"))}); err != nil {
		t.Fatal(err)
	}
	if status, body := pushTo(t, s, joe, "", "team/web"); status < 400 || !strings.Contains(body, "is not authorized to perform: ecr:CreateRepository") {
		t.Errorf("a role without permissions gives %d %s", status, body)
	}
	if _, err := i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("templates"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecr:CreateRepository","Resource":"*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	if status, body := pushTo(t, s, joe, "", "team/web"); status != http.StatusAccepted {
		t.Errorf("a role that may gives %d %s", status, body)
	}
}
