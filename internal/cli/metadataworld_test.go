package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// insider is a program in a task that asks the agent, and the task as ECS has it.
type insider struct {
	t    *testing.T
	at   string
	task ecstypes.Task
}

// programmed is a stage with a definition of a program of testdata, whose tasks have a
// role that may do some actions.
func programmed(t *testing.T, program, runtime, actions string) (endpoint string, d *demo, in *ecs.RegisterTaskDefinitionInput) {
	t.Helper()
	built := filepath.Join(t.TempDir(), program)
	build := exec.Command("go", "build", "-o", built, "./testdata/"+program)
	build.Env, build.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(build.Run())
	_, endpoint = up(t, "--port", "0", "--ephemeral", "--runtime", runtime, "--account", "123456789012", "--speed", "60")
	d = path(t, endpoint)
	d.program = built
	ctx, i := t.Context(), iam.NewFromConfig(d.admin)
	must(d.clickTogether(ctx))
	_, err := i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("shop"), AssumeRolePolicyDocument: new(serviceTrust("ecs-tasks.amazonaws.com"))})
	must(err)
	_, err = i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("shop"), PolicyName: new("own"), PolicyDocument: new(fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":%q,"Resource":"*"}]}`, actions))})
	must(err)
	must(d.push(ctx, "1"))
	in, err = d.definition("1")
	must(err)
	in.TaskRoleArn = new(d.role("shop"))
	return endpoint, d, in
}

// insideATask runs one as a service's only task, with a role that may protect it.
func insideATask(t *testing.T, runtime string) insider {
	t.Helper()
	_, d, in := programmed(t, "asker", runtime, "ecs:*TaskProtection")
	task := oneTask(t, d, in)
	return insider{t, "http://" + *task.Containers[0].NetworkInterfaces[0].PrivateIpv4Address + ":8080/", task}
}

// ask is what a page says to the task, in JSON.
func (i insider) ask(page string, into any) {
	i.t.Helper()
	for tick := time.Tick(20 * time.Millisecond); ; <-tick { // the program listens a moment after its task runs
		resp, err := http.Get(i.at + page)
		if errors.Is(err, syscall.ECONNREFUSED) && i.t.Context().Err() == nil {
			continue
		}
		if err != nil {
			i.t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(raw, into) != nil {
			i.t.Fatalf("%s answers %s %s (%v)", page, resp.Status, raw, err)
		}
		return
	}
}

// A program in a task asks by its environment alone who it is and what it uses, and
// protects itself; the stage's own pages stay closed to it where it has a door of its own.
func TestATaskAsksItsAgent(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		i := insideATask(t, runtime)
		web := i.task.Containers[0]
		var task struct {
			Cluster, TaskARN, Family, Revision, DesiredStatus, KnownStatus, LaunchType, ServiceName string
			PullStartedAt, PullStoppedAt                                                            time.Time
			Limits                                                                                  struct{ CPU, Memory float64 }
			Containers                                                                              []json.RawMessage
			FaultInjectionEnabled                                                                   *bool
		}
		i.ask("ECS_CONTAINER_METADATA_URI_V4/task", &task)
		_, definition, _ := strings.Cut(*i.task.TaskDefinitionArn, "/")
		for name, x := range map[string][2]string{
			"Cluster": {task.Cluster, "c"}, "TaskARN": {task.TaskARN, *i.task.TaskArn}, "Family:Revision": {task.Family + ":" + task.Revision, definition}, "DesiredStatus": {task.DesiredStatus, "RUNNING"},
			"KnownStatus": {task.KnownStatus, "RUNNING"}, "LaunchType": {task.LaunchType, "EC2"}, "ServiceName": {task.ServiceName, "s"}, "PullStartedAt": {task.PullStartedAt.Format(time.StampMilli), i.task.PullStartedAt.Format(time.StampMilli)},
			"Containers": {fmt.Sprint(len(task.Containers)), "1"},
		} {
			if x[0] != x[1] {
				t.Errorf("%s is %q, want %q", name, x[0], x[1])
			}
		}
		if task.FaultInjectionEnabled == nil || *task.FaultInjectionEnabled || task.PullStoppedAt.Before(task.PullStartedAt) {
			t.Errorf("the task is told %+v", task)
		}
		var c struct {
			DockerId, Name, Image, ImageID, DesiredStatus, KnownStatus, Type, ContainerARN string
			CreatedAt, StartedAt                                                           time.Time
			Networks                                                                       []struct {
				NetworkMode   string
				IPv4Addresses []string
			}
			Labels map[string]string
		}
		i.ask("ECS_CONTAINER_METADATA_URI_V4/", &c)
		for name, x := range map[string][2]string{
			"DockerId": {c.DockerId, *web.RuntimeId}, "Name": {c.Name, *web.Name}, "Image": {c.Image, *web.Image}, "ImageID": {c.ImageID, *web.ImageDigest}, "DesiredStatus": {c.DesiredStatus, "RUNNING"}, "KnownStatus": {c.KnownStatus, "RUNNING"},
			"Type": {c.Type, "NORMAL"}, "ContainerARN": {c.ContainerARN, *web.ContainerArn}, "Labels": {c.Labels["com.amazonaws.ecs.task-arn"], *i.task.TaskArn},
		} {
			if x[0] != x[1] {
				t.Errorf("%s is %q, want %q", name, x[0], x[1])
			}
		}
		if len(c.Networks) != 1 || c.Networks[0].NetworkMode != "awsvpc" || !slices.Equal(c.Networks[0].IPv4Addresses, []string{*web.NetworkInterfaces[0].PrivateIpv4Address}) || c.StartedAt.Before(c.CreatedAt) {
			t.Errorf("the container is told %+v", c)
		}
		var old struct{ Name string }
		if i.ask("ECS_CONTAINER_METADATA_URI/", &old); old.Name != c.Name {
			t.Errorf("by version 3 it is %q", old.Name)
		}
		i.uses(c.DockerId)
		i.protects()
		if runtime != "confined" && runtime != "rootless" {
			resp, err := http.Get(i.at + "AWS_ENDPOINT_URL/_serin/status")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("the stage's own page answers %s", resp.Status)
			}
		}
	})
}

