package run

import (
	"os"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
)

// ownNetwork gives a test a network that nobody else has.
func ownNetwork(t *testing.T) netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network of its own is root's to make")
	}
	runtime.LockOSThread() // the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// What other programs drop on purpose, as Docker between its networks and whoever fills
// DOCKER-USER, stays dropped: a bridge's rules come behind theirs.
func TestOthersRulesComeBeforeABridges(t *testing.T) {
	ns := ownNetwork(t)
	c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		t.Fatal(err)
	}
	drop := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	chain := c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := passDroppers(c, "serin1"); err != nil {
		t.Fatal(err)
	}
	rules, err := c.GetRules(table, chain)
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) != 3 || isOf(rules[0], "serin1") || !isOf(rules[1], "serin1") || !isOf(rules[2], "serin1") {
		t.Errorf("of %d rules the first is the bridge's: %v", len(rules), isOf(rules[0], "serin1"))
	}
}
