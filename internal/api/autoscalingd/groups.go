package autoscalingd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// Members of groups that are the same in Create and Update.
const (
	performedOfGroups = "AutoScalingGroupName MinSize MaxSize DesiredCapacity LaunchTemplate AvailabilityZones VPCZoneIdentifier NewInstancesProtectedFromScaleIn"
	recordedOfGroups  = "DefaultCooldown HealthCheckGracePeriod HealthCheckType TerminationPolicies"
	refusedOfGroups   = "AvailabilityZoneDistribution AvailabilityZoneIds AvailabilityZoneImpairmentPolicy CapacityRebalance CapacityReservationSpecification Context DefaultInstanceWarmup DeletionProtection " +
		"DesiredCapacityType InstanceLifecyclePolicy InstanceMaintenancePolicy LaunchConfigurationName MaxInstanceLifetime MixedInstancesPolicy PlacementGroup ServiceLinkedRoleARN SkipZonalShiftValidation"
)

func (a *API) groupOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("CreateAutoScalingGroup", a.CreateAutoScalingGroup, func(c *wire.Call, in *autoscaling.CreateAutoScalingGroupInput) []wire.Check {
			checks := a.onGroup(c, "CreateAutoScalingGroup", in.AutoScalingGroupName)
			checks[0].Context = map[string][]string{} // a group has the tags that it is made with, documented
			for key, value := range c.Tags {
				checks[0].Context["autoscaling:ResourceTag/"+key] = []string{value}
				checks[0].Context["aws:ResourceTag/"+key] = []string{value}
			}
			return checks
		}, wire.Members{Performed: performedOfGroups + " Tags", Recorded: recordedOfGroups,
			Refused: refusedOfGroups + " InstanceId LifecycleHookSpecificationList LoadBalancerNames Operator TargetGroupARNs TrafficSources"}),
		wire.Handle("UpdateAutoScalingGroup", a.UpdateAutoScalingGroup, func(c *wire.Call, in *autoscaling.UpdateAutoScalingGroupInput) []wire.Check {
			return a.onGroup(c, "UpdateAutoScalingGroup", in.AutoScalingGroupName)
		}, wire.Members{Performed: performedOfGroups, Recorded: recordedOfGroups, Refused: refusedOfGroups}),
		wire.Handle("DeleteAutoScalingGroup", a.DeleteAutoScalingGroup, func(c *wire.Call, in *autoscaling.DeleteAutoScalingGroupInput) []wire.Check {
			return a.onGroup(c, "DeleteAutoScalingGroup", in.AutoScalingGroupName)
		}, wire.Members{Performed: "AutoScalingGroupName ForceDelete"}),
		wire.Handle("SetDesiredCapacity", a.SetDesiredCapacity, func(c *wire.Call, in *autoscaling.SetDesiredCapacityInput) []wire.Check {
			return a.onGroup(c, "SetDesiredCapacity", in.AutoScalingGroupName)
		}, wire.Members{Performed: "AutoScalingGroupName DesiredCapacity HonorCooldown"}),
		wire.Handle("DescribeAutoScalingGroups", a.DescribeAutoScalingGroups, func(*wire.Call, *autoscaling.DescribeAutoScalingGroupsInput) []wire.Check {
			return anywhere("DescribeAutoScalingGroups")
		}, wire.Members{Performed: "AutoScalingGroupNames Filters IncludeInstances MaxRecords NextToken", Ignored: "IncludeManagedResources"}),
		wire.Handle("DescribeScalingActivities", a.DescribeScalingActivities, func(*wire.Call, *autoscaling.DescribeScalingActivitiesInput) []wire.Check {
			return anywhere("DescribeScalingActivities")
		}, wire.Members{Performed: "ActivityIds AutoScalingGroupName MaxRecords NextToken", Refused: "Filters IncludeDeletedGroups", Ignored: "IncludeManagedResources"}),
	}
}

// groupNames are of ASCII's characters from 33 to 126 but the colon, documented.
var groupNames = regexp.MustCompile(`^[!-9;-~]{1,255}$`)

