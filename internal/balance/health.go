package balance

import (
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
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return b.Network.Dial(ctx, addr)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for {
		next := b.startDue(ctx, client, &checks)
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
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			if l.server.Shutdown(ctx) != nil {
				l.server.Close()
			}
		})
	}
	wg.Wait()
	b.transport.CloseIdleConnections()
}

// startDue starts every check whose time has come and returns the next time.
func (b *Balancer) startDue(ctx context.Context, client *http.Client, checks *sync.WaitGroup) (next time.Time) {
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
			ok, detail := check.probe(ctx, b.Network, client, t.addr)
			if ctx.Err() == nil {
				b.record(g, t, check, now.Add(check.Interval), ok, detail)
			}
		})
	}
	return b.due.next()
}

// probe asks one target once.
func (c Check) probe(ctx context.Context, network Network, client *http.Client, addr netip.AddrPort) (ok bool, detail string) {
	if c.Port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), c.Port)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if c.TCP {
		conn, err := network.Dial(ctx, addr.String())
		if err != nil {
			return false, "Health checks failed"
		}
		conn.Close()
		return true, ""
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+c.Path, nil)
	if err != nil {
		return false, "Health checks failed"
	}
	r.Header.Set("User-Agent", "ELB-HealthChecker/2.0")
	resp, err := client.Do(r)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return false, "Request timed out"
	}
	if err != nil {
		return false, "Health checks failed"
	}
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	resp.Body.Close()
	if !c.accepts(resp.StatusCode) {
		return false, fmt.Sprintf("Health checks failed with these codes: [%d]", resp.StatusCode)
	}
	return true, ""
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
// again at next.
func (b *Balancer) record(g *group, t *target, c Check, next time.Time, ok bool, detail string) {
	g.mu.Lock()
	before := t.state
	t.checking = false
	b.plan(g, t, next)
	if ok {
		t.ok, t.bad = t.ok+1, 0
		if t.state == Initial || t.ok >= c.Healthy {
			t.state, t.detail = Healthy, ""
		}
	} else {
		t.ok, t.bad = 0, t.bad+1
		if t.bad >= c.Unhealthy {
			t.state, t.detail = Unhealthy, detail
		}
	}
	changed := t.state != before
	flows := g.doomed()
	g.mu.Unlock()
	cutAll(flows)
	if changed {
		b.Changed(g.id)
	}
}
