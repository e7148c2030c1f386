//go:build linux

package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// console is what a person has before them: it keeps what a terminal says.
type console struct {
	in *io.PipeWriter
	Command

	mu   sync.Mutex
	said bytes.Buffer
	more chan struct{}
}

func newConsole(args ...string) *console {
	r, w := io.Pipe()
	c := &console{in: w, more: make(chan struct{}, 1)}
	c.Command = Command{Args: args, In: r, Out: c, Terminal: true}
	return c
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
	return c.said.Write(b)
}

// until waits for a text and takes what was said up to it.
func (c *console) until(t *testing.T, text string) string {
	t.Helper()
	for deadline := time.After(patience); ; {
		c.mu.Lock()
		said := c.said.String()
		if before, _, ok := strings.Cut(said, text); ok {
			c.said.Next(len(before) + len(text))
			c.mu.Unlock()
			return before
		}
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-deadline:
			t.Fatalf("it did not say %q but %q", text, said)
		}
	}
}

// began runs a command beside the test.
func began(ctx context.Context, task Task, c Command) <-chan result {
	ended := make(chan result, 1)
	go func() {
		code, err := task.Exec(ctx, "main", c)
		ended <- result{code, err}
	}()
	return ended
}

type result struct {
	code int
	err  error
}

func (r result) String() string { return fmt.Sprint(r.code, " ", r.err) }

func commandInput(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Containers: []Container{{Name: "main", Image: image}}})
	text := strings.Repeat("0123456789abcdef", 20_000)
	var out bytes.Buffer
	code, err := task.Exec(t.Context(), "main", Command{Args: []string{"/app", "echo"}, In: io.NopCloser(strings.NewReader(text)), Out: &out})
	if want := text + fmt.Sprintln(len(text), error(nil)); err != nil || code != 0 || out.String() != want {
		t.Errorf("it ended with %d, %v and said %d bytes, want %d", code, err, out.Len(), len(want))
	}
	// One that does not read does not keep anybody.
	in, w := io.Pipe()
	go func() {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	if code, err := task.Exec(t.Context(), "main", Command{Args: []string{"/app", "exit"}, In: in, Out: io.Discard}); code != 7 || err != nil {
		t.Errorf("a command that does not read ended with %d, %v", code, err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("its input is still open")
	}
}

func commandTerminal(t *testing.T, r Runtime, image string) {
	task := made(t, r, Spec{Containers: []Container{{Name: "main", Image: image, User: "joe"}}})
	sizes := make(chan Size, 1)
	sizes <- Size{Columns: 101, Rows: 33}
	c := newConsole("/app", "terminal")
	c.Resize = sizes
	ended := began(t.Context(), task, c.Command)
	said := c.until(t, "\r\n")
	if late, ok := strings.CutPrefix(said, "true 0 0"); ok && r.Name() == "docker" { // before its API 1.42
		c.until(t, "size 101 33\r\n")
		said = "true 101 33" + late
	}
	user, name := 77, "/dev/pts/"
	switch {
	case r.Name() == "native": // its container's first
		name += "0"
	case r.Name() == "confined": // below a root of its own it has no name
		name = ""
		if os.Geteuid() != 0 {
			user = os.Getuid()
		}
	}
	if want := fmt.Sprintf("true 101 33 xterm %d %s", user, name); !strings.HasPrefix(said, want) {
		t.Errorf("its terminal is %q, want %q", said, want)
	}
	io.WriteString(c.in, "hello\r") // the terminal says it, and makes a line of it
	c.until(t, "hello\r\nread hello\r\n")
	sizes <- Size{Columns: 80, Rows: 25}
	c.until(t, "size 80 25\r\n")
	io.WriteString(c.in, "\x03")
	c.until(t, "interrupted\r\n")
	io.WriteString(c.in, "\x04")
	c.until(t, "the end\r\n")
	if got := <-ended; got.code != 9 || got.err != nil {
		t.Errorf("it ended with %v", got)
	}
	if _, err := c.in.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("its input after its end: %v", err)
	}
	// The end of the input is the same, and root is whom one asks for.
	c = newConsole("/app", "terminal")
	c.User, c.Env = "0", []string{"TERM=vt220"}
	ended = began(t.Context(), task, c.Command)
	if said, want := c.until(t, "\r\n"), fmt.Sprint(" vt220 ", min(os.Geteuid(), user), " "); !strings.Contains(said, want) && (os.Geteuid() == 0 || r.Name() != "rootless") {
		t.Errorf("its terminal is %q, not root's", said)
	}
	c.in.Close()
	c.until(t, "the end\r\n")
	if got := <-ended; got.code != 9 || got.err != nil {
		t.Errorf("it ended with %v", got)
	}
}

