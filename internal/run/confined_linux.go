package run

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// confinedHost is the shim's side of a confined task: an address, and nothing that
// keeps its files and processes apart.
type confinedHost struct{ redirects }

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
	shim, err := dialFilters(c)
	if err != nil {
		return err
	}
	below := c.Rootfs
	// With the privilege to, at least the paths are the image's own.
	if os.Geteuid() == 0 {
		furnish(c.Rootfs)
		if unix.Chroot(c.Rootfs) == nil {
			below = ""
		}
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

// furnish gives an image what every program expects of a machine, as far as it is
// not there and can be had: devices, and the machine's names.
func furnish(rootfs string) {
	r, err := os.OpenRoot(rootfs) // the image's own links must not lead out
	if err != nil {
		return
	}
	defer r.Close()
	for _, dir := range []string{"etc", "dev"} {
		r.MkdirAll(dir, 0o755)
	}
	for _, file := range []string{"etc/hosts", "etc/resolv.conf"} {
		if _, err := r.Lstat(file); err != nil {
			content, _ := os.ReadFile("/" + file)
			r.WriteFile(file, content, 0o644)
		}
	}
	if st, err := r.Lstat("dev"); err != nil || !st.IsDir() {
		return
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		at := filepath.Join(rootfs, "dev", name)
		if unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))) == nil {
			os.Chmod(at, 0o666) // whatever the mask is
		}
	}
}
