package run

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Networks that are not a task's own: a simulated host's, at an address that its
// tasks share, and those of single containers. On native both are network
// namespaces. A host's lives as long as a task is on it; a container's is held by
// the task's shim, so that it outlives the container.

// firstNetwork is the descriptor of a shim where its containers' networks begin.
const firstNetwork = 3

// networkOf is a container's network, once more, for its process.
func networkOf(p plan, c execConfig) (*os.File, error) {
	for i, other := range p.Configs {
		if other.Name != c.Name {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(firstNetwork+i), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("finding the network of container %s: %w", c.Name, err)
		}
		return os.NewFile(uintptr(fd), "network"), nil
	}
	return nil, fmt.Errorf("the task has no container %s", c.Name)
}

// enterNetwork has this thread enter the container's own network, where it has one.
func enterNetwork(c execConfig) error {
	if !c.Apart {
		return nil
	}
	unix.CloseOnExec(5)
	if err := unix.Setns(5, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the container's network: %w", err)
	}
	return setSysctls(c.Sysctls)
}

// setSysctls sets the kernel's parameters of this thread's network.
func setSysctls(values map[string]string) error {
	for name, value := range values {
		if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return nil
}

// inNetwork does something on a thread in a network, a new one where none is given,
// and says which it was. The thread ends with it.
func inNetwork(network *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		var err error
		if network == nil {
			err = unix.Unshare(unix.CLONE_NEWNET)
		} else {
			err = unix.Setns(int(network.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// newNetwork makes a network with a loopback interface alone. It goes with the last
// that holds it.
func newNetwork() (network *os.File, err error) {
	err = inNetwork(nil, func() error {
		network, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("making a network: %w", err)
	}
	in, err := netlink.NewHandleAt(netns.NsHandle(network.Fd()))
	if err == nil {
		defer in.Close()
		var lo netlink.Link
		if lo, err = in.LinkByName("lo"); err == nil {
			err = in.LinkSetUp(lo)
		}
	}
	if err != nil {
		network.Close()
		return nil, fmt.Errorf("setting up a network: %w", err)
	}
	return network, nil
}

// netHost is a host on a bridge.
type netHost struct {
	tasks   map[string]bool // by id; the last takes the host with it
	making  sync.Mutex      // held while its network is made
	network *os.File        // nil before
}

// hostKey and containerKey are what addresses of hosts and containers are leased as.
func hostKey(host string) string                 { return "host " + host }
func containerKey(task, container string) string { return task + " " + container }

// board gives a task what addresses it needs: its own, or its host's, and those of
// its containers.
func (n *nativeNet) board(p *plan) error {
	key := p.Spec.ID
	switch p.Spec.Network {
	case NoNetwork:
		p.Address = "127.0.0.1"
		return nil
	case HostNetwork, BridgeNetwork:
		key = hostKey(p.Spec.Host)
		n.boards(p.Spec)
	}
	address, err := n.lease(key)
	p.Address = address.String()
	for i := range p.Configs {
		if c := &p.Configs[i]; err == nil && c.Apart {
			address, err = n.lease(containerKey(p.Spec.ID, c.Name))
			c.Address = address.String()
		}
	}
	return err
}

// boards notes that a task is on its host.
func (n *nativeNet) boards(spec Spec) *netHost {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[spec.Host]
	if h == nil {
		h = &netHost{tasks: map[string]bool{}}
		n.hosts[spec.Host] = h
	}
	h.tasks[spec.ID] = true
	return h
}

// adopt takes up what a task of an earlier program has, with its shim, if that lives.
func (n *nativeNet) adopt(p plan, shim net.Conn) {
	key := p.Spec.ID
	if p.Spec.Network == HostNetwork || p.Spec.Network == BridgeNetwork {
		key = hostKey(p.Spec.Host)
		h := n.boards(p.Spec)
		h.making.Lock()
		if pid, ok := peer(shim); ok && h.network == nil {
			h.network, _ = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)) // or it has just ended
		}
		h.making.Unlock()
	}
	n.adoptAddress(key, p.Address)
	for _, c := range p.Configs {
		if c.Apart {
			n.adoptAddress(containerKey(p.Spec.ID, c.Name), c.Address)
		}
	}
}

func (n *nativeNet) adoptAddress(key, address string) {
	if a, err := netip.ParseAddr(address); err == nil && !a.IsLoopback() {
		n.mu.Lock()
		n.leased[key] = a
		n.mu.Unlock()
	}
}

// peer is the process at the other end of a socket.
func peer(c net.Conn) (pid int, ok bool) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, false
	}
	var cred *unix.Ucred
	raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || cred == nil {
		return 0, false
	}
	return int(cred.Pid), true
}

// release lets go of what a task had, and of its host when it was the last on it.
func (n *nativeNet) release(spec Spec) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.leased, spec.ID)
	for _, c := range spec.Containers {
		delete(n.leased, containerKey(spec.ID, c.Name))
	}
	h := n.hosts[spec.Host]
	if h == nil {
		return
	}
	if delete(h.tasks, spec.ID); len(h.tasks) > 0 {
		return
	}
	if h.network != nil {
		h.network.Close()
	}
	delete(n.hosts, spec.Host)
	delete(n.leased, hostKey(spec.Host))
}

