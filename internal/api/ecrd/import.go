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
	"serin/internal/registry"
	"serin/internal/store"
	"serin/internal/wire"
)

// The pull through cache: an image that is asked for and not there is fetched
// from the registry behind its repository, and stays.

// recheck is the stage time after which a tag is compared with upstream's again,
// documented: at least once in 24 hours.
const recheck = 24 * time.Hour

// through brings what is asked for into the repository, if there is a registry
// behind it. What may not or cannot be imported is left as it is: the lookup
// after it says that it is not there, as ECR does, or finds what was cached.
func (b *backend) through(ctx context.Context, scope arn.Scope, repo, digest, tag string) error {
	rule, ok := b.api.throughRule(scope, repo)
	if !ok {
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
		return nil, b.api.importImage(context.WithoutCancel(ctx), scope, rule, repo, digest, tag)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ociregistry.ErrManifestUnknown), errors.Is(err, ociregistry.ErrNameUnknown):
		return nil
	}
	if _, cached := b.api.stored(scope, repo, digest, tag); cached {
		b.api.log.Warn("a cached image is served, because the registry behind it does not answer", "repository", repo, "upstream", rule.Upstream, "error", err)
		return nil
	}
	if unauthorized(err) {
		return registryError(ociregistry.ErrDenied, fmt.Sprintf("The authentication to the upstream registry failed. Verify that the credentials for %s are valid: %s", rule.Upstream, err))
	}
	if registry.Full(err) {
		return asRegistryError(err)
	}
	return registryError(ociregistry.ErrDenied, fmt.Sprintf("The upstream registry %s cannot be pulled from: %s", rule.Upstream, err))
}

func unauthorized(err error) bool {
	if e, ok := errors.AsType[ociregistry.HTTPError](err); ok && (e.StatusCode() == http.StatusUnauthorized || e.StatusCode() == http.StatusForbidden) {
		return true
	}
	return errors.Is(err, ociregistry.ErrUnauthorized) || errors.Is(err, ociregistry.ErrDenied)
}

// cached says whether the repository is there, and whether what is asked for is
// there and needs no look at the registry behind it.
func (a *API) cached(scope arn.Scope, repo, digest, tag string) (there, fresh bool) {
	a.store.View(func(tx *store.Tx) {
		_, there = a.repositories.Get(tx, repositoryKey(scope, repo))
		if tag != "" {
			t, ok := a.tags.Get(tx, imageKey(scope, repo, tag))
			fresh = ok && a.clock.Now().Sub(t.Checked) < recheck
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
	var m ociregistry.BlobReader
	if tag != "" {
		m, err = from.GetTag(ctx, name, tag)
	} else {
		m, err = from.GetManifest(ctx, name, ociregistry.Digest(digest))
	}
	if err != nil {
		return err
	}
	defer m.Close()
	contents, err := io.ReadAll(io.LimitReader(m, mostManifest+1))
	if err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	if err := a.makeCache(scope, repo); err != nil {
		return err
	}
	if err := a.importParts(ctx, from, name, scope, repo, contents); err != nil {
		return err
	}
	if _, _, err := a.put(scope, repo, tag, contents, m.Descriptor().MediaType); err != nil || tag == "" {
		return err // an immutable tag is one of the errors, and stays, documented
	}
	return a.store.Update(func(tx *store.Tx) error {
		a.tags.Put(tx, imageKey(scope, repo, tag), tagRow{Digest: digestOf(contents), Checked: a.clock.Now()})
		return nil
	})
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
		r, err := from.GetManifest(ctx, name, child.Digest)
		if err != nil {
			return fmt.Errorf("fetching manifest %s: %w", child.Digest, err)
		}
		contents, err := io.ReadAll(io.LimitReader(r, mostManifest+1))
		r.Close()
		if err != nil {
			return fmt.Errorf("fetching manifest %s: %w", child.Digest, err)
		}
		if digestOf(contents) != string(child.Digest) {
			return fmt.Errorf("fetching manifest %s: it has another digest", child.Digest)
		}
		if err := a.importParts(ctx, from, name, scope, repo, contents); err != nil {
			return err
		}
		if _, _, err := a.put(scope, repo, "", contents, child.MediaType); err != nil {
			return err
		}
	}
	parts := m.Layers
	if m.Config != nil {
		parts = append([]ociregistry.Descriptor{*m.Config}, parts...)
	}
	for _, p := range parts {
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
	if _, err := io.Copy(u, r); err != nil {
		return err
	}
	desc, err := u.Commit(digest)
	if err != nil {
		return err
	}
	return a.hold(scope, repo, desc)
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
