package run

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// Docker runs tasks as containers of the daemon that DOCKER_HOST names, or of
// Podman's socket. All tasks of a runtime are on one bridge network: a network
// for each would end at the thirty-first. The containers of one task share its
// network: that of its only container or, where there are several or one may be
// started again, of a container beside them that does nothing (docker_pause.go).
type Docker struct {
	api          *client.Client
	dir          string
	lock         *os.File
	owner        string // label of this runtime's containers
	network      string
	transport    http.RoundTripper // to registries; nil: the default
	gpus         bool              // the daemon can give containers some
	architecture string            // of its machine, in Go's words
	cpus         int64             // of its machine; 0: it does not say
	ulimits      []Ulimit          // that containers have unless they say otherwise
	capabilities []string          // that are Docker's default and not the daemon's
	log          *slog.Logger

	mu    sync.Mutex
	tasks map[string]*dockerTask

	hosting sync.Mutex                 // held while a host comes or goes
	hosts   map[string]map[string]bool // host → tasks that are in its network
}

const (
	labelOwner = "serin.owner"
	labelDir   = "serin.dir" // of the runtime
	labelTask  = "serin.task"
	labelSpec  = "serin.spec" // the Spec, on a task's first container
	labelHost  = "serin.host" // the host whose network a container holds
	labelAt    = "serin.at"   // position of a container in its task, from 0; -1: its network
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
	dir, taken, err := c.take()
	if err != nil {
		api.Close()
		return nil, err
	}
	sum := sha256.Sum256([]byte(dir))
	d := &Docker{api: api, dir: dir, lock: taken, owner: hex.EncodeToString(sum[:6]), transport: c.Transport, log: c.Log, tasks: map[string]*dockerTask{}, hosts: map[string]map[string]bool{}}
	d.network = "serin-" + d.owner
	if err := d.begin(ctx); err != nil {
		return nil, errors.Join(err, api.Close(), taken.Close())
	}
	return d, nil
}

// begin looks at the daemon and makes the tasks' network.
func (d *Docker) begin(ctx context.Context) error {
	if err := d.look(ctx); err != nil {
		return err
	}
	_, err := d.api.NetworkCreate(ctx, d.network, client.NetworkCreateOptions{Driver: "bridge", Labels: d.labels()})
	if err != nil && !cerrdefs.IsConflict(err) && !strings.Contains(err.Error(), "already exists") {
		return fmt.Errorf("making the tasks' network: %w", err)
	}
	return nil
}

// labels are on everything that this runtime makes at the daemon.
func (d *Docker) labels() map[string]string {
	return map[string]string{labelOwner: d.owner, labelDir: d.dir}
}

// look reads what kind of daemon it is.
func (d *Docker) look(ctx context.Context) error {
	said, err := d.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return fmt.Errorf("looking at the daemon: %w", err)
	}
	_, d.gpus = said.Info.Runtimes["nvidia"]
	d.architecture = cmp.Or(map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[said.Info.Architecture], said.Info.Architecture) // Podman has Go's names
	d.cpus = int64(said.Info.NCPU)
	version, err := d.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return fmt.Errorf("looking at the daemon: %w", err)
	}
	for _, c := range version.Components {
		if strings.HasPrefix(c.Name, "Podman") {
			// It gives containers more than it may have itself, where that is little, and
			// fewer capabilities than Docker does.
			d.ulimits, d.capabilities = ownLimits(), []string{"AUDIT_WRITE", "MKNOD", "NET_RAW"}
		}
	}
	return nil
}

// ownLimits are as many open files and processes as this machine allows, and Podman
// itself has: it takes 32,768 processes, observed.
func ownLimits() (list []Ulimit) {
	for name, what := range map[string]int{"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC} {
		var l unix.Rlimit
		if err := unix.Getrlimit(what, &l); err == nil {
			most := int64(min(l.Max, 1<<20))
			if name == "nproc" {
				most = min(most, 1<<15)
			}
			list = append(list, Ulimit{name, most, most})
		}
	}
	return list
}

// Name is docker.
func (d *Docker) Name() string { return "docker" }

// Create creates a task's containers.
func (d *Docker) Create(ctx context.Context, spec Spec) (Task, error) {
	if err := spec.Validate(); err != nil {
		return nil, &Error{CannotCreate, err}
	}
	t := &dockerTask{runtime: d, spec: spec, changed: make(chan struct{})}
	for _, c := range spec.Containers {
		t.state.Containers = append(t.state.Containers, ContainerState{Name: c.Name})
	}
	err := d.create(ctx, t)
	if err == nil {
		d.adopt(t)
		return t, nil
	}
	if errors.Is(err, ErrExists) {
		t.spec.Volumes, t.spec.Network = nil, OwnNetwork // they are the other's
	}
	return nil, &Error{CannotCreate, errors.Join(err, t.clear(context.WithoutCancel(ctx)))}
}

