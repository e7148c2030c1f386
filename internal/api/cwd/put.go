package cwd

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cw "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/metric"
	"serin/internal/wire"
)

// The limits of PutMetricData, documented.
const (
	mostData       = 1000
	mostValues     = 150
	mostDimensions = 30
	past           = 14 * 24 * time.Hour
	future         = 2 * time.Hour
)

// greatest is the greatest number that is taken, documented.
var greatest = math.Pow(2, 360)

// PutMetricData keeps data points: all of the request, or nothing.
func (a *API) PutMetricData(ctx context.Context, in *cw.PutMetricDataInput) (*cw.PutMetricDataOutput, error) {
	namespace := aws.ToString(in.Namespace)
	switch {
	case namespace == "":
		return nil, missing("The parameter Namespace is required.")
	case !text(namespace, 255) || strings.HasPrefix(namespace, ":") || strings.HasPrefix(namespace, "AWS/"): // AWS's own are not anybody's
		return nil, badValue("The value %s for parameter Namespace is invalid.", namespace)
	case len(in.MetricData) == 0:
		return nil, missing("The parameter MetricData is required.")
	case len(in.MetricData) > mostData:
		return nil, badValue("The collection MetricData must not have a size greater than %d.", mostData)
	}
	now := a.clock.Now()
	var data []datum
	var late []string // all of them are told at once, observed
	for i, m := range in.MetricData {
		at := fmt.Sprintf("MetricData.member.%d", i+1)
		d, err := read(m, at)
		if err != nil {
			return nil, err
		}
		d.Namespace, d.At = namespace, now
		if m.Timestamp != nil {
			d.At = *m.Timestamp
		}
		if d.At.Before(now.Add(-past)) || d.At.After(now.Add(future)) {
			late = append(late, fmt.Sprintf("The parameter %s.Timestamp must specify a time within the past two weeks.", at))
		}
		data = append(data, d)
	}
	if len(late) > 0 {
		return nil, badValue("%s", strings.Join(late, "\n"))
	}
	for _, d := range data {
		a.points.add(wire.From(ctx).Scope, d, now)
	}
	return &cw.PutMetricDataOutput{}, nil
}

