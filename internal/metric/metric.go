// Package metric is what was measured of one thing, as CloudWatch keeps it.
//
// A producer (a load balancer, the scheduler, a caller of PutMetricData) hands
// over a Datum; what it counted or timed is in a Set, which keeps no single
// values but can be merged with others and asked for its percentiles.
package metric

import (
	"math"
	"slices"
	"time"
)

// Dimension is a name and a value that tell one metric from another of the
// same name.
type Dimension struct{ Name, Value string }

// Datum is what was measured of one metric, in CloudWatch's words.
type Datum struct {
	Namespace  string
	Name       string
	Dimensions []Dimension
	Unit       string    // "Count", "Seconds", "Percent", …
	At         time.Time // stage time
	Set        Set
}

// growth is the ratio of a bucket's bounds: a percentile is within half of
// that, one percent, of a value that was there.
const growth = 1.02

// Set is a distribution of numbers. The zero Set is empty. A copy shares its
// buckets with the original: hand a Set over, or Merge it into another.
type Set struct {
	Count, Sum float64
	Min, Max   float64 // of no meaning while Count is 0

	above, below map[int]float64 // how many positive and negative numbers, by logarithm
	zero         float64         // how many that are zero
}

// Add adds a number that was seen n times.
func (s *Set) Add(value, n float64) {
	if n <= 0 {
		return
	}
	s.widen(value, value)
	s.Count, s.Sum = s.Count+n, s.Sum+value*n
	switch {
	case value > 0:
		s.above = put(s.above, bucket(value), n)
	case value < 0:
		s.below = put(s.below, bucket(-value), n)
	default:
		s.zero += n
	}
}

// AddSummary adds numbers of which only this is known. They have no
// percentiles but those of a set of equal numbers, as at CloudWatch: what is
// between the least and the greatest is taken for the mean.
func (s *Set) AddSummary(count, sum, least, greatest float64) {
	if count <= 0 {
		return
	}
	before := *s
	s.Add(sum/count, count)
	if before.Count == 0 {
		s.Min, s.Max = least, greatest
	} else {
		s.Min, s.Max = min(before.Min, least), max(before.Max, greatest)
	}
	s.Sum = before.Sum + sum
}

// Merge adds everything that is in other.
func (s *Set) Merge(other Set) {
	if other.Count == 0 {
		return
	}
	s.widen(other.Min, other.Max)
	s.Count, s.Sum, s.zero = s.Count+other.Count, s.Sum+other.Sum, s.zero+other.zero
	for at, n := range other.above {
		s.above = put(s.above, at, n)
	}
	for at, n := range other.below {
		s.below = put(s.below, at, n)
	}
}

func (s *Set) widen(least, greatest float64) {
	if s.Count == 0 {
		s.Min, s.Max = least, greatest
		return
	}
	s.Min, s.Max = min(s.Min, least), max(s.Max, greatest)
}

// Mean is the average, NaN of an empty Set.
func (s Set) Mean() float64 { return s.Sum / s.Count }

// Size is how many numbers the Set keeps, for whoever bounds his memory.
func (s Set) Size() int { return len(s.above) + len(s.below) }

// Percentile is the number that p percent (0 to 100) are not above, within one
// percent of it; NaN of an empty Set.
func (s Set) Percentile(p float64) float64 {
	switch {
	case s.Count == 0:
		return math.NaN()
	case p <= 0:
		return s.Min
	case p >= 100:
		return s.Max
	}
	rank := p / 100 * s.Count
	for value, n := range s.Each {
		if rank -= n; rank <= s.Count*1e-12 {
			return value
		}
	}
	return s.Max
}

// Each calls yield with the numbers of the Set from the least to the greatest,
// each within one percent, and how often it was seen.
func (s Set) Each(yield func(value, n float64) bool) {
	inside := func(value, n float64) bool { return yield(min(max(value, s.Min), s.Max), n) }
	for _, at := range slices.Backward(sorted(s.below)) {
		if !inside(-middle(at), s.below[at]) {
			return
		}
	}
	if s.zero > 0 && !inside(0, s.zero) {
		return
	}
	for _, at := range sorted(s.above) {
		if !inside(middle(at), s.above[at]) {
			return
		}
	}
}

func bucket(value float64) int { return int(math.Ceil(math.Log(value) / math.Log(growth))) }

// middle is the number that is as far from both bounds of a bucket.
func middle(at int) float64 { return 2 * math.Pow(growth, float64(at)) / (growth + 1) }

func put(in map[int]float64, at int, n float64) map[int]float64 {
	if in == nil {
		in = map[int]float64{}
	}
	in[at] += n
	return in
}

func sorted(in map[int]float64) []int {
	out := make([]int, 0, len(in))
	for at := range in {
		out = append(out, at)
	}
	slices.Sort(out)
	return out
}
