package ecsd

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

var clusterNames = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// CreateCluster makes a cluster; one that is there is returned as it is.
func (a *API) CreateCluster(ctx context.Context, in *ecs.CreateClusterInput) (*ecs.CreateClusterOutput, error) {
	call := wire.From(ctx)
	name := clusterName(in.ClusterName)
	if !clusterNames.MatchString(name) {
		return nil, invalid("Cluster names can have up to 255 letters, numbers, hyphens, and underscores, got '%s'.", name)
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	exec, err := execConfiguration(in.Configuration)
	if err != nil {
		return nil, err
	}
	if err := a.deps.Roles.LinkedRole(call); err != nil {
		return nil, err
	}
	var view types.Cluster
	err = a.store.Update(func(tx *store.Tx) error {
		c, ok := a.clusters.Get(tx, call.Scope.Key(name))
		if !ok || c.Status != "ACTIVE" {
			c = cluster{Name: name, Status: "ACTIVE", Created: a.clock.Now(), Exec: exec}
			if err := a.associate(tx, call.Scope, &c, in.CapacityProviders, in.DefaultCapacityProviderStrategy); err != nil {
				return err
			}
			a.clusters.Put(tx, call.Scope.Key(name), c)
			a.tags.Set(tx, clusterARN(call.Scope, name), labels)
		}
		view = a.clusterView(tx, call.Scope, c)
		view.Configuration = c.configuration()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.CreateClusterOutput{Cluster: &view}, nil
}

func (a *API) clusterView(tx *store.Tx, scope arn.Scope, c cluster) types.Cluster {
	v := types.Cluster{
		ClusterArn: new(clusterARN(scope, c.Name)), ClusterName: new(c.Name), Status: new(c.Status), Tags: a.tagsOut(tx, clusterARN(scope, c.Name)),
		Settings: []types.ClusterSetting{}, Statistics: []types.KeyValuePair{}, CapacityProviders: orEmpty(c.Providers), DefaultCapacityProviderStrategy: orEmpty(c.Strategy),
	}
	for _, i := range a.instances.Scan(tx, scope.Key(c.Name+"/")) {
		if i.registered() {
			v.RegisteredContainerInstancesCount++
		}
	}
	for _, s := range a.services.Scan(tx, scope.Key(c.Name+"/")) {
		if s.Status == "ACTIVE" {
			v.ActiveServicesCount++
		}
	}
	for _, t := range a.tasks.Scan(tx, scope.Key(c.Name+"/")) {
		switch t.Last {
		case running:
			v.RunningTasksCount++
		case provisioning, pending, activating:
			v.PendingTasksCount++
		}
	}
	return v
}

// DescribeClusters describes clusters by name or ARN.
func (a *API) DescribeClusters(ctx context.Context, in *ecs.DescribeClustersInput) (*ecs.DescribeClustersOutput, error) {
	call := wire.From(ctx)
	out := &ecs.DescribeClustersOutput{}
	a.store.View(func(tx *store.Tx) {
		for _, name := range orDefault(in.Clusters) {
			c, ok := a.clusters.Get(tx, call.Scope.Key(clusterName(&name)))
			if !ok {
				out.Failures = append(out.Failures, missing(clusterARN(call.Scope, clusterName(&name))))
				continue
			}
			v := a.clusterView(tx, call.Scope, c)
			if !slices.Contains(in.Include, types.ClusterFieldTags) {
				v.Tags = []types.Tag{}
			}
			if slices.Contains(in.Include, types.ClusterFieldConfigurations) {
				v.Configuration = c.configuration()
			}
			if slices.Contains(in.Include, types.ClusterFieldStatistics) {
				v.Statistics = a.statistics(tx, call.Scope, c)
			}
			out.Clusters = append(out.Clusters, v)
		}
	})
	return out, nil
}

// statistics counts a cluster's tasks and services by where they run. The first
// eight names are documented, the others are those that two emulators agree on.
func (a *API) statistics(tx *store.Tx, scope arn.Scope, c cluster) (list []types.KeyValuePair) {
	counts := map[string]int{}
	kind := map[types.LaunchType]string{types.LaunchTypeEc2: "EC2", types.LaunchTypeFargate: "Fargate", types.LaunchTypeExternal: "External", types.LaunchTypeManagedInstances: "ManagedInstances"}
	for _, t := range a.tasks.Scan(tx, scope.Key(c.Name+"/")) {
		switch t.Last {
		case running:
			counts["running"+kind[t.LaunchType]+"TasksCount"]++
		case provisioning, pending, activating:
			counts["pending"+kind[t.LaunchType]+"TasksCount"]++
		}
	}
	for _, s := range a.services.Scan(tx, scope.Key(c.Name+"/")) {
		launched := s.LaunchType
		if len(s.Capacity) > 0 {
			launched = a.launchTypeOf(tx, scope, c.Name, aws.ToString(s.Capacity[0].CapacityProvider))
		}
		counts[strings.ToLower(s.Status)+kind[launched]+"ServiceCount"]++
	}
	for _, k := range []string{"EC2", "Fargate", "External", "ManagedInstances"} {
		for _, state := range []string{"running", "pending"} {
			name := state + k + "TasksCount"
			list = append(list, types.KeyValuePair{Name: new(name), Value: new(strconv.Itoa(counts[name]))})
		}
	}
	for _, k := range []string{"EC2", "Fargate", "External", "ManagedInstances"} {
		for _, state := range []string{"active", "draining"} {
			name := state + k + "ServiceCount"
			list = append(list, types.KeyValuePair{Name: new(name), Value: new(strconv.Itoa(counts[name]))})
		}
	}
	return list
}

func missing(resourceARN string) types.Failure {
	return types.Failure{Arn: new(resourceARN), Reason: new("MISSING")}
}

// ListClusters lists the ARNs of active clusters.
func (a *API) ListClusters(ctx context.Context, in *ecs.ListClustersInput) (*ecs.ListClustersOutput, error) {
	call := wire.From(ctx)
	var list []string
	a.store.View(func(tx *store.Tx) {
		for _, c := range a.clusters.Scan(tx, call.Scope.Key("")) {
			if c.Status == "ACTIVE" {
				list = append(list, clusterARN(call.Scope, c.Name))
			}
		}
	})
	list, next, err := page(list, in.NextToken, in.MaxResults, 100, 100)
	return &ecs.ListClustersOutput{ClusterArns: list, NextToken: next}, err
}

// DeleteCluster makes an empty cluster inactive.
func (a *API) DeleteCluster(ctx context.Context, in *ecs.DeleteClusterInput) (*ecs.DeleteClusterOutput, error) {
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
		view = a.clusterView(tx, call.Scope, c)
		if view.ActiveServicesCount > 0 {
			return &types.ClusterContainsServicesException{Message: new("The Cluster cannot be deleted while Services are active.")}
		}
		if view.RunningTasksCount+view.PendingTasksCount > 0 {
			return &types.ClusterContainsTasksException{Message: new("The Cluster cannot be deleted while Tasks are active.")}
		}
		if slices.ContainsFunc(c.Providers, func(name string) bool { return a.kindOfProvider(tx, call.Scope, c.Name, name) == onManaged }) {
			return client("The Cluster cannot be deleted while Cluster Scoped Capacity Providers are attached to the cluster.") // observed
		}
		if view.RegisteredContainerInstancesCount > 0 {
			return &types.ClusterContainsContainerInstancesException{Message: new("The Cluster cannot be deleted while Container Instances are active or draining.")}
		}
		before := c.Providers
		c.Status, c.Providers, c.Strategy = "INACTIVE", nil, nil
		view.Status = new("INACTIVE")
		a.clusters.Put(tx, call.Scope.Key(c.Name), c)
		a.manageAll(tx, call.Scope, before)
		a.tags.Set(tx, *view.ClusterArn, nil)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeleteClusterOutput{Cluster: &view}, nil
}
