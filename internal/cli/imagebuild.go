package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"serin/internal/image"
	"serin/internal/release"
)

// buildFlags are what an image is made of, as it is written.
type buildFlags struct {
	kind, platform, base    string
	entrypoint, cmd, labels []string
	push, create            bool
}

func (a *app) imageBuild() *cobra.Command {
	var f buildFlags
	var s image.Spec
	c := &cobra.Command{
		Use:   "build NAME[:TAG] DIR",
		Short: "Make an image of a program, a Go package, files or a Dockerfile",
		Long: `Make an image and keep it on this machine, in an OCI image layout under
$XDG_CACHE_HOME/serin/images or ~/.cache/serin/images. With --push, push it too.

What DIR is, is seen from its content, in this order; --kind says otherwise:

  dockerfile  a directory with a Dockerfile, built by the Docker daemon or by
              buildctl: the only kind that needs one of them
  binary      a file: a static program for Linux, which is the entrypoint
  go          the directory of a main package in a Go module, compiled with
              CGO_ENABLED=0 and -trimpath (GOFLAGS is honoured); the entrypoint
              is /app/NAME
  directory   files, which become the root file system, or what is below --to.
              All of them: .dockerignore is not read. Links stay links and are
              not followed. What it runs is said by --entrypoint and --cmd, or
              by the task definition.

An image is made from scratch, without a base. A program, of kind binary or go,
then finds this machine's CA certificates, /etc/passwd and /etc/group with root
and nonroot (65532), and an empty /tmp. --base puts the layers on another image
instead: NAME[:TAG] kept here, else in the target's registry; or one of another
registry by its full name, such as docker.io/library/debian:stable-slim.

The same input gives the same digest, except for the kind dockerfile.`,
		Args: exactly("NAME[:TAG] and DIR", 2),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := taggedName(args[0])
			if err != nil {
				return err
			}
			s.Name, s.Source = name, args[1]
			return a.runBuild(c.Context(), f, s)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.kind, "kind", "", "dockerfile, binary, go or directory (default: by content)")
	fl.StringVar(&f.platform, "platform", "linux/"+runtime.GOARCH, strings.Join(image.Platforms, " or "))
	fl.StringVar(&f.base, "base", "", "image below the layers (default: none)")
	fl.StringVar(&s.To, "to", "", "where the files of a directory go in the image (default /)")
	fl.StringArrayVar(&f.entrypoint, "entrypoint", nil, "program that is run; more words by repeating it, or as a JSON list")
	fl.StringArrayVar(&f.cmd, "cmd", nil, "argument of the entrypoint; more by repeating it, or as a JSON list")
	fl.StringArrayVar(&s.Env, "env", nil, "environment variable NAME=value; may be repeated")
	fl.StringArrayVar(&s.Ports, "port", nil, "port that is listened on, 8080 or 53/udp; may be repeated")
	fl.StringVar(&s.User, "user", "", "user, or user:group, by name or number")
	fl.StringVar(&s.Workdir, "workdir", "", "working directory")
	fl.StringArrayVar(&f.labels, "label", nil, "label NAME=value; may be repeated")
	fl.BoolVar(&f.push, "push", false, "push the image to the target's registry")
	fl.BoolVar(&f.create, "repository-create", false, "with --push: create the repository if it is missing")
	a.targetFlags(c)
	a.outputFlag(c)
	return c
}

// exactly is cobra.ExactArgs in words.
func exactly(what string, n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s must be given, got %d arguments", what, len(args))
		}
		return nil
	}
}

// taggedName is a NAME[:TAG] of the command line.
func taggedName(s string) (image.Name, error) {
	n, err := image.ParseName(s)
	if err == nil && n.Digest != "" {
		return n, usage("a tag is wanted here, and not a digest: NAME[:TAG], got %q", s)
	}
	return n, err
}

// words reads a list: a word each time, or a JSON list.
func words(flag string, values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		if !strings.HasPrefix(v, "[") {
			out = append(out, v)
			continue
		}
		var list []string
		if err := json.Unmarshal([]byte(v), &list); err != nil {
			return nil, usage("--%s must be a word or a JSON list of words, got %q", flag, v)
		}
		out = append(out, list...)
	}
	return out, nil
}

