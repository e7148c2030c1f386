package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"serin/internal/run"
	"serin/internal/stage"
)

func (a *app) exec() *cobra.Command {
	var call stage.ExecCall
	c := &cobra.Command{
		Use:   "exec [flags] TASK -- COMMAND [ARG…]",
		Short: "Run a command in a container of a task, here or on AWS",
		Long: `Run a command in a container of a running task. -i gives the command what is
typed, -t a terminal; with both, a shell is at hand:

  serin exec -it TASK -- sh
  serin exec -it --target aws --cluster prod TASK -- sh

On the stage it has the container's user, environment and files, and this command
ends with its exit code; the task needs neither enableExecuteCommand nor a role.

On AWS it goes by ECS Exec, without the session-manager-plugin: the task must have
enableExecuteCommand, the command runs as root and on a terminal whatever is said
here, without a shell. Without -t that terminal has 300 columns and shows what is
typed; without -i its input is ended at once. AWS does not tell the exit code.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("TASK and COMMAND must be given, got %d arguments", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) (err error) {
			call.Task, call.Args = args[0], args[1:]
			if call.Region = a.target.region; a.target.name == "stage" {
				a.code, err = a.runExec(c.Context(), call)
			} else {
				a.code, err = a.execOnAWS(c.Context(), call)
			}
			return err
		},
	}
	a.targetFlags(c)
	c.Flags().StringVar(&call.Cluster, "cluster", "default", "cluster's name")
	c.Flags().StringVar(&call.Container, "container", "", "container's name, where the task has several")
	c.Flags().StringVarP(&call.User, "user", "u", "", "another user than the container's, on the stage")
	c.Flags().BoolVarP(&call.Input, "interactive", "i", false, "give the command this command's input")
	c.Flags().BoolVarP(&call.Terminal, "tty", "t", false, "give the command a terminal")
	return c
}

func (a *app) runExec(ctx context.Context, call stage.ExecCall) (code int, err error) {
	body, send := io.Pipe()
	defer body.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.stageURL()+"/_serin/exec", body)
	if err != nil {
		return 0, usage("the endpoint %q is not a URL: %v", a.target.endpoint, err)
	}
	lines := &inputLines{to: json.NewEncoder(send)}
	if call.Terminal {
		restore, err := ownTerminal(&call)
		if err != nil {
			return 0, err
		}
		defer restore()
	}
	over := make(chan struct{})
	defer close(over)
	go func() { // to the request's end: the pipe is closed then
		if lines.say(call) != nil {
			return
		}
		if call.Terminal {
			go eachSize(over, func(s run.Size) { lines.say(stage.ExecInput{Size: &s}) })
		}
		switch {
		case call.Input:
			io.Copy(lines, os.Stdin)
			lines.say(stage.ExecInput{End: true})
		case !call.Terminal:
			send.Close()
		}
	}()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, fmt.Errorf("calling the stage: %w", err)
	}
	defer resp.Body.Close()
	return a.readExec(resp.Body)
}

// readExec says what a command says, and how it ended.
func (a *app) readExec(said io.Reader) (code int, err error) {
	for lines := json.NewDecoder(said); ; {
		var l stage.ExecLine
		if err := lines.Decode(&l); errors.Is(err, io.EOF) {
			return 0, errors.New("the stage ended before the command did")
		} else if err != nil {
			return 0, fmt.Errorf("reading what the command says: %w", err)
		}
		switch {
		case l.Error != "":
			return 0, errors.New(l.Error)
		case l.Code != nil:
			return *l.Code, nil
		}
		if _, err := a.out.Write(l.Out); err != nil {
			return 0, err
		}
	}
}

// ownTerminal gives the command this command's terminal: its size, and where there is
// an input every key. restore puts the terminal back.
func ownTerminal(call *stage.ExecCall) (restore func(), err error) {
	fd := int(os.Stdin.Fd())
	if err := haveTerminal(); err != nil {
		return nil, err
	}
	call.Size = terminalSize()
	if !call.Input {
		return func() {}, nil
	}
	was, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("taking over the terminal: %w", err)
	}
	return func() { term.Restore(fd, was) }, nil
}

func haveTerminal() error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return usage("--tty wants a terminal, and the input is none")
	}
	return nil
}

func terminalSize() (s run.Size) {
	if w, h, err := term.GetSize(int(os.Stdin.Fd())); err == nil {
		s = run.Size{Columns: uint16(w), Rows: uint16(h)}
	}
	return s
}

// inputLines writes the lines of a request, each whole.
type inputLines struct {
	mu sync.Mutex
	to *json.Encoder
}

func (l *inputLines) say(line any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Encode(line)
}

func (l *inputLines) Write(b []byte) (int, error) { return len(b), l.say(stage.ExecInput{In: b}) }

// eachSize says each new size of the terminal until the command is over.
func eachSize(over <-chan struct{}, say func(run.Size)) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
			say(terminalSize())
		case <-over:
			return
		}
	}
}
