package run

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/singleflight"
)

// images keeps unpacked images, once per digest:
//
//	DIR/sha256-…/rootfs/   the files
//	DIR/sha256-…/config    the image's configuration, written last: its
//	                       presence says that the rest is whole
type images struct {
	dir       string
	transport http.RoundTripper // nil: the default

	pulls singleflight.Group
}

// pull resolves ref and unpacks its image for this machine, unless it is there.
func (i *images) pull(ctx context.Context, ref string, auth Auth) (Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Image{}, &Error{CannotPull, fmt.Errorf("invalid reference format: %w", err)}
	}
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	options := []remote.Option{remote.WithContext(ctx), remote.WithPlatform(platform)}
	if i.transport != nil {
		options = append(options, remote.WithTransport(i.transport))
	}
	if auth.Username != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: auth.Username, Password: auth.Password}))
	}
	desc, err := remote.Get(parsed, options...)
	if err != nil {
		return Image{}, &Error{CannotPull, fmt.Errorf("pull image manifest of %s: %w", ref, err)}
	}
	dir := filepath.Join(i.dir, strings.ReplaceAll(desc.Digest.String(), ":", "-"))
	_, err, _ = i.pulls.Do(dir, func() (any, error) {
		if _, err := os.Stat(filepath.Join(dir, "config")); err == nil {
			return nil, nil
		}
		image, err := desc.Image()
		if err != nil {
			return nil, fmt.Errorf("image Manifest does not contain descriptor matching platform '%s': %w", platform, err)
		}
		return nil, unpack(image, dir)
	})
	if err != nil {
		return Image{}, &Error{CannotPull, err}
	}
	return Image{Digest: desc.Digest.String(), Ref: dir}, nil
}

// unpack writes the flattened image to dir. What a crash left is started over.
func unpack(image v1.Image, dir string) error {
	config, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("reading the image's configuration: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clearing %s: %w", dir, err)
	}
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return fmt.Errorf("unpacking an image: %w", err)
	}
	files := mutate.Extract(image)
	defer files.Close()
	if err := untar(files, rootfs); err != nil {
		os.RemoveAll(dir)
		return fmt.Errorf("unpacking an image: %w", err)
	}
	raw, err := json.Marshal(config.Config)
	if err != nil {
		return fmt.Errorf("unpacking an image: %w", err)
	}
	return writeFile(filepath.Join(dir, "config"), raw)
}

// untar writes an archive below dir and nowhere else: every path is resolved
// inside it by os.Root. Device nodes are left out; owners are kept where we may.
func untar(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	asRoot := os.Geteuid() == 0
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			// The archive's end is not yet the source's: an image that cannot be
			// read to its last layer ends its archive cleanly and then fails.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		to := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if to == "" {
			continue
		}
		if parent := path.Dir(to); parent != "." {
			if err := root.MkdirAll(parent, 0o755); err != nil {
				return err
			}
		}
		mode := h.FileInfo().Mode()
		switch h.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(to, 0o755); err != nil {
				return err
			}
		case tar.TypeReg:
			f, err := root.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			_, err = io.Copy(f, t)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
		case tar.TypeSymlink:
			root.Remove(to)
			if err := root.Symlink(h.Linkname, to); err != nil {
				return err
			}
		case tar.TypeLink:
			root.Remove(to)
			if err := root.Link(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"), to); err != nil {
				return err
			}
		default:
			continue
		}
		if asRoot {
			if err := root.Lchown(to, h.Uid, h.Gid); err != nil {
				return err
			}
		}
		if h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeReg {
			if err := root.Chmod(to, mode.Perm()|mode&(os.ModeSetuid|os.ModeSetgid|os.ModeSticky)); err != nil {
				return err
			}
		}
	}
}

// config reads an unpacked image's configuration.
func (i *images) config(ref string) (v1.Config, error) {
	var c v1.Config
	raw, err := os.ReadFile(filepath.Join(ref, "config"))
	if err != nil {
		return c, fmt.Errorf("the image is not unpacked: %w", err)
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("reading the image's configuration: %w", err)
	}
	return c, nil
}

// writeFile replaces a file in one step.
func writeFile(to string, content []byte) error {
	tmp := to + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}
