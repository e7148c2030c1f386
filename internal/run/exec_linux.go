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
// the shim's socket, on a connection of its own, and "input" with an execInput for
// what follows; the shim answers with execNotes among its states. The end of the
// connection ends the command.

// execCall asks a shim for a command.
type execCall struct {
	Container string
	Args      []string
	User      string
	Env       []string
	Input     bool // it has one
	Terminal  bool
	Size      Size // of the terminal
}

// execInput is what goes on: input, its end, or a new size. The client sends the
// next input when the shim has taken the one before, so the shim reads on whatever
// the command does, and learns of the client's end at once.
type execInput struct {
	In   []byte `json:",omitempty"`
	End  bool   `json:",omitempty"`
	Size *Size  `json:",omitempty"`
}

// execNote is what a shim says of a command: output, that it took input, then how
// it ended.
type execNote struct {
	Exec *execSaid `json:",omitempty"`
}

type execSaid struct {
	Out   []byte `json:",omitempty"`
	Took  bool   `json:",omitempty"`
	Ended bool   `json:",omitempty"`
	Code  int    `json:",omitempty"`
	Error string `json:",omitempty"`
}

// Exec runs a command in a container and returns its exit code.
func (t *localTask) Exec(ctx context.Context, container string, c Command) (int, error) {
	conn, err := dialSocket(t.dir)
	if err != nil {
		closeInput(c.In)
		return 0, fmt.Errorf("reaching task %s: %w", t.ID(), err)
	}
	client := &execClient{conn: conn, took: make(chan struct{}, 1), over: make(chan struct{})}
	defer client.end(c.In)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	call := execCall{Container: container, Args: c.Args, User: c.User, Env: c.Env, Input: c.In != nil, Terminal: c.Terminal}
	call.Size, _ = c.first()
	if err := client.say("exec", call); err != nil {
		return 0, fmt.Errorf("reaching task %s: %w", t.ID(), err)
	}
	client.feed(c)
	for in := json.NewDecoder(conn); ; {
		var n execNote
		if err := in.Decode(&n); err != nil {
			return 0, cmp.Or(ctx.Err(), fmt.Errorf("the command in task %s was cut off: %w", t.ID(), err))
		}
		switch said := n.Exec; {
		case said == nil: // a state
		case said.Took:
			client.took <- struct{}{}
		case said.Error != "":
			return 0, errors.New(said.Error)
		case said.Ended:
			return said.Code, nil
		default:
			if _, err := c.Out.Write(said.Out); err != nil {
				return 0, err
			}
		}
	}
}

// execClient is the client's side of one command.
type execClient struct {
	conn    net.Conn
	writing sync.Mutex
	took    chan struct{}
	over    chan struct{}
	feeding sync.WaitGroup
}

func (x *execClient) say(word string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	_, err = x.conn.Write(append(append([]byte(word+" "), raw...), '\n'))
	return err
}

// feed sends input and sizes as they come.
func (x *execClient) feed(c Command) {
	if c.In != nil {
		x.feeding.Go(func() {
			for b := make([]byte, 32<<10); ; {
				n, err := c.In.Read(b)
				if n == 0 && err == nil {
					continue
				}
				in := execInput{In: b[:n], End: err != nil && !c.Terminal}
				if err != nil && c.Terminal {
					in.In = append(in.In, endOfInput...)
				}
				if (len(in.In) > 0 || in.End) && x.say("input", in) != nil || err != nil {
					return
				}
				select {
				case <-x.took:
				case <-x.over:
					return
				}
			}
		})
	}
	if c.Resize != nil {
		x.feeding.Go(func() {
			for {
				select {
				case s, ok := <-c.Resize:
					if !ok || x.say("input", execInput{Size: &s}) != nil {
						return
					}
				case <-x.over:
					return
				}
			}
		})
	}
}

// end lets go of the connection, and with it of the command.
func (x *execClient) end(in io.Closer) {
	close(x.over)
	x.conn.Close()
	closeInput(in)
	x.feeding.Wait()
}

// command is the helper that enters a container and becomes a program there, and the
// container's main process.
func (s *shim) command(call execCall) (cmd *exec.Cmd, main *process, err error) {
	for _, c := range s.plan.Configs {
		if c.Name != call.Container {
			continue
		}
		if len(call.Args) == 0 {
			return nil, nil, errors.New("no command specified")
		}
		s.mu.Lock()
		main = s.running[c.Name]
		s.mu.Unlock()
		if main == nil {
			return nil, nil, fmt.Errorf("the container %s does not run", c.Name)
		}
		c.Args, c.User, c.Terminal, c.Env = call.Args, cmp.Or(call.User, c.User), call.Terminal, instead(c.Env, call.Env)
		cmd, err := initCommand("serin-exec", c)
		if err != nil {
			return nil, nil, err
		}
		cmd.Env = append(cmd.Env, "SERIN_ENTER="+strconv.Itoa(main.Process.Pid))
		return cmd, main, nil
	}
	return nil, nil, fmt.Errorf("the task has no container %s", call.Container)
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
		err = amongProcesses(pid, c.Terminal, report)
	default:
		if c.Apart {
			err = setns(pid, "net", unix.CLONE_NEWNET)
		}
		if err == nil {
			err = setns(pid, "mnt", unix.CLONE_NEWNS)
		}
		if err == nil {
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
func amongProcesses(pid string, terminal bool, report *os.File) error {
	if err := setns(pid, "pid", unix.CLONE_NEWPID); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "serin-exec")
	cmd.Env = append(os.Environ(), "SERIN_INSIDE=1")
	// The shim finds it as this helper's child: a signal at the parent's death cannot
	// be asked for across process namespaces.
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{report}
	if terminal { // a shell wants to lead its session
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("entering the container: %w", err)
	}
	report.Close()
	cmd.Wait()
	endFamily(cmd.Process.Pid) // what it left in its session
	os.Exit(codeOf(cmd.ProcessState.Sys().(syscall.WaitStatus)))
	return nil
}

// commands reads what a connection asks of the shim.
func (s *shim) commands(c net.Conn, send func(any) error) (gone <-chan struct{}) {
	end := make(chan struct{})
	go func() {
		var running sync.WaitGroup
		defer running.Wait()
		defer close(end)
		feed := newExecFeed()
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
				running.Go(func() { s.exec(rest, feed, send, end) })
			case "input":
				feed.put(rest)
			}
		}
	}()
	return end
}
