package ecsd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/run"
	"serin/internal/store"
)

// What containers write goes to their log streams as it is written.

// openLogs makes sure that each container's stream can be written, as the
// execution role.
func (g *agent) openLogs(scope arn.Scope, t task, d types.TaskDefinition, role Actor) ([][2]string, error) {
	out := make([][2]string, len(d.ContainerDefinitions))
	for i, c := range d.ContainerDefinitions {
		l := c.LogConfiguration
		if l == nil || l.LogDriver != types.LogDriverAwslogs { // json-file is the runtime's own
			continue
		}
		if pattern := l.Options["awslogs-multiline-pattern"]; pattern != "" {
			if _, err := regexp.Compile(pattern); err != nil {
				return nil, fmt.Errorf("ResourceInitializationError: failed to validate logger args: awslogs could not parse multiline pattern key %q: %w", pattern, err)
			}
		}
		stream := t.ID + "-" + *c.Name // without a prefix ECS names it after the container
		if prefix := l.Options["awslogs-stream-prefix"]; prefix != "" {
			stream = prefix + "/" + *c.Name + "/" + t.ID
		}
		where := arn.Scope{Account: scope.Account, Region: l.Options["awslogs-region"]}
		if err := g.deps.Logs.Open(where, role, l.Options["awslogs-group"], stream, l.Options["awslogs-create-group"] == "true"); err != nil {
			return nil, fmt.Errorf("ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: %w", err)
		}
		out[i] = [2]string{where.Region + "|" + l.Options["awslogs-group"], stream}
	}
	return out, nil
}

// ship moves a task's new output into its log streams. One at a time does so for a
// task, so that no line is moved twice. If it is to be looked at again because an
// event may go on, again is when; wall time.
func (g *agent) ship(key string, h run.Task) (again time.Time) {
	g.mu.Lock()
	one := g.ships[key]
	if one == nil {
		one = &sync.Mutex{}
		g.ships[key] = one
	}
	g.mu.Unlock()
	one.Lock()
	defer one.Unlock()
	var t task
	var d types.TaskDefinition
	scope, _ := arn.ParseKey(key)
	g.store.View(func(tx *store.Tx) {
		t, _ = g.tasks.Get(tx, key)
		d, _ = g.definitionOf(tx, scope, t)
	})
	role := execution(d, scope, t)
	for i, c := range t.Containers {
		if c.LogStream == "" {
			continue
		}
		s := shipping{agent: g, key: key, container: c, task: h, role: role, starts: firstLines(d.ContainerDefinitions[i].LogConfiguration.Options)}
		if err := s.all(); err != nil && !errors.Is(err, context.Canceled) {
			g.log.Warn("a container's output could not be logged", "task", t.ID, "container", c.Name, "err", err)
		}
		if !s.again.IsZero() && (again.IsZero() || s.again.Before(again)) {
			again = s.again
		}
	}
	return again
}

const (
	batchBytes = 1 << 20         // of lines that are moved at once
	eventBytes = 256 << 10       // of an event of several lines, as Docker's driver has it
	flushAfter = 5 * time.Second // wall time that a line waits for more of its event, as Docker's driver has it
)

// shipping is what moves one container's output.
type shipping struct {
	*agent
	key       string
	container container
	task      run.Task
	role      Actor
	starts    *regexp.Regexp // the first line of an event; nil: every line is one

	events []LogEvent
	size   int
	behind int64    // of the last line that is in events
	open   []string // lines of an event that may go on
	line   run.Line // the last of them
	again  time.Time
}

