package stagetest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// told is a configuration in a line.
func told(c *types.DeploymentConfiguration) string {
	n := func(v *int32) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprint(*v)
	}
	s := fmt.Sprintf("%s %s-%s bake %s", c.Strategy, n(c.MinimumHealthyPercent), n(c.MaximumPercent), n(c.BakeTimeInMinutes))
	if x := c.CanaryConfiguration; x != nil {
		s += fmt.Sprintf(" canary %g/%s", *x.CanaryPercent, n(x.CanaryBakeTimeInMinutes))
	}
	if x := c.LinearConfiguration; x != nil {
		s += fmt.Sprintf(" linear %g/%s", *x.StepPercent, n(x.StepBakeTimeInMinutes))
	}
	if b := c.DeploymentCircuitBreaker; b != nil && (b.Enable || b.ThresholdConfiguration != nil) {
		s += fmt.Sprintf(" breaker %t rollback %t", b.Enable, b.Rollback)
		if b.ResetOnHealthyTask != nil {
			s += fmt.Sprintf(" reset %t", *b.ResetOnHealthyTask)
		}
		if t := b.ThresholdConfiguration; t != nil {
			s += fmt.Sprintf(" %s %d", t.Type, t.Value)
		}
	}
	if e := c.EarlySuccessCriteria; e != nil {
		s += fmt.Sprintf(" early %t %s%s", e.Enable, n(e.HealthyPercent), cmp.Or(" "+string(e.SourceServiceRevisionCleanup), ""))
	}
	for _, h := range c.LifecycleHooks {
		s += fmt.Sprintf(" hook %s %v %s/%s", h.TargetType, h.LifecycleStages, n(h.TimeoutConfiguration.TimeoutInMinutes), h.TimeoutConfiguration.Action)
	}
	return s
}

// Observed on AWS: the block is merged member by member; a structure in it is
// replaced and filled with its defaults; the hooks are replaced as a whole; of the
// circuit breaker only rollback falls back.
func TestADeploymentConfigurationIsMerged(t *testing.T) {
	type config = types.DeploymentConfiguration
	pause := pauseAt(types.DeploymentLifecycleHookStagePostScaleUp)
	timed := pauseAt(types.DeploymentLifecycleHookStagePreScaleUp)
	timed[0].TimeoutConfiguration = &types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: new(int32(45))}
	linear := &config{Strategy: types.DeploymentStrategyLinear, LinearConfiguration: &types.LinearConfiguration{StepPercent: new(20.0), StepBakeTimeInMinutes: new(int32(1))}}
	hooked := &config{Strategy: types.DeploymentStrategyBlueGreen, LifecycleHooks: pause}
	guarded := &config{DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true, ResetOnHealthyTask: new(false), ThresholdConfiguration: &types.ThresholdConfiguration{Type: types.ThresholdTypeCount, Value: 9}}}
	for _, c := range []struct {
		what       string
		from, sent *config
		want       string
	}{
		{"nothing was ever said", nil, nil, "ROLLING 100-200 bake -"},
		{"the whole block is left out", canary(), nil, "CANARY 100-200 bake 2 canary 10/20 breaker true rollback true"},
		{"an empty block", canary(), &config{}, "CANARY 100-200 bake 2 canary 10/20 breaker true rollback true"},
		{"one member", canary(), &config{MinimumHealthyPercent: new(int32(50))}, "CANARY 50-200 bake 2 canary 10/20 breaker true rollback true"},
		{"a bake of nothing", canary(), &config{BakeTimeInMinutes: new(int32(0))}, "CANARY 100-200 bake 0 canary 10/20 breaker true rollback true"},
		{"a canary's share alone", canary(), &config{CanaryConfiguration: &types.CanaryConfiguration{CanaryPercent: new(30.0)}}, "CANARY 100-200 bake 2 canary 30/10 breaker true rollback true"},
		{"a canary's bake alone", canary(), &config{CanaryConfiguration: &types.CanaryConfiguration{CanaryBakeTimeInMinutes: new(int32(3))}}, "CANARY 100-200 bake 2 canary 5/3 breaker true rollback true"},
		{"a step's share alone", linear, &config{LinearConfiguration: &types.LinearConfiguration{StepPercent: new(44.0)}}, "LINEAR 100-200 bake - linear 44/6"},
		{"steps of nothing", linear, &config{LinearConfiguration: &types.LinearConfiguration{}}, "LINEAR 100-200 bake - linear 10/6"},
		{"another strategy", canary(), &config{Strategy: types.DeploymentStrategyLinear}, "LINEAR 100-200 bake 2 linear 10/6 breaker true rollback true"},
		{"back to rolling", canary(), &config{Strategy: types.DeploymentStrategyRolling}, "ROLLING 100-200 bake 2 breaker true rollback true"},
		{"hooks that stay", hooked, &config{BakeTimeInMinutes: new(int32(1))}, "BLUE_GREEN 100-200 bake 1 hook PAUSE [POST_SCALE_UP] 1440/ROLLBACK"},
		{"other hooks", hooked, &config{LifecycleHooks: timed}, "BLUE_GREEN 100-200 bake - hook PAUSE [PRE_SCALE_UP] 45/ROLLBACK"},
		{"no hooks", hooked, &config{LifecycleHooks: []types.DeploymentLifecycleHook{}}, "BLUE_GREEN 100-200 bake -"},
		{"a breaker that is only enabled", guarded, &config{DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true}}, "ROLLING 100-200 bake - breaker true rollback false reset false COUNT 9"},
		{"a breaker's threshold", guarded, &config{DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true, ThresholdConfiguration: &types.ThresholdConfiguration{Type: types.ThresholdTypeBoundedPercent, Value: 20}}},
			"ROLLING 100-200 bake - breaker true rollback true reset false BOUNDED_PERCENT 20"},
		{"criteria as a whole", &config{MinimumHealthyPercent: new(int32(10)), EarlySuccessCriteria: early(50, types.ServiceRevisionCleanupDeferred)}, &config{EarlySuccessCriteria: &types.DeploymentEarlySuccessCriteria{}}, "ROLLING 10-200 bake - early false - "},
	} {
		t.Run(c.what, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, w *world) {
				if c.from != nil {
					c.from.Strategy = cmp.Or(c.from.Strategy, types.DeploymentStrategyRolling)
				}
				first, err := w.create("1", c.from)
				w.must(nil, err)
				out, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DeploymentConfiguration: c.sent})
				w.must(nil, err)
				if got := told(out.Service.DeploymentConfiguration); got != c.want || told(w.service().DeploymentConfiguration) != got {
					t.Errorf("it is\n%s, want\n%s", got, c.want)
				}
				if *out.Service.CurrentServiceDeployment != first {
					t.Error("a configuration started a deployment")
				}
			})
		})
	}
}

