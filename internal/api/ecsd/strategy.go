package ecsd

import (
	"reflect"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
)

// where is where a strategy is named: AWS words some refusals differently.
type where int

const (
	inDefault where = iota // the cluster's own
	inRequest              // a service's or a task's
)

// checkStrategy refuses a strategy that ECS refuses, in its words; those of too
// many providers, and of Managed Instances mixed with others, are guessed.
func (a *API) checkStrategy(tx *store.Tx, scope arn.Scope, c cluster, strategy []types.CapacityProviderStrategyItem, at where) error {
	bases, weights := 0, int32(0)
	var onFargate, managed bool
	for n, item := range strategy {
		name := aws.ToString(item.CapacityProvider)
		switch {
		case item.Weight < 0 || item.Weight > 1000:
			return invalid("The weight of a capacity provider must be between 0 and 1000, got %d", item.Weight)
		case item.Base < 0 || item.Base > 100000:
			return invalid("The base of a capacity provider must be between 0 and 100000, got %d", item.Base)
		case !slices.Contains(c.Providers, name):
			return invalid("The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. Associate the capacity provider with the cluster or specify a valid capacity provider and try again.")
		case slices.ContainsFunc(strategy[:n], func(o types.CapacityProviderStrategyItem) bool { return aws.ToString(o.CapacityProvider) == name }):
			return invalid("The capacity provider %s is named twice in the capacity provider strategy", name)
		}
		if isFargate(name) {
			onFargate = true
		} else {
			managed = true
			if p, _ := a.providers.Get(tx, providerKey(scope, c.Name, name)); p.Status != types.CapacityProviderStatusActive {
				return invalid("The specified capacity provider '%s' is not in an ACTIVE state. Specify a valid capacity provider and try again.", name)
			}
		}
		if item.Base > 0 {
			bases++
		}
		weights += item.Weight
	}
	switch {
	case len(strategy) == 0:
		return nil
	case len(strategy) > 20:
		return invalid("A capacity provider strategy can contain at most 20 capacity providers.")
	case onFargate && managed:
		return invalid("A capacity provider strategy cannot contain a mix of capacity providers using Managed Instances and Fargate providers. Specify one or the other and try again.")
	case bases > 1 && at == inDefault:
		return invalid("The specified capacity provider strategy contains multiple capacity providers with a base value defined. Only one capacity provider per strategy can have a base value defined.")
	case bases > 1:
		return invalid("There are multiple capacity providers in the specified capacity provider strategy with a base value greater than zero. Only one capacity provider can have a base value greater than zero. Specify a valid capacity provider strategy and try again.")
	case weights == 0 && at == inRequest:
		return invalid("There are no capacity providers in the capacity provider strategy with a weight value greater than zero. Specify a weight value greater than zero for at least one capacity provider and try again.")
	}
	return nil
}

// nextProvider is the provider that the next task goes to, where have is what each
// has: the base first, then by weight; documented.
func nextProvider(strategy []types.CapacityProviderStrategyItem, have map[string]int) string {
	best, least := "", 0.0
	for _, item := range strategy {
		name := aws.ToString(item.CapacityProvider)
		beyond := have[name] - int(item.Base)
		if beyond < 0 {
			return name
		}
		if item.Weight == 0 {
			continue
		}
		if share := float64(beyond+1) / float64(item.Weight); best == "" || share < least {
			best, least = name, share
		}
	}
	return best
}

// launchTypeOf is what a task of a provider says it was launched as.
func launchTypeOf(provider string) types.LaunchType {
	if isFargate(provider) {
		return types.LaunchTypeFargate
	}
	return types.LaunchTypeManagedInstances
}

// checkCapacity refuses a service's task definition that its capacity cannot run;
// the text is that of a stopped task, observed.
func checkCapacity(capacity []types.CapacityProviderStrategyItem, d types.TaskDefinition) error {
	for _, item := range capacity {
		want := types.CompatibilityManagedInstances
		if isFargate(aws.ToString(item.CapacityProvider)) {
			want = types.CompatibilityFargate
		}
		if !slices.Contains(d.Compatibilities, want) {
			return invalid("The selected task definition is not compatible with the selected compute strategy")
		}
	}
	return nil
}

// changeCapacity gives a service another strategy; that needs a new deployment,
// measured.
func (a *API) changeCapacity(tx *store.Tx, scope arn.Scope, s *service, in *ecs.UpdateServiceInput) error {
	c, _ := a.clusters.Get(tx, scope.Key(s.Cluster))
	strategy := in.CapacityProviderStrategy
	if len(strategy) == 0 { // back to the cluster's
		if strategy = c.Strategy; len(strategy) == 0 {
			return invalid("No launch type to fall back to for empty capacity provider strategy. Your service was not created with a launch type.")
		}
	}
	if err := a.checkStrategy(tx, scope, c, strategy, inRequest); err != nil {
		return err
	}
	if !reflect.DeepEqual(strategy, s.Capacity) && !in.ForceNewDeployment {
		return invalid("When switching from launch type to capacity provider strategy on an existing service, or making a change to a capacity provider strategy on a service that is already using one, you must force a new deployment.")
	}
	s.Capacity, s.LaunchType = strategy, ""
	return nil
}

// checkRebalance refuses to balance what cannot start a task before it stops one;
// observed.
func (s service) checkRebalance() error {
	if s.Rebalance == types.AvailabilityZoneRebalancingEnabled && aws.ToInt32(s.Config.MaximumPercent) <= 100 {
		return invalid("Availability Zone Rebalancing does not support maximumPercent <= 100 %% as deployment configuration")
	}
	return nil
}
