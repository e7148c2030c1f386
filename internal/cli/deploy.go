package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/spf13/cobra"

	"serin/internal/release"
)

// serviceFlags name the service that a verb is about.
func serviceFlags(c *cobra.Command, s *release.Service) {
	c.Flags().StringVar(&s.Cluster, "cluster", "default", "ECS cluster")
	c.Flags().StringVar(&s.Name, "service", "", "ECS service")
}

// waitFlags are how long to wait, and for how long.
type waitFlags struct {
	timeout time.Duration
	every   time.Duration
	events  bool
	through bool // pauses
	// answered are pauses that may be told as waiting for a moment yet.
	answered []string
}

// pauses says that a deployment waits for an answer that nobody gave.
func (w waitFlags) pauses(d types.ServiceDeployment) bool {
	return release.VerdictOf(d) == release.Paused && slices.ContainsFunc(release.Waiting(d), func(h types.DeploymentLifecycleHookDetail) bool {
		return !slices.Contains(w.answered, aws.ToString(h.HookId))
	})
}

func (w *waitFlags) add(c *cobra.Command) {
	c.Flags().DurationVar(&w.timeout, "timeout", 0, "give up waiting after this long; the deployment goes on (0: never)")
	c.Flags().DurationVar(&w.every, "interval", 2*time.Second, "how often to look")
	c.Flags().BoolVar(&w.events, "events", false, "one JSON object for each change")
	c.Flags().BoolVar(&w.through, "through-pauses", false, "go on waiting while the deployment waits for an approval")
}

func (a *app) deploy() *cobra.Command {
	var s release.Service
	var w waitFlags
	var file, image, container string
	var force, noWait bool
	c := &cobra.Command{
		Use:   "deploy",
		Short: "Register a task definition, update the service, and see it through",
		Long: `Register a task definition and update a service to it, then wait for the verdict.

The file has AWS's own shape, as describe-task-definition prints it; read-only
fields are dropped. --image replaces the image of the container.

Exit codes: 0 deployed and stable, 1 failed, 3 rolled back, 4 still running
when the time was up, 5 paused until somebody approves (serin approve), 6 denied.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.Name == "" {
				return usage("--service must be given")
			}
			var in *ecs.RegisterTaskDefinitionInput
			if file != "" {
				raw, err := os.ReadFile(file)
				if err != nil {
					return fmt.Errorf("reading the task definition: %w", err)
				}
				if in, err = release.Definition(raw, container, image); err != nil {
					return err
				}
			} else if image != "" || !force {
				return usage("--task-definition FILE must be given, or --force to deploy the present one again")
			}
			client, err := a.ecs(c.Context(), true)
			if err != nil {
				return err
			}
			deployment, started, err := release.Update(c.Context(), client, s, in, force)
			if err != nil {
				return err
			}
			if !started {
				fmt.Fprintln(a.out, "nothing to deploy: the service runs this already")
				return nil
			}
			fmt.Fprintln(a.err, "deployment", deployment)
			if noWait {
				return nil
			}
			return a.follow(c.Context(), client, deployment, w)
		},
	}
	a.targetFlags(c)
	serviceFlags(c, &s)
	w.add(c)
	c.Flags().StringVar(&file, "task-definition", "", "task definition file")
	c.Flags().StringVar(&image, "image", "", "image of the container")
	c.Flags().StringVar(&container, "container", "", "container that gets the image (needed where there are several)")
	c.Flags().BoolVar(&force, "force", false, "deploy even if nothing changed")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the verdict")
	return c
}

func (a *app) watch() *cobra.Command {
	var s release.Service
	var w waitFlags
	c := &cobra.Command{Use: "watch", Short: "Watch the service's newest deployment to its end", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		client, deployment, err := a.current(c.Context(), s, false)
		if err != nil {
			return err
		}
		return a.follow(c.Context(), client, deployment, w)
	}}
	a.targetFlags(c)
	serviceFlags(c, &s)
	w.add(c)
	return c
}

func (a *app) rollback() *cobra.Command {
	var s release.Service
	var w waitFlags
	var noWait bool
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Roll the running deployment back: traffic first, tasks after",
		Long: `Ask the running deployment to roll back and wait until it has. The exit code says
what became of the deployment, as for deploy and watch: 3 when it was rolled back
as asked, 0 when it had gone too far and succeeded, 1 when it failed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, deployment, err := a.current(c.Context(), s, true)
			if err != nil {
				return err
			}
			if err := release.Rollback(c.Context(), client, deployment); err != nil {
				return err
			}
			if noWait {
				return nil
			}
			return a.follow(c.Context(), client, deployment, w)
		},
	}
	a.targetFlags(c)
	serviceFlags(c, &s)
	w.add(c)
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it has")
	return c
}

