package balance_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"serin/internal/balance"
)

// The cases are those of the Autobahn test suite, which needs Python 2: 1 framing,
// 2 pings, 3 reserved bits, 4 opcodes, 5 fragments, 6 UTF-8, 7 closing, 9 limits, 12
// and 13 compression. The suite judges a server; a load balancer is to be
// no other than the server behind it. So each case is played straight at an echo
// server and through the balancer, and the answers must be the same, byte by byte.

const upgradeKey = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

var upgrade = crlf("GET /chat HTTP/1.1", "Host: h", "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", upgradeKey)

// frame is a client's frame; head has the final bit, the reserved ones and the opcode.
func frame(head byte, payload string) string {
	out, length := []byte{head}, len(payload)
	switch {
	case length < 126:
		out = append(out, 0x80|byte(length))
	case length < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(length))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(length))
	}
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	out = append(out, mask[:]...)
	for i := range len(payload) {
		out = append(out, payload[i]^mask[i%4])
	}
	return string(out)
}

const (
	final  = 0x80
	more   = 0x0
	text   = 0x1
	octets = 0x2
	bye    = 0x8
	ping   = 0x9
	pong   = 0xa
)

// closing is a frame that closes with this code.
func closing(code uint16, reason string) string {
	return frame(final|bye, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// websockets is what a client sends in each case, one write an element.
func websockets() map[string][]string {
	end := closing(1000, "")
	cases := map[string][]string{}
	add := func(name string, writes ...string) { cases[name] = append(writes, end) }
	for _, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		add(fmt.Sprintf("1.1 text of %d", n), frame(final|text, strings.Repeat("*", n)))
		add(fmt.Sprintf("1.2 binary of %d", n), frame(final|octets, strings.Repeat("\xfe", n)))
	}
	add("1.1.8 text chopped", chopped(frame(final|text, strings.Repeat("*", 65536)), 997)...)
	add("2.1 a ping", frame(final|ping, ""))
	add("2.4 a ping of bytes", frame(final|ping, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"))
	add("2.5 a ping that is too long", frame(final|ping, strings.Repeat("\xfe", 126)))
	add("2.6 a ping in single bytes", chopped(frame(final|ping, strings.Repeat("\xfe", 125)), 1)...)
	add("2.7 a pong that was not asked for", frame(final|pong, ""), frame(final|ping, "x"))
	add("2.10 ten pings", strings.Repeat(frame(final|ping, "payload"), 10))
	for bits := byte(1); bits < 8; bits++ {
		add(fmt.Sprintf("3 reserved bits %d", bits), frame(final|text, "a"), frame(final|bits<<4|text, "b"), frame(final|ping, ""))
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		add(fmt.Sprintf("4 opcode %x", op), frame(final|text, "a"), frame(final|op, "b"), frame(final|ping, ""))
	}
	add("5.1 a ping in fragments", frame(ping, "frag"), frame(final|more, "ment"))
	add("5.3 text in fragments", frame(text, "frag"), frame(final|more, "ment"))
	add("5.4 text in fragments at once", frame(text, "frag")+frame(final|more, "ment"))
	add("5.5 text in fragments in single bytes", chopped(frame(text, "frag")+frame(final|more, "ment"), 1)...)
	add("5.6 a ping between fragments", frame(text, "frag"), frame(final|ping, "ping"), frame(final|more, "ment"))
	add("5.9 a fragment without a beginning", frame(final|more, "ment"), frame(final|text, "a"))
	add("5.15 fragments that begin twice", frame(text, "frag"), frame(final|more, "ment"), frame(more, "x"), frame(final|text, "y"))
	add("5.18 text within text", frame(text, "frag"), frame(final|text, "ment"))
	add("5.19 many fragments and pings", frame(text, "1"), frame(more, "2"), frame(final|ping, "p"), frame(more, "3"), frame(more, "4"), frame(final|ping, "q"), frame(final|more, "5"))
	add("6.1 empty fragments", frame(text, ""), frame(more, ""), frame(final|more, ""))
	add("6.2 UTF-8", frame(final|text, "Hello-µ@ßöäüàá-UTF-8!!"), frame(text, "κόσμ"), frame(final|more, "ε"))
	add("6.2 UTF-8 in single bytes", chopped(frame(final|text, "κόσμε"), 1)...)
	for i, bad := range []string{"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", "\xf4\x90\x80\x80", "\x80", "\xc0\xaf", "\xed\xa0\x80", "\xff"} {
		add(fmt.Sprintf("6.3 bad UTF-8 %d", i), frame(final|text, bad))
	}
	for i, bye := range []string{end, frame(final|bye, ""), frame(final|bye, "\x03"), closing(1000, "reason"), closing(1000, strings.Repeat("*", 123)), closing(1000, strings.Repeat("*", 124)), closing(1000, "\xce\xba\xed\xa0\x80")} {
		add(fmt.Sprintf("7.3 closing %d", i), frame(final|text, "a"), bye)
		add(fmt.Sprintf("7.1 talk after closing %d", i), bye, frame(final|text, "a"), frame(final|ping, "b"))
	}
	for _, code := range []uint16{0, 999, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1015, 1016, 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535} {
		add(fmt.Sprintf("7.7 closing with %d", code), closing(code, "reason"))
	}
	for _, n := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20} {
		add(fmt.Sprintf("9.1 text of %d", n), frame(final|text, strings.Repeat("*", n)))
		add(fmt.Sprintf("9.3 text of %d in fragments", n), append(chopped9(n), frame(final|more, ""))...)
	}
	add("9.5 text of a megabyte chopped", chopped(frame(final|octets, strings.Repeat("x", 1<<20)), 2048)...)
	add("9.7 a thousand messages", strings.Repeat(frame(final|text, strings.Repeat("*", 64)), 1000))
	add("a frame without a mask", string([]byte{final | text, 1, 'a'}))
	add("a length in more bytes than it needs", string([]byte{final | text, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 'a'}))
	add("what is no frame", "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	return cases
}

func chopped(s string, n int) (out []string) {
	for ; len(s) > n; s = s[n:] {
		out = append(out, s[:n])
	}
	return append(out, s)
}

func chopped9(n int) []string {
	out := []string{frame(text, strings.Repeat("*", 4096))}
	for range n/4096 - 1 {
		out = append(out, frame(more, strings.Repeat("*", 4096)))
	}
	return out
}

// echoes is a WebSocket server that says what it is told.
func echoes(t testing.TB, mode websocket.CompressionMode) netip.AddrPort {
	return web(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"chat"}, CompressionMode: mode})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(64 << 20)
		for {
			kind, from, err := c.Reader(r.Context())
			if err != nil {
				return
			}
			to, err := c.Writer(r.Context(), kind)
			if err != nil {
				return
			}
			if _, err := io.Copy(to, from); err != nil {
				return
			}
			if to.Close() != nil {
				return
			}
		}
	})
}

