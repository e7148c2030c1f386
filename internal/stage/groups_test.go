package stage

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"
)

// launchTemplate makes a launch template by EC2's form.
func launchTemplate(t *testing.T, s *Stage, admin aws.Config, name, profile string) {
	t.Helper()
	values := url.Values{"Action": {"CreateLaunchTemplate"}, "LaunchTemplateName": {name}, "LaunchTemplateData.InstanceType": {"m5.large"},
		"LaunchTemplateData.TagSpecification.1.ResourceType": {"instance"}, "LaunchTemplateData.TagSpecification.1.Tag.1.Key": {"team"}, "LaunchTemplateData.TagSpecification.1.Tag.1.Value": {"web"}}
	if profile != "" {
		values.Set("LaunchTemplateData.IamInstanceProfile.Name", profile)
	}
	said := form(t, s, admin, s.ec2.Service(), values)
	if !strings.Contains(said, "<launchTemplateId>") {
		t.Fatal(said)
	}
}

// Who makes a group must be allowed what the group will do: launch instances with the
// template's role and tags. Who changes it, only when the template is another.
func TestWhoMakesAGroupMustBeAllowedToLaunchItsInstances(t *testing.T) {
	s, admin := account(t, Enforce)
	i := iam.NewFromConfig(admin)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("hosts"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
	must(i.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: new("hosts")}))
	must(i.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: new("hosts"), RoleName: new("hosts")}))
	launchTemplate(t, s, admin, "web", "hosts")
	launchTemplate(t, s, admin, "lost", "nobody")
	c := user(t, admin, "someone")
	create := func(template string) error {
		_, err := autoscaling.NewFromConfig(c).CreateAutoScalingGroup(ctx, &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: new("g"), MinSize: new(int32(0)), MaxSize: new(int32(1)), AvailabilityZones: []string{"us-east-1a"},
			LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateName: &template}})
		return err
	}
	allow := func(statements ...string) {
		t.Helper()
		must(i.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("someone"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`)}))
	}
	refused := func(what string, err error, code, text string) {
		t.Helper()
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != code || !strings.HasPrefix(e.ErrorMessage(), text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	const (
		groups = `{"Effect":"Allow","Action":"autoscaling:*","Resource":"*"}`
		run    = `{"Effect":"Allow","Action":"ec2:RunInstances","Resource":"*"}`
		label  = `{"Effect":"Allow","Action":"ec2:CreateTags","Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/team":"web","ec2:CreateAction":"RunInstances"}}}`
		pass   = `{"Effect":"Allow","Action":"iam:PassRole","Resource":"arn:aws:iam::111111111111:role/hosts","Condition":{"StringEquals":{"iam:PassedToService":"ec2.amazonaws.com"}}}`
		linked = `{"Effect":"Allow","Action":"iam:CreateServiceLinkedRole","Resource":"arn:aws:iam::*:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling","Condition":{"StringEquals":{"iam:AWSServiceName":"autoscaling.amazonaws.com"}}}`
	)
	for what, statements := range map[string][]string{
		"nothing but the group":   {groups},
		"no role passed":          {groups, run, label},
		"no tags":                 {groups, run, pass},
		"no instances":            {groups, label, pass},
		"instances of other type": {groups, label, pass, `{"Effect":"Allow","Action":"ec2:RunInstances","Resource":"*","Condition":{"StringEquals":{"ec2:InstanceType":"t3.micro"}}}`},
	} {
		allow(statements...)
		refused(what, create("web"), "AccessDenied", "You are not authorized to use launch template: web")
	}
	allow(groups, run, label, pass)
	refused("no service-linked role", create("web"), "AccessDenied", "The default Service-Linked Role for Auto Scaling could not be created.  com.amazonaws.services.identitymanagement.model.AmazonIdentityManagementException: User: arn:aws:iam::111111111111:user/someone is not authorized to perform: iam:CreateServiceLinkedRole on resource: arn:aws:iam::111111111111:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling because no identity-based policy allows the iam:CreateServiceLinkedRole action")
	refused("a profile that is not there", create("lost"), "ValidationError", "You must use a valid fully-formed launch template. Value (nobody) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name")
	allow(groups, run, label, pass, linked)
	must(nil, create("web"))
	must(i.GetRole(ctx, &iam.GetRoleInput{RoleName: new("AWSServiceRoleForAutoScaling")}))

	update := func(in *autoscaling.UpdateAutoScalingGroupInput) error {
		in.AutoScalingGroupName = new("g")
		_, err := autoscaling.NewFromConfig(c).UpdateAutoScalingGroup(ctx, in)
		return err
	}
	allow(groups)
	must(nil, update(&autoscaling.UpdateAutoScalingGroupInput{MaxSize: new(int32(2))}))
	refused("a template in an update", update(&autoscaling.UpdateAutoScalingGroupInput{LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateName: new("web")}}), "AccessDenied", "You are not authorized to use launch template: web")
	allow(groups, run, label, pass)
	must(nil, update(&autoscaling.UpdateAutoScalingGroupInput{LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateName: new("web")}}))
}

// The policy of AWS's own page: groups with a tag, and no others.
func TestAPolicyMaySpeakOfAGroupsTags(t *testing.T) {
	s, admin := account(t, Enforce)
	launchTemplate(t, s, admin, "web", "")
	c := user(t, admin, "someone")
	ctx := t.Context()
	if _, err := iam.NewFromConfig(admin).PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("someone"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["autoscaling:CreateAutoScalingGroup","autoscaling:UpdateAutoScalingGroup","autoscaling:DeleteAutoScalingGroup"],"Resource":"*","Condition":{"StringEquals":{"autoscaling:ResourceTag/purpose":"testing"}}},
		{"Effect":"Allow","Action":["autoscaling:Describe*","ec2:RunInstances","ec2:CreateTags","iam:CreateServiceLinkedRole"],"Resource":"*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	create := func(config aws.Config, name, purpose string) error {
		_, err := autoscaling.NewFromConfig(config).CreateAutoScalingGroup(ctx, &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: &name, MinSize: new(int32(0)), MaxSize: new(int32(1)), AvailabilityZones: []string{"us-east-1a"},
			LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateName: new("web")}, Tags: []types.Tag{{Key: new("purpose"), Value: &purpose}}})
		return err
	}
	if err := create(c, "mine", "testing"); err != nil {
		t.Error(err)
	}
	if err := create(c, "theirs", "serving"); code(err) != "AccessDenied" {
		t.Errorf("a group of another purpose: %v", err)
	}
	if err := create(admin, "theirs", "serving"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"mine": "", "theirs": "AccessDenied"} {
		if _, err := autoscaling.NewFromConfig(c).DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: &name}); code(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
