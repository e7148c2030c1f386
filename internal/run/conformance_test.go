//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// What a task can ask of a runtime, and which give it. A runtime that is not named
// refuses it with a word of the refusal, or it cannot be asked for. The table of
// docs/tasks.md says the same, and a test holds the two together.
var properties = []struct {
	name   string
	test   func(t *testing.T, r Runtime, image string)
	not    string // runtimes that do not have it
	refuse string // a word of what they say; empty: they do not refuse, but run without
}{
	{"containers that find each other at localhost", localhost, "", ""},
	{"ports of the system's choice at localhost", chosenPorts, "", ""},
	{"datagrams to localhost", datagrams, "", ""},
	{"a network that outlives its containers", outlives, "", ""},
	{"a container started again", again, "", ""},
	{"containers stopped one by one", oneByOne, "", ""},
	{"a network for each container, and ports of a host", bridged, "", ""},
	{"ranges of ports of a host", ranged, "", ""},
	{"links", linked, "confined", "links"},
	{"the network of a host", hosted, "", ""},
	{"no network", unconnected, "rootless confined", "network mode none"},
	{"volumes, its own and shared ones", volumes, "confined", "volumes"},
	{"a read-only root and memory to write to", readOnlyRoot, "confined", "read-only root"},
	{"limits of setrlimit", ulimits, "", ""},
	{"capabilities added and dropped", capabilities, "confined", "capabilities"},
	{"a process 1 that reaps", initProcess, "confined", ""},
	{"names, hosts and resolvers", names, "confined", "hosts"},
	{"another user", anotherUser, "confined", ""},
	{"an end by memory", memoryEnd, "rootless confined", ""},
	{"memory limits for each container", memoryOfEach, "rootless confined", ""},
	{"a memory limit of the task, and more processors than there are", limitOfAll, "rootless confined", ""},
	{"processes and memory that containers share", shares, "rootless confined", "pidMode"},
	{"sysctls of the network", sysctls, "rootless confined", "systemControls"},
	{"a terminal", terminal, "", ""},
	{"an open input", openInput, "", ""},
	{"commands that read their input", commandInput, "", ""},
	{"commands on a terminal that changes its size", commandTerminal, "", ""},
	{"the image's signal", imageSignal, "", ""},
	{"a way out to the machine's network", wayOut, "", ""},
	{"nothing left of a program that forks away", forkAway, "", ""},
	{"whole lines, however long", longLines, "", ""},
}

func TestEveryRuntimeGivesWhatItSays(t *testing.T) { each(t, conforms) }

