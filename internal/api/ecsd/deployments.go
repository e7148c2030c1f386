package ecsd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/rollout"
	"serin/internal/store"
	"serin/internal/wire"
)

// ListServiceDeployments lists a service's deployments, the newest first.
func (a *API) ListServiceDeployments(ctx context.Context, in *ecs.ListServiceDeploymentsInput) (*ecs.ListServiceDeploymentsOutput, error) {
	call := wire.From(ctx)
	var list []deployment
	var err error
	a.store.View(func(tx *store.Tx) {
		var key string
		if key, err = a.serviceKey(tx, call.Scope, aws.ToString(in.Service), in.Cluster); err != nil {
			return
		}
		if _, ok := a.services.Get(tx, key); !ok {
			err = &types.ServiceNotFoundException{Message: new("Service not found.")}
			return
		}
		for _, d := range a.deployments.Scan(tx, key+"/") {
			if len(in.Status) > 0 && !slices.Contains(in.Status, types.ServiceDeploymentStatus(d.State.Status)) {
				continue
			}
			if t := in.CreatedAt; t != nil && (t.After != nil && d.Created.Before(*t.After) || t.Before != nil && d.Created.After(*t.Before)) {
				continue
			}
			list = append(list, d)
		}
	})
	if err != nil {
		return nil, err
	}
	limit := 20
	if in.MaxResults != nil {
		if limit = int(*in.MaxResults); limit < 1 || limit > 100 {
			return nil, invalid("maxResults must be between 1 and 100, got %d", limit)
		}
	}
	list, next, err := wire.Page(list, func(d deployment) string {
		return fmt.Sprintf("%020d", int64(1<<62)-d.Created.UnixNano()) + d.ARN
	}, aws.ToString(in.NextToken), limit)
	if err != nil {
		return nil, invalid("Invalid token.")
	}
	out := &ecs.ListServiceDeploymentsOutput{}
	if next != "" {
		out.NextToken = &next
	}
	for _, d := range list {
		full := a.deploymentView(d, nil)
		out.ServiceDeployments = append(out.ServiceDeployments, types.ServiceDeploymentBrief{
			ServiceDeploymentArn: full.ServiceDeploymentArn, ServiceArn: full.ServiceArn, ClusterArn: full.ClusterArn, CreatedAt: full.CreatedAt,
			StartedAt: full.StartedAt, FinishedAt: full.FinishedAt, TargetServiceRevisionArn: new(d.Target), Status: full.Status, StatusReason: full.StatusReason,
		})
	}
	return out, nil
}

// DescribeServiceDeployments describes up to twenty deployments.
func (a *API) DescribeServiceDeployments(ctx context.Context, in *ecs.DescribeServiceDeploymentsInput) (*ecs.DescribeServiceDeploymentsOutput, error) {
	scope := wire.From(ctx).Scope
	if n := len(in.ServiceDeploymentArns); n < 1 || n > 20 {
		return nil, invalid("serviceDeploymentArns must have between 1 and 20 items, got %d", n)
	}
	out := &ecs.DescribeServiceDeploymentsOutput{}
	a.store.View(func(tx *store.Tx) {
		for _, name := range in.ServiceDeploymentArns {
			d, ok := a.deployments.Get(tx, deploymentKey(name))
			if !ok || !within(scope, deploymentKey(name)) {
				out.Failures = append(out.Failures, missing(name))
				continue
			}
			out.ServiceDeployments = append(out.ServiceDeployments, a.deploymentView(d, tx))
		}
	})
	return out, nil
}

// deploymentView is a deployment as ECS tells it. Without a transaction its
// task counts are left out.
func (a *API) deploymentView(d deployment, tx *store.Tx) types.ServiceDeployment {
	scope, name := arn.ParseKey(d.Service)
	cluster, _, _ := strings.Cut(name, "/")
	st := d.State
	v := types.ServiceDeployment{
		ServiceDeploymentArn: new(d.ARN), ServiceArn: new(scope.For("ecs", "service/"+name).String()), ClusterArn: new(clusterARN(scope, cluster)),
		CreatedAt: new(d.Created), UpdatedAt: new(d.Updated), Status: types.ServiceDeploymentStatus(st.Status), DeploymentConfiguration: new(attached(d.Config, d.HookDetails)),
		Alarms:                   alarmsView(d),
		DeploymentCircuitBreaker: &types.ServiceDeploymentCircuitBreaker{Status: types.ServiceDeploymentRollbackMonitorsStatus(st.Monitor), FailureCount: int32(st.Failures), Threshold: int32(d.Threshold)},
		SourceServiceRevisions:   []types.ServiceRevisionSummary{},
		LifecycleHookDetails:     hookDetails(d),
	}
	if st.Reason != "" {
		v.StatusReason = new(st.Reason)
	}
	if st.Stage != "" {
		v.LifecycleStage = types.ServiceDeploymentLifecycleStage(st.Stage)
	}
	if !st.Started.IsZero() {
		v.StartedAt = new(st.Started)
	}
	if !st.Finished.IsZero() {
		v.FinishedAt = new(st.Finished)
	}
	if !st.StoppedAt.IsZero() {
		v.StoppedAt = new(st.StoppedAt)
	}
	if !st.Rollback.Started.IsZero() {
		v.Rollback = &types.Rollback{Reason: new(st.Rollback.Reason), StartedAt: new(st.Rollback.Started)}
		if d.Source != "" {
			v.Rollback.ServiceRevisionArn = new(d.Source)
		}
	}
	if tx == nil {
		return v
	}
	production, test := st.Production, st.Test
	v.TargetServiceRevision = a.summary(tx, d, d.Target, production, test)
	for _, source := range append(slices.DeleteFunc([]string{d.Source}, func(s string) bool { return s == "" }), d.Others...) {
		p, t := rollout.Permille(0), rollout.Permille(0)
		if source == d.Source {
			p, t = rollout.All-production, rollout.All-test
		}
		v.SourceServiceRevisions = append(v.SourceServiceRevisions, *a.summary(tx, d, source, p, t))
	}
	return v
}

