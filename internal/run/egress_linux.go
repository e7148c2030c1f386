package run

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The way out of a bridge: what its tasks send beyond this machine carries the
// machine's address, as on Docker's bridges. Rules are in a table of the bridge's
// own, so that they go with it; where another program drops what is forwarded, as
// Docker does, they are in its chain, too, for a packet must pass all of them.

// openEgress lets a bridge's network out.
func openEgress(bridge string, network netip.Prefix) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("forwarding what tasks send: %w", err)
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("letting tasks out: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: bridge})
	chain := c.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	from := network.Masked()
	mask := [4]byte{}
	for i := range from.Bits() {
		mask[i/8] |= 1 << (7 - i%8)
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append([]expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, // the source
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask[:], Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: from.Addr().AsSlice()},
	}, append(throughInterface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, bridge), &expr.Masq{})...)})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("letting tasks out: %w", err)
	}
	return passDroppers(c, bridge)
}

// throughInterface matches packets by the interface that they come or go by.
func throughInterface(by expr.MetaKey, is expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: by, Register: 1}, &expr.Cmp{Op: is, Register: 1, Data: padded}}
}

// droppers are the chains of others that drop what is forwarded unless it is said
// otherwise.
func droppers(c *nftables.Conn) (list []*nftables.Chain) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil
	}
	for _, chain := range chains {
		if chain.Hooknum != nil && *chain.Hooknum == *nftables.ChainHookForward && chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
			list = append(list, chain)
		}
	}
	return list
}

// passDroppers accepts what a bridge's tasks send, and the answers.
func passDroppers(c *nftables.Conn, bridge string) error {
	for _, chain := range droppers(c) {
		for _, by := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			match := throughInterface(by, expr.CmpOpEq, bridge)
			if by == expr.MetaKeyOIFNAME { // into the bridge only what was asked for
				known := []byte{byte(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), 0, 0, 0}
				match = append(match, &expr.Ct{Register: 1, Key: expr.CtKeySTATE},
					&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: known, Xor: make([]byte, 4)}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
			}
			c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, UserData: []byte(bridge), Exprs: append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("letting tasks out: %w", err)
	}
	return nil
}

// closeEgress takes a bridge's rules away.
func closeEgress(bridge string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("closing the way out of %s: %w", bridge, err)
	}
	for _, chain := range droppers(c) {
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			continue
		}
		for _, r := range rules {
			if strings.TrimRight(string(r.UserData), "\x00") == bridge {
				if err := c.DelRule(r); err != nil {
					return fmt.Errorf("closing the way out of %s: %w", bridge, err)
				}
			}
		}
	}
	c.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: bridge})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("closing the way out of %s: %w", bridge, err)
	}
	return nil
}
