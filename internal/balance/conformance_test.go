package balance_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"serin/internal/balance"
)

func TestAConnectionCarriesManyRequests(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	p := w.dial()
	for i := range 20 {
		body := strings.Repeat("x", i*i)
		path := fmt.Sprint("/", i)
		p.say(crlf("PUT "+path+" HTTP/1.1", "Host: h", fmt.Sprint("Content-Length: ", len(body))), body)
		if resp, got := p.answer("PUT"); resp.StatusCode != 200 || got != "PUT "+path+"\n"+body {
			t.Fatalf("request %d got %s %q", i, resp.Status, got)
		}
	}
	j.last(t)
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	j := judged(t)
	p := carry(t, balance.Listener{}, j.addr).dial()
	var all []string
	for i := range 16 {
		if i%2 == 0 {
			all = append(all, crlf(fmt.Sprintf("GET /%d HTTP/1.1", i), "Host: h"))
		} else {
			all = append(all, crlf(fmt.Sprintf("POST /%d HTTP/1.1", i), "Host: h", "Content-Length: 4"), "body")
		}
	}
	p.say(all...)
	for i := range 16 {
		want := fmt.Sprintf("GET /%d\n", i)
		if i%2 == 1 {
			want = fmt.Sprintf("POST /%d\nbody", i)
		}
		if _, got := p.answer("GET"); got != want {
			t.Fatalf("answer %d is %q", i, got)
		}
	}
	j.last(t)
}

// Some answers have no body whatever their head says, and the next answer on the
// connection begins where it would.
func TestAnswersWithoutABody(t *testing.T) {
	for _, c := range []struct {
		method, status string
		fields         []string
		length         string // what the client is told
	}{
		{"HEAD", "200 OK", []string{"Content-Length: 5"}, "5"},
		{"HEAD", "200 OK", []string{"Transfer-Encoding: chunked"}, ""},
		{"HEAD", "404 Not Found", nil, ""},
		{"GET", "204 No Content", nil, ""},
		{"GET", "304 Not Modified", []string{`ETag: "x"`}, ""},
		{"GET", "304 Not Modified", []string{"Content-Length: 10"}, "10"},
		{"GET", "200 OK", []string{"Content-Length: 0"}, "0"},
		{"POST", "205 Reset Content", []string{"Content-Length: 0"}, "0"},
	} {
		name := fmt.Sprint(c.method, " ", c.status, c.fields)
		target := raw(t, func(p *peer) {
			for p.any() {
				p.head()
				p.say(crlf(append([]string{"HTTP/1.1 " + c.status, "X-Seen: yes"}, c.fields...)...))
			}
		})
		p := carry(t, balance.Listener{}, target).dial()
		for range 3 {
			p.say(crlf(c.method+" / HTTP/1.1", "Host: h", "Content-Length: 0"))
			resp, body := p.answer(c.method)
			if resp.Status != c.status || body != "" || resp.Header.Get("X-Seen") != "yes" {
				t.Errorf("%s: got %s %q %v", name, resp.Status, body, resp.Header)
			}
			if got := resp.Header.Get("Content-Length"); c.length != "" && got != c.length {
				t.Errorf("%s: the length is %q", name, got)
			}
		}
	}
}

func TestAnswersInChunksKeepTheirTrailers(t *testing.T) {
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Chunked", strings.Join(r.TransferEncoding, ","))
		fmt.Fprintf(w, "%s %v", body, err)
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "11")
		w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	})
	p := carry(t, balance.Listener{}, target).dial()
	for range 3 {
		p.say(crlf("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Trailer: X-Sum"),
			"5\r\nhello\r\n", "6;name=value\r\n world\r\n", "0\r\nX-Sum: 11\r\n\r\n")
		resp, body := p.answer("POST")
		if body != "hello world <nil>" || resp.Header.Get("X-Chunked") != "chunked" {
			t.Errorf("the target had %q, coded %q", body, resp.Header.Get("X-Chunked"))
		}
		if resp.Trailer.Get("X-Sum") != "11" || resp.Trailer.Get("X-Late") != "unannounced" {
			t.Errorf("the answer's trailers are %v", resp.Trailer)
		}
	}
}

func TestRequestsInChunksKeepTheirTrailers(t *testing.T) {
	j := judged(t)
	p := carry(t, balance.Listener{}, j.addr).dial()
	for range 3 {
		p.say(crlf("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Trailer: X-Sum"), "5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n")
		p.answer("POST")
		got := j.last(t)
		if sum := values(got.trailers, "X-Sum"); !slices.Equal(sum, []string{"5"}) || got.body != "hello" {
			t.Errorf("the target had %q and the trailers %v", got.body, got.trailers)
		}
	}
}

