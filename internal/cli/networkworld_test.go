package cli

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// says is a server that tells every connection its name and closes it.
func says(t *testing.T, name string) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, name)
			conn.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// The AWS CLI makes a network load balancer and moves its weights; connections go
// where they say.
func TestANetworkLoadBalancerByTheAWSCLI(t *testing.T) {
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("there is no aws here")
	}
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--speed", "60")
	do := func(args string, more ...string) string {
		t.Helper()
		cmd := exec.Command("aws", append(append([]string{"elbv2"}, strings.Fields(args)...), append(more, "--output", "text")...)...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION=eu-west-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	balancer := do("create-load-balancer --name edge --type network --subnets subnet-a --query LoadBalancers[0].LoadBalancerArn")
	if kind := do("describe-load-balancers --names edge --query LoadBalancers[0].Type"); kind != "network" || !strings.Contains(balancer, ":loadbalancer/net/edge/") {
		t.Errorf("%s is of type %q", balancer, kind)
	}
	var groups []string
	for _, name := range []string{"one", "two"} {
		g := do("create-target-group --name " + name + " --protocol TCP --port 80 --target-type ip --vpc-id vpc-1 --health-check-interval-seconds 10 --health-check-timeout-seconds 5 --query TargetGroups[0].TargetGroupArn")
		do("register-targets --target-group-arn " + g + fmt.Sprintf(" --targets Id=127.0.0.1,Port=%d", says(t, name)))
		groups = append(groups, g)
	}
	weigh := func(a, b int) string {
		return fmt.Sprintf(`[{"Type":"forward","ForwardConfig":{"TargetGroups":[{"TargetGroupArn":%q,"Weight":%d},{"TargetGroupArn":%q,"Weight":%d}]}}]`, groups[0], a, groups[1], b)
	}
	listener := do("create-listener --load-balancer-arn "+balancer+" --protocol TCP --port 9000 --query Listeners[0].ListenerArn --default-actions", weigh(100, 0))
	do("wait target-in-service --target-group-arn " + groups[0])
	url, code := serin(t, nil, "status", "--url", "edge", "--endpoint-url", endpoint)
	address, ok := strings.CutPrefix(strings.TrimSpace(url), "tcp://")
	if code != 0 || !ok {
		t.Fatalf("exit %d, it listens at %q", code, url)
	}
	answers := func() string {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		name, _ := io.ReadAll(conn)
		return string(name)
	}
	if got := answers(); got != "one" {
		t.Errorf("with all the weight on the first %q answers", got)
	}
	if got := do("modify-listener --listener-arn "+listener+" --query Listeners[0].DefaultActions[0].ForwardConfig.TargetGroups[].Weight --default-actions", weigh(0, 100)); got != "0\t100" {
		t.Errorf("the weights are said to be %q", got)
	}
	for end := time.Now().Add(time.Minute); answers() != "two"; {
		if time.Now().After(end) {
			t.Fatalf("with all the weight on the second %q answers", answers())
		}
	}
}
