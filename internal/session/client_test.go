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

// wire is one end of a connection in memory, on which messages can be lost.
type wire struct {
	in   <-chan []byte
	out  chan<- []byte
	lose func(Message) bool // of what is written
}

func (w wire) Read(ctx context.Context) ([]byte, error) {
	select {
	case raw, ok := <-w.in:
		if !ok {
			return nil, io.EOF
		}
		return raw, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w wire) Write(ctx context.Context, raw []byte) error {
	if m, err := Parse(raw); err == nil && w.lose != nil && w.lose(m) {
		return nil
	}
	select {
	case w.out <- raw:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wires is a connection's ends; leave closes the first for the second.
func wires() (ours, theirs wire, leave func()) {
	to, from := make(chan []byte, 1000), make(chan []byte, 1000)
	return wire{in: from, out: to}, wire{in: to, out: from}, func() { close(to) }
}

// screen is what a person is shown.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

type attendance struct {
	screen screen
	keys   *io.PipeWriter
	sizes  chan Size
	ended  chan error
	code   *int
}

// sits has a person attend a session on a connection.
func sits(ctx context.Context, conn Conn, leave func()) *attendance {
	in, keys := io.Pipe()
	p := &attendance{keys: keys, sizes: make(chan Size, 1), ended: make(chan error, 1)}
	go func() {
		code, err := Attend(ctx, conn, Terminal{In: in, Out: &p.screen, Sizes: p.sizes})
		leave()
		p.code = code
		p.ended <- err
	}()
	return p
}

// The agent's side and the client's, of whose messages each eighth is lost twice.
func TestAClientAndAnAgentUnderstandEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs, leave := wires()
		var mu sync.Mutex
		times := map[string]int{}
		lose := func(m Message) bool {
			mu.Lock()
			defer mu.Unlock()
			key := fmt.Sprint(m.Type, m.Sequence)
			times[key]++
			return m.Type != Closed && m.Type != Ack && m.Sequence%8 == 1 && times[key] < 3
		}
		ours.lose, theirs.lose = lose, lose
		p := sits(t.Context(), ours, leave)
		long := strings.Repeat("0123456789", 5_000)
		served := make(chan error, 1)
		go func() {
			served <- Agent{Session: "s-1", Version: "3", Idle: 20 * time.Minute}.Serve(t.Context(), theirs, func(_ context.Context, term Terminal) error {
				fmt.Fprint(term.Out, <-term.Sizes)
				got, err := io.ReadAll(io.LimitReader(term.In, int64(len(long)+2)))
				fmt.Fprintf(term.Out, "%s%v", got, err)
				return nil
			})
		}()
		p.sizes <- Size{80, 24}
		go func() { io.WriteString(p.keys, long); p.keys.Close() }()
		if err := <-p.ended; err != nil || p.code != nil || p.screen.String() != "{80 24}"+long+"\x04\x04<nil>" {
			t.Errorf("it ended with %v and showed %.100q", err, p.screen.String())
		}
		if err := <-served; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	})
}

// other is an agent by hand.
type other struct {
	wire
	t       *testing.T
	channel *Channel
}

func (o *other) says(p Payload, data string) {
	o.t.Helper()
	if err := o.Write(o.t.Context(), o.channel.Send(p, []byte(data), time.Now())); err != nil {
		o.t.Error(err)
	}
}

func (o *other) closes(output string) {
	data, _ := json.Marshal(Closing{Output: output})
	o.Write(o.t.Context(), newMessage(Closed, data, time.Now()).Bytes())
}

// hears is the next message with data.
func (o *other) hears() Message {
	o.t.Helper()
	for {
		raw, err := o.Read(o.t.Context())
		if err != nil {
			return Message{}
		}
		turn, answer, err := o.channel.Take(raw, true, time.Now())
		if err != nil {
			o.t.Error(err)
		}
		if answer != nil {
			o.Write(o.t.Context(), answer)
		}
		if len(turn) > 0 {
			return turn[0]
		}
	}
}

