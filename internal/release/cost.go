package release

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/catalogue"
)

// The fee for Managed Instances, as a share of the On-Demand price: 12 percent in
// AWS's sample calculator, 7.8 measured for GPU types. AWS lists it by type, so
// both are a guess for any one of them. Whether Spot pays the same is not known.
const (
	fee    = 0.12
	gpuFee = 0.078
)

// Fargate's prices in us-east-1, US dollars an hour, from public price tables.
var fargatePrices = map[catalogue.Arch]struct{ vcpu, gb float64 }{
	catalogue.X86: {0.04048, 0.004445},
	catalogue.ARM: {0.03238, 0.00356},
}

// HoursOfMonth is how many hours AWS counts for a month.
const HoursOfMonth = 730

// Prices are US dollars an hour that count before the catalogue's.
type Prices map[string]struct{ Instance, Fee *float64 }

// ReadPrices reads a file of prices: lines of instance_type, usd_per_hour and, if
// known, fee_per_hour, under a line with these names.
func ReadPrices(r io.Reader) (Prices, error) {
	in := csv.NewReader(r)
	in.FieldsPerRecord = -1
	rows, err := in.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading prices: %w", err)
	}
	if len(rows) == 0 || len(rows[0]) < 2 || rows[0][0] != "instance_type" || rows[0][1] != "usd_per_hour" {
		return nil, fmt.Errorf("reading prices: the first line must be instance_type,usd_per_hour or instance_type,usd_per_hour,fee_per_hour")
	}
	out := Prices{}
	for n, row := range rows[1:] {
		own := out[row[0]]
		for i, at := range []**float64{&own.Instance, &own.Fee} {
			if len(row) <= i+1 || strings.TrimSpace(row[i+1]) == "" {
				continue
			}
			usd, err := strconv.ParseFloat(strings.TrimSpace(row[i+1]), 64)
			if err != nil || usd < 0 {
				return nil, fmt.Errorf("reading prices: line %d: %q is not a price", n+2, row[i+1])
			}
			*at = &usd
		}
		if own.Instance == nil {
			return nil, fmt.Errorf("reading prices: line %d: %s has no usd_per_hour", n+2, row[0])
		}
		out[row[0]] = own
	}
	return out, nil
}

// Cost is what a cluster costs, in US dollars an hour.
type Cost struct {
	Region    string     `json:"region"`
	PricesOf  string     `json:"pricesOf"` // the region whose prices they are
	Date      string     `json:"date"`
	Lines     []CostLine `json:"instances"`
	Instances float64    `json:"instancesPerHour"`
	Fees      float64    `json:"feesPerHour"`
	Unknown   []string   `json:"withoutPrice,omitempty"`
	Fargate   float64    `json:"sameTasksOnFargatePerHour"` // us-east-1
	Service   *Share     `json:"service,omitempty"`
	Guessed   []string   `json:"guessed,omitempty"`
	Dated     []string   `json:"otherDates,omitempty"` // whose prices are of another date, and which
}

// CostLine is instances of one type.
type CostLine struct {
	Type     string  `json:"type"`
	Spot     bool    `json:"spot"`
	Managed  bool    `json:"managed"`
	Count    int     `json:"count"`
	Instance float64 `json:"instancePerHour"` // of one
	Fee      float64 `json:"feePerHour"`      // of one
}

// Share is what a service costs of it, and what a release of it adds.
type Share struct {
	Name    string        `json:"name"`
	Tasks   int           `json:"tasks"`
	PerHour float64       `json:"perHour"`
	Doubled time.Duration `json:"doubled"` // how long both revisions run at least, by its configuration
	Release float64       `json:"release"` // for the second revision during that
}

// CostOf reads what a cluster, and a service in it if one is named, cost.
func CostOf(ctx context.Context, c *ecs.Client, region string, s Service, own Prices) (*Cost, error) {
	list, err := Instances(ctx, c, s.Cluster)
	if err != nil {
		return nil, err
	}
	cost := &Cost{Region: region, PricesOf: catalogue.Region(region), Date: catalogue.Date, Lines: []CostLine{}}
	price := map[string]float64{} // of an instance with its fee, by id
	for _, i := range list {
		if i.Status == string(types.ContainerInstanceStatusDeregistering) {
			continue
		}
		line, ok := cost.line(i, own)
		if !ok {
			if !slices.Contains(cost.Unknown, i.Type) {
				cost.Unknown = append(cost.Unknown, i.Type)
			}
			continue
		}
		price[i.ID] = line.Instance + line.Fee
		cost.Instances += line.Instance
		cost.Fees += line.Fee
	}
	tasks, err := tasksOf(ctx, c, s.Cluster)
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		cost.Fargate += fargateOf(t)
	}
	if s.Name == "" {
		return cost, nil
	}
	service, err := serviceOf(ctx, c, s)
	if err != nil {
		return nil, err
	}
	cost.Service = shareOf(service, tasks, list, price)
	return cost, nil
}

