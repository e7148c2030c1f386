package run

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// initConfig is what a helper was started with, and the pipe it reports on what
// keeps it from becoming the program. The pipe closes by itself when it does.
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
		if err = enterNetwork(c); err == nil {
			err = nativeExec(c, report)
		}
	}
	fmt.Fprint(report, err)
	return err
}

func nativeExec(c execConfig, report *os.File) error {
	if c.Hostname != "" {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return fmt.Errorf("naming the host: %w", err)
		}
	}
	if err := enterFiles(c); err != nil {
		return err
	}
	if c.Init {
		return beInit(report, nil, nil)
	}
	return become(c, "", true)
}

// programMain is the child of a container's own process 1 that becomes the program.
func programMain() error {
	runtime.LockOSThread()
	c, report, err := initConfig()
	if err == nil && c.Mode == "rootless" {
		unix.CloseOnExec(4)
		err = underFilter(4)
	}
	if err == nil {
		err = become(c, "", true)
	}
	fmt.Fprint(report, err)
	return err
}

// become turns the helper into the container's program. below is put before
// paths where the root could not be changed.
func become(c execConfig, below string, drop bool) error {
	who, err := lookUser(c.User, below)
	if err != nil {
		return err
	}
	if c.Terminal {
		os.Stdin.Chown(who.uid, -1) // so that it may be opened again by its name, as Docker does
	}
	workdir := filepath.Join(below+"/", c.Workdir)
	if err := os.Chdir(workdir); err != nil {
		if err := os.MkdirAll(workdir, 0o755); err != nil {
			return fmt.Errorf("the working directory: %w", err)
		}
		if err := os.Chdir(workdir); err != nil {
			return fmt.Errorf("the working directory: %w", err)
		}
	}
	c.Env = withDefaults(c, who)
	program, err := lookPath(c, below)
	if err != nil {
		return err
	}
	if err := setLimits(c.Ulimits); err != nil {
		return err
	}
	if err := changeUser(c, who, drop); err != nil {
		return err
	}
	if c.NoNewRights {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("giving up privileges: %w", err)
		}
	}
	unix.Umask(0o022)
	// What the shim ignores would be ignored by the program, too; what is caught is not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGHUP)
	// The descriptors of this helper stay behind; the report pipe closes with exec.
	err = unix.Exec(program, c.Args, c.Env)
	return fmt.Errorf("exec %q: %w", c.Args[0], err)
}

// withDefaults is the environment with what Docker sets where nobody else does.
func withDefaults(c execConfig, who identity) []string {
	host, _ := os.Hostname()
	env := slices.Clone(c.Env)
	for _, d := range []struct{ name, value string }{{"HOSTNAME", host}, {"HOME", cmp.Or(who.home, "/")}} {
		if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, d.name+"=") }) {
			env = append(env, d.name+"="+d.value)
		}
	}
	if c.Terminal && !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
		env = append(env, "TERM=xterm")
	}
	return env
}

// limits are the names of setrlimit(2)'s.
var limits = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS,
	"memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC,
	"rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

