package ecrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/registry"
	"serin/internal/store"
	"serin/internal/wire"
)

// ServeHTTP is the registry at /v2/: Basic credentials from an authorization
// token, then the distribution protocol.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.ContentLength != 0 { // a body that nobody reads is waited for as well
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(a.patience))
	}
	user, password, ok := r.BasicAuth()
	var t token
	known := false
	if ok && user == "AWS" {
		a.store.View(func(tx *store.Tx) { t, known = a.tokens.Get(tx, password) })
	}
	if !known {
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Basic realm="http://%s/",service="ecr.amazonaws.com"`, a.Endpoint))
		http.Error(w, "Not Authorized", http.StatusUnauthorized)
		return
	}
	if time.Now().After(t.Expires) {
		writeDenied(w, "Your authorization token has expired. Reauthenticate and try again.")
		return
	}
	scope, ok := scopeOf(r.Host, t)
	if !ok {
		writeDenied(w, "The token is for account "+t.Scope.Account+" in "+t.Scope.Region+", not for "+r.Host)
		return
	}
	source, _, _ := net.SplitHostPort(r.RemoteAddr)
	call := &wire.Call{Service: "ecr", Scope: scope, Principal: t.Principal, SourceIP: source, UserAgent: r.UserAgent(), RequestID: id.UUID()}
	in := r.Clone(wire.WithCall(r.Context(), call))
	in.Body = &patient{r.Body, http.NewResponseController(w), a.patience}
	if !a.smooth(w, in, scope) {
		a.handler.ServeHTTP(w, in)
	}
}

// patient reads a body from a client that may be slow but must not hang: what it
// sent of a layer is kept, and it can go on with that later.
type patient struct {
	io.ReadCloser
	control  *http.ResponseController
	patience time.Duration // wall time for each read
}

func (p *patient) Read(b []byte) (int, error) {
	p.control.SetReadDeadline(time.Now().Add(p.patience)) // where there is no connection there is nothing to wait for
	n, err := p.ReadCloser.Read(b)
	if err == io.EOF { // the connection may have more requests
		p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

func writeDenied(w http.ResponseWriter, message string) {
	writeRegistryError(w, http.StatusForbidden, "DENIED", message)
}

var awsHost = regexp.MustCompile(`^(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(:\d+)?$`)

// scopeOf honours the account and region of AWS's host name form. A token is for
// one region, and for every account whose policies let its bearer in, documented;
// an account's administrator is that account's alone.
func scopeOf(host string, t token) (arn.Scope, bool) {
	m := awsHost.FindStringSubmatch(host)
	if m == nil {
		return t.Scope, true
	}
	s := arn.Scope{Account: m[1], Region: m[2]}
	return s, s == t.Scope || s.Region == t.Scope.Region && !t.Principal.Admin
}

// backend is the registry's content, one repository at a time, behind the
// policies.
type backend struct {
	*ociregistry.Funcs // refuses what is not below
	api                *API
}

func newBackend(a *API) ociregistry.Interface { return &backend{&ociregistry.Funcs{}, a} }

func registryError(base ociregistry.Error, message string) error {
	return ociregistry.NewError(message, base.Code(), nil)
}

// may asks the policies.
func (b *backend) may(ctx context.Context, action, repo string) error {
	c := *wire.From(ctx)
	c.Operation = action
	err := b.api.authorize(ctx, &c, []wire.Check{{Action: "ecr:" + action, Resource: c.ARN("repository/" + repo)}})
	if err == nil {
		return nil
	}
	message := err.Error()
	if denial, ok := errors.AsType[interface {
		error
		ErrorMessage() string
	}](err); ok {
		message = denial.ErrorMessage()
	}
	return registryError(ociregistry.ErrDenied, message)
}

// enter asks the policies and finds the repository.
func (b *backend) enter(ctx context.Context, action, repo string) (scope arn.Scope, err error) {
	scope = wire.From(ctx).Scope
	if err := b.may(ctx, action, repo); err != nil {
		return scope, err
	}
	b.api.store.View(func(tx *store.Tx) { _, err = b.api.find(tx, scope, repo) })
	return scope, asRegistryError(err)
}

// enterToPush is enter for what begins a push: a repository that is not there is
// made, if a template is for that and the pusher may make it.
func (b *backend) enterToPush(ctx context.Context, repo string) (scope arn.Scope, err error) {
	scope, err = b.enter(ctx, "InitiateLayerUpload", repo)
	if !errors.Is(err, ociregistry.ErrNameUnknown) {
		return scope, err
	}
	var t template
	var ok bool
	b.api.store.View(func(tx *store.Tx) { t, ok = b.api.templateFor(tx, scope, repo, types.RCTAppliedForCreateOnPush) })
	if !ok {
		return scope, err
	}
	if err := b.may(ctx, "CreateRepository", repo); err != nil {
		return scope, err
	}
	return scope, asRegistryError(b.api.makeFrom(scope, repo, t))
}

func (b *backend) blob(scope arn.Scope, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	var l layer
	var ok bool
	b.api.store.View(func(tx *store.Tx) { l, ok = b.api.layers.Get(tx, imageKey(scope, repo, string(digest))) })
	if !ok {
		return ociregistry.Descriptor{}, ociregistry.ErrBlobUnknown
	}
	return l.descriptor(digest), nil
}

func (l layer) descriptor(digest ociregistry.Digest) ociregistry.Descriptor {
	return ociregistry.Descriptor{MediaType: "application/octet-stream", Digest: digest, Size: l.Size}
}

func (b *backend) GetBlob(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.BlobReader, error) {
	return b.GetBlobRange(ctx, repo, digest, 0, -1)
}

func (b *backend) GetBlobRange(ctx context.Context, repo string, digest ociregistry.Digest, from, to int64) (ociregistry.BlobReader, error) {
	scope, err := b.enter(ctx, "GetDownloadUrlForLayer", repo)
	if err != nil {
		return nil, err
	}
	desc, err := b.blob(scope, repo, digest)
	if err != nil {
		return nil, err
	}
	return b.api.blobs.Open(desc, from, to)
}

func (b *backend) ResolveBlob(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	scope, err := b.enter(ctx, "BatchCheckLayerAvailability", repo)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	return b.api.present(scope, repo, digest)
}

// lookup finds an image by digest or tag, here or in the registry behind the
// repository.
func (b *backend) lookup(ctx context.Context, repo, digest, tag string) (image, error) {
	scope := wire.From(ctx).Scope
	if err := b.may(ctx, "BatchGetImage", repo); err != nil {
		return image{}, err
	}
	if err := b.through(ctx, scope, repo, digest, tag); err != nil {
		return image{}, err
	}
	var err error
	b.api.store.View(func(tx *store.Tx) { _, err = b.api.find(tx, scope, repo) })
	if err != nil {
		return image{}, asRegistryError(err)
	}
	i, ok := b.api.stored(scope, repo, digest, tag)
	if !ok {
		return i, registryError(ociregistry.ErrManifestUnknown, "Requested image not found")
	}
	return i, nil
}

func (i image) descriptor() ociregistry.Descriptor {
	return ociregistry.Descriptor{MediaType: i.MediaType, Digest: ociregistry.Digest(i.Digest), Size: i.ManifestSize}
}

func (b *backend) open(ctx context.Context, repo string, i image) (ociregistry.BlobReader, error) {
	key := imageKey(wire.From(ctx).Scope, repo, i.Digest)
	// The day's first pull is recorded; ECR's own record is no finer.
	if now := b.api.clock.Now(); now.Sub(i.Pulled) > 24*time.Hour {
		err := b.api.store.Update(func(tx *store.Tx) error {
			if row, ok := b.api.images.Get(tx, key); ok {
				row.Pulled = now
				b.api.images.Put(tx, key, row)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return b.api.blobs.Open(i.descriptor(), 0, -1)
}

func (b *backend) GetManifest(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.BlobReader, error) {
	i, err := b.lookup(ctx, repo, string(digest), "")
	if err != nil {
		return nil, err
	}
	return b.open(ctx, repo, i)
}

func (b *backend) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	i, err := b.lookup(ctx, repo, "", tag)
	if err != nil {
		return nil, err
	}
	return b.open(ctx, repo, i)
}

func (b *backend) ResolveManifest(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	i, err := b.lookup(ctx, repo, string(digest), "")
	return i.descriptor(), err
}

func (b *backend) ResolveTag(ctx context.Context, repo, tag string) (ociregistry.Descriptor, error) {
	i, err := b.lookup(ctx, repo, "", tag)
	return i.descriptor(), err
}

func (b *backend) PushBlob(ctx context.Context, repo string, desc ociregistry.Descriptor, r io.Reader) (ociregistry.Descriptor, error) {
	w, err := b.PushBlobChunked(ctx, repo, 0)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	defer w.Cancel()
	if _, err := b.enter(ctx, "UploadLayerPart", repo); err != nil {
		return ociregistry.Descriptor{}, err
	}
	n, err := io.Copy(w, r)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	if desc.Size > 0 && n != desc.Size {
		return ociregistry.Descriptor{}, ociregistry.ErrSizeInvalid
	}
	return w.Commit(desc.Digest)
}

func (b *backend) PushBlobChunked(ctx context.Context, repo string, _ int) (ociregistry.BlobWriter, error) {
	scope, err := b.enterToPush(ctx, repo)
	if err != nil {
		return nil, err
	}
	u, err := b.api.blobs.Start(scope.Key(repo))
	if err != nil {
		return nil, asRegistryError(err)
	}
	return &upload{Upload: u, ctx: ctx, backend: b, scope: scope, repo: repo}, nil
}

func (b *backend) PushBlobChunkedResume(ctx context.Context, repo, uploadID string, offset int64, _ int) (ociregistry.BlobWriter, error) {
	scope, err := b.enter(ctx, "UploadLayerPart", repo)
	if err != nil {
		return nil, err
	}
	u, err := b.api.blobs.Resume(scope.Key(repo), uploadID, offset)
	if err != nil {
		return nil, err
	}
	return &upload{Upload: u, ctx: ctx, backend: b, scope: scope, repo: repo}, nil
}

// upload is an upload of one request: what completes it needs a permission of its
// own. The context is the request's, because a BlobWriter's methods take none.
type upload struct {
	*registry.Upload
	ctx     context.Context
	backend *backend
	scope   arn.Scope
	repo    string
	full    error
}

// Write reads a body to its end even where there is no room for it: a client
// that is still sending would not see why.
func (u *upload) Write(p []byte) (int, error) {
	if u.full != nil {
		return len(p), nil
	}
	n, err := u.Upload.Write(p)
	if registry.Full(err) {
		u.full = asRegistryError(err)
		u.Cancel() // what came so far takes no room
		return len(p), nil
	}
	return n, err
}

// Close leaves the upload for a later request, or says that there was no room.
func (u *upload) Close() error { return u.full }

func (u *upload) Commit(digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	if u.full != nil {
		return ociregistry.Descriptor{}, u.full
	}
	if _, err := u.backend.enter(u.ctx, "CompleteLayerUpload", u.repo); err != nil {
		return ociregistry.Descriptor{}, err
	}
	desc, err := u.Upload.Commit(digest)
	if errors.Is(err, ociregistry.ErrDigestInvalid) {
		u.Cancel() // it will never be of another digest
	}
	if err != nil {
		return desc, asRegistryError(invalidLayer(err))
	}
	return desc, asRegistryError(u.backend.api.hold(u.scope, u.repo, desc))
}

// hold notes that a repository has a blob.
func (a *API) hold(scope arn.Scope, repo string, desc ociregistry.Descriptor) error {
	a.promise(scope, repo, string(desc.Digest), time.Now())
	return a.store.Update(func(tx *store.Tx) error {
		if _, err := a.find(tx, scope, repo); err != nil {
			return err
		}
		a.layers.Put(tx, imageKey(scope, repo, string(desc.Digest)), layer{Size: desc.Size, Since: time.Now()})
		return nil
	})
}

// MountBlob makes a blob of one repository known in another.
func (b *backend) MountBlob(ctx context.Context, from, to string, digest ociregistry.Digest) (desc ociregistry.Descriptor, err error) {
	scope, err := b.enterToPush(ctx, to)
	if err != nil {
		return desc, err
	}
	if _, err := b.enter(ctx, "GetDownloadUrlForLayer", from); err != nil {
		return desc, err
	}
	b.api.promise(scope, to, string(digest), time.Now())
	err = b.api.store.Update(func(tx *store.Tx) error {
		if _, err := b.api.find(tx, scope, to); err != nil {
			return err
		}
		l, ok := b.api.layers.Get(tx, imageKey(scope, from, string(digest)))
		if !ok {
			return ociregistry.ErrBlobUnknown
		}
		desc = l.descriptor(digest)
		b.api.layers.Put(tx, imageKey(scope, to, string(digest)), layer{Size: l.Size, Since: time.Now()})
		return nil
	})
	return desc, asRegistryError(err)
}

func (b *backend) PushManifest(ctx context.Context, repo, tag string, contents []byte, mediaType string) (ociregistry.Descriptor, error) {
	scope, err := b.enter(ctx, "PutImage", repo)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	i, _, err := b.api.put(scope, repo, tag, contents, mediaType, time.Time{})
	if err != nil {
		return ociregistry.Descriptor{}, asRegistryError(err)
	}
	return i.descriptor(), nil
}

// asRegistryError is an error of ECR's API, or of a full disk, as ECR's registry
// answers it: codes and statuses are as observed, where they are not the
// specification's.
func asRegistryError(err error) error {
	if registry.Full(err) { // after any other code docker tries again, for a minute
		return &registry.Answer{Status: http.StatusForbidden, Code: "DENIED", Message: err.Error()}
	}
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return err
	}
	switch e.ErrorCode() {
	case "LayersNotFoundException":
		return registryError(ociregistry.ErrBlobUploadUnknown, e.ErrorMessage())
	case "ReferencedImagesNotFoundException":
		return registryError(ociregistry.ErrManifestBlobUnknown, e.ErrorMessage())
	case "ImageTagAlreadyExistsException":
		return &registry.Answer{Status: http.StatusBadRequest, Code: "TAG_INVALID", Message: e.ErrorMessage()}
	case "InvalidLayerException":
		return &registry.Answer{Status: http.StatusBadRequest, Code: "BLOB_UPLOAD_INVALID", Message: e.ErrorMessage()}
	case "InvalidParameterException":
		return &registry.Answer{Status: http.StatusMethodNotAllowed, Code: "UNSUPPORTED", Message: e.ErrorMessage()}
	case "LimitExceededException":
		return registryError(ociregistry.ErrDenied, e.ErrorMessage())
	case "RepositoryNotFoundException":
		return registryError(ociregistry.ErrNameUnknown, e.ErrorMessage())
	}
	return err
}

func (b *backend) Tags(ctx context.Context, repo, startAfter string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		scope, err := b.enter(ctx, "ListImages", repo)
		if err != nil {
			yield("", err)
			return
		}
		within := imageKey(scope, repo, "")
		var names []string
		b.api.store.View(func(tx *store.Tx) {
			for k := range b.api.tags.Scan(tx, within) {
				names = append(names, strings.TrimPrefix(k, within))
			}
		})
		for _, name := range names {
			if name > startAfter && !yield(name, nil) {
				return
			}
		}
	}
}

func (b *backend) Referrers(ctx context.Context, repo string, digest ociregistry.Digest, artifactType string) iter.Seq2[ociregistry.Descriptor, error] {
	return func(yield func(ociregistry.Descriptor, error) bool) {
		scope, err := b.enter(ctx, "BatchGetImage", repo)
		if err != nil {
			yield(ociregistry.Descriptor{}, err)
			return
		}
		var list []ociregistry.Descriptor
		b.api.store.View(func(tx *store.Tx) {
			for _, i := range b.api.images.Scan(tx, imageKey(scope, repo, "")) {
				if i.Subject == string(digest) && (artifactType == "" || artifactType == i.ArtifactType) {
					d := i.descriptor()
					d.ArtifactType, d.Annotations = i.ArtifactType, i.Annotations
					list = append(list, d)
				}
			}
		})
		for _, d := range list {
			if !yield(d, nil) {
				return
			}
		}
	}
}
