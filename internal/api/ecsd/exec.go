package ecsd

import (
	"context"
	"fmt"
	"io"
	"strings"

	"serin/internal/arn"
	"serin/internal/run"
	"serin/internal/store"
)

// Command is a command to run in a container of a task.
type Command struct {
	Cluster, Task string // names or ARNs
	Container     string // empty: the only one
	Args          []string
}

// Exec runs a command in a container that runs, as ECS Exec does, but for its
// session: there is no terminal. It writes what the command says to out and returns
// its exit code.
func (a *API) Exec(ctx context.Context, scope arn.Scope, c Command, out io.Writer) (code int, err error) {
	key := scope.Key(clusterName(&c.Cluster) + "/" + lastPart(c.Task))
	var t task
	var ok bool
	a.store.View(func(tx *store.Tx) { t, ok = a.tasks.Get(tx, key) })
	switch {
	case !ok:
		return 0, fmt.Errorf("there is no task %s in cluster %s", lastPart(c.Task), clusterName(&c.Cluster))
	case t.Last != running:
		return 0, fmt.Errorf("the task %s is %s; commands are run in tasks that are RUNNING", t.ID, t.Last)
	case len(c.Args) == 0:
		return 0, fmt.Errorf("a command must be given")
	}
	var names []string
	for _, own := range t.Containers {
		names = append(names, own.Name)
	}
	if c.Container == "" && len(names) == 1 {
		c.Container = names[0]
	}
	if c.Container == "" {
		return 0, fmt.Errorf("the task has several containers; one of %s must be named", strings.Join(names, ", "))
	}
	g := a.agent.Load()
	if g == nil {
		return 0, fmt.Errorf("the stage's runtime is not ready")
	}
	h, _ := g.handle(key)
	if h == nil {
		return 0, fmt.Errorf("the task %s is not followed yet", t.ID)
	}
	return h.Exec(ctx, c.Container, run.Command{Args: c.Args, Out: out})
}
