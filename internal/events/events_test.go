package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"serin/internal/arn"
	"serin/internal/store"
)

var scope = arn.Scope{Account: "111111111111", Region: "us-east-1"}

func named(name string) Event {
	detail, _ := json.Marshal(map[string]string{"eventName": name})
	return New("aws.ecs", "Test", scope, time.Now(), detail, "arn:aws:ecs:us-east-1:111111111111:service/default/s")
}

func (l *Log) add(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := l.store.Update(func(tx *store.Tx) error { l.Append(tx, named(name)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func name(t *testing.T, e Event) string {
	t.Helper()
	var d struct{ EventName string }
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		t.Fatal(err)
	}
	return d.EventName
}

func names(t *testing.T, list []Entry) (out []string) {
	t.Helper()
	for _, e := range list {
		var event Event
		if err := json.Unmarshal(e.Event, &event); err != nil {
			t.Fatal(err)
		}
		out = append(out, name(t, event))
	}
	return out
}

func open(t *testing.T, s *store.Store, most int) *Log {
	t.Helper()
	l := NewLog(s, most)
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTheNewestEventsAreKeptAndNumberedWithoutGaps(t *testing.T) {
	l := open(t, store.Ephemeral(), 3)
	if got := l.Newest(5); got != nil || l.Last() != 0 {
		t.Errorf("an empty log has %v up to %d", got, l.Last())
	}
	l.add(t, "a", "b", "c", "d", "e")
	all := l.After(0, 10)
	if got := names(t, all); !slices.Equal(got, []string{"c", "d", "e"}) {
		t.Fatalf("it keeps %v", got)
	}
	if all[2].Number != all[0].Number+2 || l.Last() != all[2].Number {
		t.Errorf("the numbers are %d and %d, the last %d", all[0].Number, all[2].Number, l.Last())
	}
	if got := names(t, l.After(all[0].Number, 1)); !slices.Equal(got, []string{"d"}) {
		t.Errorf("after the first comes %v", got)
	}
	if got := names(t, l.Newest(2)); !slices.Equal(got, []string{"d", "e"}) {
		t.Errorf("the newest two are %v", got)
	}
}

func TestAnEventIsThereExactlyWhenItsChangeIs(t *testing.T) {
	l := open(t, store.Ephemeral(), 10)
	no := errors.New("no")
	if err := l.store.Update(func(tx *store.Tx) error { l.Append(tx, named("lie")); return no }); !errors.Is(err, no) {
		t.Fatal(err)
	}
	l.add(t, "truth")
	if got := names(t, l.After(0, 10)); !slices.Equal(got, []string{"truth"}) {
		t.Errorf("it keeps %v", got)
	}
}

func TestALogThatWasEmptiedGivesNoNumberAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, store.Ephemeral(), 10)
		l.add(t, "a", "b")
		before := l.Last()
		time.Sleep(time.Millisecond)
		if err := l.store.Reset(); err != nil {
			t.Fatal(err)
		}
		l.add(t, "c")
		if got := names(t, l.After(before, 10)); !slices.Equal(got, []string{"c"}) {
			t.Errorf("a reader that had all gets %v", got)
		}
	})
}

func TestTheEnvelopeIsEventBridges(t *testing.T) {
	e := New("aws.ecs", "ECS Service Action", scope, time.Date(2026, 3, 5, 15, 54, 41, 618e6, time.UTC), json.RawMessage(`{"eventName":"X"}`), "arn:r")
	e.ID = "i"
	raw, err := json.Marshal(e)
	want := `{"version":"0","id":"i","detail-type":"ECS Service Action","source":"aws.ecs","account":"111111111111","time":"2026-03-05T15:54:41Z","region":"us-east-1","resources":["arn:r"],"detail":{"eventName":"X"}}`
	if err != nil || string(raw) != want {
		t.Errorf("got %s, %v", raw, err)
	}
}

// listener is a target: it says what it answers to the n-th request, from 0.
type listener struct {
	mu     sync.Mutex
	took   []string
	asked  []time.Time
	answer func(n int) (status int, err error)
}

func (l *listener) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.asked)
	l.asked = append(l.asked, time.Now())
	status, err := 200, error(nil)
	if l.answer != nil {
		status, err = l.answer(n)
	}
	if err != nil {
		return nil, err
	}
	var e Event
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || r.Header.Get("Content-Type") != "application/json" || r.Header.Get(NumberHeader) == "" {
		return nil, fmt.Errorf("a strange request: %v, %v", r.Header, err)
	}
	if status/100 == 2 {
		var d struct{ EventName string }
		if err := json.Unmarshal(e.Detail, &d); err != nil {
			return nil, err
		}
		l.took = append(l.took, d.EventName)
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

func (l *listener) has(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.took, want) {
		t.Errorf("the target took %v, want %v", l.took, want)
	}
}

