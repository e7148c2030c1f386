package run

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// Exec says its arguments, but for a few: "exit" and a number ends with that, "cat"
// says what it reads, "sizes" each size that its terminal gets, until it is ended,
// "who" its user, "none" cannot be started. Anything ends with 1 in a task whose
// image's tag is "sick".
func (t *fakeTask) Exec(ctx context.Context, container string, c Command) (code int, err error) {
	defer closeInput(c.In)
	st, _ := t.State()
	at := t.at(container)
	if at < 0 || !st.Containers[at].Runs() {
		return 0, fmt.Errorf("the container %s does not run", container)
	}
	if t.tags[at] == "sick" {
		return 1, nil
	}
	within, over := t.whileRuns(ctx, at)
	defer over()
	if code, err = act(within, c); within.Err() != nil && ctx.Err() == nil {
		return 137, nil // its container has ended
	}
	return code, err
}

// whileRuns is a context that ends with a container.
func (t *fakeTask) whileRuns(ctx context.Context, at int) (within context.Context, over func()) {
	within, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			st, changed := t.State()
			if !st.Containers[at].Runs() {
				cancel()
			}
			select {
			case <-changed:
			case <-within.Done():
				return
			}
		}
	})
	return within, func() { cancel(); watching.Wait() }
}

func act(ctx context.Context, c Command) (code int, err error) {
	switch name := c.Args[0]; {
	case name == "exit" && len(c.Args) == 2:
		return strconv.Atoi(c.Args[1])
	case name == "cat" && c.In != nil:
		return 0, cat(ctx, c)
	case name == "sizes":
		for {
			select {
			case s := <-c.Resize:
				fmt.Fprintf(c.Out, "%dx%d\n", s.Columns, s.Rows)
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	case name == "who":
		_, err = fmt.Fprintln(c.Out, c.User)
		return 0, err
	case name == "none":
		return 0, fmt.Errorf("exec: %q: executable file not found in $PATH", name)
	}
	_, err = fmt.Fprintln(c.Out, strings.Join(c.Args, " "))
	return 0, err
}

// cat says what it reads, until the end of it or of ctx; Ctrl-D is an end.
func cat(ctx context.Context, c Command) error {
	var reading sync.WaitGroup
	defer reading.Wait()
	defer c.In.Close()
	read := make(chan string)
	over := make(chan struct{})
	defer close(over)
	reading.Go(func() {
		defer close(read)
		for b := make([]byte, 4096); ; {
			n, err := c.In.Read(b)
			if n > 0 {
				select {
				case read <- string(b[:n]):
				case <-over:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for {
		select {
		case text, ok := <-read:
			said, _, end := strings.Cut(text, endOfInput)
			if _, err := io.WriteString(c.Out, said); err != nil || end || !ok {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
