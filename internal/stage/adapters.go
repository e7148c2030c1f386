package stage

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	logtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"serin/internal/api/cwd"
	"serin/internal/api/ec2d"
	"serin/internal/api/ecsd"
	"serin/internal/api/elbd"
	"serin/internal/api/iamd"
	"serin/internal/api/logsd"
	"serin/internal/api/stsd"
	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/policy"
	"serin/internal/run"
	"serin/internal/store"
	"serin/internal/wire"
)

// stsIAM is IAM as STS asks for it.
type stsIAM struct{ *iamd.API }

func (i stsIAM) Role(account, nameOrARN string) (stsd.Role, bool) {
	r, ok := i.API.Role(account, nameOrARN)
	return stsd.Role{ARN: r.ARN, Name: r.Name, ID: r.ID, Trust: r.Trust, MaxSession: r.MaxSession}, ok
}

func (i stsIAM) Key(accessKeyID string) (string, bool) {
	k, ok := i.API.Key(accessKeyID)
	return k.Account, ok
}

// traffic is ELB as ECS asks for it.
type traffic struct{ elb *elbd.API }

func (t traffic) Weights(ruleARN string) (wanted, inForce []ecsd.Share, err error) {
	w, in, err := t.elb.Weights(ruleARN)
	return toECS(w), toECS(in), err
}

func toECS(in []elbd.Share) []ecsd.Share {
	out := make([]ecsd.Share, len(in))
	for i, s := range in {
		out[i] = ecsd.Share(s)
	}
	return out
}

func (t traffic) SetWeights(tx *store.Tx, ruleARN string, weights []ecsd.Share) error {
	out := make([]elbd.Share, len(weights))
	for i, s := range weights {
		out[i] = elbd.Share(s)
	}
	return t.elb.SetWeights(tx, ruleARN, out)
}

func (t traffic) Group(groupARN string) (g ecsd.TargetGroup, exists bool) {
	has, exists := t.elb.Group(groupARN)
	return ecsd.TargetGroup{Protocol: has.Protocol, Targets: has.Type, Used: has.Used}, exists
}

func (t traffic) Register(tx *store.Tx, groupARN string, m ecsd.Member) error {
	return t.elb.Register(tx, groupARN, elbd.Target(m))
}

func (t traffic) Deregister(tx *store.Tx, groupARN string, m ecsd.Member) error {
	return t.elb.Deregister(tx, groupARN, elbd.Target(m))
}

func (t traffic) Health(groupARN string) map[string]ecsd.TargetHealth {
	out := map[string]ecsd.TargetHealth{}
	for at, h := range t.elb.HealthOf(groupARN) {
		out[at] = ecsd.TargetHealth{State: h.State, Description: h.Description}
	}
	return out
}

func (t traffic) Observations() []store.AnyTable { return t.elb.Observations() }

func (t traffic) About(k store.Key) []string { return t.elb.About(k) }

// alarms is CloudWatch as ECS asks for it.
type alarms struct{ *cwd.API }

func (a alarms) Alarm(scope arn.Scope, name string) (firing bool, evaluation time.Duration, ok bool) {
	state, _, evaluation, ok := a.API.Alarm(scope, name)
	return state == "ALARM", evaluation, ok
}

// machines is EC2 as ECS asks for it.
type machines struct{ *ec2d.API }

func (m machines) Network(scope arn.Scope, subnets, groups []string) (zones map[string]string, vpc string, err error) {
	zones, vpc, err = m.API.Network(scope, subnets, groups)
	if e, ok := errors.AsType[*ec2d.MissingError](err); ok {
		err = errors.New("Error retrieving " + e.What + " information for [" + e.ID + "]: " + e.Error() + " (ErrorCode: " + e.Code() + ")")
	}
	if err != nil {
		return nil, "", message(err)
	}
	return zones, vpc, nil
}

func (m machines) Launch(tx *store.Tx, scope arn.Scope, w ecsd.Machine) (string, error) {
	ec2, err := m.API.Launch(tx, scope, ec2d.Machine{Type: w.Type, Zone: w.Zone, Subnet: w.Subnet, Groups: w.Groups, Spot: w.Spot, At: w.At, Tags: w.Tags})
	return ec2, denial(err)
}

// images finds images for the runtime: those of the stage's registry with a
// token of the execution role, all others where they are.
type images struct{ s *Stage }

var registryHost = regexp.MustCompile(`^(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/(.+)$`)

