package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func blobsOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, "sha256:"+e.Name())
	}
	return names
}

// whole reads an image and compares what it reads with its digests.
func whole(t *testing.T, i v1.Image) {
	t.Helper()
	layers, err := i.Layers()
	must(t, err)
	for _, l := range layers {
		r, err := l.Compressed()
		must(t, err)
		got, size, err := v1.SHA256(r)
		must(t, err)
		want, _ := l.Digest()
		if n, _ := l.Size(); got != want || n != size {
			t.Errorf("layer %s has %d bytes of digest %s, and says %d", want, size, got, n)
		}
		r.Close()
	}
	raw, err := i.RawConfigFile()
	must(t, err)
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	must(t, err)
	if want, err := i.ConfigName(); got != want {
		t.Errorf("the configuration has the digest %s, want %s (%v)", got, want, err)
	}
}

func TestAStoreKeepsImagesByName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "images")
	s, web, shop := NewStore(dir), Name{Repository: "web", Tag: "1"}, Name{Repository: "shop", Tag: "1"}
	one := build(t, Spec{Source: files(t, map[string]string{"a": "1"}), Kind: Directory})
	two := build(t, Spec{Source: files(t, map[string]string{"a": "2"}), Kind: Directory})
	for _, ask := range []func() error{func() error { _, _, err := s.Open(web); return err }, func() error { _, err := s.Remove(web); return err }} {
		if err := ask(); !errors.Is(err, ErrNotKept) || !strings.Contains(err.Error(), "web:1") {
			t.Errorf("of nothing: %v", err)
		}
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("nothing is listed as %v, %v", list, err)
	}
	must(t, s.Put(web, one))
	must(t, s.Put(shop, one))
	must(t, s.Put(Name{Repository: "web", Tag: "2"}, two))
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	m, err := index.IndexManifest()
	must(t, err)
	for _, d := range m.Manifests { // for another tool it is an OCI image layout
		i, err := index.Image(d.Digest)
		must(t, err)
		whole(t, i)
	}
	got, done, err := s.Open(web)
	must(t, err)
	whole(t, got)
	if digest(t, got) != digest(t, one) {
		t.Errorf("kept %s, was %s", digest(t, got), digest(t, one))
	}
	// While it is open, what another image takes the place of stays.
	must(t, s.Put(web, two))
	if _, err := s.Remove(shop); err != nil {
		t.Error(err)
	}
	whole(t, got)
	done()
	must(t, s.Put(web, two))
	if have := blobsOf(t, dir); len(have) != 3 || slices.Contains(have, digest(t, one)) || !slices.Contains(have, digest(t, two)) {
		t.Errorf("after it the blobs are %v, want the three of %s", have, digest(t, two))
	}
	gone, err := s.Remove(Name{Repository: "web", Digest: digest(t, two)})
	if want := []Name{{"web", "2", digest(t, two)}, {"web", "1", digest(t, two)}}; err != nil || !slices.Equal(gone, want) {
		t.Errorf("removed %v, %v; want %v", gone, err, want)
	}
	if have := blobsOf(t, dir); len(have) != 0 {
		t.Errorf("an empty store has the blobs %v", have)
	}
}

// lying is a layer that is not what its digest says.
type lying struct{ v1.Layer }

func (lying) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader([]byte("other"))), nil
}

func TestAStoreKeepsNothingThatIsBroken(t *testing.T) {
	dir := t.TempDir()
	base := build(t, Spec{Source: files(t, map[string]string{"a": "1"}), Kind: Directory})
	image, err := mutate.AppendLayers(base, lying{static.NewLayer([]byte("one"), types.OCILayer)})
	must(t, err)
	if err := NewStore(dir).Put(Name{Repository: "web", Tag: "1"}, image); err == nil || !strings.Contains(err.Error(), "a layer has the digest") {
		t.Errorf("a broken layer: %v", err)
	}
	if _, _, err := NewStore(dir).Open(Name{Repository: "web", Tag: "1"}); !errors.Is(err, ErrNotKept) {
		t.Errorf("it is kept: %v", err)
	}
	// What a killed writer left goes with the next change.
	write(t, filepath.Join(dir, "blob-1"), "unfinished", 0o600)
	must(t, NewStore(dir).Put(Name{Repository: "web", Tag: "2"}, base))
	if left, _ := filepath.Glob(filepath.Join(dir, "blob-*")); len(left) > 0 || len(blobsOf(t, dir)) != 3 {
		t.Errorf("left are %v and %v", left, blobsOf(t, dir))
	}
}
