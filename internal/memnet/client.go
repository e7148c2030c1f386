package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
)

// Client makes requests to what listens on the network. Let go of its connections
// with CloseIdleConnections.
func (n *Network) Client() *http.Client {
	return &http.Client{Transport: Transport{&http.Transport{
		MaxIdleConnsPerHost: 16,
		DialContext:         func(ctx context.Context, _, addr string) (net.Conn, error) { return n.Dial(ctx, addr) },
	}}}
}

// Transport sends requests whose body is read before they are. The SDK closes a body
// as soon as there is an answer; where that is there at once, the transport takes
// the closed body for a broken request and gives the connection up.
type Transport struct{ *http.Transport }

func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return t.Transport.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return t.Transport.RoundTrip(r)
}
