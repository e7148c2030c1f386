package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"serin/internal/api/ecsd"
	"serin/internal/stage"
)

func (a *app) exec() *cobra.Command {
	var in struct {
		ecsd.Command
		Region string
	}
	c := &cobra.Command{
		Use:   "exec [flags] TASK -- COMMAND [ARG…]",
		Short: "Run a command in a container of a task on the stage",
		Long: `Run a command in a container of a running task on the stage, with its user,
environment and files, and end with the command's exit code. There is no terminal.
On AWS, aws ecs execute-command does it.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("TASK and COMMAND must be given, got %d arguments", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			in.Task, in.Args = args[0], args[1:]
			raw, err := json.Marshal(in)
			if err != nil {
				return err
			}
			a.code, err = a.runExec(c.Context(), raw)
			return err
		},
	}
	a.endpointFlag(c)
	c.Flags().StringVar(&in.Cluster, "cluster", "default", "cluster's name")
	c.Flags().StringVar(&in.Container, "container", "", "container's name, where the task has several")
	c.Flags().StringVar(&in.Region, "region", "", "the task's region")
	return c
}

func (a *app) runExec(ctx context.Context, command []byte) (code int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.stageURL()+"/_serin/exec", bytes.NewReader(command))
	if err != nil {
		return 0, usage("the endpoint %q is not a URL: %v", a.target.endpoint, err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, fmt.Errorf("calling the stage: %w", err)
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
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
