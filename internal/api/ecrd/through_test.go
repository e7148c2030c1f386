package ecrd

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/registry"
	"serin/internal/store"
	"serin/internal/wire"
)

// signedIn is a Docker configuration that has signed in to one registry.
type signedIn struct{ password string }

func (s signedIn) EntryForRegistry(string) (ociauth.ConfigEntry, error) {
	return ociauth.ConfigEntry{Username: "AWS", Password: s.password}, nil
}

// behindOf puts one shelf behind another, as public.ecr.aws.
func behindOf(t *testing.T, cache, upstream *shelf) {
	t.Helper()
	cache.api.upstream = func(host string) (*registry.Remote, error) {
		if host != "public.ecr.aws" {
			t.Errorf("%s is asked", host)
		}
		return registry.NewRemote(strings.TrimPrefix(upstream.url, "http://"), true, signedIn{upstream.token})
	}
	_, err := cache.api.CreatePullThroughCacheRule(cache.ctx, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("public"), UpstreamRegistryUrl: new("public.ecr.aws")})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *shelf) manifest(repo, reference string) (int, string, string) {
	s.t.Helper()
	status, body, header := s.do("GET", "/v2/"+repo+"/manifests/"+reference, nil)
	return status, body, header.Get("Docker-Content-Digest")
}

func (s *shelf) advance(d time.Duration) {
	s.t.Helper()
	if err := s.api.clock.Advance(d); err != nil {
		s.t.Fatal(err)
	}
}

func TestAPullThroughTheCache(t *testing.T) {
	upstream, cache := newShelf(t, 0), newShelf(t, 0)
	upstream.repository("team/web")
	layer := []byte("a layer of upstream")
	first := upstream.image("team/web", "1", layer)
	behindOf(t, cache, upstream)

	if status, body, _ := cache.manifest("public/team/none", "1"); status != http.StatusNotFound || !strings.Contains(body, "NAME_UNKNOWN") {
		t.Errorf("an image that upstream lacks gives %d %s", status, body)
	}
	status, body, digest := cache.manifest("public/team/web", "1")
	if status != http.StatusOK || digest != first {
		t.Fatalf("the first pull gives %d %s %s", status, digest, body)
	}
	if !cache.there("public/team/web", digestOf(layer)) {
		t.Error("the layer did not come with the image")
	}
	described, err := cache.api.DescribeImages(cache.ctx, &ecr.DescribeImagesInput{RepositoryName: new("public/team/web")})
	if err != nil || len(described.ImageDetails) != 1 || !slices.Equal(described.ImageDetails[0].ImageTags, []string{"1"}) {
		t.Errorf("the cache has %+v %v", described, err)
	}

	// For a day the cache answers by itself; then a tag is compared, and moves.
	second := upstream.image("team/web", "1", []byte("another layer"))
	if _, _, digest := cache.manifest("public/team/web", "1"); digest != first {
		t.Errorf("after a moment the tag is %s, want %s", digest, first)
	}
	cache.advance(recheck)
	if _, _, digest := cache.manifest("public/team/web", "1"); digest != second {
		t.Errorf("after a day the tag is %s, want %s", digest, second)
	}

	// Without upstream, what was cached is served, and nothing else.
	cache.advance(recheck)
	cache.api.upstream = func(string) (*registry.Remote, error) { return nil, errors.New("no way there") }
	if status, _, digest := cache.manifest("public/team/web", "1"); status != http.StatusOK || digest != second {
		t.Errorf("without upstream the cache gives %d %s", status, digest)
	}
	if status, body, _ := cache.manifest("public/team/web", "2"); status != http.StatusForbidden || !strings.Contains(body, "no way there") {
		t.Errorf("without upstream what is not cached gives %d %s", status, body)
	}
	v, err := cache.api.ValidatePullThroughCacheRule(cache.ctx, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("public")})
	if err != nil || v.IsValid || !strings.Contains(*v.Failure, "no way there") {
		t.Errorf("validation says %+v %v", v, err)
	}
}

func TestAPullThroughTheCacheBringsWholeIndexes(t *testing.T) {
	upstream, cache := newShelf(t, 0), newShelf(t, 0)
	upstream.repository("web")
	amd, arm := upstream.image("web", "amd64", []byte("amd")), upstream.image("web", "arm64", []byte("arm"))
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + amd +
		`","size":1},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + arm + `","size":1}]}`
	if status, body, _ := upstream.do("PUT", "/v2/web/manifests/all", strings.NewReader(index), "Content-Type", "application/vnd.oci.image.index.v1+json"); status != http.StatusCreated {
		t.Fatal(body)
	}
	behindOf(t, cache, upstream)
	if status, body, _ := cache.manifest("public/web", "all"); status != http.StatusOK || body != index {
		t.Fatalf("the index is %d %s", status, body)
	}
	for _, digest := range []string{amd, arm, digestOf([]byte(index))} {
		if _, ok := cache.api.stored(wire.From(cache.ctx).Scope, "public/web", digest, ""); !ok {
			t.Errorf("%s did not come", digest)
		}
	}
	if !cache.there("public/web", digestOf([]byte("arm"))) {
		t.Error("a child's layer did not come")
	}
}

