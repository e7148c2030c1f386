package iamd

import (
	"context"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"serin/internal/store"
	"serin/internal/wire"
)

func (a *API) providerOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("CreateOpenIDConnectProvider", a.CreateOpenIDConnectProvider, on("CreateOpenIDConnectProvider", func(c *wire.Call, in *iam.CreateOpenIDConnectProviderInput) string {
			return scopeOf(c).For("iam", "oidc-provider/"+strings.TrimPrefix(aws.ToString(in.Url), "https://")).String()
		}), wire.Members{Performed: "Url ClientIDList", Recorded: "Tags ThumbprintList"}),
		wire.Handle("GetOpenIDConnectProvider", a.GetOpenIDConnectProvider, on("GetOpenIDConnectProvider", func(_ *wire.Call, in *iam.GetOpenIDConnectProviderInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}),
			wire.Members{Performed: "OpenIDConnectProviderArn"}),
		wire.Handle("ListOpenIDConnectProviders", a.ListOpenIDConnectProviders, on("ListOpenIDConnectProviders", func(c *wire.Call, _ *iam.ListOpenIDConnectProvidersInput) string { return "*" }),
			wire.Members{}),
		wire.Handle("DeleteOpenIDConnectProvider", a.DeleteOpenIDConnectProvider, on("DeleteOpenIDConnectProvider", func(_ *wire.Call, in *iam.DeleteOpenIDConnectProviderInput) string {
			return aws.ToString(in.OpenIDConnectProviderArn)
		}),
			wire.Members{Performed: "OpenIDConnectProviderArn"}),
	}
}

var thumbprint = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)

// CreateOpenIDConnectProvider makes the account trust an issuer's signatures.
// Thumbprints are kept but not used: IAM ignores them for issuers whose
// certificate is publicly trusted, documented, and no other is served.
func (a *API) CreateOpenIDConnectProvider(ctx context.Context, in *iam.CreateOpenIDConnectProviderInput) (*iam.CreateOpenIDConnectProviderOutput, error) {
	call := wire.From(ctx)
	u, err := url.Parse(aws.ToString(in.Url))
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Port() != "" || u.RawQuery != "" || u.Fragment != "" || len(aws.ToString(in.Url)) > 255 {
		return nil, &types.InvalidInputException{Message: new("Invalid Open ID Connect Provider URL: it must be an https URL without a port or query")}
	}
	if len(in.ClientIDList) > 100 {
		return nil, &types.LimitExceededException{Message: new("Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: 100")}
	}
	for _, t := range in.ThumbprintList {
		if !thumbprint.MatchString(t) || len(in.ThumbprintList) > 5 {
			return nil, &types.InvalidInputException{Message: new("ThumbprintList must hold at most 5 thumbprints of 40 hexadecimal characters")}
		}
	}
	name := strings.TrimSuffix(u.Host+u.Path, "/")
	p := provider{
		ARN: scopeOf(call).For("iam", "oidc-provider/"+name).String(), URL: name, ClientIDs: in.ClientIDList,
		Thumbprints: in.ThumbprintList, Created: time.Now().UTC(), Tags: tagsIn(in.Tags),
	}
	err = a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.providers.Get(tx, scopeOf(call).Key(name)); ok {
			return &types.EntityAlreadyExistsException{Message: new("Provider with url https://" + name + " already exists.")}
		}
		a.providers.Put(tx, scopeOf(call).Key(name), p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iam.CreateOpenIDConnectProviderOutput{OpenIDConnectProviderArn: new(p.ARN), Tags: tagsOut(p.Tags)}, nil
}

func providerName(providerARN *string) string {
	_, name, _ := strings.Cut(aws.ToString(providerARN), ":oidc-provider/")
	return name
}

// GetOpenIDConnectProvider describes a provider.
func (a *API) GetOpenIDConnectProvider(ctx context.Context, in *iam.GetOpenIDConnectProviderInput) (*iam.GetOpenIDConnectProviderOutput, error) {
	var p provider
	var ok bool
	a.store.View(func(tx *store.Tx) {
		p, ok = a.providers.Get(tx, scopeOf(wire.From(ctx)).Key(providerName(in.OpenIDConnectProviderArn)))
	})
	if !ok {
		return nil, &types.NoSuchEntityException{Message: new("OpenIDConnect Provider not found for arn " + aws.ToString(in.OpenIDConnectProviderArn))}
	}
	return &iam.GetOpenIDConnectProviderOutput{
		Url: new(p.URL), ClientIDList: p.ClientIDs, ThumbprintList: p.Thumbprints, CreateDate: new(p.Created), Tags: tagsOut(p.Tags),
	}, nil
}

// ListOpenIDConnectProviders lists the account's providers.
func (a *API) ListOpenIDConnectProviders(ctx context.Context, _ *iam.ListOpenIDConnectProvidersInput) (*iam.ListOpenIDConnectProvidersOutput, error) {
	out := &iam.ListOpenIDConnectProvidersOutput{}
	a.store.View(func(tx *store.Tx) {
		for _, p := range a.providers.Scan(tx, scopeOf(wire.From(ctx)).Key("")) {
			out.OpenIDConnectProviderList = append(out.OpenIDConnectProviderList, types.OpenIDConnectProviderListEntry{Arn: new(p.ARN)})
		}
	})
	return out, nil
}

// DeleteOpenIDConnectProvider removes a provider; roles that trust it stay.
func (a *API) DeleteOpenIDConnectProvider(ctx context.Context, in *iam.DeleteOpenIDConnectProviderInput) (*iam.DeleteOpenIDConnectProviderOutput, error) {
	key := scopeOf(wire.From(ctx)).Key(providerName(in.OpenIDConnectProviderArn))
	return &iam.DeleteOpenIDConnectProviderOutput{}, a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.providers.Get(tx, key); !ok {
			return &types.NoSuchEntityException{Message: new("OpenId connect Provider " + aws.ToString(in.OpenIDConnectProviderArn) + " cannot be found.")}
		}
		a.providers.Delete(tx, key)
		return nil
	})
}
