package cwd

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/arn"
	"serin/internal/metric"
)

var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// The tables of the user guide: three evaluation periods in a range of five.
// X breaches, 0 does not, - is missing.
func TestMissingDataIsTreatedAsTheUserGuidesTablesSay(t *testing.T) {
	treatments := []string{"missing", "ignore", "breaching", "notBreaching"}
	const stays = "stays"
	for _, c := range []struct {
		needed int32
		points string
		filled int
		want   [4]string
	}{
		{3, "0 - X - X", 0, [4]string{"OK", "OK", "OK", "OK"}},
		{3, "- - - - 0", 2, [4]string{"OK", "OK", "OK", "OK"}},
		{3, "- - - - -", 3, [4]string{"INSUFFICIENT_DATA", stays, "ALARM", "OK"}},
		{3, "0 X X - X", 0, [4]string{"ALARM", "ALARM", "ALARM", "ALARM"}},
		{3, "- - X - -", 2, [4]string{"ALARM", stays, "ALARM", "OK"}},
		{2, "0 - X - X", 0, [4]string{"ALARM", "ALARM", "ALARM", "ALARM"}},
		{2, "0 0 X 0 X", 0, [4]string{"ALARM", "ALARM", "ALARM", "ALARM"}},
		{2, "0 - X - -", 1, [4]string{"OK", "OK", "ALARM", "OK"}},
		{2, "- - - - 0", 2, [4]string{"OK", "OK", "ALARM", "OK"}},
		{2, "- - - X -", 2, [4]string{"ALARM", stays, "ALARM", "OK"}},
	} {
		for i, treatment := range treatments {
			a := alarm{Queries: []query{{Stat: "Sum", Period: 60}}, Comparison: types.ComparisonOperatorGreaterThanThreshold, Threshold: 1, Periods: 3, Points: &c.needed, Missing: treatment}
			var window []sample
			for n, field := range strings.Fields(c.points) {
				window = append(window, sample{at: noon.Add(time.Duration(n) * time.Minute), there: field != "-", value: map[string]float64{"X": 2}[field]})
			}
			v := a.decide(window)
			got := string(v.state)
			if v.keep {
				got = stays
			}
			if got != c.want[i] || v.filled != c.filled {
				t.Errorf("%d of %s with %s: %s, %d filled; want %s, %d", c.needed, c.points, treatment, got, v.filled, c.want[i], c.filled)
			}
		}
	}
}

