package balance

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
)

// canned is a target that answers whatever comes with the same bytes, and costs
// next to nothing.
func canned(t testing.TB, answer []byte) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for buf := make([]byte, 4096); ; {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// BenchmarkForward is a small request and its answer through the balancer to one
// of two targets, over connections that are kept.
func BenchmarkForward(b *testing.B) {
	answer := append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sat, 28 Nov 2026 08:00:00 GMT\r\nContent-Length: 512\r\n\r\n"), bytes.Repeat([]byte("x"), 512)...)
	x := balancer(b, []netip.AddrPort{canned(b, answer), canned(b, answer)}, nil, 1, 0)
	x.await(b, "a", all(Healthy))
	request := []byte("GET /some/path?and=query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		c, err := net.Dial("tcp", x.url[len("http://"):len(x.url)-1])
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 16<<10)
		for p.Next() {
			if _, err := c.Write(request); err != nil {
				b.Error(err)
				return
			}
			n, err := c.Read(buf)
			for ; err == nil && !bytes.HasSuffix(buf[:n], []byte("xxx")); n, err = c.Read(buf) {
			}
			if err != nil && err != io.EOF {
				b.Error(err)
				return
			}
		}
	})
}
