package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a crash leaves: a runtime holds a lock on its directory as long as its
// program lives, and everything that it makes outside names the directory. So what
// names a directory that nobody holds is left over. Where a stage keeps its state its
// tasks are meant to go on, and are found again by the next one there; those of a
// stage that keeps nothing, or whose directory is gone, belong to nobody.

// lock takes a runtime's directory for this program.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("taking the runtime's directory: %w", err)
	}
	for unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
			f.Close()
			return nil, fmt.Errorf("the runtime's directory %s is in use by another program", dir)
		}
		unix.Flock(int(f.Fd()), unix.LOCK_UN)
		time.Sleep(time.Millisecond) // another program has only looked whether it is, see held
	}
	return f, nil
}

// held reports whether a program has a runtime's directory, or it is another user's.
func held(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return errors.Is(err, os.ErrPermission)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// ephemeralFile, in a runtime's directory, names the directory that goes with it.
const ephemeralFile = "ephemeral"

// Leftover is what one runtime's directory has left on this machine.
type Leftover struct {
	Dir       string
	Kept      bool  // its stage keeps its state: its tasks go on until it is up again
	Processes []int // the shims of tasks
	Bridges   []string
	Docker    []string // containers and networks at the daemon, by name
	goes      string   // a directory that is removed with it

	containers, networks []string // ids
}

// Leftovers finds what programs that are no more have left. An error says what could
// not be looked at; what was found is there nevertheless.
func Leftovers(ctx context.Context) ([]*Leftover, error) {
	found := map[string]*Leftover{}
	of := func(dir string) *Leftover {
		if found[dir] == nil {
			found[dir] = &Leftover{Dir: dir}
		}
		return found[dir]
	}
	for pid, task := range shims() { // DIR/tasks/ID
		l := of(filepath.Dir(filepath.Dir(task)))
		l.Processes = append(l.Processes, pid)
	}
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), "serin-*", "run", ephemeralFile))
	for _, file := range dirs {
		of(filepath.Dir(file))
	}
	err := errors.Join(leftBridges(of), leftContainers(ctx, of))
	var list []*Leftover
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		l := found[dir]
		if held(dir) {
			continue
		}
		_, gone := os.Stat(dir)
		goes, ephemeral := os.ReadFile(filepath.Join(dir, ephemeralFile))
		if ephemeral == nil && strings.HasPrefix(dir, string(goes)+"/") {
			l.goes = string(goes)
		}
		l.Kept = gone == nil && ephemeral != nil
		list = append(list, l)
	}
	return list, err
}

// shims are the shims that run on this machine, with the directory of each one's
// task.
func shims() map[int]string {
	found := map[int]string{}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if task, ok := shimOf(pid); err == nil && ok {
			found[pid] = task
		}
	}
	return found
}

// shimOf is the directory of a shim's task; ok is false for other processes.
func shimOf(pid int) (task string, ok bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	if err != nil || len(args) != 3 || args[1] != "serin-shim" {
		return "", false
	}
	return args[2], true
}

var bridgeNames = regexp.MustCompile(`^serin[0-9a-f]{8}$`)

// leftBridges finds bridges; each has its runtime's directory as its alias.
func leftBridges(of func(dir string) *Leftover) error {
	links, err := dumped(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("looking for bridges: %w", err)
	}
	ports := map[int]int{}
	for _, l := range links {
		ports[l.Attrs().MasterIndex]++
	}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() != "bridge" || !bridgeNames.MatchString(a.Name) {
			continue
		}
		dir := a.Alias
		if dir == "" { // it was left while it was made, or is being made
			if ports[a.Index] > 0 || a.Flags&net.FlagUp == 0 {
				continue
			}
			dir = "(unknown)"
		}
		left := of(dir)
		left.Bridges = append(left.Bridges, a.Name)
	}
	return nil
}

