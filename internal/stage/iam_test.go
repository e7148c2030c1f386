package stage

import (
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/api/stsd"
	"serin/internal/arn"
	"serin/internal/wire"
)

func ecsTag(key, value string) ecstypes.Tag { return ecstypes.Tag{Key: &key, Value: &value} }

const everything = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

func serviceTrust(service string) *string {
	return new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + service + `"},"Action":"sts:AssumeRole"}]}`)
}

// musts ends a test at the first call that fails.
func musts(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Facts sheet section 2.4: IAM's codes and texts.
func TestIAMRefusesInItsOwnWords(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	must := musts(t)
	must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: serviceTrust("ecs-tasks.amazonaws.com")}))
	must(i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("r"), PolicyName: new("p"), PolicyDocument: new(everything)}))
	must(i.CreateUser(ctx, &iam.CreateUserInput{UserName: new("u")}))
	must(i.CreateGroup(ctx, &iam.CreateGroupInput{GroupName: new("g")}))
	must(i.AddUserToGroup(ctx, &iam.AddUserToGroupInput{GroupName: new("g"), UserName: new("u")}))
	must(i.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: new("m"), PolicyDocument: new(everything)}))
	must(i.AttachGroupPolicy(ctx, &iam.AttachGroupPolicyInput{GroupName: new("g"), PolicyArn: new("arn:aws:iam::111111111111:policy/m")}))
	for n := range 4 {
		must(i.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: new("arn:aws:iam::111111111111:policy/m"), PolicyDocument: new(everything), SetAsDefault: n == 3}))
	}
	must(i.CreateServiceLinkedRole(ctx, &iam.CreateServiceLinkedRoleInput{AWSServiceName: new("ecs.amazonaws.com")}))
	trust := func(document string) func() error {
		return func() error {
			_, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("t"), AssumeRolePolicyDocument: &document})
			return err
		}
	}
	const gitHubTrust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRoleWithWebIdentity","Principal":{"Federated":"arn:aws:iam::111111111111:oidc-provider/token.actions.githubusercontent.com"}%s}]}`
	for _, c := range []struct {
		code, text string
		do         func() error
	}{
		{"NoSuchEntity", "The role with name nobody cannot be found.", func() error { _, err := i.GetRole(ctx, &iam.GetRoleInput{RoleName: new("nobody")}); return err }},
		{"NoSuchEntity", "The user with name nobody cannot be found.", func() error {
			_, err := i.DeleteUser(ctx, &iam.DeleteUserInput{UserName: new("nobody")})
			return err
		}},
		{"EntityAlreadyExists", "Role with name R already exists.", func() error {
			_, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("R"), AssumeRolePolicyDocument: serviceTrust("ecs.amazonaws.com")})
			return err
		}},
		{"DeleteConflict", "Cannot delete entity, must delete policies first.", func() error { _, err := i.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: new("r")}); return err }},
		{"DeleteConflict", "Cannot delete entity, must remove users from group first.", func() error {
			_, err := i.DeleteUser(ctx, &iam.DeleteUserInput{UserName: new("u")})
			return err
		}},
		{"DeleteConflict", "Cannot delete entity, must remove users from group first.", func() error {
			_, err := i.DeleteGroup(ctx, &iam.DeleteGroupInput{GroupName: new("g")})
			return err
		}},
		{"DeleteConflict", "Cannot delete a policy attached to entities.", func() error {
			_, err := i.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: new("arn:aws:iam::111111111111:policy/m")})
			return err
		}},
		{"DeleteConflict", "Cannot delete the default version of a policy.", func() error {
			_, err := i.DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: new("arn:aws:iam::111111111111:policy/m"), VersionId: new("v5")})
			return err
		}},
		{"LimitExceeded", "A managed policy can have up to 5 versions.", func() error {
			_, err := i.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: new("arn:aws:iam::111111111111:policy/m"), PolicyDocument: new(everything)})
			return err
		}},
		{"LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048", trust(strings.Replace(*serviceTrust("ecs.amazonaws.com"), `"Effect"`, `"Sid":"`+strings.Repeat("x", 2048)+`","Effect"`, 1))},
		{"LimitExceeded", "Maximum policy size of 2048 bytes exceeded for user u", func() error {
			_, err := i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("u"), PolicyName: new("big"), PolicyDocument: new(strings.Replace(everything, `"Effect"`, `"Sid":"`+strings.Repeat("x", 2048)+`","Effect"`, 1))})
			return err
		}},
		{"ValidationError", "1 validation error detected: Value '43201' at 'maxSessionDuration' failed to satisfy constraint: Member must have value less than or equal to 43200", func() error {
			_, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("t"), AssumeRolePolicyDocument: serviceTrust("ecs.amazonaws.com"), MaxSessionDuration: new(int32(43201))})
			return err
		}},
		{"ValidationError", "at 'roleName' failed to satisfy constraint: Member must have length less than or equal to 64", func() error {
			_, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new(strings.Repeat("x", 65)), AssumeRolePolicyDocument: serviceTrust("ecs.amazonaws.com")})
			return err
		}},
		{"UnmodifiableEntity", "this role is only modifiable by AWS", func() error {
			_, err := i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("AWSServiceRoleForECS"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
			return err
		}},
		{"PolicyNotAttachable", "Cannot attach a Service Role Policy to a Customer Role.", func() error {
			_, err := i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: new("arn:aws:iam::aws:policy/aws-service-role/AmazonECSServiceRolePolicy")})
			return err
		}},
		{"InvalidInput", "has been taken in this account", func() error {
			_, err := i.CreateServiceLinkedRole(ctx, &iam.CreateServiceLinkedRoleInput{AWSServiceName: new("ecs.amazonaws.com")})
			return err
		}},
		{"MalformedPolicyDocument", "This policy contains invalid Json", trust("{")},
		{"MalformedPolicyDocument", "This policy contains invalid Json", trust("{\"Version\":\"2012-10-17\",\"Statement\":[{\"Sid\":\"\xff\"}]}")},
		{"MalformedPolicyDocument", "AssumeRole policy may only specify STS AssumeRole actions.", trust(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"ecs:*"}]}`)},
		{"MalformedPolicyDocument", `AssumeRolepolicy contained an invalid principal: "STAR":"*".`, trust(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}]}`)},
		{"MalformedPolicyDocument", `Invalid principal in policy: "AWS":"arn:aws:iam::111111111111:role/nobody"`, trust(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:role/nobody"},"Action":"sts:AssumeRole"}]}`)},
		{"MalformedPolicyDocument", `Invalid principal in policy: "SERVICE":"nobody"`, trust(*serviceTrust("nobody"))},
		{"MalformedPolicyDocument", "Has prohibited field Resource", trust(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole","Resource":"*"}]}`)},
		// Section 2.3: GitHub is everybody's issuer; its trust must tell tenants apart.
		{"MalformedPolicyDocument", "shared OpenID Connect provider", trust(fmt.Sprintf(gitHubTrust, ""))},
		{"MalformedPolicyDocument", "shared OpenID Connect provider", trust(fmt.Sprintf(gitHubTrust, `,"Condition":{"StringLike":{"token.actions.githubusercontent.com:sub":"*"}}`))},
		{"MalformedPolicyDocument", "shared OpenID Connect provider", trust(fmt.Sprintf(gitHubTrust, `,"Condition":{"StringNotEquals":{"token.actions.githubusercontent.com:sub":"repo:evil/x:*"}}`))},
		{"MalformedPolicyDocument", "shared OpenID Connect provider", trust(fmt.Sprintf(gitHubTrust, `,"Condition":{"StringEquals":{"token.actions.githubusercontent.com:aud":"sts.amazonaws.com"}}`))},
		{"", "<nil>", trust(fmt.Sprintf(gitHubTrust, `,"Condition":{"StringLike":{"token.actions.githubusercontent.com:sub":"repo:acme/*"}}`))},
	} {
		err := c.do()
		if code(err) != c.code || !strings.Contains(text(err), c.text) {
			t.Errorf("%s: %s was wanted, got %s: %s", c.code, c.text, code(err), text(err))
		}
	}
}

// Boundaries, groups, versions and tags decide with the rest.
func TestWhatBearsOnAUser(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	must := musts(t)
	c := user(t, admin, "joe")
	e := ecs.NewFromConfig(c)
	may := func(name string) string {
		_, err := e.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &name})
		if err == nil {
			return ""
		}
		_, why, _ := strings.Cut(text(err), "cluster/"+name+" ")
		return why
	}
	none := "because no identity-based policy allows the ecs:CreateCluster action"
	if got := may("a"); got != none {
		t.Errorf("a new user: %s", got)
	}
	must(i.CreateGroup(ctx, &iam.CreateGroupInput{GroupName: new("team")}))
	must(i.PutGroupPolicy(ctx, &iam.PutGroupPolicyInput{GroupName: new("team"), PolicyName: new("p"), PolicyDocument: new(everything)}))
	must(i.AddUserToGroup(ctx, &iam.AddUserToGroupInput{GroupName: new("team"), UserName: new("joe")}))
	if got := may("b"); got != "" {
		t.Errorf("in the group: %s", got)
	}
	limit := "arn:aws:iam::111111111111:policy/limit"
	must(i.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: new("limit"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:*","Resource":"*"}]}`)}))
	must(i.PutUserPermissionsBoundary(ctx, &iam.PutUserPermissionsBoundaryInput{UserName: new("joe"), PermissionsBoundary: &limit}))
	if got := may("c"); got != "because no permissions boundary allows the ecs:CreateCluster action" {
		t.Errorf("within the boundary: %s", got)
	}
	must(i.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: &limit, SetAsDefault: true, PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/team":"web","aws:RequestTag/cost":"${aws:username}"},"ForAllValues:StringEquals":{"aws:TagKeys":["cost"]}}}]}`)}))
	if got := may("d"); !strings.Contains(got, "permissions boundary") {
		t.Errorf("without tags: %s", got)
	}
	must(i.TagUser(ctx, &iam.TagUserInput{UserName: new("joe"), Tags: []types.Tag{{Key: new("team"), Value: new("web")}}}))
	tagged := func(tags ...string) error {
		in := &ecs.CreateClusterInput{ClusterName: new("tagged")}
		for n := 0; n < len(tags); n += 2 {
			in.Tags = append(in.Tags, ecsTag(tags[n], tags[n+1]))
		}
		_, err := e.CreateCluster(ctx, in)
		return err
	}
	if err := tagged("cost", "joe"); err != nil {
		t.Errorf("with the tags that are wanted: %v", err)
	}
	for _, tags := range [][]string{{"cost", "other"}, {"cost", "joe", "more", "x"}, {}} {
		if err := tagged(tags...); code(err) != "AccessDeniedException" {
			t.Errorf("with %v: %v", tags, err)
		}
	}
	must(i.DeleteUserPermissionsBoundary(ctx, &iam.DeleteUserPermissionsBoundaryInput{UserName: new("joe")}))
	// A resource's own tags.
	must(i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("no"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ecs:DeleteCluster","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/cost":"joe"}}}]}`)}))
	if _, err := e.DeleteCluster(ctx, &ecs.DeleteClusterInput{Cluster: new("tagged")}); !strings.Contains(text(err), "with an explicit deny in an identity-based policy") {
		t.Errorf("a cluster with the tag: %v", err)
	}
	if _, err := e.DeleteCluster(ctx, &ecs.DeleteClusterInput{Cluster: new("b")}); err != nil {
		t.Errorf("a cluster without: %v", err)
	}
}

// Creating with tags needs the permission to tag, documented for ECS and ELB.
func TestTaggingAtCreationIsItsOwnPermission(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	c := user(t, admin, "joe")
	put := func(statements string) {
		t.Helper()
		if _, err := i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[` + statements + `]}`)}); err != nil {
			t.Fatal(err)
		}
	}
	create := func() error {
		_, err := ecs.NewFromConfig(c).CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("c"), Tags: []ecstypes.Tag{ecsTag("a", "b")}})
		return err
	}
	put(`{"Effect":"Allow","Action":"ecs:CreateCluster","Resource":"*"}`)
	if err := create(); !strings.Contains(text(err), "ecs:TagResource on resource: arn:aws:ecs:us-east-1:111111111111:cluster/c") {
		t.Errorf("without it: %v", err)
	}
	put(`{"Effect":"Allow","Action":"ecs:CreateCluster","Resource":"*"},{"Effect":"Allow","Action":"ecs:TagResource","Resource":"*","Condition":{"StringEquals":{"ecs:CreateAction":"CreateCluster"}}}`)
	if err := create(); err != nil {
		t.Errorf("with it: %v", err)
	}
	if _, err := ecs.NewFromConfig(c).TagResource(ctx, &ecs.TagResourceInput{ResourceArn: new("arn:aws:ecs:us-east-1:111111111111:cluster/c"), Tags: []ecstypes.Tag{ecsTag("c", "d")}}); code(err) != "AccessDeniedException" {
		t.Errorf("tagging later, with a permission for the creation: %v", err)
	}
}

// Every list of IAM's pages, and the pages together are all that there is.
func TestIAMsListsPage(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	for n := range 7 {
		if _, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new(fmt.Sprint("r", n)), Path: new(map[bool]string{true: "/even/", false: "/odd/"}[n%2 == 0]), AssumeRolePolicyDocument: serviceTrust("ecs.amazonaws.com")}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	pages := iam.NewListRolesPaginator(i, &iam.ListRolesInput{MaxItems: new(int32(2)), PathPrefix: new("/even/")})
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Roles {
			names = append(names, *r.RoleName)
		}
	}
	if !slices.Equal(names, []string{"r0", "r2", "r4", "r6"}) {
		t.Errorf("the pages hold %v", names)
	}
	details := iam.NewGetAccountAuthorizationDetailsPaginator(i, &iam.GetAccountAuthorizationDetailsInput{MaxItems: new(int32(3)), Filter: []types.EntityType{types.EntityTypeRole}})
	roles := 0
	for details.HasMorePages() {
		out, err := details.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.RoleDetailList {
			roles++
			document, err := url.QueryUnescape(*r.AssumeRolePolicyDocument)
			if err != nil || document != *serviceTrust("ecs.amazonaws.com") {
				t.Errorf("the trust of %s reads %s, %v", *r.RoleName, document, err)
			}
		}
	}
	if roles != 7 {
		t.Errorf("the details tell of %d roles", roles)
	}
}

func TestASimulationSaysWhatTheCallWould(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	user(t, admin, "joe")
	if _, err := i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ecs:*","Resource":"arn:aws:ecs:*:*:cluster/mine","Condition":{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}},{"Effect":"Deny","Action":"ecs:DeleteCluster","Resource":"*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	out, err := i.SimulatePrincipalPolicy(ctx, &iam.SimulatePrincipalPolicyInput{PolicySourceArn: new("arn:aws:iam::111111111111:user/joe"), ActionNames: []string{"ecs:CreateCluster", "ecs:DeleteCluster"},
		ResourceArns: []string{"arn:aws:ecs:us-east-1:111111111111:cluster/mine", "arn:aws:ecs:us-east-1:111111111111:cluster/other"}, ContextEntries: []types.ContextEntry{{ContextKeyName: new("aws:RequestedRegion"), ContextKeyType: types.ContextKeyTypeEnumString, ContextKeyValues: []string{"us-east-1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range out.EvaluationResults {
		got = append(got, fmt.Sprintf("%s %s %s", *r.EvalActionName, (*r.EvalResourceName)[strings.LastIndexByte(*r.EvalResourceName, '/')+1:], r.EvalDecision))
	}
	want := []string{"ecs:CreateCluster mine allowed", "ecs:CreateCluster other implicitDeny", "ecs:DeleteCluster mine explicitDeny", "ecs:DeleteCluster other explicitDeny"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	without, err := i.SimulatePrincipalPolicy(ctx, &iam.SimulatePrincipalPolicyInput{PolicySourceArn: new("arn:aws:iam::111111111111:user/joe"), ActionNames: []string{"ecs:CreateCluster"}, ResourceArns: []string{"arn:aws:ecs:us-east-1:111111111111:cluster/mine"}})
	if err != nil || !slices.Equal(without.EvaluationResults[0].MissingContextValues, []string{"aws:RequestedRegion"}) {
		t.Errorf("without the key: %+v, %v", without, err)
	}
	custom, err := i.SimulateCustomPolicy(ctx, &iam.SimulateCustomPolicyInput{PolicyInputList: []string{everything}, PermissionsBoundaryPolicyInputList: []string{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:*","Resource":"*"}]}`}, ActionNames: []string{"ecs:CreateCluster"}})
	if err != nil || custom.EvaluationResults[0].EvalDecision != types.PolicyEvaluationDecisionTypeImplicitDeny || custom.EvaluationResults[0].PermissionsBoundaryDecisionDetail.AllowedByPermissionsBoundary {
		t.Errorf("a boundary: %+v, %v", custom, err)
	}
	keys, err := i.GetContextKeysForPrincipalPolicy(ctx, &iam.GetContextKeysForPrincipalPolicyInput{PolicySourceArn: new("arn:aws:iam::111111111111:user/joe")})
	if err != nil || !slices.Equal(keys.ContextKeyNames, []string{"aws:RequestedRegion"}) {
		t.Errorf("its keys: %v, %v", keys, err)
	}
}

// ECS and ELB make their own roles when they are first used, where the caller may.
func TestServicesMakeTheirOwnRoles(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	c := user(t, admin, "joe")
	put := func(action string) {
		t.Helper()
		if _, err := i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecs:*",` + action + `],"Resource":"*"}]}`)}); err != nil {
			t.Fatal(err)
		}
		if _, err := ecs.NewFromConfig(c).CreateCluster(ctx, &ecs.CreateClusterInput{}); err != nil {
			t.Fatal(err)
		}
	}
	put(`"logs:*"`)
	if _, err := i.GetRole(ctx, &iam.GetRoleInput{RoleName: new("AWSServiceRoleForECS")}); code(err) != "NoSuchEntity" {
		t.Errorf("made by one who may not: %v", err)
	}
	put(`"iam:CreateServiceLinkedRole"`)
	role, err := i.GetRole(ctx, &iam.GetRoleInput{RoleName: new("AWSServiceRoleForECS")})
	if err != nil || *role.Role.Arn != "arn:aws:iam::111111111111:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS" {
		t.Errorf("made by one who may: %+v, %v", role, err)
	}
}

// Facts sheet section 3.4: the keys that ECS's operations fill.
func TestECSFillsItsConditionKeys(t *testing.T) {
	_, admin := account(t, Enforce)
	i, ctx := iam.NewFromConfig(admin), t.Context()
	c := user(t, admin, "joe")
	e := ecs.NewFromConfig(c)
	const base = "arn:aws:ecs:us-east-1:111111111111:"
	for _, x := range []struct {
		action, condition string
		do                func() error
	}{
		{"RegisterTaskDefinition", `{"StringEquals":{"ecs:task-cpu":"256","ecs:task-memory":"512","ecs:privileged":"false"},"ForAllValues:StringEquals":{"ecs:compute-compatibility":["MANAGED_INSTANCES"]}}`, func() error {
			_, err := e.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), Cpu: new(".25 vCPU"), Memory: new("512"), RequiresCompatibilities: []ecstypes.Compatibility{"MANAGED_INSTANCES"}, ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("web:1")}}})
			return err
		}},
		{"CreateService", `{"ArnEquals":{"ecs:cluster":"` + base + `cluster/prod","ecs:task-definition":"` + base + `task-definition/web:1","ecs:capacity-provider":"` + base + `capacity-provider/mi"},"Bool":{"ecs:enable-execute-command":"false","ecs:auto-assign-public-ip":"true"},"ForAllValues:StringEquals":{"ecs:subnet":["a","b"]}}`, func() error {
			_, err := e.CreateService(ctx, &ecs.CreateServiceInput{Cluster: new("prod"), ServiceName: new("s"), TaskDefinition: new("web:1"), CapacityProviderStrategy: []ecstypes.CapacityProviderStrategyItem{{CapacityProvider: new("mi")}},
				NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a", "b"}, AssignPublicIp: "ENABLED"}}})
			return err
		}},
		{"StopServiceDeployment", `{"ArnEquals":{"ecs:cluster":"` + base + `cluster/prod","ecs:service":"` + base + `service/prod/s"}}`, func() error {
			_, err := e.StopServiceDeployment(ctx, &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: new(base + "service-deployment/prod/s/abc")})
			return err
		}},
		{"ListTasks", `{"ArnEquals":{"ecs:cluster":"` + base + `cluster/prod"}}`, func() error {
			_, err := e.ListTasks(ctx, &ecs.ListTasksInput{Cluster: new("prod")})
			return err
		}},
	} {
		for condition, passes := range map[string]bool{x.condition: true, strings.NewReplacer("cluster/prod", "cluster/x", "256", "9").Replace(x.condition): false} {
			if _, err := i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:` + x.action + `","Resource":"*","Condition":` + condition + `}]}`)}); err != nil {
				t.Fatal(err)
			}
			if err := x.do(); denied(code(err)) == passes {
				t.Errorf("%s under %s gives %v", x.action, condition, err)
			}
		}
	}
}

