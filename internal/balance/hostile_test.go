package balance_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"serin/internal/balance"
)

// target says to the second must not become somebody else's answer.
func TestAnAmbiguousRequestIsTheLastOfItsTargetsConnection(t *testing.T) {
	second := crlf("GET /second HTTP/1.1", "Host: h")
	naive := raw(t, func(p *peer) { // which has never heard of a GET with a body
		for p.any() {
			line := p.head()[0]
			if strings.Contains(line, "/second") { // takes its time
				p.in.Peek(p.in.Buffered() + 1)
			}
			p.say(crlf("HTTP/1.1 200 OK", fmt.Sprint("Content-Length: ", len(line))), line)
		}
	})
	w := carry(t, balance.Listener{}, naive)
	for range 3 {
		p := w.dial()
		p.say(crlf("GET /first HTTP/1.1", "Host: h", fmt.Sprint("Content-Length: ", len(second))), second)
		p.answer("GET")
		other := w.dial()
		other.say(crlf("GET /other HTTP/1.1", "Host: h"))
		if resp, body := other.answer("GET"); !strings.Contains(body, "/other") {
			t.Fatalf("another client got %s %q", resp.Status, body)
		}
		p.Close()
		other.Close()
	}
}

// that has gone.
func TestATargetThatDiesDuringABodyIsABadGateway(t *testing.T) {
	for _, abort := range []bool{false, true} {
		dies := raw(t, func(p *peer) {
			p.head()
			if abort {
				p.abort()
			}
		})
		w := carry(t, balance.Listener{}, dies)
		p := w.dial()
		p.say(crlf("POST / HTTP/1.1", "Host: h", "Content-Length: 1000"), "the beginning")
		if resp, _, err := p.next("POST"); err != nil || resp.StatusCode != 502 {
			t.Errorf("aborted %v: the client got %v, %v", abort, resp, err)
		}
		if own := w.Stats()[0].Own; own[502] != 1 || own[460] != 0 {
			t.Errorf("aborted %v: it was counted as %v", abort, own)
		}
	}
}

// follows the request belongs to the new protocol all the same.
func TestAnUpgradeMayComeBeforeTheEndOfItsRequest(t *testing.T) {
	agreed, got := make(chan bool), make(chan string)
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: echo"))
		agreed <- true
		b := make([]byte, len("body and more"))
		io.ReadFull(p.in, b)
		got <- string(b)
	})
	w := carry(t, balance.Listener{}, target)
	for range 20 {
		p := w.dial()
		p.say(crlf("POST / HTTP/1.1", "Host: h", "Connection: upgrade", "Upgrade: echo", "Content-Length: 4"), "b")
		within(t, agreed, "the agreement")
		for _, c := range "ody and more" {
			p.say(string(c))
		}
		if s := within(t, got, "what was sent"); s != "body and more" {
			t.Fatalf("the target got %q", s)
		}
		p.Close()
	}
}

// A listener that goes waits for requests, not for connections that have had theirs.
func TestAListenerThatGoesDoesNotWaitForConnectionsThatAreKept(t *testing.T) {
	asked, go_ := make(chan bool), make(chan bool)
	target := web(t, func(w http.ResponseWriter, r *http.Request) { asked <- true; <-go_ })
	w := carry(t, balance.Listener{}, target)
	p := w.dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	<-asked
	w.RemoveListener("l")
	for { // until it takes no more
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			break
		}
		c.Close()
	}
	close(go_)
	began := time.Now()
	if resp, _ := p.answer("GET"); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("got %s, which closes: %v", resp.Status, resp.Close)
	}
	if !p.over() {
		t.Errorf("after %v the connection is still open", time.Since(began))
	}
}

// broken the request, and is left.
func TestATargetThatChangesProtocolUnaskedIsABadGateway(t *testing.T) {
	gone := make(chan bool, 16)
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: echo"))
		gone <- p.over()
	})
	w := carry(t, balance.Listener{}, target)
	c := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
	c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer c.CloseIdleConnections()
	resp, err := c.Get(w.url("/"))
	if err != nil || resp.StatusCode != 502 {
		t.Fatalf("got %v, %v", resp, err)
	}
	if !within(t, gone, "the end of the target's connection") {
		t.Error("the target's connection stays open")
	}
	if n := w.TargetStats("g")[0].InFlight; n != 0 {
		t.Errorf("%d requests are under way", n)
	}
}

