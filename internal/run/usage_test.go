//go:build linux

package run

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

func TestATaskSaysWhatItUses(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		idle := start(t, r, "idle", image, nil)
		get(t, idle)
		began := time.Now()
		busy := start(t, r, "busy", image, func(c *Container) { c.Command = []string{"busy"} })
		var last Usage
		// Its limit is half a processor, which the others here use, too.
		for last.CPU < 150*time.Millisecond || last.Memory < 64<<20 {
			u, err := busy.Usage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if u.CPU < last.CPU || u.Memory > 256<<20 {
				t.Fatalf("after %+v it says %+v", last, u)
			}
			if last = u; time.Since(began) > patience {
				t.Fatalf("it stays at %+v", u)
			}
		}
		if most := time.Since(began) + 500*time.Millisecond; last.CPU > most {
			t.Errorf("one busy thread used %v in less than %v", last.CPU, most)
		}
		if last.System < last.CPU || last.CPUs < 1 {
			t.Errorf("of the machine it says %v, %d processors", last.System, last.CPUs)
		}
		u, err := idle.Usage(t.Context())
		if err != nil || u.CPU <= 0 || u.CPU > last.CPU || u.Memory < 128<<10 || u.Memory > 32<<20 {
			t.Errorf("an idle task uses %+v, %v", u, err)
		}
		cut, cancel := context.WithCancel(t.Context())
		cancel()
		if u, err := busy.Usage(cut); err == nil {
			t.Errorf("nobody waits for it, and it says %+v", u)
		}
		end(t, busy)
		if u, err := busy.Usage(t.Context()); err == nil {
			t.Errorf("it has ended and says %+v", u)
		}
	})
}

func TestProcessesCountWhetherTheyLiveOrWereWaitedFor(t *testing.T) {
	child := exec.Command("/proc/self/exe", "-test.run=^$")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	before := ofProcesses(nil)
	if before.CPU <= 0 || before.Memory != 0 {
		t.Errorf("one that was waited for used %+v", before)
	}
	alive := exec.Command("sleep", "60")
	if err := alive.Start(); err != nil {
		t.Fatal(err)
	}
	defer alive.Wait()
	defer alive.Process.Kill()
	if now := ofProcesses(nil); now.CPU < before.CPU || now.Memory <= 0 || now.Memory > 16<<20 {
		t.Errorf("with one that lives: %+v", now)
	}
}

// A daemon that has three containers of a task: one runs, one has ended, one is
// removed.
func TestTheDaemonIsAskedForWhatRuns(t *testing.T) {
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("one-shot") != "true" || r.URL.Query().Get("stream") != "false":
			w.WriteHeader(http.StatusBadRequest)
		case strings.HasSuffix(r.URL.Path, "/containers/runs/stats"):
			fmt.Fprint(w, `{"cpu_stats":{"cpu_usage":{"total_usage":1500000000}},"memory_stats":{"usage":5000,"stats":{"inactive_file":1000}}}`)
		case strings.HasSuffix(r.URL.Path, "/containers/removed/stats"):
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"No such container"}`)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer daemon.Close()
	api, err := client.New(client.WithHost(strings.Replace(daemon.URL, "http:", "tcp:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	task := &dockerTask{runtime: &Docker{api: api}, ids: []string{"runs", "ended", "removed"}, state: State{Containers: []ContainerState{{Name: "a", Started: time.Now()}, {Name: "b", Started: time.Now(), Finished: time.Now()}, {Name: "c", Started: time.Now()}}}}
	u, err := task.Usage(t.Context())
	if err != nil || u.CPU != 1500*time.Millisecond || u.Memory != 4000 || u.Containers["a"].Memory != 4000 {
		t.Errorf("it uses %+v, %v", u, err)
	}
	task.ids[0] = "broken"
	if _, err := task.Usage(t.Context()); err == nil {
		t.Error("a daemon that cannot tell was believed")
	}
	if old := withoutFiles(10, map[string]uint64{"inactive_file": 1, "total_inactive_file": 4}); old != 6 {
		t.Errorf("with the hierarchies of old it is %d", old)
	}
}

// The daemon is stopped and started again while a container runs.
func TestADaemonThatGoesAwayIsWaitedFor(t *testing.T) {
	var looks atomic.Int32
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/wait") && looks.Load() < 2:
			w.WriteHeader(http.StatusInternalServerError) // as it goes
		case strings.HasSuffix(r.URL.Path, "/wait"):
			fmt.Fprint(w, `{"StatusCode": 5}`)
		case strings.HasSuffix(r.URL.Path, "/json"):
			switch looks.Add(1) {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2: // it is back, and the container has gone on
				fmt.Fprint(w, `{"State": {"Running": true, "StartedAt": "2026-01-01T00:00:00Z"}}`)
			default:
				fmt.Fprint(w, `{"State": {"Running": false, "ExitCode": 5, "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "2026-01-01T00:00:01Z"}}`)
			}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer daemon.Close()
	api, err := client.New(client.WithHost(strings.Replace(daemon.URL, "http:", "tcp:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	task := &dockerTask{runtime: &Docker{api: api, tasks: map[string]*dockerTask{}, log: slog.New(slog.DiscardHandler)}, spec: Spec{ID: "a", Containers: []Container{{Name: "main"}}}, ids: []string{"one"},
		state: State{Containers: []ContainerState{{Name: "main", Starts: 1, Started: time.Now()}}}, changed: make(chan struct{})}
	task.runtime.adopt(task)
	defer task.let()
	if c := idle(t, task).Containers[0]; c.ExitCode != 5 || looks.Load() != 3 {
		t.Errorf("it ended as %+v after %d looks", c, looks.Load())
	}
}
