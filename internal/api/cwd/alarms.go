package cwd

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cw "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// alarm is the row of an alarm: what it watches, and what it says.
type alarm struct {
	Name        string
	Description *string
	Enabled     bool // its actions; none is performed
	Actions     []string
	OKActions   []string
	NoData      []string // its actions for INSUFFICIENT_DATA

	Queries    []query // one of them, not hidden, is watched
	Math       bool    // it was given as Metrics
	Comparison types.ComparisonOperator
	Threshold  float64
	Periods    int32  // N of "M out of N"
	Points     *int32 // M; N where it is not given
	Missing    string // how missing data is treated; empty is "missing"
	LowSamples string // evaluate (also when empty) or ignore
	Configured time.Time

	State        types.StateValue
	Reason       string
	ReasonData   string
	Updated      time.Time
	Transitioned time.Time
}

func (a alarm) watched() query {
	return a.Queries[slices.IndexFunc(a.Queries, func(q query) bool { return !q.Hidden })]
}

// period is that of the metrics; all of an alarm have the same.
func (a alarm) period() time.Duration { return finest(a.Queries) }

// needed is M of "M out of N".
func (a alarm) needed() int {
	if a.Points != nil {
		return int(*a.Points)
	}
	return int(a.Periods)
}

// The limits of alarms, documented.
const (
	mostAlarms        = 5000
	mostAlarmMetrics  = 10
	mostAlarmQueries  = 20
	mostActions       = 5
	longestEvaluation = 24 * time.Hour
	longestOfHours    = 7 * 24 * time.Hour // where the period is an hour or more
)

// PutMetricAlarm makes an alarm, or gives one another configuration; its state
// stays then.
func (a *API) PutMetricAlarm(ctx context.Context, in *cw.PutMetricAlarmInput) (*cw.PutMetricAlarmOutput, error) {
	c := wire.From(ctx)
	row, err := a.configured(c, in)
	if err != nil {
		return nil, err
	}
	given := tags.In(in.Tags)
	if err := tags.Check(given, tags.Exact); err != nil {
		return nil, badValue("%v", err)
	}
	return &cw.PutMetricAlarmOutput{}, a.store.Update(func(tx *store.Tx) error {
		now := a.clock.Now()
		key := c.Scope.Key(row.Name)
		before, there := a.alarms.Get(tx, key)
		row.Configured = now
		if there {
			row.State, row.Reason, row.ReasonData, row.Updated, row.Transitioned = before.State, before.Reason, before.ReasonData, before.Updated, before.Transitioned
		} else {
			if n := countOf(a.alarms.Scan(tx, c.Scope.Key(""))); n >= mostAlarms {
				return &types.LimitExceededFault{Message: new(fmt.Sprintf("The maximum limit of %d alarms was exceeded.", mostAlarms))}
			}
			row.State, row.Reason, row.Updated, row.Transitioned = types.StateValueInsufficientData, "Unchecked: Initial alarm creation", now, now
			a.tags.Set(tx, alarmARN(c, row.Name), given) // of one that is there they are not changed, documented
		}
		a.alarms.Put(tx, key, row)
		a.note(tx, c.Scope, configuration(c, there, row, now))
		return nil
	})
}

func countOf[K, V any](rows func(func(K, V) bool)) (n int) {
	for range rows {
		n++
	}
	return n
}

// configured reads and checks the configuration of an alarm.
func (a *API) configured(c *wire.Call, in *cw.PutMetricAlarmInput) (alarm, error) {
	row := alarm{
		Name: aws.ToString(in.AlarmName), Description: in.AlarmDescription, Enabled: in.ActionsEnabled == nil || *in.ActionsEnabled,
		Actions: in.AlarmActions, OKActions: in.OKActions, NoData: in.InsufficientDataActions,
		Comparison: in.ComparisonOperator, Threshold: aws.ToFloat64(in.Threshold), Periods: aws.ToInt32(in.EvaluationPeriods), Points: in.DatapointsToAlarm,
		Missing: aws.ToString(in.TreatMissingData), LowSamples: aws.ToString(in.EvaluateLowSampleCountPercentile),
	}
	var problems wire.Constraints
	problems.Required("alarmName", in.AlarmName)
	problems.Length("alarmName", in.AlarmName, 1, 255)
	problems.Length("alarmDescription", in.AlarmDescription, 0, 1024)
	for member, actions := range map[string][]string{"alarmActions": row.Actions, "oKActions": row.OKActions, "insufficientDataActions": row.NoData} {
		problems.Count(member, len(actions), mostActions)
	}
	if err := problems.Err(); err != nil {
		return row, err
	}
	if in.Threshold == nil || finite(*in.Threshold, "") != nil {
		return row, invalid("Threshold must be specified and a number")
	}
	if strings.ContainsFunc(row.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return row, invalid("The alarm name must not contain control characters.")
	}
	var err error
	if in.MetricName != nil {
		err = row.single(in)
	} else {
		err = row.several(in)
	}
	if err != nil {
		return row, err
	}
	if err := row.check(c); err != nil {
		return row, err
	}
	now := a.clock.Now().Truncate(time.Minute) // the expressions are tried
	got, err := a.compute(c.Scope, row.Queries, now.Add(-row.reach()), now)
	if err != nil {
		return row, err
	}
	if len(got[row.watched().ID]) != 1 {
		return row, invalid("Metrics expression that return multi time series are only allowed for MetricsInsights expression with an ORDER BY clause")
	}
	return row, nil
}

