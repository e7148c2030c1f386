package stagetest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
)

const keepOne = `{"rules": [{"rulePriority": 1, "description": "keep the newest", "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1}, "action": {"type": "expire"}}]}`

func TestALifecyclePolicyIsPreviewedAndPerformed(t *testing.T) {
	s, c := RunT(t, 1)
	r, repo, ctx := ecr.NewFromConfig(c), "team/web", t.Context()
	if _, err := r.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &repo}); err != nil {
		t.Fatal(err)
	}
	var digests []string
	for _, tag := range []string{"1", "2", "3"} {
		configuration, layer := []byte("{}"), []byte("layer "+tag)
		for _, content := range [][]byte{configuration, layer} {
			if err := upload(t, r, repo, content, 10); err != nil && code(err) != "LayerAlreadyExistsException" {
				t.Fatal(err)
			}
		}
		out, err := r.PutImage(ctx, &ecr.PutImageInput{RepositoryName: &repo, ImageTag: &tag, ImageManifest: new(manifestOf(configuration, layer))})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, *out.Image.ImageId.ImageDigest)
		if err := s.Clock().Advance(time.Minute); err != nil {
			t.Fatal(err)
		}
	}

	if _, err := r.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: &repo}); code(err) != "LifecyclePolicyNotFoundException" {
		t.Errorf("a policy that is not there gives %v", err)
	}
	if _, err := r.StartLifecyclePolicyPreview(ctx, &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: &repo}); code(err) != "LifecyclePolicyNotFoundException" {
		t.Errorf("a preview of a policy that is not there gives %v", err)
	}
	if _, err := r.GetLifecyclePolicyPreview(ctx, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: &repo}); code(err) != "LifecyclePolicyPreviewNotFoundException" {
		t.Errorf("a preview that was not asked for gives %v", err)
	}
	bad := strings.Replace(keepOne, `"countNumber": 1`, `"countNumber": 0`, 1)
	if _, err := r.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: &repo, LifecyclePolicyText: &bad}); code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), "countNumber") {
		t.Errorf("a policy that is not one gives %v", err)
	}

	// The SDK's waiter asks until the preview is complete.
	if _, err := r.StartLifecyclePolicyPreview(ctx, &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: &repo, LifecyclePolicyText: new(keepOne)}); err != nil {
		t.Fatal(err)
	}
	preview, err := ecr.NewLifecyclePolicyPreviewCompleteWaiter(r).WaitForOutput(ctx, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: &repo}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if *preview.Summary.ExpiringImageTotalCount != 2 || len(preview.PreviewResults) != 2 || *preview.PreviewResults[0].AppliedRulePriority != 1 || preview.PreviewResults[0].Action.Type != types.ImageActionTypeExpire {
		t.Errorf("the preview says %+v", preview)
	}
	if n := len(images(t, r, repo)); n != 3 {
		t.Fatalf("%d images are left by a preview", n)
	}

	if _, err := r.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: &repo, LifecyclePolicyText: new(keepOne)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Clock().Advance(23 * time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := len(images(t, r, repo)); n != 3 {
		t.Fatalf("%d images are left before the policy is due", n)
	}
	if err := s.Clock().Advance(time.Hour); err != nil {
		t.Fatal(err)
	}
	var performed *ecr.GetLifecyclePolicyOutput
	for performed == nil || performed.LastEvaluatedAt.Unix() == 0 { // the test's own time limit ends it
		if performed, err = r.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: &repo}); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(*performed.LifecyclePolicyText, `{"rules":[{"rulePriority":1,"description":"keep the newest","selection":`) {
		t.Errorf("the policy reads %s", *performed.LifecyclePolicyText)
	}
	if left := images(t, r, repo); !slices.Equal(left, digests[2:]) {
		t.Errorf("%v are left, want the newest, %s", left, digests[2])
	}
	if _, err := r.DeleteLifecyclePolicy(ctx, &ecr.DeleteLifecyclePolicyInput{RepositoryName: &repo}); err != nil {
		t.Fatal(err)
	}
}

func images(t *testing.T, r *ecr.Client, repo string) (digests []string) {
	t.Helper()
	out, err := r.DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: &repo})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range out.ImageDetails {
		digests = append(digests, *i.ImageDigest)
	}
	return digests
}
