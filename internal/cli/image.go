package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"

	"serin/internal/image"
	"serin/internal/release"
)

func (a *app) image() *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Build images without Docker, push them, list and delete them",
		Long: `Build container images without Docker, keep them on this machine, push them to the
registry of the stage or of AWS, and list and delete what is there.

  serin image build web:1 ./cmd/web           compile a Go program into an image
  serin image push --repository-create web:1  push it; the last line is the
                                              reference for a task definition`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; serin image --help lists them", "image "+args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.imageBuild(), a.imagePush(), a.imageList(), a.imageRemove())
	return c
}

// imageStore is where images are kept until they are pushed.
func imageStore() (*image.Store, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("finding the cache directory: %w", err)
	}
	return image.NewStore(filepath.Join(cache, "serin", "images")), nil
}

// imageReport is what became of an image.
type imageReport struct {
	Image     string        `json:"image"`
	Kind      string        `json:"kind,omitempty"`
	Source    string        `json:"source,omitempty"`
	Base      string        `json:"base,omitempty"`
	Platform  string        `json:"platform,omitempty"`
	Digest    string        `json:"digest"`
	Layers    []layerReport `json:"layers"`
	Reference string        `json:"reference,omitempty"`
}

type layerReport struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Sent   *bool  `json:"sent,omitempty"`
}

// line prints a line for people. Machines get a document at the end.
func (a *app) line(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.out, format+"\n", args...)
	}
}

// short is a digest as people are shown it.
func short(digest string) string { return digest[:min(len("sha256:")+12, len(digest))] }

// sized is a size as people are shown it, in the units of registries.
func sized(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1e3)
}

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

// report prints the document for machines.
func (a *app) report(v any) error {
	if !a.json {
		return nil
	}
	return json.NewEncoder(a.out).Encode(v)
}

// read takes digest and layers from the image.
func (r *imageReport) read(i v1.Image) error {
	m, err := i.Manifest()
	if err != nil {
		return fmt.Errorf("reading the image: %w", err)
	}
	d, err := i.Digest()
	if err != nil {
		return fmt.Errorf("reading the image: %w", err)
	}
	r.Digest, r.Layers = d.String(), []layerReport{}
	for _, l := range m.Layers {
		r.Layers = append(r.Layers, layerReport{Digest: l.Digest.String(), Size: l.Size})
	}
	return nil
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

// imageTarget is the registry of the target, as both of its faces.
type imageTarget struct {
	ecr      *ecr.Client
	registry release.Registry
	region   string
}

func (a *app) imageTarget(ctx context.Context, changes bool) (imageTarget, error) {
	c, err := a.aws(ctx, changes)
	if err != nil {
		return imageTarget{}, err
	}
	t := imageTarget{ecr: ecr.NewFromConfig(c), region: c.Region}
	t.registry, err = release.OpenRegistry(ctx, t.ecr)
	return t, err
}

func (a *app) imagePush() *cobra.Command {
	var create bool
	c := &cobra.Command{
		Use:   "push NAME[:TAG]",
		Short: "Push an image to the target's registry",
		Long: `Push an image that serin image build kept here or, if none is, the one that the
Docker daemon has under that name. Layers that the repository has are not sent
again. The last line is the reference by digest, which a deployment should use: a
tag can come to mean another image.

  serin deploy … --image "$(serin image push web:1 | tail -n 1)"`,
		Args: exactly("NAME[:TAG]", 1),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := taggedName(args[0])
			if err != nil {
				return err
			}
			return a.runPush(c.Context(), name, create)
		},
	}
	c.Flags().BoolVar(&create, "repository-create", false, "create the repository if it is missing")
	a.targetFlags(c)
	a.outputFlag(c)
	return c
}

func (a *app) runPush(ctx context.Context, name image.Name, create bool) error {
	store, err := imageStore()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "serin-image-")
	if err != nil {
		return fmt.Errorf("making room for the image: %w", err)
	}
	defer os.RemoveAll(scratch)
	i, done, err := store.Open(name)
	if errors.Is(err, image.ErrNotKept) {
		var fromDocker error
		if i, fromDocker = image.FromDocker(ctx, name.String(), scratch); fromDocker != nil {
			return &hintedError{fmt.Errorf("%w, and %w", err, fromDocker), fmt.Sprintf("make it with: serin image build %s DIR", name)}
		}
		a.line("%s is Docker's; none of that name is kept here", name)
		done, err = func() {}, nil
	}
	if err != nil {
		return err
	}
	defer done()
	r := imageReport{Image: name.String()}
	if err := r.read(i); err != nil {
		return err
	}
	to, err := a.imageTarget(ctx, true)
	if err != nil {
		return err
	}
	return a.push(ctx, to, name, i, create, r)
}

