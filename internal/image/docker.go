package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// command is a program that is interrupted when the context ends, so that it
// can end its own children, and killed if it does not.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs a command to its end; that of the context is the error then.
func run(ctx context.Context, cmd *exec.Cmd) error {
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args[:min(2, len(cmd.Args))], " "), err)
	}
	return nil
}

// says is what a command prints. Its error has what it said of it.
func says(ctx context.Context, name string, args ...string) (string, error) {
	cmd := command(ctx, name, args...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		err = errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}

// docker says why no Docker daemon can be used, or nil.
func docker(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := says(ctx, "docker", "version", "--format", "{{.Server.Version}}")
	return err
}

// dockerBuild has Docker or BuildKit build the source's Dockerfile. Docker
// keeps the image under its name, and with it what the next build need not do.
func (s Spec) dockerBuild(ctx context.Context, scratch string, log io.Writer) (v1.Image, error) {
	file := filepath.Join(s.Source, "Dockerfile")
	if !hasDockerfile(s.Source) {
		return nil, refuse("", "there is no %s", file)
	}
	saved := filepath.Join(scratch, "docker.tar")
	noDocker := docker(ctx)
	_, noBuildKit := exec.LookPath("buildctl")
	switch {
	case noDocker == nil:
		id := filepath.Join(scratch, "docker.id")
		cmd := command(ctx, "docker", "build", "--platform", s.Platform.String(), "--iidfile", id, "--tag", s.Name.String(), "--", s.Source)
		cmd.Stdout, cmd.Stderr = log, log
		if err := run(ctx, cmd); err != nil {
			return nil, fmt.Errorf("building %s: %w", file, err)
		}
		raw, err := os.ReadFile(id)
		if err != nil {
			return nil, fmt.Errorf("building %s: %w", file, err)
		}
		if err := save(ctx, strings.TrimSpace(string(raw)), saved); err != nil {
			return nil, err
		}
	case noBuildKit == nil:
		cmd := command(ctx, "buildctl", "build", "--frontend", "dockerfile.v0", "--local", "context="+s.Source, "--local", "dockerfile="+s.Source,
			"--opt", "platform="+s.Platform.String(), "--output", "type=docker,dest="+saved)
		cmd.Stdout, cmd.Stderr = log, log
		if err := run(ctx, cmd); err != nil {
			return nil, fmt.Errorf("building %s: %w", file, err)
		}
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, &ToolError{fmt.Sprintf("%s needs Docker or BuildKit, and neither can be used here: %v", file, noDocker),
			"start Docker; or build without it, with --kind go or --kind directory, or from a static program"}
	}
	image, err := load(ctx, saved, scratch)
	if err != nil {
		return nil, err
	}
	return image, s.built(image, file)
}

// FromDocker is an image that the Docker daemon has.
func FromDocker(ctx context.Context, name, scratch string) (v1.Image, error) {
	if err := docker(ctx); err != nil {
		return nil, fmt.Errorf("docker cannot be asked for it: %w", err)
	}
	id, err := says(ctx, "docker", "image", "inspect", "--format", "{{.Id}}", name)
	if err != nil {
		return nil, fmt.Errorf("docker does not have it: %w", err)
	}
	saved := filepath.Join(scratch, "docker.tar")
	if err := save(ctx, id, saved); err != nil {
		return nil, err
	}
	return load(ctx, saved, scratch)
}

func save(ctx context.Context, id, to string) error {
	if _, err := says(ctx, "docker", "save", "--output", to, id); err != nil {
		return fmt.Errorf("saving Docker's image %s: %w", id, err)
	}
	return nil
}

// load reads an image that Docker saved. Each layer is compressed here, once.
func load(ctx context.Context, file, scratch string) (v1.Image, error) {
	saved, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return nil, fmt.Errorf("reading Docker's image: %w", err)
	}
	config, err := saved.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading Docker's image: %w", err)
	}
	layers, err := saved.Layers()
	if err != nil {
		return nil, fmt.Errorf("reading Docker's image: %w", err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		layer, err := compress(scratch, types.OCILayer, func(w io.Writer) error {
			r, err := l.Uncompressed()
			if err != nil {
				return fmt.Errorf("reading Docker's image: %w", err)
			}
			defer r.Close()
			_, err = io.Copy(w, reader{ctx, r})
			return err
		})
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, fmt.Errorf("adding a layer: %w", err)
		}
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, fmt.Errorf("configuring the image: %w", err)
	}
	return image, nil
}
