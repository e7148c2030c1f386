// Package ecrd is the stage's ECR: repositories and images as its clients know
// them, over a real OCI registry.
//
// Both faces, the JSON API and the distribution protocol at /v2/, read and
// write the same rows, and both ask the policies: a docker push is a row of
// ecr:InitiateLayerUpload, UploadLayerPart and PutImage, as on AWS.
package ecrd

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"golang.org/x/sync/singleflight"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/id"
	"serin/internal/registry"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// API performs ECR's operations.
type API struct {
	store     *store.Store
	clock     *clock.Clock
	log       *slog.Logger
	blobs     *registry.Blobs
	handler   http.Handler
	authorize func(context.Context, *wire.Call, []wire.Check) error
	session   func(role string) (wire.Principal, error)
	upstream  func(host string) (*registry.Remote, error)

	// Endpoint is where clients reach the registry: host and port.
	Endpoint string

	patience time.Duration // with a client that is sending, and with a registry behind, in wall time
	urlKey   [32]byte      // signs the addresses of layers, until the program ends

	repositories *store.Table[repository]
	layers       *store.Table[layer]
	images       *store.Table[image]
	tags         *store.Table[tagRow]
	tokens       *store.Table[token]
	settings     *store.Table[settings]
	templates    *store.Table[template]
	rules        *store.Table[cacheRule]
	previews     *store.Table[preview] // of lifecycle policies, the last of each repository
	labels       *tags.Table           // tags of resources, which are not image tags

	promises  promises
	importing singleflight.Group
	life      context.Context // of what goes on whoever leaves; it ends with Run
	end       context.CancelFunc
}

type repository struct {
	Name       string
	Created    time.Time
	Mutability string
	Excluded   []string // patterns of tags that are not of the mutability
	ScanOnPush bool
	Encryption string
	Policy     string
	Lifecycle  lifecycle
}

// layer says that a repository holds a blob.
type layer struct {
	Size  int64
	Since time.Time // wall time, for whoever collects
	Named bool      // a manifest has had it
}

type image struct {
	Digest, MediaType, ArtifactType, Subject string
	Annotations                              map[string]string // for the list of referrers
	Children                                 []string          // digests of an index's manifests
	Layers                                   []string          // digests, the configuration's among them
	Size                                     int64             // of its layers and configuration
	ManifestSize                             int64
	Pushed                                   time.Time
	Pulled                                   time.Time
}

type tagRow struct {
	Digest  string
	Checked time.Time // with the registry behind the repository, stage time
}

// token is an authorization token: it carries its asker's permissions.
type token struct {
	Principal wire.Principal
	Scope     arn.Scope
	Expires   time.Time // wall time
}

// tokenLife is how long an authorization token lasts, documented.
const tokenLife = 12 * time.Hour

// Deps is what ECR needs of others.
type Deps struct {
	// Authorize asks the policies.
	Authorize func(context.Context, *wire.Call, []wire.Check) error
	// Session is ECR acting as a role that trusts it.
	Session func(role string) (wire.Principal, error)
	// Upstream is a registry that the pull through cache is in front of.
	Upstream func(host string) (*registry.Remote, error)
}

// New adds ECR's tables to the store.
func New(s *store.Store, c *clock.Clock, log *slog.Logger, b *registry.Blobs, d Deps) *API {
	a := &API{
		store: s, clock: c, log: log, blobs: b, patience: time.Minute, authorize: d.Authorize, session: d.Session, upstream: d.Upstream,
		repositories: store.NewTable[repository](s, "ecr/repositories"),
		layers:       store.NewTable[layer](s, "ecr/layers"),
		images:       store.NewTable[image](s, "ecr/images"),
		tags:         store.NewTable[tagRow](s, "ecr/tags"),
		tokens:       store.NewTable[token](s, "ecr/tokens"),
		settings:     store.NewTable[settings](s, "ecr/settings"),
		templates:    store.NewTable[template](s, "ecr/templates"),
		rules:        store.NewTable[cacheRule](s, "ecr/rules"),
		previews:     store.NewTable[preview](s, "ecr/previews"),
		labels:       tags.NewTable(s, "ecr/labels", tags.Exact),
	}
	rand.Read(a.urlKey[:])
	a.promises = promises{since: time.Now(), made: map[string]time.Time{}}
	a.life, a.end = context.WithCancel(context.Background())
	b.Reclaim = func() { a.reclaim(grace) }
	a.handler = registry.Handler(newBackend(a))
	return a
}

