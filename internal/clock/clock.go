// Package clock keeps the two times of a stage apart.
//
// Stage time is what a release is made of: bakes, health intervals, task and
// deployment timestamps, log timestamps. It can run faster than the wall
// (a scale) and be pushed forward (Advance), never back. Wall time is what
// strangers measure: credential expiry, signatures, sockets; it is read with
// time.Now and never through this package.
//
// A Clock is safe for concurrent use. Whoever waits on it is woken when it is
// pushed or rescaled, so nobody sleeps through a jump.
package clock

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

// Clock maps wall time to stage time.
type Clock struct {
	mu      sync.Mutex
	scale   float64       // stage seconds per wall second
	wall    time.Time     // wall time at the last change
	stage   time.Time     // stage time at the last change
	changed chan struct{} // closed and replaced at every change
}

// New returns a clock that starts at the wall's time and runs scale times as
// fast. A scale of 1 is real time.
func New(scale float64) (*Clock, error) {
	return Resume(scale, time.Time{})
}

// Resume returns a clock that starts at the later of the wall's time and at,
// so that a stage that ran fast does not go back in time when restarted.
func Resume(scale float64, at time.Time) (*Clock, error) {
	if err := checkScale(scale); err != nil {
		return nil, err
	}
	now := time.Now()
	start := now
	if at.After(now) {
		start = at
	}
	return &Clock{scale: scale, wall: now, stage: start.UTC(), changed: make(chan struct{})}, nil
}

func checkScale(scale float64) error {
	if math.IsNaN(scale) || scale < 1 || scale > 100_000 {
		return fmt.Errorf("the speed of stage time must be between 1 and 100000, got %v", scale)
	}
	return nil
}

// Now is the current stage time, in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *Clock) now() time.Time {
	return c.stage.Add(time.Duration(float64(time.Since(c.wall)) * c.scale))
}

// Scale is the number of stage seconds in a wall second.
func (c *Clock) Scale() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.scale
}

// Advance pushes stage time forward by d. A negative d is refused: stage time
// never runs backwards.
func (c *Clock) Advance(d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("stage time cannot go back by %v", -d)
	}
	c.change(func() { c.stage = c.stage.Add(d) })
	return nil
}

// SetScale changes the speed from now on.
func (c *Clock) SetScale(scale float64) error {
	if err := checkScale(scale); err != nil {
		return err
	}
	c.change(func() { c.scale = scale })
	return nil
}

func (c *Clock) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stage, c.wall = c.now(), time.Now()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Until is the wall time left until the stage time t; it is not positive when
// t has passed. The channel is closed when the answer is no longer right.
func (c *Clock) Until(t time.Time) (time.Duration, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.toWall(t.Sub(c.now())), c.changed
}

// Wall converts a stretch of stage time to wall time at the present speed.
func (c *Clock) Wall(d time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.toWall(d)
}

func (c *Clock) toWall(d time.Duration) time.Duration {
	// Rounded up, so that a sleeper never wakes a hair before its time and spins.
	return time.Duration(math.Ceil(float64(d) / c.scale))
}

// SleepUntil returns nil when stage time has reached t, or the context's error.
func (c *Clock) SleepUntil(ctx context.Context, t time.Time) error {
	_, err := c.Wait(ctx, t, nil)
	return err
}

// Sleep waits for d of stage time.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	return c.SleepUntil(ctx, c.Now().Add(d))
}

// Wait returns when stage time reaches t (true), when signal delivers (false),
// or when ctx ends (its error). A zero t means never; a nil signal never comes.
// It is the one timer of a loop that keeps a single next wake.
func (c *Clock) Wait(ctx context.Context, t time.Time, signal <-chan struct{}) (due bool, err error) {
	for {
		var timer <-chan time.Time
		var changed <-chan struct{}
		if !t.IsZero() {
			var left time.Duration
			left, changed = c.Until(t)
			if left <= 0 {
				return true, ctx.Err()
			}
			timer = time.After(left)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-signal:
			return false, nil
		case <-changed:
		case <-timer:
		}
	}
}

// Sooner is the earlier of two times, of which zero is never.
func Sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Poke signals a loop that waits, without waiting. The channel wants a buffer of
// one: a signal that is there stands for all that come after it.
func Poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
