package cwd

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/arn"
	"serin/internal/formula"
	"serin/internal/metric"
)

// query is one of the metrics and expressions that are computed together, of a
// request or of an alarm.
type query struct {
	ID         string
	Expression string `json:",omitempty"`
	Label      string `json:",omitempty"`
	Hidden     bool   `json:",omitempty"` // it is only for the others to use

	Namespace, Metric string
	Dimensions        []metric.Dimension
	Stat, Unit        string
	Period            int32 // seconds; of an expression 0 where it says none
}

var queryID = regexp.MustCompile(`^[a-z][a-zA-Z0-9_]*$`)

// readQueries reads the queries of a request; at is the name of their list.
func readQueries(in []types.MetricDataQuery, at string, most int) ([]query, error) {
	if len(in) > most {
		return nil, invalid("The collection %s must not have a size greater than %d.", at, most)
	}
	out := make([]query, len(in))
	seen := map[string]bool{}
	for i, q := range in {
		var err error
		if out[i], err = readQuery(q, fmt.Sprintf("%s.member.%d", at, i+1)); err != nil {
			return nil, err
		}
		if seen[out[i].ID] {
			return nil, invalid("The values for parameter id in %s are not unique.", at)
		}
		seen[out[i].ID] = true
	}
	return out, nil
}

func readQuery(in types.MetricDataQuery, at string) (query, error) {
	q := query{ID: aws.ToString(in.Id), Expression: aws.ToString(in.Expression), Label: aws.ToString(in.Label), Hidden: in.ReturnData != nil && !*in.ReturnData, Period: aws.ToInt32(in.Period)}
	switch {
	case !queryID.MatchString(q.ID) || len(q.ID) > 255:
		return q, invalid("The value %s for parameter %s.Id is not matching the expected pattern ^[a-z][a-zA-Z0-9_]*$.", q.ID, at)
	case (in.MetricStat == nil) == (in.Expression == nil):
		return q, invalid("Exactly one of the parameters %s.MetricStat and %s.Expression must be specified.", at, at)
	case dynamic.MatchString(q.Label):
		return q, invalid("Serin does not perform dynamic labels yet; remove ${…} from %s.Label.", at)
	case in.Period != nil && !validPeriod(q.Period):
		return q, badPeriod(at)
	case in.MetricStat == nil:
		return q, nil
	}
	m := in.MetricStat
	if m.Metric == nil || aws.ToString(m.Metric.Namespace) == "" {
		return q, invalid("The parameter %s.MetricStat.Metric.Namespace is required.", at)
	}
	if aws.ToString(m.Metric.MetricName) == "" {
		return q, invalid("The parameter %s.MetricStat.Metric.MetricName is required.", at)
	}
	if q.Period = aws.ToInt32(m.Period); !validPeriod(q.Period) {
		return q, badPeriod(at + ".MetricStat")
	}
	if _, ok := parseStatistic(aws.ToString(m.Stat)); !ok {
		return q, invalid("The value %s for parameter %s.MetricStat.Stat is not supported.", aws.ToString(m.Stat), at)
	}
	q.Namespace, q.Metric, q.Stat, q.Unit = *m.Metric.Namespace, *m.Metric.MetricName, *m.Stat, string(m.Unit)
	var err error
	q.Dimensions, err = dimensions(m.Metric.Dimensions, at+".MetricStat.Metric.Dimensions")
	return q, err
}

// dynamic finds what CloudWatch would put into a label.
var dynamic = regexp.MustCompile(`\$\{`)

// validPeriod is for seconds: 1, 5, 10, 20, 30 or whole minutes, documented.
func validPeriod(p int32) bool {
	return p > 0 && p <= 86400*7 && (p%60 == 0 || slices.Contains([]int32{1, 5, 10, 20, 30}, p))
}

func badPeriod(at string) error {
	return invalid("The parameter %s.Period must be 1, 5, 10, 20, 30 or a multiple of 60.", at)
}

// computed is what a query gives: several series where it is of an array.
type computed map[string][]formula.Series

// compute reads the metrics of queries from a time to another and evaluates the
// expressions over them. It refuses expressions that cannot be.
func (a *API) compute(scope arn.Scope, queries []query, from, to time.Time) (computed, error) {
	out := computed{}
	env := &formula.Env{Series: out, From: from, To: to, Period: finest(queries)}
	for _, q := range queries {
		if q.Expression == "" {
			s := a.seriesOf(scope, q, from, to)
			out[q.ID] = []formula.Series{s}
			env.Metrics = append(env.Metrics, s)
		}
	}
	parsed := map[string]*formula.Expr{}
	for _, q := range queries {
		if q.Expression == "" {
			continue
		}
		e, err := formula.Parse(q.Expression)
		if err != nil {
			return nil, badExpression(q, err)
		}
		parsed[q.ID] = e
	}
	for len(parsed) > 0 {
		before := len(parsed)
		for _, q := range queries {
			e := parsed[q.ID]
			if e == nil || slices.ContainsFunc(e.Refs(), func(id string) bool { return parsed[id] != nil }) {
				continue
			}
			mine := *env
			if q.Period > 0 {
				mine.Period = time.Duration(q.Period) * time.Second
			}
			got, err := e.Eval(&mine)
			if err != nil {
				return nil, badExpression(q, err)
			}
			out[q.ID] = got
			delete(parsed, q.ID)
		}
		if len(parsed) == before {
			for _, q := range queries {
				if parsed[q.ID] != nil {
					return nil, badExpression(q, fmt.Errorf("the expressions refer to each other in a circle"))
				}
			}
		}
	}
	return out, nil
}

func badExpression(q query, err error) error {
	return invalid("Error in expression '%s': %v", q.ID, err)
}

// seriesOf is a metric's statistic by period.
func (a *API) seriesOf(scope arn.Scope, q query, from, to time.Time) formula.Series {
	out := formula.Series{ID: q.ID, Period: time.Duration(q.Period) * time.Second}
	stat, _ := parseStatistic(q.Stat)
	for _, c := range a.points.read(seriesKey(scope, q.Namespace, q.Metric, q.Dimensions), q.Unit, span{from, to, out.Period}) {
		if f, ok := stat.of(c); ok {
			out.Points = append(out.Points, formula.Point{At: c.at, Value: f})
		}
	}
	return out
}
