package balance_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	h2cases "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
	"golang.org/x/net/http2"
	h2hpack "golang.org/x/net/http2/hpack"

	"serin/internal/balance"
)

// authority makes a certificate for shop.example and the pool that trusts it.
func authority(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.example"}, DNSNames: []string{"shop.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return certificate, pool
}

// each calls do with every listener that speaks HTTP/2: with TLS and with prior
// knowledge.
func each(t *testing.T, handle http.HandlerFunc, do func(t *testing.T, w *world, secure *tls.Config)) {
	t.Run("prior knowledge", func(t *testing.T) {
		do(t, carry(t, balance.Listener{}, web(t, handle)), nil)
	})
	t.Run("TLS", func(t *testing.T) {
		certificate, pool := authority(t)
		l := balance.Listener{TLS: &balance.TLS{Certificates: []tls.Certificate{certificate}}}
		do(t, carry(t, l, web(t, handle)), &tls.Config{RootCAs: pool, ServerName: "shop.example", NextProtos: []string{"h2"}})
	})
}

func hello(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	io.WriteString(w, "hello")
}

// excused are cases of h2spec that do not hold any more or not here.
var excused = map[string]string{
	"http2/3.5.2":     "the port speaks HTTP/1.1 as well, in which another preface is a request: refused, see TestAnotherPrefaceIsRefused",
	"http2/6.5.3.1":   "net/http refuses a setting that is twice in one frame",
	"http2/8.1.2.2.1": "RFC 9113, 8.1.1 lets a server answer 400: see TestHTTP2DoesNotSmuggle",
	"http2/8.1.2.2.2": "the same",
}

// The cases of h2spec, which are those of RFC 7540 and 7541, without the strict ones.
func TestHTTP2IsAsItsStandardHasIt(t *testing.T) {
	each(t, hello, func(t *testing.T, w *world, secure *tls.Config) {
		host, port, _ := net.SplitHostPort(w.addr)
		n, _ := strconv.Atoi(port)
		c := &config.Config{Host: host, Port: n, Path: "/", Timeout: patience, MaxHeaderLen: 4000, TLS: secure != nil, Insecure: true}
		for _, g := range []*spec.TestGroup{generic.Spec(), h2cases.Spec(), hpack.Spec()} {
			specified(t, c, g)
		}
	})
}

func specified(t *testing.T, c *config.Config, g *spec.TestGroup) {
	for i, one := range g.Tests {
		id := fmt.Sprintf("%s.%d", g.ID(), i+1)
		if excused[id] != "" {
			continue
		}
		t.Run(id+" "+one.Desc, func(t *testing.T) {
			conn, err := spec.Dial(c)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := one.Run(c, conn); err != nil && !errors.Is(err, spec.ErrSkipped) {
				t.Error(one.Requirement, err)
			}
		})
	}
	for _, inner := range g.Groups {
		specified(t, c, inner)
	}
}

func TestAnotherPrefaceIsRefused(t *testing.T) {
	w := carry(t, balance.Listener{}, web(t, hello))
	for _, preface := range []string{"INVALID CONNECTION PREFACE\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n", "PRI / HTTP/2.0\r\nHost: h\r\n\r\n"} {
		p := w.dial()
		p.say(preface, string(make([]byte, 9)))
		p.CloseWrite()
		if all, err := io.ReadAll(p.in); err != nil && !errors.Is(err, syscall.ECONNRESET) || strings.Contains(string(all), " 200 ") {
			t.Errorf("%q got %q, %v", preface, all, err)
		}
	}
}

// framed is a connection of HTTP/2 that is spoken to in frames.
type framed struct {
	*http2.Framer
	conn net.Conn
	head bytes.Buffer
	hp   *h2hpack.Encoder
	back *h2hpack.Decoder
	told bool // that the connection takes no more
}

