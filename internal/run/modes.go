package run

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
)

// portTaken says that a port of a host is another's, in Docker's words.
type portTaken uint16

func (p portTaken) Error() string {
	return fmt.Sprintf("Bind for 0.0.0.0:%d failed: port is already allocated", uint16(p))
}

// hostAddress is where a simulated host is on this machine's loopback interface, on
// the runtimes that have no network for it: always the same address, so that nobody
// needs to remember it, out of so many that no two meet.
func hostAddress(dir, host string) netip.Addr {
	sum := sha256.Sum256([]byte(dir + "\x00" + host))
	return netip.AddrFrom4([4]byte{127, 128 | sum[0], sum[1], 1 + sum[2]%254})
}
