package ecrd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/registry"
	"serin/internal/store"
	"serin/internal/wire"
)

// shelf is an ECR without policies, with a client of its registry.
type shelf struct {
	t     *testing.T
	api   *API
	blobs *registry.Blobs
	dir   string
	ctx   context.Context
	url   string
	token string
	deny  string // an action that nobody may do
}

func newShelf(t *testing.T, max int64) *shelf {
	t.Helper()
	s := &shelf{t: t, dir: t.TempDir()}
	rows := store.Ephemeral()
	c, err := clock.New(1)
	if err == nil {
		s.blobs, err = registry.Open(s.dir, max)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.api = New(rows, c, slog.New(slog.DiscardHandler), s.blobs, Deps{Authorize: func(_ context.Context, _ *wire.Call, checks []wire.Check) error {
		if slices.ContainsFunc(checks, func(c wire.Check) bool { return c.Action == s.deny }) {
			return errors.New(s.deny + " is denied")
		}
		return nil
	}})
	if err := rows.Load(); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.api)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.api.Endpoint = strings.TrimPrefix(server.URL, "http://")
	scope := arn.Scope{Account: "123456789012", Region: "eu-central-1"}
	s.ctx = wire.WithCall(t.Context(), &wire.Call{Service: "ecr", Scope: scope, Principal: wire.Principal{Account: scope.Account, Admin: true}})
	s.token, _, err = s.api.Token(wire.Principal{Account: scope.Account, Admin: true}, scope)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shelf) repository(name string) {
	s.t.Helper()
	if _, err := s.api.CreateRepository(s.ctx, &ecr.CreateRepositoryInput{RepositoryName: &name}); err != nil {
		s.t.Fatal(err)
	}
}

// do sends a request to the registry.
func (s *shelf) do(method, path string, body io.Reader, header ...string) (int, string, http.Header) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	r.SetBasicAuth("AWS", s.token)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

// push sends a blob as docker does.
func (s *shelf) push(repo string, content []byte) (int, string) {
	s.t.Helper()
	status, text, header := s.do("POST", "/v2/"+repo+"/blobs/uploads/", nil)
	if status != http.StatusAccepted {
		return status, text
	}
	if status, text, _ := s.do("PATCH", header.Get("Location"), io.MultiReader(bytes.NewReader(content))); status != http.StatusAccepted { // of unknown length
		return status, text
	}
	status, text, _ = s.do("PUT", header.Get("Location")+"?digest="+digestOf(content), nil)
	return status, text
}

// image pushes an image of one layer and returns its digest.
func (s *shelf) image(repo, tag string, layer []byte) string {
	s.t.Helper()
	return s.slowImage(repo, tag, layer, 0)
}

// slowImage asks for what is there, as docker does, and takes its time before the
// manifest.
func (s *shelf) slowImage(repo, tag string, layer []byte, pause time.Duration) string {
	s.t.Helper()
	configuration := []byte(`{"architecture":"amd64"}`)
	for _, content := range [][]byte{configuration, layer} {
		if status, _, _ := s.do("HEAD", "/v2/"+repo+"/blobs/"+digestOf(content), nil); status == http.StatusOK {
			continue
		}
		if status, text := s.push(repo, content); status != http.StatusCreated {
			s.t.Fatalf("pushing a blob gives %d %s", status, text)
		}
	}
	time.Sleep(pause)
	descriptor := func(content []byte, kind string) ociregistry.Descriptor {
		return ociregistry.Descriptor{MediaType: kind, Digest: ociregistry.Digest(digestOf(content)), Size: int64(len(content))}
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor(configuration, "application/vnd.oci.image.config.v1+json"), "layers": []any{descriptor(layer, "application/vnd.oci.image.layer.v1.tar")},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if status, text, _ := s.do("PUT", "/v2/"+repo+"/manifests/"+tag, bytes.NewReader(manifest), "Content-Type", "application/vnd.oci.image.manifest.v1+json"); status != http.StatusCreated {
		s.t.Fatalf("pushing a manifest gives %d %s", status, text)
	}
	return digestOf(manifest)
}

func (s *shelf) delete(repo, tag string) {
	s.t.Helper()
	if _, err := s.api.BatchDeleteImage(s.ctx, &ecr.BatchDeleteImageInput{RepositoryName: &repo, ImageIds: []types.ImageIdentifier{{ImageTag: &tag}}}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) there(repo, digest string) bool {
	status, _, _ := s.do("GET", "/v2/"+repo+"/blobs/"+digest, nil)
	return status == http.StatusOK
}

func (s *shelf) collect(before time.Time) int64 {
	s.t.Helper()
	freed, err := s.api.Collect(before)
	if err != nil {
		s.t.Fatal(err)
	}
	return freed
}