func setLimits(list []Ulimit) error {
	for _, l := range list {
		what, known := limits[l.Name]
		if !known {
			return fmt.Errorf("there is no limit %q", l.Name)
		}
		// Through package syscall, which else puts its own number of open files back at exec.
		if err := syscall.Setrlimit(what, &syscall.Rlimit{Cur: uint64(l.Soft), Max: uint64(l.Hard)}); err != nil {
			return fmt.Errorf("setting the limit %s to %d:%d: %w", l.Name, l.Soft, l.Hard, err)
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

// keeps is the default with what a container adds and drops.
func keeps(c Container) (list []capability.Cap, err error) {
	all, err := capability.ListSupported()
	if err != nil {
		return nil, fmt.Errorf("reading capabilities: %w", err)
	}
	named := func(names []string) (found []capability.Cap, err error) {
		for _, name := range names {
			name = strings.ToLower(strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
			i := slices.IndexFunc(all, func(c capability.Cap) bool { return c.String() == name })
			switch {
			case name == "all":
				found = all
			case i < 0:
				return nil, fmt.Errorf("there is no capability %q on this machine", name)
			default:
				found = append(found, all[i])
			}
		}
		return found, nil
	}
	add, err := named(c.Add)
	if err != nil {
		return nil, err
	}
	drop, err := named(c.Drop)
	if err != nil {
		return nil, err
	}
	list = kept
	if slices.ContainsFunc(c.Drop, func(name string) bool { return strings.EqualFold(name, "ALL") }) {
		list, drop = nil, nil // what is added beside it stays, as with Docker
	}
	list = slices.DeleteFunc(slices.Clone(list), func(c capability.Cap) bool { return slices.Contains(drop, c) })
	return append(list, add...), nil
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

// changeUser becomes the user and gives up the capabilities beyond those that it
// keeps: root alone has any, documented for Docker.
func changeUser(c execConfig, who identity, drop bool) error {
	if !drop {
		return setUser(c, who)
	}
	list, err := keeps(c.Container)
	if err != nil {
		return err
	}
	caps, err := capability.NewPid2(0)
	if err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	caps.Set(capability.BOUNDS, list...)
	if err := caps.Apply(capability.BOUNDS); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	if err := setUser(c, who); err != nil { // it takes capabilities that may have to go
		return err
	}
	if who.uid == 0 {
		caps.Set(capability.EFFECTIVE|capability.PERMITTED, list...) // none is inheritable, as with Docker
	}
	if err := caps.Apply(capability.CAPS | capability.AMBS); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

func setUser(c execConfig, who identity) error {
	if os.Geteuid() != 0 || c.OneUser {
		return nil // only root can become another, where there is one
	}
	var withParent int32 // the signal at the parent's death, which another user would lose
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&withParent)), 0, 0, 0); err != nil {
		return fmt.Errorf("asking what ends with the task's shim: %w", err)
	}
	if err := unix.Setgroups(who.groups); err != nil {
		return fmt.Errorf("setting groups: %w", err)
	}
	if err := unix.Setresgid(who.gid, who.gid, who.gid); err != nil {
		return fmt.Errorf("setting the group: %w", err)
	}
	if err := unix.Setresuid(who.uid, who.uid, who.uid); err != nil {
		return fmt.Errorf("setting the user: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(withParent), 0, 0, 0); err != nil {
		return fmt.Errorf("ending with the task's shim: %w", err)
	}
	return nil
}

// identity is who a program runs as.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

// errIDRange is in Docker's words.
var errIDRange = errors.New("uids and gids must be in range 0-2147483647")

func isID(n int) bool { return 0 <= n && n <= math.MaxInt32 }

// lookUser reads USER[:GROUP], names or numbers, in the container's own files.
func lookUser(user, below string) (who identity, err error) {
	name, group, hasGroup := strings.Cut(user, ":")
	name = cmp.Or(name, "0")
	who.uid, err = strconv.Atoi(name)
	known := false
	eachLine(below, "etc/passwd", func(f []string) {
		if len(f) > 3 && !known && (f[0] == name || err == nil && f[2] == name) {
			known = true
			who.uid, _ = strconv.Atoi(f[2])
			who.gid, _ = strconv.Atoi(f[3])
			name = f[0]
			if len(f) > 5 {
				who.home = f[5]
			}
		}
	})
	if err != nil && !known {
		return who, fmt.Errorf("unable to find user %s: no matching entries in passwd file", name)
	}
	if !isID(who.uid) { // others are "as it was" to the kernel: root
		return who, errIDRange
	}
	if hasGroup {
		who.gid, err = strconv.Atoi(group)
		found := err == nil
		eachLine(below, "etc/group", func(f []string) {
			if len(f) > 2 && f[0] == group {
				who.gid, _ = strconv.Atoi(f[2])
				found = true
			}
		})
		if !found {
			return who, fmt.Errorf("unable to find group %s: no matching entries in group file", group)
		}
		if !isID(who.gid) {
			return who, errIDRange
		}
		return who, nil
	}
	eachLine(below, "etc/group", func(f []string) {
		if len(f) > 3 && slices.Contains(strings.Split(f[3], ","), name) {
			if g, err := strconv.Atoi(f[2]); err == nil {
				who.groups = append(who.groups, g)
			}
		}
	})
	return who, nil
}

// eachLine reads a file of the container, whose links lead where they do for it.
func eachLine(below, file string, do func(fields []string)) {
	file, err := securejoin.SecureJoin(below+"/", file)
	if err != nil {
		return
	}
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		do(strings.Split(in.Text(), ":"))
	}
}
