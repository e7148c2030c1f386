package balance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Check is how a group's targets are checked.
type Check struct {
	TCP       bool    // a connection that opens suffices; Path and Matcher are of HTTP
	TLS       bool    // over TLS
	Version   Version // GRPC: Path is a method's, Matcher has gRPC's codes
	Port      uint16  // 0: the target's own
	Path      string
	Matcher   string        // codes: "200", "200,202", "200-299"
	Interval  time.Duration // stage time
	Timeout   time.Duration // wall time: a socket does not run faster
	Healthy   int           // successes in a row to come back
	Unhealthy int           // failures in a row to be given up
}

// Run checks targets until ctx ends, then closes every listener. One loop
// keeps the next wake; each check runs by itself.
func (b *Balancer) Run(ctx context.Context) error {
	var checks sync.WaitGroup
	defer checks.Wait()
	p := newProber(b.Network)
	for {
		next := b.startDue(ctx, p, &checks)
		if _, err := b.Clock.Wait(ctx, next, b.wake); err != nil {
			b.closeAll()
			return nil
		}
	}
}

func (b *Balancer) closeAll() {
	b.mu.Lock()
	open := b.listeners
	b.closed = true
	b.listeners = map[string]*listener{}
	b.mu.Unlock() // what is under way still asks for its group
	var wg sync.WaitGroup
	for _, l := range open {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(b.drain.Load()))
			defer cancel()
			if l.server.Shutdown(ctx) != nil {
				l.server.Close()
			}
		})
	}
	wg.Wait()
	for _, t := range b.transports {
		t.CloseIdleConnections()
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, g := range b.groups {
		g.mu.Lock()
		for _, t := range g.targets {
			t.kept.prune(time.Time{}, true)
		}
		g.mu.Unlock()
	}
}

// startDue starts every check whose time has come and returns the next time.
func (b *Balancer) startDue(ctx context.Context, p *prober, checks *sync.WaitGroup) (next time.Time) {
	now := b.Clock.Now()
	for _, c := range b.due.pop(now) {
		g, t := c.g, c.t
		g.mu.Lock()
		t.queued = false
		t.checking = g.used && !t.gone
		check, starts := g.spec.Check, t.checking
		g.mu.Unlock()
		if !starts {
			continue
		}
		checks.Go(func() {
			ok, detail := p.probe(ctx, check, t.addr)
			if ctx.Err() == nil {
				b.record(g, t, check, now, ok, detail)
			}
		})
	}
	return b.due.next()
}

// prober asks targets how they are.
type prober struct {
	network Network
	http1   *http.Client
	http2   *http.Client
}

func newProber(n Network) *prober {
	client := func(http2 bool) *http.Client {
		t := &http.Transport{
			DisableKeepAlives: true, Protocols: speaking(http2),
			DialContext:     func(ctx context.Context, _, addr string) (net.Conn, error) { return n.Dial(ctx, addr) },
			TLSClientConfig: unverified(),
		}
		return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return &prober{n, client(false), client(true)}
}

// probe asks one target once.
func (p *prober) probe(ctx context.Context, c Check, addr netip.AddrPort) (ok bool, detail string) {
	if c.Port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), c.Port)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if c.TCP {
		conn, err := p.network.Dial(ctx, addr.String())
		if err != nil {
			return false, "Health checks failed"
		}
		conn.Close()
		return true, ""
	}
	code, err := p.ask(ctx, c, addr)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return false, "Request timed out"
	case err != nil:
		return false, "Health checks failed"
	case !c.accepts(code):
		return false, fmt.Sprintf("Health checks failed with these codes: [%d]", code)
	}
	return true, ""
}

// ask is the code that a target answers with: HTTP's, or that of gRPC.
func (p *prober) ask(ctx context.Context, c Check, addr netip.AddrPort) (code int, err error) {
	url := "http://" + addr.String() + c.Path
	if c.TLS {
		url = "https" + url[len("http"):]
	}
	client, method, body := p.http1, http.MethodGet, io.Reader(nil)
	if c.Version != HTTP1 {
		client = p.http2
	}
	if c.Version == GRPC {
		method, body = http.MethodPost, bytes.NewReader(make([]byte, 5)) // one empty message, not compressed
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	r.Header.Set("User-Agent", "ELB-HealthChecker/2.0")
	if c.Version == GRPC {
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("TE", "trailers")
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	if c.Version != GRPC {
		return resp.StatusCode, nil
	}
	said := cmp.Or(resp.Trailer.Get("Grpc-Status"), resp.Header.Get("Grpc-Status"))
	if code, err = strconv.Atoi(said); err != nil {
		return 0, fmt.Errorf("reading the status of gRPC %q: %w", said, err)
	}
	return code, nil
}

func (c Check) accepts(code int) bool {
	for part := range strings.SplitSeq(c.Matcher, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		l, err := strconv.Atoi(strings.TrimSpace(low))
		h, err2 := strconv.Atoi(strings.TrimSpace(high))
		if err == nil && err2 == nil && l <= code && code <= h {
			return true
		}
	}
	return false
}

// record counts a result. A new target is healthy after its first success,
// documented; one that was unhealthy needs the threshold in a row. It is checked
// again an interval after the check began, by what is wanted now.
func (b *Balancer) record(g *group, t *target, c Check, began time.Time, ok bool, detail string) {
	g.mu.Lock()
	before, said := t.state, t.detail
	t.checking = false
	b.plan(g, t, began.Add(g.spec.Check.Interval))
	if ok {
		t.ok, t.bad = t.ok+1, 0
		if t.state == Initial || t.ok >= c.Healthy {
			if t.state != Healthy {
				t.healthy = g.beginsSlowly(b.Clock.Now())
			}
			t.state, t.detail = Healthy, ""
		}
	} else {
		t.ok, t.bad = 0, t.bad+1
		if t.bad >= c.Unhealthy {
			t.state, t.detail = Unhealthy, detail
		}
	}
	changed := t.state != before || t.detail != said
	flows := g.doomed()
	t.kept.prune(time.Now().Add(-keptFor), t.gone)
	g.mu.Unlock()
	cutAll(flows)
	if changed {
		b.Changed(g.id)
	}
}
