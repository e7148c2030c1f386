package iamd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

// managed is a managed policy with up to five versions.
type managed struct {
	Name, ID, Path, Description, ARN string
	Created, Updated                 time.Time
	Default                          string // id of the version in force
	Versions                         []version
	Last                             int // number of the newest version that there ever was
}

type version struct {
	ID, Document string
	Created      time.Time
}

func (p managed) version(id string) (version, bool) {
	i := slices.IndexFunc(p.Versions, func(v version) bool { return v.ID == id })
	if i < 0 {
		return version{}, false
	}
	return p.Versions[i], true
}

func (a *API) policyOps() []*wire.Op {
	return []*wire.Op{
		withTags(handle("CreatePolicy", a.CreatePolicy, func(c *wire.Call, in *iam.CreatePolicyInput) string {
			return newARN("policy", c, in.Path, in.PolicyName)
		}, wire.Members{Performed: "PolicyDocument PolicyName Path Tags", Recorded: "Description"}), "TagPolicy", func(in *iam.CreatePolicyInput) []types.Tag { return in.Tags }),
		handle("GetPolicy", a.GetPolicy, func(_ *wire.Call, in *iam.GetPolicyInput) string { return aws.ToString(in.PolicyArn) }, wire.Members{Performed: "PolicyArn"}),
		handle("ListPolicies", a.ListPolicies, all[iam.ListPoliciesInput], wire.Members{Performed: "Marker MaxItems OnlyAttached PathPrefix PolicyUsageFilter Scope"}),
		handle("DeletePolicy", a.DeletePolicy, func(_ *wire.Call, in *iam.DeletePolicyInput) string { return aws.ToString(in.PolicyArn) }, wire.Members{Performed: "PolicyArn"}),
		handle("CreatePolicyVersion", a.CreatePolicyVersion, func(_ *wire.Call, in *iam.CreatePolicyVersionInput) string { return aws.ToString(in.PolicyArn) },
			wire.Members{Performed: "PolicyArn PolicyDocument SetAsDefault"}),
		handle("GetPolicyVersion", a.GetPolicyVersion, func(_ *wire.Call, in *iam.GetPolicyVersionInput) string { return aws.ToString(in.PolicyArn) },
			wire.Members{Performed: "PolicyArn VersionId"}),
		handle("ListPolicyVersions", a.ListPolicyVersions, func(_ *wire.Call, in *iam.ListPolicyVersionsInput) string { return aws.ToString(in.PolicyArn) },
			wire.Members{Performed: "PolicyArn Marker MaxItems"}),
		handle("SetDefaultPolicyVersion", a.SetDefaultPolicyVersion, func(_ *wire.Call, in *iam.SetDefaultPolicyVersionInput) string { return aws.ToString(in.PolicyArn) },
			wire.Members{Performed: "PolicyArn VersionId"}),
		handle("DeletePolicyVersion", a.DeletePolicyVersion, func(_ *wire.Call, in *iam.DeletePolicyVersionInput) string { return aws.ToString(in.PolicyArn) },
			wire.Members{Performed: "PolicyArn VersionId"}),
		handle("ListEntitiesForPolicy", a.ListEntitiesForPolicy, func(_ *wire.Call, in *iam.ListEntitiesForPolicyInput) string { return aws.ToString(in.PolicyArn) },
			wire.Members{Performed: "PolicyArn EntityFilter Marker MaxItems PathPrefix PolicyUsageFilter"}),
		handle("TagPolicy", a.TagPolicy, func(_ *wire.Call, in *iam.TagPolicyInput) string { return aws.ToString(in.PolicyArn) }, wire.Members{Performed: "PolicyArn Tags"}),
		handle("UntagPolicy", a.UntagPolicy, func(_ *wire.Call, in *iam.UntagPolicyInput) string { return aws.ToString(in.PolicyArn) }, wire.Members{Performed: "PolicyArn TagKeys"}),
		handle("ListPolicyTags", a.ListPolicyTags, func(_ *wire.Call, in *iam.ListPolicyTagsInput) string { return aws.ToString(in.PolicyArn) },
			wire.Members{Performed: "PolicyArn Marker MaxItems"}),
	}
}

