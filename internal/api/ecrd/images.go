package ecrd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
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
func (a *API) imagesOf(c *wire.Call, name string) (list []tagged, err error) {
	a.store.View(func(tx *store.Tx) { list, err = a.imagesIn(tx, c, name) })
	return list, err
}

func (a *API) imagesIn(tx *store.Tx, c *wire.Call, name string) (list []tagged, err error) {
	if _, ok := a.repositories.Get(tx, repositoryKey(c.Scope, name)); !ok {
		return nil, notFound(c, name)
	}
	within := imageKey(c.Scope, name, "")
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
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	name := aws.ToString(in.RepositoryName)
	all, err := a.imagesOf(c, name)
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
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	all, err := a.imagesOf(c, aws.ToString(in.RepositoryName))
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
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	name := aws.ToString(in.RepositoryName)
	all, err := a.imagesOf(c, name)
	if err != nil {
		return nil, err
	}
	out := &ecr.BatchGetImageOutput{}
	for _, i := range in.ImageIds {
		at := slices.IndexFunc(all, func(t tagged) bool {
			return t.is(i) && (len(in.AcceptedMediaTypes) == 0 || slices.Contains(in.AcceptedMediaTypes, t.MediaType))
		})
		if at < 0 {
			out.Failures = append(out.Failures, failure(i))
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

// failure is why no image is the one that is asked for.
func failure(i types.ImageIdentifier) types.ImageFailure {
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
		all, err := a.imagesIn(tx, c, name)
		if err != nil {
			return err
		}
		for _, i := range in.ImageIds {
			at := slices.IndexFunc(all, func(t tagged) bool { return t.is(i) })
			if at < 0 {
				out.Failures = append(out.Failures, failure(i))
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
				a.tags.Delete(tx, imageKey(c.Scope, name, tag))
				out.ImageIds = append(out.ImageIds, types.ImageIdentifier{ImageDigest: new(t.Digest), ImageTag: new(tag)})
			}
			if len(t.Tags) == 0 && i.ImageTag == nil {
				out.ImageIds = append(out.ImageIds, types.ImageIdentifier{ImageDigest: new(t.Digest)})
			}
			a.images.Delete(tx, imageKey(c.Scope, name, t.Digest))
			all = slices.Delete(all, at, at+1)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
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

// manifestDocument is what ECR reads of a manifest or index.
type manifestDocument struct {
	MediaType    string                   `json:"mediaType"`
	ArtifactType string                   `json:"artifactType"`
	Config       *ociregistry.Descriptor  `json:"config"`
	Layers       []ociregistry.Descriptor `json:"layers"`
	Manifests    []ociregistry.Descriptor `json:"manifests"`
	Subject      *ociregistry.Descriptor  `json:"subject"`
	Annotations  map[string]string        `json:"annotations"`
}

// mostManifest is the largest manifest that is taken, in bytes: the
// distribution specification's floor for registries.
const mostManifest = 4 << 20

// PutImage stores a manifest, and its tag, of layers that are there.
func (a *API) PutImage(ctx context.Context, in *ecr.PutImageInput) (*ecr.PutImageOutput, error) {
	c := wire.From(ctx)
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	name, tag, manifest := aws.ToString(in.RepositoryName), aws.ToString(in.ImageTag), aws.ToString(in.ImageManifest)
	if in.ImageTag != nil && !imageTag.MatchString(tag) {
		return nil, invalid("imageTag '%s' must have at most 128 letters, digits and _.-, and not begin with . or -", tag)
	}
	if digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest))); in.ImageDigest != nil && *in.ImageDigest != digest {
		return nil, &types.ImageDigestDoesNotMatchException{Message: new(fmt.Sprintf("The image digest '%s' does not match the digest '%s' of the image manifest", *in.ImageDigest, digest))}
	}
	i, there, err := a.put(c.Scope, name, tag, []byte(manifest), aws.ToString(in.ImageManifestMediaType))
	if err != nil {
		return nil, err
	}
	if there {
		what := fmt.Sprintf("Image with digest '%s'", i.Digest)
		if tag != "" {
			what += fmt.Sprintf(" and tag '%s'", tag)
		}
		return nil, &types.ImageAlreadyExistsException{Message: new(fmt.Sprintf("%s already exists in the repository with name '%s' in registry with id '%s'", what, name, c.Scope.Account))}
	}
	return &ecr.PutImageOutput{Image: &types.Image{
		RegistryId: new(c.Scope.Account), RepositoryName: &name, ImageManifest: &manifest, ImageManifestMediaType: new(i.MediaType),
		ImageId: &types.ImageIdentifier{ImageDigest: new(i.Digest), ImageTag: in.ImageTag},
	}}, nil
}

// imageTag is the distribution specification's rule.
var imageTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// put stores a manifest for both faces; there says that nothing changed. A
// mediaType of "" is the manifest's own.
func (a *API) put(scope arn.Scope, repo, tag string, contents []byte, mediaType string) (i image, there bool, err error) {
	const manifest = "Invalid parameter at 'ImageManifest' failed to satisfy constraint: "
	var m manifestDocument
	if err := json.Unmarshal(contents, &m); err != nil {
		return i, false, &types.InvalidParameterException{Message: new(manifest + "'Invalid JSON syntax': " + err.Error())}
	}
	mediaType = cmp.Or(mediaType, m.MediaType)
	switch {
	case len(contents) > mostManifest:
		return i, false, &types.InvalidParameterException{Message: new(fmt.Sprintf("%s'at most %d bytes'", manifest, mostManifest))}
	case mediaType == "":
		return i, false, &types.InvalidParameterException{Message: new(manifest + "'it has no mediaType, and imageManifestMediaType is not given'")}
	case m.MediaType != "" && m.MediaType != mediaType:
		return i, false, &types.InvalidParameterException{Message: new(manifest + "'it is of type " + m.MediaType + ", and was sent as " + mediaType + "'")}
	}
	i = image{MediaType: mediaType, ArtifactType: m.ArtifactType, Annotations: m.Annotations, ManifestSize: int64(len(contents)), Pushed: a.clock.Now()}
	if i.ArtifactType == "" && m.Config != nil { // what it is, is said by its configuration
		i.ArtifactType = m.Config.MediaType
	}
	if m.Subject != nil {
		i.Subject = string(m.Subject.Digest)
	}
	digest, err := a.blobs.Put(contents)
	if err != nil {
		return i, false, err
	}
	i.Digest = string(digest)
	err = a.store.Update(func(tx *store.Tx) error {
		r, ok := a.repositories.Get(tx, repositoryKey(scope, repo))
		if !ok {
			return &types.RepositoryNotFoundException{Message: new(missingText(scope, repo))}
		}
		if err := a.checkReferences(tx, scope, repo, m, &i); err != nil {
			return err
		}
		key := imageKey(scope, repo, i.Digest)
		old, had := a.images.Get(tx, key)
		if had {
			i.Pushed, i.Pulled = old.Pushed, old.Pulled
		}
		there = had
		if tag != "" {
			have, ok := a.tags.Get(tx, imageKey(scope, repo, tag))
			if ok && have.Digest != i.Digest && r.fixed(tag) {
				return &types.ImageTagAlreadyExistsException{Message: new(fmt.Sprintf("The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the repository is immutable.", tag, repo))}
			}
			there = had && ok && have.Digest == i.Digest
			a.tags.Put(tx, imageKey(scope, repo, tag), tagRow{i.Digest})
		}
		a.images.Put(tx, key, i)
		return nil
	})
	return i, there, err
}

// checkReferences refuses a manifest whose parts were not pushed before it, and
// adds up its size.
func (a *API) checkReferences(tx *store.Tx, scope arn.Scope, repo string, m manifestDocument, i *image) error {
	const text = "%s with digests '[%s]' required for pushing image into repository with name '%s' in the registry with id '%s' do not exist"
	var missing []string
	parts := m.Layers
	if m.Config != nil {
		parts = append(slices.Clone(parts), *m.Config)
	}
	for _, p := range parts {
		if foreign(p.MediaType) {
			continue
		}
		l, ok := a.layers.Get(tx, imageKey(scope, repo, string(p.Digest)))
		if !ok {
			missing = append(missing, string(p.Digest))
		}
		i.Size += l.Size
	}
	if missing != nil {
		return &types.LayersNotFoundException{Message: new(fmt.Sprintf(text, "Layers", strings.Join(missing, ", "), repo, scope.Account))}
	}
	for _, child := range m.Manifests {
		c, ok := a.images.Get(tx, imageKey(scope, repo, string(child.Digest)))
		if !ok {
			missing = append(missing, string(child.Digest))
		}
		i.Size += c.Size
		i.Children = append(i.Children, string(child.Digest))
	}
	if missing != nil {
		return &types.ReferencedImagesNotFoundException{Message: new(fmt.Sprintf(text, "Images", strings.Join(missing, ", "), repo, scope.Account))}
	}
	return nil
}

// foreign are layers that are not pushed: clients fetch them where they are.
func foreign(mediaType string) bool {
	return strings.Contains(mediaType, ".nondistributable.") || mediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
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
