package balance

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"serin/internal/clock"
)

func backend(t testing.TB, name string, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	if handler == nil {
		handler = func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) }
	}
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
}

// patience is how long a test waits for what must come. Nothing takes that long, but
// on a machine that has much else to do.
const patience = 30 * time.Second

var check = Check{Path: "/", Matcher: "200", Interval: time.Minute, Timeout: patience, Healthy: 2, Unhealthy: 2}

type bench struct {
	*Balancer
	url     string
	changed chan struct{}
}

// balancer runs a balancer with groups a and b and a rule of their weights.
func balancer(t testing.TB, a, b []netip.AddrPort, weights ...int) *bench {
	t.Helper()
	c, err := clock.New(1)
	if err != nil {
		t.Fatal(err)
	}
	x := &bench{Balancer: New(c, slog.New(slog.DiscardHandler)), changed: make(chan struct{}, 1)}
	x.Changed = func(string) {
		select {
		case x.changed <- struct{}{}:
		default:
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { x.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	x.SetGroup(Group{ID: "a", Targets: targets(a...), Check: check})
	x.SetGroup(Group{ID: "b", Targets: targets(b...), Check: check})
	x.weigh(t, weights...)
	return x
}

func targets(addrs ...netip.AddrPort) (out []Target) {
	for _, a := range addrs {
		out = append(out, Target{Addr: a})
	}
	return out
}

func (x *bench) weigh(t testing.TB, weights ...int) {
	t.Helper()
	addr, err := x.SetListener(Listener{ID: "l", Bind: "127.0.0.1:0", Rules: []Rule{
		{ID: "r", Forward: []Weighted{{"a", weights[0]}, {"b", weights[1]}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	x.url = "http://" + addr.String() + "/"
}

func (x *bench) await(t testing.TB, group string, want func(map[netip.AddrPort]Health) bool) {
	t.Helper()
	deadline := time.After(patience)
	for !want(x.Health(group)) {
		select {
		case <-x.changed:
		case <-deadline:
			t.Fatalf("group %s stays %+v", group, x.Health(group))
		}
	}
}

func all(state HealthState) func(map[netip.AddrPort]Health) bool {
	return func(h map[netip.AddrPort]Health) bool {
		for _, one := range h {
			if one.State != state {
				return false
			}
		}
		return len(h) > 0
	}
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestWeightsAreKeptWithinOneRequest(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "a", nil)}, []netip.AddrPort{backend(t, "b", nil)}, 900, 100)
	x.await(t, "a", all(Healthy))
	x.await(t, "b", all(Healthy))
	for _, w := range [][2]int{{900, 100}, {999, 1}, {0, 100}, {100, 0}, {1, 2}} {
		x.weigh(t, w[0], w[1])
		count, n := map[string]int{}, 1000
		for range n {
			_, body := get(t, x.url)
			count[body]++
		}
		want := float64(n) * float64(w[1]) / float64(w[0]+w[1])
		if diff := float64(count["b"]) - want; diff < -1 || diff > 1 {
			t.Errorf("weights %v gave %v of %d", w, count, n)
		}
	}
}

func TestRepeatingALevelDoesNotDisturbTheShares(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "a", nil)}, []netip.AddrPort{backend(t, "b", nil)}, 2, 1)
	count := map[string]int{}
	for range 30 {
		x.weigh(t, 2, 1)
		_, body := get(t, x.url)
		count[body]++
	}
	if count["b"] != 10 {
		t.Errorf("got %v", count)
	}
}

func TestATargetIsHealthyAfterItsFirstSuccessAndUnhealthyAtItsThreshold(t *testing.T) {
	var code atomic.Int64
	code.Store(200)
	addr := backend(t, "", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(int(code.Load())) })
	x := balancer(t, []netip.AddrPort{addr}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	code.Store(500)
	x.Clock.Advance(time.Minute)
	failures := func() int { // nothing tells of a failure that changes no state
		g := x.group("a")
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.targets[0].bad
	}
	for failures() == 0 {
		runtime.Gosched()
	}
	if h := x.Health("a")[addr]; h.State != Healthy {
		t.Errorf("one failure made it %+v", h)
	}
	x.Clock.Advance(time.Minute)
	x.await(t, "a", all(Unhealthy))
	if h := x.Health("a")[addr]; h.Detail != "Health checks failed with these codes: [500]" {
		t.Errorf("unhealthy because %q", h.Detail)
	}
	// The only target fails open.
	if got, _ := get(t, x.url); got != 500 {
		t.Errorf("an unhealthy group answered %d", got)
	}
}

// A listener that is removed leaves its port to the next at once.
func TestAPortIsFreeOnceItsListenerIsRemoved(t *testing.T) {
	x := balancer(t, nil, nil, 1, 0)
	spec := Listener{ID: "first", Bind: "127.0.0.1:0", Rules: []Rule{{ID: "r", Fixed: &Fixed{Code: 200}}}}
	at := x.listen(t, spec)
	for i := range 20 {
		x.RemoveListener(spec.ID)
		spec.ID, spec.Bind = fmt.Sprint("next", i), at.String()
		if got := x.listen(t, spec); got != at {
			t.Fatalf("the next listens at %s, not at %s", got, at)
		}
	}
}

// How targets are to be checked holds from now on, however long the interval was.
func TestAnotherCheckDoesNotWaitForTheOldInterval(t *testing.T) {
	at := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	x := balancer(t, []netip.AddrPort{at}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	other := check
	other.Path, other.Interval = "/bad", 10*time.Millisecond
	x.SetGroup(Group{ID: "a", Targets: targets(at), Check: other})
	x.await(t, "a", all(Unhealthy))
}

// Why a target is unhealthy is what its last check found.
func TestAnotherReasonIsTold(t *testing.T) {
	var code atomic.Int64
	code.Store(404)
	at := backend(t, "a", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(int(code.Load())) })
	x := balancer(t, nil, nil, 1, 0)
	often := check
	often.Interval = 10 * time.Millisecond
	x.SetGroup(Group{ID: "a", Targets: targets(at), Check: often})
	for _, c := range []int64{404, 503} {
		code.Store(c)
		x.await(t, "a", func(h map[netip.AddrPort]Health) bool {
			return h[at].State == Unhealthy && h[at].Detail == fmt.Sprintf("Health checks failed with these codes: [%d]", c)
		})
	}
}

func TestAnAddressThatComesBackIsAnotherTarget(t *testing.T) {
	var code atomic.Int64
	code.Store(500)
	asked := make(chan struct{}, 16)
	addr := backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(code.Load()))
		asked <- struct{}{}
	})
	x := balancer(t, []netip.AddrPort{addr}, nil, 1, 0)
	<-asked
	x.Clock.Advance(time.Minute)
	x.await(t, "a", all(Unhealthy))
	code.Store(200)
	x.SetGroup(Group{ID: "a", Targets: []Target{{Addr: addr, Generation: 2}}, Check: check})
	if h := x.Health("a")[addr]; h.State == Unhealthy || h.Generation != 2 {
		t.Errorf("its health is its predecessor's: %+v", h)
	}
	x.await(t, "a", all(Healthy))
}

