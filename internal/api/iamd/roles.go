package iamd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/id"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

var roleName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)

func (a *API) roleOps() []*wire.Op {
	byName := func(c *wire.Call, name *string) string {
		if p, ok := a.Role(c.Scope.Account, aws.ToString(name)); ok {
			return p.ARN
		}
		return scopeOf(c).For("iam", "role/"+aws.ToString(name)).String()
	}
	return []*wire.Op{
		wire.Handle("CreateRole", a.CreateRole, func(c *wire.Call, in *iam.CreateRoleInput) []wire.Check {
			path, _ := cleanPath(in.Path)
			return []wire.Check{{Action: "iam:CreateRole", Resource: scopeOf(c).For("iam", "role"+path+aws.ToString(in.RoleName)).String()}}
		}, wire.Members{Performed: "AssumeRolePolicyDocument RoleName MaxSessionDuration Path", Recorded: "Description Tags", Refused: "PermissionsBoundary"}),
		wire.Handle("GetRole", a.GetRole, on("GetRole", func(c *wire.Call, in *iam.GetRoleInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "RoleName"}),
		wire.Handle("ListRoles", a.ListRoles, on("ListRoles", func(c *wire.Call, in *iam.ListRolesInput) string { return scopeOf(c).For("iam", "role/").String() }),
			wire.Members{Performed: "Marker MaxItems PathPrefix"}),
		wire.Handle("DeleteRole", a.DeleteRole, on("DeleteRole", func(c *wire.Call, in *iam.DeleteRoleInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "RoleName"}),
		wire.Handle("UpdateAssumeRolePolicy", a.UpdateAssumeRolePolicy, on("UpdateAssumeRolePolicy", func(c *wire.Call, in *iam.UpdateAssumeRolePolicyInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "PolicyDocument RoleName"}),
		wire.Handle("AttachRolePolicy", a.AttachRolePolicy, func(c *wire.Call, in *iam.AttachRolePolicyInput) []wire.Check {
			return []wire.Check{{Action: "iam:AttachRolePolicy", Resource: byName(c, in.RoleName), Context: map[string][]string{"iam:PolicyARN": {aws.ToString(in.PolicyArn)}}}}
		}, wire.Members{Performed: "PolicyArn RoleName"}),
		wire.Handle("DetachRolePolicy", a.DetachRolePolicy, on("DetachRolePolicy", func(c *wire.Call, in *iam.DetachRolePolicyInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "PolicyArn RoleName"}),
		wire.Handle("ListAttachedRolePolicies", a.ListAttachedRolePolicies, on("ListAttachedRolePolicies", func(c *wire.Call, in *iam.ListAttachedRolePoliciesInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "RoleName Marker MaxItems PathPrefix"}),
		wire.Handle("PutRolePolicy", a.PutRolePolicy, on("PutRolePolicy", func(c *wire.Call, in *iam.PutRolePolicyInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "PolicyDocument PolicyName RoleName"}),
		wire.Handle("GetRolePolicy", a.GetRolePolicy, on("GetRolePolicy", func(c *wire.Call, in *iam.GetRolePolicyInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "PolicyName RoleName"}),
		wire.Handle("DeleteRolePolicy", a.DeleteRolePolicy, on("DeleteRolePolicy", func(c *wire.Call, in *iam.DeleteRolePolicyInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "PolicyName RoleName"}),
		wire.Handle("ListRolePolicies", a.ListRolePolicies, on("ListRolePolicies", func(c *wire.Call, in *iam.ListRolePoliciesInput) string { return byName(c, in.RoleName) }),
			wire.Members{Performed: "RoleName Marker MaxItems"}),
	}
}

// CreateRole makes a role that trusts whom its document names.
func (a *API) CreateRole(ctx context.Context, in *iam.CreateRoleInput) (*iam.CreateRoleOutput, error) {
	call := wire.From(ctx)
	name := aws.ToString(in.RoleName)
	if !roleName.MatchString(name) {
		return nil, validation(`1 validation error detected: Value '%s' at 'roleName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]+ and have length between 1 and 64`, name)
	}
	path, err := cleanPath(in.Path)
	if err != nil {
		return nil, err
	}
	if err := checkTrust(in.AssumeRolePolicyDocument); err != nil {
		return nil, err
	}
	max := int32(3600)
	if in.MaxSessionDuration != nil {
		if max = *in.MaxSessionDuration; max < 3600 || max > 43200 {
			bound, value := "greater than or equal to", 3600
			if max > 43200 {
				bound, value = "less than or equal to", 43200
			}
			return nil, validation("1 validation error detected: Value '%d' at 'maxSessionDuration' failed to satisfy constraint: Member must have value %s %d", max, bound, value)
		}
	}
	r := role{
		Name: name, ID: id.Unique("AROA"), Path: path, Description: aws.ToString(in.Description),
		ARN:   scopeOf(call).For("iam", "role"+path+name).String(),
		Trust: aws.ToString(in.AssumeRolePolicyDocument), MaxSession: max, Created: time.Now().UTC(), Tags: tagsIn(in.Tags),
	}
	err = a.store.Update(func(tx *store.Tx) error {
		key := scopeOf(call).Key(name)
		if _, ok := a.roles.Get(tx, key); ok {
			return &types.EntityAlreadyExistsException{Message: new("Role with name " + name + " already exists.")}
		}
		a.roles.Put(tx, key, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iam.CreateRoleOutput{Role: roleView(r)}, nil
}

// trustQuota is the default length of a trust policy, white space not counted.
const trustQuota = 2048

func checkTrust(document *string) error {
	d, err := policy.Parse(aws.ToString(document), policy.Trust)
	if err == nil {
		err = d.CheckTenancy()
	}
	if err != nil {
		return &types.MalformedPolicyDocumentException{Message: new(err.Error())}
	}
	if len(strings.Join(strings.Fields(aws.ToString(document)), "")) > trustQuota {
		return &types.LimitExceededException{Message: new(fmt.Sprintf("Cannot exceed quota for ACLSizePerRole: %d", trustQuota))}
	}
	return nil
}

func roleView(r role) *types.Role {
	return &types.Role{
		Arn: new(r.ARN), CreateDate: new(r.Created), Path: new(r.Path), RoleId: new(r.ID), RoleName: new(r.Name),
		AssumeRolePolicyDocument: new(encodeDocument(r.Trust)), Description: optional(r.Description),
		MaxSessionDuration: new(r.MaxSession), Tags: tagsOut(r.Tags),
	}
}

// encodeDocument is a document as IAM returns it: percent-encoded per RFC 3986.
func encodeDocument(d string) string { return strings.ReplaceAll(url.QueryEscape(d), "+", "%20") }

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// view reads one role.
func (a *API) view(ctx context.Context, name *string) (role, error) {
	var r role
	var ok bool
	a.store.View(func(tx *store.Tx) { r, ok = a.roles.Get(tx, scopeOf(wire.From(ctx)).Key(aws.ToString(name))) })
	if !ok {
		return r, noSuch("role", aws.ToString(name))
	}
	return r, nil
}

// change replaces one role by what fn makes of it; fn must not alter what the
// row it is given points to.
func (a *API) change(ctx context.Context, name *string, fn func(*store.Tx, *role) error) error {
	key := scopeOf(wire.From(ctx)).Key(aws.ToString(name))
	return a.store.Update(func(tx *store.Tx) error {
		r, ok := a.roles.Get(tx, key)
		if !ok {
			return noSuch("role", aws.ToString(name))
		}
		if err := fn(tx, &r); err != nil {
			return err
		}
		a.roles.Put(tx, key, r)
		return nil
	})
}

// GetRole describes a role.
func (a *API) GetRole(ctx context.Context, in *iam.GetRoleInput) (*iam.GetRoleOutput, error) {
	r, err := a.view(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	return &iam.GetRoleOutput{Role: roleView(r)}, nil
}

// ListRoles pages through the account's roles.
func (a *API) ListRoles(ctx context.Context, in *iam.ListRolesInput) (*iam.ListRolesOutput, error) {
	var rows []role
	a.store.View(func(tx *store.Tx) {
		for _, r := range a.roles.Scan(tx, scopeOf(wire.From(ctx)).Key("")) {
			if strings.HasPrefix(r.Path, aws.ToString(in.PathPrefix)) {
				rows = append(rows, r)
			}
		}
	})
	rows, marker, more, err := page(rows, func(r role) string { return r.Name }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	out := &iam.ListRolesOutput{IsTruncated: more, Marker: marker, Roles: []types.Role{}}
	for _, r := range rows {
		out.Roles = append(out.Roles, *roleView(r))
	}
	return out, nil
}

// DeleteRole removes a role that has no policies left.
func (a *API) DeleteRole(ctx context.Context, in *iam.DeleteRoleInput) (*iam.DeleteRoleOutput, error) {
	key := scopeOf(wire.From(ctx)).Key(aws.ToString(in.RoleName))
	err := a.store.Update(func(tx *store.Tx) error {
		r, ok := a.roles.Get(tx, key)
		if !ok {
			return noSuch("role", aws.ToString(in.RoleName))
		}
		if len(r.Inline) > 0 {
			return &types.DeleteConflictException{Message: new("Cannot delete entity, must delete policies first.")}
		}
		if len(r.Attached) > 0 {
			return &types.DeleteConflictException{Message: new("Cannot delete entity, must detach all policies first.")}
		}
		a.roles.Delete(tx, key)
		return nil
	})
	return &iam.DeleteRoleOutput{}, err
}

// UpdateAssumeRolePolicy replaces a role's trust policy.
func (a *API) UpdateAssumeRolePolicy(ctx context.Context, in *iam.UpdateAssumeRolePolicyInput) (*iam.UpdateAssumeRolePolicyOutput, error) {
	if err := checkTrust(in.PolicyDocument); err != nil {
		return nil, err
	}
	return &iam.UpdateAssumeRolePolicyOutput{}, a.change(ctx, in.RoleName, func(_ *store.Tx, r *role) error {
		r.Trust = aws.ToString(in.PolicyDocument)
		return nil
	})
}

// AttachRolePolicy attaches a managed policy; twice is once.
func (a *API) AttachRolePolicy(ctx context.Context, in *iam.AttachRolePolicyInput) (*iam.AttachRolePolicyOutput, error) {
	policyARN := aws.ToString(in.PolicyArn)
	account := wire.From(ctx).Scope.Account
	return &iam.AttachRolePolicyOutput{}, a.change(ctx, in.RoleName, func(tx *store.Tx, r *role) error {
		if _, ok := a.managedDocument(tx, account, policyARN); !ok {
			return &types.NoSuchEntityException{Message: new("Policy " + policyARN + " does not exist or is not attachable.")}
		}
		if slices.Contains(r.Attached, policyARN) {
			return nil
		}
		if len(r.Attached) >= 10 {
			return &types.LimitExceededException{Message: new("Cannot exceed quota for PoliciesPerRole: 10")}
		}
		r.Attached = append(slices.Clone(r.Attached), policyARN)
		return nil
	})
}

// DetachRolePolicy detaches a managed policy.
func (a *API) DetachRolePolicy(ctx context.Context, in *iam.DetachRolePolicyInput) (*iam.DetachRolePolicyOutput, error) {
	return &iam.DetachRolePolicyOutput{}, a.change(ctx, in.RoleName, func(_ *store.Tx, r *role) error {
		i := slices.Index(r.Attached, aws.ToString(in.PolicyArn))
		if i < 0 {
			return &types.NoSuchEntityException{Message: new("Policy " + aws.ToString(in.PolicyArn) + " was not found.")}
		}
		r.Attached = slices.Delete(slices.Clone(r.Attached), i, i+1)
		return nil
	})
}

// ListAttachedRolePolicies pages through a role's managed policies.
func (a *API) ListAttachedRolePolicies(ctx context.Context, in *iam.ListAttachedRolePoliciesInput) (*iam.ListAttachedRolePoliciesOutput, error) {
	r, err := a.view(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	var list []types.AttachedPolicy
	for _, attached := range r.Attached {
		path, name := splitPolicyARN(attached)
		if strings.HasPrefix(path, aws.ToString(in.PathPrefix)) {
			list = append(list, types.AttachedPolicy{PolicyArn: new(attached), PolicyName: new(name)})
		}
	}
	list, marker, more, err := page(list, func(p types.AttachedPolicy) string { return *p.PolicyArn }, in.Marker, in.MaxItems)
	return &iam.ListAttachedRolePoliciesOutput{AttachedPolicies: list, Marker: marker, IsTruncated: more}, err
}

// PutRolePolicy writes an inline policy.
func (a *API) PutRolePolicy(ctx context.Context, in *iam.PutRolePolicyInput) (*iam.PutRolePolicyOutput, error) {
	if !roleName.MatchString(aws.ToString(in.PolicyName)) && len(aws.ToString(in.PolicyName)) <= 128 {
		return nil, validation("1 validation error detected: Value '%s' at 'policyName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]+", aws.ToString(in.PolicyName))
	}
	if err := checkIdentity(in.PolicyDocument); err != nil {
		return nil, err
	}
	return &iam.PutRolePolicyOutput{}, a.change(ctx, in.RoleName, func(_ *store.Tx, r *role) error {
		inline, total := map[string]string{}, 0
		for k, v := range r.Inline {
			inline[k] = v
		}
		inline[aws.ToString(in.PolicyName)] = aws.ToString(in.PolicyDocument)
		for _, v := range inline {
			total += len(strings.Join(strings.Fields(v), ""))
		}
		if total > 10240 {
			return &types.LimitExceededException{Message: new("Maximum policy size of 10240 bytes exceeded for role " + r.Name)}
		}
		r.Inline = inline
		return nil
	})
}

func checkIdentity(document *string) error {
	if _, err := policy.Parse(aws.ToString(document), policy.Identity); err != nil {
		if _, ok := errors.AsType[*policy.SyntaxError](err); ok {
			return &types.MalformedPolicyDocumentException{Message: new(err.Error())}
		}
		return err
	}
	return nil
}

// GetRolePolicy reads an inline policy.
func (a *API) GetRolePolicy(ctx context.Context, in *iam.GetRolePolicyInput) (*iam.GetRolePolicyOutput, error) {
	r, err := a.view(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	document, ok := r.Inline[aws.ToString(in.PolicyName)]
	if !ok {
		return nil, noSuch("role policy", aws.ToString(in.PolicyName))
	}
	return &iam.GetRolePolicyOutput{RoleName: new(r.Name), PolicyName: in.PolicyName, PolicyDocument: new(encodeDocument(document))}, nil
}

// DeleteRolePolicy removes an inline policy.
func (a *API) DeleteRolePolicy(ctx context.Context, in *iam.DeleteRolePolicyInput) (*iam.DeleteRolePolicyOutput, error) {
	return &iam.DeleteRolePolicyOutput{}, a.change(ctx, in.RoleName, func(_ *store.Tx, r *role) error {
		if _, ok := r.Inline[aws.ToString(in.PolicyName)]; !ok {
			return noSuch("role policy", aws.ToString(in.PolicyName))
		}
		inline := map[string]string{}
		for k, v := range r.Inline {
			if k != aws.ToString(in.PolicyName) {
				inline[k] = v
			}
		}
		r.Inline = inline
		return nil
	})
}

// ListRolePolicies pages through the names of a role's inline policies.
func (a *API) ListRolePolicies(ctx context.Context, in *iam.ListRolePoliciesInput) (*iam.ListRolePoliciesOutput, error) {
	r, err := a.view(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(r.Inline))
	for name := range r.Inline {
		names = append(names, name)
	}
	names, marker, more, err := page(names, func(s string) string { return s }, in.Marker, in.MaxItems)
	return &iam.ListRolePoliciesOutput{PolicyNames: names, Marker: marker, IsTruncated: more}, err
}
