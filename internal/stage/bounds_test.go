package stage

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"

	"serin/internal/oidc"
)

// other is the administrator of another account.
func other(admin aws.Config) aws.Config {
	c := admin.Copy()
	c.Credentials = credentials.NewStaticCredentialsProvider("222222222222", "test", "")
	return c
}

// within runs a test whose user has the statements.
func within(t *testing.T, statements string) (*Stage, aws.Config, aws.Config) {
	t.Helper()
	s, admin := account(t, Enforce)
	c := user(t, admin, "joe")
	if _, err := iam.NewFromConfig(admin).PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[` + statements + `]}`)}); err != nil {
		t.Fatal(err)
	}
	return s, admin, c
}

func TestASessionTokenEndsWithItsUser(t *testing.T) {
	_, admin, c := within(t, `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	out, err := sts.NewFromConfig(c).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	who := func() string {
		id, err := sts.NewFromConfig(as(admin, out.Credentials)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			return code(err)
		}
		return *id.Arn
	}
	if _, err := i.UpdateUser(ctx, &iam.UpdateUserInput{UserName: new("joe"), NewUserName: new("jo")}); err != nil {
		t.Fatal(err)
	}
	if got := who(); got != "arn:aws:iam::111111111111:user/jo" {
		t.Errorf("after a rename it is %s", got)
	}
	k, _ := c.Credentials.Retrieve(ctx)
	for _, err := range []error{
		func() error {
			_, err := i.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: new("jo"), AccessKeyId: &k.AccessKeyID})
			return err
		}(),
		func() error {
			_, err := i.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: new("jo"), PolicyName: new("p")})
			return err
		}(),
		func() error { _, err := i.DeleteUser(ctx, &iam.DeleteUserInput{UserName: new("jo")}); return err }(),
		func() error { _, err := i.CreateUser(ctx, &iam.CreateUserInput{UserName: new("jo")}); return err }(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := who(); got != "InvalidClientTokenId" {
		t.Errorf("after its user is gone, and another has the name, it is %s", got)
	}
}

// Names of another account, region or partition reach nothing, whoever asks.
func TestNothingReachesAcross(t *testing.T) {
	_, admin, c := within(t, `{"Effect":"Allow","Action":["ecs:*","iam:*"],"Resource":"*"},{"Effect":"Deny","Action":"ecs:*","Resource":"arn:aws:ecs:*:*:service/prod/*"}`)
	ctx, e := t.Context(), ecs.NewFromConfig(c)
	must := musts(t)
	definition := func(config aws.Config) {
		t.Helper()
		must(ecs.NewFromConfig(config).CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("prod")}))
		must(ecs.NewFromConfig(config).RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: "awsvpc", Memory: new("128"),
			ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("web:1"), PortMappings: []ecstypes.PortMapping{{ContainerPort: new(int32(80))}}, Environment: []ecstypes.KeyValuePair{{Name: new("SECRET"), Value: new("hunter2")}}}}}))
	}
	service := func(config aws.Config, groups ...ecstypes.LoadBalancer) error {
		_, err := ecs.NewFromConfig(config).CreateService(ctx, &ecs.CreateServiceInput{Cluster: new("prod"), ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(0)), LoadBalancers: groups,
			NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a"}}}})
		return err
	}
	abroad := admin.Copy()
	abroad.Region = "eu-west-1"
	for _, config := range []aws.Config{admin, other(admin), abroad} {
		definition(config)
	}
	must(nil, service(abroad))
	foreign := "arn:aws:ecs:us-east-1:222222222222:task-definition/web:1"
	if out, err := e.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &foreign}); err == nil {
		t.Errorf("another account's definition reads %v", out.TaskDefinition.ContainerDefinitions[0].Environment)
	}
	if _, err := e.DeregisterTaskDefinition(ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &foreign}); err == nil {
		t.Error("another account's definition was deregistered")
	}
	if _, err := ecs.NewFromConfig(admin).CreateService(ctx, &ecs.CreateServiceInput{Cluster: new("prod"), ServiceName: new("x"), TaskDefinition: &foreign, DesiredCount: new(int32(0)),
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a"}}}}); err == nil {
		t.Error("another account's definition was used")
	}
	for _, name := range []string{"arn:aws-x:ecs:eu-west-1:111111111111:service/prod/s", "arn:aws:ecs:eu-west-1:111111111111:service/prod/s"} {
		for _, who := range []aws.Config{c, admin} {
			if _, err := ecs.NewFromConfig(who).DeleteService(ctx, &ecs.DeleteServiceInput{Service: &name}); err == nil {
				t.Errorf("%s was deleted from us-east-1", name)
			}
		}
	}
	if _, err := e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("x"), Memory: new("128"), TaskRoleArn: new("arn:aws:iam::222222222222:role/r"), ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("web:1")}}}); err == nil {
		t.Error("another account's role was passed")
	}
	group, err := elb.NewFromConfig(other(admin)).CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new("g"), Protocol: "HTTP", Port: new(int32(80)), TargetType: "ip"})
	must(group, err)
	g := group.TargetGroups[0].TargetGroupArn
	if err := service(admin, ecstypes.LoadBalancer{TargetGroupArn: g, ContainerName: new("web"), ContainerPort: new(int32(80))}); code(err) != "InvalidParameterException" {
		t.Errorf("another account's target group: %v", err)
	}
	lb, err := elb.NewFromConfig(admin).CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("lb"), Subnets: []string{"a"}})
	must(lb, err)
	if _, err := elb.NewFromConfig(admin).CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Port: new(int32(80)), Protocol: "HTTP",
		DefaultActions: []elbtypes.Action{{Type: "forward", TargetGroupArn: g}}}); code(err) != "TargetGroupNotFound" {
		t.Errorf("another account's group in a rule: %v", err)
	}
}

