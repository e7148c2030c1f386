package image

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// archive writes a layer's entries, all of one time and owner.
type archive struct{ *tar.Writer }

// put writes an entry. content is read for size bytes; nil: there are none.
func (a archive) put(h tar.Header, content io.Reader) error {
	h.ModTime = epoch
	if err := a.WriteHeader(&h); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	_, err := io.CopyN(a, content, h.Size)
	if errors.Is(err, io.EOF) {
		return errors.New("it became shorter while it was read")
	}
	return err
}

func (a archive) dir(name string, mode int64) error {
	return a.put(tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode}, nil)
}

func (a archive) text(name, text string) error {
	return a.put(tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}, strings.NewReader(text))
}

// file copies a file of this machine.
func (a archive) file(ctx context.Context, name string, mode int64, f fs.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.put(tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: info.Size()}, reader{ctx, f})
}

// reader ends when its context does.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// pack makes a layer of what write writes.
func pack(ctx context.Context, scratch string, media types.MediaType, write func(context.Context, archive) error) (v1.Layer, error) {
	return compress(scratch, media, func(w io.Writer) error {
		t := tar.NewWriter(w)
		if err := write(ctx, archive{t}); err != nil {
			return err
		}
		return t.Close()
	})
}

// compress makes a layer of an uncompressed archive: once, into a file. The
// level is that of other builders without a daemon: what is saved beyond it
// takes longer than sending it.
func compress(scratch string, media types.MediaType, write func(io.Writer) error) (v1.Layer, error) {
	f, err := os.CreateTemp(scratch, "layer-*.tar.gz")
	if err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	if err := write(z); err != nil {
		return nil, err
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	layer, err := tarball.LayerFromFile(f.Name(), tarball.WithMediaType(media))
	if err != nil {
		return nil, fmt.Errorf("reading a layer back: %w", err)
	}
	return layer, nil
}

// tree writes the files of the source below s.To. Links are kept as links and
// never followed: os.Root opens nothing outside the source, whatever becomes of
// it meanwhile.
func (s Spec) tree(ctx context.Context, a archive) error {
	info, err := os.Stat(s.Source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return refuse("", "%s is not a directory", s.Source)
	}
	root, err := os.OpenRoot(s.Source)
	if err != nil {
		return err
	}
	defer root.Close()
	to := strings.Trim(path.Clean("/"+s.To), "/")
	for i, c := range to + "/" {
		if c == '/' && i > 0 {
			if err := a.dir(to[:i], 0o755); err != nil {
				return err
			}
		}
	}
	empty := true
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && name != "." {
			empty = false
			err = entry(ctx, a, root, name, path.Join(to, name))
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", filepath.Join(s.Source, name), err)
		}
		return err
	})
	if err == nil && empty {
		return refuse("", "%s is empty", s.Source)
	}
	return err
}

// entry writes one file, directory or link of root.
func entry(ctx context.Context, a archive, root *os.Root, name, to string) error {
	if strings.HasPrefix(path.Base(name), ".wh.") {
		return refuse("", "a name that begins with .wh. deletes a file of the layer below; an image cannot have it")
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	mode := int64(info.Mode().Perm())
	for bit, of := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if info.Mode()&bit != 0 {
			mode |= of
		}
	}
	switch {
	case info.IsDir():
		return a.dir(to, mode)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		return a.put(tar.Header{Name: to, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, nil)
	case !info.Mode().IsRegular():
		return refuse("", "it is %s; an image can have files, directories and links", special(info.Mode()))
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.file(ctx, to, mode, f)
}
