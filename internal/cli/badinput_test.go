package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"go.etcd.io/bbolt"
)

func admin(t *testing.T, endpoint string) aws.Config {
	t.Helper()
	c, err := config.LoadDefaultConfig(t.Context(), config.WithBaseEndpoint(endpoint), config.WithRegion("us-east-1"), config.WithRetryMaxAttempts(1),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAPortInUseIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	out, code := serin(t, nil, "up", "--ephemeral", "--port", port)
	if code != exitFailed || !strings.Contains(out, "taking port "+port) || !strings.Contains(out, "serin: hint: another program listens there") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestTwoStagesDoNotShareADirectory(t *testing.T) {
	dir := t.TempDir()
	up(t, "--port", "0", "--data", dir)
	out, code := serin(t, nil, "up", "--port", "0", "--data", dir)
	if code != exitFailed || !strings.Contains(out, "in use by another stage") || !strings.Contains(out, "serin: hint: serin down") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// A directory that a newer program wrote is left as it is.
func TestADirectoryOfANewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	cmd, endpoint := up(t, "--port", "0", "--data", dir)
	if _, err := ecs.NewFromConfig(admin(t, endpoint)).CreateCluster(t.Context(), &ecs.CreateClusterInput{}); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	files, err := filepath.Glob(filepath.Join(dir, "*.db"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the state is in %v, %v", files, err)
	}
	db, err := bbolt.Open(files[0], 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("layout"), []byte{0, 0, 0, 0, 0, 0, 0, 99})
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	before, _ := os.ReadFile(files[0])
	out, code := serin(t, nil, "up", "--port", "0", "--data", dir)
	if code != exitFailed || !strings.Contains(out, "was written in layout 99, this program knows layouts up to") {
		t.Errorf("exit %d: %s", code, out)
	}
	if after, _ := os.ReadFile(files[0]); string(after) != string(before) {
		t.Error("the file was changed")
	}
}

// layerPush makes a repository, and returns what pushes a layer to it.
func layerPush(t *testing.T, c aws.Config, layer []byte) func() (int, string) {
	t.Helper()
	r := ecr.NewFromConfig(c)
	if _, err := r.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: new("web")}); err != nil {
		t.Fatal(err)
	}
	out, err := r.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	auth := out.AuthorizationData[0]
	return func() (int, string) {
		t.Helper()
		in, err := http.NewRequest("POST", fmt.Sprintf("%s/v2/web/blobs/uploads/?digest=sha256:%x", *auth.ProxyEndpoint, sha256.Sum256(layer)), bytes.NewReader(layer))
		if err != nil {
			t.Fatal(err)
		}
		in.Header.Set("Authorization", "Basic "+*auth.AuthorizationToken)
		in.Header.Set("Content-Type", "application/octet-stream")
		answer, err := http.DefaultClient.Do(in)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
}

// When the disk is full a call fails and nothing of it is kept; with room again
// the same stage goes on.
func TestAFullDiskFailsTheCallAndTheStageGoesOn(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("a small disk cannot be mounted here:", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	cmd, endpoint := up(t, "--port", "0", "--data", dir, "--runtime", "confined")
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	c := admin(t, endpoint)
	e, l := ecs.NewFromConfig(c), cloudwatchlogs.NewFromConfig(c)
	group, stream := new("g"), new("s")
	if _, err := l.CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: group}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.CreateLogStream(t.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: group, LogStreamName: stream}); err != nil {
		t.Fatal(err)
	}
	layer := bytes.Repeat([]byte("layer"), 100_000)
	push := layerPush(t, c, layer)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); err == nil {
		t.Fatal("the disk is larger than it should be")
	}
	put := func(text string) error {
		_, err := l.PutLogEvents(t.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: group, LogStreamName: stream, LogEvents: []logtypes.InputLogEvent{{Message: &text, Timestamp: new(int64(1_790_000_000_000))}}})
		return err
	}
	if err := put("lost " + strings.Repeat("x", 100_000)); err == nil || !strings.Contains(err.Error(), "ServerException") && !strings.Contains(err.Error(), "ServiceUnavailable") {
		t.Errorf("logging to a full disk gave %v", err)
	}
	if status, text := push(); status != http.StatusForbidden || !strings.Contains(text, `"DENIED"`) || !strings.Contains(text, "no space left on device") {
		t.Errorf("pushing to a full disk gave %d %s", status, text)
	}
	// The table's file has spare pages; sooner or later it has none.
	var failed error
	made := 0
	for n := 0; n < 4000 && failed == nil; n++ {
		_, failed = e.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("c" + strings.Repeat("x", 200) + string(rune('a'+n%26)) + string(rune('a'+n/26%26)) + string(rune('a'+n/676)))})
		if failed == nil {
			made++
		}
	}
	if failed == nil || !strings.Contains(failed.Error(), "ServerException") {
		t.Fatalf("after %d clusters on a full disk: %v", made, failed)
	}
	count := func() (n int) {
		pages := ecs.NewListClustersPaginator(e, &ecs.ListClustersInput{})
		for pages.HasMorePages() {
			out, err := pages.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n += len(out.ClusterArns)
		}
		return n
	}
	if got := count(); got != made {
		t.Errorf("%d clusters were answered and %d are there", made, got)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := e.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("again")}); err != nil {
		t.Error("with room again:", err)
	}
	if err := put("kept"); err != nil {
		t.Error("with room again:", err)
	}
	if status, text := push(); status != http.StatusCreated {
		t.Errorf("with room again a push gave %d %s", status, text)
	}
	out, err := l.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: group, LogStreamName: stream})
	if err != nil || len(out.Events) != 1 || *out.Events[0].Message != "kept" {
		t.Errorf("the stream holds %d events, %v", len(out.Events), err)
	}
}

