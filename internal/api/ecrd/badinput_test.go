package ecrd

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
)

// raw sends a request as it stands, which no HTTP client would send, and returns
// the answer's status and body.
func (s *shelf) raw(method, target string) (int, string) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.api.Endpoint)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		method, target, base64.StdEncoding.EncodeToString([]byte("AWS:"+s.token)))
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestNamesThatPlayTricksWithPaths(t *testing.T) {
	s := newShelf(t, 0)
	s.repository("web")
	s.image("web", "1", []byte("a layer"))
	var before []string
	filepath.Walk(s.dir, func(p string, _ os.FileInfo, err error) error { before = append(before, p); return err })
	digest := strings.Repeat("0", 64)
	for _, target := range []string{
		"/v2/../../etc/passwd/manifests/1", "/v2/%2e%2e/%2e%2e/etc/manifests/1", "/v2/web%2f..%2f..%2fetc/manifests/1", "/v2/WEB/manifests/1", "/v2//web/manifests/1", "/v2/web//manifests/1",
		"/v2/web/manifests/..%2f..%2fx", "/v2/web/manifests/%2e%2e", "/v2/web/manifests/a%00b", "/v2/web/manifests/sha256:..%2f..%2fetc%2fpasswd", "/v2/web/manifests/sha256:" + digest[1:], "/v2/web/manifests/" + strings.Repeat("x", 400),
		"/v2/web/blobs/sha256:../../../etc/passwd", "/v2/web/blobs/sha256:%2e%2e%2f%2e%2e", "/v2/web/blobs/sha512:" + digest, "/v2/web/blobs/" + digest, "/v2/web/blobs/sha256:" + strings.ToUpper(strings.Repeat("a", 64)),
		"/v2/web/blobs/uploads/..%2f..%2fx", "/v2/web/blobs/uploads/%2e%2e", "/v2/web/blobs/uploads/" + base64.RawURLEncoding.EncodeToString([]byte("../../x")),
		"/v2/" + strings.Repeat("a/", 200) + "manifests/1", "/v2/web/referrers/..%2f..", "/v2/web\\..\\x/manifests/1", "/v2/web;x/manifests/1",
	} {
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "PATCH"} {
			if status, body := s.raw(method, target); status < 300 || status >= 500 {
				t.Errorf("%s %s gives %d %s", method, target, status, body)
			}
		}
	}
	for _, query := range []string{"mount=../../x&from=web", "mount=sha256:" + digest + "&from=../web", "digest=sha256:../../x", "digest=x"} {
		if status, body := s.raw("POST", "/v2/web/blobs/uploads/?"+query); status >= 500 {
			t.Errorf("an upload with %s gives %d %s", query, status, body)
		}
	}
	err := filepath.Walk(s.dir, func(p string, _ os.FileInfo, err error) error {
		if !strings.Contains(p, "/uploads/") && !strings.Contains(strings.Join(before, "\n"), p) {
			t.Errorf("%s was made", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestContentOfAnotherDigestIsRefused(t *testing.T) {
	s := newShelf(t, 0)
	s.repository("web")
	_, _, header := s.do("POST", "/v2/web/blobs/uploads/", nil)
	other := digestOf([]byte("another"))
	for _, c := range []struct{ method, path string }{{"PUT", header.Get("Location") + "?digest=" + other}, {"POST", "/v2/web/blobs/uploads/?digest=" + other}} {
		status, body, _ := s.do(c.method, c.path, strings.NewReader("a layer"))
		if status != http.StatusBadRequest || !strings.Contains(body, `"BLOB_UPLOAD_INVALID"`) || !strings.Contains(body, "None of the provided layer digests match") {
			t.Errorf("%s gives %d %s", c.method, status, body)
		}
	}
	if s.there("web", other) {
		t.Error("content is served under a digest that is not its own")
	}
	status, body, _ := s.do("PUT", "/v2/web/manifests/"+other, strings.NewReader(`{"schemaVersion":2}`), "Content-Type", "application/vnd.oci.image.manifest.v1+json")
	if status != http.StatusBadRequest || !strings.Contains(body, `"MANIFEST_INVALID"`) || !strings.Contains(body, other) {
		t.Errorf("a manifest under another digest gives %d %s", status, body)
	}
}

// A client that stops in the middle of a layer loses its connection, and what it
// sent is there when it comes back.
func TestAClientThatHangsIsLetGoAndCanGoOn(t *testing.T) {
	s := newShelf(t, 0)
	s.api.patience = 50 * time.Millisecond
	s.repository("web")
	content := bytes.Repeat([]byte("0123456789"), 20_000)
	_, _, header := s.do("POST", "/v2/web/blobs/uploads/", nil)
	location, err := url.Parse(header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.api.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nContent-Length: %d\r\n\r\n", location.RequestURI(), base64.StdEncoding.EncodeToString([]byte("AWS:"+s.token)), len(content))
	conn.Write(content[:100_000])
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") { // until the registry closes it
		t.Fatal(err)
	}
	status, _, header := s.do("GET", location.RequestURI(), nil)
	if status != http.StatusNoContent || header.Get("Range") != "0-99999" {
		t.Fatalf("the upload is at %s with %d", header.Get("Range"), status)
	}
	status, text, _ := s.do("PATCH", header.Get("Location"), bytes.NewReader(content[100_000:]), "Content-Range", fmt.Sprintf("100000-%d", len(content)-1))
	if status != http.StatusAccepted {
		t.Fatalf("going on gives %d %s", status, text)
	}
	if status, text, _ := s.do("PUT", header.Get("Location")+"?digest="+digestOf(content), nil); status != http.StatusCreated {
		t.Fatalf("the end gives %d %s", status, text)
	}
	if !s.there("web", digestOf(content)) {
		t.Error("the layer is not there")
	}
}

func TestAStrangerThatHangsIsLetGo(t *testing.T) {
	s := newShelf(t, 0)
	s.api.patience = 50 * time.Millisecond
	conn, err := net.Dial("tcp", s.api.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PATCH /v2/web/blobs/uploads/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") { // until the registry closes it
		t.Fatal(err)
	}
}

// The codes and statuses that ECR's registry was observed to give.
func TestWhatTheRegistryAnswersToWhatItRefuses(t *testing.T) {
	s := newShelf(t, 0)
	s.repository("web")
	s.image("web", "1", []byte("a layer"))
	if _, err := s.api.PutImageTagMutability(s.ctx, &ecr.PutImageTagMutabilityInput{RepositoryName: new("web"), ImageTagMutability: types.ImageTagMutabilityImmutable}); err != nil {
		t.Fatal(err)
	}
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:00","size":1},"layers":[]}`
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"sha256:00","size":1}]}`
	empty := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`
	for _, c := range []struct {
		method, path, body, kind string
		status                   int
		code, text               string
	}{
		{"PUT", "web/manifests/1", empty, "image.manifest", 400, "TAG_INVALID", "The image tag '1' already exists in the 'web' repository and cannot be overwritten because the tag is immutable."},
		{"PUT", "web/manifests/2", "{", "image.manifest", 405, "UNSUPPORTED", "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'"},
		{"PUT", "web/manifests/2", manifest, "image.manifest", 404, "BLOB_UPLOAD_UNKNOWN", "Layers with digests '[sha256:00]' required for pushing image into repository with name 'web' in the registry with id '123456789012' do not exist"},
		{"PUT", "web/manifests/2", index, "image.index", 404, "MANIFEST_BLOB_UNKNOWN", "Images with digests '[sha256:00]' required for pushing image into repository with name 'web' in the registry with id '123456789012' do not exist"},
		{"PUT", "web/manifests/.bad", empty, "image.manifest", 400, "TAG_INVALID", "'.bad' is not a tag"},
		{"POST", "none/blobs/uploads/", "", "", 404, "NAME_UNKNOWN", "The repository with name 'none' does not exist in the registry with id '123456789012'"},
		{"GET", "web/manifests/none", "", "", 404, "MANIFEST_UNKNOWN", "Requested image not found"},
		{"DELETE", "web/manifests/1", "", "", 405, "UNSUPPORTED", "ecr:BatchDeleteImage"},
		{"GET", "_catalog", "", "", 405, "UNSUPPORTED", "ecr:DescribeRepositories"},
	} {
		status, body, header := s.do(c.method, "/v2/"+c.path, strings.NewReader(c.body), "Content-Type", "application/vnd.oci."+c.kind+".v1+json")
		if status != c.status || !strings.Contains(body, `"`+c.code+`"`) || !strings.Contains(body, c.text) || !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
			t.Errorf("%s %s gives %d %s %s\n want %d %s %s", c.method, c.path, status, header.Get("Content-Type"), body, c.status, c.code, c.text)
		}
	}
}
