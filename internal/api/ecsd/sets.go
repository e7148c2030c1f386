package ecsd

import (
	"cmp"
	"context"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

// taskSet is a share of a service whose deployments somebody else controls: so
// many tasks of one task definition. What its tasks are, and what has been
// learned of them, is in the revision that it alone has.
type taskSet struct {
	ID          string // ecs-svc/…: its tasks' startedBy
	Revision    string // ARN
	Status      string // PRIMARY, ACTIVE, DRAINING
	ExternalID  string
	ClientToken string
	Scale       float64 // percent of the service's desired count
	Created     time.Time
	Updated     time.Time
	Computed    int       // tasks that it is to have, as of the controller's last look
	Steady      bool      // and whether it had them, healthy
	SteadyAt    time.Time // since when Steady is what it is
}

// setID is the task set that a revision is of, if it is one's.
func (r revision) setID() string {
	if r.Set {
		return r.Legacy
	}
	return ""
}

// States of a task set, documented.
const (
	setPrimary  = "PRIMARY"
	setActive   = "ACTIVE"
	setDraining = "DRAINING"
)

// mostSets is how many task sets a service can have, those that drain among
// them; observed.
const mostSets = 5

// wants is the set's share of a desired count, rounded up; documented.
func (ts taskSet) wants(desired int) int {
	if ts.Status == setDraining {
		return 0
	}
	const dust = 1e-9 // of the multiplication: 110 % of ten are eleven
	return int(math.Ceil(float64(desired)*ts.Scale/100 - dust))
}

func setARN(s arn.Scope, service service, setID string) string {
	return s.For("ecs", "task-set/"+service.Cluster+"/"+service.Name+"/"+setID).String()
}

var setIDForm = regexp.MustCompile(`^ecs-svc/\d+$`)

// setKey is the key of the set that an id or ARN names: CLUSTER/SERVICE/ecs-svc/ID.
func setKey(serviceKey, idOrARN string) (string, error) {
	if key, ok := rowKey(idOrARN, "task-set"); ok {
		return key, nil
	}
	if !setIDForm.MatchString(idOrARN) {
		return "", invalid("Task Set Identifier is invalid") // observed
	}
	return serviceKey + "/" + idOrARN, nil
}

// setsOf is the task sets of a service by their keys, the oldest first.
func (a *API) setsOf(tx *store.Tx, key string) (keys []string, sets map[string]taskSet) {
	sets = map[string]taskSet{}
	for k, ts := range a.sets.Scan(tx, key+"/") {
		keys, sets[k] = append(keys, k), ts
	}
	slices.SortFunc(keys, func(x, y string) int { return cmp.Or(sets[x].Created.Compare(sets[y].Created), cmp.Compare(x, y)) })
	return keys, sets
}

// externalService finds an active service that has task sets.
func (a *API) externalService(tx *store.Tx, scope arn.Scope, nameOrARN, cluster *string) (string, service, error) {
	key, s, err := a.activeService(tx, scope, nameOrARN, cluster)
	if err == nil && !s.external() {
		err = invalid("Amazon ECS only supports task set management on services configured to use external deployment controllers.") // observed
	}
	return key, s, err
}

// set finds a task set of a service.
func (a *API) set(tx *store.Tx, serviceKey string, idOrARN *string) (string, taskSet, error) {
	key, err := setKey(serviceKey, aws.ToString(idOrARN))
	if err != nil {
		return "", taskSet{}, err
	}
	ts, ok := a.sets.Get(tx, key)
	if !ok || key != serviceKey+"/"+ts.ID {
		return "", ts, &types.TaskSetNotFoundException{Message: new("The specified task set was not found.")}
	}
	return key, ts, nil
}

// scaleOf reads a scale; without one a set begins with no tasks, observed.
func scaleOf(in *types.Scale) (float64, error) {
	if in == nil {
		return 0, nil
	}
	if !(in.Value >= 0 && in.Value <= 100) {
		return 0, invalid("The scale of a task set must be between 0 and 100 percent, got %v.", in.Value)
	}
	return in.Value, nil
}

// CreateTaskSet makes a task set and the revision of its tasks.
func (a *API) CreateTaskSet(ctx context.Context, in *ecs.CreateTaskSetInput) (*ecs.CreateTaskSetOutput, error) {
	scope := wire.From(ctx).Scope
	labels, err := tagsIn(in.Tags)
	if err != nil {
		return nil, err
	}
	ts := taskSet{ID: "ecs-svc/" + id.Decimal(19), Status: setActive, ExternalID: aws.ToString(in.ExternalId), ClientToken: aws.ToString(in.ClientToken)}
	if ts.Scale, err = scaleOf(in.Scale); err != nil {
		return nil, err
	}
	var view types.TaskSet
	err = a.store.Update(func(tx *store.Tx) error {
		key, s, err := a.externalService(tx, scope, in.Service, in.Cluster)
		if err != nil {
			return err
		}
		keys, sets := a.setsOf(tx, key)
		for _, old := range sets {
			if ts.ClientToken != "" && old.ClientToken == ts.ClientToken {
				view = a.setView(tx, scope, s, old)
				return nil
			}
		}
		if len(keys) >= mostSets {
			return invalid("%d deployments exist on the service. Unable to create new TaskSet since this exceeds the maximum limit.", len(keys)) // observed
		}
		r, err := a.setRevision(tx, key, s, ts, in)
		if err != nil {
			return err
		}
		ts.Revision, ts.Created, ts.Updated, ts.SteadyAt = r.ARN, r.Created, r.Created, r.Created
		a.revisions.Put(tx, revisionKey(r.ARN), r)
		a.sets.Put(tx, key+"/"+ts.ID, ts)
		a.tags.Set(tx, setARN(scope, s, ts.ID), labels)
		view = a.setView(tx, scope, s, ts)
		view.Tags = a.tagsOut(tx, *view.TaskSetArn)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.CreateTaskSetOutput{TaskSet: &view}, nil
}

// setRevision is what the tasks of a new set will be, once it is found in order.
func (a *API) setRevision(tx *store.Tx, key string, s service, ts taskSet, in *ecs.CreateTaskSetInput) (r revision, err error) {
	scope, path := arn.ParseKey(key)
	r = revision{
		ARN: scope.For("ecs", "service-revision/"+path+"/"+lastPart(ts.ID)).String(), Legacy: ts.ID, Set: true, Service: key, Created: a.clock.Now(),
		LoadBalancers: in.LoadBalancers, Network: in.NetworkConfiguration, Capacity: in.CapacityProviderStrategy,
	}
	if r.LaunchType, err = launchOf(in.LaunchType, r.Capacity); err != nil {
		return r, err
	}
	d, err := a.deployable(tx, scope, aws.ToString(in.TaskDefinition))
	if err != nil {
		return r, err
	}
	if err := s.checkExec(d, "updated"); err != nil {
		return r, err
	}
	r.TaskDefinition = *d.TaskDefinitionArn
	c, _ := a.clusters.Get(tx, scope.Key(s.Cluster))
	if err := a.checkStrategy(tx, scope, c, r.Capacity, inRequest); err != nil {
		return r, err
	}
	if len(r.LoadBalancers) > 1 {
		return r, invalid("A task set can have at most one load balancer target group, got %d.", len(r.LoadBalancers)) // documented, the words are not
	}
	for _, lb := range r.LoadBalancers {
		if lb.AdvancedConfiguration != nil {
			return r, invalid("advancedConfiguration cannot be given to a task set: its traffic is moved with ModifyRule or ModifyListener.")
		}
		r.Groups = append(r.Groups, aws.ToString(lb.TargetGroupArn))
	}
	return r, a.checkService(tx, scope, service{Cluster: s.Cluster, LaunchType: r.LaunchType, Placement: s.Placement, LoadBalancers: r.LoadBalancers, Network: r.Network, Capacity: r.Capacity, Config: defaultConfig()}, d, true)
}

// DescribeTaskSets describes task sets of a service.
func (a *API) DescribeTaskSets(ctx context.Context, in *ecs.DescribeTaskSetsInput) (*ecs.DescribeTaskSetsOutput, error) {
	scope := wire.From(ctx).Scope
	if len(in.TaskSets) == 0 {
		return nil, invalid("Task sets cannot be empty.")
	}
	out := &ecs.DescribeTaskSetsOutput{TaskSets: []types.TaskSet{}, Failures: []types.Failure{}}
	var err error
	a.store.View(func(tx *store.Tx) {
		var key string
		var s service
		if key, s, err = a.externalService(tx, scope, in.Service, in.Cluster); err != nil {
			return
		}
		for _, name := range in.TaskSets {
			if _, err = setKey(key, name); err != nil {
				return
			}
			_, ts, missed := a.set(tx, key, &name)
			if missed != nil {
				if !arn.Is(name) {
					name = setARN(scope, s, name)
				}
				out.Failures = append(out.Failures, missing(name))
				continue
			}
			v := a.setView(tx, scope, s, ts)
			if slices.Contains(in.Include, types.TaskSetFieldTags) {
				v.Tags = a.tagsOut(tx, *v.TaskSetArn)
			}
			out.TaskSets = append(out.TaskSets, v)
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// changeSet changes a task set's row, and with it what else fn does.
func (a *API) changeSet(ctx context.Context, service, cluster, name *string, fn func(tx *store.Tx, key string, s *service, ts *taskSet) error) (*types.TaskSet, error) {
	scope := wire.From(ctx).Scope
	var view types.TaskSet
	err := a.store.Update(func(tx *store.Tx) error {
		key, s, err := a.externalService(tx, scope, service, cluster)
		if err != nil {
			return err
		}
		at, ts, err := a.set(tx, key, name)
		if err != nil {
			return err
		}
		before := ts
		if err := fn(tx, key, &s, &ts); err != nil {
			return err
		}
		if ts != before {
			ts.Updated = a.clock.Now()
			a.sets.Put(tx, at, ts)
		}
		view = a.setView(tx, scope, s, ts)
		view.Tags = a.tagsOut(tx, *view.TaskSetArn)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &view, nil
}

// UpdateTaskSet gives a set another share of the desired count.
func (a *API) UpdateTaskSet(ctx context.Context, in *ecs.UpdateTaskSetInput) (*ecs.UpdateTaskSetOutput, error) {
	scale, err := scaleOf(in.Scale)
	if err != nil {
		return nil, err
	}
	view, err := a.changeSet(ctx, in.Service, in.Cluster, in.TaskSet, func(_ *store.Tx, _ string, _ *service, ts *taskSet) error {
		if ts.Status == setDraining {
			return invalid("The task set %s is %s and cannot be scaled.", ts.ID, setDraining)
		}
		ts.Scale = scale
		return nil
	})
	return &ecs.UpdateTaskSetOutput{TaskSet: view}, err
}

// UpdateServicePrimaryTaskSet makes a set the primary one; the one before it is
// an active one again, and the service is described as the new one is.
func (a *API) UpdateServicePrimaryTaskSet(ctx context.Context, in *ecs.UpdateServicePrimaryTaskSetInput) (*ecs.UpdateServicePrimaryTaskSetOutput, error) {
	view, err := a.changeSet(ctx, in.Service, in.Cluster, in.PrimaryTaskSet, func(tx *store.Tx, key string, s *service, ts *taskSet) error {
		if ts.Status == setDraining {
			return invalid("The task set %s is %s and cannot be the primary one.", ts.ID, setDraining)
		}
		keys, sets := a.setsOf(tx, key)
		for _, k := range keys {
			if old := sets[k]; old.Status == setPrimary && old.ID != ts.ID {
				old.Status, old.Updated = setActive, a.clock.Now()
				a.sets.Put(tx, k, old)
			}
		}
		ts.Status = setPrimary
		r, _ := a.revisions.Get(tx, revisionKey(ts.Revision))
		s.TaskDefinition, s.LoadBalancers, s.Network, s.Capacity, s.LaunchType = r.TaskDefinition, r.LoadBalancers, r.Network, r.Capacity, r.LaunchType
		a.services.Put(tx, key, *s)
		return nil
	})
	return &ecs.UpdateServicePrimaryTaskSetOutput{TaskSet: view}, err
}

// DeleteTaskSet drains a set: it is gone when its last task is. Without force the
// primary one stays; any other goes, whatever its scale: PipeCD, and Terraform's
// tests against AWS, delete those at a hundred percent so; observed.
func (a *API) DeleteTaskSet(ctx context.Context, in *ecs.DeleteTaskSetInput) (*ecs.DeleteTaskSetOutput, error) {
	view, err := a.changeSet(ctx, in.Service, in.Cluster, in.TaskSet, func(_ *store.Tx, _ string, _ *service, ts *taskSet) error {
		if ts.Status == setPrimary && !aws.ToBool(in.Force) {
			return invalid("Primary TaskSet cannot be deleted") // observed
		}
		ts.Status = setDraining
		return nil
	})
	return &ecs.DeleteTaskSetOutput{TaskSet: view}, err
}

// setView is a task set as ECS tells it, without its tags.
func (a *API) setView(tx *store.Tx, scope arn.Scope, s service, ts taskSet) types.TaskSet {
	r, _ := a.revisions.Get(tx, revisionKey(ts.Revision))
	c := a.count(tx, r)
	v := types.TaskSet{
		Id: new(ts.ID), TaskSetArn: new(setARN(scope, s, ts.ID)), ServiceArn: new(serviceARN(scope, s.Cluster, s.Name)), ClusterArn: new(clusterARN(scope, s.Cluster)),
		Status: new(ts.Status), TaskDefinition: new(r.TaskDefinition), Scale: &types.Scale{Unit: types.ScaleUnitPercent, Value: ts.Scale},
		ComputedDesiredCount: int32(ts.Computed), PendingCount: int32(c.Pending), RunningCount: int32(c.Running), CreatedAt: new(ts.Created), UpdatedAt: new(ts.Updated),
		NetworkConfiguration: r.Network, LaunchType: r.LaunchType, CapacityProviderStrategy: r.Capacity, LoadBalancers: r.LoadBalancers, ServiceRegistries: []types.ServiceRegistry{},
		StabilityStatus: types.StabilityStatusStabilizing, StabilityStatusAt: new(ts.SteadyAt), Tags: []types.Tag{},
	}
	if ts.ExternalID != "" {
		v.ExternalId = new(ts.ExternalID)
	}
	if v.LoadBalancers == nil {
		v.LoadBalancers = []types.LoadBalancer{}
	}
	// What has changed since the controller looked is not steady, whatever it saw.
	if ts.Steady && ts.Computed == ts.wants(s.Desired) && c.Running == ts.Computed && c.Pending == 0 {
		v.StabilityStatus = types.StabilityStatusSteadyState
	}
	return v
}