// CreateAutoScalingGroup makes a group; its members come by themselves.
func (a *API) CreateAutoScalingGroup(ctx context.Context, in *autoscaling.CreateAutoScalingGroupInput) (*autoscaling.CreateAutoScalingGroupOutput, error) {
	call := wire.From(ctx)
	name := aws.ToString(in.AutoScalingGroupName)
	switch {
	case !groupNames.MatchString(name):
		return nil, invalid("1 validation error detected: Value '%s' at 'autoScalingGroupName' failed to satisfy constraint: Member must have between 1 and 255 characters of ASCII, without spaces and colons", name) // guessed
	case in.MinSize == nil || in.MaxSize == nil:
		return nil, invalid("MinSize and MaxSize must be specified.")
	case in.LaunchTemplate == nil:
		return nil, invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
	}
	if err := tags.Check(tags.In(in.Tags), tags.Exact); err != nil {
		return nil, invalid("%v", err)
	}
	if err := oneName(in.LaunchTemplate); err != nil {
		return nil, err
	}
	g := group{
		Name: name, ARN: groupARN(call.Scope, id.UUID(), name), Min: int(*in.MinSize), Max: int(*in.MaxSize), Desired: int(aws.ToInt32(cmp.Or(in.DesiredCapacity, in.MinSize))),
		Template: *in.LaunchTemplate, Zones: in.AvailabilityZones, Subnets: split(in.VPCZoneIdentifier), Protect: aws.ToBool(in.NewInstancesProtectedFromScaleIn), Created: a.clock.Now(),
		Cooldown: aws.ToInt32(cmp.Or(in.DefaultCooldown, new(int32(300)))), Grace: aws.ToInt32(in.HealthCheckGracePeriod), Check: cmp.Or(aws.ToString(in.HealthCheckType), "EC2"), Policies: in.TerminationPolicies,
	}
	for _, t := range in.Tags {
		g.Tags = append(g.Tags, types.TagDescription{Key: t.Key, Value: t.Value, PropagateAtLaunch: new(aws.ToBool(t.PropagateAtLaunch)), ResourceId: new(name), ResourceType: new("auto-scaling-group")})
	}
	t, places, err := a.check(call.Scope, &g)
	if err != nil {
		return nil, err
	}
	if err := a.mayLaunch(ctx, t, places); err != nil {
		return nil, err
	}
	if err := a.deps.Machines.LinkedRole(ctx, call); err != nil {
		return nil, err
	}
	err = a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.groups.Get(tx, call.Scope.Key(name)); ok {
			return &types.AlreadyExistsFault{Message: new("AutoScalingGroup by this name already exists - A group with the name " + name + " already exists")}
		}
		a.groups.Put(tx, call.Scope.Key(name), g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &autoscaling.CreateAutoScalingGroupOutput{}, nil
}

// split is the subnets of a VPCZoneIdentifier.
func split(list *string) (out []string) {
	for _, s := range strings.Split(aws.ToString(list), ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// check refuses a group that cannot be, and fills in its template's id and name. It
// returns the template, and where the group launches.
func (a *API) check(scope arn.Scope, g *group) (t Template, places []Place, err error) {
	switch {
	case g.Min < 0 || g.Max < 0:
		return t, nil, invalid("MinSize and MaxSize must not be less than 0.")
	case g.Min > g.Max:
		return t, nil, invalid("Min size:%d can not be greater than max size:%d", g.Min, g.Max)
	case g.Desired < g.Min || g.Desired > g.Max:
		return t, nil, invalid("Desired capacity:%d must be between the specified min size:%d and max size:%d", g.Desired, g.Min, g.Max)
	case len(g.Zones) == 0 && len(g.Subnets) == 0:
		return t, nil, invalid("At least one Availability Zone or VPC Subnet is required.")
	}
	if t, err = a.template(scope, *g); err != nil {
		return t, nil, err
	}
	if t.Type == "" {
		return t, nil, invalid("You must use a valid fully-formed launch template. The request must contain the parameter InstanceType")
	}
	g.Template = types.LaunchTemplateSpecification{LaunchTemplateId: &t.ID, LaunchTemplateName: &t.Name, Version: g.Template.Version}
	places, err = a.deps.Machines.Places(scope, g.Subnets, g.Zones, nil)
	if err != nil {
		return t, nil, invalid("%v", err)
	}
	if err := g.zonesAre(places); err != nil {
		return t, nil, err
	}
	if _, err = a.deps.Machines.Places(scope, g.Subnets, g.Zones, t.SecurityGroups); err != nil {
		return t, nil, invalid("You must use a valid fully-formed launch template. %v", err)
	}
	return t, places, nil
}

// zonesAre refuses zones that are not, or are not those of the group's subnets.
func (g group) zonesAre(places []Place) error {
	const differ = "The availability zones of the specified subnets and the AutoScalingGroup do not match"
	its := map[string]bool{}
	for _, p := range places {
		its[p.Zone] = true
	}
	for _, z := range g.Zones {
		if !its[z] && len(g.Subnets) == 0 {
			return invalid("Invalid availability zones: [%s]", z) // guessed
		}
		if !its[z] {
			return invalid(differ)
		}
	}
	if len(g.Subnets) > 0 && g.Zones != nil && len(its) != len(g.Zones) {
		return invalid(differ)
	}
	return nil
}

// mayLaunch asks whether who calls may launch what a group is to launch: that is
// asked when the group gets its template, documented, and not again.
func (a *API) mayLaunch(ctx context.Context, t Template, places []Place) error {
	err := a.deps.Machines.MayLaunch(ctx, wire.From(ctx), t, places)
	if _, said := errors.AsType[*wire.Error](err); err != nil && !said {
		return invalid("You must use a valid fully-formed launch template. %v", err)
	}
	return err
}

// oneName refuses a template that is named twice: by its id or by its name, documented.
func oneName(t *types.LaunchTemplateSpecification) error {
	if aws.ToString(t.LaunchTemplateId) != "" && aws.ToString(t.LaunchTemplateName) != "" {
		return invalid("Valid requests must contain either launchTemplateId or LaunchTemplateName")
	}
	return nil
}

func (a *API) template(scope arn.Scope, g group) (Template, error) {
	t := g.Template
	id, name := aws.ToString(t.LaunchTemplateId), aws.ToString(t.LaunchTemplateName)
	if id == "" && name == "" {
		return Template{}, invalid("Valid requests must contain either launchTemplateId or LaunchTemplateName")
	}
	out, err := a.deps.Machines.Template(scope, id, name, aws.ToString(t.Version))
	if err != nil {
		return out, invalid("You must use a valid fully-formed launch template. %v", err)
	}
	return out, nil
}

// UpdateAutoScalingGroup changes what is sent of a group.
func (a *API) UpdateAutoScalingGroup(ctx context.Context, in *autoscaling.UpdateAutoScalingGroupInput) (*autoscaling.UpdateAutoScalingGroupOutput, error) {
	call := wire.From(ctx)
	err := a.store.Update(func(tx *store.Tx) error {
		g, err := a.changeable(tx, call.Scope, in.AutoScalingGroupName)
		if err != nil {
			return err
		}
		for to, from := range map[*int]*int32{&g.Min: in.MinSize, &g.Max: in.MaxSize} {
			if from != nil {
				*to = int(*from)
			}
		}
		if in.DesiredCapacity != nil {
			g.Desired = int(*in.DesiredCapacity)
		} else { // it follows its limits, documented
			g.Desired = min(max(g.Desired, g.Min), g.Max)
		}
		if in.LaunchTemplate != nil {
			if err := oneName(in.LaunchTemplate); err != nil {
				return err
			}
			g.Template = *in.LaunchTemplate
		}
		if in.VPCZoneIdentifier != nil || in.AvailabilityZones != nil {
			g.Subnets, g.Zones = split(in.VPCZoneIdentifier), in.AvailabilityZones
		}
		g.Protect = aws.ToBool(cmp.Or(in.NewInstancesProtectedFromScaleIn, &g.Protect))
		g.Cooldown, g.Grace = aws.ToInt32(cmp.Or(in.DefaultCooldown, &g.Cooldown)), aws.ToInt32(cmp.Or(in.HealthCheckGracePeriod, &g.Grace))
		g.Check = aws.ToString(cmp.Or(in.HealthCheckType, &g.Check))
		if in.TerminationPolicies != nil {
			g.Policies = in.TerminationPolicies
		}
		t, places, err := a.check(call.Scope, &g)
		if err != nil {
			return err
		}
		if in.LaunchTemplate != nil {
			if err := a.mayLaunch(ctx, t, places); err != nil {
				return err
			}
		}
		a.groups.Put(tx, call.Scope.Key(g.Name), g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &autoscaling.UpdateAutoScalingGroupOutput{}, nil
}

// SetDesiredCapacity asks for another number of members. No cooldown is waited for,
// which is what not to honor one asks for, and the default; documented.
func (a *API) SetDesiredCapacity(ctx context.Context, in *autoscaling.SetDesiredCapacityInput) (*autoscaling.SetDesiredCapacityOutput, error) {
	call := wire.From(ctx)
	err := a.store.Update(func(tx *store.Tx) error {
		g, err := a.changeable(tx, call.Scope, in.AutoScalingGroupName)
		if err != nil {
			return err
		}
		switch n := int(aws.ToInt32(in.DesiredCapacity)); {
		case aws.ToBool(in.HonorCooldown):
			return invalid("Serin has no cooldown periods: HonorCooldown must be false.")
		case in.DesiredCapacity == nil:
			return invalid("DesiredCapacity must be specified.")
		case n > g.Max:
			return invalid("New SetDesiredCapacity value %d is above max value %d for the AutoScalingGroup.", n, g.Max)
		case n < g.Min:
			return invalid("New SetDesiredCapacity value %d is below min value %d for the AutoScalingGroup.", n, g.Min)
		default:
			g.Desired = n
		}
		a.groups.Put(tx, call.Scope.Key(g.Name), g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &autoscaling.SetDesiredCapacityOutput{}, nil
}

// DeleteAutoScalingGroup ends a group: one without members, or with force its
// members, too.
func (a *API) DeleteAutoScalingGroup(ctx context.Context, in *autoscaling.DeleteAutoScalingGroupInput) (*autoscaling.DeleteAutoScalingGroupOutput, error) {
	call := wire.From(ctx)
	err := a.store.Update(func(tx *store.Tx) error {
		g, err := a.group(tx, call.Scope, in.AutoScalingGroupName)
		if err != nil {
			return err
		}
		if len(a.membersOf(tx, call.Scope, g.Name)) > 0 && !aws.ToBool(in.ForceDelete) {
			return &types.ResourceInUseFault{Message: new("You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.")}
		}
		g.Deleting, g.Min, g.Desired, g.Drain = true, 0, 0, false
		a.groups.Put(tx, call.Scope.Key(g.Name), g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &autoscaling.DeleteAutoScalingGroupOutput{}, nil
}

// DescribeAutoScalingGroups describes groups, all or those named.
func (a *API) DescribeAutoScalingGroups(ctx context.Context, in *autoscaling.DescribeAutoScalingGroupsInput) (*autoscaling.DescribeAutoScalingGroupsOutput, error) {
	call := wire.From(ctx)
	var list []types.AutoScalingGroup
	var err error
	a.store.View(func(tx *store.Tx) {
		for _, g := range a.groups.Scan(tx, call.Scope.Key("")) {
			var ok bool
			if ok, err = g.fits(in.Filters); err != nil {
				return
			}
			if ok && (in.AutoScalingGroupNames == nil || slices.Contains(in.AutoScalingGroupNames, g.Name)) {
				v := a.groupView(tx, call.Scope, g)
				if in.IncludeInstances != nil && !*in.IncludeInstances {
					v.Instances = nil
				}
				list = append(list, v)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	list, next, err := page(list, func(g types.AutoScalingGroup) string { return *g.AutoScalingGroupName }, in.NextToken, in.MaxRecords, 50, 100)
	return &autoscaling.DescribeAutoScalingGroupsOutput{AutoScalingGroups: list, NextToken: next}, err
}

// Tags is a group's tags by its ARN, for conditions on them.
func (a *API) Tags(groupARN string) map[string]string {
	of, err := arn.Parse(groupARN)
	if err != nil {
		return nil
	}
	list := map[string]string{}
	a.store.View(func(tx *store.Tx) {
		_, name, _ := strings.Cut(of.Resource, nameOf)
		g, _ := a.groups.Get(tx, of.Scope().Key(name))
		for _, t := range g.Tags {
			list[*t.Key] = aws.ToString(t.Value)
		}
	})
	return list
}

// fits says that a group passes the filters, which are of its tags.
func (g group) fits(filters []types.Filter) (bool, error) {
	for _, f := range filters {
		name := aws.ToString(f.Name)
		key, ofKey := strings.CutPrefix(name, "tag:")
		if !ofKey && name != "tag-key" && name != "tag-value" {
			return false, invalid("The filter '%s' is not valid.", name)
		}
		if !slices.ContainsFunc(g.Tags, func(t types.TagDescription) bool {
			switch {
			case ofKey:
				return *t.Key == key && slices.Contains(f.Values, aws.ToString(t.Value))
			case name == "tag-key":
				return slices.Contains(f.Values, *t.Key)
			}
			return slices.Contains(f.Values, aws.ToString(t.Value))
		}) {
			return false, nil
		}
	}
	return true, nil
}

// groupView is a group as it is described. Lists of which a group has nothing are
// sent, too: programs look into them without asking.
func (a *API) groupView(tx *store.Tx, scope arn.Scope, g group) types.AutoScalingGroup {
	v := types.AutoScalingGroup{
		Instances: []types.Instance{}, SuspendedProcesses: []types.SuspendedProcess{}, EnabledMetrics: []types.EnabledMetric{},
		LoadBalancerNames: []string{}, TargetGroupARNs: []string{}, TrafficSources: []types.TrafficSourceIdentifier{},
		AutoScalingGroupName: &g.Name, AutoScalingGroupARN: &g.ARN, MinSize: new(int32(g.Min)), MaxSize: new(int32(g.Max)), DesiredCapacity: new(int32(g.Desired)),
		LaunchTemplate: &g.Template, NewInstancesProtectedFromScaleIn: &g.Protect, Tags: g.Tags, CreatedTime: &g.Created, DefaultCooldown: &g.Cooldown, HealthCheckGracePeriod: &g.Grace,
		HealthCheckType: &g.Check, TerminationPolicies: g.Policies, AvailabilityZones: g.Zones,
	}
	if v.Tags == nil {
		v.Tags = []types.TagDescription{}
	}
	if len(v.TerminationPolicies) == 0 {
		v.TerminationPolicies = []string{"Default"}
	}
	if len(g.Subnets) > 0 {
		v.VPCZoneIdentifier = new(strings.Join(g.Subnets, ","))
		v.AvailabilityZones = nil
		if places, err := a.deps.Machines.Places(scope, g.Subnets, nil, nil); err == nil {
			for _, p := range places {
				if !slices.Contains(v.AvailabilityZones, p.Zone) {
					v.AvailabilityZones = append(v.AvailabilityZones, p.Zone)
				}
			}
		}
	}
	if g.Deleting {
		v.Status = new("Delete in progress")
	}
	for _, m := range a.membersOf(tx, scope, g.Name) {
		v.Instances = append(v.Instances, types.Instance{
			InstanceId: &m.ID, InstanceType: &m.Type, AvailabilityZone: &m.Zone, LifecycleState: m.State, HealthStatus: new("Healthy"), ProtectedFromScaleIn: &m.Protected, LaunchTemplate: m.template(),
		})
	}
	return v
}

func (m member) template() *types.LaunchTemplateSpecification {
	return &types.LaunchTemplateSpecification{LaunchTemplateId: &m.TemplateID, LaunchTemplateName: &m.TemplateName, Version: new("1")}
}

// DescribeScalingActivities tells what groups did, newest first.
func (a *API) DescribeScalingActivities(ctx context.Context, in *autoscaling.DescribeScalingActivitiesInput) (*autoscaling.DescribeScalingActivitiesOutput, error) {
	call := wire.From(ctx)
	var list []activity
	byID := map[string]types.Activity{}
	a.store.View(func(tx *store.Tx) {
		for _, x := range a.activities.Scan(tx, call.Scope.Key("")) {
			if (in.AutoScalingGroupName == nil || x.Group == *in.AutoScalingGroupName) && (in.ActivityIds == nil || slices.Contains(in.ActivityIds, x.ID)) {
				list = append(list, x)
				byID[x.ID] = a.activityView(tx, call.Scope, x)
			}
		}
	})
	newest := func(x activity) string { return fmt.Sprintf("%019d/%s", math.MaxInt64-x.Start.UnixNano(), x.ID) }
	list, next, err := page(list, newest, in.NextToken, in.MaxRecords, 100, 100)
	out := &autoscaling.DescribeScalingActivitiesOutput{NextToken: next}
	for _, x := range list {
		out.Activities = append(out.Activities, byID[x.ID])
	}
	return out, err
}

func (a *API) activityView(tx *store.Tx, scope arn.Scope, x activity) types.Activity {
	g, _ := a.groups.Get(tx, scope.Key(x.Group))
	v := types.Activity{
		ActivityId: &x.ID, AutoScalingGroupName: &x.Group, AutoScalingGroupARN: &g.ARN, Cause: &x.Cause, Description: &x.Description, Details: &x.Details, StartTime: &x.Start, StatusCode: x.Status, Progress: new(int32(50)),
	}
	if x.Said != "" {
		v.StatusMessage = &x.Said
	}
	if !x.End.IsZero() {
		v.EndTime, v.Progress = &x.End, new(int32(100))
	}
	return v
}
