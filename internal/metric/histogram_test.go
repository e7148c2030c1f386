package metric

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestAHistogramIsWithinOnePercent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		d := time.Duration(1) << r.IntN(41)
		d += time.Duration(r.Int64N(int64(d)))
		at := histogramBucket(d)
		from, to := histogramBounds(at)
		if d < from || d >= to {
			t.Fatalf("%v is in bucket %d, %v to %v", d, at, from, to)
		}
		if mid := (from + to) / 2; d > 200*time.Microsecond && (mid-d).Abs() > d/100 {
			t.Fatalf("%v is told as %v", d, mid)
		}
	}
	if at := histogramBucket(48 * time.Hour); at != histogramSize-1 {
		t.Errorf("what is too long is in bucket %d of %d", at, histogramSize)
	}
}

func TestAHistogramTellsWhatWasBetween(t *testing.T) {
	var h Histogram
	h.Add(time.Second)
	before := h.Counts()
	for i := range 100 {
		h.Add(time.Duration(i+1) * time.Millisecond)
	}
	c := h.Counts().Since(before)
	if c.Count() != 100 || c.Sum != 5050*time.Millisecond {
		t.Errorf("there were %d of %v", c.Count(), c.Sum)
	}
	for p, want := range map[float64]time.Duration{50: 50 * time.Millisecond, 99: 99 * time.Millisecond, 100: 100 * time.Millisecond} {
		if got := c.Percentile(p); (got - want).Abs() > want/100 {
			t.Errorf("percentile %v is %v", p, got)
		}
	}
	if s := c.Set(); s.Count != 100 || s.Sum != 5.05 || s.Percentile(90) < 0.089 || s.Percentile(90) > 0.091 {
		t.Errorf("as a set it is %+v", s)
	}
}