// Documented member by member: what a revision records starts a deployment where
// it differs; all else does not.
func TestWhatStartsADeployment(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		current, err := w.create("1", nil)
		w.must(nil, err)
		d1, d2 := w.define("2"), w.define("3")
		network := func(subnet string) *types.NetworkConfiguration {
			return &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{subnet}}}
		}
		balancer := func(group int) []types.LoadBalancer {
			return []types.LoadBalancer{{TargetGroupArn: &w.groups[group], ContainerName: new("web"), ContainerPort: new(int32(8080))}}
		}
		revisions := map[string]bool{}
		for _, c := range []struct {
			what   string
			in     ecs.UpdateServiceInput
			starts bool
		}{
			{"nothing", ecs.UpdateServiceInput{}, false},
			{"another task definition", ecs.UpdateServiceInput{TaskDefinition: &d1}, true},
			{"the same by its ARN", ecs.UpdateServiceInput{TaskDefinition: &d1}, false},
			{"the same by its name", ecs.UpdateServiceInput{TaskDefinition: new("web:2")}, false},
			{"the newest of the family", ecs.UpdateServiceInput{TaskDefinition: new("web")}, true},
			{"the same by force", ecs.UpdateServiceInput{TaskDefinition: &d2, ForceNewDeployment: true}, true},
			{"force alone", ecs.UpdateServiceInput{ForceNewDeployment: true}, true},
			{"the same network", ecs.UpdateServiceInput{NetworkConfiguration: network("a")}, false},
			{"a network with its default said", ecs.UpdateServiceInput{NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{
				Subnets: []string{"a"}, SecurityGroups: []string{}, AssignPublicIp: types.AssignPublicIpDisabled}}}, false},
			{"another network", ecs.UpdateServiceInput{NetworkConfiguration: network("b")}, true},
			{"the same load balancer", ecs.UpdateServiceInput{LoadBalancers: balancer(0)}, false},
			{"another target group", ecs.UpdateServiceInput{LoadBalancers: balancer(1)}, true},
			{"no load balancer", ecs.UpdateServiceInput{LoadBalancers: []types.LoadBalancer{}}, true},
			{"still no load balancer", ecs.UpdateServiceInput{LoadBalancers: []types.LoadBalancer{}}, false},
			{"a desired count", ecs.UpdateServiceInput{DesiredCount: new(int32(1))}, false},
			{"a grace period", ecs.UpdateServiceInput{HealthCheckGracePeriodSeconds: new(int32(30))}, false},
			{"managed tags", ecs.UpdateServiceInput{EnableECSManagedTags: new(true)}, false},
			{"propagated tags", ecs.UpdateServiceInput{PropagateTags: types.PropagateTagsService}, false},
			{"a deployment configuration", ecs.UpdateServiceInput{DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: new(int32(150))}}, false},
			{"no volumes", ecs.UpdateServiceInput{VolumeConfigurations: []types.ServiceVolumeConfiguration{}}, false},
		} {
			c.in.Service = new("s")
			out, err := w.ecs.UpdateService(t.Context(), &c.in)
			if err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			now := *out.Service.CurrentServiceDeployment
			if (now != current) != c.starts {
				t.Errorf("%s started a deployment: %t", c.what, now != current)
			}
			if c.starts {
				if r := *w.look(now).TargetServiceRevision.Arn; revisions[r] {
					t.Errorf("%s has the revision of another deployment", c.what)
				} else {
					revisions[r] = true
				}
			}
			current = now
		}
		if said := w.raw("UpdateService", `{"service":"s","taskDefinition":null,"loadBalancers":null,"volumeConfigurations":null,"networkConfiguration":null,"deploymentConfiguration":null,"desiredCount":null}`); !strings.Contains(said, `"currentServiceDeployment":"`+current+`"`) {
			t.Errorf("null is something: %s", said)
		}
	})
}