// A deployment is handed a role for its load balancer's weights and one for
// each hook's function; its caller must be allowed to pass every one to ECS.
func TestADeploymentsRolesMustBePassed(t *testing.T) {
	_, admin, joe := within(t, `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	i, e, ctx := iam.NewFromConfig(admin), ecs.NewFromConfig(joe), t.Context()
	const role = "arn:aws:iam::111111111111:role/"
	balancers := []ecstypes.LoadBalancer{{AdvancedConfiguration: &ecstypes.AdvancedConfiguration{RoleArn: new(role + "weights")}}}
	config := &ecstypes.DeploymentConfiguration{LifecycleHooks: []ecstypes.DeploymentLifecycleHook{{RoleArn: new(role + "hooks")}}}
	calls := map[string]func() error{
		"CreateService": func() error {
			_, err := e.CreateService(ctx, &ecs.CreateServiceInput{Cluster: new("prod"), ServiceName: new("s"), LoadBalancers: balancers, DeploymentConfiguration: config})
			return err
		},
		"UpdateService": func() error {
			_, err := e.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: new("prod"), Service: new("s"), LoadBalancers: balancers, DeploymentConfiguration: config})
			return err
		},
	}
	for _, x := range []struct{ resource, to, lacks string }{
		{role + "weights", "ecs", "hooks"},
		{role + "hooks", "ecs", "weights"},
		{role + "*", "ecs-tasks", "weights"},
		{role + "*", "ecs", ""},
	} {
		if _, err := i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("joe"), PolicyName: new("pass"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:PassRole","Resource":"` + x.resource + `","Condition":{"StringEquals":{"iam:PassedToService":"` + x.to + `.amazonaws.com"}}}]}`)}); err != nil {
			t.Fatal(err)
		}
		for name, call := range calls {
			err := call()
			if x.lacks == "" && (err == nil || denied(code(err))) || x.lacks != "" && !(denied(code(err)) && strings.Contains(text(err), "iam:PassRole on resource: "+role+x.lacks+" ")) {
				t.Errorf("%s, with %s passed to %s, gives %v", name, x.resource, x.to, err)
			}
		}
	}
}

