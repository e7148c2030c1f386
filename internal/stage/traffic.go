package stage

import (
	"net/http"
	"time"

	"serin/internal/api/ecsd"
	"serin/internal/api/elbd"
)

// Traffic is what the stage's load balancers carry, and whose tasks it goes to: the
// one view that serin top, Prometheus and people read. Counts only grow; what was
// in an interval is the difference of two views.
type Traffic struct {
	At            time.Time         `json:"at"` // wall time
	StageTime     time.Time         `json:"stageTime"`
	LoadBalancers []BalancerTraffic `json:"loadBalancers"`
	TargetGroups  []GroupTraffic    `json:"targetGroups"`
	Services      []ServiceTraffic  `json:"services"`
}

// The parts of the view are as their services tell them.
type (
	BalancerTraffic = elbd.BalancerTraffic
	ListenerTraffic = elbd.ListenerTraffic
	RuleTraffic     = elbd.RuleTraffic
	ShareTraffic    = elbd.ShareTraffic
	GroupTraffic    = elbd.GroupTraffic
	TargetTraffic   = elbd.TargetTraffic
	Codes           = elbd.Codes
	ServiceTraffic  = ecsd.Serving
	RevisionTraffic = ecsd.ServingRevision
)

// Traffic is the view now. Nothing changes because somebody looks.
func (s *Stage) Traffic() Traffic {
	out := Traffic{At: time.Now(), StageTime: s.clock.Now(), Services: s.ecs.Serving()}
	out.LoadBalancers, out.TargetGroups = s.elb.Traffic()
	type place struct{ group, address string }
	revisions := map[place]string{}
	for _, service := range out.Services {
		for _, r := range service.Revisions {
			for _, t := range r.Targets {
				revisions[place{t.Group, t.Address}] = r.ARN
			}
		}
	}
	for _, g := range out.TargetGroups {
		for i := range g.Targets {
			t := &g.Targets[i]
			t.Revision = revisions[place{g.ARN, t.Address}]
		}
	}
	return out
}

func (s *Stage) traffic(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Traffic())
}
