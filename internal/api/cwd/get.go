package cwd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cw "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/formula"
	"serin/internal/wire"
)

// The limits of what is read, documented.
const (
	mostQueries    = 500
	mostStatistics = 1440
	mostPoints     = 100_800
	mostAsked      = 10 * mostPoints // Serin's own: of all queries together
)

// rounded is the time that a request begins at: down to the minute, or to the
// period where that is shorter, documented for what is younger than 15 days.
func rounded(start time.Time, period time.Duration) time.Time {
	return start.UTC().Truncate(min(period, time.Minute))
}

// checkTimes refuses a time that ends before it begins.
func checkTimes(start, end *time.Time) error {
	switch {
	case start == nil:
		return missing("The parameter StartTime is required.")
	case end == nil:
		return missing("The parameter EndTime is required.")
	case !start.Before(*end):
		return badCombination("The parameter StartTime must be less than the parameter EndTime.")
	}
	return nil
}

// line is one of the results of GetMetricData.
type line struct {
	query query
	label string
	formula.Series
}

// GetMetricData computes metrics and expressions. A page holds as many points
// as are asked for, of one result after the other.
func (a *API) GetMetricData(ctx context.Context, in *cw.GetMetricDataInput) (*cw.GetMetricDataOutput, error) {
	if err := checkTimes(in.StartTime, in.EndTime); err != nil {
		return nil, err
	}
	if len(in.MetricDataQueries) == 0 {
		return nil, missing("The parameter MetricDataQueries is required.")
	}
	limit := mostPoints
	if in.MaxDatapoints != nil {
		if limit = int(*in.MaxDatapoints); limit < 1 || limit > mostPoints {
			return nil, badValue("The parameter MaxDatapoints must be between 1 and %d.", mostPoints)
		}
	}
	queries, err := readQueries(in.MetricDataQueries, "MetricDataQueries", mostQueries)
	if err != nil {
		return nil, err
	}
	start := rounded(*in.StartTime, finest(queries))
	if n := asked(queries, in.EndTime.Sub(start)); n > mostAsked {
		return nil, badCombination("You have requested up to %d datapoints, which exceeds the limit of %d. You may reduce the datapoints requested by increasing Period, or decreasing the time range.", n, mostAsked)
	}
	got, err := a.compute(wire.From(ctx).Scope, queries, start, *in.EndTime)
	if err != nil {
		return nil, err
	}
	return pageOf(linesOf(queries, got), in, limit)
}

// finest is the shortest period of the queries, in which constants have values.
func finest(queries []query) time.Duration {
	var shortest int32
	for _, q := range queries {
		if q.Period > 0 && (shortest == 0 || q.Period < shortest) {
			shortest = q.Period
		}
	}
	if shortest == 0 {
		return time.Minute
	}
	return time.Duration(shortest) * time.Second
}

// asked is how many points the queries may come to.
func asked(queries []query, in time.Duration) (n int64) {
	for _, q := range queries {
		period := time.Duration(q.Period) * time.Second
		if period == 0 {
			period = finest(queries)
		}
		n += int64(in / period)
	}
	return n
}

// linesOf is what of the computed is to be returned, with its labels: of an
// expression that gives several, with those of the metrics, documented.
func linesOf(queries []query, got computed) (lines []line) {
	labels := map[string]string{}
	for _, q := range queries {
		labels[q.ID] = cmp.Or(q.Label, q.Metric, q.ID)
	}
	for _, q := range queries {
		if q.Hidden {
			continue
		}
		for _, s := range got[q.ID] {
			label := labels[q.ID]
			if own, ok := labels[s.ID]; ok && len(got[q.ID]) > 1 {
				label += " " + own
			}
			lines = append(lines, line{q, label, s})
		}
	}
	return lines
}

// pageOf cuts the points of the results into pages. A result without points is
// on the first.
func pageOf(lines []line, in *cw.GetMetricDataInput, limit int) (*cw.GetMetricDataOutput, error) {
	type place struct{ line, point int }
	var places []place
	for i, l := range lines {
		if in.ScanBy != types.ScanByTimestampAscending {
			slices.Reverse(l.Points)
		}
		for j := range l.Points {
			places = append(places, place{i, j})
		}
	}
	places, next, err := page(places, func(p place) string { return fmt.Sprintf("%06d|%06d", p.line, p.point) }, in.NextToken, limit)
	if err != nil {
		return nil, err
	}
	out := &cw.GetMetricDataOutput{NextToken: next}
	for i, l := range lines {
		r := types.MetricDataResult{Id: new(l.query.ID), Label: new(l.label), StatusCode: types.StatusCodeComplete, Timestamps: []time.Time{}, Values: []float64{}}
		for len(places) > 0 && places[0].line == i {
			p := l.Points[places[0].point]
			r.Timestamps, r.Values = append(r.Timestamps, p.At), append(r.Values, p.Value)
			places = places[1:]
		}
		if len(r.Values) > 0 || len(l.Points) == 0 && in.NextToken == nil {
			if next != nil && len(places) == 0 {
				r.StatusCode = types.StatusCodePartialData
			}
			out.MetricDataResults = append(out.MetricDataResults, r)
		}
	}
	return out, nil
}

