// Package registry keeps an OCI registry's content on disk, each blob once,
// named by its digest, and serves the distribution protocol over a backend.
//
// A blob is written to a temporary name, verified, synced and renamed, so an
// interrupted upload leaves nothing that is served. What repositories hold and
// who may see it is the backend's business.
package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/docker/go-units"

	"serin/internal/id"
)

// Handler serves the OCI distribution protocol from a backend. An Answer is
// written as it stands, other errors as the specification has them.
func Handler(backend ociregistry.Interface) http.Handler {
	return ociserver.New(backend, &ociserver.Options{WriteError: func(w http.ResponseWriter, _ *http.Request, err error) {
		if a, ok := errors.AsType[*Answer](err); ok {
			a.Write(w)
			return
		}
		ociregistry.WriteError(w, err)
	}})
}

// Answer is an error in the distribution protocol's form.
type Answer struct {
	Status        int
	Code, Message string
}

func (a *Answer) Error() string { return a.Code + ": " + a.Message }

// Write answers a request.
func (a *Answer) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(a.Status)
	json.NewEncoder(w).Encode(ociregistry.WireErrors{Errors: []ociregistry.WireError{{Code_: a.Code, Message: a.Message}}})
}

// Blobs is a directory of content.
type Blobs struct {
	dir   string
	named *os.File // the directory of the blobs
	max   int64    // bytes of it

	// Reclaim, if there is one, is called when there is no room, before that is
	// said: it may call Collect.
	Reclaim func()

	mu      sync.Mutex // taken after an Upload's
	uploads map[string]*Upload
	used    int64 // bytes of blobs and uploads
}

// FullError says that content would exceed what the directory may hold, in
// bytes.
type FullError struct{ Used, Max int64 }

func (e *FullError) Error() string {
	return fmt.Sprintf("the registry is full: it holds %s of at most %s (--registry-max-size); the space of deleted images is given back within 20 minutes", units.BytesSize(float64(e.Used)), units.BytesSize(float64(e.Max)))
}

// Full says that content was refused because there is no room for it: not more
// is allowed, or the disk is full.
func Full(err error) bool {
	_, most := errors.AsType[*FullError](err)
	return most || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Open opens or makes a blob directory that may hold max bytes, 0 for as many as
// the disk takes; unfinished uploads of an earlier program are gone.
func Open(dir string, max int64) (*Blobs, error) {
	uploads := filepath.Join(dir, "uploads")
	if err := os.RemoveAll(uploads); err != nil {
		return nil, fmt.Errorf("clearing unfinished uploads: %w", err)
	}
	for _, d := range []string{filepath.Join(dir, "sha256"), uploads} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("making the registry's directory: %w", err)
		}
	}
	named, err := os.Open(filepath.Join(dir, "sha256"))
	if err != nil {
		return nil, fmt.Errorf("opening the registry's directory: %w", err)
	}
	b := &Blobs{dir: dir, named: named, max: max, uploads: map[string]*Upload{}}
	err = b.each(func(_ ociregistry.Digest, st os.FileInfo) error {
		b.used += st.Size()
		return nil
	})
	return b, err
}

// each looks at every blob.
func (b *Blobs) each(look func(ociregistry.Digest, os.FileInfo) error) error {
	entries, err := os.ReadDir(filepath.Join(b.dir, "sha256"))
	if err != nil {
		return fmt.Errorf("listing the registry's blobs: %w", err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // collected meanwhile
		}
		if err != nil {
			return fmt.Errorf("looking at blob %s: %w", e.Name(), err)
		}
		if err := look(ociregistry.Digest("sha256:"+e.Name()), st); err != nil {
			return err
		}
	}
	return nil
}

// Used is how many bytes the blobs and the unfinished uploads have.
func (b *Blobs) Used() int64 { b.mu.Lock(); defer b.mu.Unlock(); return b.used }

// take asks for n bytes more.
func (b *Blobs) take(n int64) error {
	err := b.tryTake(n)
	if err != nil && b.Reclaim != nil {
		b.Reclaim()
		err = b.tryTake(n)
	}
	return err
}

func (b *Blobs) tryTake(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.max > 0 && b.used+n > b.max {
		return &FullError{b.used, b.max}
	}
	b.used += n
	return nil
}

func (b *Blobs) give(n int64) { b.mu.Lock(); b.used -= n; b.mu.Unlock() }

