package balance

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"serin/internal/clock"
	"serin/internal/memnet"
)

// coded answers with the code that the path names.
func coded(t testing.TB) netip.AddrPort {
	return backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if code, err := strconv.Atoi(r.URL.Path[1:]); err == nil {
			w.WriteHeader(code)
		}
	})
}

// measured is the load of the listener l since the last call.
func (x *bench) measured(t testing.TB) Load {
	t.Helper()
	for _, l := range x.Measure() {
		if l.Listener == "l" {
			return l
		}
	}
	t.Fatal("nothing was measured of the listener")
	return Load{}
}

func TestALoadCountsWhatWasAnsweredAndByWhom(t *testing.T) {
	x := balancer(t, []netip.AddrPort{coded(t)}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	addr, err := x.SetListener(Listener{ID: "l", Bind: "127.0.0.1:0", Rules: []Rule{
		{ID: "f", Match: []Condition{{Field: "path-pattern", Values: []string{"/fixed"}}}, Fixed: &Fixed{Code: 403, Body: "no"}},
		{ID: "e", Match: []Condition{{Field: "path-pattern", Values: []string{"/empty"}}}, Forward: []Weighted{{"b", 1}}},
		{ID: "g", Match: []Condition{{Field: "path-pattern", Values: []string{"/gone"}}}, Forward: []Weighted{{"gone", 1}}},
		{ID: "a", Match: []Condition{{Field: "path-pattern", Values: []string{"/?0?"}}}, Forward: []Weighted{{"a", 1}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	x.measured(t)
	for path, n := range map[string]int{"200": 3, "201": 1, "301": 2, "404": 4, "500": 1, "503": 2, "fixed": 5, "empty": 2, "gone": 1, "nowhere": 3} {
		for range n {
			r, _ := http.NewRequest(http.MethodGet, "http://"+addr.String()+"/"+path, nil)
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	l := x.measured(t)
	if !maps.Equal(l.Own, map[int]uint64{403: 5, 503: 3, 404: 3}) || l.Fixed != 5 {
		t.Errorf("its own answers are %v, %d of them fixed", l.Own, l.Fixed)
	}
	g := l.Groups["a"]
	if len(l.Groups) != 1 || g.Requests != 13 || g.Codes != [6]uint64{2: 4, 3: 2, 4: 4, 5: 3} || g.Times.Count != 13 || g.Failed != 0 {
		t.Errorf("the groups had %+v", l.Groups)
	}
	if l = x.measured(t); len(l.Own)+len(l.Groups) > 0 || l.Fixed+l.Opened > 0 { // its last bytes are counted when they have been written
		t.Errorf("it was counted twice: %+v", l)
	}
}

func TestConnectionsAndBytesAreCounted(t *testing.T) {
	x := balancer(t, []netip.AddrPort{coded(t)}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range 3 {
		resp, err := client.Get(x.url + "200")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	l := x.measured(t)
	if l.Opened != 2 || l.Open != 2 { // one of the client's, one to the target; health checks are not load
		t.Errorf("connections: %+v", l)
	}
	client.CloseIdleConnections()
	bytes := l.Bytes
	for l.Open > 1 { // the connection to the target is kept
		runtime.Gosched()
		l = x.measured(t)
		bytes += l.Bytes
	}
	if one := bytes / 3; bytes%3 != 0 || one < 100 || one > 1000 {
		t.Errorf("three equal requests were %d bytes", bytes)
	}
	body := strings.NewReader(strings.Repeat("x", 1<<20))
	resp, err := client.Post(x.url+"200", "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	l = x.measured(t)
	until(t, "the bytes", func() bool { // they are counted when they were written
		more := x.measured(t)
		l.Bytes, l.Opened = l.Bytes+more.Bytes, l.Opened+more.Opened
		return l.Bytes >= 1<<20
	})
	if l.Bytes < 1<<20 || l.Bytes > 1<<20+2000 || l.Opened != 1 {
		t.Errorf("a mebibyte was %d bytes over %d new connections", l.Bytes, l.Opened)
	}
}

func TestATimeIsFromTheEndOfTheRequestToTheHeadOfTheAnswer(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[http2], func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{Protocols: speaking(http2)}}
			defer client.CloseIdleConnections()
			timed(t, client)
		})
	}
}

func timed(t *testing.T, client *http.Client) {
	var worked atomic.Int64
	finish := make(chan struct{})
	addr := backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			return
		}
		io.Copy(io.Discard, r.Body)
		began := time.Now()
		for time.Since(began) < 3*time.Millisecond {
			runtime.Gosched()
		}
		worked.Store(int64(time.Since(began)))
		w.(http.Flusher).Flush()
		<-finish // the rest of the answer is not waited for
	})
	x := balancer(t, []netip.AddrPort{addr}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	x.measured(t)
	out, in := io.Pipe()
	var sent time.Time
	go func() {
		for began := time.Now(); time.Since(began) < 30*time.Millisecond; {
			fmt.Fprint(in, "slowly ")
		}
		sent = time.Now()
		in.Close()
	}()
	resp, err := client.Post(x.url, "text/plain", out)
	if err != nil {
		t.Fatal(err)
	}
	waited := time.Since(sent)
	close(finish)
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	took := x.measured(t).Groups["a"].Times
	if took.Count != 1 || took.Sum < time.Duration(worked.Load()).Seconds()*0.9 || took.Sum > waited.Seconds() {
		t.Errorf("the target worked %v and its client waited %v; measured %vs", time.Duration(worked.Load()), waited, took.Sum)
	}
}

func TestARequestUnderWayIsInTwoMeasurements(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	slow := backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-finish
		}
	})
	x := balancer(t, []netip.AddrPort{slow}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	done := make(chan struct{})
	go func() { get(t, x.url+"slow"); close(done) }()
	<-started
	if g := x.measured(t).Groups["a"]; g.Requests != 1 || g.Codes != [6]uint64{} || g.Times.Count != 0 {
		t.Errorf("before its answer: %+v", g)
	}
	// Meanwhile everything goes: target, group and listener.
	x.SetGroup(Group{ID: "a", Check: check})
	x.RemoveGroup("a")
	x.RemoveListener("l")
	for range 3 {
		x.Measure() // it is not forgotten
	}
	close(finish)
	<-done
	if g := x.measured(t).Groups["a"]; g.Requests != 0 || g.Codes != [6]uint64{2: 1} || g.Times.Count != 1 {
		t.Errorf("after its answer: %+v", g)
	}
	for len(x.loads) > 0 { // until its connections have ended; then it is forgotten
		x.Measure()
		runtime.Gosched()
	}
}

func TestAClientThatGoesAndATargetThatIsDeadAreCounted(t *testing.T) {
	started := make(chan struct{})
	addr := backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-r.Context().Done()
		}
	})
	x := balancer(t, []netip.AddrPort{addr}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	ctx, gone := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, x.url+"slow", nil)
	go func() { <-started; gone() }()
	if _, err := http.DefaultClient.Do(r); err == nil {
		t.Fatal("it was answered")
	}
	total := map[int]uint64{}
	for total[460] == 0 {
		for code, n := range x.measured(t).Own {
			total[code] += n
		}
		runtime.Gosched()
	}
	dead := httptest.NewServer(http.NotFoundHandler())
	at := netip.MustParseAddrPort(strings.TrimPrefix(dead.URL, "http://"))
	dead.Close()
	x.SetGroup(Group{ID: "a", Targets: targets(at), Check: check})
	if code, _ := get(t, x.url); code != http.StatusBadGateway {
		t.Errorf("a dead target gives %d", code)
	}
	l := x.measured(t)
	if g := l.Groups["a"]; g.Requests != 1 || g.Failed != 1 || g.Codes != [6]uint64{} || !maps.Equal(l.Own, map[int]uint64{502: 1}) {
		t.Errorf("measured %+v", l)
	}
}