// transcript is all that comes back for these writes after the upgrade. How much of an
// answer a server gives to what is against the protocol depends on when it hung
// up; so only the end of it counts where that is so: the close.
func transcript(p *peer, writes []string) (string, error) {
	p.say(upgrade)
	if resp, err := http.ReadResponse(p.in, nil); err != nil || resp.StatusCode != 101 {
		return "", fmt.Errorf("no upgrade: %v, %w", resp, err)
	}
	go func() {
		for _, w := range writes {
			if _, err := io.WriteString(p, w); err != nil {
				return
			}
		}
	}()
	var got bytes.Buffer
	_, err := io.Copy(&got, p.in)
	if got.Len() > 1<<10 {
		return fmt.Sprintf("%d bytes, %x at the end", got.Len(), got.Bytes()[got.Len()-64:]), nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "", err
	}
	return fmt.Sprintf("%x", got.Bytes()), nil
}

func TestAWebSocketIsAsItIsWithoutABalancer(t *testing.T) {
	target := echoes(t, websocket.CompressionDisabled)
	through := carry(t, balance.Listener{}, target)
	straight := &world{t: t, addr: target.String()}
	for name, writes := range websockets() {
		t.Run(name, func(t *testing.T) {
			want, err := transcript(straight.dial(), writes)
			if err != nil {
				t.Fatal(err)
			}
			got, err := transcript(through.dial(), writes)
			if err != nil || got != want {
				t.Errorf("straight: %s\nthrough the balancer: %s, %v", want, got, err)
			}
		})
	}
}

func TestAWebSocketClientAndServer(t *testing.T) {
	for _, mode := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionNoContextTakeover, websocket.CompressionContextTakeover} {
		w := carry(t, balance.Listener{}, echoes(t, mode))
		ctx, stop := context.WithTimeout(t.Context(), patience)
		defer stop()
		c, resp, err := websocket.Dial(ctx, "ws://"+w.addr+"/", &websocket.DialOptions{Subprotocols: []string{"other", "chat"}, CompressionMode: mode})
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(64 << 20)
		if resp.StatusCode != 101 || c.Subprotocol() != "chat" {
			t.Errorf("the answer is %s for %q", resp.Status, c.Subprotocol())
		}
		for _, n := range []int{0, 1, 125, 126, 4096, 65535, 65536, 1 << 20, 8 << 20} {
			for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
				said := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
				go c.Write(ctx, kind, said)
				back, heard, err := c.Read(ctx)
				if err != nil || back != kind || !bytes.Equal(heard, said) {
					t.Fatalf("of %d bytes %d came back, %v", n, len(heard), err)
				}
			}
		}
		if h := w.Health("g"); len(h) != 1 {
			t.Errorf("the targets are %v", h)
		} else {
			for _, one := range h {
				if one.InFlight != 1 {
					t.Errorf("under way are %d", one.InFlight)
				}
			}
		}
		w.aim() // its target is taken out, and it stays
		go c.Write(ctx, websocket.MessageText, []byte("still here"))
		if _, heard, err := c.Read(ctx); err != nil || string(heard) != "still here" {
			t.Errorf("on a draining target: %q, %v", heard, err)
		}
		if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
			t.Errorf("closing: %v", err)
		}
		for h := w.Health("g"); len(h) > 0; h = w.Health("g") {
			within(t, w.changed, "the end of the draining")
		}
	}
}

