package balance_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"serin/internal/balance"
)

// soon is an idle timeout that a test can wait for.
const soon = 500 * time.Millisecond

// unharmed checks that another client is answered by another target meanwhile.
func (w *world) unharmed() {
	w.t.Helper()
	p := w.dial()
	p.say(crlf("GET /other HTTP/1.1", "Host: h", "Connection: close"))
	if resp, body := p.answer("GET"); resp.StatusCode != 200 || body != "unharmed" {
		w.t.Errorf("meanwhile another client got %s %q", resp.Status, body)
	}
}

// besides is a rule for everything at /other, before the others.
func besides(t testing.TB, w *world) {
	t.Helper()
	other := web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "unharmed") })
	w.SetGroup(balance.Group{ID: "other", Targets: []balance.Target{{Addr: other}}, Check: w.group.Check})
	w.spec.Rules = append([]balance.Rule{{
		ID: "other", Match: []balance.Condition{{Field: "path-pattern", Values: []string{"/other"}}}, Forward: []balance.Weighted{{Group: "other", Weight: 1}},
	}}, w.spec.Rules...)
	w.listen()
}

// A head is measured as the documentation has it: 16 K for the request line and
// for a single header, 64 K for all of them.
func TestAHeadThatIsTooLargeIsRefused(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	besides(t, w)
	for _, c := range []struct {
		name  string
		head  string
		codes []int
	}{
		{"a request line", crlf("GET /"+strings.Repeat("a", 16<<10)+" HTTP/1.1", "Host: h"), []int{414, 413, 400}},
		{"a query", crlf("GET /?"+strings.Repeat("a", 70<<10)+" HTTP/1.1", "Host: h"), []int{414, 413, 400}},
		{"a method", crlf(strings.Repeat("A", 17<<10)+" / HTTP/1.1", "Host: h"), []int{405, 414, 413, 400}},
		{"a header", crlf("GET / HTTP/1.1", "Host: h", "X-A: "+strings.Repeat("a", 16<<10)), []int{413, 400}},
		{"a name", crlf("GET / HTTP/1.1", "Host: h", strings.Repeat("a", 17<<10)+": a"), []int{413, 400}},
		{"many headers", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 66) + "\r\n", []int{413, 400}},
		{"many small headers", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("a:\r\n", 17<<10) + "\r\n", []int{413, 400}},
		{"a head of 8 MiB", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 8<<10), []int{413, 400}},
		{"a line of 8 MiB", "GET /" + strings.Repeat("a", 8<<20), []int{414, 413, 400}},
	} {
		before, _ := j.requests()
		p := w.dial()
		go p.say(c.head)
		resp, _, err := p.next("GET")
		if err != nil || !slices.Contains(c.codes, resp.StatusCode) || !p.over() {
			t.Errorf("%s: got %v, %v", c.name, resp, err)
		}
		if after, _ := j.requests(); len(after) != len(before) {
			t.Errorf("%s: it was carried", c.name)
		}
		p.Close()
		w.unharmed()
	}
}

func TestTooManyForwardedAddressesAreRefused(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{}, j.addr)
	for n, want := range map[int]int{29: 200, 31: 463} {
		p := w.dial()
		p.say(crlf("GET / HTTP/1.1", "Host: h", "X-Forwarded-For: "+strings.TrimSuffix(strings.Repeat("203.0.113.7, ", n), ", ")))
		if resp, _ := p.answer("GET"); resp.StatusCode != want {
			t.Errorf("%d addresses got %s", n, resp.Status)
		}
	}
}

// Who says nothing for the idle timeout is hung up on; with a request begun, it
// is told 408.
func TestSlowClientsAreNotWaitedFor(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{Idle: soon}, j.addr)
	besides(t, w)
	for _, c := range []struct {
		name, says string
		codes      []int
	}{
		{"nothing", "", []int{408}},
		{"after an answer", crlf("GET / HTTP/1.1", "Host: h"), []int{200}},
		{"within a request line", "GET /", []int{408}},
		{"within the head", "GET / HTTP/1.1\r\nHost: h\r\nX-A", []int{408}},
		{"within a body", crlf("POST / HTTP/1.1", "Host: h", "Content-Length: 10") + "some", []int{408}},
		{"within a chunk", crlf("POST / HTTP/1.1", "Host: h", chunked) + "a\r\nsome", []int{408}},
	} {
		p := w.dial()
		p.say(c.says)
		w.unharmed()
		var codes []int
		for range 3 {
			resp, _, err := p.next("GET")
			if err != nil {
				break
			}
			codes = append(codes, resp.StatusCode)
		}
		if !p.over() {
			t.Errorf("%s: it is waited for", c.name)
		}
		if len(codes) > 0 && !slices.Equal(codes, c.codes) {
			t.Errorf("%s: it got %v", c.name, codes)
		}
		p.Close()
	}
	if all, _ := j.requests(); len(all) != 1 {
		t.Errorf("the target had %d whole requests", len(all))
	}
}

