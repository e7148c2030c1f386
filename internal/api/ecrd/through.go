package ecrd

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// The rules of the pull through cache; import.go performs them.

// cacheRule says which registry is behind the repositories of a prefix.
type cacheRule struct {
	Prefix           string // or root
	Upstream         string // host
	Kind             types.UpstreamRegistry
	UpstreamPrefix   string // or root
	Credential, Role string
	Created, Updated time.Time
}

// mostRulesThrough is the quota of a registry, documented.
const mostRulesThrough = 50

// throughRule is the rule that a repository is behind.
func (a *API) throughRule(scope arn.Scope, repo string) (r cacheRule, ok bool) {
	a.store.View(func(tx *store.Tx) {
		r, ok = closest(a.rules.Scan(tx, scope.Key("")), repo, func(r cacheRule) (string, bool) { return r.Prefix, true })
	})
	return r, ok
}

// upstreamOf is a repository's name in the registry behind it, documented.
func (r cacheRule) upstreamOf(repo string) string {
	if r.Prefix != root {
		repo = strings.TrimPrefix(repo, strings.TrimSuffix(r.Prefix, "/")+"/")
	}
	if r.UpstreamPrefix != root {
		repo = strings.TrimSuffix(r.UpstreamPrefix, "/") + "/" + repo
	}
	return repo
}

// upstreams are the registries that ECR can be in front of, and whether they
// need credentials, documented. Azure's and ECR's have names of their own.
var upstreams = map[string]struct {
	kind   types.UpstreamRegistry
	signIn bool
}{
	"public.ecr.aws":       {types.UpstreamRegistryEcrPublic, false},
	"registry.k8s.io":      {types.UpstreamRegistryK8s, false},
	"quay.io":              {types.UpstreamRegistryQuay, false},
	"registry-1.docker.io": {types.UpstreamRegistryDockerHub, true},
	"ghcr.io":              {types.UpstreamRegistryGitHubContainerRegistry, true},
	"registry.gitlab.com":  {types.UpstreamRegistryGitLabContainerRegistry, true},
	"cgr.dev":              {types.UpstreamRegistryChainguard, true},
}

var (
	azureHost = regexp.MustCompile(`^[a-zA-Z0-9]+\.azurecr\.io$`)
	secretARN = regexp.MustCompile(`^arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):(\d{12}):secret:ecr-pullthroughcache/.+$`)
)

// check validates a new rule, and finds out its kind.
func (r *cacheRule) check(scope arn.Scope) error {
	for name, prefix := range map[string]string{"ecrRepositoryPrefix": r.Prefix, "upstreamRepositoryPrefix": r.UpstreamPrefix} {
		if !prefixForm.MatchString(prefix) || len(prefix) < 2 || len(prefix) > 30 {
			return invalid("%s '%s' must be %s, or have 2 to 30 characters of a repository's name", name, prefix, root)
		}
	}
	if r.Prefix == root && r.UpstreamPrefix != root {
		return invalid("upstreamRepositoryPrefix cannot be given with the ecrRepositoryPrefix %s", root)
	}
	var kind types.UpstreamRegistry
	signIn := false
	if known, ok := upstreams[r.Upstream]; ok {
		kind, signIn = known.kind, known.signIn
	} else if azureHost.MatchString(r.Upstream) {
		kind, signIn = types.UpstreamRegistryAzureContainerRegistry, true
	} else if m := awsHost.FindStringSubmatch(r.Upstream); m != nil && m[3] == "" {
		kind = types.UpstreamRegistryEcr
		if m[1] == scope.Account && m[2] == scope.Region {
			return invalid("Upstream registry URL cannot be the same as the cache registry")
		}
		if m[1] != scope.Account && r.Role == "" {
			return invalid("customRoleArn must be given: the upstream registry is another account's")
		}
	} else {
		return &types.UnsupportedUpstreamRegistryException{Message: new(fmt.Sprintf("The upstream registry URL %s is invalid. Specify a valid upstream registry URL and try again", r.Upstream))}
	}
	if r.Kind != "" && r.Kind != kind {
		return invalid("Upstream registry URL and entered upstream registry do not match. Please verify input and try again.")
	}
	r.Kind = kind
	if signIn && r.Credential == "" {
		return &types.UnsupportedUpstreamRegistryException{Message: new("The specified upstream registry requires authentication. Specify a valid Secrets Manager ARN containing the upstream registry credentials and try again.")}
	}
	return r.checkCredentials(scope, signIn)
}

