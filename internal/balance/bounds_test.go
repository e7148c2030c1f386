package balance_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"serin/internal/balance"
)

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
		"no version":                crlf("HTTP 200 OK", "Content-Length: 0"),
		"a field without a colon":   crlf("HTTP/1.1 200 OK", "Content-Length: 0", "bad field"),
		"a field without a name":    crlf("HTTP/1.1 200 OK", "Content-Length: 0", ": x"),
		"a NUL":                     crlf("HTTP/1.1 200 OK", "Content-Length: 0", "X-A: b\x00c"),
		"a CR":                      crlf("HTTP/1.1 200 OK", "Content-Length: 0", "X-A: b\rSet-Cookie: x=y"),
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