func (w *world) frames(secure *tls.Config) *framed {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if secure != nil {
		conn = tls.Client(conn, secure)
	}
	conn.SetDeadline(time.Now().Add(patience))
	f := &framed{Framer: http2.NewFramer(conn, conn), conn: conn, back: h2hpack.NewDecoder(4096, nil)}
	f.hp = h2hpack.NewEncoder(&f.head)
	io.WriteString(conn, http2.ClientPreface)
	f.WriteSettings()
	return f
}

// ask begins a request.
func (f *framed) ask(stream uint32, last bool, fields ...h2hpack.HeaderField) error {
	f.head.Reset()
	for _, h := range append([]h2hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "h"}, {Name: ":path", Value: "/"}}, fields...) {
		f.hp.WriteField(h)
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.head.Bytes(), EndStream: true, EndHeaders: last})
}

// gone reads until the other side has hung up, and reports whether it did.
func (f *framed) gone() bool {
	for {
		frame, err := f.ReadFrame()
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return false
		}
		if err != nil {
			return true
		}
		if _, ok := frame.(*http2.GoAwayFrame); ok {
			return true
		}
	}
}

// Another client is answered, by HTTP/2 as well.
func (w *world) unharmedHTTP2(secure *tls.Config) {
	w.t.Helper()
	protocols := &http.Protocols{}
	protocols.SetHTTP2(secure != nil)
	protocols.SetUnencryptedHTTP2(secure == nil)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: secure}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: patience}
	scheme := "http://"
	if secure != nil {
		scheme = "https://"
	}
	resp, err := c.Get(scheme + w.addr + "/")
	if err != nil {
		w.t.Fatalf("another client: %v", err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.ProtoMajor != 2 || string(body) != "hello" {
		w.t.Errorf("another client got %s %q by %s", resp.Status, body, resp.Proto)
	}
}

// Who opens streams and resets them at once has no more requests at the target at
// one time than one who waits, and others are answered meanwhile.
func TestRapidResetsAreBounded(t *testing.T) {
	var running, most atomic.Int64
	finish := make(chan bool)
	t.Cleanup(func() { close(finish) })
	each(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Wait") == "" {
			hello(w, r)
			return
		}
		now := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		select {
		case <-finish:
		case <-r.Context().Done():
		}
	}, func(t *testing.T, w *world, secure *tls.Config) {
		f := w.frames(secure)
		go io.Copy(io.Discard, f.conn)
		for i := range uint32(20000) {
			if f.ask(2*i+1, true, h2hpack.HeaderField{Name: "x-wait", Value: "1"}) != nil || f.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				break // it has had enough
			}
			if i == 1000 {
				w.unharmedHTTP2(secure)
			}
		}
		w.unharmedHTTP2(secure)
		if n := most.Load(); n > 1000 {
			t.Errorf("%d requests were at the target at one time", n)
		}
	})
}

// A head that never ends is not kept.
func TestContinuationsWithoutEndAreRefused(t *testing.T) {
	each(t, hello, func(t *testing.T, w *world, secure *tls.Config) {
		h := measured()
		f := w.frames(secure)
		hungUp := make(chan bool, 1)
		go func() { hungUp <- f.gone() }()
		err := f.ask(1, false)
		for i := 0; err == nil && i < 64<<10; i++ {
			f.head.Reset()
			f.hp.WriteField(h2hpack.HeaderField{Name: fmt.Sprint("x-", i), Value: "0123456789abcdef0123456789abcdef0123456789abcdef", Sensitive: true})
			err = f.WriteContinuation(1, false, f.head.Bytes())
		}
		if !within(t, hungUp, "the end of the connection") {
			t.Error("it is waited for")
		}
		if h.look(); h.most > spare {
			t.Errorf("it needed %d MiB", h.most>>20)
		}
		w.unharmedHTTP2(secure)
	})
}

