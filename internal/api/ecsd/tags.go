package ecsd

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// tagsIn reads the tags of a request and refuses what no tag may be.
func tagsIn(in []types.Tag) ([]tags.Tag, error) {
	list := tags.In(in)
	if err := tags.Check(list, tags.Exact); err != nil {
		return nil, invalid("%s", err)
	}
	return list, nil
}

func (a *API) tagsOut(tx *store.Tx, resourceARN string) []types.Tag {
	return tags.Out[types.Tag](a.tags.Of(tx, resourceARN))
}

// Tags is a resource's tags by its ARN, for conditions on aws:ResourceTag.
func (a *API) Tags(resourceARN string) (m map[string]string) {
	a.store.View(func(tx *store.Tx) { m = a.tags.Map(tx, resourceARN) })
	return m
}

// tagged finds the resource that tags are asked of, in the caller's account.
func (a *API) tagged(tx *store.Tx, call *wire.Call, resourceARN *string) (string, error) {
	r, err := arn.Parse(aws.ToString(resourceARN))
	if err != nil || r.Service != "ecs" {
		return "", invalid("Invalid resource ARN: '%s'", aws.ToString(resourceARN))
	}
	kind, rest, _ := strings.Cut(r.Resource, "/")
	key := r.Scope().Key(rest)
	found := false
	switch kind {
	case "cluster":
		var c cluster
		c, found = a.clusters.Get(tx, key)
		found = found && c.Status == "ACTIVE"
	case "service":
		var s service
		s, found = a.services.Get(tx, key)
		found = found && s.Status != "INACTIVE"
	case "task":
		_, found = a.tasks.Get(tx, key)
	case "task-set":
		_, found = a.sets.Get(tx, key)
	case "task-definition":
		_, found = a.definitions.Get(tx, key)
	case "capacity-provider":
		_, found = a.providerNamed(tx, r.Scope(), rest)
	case "container-instance":
		var i instance
		i, found = a.instances.Get(tx, key)
		found = found && !i.gone()
	default:
		return "", invalid("Serin keeps tags of clusters, services, task sets, tasks, task definitions, capacity providers and container instances, not of '%s'", r.Resource)
	}
	if !found || r.Scope() != call.Scope {
		return "", invalid("The specified resource is not found: %s", r)
	}
	return r.String(), nil
}

// TagResource adds tags, or gives those that are there another value.
func (a *API) TagResource(ctx context.Context, in *ecs.TagResourceInput) (*ecs.TagResourceOutput, error) {
	list, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	return &ecs.TagResourceOutput{}, a.store.Update(func(tx *store.Tx) error {
		resource, err := a.tagged(tx, wire.From(ctx), in.ResourceArn)
		if err != nil {
			return err
		}
		if err := a.tags.Add(tx, resource, list); err != nil {
			return invalid("%s", err)
		}
		return nil
	})
}

// UntagResource removes tags by their keys.
func (a *API) UntagResource(ctx context.Context, in *ecs.UntagResourceInput) (*ecs.UntagResourceOutput, error) {
	return &ecs.UntagResourceOutput{}, a.store.Update(func(tx *store.Tx) error {
		resource, err := a.tagged(tx, wire.From(ctx), in.ResourceArn)
		if err == nil {
			a.tags.Remove(tx, resource, in.TagKeys)
		}
		return err
	})
}

// ListTagsForResource lists a resource's tags.
func (a *API) ListTagsForResource(ctx context.Context, in *ecs.ListTagsForResourceInput) (out *ecs.ListTagsForResourceOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		var resource string
		if resource, err = a.tagged(tx, wire.From(ctx), in.ResourceArn); err == nil {
			out = &ecs.ListTagsForResourceOutput{Tags: a.tagsOut(tx, resource)}
		}
	})
	return out, err
}
