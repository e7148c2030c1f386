package ecrd

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/registry"
	"serin/internal/wire"
)

// The layer operations of the JSON API: what the distribution protocol does at
// /v2/, for clients that speak only AWS. Uploads and layers are the same.
const (
	partSize    = 10 << 20  // what clients are told to send at once, in bytes
	leastPart   = 5 << 20   // of every part but the last, documented
	mostPart    = 20971520  // documented with UploadLayerPart
	urlLife     = time.Hour // of a download
	mostDigests = 100       // of BatchCheckLayerAvailability, documented
)

// DownloadPath is where ServeDownload is, in the place of S3.
const DownloadPath = "/layer-bucket/"

// held checks the registry and the repository, and finds a layer in it.
func (a *API) held(c *wire.Call, registryID, name *string, digest string) (desc ociregistry.Descriptor, ok bool, err error) {
	if _, err := a.repository(c, registryID, name); err != nil {
		return desc, false, err
	}
	desc, unknown := a.present(c.Scope, *name, ociregistry.Digest(digest))
	return desc, unknown == nil, nil
}

// BatchCheckLayerAvailability says which layers a repository has.
func (a *API) BatchCheckLayerAvailability(ctx context.Context, in *ecr.BatchCheckLayerAvailabilityInput) (*ecr.BatchCheckLayerAvailabilityOutput, error) {
	if n := len(in.LayerDigests); n < 1 || n > mostDigests {
		return nil, invalid("layerDigests must have 1 to %d digests, got %d", mostDigests, n)
	}
	out := &ecr.BatchCheckLayerAvailabilityOutput{}
	for _, digest := range in.LayerDigests {
		l, ok, err := a.held(wire.From(ctx), in.RegistryId, in.RepositoryName, digest)
		switch {
		case err != nil:
			return nil, err
		case digest == "":
			out.Failures = append(out.Failures, types.LayerFailure{LayerDigest: &digest, FailureCode: types.LayerFailureCodeMissingLayerDigest, FailureReason: new("The layer digest is empty")})
		case !digestForm.MatchString(digest):
			out.Failures = append(out.Failures, types.LayerFailure{LayerDigest: &digest, FailureCode: types.LayerFailureCodeInvalidLayerDigest, FailureReason: new("The layer digest is not of the form ALGORITHM:HEX")})
		case ok:
			out.Layers = append(out.Layers, types.Layer{LayerDigest: &digest, LayerAvailability: types.LayerAvailabilityAvailable, LayerSize: &l.Size})
		default:
			out.Layers = append(out.Layers, types.Layer{LayerDigest: &digest, LayerAvailability: types.LayerAvailabilityUnavailable})
		}
	}
	return out, nil
}

// InitiateLayerUpload begins an upload.
func (a *API) InitiateLayerUpload(ctx context.Context, in *ecr.InitiateLayerUploadInput) (*ecr.InitiateLayerUploadOutput, error) {
	c := wire.From(ctx)
	if _, _, err := a.held(c, in.RegistryId, in.RepositoryName, ""); err != nil {
		return nil, err
	}
	u, err := a.blobs.Start(c.Scope.Key(*in.RepositoryName))
	if err != nil {
		return nil, err
	}
	return &ecr.InitiateLayerUploadOutput{UploadId: new(u.ID()), PartSize: new(int64(partSize))}, nil
}

func noUpload(c *wire.Call, name, uploadID *string) error {
	return &types.UploadNotFoundException{Message: new(fmt.Sprintf("There is no upload with id '%s' in the repository with name '%s' in the registry with id '%s'", aws.ToString(uploadID), aws.ToString(name), c.Scope.Account))}
}

// UploadLayerPart adds the part that follows the one before it.
func (a *API) UploadLayerPart(ctx context.Context, in *ecr.UploadLayerPartInput) (*ecr.UploadLayerPartOutput, error) {
	c := wire.From(ctx)
	if _, _, err := a.held(c, in.RegistryId, in.RepositoryName, ""); err != nil {
		return nil, err
	}
	first, last := aws.ToInt64(in.PartFirstByte), aws.ToInt64(in.PartLastByte)
	switch n := int64(len(in.LayerPartBlob)); {
	case in.PartFirstByte == nil || first < 0:
		return nil, invalid("partFirstByte must be given and not be negative")
	case in.PartLastByte == nil || last-first+1 != n:
		return nil, invalid("partLastByte must be that of the part: %d bytes from byte %d on end at byte %d, got %d", n, first, first+n-1, last)
	case n < 1 || n > mostPart:
		return nil, invalid("layerPartBlob must have 1 to %d bytes, got %d", mostPart, n)
	}
	u, err := a.blobs.Resume(c.Scope.Key(*in.RepositoryName), aws.ToString(in.UploadId), -1)
	if err == nil {
		err = u.WritePart(first, in.LayerPartBlob)
	}
	switch {
	case errors.Is(err, ociregistry.ErrBlobUploadUnknown):
		return nil, noUpload(c, in.RepositoryName, in.UploadId)
	case errors.Is(err, ociregistry.ErrRangeInvalid):
		return nil, &types.InvalidLayerPartException{
			Message:    new(fmt.Sprintf("First byte of the layer part is %d instead of %d", first, u.Size())), // observed
			RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName, UploadId: in.UploadId, LastValidByteReceived: new(u.Size() - 1),
		}
	case registry.Full(err):
		return nil, &types.LimitExceededException{Message: new(err.Error())}
	case err != nil:
		return nil, err
	}
	return &ecr.UploadLayerPartOutput{RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName, UploadId: in.UploadId, LastByteReceived: &last}, nil
}