// An answer whose length is not known goes to a client of HTTP/1.0 as it is, and
// ends with the connection.
func TestClientsOfHTTP10(t *testing.T) {
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/host":
			io.WriteString(w, r.Proto+" "+fmt.Sprint(r.Host != ""))
		case "/stream":
			io.WriteString(w, "one ")
			w.(http.Flusher).Flush()
			io.WriteString(w, "two")
		}
	})
	w := carry(t, balance.Listener{}, target)
	for _, c := range []struct{ request, want string }{
		{crlf("GET /stream HTTP/1.0"), "one two"},
		{crlf("GET /stream HTTP/1.0", "Host: h"), "one two"},
		{crlf("GET /host HTTP/1.0", "Host: h"), "HTTP/1.1 true"},
		{crlf("GET /host HTTP/1.0"), "HTTP/1.1 true"}, // the load balancer has a name of its own for it
	} {
		p := w.dial()
		p.say(c.request)
		head := p.head()
		body, err := io.ReadAll(p.in)
		if err != nil || string(body) != c.want || !strings.HasPrefix(head[0], "HTTP/1.") || !strings.Contains(head[0], " 200 ") {
			t.Errorf("%q got %q %q, %v", c.request, head, body, err)
		}
		if slices.ContainsFunc(head, func(l string) bool { return strings.HasPrefix(strings.ToLower(l), "transfer-encoding") }) {
			t.Errorf("%q was answered in chunks: %q", c.request, head)
		}
	}
	p := w.dial()
	for range 3 {
		p.say(crlf("GET /host HTTP/1.0", "Host: h", "Connection: keep-alive"))
		if resp, body := p.answer("GET"); body != "HTTP/1.1 true" || resp.Close {
			t.Fatalf("a kept connection got %q, closes: %v", body, resp.Close)
		}
	}
}

func TestAClientThatWantsToCloseIsClosed(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	p := w.dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h", "Connection: close"))
	if resp, _ := p.answer("GET"); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("got %s, closes: %v", resp.Status, resp.Close)
	}
	if !p.over() {
		t.Error("the connection stays")
	}
	if got := j.last(t).folded("Connection"); slices.Contains(got, "close") {
		t.Error("the target was told to close")
	}
}

func TestATargetThatClosesDoesNotCloseTheClient(t *testing.T) {
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Connection: close", "Content-Length: 2"), "ok")
	})
	p := carry(t, balance.Listener{}, target).dial()
	for range 5 {
		p.say(crlf("GET / HTTP/1.1", "Host: h"))
		if resp, body := p.answer("GET"); resp.StatusCode != 200 || body != "ok" || resp.Close {
			t.Fatalf("got %s %q, closes: %v", resp.Status, body, resp.Close)
		}
	}
}

// What a connection is told is for that connection.
func TestHeadersOfOneHopEndThere(t *testing.T) {
	got := make(chan []string, 1)
	target := raw(t, func(p *peer) {
		got <- p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Connection: X-Mine, keep-alive", "X-Mine: 1", "Keep-Alive: timeout=9", "Proxy-Connection: x", "X-Kept: 1", "Content-Length: 0"))
	})
	p := carry(t, balance.Listener{}, target).dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h", "Connection: keep-alive, X-Private", "x-private: 1", "Connection: X-Other", "X-Other: 2", "Keep-Alive: 300", "Proxy-Connection: keep-alive", "Upgrade: websocket", "X-Kept: 1"))
	resp, _ := p.answer("GET")
	for _, name := range []string{"X-Mine", "Keep-Alive", "Proxy-Connection"} {
		if v, there := resp.Header[name]; there {
			t.Errorf("the client was sent %s %q", name, v)
		}
	}
	if resp.Header.Get("X-Kept") != "1" {
		t.Error("the client was not sent X-Kept")
	}
	kept := false
	for _, line := range within(t, got, "the request") {
		name, value, _ := strings.Cut(strings.ToLower(line), ":")
		switch name {
		case "x-private", "x-other", "keep-alive", "proxy-connection", "upgrade":
			t.Errorf("the target was sent %q", line)
		case "connection":
			if strings.Contains(value, "x-") {
				t.Errorf("the target was sent %q", line)
			}
		case "x-kept":
			kept = true
		}
	}
	if !kept {
		t.Error("the target was not sent X-Kept")
	}
}

