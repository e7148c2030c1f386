package balance_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"serin/internal/balance"
)

// chaos is a number of clients and targets that behave badly by chance. Every body
// is made of its request's number, so whoever gets bytes knows whose they must be.
type chaos struct {
	t      testing.TB
	w      *world
	secure *tls.Config // nil: plain
	next   atomic.Int64
	whole  atomic.Int64 // answers that came whole
	broken atomic.Int64 // and that visibly did not
	own    atomic.Int64 // the balancer's own
}

// written is the body of a request or an answer.
func written(id int64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(id*31 + int64(i)*7 + int64(i>>8)*13 + int64(i>>16))
	}
	return b
}

// serve is a target's side of one connection.
func (c *chaos) serve(p *peer) {
	for {
		p.SetDeadline(time.Now().Add(patience))
		r, err := http.ReadRequest(p.in)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, new(*net.OpError)) && !strings.Contains(err.Error(), "EOF") {
				c.t.Errorf("the target was sent %v", err)
			}
			return
		}
		id, _ := strconv.ParseInt(r.URL.Path[1:], 10, 64)
		size, _ := strconv.Atoi(r.Header.Get("X-Size"))
		how := rand.New(rand.NewPCG(uint64(id), 1))
		early := how.IntN(20) == 0
		read := func() bool {
			body, err := io.ReadAll(r.Body)
			if want := written(id, size); !bytes.HasPrefix(want, body) || err == nil && len(body) != len(want) {
				c.t.Errorf("request %d came as %d bytes of %d, %v, and they were others", id, len(body), size, err)
			}
			return err == nil
		}
		if r.Header.Get("Upgrade") != "" {
			c.echo(p, id)
			return
		}
		if !early && !read() {
			return
		}
		if !c.answer(p, how, id, r.Method == "HEAD") {
			return
		}
		if early && !read() {
			return
		}
	}
}