// single reads an alarm on one metric.
func (a *alarm) single(in *cw.PutMetricAlarmInput) error {
	if len(in.Metrics) > 0 {
		return badCombination("The parameters MetricName and Metrics are mutually exclusive and you have specified both.")
	}
	stat := string(in.Statistic)
	switch {
	case in.Statistic != "" && in.ExtendedStatistic != nil:
		return badCombination("The parameters Statistic and ExtendedStatistic are mutually exclusive and you have specified both.")
	case in.ExtendedStatistic != nil:
		stat = *in.ExtendedStatistic
		if _, ok := parseStatistic(stat); !ok || plainStatistic(stat) {
			return badValue("The value %s for parameter ExtendedStatistic is invalid.", stat)
		}
	case stat == "":
		return missing("At least one of the parameters Statistic and ExtendedStatistic must be specified.")
	case aws.ToString(in.Namespace) == "":
		return missing("The parameter Namespace is required.")
	case in.Period == nil:
		return missing("The parameter Period is required.")
	}
	dims, err := dimensions(in.Dimensions, "Dimensions")
	a.Queries = []query{{ID: "m1", Namespace: *in.Namespace, Metric: *in.MetricName, Dimensions: dims, Stat: stat, Unit: string(in.Unit), Period: aws.ToInt32(in.Period)}}
	return err
}

// several reads an alarm on metric math.
func (a *alarm) several(in *cw.PutMetricAlarmInput) error {
	if len(in.Metrics) == 0 {
		return missing("At least one of the parameters MetricName and Metrics must be specified.")
	}
	if in.Namespace != nil || len(in.Dimensions) > 0 || in.Period != nil || in.Unit != "" || in.Statistic != "" || in.ExtendedStatistic != nil {
		return badCombination("Namespace, Dimensions, Period, Unit, Statistic and ExtendedStatistic must not be specified together with Metrics.")
	}
	queries, err := readQueries(in.Metrics, "Metrics", mostAlarmQueries)
	if err != nil {
		return err
	}
	a.Queries, a.Math = queries, true
	returned, metrics := 0, 0
	for _, q := range queries {
		if !q.Hidden {
			returned++
		}
		if q.Expression == "" {
			metrics++
		}
		if q.Period > 0 && time.Duration(q.Period)*time.Second != a.period() {
			return invalid("Serin performs alarms whose metrics all have the same period; %s has another.", q.ID)
		}
	}
	switch {
	case returned != 1:
		return invalid("Exactly one element of the metrics list should return data.")
	case metrics > mostAlarmMetrics:
		return invalid("Alarms on math expressions cannot contain more than %d individual metrics", mostAlarmMetrics)
	case metrics == 0 && !slices.ContainsFunc(queries, func(q query) bool { return q.Period > 0 }):
		return invalid("Period must be specified on at least one element of the metrics list.")
	}
	return nil
}

