package ecsd

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// provider is the row of a capacity provider: of Managed Instances, which belongs to
// one cluster, or of an Auto Scaling group, which clusters are associated with.
type provider struct {
	Name, Cluster string
	Status        types.CapacityProviderStatus
	Update        types.CapacityProviderUpdateStatus
	Managed       types.ManagedInstancesProvider
	Group         *types.AutoScalingGroupProvider // nil: Managed Instances
	High, Low     time.Time                       // since when the group is to have more instances, or fewer
	Due           time.Time                       // when what is in progress is done
}

// How long making and deleting a provider takes; measured.
const (
	makingProvider   = 28 * time.Second
	deletingProvider = 39 * time.Second
)

// The providers that every account has.
const (
	fargate     = "FARGATE"
	fargateSpot = "FARGATE_SPOT"
)

func isFargate(name string) bool { return name == fargate || name == fargateSpot }

func providerKey(scope arn.Scope, cluster, name string) string {
	return scope.Key(cluster + "/" + name)
}

func providerARN(scope arn.Scope, name string) string {
	return scope.For("ecs", "capacity-provider/"+name).String()
}

var (
	providerNames = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	reservedNames = regexp.MustCompile(`(?i)^(aws|ecs|fargate)`)
	subnetNames   = regexp.MustCompile(`^subnet-([0-9a-z]{8}|[0-9a-z]{17})$`)
	groupNames    = regexp.MustCompile(`^sg-([0-9a-z]{8}|[0-9a-z]{17})$`)
)

// mostProviderTags is less than elsewhere: ECS adds its own to what it launches,
// documented.
const mostProviderTags = 45

// mostProviders is how many a cluster may have, documented.
const mostProviders = 20

func tooManyProviders() error {
	return &types.LimitExceededException{Message: new("The maximum number of capacity providers per cluster has been exceeded.")} // guessed
}

