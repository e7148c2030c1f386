// Package cwd is the stage's CloudWatch: metrics and the alarms on them.
//
// Data points are kept in memory, a distribution for each minute of a metric
// (and for each second, of metrics that are of high resolution); they are
// bounded in age and in number, and gone after a restart. Alarms, their states
// and their history are rows. One loop evaluates them in stage time: when a
// minute of stage time has passed, each alarm looks back over its evaluation
// range, as CloudWatch documents it, and what changes is written. Other parts
// of the stage publish their own data, and ask what an alarm says.
package cwd

import (
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cw "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/metric"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// API performs CloudWatch's operations.
type API struct {
	store   *store.Store
	clock   *clock.Clock
	points  *points
	alarms  *store.Table[alarm]
	history *store.Table[item]
	tags    *tags.Table
	wake    chan struct{} // alarms changed, or more was measured

	measuredMu sync.Mutex
	measured   time.Time // all before was published; zero: the stage has not begun to measure
}

// New adds CloudWatch's tables to the store.
func New(s *store.Store, c *clock.Clock) *API {
	return &API{
		store: s, clock: c, points: newPoints(), wake: make(chan struct{}, 1),
		alarms:  store.NewTable[alarm](s, "cloudwatch/alarms"),
		history: store.NewTable[item](s, "cloudwatch/history"),
		tags:    tags.NewTable(s, "cloudwatch/tags", tags.Exact),
	}
}

// Publish keeps what the stage itself has measured; nobody's permission is asked.
func (a *API) Publish(scope arn.Scope, data []metric.Datum) {
	for _, d := range data {
		a.points.add(scope, datum{Datum: d}, a.clock.Now())
	}
}

// Alarm is what an alarm says: its state, since when it is in it, and how long
// it looks back, which is its period times its evaluation periods.
func (a *API) Alarm(scope arn.Scope, name string) (state string, since time.Time, evaluation time.Duration, ok bool) {
	var row alarm
	a.store.View(func(tx *store.Tx) { row, ok = a.alarms.Get(tx, scope.Key(name)) })
	return string(row.State), row.Transitioned, row.period() * time.Duration(row.Periods), ok
}

// Observations are the tables whose change may change what Alarm says.
func (a *API) Observations() []store.AnyTable { return []store.AnyTable{a.alarms} }

// About is the alarm that a row is, if it is one.
func (a *API) About(k store.Key) (scope arn.Scope, name string, ok bool) {
	if k.Table != store.AnyTable(a.alarms) {
		return scope, "", false
	}
	scope, name = arn.ParseKey(k.Row)
	return scope, name, true
}

// Reset forgets all data points.
func (a *API) Reset() { a.points.reset() }

// Service is CloudWatch on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "cloudwatch", Signing: "monitoring", Protocol: wire.Query, Version: "2010-08-01", Target: "GraniteServiceVersion20100801",
		Namespace: "http://monitoring.amazonaws.com/doc/2010-08-01/",
		Naming: &wire.Naming{Except: map[string]string{
			"InvalidFormatFault.Message": "message", "InvalidNextToken.Message": "message", "InvalidParameterCombinationException.Message": "message",
			"InvalidParameterValueException.Message": "message", "LimitExceededFault.Message": "message", "MissingRequiredParameterException.Message": "message",
			"ResourceNotFound.Message": "message", "ValidationException.Message": "message",
		}},
		Status: map[string]int{"AccessDenied": 403, "ResourceNotFound": 404, "ResourceNotFoundException": 404},
		Codes: map[string]string{
			"InvalidFormatFault": "InvalidFormat", "InvalidParameterCombinationException": "InvalidParameterCombination", "InvalidParameterValueException": "InvalidParameterValue",
			"LimitExceededFault": "LimitExceeded", "MissingRequiredParameterException": "MissingParameter", "ValidationException": "ValidationError",
		},
		Invalid: func(m string) error { return invalid("%s", m) },
		Types: map[string]wire.Members{
			"MetricDatum":     {Performed: "MetricName Counts Dimensions StatisticValues StorageResolution Timestamp Unit Value Values"},
			"StatisticSet":    {Performed: "Maximum Minimum SampleCount Sum"},
			"Dimension":       {Performed: "Name Value"},
			"DimensionFilter": {Performed: "Name Value"},
			"MetricDataQuery": {Performed: "Id Expression Label MetricStat Period ReturnData", Refused: "AccountId"},
			"MetricStat":      {Performed: "Metric Period Stat Unit"},
			"Metric":          {Performed: "Dimensions MetricName Namespace"},
			"Tag":             {Performed: "Key Value"},
		},
	}
	s.Register(a.metricOps()...)
	s.Register(a.alarmOps()...)
	s.Register(a.tagOps()...)
	return s
}

