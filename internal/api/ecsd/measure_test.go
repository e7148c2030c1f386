package ecsd

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/clock"
	"serin/internal/metric"
	"serin/internal/run"
	"serin/internal/store"
)

var here = arn.Scope{Account: "111111111111", Region: "eu-west-1"}

// using is a task that has been started and says what it uses.
type using struct {
	run.Task // nothing else of it is asked
	started  time.Time
	usage    run.Usage
	err      error
	asked    int
}

func (u *using) State() (run.State, <-chan struct{}) {
	return run.State{Containers: []run.ContainerState{{Started: u.started}}}, nil
}

func (u *using) Usage(context.Context) (run.Usage, error) {
	u.asked++
	return u.usage, u.err
}

// newAPI is ECS over rows alone: nothing runs.
func newAPI(t *testing.T) *API {
	t.Helper()
	c, err := clock.New(1)
	if err != nil {
		t.Fatal(err)
	}
	s := store.Ephemeral()
	a := New(s, c, slog.New(slog.DiscardHandler), nil, Deps{})
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return a
}

// tasksOf puts tasks into the rows and into an agent's hands.
func tasksOf(t *testing.T, rows map[string]task, definitions map[string]types.TaskDefinition) (*API, map[string]*using) {
	t.Helper()
	a := newAPI(t)
	tasks, handles := map[string]*using{}, map[string]run.Task{}
	err := a.store.Update(func(tx *store.Tx) error {
		for name, d := range definitions {
			a.definitions.Put(tx, here.Key(name), definition{d})
		}
		for id, row := range rows {
			row.ID = id
			key := here.Key(row.Cluster + "/" + id)
			a.tasks.Put(tx, key, row)
			tasks[id] = &using{started: time.Now()}
			handles[key] = tasks[id]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a.agent.Store(&agent{API: a, handles: handles})
	return a, tasks
}

func lines(t *testing.T, data []metric.Datum, at time.Time) string {
	t.Helper()
	var out []string
	for _, d := range data {
		if d.Namespace != "AWS/ECS" || d.Unit != "Percent" || !d.At.Equal(at) {
			t.Errorf("%+v", d)
		}
		names := ""
		for _, dim := range d.Dimensions {
			names += " " + dim.Name + "=" + dim.Value
		}
		round := func(f float64) float64 { return math.Round(f*1000) / 1000 }
		out = append(out, fmt.Sprintf("%s%s: %g tasks, average %g, %g to %g", d.Name, names, d.Set.Count, round(d.Set.Mean()), round(d.Set.Min), round(d.Set.Max)))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func TestUtilizationIsWhatIsUsedOfWhatIsReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		containers := []types.ContainerDefinition{{Cpu: 256, Memory: new(int32(512)), MemoryReservation: new(int32(64))}, {Cpu: 256, Memory: new(int32(64))}}
		a, tasks := tasksOf(t, map[string]task{
			"1": {Cluster: "c", Service: "web", TaskDefinition: "sized:1", Last: running, LaunchType: types.LaunchTypeEc2},
			"2": {Cluster: "c", Service: "web", TaskDefinition: "sized:1", Last: running, LaunchType: types.LaunchTypeEc2},
			"3": {Cluster: "c", Service: "web", TaskDefinition: "parts:1", Last: running, LaunchType: types.LaunchTypeFargate},
			"4": {Cluster: "c", TaskDefinition: "memory:1", Last: running},
			"5": {Cluster: "c", Service: "old", TaskDefinition: "sized:1", Last: deactivating},
			"6": {Cluster: "d", Service: "mute", TaskDefinition: "sized:1", Last: running},
		}, map[string]types.TaskDefinition{
			"sized:1":  {Cpu: new("1024"), Memory: new("256"), ContainerDefinitions: containers},
			"parts:1":  {ContainerDefinitions: containers},
			"memory:1": {Memory: new("128"), ContainerDefinitions: []types.ContainerDefinition{{}}},
		})
		m := a.Meter()
		time.Sleep(10 * time.Second)
		tasks["1"].usage = run.Usage{CPU: 5 * time.Second, Memory: 128 << 20}
		tasks["2"].usage = run.Usage{CPU: 20 * time.Second, Memory: 64 << 20}
		tasks["3"].usage = run.Usage{Memory: 32 << 20}
		tasks["4"].usage = run.Usage{CPU: time.Second, Memory: 128 << 20}
		tasks["5"].usage = run.Usage{CPU: time.Second, Memory: 128 << 20}
		tasks["6"].err = fmt.Errorf("no answer")
		at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
		// Processors in use: a half, two and none, of 1024, 1024 and 512 units.
		want := `CPUUtilization ClusterName=c ServiceName=web: 3 tasks, average 100, 0 to 200
CPUUtilization ClusterName=c: 2 tasks, average 125, 50 to 200
MemoryUtilization ClusterName=c ServiceName=web: 3 tasks, average 35, 25 to 50
MemoryUtilization ClusterName=c: 3 tasks, average 50, 25 to 100`
		if got := m.Measure(t.Context(), at); lines(t, got[here], at) != want || len(got) != 1 {
			t.Errorf("measured\n%s\nwant\n%s", lines(t, got[here], at), want)
		}
	})
}

func TestUtilizationIsOfTheTimeSinceTheLastReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, tasks := tasksOf(t, map[string]task{"1": {Cluster: "c", Service: "web", TaskDefinition: "d:1", Last: running, LaunchType: types.LaunchTypeFargate}},
			map[string]types.TaskDefinition{"d:1": {Cpu: new("512"), Memory: new("100")}})
		m, one := a.Meter(), tasks["1"]
		cpu := func() (percent float64, asked int) {
			before := one.asked
			for _, d := range m.Measure(t.Context(), time.Now())[here] {
				if d.Name == "CPUUtilization" {
					percent = d.Set.Mean()
				}
			}
			return percent, one.asked - before
		}
		for i, c := range []struct {
			passed, used time.Duration
			want         float64
			asked        int
		}{
			{60 * time.Second, 30 * time.Second, 100, 1}, // since it was started
			{60 * time.Second, 3 * time.Second, 10, 1},
			{100 * time.Millisecond, 100 * time.Millisecond, 10, 0}, // a scaled minute: told again
			{300 * time.Millisecond, 100 * time.Millisecond, 10, 0},
			{600 * time.Millisecond, 0, 40, 1}, // 0.2 of 1 second, half a processor reserved
		} {
			time.Sleep(c.passed)
			one.usage.CPU += c.used
			if got, asked := cpu(); math.Abs(got-c.want) > 1e-6 || asked != c.asked {
				t.Errorf("%d: %v percent, asked %d times; want %v, %d", i, got, asked, c.want, c.asked)
			}
		}
		// One that cannot tell is not told of, and no time of it is lost.
		one.err = fmt.Errorf("busy")
		time.Sleep(time.Second)
		if got, _ := cpu(); got != 0 {
			t.Errorf("one that cannot tell: %v", got)
		}
		one.err, one.usage.CPU = nil, one.usage.CPU+time.Second
		time.Sleep(3 * time.Second)
		if got, _ := cpu(); got != 50 {
			t.Errorf("a second in four of half a processor is %v percent", got)
		}
		err := a.store.Update(func(tx *store.Tx) error {
			a.tasks.Delete(tx, here.Key("c/1"))
			return nil
		})
		if cpu(); err != nil || len(m.last) > 0 {
			t.Errorf("one that is gone is kept: %+v, %v", m.last, err)
		}
	})
}