func TestNothingIsLostBetweenMeasurements(t *testing.T) {
	x := balancer(t, []netip.AddrPort{coded(t)}, []netip.AddrPort{coded(t)}, 1, 1)
	x.await(t, "a", all(Healthy))
	x.await(t, "b", all(Healthy))
	x.measured(t)
	const clients, each = 8, 200
	var left atomic.Int64
	left.Store(clients)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			defer left.Add(-1)
			for range each {
				get(t, x.url+"204")
			}
		})
	}
	var requests, answers uint64
	var times float64
	for last := false; !last; runtime.Gosched() {
		last = left.Load() == 0
		for _, g := range x.measured(t).Groups {
			requests, answers, times = requests+g.Requests, answers+g.Codes[2], times+g.Times.Count
		}
	}
	wg.Wait()
	if requests != clients*each || answers != clients*each || times != clients*each {
		t.Errorf("%d requests, %d answers, %v times; want %d", requests, answers, times, clients*each)
	}
}

// What a balancer keeps for its next request is its own: bubbles share nothing.
func TestABalancerSharesNothingWithAnother(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			c, err := clock.New(1)
			if err != nil {
				t.Fatal(err)
			}
			b, network := New(c, slog.New(slog.DiscardHandler)), memnet.New()
			b.Network = network
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- b.Run(ctx) }()
			socket, err := network.Listen("127.0.0.1:81")
			if err != nil {
				t.Fatal(err)
			}
			target := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })}
			go target.Serve(socket)
			b.SetGroup(Group{ID: "a", Targets: targets(netip.MustParseAddrPort("127.0.0.1:81")), Check: check})
			addr, err := b.SetListener(Listener{ID: "l", Bind: "127.0.0.1:80", Rules: []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}})
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return network.Dial(ctx, addr.String()) }}}
			body := strings.Repeat("x", 1<<20) // which is sent beside the answer
			resp, err := client.Post("http://"+addr.String()+"/", "text/plain", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if said, err := io.ReadAll(resp.Body); err != nil || string(said) != body {
				t.Errorf("%d bytes came back, %v", len(said), err)
			}
			resp.Body.Close()
			client.CloseIdleConnections()
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			target.Close()
			time.Sleep(time.Minute) // net/http lingers with what it closes
		})
	}
}

// A header that is too large is answered before it is read: the balancer ends its
// own side first, whatever the network.
func TestAnAnswerEndsItsSideOnAnyNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := clock.New(1)
		if err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		b := New(c, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})))
		network := memnet.New()
		b.Network = network
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		addr, err := b.SetListener(Listener{ID: "l", Bind: "127.0.0.1:80", Rules: []Rule{{ID: "r", Fixed: &Fixed{Code: 200, Body: "ok"}}}})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := network.Dial(ctx, addr.String())
		if err != nil {
			t.Fatal(err)
		}
		go conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20)))
		answer, err := io.ReadAll(conn) // to the end that the server makes
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
			t.Errorf("%s %v", answer, err)
		}
		conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if strings.Contains(said.String(), "panic") {
			t.Error(said.String())
		}
	})
}
