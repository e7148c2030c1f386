package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"serin/internal/clock"
)

// side is what both sides of a session do while it is under way: they send, take,
// acknowledge and send again.
type side struct {
	conn   Conn
	cancel context.CancelCauseFunc
	done   <-chan struct{} // the session is to end
	room   func() bool     // for what comes
	take   func(Message)   // acts on a message whose turn it is

	mu      sync.Mutex // over the channel and the order of what is written
	channel *Channel
	queue   [][]byte      // to be written
	queued  chan struct{} // there is some
	moved   chan struct{} // something was acknowledged
	gone    chan struct{} // the other side is
}

const (
	pieces      = 1024 // bytes of text in a message, as the agent's and the plugin's
	window      = 256  // messages of text that are on their way
	mostQueued  = 4096 // messages that the other side does not take
	mostPending = 256 << 10
	giveUp      = 5 * time.Minute // on a message that is not acknowledged, as the plugin
	farewell    = 10 * time.Second
	tick        = 50 * time.Millisecond
)

var (
	errGone   = errors.New("the session's connection broke")
	errSilent = errors.New("what the session sends is not acknowledged")
)

func newSide(ctx context.Context, cancel context.CancelCauseFunc, conn Conn, channel *Channel) *side {
	return &side{conn: conn, cancel: cancel, done: ctx.Done(), channel: channel, queued: make(chan struct{}, 1), moved: make(chan struct{}, 1), gone: make(chan struct{})}
}

// start has messages come and go until ctx ends.
func (g *side) start(ctx context.Context, work *sync.WaitGroup) {
	work.Go(func() { defer close(g.gone); g.read(ctx) })
	work.Go(func() { g.write(ctx) })
	work.Go(func() { g.again(ctx) })
}

// send sends data, behind what is sent already.
func (g *side) send(p Payload, data []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.put(g.channel.Send(p, data, time.Now()))
}

// put lines a message up; the caller holds the lock. Who reads must not wait until
// the other side does.
func (g *side) put(raw []byte) {
	if len(g.queue) >= mostQueued {
		g.cancel(errSilent)
		return
	}
	g.queue = append(g.queue, raw)
	clock.Poke(g.queued)
}

// write writes what is lined up.
func (g *side) write(ctx context.Context) {
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

// read takes what comes until the other side is gone.
func (g *side) read(ctx context.Context) {
	for {
		raw, err := g.conn.Read(ctx)
		if err != nil {
			g.cancel(errGone)
			return
		}
		g.mu.Lock()
		turn, answer, err := g.channel.Take(raw, g.room(), time.Now())
		if answer != nil {
			g.put(answer)
		}
		g.mu.Unlock()
		clock.Poke(g.moved)
		if err != nil {
			g.cancel(fmt.Errorf("reading what came: %w", err))
			continue // the other side may still hear why
		}
		for _, m := range turn {
			g.take(m)
		}
	}
}

// again sends again what is not acknowledged.
func (g *side) again(ctx context.Context) {
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

// settle waits until everything that was sent has come, the other side is gone, or
// ctx ends.
func (g *side) settle(ctx context.Context) {
	for g.unacknowledged() > 0 {
		select {
		case <-g.moved:
		case <-g.gone:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (g *side) unacknowledged() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.channel.Unacknowledged()
}

// Write sends text. It waits while much is on its way.
func (g *side) Write(b []byte) (n int, err error) {
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