// checkCredentials validates what a rule signs in with.
func (r *cacheRule) checkCredentials(scope arn.Scope, signIn bool) error {
	if m := secretARN.FindStringSubmatch(r.Credential); r.Credential != "" && (m == nil || m[1] != scope.Region || m[2] != scope.Account) {
		return invalid("credentialArn '%s' must be the ARN of a secret named ecr-pullthroughcache/… of account %s in %s", r.Credential, scope.Account, scope.Region)
	}
	if r.Credential != "" && !signIn {
		return &types.UnsupportedUpstreamRegistryException{Message: new("The specified upstream registry doesn't require authentication: credentialArn cannot be given")}
	}
	if r.Role != "" && r.Kind != types.UpstreamRegistryEcr {
		return invalid("customRoleArn goes with an upstream registry of ECR only")
	}
	return checkRole(scope, r.Role)
}

func (r cacheRule) signsIn() bool {
	return upstreams[r.Upstream].signIn || r.Kind == types.UpstreamRegistryAzureContainerRegistry
}

// CreatePullThroughCacheRule puts a registry behind the repositories of a prefix.
func (a *API) CreatePullThroughCacheRule(ctx context.Context, in *ecr.CreatePullThroughCacheRuleInput) (*ecr.CreatePullThroughCacheRuleOutput, error) {
	c, now := wire.From(ctx), a.clock.Now()
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	r := cacheRule{
		Prefix: aws.ToString(in.EcrRepositoryPrefix), Upstream: aws.ToString(in.UpstreamRegistryUrl), Kind: in.UpstreamRegistry, UpstreamPrefix: cmp.Or(aws.ToString(in.UpstreamRepositoryPrefix), root),
		Credential: aws.ToString(in.CredentialArn), Role: aws.ToString(in.CustomRoleArn), Created: now, Updated: now,
	}
	if err := r.check(c.Scope); err != nil {
		return nil, err
	}
	err := a.store.Update(func(tx *store.Tx) error {
		n := 0
		for _, row := range a.rules.Scan(tx, c.Scope.Key("")) {
			if n++; strings.TrimSuffix(row.Prefix, "/") == strings.TrimSuffix(r.Prefix, "/") {
				return &types.PullThroughCacheRuleAlreadyExistsException{Message: new(fmt.Sprintf("A pull through cache rule with the repository prefix '%s' already exists in the registry with id '%s'", r.Prefix, c.Scope.Account))}
			}
		}
		if n >= mostRulesThrough {
			return &types.LimitExceededException{Message: new(fmt.Sprintf("The registry with id '%s' already has the maximum allowed number of pull through cache rules which is '%d'", c.Scope.Account, mostRulesThrough))}
		}
		a.rules.Put(tx, c.Scope.Key(r.Prefix), r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.CreatePullThroughCacheRuleOutput{
		EcrRepositoryPrefix: &r.Prefix, UpstreamRegistryUrl: &r.Upstream, UpstreamRegistry: r.Kind, UpstreamRepositoryPrefix: &r.UpstreamPrefix,
		CredentialArn: orNil(r.Credential), CustomRoleArn: orNil(r.Role), RegistryId: new(c.Scope.Account), CreatedAt: &r.Created,
	}, nil
}

// findRule reads a rule, or says that there is none.
func (a *API) findRule(tx *store.Tx, scope arn.Scope, prefix *string) (cacheRule, error) {
	r, ok := a.rules.Get(tx, scope.Key(aws.ToString(prefix)))
	if !ok {
		return r, &types.PullThroughCacheRuleNotFoundException{Message: new(fmt.Sprintf("The pull through cache rule with the repository prefix '%s' was not found in the registry with id '%s'. Specify a valid pull through cache rule and try again.", aws.ToString(prefix), scope.Account))}
	}
	return r, nil
}

// UpdatePullThroughCacheRule changes what a rule signs in with.
func (a *API) UpdatePullThroughCacheRule(ctx context.Context, in *ecr.UpdatePullThroughCacheRuleInput) (*ecr.UpdatePullThroughCacheRuleOutput, error) {
	c := wire.From(ctx)
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	var r cacheRule
	err := a.store.Update(func(tx *store.Tx) (err error) {
		if r, err = a.findRule(tx, c.Scope, in.EcrRepositoryPrefix); err != nil {
			return err
		}
		r.Credential, r.Role, r.Updated = cmp.Or(aws.ToString(in.CredentialArn), r.Credential), cmp.Or(aws.ToString(in.CustomRoleArn), r.Role), a.clock.Now()
		if err := r.checkCredentials(c.Scope, r.signsIn()); err != nil {
			return err
		}
		a.rules.Put(tx, c.Scope.Key(r.Prefix), r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.UpdatePullThroughCacheRuleOutput{
		EcrRepositoryPrefix: &r.Prefix, UpstreamRepositoryPrefix: &r.UpstreamPrefix, CredentialArn: orNil(r.Credential), CustomRoleArn: orNil(r.Role), RegistryId: new(c.Scope.Account), UpdatedAt: &r.Updated,
	}, nil
}

// DeletePullThroughCacheRule takes the registry away from behind a prefix; what
// was pulled stays.
func (a *API) DeletePullThroughCacheRule(ctx context.Context, in *ecr.DeletePullThroughCacheRuleInput) (*ecr.DeletePullThroughCacheRuleOutput, error) {
	c := wire.From(ctx)
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	var r cacheRule
	err := a.store.Update(func(tx *store.Tx) (err error) {
		if r, err = a.findRule(tx, c.Scope, in.EcrRepositoryPrefix); err == nil {
			a.rules.Delete(tx, c.Scope.Key(r.Prefix))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeletePullThroughCacheRuleOutput{
		EcrRepositoryPrefix: &r.Prefix, UpstreamRegistryUrl: &r.Upstream, UpstreamRepositoryPrefix: &r.UpstreamPrefix, CredentialArn: orNil(r.Credential), CustomRoleArn: orNil(r.Role),
		RegistryId: new(c.Scope.Account), CreatedAt: &r.Created,
	}, nil
}

// DescribePullThroughCacheRules lists rules, all or those named.
func (a *API) DescribePullThroughCacheRules(ctx context.Context, in *ecr.DescribePullThroughCacheRulesInput) (*ecr.DescribePullThroughCacheRulesOutput, error) {
	c := wire.From(ctx)
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	var rows []cacheRule
	var err error
	a.store.View(func(tx *store.Tx) {
		for _, prefix := range in.EcrRepositoryPrefixes {
			if _, e := a.findRule(tx, c.Scope, &prefix); e != nil {
				err = e
			}
		}
		for _, r := range a.rules.Scan(tx, c.Scope.Key("")) {
			if in.EcrRepositoryPrefixes == nil || slices.Contains(in.EcrRepositoryPrefixes, r.Prefix) {
				rows = append(rows, r)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	rows, next, err := page(rows, func(r cacheRule) string { return r.Prefix }, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribePullThroughCacheRulesOutput{NextToken: next}
	for _, r := range rows {
		out.PullThroughCacheRules = append(out.PullThroughCacheRules, types.PullThroughCacheRule{
			EcrRepositoryPrefix: new(r.Prefix), UpstreamRegistryUrl: new(r.Upstream), UpstreamRegistry: r.Kind, UpstreamRepositoryPrefix: new(r.UpstreamPrefix),
			CredentialArn: orNil(r.Credential), CustomRoleArn: orNil(r.Role), RegistryId: new(c.Scope.Account), CreatedAt: new(r.Created), UpdatedAt: new(r.Updated),
		})
	}
	return out, nil
}

// ValidatePullThroughCacheRule says whether the registry behind a rule answers
// and takes the credentials.
func (a *API) ValidatePullThroughCacheRule(ctx context.Context, in *ecr.ValidatePullThroughCacheRuleInput) (*ecr.ValidatePullThroughCacheRuleOutput, error) {
	c := wire.From(ctx)
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	var r cacheRule
	var err error
	a.store.View(func(tx *store.Tx) { r, err = a.findRule(tx, c.Scope, in.EcrRepositoryPrefix) })
	if err != nil {
		return nil, err
	}
	out := &ecr.ValidatePullThroughCacheRuleOutput{
		EcrRepositoryPrefix: &r.Prefix, UpstreamRegistryUrl: &r.Upstream, UpstreamRepositoryPrefix: &r.UpstreamPrefix, CredentialArn: orNil(r.Credential), CustomRoleArn: orNil(r.Role), RegistryId: new(c.Scope.Account), IsValid: true,
	}
	if err := a.reach(ctx, c.Scope, r); err != nil {
		out.IsValid, out.Failure = false, new(err.Error())
	}
	return out, nil
}
