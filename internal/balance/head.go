package balance

import (
	"bytes"
	"errors"
	"unsafe"
)

// head is the head of an HTTP/1 message, parsed in the buffer that it was read
// into: everything in it is valid until the buffer is read into again.
//
// The grammar is RFC 9112's without what it lets a lenient recipient accept: a
// line ends with CRLF, a header does not go on in the next line, nothing stands
// between a name and its colon, and framing has one meaning or is refused. What is
// taken here another strict parser reads in the same way.
type head struct {
	size   int // bytes, the empty line included
	method []byte
	target []byte // as it came
	code   int    // of an answer
	status []byte // of an answer: code and reason
	minor  int    // of the version, 1.minor
	fields []field

	length   int64 // of the body; -1 where none is said
	chunked  bool
	said     bool // the length was
	both     bool // a length was said beside chunks; it does not count, RFC 9112, 6.3
	doubt    bool // somebody may take the message for another than it is
	close    bool // Connection: close
	keep     bool // Connection: keep-alive
	upgrade  bool // Connection: upgrade, and an Upgrade
	expects  bool // Expect: 100-continue
	host     []byte
	hosts    int
	options  int  // of Connection
	named    bool // one of them is another header's name
	trailers bool // TE: trailers
}

// field is a header.
type field struct {
	name, value []byte
	kind        kind
}

// kind is which header it is, of those that the balancer looks at.
type kind uint8

const (
	other kind = iota
	connection_
	contentLength
	transferEncoding
	host
	upgradeTo
	expect
	keepAlive
	te
	trailer
	proxyConnection
	http2Settings
	forwardedFor
	forwardedProto
	forwardedPort
	cookie
	setCookie
	traceID
	userAgent
	contentType
	server_
	date
	likeLength   // what somebody who takes _ for - reads as a content length
	likeEncoding // and as a transfer encoding
	tlsVersion
	tlsCipher
)

var kinds = map[string]kind{
	"connection": connection_, "content-length": contentLength, "transfer-encoding": transferEncoding, "host": host,
	"upgrade": upgradeTo, "expect": expect, "keep-alive": keepAlive, "te": te, "trailer": trailer,
	"proxy-connection": proxyConnection, "http2-settings": http2Settings, "x-forwarded-for": forwardedFor,
	"x-forwarded-proto": forwardedProto, "x-forwarded-port": forwardedPort, "cookie": cookie, "set-cookie": setCookie,
	"x-amzn-trace-id": traceID, "user-agent": userAgent, "content-type": contentType, "server": server_, "date": date,
	"content_length": likeLength, "transfer_encoding": likeEncoding, "x-amzn-tls-version": tlsVersion, "x-amzn-tls-cipher-suite": tlsCipher,
}

const longestKind = len("x-amzn-tls-cipher-suite")

func kindOf(name []byte) kind {
	var small [longestKind]byte
	if len(name) > len(small) || len(name) < 2 {
		return other
	}
	for i, c := range name {
		small[i] = lower(c)
	}
	return kinds[string(small[:len(name)])]
}

// refusal is why a message is not taken, and the code that a client is told.
type refusal struct {
	code int
	why  string
}

func (r *refusal) Error() string { return r.why }

func bad(why string) *refusal { return &refusal{400, why} }

// What is wrong with a message. The codes are documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html
var (
	errIncomplete = errors.New("the head is not complete")

	errLine      = bad("a line does not end with CRLF")
	errRequest   = bad("the request line is malformed")
	errStatus    = bad("the status line is malformed")
	errVersion   = &refusal{505, "the version of HTTP is not supported"}
	errName      = bad("a header's name is malformed")
	errValue     = bad("a header's value has a control character")
	errLength    = bad("the content length is malformed")
	errLengths   = bad("the content lengths differ")
	errEncoding  = &refusal{501, "the transfer encoding is not supported"}
	errEncodings = bad("the transfer encoding is malformed")
	errHost      = bad("there is not one host")
	errBig       = bad("a header is too long")
	errURI       = &refusal{414, "the request line is too long"}
	errMany      = bad("there are too many headers")
	errMethod    = &refusal{405, "the method is not supported"} // TRACE, documented
	errTarget    = bad("the request target is malformed")
	errSlow      = &refusal{408, "the client does not send the body"}
)

// Limits of a head, documented; those of the number of headers and of what Connection
// names are guessed: each header is looked for among them.
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
const (
	maxRequestLine  = 16 << 10
	maxField        = 16 << 10
	maxRequestHead  = 64 << 10
	maxResponseHead = 32 << 10
	maxFields       = 1000
	maxOptions      = 100
)

