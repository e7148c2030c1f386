package autoscalingd

import (
	"cmp"
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) memberOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("DescribeAutoScalingInstances", a.DescribeAutoScalingInstances, func(*wire.Call, *autoscaling.DescribeAutoScalingInstancesInput) []wire.Check {
			return anywhere("DescribeAutoScalingInstances")
		}, wire.Members{Performed: "InstanceIds MaxRecords NextToken", Ignored: "IncludeManagedResources"}),
		wire.Handle("SetInstanceProtection", a.SetInstanceProtection, func(c *wire.Call, in *autoscaling.SetInstanceProtectionInput) []wire.Check {
			return a.onGroup(c, "SetInstanceProtection", in.AutoScalingGroupName)
		}, wire.Members{Performed: "AutoScalingGroupName InstanceIds ProtectedFromScaleIn"}),
		wire.Handle("TerminateInstanceInAutoScalingGroup", a.TerminateInstanceInAutoScalingGroup, func(c *wire.Call, in *autoscaling.TerminateInstanceInAutoScalingGroupInput) []wire.Check {
			var name *string
			a.store.View(func(tx *store.Tx) {
				if m, ok := a.members.Get(tx, c.Scope.Key(aws.ToString(in.InstanceId))); ok {
					name = &m.Group
				}
			})
			return a.onGroup(c, "TerminateInstanceInAutoScalingGroup", name)
		}, wire.Members{Performed: "InstanceId ShouldDecrementDesiredCapacity", Refused: "AutoScalingGroupName InstanceIds"}),
	}
}

// sortMembers puts members in the order in which they came.
func sortMembers(list []member) {
	slices.SortFunc(list, func(x, y member) int { return cmp.Or(x.Launched.Compare(y.Launched), cmp.Compare(x.ID, y.ID)) })
}

// DescribeAutoScalingInstances describes members, all or those named.
func (a *API) DescribeAutoScalingInstances(ctx context.Context, in *autoscaling.DescribeAutoScalingInstancesInput) (*autoscaling.DescribeAutoScalingInstancesOutput, error) {
	call := wire.From(ctx)
	var list []member
	a.store.View(func(tx *store.Tx) {
		for _, m := range a.members.Scan(tx, call.Scope.Key("")) {
			if in.InstanceIds == nil || slices.Contains(in.InstanceIds, m.ID) {
				list = append(list, m)
			}
		}
	})
	list, next, err := page(list, func(m member) string { return m.ID }, in.NextToken, in.MaxRecords, 50, 50)
	out := &autoscaling.DescribeAutoScalingInstancesOutput{NextToken: next}
	for _, m := range list {
		out.AutoScalingInstances = append(out.AutoScalingInstances, types.AutoScalingInstanceDetails{
			AutoScalingGroupName: &m.Group, AvailabilityZone: &m.Zone, HealthStatus: new("HEALTHY"), InstanceId: &m.ID, InstanceType: &m.Type, LifecycleState: new(string(m.State)), ProtectedFromScaleIn: &m.Protected, LaunchTemplate: m.template(),
		})
	}
	return out, err
}

// SetInstanceProtection protects members from scaling in, or no more.
func (a *API) SetInstanceProtection(ctx context.Context, in *autoscaling.SetInstanceProtectionInput) (*autoscaling.SetInstanceProtectionOutput, error) {
	call := wire.From(ctx)
	err := a.store.Update(func(tx *store.Tx) error {
		g, err := a.group(tx, call.Scope, in.AutoScalingGroupName)
		if err != nil {
			return err
		}
		if len(in.InstanceIds) == 0 || in.ProtectedFromScaleIn == nil {
			return invalid("InstanceIds and ProtectedFromScaleIn must be specified.")
		}
		for _, name := range in.InstanceIds {
			m, ok := a.members.Get(tx, call.Scope.Key(name))
			switch {
			case !ok || m.Group != g.Name:
				return invalid("The instance %s is not part of Auto Scaling group %s.", name, g.Name)
			case m.State != types.LifecycleStateInService:
				return invalid("The instance %s is not in InService or EnteringStandby or Standby.", name)
			}
			m.Protected = *in.ProtectedFromScaleIn
			a.members.Put(tx, call.Scope.Key(name), m)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &autoscaling.SetInstanceProtectionOutput{}, nil
}

// TerminateInstanceInAutoScalingGroup ends a member, protected or not; another comes
// for it, if the desired number stays.
func (a *API) TerminateInstanceInAutoScalingGroup(ctx context.Context, in *autoscaling.TerminateInstanceInAutoScalingGroupInput) (*autoscaling.TerminateInstanceInAutoScalingGroupOutput, error) {
	call := wire.From(ctx)
	var view types.Activity
	err := a.store.Update(func(tx *store.Tx) error {
		m, ok := a.members.Get(tx, call.Scope.Key(aws.ToString(in.InstanceId)))
		if !ok {
			return invalid("Instance Id not found - No managed instance found for instance ID: %s", aws.ToString(in.InstanceId))
		}
		if in.ShouldDecrementDesiredCapacity == nil {
			return invalid("ShouldDecrementDesiredCapacity must be specified.")
		}
		g, err := a.group(tx, call.Scope, &m.Group)
		if err != nil {
			return err
		}
		if *in.ShouldDecrementDesiredCapacity && !m.leaving() {
			if g.Desired <= g.Min {
				return invalid("Currently, desiredSize equals minSize (%d). Terminating instance without replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.", g.Min)
			}
			g.Desired--
			a.groups.Put(tx, call.Scope.Key(g.Name), g)
		}
		if !m.leaving() {
			m = a.end(tx, call.Scope, g, m, "an instance was taken out of service in response to a user request.")
		}
		x, _ := a.activities.Get(tx, call.Scope.Key(m.Group+":"+m.Activity))
		view = a.activityView(tx, call.Scope, x)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &autoscaling.TerminateInstanceInAutoScalingGroupOutput{Activity: &view}, nil
}
