package session

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// clientVersion is one of the plugin's that can do what is done here.
const clientVersion = "1.3.0.0"

// endOfInput is the key that ends a terminal's input.
const endOfInput = 0x04

// ErrEncrypted is that a session's agent asks for encryption.
var ErrEncrypted = errors.New("the session is to be encrypted with a KMS key, which is not done here")

var errClosed = errors.New("the agent has closed the session")

// sessionTypes are those in which a command is run; observed.
var sessionTypes = map[string]bool{"Standard_Stream": true, "InteractiveCommands": true, "NonInteractiveCommands": true}

// Attend is the side of a session at which a person is: it shakes hands, sends what
// they type and their window's sizes, and shows them what comes, until the agent
// closes the session or ctx ends. The end of what they type is typed too. code is the
// command's exit code where the agent tells it, which those of ECS do not.
// A Close of person.In must end a Read.
func Attend(ctx context.Context, conn Conn, person Terminal) (code *int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := &attending{side: newSide(ctx, cancel, conn, NewChannel(false)), shown: newPending(), begun: make(chan struct{})}
	g.room, g.take = g.shown.room, g.act
	var work, telling sync.WaitGroup
	defer work.Wait()
	reading, stop := context.WithCancel(context.WithoutCancel(ctx)) // it goes on while the end is told
	defer stop()
	work.Go(func() { g.show(person.Out) })
	g.start(reading, &work)
	telling.Go(func() { g.input(person.In) })
	telling.Go(func() { g.resize(ctx, person.Sizes) })
	<-ctx.Done()
	person.In.Close()
	telling.Wait()
	if err := g.end(reading, context.Cause(ctx)); err != nil {
		return nil, err
	}
	return g.code, nil
}

// attending is one session under way.
type attending struct {
	*side
	shown *pending
	begun chan struct{} // hands are shaken

	said string // as the agent closed; this and code are read once it has
	code *int
}

// act acts on a message whose turn it is, while the session goes on.
func (g *attending) act(m Message) {
	select {
	case <-g.done:
		return
	default:
	}
	if m.Type == Closed {
		var c Closing
		if err := json.Unmarshal(m.Data, &c); err != nil {
			g.cancel(fmt.Errorf("reading why the session is closed: %w", err))
			return
		}
		g.said = strings.TrimSpace(c.Output)
		g.cancel(errClosed)
		return
	}
	switch m.Payload {
	case Text, Errors:
		g.shown.put(m.Data)
	case HandshakeRequest:
		g.shake(m.Data)
	case HandshakeComplete:
		g.begin(m.Data)
	case ExitCode:
		if n, err := strconv.Atoi(strings.TrimPrefix(string(m.Data), "EXIT_CODE: ")); err == nil { // observed
			g.code = &n
		}
	}
}

// shake answers what the agent asks of its client.
func (g *attending) shake(raw []byte) {
	var asked shake
	if err := json.Unmarshal(raw, &asked); err != nil {
		g.cancel(fmt.Errorf("shaking hands: %w", err))
		return
	}
	var why error
	answer := shaken{ClientVersion: clientVersion, ProcessedClientActions: []processed{}}
	for _, a := range asked.RequestedClientActions {
		done := processed{ActionType: a.ActionType, ActionStatus: succeeded}
		if status, err := a.perform(); err != nil {
			done.ActionStatus, done.Error = status, err.Error()
			answer.Errors, why = append(answer.Errors, err.Error()), cmp.Or(why, err)
		}
		answer.ProcessedClientActions = append(answer.ProcessedClientActions, done)
	}
	data, err := json.Marshal(answer)
	if err != nil {
		g.cancel(fmt.Errorf("shaking hands: %w", err))
		return
	}
	g.send(HandshakeResponse, data)
	if why != nil {
		g.cancel(why)
	}
}

// perform does what an agent asks for, or says why not.
func (a action) perform() (status int, err error) {
	switch a.ActionType {
	case actionType:
		var in struct{ SessionType string }
		if err := json.Unmarshal(a.ActionParameters, &in); err != nil {
			return failed, fmt.Errorf("reading the session's type: %w", err)
		}
		if !sessionTypes[in.SessionType] {
			return failed, fmt.Errorf("the session's type is %q, in which no command is run", in.SessionType)
		}
		return succeeded, nil
	case actionEncrypt:
		return failed, ErrEncrypted
	}
	return unsupported, fmt.Errorf("the session's agent asks for %s, which is not done here", a.ActionType)
}

// begin lets the person type.
func (g *attending) begin(raw []byte) {
	var c complete
	if err := json.Unmarshal(raw, &c); err != nil {
		g.cancel(fmt.Errorf("shaking hands: %w", err))
		return
	}
	if c.CustomerMessage != "" {
		g.shown.put([]byte(c.CustomerMessage + "\r\n"))
	}
	select {
	case <-g.begun: // it said so before
	default:
		close(g.begun)
	}
}

// show shows what comes.
func (g *attending) show(to io.Writer) {
	if _, err := io.Copy(to, g.shown); err != nil {
		g.shown.Close()
		g.cancel(fmt.Errorf("showing what the command says: %w", err))
	}
}

// input sends what is typed, and its end: a line that is not ended goes on with the
// first such key, observed of terminals, and the second ends the input.
func (g *attending) input(from io.Reader) {
	select {
	case <-g.begun:
	case <-g.done:
		return
	}
	last := lastByte('\n')
	if _, err := io.Copy(io.MultiWriter(g.side, &last), from); err != nil {
		return
	}
	if last != '\n' {
		g.side.Write([]byte{endOfInput})
	}
	g.side.Write([]byte{endOfInput})
}

// lastByte is the last byte that was written to it.
type lastByte byte

func (l *lastByte) Write(b []byte) (int, error) {
	if len(b) > 0 {
		*l = lastByte(b[len(b)-1])
	}
	return len(b), nil
}

// resize sends the window's sizes.
func (g *attending) resize(ctx context.Context, sizes <-chan Size) {
	select {
	case <-g.begun:
	case <-ctx.Done():
		return
	}
	for {
		select {
		case s := <-sizes:
			data, err := json.Marshal(s)
			if err != nil {
				g.cancel(fmt.Errorf("saying the terminal's size: %w", err))
				return
			}
			g.send(Resize, data)
		case <-ctx.Done():
			return
		}
	}
}

// end shows what has come, tells the agent that the person is done where it did not
// close the session itself, and returns why it ended.
func (g *attending) end(ctx context.Context, why error) error {
	defer g.shown.end()
	switch {
	case errors.Is(why, errClosed) && g.said != "":
		return errors.New(g.said)
	case errors.Is(why, errClosed):
		return nil
	case errors.Is(why, errGone):
		return why
	}
	select {
	case <-g.begun:
		g.send(Flag, binary.BigEndian.AppendUint32(nil, terminated))
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	g.settle(ctx)
	return why
}
