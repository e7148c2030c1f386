package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/rehearse"
	"serin/internal/release"
)

// The world tests run the program itself: real sockets, real processes, real
// images. binary is built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "serin-world")
	if err == nil {
		binary = filepath.Join(dir, "serin")
		build := exec.Command("go", "build", "-o", binary, "../../cmd/serin")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "building serin:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// serin runs the program to its end.
func serin(t *testing.T, env []string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestTheDemoDoesWhatItSays(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		out, code := serin(t, nil, "demo", "--runtime", runtime)
		if code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		for _, want := range []string{
			"Not authorized to perform sts:AssumeRoleWithWebIdentity", "repo:someone-else/fork", "is not authorized to perform: ecs:RegisterTaskDefinition",
			"SUCCESSFUL CLEAN_UP", "ROLLBACK_SUCCESSFUL", "and 0 failed",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the demo does not say %q:\n%s", want, out)
			}
		}
	})
}

func TestUsageErrorsExit2(t *testing.T) {
	for _, args := range [][]string{{"fly"}, {"deploy"}, {"up", "--iam", "maybe", "--port", "0", "--ephemeral"}, {"env", "--github", "ref=x"}, {"time", "10m"}, {"up", "--nonsense"}, {"up", "--function", "check=x"}, {"up", "--upstream", "quay.io"}, {"up", "--registry-max-size", "some"}} {
		if out, code := serin(t, nil, args...); code != exitUsage || !strings.HasPrefix(out, "serin: error: ") {
			t.Errorf("%v exits %d: %s", args, code, out)
		}
	}
}

// up starts a stage as a process of its own and returns its address.
func up(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append([]string{"up"}, args...)...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
		r.Close()
	})
	buf := make([]byte, 4096)
	n, err := r.Read(buf)
	if err != nil {
		t.Fatal("the stage said nothing:", err)
	}
	_, rest, ok := strings.Cut(string(buf[:n]), "http://")
	if !ok {
		t.Fatalf("the stage said %s", buf[:n])
	}
	endpoint, _, _ := strings.Cut(rest, ",")
	return cmd, "http://" + endpoint
}

// path is a demo's walker, for what it makes.
func path(t *testing.T, endpoint string) *demo {
	t.Helper()
	a := &app{out: testWriter{t}, err: testWriter{t}, target: target{name: "stage", endpoint: endpoint}}
	d := &demo{app: a, started: time.Now(), account: "123456789012", region: "ap-northeast-2", endpoint: endpoint,
		service: release.Service{Cluster: "c", Name: "s"}, repository: "ecs-gpu-test", program: binary}
	c, err := config.LoadDefaultConfig(t.Context(), config.WithBaseEndpoint(endpoint), config.WithRegion(d.region),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(d.account, "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	d.admin, d.deployer = c, c
	return d
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// A stage is killed in the middle of a canary. The one after it finds the tasks
// and the deployment where they were and ends it properly; the load balancer
// answers again with the same tasks behind it.
func TestAKilledStageGoesOnWhereItWas(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--port", "0", "--data", dir, "--account", "123456789012", "--speed", "60"}
	cmd, endpoint := up(t, args...)
	d := path(t, endpoint)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.clickTogether(ctx))
	must(d.first(ctx))
	deployment, err := d.releaseVersion(ctx, "2")
	must(err)
	canary := func(dep ecstypes.ServiceDeployment) bool {
		return dep.LifecycleStage == ecstypes.ServiceDeploymentLifecycleStageProductionTrafficShift && aws.ToFloat64(dep.TargetServiceRevision.RequestedProductionTrafficWeight) == 10
	}
	_, err = release.Watch(ctx, ecs.NewFromConfig(d.admin), deployment, 20*time.Millisecond, canary)
	must(err)
	before := tasksOf(t, d)
	must(cmd.Process.Kill())
	cmd.Wait()
	_, endpoint = up(t, args...)
	again := path(t, endpoint)
	dep, err := release.Describe(ctx, ecs.NewFromConfig(again.admin), deployment)
	must(err)
	if dep.Status != ecstypes.ServiceDeploymentStatusInProgress {
		t.Fatalf("after the restart it is %s", dep.Status)
	}
	end, err := release.Watch(ctx, ecs.NewFromConfig(again.admin), deployment, 50*time.Millisecond, func(ecstypes.ServiceDeployment) bool { return false })
	must(err)
	if end.Status != ecstypes.ServiceDeploymentStatusSuccessful {
		t.Fatalf("it ended %s: %s", end.Status, aws.ToString(end.StatusReason))
	}
	for id := range tasksOf(t, again) {
		if !before[id] {
			t.Errorf("task %s was started anew", id)
		}
	}
	load := &rehearse.Load{URL: d.listener, Rate: 100, Version: func(r *http.Response) string { return r.Header.Get("X-Version") }}
	loading, enough := context.WithTimeout(ctx, time.Second)
	defer enough()
	load.Run(loading)
	if seen := load.Seen(); seen.Failed > 0 || seen.By["2"] == 0 || seen.By["1"] > 0 {
		t.Errorf("users then saw %+v", seen)
	}
	_, err = ecs.NewFromConfig(again.admin).DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: &d.service.Cluster, Service: &d.service.Name, Force: new(true)})
	must(err)
	must(ecs.NewServicesInactiveWaiter(ecs.NewFromConfig(again.admin), func(o *ecs.ServicesInactiveWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, 100*time.Millisecond
	}).
		Wait(ctx, &ecs.DescribeServicesInput{Cluster: &d.service.Cluster, Services: []string{d.service.Name}}, time.Minute))
}

