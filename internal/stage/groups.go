package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"serin/internal/api/autoscalingd"
	"serin/internal/api/ec2d"
	"serin/internal/api/ecsd"
	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

// groups is Auto Scaling as ECS manages groups of it.
type groups struct{ *autoscalingd.API }

func (g groups) Find(tx *store.Tx, scope arn.Scope, nameOrARN string) (ecsd.Group, bool) {
	found, ok := g.API.Find(tx, scope, nameOrARN)
	return ecsd.Group(found), ok
}

func (g groups) Hosts(tx *store.Tx, scope arn.Scope) (list []ecsd.Host) {
	for _, m := range g.Members(tx, scope) {
		list = append(list, ecsd.Host(m))
	}
	return list
}

// groupMachines is EC2 as Auto Scaling asks for it.
type groupMachines struct{ s *Stage }

func (m groupMachines) Template(scope arn.Scope, id, name, version string) (autoscalingd.Template, error) {
	t, err := m.s.ec2.Template(scope, id, name, version)
	out := autoscalingd.Template{ID: t.ID, Name: t.Name, Type: t.Type, Image: t.Image, Profile: t.Profile, UserData: t.UserData, SecurityGroups: t.SecurityGroups, Tags: t.Tags, Asked: cmp.Or(id, name)}
	return out, message(err)
}

func (m groupMachines) Places(scope arn.Scope, subnets, zones, groups []string) (list []autoscalingd.Place, err error) {
	places, err := m.s.ec2.Places(scope, subnets, zones, groups)
	for _, p := range places {
		list = append(list, autoscalingd.Place(p))
	}
	return list, message(err)
}

// Launch has nothing of a type that EC2 was told to run out of; the words are
// observed.
func (m groupMachines) Launch(tx *store.Tx, scope arn.Scope, w autoscalingd.Machine) (string, error) {
	if m.s.ecs.Denied(tx, scope, w.Type) {
		return "", errors.New("We currently do not have sufficient " + w.Type + " capacity in the Availability Zone you requested (" + w.Zone + "). Our system will be working on provisioning additional capacity.")
	}
	ec2, err := m.s.ec2.Launch(tx, scope, ec2d.Machine{Group: w.Group, Type: w.Type, Zone: w.Zone, Subnet: w.Subnet, Groups: w.SecurityGroups, At: w.At, Tags: w.Tags})
	return ec2, message(err)
}

// LinkedRole makes Auto Scaling's own role where there is none. A caller who may not
// is refused; the words are observed.
func (m groupMachines) LinkedRole(ctx context.Context, call *wire.Call) error {
	const service = "autoscaling.amazonaws.com"
	check := linkedRoleCheck(call, service)
	if _, there := m.s.iam.Role(call.Scope.Account, check.Resource); !there {
		if err := m.s.authorize(ctx, call, []wire.Check{check}); err != nil {
			return refusedAs("The default Service-Linked Role for Auto Scaling could not be created.  com.amazonaws.services.identitymanagement.model.AmazonIdentityManagementException: %v (Service: AmazonIdentityManagement; Status Code: 403; Error Code: AccessDenied; Request ID: %s; Proxy: null)", message(err), id.UUID())
		}
	}
	return m.s.iam.LinkedRole(call.Scope.Account, service)
}

// MayLaunch asks for what running instances of a template takes of the caller,
// documented: https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
// Whatever is missing, Auto Scaling names the template alone, observed.
func (m groupMachines) MayLaunch(ctx context.Context, call *wire.Call, t autoscalingd.Template, places []autoscalingd.Place) error {
	if m.s.config.IAM == Off {
		return nil
	}
	checks := runChecks(call, t, places)
	if t.Profile != "" {
		role, err := m.profileRole(call.Scope, t.Profile)
		if err != nil {
			return err
		}
		checks = append(checks, wire.Check{Action: "iam:PassRole", Resource: role, Context: map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}}})
	}
	if m.s.authorize(ctx, call, checks) != nil {
		return refusedAs("You are not authorized to use launch template: %s", t.Asked)
	}
	return nil
}

