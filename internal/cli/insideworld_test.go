package cli

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// runtimes are those that can run here; the others are skipped, saying so.
func runtimes(t *testing.T, each func(t *testing.T, runtime string)) {
	for _, runtime := range []string{"native", "rootless", "confined", "docker"} {
		t.Run(runtime, func(t *testing.T) {
			if runtime == "native" && os.Geteuid() != 0 {
				t.Skip("native needs root")
			}
			if runtime == "rootless" && !static() {
				t.Skip("rootless needs a static program inside its containers, which this one is not")
			}
			if runtime == "docker" && exec.Command("docker", "info").Run() != nil {
				t.Skip("no Docker daemon answers here")
			}
			each(t, runtime)
		})
	}
}

// static says that this program needs no loader.
func static() bool {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// oneTask is the task of a service of one, once that is stable.
func oneTask(t *testing.T, d *demo, in *ecs.RegisterTaskDefinitionInput) ecstypes.Task {
	t.Helper()
	ctx, e := t.Context(), ecs.NewFromConfig(d.admin)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	registered, err := e.RegisterTaskDefinition(ctx, in)
	must(err)
	_, err = e.CreateService(ctx, &ecs.CreateServiceInput{Cluster: &d.service.Cluster, ServiceName: &d.service.Name, TaskDefinition: registered.TaskDefinition.TaskDefinitionArn, DesiredCount: new(int32(1)),
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a"}}}})
	must(err)
	must(ecs.NewServicesStableWaiter(e, func(o *ecs.ServicesStableWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, 50*time.Millisecond
	}).
		Wait(ctx, &ecs.DescribeServicesInput{Cluster: &d.service.Cluster, Services: []string{d.service.Name}}, time.Minute))
	tasks, err := e.ListTasks(ctx, &ecs.ListTasksInput{Cluster: &d.service.Cluster})
	must(err)
	out, err := e.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &d.service.Cluster, Tasks: tasks.TaskArns})
	must(err)
	return out.Tasks[0]
}

// A program in a task, with nothing but AWS's SDK, has its task role's
// credentials, and its AWS is the stage.
func TestATaskHasItsRolesCredentials(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		_, endpoint := up(t, "--port", "0", "--ephemeral", "--runtime", runtime, "--account", "123456789012", "--speed", "60")
		d := path(t, endpoint)
		ctx := t.Context()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(d.clickTogether(ctx))
		_, err := iam.NewFromConfig(d.admin).CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("shop"), Path: new("/tasks/"), AssumeRolePolicyDocument: new(serviceTrust("ecs-tasks.amazonaws.com"))})
		must(err)
		d.deployer = d.admin
		must(d.push(ctx, "1"))
		in, err := d.definition("1")
		must(err)
		in.TaskRoleArn = new("arn:aws:iam::123456789012:role/tasks/shop")
		task := oneTask(t, d, in)
		address := ""
		for _, detail := range task.Attachments[0].Details {
			if *detail.Name == "privateIPv4Address" {
				address = *detail.Value
			}
		}
		var said string
		for tick := time.Tick(20 * time.Millisecond); ; <-tick { // the program listens a moment after its task runs
			resp, err := http.Get(fmt.Sprintf("http://%s:8080/whoami", address))
			if errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil {
				continue
			}
			must(err)
			raw, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			said = strings.TrimSpace(string(raw))
			break
		}
		id := lastOf(*task.TaskArn)
		if want := "arn:aws:sts::123456789012:assumed-role/shop/" + id; said != want {
			t.Errorf("the task says it is %q, want %s", said, want)
		}
	})
}