// leftContainers finds containers and networks at a Docker daemon, if one answers.
func leftContainers(ctx context.Context, of func(dir string) *Leftover) error {
	api, err := client.New(client.FromEnv)
	if err != nil {
		return nil
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return nil
	}
	filter := make(client.Filters).Add("label", labelDir)
	containers, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filter})
	if err != nil {
		return fmt.Errorf("looking for containers: %w", err)
	}
	for _, c := range containers.Items {
		l := of(c.Labels[labelDir])
		l.Docker, l.containers = append(l.Docker, strings.TrimPrefix(c.Names[0], "/")), append(l.containers, c.ID)
	}
	networks, err := api.NetworkList(ctx, client.NetworkListOptions{Filters: filter})
	if err != nil {
		return fmt.Errorf("looking for networks: %w", err)
	}
	for _, n := range networks.Items {
		l := of(n.Labels[labelDir])
		l.Docker, l.networks = append(l.Docker, "network "+n.Name), append(l.networks, n.ID)
	}
	return nil
}

// Remove ends the tasks and removes what they and their runtime have left.
func (l *Leftover) Remove(ctx context.Context) error {
	if held(l.Dir) {
		return fmt.Errorf("%s has been taken meanwhile", l.Dir)
	}
	var errs []error
	for _, pid := range l.Processes {
		errs = append(errs, endShim(ctx, pid))
	}
	for _, name := range l.Bridges {
		errs = append(errs, closeEgress(name))
		if link, err := netlink.LinkByName(name); err == nil {
			errs = append(errs, netlink.LinkDel(link))
		}
	}
	errs = append(errs, l.removeContainers(ctx), removeTree(filepath.Join(l.Dir, "tasks")))
	if l.goes != "" {
		errs = append(errs, removeTree(l.goes))
	} else if l.Kept {
		errs = append(errs, os.MkdirAll(filepath.Join(l.Dir, "tasks"), 0o755))
	}
	return errors.Join(append(errs, emptyGroups(time.Minute))...)
}

// removeTree removes a directory, and what other users of a container left in it.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if errors.Is(err, os.ErrPermission) {
		err = removeAsRoot(dir)
	}
	return err
}

// endShim ends a task by its shim: asks it, and kills it if it does not hear.
func endShim(ctx context.Context, pid int) error {
	task, ok := shimOf(pid)
	if !ok {
		return nil // it has ended
	}
	asked := false
	if c, err := dialSocket(task); err == nil {
		defer c.Close()
		_, err = c.Write([]byte("end\n"))
		asked = err == nil
	}
	enough := time.Now().Add(40 * time.Second) // a container has thirty by default
	for {
		if !asked || time.Now().After(enough) || ctx.Err() != nil {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				return fmt.Errorf("ending process %d: %w", pid, err)
			}
			return nil
		}
		if _, ok := shimOf(pid); !ok {
			return nil
		}
		time.Sleep(5 * time.Millisecond) // it is nobody's child who could be told
	}
}

func (l *Leftover) removeContainers(ctx context.Context) error {
	if len(l.Docker) == 0 {
		return nil
	}
	api, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer api.Close()
	d := &Docker{api: api}
	var errs []error
	for _, id := range l.containers {
		errs = append(errs, d.remove(ctx, id))
	}
	volumes, err := api.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("label", labelDir+"="+l.Dir)})
	errs = append(errs, err)
	for _, v := range volumes.Items {
		_, err := api.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true})
		errs = append(errs, err)
	}
	for _, id := range l.networks {
		_, err := api.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// emptyGroups removes cgroups of tasks that have no shim any more, if they were not
// made just now. A task that lives may have an empty one: for a container that waits.
func emptyGroups(older time.Duration) error {
	var dirs []string
	for _, base := range []string{"/sys/fs/cgroup/*/serin/", "/sys/fs/cgroup/serin/"} {
		inner, _ := filepath.Glob(base + "*/*") // before what they are in
		outer, _ := filepath.Glob(base + "*")
		dirs = slices.Concat(dirs, inner, outer)
	}
	alive := map[string]bool{} // known after the cgroups: a shim makes its own
	for _, task := range shims() {
		alive[filepath.Base(task)] = true
	}
	for _, dir := range dirs {
		task, _, _ := strings.Cut(dir[strings.Index(dir, "/serin/")+len("/serin/"):], "/")
		st, err := os.Stat(dir)
		if err != nil || !st.IsDir() || alive[task] || time.Since(st.ModTime()) < older {
			continue
		}
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) { // in use, gone, another's
			return fmt.Errorf("removing the cgroup %s: %w", dir, err)
		}
	}
	return nil
}
