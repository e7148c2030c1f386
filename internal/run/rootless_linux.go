package run

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// rootlessHost is the shim's side of a rootless task: files, processes and users of
// a container are in namespaces that an ordinary user may make; its network is the
// machine's, with an address of the task's own as confined tasks have it.
type rootlessHost struct {
	redirects
	users    userMap
	children *reaper
	waiting  map[string]*os.File // container → the pipe its init waits on
}

func (h *rootlessHost) address() (addresses, error) {
	h.users, h.waiting = findUsers(), map[string]*os.File{}
	return h.redirects.address()
}

// doorName is the socket, in the task's directory, where a container's process 1
// takes commands.
func doorName(container string) string { return container + ".door" }

func (h *rootlessHost) command(c execConfig) (*exec.Cmd, error) {
	os.Remove(doorName(c.Name)) // of an earlier start
	doors, err := net.ListenUnix("unix", &net.UnixAddr{Name: doorName(c.Name), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening for commands: %w", err)
	}
	doors.SetUnlinkOnClose(false) // it is the init's from here
	defer doors.Close()
	door, err := doors.File()
	if err != nil {
		return nil, err
	}
	wait, start, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	h.waiting[c.Name] = start
	cmd, err := initCommand("serin-rootless-init", c)
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{wait, door} // fds 4 and 5
	cmd.SysProcAttr = asOwner(syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC)
	return cmd, nil
}

// asOwner makes a process the owner of a user namespace and of others. Its
// capabilities are ambient, or they were lost at exec, while no users are mapped.
func asOwner(namespaces uintptr) *syscall.SysProcAttr {
	all := make([]uintptr, unix.CAP_LAST_CAP+1)
	for i := range all {
		all[i] = uintptr(i)
	}
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | namespaces, AmbientCaps: all}
}

// started maps the container's users and lets its init go on.
func (h *rootlessHost) started(c execConfig, cmd *exec.Cmd) error {
	defer h.waiting[c.Name].Close()
	return h.users.write(cmd.Process.Pid, c, h.children.output)
}

func (h *rootlessHost) join(string, int) error { return nil }
func (h *rootlessHost) oom(string) bool        { return false }
func (h *rootlessHost) usage() (Usage, bool)   { return Usage{}, false }

// userMap is which users there are in a container: all that this user may have.
type userMap struct {
	root     bool   // every user, as they are
	uid, gid string // the subordinate ones of an ordinary user, "START COUNT"; empty: none
}

// findUsers looks for the subordinate users of /etc/subuid, which shadow's
// newuidmap maps for an ordinary user.
func findUsers() userMap {
	if os.Geteuid() == 0 {
		return userMap{root: true}
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return userMap{}
		}
	}
	id := strconv.Itoa(os.Getuid())
	name := id
	if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	m := userMap{uid: subordinate("/etc/subuid", name, id), gid: subordinate("/etc/subgid", name, id)}
	if m.uid == "" || m.gid == "" {
		return userMap{}
	}
	return m
}

// subordinate is a user's first range in a file of subuid(5).
func subordinate(file, name, id string) (found string) {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		fields := strings.Split(in.Text(), ":")
		if len(fields) == 3 && (fields[0] == name || fields[0] == id) && found == "" {
			found = fields[1] + " " + fields[2]
		}
	}
	return found
}

// single reports whether a container can have one user alone: then it is the one
// that the container asks for.
func (m userMap) single() bool { return !m.root && m.uid == "" }

