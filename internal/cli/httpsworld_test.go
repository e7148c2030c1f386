package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The AWS CLI requests a certificate and makes a listener of HTTPS with rules of every
// kind; curl, which trusts the stage's authority, is answered by each of them.
func TestAListenerOfHTTPSByTheAWSCLIAndCurl(t *testing.T) {
	for _, program := range []string{"aws", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("there is no " + program + " here")
		}
	}
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "target "+r.Header.Get("X-Forwarded-Proto"))
	}))
	t.Cleanup(target.Close)
	dir := t.TempDir()
	_, endpoint := up(t, "--port", "0", "--data", dir, "--runtime", "native", "--speed", "60")
	try := func(args string, more ...string) (string, error) {
		cmd := exec.Command("aws", append(append(strings.Fields(args), more...), "--output", "text")...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION=eu-west-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	do := func(args string, more ...string) string {
		t.Helper()
		out, err := try(args, more...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
		return out
	}
	certificate := do("acm request-certificate --domain-name shop.example.com --subject-alternative-names *.example.com --validation-method DNS --query CertificateArn")
	do("acm wait certificate-validated --certificate-arn " + certificate)
	balancer := do("elbv2 create-load-balancer --name shop --subnets subnet-a subnet-b --query LoadBalancers[0].LoadBalancerArn")
	address := do("elbv2 describe-load-balancers --names shop --query LoadBalancers[0].DNSName")
	group := do("elbv2 create-target-group --name web --protocol HTTP --port 80 --target-type ip --vpc-id vpc-1 --query TargetGroups[0].TargetGroupArn")
	do("elbv2 register-targets --target-group-arn " + group + " --targets Id=127.0.0.1,Port=" + target.URL[strings.LastIndexByte(target.URL, ':')+1:])
	do("elbv2 create-listener --load-balancer-arn "+balancer+" --protocol HTTP --port 8480 --default-actions", `[{"Type":"redirect","RedirectConfig":{"Protocol":"HTTPS","Port":"8443","StatusCode":"HTTP_301"}}]`)
	listener := do("elbv2 create-listener --load-balancer-arn " + balancer + " --protocol HTTPS --port 8443 --certificates CertificateArn=" + certificate + " --ssl-policy ELBSecurityPolicy-TLS13-1-2-2021-06 --default-actions Type=forward,TargetGroupArn=" + group + " --query Listeners[0].ListenerArn")
	for i, c := range []string{
		`{"Field":"host-header","HostHeaderConfig":{"Values":["api.*.com"]}}`, `{"Field":"path-pattern","Values":["/img/*"]}`, `{"Field":"path-pattern","PathPatternConfig":{"RegexValues":["^/v[0-9]+$"]}}`,
		`{"Field":"http-header","HttpHeaderConfig":{"HttpHeaderName":"X-Team","Values":["blue*"]}}`, `{"Field":"http-request-method","HttpRequestMethodConfig":{"Values":["PURGE"]}}`,
		`{"Field":"query-string","QueryStringConfig":{"Values":[{"Key":"v","Value":"2"}]}}`, `{"Field":"source-ip","SourceIpConfig":{"Values":["127.0.0.9/32"]}}`,
	} {
		do(fmt.Sprintf("elbv2 create-rule --listener-arn %s --priority %d --conditions", listener, i+1), "["+c+"]", "--actions", fmt.Sprintf(`[{"Type":"fixed-response","FixedResponseConfig":{"StatusCode":"200","MessageBody":"rule %d"}}]`, i+1))
	}
	do("elbv2 modify-load-balancer-attributes --load-balancer-arn " + balancer + " --attributes Key=access_logs.s3.enabled,Value=true Key=access_logs.s3.bucket,Value=logs")
	do("elbv2 wait target-in-service --target-group-arn " + group)

	ask := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("curl", append([]string{"-sS", "--cacert", filepath.Join(dir, "authority.pem"), "--connect-to", "::" + address + ":"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("curl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	const shop = "https://shop.example.com:8443/"
	for _, c := range []struct {
		want string
		args []string
	}{
		{"target https", []string{shop}}, {"rule 1", []string{"https://api.example.com:8443/"}}, {"rule 2", []string{shop + "img/a"}}, {"rule 3", []string{shop + "v12"}}, {"rule 4", []string{"-H", "X-Team: blueish", shop}},
		{"rule 5", []string{"-X", "PURGE", shop}}, {"rule 6", []string{shop + "?v=2"}}, {"rule 7", []string{"--interface", "127.0.0.9", shop}}, {"target https", []string{"-L", "http://shop.example.com:8480/"}},
	} {
		if got := ask(c.args...); got != c.want {
			t.Errorf("curl %v is answered %q", c.args, got)
		}
	}
	if out, err := try("acm delete-certificate --certificate-arn " + certificate); err == nil || !strings.Contains(out, "ResourceInUseException") {
		t.Errorf("the certificate is deleted: %s", out)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "access-logs/logs/AWSLogs/*/elasticloadbalancing/eu-west-1/*/*/*/*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("there are no access logs: %v", err)
	}
	if line, _ := os.ReadFile(logs[0]); !strings.Contains(string(line), `"GET https://shop.example.com:8443/ HTTP/2.0"`) {
		t.Errorf("the access log says %s", line)
	}
}
