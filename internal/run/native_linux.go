package run

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nativeNet is the bridge of one runtime and the addresses on it.
type nativeNet struct {
	bridge  string
	gateway netip.Prefix // the bridge's address, with the length of its network
	mu      sync.Mutex
	leased  map[string]netip.Addr // task id → address
	last    netip.Addr            // the one given out last
}

// candidates are networks that a machine rarely uses; the first that none of
// its routes touches is taken. Not 172.31.0.0/16, though tasks in a default VPC
// live there: on an EC2 instance it would cut the machine off.
var candidates = []string{"10.213.", "10.214.", "10.215.", "10.216.", "10.88.", "192.168."}

func newNativeNet(dir string) (*nativeNet, error) {
	sum := sha256.Sum256([]byte(dir))
	n := &nativeNet{bridge: "serin" + hex.EncodeToString(sum[:4]), leased: map[string]netip.Addr{}}
	link, err := netlink.LinkByName(n.bridge)
	if err == nil { // left by an earlier program, with its tasks on it
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		for _, a := range addrs {
			if p, bad := netip.ParsePrefix(a.IPNet.String()); bad == nil && p.Addr() != DoorAddress {
				n.gateway = p
			}
		}
		if err == nil && n.gateway.IsValid() {
			return n, nil
		}
		netlink.LinkDel(link)
	}
	if n.gateway, err = freeNetwork(sum[4]); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.bridge
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("making the tasks' bridge: %w", err)
	}
	if link, err = netlink.LinkByName(n.bridge); err == nil {
		err = netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(n.gateway)})
	}
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		n.close(true)
		return nil, fmt.Errorf("setting up the tasks' bridge: %w", err)
	}
	return n, nil
}

// freeNetwork finds a /24 that overlaps no route of the machine.
func freeNetwork(start byte) (netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("reading the machine's routes: %w", err)
	}
	taken := func(p netip.Prefix) bool {
		return slices.ContainsFunc(routes, func(r netlink.Route) bool {
			if r.Dst == nil {
				return false
			}
			have, err := netip.ParsePrefix(r.Dst.String())
			return err == nil && have.Bits() > 0 && have.Overlaps(p)
		})
	}
	for _, c := range candidates {
		for i := range 256 {
			p := netip.MustParsePrefix(c + strconv.Itoa(int(start+byte(i))) + ".1/24")
			if !taken(p.Masked()) {
				return p, nil
			}
		}
	}
	return netip.Prefix{}, errors.New("every network for tasks is taken by a route of this machine")
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// lease gives a task an address.
func (n *nativeNet) lease(id string) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	used := map[netip.Addr]bool{n.gateway.Addr(): true}
	for _, a := range n.leased {
		used[a] = true
	}
	// Round and round, so that an address rests before it comes back.
	a := n.last
	for range 256 {
		if a = a.Next(); !n.gateway.Contains(a.Next()) {
			a = n.gateway.Addr().Next()
		}
		if !used[a] {
			n.leased[id], n.last = a, a
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the tasks' network %s has no address left", n.gateway.Masked())
}

func (n *nativeNet) adopt(id, address string) {
	if a, err := netip.ParseAddr(address); err == nil {
		n.mu.Lock()
		n.leased[id] = a
		n.mu.Unlock()
	}
}

func (n *nativeNet) release(id string) {
	n.mu.Lock()
	delete(n.leased, id)
	n.mu.Unlock()
}

// connect lays a cable from the bridge into the network namespace of pid.
func (n *nativeNet) connect(pid int, id string) error {
	n.mu.Lock()
	address := n.leased[id]
	n.mu.Unlock()
	bridge, err := netlink.LinkByName(n.bridge)
	if err != nil {
		return fmt.Errorf("finding the tasks' bridge: %w", err)
	}
	sum := sha256.Sum256([]byte(n.bridge + id))
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "sv"+hex.EncodeToString(sum[:6]), bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("making the task's network: %w", err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("making the task's network: %w", err)
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("entering the task's network: %w", err)
	}
	defer ns.Close()
	in, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("entering the task's network: %w", err)
	}
	defer in.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := in.LinkByName(name)
		if err == nil && name == "eth0" {
			err = in.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(address, n.gateway.Bits()))})
		}
		if err == nil {
			err = in.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("setting up the task's %s: %w", name, err)
		}
	}
	if err := in.RouteAdd(&netlink.Route{Gw: n.gateway.Addr().AsSlice()}); err != nil {
		return fmt.Errorf("setting the task's route: %w", err)
	}
	return nil
}

