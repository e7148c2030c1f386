package ecsd

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// The id of a task's credentials is a secret; what else a task is found by is not.
func TestCredentialsAreGivenForTheirIDAlone(t *testing.T) {
	const revision, group = "arn:aws:ecs:eu-west-1:111111111111:service-revision/c/web/1", "arn:aws:elasticloadbalancing:eu-west-1:111111111111:targetgroup/web/1"
	a, _ := tasksOf(t, map[string]task{"1": {
		Cluster: "c", Service: "web", Revision: revision, TaskDefinition: "arn:aws:ecs:eu-west-1:111111111111:task-definition/d:1", Last: running,
		Credentials: "c0ffee", Targets: []registration{{Group: group, Port: 80}},
	}}, map[string]types.TaskDefinition{"d:1": {TaskRoleArn: new("arn:aws:iam::111111111111:role/task")}})
	if as, ok := a.TaskRole("c0ffee"); !ok || as.Role != "arn:aws:iam::111111111111:role/task" {
		t.Errorf("the task's own id gives %+v %t", as, ok)
	}
	for _, id := range []string{revision, group, "1", "", "credentials c0ffee"} {
		if as, ok := a.TaskRole(id); ok {
			t.Errorf("%q gives the credentials of %+v", id, as)
		}
	}
}
