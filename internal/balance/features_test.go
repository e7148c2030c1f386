package balance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// listen has a listener of the balancer as spec wants it, under its id and any port.
func (x *bench) listen(t testing.TB, spec Listener) netip.AddrPort {
	t.Helper()
	if spec.Bind == "" {
		spec.Bind = "127.0.0.1:0"
	}
	addr, err := x.SetListener(spec)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// fetch is one request of a client with its cookies.
func fetch(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func withCookies() *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
}

// A client that was given to a group stays there across a shift, until its time is
// over; one that is new goes by the weights.
func TestClientsStayWithTheirGroupAcrossAShift(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "a", nil)}, []netip.AddrPort{backend(t, "b", nil)}, 1, 0)
	x.await(t, "a", all(Healthy))
	weigh := func(a, b int, life time.Duration) {
		url := x.listen(t, Listener{ID: "s", Rules: []Rule{{ID: "r", Sticky: life, Forward: []Weighted{{"a", a}, {"b", b}}}}})
		x.url = "http://" + url.String() + "/"
	}
	weigh(1, 0, time.Hour)
	old := withCookies()
	resp, body := fetch(t, old, x.url)
	set := resp.Header.Values("Set-Cookie")
	if body != "a" || len(set) != 2 || !strings.HasPrefix(set[0], "AWSALBTG=") || !strings.HasPrefix(set[1], "AWSALBTGCORS=") || !strings.Contains(set[1], "SameSite=None") {
		t.Fatalf("%q came with %q", body, set)
	}
	weigh(0, 1, time.Hour)
	for range 3 {
		if _, body := fetch(t, old, x.url); body != "a" {
			t.Errorf("the old client was sent to %s", body)
		}
		if _, body := fetch(t, withCookies(), x.url); body != "b" {
			t.Errorf("a new client was sent to %s", body)
		}
	}
	name, _, _ := strings.Cut(set[0], ";")
	r, _ := http.NewRequest("GET", x.url, nil)
	r.Header.Set("Cookie", name[:len("AWSALBTG=")+tagSize]+"1") // whose time is over
	if resp, err := http.DefaultClient.Do(r); err != nil {
		t.Error(err)
	} else if b, _ := io.ReadAll(resp.Body); string(b) != "b" {
		t.Errorf("a client whose time is over was sent to %s", b)
	}
}

func TestClientsStayWithTheirTarget(t *testing.T) {
	app := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			http.SetCookie(w, &http.Cookie{Name: "SESSION", Value: "1", Path: "/"})
		}
		fmt.Fprint(w, r.Context().Value(http.LocalAddrContextKey))
	}
	addrs := []netip.AddrPort{backend(t, "", app), backend(t, "", app), backend(t, "", app)}
	x := balancer(t, nil, nil, 1, 0)
	group := Group{ID: "a", Targets: targets(addrs...), Check: check, Sticky: &Sticky{Life: time.Hour}}
	x.SetGroup(group)
	x.await(t, "a", all(Healthy))
	c := withCookies()
	resp, first := fetch(t, c, x.url)
	if set := resp.Header.Values("Set-Cookie"); len(set) != 2 || !strings.HasPrefix(set[0], "AWSALB=") {
		t.Errorf("it came with %q", set)
	}
	for range 5 {
		if _, now := fetch(t, c, x.url); now != first {
			t.Errorf("a client went from %s to %s", first, now)
		}
	}
	var left []netip.AddrPort // without its target
	for _, a := range addrs {
		if a.String() != first {
			left = append(left, a)
		}
	}
	group.Targets = targets(left...)
	x.SetGroup(group)
	_, second := fetch(t, c, x.url)
	if _, now := fetch(t, c, x.url); second == first || now != second {
		t.Errorf("when its target was gone it went to %s, then to %s", second, now)
	}

	group.Targets, group.Sticky = targets(addrs...), &Sticky{Cookie: "SESSION", Life: time.Hour}
	x.SetGroup(group)
	x.await(t, "a", all(Healthy))
	c = withCookies()
	if resp, _ := fetch(t, c, x.url); len(resp.Header.Values("Set-Cookie")) != 0 {
		t.Error("a cookie was set before the application had")
	}
	resp, first = fetch(t, c, x.url+"login")
	if set := resp.Header.Values("Set-Cookie"); len(set) != 2 || !strings.HasPrefix(set[1], "AWSALBAPP-0=") {
		t.Errorf("it came with %q", set)
	}
	for range 5 {
		if _, now := fetch(t, c, x.url); now != first {
			t.Errorf("a session went from %s to %s", first, now)
		}
	}
}

