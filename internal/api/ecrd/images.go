package ecrd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// tagged is an image with its tags.
type tagged struct {
	image
	Tags []string
}

// imagesOf is every image of a repository with its tags.
func (a *API) imagesOf(c *wire.Call, registry, name *string) (list []tagged, err error) {
	if err := registryOf(c, registry); err != nil {
		return nil, err
	}
	a.store.View(func(tx *store.Tx) { list, err = a.imagesIn(tx, c.Scope, aws.ToString(name)) })
	return list, err
}

func (a *API) imagesIn(tx *store.Tx, scope arn.Scope, name string) (list []tagged, err error) {
	if _, err := a.find(tx, scope, name); err != nil {
		return nil, err
	}
	within := imageKey(scope, name, "")
	names := map[string][]string{}
	for k, t := range a.tags.Scan(tx, within) {
		names[t.Digest] = append(names[t.Digest], strings.TrimPrefix(k, within))
	}
	for _, i := range a.images.Scan(tx, within) {
		list = append(list, tagged{i, names[i.Digest]})
	}
	return list, nil
}

func (t tagged) is(i types.ImageIdentifier) bool {
	return (i.ImageDigest == nil || *i.ImageDigest == t.Digest) && (i.ImageTag == nil || slices.Contains(t.Tags, *i.ImageTag)) && (i.ImageDigest != nil || i.ImageTag != nil)
}

func wants(status types.TagStatus, t tagged) bool {
	switch status {
	case types.TagStatusTagged:
		return len(t.Tags) > 0
	case types.TagStatusUntagged:
		return len(t.Tags) == 0
	}
	return true
}

