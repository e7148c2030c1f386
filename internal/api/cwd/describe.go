package cwd

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	cw "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/metric"
	"serin/internal/store"
	"serin/internal/wire"
)

// records is the size of a page of alarms or of history.
func records(n *int32, usual int) (int, error) {
	var problems wire.Constraints
	problems.Range("maxRecords", n, 1, 100)
	if n != nil {
		usual = int(*n)
	}
	return usual, problems.Err()
}

// alarmsOf is the alarms of the caller's region that a filter lets through.
func (a *API) alarmsOf(c *wire.Call, keep func(alarm) bool) (rows []alarm) {
	a.store.View(func(tx *store.Tx) {
		for _, row := range a.alarms.Scan(tx, c.Scope.Key("")) {
			if keep(row) {
				rows = append(rows, row)
			}
		}
	})
	return rows
}

// DescribeAlarms lists alarms. There are no composite and no log alarms.
func (a *API) DescribeAlarms(ctx context.Context, in *cw.DescribeAlarmsInput) (*cw.DescribeAlarmsOutput, error) {
	var problems wire.Constraints
	problems.Count("alarmNames", len(in.AlarmNames), 100)
	problems.Length("alarmNamePrefix", in.AlarmNamePrefix, 1, 255)
	problems.Length("actionPrefix", in.ActionPrefix, 1, 1024)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if len(in.AlarmNames) > 0 && in.AlarmNamePrefix != nil {
		return nil, badCombination("The parameters AlarmNames and AlarmNamePrefix are mutually exclusive and you have specified both.")
	}
	limit, err := records(in.MaxRecords, max(50, len(in.AlarmNames)))
	if err != nil {
		return nil, err
	}
	c := wire.From(ctx)
	rows := a.alarmsOf(c, func(row alarm) bool { return described(row, in) })
	rows, next, err := page(rows, func(row alarm) string { return row.Name }, in.NextToken, limit)
	out := &cw.DescribeAlarmsOutput{NextToken: next, MetricAlarms: []types.MetricAlarm{}}
	for _, row := range rows {
		out.MetricAlarms = append(out.MetricAlarms, row.view(c))
	}
	return out, err
}

func described(row alarm, in *cw.DescribeAlarmsInput) bool {
	prefixed := func(action string) bool { return strings.HasPrefix(action, aws.ToString(in.ActionPrefix)) }
	switch {
	case len(in.AlarmTypes) > 0 && !slices.Contains(in.AlarmTypes, types.AlarmTypeMetricAlarm),
		len(in.AlarmNames) > 0 && !slices.Contains(in.AlarmNames, row.Name),
		!strings.HasPrefix(row.Name, aws.ToString(in.AlarmNamePrefix)),
		in.StateValue != "" && in.StateValue != row.State,
		in.ActionPrefix != nil && !slices.ContainsFunc(slices.Concat(row.Actions, row.OKActions, row.NoData), prefixed):
		return false
	}
	return true
}

// DescribeAlarmsForMetric lists the alarms on one metric, not those on metric
// math, documented.
func (a *API) DescribeAlarmsForMetric(ctx context.Context, in *cw.DescribeAlarmsForMetricInput) (*cw.DescribeAlarmsForMetricOutput, error) {
	if aws.ToString(in.Namespace) == "" || aws.ToString(in.MetricName) == "" {
		return nil, missing("The parameters Namespace and MetricName are required.")
	}
	dims, err := dimensions(in.Dimensions, "Dimensions")
	if err != nil {
		return nil, err
	}
	c := wire.From(ctx)
	out := &cw.DescribeAlarmsForMetricOutput{MetricAlarms: []types.MetricAlarm{}}
	for _, row := range a.alarmsOf(c, func(row alarm) bool { return row.on(in, dims) }) {
		out.MetricAlarms = append(out.MetricAlarms, row.view(c))
	}
	return out, nil
}

func (a alarm) on(in *cw.DescribeAlarmsForMetricInput, dims []metric.Dimension) bool {
	q := a.Queries[0]
	return !a.Math && q.Namespace == *in.Namespace && q.Metric == *in.MetricName && slices.Equal(byName(q.Dimensions), byName(dims)) &&
		(in.Statistic == "" || string(in.Statistic) == q.Stat) && (in.ExtendedStatistic == nil || *in.ExtendedStatistic == q.Stat) &&
		(in.Period == nil || *in.Period == q.Period) && (in.Unit == "" || string(in.Unit) == q.Unit)
}

