package ecrd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/registry"
	"serin/internal/store"
	"serin/internal/wire"
)

// manifestDocument is what ECR reads of a manifest or index.
type manifestDocument struct {
	MediaType    string                   `json:"mediaType"`
	ArtifactType string                   `json:"artifactType"`
	Config       *ociregistry.Descriptor  `json:"config"`
	Layers       []ociregistry.Descriptor `json:"layers"`
	Manifests    []ociregistry.Descriptor `json:"manifests"`
	Subject      *ociregistry.Descriptor  `json:"subject"`
	Annotations  map[string]string        `json:"annotations"`
	Blobs        []ociregistry.Descriptor `json:"blobs"`    // of OCI's artifact manifest
	FSLayers     []fsLayer                `json:"fsLayers"` // of Docker's schema 1
}

type fsLayer struct {
	BlobSum ociregistry.Digest `json:"blobSum"`
}

// parts are the blobs that a manifest refers to.
func (m manifestDocument) parts() []ociregistry.Descriptor {
	parts := slices.Concat(m.Layers, m.Blobs)
	if m.Config != nil {
		parts = append(parts, *m.Config)
	}
	for _, l := range m.FSLayers {
		parts = append(parts, ociregistry.Descriptor{Digest: l.BlobSum})
	}
	return parts
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
	name, tag, contents := aws.ToString(in.RepositoryName), aws.ToString(in.ImageTag), aws.ToString(in.ImageManifest)
	if in.ImageTag != nil && !imageTag.MatchString(tag) {
		return nil, invalid("imageTag '%s' must have at most 300 letters, digits and _.-, and not begin with . or -", tag)
	}
	if in.ImageDigest != nil && *in.ImageDigest != digestOf([]byte(contents)) {
		return nil, &types.ImageDigestDoesNotMatchException{Message: new(otherDigest(c.Scope, name, *in.ImageDigest))}
	}
	i, there, err := a.put(c.Scope, name, tag, []byte(contents), aws.ToString(in.ImageManifestMediaType), time.Time{})
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
		RegistryId: new(c.Scope.Account), RepositoryName: &name, ImageManifest: &contents, ImageManifestMediaType: new(i.MediaType),
		ImageId: &types.ImageIdentifier{ImageDigest: new(i.Digest), ImageTag: in.ImageTag},
	}}, nil
}

func digestOf(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

// otherDigest is the text, observed, about an image sent under another's digest.
func otherDigest(scope arn.Scope, repo, digest string) string {
	return fmt.Sprintf("The image with digest '%s' in repository '%s' and registry ID '%s' does not match the image digest that Amazon ECR has calculated.", digest, repo, scope.Account)
}

// imageTag is the distribution specification's rule with ECR's length.
var imageTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,299}$`)

// badManifest is how ECR begins to say what is wrong with a manifest, observed.
const (
	badManifest = "Invalid parameter at 'ImageManifest' failed to satisfy constraint: "
	invalidJSON = badManifest + "'Invalid JSON syntax'"
)

// put stores a manifest for both faces; there says that nothing changed. A
// mediaType of "" is the manifest's own. checked is when the tag was compared with
// the registry behind the repository, if there is one.
func (a *API) put(scope arn.Scope, repo, tag string, contents []byte, mediaType string, checked time.Time) (i image, there bool, err error) {
	var m manifestDocument
	if err := json.Unmarshal(contents, &m); err != nil {
		return i, false, &types.InvalidParameterException{Message: new(invalidJSON)}
	}
	mediaType = cmp.Or(mediaType, m.MediaType)
	switch {
	case len(contents) > mostManifest:
		return i, false, &types.InvalidParameterException{Message: new(fmt.Sprintf("%s'at most %d bytes'", badManifest, mostManifest))}
	case mediaType == "":
		return i, false, &types.InvalidParameterException{Message: new(badManifest + "'it has no mediaType, and imageManifestMediaType is not given'")}
	case m.MediaType != "" && m.MediaType != mediaType:
		return i, false, &types.InvalidParameterException{Message: new(badManifest + "'it is of type " + m.MediaType + ", and was sent as " + mediaType + "'")}
	}
	i = image{MediaType: mediaType, ArtifactType: m.ArtifactType, Annotations: m.Annotations, ManifestSize: int64(len(contents)), Pushed: a.clock.Now()}
	if i.ArtifactType == "" && m.Config != nil { // what it is, is said by its configuration
		i.ArtifactType = m.Config.MediaType
	}
	if m.Subject != nil {
		i.Subject = string(m.Subject.Digest)
	}
	digest, err := a.blobs.Put(contents)
	if registry.Full(err) {
		return i, false, &types.LimitExceededException{Message: new(err.Error())}
	}
	if err != nil {
		return i, false, err
	}
	i.Digest = string(digest)
	err = a.store.Update(func(tx *store.Tx) error {
		r, err := a.find(tx, scope, repo)
		if err != nil {
			return err
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
				return &types.ImageTagAlreadyExistsException{Message: new(fmt.Sprintf("The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the tag is immutable.", tag, repo))}
			}
			there = had && ok && have.Digest == i.Digest
			a.tags.Put(tx, imageKey(scope, repo, tag), tagRow{i.Digest, checked})
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
	for _, p := range m.parts() {
		key := imageKey(scope, repo, string(p.Digest))
		l, ok := a.layers.Get(tx, key)
		if !ok && foreign(p.MediaType) {
			continue
		}
		if !ok {
			missing = append(missing, string(p.Digest))
			continue
		}
		if !l.Named {
			l.Named = true
			a.layers.Put(tx, key, l)
		}
		i.Size += l.Size
		i.Layers = append(i.Layers, string(p.Digest))
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

// foreign are layers that need not be pushed: clients fetch them where they are.
func foreign(mediaType string) bool {
	return strings.Contains(mediaType, ".nondistributable.") || mediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}
