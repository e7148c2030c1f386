package balance

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockets are read and written by system calls of which Go's scheduler is not told.
// They do not wait, so it has nothing to do about them; told of each it would wake a
// thread that looks after those which do, thousands of times a second.

// receive reads what has come; EAGAIN if nothing has. With MSG_PEEK as a flag it stays
// there.
func receive(fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|flags, 0, 0)
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

// deliver writes as much of p as fits; EAGAIN if nothing does.
func deliver(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

// deliverBoth writes as much of two pieces as fits; EAGAIN if nothing does.
func deliverBoth(fd uintptr, vec *[2]unix.Iovec, p, more []byte) (int, syscall.Errno) {
	vec[0] = unix.Iovec{Base: unsafe.SliceData(p)}
	vec[0].SetLen(len(p))
	vec[1] = unix.Iovec{Base: unsafe.SliceData(more)}
	vec[1].SetLen(len(more))
	for {
		n, _, e := syscall.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(vec)), 2)
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

// output is what is to be written to a connection: two pieces, the second of which
// may be empty. It is used again for others.
type output struct {
	first, more []byte
	err         error
	try         func(fd uintptr) bool
	vec         [2]unix.Iovec
}

func newOutput() *output {
	o := &output{}
	o.try = o.tryWrite
	return o
}

// of makes it one of two pieces.
func (o *output) of(first, more []byte) *output {
	o.first, o.more, o.err = first, more, nil
	return o
}

// tryWrite writes what fits; false if something is left.
func (o *output) tryWrite(fd uintptr) bool {
	for len(o.first)+len(o.more) > 0 {
		var n int
		var e syscall.Errno
		switch {
		case len(o.more) == 0:
			n, e = deliver(fd, o.first)
		case len(o.first) == 0:
			n, e = deliver(fd, o.more)
		default:
			n, e = deliverBoth(fd, &o.vec, o.first, o.more)
		}
		switch e {
		case 0:
			head := min(n, len(o.first))
			o.first, o.more = o.first[head:], o.more[n-head:]
		case unix.EAGAIN:
			return false
		default:
			o.err = e
			return true
		}
	}
	return true
}

// put writes an output, all of it.
func (c *conn) put(o *output) error {
	if c.raw != nil {
		if err := c.raw.Write(o.try); err != nil {
			return err
		}
		return o.err
	}
	for _, piece := range [...][]byte{o.first, o.more} {
		if len(piece) == 0 {
			continue
		}
		if _, err := c.Conn.Write(piece); err != nil {
			return err
		}
	}
	return nil
}
