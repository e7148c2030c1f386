//go:build linux

package run

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

var program []byte

func TestMain(m *testing.M) {
	Reexec()
	dir, err := os.MkdirTemp("", "serin-run")
	if err == nil {
		build := exec.Command("go", "build", "-o", dir+"/app", "./testdata/app")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err = build.Run(); err == nil {
			program, err = os.ReadFile(dir + "/app")
		}
	}
	os.RemoveAll(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "building the test program:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// push makes an image of the test program in a registry and returns its name.
func push(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, d := range []string{"etc/", "srv/"} {
			w.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755})
		}
		w.WriteHeader(&tar.Header{Name: "etc/passwd", Mode: 0o644, Size: 17})
		w.Write([]byte("joe:x:77:78::/:/\n"))
		w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(program))})
		w.Write(program)
		w.Close()
		return io.NopCloser(&b), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"serve"}, WorkingDir: "/srv", Env: []string{"GREETING=image"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	ref := strings.TrimPrefix(server.URL, "http://") + "/app:1"
	parsed, _ := name.ParseReference(ref)
	if err := remote.Write(parsed, image); err != nil {
		t.Fatal(err)
	}
	return ref
}

// each runs a test on every runtime that this machine can have.
func each(t *testing.T, fn func(t *testing.T, r Runtime, image string)) {
	ref := push(t)
	for _, name := range []string{"native", "confined", "docker"} {
		t.Run(name, func(t *testing.T) {
			if name == "native" && os.Geteuid() != 0 {
				t.Skip("native needs root")
			}
			dir, err := os.MkdirTemp("/tmp", "serin")
			if err != nil {
				t.Fatal(err)
			}
			r, _, err := Choose(t.Context(), name, Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
			if err != nil && name == "docker" {
				t.Skip("no Docker daemon answers here: ", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				tasks, _ := r.Tasks(context.Background())
				for _, task := range tasks {
					end(t, task)
					task.Remove(context.Background())
				}
				r.Close()
				os.RemoveAll(dir)
			})
			image, err := r.Pull(t.Context(), ref, Auth{})
			if err != nil {
				t.Fatal(err)
			}
			fn(t, r, image.Ref)
		})
	}
}

func start(t *testing.T, r Runtime, id, image string, change func(*Container)) Task {
	t.Helper()
	c := Container{Name: "main", Image: image, StopTimeout: 300 * time.Millisecond}
	if change != nil {
		change(&c)
	}
	task, err := r.Start(t.Context(), Spec{ID: id, Labels: map[string]string{"l": "v"}, Containers: []Container{c}, Memory: 256 << 20, CPU: 512})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func end(t testing.TB, task Task) State {
	t.Helper()
	task.Stop(context.Background())
	return ended(t, task)
}

func ended(t testing.TB, task Task) State {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		st, changed := task.State()
		if st.Ended {
			return st
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("task %s did not end: %+v", task.ID(), st)
		}
	}
}

func get(t testing.TB, task Task) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 100 * time.Millisecond}
	var last error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		resp, err := client.Get(fmt.Sprintf("http://%s:8080/", task.Address()))
		if last = err; err == nil {
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return string(b)
		}
		if st, _ := task.State(); st.Ended {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	said := ""
	task.Logs("main", 0, func(_ time.Time, line string) { said += line + "\n" })
	t.Fatalf("no answer at %v: %v\n%s", task.Address(), last, said)
	return ""
}

func TestTasksListenOnOnePortAtAddressesOfTheirOwn(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		a := start(t, r, "a", image, nil)
		b := start(t, r, "b", image, func(c *Container) { c.Env = []string{"GREETING=mine"}; c.Workdir = "/etc" })
		if a.Address() == b.Address() || !a.Address().IsValid() {
			t.Errorf("addresses %v and %v", a.Address(), b.Address())
		}
		if got := get(t, a); !strings.HasPrefix(got, "image ") || !strings.HasSuffix(got, "/srv") {
			t.Errorf("a said %q", got)
		}
		if got := get(t, b); !strings.HasPrefix(got, "mine ") || !strings.HasSuffix(got, "/etc") {
			t.Errorf("b said %q", got)
		}
		st := end(t, a)
		// As process 1 a Go program cannot die of the signal: its runtime exits with 2, as in Docker.
		if c := st.Containers[0]; c.ExitCode != 143 && c.ExitCode != 2 || c.Finished.IsZero() {
			t.Errorf("after SIGTERM: %+v", c)
		}
		get(t, b) // is not disturbed
	})
}

