package wire

import (
	"net/http"
	"sync"
	"time"

	"serin/internal/arn"
)

// Bucket is a token bucket that some operations of a service share: Burst calls
// at once, and Refill more each second, for each account and region.
type Bucket struct {
	Name          string
	Burst, Refill float64
}

// Throttle counts calls against their services' buckets, in wall time: clients
// wait by their own clocks. It is safe for concurrent use.
type Throttle struct {
	mu     sync.Mutex
	levels map[level]*fill
}

// level is one bucket of one account and region.
type level struct {
	scope           arn.Scope
	service, bucket string
}

type fill struct {
	tokens float64
	at     time.Time
}

// NewThrottle returns a throttle whose buckets are full.
func NewThrottle() *Throttle { return &Throttle{levels: map[level]*fill{}} }

// take takes a token for a call, if there is one. An operation without a bucket
// is never throttled.
func (t *Throttle) take(s *Service, c *Call, now time.Time) bool {
	b, ok := s.Buckets[c.Operation]
	if t == nil || !ok {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	at := level{c.Scope, s.Name, b.Name}
	f := t.levels[at]
	if f == nil {
		f = &fill{b.Burst, now}
		t.levels[at] = f
	}
	f.tokens = min(f.tokens+now.Sub(f.at).Seconds()*b.Refill, b.Burst)
	f.at = now
	if f.tokens < 1 {
		return false
	}
	f.tokens--
	return true
}

// errThrottled is the answer of the JSON services, documented.
var errThrottled = &Error{"ThrottlingException", "Rate exceeded", http.StatusBadRequest}
