package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// A process 1 of a container that is not its program: it starts the program, hands
// signals on, reaps what others leave and ends as the program does. Rootless
// containers always have one, for nobody else can start a command among their
// processes: a program with several threads cannot enter a user namespace.

// beInit runs the program until it ends, and commands that come over doors. extra is
// handed to the program behind its report pipe. It returns only what keeps it from
// that.
func beInit(report *os.File, extra []*os.File, doors *net.UnixListener) error {
	signals := make(chan os.Signal, 32)
	signal.Notify(signals)
	cmd := exec.Command("/proc/self/exe", "serin-program")
	cmd.Env = os.Environ()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = append([]*os.File{report}, extra...)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the program: %w", err)
	}
	report.Close()
	for _, f := range extra {
		f.Close()
	}
	// What was inherited is the program's: its output ends with it, not with this.
	if null, err := os.OpenFile("/dev/null", os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			unix.Dup3(int(null.Fd()), fd, 0)
		}
	}
	ended := make(chan syscall.WaitStatus, 1)
	children := &reaper{of: map[int]chan syscall.WaitStatus{cmd.Process.Pid: ended}}
	if doors != nil {
		go children.commands(doors)
	}
	children.reap()
	for {
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGCHLD:
				children.reap()
			case syscall.SIGURG: // the Go runtime's own
			default:
				cmd.Process.Signal(s)
			}
		case st := <-ended:
			os.Exit(codeOf(st))
		}
	}
}

func codeOf(st syscall.WaitStatus) int {
	if st.Signaled() {
		return 128 + int(st.Signal())
	}
	return st.ExitStatus()
}

// rootlessCall is a command that the shim's helper asks a container's process 1 for.
// It comes with its descriptors: standard input, output and error, the report pipe
// and the way to hand a filter over.
type rootlessCall struct {
	Config   string // an execConfig
	Terminal bool   // the standard input is one, and the program's own
}

// commands starts the commands that come.
func (r *reaper) commands(doors *net.UnixListener) {
	for {
		c, err := doors.AcceptUnix()
		if err != nil {
			return
		}
		go r.command(c)
	}
}

// command runs one command, and ends it when whoever asked is gone. Its exit code is
// the answer.
func (r *reaper) command(c *net.UnixConn) {
	defer c.Close()
	var call rootlessCall
	files, err := receive(c, &call)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil || len(files) != 5 {
		return
	}
	cmd := exec.Command("/proc/self/exe", "serin-program")
	cmd.Env = []string{"SERIN_INIT=" + call.Config}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = files[0], files[1], files[2], files[3:]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: call.Terminal}
	ended, err := r.start(cmd)
	if err != nil {
		fmt.Fprint(files[3], err)
		return
	}
	for _, f := range files {
		f.Close()
	}
	gone := make(chan struct{})
	go func() { c.Read(make([]byte, 1)); close(gone) }()
	select {
	case st := <-ended:
		endFamily(cmd.Process.Pid) // what it left in its session
		json.NewEncoder(c).Encode(codeOf(st))
	case <-gone:
		endFamily(cmd.Process.Pid)
	}
}

// send writes a value and descriptors to a socket, receive reads them.
func send(c *net.UnixConn, v any, files ...*os.File) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	// The descriptors come with the first byte; the rest may take several writes.
	if _, _, err := c.WriteMsgUnix([]byte{'\n'}, unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	_, err = c.Write(append(raw, '\n'))
	return err
}

func receive(c *net.UnixConn, v any) (files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(16*4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "handed"))
		}
	}
	if len(files) == 0 {
		return nil, errors.New("nothing was handed over")
	}
	return files, json.NewDecoder(c).Decode(v)
}