// DeleteAlarms deletes alarms: all of the request, or none. Their history stays.
func (a *API) DeleteAlarms(ctx context.Context, in *cw.DeleteAlarmsInput) (*cw.DeleteAlarmsOutput, error) {
	c := wire.From(ctx)
	return &cw.DeleteAlarmsOutput{}, a.change(c, in.AlarmNames, func(tx *store.Tx, key string, row alarm) error {
		a.alarms.Delete(tx, key)
		a.tags.Set(tx, alarmARN(c, row.Name), nil)
		a.note(tx, c.Scope, deletion(c, row, a.clock.Now()))
		return nil
	})
}

// change does something to every alarm of a list; each must be there.
func (a *API) change(c *wire.Call, names []string, fn func(tx *store.Tx, key string, row alarm) error) error {
	var problems wire.Constraints
	problems.Count("alarmNames", len(names), 100)
	if err := problems.Err(); err != nil {
		return err
	}
	return a.store.Update(func(tx *store.Tx) error {
		for _, n := range slices.Compact(slices.Sorted(slices.Values(names))) {
			row, ok := a.alarms.Get(tx, c.Scope.Key(n))
			if !ok {
				return &types.ResourceNotFound{Message: new("The alarm " + n + " does not exist.")}
			}
			if err := fn(tx, c.Scope.Key(n), row); err != nil {
				return err
			}
		}
		return nil
	})
}

// EnableAlarmActions and its counterpart note whether an alarm's actions would
// be performed. Alarms that are not there are passed over.
func (a *API) EnableAlarmActions(ctx context.Context, in *cw.EnableAlarmActionsInput) (*cw.EnableAlarmActionsOutput, error) {
	return &cw.EnableAlarmActionsOutput{}, a.switched(wire.From(ctx), in.AlarmNames, true)
}

// DisableAlarmActions is the counterpart of EnableAlarmActions.
func (a *API) DisableAlarmActions(ctx context.Context, in *cw.DisableAlarmActionsInput) (*cw.DisableAlarmActionsOutput, error) {
	return &cw.DisableAlarmActionsOutput{}, a.switched(wire.From(ctx), in.AlarmNames, false)
}

func (a *API) switched(c *wire.Call, names []string, on bool) error {
	there := a.alarmsOf(c, func(row alarm) bool { return slices.Contains(names, row.Name) })
	names = nil
	for _, row := range there {
		names = append(names, row.Name)
	}
	return a.change(c, names, func(tx *store.Tx, key string, row alarm) error {
		if row.Enabled != on {
			row.Enabled, row.Configured = on, a.clock.Now()
			a.alarms.Put(tx, key, row)
			a.note(tx, c.Scope, configuration(c, true, row, row.Configured))
		}
		return nil
	})
}

// DescribeAlarmHistory lists what happened to alarms, the newest first unless
// told otherwise.
func (a *API) DescribeAlarmHistory(ctx context.Context, in *cw.DescribeAlarmHistoryInput) (*cw.DescribeAlarmHistoryOutput, error) {
	limit, err := records(in.MaxRecords, 100)
	if err != nil {
		return nil, err
	}
	c := wire.From(ctx)
	type entry struct {
		key string
		item
	}
	var list []entry
	prefix := c.Scope.Key("")
	if in.AlarmName != nil {
		prefix = historyKey(c.Scope, *in.AlarmName)
	}
	a.store.View(func(tx *store.Tx) {
		for key, i := range a.history.Scan(tx, prefix) {
			switch {
			case in.HistoryItemType != "" && in.HistoryItemType != i.Kind,
				len(in.AlarmTypes) > 0 && !slices.Contains(in.AlarmTypes, types.AlarmTypeMetricAlarm),
				in.StartDate != nil && i.At.Before(*in.StartDate), in.EndDate != nil && i.At.After(*in.EndDate):
				continue
			}
			list = append(list, entry{ordered(i.At, in.ScanBy != types.ScanByTimestampAscending) + key, i})
		}
	})
	list, next, err := page(list, func(e entry) string { return e.key }, in.NextToken, limit)
	out := &cw.DescribeAlarmHistoryOutput{NextToken: next, AlarmHistoryItems: []types.AlarmHistoryItem{}}
	for _, e := range list {
		out.AlarmHistoryItems = append(out.AlarmHistoryItems, types.AlarmHistoryItem{AlarmName: new(e.Alarm), AlarmType: types.AlarmTypeMetricAlarm,
			HistoryItemType: e.Kind, HistorySummary: new(e.Summary), HistoryData: new(e.Data), Timestamp: aws.Time(e.At)})
	}
	return out, err
}
