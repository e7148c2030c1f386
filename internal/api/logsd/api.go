// Package logsd is the stage's CloudWatch Logs: groups, streams and their
// events, enough for the awslogs driver and for reading along.
//
// Groups and streams are rows; events go to an append-only file for each
// stream, a line of JSON an event, because there are many of them and none is
// ever changed. Timestamps are stage time in milliseconds.
package logsd

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/store"
	"serin/internal/wire"
)

// API performs CloudWatch Logs' operations.
type API struct {
	store   *store.Store
	clock   *clock.Clock
	dir     string
	groups  *store.Table[group]
	streams *store.Table[stream]
	mu      sync.Mutex // one writer of event files
}

type group struct {
	Name    string
	Created int64
}

type stream struct {
	Group, Name        string
	Created            int64
	First, Last, Taken int64 // timestamps of the first and last event, and of the last ingestion
	Events             int64
	File               string
}

// record is one event in a stream's file.
type record struct {
	Time     int64  `json:"t"`
	Ingested int64  `json:"i"`
	Message  string `json:"m"`
	Sequence int64  `json:"n"`
}

// New adds the tables to the store; events are kept below dir.
func New(s *store.Store, c *clock.Clock, dir string) (*API, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the log directory: %w", err)
	}
	return &API{store: s, clock: c, dir: dir, groups: store.NewTable[group](s, "logs/groups"), streams: store.NewTable[stream](s, "logs/streams")}, nil
}

// Service is CloudWatch Logs on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "logs", Signing: "logs", Protocol: wire.JSON, Target: "Logs_20140328", Version: "2014-03-28",
		Naming:  &wire.Naming{Lower: true},
		Status:  map[string]int{"ServiceUnavailableException": 500},
		Invalid: func(m string) error { return invalid("%s", m) },
		Types:   map[string]wire.Members{"InputLogEvent": {Performed: "message timestamp"}},
	}
	on := func(action string, c *wire.Call, group, stream string) []wire.Check {
		resource, alias := GroupResource(group)
		if stream != "" {
			resource, alias = "log-group:"+group+":log-stream:"+stream, ""
		} else {
			alias = c.ARN(alias)
		}
		return []wire.Check{{Action: "logs:" + action, Resource: c.ARN(resource), Alias: alias, Wild: stream == "*" || group == "*"}}
	}
	s.Register(
		wire.Handle("CreateLogGroup", a.CreateLogGroup, func(c *wire.Call, in *logs.CreateLogGroupInput) []wire.Check {
			return on("CreateLogGroup", c, aws.ToString(in.LogGroupName), "")
		}, wire.Members{Performed: "logGroupName", Refused: "deletionProtectionEnabled kmsKeyId logGroupClass tags"}),
		wire.Handle("DeleteLogGroup", a.DeleteLogGroup, func(c *wire.Call, in *logs.DeleteLogGroupInput) []wire.Check {
			return on("DeleteLogGroup", c, aws.ToString(in.LogGroupName), "")
		}, wire.Members{Performed: "logGroupName"}),
		wire.Handle("DescribeLogGroups", a.DescribeLogGroups, func(c *wire.Call, in *logs.DescribeLogGroupsInput) []wire.Check {
			return on("DescribeLogGroups", c, "*", "")
		}, wire.Members{Performed: "limit logGroupNamePattern logGroupNamePrefix nextToken", Refused: "accountIdentifiers includeLinkedAccounts logGroupClass logGroupIdentifiers"}),
		wire.Handle("CreateLogStream", a.CreateLogStream, func(c *wire.Call, in *logs.CreateLogStreamInput) []wire.Check {
			return on("CreateLogStream", c, aws.ToString(in.LogGroupName), "*")
		}, wire.Members{Performed: "logGroupName logStreamName"}),
		wire.Handle("DescribeLogStreams", a.DescribeLogStreams, func(c *wire.Call, in *logs.DescribeLogStreamsInput) []wire.Check {
			return on("DescribeLogStreams", c, groupName(in.LogGroupName, in.LogGroupIdentifier), "*")
		}, wire.Members{Performed: "descending limit logGroupIdentifier logGroupName logStreamNamePrefix nextToken orderBy"}),
		wire.Handle("PutLogEvents", a.PutLogEvents, func(c *wire.Call, in *logs.PutLogEventsInput) []wire.Check {
			return on("PutLogEvents", c, aws.ToString(in.LogGroupName), aws.ToString(in.LogStreamName))
		}, wire.Members{Performed: "logEvents logGroupName logStreamName", Refused: "entity", Ignored: "sequenceToken"}),
		wire.Handle("GetLogEvents", a.GetLogEvents, func(c *wire.Call, in *logs.GetLogEventsInput) []wire.Check {
			return on("GetLogEvents", c, groupName(in.LogGroupName, in.LogGroupIdentifier), aws.ToString(in.LogStreamName))
		}, wire.Members{Performed: "logStreamName endTime limit logGroupIdentifier logGroupName nextToken startFromHead startTime", Refused: "unmask"}),
		wire.Handle("FilterLogEvents", a.FilterLogEvents, func(c *wire.Call, in *logs.FilterLogEventsInput) []wire.Check {
			return on("FilterLogEvents", c, groupName(in.LogGroupName, in.LogGroupIdentifier), "*")
		}, wire.Members{Performed: "endTime filterPattern limit logGroupIdentifier logGroupName logStreamNamePrefix logStreamNames nextToken startTime", Refused: "unmask startFromHead", Ignored: "interleaved"}),
	)
	return s
}