func (a *API) metricOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("PutMetricData", a.PutMetricData, func(_ *wire.Call, in *cw.PutMetricDataInput) []wire.Check {
			check := wire.Check{Action: "cloudwatch:PutMetricData", Resource: "*"}
			if in.Namespace != nil {
				check.Context = map[string][]string{"cloudwatch:namespace": {*in.Namespace}}
			}
			return []wire.Check{check}
		}, wire.Members{Performed: "MetricData Namespace", Refused: "EntityMetricData StrictEntityValidation"}),
		wire.Handle("GetMetricData", a.GetMetricData, anywhere[cw.GetMetricDataInput]("GetMetricData"),
			wire.Members{Performed: "EndTime MaxDatapoints MetricDataQueries NextToken ScanBy StartTime", Refused: "LabelOptions"}),
		wire.Handle("GetMetricStatistics", a.GetMetricStatistics, anywhere[cw.GetMetricStatisticsInput]("GetMetricStatistics"),
			wire.Members{Performed: "Dimensions EndTime ExtendedStatistics MetricName Namespace Period StartTime Statistics Unit"}),
		wire.Handle("ListMetrics", a.ListMetrics, anywhere[cw.ListMetricsInput]("ListMetrics"),
			wire.Members{Performed: "Dimensions MetricName Namespace NextToken RecentlyActive", Refused: "IncludeLinkedAccounts OwningAccount"}),
	}
}

func (a *API) alarmOps() []*wire.Op {
	return []*wire.Op{
		wire.Handle("PutMetricAlarm", a.PutMetricAlarm, func(c *wire.Call, in *cw.PutMetricAlarmInput) []wire.Check {
			made := alarmARN(c, aws.ToString(in.AlarmName))
			check := wire.Check{Action: "cloudwatch:PutMetricAlarm", Resource: made}
			for _, actions := range [][]string{in.AlarmActions, in.OKActions, in.InsufficientDataActions} {
				if len(actions) > 0 && check.Context == nil {
					check.Context = map[string][]string{}
				}
				if len(actions) > 0 {
					check.Context["cloudwatch:AlarmActions"] = append(check.Context["cloudwatch:AlarmActions"], actions...)
				}
			}
			return append([]wire.Check{check}, wire.WhenTagged(in.Tags, wire.Check{Action: "cloudwatch:TagResource", Resource: made})...)
		}, wire.Members{
			Performed: "AlarmName ComparisonOperator DatapointsToAlarm Dimensions EvaluateLowSampleCountPercentile EvaluationPeriods ExtendedStatistic MetricName Metrics Namespace Period Statistic Tags Threshold TreatMissingData Unit",
			Recorded:  "ActionsEnabled AlarmActions AlarmDescription InsufficientDataActions OKActions",
			Refused:   "ActionConfiguration EvaluationCriteria EvaluationInterval EvaluationWindow ThresholdMetricId WarmUpConfiguration",
		}),
		wire.Handle("DescribeAlarms", a.DescribeAlarms, allAlarms[cw.DescribeAlarmsInput]("DescribeAlarms"),
			wire.Members{Performed: "ActionPrefix AlarmNamePrefix AlarmNames AlarmTypes MaxRecords NextToken StateValue", Refused: "ChildrenOfAlarmName ParentsOfAlarmName"}),
		wire.Handle("DescribeAlarmsForMetric", a.DescribeAlarmsForMetric, anywhere[cw.DescribeAlarmsForMetricInput]("DescribeAlarmsForMetric"),
			wire.Members{Performed: "Dimensions ExtendedStatistic MetricName Namespace Period Statistic Unit"}),
		wire.Handle("DescribeAlarmHistory", a.DescribeAlarmHistory, func(c *wire.Call, in *cw.DescribeAlarmHistoryInput) []wire.Check {
			if in.AlarmName == nil {
				return []wire.Check{{Action: "cloudwatch:DescribeAlarmHistory", Resource: alarmARN(c, "*"), Wild: true}}
			}
			return []wire.Check{{Action: "cloudwatch:DescribeAlarmHistory", Resource: alarmARN(c, *in.AlarmName)}}
		}, wire.Members{Performed: "AlarmName AlarmTypes EndDate HistoryItemType MaxRecords NextToken ScanBy StartDate", Refused: "AlarmContributorId"}),
		wire.Handle("DeleteAlarms", a.DeleteAlarms, func(c *wire.Call, in *cw.DeleteAlarmsInput) []wire.Check {
			return each(c, "DeleteAlarms", in.AlarmNames)
		}, wire.Members{Performed: "AlarmNames"}),
		wire.Handle("SetAlarmState", a.SetAlarmState, func(c *wire.Call, in *cw.SetAlarmStateInput) []wire.Check {
			return each(c, "SetAlarmState", []string{aws.ToString(in.AlarmName)})
		}, wire.Members{Performed: "AlarmName StateReason StateReasonData StateValue"}),
		wire.Handle("EnableAlarmActions", a.EnableAlarmActions, func(c *wire.Call, in *cw.EnableAlarmActionsInput) []wire.Check {
			return each(c, "EnableAlarmActions", in.AlarmNames)
		}, wire.Members{Performed: "AlarmNames"}),
		wire.Handle("DisableAlarmActions", a.DisableAlarmActions, func(c *wire.Call, in *cw.DisableAlarmActionsInput) []wire.Check {
			return each(c, "DisableAlarmActions", in.AlarmNames)
		}, wire.Members{Performed: "AlarmNames"}),
	}
}