func TestAPullThroughTheCacheNeedsPermission(t *testing.T) {
	for denied, want := range map[string]struct {
		status int
		text   string
	}{
		"ecr:CreateRepository":         {http.StatusNotFound, "NAME_UNKNOWN"},
		"ecr:BatchImportUpstreamImage": {http.StatusNotFound, "NAME_UNKNOWN"},
		"ecr:BatchGetImage":            {http.StatusForbidden, "DENIED"},
	} {
		upstream, cache := newShelf(t, 0), newShelf(t, 0)
		upstream.repository("web")
		upstream.image("web", "1", []byte("a layer"))
		behindOf(t, cache, upstream)
		cache.deny = denied
		if status, body, _ := cache.manifest("public/web", "1"); status != want.status || !strings.Contains(body, want.text) {
			t.Errorf("without %s a pull gives %d %s", denied, status, body)
		}
	}
}

func TestRulesOfThePullThroughCacheThatAreNone(t *testing.T) {
	s := newShelf(t, 0)
	secret := new("arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf")
	for _, c := range []struct {
		in         ecr.CreatePullThroughCacheRuleInput
		code, text string
	}{
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub"), UpstreamRegistryUrl: new("registry-1.docker.io")}, "UnsupportedUpstreamRegistryException", "The specified upstream registry requires authentication."},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("x"), UpstreamRegistryUrl: new("quay.io")}, "InvalidParameterException", "ecrRepositoryPrefix"},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("example"), UpstreamRegistryUrl: new("registry.example.com")}, "UnsupportedUpstreamRegistryException", "The upstream registry URL registry.example.com is invalid."},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("quay"), UpstreamRegistryUrl: new("quay.io"), UpstreamRegistry: types.UpstreamRegistryK8s}, "InvalidParameterException", "do not match"},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("quay"), UpstreamRegistryUrl: new("quay.io"), CredentialArn: secret}, "UnsupportedUpstreamRegistryException", "doesn't require authentication"},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub"), UpstreamRegistryUrl: new("registry-1.docker.io"), CredentialArn: new("arn:aws:secretsmanager:eu-central-1:123456789012:secret:mine")}, "InvalidParameterException", "credentialArn"},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("own"), UpstreamRegistryUrl: new("123456789012.dkr.ecr.eu-central-1.amazonaws.com")}, "InvalidParameterException", "cannot be the same as the cache registry"},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("other"), UpstreamRegistryUrl: new("210987654321.dkr.ecr.eu-central-1.amazonaws.com")}, "InvalidParameterException", "customRoleArn"},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub"), UpstreamRegistryUrl: new("registry-1.docker.io"), CredentialArn: secret}, "", ""},
		{ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub/"), UpstreamRegistryUrl: new("quay.io")}, "PullThroughCacheRuleAlreadyExistsException", "hub"},
	} {
		out, err := s.api.CreatePullThroughCacheRule(s.ctx, &c.in)
		if c.code == "" {
			if err != nil || out.UpstreamRegistry != types.UpstreamRegistryDockerHub || *out.UpstreamRepositoryPrefix != "ROOT" {
				t.Errorf("%s gives %+v %v", *c.in.EcrRepositoryPrefix, out, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.code) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s gives %v, want %s: %s", *c.in.EcrRepositoryPrefix, err, c.code, c.text)
		}
	}
}

func TestARegistryOfTheStageBehindAnother(t *testing.T) {
	s := newShelf(t, 0)
	there := wire.WithCall(t.Context(), &wire.Call{Service: "ecr", Scope: wire.From(s.ctx).Scope, Principal: wire.From(s.ctx).Principal})
	wire.From(there).Scope.Region = "us-east-1"
	if _, err := s.api.CreateRepository(there, &ecr.CreateRepositoryInput{RepositoryName: new("team/web")}); err != nil {
		t.Fatal(err)
	}
	scope := wire.From(there).Scope
	token, _, err := s.api.Token(wire.From(s.ctx).Principal, scope)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := *s
	elsewhere.token = token
	want := elsewhere.image("team/web", "1", []byte("a layer of another region"))
	_, err = s.api.CreatePullThroughCacheRule(s.ctx, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("virginia"), UpstreamRegistryUrl: new("123456789012.dkr.ecr.us-east-1.amazonaws.com"), UpstreamRepositoryPrefix: new("team")})
	if err != nil {
		t.Fatal(err)
	}
	if status, body, digest := s.manifest("virginia/web", "1"); status != http.StatusOK || digest != want {
		t.Errorf("the pull gives %d %s %s, want %s", status, digest, body, want)
	}
}

// Two registries behind each other answer with what they have.
func TestRegistriesBehindEachOther(t *testing.T) {
	s := newShelf(t, 0)
	there := wire.WithCall(t.Context(), &wire.Call{Service: "ecr", Scope: wire.From(s.ctx).Scope, Principal: wire.From(s.ctx).Principal})
	wire.From(there).Scope.Region = "us-east-1"
	for ctx, region := range map[context.Context]string{s.ctx: "us-east-1", there: "eu-central-1"} {
		if _, err := s.api.CreatePullThroughCacheRule(ctx, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("ROOT"), UpstreamRegistryUrl: new("123456789012.dkr.ecr." + region + ".amazonaws.com")}); err != nil {
			t.Fatal(err)
		}
	}
	if status, body, _ := s.manifest("team/web", "1"); status != http.StatusNotFound {
		t.Errorf("what neither has gives %d %s", status, body)
	}
}