func TestACommandRunsInAContainer(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, func(c *Container) { c.Env = []string{"GREETING=mine"} })
		get(t, task)
		var out bytes.Buffer
		code, err := task.Exec(t.Context(), "main", []string{"/app", "where", task.Address().String()}, &out)
		sees := r.Name() != "confined" || os.Geteuid() == 0
		if want := fmt.Sprintf("mine /srv 0 %v\n", sees); err != nil || code != 5 || out.String() != want {
			t.Errorf("it ended with %d, %v and said %q, want 5 and %q", code, err, out.String(), want)
		}
		// What there is not, is said; what is cut off, ends.
		if _, err := task.Exec(t.Context(), "other", []string{"/app"}, io.Discard); err == nil || !strings.Contains(err.Error(), "no container other") {
			t.Errorf("in a container that is not there: %v", err)
		}
		code, err = task.Exec(t.Context(), "main", []string{"/none"}, io.Discard)
		if err == nil && code == 0 { // Docker tells it by the code alone
			t.Error("a program that is not there ran")
		}
		ctx, cancel := context.WithCancel(t.Context())
		said := make(chan struct{})
		go func() { <-said; cancel() }()
		if _, err := task.Exec(ctx, "main", []string{"/app", "sleep"}, onWrite(func() { close(said) })); !errors.Is(err, context.Canceled) {
			t.Errorf("a command that was cut off: %v", err)
		}
		get(t, task) // is not disturbed
		end(t, task)
		if _, err := task.Exec(t.Context(), "main", []string{"/app", "exit"}, io.Discard); err == nil {
			t.Error("a command ran in a task that has ended")
		}
	})
}

type onWrite func()

func (f onWrite) Write(b []byte) (int, error) { f(); return len(b), nil }

func TestOutputAndExitCodeAreKept(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, func(c *Container) { c.Command = []string{"exit"} })
		if c := ended(t, task).Containers[0]; c.ExitCode != 7 || c.Started.IsZero() {
			t.Errorf("ended as %+v", c)
		}
		var lines []string
		offset, err := task.Logs("main", 0, func(at time.Time, s string) {
			if time.Since(at) > time.Minute {
				t.Errorf("a line of %v", at)
			}
			lines = append(lines, s)
		})
		want := "[one two three, unfinished]"
		if r.Name() == "docker" { // it keeps two streams, whose lines may cross
			slices.Sort(lines)
			want = "[one three, unfinished two]"
		}
		if err != nil || fmt.Sprint(lines) != want {
			t.Errorf("logged %q, %v", lines, err)
		}
		if again, _ := task.Logs("main", offset, func(time.Time, string) { t.Error("a line came twice") }); again != offset {
			t.Errorf("offset went from %d to %d", offset, again)
		}
		if err := task.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAStubbornTaskIsKilled(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, func(c *Container) { c.Command = []string{"stubborn"} })
		for said := false; !said; {
			_, changed := task.State()
			task.Logs("main", 0, func(_ time.Time, s string) { said = s == "ready" })
			if !said {
				<-changed
			}
		}
		if err := task.Remove(t.Context()); err == nil {
			t.Error("a running task was removed")
		}
		if c := end(t, task).Containers[0]; c.ExitCode != 137 {
			t.Errorf("ended as %+v", c)
		}
	})
}

func TestWhatCannotStartSaysWhy(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		_, err := r.Start(t.Context(), Spec{ID: "x", Containers: []Container{{Name: "main", Image: image, Entrypoint: []string{"nothing-there"}}}})
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind != CannotStart || !strings.Contains(err.Error(), "executable file not found") {
			t.Errorf("a missing program gave %v", err)
		}
		if _, err = r.Pull(t.Context(), "127.0.0.1:1/none:1", Auth{}); err == nil || !strings.HasPrefix(err.Error(), "CannotPullContainerError: ") {
			t.Errorf("a missing registry gave %v", err)
		}
		start(t, r, "y", image, nil)
		if _, err = r.Start(t.Context(), Spec{ID: "y", Containers: []Container{{Name: "main", Image: image}}}); !errors.Is(err, ErrExists) {
			t.Errorf("a second task of one id gave %v", err)
		}
	})
}

func TestATaskOutlivesItsStarterAndIsFoundAgain(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, nil)
		gone := start(t, r, "b", image, nil)
		get(t, task)
		first, local := r.(*Local)
		if !local {
			foundAgain(t, r.(*Docker), task, gone)
			return
		}
		first.Close()
		second, err := newLocal(first.mode, Config{Dir: first.dir, Log: first.log})
		if err != nil {
			t.Fatal(err)
		}
		second.net = first.net
		// The second one's shim dies while nobody looks.
		killShim(t, filepath.Join(first.dir, "tasks", "b"))
		found, err := second.Tasks(t.Context())
		if err != nil || len(found) != 2 {
			t.Fatalf("found %v, %v", found, err)
		}
		if found[0].ID() != "a" || found[0].Labels()["l"] != "v" {
			t.Errorf("found %s %v", found[0].ID(), found[0].Labels())
		}
		for {
			st, changed := found[0].State()
			if st.Running() {
				break
			}
			<-changed
		}
		if found[0].Address() != task.Address() {
			t.Errorf("its address was %v and is %v", task.Address(), found[0].Address())
		}
		get(t, found[0])
		end(t, found[0])
		if st, _ := found[1].State(); !st.Ended || st.Containers[0].ExitCode != 137 {
			t.Errorf("a task whose shim died is %+v", st)
		}
		if _, err := http.Get(fmt.Sprintf("http://%s:8080/", gone.Address())); err == nil {
			t.Error("a task whose shim died still answers")
		}
		for _, f := range found {
			if err := f.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := second.Close(); err != nil { // the last one takes the bridge with it
			t.Error(err)
		}
	})
}

