package stagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// network is TCP without sockets, so that a bubble's time can pass: whoever
// waits on a connection waits for another goroutine of the bubble.
type network struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*memoryListener
	ports     uint16
}

func newNetwork() *network { return &network{listeners: map[netip.AddrPort]*memoryListener{}} }

type memoryListener struct {
	net  *network
	addr netip.AddrPort
	in   chan net.Conn
	end  chan struct{}
	once sync.Once
}

// Listen takes an address; port 0 is a port that nobody has.
func (n *network) Listen(addr string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), n.port())
	}
	if n.listeners[at] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
	}
	l := &memoryListener{net: n, addr: at, in: make(chan net.Conn), end: make(chan struct{})}
	n.listeners[at] = l
	return l, nil
}

func (n *network) port() uint16 {
	n.ports++
	return 32768 + n.ports
}

// Dial connects to a listener.
func (n *network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	l, from := n.listeners[at], netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), n.port())
	n.mu.Unlock()
	if l == nil {
		return nil, refused
	}
	there, here := net.Pipe()
	back, forth := net.Pipe()
	select {
	case l.in <- &memoryConn{in: there, out: back, local: at, remote: from}:
		return &memoryConn{in: forth, out: here, local: from, remote: at}, nil
	case <-l.end:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.end:
		return nil, fmt.Errorf("accepting at %s: %w", l.addr, net.ErrClosed)
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		close(l.end)
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
	})
	return nil
}

func (l *memoryListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// memoryConn is one end of a connection: a pipe each way, so that one way can be
// closed by itself.
type memoryConn struct {
	in, out       net.Conn
	local, remote netip.AddrPort
}

func (c *memoryConn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *memoryConn) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c *memoryConn) CloseWrite() error           { return c.out.Close() }
func (c *memoryConn) Close() error                { return errors.Join(c.in.Close(), c.out.Close()) }

func (c *memoryConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *memoryConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *memoryConn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *memoryConn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

func (c *memoryConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// whole sends requests whose body is read before they are. The SDK closes a body
// as soon as there is an answer; where that is there at once, the transport takes
// the closed body for a broken request and gives the connection up.
type whole struct{ http.RoundTripper }

func (w whole) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return w.RoundTripper.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return w.RoundTripper.RoundTrip(r)
}
