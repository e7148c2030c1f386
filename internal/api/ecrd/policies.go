package ecrd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

// Policy is what the policy of a repository and that of its registry say of an
// action, for whoever decides, and their name. Policies are parsed each time: few
// have one.
func (a *API) Policy(resource arn.ARN, action string) (d *policy.Document, name string, ok bool) {
	repo, ok := resource.Under("repository/")
	if !ok {
		return nil, "", false
	}
	var r repository
	a.store.View(func(tx *store.Tx) { r, _ = a.repositories.Get(tx, repositoryKey(resource.Scope(), repo)) })
	d = &policy.Document{}
	if r.Policy != "" {
		d.Statements, name = mustParse(r.Policy), "the policy of repository "+repo
	}
	s := a.settingsOf(resource.Scope())
	if s.Policy != "" && (s.value(policyScope) != "V1" || slices.ContainsFunc(scopeV1, func(known string) bool { return strings.EqualFold(known, action) })) {
		d.Statements = append(d.Statements, mustParse(s.Policy)...)
		if name != "" {
			name += " and "
		}
		name += "the policy of registry " + resource.Account
	}
	return d, name, name != ""
}

func mustParse(text string) []policy.Statement {
	d, err := policy.Parse(text, policy.Resource)
	if err != nil { // validated when it was written
		panic(fmt.Sprintf("ecrd: a policy that was kept is broken: %v", err))
	}
	return d.Statements
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

func checkRepositoryPolicy(text string) error {
	if _, err := policy.Parse(text, policy.Resource); err != nil {
		return invalid("PolicyText failed to satisfy constraint: '%s'", err)
	}
	if len(text) > mostPolicy {
		return invalid("PolicyText can have at most %d characters", mostPolicy)
	}
	return nil
}

// SetRepositoryPolicy replaces a repository's policy.
func (a *API) SetRepositoryPolicy(ctx context.Context, in *ecr.SetRepositoryPolicyInput) (*ecr.SetRepositoryPolicyOutput, error) {
	text := aws.ToString(in.PolicyText)
	if err := checkRepositoryPolicy(text); err != nil {
		return nil, err
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
