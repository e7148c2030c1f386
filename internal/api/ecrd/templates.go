package ecrd

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// template is what repositories get that are made by a push or by the pull
// through cache.
type template struct {
	Prefix           string // or root
	AppliedFor       []types.RCTAppliedFor
	Description      string
	Settings         repository // mutability and encryption
	Policy           string
	Lifecycle        string
	Tags             []tags.Tag
	Role             string
	Created, Updated time.Time
}

// plainRepository is what a repository has that nobody says anything of.
func plainRepository() repository {
	return repository{Mutability: string(types.ImageTagMutabilityMutable), Encryption: string(types.EncryptionTypeAes256)}
}

// root is the prefix of what has no other.
const root = "ROOT"

// covers says how much of a repository's name a prefix has: a slash is implied at
// its end, documented. The longest wins, and root has less than any.
func covers(prefix, repo string) (length int, ok bool) {
	if prefix == root {
		return 0, true
	}
	prefix = strings.TrimSuffix(prefix, "/") + "/"
	return len(prefix), strings.HasPrefix(repo, prefix)
}

// closest is the row whose prefix covers the most of a repository's name. prefix
// says a row's, and false of a row that does not count.
func closest[R any](rows iter.Seq2[string, R], repo string, prefix func(R) (string, bool)) (best R, ok bool) {
	longest := -1
	for _, row := range rows {
		p, counts := prefix(row)
		if n, covered := covers(p, repo); counts && covered && n > longest {
			best, ok, longest = row, true, n
		}
	}
	return best, ok
}

// templateFor is the template that a repository is made by, for a reason.
func (a *API) templateFor(tx *store.Tx, scope arn.Scope, repo string, why types.RCTAppliedFor) (template, bool) {
	return closest(a.templates.Scan(tx, scope.Key("")), repo, func(t template) (string, bool) { return t.Prefix, slices.Contains(t.AppliedFor, why) })
}

// makeFrom makes a repository by a template.
func (a *API) makeFrom(scope arn.Scope, name string, t template) error {
	if err := checkName(name); err != nil {
		return err
	}
	resource := scope.For("ecr", "repository/"+name).String()
	r := t.Settings
	r.Name, r.Created, r.Policy = name, a.clock.Now(), t.Policy
	if t.Role == "" && len(t.Tags) > 0 {
		return invalid("the repository creation template '%s' has tags and no customRoleArn, which they need", t.Prefix)
	}
	if t.Role != "" {
		if err := a.mayMake(scope, t, resource); err != nil {
			return invalid("the customRoleArn of the repository creation template '%s': %s", t.Prefix, err)
		}
	}
	if t.Lifecycle != "" {
		r.Lifecycle = lifecycle{Text: t.Lifecycle, Put: r.Created}
	}
	return a.store.Update(func(tx *store.Tx) error {
		key := repositoryKey(scope, name)
		if _, there := a.repositories.Get(tx, key); there {
			return nil // two pushes at once
		}
		a.repositories.Put(tx, key, r)
		a.labels.Set(tx, resource, t.Tags)
		return nil
	})
}

// mayMake asks whether a template's role may make a repository.
func (a *API) mayMake(scope arn.Scope, t template, resource string) error {
	as, err := a.session(t.Role)
	if err != nil {
		return err
	}
	call := &wire.Call{Service: "ecr", Operation: "CreateRepository", Scope: scope, Principal: as, RequestID: id.UUID()}
	checks := []wire.Check{{Action: "ecr:CreateRepository", Resource: resource}}
	if len(t.Tags) > 0 {
		checks = append(checks, wire.Check{Action: "ecr:TagResource", Resource: resource})
	}
	return a.authorize(context.Background(), call, checks)
}

