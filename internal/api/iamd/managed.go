package iamd

import (
	"encoding/json"
	"strings"
	"time"
)

// awsManaged is AWS's own managed policies, those that the release path names.
// Content documented: the policies' reference pages, versions as noted.
var awsManaged = func() map[string]managed {
	m := map[string]managed{}
	for _, p := range []struct {
		path, name, created string
		statements          []map[string]any
	}{
		// v3
		{"/", "AmazonEC2ContainerRegistryPowerUser", "2015-12-21T17:05:33Z", []map[string]any{allow("*",
			"ecr:GetAuthorizationToken ecr:BatchCheckLayerAvailability ecr:GetDownloadUrlForLayer ecr:GetRepositoryPolicy ecr:DescribeRepositories ecr:ListImages ecr:DescribeImages ecr:BatchGetImage ecr:GetLifecyclePolicy ecr:GetLifecyclePolicyPreview ecr:ListTagsForResource ecr:DescribeImageScanFindings ecr:InitiateLayerUpload ecr:UploadLayerPart ecr:CompleteLayerUpload ecr:PutImage")}},
		// v1
		{"/service-role/", "AmazonECSTaskExecutionRolePolicy", "2017-11-16T18:48:22Z", []map[string]any{allow("*",
			"ecr:GetAuthorizationToken ecr:BatchCheckLayerAvailability ecr:GetDownloadUrlForLayer ecr:BatchGetImage logs:CreateLogStream logs:PutLogEvents")}},
		// v6
		{"/", "AmazonECSInfrastructureRolePolicyForLoadBalancers", "2025-07-17T00:00:00Z", []map[string]any{
			allow("*", "elasticloadbalancing:DescribeListeners elasticloadbalancing:DescribeRules elasticloadbalancing:DescribeTargetGroups elasticloadbalancing:DescribeTargetHealth"),
			allow("arn:aws:elasticloadbalancing:*:*:targetgroup/*/*", "elasticloadbalancing:RegisterTargets elasticloadbalancing:DeregisterTargets"),
			allow("arn:aws:elasticloadbalancing:*:*:listener/app/*/*/* arn:aws:elasticloadbalancing:*:*:listener/net/*/*/*", "elasticloadbalancing:ModifyListener"),
			allow("arn:aws:elasticloadbalancing:*:*:listener-rule/app/*/*/*/*", "elasticloadbalancing:ModifyRule"),
		}},
		{"/", "AdministratorAccess", "2015-02-06T18:39:46Z", []map[string]any{allow("*", "*")}},
	} {
		document, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": p.statements})
		if err != nil { // a literal always marshals
			panic(err)
		}
		created, err := time.Parse(time.RFC3339, p.created)
		if err != nil {
			panic(err)
		}
		policyARN := "arn:aws:iam::aws:policy" + p.path + p.name
		m[policyARN] = managed{Name: p.name, ID: "ANPA" + p.name, Path: p.path, ARN: policyARN, Document: string(document), Created: created}
	}
	return m
}()

func allow(resources, actions string) map[string]any {
	return map[string]any{"Effect": "Allow", "Action": strings.Fields(actions), "Resource": strings.Fields(resources)}
}