// Podman answers Docker's API, with differences.
func TestPodmanGivesWhatDockerDoes(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil || os.Geteuid() != 0 {
		t.Skip("Podman is not installed here, or not root's")
	}
	dir := t.TempDir()
	service := exec.Command("podman", "system", "service", "--time=0", "unix://"+dir+"/sock")
	if _, err := exec.LookPath("runc"); err == nil { // its own choice refuses hybrid cgroups
		service.Args = slices.Insert(service.Args, 1, "--runtime", "runc")
	}
	service.Dir = dir // its containers' monitors write where they are
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Process.Kill(); service.Wait() })
	for deadline := time.Now().Add(patience); ; {
		c, err := net.Dial("unix", dir+"/sock")
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Skip("Podman's service does not start here: ", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Setenv("DOCKER_HOST", "unix://"+dir+"/sock")
	on(t, "docker", push(t), conforms)
}

func podman(r Runtime) bool {
	d, ok := r.(*Docker)
	return ok && len(d.capabilities) > 0
}

func conforms(t *testing.T, r Runtime, image string) {
	for _, p := range properties {
		t.Run(strings.ReplaceAll(p.name, " ", "_"), func(t *testing.T) {
			lacks := slices.Contains(strings.Fields(p.not), r.Name())
			if lacks && p.refuse == "" {
				t.Skip(r.Name(), " does not have it")
			}
			if lacks {
				refuses(t, r, image, p.refuse)
				return
			}
			p.test(t, r, image)
		})
	}
}

// The table of docs/tasks.md is this file's.
func TestTheDocumentSaysWhatRuntimesGive(t *testing.T) {
	raw, err := os.ReadFile("../../docs/tasks.md")
	if err != nil {
		if _, moved := os.LookupEnv(programsEnv); moved {
			t.Skip("the document is elsewhere")
		}
		t.Fatal(err)
	}
	for _, p := range properties {
		row := "| " + p.name + " |"
		for _, r := range []string{"native", "rootless", "confined", "docker"} {
			switch lacks := slices.Contains(strings.Fields(p.not), r); {
			case !lacks:
				row += " yes |"
			case p.refuse != "":
				row += " refused |"
			default:
				row += " no |"
			}
		}
		if !strings.Contains(string(raw), row+"\n") {
			t.Errorf("docs/tasks.md has no line %s", row)
		}
	}
}

// refusals ask for what a runtime without it refuses.
var refusals = map[string]Spec{
	"volumes":           {Volumes: []Volume{{Name: "v"}}, Containers: []Container{{Mounts: []Mount{{Volume: "v", Path: "/v"}}}}},
	"read-only root":    {Containers: []Container{{ReadOnly: true}}},
	"capabilities":      {Containers: []Container{{Drop: []string{"ALL"}}}},
	"hosts":             {Containers: []Container{{Hosts: []string{"10.1.2.3 db"}}}},
	"links":             {Network: BridgeNetwork, Host: "i-1", Containers: []Container{{Name: "main", Links: []Link{{"main", "me"}}}}},
	"pidMode":           {SharedPIDs: true, Containers: []Container{{}}},
	"network mode none": {Network: NoNetwork, Containers: []Container{{}}},
	"systemControls":    {Sysctls: map[string]string{"net.core.somaxconn": "1"}, Containers: []Container{{}}},
}

func refuses(t *testing.T, r Runtime, image, word string) {
	spec := refusals[word]
	spec.ID, spec.Containers = "refused", slices.Clone(spec.Containers)
	spec.Containers[0].Name, spec.Containers[0].Image = "main", image
	_, err := r.Create(t.Context(), spec)
	if err == nil || !strings.Contains(err.Error(), word) || !strings.HasPrefix(err.Error(), string(CannotCreate)) {
		t.Errorf("it gave %v", err)
	}
}

// made creates a task and starts the first of its containers.
func made(t *testing.T, r Runtime, spec Spec) Task {
	t.Helper()
	spec.ID = strings.ReplaceAll(fmt.Sprintf("c%x", time.Now().UnixNano()), "-", "")
	for i := range spec.Containers {
		spec.Containers[i].StopTimeout = 500 * time.Millisecond
	}
	task, err := r.Create(t.Context(), spec)
	if err == nil {
		err = task.Start(t.Context(), spec.Containers[0].Name)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end(t, task)
		if err := task.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return task
}

// runs makes a task of one container and returns what it wrote until its end.
func runs(t *testing.T, r Runtime, c Container) string {
	t.Helper()
	c.Name = "main"
	task := made(t, r, Spec{Containers: []Container{c}})
	idle(t, task)
	return said(t, task, "main")
}

// said is what a container has written.
func said(t *testing.T, task Task, container string) string {
	t.Helper()
	var out []string
	if err := task.Logs(container, 0, func(l Line) bool { out = append(out, strings.TrimSuffix(l.Text, "\r")); return true }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// ready waits until a container has said that it is. That changes no state.
func ready(t *testing.T, task Task, container string) {
	t.Helper()
	for deadline := time.Now().Add(patience); said(t, task, container) != "ready"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			st, _ := task.State()
			t.Fatalf("%s has said %q, and is %+v", container, said(t, task, container), st)
		}
	}
}

// finished waits until a container has ended.
func finished(t *testing.T, task Task, at int) ContainerState {
	t.Helper()
	return until(t, task, func(st State) bool { return !st.Containers[at].Finished.IsZero() }).Containers[at]
}

func begin(t *testing.T, task Task, container string) {
	t.Helper()
	if err := task.Start(t.Context(), container); err != nil {
		t.Fatal(err)
	}
}

func localhost(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Containers: []Container{{Name: "web", Image: image}, {Name: "side", Image: image, Command: []string{"ask", "localhost:8080"}}, {Name: "v4", Image: image, Command: []string{"ask", "127.0.0.1:8080"}}}})
	get(t, task)
	for i, name := range []string{"side", "v4"} {
		begin(t, task, name)
		finished(t, task, i+1)
		if out := said(t, task, name); out != "image /srv" && !strings.HasSuffix(out, "/srv") {
			t.Errorf("%s found %q", name, out)
		}
	}
	var out strings.Builder
	if code, err := task.Exec(t.Context(), "web", Command{Args: []string{"/app", "ask", "localhost:8080"}, Out: &out}); err != nil || code != 0 || !strings.Contains(out.String(), "/srv") {
		t.Errorf("a command ended with %d, %v: %q", code, err, out.String())
	}
}

