package cli

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// Under load the stage is started again three times. No request fails, whether it
// waits for its answer meanwhile or comes on a new connection or a kept one; and the
// new stage does not ask a target that the old one knew to be unhealthy.
func TestARestartFailsNoRequest(t *testing.T) {
	healthy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(300 * time.Millisecond) // longer than the balancer waits for idle connections
		}
		fmt.Fprint(w, "ok")
	}))
	defer healthy.Close()
	var asked atomic.Int64
	ill := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(500)
			return
		}
		asked.Add(1)
	}))
	defer ill.Close()
	cmd, endpoint := up(t, "--port", "0", "--data", t.TempDir(), "--runtime", "confined")
	url := behind(t, endpoint, healthy.Listener.Addr(), ill.Listener.Addr())
	asked.Store(0) // it was, before it was checked

	stop := make(chan struct{})
	var clients sync.WaitGroup
	var answered atomic.Int64
	for i := range 8 {
		path := []string{"/", "/", "/slow"}[i%3]
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		clients.Go(func() {
			defer c.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := c.Post(url+path, "text/plain", strings.NewReader("x")) // which nobody repeats
				if err != nil {
					t.Errorf("POST %s: %v", path, err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(b) != "ok" {
					t.Errorf("POST %s: %s %q, %v", path, resp.Status, b, err)
				}
				answered.Add(1)
			}
		})
	}
	pid := cmd.Process.Pid
	for range 3 {
		before := answered.Load()
		if out, err := exec.Command(binary, "restart", "--endpoint-url", endpoint).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		for answered.Load() < before+50 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
	}
	close(stop)
	clients.Wait()
	if n := asked.Load(); n > 0 {
		t.Errorf("the unhealthy target had %d requests", n)
	}
	if cmd.Process.Pid != pid || cmd.ProcessState != nil {
		t.Error("the stage is another process")
	}
	t.Logf("%d requests were answered", answered.Load())
}

func TestAnEphemeralStageIsNotStartedAgain(t *testing.T) {
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	out, err := exec.Command(binary, "restart", "--endpoint-url", endpoint).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "an ephemeral stage keeps nothing") {
		t.Errorf("%v: %s", err, out)
	}
}

// behind has a load balancer in front of a healthy target and one that is not, and
// returns its URL when it has found that out.
func behind(t *testing.T, endpoint string, healthy, ill net.Addr) string {
	t.Helper()
	ctx := t.Context()
	cfg, err := config.LoadDefaultConfig(ctx, config.WithBaseEndpoint(endpoint), config.WithRegion("eu-west-1"), config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	c := elb.NewFromConfig(cfg)
	lb, err := c.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("web"), Subnets: []string{"subnet-a", "subnet-b"}})
	if err != nil {
		t.Fatal(err)
	}
	group, err := c.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new("web"), Protocol: types.ProtocolEnumHttp, Port: new(int32(80)), VpcId: new("vpc-1"), TargetType: types.TargetTypeEnumIp,
		HealthCheckPath: new("/health"), HealthCheckIntervalSeconds: new(int32(5)), HealthCheckTimeoutSeconds: new(int32(2)), UnhealthyThresholdCount: new(int32(2))})
	if err != nil {
		t.Fatal(err)
	}
	arn := group.TargetGroups[0].TargetGroupArn
	var targets []types.TargetDescription
	for _, a := range []net.Addr{healthy, ill} {
		targets = append(targets, types.TargetDescription{Id: new("127.0.0.1"), Port: new(int32(a.(*net.TCPAddr).Port))})
	}
	if _, err := c.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: arn, Targets: targets}); err != nil {
		t.Fatal(err)
	}
	const port = 8080 // of an address that is the load balancer's alone
	if _, err := c.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Protocol: types.ProtocolEnumHttp, Port: new(int32(port)),
		DefaultActions: []types.Action{{Type: types.ActionTypeEnumForward, TargetGroupArn: arn}}}); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; {
		out, err := c.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: arn})
		if err != nil {
			t.Fatal(err)
		}
		states := map[types.TargetHealthStateEnum]int{}
		for _, d := range out.TargetHealthDescriptions {
			states[d.TargetHealth.State]++
		}
		if states["healthy"] == 1 && states["unhealthy"] == 1 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("they stay %v", states)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Sprintf("http://%s:%d", *lb.LoadBalancers[0].DNSName, port)
}
