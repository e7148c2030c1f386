package ecsd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/run"
	"serin/internal/store"
)

// agent makes task rows true. One loop looks at all rows; what takes time, a
// pull or a start, runs beside it and ends in a row.
type agent struct {
	*API
	mu      sync.Mutex
	handles map[string]run.Task       // task key → what runs
	busy    map[string]bool           // task key → being started
	touched map[string]bool           // task key → to be looked at, whether or not its row changed
	watched map[string]map[string]int // task key → container → the start since which its health is checked
	due     map[string]time.Time      // task key → when it is looked at again, stage time
	work    sync.WaitGroup
	ships   map[string]*sync.Mutex // task key → held while its output is moved
}

// Agent runs tasks until ctx ends. Tasks go on when it ends and are found again
// by the next.
func (a *API) Agent(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	g := &agent{API: a, handles: map[string]run.Task{}, busy: map[string]bool{}, touched: map[string]bool{}, watched: map[string]map[string]int{}, ships: map[string]*sync.Mutex{}, due: map[string]time.Time{}}
	a.agent.Store(g)
	defer g.work.Wait()
	defer cancel()
	if err := g.adopt(ctx); err != nil {
		return err
	}
	feed := a.store.Follow(a.wakeAgent, append([]store.AnyTable{a.tasks}, a.deps.Traffic.Observations()...)...)
	defer feed.Stop()
	for {
		if err := g.pass(ctx, feed.Take()); err != nil {
			return fmt.Errorf("bringing tasks to their rows: %w", err)
		}
		if _, err := a.clock.Wait(ctx, time.Time{}, a.wakeAgent); err != nil {
			return nil
		}
	}
}

// labelKey is the label by which a task's row is found again.
const labelKey = "serin.task"

// adopt finds what an earlier stage left running. A task without a row is
// stopped; a row whose task is gone is settled by pass.
func (g *agent) adopt(ctx context.Context) error {
	found, err := g.runtime.Tasks(ctx)
	if err != nil {
		return fmt.Errorf("looking for running tasks: %w", err)
	}
	for _, h := range found {
		key := h.Labels()[labelKey]
		var known bool
		g.store.View(func(tx *store.Tx) {
			t, ok := g.tasks.Get(tx, key)
			known = ok && t.Last != stopped
		})
		if known {
			g.follow(ctx, key, h)
			continue
		}
		g.work.Go(func() {
			if err := g.discard(ctx, h); err != nil && ctx.Err() == nil {
				g.log.Warn("a task of an earlier stage could not be removed", "task", h.ID(), "err", err)
			}
		})
	}
	// Rows whose start had not got as far as a task: begin again.
	return g.store.Update(func(tx *store.Tx) error {
		for key, t := range g.tasks.Scan(tx, "") {
			if g.handles[key] == nil && (t.Last == pending || t.Last == activating) {
				t.Last = provisioning
				g.putTask(tx, t, key, g.clock.Now())
			}
		}
		return nil
	})
}

