package balance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"serin/internal/balance"
)

const (
	large = 64 << 20
	spare = 40 << 20 // what may be on the heap beyond what was there: no body is
)

// heap is how much more is in use than when it began, at most.
type heap struct{ began, most uint64 }

func measured() *heap {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return &heap{began: m.HeapAlloc}
}

func (h *heap) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.most = max(h.most, m.HeapAlloc-min(h.began, m.HeapAlloc))
}

// A body goes on while it comes, in either direction, with a length and without.
func TestLargeBodiesAreNotKept(t *testing.T) {
	first, rest := make(chan bool, 1), make(chan bool)
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			one := make([]byte, 1)
			io.ReadFull(r.Body, one)
			first <- true
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n+1, err)
			return
		}
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(large))
		}
		block := bytes.Repeat([]byte("x"), 1<<20)
		w.Write(block)
		w.(http.Flusher).Flush()
		<-rest
		for range large>>20 - 1 {
			w.Write(block)
		}
	})
	w := carry(t, balance.Listener{}, target)
	block := bytes.Repeat([]byte("x"), 1<<20)
	for _, c := range []struct{ name, field, before, after, end string }{
		{"with a length", fmt.Sprint("Content-Length: ", large), "", "", ""},
		{"in chunks", "Transfer-Encoding: chunked", "100000\r\n", "\r\n", "0\r\n\r\n"},
	} {
		t.Run("up "+c.name, func(t *testing.T) {
			p, h := w.dial(), measured()
			p.say(crlf("POST / HTTP/1.1", "Host: h", c.field), c.before, string(block), c.after)
			within(t, first, "the first byte")
			for range large>>20 - 1 {
				p.say(c.before)
				p.Write(block)
				p.say(c.after)
				h.look()
			}
			p.say(c.end)
			if _, got := p.answer("POST"); got != fmt.Sprint(large, "<nil>") && got != fmt.Sprint(large, " <nil>") {
				t.Errorf("the target had %s", got)
			}
			if h.most > spare {
				t.Errorf("it needed %d MiB", h.most>>20)
			}
		})
	}
	for _, path := range []string{"/length", "/chunked"} {
		t.Run("down "+path, func(t *testing.T) {
			h := measured()
			resp, err := client(t).Get(w.url(path))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			n, err := io.ReadFull(resp.Body, block)
			rest <- true // only now is there more
			for err == nil {
				var more int
				more, err = io.ReadFull(resp.Body, block)
				n += more
				h.look()
			}
			if n != large || !errors.Is(err, io.EOF) {
				t.Errorf("the client had %d bytes, %v", n, err)
			}
			if h.most > spare {
				t.Errorf("it needed %d MiB", h.most>>20)
			}
		})
	}
}

// A client that does not read stops the target; nothing is kept for it.
func TestASlowReaderHoldsItsTargetBack(t *testing.T) {
	var done atomic.Bool
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 1<<20)
		for range large >> 20 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
		done.Store(true)
	})
	w := carry(t, balance.Listener{}, target)
	h := measured()
	p := w.dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	p.any()
	other, err := client(t).Head(w.url("/")) // meanwhile others are answered
	if err != nil || other.StatusCode != 200 {
		t.Errorf("another client got %v, %v", other, err)
	}
	h.look()
	if _, err := io.CopyN(io.Discard, p.in, 16<<20); err != nil {
		t.Fatal(err)
	}
	h.look()
	if h.most > spare {
		t.Errorf("it needed %d MiB", h.most>>20)
	}
	p.abort()
}

func TestEventsAreSentAsTheyHappen(t *testing.T) {
	next := make(chan string)
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for e := range next {
			fmt.Fprintf(w, "data: %s\n\n", e)
			w.(http.Flusher).Flush()
		}
	})
	w := carry(t, balance.Listener{}, target)
	p := w.dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h", "Accept: text/event-stream"))
	next <- "0"
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(resp, err)
	}
	for i := range 20 {
		if i > 0 {
			next <- fmt.Sprint(i)
		}
		event := make([]byte, len(fmt.Sprintf("data: %d\n\n", i)))
		if _, err := io.ReadFull(resp.Body, event); err != nil || string(event) != fmt.Sprintf("data: %d\n\n", i) {
			t.Fatalf("event %d is %q, %v", i, event, err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("after the last event came %q, %v", rest, err)
	}
}

// An answer without any length ends with its connection.
func TestAnAnswerMayEndWithItsConnection(t *testing.T) {
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK", "X-A: 1"), "one ", "two")
	})
	w := carry(t, balance.Listener{}, target)
	for range 3 {
		resp, err := client(t).Get(w.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "one two" || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
	}
}

