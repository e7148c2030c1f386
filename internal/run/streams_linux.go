package run

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// streams are the shim's ends of what goes into and comes out of a container's main
// process.
type streams struct {
	out    *os.File   // what it writes
	failed *os.File   // why its program could not be run; ends when it runs
	input  *os.File   // kept open where the container wants an input, else nil
	theirs []*os.File // the process's ends, until it has them
}

// openStreams gives a process its input and output, its report pipe as descriptor
// 3, and what the host gave it behind that.
func openStreams(c execConfig, cmd *exec.Cmd) (s *streams, err error) {
	s = &streams{theirs: cmd.ExtraFiles}
	defer func() {
		if err != nil {
			s.started()
			s.abandon()
		}
	}()
	var report *os.File
	if s.failed, report, err = os.Pipe(); err != nil {
		return nil, err
	}
	cmd.ExtraFiles = append([]*os.File{report}, cmd.ExtraFiles...)
	s.theirs = append(s.theirs, report)
	if c.Terminal {
		return s, s.terminal(cmd)
	}
	var in *os.File
	if s.out, in, err = os.Pipe(); err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = in, in
	s.theirs = append(s.theirs, in)
	if c.Input {
		if in, s.input, err = os.Pipe(); err != nil {
			return nil, err
		}
		cmd.Stdin = in
		s.theirs = append(s.theirs, in)
	}
	return s, nil
}

// terminal gives a process a terminal of its own for input and output.
func (s *streams) terminal(cmd *exec.Cmd) error {
	ours, theirs, err := openTerminal("/")
	if err != nil {
		return err
	}
	s.out = ours
	s.theirs = append(s.theirs, theirs)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setctty = true // descriptor 0
	return nil
}

// openTerminal makes a pseudo-terminal below a root directory, so that it has a name
// there: of a container's own where its files are kept apart, else of the machine.
// It is our side and the side of a program.
func openTerminal(root string) (ours, theirs *os.File, err error) {
	defer func() {
		if err != nil {
			ours.Close()
			ours, err = nil, fmt.Errorf("making a terminal: %w", err)
		}
	}()
	dir, err := os.OpenRoot(root) // the container's own links must not lead out
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	if ours, err = dir.OpenFile("dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	number := 0
	err = control(ours, func(fd int) error {
		var unlocked int32
		if err := ioctl(fd, unix.TIOCSPTLCK, unsafe.Pointer(&unlocked)); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err == nil {
		theirs, err = dir.OpenFile(fmt.Sprintf("dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	return ours, theirs, err
}

// started lets go of the process's ends.
func (s *streams) started() {
	for _, f := range s.theirs {
		f.Close()
	}
	s.theirs = nil
}

// abandon lets go of everything: there is no process.
func (s *streams) abandon() {
	s.close()
	for _, f := range []*os.File{s.out, s.failed} {
		if f != nil {
			f.Close()
		}
	}
}

// close lets go of the input. The output is its reader's to close.
func (s *streams) close() {
	if s.input != nil {
		s.input.Close()
	}
}