// Collect removes the blobs that keep does not want and that were committed
// before the wall time given. A blob that is committed again while it is looked
// at stays: commits and removals exclude each other.
func (b *Blobs) Collect(before time.Time, keep func(ociregistry.Digest) bool) (freed int64, err error) {
	err = b.each(func(digest ociregistry.Digest, st os.FileInfo) error {
		if !st.ModTime().Before(before) || keep(digest) {
			return nil
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		path, err := b.path(digest)
		if err != nil {
			return nil // not a blob, and not ours to remove
		}
		now, err := os.Stat(path)
		if err != nil || !now.ModTime().Before(before) || keep(digest) {
			return nil
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing blob %s: %w", digest, err)
		}
		b.used -= now.Size()
		freed += now.Size()
		return nil
	})
	return freed, err
}

var sha256Digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func (b *Blobs) path(digest ociregistry.Digest) (string, error) {
	if !sha256Digest.MatchString(string(digest)) {
		return "", ociregistry.ErrDigestInvalid
	}
	return filepath.Join(b.dir, "sha256", string(digest[len("sha256:"):])), nil
}

// Content returns a blob as a file, or ErrBlobUnknown.
func (b *Blobs) Content(digest ociregistry.Digest) (*os.File, error) {
	p, err := b.path(digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ociregistry.ErrBlobUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("opening blob %s: %w", digest, err)
	}
	return f, nil
}

// Open returns a reader over bytes [from, to) of a blob; to < 0 is its end.
func (b *Blobs) Open(desc ociregistry.Descriptor, from, to int64) (ociregistry.BlobReader, error) {
	f, err := b.Content(desc.Digest)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("looking at blob %s: %w", desc.Digest, err)
	}
	desc.Size = st.Size()
	if to < 0 || to > desc.Size {
		to = desc.Size
	}
	if from < 0 || from > to {
		f.Close()
		return nil, ociregistry.ErrRangeInvalid
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("reading blob %s: %w", desc.Digest, err)
	}
	return &reader{io.LimitedReader{R: f, N: to - from}, f, desc}, nil
}

type reader struct {
	io.LimitedReader // of f
	f                *os.File
	desc             ociregistry.Descriptor
}

// WriteTo lets the kernel copy where w is an HTTP response: that looks for a file,
// or a LimitedReader of one, and for nothing that contains it.
func (r *reader) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, &r.LimitedReader) }

func (r *reader) Close() error                       { return r.f.Close() }
func (r *reader) Descriptor() ociregistry.Descriptor { return r.desc }

// Put stores content that is at hand. What is there already needs no room.
func (b *Blobs) Put(content []byte) (ociregistry.Digest, error) {
	sum := sha256.Sum256(content)
	digest := ociregistry.Digest("sha256:" + hex.EncodeToString(sum[:]))
	if b.renew(digest) {
		return digest, nil
	}
	u, err := b.Start("")
	if err != nil {
		return "", err
	}
	defer u.Cancel()
	if _, err := u.Write(content); err != nil {
		return "", err
	}
	_, err = u.Commit(digest)
	return digest, err
}

// renew says that a blob is there, and makes it as young as one that is committed
// now. What has a name was verified.
func (b *Blobs) renew(digest ociregistry.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	path, err := b.path(digest)
	now := time.Now()
	return err == nil && os.Chtimes(path, now, now) == nil
}

// Upload is a blob that is being written. It can be left and resumed by its id
// while the program runs.
type Upload struct {
	blobs *Blobs
	id    string
	repo  string

	mu      sync.Mutex
	file    *os.File
	sum     hash.Hash
	size    int64
	offset  int64 // where the present writer must go on, -1: anywhere
	closed  bool
	touched atomic.Int64 // wall time, in nanoseconds; read without the lock

	last, shortest int64 // part of WritePart, and of those before it, in bytes
}

// Start begins an upload into a repository.
func (b *Blobs) Start(repo string) (*Upload, error) {
	u := &Upload{blobs: b, id: id.UUID(), repo: repo, sum: sha256.New(), offset: -1, shortest: math.MaxInt64}
	u.touch()
	f, err := os.Create(filepath.Join(b.dir, "uploads", u.id))
	if err != nil {
		return nil, fmt.Errorf("starting an upload: %w", err)
	}
	u.file = f
	b.mu.Lock()
	b.uploads[u.id] = u
	b.mu.Unlock()
	return u, nil
}

// Expire drops the uploads that nobody has touched since a wall time.
func (b *Blobs) Expire(before time.Time) {
	for _, u := range b.list() {
		if u.lastTouched().Before(before) && u.mu.TryLock() { // one that is locked is in use
			u.cancel()
			u.mu.Unlock()
		}
	}
}

// Abandon drops the uploads of the repositories that are chosen.
func (b *Blobs) Abandon(chosen func(repo string) bool) {
	for _, u := range b.list() {
		if chosen(u.repo) {
			u.Cancel()
		}
	}
}

// Active are the repositories with uploads that were touched since a wall time.
func (b *Blobs) Active(since time.Time) map[string]bool {
	repos := map[string]bool{}
	for _, u := range b.list() {
		if !u.lastTouched().Before(since) {
			repos[u.repo] = true
		}
	}
	return repos
}

func (b *Blobs) list() []*Upload {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.uploads))
}