// Service is ECR on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "ecr", Signing: "ecr", Protocol: wire.JSON, Target: "AmazonEC2ContainerRegistry_V20150921", Version: "2015-09-21",
		Naming:  &wire.Naming{Lower: true, Except: map[string]string{"Tag.Key": "Key", "Tag.Value": "Value"}},
		Status:  map[string]int{"ServerException": 500},
		Invalid: func(m string) error { return invalid("%s", m) },
		Types: map[string]wire.Members{
			"ImageTagMutabilityExclusionFilter":                    {Performed: "filter filterType"},
			"ImageIdentifier":                                      {Performed: "imageDigest imageTag"},
			"DescribeImagesFilter":                                 {Performed: "tagStatus", Refused: "imageStatus"},
			"LifecyclePolicyPreviewFilter":                         {Performed: "tagStatus"},
			"ListImagesFilter":                                     {Performed: "tagStatus", Refused: "imageStatus"},
			"EncryptionConfigurationForRepositoryCreationTemplate": {Recorded: "encryptionType", Refused: "kmsKey"},
			"EncryptionConfiguration":                              {Recorded: "encryptionType", Refused: "kmsKey"},
			"ImageScanningConfiguration":                           {Recorded: "scanOnPush"},
			"Tag":                                                  {Performed: "Key Value"},
		},
	}
	onRepo := func(c *wire.Call, action string, name *string) []wire.Check {
		return []wire.Check{{Action: "ecr:" + action, Resource: c.ARN("repository/" + aws.ToString(name))}}
	}
	// Operations on a registry have no resource, documented.
	onRegistry := func(action string) []wire.Check { return []wire.Check{{Action: "ecr:" + action, Resource: "*"}} }
	s.Register(
		wire.Handle("CreateRepository", a.CreateRepository, func(c *wire.Call, in *ecr.CreateRepositoryInput) []wire.Check {
			checks := onRepo(c, "CreateRepository", in.RepositoryName)
			return append(checks, wire.WhenTagged(in.Tags, wire.Check{Action: "ecr:TagResource", Resource: checks[0].Resource})...)
		}, wire.Members{Performed: "repositoryName imageTagMutability imageTagMutabilityExclusionFilters registryId tags", Recorded: "encryptionConfiguration imageScanningConfiguration"}),
		wire.Handle("DescribeRepositories", a.DescribeRepositories, func(c *wire.Call, in *ecr.DescribeRepositoriesInput) []wire.Check {
			if len(in.RepositoryNames) == 0 {
				return []wire.Check{{Action: "ecr:DescribeRepositories", Resource: c.ARN("repository/*"), Wild: true}}
			}
			var checks []wire.Check
			for _, name := range in.RepositoryNames {
				checks = append(checks, wire.Check{Action: "ecr:DescribeRepositories", Resource: c.ARN("repository/" + name)})
			}
			return checks
		}, wire.Members{Performed: "maxResults nextToken registryId repositoryNames"}),
		wire.Handle("DeleteRepository", a.DeleteRepository, func(c *wire.Call, in *ecr.DeleteRepositoryInput) []wire.Check {
			return onRepo(c, "DeleteRepository", in.RepositoryName)
		}, wire.Members{Performed: "repositoryName force registryId"}),
		wire.Handle("SetRepositoryPolicy", a.SetRepositoryPolicy, func(c *wire.Call, in *ecr.SetRepositoryPolicyInput) []wire.Check {
			return onRepo(c, "SetRepositoryPolicy", in.RepositoryName)
		}, wire.Members{Performed: "policyText registryId repositoryName", Refused: "force"}),
		wire.Handle("GetRepositoryPolicy", a.GetRepositoryPolicy, func(c *wire.Call, in *ecr.GetRepositoryPolicyInput) []wire.Check {
			return onRepo(c, "GetRepositoryPolicy", in.RepositoryName)
		}, wire.Members{Performed: "registryId repositoryName"}),
		wire.Handle("DeleteRepositoryPolicy", a.DeleteRepositoryPolicy, func(c *wire.Call, in *ecr.DeleteRepositoryPolicyInput) []wire.Check {
			return onRepo(c, "DeleteRepositoryPolicy", in.RepositoryName)
		}, wire.Members{Performed: "registryId repositoryName"}),
		wire.Handle("PutLifecyclePolicy", a.PutLifecyclePolicy, func(c *wire.Call, in *ecr.PutLifecyclePolicyInput) []wire.Check {
			return onRepo(c, "PutLifecyclePolicy", in.RepositoryName)
		}, wire.Members{Performed: "lifecyclePolicyText registryId repositoryName"}),
		wire.Handle("GetLifecyclePolicy", a.GetLifecyclePolicy, func(c *wire.Call, in *ecr.GetLifecyclePolicyInput) []wire.Check {
			return onRepo(c, "GetLifecyclePolicy", in.RepositoryName)
		}, wire.Members{Performed: "registryId repositoryName"}),
		wire.Handle("DeleteLifecyclePolicy", a.DeleteLifecyclePolicy, func(c *wire.Call, in *ecr.DeleteLifecyclePolicyInput) []wire.Check {
			return onRepo(c, "DeleteLifecyclePolicy", in.RepositoryName)
		}, wire.Members{Performed: "registryId repositoryName"}),
		wire.Handle("StartLifecyclePolicyPreview", a.StartLifecyclePolicyPreview, func(c *wire.Call, in *ecr.StartLifecyclePolicyPreviewInput) []wire.Check {
			return onRepo(c, "StartLifecyclePolicyPreview", in.RepositoryName)
		}, wire.Members{Performed: "lifecyclePolicyText registryId repositoryName"}),
		wire.Handle("GetLifecyclePolicyPreview", a.GetLifecyclePolicyPreview, func(c *wire.Call, in *ecr.GetLifecyclePolicyPreviewInput) []wire.Check {
			return onRepo(c, "GetLifecyclePolicyPreview", in.RepositoryName)
		}, wire.Members{Performed: "filter imageIds maxResults nextToken registryId repositoryName"}),
		wire.Handle("TagResource", a.TagResource, func(_ *wire.Call, in *ecr.TagResourceInput) []wire.Check {
			return []wire.Check{{Action: "ecr:TagResource", Resource: aws.ToString(in.ResourceArn)}}
		}, wire.Members{Performed: "resourceArn tags"}),
		wire.Handle("UntagResource", a.UntagResource, func(_ *wire.Call, in *ecr.UntagResourceInput) []wire.Check {
			return []wire.Check{{Action: "ecr:UntagResource", Resource: aws.ToString(in.ResourceArn)}}
		}, wire.Members{Performed: "resourceArn tagKeys"}),
		wire.Handle("ListTagsForResource", a.ListTagsForResource, func(_ *wire.Call, in *ecr.ListTagsForResourceInput) []wire.Check {
			return []wire.Check{{Action: "ecr:ListTagsForResource", Resource: aws.ToString(in.ResourceArn)}}
		}, wire.Members{Performed: "resourceArn"}),
		wire.Handle("GetAuthorizationToken", a.GetAuthorizationToken, func(*wire.Call, *ecr.GetAuthorizationTokenInput) []wire.Check {
			return []wire.Check{{Action: "ecr:GetAuthorizationToken", Resource: "*"}}
		}, wire.Members{Performed: "registryIds"}),
		wire.Handle("PutImageScanningConfiguration", a.PutImageScanningConfiguration, func(c *wire.Call, in *ecr.PutImageScanningConfigurationInput) []wire.Check {
			return onRepo(c, "PutImageScanningConfiguration", in.RepositoryName)
		}, wire.Members{Performed: "registryId repositoryName", Recorded: "imageScanningConfiguration"}),
		wire.Handle("GetAccountSetting", a.GetAccountSetting, func(*wire.Call, *ecr.GetAccountSettingInput) []wire.Check {
			return onRegistry("GetAccountSetting")
		}, wire.Members{Performed: "name"}),
		wire.Handle("PutAccountSetting", a.PutAccountSetting, func(*wire.Call, *ecr.PutAccountSettingInput) []wire.Check {
			return onRegistry("PutAccountSetting")
		}, wire.Members{Performed: "name value"}),
		wire.Handle("PutRegistryPolicy", a.PutRegistryPolicy, func(*wire.Call, *ecr.PutRegistryPolicyInput) []wire.Check {
			return onRegistry("PutRegistryPolicy")
		}, wire.Members{Performed: "policyText"}),
		wire.Handle("GetRegistryPolicy", a.GetRegistryPolicy, func(*wire.Call, *ecr.GetRegistryPolicyInput) []wire.Check {
			return onRegistry("GetRegistryPolicy")
		}, wire.Members{}),
		wire.Handle("DeleteRegistryPolicy", a.DeleteRegistryPolicy, func(*wire.Call, *ecr.DeleteRegistryPolicyInput) []wire.Check {
			return onRegistry("DeleteRegistryPolicy")
		}, wire.Members{}),
		wire.Handle("DescribeRegistry", a.DescribeRegistry, func(*wire.Call, *ecr.DescribeRegistryInput) []wire.Check {
			return onRegistry("DescribeRegistry")
		}, wire.Members{}),
		wire.Handle("CreateRepositoryCreationTemplate", a.CreateRepositoryCreationTemplate, func(c *wire.Call, in *ecr.CreateRepositoryCreationTemplateInput) []wire.Check {
			return append(onRegistry("CreateRepositoryCreationTemplate"), passRole(c, in.CustomRoleArn)...)
		}, wire.Members{Performed: "appliedFor customRoleArn description imageTagMutability imageTagMutabilityExclusionFilters lifecyclePolicy prefix repositoryPolicy resourceTags", Recorded: "encryptionConfiguration"}),
		wire.Handle("UpdateRepositoryCreationTemplate", a.UpdateRepositoryCreationTemplate, func(c *wire.Call, in *ecr.UpdateRepositoryCreationTemplateInput) []wire.Check {
			return append(onRegistry("UpdateRepositoryCreationTemplate"), passRole(c, in.CustomRoleArn)...)
		}, wire.Members{Performed: "appliedFor customRoleArn description imageTagMutability imageTagMutabilityExclusionFilters lifecyclePolicy prefix repositoryPolicy resourceTags", Recorded: "encryptionConfiguration"}),
		wire.Handle("DeleteRepositoryCreationTemplate", a.DeleteRepositoryCreationTemplate, func(*wire.Call, *ecr.DeleteRepositoryCreationTemplateInput) []wire.Check {
			return onRegistry("DeleteRepositoryCreationTemplate")
		}, wire.Members{Performed: "prefix"}),
		wire.Handle("DescribeRepositoryCreationTemplates", a.DescribeRepositoryCreationTemplates, func(*wire.Call, *ecr.DescribeRepositoryCreationTemplatesInput) []wire.Check {
			return onRegistry("DescribeRepositoryCreationTemplates")
		}, wire.Members{Performed: "maxResults nextToken prefixes"}),
		wire.Handle("CreatePullThroughCacheRule", a.CreatePullThroughCacheRule, func(c *wire.Call, in *ecr.CreatePullThroughCacheRuleInput) []wire.Check {
			return append(onRegistry("CreatePullThroughCacheRule"), passRole(c, in.CustomRoleArn)...)
		}, wire.Members{Performed: "customRoleArn ecrRepositoryPrefix registryId upstreamRegistry upstreamRegistryUrl upstreamRepositoryPrefix", Recorded: "credentialArn"}),
		wire.Handle("UpdatePullThroughCacheRule", a.UpdatePullThroughCacheRule, func(c *wire.Call, in *ecr.UpdatePullThroughCacheRuleInput) []wire.Check {
			return append(onRegistry("UpdatePullThroughCacheRule"), passRole(c, in.CustomRoleArn)...)
		}, wire.Members{Performed: "customRoleArn ecrRepositoryPrefix registryId", Recorded: "credentialArn"}),
		wire.Handle("DeletePullThroughCacheRule", a.DeletePullThroughCacheRule, func(*wire.Call, *ecr.DeletePullThroughCacheRuleInput) []wire.Check {
			return onRegistry("DeletePullThroughCacheRule")
		}, wire.Members{Performed: "ecrRepositoryPrefix registryId"}),
		wire.Handle("DescribePullThroughCacheRules", a.DescribePullThroughCacheRules, func(*wire.Call, *ecr.DescribePullThroughCacheRulesInput) []wire.Check {
			return onRegistry("DescribePullThroughCacheRules")
		}, wire.Members{Performed: "ecrRepositoryPrefixes maxResults nextToken registryId"}),
		wire.Handle("ValidatePullThroughCacheRule", a.ValidatePullThroughCacheRule, func(*wire.Call, *ecr.ValidatePullThroughCacheRuleInput) []wire.Check {
			return onRegistry("ValidatePullThroughCacheRule")
		}, wire.Members{Performed: "ecrRepositoryPrefix registryId"}),
		wire.Handle("PutImageTagMutability", a.PutImageTagMutability, func(c *wire.Call, in *ecr.PutImageTagMutabilityInput) []wire.Check {
			return onRepo(c, "PutImageTagMutability", in.RepositoryName)
		}, wire.Members{Performed: "imageTagMutability imageTagMutabilityExclusionFilters registryId repositoryName"}),
		wire.Handle("BatchCheckLayerAvailability", a.BatchCheckLayerAvailability, func(c *wire.Call, in *ecr.BatchCheckLayerAvailabilityInput) []wire.Check {
			return onRepo(c, "BatchCheckLayerAvailability", in.RepositoryName)
		}, wire.Members{Performed: "layerDigests registryId repositoryName"}),
		wire.Handle("GetDownloadUrlForLayer", a.GetDownloadUrlForLayer, func(c *wire.Call, in *ecr.GetDownloadUrlForLayerInput) []wire.Check {
			return onRepo(c, "GetDownloadUrlForLayer", in.RepositoryName)
		}, wire.Members{Performed: "layerDigest registryId repositoryName"}),
		wire.Handle("InitiateLayerUpload", a.InitiateLayerUpload, func(c *wire.Call, in *ecr.InitiateLayerUploadInput) []wire.Check {
			return onRepo(c, "InitiateLayerUpload", in.RepositoryName)
		}, wire.Members{Performed: "registryId repositoryName"}),
		wire.Handle("UploadLayerPart", a.UploadLayerPart, func(c *wire.Call, in *ecr.UploadLayerPartInput) []wire.Check {
			return onRepo(c, "UploadLayerPart", in.RepositoryName)
		}, wire.Members{Performed: "layerPartBlob partFirstByte partLastByte registryId repositoryName uploadId"}),
		wire.Handle("CompleteLayerUpload", a.CompleteLayerUpload, func(c *wire.Call, in *ecr.CompleteLayerUploadInput) []wire.Check {
			return onRepo(c, "CompleteLayerUpload", in.RepositoryName)
		}, wire.Members{Performed: "layerDigests registryId repositoryName uploadId"}),
		wire.Handle("PutImage", a.PutImage, func(c *wire.Call, in *ecr.PutImageInput) []wire.Check {
			return onRepo(c, "PutImage", in.RepositoryName)
		}, wire.Members{Performed: "imageDigest imageManifest imageManifestMediaType imageTag registryId repositoryName"}),
		wire.Handle("DescribeImages", a.DescribeImages, func(c *wire.Call, in *ecr.DescribeImagesInput) []wire.Check {
			return onRepo(c, "DescribeImages", in.RepositoryName)
		}, wire.Members{Performed: "repositoryName filter imageIds maxResults nextToken registryId"}),
		wire.Handle("ListImages", a.ListImages, func(c *wire.Call, in *ecr.ListImagesInput) []wire.Check {
			return onRepo(c, "ListImages", in.RepositoryName)
		}, wire.Members{Performed: "repositoryName filter maxResults nextToken registryId"}),
		wire.Handle("BatchGetImage", a.BatchGetImage, func(c *wire.Call, in *ecr.BatchGetImageInput) []wire.Check {
			return onRepo(c, "BatchGetImage", in.RepositoryName)
		}, wire.Members{Performed: "acceptedMediaTypes repositoryName imageIds registryId"}),
		wire.Handle("BatchDeleteImage", a.BatchDeleteImage, func(c *wire.Call, in *ecr.BatchDeleteImageInput) []wire.Check {
			return onRepo(c, "BatchDeleteImage", in.RepositoryName)
		}, wire.Members{Performed: "repositoryName imageIds registryId"}),
	)
	return s
}

