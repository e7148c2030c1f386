package stagetest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"serin/internal/stage"
)

// scrape is what Prometheus reads when all that was answered is counted.
func (w *world) scrape() string {
	w.t.Helper()
	synctest.Wait()
	resp, err := w.client.Get(*w.config.BaseEndpoint + "/_serin/metrics")
	w.must(resp, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	w.must(body, err)
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("it answers %s: %s", resp.Status, body)
	}
	return string(body)
}

// series is the sum of a metric's series that have all of the labels, and how many
// they are.
func series(scrape, name string, labels ...string) (sum float64, n int) {
	for line := range strings.Lines(scrape) {
		if !strings.HasPrefix(line, name+"{") {
			continue
		}
		have := true
		for _, l := range labels {
			have = have && strings.Contains(line, l)
		}
		if have {
			var value float64
			fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &value)
			sum, n = sum+value, n+1
		}
	}
	return sum, n
}

// halfway is a canary that answers every request with an error, and its deployment.
func (w *world) halfway() string {
	first, err := w.create("1", canary())
	w.must(first, err)
	w.ends(first, types.ServiceDeploymentStatusSuccessful)
	second := w.update("faulty")
	w.until("the canary has its share", func() bool { a, b := w.weights(); return a == 90 && b == 10 || a == 10 && b == 90 })
	return second
}

// url is where the world's load balancer listens.
func (w *world) url() string {
	w.t.Helper()
	out, err := w.elb.DescribeLoadBalancers(w.t.Context(), &elb.DescribeLoadBalancersInput{Names: []string{"lb"}})
	w.must(out, err)
	return "http://" + *out.LoadBalancers[0].DNSName + ":8088/"
}

func TestPrometheusIsToldExactlyWhatWasCarried(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.halfway()
		for range 50 {
			resp, err := w.client.Get(w.url())
			w.must(resp, err)
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		scrape := w.scrape()
		if again := w.scrape(); again != scrape {
			t.Errorf("a second look sees\n%s\nafter\n%s", again, scrape)
		}
		problems, err := promlint.New(strings.NewReader(scrape)).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("the linter says %v, %v", problems, err)
		}
		rule := []string{`account="111111111111"`, `region="us-east-1"`, `load_balancer="app/lb/`, `listener="8088"`, `rule="default"`}
		of := func(more ...string) []string { return append(rule[:len(rule):len(rule)], more...) }
		old, fresh := []string{`service="s"`, `task_definition="web:1"`, `cluster="default"`}, []string{`service="s"`, `task_definition="web:2"`}
		for _, c := range []struct {
			name   string
			labels []string
			want   float64
			series int
		}{
			{"serin_lb_rule_requests_total", of(), 50, 1},
			{"serin_lb_requests_total", of(), 50, 2},
			{"serin_lb_responses_total", of(`code="2xx"`), 45, 2},
			{"serin_lb_responses_total", of(`code="5xx"`), 5, 2},
			{"serin_lb_responses_total", of(`code="4xx"`), 0, 2},
			{"serin_lb_response_seconds_count", of(), 50, 2},
			{"serin_lb_response_seconds_bucket", of(`le="+Inf"`), 50, 2},
			{"serin_lb_response_seconds_bucket", of(`le="0.0005"`), 50, 2}, // no time passes in a bubble
			{"serin_lb_weight", of(), 100, 2},
			{"serin_lb_weight_wanted", of(), 100, 2},
			{"serin_lb_connection_errors_total", of(), 0, 2},
			{"serin_lb_requests_in_flight", rule[:4], 0, 1},
			{"serin_target_requests_total", old, 45, 2},
			{"serin_target_requests_total", fresh, 5, 2},
			{"serin_target_responses_total", append(fresh[:2:2], `code="5xx"`), 5, 2},
			{"serin_target_responses_total", append(old[:3:3], `code="2xx"`), 45, 2},
			{"serin_target_group_targets", []string{`target_group="targetgroup/g`, `state="healthy"`}, 4, 2},
			{"serin_target_group_retries_total", []string{`target_group="targetgroup/g0/`}, 0, 1},
			{"serin_service_tasks", append(fresh[:2:2], `status="RUNNING"`), 2, 1},
			{"serin_service_traffic_weight", append(fresh[:2:2], `traffic="production"`), 10, 1},
			{"serin_service_traffic_weight", append(old[:3:3], `traffic="production"`), 90, 1},
			{"serin_lb_own_responses_total", nil, 0, 0},
		} {
			if got, n := series(scrape, c.name, c.labels...); got != c.want || n != c.series {
				t.Errorf("%s of %v is %g in %d series, want %g in %d", c.name, c.labels, got, n, c.want, c.series)
			}
		}
		if bytes, _ := series(scrape, "serin_lb_bytes_total", rule[:4]...); bytes < 50*100 {
			t.Errorf("there were %g bytes", bytes)
		}
	})
}

