package ecrd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

// The pull through cache: an image that is asked for and not there is fetched
// from the registry behind its repository, and stays.

// recheck is the stage time after which a tag is compared with upstream's again,
// documented: at least once in 24 hours.
const recheck = 24 * time.Hour

// backOff is the stage time after which a registry that could not be asked is
// asked again for a tag that is cached.
const backOff = 10 * time.Minute

// errAbsent says that the registry behind does not have what is asked for.
var errAbsent = errors.New("the registry behind the repository does not have the image")

// importingKey marks the calls of an import: a registry of the stage that is
// behind another answers them with what it has, and pulls through no further.
type importingKey struct{}

// through brings what is asked for into the repository, if there is a registry
// behind it. What may not or cannot be imported is left as it is: the lookup
// after it says that it is not there, as ECR does, or finds what was cached.
func (b *backend) through(ctx context.Context, scope arn.Scope, repo, digest, tag string) error {
	rule, ok := b.api.throughRule(scope, repo)
	if !ok || ctx.Value(importingKey{}) != nil {
		return nil
	}
	there, fresh := b.api.cached(scope, repo, digest, tag)
	if fresh {
		return nil
	}
	if !there && b.may(ctx, "CreateRepository", repo) != nil || b.may(ctx, "BatchImportUpstreamImage", repo) != nil {
		return nil
	}
	// One import for all who ask, and to its end whoever leaves.
	_, err, _ := b.api.importing.Do(imageKey(scope, repo, digest+tag), func() (any, error) {
		ctx, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), importingKey{}, true))
		defer cancel()
		defer context.AfterFunc(b.api.life, cancel)()
		return nil, b.api.importImage(ctx, scope, rule, repo, digest, tag)
	})
	if err == nil || errors.Is(err, errAbsent) {
		return nil
	}
	if _, cached := b.api.stored(scope, repo, digest, tag); cached {
		b.api.log.Warn("a cached image is served, because the registry behind it cannot be asked", "repository", repo, "upstream", rule.Upstream, "error", err)
		return b.api.renew(scope, repo, tag, b.api.clock.Now().Add(backOff-recheck))
	}
	b.api.log.Warn("an image cannot be pulled through the cache", "repository", repo, "upstream", rule.Upstream, "error", err)
	if unauthorized(err) {
		return registryError(ociregistry.ErrDenied, fmt.Sprintf("The authentication to the upstream registry failed. Verify that the credentials for %s are valid: %s", rule.Upstream, err))
	}
	if local := asRegistryError(err); local != err {
		return local
	}
	return registryError(ociregistry.ErrDenied, fmt.Sprintf("The upstream registry %s cannot be pulled from: %s", rule.Upstream, err))
}

func unauthorized(err error) bool {
	if e, ok := errors.AsType[ociregistry.HTTPError](err); ok && (e.StatusCode() == http.StatusUnauthorized || e.StatusCode() == http.StatusForbidden) {
		return true
	}
	return errors.Is(err, ociregistry.ErrUnauthorized) || errors.Is(err, ociregistry.ErrDenied)
}

// renew notes when a tag was compared with the registry behind.
func (a *API) renew(scope arn.Scope, repo, tag string, checked time.Time) error {
	if tag == "" {
		return nil
	}
	return a.store.Update(func(tx *store.Tx) error {
		key := imageKey(scope, repo, tag)
		if t, ok := a.tags.Get(tx, key); ok {
			t.Checked = checked
			a.tags.Put(tx, key, t)
		}
		return nil
	})
}

// cached says whether the repository is there, and whether what is asked for is
// there and needs no look at the registry behind it.
func (a *API) cached(scope arn.Scope, repo, digest, tag string) (there, fresh bool) {
	a.store.View(func(tx *store.Tx) {
		_, there = a.repositories.Get(tx, repositoryKey(scope, repo))
		if tag != "" {
			t, _ := a.tags.Get(tx, imageKey(scope, repo, tag))
			_, fresh = a.images.Get(tx, imageKey(scope, repo, t.Digest))
			fresh = fresh && a.clock.Now().Sub(t.Checked) < recheck
			return
		}
		_, fresh = a.images.Get(tx, imageKey(scope, repo, digest))
	})
	return there, fresh
}

// stored finds an image by digest or tag.
func (a *API) stored(scope arn.Scope, repo, digest, tag string) (i image, ok bool) {
	a.store.View(func(tx *store.Tx) {
		if tag != "" {
			t, _ := a.tags.Get(tx, imageKey(scope, repo, tag))
			digest = t.Digest
		}
		i, ok = a.images.Get(tx, imageKey(scope, repo, digest))
	})
	return i, ok
}

// importImage fetches an image with all that it refers to.
func (a *API) importImage(ctx context.Context, scope arn.Scope, rule cacheRule, repo, digest, tag string) error {
	from, ctx, err := a.behind(ctx, scope, rule)
	if err != nil {
		return err
	}
	name := rule.upstreamOf(repo)
	if a.fixed(scope, repo, tag) { // it stays with its image, whatever it is behind; documented
		return a.renew(scope, repo, tag, a.clock.Now())
	}
	contents, mediaType, err := a.fetchManifest(ctx, from, name, digest, tag)
	if errors.Is(err, ociregistry.ErrManifestUnknown) || errors.Is(err, ociregistry.ErrNameUnknown) {
		return errAbsent
	}
	if err != nil {
		return err
	}
	if err := a.makeCache(scope, repo); err != nil {
		return err
	}
	if err := a.importParts(ctx, from, name, scope, repo, contents); err != nil {
		return err
	}
	_, _, err = a.put(scope, repo, tag, contents, mediaType, a.clock.Now())
	return err
}

