package stagetest

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A protected task outlasts scaling in and a deployment, until its time is over.
func TestAProtectedTaskIsNotStopped(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		d, err := w.create("1", nil)
		w.must(nil, err)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		one := list.TaskArns[0]
		protect := func(on bool, minutes *int32) {
			t.Helper()
			out, err := w.ecs.UpdateTaskProtection(t.Context(), &ecs.UpdateTaskProtectionInput{Cluster: new("default"), Tasks: []string{one}, ProtectionEnabled: on, ExpiresInMinutes: minutes})
			w.must(out, err)
			if len(out.ProtectedTasks) != 1 || out.ProtectedTasks[0].ProtectionEnabled != on || (out.ProtectedTasks[0].ExpirationDate != nil) != on {
				t.Errorf("answered %+v", out)
			}
		}
		runs := func() bool { return *w.task(&one).LastStatus == "RUNNING" }
		protect(true, new(int32(60)))
		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(0))}))
		w.until("the other is gone", func() bool { return w.service().RunningCount == 1 })
		time.Sleep(50 * time.Minute)
		if !runs() || !w.said("was unable to scale in due to (reason 1 tasks under protection)") {
			t.Error("the protected task was stopped, or nobody said why it was not")
		}
		w.until("its time is over", func() bool { return w.service().RunningCount == 0 })

		w.must(w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(1))}))
		w.until("one runs", func() bool { return w.service().RunningCount == 1 })
		list, err = w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		one = list.TaskArns[0]
		protect(true, nil)
		d = w.update("2")
		time.Sleep(time.Hour)
		if !runs() || w.look(d).Status != types.ServiceDeploymentStatusInProgress {
			t.Errorf("beside a protected task the deployment is %s", w.look(d).Status)
		}
		protect(false, nil)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		w.until("it is stopped", func() bool { return !runs() })
	})
}

func TestWhatCannotBeProtected(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		d, err := w.create("1", nil)
		w.must(nil, err)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		alone := *w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		out, err := w.ecs.UpdateTaskProtection(t.Context(), &ecs.UpdateTaskProtectionInput{Cluster: new("default"), Tasks: []string{"none", alone}, ProtectionEnabled: true})
		w.must(out, err)
		if len(out.Failures) != 2 || *out.Failures[0].Reason != "MISSING" || *out.Failures[1].Reason != "TASK_NOT_VALID" || *out.Failures[1].Arn != alone {
			t.Errorf("failures are %+v", out.Failures)
		}
		for minutes, want := range map[int32]string{0: "got 0", 2881: "got 2881"} {
			if _, err := w.ecs.UpdateTaskProtection(t.Context(), &ecs.UpdateTaskProtectionInput{Cluster: new("default"), Tasks: []string{alone}, ProtectionEnabled: true, ExpiresInMinutes: &minutes}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d minutes: %v", minutes, err)
			}
		}
		all, err := w.ecs.GetTaskProtection(t.Context(), &ecs.GetTaskProtectionInput{Cluster: new("default")})
		w.must(all, err)
		if len(all.ProtectedTasks) != 2 || all.ProtectedTasks[0].ProtectionEnabled || all.ProtectedTasks[1].ProtectionEnabled {
			t.Errorf("of the service's two tasks it says %+v", all.ProtectedTasks)
		}
	})
}
