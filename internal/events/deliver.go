package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"serin/internal/store"
)

// How long an event is tried, and what a target may take for one, documented:
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html
// All of it is wall time: the target is a stranger.
const (
	mostAttempts = 185
	mostAge      = 24 * time.Hour
	mostWait     = 5 * time.Second
	longestPause = 8 * time.Minute // 185 of them are a day
	batch        = 100             // events between two writes of the place
)

// NumberHeader tells a target an event's number in the log.
const NumberHeader = "Serin-Event-Number"

// target is the row of the one target: how far it was told.
type target struct {
	URL   string
	After uint64 // the number of the last event that it took, or that was given up
	Lost  int    // events that were forgotten before it took them, not yet said
}

const theTarget = "target"

// ParseTarget reads the address of a target.
func ParseTarget(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the target of events must be a URL such as http://localhost:9000/events, got %q", address)
	}
	return u, nil
}

// Subscribe names the target that Deliver posts to. One that is named for the
// first time is told what happens from now on; the same one again goes on where
// it was.
func (l *Log) Subscribe(address string) error {
	if _, err := ParseTarget(address); err != nil {
		return err
	}
	return l.store.Update(func(tx *store.Tx) error {
		if t, ok := l.targets.Get(tx, theTarget); !ok || t.URL != address {
			_, last, _ := l.rows.Last(tx)
			l.targets.Put(tx, theTarget, target{URL: address, After: last.Number})
		}
		return nil
	})
}

// lose notes that an event is forgotten; if the target was not told, that is said.
func (l *Log) lose(tx *store.Tx, number uint64) {
	if t, ok := l.targets.Get(tx, theTarget); ok && t.After < number {
		t.After, t.Lost = number, t.Lost+1
		l.targets.Put(tx, theTarget, t)
	}
}

// delivery is how far Deliver is.
type delivery struct {
	*Log
	log      *slog.Logger
	client   *http.Client
	address  string
	shown    string // the address without its password
	after    uint64
	failures int // in a row
}

// Deliver posts events to the target in their order, one at a time, until ctx
// ends. Each is posted at least once; one that the target does not take is tried
// again, longer apart each time, and those behind it wait.
func (l *Log) Deliver(ctx context.Context, address string, through http.RoundTripper, log *slog.Logger) error {
	u, err := ParseTarget(address)
	if err != nil {
		return err
	}
	d := &delivery{Log: l, log: log, address: address, shown: u.Redacted(), client: &http.Client{
		Transport: through, Timeout: mostWait, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	wake := make(chan struct{}, 1)
	defer l.Watch(wake)()
	for {
		if err := d.keepPlace(); err != nil {
			return err
		}
		list := l.After(d.after, batch)
		for _, e := range list {
			if err := d.send(ctx, e); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return d.keepPlace()
			}
			d.after = e.Number
		}
		if len(list) > 0 {
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// send posts an event until the target takes it, it is given up, or ctx ends.
func (d *delivery) send(ctx context.Context, e Entry) error {
	for attempt := 1; ; attempt++ {
		err := d.post(ctx, e)
		if err == nil {
			d.failures = 0
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		_, refused := errors.AsType[*refusedError](err)
		over := refused || attempt >= mostAttempts || time.Since(e.Put) > mostAge
		switch {
		case !d.kept(e.Number):
			over = true // keepPlace says so
		case over:
			d.log.Warn("an event was given up: its target does not take it", "url", d.shown, "event", e.Number, "attempts", attempt, "err", err)
		case d.failures == 0:
			d.log.Warn("the target of events does not take them; they are kept and tried again", "url", d.shown, "err", err)
		}
		if refused {
			return nil
		}
		if err := d.keepPlace(); err != nil {
			return err
		}
		pause := min(time.Second<<min(d.failures, 20), longestPause)
		d.failures++
		select {
		case <-time.After(pause*3/4 + rand.N(pause/2)):
		case <-ctx.Done():
			return nil
		}
		if over {
			return nil
		}
	}
}

// kept says that an event was not forgotten meanwhile.
func (d *delivery) kept(number uint64) (ok bool) {
	d.store.View(func(tx *store.Tx) { _, ok = d.rows.Get(tx, key(number)) })
	return ok
}

// keepPlace writes down how far the target was told, and reads what it lost.
func (d *delivery) keepPlace() error {
	var row target
	var known bool
	d.store.View(func(tx *store.Tx) { row, known = d.targets.Get(tx, theTarget) })
	if known && d.after <= row.After && row.Lost == 0 {
		d.after = row.After
		return nil
	}
	err := d.store.Update(func(tx *store.Tx) error {
		row, _ = d.targets.Get(tx, theTarget)
		d.after = max(d.after, row.After)
		d.targets.Put(tx, theTarget, target{URL: d.address, After: d.after})
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping the place of the target of events: %w", err)
	}
	if row.Lost > 0 {
		d.log.Warn("events were given up: there are too many that their target did not take", "url", d.shown, "events", row.Lost)
	}
	return nil
}

// refusedError is an answer that the same event will get again.
type refusedError struct{ status string }

func (e *refusedError) Error() string { return "the target answers " + e.status }

// post sends an event once.
func (d *delivery) post(ctx context.Context, e Entry) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.address, bytes.NewReader(e.Event))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(NumberHeader, strconv.FormatUint(e.Number, 10))
	out, err := d.client.Do(r)
	if err != nil {
		return err
	}
	defer out.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(out.Body, 1<<20)); err != nil {
		return fmt.Errorf("reading the target's answer: %w", err)
	}
	switch code := out.StatusCode; {
	case code/100 == 2:
		return nil
	case code/100 == 5 || code == 401 || code == 407 || code == 409 || code == 429: // documented: these alone are tried again
		return fmt.Errorf("the target answers %s", out.Status)
	}
	return &refusedError{out.Status}
}
