package release

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Program is an image of one static program.
type Program struct {
	File string   // on this machine
	Args []string // after the program's name
	Env  []string // NAME=value
	Port string
}

// Image assembles the program's image: one layer, no base, always the same
// digest for the same program.
func (p Program) Image(arch string) (v1.Image, error) {
	raw, err := os.ReadFile(p.File)
	if err != nil {
		return nil, fmt.Errorf("reading the program: %w", err)
	}
	to := "app/" + path.Base(p.File)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Name: "app/", Typeflag: tar.TypeDir, Mode: 0o755})
		w.WriteHeader(&tar.Header{Name: to, Mode: 0o755, Size: int64(len(raw))})
		w.Write(raw)
		w.Close()
		return io.NopCloser(&b), nil
	}, tarball.WithCompressionLevel(1))
	if err != nil {
		return nil, fmt.Errorf("assembling the image: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("assembling the image: %w", err)
	}
	config := &v1.ConfigFile{OS: "linux", Architecture: arch, RootFS: v1.RootFS{Type: "layers"}}
	if have, err := image.ConfigFile(); err == nil {
		config.RootFS = have.RootFS
	}
	config.Config = v1.Config{Entrypoint: append([]string{"/" + to}, p.Args...), Env: p.Env, WorkingDir: "/", ExposedPorts: map[string]struct{}{p.Port + "/tcp": {}}}
	return mutate.ConfigFile(image, config)
}

// Push pushes an image to a repository of the registry that c's credentials
// may push to, and returns its name there and its digest.
func Push(ctx context.Context, c *ecr.Client, image v1.Image, repository, tag string) (ref, digest string, err error) {
	out, err := c.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return "", "", fmt.Errorf("asking for the registry's token: %w", err)
	}
	if len(out.AuthorizationData) == 0 {
		return "", "", fmt.Errorf("the registry gave no token")
	}
	auth := out.AuthorizationData[0]
	raw, err := base64.StdEncoding.DecodeString(*auth.AuthorizationToken)
	if err != nil {
		return "", "", fmt.Errorf("reading the registry's token: %w", err)
	}
	user, password, _ := strings.Cut(string(raw), ":")
	endpoint := *auth.ProxyEndpoint
	_, host, _ := strings.Cut(endpoint, "://")
	options := []name.Option{}
	if strings.HasPrefix(endpoint, "http://") {
		options = append(options, name.Insecure)
	}
	parsed, err := name.NewTag(host+"/"+repository+":"+tag, options...)
	if err != nil {
		return "", "", fmt.Errorf("naming the image: %w", err)
	}
	if err := remote.Write(parsed, image, remote.WithContext(ctx), remote.WithAuth(&authn.Basic{Username: user, Password: password})); err != nil {
		return "", "", fmt.Errorf("pushing the image: %w", err)
	}
	d, err := image.Digest()
	if err != nil {
		return "", "", fmt.Errorf("pushing the image: %w", err)
	}
	return parsed.Name(), d.String(), nil
}