func (c *chaos) echo(p *peer, id int64) {
	p.say(crlf("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: echo", fmt.Sprint("X-Id: ", id)))
	b := make([]byte, 4096)
	for {
		n, err := p.in.Read(b)
		if _, err := p.Write(b[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// answer answers, and reports whether the connection goes on.
func (c *chaos) answer(p *peer, how *rand.Rand, id int64, isHead bool) bool {
	sizes := []int{0, 1, 100, 512, 4000, 9000, 70000, 300000}
	n := sizes[how.IntN(len(sizes))]
	kind := how.IntN(16)
	if kind == 4 || kind == 8 {
		n = min(n, 512)
	}
	body := written(id, n)
	mine := fmt.Sprintf("X-Id: %d\r\nX-Size: %d\r\nX-Kind: %d", id, n, kind)
	send := func(head string) {
		if isHead {
			body = nil
		}
		p.say(head, string(body))
	}
	switch kind {
	case 0: // dies
		return false
	case 1:
		p.abort()
		return false
	case 2: // breaks off
		p.say(crlf("HTTP/1.1 200 OK", mine, fmt.Sprint("Content-Length: ", n+1)), string(body))
		return false
	case 3:
		p.say(crlf("HTTP/1.1 200 OK", mine, "Transfer-Encoding: chunked"), fmt.Sprintf("%x\r\n", n+1), string(body))
		if how.IntN(2) == 0 {
			p.abort()
		}
		return false
	case 4, 5, 6: // chunks, large and small
		p.say(crlf("HTTP/1.1 200 OK", mine, "Transfer-Encoding: chunked"))
		if isHead {
			return true
		}
		var out bytes.Buffer
		for rest := body; len(rest) > 0; {
			m := min(len(rest), 1+how.IntN([]int{3, 100, 40000}[kind-4]))
			fmt.Fprintf(&out, "%x\r\n%s\r\n", m, rest[:m])
			rest = rest[m:]
			if how.IntN(4) == 0 {
				p.say(out.String())
				out.Reset()
			}
		}
		out.WriteString("0\r\nX-Trailer: t\r\n\r\n")
		p.say(out.String())
		return true
	case 7: // until its end
		send(crlf("HTTP/1.1 200 OK", mine))
		return false
	case 8: // a byte at a time
		out := crlf("HTTP/1.1 200 OK", mine, fmt.Sprint("Content-Length: ", n))
		if !isHead {
			out += string(body)
		}
		for i := range len(out) {
			if _, err := p.Write([]byte{out[i]}); err != nil {
				return false
			}
		}
		return true
	case 9: // early words
		p.say(crlf("HTTP/1.1 103 Early Hints", "Link: x"), crlf("HTTP/1.1 100 Continue"))
		if how.IntN(3) == 0 {
			return false
		}
	case 10: // garbage
		p.say("garbage\r\n\r\n")
		return false
	case 11: // says that it ends
		send(crlf("HTTP/1.1 200 OK", mine, fmt.Sprint("Content-Length: ", n), "Connection: close"))
		return false
	case 12: // does not say it
		send(crlf("HTTP/1.1 200 OK", mine, fmt.Sprint("Content-Length: ", n)))
		return false
	}
	send(crlf("HTTP/1.1 200 OK", mine, fmt.Sprint("Content-Length: ", n)))
	return true
}

func (c *chaos) dial() (net.Conn, error) {
	conn, err := net.Dial("tcp", c.w.addr)
	if err == nil && c.secure != nil {
		conn = tls.Client(conn, c.secure)
	}
	return conn, err
}

// client has one connection and asks until it ends.
func (c *chaos) client(how *rand.Rand) {
	conn, err := c.dial()
	if err != nil {
		c.t.Error(err)
		return
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 1 + how.IntN(30) {
		conn.SetDeadline(time.Now().Add(2 * patience))
		switch k := how.IntN(24); {
		case k == 0:
			c.tunnel(conn, in, how)
			return
		case k == 1:
			if !c.pipeline(conn, in, how) {
				return
			}
		default:
			if !c.ask(conn, in, how) {
				return
			}
		}
	}
}

func abort(conn net.Conn) {
	if s, ok := conn.(*tls.Conn); ok {
		conn = s.NetConn()
	}
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func (c *chaos) ask(conn net.Conn, in *bufio.Reader, how *rand.Rand) bool {
	id := c.next.Add(1)
	method := []string{"GET", "GET", "HEAD", "POST", "PUT"}[how.IntN(5)]
	size := 0
	if method[0] == 'P' {
		size = []int{0, 1, 100, 5000, 20000, 200000}[how.IntN(6)]
	}
	head := fmt.Sprintf("%s /%d HTTP/1.1\r\nHost: h\r\nX-Size: %d\r\n", method, id, size)
	body := written(id, size)
	if size > 0 && how.IntN(10) == 0 {
		head += "Expect: 100-continue\r\n"
	}
	var out bytes.Buffer
	switch {
	case size > 0 && how.IntN(2) == 0:
		out.WriteString(head + "Transfer-Encoding: chunked\r\n\r\n")
		for rest := body; len(rest) > 0; {
			m := min(len(rest), 1+how.IntN(5000))
			fmt.Fprintf(&out, "%x\r\n%s\r\n", m, rest[:m])
			rest = rest[m:]
		}
		out.WriteString("0\r\n\r\n")
	case method[0] == 'P':
		fmt.Fprintf(&out, "%sContent-Length: %d\r\n\r\n%s", head, size, body)
	default:
		out.WriteString(head + "\r\n")
	}
	sent := out.Bytes()
	var both sync.WaitGroup
	defer both.Wait()
	switch k := how.IntN(20); {
	case k == 0 && len(sent) < 6000: // a byte at a time
		for i := range sent {
			if _, err := conn.Write(sent[i : i+1]); err != nil {
				break
			}
		}
	case k == 1: // not all of it
		conn.Write(sent[:how.IntN(len(sent))])
		if how.IntN(2) == 0 {
			abort(conn)
		}
		return false
	case k == 2: // goes before the answer
		conn.Write(sent)
		if how.IntN(2) == 0 {
			abort(conn)
		}
		return false
	case k == 3: // in pieces
		for len(sent) > 0 {
			n := min(len(sent), 1+how.IntN(3000))
			if _, err := conn.Write(sent[:n]); err != nil {
				break
			}
			sent = sent[n:]
			runtime.Gosched()
		}
	default:
		both.Go(func() { conn.Write(sent) })
	}
	return c.read(conn, in, how, id, method)
}

// read reads an answer, and reports whether the connection goes on.
func (c *chaos) read(conn net.Conn, in *bufio.Reader, how *rand.Rand, id int64, method string) bool {
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	for err == nil && resp.StatusCode < 200 {
		resp, err = http.ReadResponse(in, &http.Request{Method: method})
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.t.Errorf("request %d, %s, is not answered", id, method)
		}
		c.broken.Add(1)
		return false
	}
	if resp.Header.Get("X-Id") == "" {
		if resp.StatusCode < 400 {
			c.t.Errorf("request %d got %s of nobody", id, resp.Status)
		}
		c.own.Add(1)
		_, err := io.Copy(io.Discard, resp.Body)
		return err == nil && !resp.Close
	}
	if got := resp.Header.Get("X-Id"); got != strconv.FormatInt(id, 10) {
		c.t.Errorf("request %d got the answer of %s", id, got)
		return false
	}
	if how.IntN(30) == 0 {
		abort(conn)
		return false
	}
	body, err := io.ReadAll(resp.Body)
	size, _ := strconv.Atoi(resp.Header.Get("X-Size"))
	if method == "HEAD" {
		size = 0
	}
	if want := written(id, size); !bytes.HasPrefix(want, body) || err == nil && len(body) != len(want) {
		c.t.Errorf("the answer %d, %v, came as %d bytes of %d, %v, and they were others", id, resp.Header, len(body), size, err)
		return false
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.t.Errorf("the answer %d, %s, stops after %d: %v", id, method, len(body), resp.Header)
		}
		c.broken.Add(1)
		return false
	}
	c.whole.Add(1)
	return !resp.Close
}

// pipeline asks much at once.
func (c *chaos) pipeline(conn net.Conn, in *bufio.Reader, how *rand.Rand) bool {
	n := 2 + how.IntN(100)
	first := c.next.Add(int64(n)) - int64(n) + 1
	var out bytes.Buffer
	for i := range n {
		fmt.Fprintf(&out, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", first+int64(i))
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() { conn.Write(out.Bytes()) })
	for i := range n {
		if !c.read(conn, in, how, first+int64(i), "GET") {
			conn.Close()
			return false
		}
	}
	return true
}

// tunnel changes the protocol, to one that repeats what is said.
func (c *chaos) tunnel(conn net.Conn, in *bufio.Reader, how *rand.Rand) {
	id := c.next.Add(1)
	said := written(id, how.IntN(100000))
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		conn.Write(append(fmt.Appendf(nil, "GET /%d HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", id), said...))
	})
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		conn.Close()
		c.own.Add(1)
		return
	}
	got := make([]byte, how.IntN(len(said)+1))
	if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, said[:len(got)]) {
		c.t.Errorf("the tunnel %d gave %v", id, err)
	}
	abort(conn)
}

// Whatever either side does, nobody gets what is another's, nor takes a
// part for the whole, and nothing stays behind.
func TestNobodyGetsWhatIsAnothers(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) { chaotic(t, secure) })
	}
}

