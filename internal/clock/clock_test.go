package clock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestStageTimeRunsAtItsScale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(60)
		if err != nil {
			t.Fatal(err)
		}
		start := c.Now()
		time.Sleep(2 * time.Second)
		if got := c.Now().Sub(start); got != 2*time.Minute {
			t.Errorf("after 2 s of wall time the stage moved by %v, want 2m", got)
		}
		wall := time.Now()
		if err := c.Sleep(t.Context(), 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(wall); got != 10*time.Second {
			t.Errorf("ten stage minutes took %v of wall time, want 10s", got)
		}
	})
}

func TestASleeperIsWokenByAJump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := New(1)
		done := make(chan error, 1)
		go func() { done <- c.Sleep(context.Background(), time.Hour) }()
		synctest.Wait()
		if err := c.Advance(59 * time.Minute); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("woke a minute early")
		default:
		}
		if err := c.Advance(time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestTimeNeverGoesBack(t *testing.T) {
	c, _ := New(1)
	if err := c.Advance(-time.Second); err == nil {
		t.Error("a negative advance was accepted")
	}
	if err := c.SetScale(0); err == nil {
		t.Error("a scale of zero was accepted")
	}
	later := time.Now().Add(time.Hour)
	r, err := Resume(1, later)
	if err != nil {
		t.Fatal(err)
	}
	if r.Now().Before(later) {
		t.Errorf("resumed at %v, before %v", r.Now(), later)
	}
}

func TestWaitEndsWithItsContextOrSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := New(1)
		signal := make(chan struct{}, 1)
		signal <- struct{}{}
		if due, err := c.Wait(t.Context(), time.Time{}, signal); due || err != nil {
			t.Errorf("a signal gave %v, %v", due, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Wait(ctx, time.Time{}, nil); err != context.DeadlineExceeded {
			t.Errorf("an ended context gave %v", err)
		}
	})
}

func TestZeroIsNever(t *testing.T) {
	var never time.Time
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	for _, c := range []struct{ a, b, want time.Time }{
		{never, never, never}, {never, late, late}, {late, never, late}, {early, late, early}, {late, early, early},
	} {
		if got := Sooner(c.a, c.b); !got.Equal(c.want) {
			t.Errorf("the sooner of %v and %v is %v", c.a, c.b, got)
		}
	}
}
