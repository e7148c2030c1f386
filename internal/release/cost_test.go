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
	if _, ok := cost.line(Instance{Type: "y9.huge"}, own); ok {
		t.Error("a type that nobody knows has a price")
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
