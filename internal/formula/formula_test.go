package formula_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"serin/internal/formula"
)

var start = time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC) // a Monday

// series reads points of one minute each; - is a period without data.
func series(id, points string) formula.Series {
	s := formula.Series{ID: id, Period: time.Minute}
	for i, field := range strings.Fields(points) {
		var f float64
		if _, err := fmt.Sscan(field, &f); err == nil {
			s.Points = append(s.Points, formula.Point{At: start.Add(time.Duration(i) * time.Minute), Value: f})
		}
	}
	return s
}

// shown is the inverse of series.
func shown(s formula.Series) string {
	var out []string
	for i := range 5 {
		word := "-"
		for _, p := range s.Points {
			if p.At.Equal(start.Add(time.Duration(i) * time.Minute)) {
				word = fmt.Sprint(math.Round(p.Value*1000) / 1000)
			}
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

func env() *formula.Env {
	e := &formula.Env{From: start, To: start.Add(5 * time.Minute), Period: time.Minute, Series: map[string][]formula.Series{}}
	for _, s := range []formula.Series{series("m1", "1 2 3 4 5"), series("m2", "2 0 - 8 -1"), series("errors1", "- 1 - 3 -"), series("none", "- - - - -")} {
		e.Series[s.ID] = []formula.Series{s}
		e.Metrics = append(e.Metrics, s)
	}
	return e
}

func TestExpressionsGiveWhatTheyShould(t *testing.T) {
	for expression, want := range map[string]string{
		"m1":                                 "1 2 3 4 5",
		"m1*2+1":                             "3 5 7 9 11",
		"1+m1*2":                             "3 5 7 9 11",
		"(1+m1)*2":                           "4 6 8 10 12",
		"m1 / m2":                            "0.5 - - 0.5 -5", // the division by zero drops the point
		"errors1/m1*100":                     "- 50 - 75 -",
		"-m1^2":                              "-1 -4 -9 -16 -25",
		"m1^-1":                              "1 0.5 0.333 0.25 0.2",
		"2^3^0*m1":                           "2 4 6 8 10",
		"m1 - -1":                            "2 3 4 5 6",
		"1e2*m1":                             "100 200 300 400 500",
		"m1 > 2":                             "0 0 1 1 1",
		"m1 >= 2 AND m2 < 5":                 "0 1 - 0 1",
		"m1 == 1 || m1 == 5":                 "1 0 0 0 1",
		"m1 != 1 && 1":                       "0 1 1 1 1",
		"ABS(m2)":                            "2 0 - 8 1",
		"CEIL(m1/2)":                         "1 1 2 2 3",
		"FLOOR(m1/2)":                        "0 1 1 2 2",
		"LOG10(m1*100)":                      "2 2.301 2.477 2.602 2.699",
		"LOG(m2)":                            "0.693 - - 2.079 -",
		"m1 - AVG(m1)":                       "-2 -1 0 1 2",
		"m1/SUM(m1)*15":                      "1 2 3 4 5",
		"m1*0 + MIN(m2)":                     "-1 -1 -1 -1 -1",
		"m1*0 + MAX([m1,m2])":                "2 2 3 8 5",
		"SUM([m1,m2,errors1])":               "3 3 3 15 4",
		"AVG([m1, errors1])":                 "1 1.5 3 3.5 5",
		"MAX([m1, 3])":                       "3 3 3 4 5",
		"SUM(METRICS())":                     "3 3 3 15 4",
		`SUM(METRICS("error"))`:              "- 1 - 3 -",
		"m1*METRIC_COUNT(METRICS())":         "4 8 12 16 20",
		"m1*0+DATAPOINT_COUNT(m2)":           "4 4 4 4 4",
		"DATAPOINT_COUNT([m1,m2])":           "2 2 1 2 2",
		"m1*0+STDDEV(m1)":                    "1.414 1.414 1.414 1.414 1.414",
		"IF(m1 > 2, m1, 0)":                  "0 0 3 4 5",
		"IF(m1 > 2, m2, m1)":                 "1 2 - 8 -1",
		"IF(1, m2, m1)":                      "2 0 - 8 -1",
		"FILL(m2, 7)":                        "2 0 7 8 -1",
		"FILL(m2, REPEAT)":                   "2 0 0 8 -1",
		"FILL(errors1, REPEAT)":              "- 1 1 3 3",
		"FILL(errors1, LINEAR)":              "- 1 2 3 -",
		"FILL(m2, m1)":                       "2 0 3 8 -1",
		"FILL(none, 0)":                      "0 0 0 0 0",
		"FILL(errors1,0)/FILL(m1,1)*100":     "0 50 0 75 0",
		"RATE(m1)*60":                        "- 1 1 1 1",
		"DIFF(m2)":                           "- -2 - 8 -9",
		"DIFF_TIME(m2)":                      "- 60 - 120 60",
		"RUNNING_SUM(m2)":                    "2 2 - 10 9",
		"m1*PERIOD(m1)":                      "60 120 180 240 300",
		"TIME_SERIES(4)":                     "4 4 4 4 4",
		"MINUTE(m1)":                         "0 1 2 3 4",
		"HOUR(m1)+DAY(m1)+DATE(m1)*100":      "511 511 511 511 511",
		"MONTH(m1)+YEAR(m1)":                 "2027 2027 2027 2027 2027",
		"EPOCH(m1)-EPOCH(m1)":                "0 0 0 0 0",
		"FIRST([m1,m2])":                     "1 2 3 4 5",
		"LAST(METRICS())":                    "- - - - -",
		"SUM(REMOVE_EMPTY([none,m1]))":       "1 2 3 4 5",
		"SUM([m1,m2]*[m2,m1])":               "4 0 - 64 -10",
		"SUM(m1 + [m1,m2])":                  "5 6 6 20 14",
		"IF(m1 > 1 AND m1 < 4, 1, 0) * 10.5": "0 10.5 10.5 0 0",
	} {
		e, err := formula.Parse(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		got, err := e.Eval(env())
		if err != nil || len(got) != 1 || shown(got[0]) != want {
			t.Errorf("%s gives %v %v, want %s", expression, got, err, want)
			if len(got) == 1 {
				t.Error(shown(got[0]))
			}
		}
	}
}

func TestWhatIsNoExpressionIsRefused(t *testing.T) {
	for expression, want := range map[string]string{
		"":                               "ends too early",
		"m1 +":                           "ends too early",
		"m1 m2":                          "Unexpected 'm2'",
		"(m1":                            "Expected ')' at the end",
		"m1 ? 2":                         "Unexpected character '?'",
		"Total+1":                        "'Total' is not an id",
		"SUM('a":                         "quote is not closed",
		"NO_SUCH(m1)":                    "Function 'NO_SUCH' not found",
		"SEARCH('{a,b}', 'Sum', 60)":     "does not perform the function SEARCH",
		"ANOMALY_DETECTION_BAND(m1)":     "does not perform the function ANOMALY_DETECTION_BAND",
		"SELECT AVG(a) FROM b":           "Metrics Insights",
		"ABS(m1, m2)":                    "does not take 2 arguments",
		"m9":                             "Undefined reference 'm9'",
		"SUM(m1)":                        "results in a scalar",
		"5":                              "results in a scalar",
		"'a'":                            "is no value",
		"FILL(m1, SOMETIMES)":            "'SOMETIMES' is not an id",
		"FILL(m1, 'x')":                  "takes REPEAT, LINEAR",
		"FILL(3, 0)":                     "The function FILL takes a time series or an array of time series, not a scalar",
		"RATE(3)":                        "not a scalar",
		"TIME_SERIES(m1)":                "The function TIME_SERIES takes a scalar, not a time series",
		"PERIOD(METRICS())":              "not an array",
		"IF(METRICS(), 1, 0)":            "not an array",
		"[m1,m2] + [m1,m2,m1]":           "arrays have 2 and 3",
		strings.Repeat("(", 300):         "nested too deeply",
		strings.Repeat("m", 3000):        "more than 2048",
		"m1" + strings.Repeat("^2", 900): "nested too deeply",
	} {
		e, err := formula.Parse(expression)
		if err == nil {
			_, err = e.Eval(env())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s gives %v, want %s", expression, err, want)
		}
	}
}

func TestAnExpressionTellsWhatItNames(t *testing.T) {
	e, err := formula.Parse("IF(m1 > 1, m2, -m1) + SUM([e1, m2])")
	if err != nil || strings.Join(e.Refs(), " ") != "m1 m2 e1" || e.All() {
		t.Errorf("%v %v", e, err)
	}
	if e, err = formula.Parse("SUM(METRICS())"); err != nil || !e.All() {
		t.Errorf("%v %v", e, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"m1+m2", "IF(m1>1,FILL(m2,REPEAT),0)", "SUM(METRICS('x'))/[1,m1]", "-2^-3", "1e", "RATE(m1) AND 'x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := formula.Parse(s)
		if err != nil {
			return
		}
		got, err := e.Eval(env())
		for _, s := range got {
			for _, p := range s.Points {
				if err != nil || math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
					t.Errorf("%v %v", p, err)
				}
			}
		}
	})
}
