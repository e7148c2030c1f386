// Package cli is the command line: one file for each verb. It reads flags and
// the environment, calls release, rehearse or stage, and turns what comes back
// into words and an exit code. Nothing else reads the environment.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"serin/examples/web"
	"serin/internal/run"
	"serin/internal/stage"
)

// app is what every verb shares.
type app struct {
	out, err io.Writer
	code     int
	target   target
	json     bool
}

// Main runs the command line and returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	run.Reexec()
	if len(args) == 1 && args[0] == exampleVerb {
		if err := web.Main(); err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}
	a := &app{out: stdout, err: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root.ExecuteContext(ctx); err != nil {
		return a.fail(err)
	}
	return a.code
}

// exampleVerb makes this program the example service of the demo's images.
const exampleVerb = "example-web"

func (a *app) root() *cobra.Command {
	c := &cobra.Command{
		Use:   "serin",
		Short: "Rehearse an Amazon ECS release on this machine, then perform it on AWS",
		Long: `Serin is a local AWS region for the release path and the tool that releases.

  serin demo                 the whole path on this machine, about a minute
  serin up                   a local region on port 4566
  eval "$(serin env)"        your own tools speak to it
  serin deploy …             release to it, or with --target aws to AWS`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; serin --help lists them", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err.Error()} })
	c.AddCommand(a.demo(), a.up(), a.down(), a.restart(), a.status(), a.env(), a.time(), a.reset(), a.deploy(), a.watch(), a.approve(), a.rollback(), a.image(), a.instances(), a.cost(), a.spot(), a.capacity(), a.exec(), a.gc(), a.events(), a.top(), a.explain(), a.policy(), a.version())
	return c
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Run: func(*cobra.Command, []string) {
		fmt.Fprintln(a.out, "serin", stage.Version)
	}}
}

var errDetached = errors.New("detached")