// certificate is one for a name, by itself.
func certificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLSShowsTheCertificateOfTheNameAndSpeaksBothVersions(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, r.Header["X-Forwarded-Proto"], r.Header["X-Amzn-Tls-Version"], r.Header["X-Amzn-Tls-Cipher-Suite"], r.Header.Get("X-Forwarded-For"), r.Host)
	})}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	spec := Listener{ID: "s", TLS: &TLS{Certificates: []tls.Certificate{certificate(t, "one.example"), certificate(t, "two.example")}}, Headers: Headers{TLSInfo: true}, Rules: []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}}
	addr := x.listen(t, spec)
	for _, http2 := range []bool{false, true} {
		for name, shown := range map[string]string{"one.example": "one.example", "two.example": "two.example", "three.example": "one.example"} {
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: name}}}
			resp, body := fetch(t, c, "https://"+addr.String()+"/")
			if got := resp.TLS.PeerCertificates[0].Subject.CommonName; got != shown || resp.ProtoMajor == 2 != http2 {
				t.Errorf("asked for %s, %s was shown over %s", name, got, resp.Proto)
			}
			if want := "HTTP/1.1[https] [TLSv1.3] [TLS_AES_128_GCM_SHA256]127.0.0.1" + addr.String(); body != want {
				t.Errorf("the target was told %s, want %s", body, want)
			}
		}
	}
	spec.TLS = &TLS{Certificates: []tls.Certificate{certificate(t, "four.example")}, Max: tls.VersionTLS12}
	spec.Headers.NoHTTP2 = true
	x.listen(t, spec) // for the next handshake
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, _ := fetch(t, c, "https://"+addr.String()+"/")
	if resp.TLS.PeerCertificates[0].Subject.CommonName != "four.example" || resp.ProtoMajor != 1 || resp.TLS.Version != tls.VersionTLS12 {
		t.Errorf("a changed listener shows %v over %s", resp.TLS.PeerCertificates[0].Subject, resp.Proto)
	}
}

func TestTargetsAreAskedOverTLSAndHTTP2(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, r.TLS != nil) }))
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	clear := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, r.TLS != nil) }))
	clear.Config.Protocols = new(http.Protocols)
	clear.Config.Protocols.SetUnencryptedHTTP2(true)
	clear.Start()
	defer clear.Close()
	x := balancer(t, nil, nil, 1, 0)
	front := x.listen(t, Listener{ID: "s", TLS: &TLS{Certificates: []tls.Certificate{certificate(t, "x")}}, Rules: []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}})
	for _, c := range []struct {
		Group
		at           string
		over1, over2 string
	}{
		{Group{TLS: true}, secure.URL, "HTTP/1.1true", "HTTP/1.1true"},
		{Group{Version: HTTP2}, clear.URL, "464", "HTTP/2.0false"},
		{Group{Version: HTTP2, TLS: true}, secure.URL, "464", "HTTP/2.0true"},
	} {
		_, at, _ := strings.Cut(c.at, "://")
		c.ID, c.Targets, c.Check = "a", []Target{{Addr: netip.MustParseAddrPort(at), Generation: time.Now().UnixNano()}}, check
		c.Check.TLS, c.Check.Version = c.TLS, c.Version
		x.SetGroup(c.Group)
		x.await(t, "a", all(Healthy))
		for http2, want := range map[bool]string{false: c.over1, true: c.over2} {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			resp, body := fetch(t, client, "https://"+front.String()+"/")
			if body != want && fmt.Sprint(resp.StatusCode) != want {
				t.Errorf("%+v, HTTP/2 %v: %d %s, want %s", c.Group, http2, resp.StatusCode, body, want)
			}
		}
	}
}

