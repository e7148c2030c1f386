package stagetest

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// With AmazonECSTaskExecutionRolePolicy alone awslogs-create-group fails, as on
// AWS: it lacks logs:CreateLogGroup. With the permission the task runs.
func TestTheExecutionRoleMustMayMakeTheLogGroup(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		i, ctx := w.iam, t.Context()
		w.must(i.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("execution"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole",
		"Condition":{"ArnLike":{"aws:SourceArn":"arn:aws:ecs:us-east-1:` + Account + `:*"},"StringEquals":{"aws:SourceAccount":"` + Account + `"}}}]}`)}))
		w.must(i.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("execution"), PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")}))
		w.must(w.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("128"), ExecutionRoleArn: new("arn:aws:iam::" + Account + ":role/execution"),
			ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1"), LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs,
				Options: map[string]string{"awslogs-group": "/ecs/web", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "ecs", "awslogs-create-group": "true"}}}}}))
		w.must(w.ecs.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(1)),
			NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}}}))
		w.until("the event says why", func() bool {
			return w.said("ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log group: AccessDeniedException: User: arn:aws:sts::"+Account+":assumed-role/execution/") &&
				w.said("is not authorized to perform: logs:CreateLogGroup on resource: arn:aws:logs:us-east-1:"+Account+":log-group:/ecs/web:log-stream: because no identity-based policy allows the logs:CreateLogGroup action")
		})
		w.must(i.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("execution"), PolicyName: new("groups"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:CreateLogGroup","Resource":"arn:aws:logs:*:*:log-group:/ecs/*"}]}`)}))
		w.until("the task runs", func() bool { return w.service().RunningCount == 1 })
	})
}