// Ports that the system chooses are the task's, too.
func chosenPorts(t *testing.T, r Runtime, image string) {
	if out := runs(t, r, Container{Image: image, Command: []string{"late"}}); out != "found" {
		t.Errorf("at a port of the system's choice is %q", out)
	}
}

func datagrams(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Containers: []Container{{Name: "hear", Image: image, Command: []string{"hear"}}, {Name: "shout", Image: image, Command: []string{"shout"}}}})
	ready(t, task, "hear")
	begin(t, task, "shout")
	if finished(t, task, 0); said(t, task, "hear") != "ready\nheard" {
		t.Errorf("it heard %q", said(t, task, "hear"))
	}
}

func outlives(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Containers: []Container{{Name: "first", Image: image, Command: []string{"exit"}}, {Name: "web", Image: image}}})
	if c := finished(t, task, 0); c.ExitCode != 7 {
		t.Errorf("the first ended as %+v", c)
	}
	at := task.Address()
	begin(t, task, "web")
	get(t, task)
	if task.Address() != at || !at.IsValid() {
		t.Errorf("its address was %v and is %v", at, task.Address())
	}
}

func again(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Containers: []Container{{Name: "main", Image: image, Command: []string{"append", "/tmp-of-it"}, Again: true}}})
	if os.Geteuid() != 0 && r.Name() == "confined" {
		t.Skip("it writes outside")
	}
	for n := 1; n <= 3; n++ {
		c := finished(t, task, 0)
		if c.Starts != n || c.ExitCode != 0 {
			t.Fatalf("after start %d: %+v\n%s", n, c, said(t, task, "main"))
		}
		if n < 3 {
			begin(t, task, "main")
		}
	}
	if out := said(t, task, "main"); out != "x\nxx\nxxx" {
		t.Errorf("its files were not kept: %q", out)
	}
}

func oneByOne(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Containers: []Container{{Name: "a", Image: image}, {Name: "b", Image: image, Command: []string{"sleep"}}}})
	get(t, task)
	begin(t, task, "b")
	if err := task.Stop(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if c := finished(t, task, 1); c.ExitCode < 128 && c.ExitCode != 2 {
		t.Errorf("b ended as %+v", c)
	}
	get(t, task) // goes on
	if st := end(t, task); st.Containers[0].Finished.IsZero() {
		t.Errorf("after its end: %+v", st)
	}
}

func volumes(t *testing.T, r Runtime, image string) {
	spec := Spec{
		Volumes: []Volume{{Name: "own"}, {Name: "all", Shared: "test " + t.Name()}},
		Containers: []Container{
			{Name: "writes", Image: image, Command: []string{"write", "/data/word", "hello"}, Mounts: []Mount{{Volume: "own", Path: "/data"}}},
			{Name: "reads", Image: image, Command: []string{"read", "/in/word"}, Mounts: []Mount{{Volume: "own", Path: "/in", ReadOnly: true}}},
			{Name: "may not", Image: image, Command: []string{"write", "/in/word", "again"}, Mounts: []Mount{{Volume: "own", Path: "/in", ReadOnly: true}}},
			{Name: "shares", Image: image, Command: []string{"append", "/link/all/letters"}, Mounts: []Mount{{Volume: "all", Path: "/link/all"}}}, // below a link to /srv
		},
	}
	spec.Containers[2].Name = "maynot"
	for n := 1; n <= 2; n++ {
		task := made(t, r, spec)
		for i, c := range spec.Containers {
			begin(t, task, c.Name)
			finished(t, task, i)
		}
		if out := said(t, task, "reads"); out != "hello" {
			t.Errorf("it read %q", out)
		}
		if out := said(t, task, "maynot"); !strings.Contains(out, "read-only file system") {
			t.Errorf("a read-only volume was written to: %q", out)
		}
		if out := said(t, task, "shares"); out != strings.Repeat("x", n) {
			t.Errorf("task %d found %q", n, out)
		}
	}
}