// runChecks is ec2:RunInstances on each resource that it uses, and ec2:CreateTags
// where the template has tags.
func runChecks(call *wire.Call, t autoscalingd.Template, places []autoscalingd.Place) (checks []wire.Check) {
	ec2 := func(resource string) string { return call.Scope.For("ec2", resource).String() }
	template := ec2("launch-template/" + t.ID)
	run := func(resource string) {
		checks = append(checks, wire.Check{Action: "ec2:RunInstances", Resource: resource, Wild: strings.HasSuffix(resource, "/*"), Context: map[string][]string{
			"ec2:InstanceType": {t.Type}, "ec2:LaunchTemplate": {template}, "ec2:IsLaunchTemplateResource": {"true"}}})
	}
	for _, resource := range []string{"instance/*", "network-interface/*", "volume/*", "launch-template/" + t.ID} {
		run(ec2(resource))
	}
	if t.Image != "" { // an image is nobody's in particular
		run(arn.Scope{Region: call.Scope.Region}.For("ec2", "image/"+t.Image).String())
	}
	for _, p := range places {
		run(ec2("subnet/" + p.Subnet))
	}
	for _, g := range t.SecurityGroups {
		run(ec2("security-group/" + g))
	}
	labels := map[string][]string{"ec2:CreateAction": {"RunInstances"}}
	for _, tag := range t.Tags {
		labels["aws:RequestTag/"+tag.Key] = []string{tag.Value}
	}
	return append(checks, wire.WhenTagged(t.Tags, wire.Check{Action: "ec2:CreateTags", Resource: ec2("instance/*"), Wild: true, Context: labels})...)
}

// profileRole is the role of an instance profile by its name or ARN; the words are
// EC2's, observed.
func (m groupMachines) profileRole(scope arn.Scope, profile string) (string, error) {
	member, word, name := "arn", "ARN", profile
	if !arn.Is(profile) {
		member, word, name = "name", "name", profileARN(scope, profile)
	}
	role, ok := m.s.iam.ProfileRole(scope.Account, name)
	if !ok {
		return "", errors.New("Value (" + profile + ") for parameter iamInstanceProfile." + member + " is invalid. Invalid IAM Instance Profile " + word)
	}
	return role, nil
}

// profileARN is the ARN of an instance profile without a path.
func profileARN(scope arn.Scope, name string) string {
	return arn.Scope{Account: scope.Account}.For("iam", "instance-profile/"+name).String()
}

// refusedAs is Auto Scaling's denial in words of its own.
func refusedAs(format string, args ...any) error {
	return &wire.Error{Code: "AccessDenied", Message: fmt.Sprintf(format, args...), Status: http.StatusForbidden}
}

func (m groupMachines) Terminate(tx *store.Tx, scope arn.Scope, id string, at time.Time) {
	m.s.ec2.Terminate(tx, scope, id, at)
}

// MayRegister asks for what the agent needs of its instance's role to register it.
func (r roles) MayRegister(scope arn.Scope, profile, instance, cluster string) error {
	if r.s.config.IAM == Off {
		return nil
	}
	if profile != "" && !arn.Is(profile) {
		profile = profileARN(scope, profile)
	}
	role, ok := r.s.iam.ProfileRole(scope.Account, profile)
	if !ok {
		return fmt.Errorf("NoCredentialProviders: the instance %s has no instance profile with a role; its launch template names %q", instance, profile)
	}
	p, err := r.s.serviceSession(ecsd.Actor{Role: role, Service: "ec2.amazonaws.com", Session: instance})
	if err != nil {
		return err
	}
	const action = "RegisterContainerInstance"
	call := &wire.Call{Service: "ecs", Operation: action, RequestID: id.UUID(), Scope: scope, Principal: p}
	return denial(r.s.authorize(context.Background(), call, []wire.Check{{Action: "ecs:" + action, Resource: cluster}}))
}
