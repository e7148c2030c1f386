// Package events keeps what has happened until it was told.
//
// An event is a row: it is appended in the transaction of the change that it
// tells, so it is there exactly when the change is. Rows are numbered without
// gaps, and the newest are kept. Whoever reads holds a number and asks for what
// comes after it: a page of a list, a stream (internal/stage), or Deliver, which
// posts events to one HTTP target and keeps its place as a row. So nobody waits
// for a reader, and none loses what is still kept.
//
// The form is EventBridge's, documented:
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
package events

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
)

// Event is one in EventBridge's envelope.
type Event struct {
	Version    string          `json:"version"`
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       time.Time       `json:"time"`
	Region     string          `json:"region"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
}

// New is an event of a scope at a time, in whole seconds as EventBridge writes it.
func New(source, detailType string, scope arn.Scope, at time.Time, detail json.RawMessage, resources ...string) Event {
	return Event{
		Version: "0", ID: id.UUID(), DetailType: detailType, Source: source, Account: scope.Account, Time: at.UTC().Truncate(time.Second),
		Region: scope.Region, Resources: resources, Detail: detail,
	}
}

// Entry is an event in the log.
type Entry struct {
	Number uint64
	Put    time.Time       // wall time
	Event  json.RawMessage // in its envelope, as every reader gets it
}

// MarshalBinary is the row on disk: two numbers and the event. Many are read at a
// start, and nothing of them needs to be parsed.
func (e Entry) MarshalBinary() ([]byte, error) {
	raw := binary.BigEndian.AppendUint64(nil, e.Number)
	raw = binary.BigEndian.AppendUint64(raw, uint64(e.Put.UnixMicro()))
	return append(raw, e.Event...), nil
}

// UnmarshalBinary is the inverse of MarshalBinary.
func (e *Entry) UnmarshalBinary(raw []byte) error {
	if len(raw) < 16 {
		return fmt.Errorf("an event of %d bytes is cut off", len(raw))
	}
	e.Number = binary.BigEndian.Uint64(raw)
	e.Put = time.UnixMicro(int64(binary.BigEndian.Uint64(raw[8:])))
	e.Event = bytes.Clone(raw[16:])
	return nil
}

// Most is how many events a stage keeps: some 8 MB in memory and on disk, and the
// story of a hundred deployments.
const Most = 5_000

// Log is the newest events.
type Log struct {
	store   *store.Store
	rows    *store.Table[Entry]
	targets *store.Table[target]
	most    int
}

// NewLog adds the log's tables to the store; most is how many events are kept.
func NewLog(s *store.Store, most int) *Log {
	return &Log{store: s, rows: store.NewTable[Entry](s, "events/log"), targets: store.NewTable[target](s, "events/target"), most: most}
}

func key(number uint64) string { return fmt.Sprintf("%020d", number) }

// Append adds an event in the transaction of what it tells, and forgets the
// oldest where there are too many.
//
// The first number of an empty log is the time in microseconds: a log that was
// emptied gives no number again, and a reader's place stays right.
func (l *Log) Append(tx *store.Tx, e Event) {
	raw, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("events: the detail of %s is not JSON: %v", e.DetailType, err))
	}
	now := time.Now()
	number := uint64(now.UnixMicro())
	if _, last, ok := l.rows.Last(tx); ok {
		number = last.Number + 1
	}
	l.rows.Put(tx, key(number), Entry{number, now, raw})
	for n := l.rows.Len(tx); n > l.most; n = l.rows.Len(tx) {
		oldest := number - uint64(n) + 1
		l.rows.Delete(tx, key(oldest))
		l.lose(tx, oldest)
	}
}

// After returns up to limit events that come after a number, the oldest first.
func (l *Log) After(number uint64, limit int) []Entry {
	var list []Entry
	l.store.View(func(tx *store.Tx) {
		for _, e := range l.rows.From(tx, key(number+1)) {
			if len(list) == limit {
				return
			}
			list = append(list, e)
		}
	})
	return list
}

// Newest returns the newest events, at most limit, the oldest of them first.
func (l *Log) Newest(limit int) []Entry {
	last := l.Last()
	return l.After(last-min(last, uint64(limit)), limit)
}

// Last is the newest event's number, 0 where there is none.
func (l *Log) Last() (number uint64) {
	l.store.View(func(tx *store.Tx) {
		_, e, _ := l.rows.Last(tx)
		number = e.Number
	})
	return number
}

// Watch sends a signal to ch whenever there are new events, as store.Watch does.
func (l *Log) Watch(ch chan<- struct{}) (stop func()) { return l.store.Watch(ch, l.rows) }
