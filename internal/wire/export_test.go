package wire

import "net/url"

// Decode and Encode are the codec as the oracle test drives it.
func (s *Service) Decode(o *Op, body []byte, form url.Values) (any, error) {
	return s.decode(o, body, form)
}

func (s *Service) Encode(op string, out any) (string, []byte) { return s.encode(op, "request", out) }
