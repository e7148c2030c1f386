package iamd

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

// profile is an instance profile: what an instance gets a role through.
type profile struct {
	Name, ID, Path, ARN string
	Role                string // its one role's name, if it has one
	Created             time.Time
}

func profileKey(account, name string) string { return global(account).Key(strings.ToLower(name)) }

func (a *API) profileOps() []*wire.Op {
	named := func(c *wire.Call, name *string) string {
		var p profile
		a.store.View(func(tx *store.Tx) { p, _ = a.profiles.Get(tx, profileKey(c.Scope.Account, aws.ToString(name))) })
		if p.ARN != "" {
			return p.ARN
		}
		return newARN("instance-profile", c, nil, name)
	}
	return []*wire.Op{
		withTags(handle("CreateInstanceProfile", a.CreateInstanceProfile, func(c *wire.Call, in *iam.CreateInstanceProfileInput) string {
			return newARN("instance-profile", c, in.Path, in.InstanceProfileName)
		}, wire.Members{Performed: "InstanceProfileName Path Tags"}), "TagInstanceProfile", func(in *iam.CreateInstanceProfileInput) []types.Tag { return in.Tags }),
		handle("GetInstanceProfile", a.GetInstanceProfile, func(c *wire.Call, in *iam.GetInstanceProfileInput) string { return named(c, in.InstanceProfileName) },
			wire.Members{Performed: "InstanceProfileName"}),
		handle("ListInstanceProfiles", a.ListInstanceProfiles, func(c *wire.Call, in *iam.ListInstanceProfilesInput) string {
			return newARN("instance-profile", c, in.PathPrefix, nil)
		}, wire.Members{Performed: "Marker MaxItems PathPrefix"}),
		handle("ListInstanceProfilesForRole", a.ListInstanceProfilesForRole, func(c *wire.Call, in *iam.ListInstanceProfilesForRoleInput) string {
			return a.resource(Role, c, in.RoleName)
		},
			wire.Members{Performed: "RoleName Marker MaxItems"}),
		handle("DeleteInstanceProfile", a.DeleteInstanceProfile, func(c *wire.Call, in *iam.DeleteInstanceProfileInput) string { return named(c, in.InstanceProfileName) },
			wire.Members{Performed: "InstanceProfileName"}),
		wire.Handle("AddRoleToInstanceProfile", a.AddRoleToInstanceProfile, func(c *wire.Call, in *iam.AddRoleToInstanceProfileInput) []wire.Check {
			return []wire.Check{
				{Action: "iam:AddRoleToInstanceProfile", Resource: named(c, in.InstanceProfileName)},
				{Action: "iam:PassRole", Resource: a.resource(Role, c, in.RoleName), Context: map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}}},
			}
		}, wire.Members{Performed: "InstanceProfileName RoleName"}),
		handle("RemoveRoleFromInstanceProfile", a.RemoveRoleFromInstanceProfile, func(c *wire.Call, in *iam.RemoveRoleFromInstanceProfileInput) string {
			return named(c, in.InstanceProfileName)
		}, wire.Members{Performed: "InstanceProfileName RoleName"}),
		handle("TagInstanceProfile", a.TagInstanceProfile, func(c *wire.Call, in *iam.TagInstanceProfileInput) string { return named(c, in.InstanceProfileName) },
			wire.Members{Performed: "InstanceProfileName Tags"}),
		handle("UntagInstanceProfile", a.UntagInstanceProfile, func(c *wire.Call, in *iam.UntagInstanceProfileInput) string { return named(c, in.InstanceProfileName) },
			wire.Members{Performed: "InstanceProfileName TagKeys"}),
		handle("ListInstanceProfileTags", a.ListInstanceProfileTags, func(c *wire.Call, in *iam.ListInstanceProfileTagsInput) string {
			return named(c, in.InstanceProfileName)
		},
			wire.Members{Performed: "InstanceProfileName Marker MaxItems"}),
	}
}

