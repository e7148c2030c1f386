//go:build linux

package run

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// answer is what a port says over HTTP, once somebody is there.
func answer(t *testing.T, task Task, port int) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		resp, err := client.Get(fmt.Sprintf("http://%s:%d/", task.Address(), port))
		if last = err; err == nil {
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return string(b)
		}
	}
	t.Fatalf("no answer at %v:%d: %v", task.Address(), port, last)
	return ""
}

// onHost is a task of two containers that listen on one port, behind ports of a host.
func onHost(image, host, says string) Spec {
	return Spec{Network: BridgeNetwork, Host: host, Containers: []Container{
		{Name: "web", Image: image, Env: []string{"GREETING=" + says}, Ports: []Port{{Host: 8081, Inside: 8080}}},
		{Name: "side", Image: image, Env: []string{"GREETING=beside-" + says}, Ports: []Port{{Host: 38082, Inside: 8080}}},
		{Name: "echo", Image: image, Command: []string{"mirror"}, Ports: []Port{{Host: 8125, Inside: 8125, UDP: true}}},
		{Name: "ask", Image: image, Command: []string{"ask", "localhost:8080"}},
	}}
}

func bridged(t *testing.T, r Runtime, image string) {
	one, two := made(t, r, onHost(image, "i-1", "one")), made(t, r, onHost(image, "i-2", "two"))
	for says, task := range map[string]Task{"one": one, "two": two} {
		begin(t, task, "side")
		begin(t, task, "echo")
		if got := answer(t, task, 8081); !strings.HasPrefix(got, says+" ") {
			t.Errorf("behind port 8081 of the host of %s is %q", says, got)
		}
		if got := answer(t, task, 38082); !strings.HasPrefix(got, "beside-"+says+" ") {
			t.Errorf("behind port 38082 of the host of %s is %q", says, got)
		}
		ready(t, task, "echo")
		if got := echoed(t, fmt.Sprintf("%s:8125", task.Address())); got != "hello" {
			t.Errorf("behind the datagrams' port came %q", got)
		}
	}
	if one.Address() == two.Address() || !one.Address().IsValid() {
		t.Errorf("two hosts are at %v and %v", one.Address(), two.Address())
	}
	st, _ := one.State()
	if a, b := st.Containers[0].Address, st.Containers[1].Address; !a.IsValid() || !b.IsValid() || a == b || a == one.Address() {
		t.Errorf("its containers are at %v and %v, on a host at %v", a, b, one.Address())
	}
	begin(t, one, "ask") // its own localhost has nobody
	third := onHost(image, "i-1", "three")
	third.ID, third.Containers = "third", third.Containers[:1]
	task, err := r.Create(t.Context(), third)
	if err != nil {
		t.Fatal(err)
	}
	if task.Address() != one.Address() {
		t.Errorf("two tasks of one host are at %v and %v", one.Address(), task.Address())
	}
	if err := task.Start(t.Context(), "web"); err == nil || !strings.HasPrefix(err.Error(), string(CannotStart)) {
		t.Errorf("a port that is taken is given again: %v", err)
	}
	end(t, task)
	if err := task.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if out := said(t, one, "ask"); out != "" {
		t.Errorf("a container's own localhost said %q", out)
	}
	// A port is free again when its container has ended.
	if err := one.Stop(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	finished(t, one, 0)
	if got := answer(t, made(t, r, third), 8081); !strings.HasPrefix(got, "three ") {
		t.Errorf("behind port 8081, free again, is %q", got)
	}
}

// ranged has a row of ports of a host lead to as many of a container, and a row for
// datagrams to another's.
func ranged(t *testing.T, r Runtime, image string) {
	row := func(inside uint16, udp bool) (list []Port) {
		for i := range uint16(20) {
			list = append(list, Port{Host: 39000 + i, Inside: inside + i, UDP: udp})
		}
		return list
	}
	task := made(t, r, Spec{Network: BridgeNetwork, Host: "i-1", Containers: []Container{
		{Name: "web", Image: image, Env: []string{"GREETING=one"}, Ports: row(8070, false)},
		{Name: "echo", Image: image, Command: []string{"mirror"}, Ports: row(8110, true)},
	}})
	begin(t, task, "echo")
	if got := answer(t, task, 39010); !strings.HasPrefix(got, "one ") {
		t.Errorf("behind port 39010 is %q", got)
	}
	ready(t, task, "echo")
	if got := echoed(t, fmt.Sprintf("%s:39015", task.Address())); got != "hello" {
		t.Errorf("behind the datagrams' port 39015 came %q", got)
	}
	if resp, err := http.Get(fmt.Sprintf("http://%s:39019/", task.Address())); err == nil {
		resp.Body.Close()
		t.Errorf("behind port 39019 is %s, where nobody listens", resp.Status)
	}
}

// echoed sends a datagram until it comes back.
func echoed(t *testing.T, to string) string {
	t.Helper()
	c, err := net.Dial("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		c.Write([]byte("hello"))
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		b := make([]byte, 100)
		if n, err := c.Read(b); err == nil {
			return string(b[:n])
		}
	}
	return ""
}

func linked(t *testing.T, r Runtime, image string) {
	if podman(r) {
		t.Skip("Podman has no links")
	}
	task := made(t, r, Spec{Network: BridgeNetwork, Host: "i-1", Containers: []Container{
		{Name: "db", Image: image, Env: []string{"GREETING=db"}},
		{Name: "web", Image: image, Command: []string{"ask", "store:8080"}, Links: []Link{{"db", "store"}}},
		{Name: "other", Image: image, Command: []string{"ask", "db:8080"}, Links: []Link{{"db", "db"}}},
	}})
	for i, name := range []string{"web", "other"} {
		begin(t, task, name)
		finished(t, task, i+1)
		if out := said(t, task, name); !strings.HasPrefix(out, "db ") {
			t.Errorf("%s found %q", name, out)
		}
	}
}

func hosted(t *testing.T, r Runtime, image string) {
	spec := func(host string, c Container) Spec {
		c.Name, c.Image = "main", image
		return Spec{Network: HostNetwork, Host: host, Containers: []Container{c}}
	}
	one, two := made(t, r, spec("i-1", Container{Env: []string{"GREETING=one"}})), made(t, r, spec("i-2", Container{Env: []string{"GREETING=two"}}))
	for says, task := range map[string]Task{"one": one, "two": two} {
		if got := answer(t, task, 8080); !strings.HasPrefix(got, says+" ") {
			t.Errorf("at the host of %s is %q", says, got)
		}
	}
	beside := made(t, r, spec("i-1", Container{Command: []string{"ask", "localhost:8080"}}))
	if beside.Address() != one.Address() || one.Address() == two.Address() {
		t.Errorf("tasks of one host are at %v and %v, one of another at %v", one.Address(), beside.Address(), two.Address())
	}
	if idle(t, beside); !strings.HasPrefix(said(t, beside, "main"), "one ") {
		t.Errorf("at its host's localhost it found %q", said(t, beside, "main"))
	}
}

func unconnected(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Network: NoNetwork, Containers: []Container{{Name: "main", Image: image, Command: []string{"read", "/proc/net/dev"}}, {Name: "web", Image: image}}})
	begin(t, task, "web")
	finished(t, task, 0)
	if out := said(t, task, "main"); !strings.Contains(out, "lo:") || strings.Contains(out, "eth0:") {
		t.Errorf("its interfaces are %q", out)
	}
	if task.Address().IsValid() {
		t.Errorf("it is at %v", task.Address())
	}
	if code, err := task.Exec(t.Context(), "web", Command{Args: []string{"/app", "ask", "localhost:8080"}, Out: io.Discard}); err != nil || code != 0 {
		t.Errorf("a command in it ended with %d, %v", code, err)
	}
}

