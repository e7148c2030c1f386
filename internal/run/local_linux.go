//go:build linux

package run

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Local runs tasks as processes of this machine: native, rootless or confined.
type Local struct {
	mode   string
	dir    string
	lock   *os.File
	helper string
	images *images
	log    *slog.Logger
	net    *nativeNet // native only

	mu    sync.Mutex
	tasks map[string]*localTask
}

// Config is what a local runtime needs.
type Config struct {
	Dir       string            // for images and tasks
	Helper    string            // a static program that calls Reexec; empty: this one
	Ephemeral string            // a directory around Dir that goes with it; empty: Dir is kept
	Transport http.RoundTripper // to the registry; nil: the default
	Log       *slog.Logger
}

// NewNative returns the runtime that isolates; it needs root.
func NewNative(c Config) (*Local, error) {
	l, err := newLocal("native", c)
	if err != nil {
		return nil, err
	}
	if l.net, err = newNativeNet(l.dir); err != nil {
		l.lock.Close()
		return nil, err
	}
	if l.net.closed != nil {
		c.Log.Warn("tasks reach this machine only, not what is beyond", "err", l.net.closed)
	}
	return l, nil
}

// NewRootless returns the runtime that isolates files and processes as an ordinary
// user; it needs user namespaces.
func NewRootless(c Config) (*Local, error) { return newLocal("rootless", c) }

// NewConfined returns the runtime that needs no privilege.
func NewConfined(c Config) (*Local, error) { return newLocal("confined", c) }

// take makes the directory this program's, until the file is closed.
func (c Config) take() (dir string, taken *os.File, err error) {
	if dir, err = filepath.Abs(c.Dir); err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return "", nil, fmt.Errorf("making the runtime's directory: %w", err)
	}
	if taken, err = lock(dir); err != nil {
		return "", nil, err
	}
	if c.Ephemeral != "" {
		if err := writeFile(filepath.Join(dir, ephemeralFile), []byte(c.Ephemeral)); err != nil {
			taken.Close()
			return "", nil, fmt.Errorf("making the runtime's directory: %w", err)
		}
	}
	return dir, taken, nil
}

func newLocal(mode string, c Config) (l *Local, err error) {
	dir, taken, err := c.take()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			taken.Close()
		}
	}()
	for _, d := range []string{"images", "tasks", "volumes"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("making the runtime's directory: %w", err)
		}
	}
	helper, err := helperIn(dir, c.Helper)
	if err != nil {
		return nil, err
	}
	return &Local{
		mode: mode, dir: dir, lock: taken, helper: helper, log: c.Log, tasks: map[string]*localTask{},
		images: &images{dir: filepath.Join(dir, "images"), transport: c.Transport},
	}, nil
}

// helperIn is the program that is started beside and inside tasks: what is asked
// for, or the embedded one, written where it can be started, or this program itself.
func helperIn(dir, asked string) (string, error) {
	if asked != "" || embedded == nil {
		return cmp.Or(asked, "/proc/self/exe"), nil
	}
	sum := sha256.Sum256(embedded)
	at := filepath.Join(dir, "helper-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(at); err == nil {
		return at, nil
	}
	var program []byte
	r, err := gzip.NewReader(bytes.NewReader(embedded))
	if err == nil {
		program, err = io.ReadAll(r)
	}
	if err == nil { // whole and startable, or not there
		err = os.WriteFile(at+".tmp", program, 0o755)
	}
	if err == nil {
		err = os.Rename(at+".tmp", at)
	}
	if err != nil {
		return "", fmt.Errorf("writing the runtime's helper: %w", err)
	}
	return at, nil
}

func (l *Local) Name() string { return l.mode }

func (l *Local) Pull(ctx context.Context, ref string, auth Auth) (Image, error) {
	return l.images.pull(ctx, ref, auth)
}

// Door is on the bridge, where tasks have one; confined ones share the loopback
// interface.
func (l *Local) Door(ctx context.Context) (Door, error) {
	if l.net == nil {
		return Door{}, nil
	}
	return openDoor(ctx, l.net.bridge)
}

// Close ends the watching of tasks; the tasks go on.
func (l *Local) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.tasks {
		t.conn.Close()
	}
	var err error
	if l.net != nil {
		err = l.net.close(len(l.tasks) == 0)
	}
	return errors.Join(err, l.lock.Close())
}

