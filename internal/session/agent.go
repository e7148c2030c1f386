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
	pieces     = 1024 // bytes of output in a message, as the agent's
	window     = 256  // messages of output that are on their way
	mostQueued = 4096 // messages that the client does not take
	mostTyped  = 256 << 10
	handshake  = 30 * time.Second
	giveUp     = 5 * time.Minute // on a message that is not acknowledged, as the plugin
	farewell   = 10 * time.Second
	tick       = 50 * time.Millisecond
	terminated = 2 // a Flag: the person is done
)

var (
	errIdle   = errors.New("the session timed out due to inactivity") // the words are guessed
	errGone   = errors.New("the client is gone")
	errSilent = errors.New("the client does not acknowledge what is sent")
	errDone   = errors.New("the client has terminated the session")
)

// Serve shakes hands and runs the command until it ends, the client has gone, or ctx
// ends; then it says why and waits for the client to close. The command's error is
// told to the person.
func (a Agent) Serve(ctx context.Context, conn Conn, command func(context.Context, Terminal) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := &attended{
		Agent: a, conn: conn, cancel: cancel, channel: NewChannel(true), queued: make(chan struct{}, 1), moved: make(chan struct{}, 1), shaken: make(chan string, 1),
		sizes: make(chan Size, 1), typed: newTyped(), gone: make(chan struct{}), done: ctx.Done(), active: make(chan struct{}, 1),
	}
	var work sync.WaitGroup
	defer work.Wait()
	reading, stop := context.WithCancel(context.WithoutCancel(ctx)) // it goes on while the end is told
	defer stop()
	work.Go(func() { defer close(g.gone); g.read(reading) })
	work.Go(func() { g.write(reading) })
	work.Go(func() { g.again(reading) })
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
	conn   Conn
	cancel context.CancelCauseFunc

	mu      sync.Mutex // over the channel and the order of what is written
	channel *Channel
	queue   [][]byte      // to be written
	queued  chan struct{} // there is some
	moved   chan struct{} // something was acknowledged

	shaken chan string // why hands were not shaken, or ""
	sizes  chan Size
	typed  *typed
	gone   chan struct{}   // the client is
	done   <-chan struct{} // the command is to end
	active chan struct{}   // somebody typed, or something was shown
}

// send sends data, behind what is sent already.
func (g *attended) send(p Payload, data []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.put(g.channel.Send(p, data, time.Now()))
}

// put lines a message up; the caller holds the lock. Who reads must not wait until
// the other side does.
func (g *attended) put(raw []byte) {
	if len(g.queue) >= mostQueued {
		g.cancel(errSilent)
		return
	}
	g.queue = append(g.queue, raw)
	clock.Poke(g.queued)
}

// write writes what is lined up.
func (g *attended) write(ctx context.Context) {
	for {
		select {
		case <-g.queued:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		queue := g.queue
		g.queue = nil
		g.mu.Unlock()
		for _, raw := range queue {
			if g.conn.Write(ctx, raw) != nil {
				g.cancel(errGone)
				return
			}
		}
	}
}

// read takes what comes until the client is gone.
func (g *attended) read(ctx context.Context) {
	for {
		raw, err := g.conn.Read(ctx)
		if err != nil {
			g.cancel(errGone)
			return
		}
		g.mu.Lock()
		turn, answer, err := g.channel.Take(raw, g.typed.room(), time.Now())
		if answer != nil {
			g.put(answer)
		}
		g.mu.Unlock()
		clock.Poke(g.moved)
		if err != nil {
			g.cancel(fmt.Errorf("reading what the client says: %w", err))
			continue // it may still hear why
		}
		for _, m := range turn {
			g.take(m)
		}
	}
}

// take acts on a message whose turn it is.
func (g *attended) take(m Message) {
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

// again sends again what is not acknowledged.
func (g *attended) again(ctx context.Context) {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		raw, waits := g.channel.Again(time.Now())
		if raw != nil {
			g.put(raw)
		}
		g.mu.Unlock()
		if waits > giveUp {
			g.cancel(errSilent)
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
	data, err := json.Marshal(shake{g.Version, []action{{"SessionType", map[string]any{"SessionType": "InteractiveCommands", "Properties": nil}}}})
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
	for g.unacknowledged() > 0 && ctx.Err() == nil {
		select {
		case <-g.moved:
		case <-g.gone:
			return why
		case <-ctx.Done():
		}
	}
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

func (g *attended) unacknowledged() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.channel.Unacknowledged()
}

// shown writes what a command shows to the person. It waits while much is on its way.
type shown attended

func (s *shown) Write(b []byte) (n int, err error) {
	g := (*attended)(s)
	clock.Poke(g.active)
	for len(b) > 0 {
		for g.unacknowledged() >= window {
			select {
			case <-g.moved:
			case <-g.done:
				return n, errGone
			}
		}
		piece := b[:min(len(b), pieces)]
		g.send(Text, piece)
		n += len(piece)
		b = b[len(piece):]
	}
	return n, nil
}

// typed is what a person has typed and the command has not read.
type typed struct {
	mu     sync.Mutex
	more   sync.Cond
	bytes  []byte
	closed bool
}

func newTyped() *typed {
	t := &typed{}
	t.more.L = &t.mu
	return t
}

func (t *typed) room() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed || len(t.bytes) < mostTyped
}

func (t *typed) put(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.bytes = append(t.bytes, b...)
		t.more.Broadcast()
	}
}

func (t *typed) Read(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.bytes) == 0 {
		if t.closed {
			return 0, io.EOF
		}
		t.more.Wait()
	}
	n := copy(b, t.bytes)
	t.bytes = t.bytes[n:]
	return n, nil
}

func (t *typed) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed, t.bytes = true, nil
	t.more.Broadcast()
	return nil
}