// invalidLayer is a layer of another digest in ECR's words, observed; any other
// error is as it was.
func invalidLayer(err error) error {
	if errors.Is(err, ociregistry.ErrDigestInvalid) {
		return &types.InvalidLayerException{Message: new("None of the provided layer digests match the calculated layer digest")}
	}
	return err
}

// CompleteLayerUpload verifies a layer and gives it to the repository.
func (a *API) CompleteLayerUpload(ctx context.Context, in *ecr.CompleteLayerUploadInput) (*ecr.CompleteLayerUploadOutput, error) {
	c := wire.From(ctx)
	if len(in.LayerDigests) != 1 {
		return nil, invalid("layerDigests must have one digest, got %d", len(in.LayerDigests))
	}
	digest := in.LayerDigests[0]
	_, there, err := a.held(c, in.RegistryId, in.RepositoryName, digest)
	if err != nil {
		return nil, err
	}
	u, err := a.blobs.Resume(c.Scope.Key(*in.RepositoryName), aws.ToString(in.UploadId), -1)
	if errors.Is(err, ociregistry.ErrBlobUploadUnknown) {
		return nil, noUpload(c, in.RepositoryName, in.UploadId)
	} else if err != nil {
		return nil, err
	}
	switch {
	case u.Size() == 0:
		return nil, &types.EmptyUploadException{Message: new(fmt.Sprintf("The upload with id '%s' has no layer parts", u.ID()))}
	case u.ShortestPart() < leastPart:
		return nil, &types.LayerPartTooSmallException{Message: new("All layer parts except the last part should be at least 5MB")} // observed
	case there:
		u.Cancel()
		return nil, &types.LayerAlreadyExistsException{Message: new(fmt.Sprintf("Layer with digest '%s' already exists in the repository with name '%s' in the registry with id '%s'", digest, *in.RepositoryName, c.Scope.Account))}
	}
	desc, err := u.Commit(ociregistry.Digest(digest))
	switch {
	case errors.Is(err, ociregistry.ErrBlobUploadUnknown):
		return nil, noUpload(c, in.RepositoryName, in.UploadId)
	case errors.Is(err, ociregistry.ErrDigestInvalid):
		return nil, invalidLayer(err)
	case registry.Full(err):
		return nil, &types.LimitExceededException{Message: new(err.Error())}
	case err != nil:
		return nil, err
	}
	if err := a.hold(c.Scope, *in.RepositoryName, desc); err != nil {
		return nil, err
	}
	return &ecr.CompleteLayerUploadOutput{RegistryId: new(c.Scope.Account), RepositoryName: in.RepositoryName, UploadId: in.UploadId, LayerDigest: &digest}, nil
}

// GetDownloadUrlForLayer returns an address that serves a layer, for an hour, to
// whoever has it.
func (a *API) GetDownloadUrlForLayer(ctx context.Context, in *ecr.GetDownloadUrlForLayerInput) (*ecr.GetDownloadUrlForLayerOutput, error) {
	c := wire.From(ctx)
	digest := aws.ToString(in.LayerDigest)
	_, ok, err := a.held(c, in.RegistryId, in.RepositoryName, digest)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &types.LayersNotFoundException{Message: new(fmt.Sprintf("The layer with digest '%s' does not exist in the repository with name '%s' in the registry with id '%s'", digest, *in.RepositoryName, c.Scope.Account))}
	}
	until := time.Now().Add(urlLife)
	a.promise(c.Scope, *in.RepositoryName, digest, until)
	expires := strconv.FormatInt(until.Unix(), 10)
	q := url.Values{"expires": {expires}, "signature": {a.sign(digest, expires)}}
	return &ecr.GetDownloadUrlForLayerOutput{LayerDigest: &digest, DownloadUrl: new("http://" + a.Endpoint + DownloadPath + digest + "?" + q.Encode())}, nil
}

func (a *API) sign(digest, expires string) string {
	m := hmac.New(sha256.New, a.urlKey[:])
	io.WriteString(m, digest+"|"+expires)
	return hex.EncodeToString(m.Sum(nil))
}

// ServeDownload serves a layer to whoever has its address.
func (a *API) ServeDownload(w http.ResponseWriter, r *http.Request) {
	digest, q := strings.TrimPrefix(r.URL.Path, DownloadPath), r.URL.Query()
	expires, err := strconv.ParseInt(q.Get("expires"), 10, 64)
	if err != nil || !hmac.Equal([]byte(q.Get("signature")), []byte(a.sign(digest, q.Get("expires")))) {
		http.Error(w, "the address was not made by this stage", http.StatusForbidden)
		return
	}
	if time.Now().Unix() > expires {
		http.Error(w, "the address has expired; ask ecr:GetDownloadUrlForLayer again", http.StatusForbidden)
		return
	}
	blob, err := a.blobs.Content(ociregistry.Digest(digest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer blob.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, blob)
}