// GroupResource is what an action on a log group is checked against: observed in
// denials is the group with an empty stream; policies may also name the group
// alone, documented.
func GroupResource(group string) (resource, alias string) {
	return "log-group:" + group + ":log-stream:", "log-group:" + group
}

func invalid(format string, args ...any) error {
	return &types.InvalidParameterException{Message: new(fmt.Sprintf(format, args...))}
}

// groupName is the name in a name or an ARN.
func groupName(name, identifier *string) string {
	n := cmp.Or(aws.ToString(name), aws.ToString(identifier))
	if _, rest, ok := strings.Cut(n, ":log-group:"); ok {
		return strings.TrimSuffix(rest, ":*")
	}
	return n
}

func missingGroup() error {
	return &types.ResourceNotFoundException{Message: new("The specified log group does not exist.")}
}

func missingStream() error {
	return &types.ResourceNotFoundException{Message: new("The specified log stream does not exist.")}
}

var groupPattern = regexp.MustCompile(`^[.\-_/#A-Za-z0-9]{1,512}$`)

// CreateLogGroup makes a group.
func (a *API) CreateLogGroup(ctx context.Context, in *logs.CreateLogGroupInput) (*logs.CreateLogGroupOutput, error) {
	return &logs.CreateLogGroupOutput{}, a.MakeGroup(wire.From(ctx).Scope, aws.ToString(in.LogGroupName))
}

// MakeGroup makes a group, for the awslogs driver too.
func (a *API) MakeGroup(scope arn.Scope, name string) error {
	if !groupPattern.MatchString(name) {
		return invalid("1 validation error detected: Value '%s' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+", name)
	}
	return a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.groups.Get(tx, scope.Key(name)); ok {
			return &types.ResourceAlreadyExistsException{Message: new("The specified log group already exists")}
		}
		a.groups.Put(tx, scope.Key(name), group{name, a.clock.Now().UnixMilli()})
		return nil
	})
}

// HasGroup reports whether a group exists.
func (a *API) HasGroup(scope arn.Scope, name string) (ok bool) {
	a.store.View(func(tx *store.Tx) { _, ok = a.groups.Get(tx, scope.Key(name)) })
	return ok
}

// DeleteLogGroup removes a group with its streams and events.
func (a *API) DeleteLogGroup(ctx context.Context, in *logs.DeleteLogGroupInput) (*logs.DeleteLogGroupOutput, error) {
	scope, name := wire.From(ctx).Scope, aws.ToString(in.LogGroupName)
	var files []string
	err := a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.groups.Get(tx, scope.Key(name)); !ok {
			return missingGroup()
		}
		a.groups.Delete(tx, scope.Key(name))
		for key, s := range a.streams.Scan(tx, streamKey(scope, name, "")) {
			files = append(files, s.File)
			a.streams.Delete(tx, key)
		}
		return nil
	})
	for _, f := range files {
		os.Remove(filepath.Join(a.dir, f))
	}
	return &logs.DeleteLogGroupOutput{}, err
}

func streamKey(scope arn.Scope, group, name string) string { return scope.Key(group) + "|" + name }