// anywhere is for operations that have no resource, documented.
func anywhere[I any](action string) func(*wire.Call, *I) []wire.Check {
	return func(*wire.Call, *I) []wire.Check {
		return []wire.Check{{Action: "cloudwatch:" + action, Resource: "*"}}
	}
}

// allAlarms is for lists of alarms: they are checked against all, observed.
func allAlarms[I any](action string) func(*wire.Call, *I) []wire.Check {
	return func(c *wire.Call, _ *I) []wire.Check {
		return []wire.Check{{Action: "cloudwatch:" + action, Resource: alarmARN(c, "*"), Wild: true}}
	}
}

// each asks for every alarm of a list; for a list of none, for any.
func each(c *wire.Call, action string, names []string) (checks []wire.Check) {
	for _, n := range names {
		checks = append(checks, wire.Check{Action: "cloudwatch:" + action, Resource: alarmARN(c, n)})
	}
	if len(checks) == 0 {
		return []wire.Check{{Action: "cloudwatch:" + action, Resource: alarmARN(c, "*"), Wild: true}}
	}
	return checks
}

func alarmARN(c *wire.Call, name string) string { return c.ARN("alarm:" + name) }

// What CloudWatch calls its errors. A missing member of the wire's own form is
// a ValidationError; those of data points have names of their own, observed.
func invalid(format string, args ...any) error {
	return &types.ValidationException{Message: new(fmt.Sprintf(format, args...))}
}

func badValue(format string, args ...any) error {
	return &types.InvalidParameterValueException{Message: new(fmt.Sprintf(format, args...))}
}

func badCombination(format string, args ...any) error {
	return &types.InvalidParameterCombinationException{Message: new(fmt.Sprintf(format, args...))}
}

func missing(format string, args ...any) error {
	return &types.MissingRequiredParameterException{Message: new(fmt.Sprintf(format, args...))}
}

// page cuts a list; a token that was never given out is refused.
func page[T any](items []T, key func(T) string, token *string, limit int) ([]T, *string, error) {
	items, next, err := wire.Page(items, key, aws.ToString(token), limit)
	if err != nil {
		return nil, nil, &types.InvalidNextToken{Message: new("The NextToken is invalid.")}
	}
	if next == "" {
		return items, nil, nil
	}
	return items, &next, nil
}
