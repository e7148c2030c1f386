package stage

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"serin/internal/api/ecsd"
	"serin/internal/session"
)

// sessionPath is where clients of sessions come, as on AWS.
const sessionPath = "/v1/data-channel/"

// streamURL is where a session's client dials.
func (s *Stage) streamURL(name string) string {
	return "ws://" + s.config.Endpoint + sessionPath + name + "?role=publish_subscribe"
}

// attend serves a session's WebSocket: its client says its token first. That alone
// lets it in; what it signs is not asked for, as its client may have other rights
// than who made the session.
func (s *Stage) attend(w http.ResponseWriter, r *http.Request) {
	s.attended.Add(1)
	defer s.attended.Done()
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has been answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(longestMessage)
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-s.ending:
			cancel(errors.New("the stage goes down"))
		case <-over:
		}
	}()
	socket := (*socket)(conn)
	first, err := socket.within(ctx, tokenWait)
	if err != nil {
		return
	}
	token, err := session.Token(first)
	if err == nil {
		err = s.ecs.Attend(ctx, socket, r.PathValue("session"), token)
	}
	switch {
	case errors.Is(err, ecsd.ErrToken):
		conn.Close(websocket.StatusPolicyViolation, err.Error())
	case err != nil:
		s.log.Warn("a session could not be served", "err", err)
		conn.Close(websocket.StatusProtocolError, "")
	default:
		conn.Close(websocket.StatusNormalClosure, "")
	}
}

const (
	longestMessage = 64 << 10
	tokenWait      = 10 * time.Second // wall time
	writeWait      = 30 * time.Second // wall time; a client that takes nothing for so long is gone
)

// socket is a WebSocket as a session has it.
type socket websocket.Conn

// Read reads a message, of whatever kind.
func (s *socket) Read(ctx context.Context) ([]byte, error) {
	_, raw, err := (*websocket.Conn)(s).Read(ctx)
	return raw, err
}

func (s *socket) within(ctx context.Context, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return s.Read(ctx)
}

// Write writes a message.
func (s *socket) Write(ctx context.Context, raw []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	return (*websocket.Conn)(s).Write(ctx, websocket.MessageBinary, raw)
}
