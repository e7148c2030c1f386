package iamd

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/store"
	"serin/internal/wire"
)

// provider is an OpenID Connect provider; its row's key is its URL.
type provider struct {
	ARN, URL    string // URL without https://
	ClientIDs   []string
	Thumbprints []string
	Created     time.Time
}

func (a *API) providerOps() []*wire.Op {
	return []*wire.Op{
		withTags(handle("CreateOpenIDConnectProvider", a.CreateOpenIDConnectProvider, func(c *wire.Call, in *iam.CreateOpenIDConnectProviderInput) string {
			name, err := providerURL(aws.ToString(in.Url))
			if err != nil { // the handler refuses it; nothing is made
				name = "*"
			}
			return global(c.Scope.Account).For("iam", "oidc-provider/"+name).String()
		}, wire.Members{Performed: "Url ClientIDList Tags", Recorded: "ThumbprintList"}), "TagOpenIDConnectProvider", func(in *iam.CreateOpenIDConnectProviderInput) []types.Tag { return in.Tags }),
		handle("GetOpenIDConnectProvider", a.GetOpenIDConnectProvider, func(_ *wire.Call, in *iam.GetOpenIDConnectProviderInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}, wire.Members{Performed: "OpenIDConnectProviderArn"}),
		handle("ListOpenIDConnectProviders", a.ListOpenIDConnectProviders, all[iam.ListOpenIDConnectProvidersInput], wire.Members{}),
		handle("DeleteOpenIDConnectProvider", a.DeleteOpenIDConnectProvider, func(_ *wire.Call, in *iam.DeleteOpenIDConnectProviderInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}, wire.Members{Performed: "OpenIDConnectProviderArn"}),
		handle("AddClientIDToOpenIDConnectProvider", a.AddClientIDToOpenIDConnectProvider, func(_ *wire.Call, in *iam.AddClientIDToOpenIDConnectProviderInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}, wire.Members{Performed: "ClientID OpenIDConnectProviderArn"}),
		handle("RemoveClientIDFromOpenIDConnectProvider", a.RemoveClientIDFromOpenIDConnectProvider, func(_ *wire.Call, in *iam.RemoveClientIDFromOpenIDConnectProviderInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}, wire.Members{Performed: "ClientID OpenIDConnectProviderArn"}),
		handle("UpdateOpenIDConnectProviderThumbprint", a.UpdateOpenIDConnectProviderThumbprint, func(_ *wire.Call, in *iam.UpdateOpenIDConnectProviderThumbprintInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}, wire.Members{Performed: "OpenIDConnectProviderArn", Recorded: "ThumbprintList"}),
		handle("TagOpenIDConnectProvider", a.TagOpenIDConnectProvider, func(_ *wire.Call, in *iam.TagOpenIDConnectProviderInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}, wire.Members{Performed: "OpenIDConnectProviderArn Tags"}),
		handle("UntagOpenIDConnectProvider", a.UntagOpenIDConnectProvider, func(_ *wire.Call, in *iam.UntagOpenIDConnectProviderInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}, wire.Members{Performed: "OpenIDConnectProviderArn TagKeys"}),
		handle("ListOpenIDConnectProviderTags", a.ListOpenIDConnectProviderTags, func(_ *wire.Call, in *iam.ListOpenIDConnectProviderTagsInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}, wire.Members{Performed: "OpenIDConnectProviderArn Marker MaxItems"}),
	}
}

var thumbprint = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)

// Thumbprints are kept but not used: IAM ignores them for issuers whose
// certificate is publicly trusted, documented, and no other is served.
func checkThumbprints(list []string) error {
	if len(list) > 5 || slices.ContainsFunc(list, func(t string) bool { return !thumbprint.MatchString(t) }) {
		return &types.InvalidInputException{Message: new("ThumbprintList must hold at most 5 thumbprints of 40 hexadecimal characters")}
	}
	return nil
}

func checkClientIDs(list []string) error {
	if len(list) > 100 {
		return limit("Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: 100")
	}
	for _, c := range list {
		if c == "" || len(c) > 255 {
			return &types.InvalidInputException{Message: new("A client ID must have between 1 and 255 characters, got '" + c + "'")}
		}
	}
	return nil
}

// providerURL is the name of an issuer, its URL without https://, as it is in its
// ARN and before its condition keys.
func providerURL(text string) (string, error) {
	u, err := url.Parse(text)
	name, https := strings.CutPrefix(text, "https://")
	if err != nil || !https || u.Host == "" || u.Port() != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || len(text) > 255 || u.Host+u.EscapedPath() != name {
		return "", &types.InvalidInputException{Message: new("Invalid Open ID Connect Provider URL: it must be an https URL without a user, port or query")}
	}
	return name, nil
}