func (i images) Resolve(_ context.Context, scope arn.Scope, image string, as ecsd.Actor) (string, run.Auth, error) {
	name, ok := strings.CutPrefix(image, i.s.config.Endpoint+"/")
	own := scope.Account
	if m := registryHost.FindStringSubmatch(image); m != nil {
		scope, name, ok = arn.Scope{Account: m[1], Region: m[2]}, m[3], true
	}
	if !ok {
		return image, run.Auth{}, nil
	}
	if as.Role == "" && scope.Account != own {
		return "", run.Auth{}, fmt.Errorf("the image %s is in the registry of account %s, and the task has no execution role to ask for it with", image, scope.Account)
	}
	principal := wire.Principal{Account: own, Admin: true}
	if as.Role != "" && i.s.config.IAM != Off {
		p, err := i.s.serviceSession(as)
		if err != nil {
			return "", run.Auth{}, err
		}
		call := &wire.Call{Service: "ecr", Operation: "GetAuthorizationToken", RequestID: id.UUID(), Scope: scope, Principal: p}
		if err := i.s.authorize(context.Background(), call, []wire.Check{{Action: "ecr:GetAuthorizationToken", Resource: "*"}}); err != nil {
			return "", run.Auth{}, denial(err)
		}
		principal = p
	}
	password, _, err := i.s.ecr.Token(principal, scope)
	return i.s.config.Endpoint + "/" + name, run.Auth{Username: "AWS", Password: password}, err
}

// message is an API error's text without its code.
func message(err error) error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return errors.New(e.Message)
	}
	return err
}

// denial is an API error as ECS's agent repeats it: its code and text.
func denial(err error) error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return errors.New(e.Code + ": " + e.Message)
	}
	return err
}

// roles is IAM and STS as ECS uses them for itself.
type roles struct{ s *Stage }

func (r roles) Check(as ecsd.Actor, action, resource string) error {
	if r.s.config.IAM == Off {
		return nil
	}
	p, err := r.s.serviceSession(as)
	if err != nil || action == "" {
		return err
	}
	where := resource
	if where == "*" { // it has no region: that of what the service acts for is meant
		where = as.Source
	}
	a, err := arn.Parse(where)
	if err != nil {
		return err
	}
	service, operation, _ := strings.Cut(action, ":")
	call := &wire.Call{Service: service, Operation: operation, RequestID: id.UUID(), Scope: a.Scope(), Principal: p}
	return message(r.s.authorize(context.Background(), call, []wire.Check{{Action: action, Resource: resource}}))
}

// MayLaunch asks for the main things that ECS does to launch an instance; the texts
// are EC2's, observed.
func (r roles) MayLaunch(scope arn.Scope, infrastructureRole, profile string) error {
	if r.s.config.IAM == Off {
		return nil
	}
	role, ok := r.s.iam.ProfileRole(scope.Account, profile)
	if !ok {
		return fmt.Errorf("InvalidParameterValue: Value (%s) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN", profile)
	}
	p, err := r.s.serviceSession(ecsd.Actor{Role: infrastructureRole, Service: "ecs.amazonaws.com", Session: "ECSManagedInstances"})
	if err != nil {
		return err
	}
	managed := map[string][]string{"aws:RequestTag/AmazonECSManaged": {"true"}}
	for _, c := range []wire.Check{
		{Action: "ec2:CreateLaunchTemplate", Resource: "launch-template/lt-" + id.Hex(17), Context: managed},
		{Action: "ec2:CreateFleet", Resource: "fleet/fleet-" + id.UUID(), Context: managed},
		{Action: "ec2:RunInstances", Resource: "instance/i-" + id.Hex(17), Context: managed},
		{Action: "ec2:CreateTags", Resource: "instance/i-" + id.Hex(17), Context: map[string][]string{"ec2:CreateAction": {"RunInstances"}}},
		{Action: "iam:PassRole", Resource: role, Context: map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}}},
	} {
		service, operation, _ := strings.Cut(c.Action, ":")
		if service == "ec2" {
			c.Resource = scope.For("ec2", c.Resource).String()
		}
		call := &wire.Call{Service: service, Operation: operation, RequestID: id.UUID(), Scope: scope, Principal: p}
		if err := r.s.authorize(context.Background(), call, []wire.Check{c}); err != nil {
			return fmt.Errorf("UnauthorizedOperation: You are not authorized to perform this operation. %w", message(err))
		}
	}
	return nil
}

func (r roles) LinkedRole(call *wire.Call) error { return r.s.linkedRole(call, "ecs.amazonaws.com") }

// linkedRole makes a service's own role in the caller's account, where the
// caller may; where not, the call goes on without, documented for CreateCluster.
func (s *Stage) linkedRole(call *wire.Call, service string) error {
	if !s.may(call, linkedRoleCheck(call, service)) {
		return nil
	}
	return s.iam.LinkedRole(call.Scope.Account, service)
}

// linkedRoleCheck is the permission that it takes to make a service's own role.
func linkedRoleCheck(call *wire.Call, service string) wire.Check {
	return wire.Check{Action: "iam:CreateServiceLinkedRole", Resource: iamd.LinkedRoleARN(call.Scope.Account, service), Context: map[string][]string{"iam:AWSServiceName": {service}}}
}

