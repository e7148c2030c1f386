package balance

import (
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// ownAnswer is what the balancer answers in a target's place.
type ownAnswer struct {
	code                        int
	contentType, body, location string
}

// failure is the answer to a request that no target answers.
func failure(code int) ownAnswer { return ownAnswer{code, "text/html", page(code), ""} }

// own is what a rule wants answered without a target, if it is one of that kind.
func (r *rule) own(l *load, req *request, s *sender) (a ownAnswer, ok bool) {
	r.tally.requests.Add(1)
	switch {
	case r.Fixed != nil:
		l.fixed.Add(1)
		return ownAnswer{r.Fixed.Code, r.Fixed.ContentType, r.Fixed.Body, ""}, true
	case r.Redirect != nil:
		l.redirects.Add(1)
		a = failure(r.Redirect.Code)
		a.location = r.Redirect.location(req, s.proto(), s.port)
		return a, true
	}
	return a, false
}

// Over HTTP/1.1:

// turnAway answers what is no request that can be carried, and ends the connection:
// where the next one begins, nobody knows.
func (x *exchange) turnAway(err error) bool {
	var wrong *refusal
	code := 0
	switch {
	case errors.As(err, &wrong):
		code = wrong.code
	case errors.Is(err, os.ErrDeadlineExceeded) && x.c.phase.Load() == heading:
		code = http.StatusRequestTimeout
	default:
		return false
	}
	x.persist = false
	x.sender.now = time.Now()
	if x.note == nil && x.spec.Log != nil {
		x.note = x.unread()
	}
	x.f.l.load.answered(code)
	x.parts = x.say(failure(code)) == nil
	return false
}

// refuse answers a request for which no target does.
func (x *exchange) refuse(code int) (again bool) { return x.tell(failure(code)) }

// tell answers in a target's place. A body that has not come is not waited for.
func (x *exchange) tell(a ownAnswer) (again bool) {
	x.f.l.load.answered(a.code)
	if x.note != nil {
		x.note.RedirectURL = a.location
	}
	whole := !x.beside && x.unsent == nil
	if whole && !x.body.done() {
		n, err := x.body.scan(x.c.unread())
		x.c.pass(n)
		x.received(n)
		whole = err == nil && x.body.done()
	}
	x.persist = x.persist && whole && !x.f.closing.Load()
	if x.say(a) != nil {
		return false
	}
	x.parts = !whole || !x.persist && x.c.saysMore()
	return x.persist
}

// say writes an answer.
func (x *exchange) say(a ownAnswer) error {
	if x.note != nil {
		x.note.Code = a.code
	}
	out := append(x.out[:0], "HTTP/1.1 "...)
	out = append(strconv.AppendInt(out, int64(a.code), 10), ' ')
	out = append(append(out, reason(a.code)...), "\r\n"...)
	if !x.spec.Headers.NoServer {
		out = append(out, "Server: awselb/2.0\r\n"...)
	}
	out = append(out, "Date: "...)
	out = append(x.sender.now.UTC().AppendFormat(out, http.TimeFormat), "\r\n"...)
	if a.contentType != "" {
		out = appendField(out, "Content-Type", []byte(a.contentType))
	}
	if a.location != "" {
		out = appendField(out, "Location", []byte(a.location))
	}
	if a.code != http.StatusNoContent { // RFC 9110, 8.6
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, int64(len(a.body)), 10), "\r\n"...)
	}
	for _, h := range x.spec.Headers.Answers {
		out = appendField(out, h.Name, []byte(h.Value))
	}
	if x.persist {
		out = append(out, "Connection: keep-alive\r\n\r\n"...)
	} else {
		out = append(out, "Connection: close\r\n\r\n"...)
	}
	if !x.isHead && a.code != http.StatusNoContent {
		out = append(out, a.body...)
	}
	x.out = out
	x.sent(len(out))
	return x.c.put(x.output.of(out, nil))
}

// reason is a code in words, as a load balancer has them.
func reason(code int) string {
	switch code {
	case 414:
		return "Request-URI Too Large"
	case 464:
		return "Incompatible Protocol"
	case 503:
		return "Service Temporarily Unavailable"
	case 504:
		return "Gateway Time-out"
	}
	if s := http.StatusText(code); s != "" {
		return s
	}
	return "Unknown"
}

// page is the body of a load balancer's own answer, observed.
func page(code int) string {
	title := strconv.Itoa(code) + " " + reason(code)
	return "<html>\r\n<head><title>" + title + "</title></head>\r\n<body>\r\n<center><h1>" + title + "</h1></center>\r\n</body>\r\n</html>\r\n"
}

// location is where a redirect sends a request.
func (r *Redirect) location(req *request, proto string, port uint16) string {
	from := strings.NewReplacer("#{protocol}", proto, "#{host}", req.host, "#{port}", strconv.Itoa(int(port)), "#{path}", strings.TrimPrefix(req.path, "/"), "#{query}", req.query)
	or := func(wanted, otherwise string) string {
		if wanted == "" {
			wanted = otherwise
		}
		return from.Replace(wanted)
	}
	to := strings.ToLower(or(r.Protocol, "#{protocol}"))
	url := to + "://" + or(r.Host, "#{host}") + ":" + or(r.Port, "#{port}") + or(r.Path, "/#{path}")
	if query := or(r.Query, "#{query}"); query != "" {
		url += "?" + query
	}
	return url
}

// linger ends a connection whose client may still send: it is told the end, and
// what it sends is read for a while, so that it is not reset before it has read
// what it was told.
func (c *client) linger() {
	if closeWrite(c.Conn) != nil {
		return
	}
	c.phase.Store(ended)
	c.SetReadDeadline(time.Now().Add(lingering))
	for taken := 0; taken < maxLingering; {
		c.release()
		if c.fill() != nil {
			return
		}
		taken += len(c.unread())
	}
}

// saysMore reports whether something has come that nobody will read: a connection
// that is closed on it is reset.
func (c *client) saysMore() (yes bool) {
	if len(c.unread()) > 0 || c.socket == nil {
		return len(c.unread()) > 0
	}
	c.socket.Control(func(fd uintptr) {
		n, _ := peekAt(fd)
		yes = n > 0
	})
	return yes
}

// For how long, and for how many bytes, a client is listened to in vain; guessed.
const (
	lingering    = 2 * time.Second
	maxLingering = 1 << 20
)
