package balance

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// stream is one request over HTTP/2. What is decided for it is decided as for an
// exchange; what is sent, net/http sends.
type stream struct {
	choice
	in      *http.Request
	l       *listener
	b       *Balancer
	spec    *live
	request request
	sender  sender
	grpc    bool
	bare    bool // the answer has no body
	gone    bool // the client has not waited for one
	last    bool // its connection has lived long enough
	began   time.Time
	took    time.Duration
	sent    atomic.Int64 // since it began; 0: it is still being sent

	received atomic.Int64 // bytes of the body
}

type streamKey struct{}

func streamOf(ctx context.Context) *stream { return ctx.Value(streamKey{}).(*stream) }

// handler answers the requests of a listener that come over HTTP/2.
func (b *Balancer) handler(l *listener) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport:      carrier{},
		BufferPool:     buffers{},
		FlushInterval:  -1,
		ErrorLog:       b.quiet(),
		Rewrite:        func(r *httputil.ProxyRequest) { streamOf(r.In.Context()).rewrite(r) },
		ModifyResponse: func(r *http.Response) error { streamOf(r.Request.Context()).complete(r); return nil },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			streamOf(r.Context()).failed(w, err)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.load.underWay.Add(1)
		defer l.load.underWay.Add(-1)
		s := newStream(b, l, r)
		out := &told{ResponseWriter: w, s: s}
		defer s.end(out)
		if wrong := s.unfit(); wrong != nil {
			s.tell(out, failure(wrong.code))
		} else if rule := s.spec.match(&s.request); rule == nil {
			s.tell(out, failure(http.StatusNotFound))
		} else if own, ok := rule.own(l.load, &s.request, &s.sender); ok {
			s.choice.rule = rule
			s.tell(out, own)
		} else if s.choice = rule.choose(&s.request, s.sender.now, b.Clock.Now); s.refused(out) {
			s.leave()
		} else {
			proxy.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), streamKey{}, s)))
		}
	})
}

// unfit is why a request is not carried that net/http takes for one, nil if it is: what
// a head of HTTP/1.1 is refused for. How long all of it is, net/http has looked at.
func (s *stream) unfit() *refusal {
	switch {
	case len(s.in.Method)+len(s.in.RequestURI) > maxRequestLine:
		return errURI
	case s.in.Method == http.MethodTrace:
		return errMethod
	case s.in.Method == http.MethodConnect:
		return errTarget
	case !isHost([]byte(s.in.Host)):
		return errHost
	}
	for name, values := range s.in.Header {
		for _, v := range values {
			if len(name)+len(v) > maxField {
				return errBig
			}
		}
	}
	return nil
}

// refused answers a request for which no target is asked.
func (s *stream) refused(w http.ResponseWriter) bool {
	code := s.choice.refusal(&s.request, HTTP2, s.grpc)
	if code != 0 {
		s.tell(w, failure(code))
	}
	return code != 0
}

// leave lets the target go that was chosen, if one was.
func (s *stream) leave() {
	if s.target != nil {
		s.b.leave(s.group, s.target)
	}
}

