package stage

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"serin/internal/metric"
)

// The text format of Prometheus, version 0.0.4, which is all that is needed of it;
// its own library would be a sixteenth of the program:
// https://prometheus.io/docs/instrumenting/exposition_formats/
const expositionType = "text/plain; version=0.0.4; charset=utf-8"

// series is a metric family.
type series struct {
	name, help string
	labels     []string
}

func describe(name, help string, labels []string, more ...string) *series {
	return &series{"serin_" + name, help, append(labels[:len(labels):len(labels)], more...)}
}

// pour collects samples by their series.
type pour map[*series]*samples

type samples struct {
	kind string
	list []sample
}

// sample is the lines of one set of labels.
type sample struct{ labels, lines string }

func (p pour) count(s *series, n uint64, labels []string, more ...string) {
	p.add(s, "counter", float64(n), labels, more)
}

func (p pour) level(s *series, n float64, labels []string, more ...string) {
	p.add(s, "gauge", n, labels, more)
}

func (p pour) add(s *series, kind string, n float64, labels, more []string) {
	of := s.with(append(labels[:len(labels):len(labels)], more...))
	p.put(s, kind, sample{of, s.name + "{" + of + "} " + number(n) + "\n"})
}

// times is a histogram with the bounds.
func (p pour) times(s *series, c *metric.Counts, bounds []time.Duration, labels []string) {
	of := s.with(labels)
	var lines strings.Builder
	bucket := func(le string, n uint64) {
		lines.WriteString(s.name + "_bucket{" + of + `,le="` + le + `"} ` + strconv.FormatUint(n, 10) + "\n")
	}
	for i, n := range c.AtMost(bounds) {
		bucket(number(bounds[i].Seconds()), n)
	}
	bucket("+Inf", c.Count())
	lines.WriteString(s.name + "_sum{" + of + "} " + number(c.Sum.Seconds()) + "\n" + s.name + "_count{" + of + "} " + strconv.FormatUint(c.Count(), 10) + "\n")
	p.put(s, "histogram", sample{of, lines.String()})
}

func (p pour) put(s *series, kind string, one sample) {
	if p[s] == nil {
		p[s] = &samples{kind: kind}
	}
	p[s].list = append(p[s].list, one)
}

// with is the series' labels with their values.
func (s *series) with(values []string) string {
	var b strings.Builder
	for i, name := range s.labels {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name + `="` + labelEscapes.Replace(strings.ToValidUTF8(values[i], "\uFFFD")) + `"`)
	}
	return b.String()
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func number(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }

// write writes what was collected, in the same order each time.
func (p pour) write(to io.Writer) error {
	var b strings.Builder
	all := make([]*series, 0, len(p))
	for s := range p {
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y *series) int { return cmp.Compare(x.name, y.name) })
	for _, s := range all {
		b.WriteString("# HELP " + s.name + " " + s.help + "\n# TYPE " + s.name + " " + p[s].kind + "\n")
		slices.SortFunc(p[s].list, func(x, y sample) int { return cmp.Compare(x.labels, y.labels) })
		for _, one := range p[s].list {
			b.WriteString(one.lines)
		}
	}
	_, err := io.WriteString(to, b.String())
	return err
}
