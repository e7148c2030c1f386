package iamd

import (
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

// accessKey is a user's long-term key; its row's key is its id.
type accessKey struct {
	ID, Secret    string
	Account, User string
	Inactive      bool
	Created       time.Time
}

type lastUse struct {
	At              time.Time
	Service, Region string
}

// Key is an access key as the stage checks signatures with it.
type Key struct {
	Account, User, Secret string
	Active                bool
}

// Key finds an access key.
func (a *API) Key(accessKeyID string) (k Key, found bool) {
	a.store.View(func(tx *store.Tx) {
		var row accessKey
		if row, found = a.keys.Get(tx, accessKeyID); found {
			k = Key{row.Account, row.User, row.Secret, !row.Inactive}
		}
	})
	return k, found
}

// Used notes that a key signed a request. It is kept in memory: a read must not
// cost a write.
func (a *API) Used(accessKeyID, service, region string) {
	a.usedMu.Lock()
	defer a.usedMu.Unlock()
	a.used[accessKeyID] = lastUse{time.Now().UTC().Truncate(time.Second), service, region}
}

func (a *API) keyOps() []*wire.Op {
	return []*wire.Op{
		handle("CreateAccessKey", a.CreateAccessKey, func(c *wire.Call, in *iam.CreateAccessKeyInput) string {
			return a.resource(User, c, me(c, in.UserName))
		}, wire.Members{Performed: "UserName"}),
		handle("UpdateAccessKey", a.UpdateAccessKey, func(c *wire.Call, in *iam.UpdateAccessKeyInput) string {
			return a.resource(User, c, me(c, in.UserName))
		},
			wire.Members{Performed: "AccessKeyId Status UserName"}),
		handle("DeleteAccessKey", a.DeleteAccessKey, func(c *wire.Call, in *iam.DeleteAccessKeyInput) string {
			return a.resource(User, c, me(c, in.UserName))
		},
			wire.Members{Performed: "AccessKeyId UserName"}),
		handle("ListAccessKeys", a.ListAccessKeys, func(c *wire.Call, in *iam.ListAccessKeysInput) string { return a.resource(User, c, me(c, in.UserName)) },
			wire.Members{Performed: "UserName Marker MaxItems"}),
		handle("GetAccessKeyLastUsed", a.GetAccessKeyLastUsed, func(c *wire.Call, in *iam.GetAccessKeyLastUsedInput) string {
			k, _ := a.Key(aws.ToString(in.AccessKeyId))
			return a.resource(User, c, &k.User)
		}, wire.Members{Performed: "AccessKeyId"}),
	}
}

func (a *API) keysOf(tx *store.Tx, account, user string) []accessKey {
	var out []accessKey
	for _, k := range a.keys.Scan(tx, "") {
		if k.Account == account && k.User == user {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(x, y accessKey) int { return x.Created.Compare(y.Created) })
	return out
}

// owner is the user whose keys are meant.
func (a *API) owner(tx *store.Tx, ctx context.Context, name *string) (entity, error) {
	call := wire.From(ctx)
	if name = me(call, name); name == nil {
		return entity{}, validation("Must specify userName when calling with non-User credentials")
	}
	return a.get(tx, call.Scope.Account, User, name)
}

// CreateAccessKey makes a key for a user; its secret is told this once.
func (a *API) CreateAccessKey(ctx context.Context, in *iam.CreateAccessKeyInput) (*iam.CreateAccessKeyOutput, error) {
	var k accessKey
	err := a.store.Update(func(tx *store.Tx) error {
		u, err := a.owner(tx, ctx, in.UserName)
		if err != nil {
			return err
		}
		account := wire.From(ctx).Scope.Account
		if len(a.keysOf(tx, account, u.Name)) >= 2 {
			return limit("Cannot exceed quota for AccessKeysPerUser: 2")
		}
		k = accessKey{ID: id.Unique("AKIA"), Secret: id.Secret(40), Account: account, User: u.Name, Created: time.Now().UTC()}
		a.keys.Put(tx, k.ID, k)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iam.CreateAccessKeyOutput{AccessKey: &types.AccessKey{
		AccessKeyId: new(k.ID), SecretAccessKey: new(k.Secret), UserName: new(k.User), Status: types.StatusTypeActive, CreateDate: new(k.Created),
	}}, nil
}

// changeKey finds a key of a user and lets fn change or delete it.
func (a *API) changeKey(ctx context.Context, user, keyID *string, fn func(*store.Tx, accessKey) error) error {
	return a.store.Update(func(tx *store.Tx) error {
		u, err := a.owner(tx, ctx, user)
		if err != nil {
			return err
		}
		k, ok := a.keys.Get(tx, aws.ToString(keyID))
		if !ok || k.User != u.Name || k.Account != wire.From(ctx).Scope.Account {
			return &types.NoSuchEntityException{Message: new("The Access Key with id " + aws.ToString(keyID) + " cannot be found.")}
		}
		return fn(tx, k)
	})
}

// UpdateAccessKey switches a key on or off.
func (a *API) UpdateAccessKey(ctx context.Context, in *iam.UpdateAccessKeyInput) (*iam.UpdateAccessKeyOutput, error) {
	if in.Status != types.StatusTypeActive && in.Status != types.StatusTypeInactive {
		return nil, validation("1 validation error detected: Value '%s' at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]", in.Status)
	}
	return &iam.UpdateAccessKeyOutput{}, a.changeKey(ctx, in.UserName, in.AccessKeyId, func(tx *store.Tx, k accessKey) error {
		k.Inactive = in.Status == types.StatusTypeInactive
		a.keys.Put(tx, k.ID, k)
		return nil
	})
}

// DeleteAccessKey removes a key.
func (a *API) DeleteAccessKey(ctx context.Context, in *iam.DeleteAccessKeyInput) (*iam.DeleteAccessKeyOutput, error) {
	return &iam.DeleteAccessKeyOutput{}, a.changeKey(ctx, in.UserName, in.AccessKeyId, func(tx *store.Tx, k accessKey) error {
		a.keys.Delete(tx, k.ID)
		return nil
	})
}

// ListAccessKeys pages through a user's keys, without their secrets.
func (a *API) ListAccessKeys(ctx context.Context, in *iam.ListAccessKeysInput) (out *iam.ListAccessKeysOutput, err error) {
	a.store.View(func(tx *store.Tx) {
		var u entity
		if u, err = a.owner(tx, ctx, in.UserName); err != nil {
			return
		}
		list := []types.AccessKeyMetadata{}
		for _, k := range a.keysOf(tx, wire.From(ctx).Scope.Account, u.Name) {
			status := types.StatusTypeActive
			if k.Inactive {
				status = types.StatusTypeInactive
			}
			list = append(list, types.AccessKeyMetadata{AccessKeyId: new(k.ID), UserName: new(k.User), Status: status, CreateDate: new(k.Created)})
		}
		out = &iam.ListAccessKeysOutput{}
		out.AccessKeyMetadata, out.Marker, out.IsTruncated, err = page(list, func(k types.AccessKeyMetadata) string { return *k.AccessKeyId }, in.Marker, in.MaxItems)
	})
	return out, err
}

// GetAccessKeyLastUsed tells when a key last signed a request, since this stage
// started.
func (a *API) GetAccessKeyLastUsed(ctx context.Context, in *iam.GetAccessKeyLastUsedInput) (*iam.GetAccessKeyLastUsedOutput, error) {
	k, ok := a.Key(aws.ToString(in.AccessKeyId))
	if !ok || k.Account != wire.From(ctx).Scope.Account {
		return nil, &types.NoSuchEntityException{Message: new("The Access Key with id " + aws.ToString(in.AccessKeyId) + " cannot be found.")}
	}
	a.usedMu.Lock()
	use, ok := a.used[*in.AccessKeyId]
	a.usedMu.Unlock()
	out := &iam.GetAccessKeyLastUsedOutput{UserName: new(k.User), AccessKeyLastUsed: &types.AccessKeyLastUsed{Region: new("N/A"), ServiceName: new("N/A")}}
	if ok {
		out.AccessKeyLastUsed = &types.AccessKeyLastUsed{LastUsedDate: new(use.At), Region: new(use.Region), ServiceName: new(use.Service)}
	}
	return out, nil
}
