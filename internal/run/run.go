// Package run starts tasks: groups of containers made from images, with a
// network address of their own that the containers share.
//
// Four runtimes stand behind one small interface. Native isolates with
// namespaces, an overlay and cgroups and needs root on Linux. Rootless isolates
// files and processes in a user namespace of an ordinary user. Confined needs
// nothing at all and isolates neither. Rootless and confined redirect a program's
// bind to an address of the task's own, so that ten tasks can listen on one port.
// Docker asks a daemon. A task outlives the program that started it and is found
// again. Which container starts when is the caller's to say. This package knows
// images, addresses and exits; it never sees a row, an ARN or ECS.
package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"time"
)

// Runtime starts tasks.
type Runtime interface {
	// Name is native, rootless, confined, docker or fake.
	Name() string
	// Pull makes an image ready and returns what its reference names now.
	Pull(ctx context.Context, ref string, auth Auth) (Image, error)
	// Create makes a task: its network and its files. No container of it runs yet.
	// Creating an id that exists is an error.
	Create(ctx context.Context, spec Spec) (Task, error)
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

// Spec is a task to create.
type Spec struct {
	ID         string
	Labels     map[string]string
	Containers []Container
	Volumes    []Volume
	Memory     int64 // bytes for the whole task, 0: no limit
	CPU        int64 // 1024 is one CPU, 0: no limit
	// Sysctls are of the task's network, net.…: value.
	Sysctls map[string]string
	Network Network
	// Its containers see each other's processes; they share what System V and POSIX know
	// as communication between processes, and /dev/shm.
	SharedPIDs, SharedIPC bool
	// Host is the simulated machine that the task is on, where its network is that of a
	// machine; tasks that name the same one share its address.
	Host string
}

// Network is where the containers of a task are.
type Network string

// The networks of a task.
const (
	OwnNetwork    Network = ""       // at an address of the task's own, which its containers share
	HostNetwork   Network = "host"   // at their host's address, among all that runs there
	BridgeNetwork Network = "bridge" // each at an address of its own; ports of their host lead to them
	NoNetwork     Network = "none"   // each with a loopback interface alone
)

// apart says that each container has a network of its own.
func (n Network) apart() bool { return n == BridgeNetwork || n == NoNetwork }

// Volume is a directory that containers can mount.
type Volume struct {
	Name string // in the task
	// Shared is the name under which tasks share it; it stays when they end. Empty: it
	// is the task's own and goes with it.
	Shared string
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
	Shares      int64         // 1024 is one CPU's share when processors are short, 0: the default
	StopTimeout time.Duration // wall time between SIGTERM and SIGKILL

	Mounts       []Mount
	Tmpfs        []Tmpfs
	SharedMemory int64 // bytes of /dev/shm, 0: 64 MiB
	ReadOnly     bool  // its files, but for mounts
	Ulimits      []Ulimit
	Add, Drop    []string // capabilities, without CAP_; ALL is every one
	NoNewRights  bool     // of set-user-id programs
	Init         bool     // a process 1 that reaps and hands signals on
	Terminal     bool     // its output goes through a terminal
	Input        bool     // its standard input stays open
	Again        bool     // it may be started again after its end
	Hostname     string
	Hosts        []string // more lines of /etc/hosts: ADDRESS NAME
	DNS, Search  []string // instead of the machine's resolver
	GPUs         int      // of the machine's, where it has some

	Ports   []Port            // of its host that lead to it, while it runs
	Links   []Link            // containers that it finds by a name, on a bridge
	Sysctls map[string]string // of a network of its own
}

// Port is a port of a host that leads to one of a container. On HostNetwork the two
// are one.
type Port struct {
	Host, Inside uint16
	UDP          bool
}

// Link names a container for another of its task.
type Link struct{ To, Alias string }

// Mount is a volume in a container.
type Mount struct {
	Volume, Path string
	ReadOnly     bool
}

// Tmpfs is a file system in memory.
type Tmpfs struct {
	Path    string
	Size    int64 // bytes
	Options []string
}

// Ulimit is a limit of setrlimit(2); -1 is no limit.
type Ulimit struct {
	Name       string // as ulimit names it: nofile
	Soft, Hard int64
}

// Task is a task that was created.
type Task interface {
	ID() string
	// Labels are those of the Spec.
	Labels() map[string]string
	// Address is where the task's ports are; it may be invalid until a container runs,
	// and is on NoNetwork. Where the network is a host's, it is the host's.
	Address() netip.Addr
	// State is the present state; Changed is closed at the next change.
	State() (s State, changed <-chan struct{})
	// Usage is what the task has used so far. It is an error when it has ended.
	Usage(ctx context.Context) (Usage, error)
	// Start starts a container that does not run, for the first time or again, and
	// returns when its program runs, or could not be run and why.
	Start(ctx context.Context, container string) error
	// Stop asks a container to end, first with its image's signal. It does not wait.
	Stop(ctx context.Context, container string) error
	// End asks every container to end; when none runs any more the task has ended. It
	// does not wait.
	End(ctx context.Context) error
	// Exec runs a command in a container that runs, with the container's environment
	// and working directory, and returns its exit code. The end of ctx ends the
	// command and what it started.
	Exec(ctx context.Context, container string, c Command) (code int, err error)
	// Logs gives each line that the container has written after offset, until take
	// returns false. It does not wait.
	Logs(container string, offset int64, take func(Line) (more bool)) error
	// Trim gives up what the container has written before offset.
	Trim(container string, offset int64) error
	// Remove forgets a task that has ended.
	Remove(ctx context.Context) error
}

// Line is a line of a container's output.
type Line struct {
	At     time.Time // wall time
	Text   string    // without its end
	Behind int64     // the offset behind it
}

// Usage is what all processes of a task use together.
type Usage struct {
	CPU        time.Duration    // processor time since it started, wall time
	Memory     int64            // bytes now, without what the kernel only keeps of files
	Containers map[string]Usage // of those that run, where it is known apart

	// Of the machine, where it is known: what all its processors have spent since it
	// started, idling too, and how many they are.
	System time.Duration
	CPUs   int
}

// State is what is known of a task.
type State struct {
	Containers []ContainerState // in the Spec's order
	Ended      bool             // it was asked to end, or was lost, and no process of it is left
}

// ContainerState is what is known of one container.
type ContainerState struct {
	Name     string
	Starts   int       // how often it was started
	Started  time.Time // last, wall time; zero before
	Finished time.Time // after that, wall time; zero while it runs
	ExitCode int       // when Finished
	Error    string    // why it could not be started
	OOM      bool      // killed for memory
	// Address is its own, where it has one.
	Address netip.Addr `json:",omitzero"`
}

// Runs reports whether the container's program runs.
func (c ContainerState) Runs() bool { return !c.Started.IsZero() && c.Finished.IsZero() }

// Idle reports whether no container runs.
func (s State) Idle() bool { return !slices.ContainsFunc(s.Containers, ContainerState.Runs) }

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
	if (s.Network == HostNetwork || s.Network == BridgeNetwork) && s.Host == "" {
		return fmt.Errorf("task %s is on no host, and its network is %s", s.ID, s.Network)
	}
	volumes, names := map[string]bool{}, map[string]bool{}
	for _, c := range s.Containers {
		names[c.Name] = true
	}
	for _, v := range s.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range s.Containers {
		if c.Name == "" || c.Image == "" {
			return fmt.Errorf("a container of task %s has no name or no image", s.ID)
		}
		for _, m := range c.Mounts {
			if !volumes[m.Volume] || !path.IsAbs(m.Path) {
				return fmt.Errorf("container %s of task %s mounts volume %q at %q", c.Name, s.ID, m.Volume, m.Path)
			}
		}
		for _, l := range c.Links {
			if !names[l.To] || s.Network != BridgeNetwork {
				return fmt.Errorf("container %s of task %s has a link to %q", c.Name, s.ID, l.To)
			}
		}
	}
	return nil
}

// withoutGPUs is a container's environment where the machine gives it none: its
// slots are simulated.
func withoutGPUs(c Container) []string {
	if c.GPUs == 0 {
		return c.Env
	}
	return append([]string{"NVIDIA_VISIBLE_DEVICES=void"}, c.Env...)
}

// startAll starts every container of a task that was just created, in their order.
// What cannot be started ends and removes the task.
func startAll(ctx context.Context, t Task) error {
	st, _ := t.State()
	for _, c := range st.Containers {
		if err := t.Start(ctx, c.Name); err != nil {
			again, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			t.End(again)
			untilEnded(again, t)
			return errors.Join(err, t.Remove(again))
		}
	}
	return nil
}

// untilEnded waits until a task has ended.
func untilEnded(ctx context.Context, t Task) error {
	for {
		st, changed := t.State()
		if st.Ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for task %s to end: %w", t.ID(), ctx.Err())
		}
	}
}