// registrySession is ECR acting as a role of a template or a cache rule.
func (s *Stage) registrySession(role string) (wire.Principal, error) {
	return s.serviceSession(ecsd.Actor{Role: role, Service: "ecr.amazonaws.com", Session: "ecr"})
}

// serviceSession is a service acting as a role that trusts it.
func (s *Stage) serviceSession(as ecsd.Actor) (wire.Principal, error) {
	parsed, err := arn.Parse(as.Role)
	if err != nil {
		return wire.Principal{}, err
	}
	r, found := s.iam.Role(parsed.Account, as.Role)
	request := &policy.Request{Action: "sts:AssumeRole", Resource: as.Role, Principal: policy.Principal{Service: as.Service},
		Context: policy.Context{"aws:sourceaccount": {parsed.Account}, "aws:principalisawsservice": {"true"}}}
	if as.Source != "" {
		request.Context.Set("aws:SourceArn", as.Source)
	}
	if !found || s.config.IAM != Off && !r.Trust.Assume(request) {
		p := policy.Policies{Trust: true}
		if found {
			p.Resource = &policy.Named{Name: trustOf(r.Name), Document: r.Trust}
		}
		text := fmt.Sprintf("ECS was unable to assume the role '%s' that was provided for this task. Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions to pass this role.", as.Role)
		if as.Service == "ecr.amazonaws.com" { // AWS documents no text
			text = fmt.Sprintf("ECR was unable to assume the role '%s'. Please verify that the role exists and that its trust policy allows the service %s.", as.Role, as.Service)
		}
		call := &wire.Call{Service: "sts", Operation: "AssumeRole", RequestID: id.UUID(), Scope: parsed.Scope(), Principal: wire.Principal{ARN: as.Service, Service: as.Service, Account: parsed.Account}}
		s.decide(call, request, p, policy.Decision{Reason: policy.NoResourceAllow, Kind: policy.KindTrust}, text)
		if !found || s.config.IAM != Report {
			return wire.Principal{}, errors.New(text)
		}
	}
	s.learned.service(as.Role, as.Session, as.Service)
	return wire.Principal{
		Account: parsed.Account, Type: "AssumedRole", Role: r.ARN, RoleID: r.ID, Session: as.Session, Service: as.Service, UserID: r.ID + ":" + as.Session, Tags: r.Tags,
		ARN: arn.Scope{Account: parsed.Account}.For("sts", "assumed-role/"+r.Name+"/"+as.Session).String(),
	}, nil
}

// logDriver is CloudWatch Logs as the awslogs driver writes to it, with the
// rights of a task's execution role.
type logDriver struct{ s *Stage }

// may asks whether the role may do something to a group, or to a stream of it.
func (l logDriver) may(scope arn.Scope, as ecsd.Actor, action, group, stream string) error {
	if as.Role == "" || l.s.config.IAM == Off {
		return nil
	}
	p, err := l.s.serviceSession(as)
	if err != nil {
		return err
	}
	resource, alias := logsd.GroupResource(group)
	check := wire.Check{Action: "logs:" + action, Resource: scope.For("logs", resource+stream).String()}
	if stream == "" {
		check.Alias = scope.For("logs", alias).String()
	}
	call := &wire.Call{Service: "logs", Operation: action, RequestID: id.UUID(), Scope: scope, Principal: p}
	return denial(l.s.authorize(context.Background(), call, []wire.Check{check}))
}

func (l logDriver) Open(scope arn.Scope, as ecsd.Actor, group, stream string, create bool) error {
	if !l.s.logs.HasGroup(scope, group) && create {
		err := l.may(scope, as, "CreateLogGroup", group, "")
		if err == nil {
			if err = l.s.logs.MakeGroup(scope, group); exists(err) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("failed to create Cloudwatch log group: %w", err)
		}
	}
	err := l.may(scope, as, "CreateLogStream", group, stream)
	if err == nil {
		if err = l.s.logs.MakeStream(scope, group, stream); exists(err) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("failed to create Cloudwatch log stream: %w", err)
	}
	return nil
}

func exists(err error) bool {
	_, ok := errors.AsType[*logtypes.ResourceAlreadyExistsException](err)
	return ok
}

func (l logDriver) Put(scope arn.Scope, as ecsd.Actor, group, stream string, events []ecsd.LogEvent) error {
	if err := l.may(scope, as, "PutLogEvents", group, stream); err != nil {
		return nil // the driver drops what it may not write; the decision is kept
	}
	out := make([]logsd.Event, len(events))
	for i, e := range events {
		out[i] = logsd.Event{Time: e.At.UnixMilli(), Message: e.Message}
	}
	return l.s.logs.Append(scope, group, stream, out)
}
