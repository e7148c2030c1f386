package iamd

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) roleOps() []*wire.Op {
	boundary := func(_ *wire.Call, in *iam.CreateRoleInput) (string, []string) {
		if in.PermissionsBoundary == nil {
			return "", nil
		}
		return "iam:PermissionsBoundary", []string{*in.PermissionsBoundary}
	}
	return []*wire.Op{
		withTags(handle("CreateRole", a.CreateRole, func(c *wire.Call, in *iam.CreateRoleInput) string { return newARN(Role, c, in.Path, in.RoleName) },
			wire.Members{Performed: "AssumeRolePolicyDocument RoleName MaxSessionDuration Path PermissionsBoundary Tags", Recorded: "Description"}, boundary), "TagRole", func(in *iam.CreateRoleInput) []types.Tag { return in.Tags }),
		handle("GetRole", a.GetRole, func(c *wire.Call, in *iam.GetRoleInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "RoleName"}),
		handle("ListRoles", a.ListRoles, func(c *wire.Call, in *iam.ListRolesInput) string { return newARN(Role, c, in.PathPrefix, nil) },
			wire.Members{Performed: "Marker MaxItems PathPrefix"}),
		handle("UpdateRole", a.UpdateRole, func(c *wire.Call, in *iam.UpdateRoleInput) string { return a.resource(Role, c, in.RoleName) },
			wire.Members{Performed: "RoleName MaxSessionDuration", Recorded: "Description"}),
		handle("UpdateRoleDescription", a.UpdateRoleDescription, func(c *wire.Call, in *iam.UpdateRoleDescriptionInput) string { return a.resource(Role, c, in.RoleName) },
			wire.Members{Performed: "RoleName", Recorded: "Description"}),
		handle("UpdateAssumeRolePolicy", a.UpdateAssumeRolePolicy, func(c *wire.Call, in *iam.UpdateAssumeRolePolicyInput) string {
			return a.resource(Role, c, in.RoleName)
		},
			wire.Members{Performed: "PolicyDocument RoleName"}),
		handle("DeleteRole", a.DeleteRole, func(c *wire.Call, in *iam.DeleteRoleInput) string { return a.resource(Role, c, in.RoleName) }, wire.Members{Performed: "RoleName"}),
		handle("CreateServiceLinkedRole", a.CreateServiceLinkedRole, func(c *wire.Call, in *iam.CreateServiceLinkedRoleInput) string {
			_, path, name := linkedRole(aws.ToString(in.AWSServiceName))
			return newARN(Role, c, &path, &name)
		}, wire.Members{Performed: "AWSServiceName", Recorded: "Description", Refused: "CustomSuffix"},
			func(_ *wire.Call, in *iam.CreateServiceLinkedRoleInput) (string, []string) {
				return "iam:AWSServiceName", []string{aws.ToString(in.AWSServiceName)}
			}),
		handle("DeleteServiceLinkedRole", a.DeleteServiceLinkedRole, func(c *wire.Call, in *iam.DeleteServiceLinkedRoleInput) string {
			return a.resource(Role, c, in.RoleName)
		},
			wire.Members{Performed: "RoleName"}),
		handle("GetServiceLinkedRoleDeletionStatus", a.GetServiceLinkedRoleDeletionStatus, all[iam.GetServiceLinkedRoleDeletionStatusInput], wire.Members{Performed: "DeletionTaskId"}),
	}
}

