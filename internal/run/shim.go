//go:build linux

package run

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A shim is a process of its own beside each task. It starts the task's
// containers, collects their output and exits, and answers on a socket; so a
// task does not die with the program that started it. Its directory:
//
//	spec     the task, written by the starter
//	state    the last State, replaced in one step at each change
//	sock     where the shim answers while it lives
//	NAME.log the container's lines, each "UNIXNANO TEXT\n"
//
// A connection to sock gets the state as a line of JSON, again at each change
// and when output has been written, and its end when the task has ended. The
// first line says what the task has used, too. The word "stop" asks for the end,
// "exec" for a command in a container (exec_linux.go).

// plan is what the starter tells the shim.
type plan struct {
	Spec    Spec
	Mode    string       // native or confined
	Configs []execConfig // one for each container
	Address string       // native: given; confined: the shim finds one
	Bridge  string       // native: interface of the gateway
	Gateway string       // native: with the prefix length
}

// execConfig is a container's command with the image's defaults filled in.
type execConfig struct {
	Name    string
	Rootfs  string
	Args    []string
	Env     []string
	Workdir string
	User    string
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
	running  map[string]*exec.Cmd
	stopping bool
	done     chan struct{}
	greeted  chan struct{}
	greet    sync.Once

	host host
}

// host is what differs between native and confined.
type host interface {
	// address makes the task's network and returns its address.
	address() (string, error)
	// command is the process for one container, not yet started.
	command(c execConfig) (*exec.Cmd, error)
	// started is called with the process running, before its program is.
	started(c execConfig, cmd *exec.Cmd) error
	// join puts another process under the task's limits.
	join(pid int) error
	// oom says whether the memory limit killed something.
	oom() bool
	// usage is what the limits' bookkeeping says of the task, if there is one.
	usage() (u Usage, ok bool)
	// close undoes address.
	close()
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
	case "serin-confined-init":
		err = confinedInit()
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
	s := &shim{dir: dir, watchers: map[chan struct{}]bool{}, running: map[string]*exec.Cmd{}, done: make(chan struct{}), greeted: make(chan struct{})}
	if err := json.Unmarshal(raw, &s.plan); err != nil {
		return err
	}
	// A terminal's Ctrl-C is for the program that started us, not for the task.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	// Relative to the task's directory: a socket's path may only have 107 bytes.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "sock", Net: "unix"})
	if err != nil {
		return fmt.Errorf("listening for the starter: %w", err)
	}
	for _, c := range s.plan.Configs {
		s.state.Containers = append(s.state.Containers, ContainerState{Name: c.Name})
	}
	if s.plan.Mode == "native" {
		s.host = &nativeHost{plan: s.plan}
	} else {
		s.host = &confinedHost{plan: s.plan}
	}
	go s.serve(l)
	// The starter connects when the network is laid; without it there is no task.
	select {
	case <-s.greeted:
	case <-time.After(time.Minute):
		return errors.New("nobody connected")
	}
	s.runTask()
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
	return nil
}

// runTask starts the containers and returns when all have ended. The first
// that cannot be started ends the others.
func (s *shim) runTask() {
	// Children are to die with the thread that forked them, so it must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	address, err := s.host.address()
	if err != nil {
		s.publish(func(st *shimState) { st.Containers[0].Error = err.Error() })
		return
	}
	s.publish(func(st *shimState) { st.Address = address })
	var wg sync.WaitGroup
	for i, c := range s.plan.Configs {
		wait, err := s.start(c)
		if err != nil {
			s.publish(func(st *shimState) { st.Containers[i].Error = err.Error() })
			s.stop()
			break
		}
		s.publish(func(st *shimState) { st.Containers[i].Started = time.Now() })
		wg.Go(func() {
			code := wait()
			s.publish(func(st *shimState) {
				st.Containers[i].Finished, st.Containers[i].ExitCode = time.Now(), code
				st.Containers[i].OOM = code == 137 && s.host.oom()
			})
		})
	}
	wg.Wait()
}

// start starts one container and returns the function that waits for its end.
func (s *shim) start(c execConfig) (func() int, error) {
	cmd, err := s.host.command(c)
	if err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// The init helper reports through this pipe what keeps it from executing the
	// program; the pipe closes by itself when it does.
	failed, report, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = in, in
	cmd.ExtraFiles = append([]*os.File{report}, cmd.ExtraFiles...) // fd 3, then the host's own
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	in.Close()
	report.Close()
	collected := make(chan struct{})
	go func() { defer close(collected); s.collect(c.Name, out) }()
	err = s.host.started(c, cmd)
	if err == nil {
		if why, _ := io.ReadAll(failed); len(why) > 0 {
			err = errors.New(string(why))
		}
	}
	failed.Close()
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	s.mu.Lock()
	s.running[c.Name] = cmd
	stopping := s.stopping
	s.mu.Unlock()
	if stopping { // asked while it was being started
		s.end(c.Name, cmd)
	}
	return func() int {
		cmd.Wait()
		s.mu.Lock()
		delete(s.running, c.Name)
		s.mu.Unlock()
		// What it left behind in its session goes with it.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		select {
		case <-collected:
		case <-time.After(time.Second): // a process that escaped holds the pipe
		}
		if st := cmd.ProcessState.Sys().(syscall.WaitStatus); st.Signaled() {
			return 128 + int(st.Signal())
		}
		return cmd.ProcessState.ExitCode()
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

// stop asks every running container to end.
func (s *shim) stop() {
	s.mu.Lock()
	if s.stopping { // told before; a second SIGTERM means "at once" to many programs
		s.mu.Unlock()
		return
	}
	s.stopping = true
	for name, cmd := range s.running {
		s.end(name, cmd)
	}
	s.mu.Unlock()
}

// end sends SIGTERM, and SIGKILL when the container's time to stop is over.
func (s *shim) end(name string, cmd *exec.Cmd) {
	timeout := 30 * time.Second
	for _, c := range s.plan.Spec.Containers {
		if c.Name == name && c.StopTimeout > 0 {
			timeout = c.StopTimeout
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	time.AfterFunc(timeout, func() { cmd.Process.Kill() })
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
