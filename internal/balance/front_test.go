package balance

import (
	"log/slog"
	"net"
	"testing"

	"serin/internal/clock"
)

// A client that is cut has its connection to a target ended, too: its deadline is
// over, and it must not be kept for the clients of other listeners.
func TestACutClientsTargetIsNotKept(t *testing.T) {
	c, err := clock.New(1)
	if err != nil {
		t.Fatal(err)
	}
	b := New(c, slog.New(slog.DiscardHandler))
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	far, _ := net.Pipe()
	defer theirs.Close()
	l := &listener{load: b.loadOf("l")}
	l.live.Store(&live{})
	f := newFront(b, l, socket)
	go f.serve()
	one := &client{f: f, under: ours}
	f.open[one] = true
	up := &upstream{load: f.l.load}
	up.init(far, larges)
	if v := one.watched(up); v != none {
		t.Fatalf("it is ended before: %d", v)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if one.watched(nil) == none {
		t.Error("its exchange does not know that it was cut")
	}
}
