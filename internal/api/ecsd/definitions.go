package ecsd

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

var familyName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// RegisterTaskDefinition makes the next revision of a family.
func (a *API) RegisterTaskDefinition(ctx context.Context, in *ecs.RegisterTaskDefinitionInput) (*ecs.RegisterTaskDefinitionOutput, error) {
	call := wire.From(ctx)
	if in.Tags != nil && len(in.Tags) == 0 {
		return nil, client("Tags can not be empty.")
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	family, scope := aws.ToString(in.Family), call.Scope
	if err := checkDefinition(scope.Account, in); err != nil {
		return nil, err
	}
	if size := len(a.naming.JSON(in)); size > largest {
		return nil, client("Actual length: '%d'. Max allowed length is '%d' bytes.", size, largest)
	}
	for _, role := range []*string{roleARN(scope, in.TaskRoleArn), roleARN(scope, in.ExecutionRoleArn)} {
		if err := ownRole(scope, role); err != nil {
			return nil, err
		}
	}
	d := taskDefinition(in)
	d.ExecutionRoleArn, d.TaskRoleArn = roleARN(scope, in.ExecutionRoleArn), roleARN(scope, in.TaskRoleArn)
	d.RegisteredAt, d.RegisteredBy = new(a.clock.Now()), new(call.Principal.ARN)
	err = a.store.Update(func(tx *store.Tx) error {
		f, _ := a.families.Get(tx, scope.Key(family))
		f.Last++
		d.Revision = f.Last
		d.TaskDefinitionArn = new(scope.For("ecs", fmt.Sprintf("task-definition/%s:%d", family, f.Last)).String())
		a.families.Put(tx, scope.Key(family), f)
		a.definitions.Put(tx, scope.Key(fmt.Sprintf("%s:%d", family, f.Last)), definition{d})
		a.tags.Set(tx, *d.TaskDefinitionArn, labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.RegisterTaskDefinitionOutput{TaskDefinition: &d, Tags: in.Tags}, nil
}

// largest is the most bytes that a definition may have as JSON, observed.
const largest = 64 << 10

// taskDefinition is what is registered, with what follows from it.
func taskDefinition(in *ecs.RegisterTaskDefinitionInput) types.TaskDefinition {
	d := types.TaskDefinition{
		Family: in.Family, ContainerDefinitions: in.ContainerDefinitions, NetworkMode: in.NetworkMode, Status: types.TaskDefinitionStatusActive,
		ExecutionRoleArn: in.ExecutionRoleArn, TaskRoleArn: in.TaskRoleArn, Cpu: normalSize(in.Cpu, 1024, "vcpu"), Memory: normalSize(in.Memory, 1024, "gb"),
		RequiresCompatibilities: in.RequiresCompatibilities, RuntimePlatform: in.RuntimePlatform, PlacementConstraints: orEmpty(in.PlacementConstraints),
		Volumes: filledVolumes(in.Volumes), PidMode: in.PidMode, IpcMode: in.IpcMode, EphemeralStorage: in.EphemeralStorage, EnableFaultInjection: in.EnableFaultInjection,
		Compatibilities: compatibilities(in),
	}
	d.RequiresAttributes = attributes(d)
	d.ContainerDefinitions = filled(in.ContainerDefinitions, in.NetworkMode)
	return d
}

// filledVolumes: a volume of which nothing is said is a directory of the host's
// choice, guessed from what AWS answers of those that the console made.
func filledVolumes(in []types.Volume) []types.Volume {
	out := slices.Clone(orEmpty(in))
	for i := range out {
		if out[i].Host == nil && out[i].DockerVolumeConfiguration == nil {
			out[i].Host = &types.HostVolumeProperties{}
		}
	}
	return out
}

func roleARN(scope arn.Scope, role *string) *string {
	if role == nil || *role == "" || arn.Is(*role) {
		return role
	}
	return new(arn.Scope{Account: scope.Account}.For("iam", "role/"+*role).String())
}

// ownRole refuses a role of another account: roles are passed within one,
// documented.
func ownRole(scope arn.Scope, role *string) error {
	if aws.ToString(role) == "" {
		return nil
	}
	if r, err := arn.Parse(*role); err != nil || r.Service != "iam" || r.Account != scope.Account {
		return client("Role is not valid")
	}
	return nil
}

// normalSize turns "1 vCPU", ".5 vCPU" and "3 GB" into whole units, as ECS
// stores them.
func normalSize(s *string, factor float64, unit string) *string {
	if s == nil {
		return nil
	}
	text, ok := strings.CutSuffix(strings.ReplaceAll(strings.ToLower(*s), " ", ""), unit)
	if f, err := strconv.ParseFloat(text, 64); ok && err == nil {
		return new(strconv.Itoa(int(f * factor)))
	}
	return s
}

// filled fills in what ECS answers where nothing was sent, observed.
func filled(in []types.ContainerDefinition, mode types.NetworkMode) []types.ContainerDefinition {
	out := slices.Clone(in)
	for i := range out {
		c := &out[i]
		if c.Essential == nil {
			c.Essential = new(true)
		}
		c.Environment, c.HealthCheck = orEmpty(c.Environment), filledHealth(c.HealthCheck)
		c.PortMappings = slices.Clone(orEmpty(c.PortMappings))
		for n := range c.PortMappings {
			p := &c.PortMappings[n]
			p.Protocol = cmp.Or(p.Protocol, types.TransportProtocolTcp)
			if aws.ToInt32(p.HostPort) == 0 && p.ContainerPortRange == nil {
				p.HostPort = new(int32(0))
				if mode == types.NetworkModeAwsvpc || mode == types.NetworkModeHost {
					p.HostPort = p.ContainerPort
				}
			}
		}
		c.MountPoints, c.VolumesFrom, c.SystemControls = orEmpty(c.MountPoints), orEmpty(c.VolumesFrom), orEmpty(c.SystemControls)
	}
	return out
}

// definition finds a task definition by FAMILY (its newest active revision),
// FAMILY:REVISION or ARN.
func (a *API) definition(tx *store.Tx, scope arn.Scope, nameOrARN string) (types.TaskDefinition, bool) {
	name := nameOrARN
	if arn.Is(nameOrARN) {
		key, ok := rowKey(nameOrARN, "task-definition")
		if !ok || !within(scope, key) {
			return types.TaskDefinition{}, false
		}
		_, name = arn.ParseKey(key)
	}
	if strings.Contains(name, ":") {
		d, ok := a.definitions.Get(tx, scope.Key(name))
		return d.TaskDefinition, ok
	}
	f, ok := a.families.Get(tx, scope.Key(name))
	if !ok {
		return types.TaskDefinition{}, false
	}
	for n := f.Last; n > 0; n-- {
		if d, ok := a.definitions.Get(tx, scope.Key(fmt.Sprintf("%s:%d", name, n))); ok && d.Status == types.TaskDefinitionStatusActive {
			return d.TaskDefinition, true
		}
	}
	return types.TaskDefinition{}, false
}

// DescribeTaskDefinition describes a task definition.
func (a *API) DescribeTaskDefinition(ctx context.Context, in *ecs.DescribeTaskDefinitionInput) (*ecs.DescribeTaskDefinitionOutput, error) {
	call := wire.From(ctx)
	var d types.TaskDefinition
	var ok bool
	out := &ecs.DescribeTaskDefinitionOutput{TaskDefinition: &d}
	a.store.View(func(tx *store.Tx) {
		d, ok = a.definition(tx, call.Scope, aws.ToString(in.TaskDefinition))
		if ok && slices.Contains(in.Include, types.TaskDefinitionFieldTags) {
			out.Tags = a.tagsOut(tx, *d.TaskDefinitionArn)
		}
	})
	if !ok {
		return nil, client("Unable to describe task definition.")
	}
	return out, nil
}

// ListTaskDefinitions lists ARNs by family and revision, or the other way round.
func (a *API) ListTaskDefinitions(ctx context.Context, in *ecs.ListTaskDefinitionsInput) (*ecs.ListTaskDefinitionsOutput, error) {
	call := wire.From(ctx)
	status := cmp.Or(in.Status, types.TaskDefinitionStatusActive)
	var list []types.TaskDefinition
	a.store.View(func(tx *store.Tx) {
		for _, d := range a.definitions.Scan(tx, call.Scope.Key("")) {
			if d.Status == status && (in.FamilyPrefix == nil || *d.Family == *in.FamilyPrefix) {
				list = append(list, d.TaskDefinition)
			}
		}
	})
	order := func(d types.TaskDefinition) string {
		key := fmt.Sprintf("%s\x00%010d", *d.Family, d.Revision)
		if in.Sort == types.SortOrderDesc {
			return backward(key)
		}
		return key
	}
	limit := 100
	if in.MaxResults != nil {
		if limit = int(*in.MaxResults); limit < 1 || limit > 100 {
			return nil, invalid("maxResults must be between 1 and 100, got %d", limit)
		}
	}
	list, next, err := wire.Page(list, order, aws.ToString(in.NextToken), limit)
	if err != nil {
		return nil, invalid("Invalid token.")
	}
	out := &ecs.ListTaskDefinitionsOutput{}
	if next != "" {
		out.NextToken = &next
	}
	for _, d := range list {
		out.TaskDefinitionArns = append(out.TaskDefinitionArns, *d.TaskDefinitionArn)
	}
	return out, nil
}

// backward is a key that sorts the other way round.
func backward(key string) string {
	b := []byte(key)
	for i := range b {
		b[i] = ^b[i]
	}
	return string(b)
}

// ListTaskDefinitionFamilies lists families by the beginning of their names. One
// without an active revision is INACTIVE.
func (a *API) ListTaskDefinitionFamilies(ctx context.Context, in *ecs.ListTaskDefinitionFamiliesInput) (*ecs.ListTaskDefinitionFamiliesOutput, error) {
	scope := wire.From(ctx).Scope
	var list []string
	a.store.View(func(tx *store.Tx) {
		for key := range a.families.Scan(tx, scope.Key(aws.ToString(in.FamilyPrefix))) {
			_, name := arn.ParseKey(key)
			if !a.hasDefinitions(tx, scope, name) {
				continue // all were deleted
			}
			status := types.TaskDefinitionFamilyStatusInactive
			if _, active := a.definition(tx, scope, name); active {
				status = types.TaskDefinitionFamilyStatusActive
			}
			if in.Status == "" || in.Status == types.TaskDefinitionFamilyStatusAll || in.Status == status {
				list = append(list, name)
			}
		}
	})
	list, next, err := page(list, in.NextToken, in.MaxResults, 100, 100)
	return &ecs.ListTaskDefinitionFamiliesOutput{Families: list, NextToken: next}, err
}

// DeregisterTaskDefinition makes a revision inactive; services go on using it.
func (a *API) DeregisterTaskDefinition(ctx context.Context, in *ecs.DeregisterTaskDefinitionInput) (*ecs.DeregisterTaskDefinitionOutput, error) {
	call := wire.From(ctx)
	name := aws.ToString(in.TaskDefinition)
	if !strings.Contains(lastPart(name), ":") {
		return nil, client("A revision must be specified: FAMILY:REVISION or an ARN.")
	}
	var d types.TaskDefinition
	err := a.store.Update(func(tx *store.Tx) error {
		var ok bool
		if d, ok = a.definition(tx, call.Scope, name); !ok || d.Status != types.TaskDefinitionStatusActive {
			return client("The specified task definition does not exist.")
		}
		d.Status, d.DeregisteredAt = types.TaskDefinitionStatusInactive, new(a.clock.Now())
		key, _ := rowKey(*d.TaskDefinitionArn, "task-definition")
		a.definitions.Put(tx, key, definition{d})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeregisterTaskDefinitionOutput{TaskDefinition: &d}, nil
}
