package run

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

// Other programs make interfaces and give them addresses while a bridge is made or
// looked for.
func TestAMachinesListsMayChangeWhileTheyAreRead(t *testing.T) {
	ns := ownNetwork(t)
	other, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	bridge := func(name string) *netlink.Bridge {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return &netlink.Bridge{LinkAttrs: attrs}
	}
	for n := range 100 {
		if err := other.LinkAdd(bridge(fmt.Sprint("d", n))); err != nil {
			t.Fatal(err)
		}
	}
	over := make(chan struct{})
	var changing sync.WaitGroup
	defer changing.Wait()
	defer close(over)
	changing.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-over:
				return
			default:
			}
			link := bridge(fmt.Sprint("e", n))
			if err := other.LinkAdd(link); err != nil {
				t.Error(err)
				return
			}
			other.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("198.18.78.1/24"))})
			other.LinkSetUp(link)
			other.LinkDel(link)
		}
	})
	for range 200 {
		if err := leftBridges(func(string) *Leftover { return &Leftover{} }); err != nil {
			t.Fatal(err)
		}
		if _, err := freeNetwork(0); err != nil {
			t.Fatal(err)
		}
	}
}
