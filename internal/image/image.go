// Package image makes OCI images without Docker and keeps them until they are
// pushed. An image is made of one of four kinds of input: a static program, the
// main package of a Go module, a directory of files, or, with Docker or
// BuildKit, a directory with a Dockerfile.
//
// The same input gives the same digest: entries are sorted, times are zero,
// owners are fixed, and nothing of the day or the machine gets in but the CA
// certificates that a program from scratch is given.
//
// A layer is compressed once, into a file; it is never whole in memory.
// Store keeps images in an OCI image layout, by name.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec says what an image is made of.
type Spec struct {
	Source   string      // a file or a directory
	Kind     Kind        // what Source is, as KindOf says or its user
	Name     Name        // what Docker calls the image, for the kind dockerfile
	Platform v1.Platform // one of Platforms
	Base     v1.Image    // below the layers; nil: from scratch
	To       string      // where a directory's files go; "": the root

	Entrypoint []string // nil: the program, or the base's
	Cmd        []string
	Env        []string // NAME=value
	Ports      []string // 8080 or 53/udp
	User       string
	Workdir    string
	Labels     map[string]string
}

// Platforms are those that images are made for.
var Platforms = []string{"linux/amd64", "linux/arm64"}

// InputError says why no image is made of an input, and the way out where one
// is known.
type InputError struct{ Text, Hint string }

func (e *InputError) Error() string { return e.Text }

func refuse(hint, format string, args ...any) error {
	return &InputError{Text: fmt.Sprintf(format, args...), Hint: hint}
}

// ToolError says what this machine lacks for a build, and the way out.
type ToolError struct{ Text, Hint string }

func (e *ToolError) Error() string { return e.Text }

// Build makes the image. Its layers are files in scratch, a directory of the
// caller's, and are read from there as long as the image is used. log gets what
// compilers and Docker say.
func (s Spec) Build(ctx context.Context, scratch string, log io.Writer) (v1.Image, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(Certificates); err != nil && s.Base == nil && (s.Kind == Binary || s.Kind == Go) {
		fmt.Fprintf(log, "this machine has no %s: the image gets no CA certificates\n", Certificates)
	}
	switch s.Kind {
	case Dockerfile:
		image, err := s.dockerBuild(ctx, scratch, log)
		if err != nil {
			return nil, err
		}
		return s.configure(image, nil)
	case Binary:
		return s.program(ctx, scratch, s.Source, filepath.Base(s.Source))
	case Go:
		file, err := s.compile(ctx, scratch, log)
		if err != nil {
			return nil, err
		}
		return s.program(ctx, scratch, file, path.Base(file))
	case Directory:
		return s.assemble(ctx, scratch, nil, s.tree)
	}
	return nil, refuse("", "kind must be one of %s, got %q", joined(Kinds), s.Kind)
}

// check refuses what does not go together, or is not written as it must be.
func (s Spec) check() error {
	if _, err := os.Stat(s.Source); errors.Is(err, fs.ErrNotExist) {
		return refuse("", "there is no %s", s.Source)
	}
	if !slices.Contains(Platforms, s.Platform.String()) {
		return refuse("", "platform must be one of %s, got %q", strings.Join(Platforms, ", "), s.Platform.String())
	}
	if s.To != "" && s.Kind != Directory {
		return refuse("", "to goes with kind directory; %s is of kind %s", s.Source, s.Kind)
	}
	if s.Base != nil && s.Kind == Dockerfile {
		return refuse("", "base does not go with kind dockerfile: FROM in %s says it", path.Join(s.Source, "Dockerfile"))
	}
	for _, p := range s.Ports {
		number, protocol, given := strings.Cut(p, "/")
		if n, err := strconv.Atoi(number); err != nil || n < 1 || n > 65535 || given && protocol != "tcp" && protocol != "udp" {
			return refuse("", "port must be a number from 1 to 65535, with /tcp or /udp if wanted, got %q", p)
		}
	}
	for _, e := range s.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return refuse("", "env must be NAME=value, got %q", e)
		}
	}
	if s.Workdir != "" && !path.IsAbs(s.Workdir) {
		return refuse("", "workdir must be an absolute path, got %q", s.Workdir)
	}
	return s.checkUser()
}