// read puts the flags into the Spec.
func (f buildFlags) read(ctx context.Context, s *image.Spec) error {
	if f.create && !f.push {
		return usage("--repository-create goes with --push")
	}
	p, err := v1.ParsePlatform(f.platform)
	if err != nil || !slices.Contains(image.Platforms, f.platform) {
		return usage("--platform must be %s, got %q", strings.Join(image.Platforms, " or "), f.platform)
	}
	s.Platform = *p
	if s.Entrypoint, err = words("entrypoint", f.entrypoint); err != nil {
		return err
	}
	if s.Cmd, err = words("cmd", f.cmd); err != nil {
		return err
	}
	s.Labels = map[string]string{}
	for _, l := range f.labels {
		name, value, ok := strings.Cut(l, "=")
		if !ok || name == "" {
			return usage("--label must be NAME=value, got %q", l)
		}
		s.Labels[name] = value
	}
	s.Kind = image.Kind(f.kind)
	if f.kind == "" {
		s.Kind, err = image.KindOf(ctx, s.Source)
	} else if !slices.Contains(image.Kinds, s.Kind) {
		return usage("--kind must be dockerfile, binary, go or directory, got %q", f.kind)
	}
	if err == nil && f.base != "" && s.Kind == image.Dockerfile {
		return usage("--base does not go with kind dockerfile: its FROM says the base")
	}
	return err
}

func (a *app) runBuild(ctx context.Context, f buildFlags, s image.Spec) error {
	if err := f.read(ctx, &s); err != nil {
		return err
	}
	store, err := imageStore()
	if err != nil {
		return err
	}
	var to imageTarget
	if f.push { // a target that does not answer is learned before the work
		if to, err = a.imageTarget(ctx, true); err != nil {
			return err
		}
	}
	scratch, err := os.MkdirTemp("", "serin-image-")
	if err != nil {
		return fmt.Errorf("making room for the image: %w", err)
	}
	defer os.RemoveAll(scratch)
	a.line("%s is of kind %s: building %s for %s", s.Source, s.Kind, s.Name, f.platform)
	r := imageReport{Image: s.Name.String(), Kind: string(s.Kind), Source: s.Source, Platform: f.platform, Base: f.base, Layers: []layerReport{}}
	if f.base != "" {
		var done func()
		if s.Base, done, err = a.base(ctx, store, f.base, s.Platform); err != nil {
			return err
		}
		defer done()
	}
	made, err := s.Build(ctx, scratch, a.err)
	if err != nil {
		return err
	}
	if err := store.Put(s.Name, made); err != nil {
		return err
	}
	if err := r.read(made); err != nil {
		return err
	}
	if s.Kind == image.Directory && s.Entrypoint == nil && s.Cmd == nil && s.Base == nil {
		fmt.Fprintln(a.err, "serin: the image says nothing to run; --entrypoint does, or entryPoint in the task definition")
	}
	if f.push {
		kept, done, err := store.Open(s.Name)
		if err != nil {
			return err
		}
		defer done()
		return a.push(ctx, to, s.Name, kept, f.create, r)
	}
	for _, l := range r.Layers {
		a.line("layer %s %s", short(l.Digest), sized(l.Size))
	}
	a.line("kept here; to push it: serin image push %s", s.Name)
	a.line("%s@%s", s.Name.Repository, r.Digest)
	return a.report(r)
}

// base is the image that --base names.
func (a *app) base(ctx context.Context, store *image.Store, ref string, platform v1.Platform) (v1.Image, func(), error) {
	host := release.HostOf(ref)
	if host == "" {
		n, err := image.ParseName(ref)
		if err != nil {
			return nil, nil, err
		}
		ref = n.String()
		kept, done, err := store.Open(n)
		if err == nil {
			a.line("base %s is the one kept here", n)
			return kept, done, nil
		}
		if !errors.Is(err, image.ErrNotKept) {
			return nil, nil, err
		}
	}
	// The target is asked where it must be, and where it may be meant.
	var registry release.Registry
	must, may := host == "" || release.IsECR(host), host == "localhost" || strings.HasPrefix(host, "localhost:") || net.ParseIP(strings.Split(host, ":")[0]) != nil
	if must || may {
		to, err := a.imageTarget(ctx, false)
		if err != nil && must {
			return nil, nil, err
		}
		registry = to.registry
	}
	i, err := registry.Pull(ctx, ref, platform)
	if err != nil {
		hint := ""
		switch {
		case host != "" && errors.Is(err, syscall.ECONNREFUSED):
			hint = "no registry answers at " + host
		case host == "":
			hint = fmt.Sprintf("%s is neither kept here nor in the target's registry; one of Docker Hub is written docker.io/library/%s", ref, ref)
		}
		return nil, nil, &hintedError{err, hint}
	}
	return i, func() {}, nil
}
