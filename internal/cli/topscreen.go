package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// topColumn is a column of the table.
type topColumn struct {
	title string
	drop  int // where there is no room, those with the least go first
	cell  func(topRow) string
	alarm func(topRow) bool // it is a cell to look at
}

// topRow is a line of the table: what does not apply is nil.
type topRow struct {
	name    string
	counts  *topCounts
	seconds float64
	share   *float64
	weight  string
	busy    *int64
	open    *int64
	bytes   *float64
	targets *topTargets
	retried *uint64
}

var topColumns = []topColumn{
	{title: "REQ/S", drop: 15, cell: func(r topRow) string { return r.perSecond(func(c *topCounts) uint64 { return c.Requests }) }},
	{title: "SHARE", drop: 12, cell: func(r topRow) string { return percentText(r.share) }},
	{title: "WEIGHT", drop: 9, cell: func(r topRow) string { return r.weight }},
	{title: "2XX/S", drop: 4, cell: func(r topRow) string { return r.perSecond(func(c *topCounts) uint64 { return c.Codes[2] }) }},
	{title: "3XX/S", drop: 2, cell: func(r topRow) string { return r.perSecond(func(c *topCounts) uint64 { return c.Codes[3] }) }},
	{title: "4XX/S", drop: 7, cell: func(r topRow) string { return r.perSecond(func(c *topCounts) uint64 { return c.Codes[4] }) }},
	{title: "5XX/S", drop: 13, cell: func(r topRow) string { return r.perSecond(func(c *topCounts) uint64 { return c.Codes[5] }) },
		alarm: func(r topRow) bool { return r.counts != nil && r.counts.Codes[5] > 0 }},
	{title: "P50", drop: 8, cell: func(r topRow) string { return r.took(func(t *topTimes) float64 { return t.P50 }) }},
	{title: "P95", drop: 3, cell: func(r topRow) string { return r.took(func(t *topTimes) float64 { return t.P95 }) }},
	{title: "P99", drop: 11, cell: func(r topRow) string { return r.took(func(t *topTimes) float64 { return t.P99 }) }},
	{title: "BUSY", drop: 6, cell: func(r topRow) string { return numberText(r.busy) }},
	{title: "OPEN", drop: 5, cell: func(r topRow) string { return numberText(r.open) }},
	{title: "BYTES/S", drop: 10, cell: topRow.bytesText},
	{title: "HEALTHY", drop: 14, cell: topRow.healthy, alarm: func(r topRow) bool { return r.targets != nil && r.targets.Healthy < r.targets.All }},
	{title: "RETRIED", drop: 1, cell: func(r topRow) string { return numberText(r.retried) }},
}

func (r topRow) perSecond(of func(*topCounts) uint64) string {
	if r.counts == nil {
		return ""
	}
	return rateText(float64(of(r.counts)) / r.seconds)
}

// rateText has about three digits.
func rateText(rate float64) string {
	switch {
	case rate == 0:
		return "0"
	case rate < 9.95:
		return fmt.Sprintf("%.1f", rate)
	case rate < 9999.5:
		return fmt.Sprintf("%.0f", rate)
	}
	return fmt.Sprintf("%.1fk", rate/1000)
}

func percentText(p *float64) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%.1f%%", *p)
}

func numberText[N int64 | uint64](n *N) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