func newStream(b *Balancer, l *listener, r *http.Request) *stream {
	s := &stream{in: r, b: b, l: l, spec: l.live.Load(), began: time.Now(), grpc: strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")}
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	s.sender = sender{peer: peer, port: l.addr.Port(), host: l.at, secure: r.TLS, now: s.began}
	born, _ := r.Context().Value(bornKey{}).(time.Time)
	s.last = s.began.Sub(born) >= s.spec.life()
	if s.spec.Log != nil {
		s.sender.traced([]byte(r.Header.Get("X-Amzn-Trace-Id")))
	}
	s.request = request{method: r.Method, host: cmp.Or(hostname(r.Host), hostname(s.sender.host)), path: r.URL.EscapedPath(), query: r.URL.RawQuery, client: peer.Addr(), header: r.Header}
	return s
}

// rewrite makes the request that the target gets, with the headers that
// appendRequest gives one of HTTP/1.1.
func (s *stream) rewrite(r *httputil.ProxyRequest) {
	h, rules := r.Out.Header, s.spec.Headers
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "target"        // which one is said when it is sent
	r.Out.Close = safe(r.In.Method) && r.In.ContentLength != 0 // a target that reads no body of it takes that for a request
	r.Out.URL.RawQuery = r.In.URL.RawQuery                     // as it came, whatever is in it
	r.Out.Host = text(s.sender.appendHost(nil, rules, []byte(r.In.Host)))
	h.Del("X-Forwarded-For")
	came := strings.Join(r.In.Header.Values("X-Forwarded-For"), ", ")
	if rules.ForwardedFor != "remove" && (rules.ForwardedFor != "preserve" || came != "") {
		h.Set("X-Forwarded-For", text(s.sender.appendForwardedFor(nil, rules, []byte(came))))
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-Host"} { // which net/http has taken out
		if came, ok := r.In.Header[name]; ok {
			h[name] = came
		}
	}
	h.Set("X-Forwarded-Proto", s.sender.proto())
	h.Set("X-Forwarded-Port", strconv.Itoa(int(s.sender.port)))
	h.Set("X-Amzn-Trace-Id", text(s.sender.appendTrace(nil, []byte(r.In.Header.Get("X-Amzn-Trace-Id")))))
	h.Del("x-amzn-tls-version")
	h.Del("x-amzn-tls-cipher-suite")
	if rules.TLSInfo && s.sender.secure != nil {
		h.Set("x-amzn-tls-version", tlsName(s.sender.secure.Version))
		h.Set("x-amzn-tls-cipher-suite", tls.CipherSuiteName(s.sender.secure.CipherSuite))
	}
	for name, values := range h {
		switch small := strings.ToLower(name); {
		case rules.DropInvalid && !isPlain([]byte(name)):
			delete(h, name)
		case !ownNames[name] && small != name: // as they came over HTTP/2
			delete(h, name)
			h[small] = values
		}
	}
}

// ownNames are those that net/http or the balancer writes, in the spelling of
// HTTP/1.1.
var ownNames = map[string]bool{
	"User-Agent": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Connection": true, "Te": true, "Upgrade": true, "Host": true,
	"X-Forwarded-For": true, "X-Forwarded-Proto": true, "X-Forwarded-Port": true, "X-Amzn-Trace-Id": true,
}

// complete puts into an answer what a load balancer does.
func (s *stream) complete(r *http.Response) {
	s.bare = r.ContentLength == 0
	if r.StatusCode == http.StatusNoContent { // RFC 9110, 8.6; clients take it for an error
		r.Header.Del("Content-Length")
	}
	if s.sticks() {
		sets := func(name string) bool {
			for _, line := range r.Header["Set-Cookie"] {
				if strings.HasPrefix(line, name+"=") {
					return true
				}
			}
			return false
		}
		s.cookies(s.sender.now, s.sender.secure != nil, sets, func(line string) { r.Header.Add("Set-Cookie", line) })
	}
	for _, own := range s.spec.Headers.Answers {
		if r.Header.Get(own.Name) == "" {
			r.Header.Set(own.Name, own.Value)
		}
	}
}

var errSwitched = errors.New("the target changes the protocol unasked")

// failed is what a client gets when no target answered: 504 when one was too slow,
// 502 when it broke off.
func (s *stream) failed(w http.ResponseWriter, err error) {
	code := http.StatusBadGateway
	switch {
	case errors.Is(err, context.Canceled):
		s.l.load.answered(clientGone)
		s.gone = true
		return
	case errors.Is(err, context.DeadlineExceeded):
		code = http.StatusGatewayTimeout
	}
	s.tell(w, failure(code))
}

// tell answers in a target's place.
func (s *stream) tell(w http.ResponseWriter, a ownAnswer) {
	s.l.load.answered(a.code)
	h := w.Header()
	if !s.spec.Headers.NoServer {
		h.Set("Server", "awselb/2.0")
	}
	if a.contentType != "" {
		h.Set("Content-Type", a.contentType)
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	for _, own := range s.spec.Headers.Answers {
		h.Set(own.Name, own.Value)
	}
	if a.code != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.code)
	io.WriteString(w, a.body)
}

// end tells whoever logs.
func (s *stream) end(out *told) {
	if s.spec.Log == nil {
		return
	}
	s.spec.Log(s.entry(out))
}

// told is a ResponseWriter that notes what is told.
type told struct {
	http.ResponseWriter
	s    *stream
	code int
	sent int64
}

func (t *told) WriteHeader(code int) {
	if code >= 200 {
		t.code = code
		if t.s.last {
			t.Header().Set("Connection", "close") // net/http makes a GOAWAY of it
		}
	}
	t.ResponseWriter.WriteHeader(code)
}

func (t *told) Write(p []byte) (int, error) {
	n, err := t.ResponseWriter.Write(p)
	t.sent += int64(n)
	return n, err
}

// FlushError is for http.ResponseController. A head with nothing behind it is not sent
// before it is known to be the end.
func (t *told) FlushError() error {
	if t.s.bare {
		return nil
	}
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// Unwrap is, too.
func (t *told) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// carrier sends a stream's request to the target that was chosen.
type carrier struct{}

func (carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	s := streamOf(r.Context())
	s.meter.requests.Add(1)
	resp, err := s.send(r)
	if err != nil && s.repeatable(r, err) {
		if other := s.group.take(s.target, s.b.Clock.Now); other != nil {
			s.group.retried.Add(1)
			s.target = other
			resp, err = s.send(r)
		}
	}
	if err != nil {
		s.group.unanswered.Add(1)
	}
	return resp, err
}

// repeatable reports whether another target may be asked after one that did not answer:
// it got nothing, or a second time does no harm. One that is late is not passed over.
func (s *stream) repeatable(r *http.Request, err error) bool {
	switch {
	case r.Context().Err() != nil:
		return false
	case errors.As(err, new(*unreached)):
		return true
	}
	return safe(r.Method) && !s.uploads() && !errors.Is(err, context.DeadlineExceeded)
}

// uploads reports whether something follows the request's head, or may.
func (s *stream) uploads() bool {
	return s.in.Body != nil && s.in.Body != http.NoBody && s.in.ContentLength != 0
}

// upload is a request's body on its way to a target. It says how much of it has come,
// and of its end that nothing has.
type upload struct {
	body  io.ReadCloser
	came  func(n int)
	begun atomic.Bool
}

func (u *upload) Read(p []byte) (int, error) {
	u.begun.Store(true)
	n, err := u.body.Read(p)
	if n > 0 || err == io.EOF {
		u.came(n)
	}
	return n, err
}

// Close ends whoever reads. A body of which nothing was read may be sent to another target.
func (u *upload) Close() error {
	if !u.begun.Load() {
		return nil
	}
	return u.body.Close()
}

// send sends the request to the target, and leaves it when the answer is over.
func (s *stream) send(r *http.Request) (*http.Response, error) {
	t := s.target
	s.sent.Store(0)
	t.requests.Add(1)
	sends := s.uploads()
	allSent := func() { s.sent.Store(int64(time.Since(s.began))) }
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if !sends {
			allSent()
		}
	}})
	ctx, cancel := context.WithCancelCause(ctx)
	idle := s.spec.idle()
	slow := time.AfterFunc(idle, func() {
		cancel(context.DeadlineExceeded)
		if sends { // a transport waits for whoever reads it
			s.in.Body.Close()
		}
	})
	stir := func() { slow.Reset(idle) }
	out := r.Clone(ctx)
	if sends {
		out.Trailer = s.in.Trailer // which are filled when the body has ended
		out.Body = &upload{body: s.in.Body, came: func(n int) {
			stir()
			if s.received.Add(int64(n)) == r.ContentLength || n == 0 {
				allSent()
			}
		}}
	}
	v := s.group.version.Load()
	out.URL.Host = t.at
	if v.tls {
		out.URL.Scheme = "https"
	}
	resp, err := s.b.transportFor(v).RoundTrip(out)
	if err == nil {
		if err = answerable(resp.StatusCode); err != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		if context.Cause(ctx) == context.DeadlineExceeded {
			err = context.DeadlineExceeded
		}
		slow.Stop()
		cancel(nil)
		s.b.leave(s.group, t)
		return nil, err
	}
	s.took = time.Since(s.began) - time.Duration(s.sent.Load())
	s.choice.answered(resp.StatusCode, s.took)
	stir()
	resp.Body = &counted{resp.Body, stir, sync.OnceFunc(func() { slow.Stop(); cancel(nil); s.b.leave(s.group, t) })}
	return resp, nil
}

