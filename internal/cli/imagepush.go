package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"

	"serin/internal/image"
	"serin/internal/release"
)

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
	case has(transport.DeniedErrorCode, "registry is full"):
		return &hintedError{err, "serin image rm deletes images; serin up --registry-max-size allows more"}
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
