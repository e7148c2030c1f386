package stagetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
)

func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

// upload sends a layer in parts of the given length.
func upload(t *testing.T, r *ecr.Client, repo string, content []byte, part int) error {
	t.Helper()
	begun, err := r.InitiateLayerUpload(t.Context(), &ecr.InitiateLayerUploadInput{RepositoryName: &repo})
	if err != nil {
		return err
	}
	for first := 0; first < len(content); first += part {
		blob := content[first:min(first+part, len(content))]
		out, err := r.UploadLayerPart(t.Context(), &ecr.UploadLayerPartInput{
			RepositoryName: &repo, UploadId: begun.UploadId, LayerPartBlob: blob,
			PartFirstByte: new(int64(first)), PartLastByte: new(int64(first + len(blob) - 1)),
		})
		if err != nil {
			return err
		}
		if *out.LastByteReceived != int64(first+len(blob)-1) {
			t.Errorf("the last byte received is %d", *out.LastByteReceived)
		}
	}
	_, err = r.CompleteLayerUpload(t.Context(), &ecr.CompleteLayerUploadInput{RepositoryName: &repo, UploadId: begun.UploadId, LayerDigests: []string{digest(content)}})
	return err
}

func manifestOf(configuration, layer []byte) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"%s","size":%d}]}`,
		digest(configuration), len(configuration), digest(layer), len(layer))
}

// code is the error code of an answer, "" for none.
func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func registry(t *testing.T, repo string) (*ecr.Client, string) {
	t.Helper()
	_, c := RunT(t, 1)
	r := ecr.NewFromConfig(c)
	if _, err := r.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repo}); err != nil {
		t.Fatal(err)
	}
	return r, *c.BaseEndpoint
}

func TestAnImageThroughTheAPIAlone(t *testing.T) {
	repo := "team/web"
	r, endpoint := registry(t, repo)
	ctx := t.Context()
	configuration, layer := []byte("{}"), bytes.Repeat([]byte("layer "), 1<<20) // 6 MiB: two parts of which the first is long enough
	manifest := manifestOf(configuration, layer)

	put := func(tag *string) (*ecr.PutImageOutput, error) {
		return r.PutImage(ctx, &ecr.PutImageInput{RepositoryName: &repo, ImageManifest: &manifest, ImageTag: tag})
	}
	if _, err := put(new("1")); code(err) != "LayersNotFoundException" || !strings.Contains(err.Error(), digest(layer)) {
		t.Errorf("an image without its layers gives %v", err)
	}
	available := func(want types.LayerAvailability) {
		t.Helper()
		out, err := r.BatchCheckLayerAvailability(ctx, &ecr.BatchCheckLayerAvailabilityInput{RepositoryName: &repo, LayerDigests: []string{digest(layer), "nonsense"}})
		if err != nil || len(out.Layers) != 1 || out.Layers[0].LayerAvailability != want || len(out.Failures) != 1 || out.Failures[0].FailureCode != types.LayerFailureCodeInvalidLayerDigest {
			t.Fatalf("availability %+v, %v; want %s", out, err, want)
		}
		if want == types.LayerAvailabilityAvailable && *out.Layers[0].LayerSize != int64(len(layer)) {
			t.Errorf("the layer has %d bytes", *out.Layers[0].LayerSize)
		}
	}
	available(types.LayerAvailabilityUnavailable)
	for _, content := range [][]byte{configuration, layer} {
		if err := upload(t, r, repo, content, 5<<20); err != nil {
			t.Fatal(err)
		}
	}
	available(types.LayerAvailabilityAvailable)
	if err := upload(t, r, repo, configuration, 5<<20); code(err) != "LayerAlreadyExistsException" {
		t.Errorf("a layer that is there gives %v", err)
	}

	if _, err := r.PutImage(ctx, &ecr.PutImageInput{RepositoryName: &repo, ImageManifest: &manifest, ImageDigest: new(digest(layer))}); code(err) != "ImageDigestDoesNotMatchException" {
		t.Errorf("another digest gives %v", err)
	}
	out, err := put(new("1"))
	if err != nil || *out.Image.ImageId.ImageDigest != digest([]byte(manifest)) || *out.Image.ImageId.ImageTag != "1" {
		t.Fatalf("put %+v, %v", out, err)
	}
	if _, err := put(new("1")); code(err) != "ImageAlreadyExistsException" || !strings.Contains(err.Error(), "and tag '1' already exists in the repository with name 'team/web' in registry with id '"+Account+"'") {
		t.Errorf("the same image again gives %v", err)
	}
	for _, tag := range []string{"-x", "a b", strings.Repeat("a", 301)} {
		if _, err := put(&tag); code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), "imageTag") {
			t.Errorf("the tag %q gives %v", tag, err)
		}
	}
	if _, err := put(nil); code(err) != "ImageAlreadyExistsException" {
		t.Errorf("the same image without a tag gives %v", err)
	}
	if _, err := put(new("2")); err != nil {
		t.Errorf("another tag of it gives %v", err)
	}
	described, err := r.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: &repo})
	if err != nil || len(described.ImageDetails) != 1 || !slices.Equal(described.ImageDetails[0].ImageTags, []string{"1", "2"}) || *described.ImageDetails[0].ImageSizeInBytes != int64(len(layer)+len(configuration)) {
		t.Errorf("described %+v, %v", described, err)
	}

	link, err := r.GetDownloadUrlForLayer(ctx, &ecr.GetDownloadUrlForLayerInput{RepositoryName: &repo, LayerDigest: new(digest(layer))})
	if err != nil || !strings.HasPrefix(*link.DownloadUrl, endpoint) {
		t.Fatalf("%+v, %v", link, err)
	}
	for address, want := range map[string]int{*link.DownloadUrl: 200, strings.Replace(*link.DownloadUrl, digest(layer), digest(configuration), 1): 403, strings.Replace(*link.DownloadUrl, "expires=", "expires=9", 1): 403} {
		answer, err := http.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != want || err != nil || want == 200 && !bytes.Equal(body, layer) {
			t.Errorf("%s answers %d, %d bytes, %v; want %d", address, answer.StatusCode, len(body), err, want)
		}
	}
	if _, err := r.GetDownloadUrlForLayer(ctx, &ecr.GetDownloadUrlForLayerInput{RepositoryName: &repo, LayerDigest: new(digest([]byte("none")))}); code(err) != "LayersNotFoundException" {
		t.Errorf("the address of no layer gives %v", err)
	}
}

func TestUploadsThatAreWrong(t *testing.T) {
	repo := "web"
	r, _ := registry(t, repo)
	ctx := t.Context()
	if err := upload(t, r, "nobody", []byte("x"), 1); code(err) != "RepositoryNotFoundException" {
		t.Errorf("no repository gives %v", err)
	}
	if err := upload(t, r, repo, []byte("short"), 2); code(err) != "LayerPartTooSmallException" {
		t.Errorf("short parts give %v", err)
	}
	begun, err := r.InitiateLayerUpload(ctx, &ecr.InitiateLayerUploadInput{RepositoryName: &repo})
	if err != nil {
		t.Fatal(err)
	}
	complete := func(id, of string) error {
		_, err := r.CompleteLayerUpload(ctx, &ecr.CompleteLayerUploadInput{RepositoryName: &repo, UploadId: &id, LayerDigests: []string{of}})
		return err
	}
	part := func(id string, first, last int64, blob string) error {
		_, err := r.UploadLayerPart(ctx, &ecr.UploadLayerPartInput{RepositoryName: &repo, UploadId: &id, PartFirstByte: &first, PartLastByte: &last, LayerPartBlob: []byte(blob)})
		return err
	}
	id, content := *begun.UploadId, "hello"
	for _, c := range []struct {
		what, want string
		err        error
	}{
		{"completing nothing", "EmptyUploadException", complete(id, digest([]byte("")))},
		{"another upload's part", "UploadNotFoundException", part("none", 0, 4, content)},
		{"a part of another length", "InvalidParameterException", part(id, 0, 9, content)},
		{"the first part", "", part(id, 0, 4, content)},
		{"it again", "InvalidLayerPartException", part(id, 0, 4, content)},
		{"a gap", "InvalidLayerPartException", part(id, 9, 13, content)},
		{"another digest", "InvalidLayerException", complete(id, digest([]byte("another")))},
		{"completing another upload", "UploadNotFoundException", complete("none", digest([]byte(content)))},
		{"completing it", "", complete(id, digest([]byte(content)))},
		{"completing it twice", "UploadNotFoundException", complete(id, digest([]byte(content)))},
	} {
		if got := code(c.err); got != c.want {
			t.Errorf("%s gives %q, want %q: %v", c.what, got, c.want, c.err)
		}
	}
}

func TestTagsThatStayWithTheirImage(t *testing.T) {
	repo := "web"
	r, _ := registry(t, repo)
	ctx := t.Context()
	var manifests []string
	for n := range 2 {
		configuration, layer := fmt.Appendf(nil, `{"n":%d}`, n), fmt.Append(nil, "layer ", n)
		for _, content := range [][]byte{configuration, layer} {
			if err := upload(t, r, repo, content, 5<<20); err != nil {
				t.Fatal(err)
			}
		}
		manifests = append(manifests, manifestOf(configuration, layer))
	}
	put := func(n int, tag string) string {
		_, err := r.PutImage(ctx, &ecr.PutImageInput{RepositoryName: &repo, ImageManifest: &manifests[n], ImageTag: &tag})
		return code(err)
	}
	set := func(m types.ImageTagMutability, patterns ...string) string {
		in := &ecr.PutImageTagMutabilityInput{RepositoryName: &repo, ImageTagMutability: m}
		for _, p := range patterns {
			in.ImageTagMutabilityExclusionFilters = append(in.ImageTagMutabilityExclusionFilters, types.ImageTagMutabilityExclusionFilter{Filter: &p, FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard})
		}
		_, err := r.PutImageTagMutability(ctx, in)
		return code(err)
	}
	for _, tag := range []string{"v1", "latest", "dev-1"} {
		put(0, tag)
	}
	const kept = "ImageTagAlreadyExistsException"
	for _, c := range []struct {
		mutability types.ImageTagMutability
		patterns   []string
		want       map[string]string // of moving a tag
	}{
		{types.ImageTagMutabilityImmutable, nil, map[string]string{"v1": kept, "latest": kept, "dev-1": kept}},
		{types.ImageTagMutabilityImmutableWithExclusion, []string{"latest", "dev-*"}, map[string]string{"v1": kept, "latest": "", "dev-1": ""}},
		{types.ImageTagMutabilityMutableWithExclusion, []string{"v*"}, map[string]string{"v1": kept, "latest": "", "dev-1": ""}},
		{types.ImageTagMutabilityMutable, nil, map[string]string{"v1": "", "latest": "", "dev-1": ""}},
	} {
		if got := set(c.mutability, c.patterns...); got != "" {
			t.Fatalf("%s %v is refused: %s", c.mutability, c.patterns, got)
		}
		for tag, want := range c.want {
			if got := put(1, tag); got != want {
				t.Errorf("%s %v: moving %s gives %q, want %q", c.mutability, c.patterns, tag, got, want)
			}
			set(types.ImageTagMutabilityMutable)
			put(0, tag)
			set(c.mutability, c.patterns...)
		}
	}
	for _, c := range []struct {
		mutability types.ImageTagMutability
		patterns   []string
	}{
		{"SOMETIMES", nil}, {types.ImageTagMutabilityImmutableWithExclusion, nil}, {types.ImageTagMutabilityMutable, []string{"v*"}},
		{types.ImageTagMutabilityMutableWithExclusion, []string{"*a*b*"}}, {types.ImageTagMutabilityMutableWithExclusion, []string{"a/b"}},
		{types.ImageTagMutabilityMutableWithExclusion, []string{"1", "2", "3", "4", "5", "6"}},
	} {
		if got := set(c.mutability, c.patterns...); got != "InvalidParameterException" {
			t.Errorf("%s %v gives %q", c.mutability, c.patterns, got)
		}
	}
}

// What build-push-action pushes by default: an index under the tag, with an
// untagged image and its attestation.
func TestAnIndexAndItsChildren(t *testing.T) {
	repo := "web"
	r, _ := registry(t, repo)
	ctx := t.Context()
	put := func(manifest string, tag *string) error {
		_, err := r.PutImage(ctx, &ecr.PutImageInput{RepositoryName: &repo, ImageManifest: &manifest, ImageTag: tag})
		return err
	}
	var children []string
	for n := range 2 {
		configuration, layer := fmt.Appendf(nil, `{"n":%d}`, n), fmt.Append(nil, "layer ", n)
		for _, content := range [][]byte{configuration, layer} {
			if err := upload(t, r, repo, content, 5<<20); err != nil {
				t.Fatal(err)
			}
		}
		children = append(children, manifestOf(configuration, layer))
	}
	const indexType = "application/vnd.oci.image.index.v1+json"
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d}]}`,
		indexType, digest([]byte(children[0])), len(children[0]), digest([]byte(children[1])), len(children[1]))
	if err := put(index, new("v1")); code(err) != "ReferencedImagesNotFoundException" {
		t.Errorf("an index before its images gives %v", err)
	}
	if err := errors.Join(put(children[0], nil), put(children[1], new("signed")), put(index, new("v1"))); err != nil {
		t.Fatal(err)
	}
	for tagStatus, want := range map[types.TagStatus]int{types.TagStatusTagged: 2, types.TagStatusUntagged: 1, types.TagStatusAny: 3} {
		out, err := r.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: &repo, Filter: &types.DescribeImagesFilter{TagStatus: tagStatus}})
		if err != nil || len(out.ImageDetails) != want {
			t.Errorf("%s: %d images, %v; want %d", tagStatus, len(out.ImageDetails), err, want)
		}
	}
	for accepted, want := range map[string]int{indexType: 1, "application/vnd.oci.image.manifest.v1+json": 0} {
		out, err := r.BatchGetImage(ctx, &ecr.BatchGetImageInput{RepositoryName: &repo, ImageIds: []types.ImageIdentifier{{ImageTag: new("v1")}}, AcceptedMediaTypes: []string{accepted}})
		if err != nil || len(out.Images) != want || want == 1 && *out.Images[0].ImageManifest != index {
			t.Errorf("as %s: %+v, %v", accepted, out, err)
		}
	}
	remove := func(ids ...types.ImageIdentifier) string {
		out, err := r.BatchDeleteImage(ctx, &ecr.BatchDeleteImageInput{RepositoryName: &repo, ImageIds: ids})
		if err != nil {
			t.Fatal(err)
		}
		var codes []string
		for _, f := range out.Failures {
			codes = append(codes, string(f.FailureCode))
		}
		return strings.Join(codes, " ")
	}
	first, signed := types.ImageIdentifier{ImageDigest: new(digest([]byte(children[0])))}, types.ImageIdentifier{ImageTag: new("signed")}
	if got, want := remove(first, signed, types.ImageIdentifier{ImageDigest: new("nonsense")}), "ImageReferencedByManifestList ImageReferencedByManifestList InvalidImageDigest"; got != want {
		t.Errorf("deleting children gives %s, want %s", got, want)
	}
	if got := remove(types.ImageIdentifier{ImageTag: new("v1")}, first, signed); got != "" {
		t.Errorf("deleting the index and then its children gives %s", got)
	}
	if out, err := r.ListImages(ctx, &ecr.ListImagesInput{RepositoryName: &repo}); err != nil || len(out.ImageIds) != 0 {
		t.Errorf("%d images are left, %v", len(out.ImageIds), err)
	}
}