func TestAHostIsFoundAgainWithItsTasks(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		first, local := r.(*Local)
		spec := func(id string, mode Network, c Container) Spec {
			c.Name, c.Image, c.StopTimeout = "main", image, 300*time.Millisecond
			return Spec{ID: id, Network: mode, Host: "i-1", Containers: []Container{c}}
		}
		task := startSpec(t, r, spec("a", HostNetwork, Container{}))
		if !local {
			hostFoundAgain(t, r.(*Docker), task, spec("c", HostNetwork, Container{Command: []string{"ask", "localhost:8080"}}))
			return
		}
		behind := startSpec(t, r, spec("b", BridgeNetwork, Container{Ports: []Port{{Host: 8181, Inside: 8080}}}))
		first.Close()
		second, err := newLocal(first.mode, Config{Dir: first.dir, Log: first.log, Helper: first.helper})
		if err != nil {
			t.Fatal(err)
		}
		second.net = first.net
		found, err := second.Tasks(t.Context())
		if err != nil || len(found) != 2 {
			t.Fatalf("found %v, %v", found, err)
		}
		beside := startSpec(t, second, spec("c", HostNetwork, Container{Command: []string{"ask", "localhost:8080"}}))
		idle(t, beside)
		if beside.Address() != task.Address() || behind.Address() != task.Address() || said(t, beside, "main") == "" {
			t.Errorf("tasks of one host are at %v, %v and %v", task.Address(), behind.Address(), beside.Address())
		}
		if got := answer(t, behind, 8181); got == "" {
			t.Error("the port of the host leads nowhere")
		}
		for _, f := range append(found, beside) {
			end(t, f)
			if err := f.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if second.net != nil && len(second.net.hosts)+len(second.net.leased) > 0 {
			t.Errorf("left are %v and %v", second.net.hosts, second.net.leased)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
}

func shares(t *testing.T, r Runtime, image string) {
	withInit(t, r)
	containers := func() []Container {
		return []Container{
			{Name: "sleeps", Image: image, Command: []string{"sleep"}}, {Name: "looks", Image: image, Command: []string{"look"}},
			{Name: "makes", Image: image, Command: []string{"queues", "make"}}, {Name: "counts", Image: image, Command: []string{"queues"}},
			{Name: "writes", Image: image, Command: []string{"write", "/dev/shm/word", "hello"}}, {Name: "reads", Image: image, Command: []string{"read", "/dev/shm/word"}},
		}
	}
	all := func(task Task, from int) {
		for i, c := range containers()[from:] {
			begin(t, task, c.Name)
			finished(t, task, from+i)
		}
	}
	task := made(t, r, Spec{SharedPIDs: true, SharedIPC: true, Network: BridgeNetwork, Host: "i-1", Containers: containers()})
	all(task, 1)
	if c := finished(t, task, 0); c.ExitCode != 137 {
		t.Errorf("one that another has ended ended as %+v", c)
	}
	for name, want := range map[string]string{"looks": "found", "makes": "true", "counts": "1", "reads": "hello"} {
		if got := said(t, task, name); got != want {
			t.Errorf("%s said %q, want %q", name, got, want)
		}
	}
	begin(t, task, "sleeps") // what they share outlives each of them
	begin(t, task, "looks")
	until(t, task, func(st State) bool { return st.Containers[0].Starts == 2 && !st.Containers[0].Runs() })
	// By itself each has its own.
	alone := made(t, r, Spec{Containers: containers()})
	all(alone, 2)
	if counted, read := said(t, alone, "counts"), said(t, alone, "reads"); counted != "0" || read == "hello" {
		t.Errorf("they share nothing, and one counted %s, another read %q", counted, read)
	}
	begin(t, alone, "looks")
	if out := said(t, alone, "looks"); out != "" {
		t.Errorf("they share nothing, and one looked and %s", out)
	}
}

// hostFoundAgain is the same story where the daemon keeps the host.
func hostFoundAgain(t *testing.T, d *Docker, task Task, beside Spec) {
	d.mu.Lock()
	d.tasks, d.hosts = map[string]*dockerTask{}, map[string]map[string]bool{} // as a new program knows none
	d.mu.Unlock()
	found, err := d.Tasks(t.Context())
	if err != nil || len(found) != 1 || found[0].Address() != task.Address() {
		t.Fatalf("found %v, %v", found, err)
	}
	other := startSpec(t, d, beside)
	if idle(t, other); said(t, other, "main") == "" || other.Address() != task.Address() {
		t.Errorf("beside it, at %v, another at %v found %q", task.Address(), other.Address(), said(t, other, "main"))
	}
	for _, x := range []Task{found[0], other} {
		end(t, x)
		if err := x.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.api.ContainerInspect(t.Context(), d.hostName("i-1"), client.ContainerInspectOptions{}); !cerrdefs.IsNotFound(err) {
		t.Errorf("its host is left: %v", err)
	}
}