// DescribeLogGroups lists groups.
func (a *API) DescribeLogGroups(ctx context.Context, in *logs.DescribeLogGroupsInput) (*logs.DescribeLogGroupsOutput, error) {
	c := wire.From(ctx)
	var list []types.LogGroup
	a.store.View(func(tx *store.Tx) {
		for _, g := range a.groups.Scan(tx, c.Scope.Key("")) {
			if strings.HasPrefix(g.Name, aws.ToString(in.LogGroupNamePrefix)) && strings.Contains(strings.ToLower(g.Name), strings.ToLower(aws.ToString(in.LogGroupNamePattern))) {
				list = append(list, types.LogGroup{
					LogGroupName: new(g.Name), CreationTime: new(g.Created), Arn: new(c.ARN("log-group:" + g.Name + ":*")), LogGroupArn: new(c.ARN("log-group:" + g.Name)),
					LogGroupClass: types.LogGroupClassStandard, MetricFilterCount: new(int32(0)), StoredBytes: new(int64(0)),
				})
			}
		}
	})
	list, next, err := page(list, func(g types.LogGroup) string { return *g.LogGroupName }, in.NextToken, in.Limit)
	return &logs.DescribeLogGroupsOutput{LogGroups: list, NextToken: next}, err
}

func page[T any](items []T, key func(T) string, token *string, limit *int32) ([]T, *string, error) {
	n := 50
	if limit != nil {
		if *limit < 1 || *limit > 50 {
			return nil, nil, invalid("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 50", *limit)
		}
		n = int(*limit)
	}
	items, next, err := wire.Page(items, key, aws.ToString(token), n)
	if err != nil {
		return nil, nil, invalid("The specified nextToken is invalid.")
	}
	if next == "" {
		return items, nil, nil
	}
	return items, &next, nil
}

// CreateLogStream makes a stream.
func (a *API) CreateLogStream(ctx context.Context, in *logs.CreateLogStreamInput) (*logs.CreateLogStreamOutput, error) {
	return &logs.CreateLogStreamOutput{}, a.MakeStream(wire.From(ctx).Scope, aws.ToString(in.LogGroupName), aws.ToString(in.LogStreamName))
}

// MakeStream makes a stream in a group, for the awslogs driver too.
func (a *API) MakeStream(scope arn.Scope, groupName, name string) error {
	if name == "" || len(name) > 512 || strings.ContainsAny(name, ":*") {
		return invalid("1 validation error detected: Value '%s' at 'logStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [^:*]*", name)
	}
	return a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.groups.Get(tx, scope.Key(groupName)); !ok {
			return missingGroup()
		}
		key := streamKey(scope, groupName, name)
		if _, ok := a.streams.Get(tx, key); ok {
			return &types.ResourceAlreadyExistsException{Message: new("The specified log stream already exists")}
		}
		now := a.clock.Now().UnixMilli()
		sum := sha256.Sum256([]byte(key + strconv.FormatInt(now, 10)))
		a.streams.Put(tx, key, stream{Group: groupName, Name: name, Created: now, File: hex.EncodeToString(sum[:16])})
		return nil
	})
}

