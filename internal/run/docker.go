package run

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
)

// Docker runs tasks as containers of the daemon that DOCKER_HOST names, or of
// Podman's socket. All tasks of a runtime are on one bridge network: a network
// for each would end at the thirty-first. The containers of one task share the
// first one's network.
type Docker struct {
	api     *client.Client
	owner   string // label of this runtime's containers
	network string
	log     *slog.Logger

	mu    sync.Mutex
	tasks map[string]*dockerTask
}

const (
	labelOwner = "serin.owner"
	labelTask  = "serin.task"
	labelSpec  = "serin.spec" // the Spec, on a task's first container
	labelAt    = "serin.at"   // position of a container in its task
)

// NewDocker connects to the daemon; an error says that none answers.
func NewDocker(ctx context.Context, c Config) (*Docker, error) {
	api, err := client.New(client.FromEnv)
	if err != nil {
		return nil, fmt.Errorf("reaching Docker: %w", err)
	}
	ping, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := api.Ping(ping, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		api.Close()
		return nil, fmt.Errorf("reaching Docker: %w", err)
	}
	sum := sha256.Sum256([]byte(c.Dir))
	d := &Docker{api: api, owner: hex.EncodeToString(sum[:6]), log: c.Log, tasks: map[string]*dockerTask{}}
	d.network = "serin-" + d.owner
	_, err = api.NetworkCreate(ctx, d.network, client.NetworkCreateOptions{Driver: "bridge", Labels: map[string]string{labelOwner: d.owner}})
	if err != nil && !cerrdefs.IsConflict(err) && !strings.Contains(err.Error(), "already exists") {
		api.Close()
		return nil, fmt.Errorf("making the tasks' network: %w", err)
	}
	return d, nil
}

// Name is docker.
func (d *Docker) Name() string { return "docker" }

// Pull has the daemon pull the image.
func (d *Docker) Pull(ctx context.Context, ref string, auth Auth) (Image, error) {
	options := client.ImagePullOptions{}
	if auth.Username != "" {
		encoded, err := authconfig.Encode(registry.AuthConfig{Username: auth.Username, Password: auth.Password})
		if err != nil {
			return Image{}, &Error{CannotPull, err}
		}
		options.RegistryAuth = encoded
	}
	progress, err := d.api.ImagePull(ctx, ref, options)
	if err == nil {
		err = progress.Wait(ctx)
		progress.Close()
	}
	if err != nil {
		return Image{}, &Error{CannotPull, err}
	}
	image, err := d.api.ImageInspect(ctx, ref)
	if err != nil {
		return Image{}, &Error{CannotPull, err}
	}
	for _, name := range image.RepoDigests {
		if repo, digest, ok := strings.Cut(name, "@"); ok && strings.HasPrefix(ref, repo) {
			return Image{Digest: digest, Ref: name}, nil
		}
	}
	return Image{}, &Error{CannotPull, fmt.Errorf("the daemon knows no digest of %s", ref)}
}

// Start creates and starts a task's containers.
func (d *Docker) Start(ctx context.Context, spec Spec) (Task, error) {
	if err := spec.Validate(); err != nil {
		return nil, &Error{CannotCreate, err}
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, &Error{CannotCreate, err}
	}
	t := &dockerTask{runtime: d, spec: spec, changed: make(chan struct{})}
	for i, c := range spec.Containers {
		id, err := d.start(ctx, t, i, c, string(raw))
		if id != "" {
			t.ids = append(t.ids, id)
		}
		if err != nil {
			for _, id := range t.ids {
				d.remove(context.WithoutCancel(ctx), id)
			}
			return nil, err
		}
	}
	if err := t.locate(ctx); err != nil {
		return nil, &Error{CannotStart, err}
	}
	d.adopt(t)
	return t, nil
}