// So are the small things that cost the other side more than the sender.
func TestFloodsOfSmallFramesAreBounded(t *testing.T) {
	each(t, hello, func(t *testing.T, w *world, secure *tls.Config) {
		for name, one := range map[string]func(f *framed) error{
			"pings": func(f *framed) error { return f.WritePing(false, [8]byte{}) },
			"settings": func(f *framed) error {
				return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
			},
			"empty data":        func(f *framed) error { return f.WriteData(1, false, nil) },
			"windows":           func(f *framed) error { return f.WriteWindowUpdate(0, 1) },
			"priorities":        func(f *framed) error { return f.WritePriority(1, http2.PriorityParam{Weight: 1}) },
			"frames of no kind": func(f *framed) error { return f.WriteRawFrame(0xbe, 0, 0, nil) },
		} {
			h := measured()
			f := w.frames(secure) // which is never read
			f.conn.SetWriteDeadline(time.Now().Add(soon))
			for range 200000 {
				if one(f) != nil {
					break
				}
			}
			if h.look(); h.most > spare {
				t.Errorf("%s: it needed %d MiB", name, h.most>>20)
			}
			f.conn.Close()
			w.unharmedHTTP2(secure)
		}
	})
}

// What is one field in HTTP/2 must not be two in HTTP/1.1 behind it, and no field may
// say of a body what the frames do not.
func TestHTTP2DoesNotSmuggle(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	type fields []h2hpack.HeaderField
	for _, c := range []struct {
		fields   fields
		harmless bool // as long as it is one request without a body
	}{
		{fields{{Name: "x-a", Value: "b\r\nX-C: d"}}, false},
		{fields{{Name: "x-a", Value: "b\nX-C: d"}}, false},
		{fields{{Name: "x-a", Value: "b\x00"}}, false},
		{fields{{Name: "x-a: b\r\nx-c", Value: "d"}}, false},
		{fields{{Name: "x a", Value: "b"}}, false},
		{fields{{Name: "X-A", Value: "b"}}, false},
		{fields{{Name: "x-a:", Value: "b"}}, false},
		{fields{{Name: "transfer-encoding", Value: "chunked"}}, false},
		{fields{{Name: "connection", Value: "x-a"}}, false},
		{fields{{Name: "upgrade", Value: "websocket"}}, false},
		{fields{{Name: "te", Value: "gzip"}}, false},
		{fields{{Name: ":path", Value: "/hidden"}}, false},
		{fields{{Name: ":other", Value: "x"}}, false},
		{fields{{Name: "content-length", Value: "5"}}, true},
		{fields{{Name: "content-length", Value: "0"}, {Name: "content-length", Value: "1"}}, true},
		{fields{{Name: "host", Value: "other"}}, true},
	} {
		before, _ := j.requests()
		f := w.frames(nil)
		if err := f.ask(1, true, c.fields...); err != nil {
			t.Fatal(err)
		}
		refused := f.refused()
		after, faults := j.requests()
		if len(faults) > 0 || len(after) > len(before)+1 || len(after) > len(before) && (!c.harmless || after[len(before)].body != "") {
			t.Errorf("%q reached the target, %v", c.fields, faults)
		}
		if !refused && !c.harmless {
			t.Errorf("%q was not refused", c.fields)
		}
		f.conn.Close()
	}
}

// refused reports whether the only request of a connection is answered with a code
// of 4xx or with an error.
func (f *framed) refused() bool {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return false
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return true
		case *http2.HeadersFrame:
			fields, err := h2hpack.NewDecoder(4096, nil).DecodeFull(frame.HeaderBlockFragment())
			return err == nil && len(fields) > 0 && fields[0].Value[0] == '4'
		}
	}
}