func (g *agent) discard(ctx context.Context, h run.Task) error {
	if err := h.End(ctx); err != nil {
		return err
	}
	for {
		st, changed := h.State()
		if st.Ended {
			return h.Remove(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow wakes the agent whenever a task changes or writes.
func (g *agent) follow(ctx context.Context, key string, h run.Task) {
	g.mu.Lock()
	g.handles[key] = h
	g.mu.Unlock()
	g.work.Go(func() {
		for {
			st, changed := h.State()
			again := g.ship(key, h)
			g.touch(key)
			if st.Ended {
				return
			}
			var due <-chan time.Time
			if !again.IsZero() {
				due = time.After(time.Until(again))
			}
			select {
			case <-changed:
			case <-due:
			case <-ctx.Done():
				return
			}
		}
	})
}

func (g *agent) handle(key string) (run.Task, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.handles[key], g.busy[key]
}

// touch has a task looked at.
func (g *agent) touch(key string) {
	g.mu.Lock()
	g.touched[key] = true
	g.mu.Unlock()
	clock.Poke(g.wakeAgent)
}

// pass takes each task that something happened to one step further, where it can go.
func (g *agent) pass(ctx context.Context, changed []store.Key) error {
	g.mu.Lock()
	touched := g.touched
	g.touched = map[string]bool{}
	g.mu.Unlock()
	rows, gone := map[string]task{}, []string(nil)
	g.store.View(func(tx *store.Tx) {
		for _, k := range changed {
			if k.Table == store.AnyTable(g.tasks) {
				touched[k.Row] = true
				continue
			}
			for _, name := range g.deps.Traffic.About(k) {
				for key, t := range g.tasksBy.Scan(tx, name) {
					touched[key] = touched[key] || t.Last == deactivating // it may have drained
				}
			}
		}
		for key, really := range touched {
			t, ok := g.tasks.Get(tx, key)
			switch {
			case ok && really && t.Last != stopped:
				rows[key] = t
			case !ok:
				gone = append(gone, key)
			}
		}
	})
	for _, key := range gone {
		g.abandon(ctx, key)
	}
	var steps []step
	for key, t := range rows {
		if h, busy := g.handle(key); !busy {
			steps = append(steps, g.step(ctx, key, t, h))
		}
	}
	steps = slices.DeleteFunc(steps, func(s step) bool { return s.write == nil })
	for some := range slices.Chunk(steps, atOnce) {
		err := g.store.Update(func(tx *store.Tx) error {
			for _, s := range some {
				g.apply(tx, s.key, s.write)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, s := range some {
			if s.after != nil {
				s.after()
			}
		}
	}
	return nil
}

// change is what becomes of a task's row, and of other rows with it.
type change func(*store.Tx, *task)

// step is what follows for a task: a change, if any, and what is done once it is
// written.
type step struct {
	key   string
	write change
	after func()
}

func (g *agent) step(ctx context.Context, key string, t task, h run.Task) step {
	if h == nil {
		switch {
		case t.Desired == stopped: // also one that is deprovisioned
			return step{key: key, write: g.settle(placementFailure, func(t *task) { t.markStopped(g.clock.Now(), "", "") })}
		case t.Last == provisioning && managedTask(t) && t.Instance == "":
			return step{} // capacity gives it an instance
		case t.Last == provisioning:
			g.beside(key, func() { g.start(ctx, key, t) })
			return step{}
		}
		return step{key: key, write: g.settle(placementFailure, func(t *task) {
			t.markStopped(g.clock.Now(), types.TaskStopCodeEssentialContainerExited, "ContainerVanishedError: No container matching saved ID found")
		})}
	}
	st, _ := h.State()
	if st.Ended {
		g.ship(key, h)
		gone := func() { g.beside(key, func() { g.forget(ctx, key, h) }) }
		return step{key, func(tx *store.Tx, t *task) {
			t.markEnded(g.clock.Now(), st)
			g.deregister(tx, *t)
		}, gone}
	}
	scope, _ := arn.ParseKey(key)
	var d types.TaskDefinition
	g.store.View(func(tx *store.Tx) { d, _ = g.definitionOf(tx, scope, t) })
	if t.Desired == running {
		return g.keep(ctx, key, t, h, st, d)
	}
	return g.end(ctx, key, t, h, st, d)
}

// beside does what takes time for a task, which is not looked at until it is done.
func (g *agent) beside(key string, work func()) {
	g.mu.Lock()
	g.busy[key] = true
	g.mu.Unlock()
	g.work.Go(func() {
		work()
		g.mu.Lock()
		delete(g.busy, key)
		g.mu.Unlock()
		g.touch(key)
	})
}

// end takes a task that is not to run any more a step towards its end.
func (g *agent) end(ctx context.Context, key string, t task, h run.Task, st run.State, d types.TaskDefinition) step {
	switch {
	case t.Last == running || early(t):
		return step{key: key, write: g.move(deactivating, true)}
	case t.Last == deactivating && !g.draining(t):
		return step{key: key, write: g.move(stopping, false)}
	case t.Last == stopping:
		g.stop(ctx, key, h, lastOf(d, st))
	}
	return g.noted(key, t, st)
}

// abandon stops what still runs for a task whose row was taken away by a reset.
func (g *agent) abandon(ctx context.Context, key string) {
	h, busy := g.handle(key)
	if h == nil || busy {
		return
	}
	g.mu.Lock()
	delete(g.handles, key)
	g.mu.Unlock()
	g.work.Go(func() {
		if err := g.discard(ctx, h); err != nil && ctx.Err() == nil {
			g.log.Warn("a task without a row could not be removed", "task", h.ID(), "err", err)
		}
	})
}

// removing is how long what a task leaves may take to go, in wall time; what stays is
// found by "serin gc".
const removing = time.Minute

// forget lets go of what ran for a task that has ended.
func (g *agent) forget(ctx context.Context, key string, h run.Task) {
	g.mu.Lock()
	delete(g.handles, key)
	delete(g.watched, key)
	delete(g.ships, key)
	delete(g.due, key)
	g.mu.Unlock()
	ctx, enough := context.WithTimeout(ctx, removing)
	defer enough()
	if err := h.Remove(ctx); err != nil {
		g.log.Warn("an ended task could not be removed", "task", h.ID(), "err", err)
	}
}

// stop asks containers for their end, or the task where none is named. One that
// cannot be asked must not keep the others; it is asked again.
func (g *agent) stop(ctx context.Context, key string, h run.Task, containers []string) {
	var err error
	for _, name := range containers {
		err = errors.Join(err, h.Stop(ctx, name))
	}
	if len(containers) == 0 {
		err = h.End(ctx)
	}
	if err == nil {
		return
	}
	g.log.Warn("a task could not be told to stop", "task", h.ID(), "err", err)
	g.work.Go(func() {
		select {
		case <-time.After(time.Second):
			g.touch(key)
		case <-ctx.Done():
		}
	})
}

// early reports whether a task is on its way to RUNNING.
func early(t task) bool { return t.Last == provisioning || t.Last == pending || t.Last == activating }

// markFailed is the end of a task that could not be started.
func (t *task) markFailed(now time.Time, why string) {
	t.markStopped(now, types.TaskStopCodeTaskFailedToStart, why)
	for i := range t.Containers {
		t.Containers[i].Reason = why
	}
}

// draining reports whether a target of the task still answers its last requests.
func (g *agent) draining(t task) bool {
	for _, r := range t.Targets {
		if g.deps.Traffic.Health(r.Group)[t.targetOf(r).String()].State == "draining" {
			return true
		}
	}
	return false
}

// move is to the next status; deregister takes the task out of its groups.
func (g *agent) move(next string, deregister bool) change {
	return func(tx *store.Tx, t *task) {
		t.Last = next
		if deregister {
			g.deregister(tx, *t)
			g.tellDraining(tx, *t)
		}
	}
}

// tellDraining says that a task has left its groups; observed, of deployments too.
func (g *agent) tellDraining(tx *store.Tx, t task) {
	r, ok := g.revisions.Get(tx, revisionKey(t.Revision))
	if !ok || len(t.Targets) == 0 {
		return
	}
	for _, reg := range t.Targets {
		g.tellService(tx, r.Service, "", g.clock.Now(), "deregistered 1 targets in (target-group %s)", reg.Group)
	}
	g.tellService(tx, r.Service, r.Legacy, g.clock.Now(), "has begun draining connections on 1 tasks.")
}

func (a *API) deregister(tx *store.Tx, t task) {
	for _, r := range t.Targets {
		if err := a.deps.Traffic.Deregister(tx, r.Group, t.targetOf(r)); err != nil {
			a.log.Warn("a target could not be deregistered", "task", t.ID, "err", err)
		}
	}
}

// update changes a task's row in a transaction of its own.
func (g *agent) update(key string, c change) error {
	return g.store.Update(func(tx *store.Tx) error {
		g.apply(tx, key, c)
		return nil
	})
}

// apply changes a task's row, unless it has stopped meanwhile.
func (a *API) apply(tx *store.Tx, key string, c change) {
	t, ok := a.tasks.Get(tx, key)
	if !ok || t.Last == stopped {
		return
	}
	t.Containers = slices.Clone(t.Containers) // somebody may be reading those of the row
	c(tx, &t)
	a.putTask(tx, t, key, a.clock.Now())
}

// settle ends a task's row and counts a failure to start, told as why, on its
// revision.
func (a *API) settle(why serviceAction, fn func(*task)) change {
	return func(tx *store.Tx, t *task) {
		fn(t)
		a.deregister(tx, *t)
		r, ok := a.revisions.Get(tx, revisionKey(t.Revision))
		if !ok {
			return
		}
		// Also one of which an essential container ended before all had started.
		failed := t.StopCode == types.TaskStopCodeTaskFailedToStart || t.StopCode == types.TaskStopCodeEssentialContainerExited && t.Times.Started.IsZero()
		if failed && t.In != "" {
			a.notMoved(tx, *t, r)
			return
		}
		if failed {
			r.FailedToStart++
			r.LastFailure = t.Times.Stopped
			a.revisions.Put(tx, revisionKey(r.ARN), r)
			a.tellFailure(tx, *t, r, why)
		}
		a.hintExit(tx, *t, r)
	}
}

func (a *API) tellService(tx *store.Tx, key, set string, at time.Time, format string, args ...any) {
	if s, ok := a.services.Get(tx, key); ok {
		a.tellAs(&s, set, at, format, args...)
		a.services.Put(tx, key, s)
	}
}

// markStopped is the end of a task that never ran, or whose end nobody saw.
func (t *task) markStopped(now time.Time, code types.TaskStopCode, reason string) {
	if t.StopCode == "" {
		t.StopCode, t.StopReason = code, reason
	}
	if t.Times.Stopping.IsZero() {
		t.Times.Stopping = now
	}
	t.Desired, t.Last, t.Times.Stopped = stopped, stopped, now
	for i := range t.Containers {
		t.Containers[i].Status = stopped
	}
}

// markEnded is that a task's processes have ended, and what it had is to go.
func (t *task) markEnded(now time.Time, st run.State) {
	t.note(st, now)
	if t.Times.ExecutionStopped.IsZero() && !t.Times.Started.IsZero() {
		t.Times.ExecutionStopped = now
	}
	if t.Times.Stopping.IsZero() {
		t.Times.Stopping = now
	}
	if t.StopCode == "" {
		t.StopCode, t.StopReason = types.TaskStopCodeEssentialContainerExited, "Essential container in task exited"
	}
	t.Desired, t.Last = stopped, deprovisioning
}

// start brings a new task to RUNNING or, failing, to STOPPED.
func (g *agent) start(ctx context.Context, key string, t task) {
	err := g.tryStart(ctx, key, t)
	if err == nil || ctx.Err() != nil {
		return
	}
	action := placementFailure
	if _, ok := errors.AsType[configurationError](err); ok {
		action = configurationFailure
	}
	why := err.Error()
	if err := g.update(key, g.settle(action, func(t *task) { t.markFailed(g.clock.Now(), why) })); err != nil {
		g.log.Error("a failed task could not be recorded", "task", t.ID, "err", err)
	}
}

func (g *agent) tryStart(ctx context.Context, key string, t task) error {
	scope, _ := arn.ParseKey(key)
	var d types.TaskDefinition
	var r revision
	ok := false
	g.store.View(func(tx *store.Tx) {
		d, ok = g.definitionOf(tx, scope, t)
		r, _ = g.revisions.Get(tx, revisionKey(t.Revision))
	})
	if !ok {
		return fmt.Errorf("ResourceInitializationError: task definition %s is missing", t.TaskDefinition)
	}
	if err := g.update(key, g.move(pending, false)); err != nil {
		return err
	}
	role := execution(d, scope, t)
	for _, as := range []Actor{role, taskRole(d, scope, t)} {
		if as.Role == "" {
			continue
		}
		if err := g.deps.Roles.Check(as, "", ""); err != nil {
			return configurationError{err}
		}
	}
	images, err := g.pull(ctx, key, d, r, role)
	if err != nil {
		return err
	}
	if err := t.missesPorts(); err != nil {
		return err
	}
	secrets, err := g.secrets(ctx, scope, d, role)
	if err != nil {
		return err
	}
	streams, err := g.openLogs(scope, t, d, role)
	if err != nil {
		return err
	}
	err = g.update(key, func(_ *store.Tx, t *task) {
		t.Last, t.Times.PullStopped = activating, g.clock.Now()
		for i := range t.Containers {
			t.Containers[i].Digest = images[i].Digest
			t.Containers[i].LogGroup, t.Containers[i].LogStream = streams[i][0], streams[i][1]
		}
	})
	if err != nil {
		return err
	}
	h, err := g.runtime.Create(ctx, g.spec(key, t, d, images, secrets))
	if err != nil {
		return err
	}
	g.follow(ctx, key, h)
	// Those that wait for nobody at once; the others as it turns out.
	st, _ := h.State()
	g.startContainers(ctx, key, t, h, next(d, t, st, g.clock.Now()).start)
	return nil
}

// pull makes the images ready. The first task of a revision resolves tags to
// digests; all later ones use the same, documented.
func (g *agent) pull(ctx context.Context, key string, d types.TaskDefinition, r revision, role Actor) ([]run.Image, error) {
	err := g.update(key, func(_ *store.Tx, t *task) { t.Times.PullStarted = g.clock.Now() })
	if err != nil {
		return nil, err
	}
	scope, _ := arn.ParseKey(key)
	var images []run.Image
	for _, c := range d.ContainerDefinitions {
		name := *c.Image
		pinned := r.Images[*c.Name]
		if pinned != "" {
			name = repositoryOf(name) + "@" + pinned
		}
		ref, auth, err := g.deps.Images.Resolve(ctx, scope, name, role)
		if err != nil {
			return nil, &run.Error{Kind: run.CannotPull, Err: err}
		}
		image, err := g.runtime.Pull(ctx, ref, auth)
		if err != nil {
			return nil, err
		}
		images = append(images, image)
		if pinned == "" && r.ARN != "" && c.VersionConsistency != types.VersionConsistencyDisabled {
			err := g.store.Update(func(tx *store.Tx) error {
				row, ok := g.revisions.Get(tx, revisionKey(r.ARN))
				if !ok || row.Images[*c.Name] != "" {
					return nil
				}
				row.Images = maps.Clone(row.Images)
				if row.Images == nil {
					row.Images = map[string]string{}
				}
				row.Images[*c.Name] = image.Digest
				g.revisions.Put(tx, revisionKey(r.ARN), row)
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return images, nil
}

// repositoryOf is an image's name without its tag or digest.
func repositoryOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
}

// execution is the agent acting as a task's execution role, in a session that
// has the task's id, observed.
func execution(d types.TaskDefinition, scope arn.Scope, t task) Actor {
	return Actor{aws.ToString(d.ExecutionRoleArn), tasksService, t.ID, taskARN(scope, t)}
}

// taskRole is a task acting as its role.
func taskRole(d types.TaskDefinition, scope arn.Scope, t task) Actor {
	return Actor{aws.ToString(d.TaskRoleArn), tasksService, t.ID, taskARN(scope, t)}
}

// tasksService is who assumes the roles of tasks.
const tasksService = "ecs-tasks.amazonaws.com"

// TaskRole is the role of a task that still lives, by the id that its containers
// ask for credentials with.
func (a *API) TaskRole(credentials string) (as Actor, ok bool) {
	a.store.View(func(tx *store.Tx) {
		for key, t := range a.tasksBy.Scan(tx, credentialsLabel+credentials) {
			scope, _ := arn.ParseKey(key)
			if d, found := a.definitionOf(tx, scope, t); found {
				as, ok = taskRole(d, scope, t), true
			}
			return
		}
	})
	return as, ok
}

// running is that a task runs, and is registered with its target groups.
func (g *agent) running(h run.Task) change {
	return func(tx *store.Tx, t *task) {
		if !early(*t) {
			return
		}
		now := g.clock.Now()
		if t.Last, t.Times.Started = running, now; h.Address().IsValid() {
			t.Address = h.Address().String()
		}
		st, _ := h.State()
		t.note(st, now)
		if r, ok := g.revisions.Get(tx, revisionKey(t.Revision)); ok && t.Desired == running {
			g.register(tx, t, r, now)
		}
	}
}

func (g *agent) register(tx *store.Tx, t *task, r revision, now time.Time) {
	t.Targets = nil
	counts := map[string]int{}
	scope, _ := arn.ParseKey(r.Service)
	d, _ := g.definitionOf(tx, scope, *t)
	for i, lb := range r.LoadBalancers {
		reg, ok := g.target(tx, scope, *t, d, r.Groups[i], lb)
		if !ok {
			g.log.Warn("a task has no port for its target group", "task", t.ID)
			continue
		}
		if err := g.deps.Traffic.Register(tx, reg.Group, t.targetOf(reg)); err != nil {
			g.log.Warn("a target could not be registered", "task", t.ID, "err", err)
			continue
		}
		t.Targets = append(t.Targets, reg)
		counts[reg.Group]++
	}
	for group, n := range counts {
		g.tellService(tx, r.Service, r.setID(), now, "registered %d targets in (target-group %s)", n, group)
	}
}
