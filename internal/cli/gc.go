package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"serin/internal/run"
)

func (a *app) gc() *cobra.Command {
	var dry, all bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what stages that crashed have left on this machine",
		Long: `Remove what stages that are no more have left on this machine: processes of
tasks, bridges, cgroups, containers and networks at the Docker daemon, directories
of stages that keep nothing.

The tasks of a stage that keeps its state go on when it is down, and are found
again by serin up; they are listed, and end with --all.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runGC(c.Context(), dry, all) },
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "say what there is and remove nothing")
	c.Flags().BoolVar(&all, "all", false, "end the tasks of stages that keep their state, too")
	return c
}

func (a *app) runGC(ctx context.Context, dry, all bool) error {
	found, err := run.Leftovers(ctx)
	errs := []error{err}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, l := range found {
		what := "removed"
		switch {
		case l.Kept && !all:
			what = "kept, for serin up to find"
			if len(l.Processes)+len(l.Docker) == 0 {
				continue
			}
		case dry:
			what = "left"
		default:
			if err := l.Remove(ctx); err != nil {
				what = "not removed"
				errs = append(errs, fmt.Errorf("removing what %s left: %w", l.Dir, err))
			}
		}
		list := append(append([]string(nil), l.Bridges...), l.Docker...)
		fmt.Fprintf(w, "%s\t%s\t%d processes\t%s\n", what, l.Dir, len(l.Processes), strings.Join(list, ", "))
	}
	if len(found) == 0 && err == nil {
		fmt.Fprintln(a.out, "serin: nothing is left")
	}
	return errors.Join(append(errs, w.Flush())...)
}
