package ecsd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/run"
	"serin/internal/store"
)

// Which container of a task starts and stops when: by their dependencies, restart
// policies and what is essential. Periods and time-outs are stage time.
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDependency.html

// order is what follows for the containers of a task that is to run.
type order struct {
	start []string  // to be started now
	up    bool      // every container has been started
	ended bool      // an essential one has ended for good
	at    time.Time // when it is to be looked at again at the latest
	// The task cannot be started: which container waits in vain, and why.
	container, failed string
}

// next decides what follows for a task's containers.
func next(d types.TaskDefinition, t task, st run.State, now time.Time) (o order) {
	o.up = true
	for i, c := range d.ContainerDefinitions {
		s := st.Containers[i]
		switch {
		case s.Runs():
		case s.Starts == 0:
			o.up = false
			ready, why, at := dependencies(d, t, st, c, now)
			if why != "" {
				o.container, o.failed = *c.Name, why
			}
			if ready {
				o.start = append(o.start, *c.Name)
			}
			o.sooner(at)
		case restarts(c.RestartPolicy, t.Containers[i], s, now):
			o.start = append(o.start, *c.Name)
		case aws.ToBool(c.Essential):
			o.ended = true
		}
	}
	return o
}

func (o *order) sooner(at time.Time) {
	if !at.IsZero() && (o.at.IsZero() || at.Before(o.at)) {
		o.at = at
	}
}

// dependencies reports whether a container may start, or why it never can, or when
// a dependency's time is over. The texts are those of ECS's agent.
func dependencies(d types.TaskDefinition, t task, st run.State, c types.ContainerDefinition, now time.Time) (ready bool, why string, at time.Time) {
	ready = true
	for _, dep := range waitsFor(c) {
		i := slices.IndexFunc(d.ContainerDefinitions, func(o types.ContainerDefinition) bool { return *o.Name == aws.ToString(dep.ContainerName) })
		s, row := st.Containers[i], t.Containers[i]
		ended := s.Starts > 0 && !s.Runs() && !restarts(d.ContainerDefinitions[i].RestartPolicy, row, s, now)
		if dep.Condition == types.ContainerConditionSuccess && ended && s.ExitCode != 0 {
			return false, fmt.Sprintf("dependency graph: failed to resolve container ordering dependency [%s] for target [%s] as dependency did not exit successfully.", *dep.ContainerName, *c.Name), at
		}
		met := map[types.ContainerCondition]bool{
			types.ContainerConditionStart: s.Starts > 0, types.ContainerConditionComplete: ended, types.ContainerConditionSuccess: ended,
			types.ContainerConditionHealthy: row.Health == types.HealthStatusHealthy,
		}[dep.Condition]
		if met {
			continue
		}
		ready = false
		limit := aws.ToInt32(d.ContainerDefinitions[i].StartTimeout)
		if limit == 0 || dep.Condition == types.ContainerConditionStart || row.Began.IsZero() || ended {
			continue
		}
		over := row.Began.Add(time.Duration(limit) * time.Second)
		if !now.Before(over) {
			return false, fmt.Sprintf("dependency graph: container ordering dependency [%s] for target [%s] has timed out.", *dep.ContainerName, *c.Name), at
		}
		if at.IsZero() || over.Before(at) {
			at = over
		}
	}
	return ready, "", at
}

// restarts reports whether a container that has ended is started again, in place:
// if it ran for the policy's period and its exit code is not to be ignored,
// documented.
func restarts(p *types.ContainerRestartPolicy, row container, s run.ContainerState, now time.Time) bool {
	if p == nil || !aws.ToBool(p.Enabled) || row.Stays || slices.Contains(p.IgnoredExitCodes, int32(s.ExitCode)) {
		return false
	}
	ran := now.Sub(row.Began)
	switch {
	case row.Starts != s.Starts: // the row was not written before an earlier stage ended
		ran = s.Finished.Sub(s.Started)
	case !row.Ended.IsZero():
		ran = row.Ended.Sub(row.Began)
	}
	period := cmp.Or(aws.ToInt32(p.RestartAttemptPeriod), 300) // documented
	return ran >= time.Duration(period)*time.Second
}

// lastOf is the containers to stop first: those that run and that no container which
// runs depends on, documented. None: nothing runs, or there is no order to keep.
func lastOf(d types.TaskDefinition, st run.State) (names []string) {
	ordered := false
	for i, c := range d.ContainerDefinitions {
		ordered = ordered || len(waitsFor(c)) > 0
		needed := false
		for k, o := range d.ContainerDefinitions {
			needed = needed || st.Containers[k].Runs() && slices.ContainsFunc(waitsFor(o), func(dep types.ContainerDependency) bool { return aws.ToString(dep.ContainerName) == *c.Name })
		}
		if st.Containers[i].Runs() && !needed {
			names = append(names, *c.Name)
		}
	}
	if !ordered {
		return nil
	}
	return names
}