// GetMetricStatistics reads the statistics of one metric by period: without a
// unit those of each unit, documented.
func (a *API) GetMetricStatistics(ctx context.Context, in *cw.GetMetricStatisticsInput) (*cw.GetMetricStatisticsOutput, error) {
	if err := checkStatistics(in); err != nil {
		return nil, err
	}
	var extended []statistic
	for _, s := range in.ExtendedStatistics {
		stat, ok := parseStatistic(s)
		if !ok || plainStatistic(s) {
			return nil, badValue("The value %s for parameter ExtendedStatistics is invalid.", s)
		}
		extended = append(extended, stat)
	}
	dims, err := dimensions(in.Dimensions, "Dimensions")
	if err != nil {
		return nil, err
	}
	period := time.Duration(*in.Period) * time.Second
	key := seriesKey(wire.From(ctx).Scope, *in.Namespace, *in.MetricName, dims)
	units := []string{string(in.Unit)}
	if in.Unit == "" {
		units = a.points.unitsOf(key)
	}
	out := &cw.GetMetricStatisticsOutput{Label: in.MetricName, Datapoints: []types.Datapoint{}}
	for _, unit := range units {
		for _, c := range a.points.read(key, unit, span{rounded(*in.StartTime, period), *in.EndTime, period}) {
			if p, ok := datapoint(c, unit, in.Statistics, extended); ok {
				out.Datapoints = append(out.Datapoints, p)
			}
		}
	}
	return out, nil
}

func checkStatistics(in *cw.GetMetricStatisticsInput) error {
	if err := checkTimes(in.StartTime, in.EndTime); err != nil {
		return err
	}
	period := aws.ToInt32(in.Period)
	switch {
	case aws.ToString(in.Namespace) == "":
		return missing("The parameter Namespace is required.")
	case aws.ToString(in.MetricName) == "":
		return missing("The parameter MetricName is required.")
	case !validPeriod(period):
		return badValue("The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60.")
	case len(in.Statistics) == 0 && len(in.ExtendedStatistics) == 0:
		return missing("At least one of the parameters Statistics and ExtendedStatistics must be specified.")
	case len(in.Statistics) > 0 && len(in.ExtendedStatistics) > 0:
		return badCombination("The parameters Statistics and ExtendedStatistics are mutually exclusive and you have specified both.")
	case len(in.ExtendedStatistics) > 10:
		return badValue("The collection ExtendedStatistics must not have a size greater than 10.")
	}
	if n := int64(in.EndTime.Sub(*in.StartTime)/time.Second) / int64(period); n > mostStatistics {
		return badCombination("You have requested up to %d datapoints, which exceeds the limit of %d. You may reduce the datapoints requested by increasing Period, or decreasing the time range.", n, mostStatistics)
	}
	return nil
}

// datapoint is the data of a period, if any of the statistics can be told.
func datapoint(c cell, unit string, plain []types.Statistic, extended []statistic) (types.Datapoint, bool) {
	p := types.Datapoint{Timestamp: new(c.at), Unit: types.StandardUnit(unit)}
	for _, s := range plain {
		stat, _ := parseStatistic(string(s))
		f, _ := stat.of(c)
		switch s {
		case types.StatisticAverage:
			p.Average = &f
		case types.StatisticMaximum:
			p.Maximum = &f
		case types.StatisticMinimum:
			p.Minimum = &f
		case types.StatisticSampleCount:
			p.SampleCount = &f
		case types.StatisticSum:
			p.Sum = &f
		}
	}
	for _, s := range extended {
		if f, ok := s.of(c); ok {
			if p.ExtendedStatistics == nil {
				p.ExtendedStatistics = map[string]float64{}
			}
			p.ExtendedStatistics[s.name] = f
		}
	}
	return p, len(plain) > 0 || p.ExtendedStatistics != nil
}