// Signals are not ignored because those that start programs ignore them.
func TestAKeyInterruptsACommand(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, nil)
		get(t, task)
		console := newConsole("/app", "sleep")
		ended := began(t.Context(), task, console.Command)
		console.until(t, "asleep")
		io.WriteString(console.in, "\x03")
		if got := <-ended; got.code != 130 || got.err != nil {
			t.Errorf("it ended with %v", got)
		}
	})
}

func TestACommandEndsWithItsContainer(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, nil)
		get(t, task)
		console := newConsole("/app", "sleep", mark(t))
		ended := began(t.Context(), task, console.Command)
		console.until(t, "asleep")
		end(t, task)
		if got := <-ended; got.code == 0 && got.err == nil {
			t.Errorf("it ended with %v", got)
		}
		left(t, 0)
	})
}

// mark is an argument of the processes of one test, in one run of it.
func mark(t *testing.T) string { return fmt.Sprint(t.Name(), " ", os.Getpid()) }

// commands counts the processes of this machine that sleep with the test's mark.
func commands(t *testing.T) (n int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		if raw, err := os.ReadFile(file); err == nil && bytes.HasSuffix(raw, []byte("\x00sleep\x00"+mark(t)+"\x00")) {
			n++
		}
	}
	return n
}

// left waits until at most so many of the test's processes are left.
func left(t *testing.T, most int) {
	t.Helper()
	for deadline := time.Now().Add(patience); commands(t) > most; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes are left, want %d", commands(t), most)
		}
	}
}

// shimFiles counts the descriptors of a task's shim.
func shimFiles(t *testing.T, task Task) int {
	local, ok := task.(*localTask)
	if !ok {
		return 0
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		raw, _ := os.ReadFile(file)
		if !bytes.Contains(raw, []byte("serin-shim\x00"+local.dir+"\x00")) {
			continue
		}
		open, err := os.ReadDir(filepath.Dir(file) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	t.Fatal("the task has no shim")
	return 0
}

func TestTheEndOfACommandIsThatOfItsChildren(t *testing.T) {
	each(t, func(t *testing.T, r Runtime, image string) {
		task := start(t, r, "a", image, nil)
		get(t, task)
		survivors, open := 0, 0
		for i, c := range []struct {
			terminal, cut bool
			args          []string
		}{{false, false, []string{"/app", "family", mark(t), "end"}}, {true, false, []string{"/app", "family", mark(t), "end"}}, {false, true, []string{"/app", "family", mark(t)}}, {true, true, []string{"/app", "family", mark(t)}}} {
			if r.Name() == "docker" && !c.cut {
				continue // the daemon leaves what a command that ends by itself leaves
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			console := newConsole(c.args...)
			console.Terminal = c.terminal
			ended := began(ctx, task, console.Command)
			console.until(t, "family")
			want := result{0, nil}
			if c.cut {
				cancel()
				want.err = context.Canceled
			}
			if got := <-ended; got.code != 0 || !errors.Is(got.err, want.err) {
				t.Errorf("%+v ended with %v", c, got)
			}
			// A child in a session of its own survives a parent that ends by itself, as
			// a daemon does; nobody survives one that is cut off.
			if !c.cut {
				survivors++
			}
			left(t, survivors)
			survivors = commands(t)
			if i == 1 { // a survivor's filter is open, too
				open = shimFiles(t, task)
			}
		}
		for deadline := time.Now().Add(patience); shimFiles(t, task) > open; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the shim has %d files open, had %d", shimFiles(t, task), open)
			}
		}
	})
}