func readOnlyRoot(t *testing.T, r Runtime, image string) {
	c := Container{Image: image, ReadOnly: true, Tmpfs: []Tmpfs{{Path: "/scratch", Size: 1 << 20}}}
	c.Command = []string{"write", "/srv/x", "no"}
	if out := runs(t, r, c); !strings.Contains(out, "read-only file system") {
		t.Errorf("its files were written to: %q", out)
	}
	c.Command = []string{"append", "/scratch/x"}
	if out := runs(t, r, c); out != "x" {
		t.Errorf("its memory said %q", out)
	}
}

// self is what a container says of itself.
func self(t *testing.T, r Runtime, c Container) map[string]string {
	t.Helper()
	c.Command = []string{"self"}
	out := runs(t, r, c)
	names := []string{"pid", "uid", "gid", "host", "files", "most", "caps", "bound", "inherited", "nnp"}
	fields := strings.Fields(out)
	if len(fields) != len(names) {
		t.Fatalf("it said %q", out)
	}
	m := map[string]string{}
	for i, name := range names {
		m[name] = fields[i]
	}
	return m
}

func ulimits(t *testing.T, r Runtime, image string) {
	if s := self(t, r, Container{Image: image, Ulimits: []Ulimit{{"nofile", 123, 456}}}); s["most"] != "456" || s["files"] != "123" && s["files"] != "455" && s["files"] != "456" {
		t.Errorf("its limits are %v", s) // a Go program raises its own to the most
	}
}

// bits of capabilities, as /proc shows them.
const (
	usualCaps = "00000000a80425fb" // Docker's
	netAdmin  = "0000000000001000"
)

func capabilities(t *testing.T, r Runtime, image string) {
	for want, c := range map[string]Container{
		usualCaps:          {},
		"0000000000000000": {Drop: []string{"ALL"}},
		netAdmin:           {Drop: []string{"ALL"}, Add: []string{"NET_ADMIN"}},
		"00000000a80425fa": {Drop: []string{"CHOWN"}},
	} {
		if os.Geteuid() != 0 && r.Name() != "rootless" {
			t.Skip("they are root's")
		}
		c.Image = image
		if s := self(t, r, c); s["caps"] != want || s["inherited"] != "0000000000000000" {
			t.Errorf("+%v -%v has %s and hands on %s, want %s", c.Add, c.Drop, s["caps"], s["inherited"], want)
		}
	}
	if s := self(t, r, Container{Image: image, NoNewRights: true}); s["nnp"] != "1" {
		t.Errorf("it may gain rights: %v", s)
	}
}

// withInit skips a test where the daemon has no process 1 of its own.
func withInit(t *testing.T, r Runtime) {
	t.Helper()
	if _, err := os.Stat("/usr/libexec/podman/catatonit"); err != nil && podman(r) {
		t.Skip("Podman's init is not installed")
	}
}

