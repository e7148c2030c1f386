package stagetest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// whole sends requests whose body is read before they are. The SDK closes a body
// as soon as there is an answer; where that is there at once, the transport takes
// the closed body for a broken request and gives the connection up.
type whole struct{ http.RoundTripper }

func (w whole) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return w.RoundTripper.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return w.RoundTripper.RoundTrip(r)
}