// CreateOpenIDConnectProvider makes the account trust an issuer's signatures.
func (a *API) CreateOpenIDConnectProvider(ctx context.Context, in *iam.CreateOpenIDConnectProviderInput) (*iam.CreateOpenIDConnectProviderOutput, error) {
	scope := scopeOf(ctx)
	name, err := providerURL(aws.ToString(in.Url))
	if err != nil {
		return nil, err
	}
	if err := checkClientIDs(in.ClientIDList); err != nil {
		return nil, err
	}
	if err := checkThumbprints(in.ThumbprintList); err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	p := provider{ARN: scope.For("iam", "oidc-provider/"+name).String(), URL: name, ClientIDs: in.ClientIDList, Thumbprints: in.ThumbprintList, Created: time.Now().UTC()}
	err = a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.providers.Get(tx, scope.Key(name)); ok {
			return exists("Provider with url https://%s already exists.", name)
		}
		n := 0
		for range a.providers.Scan(tx, scope.Key("")) {
			n++
		}
		if n >= 100 {
			return limit("Cannot exceed quota for OpenIDConnectProvidersPerAccount: 100")
		}
		a.providers.Put(tx, scope.Key(name), p)
		a.tags.Set(tx, p.ARN, labels)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iam.CreateOpenIDConnectProviderOutput{OpenIDConnectProviderArn: new(p.ARN), Tags: in.Tags}, nil
}

func providerName(providerARN *string) string {
	_, name, _ := strings.Cut(aws.ToString(providerARN), ":oidc-provider/")
	return name
}

func (a *API) viewProvider(ctx context.Context, providerARN *string, fn func(*store.Tx, provider) error) (err error) {
	a.store.View(func(tx *store.Tx) {
		p, ok := a.providers.Get(tx, scopeOf(ctx).Key(providerName(providerARN)))
		if !ok || p.ARN != aws.ToString(providerARN) {
			err = &types.NoSuchEntityException{Message: new("OpenIDConnect Provider not found for arn " + aws.ToString(providerARN))}
			return
		}
		err = fn(tx, p)
	})
	return err
}

// changeProvider replaces a provider by what fn makes of it.
func (a *API) changeProvider(ctx context.Context, providerARN *string, fn func(*store.Tx, *provider) error) error {
	key := scopeOf(ctx).Key(providerName(providerARN))
	return a.store.Update(func(tx *store.Tx) error {
		p, ok := a.providers.Get(tx, key)
		if !ok || p.ARN != aws.ToString(providerARN) {
			return &types.NoSuchEntityException{Message: new("OpenIDConnect Provider not found for arn " + aws.ToString(providerARN))}
		}
		if err := fn(tx, &p); err != nil {
			return err
		}
		a.providers.Put(tx, key, p)
		return nil
	})
}

// GetOpenIDConnectProvider describes a provider.
func (a *API) GetOpenIDConnectProvider(ctx context.Context, in *iam.GetOpenIDConnectProviderInput) (*iam.GetOpenIDConnectProviderOutput, error) {
	out := &iam.GetOpenIDConnectProviderOutput{}
	return out, a.viewProvider(ctx, in.OpenIDConnectProviderArn, func(tx *store.Tx, p provider) error {
		*out = iam.GetOpenIDConnectProviderOutput{Url: new(p.URL), ClientIDList: p.ClientIDs, ThumbprintList: p.Thumbprints, CreateDate: new(p.Created), Tags: a.tagsOut(tx, p.ARN)}
		return nil
	})
}

// ListOpenIDConnectProviders lists the account's providers.
func (a *API) ListOpenIDConnectProviders(ctx context.Context, _ *iam.ListOpenIDConnectProvidersInput) (*iam.ListOpenIDConnectProvidersOutput, error) {
	out := &iam.ListOpenIDConnectProvidersOutput{}
	a.store.View(func(tx *store.Tx) {
		for _, p := range a.providers.Scan(tx, scopeOf(ctx).Key("")) {
			out.OpenIDConnectProviderList = append(out.OpenIDConnectProviderList, types.OpenIDConnectProviderListEntry{Arn: new(p.ARN)})
		}
	})
	return out, nil
}

