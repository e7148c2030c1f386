package release

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestPricesAreReadOrSaidToBeWrong(t *testing.T) {
	own, err := ReadPrices(strings.NewReader("instance_type,usd_per_hour,fee_per_hour\ng6.xlarge,0.5,0.01\nx9.huge, 7\n"))
	if err != nil || *own["g6.xlarge"].Instance != 0.5 || *own["g6.xlarge"].Fee != 0.01 || *own["x9.huge"].Instance != 7 || own["x9.huge"].Fee != nil {
		t.Errorf("read %v, %v", own, err)
	}
	for text, want := range map[string]string{
		"":           "the first line must be",
		"type,usd\n": "the first line must be",
		"instance_type,usd_per_hour\nm5.large,cheap\n": `line 2: "cheap" is not a price`,
		"instance_type,usd_per_hour\nm5.large,-1\n":    `line 2: "-1" is not a price`,
		"instance_type,usd_per_hour\nm5.large,\n":      "line 2: m5.large has no usd_per_hour",
	} {
		if _, err := ReadPrices(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestInstancesAreAddedUpByTheirKind(t *testing.T) {
	own, _ := ReadPrices(strings.NewReader("instance_type,usd_per_hour\nx9.huge,7\n"))
	cost := &Cost{Region: "us-east-1"}
	for _, i := range []Instance{
		{Type: "m5.large", Managed: true}, {Type: "m5.large", Managed: true}, {Type: "m5.large", Managed: true, Spot: true}, {Type: "g6.xlarge", Managed: true}, {Type: "c5.large", Provider: "asg"}, {Type: "m5.large", Provider: "asg"}, {Type: "x9.huge"},
	} {
		if _, ok := cost.line(i, own); !ok {
			t.Errorf("%s has no price", i.Type)
		}
	}
	want := []CostLine{{"m5.large", false, true, 2, 0.096, 0.096 * 0.12}, {"m5.large", true, true, 1, 0.039264, 0.096 * 0.12}, {"g6.xlarge", false, true, 1, 0.8048, 0.8048 * 0.078}, {"c5.large", false, false, 1, 0.085, 0}, {"m5.large", false, false, 1, 0.096, 0}, {"x9.huge", false, false, 1, 7, 0}}
	for n, l := range cost.Lines {
		w := want[n]
		near := func(x, y float64) bool { return x-y < 1e-3 && y-x < 1e-3 }
		if l.Type != w.Type || l.Spot != w.Spot || l.Managed != w.Managed || l.Count != w.Count || !near(l.Instance, w.Instance) && !l.Spot || !near(l.Fee, w.Fee) {
			t.Errorf("line %d is %+v, want %+v", n, l, w)
		}
	}
	if len(cost.Dated) > 0 {
		t.Errorf("of another date are %v", cost.Dated)
	}
	if _, ok := cost.line(Instance{Type: "y9.huge"}, own); ok {
		t.Error("a type that nobody knows has a price")
	}
}

// Parts of GPUs have prices of another date, or none that is known.
func TestPartsOfGPUsCostWhatIsKnown(t *testing.T) {
	own, _ := ReadPrices(strings.NewReader("instance_type,usd_per_hour\ng6f.4xlarge,1\n"))
	for _, c := range []struct {
		region string
		i      Instance
		want   CostLine
		dated  string
	}{
		{"us-east-1", Instance{Type: "g6f.large", Managed: true}, CostLine{"g6f.large", false, true, 1, 0.202, 0.202 * gpuFee}, "g6f.large of September 2026"},
		{"ap-northeast-1", Instance{Type: "g6f.2xlarge"}, CostLine{"g6f.2xlarge", false, false, 1, 0.689, 0}, "g6f.2xlarge of September 2026"},
		{"ap-northeast-2", Instance{Type: "g6f.large", Managed: true}, CostLine{}, ""},
		{"ap-northeast-2", Instance{Type: "g6f.large", Spot: true}, CostLine{}, ""},
		{"ap-northeast-2", Instance{Type: "g6f.4xlarge", Managed: true}, CostLine{"g6f.4xlarge", false, true, 1, 1, gpuFee}, ""},
	} {
		cost := &Cost{Region: c.region}
		l, ok := cost.line(c.i, own)
		if off := l.Fee - c.want.Fee; off > -1e-9 && off < 1e-9 {
			l.Fee = c.want.Fee
		}
		if ok != (c.want.Type != "") || ok && l != c.want || strings.Join(cost.Dated, "") != c.dated || !ok && len(cost.Guessed) > 0 {
			t.Errorf("%+v in %s: %+v, %v, %+v", c.i, c.region, l, ok, cost)
		}
	}
}

func TestAnInstanceSaysWhatIsUsedOfItsGPUs(t *testing.T) {
	of := func(kind string, mode types.GpuSharingMode, left int32) Instance {
		return instanceOf(types.ContainerInstance{
			Attributes:          []types.Attribute{{Name: new("ecs.instance-type"), Value: &kind}},
			RegisteredResources: []types.Resource{{Name: new("GPU"), StringSetValue: []string{"GPU-1"}}},
			GpuDevices:          []types.GpuDevice{{GpuId: new("GPU-1"), SharingMode: mode, ContainerCount: new(int32(3)), TotalMemoryInMiB: new(int32(22888)), RemainingMemoryInMiB: &left}},
		}, nil)
	}
	i := of("g6.xlarge", types.GpuSharingModeNvidiaMps, 888)
	if i.GPUs != (Amount{1, 1}) || i.Part != 0 || len(i.Shared) != 1 || i.Shared[0] != (Shared{"GPU-1", 3, Amount{22000, 22888}}) {
		t.Errorf("a shared one: %+v", i)
	}
	if i = of("g6f.2xlarge", types.GpuSharingModeDedicated, 0); i.GPUs != (Amount{1, 1}) || i.Part != 0.25 || i.Shared != nil {
		t.Errorf("a part: %+v", i)
	}
}

// A service that is being released has the tasks of two revisions; what the release adds
// is that of one.
func TestAReleaseAddsAsManyTasksAsAreDesired(t *testing.T) {
	list := []Instance{{ID: "i", CPU: Amount{All: 4096}, Memory: Amount{All: 16384}}}
	one := types.Task{Group: new("service:web"), Cpu: new("1024"), Memory: new("2048"), LaunchType: types.LaunchTypeManagedInstances, ContainerInstanceArn: new("arn:aws:ecs:r:0:container-instance/c/i")}
	s := types.Service{ServiceName: new("web"), DesiredCount: 2, DeploymentConfiguration: &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyBlueGreen, BakeTimeInMinutes: new(int32(30))}}
	for _, c := range []struct {
		tasks            []types.Task
		perHour, release float64
	}{{[]types.Task{one, one}, 0.2, 0.1}, {[]types.Task{one, one, one, one}, 0.4, 0.1}, {nil, 0, 0}} {
		share := shareOf(s, c.tasks, list, map[string]float64{"i": 0.4})
		if share.Tasks != len(c.tasks) || !near(share.PerHour, c.perHour) || !near(share.Release, c.release) {
			t.Errorf("%d tasks: %+v, want $%v an hour and $%v for a release", len(c.tasks), share, c.perHour, c.release)
		}
	}
}

func near(x, y float64) bool { return x-y < 1e-9 && y-x < 1e-9 }

// Who has all GPUs of an instance pays for all of it: no other task with a GPU has room.
func TestATaskPaysForItsGPUs(t *testing.T) {
	task := func(ids ...string) []types.Task {
		return []types.Task{{Group: new("service:web"), Cpu: new("1024"), Memory: new("2048"), LaunchType: types.LaunchTypeEc2, ContainerInstanceArn: new("container-instance/c/i"), Containers: []types.Container{{GpuIds: ids}}}}
	}
	i := Instance{ID: "i", CPU: Amount{All: 8192}, Memory: Amount{All: 32768}, GPUs: Amount{2, 2}, Shared: []Shared{{"GPU-2", 2, Amount{12000, 24000}}}}
	for _, c := range []struct {
		tasks []types.Task
		want  float64
	}{{task(), 0.125}, {task("GPU-1"), 0.5}, {task("GPU-1", "GPU-3"), 1}, {task("GPU-2"), 0.125}} {
		share := shareOf(types.Service{ServiceName: new("web")}, c.tasks, []Instance{i}, map[string]float64{"i": 1})
		if !near(share.PerHour, c.want) {
			t.Errorf("%v: $%v an hour, want %v", c.tasks[0].Containers[0].GpuIds, share.PerHour, c.want)
		}
	}
}

func TestHowLongBothRevisionsRun(t *testing.T) {
	for _, c := range []struct {
		name string
		c    *types.DeploymentConfiguration
		want time.Duration
	}{
		{"rolling", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyRolling, BakeTimeInMinutes: new(int32(5))}, 0},
		{"blue/green", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyBlueGreen, BakeTimeInMinutes: new(int32(5))}, 5 * time.Minute},
		{"canary", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyCanary, BakeTimeInMinutes: new(int32(5)),
			CanaryConfiguration: &types.CanaryConfiguration{CanaryBakeTimeInMinutes: new(int32(20))}}, 25 * time.Minute},
		{"linear, four steps", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyLinear, BakeTimeInMinutes: new(int32(5)),
			LinearConfiguration: &types.LinearConfiguration{StepPercent: new(25.0), StepBakeTimeInMinutes: new(int32(10))}}, 35 * time.Minute},
		{"linear, 30 percent are four steps, too", &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyLinear,
			LinearConfiguration: &types.LinearConfiguration{StepPercent: new(30.0), StepBakeTimeInMinutes: new(int32(10))}}, 30 * time.Minute},
		{"unknown", nil, 0},
	} {
		if got := doubled(c.c); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