// close removes the bridge when no task is on it any more.
func (n *nativeNet) close(empty bool) error {
	if !empty {
		return nil
	}
	link, err := netlink.LinkByName(n.bridge)
	if err != nil {
		return nil
	}
	return netlink.LinkDel(link)
}

// nativeHost is the shim's side of a native task.
type nativeHost struct {
	plan  plan
	group cgroups.Manager
	go_   map[string]*os.File // container → the pipe its init waits on
}

func (h *nativeHost) address() (string, error) {
	name := "ip-" + strings.ReplaceAll(h.plan.Address, ".", "-")
	if err := unix.Sethostname([]byte(name)); err != nil {
		return "", fmt.Errorf("naming the task's host: %w", err)
	}
	h.limit()
	return h.plan.Address, nil
}

// limit makes the task's cgroup. A machine whose cgroups we may not write runs
// its tasks without limits.
func (h *nativeHost) limit() {
	spec := h.plan.Spec
	memory := spec.Memory
	for _, c := range spec.Containers {
		if memory == 0 && len(spec.Containers) == 1 {
			memory = c.Memory
		}
	}
	r := &cgroups.Resources{Memory: memory, SkipDevices: true}
	if spec.CPU > 0 {
		r.CpuPeriod, r.CpuQuota = 100_000, spec.CPU*100_000/1024
	}
	g, err := manager.New(&cgroups.Cgroup{Name: spec.ID, Parent: "serin", Resources: r})
	if err == nil {
		if err = g.Apply(-1); err == nil {
			err = g.Set(r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the task runs without limits:", err)
		if g != nil {
			g.Destroy()
		}
		return
	}
	h.group = g
}

func (h *nativeHost) command(c execConfig) (*exec.Cmd, error) {
	wait, start, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if h.go_ == nil {
		h.go_ = map[string]*os.File{}
	}
	h.go_[c.Name] = start
	cmd, err := initCommand("serin-native-init", c)
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{wait} // fd 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	return cmd, nil
}

// initCommand is this program again, as the init helper for one container. It
// finds its configuration in its environment.
func initCommand(as string, c execConfig) (*exec.Cmd, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", as)
	cmd.Env = []string{"SERIN_INIT=" + string(raw)}
	return cmd, nil
}

func (h *nativeHost) started(c execConfig, cmd *exec.Cmd) error {
	for _, f := range cmd.ExtraFiles[1:] {
		f.Close()
	}
	defer h.go_[c.Name].Close() // lets the init go on
	return h.join(cmd.Process.Pid)
}

func (h *nativeHost) join(pid int) error {
	if h.group == nil {
		return nil
	}
	if err := h.group.Apply(pid); err != nil {
		return fmt.Errorf("limiting the container: %w", err)
	}
	return nil
}

func (h *nativeHost) oom() bool {
	if h.group == nil {
		return false
	}
	n, err := h.group.OOMKillCount()
	return err == nil && n > 0
}

func (h *nativeHost) usage() (Usage, bool) {
	if h.group == nil {
		return Usage{}, false
	}
	st, err := h.group.Stats(&cgroups.StatsOptions{Controllers: cgroups.CPU | cgroups.Memory})
	if err != nil || st.CpuStats.CpuUsage.TotalUsage == 0 || st.MemoryStats.Usage.Usage == 0 {
		return Usage{}, false // the machine does not keep these books
	}
	return Usage{time.Duration(st.CpuStats.CpuUsage.TotalUsage), withoutFiles(st.MemoryStats.Usage.Usage, st.MemoryStats.Stats)}, true
}

func (h *nativeHost) close() {
	if h.group != nil {
		h.group.Destroy()
	}
}

// initConfig is what the helper was started with, and the pipe it reports on.
func initConfig() (execConfig, *os.File, error) {
	var c execConfig
	unix.CloseOnExec(3)
	report := os.NewFile(3, "report")
	err := json.Unmarshal([]byte(os.Getenv("SERIN_INIT")), &c)
	return c, report, err
}

// nativeInit is process 1 of a container: it makes the container's view of the
// files, gives up what it may not keep, and becomes the program.
func nativeInit() error {
	runtime.LockOSThread()
	c, report, err := initConfig()
	if err == nil {
		untilJoined()
		err = nativeExec(c)
	}
	fmt.Fprint(report, err)
	return err
}

func nativeExec(c execConfig) error {
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
	return become(c, "", true)
}

// mountRoot mounts the container's files: the image below, its own changes in
// a layer beside its log, the kernel's file systems in it.
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
	options := "lowerdir=" + c.Rootfs + ",upperdir=" + dirs["upper"] + ",workdir=" + dirs["work"]
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mounting the image: %w", err)
	}
	type mount struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}
	const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mounts := []mount{
		{"proc", "proc", "proc", strict, ""},
		{"tmpfs", "dev", "tmpfs", unix.MS_NOSUID, "mode=755,size=64k"},
		{"sysfs", "sys", "sysfs", strict | unix.MS_RDONLY, ""},
		{"devpts", "dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"},
		{"tmpfs", "dev/shm", "tmpfs", strict, "mode=1777,size=64m"},
	}
	for _, m := range mounts {
		to := filepath.Join(root, m.target)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return "", err
		}
		if err := unix.Mount(m.source, to, m.kind, m.flags, m.data); err != nil {
			return "", fmt.Errorf("mounting /%s: %w", m.target, err)
		}
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		to := filepath.Join(root, "dev", device)
		if err := os.WriteFile(to, nil, 0o666); err != nil {
			return "", err
		}
		if err := unix.Mount("/dev/"+device, to, "", unix.MS_BIND, ""); err != nil {
			return "", fmt.Errorf("giving /dev/%s: %w", device, err)
		}
	}
	for link, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, filepath.Join(root, "dev", link)); err != nil {
			return "", err
		}
	}
	return root, writeEtc(root)
}