// text reports whether s is a name of at most that many characters.
func text(s string, longest int) bool {
	return strings.TrimSpace(s) != "" && len([]rune(s)) <= longest && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// read reads a datum of a request; at is its place there.
func read(m types.MetricDatum, at string) (datum, error) {
	d := datum{Datum: metric.Datum{Name: aws.ToString(m.MetricName), Unit: string(m.Unit)}}
	if d.Name == "" {
		return d, missing("The parameter %s.MetricName is required.", at)
	}
	if !text(d.Name, 255) {
		return d, badValue("The value %s for parameter %s.MetricName is invalid.", d.Name, at)
	}
	if m.StorageResolution != nil {
		if *m.StorageResolution != 1 && *m.StorageResolution != 60 {
			return d, badValue("The parameter %s.StorageResolution must be a value in the set [ 1, 60 ].", at)
		}
		d.fine = *m.StorageResolution == 1
	}
	var err error
	if d.Dimensions, err = dimensions(m.Dimensions, at+".Dimensions"); err != nil {
		return d, err
	}
	return d, numbers(&d, m, at)
}

// dimensions reads the dimensions of a metric.
func dimensions(in []types.Dimension, at string) ([]metric.Dimension, error) {
	if len(in) > mostDimensions {
		return nil, badValue("The collection %s must not have a size greater than %d.", at, mostDimensions)
	}
	out := make([]metric.Dimension, len(in))
	for i, dim := range in {
		out[i] = metric.Dimension{Name: aws.ToString(dim.Name), Value: aws.ToString(dim.Value)}
		for _, part := range []struct {
			member, value string
			longest       int
		}{{"Name", out[i].Name, 255}, {"Value", out[i].Value, 1024}} {
			where := fmt.Sprintf("%s.member.%d.%s", at, i+1, part.member)
			if part.value == "" {
				return nil, missing("The parameter %s is required.", where)
			}
			if !text(part.value, part.longest) || strings.HasPrefix(part.value, ":") && part.member == "Name" {
				return nil, badValue("The value %s for parameter %s is invalid.", part.value, where)
			}
		}
		if slices.ContainsFunc(out[:i], func(d metric.Dimension) bool { return d.Name == out[i].Name }) {
			return nil, badValue("The parameter %s holds the dimension %s more than once.", at, out[i].Name)
		}
	}
	return out, nil
}

// numbers reads what was measured: a value, values with their counts, or what
// is known of a set.
func numbers(d *datum, m types.MetricDatum, at string) error {
	given := map[string]bool{"Value": m.Value != nil, "Values": len(m.Values) > 0, "StatisticValues": m.StatisticValues != nil}
	var names []string
	for _, member := range []string{"Value", "Values", "StatisticValues"} {
		if given[member] {
			names = append(names, at+"."+member)
		}
	}
	switch {
	case len(names) == 0:
		return missing("At least one of the parameters %s.Value, %s.Values and %s.StatisticValues must be specified.", at, at, at)
	case len(names) > 1:
		return badCombination("The parameters %s and %s are mutually exclusive and you have specified both.", names[0], names[1])
	case len(m.Counts) > 0 && len(m.Counts) != len(m.Values):
		return badCombination("The parameters %s.Values and %s.Counts must be of the same size.", at, at)
	case len(m.Values) > mostValues:
		return badValue("The collection %s.Values must not have a size greater than %d.", at, mostValues)
	case given["StatisticValues"]:
		return summary(d, m.StatisticValues, at+".StatisticValues")
	case given["Value"]:
		d.Set.Add(*m.Value, 1)
		return finite(*m.Value, at+".Value")
	}
	for i, v := range m.Values {
		n := 1.0
		if len(m.Counts) > 0 {
			n = m.Counts[i]
		}
		if err := finite(v, fmt.Sprintf("%s.Values.member.%d", at, i+1)); err != nil {
			return err
		}
		if err := finite(n, fmt.Sprintf("%s.Counts.member.%d", at, i+1)); err != nil || n < 0 {
			return badValue("The value %v for parameter %s.Counts.member.%d is invalid.", n, at, i+1)
		}
		d.Set.Add(v, n)
	}
	return nil
}

func finite(f float64, at string) error {
	if math.IsNaN(f) || math.Abs(f) > greatest {
		return badValue("The value %v for parameter %s is invalid.", f, at)
	}
	return nil
}

func summary(d *datum, s *types.StatisticSet, at string) error {
	members := []struct {
		member string
		value  *float64
	}{{"SampleCount", s.SampleCount}, {"Sum", s.Sum}, {"Minimum", s.Minimum}, {"Maximum", s.Maximum}}
	for _, m := range members {
		if m.value == nil {
			return missing("The parameter %s.%s is required.", at, m.member)
		}
		if err := finite(*m.value, at+"."+m.member); err != nil {
			return err
		}
	}
	if *s.SampleCount <= 0 || *s.Minimum > *s.Maximum {
		return badValue("The value %v for parameter %s.SampleCount is invalid.", *s.SampleCount, at)
	}
	d.Set.AddSummary(*s.SampleCount, *s.Sum, *s.Minimum, *s.Maximum)
	d.summary = *s.Minimum != *s.Maximum // equal numbers are known, documented
	return nil
}

const recently = 3 * time.Hour

// listed is how long a metric is listed after its newest data, documented.
const listed = 14 * 24 * time.Hour

// ListMetrics lists the metrics that have had data lately.
func (a *API) ListMetrics(ctx context.Context, in *cw.ListMetricsInput) (*cw.ListMetricsOutput, error) {
	if len(in.Dimensions) > 10 {
		return nil, badValue("The collection Dimensions must not have a size greater than 10.")
	}
	since := a.clock.Now().Add(-listed)
	if in.RecentlyActive != "" {
		since = a.clock.Now().Add(-recently)
	}
	type row struct {
		key  string
		view types.Metric
	}
	var rows []row
	a.points.each(wire.From(ctx).Scope, func(key string, s *series) {
		if s.last.Before(since) || in.Namespace != nil && *in.Namespace != s.namespace || in.MetricName != nil && *in.MetricName != s.name || !matches(s, in.Dimensions) {
			return
		}
		rows = append(rows, row{key, types.Metric{Namespace: new(s.namespace), MetricName: new(s.name), Dimensions: dimensionViews(s.dimensions)}})
	})
	rows, next, err := page(rows, func(r row) string { return r.key }, in.NextToken, 500)
	out := &cw.ListMetricsOutput{NextToken: next}
	for _, r := range rows {
		out.Metrics = append(out.Metrics, r.view)
	}
	return out, err
}

// matches reports whether a metric has every dimension of a filter, of the value
// where it says one.
func matches(s *series, filter []types.DimensionFilter) bool {
	for _, f := range filter {
		if !slices.ContainsFunc(s.dimensions, func(d metric.Dimension) bool {
			return d.Name == aws.ToString(f.Name) && (f.Value == nil || *f.Value == d.Value)
		}) {
			return false
		}
	}
	return true
}

func dimensionViews(in []metric.Dimension) []types.Dimension {
	out := make([]types.Dimension, len(in))
	for i, d := range in {
		out[i] = types.Dimension{Name: new(d.Name), Value: new(d.Value)}
	}
	return out
}
