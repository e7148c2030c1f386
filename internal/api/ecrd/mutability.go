package ecrd

import (
	"context"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/wire"
)

// exclusion is the form of a filter's pattern: only * is a wildcard.
var exclusion = regexp.MustCompile(`^[0-9a-zA-Z._*-]{1,128}$`)

// setMutability says whether a tag can be moved to another image, and which
// tags are excluded from that; the limits are documented.
func (r *repository) setMutability(m types.ImageTagMutability, filters []types.ImageTagMutabilityExclusionFilter) error {
	if !slices.Contains(m.Values(), m) {
		return invalid("imageTagMutability must be one of %v, got '%s'", m.Values(), m)
	}
	excludes := m == types.ImageTagMutabilityImmutableWithExclusion || m == types.ImageTagMutabilityMutableWithExclusion
	switch {
	case excludes && len(filters) == 0:
		return invalid("imageTagMutabilityExclusionFilters must be given with imageTagMutability %s", m)
	case !excludes && len(filters) > 0:
		return invalid("imageTagMutabilityExclusionFilters cannot be given with imageTagMutability %s", m)
	case len(filters) > 5:
		return invalid("imageTagMutabilityExclusionFilters can have at most 5 filters, got %d", len(filters))
	}
	var excluded []string
	for _, f := range filters {
		if f.FilterType != types.ImageTagMutabilityExclusionFilterTypeWildcard {
			return invalid("imageTagMutabilityExclusionFilters: filterType must be WILDCARD, got '%s'", f.FilterType)
		}
		if f.Filter == nil || !exclusion.MatchString(*f.Filter) || strings.Count(*f.Filter, "*") > 2 {
			return invalid("imageTagMutabilityExclusionFilters: filter must satisfy %s and have at most 2 wildcards", exclusion)
		}
		excluded = append(excluded, *f.Filter)
	}
	r.Mutability, r.Excluded = string(m), excluded
	return nil
}

func (r repository) filters() (list []types.ImageTagMutabilityExclusionFilter) {
	for _, pattern := range r.Excluded {
		list = append(list, types.ImageTagMutabilityExclusionFilter{Filter: new(pattern), FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard})
	}
	return list
}

// fixed says that a tag stays with its image.
func (r repository) fixed(tag string) bool {
	excluded := slices.ContainsFunc(r.Excluded, func(pattern string) bool {
		matches, _ := path.Match(pattern, tag) // neither has a slash or another wildcard
		return matches
	})
	return strings.HasPrefix(r.Mutability, "IMMUTABLE") != excluded
}

// PutImageTagMutability changes whether tags can be moved.
func (a *API) PutImageTagMutability(ctx context.Context, in *ecr.PutImageTagMutabilityInput) (*ecr.PutImageTagMutabilityOutput, error) {
	err := a.change(ctx, in.RegistryId, in.RepositoryName, func(r *repository) error {
		return r.setMutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters)
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutImageTagMutabilityOutput{
		ImageTagMutability: in.ImageTagMutability, ImageTagMutabilityExclusionFilters: in.ImageTagMutabilityExclusionFilters,
		RegistryId: new(wire.From(ctx).Scope.Account), RepositoryName: in.RepositoryName,
	}, nil
}
