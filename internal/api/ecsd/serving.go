package ecsd

import (
	"cmp"
	"fmt"
	"slices"

	"serin/internal/arn"
	"serin/internal/store"
)

// Serving is a service and its revisions that have tasks or are being deployed.
type Serving struct {
	ARN        string            `json:"arn"`
	Cluster    string            `json:"cluster"`
	Name       string            `json:"name"`
	Deployment *Underway         `json:"deployment,omitempty"`
	Revisions  []ServingRevision `json:"revisions"` // the oldest first
}

// Underway is a deployment that runs.
type Underway struct {
	ARN    string `json:"arn"`
	Status string `json:"status"`
	Stage  string `json:"lifecycleStage,omitempty"`
}

// ServingRevision is a revision of a service, or one of its task sets.
type ServingRevision struct {
	ARN            string          `json:"arn"`
	TaskDefinition string          `json:"taskDefinition"`       // FAMILY:REVISION
	Role           string          `json:"role,omitempty"`       // source or target of the deployment
	Production     *float64        `json:"production,omitempty"` // percent of traffic that the deployment asks for now
	Test           *float64        `json:"test,omitempty"`
	Tasks          map[string]int  `json:"tasks"` // by status; those that have stopped are not among them
	Targets        []ServingTarget `json:"targets"`
}

// ServingTarget is a task's place in a target group.
type ServingTarget struct {
	Group   string `json:"targetGroup"`
	Address string `json:"address"`
	Task    string `json:"task"`
}

// Serving is every service, by its ARN.
func (a *API) Serving() (list []Serving) {
	a.store.View(func(tx *store.Tx) {
		for key, s := range a.services.Scan(tx, "") {
			if s.Status == "INACTIVE" {
				continue
			}
			scope, _ := arn.ParseKey(key)
			v := Serving{ARN: serviceARN(scope, s.Cluster, s.Name), Cluster: s.Cluster, Name: s.Name, Revisions: []ServingRevision{}}
			d, ok := a.deployments.Get(tx, deploymentKey(s.Deployment))
			runs := ok && !d.State.Status.Terminal()
			if runs {
				v.Deployment = &Underway{d.ARN, string(d.State.Status), string(d.State.Stage)}
			}
			for _, r := range a.revisionsOf(tx, key) {
				view := a.servingRevision(tx, scope, r)
				if runs {
					a.weigh(tx, d, &view)
				}
				if len(view.Tasks) > 0 || view.Role != "" {
					v.Revisions = append(v.Revisions, view)
				}
			}
			list = append(list, v)
		}
	})
	slices.SortFunc(list, func(x, y Serving) int { return cmp.Compare(x.ARN, y.ARN) })
	return list
}

func (a *API) servingRevision(tx *store.Tx, scope arn.Scope, r revision) ServingRevision {
	v := ServingRevision{ARN: r.ARN, TaskDefinition: lastPart(r.TaskDefinition), Tasks: map[string]int{}, Targets: []ServingTarget{}}
	for _, t := range a.tasksOf(tx, r) {
		v.Tasks[t.Last]++
		for _, reg := range t.Targets {
			v.Targets = append(v.Targets, ServingTarget{reg.Group, fmt.Sprintf("%s:%d", t.Address, reg.Port), taskARN(scope, t)})
		}
	}
	return v
}

// weigh says what the deployment asks for the revision.
func (a *API) weigh(tx *store.Tx, d deployment, v *ServingRevision) {
	view := a.deploymentView(d, tx)
	if s := view.TargetServiceRevision; *s.Arn == v.ARN {
		v.Role, v.Production, v.Test = "target", s.RequestedProductionTrafficWeight, s.RequestedTestTrafficWeight
		return
	}
	for _, s := range view.SourceServiceRevisions {
		if *s.Arn == v.ARN {
			v.Role, v.Production, v.Test = "source", s.RequestedProductionTrafficWeight, s.RequestedTestTrafficWeight
		}
	}
}