// push pushes an image, says what became of each layer and, last, the image's
// reference.
func (a *app) push(ctx context.Context, to imageTarget, name image.Name, i v1.Image, create bool, r imageReport) error {
	if create {
		if err := a.createRepository(ctx, to.ecr, name.Repository); err != nil {
			return err
		}
	}
	r.Layers = []layerReport{}
	ref, err := to.registry.Push(ctx, i, name.Repository, name.Tag, func(l release.Layer) {
		r.Layers = append(r.Layers, layerReport{l.Digest, l.Size, &l.Sent})
		what := "already there"
		if l.Sent {
			what = "sent"
		}
		a.line("layer %s %s: %s", short(l.Digest), sized(l.Size), what)
	})
	if err != nil {
		return a.pushHint(err, to, name)
	}
	r.Reference = ref
	a.line("%s", ref)
	return a.report(r)
}

// createRepository makes a repository unless it is there. Who may push need not
// be allowed to create: it is asked for first.
func (a *app) createRepository(ctx context.Context, c *ecr.Client, name string) error {
	_, err := c.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{name}})
	if _, missing := errors.AsType[*ecrtypes.RepositoryNotFoundException](err); !missing {
		return err
	}
	_, err = c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name})
	if _, exists := errors.AsType[*ecrtypes.RepositoryAlreadyExistsException](err); exists { // since
		return nil
	}
	if err == nil {
		a.line("repository %s created", name)
	}
	return err
}

// pushHint adds the way out to what a registry refuses, where it is known.
func (a *app) pushHint(err error, to imageTarget, name image.Name) error {
	refused, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return err
	}
	has := func(code transport.ErrorCode, text string) bool {
		return slices.ContainsFunc(refused.Errors, func(d transport.Diagnostic) bool {
			return d.Code == code && strings.Contains(d.Message, text)
		})
	}
	switch {
	case has(transport.NameUnknownErrorCode, ""):
		return &hintedError{err, fmt.Sprintf("--repository-create creates it; so does: aws ecr create-repository --repository-name %s%s", name.Repository, a.awsFlags(to.region))}
	case has(transport.TagInvalidErrorCode, "immutable"):
		return &hintedError{err, "tags of this repository are immutable: give the image another tag"}
	case refused.StatusCode != http.StatusUnauthorized && refused.StatusCode != http.StatusForbidden:
		return err
	case a.target.name == "stage":
		return &hintedError{err, fmt.Sprintf("serin explain --endpoint-url %s says why", a.stageURL())}
	}
	return &hintedError{err, "a push needs ecr:BatchCheckLayerAvailability, InitiateLayerUpload, UploadLayerPart, CompleteLayerUpload, PutImage and BatchGetImage on the repository"}
}

// awsFlags are those with which the AWS CLI reaches the target.
func (a *app) awsFlags(region string) string {
	flags := " --region " + region
	if a.target.name == "stage" {
		flags += " --endpoint-url " + a.stageURL()
	}
	if a.target.profile != "" {
		flags += " --profile " + a.target.profile
	}
	return flags
}

// localFlag chooses this machine instead of the target.
func localFlag(c *cobra.Command, local *bool, what string) {
	c.Flags().BoolVar(local, "local", false, what)
}

// checkLocal refuses a target where none is asked.
func checkLocal(c *cobra.Command, local bool) error {
	for _, name := range []string{"target", "endpoint-url", "region", "profile"} {
		if local && c.Flags().Changed(name) {
			return usage("--%s does not go with --local", name)
		}
	}
	return nil
}

// imageRow is an image of a list. Several tags can be one image's.
type imageRow struct {
	Repository string    `json:"repository"`
	Tags       []string  `json:"tags"`
	Digest     string    `json:"digest"`
	Size       int64     `json:"size"`
	Time       time.Time `json:"time"`
	MediaType  string    `json:"mediaType"`
	Platform   string    `json:"platform,omitempty"`
}

