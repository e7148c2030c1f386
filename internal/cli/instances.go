package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"serin/internal/catalogue"
	"serin/internal/release"
)

func (a *app) instances() *cobra.Command {
	var cluster string
	c := &cobra.Command{
		Use:   "instances",
		Short: "List a cluster's container instances and what is left on them",
		Long: `List the container instances of a cluster, here or on AWS: type, zone, capacity
provider, state, tasks, and what they use of its processors, memory and GPUs: whole
ones, the part of one that it has, and the memory of those that tasks share.
On the stage an instance is a simulated host; the tasks on it are real, and run
on this machine.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.ecs(c.Context(), false)
			if err != nil {
				return err
			}
			list, err := release.Instances(c.Context(), client, cluster)
			if err != nil {
				return err
			}
			if a.json {
				return json.NewEncoder(a.out).Encode(list)
			}
			return a.printInstances(list)
		},
	}
	a.targetFlags(c)
	a.outputFlag(c)
	c.Flags().StringVar(&cluster, "cluster", "default", "cluster's name")
	c.AddCommand(a.impair())
	return c
}

func (a *app) impair() *cobra.Command {
	var region, check string
	c := &cobra.Command{
		Use:   "impair INSTANCE",
		Short: "Have a check of an instance's health fail on the stage",
		Long: `Have a check of a simulated instance's health fail: CONTAINER_RUNTIME,
ACCELERATED_COMPUTE where it has GPUs, or AGENT_CONNECTIVITY. A Managed Instances
provider whose auto repair is not disabled drains and replaces it.`,
		Args: exactly("INSTANCE", 1),
		RunE: func(c *cobra.Command, args []string) error {
			var said map[string]string
			query := url.Values{"instance": {args[0]}, "type": {check}, "region": {region}}
			if err := a.ask(c.Context(), "POST", "/_serin/instances/impair?"+query.Encode(), "", &said); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s of %s is IMPAIRED\n", check, args[0])
			return nil
		},
	}
	a.endpointFlag(c)
	c.Flags().StringVar(&region, "region", "", "the instance's region")
	c.Flags().StringVar(&check, "type", "CONTAINER_RUNTIME", "the check that fails")
	return c
}

func (a *app) printInstances(list []release.Instance) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "INSTANCE\tTYPE\tZONE\tPROVIDER\tBOUGHT\tSTATUS\tTASKS\tCPU\tMEMORY\tGPU")
	for _, i := range list {
		bought := "on demand"
		if i.Spot {
			bought = "spot"
		}
		tasks := fmt.Sprint(i.Running)
		if i.Pending > 0 {
			tasks += fmt.Sprintf(" +%d", i.Pending)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%g of %g\t%.1f of %.1f GiB\t%s\n", i.EC2, i.Type, i.Zone, orDash(i.Provider), bought, i.Status, tasks,
			float64(i.CPU.Used)/1024, float64(i.CPU.All)/1024, float64(i.Memory.Used)/1024, float64(i.Memory.All)/1024, gpusOf(i))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if a.target.name == "stage" && len(list) > 0 {
		fmt.Fprintln(a.err, "The instances are simulated; the tasks on them are real, on this machine.")
	}
	return nil
}

// gpusOf is what is used of an instance's GPUs: whole ones, the part of one that it has,
// and what is shared of those used.
func gpusOf(i release.Instance) string {
	text := fmt.Sprintf("%d of %d", i.GPUs.Used, i.GPUs.All)
	if i.Part > 0 {
		text = fmt.Sprintf("%d of 1/%g", i.GPUs.Used, 1/i.Part)
		if i.GPUs.Used > 0 {
			text = fmt.Sprintf("1/%g of 1/%g", 1/i.Part, 1/i.Part)
		}
	}
	for _, g := range i.Shared {
		text += fmt.Sprintf(", %d share %.1f of %.1f GiB", g.Containers, float64(g.Memory.Used)/1024, float64(g.Memory.All)/1024)
	}
	return text
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) spot() *cobra.Command {
	var region string
	c := &cobra.Command{
		Use:   "spot",
		Short: "Play what Spot does on the stage",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	one := &cobra.Command{
		Use:   "interrupt INSTANCE",
		Short: "Have Spot take an instance of the stage back, with two minutes' notice",
		Long: `Have Spot take a simulated instance back: its tasks are interrupted at once, as
ECS does with the notice, and two minutes of stage time later it is gone.`,
		Args: exactly("INSTANCE", 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.playCapacity(c.Context(), "/_serin/spot/interrupt", "instance", args[0], region); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is taken back in two minutes of the stage's time\n", args[0])
			return nil
		},
	}
	a.endpointFlag(one)
	one.Flags().StringVar(&region, "region", "", "the instance's region")
	c.AddCommand(one)
	return c
}

func (a *app) capacity() *cobra.Command {
	var region string
	c := &cobra.Command{
		Use:   "capacity",
		Short: "Play what EC2 has to sell on the stage",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, v := range []struct{ verb, short, said string }{
		{"deny", "Have EC2 run out of an instance type", "EC2 has no %s any more\n"},
		{"allow", "Have EC2 sell an instance type again", "EC2 has %s again\n"},
	} {
		one := &cobra.Command{
			Use: v.verb + " TYPE", Short: v.short, Args: exactly("TYPE", 1),
			RunE: func(c *cobra.Command, args []string) error {
				if err := a.playCapacity(c.Context(), "/_serin/capacity/"+v.verb, "type", args[0], region); err != nil {
					return err
				}
				fmt.Fprintf(a.out, v.said, args[0])
				return nil
			},
		}
		a.endpointFlag(one)
		one.Flags().StringVar(&region, "region", "", "the region")
		c.AddCommand(one)
	}
	return c
}

func (a *app) playCapacity(ctx context.Context, path, key, name, region string) error {
	var said map[string]string
	return a.ask(ctx, "POST", path+"?"+url.Values{key: {name}, "region": {region}}.Encode(), "", &said)
}

func (a *app) cost() *cobra.Command {
	var s release.Service
	var file string
	c := &cobra.Command{
		Use:   "cost",
		Short: "Say what a cluster's instances and a service on them cost",
		Long: `Say what a cluster's instances cost an hour, here or on AWS: by type, with the fee
for Managed Instances, beside what the same tasks cost on Fargate and on plain
EC2. With --service, also the service's part and what a release of it adds while
both revisions run. Prices are of ` + catalogue.Date + `, those of parts of a GPU of
` + catalogue.FractionsDate + `; --prices FILE puts others before them, as lines of
instance_type,usd_per_hour,fee_per_hour.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var own release.Prices
			if file != "" {
				f, err := os.Open(file)
				if err != nil {
					return usage("--prices: %v", err)
				}
				defer f.Close()
				if own, err = release.ReadPrices(f); err != nil {
					return usage("%s: %v", file, err)
				}
			}
			config, err := a.aws(c.Context(), false)
			if err != nil {
				return err
			}
			client, err := a.ecs(c.Context(), false)
			if err != nil {
				return err
			}
			cost, err := release.CostOf(c.Context(), client, config.Region, s, own)
			if err != nil {
				return err
			}
			if a.json {
				return json.NewEncoder(a.out).Encode(cost)
			}
			return a.printCost(cost)
		},
	}
	a.targetFlags(c)
	serviceFlags(c, &s)
	a.outputFlag(c)
	c.Flags().StringVar(&file, "prices", "", "file with prices that count before Serin's")
	return c
}

