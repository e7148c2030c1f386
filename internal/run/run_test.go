//go:build linux

package run

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
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
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

var (
	program []byte // of the tests' image
	helper  string // see package helper
)

func TestMain(m *testing.M) {
	Reexec()
	os.Exit(func() int {
		dir := os.Getenv(programsEnv)
		if dir == "" {
			var err error
			if dir, err = build(); err != nil {
				fmt.Fprintln(os.Stderr, "building the test programs:", err)
				return 1
			}
			defer os.RemoveAll(dir)
		}
		helper = dir + "/helper"
		var err error
		if program, err = os.ReadFile(dir + "/app"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// programsEnv names the directory of the programs where this program was started by
// itself, as another user.
const programsEnv = "SERIN_RUN_PROGRAMS"

func build() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "serin-run"); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir, "./testdata/app", "./helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return dir, cmd.Run()
}

// The runtimes that need no privilege, as somebody who has none.
func TestAnOrdinaryUserRunsTasks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("every test is an ordinary user's here")
	}
	dir := filepath.Dir(helper)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyFile("/proc/self/exe", dir+"/tests"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(dir+"/tests", "-test.run", ".../(rootless|confined)$")
	cmd.Args = append(cmd.Args, "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), programsEnv+"="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	said, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(said, []byte("--- PASS: TestTasks")) == 0 {
		t.Errorf("%v\n%s", err, said)
	}
	if bytes.Contains(said, []byte("--- SKIP: TestTasks")) {
		t.Logf("%s", said)
	}
}

// push makes an image of the test program in a registry and returns its name.
func push(t testing.TB) string { return pushWith(t, "") }

// pushWith makes one whose programs are ended by a signal.
func pushWith(t testing.TB, signal string) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, d := range []string{"etc/", "srv/"} {
			w.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755})
		}
		w.WriteHeader(&tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/srv"})
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
		image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"serve"}, WorkingDir: "/srv", StopSignal: signal, Env: []string{"GREETING=image"}})
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
	for _, name := range []string{"native", "rootless", "confined", "docker"} {
		t.Run(name, func(t *testing.T) { on(t, name, ref, fn) })
	}
}

// on runs a test on one runtime.
func on(t *testing.T, name, ref string, fn func(t *testing.T, r Runtime, image string)) {
	in(t, "serin", name, ref, fn)
}

// in runs a test on one runtime whose directory's name begins as it is told.
func in(t *testing.T, at, name, ref string, fn func(t *testing.T, r Runtime, image string)) {
	if name == "native" && os.Geteuid() != 0 {
		t.Skip("native needs root")
	}
	dir, err := os.MkdirTemp("/tmp", at)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}
	if name != "confined" { // whose shim is this program, so that a race in it is found
		config.Helper = helper
	}
	r, _, err := Choose(t.Context(), name, config)
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
}

func start(t *testing.T, r Runtime, id, image string, change func(*Container)) Task {
	t.Helper()
	c := Container{Name: "main", Image: image, StopTimeout: 300 * time.Millisecond}
	if change != nil {
		change(&c)
	}
	return startSpec(t, r, Spec{ID: id, Labels: map[string]string{"l": "v"}, Containers: []Container{c}, Memory: 256 << 20, CPU: 512})
}

