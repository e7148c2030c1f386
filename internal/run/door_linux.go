package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openDoor listens at DoorAddress on a bridge, for the tasks on that bridge
// alone: the socket is bound to it, so that several stages have a door each.
func openDoor(ctx context.Context, bridge string) (Door, error) {
	link, err := netlink.LinkByName(bridge)
	if err != nil {
		return Door{}, fmt.Errorf("finding the bridge %s: %w", bridge, err)
	}
	address := ipNet(netip.PrefixFrom(DoorAddress, 32))
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: address}); err != nil && !errors.Is(err, os.ErrExist) {
		return Door{}, fmt.Errorf("giving the bridge %s the address %s: %w", bridge, DoorAddress, err)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bound error
		err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), bridge) })
		return errors.Join(err, bound)
	}}
	l, err := config.Listen(ctx, "tcp4", netip.AddrPortFrom(DoorAddress, 80).String())
	if err != nil {
		return Door{}, err
	}
	return Door{Listener: l, URL: "http://" + DoorAddress.String()}, nil
}