func passRole(c *wire.Call, role *string) []wire.Check {
	if aws.ToString(role) == "" {
		return nil
	}
	return []wire.Check{{Action: "iam:PassRole", Resource: *role, Context: map[string][]string{"iam:PassedToService": {"ecr.amazonaws.com"}}}}
}

func invalid(format string, args ...any) error {
	return &types.InvalidParameterException{Message: new("Invalid parameter: " + fmt.Sprintf(format, args...))}
}

var repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// checkName refuses what no repository can be called, in ECR's words, observed.
func checkName(name string) error {
	why := ""
	switch {
	case len(name) < 2:
		why = "must have length greater than or equal to 2"
	case len(name) > 256:
		why = "must have length less than or equal to 256"
	case !repositoryName.MatchString(name):
		why = "must satisfy regular expression '" + strings.Trim(repositoryName.String(), "^$") + "'"
	default:
		return nil
	}
	return &types.InvalidParameterException{Message: new("Invalid parameter at 'repositoryName' failed to satisfy constraint: '" + why + "'")}
}

// registryOf checks that the caller's own registry is meant.
func registryOf(c *wire.Call, id *string) error {
	if id != nil && *id != c.Scope.Account {
		return invalid("registryId must be the caller's own account %s; other registries are not served", c.Scope.Account)
	}
	return nil
}

