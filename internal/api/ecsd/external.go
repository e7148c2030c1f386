package ecsd

import (
	"cmp"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/store"
)

// A service with the deployment controller EXTERNAL has no deployments: somebody
// else makes task sets in it and moves the traffic between their target groups.
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-external.html

// external reports whether the service has task sets instead of deployments.
func (s service) external() bool { return s.Controller == types.DeploymentControllerTypeExternal }

// controllerOf reads a deployment controller and refuses what is not performed.
func controllerOf(in *types.DeploymentController) (types.DeploymentControllerType, error) {
	if in == nil || in.Type == "" {
		return types.DeploymentControllerTypeEcs, nil
	}
	if in.Type == types.DeploymentControllerTypeCodeDeploy {
		return "", invalid("Serin does not perform the deployment controller CODE_DEPLOY; use ECS with the strategy BLUE_GREEN, CANARY or LINEAR, or EXTERNAL with task sets.")
	}
	return in.Type, nil
}

// keepController refuses to change a service's deployment controller.
func (s service) keepController(in *types.DeploymentController) error {
	if in == nil {
		return nil
	}
	wanted, err := controllerOf(in)
	if had := cmp.Or(s.Controller, types.DeploymentControllerTypeEcs); err == nil && wanted != had {
		err = invalid("Serin does not change the deployment controller of a service from %s to %s; create another service.", had, wanted)
	}
	return err
}

// checkExternal refuses what only the ECS controller knows, and what belongs to a
// task set: the words for task definitions and networks are observed, the others
// are like them.
func checkExternal(in *ecs.CreateServiceInput) error {
	switch {
	case in.SchedulingStrategy == types.SchedulingStrategyDaemon:
		return invalid("The EXTERNAL deployment controller type is not supported for services using the DAEMON scheduling strategy.") // documented
	case in.TaskDefinition != nil && *in.TaskDefinition == "":
		return invalid("Family should not be null or empty.") // observed
	case in.TaskDefinition != nil:
		return invalid("TaskDefinition must be blank")
	case in.NetworkConfiguration != nil:
		return invalid("NetworkConfiguration must be null.")
	case len(in.LoadBalancers) > 0:
		return invalid("LoadBalancers must be null.")
	case in.LaunchType != "":
		return invalid("LaunchType must be blank")
	case len(in.CapacityProviderStrategy) > 0:
		return invalid("CapacityProviderStrategy must be null.")
	}
	c := in.DeploymentConfiguration
	if c == nil {
		return nil
	}
	for _, f := range []struct {
		feature string
		given   bool
	}{
		{"Deployment circuit breaker", c.DeploymentCircuitBreaker != nil && c.DeploymentCircuitBreaker.Enable}, // documented
		{string(c.Strategy) + " deployment strategy", c.Strategy != "" && c.Strategy != types.DeploymentStrategyRolling},
		{"Bake time", c.BakeTimeInMinutes != nil},
		{"Early success criteria", c.EarlySuccessCriteria != nil},
	} {
		if f.given {
			return invalid("%s feature is only supported with ECS deployment controller. Update to ECS deployment controller and try again.", f.feature)
		}
	}
	return checkConfig(externalConfig(c), nil)
}

// externalConfig is the configuration of a service that has no deployments: how
// many tasks may run, which is described but rules nothing there; documented.
func externalConfig(in *types.DeploymentConfiguration) types.DeploymentConfiguration {
	c := defaultConfig()
	c.DeploymentCircuitBreaker = nil
	return mergeConfig(c, in)
}

// updateExternal changes what UpdateService can change of a service with task
// sets; documented.
func (a *API) updateExternal(s *service, in *ecs.UpdateServiceInput) error {
	for _, m := range []struct {
		member string
		given  bool
	}{
		{"task definition", in.TaskDefinition != nil}, {"network parameters", in.NetworkConfiguration != nil}, {"load balancers", in.LoadBalancers != nil},
		{"capacity provider strategy", in.CapacityProviderStrategy != nil}, {"deployment configuration", in.DeploymentConfiguration != nil},
	} {
		if m.given { // the words are those of CODE_DEPLOY, which are observed
			return invalid("Unable to update %s on services with an EXTERNAL deployment controller. Use CreateTaskSet to create a new task set.", m.member)
		}
	}
	if in.ForceNewDeployment {
		return invalid("Cannot force a new deployment on services with an EXTERNAL deployment controller. Use CreateTaskSet to create a new task set.")
	}
	return s.update(in)
}