func (d *Docker) start(ctx context.Context, t *dockerTask, at int, c Container, spec string) (id string, err error) {
	stop := int(c.StopTimeout / time.Second)
	config := &container.Config{
		Image: c.Image, Env: c.Env, Cmd: c.Command, Entrypoint: c.Entrypoint, WorkingDir: c.Workdir, User: c.User, StopTimeout: &stop,
		Labels: map[string]string{labelOwner: d.owner, labelTask: t.spec.ID, labelAt: strconv.Itoa(at)},
	}
	host := &container.HostConfig{NetworkMode: container.NetworkMode(d.network)}
	host.Memory = c.Memory
	if at == 0 {
		config.Labels[labelSpec] = spec
		if host.Memory == 0 {
			host.Memory = t.spec.Memory
		}
		host.NanoCPUs = t.spec.CPU * 1e9 / 1024
	} else {
		host.NetworkMode = container.NetworkMode("container:" + t.ids[0])
	}
	created, err := d.api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: config, HostConfig: host, Name: "serin-" + t.spec.ID + "-" + c.Name})
	if cerrdefs.IsConflict(err) {
		return "", &Error{CannotCreate, ErrExists}
	}
	if err != nil {
		return "", &Error{CannotCreate, err}
	}
	if _, err := d.api.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		return created.ID, &Error{CannotStart, err}
	}
	return created.ID, nil
}

// remove removes a container. If somebody is at it already, it waits until it is
// gone: a stage that ends meets its own agent.
func (d *Docker) remove(ctx context.Context, id string) error {
	_, err := d.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if cerrdefs.IsConflict(err) {
		gone := d.api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
		select {
		case <-gone.Result:
			return nil
		case err = <-gone.Error:
		}
	}
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// Tasks finds this runtime's containers by their labels.
func (d *Docker) Tasks(ctx context.Context) ([]Task, error) {
	list, err := d.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", labelOwner+"="+d.owner)})
	if err != nil {
		return nil, fmt.Errorf("looking for tasks: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b container.Summary) int { return strings.Compare(a.Labels[labelAt], b.Labels[labelAt]) })
	found := map[string]*dockerTask{}
	for _, c := range list.Items {
		id := c.Labels[labelTask]
		t := found[id]
		if t == nil {
			t = &dockerTask{runtime: d, changed: make(chan struct{})}
			if json.Unmarshal([]byte(c.Labels[labelSpec]), &t.spec) != nil {
				if err := d.remove(ctx, c.ID); err != nil { // a task that was never whole
					return nil, err
				}
				continue
			}
			found[id] = t
		}
		t.ids = append(t.ids, c.ID)
	}
	var tasks []Task
	for id, t := range found {
		d.mu.Lock()
		known := d.tasks[id]
		d.mu.Unlock()
		if known != nil {
			tasks = append(tasks, known)
			continue
		}
		if err := t.locate(ctx); errors.Is(err, errGone) { // removed since the list was made
			continue
		} else if err != nil {
			return nil, err
		}
		d.adopt(t)
		tasks = append(tasks, t)
	}
	return tasks, nil
}

// Door is on the network's bridge, which is this machine's only where the daemon
// is, and only root may change it.
func (d *Docker) Door(ctx context.Context) (Door, error) {
	network, err := d.api.NetworkInspect(ctx, d.network, client.NetworkInspectOptions{})
	if err != nil {
		return Door{}, fmt.Errorf("finding the tasks' network: %w", err)
	}
	return openDoor(ctx, "br-"+network.Network.ID[:12])
}

// Close lets go of the daemon; tasks go on. The network goes with the last task.
func (d *Docker) Close() error {
	d.mu.Lock()
	left := len(d.tasks)
	for _, t := range d.tasks {
		t.let()
	}
	d.mu.Unlock()
	if left == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := d.api.NetworkRemove(ctx, d.network, client.NetworkRemoveOptions{}); err != nil {
			d.log.Debug("the tasks' network stays", "err", err)
		}
	}
	return d.api.Close()
}

func (d *Docker) adopt(t *dockerTask) {
	ctx, let := context.WithCancel(context.Background())
	t.let = let
	d.mu.Lock()
	d.tasks[t.spec.ID] = t
	d.mu.Unlock()
	for i, id := range t.ids {
		go t.wait(ctx, i, id)
		go t.listen(ctx, id)
	}
}

type dockerTask struct {
	runtime *Docker
	spec    Spec
	ids     []string
	address netip.Addr
	let     context.CancelFunc

	mu      sync.Mutex
	state   State
	changed chan struct{}
}

func (t *dockerTask) ID() string                { return t.spec.ID }
func (t *dockerTask) Labels() map[string]string { return t.spec.Labels }
func (t *dockerTask) Address() netip.Addr       { return t.address }

func (t *dockerTask) State() (State, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.state
	st.Containers = slices.Clone(st.Containers)
	return st, t.changed
}

func (t *dockerTask) change(fn func(*State)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(&t.state)
	close(t.changed)
	t.changed = make(chan struct{})
}

// errGone says that the daemon has none of a task's containers.
var errGone = errors.New("the daemon has its containers no more")

// locate reads where the task is and how its containers are. A container that
// the daemon has no more has ended.
func (t *dockerTask) locate(ctx context.Context) error {
	ended, gone := 0, 0
	for i, id := range t.ids {
		r, err := t.runtime.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			ended, gone = ended+1, gone+1
			t.state.Containers = append(t.state.Containers, lost(t.spec.Containers[i].Name))
			continue
		}
		if err != nil {
			return fmt.Errorf("looking at container %s: %w", id[:12], err)
		}
		if n := r.Container.NetworkSettings; i == 0 && n != nil && n.Networks[t.runtime.network] != nil {
			t.address = n.Networks[t.runtime.network].IPAddress
		}
		s := settled(t.spec.Containers[i].Name, r.Container.State)
		if !s.Finished.IsZero() {
			ended++
		}
		t.state.Containers = append(t.state.Containers, s)
	}
	t.state.Ended = ended == len(t.ids)
	if gone == len(t.ids) {
		return fmt.Errorf("task %s: %w", t.spec.ID, errGone)
	}
	return nil
}

// lost is a container of which the daemon knows nothing: it was killed.
func lost(name string) ContainerState {
	return ContainerState{Name: name, Finished: time.Now(), ExitCode: 137}
}

func settled(name string, s *container.State) ContainerState {
	c := ContainerState{Name: name}
	c.Started, _ = time.Parse(time.RFC3339Nano, s.StartedAt)
	if !s.Running {
		c.Finished, _ = time.Parse(time.RFC3339Nano, s.FinishedAt)
		if c.Finished.Year() < 2000 {
			c.Finished = time.Now()
		}
		c.ExitCode, c.OOM = s.ExitCode, s.OOMKilled
	}
	return c
}

// wait follows a container to its end. An essential end is the caller's to
// judge; here the others go on.
func (t *dockerTask) wait(ctx context.Context, at int, id string) {
	w := t.runtime.api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case <-w.Result:
	case err := <-w.Error:
		if ctx.Err() != nil {
			return
		}
		t.runtime.log.Warn("the daemon lost a container", "task", t.spec.ID, "err", err)
	}
	s := lost(t.spec.Containers[at].Name)
	if r, err := t.runtime.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); err == nil {
		s = settled(s.Name, r.Container.State)
	}
	t.change(func(st *State) {
		st.Containers[at] = s
		st.Ended = !slices.ContainsFunc(st.Containers, func(c ContainerState) bool { return c.Finished.IsZero() })
	})
}

