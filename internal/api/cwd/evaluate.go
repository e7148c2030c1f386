package cwd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/arn"
)

// How an alarm is evaluated, documented:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html

// further is by how many periods the evaluation range is longer than the
// evaluation periods. That it is longer is documented; by how many, guessed
// from the documented examples.
const further = 2

// reach is how far back an alarm looks.
func (a alarm) reach() time.Duration { return a.period() * time.Duration(a.Periods+further) }

// sample is one period of an evaluation range.
type sample struct {
	at    time.Time
	there bool
	value float64
	count float64 // how many numbers are in it, where that is known
}

// comparisons are the operators that are performed, and their words.
var comparisons = map[types.ComparisonOperator]struct {
	words    string
	breaches func(value, threshold float64) bool
}{
	types.ComparisonOperatorGreaterThanOrEqualToThreshold: {"greater than or equal to", func(v, t float64) bool { return v >= t }},
	types.ComparisonOperatorGreaterThanThreshold:          {"greater than", func(v, t float64) bool { return v > t }},
	types.ComparisonOperatorLessThanThreshold:             {"less than", func(v, t float64) bool { return v < t }},
	types.ComparisonOperatorLessThanOrEqualToThreshold:    {"less than or equal to", func(v, t float64) bool { return v <= t }},
}

func (a alarm) breaches(s sample) bool {
	return s.there && comparisons[a.Comparison].breaches(s.value, a.Threshold)
}

// samples is the evaluation range that ends at a time, the oldest first. An
// expression that cannot be evaluated over the present data has none.
func (a *API) samples(scope arn.Scope, row alarm, end time.Time) []sample {
	from, period := end.Add(-row.reach()), row.period()
	out := make([]sample, row.Periods+further)
	for i := range out {
		out[i].at = from.Add(time.Duration(i) * period)
	}
	put := func(at time.Time, value, count float64) {
		if i := int(at.Sub(from) / period); i >= 0 && i < len(out) && at.Equal(out[i].at) && finite(value, "") == nil {
			out[i].there, out[i].value, out[i].count = true, value, count
		}
	}
	if !row.Math {
		q := row.Queries[0]
		stat, _ := parseStatistic(q.Stat)
		for _, c := range a.points.read(seriesKey(scope, q.Namespace, q.Metric, q.Dimensions), q.Unit, span{from, end, period}) {
			if f, ok := stat.of(c); ok {
				put(c.at, f, c.set.Count)
			}
		}
		return out
	}
	got, err := a.compute(scope, row.Queries, from, end)
	if series := got[row.watched().ID]; err == nil && len(series) == 1 {
		for _, p := range series[0].Points {
			put(p.At, p.Value, 0)
		}
	}
	return out
}

// verdict is what an evaluation comes to.
type verdict struct {
	state     types.StateValue
	keep      bool     // the alarm stays in the state that it is in
	evaluated []sample // the real points that counted, the oldest first
	filled    int      // how many missing ones were filled in
}

// decide evaluates an alarm. Where there are as many real points as evaluation
// periods, the newest count. Else all count, and what is missing is filled in as
// the alarm says.
func (a alarm) decide(window []sample) verdict {
	n, m := int(a.Periods), a.needed()
	v := verdict{evaluated: slices.DeleteFunc(slices.Clone(window), func(s sample) bool { return !s.there })}
	if extra := len(v.evaluated) - n; extra > 0 {
		v.evaluated = v.evaluated[extra:]
	}
	if a.LowSamples == "ignore" && a.fewSamples(v.evaluated) {
		v.keep = true
		return v
	}
	v.filled = n - len(v.evaluated)
	breaching := 0
	for _, s := range v.evaluated {
		if a.breaches(s) {
			breaching++
		}
	}
	v.state = types.StateValueOk
	switch {
	case breaching >= m, v.filled > 0 && a.Missing == "breaching" && breaching+v.filled >= m:
		v.state = types.StateValueAlarm
	case v.filled == 0 || a.Missing == "breaching" || a.Missing == "notBreaching":
	case a.Missing == "ignore":
		v.keep = breaching == len(v.evaluated)
	case len(v.evaluated) == 0:
		v.state = types.StateValueInsufficientData
	case breaching == len(v.evaluated) && a.early(window[len(window)-n:]):
		v.state = types.StateValueAlarm
	}
	return v
}