// check refuses what an alarm of any kind cannot have.
func (a *alarm) check(c *wire.Call) error {
	seconds := int32(a.period() / time.Second)
	longest, words := longestEvaluation, "a day"
	if a.period() >= time.Hour {
		longest, words = longestOfHours, "a week"
	}
	switch {
	case seconds%60 != 0 && !slices.Contains([]int32{10, 20, 30}, seconds):
		return invalid("Period must be 10, 20, 30 or a multiple of 60")
	case a.Periods < 1:
		return invalid("EvaluationPeriods must be specified and at least 1")
	case a.period()*time.Duration(a.Periods) > longest:
		return invalid("Metrics cannot be checked across more than %s (EvaluationPeriods * Period must be <= %d).", words, int(longest/time.Second))
	case a.Points != nil && (*a.Points < 1 || *a.Points > a.Periods):
		return invalid("DatapointsToAlarm must be at least 1 and not more than EvaluationPeriods")
	case comparisons[a.Comparison].words == "":
		return invalid("Serin does not perform ComparisonOperator '%s' yet: there is no anomaly detection.", a.Comparison)
	case !slices.Contains([]string{"", "missing", "ignore", "breaching", "notBreaching"}, a.Missing):
		return badValue("The value %s for parameter TreatMissingData is invalid. Valid values are breaching, notBreaching, ignore and missing.", a.Missing)
	case !slices.Contains([]string{"", "evaluate", "ignore"}, a.LowSamples):
		return badValue("The value %s for parameter EvaluateLowSampleCountPercentile is invalid. Valid values are evaluate and ignore.", a.LowSamples)
	case a.LowSamples != "" && (a.Math || !percentile.MatchString(a.Queries[0].Stat)):
		return invalid("EvaluateLowSampleCountPercentile is for alarms on a percentile only.")
	}
	for _, action := range slices.Concat(a.Actions, a.OKActions, a.NoData) {
		if err := checkAction(c, action); err != nil {
			return err
		}
	}
	return nil
}

var actionARN = regexp.MustCompile(`^arn:aws:(automate|swf|autoscaling|lambda|sns|ssm|ssm-incidents|aiops):([a-z0-9-]*):[^:]*:?.+$`)

// checkAction refuses what no action can be; both texts observed.
func checkAction(c *wire.Call, action string) error {
	m := actionARN.FindStringSubmatch(action)
	if m == nil {
		return invalid("Invalid arn syntax: %s", action)
	}
	if m[2] != "" && m[2] != c.Scope.Region {
		return invalid("Invalid region %s specified. Only %s is supported.", m[2], c.Scope.Region)
	}
	return nil
}

// view is an alarm as CloudWatch describes it.
func (a alarm) view(c *wire.Call) types.MetricAlarm {
	v := types.MetricAlarm{
		AlarmName: new(a.Name), AlarmArn: new(alarmARN(c, a.Name)), AlarmDescription: a.Description, ActionsEnabled: new(a.Enabled),
		AlarmActions: orNone(a.Actions), OKActions: orNone(a.OKActions), InsufficientDataActions: orNone(a.NoData), Dimensions: []types.Dimension{},
		ComparisonOperator: a.Comparison, Threshold: new(a.Threshold), EvaluationPeriods: new(a.Periods), DatapointsToAlarm: a.Points,
		TreatMissingData: orNil(a.Missing), EvaluateLowSampleCountPercentile: orNil(a.LowSamples), AlarmConfigurationUpdatedTimestamp: new(a.Configured),
		StateValue: a.State, StateReason: new(a.Reason), StateReasonData: orNil(a.ReasonData), StateUpdatedTimestamp: new(a.Updated), StateTransitionedTimestamp: new(a.Transitioned),
	}
	if a.Math {
		for _, q := range a.Queries {
			v.Metrics = append(v.Metrics, q.view())
		}
		return v
	}
	q := a.Queries[0]
	v.Namespace, v.MetricName, v.Dimensions, v.Period, v.Unit = new(q.Namespace), new(q.Metric), dimensionViews(q.Dimensions), new(q.Period), types.StandardUnit(q.Unit)
	if plainStatistic(q.Stat) {
		v.Statistic = types.Statistic(q.Stat)
	} else {
		v.ExtendedStatistic = new(q.Stat)
	}
	return v
}

func (q query) view() types.MetricDataQuery {
	v := types.MetricDataQuery{Id: new(q.ID), Label: orNil(q.Label), ReturnData: new(!q.Hidden)}
	if q.Expression != "" {
		v.Expression = new(q.Expression)
		if q.Period > 0 {
			v.Period = new(q.Period)
		}
		return v
	}
	v.MetricStat = &types.MetricStat{Stat: new(q.Stat), Period: new(q.Period), Unit: types.StandardUnit(q.Unit),
		Metric: &types.Metric{Namespace: new(q.Namespace), MetricName: new(q.Metric), Dimensions: dimensionViews(q.Dimensions)}}
	return v
}

func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
