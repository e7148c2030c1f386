package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"golang.org/x/sys/unix"
)

// talker is a service's only task, of a program that talks, with a role and an agent.
func talker(t *testing.T, runtime string) (endpoint string, d *demo, task ecstypes.Task) {
	t.Helper()
	endpoint, d, in := programmed(t, "shell", runtime, "ssmmessages:*")
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	e := ecs.NewFromConfig(d.admin)
	registered, err := e.RegisterTaskDefinition(ctx, in)
	must(err)
	out, err := e.RunTask(ctx, &ecs.RunTaskInput{Cluster: &d.service.Cluster, TaskDefinition: registered.TaskDefinition.TaskDefinitionArn, EnableExecuteCommand: true,
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a"}}}})
	must(err)
	runs(t, e, d.service.Cluster, *out.Tasks[0].TaskArn)
	return endpoint, d, out.Tasks[0]
}

// runs waits until a task runs.
func runs(t *testing.T, e *ecs.Client, cluster, task string) {
	t.Helper()
	err := ecs.NewTasksRunningWaiter(e, func(o *ecs.TasksRunningWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, 50*time.Millisecond
	}).Wait(t.Context(), &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: []string{task}}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
}

// typist has a program on a terminal: what it types and what is shown.
type typist struct {
	t     *testing.T
	tty   *os.File
	cmd   *exec.Cmd
	ended chan error
	was   unix.Termios // the terminal's settings before the program began

	mu    sync.Mutex
	shown bytes.Buffer
}

// before puts a program before a terminal of a size.
func before(t *testing.T, cmd *exec.Cmd, columns, rows uint16) *typist {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	k := &typist{t: t, tty: ours, cmd: cmd, ended: make(chan error, 1)}
	number := 0
	k.control(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	theirs, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	k.sized(columns, rows)
	k.was = k.settings()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	go io.Copy(k, ours)
	go func() { k.ended <- cmd.Wait() }()
	return k
}

func (k *typist) control(do func(fd int) error) {
	k.t.Helper()
	raw, err := k.tty.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if err := do(int(fd)); err != nil {
				k.t.Error(err)
			}
		})
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *typist) sized(columns, rows uint16) {
	k.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	})
}

// settings are the terminal's.
func (k *typist) settings() (s unix.Termios) {
	k.control(func(fd int) error {
		got, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			s = *got
		}
		return err
	})
	return s
}

func (k *typist) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shown.Write(b)
}

func (k *typist) types(text string) {
	k.t.Helper()
	if _, err := io.WriteString(k.tty, text); err != nil {
		k.t.Fatal(err)
	}
}

// sees waits for a text and forgets what was shown up to it.
func (k *typist) sees(text string) {
	k.t.Helper()
	for deadline, tick := time.Now().Add(time.Minute), time.Tick(5*time.Millisecond); ; <-tick {
		k.mu.Lock()
		shown := k.shown.String()
		if before, _, ok := strings.Cut(shown, text); ok {
			k.shown.Next(len(before) + len(text))
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
		if time.Now().After(deadline) {
			k.t.Fatalf("it was shown %q, not %q", shown, text)
		}
	}
}

// code is the program's exit code.
func (k *typist) code() int {
	k.t.Helper()
	select {
	case <-k.ended:
	case <-time.After(time.Minute):
		k.t.Fatalf("it goes on, and was shown %q", k.shown.String())
	}
	return k.cmd.ProcessState.ExitCode()
}

func TestSerinExecGivesACommandInputAndATerminal(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		endpoint, d, task := talker(t, runtime)
		args := func(flags ...string) *exec.Cmd {
			list := append([]string{"exec", "--endpoint-url", endpoint, "--region", d.region, "--cluster", d.service.Cluster}, flags...)
			return exec.Command(binary, append(list, *task.TaskArn, "--", "shell", "talk")...)
		}
		// Without an input there is none.
		out, err := args().CombinedOutput()
		if err != nil || string(out) != "hello no terminal\nno more\n" {
			t.Errorf("it ended with %v and said %q", err, out)
		}
		cmd := args("-i")
		cmd.Stdin = strings.NewReader("one\ntwo\nexit 7\nthree\n")
		out, _ = cmd.CombinedOutput()
		if string(out) != "hello no terminal\nyou said ONE\nyou said TWO\n" || cmd.ProcessState.ExitCode() != 7 {
			t.Errorf("it ended with %v and said %q", cmd.ProcessState, out)
		}
		cmd = args("-i")
		cmd.Stdin = strings.NewReader(strings.Repeat("x", 50_000) + "\n")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), strings.Repeat("X", 50_000)+"\nno more\n") {
			t.Errorf("it ended with %v and said %d bytes", err, len(out))
		}
		// On a terminal: its size, its keys, and it is put back.
		k := before(t, args("-it"), 90, 20)
		k.sees("hello ")
		k.sees("90x20\r\n") // at once, but with a Docker before API 1.42
		k.types("one\r")
		k.sees("one\r\nyou said ONE\r\n")
		k.sized(100, 30)
		k.sees("now 100x30\r\n")
		k.types("\x03") // is the command's, not serin's
		if code := k.code(); code != 130 {
			t.Errorf("it ended with %d", code)
		}
		if now := k.settings(); now != k.was {
			t.Errorf("the terminal is left as %+v, was %+v", now, k.was)
		}
		k = before(t, args("-it"), 90, 20) // its end is that of the command
		k.sees("hello ")
		k.cmd.Process.Kill()
		for tick := time.Tick(10 * time.Millisecond); ; <-tick {
			if lines, _ := filepath.Glob("/proc/[0-9]*/cmdline"); !slices.ContainsFunc(lines, func(file string) bool {
				raw, _ := os.ReadFile(file)
				return bytes.HasPrefix(raw, []byte("shell\x00talk"))
			}) {
				break
			}
		}
		cmd = args("-it")
		cmd.Stdin = strings.NewReader("")
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "--tty wants a terminal") {
			t.Errorf("without a terminal it ended with %v and said %q", cmd.ProcessState, out)
		}
	})
}

// The AWS CLI with AWS's own plugin, where both are here.
func TestTheAWSCLIExecutesACommand(t *testing.T) {
	for _, program := range []string{"aws", "session-manager-plugin"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("there is no " + program + " here")
		}
	}
	endpoint, d, task := talker(t, "confined")
	aws := func(command string) *typist {
		cmd := exec.Command("aws", "ecs", "execute-command", "--interactive", "--cluster", d.service.Cluster, "--task", *task.TaskArn, "--command", command)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+endpoint, "AWS_ACCESS_KEY_ID=123456789012", "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION="+d.region, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
		return before(t, cmd, 90, 20)
	}
	k := aws("shell talk")
	k.sees("Starting session with SessionId: ecs-execute-command-")
	k.sees("hello ")
	k.sees("90x20") // at once or a moment later: the plugin says it once the session has begun
	k.types("one\r")
	k.sees("you said ONE")
	k.sized(100, 30)
	k.sees("now 100x30")
	k.types("exit 3\r")
	k.sees("Exiting session with sessionId: ecs-execute-command-")
	if code := k.code(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	k = aws("none")
	k.sees("Unable to start command: Failed to start pty: exec: \"none\": executable file not found in $PATH")
	k.code()
}