// What is checked is what is done, however it is written.
func TestProvidersAreCheckedByTheNameTheyHave(t *testing.T) {
	_, admin, c := within(t, `{"Effect":"Allow","Action":"iam:*","Resource":"*"},{"Effect":"Deny","Action":"iam:*","Resource":"arn:aws:iam::111111111111:oidc-provider/*"}`)
	i, ctx := iam.NewFromConfig(c), t.Context()
	if _, err := iam.NewFromConfig(admin).CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: new("https://token.actions.githubusercontent.com")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"arn:aws:iam:::oidc-provider/token.actions.githubusercontent.com", "x:oidc-provider/token.actions.githubusercontent.com", "arn:aws:iam::111111111111:oidc-provider/token.actions.githubusercontent.com"} {
		if _, err := i.DeleteOpenIDConnectProvider(ctx, &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: &name}); err == nil {
			t.Errorf("%s was deleted", name)
		}
		if _, err := i.AddClientIDToOpenIDConnectProvider(ctx, &iam.AddClientIDToOpenIDConnectProviderInput{OpenIDConnectProviderArn: &name, ClientID: new("x")}); err == nil {
			t.Errorf("%s was changed", name)
		}
	}
	for _, text := range []string{"https://x@example.com", "HTTPS://example.com", "https://example.com:443", "https://example.com/?q", "http://example.com", "https://"} {
		if _, err := iam.NewFromConfig(admin).CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: &text}); code(err) != "InvalidInput" {
			t.Errorf("%s gives %v", text, err)
		}
	}
	kept, err := iam.NewFromConfig(admin).CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: new("https://example.auth0.com/")})
	if err != nil || *kept.OpenIDConnectProviderArn != "arn:aws:iam::111111111111:oidc-provider/example.auth0.com/" {
		t.Errorf("an issuer that ends in a slash: %v, %v", kept, err)
	}
}

