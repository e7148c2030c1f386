package balance

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The cookies of a load balancer, documented. What is in them is not; here it is
// when they end and whom they name, by a digest, so that a stage that is started
// again knows them.
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html#sticky-sessions
const (
	targetCookie = "AWSALB"
	appCookie    = "AWSALBAPP-0"
	groupCookie  = "AWSALBTG"
	crossSite    = "CORS" // the same for requests from other sites
)

// tagOf names a target or a group in a cookie.
func tagOf(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:12])
}

const tagSize = 24

// named is whom a request's cookie names, "" if it has none that is in force.
func (r *request) named(name string, now time.Time) string {
	v := r.cookie(name)
	if len(v) <= tagSize {
		if v = r.cookie(name + crossSite); len(v) <= tagSize {
			return ""
		}
	}
	end, err := strconv.ParseInt(v[tagSize:], 16, 64)
	if err != nil || now.Unix() >= end {
		return ""
	}
	return v[:tagSize]
}

// cookie is the value of a request's cookie.
func (r *request) cookie(name string) string {
	if r.head == nil {
		for _, line := range r.header["Cookie"] {
			if v, ok := cookieIn(line, name); ok {
				return v
			}
		}
		return ""
	}
	for i := range r.head.fields {
		if f := &r.head.fields[i]; f.kind == cookie {
			if v, ok := cookieIn(text(f.value), name); ok {
				return v
			}
		}
	}
	return ""
}

func cookieIn(line, name string) (string, bool) {
	for line != "" {
		var one string
		one, line, _ = strings.Cut(line, ";")
		if key, value, ok := strings.Cut(strings.TrimLeft(one, " "), "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}

// choice is what was decided for a request, with the cookies that tell the client.
type choice struct {
	route
	rule   *rule
	target *target
}

// choose decides where a request goes. Cookies come before weights: a client stays
// with its group even if that has none or no target, documented. The target is nil
// if there is none.
func (r *rule) choose(req *request, wall time.Time, now func() time.Time) (c choice) {
	c.rule = r
	known := false
	if r.Sticky > 0 {
		if tag := req.named(groupCookie, wall); tag != "" {
			c.route, known = r.routeTo(tag)
		}
	}
	if !known {
		c.route = r.route()
	}
	if c.group == nil {
		return c
	}
	if s := c.group.sticky.Load(); s != nil {
		name := targetCookie
		if s.Cookie != "" {
			name = appCookie
		}
		if tag := req.named(name, wall); tag != "" && (s.Cookie == "" || req.cookie(s.Cookie) != "") {
			c.target = c.group.takeNamed(tag)
		}
	}
	if c.target == nil {
		c.target = c.group.take(nil, now)
	}
	return c
}

// sticks reports whether an answer may set cookies.
func (c *choice) sticks() bool {
	return c.rule.Sticky > 0 && len(c.rule.Forward) > 0 || c.group.sticky.Load() != nil
}

// cookies calls add with the cookies that the answer must set. sets tells whether
// the target has set one of its own: that of the application begins a session, or
// goes on with it.
func (c *choice) cookies(wall time.Time, secure bool, sets func(name string) bool, add func(line string)) {
	both := func(name, tag string, life time.Duration) {
		one := http.Cookie{Name: name, Value: tag + strconv.FormatInt(wall.Add(life).Unix(), 16), Path: "/", Expires: wall.Add(life)}
		add(one.String())
		if name != appCookie {
			one.Name, one.SameSite, one.Secure = name+crossSite, http.SameSiteNoneMode, secure
			add(one.String())
		}
	}
	if c.rule.Sticky > 0 && len(c.rule.Forward) > 0 {
		both(groupCookie, c.group.tag, c.rule.Sticky)
	}
	if s := c.group.sticky.Load(); s != nil {
		switch {
		case s.Cookie == "":
			both(targetCookie, c.target.tag, s.Life)
		case sets(s.Cookie):
			both(appCookie, c.target.tag, s.Life)
		}
	}
}

// answered counts an answer of the target that was chosen.
func (c *choice) answered(code int, took time.Duration) {
	c.rule.tally.answered(code, took)
	c.meter.answered(code, took)
	c.target.answered(code, took)
}