// update changes what no deployment is needed for.
func (s *service) update(in *ecs.UpdateServiceInput) error {
	if err := s.keepController(in.DeploymentController); err != nil {
		return err
	}
	if in.DesiredCount != nil {
		if err := checkDesired(*in.DesiredCount); err != nil {
			return err
		}
		desired := int(*in.DesiredCount)
		s.Steady = s.Steady && s.Desired == desired
		s.Desired = desired
	}
	if err := checkGrace(in.HealthCheckGracePeriodSeconds); err != nil {
		return err
	}
	s.Grace = cmp.Or(in.HealthCheckGracePeriodSeconds, s.Grace)
	if in.EnableECSManagedTags != nil {
		s.ManagedTags = *in.EnableECSManagedTags
	}
	if in.EnableExecuteCommand != nil {
		s.Exec = *in.EnableExecuteCommand
	}
	s.PropagateTags = cmp.Or(in.PropagateTags, s.PropagateTags)
	s.Rebalance = cmp.Or(in.AvailabilityZoneRebalancing, s.Rebalance)
	return nil
}

func checkDesired(n int32) error {
	if n < 0 || n > 5000 {
		return invalid("desiredCount must be between 0 and 5000, got %d.", n)
	}
	return nil
}

// launchOf is where tasks are to run: one of the two, or instances.
func launchOf(in types.LaunchType, capacity []types.CapacityProviderStrategyItem) (types.LaunchType, error) {
	if in == types.LaunchTypeManagedInstances { // documented, the words are guessed
		return "", invalid("The launch type MANAGED_INSTANCES is not supported. To use Managed Instances, specify a capacity provider strategy and omit the launch type.")
	}
	if len(capacity) == 0 {
		return cmp.Or(in, types.LaunchTypeEc2), nil
	}
	if in != "" {
		return "", invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	}
	return "", nil
}

// describeSets fills in what a service with task sets is described by.
func (a *API) describeSets(tx *store.Tx, key string, s service, v *types.Service) {
	scope, _ := arn.ParseKey(key)
	v.TaskSets = []types.TaskSet{}
	keys, sets := a.setsOf(tx, key)
	for _, k := range keys {
		ts := a.setView(tx, scope, s, sets[k])
		v.RunningCount += ts.RunningCount
		v.PendingCount += ts.PendingCount
		v.TaskSets = append(v.TaskSets, ts)
	}
}

// drainSets lets every set of a service go.
func (a *API) drainSets(tx *store.Tx, key string) {
	keys, sets := a.setsOf(tx, key)
	for _, k := range keys {
		ts := sets[k]
		ts.Status, ts.Updated = setDraining, a.clock.Now()
		a.sets.Put(tx, k, ts)
	}
}

// runSets brings every task set of the service to its share of the desired count.
func (c *control) runSets() {
	c.replaceUnhealthy()
	keys, sets := c.setsOf(c.tx, c.key)
	steady := len(keys) > 0
	for _, k := range keys {
		steady = c.runSet(k, sets[k]) && steady
	}
	if c.s.Status == "DRAINING" {
		c.drain()
		return
	}
	if steady && !c.s.Steady {
		c.tell(&c.s, c.now, "has reached a steady state.")
		c.tellAction(c.tx, c.key, c.now, steadyState, "")
	}
	c.s.Steady = steady
	c.keep()
}

// runSet looks at one task set; it says whether the set is in a steady state.
func (c *control) runSet(key string, ts taskSet) bool {
	before := ts
	scope, _ := arn.ParseKey(c.key)
	if n := ts.wants(c.s.Desired); n != ts.Computed {
		ts.Computed = n
		c.tell(&c.s, c.now, "updated computedDesiredCount for taskSet %s to %d.", ts.ID, n)
		c.tellAction(c.tx, c.key, c.now, desiredUpdated, "", setARN(scope, c.s, ts.ID))
	}
	c.scale(ts.Revision, ts.Computed)
	r, _ := c.revisions.Get(c.tx, revisionKey(ts.Revision))
	if ts.Status == setDraining && c.count(r).Left() == 0 {
		c.sets.Delete(c.tx, key)
		c.revisions.Delete(c.tx, revisionKey(r.ARN))
		c.tags.Set(c.tx, setARN(scope, c.s, ts.ID), nil)
		return true
	}
	if now := ts.Status != setDraining && c.whole(r, ts.Computed); now != ts.Steady {
		ts.Steady, ts.SteadyAt = now, c.now
		if now {
			c.tellAs(&c.s, ts.ID, c.now, "updated state to STEADY_STATE.")
			c.tellAction(c.tx, c.key, c.now, setSteady, "", setARN(scope, c.s, ts.ID))
		}
	}
	if ts != before {
		ts.Updated = c.now
		c.sets.Put(c.tx, key, ts)
	}
	return ts.Steady
}

// whole is a task set's steady state, documented: as many tasks run as are to,
// none is on its way, and every load balancer finds them healthy.
func (c *control) whole(r revision, n int) bool {
	if counts := c.count(r); counts.Running != n || counts.Pending != 0 {
		return false
	}
	for _, t := range c.tasksOf(r) {
		if t.Last == running && t.Desired == running && len(r.LoadBalancers) > 0 && !c.healthy(t) {
			return false
		}
	}
	return true
}