// foundAgain is the same story where the daemon keeps the tasks.
func foundAgain(t *testing.T, d *Docker, tasks ...Task) {
	d.mu.Lock()
	d.tasks = map[string]*dockerTask{} // as a new program knows none
	d.mu.Unlock()
	end(t, tasks[1])
	found, err := d.Tasks(t.Context())
	if err != nil || len(found) != 2 {
		t.Fatalf("found %v, %v", found, err)
	}
	for _, f := range found {
		st, _ := f.State()
		if f.Labels()["l"] != "v" || st.Ended != (f.ID() == "b") {
			t.Errorf("found %s %v %+v", f.ID(), f.Labels(), st)
		}
		if f.ID() == "a" {
			get(t, f)
			continue
		}
		// Its containers are removed between the daemon's list and the look at them.
		listed := &dockerTask{runtime: d, spec: f.(*dockerTask).spec, ids: f.(*dockerTask).ids}
		if err := f.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := listed.locate(t.Context()); !errors.Is(err, errGone) || !listed.state.Ended {
			t.Errorf("a task that is gone is found with %v, %+v", err, listed.state)
		}
	}
}

func TestAnArchiveStaysInItsDirectory(t *testing.T) {
	outside := t.TempDir()
	inside := filepath.Join(outside, "root")
	os.Mkdir(inside, 0o755)
	for name, entries := range map[string][]tar.Header{
		"dots":              {{Name: "../../escaped", Mode: 0o644}},
		"through a link":    {{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "out/escaped", Mode: 0o644}},
		"an absolute link":  {{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "abs/escaped", Mode: 0o644}},
		"a hard link to it": {{Name: "hard", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			w.WriteHeader(&h)
		}
		w.Close()
		err := untar(&b, inside)
		if _, escaped := os.Stat(filepath.Join(outside, "escaped")); escaped == nil {
			t.Errorf("%s: a file was written outside (%v)", name, err)
		}
	}
}

func killShim(t *testing.T, dir string) {
	t.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		line, _ := os.ReadFile(p)
		if strings.HasSuffix(strings.TrimRight(string(line), "\x00"), "serin-shim\x00"+dir) {
			var pid int
			fmt.Sscanf(p, "/proc/%d/", &pid)
			proc, _ := os.FindProcess(pid)
			proc.Kill()
			for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				if _, err := os.Stat(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil {
					return
				}
				if b, _ := os.ReadFile(p); len(b) == 0 {
					return // a zombie of ours
				}
			}
		}
	}
	t.Fatal("no shim to kill")
}

func BenchmarkStart(b *testing.B) {
	ref := push(b)
	for name, open := range map[string]func(Config) (*Local, error){"native": NewNative, "confined": NewConfined} {
		b.Run(name, func(b *testing.B) {
			if name == "native" && os.Geteuid() != 0 {
				b.Skip("native needs root")
			}
			dir, _ := os.MkdirTemp("/tmp", "serin")
			defer os.RemoveAll(dir)
			r, err := open(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			image, err := r.Pull(b.Context(), ref, Auth{})
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			for b.Loop() {
				n++
				task, err := r.Start(b.Context(), Spec{ID: fmt.Sprint("t", n), Containers: []Container{{Name: "main", Image: image.Ref, StopTimeout: time.Second}}})
				if err != nil {
					b.Fatal(err)
				}
				get(b, task)
				b.StopTimer()
				end(b, task)
				task.Remove(b.Context())
				b.StartTimer()
			}
		})
	}
}

// Whoever ends a stage meets its own agent: both remove what has ended.
func TestATaskCanBeRemovedByTwoAtOnce(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, func(c *Container) { c.Command = []string{"exit"} })
		ended(t, task)
		var removing sync.WaitGroup
		for range 4 {
			removing.Go(func() {
				if err := task.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		removing.Wait()
		if left, err := r.Tasks(t.Context()); err != nil || len(left) != 0 {
			t.Errorf("%d tasks are left, %v", len(left), err)
		}
	})
}
