package iamd

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) userOps() []*wire.Op {
	return []*wire.Op{
		withTags(handle("CreateUser", a.CreateUser, func(c *wire.Call, in *iam.CreateUserInput) string { return newARN(User, c, in.Path, in.UserName) },
			wire.Members{Performed: "UserName Path PermissionsBoundary Tags"},
			func(_ *wire.Call, in *iam.CreateUserInput) (string, []string) {
				if in.PermissionsBoundary == nil {
					return "", nil
				}
				return "iam:PermissionsBoundary", []string{*in.PermissionsBoundary}
			}), "TagUser", func(in *iam.CreateUserInput) []types.Tag { return in.Tags }),
		handle("GetUser", a.GetUser, func(c *wire.Call, in *iam.GetUserInput) string { return a.resource(User, c, me(c, in.UserName)) }, wire.Members{Performed: "UserName"}),
		handle("ListUsers", a.ListUsers, func(c *wire.Call, in *iam.ListUsersInput) string { return newARN(User, c, in.PathPrefix, nil) },
			wire.Members{Performed: "Marker MaxItems PathPrefix"}),
		wire.Also(handle("UpdateUser", a.UpdateUser, func(c *wire.Call, in *iam.UpdateUserInput) string { return a.resource(User, c, in.UserName) },
			wire.Members{Performed: "UserName NewPath NewUserName"}), func(c *wire.Call, in *iam.UpdateUserInput) []wire.Check {
			return []wire.Check{{Action: "iam:UpdateUser", Resource: a.renamed(User, c, in.UserName, in.NewUserName, in.NewPath)}}
		}),
		handle("DeleteUser", a.DeleteUser, func(c *wire.Call, in *iam.DeleteUserInput) string { return a.resource(User, c, in.UserName) }, wire.Members{Performed: "UserName"}),
		handle("ListGroupsForUser", a.ListGroupsForUser, func(c *wire.Call, in *iam.ListGroupsForUserInput) string { return a.resource(User, c, in.UserName) },
			wire.Members{Performed: "UserName Marker MaxItems"}),
	}
}

// me is the named user, or the caller where none is named.
func me(c *wire.Call, name *string) *string {
	if name == nil && c.Principal.User != "" {
		return &c.Principal.User
	}
	return name
}

