package formula

import (
	"math"
	"slices"
	"strings"
	"time"
)

type function struct {
	least, most int  // arguments
	words       bool // some of them may be words
	eval        func(env *Env, n call, args []value) (value, error)
}

// functions are those that are performed, by their names.
var functions = map[string]function{
	"ABS": numbers(math.Abs), "CEIL": numbers(math.Ceil), "FLOOR": numbers(math.Floor), "LOG": numbers(math.Log), "LOG10": numbers(math.Log10),
	"SUM": fold(total), "AVG": fold(mean), "MIN": fold(slices.Min[[]float64]), "MAX": fold(slices.Max[[]float64]), "STDDEV": fold(deviation),
	"DATAPOINT_COUNT": fold(func(of []float64) float64 { return float64(len(of)) }),
	"DIFF":            steps(func(by float64, _ time.Duration) float64 { return by }),
	"DIFF_TIME":       steps(func(_ float64, in time.Duration) float64 { return in.Seconds() }),
	"RATE":            steps(func(by float64, in time.Duration) float64 { return by / in.Seconds() }),
	"MINUTE":          dates(func(t time.Time) int { return t.Minute() }),
	"HOUR":            dates(func(t time.Time) int { return t.Hour() }),
	"DAY":             dates(func(t time.Time) int { return (int(t.Weekday())+6)%7 + 1 }), // Monday is 1
	"DATE":            dates(func(t time.Time) int { return t.Day() }),
	"MONTH":           dates(func(t time.Time) int { return int(t.Month()) }),
	"YEAR":            dates(func(t time.Time) int { return t.Year() }),
	"EPOCH":           dates(func(t time.Time) int { return int(t.Unix()) }),
	"RUNNING_SUM":     {1, 1, false, runningSum},
	"FILL":            {2, 2, true, fill},
	"IF":              {3, 3, false, choose},
	"FIRST":           {1, 1, false, pick(func(of []Series) Series { return of[0] })},
	"LAST":            {1, 1, false, pick(func(of []Series) Series { return of[len(of)-1] })},
	"METRICS":         {0, 1, true, metrics},
	"METRIC_COUNT":    {1, 1, false, count},
	"PERIOD":          {1, 1, false, period},
	"REMOVE_EMPTY":    {1, 1, false, removeEmpty},
	"TIME_SERIES":     {1, 1, false, timeSeries},
}

// numbers is a function of each number.
func numbers(fn func(float64) float64) function {
	return function{1, 1, false, func(_ *Env, _ call, args []value) (value, error) { return args[0].each(fn), nil }}
}

func total(of []float64) (sum float64) {
	for _, f := range of {
		sum += f
	}
	return sum
}

func mean(of []float64) float64 { return total(of) / float64(len(of)) }

func deviation(of []float64) float64 {
	m, squares := mean(of), 0.0
	for _, f := range of {
		squares += (f - m) * (f - m)
	}
	return math.Sqrt(squares / float64(len(of)))
}

// fold makes a scalar of one time series and a time series of several,
// documented. A time that some of them lack is of the others alone, guessed.
func fold(fn func([]float64) float64) function {
	return function{1, 1, false, func(_ *Env, n call, args []value) (value, error) {
		switch v := args[0]; v.kind {
		case single:
			all := make([]float64, len(v.series[0].Points))
			for i, p := range v.series[0].Points {
				all[i] = p.Value
			}
			if len(all) == 0 {
				return number(math.NaN()), nil
			}
			return number(fn(all)), nil
		case array:
			return one(across(v.series, fn)), nil
		}
		return value{}, n.wants(args[0], single, array)
	}}
}

// across folds several series at each time that one of them has.
func across(series []Series, fn func([]float64) float64) Series {
	at := map[int64][]float64{}
	out := Series{}
	for _, s := range series {
		out.Period = max(out.Period, s.Period)
		for _, p := range s.Points {
			at[p.At.UnixNano()] = append(at[p.At.UnixNano()], p.Value)
		}
	}
	times := make([]int64, 0, len(at))
	for t := range at {
		times = append(times, t)
	}
	slices.Sort(times)
	return out.with(func(yield func(Point)) {
		for _, t := range times {
			yield(Point{time.Unix(0, t).UTC(), fn(at[t])})
		}
	})
}

// steps is a function of what has changed from each point to the next.
func steps(fn func(by float64, in time.Duration) float64) function {
	return function{1, 1, false, func(_ *Env, n call, args []value) (value, error) {
		if err := n.wants(args[0], single, array); err != nil {
			return value{}, err
		}
		return args[0].map1(func(s Series) Series {
			return s.with(func(yield func(Point)) {
				for i := 1; i < len(s.Points); i++ {
					was, is := s.Points[i-1], s.Points[i]
					yield(Point{is.At, fn(is.Value-was.Value, is.At.Sub(was.At))})
				}
			})
		}), nil
	}}
}