// text is bytes of a buffer as a string, which is valid as long as they are.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// parseRequest reads a request's head from what has come so far: errIncomplete if
// more must come, a refusal if it is none.
func (h *head) parseRequest(in []byte) error {
	h.reset()
	line, rest, err := cutLine(in, maxRequestLine)
	if errors.Is(err, errBig) {
		return errURI
	}
	if err != nil {
		return err
	}
	method, after, ok := bytes.Cut(line, space)
	if !ok || len(method) == 0 || !isToken(method) {
		return errRequest
	}
	end := bytes.IndexByte(after, ' ')
	if end <= 0 || !isVisible(after[:end]) {
		return errRequest
	}
	h.method, h.target = method, after[:end]
	if h.minor, err = version(after[end+1:]); err != nil {
		return err
	}
	if err := h.parseFields(in, rest, maxField, maxRequestHead); err != nil {
		return err
	}
	if h.hosts > 1 || h.hosts == 0 && h.minor > 0 || !isHost(h.host) {
		return errHost
	}
	if h.chunked && h.minor == 0 {
		return errEncodings // RFC 9112, 6.1: its framing is faulty
	}
	if !h.chunked && h.length < 0 {
		h.length = 0
	}
	return h.weigh()
}

// weigh looks for what makes a request ambiguous, or worse: it is carried, and its
// connections end after it. The cases and their classes are a load balancer's,
// documented: https://github.com/aws/http-desync-guardian
func (h *head) weigh() error {
	h.doubt = h.doubt || h.both
	for i := range h.fields {
		switch k := h.fields[i].kind; {
		case k == likeEncoding && h.said, k == likeLength && h.chunked:
			return errEncodings
		case k == likeEncoding, k == likeLength:
			h.doubt = true
		}
	}
	if m := text(h.method); (m == "GET" || m == "HEAD") && (h.chunked || h.length > 0) {
		h.doubt = true
	}
	return nil
}

// parseResponse reads an answer's head, as parseRequest does.
func (h *head) parseResponse(in []byte) error {
	h.reset()
	line, rest, err := cutLine(in, maxResponseHead)
	if err != nil {
		return err
	}
	proto, after, ok := bytes.Cut(line, space)
	if !ok {
		return errStatus
	}
	if h.minor, err = version(proto); err != nil {
		return err
	}
	if len(after) < 3 || len(after) > 3 && after[3] != ' ' || !isText(after) {
		return errStatus
	}
	h.status = after
	for _, c := range after[:3] {
		if c < '0' || c > '9' {
			return errStatus
		}
		h.code = h.code*10 + int(c-'0')
	}
	if h.code < 100 || h.code > 599 {
		return errStatus
	}
	if err := h.parseFields(in, rest, maxResponseHead, maxResponseHead); err != nil {
		return err
	}
	if h.chunked && h.minor == 0 {
		return errEncodings
	}
	return nil
}

// sets reports whether an answer sets a cookie.
func (h *head) sets(name string) bool {
	for i := range h.fields {
		if f := &h.fields[i]; f.kind == setCookie && len(f.value) > len(name) && f.value[len(name)] == '=' && text(f.value[:len(name)]) == name {
			return true
		}
	}
	return false
}

func (h *head) reset() { *h = head{fields: h.fields[:0], length: -1} }

var space = []byte{' '}

// cutLine cuts a line with its end off.
func cutLine(in []byte, limit int) (line, rest []byte, err error) {
	end := bytes.IndexByte(in, '\n')
	switch {
	case end > limit || end < 0 && len(in) > limit:
		return nil, nil, errBig
	case end < 0:
		return nil, nil, errIncomplete
	case end == 0 || in[end-1] != '\r':
		return nil, nil, errLine
	}
	return in[:end-1], in[end+1:], nil
}