// write maps the users of a container's first process. What it needs another program
// for, run runs.
func (m userMap) write(pid int, c execConfig, run func(*exec.Cmd) ([]byte, error)) error {
	proc := fmt.Sprintf("/proc/%d/", pid)
	if m.root || m.single() {
		uids, gids := "0 0 4294967295", "0 0 4294967295"
		if m.single() {
			who, err := lookUser(c.User, c.Rootfs)
			if err != nil {
				return err
			}
			uids, gids = fmt.Sprintf("%d %d 1", who.uid, os.Getuid()), fmt.Sprintf("%d %d 1", who.gid, os.Getgid())
			if err := os.WriteFile(proc+"setgroups", []byte("deny"), 0); err != nil {
				return fmt.Errorf("mapping the container's users: %w", err)
			}
		}
		for file, content := range map[string]string{"uid_map": uids, "gid_map": gids} {
			if err := os.WriteFile(proc+file, []byte(content), 0); err != nil {
				return fmt.Errorf("mapping the container's users: %w", err)
			}
		}
		return nil
	}
	for tool, ids := range map[string][2]string{"newuidmap": {strconv.Itoa(os.Getuid()), m.uid}, "newgidmap": {strconv.Itoa(os.Getgid()), m.gid}} {
		args := append([]string{strconv.Itoa(pid), "0", ids[0], "1", "1"}, strings.Fields(ids[1])...)
		if said, err := run(exec.Command(tool, args...)); err != nil {
			return fmt.Errorf("mapping the container's users: %s: %w: %s", tool, err, strings.TrimSpace(string(said)))
		}
	}
	return nil
}

// rootlessInit is process 1 of a rootless container.
func rootlessInit() error {
	runtime.LockOSThread()
	c, report, err := initConfig()
	if err == nil {
		untilJoined()
		unix.CloseOnExec(5)
		err = rootlessExec(c, report)
	}
	fmt.Fprint(report, err)
	return err
}

func rootlessExec(c execConfig, report *os.File) error {
	if !c.OneUser {
		if err := becomeRoot(); err != nil {
			return err
		}
	}
	name := c.Hostname
	if name == "" {
		name = hostnameAt(c.Address)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("naming the host: %w", err)
	}
	shim, err := dialFilters(c)
	if err != nil {
		return err
	}
	if err := enterFiles(c); err != nil {
		return err
	}
	listener, err := net.FileListener(os.NewFile(5, "door"))
	if err != nil {
		return fmt.Errorf("listening for commands: %w", err)
	}
	return beInit(report, []*os.File{shim}, listener.(*net.UnixListener))
}

// becomeRoot is for every thread of a process: it goes on to start others.
func becomeRoot() error {
	err := syscall.Setresgid(0, 0, 0)
	if err == nil {
		err = syscall.Setresuid(0, 0, 0)
	}
	if err != nil {
		return fmt.Errorf("becoming the container's root: %w", err)
	}
	return nil
}

// removeAsRoot removes a directory in which a container's other users have left
// files: a helper does it as their root.
func removeAsRoot(dir string) error {
	wait, start, err := os.Pipe()
	if err != nil {
		return err
	}
	defer start.Close()
	cmd := exec.Command("/proc/self/exe", "serin-remove", dir)
	cmd.Env, cmd.ExtraFiles, cmd.SysProcAttr = []string{usualPath}, []*os.File{wait}, asOwner(0)
	var said strings.Builder
	cmd.Stderr = &said
	err = cmd.Start()
	wait.Close()
	if err != nil {
		return err
	}
	err = findUsers().write(cmd.Process.Pid, execConfig{}, (*exec.Cmd).CombinedOutput)
	start.Close()
	if ended := cmd.Wait(); err == nil && ended != nil {
		err = fmt.Errorf("%w: %s", ended, strings.TrimSpace(said.String()))
	}
	return err
}

// removeMain is that helper.
func removeMain(dir string) error {
	os.NewFile(3, "go").Read(make([]byte, 1))
	if err := becomeRoot(); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// execRootless has a container's process 1 run a command with this helper's
// descriptors, and ends as the command does. It returns only what keeps it from that.
func execRootless(c execConfig, report *os.File) error {
	door, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: doorName(c.Name), Net: "unix"})
	if err != nil {
		return fmt.Errorf("entering the container: %w", err)
	}
	filters, err := dialFilters(c)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := send(door, rootlessCall{string(raw), c.Terminal}, os.Stdin, os.Stdout, os.Stderr, report, filters); err != nil {
		return fmt.Errorf("entering the container: %w", err)
	}
	report.Close()
	code := 137 // the container ended first
	json.NewDecoder(door).Decode(&code)
	os.Exit(code)
	return nil
}