// DeleteOpenIDConnectProvider removes a provider; roles that trust it stay.
func (a *API) DeleteOpenIDConnectProvider(ctx context.Context, in *iam.DeleteOpenIDConnectProviderInput) (*iam.DeleteOpenIDConnectProviderOutput, error) {
	key := scopeOf(ctx).Key(providerName(in.OpenIDConnectProviderArn))
	return &iam.DeleteOpenIDConnectProviderOutput{}, a.store.Update(func(tx *store.Tx) error {
		p, ok := a.providers.Get(tx, key)
		if !ok || p.ARN != aws.ToString(in.OpenIDConnectProviderArn) {
			return &types.NoSuchEntityException{Message: new("OpenId connect Provider " + aws.ToString(in.OpenIDConnectProviderArn) + " cannot be found.")}
		}
		a.providers.Delete(tx, key)
		a.tags.Set(tx, p.ARN, nil)
		return nil
	})
}

// AddClientIDToOpenIDConnectProvider accepts one more audience; twice is once.
func (a *API) AddClientIDToOpenIDConnectProvider(ctx context.Context, in *iam.AddClientIDToOpenIDConnectProviderInput) (*iam.AddClientIDToOpenIDConnectProviderOutput, error) {
	return &iam.AddClientIDToOpenIDConnectProviderOutput{}, a.changeProvider(ctx, in.OpenIDConnectProviderArn, func(_ *store.Tx, p *provider) error {
		if slices.Contains(p.ClientIDs, aws.ToString(in.ClientID)) {
			return nil
		}
		p.ClientIDs = append(slices.Clone(p.ClientIDs), aws.ToString(in.ClientID))
		return checkClientIDs(p.ClientIDs)
	})
}

// RemoveClientIDFromOpenIDConnectProvider accepts an audience no more; one that
// is not there is as good as removed, documented.
func (a *API) RemoveClientIDFromOpenIDConnectProvider(ctx context.Context, in *iam.RemoveClientIDFromOpenIDConnectProviderInput) (*iam.RemoveClientIDFromOpenIDConnectProviderOutput, error) {
	return &iam.RemoveClientIDFromOpenIDConnectProviderOutput{}, a.changeProvider(ctx, in.OpenIDConnectProviderArn, func(_ *store.Tx, p *provider) error {
		p.ClientIDs = slices.DeleteFunc(slices.Clone(p.ClientIDs), func(c string) bool { return c == aws.ToString(in.ClientID) })
		return nil
	})
}

// UpdateOpenIDConnectProviderThumbprint replaces the thumbprints.
func (a *API) UpdateOpenIDConnectProviderThumbprint(ctx context.Context, in *iam.UpdateOpenIDConnectProviderThumbprintInput) (*iam.UpdateOpenIDConnectProviderThumbprintOutput, error) {
	return &iam.UpdateOpenIDConnectProviderThumbprintOutput{}, a.changeProvider(ctx, in.OpenIDConnectProviderArn, func(_ *store.Tx, p *provider) error {
		p.Thumbprints = in.ThumbprintList
		return checkThumbprints(in.ThumbprintList)
	})
}

// TagOpenIDConnectProvider adds tags to a provider.
func (a *API) TagOpenIDConnectProvider(ctx context.Context, in *iam.TagOpenIDConnectProviderInput) (*iam.TagOpenIDConnectProviderOutput, error) {
	list, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.TagOpenIDConnectProviderOutput{}, a.changeProvider(ctx, in.OpenIDConnectProviderArn, func(tx *store.Tx, p *provider) error {
		return tagError(a.tags.Add(tx, p.ARN, list))
	})
}

// UntagOpenIDConnectProvider removes tags from a provider.
func (a *API) UntagOpenIDConnectProvider(ctx context.Context, in *iam.UntagOpenIDConnectProviderInput) (*iam.UntagOpenIDConnectProviderOutput, error) {
	return &iam.UntagOpenIDConnectProviderOutput{}, a.changeProvider(ctx, in.OpenIDConnectProviderArn, func(tx *store.Tx, p *provider) error {
		a.tags.Remove(tx, p.ARN, in.TagKeys)
		return nil
	})
}

// ListOpenIDConnectProviderTags pages through a provider's tags.
func (a *API) ListOpenIDConnectProviderTags(ctx context.Context, in *iam.ListOpenIDConnectProviderTagsInput) (*iam.ListOpenIDConnectProviderTagsOutput, error) {
	out := &iam.ListOpenIDConnectProviderTagsOutput{}
	return out, a.viewProvider(ctx, in.OpenIDConnectProviderArn, func(tx *store.Tx, p provider) (err error) {
		out.Tags, out.Marker, out.IsTruncated, err = a.tagList(tx, p.ARN, in.Marker, in.MaxItems)
		return err
	})
}
