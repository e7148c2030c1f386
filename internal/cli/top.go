package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"serin/internal/stage"
)

func (a *app) top() *cobra.Command {
	var count int
	var once bool
	var interval time.Duration
	c := &cobra.Command{
		Use:   "top",
		Short: "Show live what the stage's load balancers carry, and to which revision",
		Long: `Show, once a second, what the stage's load balancers carry: down to listeners, rules
and target groups with their weights, and by service and revision. Rates and
percentiles are of the interval. SHARE is of the requests of the rule or service,
WEIGHT what is in force, with what is wanted where that differs. Ctrl-C ends it.

  serin top --once           one interval, and the end
  serin top | tee log        intervals one after another
  serin top -o json          an object for each interval, on a line

A connection of a network load balancer counts as a request. The same numbers are
at /_serin/metrics for Prometheus, in all, and each minute in CloudWatch.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case a.target.name == "aws":
				return &hintedError{usage("serin top reads the stage's own load balancers; AWS tells of its own only by the minute"),
					"CloudWatch has them in AWS/ApplicationELB and AWS/NetworkELB: RequestCount, HTTPCode_Target_5XX_Count, TargetResponseTime by TargetGroup and LoadBalancer"}
			case a.target.name != "stage":
				return usage("--target must be stage, got %q", a.target.name)
			case count < 0:
				return usage("--count must not be negative, got %d", count)
			case interval < 100*time.Millisecond:
				return usage("--interval must be at least 100ms, got %v", interval)
			case once:
				count = 1
			}
			err := a.runTop(c.Context(), interval, count)
			if c.Context().Err() != nil {
				return nil // Ctrl-C is how it ends
			}
			return err
		},
	}
	a.endpointFlag(c)
	a.outputFlag(c)
	c.Flags().StringVar(&a.target.name, "target", "stage", "stage")
	c.Flags().IntVarP(&count, "count", "n", 0, "how many intervals; 0 for as many as there are")
	c.Flags().BoolVar(&once, "once", false, "one interval, as -n 1")
	c.Flags().DurationVar(&interval, "interval", time.Second, "how long an interval is")
	return c
}

// runTop shows so many intervals, 0 for all until ctx ends.
func (a *app) runTop(ctx context.Context, interval time.Duration, count int) error {
	var before stage.Traffic
	if err := a.ask(ctx, "GET", "/_serin/traffic", "", &before); err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	s := a.openScreen(count == 1)
	defer s.close()
	for n := 0; count == 0 || n < count; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var now stage.Traffic
		if err := a.ask(ctx, "GET", "/_serin/traffic", "", &now); err != nil {
			return err
		}
		if err := s.show(topBetween(before, now), a.target.endpoint); err != nil {
			return err
		}
		before = now
	}
	return nil
}

// topScreen is where intervals are shown: a terminal that is drawn anew each time,
// or whatever takes one after another.
type topScreen struct {
	out    io.Writer
	json   bool
	colour bool
	size   func() (width, height int) // nil: as wide and high as it likes
	whole  bool                       // it has the terminal for itself
}

// What terminals are told.
const (
	takeScreen = "\x1b[?1049h\x1b[?25l" // the other screen, without a cursor
	giveScreen = "\x1b[?25h\x1b[?1049l"
	firstLine  = "\x1b[H"
	restOfLine = "\x1b[K"
	restOfAll  = "\x1b[J"
)

func (a *app) openScreen(once bool) *topScreen {
	s := &topScreen{out: a.out, json: a.json}
	f, ok := a.out.(*os.File)
	if a.json || !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return s
	}
	s.colour = os.Getenv("NO_COLOR") == ""
	s.size = func() (width, height int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 80, 24
		}
		return cmp.Or(width, 80), cmp.Or(height, 24)
	}
	if s.whole = !once; s.whole {
		io.WriteString(s.out, takeScreen)
	}
	return s
}

// close gives the terminal back.
func (s *topScreen) close() {
	if s.whole {
		io.WriteString(s.out, giveScreen)
	}
}

func (s *topScreen) show(v topView, endpoint string) error {
	if s.json {
		return json.NewEncoder(s.out).Encode(v)
	}
	width, height := 0, 0
	if s.size != nil {
		width, height = s.size()
	}
	if !s.whole {
		height = 0
	}
	lines := append([]string{fit(fmt.Sprintf("serin top  %s  %s  stage time %s  %.1f s", endpoint, v.At.Local().Format("15:04:05"), v.StageTime.Format(time.RFC3339), v.Seconds), width)}, v.table(width, s.colour)...)
	if len(v.LoadBalancers)+len(v.Services) == 0 {
		lines = append(lines, fit("there is no load balancer and no service yet", width))
	}
	if height > 0 && len(lines) > height {
		left := len(lines) - height + 1
		lines = append(lines[:height-1], fit(fmt.Sprintf("… %d more lines; a higher terminal has room for them", left), width))
	}
	var b bytes.Buffer
	if s.whole {
		b.WriteString(firstLine)
		for i, line := range lines {
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(line + restOfLine)
		}
		b.WriteString(restOfAll)
	} else {
		for _, line := range lines {
			b.WriteString(line + "\n")
		}
		if s.size == nil {
			b.WriteString("\n")
		}
	}
	_, err := s.out.Write(b.Bytes())
	return err
}
