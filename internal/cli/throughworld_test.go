package cli

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"serin/internal/release"
)

// One stage is the registry behind the cache of another, which signs in to it
// with Docker's configuration.
func TestAPullThroughTheCacheOfAnotherRegistry(t *testing.T) {
	upstream, at := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	ctx, there := t.Context(), ecr.NewFromConfig(admin(t, at))
	if _, err := there.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("team/web")}); err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(100_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	from, err := release.OpenRegistry(ctx, there)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.Push(ctx, image, "team/web", "1", func(release.Layer) {}); err != nil {
		t.Fatal(err)
	}
	token, err := there.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	dir, host := t.TempDir(), strings.TrimPrefix(at, "http://")
	t.Setenv("DOCKER_CONFIG", dir)
	write := func(password string) {
		t.Helper()
		text := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, password)
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined", "--upstream", "public.ecr.aws="+at)
	here := ecr.NewFromConfig(admin(t, endpoint))
	if _, err := here.CreatePullThroughCacheRule(ctx, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("public"), UpstreamRegistryUrl: new("public.ecr.aws")}); err != nil {
		t.Fatal(err)
	}
	_, err = here.CreateRepositoryCreationTemplate(ctx, &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("public"), AppliedFor: []types.RCTAppliedFor{types.RCTAppliedForPullThroughCache}, ImageTagMutability: types.ImageTagMutabilityImmutable})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := release.OpenRegistry(ctx, here)
	if err != nil {
		t.Fatal(err)
	}
	pull := func() error {
		pulled, err := cache.Pull(ctx, "public/team/web:1", v1.Platform{})
		if err == nil {
			err = validate.Image(pulled)
		}
		return err
	}

	write(base64.StdEncoding.EncodeToString([]byte("AWS:wrong")))
	valid, err := here.ValidatePullThroughCacheRule(ctx, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("public")})
	if err != nil || valid.IsValid || !strings.Contains(*valid.Failure, "401") {
		t.Errorf("with a wrong password the rule is %+v, %v", valid, err)
	}
	if err := pull(); err == nil || !strings.Contains(err.Error(), "authentication to the upstream registry failed") {
		t.Errorf("with a wrong password a pull gives %v", err)
	}
	write(*token.AuthorizationData[0].AuthorizationToken)
	if valid, err := here.ValidatePullThroughCacheRule(ctx, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("public")}); err != nil || !valid.IsValid {
		t.Errorf("the rule is %+v, %v", valid, err)
	}
	if err := pull(); err != nil {
		t.Fatal(err)
	}
	made, err := here.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{})
	if err != nil || len(made.Repositories) != 1 || *made.Repositories[0].RepositoryName != "public/team/web" || made.Repositories[0].ImageTagMutability != types.ImageTagMutabilityImmutable {
		t.Errorf("the repositories are %+v, %v", made, err)
	}
	upstream.Process.Signal(syscall.SIGTERM)
	upstream.Wait()
	if err := pull(); err != nil {
		t.Error("without upstream:", err)
	}
}

func TestAFullRegistryIsSaidWithTheWayOut(t *testing.T) {
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined", "--registry-max-size", "1MiB")
	site := t.TempDir()
	write := func(name string, size int) {
		t.Helper()
		content := make([]byte, size)
		rand.Read(content) // so that no compression makes it small
		if err := os.WriteFile(filepath.Join(site, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("small", 10_000)
	env := []string{"XDG_CACHE_HOME=" + t.TempDir(), "AWS_ENDPOINT_URL=" + endpoint}
	out, code := serin(t, env, "image", "build", "--push", "--repository-create", "--to", "/srv", "site:1", site)
	if code != 0 {
		t.Fatalf("a small image is pushed with %d: %s", code, out)
	}
	write("large", 2<<20)
	out, code = serin(t, env, "image", "build", "--push", "--to", "/srv", "site:2", site)
	if code != exitDenied || !strings.Contains(out, "the registry is full") || !strings.Contains(out, "serin: hint: serin image rm") {
		t.Errorf("a push that has no room exits %d: %s", code, out)
	}
	status, _ := serin(t, env, "status")
	if !strings.Contains(status, "of at most 1MiB") {
		t.Errorf("the status is\n%s", status)
	}
}