func TestAGroupOfGRPCIsCheckedInItsWords(t *testing.T) {
	health := make(chan string, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		select {
		case health <- fmt.Sprint(r.Method, r.URL.Path, r.Header.Get("Content-Type"), hex.EncodeToString(b)):
		default:
		}
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Type", "application/grpc")
		w.WriteHeader(200)
		w.Header().Set("Grpc-Status", "12")
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	x := balancer(t, nil, nil, 1, 0)
	at := netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
	ask := Check{Version: GRPC, Path: "/AWS.ALB/healthcheck", Matcher: "12", Interval: time.Minute, Timeout: patience, Healthy: 2, Unhealthy: 1}
	x.SetGroup(Group{ID: "a", Version: GRPC, Targets: targets(at), Check: ask})
	x.await(t, "a", all(Healthy))
	if got := <-health; got != "POST/AWS.ALB/healthcheckapplication/grpc0000000000" {
		t.Errorf("it was asked %s", got)
	}
	ask.Matcher = "0"
	x.SetGroup(Group{ID: "a", Version: GRPC, Targets: []Target{{Addr: at, Generation: 1}}, Check: ask})
	x.await(t, "a", all(Unhealthy))
	for _, h := range x.Health("a") {
		if h.Detail != "Health checks failed with these codes: [12]" {
			t.Errorf("it is told that %s", h.Detail)
		}
	}
}

func TestEveryRequestIsTold(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "a", nil)}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	var mu sync.Mutex
	var told []Entry
	addr := x.listen(t, Listener{ID: "s", TLS: &TLS{Certificates: []tls.Certificate{certificate(t, "x")}}, Rules: []Rule{
		{ID: "elsewhere", Match: []Condition{{Field: "path-pattern", Values: []string{"/old"}}}, Redirect: &Redirect{Code: 301, Path: "/new"}},
		{ID: "fixed", Match: []Condition{{Field: "path-pattern", Values: []string{"/fixed"}}}, Fixed: &Fixed{Code: 418, Body: "tea"}},
		{ID: "r", Forward: []Weighted{{"a", 1}}},
	}, Log: func(e *Entry) { mu.Lock(); told = append(told, *e); mu.Unlock() }})
	for _, http2 := range []bool{false, true} {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		for path, want := range map[string]Entry{
			"/some?x": {Code: 200, TargetCode: 200, Rule: "r", Group: "a", Action: "forward"},
			"/old":    {Code: 301, TargetCode: -1, Rule: "elsewhere", Action: "redirect", RedirectURL: "https://" + addr.String() + "/new"},
			"/fixed":  {Code: 418, TargetCode: -1, Rule: "fixed", Action: "fixed-response"},
		} {
			fetch(t, c, "https://"+addr.String()+path)
			c.CloseIdleConnections()
			until(t, "the note of "+path, func() bool { mu.Lock(); defer mu.Unlock(); return len(told) > 0 })
			if mu.Lock(); len(told) != 1 {
				t.Fatalf("%s was told %d times", path, len(told))
			}
			e := told[0]
			told = nil
			mu.Unlock()
			want.Kind, want.Proto = "https", "HTTP/1.1"
			if http2 {
				want.Kind, want.Proto = "h2", "HTTP/2.0"
			}
			if e.Method != "GET" || e.URL != "https://"+addr.String()+path || e.Kind != want.Kind || e.Proto != want.Proto || e.Code != want.Code || e.TargetCode != want.TargetCode ||
				e.Rule != want.Rule || e.Group != want.Group || e.Action != want.Action || e.RedirectURL != want.RedirectURL || e.TLSVersion != "TLSv1.3" || e.UserAgent != "Go-http-client/1.1" && e.UserAgent != "Go-http-client/2.0" {
				t.Errorf("%s was told as %+v", path, e)
			}
			if forwarded := want.Group != ""; forwarded != e.Target.IsValid() || forwarded && (e.Processing <= 0 || e.Receiving < 0 || e.Responding < 0 || e.Sent == 0) {
				t.Errorf("%s took %+v", path, e)
			}
		}
	}
}

// telling is a listener that forwards to group a and tells of its requests.
func (x *bench) telling(t *testing.T) (addr string, told chan Entry) {
	told = make(chan Entry, 8)
	at := x.listen(t, Listener{ID: "s", Rules: []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}, Log: func(e *Entry) { told <- *e }})
	return at.String(), told
}

