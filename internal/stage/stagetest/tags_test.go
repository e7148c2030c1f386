package stagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

func said(tags []types.Tag) string {
	var out []string
	for _, t := range tags {
		out = append(out, *t.Key+"="+*t.Value)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestTasksAreTaggedAsTheirServiceSays(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.must(w.ecs.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new(w.define("1")), DesiredCount: new(int32(1)),
			Tags: []types.Tag{{Key: new("team"), Value: new("web")}}, PropagateTags: types.PropagateTagsService, EnableECSManagedTags: true,
			NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"a"}}}}))
		var arns []string
		w.until("there is a task", func() bool {
			out, err := w.ecs.ListTasks(ctx, &ecs.ListTasksInput{})
			w.must(out, err)
			arns = out.TaskArns
			return len(arns) == 1
		})
		out, err := w.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{Tasks: arns, Include: []types.TaskField{types.TaskFieldTags}})
		w.must(out, err)
		if got, want := said(out.Tasks[0].Tags), "aws:ecs:clusterName=default aws:ecs:serviceName=s team=web"; got != want {
			t.Errorf("the task is tagged %s, want %s", got, want)
		}
		plain, err := w.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{Tasks: arns})
		w.must(plain, err)
		if len(plain.Tasks[0].Tags) != 0 {
			t.Errorf("tags are told to whom did not ask: %v", plain.Tasks[0].Tags)
		}
	})
}

func TestTagsAreAddedListedAndRemoved(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		d := w.define("1")
		w.must(w.ecs.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: &d, Tags: []types.Tag{{Key: new("a"), Value: new("1")}, {Key: new("b"), Value: new("2")}}}))
		w.must(w.ecs.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: &d, Tags: []types.Tag{{Key: new("a"), Value: new("3")}}}))
		w.must(w.ecs.UntagResource(ctx, &ecs.UntagResourceInput{ResourceArn: &d, TagKeys: []string{"b"}}))
		out, err := w.ecs.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &d, Include: []types.TaskDefinitionField{types.TaskDefinitionFieldTags}})
		w.must(out, err)
		if got := said(out.Tags); got != "a=3" {
			t.Errorf("it is tagged %s, want a=3", got)
		}
		var many []types.Tag
		for n := range 50 {
			many = append(many, types.Tag{Key: new(fmt.Sprint("k", n)), Value: new("")})
		}
		for what, tags := range map[string][]types.Tag{
			"more than fifty": many, "a key twice": {{Key: new("x")}, {Key: new("x")}}, "a key of AWS": {{Key: new("aws:x")}}, "no key": {{Value: new("x")}},
		} {
			_, err := w.ecs.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: &d, Tags: tags})
			if err == nil || !strings.Contains(err.Error(), "InvalidParameterException") {
				t.Errorf("%s gave %v", what, err)
			}
		}
		if _, err := w.ecs.ListTagsForResource(ctx, &ecs.ListTagsForResourceInput{ResourceArn: new(d + "0")}); err == nil {
			t.Error("a resource that is not there has tags")
		}
		// A deleted resource takes its tags with it.
		g := w.groups[1]
		w.must(w.elb.AddTags(ctx, &elb.AddTagsInput{ResourceArns: []string{g}, Tags: []elbtypes.Tag{{Key: new("a"), Value: new("1")}}}))
		tagged, err := w.elb.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{g}})
		w.must(tagged, err)
		if len(tagged.TagDescriptions[0].Tags) != 1 {
			t.Errorf("the group has %v", tagged.TagDescriptions[0].Tags)
		}
		w.must(w.elb.RemoveTags(ctx, &elb.RemoveTagsInput{ResourceArns: []string{g}, TagKeys: []string{"a"}}))
		if tagged, err = w.elb.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{g}}); err != nil || len(tagged.TagDescriptions[0].Tags) != 0 {
			t.Errorf("after removing it has %v, %v", tagged, err)
		}
	})
}
