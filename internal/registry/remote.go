package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"cuelabs.dev/go/oci/ociregistry/ociclient"
)

// Remote is another registry, as a client sees it.
type Remote struct {
	ociregistry.Interface
	base      string
	transport http.RoundTripper
}

// NewRemote is the registry at a host, with what a Docker configuration knows to
// sign in with; nil signs in nowhere. plain is for HTTP without TLS.
func NewRemote(host string, plain bool, credentials ociauth.Config) (*Remote, error) {
	transport := ociauth.NewStdTransport(ociauth.StdTransportParams{Config: credentials, Transport: patient()})
	client, err := ociclient.New(host, &ociclient.Options{Transport: transport, Insecure: plain})
	if err != nil {
		return nil, fmt.Errorf("reaching the registry %s: %w", host, err)
	}
	scheme := "https"
	if plain {
		scheme = "http"
	}
	return &Remote{client, scheme + "://" + host, transport}, nil
}

// patient is a transport that does not wait for ever for a registry to begin to
// answer. How long an answer may take is its reader's business.
var patient = sync.OnceValue(func() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	t.ResponseHeaderTimeout = 30 * time.Second
	return t
})

// Ping says whether the registry answers and takes the credentials.
func (r *Remote) Ping(ctx context.Context) error {
	in, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/v2/", nil)
	if err != nil {
		return fmt.Errorf("reaching the registry: %w", err)
	}
	out, err := r.transport.RoundTrip(in)
	if err != nil {
		return fmt.Errorf("reaching the registry: %w", err)
	}
	defer out.Body.Close()
	if out.StatusCode != http.StatusOK {
		return fmt.Errorf("the registry answers %s", out.Status)
	}
	return nil
}
