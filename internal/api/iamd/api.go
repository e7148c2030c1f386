// Package iamd is the stage's IAM: users, groups and roles, their policies,
// boundaries and keys, managed policies with their versions, instance profiles
// and OpenID Connect providers.
//
// Users, groups and roles are one kind of row, an entity: what they share, their
// policies, is written once in entity.go. Rows hold documents as text, validated
// when they are written and parsed once when they are first evaluated. Policies
// gathers all that bears on a caller; deciding is package policy's work, asking
// is the stage's.
package iamd

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// API performs IAM's operations.
type API struct {
	store     *store.Store
	entities  *store.Table[entity]
	policies  *store.Table[managed]
	providers *store.Table[provider]
	profiles  *store.Table[profile]
	keys      *store.Table[accessKey]
	tags      *tags.Table

	aws map[string]managed // AWS's own policies, by ARN

	parsedMu sync.Mutex
	parsed   map[documentKey]*policy.Document

	usedMu sync.Mutex
	used   map[string]lastUse // access key → its last use

}

// New adds IAM's tables to the store.
func New(s *store.Store) *API {
	return &API{
		store:     s,
		entities:  store.NewTable[entity](s, "iam/entities"),
		policies:  store.NewTable[managed](s, "iam/policies"),
		providers: store.NewTable[provider](s, "iam/providers"),
		profiles:  store.NewTable[profile](s, "iam/profiles"),
		keys:      store.NewTable[accessKey](s, "iam/keys"),
		tags:      tags.NewTable(s, "iam/tags", tags.AnyCase),
		aws:       awsPolicies(),
		parsed:    map[documentKey]*policy.Document{},
		used:      map[string]lastUse{},
	}
}

// global is IAM's scope in an account: it has no regions.
func global(account string) arn.Scope { return arn.Scope{Account: account} }

func scopeOf(ctx context.Context) arn.Scope { return global(wire.From(ctx).Scope.Account) }

// Service is IAM on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "iam", Signing: "iam", Protocol: wire.Query, Version: "2010-05-08", Global: true,
		Namespace: "https://iam.amazonaws.com/doc/2010-05-08/",
		Naming:    &wire.Naming{},
		Status: map[string]int{
			"NoSuchEntity": 404, "EntityAlreadyExists": 409, "DeleteConflict": 409, "LimitExceeded": 409,
			"ConcurrentModification": 409, "ServiceFailure": 500, "AccessDenied": 403,
		},
		Invalid: func(m string) error { return &wire.Error{Code: "ValidationError", Message: m} },
		Types: map[string]wire.Members{
			"Tag":          {Performed: "Key Value"},
			"ContextEntry": {Performed: "ContextKeyName ContextKeyType ContextKeyValues"},
		},
	}
	for _, ops := range [][]*wire.Op{
		a.roleOps(), a.userOps(), a.groupOps(), a.entityOps(), a.keyOps(), a.policyOps(), a.profileOps(), a.providerOps(), a.simulateOps(), a.accountOps(),
	} {
		s.Register(ops...)
	}
	return s
}

// handle registers an operation whose permission is the action of its name on
// one resource, with the condition keys that its input fills.
func handle[I, O any](name string, fn func(context.Context, *I) (*O, error), resource func(*wire.Call, *I) string, m wire.Members, keys ...func(*wire.Call, *I) (key string, values []string)) *wire.Op {
	return wire.Handle(name, fn, func(c *wire.Call, in *I) []wire.Check {
		check := wire.Check{Action: "iam:" + name, Resource: resource(c, in)}
		for _, fill := range keys {
			if key, values := fill(c, in); len(values) > 0 {
				if check.Context == nil {
					check.Context = map[string][]string{}
				}
				check.Context[key] = values
			}
		}
		return []wire.Check{check}
	}, m)
}

// withTags adds to an operation that makes a resource the permission to tag it,
// asked where it is made with tags.
func withTags[I any](o *wire.Op, action string, tags func(*I) []types.Tag) *wire.Op {
	return wire.Also(o, func(c *wire.Call, in *I) []wire.Check {
		return wire.WhenTagged(tags(in), wire.Check{Action: "iam:" + action, Resource: o.Checks(c, in)[0].Resource})
	})
}

// all is the resource of operations that have none.
func all[I any](*wire.Call, *I) string { return "*" }

func noSuch(what, name string) error {
	return &types.NoSuchEntityException{Message: new(fmt.Sprintf("The %s with name %s cannot be found.", what, name))}
}

func exists(format string, args ...any) error {
	return &types.EntityAlreadyExistsException{Message: new(fmt.Sprintf(format, args...))}
}

func conflict(format string, args ...any) error {
	return &types.DeleteConflictException{Message: new(fmt.Sprintf(format, args...))}
}