// CreateUser makes a user.
func (a *API) CreateUser(ctx context.Context, in *iam.CreateUserInput) (*iam.CreateUserOutput, error) {
	account := wire.From(ctx).Scope.Account
	path, err := checkName("userName", in.UserName, kinds[User].longest, in.Path)
	if err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	e := entity{
		Kind: User, Name: *in.UserName, ID: id.Unique("AIDA"), Path: path, Boundary: aws.ToString(in.PermissionsBoundary), Created: time.Now().UTC(),
		ARN: global(account).For("iam", "user"+path+*in.UserName).String(),
	}
	out := &iam.CreateUserOutput{}
	err = a.store.Update(func(tx *store.Tx) error {
		if err := a.create(tx, account, e); err != nil {
			return err
		}
		a.tags.Set(tx, e.ARN, labels)
		out.User = a.userView(tx, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (a *API) userView(tx *store.Tx, e entity) *types.User {
	return &types.User{Arn: new(e.ARN), CreateDate: new(e.Created), Path: new(e.Path), UserId: new(e.ID), UserName: new(e.Name),
		PermissionsBoundary: boundaryView(e), Tags: a.tagsOut(tx, e.ARN)}
}

// GetUser describes a user, the caller where none is named.
func (a *API) GetUser(ctx context.Context, in *iam.GetUserInput) (*iam.GetUserOutput, error) {
	call := wire.From(ctx)
	name := me(call, in.UserName)
	if name == nil && call.Principal.Admin { // the account's root is a user without a name, observed
		return &iam.GetUserOutput{User: &types.User{Arn: new(call.Principal.ARN), UserId: new(call.Principal.Account), CreateDate: new(time.Unix(0, 0).UTC()), Path: new("/"), UserName: new("")}}, nil
	}
	if name == nil {
		return nil, validation("Must specify userName when calling with non-User credentials")
	}
	out := &iam.GetUserOutput{}
	return out, a.view(ctx, User, name, func(tx *store.Tx, e entity) error {
		out.User = a.userView(tx, e)
		return nil
	})
}

// ListUsers pages through the account's users.
func (a *API) ListUsers(ctx context.Context, in *iam.ListUsersInput) (out *iam.ListUsersOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		out = &iam.ListUsersOutput{Users: []types.User{}}
		var rows []entity
		rows, out.Marker, out.IsTruncated, err = page(a.list(tx, wire.From(ctx).Scope.Account, User, in.PathPrefix), func(e entity) string { return e.Name }, in.Marker, in.MaxItems)
		for _, e := range rows {
			v := a.userView(tx, e)
			v.Tags, v.PermissionsBoundary = nil, nil
			out.Users = append(out.Users, *v)
		}
	})
	return out, err
}

// UpdateUser gives a user another name or path.
func (a *API) UpdateUser(ctx context.Context, in *iam.UpdateUserInput) (*iam.UpdateUserOutput, error) {
	if _, err := checkName("newUserName", cmp.Or(in.NewUserName, in.UserName), kinds[User].longest, in.NewPath); err != nil {
		return nil, err
	}
	account := wire.From(ctx).Scope.Account
	return &iam.UpdateUserOutput{}, a.change(ctx, User, in.UserName, func(tx *store.Tx, e *entity) error {
		old := e.Name
		if err := a.rename(tx, account, e, in.NewUserName, in.NewPath); err != nil {
			return err
		}
		for key, k := range a.keys.Scan(tx, "") {
			if k.Account == account && k.User == old {
				k.User = e.Name
				a.keys.Put(tx, key, k)
			}
		}
		return nil
	})
}

// DeleteUser removes a user on whom nothing hangs any more.
func (a *API) DeleteUser(ctx context.Context, in *iam.DeleteUserInput) (*iam.DeleteUserOutput, error) {
	account := wire.From(ctx).Scope.Account
	return &iam.DeleteUserOutput{}, a.store.Update(func(tx *store.Tx) error {
		e, err := a.get(tx, account, User, in.UserName)
		switch {
		case err != nil:
			return err
		case len(a.keysOf(tx, account, e.Name)) > 0:
			return conflict("Cannot delete entity, must delete access keys first.")
		case len(e.Groups) > 0:
			return conflict("Cannot delete entity, must remove users from group first.")
		}
		return a.remove(tx, account, e)
	})
}

// ListGroupsForUser pages through the groups that a user is in.
func (a *API) ListGroupsForUser(ctx context.Context, in *iam.ListGroupsForUserInput) (*iam.ListGroupsForUserOutput, error) {
	out := &iam.ListGroupsForUserOutput{Groups: []types.Group{}}
	err := a.view(ctx, User, in.UserName, func(tx *store.Tx, e entity) error {
		var groups []types.Group
		for _, name := range e.Groups {
			if g, err := a.get(tx, wire.From(ctx).Scope.Account, Group, &name); err == nil {
				groups = append(groups, *groupView(g))
			}
		}
		var err error
		out.Groups, out.Marker, out.IsTruncated, err = page(groups, func(g types.Group) string { return *g.GroupName }, in.Marker, in.MaxItems)
		return err
	})
	return out, err
}

func (a *API) groupOps() []*wire.Op {
	return []*wire.Op{
		handle("CreateGroup", a.CreateGroup, func(c *wire.Call, in *iam.CreateGroupInput) string { return newARN(Group, c, in.Path, in.GroupName) }, wire.Members{Performed: "GroupName Path"}),
		handle("GetGroup", a.GetGroup, func(c *wire.Call, in *iam.GetGroupInput) string { return a.resource(Group, c, in.GroupName) }, wire.Members{Performed: "GroupName Marker MaxItems"}),
		handle("ListGroups", a.ListGroups, func(c *wire.Call, in *iam.ListGroupsInput) string { return newARN(Group, c, in.PathPrefix, nil) },
			wire.Members{Performed: "Marker MaxItems PathPrefix"}),
		wire.Also(handle("UpdateGroup", a.UpdateGroup, func(c *wire.Call, in *iam.UpdateGroupInput) string { return a.resource(Group, c, in.GroupName) },
			wire.Members{Performed: "GroupName NewGroupName NewPath"}), func(c *wire.Call, in *iam.UpdateGroupInput) []wire.Check {
			return []wire.Check{{Action: "iam:UpdateGroup", Resource: a.renamed(Group, c, in.GroupName, in.NewGroupName, in.NewPath)}}
		}),
		handle("DeleteGroup", a.DeleteGroup, func(c *wire.Call, in *iam.DeleteGroupInput) string { return a.resource(Group, c, in.GroupName) }, wire.Members{Performed: "GroupName"}),
		handle("AddUserToGroup", a.AddUserToGroup, func(c *wire.Call, in *iam.AddUserToGroupInput) string { return a.resource(Group, c, in.GroupName) },
			wire.Members{Performed: "GroupName UserName"}),
		handle("RemoveUserFromGroup", a.RemoveUserFromGroup, func(c *wire.Call, in *iam.RemoveUserFromGroupInput) string { return a.resource(Group, c, in.GroupName) },
			wire.Members{Performed: "GroupName UserName"}),
	}
}

func groupView(e entity) *types.Group {
	return &types.Group{Arn: new(e.ARN), CreateDate: new(e.Created), Path: new(e.Path), GroupId: new(e.ID), GroupName: new(e.Name)}
}

// CreateGroup makes a group.
func (a *API) CreateGroup(ctx context.Context, in *iam.CreateGroupInput) (*iam.CreateGroupOutput, error) {
	account := wire.From(ctx).Scope.Account
	path, err := checkName("groupName", in.GroupName, kinds[Group].longest, in.Path)
	if err != nil {
		return nil, err
	}
	e := entity{Kind: Group, Name: *in.GroupName, ID: id.Unique("AGPA"), Path: path, Created: time.Now().UTC(), ARN: global(account).For("iam", "group"+path+*in.GroupName).String()}
	if err := a.store.Update(func(tx *store.Tx) error { return a.create(tx, account, e) }); err != nil {
		return nil, err
	}
	return &iam.CreateGroupOutput{Group: groupView(e)}, nil
}

// members is the users in a group, by name.
func (a *API) members(tx *store.Tx, account, group string) []entity {
	return slices.DeleteFunc(a.list(tx, account, User, nil), func(e entity) bool { return !slices.Contains(e.Groups, group) })
}

// GetGroup describes a group and pages through its users.
func (a *API) GetGroup(ctx context.Context, in *iam.GetGroupInput) (*iam.GetGroupOutput, error) {
	out := &iam.GetGroupOutput{Users: []types.User{}}
	return out, a.view(ctx, Group, in.GroupName, func(tx *store.Tx, e entity) (err error) {
		out.Group = groupView(e)
		var rows []entity
		rows, out.Marker, out.IsTruncated, err = page(a.members(tx, wire.From(ctx).Scope.Account, e.Name), func(e entity) string { return e.Name }, in.Marker, in.MaxItems)
		for _, u := range rows {
			out.Users = append(out.Users, *a.userView(tx, u))
		}
		return err
	})
}

// ListGroups pages through the account's groups.
func (a *API) ListGroups(ctx context.Context, in *iam.ListGroupsInput) (out *iam.ListGroupsOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		out = &iam.ListGroupsOutput{Groups: []types.Group{}}
		var rows []entity
		rows, out.Marker, out.IsTruncated, err = page(a.list(tx, wire.From(ctx).Scope.Account, Group, in.PathPrefix), func(e entity) string { return e.Name }, in.Marker, in.MaxItems)
		for _, e := range rows {
			out.Groups = append(out.Groups, *groupView(e))
		}
	})
	return out, err
}

