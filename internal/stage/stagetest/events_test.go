package stagetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/events"
	"serin/internal/memnet"
	"serin/internal/run"
	"serin/internal/stage"
)

var rewrite = flag.Bool("rewrite", false, "regenerate testdata")

const eventsPath = "http://localhost:4566/_serin/events"

// events is all that the stage keeps.
func (w *world) events() []events.Event {
	w.t.Helper()
	return w.page(fmt.Sprint("?after=0&limit=", events.Most)).Events
}

func (w *world) page(query string) (page eventPage) {
	w.t.Helper()
	out, err := w.stage.HTTPClient().Get(eventsPath + query)
	w.must(out, err)
	defer out.Body.Close()
	w.must(nil, json.NewDecoder(out.Body).Decode(&page))
	return page
}

type eventPage struct {
	Events []events.Event
	Last   uint64
}

// detail is what the tests read of an event.
type detail struct {
	EventName, Reason, DeploymentID, HookID, HookType, LifecycleStage, Message string
	TaskARN, LastStatus, DesiredStatus, StopCode                               string
	Version                                                                    int64
	Containers                                                                 []struct{ ExitCode *int32 }
}

func read(t *testing.T, e events.Event) (d detail) {
	t.Helper()
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// story is the events that are not of tasks: kind and name.
func story(t *testing.T, list []events.Event) (out []string) {
	t.Helper()
	for _, e := range list {
		if e.DetailType != "ECS Task State Change" {
			out = append(out, e.DetailType+": "+read(t, e).EventName)
		}
	}
	return out
}

func pausingCanary() *types.DeploymentConfiguration {
	c := canary()
	c.LifecycleHooks = pauseAt(types.DeploymentLifecycleHookStagePreProductionTrafficShift)
	return c
}

// approved lets a deployment go on at each of its two steps.
func (w *world) approved(deployment string) {
	w.t.Helper()
	for range 2 {
		w.must(nil, w.goOn(deployment, *w.paused(deployment).HookId, ""))
	}
	w.ends(deployment, types.ServiceDeploymentStatusSuccessful)
}

func TestACanaryThatPausesIsToldInOrder(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", pausingCanary())
		w.must(nil, err)
		w.approved(first)
		w.until("it is steady", func() bool { return w.said("steady state") })
		before := len(w.events())
		w.approved(w.update("2"))
		w.until("it is steady again", func() bool { return strings.Contains(strings.Join(story(t, w.events()[before:]), " "), "STEADY") })

		list := w.events()
		want := []string{
			"ECS Deployment State Change: SERVICE_DEPLOYMENT_IN_PROGRESS",
			"ECS Hook State Change: HOOK_AWAITING_ACTION",
			"ECS Hook State Change: HOOK_SUCCEEDED",
			"ECS Hook State Change: HOOK_AWAITING_ACTION",
			"ECS Hook State Change: HOOK_SUCCEEDED",
			"ECS Service Action: TASKS_STOPPED",
			"ECS Deployment State Change: SERVICE_DEPLOYMENT_COMPLETED",
			"ECS Service Action: SERVICE_STEADY_STATE",
		}
		if got := story(t, list[before:]); !slices.Equal(got, want) {
			t.Errorf("the second deployment is told as\n%s", strings.Join(got, "\n"))
		}
		lives := map[string][]detail{}
		for _, e := range list {
			if e.DetailType == "ECS Task State Change" {
				d := read(t, e)
				lives[d.TaskARN] = append(lives[d.TaskARN], d)
			}
		}
		if len(lives) != 4 {
			t.Errorf("%d tasks are told of", len(lives))
		}
		for arn, life := range lives {
			var states []string
			for i, d := range life {
				if d.Version != int64(i+1) {
					t.Errorf("task %s: version %d is told at place %d", arn, d.Version, i+1)
				}
				if len(states) == 0 || states[len(states)-1] != d.LastStatus {
					states = append(states, d.LastStatus)
				}
			}
			if !slices.Equal(states[:4], []string{"PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"}) {
				t.Errorf("task %s is told as %v", arn, states)
			}
		}
	})
}

func TestARollbackIsToldWithItsReasons(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		first, err := w.create("1", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyRolling, DeploymentCircuitBreaker: breaker})
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		w.until("it is steady", func() bool { return w.said("steady state") })
		before := len(w.events())
		w.ends(w.update("missing"), types.ServiceDeploymentStatusRollbackSuccessful)
		var deployment, actions []string
		for _, e := range w.events()[before:] {
			switch d := read(t, e); e.DetailType {
			case "ECS Deployment State Change":
				deployment = append(deployment, d.EventName+" "+regexp.MustCompile(`ecs-svc/\d+`).ReplaceAllString(d.Reason, "ID"))
			case "ECS Service Action":
				actions = append(actions, d.EventName+" "+d.Reason)
			}
		}
		if want := []string{
			"SERVICE_DEPLOYMENT_IN_PROGRESS ECS deployment ID in progress.",
			"SERVICE_DEPLOYMENT_FAILED ECS deployment circuit breaker: tasks failed to start.",
			"SERVICE_DEPLOYMENT_IN_PROGRESS ECS deployment circuit breaker: rolling back to deploymentId ID.",
			"SERVICE_DEPLOYMENT_COMPLETED ECS deployment ID completed.",
		}; !slices.Equal(deployment, want) {
			t.Errorf("it is told as\n%s", strings.Join(deployment, "\n"))
		}
		all := strings.Join(actions, "\n")
		if !strings.Contains(all, "SERVICE_TASK_PLACEMENT_FAILURE CannotPullContainerError") || strings.Count(all, "SERVICE_TASK_START_IMPAIRED") != 1 {
			t.Errorf("the actions are\n%s", all)
		}
	})
}