func limit(format string, args ...any) error {
	return &types.LimitExceededException{Message: new(fmt.Sprintf(format, args...))}
}

func malformed(err error) error {
	return &types.MalformedPolicyDocumentException{Message: new(err.Error())}
}

func validation(format string, args ...any) error {
	return &wire.Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

var (
	namePattern = regexp.MustCompile(`^[\w+=,.@-]+$`)
	pathPattern = regexp.MustCompile(`^(\x{002F}|(\x{002F}[\x21-\x7E]+\x{002F}))$`)
)

// checkName checks a name and a path as IAM's front end does.
func checkName(member string, name *string, longest int, path *string) (string, error) {
	var c wire.Constraints
	c.Required(member, name)
	c.Length(member, name, 1, longest)
	if aws.ToString(name) != "" {
		c.Pattern(member, name, namePattern)
	}
	c.Length("path", path, 1, 512)
	if err := c.Err(); err != nil {
		return "", err
	}
	p := aws.ToString(path)
	if p == "" {
		p = "/"
	}
	if !pathPattern.MatchString(p) {
		return "", validation("The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
	}
	return p, nil
}

// tagsIn reads the tags of a request and refuses what no tag may be.
func tagsIn(in []types.Tag) ([]tags.Tag, error) {
	list := tags.In(in)
	return list, tagError(tags.Check(list, tags.AnyCase))
}

func tagError(err error) error {
	e, ok := err.(*tags.Error)
	switch {
	case !ok:
		return err
	case e.Problem == tags.TooMany:
		return limit("Cannot exceed quota for TagsPerResource: %d", tags.Most)
	case e.Problem == tags.Duplicate:
		return &types.InvalidInputException{Message: new("Duplicate tag keys found. Please note that Tag keys are case insensitive.")}
	}
	return &types.InvalidInputException{Message: &e.Message}
}

func (a *API) tagsOut(tx *store.Tx, resourceARN string) []types.Tag {
	return tags.Out[types.Tag](a.tags.Of(tx, resourceARN))
}

// Tags is a resource's tags by its ARN, for conditions on aws:ResourceTag.
func (a *API) Tags(resourceARN string) (m map[string]string) {
	a.store.View(func(tx *store.Tx) { m = a.tags.Map(tx, resourceARN) })
	return m
}

// tagList pages through a resource's tags.
func (a *API) tagList(tx *store.Tx, resourceARN string, marker *string, max *int32) ([]types.Tag, *string, bool, error) {
	return page(a.tagsOut(tx, resourceARN), func(t types.Tag) string { return *t.Key }, marker, max)
}

// page cuts a list as IAM does: at most 1000, 100 by default.
func page[T any](items []T, key func(T) string, marker *string, max *int32) ([]T, *string, bool, error) {
	var c wire.Constraints
	c.Range("maxItems", max, 1, 1000)
	if err := c.Err(); err != nil {
		return nil, nil, false, err
	}
	size := 100
	if max != nil {
		size = int(*max)
	}
	out, next, err := wire.Page(items, key, aws.ToString(marker), size)
	switch {
	case err != nil:
		return nil, nil, false, validation("Invalid Marker.")
	case out == nil:
		return []T{}, nil, false, nil
	case next == "":
		return out, nil, false, nil
	}
	return out, &next, true, nil
}

type documentKey struct {
	kind policy.Kind
	text string
}

// document parses a stored document, once for each text.
func (a *API) document(text string, kind policy.Kind) *policy.Document {
	key := documentKey{kind, text}
	a.parsedMu.Lock()
	defer a.parsedMu.Unlock()
	if d, ok := a.parsed[key]; ok {
		return d
	}
	d, err := policy.Parse(text, kind)
	if err != nil { // validated when it was written
		panic(fmt.Sprintf("iamd: a broken policy document was stored: %v", err))
	}
	if len(a.parsed) > 10_000 { // those of documents long replaced
		clear(a.parsed)
	}
	a.parsed[key] = d
	return d
}

// Principal is what the stage must know of a user or role to let it act.
type Principal struct {
	ARN, Name, ID string
	Path          string
	Trust         *policy.Document // of a role
	MaxSession    time.Duration    // of a role
	Tags          map[string]string
}

// Role finds a role by its ARN or name.
func (a *API) Role(account, nameOrARN string) (Principal, bool) {
	return a.principal(Role, account, nameOrARN)
}

// User finds a user by its ARN or name.
func (a *API) User(account, nameOrARN string) (Principal, bool) {
	return a.principal(User, account, nameOrARN)
}

// UserByID finds a user by its unique id, whatever its name is now.
func (a *API) UserByID(account, id string) (Principal, bool) {
	name := ""
	a.store.View(func(tx *store.Tx) {
		for _, e := range a.list(tx, account, User, nil) {
			if e.ID == id {
				name = e.Name
			}
		}
	})
	if name == "" {
		return Principal{}, false
	}
	return a.User(account, name)
}

func (a *API) principal(k Kind, account, nameOrARN string) (p Principal, found bool) {
	a.store.View(func(tx *store.Tx) {
		var e entity
		if e, found = a.find(tx, k, account, nameOrARN); !found {
			return
		}
		p = Principal{ARN: e.ARN, Name: e.Name, ID: e.ID, Path: e.Path, MaxSession: time.Duration(e.MaxSession) * time.Second, Tags: a.tags.Map(tx, e.ARN)}
		if k == Role {
			p.Trust = a.document(e.Trust, policy.Trust)
		}
	})
	return p, found
}

func (a *API) find(tx *store.Tx, k Kind, account, nameOrARN string) (entity, bool) {
	name := nameOrARN
	if arn.Is(nameOrARN) {
		parsed, err := arn.Parse(nameOrARN)
		if err != nil || parsed.Account != account {
			return entity{}, false
		}
		name = parsed.Resource[strings.LastIndexByte(parsed.Resource, '/')+1:]
	}
	e, ok := a.entities.Get(tx, k.key(account, name))
	return e, ok && (!arn.Is(nameOrARN) || e.ARN == nameOrARN)
}

// PoliciesOf gathers what bears on a user or role: its own policies, those of a
// user's groups, and the boundary. id, when given, must be the entity's: one
// that was deleted and made anew is another.
func (a *API) PoliciesOf(k Kind, account, entityARN, id string) (p policy.Policies, found bool) {
	a.store.View(func(tx *store.Tx) {
		var e entity
		e, found = a.find(tx, k, account, entityARN)
		if found = found && (id == "" || e.ID == id); found {
			p = a.policiesOf(tx, account, e)
		}
	})
	return p, found
}

func (a *API) policiesOf(tx *store.Tx, account string, e entity) policy.Policies {
	p := policy.Policies{Identity: a.identityPolicies(tx, account, e)}
	for _, name := range e.Groups {
		if g, ok := a.entities.Get(tx, Group.key(account, name)); ok {
			p.Identity = append(p.Identity, a.identityPolicies(tx, account, g)...)
		}
	}
	if e.Boundary != "" {
		boundary := policy.Named{Name: e.Boundary, Document: nothing}
		if text, ok := a.managedDocument(tx, account, e.Boundary); ok {
			boundary.Document = a.document(text, policy.Identity)
		}
		p.Boundary = &boundary
	}
	return p
}

// nothing is a boundary that is gone: it allows nothing.
var nothing = &policy.Document{Version: "2012-10-17"}

func (a *API) identityPolicies(tx *store.Tx, account string, e entity) []policy.Named {
	var out []policy.Named
	for _, name := range slices.Sorted(maps.Keys(e.Inline)) {
		out = append(out, policy.Named{Name: string(e.Kind) + " " + e.Name + " inline policy " + name, Document: a.document(e.Inline[name], policy.Identity)})
	}
	for _, attached := range e.Attached {
		if text, ok := a.managedDocument(tx, account, attached); ok {
			out = append(out, policy.Named{Name: attached, Document: a.document(text, policy.Identity)})
		}
	}
	return out
}

// Managed returns a managed policy's document, for session policies by ARN.
func (a *API) Managed(account, policyARN string) (doc *policy.Document, ok bool) {
	a.store.View(func(tx *store.Tx) {
		var text string
		if text, ok = a.managedDocument(tx, account, policyARN); ok {
			doc = a.document(text, policy.Identity)
		}
	})
	return doc, ok
}

func (a *API) managedDocument(tx *store.Tx, account, policyARN string) (string, bool) {
	p, ok := a.managed(tx, account, policyARN)
	if !ok {
		return "", false
	}
	v, ok := p.version(p.Default)
	return v.Document, ok
}

func (a *API) managed(tx *store.Tx, account, policyARN string) (managed, bool) {
	if p, ok := a.aws[policyARN]; ok {
		return p, true
	}
	return a.policies.Get(tx, global(account).Key(policyARN))
}

// Provider finds the account's OpenID Connect provider for an issuer.
func (a *API) Provider(account, issuer string) (providerARN string, clientIDs []string, ok bool) {
	a.store.View(func(tx *store.Tx) {
		var p provider
		p, ok = a.providers.Get(tx, global(account).Key(strings.TrimPrefix(issuer, "https://")))
		providerARN, clientIDs = p.ARN, p.ClientIDs
	})
	return providerARN, clientIDs, ok
}

// Document parses an identity policy that was validated, once for each text.
func (a *API) Document(text string) *policy.Document { return a.document(text, policy.Identity) }
