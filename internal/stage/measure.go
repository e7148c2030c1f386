package stage

import (
	"context"
	"time"
)

// measure publishes, as soon as a minute of stage time is over, what was
// measured in it. What happens while it is being collected belongs to the next.
// When time is pushed over several minutes, what was measured belongs to the one
// in which the push began, and the others have nothing.
func (s *Stage) measure(ctx context.Context) error {
	tasks := s.ecs.Meter()
	for at := s.clock.Now().Truncate(time.Minute); ; {
		if err := s.clock.SleepUntil(ctx, at.Add(time.Minute)); err != nil {
			return nil
		}
		next := s.clock.Now().Truncate(time.Minute)
		for scope, data := range s.elb.Measure(at) {
			s.publish(scope, data)
		}
		for scope, data := range tasks.Measure(ctx, at) {
			s.publish(scope, data)
		}
		at = next
	}
}
