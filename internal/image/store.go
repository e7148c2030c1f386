package image

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// Store keeps images in an OCI image layout, one for each name. Several
// processes may use it at once:
//
//	DIR/oci-layout, index.json, blobs/   the layout, for any tool
//	DIR/writing                          locked by the one that changes it
//	DIR/reading                          locked by those that read blobs, so
//	                                     that none is collected under them
type Store struct{ dir string }

// NewStore is the store in a directory, which is made when it is needed.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// ErrNotKept says that the store has no image of a name.
var ErrNotKept = errors.New("not kept here")

// Kept is an image of the store.
type Kept struct {
	Name      Name // with tag and digest
	Platform  string
	Size      int64 // of the layers and the configuration, compressed
	MediaType string
	Time      time.Time // when it was put
}

const (
	annotationName = "org.opencontainers.image.ref.name"
	annotationTime = "org.opencontainers.image.created"
)

// Put keeps an image under a name, in the place of the one that had it.
func (s *Store) Put(name Name, image v1.Image) error {
	keeping := func(err error) error { return fmt.Errorf("keeping %s in %s: %w", name, s.dir, err) }
	if err := os.MkdirAll(filepath.Join(s.dir, "blobs", "sha256"), 0o700); err != nil {
		return keeping(err)
	}
	unlock, err := s.lock("writing", unix.LOCK_EX)
	if err != nil {
		return keeping(err)
	}
	defer unlock()
	d, err := s.write(image)
	if err != nil {
		return keeping(err)
	}
	d.Annotations = map[string]string{annotationName: name.String(), annotationTime: time.Now().UTC().Format(time.RFC3339)}
	list, err := s.index()
	if err == nil {
		list = slices.DeleteFunc(list, func(d v1.Descriptor) bool { return d.Annotations[annotationName] == name.String() })
		err = s.setIndex(append(list, *d))
	}
	if err != nil {
		return keeping(err)
	}
	return nil
}

