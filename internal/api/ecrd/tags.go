package ecrd

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// tagsIn reads the tags of a request and refuses what no tag may be.
func tagsIn(in []types.Tag) ([]tags.Tag, error) {
	list := tags.In(in)
	return list, tagError(tags.Check(list, tags.Exact))
}

func tagError(err error) error {
	e, ok := errors.AsType[*tags.Error](err)
	switch {
	case !ok:
		return err
	case e.Problem == tags.TooMany:
		return &types.TooManyTagsException{Message: &e.Message}
	}
	return &types.InvalidTagParameterException{Message: &e.Message}
}

// Tags is a repository's tags by its ARN, for conditions on aws:ResourceTag.
func (a *API) Tags(resourceARN string) (m map[string]string) {
	a.store.View(func(tx *store.Tx) { m = a.labels.Map(tx, resourceARN) })
	return m
}

// tagged finds the repository that tags are asked of, in the caller's registry.
func (a *API) tagged(tx *store.Tx, c *wire.Call, resourceARN *string) (string, error) {
	r, err := arn.Parse(aws.ToString(resourceARN))
	name, isRepository := r.Under("repository/")
	if err != nil || r.Service != "ecr" || !isRepository {
		return "", invalid("resourceArn '%s' is not the ARN of a repository", aws.ToString(resourceARN))
	}
	if _, ok := a.repositories.Get(tx, repositoryKey(r.Scope(), name)); !ok || r.Scope() != c.Scope {
		return "", notFound(c.Scope, name)
	}
	return r.String(), nil
}

// TagResource adds tags, or gives those that are there another value.
func (a *API) TagResource(ctx context.Context, in *ecr.TagResourceInput) (*ecr.TagResourceOutput, error) {
	list, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	return &ecr.TagResourceOutput{}, a.store.Update(func(tx *store.Tx) error {
		resource, err := a.tagged(tx, wire.From(ctx), in.ResourceArn)
		if err != nil {
			return err
		}
		return tagError(a.labels.Add(tx, resource, list))
	})
}

// UntagResource removes tags by their keys.
func (a *API) UntagResource(ctx context.Context, in *ecr.UntagResourceInput) (*ecr.UntagResourceOutput, error) {
	return &ecr.UntagResourceOutput{}, a.store.Update(func(tx *store.Tx) error {
		resource, err := a.tagged(tx, wire.From(ctx), in.ResourceArn)
		if err == nil {
			a.labels.Remove(tx, resource, in.TagKeys)
		}
		return err
	})
}

// ListTagsForResource lists a repository's tags.
func (a *API) ListTagsForResource(ctx context.Context, in *ecr.ListTagsForResourceInput) (out *ecr.ListTagsForResourceOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		var resource string
		if resource, err = a.tagged(tx, wire.From(ctx), in.ResourceArn); err == nil {
			out = &ecr.ListTagsForResourceOutput{Tags: tags.Out[types.Tag](a.labels.Of(tx, resource))}
		}
	})
	return out, err
}
