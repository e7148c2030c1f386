package ecsd

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

// ECS Exec: a task that is run with enableExecuteCommand has an agent in each of its
// containers, by which a person runs a command there. ExecuteCommand makes a session
// and its token; whoever brings the token has the command, once (execsession.go).

// execSession is the row of a session that nobody has come for yet.
type execSession struct {
	ID        string
	Task      string // key
	Container string
	Command   string
	Token     [sha256.Size]byte // the token's digest: the token itself is the client's alone
	Expires   time.Time         // wall time
}

// tokenTime is how long a session waits for its client, wall time; guessed, the
// plugin comes at once.
const tokenTime = time.Minute

// agentName is the managed agent of ECS Exec, documented.
const agentName = "ExecuteCommandAgent"

// channelActions are what the agent does as the task's role, documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html#ecs-exec-required-iam-permissions
var channelActions = []string{"CreateControlChannel", "CreateDataChannel", "OpenControlChannel", "OpenDataChannel"}

// ExecuteCommand makes a session for one command in a container that runs.
func (a *API) ExecuteCommand(ctx context.Context, in *ecs.ExecuteCommandInput) (*ecs.ExecuteCommandOutput, error) {
	call := wire.From(ctx)
	name := lastPart(aws.ToString(in.Task))
	switch {
	case !in.Interactive:
		return nil, invalid("Interactive is the only mode supported currently.") // observed
	case len(name) != 32 && len(name) != 36:
		return nil, invalid("task length should be one of [32,36]") // observed
	case aws.ToString(in.Command) == "": // the text is guessed
		return nil, invalid("command can not be blank.")
	}
	t, d, err := a.execTarget(call.Scope, in.Cluster, *in.Task)
	if err != nil {
		return nil, err
	}
	c, err := execContainer(t, aws.ToString(in.Container))
	if err != nil {
		return nil, err
	}
	if err := a.connected(call.Scope, t, d, c.Name); err != nil {
		a.log.Info("a command could not be run", "task", t.ID, "container", c.Name, "err", err)
		return nil, &types.TargetNotConnectedException{Message: new("The execute command failed due to an internal error. Try again later.")} // observed
	}
	token := id.Secret(180)
	s := execSession{ID: "ecs-execute-command-" + id.Hex(17), Task: taskKey(call.Scope, t), Container: c.Name, Command: *in.Command, Token: sha256.Sum256([]byte(token)), Expires: time.Now().Add(tokenTime)}
	err = a.store.Update(func(tx *store.Tx) error {
		for key, old := range a.sessions.Scan(tx, call.Scope.Key("")) {
			if old.Expires.Before(time.Now()) {
				a.sessions.Delete(tx, key)
			}
		}
		a.sessions.Put(tx, call.Scope.Key(s.ID), s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.ExecuteCommandOutput{
		ClusterArn: new(clusterARN(call.Scope, t.Cluster)), TaskArn: new(taskARN(call.Scope, t)), ContainerArn: new(containerARN(call.Scope, t, c)), ContainerName: new(c.Name), Interactive: true,
		Session: &types.Session{SessionId: new(s.ID), StreamUrl: new(a.deps.Stream(s.ID)), TokenValue: new(token)},
	}, nil
}

// execTarget finds a task in which commands can be run.
func (a *API) execTarget(scope arn.Scope, in *string, idOrARN string) (t task, d types.TaskDefinition, err error) {
	a.store.View(func(tx *store.Tx) {
		var c cluster
		if c, err = a.cluster(tx, scope, in); err != nil {
			return
		}
		ok := false
		if t, ok, err = a.taskNamed(tx, scope, c.Name, idOrARN); err != nil {
			return
		}
		if !ok {
			err = invalid("The referenced task was not found.") // as StopTask's, guessed
			return
		}
		d, _ = a.definitionOf(tx, scope, t)
	})
	if err == nil && (!t.Exec || t.Last != running) {
		err = notEnabled()
	}
	return t, d, err
}

// notEnabled is observed, its apostrophe too.
func notEnabled() error {
	return invalid("The execute command failed because execute command was not enabled when the task was run or the execute command agent isn’t running. Wait and try again or run a new task with execute command enabled and try again.")
}

// execContainer is the container that is named, or the only one. The texts are
// guessed, but for a container that does not run.
func execContainer(t task, name string) (c container, err error) {
	if name == "" && len(t.Containers) > 1 {
		var names []string
		for _, c := range t.Containers {
			names = append(names, c.Name)
		}
		return c, invalid("The task has several containers, and a container must be specified: one of %s.", strings.Join(names, ", "))
	}
	at := slices.IndexFunc(t.Containers, func(c container) bool { return name == "" || c.Name == name })
	if at < 0 {
		return c, invalid("The container %s was not found in the task.", name)
	}
	if c = t.Containers[at]; c.Status != running {
		return c, notEnabled()
	}
	return c, nil
}

// connected returns why a container's agent does not reach Session Manager: it wants
// to write files, documented, and its task's role must be allowed to.
func (a *API) connected(scope arn.Scope, t task, d types.TaskDefinition, name string) error {
	for _, c := range d.ContainerDefinitions {
		if *c.Name == name && aws.ToBool(c.ReadonlyRootFilesystem) {
			return errors.New("the container's root file system is read-only")
		}
	}
	if aws.ToString(d.TaskRoleArn) == "" {
		return errors.New("the task has no role")
	}
	for _, action := range channelActions {
		if err := a.deps.Roles.Check(taskRole(d, scope, t), "ssmmessages:"+action, "*"); err != nil {
			return err
		}
	}
	if g := a.agent.Load(); g == nil {
		return errors.New("the stage's runtime is not ready")
	} else if h, _ := g.handle(taskKey(scope, t)); h == nil {
		return errors.New("the task is not followed yet")
	}
	return nil
}

// checkExec refuses tasks whose agent could act as nobody; observed of an update.
func (s service) checkExec(d types.TaskDefinition, done string) error {
	if s.Exec && aws.ToString(d.TaskRoleArn) == "" {
		return invalid("The service couldn't be %s because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again.", done)
	}
	return nil
}

// agents is the managed agent of a container. It starts and ends with it, observed.
func (t task) agents(c container) []types.ManagedAgent {
	if !t.Exec {
		return nil
	}
	v := types.ManagedAgent{Name: agentName, LastStatus: new(pending), LastStartedAt: pointer(c.Began)}
	if c.Status == running || c.Status == stopped {
		v.LastStatus = new(c.Status)
	}
	return []types.ManagedAgent{v}
}

// takeSession gives a session to who brings its token, and to nobody after.
func (a *API) takeSession(name, token string) (s execSession, err error) {
	digest := sha256.Sum256([]byte(token))
	err = a.store.Update(func(tx *store.Tx) error {
		for key, waiting := range a.sessions.Scan(tx, "") {
			if waiting.ID != name || subtle.ConstantTimeCompare(waiting.Token[:], digest[:]) != 1 {
				continue
			}
			a.sessions.Delete(tx, key)
			s = waiting
		}
		return nil
	})
	switch {
	case err != nil:
		return s, fmt.Errorf("taking session %s: %w", name, err)
	case s.ID == "" || s.Expires.Before(time.Now()):
		return s, ErrToken
	}
	return s, nil
}

// ErrToken is that no session waits for a token, any more or at all.
var ErrToken = errors.New("no session waits for this token")

// execOp is ExecuteCommand, with what it needs permission for: the cluster and the
// task, documented.
func (a *API) execOp() *wire.Op {
	return wire.Handle("ExecuteCommand", a.ExecuteCommand, func(c *wire.Call, in *ecs.ExecuteCommandInput) []wire.Check {
		cluster, task := clusterARN(c.Scope, clusterName(in.Cluster)), taskResource(c, aws.ToString(in.Task), in.Cluster)
		keys := map[string][]string{"ecs:cluster": {cluster}, "ecs:task": {task}}
		if in.Container != nil {
			keys["ecs:container-name"] = []string{*in.Container}
		}
		return []wire.Check{{Action: "ecs:ExecuteCommand", Resource: cluster, Context: keys}, {Action: "ecs:ExecuteCommand", Resource: task, Context: keys}}
	}, wire.Members{Performed: "cluster command container interactive task"})
}
