package session

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Channel puts what comes in order and keeps what goes until it is acknowledged. It
// knows no socket and no clock, and is for one goroutine at a time.
type Channel struct {
	sends, takes string // types of messages
	next         int64  // to be sent
	expected     int64
	early        map[int64]Message
	kept         []kept // in order, not acknowledged
}

type kept struct {
	sequence    int64
	raw         []byte
	first, last time.Time // when it was sent
}

// NewChannel is the agent's end, or a client's.
func NewChannel(agent bool) *Channel {
	c := &Channel{sends: Input, takes: Output, early: map[int64]Message{}}
	if agent {
		c.sends, c.takes = Output, Input
	}
	return c
}

const (
	// resendAfter is how long an acknowledgement is waited for, as the plugin's first.
	resendAfter = 200 * time.Millisecond
	// mostEarly is how many messages are kept that came before their turn; others are
	// not acknowledged, and come again.
	mostEarly = 1000
	schema    = 1
)

// Send makes a message of data and keeps it.
func (c *Channel) Send(p Payload, data []byte, now time.Time) []byte {
	m := newMessage(c.sends, data, now)
	m.Sequence, m.Payload = c.next, p
	raw := m.Bytes()
	c.kept = append(c.kept, kept{c.next, raw, now, now})
	c.next++
	return raw
}

func newMessage(kind string, data []byte, now time.Time) Message {
	return Message{Type: kind, Version: schema, Created: now, ID: newID(), Data: data}
}

// newID is a random UUID.
func newID() (id [16]byte) {
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// Take takes what came: it returns the messages whose turn it is, and what is to be
// answered, if anything. Without room data is left alone: it is not acknowledged, and
// comes again.
func (c *Channel) Take(raw []byte, room bool, now time.Time) (turn []Message, answer []byte, err error) {
	m, err := Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	switch m.Type {
	case Ack:
		var a acknowledgement
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return nil, nil, fmt.Errorf("reading an acknowledgement: %w", err)
		}
		c.kept = slices.DeleteFunc(c.kept, func(k kept) bool { return k.sequence == a.Sequence })
		return nil, nil, nil
	case Closed:
		return []Message{m}, nil, nil
	case c.takes:
	default: // the plugin leaves alone what it does not know, and so does this
		return nil, nil, nil
	}
	if m.Sequence > c.expected && len(c.early) >= mostEarly || m.Sequence >= c.expected && !room {
		return nil, nil, nil
	}
	if m.Sequence >= c.expected {
		m.Data = slices.Clone(m.Data)
		c.early[m.Sequence] = m
	}
	for {
		next, ok := c.early[c.expected]
		if !ok {
			break
		}
		delete(c.early, c.expected)
		turn = append(turn, next)
		c.expected++
	}
	answer, err = acknowledge(m, now)
	return turn, answer, err
}

func acknowledge(m Message, now time.Time) ([]byte, error) {
	data, err := json.Marshal(acknowledgement{m.Type, uuid(m.ID), m.Sequence, true})
	if err != nil {
		return nil, err
	}
	a := newMessage(Ack, data, now)
	a.Flags = 3 // the first and the last of its sequence
	return a.Bytes(), nil
}

// Again is what is to be sent again: the oldest message, if it was sent long ago, as
// the plugin does; those behind it are kept by who takes them. waits is for how long
// it has been waited for in all.
func (c *Channel) Again(now time.Time) (raw []byte, waits time.Duration) {
	if len(c.kept) == 0 {
		return nil, 0
	}
	oldest := &c.kept[0]
	waits = now.Sub(oldest.first)
	if now.Sub(oldest.last) < resendAfter {
		return nil, waits
	}
	oldest.last = now
	return oldest.raw, waits
}

// Unacknowledged is how many messages are kept.
func (c *Channel) Unacknowledged() int { return len(c.kept) }
