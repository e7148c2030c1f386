package metric

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
)

// Histogram counts durations from a microsecond to an hour without a lock, in
// buckets that are as wide as a 64th of what is in them: a high dynamic range
// histogram. It only ever grows; differences of two Counts are what was between.
type Histogram struct {
	buckets [histogramSize]atomic.Uint64
	sum     atomic.Int64
}

const (
	histogramBits = 6 // of a bucket's number that are the value's own
	histogramSize = (33 - histogramBits) << histogramBits
)

// Counts is what a Histogram had counted at one time. The zero Counts is of nothing.
type Counts struct {
	Buckets [histogramSize]uint64
	Sum     time.Duration
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	h.buckets[histogramBucket(d)].Add(1)
	h.sum.Add(int64(d))
}

func histogramBucket(d time.Duration) int {
	us := uint64(min(max(d/time.Microsecond, 0), 1<<32-1))
	if us < 2<<histogramBits {
		return int(us)
	}
	shift := bits.Len64(us) - histogramBits - 1
	return shift<<histogramBits + int(us>>shift)
}

// histogramBounds are the least duration of a bucket, and of the next.
func histogramBounds(bucket int) (from, to time.Duration) {
	at := func(bucket int) time.Duration {
		if bucket < 2<<histogramBits {
			return time.Duration(bucket) * time.Microsecond
		}
		shift := bucket>>histogramBits - 1
		return time.Duration(bucket-shift<<histogramBits) << shift * time.Microsecond
	}
	return at(bucket), at(bucket + 1)
}

// Counts is what was counted so far.
func (h *Histogram) Counts() *Counts {
	c := new(Counts)
	if h == nil {
		return c
	}
	for i := range h.buckets {
		c.Buckets[i] = h.buckets[i].Load()
	}
	c.Sum = time.Duration(h.sum.Load())
	return c
}

// Since is what was counted after before was taken.
func (c *Counts) Since(before *Counts) *Counts {
	out := *c
	for i := range out.Buckets {
		out.Buckets[i] -= before.Buckets[i]
	}
	out.Sum -= before.Sum
	return &out
}

// Merge adds what is in other.
func (c *Counts) Merge(other *Counts) {
	for i, n := range other.Buckets {
		c.Buckets[i] += n
	}
	c.Sum += other.Sum
}

// Count is how many durations were counted.
func (c *Counts) Count() (n uint64) {
	for _, more := range c.Buckets {
		n += more
	}
	return n
}

// Percentile is the duration that p percent (0 to 100) are not above, within one
// percent; 0 of nothing.
func (c *Counts) Percentile(p float64) time.Duration {
	rank := p / 100 * float64(c.Count())
	last := time.Duration(0)
	for i, n := range c.Buckets {
		if n == 0 {
			continue
		}
		from, to := histogramBounds(i)
		last = (from + to) / 2
		if rank -= float64(n); rank <= 0 {
			break
		}
	}
	return last
}

// AtMost is how many durations were not above each of the bounds, which ascend,
// within one percent of the bound.
func (c *Counts) AtMost(bounds []time.Duration) []uint64 {
	out := make([]uint64, len(bounds))
	at := 0
	for i, n := range c.Buckets {
		if n == 0 {
			continue
		}
		from, to := histogramBounds(i)
		for at < len(bounds) && (from+to)/2 > bounds[at] {
			at++
		}
		if at == len(bounds) {
			break
		}
		out[at] += n
	}
	for i := 1; i < len(out); i++ {
		out[i] += out[i-1]
	}
	return out
}

// countsJSON has the buckets that are not empty: the microseconds that their
// durations are below, and how many they are.
type countsJSON struct {
	Sum     time.Duration `json:"nanoseconds"`
	Buckets [][2]uint64   `json:"belowMicroseconds"`
}

// MarshalJSON leaves empty buckets out.
func (c *Counts) MarshalJSON() ([]byte, error) {
	out := countsJSON{c.Sum, [][2]uint64{}}
	for i, n := range c.Buckets {
		if n > 0 {
			_, to := histogramBounds(i)
			out.Buckets = append(out.Buckets, [2]uint64{uint64(to / time.Microsecond), n})
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Counts) UnmarshalJSON(raw []byte) error {
	var in countsJSON
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	*c = Counts{Sum: in.Sum}
	for _, b := range in.Buckets {
		if b[0] == 0 || b[0] > 1<<32 {
			return fmt.Errorf("reading a histogram: no bucket ends at %d microseconds", b[0])
		}
		c.Buckets[histogramBucket(time.Duration(b[0]-1)*time.Microsecond)] += b[1]
	}
	return nil
}

// Set is the same as numbers of seconds.
func (c *Counts) Set() (s Set) {
	for i, n := range c.Buckets {
		if n > 0 {
			from, to := histogramBounds(i)
			s.Add((from+to).Seconds()/2, float64(n))
		}
	}
	s.Sum = c.Sum.Seconds()
	return s
}
