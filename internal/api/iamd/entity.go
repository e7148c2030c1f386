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