// over is a client that speaks HTTP/2 with prior knowledge, or HTTP/1.1.
func over(t *testing.T, http2 bool) *http.Client {
	transport := &http.Transport{Protocols: speaking(http2)}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Who names no host means the one that it has come to.
func TestARedirectOfARequestWithoutAHostLeadsBackHere(t *testing.T) {
	x := balancer(t, nil, nil, 1, 0)
	at := x.listen(t, Listener{ID: "s", Rules: []Rule{{ID: "r", Redirect: &Redirect{Code: 301, Port: "81"}}}})
	for _, in := range []string{"GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"} {
		nc, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(nc, in)
		answer, _ := io.ReadAll(nc)
		nc.Close()
		if !strings.Contains(string(answer), "\r\nLocation: http://127.0.0.1:81/a\r\n") {
			t.Errorf("%q is sent to %q", in, answer)
		}
	}
}

func TestWhatIsNoRequestIsToldToo(t *testing.T) {
	x := balancer(t, nil, nil, 1, 0)
	addr, told := x.telling(t)
	for in, code := range map[string]int{"GET / HTTP/1.1\r\n\r\n": 400, "GET /" + strings.Repeat("a", 17<<10) + " HTTP/1.1\r\n": 414, "GET / HTTP/9.9\r\nHost: h\r\n\r\n": 505} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(nc, in)
		answer, _ := io.ReadAll(nc)
		nc.Close()
		e := <-told
		if e.Code != code || e.TargetCode != -1 || e.Method != "-" || e.URL != "http://"+addr+"-" || e.Proto != "-" || e.Client.String() != nc.LocalAddr().String() || e.Rule != "" || e.Received != 0 || e.Sent != int64(len(answer)) {
			t.Errorf("%.20q was answered %d bytes and told as %+v", in, len(answer), e)
		}
	}
}

// The trace by which a request is found in the log is the one that its target got.
func TestATraceIsToldAsTheTargetGotIt(t *testing.T) {
	got := make(chan string, 1)
	x := balancer(t, []netip.AddrPort{backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amzn-Trace-Id") != "" { // a health check has none
			got <- r.Header.Get("X-Amzn-Trace-Id")
		}
	})}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	addr, told := x.telling(t)
	for _, http2 := range []bool{false, true} {
		for _, came := range []string{"", "Root=1-1-1"} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if came != "" {
				r.Header.Set("X-Amzn-Trace-Id", came)
			}
			resp, err := over(t, http2).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if trace, e := <-got, <-told; e.Trace != trace || !strings.Contains(trace, "=1-") || !strings.HasSuffix(trace, came) {
				t.Errorf("HTTP/2 %v, %q: the target got %q, and told was %q", http2, came, trace, e.Trace)
			}
		}
	}
}

func TestAClientThatHasGoneIsToldAs460(t *testing.T) {
	asked := make(chan bool, 2)
	x := balancer(t, []netip.AddrPort{backend(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/never" {
			asked <- true
			<-r.Context().Done()
		}
	})}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	addr, told := x.telling(t)
	for _, http2 := range []bool{false, true} {
		ctx, leave := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/never", nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() { <-asked; leave() }()
		if _, err := over(t, http2).Do(r); err == nil {
			t.Fatal("it was answered")
		}
		if e := <-told; e.Code != clientGone || e.TargetCode != -1 || e.Action != "forward" {
			t.Errorf("HTTP/2 %v was told as %+v", http2, e)
		}
	}
}

// What goes over a connection under TLS is counted once, by the listener and in the
// note of its request.
func TestBytesUnderTLSAreCountedOnce(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	told := make(chan Entry, 1)
	addr := x.listen(t, Listener{ID: "l", TLS: &TLS{Certificates: []tls.Certificate{certificate(t, "x")}}, Rules: []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}, Log: func(e *Entry) { told <- *e }})
	const size = 1 << 20
	for _, http2 := range []bool{false, true} {
		c := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		resp, err := c.Post("https://"+addr.String(), "text/plain", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if n != size || err != nil {
			t.Fatalf("%d bytes came back, %v", n, err)
		}
		c.CloseIdleConnections()
		if e := <-told; e.Received < size || e.Received > size+2000 || e.Sent < size || e.Sent > size+2000 {
			t.Errorf("HTTP/2 %v: %d bytes came and %d went", http2, e.Received, e.Sent)
		}
		if l := x.measured(t); l.Bytes < 2*size || l.Bytes > 2*size+200_000 { // with what TLS and HTTP/2 add
			t.Errorf("HTTP/2 %v: %d bytes were counted", http2, l.Bytes)
		}
	}
}