func TestFieldsThatRepeatAreKeptApart(t *testing.T) {
	got := make(chan []string, 1)
	target := raw(t, func(p *peer) {
		got <- p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", "X-R: 1", "Set-Cookie: a=3, x", "X-R: 2", "Content-Length: 0"))
	})
	p := carry(t, balance.Listener{}, target).dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h", "X-A: 1", "Cookie: a=b", "X-A: 2,3", "X-A:", "Cookie: c=d"))
	resp, _ := p.answer("GET")
	if c := resp.Header["Set-Cookie"]; !slices.Equal(c, []string{"a=1; Path=/", "b=2", "a=3, x"}) {
		t.Errorf("the cookies are %q", c)
	}
	if c := resp.Header["X-R"]; !slices.Equal(c, []string{"1", "2"}) {
		t.Errorf("the answer has X-R %q", c)
	}
	var a, cookies []string
	for _, line := range within(t, got, "the request") {
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "x-a":
			a = append(a, strings.TrimSpace(value))
		case "cookie":
			cookies = append(cookies, strings.TrimSpace(value))
		}
	}
	if !slices.Equal(a, []string{"1", "2,3", ""}) || !slices.Equal(cookies, []string{"a=b", "c=d"}) {
		t.Errorf("the request has X-A %q, Cookie %q", a, cookies)
	}
}

func TestARequestTargetIsKeptByteForByte(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	for _, target := range []string{
		"/a%2Fb", "/a%2fb", "/%41", "//two//slashes/", "/a/../b/./c", "/..", "/a;b=c,d", "/~%7E", "/a+b%20c", "/%C3%A9", "/%00", "/%zz", "/a%", "/'()*!$&@:",
		"/?", "/??", "/?a=1&a=2&b", "/?a=%2F+%zz", "/?a=b?c/d", "/?a;b", "/?a=1;b=2&c", "/?=&&=", "/?a[]=1&b={}|^`\"<>\\", "/x?" + strings.Repeat("q", 15000),
	} {
		p := w.dial()
		p.say(crlf("GET "+target+" HTTP/1.1", "Host: h"))
		if resp, _ := p.answer("GET"); resp.StatusCode != 200 {
			t.Errorf("%q got %s", target, resp.Status)
		} else if got := j.last(t).target; got != target {
			t.Errorf("%q became %q", target, got)
		}
		p.Close()
	}
}

func TestAbsoluteAndAsteriskTargets(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	for _, c := range []struct{ method, target, host, want, wantHost string }{
		{"GET", "http://other.example/x?y=%2F", "h", "/x?y=%2F", "other.example"},
		{"GET", "http://other.example:8080", "h", "/", "other.example:8080"},
		{"GET", "HTTP://other.example/", "other.example", "/", "other.example"},
		{"OPTIONS", "*", "h", "*", "h"},
	} {
		p := w.dial()
		p.say(crlf(c.method+" "+c.target+" HTTP/1.1", "Host: "+c.host))
		if resp, _ := p.answer(c.method); resp.StatusCode != 200 {
			t.Errorf("%+v got %s", c, resp.Status)
			continue
		}
		got := j.last(t)
		if path := strings.TrimPrefix(got.target, "http://"+c.wantHost); path != c.want && !(path == "" && c.want == "/") || got.folded("Host")[0] != c.wantHost {
			t.Errorf("%+v became %q at %q", c, got.target, got.folded("Host"))
		}
	}
}

func TestTheTargetIsToldWhoAsks(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	_, port, _ := net.SplitHostPort(w.addr)
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{nil, "127.0.0.1"},
		{[]string{"X-Forwarded-For: 203.0.113.7"}, "203.0.113.7, 127.0.0.1"},
		{[]string{"x-forwarded-for: 203.0.113.7, 198.51.100.1:80"}, "203.0.113.7, 198.51.100.1:80, 127.0.0.1"},
		{[]string{"X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 2001:db8::1"}, "203.0.113.7, 2001:db8::1, 127.0.0.1"},
		{[]string{"X-Forwarded-Proto: https", "X-Forwarded-Port: 443"}, "127.0.0.1"},
	} {
		p := w.dial()
		p.say(crlf(append([]string{"GET / HTTP/1.1", "Host: shop.example:8443"}, c.fields...)...))
		p.answer("GET")
		got := j.last(t)
		for name, want := range map[string]string{"X-Forwarded-For": c.want, "X-Forwarded-Proto": "http", "X-Forwarded-Port": port, "Host": "shop.example:8443"} {
			if have := strings.Join(got.folded(name), ", "); have != want {
				t.Errorf("%q: %s is %q, not %q", c.fields, name, have, want)
			}
		}
		for _, name := range []string{"X-Forwarded-Host", "Via", "Forwarded"} {
			if have := got.folded(name); have != nil {
				t.Errorf("%q: %s is %q", c.fields, name, have)
			}
		}
	}
}

