package balance_test

// These tests look at the balancer from outside, as clients and targets do: bytes
// go in at a listener, and bytes come out at a target. They hold whatever carries
// them inside.
//
// Facts about what an Application Load Balancer does are documented, where no
// other word is given, in these pages of
// https://docs.aws.amazon.com/elasticloadbalancing/latest/ :
//
//	userguide/how-elastic-load-balancing-works.html    headers, limits, 100-continue
//	application/load-balancer-troubleshooting.html     codes
//	application/application-load-balancers.html        desync mitigation
//	application/load-balancer-access-logs.html         classification of requests
//	application/x-forwarded-headers.html               X-Forwarded-*

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"serin/internal/balance"
	"serin/internal/clock"
)

// patience is how long a test waits for what must come. Nothing takes that long, but
// on a machine that has much else to do.
const patience = 30 * time.Second

// world is a running balancer with one listener before one group.
type world struct {
	*balance.Balancer
	t       testing.TB
	spec    balance.Listener
	group   balance.Group
	addr    string // of the listener
	changed chan struct{}
}

// carry runs a balancer whose listener forwards everything to these targets, when
// they are healthy.
func carry(t testing.TB, l balance.Listener, targets ...netip.AddrPort) *world {
	t.Helper()
	c, err := clock.New(1)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Balancer: balance.New(c, slog.New(slog.DiscardHandler)), t: t, changed: make(chan struct{}, 1)}
	w.Changed = func(string) { clock.Poke(w.changed) }
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	w.group = balance.Group{ID: "g", Check: balance.Check{TCP: true, Interval: time.Hour, Timeout: patience, Healthy: 2, Unhealthy: 2}}
	w.aim(targets...)
	l.ID, l.Bind, l.Headers.KeepHost = "l", "127.0.0.1:0", true
	if l.Rules == nil {
		l.Rules = []balance.Rule{{ID: "r", Forward: []balance.Weighted{{Group: "g", Weight: 1}}}}
	}
	w.spec = l
	w.listen()
	w.await(targets...)
	return w
}

// aim makes these the group's targets.
func (w *world) aim(targets ...netip.AddrPort) {
	w.group.Targets = nil
	for _, a := range targets {
		w.group.Targets = append(w.group.Targets, balance.Target{Addr: a})
	}
	w.SetGroup(w.group)
}

func (w *world) listen() {
	w.t.Helper()
	addr, err := w.SetListener(w.spec)
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = addr.String()
}

// await returns when these targets are healthy.
func (w *world) await(targets ...netip.AddrPort) {
	w.t.Helper()
	late := time.After(patience)
	for {
		healthy, health := 0, w.Health("g")
		for _, a := range targets {
			if health[a].State == balance.Healthy {
				healthy++
			}
		}
		if healthy == len(targets) {
			return
		}
		select {
		case <-w.changed:
		case <-late:
			w.t.Fatalf("the targets stay %+v", health)
		}
	}
}

func (w *world) url(path string) string { return "http://" + w.addr + path }

// client is an HTTP client with connections of its own.
func client(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// web is a target that is a net/http server.
func web(t testing.TB, handle http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// raw is a target that does as it is told with every connection. It is closed
// after. A health check is a connection that says nothing.
func raw(t testing.TB, handle func(*peer)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if p := talk(t, conn); p.any() {
					handle(p)
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// peer is a connection that is spoken to in bytes.
type peer struct {
	*net.TCPConn
	t  testing.TB
	in *bufio.Reader
}

func talk(t testing.TB, conn net.Conn) *peer {
	conn.SetDeadline(time.Now().Add(patience))
	return &peer{conn.(*net.TCPConn), t, bufio.NewReader(conn)}
}

// dial opens a connection to the listener.
func (w *world) dial() *peer {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return talk(w.t, conn)
}

// any reports whether the other side says anything.
func (p *peer) any() bool {
	_, err := p.in.Peek(1)
	return err == nil
}

// say sends bytes. Whoever hangs up on them is found out by the answer.
func (p *peer) say(text ...string) {
	io.WriteString(p, strings.Join(text, ""))
}

// answer reads one answer to a request with this method, its body as well.
func (p *peer) answer(method string) (*http.Response, string) {
	p.t.Helper()
	resp, body, err := p.next(method)
	if err != nil {
		p.t.Fatalf("no answer: %v (%q)", err, body)
	}
	return resp, body
}

// next is answer, or why there is none. An answer that breaks off is an error.
func (p *peer) next(method string) (*http.Response, string, error) {
	resp, err := http.ReadResponse(p.in, &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// over reports whether the other side has hung up and said nothing more.
func (p *peer) over() bool {
	_, err := p.in.Peek(1)
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// head reads a request's or an answer's head as lines.
func (p *peer) head() (lines []string) {
	for {
		line, err := p.in.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if err != nil || line == "" {
			return lines
		}
		lines = append(lines, line)
	}
}

// crlf makes a head of lines.
func crlf(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

// abort resets the connection.
func (p *peer) abort() {
	p.SetLinger(0)
	p.Close()
}

// within fails the test when something does not come.
func within[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal(what + " did not come")
	}
	return v
}