// uses checks what the task is told that it uses, twice.
func (i insider) uses(id string) {
	i.t.Helper()
	type stats struct {
		ID       string `json:"id"`
		Name     string
		Read     time.Time
		PreRead  time.Time
		CPUStats struct {
			Usage struct {
				Total uint64 `json:"total_usage"`
			} `json:"cpu_usage"`
		} `json:"cpu_stats"`
		Memory struct{ Usage, Limit uint64 } `json:"memory_stats"`
	}
	var first, now stats
	i.ask("ECS_CONTAINER_METADATA_URI_V4/stats", &first)
	if !first.PreRead.IsZero() || first.ID != id || first.Memory.Usage == 0 || first.Memory.Limit == 0 {
		i.t.Errorf("it is told that it uses %+v", first)
	}
	for tick := time.Tick(50 * time.Millisecond); !now.Read.After(first.Read); <-tick {
		var all map[string]stats
		i.ask("ECS_CONTAINER_METADATA_URI_V4/task/stats", &all)
		now = all[id]
	}
	if !now.PreRead.Equal(first.Read) || now.CPUStats.Usage.Total < first.CPUStats.Usage.Total {
		i.t.Errorf("after %+v it is told that it uses %+v", first, now)
	}
}

// protects checks that the task protects itself.
func (i insider) protects() {
	i.t.Helper()
	var v struct {
		Protection struct {
			ProtectionEnabled bool
			TaskArn           string
		} `json:"protection"`
	}
	i.ask("ECS_AGENT_URI/task-protection/v1/state?put="+url.QueryEscape(`{"ProtectionEnabled":true,"ExpiresInMinutes":60}`), &v)
	if !v.Protection.ProtectionEnabled || v.Protection.TaskArn != *i.task.TaskArn {
		i.t.Errorf("protecting itself it is answered %+v", v)
	}
}