// listen says that there is new output whenever there is.
func (t *dockerTask) listen(ctx context.Context, id string) {
	out, err := t.runtime.api.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Tail: "0"})
	if err != nil {
		return
	}
	defer out.Close()
	buf := make([]byte, 4096)
	for {
		if _, err := out.Read(buf); err != nil {
			return
		}
		t.change(func(*State) {})
	}
}

// Usage asks the daemon for each container that runs.
func (t *dockerTask) Usage(ctx context.Context) (sum Usage, err error) {
	st, _ := t.State()
	if st.Ended {
		return sum, fmt.Errorf("task %s has ended", t.spec.ID)
	}
	for i, c := range st.Containers {
		if !c.Finished.IsZero() {
			continue
		}
		stats, err := t.stats(ctx, t.ids[i])
		if cerrdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return sum, fmt.Errorf("measuring container %s: %w", c.Name, err)
		}
		sum.CPU += time.Duration(stats.CPUStats.CPUUsage.TotalUsage)
		sum.Memory += withoutFiles(stats.MemoryStats.Usage, stats.MemoryStats.Stats)
	}
	return sum, nil
}

func (t *dockerTask) stats(ctx context.Context, id string) (out container.StatsResponse, err error) {
	r, err := t.runtime.api.ContainerStats(ctx, id, client.ContainerStatsOptions{})
	if err != nil {
		return out, err
	}
	defer r.Body.Close()
	return out, json.NewDecoder(r.Body).Decode(&out)
}

