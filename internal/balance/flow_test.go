package balance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echo is a target that says its name and then every line it is told; at the end
// of what it is told it says "bye".
func echo(t testing.TB, name string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, name)
				if _, err := io.Copy(conn, conn); err == nil {
					fmt.Fprintln(conn, "bye")
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

var tcpCheck = Check{TCP: true, Interval: time.Minute, Timeout: patience, Healthy: 2, Unhealthy: 2}

type flowBench struct {
	*bench
	addr string
}

// network runs a balancer with a TCP listener before the groups a and b.
func network(t testing.TB, a, b []netip.AddrPort, weights ...int) *flowBench {
	t.Helper()
	x := &flowBench{bench: balancer(t, nil, nil, 0, 0)}
	x.SetGroup(Group{ID: "a", Targets: targets(a...), Check: tcpCheck})
	x.SetGroup(Group{ID: "b", Targets: targets(b...), Check: tcpCheck})
	x.weigh(t, weights...)
	return x
}

func (x *flowBench) weigh(t testing.TB, weights ...int) {
	t.Helper()
	addr, err := x.SetListener(Listener{ID: "n", Bind: "127.0.0.1:0", TCP: true, Rules: []Rule{{ID: "d", Forward: []Weighted{{"a", weights[0]}, {"b", weights[1]}}}}})
	if err != nil {
		t.Fatal(err)
	}
	x.addr = addr.String()
}

type line struct {
	*net.TCPConn
	in *bufio.Reader
}

// dial opens a connection and returns it with the name that the target says.
func (x *flowBench) dial(t testing.TB) (line, string) {
	t.Helper()
	conn, err := net.Dial("tcp", x.addr)
	if errors.Is(err, syscall.ECONNRESET) {
		return line{}, "" // nobody took it, before it was told so
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	l := line{conn.(*net.TCPConn), bufio.NewReader(conn)}
	name, err := l.in.ReadString('\n')
	if err != nil {
		return l, ""
	}
	return l, strings.TrimSpace(name)
}

// says is what comes back for a line.
func (l line) says(text string) (string, error) {
	if _, err := fmt.Fprintln(l, text); err != nil {
		return "", err
	}
	back, err := l.in.ReadString('\n')
	return strings.TrimSpace(back), err
}

func TestTheWeightsOfFlowsAreKeptWithinOne(t *testing.T) {
	x := network(t, []netip.AddrPort{echo(t, "a")}, []netip.AddrPort{echo(t, "b")}, 900, 100)
	x.await(t, "a", all(Healthy))
	x.await(t, "b", all(Healthy))
	for _, w := range [][2]int{{900, 100}, {999, 1}, {0, 100}, {1, 2}} {
		x.weigh(t, w[0], w[1])
		count, n := map[string]int{}, 1000
		for range n {
			conn, name := x.dial(t)
			count[name]++
			reset(conn.TCPConn)
		}
		want := float64(n) * float64(w[1]) / float64(w[0]+w[1])
		if diff := float64(count["b"]) - want; diff < -1 || diff > 1 {
			t.Errorf("weights %v gave %v of %d", w, count, n)
		}
	}
	if got := x.ListenerFlows("n"); got.New != 4000 || got.Refused != 0 || x.GroupFlows("a").New+x.GroupFlows("b").New != 4000 {
		t.Errorf("counted %+v, %+v, %+v", got, x.GroupFlows("a"), x.GroupFlows("b"))
	}
}

func TestAnOpenFlowStaysWithItsTarget(t *testing.T) {
	x := network(t, []netip.AddrPort{echo(t, "a")}, []netip.AddrPort{echo(t, "b")}, 1, 0)
	x.await(t, "a", all(Healthy))
	old, name := x.dial(t)
	x.weigh(t, 0, 1)
	if _, other := x.dial(t); name != "a" || other != "b" {
		t.Errorf("before the shift %q, after it %q", name, other)
	}
	if back, err := old.says("still here"); back != "still here" || err != nil {
		t.Errorf("the old flow says %q, %v", back, err)
	}
	// What has come is counted a moment later.
	until(t, "the counts of both", func() bool {
		a, b := x.GroupFlows("a"), x.GroupFlows("b")
		return a.Active == 1 && b.Active == 1 && a.In == uint64(len("still here\n")) && a.Out == uint64(len("a\nstill here\n"))
	})
}

func TestOneSideMayEndBeforeTheOther(t *testing.T) {
	x := network(t, []netip.AddrPort{echo(t, "a")}, nil, 1, 0)
	conn, _ := x.dial(t)
	fmt.Fprintln(conn, "the last word")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(conn.in)
	if err != nil || string(rest) != "the last word\nbye\n" {
		t.Errorf("after its end the client read %q, %v", rest, err)
	}
	until(t, "the flow to end", func() bool { return x.GroupFlows("a").Active == 0 && x.ListenerFlows("n").Active == 0 })
}

// until spins: nothing tells of a count that changes.
func until(t testing.TB, what string, fn func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !fn(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("waited in vain for", what)
		}
	}
}

// gone is an address where nobody listens any longer.
func gone(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func (x *flowBench) set(group string, addr netip.AddrPort, state HealthState) {
	g := x.group(group)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.targets {
		if t.addr == addr {
			t.state = state
		}
	}
}

func TestATargetThatDoesNotAnswerIsPassedOverOnce(t *testing.T) {
	dead, live := gone(t), echo(t, "live")
	x := network(t, []netip.AddrPort{dead, live}, nil, 1, 0)
	x.await(t, "a", func(h map[netip.AddrPort]Health) bool { return h[live].State == Healthy })
	x.set("a", dead, Healthy) // it died after its last good check
	for range 4 {
		if _, name := x.dial(t); name != "live" {
			t.Errorf("got %q", name)
		}
	}
	if n := x.GroupFlows("a").Retried; n == 0 {
		t.Error("no retry was counted")
	}
}

func TestAFlowThatNobodyTakesIsReset(t *testing.T) {
	x := network(t, []netip.AddrPort{gone(t)}, nil, 1, 0)
	for _, weights := range [][]int{{1, 0}, {0, 1}, {0, 0}} { // a dead target, no target, no group
		x.weigh(t, weights...)
		if _, name := x.dial(t); name != "" {
			t.Errorf("weights %v answered %q", weights, name)
		}
	}
	until(t, "the count", func() bool { return x.ListenerFlows("n").Refused == 3 })
}

func TestADrainingTargetKeepsItsFlowsUntilItsTimeIsOver(t *testing.T) {
	for _, cut := range []bool{true, false} {
		old, fresh := Target{Addr: echo(t, "old"), Generation: 1}, Target{Addr: echo(t, "new"), Generation: 2}
		x := network(t, nil, nil, 1, 0)
		g := Group{ID: "a", Check: tcpCheck, Cut: cut, Targets: []Target{old}}
		x.SetGroup(g)
		conn, _ := x.dial(t)
		g.Targets, g.Draining = []Target{fresh}, []netip.AddrPort{old.Addr}
		x.SetGroup(g)
		if _, name := x.dial(t); name != "new" {
			t.Errorf("a new flow went to %q", name)
		}
		if back, err := conn.says("x"); back != "x" || err != nil {
			t.Errorf("while it drained it said %q, %v", back, err)
		}
		if h := x.Health("a")[old.Addr]; !h.Draining || h.InFlight != 1 {
			t.Errorf("it is %+v", h)
		}
		g.Draining = nil
		x.SetGroup(g)
		if _, err := conn.says("y"); (err != nil) != cut {
			t.Errorf("cut %v: after its time it said %v", cut, err)
		}
		conn.Close()
		x.await(t, "a", func(h map[netip.AddrPort]Health) bool { _, there := h[old.Addr]; return !there })
	}
}

func TestFlowsOfAnUnhealthyTargetAreCutWhereAnotherIsHealthy(t *testing.T) {
	sick, well := echo(t, "sick"), echo(t, "well")
	x := network(t, nil, nil, 1, 0)
	g := Group{ID: "a", Check: tcpCheck, CutUnhealthy: true, Targets: targets(sick)}
	x.SetGroup(g)
	x.await(t, "a", all(Healthy))
	conn, _ := x.dial(t)
	x.set("a", sick, Unhealthy)
	if back, err := conn.says("x"); back != "x" || err != nil { // it fails open
		t.Errorf("the only target said %q, %v", back, err)
	}
	g.Targets = targets(sick, well)
	x.SetGroup(g)
	x.await(t, "a", func(h map[netip.AddrPort]Health) bool { return h[well].State == Healthy })
	if _, err := conn.in.ReadString('\n'); err == nil {
		t.Error("the flow of the unhealthy target goes on")
	}
}

func TestATCPCheckAsksForNoMoreThanAConnection(t *testing.T) {
	live, dead := echo(t, "live"), gone(t)
	x := network(t, []netip.AddrPort{live, dead}, nil, 1, 0)
	x.await(t, "a", func(h map[netip.AddrPort]Health) bool { return h[live].State == Healthy })
	for x.Health("a")[dead].State != Unhealthy {
		x.Clock.Advance(time.Minute)
		runtime.Gosched()
	}
	if h := x.Health("a")[dead]; h.Detail != "Health checks failed" {
		t.Errorf("it is unhealthy because %q", h.Detail)
	}
}

func TestAListenerThatGoesTakesNoNewFlows(t *testing.T) {
	x := network(t, []netip.AddrPort{echo(t, "a")}, nil, 1, 0)
	conn, _ := x.dial(t)
	server := x.listeners["n"].server
	x.RemoveListener("n")
	until(t, "the socket to close", func() bool {
		c, err := net.Dial("tcp", x.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if back, err := conn.says("x"); back != "x" || err != nil {
		t.Errorf("the open flow said %q, %v", back, err)
	}
	server.Close()
	if _, err := conn.says("y"); err == nil {
		t.Error("a closed server carries on")
	}
}

func TestABalancerThatStopsCutsWhatIsStillOpen(t *testing.T) {
	x := network(t, []netip.AddrPort{echo(t, "a")}, nil, 1, 0)
	conn, _ := x.dial(t)
	x.closeAll()
	if _, err := conn.says("x"); err == nil {
		t.Error("it carries on")
	}
}