func startSpec(t testing.TB, r Runtime, spec Spec) Task {
	t.Helper()
	task, err := r.Create(t.Context(), spec)
	if err == nil {
		err = startAll(t.Context(), task)
	}
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func end(t testing.TB, task Task) State {
	t.Helper()
	task.End(context.Background())
	return until(t, task, func(st State) bool { return st.Ended })
}

// idle waits until no container of a task runs.
func idle(t testing.TB, task Task) State {
	t.Helper()
	return until(t, task, State.Idle)
}

// patience is how long a test waits for what must come. Nothing takes that long, but
// on a machine that has much else to do.
const patience = time.Minute

func until(t testing.TB, task Task, holds func(State) bool) State {
	t.Helper()
	deadline := time.After(patience)
	for {
		st, changed := task.State()
		if holds(st) {
			return st
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("task %s stays %+v", task.ID(), st)
		}
	}
}

func get(t testing.TB, task Task) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 100 * time.Millisecond}
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); client.Timeout += client.Timeout / 8 { // of a connection that nobody took, only the next knows better
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
	task.Logs("main", 0, func(l Line) bool { said += l.Text + "\n"; return true })
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
		code, err := task.Exec(t.Context(), "main", Command{Args: []string{"/app", "where", task.Address().String()}, Out: &out})
		said := strings.Fields(out.String()) // greeting, directory, user, whether it sees its files
		sees, own := true, "0"
		if r.Name() == "confined" && os.Geteuid() != 0 {
			sees, own = false, fmt.Sprint(os.Getuid())
		}
		if err != nil || code != 5 || len(said) != 4 || said[0] != "mine" || said[1] != "/srv" && (sees || !strings.HasSuffix(said[1], "/srv")) || said[2] != own || said[3] != fmt.Sprint(sees) {
			t.Errorf("it ended with %d, %v and said %q", code, err, said)
		}
		// What there is not, is said; what is cut off, ends.
		if _, err := task.Exec(t.Context(), "other", Command{Args: []string{"/app"}, Out: io.Discard}); err == nil || !strings.Contains(err.Error(), "no container other") {
			t.Errorf("in a container that is not there: %v", err)
		}
		code, err = task.Exec(t.Context(), "main", Command{Args: []string{"/none"}, Out: io.Discard})
		if err == nil && code == 0 { // Docker tells it by the code alone
			t.Error("a program that is not there ran")
		}
		ctx, cancel := context.WithCancel(t.Context())
		wrote := make(chan struct{})
		go func() { <-wrote; cancel() }()
		if _, err := task.Exec(ctx, "main", Command{Args: []string{"/app", "sleep"}, Out: onWrite(func() { close(wrote) })}); !errors.Is(err, context.Canceled) {
			t.Errorf("a command that was cut off: %v", err)
		}
		get(t, task) // is not disturbed
		end(t, task)
		if _, err := task.Exec(t.Context(), "main", Command{Args: []string{"/app", "exit"}, Out: io.Discard}); err == nil {
			t.Error("a command ran in a task that has ended")
		}
	})
}

type onWrite func()

func (f onWrite) Write(b []byte) (int, error) { f(); return len(b), nil }

func TestOutputAndExitCodeAreKept(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, func(c *Container) { c.Command = []string{"exit"} })
		if c := idle(t, task).Containers[0]; c.ExitCode != 7 || c.Started.IsZero() {
			t.Errorf("ended as %+v", c)
		}
		var lines []string
		var offset int64
		err := task.Logs("main", 0, func(l Line) bool {
			if time.Since(l.At) > time.Minute {
				t.Errorf("a line of %v", l.At)
			}
			lines, offset = append(lines, l.Text), l.Behind
			return true
		})
		want := "[one two three, unfinished]"
		if r.Name() == "docker" { // it keeps two streams, whose lines may cross
			slices.Sort(lines)
			want = "[one three, unfinished two]"
		}
		if err != nil || fmt.Sprint(lines) != want {
			t.Errorf("logged %q, %v", lines, err)
		}
		if err := task.Logs("main", offset, func(Line) bool { t.Error("a line came twice"); return true }); err != nil {
			t.Error(err)
		}
		end(t, task)
		if err := task.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAStubbornTaskIsKilled(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, func(c *Container) { c.Command = []string{"stubborn"} })
		ready(t, task, "main")
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
		x, err := r.Create(t.Context(), Spec{ID: "x", Containers: []Container{{Name: "main", Image: image, Entrypoint: []string{"nothing-there"}}}})
		if err == nil {
			err = startAll(t.Context(), x)
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind != CannotStart || !strings.Contains(err.Error(), "executable file not found") {
			t.Errorf("a missing program gave %v", err)
		}
		for want, c := range map[string]Container{
			"CannotCreateContainerError: %sthe working directory 'tmp' is invalid, it needs to be an absolute path": {Workdir: "tmp"},
			"CannotCreateContainerError: %sinvalid environment variable: =1":                                        {Env: []string{"=1"}},
		} {
			daemon := ""
			if r.Name() == "docker" {
				daemon = "Error response from daemon: "
			}
			c.Name, c.Image = "main", image
			if _, err := r.Create(t.Context(), Spec{ID: "z", Containers: []Container{c}}); err == nil || err.Error() != fmt.Sprintf(want, daemon) {
				t.Errorf("%+v gave %v", c, err)
			}
		}
		if _, err = r.Pull(t.Context(), "127.0.0.1:1/none:1", Auth{}); err == nil || !strings.HasPrefix(err.Error(), "CannotPullContainerError: ") {
			t.Errorf("a missing registry gave %v", err)
		}
		start(t, r, "y", image, nil)
		if _, err = r.Create(t.Context(), Spec{ID: "y", Containers: []Container{{Name: "main", Image: image}}}); !errors.Is(err, ErrExists) {
			t.Errorf("a second task of one id gave %v", err)
		}
	})
}

