package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"serin/internal/stage"
)

func (a *app) explain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [REQUEST-ID]",
		Short: "Say why the stage denied a request",
		Long: `Say why the stage denied the last request, or the one with an id: who asked for
what, each policy that was looked at, statement by statement, and the smallest
change that would allow it, as JSON to paste. AWS itself says none of this.

Every refusal carries its request id: the AWS CLI prints it with --debug, SDKs
have it in their errors.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id := "last"
			if len(args) == 1 {
				id = args[0]
			}
			if a.json {
				var raw json.RawMessage
				if err := a.ask(c.Context(), "GET", "/_serin/decisions/"+url.PathEscape(id), "", &raw); err != nil {
					return err
				}
				return a.printJSON(raw)
			}
			var d stage.Decision
			if err := a.ask(c.Context(), "GET", "/_serin/decisions/"+url.PathEscape(id), "", &d); err != nil {
				return err
			}
			fmt.Fprint(a.out, d.Text())
			return nil
		},
	}
	a.endpointFlag(c)
	a.outputFlag(c)
	return c
}

// printJSON writes JSON for machines, indented for the people behind them.
func (a *app) printJSON(raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return fmt.Errorf("reading the stage's answer: %w", err)
	}
	fmt.Fprintln(a.out, b.String())
	return nil
}

func (a *app) policy() *cobra.Command {
	var session, since string
	c := &cobra.Command{
		Use:   "policy --from-session NAME | --since TIME",
		Short: "Write the least privilege that would have sufficed for what a role did",
		Long: `Write the smallest identity policy, and the tightest trust policy, that would have
allowed what the stage saw users and roles do: in one session, or since a time.
A run under --iam report or off is the best one to learn from: nothing stops it.

  serin policy --from-session GitHubActions
  serin policy --since 10m
  serin policy --since 2026-11-25T08:00:00Z -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if (session == "") == (since == "") {
				return usage("give --from-session NAME or --since TIME")
			}
			q := url.Values{}
			if session != "" {
				q.Set("session", session)
			} else {
				from, err := moment(since, time.Now())
				if err != nil {
					return err
				}
				q.Set("since", from.UTC().Format(time.RFC3339))
			}
			var raw json.RawMessage
			if err := a.ask(c.Context(), "GET", "/_serin/policy?"+q.Encode(), "", &raw); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(raw)
			}
			return a.printLeast(raw)
		},
	}
	c.Flags().StringVar(&session, "from-session", "", "name of a role session, as in assumed-role/ROLE/NAME")
	c.Flags().StringVar(&since, "since", "", "a time, or how long ago: 10m")
	a.endpointFlag(c)
	a.outputFlag(c)
	return c
}

// moment is a point in time, or a duration before now.
func moment(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usage("--since must be a time like 2026-11-25T08:00:00Z or a duration like 10m, got %q", text)
	}
	return t, nil
}

func (a *app) printLeast(raw []byte) error {
	var list []stage.LeastPrivilege
	if err := json.Unmarshal(raw, &list); err != nil {
		return fmt.Errorf("reading the stage's answer: %w", err)
	}
	if len(list) == 0 {
		return fmt.Errorf("the stage saw no user or role do anything there; the administrator's own calls need no policy")
	}
	for i, l := range list {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		for _, d := range []struct {
			what string
			doc  any
			none bool
		}{{"identity policy", l.Identity, l.Identity == nil}, {"trust policy", l.Trust, l.Trust == nil}} {
			if d.none {
				continue
			}
			text, err := json.MarshalIndent(d.doc, "", "  ")
			if err != nil {
				return fmt.Errorf("writing a policy: %w", err)
			}
			fmt.Fprintf(a.out, "%s, %s\n%s\n", l.Principal, d.what, text)
		}
	}
	return nil
}
