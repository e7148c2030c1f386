package balance

import (
	"io"
	"net/http"
	"net/netip"
	"testing"
)

// BenchmarkRequest is a small request through the balancer to one of two
// targets, over kept connections.
func BenchmarkRequest(b *testing.B) {
	x := balancer(b, []netip.AddrPort{backend(b, "a", nil), backend(b, "a", nil)}, nil, 1, 0)
	x.await(b, "a", all(Healthy))
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for p.Next() {
			resp, err := client.Get(x.url)
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}