func (l *Local) taskDir(id string) string { return filepath.Join(l.dir, "tasks", id) }

func (l *Local) Create(ctx context.Context, spec Spec) (Task, error) {
	if err := spec.Validate(); err != nil {
		return nil, &Error{CannotCreate, err}
	}
	p := plan{Spec: spec, Mode: l.mode, Volumes: map[string]string{}}
	if err := cannot(l.mode, spec); err != nil {
		return nil, &Error{CannotCreate, err}
	}
	dir := l.taskDir(spec.ID)
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = ErrExists
		}
		return nil, &Error{CannotCreate, err}
	}
	t, err := l.create(ctx, dir, p)
	if err != nil {
		os.RemoveAll(dir)
		if l.net != nil {
			l.net.release(spec)
		}
		return nil, &Error{CannotCreate, err}
	}
	return t, nil
}

// cannot says what a task asks for that a runtime does not have.
func cannot(mode string, spec Spec) error {
	own := len(spec.Sysctls) > 0 || slices.ContainsFunc(spec.Containers, func(c Container) bool { return len(c.Sysctls) > 0 })
	switch {
	case mode != "native" && own:
		return fmt.Errorf("the runtime %s gives a task no network of its own to set systemControls of", mode)
	case mode != "native" && (spec.SharedPIDs || spec.SharedIPC):
		return fmt.Errorf("the runtime %s cannot have the containers of a task share processes and memory, as pidMode and ipcMode ask", mode)
	case mode != "native" && spec.Network == NoNetwork:
		return fmt.Errorf("the runtime %s cannot keep a task from the machine's network, as the network mode none asks", mode)
	}
	if mode != "confined" {
		return nil
	}
	for _, c := range spec.Containers {
		for what, asked := range map[string]bool{
			"volumes": len(c.Mounts) > 0, "tmpfs": len(c.Tmpfs) > 0, "a read-only root": c.ReadOnly, "added capabilities": len(c.Add) > 0, "dropped capabilities": len(c.Drop) > 0,
			"a hostname": c.Hostname != "", "extra hosts": len(c.Hosts) > 0, "DNS servers": len(c.DNS)+len(c.Search) > 0, "links": len(c.Links) > 0,
		} {
			if asked {
				return fmt.Errorf("the runtime confined does not keep files apart and has no %s, which container %s asks for", what, c.Name)
			}
		}
	}
	return nil
}

// create makes what a task needs and starts its shim.
func (l *Local) create(ctx context.Context, dir string, p plan) (*localTask, error) {
	for _, v := range p.Spec.Volumes {
		at := filepath.Join(dir, "volumes", v.Name)
		if v.Shared != "" {
			sum := sha256.Sum256([]byte(v.Shared))
			at = filepath.Join(l.dir, "volumes", hex.EncodeToString(sum[:8]))
		}
		if err := os.MkdirAll(at, 0o755); err != nil {
			return nil, fmt.Errorf("making volume %s: %w", v.Name, err)
		}
		if err := os.Chmod(at, 0o777|os.ModeSticky); err != nil { // for whatever user a container runs as
			return nil, fmt.Errorf("making volume %s: %w", v.Name, err)
		}
		p.Volumes[v.Name] = at
	}
	oneUser := l.mode == "rootless" && findUsers().single()
	for _, c := range p.Spec.Containers {
		image, err := l.images.config(c.Image)
		if err != nil {
			return nil, err
		}
		resolved, err := resolve(c, image)
		if err != nil {
			return nil, err
		}
		resolved.Mode, resolved.Volumes, resolved.Apart, resolved.OneUser = l.mode, p.Volumes, p.Spec.Network.apart(), oneUser
		resolved.SharedPIDs, resolved.SharedIPC = p.Spec.SharedPIDs, p.Spec.SharedIPC
		p.Configs = append(p.Configs, resolved)
	}
	if err := l.place(&p); err != nil {
		return nil, err
	}
	return l.launch(ctx, dir, p)
}

