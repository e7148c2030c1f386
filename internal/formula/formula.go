// Package formula is CloudWatch's metric math: expressions over time series.
//
// Parse reads an expression, Eval computes it over the series that its names
// stand for. It looks at no clock and no store. Values are of three kinds: a
// scalar, a time series, and an array of them, as what METRICS() gives. What is
// not performed is refused by its name when it is parsed.
//
// Syntax and functions documented:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
package formula

import (
	"fmt"
	"time"
)

// Point is a value at the beginning of a period.
type Point struct {
	At    time.Time
	Value float64
}

// Series is points in order of time; a period without data has none.
type Series struct {
	ID     string // of the query that it is the result of
	Period time.Duration
	Points []Point
}

// Expr is an expression that was parsed.
type Expr struct {
	root node
	refs []string
	all  bool // it names METRICS()
}

// Refs is the ids that the expression names, each once.
func (e *Expr) Refs() []string { return e.refs }

// All reports whether the expression is of all metrics of the request.
func (e *Expr) All() bool { return e.all }

// Env is what an expression is evaluated in.
type Env struct {
	// Series are the results that ids stand for; of an id that is an array,
	// more than one.
	Series map[string][]Series
	// Metrics are the metrics of the request that are no expressions, in order.
	Metrics []Series
	// From and To bound the request; a constant that is made a time series has a
	// value in each Period between them.
	From, To time.Time
	Period   time.Duration
}

// Error says why an expression cannot be parsed or evaluated.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

func problem(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Eval computes the expression. What it gives is a time series, or several;
// a scalar is no result, documented.
func (e *Expr) Eval(env *Env) ([]Series, error) {
	v, err := e.root.eval(env)
	if err != nil {
		return nil, err
	}
	if v.kind == scalar {
		return nil, problem("The expression results in a scalar; a time series is required")
	}
	return v.series, nil
}

type kind int

const (
	scalar kind = iota
	single
	array
)

func (k kind) String() string {
	return [...]string{"a scalar", "a time series", "an array of time series"}[k]
}

// value is what a node computes.
type value struct {
	kind   kind
	number float64
	series []Series // one of a single
}

func number(f float64) value { return value{kind: scalar, number: f} }

func one(s Series) value { return value{kind: single, series: []Series{s}} }
