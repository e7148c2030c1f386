package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/catalogue"
)

// Instance is a container instance of a cluster.
type Instance struct {
	ID         string    `json:"containerInstance"`
	EC2        string    `json:"instance"`
	Type       string    `json:"type"`
	Arch       string    `json:"architecture"`
	Zone       string    `json:"availabilityZone"`
	Provider   string    `json:"capacityProvider,omitempty"`
	Spot       bool      `json:"spot"`
	Managed    bool      `json:"managed"` // it is a Managed Instance, which has a fee
	Status     string    `json:"status"`
	Reason     string    `json:"statusReason,omitempty"`
	Running    int32     `json:"runningTasks"`
	Pending    int32     `json:"pendingTasks"`
	CPU        Amount    `json:"cpu"`    // 1024 is one processor
	Memory     Amount    `json:"memory"` // MiB
	GPUs       Amount    `json:"gpus"`
	Part       float64   `json:"gpuPart,omitempty"` // of a GPU, that each is, where it is not whole
	Shared     []Shared  `json:"sharedGPUs,omitempty"`
	Registered time.Time `json:"registeredAt,omitzero"`
}

// Shared is a GPU that containers share.
type Shared struct {
	ID         string `json:"gpu"`
	Containers int32  `json:"containers"`
	Memory     Amount `json:"memory"` // MiB
}

// Amount is what is used of what there is.
type Amount struct {
	Used int32 `json:"used"`
	All  int32 `json:"all"`
}

// Instances reads a cluster's container instances, in the order of their zones
// and types.
func Instances(ctx context.Context, c *ecs.Client, cluster string) ([]Instance, error) {
	var arns []string
	for p := ecs.NewListContainerInstancesPaginator(c, &ecs.ListContainerInstancesInput{Cluster: &cluster}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing the instances of cluster %s: %w", cluster, err)
		}
		arns = append(arns, page.ContainerInstanceArns...)
	}
	spot, err := managedProviders(ctx, c, cluster)
	if err != nil {
		return nil, err
	}
	list := []Instance{}
	for some := range slices.Chunk(arns, 100) {
		out, err := c.DescribeContainerInstances(ctx, &ecs.DescribeContainerInstancesInput{Cluster: &cluster, ContainerInstances: some})
		if err != nil {
			return nil, fmt.Errorf("reading the instances of cluster %s: %w", cluster, err)
		}
		for _, i := range out.ContainerInstances {
			list = append(list, instanceOf(i, spot))
		}
	}
	slices.SortFunc(list, func(x, y Instance) int {
		return strings.Compare(x.Zone+" "+x.Type+" "+x.EC2, y.Zone+" "+y.Type+" "+y.EC2)
	})
	return list, nil
}

// managedProviders is the cluster's providers of Managed Instances, and whether each
// buys on Spot.
func managedProviders(ctx context.Context, c *ecs.Client, cluster string) (map[string]bool, error) {
	spot := map[string]bool{}
	for in := (&ecs.DescribeCapacityProvidersInput{Cluster: &cluster}); ; {
		out, err := c.DescribeCapacityProviders(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("reading the capacity providers of cluster %s: %w", cluster, err)
		}
		for _, p := range out.CapacityProviders {
			if m := p.ManagedInstancesProvider; m != nil && m.InstanceLaunchTemplate != nil {
				spot[*p.Name] = m.InstanceLaunchTemplate.CapacityOptionType == types.CapacityOptionTypeSpot
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return spot, nil
		}
	}
}

func instanceOf(i types.ContainerInstance, spot map[string]bool) Instance {
	attribute := func(name string) string {
		for _, a := range i.Attributes {
			if aws.ToString(a.Name) == name {
				return aws.ToString(a.Value)
			}
		}
		return ""
	}
	arn := aws.ToString(i.ContainerInstanceArn)
	v := Instance{
		ID: arn[strings.LastIndexByte(arn, '/')+1:], EC2: aws.ToString(i.Ec2InstanceId), Type: attribute("ecs.instance-type"), Arch: attribute("ecs.cpu-architecture"), Zone: attribute("ecs.availability-zone"),
		Provider: aws.ToString(i.CapacityProviderName), Spot: spot[aws.ToString(i.CapacityProviderName)], Status: aws.ToString(i.Status), Reason: aws.ToString(i.StatusReason),
		Running: i.RunningTasksCount, Pending: i.PendingTasksCount, Registered: aws.ToTime(i.RegisteredAt),
	}
	_, v.Managed = spot[v.Provider]
	v.CPU, v.Memory, v.GPUs = amount(i, "CPU"), amount(i, "MEMORY"), amount(i, "GPU")
	if t, ok := catalogue.Find(v.Type); ok && t.GPUPart < catalogue.Whole {
		v.Part = float64(t.GPUPart) / float64(catalogue.Whole)
	}
	for _, g := range i.GpuDevices {
		if all := aws.ToInt32(g.TotalMemoryInMiB); g.SharingMode == types.GpuSharingModeNvidiaMps {
			v.Shared = append(v.Shared, Shared{aws.ToString(g.GpuId), aws.ToInt32(g.ContainerCount), Amount{all - aws.ToInt32(g.RemainingMemoryInMiB), all}})
		}
	}
	return v
}

// amount is what is used of a resource.
func amount(i types.ContainerInstance, name string) Amount {
	of := func(list []types.Resource) int32 {
		for _, r := range list {
			if aws.ToString(r.Name) == name {
				return r.IntegerValue + int32(len(r.StringSetValue))
			}
		}
		return 0
	}
	all := of(i.RegisteredResources)
	return Amount{all - of(i.RemainingResources), all}
}