// A registry that takes the call and never answers costs a cached image one wait.
func TestARegistryBehindThatHangs(t *testing.T) {
	upstream, cache := newShelf(t, 0), newShelf(t, 0)
	upstream.repository("web")
	want := upstream.image("web", "1", []byte("a layer"))
	behindOf(t, cache, upstream)
	if _, _, digest := cache.manifest("public/web", "1"); digest != want {
		t.Fatal(digest)
	}
	var asked atomic.Int32
	end := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1); <-end }))
	t.Cleanup(hanging.Close)
	t.Cleanup(func() { close(end) })
	cache.api.upstream = func(string) (*registry.Remote, error) {
		return registry.NewRemote(strings.TrimPrefix(hanging.URL, "http://"), true, signedIn{})
	}
	cache.api.patience = 50 * time.Millisecond
	cache.advance(recheck)
	for range 2 {
		if status, _, digest := cache.manifest("public/web", "1"); status != http.StatusOK || digest != want {
			t.Errorf("the cached image is %d %s", status, digest)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the registry was asked %d times", n)
	}
	if status, body, _ := cache.manifest("public/web", "2"); status != http.StatusForbidden || !strings.Contains(body, "cannot be pulled from") {
		t.Errorf("what is not cached gives %d %s", status, body)
	}
}

// A tag that cannot be moved is not fetched in vain.
func TestAFixedTagOfTheCacheStays(t *testing.T) {
	upstream, cache := newShelf(t, 0), newShelf(t, 0)
	upstream.repository("web")
	want := upstream.image("web", "1", []byte("a layer"))
	behindOf(t, cache, upstream)
	cache.manifest("public/web", "1")
	if _, err := cache.api.PutImageTagMutability(cache.ctx, &ecr.PutImageTagMutabilityInput{RepositoryName: new("public/web"), ImageTagMutability: types.ImageTagMutabilityImmutable}); err != nil {
		t.Fatal(err)
	}
	upstream.image("web", "1", []byte("another layer"))
	cache.advance(recheck)
	if _, _, digest := cache.manifest("public/web", "1"); digest != want {
		t.Errorf("the tag is %s, want %s", digest, want)
	}
	if cache.there("public/web", digestOf([]byte("another layer"))) {
		t.Error("a layer was fetched in vain")
	}
}

func TestAnIndexThatUpstreamHasInPartIsSaid(t *testing.T) {
	upstream, cache := newShelf(t, 0), newShelf(t, 0)
	upstream.repository("web")
	child := upstream.image("web", "amd64", []byte("amd"))
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + child + `","size":1}]}`
	if status, body, _ := upstream.do("PUT", "/v2/web/manifests/all", strings.NewReader(index), "Content-Type", "application/vnd.oci.image.index.v1+json"); status != http.StatusCreated {
		t.Fatal(body)
	}
	behindOf(t, cache, upstream)
	err := upstream.api.store.Update(func(tx *store.Tx) error {
		upstream.api.images.Delete(tx, imageKey(wire.From(upstream.ctx).Scope, "web", child))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, body, _ := cache.manifest("public/web", "all"); status != http.StatusForbidden || !strings.Contains(body, "fetching manifest "+child) {
		t.Errorf("an index without its image gives %d %s", status, body)
	}
}