// The names that a load balancer itself knows are spelled as in HTTP/1.1 to a target
// of it, all others in small letters as they came.
func TestHTTP2ToATargetOfHTTP1(t *testing.T) {
	certificate, pool := authority(t)
	for scheme, l := range map[string]balance.Listener{"http": {}, "https": {TLS: &balance.TLS{Certificates: []tls.Certificate{certificate}}}} {
		j := judged(t)
		w := carry(t, l, j.addr)
		_, port, _ := net.SplitHostPort(w.addr)
		protocols := &http.Protocols{}
		protocols.SetHTTP2(scheme == "https")
		protocols.SetUnencryptedHTTP2(scheme == "http")
		c := &http.Client{Timeout: patience, Transport: &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "shop.example"}}}
		t.Cleanup(c.CloseIdleConnections)
		r, err := http.NewRequestWithContext(t.Context(), "POST", scheme+"://"+w.addr+"/a%2Fb?c;d", io.NopCloser(strings.NewReader("hello")))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "shop.example"
		r.Header["X-Small"] = []string{"1", "2"}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "POST /a%2Fb?c;d\nhello" || resp.ProtoMajor != 2 {
			t.Errorf("%s: got %q by %s", scheme, body, resp.Proto)
		}
		have := map[string]string{}
		for _, f := range j.last(t).fields {
			have[f.name] += f.value
		}
		for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": scheme, "X-Forwarded-Port": port, "Host": "shop.example", "x-small": "12"} {
			if have[name] != want {
				t.Errorf("%s: %s is %q among %v", scheme, name, have[name], have)
			}
		}
	}
}

// answer asks for one thing and returns the fields of its answer's head.
func (f *framed) answer(t *testing.T, stream uint32, fields ...h2hpack.HeaderField) map[string]string {
	t.Helper()
	f.head.Reset()
	for _, h := range fields {
		f.hp.WriteField(h)
	}
	block := f.head.Bytes()
	for first := true; first || len(block) > 0; first = false {
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		var err error
		if first {
			err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndStream: true, EndHeaders: len(block) == 0})
		} else {
			err = f.WriteContinuation(stream, len(block) == 0, part)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		f.note(frame)
		if answer, ok := frame.(*http2.HeadersFrame); ok {
			got := map[string]string{}
			f.back.SetEmitFunc(func(h h2hpack.HeaderField) { got[h.Name] += h.Value })
			if _, err := f.back.Write(answer.HeaderBlockFragment()); err != nil {
				t.Fatal(err)
			}
			return got
		}
	}
}

// asking is the head of a request.
func asking(method, authority, path string, more ...h2hpack.HeaderField) []h2hpack.HeaderField {
	return append([]h2hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: authority}, {Name: ":path", Value: path}}, more...)
}

// What is no request over HTTP/1.1 is none over HTTP/2.
func TestHTTP2IsRefusedWhatHTTP1Is(t *testing.T) {
	w := carry(t, balance.Listener{}, web(t, hello))
	f := w.frames(nil)
	long := strings.Repeat("a", 17<<10)
	for i, c := range []struct {
		name, code string
		head       []h2hpack.HeaderField
	}{
		{"a request", "200", asking("GET", "h:80", "/")},
		{"TRACE", "405", asking("TRACE", "h", "/")},
		{"CONNECT", "400", []h2hpack.HeaderField{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "h:443"}}},
		{"a host that is none", "400", asking("GET", "a/b", "/")},
		{"a host with a space", "400", asking("GET", "a b", "/")},
		{"a long path", "414", asking("GET", "h", "/"+long)},
		{"a long header", "400", asking("GET", "h", "/", h2hpack.HeaderField{Name: "x-long", Value: long})},
		{"another request", "200", asking("OPTIONS", "h", "*")},
	} {
		if got := f.answer(t, uint32(2*i+1), c.head...); got[":status"] != c.code {
			t.Errorf("%s got %v", c.name, got)
		}
	}
}

// A target is told all that it would be told over HTTP/1.1.
func TestHTTP2KeepsHeadersOfOtherProxies(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	f := w.frames(nil)
	f.answer(t, 1, asking("GET", "h", "/", h2hpack.HeaderField{Name: "forwarded", Value: "for=192.0.2.1"}, h2hpack.HeaderField{Name: "x-forwarded-host", Value: "shop.example"})...)
	for name, want := range map[string]string{"Forwarded": "for=192.0.2.1", "X-Forwarded-Host": "shop.example"} {
		if got := j.last(t).folded(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q", name, got)
		}
	}
}

