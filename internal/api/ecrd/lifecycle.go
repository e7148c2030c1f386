package ecrd

import (
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/store"
	"serin/internal/wire"
)

// lifecycle is a repository's policy.
type lifecycle struct {
	Text      string
	Put       time.Time // stage time
	Evaluated time.Time // stage time of the last evaluation, zero before the first
}

// evaluateEvery is the stage time from a policy to its evaluation, and on to the
// next: ECR's own is within 24 hours, documented.
const evaluateEvery = 24 * time.Hour

func (l lifecycle) due() time.Time {
	if l.Evaluated.IsZero() {
		return l.Put.Add(evaluateEvery)
	}
	return l.Evaluated.Add(evaluateEvery)
}

// evaluatedAt is the epoch before the first evaluation, as observed.
func (l lifecycle) evaluatedAt() *time.Time {
	if l.Evaluated.IsZero() {
		return new(time.Unix(0, 0))
	}
	return new(l.Evaluated)
}

// preview is what a policy would do: the images as they were when it was asked.
type preview struct {
	Text   string
	Images []expiry
}

// readLifecycle validates a policy.
func readLifecycle(text string) ([]lifecycleRule, error) {
	refused := func(why string) error {
		return &types.InvalidParameterException{Message: new("Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: '" + why + "'")}
	}
	if n := utf8.RuneCountInString(text); n < leastLifecycleText {
		return nil, refused(fmt.Sprintf("Member must have length greater than or equal to %d", leastLifecycleText))
	} else if n > mostLifecycleText {
		return nil, refused(fmt.Sprintf("Member must have length less than or equal to %d", mostLifecycleText))
	}
	rules, err := parseRules(text)
	if err != nil {
		return nil, refused(err.Error())
	}
	return rules, nil
}

