package balance

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
)

// pair is two ends of a connection over this machine's sockets.
func pair(t *testing.T) (near *conn, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.(*net.TCPConn).SetWriteBuffer(64 << 10)
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	far = accepted.(*net.TCPConn)
	near = new(conn)
	near.init(nc, pages)
	return near, far
}

func TestAnOutputThatDoesNotFitIsWrittenWhole(t *testing.T) {
	for _, sizes := range [][2]int{{0, 0}, {10, 0}, {8 << 20, 0}, {0, 8 << 20}, {10, 8 << 20}, {8 << 20, 10}, {8 << 20, 8 << 20}} {
		near, far := pair(t)
		first, more := bytes.Repeat([]byte("first "), sizes[0])[:sizes[0]], bytes.Repeat([]byte("more "), sizes[1])[:sizes[1]]
		came := make(chan []byte, 1)
		go func() {
			in := make([]byte, len(first)+len(more))
			io.ReadFull(far, in)
			came <- in
			far.Write([]byte("answer"))
		}()
		if err := near.put(newOutput().of(first, more)); err != nil {
			t.Fatal(err)
		}
		if err := near.fill(); err != nil || string(near.unread()) != "answer" {
			t.Fatalf("of %v bytes it reads %q, %v", sizes, near.unread(), err)
		}
		if in := <-came; !bytes.Equal(in, append(first, more...)) {
			t.Errorf("of %v bytes others came", sizes)
		}
	}
}

func TestAnOutputThatNobodyTakesIsAnError(t *testing.T) {
	near, far := pair(t)
	far.SetLinger(0)
	far.Close()
	out := newOutput()
	if err := near.put(out.of([]byte("hello"), nil)); err == nil {
		t.Error("it was written")
	}
	near.SetDeadline(longAgo)
	if err := near.put(out.of([]byte("hello"), nil)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after its deadline it is written: %v", err)
	}
}
