package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"serin/internal/balance"
	"serin/internal/clock"
)

func play(role, listen string, targets []string) error {
	switch role {
	case "target":
		return target(listen)
	case serin:
		return balancer(listen, targets)
	case "reverse":
		return reverse(listen, targets)
	}
	return fmt.Errorf("no role %q", role)
}

// target answers GET /N with N bytes, with as little work as can be, so that it is
// not what is measured.
func target(listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	answers := map[string][]byte{}
	for _, n := range sizes() {
		answers[strconv.Itoa(n)] = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s", n, bytes.Repeat([]byte("x"), n))
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			in := bufio.NewReader(conn)
			for {
				first, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				_, path, _ := bytes.Cut(first, []byte(" /"))
				path, _, _ = bytes.Cut(path, []byte(" "))
				answer := answers[string(path)]
				for line := first; len(line) > 2; {
					if line, err = in.ReadSlice('\n'); err != nil {
						return
					}
				}
				if _, err := conn.Write(answer); err != nil || answer == nil {
					return
				}
			}
		}()
	}
}

func balancer(listen string, targets []string) error {
	c, err := clock.New(1)
	if err != nil {
		return err
	}
	b := balance.New(c, slog.New(slog.DiscardHandler))
	g := balance.Group{ID: "g", Check: balance.Check{TCP: true, Interval: time.Hour, Timeout: time.Second, Healthy: 1, Unhealthy: 1}}
	for _, t := range targets {
		addr, err := netip.ParseAddrPort(t)
		if err != nil {
			return err
		}
		g.Targets = append(g.Targets, balance.Target{Addr: addr})
	}
	b.SetGroup(g)
	got, err := b.SetListener(balance.Listener{ID: "l", Bind: listen, Rules: []balance.Rule{{ID: "r", Forward: []balance.Weighted{{Group: "g", Weight: 1}}}}})
	if err != nil {
		return err
	}
	if got.String() != listen {
		return fmt.Errorf("it listens at %s instead of %s", got, listen)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return b.Run(ctx)
}

// buffers lends the reverse proxy its buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte    { return *b.pool.Get().(*[]byte) }
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }

// reverse is net/http's own, as fast as it gets.
func reverse(listen string, targets []string) error {
	var turn atomic.Uint64
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 1024, DisableCompression: true},
		BufferPool: &buffers{sync.Pool{New: func() any {
			buf := make([]byte, 32<<10)
			return &buf
		}}},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", targets[turn.Add(1)%uint64(len(targets))]
			r.SetXForwarded()
			r.Out.Header.Set("X-Forwarded-Port", port)
		},
	}
	if err := http.ListenAndServe(listen, proxy); !strings.Contains(err.Error(), "closed") {
		return err
	}
	return nil
}