func TestAGroupThatNoRuleNamesIsUnused(t *testing.T) {
	x := balancer(t, nil, nil, 1, 0)
	addr := backend(t, "c", nil)
	x.SetGroup(Group{ID: "c", Targets: targets(addr), Check: check})
	if h := x.Health("c")[addr]; h.State != Unused {
		t.Errorf("it is %+v", h)
	}
	if code, _ := get(t, x.url); code != 503 {
		t.Errorf("an empty group answered %d", code)
	}
}

func TestADrainingTargetAnswersItsLastRequest(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	slow := backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/slow" {
			return
		}
		close(started)
		<-finish
		fmt.Fprint(w, "late")
	})
	x := balancer(t, []netip.AddrPort{slow}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	answer := make(chan string, 1)
	go func() {
		_, body := get(t, x.url+"slow")
		answer <- body
	}()
	<-started
	other := backend(t, "other", nil)
	x.SetGroup(Group{ID: "a", Targets: targets(other), Check: check})
	if h := x.Health("a")[slow]; !h.Draining || h.InFlight != 1 {
		t.Errorf("the target taken out is %+v", h)
	}
	if _, body := get(t, x.url); body != "other" {
		t.Errorf("a new request went to %q", body)
	}
	close(finish)
	if got := <-answer; got != "late" {
		t.Errorf("the last request got %q", got)
	}
	x.await(t, "a", func(h map[netip.AddrPort]Health) bool { _, there := h[slow]; return !there })
}

