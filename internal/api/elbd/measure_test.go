package elbd

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"serin/internal/arn"
	"serin/internal/balance"
	"serin/internal/clock"
	"serin/internal/metric"
	"serin/internal/store"
)

var here = arn.Scope{Account: "111111111111", Region: "eu-west-1"}

func named(path string) string { return here.For("elasticloadbalancing", path).String() }

var (
	lbARN = named("loadbalancer/app/web/0123456789abcdef")
	lARN  = named("listener/app/web/0123456789abcdef/1111111111111111")
	blue  = named("targetgroup/blue/aaaaaaaaaaaaaaaa")
	green = named("targetgroup/green/bbbbbbbbbbbbbbbb")
)

// world is a load balancer whose listener forwards everything to blue, green
// having no share, but for /fixed.
func world(t *testing.T) (a *API, url string) {
	t.Helper()
	c, err := clock.New(1)
	if err != nil {
		t.Fatal(err)
	}
	s := store.Ephemeral()
	a = New(s, c, balance.New(c, slog.New(slog.DiscardHandler)), Deps{Certificates: noCertificates{store.NewTable[string](s, "none")}})
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	addr := netip.MustParseAddrPort(strings.TrimPrefix(server.URL, "http://"))
	a.write(t, func(tx *store.Tx) {
		a.balancers.Put(tx, keyOf(lbARN), loadBalancer{ARN: lbARN, Name: "web", Address: "127.0.0.1"})
		a.listeners.Put(tx, keyOf(lARN), listener{ARN: lARN, LoadBalancer: lbARN})
		for i, r := range []rule{
			{Priority: 1, Conditions: []balance.Condition{{Field: "path-pattern", Values: []string{"/fixed"}}}, Fixed: &balance.Fixed{Code: 503}},
			{Forward: []weighted{{blue, 1}, {green, 0}}},
		} {
			r.ARN, r.Listener = named(fmt.Sprint("listener-rule/app/web/0123456789abcdef/1111111111111111/", i)), lARN
			a.rules.Put(tx, keyOf(r.ARN), r)
		}
		for _, g := range []targetGroup{{ARN: blue, Targets: []target{{ID: addr.Addr().String(), Port: int32(addr.Port())}}}, {ARN: green}} {
			g.HealthPath, g.Matcher, g.Interval, g.Timeout, g.Healthy, g.Unhealthy = "/", "200", 30, 5, 5, 2
			g.Attributes = map[string]string{drainAttribute: "300"}
			a.groups.Put(tx, keyOf(g.ARN), g)
		}
	})
	var at bound
	s.View(func(tx *store.Tx) { at, _ = a.bound.Get(tx, keyOf(lARN)) })
	t.Cleanup(func() { a.balance.RemoveListener(lARN) })
	return a, "http://" + at.Address
}

