package balance

import (
	"net/http"
	"net/netip"
	"testing"
)

func asked(t *testing.T, in string) *request {
	t.Helper()
	h, r := new(head), new(request)
	if err := h.parseRequest([]byte(in)); err != nil {
		t.Fatal(err)
	}
	if err := r.of(h, netip.MustParseAddr("10.1.2.3")); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConditionsMatchAsDocumented(t *testing.T) {
	r := asked(t, "GET /img/Cat.png?version=v1&name=*&x HTTP/1.1\r\nHost: WWW.example.com:8080\r\nUser-Agent: curl/8\r\nX-Two: a\r\nX-Two: B\r\n\r\n")
	for _, c := range []struct {
		Condition
		want bool
	}{
		{Condition{Field: "host-header", Values: []string{"www.Example.com"}}, true},
		{Condition{Field: "host-header", Values: []string{"*.example.com"}}, true},
		{Condition{Field: "host-header", Values: []string{"example.com"}}, false},
		{Condition{Field: "host-header", Values: []string{"no", "www.example.co?"}}, true},
		{Condition{Field: "host-header", Regexes: []string{`^WWW\.[a-z]+\.com$`}}, true},
		{Condition{Field: "path-pattern", Values: []string{"/img/*"}}, true},
		{Condition{Field: "path-pattern", Values: []string{"/img/*/pics"}}, false},
		{Condition{Field: "path-pattern", Values: []string{"/IMG/*"}}, false},
		{Condition{Field: "path-pattern", Values: []string{"/img/???.png"}}, true},
		{Condition{Field: "path-pattern", Values: []string{"*a*a*"}}, false},
		{Condition{Field: "path-pattern", Regexes: []string{`\.(jpg|png)$`}}, true},
		{Condition{Field: "http-header", Header: "user-agent", Values: []string{"CURL/*"}}, true},
		{Condition{Field: "http-header", Header: "X-Two", Values: []string{"b"}}, true},
		{Condition{Field: "http-header", Header: "X-Three", Values: []string{"*"}}, false},
		{Condition{Field: "http-request-method", Values: []string{"HEAD", "GET"}}, true},
		{Condition{Field: "http-request-method", Values: []string{"get"}}, false},
		{Condition{Field: "query-string", Query: []Pair{{"version", "V?"}}}, true},
		{Condition{Field: "query-string", Query: []Pair{{"version", "v2"}, {"name", `\*`}}}, true},
		{Condition{Field: "query-string", Query: []Pair{{"version", `\*`}}}, false},
		{Condition{Field: "query-string", Query: []Pair{{"", "v1"}}}, true},
		{Condition{Field: "query-string", Query: []Pair{{"x", ""}}}, true},
		{Condition{Field: "source-ip", Values: []string{"192.0.2.0/24", "10.1.0.0/16"}}, true},
		{Condition{Field: "source-ip", Values: []string{"10.1.2.4/32"}}, false},
	} {
		ready, err := c.prepare()
		if err != nil {
			t.Fatal(err)
		}
		if got := ready.matches(r); got != c.want {
			t.Errorf("%+v: %v", c.Condition, got)
		}
		over2 := *r // as HTTP/2 has it
		over2.head, over2.header = nil, http.Header{"User-Agent": {"curl/8"}, "X-Two": {"a", "B"}}
		if got := ready.matches(&over2); got != c.want {
			t.Errorf("%+v over HTTP/2: %v", c.Condition, got)
		}
	}
}

func TestAPatternThatIsNoneIsSaid(t *testing.T) {
	b := balancer(t, nil, nil, 1, 0)
	for _, c := range []Condition{{Field: "path-pattern", Regexes: []string{"("}}, {Field: "source-ip", Values: []string{"10.0.0.0"}}} {
		if _, err := b.SetListener(Listener{ID: "l", Bind: "127.0.0.1:0", Rules: []Rule{{ID: "r", Match: []Condition{c}, Fixed: &Fixed{Code: 200}}}}); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

// A target that only has an address somewhere in it is no address: its host is not
// the one that rules look at.
func TestATargetInNoFormIsRefused(t *testing.T) {
	for _, target := range []string{"a?b=http://c.example/d", "ftp://c.example/d", "://c.example/d", "http:c.example", "http://", "http:///d", "c.example:443", "a"} {
		h, r := new(head), new(request)
		if err := h.parseRequest([]byte("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := r.of(h, netip.MustParseAddr("10.1.2.3")); err == nil {
			t.Errorf("%s is taken for %s at %s", target, r.path, r.host)
		}
	}
	if r := asked(t, "GET HTTPS://c.example/d HTTP/1.1\r\nHost: h\r\n\r\n"); r.host != "c.example" || r.path != "/d" {
		t.Errorf("got %s at %s", r.path, r.host)
	}
}

// What comes in absolute form goes on as a path, to the host that it names.
func TestAnAbsoluteTargetSaysTheHost(t *testing.T) {
	r := asked(t, "GET http://a.example?q HTTP/1.1\r\nHost: b.example\r\n\r\n")
	if r.host != "a.example" || r.path != "/" || r.query != "q" {
		t.Errorf("%+v", r)
	}
	out := string((&sender{port: 80}).appendRequest(nil, r.head, Headers{ForwardedFor: "remove"}))
	if want := "GET /?q HTTP/1.1\r\nHost: a.example\r\n"; out[:len(want)] != want {
		t.Errorf("%q", out)
	}
}

func TestARedirectKeepsWhatItDoesNotSay(t *testing.T) {
	r := asked(t, "GET /a/b?c=d HTTP/1.1\r\nHost: old.example:81\r\n\r\n")
	for want, to := range map[string]Redirect{
		"http://old.example:81/a/b?c=d":     {},
		"https://old.example:443/a/b?c=d":   {Protocol: "HTTPS", Port: "443"},
		"http://new.old.example:81/a/b?c=d": {Host: "new.#{host}"},
		"http://old.example:81/v2/a/b?x=81": {Path: "/v2/#{path}", Query: "x=#{port}"},
	} {
		if got := to.location(r, "http", 81); got != want {
			t.Errorf("%+v leads to %s, want %s", to, got, want)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("/a*b?c", "/axxbyc")
	f.Add("***a", "bba")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 20 {
			return
		}
		if got, want := glob(pattern, s, false, false), naive(pattern, s); got != want {
			t.Errorf("%q in %q: %v", pattern, s, got)
		}
	})
}

func naive(p, s string) bool {
	switch {
	case p == "":
		return s == ""
	case p[0] == '*':
		return naive(p[1:], s) || s != "" && naive(p, s[1:])
	}
	return s != "" && (p[0] == '?' || p[0] == s[0]) && naive(p[1:], s[1:])
}
