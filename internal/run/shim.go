//go:build linux

package run

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A shim is a process of its own beside each task. It starts and stops the task's
// containers as it is told, collects their output and exits, and answers on a
// socket; so a task does not die with the program that created it. Its directory:
//
//	spec     the task, written by the creator
//	state    the last State, replaced in one step at each change
//	sock     where the shim answers while it lives
//	NAME.log the container's lines, each "UNIXNANO TEXT\n"
//
// A connection to sock gets the state as a line of JSON, again at each change
// and when output has been written, and its end when the task has ended. The
// first line says what the task has used, too. The words "start NAME", "stop NAME"
// and "end" are what it is told, "exec" and "input" are about a command in a container
// (exec_linux.go).

// plan is what the creator tells the shim.
type plan struct {
	Spec    Spec
	Mode    string            // native, rootless or confined
	Configs []execConfig      // one for each container
	Volumes map[string]string // directories, by the volumes' names
	Address string            // native, or of a host: given; otherwise the shim finds one
	Bridge  string            // native: interface of the gateway
	Gateway string            // native: with the prefix length
}

// execConfig is a container with its image's defaults filled in.
type execConfig struct {
	Container
	Mode    string
	Rootfs  string
	Args    []string
	Signal  string            // that asks it to end
	Volumes map[string]string // directories
	Address string            // of the task, or its own
	Apart   bool              // it has a network of its own

	SharedPIDs, SharedIPC bool // with the others of its task

	OneUser bool // rootless: there is no other than the one it asks for
}

// shimState is the state file and what watchers are sent.
type shimState struct {
	State
	Address string
	Usage   *Usage `json:",omitempty"`
}

type shim struct {
	dir  string
	plan plan

	mu       sync.Mutex
	state    shimState
	watchers map[chan struct{}]bool
	running  map[string]*process
	children reaper
	ending   bool
	starts   chan string   // containers to start
	wake     chan struct{} // something ended, or the task is to
	done     chan struct{}
	greeted  chan struct{}
	greet    sync.Once

	host host
}

// process is the main process of a container.
type process struct {
	*exec.Cmd
	asked bool          // to end
	over  chan struct{} // closed at its end
}

// host is what differs between the runtimes.
type host interface {
	// address makes the task's network and says where it is.
	address() (addresses, error)
	// command is the process for one container, not yet started.
	command(c execConfig) (*exec.Cmd, error)
	// started is called with the process running, before its program is.
	started(c execConfig, cmd *exec.Cmd) error
	// join puts another process under a container's limits.
	join(container string, pid int) error
	// oom says whether a container's memory limit killed something.
	oom(container string) bool
	// usage is what the limits' bookkeeping says of the task, if there is one.
	usage() (u Usage, ok bool)
	// close undoes address.
	close()
}

// addresses are a task's, and of its containers those that have their own.
type addresses struct {
	task       string
	containers []string // in the plan's order, or none
}

// Reexec runs the helper processes of this package when the program was
// started as one, and does not return then. Every main that uses a native or
// confined runtime calls it first.
func Reexec() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case "serin-shim":
		err = shimMain(os.Args[2])
	case "serin-native-init":
		err = nativeInit()
	case "serin-rootless-init":
		err = rootlessInit()
	case "serin-program":
		err = programMain()
	case "serin-confined-init":
		err = confinedInit()
	case "serin-hold":
		err = holdMain()
	case "serin-remove":
		err = removeMain(os.Args[2])
	case "serin-exec":
		err = execMain()
	case probeVerb:
		fmt.Println("ok")
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
	os.Exit(0)
}

func shimMain(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "spec"))
	if err != nil {
		return err
	}
	s := &shim{dir: dir, watchers: map[chan struct{}]bool{}, running: map[string]*process{}, children: reaper{of: map[int]chan syscall.WaitStatus{}},
		starts: make(chan string, 64), wake: make(chan struct{}, 1), done: make(chan struct{}), greeted: make(chan struct{})}
	if err := json.Unmarshal(raw, &s.plan); err != nil {
		return err
	}
	// A terminal's Ctrl-C is for the program that started us, not for the task.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for range died {
			s.children.reap()
		}
	}()
	// Relative to the task's directory: a socket's path may only have 107 bytes.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "sock", Net: "unix"})
	if err != nil {
		return fmt.Errorf("listening for the starter: %w", err)
	}
	for _, c := range s.plan.Configs {
		s.state.Containers = append(s.state.Containers, ContainerState{Name: c.Name})
	}
	s.host = newHost(s.plan, &s.children)
	go s.serve(l)
	// The creator connects when the network is laid; without it there is no task.
	select {
	case <-s.greeted:
	case <-time.After(time.Minute):
		return errors.New("nobody connected")
	}
	err = s.runTask()
	s.children.end()
	s.host.close()
	s.publish(func(st *shimState) { st.Ended = true })
	close(s.done)
	l.Close()
	// Give watchers the last state; each connection ends by itself.
	for range 100 {
		s.mu.Lock()
		left := len(s.watchers)
		s.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	return err
}

// runTask starts containers as it is told, and returns when the task is to end
// and none runs.
func (s *shim) runTask() error {
	// Children are to die with the thread that forked them, so it must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	at, err := s.host.address()
	if err != nil {
		s.publish(func(st *shimState) { st.Containers[0].Error = err.Error() })
		return err
	}
	s.locate(at)
	s.publish(func(st *shimState) {
		st.Address = at.task
		for i, own := range at.containers {
			st.Containers[i].Address, _ = netip.ParseAddr(own)
		}
	})
	for {
		s.mu.Lock()
		over := s.ending && len(s.running) == 0
		s.mu.Unlock()
		if over {
			return nil
		}
		select {
		case name := <-s.starts:
			s.begin(name)
		case <-s.wake:
		}
	}
}

