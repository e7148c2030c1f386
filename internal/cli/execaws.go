package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/release"
	"serin/internal/run"
	"serin/internal/session"
	"serin/internal/stage"
)

// execOnAWS runs a command by ECS Exec. The command has a terminal there, whether
// this one has or not.
func (a *app) execOnAWS(ctx context.Context, call stage.ExecCall) (code int, err error) {
	if call.User != "" {
		return 0, usage("--user goes with --target stage; ECS Exec runs commands as root")
	}
	if call.Terminal {
		if err := haveTerminal(); err != nil {
			return 0, err
		}
	}
	config, err := a.aws(ctx, true)
	if err != nil {
		return 0, err
	}
	e, err := release.Execute(ctx, config, release.Command{Cluster: call.Cluster, Task: call.Task, Container: call.Container, Args: call.Args})
	if err != nil {
		return 0, &hintedError{err, execHint(err)}
	}
	said, err := a.attend(ctx, e, call)
	switch {
	case err != nil:
		return 0, &hintedError{err, execHint(err)}
	case said == nil:
		fmt.Fprintf(a.err, "Session %s has ended. AWS does not say with which exit code the command did.\n", e.ID)
		return 0, nil
	}
	return *said, nil
}

// attend puts a session before this command's terminal, or its input and output.
func (a *app) attend(ctx context.Context, e *release.Execution, call stage.ExecCall) (code *int, err error) {
	call.Size = run.Size{Columns: 300, Rows: 100} // of who has no window, as the plugin says
	sizes, over := make(chan session.Size, 1), make(chan struct{})
	defer close(over)
	if call.Terminal {
		restore, err := ownTerminal(&call)
		if err != nil {
			return nil, err
		}
		defer restore()
		go eachSize(over, func(s run.Size) {
			select {
			case sizes <- session.Size(s):
			case <-over:
			}
		})
	}
	sizes <- session.Size(call.Size)
	person := session.Terminal{In: io.NopCloser(strings.NewReader("")), Out: a.out, Sizes: sizes}
	if call.Input {
		in, typed := io.Pipe() // a read of the input itself cannot be ended
		go func() {
			io.Copy(typed, os.Stdin)
			typed.Close()
		}()
		person.In = in
	}
	return e.Attend(ctx, person)
}

// execHint is the way out of what keeps ECS Exec from running a command.
func execHint(err error) string {
	if _, ok := errors.AsType[*types.TargetNotConnectedException](err); ok {
		return "the agent does not reach Session Manager: the task's role needs ssmmessages:CreateControlChannel, CreateDataChannel, OpenControlChannel and OpenDataChannel, the task a way to ssmmessages, and the container a root that can be written"
	}
	switch _, invalid := errors.AsType[*types.InvalidParameterException](err); {
	case errors.Is(err, release.ErrNoExec) || invalid && strings.Contains(err.Error(), "execute command was not enabled"):
		return "run the task with --enable-execute-command; a service's tasks have it after aws ecs update-service --enable-execute-command --force-new-deployment"
	case errors.Is(err, session.ErrEncrypted):
		return "the cluster's executeCommandConfiguration names a KMS key; aws ecs execute-command with the session-manager-plugin can encrypt"
	}
	return ""
}
