package run

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaper waits for every child of a process, those that it started and those that
// it inherited.
type reaper struct {
	mu sync.Mutex
	of map[int]chan syscall.WaitStatus // by process id, of those that were started
}

// start starts a child and returns where its end is told.
func (r *reaper) start(cmd *exec.Cmd) (<-chan syscall.WaitStatus, error) {
	r.mu.Lock() // or it could be reaped before it is known
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	r.of[cmd.Process.Pid] = ended
	return ended, nil
}

// output runs a program to its end and returns what it says: a process that reaps
// cannot wait for one of its children beside that.
func (r *reaper) output(cmd *exec.Cmd) ([]byte, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = in, in
	ended, err := r.start(cmd)
	in.Close()
	if err != nil {
		return nil, err
	}
	said, err := io.ReadAll(out)
	if code := codeOf(<-ended); err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	return said, err
}

// reap waits for the children that have ended.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, unix.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 {
			return
		}
		if ended := r.of[pid]; ended != nil {
			ended <- st
			delete(r.of, pid)
		}
	}
}

// end kills what a process has inherited and waits for it: programs that forked
// away from a container that has no processes of its own.
func (r *reaper) end() {
	for {
		r.mu.Lock()
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, unix.WNOHANG, nil)
		r.mu.Unlock()
		switch {
		case err == syscall.ECHILD:
			return
		case pid == 0: // some live
			for _, p := range readProcesses().below(os.Getpid()) {
				syscall.Kill(p.pid, syscall.SIGKILL)
			}
			time.Sleep(time.Millisecond) // until the kernel has ended them
		}
	}
}