// place says where a task and its containers are, as far as that is known before
// they are made.
func (l *Local) place(p *plan) error {
	if l.net == nil {
		if p.Spec.Host != "" && p.Spec.Network != OwnNetwork {
			p.Address = hostAddress(l.dir, p.Spec.Host).String()
		}
		return nil
	}
	p.Bridge, p.Gateway = l.net.bridge, l.net.gateway.String()
	if err := l.net.board(p); err != nil {
		return err
	}
	for i := range p.Configs {
		c := &p.Configs[i]
		if c.Address = cmp.Or(c.Address, p.Address); c.Apart {
			c.Hostname = cmp.Or(c.Hostname, hostnameAt(c.Address))
		}
	}
	return nil
}

// resolve fills a container's empty fields with the image's, as Docker does: an
// entrypoint of its own drops the image's command.
func resolve(c Container, image v1.Config) (execConfig, error) {
	e := execConfig{Container: c, Rootfs: filepath.Join(c.Image, "rootfs"), Signal: cmp.Or(image.StopSignal, "SIGTERM")}
	entrypoint, command := image.Entrypoint, image.Cmd
	if c.Entrypoint != nil {
		entrypoint, command = c.Entrypoint, nil
	}
	if c.Command != nil {
		command = c.Command
	}
	if e.Args = slices.Concat(entrypoint, command); len(e.Args) == 0 {
		return e, errors.New("no command specified")
	}
	e.Workdir, e.User = cmp.Or(e.Workdir, image.WorkingDir, "/"), cmp.Or(e.User, image.User)
	if !filepath.IsAbs(e.Workdir) { // in Docker's words, as below
		return e, fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", e.Workdir)
	}
	e.Env = nil
	// execve takes the first of two values, so the later one must replace it.
	at := map[string]int{}
	for _, kv := range slices.Concat([]string{usualPath}, image.Env, withoutGPUs(c)) {
		k, _, _ := strings.Cut(kv, "=")
		if k == "" {
			return e, fmt.Errorf("invalid environment variable: %s", kv)
		}
		if i, ok := at[k]; ok {
			e.Env[i] = kv
			continue
		}
		at[k] = len(e.Env)
		e.Env = append(e.Env, kv)
	}
	return e, nil
}

// usualPath is where programs are found if nobody says otherwise.
const usualPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// launch starts the shim and waits until it has made the task's network.
func (l *Local) launch(ctx context.Context, dir string, p plan) (*localTask, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, "spec"), raw); err != nil {
		return nil, err
	}
	diary, err := os.Create(filepath.Join(dir, "shim.log"))
	if err != nil {
		return nil, err
	}
	defer diary.Close()
	cmd := exec.Command(l.helper, "serin-shim", dir)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, diary, diary
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=50", "GODEBUG=madvdontneed=1", usualPath}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	start := cmd.Start
	if l.net != nil {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUTS
		start = func() error { return l.net.start(cmd, p) }
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("starting the task's shim: %w", err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	conn, err := dialShim(ctx, dir, exited)
	if err != nil {
		cmd.Process.Kill()
		said, _ := os.ReadFile(filepath.Join(dir, "shim.log"))
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(said)))
	}
	t, _ := l.adopt(dir, p, conn)
	if err := t.located(ctx); err != nil {
		cmd.Process.Kill()
		t.forget()
		return nil, err
	}
	return t, nil
}

// dialSocket connects to the socket in a directory, however long its path.
func dialSocket(dir string) (net.Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/sock", d.Fd()))
}

// dialShim connects to a shim that is just starting.
func dialShim(ctx context.Context, dir string, exited <-chan struct{}) (net.Conn, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		conn, err := dialSocket(dir)
		if err == nil {
			return conn, nil
		}
		select {
		case <-exited:
			return nil, errors.New("the task's shim ended before it answered")
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause): // until its socket is there; nothing signals that
		}
	}
}

// adopt follows a task through its shim's connection; seen is closed when the shim has
// said how it is.
func (l *Local) adopt(dir string, p plan, conn net.Conn) (t *localTask, seen <-chan struct{}) {
	t = &localTask{runtime: l, dir: dir, plan: p, conn: conn, changed: make(chan struct{})}
	for _, c := range p.Configs {
		t.state.Containers = append(t.state.Containers, ContainerState{Name: c.Name})
	}
	l.mu.Lock()
	l.tasks[p.Spec.ID] = t
	l.mu.Unlock()
	seen = t.changed
	go t.follow()
	return t, seen
}