// DescribeLogStreams lists a group's streams.
func (a *API) DescribeLogStreams(ctx context.Context, in *logs.DescribeLogStreamsInput) (*logs.DescribeLogStreamsOutput, error) {
	c := wire.From(ctx)
	name := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if !a.HasGroup(c.Scope, name) {
		return nil, missingGroup()
	}
	byTime := in.OrderBy == types.OrderByLastEventTime
	if byTime && in.LogStreamNamePrefix != nil {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	var rows []stream
	for _, s := range a.streamsOf(c.Scope, name) {
		if strings.HasPrefix(s.Name, aws.ToString(in.LogStreamNamePrefix)) {
			rows = append(rows, s)
		}
	}
	order := func(s stream) string {
		if byTime {
			return fmt.Sprintf("%020d", s.Last) + s.Name
		}
		return s.Name
	}
	if aws.ToBool(in.Descending) {
		ascending := order
		order = func(s stream) string { return inverted(ascending(s)) }
	}
	rows, next, err := page(rows, order, in.NextToken, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &logs.DescribeLogStreamsOutput{NextToken: next}
	for _, s := range rows {
		v := types.LogStream{LogStreamName: new(s.Name), CreationTime: new(s.Created), Arn: new(c.ARN("log-group:" + name + ":log-stream:" + s.Name))}
		if s.Events > 0 {
			v.FirstEventTimestamp, v.LastEventTimestamp, v.LastIngestionTime = new(s.First), new(s.Last), new(s.Taken)
		}
		out.LogStreams = append(out.LogStreams, v)
	}
	return out, nil
}

// inverted sorts the other way round.
func inverted(s string) string {
	b := []byte(s + "\x00")
	for i := range b {
		b[i] = ^b[i]
	}
	return string(b)
}

func (a *API) streamsOf(scope arn.Scope, group string) (rows []stream) {
	a.store.View(func(tx *store.Tx) {
		for _, s := range a.streams.Scan(tx, streamKey(scope, group, "")) {
			rows = append(rows, s)
		}
	})
	return rows
}

// PutLogEvents appends events to a stream.
func (a *API) PutLogEvents(ctx context.Context, in *logs.PutLogEventsInput) (*logs.PutLogEventsOutput, error) {
	if len(in.LogEvents) == 0 || len(in.LogEvents) > 10_000 {
		return nil, invalid("logEvents must have between 1 and 10000 items, got %d", len(in.LogEvents))
	}
	events := make([]Event, len(in.LogEvents))
	for i, e := range in.LogEvents {
		if e.Timestamp == nil || aws.ToString(e.Message) == "" {
			return nil, invalid("logEvents[%d] must have a timestamp and a message", i)
		}
		if i > 0 && *e.Timestamp < events[i-1].Time {
			return nil, invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
		events[i] = Event{*e.Timestamp, *e.Message}
	}
	return &logs.PutLogEventsOutput{}, a.Append(wire.From(ctx).Scope, aws.ToString(in.LogGroupName), aws.ToString(in.LogStreamName), events)
}

// Event is a message at a time in milliseconds.
type Event struct {
	Time    int64
	Message string
}

// Append writes events to a stream's file and then to its row.
func (a *API) Append(scope arn.Scope, group, name string, events []Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := streamKey(scope, group, name)
	var s stream
	var ok bool
	a.store.View(func(tx *store.Tx) { s, ok = a.streams.Get(tx, key) })
	if !ok {
		if !a.HasGroup(scope, group) {
			return missingGroup()
		}
		return missingStream()
	}
	now := a.clock.Now().UnixMilli()
	var b []byte
	for _, e := range events {
		line, err := json.Marshal(record{e.Time, now, e.Message, s.Events})
		if err != nil {
			return fmt.Errorf("encoding a log event: %w", err)
		}
		b = append(append(b, line...), '\n')
		if s.Events == 0 {
			s.First = e.Time
		}
		s.First, s.Last, s.Taken = min(s.First, e.Time), max(s.Last, e.Time), now
		s.Events++
	}
	f, err := os.OpenFile(filepath.Join(a.dir, s.File), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing log events: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing log events: %w", err)
	}
	return a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.streams.Get(tx, key); ok {
			a.streams.Put(tx, key, s)
		}
		return nil
	})
}

// read returns a stream's events in order of time.
func (a *API) read(s stream, from, to *int64) ([]record, error) {
	f, err := os.Open(filepath.Join(a.dir, s.File))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading log events: %w", err)
	}
	defer f.Close()
	var out []record
	in := bufio.NewScanner(f)
	in.Buffer(nil, 2<<20)
	for in.Scan() {
		var r record
		if json.Unmarshal(in.Bytes(), &r) != nil {
			continue // a line that a crash cut short
		}
		if (from == nil || r.Time >= *from) && (to == nil || r.Time < *to) {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(x, y record) int { return cmp.Compare(x.Time, y.Time) })
	return out, in.Err()
}

// GetLogEvents reads one stream, from its end unless told otherwise. The tokens
// are positions, so that reading forward from the last goes on where it ended.
func (a *API) GetLogEvents(ctx context.Context, in *logs.GetLogEventsInput) (*logs.GetLogEventsOutput, error) {
	c := wire.From(ctx)
	name := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if !a.HasGroup(c.Scope, name) {
		return nil, missingGroup()
	}
	var s stream
	var ok bool
	a.store.View(func(tx *store.Tx) {
		s, ok = a.streams.Get(tx, streamKey(c.Scope, name, aws.ToString(in.LogStreamName)))
	})
	if !ok {
		return nil, missingStream()
	}
	limit := 10_000
	if in.Limit != nil {
		if limit = int(*in.Limit); limit < 1 || limit > 10_000 {
			return nil, invalid("limit must be between 1 and 10000, got %d", limit)
		}
	}
	all, err := a.read(s, in.StartTime, in.EndTime)
	if err != nil {
		return nil, err
	}
	from, to := max(len(all)-limit, 0), len(all)
	if aws.ToBool(in.StartFromHead) {
		from, to = 0, min(limit, len(all))
	}
	if token := aws.ToString(in.NextToken); token != "" {
		direction, position, _ := strings.Cut(token, "/")
		n, err := strconv.Atoi(position)
		if err != nil || n < 0 || direction != "f" && direction != "b" {
			return nil, invalid("The specified nextToken is invalid.")
		}
		n = min(n, len(all))
		from, to = n, min(n+limit, len(all))
		if direction == "b" {
			from, to = max(n-limit, 0), n
		}
	}
	out := &logs.GetLogEventsOutput{NextForwardToken: new(fmt.Sprintf("f/%d", to)), NextBackwardToken: new(fmt.Sprintf("b/%d", from))}
	for _, r := range all[from:to] {
		out.Events = append(out.Events, types.OutputLogEvent{Timestamp: new(r.Time), IngestionTime: new(r.Ingested), Message: new(r.Message)})
	}
	return out, nil
}

// FilterLogEvents reads across a group's streams.
func (a *API) FilterLogEvents(ctx context.Context, in *logs.FilterLogEventsInput) (*logs.FilterLogEventsOutput, error) {
	c := wire.From(ctx)
	name := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if !a.HasGroup(c.Scope, name) {
		return nil, missingGroup()
	}
	terms, err := parsePattern(aws.ToString(in.FilterPattern))
	if err != nil {
		return nil, err
	}
	if in.LogStreamNames != nil && in.LogStreamNamePrefix != nil {
		return nil, invalid("logStreamNamePrefix and logStreamNames cannot both be specified.")
	}
	type found struct {
		record
		stream stream
	}
	var list []found
	for _, s := range a.streamsOf(c.Scope, name) {
		if in.LogStreamNames != nil && !slices.Contains(in.LogStreamNames, s.Name) || !strings.HasPrefix(s.Name, aws.ToString(in.LogStreamNamePrefix)) {
			continue
		}
		records, err := a.read(s, in.StartTime, nil)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if (in.EndTime == nil || r.Time <= *in.EndTime) && !slices.ContainsFunc(terms, func(t string) bool { return !strings.Contains(r.Message, t) }) {
				list = append(list, found{r, s})
			}
		}
	}
	limit := 10_000
	if in.Limit != nil {
		if limit = int(*in.Limit); limit < 1 || limit > 10_000 {
			return nil, invalid("limit must be between 1 and 10000, got %d", limit)
		}
	}
	list, next, err := wire.Page(list, func(f found) string { return fmt.Sprintf("%020d%s%012d", f.Time, f.stream.File, f.Sequence) }, aws.ToString(in.NextToken), limit)
	if err != nil {
		return nil, invalid("The specified nextToken is invalid.")
	}
	out := &logs.FilterLogEventsOutput{}
	if next != "" {
		out.NextToken = &next
	}
	for _, f := range list {
		out.Events = append(out.Events, types.FilteredLogEvent{
			EventId: new(fmt.Sprintf("%s%012d", f.stream.File, f.Sequence)), LogStreamName: new(f.stream.Name),
			Timestamp: new(f.Time), IngestionTime: new(f.Ingested), Message: new(f.Message),
		})
	}
	return out, nil
}

// parsePattern reads the plain kind of pattern: terms that must all occur, in
// quotes where they hold spaces.
func parsePattern(p string) ([]string, error) {
	p = strings.TrimSpace(p)
	if strings.HasPrefix(p, "{") || strings.HasPrefix(p, "[") || strings.HasPrefix(p, "%") || strings.ContainsAny(p, "?") {
		return nil, invalid("filterPattern: Serin performs plain terms; the pattern '%s' is not performed yet", p)
	}
	var terms []string
	for p != "" {
		if rest, ok := strings.CutPrefix(p, `"`); ok {
			term, after, closed := strings.Cut(rest, `"`)
			if !closed {
				return nil, invalid("filterPattern: a quote is not closed in '%s'", p)
			}
			terms, p = append(terms, term), strings.TrimSpace(after)
			continue
		}
		term, after, _ := strings.Cut(p, " ")
		if strings.HasPrefix(term, "-") {
			return nil, invalid("filterPattern: Serin performs plain terms; the exclusion '%s' is not performed yet", term)
		}
		terms, p = append(terms, term), strings.TrimSpace(after)
	}
	return terms, nil
}