// Over HTTP/2 as over HTTP/1.1 it is silence that ends an exchange, not its length.
func TestOnlySilenceEndsAStream(t *testing.T) {
	const idle = 400 * time.Millisecond
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stops" {
			w.Write([]byte("some"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	w := carry(t, balance.Listener{Idle: idle}, target)
	c := &http.Client{Timeout: patience, Transport: &http.Transport{Protocols: new(http.Protocols)}}
	c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer c.CloseIdleConnections()
	out, in := io.Pipe()
	go func() {
		defer in.Close()
		for range 10 {
			<-time.After(idle / 4)
			in.Write([]byte("more"))
		}
	}()
	resp, err := c.Post(w.url("/"), "text/plain", out)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("a long upload got %v, %v", resp, err)
	}
	resp, err = c.Get(w.url("/stops"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil || strings.Contains(err.Error(), "Client.Timeout") {
		t.Errorf("an answer that stops ends with %v", err)
	}
}

// Over TLS it is ALPN that says which protocol is spoken.
func TestThePrefaceOfHTTP2OverTLSNeedsItsName(t *testing.T) {
	cert, _ := authority(t)
	w := carry(t, balance.Listener{TLS: &balance.TLS{Certificates: []tls.Certificate{cert}}}, web(t, func(http.ResponseWriter, *http.Request) {}))
	for range 3 {
		conn, err := tls.Dial("tcp", w.addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		conn.SetReadDeadline(time.Now().Add(patience))
		b, _ := io.ReadAll(io.LimitReader(conn, 12))
		if !strings.HasPrefix(string(b), "HTTP/1.1 ") {
			t.Errorf("it was answered %q", b)
		}
		conn.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for w.Stats()[0].Open != 0 && ctx.Err() == nil {
		runtime.Gosched()
	}
	if n := w.Stats()[0].Open; n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// A listener that comes under TLS keeps its port.
func TestAListenerThatComesUnderTLSKeepsItsPort(t *testing.T) {
	cert, _ := authority(t)
	w := carry(t, balance.Listener{})
	for range 6 {
		was := w.addr
		w.spec.Bind = was
		if w.spec.TLS == nil {
			w.spec.TLS = &balance.TLS{Certificates: []tls.Certificate{cert}}
		} else {
			w.spec.TLS = nil
		}
		if w.listen(); w.addr != was {
			t.Errorf("it was at %s and is at %s", was, w.addr)
		}
	}
}

// A listener may go while its clients shake hands.
func TestAListenerMayGoDuringAHandshake(t *testing.T) {
	cert, _ := authority(t)
	for range 10 {
		w := carry(t, balance.Listener{TLS: &balance.TLS{Certificates: []tls.Certificate{cert}}})
		p := w.dial()
		p.say("\x16\x03\x01")
		for w.Stats()[0].Open == 0 {
			runtime.Gosched()
		}
		w.RemoveListener("l")
		if !p.over() {
			t.Error("the connection is still open")
		}
	}
}

// ends with an empty body has broken off.
func TestAnAnswerWithoutABodyEndsAStreamWithItsHead(t *testing.T) {
	w := carry(t, balance.Listener{}, web(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "0") }))
	c := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
	c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer c.CloseIdleConnections()
	for i := range 200 {
		resp, err := c.Get(w.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		if as := fmt.Sprintf("%T", resp.Body); !strings.Contains(as, "noBody") { // http2noBodyReader
			t.Fatalf("answer %d goes on after its head", i)
		}
	}
}

// An answer that can have no body is said to have none, whatever its target says.
func TestAnAnswerThatCanHaveNoBodyHasNoCoding(t *testing.T) {
	w := carry(t, balance.Listener{}, raw(t, func(p *peer) {
		for p.any() {
			p.head()
			p.say(crlf("HTTP/1.1 204 No Content", "Transfer-Encoding: chunked"), "0\r\n\r\n")
		}
	}))
	p := w.dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	for _, line := range p.head() {
		if strings.HasPrefix(line, "Transfer-Encoding") {
			t.Errorf("it has %q", line)
		}
	}
}
