package run

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// nativeNet is the bridge of one runtime and the addresses on it.
type nativeNet struct {
	bridge  string
	closed  error        // why tasks cannot reach beyond this machine
	gateway netip.Prefix // the bridge's address, with the length of its network
	mu      sync.Mutex
	leased  map[string]netip.Addr // task, or host or container → address
	hosts   map[string]*netHost
	last    netip.Addr // the one given out last
}

// candidates are networks that a machine rarely uses; the first that none of
// its routes touches is taken. Not 172.31.0.0/16, though tasks in a default VPC
// live there: on an EC2 instance it would cut the machine off.
var candidates = []string{"10.213.", "10.214.", "10.215.", "10.216.", "10.88.", "192.168."}

func newNativeNet(dir string) (*nativeNet, error) {
	sum := sha256.Sum256([]byte(dir))
	n := &nativeNet{bridge: "serin" + hex.EncodeToString(sum[:4]), leased: map[string]netip.Addr{}, hosts: map[string]*netHost{}}
	link, err := netlink.LinkByName(n.bridge)
	if err == nil { // left by an earlier program, with its tasks on it
		addrs, err := dumped(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) })
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
		err = netlink.LinkSetAlias(link, dir) // whose it is, if it is left
	}
	if err == nil {
		err = netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(n.gateway)})
	}
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		n.close(true)
		return nil, fmt.Errorf("setting up the tasks' bridge: %w", err)
	}
	n.closed = openEgress(n.bridge, n.gateway)
	return n, nil
}

// dumped asks the kernel for a list again as long as it changes while it is told:
// every program's interfaces, addresses and routes are in it.
func dumped[T any](list func() ([]T, error)) (all []T, err error) {
	for range 100 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// freeNetwork finds a /24 that overlaps no route of the machine.
func freeNetwork(start byte) (netip.Prefix, error) {
	routes, err := dumped(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
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

// lease gives a task, a host or a container its address, the same one again.
func (n *nativeNet) lease(id string) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.leased[id]; ok {
		return a, nil
	}
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

// connect lays a cable of a name from the bridge into a network, for the address that
// is leased as id.
func (n *nativeNet) connect(network *os.File, id, name string) error {
	n.mu.Lock()
	address := n.leased[id]
	n.mu.Unlock()
	bridge, err := netlink.LinkByName(n.bridge)
	if err != nil {
		return fmt.Errorf("finding the tasks' bridge: %w", err)
	}
	sum := sha256.Sum256([]byte(n.bridge + name))
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "sv"+hex.EncodeToString(sum[:6]), bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(network.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("making the task's network: %w", err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("making the task's network: %w", err)
	}
	in, err := netlink.NewHandleAt(netns.NsHandle(network.Fd()))
	if err != nil {
		return fmt.Errorf("entering the task's network: %w", err)
	}
	defer in.Close()
	link, err := in.LinkByName("eth0")
	if err == nil {
		err = in.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(address, n.gateway.Bits()))})
	}
	if err == nil {
		err = in.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("setting up the task's eth0: %w", err)
	}
	if err := in.RouteAdd(&netlink.Route{Gw: n.gateway.Addr().AsSlice()}); err != nil {
		return fmt.Errorf("setting the task's route: %w", err)
	}
	return nil
}

// close lets go of the hosts' networks, and removes the bridge when no task is on it
// any more.
func (n *nativeNet) close(empty bool) error {
	n.mu.Lock()
	for _, h := range n.hosts {
		if h.network != nil {
			h.network.Close()
		}
	}
	clear(n.hosts)
	n.mu.Unlock()
	if !empty {
		return nil
	}
	link, err := netlink.LinkByName(n.bridge)
	if err != nil {
		return nil
	}
	if err = closeEgress(n.bridge); n.closed != nil {
		err = nil // as much as there was
	}
	return errors.Join(err, netlink.LinkDel(link))
}
