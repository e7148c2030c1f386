package memnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"serin/internal/memnet"
)

func TestConnectionsAreLikeTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		ctx := t.Context()
		if _, err := n.Dial(ctx, "127.0.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("where nobody listens: %v", err)
		}
		l, err := n.Listen("127.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Listen("127.0.0.1:80"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("where somebody listens: %v", err)
		}
		other, err := n.Listen("127.0.0.1:0")
		if err != nil || other.Addr().(*net.TCPAddr).Port == 0 {
			t.Errorf("any port: %v %v", other.Addr(), err)
		}
		late, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if _, err := n.Dial(late, "127.0.0.1:80"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("where nobody accepts: %v", err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			all, err := io.ReadAll(c) // to the end of what the other side writes
			if err != nil {
				t.Error(err)
			}
			c.Write(append(all, '!'))
		}()
		c, err := n.Dial(ctx, "127.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("hello"))
		c.(interface{ CloseWrite() error }).CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "hello!" || err != nil {
			t.Errorf("got %q %v", got, err)
		}
		if got := c.RemoteAddr().String(); got != "127.0.0.1:80" {
			t.Errorf("the other end is %s", got)
		}
		c.Close()
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		if _, err := n.Dial(ctx, "127.0.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the end: %v", err)
		}
	})
}