// write writes an image's blobs, the manifest last, and describes it.
func (s *Store) write(image v1.Image) (*v1.Descriptor, error) {
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return nil, err
		}
		if err := s.blob(digest, l.Compressed); err != nil {
			return nil, err
		}
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	manifest, err := image.RawManifest()
	if err != nil {
		return nil, err
	}
	for _, raw := range [][]byte{config, manifest} {
		digest, _, err := v1.SHA256(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		if err := s.blob(digest, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }); err != nil {
			return nil, err
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	d, err := partial.Descriptor(image)
	if err != nil {
		return nil, err
	}
	d.ArtifactType = "" // of artifacts, and this is an image
	d.Platform = &v1.Platform{OS: file.OS, Architecture: file.Architecture}
	return d, nil
}

// blob writes a blob unless it is there; it has its name only when it is whole.
func (s *Store) blob(digest v1.Hash, open func() (io.ReadCloser, error)) error {
	to := filepath.Join(s.dir, "blobs", "sha256", digest.Hex)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.CreateTemp(s.dir, "blob-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it has its name
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest.Hex {
		return fmt.Errorf("a layer has the digest sha256:%s, and should have %s", got, digest)
	}
	return os.Rename(f.Name(), to)
}

// Open is the kept image of a name. Its blobs stay until close is called.
func (s *Store) Open(name Name) (image v1.Image, close func(), err error) {
	opening := func(err error) (v1.Image, func(), error) {
		return nil, nil, fmt.Errorf("reading %s from %s: %w", name, s.dir, err)
	}
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s is %w", name, ErrNotKept)
	}
	unlock, err := s.lock("reading", unix.LOCK_SH)
	if err != nil {
		return opening(err)
	}
	list, err := s.index()
	if err != nil {
		unlock()
		return opening(err)
	}
	i := slices.IndexFunc(list, func(d v1.Descriptor) bool {
		n, err := nameOf(d)
		return err == nil && n.matches(name)
	})
	if i < 0 {
		unlock()
		return nil, nil, fmt.Errorf("%s is %w", name, ErrNotKept)
	}
	image, err = layout.Path(s.dir).Image(list[i].Digest)
	if err != nil {
		unlock()
		return opening(err)
	}
	return image, unlock, nil
}

// nameOf is a kept image's name, with tag and digest. An error says that
// another tool put it there.
func nameOf(d v1.Descriptor) (Name, error) {
	name, err := ParseName(d.Annotations[annotationName])
	name.Digest = d.Digest.String()
	return name, err
}

// matches says whether a kept image is the one that is meant.
func (n Name) matches(meant Name) bool {
	return n.Repository == meant.Repository && (meant.Tag == "" || n.Tag == meant.Tag) && (meant.Digest == "" || n.Digest == meant.Digest)
}

// List is every kept image, by name.
func (s *Store) List() ([]Kept, error) {
	list, err := s.index()
	if err != nil {
		return nil, err
	}
	var out []Kept
	for _, d := range list {
		name, err := nameOf(d)
		if err != nil {
			continue
		}
		k := Kept{Name: name, MediaType: string(d.MediaType)}
		if d.Platform != nil {
			k.Platform = d.Platform.String()
		}
		k.Time, _ = time.Parse(time.RFC3339, d.Annotations[annotationTime])
		raw, err := layout.Path(s.dir).Bytes(d.Digest)
		if err != nil {
			return nil, fmt.Errorf("reading %s from %s: %w", name, s.dir, err)
		}
		m, err := v1.ParseManifest(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("reading %s from %s: %w", name, s.dir, err)
		}
		k.Size = m.Config.Size
		for _, l := range m.Layers {
			k.Size += l.Size
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Kept) int {
		return cmp.Or(strings.Compare(a.Name.Repository, b.Name.Repository), strings.Compare(a.Name.Tag, b.Name.Tag))
	})
	return out, nil
}

// Remove removes an image by its tag, or all tags of a digest, and says which.
func (s *Store) Remove(name Name) ([]Name, error) {
	removing := func(err error) ([]Name, error) { return nil, fmt.Errorf("removing %s: %w", name, err) }
	if _, err := os.Stat(s.dir); err != nil { // nothing was ever kept
		return removing(ErrNotKept)
	}
	unlock, err := s.lock("writing", unix.LOCK_EX)
	if err != nil {
		return removing(err)
	}
	defer unlock()
	list, err := s.index()
	if err != nil {
		return removing(err)
	}
	var gone []Name
	list = slices.DeleteFunc(list, func(d v1.Descriptor) bool {
		n, err := nameOf(d)
		if err != nil || !n.matches(name) {
			return false
		}
		gone = append(gone, n)
		return true
	})
	if gone == nil {
		return removing(ErrNotKept)
	}
	if err := s.setIndex(list); err != nil {
		return removing(err)
	}
	return gone, nil
}

// index is the layout's list of images.
func (s *Store) index() ([]v1.Descriptor, error) {
	raw, err := os.ReadFile(filepath.Join(s.dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(s.dir, "index.json"), err)
	}
	return m.Manifests, nil
}

// setIndex replaces the list and collects what it no longer refers to.
func (s *Store) setIndex(list []v1.Descriptor) error {
	raw, err := json.MarshalIndent(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: list}, "", "  ")
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, content string }{{"oci-layout", `{"imageLayoutVersion": "1.0.0"}`}, {"index.json", string(raw)}} {
		tmp := filepath.Join(s.dir, f.name+".tmp")
		if err := os.WriteFile(tmp, []byte(f.content), 0o600); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(s.dir, f.name)); err != nil {
			return err
		}
	}
	return s.collect(list)
}

// collect removes the blobs that no image has. While somebody reads, it leaves
// them to the next change.
func (s *Store) collect(list []v1.Descriptor) error {
	unlock, err := s.lock("reading", unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	used := map[string]bool{}
	for _, d := range list {
		used[d.Digest.Hex] = true
		raw, err := layout.Path(s.dir).Bytes(d.Digest)
		if err != nil {
			continue // broken, and no reason to keep nothing else
		}
		m, err := v1.ParseManifest(bytes.NewReader(raw))
		if err != nil {
			continue
		}
		used[m.Config.Digest.Hex] = true
		for _, l := range m.Layers {
			used[l.Digest.Hex] = true
		}
	}
	dir := filepath.Join(s.dir, "blobs", "sha256")
	blobs, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	unfinished, err := filepath.Glob(filepath.Join(s.dir, "blob-*")) // of a writer that was killed: the one that writes now has none
	for _, file := range unfinished {
		err = errors.Join(err, os.Remove(file))
	}
	for _, b := range blobs {
		if !used[b.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(dir, b.Name())))
		}
	}
	return err
}

// lock takes a lock of the store, and waits for it unless told not to.
func (s *Store) lock(name string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(f.Fd()), how)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
