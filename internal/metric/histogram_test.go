package metric

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
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

func TestCountsAreTheSameAfterJSON(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{0, time.Microsecond, 127 * time.Microsecond, 129 * time.Microsecond, 3 * time.Millisecond, 3 * time.Millisecond, 40 * time.Second, 2 * time.Hour} {
		h.Add(d)
	}
	counts := h.Counts()
	raw, err := json.Marshal(counts)
	if err != nil {
		t.Fatal(err)
	}
	var back Counts
	if err := json.Unmarshal(raw, &back); err != nil || back != *counts {
		t.Errorf("%s came back with %d, %v", raw, back.Count(), err)
	}
	for _, broken := range []string{`{"belowMicroseconds":[[0,1]]}`, `{"belowMicroseconds":[[4294967297,1]]}`, `{"belowMicroseconds":[[-1,1]]}`} {
		if json.Unmarshal([]byte(broken), &back) == nil {
			t.Errorf("%s was read", broken)
		}
	}
}

func TestEachBoundHasWhatIsNotAboveIt(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{500 * time.Microsecond, 2 * time.Millisecond, 2 * time.Millisecond, 80 * time.Millisecond, time.Minute} {
		h.Add(d)
	}
	got := h.Counts().AtMost([]time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second})
	if want := []uint64{1, 3, 4, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := new(Counts).AtMost([]time.Duration{time.Second}); got[0] != 0 {
		t.Errorf("nothing has %v", got)
	}
}
