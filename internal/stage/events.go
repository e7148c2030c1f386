package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"serin/internal/events"
)

// EventPage is a page of the events: those after a number, or the newest.
type EventPage struct {
	Events []json.RawMessage `json:"events"`
	// Last is the number of the last of them: what the next page comes after.
	Last uint64 `json:"last"`
}

const (
	usualEvents = 100              // in a page
	streamBatch = 100              // written to a stream between two looks
	heartbeat   = 15 * time.Second // of a stream, wall time
)

// eventList answers with events: ?after=NUMBER those that come after one, the
// oldest first, else the newest; ?limit=COUNT that many. As a stream, where
// Accept or ?follow asks for one.
func (s *Stage) eventList(w http.ResponseWriter, r *http.Request) {
	refuse := func(format string, args ...any) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": fmt.Sprintf(format, args...)})
	}
	q := r.URL.Query()
	limit := usualEvents
	if text := q.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > events.Most {
			refuse("limit must be between 1 and %d, got %q", events.Most, text)
			return
		}
	}
	follow := strings.Contains(r.Header.Get("Accept"), "text/event-stream") || q.Get("follow") == "true"
	from := q.Get("after")
	if id := r.Header.Get("Last-Event-ID"); id != "" && follow { // a stream that broke goes on
		from = id
	}
	after, given := uint64(0), from != ""
	if given {
		var err error
		if after, err = strconv.ParseUint(from, 10, 64); err != nil || after == math.MaxUint64 {
			refuse("after must be the number of an event, got %q", from)
			return
		}
	}
	if follow {
		if !given {
			after = s.events.Last()
		}
		s.streamEvents(w, r, after)
		return
	}
	list := s.events.Newest(limit)
	if given {
		list = s.events.After(after, limit)
	}
	page := EventPage{Events: []json.RawMessage{}, Last: after}
	for _, e := range list {
		page.Events, page.Last = append(page.Events, e.Event), e.Number
	}
	writeJSON(w, http.StatusOK, page)
}

// streamEvents sends what comes after a number, and what is to come, as
// server-sent events, until the reader goes or the stage ends. A slow reader
// keeps his place and nothing else.
func (s *Stage) streamEvents(w http.ResponseWriter, r *http.Request, after uint64) {
	wake := make(chan struct{}, 1)
	defer s.events.Watch(wake)()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	fmt.Fprint(w, ": the stage's events\n\n")
	for {
		list := s.events.After(after, streamBatch)
		for _, e := range list {
			if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Number, e.Event); err != nil {
				return
			}
			after = e.Number
		}
		if err := out.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) { // in this process nothing is held back
			return
		}
		if len(list) == streamBatch {
			continue
		}
		select {
		case <-wake:
		case <-beat.C:
			if _, err := fmt.Fprint(w, ":\n\n"); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		}
	}
}
