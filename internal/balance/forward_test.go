package balance_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"serin/internal/balance"
)

// BenchmarkForward is one request on a kept connection and its answer. Its client
// and its target are in the same process and allocate nothing in the steady
// state, so what is allocated is the balancer's.
func BenchmarkForward(b *testing.B) {
	for _, size := range []int{512, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			answer := []byte(crlf("HTTP/1.1 200 OK", "Content-Type: text/plain", fmt.Sprint("Content-Length: ", size)) + string(bytes.Repeat([]byte("x"), size)))
			target := raw(b, func(p *peer) {
				p.SetDeadline(time.Time{})
				for p.skipHead() == nil {
					p.Write(answer)
				}
			})
			p := carry(b, balance.Listener{}, target).dial()
			p.SetDeadline(time.Time{})
			request := []byte(crlf("GET /path?query=1 HTTP/1.1", "Host: shop.example", "User-Agent: bench", "Accept: */*"))
			ask := func() error {
				p.Write(request)
				if err := p.skipHead(); err != nil {
					return err
				}
				_, err := p.in.Discard(size)
				return err
			}
			for range 100 { // the pools fill
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// skipHead reads a head and keeps nothing of it.
func (p *peer) skipHead() error {
	for {
		line, err := p.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
	}
}
