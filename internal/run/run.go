// Package run starts tasks: groups of processes or containers made from an
// image, with a network address of their own.
//
// Three runtimes stand behind one small interface. Native isolates with
// namespaces, an overlay and cgroups and needs root on Linux. Confined needs no
// privilege at all: it only redirects the program's bind to an address of the
// task's own, so that ten tasks can listen on one port; files and processes
// are not isolated. Docker asks a daemon. A task outlives the program that
// started it and is found again. This package knows images, addresses and
// exits; it never sees a row, an ARN or ECS.
package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Runtime starts tasks.
type Runtime interface {
	// Name is native, confined, docker or fake.
	Name() string
	// Pull makes an image ready and returns what its reference names now.
	Pull(ctx context.Context, ref string, auth Auth) (Image, error)
	// Start starts a task and returns when its processes have been started or
	// one of them could not be. Starting an id that exists is an error.
	Start(ctx context.Context, spec Spec) (Task, error)
	// Tasks finds the tasks that an earlier program started here.
	Tasks(ctx context.Context) ([]Task, error)
	// Door is where tasks reach this program. An error says that they cannot.
	Door(ctx context.Context) (Door, error)
	// Close lets go of what the runtime holds; tasks go on.
	Close() error
}

// Door is where the tasks of a runtime reach this program.
type Door struct {
	// Listener is to be served; nil where tasks share this machine's loopback
	// interface and reach what listens there.
	Listener net.Listener
	URL      string // of the listener, inside a task
}

// DoorAddress is where the agent of an ECS instance answers its tasks, and one
// of the few addresses that SDKs take credentials from without TLS; documented:
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
var DoorAddress = netip.MustParseAddr("169.254.170.2")

// Auth is a registry's credentials.
type Auth struct{ Username, Password string }

// Image is an image that is ready to run.
type Image struct {
	Digest string // of the manifest or index that the reference named
	Ref    string // what Start must be given
}

// Spec is a task to start.
type Spec struct {
	ID         string
	Labels     map[string]string
	Containers []Container
	Memory     int64 // bytes for the whole task, 0: no limit
	CPU        int64 // 1024 is one CPU, 0: no limit
}

// Container is one container of a task. Empty fields take the image's values.
type Container struct {
	Name        string
	Image       string // Image.Ref
	Entrypoint  []string
	Command     []string
	Env         []string // NAME=value
	Workdir     string
	User        string
	Memory      int64         // bytes, 0: no limit of its own
	StopTimeout time.Duration // wall time between SIGTERM and SIGKILL
}

// Task is a started task.
type Task interface {
	ID() string
	// Labels are those of the Spec.
	Labels() map[string]string
	// Address is where the task's ports are; invalid until it runs.
	Address() netip.Addr
	// State is the present state; Changed is closed at the next change.
	State() (s State, changed <-chan struct{})
	// Usage is what the task has used so far. It is an error when it has ended.
	Usage(ctx context.Context) (Usage, error)
	// Exec runs a command in a container that runs, with the container's user,
	// environment and working directory, writes what it says to out, and returns its
	// exit code. The end of ctx ends the command.
	Exec(ctx context.Context, container string, args []string, out io.Writer) (code int, err error)
	// Stop asks every container to end, SIGTERM first. It does not wait.
	Stop(ctx context.Context) error
	// Logs calls line for each line that the container has written after
	// offset, and returns the offset behind the last. It does not wait.
	Logs(container string, offset int64, line func(time.Time, string)) (int64, error)
	// Remove forgets a task that has ended.
	Remove(ctx context.Context) error
}

// Usage is what all processes of a task use together.
type Usage struct {
	CPU    time.Duration // processor time since it started, wall time
	Memory int64         // bytes now, without what the kernel only keeps of files
}

// State is what is known of a task.
type State struct {
	Containers []ContainerState
	Ended      bool // no process of it is left
}

// ContainerState is what is known of one container.
type ContainerState struct {
	Name     string
	Started  time.Time // wall time, zero before
	Finished time.Time // wall time, zero while it runs
	ExitCode int       // when Finished
	Error    string    // why it never started
	OOM      bool      // killed for memory
}

// Running reports whether every container runs.
func (s State) Running() bool {
	for _, c := range s.Containers {
		if c.Started.IsZero() || !c.Finished.IsZero() {
			return false
		}
	}
	return len(s.Containers) > 0
}

// Kind is the stage of starting a task that failed; ECS names its errors by it.
type Kind string

const (
	CannotPull   Kind = "CannotPullContainerError"
	CannotCreate Kind = "CannotCreateContainerError"
	CannotStart  Kind = "CannotStartContainerError"
)

// Error is a failure to start, with the stage it happened in.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return string(e.Kind) + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ErrExists says that a task of this id was started before.
var ErrExists = errors.New("the task exists")

// Validate names what a task cannot be started without.
func (s Spec) Validate() error {
	if s.ID == "" {
		return errors.New("a task needs an id")
	}
	if len(s.Containers) == 0 {
		return fmt.Errorf("task %s has no containers", s.ID)
	}
	for _, c := range s.Containers {
		if c.Name == "" || c.Image == "" {
			return fmt.Errorf("a container of task %s has no name or no image", s.ID)
		}
	}
	return nil
}