func (a *app) imageList() *cobra.Command {
	var local bool
	c := &cobra.Command{
		Use:   "ls [NAME]",
		Short: "List the images of the target's registry, or those kept here",
		Long: `List the images of the target's registry, all or those of one repository, the
newest first: tag, digest, compressed size, time of the push, media type. With
--local, list those that are kept on this machine, with the time they were built.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("at most one NAME can be given, got %d", len(args))
			}
			if len(args) == 1 && strings.ContainsAny(args[0], ":@") {
				return usage("NAME is a repository's, without tag or digest, got %q", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkLocal(c, local); err != nil {
				return err
			}
			repository := ""
			if len(args) == 1 {
				n, err := image.ParseName(args[0])
				if err != nil {
					return err
				}
				repository = n.Repository
			}
			return a.runList(c.Context(), repository, local)
		},
	}
	localFlag(c, &local, "list the images kept on this machine")
	a.targetFlags(c)
	a.outputFlag(c)
	return c
}

func (a *app) runList(ctx context.Context, repository string, local bool) error {
	list, when := a.registryRows, "PUSHED"
	if local {
		list, when = keptRows, "BUILT"
	}
	rows, err := list(ctx, repository)
	if err != nil {
		return err
	}
	if a.json {
		return a.report(rows)
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.out, "no images")
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "REPOSITORY\tTAG\tDIGEST\tSIZE\t%s\tMEDIA TYPE\n", when)
	for _, r := range rows {
		tags := r.Tags
		if len(tags) == 0 {
			tags = []string{"-"}
		}
		for _, tag := range tags {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Repository, tag, short(r.Digest), sized(r.Size), r.Time.Format(time.RFC3339), r.MediaType)
		}
	}
	return w.Flush()
}

func keptRows(_ context.Context, repository string) ([]imageRow, error) {
	store, err := imageStore()
	if err != nil {
		return nil, err
	}
	kept, err := store.List()
	if err != nil {
		return nil, err
	}
	rows := []imageRow{}
	for _, k := range kept {
		if repository == "" || repository == k.Name.Repository {
			rows = append(rows, imageRow{k.Name.Repository, []string{k.Name.Tag}, k.Name.Digest, k.Size, k.Time, k.MediaType, k.Platform})
		}
	}
	return rows, nil
}

func (a *app) registryRows(ctx context.Context, repository string) ([]imageRow, error) {
	c, err := a.aws(ctx, false)
	if err != nil {
		return nil, err
	}
	client := ecr.NewFromConfig(c)
	repositories := []string{repository}
	if repository == "" {
		repositories = nil
		for pages := ecr.NewDescribeRepositoriesPaginator(client, &ecr.DescribeRepositoriesInput{}); pages.HasMorePages(); {
			out, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("listing the repositories: %w", err)
			}
			for _, r := range out.Repositories {
				repositories = append(repositories, aws.ToString(r.RepositoryName))
			}
		}
		slices.Sort(repositories)
	}
	rows := []imageRow{}
	for _, name := range repositories {
		first := len(rows)
		for pages := ecr.NewDescribeImagesPaginator(client, &ecr.DescribeImagesInput{RepositoryName: &name}); pages.HasMorePages(); {
			out, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("listing the images of %s: %w", name, err)
			}
			for _, i := range out.ImageDetails {
				slices.Sort(i.ImageTags)
				rows = append(rows, imageRow{Repository: name, Tags: append([]string{}, i.ImageTags...), Digest: aws.ToString(i.ImageDigest),
					Size: aws.ToInt64(i.ImageSizeInBytes), Time: aws.ToTime(i.ImagePushedAt), MediaType: aws.ToString(i.ImageManifestMediaType)})
			}
		}
		slices.SortFunc(rows[first:], func(a, b imageRow) int {
			return cmp.Or(b.Time.Compare(a.Time), strings.Compare(a.Digest, b.Digest))
		})
	}
	return rows, nil
}

func (a *app) imageRemove() *cobra.Command {
	var local bool
	c := &cobra.Command{
		Use:   "rm NAME[:TAG|@DIGEST]…",
		Short: "Delete images of the target's registry, or those kept here",
		Long: `Delete images of the target's registry by tag or by whole digest. A tag's image
goes with its last tag; by digest it goes with all its tags. What cannot be
deleted is said with its reason, and the exit code is 1 then. With --local,
delete those that are kept on this machine.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("NAME[:TAG] or NAME@DIGEST must be given")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkLocal(c, local); err != nil {
				return err
			}
			var names []image.Name
			for _, arg := range args {
				n, err := image.ParseName(arg)
				if err != nil {
					return err
				}
				names = append(names, n)
			}
			return a.runRemove(c.Context(), names, local)
		},
	}
	localFlag(c, &local, "delete images kept on this machine")
	a.targetFlags(c)
	a.outputFlag(c)
	return c
}