// writeEtc gives the container a name, its own address and the machine's
// resolver, in its own layer.
func writeEtc(root string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	resolver, _ := os.ReadFile("/etc/resolv.conf")
	r, err := os.OpenRoot(root) // the image's own links must not lead out
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.MkdirAll("etc", 0o755); err != nil {
		return err
	}
	address := strings.ReplaceAll(strings.TrimPrefix(host, "ip-"), "-", ".")
	for name, content := range map[string]string{
		"etc/hostname":    host + "\n",
		"etc/hosts":       "127.0.0.1 localhost\n::1 localhost\n" + address + " " + host + "\n",
		"etc/resolv.conf": string(resolver),
	} {
		r.Remove(name)
		if err := r.WriteFile(name, []byte(content), 0o644); err != nil {
			return fmt.Errorf("writing /%s: %w", name, err)
		}
	}
	return nil
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

// kept are the capabilities a container keeps: Docker's and hence ECS's default.
var kept = []capability.Cap{
	capability.CAP_CHOWN, capability.CAP_DAC_OVERRIDE, capability.CAP_FSETID, capability.CAP_FOWNER, capability.CAP_MKNOD,
	capability.CAP_NET_RAW, capability.CAP_SETGID, capability.CAP_SETUID, capability.CAP_SETFCAP, capability.CAP_SETPCAP,
	capability.CAP_NET_BIND_SERVICE, capability.CAP_SYS_CHROOT, capability.CAP_KILL, capability.CAP_AUDIT_WRITE,
}

// become turns the helper into the container's program. below is put before
// paths where the root could not be changed.
func become(c execConfig, below string, drop bool) error {
	workdir := filepath.Join(below+"/", c.Workdir)
	if err := os.Chdir(workdir); err != nil {
		if err := os.MkdirAll(workdir, 0o755); err != nil {
			return fmt.Errorf("the working directory: %w", err)
		}
		if err := os.Chdir(workdir); err != nil {
			return fmt.Errorf("the working directory: %w", err)
		}
	}
	program, err := lookPath(c, below)
	if err != nil {
		return err
	}
	if err := changeUser(c.User, below, drop); err != nil {
		return err
	}
	unix.Umask(0o022)
	// The descriptors of this helper stay behind; the report pipe closes with exec.
	err = unix.Exec(program, c.Args, c.Env)
	return fmt.Errorf("exec %q: %w", c.Args[0], err)
}

// lookPath finds the program as a shell would, inside the container.
func lookPath(c execConfig, below string) (string, error) {
	arg := c.Args[0]
	if strings.Contains(arg, "/") {
		if !strings.HasPrefix(arg, "/") {
			return arg, nil
		}
		return below + arg, nil
	}
	for _, kv := range c.Env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range strings.Split(list, ":") {
			p := filepath.Join(below+"/", dir, arg)
			if st, err := os.Stat(p); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", arg)
}

// changeUser becomes the user and gives up the capabilities beyond the default.
func changeUser(user, below string, drop bool) error {
	uid, gid, groups, err := lookUser(user, below)
	if err != nil {
		return err
	}
	if drop {
		caps, err := capability.NewPid2(0)
		if err != nil {
			return fmt.Errorf("reading capabilities: %w", err)
		}
		caps.Clear(capability.BOUNDS)
		caps.Set(capability.BOUNDS, kept...)
		if err := caps.Apply(capability.BOUNDS); err != nil {
			return fmt.Errorf("dropping capabilities: %w", err)
		}
		if uid == 0 {
			caps.Clear(capability.CAPS | capability.AMBS)
			caps.Set(capability.CAPS, kept...)
			if err := caps.Apply(capability.CAPS | capability.AMBS); err != nil {
				return fmt.Errorf("dropping capabilities: %w", err)
			}
		}
	}
	if os.Geteuid() != 0 {
		return nil // only root can become another
	}
	if err := unix.Setgroups(groups); err != nil {
		return fmt.Errorf("setting groups: %w", err)
	}
	if err := unix.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("setting the group: %w", err)
	}
	if err := unix.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("setting the user: %w", err)
	}
	return nil
}

