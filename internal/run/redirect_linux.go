package run

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// redirect gives a task an address of its own on the machine's loopback interface,
// without a network of its own. Its programs run under a seccomp filter that
// reports bind, connect and sendto to the shim. The shim rewrites a wildcard or
// loopback address that is bound to the task's own in the program's memory, and so
// one that is connected to, if the task has bound the port: so containers of one
// task find each other at localhost. Other loopback ports are the machine's. Then
// the call goes on; data never passes through the shim.
type redirect struct {
	ip      [4]byte
	lease   net.PacketConn
	filters *net.UnixListener // where programs hand their filters over
	host    bool              // others are at the address, too: it is a host's

	mu     sync.Mutex
	v6only map[string]bool // socket inode → IPv6 only
	bound  map[uint16]bool // ports, in the network's order of bytes
}

// leasePort is bound, in UDP, on the address of a task for as long as it runs:
// so two programs on one machine never give out the same address.
const leasePort = 47110

// open listens for filters on a socket in the task's directory.
func (h *redirect) open(socket string) (err error) {
	h.v6only, h.bound = map[string]bool{}, map[uint16]bool{}
	if h.filters, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"}); err != nil {
		return fmt.Errorf("listening for filters: %w", err)
	}
	go h.takeFilters()
	return nil
}

// address finds an address that nobody else has.
func (h *redirect) address() (string, error) {
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

func (h *redirect) close() {
	if h.lease != nil {
		h.lease.Close()
	}
	if h.filters != nil {
		h.filters.Close()
	}
}

// takeFilters serves the filters that programs hand over.
func (h *redirect) takeFilters() {
	for {
		c, err := h.filters.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var ok bool
			files, err := receive(c, &ok)
			if err != nil {
				return
			}
			h.supervise(files[0])
		}()
	}
}

// dialFilters connects to the shim; it must come before the root changes.
func dialFilters(c execConfig) (*os.File, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filtersOf(c), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("reaching the task's shim: %w", err)
	}
	defer conn.Close()
	return conn.File()
}

// underFilter puts this thread under the filter and hands it over on a descriptor
// of dialFilters. Exec keeps the thread that calls it.
func underFilter(to int) error {
	fd, err := installFilter()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	raw := []byte("\ntrue\n") // as send writes it; this thread is not to open anything more
	if err := unix.Sendmsg(to, raw[:1], unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("handing the seccomp listener over: %w", err)
	}
	_, err = unix.Write(to, raw[1:])
	return err
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

// supervise answers a filter's reports until the last process under it ends.
func (h *redirect) supervise(listener *os.File) {
	defer listener.Close()
	fd := int(listener.Fd())
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
		if err := h.handle(fd, &n); err != 0 {
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

func (h *redirect) handle(fd int, n *notification) unix.Errno {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", n.pid), os.O_RDWR, 0)
	if err != nil {
		return unix.EPERM
	}
	defer mem.Close()
	if ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&n.id)) != nil {
		return 0 // the process was killed, and its number may be another's by now
	}
	switch int(n.nr) {
	case unix.SYS_SETSOCKOPT:
		var value [4]byte
		if _, err := mem.ReadAt(value[:], int64(n.args[3])); err == nil {
			h.mu.Lock()
			h.v6only[socketOf(n)] = binary.NativeEndian.Uint32(value[:]) != 0
			h.mu.Unlock()
		}
	case unix.SYS_BIND:
		return h.rewrite(mem, n.args[1], n.args[2], func(a []byte) unix.Errno { return h.bind(a, n) })
	case unix.SYS_CONNECT:
		return h.rewrite(mem, n.args[1], n.args[2], h.connect)
	case unix.SYS_SENDTO:
		return h.rewrite(mem, n.args[4], n.args[5], h.connect)
	}
	return 0
}

// socketOf names the socket of a call.
func socketOf(n *notification) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(n.args[0])))
	if err != nil {
		return ""
	}
	return name
}

// readWriter is a process's memory.
type readWriter interface {
	io.ReaderAt
	io.WriterAt
}

// rewrite changes an address in a program's memory. One that the kernel will refuse
// is the kernel's to judge.
func (h *redirect) rewrite(mem readWriter, at, size uint64, change func([]byte) unix.Errno) unix.Errno {
	if size < 8 || size > 128 {
		return 0
	}
	addr := make([]byte, size)
	if _, err := mem.ReadAt(addr, int64(at)); err != nil {
		return unix.EFAULT
	}
	if family := binary.NativeEndian.Uint16(addr); family != unix.AF_INET && (family != unix.AF_INET6 || size < 24) {
		return 0
	}
	was := string(addr)
	if err := change(addr); err != 0 || string(addr) == was {
		return err
	}
	if _, err := mem.WriteAt(addr, int64(at)); err != nil {
		return unix.EPERM
	}
	return 0
}

