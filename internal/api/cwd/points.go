package cwd

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"serin/internal/arn"
	"serin/internal/metric"
)

// How long data points are kept, in stage time: those of seconds as long as
// CloudWatch keeps them, documented; those of minutes as long as it keeps them
// by the minute. It has coarser ones for fifteen months; the stage has not.
const (
	keepFine   = 3 * time.Hour
	keepCoarse = 15 * 24 * time.Hour
	sweepEvery = 15 * time.Minute
)

// most bounds what is kept: a number of a distribution weighs one, a point and
// a metric a few. It is about 200 MB.
const (
	most         = 3_000_000
	pointWeight  = 6
	seriesWeight = 16
)

// datum is what came in of one metric.
type datum struct {
	metric.Datum
	fine    bool // of a resolution of one second
	summary bool // its numbers are not known, only their sum and bounds
}

// points are the data points of all metrics.
type points struct {
	mu     sync.RWMutex
	series map[string]*series
	weight int
	most   int // that it may weigh
	swept  time.Time
}

// series is one metric.
type series struct {
	scope           arn.Scope
	namespace, name string
	dimensions      []metric.Dimension // by name
	units           map[string]*track
	last            time.Time // of its newest data
}

// track is a metric's data of one unit: the seconds are in the minutes, too.
type track struct{ minutes, seconds []point }

type point struct {
	at      int64 // the beginning, in Unix seconds
	set     metric.Set
	summary bool
}

func newPoints() *points { return &points{series: map[string]*series{}, most: most} }

func (p *points) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.series, p.weight = map[string]*series{}, 0
}

func byName(dimensions []metric.Dimension) []metric.Dimension {
	return slices.SortedFunc(slices.Values(dimensions), func(a, b metric.Dimension) int { return cmp.Compare(a.Name, b.Name) })
}

// seriesKey names a metric; no part of it holds a control character.
func seriesKey(scope arn.Scope, namespace, name string, dimensions []metric.Dimension) string {
	var b strings.Builder
	b.WriteString(scope.Key(namespace + "\x00" + name))
	for _, d := range byName(dimensions) {
		b.WriteString("\x00" + d.Name + "\x01" + d.Value)
	}
	return b.String()
}

// add keeps a datum.
func (p *points) add(scope arn.Scope, d datum, now time.Time) {
	if d.Set.Count <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := seriesKey(scope, d.Namespace, d.Name, d.Dimensions)
	s := p.series[key]
	if s == nil {
		s = &series{scope: scope, namespace: d.Namespace, name: d.Name, dimensions: byName(d.Dimensions), units: map[string]*track{}}
		p.series[key] = s
		p.weight += seriesWeight
	}
	unit := cmp.Or(d.Unit, "None")
	t := s.units[unit]
	if t == nil {
		t = &track{}
		s.units[unit] = t
	}
	if d.At.After(s.last) {
		s.last = d.At
	}
	p.put(&t.minutes, d, time.Minute)
	if d.fine {
		p.put(&t.seconds, d, time.Second)
	}
	if now.Sub(p.swept) >= sweepEvery || p.weight > p.most {
		p.sweep(now)
	}
}

// put merges a datum into the point of its time. Most come in order.
func (p *points) put(list *[]point, d datum, resolution time.Duration) {
	at := d.At.Truncate(resolution).Unix()
	i, found := slices.BinarySearchFunc(*list, at, func(have point, at int64) int { return cmp.Compare(have.at, at) })
	if !found {
		*list = slices.Insert(*list, i, point{at: at})
		p.weight += pointWeight
	}
	have := &(*list)[i]
	p.weight -= have.set.Size()
	have.set.Merge(d.Set)
	have.summary = have.summary || d.summary
	p.weight += have.set.Size()
}

// sweep drops what is too old, and the oldest of what is too much.
func (p *points) sweep(now time.Time) {
	p.swept = now
	p.drop(now.Add(-keepCoarse), now.Add(-keepFine))
	for keep := keepCoarse / 2; p.weight > p.most && keep > time.Second; keep /= 2 {
		p.drop(now.Add(-keep), now.Add(-min(keep, keepFine)))
	}
	if p.weight > p.most { // all of it is of now
		p.series, p.weight = map[string]*series{}, 0
	}
}

// drop drops points that began before a time, and metrics that have none left.
func (p *points) drop(minutes, seconds time.Time) {
	for key, s := range p.series {
		for unit, t := range s.units {
			p.cut(&t.minutes, minutes.Unix())
			p.cut(&t.seconds, seconds.Unix())
			if len(t.minutes) == 0 {
				p.cut(&t.seconds, math.MaxInt64) // of a minute that is gone
				delete(s.units, unit)
			}
		}
		if len(s.units) == 0 {
			delete(p.series, key)
			p.weight -= seriesWeight
		}
	}
}

func (p *points) cut(list *[]point, before int64) {
	n := 0
	for n < len(*list) && (*list)[n].at < before {
		p.weight -= pointWeight + (*list)[n].set.Size()
		n++
	}
	if n > 0 {
		*list = slices.Clone((*list)[n:])
	}
}

// span is a stretch of time in periods, from its beginning.
type span struct {
	from, to time.Time
	period   time.Duration
}

// cell is the data of one period.
type cell struct {
	at      time.Time
	set     metric.Set
	summary bool
}

// read gathers a metric's data by period; periods without data are left out.
// Without a unit it is that of all units together.
func (p *points) read(key, unit string, s span) []cell {
	p.mu.RLock()
	defer p.mu.RUnlock()
	found := p.series[key]
	if found == nil {
		return nil
	}
	cells := map[int64]*cell{}
	for have, t := range found.units {
		if unit != "" && unit != have {
			continue
		}
		list := t.minutes
		if s.period%time.Minute != 0 {
			list = t.seconds
		}
		from, _ := slices.BinarySearchFunc(list, s.from.Unix(), func(have point, at int64) int { return cmp.Compare(have.at, at) })
		for _, one := range list[from:] {
			if one.at >= s.to.Unix() {
				break
			}
			n := (one.at - s.from.Unix()) / int64(s.period/time.Second)
			c := cells[n]
			if c == nil {
				c = &cell{at: s.from.Add(time.Duration(n) * s.period).UTC()}
				cells[n] = c
			}
			c.set.Merge(one.set)
			c.summary = c.summary || one.summary
		}
	}
	out := make([]cell, 0, len(cells))
	for _, c := range cells {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b cell) int { return a.at.Compare(b.at) })
	return out
}

// unitsOf is the units that a metric has data of.
func (p *points) unitsOf(key string) (units []string) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if s := p.series[key]; s != nil {
		for unit := range s.units {
			units = append(units, unit)
		}
	}
	slices.Sort(units)
	return units
}

// each calls fn with every metric of a scope.
func (p *points) each(scope arn.Scope, fn func(key string, s *series)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for key, s := range p.series {
		if s.scope == scope {
			fn(key, s)
		}
	}
}