// PutLifecyclePolicy replaces a repository's lifecycle policy.
func (a *API) PutLifecyclePolicy(ctx context.Context, in *ecr.PutLifecyclePolicyInput) (*ecr.PutLifecyclePolicyOutput, error) {
	l, err := a.newLifecycle(aws.ToString(in.LifecyclePolicyText))
	if err != nil {
		return nil, err
	}
	err = a.change(ctx, in.RegistryId, in.RepositoryName, func(r *repository) error {
		if r.Lifecycle.Text != l.Text { // the same again does not put the evaluation off
			r.Lifecycle = l
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutLifecyclePolicyOutput{LifecyclePolicyText: &l.Text, RegistryId: new(wire.From(ctx).Scope.Account), RepositoryName: in.RepositoryName}, nil
}

// newLifecycle is a policy that is put now.
func (a *API) newLifecycle(text string) (lifecycle, error) {
	rules, err := readLifecycle(text)
	if err != nil {
		return lifecycle{}, err
	}
	text, err = policyText(rules)
	return lifecycle{Text: text, Put: a.clock.Now()}, err
}

func noLifecycle(c *wire.Call, name *string) error {
	return &types.LifecyclePolicyNotFoundException{Message: new(fmt.Sprintf("Lifecycle policy does not exist for the repository with name '%s' in the registry with id '%s'", aws.ToString(name), c.Scope.Account))}
}

// GetLifecyclePolicy returns a repository's lifecycle policy.
func (a *API) GetLifecyclePolicy(ctx context.Context, in *ecr.GetLifecyclePolicyInput) (*ecr.GetLifecyclePolicyOutput, error) {
	c := wire.From(ctx)
	r, err := a.repository(c, in.RegistryId, in.RepositoryName)
	switch {
	case err != nil:
		return nil, err
	case r.Lifecycle.Text == "":
		return nil, noLifecycle(c, in.RepositoryName)
	}
	return &ecr.GetLifecyclePolicyOutput{LifecyclePolicyText: &r.Lifecycle.Text, LastEvaluatedAt: r.Lifecycle.evaluatedAt(), RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName}, nil
}

// DeleteLifecyclePolicy removes a repository's lifecycle policy.
func (a *API) DeleteLifecyclePolicy(ctx context.Context, in *ecr.DeleteLifecyclePolicyInput) (*ecr.DeleteLifecyclePolicyOutput, error) {
	c := wire.From(ctx)
	out := &ecr.DeleteLifecyclePolicyOutput{RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName}
	err := a.change(ctx, in.RegistryId, in.RepositoryName, func(r *repository) error {
		if r.Lifecycle.Text == "" {
			return noLifecycle(c, in.RepositoryName)
		}
		out.LifecyclePolicyText, out.LastEvaluatedAt = new(r.Lifecycle.Text), r.Lifecycle.evaluatedAt()
		r.Lifecycle = lifecycle{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// StartLifecyclePolicyPreview evaluates a policy, the repository's own if none is
// given, and deletes nothing.
func (a *API) StartLifecyclePolicyPreview(ctx context.Context, in *ecr.StartLifecyclePolicyPreviewInput) (*ecr.StartLifecyclePolicyPreviewOutput, error) {
	c := wire.From(ctx)
	if in.LifecyclePolicyText != nil {
		if _, err := readLifecycle(*in.LifecyclePolicyText); err != nil {
			return nil, err
		}
	}
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	name := aws.ToString(in.RepositoryName)
	var text string
	err := a.store.Update(func(tx *store.Tx) error {
		r, err := a.find(tx, c.Scope, name)
		if err != nil {
			return err
		}
		if text = r.Lifecycle.Text; in.LifecyclePolicyText != nil {
			text = *in.LifecyclePolicyText
		}
		if text == "" {
			return noLifecycle(c, in.RepositoryName)
		}
		gone, err := a.evaluate(tx, c.Scope, name, text)
		a.previews.Put(tx, repositoryKey(c.Scope, name), preview{text, gone})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ecr.StartLifecyclePolicyPreviewOutput{LifecyclePolicyText: &text, RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName, Status: types.LifecyclePolicyPreviewStatusInProgress}, nil
}

// evaluate says which images of a repository go by a policy at the present stage
// time.
func (a *API) evaluate(tx *store.Tx, scope arn.Scope, name, text string) ([]expiry, error) {
	rules, err := parseRules(text)
	if err != nil { // validated when it was written
		return nil, fmt.Errorf("repository %s has a broken lifecycle policy: %w", name, err)
	}
	images, err := a.imagesIn(tx, scope, name)
	if err != nil {
		return nil, err
	}
	return expire(rules, images, a.clock.Now()), nil
}

// GetLifecyclePolicyPreview returns the last preview's images.
func (a *API) GetLifecyclePolicyPreview(ctx context.Context, in *ecr.GetLifecyclePolicyPreviewInput) (*ecr.GetLifecyclePolicyPreviewOutput, error) {
	c := wire.From(ctx)
	if _, err := a.repository(c, in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	if in.ImageIds != nil && (in.MaxResults != nil || in.NextToken != nil) {
		return nil, invalid("maxResults and nextToken cannot be given with imageIds")
	}
	var p preview
	var ok bool
	a.store.View(func(tx *store.Tx) { p, ok = a.previews.Get(tx, repositoryKey(c.Scope, *in.RepositoryName)) })
	if !ok {
		return nil, &types.LifecyclePolicyPreviewNotFoundException{Message: new(fmt.Sprintf("Lifecycle policy preview does not exist for the repository with name '%s' in the registry with id '%s'", *in.RepositoryName, c.Scope.Account))}
	}
	var status types.TagStatus
	if in.Filter != nil {
		status = in.Filter.TagStatus
	}
	out := &ecr.GetLifecyclePolicyPreviewOutput{
		LifecyclePolicyText: &p.Text, RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName, Status: types.LifecyclePolicyPreviewStatusComplete,
		Summary: &types.LifecyclePolicyPreviewSummary{ExpiringImageTotalCount: new(int32(len(p.Images)))},
	}
	var list []expiry
	for _, e := range p.Images {
		if wants(status, e.tagged) && (in.ImageIds == nil || slices.ContainsFunc(in.ImageIds, e.is)) {
			list = append(list, e)
		}
	}
	list, next, err := page(list, func(e expiry) string { return fmt.Sprintf("%09d|%020d|%s", e.Rule, e.Pushed.UnixNano(), e.Digest) }, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out.NextToken = next
	for _, e := range list {
		out.PreviewResults = append(out.PreviewResults, types.LifecyclePolicyPreviewResult{
			ImageDigest: new(e.Digest), ImageTags: e.Tags, ImagePushedAt: new(e.Pushed), AppliedRulePriority: new(int32(e.Rule)),
			Action: &types.LifecyclePolicyRuleAction{Type: types.ImageActionTypeExpire}, StorageClass: types.LifecyclePolicyStorageClassStandard,
		})
	}
	return out, nil
}

// sweepAgain is the stage time after which a policy that could not be performed is
// tried again.
const sweepAgain = time.Hour

// sweep performs the policies that are due, and returns when the next is.
func (a *API) sweep() (next time.Time) {
	now := a.clock.Now()
	var due []string
	a.store.View(func(tx *store.Tx) {
		for key, r := range a.repositories.Scan(tx, "") {
			if at := r.Lifecycle.due(); r.Lifecycle.Text == "" {
				continue
			} else if !at.After(now) {
				due = append(due, key)
			} else {
				next = clock.Sooner(next, at)
			}
		}
	})
	for _, key := range due {
		again := now.Add(evaluateEvery)
		if err := a.enforce(key, now); err != nil {
			a.log.Error("performing a lifecycle policy", "repository", key, "error", err)
			again = now.Add(sweepAgain)
		}
		next = clock.Sooner(next, again)
	}
	return next
}

// enforce deletes what a repository's policy expires, and what refers to an image
// that goes: signatures and the like go within a day of what they are of,
// documented.
func (a *API) enforce(key string, now time.Time) error {
	return a.store.Update(func(tx *store.Tx) error {
		r, ok := a.repositories.Get(tx, key)
		if !ok || r.Lifecycle.Text == "" || r.Lifecycle.due().After(now) {
			return nil // changed meanwhile
		}
		scope, _ := arn.ParseKey(key)
		images, err := a.imagesIn(tx, scope, r.Name)
		if err != nil {
			return err
		}
		expired, err := a.evaluate(tx, scope, r.Name, r.Lifecycle.Text)
		if err != nil {
			return err
		}
		gone := withReferrers(expired, images)
		for _, t := range gone {
			a.remove(tx, scope, r.Name, t)
		}
		r.Lifecycle.Evaluated = now
		a.repositories.Put(tx, key, r)
		a.log.Info("a lifecycle policy was performed", "repository", r.Name, "expired", len(gone))
		return nil
	})
}

// withReferrers adds to the images that go what refers to them, and to that in
// turn; what an index that stays refers to stays.
func withReferrers(expired []expiry, images []tagged) (gone []tagged) {
	going := map[string]bool{}
	for _, e := range expired {
		gone = append(gone, e.tagged)
		going[e.Digest] = true
	}
	kept := map[string]bool{}
	for _, t := range images {
		if !going[t.Digest] {
			for _, child := range t.Children {
				kept[child] = true
			}
		}
	}
	for more := true; more; {
		more = false
		for _, t := range images {
			if going[t.Subject] && !going[t.Digest] && !kept[t.Digest] {
				gone, more = append(gone, t), true
				going[t.Digest] = true
			}
		}
	}
	return gone
}