// bind moves a wildcard or loopback address to the task's own. A socket that
// speaks only IPv6 cannot have it: it gets a port of its own on ::1, out of
// everybody's way; the IPv4 socket beside it serves. One for datagrams that asks for
// no address and no port is to send them, maybe far, and stays as it is. Another
// without a port gets a free one here: nobody would know which the kernel chose.
func (h *redirect) bind(addr []byte, n *notification) unix.Errno {
	port := binary.NativeEndian.Uint16(addr[2:])
	if port == 0 {
		kind := kindOf(n)
		if kind == unix.SOCK_DGRAM && wildcard(addr) {
			return 0
		}
		port = h.choose(kind)
		binary.NativeEndian.PutUint16(addr[2:], port)
	}
	if binary.NativeEndian.Uint16(addr) == unix.AF_INET {
		if ip := [4]byte(addr[4:8]); ip != [4]byte{} && ip[0] != 127 {
			return unix.EADDRNOTAVAIL
		}
		copy(addr[4:8], h.ip[:])
		h.own(port)
		return 0
	}
	h.mu.Lock()
	only := h.v6only[socketOf(n)]
	h.mu.Unlock()
	clear(addr[8:24])
	if only {
		addr[2], addr[3], addr[23] = 0, 0, 1
		return 0
	}
	addr[18], addr[19] = 0xff, 0xff
	copy(addr[20:24], h.ip[:])
	h.own(port)
	return 0
}

// wildcard says that an address is none in particular.
func wildcard(addr []byte) bool {
	if binary.NativeEndian.Uint16(addr) == unix.AF_INET {
		return [4]byte(addr[4:8]) == [4]byte{}
	}
	return net.IP(addr[8:24]).IsUnspecified()
}

// choose is a free port of the task's address, in the network's order of bytes; 0:
// there is none, which the kernel will say.
func (h *redirect) choose(kind int) uint16 {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.Bind(fd, &unix.SockaddrInet4{Addr: h.ip}) != nil {
		return 0
	}
	at, err := unix.Getsockname(fd)
	if got, ok := at.(*unix.SockaddrInet4); ok && err == nil {
		return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, uint16(got.Port)))
	}
	return 0
}

// kindOf is whether the socket of a call is for streams or datagrams.
func kindOf(n *notification) int {
	process, err := unix.PidfdOpen(groupOf(n.pid), 0)
	if err != nil {
		return unix.SOCK_STREAM
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, int(int32(n.args[0])), 0)
	if err != nil {
		return unix.SOCK_STREAM
	}
	defer unix.Close(fd)
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return unix.SOCK_STREAM
	}
	return kind
}

// groupOf is the process of a thread.
func groupOf(thread uint32) int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, "Tgid:"); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(value)) // 0 is no process
			return pid
		}
	}
	return 0
}

func (h *redirect) own(port uint16) {
	h.mu.Lock()
	h.bound[port] = port != 0
	h.mu.Unlock()
}

// connect moves a loopback address to the task's own, where the task has bound the
// port.
func (h *redirect) connect(addr []byte) unix.Errno {
	h.mu.Lock()
	own := h.bound[binary.NativeEndian.Uint16(addr[2:])]
	h.mu.Unlock()
	if !own && !(h.host && listensAt(h.ip, binary.BigEndian.Uint16(addr[2:]))) {
		return 0
	}
	if binary.NativeEndian.Uint16(addr) == unix.AF_INET {
		if ip := [4]byte(addr[4:8]); ip == [4]byte{} || ip == [4]byte{127, 0, 0, 1} {
			copy(addr[4:8], h.ip[:])
		}
		return 0
	}
	ip := net.IP(addr[8:24])
	if v4 := ip.To4(); ip.Equal(net.IPv6loopback) || ip.Equal(net.IPv6zero) || v4 != nil && (v4.Equal(net.IPv4zero) || v4.Equal(net.IPv4(127, 0, 0, 1))) {
		clear(addr[8:18])
		addr[18], addr[19] = 0xff, 0xff
		copy(addr[20:24], h.ip[:])
	}
	return 0
}

var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// installFilter reports bind, connect, sendto with an address, and the one
// setsockopt that decides how a bind must be rewritten; everything else passes.
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
		0:  {Code: load, K: offArch},
		1:  {Code: jeq, Jt: 0, Jf: 11, K: arch},
		2:  {Code: load, K: offNR},
		3:  {Code: jeq, Jt: 10, Jf: 0, K: unix.SYS_BIND},
		4:  {Code: jeq, Jt: 9, Jf: 0, K: unix.SYS_CONNECT},
		5:  {Code: jeq, Jt: 0, Jf: 2, K: unix.SYS_SENDTO},
		6:  {Code: load, K: offArgs + 4*8}, // the address's lower half
		7:  {Code: jeq, Jt: 5, Jf: 6, K: 0},
		8:  {Code: jeq, Jt: 0, Jf: 4, K: unix.SYS_SETSOCKOPT},
		9:  {Code: load, K: offArgs + 8},
		10: {Code: jeq, Jt: 0, Jf: 2, K: unix.IPPROTO_IPV6},
		11: {Code: load, K: offArgs + 16},
		12: {Code: jeq, Jt: 1, Jf: 0, K: unix.IPV6_V6ONLY},
		13: {Code: ret, K: unix.SECCOMP_RET_ALLOW},
		14: {Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
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