// shakes begins a session of a type.
func (o *other) shakes(kind string) (answer string) {
	o.says(HandshakeRequest, `{"AgentVersion":"3.3.859.0","RequestedClientActions":[`+kind+`]}`)
	return string(o.hears().Data)
}

const interactive = `{"ActionType":"SessionType","ActionParameters":{"SessionType":"InteractiveCommands","Properties":null}}`

func TestAClientEndsAsItsSessionDoes(t *testing.T) {
	for name, c := range map[string]struct {
		agent func(o *other, interrupt func())
		shows string
		code  int // -1: none
		want  string
	}{
		"the agent closes": {func(o *other, _ func()) { o.closes("") }, "", -1, ""},
		"the agent says why": {func(o *other, _ func()) {
			o.closes("----------ERROR-------\nUnable to start command: no\n")
		}, "", -1, "----------ERROR-------\nUnable to start command: no"},
		"the agent tells a code": {func(o *other, _ func()) {
			o.says(Text, "out ")
			o.says(Errors, "err")
			o.says(ExitCode, "EXIT_CODE: 3")
			o.closes("")
		}, "out err", 3, ""},
		"the connection breaks": {func(o *other, _ func()) { close(o.out) }, "", -1, errGone.Error()},
		"no message comes":      {func(o *other, _ func()) { o.Write(o.t.Context(), []byte("x")) }, "", -1, "reading what came: a message has 1 bytes, which is less than a header"},
		"the person is done": {func(o *other, interrupt func()) {
			interrupt()
			if m := o.hears(); m.Payload != Flag || string(m.Data) != "\x00\x00\x00\x02" {
				o.t.Errorf("the agent hears %+v", m)
			}
		}, "", -1, context.Canceled.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs, leave := wires()
				ctx, interrupt := context.WithCancel(t.Context())
				defer interrupt()
				p := sits(ctx, ours, leave)
				o := &other{theirs, t, NewChannel(true)}
				if answer := o.shakes(interactive); answer != `{"ClientVersion":"`+clientVersion+`","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}` {
					t.Errorf("it answers %s", answer)
				}
				o.says(HandshakeComplete, `{"HandshakeTimeToComplete":1,"CustomerMessage":"Welcome."}`)
				synctest.Wait()
				c.agent(o, interrupt)
				for m := o.hears(); m.Type != ""; m = o.hears() { // until it has left
				}
				err := <-p.ended
				if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && got != c.want {
					t.Errorf("it ended with %v, want %q", err, c.want)
				}
				if got := p.screen.String(); got != "Welcome.\r\n"+c.shows {
					t.Errorf("it showed %q", got)
				}
				if (p.code == nil) != (c.code < 0) || p.code != nil && *p.code != c.code {
					t.Errorf("its code is %v, want %d", p.code, c.code)
				}
			})
		})
	}
}

func TestWhatAClientCannotDoIsAnsweredAndSaid(t *testing.T) {
	for name, c := range map[string]struct{ asks, answers, says string }{
		"encryption":     {interactive + `,{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}}`, `{"ActionType":"KMSEncryption","ActionStatus":2,"ActionResult":null,"Error":"` + ErrEncrypted.Error() + `"}`, ErrEncrypted.Error()},
		"another type":   {`{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{}}}`, `"ActionStatus":2`, `the session's type is "Port", in which no command is run`},
		"another action": {interactive + `,{"ActionType":"Dance","ActionParameters":{}}`, `"ActionStatus":3`, "the session's agent asks for Dance, which is not done here"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs, leave := wires()
				p := sits(t.Context(), ours, leave)
				o := &other{theirs, t, NewChannel(true)}
				if answer := o.shakes(c.asks); !strings.Contains(answer, c.answers) || !strings.Contains(answer, `"Errors":["`) {
					t.Errorf("it answers %s", answer)
				}
				if err := <-p.ended; err == nil || err.Error() != c.says || name == "encryption" && !errors.Is(err, ErrEncrypted) {
					t.Errorf("it ended with %v", err)
				}
			})
		})
	}
}