func (r topRow) took(of func(*topTimes) float64) string {
	if r.counts == nil || r.counts.Times == nil {
		return ""
	}
	d := time.Duration(of(r.counts.Times) * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%.0fms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

func (r topRow) bytesText() string {
	if r.bytes == nil {
		return ""
	}
	return units.CustomSize("%.3g%s", *r.bytes, 1000, []string{"B", "kB", "MB", "GB"})
}

func (r topRow) healthy() string {
	if r.targets == nil {
		return ""
	}
	return fmt.Sprintf("%d/%d", r.targets.Healthy, r.targets.All)
}

// weightText is a weight in force, and the one that is wanted where it differs.
func weightText(inForce, wanted float64) string {
	if inForce == wanted {
		return fmt.Sprintf("%.4g%%", inForce)
	}
	return fmt.Sprintf("%.4g→%.4g%%", inForce, wanted)
}

// rows is the view as lines: load balancers down to groups, then services.
func (v *topView) rows() (rows []topRow) {
	add := func(depth int, r topRow) {
		r.name, r.seconds = strings.Repeat("  ", depth)+r.name, v.Seconds
		rows = append(rows, r)
	}
	for i := range v.LoadBalancers {
		lb := &v.LoadBalancers[i]
		add(0, topRow{name: lb.Name + " " + lb.Type, counts: &lb.topCounts, busy: &lb.UnderWay, open: &lb.Open, bytes: &lb.Bytes})
		for i := range lb.Listeners {
			l := &lb.Listeners[i]
			add(1, topRow{name: l.name(), counts: &l.topCounts, busy: &l.UnderWay, open: &l.Open, bytes: &l.Bytes})
			for i := range l.Rules {
				r := &l.Rules[i]
				add(2, topRow{name: "rule " + r.Priority, counts: &r.topCounts})
				for i := range r.Groups {
					g := &r.Groups[i]
					add(3, topRow{name: strings.Join(append([]string{g.Name}, g.Revisions...), " "), counts: &g.topCounts, share: g.Share,
						weight: weightText(g.Weight, g.Wanted), busy: &g.UnderWay, open: g.Open, bytes: g.Bytes, targets: &g.Targets, retried: &g.Retried})
				}
			}
		}
	}
	for _, s := range v.Services {
		add(0, topRow{name: s.name()})
		for i := range s.Revisions {
			r := &s.Revisions[i]
			row := topRow{name: r.name(), counts: &r.topCounts, share: r.Share, busy: &r.UnderWay, targets: &r.Targets}
			if r.Production != nil {
				row.weight = weightText(*r.Production, *r.Production)
			}
			add(1, row)
		}
	}
	return rows
}

func (l topListener) name() string {
	name := fmt.Sprintf("%s:%d", l.Protocol, l.Port)
	if l.Address != "" {
		name += " at " + l.Address
	}
	for _, code := range slices.Sorted(maps.Keys(l.Own)) {
		name += fmt.Sprintf(", own %d: %d", code, l.Own[code])
	}
	if l.Refused > 0 {
		name += fmt.Sprintf(", refused: %d", l.Refused)
	}
	return name
}

func (s topService) name() string {
	name := "service " + s.Cluster + "/" + s.Name
	for _, word := range []string{s.Status, s.Stage} {
		if word != "" {
			name += " " + word
		}
	}
	return name
}

func (r topRevision) name() string {
	words := []string{r.TaskDefinition}
	if r.Role != "" {
		words = append(words, r.Role)
	}
	if r.Test != nil && *r.Test > 0 {
		words = append(words, fmt.Sprintf("test %.4g%%", *r.Test))
	}
	for _, status := range slices.Sorted(maps.Keys(r.Tasks)) {
		words = append(words, fmt.Sprintf("%d %s", r.Tasks[status], status))
	}
	return strings.Join(words, " ")
}

const (
	bold    = "\x1b[1m"
	red     = "\x1b[31m"
	plain   = "\x1b[0m"
	minName = 24 // characters of names before columns are left out
)

// table is the view as lines that are at most so wide; 0 is without limit.
func (v *topView) table(width int, colour bool) []string {
	rows := v.rows()
	columns, widths := fitColumns(rows, width)
	name := len("NAME")
	for _, r := range rows {
		if r.counts != nil {
			name = max(name, utf8.RuneCountInString(r.name))
		}
	}
	if width > 0 {
		name = max(min(name, width-sum(widths)), 1)
	}
	var b strings.Builder
	cell := func(text string, width int, style string) {
		text = strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0)) + text
		if colour && style != "" {
			text = style + text + plain
		}
		b.WriteString(text)
	}
	line := func(text, style string) {
		text = fit(text, name)
		cell(text+strings.Repeat(" ", name-utf8.RuneCountInString(text)), 0, style)
	}
	var lines []string
	line("NAME", bold)
	for i, c := range columns {
		cell(c.title, widths[i], bold)
	}
	for _, r := range rows {
		lines = append(lines, strings.TrimRight(b.String(), " "))
		b.Reset()
		if r.counts == nil { // a heading
			b.WriteString(fit(r.name, width))
			continue
		}
		line(r.name, "")
		for i, c := range columns {
			style := ""
			if c.alarm != nil && c.alarm(r) {
				style = red
			}
			cell(c.cell(r), widths[i], style)
		}
	}
	return append(lines, strings.TrimRight(b.String(), " "))
}

// fitColumns is the columns for which there is room beside the names, and how wide
// they are with the space before them.
func fitColumns(rows []topRow, width int) (columns []topColumn, widths []int) {
	columns = slices.Clone(topColumns)
	for _, c := range columns {
		w := len(c.title)
		for _, r := range rows {
			w = max(w, utf8.RuneCountInString(c.cell(r)))
		}
		widths = append(widths, w+2)
	}
	for width > 0 && len(columns) > 0 && sum(widths)+minName > width {
		least := 0
		for i, c := range columns {
			if c.drop < columns[least].drop {
				least = i
			}
		}
		columns, widths = slices.Delete(columns, least, least+1), slices.Delete(widths, least, least+1)
	}
	return columns, widths
}

func sum(list []int) (n int) {
	for _, more := range list {
		n += more
	}
	return n
}

// fit cuts a text to so many characters; 0 is without limit.
func fit(text string, width int) string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}
