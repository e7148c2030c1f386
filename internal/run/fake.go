package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fake is a runtime for tests: a task is a handler on a loopback address of its
// own, so that load balancers and health checks are real. What a task does
// follows from its image's tag: "broken" answers 500, "faulty" does but to health
// checks, "exits" ends at once with code 1, "missing" cannot be pulled, anything else answers 200 with the tag.
type Fake struct {
	// Listen is where its tasks listen; this machine, unless said otherwise.
	Listen func(addr string) (net.Listener, error)

	mu    sync.Mutex
	tasks map[string]*fakeTask
	tags  map[string]string // digest → tag
	usage func(id string) Usage
}

// NewFake returns a runtime without tasks.
func NewFake() *Fake {
	return &Fake{
		Listen: func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) },
		tasks:  map[string]*fakeTask{}, tags: map[string]string{}, usage: func(string) Usage { return Usage{} },
	}
}

// Use makes the tasks say that they use what f says.
func (f *Fake) Use(usage func(id string) Usage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.usage = usage
}

// Name is fake.
func (f *Fake) Name() string { return "fake" }

// Pull takes any reference but those whose tag is missing.
func (f *Fake) Pull(_ context.Context, ref string, _ Auth) (Image, error) {
	name, digest, pinned := strings.Cut(ref, "@")
	if pinned { // pulled before
		return Image{Digest: digest, Ref: ref}, nil
	}
	if strings.HasSuffix(name, ":missing") {
		return Image{}, &Error{CannotPull, fmt.Errorf("image %s not found", ref)}
	}
	sum := sha256.Sum256([]byte(name))
	digest = "sha256:" + hex.EncodeToString(sum[:])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tags[digest] = name[strings.LastIndexByte(name, ':')+1:]
	return Image{Digest: digest, Ref: name + "@" + digest}, nil
}

// Start serves the task's port at an address of 127.89.0.0/16.
func (f *Fake) Start(_ context.Context, spec Spec) (Task, error) {
	if err := spec.Validate(); err != nil {
		return nil, &Error{CannotCreate, err}
	}
	_, digest, _ := strings.Cut(spec.Containers[0].Image, "@")
	f.mu.Lock()
	tag := f.tags[digest]
	f.mu.Unlock()
	t := &fakeTask{spec: spec, tag: tag, changed: make(chan struct{}), runtime: f}
	var l net.Listener
	for {
		t.address = netip.AddrFrom4([4]byte{127, 89, byte(rand.N(256)), byte(1 + rand.N(254))})
		var err error
		if l, err = f.Listen(netip.AddrPortFrom(t.address, 8080).String()); err == nil {
			break
		}
	}
	for _, c := range spec.Containers {
		t.state.Containers = append(t.state.Containers, ContainerState{Name: c.Name, Started: time.Now()})
	}
	t.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tag == "broken" || tag == "faulty" && !strings.HasPrefix(r.UserAgent(), "ELB-HealthChecker/") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		if r.URL.Path == "/command" {
			c := spec.Containers[0]
			fmt.Fprintln(w, strings.Join(slices.Concat(c.Command, c.Env), "\n"))
			return
		}
		fmt.Fprint(w, tag)
	})}
	go t.server.Serve(l)
	f.mu.Lock()
	f.tasks[spec.ID] = t
	f.mu.Unlock()
	if tag == "exits" {
		t.end(1)
	}
	return t, nil
}

// Tasks is every task that was started and not removed.
func (f *Fake) Tasks(context.Context) ([]Task, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Task
	for _, t := range f.tasks {
		out = append(out, t)
	}
	return out, nil
}

// Door is the loopback interface.
func (f *Fake) Door(context.Context) (Door, error) { return Door{}, nil }

// Close does nothing; tasks go on.
func (f *Fake) Close() error { return nil }

type fakeTask struct {
	runtime *Fake
	tag     string
	spec    Spec
	address netip.Addr
	server  *http.Server

	mu      sync.Mutex
	state   State
	changed chan struct{}
}

func (t *fakeTask) ID() string                { return t.spec.ID }
func (t *fakeTask) Labels() map[string]string { return t.spec.Labels }
func (t *fakeTask) Address() netip.Addr       { return t.address }

func (t *fakeTask) State() (State, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return State{slices.Clone(t.state.Containers), t.state.Ended}, t.changed
}

func (t *fakeTask) Usage(context.Context) (Usage, error) {
	if st, _ := t.State(); st.Ended {
		return Usage{}, fmt.Errorf("task %s has ended", t.spec.ID)
	}
	t.runtime.mu.Lock()
	usage := t.runtime.usage
	t.runtime.mu.Unlock()
	return usage(t.spec.ID), nil
}

func (t *fakeTask) end(code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state.Ended {
		return
	}
	t.server.Close()
	for i := range t.state.Containers {
		t.state.Containers[i].Finished, t.state.Containers[i].ExitCode = time.Now(), code
	}
	t.state.Ended = true
	close(t.changed)
	t.changed = make(chan struct{})
}

// Exec says its arguments; "exit" and a number ends with that, and anything with 1
// in a task whose image's tag is "sick".
func (t *fakeTask) Exec(_ context.Context, container string, args []string, out io.Writer) (code int, err error) {
	if st, _ := t.State(); st.Ended || !slices.ContainsFunc(st.Containers, func(c ContainerState) bool { return c.Name == container }) {
		return 0, fmt.Errorf("the container %s does not run", container)
	}
	if t.tag == "sick" {
		return 1, nil
	}
	if len(args) == 2 && args[0] == "exit" {
		return strconv.Atoi(args[1])
	}
	_, err = fmt.Fprintln(out, strings.Join(args, " "))
	return 0, err
}

func (t *fakeTask) Stop(context.Context) error { t.end(143); return nil }

func (t *fakeTask) Logs(_ string, offset int64, line func(time.Time, string)) (int64, error) {
	if offset == 0 {
		line(time.Now(), "serving")
	}
	return 1, nil
}

func (t *fakeTask) Remove(context.Context) error {
	t.runtime.mu.Lock()
	defer t.runtime.mu.Unlock()
	delete(t.runtime.tasks, t.spec.ID)
	return nil
}