// answerable is why a client cannot be given an answer of this code, nil if it can.
func answerable(code int) error {
	switch {
	case code == http.StatusSwitchingProtocols:
		return errSwitched
	case code > 599:
		return errStatus
	}
	return nil
}

// transportFor is the transport to targets that speak v.
func (b *Balancer) transportFor(v *groupVersion) *http.Transport {
	if v.Version == HTTP1 {
		return b.transports[0]
	}
	return b.transports[1]
}

// newTransports makes those for targets of HTTP/1.1 and of HTTP/2.
func (b *Balancer) newTransports() (list [2]*http.Transport) {
	for i := range list {
		list[i] = &http.Transport{
			DialContext:         b.dial,
			DialTLSContext:      b.dialTLS(i == 1),
			MaxIdleConns:        4096,
			MaxIdleConnsPerHost: maxKept,
			IdleConnTimeout:     keptFor,
			DisableCompression:  true,
			Protocols:           speaking(i == 1),

			MaxResponseHeaderBytes: maxResponseHead,
		}
	}
	return list
}

// speaking is HTTP/2 alone, over TLS or not, or HTTP/1.1 alone.
func speaking(http2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetHTTP2(http2)
	p.SetUnencryptedHTTP2(http2)
	return p
}

// dial makes a connection to a target and counts it for the listener whose
// request wanted one.
func (b *Balancer) dial(ctx context.Context, _, address string) (net.Conn, error) {
	m := streamOf(ctx).meter
	conn, err := b.dialTarget(ctx, address)
	if err != nil {
		m.failed.Add(1)
		return nil, &unreached{err}
	}
	m.load.connected()
	return &connection{Conn: conn, load: m.load}, nil
}

