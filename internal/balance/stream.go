package balance

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
)

// counted is a response body that says when it is over.
type counted struct {
	io.ReadCloser
	done func()
}

func (c *counted) Close() error {
	defer c.done()
	return c.ReadCloser.Close()
}

type readWriteCloser interface {
	io.ReadWriteCloser
}

// upgraded is the connection after a 101, for WebSocket.
type upgraded struct {
	readWriteCloser
	done func()
}

func (u *upgraded) Close() error {
	defer u.done()
	return u.readWriteCloser.Close()
}

// buffers lends the proxy its copy buffers.
type buffers struct{}

var pool = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (buffers) Get() []byte  { return pool.Get().(*[32 << 10]byte)[:] }
func (buffers) Put(b []byte) { pool.Put((*[32 << 10]byte)(b)) }

func (r *rule) matches(req *http.Request) bool {
	for _, c := range r.Match {
		if !c.matches(req) {
			return false
		}
	}
	return true
}

func (c Condition) matches(r *http.Request) bool {
	for _, want := range c.Values {
		switch c.Field {
		case "host-header":
			host, _, _ := strings.Cut(r.Host, ":")
			if wildcard(strings.ToLower(want), strings.ToLower(host)) {
				return true
			}
		case "path-pattern":
			if wildcard(want, r.URL.Path) {
				return true
			}
		case "http-header":
			for _, have := range r.Header.Values(c.Header) {
				if wildcard(strings.ToLower(want), strings.ToLower(have)) {
					return true
				}
			}
		case "http-request-method":
			if want == r.Method {
				return true
			}
		}
	}
	return false
}

var wildcards sync.Map // pattern → *regexp.Regexp

func wildcard(pattern, s string) bool {
	if !strings.ContainsAny(pattern, "*?") {
		return pattern == s
	}
	re, ok := wildcards.Load(pattern)
	if !ok {
		text := regexp.QuoteMeta(pattern)
		text = strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(text)
		re, _ = wildcards.LoadOrStore(pattern, regexp.MustCompile("(?s)^"+text+"$"))
	}
	return re.(*regexp.Regexp).MatchString(s)
}
