package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"serin/internal/release"
	"serin/internal/stage"
)

func (a *app) status() *cobra.Command {
	var s release.Service
	var balancer string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the stage, or a service and its deployment",
		Long: `Show the stage: time, runtime, load balancers. With --service, show a service,
here or on AWS: counts, the deployment under way or the task sets, the newest
events. With --url NAME, print where a load balancer of the stage is reached,
and nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.Name != "" {
				return a.serviceStatus(c.Context(), s)
			}
			if a.target.name != "stage" {
				return usage("--target %s needs --service", a.target.name)
			}
			return a.stageStatus(c.Context(), balancer)
		},
	}
	a.targetFlags(c)
	serviceFlags(c, &s)
	a.outputFlag(c)
	c.Flags().StringVar(&balancer, "url", "", "load balancer whose URL is wanted")
	return c
}

func (a *app) stageStatus(ctx context.Context, balancer string) error {
	var st stage.Status
	if err := a.ask(ctx, "GET", "/_serin/status", "", &st); err != nil {
		return err
	}
	if balancer != "" {
		urls := st.Balancers[balancer]
		if len(urls) == 0 {
			return fmt.Errorf("the stage has no load balancer %q that listens; it has %s", balancer, orNone(slices.Sorted(maps.Keys(st.Balancers))))
		}
		fmt.Fprintln(a.out, urls[0])
		return nil
	}
	if a.json {
		return json.NewEncoder(a.out).Encode(st)
	}
	most := ""
	if st.Registry.Max > 0 {
		most = " of at most " + units.BytesSize(float64(st.Registry.Max))
	}
	a.rows([][2]string{
		{"endpoint", st.Endpoint}, {"account", st.Account}, {"up", st.Up},
		{"stage time", fmt.Sprintf("%s, %g seconds a second", st.Time.Format(time.RFC3339), st.Speed)},
		{"runtime", st.Runtime + " (" + st.Reason + ")"}, {"IAM", string(st.IAM)},
		{"registry", units.BytesSize(float64(st.Registry.Bytes)) + most}, {"authority", st.Authority},
	})
	for _, name := range slices.Sorted(maps.Keys(st.Balancers)) {
		a.rows([][2]string{{"balancer", name + " at " + strings.Join(st.Balancers[name], ", ")}})
	}
	return nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (a *app) rows(rows [][2]string) {
	for _, r := range rows {
		fmt.Fprintf(a.out, "%-12s %s\n", r[0], r[1])
	}
}

// newestEvents is how many events people are shown.
const newestEvents = 5

func (a *app) serviceStatus(ctx context.Context, s release.Service) error {
	client, err := a.ecs(ctx, false)
	if err != nil {
		return err
	}
	out, err := client.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &s.Cluster, Services: []string{s.Name}})
	if err != nil {
		return fmt.Errorf("describing the service: %w", err)
	}
	if len(out.Services) == 0 {
		return fmt.Errorf("there is no service %s in cluster %s", s.Name, s.Cluster)
	}
	service := out.Services[0]
	var deployment *types.ServiceDeployment
	if service.CurrentServiceDeployment != nil {
		d, err := release.Describe(ctx, client, *service.CurrentServiceDeployment)
		if err != nil {
			return err
		}
		deployment = &d
	}
	if a.json {
		return json.NewEncoder(a.out).Encode(map[string]any{"service": service, "serviceDeployment": deployment})
	}
	definition := aws.ToString(service.TaskDefinition)
	a.rows([][2]string{
		{"service", aws.ToString(service.ServiceName) + ", " + aws.ToString(service.Status)},
		{"definition", definition[strings.LastIndexByte(definition, '/')+1:]},
		{"tasks", fmt.Sprintf("%d of %d running, %d pending", service.RunningCount, service.DesiredCount, service.PendingCount)},
	})
	if deployment != nil {
		a.rows([][2]string{{"deployment", progress(*deployment)}})
	}
	for _, ts := range service.TaskSets {
		a.rows([][2]string{{"task set", fmt.Sprintf("%s %s, %d of %d running, %d pending, %s", aws.ToString(ts.Id), aws.ToString(ts.Status), ts.RunningCount, ts.ComputedDesiredCount, ts.PendingCount, ts.StabilityStatus)}})
	}
	for i, e := range service.Events {
		if i == newestEvents {
			break
		}
		a.rows([][2]string{{"event", e.CreatedAt.Format("15:04:05") + " " + aws.ToString(e.Message)}})
	}
	return nil
}
