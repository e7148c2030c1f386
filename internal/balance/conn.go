package balance

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connection that is read through a buffer which it has only while
// there is something in it: those that wait cost little more than their goroutine.
type conn struct {
	net.Conn
	socket syscall.RawConn // nil if there is none of the machine's under it
	raw    syscall.RawConn // the same, if what it carries is read as it is
	try    func(fd uintptr) bool
	pool   *sync.Pool // its buffers

	buf  *[]byte // nil while nothing is unread
	r, w int     // buf[r:w] is unread

	// What try leaves for fill:
	n   int
	err error
}

// Sizes of buffers. A request's head that is larger than a page gets a large one, which
// an answer of 64 KiB fits into with its head.
const (
	pageSize  = 8 << 10
	largeSize = 72 << 10
)

func poolOf(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

var pages, larges = poolOf(pageSize), poolOf(largeSize)

// init makes it read nc through buffers of a pool.
func (c *conn) init(nc net.Conn, pool *sync.Pool) {
	c.Conn, c.pool = nc, pool
	c.raw = socketOf(nc)
	c.socket = c.raw
	if c.raw != nil {
		c.try = c.tryRead
	} else if s, ok := nc.(*tls.Conn); ok {
		under := s.NetConn()
		if counted, ok := under.(*clientConn); ok {
			under = counted.Conn
		}
		c.socket = socketOf(under)
	}
}

// socketOf is nil of what is none of the machine's sockets.
func socketOf(nc net.Conn) syscall.RawConn {
	if s, ok := nc.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// unread is what has come and was not taken.
func (c *conn) unread() []byte {
	if c.buf == nil {
		return nil
	}
	return (*c.buf)[c.r:c.w]
}

// take takes n bytes of what is unread.
func (c *conn) take(n int) {
	if c.r += n; c.r == c.w {
		c.release()
	}
}

// pass is take for bytes that are still looked at: the buffer stays until it is read
// into or let go.
func (c *conn) pass(n int) { c.r += n }

func (c *conn) release() {
	if c.buf == nil {
		return
	}
	if len(*c.buf) == largeSize {
		larges.Put(c.buf)
	} else {
		pages.Put(c.buf)
	}
	c.buf, c.r, c.w = nil, 0, 0
}

// releaseIfRead lets the buffer go if nothing in it is unread.
func (c *conn) releaseIfRead() {
	if c.r == c.w {
		c.release()
	}
}

// errFull is what fill returns when there is no room for more.
var errFull = errors.New("the buffer is full")

// fill reads more: once, waiting until something comes.
func (c *conn) fill() error {
	if c.buf != nil && c.w == len(*c.buf) {
		if err := c.makeRoom(); err != nil {
			return err
		}
	}
	if c.raw != nil {
		c.n, c.err = 0, nil
		if err := c.raw.Read(c.try); err != nil {
			c.releaseIfRead()
			return err
		}
	} else {
		c.acquire()
		c.n, c.err = c.Conn.Read((*c.buf)[c.w:])
	}
	c.w += c.n
	if c.n > 0 {
		return nil
	}
	c.releaseIfRead()
	if c.err == nil {
		return io.EOF
	}
	return c.err
}

func (c *conn) acquire() {
	if c.buf == nil {
		c.buf = c.pool.Get().(*[]byte)
	}
}

// makeRoom moves what is unread to the front, or into a large buffer.
func (c *conn) makeRoom() error {
	switch {
	case c.r > 0:
		c.w = copy(*c.buf, (*c.buf)[c.r:c.w])
		c.r = 0
	case len(*c.buf) < largeSize:
		b := larges.Get().(*[]byte)
		w := copy(*b, (*c.buf)[:c.w])
		c.release()
		c.buf, c.w = b, w
	default:
		return errFull
	}
	return nil
}

// tryRead reads what there is; false if nothing is there yet.
func (c *conn) tryRead(fd uintptr) bool {
	c.acquire()
	n, err := receive(fd, (*c.buf)[c.w:], 0)
	switch err {
	case 0:
		c.n = n
	case unix.EAGAIN:
		c.releaseIfRead()
		return false
	default:
		c.err = err
	}
	return true
}

// CloseWrite ends what is written, where the connection can.
func (c *conn) CloseWrite() error { return closeWrite(c.Conn) }

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)

// ended reports whether the other side has ended its sending, without reading. It
// tells nothing of connections that are none of the machine's sockets.
func (c *conn) ended() (yes bool) {
	if c.socket == nil {
		return false
	}
	err := c.socket.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		yes = err != nil || info.State != tcpEstablished
	})
	return yes || err != nil
}

// tcpEstablished is the kernel's TCP_ESTABLISHED.
const tcpEstablished = 1
