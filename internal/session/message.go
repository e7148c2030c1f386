// Package session speaks Session Manager's protocol, by which a person has a
// terminal in a container: the side of the agent that runs the command, towards
// AWS's session-manager-plugin, and the side of the plugin, towards AWS's agent.
//
// A client opens a WebSocket (socket.go), says a token, and from then on both sides
// send messages (message.go). Those that carry data are numbered from 0 on each side,
// acknowledged, sent again until they are, and put in order (channel.go, side.go). An
// Agent shakes hands, runs the command on what comes and goes, and closes (agent.go);
// a Client sends what a person types and shows them what comes (client.go).
//
// The facts are observed in the source of the plugin and of the agent:
// https://github.com/aws/session-manager-plugin, https://github.com/aws/amazon-ssm-agent
package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Message is what goes over the socket, whichever way.
type Message struct {
	Type     string
	Version  uint32
	Created  time.Time // milliseconds are kept
	Sequence int64
	Flags    uint64
	ID       [16]byte
	Payload  Payload
	Data     []byte
}

// The types of messages.
const (
	Input  = "input_stream_data"
	Output = "output_stream_data"
	Ack    = "acknowledge"
	Closed = "channel_closed"
)

// Payload is what data is.
type Payload uint32

const (
	Text              Payload = 1 // of a terminal
	Resize            Payload = 3
	HandshakeRequest  Payload = 5
	HandshakeResponse Payload = 6
	HandshakeComplete Payload = 7
	Flag              Payload = 10
	Errors            Payload = 11 // text, of a command without a terminal
	ExitCode          Payload = 12
)

// A header of 116 bytes, big-endian, and the length of the data; the length of the
// header stands in front.
const (
	headerSize   = 116
	overhead     = headerSize + 4
	typeAt       = 4
	versionAt    = 36
	createdAt    = 40
	sequenceAt   = 48
	flagsAt      = 56
	idAt         = 64
	digestAt     = 80
	payloadAt    = 112
	dataLengthAt = headerSize
)

// Bytes is a message as it is sent.
func (m Message) Bytes() []byte {
	b := make([]byte, overhead, overhead+len(m.Data))
	binary.BigEndian.PutUint32(b, headerSize)
	copy(b[typeAt:versionAt], m.Type+strings.Repeat(" ", versionAt-typeAt))
	binary.BigEndian.PutUint32(b[versionAt:], m.Version)
	binary.BigEndian.PutUint64(b[createdAt:], uint64(m.Created.UnixMilli()))
	binary.BigEndian.PutUint64(b[sequenceAt:], uint64(m.Sequence))
	binary.BigEndian.PutUint64(b[flagsAt:], m.Flags)
	copy(b[idAt:], m.ID[8:]) // the halves are the other way round
	copy(b[idAt+8:], m.ID[:8])
	digest := sha256.Sum256(m.Data)
	copy(b[digestAt:], digest[:])
	binary.BigEndian.PutUint32(b[payloadAt:], uint32(m.Payload))
	binary.BigEndian.PutUint32(b[dataLengthAt:], uint32(len(m.Data)))
	return append(b, m.Data...)
}

// Parse reads a message. Its data is a part of raw.
func Parse(raw []byte) (m Message, err error) {
	if len(raw) < overhead {
		return m, fmt.Errorf("a message has %d bytes, which is less than a header", len(raw))
	}
	if n := binary.BigEndian.Uint32(raw); n != headerSize {
		return m, fmt.Errorf("a message's header says it has %d bytes, not %d", n, headerSize)
	}
	if n := binary.BigEndian.Uint32(raw[dataLengthAt:]); int64(n) != int64(len(raw)-overhead) {
		return m, fmt.Errorf("a message says it has %d bytes of data and has %d", n, len(raw)-overhead)
	}
	m = Message{
		Type:     strings.TrimSpace(string(bytes.Trim(raw[typeAt:versionAt], "\x00"))),
		Version:  binary.BigEndian.Uint32(raw[versionAt:]),
		Created:  time.UnixMilli(int64(binary.BigEndian.Uint64(raw[createdAt:]))),
		Sequence: int64(binary.BigEndian.Uint64(raw[sequenceAt:])),
		Flags:    binary.BigEndian.Uint64(raw[flagsAt:]),
		Payload:  Payload(binary.BigEndian.Uint32(raw[payloadAt:])),
		Data:     raw[overhead:],
	}
	copy(m.ID[8:], raw[idAt:])
	copy(m.ID[:8], raw[idAt+8:])
	if m.Type == "" {
		return m, errors.New("a message has no type")
	}
	if digest := sha256.Sum256(m.Data); len(m.Data) > 0 && !bytes.Equal(digest[:], raw[digestAt:payloadAt]) {
		return m, errors.New("a message's data does not have its digest")
	}
	return m, nil
}

// uuid is an id as JSON has it.
func uuid(id [16]byte) string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// acknowledgement is the data of an Ack.
type acknowledgement struct {
	Type         string `json:"AcknowledgedMessageType"`
	ID           string `json:"AcknowledgedMessageId"`
	Sequence     int64  `json:"AcknowledgedMessageSequenceNumber"`
	IsSequential bool   `json:"IsSequentialMessage"`
}

// Size is the data of a Resize: a terminal's, in characters.
type Size struct {
	Columns uint16 `json:"cols"`
	Rows    uint16 `json:"rows"`
}

// Closing is the data of a Closed. Output is shown to the person.
type Closing struct {
	MessageId     string //lint:ignore ST1003 as it is sent
	CreatedDate   string
	DestinationId string //lint:ignore ST1003 as it is sent
	SessionId     string //lint:ignore ST1003 as it is sent
	MessageType   string
	SchemaVersion int
	Output        string
}

// shake is the data of a HandshakeRequest.
type shake struct {
	AgentVersion           string
	RequestedClientActions []action
}

type action struct {
	ActionType       string
	ActionParameters json.RawMessage
}

// What a client can be asked to do as hands are shaken.
const (
	actionType    = "SessionType"
	actionEncrypt = "KMSEncryption"
)

// shaken is the data of a HandshakeResponse.
type shaken struct {
	ClientVersion          string
	ProcessedClientActions []processed
	Errors                 []string
}

// processed is what became of an action.
type processed struct {
	ActionType   string
	ActionStatus int
	ActionResult json.RawMessage
	Error        string
}

// The status of what is processed.
const (
	succeeded   = 1
	failed      = 2
	unsupported = 3
)

// why says what of a handshake did not succeed; "" for nothing.
func (s shaken) why() string {
	for _, a := range s.ProcessedClientActions {
		if a.ActionStatus != succeeded {
			return a.ActionType + ": " + a.Error
		}
	}
	return strings.Join(s.Errors, "; ")
}

// complete is the data of a HandshakeComplete. CustomerMessage is shown to the person.
type complete struct {
	HandshakeTimeToComplete time.Duration
	CustomerMessage         string
}

// opening is the first thing that a client says, as text.
type opening struct {
	MessageSchemaVersion string
	RequestId            string //lint:ignore ST1003 as it is sent
	TokenValue           string
	ClientId             string //lint:ignore ST1003 as it is sent
	ClientVersion        string
}

// Token is what the first thing that a client says gives as its token.
func Token(raw []byte) (string, error) {
	var in opening
	if err := json.Unmarshal(raw, &in); err != nil {
		return "", fmt.Errorf("reading a request to open a data channel: %w", err)
	}
	return in.TokenValue, nil
}
