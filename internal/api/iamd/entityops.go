package iamd

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"serin/internal/store"
	"serin/internal/wire"
)

// entityOps are the operations that users, groups and roles have alike. The
// SDK's types differ by the name of the name; the work is the same.
func (a *API) entityOps() []*wire.Op {
	type C = context.Context
	return []*wire.Op{
		handle("AttachRolePolicy", func(c C, in *iam.AttachRolePolicyInput) (*iam.AttachRolePolicyOutput, error) {
			return &iam.AttachRolePolicyOutput{}, a.attach(c, Role, in.RoleName, in.PolicyArn)
		}, func(c *wire.Call, in *iam.AttachRolePolicyInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "PolicyArn RoleName"},
			func(_ *wire.Call, in *iam.AttachRolePolicyInput) (string, []string) { return policyKey(in.PolicyArn) },
			func(c *wire.Call, in *iam.AttachRolePolicyInput) (string, []string) {
				return a.boundaryKey(Role, c, in.RoleName)
			}),
		handle("AttachUserPolicy", func(c C, in *iam.AttachUserPolicyInput) (*iam.AttachUserPolicyOutput, error) {
			return &iam.AttachUserPolicyOutput{}, a.attach(c, User, in.UserName, in.PolicyArn)
		}, func(c *wire.Call, in *iam.AttachUserPolicyInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "PolicyArn UserName"},
			func(_ *wire.Call, in *iam.AttachUserPolicyInput) (string, []string) { return policyKey(in.PolicyArn) },
			func(c *wire.Call, in *iam.AttachUserPolicyInput) (string, []string) {
				return a.boundaryKey(User, c, in.UserName)
			}),
		handle("AttachGroupPolicy", func(c C, in *iam.AttachGroupPolicyInput) (*iam.AttachGroupPolicyOutput, error) {
			return &iam.AttachGroupPolicyOutput{}, a.attach(c, Group, in.GroupName, in.PolicyArn)
		}, func(c *wire.Call, in *iam.AttachGroupPolicyInput) string { return a.resource(Group, c, in.GroupName) }, wire.Members{Performed: "PolicyArn GroupName"},
			func(_ *wire.Call, in *iam.AttachGroupPolicyInput) (string, []string) { return policyKey(in.PolicyArn) }),
		handle("DetachRolePolicy", func(c C, in *iam.DetachRolePolicyInput) (*iam.DetachRolePolicyOutput, error) {
			return &iam.DetachRolePolicyOutput{}, a.detach(c, Role, in.RoleName, in.PolicyArn)
		}, func(c *wire.Call, in *iam.DetachRolePolicyInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "PolicyArn RoleName"},
			func(_ *wire.Call, in *iam.DetachRolePolicyInput) (string, []string) { return policyKey(in.PolicyArn) },
			func(c *wire.Call, in *iam.DetachRolePolicyInput) (string, []string) {
				return a.boundaryKey(Role, c, in.RoleName)
			}),
		handle("DetachUserPolicy", func(c C, in *iam.DetachUserPolicyInput) (*iam.DetachUserPolicyOutput, error) {
			return &iam.DetachUserPolicyOutput{}, a.detach(c, User, in.UserName, in.PolicyArn)
		}, func(c *wire.Call, in *iam.DetachUserPolicyInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "PolicyArn UserName"},
			func(_ *wire.Call, in *iam.DetachUserPolicyInput) (string, []string) { return policyKey(in.PolicyArn) },
			func(c *wire.Call, in *iam.DetachUserPolicyInput) (string, []string) {
				return a.boundaryKey(User, c, in.UserName)
			}),
		handle("DetachGroupPolicy", func(c C, in *iam.DetachGroupPolicyInput) (*iam.DetachGroupPolicyOutput, error) {
			return &iam.DetachGroupPolicyOutput{}, a.detach(c, Group, in.GroupName, in.PolicyArn)
		}, func(c *wire.Call, in *iam.DetachGroupPolicyInput) string { return a.resource(Group, c, in.GroupName) }, wire.Members{Performed: "PolicyArn GroupName"},
			func(_ *wire.Call, in *iam.DetachGroupPolicyInput) (string, []string) { return policyKey(in.PolicyArn) }),
		handle("ListAttachedRolePolicies", func(c C, in *iam.ListAttachedRolePoliciesInput) (*iam.ListAttachedRolePoliciesOutput, error) {
			list, next, more, err := a.attached(c, Role, in.RoleName, in.PathPrefix, in.Marker, in.MaxItems)
			return &iam.ListAttachedRolePoliciesOutput{AttachedPolicies: list, Marker: next, IsTruncated: more}, err
		}, func(c *wire.Call, in *iam.ListAttachedRolePoliciesInput) string {
			return a.resource(Role, c, in.RoleName)
		}, wire.Members{Performed: "RoleName Marker MaxItems PathPrefix"}),
		handle("ListAttachedUserPolicies", func(c C, in *iam.ListAttachedUserPoliciesInput) (*iam.ListAttachedUserPoliciesOutput, error) {
			list, next, more, err := a.attached(c, User, in.UserName, in.PathPrefix, in.Marker, in.MaxItems)
			return &iam.ListAttachedUserPoliciesOutput{AttachedPolicies: list, Marker: next, IsTruncated: more}, err
		}, func(c *wire.Call, in *iam.ListAttachedUserPoliciesInput) string {
			return a.resource(User, c, in.UserName)
		}, wire.Members{Performed: "UserName Marker MaxItems PathPrefix"}),
		handle("ListAttachedGroupPolicies", func(c C, in *iam.ListAttachedGroupPoliciesInput) (*iam.ListAttachedGroupPoliciesOutput, error) {
			list, next, more, err := a.attached(c, Group, in.GroupName, in.PathPrefix, in.Marker, in.MaxItems)
			return &iam.ListAttachedGroupPoliciesOutput{AttachedPolicies: list, Marker: next, IsTruncated: more}, err
		}, func(c *wire.Call, in *iam.ListAttachedGroupPoliciesInput) string {
			return a.resource(Group, c, in.GroupName)
		}, wire.Members{Performed: "GroupName Marker MaxItems PathPrefix"}),

		handle("PutRolePolicy", func(c C, in *iam.PutRolePolicyInput) (*iam.PutRolePolicyOutput, error) {
			return &iam.PutRolePolicyOutput{}, a.putInline(c, Role, in.RoleName, in.PolicyName, in.PolicyDocument)
		}, func(c *wire.Call, in *iam.PutRolePolicyInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "PolicyDocument PolicyName RoleName"},
			func(c *wire.Call, in *iam.PutRolePolicyInput) (string, []string) {
				return a.boundaryKey(Role, c, in.RoleName)
			}),
		handle("PutUserPolicy", func(c C, in *iam.PutUserPolicyInput) (*iam.PutUserPolicyOutput, error) {
			return &iam.PutUserPolicyOutput{}, a.putInline(c, User, in.UserName, in.PolicyName, in.PolicyDocument)
		}, func(c *wire.Call, in *iam.PutUserPolicyInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "PolicyDocument PolicyName UserName"},
			func(c *wire.Call, in *iam.PutUserPolicyInput) (string, []string) {
				return a.boundaryKey(User, c, in.UserName)
			}),
		handle("PutGroupPolicy", func(c C, in *iam.PutGroupPolicyInput) (*iam.PutGroupPolicyOutput, error) {
			return &iam.PutGroupPolicyOutput{}, a.putInline(c, Group, in.GroupName, in.PolicyName, in.PolicyDocument)
		}, func(c *wire.Call, in *iam.PutGroupPolicyInput) string { return a.resource(Group, c, in.GroupName) }, wire.Members{Performed: "PolicyDocument PolicyName GroupName"}),
		handle("GetRolePolicy", func(c C, in *iam.GetRolePolicyInput) (*iam.GetRolePolicyOutput, error) {
			d, err := a.inline(c, Role, in.RoleName, in.PolicyName)
			return &iam.GetRolePolicyOutput{RoleName: in.RoleName, PolicyName: in.PolicyName, PolicyDocument: d}, err
		}, func(c *wire.Call, in *iam.GetRolePolicyInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "PolicyName RoleName"}),
		handle("GetUserPolicy", func(c C, in *iam.GetUserPolicyInput) (*iam.GetUserPolicyOutput, error) {
			d, err := a.inline(c, User, in.UserName, in.PolicyName)
			return &iam.GetUserPolicyOutput{UserName: in.UserName, PolicyName: in.PolicyName, PolicyDocument: d}, err
		}, func(c *wire.Call, in *iam.GetUserPolicyInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "PolicyName UserName"}),
		handle("GetGroupPolicy", func(c C, in *iam.GetGroupPolicyInput) (*iam.GetGroupPolicyOutput, error) {
			d, err := a.inline(c, Group, in.GroupName, in.PolicyName)
			return &iam.GetGroupPolicyOutput{GroupName: in.GroupName, PolicyName: in.PolicyName, PolicyDocument: d}, err
		}, func(c *wire.Call, in *iam.GetGroupPolicyInput) string { return a.resource(Group, c, in.GroupName) }, wire.Members{Performed: "PolicyName GroupName"}),
		handle("DeleteRolePolicy", func(c C, in *iam.DeleteRolePolicyInput) (*iam.DeleteRolePolicyOutput, error) {
			return &iam.DeleteRolePolicyOutput{}, a.deleteInline(c, Role, in.RoleName, in.PolicyName)
		}, func(c *wire.Call, in *iam.DeleteRolePolicyInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "PolicyName RoleName"},
			func(c *wire.Call, in *iam.DeleteRolePolicyInput) (string, []string) {
				return a.boundaryKey(Role, c, in.RoleName)
			}),
		handle("DeleteUserPolicy", func(c C, in *iam.DeleteUserPolicyInput) (*iam.DeleteUserPolicyOutput, error) {
			return &iam.DeleteUserPolicyOutput{}, a.deleteInline(c, User, in.UserName, in.PolicyName)
		}, func(c *wire.Call, in *iam.DeleteUserPolicyInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "PolicyName UserName"},
			func(c *wire.Call, in *iam.DeleteUserPolicyInput) (string, []string) {
				return a.boundaryKey(User, c, in.UserName)
			}),
		handle("DeleteGroupPolicy", func(c C, in *iam.DeleteGroupPolicyInput) (*iam.DeleteGroupPolicyOutput, error) {
			return &iam.DeleteGroupPolicyOutput{}, a.deleteInline(c, Group, in.GroupName, in.PolicyName)
		}, func(c *wire.Call, in *iam.DeleteGroupPolicyInput) string { return a.resource(Group, c, in.GroupName) }, wire.Members{Performed: "PolicyName GroupName"}),
		handle("ListRolePolicies", func(c C, in *iam.ListRolePoliciesInput) (*iam.ListRolePoliciesOutput, error) {
			names, next, more, err := a.inlineNames(c, Role, in.RoleName, in.Marker, in.MaxItems)
			return &iam.ListRolePoliciesOutput{PolicyNames: names, Marker: next, IsTruncated: more}, err
		}, func(c *wire.Call, in *iam.ListRolePoliciesInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "RoleName Marker MaxItems"}),
		handle("ListUserPolicies", func(c C, in *iam.ListUserPoliciesInput) (*iam.ListUserPoliciesOutput, error) {
			names, next, more, err := a.inlineNames(c, User, in.UserName, in.Marker, in.MaxItems)
			return &iam.ListUserPoliciesOutput{PolicyNames: names, Marker: next, IsTruncated: more}, err
		}, func(c *wire.Call, in *iam.ListUserPoliciesInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "UserName Marker MaxItems"}),
		handle("ListGroupPolicies", func(c C, in *iam.ListGroupPoliciesInput) (*iam.ListGroupPoliciesOutput, error) {
			names, next, more, err := a.inlineNames(c, Group, in.GroupName, in.Marker, in.MaxItems)
			return &iam.ListGroupPoliciesOutput{PolicyNames: names, Marker: next, IsTruncated: more}, err
		}, func(c *wire.Call, in *iam.ListGroupPoliciesInput) string { return a.resource(Group, c, in.GroupName) }, wire.Members{Performed: "GroupName Marker MaxItems"}),

		handle("PutRolePermissionsBoundary", func(c C, in *iam.PutRolePermissionsBoundaryInput) (*iam.PutRolePermissionsBoundaryOutput, error) {
			return &iam.PutRolePermissionsBoundaryOutput{}, a.setBoundary(c, Role, in.RoleName, aws.ToString(in.PermissionsBoundary))
		}, func(c *wire.Call, in *iam.PutRolePermissionsBoundaryInput) string {
			return a.resource(Role, c, in.RoleName)
		}, wire.Members{Performed: "PermissionsBoundary RoleName"},
			func(_ *wire.Call, in *iam.PutRolePermissionsBoundaryInput) (string, []string) {
				return "iam:PermissionsBoundary", []string{aws.ToString(in.PermissionsBoundary)}
			}),
		handle("PutUserPermissionsBoundary", func(c C, in *iam.PutUserPermissionsBoundaryInput) (*iam.PutUserPermissionsBoundaryOutput, error) {
			return &iam.PutUserPermissionsBoundaryOutput{}, a.setBoundary(c, User, in.UserName, aws.ToString(in.PermissionsBoundary))
		}, func(c *wire.Call, in *iam.PutUserPermissionsBoundaryInput) string {
			return a.resource(User, c, in.UserName)
		}, wire.Members{Performed: "PermissionsBoundary UserName"},
			func(_ *wire.Call, in *iam.PutUserPermissionsBoundaryInput) (string, []string) {
				return "iam:PermissionsBoundary", []string{aws.ToString(in.PermissionsBoundary)}
			}),
		handle("DeleteRolePermissionsBoundary", func(c C, in *iam.DeleteRolePermissionsBoundaryInput) (*iam.DeleteRolePermissionsBoundaryOutput, error) {
			return &iam.DeleteRolePermissionsBoundaryOutput{}, a.setBoundary(c, Role, in.RoleName, "")
		}, func(c *wire.Call, in *iam.DeleteRolePermissionsBoundaryInput) string {
			return a.resource(Role, c, in.RoleName)
		}, wire.Members{Performed: "RoleName"},
			func(c *wire.Call, in *iam.DeleteRolePermissionsBoundaryInput) (string, []string) {
				return a.boundaryKey(Role, c, in.RoleName)
			}),
		handle("DeleteUserPermissionsBoundary", func(c C, in *iam.DeleteUserPermissionsBoundaryInput) (*iam.DeleteUserPermissionsBoundaryOutput, error) {
			return &iam.DeleteUserPermissionsBoundaryOutput{}, a.setBoundary(c, User, in.UserName, "")
		}, func(c *wire.Call, in *iam.DeleteUserPermissionsBoundaryInput) string {
			return a.resource(User, c, in.UserName)
		}, wire.Members{Performed: "UserName"},
			func(c *wire.Call, in *iam.DeleteUserPermissionsBoundaryInput) (string, []string) {
				return a.boundaryKey(User, c, in.UserName)
			}),

		handle("TagRole", func(c C, in *iam.TagRoleInput) (*iam.TagRoleOutput, error) {
			return &iam.TagRoleOutput{}, a.tagEntity(c, Role, in.RoleName, in.Tags)
		}, func(c *wire.Call, in *iam.TagRoleInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "RoleName Tags"}),
		handle("TagUser", func(c C, in *iam.TagUserInput) (*iam.TagUserOutput, error) {
			return &iam.TagUserOutput{}, a.tagEntity(c, User, in.UserName, in.Tags)
		}, func(c *wire.Call, in *iam.TagUserInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "UserName Tags"}),
		handle("UntagRole", func(c C, in *iam.UntagRoleInput) (*iam.UntagRoleOutput, error) {
			return &iam.UntagRoleOutput{}, a.untagEntity(c, Role, in.RoleName, in.TagKeys)
		}, func(c *wire.Call, in *iam.UntagRoleInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "RoleName TagKeys"}),
		handle("UntagUser", func(c C, in *iam.UntagUserInput) (*iam.UntagUserOutput, error) {
			return &iam.UntagUserOutput{}, a.untagEntity(c, User, in.UserName, in.TagKeys)
		}, func(c *wire.Call, in *iam.UntagUserInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "UserName TagKeys"}),
		handle("ListRoleTags", func(c C, in *iam.ListRoleTagsInput) (*iam.ListRoleTagsOutput, error) {
			list, next, more, err := a.entityTags(c, Role, in.RoleName, in.Marker, in.MaxItems)
			return &iam.ListRoleTagsOutput{Tags: list, Marker: next, IsTruncated: more}, err
		}, func(c *wire.Call, in *iam.ListRoleTagsInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "RoleName Marker MaxItems"}),
		handle("ListUserTags", func(c C, in *iam.ListUserTagsInput) (*iam.ListUserTagsOutput, error) {
			list, next, more, err := a.entityTags(c, User, in.UserName, in.Marker, in.MaxItems)
			return &iam.ListUserTagsOutput{Tags: list, Marker: next, IsTruncated: more}, err
		}, func(c *wire.Call, in *iam.ListUserTagsInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "UserName Marker MaxItems"}),
	}
}

func policyKey(policyARN *string) (string, []string) {
	return "iam:PolicyARN", []string{aws.ToString(policyARN)}
}

// boundaryKey is the boundary that an entity has.
func (a *API) boundaryKey(k Kind, c *wire.Call, name *string) (string, []string) {
	var values []string
	a.store.View(func(tx *store.Tx) {
		if e, err := a.get(tx, c.Scope.Account, k, name); err == nil && e.Boundary != "" {
			values = []string{e.Boundary}
		}
	})
	return "iam:PermissionsBoundary", values
}
