package balance

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// request is what rules look at: of HTTP/1.1 the head in its buffer, of HTTP/2 what
// net/http made of it.
type request struct {
	method, host, path, query string
	client                    netip.Addr
	head                      *head       // either
	header                    http.Header // or
}

// of takes the parts of a request target. One in absolute form is made one of a
// path, and its host the request's: that is the one that counts, RFC 9112, 3.2.2.
func (r *request) of(h *head, client netip.Addr) error {
	if h.target[0] != '/' {
		if at := afterScheme(h.target); at > 0 {
			h.host, h.target = h.target[at:], rootPath
			if end := bytes.IndexAny(h.host, "/?"); end >= 0 {
				h.target = h.host[end:]
				h.host = h.host[:end]
			}
			if h.target[0] == '?' {
				h.target = append([]byte("/"), h.target...)
			}
			if len(h.host) == 0 || !isHost(h.host) {
				return errHost
			}
		}
	}
	if h.target[0] != '/' && text(h.target) != "*" { // that of CONNECT, too, which a load balancer is not for
		return errTarget
	}
	if text(h.method) == "TRACE" {
		return errMethod
	}
	path, query, _ := strings.Cut(text(h.target), "?")
	*r = request{method: text(h.method), host: hostname(text(h.host)), path: path, query: query, client: client, head: h}
	return nil
}

var rootPath = []byte("/")

// afterScheme is where the host of a target in absolute form begins, 0 of any other.
func afterScheme(target []byte) int {
	for _, scheme := range []string{"http://", "https://"} {
		if n := len(scheme); len(target) > n && equalFold(target[:n], scheme) {
			return n
		}
	}
	return 0
}

// hostname is a host without its port.
func hostname(authority string) string {
	if at := strings.LastIndexByte(authority, ':'); at >= 0 && !strings.HasSuffix(authority, "]") {
		return authority[:at]
	}
	return authority
}

// any reports whether one of the values of a header is as the condition wants.
func (r *request) any(name string, c *condition) bool {
	if r.head == nil {
		return slices.ContainsFunc(r.header.Values(name), c.likes)
	}
	for i := range r.head.fields {
		if f := &r.head.fields[i]; len(f.name) == len(name) && equalFold(f.name, name) && c.likes(text(f.value)) {
			return true
		}
	}
	return false
}

// sources is how many addresses X-Forwarded-For has.
func (r *request) sources() (n int) {
	for _, line := range r.header["X-Forwarded-For"] {
		n += 1 + strings.Count(line, ",")
	}
	if r.head != nil {
		for i := range r.head.fields {
			if f := &r.head.fields[i]; f.kind == forwardedFor {
				n += 1 + bytes.Count(f.value, comma)
			}
		}
	}
	return n
}

// maxSources is how many addresses X-Forwarded-For may have, documented.
const maxSources = 30

// condition is a Condition that is ready to be asked.
type condition struct {
	Condition
	regexes  []*regexp.Regexp
	networks []netip.Prefix
}

// prepare reads the patterns of a condition; an error names what is no pattern.
func (c Condition) prepare() (*condition, error) {
	out := &condition{Condition: c}
	for _, s := range c.Regexes {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, fmt.Errorf("reading the regular expression %q: %w", s, err)
		}
		out.regexes = append(out.regexes, re)
	}
	if c.Field == "source-ip" {
		for _, s := range c.Values {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, fmt.Errorf("reading the range of addresses %q: %w", s, err)
			}
			out.networks = append(out.networks, p.Masked())
		}
	}
	return out, nil
}

func (r *rule) matches(req *request) bool {
	for _, c := range r.match {
		if !c.matches(req) {
			return false
		}
	}
	return true
}

func (c *condition) matches(r *request) bool {
	switch c.Field {
	case "host-header":
		return c.likes(r.host)
	case "path-pattern":
		return c.likes(r.path)
	case "http-header":
		return r.any(c.Header, c)
	case "http-request-method":
		return slices.Contains(c.Values, r.method)
	case "query-string":
		return c.inQuery(r.query)
	case "source-ip":
		return slices.ContainsFunc(c.networks, func(n netip.Prefix) bool { return n.Contains(r.client) })
	}
	return false
}

// likes compares with patterns and expressions; only paths and expressions are
// particular about case, documented.
func (c *condition) likes(s string) bool {
	for _, p := range c.Values {
		if glob(p, s, c.Field != "path-pattern", false) {
			return true
		}
	}
	for _, re := range c.regexes {
		if re.MatchString(s) {
			return true
		}
	}
	return false
}

func (c *condition) inQuery(query string) bool {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		for _, p := range c.Query {
			if (p.Key == "" || glob(p.Key, key, true, true)) && glob(p.Value, value, true, true) {
				return true
			}
		}
	}
	return false
}

// glob matches a pattern in which * stands for any characters and ? for one. With
// escapes a backslash takes the meaning of what follows, as documented for query
// strings.
func glob(pattern, s string, fold, escapes bool) bool {
	p, i := 0, 0
	star, from := -1, 0 // where the last star is and what it has taken up to
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
			continue
		case p < len(pattern):
			c, width := pattern[p], 1
			literal := escapes && c == '\\' && p+1 < len(pattern)
			if literal {
				c, width = pattern[p+1], 2
			}
			if c == '?' && !literal || c == s[i] || fold && lower(c) == lower(s[i]) {
				p, i = p+width, i+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, i = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