// answering is how long the shim of a task that is found may take to say how it is.
const answering = 10 * time.Second

// Tasks finds the tasks of earlier programs: those whose shim answers go on,
// those whose shim is gone have ended, whatever their last state says. One whose
// starter was killed before its shim listened is none: it may be created again.
func (l *Local) Tasks(ctx context.Context) ([]Task, error) {
	entries, err := os.ReadDir(filepath.Join(l.dir, "tasks"))
	if err != nil {
		return nil, fmt.Errorf("looking for tasks: %w", err)
	}
	var found []Task
	for _, e := range entries {
		dir := l.taskDir(e.Name())
		l.mu.Lock()
		t, known := l.tasks[e.Name()]
		l.mu.Unlock()
		if known {
			found = append(found, t)
			continue
		}
		var p plan
		raw, err := os.ReadFile(filepath.Join(dir, "spec"))
		if err != nil || json.Unmarshal(raw, &p) != nil {
			os.RemoveAll(dir) // its start never got as far as a shim
			continue
		}
		conn, err := dialSocket(dir)
		if _, none := os.Stat(filepath.Join(dir, "state")); errors.Is(err, os.ErrNotExist) && errors.Is(none, os.ErrNotExist) {
			os.RemoveAll(dir) // nor here; a shim that is just starting ends without it
			continue
		}
		if l.net != nil {
			l.net.adopt(p, conn)
		}
		switch {
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, os.ErrNotExist): // its shim is gone
			t = &localTask{runtime: l, dir: dir, plan: p, conn: noConn{}, changed: make(chan struct{})}
			t.lost()
			l.mu.Lock()
			l.tasks[p.Spec.ID] = t
			l.mu.Unlock()
		case err != nil:
			return nil, fmt.Errorf("reaching task %s: %w", p.Spec.ID, err)
		default: // before its first state nothing seems to have run
			var seen <-chan struct{}
			t, seen = l.adopt(dir, p, conn)
			select {
			case <-seen:
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(answering):
				return nil, fmt.Errorf("reaching task %s: its shim does not answer", p.Spec.ID)
			}
		}
		found = append(found, t)
	}
	return found, nil
}

type noConn struct{ net.Conn }

func (noConn) Close() error                { return nil }
func (noConn) Write(b []byte) (int, error) { return len(b), nil }

type localTask struct {
	runtime *Local
	dir     string
	plan    plan
	conn    net.Conn

	mu      sync.Mutex
	state   shimState
	changed chan struct{}
}

func (t *localTask) ID() string                { return t.plan.Spec.ID }
func (t *localTask) Labels() map[string]string { return t.plan.Spec.Labels }

func (t *localTask) Address() netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, err := netip.ParseAddr(t.state.Address)
	if err != nil || t.plan.Spec.Network == NoNetwork {
		return netip.Addr{}
	}
	return a
}

func (t *localTask) State() (State, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.State, t.changed
}

func (t *localTask) set(st shimState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = st
	close(t.changed)
	t.changed = make(chan struct{})
}

// follow reads the shim's states until it ends.
func (t *localTask) follow() {
	in := bufio.NewScanner(t.conn)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var st shimState
		if json.Unmarshal(in.Bytes(), &st) == nil {
			t.set(st)
		}
	}
	if errors.Is(in.Err(), net.ErrClosed) {
		return // we let go of it
	}
	t.lost()
}

// lost settles the state of a task whose shim is gone: what it wrote last, and
// that everything has ended, for the containers die with it.
func (t *localTask) lost() {
	var st shimState
	raw, err := os.ReadFile(filepath.Join(t.dir, "state"))
	if err != nil || json.Unmarshal(raw, &st) != nil || len(st.Containers) != len(t.plan.Configs) {
		st = shimState{}
		for _, c := range t.plan.Configs {
			st.Containers = append(st.Containers, ContainerState{Name: c.Name})
		}
	}
	for i := range st.Containers {
		c := &st.Containers[i]
		if !c.Started.IsZero() && c.Finished.IsZero() {
			c.Finished, c.ExitCode = time.Now(), 137
		}
	}
	st.Ended = true
	t.set(st)
}

// placed says that the task's network is made.
func (t *localTask) placed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.Address != ""
}