// line adds an instance to the line of its kind.
func (c *Cost) line(i Instance, own Prices) (CostLine, bool) {
	for n := range c.Lines {
		if c.Lines[n].Type == i.Type && c.Lines[n].Spot == i.Spot && c.Lines[n].Managed == i.Managed {
			c.Lines[n].Count++
			return c.Lines[n], true
		}
	}
	t, known := catalogue.Find(i.Type)
	demand, sold := t.OnDemand(c.Region)
	l := CostLine{Type: i.Type, Spot: i.Spot, Managed: i.Managed, Count: 1, Instance: demand}
	p, given := own[i.Type]
	switch {
	case given:
		l.Instance = *p.Instance
	case !known || !sold:
		return l, false
	case i.Spot:
		var guessed bool
		if l.Instance, guessed, _ = t.Spot(c.Region); guessed {
			c.Guessed = append(c.Guessed, "the Spot price of "+i.Type)
		}
	}
	if dated := i.Type + " of " + t.Dated(); !given && t.Dated() != catalogue.Date && !slices.Contains(c.Dated, dated) {
		c.Dated = append(c.Dated, dated)
	}
	if i.Managed {
		l.Fee = cmp.Or(demand, l.Instance) * fee
		if t.GPUs > 0 {
			l.Fee = cmp.Or(demand, l.Instance) * gpuFee
		}
		if p.Fee != nil {
			l.Fee = *p.Fee
		}
	}
	c.Lines = append(c.Lines, l)
	return l, true
}

// tasksOf is a cluster's tasks that run or are to.
func tasksOf(ctx context.Context, c *ecs.Client, cluster string) (list []types.Task, err error) {
	for p := ecs.NewListTasksPaginator(c, &ecs.ListTasksInput{Cluster: &cluster}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing the tasks of cluster %s: %w", cluster, err)
		}
		if len(page.TaskArns) == 0 {
			continue
		}
		out, err := c.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: page.TaskArns})
		if err != nil {
			return nil, fmt.Errorf("reading the tasks of cluster %s: %w", cluster, err)
		}
		list = append(list, out.Tasks...)
	}
	return list, nil
}

// size is what a task takes: processors and GB.
func size(t types.Task) (vcpu, gb float64) {
	cpu, _ := strconv.ParseFloat(aws.ToString(t.Cpu), 64)
	memory, _ := strconv.ParseFloat(aws.ToString(t.Memory), 64)
	return cpu / 1024, memory / 1024
}

func fargateOf(t types.Task) float64 {
	vcpu, gb := size(t)
	p := fargatePrices[catalogue.X86]
	for _, a := range t.Attributes {
		if aws.ToString(a.Name) == "ecs.cpu-architecture" && aws.ToString(a.Value) == "arm64" {
			p = fargatePrices[catalogue.ARM]
		}
	}
	return vcpu*p.vcpu + gb*p.gb
}

// serviceOf reads one service.
func serviceOf(ctx context.Context, c *ecs.Client, s Service) (types.Service, error) {
	out, err := c.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &s.Cluster, Services: []string{s.Name}})
	if err != nil {
		return types.Service{}, fmt.Errorf("reading service %s: %w", s.Name, err)
	}
	if len(out.Services) == 0 {
		return types.Service{}, fmt.Errorf("there is no service %s in cluster %s", s.Name, s.Cluster)
	}
	return out.Services[0], nil
}

// shareOf is a service's part of its instances: a task's part is the largest of its
// parts of processors, memory and GPUs. On Fargate it is the task's own price. A release
// adds as many tasks as are desired, however many of it run already.
func shareOf(s types.Service, tasks []types.Task, list []Instance, price map[string]float64) *Share {
	share := &Share{Name: *s.ServiceName, Doubled: doubled(s.DeploymentConfiguration)}
	for _, t := range tasks {
		if aws.ToString(t.Group) != "service:"+*s.ServiceName {
			continue
		}
		share.Tasks++
		arn := aws.ToString(t.ContainerInstanceArn)
		id := arn[strings.LastIndexByte(arn, '/')+1:]
		if t.LaunchType == types.LaunchTypeFargate {
			share.PerHour += fargateOf(t)
			continue
		}
		vcpu, gb := size(t)
		for _, i := range list {
			if i.ID == id {
				share.PerHour += price[id] * max(vcpu*1024/float64(max(i.CPU.All, 1)), gb*1024/float64(max(i.Memory.All, 1)), gpuPart(t, i))
			}
		}
	}
	share.Release = share.PerHour / float64(max(share.Tasks, 1)) * float64(s.DesiredCount) * share.Doubled.Hours()
	return share
}

// gpuPart is a task's part of an instance's GPUs. Of one that containers share each has
// the same part of what is used of it: what each asked for is not told.
func gpuPart(t types.Task, i Instance) (part float64) {
	for _, c := range t.Containers {
		for _, id := range c.GpuIds {
			own := 1.0
			for _, g := range i.Shared {
				if g.ID == id {
					own = float64(g.Memory.Used) / float64(max(g.Memory.All, 1)) / float64(max(g.Containers, 1))
				}
			}
			part += own / float64(max(i.GPUs.All, 1))
		}
	}
	return part
}

// doubled is how long source and target both run at full strength by the
// configuration alone: the steps and the bake. Hooks and slow starts come on top.
func doubled(c *types.DeploymentConfiguration) time.Duration {
	if c == nil || c.Strategy == types.DeploymentStrategyRolling || c.Strategy == "" {
		return 0
	}
	minutes := float64(aws.ToInt32(c.BakeTimeInMinutes))
	if x := c.CanaryConfiguration; x != nil {
		minutes += float64(aws.ToInt32(x.CanaryBakeTimeInMinutes))
	}
	if x := c.LinearConfiguration; x != nil && aws.ToFloat64(x.StepPercent) > 0 {
		steps := 100 / *x.StepPercent
		if steps != float64(int(steps)) {
			steps = float64(int(steps) + 1)
		}
		minutes += (steps - 1) * float64(aws.ToInt32(x.StepBakeTimeInMinutes))
	}
	return time.Duration(minutes * float64(time.Minute))
}