// Names keep their spelling and values their bytes; guessed for the spelling.
func TestFieldsKeepTheirSpellingAndOrder(t *testing.T) {
	got := make(chan []string, 1)
	target := raw(t, func(p *peer) {
		got <- p.head()
		p.say(crlf("HTTP/1.1 200 Fine by me", "x-lower: 1", "X-UPPER: 2", "eTag: 3", "Content-Length: 0"))
	})
	p := carry(t, balance.Listener{}, target).dial()
	fields := []string{"x-lower: 1", "X-UPPER: caf\xe9", "X-mIXed: a  b", "accept-ENCODING: gzip", "User-Agent:"}
	p.say(crlf(append([]string{"GET / HTTP/1.1", "Host: h"}, fields...)...))
	ordered := func(have, want []string) bool {
		for _, line := range have {
			if len(want) > 0 && strings.TrimRight(line, " ") == want[0] {
				want = want[1:]
			}
		}
		return len(want) == 0
	}
	if have := within(t, got, "the request"); !ordered(have, fields) {
		t.Errorf("the target was sent %q", have)
	}
	if have := p.head(); !ordered(have, []string{"HTTP/1.1 200 Fine by me", "x-lower: 1", "X-UPPER: 2", "eTag: 3"}) {
		t.Errorf("the client was sent %q", have)
	}
}

// Nothing is added to a request that is not documented.
func TestARequestGetsNoFieldsOfOurs(t *testing.T) {
	j := judged(t)
	p := carry(t, balance.Listener{}, j.addr).dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	p.answer("GET")
	for _, f := range j.last(t).fields {
		switch strings.ToLower(f.name) {
		case "host", "connection", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-amzn-trace-id":
		default:
			t.Errorf("the target was sent %s: %s", f.name, f.value)
		}
	}
}

func TestMethodsThatAreNotCarried(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	p := w.dial()
	p.say(crlf("TRACE / HTTP/1.1", "Host: h"))
	if resp, _ := p.answer("TRACE"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("TRACE got %s", resp.Status)
	}
	for _, method := range []string{"PATCH", "REPORT", "M-SEARCH", "get"} {
		p := w.dial()
		p.say(crlf(method+" / HTTP/1.1", "Host: h", "Content-Length: 0"))
		if resp, body := p.answer(method); resp.StatusCode != 200 || body != method+" /\n" {
			t.Errorf("%s got %s %q", method, resp.Status, body)
		}
	}
}

func TestAHostGetsTheListenersPort(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	w.spec.Headers.KeepHost = false
	w.listen()
	_, port, _ := net.SplitHostPort(w.addr)
	for host, want := range map[string]string{"Shop.Example": "shop.example:" + port, "shop.example:" + port: "shop.example:" + port} {
		p := w.dial()
		p.say(crlf("GET / HTTP/1.1", "Host: "+host))
		p.answer("GET")
		if got := j.last(t).folded("Host")[0]; got != want {
			t.Errorf("%s became %s", host, got)
		}
	}
}

func TestWhatIsDoneToForwardedFor(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	for _, c := range []struct {
		headers balance.Headers
		want    []string
	}{
		{balance.Headers{ForwardedFor: "preserve"}, []string{"203.0.113.7"}},
		{balance.Headers{ForwardedFor: "remove"}, nil},
		{balance.Headers{ForwardedFor: "append", ClientPort: true}, []string{"203.0.113.7, 127.0.0.1:PORT"}},
	} {
		w.spec.Headers = c.headers
		w.listen()
		p := w.dial()
		p.say(crlf("GET / HTTP/1.1", "Host: h", "X-Forwarded-For: 203.0.113.7"))
		p.answer("GET")
		_, port, _ := net.SplitHostPort(p.LocalAddr().String())
		for i := range c.want {
			c.want[i] = strings.ReplaceAll(c.want[i], "PORT", port)
		}
		if got := j.last(t).folded("X-Forwarded-For"); !slices.Equal(got, c.want) {
			t.Errorf("%+v: it is %q", c.headers, got)
		}
	}
}

func TestInvalidNamesAreDroppedWhereThatIsWanted(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	for _, drop := range []bool{false, true} {
		w.spec.Headers.DropInvalid = drop
		w.listen()
		p := w.dial()
		p.say(crlf("GET / HTTP/1.1", "Host: h", "X_Under: 1", "X-Kept9: 2"))
		p.answer("GET")
		got := j.last(t)
		if there := got.folded("X_Under") != nil; there == drop || got.folded("X-Kept9") == nil {
			t.Errorf("dropping %v: the target was sent %v", drop, got.fields)
		}
	}
}
