package cwd

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	cw "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

func (a *API) tagOps() []*wire.Op {
	on := func(action string, resource *string) []wire.Check {
		return []wire.Check{{Action: "cloudwatch:" + action, Resource: aws.ToString(resource)}}
	}
	return []*wire.Op{
		wire.Handle("TagResource", a.TagResource, func(_ *wire.Call, in *cw.TagResourceInput) []wire.Check { return on("TagResource", in.ResourceARN) },
			wire.Members{Performed: "ResourceARN Tags"}),
		wire.Handle("UntagResource", a.UntagResource, func(_ *wire.Call, in *cw.UntagResourceInput) []wire.Check {
			return on("UntagResource", in.ResourceARN)
		}, wire.Members{Performed: "ResourceARN TagKeys"}),
		wire.Handle("ListTagsForResource", a.ListTagsForResource, func(_ *wire.Call, in *cw.ListTagsForResourceInput) []wire.Check {
			return on("ListTagsForResource", in.ResourceARN)
		}, wire.Members{Performed: "ResourceARN"}),
	}
}

// Tags is an alarm's tags by its ARN, for conditions on aws:ResourceTag.
func (a *API) Tags(resourceARN string) (m map[string]string) {
	a.store.View(func(tx *store.Tx) { m = a.tags.Map(tx, resourceARN) })
	return m
}

// tagged refuses resources that are not there.
func (a *API) tagged(tx *store.Tx, c *wire.Call, resource string) error {
	parsed, err := arn.Parse(resource)
	alarm, ok := parsed.Under("alarm:")
	if err != nil || parsed.Service != "cloudwatch" || !ok {
		return badValue("The value %s for parameter ResourceARN is invalid.", resource)
	}
	if _, ok := a.alarms.Get(tx, c.Scope.Key(alarm)); !ok || parsed.Scope() != c.Scope {
		return &types.ResourceNotFoundException{Message: new("The alarm " + alarm + " does not exist."), ResourceType: new("alarm"), ResourceId: &alarm}
	}
	return nil
}

// TagResource adds tags to an alarm, or gives those that are there another value.
func (a *API) TagResource(ctx context.Context, in *cw.TagResourceInput) (*cw.TagResourceOutput, error) {
	list := tags.In(in.Tags)
	if err := tags.Check(list, tags.Exact); err != nil {
		return nil, badValue("%v", err)
	}
	return &cw.TagResourceOutput{}, a.store.Update(func(tx *store.Tx) error {
		if err := a.tagged(tx, wire.From(ctx), aws.ToString(in.ResourceARN)); err != nil {
			return err
		}
		err := a.tags.Add(tx, *in.ResourceARN, list)
		if refused, ok := errors.AsType[*tags.Error](err); ok {
			return badValue("%v", refused)
		}
		return err
	})
}

// UntagResource removes tags from an alarm by their keys.
func (a *API) UntagResource(ctx context.Context, in *cw.UntagResourceInput) (*cw.UntagResourceOutput, error) {
	return &cw.UntagResourceOutput{}, a.store.Update(func(tx *store.Tx) error {
		if err := a.tagged(tx, wire.From(ctx), aws.ToString(in.ResourceARN)); err != nil {
			return err
		}
		a.tags.Remove(tx, *in.ResourceARN, in.TagKeys)
		return nil
	})
}

// ListTagsForResource lists the tags of an alarm.
func (a *API) ListTagsForResource(ctx context.Context, in *cw.ListTagsForResourceInput) (out *cw.ListTagsForResourceOutput, err error) {
	out = &cw.ListTagsForResourceOutput{}
	a.store.View(func(tx *store.Tx) {
		if err = a.tagged(tx, wire.From(ctx), aws.ToString(in.ResourceARN)); err == nil {
			out.Tags = tags.Out[types.Tag](a.tags.Of(tx, *in.ResourceARN))
		}
	})
	return out, err
}