// CreateInstanceProfile makes an empty instance profile.
func (a *API) CreateInstanceProfile(ctx context.Context, in *iam.CreateInstanceProfileInput) (*iam.CreateInstanceProfileOutput, error) {
	account := wire.From(ctx).Scope.Account
	path, err := checkName("instanceProfileName", in.InstanceProfileName, 128, in.Path)
	if err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	name := *in.InstanceProfileName
	p := profile{Name: name, ID: id.Unique("AIPA"), Path: path, ARN: global(account).For("iam", "instance-profile"+path+name).String(), Created: time.Now().UTC()}
	out := &iam.CreateInstanceProfileOutput{}
	err = a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.profiles.Get(tx, profileKey(account, name)); ok {
			return exists("Instance Profile %s already exists.", name)
		}
		a.profiles.Put(tx, profileKey(account, name), p)
		a.tags.Set(tx, p.ARN, labels)
		out.InstanceProfile = a.profileView(tx, account, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (a *API) profileView(tx *store.Tx, account string, p profile) *types.InstanceProfile {
	v := &types.InstanceProfile{Arn: new(p.ARN), CreateDate: new(p.Created), InstanceProfileId: new(p.ID), InstanceProfileName: new(p.Name), Path: new(p.Path),
		Roles: []types.Role{}, Tags: a.tagsOut(tx, p.ARN)}
	if e, err := a.get(tx, account, Role, &p.Role); err == nil {
		v.Roles = append(v.Roles, *a.roleView(tx, e))
	}
	return v
}

// profilesOf is the profiles that hold a role.
func (a *API) profilesOf(tx *store.Tx, account, role string) []profile {
	var out []profile
	for _, p := range a.profiles.Scan(tx, global(account).Key("")) {
		if p.Role == role {
			out = append(out, p)
		}
	}
	return out
}

// changeProfile replaces a profile by what fn makes of it; nil deletes it.
func (a *API) changeProfile(ctx context.Context, name *string, fn func(*store.Tx, profile) (*profile, error)) error {
	account := wire.From(ctx).Scope.Account
	return a.store.Update(func(tx *store.Tx) error {
		p, ok := a.profiles.Get(tx, profileKey(account, aws.ToString(name)))
		if !ok {
			return &types.NoSuchEntityException{Message: new("Instance Profile " + aws.ToString(name) + " cannot be found.")}
		}
		changed, err := fn(tx, p)
		switch {
		case err != nil:
			return err
		case changed == nil:
			a.profiles.Delete(tx, profileKey(account, p.Name))
			a.tags.Set(tx, p.ARN, nil)
		default:
			a.profiles.Put(tx, profileKey(account, p.Name), *changed)
		}
		return nil
	})
}

func (a *API) viewProfile(ctx context.Context, name *string, fn func(*store.Tx, profile) error) (err error) {
	a.store.View(func(tx *store.Tx) {
		p, ok := a.profiles.Get(tx, profileKey(wire.From(ctx).Scope.Account, aws.ToString(name)))
		if !ok {
			err = &types.NoSuchEntityException{Message: new("Instance Profile " + aws.ToString(name) + " cannot be found.")}
			return
		}
		err = fn(tx, p)
	})
	return err
}

// GetInstanceProfile describes a profile and its role.
func (a *API) GetInstanceProfile(ctx context.Context, in *iam.GetInstanceProfileInput) (*iam.GetInstanceProfileOutput, error) {
	out := &iam.GetInstanceProfileOutput{}
	return out, a.viewProfile(ctx, in.InstanceProfileName, func(tx *store.Tx, p profile) error {
		out.InstanceProfile = a.profileView(tx, wire.From(ctx).Scope.Account, p)
		return nil
	})
}

func (a *API) listProfiles(ctx context.Context, want func(profile) bool, marker *string, max *int32) (list []types.InstanceProfile, next *string, more bool, err error) {
	account := wire.From(ctx).Scope.Account
	a.store.View(func(tx *store.Tx) {
		for _, p := range a.profiles.Scan(tx, global(account).Key("")) {
			if want(p) {
				list = append(list, *a.profileView(tx, account, p))
			}
		}
	})
	return page(list, func(p types.InstanceProfile) string { return *p.InstanceProfileName }, marker, max)
}

// ListInstanceProfiles pages through the account's profiles.
func (a *API) ListInstanceProfiles(ctx context.Context, in *iam.ListInstanceProfilesInput) (*iam.ListInstanceProfilesOutput, error) {
	list, next, more, err := a.listProfiles(ctx, func(p profile) bool { return strings.HasPrefix(p.Path, aws.ToString(in.PathPrefix)) }, in.Marker, in.MaxItems)
	return &iam.ListInstanceProfilesOutput{InstanceProfiles: list, Marker: next, IsTruncated: more}, err
}

// ListInstanceProfilesForRole pages through the profiles that hold a role.
func (a *API) ListInstanceProfilesForRole(ctx context.Context, in *iam.ListInstanceProfilesForRoleInput) (*iam.ListInstanceProfilesForRoleOutput, error) {
	if err := a.view(ctx, Role, in.RoleName, func(*store.Tx, entity) error { return nil }); err != nil {
		return nil, err
	}
	list, next, more, err := a.listProfiles(ctx, func(p profile) bool { return p.Role == *in.RoleName }, in.Marker, in.MaxItems)
	return &iam.ListInstanceProfilesForRoleOutput{InstanceProfiles: list, Marker: next, IsTruncated: more}, err
}

// DeleteInstanceProfile removes a profile without a role.
func (a *API) DeleteInstanceProfile(ctx context.Context, in *iam.DeleteInstanceProfileInput) (*iam.DeleteInstanceProfileOutput, error) {
	return &iam.DeleteInstanceProfileOutput{}, a.changeProfile(ctx, in.InstanceProfileName, func(_ *store.Tx, p profile) (*profile, error) {
		if p.Role != "" {
			return nil, conflict("Cannot delete entity, must remove roles from instance profile first.")
		}
		return nil, nil
	})
}

// AddRoleToInstanceProfile gives a profile its one role.
func (a *API) AddRoleToInstanceProfile(ctx context.Context, in *iam.AddRoleToInstanceProfileInput) (*iam.AddRoleToInstanceProfileOutput, error) {
	return &iam.AddRoleToInstanceProfileOutput{}, a.changeProfile(ctx, in.InstanceProfileName, func(tx *store.Tx, p profile) (*profile, error) {
		e, err := a.get(tx, wire.From(ctx).Scope.Account, Role, in.RoleName)
		if err != nil {
			return nil, err
		}
		if p.Role != "" {
			return nil, limit("Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1")
		}
		p.Role = e.Name
		return &p, nil
	})
}

// RemoveRoleFromInstanceProfile takes a profile's role away.
func (a *API) RemoveRoleFromInstanceProfile(ctx context.Context, in *iam.RemoveRoleFromInstanceProfileInput) (*iam.RemoveRoleFromInstanceProfileOutput, error) {
	return &iam.RemoveRoleFromInstanceProfileOutput{}, a.changeProfile(ctx, in.InstanceProfileName, func(_ *store.Tx, p profile) (*profile, error) {
		if p.Role == "" || p.Role != aws.ToString(in.RoleName) {
			return nil, noSuch("role", aws.ToString(in.RoleName))
		}
		p.Role = ""
		return &p, nil
	})
}

// TagInstanceProfile adds tags to a profile.
func (a *API) TagInstanceProfile(ctx context.Context, in *iam.TagInstanceProfileInput) (*iam.TagInstanceProfileOutput, error) {
	list, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.TagInstanceProfileOutput{}, a.changeProfile(ctx, in.InstanceProfileName, func(tx *store.Tx, p profile) (*profile, error) {
		return &p, tagError(a.tags.Add(tx, p.ARN, list))
	})
}

// UntagInstanceProfile removes tags from a profile.
func (a *API) UntagInstanceProfile(ctx context.Context, in *iam.UntagInstanceProfileInput) (*iam.UntagInstanceProfileOutput, error) {
	return &iam.UntagInstanceProfileOutput{}, a.changeProfile(ctx, in.InstanceProfileName, func(tx *store.Tx, p profile) (*profile, error) {
		a.tags.Remove(tx, p.ARN, in.TagKeys)
		return &p, nil
	})
}

// ListInstanceProfileTags pages through a profile's tags.
func (a *API) ListInstanceProfileTags(ctx context.Context, in *iam.ListInstanceProfileTagsInput) (*iam.ListInstanceProfileTagsOutput, error) {
	out := &iam.ListInstanceProfileTagsOutput{}
	return out, a.viewProfile(ctx, in.InstanceProfileName, func(tx *store.Tx, p profile) (err error) {
		out.Tags, out.Marker, out.IsTruncated, err = a.tagList(tx, p.ARN, in.Marker, in.MaxItems)
		return err
	})
}

// ProfileRole is the ARN of the role that an instance profile gives; ok is false
// where there is no such profile, or it has no role.
func (a *API) ProfileRole(account, profileARN string) (roleARN string, ok bool) {
	var p profile
	a.store.View(func(tx *store.Tx) {
		p, ok = a.profiles.Get(tx, profileKey(account, profileARN[strings.LastIndexByte(profileARN, '/')+1:]))
	})
	if !ok || p.ARN != profileARN || p.Role == "" {
		return "", false
	}
	r, ok := a.Role(account, p.Role)
	return r.ARN, ok
}
