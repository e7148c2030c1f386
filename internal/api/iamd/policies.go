package iamd

import (
	"context"
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

func (a *API) policyOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("CreatePolicy", a.CreatePolicy, on("CreatePolicy", func(c *wire.Call, in *iam.CreatePolicyInput) string {
			path, _ := cleanPath(in.Path)
			return scopeOf(c).For("iam", "policy"+path+aws.ToString(in.PolicyName)).String()
		}), wire.Members{Performed: "PolicyDocument PolicyName Path", Recorded: "Description Tags"}),
		wire.Handle("GetPolicy", a.GetPolicy, on("GetPolicy", func(_ *wire.Call, in *iam.GetPolicyInput) string { return aws.ToString(in.PolicyArn) }),
			wire.Members{Performed: "PolicyArn"}),
		wire.Handle("GetPolicyVersion", a.GetPolicyVersion, on("GetPolicyVersion", func(_ *wire.Call, in *iam.GetPolicyVersionInput) string { return aws.ToString(in.PolicyArn) }),
			wire.Members{Performed: "PolicyArn VersionId"}),
		wire.Handle("DeletePolicy", a.DeletePolicy, on("DeletePolicy", func(_ *wire.Call, in *iam.DeletePolicyInput) string { return aws.ToString(in.PolicyArn) }),
			wire.Members{Performed: "PolicyArn"}),
		wire.Handle("ListPolicies", a.ListPolicies, on("ListPolicies", func(c *wire.Call, _ *iam.ListPoliciesInput) string { return "*" }),
			wire.Members{Performed: "Marker MaxItems OnlyAttached PathPrefix Scope", Refused: "PolicyUsageFilter"}),
	}
}

