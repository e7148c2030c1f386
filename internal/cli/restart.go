package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) restart() *cobra.Command {
	var drain time.Duration
	c := &cobra.Command{
		Use:   "restart",
		Short: "Start the stage again in its place, without closing its ports",
		Long: `Start the stage again, as after an upgrade of serin: with the same flags, the same
state and the same process id, by whatever program has the name now that it was
started by.

Tasks go on running. Requests to load balancers that are under way are answered,
for as long as --drain says; connections that come meanwhile wait until the new
stage takes them.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if drain < 0 {
				return usage("--drain must not be less than 0, got %v", drain)
			}
			var before, now struct{ Started time.Time }
			if err := a.ask(c.Context(), "POST", "/_serin/restart?drain="+drain.String(), "", &before); err != nil {
				return err
			}
			var err error
			for began := time.Now(); time.Since(began) < drain+30*time.Second; { // the new one answers what waits in its socket
				if err = a.ask(c.Context(), "GET", "/_serin/health", "", &now); err == nil && !now.Started.Equal(before.Started) {
					fmt.Fprintln(a.out, "serin: the stage has started again")
					return nil
				}
				select {
				case <-c.Context().Done():
					return c.Context().Err()
				case <-time.After(20 * time.Millisecond):
				}
			}
			return errors.Join(fmt.Errorf("the stage at %s was told to start again and has not", a.target.endpoint), err)
		},
	}
	c.Flags().DurationVar(&drain, "drain", 10*time.Second, "how long requests under way may go on")
	a.endpointFlag(c)
	return c
}
