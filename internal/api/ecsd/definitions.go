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
		return nil, client("Tags can not be empty")
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	if err := checkDefinition(in); err != nil {
		return nil, err
	}
	family, scope := *in.Family, call.Scope
	for _, role := range []*string{roleARN(scope, in.TaskRoleArn), roleARN(scope, in.ExecutionRoleArn)} {
		if err := ownRole(scope, role); err != nil {
			return nil, err
		}
	}
	d := types.TaskDefinition{
		Family: in.Family, ContainerDefinitions: in.ContainerDefinitions, NetworkMode: in.NetworkMode,
		ExecutionRoleArn: roleARN(scope, in.ExecutionRoleArn), TaskRoleArn: roleARN(scope, in.TaskRoleArn),
		RequiresCompatibilities: in.RequiresCompatibilities, RuntimePlatform: in.RuntimePlatform,
		Cpu: normalSize(in.Cpu, 1024, "vcpu"), Memory: normalSize(in.Memory, 1024, "gb"),
		Status: types.TaskDefinitionStatusActive, RegisteredAt: new(a.clock.Now()), RegisteredBy: new(call.Principal.ARN),
		Volumes: []types.Volume{}, PlacementConstraints: orEmpty(in.PlacementConstraints),
	}
	if d.NetworkMode == "" {
		d.NetworkMode = types.NetworkModeBridge
	}
	d.Compatibilities = compatibilities(in)
	d.RequiresAttributes = attributes(d)
	d.ContainerDefinitions = filled(in.ContainerDefinitions)
	err = a.store.Update(func(tx *store.Tx) error {
		f, _ := a.families.Get(tx, scope.Key(family))
		f.Last++
		d.Revision = f.Last
		d.TaskDefinitionArn = new(scope.For("ecs", fmt.Sprintf("task-definition/%s:%d", family, f.Last)).String())
		a.families.Put(tx, scope.Key(family), f)
		a.definitions.Put(tx, scope.Key(fmt.Sprintf("%s:%d", family, f.Last)), d)
		a.tags.Set(tx, *d.TaskDefinitionArn, labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.RegisterTaskDefinitionOutput{TaskDefinition: &d, Tags: in.Tags}, nil
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

// filled sends the lists of a container definition that ECS always answers.
func filled(in []types.ContainerDefinition) []types.ContainerDefinition {
	out := slices.Clone(in)
	for i := range out {
		c := &out[i]
		if c.Essential == nil {
			c.Essential = new(true)
		}
		if c.Environment == nil {
			c.Environment = []types.KeyValuePair{}
		}
		if c.PortMappings == nil {
			c.PortMappings = []types.PortMapping{}
		}
		c.MountPoints, c.VolumesFrom, c.SystemControls = []types.MountPoint{}, []types.VolumeFrom{}, []types.SystemControl{}
	}
	return out
}

// checkDefinition refuses what ECS refuses, in its words where they were
// observed.
func checkDefinition(in *ecs.RegisterTaskDefinitionInput) error {
	if !familyName.MatchString(aws.ToString(in.Family)) {
		return client("Family should only contain up to 255 letters, numbers, hyphens, and underscores.")
	}
	if len(in.ContainerDefinitions) == 0 {
		return client("Container list cannot be empty.")
	}
	if len(in.ContainerDefinitions) > 10 {
		return client("Task definitions can have at most 10 container definitions.")
	}
	for name, size := range map[string]*string{"cpu": normalSize(in.Cpu, 1024, "vcpu"), "memory": normalSize(in.Memory, 1024, "gb")} {
		if n, err := strconv.Atoi(aws.ToString(size)); size != nil && (err != nil || n <= 0) {
			return client("Invalid '%s' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.", name)
		}
	}
	fargate := slices.Contains(in.RequiresCompatibilities, types.CompatibilityFargate)
	if fargate {
		if err := checkFargate(in); err != nil {
			return err
		}
	}
	names, essential := map[string]bool{}, false
	for _, c := range in.ContainerDefinitions {
		if err := checkContainer(in, c); err != nil {
			return err
		}
		if names[*c.Name] {
			return client("Container names should be unique: '%s' is used twice.", *c.Name)
		}
		names[*c.Name] = true
		essential = essential || c.Essential == nil || *c.Essential
	}
	if err := checkDefined(in.PlacementConstraints); err != nil {
		return err
	}
	if !essential {
		return client("At least one container must be essential.")
	}
	return nil
}

func checkContainer(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	name := aws.ToString(c.Name)
	switch {
	case name == "":
		return client("Container.name should not be null or empty.")
	case !familyName.MatchString(name):
		return client("Container.name contains invalid characters")
	case aws.ToString(c.Image) == "":
		return client("Container.image should not be null or empty.")
	case strings.ContainsAny(*c.Image, " \t\n"):
		return client("Container.image contains invalid characters")
	case in.Memory == nil && c.Memory == nil && c.MemoryReservation == nil:
		return client("Invalid setting for container '%s'. At least one of 'memory' or 'memoryReservation' must be specified.", name)
	case c.Memory != nil && *c.Memory < 6:
		return client("Invalid setting for container '%s'. 'memory' must be at least 6 MiB.", name)
	case c.StopTimeout != nil && (*c.StopTimeout < 0 || *c.StopTimeout > 120 && slices.Contains(in.RequiresCompatibilities, types.CompatibilityFargate)):
		return client("Invalid setting for container '%s'. 'stopTimeout' must be between 0 and 120 seconds.", name)
	}
	for i, p := range c.PortMappings {
		if p.ContainerPort == nil || *p.ContainerPort < 1 || *p.ContainerPort > 65535 {
			return client("Invalid 'containerPort' setting for container '%s': portMappings[%d] must be between 1 and 65535.", name, i)
		}
		if in.NetworkMode == types.NetworkModeAwsvpc && p.HostPort != nil && *p.HostPort != 0 && *p.HostPort != *p.ContainerPort {
			return client("When networkMode=awsvpc, the host ports and container ports in port mappings must match.")
		}
	}
	for _, r := range c.ResourceRequirements {
		if r.Type != types.ResourceTypeGpu {
			return client("Serin performs the resource requirement GPU; '%s' of container '%s' is not performed yet.", r.Type, name)
		}
		if n, err := strconv.Atoi(aws.ToString(r.Value)); err != nil || n < 1 || n > 16 {
			return client("Invalid 'resourceRequirements' setting for container '%s': the GPU value '%s' must be a whole number.", name, aws.ToString(r.Value))
		}
		if slices.Contains(in.RequiresCompatibilities, types.CompatibilityFargate) {
			return client("Tasks using the Fargate launch type do not support GPU resource requirements")
		}
	}
	if l := c.LogConfiguration; l != nil {
		if l.LogDriver != types.LogDriverAwslogs {
			return client("Serin performs the log driver awslogs; '%s' of container '%s' is not performed yet.", l.LogDriver, name)
		}
		for _, option := range []string{"awslogs-group", "awslogs-region"} {
			if l.Options[option] == "" {
				return client("Log driver awslogs requires options: %s", option)
			}
		}
		for option := range l.Options {
			if !slices.Contains([]string{"awslogs-group", "awslogs-region", "awslogs-stream-prefix", "awslogs-create-group", "mode", "max-buffer-size"}, option) {
				return client("Log driver awslogs: the option '%s' of container '%s' is not performed by Serin yet.", option, name)
			}
		}
	}
	return nil
}

// fargateMemory is the memory in MiB that goes with each cpu, documented.
var fargateMemory = map[int]struct{ low, high, step int }{
	256: {512, 2048, 512}, 512: {1024, 4096, 1024}, 1024: {2048, 8192, 1024}, 2048: {4096, 16384, 1024},
	4096: {8192, 30720, 1024}, 8192: {16384, 61440, 4096}, 16384: {32768, 122880, 8192},
}

func checkFargate(in *ecs.RegisterTaskDefinitionInput) error {
	if in.NetworkMode != types.NetworkModeAwsvpc {
		return client("Fargate only supports network mode ‘awsvpc’.")
	}
	if in.Cpu == nil {
		return client("Fargate requires that 'cpu' be defined at the task level.")
	}
	if in.Memory == nil {
		return client("Fargate requires that 'memory' be defined at the task level.")
	}
	cpu, _ := strconv.Atoi(*normalSize(in.Cpu, 1024, "vcpu"))
	memory, _ := strconv.Atoi(*normalSize(in.Memory, 1024, "gb"))
	m, ok := fargateMemory[cpu]
	if !ok || memory < m.low || memory > m.high || (memory-m.low)%m.step != 0 || cpu == 256 && memory == 1536 {
		return client("No Fargate configuration exists for given values.")
	}
	return nil
}

// compatibilities is every kind of capacity whose rules the content meets.
func compatibilities(in *ecs.RegisterTaskDefinitionInput) []types.Compatibility {
	out := []types.Compatibility{types.CompatibilityEc2}
	gpu := false
	for _, c := range in.ContainerDefinitions {
		gpu = gpu || len(c.ResourceRequirements) > 0
	}
	if in.NetworkMode == types.NetworkModeAwsvpc || in.NetworkMode == types.NetworkModeHost {
		out = append(out, types.CompatibilityManagedInstances)
	}
	if !gpu && checkFargate(in) == nil {
		out = append(out, types.CompatibilityFargate)
	}
	return out
}

// attributes derives what a container instance must be able to do, from the
// agent's own rules.
func attributes(d types.TaskDefinition) []types.Attribute {
	if slices.Equal(d.RequiresCompatibilities, []types.Compatibility{types.CompatibilityFargate}) {
		return nil
	}
	names := map[string]bool{}
	for _, c := range d.ContainerDefinitions {
		if l := c.LogConfiguration; l != nil {
			names["com.amazonaws.ecs.capability.logging-driver."+string(l.LogDriver)] = true
			names["com.amazonaws.ecs.capability.docker-remote-api.1.19"] = true
			names["com.amazonaws.ecs.capability.docker-remote-api.1.29"] = true
			if d.ExecutionRoleArn != nil {
				names["ecs.capability.execution-role-awslogs"] = true
			}
		}
		if strings.Contains(*c.Image, ".dkr.ecr.") {
			names["com.amazonaws.ecs.capability.ecr-auth"] = true
			if d.ExecutionRoleArn != nil {
				names["ecs.capability.execution-role-ecr-pull"] = true
			}
		}
	}
	names["com.amazonaws.ecs.capability.docker-remote-api.1.18"] = true
	if d.NetworkMode == types.NetworkModeAwsvpc {
		names["ecs.capability.task-eni"] = true
	}
	if d.TaskRoleArn != nil {
		names["com.amazonaws.ecs.capability.task-iam-role"] = true
	}
	var out []types.Attribute
	for name := range names {
		out = append(out, types.Attribute{Name: new(name)})
	}
	slices.SortFunc(out, func(x, y types.Attribute) int { return strings.Compare(*x.Name, *y.Name) })
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
		return a.definitions.Get(tx, scope.Key(name))
	}
	f, ok := a.families.Get(tx, scope.Key(name))
	if !ok {
		return types.TaskDefinition{}, false
	}
	for n := f.Last; n > 0; n-- {
		if d, ok := a.definitions.Get(tx, scope.Key(fmt.Sprintf("%s:%d", name, n))); ok && d.Status == types.TaskDefinitionStatusActive {
			return d, true
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
				list = append(list, d)
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
		a.definitions.Put(tx, key, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeregisterTaskDefinitionOutput{TaskDefinition: &d}, nil
}