func TestATaskOutlivesItsStarterAndIsFoundAgain(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, nil)
		gone := start(t, r, "b", image, func(c *Container) { c.User = "joe" }) // who would lose the signal at the shim's death
		get(t, task)
		first, local := r.(*Local)
		if !local {
			foundAgain(t, r.(*Docker), task, gone)
			return
		}
		first.Close()
		second, err := newLocal(first.mode, Config{Dir: first.dir, Log: first.log, Helper: first.helper})
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
			if !st.Idle() {
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
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
		if _, err := client.Get(fmt.Sprintf("http://%s:8080/", gone.Address())); err == nil { // the bridge is still there
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

// A task is found with the state that it has: nobody starts again what has ended. One
// that cannot be asked for a reason of this program's has not ended.
func TestAnEarlierTaskIsFoundAsItIs(t *testing.T) {
	ref := push(t)
	on(t, "confined", ref, func(t *testing.T, r Runtime, image string) {
		first := r.(*Local)
		task := startSpec(t, r, Spec{ID: "a", Containers: []Container{{Name: "once", Image: image, Command: []string{"exit"}}, {Name: "web", Image: image, StopTimeout: time.Second}}})
		finished(t, task, 0)
		first.Close()
		later := func() *Local {
			l, err := newLocal(first.mode, Config{Dir: first.dir, Log: first.log, Helper: first.helper})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		sock := filepath.Join(first.taskDir("a"), "sock")
		if err := errors.Join(os.Rename(sock, sock+"et"), os.Symlink("sock", sock)); err != nil {
			t.Fatal(err)
		}
		second := later()
		if found, err := second.Tasks(t.Context()); err == nil {
			st, _ := found[0].State()
			t.Errorf("a task that cannot be asked is %+v", st)
		}
		second.Close()
		if err := os.Rename(sock+"et", sock); err != nil {
			t.Fatal(err)
		}
		third := later()
		defer third.Close()
		found, err := third.Tasks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st, _ := found[0].State(); st.Containers[0].Starts != 1 || st.Containers[0].ExitCode != 7 || !st.Containers[1].Runs() {
			t.Errorf("it is found as %+v", st)
		}
		end(t, found[0])
		if err := found[0].Remove(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestATaskWhoseStarterWasKilledBeforeItsShimListenedIsCreatedAgain(t *testing.T) {
	ref := push(t)
	on(t, "confined", ref, func(t *testing.T, r Runtime, image string) {
		l := r.(*Local)
		spec := Spec{ID: "a", Containers: []Container{{Name: "web", Image: image, Command: []string{"exit"}}}}
		raw, err := json.Marshal(plan{Spec: spec, Mode: l.mode})
		if err == nil {
			err = os.Mkdir(l.taskDir("a"), 0o755)
		}
		if err == nil {
			err = writeFile(filepath.Join(l.taskDir("a"), "spec"), raw)
		}
		if err != nil {
			t.Fatal(err)
		}
		if found, err := l.Tasks(t.Context()); err != nil || len(found) != 0 {
			t.Fatalf("found %v, %v", found, err)
		}
		task := startSpec(t, r, spec)
		finished(t, task, 0)
		if st, _ := task.State(); st.Containers[0].ExitCode != 7 {
			t.Errorf("it is %+v", st)
		}
		end(t, task)
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
		if f.Labels()["l"] != "v" || st.Idle() != (f.ID() == "b") {
			t.Errorf("found %s %v %+v", f.ID(), f.Labels(), st)
		}
		if f.ID() == "a" {
			get(t, f)
			continue
		}
		end(t, f)
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
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
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
	for name, open := range map[string]func(Config) (*Local, error){"native": NewNative, "rootless": NewRootless, "confined": NewConfined} {
		b.Run(name, func(b *testing.B) {
			if name == "native" && os.Geteuid() != 0 {
				b.Skip("native needs root")
			}
			dir, _ := os.MkdirTemp("/tmp", "serin")
			defer os.RemoveAll(dir)
			r, err := open(Config{Dir: dir, Helper: helper, Log: slog.New(slog.DiscardHandler)})
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
				task := startSpec(b, r, Spec{ID: fmt.Sprint("t", n), Containers: []Container{{Name: "main", Image: image.Ref, StopTimeout: time.Second}}})
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
		end(t, task)
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

// A program that was killed has closed nothing.
func TestWhatACrashLeftIsFoundAndRemoved(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, nil)
		get(t, task)
		find := func(dir string) *Leftover {
			found, err := Leftovers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range found {
				if l.Dir == dir {
					return l
				}
			}
			return nil
		}
		var dir string
		var taken *os.File
		switch r := r.(type) {
		case *Local:
			dir, taken = r.dir, r.lock
		case *Docker:
			dir, taken = r.dir, r.lock
		}
		if l := find(dir); l != nil {
			t.Fatalf("what is in use was found: %+v", l)
		}
		taken.Close()
		l := find(dir)
		if l == nil || !l.Kept || len(l.Processes)+len(l.Docker) == 0 {
			t.Fatalf("found %+v", l)
		}
		if err := os.WriteFile(filepath.Join(dir, ephemeralFile), []byte(filepath.Dir(dir)+"/nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
		if l = find(dir); l == nil || l.Kept {
			t.Fatalf("found %+v", l)
		}
		if err := l.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, pid := range l.Processes {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(b) > 0 {
				t.Errorf("process %d still runs", pid)
			}
		}
		if l := find(dir); l != nil && len(l.Processes)+len(l.Docker)+len(l.Bridges) > 0 {
			t.Errorf("after that there is %+v", l)
		}
		os.MkdirAll(filepath.Join(dir, "tasks"), 0o755) // for the test's own end
		until(t, task, func(st State) bool { return st.Idle() || st.Ended })
	})
}

// A container that waits for another has a cgroup that nothing is in.
func TestTheLimitsOfATaskThatLivesAreNotLeftOver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cgroups are root's")
	}
	on(t, "native", push(t), func(t *testing.T, r Runtime, image string) {
		task := made(t, r, Spec{Containers: []Container{{Name: "web", Image: image}, {Name: "waits", Image: image, Command: []string{"hog"}, Memory: 32 << 20}}})
		get(t, task)
		if err := emptyGroups(0); err != nil {
			t.Fatal(err)
		}
		begin(t, task, "waits")
		if c := finished(t, task, 1); !c.OOM {
			t.Errorf("it has lost its limit: %+v", c)
		}
	})
}

// Links of an image lead where they do inside, not where they do for the machine.
// The kernel reads colons, commas and backslashes in a mount's options.
func TestADirectoryMayHaveAnyName(t *testing.T) {
	ref := push(t)
	for _, name := range []string{"native", "rootless", "confined"} {
		t.Run(name, func(t *testing.T) {
			in(t, `se:r,i\\:n 'x"`, name, ref, func(t *testing.T, r Runtime, image string) {
				get(t, start(t, r, "t1", image, nil))
			})
		})
	}
}

func TestMountsFollowLinksInside(t *testing.T) {
	outside := t.TempDir()
	root := filepath.Join(outside, "root")
	if err := os.MkdirAll(root+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"absolute": "/run", "out": "../..", "machine": outside} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for at, want := range map[string]string{"/absolute/secrets": "/run/secrets", "/out/x": "/x", "/machine/y": outside + "/y", "/new/../dir": "/dir"} {
		if got, err := place(root, at); err != nil || got != root+want {
			t.Errorf("%s is at %s, %v, want %s", at, got, err, root+want)
		}
	}
	if left, _ := filepath.Glob(outside + "/*"); len(left) != 1 {
		t.Errorf("outside there is %q", left)
	}
}

// Whoever reaps every child reaps those that are waited for, too.
func TestAProgramsEndIsNotLostToTheReaper(t *testing.T) {
	r := &reaper{of: map[int]chan syscall.WaitStatus{}}
	over := make(chan struct{})
	var reaping sync.WaitGroup
	reaping.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				r.reap()
			}
		}
	})
	for n := range 50 {
		if said, err := r.output(exec.Command("/proc/self/exe", probeVerb)); err != nil || string(said) != "ok\n" {
			t.Errorf("run %d said %q, %v", n, said, err)
		}
	}
	if _, err := r.output(exec.Command("/proc/self/exe", "-test.nothing")); err == nil {
		t.Error("a failure was not told")
	}
	close(over)
	reaping.Wait()
}

// As this program is one where Go had a C compiler.
func TestAProgramIsProbedWithItsLoader(t *testing.T) {
	ref := push(t)
	for _, name := range []string{"native", "rootless", "confined"} {
		t.Run(name, func(t *testing.T) {
			on(t, name, ref, func(t *testing.T, r Runtime, _ string) {
				image := filepath.Join(r.(*Local).dir, "images", "linked")
				if err := errors.Join(addFile("/bin/sh", image+"/rootfs/sh"), writeFile(image+"/config", []byte("{}"))); err != nil {
					t.Fatal(err)
				}
				if err := addLoader("/bin/sh", image+"/rootfs"); err != nil {
					t.Fatal(err)
				}
				if libraries, _ := filepath.Glob(image + "/rootfs/*/*"); len(libraries) == 0 {
					t.Skip("this machine's shell needs no loader")
				}
				if said := runs(t, r, Container{Image: image, Entrypoint: []string{"/sh", "-c", "echo ok"}}); said != "ok" {
					t.Errorf("it said %q", said)
				}
			})
		})
	}
}

func TestADirectoryIsOneProgramsAtATime(t *testing.T) {
	dir := t.TempDir()
	first, err := NewConfined(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewConfined(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("a second one got %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := NewConfined(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

// Whoever looks for what was left locks a directory for a moment, too.
func TestADirectoryThatIsLookedAtIsNotInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		looks, err := os.Create(filepath.Join(dir, "lock"))
		if err == nil {
			err = unix.Flock(int(looks.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		}
		if err != nil {
			t.Fatal(err)
		}
		taken := make(chan error, 1)
		go func() {
			f, err := lock(dir)
			if err == nil && !held(dir) {
				err = errors.New("nobody has it")
			}
			f.Close()
			taken <- err
		}()
		synctest.Wait()
		looks.Close()
		if err := <-taken; err != nil {
			t.Error(err)
		}
	})
}

// An index that has images for other machines alone.
func TestAnImageForAnotherArchitectureIsRefused(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	other := map[string]string{"amd64": "arm64"}[runtime.GOARCH]
	if other == "" {
		other = "amd64"
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: empty.Image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: other}}})
	ref := strings.TrimPrefix(server.URL, "http://") + "/other:1"
	parsed, err := name.ParseReference(ref)
	if err == nil {
		err = remote.WriteIndex(parsed, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewConfined(Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = r.Pull(t.Context(), ref, Auth{})
	if want := "image Manifest does not contain descriptor matching platform 'linux/" + runtime.GOARCH + "'"; err == nil || !strings.HasPrefix(err.Error(), "CannotPullContainerError: "+want) {
		t.Errorf("it gave %v", err)
	}
}
