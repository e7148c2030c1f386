package wire

import (
	"io"
	"net/http"
	"net/url"
)

// Decode and Encode are the codec as the oracle test drives it.
func (s *Service) Decode(o *Op, p Protocol, r *http.Request) (any, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if body, err = unpack(r.Header.Get("Content-Encoding"), body); err != nil {
		return nil, err
	}
	var form url.Values
	if p == Query {
		if form, err = url.ParseQuery(string(body)); err != nil {
			return nil, err
		}
	}
	return s.decode(o, p, body, form)
}

func (s *Service) Encode(p Protocol, op string, out any) (string, []byte) {
	return s.encode(p, op, "request", out)
}