// raw sends ECS what the SDK would not, and returns the answer.
func (w *world) raw(operation, body string) string {
	w.t.Helper()
	return w.signed("ecs", body, "application/x-amz-json-1.1", "AmazonEC2ContainerServiceV20141113."+operation)
}

// signed sends a service a request as the administrator, and returns the answer.
func (w *world) signed(service, body, kind, target string) string {
	w.t.Helper()
	r, err := http.NewRequest("POST", *w.config.BaseEndpoint, strings.NewReader(body))
	w.must(nil, err)
	r.Header.Set("Content-Type", kind)
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	sum := sha256.Sum256([]byte(body))
	w.must(nil, v4.NewSigner().SignHTTP(w.t.Context(), aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, r, hex.EncodeToString(sum[:]), service, "us-east-1", time.Now()))
	resp, err := w.client.Do(r)
	w.must(nil, err)
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	w.must(nil, err)
	return string(said)
}

func TestARequestForAServiceCanBeRepeated(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ask := func(name, token string, desired int32) (string, error) {
			in := &ecs.CreateServiceInput{ServiceName: &name, TaskDefinition: new("web"), DesiredCount: &desired, NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}}}
			if token != "" {
				in.ClientToken = &token
			}
			out, err := w.ecs.CreateService(t.Context(), in)
			if err != nil {
				return "", err
			}
			return *out.Service.CurrentServiceDeployment, nil
		}
		w.define("1")
		first, err := ask("s", "token", 1)
		w.must(nil, err)
		if again, err := ask("s", "token", 1); err != nil || again != first {
			t.Errorf("the same request gives %s, %v", again, err)
		}
		for what, c := range map[string]struct {
			token   string
			desired int32
			want    string
		}{
			"the token with another request": {"token", 2, "Creation of service was not idempotent."},
			"another token":                  {"other", 1, "Creation of service was not idempotent."},
			"no token":                       {"", 1, "Creation of service was not idempotent."},
			"a token that is too long":       {strings.Repeat("x", 37), 1, "clientToken must have between 1 and 36 characters"},
			"a token with a space":           {"a b", 1, "clientToken must have between 1 and 36 characters"},
		} {
			_, err := ask("s", c.token, c.desired)
			if code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s gives %v", what, err)
			}
		}
		if _, err := ask("longest", strings.Repeat("~", 36), 0); err != nil {
			t.Errorf("the longest token gives %v", err)
		}
		w.must(ask("plain", "", 0))
		w.must(ask("plain", "", 0)) // without a token as well
		w.must(w.ecs.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("s"), Force: new(true)}))
		if _, err := ask("s", "token", 1); err != nil && !strings.Contains(err.Error(), "Unable to Start a service that is still Draining.") {
			t.Errorf("a service that drains gives %v", err)
		}
		w.until("the name is free again", func() bool { _, err := ask("s", "token", 1); return err == nil })
	})
}
