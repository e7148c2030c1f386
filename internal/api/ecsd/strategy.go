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

// kind is what runs a task.
type kind string

const (
	onMachine kind = ""        // this machine as it is: launch types without container instances
	onFargate kind = "Fargate" // the capacity providers of Fargate
	onManaged kind = "Managed Instances"
	onGroups  kind = "Auto Scaling groups" // container instances of groups, by provider or launch type EC2
)

// kindOf is what runs the tasks of a strategy, or else of a launch type. A strategy
// has providers of one kind.
func (a *API) kindOf(tx *store.Tx, scope arn.Scope, c cluster, launch types.LaunchType, strategy []types.CapacityProviderStrategyItem) kind {
	if len(strategy) == 0 {
		if c.Hosts && launch == types.LaunchTypeEc2 {
			return onGroups
		}
		return onMachine
	}
	return a.kindOfProvider(tx, scope, c.Name, aws.ToString(strategy[0].CapacityProvider))
}

func (a *API) kindOfProvider(tx *store.Tx, scope arn.Scope, cluster, name string) kind {
	if isFargate(name) {
		return onFargate
	}
	if p, _ := a.providerIn(tx, scope, cluster, name); p.Group != nil {
		return onGroups
	}
	return onManaged
}

// checkStrategy refuses a strategy that ECS refuses, in its words; those of too
// many providers, and of Managed Instances mixed with others, are guessed.
func (a *API) checkStrategy(tx *store.Tx, scope arn.Scope, c cluster, strategy []types.CapacityProviderStrategyItem, at where) error {
	bases, weights := 0, int32(0)
	kinds := map[kind]bool{}
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
		kinds[a.kindOfProvider(tx, scope, c.Name, name)] = true
		if !isFargate(name) {
			if p, _ := a.providerIn(tx, scope, c.Name, name); p.Status != types.CapacityProviderStatusActive {
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
	case kinds[onGroups] && kinds[onFargate]: // observed
		return invalid("A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and Fargate providers. Specify one or the other and try again.")
	case kinds[onFargate] && kinds[onManaged]:
		return invalid("A capacity provider strategy cannot contain a mix of capacity providers using Managed Instances and Fargate providers. Specify one or the other and try again.")
	case kinds[onGroups] && kinds[onManaged]:
		return invalid("A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and Managed Instances providers. Specify one or the other and try again.")
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
func (a *API) launchTypeOf(tx *store.Tx, scope arn.Scope, cluster, provider string) types.LaunchType {
	return map[kind]types.LaunchType{onFargate: types.LaunchTypeFargate, onManaged: types.LaunchTypeManagedInstances, onGroups: types.LaunchTypeEc2}[a.kindOfProvider(tx, scope, cluster, provider)]
}

// checkCapacity refuses a service's task definition that its capacity cannot run;
// the text is that of a stopped task, observed.
func checkCapacity(on kind, d types.TaskDefinition) error {
	want, ok := map[kind]types.Compatibility{onFargate: types.CompatibilityFargate, onManaged: types.CompatibilityManagedInstances, onGroups: types.CompatibilityEc2}[on]
	if ok && !slices.Contains(d.Compatibilities, want) {
		return invalid("The selected task definition is not compatible with the selected compute strategy")
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