func tasksOf(t *testing.T, d *demo) map[string]bool {
	t.Helper()
	out, err := ecs.NewFromConfig(d.admin).ListTasks(t.Context(), &ecs.ListTasksInput{Cluster: &d.service.Cluster})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, a := range out.TaskArns {
		ids[a] = true
	}
	return ids
}

// The AWS CLI is a stranger: it knows nothing of us.
func TestTheAWSCLI(t *testing.T) {
	cli, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("there is no aws here")
	}
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	run := func(args ...string) (map[string]any, string) {
		cmd := exec.Command(cli, append(args, "--output", "json")...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION=eu-west-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
		out, _ := cmd.CombinedOutput()
		var v map[string]any
		json.Unmarshal(out, &v)
		return v, string(out)
	}
	for _, c := range []struct{ args, want string }{
		{"sts get-caller-identity", `"arn:aws:iam::000000000000:root"`},
		{"iam create-open-id-connect-provider --url https://token.actions.githubusercontent.com --client-id-list sts.amazonaws.com", "oidc-provider/token.actions.githubusercontent.com"},
		{"iam list-open-id-connect-providers", "oidc-provider/token.actions.githubusercontent.com"},
		{"iam get-role --role-name nobody", "(NoSuchEntity)"},
		{"iam list-policies --scope AWS", "AmazonEC2ContainerRegistryPowerUser"},
		{"ecr create-repository --repository-name team/web", "team/web"},
		{"ecr describe-images --repository-name none", "(RepositoryNotFoundException)"},
		{"ecr get-authorization-token", "proxyEndpoint"},
		{"ecs create-cluster --cluster-name prod", `"ACTIVE"`},
		{"ecs list-clusters", "cluster/prod"},
		{"ecs describe-services --cluster prod --services none", `"MISSING"`},
		{"ecs list-services --cluster none", "(ClusterNotFoundException)"},
		{"logs create-log-group --log-group-name /x", ""},
		{"logs describe-log-groups", `"/x"`},
		{"logs create-log-stream --log-group-name /x --log-stream-name s", ""},
		{"logs put-log-events --log-group-name /x --log-stream-name s --log-events timestamp=1700000000000,message=hello", ""},
		{"logs filter-log-events --log-group-name /x --filter-pattern hello", "hello"},
		{"ec2 describe-vpcs", "172.31.0.0/16"},
		{"ec2 describe-subnets --filters Name=default-for-az,Values=true", "eu-west-1c"},
		{"ec2 create-security-group --group-name web --description web", "sg-"},
		{"elbv2 create-load-balancer --name web --subnets a b", "loadbalancer/app/web/"},
		{"elbv2 create-target-group --name web --protocol HTTP --port 80 --target-type ip --vpc-id v", "targetgroup/web/"},
		{"elbv2 describe-target-groups", "targetgroup/web/"},
	} {
		if _, out := run(strings.Fields(c.args)...); !strings.Contains(out, c.want) {
			t.Errorf("aws %s gives\n%s, without %s", c.args, out, c.want)
		}
	}
}

