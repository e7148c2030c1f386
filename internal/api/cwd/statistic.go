package cwd

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"serin/internal/metric"
)

// statistic is what is asked of the numbers of a period. Names and meanings
// documented:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html
type statistic struct {
	name    string
	kind    string // one of the five, or p, TM, TC, TS, WM, PR
	low     bound
	high    bound
	percent bool // the bounds are percentiles, not values
}

// bound is where numbers are cut off, if anywhere.
type bound struct {
	at  float64
	set bool
}

func plainStatistic(s string) bool {
	return slices.Contains(types.Statistic("").Values(), types.Statistic(s))
}

var (
	percentile = regexp.MustCompile(`^p(\d{1,3}(?:\.\d{1,10})?)$`)
	trimmed    = regexp.MustCompile(`^(tm|tc|ts|wm)(\d{1,2}(?:\.\d{1,10})?)$`)
	between    = regexp.MustCompile(`^(TM|TC|TS|WM|PR)\((\d*\.?\d*)(%?):(\d*\.?\d*)(%?)\)$`)
)

// parseStatistic reads the name of a statistic.
func parseStatistic(s string) (statistic, bool) {
	if plainStatistic(s) {
		return statistic{name: s, kind: s}, true
	}
	if s == "IQM" {
		return statistic{name: s, kind: "TM", low: bound{25, true}, high: bound{75, true}, percent: true}, true
	}
	if m := percentile.FindStringSubmatch(s); m != nil {
		f, err := strconv.ParseFloat(m[1], 64)
		return statistic{name: s, kind: "p", high: bound{f, true}}, err == nil && f <= 100
	}
	if m := trimmed.FindStringSubmatch(s); m != nil {
		f, err := strconv.ParseFloat(m[2], 64)
		return statistic{name: s, kind: strings.ToUpper(m[1]), low: bound{0, true}, high: bound{f, true}, percent: true}, err == nil
	}
	m := between.FindStringSubmatch(s)
	if m == nil || m[2] == "" && m[4] == "" {
		return statistic{}, false
	}
	out := statistic{name: s, kind: m[1], percent: m[3] == "%" || m[5] == "%"}
	for i, b := range []*bound{&out.low, &out.high} {
		text, sign := m[2+2*i], m[3+2*i]
		if text == "" {
			if sign != "" {
				return statistic{}, false
			}
			continue
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || out.percent != (sign == "%") || out.percent && f > 100 {
			return statistic{}, false
		}
		*b = bound{f, true}
	}
	return out, (out.kind != "PR" || !out.percent) && (!out.low.set || !out.high.set || out.low.at < out.high.at)
}

// of computes the statistic. Of data of which only the bounds are known there
// is none but the five plain ones, documented.
func (s statistic) of(c cell) (float64, bool) {
	switch s.kind {
	case "SampleCount":
		return c.set.Count, true
	case "Sum":
		return c.set.Sum, true
	case "Average":
		return c.set.Mean(), true
	case "Minimum":
		return c.set.Min, true
	case "Maximum":
		return c.set.Max, true
	}
	if c.summary || c.set.Count <= 0 {
		return 0, false
	}
	if s.kind == "p" {
		return c.set.Percentile(s.high.at), true
	}
	count, sum := s.inside(c.set)
	switch s.kind {
	case "TC":
		return count, true
	case "TS":
		return sum, true
	case "PR":
		return count / c.set.Count * 100, true
	case "WM":
		return s.winsorized(c.set), true
	}
	return sum / count, count > 0
}

// inside is how many numbers are between the bounds, and their sum. A bound of
// values takes in the upper one and not the lower; one of percentiles may cut
// through equal numbers.
func (s statistic) inside(set metric.Set) (count, sum float64) {
	from, to := 0.0, set.Count
	if s.percent {
		if s.low.set {
			from = s.low.at / 100 * set.Count
		}
		if s.high.set {
			to = s.high.at / 100 * set.Count
		}
	}
	rank := 0.0
	for value, n := range set.Each {
		part := min(rank+n, to) - max(rank, from)
		rank += n
		if !s.percent && (s.low.set && value <= s.low.at || s.high.set && value > s.high.at) {
			continue
		}
		if part > 0 {
			count, sum = count+part, sum+part*value
		}
	}
	return count, sum
}

// winsorized is the mean when what is beyond a bound is taken for the bound.
func (s statistic) winsorized(set metric.Set) float64 {
	low, high := math.Inf(-1), math.Inf(1)
	if s.low.set {
		if low = s.low.at; s.percent {
			low = set.Percentile(s.low.at)
		}
	}
	if s.high.set {
		if high = s.high.at; s.percent {
			high = set.Percentile(s.high.at)
		}
	}
	sum := 0.0
	for value, n := range set.Each {
		sum += n * min(max(value, low), high)
	}
	return sum / set.Count
}

// enough is how many samples make a percentile significant, documented.
func (s statistic) enough() float64 {
	p := s.high.at / 100
	switch {
	case s.kind != "p" || p <= 0 || p >= 1:
		return 0
	case p >= 0.5:
		return 10 / (1 - p)
	}
	return 10 / p
}
