package session

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"serin/internal/clock"
)

// Conn is a socket that carries messages.
type Conn interface {
	Read(ctx context.Context) ([]byte, error)
	Write(ctx context.Context, message []byte) error
}

// Terminal is what a command has before it: what a person types, what is shown to
// them, and how large their window is. In is to be closed when the command has ended.
type Terminal struct {
	In    io.ReadCloser
	Out   io.Writer
	Sizes <-chan Size
}

// Agent is the side of a session that runs its command.
type Agent struct {
	Session string        // its id
	Version string        // of the agent
	Idle    time.Duration // after which a session ends on which nobody types and nothing is shown
}

const (
	handshake  = 30 * time.Second
	terminated = 2 // a Flag: the person is done
)

var (
	errIdle = errors.New("the session timed out due to inactivity") // the words are guessed
	errDone = errors.New("the client has terminated the session")
)

// Serve shakes hands and runs the command until it ends, the client has gone, or ctx
// ends; then it says why and waits for the client to close. The command's error is
// told to the person.
func (a Agent) Serve(ctx context.Context, conn Conn, command func(context.Context, Terminal) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := &attended{
		Agent: a, side: newSide(ctx, cancel, conn, NewChannel(true)), shaken: make(chan string, 1),
		sizes: make(chan Size, 1), typed: newPending(), active: make(chan struct{}, 1),
	}
	g.room, g.take = g.typed.room, g.act
	var work sync.WaitGroup
	defer work.Wait()
	reading, stop := context.WithCancel(context.WithoutCancel(ctx)) // it goes on while the end is told
	defer stop()
	g.start(reading, &work)
	work.Go(func() { g.watch(reading) })
	err := g.begin(ctx)
	if err == nil {
		err = command(ctx, Terminal{In: g.typed, Out: (*shown)(g), Sizes: g.sizes})
	}
	g.typed.Close()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return g.end(reading, err)
}

// attended is one session under way.
type attended struct {
	Agent
	*side

	shaken chan string // why hands were not shaken, or ""
	sizes  chan Size
	typed  *pending
	active chan struct{} // somebody typed, or something was shown
}

// act acts on a message whose turn it is.
func (g *attended) act(m Message) {
	switch m.Payload {
	case Text:
		clock.Poke(g.active)
		g.typed.put(m.Data)
	case Resize:
		var s Size
		if json.Unmarshal(m.Data, &s) != nil {
			return
		}
		select { // only the last one counts
		case <-g.sizes:
		default:
		}
		g.sizes <- s
	case HandshakeResponse:
		var s shaken
		why := ""
		if err := json.Unmarshal(m.Data, &s); err != nil {
			why = err.Error()
		} else {
			why = s.why()
		}
		select {
		case g.shaken <- why:
		default:
		}
	case Flag:
		if len(m.Data) == 4 && binary.BigEndian.Uint32(m.Data) == terminated {
			g.cancel(errDone)
		}
	}
}

// watch ends a session on which nothing happens.
func (g *attended) watch(ctx context.Context) {
	idle := time.NewTimer(g.Idle)
	defer idle.Stop()
	for {
		select {
		case <-g.active:
			idle.Reset(g.Idle)
		case <-idle.C:
			g.cancel(errIdle)
			return
		case <-ctx.Done():
			return
		}
	}
}

// begin shakes hands: the client learns what kind of session it is.
func (g *attended) begin(ctx context.Context) error {
	began := time.Now()
	data, err := json.Marshal(shake{g.Version, []action{{actionType, json.RawMessage(`{"SessionType":"InteractiveCommands","Properties":null}`)}}})
	if err != nil {
		return fmt.Errorf("shaking hands: %w", err)
	}
	g.send(HandshakeRequest, data)
	late := time.NewTimer(handshake)
	defer late.Stop()
	select {
	case why := <-g.shaken:
		if why != "" {
			return fmt.Errorf("the client cannot do what the session needs: %s", why)
		}
	case <-late.C:
		return errors.New("the client did not shake hands")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if data, err = json.Marshal(complete{HandshakeTimeToComplete: time.Since(began)}); err != nil {
		return err
	}
	g.send(HandshakeComplete, data)
	return nil
}

// end waits until everything that was shown has come, says why the session ends, and
// waits for the client, which has the last word.
func (g *attended) end(ctx context.Context, why error) error {
	if errors.Is(why, errGone) {
		return why
	}
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	g.settle(ctx)
	now := time.Now()
	m := newMessage(Closed, nil, now)
	c := Closing{MessageId: uuid(m.ID), CreatedDate: strconv.FormatInt(now.UnixMilli(), 10), SessionId: g.Session, MessageType: Closed, SchemaVersion: schema}
	if why != nil && !errors.Is(why, errDone) {
		c.Output = why.Error()
	}
	var err error
	if m.Data, err = json.Marshal(c); err != nil {
		return err
	}
	g.mu.Lock()
	g.put(m.Bytes())
	g.mu.Unlock()
	select {
	case <-g.gone:
	case <-ctx.Done():
	}
	return why
}

// shown writes what a command shows to the person.
type shown attended

func (s *shown) Write(b []byte) (n int, err error) {
	clock.Poke(s.active)
	return s.side.Write(b)
}
