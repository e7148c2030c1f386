package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
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
