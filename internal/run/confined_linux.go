package run

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// confinedHost is the shim's side of a confined task: an address, and nothing that
// keeps its files and processes apart.
type confinedHost struct{ redirect }

func (h *confinedHost) command(c execConfig) (*exec.Cmd, error) {
	return initCommand("serin-confined-init", c)
}

func (h *confinedHost) started(execConfig, *exec.Cmd) error { return nil }
func (h *confinedHost) join(string, int) error              { return nil }
func (h *confinedHost) oom(string) bool                     { return false }
func (h *confinedHost) usage() (Usage, bool)                { return Usage{}, false }

// confinedInit becomes the program, under the filter.
func confinedInit() error {
	runtime.LockOSThread()
	c, report, err := initConfig()
	if err == nil {
		err = confinedExec(c)
	}
	fmt.Fprint(report, err)
	return err
}

// confinedExec becomes the program, among the container's files as far as they are
// kept apart.
func confinedExec(c execConfig) error {
	shim, err := dialFilters()
	if err != nil {
		return err
	}
	below := c.Rootfs
	// With the privilege to, at least the paths are the image's own.
	if os.Geteuid() == 0 && unix.Chroot(c.Rootfs) == nil {
		below = ""
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up privileges: %w", err)
	}
	if err := underFilter(int(shim.Fd())); err != nil {
		return err
	}
	shim.Close()
	return become(c, below, false)
}
