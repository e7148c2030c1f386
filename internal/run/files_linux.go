package run

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// A container's view of the files, on native and rootless. It is made by process 1
// of the container, in a mount namespace of its own.

// enterFiles mounts the container's files and makes them all there is.
func enterFiles(c execConfig) error {
	root, err := mountRoot(c)
	if err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	os.Chdir("/")
	if err := protectProc(); err != nil {
		return err
	}
	if c.ReadOnly {
		if err := readOnly("/"); err != nil {
			return fmt.Errorf("making the files read-only: %w", err)
		}
	}
	return nil
}

// readOnly makes a mount read-only, keeping what else it may not.
func readOnly(at string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return err
	}
	keep := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	return unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|keep, "")
}

// mountRoot mounts the container's files: the image below, its own changes in a
// layer beside its log, the kernel's file systems and the volumes in it.
func mountRoot(c execConfig) (string, error) {
	own, err := filepath.Abs(c.Name + ".files") // the shim's directory is the task's
	if err != nil {
		return "", err
	}
	dirs := map[string]string{}
	for _, d := range []string{"upper", "work", "root"} {
		dirs[d] = filepath.Join(own, d)
		if err := os.MkdirAll(dirs[d], 0o755); err != nil {
			return "", err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("making mounts private: %w", err)
	}
	root := dirs["root"]
	// The kernel splits the options at commas and the directories below at colons.
	plain := strings.NewReplacer(`\`, `\\`, ",", `\,`, ":", `\:`).Replace
	options := "lowerdir=" + plain(c.Rootfs) + ",upperdir=" + plain(dirs["upper"]) + ",workdir=" + plain(dirs["work"])
	if c.Mode == "rootless" {
		options += ",userxattr" // other attributes are not an ordinary user's
	}
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mounting the image: %w", err)
	}
	if err := mountKernel(c, root); err != nil {
		return "", err
	}
	if err := writeEtc(c, root); err != nil {
		return "", err
	}
	return root, mountVolumes(c, root)
}

const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mountKernel mounts what the kernel shows as files, and devices.
func mountKernel(c execConfig, root string) error {
	type mount struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}
	shared := c.SharedMemory
	if shared == 0 {
		shared = 64 << 20
	}
	sys := mount{"sysfs", "sys", "sysfs", strict | unix.MS_RDONLY, ""}
	if c.Mode == "rootless" { // of the machine's network, which is not ours to show anew
		sys = mount{"/sys", "sys", "", unix.MS_BIND | unix.MS_REC, ""}
	}
	memory := mount{"tmpfs", "dev/shm", "tmpfs", strict, fmt.Sprintf("mode=1777,size=%d", shared)}
	if c.SharedIPC {
		own, err := filepath.Abs(sharedMemoryDir)
		if err != nil {
			return err
		}
		memory = mount{own, "dev/shm", "", unix.MS_BIND, ""}
	}
	for _, m := range []mount{
		{"proc", "proc", "proc", strict, ""},
		{"tmpfs", "dev", "tmpfs", unix.MS_NOSUID, "mode=755,size=64k"},
		sys,
		{"devpts", "dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"},
		memory,
	} {
		to, err := place(root, m.target)
		if err != nil {
			return err
		}
		if err := unix.Mount(m.source, to, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting /%s: %w", m.target, err)
		}
	}
	dev, err := place(root, "dev")
	if err != nil {
		return err
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		to := filepath.Join(dev, device)
		if err := os.WriteFile(to, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+device, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("giving /dev/%s: %w", device, err)
		}
	}
	for link, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, filepath.Join(dev, link)); err != nil {
			return err
		}
	}
	return nil
}

// mountVolumes mounts volumes and file systems in memory where the container wants
// them.
func mountVolumes(c execConfig, root string) error {
	for _, m := range c.Mounts {
		to, err := place(root, m.Path)
		if err != nil {
			return err
		}
		if err := unix.Mount(c.Volumes[m.Volume], to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mounting volume %s at %s: %w", m.Volume, m.Path, err)
		}
		if m.ReadOnly {
			if err := readOnly(to); err != nil {
				return fmt.Errorf("making volume %s at %s read-only: %w", m.Volume, m.Path, err)
			}
		}
	}
	for _, t := range c.Tmpfs {
		to, err := place(root, t.Path)
		if err != nil {
			return err
		}
		flags, data := tmpfsOptions(t)
		if err := unix.Mount("tmpfs", to, "tmpfs", flags, data); err != nil {
			return fmt.Errorf("mounting memory at %s: %w", t.Path, err)
		}
	}
	return nil
}

// place is a directory inside the container that something is mounted at; it is made
// where it is not there. The image's links lead where they do for the container.
func place(root, at string) (string, error) {
	to, err := securejoin.SecureJoin(root, at)
	if err == nil {
		err = os.MkdirAll(to, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("making %s: %w", at, err)
	}
	return to, nil
}

// tmpfsOptions are mount(8)'s words as mount(2) has them; like Docker's, a tmpfs is
// strict unless it is said otherwise.
func tmpfsOptions(t Tmpfs) (flags uintptr, data string) {
	words := map[string]struct {
		flag uintptr
		off  bool
	}{
		"ro": {unix.MS_RDONLY, false}, "rw": {unix.MS_RDONLY, true}, "nosuid": {unix.MS_NOSUID, false}, "suid": {unix.MS_NOSUID, true}, "nodev": {unix.MS_NODEV, false}, "dev": {unix.MS_NODEV, true},
		"noexec": {unix.MS_NOEXEC, false}, "exec": {unix.MS_NOEXEC, true}, "noatime": {unix.MS_NOATIME, false}, "sync": {unix.MS_SYNCHRONOUS, false}, "defaults": {},
	}
	flags, data = strict, fmt.Sprintf("size=%d", t.Size)
	for _, o := range t.Options {
		w, known := words[o]
		switch {
		case !known:
			data += "," + o
		case w.off:
			flags &^= w.flag
		default:
			flags |= w.flag
		}
	}
	return flags, data
}

// writeEtc gives the container a name, its own address and a resolver, in its own
// layer.
func writeEtc(c execConfig, root string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	resolver := machineResolver()
	if len(c.DNS)+len(c.Search) > 0 {
		resolver = nil
		for _, server := range c.DNS {
			resolver = fmt.Appendf(resolver, "nameserver %s\n", server)
		}
		if len(c.Search) > 0 {
			resolver = fmt.Appendf(resolver, "search %s\n", strings.Join(c.Search, " "))
		}
	}
	r, err := os.OpenRoot(root) // the image's own links must not lead out
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.MkdirAll("etc", 0o755); err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	for _, line := range append([]string{c.Address + " " + host}, c.Hosts...) {
		hosts += line + "\n"
	}
	for name, content := range map[string]string{
		"etc/hostname":    host + "\n",
		"etc/hosts":       hosts,
		"etc/resolv.conf": string(resolver),
	} {
		r.Remove(name)
		if err := r.WriteFile(name, []byte(content), 0o644); err != nil {
			return fmt.Errorf("writing /%s: %w", name, err)
		}
	}
	return nil
}

// machineResolver is the machine's resolv.conf; where that names a resolver on the
// loopback interface, which is another in a container, systemd's list of those behind
// it, as Docker does it.
func machineResolver() []byte {
	raw, _ := os.ReadFile("/etc/resolv.conf")
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err != nil || !a.IsLoopback() {
			return raw
		}
	}
	if behind, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil {
		return behind
	}
	return raw
}

// protectProc hides what of /proc speaks of the machine.
func protectProc() error {
	for _, p := range []string{"/proc/sys", "/proc/irq", "/proc/bus", "/proc/sysrq-trigger"} {
		err := unix.Mount(p, p, "", unix.MS_BIND|unix.MS_REC, "")
		if err == nil {
			err = unix.Mount(p, p, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("protecting %s: %w", p, err)
		}
	}
	for _, p := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		if err := unix.Mount("/dev/null", p, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("hiding %s: %w", p, err)
		}
	}
	return nil
}
