package metric_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"serin/internal/metric"
)

func TestAPercentileIsWithinOnePercentOfANumberThatWasThere(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		var whole, half metric.Set
		var all []float64
		for i := range 1 + r.IntN(400) {
			v := math.Exp(r.NormFloat64() * 4)
			if round%3 == 0 && i%2 == 0 {
				v = -v
			}
			if round%5 == 0 && i%4 == 0 {
				v = 0
			}
			all = append(all, v)
			if i%2 == 0 {
				whole.Add(v, 1)
			} else {
				half.Add(v, 1)
			}
		}
		whole.Merge(half)
		slices.Sort(all)
		for _, p := range []float64{0, 1, 50, 90, 99, 99.9, 100} {
			want := all[max(int(math.Ceil(p/100*float64(len(all))))-1, 0)]
			if got := whole.Percentile(p); math.Abs(got-want) > math.Abs(want)*0.0101 {
				t.Fatalf("p%v of %d numbers: got %v, want %v", p, len(all), got, want)
			}
		}
		if whole.Min != all[0] || whole.Max != all[len(all)-1] || whole.Count != float64(len(all)) {
			t.Fatalf("bounds: %+v", whole)
		}
	}
}

func TestASummaryKeepsItsBounds(t *testing.T) {
	var s metric.Set
	s.AddSummary(4, 10, 1, 7)
	s.AddSummary(1, 20, 20, 20)
	if s.Count != 5 || s.Sum != 30 || s.Min != 1 || s.Max != 20 || s.Mean() != 6 {
		t.Errorf("%+v", s)
	}
}

func TestAnEmptySetHasNoPercentile(t *testing.T) {
	var s metric.Set
	if !math.IsNaN(s.Percentile(50)) || !math.IsNaN(s.Mean()) {
		t.Errorf("%v %v", s.Percentile(50), s.Mean())
	}
}
