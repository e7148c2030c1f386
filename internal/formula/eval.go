package formula

import (
	"math"
	"slices"
	"strings"
	"time"
)

func (n literal) eval(*Env) (value, error) { return number(float64(n)), nil }

func (n text) eval(*Env) (value, error) {
	return value{}, problem("The text '%s' is no value", string(n))
}

func (n ref) eval(env *Env) (value, error) {
	found, ok := env.Series[string(n)]
	switch {
	case !ok:
		return value{}, problem("Undefined reference '%s'", string(n))
	case len(found) == 1:
		return one(found[0]), nil
	}
	return value{kind: array, series: found}, nil
}

func (n list) eval(env *Env) (value, error) {
	out := value{kind: array}
	for _, item := range n {
		v, err := item.eval(env)
		if err != nil {
			return value{}, err
		}
		if v.kind == scalar {
			v = one(env.constant(v.number))
		}
		out.series = append(out.series, v.series...)
	}
	return out, nil
}

func (n unary) eval(env *Env) (value, error) {
	v, err := n.of.eval(env)
	if err != nil {
		return value{}, err
	}
	return v.each(func(f float64) float64 { return -f }), nil
}

// each applies fn to every number. What is none then is dropped, documented for
// the division by zero.
func (v value) each(fn func(float64) float64) value {
	if v.kind == scalar {
		return number(fn(v.number))
	}
	return v.map1(func(s Series) Series {
		return s.with(func(yield func(Point)) {
			for _, p := range s.Points {
				yield(Point{p.At, fn(p.Value)})
			}
		})
	})
}

// map1 makes another series of each.
func (v value) map1(fn func(Series) Series) value {
	out := value{kind: v.kind, series: make([]Series, len(v.series))}
	for i, s := range v.series {
		out.series[i] = fn(s)
	}
	return out
}

// with is the series with other points; those that are no numbers are dropped.
func (s Series) with(points func(yield func(Point))) Series {
	out := Series{ID: s.ID, Period: s.Period}
	points(func(p Point) {
		if !math.IsNaN(p.Value) && !math.IsInf(p.Value, 0) {
			out.Points = append(out.Points, p)
		}
	})
	return out
}

// at is the value of a time.
func (s Series) at(t time.Time) (float64, bool) {
	i, ok := slices.BinarySearchFunc(s.Points, t, func(p Point, t time.Time) int { return p.At.Compare(t) })
	if !ok {
		return 0, false
	}
	return s.Points[i].Value, true
}

// constant is a scalar as a time series of the request.
func (env *Env) constant(f float64) Series {
	return Series{Period: env.Period}.with(func(yield func(Point)) {
		for _, t := range env.times(env.Period) {
			yield(Point{t, f})
		}
	})
}

// mostTimes bounds what is made of a constant.
const mostTimes = 100_800

// times is the beginnings of the periods of the request.
func (env *Env) times(period time.Duration) (out []time.Time) {
	if period <= 0 {
		return nil
	}
	for t := env.From; t.Before(env.To) && len(out) < mostTimes; t = t.Add(period) {
		out = append(out, t)
	}
	return out
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var operators = map[string]func(x, y float64) float64{
	"+":   func(x, y float64) float64 { return x + y },
	"-":   func(x, y float64) float64 { return x - y },
	"*":   func(x, y float64) float64 { return x * y },
	"/":   func(x, y float64) float64 { return x / y },
	"^":   math.Pow,
	"<":   func(x, y float64) float64 { return truth(x < y) },
	">":   func(x, y float64) float64 { return truth(x > y) },
	"<=":  func(x, y float64) float64 { return truth(x <= y) },
	">=":  func(x, y float64) float64 { return truth(x >= y) },
	"==":  func(x, y float64) float64 { return truth(x == y) },
	"!=":  func(x, y float64) float64 { return truth(x != y) },
	"AND": func(x, y float64) float64 { return truth(x != 0 && y != 0) },
	"OR":  func(x, y float64) float64 { return truth(x != 0 || y != 0) },
}

func (n binary) eval(env *Env) (value, error) {
	x, err := n.x.eval(env)
	if err != nil {
		return value{}, err
	}
	y, err := n.y.eval(env)
	if err != nil {
		return value{}, err
	}
	return combine(x, y, operators[n.op])
}

// combine applies fn to two values, number by number. Two series have a point
// where both have one; two arrays are taken in pairs.
func combine(x, y value, fn func(x, y float64) float64) (value, error) {
	switch {
	case y.kind == scalar:
		return x.each(func(f float64) float64 { return fn(f, y.number) }), nil
	case x.kind == scalar:
		return y.each(func(f float64) float64 { return fn(x.number, f) }), nil
	case x.kind == array && y.kind == array && len(x.series) != len(y.series):
		return value{}, problem("The arrays have %d and %d time series", len(x.series), len(y.series))
	case x.kind == single && y.kind == array:
		return y.map1(func(s Series) Series { return pair(x.series[0], s, fn).named(s.ID) }), nil
	}
	at := -1
	return x.map1(func(s Series) Series {
		at++
		return pair(s, y.series[min(at, len(y.series)-1)], fn)
	}), nil
}

func (s Series) named(id string) Series {
	s.ID = id
	return s
}

func pair(x, y Series, fn func(x, y float64) float64) Series {
	x.Period = max(x.Period, y.Period)
	return x.with(func(yield func(Point)) {
		for _, p := range x.Points {
			if other, ok := y.at(p.At); ok {
				yield(Point{p.At, fn(p.Value, other)})
			}
		}
	})
}

func (n call) eval(env *Env) (value, error) {
	f := functions[n.name]
	args := make([]value, 0, len(n.args))
	for _, arg := range n.args {
		if _, word := arg.(text); word && f.words {
			args = append(args, value{})
			continue
		}
		v, err := arg.eval(env)
		if err != nil {
			return value{}, err
		}
		args = append(args, v)
	}
	return f.eval(env, n, args)
}

// words is the text of an argument.
func (n call) word(i int) string {
	if i < len(n.args) {
		if t, ok := n.args[i].(text); ok {
			return string(t)
		}
	}
	return ""
}

// wants refuses an argument of another kind.
func (n call) wants(v value, kinds ...kind) error {
	if slices.Contains(kinds, v.kind) {
		return nil
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.String()
	}
	return problem("The function %s takes %s, not %s", n.name, strings.Join(names, " or "), v.kind)
}
