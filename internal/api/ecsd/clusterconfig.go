package ecsd

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/store"
	"serin/internal/wire"
)

// UpdateCluster changes how a cluster's sessions are logged.
func (a *API) UpdateCluster(ctx context.Context, in *ecs.UpdateClusterInput) (*ecs.UpdateClusterOutput, error) {
	call := wire.From(ctx)
	if aws.ToString(in.Cluster) == "" {
		return nil, invalid("cluster must be specified.")
	}
	config, err := execConfiguration(in.Configuration)
	if err != nil {
		return nil, err
	}
	var view types.Cluster
	err = a.store.Update(func(tx *store.Tx) error {
		c, err := a.cluster(tx, call.Scope, in.Cluster)
		if err != nil {
			return err
		}
		if config != nil {
			c.Exec = config
			a.clusters.Put(tx, call.Scope.Key(c.Name), c)
		}
		view = a.clusterView(tx, call.Scope, c)
		view.Configuration = c.configuration()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateClusterOutput{Cluster: &view}, nil
}

// execConfiguration is how sessions are logged, where that is sound.
func execConfiguration(in *types.ClusterConfiguration) (*types.ExecuteCommandConfiguration, error) {
	if in == nil || in.ExecuteCommandConfiguration == nil {
		return nil, nil
	}
	c := *in.ExecuteCommandConfiguration
	override := c.Logging == types.ExecuteCommandLoggingOverride
	switch {
	case c.LogConfiguration != nil && !override:
		return nil, invalid("You must set logging to 'OVERRIDE' when you supply a log configuration.") // observed
	case override && (c.LogConfiguration == nil || aws.ToString(c.LogConfiguration.CloudWatchLogGroupName) == ""): // guessed
		return nil, invalid("You must supply a log configuration when you set logging to 'OVERRIDE'.")
	}
	if c.Logging == "" {
		c.Logging = types.ExecuteCommandLoggingDefault
	}
	return &c, nil
}

// configuration is what has been said of a cluster; nil: nothing.
func (c cluster) configuration() *types.ClusterConfiguration {
	if c.Exec == nil {
		return nil
	}
	return &types.ClusterConfiguration{ExecuteCommandConfiguration: c.Exec}
}