// Docker is a stranger's registry client.
func TestDockerPushesAndPulls(t *testing.T) {
	if exec.Command("docker", "info").Run() != nil {
		t.Skip("no Docker daemon answers here")
	}
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined", "--account", "123456789012")
	d := path(t, endpoint)
	if err := d.clickTogether(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := ecr.NewFromConfig(d.admin).GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(*out.AuthorizationData[0].ProxyEndpoint, "http://")
	raw, _ := base64.StdEncoding.DecodeString(*out.AuthorizationData[0].AuthorizationToken)
	config := t.TempDir()
	docker := func(stdin string, args ...string) (string, error) {
		cmd := exec.Command("docker", append([]string{"--config", config}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	ref := host + "/" + d.repository + ":pushed"
	t.Cleanup(func() { docker("", "rmi", "-f", ref) })
	if out, err := docker(strings.TrimPrefix(string(raw), "AWS:"), "login", "-u", "AWS", "--password-stdin", host); err != nil {
		t.Fatal(out)
	}
	if out, err := docker("", "pull", ref); err == nil || !strings.Contains(out, "Requested image not found") {
		t.Errorf("pulling what is not there: %s", out)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: 5})
	w.Write([]byte("hello"))
	w.Close()
	if out, err := docker(layer.String(), "import", "-", ref); err != nil {
		t.Fatal(out)
	}
	if out, err := docker("", "push", ref); err != nil {
		t.Fatal(out)
	}
	images, err := ecr.NewFromConfig(d.admin).DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: &d.repository})
	if err != nil || len(images.ImageDetails) != 1 || images.ImageDetails[0].ImageTags[0] != "pushed" {
		t.Fatalf("pushed %+v, %v", images, err)
	}
	docker("", "rmi", ref)
	if out, err := docker("", "pull", ref); err != nil || !strings.Contains(out, *images.ImageDetails[0].ImageDigest) {
		t.Errorf("pulled %s, %v; want %s", out, err, *images.ImageDetails[0].ImageDigest)
	}
	missing := host + "/nobody/home:1"
	docker("", "tag", ref, missing)
	t.Cleanup(func() { docker("", "rmi", "-f", missing) })
	if out, err := docker("", "push", missing); err == nil || !strings.Contains(out, "The repository with name 'nobody/home' does not exist in the registry with id '123456789012'") {
		t.Errorf("pushing to no repository: %s", out)
	}
}

// conformance is the distribution specification's own suite, at a version of
// the main branch: the tagged ones still want Ginkgo and a flag for each test.
const conformance = "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111"

// The specification's suite runs all four workflows: pull, push, content
// discovery and management. What ECR does not offer (deletion in this protocol,
// digests of SHA-512) the suite is told of, or lets pass by the specification.
func TestTheDistributionSpecificationsConformance(t *testing.T) {
	dir := t.TempDir()
	install := exec.Command("go", "install", conformance)
	install.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("the conformance suite cannot be had here: %s", out)
	}
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined", "--account", "123456789012")
	client := ecr.NewFromConfig(path(t, endpoint).admin)
	for _, name := range []string{"conformance/one", "conformance/two"} {
		if _, err := client.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	token, err := client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := base64.StdEncoding.DecodeString(*token.AuthorizationData[0].AuthorizationToken)
	run := exec.Command(filepath.Join(dir, "conformance"))
	run.Dir = dir
	run.Env = append(os.Environ(), "OCI_VERSION=1.1", "OCI_REGISTRY="+strings.TrimPrefix(endpoint, "http://"), "OCI_TLS=disabled", "OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two",
		"OCI_USERNAME=AWS", "OCI_PASSWORD="+strings.TrimPrefix(string(raw), "AWS:"), "OCI_DATA_SHA512=false", "OCI_RESULTS_DIR="+dir)
	out, err := run.CombinedOutput()
	_, summary, ok := strings.Cut(string(out), "OCI Conformance Result: Pass")
	if err != nil || !ok {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, passed := range []string{"Blob get range", "Blob mount", "Blob post put", "Blob chunked", "Blob streaming", "Manifest put by tag", "Manifest get by digest", "Tag listing", "Referrers", "Index with Subject"} {
		if !regexp.MustCompile(`(?m)^ *` + regexp.QuoteMeta(passed) + `\.+: +Pass$`).MatchString(summary) {
			t.Errorf("the suite does not say that %q passes:\n%s", passed, summary)
		}
	}
}

// boto3 is a stranger, too.
func TestBoto3WalksThroughIdentity(t *testing.T) {
	if exec.Command("python3", "-c", "import boto3").Run() != nil {
		t.Skip("there is no boto3 here")
	}
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	cmd := exec.Command("python3", "testdata/identity.py", endpoint, endpoint+"/_serin/github/token?api-version=2.0&repo=acme/web")
	cmd.Env = append(os.Environ(), "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("%v\n%s", err, out)
	}
}