// prefixForm is that of templates and cache rules.
var (
	prefixForm = regexp.MustCompile(`^((?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*/?|ROOT)$`)
	roleARN    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::(\d{12}):role/.+$`)
)

func checkRole(scope arn.Scope, role string) error {
	if m := roleARN.FindStringSubmatch(role); role != "" && (m == nil || m[1] != scope.Account) {
		return invalid("customRoleArn '%s' must be the ARN of a role of account %s", role, scope.Account)
	}
	return nil
}

// templateInput is what CreateRepositoryCreationTemplate and the update of one
// have in common; a nil member is not given.
type templateInput struct {
	AppliedFor  []types.RCTAppliedFor
	Description *string
	Encryption  *types.EncryptionConfigurationForRepositoryCreationTemplate
	Mutability  types.ImageTagMutability
	Excluded    []types.ImageTagMutabilityExclusionFilter
	Policy      *string
	Lifecycle   *string
	Tags        []types.Tag
	Role        *string
}

// apply validates what is given and puts it into the template.
func (in templateInput) apply(scope arn.Scope, t *template) error {
	for _, f := range in.AppliedFor {
		if !slices.Contains(f.Values(), f) || f == types.RCTAppliedForReplication {
			return invalid("appliedFor must be CREATE_ON_PUSH or PULL_THROUGH_CACHE, got '%s'; nothing is replicated here", f)
		}
	}
	if in.AppliedFor != nil {
		t.AppliedFor = in.AppliedFor
	}
	if in.Description != nil {
		if len(*in.Description) > 256 {
			return invalid("description can have at most 256 characters")
		}
		t.Description = *in.Description
	}
	if e := in.Encryption; e != nil {
		if !slices.Contains(e.EncryptionType.Values(), e.EncryptionType) {
			return invalid("encryptionConfiguration.encryptionType must be one of %v, got '%s'", e.EncryptionType.Values(), e.EncryptionType)
		}
		t.Settings.Encryption = string(e.EncryptionType)
	}
	if in.Mutability != "" || in.Excluded != nil {
		if err := t.Settings.setMutability(cmp.Or(in.Mutability, types.ImageTagMutability(t.Settings.Mutability)), in.Excluded); err != nil {
			return err
		}
	}
	if in.Policy != nil {
		if *in.Policy != "" {
			if err := checkRepositoryPolicy(*in.Policy); err != nil {
				return err
			}
		}
		t.Policy = *in.Policy
	}
	if in.Lifecycle != nil {
		t.Lifecycle = ""
		if *in.Lifecycle != "" {
			rules, err := readLifecycle(*in.Lifecycle)
			if err != nil {
				return err
			}
			if t.Lifecycle, err = policyText(rules); err != nil {
				return err
			}
		}
	}
	if in.Tags != nil {
		list, err := tagsIn(in.Tags)
		if err != nil {
			return err
		}
		t.Tags = list
	}
	if in.Role != nil {
		if err := checkRole(scope, *in.Role); err != nil {
			return err
		}
		t.Role = *in.Role
	}
	return nil
}

func (t template) view() *types.RepositoryCreationTemplate {
	return &types.RepositoryCreationTemplate{
		Prefix: new(t.Prefix), AppliedFor: t.AppliedFor, Description: new(t.Description), CreatedAt: new(t.Created), UpdatedAt: new(t.Updated),
		ImageTagMutability: types.ImageTagMutability(t.Settings.Mutability), ImageTagMutabilityExclusionFilters: t.Settings.filters(),
		EncryptionConfiguration: &types.EncryptionConfigurationForRepositoryCreationTemplate{EncryptionType: types.EncryptionType(t.Settings.Encryption)},
		RepositoryPolicy:        new(t.Policy), LifecyclePolicy: new(t.Lifecycle), ResourceTags: tags.Out[types.Tag](t.Tags), CustomRoleArn: orNil(t.Role),
	}
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// CreateRepositoryCreationTemplate makes a template.
func (a *API) CreateRepositoryCreationTemplate(ctx context.Context, in *ecr.CreateRepositoryCreationTemplateInput) (*ecr.CreateRepositoryCreationTemplateOutput, error) {
	c, prefix, now := wire.From(ctx), aws.ToString(in.Prefix), a.clock.Now()
	if !prefixForm.MatchString(prefix) || len(prefix) > 256 {
		return nil, invalid("prefix '%s' must be %s, or a repository's name of at most 256 characters", prefix, root)
	}
	if len(in.AppliedFor) == 0 {
		return nil, invalid("appliedFor must be given")
	}
	t := template{Prefix: prefix, Created: now, Updated: now, Settings: plainRepository()}
	given := templateInput{in.AppliedFor, in.Description, in.EncryptionConfiguration, in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters, in.RepositoryPolicy, in.LifecyclePolicy, in.ResourceTags, in.CustomRoleArn}
	if err := given.apply(c.Scope, &t); err != nil {
		return nil, err
	}
	err := a.store.Update(func(tx *store.Tx) error {
		same := strings.TrimSuffix(prefix, "/")
		_, there := a.templates.Get(tx, c.Scope.Key(same))
		if _, slashed := a.templates.Get(tx, c.Scope.Key(same+"/")); there || slashed {
			return &types.TemplateAlreadyExistsException{Message: new(fmt.Sprintf("The repository creation template with prefix '%s' already exists. Specify a unique prefix and try again.", prefix))}
		}
		a.templates.Put(tx, c.Scope.Key(prefix), t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.CreateRepositoryCreationTemplateOutput{RegistryId: new(c.Scope.Account), RepositoryCreationTemplate: t.view()}, nil
}

// findTemplate reads a template, or says that there is none.
func (a *API) findTemplate(tx *store.Tx, scope arn.Scope, prefix *string) (template, error) {
	t, ok := a.templates.Get(tx, scope.Key(aws.ToString(prefix)))
	if !ok {
		return t, &types.TemplateNotFoundException{Message: new(fmt.Sprintf("The repository creation template with prefix '%s' can't be found. Verify the registry ID and prefix and try again.", aws.ToString(prefix)))}
	}
	return t, nil
}

// UpdateRepositoryCreationTemplate changes a template; repositories that were
// made by it stay as they are.
func (a *API) UpdateRepositoryCreationTemplate(ctx context.Context, in *ecr.UpdateRepositoryCreationTemplateInput) (*ecr.UpdateRepositoryCreationTemplateOutput, error) {
	c := wire.From(ctx)
	given := templateInput{in.AppliedFor, in.Description, in.EncryptionConfiguration, in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters, in.RepositoryPolicy, in.LifecyclePolicy, in.ResourceTags, in.CustomRoleArn}
	var t template
	err := a.store.Update(func(tx *store.Tx) (err error) {
		if t, err = a.findTemplate(tx, c.Scope, in.Prefix); err != nil {
			return err
		}
		if err := given.apply(c.Scope, &t); err != nil {
			return err
		}
		t.Updated = a.clock.Now()
		a.templates.Put(tx, c.Scope.Key(t.Prefix), t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.UpdateRepositoryCreationTemplateOutput{RegistryId: new(c.Scope.Account), RepositoryCreationTemplate: t.view()}, nil
}

// DeleteRepositoryCreationTemplate removes a template and returns it.
func (a *API) DeleteRepositoryCreationTemplate(ctx context.Context, in *ecr.DeleteRepositoryCreationTemplateInput) (*ecr.DeleteRepositoryCreationTemplateOutput, error) {
	c := wire.From(ctx)
	var t template
	err := a.store.Update(func(tx *store.Tx) (err error) {
		if t, err = a.findTemplate(tx, c.Scope, in.Prefix); err == nil {
			a.templates.Delete(tx, c.Scope.Key(t.Prefix))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRepositoryCreationTemplateOutput{RegistryId: new(c.Scope.Account), RepositoryCreationTemplate: t.view()}, nil
}

// DescribeRepositoryCreationTemplates lists templates, all or those named; the
// operation has no error for one that is not there.
func (a *API) DescribeRepositoryCreationTemplates(ctx context.Context, in *ecr.DescribeRepositoryCreationTemplatesInput) (*ecr.DescribeRepositoryCreationTemplatesOutput, error) {
	c := wire.From(ctx)
	var rows []template
	a.store.View(func(tx *store.Tx) {
		for _, t := range a.templates.Scan(tx, c.Scope.Key("")) {
			if in.Prefixes == nil || slices.Contains(in.Prefixes, t.Prefix) {
				rows = append(rows, t)
			}
		}
	})
	rows, next, err := page(rows, func(t template) string { return t.Prefix }, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeRepositoryCreationTemplatesOutput{NextToken: next, RegistryId: new(c.Scope.Account)}
	for _, t := range rows {
		out.RepositoryCreationTemplates = append(out.RepositoryCreationTemplates, *t.view())
	}
	return out, nil
}
