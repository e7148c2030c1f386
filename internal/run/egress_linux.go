package run

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
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
	return []expr.Any{&expr.Meta{Key: by, Register: 1}, &expr.Cmp{Op: is, Register: 1, Data: append([]byte(name), 0)}}
}

// forwards are the chains of others through which what is forwarded goes.
func forwards(c *nftables.Conn) (list []*nftables.Chain) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil
	}
	for _, chain := range chains {
		if chain.Hooknum != nil && *chain.Hooknum == *nftables.ChainHookForward {
			list = append(list, chain)
		}
	}
	return list
}

// passDroppers accepts what a bridge's tasks send, and the answers, in chains that
// drop unless it is said otherwise, behind what others say there: what they drop on
// purpose stays dropped. The rules are as iptables writes its own, or it would not read
// the chain any more, and Docker with it.
func passDroppers(c *nftables.Conn, bridge string) error {
	note := xt.Comment(bridge)
	answers := &expr.Match{Name: "conntrack", Rev: 3, Info: &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{
		ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: uint16(xt.ConntrackState)}, StateMask: establishedOrRelated,
	}}}
	for _, chain := range forwards(c) {
		if chain.Policy == nil || *chain.Policy != nftables.ChainPolicyDrop {
			continue
		}
		for by, also := range map[expr.MetaKey][]expr.Any{expr.MetaKeyIIFNAME: nil, expr.MetaKeyOIFNAME: {answers}} { // into the bridge only what was asked for
			match := append(throughInterface(by, expr.CmpOpEq, bridge), also...)
			c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: append(match, &expr.Match{Name: "comment", Info: &note}, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("letting tasks out: %w", err)
	}
	return nil
}

// establishedOrRelated are the bits of xt_conntrack.h.
const establishedOrRelated = 1<<1 | 1<<2

// isOf reports whether a rule is a bridge's.
func isOf(r *nftables.Rule, bridge string) bool {
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		m, ok := e.(*expr.Match)
		if !ok || m.Name != "comment" {
			return false
		}
		note, ok := m.Info.(*xt.Comment)
		return ok && string(*note) == bridge
	})
}

// closeEgress takes a bridge's rules away.
func closeEgress(bridge string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("closing the way out of %s: %w", bridge, err)
	}
	for _, chain := range forwards(c) { // whatever their policy is by now
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			continue
		}
		for _, r := range rules {
			if isOf(r, bridge) {
				if err := c.DelRule(r); err != nil {
					return fmt.Errorf("closing the way out of %s: %w", bridge, err)
				}
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("closing the way out of %s: %w", bridge, err)
	}
	c.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: bridge})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("closing the way out of %s: %w", bridge, err)
	}
	return nil
}