const managedQuota = 6144 // characters, white space not counted; documented

func checkManaged(document *string) error {
	if err := checkIdentity(document); err != nil {
		return err
	}
	if length(aws.ToString(document)) > managedQuota {
		return limit("Cannot exceed quota for PolicySize: %d", managedQuota)
	}
	return nil
}

// CreatePolicy makes a customer managed policy, version v1.
func (a *API) CreatePolicy(ctx context.Context, in *iam.CreatePolicyInput) (*iam.CreatePolicyOutput, error) {
	account := wire.From(ctx).Scope.Account
	path, err := checkName("policyName", in.PolicyName, 128, in.Path)
	if err != nil {
		return nil, err
	}
	if err := checkManaged(in.PolicyDocument); err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	p := managed{
		Name: *in.PolicyName, ID: id.Unique("ANPA"), Path: path, Description: aws.ToString(in.Description), Created: now, Updated: now,
		ARN: global(account).For("iam", "policy"+path+*in.PolicyName).String(), Default: "v1", Last: 1,
		Versions: []version{{"v1", aws.ToString(in.PolicyDocument), now}},
	}
	out := &iam.CreatePolicyOutput{}
	err = a.store.Update(func(tx *store.Tx) error {
		for _, other := range a.policies.Scan(tx, global(account).Key("")) { // names are the account's, whatever the path
			if strings.EqualFold(other.Name, p.Name) {
				return exists("A policy called %s already exists. Duplicate names are not allowed.", p.Name)
			}
		}
		a.policies.Put(tx, global(account).Key(p.ARN), p)
		a.tags.Set(tx, p.ARN, labels)
		out.Policy = a.policyView(tx, account, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (a *API) policyView(tx *store.Tx, account string, p managed) *types.Policy {
	attached, bounded := a.users(tx, account, p.ARN)
	updated := p.Updated
	if updated.IsZero() {
		updated = p.Created
	}
	return &types.Policy{
		Arn: new(p.ARN), PolicyName: new(p.Name), PolicyId: new(p.ID), Path: new(p.Path), Description: optional(p.Description),
		DefaultVersionId: new(p.Default), AttachmentCount: new(int32(len(attached))), PermissionsBoundaryUsageCount: new(int32(len(bounded))),
		IsAttachable: true, CreateDate: new(p.Created), UpdateDate: new(updated), Tags: a.tagsOut(tx, p.ARN),
	}
}

// users is who has a policy attached, and whose boundary it is.
func (a *API) users(tx *store.Tx, account, policyARN string) (attached, bounded []entity) {
	for _, e := range a.entities.Scan(tx, global(account).Key("")) {
		if slices.Contains(e.Attached, policyARN) {
			attached = append(attached, e)
		}
		if e.Boundary == policyARN {
			bounded = append(bounded, e)
		}
	}
	return attached, bounded
}

func noPolicy(policyARN *string) error {
	return &types.NoSuchEntityException{Message: new("Policy " + aws.ToString(policyARN) + " was not found.")}
}

func noVersion(policyARN, versionID *string) error {
	return &types.NoSuchEntityException{Message: new(fmt.Sprintf("Policy %s version %s does not exist or is not attachable.", aws.ToString(policyARN), aws.ToString(versionID)))}
}

// viewPolicy reads one policy, the customer's or AWS's.
func (a *API) viewPolicy(ctx context.Context, policyARN *string, fn func(*store.Tx, managed) error) (err error) {
	a.store.View(func(tx *store.Tx) {
		p, ok := a.managed(tx, wire.From(ctx).Scope.Account, aws.ToString(policyARN))
		if err = noPolicy(policyARN); ok {
			err = fn(tx, p)
		}
	})
	return err
}

// changePolicy replaces a customer managed policy by what fn makes of it.
func (a *API) changePolicy(ctx context.Context, policyARN *string, fn func(*store.Tx, *managed) error) error {
	key := scopeOf(ctx).Key(aws.ToString(policyARN))
	return a.store.Update(func(tx *store.Tx) error {
		p, ok := a.policies.Get(tx, key)
		if !ok {
			if _, ok := a.aws[aws.ToString(policyARN)]; ok {
				return &wire.Error{Code: "AccessDenied", Message: "Policy " + *policyARN + " is AWS's own and cannot be changed.", Status: 403}
			}
			return noPolicy(policyARN)
		}
		if err := fn(tx, &p); err != nil {
			return err
		}
		p.Updated = time.Now().UTC()
		a.policies.Put(tx, key, p)
		return nil
	})
}

// GetPolicy describes a managed policy.
func (a *API) GetPolicy(ctx context.Context, in *iam.GetPolicyInput) (*iam.GetPolicyOutput, error) {
	out := &iam.GetPolicyOutput{}
	return out, a.viewPolicy(ctx, in.PolicyArn, func(tx *store.Tx, p managed) error {
		out.Policy = a.policyView(tx, wire.From(ctx).Scope.Account, p)
		return nil
	})
}

// DeletePolicy removes a customer managed policy that hangs on nothing and has
// no version but its default.
func (a *API) DeletePolicy(ctx context.Context, in *iam.DeletePolicyInput) (*iam.DeletePolicyOutput, error) {
	return &iam.DeletePolicyOutput{}, a.store.Update(func(tx *store.Tx) error {
		account := wire.From(ctx).Scope.Account
		key := global(account).Key(aws.ToString(in.PolicyArn))
		p, ok := a.policies.Get(tx, key)
		if !ok {
			return noPolicy(in.PolicyArn)
		}
		if attached, bounded := a.users(tx, account, p.ARN); len(attached)+len(bounded) > 0 {
			return conflict("Cannot delete a policy attached to entities.")
		}
		if len(p.Versions) > 1 {
			return conflict("This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.")
		}
		a.policies.Delete(tx, key)
		a.tags.Set(tx, p.ARN, nil)
		return nil
	})
}

// ListPolicies pages through AWS's and the customer's managed policies.
func (a *API) ListPolicies(ctx context.Context, in *iam.ListPoliciesInput) (out *iam.ListPoliciesOutput, err error) {
	account := wire.From(ctx).Scope.Account
	a.store.View(func(tx *store.Tx) {
		var list []types.Policy
		add := func(p managed) {
			v := a.policyView(tx, account, p)
			v.Tags, v.Description = nil, nil // told by GetPolicy only, documented
			used := *v.AttachmentCount + *v.PermissionsBoundaryUsageCount
			switch in.PolicyUsageFilter {
			case types.PolicyUsageTypePermissionsPolicy:
				used = *v.AttachmentCount
			case types.PolicyUsageTypePermissionsBoundary:
				used = *v.PermissionsBoundaryUsageCount
			}
			if strings.HasPrefix(p.Path, aws.ToString(in.PathPrefix)) && (!in.OnlyAttached && in.PolicyUsageFilter == "" || used > 0) {
				list = append(list, *v)
			}
		}
		if in.Scope != types.PolicyScopeTypeLocal {
			for _, p := range a.aws {
				add(p)
			}
		}
		if in.Scope != types.PolicyScopeTypeAws {
			for _, p := range a.policies.Scan(tx, global(account).Key("")) {
				add(p)
			}
		}
		out = &iam.ListPoliciesOutput{}
		out.Policies, out.Marker, out.IsTruncated, err = page(list, func(p types.Policy) string { return *p.Arn }, in.Marker, in.MaxItems)
	})
	return out, err
}

func versionView(p managed, v version) *types.PolicyVersion {
	return &types.PolicyVersion{VersionId: new(v.ID), IsDefaultVersion: v.ID == p.Default, CreateDate: new(v.Created), Document: encodeDocument(v.Document)}
}

// CreatePolicyVersion adds a version; a policy keeps five at most.
func (a *API) CreatePolicyVersion(ctx context.Context, in *iam.CreatePolicyVersionInput) (*iam.CreatePolicyVersionOutput, error) {
	if err := checkManaged(in.PolicyDocument); err != nil {
		return nil, err
	}
	out := &iam.CreatePolicyVersionOutput{}
	return out, a.changePolicy(ctx, in.PolicyArn, func(_ *store.Tx, p *managed) error {
		if len(p.Versions) >= 5 {
			return limit("A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.")
		}
		p.Last++
		v := version{fmt.Sprint("v", p.Last), aws.ToString(in.PolicyDocument), time.Now().UTC()}
		p.Versions = append(slices.Clone(p.Versions), v)
		if in.SetAsDefault {
			p.Default = v.ID
		}
		out.PolicyVersion = versionView(*p, v)
		out.PolicyVersion.Document = nil // not repeated, documented
		return nil
	})
}

// GetPolicyVersion returns a version with its document.
func (a *API) GetPolicyVersion(ctx context.Context, in *iam.GetPolicyVersionInput) (*iam.GetPolicyVersionOutput, error) {
	out := &iam.GetPolicyVersionOutput{}
	return out, a.viewPolicy(ctx, in.PolicyArn, func(_ *store.Tx, p managed) error {
		v, ok := p.version(aws.ToString(in.VersionId))
		if !ok {
			return noVersion(in.PolicyArn, in.VersionId)
		}
		out.PolicyVersion = versionView(p, v)
		return nil
	})
}

// ListPolicyVersions lists a policy's versions, the newest first, without their documents.
func (a *API) ListPolicyVersions(ctx context.Context, in *iam.ListPolicyVersionsInput) (*iam.ListPolicyVersionsOutput, error) {
	out := &iam.ListPolicyVersionsOutput{Versions: []types.PolicyVersion{}}
	return out, a.viewPolicy(ctx, in.PolicyArn, func(_ *store.Tx, p managed) (err error) {
		var list []types.PolicyVersion
		for _, v := range slices.Backward(p.Versions) {
			view := versionView(p, v)
			view.Document = nil
			list = append(list, *view)
		}
		newest := func(v types.PolicyVersion) string { return fmt.Sprintf("%020d", ^v.CreateDate.UnixNano()&(1<<62-1)) }
		out.Versions, out.Marker, out.IsTruncated, err = page(list, newest, in.Marker, in.MaxItems)
		return err
	})
}

// SetDefaultPolicyVersion puts a version in force.
func (a *API) SetDefaultPolicyVersion(ctx context.Context, in *iam.SetDefaultPolicyVersionInput) (*iam.SetDefaultPolicyVersionOutput, error) {
	return &iam.SetDefaultPolicyVersionOutput{}, a.changePolicy(ctx, in.PolicyArn, func(_ *store.Tx, p *managed) error {
		if _, ok := p.version(aws.ToString(in.VersionId)); !ok {
			return noVersion(in.PolicyArn, in.VersionId)
		}
		p.Default = *in.VersionId
		return nil
	})
}

// DeletePolicyVersion removes a version that is not in force.
func (a *API) DeletePolicyVersion(ctx context.Context, in *iam.DeletePolicyVersionInput) (*iam.DeletePolicyVersionOutput, error) {
	return &iam.DeletePolicyVersionOutput{}, a.changePolicy(ctx, in.PolicyArn, func(_ *store.Tx, p *managed) error {
		if _, ok := p.version(aws.ToString(in.VersionId)); !ok {
			return noVersion(in.PolicyArn, in.VersionId)
		}
		if *in.VersionId == p.Default {
			return conflict("Cannot delete the default version of a policy.")
		}
		p.Versions = slices.DeleteFunc(slices.Clone(p.Versions), func(v version) bool { return v.ID == *in.VersionId })
		return nil
	})
}

// ListEntitiesForPolicy pages through who has a policy, and whose boundary it is.
func (a *API) ListEntitiesForPolicy(ctx context.Context, in *iam.ListEntitiesForPolicyInput) (*iam.ListEntitiesForPolicyOutput, error) {
	out := &iam.ListEntitiesForPolicyOutput{PolicyGroups: []types.PolicyGroup{}, PolicyRoles: []types.PolicyRole{}, PolicyUsers: []types.PolicyUser{}}
	return out, a.viewPolicy(ctx, in.PolicyArn, func(tx *store.Tx, p managed) (err error) {
		list, bounded := a.users(tx, wire.From(ctx).Scope.Account, p.ARN)
		switch in.PolicyUsageFilter {
		case types.PolicyUsageTypePermissionsBoundary:
			list = bounded
		case "":
			list = append(list, slices.DeleteFunc(bounded, func(e entity) bool { return slices.Contains(e.Attached, p.ARN) })...)
		}
		wanted := map[types.EntityType]Kind{types.EntityTypeRole: Role, types.EntityTypeUser: User, types.EntityTypeGroup: Group}[in.EntityFilter]
		list = slices.DeleteFunc(list, func(e entity) bool {
			return !strings.HasPrefix(e.Path, aws.ToString(in.PathPrefix)) || in.EntityFilter != "" && e.Kind != wanted
		})
		list, out.Marker, out.IsTruncated, err = page(list, func(e entity) string { return string(e.Kind) + "/" + e.Name }, in.Marker, in.MaxItems)
		for _, e := range list {
			switch e.Kind {
			case Role:
				out.PolicyRoles = append(out.PolicyRoles, types.PolicyRole{RoleId: new(e.ID), RoleName: new(e.Name)})
			case User:
				out.PolicyUsers = append(out.PolicyUsers, types.PolicyUser{UserId: new(e.ID), UserName: new(e.Name)})
			case Group:
				out.PolicyGroups = append(out.PolicyGroups, types.PolicyGroup{GroupId: new(e.ID), GroupName: new(e.Name)})
			}
		}
		return err
	})
}

// TagPolicy adds tags to a customer managed policy.
func (a *API) TagPolicy(ctx context.Context, in *iam.TagPolicyInput) (*iam.TagPolicyOutput, error) {
	list, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.TagPolicyOutput{}, a.changePolicy(ctx, in.PolicyArn, func(tx *store.Tx, p *managed) error { return tagError(a.tags.Add(tx, p.ARN, list)) })
}

// UntagPolicy removes tags from a customer managed policy.
func (a *API) UntagPolicy(ctx context.Context, in *iam.UntagPolicyInput) (*iam.UntagPolicyOutput, error) {
	return &iam.UntagPolicyOutput{}, a.changePolicy(ctx, in.PolicyArn, func(tx *store.Tx, p *managed) error {
		a.tags.Remove(tx, p.ARN, in.TagKeys)
		return nil
	})
}

// ListPolicyTags pages through a policy's tags.
func (a *API) ListPolicyTags(ctx context.Context, in *iam.ListPolicyTagsInput) (*iam.ListPolicyTagsOutput, error) {
	out := &iam.ListPolicyTagsOutput{}
	return out, a.viewPolicy(ctx, in.PolicyArn, func(tx *store.Tx, p managed) (err error) {
		out.Tags, out.Marker, out.IsTruncated, err = a.tagList(tx, p.ARN, in.Marker, in.MaxItems)
		return err
	})
}

func splitPolicyARN(policyARN string) (path, name string) {
	_, rest, _ := strings.Cut(policyARN, ":policy")
	i := strings.LastIndexByte(rest, '/')
	return rest[:i+1], rest[i+1:]
}