// version is the minor version of HTTP/1.
func version(s []byte) (minor int, err error) {
	switch string(s) {
	case "HTTP/1.1":
		return 1, nil
	case "HTTP/1.0":
		return 0, nil
	}
	if len(s) == 8 && string(s[:5]) == "HTTP/" && s[6] == '.' && isDigit(s[5]) && isDigit(s[7]) {
		return 0, errVersion
	}
	return 0, errRequest
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// parseFields reads the headers from rest, which in ends with. It takes lines and a
// head up to their limits.
func (h *head) parseFields(in, rest []byte, ofLine, limit int) error {
	for {
		if len(in)-len(rest) > limit {
			return errBig
		}
		line, after, err := cutLine(rest, ofLine)
		if errors.Is(err, errIncomplete) && len(in) > limit {
			return errBig
		}
		if err != nil {
			return err
		}
		rest = after
		if len(line) == 0 {
			h.size = len(in) - len(rest)
			if h.size > limit {
				return errBig
			}
			return nil
		}
		if len(h.fields) == maxFields {
			return errMany
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !isToken(line[:colon]) {
			return errName
		}
		f := field{name: line[:colon], value: trim(line[colon+1:])}
		if !isText(f.value) {
			return errValue
		}
		f.kind = kindOf(f.name)
		if f.kind != other {
			if err := h.understand(f); err != nil {
				return err
			}
		}
		h.fields = append(h.fields, f)
	}
}

// understand notes what a header says of the message.
func (h *head) understand(f field) error {
	switch f.kind {
	case contentLength:
		n, ok := decimal(f.value)
		if !ok {
			return errLength
		}
		if h.said && h.length != n {
			return errLengths
		}
		h.doubt = h.said
		h.length, h.said = n, true
		h.both = h.chunked
	case transferEncoding:
		if h.chunked {
			return errEncodings
		}
		if !equalFold(f.value, "chunked") {
			return errEncoding
		}
		h.chunked = true
		h.both = h.length >= 0
	case host:
		h.host = f.value
		h.hosts++
	case connection_:
		for option := range bytes.SplitSeq(f.value, comma) {
			if h.options++; h.options > maxOptions {
				return errMany
			}
			switch option = trim(option); {
			case len(option) == 0:
			case equalFold(option, "close"):
				h.close = true
			case equalFold(option, "keep-alive"):
				h.keep = true
			case equalFold(option, "upgrade"):
				h.upgrade = true
			case kindOf(option) == other:
				h.named = true
			}
		}
	case expect:
		h.expects = equalFold(f.value, "100-continue")
	case te:
		h.trailers = h.trailers || equalFold(f.value, "trailers")
	}
	return nil
}

var comma = []byte{','}

// hop reports whether a header is between neighbours and goes no further. Upgrade
// is not one of them here: it goes on where the connection is to change.
func (h *head) hop(f *field) bool {
	switch f.kind {
	case connection_, keepAlive, proxyConnection, te, transferEncoding, http2Settings:
		return true
	case other:
		return h.named && h.names(f.name)
	}
	return false
}

// names reports whether Connection names a header.
func (h *head) names(name []byte) bool {
	for i := range h.fields {
		if h.fields[i].kind != connection_ {
			continue
		}
		for option := range bytes.SplitSeq(h.fields[i].value, comma) {
			if equalFold(trim(option), text(name)) {
				return true
			}
		}
	}
	return false
}

// value is the first header of a kind.
func (h *head) value(k kind) (v []byte, ok bool) {
	for i := range h.fields {
		if h.fields[i].kind == k {
			return h.fields[i].value, true
		}
	}
	return nil, false
}

// upgrades is what a message wants its connection to become, if anything.
func (h *head) upgrades() (to []byte, ok bool) {
	if !h.upgrade || h.minor == 0 {
		return nil, false
	}
	to, ok = h.value(upgradeTo)
	return to, ok && !equalFold(to, "h2c") // RFC 9113 has taken it back, and rules would not be asked any more
}

// persists reports whether the sender of the message keeps its connection.
func (h *head) persists() bool { return !h.close && !h.both && !h.doubt && (h.minor == 1 || h.keep) }

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// decimal reads a number of digits alone.
func decimal(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// equalFold compares without regard to case, of ASCII.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c != s[i] && lower(c) != lower(s[i]) {
			return false
		}
	}
	return true
}

// The characters of a token, of a value and of a request target, RFC 9110, 5.6.2
// and 5.5, RFC 9112, 3.2; bytes beyond ASCII are taken as they are.
const (
	inToken = 1 << iota
	inText
	inTarget
)

var classes = func() (t [256]uint8) {
	for c := range t {
		if c >= 0x20 && c != 0x7f || c == '\t' {
			t[c] |= inText
		}
		if c > 0x20 && c != 0x7f {
			t[c] |= inTarget
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] |= inToken
	}
	return t
}()

func allOf(b []byte, class uint8) bool {
	for _, c := range b {
		if classes[c]&class == 0 {
			return false
		}
	}
	return true
}

func isToken(b []byte) bool   { return allOf(b, inToken) }
func isText(b []byte) bool    { return allOf(b, inText) }
func isVisible(b []byte) bool { return allOf(b, inTarget) }

// isHost reports whether a Host can be one: RFC 3986's host and port.
func isHost(b []byte) bool {
	for _, c := range b {
		if classes[c]&inToken == 0 && c != ':' && c != '[' && c != ']' && c != '(' && c != ')' && c != ',' && c != ';' && c != '=' || c == '#' || c == '^' || c == '`' || c == '|' {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