func initProcess(t *testing.T, r Runtime, image string) {
	withInit(t, r)
	if s := self(t, r, Container{Image: image, Init: true}); s["pid"] == "1" || s["pid"] == "" {
		t.Errorf("it is process %s", s["pid"])
	}
	task := made(t, r, Spec{Containers: []Container{{Name: "main", Image: image, Command: []string{"signal"}, Init: true}}})
	ready(t, task, "main")
	if err := task.Stop(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	if c := finished(t, task, 0); c.ExitCode != 0 || said(t, task, "main") != "ready\nterminated" {
		t.Errorf("it ended as %+v and said %q", c, said(t, task, "main"))
	}
}

func names(t *testing.T, r Runtime, image string) {
	c := Container{Image: image, Hostname: "mine", Hosts: []string{"10.1.2.3 db"}, DNS: []string{"10.1.2.4"}, Search: []string{"example.com"}, Command: []string{"read", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}}
	out := strings.ReplaceAll(runs(t, r, c), "\t", " ")
	for _, want := range []string{"10.1.2.3 db", "nameserver 10.1.2.4", "search example.com", "mine"} {
		if !strings.Contains(out, want) && (r.Name() != "docker" || want != "nameserver 10.1.2.4") { // the daemon asks it itself
			t.Errorf("%q is not in %q", want, out)
		}
	}
	if s := self(t, r, c); s["host"] != "mine" {
		t.Errorf("its name is %s", s["host"])
	}
}

func anotherUser(t *testing.T, r Runtime, image string) {
	if s := self(t, r, Container{Image: image, User: "joe"}); s["uid"] != "77" || s["gid"] != "78" || s["caps"] != "0000000000000000" {
		t.Errorf("it is %v", s)
	}
	if s := self(t, r, Container{Image: image, User: "1234:5678"}); s["uid"] != "1234" || s["gid"] != "5678" {
		t.Errorf("it is %v", s)
	}
}

func memoryEnd(t *testing.T, r Runtime, image string) {
	toldOfMemory(t, r, func() ContainerState {
		return finished(t, made(t, r, Spec{Containers: []Container{{Name: "main", Image: image, Command: []string{"hog"}, Memory: 32 << 20}}}), 0)
	})
}

// toldOfMemory has a container end by memory, and on Docker again until that is
// told: the daemon loses the notice now and then with the container's cgroup (of
// 5 ends of 150 on a busy machine with version 20.10).
func toldOfMemory(t *testing.T, r Runtime, end func() ContainerState) {
	t.Helper()
	tries := 1
	if r.Name() == "docker" {
		tries = 10
	}
	for range tries {
		c := end()
		if c.ExitCode != 137 {
			t.Fatalf("it ended as %+v", c)
		}
		if c.OOM || podman(r) { // which may tell of none
			return
		}
	}
	t.Errorf("of %d ends by memory none was told", tries)
}

func memoryOfEach(t *testing.T, r Runtime, image string) {
	var task Task
	toldOfMemory(t, r, func() ContainerState {
		task = made(t, r, Spec{Memory: 256 << 20, Containers: []Container{{Name: "web", Image: image}, {Name: "hog", Image: image, Command: []string{"hog"}, Memory: 32 << 20}}})
		begin(t, task, "hog")
		return finished(t, task, 1)
	})
	get(t, task) // the other does not end by it
	u, err := task.Usage(t.Context())
	if err != nil || u.Containers["web"].Memory == 0 || u.Containers["hog"].Memory > 32<<20 {
		t.Errorf("they use %+v, %v", u, err)
	}
	if c := end(t, task).Containers[0]; c.OOM {
		t.Errorf("the other ended as %+v", c)
	}
}

func limitOfAll(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{CPU: 1 << 20, Memory: 64 << 20, Containers: []Container{{Name: "web", Image: image}, {Name: "hog", Image: image, Command: []string{"hog"}}}})
	begin(t, task, "hog")
	if c := finished(t, task, 1); c.ExitCode != 137 {
		t.Errorf("it ended as %+v", c)
	}
	get(t, task) // the other does not end by it
}

func sysctls(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Sysctls: map[string]string{"net.core.somaxconn": "123"}, Containers: []Container{{Name: "main", Image: image, Command: []string{"read", "/proc/sys/net/core/somaxconn"}}}})
	if idle(t, task); said(t, task, "main") != "123" {
		t.Errorf("it read %q", said(t, task, "main"))
	}
}

func terminal(t *testing.T, r Runtime, image string) {
	if out := runs(t, r, Container{Image: image, Command: []string{"tty"}, Terminal: true}); out != "true" {
		t.Errorf("with a terminal it said %q", out)
	}
	if out := runs(t, r, Container{Image: image, Command: []string{"tty"}}); out != "false" {
		t.Errorf("without it said %q", out)
	}
}