func (d *Docker) create(ctx context.Context, t *dockerTask) error {
	raw, err := json.Marshal(t.spec)
	if err != nil {
		return err
	}
	t.onHost()
	network := container.NetworkMode(d.network)
	if t.spec.Network == NoNetwork {
		network = "none"
	}
	if apart(t.spec) {
		if t.pause, err = d.startPause(ctx, t.spec, string(raw)); err != nil {
			return err
		}
	}
	if t.spec.Network == HostNetwork {
		if err := d.startHost(ctx, t.spec); err != nil {
			return err
		}
	}
	if holder := t.holder(); holder != "" {
		network = container.NetworkMode("container:" + holder)
		if err := t.findAddress(ctx, holder); err != nil {
			return err
		}
	}
	for _, v := range t.spec.Volumes {
		_, err := d.api.VolumeCreate(ctx, client.VolumeCreateOptions{Name: d.volumeName(t.spec, v), Labels: d.labels()})
		if err != nil {
			return fmt.Errorf("making volume %s: %w", v.Name, err)
		}
	}
	for i, c := range t.spec.Containers {
		config, host := d.configs(t.spec, c)
		host.NetworkMode = network
		config.Labels[labelAt] = strconv.Itoa(i)
		if i == 0 && t.pause == "" {
			config.Labels[labelSpec] = string(raw)
		}
		if t.spec.SharedPIDs {
			host.PidMode = container.PidMode("container:" + t.pause)
		}
		if t.spec.SharedIPC {
			host.IpcMode, host.ShmSize = container.IpcMode("container:"+t.pause), 0
		}
		if t.holder() != "" { // they are of the network's container
			config.Hostname, host.DNS, host.DNSSearch, host.ExtraHosts = "", nil, nil, nil
		}
		created, err := d.api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: config, HostConfig: host, NetworkingConfig: d.links(t.spec, c), Name: containerName(t.spec, c.Name)})
		if taken(err) {
			return ErrExists
		}
		if err != nil {
			return err
		}
		t.ids = append(t.ids, created.ID)
	}
	return nil
}

// taken says that a container of the name is there; Podman says so in words.
func taken(err error) bool {
	return cerrdefs.IsConflict(err) || err != nil && strings.Contains(err.Error(), "is already in use")
}

// configs is a container as Docker has it.
func (d *Docker) configs(spec Spec, c Container) (*container.Config, *container.HostConfig) {
	stop := wholeSeconds(c.StopTimeout)
	config := &container.Config{
		Image: c.Image, Env: c.Env, Cmd: c.Command, Entrypoint: c.Entrypoint, WorkingDir: c.Workdir, User: c.User, StopTimeout: &stop,
		Hostname: c.Hostname, Tty: c.Terminal, OpenStdin: c.Input, Labels: d.labels(),
	}
	config.Labels[labelTask] = spec.ID
	host := &container.HostConfig{
		ReadonlyRootfs: c.ReadOnly, CapAdd: c.Add, CapDrop: c.Drop, ShmSize: c.SharedMemory, DNSSearch: c.Search, ExtraHosts: hostsOf(c.Hosts), Tmpfs: map[string]string{},
	}
	for _, server := range c.DNS {
		if a, err := netip.ParseAddr(server); err == nil {
			host.DNS = append(host.DNS, a)
		}
	}
	if root := c.User == "" || c.User == "0" || c.User == "root"; root && !slices.Contains(c.Drop, "ALL") { // another's would have them for good
		for _, name := range d.capabilities {
			if !slices.Contains(c.Drop, name) && !slices.Contains(c.Add, name) {
				host.CapAdd = append(slices.Clone(host.CapAdd), name)
			}
		}
	}
	// Docker has no limit for several together: each has the task's.
	host.CPUShares, host.NanoCPUs, host.Memory = c.Shares, spec.CPU*1e9/1024, c.Memory
	if d.cpus > 0 { // it refuses more than the machine has
		host.NanoCPUs = min(host.NanoCPUs, d.cpus*1e9)
	}
	if host.Memory == 0 || spec.Memory > 0 && spec.Memory < host.Memory {
		host.Memory = spec.Memory
	}
	if len(spec.Containers) == 1 {
		host.Sysctls = spec.Sysctls
	}
	if spec.Network.apart() {
		host.Sysctls = c.Sysctls
		config.ExposedPorts, host.PortBindings = d.publish(spec, c)
	}
	if c.Init {
		host.Init = &c.Init
	}
	if c.NoNewRights {
		host.SecurityOpt = []string{"no-new-privileges"}
	}
	for _, t := range c.Tmpfs {
		host.Tmpfs[t.Path] = strings.Join(append([]string{"size=" + strconv.FormatInt(t.Size, 10)}, t.Options...), ",")
	}
	limits := slices.DeleteFunc(slices.Clone(d.ulimits), func(l Ulimit) bool {
		return slices.ContainsFunc(c.Ulimits, func(own Ulimit) bool { return own.Name == l.Name })
	})
	for _, l := range append(limits, c.Ulimits...) {
		host.Ulimits = append(host.Ulimits, &container.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	for _, m := range c.Mounts {
		at := slices.IndexFunc(spec.Volumes, func(v Volume) bool { return v.Name == m.Volume })
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: d.volumeName(spec, spec.Volumes[at]), Target: m.Path, ReadOnly: m.ReadOnly})
	}
	if d.gpus && c.GPUs > 0 {
		host.DeviceRequests = []container.DeviceRequest{{Driver: "nvidia", Count: c.GPUs, Capabilities: [][]string{{"gpu"}}}}
	} else {
		config.Env = withoutGPUs(c)
	}
	return config, host
}