func (a *API) write(t *testing.T, fn func(*store.Tx)) {
	t.Helper()
	feed := a.store.Follow(a.wake, a.balancers, a.listeners, a.rules, a.groups)
	defer feed.Stop()
	if err := a.store.Update(func(tx *store.Tx) error { fn(tx); return nil }); err != nil {
		t.Fatal(err)
	}
	w := work{map[string]bool{}, map[string]bool{}}
	a.add(w, feed.Take())
	if err := a.sync(w, map[string]time.Time{}); err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, url string, n int) {
	t.Helper()
	for range n {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
}

// told puts metrics into lines: the name, whose, how many, sum, least, greatest
// and unit. Times and bytes are nobody's to know.
func told(t *testing.T, data []metric.Datum, at time.Time) []string {
	t.Helper()
	lines := map[string]bool{}
	for _, d := range data {
		whose, namespace := "", "AWS/ApplicationELB"
		if strings.HasPrefix(d.Dimensions[len(d.Dimensions)-1].Value, "net/") {
			namespace = "AWS/NetworkELB"
		}
		if d.Namespace != namespace || !d.At.Equal(at) {
			t.Errorf("%s is of %s at %v", d.Name, d.Namespace, d.At)
		}
		for _, dim := range d.Dimensions {
			whose += fmt.Sprintf(" %s=%s", dim.Name, dim.Value)
		}
		what := fmt.Sprintf("%g %g %g %g", d.Set.Count, d.Set.Sum, d.Set.Min, d.Set.Max)
		if d.Name == "TargetResponseTime" || d.Name == "ProcessedBytes" {
			what = fmt.Sprintf("%g", d.Set.Count)
		}
		line := fmt.Sprintf("%s%s: %s %s", d.Name, whose, what, d.Unit)
		if lines[line] {
			t.Errorf("told twice: %s", line)
		}
		lines[line] = true
	}
	return slices.Sorted(maps.Keys(lines))
}

func compare(t *testing.T, got []string, want string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(want), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func TestAMinuteIsToldInCloudWatchsWords(t *testing.T) {
	a, url := world(t)
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	compare(t, told(t, a.Measure(at)[here], at), `
		HealthyHostCount TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 1 0 0 0 Count
		UnHealthyHostCount TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 1 0 0 0 Count`)

	ask(t, url+"/", 3)
	ask(t, url+"/broken", 2)
	ask(t, url+"/fixed", 1)
	http.DefaultClient.CloseIdleConnections()
	compare(t, told(t, a.Measure(at)[here], at), `
		RequestCount LoadBalancer=app/web/0123456789abcdef: 5 5 1 1 Count
		HTTPCode_Target_2XX_Count LoadBalancer=app/web/0123456789abcdef: 3 3 1 1 Count
		HTTPCode_Target_5XX_Count LoadBalancer=app/web/0123456789abcdef: 2 2 1 1 Count
		TargetResponseTime LoadBalancer=app/web/0123456789abcdef: 5 Seconds
		HTTPCode_ELB_5XX_Count LoadBalancer=app/web/0123456789abcdef: 1 1 1 1 Count
		HTTPCode_ELB_503_Count LoadBalancer=app/web/0123456789abcdef: 1 1 1 1 Count
		HTTP_Fixed_Response_Count LoadBalancer=app/web/0123456789abcdef: 1 1 1 1 Count
		ActiveConnectionCount LoadBalancer=app/web/0123456789abcdef: 1 2 2 2 Count
		NewConnectionCount LoadBalancer=app/web/0123456789abcdef: 1 2 2 2 Count
		ProcessedBytes LoadBalancer=app/web/0123456789abcdef: 1 Bytes
		RequestCount TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 5 5 1 1 Count
		HTTPCode_Target_2XX_Count TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 3 3 1 1 Count
		HTTPCode_Target_5XX_Count TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 2 2 1 1 Count
		TargetResponseTime TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 5 Seconds
		RequestCountPerTarget TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 1 5 5 5 Count
		RequestCountPerTarget TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa: 1 5 5 5 Count
		HealthyHostCount TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 1 0 0 0 Count
		UnHealthyHostCount TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 1 0 0 0 Count
		RequestCount TargetGroup=targetgroup/green/bbbbbbbbbbbbbbbb LoadBalancer=app/web/0123456789abcdef: 1 0 0 0 Count
		RequestCountPerTarget TargetGroup=targetgroup/green/bbbbbbbbbbbbbbbb LoadBalancer=app/web/0123456789abcdef: 1 0 0 0 Count
		RequestCountPerTarget TargetGroup=targetgroup/green/bbbbbbbbbbbbbbbb: 1 0 0 0 Count`)
}

func TestWhatIsGoneHasItsLastMinute(t *testing.T) {
	a, url := world(t)
	ask(t, url+"/", 4)
	a.write(t, func(tx *store.Tx) {
		for _, r := range a.rulesOf(tx, lARN) {
			a.rules.Delete(tx, keyOf(r.ARN))
		}
		a.listeners.Delete(tx, keyOf(lARN))
		a.balancers.Delete(tx, keyOf(lbARN))
		a.groups.Delete(tx, keyOf(blue))
	})
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	lines := told(t, a.Measure(at)[here], at)
	for _, want := range []string{
		"HTTPCode_Target_2XX_Count TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa LoadBalancer=app/web/0123456789abcdef: 4 4 1 1 Count",
		"HTTPCode_Target_2XX_Count LoadBalancer=app/web/0123456789abcdef: 4 4 1 1 Count",
		"RequestCountPerTarget TargetGroup=targetgroup/blue/aaaaaaaaaaaaaaaa: 1 4 4 4 Count",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("not told: %s", want)
		}
	}
	if all := strings.Join(lines, "\n"); strings.Contains(all, "HostCount") || strings.Contains(all, "green") {
		t.Errorf("told of what nobody forwards to:\n%s", all)
	}
	http.DefaultClient.CloseIdleConnections()
	for left := 1; left > 0; { // its connections end meanwhile
		left = len(a.Measure(at)[here])
	}
}

// noCertificates is a store of certificates in which there are none.
type noCertificates struct{ table *store.Table[string] }

func (noCertificates) Certificate(*store.Tx, string) (tls.Certificate, bool) {
	return tls.Certificate{}, false
}

func (n noCertificates) Table() store.AnyTable { return n.table }

func TestAMinuteOfANetworkLoadBalancer(t *testing.T) {
	a, _ := world(t)
	netARN, flowARN, flows := named("loadbalancer/net/edge/0123456789abcdef"), named("listener/net/edge/0123456789abcdef/2222222222222222"), named("targetgroup/flows/cccccccccccccccc")
	says, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { says.Close() })
	go func() {
		for {
			conn, err := says.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "hello")
			conn.Close()
		}
	}()
	port := int32(says.Addr().(*net.TCPAddr).Port)
	a.write(t, func(tx *store.Tx) {
		a.balancers.Put(tx, keyOf(netARN), loadBalancer{ARN: netARN, Name: "edge", Type: network, Address: "127.0.0.1"})
		a.listeners.Put(tx, keyOf(flowARN), listener{ARN: flowARN, LoadBalancer: netARN, Protocol: overTCP})
		r := named("listener-rule/net/edge/0123456789abcdef/2222222222222222/0")
		a.rules.Put(tx, keyOf(r), rule{ARN: r, Listener: flowARN, Forward: []weighted{{flows, 1}}})
		a.groups.Put(tx, keyOf(flows), targetGroup{ARN: flows, Protocol: overTCP, HealthProtocol: overTCP, Interval: 30, Timeout: 5, Healthy: 5, Unhealthy: 2,
			Type: "ip", Targets: []target{{ID: "127.0.0.1", Port: port}}})
	})
	t.Cleanup(func() { a.balance.RemoveListener(flowARN) })
	var at bound
	a.store.View(func(tx *store.Tx) { at, _ = a.bound.Get(tx, keyOf(flowARN)) })
	minute := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	of := func() []string {
		return slices.DeleteFunc(told(t, a.Measure(minute)[here], minute), func(line string) bool { return !strings.Contains(line, "=net/") })
	}
	hosts := `
		HealthyHostCount TargetGroup=targetgroup/flows/cccccccccccccccc LoadBalancer=net/edge/0123456789abcdef: 1 0 0 0 Count
		UnHealthyHostCount TargetGroup=targetgroup/flows/cccccccccccccccc LoadBalancer=net/edge/0123456789abcdef: 1 0 0 0 Count`
	quiet := hosts + `
		ActiveFlowCount LoadBalancer=net/edge/0123456789abcdef: 1 0 0 0 Count
		NewFlowCount LoadBalancer=net/edge/0123456789abcdef: 1 0 0 0 Count
		ProcessedBytes LoadBalancer=net/edge/0123456789abcdef: 1 Bytes`
	compare(t, of(), quiet)
	for range 3 { // one after another
		conn, err := net.Dial("tcp", at.Address)
		if err != nil {
			t.Fatal(err)
		}
		if said, err := io.ReadAll(conn); err != nil || string(said) != "hello" {
			t.Fatalf("%q, %v", said, err)
		}
		conn.Close()
		for a.balance.ListenerFlows(flowARN).Active > 0 {
			runtime.Gosched()
		}
	}
	compare(t, of(), hosts+`
		ActiveFlowCount LoadBalancer=net/edge/0123456789abcdef: 1 1 1 1 Count
		ActiveFlowCount_TCP LoadBalancer=net/edge/0123456789abcdef: 1 1 1 1 Count
		NewFlowCount LoadBalancer=net/edge/0123456789abcdef: 1 3 3 3 Count
		NewFlowCount_TCP LoadBalancer=net/edge/0123456789abcdef: 1 3 3 3 Count
		ProcessedBytes LoadBalancer=net/edge/0123456789abcdef: 1 Bytes
		ProcessedBytes_TCP LoadBalancer=net/edge/0123456789abcdef: 1 15 15 15 Bytes`)
	compare(t, of(), quiet)
}

func TestRedirectsAreTold(t *testing.T) {
	m := minute{at: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), balancers: map[string]*carried{}, data: map[arn.Scope][]metric.Datum{}}
	m.add(balance.Load{Listener: lARN, Own: map[int]uint64{301: 2}, Redirects: 2})
	m.report(lbARN, m.balancers[lbARN].data(), metric.Dimension{Name: "LoadBalancer", Value: last(lbARN)})
	compare(t, told(t, m.data[here], m.at), `
		RequestCount LoadBalancer=app/web/0123456789abcdef: 1 0 0 0 Count
		HTTPCode_ELB_3XX_Count LoadBalancer=app/web/0123456789abcdef: 2 2 1 1 Count
		HTTP_Redirect_Count LoadBalancer=app/web/0123456789abcdef: 2 2 1 1 Count`)
}
