package balance

import (
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// The balancer's own answers over HTTP/1.1.

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
	x.f.l.load.answered(code)
	x.parts = x.say(code, "text/html", page(code), "") == nil
	return false
}

// refuse answers a request for which no target does.
func (x *exchange) refuse(code int) (again bool) {
	x.f.l.load.answered(code)
	return x.answerSelf(code, "text/html", page(code), "")
}

// tell answers as a rule wants it.
func (x *exchange) tell(code int, contentType, body, location string) (again bool) {
	x.f.l.load.answered(code)
	if x.note != nil {
		x.note.RedirectURL = location
	}
	return x.answerSelf(code, contentType, body, location)
}

// answerSelf answers in a target's place. A body that has not come is not waited for.
func (x *exchange) answerSelf(code int, contentType, body, location string) (again bool) {
	whole := !x.beside && x.unsent == nil
	if whole && !x.body.done() {
		n, err := x.body.scan(x.c.unread())
		x.c.pass(n)
		x.received(n)
		whole = err == nil && x.body.done()
	}
	x.persist = x.persist && whole && !x.f.closing.Load()
	if x.say(code, contentType, body, location) != nil {
		return false
	}
	x.parts = !whole || !x.persist && x.c.saysMore()
	return x.persist
}

// say writes an answer.
func (x *exchange) say(code int, contentType, body, location string) error {
	if x.note != nil {
		x.note.Code = code
	}
	out := append(x.out[:0], "HTTP/1.1 "...)
	out = append(strconv.AppendInt(out, int64(code), 10), ' ')
	out = append(append(out, reason(code)...), "\r\n"...)
	if !x.spec.Headers.NoServer {
		out = append(out, "Server: awselb/2.0\r\n"...)
	}
	out = append(out, "Date: "...)
	out = append(x.sender.now.UTC().AppendFormat(out, http.TimeFormat), "\r\n"...)
	if contentType != "" {
		out = appendField(out, "Content-Type", []byte(contentType))
	}
	if location != "" {
		out = appendField(out, "Location", []byte(location))
	}
	if code != http.StatusNoContent { // RFC 9110, 8.6
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, int64(len(body)), 10), "\r\n"...)
	}
	for _, h := range x.spec.Headers.Answers {
		out = appendField(out, h.Name, []byte(h.Value))
	}
	if x.persist {
		out = append(out, "Connection: keep-alive\r\n\r\n"...)
	} else {
		out = append(out, "Connection: close\r\n\r\n"...)
	}
	if !x.isHead && code != http.StatusNoContent {
		out = append(out, body...)
	}
	x.out = out
	x.sent(len(out))
	_, err := x.c.Write(out)
	return err
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
