package cli

import (
	"bytes"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// asAWS is the environment in which an endpoint is AWS.
func asAWS(endpoint string, d *demo) []string {
	return append(os.Environ(), "AWS_ENDPOINT_URL="+endpoint, "AWS_ACCESS_KEY_ID=123456789012", "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION="+d.region, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
}

// secured is a stage behind TLS: sessions are at wss there, with a certificate of
// its own. signed is whether a request for a session came, and was signed.
func secured(t *testing.T, endpoint string) (secure, certificate string, signed *atomic.Bool) {
	t.Helper()
	to, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	signed = &atomic.Bool{}
	var server *httptest.Server
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			if r.In.Header.Get("Upgrade") != "" && strings.Contains(r.In.Header.Get("Authorization"), "/ssmmessages/aws4_request") {
				signed.Store(true)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusSwitchingProtocols {
				return nil
			}
			raw, err := io.ReadAll(r.Body)
			raw = bytes.ReplaceAll(raw, []byte("ws://"+to.Host), []byte("wss://"+strings.TrimPrefix(server.URL, "https://")))
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
			r.Header.Set("Content-Length", strconv.Itoa(len(raw)))
			r.Header.Del("X-Amz-Crc32")
			return err
		},
	}
	server = httptest.NewTLSServer(proxy)
	t.Cleanup(server.Close)
	certificate = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return server.URL, certificate, signed
}

// The stage plays AWS: the same sessions as AWS's, by ws and by wss.
func TestSerinExecRunsACommandOnAWS(t *testing.T) {
	endpoint, d, task := talker(t, "confined")
	env := asAWS(endpoint, d)
	args := func(flags ...string) *exec.Cmd {
		list := append([]string{"exec", "--target", "aws", "--cluster", d.service.Cluster}, flags...)
		cmd := exec.Command(binary, append(list, *task.TaskArn, "--", "shell", "talk")...)
		cmd.Env = env
		return cmd
	}
	const ended = "AWS does not say with which exit code the command did.\n"
	said := func(cmd *exec.Cmd) (out, errors string, code int) {
		t.Helper()
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		raw, _ := cmd.Output()
		return string(raw), stderr.String(), cmd.ProcessState.ExitCode()
	}
	// Without an input there is none; its terminal is of who has no window.
	out, errs, code := said(args())
	if code != 0 || !strings.HasPrefix(out, "hello ") || !strings.Contains(out, "300x100\r\n") || !strings.HasSuffix(out, "no more\r\n") || !strings.HasPrefix(errs, "AWS account 123456789012, region "+d.region) || !strings.HasSuffix(errs, ended) {
		t.Errorf("it ended with %d, said %q and %q", code, out, errs)
	}
	// An input is typed, and so is its end.
	cmd := args("-i")
	cmd.Stdin = strings.NewReader("one\ntwo")
	if out, _, code := said(cmd); code != 0 || !strings.Contains(out, "you said ONE\r\n") || !strings.Contains(out, "you said TWO\r\n") || !strings.HasSuffix(out, "no more\r\n") {
		t.Errorf("it ended with %d and said %q", code, out)
	}
	secure, certificate, signed := secured(t, endpoint)
	for scheme, with := range map[string][]string{"ws": env, "wss": append(asAWS(secure, d), "AWS_CA_BUNDLE="+certificate)} {
		env = with
		k := before(t, args("-it"), 90, 20)
		k.sees("hello ")
		k.sees("90x20")
		k.types("one\r")
		k.sees("one\r\nyou said ONE\r\n")
		k.sized(100, 30)
		k.sees("now 100x30\r\n")
		k.types("exit 3\r")
		k.sees("Session ecs-execute-command-")
		k.sees("AWS does not say with which exit code the command did.\r\n")
		if code := k.code(); code != 0 {
			t.Errorf("by %s it ended with %d", scheme, code)
		}
		if now := k.settings(); now != k.was {
			t.Errorf("by %s the terminal is left as %+v, was %+v", scheme, now, k.was)
		}
	}
	if !signed.Load() {
		t.Error("the request for a session was not signed")
	}
	// What cannot be is said.
	env = asAWS(endpoint, d)
	e := ecs.NewFromConfig(d.admin)
	plain, err := e.RunTask(t.Context(), &ecs.RunTaskInput{Cluster: &d.service.Cluster, TaskDefinition: task.TaskDefinitionArn,
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	runs(t, e, d.service.Cluster, *plain.Tasks[0].TaskArn)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-u", "joe", *task.TaskArn, "--", "shell"}, exitUsage, "--user goes with --target stage"},
		{[]string{"-it", *task.TaskArn, "--", "shell"}, exitUsage, "--tty wants a terminal"},
		{[]string{*task.TaskArn, "--", "none"}, exitFailed, "Unable to start command: Failed to start pty: exec: \"none\": executable file not found in $PATH"},
		{[]string{strings.Repeat("0", 32), "--", "shell"}, exitFailed, "there is no task 0000"},
		{[]string{"--container", "none", *task.TaskArn, "--", "shell"}, exitFailed, "the task has no container none, but "},
		{[]string{*plain.Tasks[0].TaskArn, "--", "shell"}, exitFailed, "execute command is not enabled\nserin: hint: run the task with --enable-execute-command"},
	} {
		cmd := exec.Command(binary, append([]string{"exec", "--target", "aws", "--cluster", d.service.Cluster}, c.args...)...)
		cmd.Env = env
		if _, errs, code := said(cmd); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%q ended with %d and said %q, want %q", c.args, code, errs, c.want)
		}
	}
	if _, err := iam.NewFromConfig(d.admin).DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: new("shop"), PolicyName: new("own")}); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := said(args()); code != exitFailed || !strings.Contains(errs, "TargetNotConnectedException: The execute command failed due to an internal error.") || !strings.Contains(errs, "hint: the agent does not reach Session Manager: the task's role needs ssmmessages:") {
		t.Errorf("without a role's permissions it ended with %d and said %q", code, errs)
	}
}
