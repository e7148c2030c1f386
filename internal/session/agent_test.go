package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// client is the other side of a session, in a bubble: what it is sent and what it
// sends can be lost or held back.
type client struct {
	wire    // the agent's end of the connection
	t       *testing.T
	channel *Channel
	to      chan []byte // the agent
	from    chan []byte
	loses   func(m Message) bool // of what is sent to it
	deaf    bool                 // it acknowledges nothing
	once    sync.Once

	mu     sync.Mutex
	shown  strings.Builder
	closed *Closing
	sent   []Message // everything that it was sent
}

// run takes what the agent sends until it closes.
func (c *client) run() {
	for raw := range c.from {
		m, err := Parse(raw)
		if err != nil {
			c.t.Error(err)
			return
		}
		c.mu.Lock()
		c.sent = append(c.sent, m)
		lost := c.loses != nil && c.loses(m)
		c.mu.Unlock()
		if lost {
			continue
		}
		c.mu.Lock()
		turn, answer, err := c.channel.Take(raw, true, time.Now())
		c.mu.Unlock()
		if err != nil {
			c.t.Error(err)
		}
		if answer != nil && !c.deaf {
			c.to <- answer
		}
		for _, m := range turn {
			if m.Type == Closed {
				c.closed = &Closing{}
				if err := json.Unmarshal(m.Data, c.closed); err != nil {
					c.t.Error(err)
				}
				c.leave()
				return
			}
			c.take(m)
		}
	}
}

func (c *client) take(m Message) {
	switch m.Payload {
	case HandshakeRequest:
		c.send(HandshakeResponse, `{"ClientVersion":"1.2","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}`)
	case Text:
		c.mu.Lock()
		c.shown.Write(m.Data)
		c.mu.Unlock()
	}
}

func (c *client) send(p Payload, data string) { c.to <- c.raw(p, data) }

func (c *client) raw(p Payload, data string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.channel.Send(p, []byte(data), time.Now())
}

func (c *client) leave() { c.once.Do(func() { close(c.to) }) }

func (c *client) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown.String()
}

// attend serves a session to a client in the test's bubble.
func attend(t *testing.T, c *client, command func(context.Context, Terminal) error) (ended <-chan error) {
	c.t, c.channel, c.to, c.from = t, NewChannel(false), make(chan []byte, 100), make(chan []byte, 100)
	done := make(chan error, 1)
	c.wire = wire{in: c.to, out: c.from}
	go c.run()
	go func() {
		done <- Agent{Session: "s-1", Version: "3", Idle: 20 * time.Minute}.Serve(t.Context(), c, command)
		close(c.from)
	}()
	return done
}

// echo says again what is typed, until a line that says exit.
func echo(ctx context.Context, term Terminal) error {
	b := make([]byte, 100)
	for {
		n, err := term.In.Read(b)
		if err != nil {
			return nil
		}
		fmt.Fprintf(term.Out, "<%s>", b[:n])
		if string(b[:n]) == "exit" {
			return nil
		}
	}
}

func TestASessionCarriesWhatIsTypedAndShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{}
		sizes := make(chan Size, 5)
		ended := attend(t, c, func(ctx context.Context, term Terminal) error {
			go func() {
				for {
					select {
					case s := <-term.Sizes:
						sizes <- s
					case <-ctx.Done():
						return
					}
				}
			}()
			return echo(ctx, term)
		})
		synctest.Wait()
		c.send(Resize, `{"cols":80,"rows":24}`)
		c.send(Text, "hello")
		synctest.Wait()
		if s := <-sizes; s != (Size{80, 24}) || c.said() != "<hello>" {
			t.Errorf("its size is %v and it said %q", s, c.said())
		}
		c.send(Text, "exit")
		if err := <-ended; err != nil || c.said() != "<hello><exit>" || c.closed == nil || c.closed.Output != "" || c.closed.SessionId != "s-1" {
			t.Errorf("it ended with %v, said %q and closed as %+v", err, c.said(), c.closed)
		}
	})
}

func TestMessagesOutOfTurnArePutInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{}
		ended := attend(t, c, func(ctx context.Context, term Terminal) error {
			got, err := io.ReadAll(io.LimitReader(term.In, 6))
			fmt.Fprintf(term.Out, "%s %v", got, err)
			return nil
		})
		synctest.Wait()
		var raw [][]byte
		for _, s := range []string{"ab", "cd", "ef"} {
			raw = append(raw, c.raw(Text, s))
		}
		for _, i := range []int{2, 1, 2, 0, 1} { // one twice, before and after its turn
			c.to <- raw[i]
		}
		if err := <-ended; err != nil || c.said() != "abcdef <nil>" {
			t.Errorf("it ended with %v and said %q", err, c.said())
		}
		if n := c.channel.Unacknowledged(); n != 0 {
			t.Errorf("%d messages are not acknowledged", n)
		}
	})
}

func TestWhatIsLostIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := strings.Repeat("0123456789", 1000) // ten messages
		times := map[int64]int{}
		c := &client{loses: func(m Message) bool {
			times[m.Sequence]++
			return m.Type == Output && m.Payload == Text && m.Sequence%3 == 0 && times[m.Sequence] < 4
		}}
		ended := attend(t, c, func(_ context.Context, term Terminal) error {
			_, err := io.WriteString(term.Out, text)
			return err // at once: what is on its way must still come
		})
		if err := <-ended; err != nil || c.said() != text || c.closed == nil {
			t.Errorf("it ended with %v and said %d bytes, want %d", err, len(c.said()), len(text))
		}
	})
}

func TestACommandWaitsForAClientThatFallsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{deaf: true}
		ended := attend(t, c, func(_ context.Context, term Terminal) error {
			_, err := term.Out.Write(make([]byte, 10*window*pieces))
			return err
		})
		if err := <-ended; !errors.Is(err, errSilent) {
			t.Errorf("it ended with %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		last := int64(0)
		for _, m := range c.sent {
			last = max(last, m.Sequence)
		}
		if last >= window+2 {
			t.Errorf("%d messages were on their way, want at most %d", last+1, window)
		}
	})
}

func TestASessionEndsWithWhatEndsIt(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		do   func(*client)
		err  error // of the command; nil: it goes on until it is ended
		want error
		says string
	}{
		"the client goes":          {(*client).leave, nil, errGone, ""},
		"the client is done":       {func(c *client) { c.send(Flag, "\x00\x00\x00\x02") }, nil, errDone, ""},
		"nobody types":             {func(*client) {}, nil, errIdle, "the session timed out due to inactivity"},
		"the command cannot run":   {func(*client) {}, broken, broken, "broken"},
		"what comes is no message": {func(c *client) { c.to <- []byte("x") }, nil, nil, "reading what came: a message has 1 bytes, which is less than a header"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &client{}
				ended := attend(t, k, func(ctx context.Context, _ Terminal) error {
					if c.err == nil {
						<-ctx.Done()
					}
					return c.err
				})
				synctest.Wait()
				began := time.Now()
				c.do(k)
				err := <-ended
				if c.want != nil && !errors.Is(err, c.want) || c.says != "" && (k.closed == nil || k.closed.Output != c.says) || c.says == "" && k.closed != nil && k.closed.Output != "" {
					t.Errorf("it ended with %v and closed as %+v", err, k.closed)
				}
				if took := time.Since(began); c.want == errIdle && took != 20*time.Minute {
					t.Errorf("it ended after %v", took)
				}
			})
		})
	}
}

func TestAClientThatCannotIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{loses: func(m Message) bool { return m.Payload == HandshakeRequest }}
		ended := attend(t, c, echo)
		if err := <-ended; err == nil || err.Error() != "the client did not shake hands" {
			t.Errorf("it ended with %v", err)
		}
	})
	s := shaken{Errors: []string{"no"}}
	if s.why() != "no" {
		t.Error("an error of a handshake is not seen")
	}
}