// deletion is what was deleted, and what was not.
type deletion struct {
	Deleted  []deleted `json:"deleted"`
	Failures []failed  `json:"failures"`
}

type deleted struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	Digest     string `json:"digest"`
}

type failed struct {
	Image  string `json:"image"`
	Reason string `json:"reason"`
}

func (a *app) runRemove(ctx context.Context, names []image.Name, local bool) error {
	d := deletion{Deleted: []deleted{}, Failures: []failed{}}
	var err error
	if local {
		err = d.local(names)
	} else {
		err = a.removeFromRegistry(ctx, names, &d)
	}
	for _, x := range d.Deleted { // also what went before an error
		name := x.Repository
		if x.Tag != "" {
			name += ":" + x.Tag
		}
		a.line("deleted %s %s", name, x.Digest)
	}
	if err == nil && len(d.Failures) > 0 {
		var reasons []string
		for _, f := range d.Failures {
			reasons = append(reasons, f.Image+": "+f.Reason)
		}
		err = fmt.Errorf("deleting %s", strings.Join(reasons, "; "))
	}
	return errors.Join(a.report(d), err)
}

func (d *deletion) local(names []image.Name) error {
	store, err := imageStore()
	if err != nil {
		return err
	}
	for _, n := range names {
		gone, err := store.Remove(n)
		if errors.Is(err, image.ErrNotKept) {
			d.Failures = append(d.Failures, failed{n.String(), image.ErrNotKept.Error()})
			continue
		}
		if err != nil {
			return err
		}
		for _, g := range gone {
			d.Deleted = append(d.Deleted, deleted{g.Repository, g.Tag, g.Digest})
		}
	}
	return nil
}

// mostDeleted is how many images BatchDeleteImage takes, documented.
const mostDeleted = 100

func (a *app) removeFromRegistry(ctx context.Context, names []image.Name, d *deletion) error {
	c, err := a.aws(ctx, true)
	if err != nil {
		return err
	}
	client := ecr.NewFromConfig(c)
	var order []string
	ids := map[string][]ecrtypes.ImageIdentifier{}
	for _, n := range names {
		if ids[n.Repository] == nil {
			order = append(order, n.Repository)
		}
		id := ecrtypes.ImageIdentifier{ImageTag: &n.Tag}
		if n.Digest != "" {
			id = ecrtypes.ImageIdentifier{ImageDigest: &n.Digest}
		}
		ids[n.Repository] = append(ids[n.Repository], id)
	}
	for _, repository := range order {
		for batch := range slices.Chunk(ids[repository], mostDeleted) {
			out, err := client.BatchDeleteImage(ctx, &ecr.BatchDeleteImageInput{RepositoryName: &repository, ImageIds: batch})
			if err != nil {
				return fmt.Errorf("deleting images of %s: %w", repository, err)
			}
			for _, id := range out.ImageIds {
				d.Deleted = append(d.Deleted, deleted{repository, aws.ToString(id.ImageTag), aws.ToString(id.ImageDigest)})
			}
			for _, f := range out.Failures {
				n := image.Name{Repository: repository}
				if f.ImageId != nil {
					n.Tag, n.Digest = aws.ToString(f.ImageId.ImageTag), aws.ToString(f.ImageId.ImageDigest)
				}
				d.Failures = append(d.Failures, failed{n.String(), fmt.Sprintf("%s: %s", f.FailureCode, aws.ToString(f.FailureReason))})
			}
		}
	}
	return nil
}
