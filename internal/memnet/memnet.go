// Package memnet is TCP without sockets, for a bubble of testing/synctest, whose
// time passes only when everybody waits for somebody else in it, and for more
// listeners than a machine has sockets.
package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Network is a machine's network.
type Network struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*listener
	ports     uint16
}

// New returns a network on which nobody listens.
func New() *Network { return &Network{listeners: map[netip.AddrPort]*listener{}} }

type listener struct {
	net  *Network
	addr netip.AddrPort
	in   chan net.Conn
	end  chan struct{}
	once sync.Once
}

// Listen takes an address; port 0 is a port that nobody has.
func (n *Network) Listen(addr string) (net.Listener, error) {
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
	l := &listener{net: n, addr: at, in: make(chan net.Conn), end: make(chan struct{})}
	n.listeners[at] = l
	return l, nil
}

func (n *Network) port() uint16 {
	n.ports++
	return 32768 + n.ports
}

// Dial connects to a listener.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
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
	case l.in <- &conn{in: there, out: back, local: at, remote: from}:
		return &conn{in: forth, out: here, local: from, remote: at}, nil
	case <-l.end:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.end:
		return nil, fmt.Errorf("accepting at %s: %w", l.addr, net.ErrClosed)
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.end)
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// conn is one end of a connection: a pipe each way, so that one way can be
// closed by itself.
type conn struct {
	in, out       net.Conn
	local, remote netip.AddrPort
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c *conn) CloseWrite() error           { return c.out.Close() }
func (c *conn) Close() error                { return errors.Join(c.in.Close(), c.out.Close()) }

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *conn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
