package ecsd

import (
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/rollout"
)

// checkAlarms validates the alarms of a configuration; AWS documents no text.
// That an alarm need not exist is a guess.
func checkAlarms(c types.DeploymentConfiguration) error {
	if c.Alarms == nil {
		return nil
	}
	if c.Alarms.Enable && len(c.Alarms.AlarmNames) == 0 {
		return invalid("alarmNames must be specified when alarms is enabled")
	}
	for _, name := range c.Alarms.AlarmNames {
		if len(name) < 1 || len(name) > 255 {
			return invalid("alarmNames must have between 1 and 255 characters each, got %d", len(name))
		}
	}
	return nil
}

// watched is the alarms that a deployment of the configuration watches.
func watched(c types.DeploymentConfiguration) []string {
	if c.Alarms == nil || !c.Alarms.Enable {
		return nil
	}
	return c.Alarms.AlarmNames
}

// bakeOfAlarms is the bake that a rolling deployment has for its alarms' sake,
// where it is told of none.
func (a *API) bakeOfAlarms(scope arn.Scope, c types.DeploymentConfiguration) time.Duration {
	var longest time.Duration
	for _, name := range watched(c) {
		if _, evaluation, ok := a.deps.Alarms.Alarm(scope, name); ok {
			longest = max(longest, evaluation)
		}
	}
	return rollout.AlarmsBake(longest)
}

// firing is the names of the deployment's alarms that fire, a line each.
func (c *control) firing() string {
	if c.d.State.Status.Terminal() {
		return ""
	}
	scope, _ := arn.ParseKey(c.key)
	var names []string
	for _, name := range watched(c.d.Config) {
		if firing, _, _ := c.deps.Alarms.Alarm(scope, name); firing {
			names = append(names, name)
		}
	}
	return strings.Join(names, "\n")
}

// alarmsView is the alarms of a deployment as ECS tells them.
func alarmsView(d deployment) *types.ServiceDeploymentAlarms {
	v := &types.ServiceDeploymentAlarms{Status: types.ServiceDeploymentRollbackMonitorsStatus(d.State.AlarmMonitor)}
	if v.Status == "" { // of a deployment that was begun before there were alarms
		v.Status = types.ServiceDeploymentRollbackMonitorsStatusDisabled
	}
	v.AlarmNames = slices.Clone(watched(d.Config))
	if d.State.Fired != "" {
		v.TriggeredAlarmNames = strings.Split(d.State.Fired, "\n")
	}
	return v
}

// rolloutAlarms is the alarms in the words of the decision.
func rolloutAlarms(c types.DeploymentConfiguration) rollout.Alarms {
	return rollout.Alarms{Enabled: len(watched(c)) > 0, Rollback: c.Alarms != nil && c.Alarms.Rollback}
}
