package iamd

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

// Kind is what an entity is.
type Kind string

const (
	Role  Kind = "role"
	User  Kind = "user"
	Group Kind = "group"
)

// kinds is what differs between them. Quotas are the defaults, documented:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
var kinds = map[Kind]struct {
	title       string
	longest     int    // characters of a name
	quotaName   string // of attached policies
	inlineQuota int    // characters of all inline policies, white space not counted
}{
	Role:  {"Role", 64, "PoliciesPerRole", 10240},
	User:  {"User", 64, "PoliciesPerUser", 2048},
	Group: {"Group", 128, "PoliciesPerGroup", 5120},
}

const mostAttached = 10

// entity is a user, a group or a role.
type entity struct {
	Kind           Kind
	Name, ID, Path string
	ARN            string
	Created        time.Time
	Inline         map[string]string // policy name → document
	Attached       []string          // managed policy ARNs, in the order of attaching
	Boundary       string            // managed policy ARN
	Groups         []string          // of a user

	// Of a role.
	Trust       string
	Description string
	MaxSession  int32  // seconds
	Service     string // whose service-linked role it is
}

// key is a row's key. Names differ by more than case, documented, so the key is
// in lower case.
func (k Kind) key(account, name string) string {
	return global(account).Key(string(k) + "/" + strings.ToLower(name))
}

// renamed is the ARN that an entity would have with another name or path: whoever
// renames needs the permission on both, documented.
func (a *API) renamed(k Kind, c *wire.Call, name, newName, newPath *string) string {
	p, ok := a.principal(k, c.Scope.Account, aws.ToString(name))
	if newPath == nil && ok {
		newPath = &p.Path
	}
	return newARN(k, c, newPath, cmp.Or(newName, name))
}

// resource is the ARN that an operation on a named entity is checked against.
func (a *API) resource(k Kind, c *wire.Call, name *string) string {
	if p, ok := a.principal(k, c.Scope.Account, aws.ToString(name)); ok {
		return p.ARN
	}
	return newARN(k, c, nil, name)
}

// newARN is the ARN of an entity that is about to be made.
func newARN(k Kind, c *wire.Call, path, name *string) string {
	p := aws.ToString(path)
	if p == "" {
		p = "/"
	}
	return global(c.Scope.Account).For("iam", string(k)+p+aws.ToString(name)).String()
}

// get reads one entity.
func (a *API) get(tx *store.Tx, account string, k Kind, name *string) (entity, error) {
	e, ok := a.entities.Get(tx, k.key(account, aws.ToString(name)))
	if !ok || e.Name != aws.ToString(name) {
		return e, noSuch(string(k), aws.ToString(name))
	}
	return e, nil
}

// view reads one entity and lets fn make an answer of it.
func (a *API) view(ctx context.Context, k Kind, name *string, fn func(*store.Tx, entity) error) (err error) {
	account := wire.From(ctx).Scope.Account
	a.store.View(func(tx *store.Tx) {
		var e entity
		if e, err = a.get(tx, account, k, name); err == nil {
			err = fn(tx, e)
		}
	})
	return err
}

// change replaces one entity by what fn makes of it; fn must not alter what the
// row it is given points to.
func (a *API) change(ctx context.Context, k Kind, name *string, fn func(*store.Tx, *entity) error) error {
	account := wire.From(ctx).Scope.Account
	return a.store.Update(func(tx *store.Tx) error {
		e, err := a.get(tx, account, k, name)
		if err != nil {
			return err
		}
		if e.Service != "" {
			return &types.UnmodifiableEntityException{Message: new("Cannot perform the operation on the protected role '" + e.Name + "' - this role is only modifiable by AWS")}
		}
		if err := fn(tx, &e); err != nil {
			return err
		}
		a.entities.Put(tx, k.key(account, e.Name), e)
		return nil
	})
}

// create puts a new entity.
func (a *API) create(tx *store.Tx, account string, e entity) error {
	key := e.Kind.key(account, e.Name)
	if _, ok := a.entities.Get(tx, key); ok {
		return exists("%s with name %s already exists.", kinds[e.Kind].title, e.Name)
	}
	if e.Boundary != "" {
		if err := a.attachable(tx, account, e.Boundary); err != nil {
			return err
		}
	}
	a.entities.Put(tx, key, e)
	return nil
}

