package balance

import (
	"crypto/tls"
	"strings"
	"time"
)

// entry begins the note of an exchange: what its head says, which does not outlive it.
func (x *exchange) entry() *Entry {
	h := &x.head
	e := &Entry{
		Kind: x.sender.proto(), Began: x.sender.now, Client: x.sender.peer, Receiving: -1, Processing: -1, Responding: -1, Code: -1, TargetCode: -1,
		Method: string(h.method), Proto: "HTTP/1.1", URL: fullURL(&x.request, x.sender.proto(), x.sender.port),
	}
	if x.old {
		e.Proto = "HTTP/1.0"
	}
	if agent, ok := h.value(userAgent); ok {
		e.UserAgent = string(agent)
	}
	trace, _ := h.value(traceID)
	e.Trace = x.sender.traced(trace)
	if x.upgrade {
		e.Kind = strings.Replace(e.Kind, "http", "ws", 1)
	}
	e.secured(x.c.secure)
	return e
}

// unread is the note of what was no request: nothing of it is told, observed.
func (x *exchange) unread() *Entry {
	e := &Entry{
		Kind: "http", Began: x.sender.now, Client: x.c.peer, Receiving: -1, Processing: -1, Responding: -1, Code: -1, TargetCode: -1,
		Method: "-", Proto: "-",
	}
	if x.c.secure != nil {
		e.Kind = "https"
	}
	e.URL = e.Kind + "://" + x.f.l.at + "-"
	e.secured(x.c.secure)
	return e
}

// log tells whoever logs of an exchange that is over.
func (x *exchange) log() {
	e := x.note
	e.Ended = time.Now()
	e.chose(&x.choice)
	if e.Processing >= 0 {
		e.Responding = e.Ended.Sub(e.Began) - e.Processing - e.Receiving
	}
	x.spec.Log(e)
}

// entry is the note of a stream that is over.
func (s *stream) entry(out *told) *Entry {
	e := &Entry{
		Kind: "h2", Began: s.began, Ended: time.Now(), Client: s.sender.peer, Receiving: -1, Processing: -1, Responding: -1, Code: out.code, TargetCode: -1, Received: s.received.Load(), Sent: out.sent,
		Method: s.request.method, Proto: "HTTP/2.0", URL: fullURL(&s.request, s.sender.proto(), s.sender.port),
		UserAgent: s.request.header.Get("User-Agent"), Trace: s.sender.trace,
	}
	if s.grpc {
		e.Kind = "grpcs"
	}
	if s.gone {
		e.Code = clientGone
	}
	if s.target != nil && s.took > 0 {
		e.TargetCode, e.Receiving, e.Processing = out.code, time.Duration(s.sent.Load()), s.took
		e.Responding = e.Ended.Sub(e.Began) - e.Processing - e.Receiving
	}
	if s.choice.rule != nil && s.choice.rule.Redirect != nil {
		e.RedirectURL = out.Header().Get("Location")
	}
	e.secured(s.sender.secure)
	e.chose(&s.choice)
	return e
}

func (e *Entry) secured(state *tls.ConnectionState) {
	if state != nil {
		e.Cipher, e.TLSVersion, e.ServerName = tls.CipherSuiteName(state.CipherSuite), tlsName(state.Version), state.ServerName
	}
}

// chose notes which rule, group and target were chosen.
func (e *Entry) chose(c *choice) {
	if c.rule == nil {
		return
	}
	e.Rule = c.rule.ID
	switch {
	case c.rule.Fixed != nil:
		e.Action = "fixed-response"
	case c.rule.Redirect != nil:
		e.Action = "redirect"
	case c.group != nil:
		e.Group, e.Action = c.group.id, "forward"
	}
	if c.target != nil {
		e.Target = c.target.addr
	}
}

// fullURL is a request's URL as an access log has it, with its port.
func fullURL(r *request, proto string, port uint16) string {
	return (&Redirect{}).location(r, proto, port)
}
