package session

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

const (
	longestMessage = 64 << 10
	writeWait      = 30 * time.Second // a side that takes nothing for so long is gone
	pingEvery      = 5 * time.Minute  // as the plugin
)

// Socket is a WebSocket as a session has it.
type Socket struct{ conn *websocket.Conn }

// NewSocket makes a session's socket of a WebSocket.
func NewSocket(conn *websocket.Conn) Socket {
	conn.SetReadLimit(longestMessage)
	return Socket{conn}
}

// Read reads a message, of whatever kind.
func (s Socket) Read(ctx context.Context) ([]byte, error) {
	_, raw, err := s.conn.Read(ctx)
	return raw, err
}

// Write writes a message.
func (s Socket) Write(ctx context.Context, raw []byte) error {
	return s.write(ctx, websocket.MessageBinary, raw)
}

func (s Socket) write(ctx context.Context, kind websocket.MessageType, raw []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	return s.conn.Write(ctx, kind, raw)
}

// Open says a client's token, which is the first thing to be said.
func (s Socket) Open(ctx context.Context, token string) error {
	raw, err := json.Marshal(opening{MessageSchemaVersion: "1.0", RequestId: uuid(newID()), TokenValue: token, ClientId: uuid(newID()), ClientVersion: clientVersion})
	if err == nil {
		err = s.write(ctx, websocket.MessageText, raw)
	}
	if err != nil {
		return fmt.Errorf("saying the session's token: %w", err)
	}
	return nil
}

// KeepAlive pings until ctx ends: who stands between the sides may take a connection
// for dead on which nothing goes.
func (s Socket) KeepAlive(ctx context.Context) {
	ticks := time.NewTicker(pingEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			s.conn.Ping(ctx) // a connection that broke is seen by who reads
		case <-ctx.Done():
			return
		}
	}
}
