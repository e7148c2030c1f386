package stage

import (
	"context"
	"time"

	"serin/internal/arn"
	"serin/internal/metric"
)

// measureTraffic publishes, as soon as a minute of stage time is over, what the
// load balancers carried in it, and says so to those who wait for it.
func (s *Stage) measureTraffic(ctx context.Context) error {
	s.cw.Measured(s.clock.Now().Truncate(time.Minute))
	return s.eachMinute(ctx, func(at, next time.Time) {
		s.publishAll(s.elb.Measure(at))
		s.cw.Measured(next)
	})
}

// measureTasks publishes what tasks use. It has a loop of its own: a runtime may
// take long to say, and traffic does not wait for it.
func (s *Stage) measureTasks(ctx context.Context) error {
	meter := s.ecs.Meter()
	return s.eachMinute(ctx, func(at, _ time.Time) { s.publishAll(meter.Measure(ctx, at)) })
}

func (s *Stage) publishAll(measured map[arn.Scope][]metric.Datum) {
	for scope, data := range measured {
		s.publish(scope, data)
	}
}

// eachMinute calls measure with a minute that is over and the one that it is now.
// What happens while it is being collected belongs to the next. When time is pushed
// over several minutes, what was measured belongs to the one in which the push
// began, and the others have nothing.
func (s *Stage) eachMinute(ctx context.Context, measure func(at, next time.Time)) error {
	for at := s.clock.Now().Truncate(time.Minute); ; {
		if err := s.clock.SleepUntil(ctx, at.Add(time.Minute)); err != nil {
			return nil
		}
		next := s.clock.Now().Truncate(time.Minute)
		measure(at, next)
		at = next
	}
}
