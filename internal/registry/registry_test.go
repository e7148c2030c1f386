package registry

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
)

func digestOf(content []byte) ociregistry.Digest {
	return ociregistry.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(content)))
}

func open(t *testing.T) (*Blobs, string) {
	t.Helper()
	dir := t.TempDir()
	b, err := Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

func files(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestContentIsServedOnlyWhenItIsWhole(t *testing.T) {
	b, dir := open(t)
	content := []byte("a layer")
	u, err := b.Start("web")
	if err != nil {
		t.Fatal(err)
	}
	u.Write(content)
	if _, err := u.Commit(digestOf([]byte("another"))); !errors.Is(err, ociregistry.ErrDigestInvalid) {
		t.Errorf("another digest gives %v", err)
	}
	if n := files(t, filepath.Join(dir, "sha256")); n != 0 {
		t.Fatalf("%d blobs are there before one was whole", n)
	}
	if _, err := u.Commit(digestOf(content)); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(content); !errors.Is(err, ociregistry.ErrBlobUploadUnknown) {
		t.Errorf("writing what is finished gives %v", err)
	}
	r, err := b.Open(ociregistry.Descriptor{Digest: digestOf(content)}, 2, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "layer" {
		t.Errorf("read %q, %v", got, err)
	}
	if n := files(t, filepath.Join(dir, "uploads")); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

func TestAnInterruptedUploadLeavesNothing(t *testing.T) {
	b, dir := open(t)
	for range 2 {
		u, err := b.Start("web")
		if err != nil {
			t.Fatal(err)
		}
		u.Write([]byte("half"))
	}
	if _, err := Open(dir, 0); err != nil { // the next program
		t.Fatal(err)
	}
	if u, s := files(t, filepath.Join(dir, "uploads")), files(t, filepath.Join(dir, "sha256")); u != 0 || s != 0 {
		t.Errorf("%d uploads and %d blobs are left", u, s)
	}
}

func TestAnUploadGoesOnWhereItWas(t *testing.T) {
	b, _ := open(t)
	u, err := b.Start("web")
	if err != nil {
		t.Fatal(err)
	}
	u.Write([]byte("12345"))
	if _, err := b.Resume("another", u.ID(), 5); !errors.Is(err, ociregistry.ErrBlobUploadUnknown) {
		t.Errorf("another repository's upload gives %v", err)
	}
	again, err := b.Resume("web", u.ID(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Write([]byte("45")); !errors.Is(err, ociregistry.ErrRangeInvalid) {
		t.Errorf("a chunk that overlaps gives %v", err)
	}
	if size, ok := b.Uploaded("web", u.ID()); !ok || size != 5 {
		t.Errorf("%d bytes are there, %v", size, ok)
	}
}

// Clients send the same upload twice after a timeout: one is served, the other
// refused, and neither waits for the other for ever.
func TestManyRequestsAboutOneUpload(t *testing.T) {
	b, _ := open(t)
	for n := range 200 {
		content := fmt.Append(nil, "layer ", n)
		u, err := b.Start("web")
		if err != nil {
			t.Fatal(err)
		}
		u.Write(content)
		var wg sync.WaitGroup
		committed := make([]error, 4)
		for i := range committed {
			wg.Go(func() {
				again, err := b.Resume("web", u.ID(), int64(len(content)))
				if err == nil {
					_, err = again.Commit(digestOf(content))
				}
				committed[i] = err
			})
		}
		wg.Wait()
		served := 0
		for _, err := range committed {
			if err == nil {
				served++
			} else if !errors.Is(err, ociregistry.ErrBlobUploadUnknown) {
				t.Fatal(err)
			}
		}
		if served != 1 {
			t.Fatalf("%d of the requests completed the upload", served)
		}
	}
}

// fromFile is a writer like an HTTP response: it tells whether it was given a file.
type fromFile struct {
	bytes.Buffer
	file bool
}

func (w *fromFile) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		_, w.file = l.R.(*os.File)
	}
	return w.Buffer.ReadFrom(r)
}

func TestAResponseIsGivenTheFile(t *testing.T) {
	b, _ := open(t)
	digest, err := b.Put([]byte("0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to int64
		want     string
	}{{0, -1, "0123456789"}, {3, 7, "3456"}, {7, 20, "789"}, {10, -1, ""}} {
		r, err := b.Open(ociregistry.Descriptor{Digest: digest}, c.from, c.to)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var w fromFile
		if n, err := io.Copy(&w, r); err != nil || w.String() != c.want || n != int64(len(c.want)) || !w.file {
			t.Errorf("bytes %d to %d are %q, %d bytes, %v; given a file: %v", c.from, c.to, w.String(), n, err, w.file)
		}
	}
}

func BenchmarkPull(b *testing.B) {
	blobs, err := Open(b.TempDir(), 0)
	if err != nil {
		b.Fatal(err)
	}
	content := make([]byte, 64<<20)
	digest, err := blobs.Put(content)
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r, err := blobs.Open(ociregistry.Descriptor{Digest: digest}, 0, -1)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer r.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		io.Copy(w, r)
	}))
	defer server.Close()
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		resp, err := http.Get(server.URL)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 256<<10))
		resp.Body.Close()
		if err != nil || n != int64(len(content)) {
			b.Fatalf("%d bytes came: %v", n, err)
		}
	}
}

func TestDigestsAreNotPaths(t *testing.T) {
	b, dir := open(t)
	os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600)
	for _, digest := range []ociregistry.Digest{"sha256:../secret", "../secret", "sha256:", "sha512:00", ociregistry.Digest("sha256:" + string(bytes.Repeat([]byte("A"), 64)))} {
		if _, err := b.Content(digest); !errors.Is(err, ociregistry.ErrDigestInvalid) {
			t.Errorf("%s gives %v", digest, err)
		}
	}
}

// What is committed while somebody collects stays, even if it was looked at
// before; and an upload is as old as its end.
func TestCollectingLeavesWhatHasJustCome(t *testing.T) {
	b, dir := open(t)
	content := []byte("a layer")
	digest, err := b.Put(content)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(u *Upload) {
		t.Helper()
		if _, err := u.Commit(digest); err != nil {
			t.Fatal(err)
		}
	}
	begin := func() *Upload {
		t.Helper()
		u, err := b.Start("web")
		if err == nil {
			_, err = u.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	early := begin()
	path := filepath.Join(dir, "sha256", string(digest[len("sha256:"):]))
	if err := os.Chtimes(path, time.Time{}, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	before, looks := time.Now(), 0
	freed, err := b.Collect(before, func(ociregistry.Digest) bool {
		if looks++; looks == 1 {
			commit(early)
		}
		return false
	})
	if err != nil || freed != 0 || files(t, filepath.Dir(path)) != 1 {
		t.Errorf("%d bytes are freed of what has just come: %v", freed, err)
	}
	if b.Used() != int64(len(content)) {
		t.Errorf("%d bytes are used", b.Used())
	}
	if freed, err := b.Collect(time.Now().Add(time.Second), func(ociregistry.Digest) bool { return false }); err != nil || freed != int64(len(content)) || b.Used() != 0 {
		t.Errorf("%d bytes are freed, and %d used: %v", freed, b.Used(), err)
	}
}

func TestWhatIsThereNeedsNoRoom(t *testing.T) {
	b, err := Open(t.TempDir(), 20)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := b.Put(make([]byte, 15)); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Put(make([]byte, 16)); !Full(err) {
		t.Errorf("more than there is room for gives %v", err)
	}
}