// keep has the containers of a task that is to run start, go on and start again.
func (g *agent) keep(ctx context.Context, key string, t task, h run.Task, st run.State, d types.TaskDefinition) step {
	now := g.clock.Now()
	g.watch(ctx, key, t, d, st, h)
	o := next(d, t, st, now)
	switch {
	case early(t) && o.up && (h.Address().IsValid() || modeOf(d) == types.NetworkModeNone):
		return step{key: key, write: g.running(h)}
	case o.failed != "":
		return step{key: key, write: g.fail(o.container, o.failed, "Task failed to start", st)}
	case o.ended && st.Idle():
		g.stop(ctx, key, h, nil) // how it ended is written when it has
		return step{}
	case o.ended:
		g.log.Info("an essential container ended", "task", t.ID)
		return step{key: key, write: func(tx *store.Tx, t *task) {
			t.note(st, now)
			if t.Desired != stopped { // somebody may have stopped it meanwhile, for a reason of theirs
				t.StopCode, t.StopReason, t.Times.Stopping = types.TaskStopCodeEssentialContainerExited, "Essential container in task exited", now
			}
			t.Desired, t.Last, t.Times.ExecutionStopped = stopped, stopping, now
			g.deregister(tx, *t)
		}}
	case len(o.start) > 0:
		g.beside(key, func() { g.startContainers(ctx, key, t, h, o.start) })
		return step{}
	}
	if !o.at.IsZero() {
		g.touchAt(ctx, key, o.at)
	}
	return g.noted(key, t, st)
}

// touchAt has a task looked at when its time has come.
func (g *agent) touchAt(ctx context.Context, key string, at time.Time) {
	g.mu.Lock()
	known := g.due[key].Equal(at)
	g.due[key] = at
	g.mu.Unlock()
	if known {
		return
	}
	g.work.Go(func() {
		if g.clock.SleepUntil(ctx, at) == nil {
			g.touch(key)
		}
	})
}

// startContainers starts containers one after another. One that cannot be started
// ends its task; one that cannot be started again has ended as it did, observed:
// https://github.com/aws/amazon-ecs-agent/blob/master/agent/engine/task_manager.go
func (g *agent) startContainers(ctx context.Context, key string, t task, h run.Task, names []string) {
	for _, name := range names {
		err := h.Start(ctx, name)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		st, _ := h.State()
		at := slices.IndexFunc(st.Containers, func(c run.ContainerState) bool { return c.Name == name })
		if at >= 0 && st.Containers[at].Starts > 0 {
			g.log.Warn("a container could not be started again", "task", t.ID, "container", name, "err", err)
			err := g.update(key, func(_ *store.Tx, t *task) {
				t.note(st, g.clock.Now())
				t.Containers[at].Stays = true
			})
			if err != nil {
				g.log.Error("a container's end could not be recorded", "task", t.ID, "err", err)
				return
			}
			continue
		}
		if err := g.update(key, g.fail(name, err.Error(), err.Error(), st)); err != nil {
			g.log.Error("a failed task could not be recorded", "task", t.ID, "err", err)
		}
		return
	}
}

// fail is that a container cannot be started and so its task ends: why, for the
// container and for the task.
func (g *agent) fail(name, why, reason string, st run.State) change {
	return func(tx *store.Tx, t *task) {
		now := g.clock.Now()
		t.note(st, now)
		for i := range t.Containers {
			if t.Containers[i].Name == name {
				t.Containers[i].Reason = why
			}
		}
		if t.Desired == stopped {
			return
		}
		t.Desired, t.Last, t.StopCode, t.StopReason, t.Times.Stopping = stopped, stopping, types.TaskStopCodeTaskFailedToStart, reason, now
		g.deregister(tx, *t)
	}
}

// noted writes what a task's containers have become, where the row does not have it.
func (g *agent) noted(key string, t task, st run.State) step {
	now := g.clock.Now()
	t.Containers = slices.Clone(t.Containers)
	if !t.note(st, now) {
		return step{}
	}
	return step{key: key, write: func(_ *store.Tx, t *task) { t.note(st, now) }}
}

// note takes over what the runtime says of each container, and says whether that was
// new.
func (t *task) note(st run.State, now time.Time) (changed bool) {
	for i := range t.Containers {
		if i >= len(st.Containers) {
			break
		}
		c, s := &t.Containers[i], st.Containers[i]
		if s.Starts == 0 {
			continue
		}
		if c.Starts != s.Starts {
			c.Starts, c.Began, c.Ended, c.Status, c.Health, c.Exit, c.Reason, changed = s.Starts, now, time.Time{}, running, "", nil, "", true
		}
		if !s.Runs() && c.Status != stopped {
			c.Status, c.Ended, c.Exit, changed = stopped, now, new(int32(s.ExitCode)), true
			if s.OOM {
				c.Reason = "OutOfMemoryError: Container killed due to memory usage"
			}
		}
	}
	return changed
}
