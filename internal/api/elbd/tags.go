package elbd

import (
	"context"
	"errors"
	"strings"

	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

func (a *API) tagOps() []*wire.Op {
	onEach := func(action string, resources []string) (checks []wire.Check) {
		for _, r := range resources {
			checks = append(checks, wire.Check{Action: "elasticloadbalancing:" + action, Resource: r})
		}
		return checks
	}
	return []*wire.Op{
		wire.Handle("AddTags", a.AddTags, func(_ *wire.Call, in *elb.AddTagsInput) []wire.Check { return onEach("AddTags", in.ResourceArns) },
			wire.Members{Performed: "ResourceArns Tags"}),
		wire.Handle("RemoveTags", a.RemoveTags, func(_ *wire.Call, in *elb.RemoveTagsInput) []wire.Check {
			return onEach("RemoveTags", in.ResourceArns)
		}, wire.Members{Performed: "ResourceArns TagKeys"}),
		wire.Handle("DescribeTags", a.DescribeTags, anywhere[elb.DescribeTagsInput]("DescribeTags"), wire.Members{Performed: "ResourceArns"}),
	}
}

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
	case e.Problem == tags.Duplicate:
		return &types.DuplicateTagKeysException{Message: &e.Message}
	}
	return invalid("%s", e.Message)
}

// Tags is a resource's tags by its ARN, for conditions on aws:ResourceTag.
func (a *API) Tags(resourceARN string) (m map[string]string) {
	a.store.View(func(tx *store.Tx) { m = a.tags.Map(tx, resourceARN) })
	return m
}

// tagged refuses resources that are not there.
func (a *API) tagged(tx *store.Tx, call *wire.Call, resources []string) error {
	for _, r := range resources {
		found, missing := false, error(invalid("'%s' is not a valid load balancer, target group, listener or rule ARN", r))
		switch {
		case strings.Contains(r, ":loadbalancer/"):
			_, found = a.balancers.Get(tx, keyOf(r))
			missing = balancerNotFound(r)
		case strings.Contains(r, ":targetgroup/"):
			_, found = a.groups.Get(tx, keyOf(r))
			missing = groupNotFound(r)
		case strings.Contains(r, ":listener/"):
			_, found = a.listeners.Get(tx, keyOf(r))
			missing = listenerNotFound()
		case strings.Contains(r, ":listener-rule/"):
			_, found = a.rules.Get(tx, keyOf(r))
			missing = ruleNotFound()
		}
		if !found || !inScope(call, r) {
			return missing
		}
	}
	return nil
}

// AddTags adds tags to resources, or gives those that are there another value.
func (a *API) AddTags(ctx context.Context, in *elb.AddTagsInput) (*elb.AddTagsOutput, error) {
	list, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	return &elb.AddTagsOutput{}, a.store.Update(func(tx *store.Tx) error {
		if err := a.tagged(tx, wire.From(ctx), in.ResourceArns); err != nil {
			return err
		}
		for _, r := range in.ResourceArns {
			if err := a.tags.Add(tx, r, list); err != nil {
				return tagError(err)
			}
		}
		return nil
	})
}

// RemoveTags removes tags from resources by their keys.
func (a *API) RemoveTags(ctx context.Context, in *elb.RemoveTagsInput) (*elb.RemoveTagsOutput, error) {
	return &elb.RemoveTagsOutput{}, a.store.Update(func(tx *store.Tx) error {
		if err := a.tagged(tx, wire.From(ctx), in.ResourceArns); err != nil {
			return err
		}
		for _, r := range in.ResourceArns {
			a.tags.Remove(tx, r, in.TagKeys)
		}
		return nil
	})
}

// DescribeTags lists the tags of up to twenty resources.
func (a *API) DescribeTags(ctx context.Context, in *elb.DescribeTagsInput) (out *elb.DescribeTagsOutput, err error) {
	if n := len(in.ResourceArns); n < 1 || n > 20 {
		return nil, invalid("ResourceArns must have between 1 and 20 items, got %d", n)
	}
	out = &elb.DescribeTagsOutput{}
	a.store.View(func(tx *store.Tx) {
		if err = a.tagged(tx, wire.From(ctx), in.ResourceArns); err != nil {
			return
		}
		for _, r := range in.ResourceArns {
			out.TagDescriptions = append(out.TagDescriptions, types.TagDescription{ResourceArn: new(r), Tags: tags.Out[types.Tag](a.tags.Of(tx, r))})
		}
	})
	return out, err
}
