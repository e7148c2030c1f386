package stagetest

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
)

// activities is what a group did, page after page.
func (w *world) activities(group string, size int32) (list []astypes.Activity) {
	w.t.Helper()
	pages := autoscaling.NewDescribeScalingActivitiesPaginator(w.autoscaling(), &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: &group, MaxRecords: &size})
	for pages.HasMorePages() {
		out, err := pages.NextPage(w.t.Context())
		w.must(out, err)
		list = append(list, out.Activities...)
	}
	return list
}

func TestWhatAGroupDidIsToldNewestFirst(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(1)
		w.hosts(0, w.subnets()[:1], nil)
		for n := range int32(8) {
			w.must(w.autoscaling().SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: new("asg"), DesiredCapacity: new(n + 1)}))
			time.Sleep(time.Minute)
		}
		for _, size := range []int32{3, 100} {
			list := w.activities("asg", size)
			if len(list) != 8 || !slices.IsSortedFunc(list, func(x, y astypes.Activity) int { return y.StartTime.Compare(*x.StartTime) }) {
				t.Errorf("in pages of %d there are %d activities, of which the first began at %v", size, len(list), aws.ToTime(list[0].StartTime))
			}
		}
	})
}
