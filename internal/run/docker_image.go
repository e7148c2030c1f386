package run

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
)

// Pull has the daemon pull the image, unless it has what the reference names now.
func (d *Docker) Pull(ctx context.Context, ref string, auth Auth) (Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Image{}, &Error{CannotPull, fmt.Errorf("invalid reference format: %w", err)}
	}
	if image, ok := d.present(ctx, ref, parsed, auth); ok {
		return image, nil
	}
	image, err := d.pull(ctx, ref, parsed, auth)
	if err != nil && strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		// Podman asks registries of this machine, too, for TLS.
		image, err = d.load(ctx, ref, parsed, auth)
	}
	if err != nil {
		return Image{}, &Error{CannotPull, err}
	}
	return image, nil
}

// options are how this program asks a registry by itself.
func (d *Docker) options(ctx context.Context, auth Auth) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx)}
	if d.transport != nil {
		options = append(options, remote.WithTransport(d.transport))
	}
	if auth.Username != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: auth.Username, Password: auth.Password}))
	}
	return options
}

// present asks the registry what a reference names, which takes a fraction of the
// time that the daemon takes to find out, and the daemon whether it has that. Where
// either does not say, it is pulled.
func (d *Docker) present(ctx context.Context, ref string, parsed name.Reference, auth Auth) (Image, bool) {
	digest := ""
	if pinned, ok := parsed.(name.Digest); ok {
		digest = pinned.DigestStr()
	} else {
		desc, err := remote.Head(parsed, d.options(ctx, auth)...)
		if err != nil {
			return Image{}, false
		}
		digest = desc.Digest.String()
	}
	for _, own := range []string{repositoryOf(ref) + "@" + digest, loadedAs(ref, digest)} { // as the daemon names it, which leaves docker.io out
		if _, err := d.api.ImageInspect(ctx, own); err == nil {
			return Image{Digest: digest, Ref: own}, true
		}
	}
	return Image{}, false
}

// repositoryOf is a reference without its tag or digest.
func repositoryOf(ref string) string {
	repository, _, _ := strings.Cut(ref, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		return repository[:i]
	}
	return repository
}

// loadedAs is the tag of an image that this program has given the daemon.
func loadedAs(ref, digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return repositoryOf(ref) + ":serin-" + hex[:min(12, len(hex))]
}

// pull has the daemon pull.
func (d *Docker) pull(ctx context.Context, ref string, parsed name.Reference, auth Auth) (Image, error) {
	options := client.ImagePullOptions{}
	if auth.Username != "" {
		encoded, err := authconfig.Encode(registry.AuthConfig{Username: auth.Username, Password: auth.Password})
		if err != nil {
			return Image{}, err
		}
		options.RegistryAuth = encoded
	}
	progress, err := d.api.ImagePull(ctx, ref, options)
	if err == nil {
		err = progress.Wait(ctx)
		progress.Close()
	}
	if err != nil {
		return Image{}, err
	}
	image, err := d.api.ImageInspect(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	digest, own := digestOf(parsed, image.RepoDigests)
	if digest == "" {
		return Image{}, fmt.Errorf("the daemon knows no digest of %s", ref)
	}
	return Image{Digest: digest, Ref: own}, nil
}

// digestOf finds a reference's repository among the daemon's names of an image, which
// leave docker.io out.
func digestOf(ref name.Reference, names []string) (digest, own string) {
	for _, n := range names {
		if d, err := name.NewDigest(n); err == nil && d.Context().Name() == ref.Context().Name() {
			return d.DigestStr(), n
		}
	}
	return "", ""
}

// load pulls the image itself and gives it to the daemon.
func (d *Docker) load(ctx context.Context, ref string, parsed name.Reference, auth Auth) (Image, error) {
	desc, err := remote.Get(parsed, append(d.options(ctx, auth), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: d.architecture}))...)
	if err != nil {
		return Image{}, err
	}
	image, err := desc.Image()
	if err != nil {
		return Image{}, err
	}
	own := loadedAs(ref, desc.Digest.String())
	tag, err := name.NewTag(own)
	if err != nil {
		return Image{}, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(tag, image, w)) }()
	result, err := d.api.ImageLoad(ctx, r)
	r.Close()
	if err != nil {
		return Image{}, fmt.Errorf("giving the image to the daemon: %w", err)
	}
	defer result.Close()
	if _, err := io.Copy(io.Discard, result); err != nil {
		return Image{}, fmt.Errorf("giving the image to the daemon: %w", err)
	}
	return Image{Digest: desc.Digest.String(), Ref: own}, nil
}
