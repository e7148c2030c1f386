package stagetest

import (
	"cmp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

// What is named must be of the cluster beside it: a forgotten --cluster is found out
// here as it is on AWS.
func TestAnARNIsOfTheClusterThatIsNamed(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.define("1")
		w.must(w.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("other")}))
		run, err := w.ecs.RunTask(ctx, &ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})
		w.must(run, err)
		task := *run.Tasks[0].TaskArn
		w.plainService("s", "")
		service := "arn:aws:ecs:us-east-1:" + Account + ":service/default/s"
		id := task[strings.LastIndexByte(task, '/')+1:]
		for what, ask := range map[string]func(cluster, task *string) error{
			"DescribeTasks": func(cluster, task *string) error {
				_, err := w.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: cluster, Tasks: []string{*task}})
				return err
			},
			"GetTaskProtection": func(cluster, task *string) error {
				_, err := w.ecs.GetTaskProtection(ctx, &ecs.GetTaskProtectionInput{Cluster: cmp.Or(cluster, new("default")), Tasks: []string{*task}})
				return err
			},
			"StopTask": func(cluster, task *string) error {
				_, err := w.ecs.StopTask(ctx, &ecs.StopTaskInput{Cluster: cluster, Task: task})
				return err
			},
		} {
			for _, c := range []struct {
				cluster *string
				task    string
				want    string
			}{
				{new("other"), task, "InvalidParameterException: Invalid identifier: Identifier is for cluster default. Your cluster is other"},
				{nil, strings.Replace(task, "/default/", "/other/", 1), "Identifier is for cluster other. Your cluster is default"},
				{nil, strings.Replace(task, "us-east-1", "eu-west-1", 1), "Invalid Region in ARN"},
				{nil, strings.Replace(task, Account, "222222222222", 1), "Identifier is for 222222222222. Your accountId is " + Account},
				{nil, service, "Unsupported resource type: service"},
				{nil, "arn:aws:iam::" + Account + ":role/r", "Invalid identifier: arn:aws:iam::"},
				{nil, task, ""},
				{nil, id, ""},
				{nil, strings.Replace(task, "/default/", "/", 1), ""}, // as ARNs were before 2018
			} {
				err := ask(c.cluster, &c.task)
				if ok := err == nil; ok != (c.want == "") || !ok && !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s of %s: %v, want %q", what, c.task, err, c.want)
				}
			}
		}
		for cluster, want := range map[string]string{"default": "", "other": "Identifier is for cluster default. Your cluster is other"} {
			out, err := w.ecs.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &cluster, Services: []string{service}})
			if ok := err == nil; ok != (want == "") || !ok && !strings.Contains(err.Error(), want) || ok && len(out.Services) != 1 {
				t.Errorf("a service in %s: %v, want %q", cluster, err, want)
			}
		}
	})
}