// located waits until the task has its address.
func (t *localTask) located(ctx context.Context) error {
	for {
		st, changed := t.State()
		switch {
		case t.placed():
			return nil
		case st.Ended:
			return fmt.Errorf("the task's network: %s", cmp.Or(st.Containers[0].Error, "its shim ended"))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tell says a word to the shim.
func (t *localTask) tell(word string) error {
	if st, _ := t.State(); st.Ended {
		return nil
	}
	_, err := t.conn.Write([]byte(word + "\n"))
	// A shim that has just ended takes no more words; follow settles its task.
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("telling task %s to %s: %w", t.ID(), word, err)
	}
	return nil
}

func (t *localTask) Start(ctx context.Context, container string) error {
	at := slices.IndexFunc(t.plan.Configs, func(c execConfig) bool { return c.Name == container })
	if at < 0 {
		return &Error{CannotStart, fmt.Errorf("task %s has no container %s", t.ID(), container)}
	}
	st, changed := t.State()
	before := st.Containers[at].Starts
	if st.Containers[at].Runs() {
		return nil
	}
	if err := t.tell("start " + container); err != nil {
		return &Error{CannotStart, err}
	}
	for {
		c := st.Containers[at]
		switch {
		case c.Starts > before:
			return nil
		case c.Error != "":
			return &Error{CannotStart, errors.New(c.Error)}
		case st.Ended:
			return &Error{CannotStart, fmt.Errorf("task %s has ended", t.ID())}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &Error{CannotStart, ctx.Err()}
		}
		st, changed = t.State()
	}
}

func (t *localTask) Stop(_ context.Context, container string) error {
	return t.tell("stop " + container)
}
func (t *localTask) End(context.Context) error { return t.tell("end") }

// Usage asks the shim on a connection of its own.
func (t *localTask) Usage(ctx context.Context) (Usage, error) {
	if err := ctx.Err(); err != nil {
		return Usage{}, err
	}
	conn, err := dialSocket(t.dir)
	if err != nil {
		return Usage{}, fmt.Errorf("asking task %s what it uses: %w", t.ID(), err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var st shimState
	if err := json.NewDecoder(conn).Decode(&st); err != nil {
		return Usage{}, fmt.Errorf("asking task %s what it uses: %w", t.ID(), err)
	}
	if st.Ended || st.Usage == nil {
		return Usage{}, fmt.Errorf("task %s does not say what it uses", t.ID())
	}
	st.Usage.System, st.Usage.CPUs = machineTime()
	return *st.Usage, nil
}

func (t *localTask) Logs(container string, offset int64, take func(Line) bool) error {
	f, err := os.Open(filepath.Join(t.dir, container+".log"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(offset, 0); err != nil {
		return err
	}
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		record, err := r.ReadString('\n')
		if err != nil {
			return nil // the rest of a line is still to come
		}
		offset += int64(len(record))
		stamp, text, _ := strings.Cut(strings.TrimSuffix(record, "\n"), " ")
		nanos, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			continue
		}
		if !take(Line{time.Unix(0, nanos), text, offset}) {
			return nil
		}
	}
}

// Trim gives the room of a log's beginning back, where the file system can.
func (t *localTask) Trim(container string, offset int64) error {
	f, err := os.OpenFile(filepath.Join(t.dir, container+".log"), os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("trimming the output of %s: %w", container, err)
	}
	defer f.Close()
	const block = 4096
	if offset -= offset % block; offset == 0 {
		return nil
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, offset)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("trimming the output of %s: %w", container, err)
	}
	return nil
}

func (t *localTask) forget() {
	t.conn.Close()
	t.runtime.mu.Lock()
	delete(t.runtime.tasks, t.ID())
	t.runtime.mu.Unlock()
	if t.runtime.net != nil {
		t.runtime.net.release(t.plan.Spec)
	}
}

func (t *localTask) Remove(context.Context) error {
	if st, _ := t.State(); !st.Ended {
		return fmt.Errorf("task %s has not ended", t.ID())
	}
	t.forget()
	err := os.RemoveAll(t.dir)
	if errors.Is(err, os.ErrPermission) && t.plan.Mode == "rootless" {
		err = removeAsRoot(t.dir) // files of a container's other users
	}
	if err != nil {
		return fmt.Errorf("removing task %s: %w", t.ID(), err)
	}
	return nil
}