// A load balancer answers 100 itself and does not tell its target of it.
func TestContinueIsAnsweredAtOnce(t *testing.T) {
	j := judged(t)
	p := carry(t, balance.Listener{}, j.addr).dial()
	for range 3 {
		p.say(crlf("POST / HTTP/1.1", "Host: h", "Expect: 100-continue", "Content-Length: 5"))
		if head := p.head(); len(head) == 0 || !strings.HasPrefix(head[0], "HTTP/1.1 100") {
			t.Fatalf("the answer to Expect is %q", head)
		}
		p.say("hello")
		if resp, body := p.answer("POST"); resp.StatusCode != 200 || body != "POST /\nhello" {
			t.Errorf("got %s %q", resp.Status, body)
		}
		if got := j.last(t).folded("Expect"); got != nil {
			t.Errorf("the target was sent Expect %q", got)
		}
	}
}

// A target may refuse a request of which it has only read the head, and its
// client hears of it though it is still sending.
func TestARefusalReachesAClientThatIsStillSending(t *testing.T) {
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 413 Too Large", "Connection: close", "Content-Length: 2"), "no")
		io.Copy(io.Discard, p.in)
	})
	w := carry(t, balance.Listener{}, target)
	for _, fields := range [][]string{{"Content-Length: 1000000"}, {"Expect: 100-continue", "Content-Length: 1000000"}, {"Transfer-Encoding: chunked"}} {
		p := w.dial()
		p.say(crlf(append([]string{"POST / HTTP/1.1", "Host: h"}, fields...)...))
		p.say("5\r\nhello\r\n")
		var resp *http.Response
		for resp == nil || resp.StatusCode == 100 {
			resp, _ = p.answer("POST")
		}
		if resp.StatusCode != 413 {
			t.Errorf("%q got %s", fields, resp.Status)
		}
	}
}

// Both sides may talk at one time.
func TestAnAnswerMayBeginBeforeItsRequestEnds(t *testing.T) {
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
		for {
			line, err := p.in.ReadString('\n') // a chunk's size
			if err != nil || strings.HasPrefix(line, "0") {
				break
			}
			line, _ = p.in.ReadString('\n')
			p.say("5\r\n", strings.ToUpper(strings.TrimSpace(line)), "\r\n")
		}
		p.say("0\r\n\r\n")
	})
	p := carry(t, balance.Listener{}, target).dial()
	p.say(crlf("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"), "5\r\nhello\r\n")
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HELLO", "AGAIN"} {
		got := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v", got, err)
		}
		if want == "HELLO" {
			p.say("5\r\nagain\r\n")
		}
	}
	p.say("0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("the end is %q, %v", rest, err)
	}
}

func TestEarlyAnswersArePassedOn(t *testing.T) {
	target := raw(t, func(p *peer) {
		for p.any() {
			p.head()
			p.say(crlf("HTTP/1.1 103 Early Hints", "Link: </a.css>; rel=preload"), crlf("HTTP/1.1 103 Early Hints", "Link: </b.css>; rel=preload"))
			p.say(crlf("HTTP/1.1 200 OK", "Content-Length: 2"), "ok")
		}
	})
	p := carry(t, balance.Listener{}, target).dial()
	for range 2 {
		p.say(crlf("GET / HTTP/1.1", "Host: h"))
		for _, want := range []string{"</a.css>; rel=preload", "</b.css>; rel=preload"} {
			head := strings.Join(p.head(), "\n")
			if !strings.HasPrefix(head, "HTTP/1.1 103") || !strings.Contains(head, "Link: "+want) {
				t.Fatalf("the hint %s is %q", want, head)
			}
		}
		if resp, body := p.answer("GET"); resp.StatusCode != 200 || body != "ok" {
			t.Fatalf("the answer is %s %q", resp.Status, body)
		}
	}
}