// A task whose image is not there stops and says so; the stage goes on.
func TestAnImageThatIsNotThereIsSaid(t *testing.T) {
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined", "--account", "123456789012", "--speed", "60")
	d := path(t, endpoint)
	ctx, e := t.Context(), ecs.NewFromConfig(d.admin)
	if err := d.clickTogether(ctx); err != nil {
		t.Fatal(err)
	}
	in, err := d.definition("nobody-pushed-this")
	if err != nil {
		t.Fatal(err)
	}
	registered, err := e.RegisterTaskDefinition(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.CreateService(ctx, &ecs.CreateServiceInput{Cluster: &d.service.Cluster, ServiceName: &d.service.Name, TaskDefinition: registered.TaskDefinition.TaskDefinitionArn, DesiredCount: aws.Int32(1),
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for tick := time.Tick(20 * time.Millisecond); ; <-tick {
		stopped, err := e.ListTasks(ctx, &ecs.ListTasksInput{Cluster: &d.service.Cluster, DesiredStatus: ecstypes.DesiredStatusStopped})
		if err != nil {
			t.Fatal(err)
		}
		if len(stopped.TaskArns) > 0 {
			out, err := e.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &d.service.Cluster, Tasks: stopped.TaskArns[:1]})
			if err != nil {
				t.Fatal(err)
			}
			if task := out.Tasks[0]; task.StopCode != ecstypes.TaskStopCodeTaskFailedToStart || !strings.HasPrefix(aws.ToString(task.StoppedReason), "CannotPullContainerError") {
				t.Errorf("it stopped with %s: %s", task.StopCode, aws.ToString(task.StoppedReason))
			}
			return
		}
	}
}

// A release that is denied exits 6, with the reason as its hint.
func TestADeniedReleaseSaysWhy(t *testing.T) {
	_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", "confined")
	i, ctx := iam.NewFromConfig(admin(t, endpoint)), t.Context()
	if _, err := i.CreateUser(ctx, &iam.CreateUserInput{UserName: new("joe")}); err != nil {
		t.Fatal(err)
	}
	key, err := i.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: new("joe")})
	if err != nil {
		t.Fatal(err)
	}
	out, code := serin(t, []string{"AWS_ACCESS_KEY_ID=" + *key.AccessKey.AccessKeyId, "AWS_SECRET_ACCESS_KEY=" + *key.AccessKey.SecretAccessKey}, "deploy", "--endpoint-url", endpoint, "--cluster", "prod", "--service", "web", "--force")
	if code != exitDenied {
		t.Errorf("it exits %d", code)
	}
	for _, want := range []string{
		"serin: error: AccessDeniedException: User: arn:aws:iam::000000000000:user/joe is not authorized to perform: ecs:ListServiceDeployments",
		"serin: hint: the stage says why\ndenied: ecs:ListServiceDeployments on arn:aws:ecs:us-east-1:000000000000:service/prod/web", "there is no policy that speaks of it", `"Action": "ecs:ListServiceDeployments"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	again, code := serin(t, nil, "explain", "--endpoint-url", endpoint)
	if code != exitOK || !strings.HasPrefix(again, "denied: ecs:ListServiceDeployments") {
		t.Errorf("explain exits %d: %s", code, again)
	}
	if out, code := serin(t, nil, "explain", "none", "--endpoint-url", endpoint); code != exitFailed || !strings.Contains(out, "the stage denied no request none") {
		t.Errorf("explain of nothing exits %d: %s", code, out)
	}
	if out, code := serin(t, nil, "policy", "--endpoint-url", endpoint); code != exitUsage {
		t.Errorf("policy of nobody exits %d: %s", code, out)
	}
}