// all moves what there is, a batch at a time.
func (s *shipping) all() error {
	place := s.key + "/" + s.container.Name
	var from offset
	s.store.View(func(tx *store.Tx) { from, _ = s.offsets.Get(tx, place) })
	for {
		s.events, s.size, s.open, s.behind = nil, 0, nil, from.At
		if err := s.task.Logs(s.container.Name, from.At, s.take); err != nil {
			return err
		}
		s.flush()
		if len(s.events) == 0 {
			return nil
		}
		scope, _ := arn.ParseKey(s.key)
		region, group, _ := strings.Cut(s.container.LogGroup, "|")
		if err := s.deps.Logs.Put(arn.Scope{Account: scope.Account, Region: region}, s.role, group, s.container.LogStream, s.events); err != nil {
			return err
		}
		err := s.store.Update(func(tx *store.Tx) error {
			s.offsets.Put(tx, place, offset{s.behind})
			return nil
		})
		if err != nil {
			return err
		}
		if err := s.task.Trim(s.container.Name, s.behind); err != nil {
			return err
		}
		from.At = s.behind
	}
}

// take adds a line, until a batch is full.
func (s *shipping) take(l run.Line) bool {
	if s.starts != nil && (s.starts.MatchString(l.Text) || s.length()+len(l.Text) > eventBytes) {
		s.close()
	}
	s.open, s.line, s.size = append(s.open, l.Text), l, s.size+len(l.Text)
	if s.starts == nil {
		s.close()
	}
	return s.size < batchBytes
}

func (s *shipping) length() (n int) {
	for _, l := range s.open {
		n += len(l) + 1
	}
	return n
}

// close makes an event of the lines that are together.
func (s *shipping) close() {
	if len(s.open) > 0 {
		s.events = append(s.events, LogEvent{s.clock.Now(), strings.Join(s.open, "\n")})
		s.open, s.behind = nil, s.line.Behind
	}
}

// flush closes the last event, unless more of it may come soon: then it is looked at
// again.
func (s *shipping) flush() {
	if len(s.open) == 0 || len(s.events) > 0 && s.size >= batchBytes { // the next batch reads it again, whole
		return
	}
	st, _ := s.task.State()
	i := slices.IndexFunc(st.Containers, func(c run.ContainerState) bool { return c.Name == s.container.Name })
	until := s.line.At.Add(flushAfter)
	if !time.Now().Before(until) || st.Ended || !st.Containers[i].Runs() || len(s.events) == 0 && s.size >= batchBytes {
		s.close()
		return
	}
	s.again = until
}

// firstLines is how the first line of an event of several lines is told; nil: every
// line is an event.
func firstLines(options map[string]string) *regexp.Regexp {
	pattern := options["awslogs-multiline-pattern"]
	if format := options["awslogs-datetime-format"]; format != "" {
		pattern = dateTimePattern(format)
	}
	if pattern == "" {
		return nil
	}
	return regexp.MustCompile(pattern) // openLogs has tried it
}

// dateTimeWords are strftime's, as Docker's awslogs driver reads them, documented:
// https://docs.docker.com/engine/logging/drivers/awslogs/#awslogs-datetime-format
var dateTimeWords = map[byte]string{
	'A': `(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)`, 'a': `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)`,
	'B': `(?:January|February|March|April|May|June|July|August|September|October|November|December)`, 'b': `(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)`,
	'c': `.{24}`, 'd': `\d{2}`, 'f': `\d{1,6}`, 'H': `\d{2}`, 'I': `\d{2}`, 'j': `\d{3}`, 'L': `\.\d{3}`, 'M': `\d{2}`, 'm': `\d{2}`, 'p': `[AP]M`, 'S': `\d{2}`,
	'U': `\d{2}`, 'W': `\d{2}`, 'w': `\d`, 'x': `\d{2}/\d{2}/\d{2}`, 'X': `\d{2}:\d{2}:\d{2}`, 'Y': `\d{4}`, 'y': `\d{2}`, 'Z': `[A-Z]{1,4}T`, 'z': `[+-]\d{4}`, '%': `%`,
}

// dateTimePattern is a format as a regular expression.
func dateTimePattern(format string) string {
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		word, known := "", false
		if format[i] == '%' && i+1 < len(format) {
			word, known = dateTimeWords[format[i+1]]
		}
		if known {
			out.WriteString(word)
			i++
			continue
		}
		out.WriteString(regexp.QuoteMeta(format[i : i+1]))
	}
	return out.String()
}