// dialTLS is dial to a target under TLS, which agrees on HTTP/2 where that is spoken.
func (b *Balancer) dialTLS(http2 bool) func(context.Context, string, string) (net.Conn, error) {
	config := unverified()
	if http2 {
		config.NextProtos = []string{"h2"}
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := b.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		secure, err := agree(ctx, nc, config)
		if err != nil {
			streamOf(ctx).meter.failed.Add(1)
			return nil, &unreached{err}
		}
		return secure, nil
	}
}

// unreached is why a target was not asked: no connection to it could be made.
type unreached struct{ err error }

func (e *unreached) Error() string { return e.err.Error() }
func (e *unreached) Unwrap() error { return e.err }

// quiet is a log for what net/http has to say of clients.
func (b *Balancer) quiet() *log.Logger { return slog.NewLogLogger(b.Log.Handler(), slog.LevelDebug) }

// counted is a body that says when some of it has come, and when it is over.
type counted struct {
	io.ReadCloser
	came, done func()
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.came()
	}
	return n, err
}

func (c *counted) Close() error {
	defer c.done()
	return c.ReadCloser.Close()
}

// buffers lends the proxy its copy buffers.
type buffers struct{}

func (buffers) Get() []byte  { return *larges.Get().(*[]byte) }
func (buffers) Put(b []byte) { larges.Put(&b) }
