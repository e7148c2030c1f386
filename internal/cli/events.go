package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"serin/internal/events"
	"serin/internal/stage"
)

func (a *app) events() *cobra.Command {
	var follow bool
	var limit int
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happened on the stage, as EventBridge would tell it",
		Long: `Show the newest events of the stage, one a line: changes of tasks, deployments,
services and hooks in EventBridge's form, and Serin's own hints. With --follow,
go on with what happens until Ctrl-C. With -o json each line is an event in its
envelope. serin up --events-to URL posts them.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > events.Most {
				return usage("--limit must be between 1 and %d, got %d", events.Most, limit)
			}
			var page stage.EventPage
			if err := a.ask(c.Context(), "GET", "/_serin/events?limit="+strconv.Itoa(limit), "", &page); err != nil {
				return err
			}
			for _, raw := range page.Events {
				if err := a.printEvent(raw); err != nil {
					return err
				}
			}
			if !follow {
				return nil
			}
			err := a.followEvents(c.Context(), page.Last)
			if c.Context().Err() != nil {
				return nil // Ctrl-C is how it ends
			}
			return err
		},
	}
	a.endpointFlag(c)
	a.outputFlag(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	c.Flags().IntVar(&limit, "limit", 20, "how many of the newest")
	return c
}

// followEvents prints what comes after an event until the stage or ctx ends.
func (a *app) followEvents(ctx context.Context, after uint64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.stageURL()+"/_serin/events?"+url.Values{"after": {strconv.FormatUint(after, 10)}}.Encode(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "text/event-stream")
	out, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("calling the stage: %w", err)
	}
	defer out.Body.Close()
	if out.StatusCode != http.StatusOK {
		return fmt.Errorf("the stage answered %s", out.Status)
	}
	for lines := bufio.NewReader(out.Body); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(a.err, "serin: the stage has ended")
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the stage's events: %w", err)
		}
		if raw, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			if err := a.printEvent(bytes.TrimSpace(raw)); err != nil {
				return err
			}
		}
	}
}

func (a *app) printEvent(raw json.RawMessage) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(raw)
	}
	var e events.Event
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("reading an event: %w", err)
	}
	said, err := sayEvent(e)
	if err != nil {
		return err
	}
	subject := strings.Join(e.Resources[:min(len(e.Resources), 1)], "")
	fmt.Fprintln(a.out, e.Time.Format("15:04:05"), subject[strings.LastIndexByte(subject, ':')+1:], said)
	return nil
}

// sayEvent is what an event says, in a few words.
func sayEvent(e events.Event) (string, error) {
	var d struct {
		EventName, Reason, Message, LifecycleStage, HookID string
		LastStatus, DesiredStatus, StoppedReason           string
	}
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		return "", fmt.Errorf("reading event %s: %w", e.ID, err)
	}
	words := []string{d.EventName, d.Reason, d.Message, d.LifecycleStage, d.HookID}
	if d.LastStatus != "" {
		words = []string{d.LastStatus}
		if d.DesiredStatus != d.LastStatus && d.DesiredStatus == "STOPPED" {
			words = append(words, "to be STOPPED")
		}
		words = append(words, d.StoppedReason)
	}
	var said []string
	for _, w := range words {
		if w != "" {
			said = append(said, w)
		}
	}
	return strings.Join(said, ", "), nil
}
