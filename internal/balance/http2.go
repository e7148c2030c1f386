package balance

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// handedOver is the connections whose protocol turned out to be HTTP/2, as what an
// http.Server accepts.
type handedOver struct {
	addr net.Addr
	in   chan net.Conn
	end  chan struct{}
	once sync.Once
}

func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.in:
		return c, nil
	case <-h.end:
		return nil, net.ErrClosed
	}
}

func (h *handedOver) Close() error {
	h.once.Do(func() { close(h.end) })
	return nil
}

func (h *handedOver) Addr() net.Addr { return h.addr }

// streams is a server of HTTP/2 with the connections that it was given. Its idle time is
// fixed, so another one needs another server.
type streams struct {
	*http.Server
	handed *handedOver
}

// newStreams is the server of a listener's connections of HTTP/2.
func (f *front) newStreams(idle time.Duration) *streams {
	s := &http.Server{
		Handler:           f.b.handler(f.l),
		ReadHeaderTimeout: 60 * time.Second,
		IdleTimeout:       idle,
		MaxHeaderBytes:    maxRequestHead,
		ErrorLog:          f.b.quiet(),
		TLSConfig:         &tls.Config{NextProtos: []string{"h2"}}, // it is asked whether it speaks it; the handshake was made
		HTTP2:             &http.HTTP2Config{MaxReadFrameSize: 16 << 10},
		Protocols:         speaking(true),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, bornKey{}, time.Now())
		},
	}
	out := &streams{s, &handedOver{addr: f.socket.Addr(), in: make(chan net.Conn), end: make(chan struct{})}}
	f.carried.Go(func() { s.Serve(out.handed) }) // before anybody can wait for it
	return out
}

// bornKey is when a stream's connection came.
type bornKey struct{}

// rest has connections of HTTP/2 rest so long from now on. Those that are there are told
// to come again, when their streams have ended.
func (f *front) rest(idle time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing.Load() || f.h2.IdleTimeout == idle {
		return
	}
	old := f.h2
	f.h2 = f.newStreams(idle)
	f.former[old] = true
	f.carried.Go(func() {
		old.Shutdown(context.Background())
		f.mu.Lock()
		delete(f.former, old)
		f.mu.Unlock()
	})
}

// hand gives a connection to the server of HTTP/2; false if that is closed.
func (f *front) hand(c net.Conn) bool {
	for {
		f.mu.Lock()
		now := f.h2
		f.mu.Unlock()
		select {
		case now.handed.in <- c:
			return true
		case <-now.handed.end:
		}
		f.mu.Lock()
		last := f.h2 == now
		f.mu.Unlock()
		if last {
			return false
		}
	}
}

// preface is how a connection of HTTP/2 begins, RFC 9113, 3.4.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// speaksHTTP2 reports whether the connection begins with the preface of HTTP/2.
func (c *client) speaksHTTP2() bool {
	for {
		in := c.unread()
		if n := min(len(in), len(preface)); string(in[:n]) != preface[:n] {
			return false
		} else if n == len(preface) {
			return true
		}
		if c.fill() != nil {
			return false
		}
	}
}

// buffered takes what is unread out of the connection.
func (c *client) buffered() []byte {
	b := bytes.Clone(c.unread())
	c.release()
	return b
}

// replayed is a connection of which something has been read.
type replayed struct {
	net.Conn
	first []byte
}

func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// handshake makes a client's connection one of TLS. It reports whether it was
// handed over; the client is secure if it is to be carried here.
func (f *front) handshake(c *client, spec *live) (handed bool) {
	ctx, cancel := context.WithTimeout(context.Background(), min(spec.idle(), 10*time.Second))
	defer cancel()
	c.meters = true
	c.Conn = &clientConn{connection{Conn: c.Conn, load: f.l.load}}
	secure := tls.Server(c.Conn, spec.tls)
	if secure.HandshakeContext(ctx) != nil {
		return false
	}
	state := secure.ConnectionState()
	if state.NegotiatedProtocol == "h2" {
		return f.hand(secure)
	}
	c.init(secure, pages)
	c.secure = &state
	return false
}