// A head that comes byte by byte has its time as a whole; guessed.
func TestAHeadThatDripsIsNotWaitedFor(t *testing.T) {
	j := judged(t)
	w := carry(t, balance.Listener{Idle: soon}, j.addr)
	besides(t, w)
	p := w.dial()
	p.say("GET / HTTP/1.1\r\nHost: h\r\nX-A: ")
	p.SetReadDeadline(time.Time{})
	hungUp := make(chan bool)
	go func() { p.in.ReadString(0); close(hungUp) }()
	drops, late := time.NewTicker(soon/10), time.After(patience)
	defer drops.Stop()
	for {
		select {
		case <-hungUp:
			w.unharmed()
			return
		case <-drops.C:
			p.say("a")
		case <-late:
			t.Fatal("it is waited for")
		}
	}
}

// A target that does not answer is waited for as long as nothing may happen on a
// connection.
func TestATargetThatNeverAnswersIsGivenUp(t *testing.T) {
	w := carry(t, balance.Listener{Idle: soon})
	besides(t, w)
	for _, says := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A"} {
		gone := make(chan bool, 1)
		w.aim(raw(t, func(p *peer) {
			p.head()
			p.say(says)
			p.any()
			gone <- true
		}))
		p := w.dial()
		p.say(crlf("GET / HTTP/1.1", "Host: h"))
		w.unharmed()
		if resp, _ := p.answer("GET"); resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("after %q the client got %s", says, resp.Status)
		}
		within(t, gone, "the end of the target's connection")
	}
}

func TestAnAnswerThatStopsIsGivenUp(t *testing.T) {
	w := carry(t, balance.Listener{Idle: soon})
	stop := make(chan bool)
	t.Cleanup(func() { close(stop) })
	w.aim(raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Content-Length: 100"), "some")
		<-stop
	}))
	p := w.dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	if resp, body, err := p.next("GET"); err == nil && resp.StatusCode == 200 {
		t.Errorf("the client got a whole answer %q", body)
	}
	if !p.over() {
		t.Error("it is waited for")
	}
}

// garbage is answers that no client may be given, and what is wrong with them.
func garbage() map[string]string {
	answers := map[string]string{
		"nothing":                   "",
		"another protocol":          "SSH-2.0-OpenSSH_9.2\r\n",
		"HTTP/0.9":                  "<html>hello</html>",
		"an empty line":             "\r\n\r\n",
		"no code":                   crlf("HTTP/1.1 OK", "Content-Length: 0"),
		"a code of letters":         crlf("HTTP/1.1 2xx OK", "Content-Length: 0"),
		"a code of two digits":      crlf("HTTP/1.1 20 OK", "Content-Length: 0"),
		"a code of four digits":     crlf("HTTP/1.1 2000 OK", "Content-Length: 0"),
		"a negative code":           crlf("HTTP/1.1 -20 OK", "Content-Length: 0"),
		"another version":           crlf("HTTP/3.7 200 OK", "Content-Length: 0"),
		"no version":                crlf("HTTP 200 OK", "Content-Length: 0"),
		"a field without a colon":   crlf("HTTP/1.1 200 OK", "Content-Length: 0", "bad field"),
		"a field without a name":    crlf("HTTP/1.1 200 OK", "Content-Length: 0", ": x"),
		"a NUL":                     crlf("HTTP/1.1 200 OK", "Content-Length: 0", "X-A: b\x00c"),
		"a CR":                      crlf("HTTP/1.1 200 OK", "Content-Length: 0", "X-A: b\rSet-Cookie: x=y"),
		"a space in a name":         crlf("HTTP/1.1 200 OK", "Content-Length: 0", "X A: b"),
		"two lengths":               crlf("HTTP/1.1 200 OK", "Content-Length: 2", "Content-Length: 3") + "abc",
		"a negative length":         crlf("HTTP/1.1 200 OK", "Content-Length: -1") + "abc",
		"a length with a sign":      crlf("HTTP/1.1 200 OK", "Content-Length: +3") + "abc",
		"a length of words":         crlf("HTTP/1.1 200 OK", "Content-Length: three") + "abc",
		"a length that is too big":  crlf("HTTP/1.1 200 OK", "Content-Length: 99999999999999999999") + "abc",
		"an unknown coding":         crlf("HTTP/1.1 200 OK", "Transfer-Encoding: xchunked") + "3\r\nabc\r\n0\r\n\r\n",
		"a coding after chunked":    crlf("HTTP/1.1 200 OK", "Transfer-Encoding: chunked, gzip") + "3\r\nabc\r\n0\r\n\r\n",
		"half a head":               "HTTP/1.1 200 OK\r\nContent-Le",
		"half a field":              "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
		"a switch nobody asked for": crlf("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: x"),
		"only early answers":        crlf("HTTP/1.1 103 Early Hints"),
	}
	return answers
}

