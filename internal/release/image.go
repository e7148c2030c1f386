package release

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
)

// Registry is an account's registry in a region, with what its token may do.
type Registry struct {
	Host    string
	options []name.Option
	auth    authn.Authenticator
}

// OpenRegistry asks for the registry of an ECR client and a token for it.
func OpenRegistry(ctx context.Context, c *ecr.Client) (Registry, error) {
	out, err := c.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return Registry{}, fmt.Errorf("asking for the registry's token: %w", err)
	}
	if len(out.AuthorizationData) == 0 {
		return Registry{}, fmt.Errorf("the registry gave no token")
	}
	data := out.AuthorizationData[0]
	raw, err := base64.StdEncoding.DecodeString(aws.ToString(data.AuthorizationToken))
	if err != nil {
		return Registry{}, fmt.Errorf("reading the registry's token: %w", err)
	}
	user, password, _ := strings.Cut(string(raw), ":")
	scheme, host, _ := strings.Cut(aws.ToString(data.ProxyEndpoint), "://")
	r := Registry{Host: host, auth: &authn.Basic{Username: user, Password: password}}
	if scheme == "http" {
		r.options = append(r.options, name.Insecure)
	}
	return r, nil
}

// Layer is what became of a layer of a pushed image.
type Layer struct {
	Digest string
	Size   int64 // compressed
	Sent   bool  // or it was there already
}

// uploads is how many layers are sent at a time.
const uploads = 4

// Push pushes an image and returns its reference by digest, which is what a
// task definition should name. each is told of every layer, in their order.
func (r Registry) Push(ctx context.Context, image v1.Image, repository, tag string, each func(Layer)) (ref string, err error) {
	to, err := name.NewTag(r.Host+"/"+repository+":"+tag, r.options...)
	if err != nil {
		return "", fmt.Errorf("naming the image: %w", err)
	}
	digest, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("reading the image: %w", err)
	}
	layers, err := image.Layers()
	if err != nil {
		return "", fmt.Errorf("reading the image: %w", err)
	}
	pusher, err := remote.NewPusher(remote.WithAuth(r.auth))
	if err != nil {
		return "", fmt.Errorf("reaching the registry: %w", err)
	}
	g, sending := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	done := make([]chan Layer, len(layers))
	for i, l := range layers {
		done[i] = make(chan Layer, 1)
		g.Go(func() error {
			defer close(done[i])
			what, err := upload(sending, pusher, to.Context(), l)
			if err == nil {
				done[i] <- what
			}
			return err
		})
	}
	for _, d := range done { // in their order, whichever ends first
		if l, ok := <-d; ok {
			each(l)
		}
	}
	err = g.Wait()
	if err == nil {
		err = pusher.Push(ctx, to, image) // knows the layers that it has seen
	}
	if err != nil {
		return "", fmt.Errorf("pushing the image: %w", err)
	}
	return to.Context().Digest(digest.String()).Name(), nil
}

// upload sends a layer unless the repository has it.
func upload(ctx context.Context, pusher *remote.Pusher, to name.Repository, l v1.Layer) (Layer, error) {
	digest, err := l.Digest()
	if err != nil {
		return Layer{}, err
	}
	size, err := l.Size()
	if err != nil {
		return Layer{}, err
	}
	read := &readLayer{Layer: l}
	err = pusher.Upload(ctx, to, read)
	return Layer{Digest: digest.String(), Size: size, Sent: read.read.Load()}, err
}

// readLayer knows whether somebody read it: the one that sends it does.
type readLayer struct {
	v1.Layer
	read atomic.Bool
}

func (l *readLayer) Compressed() (io.ReadCloser, error) {
	l.read.Store(true)
	return l.Layer.Compressed()
}

// Pull is an image for a platform: of this registry where ref names no other,
// else of that other, as Docker's configuration says one may.
func (r Registry) Pull(ctx context.Context, ref string, platform v1.Platform) (v1.Image, error) {
	options := []remote.Option{remote.WithContext(ctx), remote.WithPlatform(platform)}
	parsing := r.options
	switch host := HostOf(ref); {
	case host == "":
		ref = r.Host + "/" + ref
		fallthrough
	case host == r.Host:
		options = append(options, remote.WithAuth(r.auth))
	case ecrHost.MatchString(host) && r.options != nil:
		options = append(options, remote.WithAuth(r.auth), remote.WithTransport(r.transport()))
	default:
		parsing = nil
		options = append(options, remote.WithAuthFromKeychain(authn.DefaultKeychain))
	}
	from, err := name.ParseReference(ref, parsing...)
	if err != nil {
		return nil, fmt.Errorf("reading the reference %q: %w", ref, err)
	}
	image, err := remote.Image(from, options...)
	if err != nil {
		return nil, fmt.Errorf("pulling %s: %w", from.Name(), err)
	}
	return image, nil
}

// ecrHost is AWS's name of an account's registry. A stage, whose registry is
// the only one in plain HTTP, has its images under this name too.
var ecrHost = regexp.MustCompile(`^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$`)

// transport reaches this registry, whatever the name.
func (r Registry) transport() http.RoundTripper {
	return &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, r.Host)
	}}
}

// HostOf is the registry in a reference, or "". As in Docker, it has a dot or a
// port, or is localhost.
func HostOf(ref string) string {
	host, _, ok := strings.Cut(ref, "/")
	if !ok || host != "localhost" && !strings.ContainsAny(host, ".:") {
		return ""
	}
	return host
}

// IsECR says whether a registry's name is one of Amazon ECR's.
func IsECR(host string) bool { return ecrHost.MatchString(host) }