// lookUser reads USER[:GROUP], names or numbers, in the container's own files.
func lookUser(user, below string) (uid, gid int, groups []int, err error) {
	if user == "" {
		return 0, 0, nil, nil
	}
	name, group, hasGroup := strings.Cut(user, ":")
	uid, err = strconv.Atoi(name)
	known := false
	eachLine(below+"/etc/passwd", func(f []string) {
		if len(f) > 3 && !known && (f[0] == name || err == nil && f[2] == name) {
			known = true
			uid, _ = strconv.Atoi(f[2])
			gid, _ = strconv.Atoi(f[3])
			name = f[0]
		}
	})
	if err != nil && !known {
		return 0, 0, nil, fmt.Errorf("unable to find user %s: no matching entries in passwd file", name)
	}
	if hasGroup {
		gid, err = strconv.Atoi(group)
		found := err == nil
		eachLine(below+"/etc/group", func(f []string) {
			if len(f) > 2 && f[0] == group {
				gid, _ = strconv.Atoi(f[2])
				found = true
			}
		})
		if !found {
			return 0, 0, nil, fmt.Errorf("unable to find group %s: no matching entries in group file", group)
		}
		return uid, gid, nil, nil
	}
	eachLine(below+"/etc/group", func(f []string) {
		if len(f) > 3 && slices.Contains(strings.Split(f[3], ","), name) {
			if g, err := strconv.Atoi(f[2]); err == nil {
				groups = append(groups, g)
			}
		}
	})
	return uid, gid, groups, nil
}

func eachLine(file string, do func(fields []string)) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		do(strings.Split(in.Text(), ":"))
	}
}