// summary counts a revision's tasks; when the deployment has ended, as it ended.
func (a *API) summary(tx *store.Tx, d deployment, revisionARN string, production, test rollout.Permille) *types.ServiceRevisionSummary {
	v := &types.ServiceRevisionSummary{Arn: new(revisionARN)}
	counts := a.counts(tx, d, revisionARN)
	v.RequestedTaskCount, v.PendingTaskCount, v.RunningTaskCount = int32(counts[0]), int32(counts[1]), int32(counts[2])
	if d.State.Config.Traffic {
		v.RequestedProductionTrafficWeight = new(float64(production) / 10)
		if d.State.Config.TestTraffic {
			v.RequestedTestTrafficWeight = new(float64(test) / 10)
		}
	}
	return v
}

// counts is requested, pending, running.
func (a *API) counts(tx *store.Tx, d deployment, revisionARN string) [3]int {
	if d.Final != nil {
		switch revisionARN {
		case d.Target:
			return d.Final.Target
		case d.Source:
			return d.Final.Source
		}
		return [3]int{}
	}
	r, ok := a.revisions.Get(tx, revisionKey(revisionARN))
	if !ok {
		return [3]int{}
	}
	c := a.count(tx, r)
	requested := c.Active()
	switch revisionARN {
	case d.Target:
		requested = d.Wanted.Target
	case d.Source:
		requested = d.Wanted.Source
	}
	return [3]int{requested, c.Pending, c.Running}
}

// DescribeServiceRevisions describes up to twenty revisions.
func (a *API) DescribeServiceRevisions(ctx context.Context, in *ecs.DescribeServiceRevisionsInput) (*ecs.DescribeServiceRevisionsOutput, error) {
	if n := len(in.ServiceRevisionArns); n < 1 || n > 20 {
		return nil, invalid("serviceRevisionArns must have between 1 and 20 items, got %d", n)
	}
	out := &ecs.DescribeServiceRevisionsOutput{}
	a.store.View(func(tx *store.Tx) {
		for _, name := range in.ServiceRevisionArns {
			r, ok := a.revisions.Get(tx, revisionKey(name))
			if !ok || r.Set || !within(wire.From(ctx).Scope, revisionKey(name)) {
				out.Failures = append(out.Failures, missing(name))
				continue
			}
			out.ServiceRevisions = append(out.ServiceRevisions, a.revisionView(tx, r))
		}
	})
	return out, nil
}

func (a *API) revisionView(tx *store.Tx, r revision) types.ServiceRevision {
	scope, name := arn.ParseKey(r.Service)
	cluster, _, _ := strings.Cut(name, "/")
	v := types.ServiceRevision{
		ServiceRevisionArn: new(r.ARN), ServiceArn: new(scope.For("ecs", "service/"+name).String()), ClusterArn: new(clusterARN(scope, cluster)),
		TaskDefinition: new(r.TaskDefinition), LoadBalancers: r.LoadBalancers, NetworkConfiguration: r.Network,
		CapacityProviderStrategy: r.Capacity, LaunchType: r.LaunchType, CreatedAt: new(r.Created),
	}
	if d, ok := a.definition(tx, scope, r.TaskDefinition); ok {
		for _, c := range d.ContainerDefinitions {
			image := types.ContainerImage{ContainerName: c.Name, Image: c.Image}
			if digest := r.Images[*c.Name]; digest != "" {
				image.ImageDigest = new(digest)
			}
			v.ContainerImages = append(v.ContainerImages, image)
		}
	}
	if len(r.Groups) > 0 {
		v.ResolvedConfiguration = &types.ResolvedConfiguration{}
		for i, group := range r.Groups {
			lb := types.ServiceRevisionLoadBalancer{TargetGroupArn: new(group)}
			if adv := r.LoadBalancers[i].AdvancedConfiguration; adv != nil {
				lb.ProductionListenerRule = adv.ProductionListenerRule
			}
			v.ResolvedConfiguration.LoadBalancers = append(v.ResolvedConfiguration.LoadBalancers, lb)
		}
	}
	return v
}

// StopServiceDeployment asks a deployment to roll back, documented per status.
func (a *API) StopServiceDeployment(ctx context.Context, in *ecs.StopServiceDeploymentInput) (*ecs.StopServiceDeploymentOutput, error) {
	name := aws.ToString(in.ServiceDeploymentArn)
	if in.StopType == types.StopServiceDeploymentStopTypeAbort {
		return nil, invalid("The stopType ABORT is not supported. Valid values are ROLLBACK.")
	}
	err := a.store.Update(func(tx *store.Tx) error {
		d, ok := a.deployments.Get(tx, deploymentKey(name))
		if !ok || !within(wire.From(ctx).Scope, deploymentKey(name)) {
			return &types.ServiceDeploymentNotFoundException{Message: new("The service deployment does not exist.")}
		}
		switch d.State.Status {
		case rollout.Pending, rollout.InProgress:
			d.StopRequested, d.Updated = true, a.clock.Now()
			d.State.Status = rollout.RollbackRequested
			a.deployments.Put(tx, deploymentKey(name), d)
		case rollout.StopRequested, rollout.RollbackRequested, rollout.RollbackInProgress: // goes on
		default:
			return &types.ConflictException{ResourceIds: []string{name}, Message: new(fmt.Sprintf("The service deployment is in the terminal state %s and cannot be stopped.", d.State.Status))}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.StopServiceDeploymentOutput{ServiceDeploymentArn: &name}, nil
}