// fixed says that a tag is there and cannot be moved.
func (a *API) fixed(scope arn.Scope, repo, tag string) (fixed bool) {
	if tag == "" {
		return false
	}
	a.store.View(func(tx *store.Tx) {
		r, _ := a.repositories.Get(tx, repositoryKey(scope, repo))
		t, there := a.tags.Get(tx, imageKey(scope, repo, tag))
		_, whole := a.images.Get(tx, imageKey(scope, repo, t.Digest))
		fixed = there && whole && r.fixed(tag)
	})
	return fixed
}

// fetchManifest reads a manifest of the registry behind.
func (a *API) fetchManifest(ctx context.Context, from ociregistry.Interface, name, digest, tag string) (contents []byte, mediaType string, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	var m ociregistry.BlobReader
	if tag != "" {
		m, err = from.GetTag(ctx, name, tag)
	} else {
		m, err = from.GetManifest(ctx, name, ociregistry.Digest(digest))
	}
	if err != nil {
		return nil, "", err
	}
	defer m.Close()
	if contents, err = io.ReadAll(io.LimitReader(m, mostManifest+1)); err != nil {
		return nil, "", fmt.Errorf("reading the manifest: %w", err)
	}
	if digest != "" && digestOf(contents) != digest {
		return nil, "", fmt.Errorf("the registry answers manifest %s with another", digest)
	}
	return contents, m.Descriptor().MediaType, nil
}

// makeCache makes the repository of a cache if it is not there, by a template if
// there is one.
func (a *API) makeCache(scope arn.Scope, repo string) error {
	t := template{Settings: plainRepository()}
	there := false
	a.store.View(func(tx *store.Tx) {
		if _, there = a.repositories.Get(tx, repositoryKey(scope, repo)); there {
			return
		}
		if found, ok := a.templateFor(tx, scope, repo, types.RCTAppliedForPullThroughCache); ok {
			t = found
		}
	})
	if there {
		return nil
	}
	return a.makeFrom(scope, repo, t)
}

// importParts fetches what a manifest refers to and is not there.
func (a *API) importParts(ctx context.Context, from ociregistry.Interface, name string, scope arn.Scope, repo string, manifest []byte) error {
	var m manifestDocument
	if err := json.Unmarshal(manifest, &m); err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	for _, child := range m.Manifests {
		if _, there := a.stored(scope, repo, string(child.Digest), ""); there {
			continue
		}
		contents, _, err := a.fetchManifest(ctx, from, name, string(child.Digest), "")
		if err != nil {
			return fmt.Errorf("fetching manifest %s: %w", child.Digest, err)
		}
		if err := a.importParts(ctx, from, name, scope, repo, contents); err != nil {
			return err
		}
		if _, _, err := a.put(scope, repo, "", contents, child.MediaType, time.Time{}); err != nil {
			return err
		}
	}
	for _, p := range m.parts() {
		if foreign(p.MediaType) {
			continue
		}
		if _, err := a.present(scope, repo, p.Digest); err == nil {
			continue
		}
		if err := a.importLayer(ctx, from, name, scope, repo, p.Digest); err != nil {
			return fmt.Errorf("fetching layer %s: %w", p.Digest, err)
		}
	}
	return nil
}

func (a *API) importLayer(ctx context.Context, from ociregistry.Interface, name string, scope arn.Scope, repo string, digest ociregistry.Digest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(a.patience, cancel)
	defer idle.Stop()
	r, err := from.GetBlob(ctx, name, digest)
	if err != nil {
		return err
	}
	defer r.Close()
	u, err := a.blobs.Start(scope.Key(repo))
	if err != nil {
		return err
	}
	defer u.Cancel()
	if _, err := io.Copy(u, &watched{r, idle, a.patience}); err != nil {
		return err
	}
	desc, err := u.Commit(digest)
	if err != nil {
		return err
	}
	return a.hold(scope, repo, desc)
}

// watched is read until nothing has come for a while.
type watched struct {
	io.Reader
	idle     *time.Timer
	patience time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.idle.Reset(w.patience)
	return n, err
}

// behind is the registry behind a rule. Another ECR is one of this stage, and is
// asked as the rule's role, or as this account.
func (a *API) behind(ctx context.Context, scope arn.Scope, rule cacheRule) (ociregistry.Interface, context.Context, error) {
	if rule.Kind != types.UpstreamRegistryEcr {
		r, err := a.upstream(rule.Upstream)
		return r, ctx, err
	}
	m := awsHost.FindStringSubmatch(rule.Upstream)
	as := wire.Principal{Account: scope.Account, Admin: true}
	if rule.Role != "" {
		var err error
		if as, err = a.session(rule.Role); err != nil {
			return nil, ctx, err
		}
	}
	call := &wire.Call{Service: "ecr", Scope: arn.Scope{Account: m[1], Region: m[2]}, Principal: as, RequestID: id.UUID()}
	return newBackend(a), wire.WithCall(ctx, call), nil
}

// reach says why the registry behind a rule cannot be pulled from, if so.
func (a *API) reach(ctx context.Context, scope arn.Scope, rule cacheRule) error {
	if rule.Kind == types.UpstreamRegistryEcr {
		_, _, err := a.behind(ctx, scope, rule)
		return err
	}
	r, err := a.upstream(rule.Upstream)
	if err != nil {
		return err
	}
	return r.Ping(ctx)
}
