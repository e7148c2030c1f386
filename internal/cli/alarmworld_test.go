package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
)

// stranger runs a client of AWS's against a stage.
func stranger(endpoint string, name string, args ...string) string {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION=us-east-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_PAGER=")
	out, _ := cmd.CombinedOutput()
	return strings.TrimSpace(string(out))
}

// The AWS CLI measures, watches and sees an alarm go off, in JSON 1.0.
func TestTheAWSCLISeesAnAlarmGoOff(t *testing.T) {
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("there is no aws here")
	}
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined", "--speed", "120")
	now := time.Now().UTC()
	between := " --start-time " + now.Add(-time.Hour).Format(time.RFC3339) + " --end-time " + now.Add(24*time.Hour).Format(time.RFC3339)
	run := func(args, want string, more ...string) {
		t.Helper()
		if out := stranger(endpoint, "aws", append(append([]string{"cloudwatch"}, strings.Fields(args)...), more...)...); !strings.Contains(out, want) {
			t.Errorf("aws cloudwatch %s gives\n%s, without %s", args, out, want)
		}
	}
	run("put-metric-alarm --alarm-name errors --namespace Shop --metric-name errors --statistic Sum --period 60 --evaluation-periods 1 --threshold 3 --comparison-operator GreaterThanThreshold --treat-missing-data ignore", "")
	run("describe-alarms --alarm-names errors", `"StateValue": "INSUFFICIENT_DATA"`)
	run("put-metric-data --namespace Shop --metric-name errors --value 4 --unit Count", "")
	run("put-metric-data --namespace Shop --metric-data", "", `[{"MetricName":"latency","Values":[1,2,3],"Counts":[1,1,2]}]`)
	run("list-metrics --namespace Shop", `"MetricName": "latency"`)
	run("get-metric-statistics --namespace Shop --metric-name latency --statistics Maximum SampleCount --period 86400"+between, `"SampleCount": 4.0`)
	run("get-metric-data"+between+" --metric-data-queries", `"Values": [`+"\n                8.0\n", `[{"Id":"e","Expression":"m*2"},{"Id":"m","ReturnData":false,"MetricStat":{"Metric":{"Namespace":"Shop","MetricName":"errors"},"Period":86400,"Stat":"Sum"}}]`)
	out := ""
	for until := time.Now().Add(time.Minute); time.Now().Before(until) && !strings.Contains(out, "ALARM"); {
		out = stranger(endpoint, "aws", "cloudwatch", "describe-alarms", "--state-value", "ALARM", "--query", "MetricAlarms[].[StateValue,StateReason]", "--output", "text")
	}
	if !strings.Contains(out, "ALARM\tThreshold Crossed: 1 out of the last 1 datapoints [4.0 (") {
		t.Errorf("the alarm says %s", out)
	}
	run("describe-alarm-history --alarm-name errors", "Alarm updated from INSUFFICIENT_DATA to ALARM")
	run("delete-alarms --alarm-names none", "(ResourceNotFound)")
	run("put-composite-alarm --alarm-name c --alarm-rule FALSE", "Serin does not perform cloudwatch:PutCompositeAlarm.")
}

// boto3 compresses what is long, and knows each error by its class.
func TestBoto3MeasuresAndKnowsTheErrors(t *testing.T) {
	if exec.Command("python3", "-c", "import boto3").Run() != nil {
		t.Skip("there is no boto3 here")
	}
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	if out := stranger(endpoint, "python3", "testdata/metrics.py"); out != "ok" {
		t.Error(out)
	}
}

// Older clients speak Query: a signed form, or the same in the URL.
func TestAnOldClientSpeaksQueryToCloudWatch(t *testing.T) {
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	send := func(method string, form url.Values) (int, string) {
		t.Helper()
		form.Set("Version", "2010-08-01")
		body, target := form.Encode(), endpoint+"/"
		if method == http.MethodGet {
			body, target = "", target+"?"+body
		}
		r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		}
		sum := sha256.Sum256([]byte(body))
		keys, err := admin(t, endpoint).Credentials.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := v4.NewSigner().SignHTTP(t.Context(), keys, r, hex.EncodeToString(sum[:]), "monitoring", "us-east-1", time.Now()); err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		told, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(told)
	}
	for _, c := range []struct {
		method string
		form   url.Values
		status int
		want   string
	}{
		{"POST", url.Values{"Action": {"PutMetricData"}, "Namespace": {"Shop"}, "MetricData.member.1.MetricName": {"errors"}, "MetricData.member.1.Value": {"4"}, "MetricData.member.1.Dimensions.member.1.Name": {"Service"}, "MetricData.member.1.Dimensions.member.1.Value": {"web"}}, 200, "<PutMetricDataResponse"},
		{"GET", url.Values{"Action": {"ListMetrics"}, "Namespace": {"Shop"}}, 200, "<Metrics><member><Dimensions><member><Name>Service</Name><Value>web</Value></member></Dimensions><MetricName>errors</MetricName><Namespace>Shop</Namespace></member></Metrics>"},
		{"POST", url.Values{"Action": {"DescribeAlarms"}}, 200, "<MetricAlarms></MetricAlarms>"},
		{"POST", url.Values{"Action": {"DeleteAlarms"}, "AlarmNames.member.1": {"none"}}, 404, "<Type>Sender</Type><Code>ResourceNotFound</Code>"},
	} {
		if status, told := send(c.method, c.form); status != c.status || !strings.Contains(told, c.want) {
			t.Errorf("%s %v gives %d %s", c.method, c.form, status, told)
		}
	}
}

// Alarms and what they say survive the stage; data points do not.
func TestAlarmsSurviveTheStage(t *testing.T) {
	dir := t.TempDir()
	stage, endpoint := up(t, "--port", "0", "--data", dir, "--runtime", "confined")
	for _, args := range []string{
		"put-metric-alarm --alarm-name errors --namespace Shop --metric-name errors --statistic Sum --period 60 --evaluation-periods 1 --threshold 3 --comparison-operator GreaterThanThreshold --treat-missing-data ignore",
		"set-alarm-state --alarm-name errors --state-value ALARM --state-reason drill", "put-metric-data --namespace Shop --metric-name errors --value 1",
	} {
		if _, err := exec.LookPath("aws"); err != nil {
			t.Skip("there is no aws here")
		}
		if out := stranger(endpoint, "aws", append([]string{"cloudwatch"}, strings.Fields(args)...)...); out != "" {
			t.Fatal(out)
		}
	}
	stage.Process.Signal(syscall.SIGTERM)
	stage.Wait()
	_, endpoint = up(t, "--port", "0", "--data", dir, "--runtime", "confined")
	cw := cloudwatch.NewFromConfig(admin(t, endpoint))
	alarms, err := cw.DescribeAlarms(t.Context(), &cloudwatch.DescribeAlarmsInput{})
	if err != nil || len(alarms.MetricAlarms) != 1 || alarms.MetricAlarms[0].StateValue != "ALARM" || *alarms.MetricAlarms[0].StateReason != "drill" {
		t.Errorf("%+v %v", alarms, err)
	}
	metrics, err := cw.ListMetrics(t.Context(), &cloudwatch.ListMetricsInput{})
	if err != nil || len(metrics.Metrics) != 0 {
		t.Errorf("%+v %v", metrics, err)
	}
}