func TestReasonsAreInCloudWatchsWords(t *testing.T) {
	of := func(points string, change func(*alarm)) string {
		a := alarm{Queries: []query{{Stat: "Sum", Period: 60}}, Comparison: types.ComparisonOperatorGreaterThanOrEqualToThreshold, Threshold: 0.5, Periods: 3}
		change(&a)
		window := make([]sample, a.Periods+further)
		for i, field := range strings.Fields(points) {
			window[i] = sample{at: noon.Add(time.Duration(i) * time.Minute)}
			_, err := fmt.Sscan(field, &window[i].value)
			window[i].there = err == nil
		}
		return a.decide(window).reason(a)
	}
	missing := func(how string) func(*alarm) { return func(a *alarm) { a.Missing = how } }
	for _, c := range []struct{ got, want string }{
		{of("- - 1 2 3", missing("")), "Threshold Crossed: 3 out of the last 3 datapoints [3.0 (05/01/26 12:04:00), 2.0 (05/01/26 12:03:00), 1.0 (05/01/26 12:02:00)] were greater than or equal to the threshold (0.5) (minimum 3 datapoints for OK -> ALARM transition)."},
		{of("- - 1 0 3", missing("")), "Threshold Crossed: 1 out of the last 3 datapoints [0.0 (05/01/26 12:03:00)] was not greater than or equal to the threshold (0.5) (minimum 1 datapoint for ALARM -> OK transition)."},
		{of("- - - - -", missing("")), "Insufficient Data: 3 datapoints were unknown."},
		{of("- - - - -", missing("breaching")), "Threshold Crossed: no datapoints were received for 3 periods and 3 missing datapoints were treated as [Breaching]."},
		{of("- - - - 1", missing("notBreaching")), "Threshold Crossed: 1 datapoint was received for 3 periods and 2 missing datapoints were treated as [NonBreaching]."},
		{of("- - - 1 -", func(a *alarm) { a.Missing, a.Points = "breaching", new(int32(2)) }), "Threshold Crossed: 1 out of the last 3 datapoints [1.0 (05/01/26 12:03:00)] was greater than or equal to the threshold (0.5) and 2 missing datapoints were treated as [Breaching] (minimum 2 datapoints for OK -> ALARM transition)."},
		{of("- - 0.25", func(a *alarm) { a.Periods = 1 }), "Threshold Crossed: 1 out of the last 1 datapoints [0.25 (05/01/26 12:02:00)] was not greater than or equal to the threshold (0.5) (minimum 1 datapoint for ALARM -> OK transition)."},
	} {
		if c.got != c.want {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

func TestStatisticsAreWhatTheyAreDefinedAs(t *testing.T) {
	var hundred metric.Set
	for i := range 100 {
		hundred.Add(float64(i+1), 1)
	}
	for name, want := range map[string]float64{
		"SampleCount": 100, "Sum": 5050, "Average": 50.5, "Minimum": 1, "Maximum": 100,
		"p50": 50, "p99": 99, "p99.9": 100, "p0": 1, "p100": 100,
		"tm90": 45.5, "tc90": 90, "ts90": 4095, "IQM": 50.5, "TM(10%:90%)": 50.5, "TM(:90%)": 45.5, "TM(90%:)": 95.5, "TC(25%:75%)": 50, "WM(10%:90%)": 50.5,
		"TM(10.5:20.5)": 15.5, "TC(:20.5)": 20, "TS(98:)": 199, "PR(:25)": 25, "PR(50.5:)": 50, "PR(10:20)": 10, "WM(20:80)": 50.3,
	} {
		s, ok := parseStatistic(name)
		if !ok {
			t.Errorf("%s is no statistic", name)
			continue
		}
		if got, ok := s.of(cell{set: hundred}); !ok || math.Abs(got-want) > max(want*0.03, 0.02) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
		if _, ok := s.of(cell{set: hundred, summary: true}); ok != plainStatistic(name) {
			t.Errorf("%s of a set of which only the bounds are known: %v", name, ok)
		}
	}
	for _, name := range []string{"", "p", "p101", "p-1", "tm", "tm100", "TM", "TM(:)", "TM(90%:10%)", "TM(10%:20)", "TM(%:90%)", "TM(:101%)", "PR(10%:20%)", "XX(1:2)", "average", "TM(1:2"} {
		if _, ok := parseStatistic(name); ok {
			t.Errorf("%q is a statistic", name)
		}
	}
}

func TestDataPointsAreBoundedInAgeAndNumber(t *testing.T) {
	scope, p := arn.Scope{Account: "1", Region: "r"}, newPoints()
	p.most = 30_000
	add := func(name string, at time.Time, numbers int) {
		d := datum{Datum: metric.Datum{Namespace: "n", Name: name, At: at}, fine: true}
		for i := range numbers {
			d.Set.Add(math.Pow(1.03, float64(i)), 1)
		}
		p.add(scope, d, at)
	}
	read := func(name string, period time.Duration) int {
		return len(p.read(seriesKey(scope, "n", name, nil), "", span{noon.Add(-keepCoarse), noon.Add(2 * keepCoarse), period}))
	}
	for i := range 4 {
		add("a", noon.Add(time.Duration(i)*time.Minute), 1)
	}
	if read("a", time.Minute) != 4 || read("a", time.Second) != 4 || read("a", 2*time.Minute) != 2 {
		t.Errorf("%d minutes, %d seconds", read("a", time.Minute), read("a", time.Second))
	}
	add("b", noon.Add(4*time.Hour), 1)
	if read("a", time.Minute) != 4 || read("a", time.Second) != 0 {
		t.Errorf("after three hours %d minutes, %d seconds", read("a", time.Minute), read("a", time.Second))
	}
	add("b", noon.Add(keepCoarse+time.Hour), 1)
	if read("a", time.Minute) != 0 || len(p.series) != 1 {
		t.Errorf("after a fortnight %d, and %d metrics", read("a", time.Minute), len(p.series))
	}
	for i := range 100 {
		add("many", noon.Add(keepCoarse+time.Hour+time.Duration(i)*time.Minute), 1000)
	}
	if p.weight > p.most || read("many", time.Minute) == 0 {
		t.Errorf("it weighs %d, of %d minutes", p.weight, read("many", time.Minute))
	}
	weight := 0
	for _, s := range p.series {
		weight += seriesWeight
		for _, u := range s.units {
			for _, list := range [][]point{u.minutes, u.seconds} {
				for _, one := range list {
					weight += pointWeight + one.set.Size()
				}
			}
		}
	}
	if weight != p.weight {
		t.Errorf("it weighs %d and says %d", weight, p.weight)
	}
}
