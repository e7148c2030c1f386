package ecsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/run"
	"serin/internal/session"
	"serin/internal/store"
)

// idleTime is after which a session ends on which nothing happens, documented; wall
// time, for a person is at the other end.
const idleTime = 20 * time.Minute

// agentVersion is one of the agent's that can do what is done here.
const agentVersion = "3.3.859.0"

// Attend serves a session to the client that brings its token, to the end of the
// command, of its container or of the client. It is ErrToken where there is none.
func (a *API) Attend(ctx context.Context, conn session.Conn, name, token string) error {
	s, err := a.takeSession(name, token)
	if err != nil {
		return err
	}
	agent := session.Agent{Session: s.ID, Version: agentVersion, Idle: idleTime}
	err = agent.Serve(ctx, conn, func(ctx context.Context, t session.Terminal) error { return a.perform(ctx, s, t) })
	a.log.Info("a session ended", "task", lastPart(s.Task), "container", s.Container, "err", err)
	return nil
}

// perform runs a session's command, as root, whatever user the container has;
// documented. What keeps it from running is told as the agent tells it, observed.
func (a *API) perform(ctx context.Context, s execSession, t session.Terminal) error {
	args, err := splitCommand(s.Command)
	if err != nil {
		return fmt.Errorf("Failed to parse commands input: %w", err) //lint:ignore ST1005 the agent's words
	}
	g := a.agent.Load()
	if g == nil {
		return errors.New("the stage's runtime is not ready")
	}
	h, _ := g.handle(s.Task)
	if h == nil {
		return errors.New("the task has stopped")
	}
	out := t.Out
	if log := a.transcript(s); log != nil {
		defer log.flush()
		out = io.MultiWriter(out, log)
	}
	ctx, done := context.WithCancel(ctx)
	var relaying sync.WaitGroup
	defer relaying.Wait()
	defer done()
	sizes := make(chan run.Size, 1)
	relaying.Go(func() { relay(ctx, t.Sizes, sizes) })
	_, err = h.Exec(ctx, s.Container, run.Command{Args: args, User: "0", Env: []string{"TERM=xterm-256color"}, In: t.In, Out: out, Terminal: true, Resize: sizes})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("----------ERROR-------\nUnable to start command: Failed to start pty: %w", err)
	}
	return nil
}

// relay hands a terminal's sizes on; only the last one counts.
func relay(ctx context.Context, from <-chan session.Size, to chan run.Size) {
	for {
		select {
		case s := <-from:
			select {
			case <-to:
			default:
			}
			to <- run.Size(s)
		case <-ctx.Done():
			return
		}
	}
}

// transcript is where what a session shows is logged, as its cluster says: in the
// container's own log group, or another. Its stream is the session's, observed; it
// is written by the task's role, documented. nil: it is not logged.
func (a *API) transcript(s execSession) *transcript {
	scope, _ := arn.ParseKey(s.Task)
	var t task
	var d types.TaskDefinition
	var config *types.ExecuteCommandConfiguration
	a.store.View(func(tx *store.Tx) {
		t, _ = a.tasks.Get(tx, s.Task)
		d, _ = a.definitionOf(tx, scope, t)
		c, _ := a.clusters.Get(tx, scope.Key(t.Cluster))
		config = c.Exec
	})
	where, group := scope, ""
	for _, c := range t.Containers {
		if c.Name == s.Container && c.LogGroup != "" {
			where.Region, group, _ = strings.Cut(c.LogGroup, "|")
		}
	}
	if config != nil {
		switch config.Logging {
		case types.ExecuteCommandLoggingNone:
			return nil
		case types.ExecuteCommandLoggingOverride:
			where, group = scope, aws.ToString(config.LogConfiguration.CloudWatchLogGroupName)
		}
	}
	if group == "" {
		return nil
	}
	log := &transcript{put: func(line string) error {
		return a.deps.Logs.Put(where, taskRole(d, scope, t), group, s.ID, []LogEvent{{a.clock.Now(), line}})
	}}
	if err := a.deps.Logs.Open(where, taskRole(d, scope, t), group, s.ID, false); err != nil {
		a.log.Warn("a session is not logged", "task", t.ID, "container", s.Container, "err", err)
		return nil
	}
	return log
}

// transcript makes an event of each line.
type transcript struct {
	put  func(line string) error
	line []byte
}

// Write keeps a line's beginning until its end comes, or it is as long as an event
// may be. A log that cannot be written does not keep the person from their command.
func (t *transcript) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		at := bytes.IndexByte(b, '\n')
		piece := b[:max(at, 0)]
		if at < 0 {
			piece = b
		}
		piece = piece[:min(len(piece), eventBytes-len(t.line))]
		t.line, b = append(t.line, piece...), b[len(piece):]
		if at >= 0 && len(piece) == at {
			b = b[1:]
			t.flush()
		} else if len(t.line) >= eventBytes {
			t.flush()
		}
	}
	return n, nil
}

func (t *transcript) flush() {
	if line := strings.TrimSuffix(string(t.line), "\r"); line != "" {
		t.put(line)
	}
	t.line = t.line[:0]
}

// splitCommand splits a command as the agent does, without a shell: at blanks, but for what
// is quoted. A command of nothing is sh.
func splitCommand(command string) (list []string, err error) {
	word, begun, quote, escaped := strings.Builder{}, false, rune(0), false
	for _, r := range command {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, begun = true, true
		case r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, begun = r, true
		case strings.ContainsRune(" \t\r\n", r):
			if begun {
				list = append(list, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	switch {
	case escaped:
		return nil, errors.New("EOF found after escape character")
	case quote != 0:
		return nil, errors.New("EOF found when expecting closing quote")
	case begun:
		list = append(list, word.String())
	}
	if len(list) == 0 {
		list = []string{"sh"}
	}
	return list, nil
}