func repositoryKey(scope arn.Scope, name string) string { return scope.Key(name) }
func imageKey(scope arn.Scope, repo, digest string) string {
	return scope.Key(repo) + "|" + digest
}

func notFound(scope arn.Scope, name string) error {
	return &types.RepositoryNotFoundException{Message: new(fmt.Sprintf("The repository with name '%s' does not exist in the registry with id '%s'", name, scope.Account))}
}

// find reads a repository, or says that there is none.
func (a *API) find(tx *store.Tx, scope arn.Scope, name string) (repository, error) {
	r, ok := a.repositories.Get(tx, repositoryKey(scope, name))
	if !ok {
		return r, notFound(scope, name)
	}
	return r, nil
}

// CreateRepository makes an empty repository.
func (a *API) CreateRepository(ctx context.Context, in *ecr.CreateRepositoryInput) (*ecr.CreateRepositoryOutput, error) {
	c := wire.From(ctx)
	name := aws.ToString(in.RepositoryName)
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	r := plainRepository()
	r.Name, r.Created = name, a.clock.Now()
	if err := r.setMutability(cmp.Or(in.ImageTagMutability, types.ImageTagMutabilityMutable), in.ImageTagMutabilityExclusionFilters); err != nil {
		return nil, err
	}
	if e := in.EncryptionConfiguration; e != nil && e.EncryptionType != "" {
		r.Encryption = string(e.EncryptionType)
	}
	r.ScanOnPush = in.ImageScanningConfiguration != nil && in.ImageScanningConfiguration.ScanOnPush
	err = a.store.Update(func(tx *store.Tx) error {
		key := repositoryKey(c.Scope, name)
		if _, ok := a.repositories.Get(tx, key); ok {
			return &types.RepositoryAlreadyExistsException{Message: new(fmt.Sprintf("The repository with name '%s' already exists in the registry with id '%s'", name, c.Scope.Account))}
		}
		a.repositories.Put(tx, key, r)
		a.labels.Set(tx, c.ARN("repository/"+name), labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.CreateRepositoryOutput{Repository: a.view(c.Scope, r)}, nil
}

func (a *API) view(scope arn.Scope, r repository) *types.Repository {
	return &types.Repository{
		RepositoryName: new(r.Name), RegistryId: new(scope.Account), CreatedAt: new(r.Created),
		RepositoryArn: new(scope.For("ecr", "repository/"+r.Name).String()), RepositoryUri: new(a.Endpoint + "/" + r.Name),
		ImageTagMutability: types.ImageTagMutability(r.Mutability), ImageTagMutabilityExclusionFilters: r.filters(),
		EncryptionConfiguration:    &types.EncryptionConfiguration{EncryptionType: types.EncryptionType(r.Encryption)},
		ImageScanningConfiguration: &types.ImageScanningConfiguration{ScanOnPush: r.ScanOnPush},
	}
}

// DescribeRepositories lists repositories, all or those named.
func (a *API) DescribeRepositories(ctx context.Context, in *ecr.DescribeRepositoriesInput) (*ecr.DescribeRepositoriesOutput, error) {
	c := wire.From(ctx)
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	var rows []repository
	found := map[string]bool{}
	a.store.View(func(tx *store.Tx) {
		for _, r := range a.repositories.Scan(tx, c.Scope.Key("")) {
			if in.RepositoryNames == nil || slices.Contains(in.RepositoryNames, r.Name) {
				rows = append(rows, r)
				found[r.Name] = true
			}
		}
	})
	for _, name := range in.RepositoryNames {
		if !found[name] {
			return nil, notFound(c.Scope, name)
		}
	}
	rows, next, err := page(rows, func(r repository) string { return r.Name }, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeRepositoriesOutput{NextToken: next}
	for _, r := range rows {
		out.Repositories = append(out.Repositories, *a.view(c.Scope, r))
	}
	return out, nil
}

func page[T any](items []T, key func(T) string, token *string, max *int32) ([]T, *string, error) {
	limit := 100
	if max != nil {
		if *max < 1 || *max > 1000 {
			return nil, nil, invalid("maxResults must be between 1 and 1000, got %d", *max)
		}
		limit = int(*max)
	}
	items, next, err := wire.Page(items, key, aws.ToString(token), limit)
	if err != nil {
		return nil, nil, invalid("nextToken is not one that was returned")
	}
	if next == "" {
		return items, nil, nil
	}
	return items, &next, nil
}

// DeleteRepository removes a repository; one with images only by force.
func (a *API) DeleteRepository(ctx context.Context, in *ecr.DeleteRepositoryInput) (*ecr.DeleteRepositoryOutput, error) {
	c := wire.From(ctx)
	if err := registryOf(c, in.RegistryId); err != nil {
		return nil, err
	}
	name := aws.ToString(in.RepositoryName)
	var r repository
	err := a.store.Update(func(tx *store.Tx) (err error) {
		if r, err = a.find(tx, c.Scope, name); err != nil {
			return err
		}
		within := imageKey(c.Scope, name, "")
		for k := range a.images.Scan(tx, within) {
			if !in.Force {
				return &types.RepositoryNotEmptyException{Message: new(fmt.Sprintf("The repository with name '%s' in registry with id '%s' cannot be deleted because it still contains images", name, c.Scope.Account))}
			}
			a.images.Delete(tx, k)
		}
		for k := range a.tags.Scan(tx, within) {
			a.tags.Delete(tx, k)
		}
		for k := range a.layers.Scan(tx, within) {
			a.layers.Delete(tx, k)
		}
		a.previews.Delete(tx, repositoryKey(c.Scope, name))
		a.repositories.Delete(tx, repositoryKey(c.Scope, name))
		a.labels.Set(tx, c.ARN("repository/"+name), nil)
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.blobs.Abandon(func(repo string) bool { return repo == c.Scope.Key(name) })
	return &ecr.DeleteRepositoryOutput{Repository: a.view(c.Scope, r)}, nil
}

// GetAuthorizationToken makes a password for the registry, good for twelve
// hours, that carries the caller's permissions.
func (a *API) GetAuthorizationToken(ctx context.Context, in *ecr.GetAuthorizationTokenInput) (*ecr.GetAuthorizationTokenOutput, error) {
	c := wire.From(ctx)
	//lint:ignore SA1019 what is deprecated is still sent, by the login action among others
	for _, r := range in.RegistryIds {
		if err := registryOf(c, &r); err != nil {
			return nil, err
		}
	}
	password, expires, err := a.Token(c.Principal, c.Scope)
	if err != nil {
		return nil, err
	}
	return &ecr.GetAuthorizationTokenOutput{AuthorizationData: []types.AuthorizationData{{
		AuthorizationToken: new(base64.StdEncoding.EncodeToString([]byte("AWS:" + password))),
		ExpiresAt:          new(expires), ProxyEndpoint: new("http://" + a.Endpoint),
	}}}, nil
}

// Token makes a registry password for a principal.
func (a *API) Token(p wire.Principal, scope arn.Scope) (password string, expires time.Time, err error) {
	password, expires = id.Secret(64), time.Now().Add(tokenLife).UTC()
	err = a.store.Update(func(tx *store.Tx) error {
		for key, t := range a.tokens.Scan(tx, "") {
			if time.Since(t.Expires) > tokenLife {
				a.tokens.Delete(tx, key)
			}
		}
		a.tokens.Put(tx, password, token{p, scope, expires})
		return nil
	})
	return password, expires, err
}
