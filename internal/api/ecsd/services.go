package ecsd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/rollout"
	"serin/internal/store"
	"serin/internal/wire"
)

// CreateService makes a service and its first deployment.
func (a *API) CreateService(ctx context.Context, in *ecs.CreateServiceInput) (*ecs.CreateServiceOutput, error) {
	call := wire.From(ctx)
	s, err := a.newService(call, in)
	if err != nil {
		return nil, err
	}
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	var view types.Service
	err = a.store.Update(func(tx *store.Tx) error {
		c, err := a.cluster(tx, call.Scope, in.Cluster)
		if err != nil {
			return err
		}
		s.Cluster = c.Name
		key := call.Scope.Key(c.Name + "/" + s.Name)
		if old, ok := a.services.Get(tx, key); ok && old.Status != "INACTIVE" {
			view = a.serviceView(tx, key, old)
			return old.again(s.Request)
		}
		if in.LaunchType == "" && len(s.Capacity) == 0 && len(c.Strategy) > 0 && !s.external() {
			s.Capacity, s.LaunchType = c.Strategy, ""
		}
		if err := a.checkStrategy(tx, call.Scope, c, s.Capacity, inRequest); err != nil {
			return err
		}
		if !s.external() {
			d, err := a.deployable(tx, call.Scope, aws.ToString(in.TaskDefinition))
			if err != nil {
				return err
			}
			s.TaskDefinition = *d.TaskDefinitionArn
			if err := s.checkExec(d, "created"); err != nil {
				return err
			}
			if err := a.checkService(tx, call.Scope, s, d, true); err != nil {
				return err
			}
			s.Config, s.HookDetails = detached(s.Config)
			a.deploy(tx, key, &s)
		}
		a.services.Put(tx, key, s)
		a.tags.Set(tx, serviceARN(call.Scope, c.Name, s.Name), labels)
		view = a.serviceView(tx, key, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.CreateServiceOutput{Service: &view}, nil
}

// newService is the row of a service that is asked for, where it is sound in itself.
func (a *API) newService(call *wire.Call, in *ecs.CreateServiceInput) (s service, err error) {
	if !clusterNames.MatchString(aws.ToString(in.ServiceName)) {
		return s, invalid("The service name '%s' must have up to 255 letters, numbers, underscores, and hyphens.", aws.ToString(in.ServiceName))
	}
	if err := checkToken(in.ClientToken); err != nil {
		return s, err
	}
	controller, err := controllerOf(in.DeploymentController)
	if err != nil {
		return s, err
	}
	s = service{
		Name: *in.ServiceName, Status: "ACTIVE", Controller: controller, Desired: int(aws.ToInt32(in.DesiredCount)), LoadBalancers: balancersIn(in.LoadBalancers),
		Network: networkIn(in.NetworkConfiguration), Capacity: in.CapacityProviderStrategy, Grace: in.HealthCheckGracePeriodSeconds, Created: a.clock.Now(), CreatedBy: call.Principal.ARN,
		ManagedTags: in.EnableECSManagedTags, Exec: in.EnableExecuteCommand, PropagateTags: in.PropagateTags, Constraints: in.PlacementConstraints, Placement: in.PlacementStrategy,
	}
	switch {
	case s.external():
		s.Config = externalConfig(in.DeploymentConfiguration)
		if err := checkExternal(in); err != nil {
			return s, err
		}
	case in.SchedulingStrategy == types.SchedulingStrategyDaemon:
		return s, invalid("Serin performs the scheduling strategy REPLICA; DAEMON is not performed yet.")
	case in.DesiredCount == nil:
		return s, invalid("desiredCount must be specified.")
	default:
		s.Config = mergeConfig(defaultConfig(), in.DeploymentConfiguration)
	}
	if err := checkDesired(aws.ToInt32(in.DesiredCount)); err != nil {
		return s, err
	}
	if err := checkGrace(in.HealthCheckGracePeriodSeconds); err != nil {
		return s, err
	}
	if s.Grace == nil && len(s.LoadBalancers) > 0 {
		s.Grace = new(int32(0))
	}
	if s.LaunchType, err = launchOf(in.LaunchType, s.Capacity); err != nil {
		return s, err
	}
	s.Rebalance = in.AvailabilityZoneRebalancing
	if s.Rebalance == "" && !s.external() && aws.ToInt32(s.Config.MaximumPercent) > 100 {
		s.Rebalance = types.AvailabilityZoneRebalancingEnabled // where it can be, documented
	}
	s.Request, err = requestOf(*in)
	return s, err
}

// checkGrace refuses a grace period that no service can have.
func checkGrace(seconds *int32) error {
	if seconds != nil && *seconds < 0 {
		return invalid("healthCheckGracePeriodSeconds must be between 0 and 2147483647, got %d.", *seconds)
	}
	return nil
}

// balancersIn and networkIn are what is sent as it is kept, so that what says the
// same compares equal: nothing for an empty list, and the default, documented.
func balancersIn(in []types.LoadBalancer) []types.LoadBalancer {
	if len(in) == 0 {
		return nil
	}
	return in
}

func networkIn(in *types.NetworkConfiguration) *types.NetworkConfiguration {
	if in == nil || in.AwsvpcConfiguration == nil {
		return nil
	}
	vpc := *in.AwsvpcConfiguration
	vpc.AssignPublicIp = cmp.Or(vpc.AssignPublicIp, types.AssignPublicIpDisabled)
	if len(vpc.SecurityGroups) == 0 {
		vpc.SecurityGroups = nil
	}
	return &types.NetworkConfiguration{AwsvpcConfiguration: &vpc}
}

// deployable finds a task definition that a service can use.
func (a *API) deployable(tx *store.Tx, scope arn.Scope, nameOrARN string) (types.TaskDefinition, error) {
	d, ok := a.definition(tx, scope, nameOrARN)
	if !ok {
		return d, client("TaskDefinition not found.")
	}
	if d.Status != types.TaskDefinitionStatusActive {
		return d, client("TaskDefinition is inactive")
	}
	return d, nil
}

// checkService refuses what ECS refuses at once; what it finds out later, like
// a rule that forwards elsewhere, fails the deployment. Load balancers are looked
// at where the request sends them.
func (a *API) checkService(tx *store.Tx, scope arn.Scope, s service, d types.TaskDefinition, sent bool) error {
	if err := checkNetwork(d, s.Network, s.LaunchType); err != nil {
		return err
	}
	if err := checkConfig(s.Config, s.LoadBalancers); err != nil {
		return err
	}
	c, _ := a.clusters.Get(tx, scope.Key(s.Cluster))
	if err := checkWhere(a.kindOf(tx, scope, c, s.LaunchType, s.Capacity), d, s.Constraints, s.Placement); err != nil {
		return err
	}
	if err := s.checkRebalance(); err != nil {
		return err
	}
	if s.LaunchType == types.LaunchTypeExternal && len(s.LoadBalancers) > 0 && behindHost(d) { // documented, in words that are guessed
		return invalid("Load balancers are not supported with the EXTERNAL launch type.")
	}
	groups := map[string]bool{}
	for _, lb := range s.LoadBalancers {
		port := aws.ToInt32(lb.ContainerPort)
		i := slices.IndexFunc(d.ContainerDefinitions, func(c types.ContainerDefinition) bool { return *c.Name == aws.ToString(lb.ContainerName) })
		if i < 0 {
			return invalid("The container %s does not exist in the task definition.", aws.ToString(lb.ContainerName))
		}
		if !slices.ContainsFunc(d.ContainerDefinitions[i].PortMappings, func(p types.PortMapping) bool { return aws.ToInt32(p.ContainerPort) == port }) {
			return invalid("The container %s did not have a container port %d defined", *lb.ContainerName, port)
		}
		if !sent {
			continue
		}
		if err := a.checkGroups(scope, d, lb, groups); err != nil {
			return err
		}
	}
	if len(groups) > 5 {
		return invalid("A service can have at most 5 target groups.")
	}
	if sent {
		return a.checkShared(s.LoadBalancers)
	}
	return nil
}

// checkGroups refuses target groups that are not there, or not for these tasks, and
// adds them to those of the service.
func (a *API) checkGroups(scope arn.Scope, d types.TaskDefinition, lb types.LoadBalancer, groups map[string]bool) error {
	wanted := []string{aws.ToString(lb.TargetGroupArn)}
	if adv := lb.AdvancedConfiguration; adv != nil {
		if err := checkAdvanced(scope, lb); err != nil {
			return err
		}
		wanted = append(wanted, aws.ToString(adv.AlternateTargetGroupArn))
	}
	for n, g := range wanted {
		if groups[g] {
			return invalid("Duplicate targetGroupArn found: %s", g)
		}
		groups[g] = true
		has, exists := a.deps.Traffic.Group(g)
		if parsed, err := arn.Parse(g); err != nil || !exists || parsed.Scope() != scope {
			return invalid("Unable to assume role and validate the specified targetGroupArn. Please verify that the target group %s exists.", g)
		}
		if n == 0 && !has.Used {
			return invalid("The target group with targetGroupArn %s does not have an associated load balancer.", g)
		}
		if err := has.fits(g, lb.AdvancedConfiguration); err != nil {
			return err
		}
		if err := has.takes(g, d); err != nil {
			return err
		}
	}
	return nil
}

func checkAdvanced(scope arn.Scope, lb types.LoadBalancer) error {
	adv := lb.AdvancedConfiguration
	if err := checkRules(adv); err != nil {
		return err
	}
	if adv.AlternateTargetGroupArn == nil || adv.RoleArn == nil {
		return invalid("advancedConfiguration must have alternateTargetGroupArn and roleArn")
	}
	for _, r := range []*string{adv.ProductionListenerRule, adv.TestListenerRule} {
		if parsed, err := arn.Parse(aws.ToString(r)); aws.ToString(r) != "" && (err != nil || parsed.Scope() != scope) {
			return invalid("The listener rule %s is not of this account and region", *r)
		}
	}
	if err := ownRole(scope, adv.RoleArn); err != nil {
		return err
	}
	return nil
}

// checkConfig checks a merged deployment configuration.
func checkConfig(c types.DeploymentConfiguration, lbs []types.LoadBalancer) error {
	low, high := aws.ToInt32(c.MinimumHealthyPercent), aws.ToInt32(c.MaximumPercent)
	advanced := 0
	for _, lb := range lbs {
		if lb.TargetGroupArn == nil {
			return invalid("All loadBalancers must be strictly either ELBv1 (defining loadBalancerName) or ELBv2 (defining targetGroupArn)")
		}
		if lb.AdvancedConfiguration != nil {
			advanced++
		}
	}
	shifts := c.Strategy != types.DeploymentStrategyRolling
	switch {
	case low < 0 || low > 100:
		return invalid("minimumHealthyPercent must be at most 100")
	case high < 100:
		return invalid("maximumPercent must be at least 100")
	case low == 100 && high == 100:
		return invalid("Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.")
	case advanced != 0 && advanced != len(lbs):
		return invalid("Either all or none of the provided loadBalancers must have advancedConfiguration defined")
	case shifts && len(lbs) > 0 && advanced == 0:
		return invalid("advancedConfiguration field is required for all loadBalancers when using a non-ROLLING deployment strategy")
	case c.LinearConfiguration != nil && c.Strategy != types.DeploymentStrategyLinear:
		return invalid("Linear configuration can only be present with LINEAR deployment strategy")
	case c.CanaryConfiguration != nil && c.Strategy != types.DeploymentStrategyCanary:
		return invalid("Canary configuration can only be present with CANARY deployment strategy")
	case (c.Strategy == types.DeploymentStrategyCanary || c.Strategy == types.DeploymentStrategyLinear) && len(lbs) == 0:
		return invalid("The %s deployment strategy needs a load balancer; Serin does not perform Service Connect yet.", c.Strategy)
	}
	for _, n := range []struct {
		name  string
		value *int32
	}{{"bakeTimeInMinutes", c.BakeTimeInMinutes}, {"canaryBakeTimeInMinutes", bakeOf(c.CanaryConfiguration)}, {"stepBakeTimeInMinutes", stepBakeOf(c.LinearConfiguration)}} {
		if n.value != nil && (*n.value < 0 || *n.value > 1440) {
			return invalid("%s must be between 0 and 1440, got %d", n.name, *n.value)
		}
	}
	if c.CanaryConfiguration != nil {
		if err := checkPercent("canaryPercent", c.CanaryConfiguration.CanaryPercent, 0.1); err != nil {
			return err
		}
	}
	if c.LinearConfiguration != nil {
		if err := checkPercent("stepPercent", c.LinearConfiguration.StepPercent, 3); err != nil {
			return err
		}
	}
	if b := c.DeploymentCircuitBreaker; b != nil && b.ThresholdConfiguration != nil {
		t := b.ThresholdConfiguration
		if t.Type == "" || t.Value < 1 || t.Type != types.ThresholdTypeCount && t.Value > 100 {
			return invalid("Invalid deployment circuit breaker threshold value.")
		}
	}
	if err := checkEarly(c); err != nil {
		return err
	}
	if err := checkAlarms(c); err != nil {
		return err
	}
	return checkHooks(c)
}

// checkEarly validates early success criteria; AWS documents no texts.
func checkEarly(c types.DeploymentConfiguration) error {
	e := c.EarlySuccessCriteria
	if e == nil || !e.Enable {
		return nil
	}
	switch {
	case c.Strategy != types.DeploymentStrategyRolling:
		return invalid("earlySuccessCriteria can only be present with ROLLING deployment strategy")
	case e.HealthyPercent == nil || e.SourceServiceRevisionCleanup == "":
		return invalid("healthyPercent and sourceServiceRevisionCleanup must be specified when earlySuccessCriteria is enabled")
	case *e.HealthyPercent < aws.ToInt32(c.MinimumHealthyPercent) || *e.HealthyPercent > 100:
		return invalid("healthyPercent must be between minimumHealthyPercent, %d, and 100, got %d", aws.ToInt32(c.MinimumHealthyPercent), *e.HealthyPercent)
	}
	return nil
}

func bakeOf(c *types.CanaryConfiguration) *int32 {
	if c == nil {
		return nil
	}
	return c.CanaryBakeTimeInMinutes
}

func stepBakeOf(c *types.LinearConfiguration) *int32 {
	if c == nil {
		return nil
	}
	return c.StepBakeTimeInMinutes
}

func checkPercent(name string, p *float64, low float64) error {
	if p == nil || *p < low || *p > 100 || math.Abs(*p*10-math.Round(*p*10)) > 1e-9 {
		return invalid("%s must be between %.1f and 100.0 in multiples of 0.1, got %v", name, low, aws.ToFloat64(p))
	}
	return nil
}

// defaultConfig is what a service has that says nothing, documented.
func defaultConfig() types.DeploymentConfiguration {
	return types.DeploymentConfiguration{
		Strategy: types.DeploymentStrategyRolling, MinimumHealthyPercent: new(int32(100)), MaximumPercent: new(int32(200)),
		DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{},
	}
}

// mergeConfig lays what is sent over what is stored, as observed: members that
// are not sent stay; a structure that is sent is replaced and filled with
// defaults; the breaker keeps its threshold and reset.
func mergeConfig(old types.DeploymentConfiguration, in *types.DeploymentConfiguration) types.DeploymentConfiguration {
	if in == nil {
		return old
	}
	c := old
	if in.Strategy != "" && in.Strategy != c.Strategy {
		c.Strategy = in.Strategy
		// The blocks of another strategy go with it.
		if c.Strategy != types.DeploymentStrategyCanary {
			c.CanaryConfiguration = nil
		}
		if c.Strategy != types.DeploymentStrategyLinear {
			c.LinearConfiguration = nil
		}
		if c.Strategy == types.DeploymentStrategyRolling {
			c.LifecycleHooks = nil
		} else {
			c.EarlySuccessCriteria = nil
		}
	}
	c.Alarms = cmp.Or(in.Alarms, c.Alarms)
	c.EarlySuccessCriteria = cmp.Or(in.EarlySuccessCriteria, c.EarlySuccessCriteria)
	if in.LifecycleHooks != nil {
		c.LifecycleHooks = mergeHooks(in.LifecycleHooks)
	}
	c.BakeTimeInMinutes = cmp.Or(in.BakeTimeInMinutes, c.BakeTimeInMinutes)
	c.MaximumPercent = cmp.Or(in.MaximumPercent, c.MaximumPercent)
	c.MinimumHealthyPercent = cmp.Or(in.MinimumHealthyPercent, c.MinimumHealthyPercent)
	if in.CanaryConfiguration != nil || c.Strategy == types.DeploymentStrategyCanary && c.CanaryConfiguration == nil {
		n := types.CanaryConfiguration{CanaryPercent: new(5.0), CanaryBakeTimeInMinutes: new(int32(10))}
		if in := in.CanaryConfiguration; in != nil {
			n.CanaryPercent, n.CanaryBakeTimeInMinutes = cmp.Or(in.CanaryPercent, n.CanaryPercent), cmp.Or(in.CanaryBakeTimeInMinutes, n.CanaryBakeTimeInMinutes)
		}
		c.CanaryConfiguration = &n
	}
	if in.LinearConfiguration != nil || c.Strategy == types.DeploymentStrategyLinear && c.LinearConfiguration == nil {
		n := types.LinearConfiguration{StepPercent: new(10.0), StepBakeTimeInMinutes: new(int32(6))}
		if in := in.LinearConfiguration; in != nil {
			n.StepPercent, n.StepBakeTimeInMinutes = cmp.Or(in.StepPercent, n.StepPercent), cmp.Or(in.StepBakeTimeInMinutes, n.StepBakeTimeInMinutes)
		}
		c.LinearConfiguration = &n
	}
	if in.DeploymentCircuitBreaker != nil {
		n := *in.DeploymentCircuitBreaker
		if old := c.DeploymentCircuitBreaker; old != nil {
			n.ResetOnHealthyTask = cmp.Or(n.ResetOnHealthyTask, old.ResetOnHealthyTask)
			n.ThresholdConfiguration = cmp.Or(n.ThresholdConfiguration, old.ThresholdConfiguration)
		}
		c.DeploymentCircuitBreaker = &n
	}
	return c
}

// shiftBake is the bake of a shifting strategy that names none, documented for
// CloudFormation.
const shiftBake = 15 * time.Minute

// rolloutConfig is the configuration in the words of the decision.
func rolloutConfig(c types.DeploymentConfiguration, lbs []types.LoadBalancer) rollout.Config {
	r := rollout.Config{
		Strategy: rollout.Strategy(c.Strategy), MinimumHealthy: int(aws.ToInt32(c.MinimumHealthyPercent)), Maximum: int(aws.ToInt32(c.MaximumPercent)),
	}
	shifts := r.Strategy != rollout.Rolling
	r.Traffic = shifts && len(lbs) > 0
	if r.Traffic {
		r.Settle = settleOf(lbs)
	}
	for _, lb := range lbs {
		r.TestTraffic = r.TestTraffic || shifts && lb.AdvancedConfiguration != nil && aws.ToString(lb.AdvancedConfiguration.TestListenerRule) != ""
	}
	if c.BakeTimeInMinutes != nil {
		r.Bake = time.Duration(*c.BakeTimeInMinutes) * time.Minute
	} else if shifts {
		r.Bake = shiftBake
	}
	permille := func(p *float64) rollout.Permille { return rollout.Permille(math.Round(aws.ToFloat64(p) * 10)) }
	if x := c.CanaryConfiguration; x != nil {
		r.CanaryShare, r.CanaryBake = permille(x.CanaryPercent), time.Duration(aws.ToInt32(x.CanaryBakeTimeInMinutes))*time.Minute
	}
	if x := c.LinearConfiguration; x != nil {
		r.StepShare, r.StepBake = permille(x.StepPercent), time.Duration(aws.ToInt32(x.StepBakeTimeInMinutes))*time.Minute
	}
	if b := c.DeploymentCircuitBreaker; b != nil {
		r.Breaker = rollout.Breaker{Enabled: b.Enable, Rollback: b.Rollback, KeepOnHealthy: b.ResetOnHealthyTask != nil && !*b.ResetOnHealthyTask}
		if t := b.ThresholdConfiguration; t != nil {
			r.Breaker.Threshold, r.Breaker.Value = rollout.ThresholdType(t.Type), int(t.Value)
		}
	}
	if e := c.EarlySuccessCriteria; e != nil && e.Enable {
		r.Early = rollout.Early{Enabled: true, Healthy: int(*e.HealthyPercent), Deferred: e.SourceServiceRevisionCleanup == types.ServiceRevisionCleanupDeferred}
	}
	r.Alarms = rolloutAlarms(c)
	r.Hooks = rolloutHooks(c.LifecycleHooks)
	return r
}

// deploy starts a deployment of the service as it stands: a revision row and a
// deployment row. A running deployment is superseded.
func (a *API) deploy(tx *store.Tx, key string, s *service) {
	scope, _ := arn.ParseKey(key)
	now := a.clock.Now()
	within := s.Cluster + "/" + s.Name + "/"
	r := revision{
		ARN: scope.For("ecs", "service-revision/"+within+id.Decimal(19)).String(), Legacy: "ecs-svc/" + id.Decimal(19), Service: key,
		TaskDefinition: s.TaskDefinition, LoadBalancers: s.LoadBalancers, Network: s.Network, Capacity: s.Capacity, LaunchType: s.LaunchType, Created: now,
	}
	d := deployment{
		ARN: scope.For("ecs", "service-deployment/"+within+id.Nano(21)).String(), Service: key, Target: r.ARN, Config: s.Config, HookDetails: s.HookDetails, Created: now, Updated: now,
	}
	if last, ok := a.deployments.Get(tx, deploymentKey(s.Deployment)); ok {
		d.Source = inService(last)
		if d.Source == "" && !last.State.Status.Terminal() {
			d.Source = last.Target // all that there is, though it never completed
		}
		if d.Source != "" {
			d.Wanted.Source = s.Desired
		}
		if !last.State.Status.Terminal() {
			last.Superseded, last.Updated = true, now
			last.State.Status = rollout.StopRequested
			a.deployments.Put(tx, deploymentKey(last.ARN), last)
		}
		// Whatever else has tasks must go before this one begins.
		for _, other := range a.revisionsOf(tx, key) {
			if other.ARN != d.Source && other.ARN != d.Target && a.count(tx, other).Left() > 0 {
				d.Others = append(d.Others, other.ARN)
			}
		}
	}
	config := rolloutConfig(s.Config, s.LoadBalancers)
	if s.Config.BakeTimeInMinutes == nil && config.Strategy == rollout.Rolling {
		config.Bake = a.bakeOfAlarms(scope, s.Config)
	}
	d.State = rollout.Begin(config, d.Source != "", len(d.Others) > 0)
	s.Deployment, s.Steady = d.ARN, false
	a.revisions.Put(tx, revisionKey(r.ARN), r)
	a.deployments.Put(tx, deploymentKey(d.ARN), d)
}

// inService is the revision that a deployment left, or would leave, in service.
func inService(d deployment) string {
	if d.State.Status == rollout.Successful {
		return d.Target
	}
	return d.Source
}

// within reports whether a row is of the scope: an ARN of another account or
// region names nothing here, whatever the caller may do there.
func within(scope arn.Scope, key string) bool {
	s, _ := arn.ParseKey(key)
	return s == scope
}

func deploymentKey(deploymentARN string) string {
	key, _ := rowKey(deploymentARN, "service-deployment")
	return key
}

func revisionKey(revisionARN string) string {
	key, _ := rowKey(revisionARN, "service-revision")
	return key
}

// revisionsOf is every revision of a service, oldest first.
func (a *API) revisionsOf(tx *store.Tx, key string) []revision {
	var list []revision
	for _, r := range a.revisions.Scan(tx, key+"/") {
		list = append(list, r)
	}
	slices.SortStableFunc(list, func(x, y revision) int { return x.Created.Compare(y.Created) })
	return list
}

// UpdateService changes a service. A deployment starts only where something
// that a revision records differs, or by force; documented per member.
func (a *API) UpdateService(ctx context.Context, in *ecs.UpdateServiceInput) (*ecs.UpdateServiceOutput, error) {
	call := wire.From(ctx)
	var view types.Service
	err := a.store.Update(func(tx *store.Tx) error {
		key, s, err := a.activeService(tx, call.Scope, in.Service, in.Cluster)
		if err != nil {
			return err
		}
		before := s
		if s.external() {
			if err := a.updateExternal(&s, in); err != nil {
				return err
			}
			a.services.Put(tx, key, s)
			view = a.serviceView(tx, key, s)
			return nil
		}
		if err := s.update(in); err != nil {
			return err
		}
		d, err := a.updatedDefinition(tx, call.Scope, s, in)
		if err != nil {
			return err
		}
		s.TaskDefinition = *d.TaskDefinitionArn
		if in.LoadBalancers != nil {
			s.LoadBalancers = balancersIn(in.LoadBalancers)
		}
		s.Network = cmp.Or(networkIn(in.NetworkConfiguration), s.Network)
		if in.CapacityProviderStrategy != nil {
			if err := a.changeCapacity(tx, call.Scope, &s, in); err != nil {
				return err
			}
		}
		s.place(in)
		s.Config = mergeConfig(attached(s.Config, s.HookDetails), in.DeploymentConfiguration)
		if err := a.checkService(tx, call.Scope, s, d, in.LoadBalancers != nil); err != nil {
			return err
		}
		s.Config, s.HookDetails = detached(s.Config)
		if in.ForceNewDeployment || s.TaskDefinition != before.TaskDefinition || differs(s.LoadBalancers, before.LoadBalancers) || differs(s.Network, before.Network) {
			a.deploy(tx, key, &s)
		}
		a.services.Put(tx, key, s)
		view = a.serviceView(tx, key, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateServiceOutput{Service: &view}, nil
}

// updatedDefinition is the task definition that a service is to have.
func (a *API) updatedDefinition(tx *store.Tx, scope arn.Scope, s service, in *ecs.UpdateServiceInput) (d types.TaskDefinition, err error) {
	if in.TaskDefinition != nil {
		d, err = a.deployable(tx, scope, *in.TaskDefinition)
	} else if found, ok := a.definition(tx, scope, s.TaskDefinition); ok {
		d = found
	} else {
		err = client("TaskDefinition not found.")
	}
	if err != nil {
		return d, err
	}
	return d, s.checkExec(d, "updated")
}

// differs compares configurations as they are stored.
func differs(x, y any) bool {
	a, err := json.Marshal(x)
	b, err2 := json.Marshal(y)
	return err != nil || err2 != nil || !reflect.DeepEqual(a, b)
}

// activeService finds a service that can be changed.
func (a *API) activeService(tx *store.Tx, scope arn.Scope, nameOrARN, cluster *string) (string, service, error) {
	key, err := a.serviceKey(tx, scope, aws.ToString(nameOrARN), cluster)
	if err != nil {
		return "", service{}, err
	}
	s, ok := a.services.Get(tx, key)
	if !ok {
		return "", s, &types.ServiceNotFoundException{Message: new("Service not found.")}
	}
	if s.Status != "ACTIVE" {
		return "", s, &types.ServiceNotActiveException{Message: new("Service was not ACTIVE.")}
	}
	return key, s, nil
}

func (a *API) serviceKey(tx *store.Tx, scope arn.Scope, nameOrARN string, cluster *string) (string, error) {
	name, err := identifier(scope, "service", clusterName(cluster), nameOrARN)
	if err != nil {
		return "", err
	}
	c, err := a.cluster(tx, scope, cluster)
	if err != nil {
		return "", err
	}
	return scope.Key(c.Name + "/" + name), nil
}

// DescribeServices describes up to ten services.
func (a *API) DescribeServices(ctx context.Context, in *ecs.DescribeServicesInput) (*ecs.DescribeServicesOutput, error) {
	call := wire.From(ctx)
	if len(in.Services) == 0 {
		return nil, invalid("Services cannot be empty.")
	}
	if len(in.Services) > 10 {
		return nil, invalid("services can have at most 10 items, got %d", len(in.Services))
	}
	out := &ecs.DescribeServicesOutput{Services: make([]types.Service, 0, len(in.Services))}
	var err error
	a.store.View(func(tx *store.Tx) {
		for _, name := range in.Services {
			var key string
			if key, err = a.serviceKey(tx, call.Scope, name, in.Cluster); err != nil {
				return
			}
			s, ok := a.services.Get(tx, key)
			if !ok {
				out.Failures = append(out.Failures, missing(serviceResource(call, name, in.Cluster)))
				continue
			}
			v := a.serviceView(tx, key, s)
			if !slices.Contains(in.Include, types.ServiceFieldTags) {
				v.Tags = nil
			}
			out.Services = append(out.Services, v)
		}
	})
	return out, err
}

// ListServices lists the ARNs of a cluster's services.
func (a *API) ListServices(ctx context.Context, in *ecs.ListServicesInput) (*ecs.ListServicesOutput, error) {
	call := wire.From(ctx)
	var list []string
	var err error
	a.store.View(func(tx *store.Tx) {
		var c cluster
		if c, err = a.cluster(tx, call.Scope, in.Cluster); err != nil {
			return
		}
		for _, s := range a.services.Scan(tx, call.Scope.Key(c.Name+"/")) {
			if s.Status != "INACTIVE" && (in.LaunchType == "" || in.LaunchType == s.LaunchType) &&
				cmp.Or(in.SchedulingStrategy, types.SchedulingStrategyReplica) == types.SchedulingStrategyReplica &&
				cmp.Or(in.ResourceManagementType, types.ResourceManagementTypeCustomer) == types.ResourceManagementTypeCustomer {
				list = append(list, serviceARN(call.Scope, c.Name, s.Name))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	list, next, err := page(list, in.NextToken, in.MaxResults, 10, 100)
	return &ecs.ListServicesOutput{ServiceArns: list, NextToken: next}, err
}

// DeleteService drains a service: it is INACTIVE when its last task is gone.
func (a *API) DeleteService(ctx context.Context, in *ecs.DeleteServiceInput) (*ecs.DeleteServiceOutput, error) {
	call := wire.From(ctx)
	var view types.Service
	err := a.store.Update(func(tx *store.Tx) error {
		key, s, err := a.activeService(tx, call.Scope, in.Service, in.Cluster)
		if err != nil {
			return err
		}
		if s.Desired > 0 && !aws.ToBool(in.Force) {
			return invalid("The service cannot be stopped while it is scaled above 0.")
		}
		if keys, _ := a.setsOf(tx, key); len(keys) > 0 && !aws.ToBool(in.Force) { // the words are observed of deployments
			return invalid("The service cannot be stopped while deployments are active.")
		}
		a.drainSets(tx, key)
		s.Status, s.Desired = "DRAINING", 0
		a.services.Put(tx, key, s)
		view = a.serviceView(tx, key, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeleteServiceOutput{Service: &view}, nil
}

// serviceView is a service as DescribeServices tells it, every count of it
// taken from the tasks.
func (a *API) serviceView(tx *store.Tx, key string, s service) types.Service {
	scope, _ := arn.ParseKey(key)
	v := types.Service{
		ServiceArn: new(serviceARN(scope, s.Cluster, s.Name)), ServiceName: new(s.Name), ClusterArn: new(clusterARN(scope, s.Cluster)),
		Status: new(s.Status), DesiredCount: int32(s.Desired), LoadBalancers: orEmpty(s.LoadBalancers),
		NetworkConfiguration: s.Network, DeploymentConfiguration: new(attached(s.Config, s.HookDetails)), CapacityProviderStrategy: s.Capacity, LaunchType: s.LaunchType,
		HealthCheckGracePeriodSeconds: s.Grace, CreatedAt: new(s.Created), CreatedBy: new(s.CreatedBy), Tags: a.tagsOut(tx, serviceARN(scope, s.Cluster, s.Name)),
		SchedulingStrategy: types.SchedulingStrategyReplica, ResourceManagementType: types.ResourceManagementTypeCustomer, DeploymentController: &types.DeploymentController{Type: cmp.Or(s.Controller, types.DeploymentControllerTypeEcs)},
		EnableECSManagedTags: s.ManagedTags, EnableExecuteCommand: s.Exec, PropagateTags: cmp.Or(s.PropagateTags, types.PropagateTagsNone),
		AvailabilityZoneRebalancing: cmp.Or(s.Rebalance, types.AvailabilityZoneRebalancingDisabled),
		ServiceRegistries:           []types.ServiceRegistry{}, PlacementConstraints: orEmpty(s.Constraints), PlacementStrategy: orEmpty(s.Placement),
		Events: make([]types.ServiceEvent, 0, len(s.Events)), Deployments: []types.Deployment{},
	}
	if s.TaskDefinition != "" {
		v.TaskDefinition = new(s.TaskDefinition)
	}
	for _, e := range s.Events {
		v.Events = append(v.Events, types.ServiceEvent{Id: new(e.ID), CreatedAt: new(e.At), Message: new(e.Message)})
	}
	if s.external() {
		a.describeSets(tx, key, s, &v)
		return v
	}
	d, ok := a.deployments.Get(tx, deploymentKey(s.Deployment))
	if !ok {
		return v
	}
	v.CurrentServiceDeployment = new(d.ARN)
	primary := primaryOf(d)
	for _, r := range slices.Backward(a.revisionsOf(tx, key)) {
		c := a.count(tx, r)
		v.RunningCount += int32(c.Running)
		v.PendingCount += int32(c.Pending)
		if r.ARN != primary && c.Left() == 0 {
			continue
		}
		l := a.legacyView(s, d, r, c)
		if r.ARN == primary {
			v.Deployments = append([]types.Deployment{l}, v.Deployments...)
		} else {
			v.Deployments = append(v.Deployments, l)
		}
		if c.Left() > 0 || r.ARN == primary {
			v.CurrentServiceRevisions = append(v.CurrentServiceRevisions, types.ServiceCurrentRevisionSummary{
				Arn: new(r.ARN), RequestedTaskCount: l.DesiredCount, RunningTaskCount: int32(c.Running), PendingTaskCount: int32(c.Pending)})
		}
	}
	return v
}

// orEmpty is a list that is told as empty, not left out.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// primaryOf is the revision that the service is on its way to.
func primaryOf(d deployment) string {
	switch d.State.Status {
	case rollout.RollbackInProgress, rollout.RollbackSuccessful:
		if d.Source != "" {
			return d.Source
		}
	}
	return d.Target
}

// legacyView is a revision as an entry of deployments[]: the old revision keeps
// its id when it becomes PRIMARY again, observed.
func (a *API) legacyView(s service, d deployment, r revision, c rollout.Counts) types.Deployment {
	v := types.Deployment{
		Id: new(r.Legacy), Status: new("ACTIVE"), TaskDefinition: new(r.TaskDefinition), RunningCount: int32(c.Running), PendingCount: int32(c.Pending),
		FailedTasks: int32(r.FailedToStart), CreatedAt: new(r.Created), UpdatedAt: new(d.Updated),
		NetworkConfiguration: r.Network, CapacityProviderStrategy: r.Capacity, LaunchType: r.LaunchType,
		RolloutState: types.DeploymentRolloutStateCompleted, RolloutStateReason: new(completed(r.Legacy)),
	}
	isPrimary := r.ARN == primaryOf(d)
	if isPrimary {
		v.Status, v.DesiredCount = new("PRIMARY"), int32(s.Desired)
	} else {
		v.DesiredCount = int32(c.Active())
	}
	set := func(state types.DeploymentRolloutState, reason string) {
		v.RolloutState, v.RolloutStateReason = state, new(reason)
	}
	failed := func() {
		reason := otherwise + "deployment failure."
		switch {
		case d.State.Monitor == rollout.Triggered:
			reason = breakerFailed
		case d.State.AlarmMonitor == rollout.Triggered:
			reason = otherwise + "alarm detected."
		}
		set(types.DeploymentRolloutStateFailed, reason)
	}
	switch status := d.State.Status; {
	case r.ARN == d.Target && (status == rollout.Pending || status == rollout.InProgress || status == rollout.RollbackRequested || status == rollout.StopRequested):
		set(types.DeploymentRolloutStateInProgress, inProgress(r.Legacy))
	case r.ARN == d.Target && status != rollout.Successful:
		failed()
	case isPrimary && status == rollout.RollbackInProgress:
		set(types.DeploymentRolloutStateInProgress, rollingBack(r.Legacy))
	case !r.Completed:
		failed()
	}
	if v.RolloutState == types.DeploymentRolloutStateCompleted || c.Running > 0 || r.ARN == d.Target && d.State.Ran {
		v.FailedTasks = 0 // documented: nobody counts any more once a task has run
	}
	return v
}

// tell adds an event to a service: newest first, a hundred at most.
func (a *API) tell(s *service, at time.Time, format string, args ...any) {
	a.tellAs(s, "", at, format, args...)
}

// tellAs is tell of what a task set of the service did.
func (a *API) tellAs(s *service, set string, at time.Time, format string, args ...any) {
	who := "(service " + s.Name
	if set != "" {
		who += ", taskSet " + set
	}
	e := event{id.UUID(), at, who + ") " + fmt.Sprintf(format, args...)}
	s.Events = append([]event{e}, s.Events[:min(len(s.Events), 99)]...)
}
