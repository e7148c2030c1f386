package cwd

import (
	"context"
	"fmt"
	"time"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/store"
)

// Alarms are evaluated once a minute, those with a shorter period every ten
// seconds, documented. What was measured in a minute is published right after
// it; the loop waits a little for that, guessed.
const (
	everyMinute    = time.Minute
	everyTen       = 10 * time.Second
	settleMinute   = 10 * time.Second
	settleTen      = 2 * time.Second
	mostEvaluation = 60 // of one alarm, when stage time has jumped
)

func (a alarm) rhythm() (every, settle time.Duration) {
	if a.period() < time.Minute {
		return everyTen, settleTen
	}
	return everyMinute, settleMinute
}

// Run evaluates alarms, in stage time, until ctx ends.
func (a *API) Run(ctx context.Context) error {
	stop := a.store.Watch(a.wake, a.alarms)
	defer stop()
	done := map[string]time.Time{} // alarm → the end of the last range that was evaluated
	for {
		next, err := a.evaluate(done)
		if err != nil {
			return fmt.Errorf("evaluating alarms: %w", err)
		}
		if _, err := a.clock.Wait(ctx, next, a.wake); err != nil {
			return nil
		}
	}
}

// Measured says that the stage has published all that it measured before a time. No
// minute is evaluated before that, also when stage time has jumped over it.
func (a *API) Measured(until time.Time) {
	a.measuredMu.Lock()
	a.measured = until
	a.measuredMu.Unlock()
	clock.Poke(a.wake)
}

func (a *API) measuredUntil() time.Time {
	a.measuredMu.Lock()
	defer a.measuredMu.Unlock()
	return a.measured
}

// evaluate is one pass over all alarms. It returns when the next is due; a new
// alarm is evaluated first when the minute is over in which it was seen.
func (a *API) evaluate(done map[string]time.Time) (next time.Time, err error) {
	now, until := a.clock.Now(), a.measuredUntil()
	if until.IsZero() {
		return next, nil
	}
	rows := map[string]alarm{}
	a.store.View(func(tx *store.Tx) {
		for key, row := range a.alarms.Scan(tx, "") {
			rows[key] = row
		}
	})
	for key := range done {
		if _, ok := rows[key]; !ok {
			delete(done, key)
		}
	}
	for key, row := range rows {
		every, settle := row.rhythm()
		due := now.Add(-settle).Truncate(every)
		waits := every == everyMinute && due.After(until)
		if waits {
			due = until
		}
		last, known := done[key]
		if !known {
			last = due
		}
		if missed := due.Add(-mostEvaluation * every); last.Before(missed) {
			last = missed
		}
		if err := a.follow(key, row, last, due); err != nil {
			return next, err
		}
		done[key] = due
		if !waits {
			next = clock.Sooner(next, due.Add(every+settle))
		}
	}
	return next, nil
}

// follow evaluates an alarm at every beat after last, up to due, and writes what
// has changed, unless somebody has changed the alarm meanwhile: then the loop is
// woken and looks again at the next beat.
func (a *API) follow(key string, row alarm, last, due time.Time) error {
	scope, _ := arn.ParseKey(key)
	every, settle := row.rhythm()
	after := row
	var items []item
	for at := last.Add(every); !at.After(due); at = at.Add(every) {
		v := after.decide(a.samples(scope, after, at))
		if v.keep || v.state == after.State {
			continue
		}
		before := after
		after = after.into(v.state, v.reason(after), v.data(after, at.Add(settle)), at.Add(settle))
		items = append(items, transition(before, after))
	}
	if len(items) == 0 {
		return nil
	}
	return a.store.Update(func(tx *store.Tx) error {
		if now, ok := a.alarms.Get(tx, key); !ok || !now.Configured.Equal(row.Configured) || !now.Updated.Equal(row.Updated) || now.State != row.State {
			return nil
		}
		a.alarms.Put(tx, key, after)
		for _, i := range items {
			a.note(tx, scope, i)
		}
		return nil
	})
}