// wholeSeconds is a time as the daemon takes it, not shorter.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// hostsOf turns lines of /etc/hosts into Docker's words.
func hostsOf(lines []string) (list []string) {
	for _, line := range lines {
		address, name, _ := strings.Cut(line, " ")
		list = append(list, name+":"+address)
	}
	return list
}

// volumeName is a volume's name at the daemon.
func (d *Docker) volumeName(spec Spec, v Volume) string {
	if v.Shared == "" {
		return "serin-" + spec.ID + "-" + v.Name
	}
	sum := sha256.Sum256([]byte(v.Shared))
	return d.network + "-" + hex.EncodeToString(sum[:8])
}

// clear removes all that a task has at the daemon.
func (t *dockerTask) clear(ctx context.Context) error {
	var errs []error
	for _, id := range slices.Backward(t.ids) {
		errs = append(errs, t.runtime.remove(ctx, id))
	}
	if t.pause != "" {
		errs = append(errs, t.runtime.remove(ctx, t.pause))
	}
	errs = append(errs, t.leaveHost(ctx))
	for _, v := range t.spec.Volumes {
		if v.Shared != "" {
			continue
		}
		_, err := t.runtime.api.VolumeRemove(ctx, t.runtime.volumeName(t.spec, v), client.VolumeRemoveOptions{Force: true})
		if err != nil && !cerrdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
	slices.SortFunc(list.Items, func(a, b container.Summary) int {
		return number([]byte(a.Labels[labelAt])) - number([]byte(b.Labels[labelAt]))
	})
	found := map[string]*dockerTask{}
	for _, c := range list.Items { // the one with the spec comes first
		if c.Labels[labelHost] != "" {
			continue
		}
		id, at := c.Labels[labelTask], c.Labels[labelAt]
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
		if at == "-1" {
			t.pause = c.ID
		} else {
			t.ids = append(t.ids, c.ID)
		}
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
		if len(t.ids) != len(t.spec.Containers) { // it was never whole, or is being removed
			if err := t.clear(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if err := t.locate(ctx); errors.Is(err, errGone) { // removed since the list was made
			if err := t.leaveHost(ctx); err != nil {
				return nil, err
			}
			continue
		} else if err != nil {
			return nil, err
		}
		d.adopt(t)
		tasks = append(tasks, t)
	}
	for _, c := range list.Items {
		if host := c.Labels[labelHost]; host != "" && !d.inUse(host) { // its tasks are gone
			if err := d.remove(ctx, c.ID); err != nil {
				return nil, err
			}
		}
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
	return errors.Join(d.api.Close(), d.lock.Close())
}

func (d *Docker) adopt(t *dockerTask) {
	t.ctx, t.let = context.WithCancel(context.Background())
	t.stopping = map[int]bool{}
	d.mu.Lock()
	d.tasks[t.spec.ID] = t
	d.mu.Unlock()
	for i, c := range t.state.Containers {
		if c.Runs() {
			go t.follow(i, c.Starts)
		}
	}
}

type dockerTask struct {
	runtime *Docker
	spec    Spec
	ids     []string
	pause   string // the container whose network it is; empty: its only one's
	ctx     context.Context
	let     context.CancelFunc

	mu       sync.Mutex
	address  netip.Addr
	state    State
	ending   bool
	stopping map[int]bool // containers that the daemon is stopping
	changed  chan struct{}
}

func (t *dockerTask) ID() string                { return t.spec.ID }
func (t *dockerTask) Labels() map[string]string { return t.spec.Labels }

func (t *dockerTask) Address() netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.address
}

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
	t.state.Ended = t.state.Ended || t.ending && t.state.Idle()
	close(t.changed)
	t.changed = make(chan struct{})
}

// errGone says that the daemon has none of a task's containers.
var errGone = errors.New("the daemon has its containers no more")

// locate reads where the task is and how its containers are. A container that
// the daemon has no more has ended.
func (t *dockerTask) locate(ctx context.Context) error {
	t.onHost()
	gone := 0
	for i, id := range t.ids {
		name := t.spec.Containers[i].Name
		r, err := t.runtime.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			gone++
			t.state.Containers = append(t.state.Containers, lost(name, 1))
			continue
		}
		if err != nil {
			return fmt.Errorf("looking at container %s: %w", id[:12], err)
		}
		t.state.Containers = append(t.state.Containers, settled(name, r.Container.State, 1+r.Container.RestartCount))
	}
	if gone == len(t.ids) {
		t.state.Ended = true
		return fmt.Errorf("task %s: %w", t.spec.ID, errGone)
	}
	if holder := t.holder(); holder != "" {
		return t.findAddress(ctx, holder)
	}
	for i, id := range t.ids {
		if t.state.Containers[i].Runs() {
			if err := t.findAddress(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// findAddress reads the address of the container whose network the task has.
func (t *dockerTask) findAddress(ctx context.Context, id string) error {
	r, err := t.runtime.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil { // Podman fails to look at one that is just ending
		r, err = t.runtime.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	}
	if err != nil {
		return fmt.Errorf("finding the task's address: %w", err)
	}
	if n := r.Container.NetworkSettings; n != nil && n.Networks[t.runtime.network] != nil {
		t.isAt(id, n.Networks[t.runtime.network].IPAddress)
	}
	return nil
}

// lost is a container of which the daemon knows nothing: it was killed.
func lost(name string, starts int) ContainerState {
	return ContainerState{Name: name, Starts: starts, Started: time.Now(), Finished: time.Now(), ExitCode: 137}
}

// settled is a container as the daemon has it; one that was never started has no
// times.
func settled(name string, s *container.State, starts int) ContainerState {
	c := ContainerState{Name: name}
	if c.Started, _ = time.Parse(time.RFC3339Nano, s.StartedAt); c.Started.Year() < 2000 {
		c.Started = time.Time{}
		return c
	}
	c.Starts = starts
	if !s.Running {
		c.Finished, _ = time.Parse(time.RFC3339Nano, s.FinishedAt)
		if c.Finished.Year() < 2000 {
			c.Finished = time.Now()
		}
		c.ExitCode, c.OOM = s.ExitCode, s.OOMKilled
	}
	return c
}

// at is the place of a container in its task.
func (t *dockerTask) at(name string) (int, error) {
	at := slices.IndexFunc(t.spec.Containers, func(c Container) bool { return c.Name == name })
	if at < 0 || at >= len(t.ids) {
		return 0, fmt.Errorf("the task has no container %s", name)
	}
	return at, nil
}

// Start has the daemon start a container.
func (t *dockerTask) Start(ctx context.Context, name string) error {
	at, err := t.at(name)
	if err != nil {
		return &Error{CannotStart, err}
	}
	if st, _ := t.State(); st.Containers[at].Runs() {
		return nil
	}
	if _, err := t.runtime.api.ContainerStart(ctx, t.ids[at], client.ContainerStartOptions{}); err != nil {
		t.change(func(st *State) { st.Containers[at].Error = err.Error() })
		return &Error{CannotStart, err}
	}
	if t.holder() == "" {
		if err := t.findAddress(ctx, t.ids[at]); err != nil {
			return &Error{CannotStart, err}
		}
	}
	starts := 0
	t.change(func(st *State) {
		was := st.Containers[at]
		starts = was.Starts + 1
		st.Containers[at] = ContainerState{Name: name, Starts: starts, Started: time.Now(), Address: was.Address}
	})
	go t.follow(at, starts)
	return nil
}

// follow follows a container that runs to its end, also where the daemon goes away
// and comes back. That an essential one ended is the caller's to judge.
func (t *dockerTask) follow(at, starts int) {
	id, name := t.ids[at], t.spec.Containers[at].Name
	for {
		output, silence := context.WithCancel(t.ctx)
		go t.listen(output, id)
		w := t.runtime.api.ContainerWait(t.ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
		select {
		case <-w.Result:
		case <-w.Error:
		}
		silence()
		if t.ctx.Err() != nil {
			return
		}
		r, err := t.runtime.api.ContainerInspect(t.ctx, id, client.ContainerInspectOptions{})
		s := lost(name, starts)
		switch {
		case cerrdefs.IsNotFound(err):
		case err != nil:
			t.runtime.log.Warn("the daemon does not answer", "task", t.spec.ID, "err", err)
			select {
			case <-time.After(time.Second):
			case <-t.ctx.Done():
				return
			}
			continue
		case r.Container.State.Running:
			continue
		default:
			s = settled(name, r.Container.State, starts)
		}
		t.change(func(st *State) {
			if st.Containers[at].Starts == starts {
				st.Containers[at] = s
			}
		})
		return
	}
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
	sum.Containers = map[string]Usage{}
	for i, c := range st.Containers {
		if !c.Runs() {
			continue
		}
		stats, err := t.stats(ctx, t.ids[i])
		if cerrdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return sum, fmt.Errorf("measuring container %s: %w", c.Name, err)
		}
		own := Usage{CPU: time.Duration(stats.CPUStats.CPUUsage.TotalUsage), Memory: withoutFiles(stats.MemoryStats.Usage, stats.MemoryStats.Stats)}
		sum.Containers[c.Name] = own
		sum.System, sum.CPUs = time.Duration(stats.CPUStats.SystemUsage), int(stats.CPUStats.OnlineCPUs)
		sum.CPU, sum.Memory = sum.CPU+own.CPU, sum.Memory+own.Memory
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

// Stop has the daemon send a container its signal, and SIGKILL after its time.
func (t *dockerTask) Stop(_ context.Context, name string) error {
	at, err := t.at(name)
	if err != nil {
		return err
	}
	if st, _ := t.State(); !st.Containers[at].Runs() {
		return nil
	}
	t.mu.Lock()
	asked := t.stopping[at]
	t.stopping[at] = true
	t.mu.Unlock()
	if asked {
		return nil
	}
	go func() { // the daemon answers when the container has ended
		seconds := wholeSeconds(t.spec.Containers[at].StopTimeout)
		ctx, cancel := context.WithTimeout(t.ctx, time.Duration(seconds+30)*time.Second)
		defer cancel()
		_, err := t.runtime.api.ContainerStop(ctx, t.ids[at], client.ContainerStopOptions{Timeout: &seconds})
		t.mu.Lock()
		t.stopping[at] = false
		t.mu.Unlock()
		if err == nil || cerrdefs.IsNotFound(err) || t.ctx.Err() != nil {
			return
		}
		t.runtime.log.Warn("the daemon could not stop a container", "task", t.spec.ID, "err", err)
		select { // it is asked again
		case <-time.After(time.Second):
			t.change(func(*State) {})
		case <-t.ctx.Done():
		}
	}()
	return nil
}

// End stops every container that runs.
func (t *dockerTask) End(ctx context.Context) error {
	t.mu.Lock()
	asked := t.ending
	t.ending = true
	t.mu.Unlock()
	for _, c := range t.spec.Containers {
		if err := t.Stop(ctx, c.Name); err != nil {
			return err
		}
	}
	if !asked {
		t.change(func(*State) {})
	}
	return nil
}

// Logs reads from the daemon. The offset is the time of the last line in
// nanoseconds.
func (t *dockerTask) Logs(name string, offset int64, take func(Line) bool) error {
	at, err := t.at(name)
	if err != nil {
		return err
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
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the output of %s: %w", name, err)
	}
	defer out.Close()
	lines := dockerLines{from: from, last: from, take: take}
	if t.spec.Containers[at].Terminal {
		return lines.plain(out)
	}
	return lines.framed(out)
}

// Trim does nothing: the daemon keeps what it keeps until the container goes.
func (t *dockerTask) Trim(string, int64) error { return nil }

// Remove removes an ended task's containers.
func (t *dockerTask) Remove(ctx context.Context) error {
	if st, _ := t.State(); !st.Ended {
		return fmt.Errorf("task %s has not ended", t.spec.ID)
	}
	t.let()
	err := t.clear(ctx)
	t.runtime.mu.Lock()
	delete(t.runtime.tasks, t.spec.ID)
	t.runtime.mu.Unlock()
	return err
}
