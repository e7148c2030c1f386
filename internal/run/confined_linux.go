package run

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confinedHost is the shim's side of a confined task. The program runs under a
// seccomp filter that reports bind to the shim; the shim rewrites a wildcard or
// loopback address to the task's own in the program's memory and lets the call
// go on. Data never passes through the shim.
type confinedHost struct {
	plan  plan
	ip    [4]byte
	lease net.PacketConn

	mu     sync.Mutex
	handed map[string]*os.File // container → the socket its init sends the listener on
	v6only map[string]bool     // socket inode → IPv6 only
}

// leasePort is bound, in UDP, on the address of a task for as long as it runs:
// so two programs on one machine never give out the same address.
const leasePort = 47110

func (h *confinedHost) address() (string, error) {
	h.v6only = map[string]bool{}
	var last error
	for range 1000 {
		h.ip = [4]byte{127, 88, byte(rand.N(256)), byte(1 + rand.N(254))}
		addr := net.IP(h.ip[:]).String()
		if h.lease, last = net.ListenPacket("udp4", fmt.Sprintf("%s:%d", addr, leasePort)); last == nil {
			return addr, nil
		}
		if !errors.Is(last, unix.EADDRINUSE) {
			break
		}
	}
	return "", fmt.Errorf("finding a loopback address for the task: %w", last)
}

func (h *confinedHost) command(c execConfig) (*exec.Cmd, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	if h.handed == nil {
		h.handed = map[string]*os.File{}
	}
	h.handed[c.Name] = os.NewFile(uintptr(fds[0]), "listener")
	h.mu.Unlock()
	cmd, err := initCommand("serin-confined-init", c)
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fds[1]), "hand")} // fd 4
	return cmd, nil
}

func (h *confinedHost) started(c execConfig, cmd *exec.Cmd) error {
	for _, f := range cmd.ExtraFiles[1:] {
		f.Close()
	}
	h.mu.Lock()
	from := h.handed[c.Name]
	h.mu.Unlock()
	defer from.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(from.Fd()), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return nil // the helper says why on its report pipe
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return fmt.Errorf("receiving the seccomp listener: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return fmt.Errorf("receiving the seccomp listener: %w", err)
	}
	go h.supervise(fds[0])
	return nil
}

func (h *confinedHost) join(int) error { return nil }

func (h *confinedHost) oom() bool { return false }

func (h *confinedHost) usage() (Usage, bool) { return Usage{}, false }

func (h *confinedHost) close() {
	if h.lease != nil {
		h.lease.Close()
	}
}

// The kernel's structures, see seccomp(2).
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type notificationResponse struct {
	id    uint64
	value int64
	err   int32
	flags uint32
}

// supervise answers the filter's reports until the last process under it ends.
func (h *confinedHost) supervise(fd int) {
	defer unix.Close(fd)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			if poll[0].Revents != 0 {
				return // nobody is left under the filter
			}
			continue
		}
		var n notification
		if ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) != nil {
			continue // its process was killed meanwhile
		}
		r := notificationResponse{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if err := h.handle(&n); err != 0 {
			r.flags, r.err = 0, -int32(err)
		}
		ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	}
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	if e != 0 {
		return e
	}
	return nil
}

func (h *confinedHost) handle(n *notification) unix.Errno {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", n.pid), os.O_RDWR, 0)
	if err != nil {
		return unix.EPERM
	}
	defer mem.Close()
	socket, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(n.args[0])))
	switch int(n.nr) {
	case unix.SYS_SETSOCKOPT:
		var value [4]byte
		if _, err := mem.ReadAt(value[:], int64(n.args[3])); err == nil {
			h.mu.Lock()
			h.v6only[socket] = binary.NativeEndian.Uint32(value[:]) != 0
			h.mu.Unlock()
		}
	case unix.SYS_BIND:
		return h.bind(n, mem, socket)
	}
	return 0
}

// bind moves a wildcard or loopback address to the task's own. A socket that
// speaks only IPv6 cannot have it: it gets a port of its own on ::1, out of
// everybody's way; the IPv4 socket beside it serves.
func (h *confinedHost) bind(n *notification, mem *os.File, socket string) unix.Errno {
	size := n.args[2]
	if size < 8 || size > 128 {
		return 0 // the kernel will say what is wrong with it
	}
	addr := make([]byte, size)
	at := int64(n.args[1])
	if _, err := mem.ReadAt(addr, at); err != nil {
		return unix.EFAULT
	}
	switch binary.NativeEndian.Uint16(addr) {
	case unix.AF_INET:
		if ip := [4]byte(addr[4:8]); ip != [4]byte{} && ip[0] != 127 {
			return unix.EADDRNOTAVAIL
		}
		copy(addr[4:8], h.ip[:])
	case unix.AF_INET6:
		if size < 24 {
			return 0
		}
		h.mu.Lock()
		only := h.v6only[socket]
		h.mu.Unlock()
		clear(addr[8:24])
		if only {
			addr[2], addr[3], addr[23] = 0, 0, 1
			break
		}
		addr[18], addr[19] = 0xff, 0xff
		copy(addr[20:24], h.ip[:])
	default:
		return 0
	}
	if _, err := mem.WriteAt(addr, at); err != nil {
		return unix.EPERM
	}
	return 0
}

// confinedInit puts itself under the filter, hands the listener to the shim
// and becomes the program.
func confinedInit() error {
	// The filter is this thread's; exec keeps the thread that calls it.
	runtime.LockOSThread()
	c, report, err := initConfig()
	if err == nil {
		unix.CloseOnExec(4)
		err = confinedExec(c)
	}
	fmt.Fprint(report, err)
	return err
}

func confinedExec(c execConfig) error {
	below := c.Rootfs
	// With the privilege to, at least the paths are the image's own.
	if os.Geteuid() == 0 && unix.Chroot(c.Rootfs) == nil {
		below = ""
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up privileges: %w", err)
	}
	fd, err := installFilter()
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(4, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("handing the seccomp listener over: %w", err)
	}
	unix.Close(fd)
	return become(c, below, false)
}

var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// installFilter reports bind, and the one setsockopt that decides how a bind
// must be rewritten; everything else passes.
func installFilter() (int, error) {
	arch, ok := auditArch[runtime.GOARCH]
	if !ok {
		return 0, fmt.Errorf("no seccomp filter for %s", runtime.GOARCH)
	}
	const (
		offNR, offArch, offArgs = 0, 4, 16
		load                    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq                     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret                     = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: offArch},
		{Code: jeq, Jt: 0, Jf: 7, K: arch},
		{Code: load, K: offNR},
		{Code: jeq, Jt: 6, Jf: 0, K: unix.SYS_BIND},
		{Code: jeq, Jt: 0, Jf: 4, K: unix.SYS_SETSOCKOPT},
		{Code: load, K: offArgs + 8},
		{Code: jeq, Jt: 0, Jf: 2, K: unix.IPPROTO_IPV6},
		{Code: load, K: offArgs + 16},
		{Code: jeq, Jt: 1, Jf: 0, K: unix.IPV6_V6ONLY},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// With WAIT_KILLABLE a Go program's own signals do not interrupt the wait; kernel 5.19.
	for _, flags := range []uintptr{unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER} {
		fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
		if e == 0 {
			return int(fd), nil
		}
		if e != syscall.EINVAL {
			return 0, fmt.Errorf("installing the seccomp filter: %w", e)
		}
	}
	return 0, errors.New("installing the seccomp filter: this kernel knows no user notification")
}
