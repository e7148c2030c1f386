package stage

import (
	"context"
	"sync"

	"serin/internal/run"
)

// lateRuntime stands for the runtime until it has been chosen; whoever needs
// it waits.
type lateRuntime struct {
	chosen chan struct{}
	once   sync.Once
	real   run.Runtime
	why    string
}

func newLateRuntime() *lateRuntime { return &lateRuntime{chosen: make(chan struct{})} }

func (l *lateRuntime) set(r run.Runtime, why string) {
	l.once.Do(func() { l.real, l.why = r, why; close(l.chosen) })
}

func (l *lateRuntime) ready() bool {
	select {
	case <-l.chosen:
		return true
	default:
		return false
	}
}

func (l *lateRuntime) wait(ctx context.Context) error {
	select {
	case <-l.chosen:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *lateRuntime) Name() string {
	if !l.ready() {
		return "being chosen"
	}
	return l.real.Name()
}

func (l *lateRuntime) Pull(ctx context.Context, ref string, auth run.Auth) (run.Image, error) {
	if err := l.wait(ctx); err != nil {
		return run.Image{}, err
	}
	return l.real.Pull(ctx, ref, auth)
}

func (l *lateRuntime) Create(ctx context.Context, spec run.Spec) (run.Task, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.real.Create(ctx, spec)
}

func (l *lateRuntime) Tasks(ctx context.Context) ([]run.Task, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.real.Tasks(ctx)
}

func (l *lateRuntime) Door(ctx context.Context) (run.Door, error) {
	if err := l.wait(ctx); err != nil {
		return run.Door{}, err
	}
	return l.real.Door(ctx)
}

func (l *lateRuntime) Close() error {
	if !l.ready() {
		return nil
	}
	return l.real.Close()
}