// A session keeps nothing of a role that is gone, not even what others gave it.
func TestARegistryTokenEndsWithItsRole(t *testing.T) {
	s, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	session, _ := gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"}`)
	r := ecr.NewFromConfig(admin)
	if _, err := r.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("web")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: new("web"), PolicyText: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:role/deploy"},"Action":"ecr:*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	token, err := ecr.NewFromConfig(session).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	list := func() (int, string) {
		req, _ := http.NewRequest("GET", "http://localhost:4566/v2/web/tags/list", nil)
		req.Header.Set("Authorization", "Basic "+*token.AuthorizationData[0].AuthorizationToken)
		resp, err := s.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		told, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(told)
	}
	if got, _ := list(); got != http.StatusOK {
		t.Fatalf("the role lists with %d", got)
	}
	if _, err := i.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: new("deploy"), PolicyName: new("p")}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: new("deploy")}); err != nil {
		t.Fatal(err)
	}
	// Facts sheet section 3.6: the form that docker prints.
	want := `"code":"DENIED","message":"User: arn:aws:sts::111111111111:assumed-role/deploy/GitHubActions is not authorized to perform: ecr:ListImages on resource: arn:aws:ecr:us-east-1:111111111111:repository/web because no identity-based policy allows the ecr:ListImages action"`
	if got, told := list(); got != http.StatusForbidden || !strings.Contains(told, want) {
		t.Errorf("a token of a role that is gone lists with %d: %s", got, told)
	}
	if _, err := ecr.NewFromConfig(session).DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: new("web")}); code(err) != "UnrecognizedClientException" {
		t.Errorf("its session gives %v", err)
	}
}

// Two tags that differ by case are one key for IAM and STS, and no value of a
// condition elsewhere.
func TestTagsThatDifferByCaseDecideNothing(t *testing.T) {
	_, admin, c := within(t, `{"Effect":"Allow","Action":["sts:*","ecs:TagResource"],"Resource":"*"},{"Effect":"Allow","Action":"ecs:CreateCluster","Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/Team":"dev"}}}`)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	if _, err := i.TagUser(ctx, &iam.TagUserInput{UserName: new("joe"), Tags: []iamtypes.Tag{{Key: new("Team"), Value: new("a")}, {Key: new("team"), Value: new("b")}}}); code(err) != "InvalidInput" {
		t.Errorf("IAM took both: %v", err)
	}
	if _, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":["sts:AssumeRole","sts:TagSession"]}]}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := sts.NewFromConfig(c).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::111111111111:role/r"), RoleSessionName: new("xx"), Tags: []ststypes.Tag{{Key: new("Team"), Value: new("dev")}, {Key: new("team"), Value: new("admin")}}}); code(err) != "InvalidParameterValue" {
		t.Errorf("STS took both: %v", err)
	}
	e := ecs.NewFromConfig(c)
	for range 20 {
		if _, err := e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("both"), Tags: []ecstypes.Tag{ecsTag("Team", "dev"), ecsTag("team", "admin")}}); code(err) != "AccessDeniedException" {
			t.Fatalf("ECS took both: %v", err)
		}
	}
	if _, err := e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("one"), Tags: []ecstypes.Tag{ecsTag("team", "dev")}}); err != nil {
		t.Errorf("a tag in another case than the condition: %v", err)
	}
}

func TestARenameNeedsThePermissionOnBothNames(t *testing.T) {
	_, _, c := within(t, `{"Effect":"Allow","Action":"iam:UpdateUser","Resource":"arn:aws:iam::111111111111:user/joe"}`)
	if _, err := iam.NewFromConfig(c).UpdateUser(t.Context(), &iam.UpdateUserInput{UserName: new("joe"), NewUserName: new("admin"), NewPath: new("/admins/")}); !strings.Contains(text(err), "user/admins/admin") {
		t.Errorf("joe made himself %v", err)
	}
}