func openInput(t *testing.T, r Runtime, image string) {
	for want, open := range map[string]bool{"open": true, "ended": false} {
		if out := runs(t, r, Container{Image: image, Command: []string{"input"}, Input: open}); out != want {
			t.Errorf("its input is %q, want %q", out, want)
		}
	}
}

func imageSignal(t *testing.T, r Runtime, _ string) {
	image, err := r.Pull(t.Context(), pushWith(t, "SIGUSR1"), Auth{})
	if err != nil {
		t.Fatal(err)
	}
	task := made(t, r, Spec{Containers: []Container{{Name: "main", Image: image.Ref, Command: []string{"signal"}}}})
	ready(t, task, "main")
	end(t, task)
	if out := said(t, task, "main"); out != "ready\nuser defined signal 1" {
		t.Errorf("it said %q", out)
	}
}

func forkAway(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Containers: []Container{{Name: "main", Image: image, Command: []string{"fork"}, Env: []string{"FORKED=" + mark(t)}}}})
	if idle(t, task); said(t, task, "main") != "forked" {
		t.Fatalf("it said %q", said(t, task, "main"))
	}
	end(t, task)
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, e := range environments {
		if b, err := os.ReadFile(e); err == nil && strings.Contains(string(b), "FORKED="+mark(t)) {
			t.Errorf("%s is left", e)
		}
	}
}

func longLines(t *testing.T, r Runtime, image string) {
	out := runs(t, r, Container{Image: image, Command: []string{"long", "10000000"}})
	whole := strings.ReplaceAll(out, "\n", "") // in pieces
	if len(whole) != 10_000_003 || !strings.HasSuffix(whole, "aend") {
		t.Errorf("%d letters came, want 10000003", len(whole))
	}
	if lines := strings.Count(runs(t, r, Container{Image: image, Command: []string{"flood", "50000"}}), "\n") + 1; lines != 50_000 {
		t.Errorf("%d lines came, want 50000", lines)
	}
}

// wayOut is to a host beyond this machine, which knows no way to the task.
func wayOut(t *testing.T, r Runtime, image string) {
	if os.Geteuid() != 0 {
		t.Skip("a host beyond this machine is root's to make")
	}
	address := beyond(t)
	if said, err := exec.Command("iptables", "-S", "FORWARD").CombinedOutput(); err != nil && !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("iptables does not read its chain any more: %v: %s", err, said)
	}
	if out := runs(t, r, Container{Image: image, Command: []string{"ask", address}}); out != "beyond" {
		t.Errorf("from beyond came %q", out)
	}
	if out := runs(t, r, Container{Image: image, Command: []string{"far", address}}); out != "sent" {
		t.Errorf("a datagram to beyond: %q", out)
	}
}

// beyond makes a host with a network of its own beside this machine, which answers
// over HTTP.
func beyond(t *testing.T) (address string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("sb%x", time.Now().UnixNano()%1e9)
	listening := make(chan net.Listener)
	go func() { // the thread ends with the host
		runtime.LockOSThread()
		defer close(listening)
		here, err := netns.Get()
		if err != nil {
			return
		}
		there, err := netns.New()
		if err != nil {
			return
		}
		h, err := netlink.NewHandleAt(here)
		if err != nil {
			return
		}
		if h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(there)}) != nil {
			return
		}
		up := func(h *netlink.Handle, name, cidr string) error {
			link, err := h.LinkByName(name)
			if err != nil {
				return err
			}
			a, _ := netlink.ParseAddr(cidr)
			return errors.Join(h.AddrAdd(link, a), h.LinkSetUp(link))
		}
		own, err := netlink.NewHandleAt(there)
		if err != nil || up(h, attrs.Name, "198.18.77.1/30") != nil || up(own, "eth0", "198.18.77.2/30") != nil {
			return
		}
		if l, err := net.Listen("tcp4", "198.18.77.2:80"); err == nil {
			listening <- l
		}
	}()
	l, ok := <-listening
	if !ok {
		t.Fatal("no host could be made")
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "beyond") })}
	go server.Serve(l)
	t.Cleanup(func() {
		server.Close()
		if link, err := netlink.LinkByName(attrs.Name); err == nil {
			netlink.LinkDel(link)
		}
	})
	return "198.18.77.2"
}