// hostNetwork is the network of a host, made for its first task.
func (n *nativeNet) hostNetwork(spec Spec) (*os.File, error) {
	h := n.boards(spec)
	h.making.Lock()
	defer h.making.Unlock()
	if h.network == nil {
		network, err := newNetwork()
		if err != nil {
			return nil, err
		}
		if err := n.connect(network, hostKey(spec.Host), spec.ID); err != nil {
			network.Close()
			return nil, err
		}
		h.network = network
	}
	return h.network, nil
}

// start starts a task's shim in its network, laid as the task asks for it.
func (n *nativeNet) start(cmd *exec.Cmd, p plan) error {
	for _, c := range p.Configs {
		if !c.Apart {
			continue
		}
		network, err := newNetwork()
		if err != nil {
			return err
		}
		defer network.Close() // the shim has it
		if p.Spec.Network == BridgeNetwork {
			key := containerKey(p.Spec.ID, c.Name)
			if err := n.connect(network, key, key); err != nil {
				return err
			}
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, network)
	}
	if p.Spec.Network == HostNetwork || p.Spec.Network == BridgeNetwork {
		network, err := n.hostNetwork(p.Spec)
		if err != nil {
			return err
		}
		return inNetwork(network, cmd.Start)
	}
	network, err := newNetwork()
	if err != nil {
		return err
	}
	defer network.Close()
	if p.Spec.Network == OwnNetwork {
		if err := n.connect(network, p.Spec.ID, p.Spec.ID); err != nil {
			return err
		}
	}
	return inNetwork(network, cmd.Start)
}

// redirects are the addresses of a task on the runtimes that have no networks: one,
// or one for each container.
type redirects struct {
	plan plan
	all  []*redirect
}

// filtersOf is the socket where a container's programs hand their filters over.
func filtersOf(c execConfig) string {
	if c.Apart {
		return "filters-" + c.Name
	}
	return "filters"
}

func (h *redirects) address() (at addresses, err error) {
	at.task = h.plan.Address
	if h.plan.Spec.Network == BridgeNetwork {
		for _, c := range h.plan.Configs {
			r := &redirect{}
			own := ""
			if err = r.open(filtersOf(c)); err == nil {
				own, err = r.address()
			}
			if h.all = append(h.all, r); err != nil {
				return at, err
			}
			at.containers = append(at.containers, own)
		}
		return at, nil
	}
	r := &redirect{}
	if h.all = append(h.all, r); at.task != "" {
		r.ip, r.host = netip.MustParseAddr(at.task).As4(), true
	}
	if err = r.open(filtersOf(execConfig{})); err == nil && !r.host {
		at.task, err = r.address()
	}
	return at, err
}

func (h *redirects) close() {
	for _, r := range h.all {
		r.close()
	}
}

// listensAt says that somebody has a port at a loopback address: whoever else is on a
// host.
func listensAt(ip [4]byte, port uint16) bool {
	want := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), port)
	mapped := fmt.Sprintf("%016X%08X%s", 0, binary.NativeEndian.Uint32([]byte{0, 0, 0xff, 0xff}), want) // in an IPv6 socket
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		raw, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			// The local address, that of the other side, and the state: LISTEN, or of UDP unconnected.
			if f := strings.Fields(line); len(f) > 3 && (f[1] == want || f[1] == mapped) && (f[3] == "0A" || f[3] == "07") {
				return true
			}
		}
	}
	return false
}

// locate has the containers know where they are, and where those are that they have
// links to.
func (s *shim) locate(at addresses) {
	for i := range s.plan.Configs {
		s.plan.Configs[i].Address = at.task
		if at.containers != nil {
			s.plan.Configs[i].Address = at.containers[i]
		}
	}
	for i := range s.plan.Configs {
		for _, l := range s.plan.Configs[i].Links {
			for _, to := range s.plan.Configs {
				if to.Name == l.To {
					s.plan.Configs[i].Hosts = append(s.plan.Configs[i].Hosts, strings.Join(slices.Compact([]string{to.Address, l.Alias, l.To}), " "))
				}
			}
		}
	}
}