// checkUser refuses a name that the image's own /etc/passwd will not have.
func (s Spec) checkUser() error {
	if s.User == "" || s.Base != nil || s.Kind != Binary && s.Kind != Go {
		return nil
	}
	for name := range strings.SplitSeq(s.User, ":") {
		if _, err := strconv.ParseUint(name, 10, 32); err != nil && name != "root" && name != "nonroot" {
			return refuse("", "user %q is not in an image from scratch, which has root and nonroot; numbers are possible too", name)
		}
	}
	return nil
}

// assemble puts the layers on the base, in order, and configures the image.
func (s Spec) assemble(ctx context.Context, scratch string, entrypoint []string, layers ...func(context.Context, archive) error) (v1.Image, error) {
	image, err := s.base()
	if err != nil {
		return nil, err
	}
	media, err := image.MediaType()
	if err != nil {
		return nil, fmt.Errorf("reading the base: %w", err)
	}
	of := types.OCILayer
	if media == types.DockerManifestSchema2 { // an image's layers are of its own family
		of = types.DockerLayer
	}
	for _, write := range layers {
		layer, err := pack(ctx, scratch, of, write)
		if err != nil {
			return nil, err
		}
		image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: of, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "serin image build"}})
		if err != nil {
			return nil, fmt.Errorf("adding a layer: %w", err)
		}
	}
	return s.configure(image, entrypoint)
}

// epoch is the time of everything.
var epoch = time.Unix(0, 0).UTC()

// base is the image below the layers.
func (s Spec) base() (v1.Image, error) {
	if s.Base != nil {
		return s.Base, s.built(s.Base, "the base")
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	config := &v1.ConfigFile{OS: s.Platform.OS, Architecture: s.Platform.Architecture, Created: v1.Time{Time: epoch}, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}}}
	if s.Kind != Directory {
		config.Config = v1.Config{WorkingDir: "/", Env: slices.Clone(programEnv)}
	}
	return mutate.ConfigFile(image, config)
}

// built refuses an image for another platform.
func (s Spec) built(image v1.Image, what string) error {
	config, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("reading the configuration of %s: %w", what, err)
	}
	if config.OS != s.Platform.OS || config.Architecture != s.Platform.Architecture {
		return refuse("", "%s is for %s/%s, and the image is for %s", what, config.OS, config.Architecture, s.Platform.String())
	}
	return nil
}

// configure sets what the Spec says, over what the image has. As in a
// Dockerfile, a new entrypoint takes the old command away.
func (s Spec) configure(image v1.Image, entrypoint []string) (v1.Image, error) {
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the image's configuration: %w", err)
	}
	file = file.DeepCopy()
	c := &file.Config
	if s.Entrypoint != nil {
		entrypoint = s.Entrypoint
	}
	if entrypoint != nil {
		c.Entrypoint, c.Cmd = entrypoint, nil
	}
	if s.Cmd != nil {
		c.Cmd = s.Cmd
	}
	if s.User != "" {
		c.User = s.User
	}
	if s.Workdir != "" {
		c.WorkingDir = s.Workdir
	}
	for _, e := range s.Env {
		c.Env = setenv(c.Env, e)
	}
	for _, p := range s.Ports {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		c.ExposedPorts[p] = struct{}{}
	}
	if len(s.Labels) > 0 {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, s.Labels)
	}
	out, err := mutate.ConfigFile(image, file)
	if err != nil {
		return nil, fmt.Errorf("configuring the image: %w", err)
	}
	return out, nil
}

// setenv replaces a variable where it stands, or adds it.
func setenv(env []string, e string) []string {
	name, _, _ := strings.Cut(e, "=")
	if i := slices.IndexFunc(env, func(have string) bool { return strings.HasPrefix(have, name+"=") }); i >= 0 {
		env[i] = e
		return env
	}
	return append(env, e)
}
