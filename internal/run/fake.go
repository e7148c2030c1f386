package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fake is a runtime for tests: a task is a handler on a loopback address of its
// own, so that load balancers and health checks are real. What a container does
// follows from its image's tag: "broken" answers 500, "faulty" does but to health
// checks, "exits" ends at once with code 1 and "done" with 0, "stays" does not end
// when it is asked, "missing" cannot be pulled and "unstartable" not be started, "once" not be
// started again;
// anything else answers 200 with the tag. The first that answers does so for its task.
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

// Create gives the task an address of 127.89.0.0/16.
func (f *Fake) Create(_ context.Context, spec Spec) (Task, error) {
	if err := spec.Validate(); err != nil {
		return nil, &Error{CannotCreate, err}
	}
	t := &fakeTask{spec: spec, said: map[string][]Line{}, changed: make(chan struct{}), runtime: f}
	if err := t.listen(); err != nil {
		return nil, &Error{CannotCreate, err}
	}
	f.mu.Lock()
	for _, c := range spec.Containers {
		_, digest, _ := strings.Cut(c.Image, "@")
		t.tags = append(t.tags, f.tags[digest])
		t.state.Containers = append(t.state.Containers, ContainerState{Name: c.Name})
	}
	f.tasks[spec.ID] = t
	f.mu.Unlock()
	for _, s := range t.servers {
		go s.Serve(s.l)
	}
	return t, nil
}

// fakeServer is a port of a task.
type fakeServer struct {
	http.Server
	l net.Listener
}

// listen has the task listen where it is reached: at an address of its own, or at its
// host's ports.
func (t *fakeTask) listen() error {
	open := func(port uint16, container int) error {
		l, err := t.runtime.Listen(netip.AddrPortFrom(t.address, port).String())
		if err == nil {
			t.servers = append(t.servers, &fakeServer{http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.serve(w, r, container) })}, l})
		}
		return err
	}
	switch t.spec.Network {
	case NoNetwork:
		return nil
	case OwnNetwork:
		for {
			t.address = netip.AddrFrom4([4]byte{127, 89, byte(rand.N(256)), byte(1 + rand.N(254))})
			if open(8080, -1) == nil {
				return nil
			}
		}
	}
	t.address = hostAddress("fake", t.spec.Host)
	for at, c := range t.spec.Containers {
		for _, p := range c.Ports {
			if p.UDP {
				continue
			}
			if err := open(p.Host, at); err != nil {
				t.close()
				return portTaken(p.Host)
			}
		}
	}
	return nil
}

func (t *fakeTask) close() {
	for _, s := range t.servers {
		s.Close()
		s.l.Close()
	}
}

// serve answers for a container, or for the first one that runs.
func (t *fakeTask) serve(w http.ResponseWriter, r *http.Request, at int) {
	st, _ := t.State()
	if at < 0 {
		at = slices.IndexFunc(st.Containers, ContainerState.Runs)
	}
	if at < 0 || !st.Containers[at].Runs() {
		panic(http.ErrAbortHandler) // nobody is there
	}
	tag, c := t.tags[at], t.spec.Containers[at]
	if tag == "broken" || tag == "faulty" && !strings.HasPrefix(r.UserAgent(), "ELB-HealthChecker/") {
		w.WriteHeader(http.StatusInternalServerError)
	}
	if r.URL.Path == "/command" {
		fmt.Fprintln(w, strings.Join(slices.Concat(c.Command, c.Env), "\n"))
		return
	}
	fmt.Fprint(w, tag)
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
	tags    []string // of the containers' images
	spec    Spec
	address netip.Addr
	servers []*fakeServer

	mu      sync.Mutex
	state   State
	ending  bool
	said    map[string][]Line // container → what it was made to say
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

// change changes the state; the task ends when it is to and nothing runs.
func (t *fakeTask) change(fn func(*State)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(&t.state)
	if t.ending && t.state.Idle() {
		t.state.Ended = true
		t.close()
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *fakeTask) at(name string) int {
	return slices.IndexFunc(t.spec.Containers, func(c Container) bool { return c.Name == name })
}

// Start starts a container, as its tag says.
func (t *fakeTask) Start(_ context.Context, name string) error {
	at := t.at(name)
	if st, _ := t.State(); t.tags[at] == "unstartable" || t.tags[at] == "once" && st.Containers[at].Starts > 0 {
		t.change(func(st *State) { st.Containers[at].Error = "exec: not found" })
		return &Error{CannotStart, fmt.Errorf("exec: not found")}
	}
	t.change(func(st *State) {
		c := &st.Containers[at]
		*c = ContainerState{Name: name, Starts: c.Starts + 1, Started: time.Now()}
		if code := slices.Index([]string{"done", "exits"}, t.tags[at]); code >= 0 {
			c.Finished, c.ExitCode = time.Now(), code
		}
	})
	return nil
}

// Finish ends a container of a task with an exit code, as its program would.
func (f *Fake) Finish(id, name string, code int) {
	f.mu.Lock()
	t := f.tasks[id]
	f.mu.Unlock()
	t.finish(name, code)
}

func (t *fakeTask) finish(name string, code int) {
	t.change(func(st *State) {
		if c := &st.Containers[t.at(name)]; c.Runs() {
			c.Finished, c.ExitCode = time.Now(), code
		}
	})
}

// Stop ends a container.
func (t *fakeTask) Stop(_ context.Context, name string) error {
	if t.tags[t.at(name)] != "stays" {
		t.finish(name, 143)
	}
	return nil
}

// End ends every container.
func (t *fakeTask) End(ctx context.Context) error {
	t.mu.Lock()
	asked := t.ending
	t.ending = true
	t.mu.Unlock()
	if asked {
		return nil
	}
	for _, c := range t.spec.Containers {
		t.Stop(ctx, c.Name)
	}
	t.change(func(*State) {})
	return nil
}

// Say has a container of a task write a line.
func (f *Fake) Say(id, name, line string) {
	f.mu.Lock()
	t := f.tasks[id]
	f.mu.Unlock()
	t.change(func(*State) { t.said[name] = append(t.said[name], Line{At: time.Now(), Text: line}) })
}

// Logs are a first line, "serving", and what the container was made to say.
func (t *fakeTask) Logs(name string, offset int64, take func(Line) bool) error {
	t.mu.Lock()
	lines := append([]Line{{At: t.state.Containers[t.at(name)].Started, Text: "serving"}}, t.said[name]...)
	t.mu.Unlock()
	for i := offset; i < int64(len(lines)); i++ {
		if !take(Line{lines[i].At, lines[i].Text, i + 1}) {
			break
		}
	}
	return nil
}

// Trim does nothing.
func (t *fakeTask) Trim(string, int64) error { return nil }

func (t *fakeTask) Remove(context.Context) error {
	t.runtime.mu.Lock()
	defer t.runtime.mu.Unlock()
	delete(t.runtime.tasks, t.spec.ID)
	return nil
}
