package ecsd

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/run"
	"serin/internal/store"
)

// Container health checks: the agent runs each container's command again and again
// and writes what follows into the task's row. Intervals and the start period are
// stage time; a command's time-out is wall time, for the command is real.
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html

// checkHealth refuses a health check that ECS refuses; the texts of the lower bounds
// are guessed from those of the upper ones, which were observed. AWS takes a command
// without its first word, which Docker then does not run.
func checkHealth(name string, h *types.HealthCheck) error {
	if h == nil {
		return nil
	}
	for _, n := range []struct {
		what      string
		value     *int32
		low, high int32
	}{{"interval", h.Interval, 5, 300}, {"timeout", h.Timeout, 2, 60}, {"retries", h.Retries, 1, 10}, {"startPeriod", h.StartPeriod, 0, 300}} {
		switch {
		case n.value == nil:
		case *n.value > n.high:
			return client("Health check %s must be less than or equal to the maximum allowed value %d for container '%s'", n.what, n.high, name)
		case *n.value < n.low:
			return client("Health check %s must be greater than or equal to the minimum allowed value %d for container '%s'", n.what, n.low, name)
		}
	}
	switch words := len(h.Command); {
	case words == 0:
		return client("Health check command must be specified for container '%s'", name)
	case words == 1 && h.Command[0] == "NONE":
	case words < 2 || h.Command[0] != "CMD" && h.Command[0] != "CMD-SHELL":
		return client("Health check command of container '%s' must begin with CMD or CMD-SHELL and name what is run, got %q", name, h.Command)
	}
	return nil
}

// filledHealth is a health check with AWS's defaults.
func filledHealth(h *types.HealthCheck) *types.HealthCheck {
	if h == nil {
		return nil
	}
	out := *h
	for _, d := range []struct {
		at   **int32
		then int32
	}{{&out.Interval, 30}, {&out.Timeout, 5}, {&out.Retries, 3}} {
		if *d.at == nil {
			*d.at = new(d.then)
		}
	}
	return &out
}

// checkCommand is what a health check runs; nil: nothing.
func checkCommand(h *types.HealthCheck) []string {
	switch {
	case h == nil || h.Command[0] == "NONE":
		return nil
	case h.Command[0] == "CMD-SHELL":
		return []string{"/bin/sh", "-c", h.Command[1]}
	}
	return h.Command[1:]
}

// healthOf is a task's health, by its essential containers that are checked,
// documented: one that is unhealthy, else one that is not known yet, decides.
// UNKNOWN where none is checked.
func (t task) healthOf(d types.TaskDefinition) types.HealthStatus {
	health, any := types.HealthStatusHealthy, false
	for i, c := range d.ContainerDefinitions {
		if i >= len(t.Containers) || !aws.ToBool(c.Essential) || checkCommand(c.HealthCheck) == nil {
			continue
		}
		any = true
		switch t.Containers[i].Health {
		case types.HealthStatusUnhealthy:
			return types.HealthStatusUnhealthy
		case types.HealthStatusHealthy:
		default:
			health = types.HealthStatusUnknown
		}
	}
	if !any {
		return types.HealthStatusUnknown
	}
	return health
}

// checked says that a definition has an essential container whose health is checked.
func checked(d types.TaskDefinition) bool {
	for _, c := range d.ContainerDefinitions {
		if aws.ToBool(c.Essential) && checkCommand(c.HealthCheck) != nil {
			return true
		}
	}
	return false
}

// watch begins to check the containers that run, once for each start.
func (g *agent) watch(ctx context.Context, key string, t task, d types.TaskDefinition, st run.State, h run.Task) {
	for i, c := range d.ContainerDefinitions {
		command, s := checkCommand(c.HealthCheck), st.Containers[i]
		if command == nil || !s.Runs() {
			continue
		}
		g.mu.Lock()
		known := g.watched[key][*c.Name] == s.Starts
		if !known {
			if g.watched[key] == nil {
				g.watched[key] = map[string]int{}
			}
			g.watched[key][*c.Name] = s.Starts
		}
		g.mu.Unlock()
		if known {
			continue
		}
		w := checks{at: i, start: s.Starts, began: g.clock.Now(), definition: c, command: command}
		if row := t.Containers[i]; row.Starts == s.Starts { // found again
			w.was, w.began = row.Health, row.Began
		}
		g.work.Go(func() { g.checkContainer(ctx, key, h, w) })
	}
}

// checks are those of one container, since one start of it.
type checks struct {
	at, start  int
	began      time.Time // stage time
	was        types.HealthStatus
	definition types.ContainerDefinition
	command    []string
}

// checkContainer checks one container until it ends.
func (g *agent) checkContainer(ctx context.Context, key string, h run.Task, w checks) {
	failures, was, check := 0, w.was, w.definition.HealthCheck
	interval, grace := time.Duration(*check.Interval)*time.Second, w.began.Add(time.Duration(aws.ToInt32(check.StartPeriod))*time.Second)
	for {
		if g.clock.Sleep(ctx, interval) != nil {
			return
		}
		st, _ := h.State()
		if s := st.Containers[w.at]; st.Ended || s.Starts != w.start || !s.Runs() {
			return
		}
		why := g.checkOnce(ctx, h, *w.definition.Name, w.command, time.Duration(*check.Timeout)*time.Second)
		if ctx.Err() != nil {
			return
		}
		st, _ = h.State() // it may have ended, and begun again, while it was checked
		if s := st.Containers[w.at]; st.Ended || s.Starts != w.start || !s.Runs() {
			return
		}
		now := was
		switch {
		case why == nil:
			failures, now = 0, types.HealthStatusHealthy
		case g.clock.Now().Before(grace) && was != types.HealthStatusHealthy: // it is starting
		default:
			if failures++; failures >= int(*check.Retries) {
				now = types.HealthStatusUnhealthy
			}
		}
		if now == was {
			continue
		}
		was = now
		g.log.Debug("a container's health", "task", h.ID(), "container", *w.definition.Name, "health", string(now), "err", why)
		err := g.update(key, func(_ *store.Tx, t *task) {
			if t.Containers[w.at].Starts > w.start {
				return
			}
			t.note(st, g.clock.Now())
			t.Containers[w.at].Health = now
		})
		if err != nil {
			g.log.Error("a container's health could not be recorded", "task", h.ID(), "err", err)
		}
	}
}

// checkOnce runs a check; the error says why it failed.
func (g *agent) checkOnce(ctx context.Context, h run.Task, name string, command []string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var said bytes.Buffer
	code, err := h.Exec(ctx, name, run.Command{Args: command, Out: &limited{&said, 4096}})
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("exit code %d: %s", code, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// limited keeps the first bytes of what is written, as Docker does of a check.
type limited struct {
	to   *bytes.Buffer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.left -= n
	l.to.Write(b[:n])
	return len(b), nil
}
