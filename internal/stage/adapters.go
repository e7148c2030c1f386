package stage

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	logtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"serin/internal/api/ecsd"
	"serin/internal/api/elbd"
	"serin/internal/api/iamd"
	"serin/internal/api/logsd"
	"serin/internal/api/stsd"
	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/run"
	"serin/internal/store"
	"serin/internal/wire"
)

// stsIAM is IAM as STS asks for it.
type stsIAM struct{ *iamd.API }

func (i stsIAM) Role(account, nameOrARN string) (stsd.Role, bool) {
	r, ok := i.API.Role(account, nameOrARN)
	return stsd.Role(r), ok
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

func (t traffic) Group(groupARN string) (exists, used bool) { return t.elb.InUse(groupARN) }

func (t traffic) Register(tx *store.Tx, groupARN, address string, port int32) error {
	return t.elb.Register(tx, groupARN, address, port)
}

func (t traffic) Deregister(tx *store.Tx, groupARN, address string, port int32) error {
	return t.elb.Deregister(tx, groupARN, address, port)
}

func (t traffic) Health(groupARN string) map[string]ecsd.TargetHealth {
	out := map[string]ecsd.TargetHealth{}
	for at, h := range t.elb.HealthOf(groupARN) {
		out[at] = ecsd.TargetHealth{State: h.State, Description: h.Description}
	}
	return out
}

func (t traffic) Observations() []store.AnyTable { return t.elb.Observations() }

// images finds images for the runtime: those of the stage's registry with a
// token of the execution role, all others where they are.
type images struct{ s *Stage }

var registryHost = regexp.MustCompile(`^(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/(.+)$`)

func (i images) Resolve(_ context.Context, scope arn.Scope, image, executionRole string) (string, run.Auth, error) {
	name, ok := strings.CutPrefix(image, i.s.config.Endpoint+"/")
	if m := registryHost.FindStringSubmatch(image); m != nil {
		scope, name, ok = arn.Scope{Account: m[1], Region: m[2]}, m[3], true
	}
	if !ok {
		return image, run.Auth{}, nil
	}
	principal := wire.Principal{Account: scope.Account, Admin: true}
	if executionRole != "" && i.s.config.IAM != Off {
		p, err := i.s.serviceSession(executionRole, "ecs-tasks.amazonaws.com", "ecs-pull")
		if err != nil {
			return "", run.Auth{}, err
		}
		call := &wire.Call{Service: "ecr", Scope: scope, Principal: p}
		if err := i.s.authorize(context.Background(), call, []wire.Check{{Action: "ecr:GetAuthorizationToken", Resource: "*"}}); err != nil {
			return "", run.Auth{}, message(err)
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

// roles is IAM and STS as ECS uses them for itself.
type roles struct{ s *Stage }

func (r roles) Check(role, service, session, action, resource string) error {
	if r.s.config.IAM == Off {
		return nil
	}
	p, err := r.s.serviceSession(role, service, session)
	if err != nil || action == "" {
		return err
	}
	a, err := arn.Parse(resource)
	if err != nil {
		return err
	}
	svc, _, _ := strings.Cut(action, ":")
	return message(r.s.authorize(context.Background(), &wire.Call{Service: svc, Scope: a.Scope(), Principal: p}, []wire.Check{{Action: action, Resource: resource}}))
}

// serviceSession is a service acting as a role that trusts it.
func (s *Stage) serviceSession(role, service, session string) (wire.Principal, error) {
	parsed, err := arn.Parse(role)
	if err != nil {
		return wire.Principal{}, err
	}
	r, ok := s.iam.Role(parsed.Account, role)
	if !ok || !r.Trust.Assume(&policy.Request{Action: "sts:AssumeRole", Resource: role, Principals: map[string][]string{"Service": {service}}}) {
		//lint:ignore ST1005 AWS's words
		return wire.Principal{}, fmt.Errorf("ECS was unable to assume the role '%s' that was provided for this task. Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions to pass this role.", role)
	}
	return wire.Principal{
		Account: parsed.Account, Role: r.ARN, Session: session, UserID: r.ID + ":" + session,
		ARN: arn.Scope{Account: parsed.Account}.For("sts", "assumed-role/"+r.Name+"/"+session).String(),
	}, nil
}

// logDriver is CloudWatch Logs as the awslogs driver writes to it.
type logDriver struct{ s *Stage }

func (l logDriver) Open(scope arn.Scope, role, group, stream string, create bool) error {
	may := func(action, resource string) error {
		if role == "" {
			return nil
		}
		return roles(l).Check(role, "ecs-tasks.amazonaws.com", "awslogs", "logs:"+action, scope.For("logs", resource).String())
	}
	if !l.s.logs.HasGroup(scope, group) && create {
		if err := may("CreateLogGroup", "log-group:"+group); err != nil {
			return err
		}
		if err := l.s.logs.MakeGroup(scope, group); err != nil && !exists(err) {
			return message(err)
		}
	}
	if err := may("CreateLogStream", "log-group:"+group+":log-stream:"+stream); err != nil {
		return err
	}
	if err := l.s.logs.MakeStream(scope, group, stream); err != nil && !exists(err) {
		return err
	}
	return nil
}

func exists(err error) bool {
	_, ok := errors.AsType[*logtypes.ResourceAlreadyExistsException](err)
	return ok
}

func (l logDriver) Put(scope arn.Scope, group, stream string, events []ecsd.LogEvent) error {
	out := make([]logsd.Event, len(events))
	for i, e := range events {
		out[i] = logsd.Event{Time: e.At.UnixMilli(), Message: e.Message}
	}
	return l.s.logs.Append(scope, group, stream, out)
}