func TestATargetThatAnswersGarbageIsABadGateway(t *testing.T) { answersBadly(t, garbage()) }

// The head of an answer may have 32 K.
func TestAnAnswerWithAHugeHeadIsABadGateway(t *testing.T) {
	many := strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 33)
	answersBadly(t, map[string]string{
		"a huge field":      crlf("HTTP/1.1 200 OK", "Content-Length: 0", "X-A: "+strings.Repeat("a", 33<<10)),
		"many fields":       "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + many + "\r\n",
		"an endless head":   "HTTP/1.1 200 OK\r\n" + strings.Repeat(many, 120),
		"an endless line":   "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 4<<20),
		"an endless status": "HTTP/1.1 200 " + strings.Repeat("a", 4<<20),
		"endless hints":     strings.Repeat(crlf("HTTP/1.1 103 Early Hints", "X-A: "+strings.Repeat("a", 1000)), 4<<10),
	})
}

func answersBadly(t *testing.T, answers map[string]string) {
	w := carry(t, balance.Listener{})
	besides(t, w)
	for name, answer := range answers {
		w.aim(raw(t, func(p *peer) {
			p.head()
			p.say(answer)
		}))
		h := measured()
		p := w.dial()
		p.say(crlf("GET / HTTP/1.1", "Host: h"), crlf("GET /other HTTP/1.1", "Host: h"))
		resp, _, err := p.next("GET")
		for err == nil && resp.StatusCode == 103 {
			resp, _, err = p.next("GET")
		}
		if err != nil || resp.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: the client got %v, %v", name, resp, err)
		} else if next, body, err := p.next("GET"); err == nil && (next.StatusCode != 200 || body != "unharmed") {
			t.Errorf("%s: the next on its connection got %s %q", name, next.Status, body)
		}
		if h.look(); h.most > spare {
			t.Errorf("%s: it needed %d MiB", name, h.most>>20)
		}
		p.Close()
		w.unharmed()
	}
}

// What a target says beyond its answer is said to nobody.
func TestWhatComesAfterAnAnswerIsForNobody(t *testing.T) {
	poison := crlf("HTTP/1.1 200 OK", "Content-Length: 6") + "poison"
	for name, c := range map[string]struct{ method, answer string }{
		"after an answer":                {"GET", crlf("HTTP/1.1 200 OK", "Content-Length: 2") + "ok"},
		"after chunks":                   {"GET", crlf("HTTP/1.1 200 OK", chunked) + "2\r\nok\r\n0\r\n\r\n"},
		"after a HEAD":                   {"HEAD", crlf("HTTP/1.1 200 OK", fmt.Sprint("Content-Length: ", len(poison)))},
		"after nothing new":              {"GET", crlf("HTTP/1.1 304 Not Modified", fmt.Sprint("Content-Length: ", len(poison)))},
		"after an answer without a body": {"GET", crlf("HTTP/1.1 204 No Content")},
	} {
		target := raw(t, func(p *peer) {
			for p.any() {
				p.head()
				p.say(c.answer, poison)
			}
		})
		w := carry(t, balance.Listener{}, target)
		for range 10 {
			p := w.dial()
			p.say(crlf(c.method+" / HTTP/1.1", "Host: h"))
			if resp, body := p.answer(c.method); strings.Contains(body, "poison") || resp.StatusCode/100 > 3 && resp.StatusCode != 502 {
				t.Errorf("%s: got %s %q", name, resp.Status, body)
			}
			p.Close()
		}
	}
}