func TestATargetSeesThatItsClientIsGone(t *testing.T) {
	asked, gone := make(chan bool, 1), make(chan error, 1)
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			return
		case "/thinking":
			io.Copy(io.Discard, r.Body)
		case "/answering":
			io.WriteString(w, "first")
			w.(http.Flusher).Flush()
		case "/reading":
			r.Body.Read(make([]byte, 1))
		}
		asked <- true
		if r.URL.Path == "/reading" {
			_, err := io.Copy(io.Discard, r.Body)
			gone <- err
			return
		}
		<-r.Context().Done()
		gone <- r.Context().Err()
	})
	w := carry(t, balance.Listener{}, target)
	for _, c := range []struct{ name, request string }{
		{"before the answer", crlf("GET /thinking HTTP/1.1", "Host: h")},
		{"before the answer to a body", crlf("POST /thinking HTTP/1.1", "Host: h", "Content-Length: 2") + "ok"},
		{"within the answer", crlf("GET /answering HTTP/1.1", "Host: h")},
		{"within the request", crlf("POST /reading HTTP/1.1", "Host: h", "Content-Length: 1000") + "some"},
		{"within a chunked request", crlf("POST /reading HTTP/1.1", "Host: h", "Transfer-Encoding: chunked") + "4\r\nsome\r\n"},
	} {
		for _, abort := range []bool{false, true} {
			p := w.dial()
			p.say(c.request)
			within(t, asked, c.name+": the request")
			if abort {
				p.abort()
			} else {
				p.Close()
			}
			if err := within(t, gone, c.name+": the end of the client"); err == nil {
				t.Errorf("%s: the request ended well", c.name)
			}
		}
	}
	resp, err := client(t).Head(w.url("/")) // and the balancer goes on
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// A client may end its side when it has asked. Then it gets its answer or, as one
// that is gone, none; but none that nobody gave.
func TestAClientThatHasSaidAllIsNotLiedTo(t *testing.T) {
	asked, finish := make(chan bool), make(chan bool)
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		select {
		case <-finish:
			io.WriteString(w, "answer")
		case <-r.Context().Done():
		}
	})
	p := carry(t, balance.Listener{}, target).dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	within(t, asked, "the request")
	p.CloseWrite()
	go func() {
		select {
		case finish <- true:
		case <-t.Context().Done():
		}
	}()
	if resp, body, err := p.next("GET"); err == nil && resp.StatusCode < 400 && body != "answer" {
		t.Errorf("got %s %q", resp.Status, body)
	}
}

// An answer that breaks off must look so, whatever ends it.
func TestABrokenAnswerIsNeverWhole(t *testing.T) {
	w := carry(t, balance.Listener{})
	for _, c := range []struct{ name, head, body string }{
		{"with a length", "Content-Length: 100", "some"},
		{"in chunks", "Transfer-Encoding: chunked", "4\r\nsome\r\n"},
		{"within a chunk", "Transfer-Encoding: chunked", "40\r\nsome"},
		{"before the last chunk's end", "Transfer-Encoding: chunked", "4\r\nsome\r\n0\r\n"},
		{"with a chunk that is none", "Transfer-Encoding: chunked", "4\r\nsome\r\nxyz\r\n"},
		{"with a chunk that is too long", "Transfer-Encoding: chunked", "4\r\nsome more\r\n0\r\n\r\n"},
	} {
		for _, abort := range []bool{false, true} {
			sent := make(chan bool)
			target := raw(t, func(p *peer) {
				p.head()
				p.say(crlf("HTTP/1.1 200 OK", c.head), c.body)
				<-sent
				if abort {
					p.abort()
				}
			})
			w.aim(target)
			for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
				chunked := strings.Contains(c.head, "chunked")
				if chunked && version == "HTTP/1.0" {
					continue // the end of the connection is all that such a client could see
				}
				p := w.dial()
				p.say(crlf("GET / "+version, "Host: h"))
				if chunked {
					p.any() // what was sent has come, so it is not lost with the connection
				}
				sent <- true
				resp, body, err := p.next("GET")
				if err == nil && resp.StatusCode == 200 {
					t.Errorf("%s, aborted %v: a client of %s got %q and no error", c.name, abort, version, body)
				}
			}
		}
	}
}

// What has come of an answer is passed on, whatever more is to come.
func TestTheBeginningOfAnAnswerIsPassedOn(t *testing.T) {
	more := make(chan bool)
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 200 OK", "Content-Length: 8"), "some")
		<-more
		p.say("more")
	})
	p := carry(t, balance.Listener{}, target).dial()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	came := p.any()
	close(more)
	if _, body := p.answer("GET"); body != "somemore" || !came {
		t.Errorf("the beginning came: %v; in the end it was %q", came, body)
	}
}

// Headers of the documented sizes pass.
func TestHeadsAsLargeAsDocumentedPass(t *testing.T) {
	target := web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("y", 30<<10))
		fmt.Fprint(w, len(r.RequestURI), len(r.Header.Get("X-0"))*len(r.Header["X-0"]))
	})
	w := carry(t, balance.Listener{}, target)
	r, err := http.NewRequestWithContext(context.Background(), "GET", w.url("/"+strings.Repeat("p", 15000)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.Header.Add("X-0", strings.Repeat("v", 15000))
	}
	resp, err := client(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "15001 45000" || len(resp.Header.Get("X-Large")) != 30<<10 {
		t.Errorf("got %s %.40q with a header of %d", resp.Status, body, len(resp.Header.Get("X-Large")))
	}
}