// What a target answers is judged as an answer over HTTP/1.1 is.
func TestHTTP2AnswersAreThoseOfHTTP1(t *testing.T) {
	for name, c := range map[string]struct {
		answer, code string
		lengths      string // that the client is told
	}{
		"nothing, of a length":   {crlf("HTTP/1.1 204 No Content", "Content-Length: 3"), "204", ""},
		"a code of another kind": {crlf("HTTP/1.1 600 Strange", "Content-Length: 0"), "502", "122"},
		"a huge head":            {crlf("HTTP/1.1 200 OK", "Content-Length: 0", "X-A: "+strings.Repeat("a", 33<<10)), "502", "122"},
	} {
		w := carry(t, balance.Listener{}, raw(t, func(p *peer) {
			p.head()
			p.say(c.answer)
		}))
		if got := w.frames(nil).answer(t, 1, asking("GET", "h", "/")...); got[":status"] != c.code || got["content-length"] != c.lengths {
			t.Errorf("%s: got %v", name, got)
		}
	}
	empty := balance.Rule{ID: "r", Fixed: &balance.Fixed{Code: 204, ContentType: "text/plain"}}
	w := carry(t, balance.Listener{Rules: []balance.Rule{empty}})
	if got := w.frames(nil).answer(t, 1, asking("GET", "h", "/")...); got[":status"] != "204" || got["content-length"] != "" {
		t.Errorf("the balancer's own: got %v", got)
	}
}

func (f *framed) note(frame http2.Frame) {
	if _, ok := frame.(*http2.GoAwayFrame); ok {
		f.told = true
	}
}

// parted reads until the other side has ended the connection, and reports whether it
// told that before. One that is kept is not parted.
func (f *framed) parted() bool {
	for {
		frame, err := f.ReadFrame()
		if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
			return false
		}
		if err != nil {
			return f.told
		}
		f.note(frame)
	}
}

// The times of a listener's connections hold over HTTP/2, too.
func TestHTTP2ConnectionsEndInTime(t *testing.T) {
	for name, l := range map[string]balance.Listener{
		"one with nothing on it":     {Idle: 50 * time.Millisecond},
		"one that has lived so long": {Life: time.Nanosecond},
	} {
		w := carry(t, l, web(t, hello))
		f := w.frames(nil)
		if got := f.answer(t, 1, asking("GET", "h", "/")...); got[":status"] != "200" || got["connection"] != "" {
			t.Errorf("%s is answered %v", name, got)
		}
		if !f.parted() {
			t.Errorf("%s is kept, or ended and not told", name)
		}
		w.unharmedHTTP2(nil)
	}
}

// Another idle time holds for connections that are there: they are told to come again
// once what is under way has been answered.
func TestHTTP2ConnectionsAreToldOfAnotherIdleTime(t *testing.T) {
	asked, finish := make(chan bool, 1), make(chan bool)
	w := carry(t, balance.Listener{}, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			asked <- true
			<-finish
		}
		hello(w, r)
	}))
	rests, busy := w.frames(nil), w.frames(nil)
	rests.answer(t, 1, asking("GET", "h", "/")...)
	go func() {
		<-asked
		w.spec.Idle = time.Hour
		w.listen()
		if !rests.parted() {
			t.Error("who has nothing under way is kept, or not told")
		}
		close(finish)
	}()
	if got := busy.answer(t, 1, asking("GET", "h", "/slow")...); got[":status"] != "200" {
		t.Errorf("who has is answered %v", got)
	}
	if !busy.parted() {
		t.Error("who has had something under way is kept, or not told")
	}
	w.unharmedHTTP2(nil)
}