// Two pushes of one tag at once: with immutable tags one of them wins, whole.
func TestTwoPushesOfATag(t *testing.T) {
	repo := "web"
	r, _ := registry(t, repo)
	if _, err := r.PutImageTagMutability(t.Context(), &ecr.PutImageTagMutabilityInput{RepositoryName: &repo, ImageTagMutability: types.ImageTagMutabilityImmutable}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	codes := make([]string, 8)
	for n := range codes {
		configuration, layer := fmt.Appendf(nil, `{"n":%d}`, n), fmt.Append(nil, "layer ", n)
		manifest := manifestOf(configuration, layer)
		wg.Go(func() {
			for _, content := range [][]byte{configuration, layer} {
				if err := upload(t, r, repo, content, 5<<20); err != nil {
					t.Error(err)
				}
			}
			_, err := r.PutImage(t.Context(), &ecr.PutImageInput{RepositoryName: &repo, ImageManifest: &manifest, ImageTag: new("v1")})
			codes[n] = code(err)
		})
	}
	wg.Wait()
	slices.Sort(codes)
	if codes = slices.Compact(codes); !slices.Equal(codes, []string{"", "ImageTagAlreadyExistsException"}) {
		t.Errorf("the pushes give %q", codes)
	}
	out, err := r.DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: &repo})
	if err != nil || len(out.ImageDetails) != 1 {
		t.Errorf("%d images are there, %v", len(out.ImageDetails), err)
	}
}

// A manifest larger than the specification's floor is refused before it is read
// into the memory, whether its length is told or not.
func TestAManifestThatIsTooLarge(t *testing.T) {
	repo := "web"
	r, endpoint := registry(t, repo)
	token, err := r.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	for length, told := range map[int64]bool{100 << 20: true, 4<<20 + 1: false} {
		req, _ := http.NewRequest("PUT", endpoint+"/v2/web/manifests/1", io.LimitReader(zeros{}, length))
		if told {
			req.ContentLength = length
		}
		req.Header.Set("Authorization", "Basic "+*token.AuthorizationData[0].AuthorizationToken)
		req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		req.Header.Set("Expect", "100-continue")
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(body), "MANIFEST_INVALID") {
			t.Errorf("length %d: %d %s", length, answer.StatusCode, body)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
