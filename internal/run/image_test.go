package run

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

// The daemon names docker.io's images in short, and may have others whose names begin
// alike.
func TestADigestIsOfTheRepositoryThatWasAskedFor(t *testing.T) {
	const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	other := strings.ReplaceAll(digest, "a", "b")
	for _, c := range []struct{ ref, names, want string }{
		{"nginx:1", "nginx@" + digest, digest},
		{"docker.io/library/nginx:1", "nginx@" + digest, digest},
		{"docker.io/nginx", "nginx@" + digest, digest},
		{"docker.io/team/web:1", "team/web@" + digest, digest},
		{"localhost:5000/webapp:1", "localhost:5000/web@" + other + " localhost:5000/webapp@" + digest, digest},
		{"localhost:5000/webapp:1", "localhost:5000/web@" + other, ""},
	} {
		ref, err := name.ParseReference(c.ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := digestOf(ref, strings.Fields(c.names)); got != c.want {
			t.Errorf("%s, which the daemon has as %s, is %q", c.ref, c.names, got)
		}
	}
}

// plain answers what is asked of it without TLS, and notes it.
type plain struct{ asked []string }

func (p *plain) RoundTrip(r *http.Request) (*http.Response, error) {
	p.asked = append(p.asked, r.URL.Scheme+"://"+r.URL.Host)
	return nil, http.ErrServerClosed
}

// Only registries of this machine and its network are asked without TLS.
func TestARegistryElsewhereIsNotAskedWithoutTLS(t *testing.T) {
	for host, want := range map[string]bool{"registry.example.com": false, "registry.example.com:5000": false, "localhost:4566": true, "127.0.0.1:4566": true, "10.0.0.7:5000": true} {
		p := &plain{}
		i := &images{dir: t.TempDir(), transport: p}
		if _, err := i.pull(t.Context(), host+"/web:1", Auth{"user", "password"}); err == nil {
			t.Fatal("nobody answers")
		}
		if got := strings.Contains(strings.Join(p.asked, " "), "http://"); got != want {
			t.Errorf("%s is asked as %v", host, p.asked)
		}
	}
}