// dates is a function of the time of each point, in UTC.
func dates(fn func(time.Time) int) function {
	return function{1, 1, false, func(_ *Env, n call, args []value) (value, error) {
		if err := n.wants(args[0], single, array); err != nil {
			return value{}, err
		}
		return args[0].map1(func(s Series) Series {
			return s.with(func(yield func(Point)) {
				for _, p := range s.Points {
					yield(Point{p.At, float64(fn(p.At.UTC()))})
				}
			})
		}), nil
	}}
}

func runningSum(_ *Env, n call, args []value) (value, error) {
	if err := n.wants(args[0], single, array); err != nil {
		return value{}, err
	}
	return args[0].map1(func(s Series) Series {
		sum := 0.0
		return s.with(func(yield func(Point)) {
			for _, p := range s.Points {
				sum += p.Value
				yield(Point{p.At, sum})
			}
		})
	}), nil
}

// fill gives every period of the request a point.
func fill(env *Env, n call, args []value) (value, error) {
	if err := n.wants(args[0], single, array); err != nil {
		return value{}, err
	}
	word := n.word(1)
	if _, is := n.args[1].(text); is && word != "REPEAT" && word != "LINEAR" {
		return value{}, problem("The function FILL takes REPEAT, LINEAR, a scalar or a time series, not '%s'", word)
	}
	with := args[1]
	if word == "" && with.kind == array {
		return value{}, n.wants(with, scalar, single)
	}
	return args[0].map1(func(s Series) Series {
		return s.with(func(yield func(Point)) {
			next := 0 // the first point that is not before t
			for _, t := range merged(env.times(s.Period), s.Points) {
				for next < len(s.Points) && s.Points[next].At.Before(t) {
					next++
				}
				if f, ok := filler(s, t, next, word, with); ok {
					yield(Point{t, f})
				}
			}
		})
	}), nil
}

// merged is times and those of points, in order.
func merged(times []time.Time, points []Point) []time.Time {
	for _, p := range points {
		times = append(times, p.At)
	}
	slices.SortFunc(times, time.Time.Compare)
	return slices.CompactFunc(times, time.Time.Equal)
}

// filler is the value of a series at t, or what stands in for it.
func filler(s Series, t time.Time, next int, word string, with value) (float64, bool) {
	if next < len(s.Points) && s.Points[next].At.Equal(t) {
		return s.Points[next].Value, true
	}
	switch {
	case word == "REPEAT":
		if next == 0 {
			return 0, false
		}
		return s.Points[next-1].Value, true
	case word == "LINEAR":
		if next == 0 || next == len(s.Points) {
			return 0, false
		}
		a, b := s.Points[next-1], s.Points[next]
		return a.Value + (b.Value-a.Value)*float64(t.Sub(a.At))/float64(b.At.Sub(a.At)), true
	case with.kind == scalar:
		return with.number, true
	}
	return with.series[0].at(t)
}

// choose is IF: of each point of the condition, what is chosen at its time.
func choose(_ *Env, n call, args []value) (value, error) {
	condition := args[0]
	for _, v := range args {
		if err := n.wants(v, scalar, single); err != nil {
			return value{}, err
		}
	}
	if condition.kind == scalar {
		if condition.number != 0 {
			return args[1], nil
		}
		return args[2], nil
	}
	return condition.map1(func(s Series) Series {
		return s.with(func(yield func(Point)) {
			for _, p := range s.Points {
				branch := args[2]
				if p.Value != 0 {
					branch = args[1]
				}
				if branch.kind == scalar {
					yield(Point{p.At, branch.number})
				} else if f, ok := branch.series[0].at(p.At); ok {
					yield(Point{p.At, f})
				}
			}
		})
	}), nil
}

func pick(fn func([]Series) Series) func(*Env, call, []value) (value, error) {
	return func(_ *Env, n call, args []value) (value, error) {
		if err := n.wants(args[0], single, array); err != nil {
			return value{}, err
		}
		if len(args[0].series) == 0 {
			return one(Series{}), nil
		}
		return one(fn(args[0].series)), nil
	}
}

// metrics is all metrics of the request, or those with a text in their id.
func metrics(env *Env, n call, _ []value) (value, error) {
	if len(n.args) == 1 && n.word(0) == "" {
		return value{}, problem("The function METRICS takes a text")
	}
	out := value{kind: array}
	for _, s := range env.Metrics {
		if strings.Contains(s.ID, n.word(0)) {
			out.series = append(out.series, s)
		}
	}
	return out, nil
}

func count(_ *Env, n call, args []value) (value, error) {
	return number(float64(len(args[0].series))), n.wants(args[0], single, array)
}

func period(_ *Env, n call, args []value) (value, error) {
	if err := n.wants(args[0], single); err != nil {
		return value{}, err
	}
	return number(args[0].series[0].Period.Seconds()), nil
}

func removeEmpty(_ *Env, n call, args []value) (value, error) {
	out := value{kind: array}
	for _, s := range args[0].series {
		if len(s.Points) > 0 {
			out.series = append(out.series, s)
		}
	}
	return out, n.wants(args[0], single, array)
}

func timeSeries(env *Env, n call, args []value) (value, error) {
	if err := n.wants(args[0], scalar); err != nil {
		return value{}, err
	}
	return one(env.constant(args[0].number)), nil
}
