// Package rehearse puts a release under load and says what its users saw.
package rehearse

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// Load is a steady stream of real requests to one URL. Every answer is counted
// by the version that gave it.
type Load struct {
	URL     string
	Rate    int                         // requests a second
	Version func(*http.Response) string // who answered
	client  *http.Client

	mu     sync.Mutex
	counts Counts
	last   map[string]time.Time
}

// Counts is what was seen since the load began.
type Counts struct {
	Sent    int
	Failed  int            // no answer, or a status of 500 and above
	By      map[string]int // good answers by version
	Problem string         // the first failure
}

// Since is what was seen after an earlier look.
func (c Counts) Since(before Counts) Counts {
	d := Counts{Sent: c.Sent - before.Sent, Failed: c.Failed - before.Failed, By: map[string]int{}, Problem: c.Problem}
	for v, n := range c.By {
		if n -= before.By[v]; n > 0 {
			d.By[v] = n
		}
	}
	return d
}

// Share is a version's part of the good answers, between 0 and 1.
func (c Counts) Share(version string) float64 {
	sum := 0
	for _, n := range c.By {
		sum += n
	}
	if sum == 0 {
		return 0
	}
	return float64(c.By[version]) / float64(sum)
}

// Run sends until ctx ends and waits for the last answers.
func (l *Load) Run(ctx context.Context) {
	l.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	tick := time.NewTicker(time.Second / time.Duration(l.Rate))
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			wg.Go(l.send)
		}
	}
}

func (l *Load) send() {
	resp, err := l.client.Get(l.URL)
	version, problem := "", ""
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		version = l.Version(resp)
		if resp.StatusCode >= 500 {
			problem = resp.Status
		}
	}
	if err != nil {
		problem = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last, l.counts.By = map[string]time.Time{}, map[string]int{}
	}
	l.counts.Sent++
	if problem != "" {
		l.counts.Failed++
		if l.counts.Problem == "" {
			l.counts.Problem = problem
		}
		return
	}
	l.counts.By[version]++
	l.last[version] = time.Now()
}

// Seen is what was seen until now.
func (l *Load) Seen() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	c.By = map[string]int{}
	for v, n := range l.counts.By {
		c.By[v] = n
	}
	return c
}

// LastSeen is when a version last answered, in wall time.
func (l *Load) LastSeen(version string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[version]
}