// A connection to a target of a network load balancer begins with who it is from,
// where that is wanted, also under TLS.
func TestAConnectionIsIntroduced(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x := balancer(t, nil, nil, 1, 0)
	x.SetGroup(Group{ID: "a", Targets: targets(l.Addr().(*net.TCPAddr).AddrPort()), ProxyHeader: true, StickyIP: true, Check: Check{TCP: true, Interval: time.Hour, Timeout: patience, Healthy: 1, Unhealthy: 1}})
	addr := x.listen(t, Listener{ID: "n", TCP: true, TLS: &TLS{Certificates: []tls.Certificate{certificate(t, "x")}}, Rules: []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}})
	go func() {
		c, err := tls.DialWithDialer(&net.Dialer{}, "tcp", addr.String(), &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			fmt.Fprintln(c, "hello")
			<-t.Context().Done()
			c.Close()
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got, err := bufio.NewReader(c).ReadBytes('o')
		c.Close()
		if err != nil {
			continue // that was the check
		}
		if !bytes.HasPrefix(got, append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 127, 0, 0, 1, 127, 0, 0, 1)) || !bytes.HasSuffix(got, []byte("hello")) {
			t.Errorf("it begins with %q", got)
		}
		return
	}
}

// Idle connections are closed after their time, and those that have lived long
// enough at their next request.
func TestConnectionsEndAfterTheirTime(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "a", nil)}, nil, 1, 0)
	rules := []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}
	idle := x.listen(t, Listener{ID: "idle", Idle: time.Millisecond, Rules: rules})
	c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", idle.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection ends with %v", err)
	}
	short := x.listen(t, Listener{ID: "short", Life: time.Nanosecond, Rules: rules})
	resp, err := http.Get("http://" + short.String())
	if err != nil || !resp.Close {
		t.Errorf("a connection that lived long enough goes on: %v, %v", resp, err)
	}
}

// A request whose answer has begun with an interim one is not sent to another target.
func TestAnAnswerThatHasBegunIsNotBegunAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 4096)
			n, _ := c.Read(head)
			if bytes.Contains(head[:n], []byte("HealthChecker")) {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			} else {
				io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
			}
			c.Close()
		}
	}()
	dying := l.Addr().(*net.TCPAddr).AddrPort()
	x := balancer(t, []netip.AddrPort{dying, backend(t, "a", nil)}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	codes := map[int]int{}
	for range 4 {
		code, _ := get(t, x.url)
		codes[code]++
	}
	if codes[200] != 2 || codes[502] != 2 || x.Traffic("a").Retried != 0 {
		t.Errorf("the answers were %v, %d retried", codes, x.Traffic("a").Retried)
	}
}

func TestAConnectionOnWhichNothingMovesIsReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x := balancer(t, nil, nil, 1, 0)
	x.SetGroup(Group{ID: "a", Targets: targets(l.Addr().(*net.TCPAddr).AddrPort()), Check: Check{TCP: true, Interval: time.Hour, Timeout: patience, Healthy: 1, Unhealthy: 1}})
	addr := x.listen(t, Listener{ID: "n", TCP: true, Idle: time.Millisecond, Rules: []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}})
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it ends with %v", err)
	}
}

// Too many addresses are refused by every version and mode: what came counts, not what
// goes on.
func TestTooManySourcesAreRefusedWhateverIsDoneToThem(t *testing.T) {
	x := balancer(t, []netip.AddrPort{backend(t, "a", nil)}, nil, 1, 0)
	x.await(t, "a", all(Healthy))
	for _, mode := range []string{"append", "preserve", "remove"} {
		addr := x.listen(t, Listener{ID: "s", TLS: &TLS{Certificates: []tls.Certificate{certificate(t, "x")}}, Headers: Headers{ForwardedFor: mode}, Rules: []Rule{{ID: "r", Forward: []Weighted{{"a", 1}}}}})
		for _, http2 := range []bool{false, true} {
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			for n, want := range map[int]int{30: 200, 31: 463} {
				r, _ := http.NewRequest("GET", "https://"+addr.String(), nil)
				r.Header.Set("X-Forwarded-For", strings.Repeat("192.0.2.1, ", n-1)+"192.0.2.1")
				resp, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%s, HTTP/2 %v: %d addresses got %d", mode, http2, n, resp.StatusCode)
				}
			}
		}
	}
	// The last answer may be there before its request is counted as over.
	until(t, "the end of all requests", func() bool {
		n := 0
		for _, h := range x.Health("a") {
			n += h.InFlight
		}
		return n == 0
	})
}