func (a *app) approve() *cobra.Command {
	var s release.Service
	var w waitFlags
	var hook string
	var back, noWait bool
	c := &cobra.Command{
		Use:   "approve",
		Short: "Let a paused deployment go on, or send it back",
		Long: `Answer the pauses that the service's newest deployment waits at, or the one that
--hook names, and see the deployment through. Exit codes are those of deploy: 5
when it pauses again, at the next step for instance.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			client, deployment, err := a.current(ctx, s, true)
			if err != nil {
				return err
			}
			d, err := release.Describe(ctx, client, deployment)
			if err != nil {
				return err
			}
			action := types.DeploymentLifecycleHookActionContinue
			if back {
				action = types.DeploymentLifecycleHookActionRollback
			}
			for _, h := range release.Waiting(d) {
				if hook != "" && hook != aws.ToString(h.HookId) {
					continue
				}
				if err := release.Answer(ctx, client, deployment, *h.HookId, action); err != nil {
					return err
				}
				w.answered = append(w.answered, *h.HookId)
				fmt.Fprintf(a.err, "%s: %s %s\n", strings.ToLower(string(action)), d.LifecycleStage, *h.HookId)
			}
			if w.answered == nil {
				return fmt.Errorf("deployment %s waits for no such approval: it is %s", deployment, progress(d))
			}
			if noWait {
				return nil
			}
			return a.follow(ctx, client, deployment, w)
		},
	}
	a.targetFlags(c)
	serviceFlags(c, &s)
	w.add(c)
	c.Flags().StringVar(&hook, "hook", "", "id of the pause to answer (default: all that wait)")
	c.Flags().BoolVar(&back, "rollback", false, "send the deployment back instead")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the verdict")
	return c
}

func (a *app) current(ctx context.Context, s release.Service, changes bool) (*ecs.Client, string, error) {
	if s.Name == "" {
		return nil, "", usage("--service must be given")
	}
	client, err := a.ecs(ctx, changes)
	if err != nil {
		return nil, "", err
	}
	deployment, err := release.Current(ctx, client, s)
	return client, deployment, err
}

// follow prints a deployment's changes and sets the exit code by its verdict.
// An interrupt lets go of it; it goes on.
func (a *app) follow(ctx context.Context, client *ecs.Client, deployment string, w waitFlags) error {
	wait := ctx
	if w.timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	last := ""
	d, err := release.Watch(wait, client, deployment, w.every, func(d types.ServiceDeployment) bool {
		enough := !w.through && w.pauses(d)
		line := progress(d)
		if line == last {
			return enough
		}
		last = line
		if w.events {
			json.NewEncoder(a.out).Encode(event(d))
		} else {
			fmt.Fprintln(a.out, time.Now().Format("15:04:05"), line)
		}
		return enough
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		fmt.Fprintf(a.err, "serin: detached; the deployment goes on. To attach again: serin watch%s\n", flagsOf(deployment))
		return errDetached
	}
	if err != nil {
		return err
	}
	verdict := release.VerdictOf(d)
	a.code = exitOf(verdict)
	if verdict == release.Paused {
		fmt.Fprintf(a.err, "serin: the deployment waits for an approval until %s. To give it: serin approve%s; to go back: add --rollback\n", release.Waiting(d)[0].ExpiresAt.UTC().Format(time.RFC3339), flagsOf(deployment))
		return nil
	}
	if d.Rollback != nil {
		a.safety(ctx, deployment)
	}
	if a.code != exitOK && os.Getenv("GITHUB_ACTIONS") == "true" {
		fmt.Fprintf(a.out, "::error::%s: %s\n", d.Status, aws.ToString(d.StatusReason))
	}
	return nil
}

// safety says how long it took until all traffic was back. The stage keeps that;
// AWS does not tell it.
func (a *app) safety(ctx context.Context, deployment string) {
	var rollbacks []struct{ Deployment, TimeToSafety string }
	if a.target.name != "stage" || a.ask(ctx, "GET", "/_serin/rollbacks", "", &rollbacks) != nil {
		return // a stand-in for the stage, or none any more: the verdict stands without it
	}
	for _, r := range rollbacks {
		if r.Deployment == deployment && r.TimeToSafety != "" {
			fmt.Fprintf(a.err, "serin: the source served again %s after the rollback began (stage time)\n", r.TimeToSafety)
		}
	}
}

// flagsOf are the flags that name a deployment's service.
func flagsOf(deployment string) string {
	parts := strings.Split(deployment, "/")
	return fmt.Sprintf(" --cluster %s --service %s", parts[1], parts[2])
}

// progress is one line of a deployment: stage, weights, counts.
func progress(d types.ServiceDeployment) string {
	var b strings.Builder
	fmt.Fprint(&b, d.Status)
	if d.LifecycleStage != "" {
		fmt.Fprint(&b, " ", d.LifecycleStage)
	}
	if release.VerdictOf(d) == release.Paused {
		fmt.Fprint(&b, " (paused)")
	}
	if t := d.TargetServiceRevision; t != nil {
		fmt.Fprintf(&b, "  target %s", summary(*t))
	}
	for _, s := range d.SourceServiceRevisions {
		fmt.Fprintf(&b, "  source %s", summary(s))
	}
	if c := d.DeploymentCircuitBreaker; c != nil && c.FailureCount > 0 {
		fmt.Fprintf(&b, "  failures %d/%d", c.FailureCount, c.Threshold)
	}
	if d.StatusReason != nil {
		fmt.Fprint(&b, "  ", *d.StatusReason)
	}
	return b.String()
}

func summary(s types.ServiceRevisionSummary) string {
	text := fmt.Sprintf("%d/%d running", s.RunningTaskCount, s.RequestedTaskCount)
	if s.RequestedProductionTrafficWeight != nil {
		text += fmt.Sprintf(" %g %% of traffic", *s.RequestedProductionTrafficWeight)
	}
	return text
}

func event(d types.ServiceDeployment) map[string]any {
	e := map[string]any{"time": time.Now().UTC(), "deployment": d.ServiceDeploymentArn, "status": d.Status, "lifecycleStage": d.LifecycleStage, "reason": aws.ToString(d.StatusReason)}
	side := func(s types.ServiceRevisionSummary) map[string]any {
		return map[string]any{"revision": s.Arn, "requested": s.RequestedTaskCount, "running": s.RunningTaskCount, "pending": s.PendingTaskCount, "production": s.RequestedProductionTrafficWeight}
	}
	if d.TargetServiceRevision != nil {
		e["target"] = side(*d.TargetServiceRevision)
	}
	for _, s := range d.SourceServiceRevisions {
		e["source"] = side(s)
	}
	return e
}
