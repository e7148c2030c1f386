package ecsd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// started is the row of a call of RunTask that had a token: the same call again
// starts nothing.
type started struct {
	Request string
	Tasks   []string // ids
	At      time.Time
}

// keepToken is how long a token is known, documented.
const keepToken = 24 * time.Hour

var (
	runTokens   = regexp.MustCompile(`^[!-~]{1,64}$`)
	startedBys  = regexp.MustCompile(`^[A-Za-z0-9_/-]{1,128}$`)
	groupsNames = regexp.MustCompile(`^[^ \t\r\n]{1,255}$`)
)

// mostOverrides is the most that the overrides of a task may be, in characters of
// JSON; documented.
const mostOverrides = 8192

// RunTask starts tasks of nobody: they run once, and nobody replaces them.
func (a *API) RunTask(ctx context.Context, in *ecs.RunTaskInput) (*ecs.RunTaskOutput, error) {
	call := wire.From(ctx)
	if err := checkRun(in); err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	request, err := runRequest(*in)
	if err != nil {
		return nil, err
	}
	out := &ecs.RunTaskOutput{Tasks: []types.Task{}, Failures: []types.Failure{}}
	err = a.store.Update(func(tx *store.Tx) error {
		c, err := a.cluster(tx, call.Scope, in.Cluster)
		if err != nil {
			return err
		}
		token := ""
		if in.ClientToken != nil {
			token = call.Scope.Key(c.Name + "/" + *in.ClientToken)
			if before, ok := a.started.Get(tx, token); ok && before.At.Add(keepToken).After(a.clock.Now()) {
				out.Tasks, err = a.startedBefore(tx, call.Scope, c, before, request)
				return err
			}
		}
		first, d, err := a.firstTask(tx, call.Scope, c, in)
		if err != nil {
			return err
		}
		ids, failures, err := a.startAll(tx, call.Scope, c, first, d, in, a.labelsOf(tx, c, d, in, labels))
		if err != nil {
			return err
		}
		out.Failures = failures
		for _, id := range ids {
			t, _ := a.tasks.Get(tx, call.Scope.Key(c.Name+"/"+id))
			out.Tasks = append(out.Tasks, a.taskView(tx, call.Scope, t))
		}
		if token != "" {
			a.started.Put(tx, token, started{request, ids, a.clock.Now()})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// checkRun refuses what is wrong in itself.
func checkRun(in *ecs.RunTaskInput) error {
	raw, err := json.Marshal(in.Overrides)
	count := aws.ToInt32(cmp.Or(in.Count, new(int32(1))))
	switch {
	case aws.ToString(in.TaskDefinition) == "":
		return client("TaskDefinition can not be blank.")
	case count < 1 || count > 10:
		return invalid("count must be between 1 and 10, got %d.", count)
	case in.ClientToken != nil && !runTokens.MatchString(*in.ClientToken):
		return invalid("clientToken must have between 1 and 64 characters, each of the ASCII range 33-126.")
	case in.StartedBy != nil && !startedBys.MatchString(*in.StartedBy):
		return invalid("startedBy must have between 1 and 128 letters, digits, hyphens, slashes and underscores, got '%s'.", *in.StartedBy)
	case in.Group != nil && !groupsNames.MatchString(*in.Group):
		return invalid("group must have between 1 and 255 characters without blanks, got '%s'.", *in.Group)
	case in.PropagateTags == types.PropagateTagsService:
		return invalid("propagateTags must be TASK_DEFINITION or NONE: a task of its own has no service.")
	case err != nil || len(raw) > mostOverrides:
		return invalid("overrides can have at most %d characters, got %d.", mostOverrides, len(raw))
	}
	return nil
}

// firstTask is a task as it is asked for, where that is in order.
func (a *API) firstTask(tx *store.Tx, scope arn.Scope, c cluster, in *ecs.RunTaskInput) (t task, d types.TaskDefinition, err error) {
	strategy := strategyOf(c, in)
	launch, err := launchOf(in.LaunchType, strategy)
	if err != nil {
		return t, d, err
	}
	if err := a.checkStrategy(tx, scope, c, strategy, inRequest); err != nil {
		return t, d, err
	}
	if d, err = a.deployable(tx, scope, *in.TaskDefinition); err != nil {
		return t, d, err
	}
	network := networkIn(in.NetworkConfiguration)
	if err := checkNetwork(d, network, launch); err != nil {
		return t, d, err
	}
	if err := checkWhere(a.kindOf(tx, scope, c, launch, strategy), d, in.PlacementConstraints, in.PlacementStrategy); err != nil {
		return t, d, err
	}
	t = task{
		Cluster: c.Name, Exec: in.EnableExecuteCommand, Constraints: in.PlacementConstraints, Placement: in.PlacementStrategy, TaskDefinition: *d.TaskDefinitionArn, StartedBy: aws.ToString(in.StartedBy), Group: cmp.Or(aws.ToString(in.Group), "family:"+*d.Family), Network: network, LaunchType: launch,
	}
	if in.Overrides != nil {
		over := *in.Overrides
		over.TaskRoleArn, over.ExecutionRoleArn = roleARN(scope, over.TaskRoleArn), roleARN(scope, over.ExecutionRoleArn)
		over.Cpu, over.Memory = normalSize(over.Cpu, 1024, "vcpu"), normalSize(over.Memory, 1024, "gb")
		t.Overrides = &over
		err = checkOverrides(scope, d, over)
	}
	if err == nil && t.Exec && aws.ToString(overridden(d, t.Overrides).TaskRoleArn) == "" { // observed
		err = invalid("The execute command failed because a valid task role is not being used. Specify a valid task role in your task definition or as a task override and try again.")
	}
	return t, d, err
}

// strategyOf is the strategy of a call: its own, else the cluster's.
func strategyOf(c cluster, in *ecs.RunTaskInput) []types.CapacityProviderStrategyItem {
	if in.LaunchType == "" && len(in.CapacityProviderStrategy) == 0 {
		return c.Strategy
	}
	return in.CapacityProviderStrategy
}

// definitionOf is a task's definition as the task runs it.
func (a *API) definitionOf(tx *store.Tx, scope arn.Scope, t task) (types.TaskDefinition, bool) {
	d, ok := a.definition(tx, scope, t.TaskDefinition)
	return overridden(d, t.Overrides), ok
}

// overridden is a definition with what a task overrides in it: a variable of the
// same name is replaced, others are added, documented.
func overridden(d types.TaskDefinition, o *types.TaskOverride) types.TaskDefinition {
	if o == nil {
		return d
	}
	d.Cpu, d.Memory = cmp.Or(o.Cpu, d.Cpu), cmp.Or(o.Memory, d.Memory)
	d.TaskRoleArn, d.ExecutionRoleArn = cmp.Or(o.TaskRoleArn, d.TaskRoleArn), cmp.Or(o.ExecutionRoleArn, d.ExecutionRoleArn)
	d.ContainerDefinitions = slices.Clone(d.ContainerDefinitions)
	for _, by := range o.ContainerOverrides {
		i := slices.IndexFunc(d.ContainerDefinitions, func(c types.ContainerDefinition) bool { return *c.Name == aws.ToString(by.Name) })
		c := &d.ContainerDefinitions[i]
		if by.Command != nil {
			c.Command = by.Command
		}
		if by.Cpu != nil {
			c.Cpu = *by.Cpu
		}
		if by.ResourceRequirements != nil {
			c.ResourceRequirements = by.ResourceRequirements
		}
		c.Memory, c.MemoryReservation = cmp.Or(by.Memory, c.Memory), cmp.Or(by.MemoryReservation, c.MemoryReservation)
		c.Environment = slices.Clone(c.Environment)
		for _, e := range by.Environment {
			at := slices.IndexFunc(c.Environment, func(x types.KeyValuePair) bool { return aws.ToString(x.Name) == aws.ToString(e.Name) })
			if at >= 0 {
				c.Environment[at] = e
			} else {
				c.Environment = append(c.Environment, e)
			}
		}
	}
	return d
}

// checkOverrides refuses overrides that the definition has no place for.
func checkOverrides(scope arn.Scope, d types.TaskDefinition, o types.TaskOverride) error {
	for _, c := range o.ContainerOverrides {
		if !slices.ContainsFunc(d.ContainerDefinitions, func(def types.ContainerDefinition) bool { return *def.Name == aws.ToString(c.Name) }) {
			return invalid("Override for container named %s is not a container in the TaskDefinition.", aws.ToString(c.Name))
		}
		if c.Memory != nil && *c.Memory < 6 {
			return invalid("Invalid setting for container '%s'. 'memory' must be at least 6 MiB.", *c.Name)
		}
	}
	if err := checkOverriddenGPUs(d, o); err != nil {
		return err
	}
	for name, size := range map[string]*string{"cpu": o.Cpu, "memory": o.Memory} {
		if n, err := strconv.Atoi(aws.ToString(size)); size != nil && (err != nil || n <= 0) {
			return invalid("Invalid '%s' setting for task: '%s'.", name, *size)
		}
	}
	for _, role := range []*string{o.TaskRoleArn, o.ExecutionRoleArn} {
		if err := ownRole(scope, role); err != nil {
			return err
		}
	}
	return nil
}

// startAll writes the rows of as many tasks as are asked for, and says why others are
// not started.
func (a *API) startAll(tx *store.Tx, scope arn.Scope, c cluster, first task, d types.TaskDefinition, in *ecs.RunTaskInput, labels []tags.Tag) (ids []string, failures []types.Failure, err error) {
	have, now, strategy := map[string]int{}, a.clock.Now(), strategyOf(c, in)
	s := a.seatsOf(tx, scope, c.Name, now)
	failures = []types.Failure{}
	for range aws.ToInt32(cmp.Or(in.Count, new(int32(1)))) {
		t := s.newOf(first, d)
		if len(strategy) > 0 {
			t.Provider = nextProvider(strategy, have)
			t.LaunchType = a.launchTypeOf(tx, scope, c.Name, t.Provider)
			have[t.Provider]++
		}
		if s.needsSeat(t) {
			if _, ok := s.sit(&t); !ok {
				if failures = s.failures(t); len(failures) == 0 {
					return nil, nil, noHosts()
				}
				return ids, failures, nil // the others are like it
			}
		} else if managedTask(t) && a.waitingIn(tx, scope, c.Name) >= mostWaiting {
			return ids, []types.Failure{tooManyTasks(c.Name)}, nil
		} else if !managedTask(t) {
			s.house(&t)
		}
		a.tags.Set(tx, taskARN(scope, t), labels)
		a.putTask(tx, t, scope.Key(""), now)
		ids = append(ids, t.ID)
	}
	return ids, failures, nil
}

// startedBefore answers a call that was made before; another one with its token is
// refused.
func (a *API) startedBefore(tx *store.Tx, scope arn.Scope, c cluster, before started, request string) (list []types.Task, err error) {
	var arns []string
	for _, id := range before.Tasks {
		arns = append(arns, taskARN(scope, task{Cluster: c.Name, ID: id}))
		if t, ok := a.tasks.Get(tx, scope.Key(c.Name+"/"+id)); ok {
			list = append(list, a.taskView(tx, scope, t))
		}
	}
	if before.Request != request {
		return nil, &types.ConflictException{Message: new("The clientToken was used for a request with other parameters."), ResourceIds: arns}
	}
	return list, nil
}

// runRequest tells calls of RunTask apart by everything that is asked for.
func runRequest(in ecs.RunTaskInput) (string, error) {
	in.Cluster = new(clusterName(in.Cluster))
	raw, err := json.Marshal(in)
	if err != nil {
		return "", fmt.Errorf("reading a request to run %s: %w", aws.ToString(in.TaskDefinition), err)
	}
	sum := sha256.Sum256(raw)
	return base64.RawStdEncoding.EncodeToString(sum[:]), nil
}