// UpdateGroup gives a group another name or path; its users stay in it.
func (a *API) UpdateGroup(ctx context.Context, in *iam.UpdateGroupInput) (*iam.UpdateGroupOutput, error) {
	if _, err := checkName("newGroupName", cmp.Or(in.NewGroupName, in.GroupName), kinds[Group].longest, in.NewPath); err != nil {
		return nil, err
	}
	account := wire.From(ctx).Scope.Account
	return &iam.UpdateGroupOutput{}, a.change(ctx, Group, in.GroupName, func(tx *store.Tx, e *entity) error {
		old := e.Name
		if err := a.rename(tx, account, e, in.NewGroupName, in.NewPath); err != nil {
			return err
		}
		for _, u := range a.members(tx, account, old) {
			u.Groups = slices.Clone(u.Groups)
			u.Groups[slices.Index(u.Groups, old)] = e.Name
			a.entities.Put(tx, User.key(account, u.Name), u)
		}
		return nil
	})
}

// DeleteGroup removes a group without users and policies.
func (a *API) DeleteGroup(ctx context.Context, in *iam.DeleteGroupInput) (*iam.DeleteGroupOutput, error) {
	account := wire.From(ctx).Scope.Account
	return &iam.DeleteGroupOutput{}, a.store.Update(func(tx *store.Tx) error {
		e, err := a.get(tx, account, Group, in.GroupName)
		if err != nil {
			return err
		}
		if len(a.members(tx, account, e.Name)) > 0 {
			return conflict("Cannot delete entity, must remove users from group first.")
		}
		return a.remove(tx, account, e)
	})
}

// AddUserToGroup puts a user into a group; twice is once.
func (a *API) AddUserToGroup(ctx context.Context, in *iam.AddUserToGroupInput) (*iam.AddUserToGroupOutput, error) {
	return &iam.AddUserToGroupOutput{}, a.change(ctx, User, in.UserName, func(tx *store.Tx, e *entity) error {
		g, err := a.get(tx, wire.From(ctx).Scope.Account, Group, in.GroupName)
		switch {
		case err != nil:
			return err
		case slices.Contains(e.Groups, g.Name):
			return nil
		case len(e.Groups) >= 10:
			return limit("Cannot exceed quota for GroupsPerUser: 10")
		}
		e.Groups = append(slices.Clone(e.Groups), g.Name)
		return nil
	})
}

// RemoveUserFromGroup takes a user out of a group.
func (a *API) RemoveUserFromGroup(ctx context.Context, in *iam.RemoveUserFromGroupInput) (*iam.RemoveUserFromGroupOutput, error) {
	return &iam.RemoveUserFromGroupOutput{}, a.change(ctx, User, in.UserName, func(tx *store.Tx, e *entity) error {
		g, err := a.get(tx, wire.From(ctx).Scope.Account, Group, in.GroupName)
		if err != nil {
			return err
		}
		i := slices.Index(e.Groups, g.Name)
		if i < 0 {
			return noSuch("user", e.Name)
		}
		e.Groups = slices.Delete(slices.Clone(e.Groups), i, i+1)
		return nil
	})
}