// DescribeImages tells of images what was pushed.
func (a *API) DescribeImages(ctx context.Context, in *ecr.DescribeImagesInput) (*ecr.DescribeImagesOutput, error) {
	c := wire.From(ctx)
	name := aws.ToString(in.RepositoryName)
	all, err := a.imagesOf(c, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	var status types.TagStatus
	if in.Filter != nil {
		status = in.Filter.TagStatus
	}
	var list []tagged
	for _, t := range all {
		if wants(status, t) && (len(in.ImageIds) == 0 || slices.ContainsFunc(in.ImageIds, t.is)) {
			list = append(list, t)
		}
	}
	for _, i := range in.ImageIds {
		if !slices.ContainsFunc(all, func(t tagged) bool { return t.is(i) }) {
			return nil, &types.ImageNotFoundException{Message: new(fmt.Sprintf("The image with imageId {imageDigest:'%s', imageTag:'%s'} does not exist within the repository with name '%s' in the registry with id '%s'",
				orNull(i.ImageDigest), orNull(i.ImageTag), name, c.Scope.Account))}
		}
	}
	list, next, err := page(list, func(t tagged) string { return t.Digest }, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeImagesOutput{NextToken: next}
	for _, t := range list {
		d := types.ImageDetail{
			RegistryId: new(c.Scope.Account), RepositoryName: new(name), ImageDigest: new(t.Digest), ImageTags: t.Tags,
			ImageManifestMediaType: new(t.MediaType), ImageSizeInBytes: new(t.Size), ImagePushedAt: new(t.Pushed), ImageStatus: types.ImageStatusActive,
		}
		if t.ArtifactType != "" {
			d.ArtifactMediaType = new(t.ArtifactType)
		}
		if t.Subject != "" {
			d.SubjectManifestDigest = new(t.Subject)
		}
		if !t.Pulled.IsZero() {
			d.LastRecordedPullTime = new(t.Pulled)
		}
		out.ImageDetails = append(out.ImageDetails, d)
	}
	return out, nil
}

func orNull(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// ListImages lists the identifiers of images, one for each tag.
func (a *API) ListImages(ctx context.Context, in *ecr.ListImagesInput) (*ecr.ListImagesOutput, error) {
	c := wire.From(ctx)
	all, err := a.imagesOf(c, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	var status types.TagStatus
	if in.Filter != nil {
		status = in.Filter.TagStatus
	}
	var ids []types.ImageIdentifier
	for _, t := range all {
		if !wants(status, t) {
			continue
		}
		if len(t.Tags) == 0 {
			ids = append(ids, types.ImageIdentifier{ImageDigest: new(t.Digest)})
		}
		for _, name := range t.Tags {
			ids = append(ids, types.ImageIdentifier{ImageDigest: new(t.Digest), ImageTag: new(name)})
		}
	}
	ids, next, err := page(ids, func(i types.ImageIdentifier) string { return *i.ImageDigest + "|" + aws.ToString(i.ImageTag) }, in.NextToken, in.MaxResults)
	return &ecr.ListImagesOutput{ImageIds: ids, NextToken: next}, err
}

// BatchGetImage returns manifests.
func (a *API) BatchGetImage(ctx context.Context, in *ecr.BatchGetImageInput) (*ecr.BatchGetImageOutput, error) {
	c := wire.From(ctx)
	name := aws.ToString(in.RepositoryName)
	all, err := a.imagesOf(c, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	out := &ecr.BatchGetImageOutput{}
	for _, i := range in.ImageIds {
		at := slices.IndexFunc(all, func(t tagged) bool {
			return t.is(i) && (len(in.AcceptedMediaTypes) == 0 || slices.Contains(in.AcceptedMediaTypes, t.MediaType))
		})
		if at < 0 {
			out.Failures = append(out.Failures, imageFailure(i))
			continue
		}
		manifest, err := a.manifest(all[at].image)
		if err != nil {
			return nil, err
		}
		out.Images = append(out.Images, types.Image{
			RegistryId: new(c.Scope.Account), RepositoryName: new(name), ImageManifest: new(string(manifest)), ImageManifestMediaType: new(all[at].MediaType),
			ImageId: &types.ImageIdentifier{ImageDigest: new(all[at].Digest), ImageTag: i.ImageTag},
		})
	}
	return out, nil
}

// imageFailure is why no image is the one that is asked for.
func imageFailure(i types.ImageIdentifier) types.ImageFailure {
	f := types.ImageFailure{ImageId: &i, FailureCode: types.ImageFailureCodeImageNotFound, FailureReason: new("Requested image not found")}
	switch {
	case i.ImageDigest == nil && i.ImageTag == nil:
		f.FailureCode, f.FailureReason = types.ImageFailureCodeMissingDigestAndTag, new("Invalid request parameters: both tag and digest cannot be null")
	case i.ImageDigest != nil && !digestForm.MatchString(*i.ImageDigest):
		f.FailureCode, f.FailureReason = types.ImageFailureCodeInvalidImageDigest, new("Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	return f
}

// BatchDeleteImage removes tags, or images with all their tags.
func (a *API) BatchDeleteImage(ctx context.Context, in *ecr.BatchDeleteImageInput) (*ecr.BatchDeleteImageOutput, error) {
	c := wire.From(ctx)
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	name := aws.ToString(in.RepositoryName)
	out := &ecr.BatchDeleteImageOutput{}
	err := a.store.Update(func(tx *store.Tx) error {
		all, err := a.imagesIn(tx, c.Scope, name)
		if err != nil {
			return err
		}
		for _, i := range in.ImageIds {
			at := slices.IndexFunc(all, func(t tagged) bool { return t.is(i) })
			if at < 0 {
				out.Failures = append(out.Failures, imageFailure(i))
				continue
			}
			t := &all[at]
			if parents := indexesOf(all, t.Digest); parents != nil && (i.ImageDigest != nil || len(t.Tags) == 1) {
				out.Failures = append(out.Failures, types.ImageFailure{ImageId: &i, FailureCode: types.ImageFailureCodeImageReferencedByManifestList,
					FailureReason: new("Requested image referenced by manifest list: [" + strings.Join(parents, ", ") + "]")})
				continue
			}
			if i.ImageTag != nil && i.ImageDigest == nil {
				a.tags.Delete(tx, imageKey(c.Scope, name, *i.ImageTag))
				t.Tags = slices.DeleteFunc(slices.Clone(t.Tags), func(s string) bool { return s == *i.ImageTag })
				out.ImageIds = append(out.ImageIds, types.ImageIdentifier{ImageDigest: new(t.Digest), ImageTag: i.ImageTag})
				if len(t.Tags) > 0 {
					continue // the last tag takes the image with it, documented
				}
			}
			for _, tag := range t.Tags {
				out.ImageIds = append(out.ImageIds, types.ImageIdentifier{ImageDigest: new(t.Digest), ImageTag: new(tag)})
			}
			if len(t.Tags) == 0 && i.ImageTag == nil {
				out.ImageIds = append(out.ImageIds, types.ImageIdentifier{ImageDigest: new(t.Digest)})
			}
			a.remove(tx, c.Scope, name, *t)
			all = slices.Delete(all, at, at+1)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// remove takes an image and its tags from a repository.
func (a *API) remove(tx *store.Tx, scope arn.Scope, repo string, t tagged) {
	for _, tag := range t.Tags {
		a.tags.Delete(tx, imageKey(scope, repo, tag))
	}
	a.images.Delete(tx, imageKey(scope, repo, t.Digest))
}

// indexesOf are the indexes that refer to an image, which cannot go before them.
func indexesOf(all []tagged, digest string) (parents []string) {
	for _, t := range all {
		if slices.Contains(t.Children, digest) {
			parents = append(parents, t.Digest)
		}
	}
	return parents
}

// manifest reads an image's manifest.
func (a *API) manifest(i image) ([]byte, error) {
	r, err := a.blobs.Open(i.descriptor(), 0, -1)
	if err != nil {
		return nil, fmt.Errorf("reading manifest %s: %w", i.Digest, err)
	}
	defer r.Close()
	return io.ReadAll(r)
}