// rename gives an entity another name or path; what hangs on its name follows.
func (a *API) rename(tx *store.Tx, account string, e *entity, name, path *string) error {
	old := *e
	if name != nil {
		e.Name = *name
	}
	if path != nil {
		e.Path = *path
	}
	e.ARN = global(account).For("iam", string(e.Kind)+e.Path+e.Name).String()
	if e.Name != old.Name {
		if _, taken := a.entities.Get(tx, e.Kind.key(account, e.Name)); taken && !strings.EqualFold(e.Name, old.Name) {
			return exists("%s with name %s already exists.", kinds[e.Kind].title, e.Name)
		}
		a.entities.Delete(tx, e.Kind.key(account, old.Name))
	}
	a.tags.Set(tx, e.ARN, a.tags.Of(tx, old.ARN))
	if e.ARN != old.ARN {
		a.tags.Set(tx, old.ARN, nil)
	}
	return nil
}

// list is the account's entities of a kind under a path, by name.
func (a *API) list(tx *store.Tx, account string, k Kind, prefix *string) []entity {
	var out []entity
	for _, e := range a.entities.Scan(tx, k.key(account, "")) {
		if strings.HasPrefix(e.Path, aws.ToString(prefix)) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(x, y entity) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// remove deletes an entity on which nothing hangs any more.
func (a *API) remove(tx *store.Tx, account string, e entity) error {
	switch {
	case len(e.Inline) > 0:
		return conflict("Cannot delete entity, must delete policies first.")
	case len(e.Attached) > 0:
		return conflict("Cannot delete entity, must detach all policies first.")
	}
	a.entities.Delete(tx, e.Kind.key(account, e.Name))
	a.tags.Set(tx, e.ARN, nil)
	return nil
}

// encodeDocument is a document as IAM returns it: percent-encoded per RFC 3986.
func encodeDocument(d string) *string {
	return new(strings.ReplaceAll(url.QueryEscape(d), "+", "%20"))
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func boundaryView(e entity) *types.AttachedPermissionsBoundary {
	if e.Boundary == "" {
		return nil
	}
	return &types.AttachedPermissionsBoundary{PermissionsBoundaryArn: new(e.Boundary), PermissionsBoundaryType: types.PermissionsBoundaryAttachmentTypePolicy}
}

// length is a document's length as quotas count it.
func length(document string) int { return len(strings.Join(strings.Fields(document), "")) }

func checkIdentity(document *string) error {
	if _, err := policy.Parse(aws.ToString(document), policy.Identity); err != nil {
		return malformed(err)
	}
	return nil
}

// attachable refuses a managed policy that is not there.
func (a *API) attachable(tx *store.Tx, account, policyARN string) error {
	p, ok := a.managed(tx, account, policyARN)
	if !ok {
		return &types.NoSuchEntityException{Message: new("Policy " + policyARN + " does not exist or is not attachable.")}
	}
	if strings.HasPrefix(p.Path, "/aws-service-role/") {
		return &types.PolicyNotAttachableException{Message: new("Cannot attach a Service Role Policy to a Customer Role.")}
	}
	return nil
}

func (a *API) attach(ctx context.Context, k Kind, name, policyARN *string) error {
	account := wire.From(ctx).Scope.Account
	return a.change(ctx, k, name, func(tx *store.Tx, e *entity) error {
		if err := a.attachable(tx, account, aws.ToString(policyARN)); err != nil {
			return err
		}
		if slices.Contains(e.Attached, *policyARN) { // twice is once
			return nil
		}
		if len(e.Attached) >= mostAttached {
			return limit("Cannot exceed quota for %s: %d", kinds[k].quotaName, mostAttached)
		}
		e.Attached = append(slices.Clone(e.Attached), *policyARN)
		return nil
	})
}

func (a *API) detach(ctx context.Context, k Kind, name, policyARN *string) error {
	return a.change(ctx, k, name, func(_ *store.Tx, e *entity) error {
		i := slices.Index(e.Attached, aws.ToString(policyARN))
		if i < 0 {
			return &types.NoSuchEntityException{Message: new("Policy " + aws.ToString(policyARN) + " was not found.")}
		}
		e.Attached = slices.Delete(slices.Clone(e.Attached), i, i+1)
		return nil
	})
}

func (a *API) attached(ctx context.Context, k Kind, name, prefix, marker *string, max *int32) (list []types.AttachedPolicy, next *string, more bool, err error) {
	err = a.view(ctx, k, name, func(_ *store.Tx, e entity) error {
		list, next, more, err = page(attachedView(e, aws.ToString(prefix)), func(p types.AttachedPolicy) string { return *p.PolicyArn }, marker, max)
		return err
	})
	return list, next, more, err
}

func attachedView(e entity, prefix string) []types.AttachedPolicy {
	list := []types.AttachedPolicy{}
	for _, policyARN := range e.Attached {
		path, name := splitPolicyARN(policyARN)
		if strings.HasPrefix(path, prefix) {
			list = append(list, types.AttachedPolicy{PolicyArn: new(policyARN), PolicyName: new(name)})
		}
	}
	return list
}

func (a *API) putInline(ctx context.Context, k Kind, name, policyName, document *string) error {
	if _, err := checkName("policyName", policyName, 128, nil); err != nil {
		return err
	}
	if err := checkIdentity(document); err != nil {
		return err
	}
	return a.change(ctx, k, name, func(_ *store.Tx, e *entity) error {
		inline, total := map[string]string{}, 0
		maps.Copy(inline, e.Inline)
		inline[*policyName] = aws.ToString(document)
		for _, text := range inline {
			total += length(text)
		}
		if quota := kinds[k].inlineQuota; total > quota {
			return limit("Maximum policy size of %d bytes exceeded for %s %s", quota, k, e.Name)
		}
		e.Inline = inline
		return nil
	})
}

func (a *API) inline(ctx context.Context, k Kind, name, policyName *string) (document *string, err error) {
	return document, a.view(ctx, k, name, func(_ *store.Tx, e entity) error {
		text, ok := e.Inline[aws.ToString(policyName)]
		if !ok {
			return noSuch(string(k)+" policy", aws.ToString(policyName))
		}
		document = encodeDocument(text)
		return nil
	})
}

func (a *API) deleteInline(ctx context.Context, k Kind, name, policyName *string) error {
	return a.change(ctx, k, name, func(_ *store.Tx, e *entity) error {
		if _, ok := e.Inline[aws.ToString(policyName)]; !ok {
			return noSuch(string(k)+" policy", aws.ToString(policyName))
		}
		e.Inline = maps.Clone(e.Inline)
		delete(e.Inline, *policyName)
		return nil
	})
}

func (a *API) inlineNames(ctx context.Context, k Kind, name, marker *string, max *int32) (names []string, next *string, more bool, err error) {
	err = a.view(ctx, k, name, func(_ *store.Tx, e entity) error {
		names, next, more, err = page(slices.Sorted(maps.Keys(e.Inline)), func(s string) string { return s }, marker, max)
		return err
	})
	return names, next, more, err
}

func (a *API) setBoundary(ctx context.Context, k Kind, name *string, policyARN string) error {
	account := wire.From(ctx).Scope.Account
	return a.change(ctx, k, name, func(tx *store.Tx, e *entity) error {
		if policyARN != "" {
			if err := a.attachable(tx, account, policyARN); err != nil {
				return err
			}
		} else if e.Boundary == "" {
			return &types.NoSuchEntityException{Message: new(kinds[k].title + " " + e.Name + " does not have a permissions boundary.")}
		}
		e.Boundary = policyARN
		return nil
	})
}

func (a *API) tagEntity(ctx context.Context, k Kind, name *string, in []types.Tag) error {
	list, err := tagsIn(in)
	if err != nil {
		return err
	}
	return a.change(ctx, k, name, func(tx *store.Tx, e *entity) error { return tagError(a.tags.Add(tx, e.ARN, list)) })
}

func (a *API) untagEntity(ctx context.Context, k Kind, name *string, keys []string) error {
	return a.change(ctx, k, name, func(tx *store.Tx, e *entity) error {
		a.tags.Remove(tx, e.ARN, keys)
		return nil
	})
}

func (a *API) entityTags(ctx context.Context, k Kind, name, marker *string, max *int32) (list []types.Tag, next *string, more bool, err error) {
	err = a.view(ctx, k, name, func(tx *store.Tx, e entity) error {
		list, next, more, err = a.tagList(tx, e.ARN, marker, max)
		return err
	})
	return list, next, more, err
}

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
