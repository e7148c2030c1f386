package ecrd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/store"
	"serin/internal/wire"
)

// settings are a registry's own: its policy, and what its account has set.
type settings struct {
	Policy  string
	Account map[string]string
}

// The account settings, and their values; the first is a new account's, documented.
const (
	scanType    = "BASIC_SCAN_TYPE_VERSION"
	policyScope = "REGISTRY_POLICY_SCOPE"
	mounting    = "BLOB_MOUNTING"
)

var accountSettings = map[string][]string{
	scanType:    {"AWS_NATIVE"}, // nothing is scanned here
	policyScope: {"V2", "V1"},
	mounting:    {"DISABLED", "ENABLED"},
}

func settingsKey(scope arn.Scope) string { return scope.Key("registry") }

func (a *API) settingsOf(scope arn.Scope) (s settings) {
	a.store.View(func(tx *store.Tx) { s, _ = a.settings.Get(tx, settingsKey(scope)) })
	return s
}

// value is that of an account setting.
func (s settings) value(name string) string {
	return cmp.Or(s.Account[name], accountSettings[name][0])
}

func checkSetting(name string) error {
	if _, known := accountSettings[name]; !known {
		return invalid("name must be %s, %s or %s, got '%s'", scanType, policyScope, mounting, name)
	}
	return nil
}

// GetAccountSetting returns a setting of the registry.
func (a *API) GetAccountSetting(ctx context.Context, in *ecr.GetAccountSettingInput) (*ecr.GetAccountSettingOutput, error) {
	name := aws.ToString(in.Name)
	if err := checkSetting(name); err != nil {
		return nil, err
	}
	return &ecr.GetAccountSettingOutput{Name: &name, Value: new(a.settingsOf(wire.From(ctx).Scope).value(name))}, nil
}

// PutAccountSetting changes a setting of the registry.
func (a *API) PutAccountSetting(ctx context.Context, in *ecr.PutAccountSettingInput) (*ecr.PutAccountSettingOutput, error) {
	name, value := aws.ToString(in.Name), aws.ToString(in.Value)
	if err := checkSetting(name); err != nil {
		return nil, err
	}
	if !slices.Contains(accountSettings[name], value) {
		return nil, invalid("value of %s must be %s, got '%s'", name, strings.Join(accountSettings[name], " or "), value)
	}
	err := a.changeSettings(ctx, func(s *settings) error {
		if name == policyScope && s.Policy != "" {
			if err := checkRegistryPolicy(s.Policy, value); err != nil {
				return err
			}
		}
		account := map[string]string{name: value}
		for k, v := range s.Account {
			if k != name {
				account[k] = v
			}
		}
		s.Account = account
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutAccountSettingOutput{Name: &name, Value: &value}, nil
}

func (a *API) changeSettings(ctx context.Context, fn func(*settings) error) error {
	key := settingsKey(wire.From(ctx).Scope)
	return a.store.Update(func(tx *store.Tx) error {
		s, _ := a.settings.Get(tx, key)
		if err := fn(&s); err != nil {
			return err
		}
		a.settings.Put(tx, key, s)
		return nil
	})
}

// scopeV1 are the actions that a registry policy of scope V1 can be about,
// documented; one of V2 can be about all.
var scopeV1 = []string{"ecr:ReplicateImage", "ecr:BatchImportUpstreamImage", "ecr:CreateRepository"}

// checkRegistryPolicy validates a registry's policy for a scope.
func checkRegistryPolicy(text, scope string) error {
	refused := func(why string) error {
		return &types.InvalidParameterException{Message: new("Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid registry policy provided' (" + why + ")")}
	}
	if len(text) > mostPolicy {
		return refused(fmt.Sprintf("it can have at most %d characters", mostPolicy))
	}
	d, err := policy.Parse(text, policy.Resource)
	if err != nil {
		return refused(err.Error())
	}
	for i, st := range d.Statements {
		if st.Resources == nil && st.NotResources == nil {
			return refused(fmt.Sprintf("statement %d has no Resource", i+1))
		}
		for _, action := range slices.Concat(st.Actions, st.NotActions) {
			if scope == "V1" && !slices.ContainsFunc(scopeV1, func(s string) bool { return strings.EqualFold(s, action) }) {
				return refused(fmt.Sprintf("statement %d has the action %s, and %s is V1: it can have %s", i+1, action, policyScope, strings.Join(scopeV1, ", ")))
			}
		}
	}
	return nil
}

// PutRegistryPolicy replaces the registry's policy.
func (a *API) PutRegistryPolicy(ctx context.Context, in *ecr.PutRegistryPolicyInput) (*ecr.PutRegistryPolicyOutput, error) {
	text := aws.ToString(in.PolicyText)
	err := a.changeSettings(ctx, func(s *settings) error {
		s.Policy = text
		return checkRegistryPolicy(text, s.value(policyScope))
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutRegistryPolicyOutput{PolicyText: &text, RegistryId: new(wire.From(ctx).Scope.Account)}, nil
}

func noRegistryPolicy(scope arn.Scope) error {
	return &types.RegistryPolicyNotFoundException{Message: new(fmt.Sprintf("Registry policy does not exist in the registry with id '%s'", scope.Account))}
}

// GetRegistryPolicy returns the registry's policy.
func (a *API) GetRegistryPolicy(ctx context.Context, _ *ecr.GetRegistryPolicyInput) (*ecr.GetRegistryPolicyOutput, error) {
	scope := wire.From(ctx).Scope
	s := a.settingsOf(scope)
	if s.Policy == "" {
		return nil, noRegistryPolicy(scope)
	}
	return &ecr.GetRegistryPolicyOutput{PolicyText: &s.Policy, RegistryId: new(scope.Account)}, nil
}

// DeleteRegistryPolicy removes the registry's policy.
func (a *API) DeleteRegistryPolicy(ctx context.Context, _ *ecr.DeleteRegistryPolicyInput) (*ecr.DeleteRegistryPolicyOutput, error) {
	scope := wire.From(ctx).Scope
	out := &ecr.DeleteRegistryPolicyOutput{RegistryId: new(scope.Account)}
	err := a.changeSettings(ctx, func(s *settings) error {
		if s.Policy == "" {
			return noRegistryPolicy(scope)
		}
		out.PolicyText, s.Policy = new(s.Policy), ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DescribeRegistry tells the registry's settings; nothing is replicated.
func (a *API) DescribeRegistry(ctx context.Context, _ *ecr.DescribeRegistryInput) (*ecr.DescribeRegistryOutput, error) {
	return &ecr.DescribeRegistryOutput{RegistryId: new(wire.From(ctx).Scope.Account), ReplicationConfiguration: &types.ReplicationConfiguration{Rules: []types.ReplicationRule{}}}, nil
}

// PutImageScanningConfiguration records whether images are to be scanned when
// they are pushed. Nothing is scanned.
func (a *API) PutImageScanningConfiguration(ctx context.Context, in *ecr.PutImageScanningConfigurationInput) (*ecr.PutImageScanningConfigurationOutput, error) {
	if in.ImageScanningConfiguration == nil {
		return nil, invalid("imageScanningConfiguration must be given")
	}
	err := a.change(ctx, in.RegistryId, in.RepositoryName, func(r *repository) error {
		r.ScanOnPush = in.ImageScanningConfiguration.ScanOnPush
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutImageScanningConfigurationOutput{ImageScanningConfiguration: in.ImageScanningConfiguration, RegistryId: new(wire.From(ctx).Scope.Account), RepositoryName: in.RepositoryName}, nil
}
