package ecsd

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// keepDeleted is how long a revision is DELETE_IN_PROGRESS at least; documented is
// that it takes up to an hour once its tasks have stopped.
const keepDeleted = time.Hour

// DeleteTaskDefinitions asks for revisions to be forgotten. Those that are in use
// are DELETE_IN_PROGRESS until they are no more.
func (a *API) DeleteTaskDefinitions(ctx context.Context, in *ecs.DeleteTaskDefinitionsInput) (*ecs.DeleteTaskDefinitionsOutput, error) {
	call := wire.From(ctx)
	switch n := len(in.TaskDefinitions); { // both texts are observed by others
	case n == 0:
		return nil, invalid("size of TaskDefinition references list must be greater than 0")
	case n > 10:
		return nil, invalid("Size of TaskDefinition references list cannot exceed 10")
	}
	out := &ecs.DeleteTaskDefinitionsOutput{}
	return out, a.store.Update(func(tx *store.Tx) error {
		for _, name := range in.TaskDefinitions {
			d, reason := a.deletable(tx, call.Scope, name)
			if reason != "" {
				out.Failures = append(out.Failures, types.Failure{Arn: new(definitionResource(call, name)), Reason: new(reason)})
				continue
			}
			if d.Status != types.TaskDefinitionStatusDeleteInProgress {
				d.Status, d.DeleteRequestedAt = types.TaskDefinitionStatusDeleteInProgress, new(a.clock.Now())
				key, _ := rowKey(*d.TaskDefinitionArn, "task-definition")
				a.definitions.Put(tx, key, definition{d})
			}
			out.TaskDefinitions = append(out.TaskDefinitions, d)
		}
		return nil
	})
}

// deletable finds a revision that may be deleted, or says why there is none; the
// texts are observed by others.
func (a *API) deletable(tx *store.Tx, scope arn.Scope, name string) (types.TaskDefinition, string) {
	_, revision, _ := strings.Cut(lastPart(name), ":")
	if n, err := strconv.Atoi(revision); err != nil || n < 1 {
		return types.TaskDefinition{}, "The specified task definition identifier is invalid. Specify a valid name or ARN and try again."
	}
	switch d, ok := a.definition(tx, scope, name); {
	case !ok:
		return d, "The specified task definition does not exist. Specify a valid account, family, revision and try again."
	case d.Status == types.TaskDefinitionStatusActive:
		return d, "The specified task definition is still in ACTIVE status. Please deregister the target and try again."
	default:
		return d, ""
	}
}

// forgetDefinitions forgets those that were deleted and that nothing uses: a change
// of what does makes the controller sweep again.
func (a *API) forgetDefinitions(tx *store.Tx, due func(time.Time) bool) {
	var used map[string]bool
	for key, d := range a.definitions.Scan(tx, "") {
		if d.Status != types.TaskDefinitionStatusDeleteInProgress || !due(aws.ToTime(d.DeleteRequestedAt).Add(keepDeleted)) {
			continue
		}
		if used == nil {
			used = a.usedDefinitions(tx)
		}
		if !used[*d.TaskDefinitionArn] {
			a.definitions.Delete(tx, key)
			a.tags.Set(tx, *d.TaskDefinitionArn, nil)
		}
	}
}

// usedDefinitions are those of tasks that can still be described, of services, of
// their deployments, which may go back, and of task sets; by ARN.
func (a *API) usedDefinitions(tx *store.Tx) map[string]bool {
	used := map[string]bool{}
	for _, t := range a.tasks.Scan(tx, "") {
		used[t.TaskDefinition] = true
	}
	revisions := func(arns ...string) {
		for _, name := range arns {
			if r, ok := a.revisions.Get(tx, revisionKey(name)); ok && name != "" {
				used[r.TaskDefinition] = true
			}
		}
	}
	for _, s := range a.services.Scan(tx, "") {
		if s.Status == "INACTIVE" {
			continue
		}
		used[s.TaskDefinition] = true
		d, ok := a.deployments.Get(tx, deploymentKey(s.Deployment))
		switch {
		case !ok: // it has task sets
		case d.State.Status.Terminal():
			revisions(primaryOf(d))
		default:
			revisions(d.Others...)
			revisions(d.Source, d.Target)
		}
	}
	for _, s := range a.sets.Scan(tx, "") {
		revisions(s.Revision)
	}
	return used
}

// hasDefinitions says whether a family has a revision that was not forgotten.
func (a *API) hasDefinitions(tx *store.Tx, scope arn.Scope, family string) bool {
	for range a.definitions.Scan(tx, scope.Key(family+":")) {
		return true
	}
	return false
}
