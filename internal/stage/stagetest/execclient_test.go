package stagetest

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"serin/internal/release"
	"serin/internal/session"
)

// The release tool's own client of ECS Exec, to which a stage is as AWS.
func TestTheReleaseToolExecutesACommand(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		task := w.runsWithExec(w.taskRole("shop", channels), of("web", "1", nil))
		attend := func(ctx context.Context, in io.ReadCloser, args ...string) (string, error) {
			t.Helper()
			e, err := release.Execute(ctx, w.config, release.Command{Cluster: "default", Task: *task.TaskArn, Args: args})
			w.must(e, err)
			var shown strings.Builder
			code, err := e.Attend(ctx, session.Terminal{In: in, Out: &shown})
			if code != nil {
				t.Errorf("its code is %d", *code)
			}
			return shown.String(), err
		}
		typed := func(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }
		if shown, err := attend(t.Context(), typed(""), "say", "a  b", "", `c "d $HOME`, "it's"); err != nil || shown != "say a  b  c \"d $HOME it's\n" {
			t.Errorf("it showed %q and ended with %v", shown, err)
		}
		if shown, err := attend(t.Context(), typed("one\n"), "cat"); err != nil || shown != "one\n" {
			t.Errorf("it showed %q and ended with %v", shown, err)
		}
		if _, err := attend(t.Context(), typed(""), "none"); err == nil || !strings.Contains(err.Error(), "Unable to start command: Failed to start pty") {
			t.Errorf("what cannot be run ended with %v", err)
		}
		in, _ := io.Pipe()
		ctx, interrupt := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { _, err := attend(ctx, in, "cat"); ended <- err }()
		time.Sleep(time.Second)
		interrupt()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("an interrupted session ended with %v", err)
		}
		_, err := release.Execute(t.Context(), w.config, release.Command{Cluster: "default", Task: strings.Repeat("0", 32), Args: []string{"cat"}})
		if err == nil || !strings.Contains(err.Error(), "there is no task 0000") {
			t.Errorf("without a task it says %v", err)
		}
	})
}
