package run

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The shim's side of a command in a container.

// execFeed is what a client sends while its command runs. It never blocks who puts.
type execFeed struct {
	in   chan execInput
	size chan Size
}

func newExecFeed() *execFeed { return &execFeed{make(chan execInput, 1), make(chan Size, 1)} }

func (f *execFeed) put(raw string) {
	var in execInput
	if json.Unmarshal([]byte(raw), &in) != nil {
		return
	}
	if in.Size != nil {
		select {
		case <-f.size: // only the last one counts
		default:
		}
		f.size <- *in.Size
		return
	}
	select {
	case f.in <- in:
	default: // the client did not wait until the last was taken
	}
}

// execRun is one command that runs.
type execRun struct {
	pid      int
	over     <-chan syscall.WaitStatus
	main     *process // of its container, with which it ends
	terminal bool
	out, in  *os.File // its output and, where it has one, its input; one file where it is a terminal
	failed   *os.File // what keeps the helper from becoming the program
	ended    atomic.Bool
}

// exec runs one command for a client, until it ends or the client is gone.
func (s *shim) exec(raw string, feed *execFeed, send func(any) error, gone <-chan struct{}) {
	var call execCall
	err := json.Unmarshal([]byte(raw), &call)
	var r *execRun
	if err == nil {
		r, err = s.run(call)
	}
	if err != nil {
		send(execNote{&execSaid{Error: err.Error()}})
		return
	}
	send(execNote{r.follow(feed, send, gone)})
}

// run starts the helper and lets it go on when it shares its container's limits.
func (s *shim) run(call execCall) (_ *execRun, err error) {
	cmd, main, err := s.command(call)
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL} // as the containers'
	r := &execRun{main: main, terminal: call.Terminal}
	theirs, start, err := r.open(call, cmd, s.plan.Mode)
	if err == nil {
		r.over, err = s.children.start(cmd)
	}
	for _, f := range theirs {
		f.Close() // nil is no file
	}
	if err == nil {
		r.pid = cmd.Process.Pid
		if err = s.host.join(call.Container, r.pid); err != nil {
			cmd.Process.Kill()
		}
	}
	start.Close() // lets the helper go on
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// open gives the helper its input and output, its report pipe as descriptor 3 and the
// one that it waits on as 4. theirs are its ends, whatever fails.
func (r *execRun) open(call execCall, cmd *exec.Cmd, mode string) (theirs []*os.File, start *os.File, err error) {
	pipe := func() (read, write *os.File) {
		if err == nil {
			read, write, err = os.Pipe()
		}
		return read, write
	}
	failed, report := pipe()
	wait, start := pipe()
	r.failed, cmd.ExtraFiles = failed, []*os.File{report, wait}
	theirs = append(theirs, report, wait)
	switch {
	case err != nil:
	case call.Terminal:
		root := "/"
		if mode != "confined" {
			root = fmt.Sprintf("/proc/%d/root", r.main.Process.Pid)
		}
		var slave *os.File
		if r.out, slave, err = openTerminal(root); err != nil {
			break
		}
		r.in, cmd.Stdin, cmd.Stdout, cmd.Stderr = r.out, slave, slave, slave
		cmd.SysProcAttr.Setctty = mode == "confined" // elsewhere it is the inner helper's
		theirs = append(theirs, slave)
		err = resize(r.out, call.Size)
	default:
		out, write := pipe()
		r.out, cmd.Stdout, cmd.Stderr, theirs = out, write, write, append(theirs, write)
		if call.Input {
			read, in := pipe()
			r.in, theirs, cmd.Stdin = in, append(theirs, read), read
		}
	}
	return theirs, start, err
}

func (r *execRun) close() {
	r.out.Close()
	r.in.Close()
	r.failed.Close()
}

// follow carries the command's input and output to and fro until it ends, ends what
// it left, and says how it ended.
func (r *execRun) follow(feed *execFeed, send func(any) error, gone <-chan struct{}) *execSaid {
	over := make(chan struct{})
	var watching, reading sync.WaitGroup
	watching.Go(func() {
		select {
		case <-gone:
			endFamily(r.pid)
		case <-r.main.over:
			endFamily(r.pid)
		case <-over:
		}
	})
	watching.Go(func() { r.carry(feed, send, over) })
	reading.Go(func() { r.read(send) })
	why, _ := io.ReadAll(r.failed) // until the program is there
	st := <-r.over
	endFamily(r.pid) // what it left behind goes with it
	r.ended.Store(true)
	r.out.SetReadDeadline(time.Now().Add(time.Second)) // a process that escaped holds it
	reading.Wait()
	close(over)
	r.close()
	watching.Wait()
	if len(why) > 0 {
		return &execSaid{Error: string(why)}
	}
	return &execSaid{Ended: true, Code: codeOf(st)}
}

// read sends the command's output on, however slow the client is.
func (r *execRun) read(send func(any) error) {
	for b := make([]byte, 32<<10); ; {
		n, err := r.out.Read(b)
		if n > 0 && send(execNote{&execSaid{Out: b[:n]}}) == nil && r.ended.Load() {
			r.out.SetReadDeadline(time.Now().Add(time.Second))
		}
		if err != nil { // a terminal that nobody has open says EIO
			return
		}
	}
}

// carry hands the command its input, and its terminal the sizes.
func (r *execRun) carry(feed *execFeed, send func(any) error, over <-chan struct{}) {
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		for {
			select {
			case in := <-feed.in:
				if r.in == nil {
					continue
				}
				r.in.Write(in.In) // one that does not read any more is none of ours
				send(execNote{&execSaid{Took: true}})
				if in.End {
					r.in.Close()
				}
			case <-over:
				return
			}
		}
	})
	for {
		select {
		case s := <-feed.size:
			if r.terminal {
				resize(r.out, s)
			}
		case <-over:
			return
		}
	}
}

// resize gives a terminal its size; one of nothing is no size.
func resize(terminal *os.File, s Size) error {
	if s.Columns == 0 || s.Rows == 0 {
		return nil
	}
	return control(terminal, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: s.Columns, Row: s.Rows})
	})
}

// control does something to a file's descriptor and leaves it as it was.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := raw.Control(func(fd uintptr) { done = do(int(fd)) }); err != nil {
		return err
	}
	return done
}

// endFamily kills what descends from a process, itself too, and all that are in one
// session with one of them: a shell's jobs have groups of their own, and those whose
// parent has ended have another one. It waits until they are gone, but for the
// process itself, which is its parent's to wait for.
func endFamily(root int) {
	sessions, known := map[int]bool{root: true}, map[int]bool{root: true}
	for range 2000 {
		left := false
		for _, p := range family(sessions, known) {
			if p.zombie { // it, or its parent, will be inherited and waited for
				left = left || p.pid != root && (known[p.parent] || p.parent == os.Getpid())
				continue
			}
			left = unix.Kill(p.pid, unix.SIGKILL) == nil || left
		}
		if !left {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// family finds the descendants of those known, and those of the sessions, and adds
// them to both.
func family(sessions, known map[int]bool) (found []bookkept) {
	all := readProcesses().self
	in := map[int]bool{}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if in[p.pid] || !known[p.pid] && !known[p.parent] && !sessions[p.session] {
				continue
			}
			in[p.pid], known[p.pid], grown = true, true, true
			if p.session == p.pid {
				sessions[p.pid] = true
			}
			found = append(found, p)
		}
	}
	return found
}