// What was not believed is not learned.
func TestAForgedTokenTeachesNothing(t *testing.T) {
	s, admin := account(t, Enforce)
	gitHub(t, s, admin, `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	s.verifier.Client = &http.Client{Transport: offline{}}
	foreign, err := oidc.Keys(nil).Rotate()
	if err != nil {
		t.Fatal(err)
	}
	job, _ := oidc.NewJob(map[string]string{"repo": "acme/web", "environment": "FORGED"})
	raw, _ := foreign[0].Mint(job, "sts.amazonaws.com", time.Now())
	if _, err := sts.NewFromConfig(admin).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: new("arn:aws:iam::111111111111:role/deploy"), RoleSessionName: new("xx"), WebIdentityToken: &raw}); code(err) != "InvalidIdentityToken" {
		t.Fatalf("a forged token gives %v", err)
	}
	if _, told := get(t, s, "/_serin/policy", ""); strings.Contains(told, "FORGED") || !strings.Contains(told, "repo:acme/web:ref:refs/heads/main") {
		t.Errorf("learned %s", told)
	}
}

func TestAPresignedRequestIsAnswered(t *testing.T) {
	s, admin := account(t, Enforce)
	r, _ := http.NewRequest("GET", "http://localhost:4566/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60", nil)
	k, _ := admin.Credentials.Retrieve(t.Context())
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), k, r, sha(""), "sts", "us-east-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if r.URL, err = url.Parse(signed); err != nil {
		t.Fatal(err)
	}
	resp, err := s.HTTPClient().Do(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("it gives %v, %v", resp, err)
	}
}

func TestPolicyNamesAreTheAccounts(t *testing.T) {
	_, admin := account(t, Enforce)
	i := iam.NewFromConfig(admin)
	if _, err := i.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: new("p"), Path: new("/a/"), PolicyDocument: new(everything)}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: new("P"), Path: new("/b/"), PolicyDocument: new(everything)}); code(err) != "EntityAlreadyExists" {
		t.Errorf("the name under another path gives %v", err)
	}
	if _, err := i.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: new("q"), PolicyDocument: new(strings.Replace(everything, `"Effect"`, `"Sid":"two words","Effect"`, 1))}); code(err) != "MalformedPolicyDocument" || !strings.Contains(text(err), "Statement IDs (SID) must be alpha-numeric") {
		t.Errorf("a Sid of two words gives %v", err)
	}
}

// A builder tries to mount a blob of another repository. Who may not read there
// learns nothing of it and sends the blob.
func TestAMountNeedsBothRepositories(t *testing.T) {
	const push = `{"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"},{"Effect":"Allow","Action":"ecr:*","Resource":"arn:aws:ecr:us-east-1:111111111111:repository/web"}`
	for statements, want := range map[string]int{
		push: http.StatusAccepted,
		push + `,{"Effect":"Allow","Action":"ecr:GetDownloadUrlForLayer","Resource":"*"}`: http.StatusCreated,
	} {
		s, admin, c := within(t, statements)
		ctx, r := t.Context(), ecr.NewFromConfig(admin)
		for _, name := range []string{"base", "web"} {
			if _, err := r.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name}); err != nil {
				t.Fatal(err)
			}
		}
		begun, err := r.InitiateLayerUpload(ctx, &ecr.InitiateLayerUploadInput{RepositoryName: new("base")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.UploadLayerPart(ctx, &ecr.UploadLayerPartInput{RepositoryName: new("base"), UploadId: begun.UploadId, LayerPartBlob: []byte("{}"), PartFirstByte: new(int64(0)), PartLastByte: new(int64(1))}); err != nil {
			t.Fatal(err)
		}
		const digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
		if _, err := r.CompleteLayerUpload(ctx, &ecr.CompleteLayerUploadInput{RepositoryName: new("base"), UploadId: begun.UploadId, LayerDigests: []string{digest}}); err != nil {
			t.Fatal(err)
		}
		manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":2},"layers":[]}`, digest)
		if _, err := r.PutImage(ctx, &ecr.PutImageInput{RepositoryName: new("base"), ImageManifest: &manifest}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.PutAccountSetting(ctx, &ecr.PutAccountSettingInput{Name: new("BLOB_MOUNTING"), Value: new("ENABLED")}); err != nil {
			t.Fatal(err)
		}
		token, err := ecr.NewFromConfig(c).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
		if err != nil {
			t.Fatal(err)
		}
		mount := func(path string) int {
			req, _ := http.NewRequest("POST", "http://localhost:4566"+path, nil)
			req.Header.Set("Authorization", "Basic "+*token.AuthorizationData[0].AuthorizationToken)
			resp, err := s.HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode
		}
		if got := mount("/v2/web/blobs/uploads/?from=base&mount=" + digest); got != want {
			t.Errorf("mounting answers %d, want %d", got, want)
		}
		if got := mount("/v2/web/blobs/uploads?from=base&mount=" + digest); want == http.StatusAccepted && got == http.StatusCreated {
			t.Error("another spelling of the path mounts what may not be read")
		}
	}
}