// wait lets time pass, and all that is to happen until then.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// diary is a log that is read while it is written.
type diary struct {
	mu sync.Mutex
	b  strings.Builder
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b.Write(p)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b.String()
}

// times is how often it was asked.
func (l *listener) times() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked)
}

const address = "http://listener.example/events"

// deliver runs Deliver until the function returned is called.
func deliver(t *testing.T, l *Log, to *listener, diary io.Writer) (end func()) {
	t.Helper()
	if err := l.Subscribe(address); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Deliver(ctx, address, to, slog.New(slog.NewTextHandler(diary, nil))) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestATargetThatFailsTwiceIsToldAllInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, store.Ephemeral(), 10)
		to := &listener{answer: func(n int) (int, error) {
			switch n {
			case 1:
				return 0, errors.New("connection refused")
			case 2:
				return 503, nil
			}
			return 204, nil
		}}
		end := deliver(t, l, to, io.Discard)
		l.add(t, "a", "b", "c")
		wait(time.Minute)
		to.has(t, "a", "b", "c")
		if gap := to.asked[3].Sub(to.asked[2]); gap < time.Second || gap > 3*time.Second {
			t.Errorf("the second pause was %v", gap)
		}
		end()
	})
}

func TestARestartedDeliveryGoesOnWhereItWas(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		s, err := store.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		l := open(t, s, 10)
		l.add(t, "before the target was named")
		to := &listener{answer: func(n int) (int, error) {
			if down.Load() && n > 0 {
				return 500, nil
			}
			return 200, nil
		}}
		end := deliver(t, l, to, io.Discard)
		l.add(t, "a", "b")
		wait(time.Second / 4)
		to.has(t, "a")
		end()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		if s, err = store.Open(dir); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		l = open(t, s, 10)
		down.Store(false)
		l.add(t, "c")
		end = deliver(t, l, to, io.Discard)
		synctest.Wait()
		to.has(t, "a", "b", "c")
		end()
	})
}

func TestATargetThatRefusesAnEventIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, store.Ephemeral(), 10)
		to := &listener{answer: func(n int) (int, error) {
			if n == 0 {
				return 400, nil
			}
			return 200, nil
		}}
		var diary diary
		end := deliver(t, l, to, &diary)
		l.add(t, "a", "b")
		synctest.Wait()
		to.has(t, "b")
		end()
		if !strings.Contains(diary.String(), "an event was given up") {
			t.Errorf("the log says %s", diary.String())
		}
	})
}

func TestATargetIsTriedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, store.Ephemeral(), 10)
		var up atomic.Bool
		to := &listener{answer: func(int) (int, error) {
			if up.Load() {
				return 200, nil
			}
			return 500, nil
		}}
		var diary diary
		end := deliver(t, l, to, &diary)
		l.add(t, "a")
		wait(20 * time.Hour)
		if n := to.times(); n < 140 || n > 350 || strings.Contains(diary.String(), "given up") {
			t.Errorf("it was asked %d times in 20 hours; the log says %s", n, diary.String())
		}
		wait(5 * time.Hour)
		if !strings.Contains(diary.String(), "an event was given up") {
			t.Errorf("after a day the log says %s", diary.String())
		}
		up.Store(true)
		l.add(t, "b")
		wait(2 * longestPause)
		to.has(t, "b")
		end()
	})
}

func TestWhatATargetLosesIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, store.Ephemeral(), 2)
		var down atomic.Bool
		down.Store(true)
		to := &listener{answer: func(int) (int, error) {
			if down.Load() {
				return 500, nil
			}
			return 200, nil
		}}
		var diary diary
		end := deliver(t, l, to, &diary)
		l.add(t, "a", "b", "c", "d", "e")
		wait(time.Minute)
		down.Store(false)
		wait(longestPause)
		to.has(t, "d", "e")
		end()
		lost := 0 // said at once or one after another, as the delivery comes to see it
		for _, said := range regexp.MustCompile(`events were given up.* events=(\d+)`).FindAllStringSubmatch(diary.String(), -1) {
			n, err := strconv.Atoi(said[1])
			if err != nil {
				t.Fatal(err)
			}
			lost += n
		}
		if lost != 3 {
			t.Errorf("the log says %s", diary.String())
		}
	})
}

func TestAnotherTargetIsToldWhatHappensFromNowOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, store.Ephemeral(), 10)
		if err := l.Subscribe("http://other.example/"); err != nil {
			t.Fatal(err)
		}
		l.add(t, "a")
		to := &listener{}
		end := deliver(t, l, to, io.Discard)
		l.add(t, "b")
		synctest.Wait()
		to.has(t, "b")
		end()
		for _, bad := range []string{"", "localhost:9000", "ftp://x/y", "http://"} {
			if l.Subscribe(bad) == nil {
				t.Errorf("%q is a target", bad)
			}
		}
	})
}