// A call of a session whose role has ten of AWS's managed policies: gathering
// them, filling the condition keys, deciding.
func BenchmarkAuthorize(b *testing.B) {
	s, err := New(Config{Dir: b.TempDir(), Ephemeral: true, Account: "111111111111", Region: "us-east-1", Endpoint: "localhost:4566", Speed: 1, IAM: Enforce, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	admin := aws.Config{Region: "us-east-1", HTTPClient: s.HTTPClient(), BaseEndpoint: new("http://localhost:4566"), Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}
	i, ctx := iam.NewFromConfig(admin), b.Context()
	if _, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: serviceTrust("ecs.amazonaws.com")}); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"AmazonEC2ContainerRegistryPowerUser", "AmazonEC2ContainerRegistryReadOnly", "AmazonEC2ContainerRegistryFullAccess", "service-role/AmazonECSTaskExecutionRolePolicy", "AmazonECSInfrastructureRolePolicyForLoadBalancers",
		"AmazonECSInfrastructureRolePolicyForManagedInstances", "AmazonECSInstanceRolePolicyForManagedInstances", "CloudWatchLogsFullAccess", "IAMReadOnlyAccess", "AmazonECS_FullAccess"} {
		if _, err := i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: new("arn:aws:iam::aws:policy/" + name)}); err != nil {
			b.Fatal(err)
		}
	}
	role, _ := s.iam.Role("111111111111", "r")
	session, err := s.sts.Issue(stsd.Session{Account: "111111111111", RoleARN: role.ARN, RoleID: role.ID, Name: "bench"}, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	principal, _ := s.assumed(session)
	call := &wire.Call{Service: "ecs", Operation: "DescribeServices", Scope: arn.Scope{Account: "111111111111", Region: "us-east-1"}, Principal: principal, SourceIP: "127.0.0.1", UserAgent: "bench"}
	checks := []wire.Check{{Action: "ecs:DescribeServices", Resource: "arn:aws:ecs:us-east-1:111111111111:service/prod/web", Context: map[string][]string{"ecs:cluster": {"arn:aws:ecs:us-east-1:111111111111:cluster/prod"}}}}
	for b.Loop() {
		if err := s.authorize(ctx, call, checks); err != nil {
			b.Fatal(err)
		}
	}
}