// What a target says with its answer is said to the client.
func TestNothingIsLostBehindAnUpgrade(t *testing.T) {
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket", "X-Kept: 1"), "first")
	})
	p := carry(t, balance.Listener{}, target).dial()
	p.say(upgrade)
	head := strings.ToLower(strings.Join(p.head(), "\n"))
	for _, want := range []string{"http/1.1 101", "connection: upgrade", "upgrade: websocket", "x-kept: 1"} {
		if !strings.Contains(head, want) {
			t.Errorf("the answer has no %q: %q", want, head)
		}
	}
	if got, err := io.ReadAll(p.in); string(got) != "first" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// What a client says with its request is said to the target when it has switched.
func TestNothingIsLostBehindARequestToUpgrade(t *testing.T) {
	target := raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket"))
		p.say(p.hear(5))
	})
	p := carry(t, balance.Listener{}, target).dial()
	p.say(upgrade, "early")
	p.head()
	if got, err := io.ReadAll(p.in); string(got) != "early" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// A target that does not upgrade answers as to any other request.
func TestAnUpgradeThatIsRefused(t *testing.T) {
	target := raw(t, func(p *peer) {
		for p.any() {
			p.head()
			p.say(crlf("HTTP/1.1 403 Forbidden", "Content-Length: 2"), "no")
		}
	})
	p := carry(t, balance.Listener{}, target).dial()
	for range 3 {
		p.say(upgrade)
		if resp, body := p.answer("GET"); resp.StatusCode != 403 || body != "no" {
			t.Errorf("got %s %q", resp.Status, body)
		}
	}
}

// switched is a connection through the balancer after the upgrade, from both ends.
func switched(t *testing.T, l balance.Listener) (w *world, client, target *peer) {
	t.Helper()
	targets, ended := make(chan *peer, 1), make(chan bool)
	t.Cleanup(func() { close(ended) })
	w = carry(t, l, raw(t, func(p *peer) {
		p.head()
		p.say(crlf("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket"))
		targets <- p
		<-ended
	}))
	client = w.dial()
	client.say(upgrade)
	if head := client.head(); len(head) == 0 || !strings.HasPrefix(head[0], "HTTP/1.1 101") {
		t.Fatalf("no upgrade: %q", head)
	}
	return w, client, within(t, targets, "the upgrade")
}

// hear reads so much.
func (p *peer) hear(n int) string {
	got := make([]byte, n)
	n, _ = io.ReadFull(p.in, got)
	return string(got[:n])
}

func TestAnEndThatDiesEndsTheOther(t *testing.T) {
	for name, kill := range map[string]func(*peer){"closed": func(p *peer) { p.Close() }, "aborted": (*peer).abort} {
		_, client, target := switched(t, balance.Listener{})
		client.say("up")
		target.say("down")
		if got := target.hear(2) + client.hear(4); got != "updown" {
			t.Errorf("got %q", got)
		}
		kill(client)
		if !target.over() {
			t.Errorf("a client %s: the target's connection stays", name)
		}
		_, client, target = switched(t, balance.Listener{})
		kill(target)
		if !client.over() {
			t.Errorf("a target %s: the client's connection stays", name)
		}
	}
}

// A side that has said all may still listen.
func TestASideThatHasSaidAllStillListens(t *testing.T) {
	_, client, target := switched(t, balance.Listener{})
	client.say("last words")
	client.CloseWrite()
	if got, err := io.ReadAll(target.in); string(got) != "last words" || err != nil {
		t.Fatalf("the target heard %q, %v", got, err)
	}
	target.say("heard")
	target.Close()
	if got, err := io.ReadAll(client.in); string(got) != "heard" || err != nil {
		t.Errorf("the client heard %q, %v", got, err)
	}
	_, client, target = switched(t, balance.Listener{})
	target.say("last words")
	target.CloseWrite()
	if got, err := io.ReadAll(client.in); string(got) != "last words" || err != nil {
		t.Fatalf("the client heard %q, %v", got, err)
	}
	client.say("heard")
	if got := target.hear(5); got != "heard" {
		t.Errorf("the target heard %q", got)
	}
}

func TestAWebSocketOnWhichNothingHappensIsClosed(t *testing.T) {
	_, client, target := switched(t, balance.Listener{Idle: soon})
	if !client.over() || !target.over() {
		t.Error("it stays")
	}
}