// CreatePolicy makes a customer managed policy, version v1.
func (a *API) CreatePolicy(ctx context.Context, in *iam.CreatePolicyInput) (*iam.CreatePolicyOutput, error) {
	call := wire.From(ctx)
	name := aws.ToString(in.PolicyName)
	if name == "" || len(name) > 128 || strings.ContainsAny(name, " /:*") {
		return nil, validation("1 validation error detected: Value '%s' at 'policyName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]+", name)
	}
	path, err := cleanPath(in.Path)
	if err != nil {
		return nil, err
	}
	if err := checkIdentity(in.PolicyDocument); err != nil {
		return nil, err
	}
	if len(strings.Join(strings.Fields(aws.ToString(in.PolicyDocument)), "")) > 6144 {
		return nil, &types.LimitExceededException{Message: new("Cannot exceed quota for PolicySize: 6144")}
	}
	p := managed{
		Name: name, ID: id.Unique("ANPA"), Path: path, Description: aws.ToString(in.Description), Document: aws.ToString(in.PolicyDocument),
		ARN: scopeOf(call).For("iam", "policy"+path+name).String(), Created: time.Now().UTC(), Tags: tagsIn(in.Tags),
	}
	err = a.store.Update(func(tx *store.Tx) error {
		key := scopeOf(call).Key(p.ARN)
		if _, ok := a.policies.Get(tx, key); ok {
			return &types.EntityAlreadyExistsException{Message: new("A policy called " + name + " already exists. Duplicate names are not allowed.")}
		}
		a.policies.Put(tx, key, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iam.CreatePolicyOutput{Policy: policyView(p, 0)}, nil
}

func policyView(p managed, attachments int32) *types.Policy {
	return &types.Policy{
		Arn: new(p.ARN), PolicyName: new(p.Name), PolicyId: new(p.ID), Path: new(p.Path), Description: optional(p.Description),
		DefaultVersionId: new("v1"), AttachmentCount: new(attachments), PermissionsBoundaryUsageCount: new(int32(0)),
		IsAttachable: true, CreateDate: new(p.Created), UpdateDate: new(p.Created), Tags: tagsOut(p.Tags),
	}
}

// policy finds a managed policy, the customer's or AWS's, and how many roles have it.
func (a *API) policy(ctx context.Context, policyARN string) (managed, int32, error) {
	scope := scopeOf(wire.From(ctx))
	var p managed
	var ok bool
	var attachments int32
	a.store.View(func(tx *store.Tx) {
		if p, ok = awsManaged[policyARN]; !ok {
			p, ok = a.policies.Get(tx, scope.Key(policyARN))
		}
		attachments = a.attachments(tx, scope.Key(""), policyARN)
	})
	if !ok {
		return p, 0, &types.NoSuchEntityException{Message: new("Policy " + policyARN + " was not found.")}
	}
	return p, attachments, nil
}

func (a *API) attachments(tx *store.Tx, prefix, policyARN string) (n int32) {
	for _, r := range a.roles.Scan(tx, prefix) {
		if slices.Contains(r.Attached, policyARN) {
			n++
		}
	}
	return n
}

// GetPolicy describes a managed policy.
func (a *API) GetPolicy(ctx context.Context, in *iam.GetPolicyInput) (*iam.GetPolicyOutput, error) {
	p, n, err := a.policy(ctx, aws.ToString(in.PolicyArn))
	if err != nil {
		return nil, err
	}
	return &iam.GetPolicyOutput{Policy: policyView(p, n)}, nil
}

// GetPolicyVersion returns a managed policy's document. There is one version.
func (a *API) GetPolicyVersion(ctx context.Context, in *iam.GetPolicyVersionInput) (*iam.GetPolicyVersionOutput, error) {
	p, _, err := a.policy(ctx, aws.ToString(in.PolicyArn))
	if err != nil {
		return nil, err
	}
	if aws.ToString(in.VersionId) != "v1" {
		return nil, &types.NoSuchEntityException{Message: new("Policy " + p.ARN + " version " + aws.ToString(in.VersionId) + " does not exist or is not attachable.")}
	}
	return &iam.GetPolicyVersionOutput{PolicyVersion: &types.PolicyVersion{
		VersionId: new("v1"), IsDefaultVersion: true, CreateDate: new(p.Created), Document: new(encodeDocument(p.Document)),
	}}, nil
}

// DeletePolicy removes a customer managed policy that hangs on nothing.
func (a *API) DeletePolicy(ctx context.Context, in *iam.DeletePolicyInput) (*iam.DeletePolicyOutput, error) {
	scope := scopeOf(wire.From(ctx))
	return &iam.DeletePolicyOutput{}, a.store.Update(func(tx *store.Tx) error {
		key := scope.Key(aws.ToString(in.PolicyArn))
		if _, ok := a.policies.Get(tx, key); !ok {
			return &types.NoSuchEntityException{Message: new("Policy " + aws.ToString(in.PolicyArn) + " was not found.")}
		}
		if a.attachments(tx, scope.Key(""), aws.ToString(in.PolicyArn)) > 0 {
			return &types.DeleteConflictException{Message: new("Cannot delete a policy attached to entities.")}
		}
		a.policies.Delete(tx, key)
		return nil
	})
}

// ListPolicies pages through AWS's and the customer's managed policies.
func (a *API) ListPolicies(ctx context.Context, in *iam.ListPoliciesInput) (*iam.ListPoliciesOutput, error) {
	scope := scopeOf(wire.From(ctx))
	var list []types.Policy
	a.store.View(func(tx *store.Tx) {
		add := func(p managed) {
			n := a.attachments(tx, scope.Key(""), p.ARN)
			if strings.HasPrefix(p.Path, aws.ToString(in.PathPrefix)) && (!in.OnlyAttached || n > 0) {
				list = append(list, *policyView(p, n))
			}
		}
		if in.Scope != types.PolicyScopeTypeLocal {
			for _, p := range awsManaged {
				add(p)
			}
		}
		if in.Scope != types.PolicyScopeTypeAws {
			for _, p := range a.policies.Scan(tx, scope.Key("")) {
				add(p)
			}
		}
	})
	list, marker, more, err := page(list, func(p types.Policy) string { return *p.Arn }, in.Marker, in.MaxItems)
	return &iam.ListPoliciesOutput{Policies: list, Marker: marker, IsTruncated: more}, err
}

func splitPolicyARN(policyARN string) (path, name string) {
	_, rest, _ := strings.Cut(policyARN, ":policy")
	i := strings.LastIndexByte(rest, '/')
	return rest[:i+1], rest[i+1:]
}
