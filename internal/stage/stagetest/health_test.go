package stagetest

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// guarded registers a definition whose container is checked.
func (w *world) guarded(tag string, h types.HealthCheck) string {
	w.t.Helper()
	out, err := w.ecs.RegisterTaskDefinition(w.t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("128"),
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:" + tag), HealthCheck: &h}}})
	w.must(out, err)
	c := out.TaskDefinition.ContainerDefinitions[0].HealthCheck
	if c.Interval == nil || c.Timeout == nil || c.Retries == nil {
		w.t.Errorf("the check is answered without its defaults: %+v", c)
	}
	return *out.TaskDefinition.TaskDefinitionArn
}

func (w *world) guardedService(definition string) string {
	w.t.Helper()
	out, err := w.ecs.CreateService(w.t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: &definition, DesiredCount: new(int32(1)), NetworkConfiguration: awsvpc("a"),
		DeploymentConfiguration: &types.DeploymentConfiguration{DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}}})
	w.must(out, err)
	return *out.Service.CurrentServiceDeployment
}

// A container's check decides when a deployment is done, and that one that fails
// goes back.
func TestAContainersHealthDecidesADeployment(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		began := time.Now()
		d := w.guardedService(w.guarded("1", types.HealthCheck{Command: []string{"CMD", "ask"}}))
		w.until("it runs", func() bool { return w.service().RunningCount == 1 })
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		if task := w.task(&list.TaskArns[0]); task.HealthStatus != types.HealthStatusUnknown || task.Containers[0].HealthStatus != types.HealthStatusUnknown {
			t.Errorf("before its first check it is %s", task.HealthStatus)
		}
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		if took := time.Since(began); took < 30*time.Second || took > 40*time.Second {
			t.Errorf("with a check every 30 s it took %v", took)
		}
		if task := w.task(&list.TaskArns[0]); task.HealthStatus != types.HealthStatusHealthy || task.Containers[0].HealthStatus != types.HealthStatusHealthy {
			t.Errorf("it is %s", task.HealthStatus)
		}
		out, err := w.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("s"), TaskDefinition: new(w.guarded("sick", types.HealthCheck{Command: []string{"CMD-SHELL", "ask"}, Interval: new(int32(5)), Retries: new(int32(2))}))})
		w.must(out, err)
		w.ends(*out.Service.CurrentServiceDeployment, types.ServiceDeploymentStatusRollbackSuccessful)
		stopped, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{DesiredStatus: types.DesiredStatusStopped})
		w.must(stopped, err)
		seen := false
		for _, arn := range stopped.TaskArns {
			task := w.task(&arn)
			seen = seen || *task.StoppedReason == "Task failed container health checks" && task.StopCode == types.TaskStopCodeServiceSchedulerInitiated && task.HealthStatus == types.HealthStatusUnhealthy
		}
		if !seen || !w.said("failed container health checks.") {
			t.Errorf("nobody says why tasks were replaced: %v", stopped.TaskArns)
		}
		if s := w.service(); s.RunningCount != 1 {
			t.Errorf("%d tasks run after the rollback", s.RunningCount)
		}
	})
}

// While a container starts, failures do not count; a task of nobody's goes on
// whatever its health.
func TestAStartPeriodIsKept(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.guarded("sick", types.HealthCheck{Command: []string{"CMD", "ask"}, Interval: new(int32(10)), Retries: new(int32(1)), StartPeriod: new(int32(100))})
		task := w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0]
		time.Sleep(95 * time.Second)
		if now := w.task(task.TaskArn); now.HealthStatus != types.HealthStatusUnknown {
			t.Errorf("while it starts it is %s", now.HealthStatus)
		}
		time.Sleep(20 * time.Second)
		if now := w.task(task.TaskArn); now.HealthStatus != types.HealthStatusUnhealthy || *now.LastStatus != "RUNNING" {
			t.Errorf("after its start period it is %s, %s", now.HealthStatus, *now.LastStatus)
		}
	})
}