// early reports whether an alarm of which all real points breach need not wait
// for others that may never come: the oldest of the evaluation periods is as old
// as M of them, documented.
func (a alarm) early(periods []sample) bool {
	oldest := slices.IndexFunc(periods, func(s sample) bool { return s.there })
	return oldest >= 0 && len(periods)-oldest >= a.needed()
}

// fewSamples reports whether the newest point's percentile is not significant.
func (a alarm) fewSamples(evaluated []sample) bool {
	if len(evaluated) == 0 {
		return false
	}
	stat, _ := parseStatistic(a.Queries[0].Stat)
	return evaluated[len(evaluated)-1].count < stat.enough()
}

// reason is why, in CloudWatch's words; forms observed.
func (v verdict) reason(a alarm) string {
	if v.state == types.StateValueInsufficientData {
		return fmt.Sprintf("Insufficient Data: %s unknown.", plural(int(a.Periods), "datapoint was", "datapoints were"))
	}
	var texts []string
	for _, s := range slices.Backward(v.evaluated) {
		if a.breaches(s) == (v.state == types.StateValueAlarm) {
			texts = append(texts, fmt.Sprintf("%s (%s)", decimal(s.value), s.at.UTC().Format("02/01/06 15:04:05")))
		}
	}
	missing := ""
	if v.filled > 0 && (a.Missing == "breaching" || a.Missing == "notBreaching") {
		missing = fmt.Sprintf(" and %s treated as [%s]", plural(v.filled, "missing datapoint was", "missing datapoints were"), map[string]string{"breaching": "Breaching", "notBreaching": "NonBreaching"}[a.Missing])
	}
	if len(v.evaluated) == 0 {
		return fmt.Sprintf("Threshold Crossed: no datapoints were received for %s%s.", plural(int(a.Periods), "period", "periods"), missing)
	}
	if len(texts) == 0 {
		return fmt.Sprintf("Threshold Crossed: %s received for %s%s.", plural(len(v.evaluated), "datapoint was", "datapoints were"), plural(int(a.Periods), "period", "periods"), missing)
	}
	verb, not, needed, way := "were", "", a.needed(), "OK -> ALARM"
	if len(texts) == 1 {
		verb = "was"
	}
	if v.state == types.StateValueOk {
		not, needed, way = "not ", int(a.Periods)-a.needed()+1, "ALARM -> OK"
	}
	return fmt.Sprintf("Threshold Crossed: %d out of the last %d datapoints [%s] %s %s%s the threshold (%s)%s (minimum %s for %s transition).",
		len(texts), a.Periods, strings.Join(texts, ", "), verb, not, comparisons[a.Comparison].words, decimal(a.Threshold), missing, plural(needed, "datapoint", "datapoints"), way)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// decimal is a number as CloudWatch writes it: 1.0, 0.25.
func decimal(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// data is why, as JSON; its form observed.
func (v verdict) data(a alarm, now time.Time) string {
	const stamp = "2006-01-02T15:04:05.000-0700"
	recent, evaluated := []float64{}, []map[string]any{}
	for _, s := range v.evaluated {
		recent = append(recent, s.value)
	}
	for _, s := range slices.Backward(v.evaluated) {
		point := map[string]any{"timestamp": s.at.UTC().Format(stamp), "value": s.value}
		if s.count > 0 {
			point["sampleCount"] = s.count
		}
		evaluated = append(evaluated, point)
	}
	out := map[string]any{"version": "1.0", "queryDate": now.UTC().Format(stamp), "period": int(a.period() / time.Second), "recentDatapoints": recent,
		"threshold": a.Threshold, "evaluatedDatapoints": evaluated}
	if len(v.evaluated) > 0 {
		out["startDate"] = v.evaluated[0].at.UTC().Format(stamp)
	}
	if q := a.Queries[0]; !a.Math {
		out["statistic"] = q.Stat
		if q.Unit != "" {
			out["unit"] = q.Unit
		}
	}
	return marshalled(out)
}
