package release

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestACommandIsWrittenAsItsAgentSplitsIt(t *testing.T) {
	for want, args := range map[string][]string{
		`ls -l /tmp`:                           {"ls", "-l", "/tmp"},
		`sh -c 'echo "$HOME" '\''a  b'\'' #c'`: {"sh", "-c", `echo "$HOME" 'a  b' #c`},
		`say '' 'a\b' '#' 'é'`:                 {"say", "", `a\b`, "#", "é"},
	} {
		if got := commandLine(args); got != want {
			t.Errorf("%q is %s, want %s", args, got, want)
		}
	}
}

func TestWhatKeepsATaskFromACommandIsSaid(t *testing.T) {
	container := func(name string, change func(*types.Container)) types.Container {
		c := types.Container{Name: &name, LastStatus: new("RUNNING"), RuntimeId: new("r"), ManagedAgents: []types.ManagedAgent{{Name: types.ManagedAgentNameExecuteCommandAgent, LastStatus: new("RUNNING")}}}
		if change != nil {
			change(&c)
		}
		return c
	}
	web, bare := container("web", nil), container("guard", func(c *types.Container) { c.ManagedAgents = nil })
	for _, c := range []struct {
		name       string
		change     func(*types.Task)
		containers []types.Container
		want       string // a container, or an error
	}{
		{"", nil, []types.Container{web}, "web"},
		{"", nil, []types.Container{bare, web}, "web"},
		{"web", nil, []types.Container{web, container("side", nil)}, "web"},
		{"", nil, []types.Container{web, container("side", nil)}, "the task has several containers; one of web, side must be named"},
		{"", nil, []types.Container{bare}, "no container of the task 0123 has an agent of ECS Exec"},
		{"none", nil, []types.Container{web}, "the task has no container none, but web"},
		{"guard", nil, []types.Container{bare, web}, "the container guard has no agent of ECS Exec"},
		{"", func(t *types.Task) { t.EnableExecuteCommand = false }, []types.Container{web}, "the task 0123: execute command is not enabled"},
		{"", func(t *types.Task) { t.LastStatus = new("PENDING") }, []types.Container{web}, "the task 0123 is PENDING; commands are run in tasks that are RUNNING"},
		{"", nil, []types.Container{container("web", func(c *types.Container) { c.LastStatus = new("STOPPED") })}, "the container web is STOPPED; commands are run in containers that are RUNNING"},
		{"", nil, []types.Container{container("web", func(c *types.Container) {
			c.ManagedAgents[0].LastStatus, c.ManagedAgents[0].Reason = new("STOPPED"), new("it ended")
		})}, "the agent of ECS Exec in the container web is STOPPED: it ended"},
	} {
		task := types.Task{TaskArn: new("arn:aws:ecs:us-east-1:123456789012:task/c/0123"), LastStatus: new("RUNNING"), EnableExecuteCommand: true, Containers: c.containers}
		if c.change != nil {
			c.change(&task)
		}
		got, err := executable(task, c.name)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("it is %q, want %q", got, c.want)
		}
	}
}
