package ecsd

import (
	"context"
	"fmt"
	"strings"

	"serin/internal/arn"
	"serin/internal/run"
	"serin/internal/store"
)

// Target is where a command is to run.
type Target struct {
	Cluster, Task string // names or ARNs
	Container     string // empty: the only one
}

// Exec runs a command in a container that runs, and returns its exit code. It asks
// for no role and no agent: it is for who has the stage.
func (a *API) Exec(ctx context.Context, scope arn.Scope, to Target, c run.Command) (code int, err error) {
	key := scope.Key(clusterName(&to.Cluster) + "/" + lastPart(to.Task))
	var t task
	var ok bool
	a.store.View(func(tx *store.Tx) { t, ok = a.tasks.Get(tx, key) })
	switch {
	case !ok:
		return 0, fmt.Errorf("there is no task %s in cluster %s", lastPart(to.Task), clusterName(&to.Cluster))
	case t.Last != running:
		return 0, fmt.Errorf("the task %s is %s; commands are run in tasks that are RUNNING", t.ID, t.Last)
	case len(c.Args) == 0:
		return 0, fmt.Errorf("a command must be given")
	}
	var names []string
	for _, own := range t.Containers {
		names = append(names, own.Name)
	}
	if to.Container == "" && len(names) == 1 {
		to.Container = names[0]
	}
	if to.Container == "" {
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
	return h.Exec(ctx, to.Container, c)
}