// withoutFiles is a cgroup's memory without the pages of files that the kernel
// would give up first, as docker stats tells it, documented:
// https://docs.docker.com/reference/cli/docker/container/stats/
func withoutFiles(used uint64, stats map[string]uint64) int64 {
	files, v1 := stats["total_inactive_file"]
	if !v1 {
		files = stats["inactive_file"]
	}
	return int64(used - min(files, used))
}

// Exec has the daemon run a command.
func (t *dockerTask) Exec(ctx context.Context, name string, args []string, out io.Writer) (int, error) {
	at := slices.IndexFunc(t.spec.Containers, func(c Container) bool { return c.Name == name })
	if at < 0 || at >= len(t.ids) {
		return 0, fmt.Errorf("the task has no container %s", name)
	}
	made, err := t.runtime.api.ExecCreate(ctx, t.ids[at], client.ExecCreateOptions{Cmd: args, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return 0, fmt.Errorf("running a command in container %s: %w", name, err)
	}
	stream, err := t.runtime.api.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return 0, fmt.Errorf("running a command in container %s: %w", name, err)
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, stream.Close)()
	if _, err := stdcopy.StdCopy(out, out, stream.Reader); err != nil || ctx.Err() != nil {
		return 0, cmp.Or(ctx.Err(), err)
	}
	ended, err := t.runtime.api.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	if err != nil {
		return 0, fmt.Errorf("running a command in container %s: %w", name, err)
	}
	return ended.ExitCode, nil
}

// Stop has the daemon send SIGTERM, and SIGKILL after each container's time.
func (t *dockerTask) Stop(context.Context) error {
	for i, id := range t.ids {
		seconds := int(t.spec.Containers[i].StopTimeout / time.Second)
		go func() { // the daemon answers when the container has ended
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds+30)*time.Second)
			defer cancel()
			_, err := t.runtime.api.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds})
			if err != nil && !cerrdefs.IsNotFound(err) {
				t.runtime.log.Warn("the daemon could not stop a container", "task", t.spec.ID, "err", err)
			}
		}()
	}
	return nil
}

// Logs reads from the daemon. The offset is the time of the last line in
// nanoseconds.
func (t *dockerTask) Logs(name string, offset int64, line func(time.Time, string)) (int64, error) {
	at := slices.IndexFunc(t.spec.Containers, func(c Container) bool { return c.Name == name })
	if at < 0 || at >= len(t.ids) {
		return offset, fmt.Errorf("task %s has no container %s", t.spec.ID, name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	from := offset
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true}
	if offset > 0 {
		options.Since = fmt.Sprintf("%d.%09d", offset/1e9, offset%1e9)
	}
	out, err := t.runtime.api.ContainerLogs(ctx, t.ids[at], options)
	if cerrdefs.IsNotFound(err) {
		return offset, nil
	}
	if err != nil {
		return offset, fmt.Errorf("reading the output of %s: %w", name, err)
	}
	defer out.Close()
	r, w := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(w, w, out)
		w.CloseWithError(err)
	}()
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		stamp, text, _ := strings.Cut(in.Text(), " ")
		when, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil || when.UnixNano() <= from {
			continue
		}
		offset = max(offset, when.UnixNano()) // the two streams may cross
		line(when, text)
	}
	return offset, in.Err()
}

// Remove removes an ended task's containers.
func (t *dockerTask) Remove(ctx context.Context) error {
	if st, _ := t.State(); !st.Ended {
		return fmt.Errorf("task %s has not ended", t.spec.ID)
	}
	t.let()
	var errs []error
	for _, id := range slices.Backward(t.ids) {
		errs = append(errs, t.runtime.remove(ctx, id))
	}
	t.runtime.mu.Lock()
	delete(t.runtime.tasks, t.spec.ID)
	t.runtime.mu.Unlock()
	return errors.Join(errs...)
}
