package balance

import (
	"bytes"
	"crypto/tls"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"
)

// sender is what a target is told of who asks: the headers that a load balancer
// adds, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html
type sender struct {
	peer   netip.AddrPort
	port   uint16 // that it came to
	host   string // for requests that name none
	secure *tls.ConnectionState
	now    time.Time
	trace  string // X-Amzn-Trace-Id, if it is made already: for whoever logs
}

func (s *sender) proto() string {
	if s.secure != nil {
		return "https"
	}
	return "http"
}

// appendForwardedFor appends the value of X-Forwarded-For after what came.
func (s *sender) appendForwardedFor(out []byte, h Headers, came []byte) []byte {
	out = append(out, came...)
	if h.ForwardedFor == "preserve" {
		return out
	}
	if len(came) > 0 {
		out = append(out, ", "...)
	}
	if !h.ClientPort {
		return s.peer.Addr().AppendTo(out)
	}
	return s.peer.AppendTo(out)
}

// appendTrace appends the value of X-Amzn-Trace-Id: a root, or what came, with a
// part of its own if that has a root, documented.
func (s *sender) appendTrace(out, came []byte) []byte {
	if s.trace != "" {
		return append(out, s.trace...)
	}
	own := "Root=1-"
	if bytes.Contains(came, []byte("Root=")) {
		own = "Self=1-"
	}
	out = append(out, own...)
	out = appendHex(out, uint64(s.now.Unix()), 8)
	out = append(out, '-')
	out = appendHex(out, rand.Uint64(), 8)
	out = appendHex(out, rand.Uint64(), 16)
	if len(came) > 0 {
		out = append(out, ';')
		out = append(out, came...)
	}
	return out
}

// traced is the value of X-Amzn-Trace-Id, which is the same from now on.
func (s *sender) traced(came []byte) string {
	s.trace = string(s.appendTrace(nil, came))
	return s.trace
}

func appendHex(out []byte, n uint64, digits int) []byte {
	for i := digits - 1; i >= 0; i-- {
		out = append(out, "0123456789abcdef"[n>>(4*i)&15])
	}
	return out
}

// appendHost appends the Host that a target gets: in small letters, with the
// listener's port, where
// that is not the protocol's own and the client has not said it, documented.
func (s *sender) appendHost(out []byte, h Headers, came []byte) []byte {
	if len(came) == 0 { // RFC 9112, 3.2
		return append(out, s.host...)
	}
	if h.KeepHost {
		return append(out, came...)
	}
	for _, c := range came {
		out = append(out, lower(c))
	}
	if s.port == 80 || s.port == 443 || len(hostname(text(came))) != len(came) {
		return out
	}
	out = append(out, ':')
	return strconv.AppendUint(out, uint64(s.port), 10)
}

// appendRequest appends the head that a target gets.
func (s *sender) appendRequest(out []byte, h *head, rules Headers) []byte {
	out = append(out, h.method...)
	out = append(out, ' ')
	out = append(out, h.target...)
	out = append(out, " HTTP/1.1\r\n"...)
	var sources, trace []byte
	upgrade, upgrades := h.upgrades()
	for i := range h.fields {
		f := &h.fields[i]
		switch f.kind {
		case host, forwardedProto, forwardedPort, contentLength, upgradeTo, tlsVersion, tlsCipher:
			continue
		case forwardedFor:
			if rules.ForwardedFor != "remove" {
				if len(sources) > 0 { // several are one list, RFC 9110, 5.3
					sources = append(append(bytes.Clone(sources), ", "...), f.value...)
				} else {
					sources = f.value
				}
			}
			continue
		case traceID:
			trace = f.value
			continue
		}
		if f.kind == expect && h.expects {
			continue
		}
		if !h.hop(f) && !(rules.DropInvalid && !isPlain(f.name)) {
			out = appendField(out, text(f.name), f.value)
		}
	}
	out = append(out, "Host: "...)
	out = s.appendHost(out, rules, h.host)
	if rules.ForwardedFor != "remove" && (rules.ForwardedFor != "preserve" || len(sources) > 0) {
		out = append(out, "\r\nX-Forwarded-For: "...)
		out = s.appendForwardedFor(out, rules, sources)
	}
	out = append(out, "\r\nX-Forwarded-Proto: "...)
	out = append(out, s.proto()...)
	out = append(out, "\r\nX-Forwarded-Port: "...)
	out = strconv.AppendUint(out, uint64(s.port), 10)
	out = append(out, "\r\nX-Amzn-Trace-Id: "...)
	out = append(s.appendTrace(out, trace), "\r\n"...)
	if rules.TLSInfo && s.secure != nil {
		out = appendField(out, "x-amzn-tls-version", []byte(tlsName(s.secure.Version)))
		out = appendField(out, "x-amzn-tls-cipher-suite", []byte(tls.CipherSuiteName(s.secure.CipherSuite)))
	}
	switch {
	case h.chunked:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case h.length > 0 || h.said:
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, h.length, 10), "\r\n"...)
	}
	if h.trailers {
		out = append(out, "TE: trailers\r\n"...)
	}
	if upgrades {
		out = append(out, "Connection: upgrade\r\n"...)
		out = appendField(out, "Upgrade", upgrade)
	}
	return append(out, "\r\n"...)
}

func appendField(out []byte, name string, value []byte) []byte {
	out = append(out, name...)
	out = append(out, ": "...)
	out = append(out, value...)
	return append(out, "\r\n"...)
}

// tlsName is a version in a load balancer's words.
func tlsName(version uint16) string {
	switch version {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return "-"
}

// isPlain reports whether a name has only letters, digits and hyphens: another is
// dropped where that is wanted, documented.
func isPlain(name []byte) bool {
	for _, c := range name {
		if c != '-' && !isDigit(c) && (lower(c) < 'a' || lower(c) > 'z') {
			return false
		}
	}
	return true
}

// appendResponse appends the head that the client gets, but for the empty line.
func appendResponse(out []byte, h *head, rules Headers, framed bool) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = append(out, h.status...)
	out = append(out, "\r\n"...)
	for i := range h.fields {
		f := &h.fields[i]
		if f.kind == contentLength && (h.both || h.code == 204 || h.code < 200) || f.kind == upgradeTo && h.code != 101 && h.code != 426 {
			continue
		}
		if !h.hop(f) {
			out = appendField(out, text(f.name), f.value)
		}
	}
	if h.chunked && framed && h.code != 204 { // RFC 9112, 6.1
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	for _, own := range rules.Answers {
		if !h.has(own.Name) {
			out = appendField(out, own.Name, []byte(own.Value))
		}
	}
	return out
}

func (h *head) has(name string) bool {
	for i := range h.fields {
		if equalFold(h.fields[i].name, name) {
			return true
		}
	}
	return false
}