func (a *app) printCost(c *release.Cost) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "TYPE\tBOUGHT\tCOUNT\tINSTANCE $/h\tFEE $/h\tALL $/h\t")
	for _, l := range c.Lines {
		bought := "on demand"
		if l.Spot {
			bought = "spot"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%.4f\t%.4f\t%.4f\t\n", l.Type, bought, l.Count, l.Instance, l.Fee, float64(l.Count)*(l.Instance+l.Fee))
	}
	all := c.Instances + c.Fees
	fmt.Fprintf(w, "all\t\t\t%.4f\t%.4f\t%.4f\t\n", c.Instances, c.Fees, all)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nA month of %d hours: $%.2f, of which the fee for Managed Instances is $%.2f.\n", release.HoursOfMonth, all*release.HoursOfMonth, c.Fees*release.HoursOfMonth)
	fmt.Fprintf(a.out, "The same tasks on Fargate: $%.2f (us-east-1). The same instances as plain EC2: $%.2f.\n", c.Fargate*release.HoursOfMonth, c.Instances*release.HoursOfMonth)
	if s := c.Service; s != nil {
		fmt.Fprintf(a.out, "Service %s: %d tasks, $%.4f an hour.", s.Name, s.Tasks, s.PerHour)
		if s.Doubled > 0 {
			fmt.Fprintf(a.out, " A release runs both revisions for %s at least and adds $%.4f.", s.Doubled.Round(time.Minute), s.Release)
		}
		fmt.Fprintln(a.out)
	}
	if len(c.Unknown) > 0 {
		fmt.Fprintf(a.out, "Without a price: %s.\n", strings.Join(c.Unknown, ", "))
	}
	from := ""
	if c.PricesOf != c.Region {
		from = fmt.Sprintf(", those of %s for %s", c.PricesOf, c.Region)
	}
	dated := ""
	if len(c.Dated) > 0 {
		dated = " (" + strings.Join(c.Dated, ", ") + ")"
	}
	fmt.Fprintf(a.out, "Prices of %s%s%s. The fee is a guess: 12 %% of the On-Demand price, 7.8 %% with GPUs.\n", c.Date, dated, from)
	if len(c.Guessed) > 0 {
		fmt.Fprintf(a.out, "Guessed: %s.\n", strings.Join(c.Guessed, ", "))
	}
	return nil
}
