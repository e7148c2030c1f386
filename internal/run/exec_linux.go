package run

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A command in a container that runs. The client writes "exec" and an execCall to
// the shim's socket, on a connection of its own; the shim answers with execNotes
// among its states. The end of the connection ends the command.

// execCall asks a shim for a command.
type execCall struct {
	Container string
	Args      []string
}

// execNote is what a shim says of a command: output, then how it ended.
type execNote struct {
	Exec *execSaid `json:",omitempty"`
}

type execSaid struct {
	Out   []byte `json:",omitempty"`
	Ended bool   `json:",omitempty"`
	Code  int    `json:",omitempty"`
	Error string `json:",omitempty"`
}

// Exec runs a command in a container and returns its exit code.
func (t *localTask) Exec(ctx context.Context, container string, args []string, out io.Writer) (int, error) {
	conn, err := dialSocket(t.dir)
	if err != nil {
		return 0, fmt.Errorf("reaching task %s: %w", t.ID(), err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	raw, err := json.Marshal(execCall{container, args})
	if err != nil {
		return 0, err
	}
	if _, err := conn.Write(append(append([]byte("exec "), raw...), '\n')); err != nil {
		return 0, fmt.Errorf("reaching task %s: %w", t.ID(), err)
	}
	for in := json.NewDecoder(conn); ; {
		var n execNote
		if err := in.Decode(&n); err != nil {
			return 0, cmp.Or(ctx.Err(), fmt.Errorf("the command in task %s was cut off: %w", t.ID(), err))
		}
		if n.Exec == nil {
			continue // a state
		}
		if len(n.Exec.Out) > 0 {
			if _, err := out.Write(n.Exec.Out); err != nil {
				return 0, err
			}
		}
		if n.Exec.Error != "" {
			return 0, errors.New(n.Exec.Error)
		}
		if n.Exec.Ended {
			return n.Exec.Code, nil
		}
	}
}

// exec runs one command for a client, until it ends or the client is gone.
func (s *shim) exec(raw string, send func(any) error, gone <-chan struct{}) {
	fail := func(why string) { send(execNote{&execSaid{Error: why}}) }
	var call execCall
	err := json.Unmarshal([]byte(raw), &call)
	var cmd *exec.Cmd
	if err == nil {
		cmd, err = s.command(call)
	}
	if err != nil {
		fail(err.Error())
		return
	}
	out, in, err := os.Pipe()
	if err != nil {
		fail(err.Error())
		return
	}
	failed, report, err := os.Pipe()
	if err != nil {
		fail(err.Error())
		return
	}
	wait, start, err := os.Pipe()
	if err != nil {
		fail(err.Error())
		return
	}
	cmd.Stdout, cmd.Stderr = in, in
	cmd.ExtraFiles = []*os.File{report, wait} // fds 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ended, err := s.children.start(cmd)
	for _, f := range []*os.File{in, report, wait} {
		f.Close()
	}
	if err == nil {
		if err = s.host.join(call.Container, cmd.Process.Pid); err != nil {
			cmd.Process.Kill()
		}
	}
	start.Close() // lets the helper go on
	if err != nil {
		fail(err.Error())
		return
	}
	over := make(chan struct{})
	go func() {
		select {
		case <-gone:
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		case <-over:
		}
	}()
	why, _ := io.ReadAll(failed) // until the program is there
	failed.Close()
	for r, b := bufio.NewReader(out), make([]byte, 32<<10); ; {
		n, err := r.Read(b)
		if n > 0 {
			send(execNote{&execSaid{Out: b[:n]}})
		}
		if err != nil {
			break
		}
	}
	out.Close()
	st := <-ended
	close(over)
	// What a helper left in its group when it was killed; the shim inherits it.
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if len(why) > 0 {
		fail(string(why))
		return
	}
	send(execNote{&execSaid{Ended: true, Code: codeOf(st)}})
}

// command is the helper that enters a container and becomes a program there.
func (s *shim) command(call execCall) (*exec.Cmd, error) {
	for _, c := range s.plan.Configs {
		if c.Name != call.Container {
			continue
		}
		if len(call.Args) == 0 {
			return nil, errors.New("no command specified")
		}
		s.mu.Lock()
		main := s.running[c.Name]
		s.mu.Unlock()
		if main == nil {
			return nil, fmt.Errorf("the container %s does not run", c.Name)
		}
		c.Args = call.Args
		cmd, err := initCommand("serin-exec", c)
		if err == nil && s.plan.Mode == "native" {
			cmd.Env = append(cmd.Env, "SERIN_ENTER="+strconv.Itoa(main.Process.Pid))
		}
		return cmd, err
	}
	return nil, fmt.Errorf("the task has no container %s", call.Container)
}

// execMain is the helper. Where the container has a view of files and processes of
// its own, a child of the helper is born among its processes, enters its files and
// becomes the program.
func execMain() error {
	runtime.LockOSThread()
	c, report, err := initConfig()
	pid := os.Getenv("SERIN_ENTER")
	switch {
	case err != nil:
	case c.Mode == "rootless":
		untilJoined()
		err = execRootless(c, report)
	case c.Mode == "confined":
		untilJoined()
		err = confinedExec(c)
	case os.Getenv("SERIN_INSIDE") == "":
		untilJoined()
		err = amongProcesses(pid, report)
	default:
		if err = setns(pid, "mnt", unix.CLONE_NEWNS); err == nil {
			err = become(c, "", true)
		}
	}
	fmt.Fprint(report, err)
	return err
}

// untilJoined waits until this process shares its task's limits.
func untilJoined() {
	unix.CloseOnExec(4)
	os.NewFile(4, "go").Read(make([]byte, 1))
}

// setns has this thread enter a namespace of a process.
func setns(pid, kind string, flag int) error {
	f, err := os.Open("/proc/" + pid + "/ns/" + kind)
	if err == nil {
		defer f.Close()
		if flag == unix.CLONE_NEWNS {
			err = unix.Unshare(unix.CLONE_FS) // a root of its own, or the mounts cannot be changed for a thread
		}
		if err == nil {
			err = unix.Setns(int(f.Fd()), flag)
		}
	}
	if err != nil {
		return fmt.Errorf("entering the container: %w", err)
	}
	return nil
}

// amongProcesses runs this helper again among a container's processes, and ends as
// it does. It returns only what keeps it from that.
func amongProcesses(pid string, report *os.File) error {
	if err := setns(pid, "pid", unix.CLONE_NEWPID); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "serin-exec")
	cmd.Env = append(os.Environ(), "SERIN_INSIDE=1")
	// It is in this helper's process group, by which the shim ends both: a signal at
	// the parent's death cannot be asked for across process namespaces.
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{report}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("entering the container: %w", err)
	}
	report.Close()
	cmd.Wait()
	if st := cmd.ProcessState.Sys().(syscall.WaitStatus); st.Signaled() {
		os.Exit(128 + int(st.Signal()))
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}

// commands reads what a connection asks of the shim.
func (s *shim) commands(c net.Conn, send func(any) error) (gone <-chan struct{}) {
	end := make(chan struct{})
	go func() {
		var running sync.WaitGroup
		defer running.Wait()
		defer close(end)
		in := bufio.NewScanner(c)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			switch word, rest, _ := strings.Cut(in.Text(), " "); word {
			case "start":
				s.starts <- rest
			case "stop":
				s.stop(rest)
			case "end":
				s.end()
			case "exec":
				running.Go(func() { s.exec(rest, send, end) })
			}
		}
	}()
	return end
}
