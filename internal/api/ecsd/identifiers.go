package ecsd

import (
	"strings"

	"serin/internal/arn"
	"serin/internal/store"
)

// identifier is the id in an id or ARN of a kind, which must be of the cluster that
// is named beside it. The texts are observed, but for that of what is no ARN of ECS:
// https://github.com/aws/aws-toolkit-vscode/issues/2915
// https://github.com/aws-actions/amazon-ecs-deploy-task-definition/issues/261
// https://github.com/aws/amazon-ecs-cli/issues/821
// https://github.com/aws/aws-cli/issues/7875
func identifier(scope arn.Scope, kind, cluster, idOrARN string) (string, error) {
	if !arn.Is(idOrARN) {
		return idOrARN, nil
	}
	a, err := arn.Parse(idOrARN)
	of, path, _ := strings.Cut(a.Resource, "/")
	named, id, long := strings.Cut(path, "/")
	switch {
	case err != nil || a.Service != "ecs":
		return "", invalid("Invalid identifier: %s", idOrARN)
	case of != kind:
		return "", invalid("Unsupported resource type: %s", of)
	case a.Region != scope.Region:
		return "", invalid("Invalid Region in ARN")
	case a.Account != scope.Account:
		return "", invalid("Identifier is for %s. Your accountId is %s", a.Account, scope.Account)
	case !long: // the older form names no cluster, documented
		return path, nil
	case named != cluster:
		return "", invalid("Invalid identifier: Identifier is for cluster %s. Your cluster is %s", named, cluster)
	}
	return id, nil
}

// optionalID is the id in an id or ARN that may be missing.
func optionalID(scope arn.Scope, kind, cluster string, idOrARN *string) (*string, error) {
	if idOrARN == nil {
		return nil, nil
	}
	id, err := identifier(scope, kind, cluster, *idOrARN)
	return &id, err
}

// taskNamed finds a cluster's task by its id or ARN.
func (a *API) taskNamed(tx *store.Tx, scope arn.Scope, cluster, idOrARN string) (t task, ok bool, err error) {
	id, err := identifier(scope, "task", cluster, idOrARN)
	if err != nil {
		return task{}, false, err
	}
	t, ok = a.tasks.Get(tx, scope.Key(cluster+"/"+id))
	return t, ok, nil
}
