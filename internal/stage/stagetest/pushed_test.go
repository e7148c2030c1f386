package stagetest

import (
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// Stage time jumps over the end of the minute in which something was measured: an
// alarm sees it all the same.
func TestAPushOfTimeLosesNoMinute(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		lbs, err := w.elb.DescribeLoadBalancers(t.Context(), &elb.DescribeLoadBalancersInput{})
		w.must(lbs, err)
		d, err := w.create("1", nil)
		w.must(nil, err)
		w.ends(d, types.ServiceDeploymentStatusSuccessful)
		w.alarm("used", 1, func(in *cloudwatch.PutMetricAlarmInput) {
			in.Namespace, in.MetricName, in.Threshold = new("AWS/ApplicationELB"), new("RequestCount"), new(0.5)
			in.Dimensions = []cwtypes.Dimension{{Name: new("LoadBalancer"), Value: new(loadBalancerName(lbs.LoadBalancers[0]))}}
		})
		for range 10 {
			time.Sleep(3 * time.Minute) // the next minute begins without a request
			resp, err := w.client.Get("http://" + *lbs.LoadBalancers[0].DNSName + ":8088/")
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatal(resp, err)
			}
			resp.Body.Close()
			if err := w.stage.Clock().Advance(10 * time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		fired := 0
		history, err := w.cw.DescribeAlarmHistory(t.Context(), &cloudwatch.DescribeAlarmHistoryInput{AlarmName: new("used"), MaxRecords: new(int32(100))})
		w.must(history, err)
		for _, i := range history.AlarmHistoryItems {
			if *i.HistorySummary == "Alarm updated from OK to ALARM" {
				fired++
			}
		}
		if fired != 10 {
			t.Errorf("it went off %d times, want 10", fired)
		}
	})
}
