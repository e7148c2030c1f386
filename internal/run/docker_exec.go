package run

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// Exec has the daemon run a command. The daemon does not end one whose client is
// gone: it is ended here, where this machine is the daemon's.
func (t *dockerTask) Exec(ctx context.Context, name string, c Command) (int, error) {
	defer closeInput(c.In)
	at, err := t.at(name)
	if err != nil {
		return 0, err
	}
	fail := func(err error) (int, error) {
		return 0, cmp.Or(ctx.Err(), fmt.Errorf("running a command in container %s: %w", name, err))
	}
	api := t.runtime.api
	var size client.ConsoleSize
	if s, ok := c.first(); ok && c.Terminal {
		size = client.ConsoleSize{Height: uint(s.Rows), Width: uint(s.Columns)}
	}
	made, err := api.ExecCreate(ctx, t.ids[at], client.ExecCreateOptions{
		Cmd: c.Args, User: c.User, Env: c.Env, TTY: c.Terminal, ConsoleSize: size, AttachStdin: c.In != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return fail(err)
	}
	stream, err := api.ExecAttach(ctx, made.ID, client.ExecAttachOptions{TTY: c.Terminal, ConsoleSize: size})
	if err != nil {
		return fail(err)
	}
	x := &dockerExec{api: api, id: made.ID, container: t.ids[at], stream: stream.HijackedResponse, over: make(chan struct{})}
	defer x.end(c.In)
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // first: a daemon that sees its client go may end the command, but nobody else
		defer close(cut)
		x.kill(context.WithoutCancel(ctx))
		stream.Close()
	})
	x.feed(ctx, c, size)
	if c.Terminal {
		_, err = io.Copy(c.Out, stream.Reader)
	} else {
		_, err = stdcopy.StdCopy(c.Out, c.Out, stream.Reader)
	}
	if !stop() {
		<-cut
		return 0, ctx.Err()
	}
	ended, inspected := api.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	if inspected != nil {
		return fail(inspected)
	}
	if err != nil && ended.Running { // Podman resets the stream of one that ends with input left
		x.kill(ctx)
		return 0, err
	}
	return ended.ExitCode, nil
}

// dockerExec is one command that the daemon runs.
type dockerExec struct {
	api           *client.Client
	id, container string
	stream        client.HijackedResponse
	over          chan struct{}
	feeding       sync.WaitGroup
}

// feed sends input and sizes as they come.
func (x *dockerExec) feed(ctx context.Context, c Command, first client.ConsoleSize) {
	if c.In != nil {
		x.feeding.Go(func() {
			_, err := io.Copy(x.stream.Conn, c.In)
			switch {
			case err != nil:
			case c.Terminal:
				io.WriteString(x.stream.Conn, endOfInput)
			default:
				x.stream.CloseWrite()
			}
		})
	}
	if c.Terminal && c.Resize != nil {
		x.feeding.Go(func() { x.sizes(ctx, c.Resize, first) })
	}
}

// sizes hands the terminal its sizes. A daemon before API 1.42 gives it none at the
// start, and has none to give one to for a moment.
func (x *dockerExec) sizes(ctx context.Context, resize <-chan Size, size client.ConsoleSize) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		for size.Width > 0 && size.Height > 0 {
			if _, err := x.api.ExecResize(ctx, x.id, client.ExecResizeOptions(size)); err == nil {
				break
			}
			select {
			case <-again.C:
			case <-x.over:
				return
			}
		}
		select {
		case s, ok := <-resize:
			if !ok {
				return
			}
			size = client.ConsoleSize{Height: uint(s.Rows), Width: uint(s.Columns)}
		case <-x.over:
			return
		}
	}
}

func (x *dockerExec) end(in io.Closer) {
	close(x.over)
	x.stream.Close()
	closeInput(in)
	x.feeding.Wait()
}

// kill ends a command that goes on, if its process is one of this machine and of
// the container.
func (x *dockerExec) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := x.api.ExecInspect(ctx, x.id, client.ExecInspectOptions{})
	for err == nil && r.Running && r.PID == 0 { // it has begun, and the daemon has not written it down
		r, err = x.api.ExecInspect(ctx, x.id, client.ExecInspectOptions{})
	}
	if err != nil || !r.Running || r.PID <= 1 {
		return
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", r.PID))
	if err == nil && bytes.Contains(groups, []byte(x.container)) {
		endFamily(r.PID)
	}
}
