package ecrd

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/wire"
)

func (s *shelf) template(in *ecr.CreateRepositoryCreationTemplateInput) {
	s.t.Helper()
	if _, err := s.api.CreateRepositoryCreationTemplate(s.ctx, in); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) described(name string) types.Repository {
	s.t.Helper()
	out, err := s.api.DescribeRepositories(s.ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{name}})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.Repositories[0]
}

func TestAPushMakesARepositoryByTheTemplate(t *testing.T) {
	s := newShelf(t, 0)
	push := []types.RCTAppliedFor{types.RCTAppliedForCreateOnPush}
	if status, body := s.push("prod/web", []byte("a layer")); status != http.StatusNotFound || !strings.Contains(body, "NAME_UNKNOWN") {
		t.Errorf("without a template a push gives %d %s", status, body)
	}
	s.template(&ecr.CreateRepositoryCreationTemplateInput{Prefix: new("prod"), AppliedFor: push, ImageTagMutability: types.ImageTagMutabilityImmutable, LifecyclePolicy: new(rules(rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":9`))),
		RepositoryPolicy: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"ecr:BatchGetImage"}]}`)})
	s.template(&ecr.CreateRepositoryCreationTemplateInput{Prefix: new("prod/team"), AppliedFor: push})
	s.template(&ecr.CreateRepositoryCreationTemplateInput{Prefix: new("cache"), AppliedFor: []types.RCTAppliedFor{types.RCTAppliedForPullThroughCache}})

	s.image("prod/web", "1", []byte("a layer"))
	r := s.described("prod/web")
	if r.ImageTagMutability != types.ImageTagMutabilityImmutable {
		t.Errorf("the repository is %s", r.ImageTagMutability)
	}
	l, err := s.api.GetLifecyclePolicy(s.ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: r.RepositoryName})
	if err != nil || !strings.Contains(*l.LifecyclePolicyText, `"countNumber":9`) {
		t.Errorf("the lifecycle policy is %+v %v", l, err)
	}
	p, err := s.api.GetRepositoryPolicy(s.ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: r.RepositoryName})
	if err != nil || !strings.Contains(*p.PolicyText, "ecr:BatchGetImage") {
		t.Errorf("the policy is %+v %v", p, err)
	}
	s.image("prod/team/web", "1", []byte("a layer"))
	if r := s.described("prod/team/web"); r.ImageTagMutability != types.ImageTagMutabilityMutable {
		t.Errorf("the longer prefix does not win: %s", r.ImageTagMutability)
	}
	for _, name := range []string{"prod", "production/web", "cache/web"} {
		if status, body := s.push(name, []byte("a layer")); status != http.StatusNotFound {
			t.Errorf("a push to %s gives %d %s", name, status, body)
		}
	}
	s.template(&ecr.CreateRepositoryCreationTemplateInput{Prefix: new("ROOT"), AppliedFor: push})
	s.image("production/web", "1", []byte("a layer"))
	for _, name := range []string{"a", strings.Repeat("a", 257)} {
		if status, body := s.push(name, []byte("a layer")); status != http.StatusMethodNotAllowed || !strings.Contains(body, "must have length") {
			t.Errorf("a push to a name of %d characters gives %d %s", len(name), status, body)
		}
	}

	s.deny = "ecr:CreateRepository"
	if status, body := s.push("other", []byte("a layer")); status != http.StatusForbidden || !strings.Contains(body, "DENIED") {
		t.Errorf("whoever may not make repositories gets %d %s", status, body)
	}
}

func TestATemplateWithTagsNeedsARole(t *testing.T) {
	s := newShelf(t, 0)
	role := "arn:aws:iam::123456789012:role/templates"
	in := &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("a"), AppliedFor: []types.RCTAppliedFor{types.RCTAppliedForCreateOnPush}, ResourceTags: []types.Tag{{Key: new("team"), Value: new("web")}}}
	s.template(in)
	if status, body := s.push("a/b", []byte("a layer")); status < 400 || !strings.Contains(body, "customRoleArn") {
		t.Errorf("tags without a role give %d %s", status, body)
	}
	var asked string
	s.api.session = func(name string) (wire.Principal, error) {
		if asked = name; s.deny != "" {
			return wire.Principal{}, errors.New("no trust")
		}
		return wire.Principal{Account: "123456789012", Admin: true}, nil
	}
	if _, err := s.api.UpdateRepositoryCreationTemplate(s.ctx, &ecr.UpdateRepositoryCreationTemplateInput{Prefix: new("a"), CustomRoleArn: &role}); err != nil {
		t.Fatal(err)
	}
	s.deny = "trust"
	if status, body := s.push("a/b", []byte("a layer")); status < 400 || !strings.Contains(body, "no trust") {
		t.Errorf("a role that does not trust ECR gives %d %s", status, body)
	}
	s.deny = ""
	s.image("a/b", "1", []byte("a layer"))
	list, err := s.api.ListTagsForResource(s.ctx, &ecr.ListTagsForResourceInput{ResourceArn: s.described("a/b").RepositoryArn})
	if err != nil || len(list.Tags) != 1 || *list.Tags[0].Value != "web" || asked != role {
		t.Errorf("the tags are %+v %v, and %q was asked", list, err, asked)
	}
}

func TestTemplatesThatAreNone(t *testing.T) {
	s := newShelf(t, 0)
	push := []types.RCTAppliedFor{types.RCTAppliedForCreateOnPush}
	s.template(&ecr.CreateRepositoryCreationTemplateInput{Prefix: new("a"), AppliedFor: push})
	for want, in := range map[string]*ecr.CreateRepositoryCreationTemplateInput{
		"prefix":                         {Prefix: new("A"), AppliedFor: push},
		"appliedFor must be given":       {Prefix: new("b")},
		"nothing is replicated":          {Prefix: new("b"), AppliedFor: []types.RCTAppliedFor{types.RCTAppliedForReplication}},
		"appliedFor must be":             {Prefix: new("b"), AppliedFor: []types.RCTAppliedFor{"NEVER"}},
		"LifecyclePolicyText":            {Prefix: new("b"), AppliedFor: push, LifecyclePolicy: new("{}")},
		"PolicyText":                     {Prefix: new("b"), AppliedFor: push, RepositoryPolicy: new("{}")},
		"imageTagMutability":             {Prefix: new("b"), AppliedFor: push, ImageTagMutability: "SOMETIMES"},
		"customRoleArn":                  {Prefix: new("b"), AppliedFor: push, CustomRoleArn: new("arn:aws:iam::210987654321:role/x")},
		"description":                    {Prefix: new("b"), AppliedFor: push, Description: new(strings.Repeat("x", 257))},
		"TemplateAlreadyExistsException": {Prefix: new("a"), AppliedFor: push},
	} {
		if _, err := s.api.CreateRepositoryCreationTemplate(s.ctx, in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := s.api.DeleteRepositoryCreationTemplate(s.ctx, &ecr.DeleteRepositoryCreationTemplateInput{Prefix: new("b")}); err == nil || !strings.Contains(err.Error(), "TemplateNotFoundException") {
		t.Errorf("deleting what is not there gives %v", err)
	}
}