// A crash loop that no health check sees: the breaker never trips, and somebody
// should know why. Not in a bubble: it is never idle, so no time would pass.
func TestTheBreakersBlindSpotIsHintedAtOnce(t *testing.T) {
	w := newWorld(t)
	d, err := w.create("exits", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyRolling, DeploymentCircuitBreaker: breaker})
	w.must(nil, err)
	ended := func() (n int) {
		for _, e := range w.events() {
			if d := read(t, e); d.LastStatus == "STOPPED" && d.StopCode == "EssentialContainerExited" {
				n++
			}
		}
		return n
	}
	w.until("tasks exit", func() bool { return ended() > 3 })
	var hints []events.Event
	for _, e := range w.events() {
		if e.Source == "serin" {
			hints = append(hints, e)
		}
	}
	if len(hints) != 1 {
		t.Fatalf("there are %d hints", len(hints))
	}
	h := read(t, hints[0])
	if hints[0].DetailType != "Serin Hint" || h.EventName != "TASK_EXIT_NOT_COUNTED" || *h.Containers[0].ExitCode != 1 || !slices.Equal(hints[0].Resources, []string{d, h.TaskARN}) ||
		!strings.Contains(h.Message, "(web with exit code 1)") {
		t.Errorf("the hint is %s of %v", hints[0].Detail, hints[0].Resources)
	}
}

// reader reads a stream of events.
type reader struct {
	body  io.ReadCloser
	lines *bufio.Scanner
}

func (w *world) stream(client *http.Client, at, last string) *reader {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, at, nil)
	w.must(nil, err)
	r.Header.Set("Accept", "text/event-stream")
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	out, err := client.Do(r)
	w.must(out, err)
	if got := out.Header.Get("Content-Type"); out.StatusCode != http.StatusOK || got != "text/event-stream" {
		w.t.Fatalf("the stream is %s, %s", out.Status, got)
	}
	lines := bufio.NewScanner(out.Body)
	lines.Buffer(nil, 1<<20)
	return &reader{out.Body, lines}
}

// next is the next event and its number; none when the stream has ended.
func (r *reader) next(t *testing.T) (number string, e events.Event) {
	t.Helper()
	for r.lines.Scan() {
		if n, ok := strings.CutPrefix(r.lines.Text(), "id: "); ok {
			number = n
		}
		if raw, ok := strings.CutPrefix(r.lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(raw), &e); err != nil {
				t.Fatal(err)
			}
			return number, e
		}
	}
	return "", e
}

func TestAStreamOfEventsIsTakenUpWhereItBroke(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		here := w.stage.HTTPClient()
		live := w.stream(here, eventsPath, "")
		defer live.body.Close()
		_, err := w.create("1", nil)
		w.must(nil, err)
		number, first := live.next(t)
		_, second := live.next(t)
		live.body.Close()

		again := w.stream(here, eventsPath+"?after=0", number) // what broke says more than what was asked at first
		defer again.body.Close()
		if _, e := again.next(t); e.ID != second.ID {
			t.Errorf("after %s comes %s, want %s", first.ID, e.ID, second.ID)
		}
		all := w.stream(here, eventsPath+"?after=0", "")
		defer all.body.Close()
		if _, e := all.next(t); e.ID != first.ID {
			t.Errorf("after 0 comes %s, want %s", e.ID, first.ID)
		}
		page := w.page("?limit=1&after=" + number)
		if len(page.Events) != 1 || page.Events[0].ID != second.ID || strconv.FormatUint(page.Last, 10) == number {
			t.Errorf("the page after %s is %+v", number, page)
		}
		if page := w.page("?limit=1"); len(page.Events) != 1 || page.Events[0].ID == first.ID {
			t.Errorf("the newest is %+v", page)
		}
		for _, bad := range []string{"?after=x", "?after=-1", "?limit=0", "?limit=5001", "?limit=x"} {
			out, err := w.stage.HTTPClient().Get(eventsPath + bad)
			w.must(out, err)
			out.Body.Close()
			if out.StatusCode != http.StatusBadRequest {
				t.Errorf("%s gives %s", bad, out.Status)
			}
		}
	})
}

func TestStreamsOfEventsEndWithTheStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		l, err := n.Listen("127.0.0.1:4566")
		if err != nil {
			t.Fatal(err)
		}
		_, _, stop := start(t, l, stage.Config{Endpoint: "127.0.0.1:4566", Speed: 1, Network: n}, run.NewFake())
		w := &world{t: t}
		client := n.Client()
		defer client.CloseIdleConnections()
		idle := w.stream(client, "http://127.0.0.1:4566/_serin/events", "")
		defer idle.body.Close()
		said := make(chan string, 1)
		go func() { n, _ := idle.next(t); said <- n }()
		began := time.Now()
		stop()
		if n := <-said; n != "" {
			t.Errorf("it says event %s", n)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stage took %v to end", took)
		}
	})
}

// inbox is a target of events that can be down.
type inbox struct {
	mu   sync.Mutex
	down bool
	took []events.Event
}

func (i *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var e events.Event
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || i.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	i.took = append(i.took, e)
}

func (i *inbox) set(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// all is what it took so far.
func (i *inbox) all() []events.Event {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.took)
}

func TestEventsThatWereNotDeliveredAreAfterARestart(t *testing.T) {
	box := &inbox{down: true}
	server := httptest.NewServer(box)
	defer server.Close()
	runtime := run.NewFake()
	config := stage.Config{Dir: t.TempDir(), Speed: 600, EventsTo: server.URL + "/events"}
	s, c, stop := Start(t, config, runtime)
	w := worldOf(t, s, c, http.DefaultClient, 5*time.Millisecond, 30*time.Second)
	d, err := w.create("1", nil)
	w.must(nil, err)
	w.ends(d, types.ServiceDeploymentStatusSuccessful)
	if n := len(box.all()); n != 0 {
		t.Errorf("a target that is down took %d events", n)
	}
	stop()
	box.set(false)
	w.stage, c, stop = Start(t, config, runtime)
	defer stop()
	w.ecs = ecs.NewFromConfig(c)
	kept := w.events() // of a service in its steady state; more may follow
	if len(kept) == 0 {
		t.Fatal("there are no events")
	}
	w.until("they are delivered", func() bool { return len(box.all()) >= len(kept) })
	took := box.all()
	for n, e := range kept {
		if took[n].ID != e.ID {
			t.Fatalf("event %d is %s, want %s", n, took[n].ID, e.ID)
		}
	}
	w.must(w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s"), Force: new(true)}))
	w.until("it is gone", func() bool { return *w.service().Status == "INACTIVE" })
}

// nameless is an event in which what differs from run to run is a word.
func nameless(t *testing.T, e events.Event) string {
	t.Helper()
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]string{
		{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, "UUID"},
		{`sha256:[0-9a-f]{64}`, "DIGEST"},
		{`[0-9a-f]{32}`, "TASK"},
		{`ecs-pause-[A-Za-z0-9_-]{43}`, "ecs-pause-ID"},
		{`(service-deployment/default/s/)[A-Za-z0-9_-]{21}`, "${1}ID"},
		{`ecs-svc/\d{19}`, "ecs-svc/ID"},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "SECOND"},
		{`\d{4}-\d\d-\d\dT[0-9:.]+Z`, "TIME"},
		{`127\.89\.\d+\.\d+`, "ADDRESS"},
	} {
		raw = regexp.MustCompile(r[0]).ReplaceAll(raw, []byte(r[1]))
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	return out.String() + "\n"
}

// The forms of one event of each kind are in testdata/events.txt.
func TestEventsHaveTheFormsOfAWS(t *testing.T) {
	w := newWorld(t)
	c := pausingCanary()
	d, err := w.create("1", c)
	w.must(nil, err)
	w.approved(d)
	w.until("it is steady", func() bool { return w.said("steady state") })
	update := w.update("exits")
	w.until("a hint", func() bool {
		list := w.events()
		return list[len(list)-1].Source == "serin" || strings.Contains(fmt.Sprint(story(t, list)), "Serin")
	})
	_, err = w.ecs.StopServiceDeployment(t.Context(), &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &update})
	w.must(nil, err)

	var got strings.Builder
	seen := map[string]bool{}
	for _, e := range w.events() {
		kind, d := e.DetailType, read(t, e)
		if kind == "ECS Task State Change" {
			if d.LastStatus != "RUNNING" || d.DesiredStatus != "RUNNING" {
				continue
			}
		}
		if !seen[kind] {
			seen[kind] = true
			got.WriteString(nameless(t, e))
		}
	}
	const file = "testdata/events.txt"
	if *rewrite {
		w.must(nil, os.MkdirAll("testdata", 0o755))
		w.must(nil, os.WriteFile(file, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	w.must(nil, err)
	if got.String() != string(want) {
		t.Errorf("the events are\n%s", got.String())
	}
}

func TestASlowReaderHoldsNobodyUp(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 50 { // they never read
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, eventsPath+"?follow=true&after=0", nil)
			w.must(nil, err)
			out, err := w.stage.HTTPClient().Do(r)
			w.must(out, err)
			defer out.Body.Close()
		}
		d, err := w.create("1", nil)
		w.must(nil, err)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
	})
}
