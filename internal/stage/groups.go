package stage

import (
	"context"
	"errors"
	"fmt"
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
	return autoscalingd.Template(t), message(err)
}

func (m groupMachines) Places(scope arn.Scope, subnets, zones []string) (list []autoscalingd.Place, err error) {
	places, err := m.s.ec2.Places(scope, subnets, zones)
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
	return m.s.ec2.Launch(tx, scope, ec2d.Machine{Group: w.Group, Type: w.Type, Zone: w.Zone, Subnet: w.Subnet, Groups: w.SecurityGroups, At: w.At, Tags: w.Tags}), nil
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
		profile = arn.Scope{Account: scope.Account}.For("iam", "instance-profile/"+profile).String()
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