func TestWhatIsGoneIsNotToldToPrometheus(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		g, err := w.elb.CreateTargetGroup(t.Context(), &elb.CreateTargetGroupInput{Name: new("spare"), Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(8080)), TargetType: elbtypes.TargetTypeEnumIp})
		w.must(g, err)
		if !strings.Contains(w.scrape(), `target_group="targetgroup/spare/`) {
			t.Error("a new target group is not told")
		}
		w.must(w.elb.DeleteTargetGroup(t.Context(), &elb.DeleteTargetGroupInput{TargetGroupArn: g.TargetGroups[0].TargetGroupArn}))
		if strings.Contains(w.scrape(), "spare") {
			t.Error("a target group that is gone is told")
		}
	})
}

func TestTheTrafficSaysWhoseTasksItGoesTo(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		second := w.halfway()
		var view stage.Traffic
		w.get("/_serin/traffic", &view)
		if len(view.Services) != 1 || view.Services[0].Deployment == nil || view.Services[0].Deployment.ARN != second || len(view.Services[0].Revisions) != 2 {
			t.Fatalf("the services are %+v", view.Services)
		}
		revisions := map[string]stage.RevisionTraffic{}
		for _, r := range view.Services[0].Revisions {
			revisions[r.ARN] = r
		}
		d := w.look(second)
		source, target := revisions[*d.SourceServiceRevisions[0].Arn], revisions[*d.TargetServiceRevision.Arn]
		if source.Role != "source" || source.TaskDefinition != "web:1" || *source.Production != 90 || target.Role != "target" || *target.Production != 10 || target.Tasks["RUNNING"] != 2 {
			t.Errorf("the revisions are %+v and %+v", source, target)
		}
		for _, g := range view.TargetGroups {
			for _, target := range g.Targets {
				if target.Health != "healthy" || revisions[target.Revision].ARN == "" {
					t.Errorf("in %s there is %+v", g.Name, target)
				}
			}
			if len(g.Targets) != 2 {
				t.Errorf("%s has %d targets", g.Name, len(g.Targets))
			}
		}
		l := view.LoadBalancers[0].Listeners[0]
		if l.Port != 8088 || l.Rules[0].ARN != w.rule || l.Rules[0].Groups[0].InForce+l.Rules[0].Groups[1].InForce != 100 {
			t.Errorf("the listener is %+v", l)
		}
	})
}

func TestConnectionsCountAsRequestsOfANetworkLoadBalancer(t *testing.T) {
	behindNetwork(t, func(t *testing.T, w *network) {
		first, err := w.serve("1", nil, nil)
		w.must(first, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		c, transport := w.dialer()
		transport.DisableKeepAlives = true
		for range 7 {
			if got := w.ask(c, "8088"); got != "1" {
				t.Fatalf("%q answers", got)
			}
		}
		w.until("all have ended", func() bool {
			open, _ := series(w.scrape(), "serin_lb_connections_open", `load_balancer="net/edge/`)
			return open == 0
		})
		scrape := w.scrape()
		for name, labels := range map[string][]string{
			"serin_lb_connections_opened_total": {`load_balancer="net/edge/`, `listener="8088"`},
			"serin_lb_requests_total":           {`load_balancer="net/edge/`, `target_group="targetgroup/n0/`, `listener="8088"`},
			"serin_lb_rule_requests_total":      {`load_balancer="net/edge/`, `rule="default"`},
			"serin_target_requests_total":       {`target_group="targetgroup/n0/`, `task_definition="web:1"`},
		} {
			if got, _ := series(scrape, name, labels...); got != 7 {
				t.Errorf("%s of %v is %g", name, labels, got)
			}
		}
		if bytes, _ := series(scrape, "serin_lb_bytes_total", `load_balancer="net/edge/`); bytes == 0 {
			t.Error("no bytes were counted")
		}
	})
}
