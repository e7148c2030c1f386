package balance_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"serin/internal/balance"
)

// The last answer of a connection reaches a client that has said more.
func TestTheLastAnswerReachesAClientThatHasSaidMore(t *testing.T) {
	body := strings.Repeat("x", 300_000)
	more := strings.Repeat(crlf("GET / HTTP/1.1", "Host: h"), 1000)
	w := carry(t, balance.Listener{}, web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) }))
	for i := range 5 {
		p := w.dial()
		p.say(crlf("GET / HTTP/1.1", "Host: h", "Connection: close"), more)
		for w.Stats()[0].Rules["r"].Codes[2] <= uint64(i) || w.Stats()[0].UnderWay > 0 { // it is sent, and not read yet
			runtime.Gosched()
		}
		if _, got, err := p.next("GET"); err != nil || len(got) != len(body) {
			t.Errorf("%d bytes came, %v", len(got), err)
		}
		p.Close()
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

// its target has broken it off.
func TestABrokenAnswerIsNotWholeUnderTLSEither(t *testing.T) {
	cert, _ := authority(t)
	come := make(chan bool)
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK"), "some")
		<-come
		p.abort()
	})
	w := carry(t, balance.Listener{TLS: &balance.TLS{Certificates: []tls.Certificate{cert}}}, target)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := c.Get("https://" + w.addr)
	if err != nil {
		t.Fatal(err)
	}
	come <- true
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%q came and no error", body)
	}
}

// answered with it.
func TestAFixedAnswerThatCanHaveNoBodyHasNone(t *testing.T) {
	w := carry(t, balance.Listener{Rules: []balance.Rule{{ID: "r", Fixed: &balance.Fixed{Code: 204, ContentType: "text/plain", Body: "words"}}}})
	p := w.dial()
	for range 2 {
		p.say(crlf("GET / HTTP/1.1", "Host: h"))
		if resp, _ := p.answer("GET"); resp.StatusCode != 204 || resp.Header.Get("Content-Length") != "" {
			t.Errorf("got %s, %v", resp.Status, resp.Header)
		}
	}
}

// A group that no rule forwards to any more keeps no connections.
func TestAGroupThatIsNotUsedKeepsNoConnections(t *testing.T) {
	ended := make(chan bool, 1)
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Content-Length: 0"))
		ended <- p.over()
	})
	w := carry(t, balance.Listener{}, target)
	p := w.dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h", "Connection: close"))
	p.answer("GET")
	p.over()
	w.spec.Rules = []balance.Rule{{ID: "r", Fixed: &balance.Fixed{Code: 200}}}
	w.listen()
	if !within(t, ended, "the end of the connection") {
		t.Error("it is still open")
	}
}