// Resume goes on with an upload. A wrong offset is only told when something is
// written: docker ends an upload with an empty write at offset 0.
func (b *Blobs) Resume(repo, uploadID string, offset int64) (*Upload, error) {
	u, ok := b.upload(repo, uploadID)
	if !ok {
		return nil, ociregistry.ErrBlobUploadUnknown
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.offset = offset
	u.touch()
	return u, nil
}

// Uploaded is how many bytes of an upload are there.
func (b *Blobs) Uploaded(repo, uploadID string) (int64, bool) {
	u, ok := b.upload(repo, uploadID)
	if !ok {
		return 0, false
	}
	return u.Size(), true
}

// upload finds an upload. It is not locked under b.mu: an upload that finishes
// takes the locks in the other order.
func (b *Blobs) upload(repo, uploadID string) (*Upload, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u, ok := b.uploads[uploadID]
	return u, ok && u.repo == repo
}

func (u *Upload) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.write(p)
}

// WritePart writes a part that must begin at byte first, and of which the length
// counts.
func (u *Upload) WritePart(first int64, p []byte) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.offset = first
	if _, err := u.write(p); err != nil {
		return err
	}
	if u.last > 0 {
		u.shortest = min(u.shortest, u.last)
	}
	u.last = int64(len(p))
	return nil
}

// ShortestPart is the length of the shortest part but the last, in bytes.
func (u *Upload) ShortestPart() int64 { u.mu.Lock(); defer u.mu.Unlock(); return u.shortest }

func (u *Upload) write(p []byte) (int, error) {
	if u.closed {
		return 0, ociregistry.ErrBlobUploadUnknown
	}
	if u.offset >= 0 && u.offset != u.size {
		return 0, ociregistry.ErrRangeInvalid
	}
	u.touch()
	if err := u.blobs.take(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := u.file.Write(p)
	u.blobs.give(int64(len(p) - n))
	u.sum.Write(p[:n])
	u.size += int64(n)
	if u.offset >= 0 {
		u.offset = u.size
	}
	if err != nil {
		return n, fmt.Errorf("writing an upload: %w", err)
	}
	return n, nil
}

func (u *Upload) touch() { u.touched.Store(time.Now().UnixNano()) }

func (u *Upload) lastTouched() time.Time { return time.Unix(0, u.touched.Load()) }

// Close leaves the upload for a later Resume.
func (u *Upload) Close() error { return nil }

// Size is the number of bytes written so far.
func (u *Upload) Size() int64 { u.mu.Lock(); defer u.mu.Unlock(); return u.size }

// ChunkSize is what clients are told to send at once, in bytes.
func (u *Upload) ChunkSize() int { return 8 << 20 }

// ID is what Resume wants.
func (u *Upload) ID() string { return u.id }

// Commit verifies the content and gives it its name.
func (u *Upload) Commit(digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return ociregistry.Descriptor{}, ociregistry.ErrBlobUploadUnknown
	}
	to, err := u.blobs.path(digest)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	if got := "sha256:" + hex.EncodeToString(u.sum.Sum(nil)); got != string(digest) {
		return ociregistry.Descriptor{}, fmt.Errorf("the content has digest %s, not %s: %w", got, digest, ociregistry.ErrDigestInvalid)
	}
	if err := u.file.Sync(); err != nil {
		return ociregistry.Descriptor{}, fmt.Errorf("syncing a blob: %w", err)
	}
	if err := u.name(to); err != nil {
		return ociregistry.Descriptor{}, fmt.Errorf("storing a blob: %w", err)
	}
	u.finish()
	return ociregistry.Descriptor{MediaType: "application/octet-stream", Digest: digest, Size: u.size}, nil
}

// name gives the content its name, and its age. The same content may be there.
func (u *Upload) name(to string) error {
	if err := u.rename(to); err != nil {
		return err
	}
	return u.blobs.named.Sync() // before a row says that the blob is there
}

// rename excludes whoever collects: it must not remove what has just come.
func (u *Upload) rename(to string) error {
	b := u.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if err := os.Chtimes(u.file.Name(), now, now); err != nil {
		return err
	}
	old, err := os.Stat(to)
	there := err == nil
	if err := os.Rename(u.file.Name(), to); err != nil {
		return err
	}
	if there {
		b.used -= old.Size()
	}
	return nil
}

// Cancel drops the upload; after Commit it does nothing.
func (u *Upload) Cancel() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cancel()
	return nil
}

func (u *Upload) cancel() {
	if !u.closed {
		if os.Remove(u.file.Name()) == nil {
			u.blobs.give(u.size)
		}
		u.finish()
	}
}

func (u *Upload) finish() {
	u.closed = true
	u.file.Close()
	u.blobs.mu.Lock()
	delete(u.blobs.uploads, u.id)
	u.blobs.mu.Unlock()
}
