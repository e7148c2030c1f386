package rollout

import "time"

// Alarms is what a deployment does about CloudWatch's alarms. Documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-alarm-failure.html
type Alarms struct {
	Enabled  bool
	Rollback bool
}

// alarmsBakeAtMost bounds the bake that a rolling deployment with alarms has of
// itself, observed.
const alarmsBakeAtMost = 5 * time.Minute

// AlarmsBake is how long a rolling deployment that says nothing of a bake watches
// its alarms when all is replaced: as long as the slowest of them looks back.
func AlarmsBake(evaluation time.Duration) time.Duration { return min(evaluation, alarmsBakeAtMost) }

// watchAlarms begins with the deployment. An alarm that fires already would say
// nothing about it: then none is minded until its end, documented. That the
// monitor is called DISABLED then is a guess.
func (d *decision) watchAlarms() {
	if d.s.Config.Alarms.Enabled && d.o.Alarms == "" {
		d.s.AlarmMonitor = Monitoring
	}
	if d.s.Config.Alarms.Enabled && d.o.Alarms != "" {
		d.tell(AlarmsIgnored, d.o.Alarms)
	}
}

// alarm takes in that one fires, from the deployment's beginning to the end of its
// bake; which moment is the first that AWS minds is not documented.
func (d *decision) alarm() {
	if d.s.AlarmMonitor == Monitoring && d.s.Status == InProgress && d.s.Stage != CleanUp && !d.s.Settled && d.o.Alarms != "" {
		d.s.AlarmMonitor, d.s.Fired = Triggered, d.o.Alarms
	}
}