// CreateRole makes a role that trusts whom its document names.
func (a *API) CreateRole(ctx context.Context, in *iam.CreateRoleInput) (*iam.CreateRoleOutput, error) {
	account := wire.From(ctx).Scope.Account
	path, err := checkName("roleName", in.RoleName, kinds[Role].longest, in.Path)
	if err != nil {
		return nil, err
	}
	if err := checkRole(in.Description, in.MaxSessionDuration); err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	e := entity{
		Kind: Role, Name: *in.RoleName, ID: id.Unique("AROA"), Path: path, Description: aws.ToString(in.Description), Boundary: aws.ToString(in.PermissionsBoundary),
		ARN: global(account).For("iam", "role"+path+*in.RoleName).String(), Trust: aws.ToString(in.AssumeRolePolicyDocument), MaxSession: 3600, Created: time.Now().UTC(),
	}
	if in.MaxSessionDuration != nil {
		e.MaxSession = *in.MaxSessionDuration
	}
	out := &iam.CreateRoleOutput{}
	err = a.store.Update(func(tx *store.Tx) error {
		if err := a.checkTrust(tx, account, in.AssumeRolePolicyDocument); err != nil {
			return err
		}
		if err := a.create(tx, account, e); err != nil {
			return err
		}
		a.tags.Set(tx, e.ARN, labels)
		out.Role = a.roleView(tx, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func checkRole(description *string, maxSession *int32) error {
	var c wire.Constraints
	c.Length("description", description, 0, 1000)
	c.Range("maxSessionDuration", maxSession, 3600, 43200)
	return c.Err()
}

// trustQuota is the default length of a trust policy, white space not counted.
const trustQuota = 2048

// checkTrust refuses a trust policy that IAM would refuse: its form, tenants of
// shared issuers that it does not tell apart, principals that are not there.
func (a *API) checkTrust(tx *store.Tx, account string, document *string) error {
	d, err := policy.Parse(aws.ToString(document), policy.Trust)
	if err == nil {
		err = d.CheckTenancy()
	}
	if err == nil {
		err = a.checkPrincipals(tx, account, d)
	}
	if err != nil {
		return malformed(err)
	}
	if length(aws.ToString(document)) > trustQuota {
		return limit("Cannot exceed quota for ACLSizePerRole: %d", trustQuota)
	}
	return nil
}

// checkPrincipals refuses users and roles of this account that are not there,
// and what is no service. Other accounts are taken at their word.
func (a *API) checkPrincipals(tx *store.Tx, account string, d *policy.Document) error {
	invalid := func(kind, value string) error {
		return &policy.SyntaxError{Message: `Invalid principal in policy: "` + kind + `":"` + value + `"`}
	}
	for i := range d.Statements {
		for _, principals := range []map[string][]string{d.Statements[i].Principals, d.Statements[i].NotPrincipals} {
			for _, v := range principals["AWS"] {
				parsed, err := arn.Parse(v)
				switch {
				case v == "*" || arn.IsAccount(v):
				case err != nil:
					return invalid("AWS", v)
				case parsed.Account != account:
				case strings.HasPrefix(parsed.Resource, "role/"):
					if _, ok := a.find(tx, Role, account, v); !ok {
						return invalid("AWS", v)
					}
				case strings.HasPrefix(parsed.Resource, "user/"):
					if _, ok := a.find(tx, User, account, v); !ok {
						return invalid("AWS", v)
					}
				}
			}
			for _, v := range principals["Service"] {
				if !strings.HasSuffix(v, ".amazonaws.com") && !strings.HasSuffix(v, ".amazonaws.com.cn") {
					return invalid("SERVICE", v)
				}
			}
		}
	}
	return nil
}

func (a *API) roleView(tx *store.Tx, e entity) *types.Role {
	return &types.Role{
		Arn: new(e.ARN), CreateDate: new(e.Created), Path: new(e.Path), RoleId: new(e.ID), RoleName: new(e.Name),
		AssumeRolePolicyDocument: encodeDocument(e.Trust), Description: optional(e.Description), PermissionsBoundary: boundaryView(e),
		MaxSessionDuration: new(e.MaxSession), Tags: a.tagsOut(tx, e.ARN),
	}
}

// GetRole describes a role.
func (a *API) GetRole(ctx context.Context, in *iam.GetRoleInput) (*iam.GetRoleOutput, error) {
	out := &iam.GetRoleOutput{}
	return out, a.view(ctx, Role, in.RoleName, func(tx *store.Tx, e entity) error {
		out.Role = a.roleView(tx, e)
		return nil
	})
}

// ListRoles pages through the account's roles. Tags and boundaries are told by
// GetRole only, documented.
func (a *API) ListRoles(ctx context.Context, in *iam.ListRolesInput) (out *iam.ListRolesOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		out = &iam.ListRolesOutput{Roles: []types.Role{}}
		var rows []entity
		rows, out.Marker, out.IsTruncated, err = page(a.list(tx, wire.From(ctx).Scope.Account, Role, in.PathPrefix), func(e entity) string { return e.Name }, in.Marker, in.MaxItems)
		for _, e := range rows {
			v := a.roleView(tx, e)
			v.Tags, v.PermissionsBoundary = nil, nil
			out.Roles = append(out.Roles, *v)
		}
	})
	return out, err
}

// UpdateRole changes a role's description and the longest session.
func (a *API) UpdateRole(ctx context.Context, in *iam.UpdateRoleInput) (*iam.UpdateRoleOutput, error) {
	if err := checkRole(in.Description, in.MaxSessionDuration); err != nil {
		return nil, err
	}
	return &iam.UpdateRoleOutput{}, a.change(ctx, Role, in.RoleName, func(_ *store.Tx, e *entity) error {
		if in.Description != nil {
			e.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			e.MaxSession = *in.MaxSessionDuration
		}
		return nil
	})
}

// UpdateRoleDescription changes a role's description.
func (a *API) UpdateRoleDescription(ctx context.Context, in *iam.UpdateRoleDescriptionInput) (*iam.UpdateRoleDescriptionOutput, error) {
	if err := checkRole(in.Description, nil); err != nil {
		return nil, err
	}
	out := &iam.UpdateRoleDescriptionOutput{}
	return out, a.change(ctx, Role, in.RoleName, func(tx *store.Tx, e *entity) error {
		e.Description = aws.ToString(in.Description)
		out.Role = a.roleView(tx, *e)
		return nil
	})
}

// UpdateAssumeRolePolicy replaces a role's trust policy.
func (a *API) UpdateAssumeRolePolicy(ctx context.Context, in *iam.UpdateAssumeRolePolicyInput) (*iam.UpdateAssumeRolePolicyOutput, error) {
	return &iam.UpdateAssumeRolePolicyOutput{}, a.change(ctx, Role, in.RoleName, func(tx *store.Tx, e *entity) error {
		e.Trust = aws.ToString(in.PolicyDocument)
		return a.checkTrust(tx, wire.From(ctx).Scope.Account, in.PolicyDocument)
	})
}

// DeleteRole removes a role that has no policies and no instance profile left.
func (a *API) DeleteRole(ctx context.Context, in *iam.DeleteRoleInput) (*iam.DeleteRoleOutput, error) {
	account := wire.From(ctx).Scope.Account
	return &iam.DeleteRoleOutput{}, a.store.Update(func(tx *store.Tx) error {
		e, err := a.get(tx, account, Role, in.RoleName)
		if err != nil {
			return err
		}
		if e.Service != "" {
			return &types.UnmodifiableEntityException{Message: new("Cannot perform the operation on the protected role '" + e.Name + "' - this role is only modifiable by AWS")}
		}
		if len(a.profilesOf(tx, account, e.Name)) > 0 {
			return conflict("Cannot delete entity, must remove roles from instance profile first.")
		}
		return a.remove(tx, account, e)
	})
}

// linkedRoles is whose service-linked roles are made here: service → name and
// policy. Documented per service.
var linkedRoles = map[string][2]string{
	"autoscaling.amazonaws.com":          {"AWSServiceRoleForAutoScaling", "AutoScalingServiceRolePolicy"},
	"ecs.amazonaws.com":                  {"AWSServiceRoleForECS", "AmazonECSServiceRolePolicy"},
	"elasticloadbalancing.amazonaws.com": {"AWSServiceRoleForElasticLoadBalancing", "AWSElasticLoadBalancingServiceRolePolicy"},
}

func linkedRole(service string) (policyName, path, name string) {
	r, ok := linkedRoles[service]
	if !ok {
		return "", "/aws-service-role/" + service + "/", "*"
	}
	return r[1], "/aws-service-role/" + service + "/", r[0]
}

// CreateServiceLinkedRole makes the role that a service uses for itself.
func (a *API) CreateServiceLinkedRole(ctx context.Context, in *iam.CreateServiceLinkedRoleInput) (*iam.CreateServiceLinkedRoleOutput, error) {
	account, service := wire.From(ctx).Scope.Account, aws.ToString(in.AWSServiceName)
	if _, ok := linkedRoles[service]; !ok {
		return nil, &types.InvalidInputException{Message: new("Serin makes the service-linked roles of autoscaling.amazonaws.com, ecs.amazonaws.com and elasticloadbalancing.amazonaws.com; '" + service + "' is not performed yet")}
	}
	out := &iam.CreateServiceLinkedRoleOutput{}
	err := a.store.Update(func(tx *store.Tx) error {
		_, _, name := linkedRole(service)
		if _, ok := a.entities.Get(tx, Role.key(account, name)); ok {
			return &types.InvalidInputException{Message: new("Service role name " + name + " has been taken in this account, please try a different suffix.")}
		}
		e := a.makeLinkedRole(tx, account, service, aws.ToString(in.Description))
		out.Role = a.roleView(tx, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (a *API) makeLinkedRole(tx *store.Tx, account, service, description string) entity {
	policyName, path, name := linkedRole(service)
	e := entity{
		Kind: Role, Name: name, ID: id.Unique("AROA"), Path: path, ARN: global(account).For("iam", "role"+path+name).String(), Created: time.Now().UTC(),
		MaxSession: 3600, Service: service, Description: description, Attached: []string{"arn:aws:iam::aws:policy/aws-service-role/" + policyName},
		Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + service + `"},"Action":"sts:AssumeRole"}]}`,
	}
	a.entities.Put(tx, Role.key(account, name), e)
	return e
}

// LinkedRole makes sure that a service has its role in the account.
func (a *API) LinkedRole(account, service string) error {
	_, _, name := linkedRole(service)
	there := false
	a.store.View(func(tx *store.Tx) { _, there = a.entities.Get(tx, Role.key(account, name)) })
	if there {
		return nil
	}
	return a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.entities.Get(tx, Role.key(account, name)); !ok {
			a.makeLinkedRole(tx, account, service, "")
		}
		return nil
	})
}

// LinkedRoleARN is the ARN of a service's role, there or not.
func LinkedRoleARN(account, service string) string {
	_, path, name := linkedRole(service)
	return global(account).For("iam", "role"+path+name).String()
}

// DeleteServiceLinkedRole removes a service's role; it is made anew when the
// service next needs it.
func (a *API) DeleteServiceLinkedRole(ctx context.Context, in *iam.DeleteServiceLinkedRoleInput) (*iam.DeleteServiceLinkedRoleOutput, error) {
	account := wire.From(ctx).Scope.Account
	out := &iam.DeleteServiceLinkedRoleOutput{}
	err := a.store.Update(func(tx *store.Tx) error {
		e, err := a.get(tx, account, Role, in.RoleName)
		if err != nil {
			return err
		}
		if e.Service == "" {
			return &types.InvalidInputException{Message: new("The role " + e.Name + " is not a service-linked role.")}
		}
		a.entities.Delete(tx, Role.key(account, e.Name))
		out.DeletionTaskId = new("task/aws-service-role/" + e.Service + "/" + e.Name + "/" + id.UUID())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetServiceLinkedRoleDeletionStatus tells that a deletion is done: it is, when
// DeleteServiceLinkedRole has answered.
func (a *API) GetServiceLinkedRoleDeletionStatus(_ context.Context, in *iam.GetServiceLinkedRoleDeletionStatusInput) (*iam.GetServiceLinkedRoleDeletionStatusOutput, error) {
	if !strings.HasPrefix(aws.ToString(in.DeletionTaskId), "task/aws-service-role/") {
		return nil, &types.NoSuchEntityException{Message: new("The deletion task " + aws.ToString(in.DeletionTaskId) + " cannot be found.")}
	}
	return &iam.GetServiceLinkedRoleDeletionStatusOutput{Status: types.DeletionTaskStatusTypeSucceeded}, nil
}
