package cwd

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// item is something that happened to an alarm.
type item struct {
	Alarm   string
	Kind    types.HistoryItemType
	Summary string
	Data    string // JSON
	At      time.Time
}

// keepHistory is how long, documented.
const keepHistory = 30 * 24 * time.Hour

func historyKey(scope arn.Scope, alarm string) string { return scope.Key(alarm) + "\x00" }

// ordered is a time as text, sorted from the oldest or from the newest.
func ordered(t time.Time, newest bool) string {
	n := t.UnixNano()
	if newest {
		n = math.MaxInt64 - n
	}
	return fmt.Sprintf("%020d", n)
}

// note writes an item down, and forgets those of the same alarm that are too old.
func (a *API) note(tx *store.Tx, scope arn.Scope, i item) {
	prefix := historyKey(scope, i.Alarm)
	for key, old := range a.history.Scan(tx, prefix) {
		if !old.At.Before(i.At.Add(-keepHistory)) {
			break
		}
		a.history.Delete(tx, key)
	}
	key := prefix + ordered(i.At, false)
	for n := 0; ; n++ {
		at := fmt.Sprintf("%s.%06d", key, n)
		if _, taken := a.history.Get(tx, at); !taken {
			a.history.Put(tx, at, i)
			return
		}
	}
}

// marshalled is v as JSON; what is written here always has a form.
func marshalled(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// configuration is the item of an alarm that was made or changed; its form
// observed.
func configuration(c *wire.Call, changed bool, row alarm, at time.Time) item {
	kind, word, member := "Create", "created", "createdAlarm"
	if changed {
		kind, word, member = "Update", "updated", "updatedAlarm"
	}
	return item{row.Name, types.HistoryItemTypeConfigurationUpdate, fmt.Sprintf("Alarm %q %s", row.Name, word),
		marshalled(map[string]any{"version": "1.0", "type": kind, member: row.told(c)}), at}
}

func deletion(c *wire.Call, row alarm, at time.Time) item {
	return item{row.Name, types.HistoryItemTypeConfigurationUpdate, fmt.Sprintf("Alarm %q deleted", row.Name),
		marshalled(map[string]any{"version": "1.0", "type": "Delete", "deletedAlarm": row.told(c)}), at}
}

// told is what the history says of an alarm's configuration.
func (a alarm) told(c *wire.Call) map[string]any {
	out := map[string]any{
		"alarmName": a.Name, "alarmArn": alarmARN(c, a.Name), "actionsEnabled": a.Enabled, "alarmActions": orNone(a.Actions), "okActions": orNone(a.OKActions),
		"insufficientDataActions": orNone(a.NoData), "comparisonOperator": a.Comparison, "threshold": a.Threshold, "evaluationPeriods": a.Periods,
	}
	q := a.Queries[0]
	if a.Math {
		out["metrics"] = a.Queries
	} else {
		out["namespace"], out["metricName"], out["dimensions"], out["period"], out["statistic"] = q.Namespace, q.Metric, q.Dimensions, q.Period, q.Stat
	}
	for member, value := range map[string]string{"treatMissingData": a.Missing, "evaluateLowSampleCountPercentile": a.LowSamples} {
		if value != "" {
			out[member] = value
		}
	}
	if a.Points != nil {
		out["datapointsToAlarm"] = *a.Points
	}
	if a.Description != nil {
		out["alarmDescription"] = *a.Description
	}
	return out
}

// transition is the item of an alarm that has come into another state.
func transition(before, after alarm) item {
	side := func(a alarm) map[string]any {
		out := map[string]any{"stateValue": a.State, "stateReason": a.Reason}
		if a.ReasonData != "" {
			out["stateReasonData"] = json.RawMessage(a.ReasonData)
		}
		return out
	}
	return item{after.Name, types.HistoryItemTypeStateUpdate, fmt.Sprintf("Alarm updated from %s to %s", before.State, after.State),
		marshalled(map[string]any{"version": "1.0", "oldState": side(before), "newState": side(after)}), after.Updated}
}