// CreateCapacityProvider makes a provider: one of Managed Instances joins its cluster
// by itself.
func (a *API) CreateCapacityProvider(ctx context.Context, in *ecs.CreateCapacityProviderInput) (*ecs.CreateCapacityProviderOutput, error) {
	call := wire.From(ctx)
	name := aws.ToString(in.Name)
	switch {
	case name == "":
		return nil, client("CapacityProvider name must not be blank")
	case !providerNames.MatchString(name) || reservedNames.MatchString(name):
		return nil, client(`The specified capacity provider name is invalid. Up to 255 characters are allowed, including letters (upper and lowercase), numbers, underscores, and hyphens. The name cannot be prefixed with "aws", "ecs", or "fargate". Specify a valid name and try again.`)
	case in.AutoScalingGroupProvider != nil && in.ManagedInstancesProvider != nil:
		return nil, client("A capacity provider can have an autoScalingGroupProvider or a managedInstancesProvider, not both.") // guessed
	case in.AutoScalingGroupProvider != nil && in.Cluster != nil:
		return nil, clusterOfGroup()
	case in.AutoScalingGroupProvider != nil:
		return a.makeGroupProvider(call, in)
	case in.ManagedInstancesProvider == nil:
		return nil, client("The Managed Instances provider details are required when creating a Managed Instances capacity provider")
	case aws.ToString(in.Cluster) == "":
		return nil, client("Managed Instances Provider is not supported without a Cluster Name")
	case len(in.Tags) > mostProviderTags:
		return nil, client("Managed Instances capacity provider cannot have number of tags exceeding maximum allowed value")
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	c := in.ManagedInstancesProvider
	m := types.ManagedInstancesProvider{
		InfrastructureRoleArn: c.InfrastructureRoleArn, InstanceLaunchTemplate: c.InstanceLaunchTemplate, AutoRepairConfiguration: c.AutoRepairConfiguration,
		InfrastructureOptimization: c.InfrastructureOptimization, PropagateTags: cmp.Or(c.PropagateTags, types.PropagateMITagsNone),
	}
	if err := a.checkManaged(call.Scope, &m); err != nil {
		return nil, err
	}
	p := provider{Name: name, Status: types.CapacityProviderStatusProvisioning, Update: types.CapacityProviderUpdateStatusCreateInProgress, Managed: m, Due: a.clock.Now().Add(makingProvider)}
	var view types.CapacityProvider
	err = a.store.Update(func(tx *store.Tx) error {
		c, err := a.cluster(tx, call.Scope, in.Cluster)
		if err != nil {
			return err
		}
		p.Cluster = c.Name
		if other, ok := a.providerNamed(tx, call.Scope, name); ok && other.Cluster != c.Name {
			return client("The specified capacity provider already exists with account or a different cluster")
		} else if ok {
			return client("The specified capacity provider already exists. To change the configuration of an existing capacity provider, update the capacity provider.")
		}
		if len(c.Providers) >= mostProviders {
			return tooManyProviders()
		}
		c.Providers = append(slices.Clone(c.Providers), name)
		a.clusters.Put(tx, call.Scope.Key(c.Name), c)
		a.forgetProvider(tx, call.Scope, name)
		a.providers.Put(tx, providerKey(call.Scope, c.Name, name), p)
		a.tags.Set(tx, providerARN(call.Scope, name), labels)
		view = a.providerView(tx, call.Scope, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.CreateCapacityProviderOutput{CapacityProvider: &view}, nil
}

// clusterOfGroup is the refusal of a cluster where a group's provider is meant, which is
// no cluster's; guessed.
func clusterOfGroup() error {
	return client("A cluster can be specified only for a capacity provider of Managed Instances.")
}

// makeGroupProvider is CreateCapacityProvider of an Auto Scaling group.
func (a *API) makeGroupProvider(call *wire.Call, in *ecs.CreateCapacityProviderInput) (*ecs.CreateCapacityProviderOutput, error) {
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	var view types.CapacityProvider
	err = a.store.Update(func(tx *store.Tx) error {
		p, err := a.createGroupProvider(tx, call.Scope, *in.Name, *in.AutoScalingGroupProvider)
		if err != nil {
			return err
		}
		a.tags.Set(tx, providerARN(call.Scope, p.Name), labels)
		view = a.providerView(tx, call.Scope, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.CreateCapacityProviderOutput{CapacityProvider: &view}, nil
}

// providerNamed finds a provider that still lives, whatever its cluster: a name is
// an account's, documented.
func (a *API) providerNamed(tx *store.Tx, scope arn.Scope, name string) (provider, bool) {
	for _, p := range a.providers.Scan(tx, scope.Key("")) {
		if p.Name == name && p.Status != types.CapacityProviderStatusInactive {
			return p, true
		}
	}
	return provider{}, false
}

// forgetProvider lets go of what is left of a provider that is gone, when its name is
// to live again: as another cluster's, or of the other kind.
func (a *API) forgetProvider(tx *store.Tx, scope arn.Scope, name string) {
	for key, p := range a.providers.Scan(tx, scope.Key("")) {
		if p.Name == name {
			a.providers.Delete(tx, key)
		}
	}
}

// checkManaged refuses what cannot launch instances, and fills in what AWS fills
// in.
func (a *API) checkManaged(scope arn.Scope, m *types.ManagedInstancesProvider) error {
	t := m.InstanceLaunchTemplate
	switch {
	case aws.ToString(m.InfrastructureRoleArn) == "":
		return client("Managed Instances capacity provider must specify an InfrastructureRole")
	case t == nil || aws.ToString(t.Ec2InstanceProfileArn) == "":
		return client("Managed Instances capacity provider must specify an instance profile")
	case t.NetworkConfiguration == nil:
		return client("Managed Instances capacity provider must specify a Network Configuration")
	case len(t.NetworkConfiguration.Subnets) == 0:
		return client("Managed Instances capacity provider must specify a Network Configuration with non empty subnets")
	}
	if r, err := arn.Parse(*m.InfrastructureRoleArn); err != nil || r.Service != "iam" || !strings.HasPrefix(r.Resource, "role/") || r.Account != scope.Account {
		return client("The specified infrastructure role arn is invalid. The role ARN must have the form arn:partition:iam::account-id:role/role-name. Specify a valid role ARN and try again.")
	}
	if r, err := arn.Parse(*t.Ec2InstanceProfileArn); err != nil || r.Service != "iam" || !strings.HasPrefix(r.Resource, "instance-profile/") || r.Account != scope.Account {
		return client("The specified instance profile role arn is invalid. The instance profile ARN must have the form arn:partition:iam::account-id:instance-profile/profile-name. Specify a valid instance profile ARN and try again.")
	}
	for _, s := range t.NetworkConfiguration.Subnets {
		if !subnetNames.MatchString(s) {
			return client("The specified subnet id is invalid: %s", s)
		}
	}
	for _, g := range t.NetworkConfiguration.SecurityGroups {
		if !groupNames.MatchString(g) {
			return client("The specified security group id is invalid: %s", g)
		}
	}
	if _, _, err := a.deps.Machines.Network(scope, t.NetworkConfiguration.Subnets, t.NetworkConfiguration.SecurityGroups); err != nil {
		return client("%v", err)
	}
	if s := t.StorageConfiguration; s != nil && s.StorageSizeGiB != nil && (*s.StorageSizeGiB < 30 || *s.StorageSizeGiB > 16384) {
		return client("storageSizeGiB must be between 30 and 16384, got %d", *s.StorageSizeGiB)
	}
	if o := m.InfrastructureOptimization; o != nil && o.ScaleInAfter != nil && (*o.ScaleInAfter < -1 || *o.ScaleInAfter > 3600) {
		return client("scaleInAfter must be -1, or between 0 and 3600 seconds, got %d", *o.ScaleInAfter)
	}
	if t.CapacityOptionType == types.CapacityOptionTypeReserved || t.CapacityReservations != nil {
		return client("Serin performs the capacity options ON_DEMAND and SPOT; RESERVED and capacityReservations are not performed.")
	}
	filled := *t
	filled.CapacityOptionType = cmp.Or(t.CapacityOptionType, types.CapacityOptionTypeOnDemand)
	filled.Monitoring = types.ManagedInstancesMonitoringOptions(strings.ToUpper(string(cmp.Or(t.Monitoring, types.ManagedInstancesMonitoringOptionsBasic))))
	filled.InstanceMetadataTagsPropagation = cmp.Or(t.InstanceMetadataTagsPropagation, new(true))
	if filled.StorageConfiguration == nil {
		filled.StorageConfiguration = &types.ManagedInstancesStorageConfiguration{StorageSizeGiB: new(int32(80))}
	}
	m.InstanceLaunchTemplate = &filled
	r, err := requirementsOf(t.InstanceRequirements)
	if err != nil {
		return err
	}
	if len(r.Select(scope.Region)) == 0 {
		return client("No instance types satisfy the instance requirements specified in the Managed Instances capacity provider.")
	}
	as := Actor{Role: *m.InfrastructureRoleArn, Service: ecsService, Session: infrastructureSession}
	if a.deps.Roles.Check(as, "", "") != nil {
		return client("Caught ServiceAccessDeniedException for ECSInfrastructureRole[%s]", *m.InfrastructureRoleArn)
	}
	return nil
}

// infrastructureSession is ECS's session when it buys instances, observed.
const infrastructureSession = "ECSManagedInstances"

// ownProvider finds the provider that a request names.
func (a *API) ownProvider(tx *store.Tx, scope arn.Scope, nameOrARN, in *string) (string, provider, error) {
	name := lastPart(aws.ToString(nameOrARN))
	p, ok := a.providerNamed(tx, scope, name)
	switch {
	case isFargate(name):
		return "", p, client("The FARGATE and FARGATE_SPOT capacity providers are reserved and cannot be changed.") // guessed
	case !ok:
		return "", p, client("The specified capacity provider was not found. Specify a valid capacity provider and try again")
	case in == nil:
		return "", p, client("The specified capacity provider already exists with cluster scope")
	case clusterName(in) != p.Cluster:
		return "", p, client("Capacity provider active cluster name does not match the cluster name in the request")
	}
	return providerKey(scope, p.Cluster, p.Name), p, nil
}

// UpdateCapacityProvider changes what later instances are like; those that run
// stay as they are, documented.
func (a *API) UpdateCapacityProvider(ctx context.Context, in *ecs.UpdateCapacityProviderInput) (*ecs.UpdateCapacityProviderOutput, error) {
	call := wire.From(ctx)
	switch u := in.ManagedInstancesProvider; {
	case aws.ToString(in.Name) == "":
		return nil, client("A name is required when updating a capacity provider")
	case u == nil && in.AutoScalingGroupProvider == nil:
		return nil, client("autoScalingGroupProvider or managedInstancesProvider must be specified.")
	case u != nil && in.AutoScalingGroupProvider != nil:
		return nil, client("A capacity provider can have an autoScalingGroupProvider or a managedInstancesProvider, not both.") // guessed
	case in.AutoScalingGroupProvider != nil && in.Cluster != nil:
		return nil, clusterOfGroup()
	case u != nil && u.InstanceLaunchTemplate == nil:
		return nil, client("Managed Instances capacity provider must specify an instance profile")
	}
	var view types.CapacityProvider
	err := a.store.Update(func(tx *store.Tx) error {
		if u := in.AutoScalingGroupProvider; u != nil {
			p, err := a.updateGroupProvider(tx, call.Scope, lastPart(*in.Name), *u)
			view = a.providerView(tx, call.Scope, p)
			return err
		}
		key, p, err := a.ownProvider(tx, call.Scope, in.Name, in.Cluster)
		if err != nil {
			return err
		}
		if p.Status != types.CapacityProviderStatusActive {
			return &types.UpdateInProgressException{Message: new("The specified capacity provider is in a busy state. It must be ACTIVE before it can be updated.")}
		}
		p.Managed = updated(p.Managed, *in.ManagedInstancesProvider)
		if err := a.checkManaged(call.Scope, &p.Managed); err != nil {
			return err
		}
		p.Update = types.CapacityProviderUpdateStatusUpdateComplete
		a.providers.Put(tx, key, p)
		view = a.providerView(tx, call.Scope, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateCapacityProviderOutput{CapacityProvider: &view}, nil
}

// updated is a provider as an update asks for it.
func updated(m types.ManagedInstancesProvider, u types.UpdateManagedInstancesProviderConfiguration) types.ManagedInstancesProvider {
	t, ut := *m.InstanceLaunchTemplate, *u.InstanceLaunchTemplate
	t.Ec2InstanceProfileArn = cmp.Or(ut.Ec2InstanceProfileArn, t.Ec2InstanceProfileArn)
	t.NetworkConfiguration = cmp.Or(ut.NetworkConfiguration, t.NetworkConfiguration)
	t.StorageConfiguration = cmp.Or(ut.StorageConfiguration, t.StorageConfiguration)
	t.LocalStorageConfiguration = cmp.Or(ut.LocalStorageConfiguration, t.LocalStorageConfiguration)
	t.Monitoring = cmp.Or(ut.Monitoring, t.Monitoring)
	t.InstanceRequirements = cmp.Or(ut.InstanceRequirements, t.InstanceRequirements)
	t.InstanceMetadataTagsPropagation = cmp.Or(ut.InstanceMetadataTagsPropagation, t.InstanceMetadataTagsPropagation)
	t.CapacityReservations = cmp.Or(ut.CapacityReservations, t.CapacityReservations)
	return types.ManagedInstancesProvider{
		InfrastructureRoleArn: cmp.Or(u.InfrastructureRoleArn, m.InfrastructureRoleArn), InstanceLaunchTemplate: &t,
		AutoRepairConfiguration:    cmp.Or(u.AutoRepairConfiguration, m.AutoRepairConfiguration),
		InfrastructureOptimization: cmp.Or(u.InfrastructureOptimization, m.InfrastructureOptimization), PropagateTags: cmp.Or(u.PropagateTags, m.PropagateTags),
	}
}

// DeleteCapacityProvider lets a provider go, with its instances, when no service
// uses it.
func (a *API) DeleteCapacityProvider(ctx context.Context, in *ecs.DeleteCapacityProviderInput) (*ecs.DeleteCapacityProviderOutput, error) {
	call := wire.From(ctx)
	var view types.CapacityProvider
	err := a.store.Update(func(tx *store.Tx) error {
		if p, ok := a.providerNamed(tx, call.Scope, lastPart(aws.ToString(in.CapacityProvider))); ok && p.Group != nil {
			if in.Cluster != nil {
				return clusterOfGroup()
			}
			p, err := a.deleteGroupProvider(tx, call.Scope, p)
			view = a.providerView(tx, call.Scope, p)
			return err
		}
		key, p, err := a.ownProvider(tx, call.Scope, in.CapacityProvider, in.Cluster)
		if err != nil {
			return err
		}
		if c, _ := a.clusters.Get(tx, call.Scope.Key(p.Cluster)); a.inUse(tx, call.Scope, c, p.Name) || a.runs(tx, call.Scope, p) {
			return &types.ClientException{Message: new("The capacity provider cannot be deleted because it is used in a service's capacity provider strategy, by tasks of a service, or in the default capacity provider strategy of its cluster. Remove it from there and try again.")} // guessed
		}
		if p.Status != types.CapacityProviderStatusDeprovisioning {
			p.Status, p.Update, p.Due = types.CapacityProviderStatusDeprovisioning, types.CapacityProviderUpdateStatusDeleteInProgress, a.clock.Now().Add(deletingProvider)
			a.providers.Put(tx, key, p)
		}
		view = a.providerView(tx, call.Scope, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeleteCapacityProviderOutput{CapacityProvider: &view}, nil
}

// inUse says that a service or the cluster's default strategy names a provider.
func (a *API) inUse(tx *store.Tx, scope arn.Scope, c cluster, name string) bool {
	if namesProvider(c.Strategy, name) {
		return true
	}
	for _, s := range a.services.Scan(tx, scope.Key(c.Name+"/")) {
		if s.Status != "INACTIVE" && namesProvider(s.Capacity, name) {
			return true
		}
	}
	return false
}

// liveOn is a cluster's tasks that live on a provider, or wait for it.
func (a *API) liveOn(tx *store.Tx, scope arn.Scope, cluster, name string) (list []task) {
	for _, t := range a.tasks.Scan(tx, scope.Key(cluster+"/")) {
		if t.Provider == name && t.Last != stopped {
			list = append(list, t)
		}
	}
	return list
}

// runs says that tasks of services live on a provider: of a revision that a
// deployment leaves, too, which may have to come back.
func (a *API) runs(tx *store.Tx, scope arn.Scope, p provider) bool {
	return slices.ContainsFunc(a.liveOn(tx, scope, p.Cluster, p.Name), func(t task) bool { return t.Service != "" })
}

func namesProvider(strategy []types.CapacityProviderStrategyItem, name string) bool {
	return slices.ContainsFunc(strategy, func(i types.CapacityProviderStrategyItem) bool { return aws.ToString(i.CapacityProvider) == name })
}

// DescribeCapacityProviders describes the providers named, or all: the account's
// own and Fargate's, or those of a cluster.
func (a *API) DescribeCapacityProviders(ctx context.Context, in *ecs.DescribeCapacityProvidersInput) (*ecs.DescribeCapacityProvidersOutput, error) {
	call := wire.From(ctx)
	out := &ecs.DescribeCapacityProvidersOutput{}
	var all []types.CapacityProvider
	var err error
	a.store.View(func(tx *store.Tx) {
		var of cluster
		if in.Cluster != nil {
			if of, err = a.cluster(tx, call.Scope, in.Cluster); err != nil {
				return
			}
		}
		for _, p := range a.providers.Scan(tx, call.Scope.Key("")) { // one that is gone, too, until its name lives again
			if in.Cluster == nil || p.Cluster == of.Name || p.Group != nil && slices.Contains(of.Providers, p.Name) {
				all = append(all, a.providerView(tx, call.Scope, p))
			}
		}
		for _, name := range []string{fargate, fargateSpot} {
			if in.Cluster == nil || slices.Contains(of.Providers, name) {
				all = append(all, types.CapacityProvider{CapacityProviderArn: new(providerARN(call.Scope, name)), Name: new(name), Status: types.CapacityProviderStatusActive, Type: types.CapacityProviderType(name), Tags: []types.Tag{}})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for i := range all {
		if !slices.Contains(in.Include, types.CapacityProviderFieldTags) {
			all[i].Tags = []types.Tag{}
		}
	}
	if len(in.CapacityProviders) > 0 {
		all, out.Failures = chosen(call.Scope, all, in.CapacityProviders)
	} else { // one that is gone is described by its name
		all = slices.DeleteFunc(all, func(p types.CapacityProvider) bool { return p.Status == types.CapacityProviderStatusInactive })
	}
	names := make([]string, len(all))
	byName := map[string]types.CapacityProvider{}
	for i, p := range all {
		names[i], byName[*p.Name] = *p.Name, p
	}
	names, out.NextToken, err = page(names, in.NextToken, in.MaxResults, 10, 10)
	for _, n := range names {
		out.CapacityProviders = append(out.CapacityProviders, byName[n])
	}
	return out, err
}

// chosen is the providers that are named, and failures for the others.
func chosen(scope arn.Scope, all []types.CapacityProvider, names []string) (list []types.CapacityProvider, failures []types.Failure) {
	for _, name := range names {
		name = lastPart(name)
		i := slices.IndexFunc(all, func(p types.CapacityProvider) bool { return *p.Name == name })
		if i < 0 {
			failures = append(failures, missing(providerARN(scope, name)))
			continue
		}
		list = append(list, all[i])
	}
	return list, failures
}

func (a *API) providerView(tx *store.Tx, scope arn.Scope, p provider) types.CapacityProvider {
	if p.Group != nil {
		return types.CapacityProvider{
			CapacityProviderArn: new(providerARN(scope, p.Name)), Name: new(p.Name), Status: p.Status, Type: types.CapacityProviderTypeEc2Autoscaling,
			AutoScalingGroupProvider: p.Group, UpdateStatus: p.Update, Tags: a.tagsOut(tx, providerARN(scope, p.Name)),
		}
	}
	return types.CapacityProvider{
		CapacityProviderArn: new(providerARN(scope, p.Name)), Name: new(p.Name), Cluster: new(p.Cluster), Status: p.Status, Type: types.CapacityProviderTypeManagedInstances,
		ManagedInstancesProvider: &p.Managed, UpdateStatus: p.Update, Tags: a.tagsOut(tx, providerARN(scope, p.Name)),
	}
}

// PutClusterCapacityProviders replaces a cluster's providers of Fargate and of groups,
// and its default strategy. Managed Instances providers are there by themselves.
func (a *API) PutClusterCapacityProviders(ctx context.Context, in *ecs.PutClusterCapacityProvidersInput) (*ecs.PutClusterCapacityProvidersOutput, error) {
	call := wire.From(ctx)
	if aws.ToString(in.Cluster) == "" {
		return nil, invalid("cluster must be specified.")
	}
	var view types.Cluster
	err := a.store.Update(func(tx *store.Tx) error {
		c, err := a.cluster(tx, call.Scope, in.Cluster)
		if err != nil {
			return err
		}
		if err := a.associate(tx, call.Scope, &c, in.CapacityProviders, in.DefaultCapacityProviderStrategy); err != nil {
			return err
		}
		a.clusters.Put(tx, call.Scope.Key(c.Name), c)
		view = a.clusterView(tx, call.Scope, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.PutClusterCapacityProvidersOutput{Cluster: &view}, nil
}

// associate gives a cluster its providers and the strategy that is used where
// none is named.
func (a *API) associate(tx *store.Tx, scope arn.Scope, c *cluster, names []string, strategy []types.CapacityProviderStrategyItem) error {
	var list []string
	for _, name := range names {
		name = lastPart(name)
		if !isFargate(name) {
			p, ok := a.providerNamed(tx, scope, name)
			switch {
			case !ok:
				return client("The specified capacity provider was not found. Specify a valid capacity provider and try again")
			case p.Group != nil:
				if of := a.clustersOfProvider(tx, scope, name); len(of) > 0 && of[0] != c.Name {
					return invalid("Serin scales the Auto Scaling group of a capacity provider for one cluster; %s is associated with the cluster %s.", name, of[0])
				}
			case p.Cluster != c.Name:
				return invalid("Cannot associate Managed Instances capacity provider to clusters using this API. Managed Instances capacity providers are already associated with the cluster that they were created in.")
			case p.Status != types.CapacityProviderStatusActive:
				return invalid("The specified capacity provider '%s' is not in an ACTIVE state. Specify a valid capacity provider and try again.", name)
			}
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	for _, name := range c.Providers {
		if slices.Contains(list, name) {
			continue
		}
		if p, _ := a.providerNamed(tx, scope, name); !isFargate(name) && p.Group == nil {
			list = append(list, name)
			continue
		}
		if a.inUse(tx, scope, cluster{Name: c.Name}, name) || len(a.liveOn(tx, scope, c.Name, name)) > 0 { // documented
			return &types.ResourceInUseException{Message: new("The specified capacity provider is in use and cannot be removed.")}
		}
	}
	if len(list) > mostProviders {
		return tooManyProviders()
	}
	before := c.Providers
	c.Providers, c.Strategy = list, nil
	a.clusters.Put(tx, scope.Key(c.Name), *c)
	a.manageAll(tx, scope, slices.Concat(before, list))
	if err := a.checkStrategy(tx, scope, *c, strategy, inDefault); err != nil {
		return err
	}
	c.Strategy = strategy
	return nil
}

// providerTags are the tags of what a provider launches.
func (a *API) providerTags(tx *store.Tx, scope arn.Scope, p provider) []tags.Tag {
	if p.Managed.PropagateTags != types.PropagateMITagsCapacityProvider {
		return nil
	}
	return a.tags.Of(tx, providerARN(scope, p.Name))
}
