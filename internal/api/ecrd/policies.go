package ecrd

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

// Policy is the policy of a repository, for whoever decides. It is parsed each
// time: few repositories have one.
func (a *API) Policy(resource arn.ARN) (*policy.Document, bool) {
	name, ok := resource.Under("repository/")
	if !ok {
		return nil, false
	}
	var r repository
	a.store.View(func(tx *store.Tx) { r, _ = a.repositories.Get(tx, repositoryKey(resource.Scope(), name)) })
	if r.Policy == "" {
		return nil, false
	}
	d, err := policy.Parse(r.Policy, policy.Resource)
	if err != nil { // validated when it was written
		panic(fmt.Sprintf("ecrd: repository %s has a broken policy: %v", name, err))
	}
	return d, true
}

// mostPolicy is the most characters of a repository's policy, documented.
const mostPolicy = 10240

// repository reads a repository of the caller's registry.
func (a *API) repository(c *wire.Call, registry, name *string) (r repository, err error) {
	if err := registryOf(c, registry); err != nil {
		return r, err
	}
	a.store.View(func(tx *store.Tx) { r, err = a.find(tx, c.Scope, aws.ToString(name)) })
	return r, err
}

// change writes a repository of the caller's registry.
func (a *API) change(ctx context.Context, registry, name *string, fn func(*repository) error) error {
	c := wire.From(ctx)
	if err := registryOf(c, registry); err != nil {
		return err
	}
	return a.store.Update(func(tx *store.Tx) error {
		r, err := a.find(tx, c.Scope, aws.ToString(name))
		if err != nil {
			return err
		}
		if err := fn(&r); err != nil {
			return err
		}
		a.repositories.Put(tx, repositoryKey(c.Scope, r.Name), r)
		return nil
	})
}

func noPolicy(c *wire.Call, name *string) error {
	return &types.RepositoryPolicyNotFoundException{Message: new(fmt.Sprintf("Repository policy does not exist for the repository with name '%s' in the registry with id '%s'", aws.ToString(name), c.Scope.Account))}
}

// SetRepositoryPolicy replaces a repository's policy.
func (a *API) SetRepositoryPolicy(ctx context.Context, in *ecr.SetRepositoryPolicyInput) (*ecr.SetRepositoryPolicyOutput, error) {
	text := aws.ToString(in.PolicyText)
	if _, err := policy.Parse(text, policy.Resource); err != nil {
		return nil, invalid("PolicyText failed to satisfy constraint: '%s'", err)
	}
	if len(text) > mostPolicy {
		return nil, invalid("PolicyText can have at most %d characters", mostPolicy)
	}
	err := a.change(ctx, in.RegistryId, in.RepositoryName, func(r *repository) error {
		r.Policy = text
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.SetRepositoryPolicyOutput{PolicyText: &text, RegistryId: new(wire.From(ctx).Scope.Account), RepositoryName: in.RepositoryName}, nil
}

// GetRepositoryPolicy returns a repository's policy.
func (a *API) GetRepositoryPolicy(ctx context.Context, in *ecr.GetRepositoryPolicyInput) (*ecr.GetRepositoryPolicyOutput, error) {
	c := wire.From(ctx)
	r, err := a.repository(c, in.RegistryId, in.RepositoryName)
	switch {
	case err != nil:
		return nil, err
	case r.Policy == "":
		return nil, noPolicy(c, in.RepositoryName)
	}
	return &ecr.GetRepositoryPolicyOutput{PolicyText: &r.Policy, RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName}, nil
}

// DeleteRepositoryPolicy removes a repository's policy.
func (a *API) DeleteRepositoryPolicy(ctx context.Context, in *ecr.DeleteRepositoryPolicyInput) (*ecr.DeleteRepositoryPolicyOutput, error) {
	c := wire.From(ctx)
	out := &ecr.DeleteRepositoryPolicyOutput{RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName}
	err := a.change(ctx, in.RegistryId, in.RepositoryName, func(r *repository) error {
		if r.Policy == "" {
			return noPolicy(c, in.RepositoryName)
		}
		out.PolicyText = new(r.Policy)
		r.Policy = ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