func chaotic(t *testing.T, secure bool) {
	c := &chaos{t: t}
	var l balance.Listener
	if secure {
		cert, _ := authority(t)
		l.TLS = &balance.TLS{Certificates: []tls.Certificate{cert}}
		c.secure = &tls.Config{InsecureSkipVerify: true}
	}
	l.Log = func(*balance.Entry) {}
	var targets []netip.AddrPort
	for range 3 {
		targets = append(targets, raw(t, c.serve))
	}
	c.w = carry(t, l, targets...)
	took := time.Second // or what CHAOS says: a longer run finds more
	if s := os.Getenv("CHAOS"); s != "" {
		took, _ = time.ParseDuration(s)
	}
	end := time.Now().Add(took)
	var clients sync.WaitGroup
	for i := range 32 {
		clients.Go(func() {
			seed := uint64(time.Now().UnixNano())
			for how := rand.New(rand.NewPCG(seed, uint64(i))); time.Now().Before(end) && !t.Failed(); {
				c.client(how)
			}
		})
	}
	clients.Wait()
	t.Logf("%d asked, %d whole, %d broken, %d the balancer's own", c.next.Load(), c.whole.Load(), c.broken.Load(), c.own.Load())
	c.settles("requests under way", func() (n int64) {
		for _, target := range c.w.TargetStats("g") {
			n += int64(target.InFlight)
		}
		return n + c.w.Stats()[0].UnderWay
	})
	c.w.aim() // with no target nothing is kept
	c.settles("open connections", func() int64 { return c.w.Stats()[0].Open })
}

// settles returns when there are none left.
func (c *chaos) settles(what string, left func() int64) {
	c.t.Helper()
	for late := time.After(patience); left() != 0; {
		select {
		case <-late:
			c.t.Fatalf("there are %d %s", left(), what)
		default:
			runtime.Gosched()
		}
	}
}
