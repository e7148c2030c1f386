package ecsd

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/metric"
	"serin/internal/run"
	"serin/internal/store"
)

// Meter measures what tasks use. It remembers what they had used before, so one
// loop has it.
type Meter struct {
	api  *API
	last map[string]reading // by the task's key
}

// Meter is a new one.
func (a *API) Meter() *Meter { return &Meter{api: a, last: map[string]reading{}} }

// reading is what a task used when it was last asked.
type reading struct {
	at         time.Time // wall time
	used       run.Usage
	processors float64 // in use until then, from the reading before or its start
}

// sample is a task that runs and what is known of it.
type sample struct {
	key        string
	task       task
	definition types.TaskDefinition
	handle     run.Task
	reading
	told bool // the reading is of now
}

const (
	// freshEnough is for how long a reading stands, wall time: where the stage's
	// minutes are shorter it is told again. The machine counts in hundredths of a
	// second, and asking has a price.
	freshEnough = 500 * time.Millisecond
	// patience is how long all tasks together have to tell, wall time.
	patience = 5 * time.Second
)

// Measure is what the tasks that are RUNNING use, of what they reserve, as
// metrics of the minute at. Processor time is wall time on both sides: what was
// used since the last reading over what passed since, whatever the stage's speed.
//
// A service's utilization is what its tasks use over what their definitions
// specify; the least and the greatest are those of single tasks, and the sample
// count is the number of tasks; all documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service_utilization.html
// A cluster's is that of its tasks that are not on Fargate, documented, but over
// what they reserve: there are no instances here that would register more.
func (m *Meter) Measure(ctx context.Context, at time.Time) map[arn.Scope][]metric.Datum {
	samples := m.samples()
	m.read(ctx, samples)
	sums := map[subject]*[2]utilization{}
	add := func(p subject, s sample, cpu, memory float64) {
		u := sums[p]
		if u == nil {
			u = new([2]utilization)
			sums[p] = u
		}
		u[0].add(s.processors*1024, cpu)
		u[1].add(float64(s.used.Memory)/(1<<20), memory)
	}
	for _, s := range samples {
		if !s.told {
			continue
		}
		scope, _ := arn.ParseKey(s.key)
		cpu, memory := reserved(s.definition)
		if s.task.LaunchType != types.LaunchTypeFargate {
			add(subject{scope, s.task.Cluster, ""}, s, cpu, memory)
		}
		if s.task.Service != "" {
			add(subject{scope, s.task.Cluster, s.task.Service}, s, cpu, memory)
		}
	}
	out := map[arn.Scope][]metric.Datum{}
	for p, u := range sums {
		for i, name := range []string{"CPUUtilization", "MemoryUtilization"} {
			if set := u[i].set(); set.Count > 0 {
				out[p.scope] = append(out[p.scope], metric.Datum{Namespace: "AWS/ECS", Name: name, Dimensions: p.dimensions(), Unit: "Percent", At: at, Set: set})
			}
		}
	}
	return out
}

// samples is every task that is RUNNING.
func (m *Meter) samples() (out []sample) {
	g := m.api.agent.Load()
	if g == nil {
		return nil
	}
	g.mu.Lock()
	handles := maps.Clone(g.handles)
	g.mu.Unlock()
	m.api.store.View(func(tx *store.Tx) {
		for key, h := range handles {
			t, _ := g.tasks.Get(tx, key)
			if t.Last != running {
				continue
			}
			scope, _ := arn.ParseKey(key)
			if d, ok := g.definitionOf(tx, scope, t); ok {
				out = append(out, sample{key: key, task: t, definition: d, handle: h})
			}
		}
	})
	return out
}

// read asks the tasks, all at once, and keeps what they say for the next time.
func (m *Meter) read(ctx context.Context, samples []sample) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var asking sync.WaitGroup
	for i := range samples {
		s := &samples[i]
		s.reading = m.last[s.key]
		if s.told = time.Since(s.at) < freshEnough; s.told {
			continue
		}
		asking.Go(func() {
			next, err := s.next(ctx)
			if err != nil { // the next reading is of all that passed since the last
				m.api.log.Debug("a task could not be measured", "task", s.task.ID, "err", err)
				return
			}
			s.reading, s.told = next, true
		})
	}
	asking.Wait()
	clear(m.last)
	for _, s := range samples {
		m.last[s.key] = s.reading
	}
}

// next is a new reading after the one that there is. The first is the average
// since the task's start.
func (s sample) next(ctx context.Context) (reading, error) {
	before := s.reading
	if before.at.IsZero() {
		st, _ := s.handle.State()
		for _, c := range st.Containers {
			if before.at.IsZero() || c.Started.Before(before.at) {
				before.at = c.Started
			}
		}
	}
	used, err := s.handle.Usage(ctx)
	if err != nil {
		return reading{}, err
	}
	now := time.Now()
	return reading{now, used, (used.CPU - before.used.CPU).Seconds() / max(now.Sub(before.at), time.Millisecond).Seconds()}, nil
}

// subject is a cluster or a service in one.
type subject struct {
	scope            arn.Scope
	cluster, service string
}

func (p subject) dimensions() []metric.Dimension {
	out := []metric.Dimension{{Name: "ClusterName", Value: p.cluster}}
	if p.service != "" {
		out = append(out, metric.Dimension{Name: "ServiceName", Value: p.service})
	}
	return out
}

// reserved is what a task of the definition reserves: CPU units and MiB. Where
// the task has a size it is that, guessed; else it is the sum of its containers',
// the soft limit of their memory before the hard one, documented.
func reserved(d types.TaskDefinition) (cpu, memory float64) {
	for _, c := range d.ContainerDefinitions {
		cpu += float64(c.Cpu)
		if c.MemoryReservation != nil {
			memory += float64(*c.MemoryReservation)
		} else {
			memory += float64(aws.ToInt32(c.Memory))
		}
	}
	if n, err := strconv.ParseFloat(aws.ToString(d.Cpu), 64); err == nil {
		cpu = n
	}
	if n, err := strconv.ParseFloat(aws.ToString(d.Memory), 64); err == nil {
		memory = n
	}
	return cpu, memory
}

// utilization sums up tasks. Those that reserve nothing have none, guessed.
type utilization struct{ tasks, used, reserved, least, greatest float64 }

func (u *utilization) add(used, reserved float64) {
	if reserved <= 0 {
		return
	}
	percent := 100 * used / reserved
	if u.tasks == 0 {
		u.least, u.greatest = percent, percent
	}
	u.tasks, u.used, u.reserved = u.tasks+1, u.used+used, u.reserved+reserved
	u.least, u.greatest = min(u.least, percent), max(u.greatest, percent)
}

func (u *utilization) set() (s metric.Set) {
	if u.tasks > 0 {
		s.AddSummary(u.tasks, u.tasks*100*u.used/u.reserved, u.least, u.greatest)
	}
	return s
}
