package balance_test

import (
	"io"
	"sync/atomic"
	"testing"

	"serin/internal/balance"
)

// A target that dies before it answers costs a request that may be repeated
// nothing, and no request is sent more than twice.
func TestARequestIsRepeatedOnceWhereThatIsSafe(t *testing.T) {
	for _, c := range []struct {
		method, body string
		repeated     bool
	}{
		{"GET", "", true}, {"HEAD", "", true}, {"OPTIONS", "", true},
		{"POST", "", false}, {"POST", "body", false}, {"PATCH", "body", false}, {"GET", "body", false},
	} {
		var died, lived atomic.Int64
		dies := raw(t, func(p *peer) { p.head(); died.Add(1) })
		lives := raw(t, func(p *peer) {
			for p.any() {
				p.head()
				p.in.Discard(len(c.body))
				lived.Add(1)
				p.say(crlf("HTTP/1.1 200 OK", "Content-Length: 0"))
			}
		})
		w := carry(t, balance.Listener{}, dies, lives)
		failed := 0
		for range 8 {
			p := w.dial()
			head := []string{c.method + " / HTTP/1.1", "Host: h"}
			if c.body != "" || c.method != "GET" {
				head = append(head, "Content-Length: "+string(rune('0'+len(c.body))))
			}
			p.say(crlf(head...), c.body)
			if resp, _ := p.answer(c.method); resp.StatusCode != 200 {
				failed++
				if resp.StatusCode != 502 {
					t.Errorf("%s: got %s", c.method, resp.Status)
				}
			}
			p.Close()
		}
		if n := died.Load(); c.repeated && (failed > 0 || lived.Load() != 8 || n == 0 || n > 8 || w.Traffic("g").Retried != uint64(n)) {
			t.Errorf("%s: %d failed, %d died, %d lived, %d were counted", c.method, failed, died.Load(), lived.Load(), w.Traffic("g").Retried)
		}
		if !c.repeated && (failed != 4 || died.Load() != 4 || lived.Load() != 4) {
			t.Errorf("%s with %q: %d failed, %d died, %d lived", c.method, c.body, failed, died.Load(), lived.Load())
		}
	}
}

func TestARequestThatNobodyAnswersIsRepeatedOnce(t *testing.T) {
	var died atomic.Int64
	dies := func(p *peer) { p.head(); died.Add(1) }
	p := carry(t, balance.Listener{}, raw(t, dies), raw(t, dies), raw(t, dies)).dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	if resp, _ := p.answer("GET"); resp.StatusCode != 502 || died.Load() != 2 {
		t.Errorf("got %s after %d targets", resp.Status, died.Load())
	}
}

// Once an answer has begun nothing is repeated.
func TestAnAnswerThatBeganIsNotRepeated(t *testing.T) {
	var asked atomic.Int64
	breaks := func(p *peer) {
		p.head()
		asked.Add(1)
		p.say(crlf("HTTP/1.1 200 OK", "Content-Length: 10"), "half")
	}
	p := carry(t, balance.Listener{}, raw(t, breaks), raw(t, breaks)).dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	if resp, body, err := p.next("GET"); err == nil && resp.StatusCode == 200 {
		t.Errorf("got a whole answer %q", body)
	}
	if asked.Load() != 1 {
		t.Errorf("it was asked for %d times", asked.Load())
	}
}

// A target may close a connection that it has kept, at any time but while it has
// a request; that is nobody's failure.
func TestAKeptConnectionThatItsTargetClosedIsNoFailure(t *testing.T) {
	closed := make(chan bool, 1)
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Content-Length: 0"))
		p.Close()
		closed <- true
	})
	w := carry(t, balance.Listener{}, target)
	p := w.dial()
	for i := range 50 {
		method := []string{"GET", "POST"}[i%2]
		p.say(crlf(method+" / HTTP/1.1", "Host: h", "Content-Length: 0"))
		if resp, _ := p.answer(method); resp.StatusCode != 200 {
			t.Fatalf("request %d, %s, got %s", i, method, resp.Status)
		}
		within(t, closed, "the end of the kept connection")
	}
	if n := w.Traffic("g").Unanswered; n > 0 {
		t.Errorf("%d requests failed", n)
	}
}

// One that has ended its own side of a kept connection, and reads on, says nothing
// of what it is sent.
func TestAKeptConnectionThatItsTargetHalfClosedIsNoFailure(t *testing.T) {
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Content-Length: 0"))
		p.CloseWrite()
		io.Copy(io.Discard, p.TCPConn)
	})
	w := carry(t, balance.Listener{}, target)
	request := crlf("GET / HTTP/1.1", "Host: h")
	for range 50 {
		p := w.dial()
		p.say(request, request, request) // so that they follow each other closely
		for range 3 {
			if resp, _ := p.answer("GET"); resp.StatusCode != 200 {
				t.Fatalf("got %s", resp.Status)
			}
		}
		p.Close()
	}
	if n := w.Traffic("g").Unanswered; n > 0 {
		t.Errorf("%d requests failed", n)
	}
}
