// Package iamd is the stage's IAM: roles, their trust and permission policies,
// customer and AWS managed policies, OpenID Connect providers.
//
// Rows hold documents as text, validated when they are written and parsed once
// when they are first evaluated. PoliciesOf gathers all that bears on a role;
// deciding is package policy's work, asking is the stage's.
package iamd

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

// API performs IAM's operations.
type API struct {
	store     *store.Store
	roles     *store.Table[role]
	policies  *store.Table[managed]
	providers *store.Table[provider]
}

type role struct {
	Name, ID, Path, Description string
	ARN                         string
	Trust                       string
	MaxSession                  int32 // seconds
	Created                     time.Time
	Inline                      map[string]string // policy name → document
	Attached                    []string          // managed policy ARNs, in the order of attaching
	Tags                        []tag
	ServiceLinked               bool
}

type managed struct {
	Name, ID, Path, Description, ARN string
	Document                         string
	Created                          time.Time
	Tags                             []tag
}

type provider struct {
	ARN, URL    string // URL without https://
	ClientIDs   []string
	Thumbprints []string
	Created     time.Time
	Tags        []tag
}

type tag struct{ Key, Value string }

// New adds IAM's tables to the store.
func New(s *store.Store) *API {
	return &API{
		store:     s,
		roles:     store.NewTable[role](s, "iam/roles"),
		policies:  store.NewTable[managed](s, "iam/policies"),
		providers: store.NewTable[provider](s, "iam/providers"),
	}
}

// global is IAM's scope in an account: it has no regions.
func global(account string) arn.Scope { return arn.Scope{Account: account} }

func scopeOf(c *wire.Call) arn.Scope { return global(c.Scope.Account) }

// Service is IAM on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "iam", Signing: "iam", Protocol: wire.Query, Version: "2010-05-08", Global: true,
		Namespace: "https://iam.amazonaws.com/doc/2010-05-08/",
		Naming:    &wire.Naming{Except: map[string]string{"ListDelegationRequestsResponse.IsTruncated": "isTruncated"}},
		Status: map[string]int{
			"NoSuchEntity": 404, "EntityAlreadyExists": 409, "DeleteConflict": 409, "LimitExceeded": 409,
			"ConcurrentModification": 409, "ServiceFailure": 500, "AccessDenied": 403,
		},
		Invalid: func(m string) error { return &wire.Error{Code: "ValidationError", Message: m} },
		Types: map[string]wire.Members{
			"Tag": {Performed: "Key Value"},
		},
	}
	s.Register(a.roleOps()...)
	s.Register(a.policyOps()...)
	s.Register(a.providerOps()...)
	return s
}

// on makes the permission check of an operation on one resource.
func on[I any](action string, resource func(*wire.Call, *I) string) func(*wire.Call, *I) []wire.Check {
	return func(c *wire.Call, in *I) []wire.Check {
		return []wire.Check{{Action: "iam:" + action, Resource: resource(c, in)}}
	}
}

func noSuch(what, name string) error {
	return &types.NoSuchEntityException{Message: new(fmt.Sprintf("The %s with name %s cannot be found.", what, name))}
}

func validation(format string, args ...any) error {
	return &wire.Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

// cleanPath is a path as IAM keeps it: / by default, starting and ending in one.
func cleanPath(p *string) (string, error) {
	path := aws.ToString(p)
	if path == "" {
		return "/", nil
	}
	if !strings.HasPrefix(path, "/") || !strings.HasSuffix(path, "/") || len(path) > 512 {
		return "", validation("The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
	}
	return path, nil
}

func tagsIn(in []types.Tag) []tag {
	var out []tag
	for _, t := range in {
		out = append(out, tag{aws.ToString(t.Key), aws.ToString(t.Value)})
	}
	return out
}

func tagsOut(in []tag) []types.Tag {
	var out []types.Tag
	for _, t := range in {
		out = append(out, types.Tag{Key: new(t.Key), Value: new(t.Value)})
	}
	return out
}

// page cuts a list as IAM does: at most 1000, 100 by default.
func page[T any](items []T, key func(T) string, marker *string, max *int32) ([]T, *string, bool, error) {
	limit := 100
	if max != nil {
		if *max < 1 || *max > 1000 {
			return nil, nil, false, validation("1 validation error detected: Value '%d' at 'maxItems' failed to satisfy constraint: Member must have value between 1 and 1000", *max)
		}
		limit = int(*max)
	}
	out, next, err := wire.Page(items, key, aws.ToString(marker), limit)
	if err != nil {
		return nil, nil, false, validation("Invalid Marker.")
	}
	if next == "" {
		return out, nil, false, nil
	}
	return out, &next, true, nil
}

// Principal is all that the stage must know of a role to let its sessions act.
type Principal struct {
	ARN, Name, ID string
	Trust         *policy.Document
	MaxSession    time.Duration
}

// Role finds a role by its ARN or name.
func (a *API) Role(account, nameOrARN string) (Principal, bool) {
	var r role
	var ok bool
	a.store.View(func(tx *store.Tx) { r, ok = a.find(tx, account, nameOrARN) })
	if !ok {
		return Principal{}, false
	}
	trust, err := policy.Parse(r.Trust, policy.Trust)
	if err != nil { // validated when it was written
		panic(fmt.Sprintf("iamd: role %s has a broken trust policy: %v", r.Name, err))
	}
	return Principal{r.ARN, r.Name, r.ID, trust, time.Duration(r.MaxSession) * time.Second}, true
}

func (a *API) find(tx *store.Tx, account, nameOrARN string) (role, bool) {
	name := nameOrARN
	if arn.Is(nameOrARN) {
		parsed, err := arn.Parse(nameOrARN)
		if err != nil || parsed.Account != account {
			return role{}, false
		}
		name = parsed.Resource[strings.LastIndexByte(parsed.Resource, '/')+1:]
	}
	r, ok := a.roles.Get(tx, global(account).Key(name))
	return r, ok && (!arn.Is(nameOrARN) || r.ARN == nameOrARN)
}

// PoliciesOf gathers the identity policies of a role.
func (a *API) PoliciesOf(account, roleARN string) (policy.Policies, bool) {
	var p policy.Policies
	found := false
	a.store.View(func(tx *store.Tx) {
		var r role
		if r, found = a.find(tx, account, roleARN); !found {
			return
		}
		for name, document := range r.Inline {
			p.Identity = append(p.Identity, policy.Named{Name: name, Document: parsed(document)})
		}
		for _, attached := range r.Attached {
			if document, ok := a.managedDocument(tx, account, attached); ok {
				p.Identity = append(p.Identity, policy.Named{Name: attached, Document: parsed(document)})
			}
		}
	})
	return p, found
}

// Managed returns a managed policy's document, for session policies by ARN.
func (a *API) Managed(account, policyARN string) (doc *policy.Document, ok bool) {
	a.store.View(func(tx *store.Tx) {
		var document string
		if document, ok = a.managedDocument(tx, account, policyARN); ok {
			doc = parsed(document)
		}
	})
	return doc, ok
}

func (a *API) managedDocument(tx *store.Tx, account, policyARN string) (string, bool) {
	if p, ok := awsManaged[policyARN]; ok {
		return p.Document, true
	}
	p, ok := a.policies.Get(tx, global(account).Key(policyARN))
	return p.Document, ok
}

func parsed(document string) *policy.Document {
	d, err := policy.Parse(document, policy.Identity)
	if err != nil { // validated when it was written
		panic(fmt.Sprintf("iamd: a broken policy document was stored: %v", err))
	}
	return d
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