func TestNothingIsLostWhileTargetsAndWeightsChange(t *testing.T) {
	var addrs []netip.AddrPort
	for i := range 4 {
		addrs = append(addrs, backend(t, fmt.Sprint(i), nil))
	}
	x := balancer(t, addrs[:2], addrs[2:], 1, 1)
	x.await(t, "a", all(Healthy))
	x.await(t, "b", all(Healthy))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var sent, failed atomic.Int64
	url := x.url
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				resp, err := http.Get(url)
				sent.Add(1)
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					t.Errorf("a request got %v, %v after %v", resp, err, time.Since(began))
				}
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
		})
	}
	for i := range 200 {
		x.weigh(t, i%7, 1+i%3)
		x.SetGroup(Group{ID: "a", Targets: targets(addrs[i%2]), Check: check})
		for before := sent.Load(); sent.Load() < before+3; {
			runtime.Gosched()
		}
	}
	stop()
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), sent.Load())
	}
}

func TestADeadTargetIsRetriedOnce(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	gone := netip.MustParseAddrPort(strings.TrimPrefix(dead.URL, "http://"))
	live := backend(t, "", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	x := balancer(t, []netip.AddrPort{gone, live}, nil, 1, 0)
	x.await(t, "a", func(h map[netip.AddrPort]Health) bool { return h[live].State == Healthy })
	dead.Close()
	x.Balancer.mu.RLock()
	g := x.groups["a"]
	x.Balancer.mu.RUnlock()
	g.mu.Lock()
	g.targets[0].state = Healthy // it died after its last good check
	g.mu.Unlock()
	for _, http2 := range []bool{false, true} { // a body is no reason, where no connection was made
		client := &http.Client{Transport: &http.Transport{Protocols: speaking(http2)}}
		defer client.CloseIdleConnections()
		before := x.Traffic("a").Retried
		for range 4 {
			resp, err := client.Post(x.url, "text/plain", strings.NewReader("kept"))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.Body.Close(); resp.StatusCode != 200 || string(body) != "kept" {
				t.Errorf("over %s got %s %q", resp.Proto, resp.Status, body)
			}
		}
		if x.Traffic("a").Retried == before {
			t.Errorf("no retry was counted of HTTP/2: %v", http2)
		}
	}
}

func TestRulesMatchInOrder(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "a", nil)}, nil, 1, 0)
	addr, err := x.SetListener(Listener{ID: "m", Bind: "127.0.0.1:0", Rules: []Rule{
		{ID: "1", Match: []Condition{{Field: "path-pattern", Values: []string{"/api/*"}}, {Field: "http-header", Header: "X-Test", Values: []string{"y*"}}}, Fixed: &Fixed{Code: 202, Body: "api"}},
		{ID: "2", Match: []Condition{{Field: "host-header", Values: []string{"*.example.com"}}}, Fixed: &Fixed{Code: 203, Body: "host"}},
		{ID: "d", Fixed: &Fixed{Code: 404, Body: "none"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, host, header string
		want               int
	}{{"/api/x", "h", "Yes", 202}, {"/api/x", "h", "", 404}, {"/", "www.Example.com", "", 203}, {"/", "example.com", "", 404}} {
		r, _ := http.NewRequest("GET", "http://"+addr.String()+c.path, nil)
		r.Host = c.host
		r.Header.Set("X-Test", c.header)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%+v got %d", c, resp.StatusCode)
		}
	}
}

func TestATakenPortFallsBackToAnother(t *testing.T) {
	x := balancer(t, nil, nil, 1, 0)
	taken := strings.TrimSuffix(strings.TrimPrefix(x.url, "http://"), "/")
	addr, err := x.SetListener(Listener{ID: "m", Bind: taken, Rules: []Rule{{ID: "d", Fixed: &Fixed{Code: 200}}}})
	if err != nil || addr.String() == taken || addr.Addr() != netip.MustParseAddrPort(taken).Addr() {
		t.Errorf("got %v, %v", addr, err)
	}
}
