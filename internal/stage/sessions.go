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
	socket := session.NewSocket(conn)
	first, err := soon(ctx, socket)
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

const tokenWait = 10 * time.Second // wall time

// soon is the first message, if it comes soon.
func soon(ctx context.Context, conn session.Conn) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenWait)
	defer cancel()
	return conn.Read(ctx)
}