// begin starts a container that does not run.
func (s *shim) begin(name string) {
	at := slices.IndexFunc(s.plan.Configs, func(c execConfig) bool { return c.Name == name })
	s.mu.Lock()
	no := at < 0 || s.ending || s.running[name] != nil
	s.mu.Unlock()
	if no {
		return
	}
	var wait func() int
	ports, err := s.publishPorts(s.plan.Configs[at])
	if err == nil {
		wait, err = s.start(s.plan.Configs[at])
	}
	if err != nil {
		ports.close()
		s.publish(func(st *shimState) { st.Containers[at].Error = err.Error() })
		return
	}
	s.publish(func(st *shimState) {
		was := st.Containers[at]
		st.Containers[at] = ContainerState{Name: name, Starts: was.Starts + 1, Started: time.Now(), Address: was.Address}
	})
	go func() {
		code := wait()
		ports.close()
		s.publish(func(st *shimState) {
			c := &st.Containers[at]
			c.Finished, c.ExitCode, c.OOM = time.Now(), code, code == 137 && s.host.oom(name)
			delete(s.running, name)
		})
		s.stir()
	}()
}

// stir has runTask look again.
func (s *shim) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// start starts one container and returns the function that waits for its end.
func (s *shim) start(c execConfig) (func() int, error) {
	cmd, err := s.host.command(c)
	if err != nil {
		return nil, err
	}
	streams, err := openStreams(c, cmd)
	if err != nil {
		return nil, err
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if !c.SharedPIDs { // they end with the process that holds what they share
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.SysProcAttr.Setsid = true
	exited, err := s.children.start(cmd)
	streams.started()
	if err != nil {
		streams.abandon()
		return nil, err
	}
	collected := make(chan struct{})
	go func() { defer close(collected); s.collect(c.Name, streams.out) }()
	err = s.host.started(c, cmd)
	if err == nil {
		if why, _ := io.ReadAll(streams.failed); len(why) > 0 {
			err = errors.New(string(why))
		}
	}
	streams.failed.Close()
	if err != nil {
		cmd.Process.Kill()
		<-exited
		return nil, err
	}
	s.mu.Lock()
	p := &process{Cmd: cmd, over: make(chan struct{})}
	s.running[c.Name] = p
	if s.ending { // asked while it was being started
		s.ask(c.Name)
	}
	s.mu.Unlock()
	return func() int {
		st := <-exited
		close(p.over)
		// What it left behind in its session goes with it.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		streams.close()
		select {
		case <-collected:
		case <-time.After(time.Second): // a process that escaped holds the pipe
		}
		return codeOf(st)
	}, nil
}

// collect writes the container's output to its log, line by line.
func (s *shim) collect(name string, out io.ReadCloser) {
	defer out.Close()
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		io.Copy(io.Discard, out) // a full disk must not stop the program
		return
	}
	defer log.Close()
	r := bufio.NewReaderSize(out, 256<<10)
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			if line[len(line)-1] == '\n' {
				line = line[:len(line)-1]
			}
			record := strconv.AppendInt(make([]byte, 0, len(line)+24), time.Now().UnixNano(), 10)
			record = append(append(append(record, ' '), line...), '\n')
			log.Write(record)
			if r.Buffered() == 0 {
				s.tell()
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			s.tell()
			return
		}
	}
}

// stop asks one container to end.
func (s *shim) stop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask(name)
}

// end asks every container to end, and the task when none runs.
func (s *shim) end() {
	s.mu.Lock()
	s.ending = true
	for name := range s.running {
		s.ask(name)
	}
	s.mu.Unlock()
	s.stir()
}

// ask sends a container its signal, and SIGKILL when its time to stop is over. A
// second signal means "at once" to many programs, so there is none. The caller
// holds the lock.
func (s *shim) ask(name string) {
	p := s.running[name]
	if p == nil || p.asked {
		return
	}
	p.asked = true
	timeout, signal := 30*time.Second, syscall.SIGTERM
	for _, c := range s.plan.Configs {
		if c.Name != name {
			continue
		}
		if c.StopTimeout > 0 {
			timeout = c.StopTimeout
		}
		if n := unix.SignalNum(c.Signal); n != 0 {
			signal = n
		}
	}
	p.Process.Signal(signal)
	time.AfterFunc(timeout, func() { p.Process.Kill() })
}

// publish changes the state, writes it and tells the watchers.
func (s *shim) publish(change func(*shimState)) {
	s.mu.Lock()
	change(&s.state)
	raw, err := json.Marshal(s.state)
	if err == nil {
		err = writeFile(filepath.Join(s.dir, "state"), raw)
	}
	s.mu.Unlock()
	if err != nil {
		fmt.Fprintln(os.Stderr, "writing the task's state:", err)
	}
	s.tell()
}

func (s *shim) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (s *shim) serve(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		go s.converse(c)
	}
}

func (s *shim) converse(c *net.UnixConn) {
	defer c.Close()
	s.greet.Do(func() { close(s.greeted) })
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	s.mu.Lock()
	s.watchers[wake] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, wake)
		s.mu.Unlock()
	}()
	var writing sync.Mutex
	out := json.NewEncoder(c)
	write := func(v any) error {
		writing.Lock()
		defer writing.Unlock()
		return out.Encode(v)
	}
	gone := s.commands(c, write)
	used := s.usage()
	send := func() error {
		s.mu.Lock()
		st := s.state
		st.Containers = append([]ContainerState(nil), st.Containers...)
		s.mu.Unlock()
		st.Usage, used = used, nil
		return write(st)
	}
	for {
		select {
		case <-wake:
			if send() != nil {
				return
			}
		case <-gone:
			return
		case <-s.done:
			send()
			return
		}
	}
}
