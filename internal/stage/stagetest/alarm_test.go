package stagetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/smithy-go"

	"serin/internal/stage"
)

// observer is a stage's CloudWatch in a bubble.
type observer struct {
	t     *testing.T
	stage *stage.Stage
	cw    *cloudwatch.Client
}

// observe runs fn in a bubble, a few seconds after the beginning of a minute.
func observe(t *testing.T, fn func(t *testing.T, o observer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := Bubble(t, nil)
		o := observer{t, s, cloudwatch.NewFromConfig(c)}
		o.pass(time.Until(time.Now().Truncate(time.Minute).Add(65 * time.Second)))
		fn(t, o)
	})
}

// pass lets time pass, and everybody who waits for it act.
func (o observer) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// put publishes values of a metric.
func (o observer) put(name string, values ...float64) {
	o.t.Helper()
	if _, err := o.cw.PutMetricData(o.t.Context(), &cloudwatch.PutMetricDataInput{Namespace: new("Test"), MetricData: []types.MetricDatum{{MetricName: &name, Values: values}}}); err != nil {
		o.t.Fatal(err)
	}
}

// alarm makes an alarm on the sum of a metric by the minute.
func (o observer) alarm(name string, change func(*cloudwatch.PutMetricAlarmInput)) {
	o.t.Helper()
	in := &cloudwatch.PutMetricAlarmInput{AlarmName: &name, Namespace: new("Test"), MetricName: new("errors"), Statistic: types.StatisticSum, Period: new(int32(60)),
		EvaluationPeriods: new(int32(1)), Threshold: new(10.0), ComparisonOperator: types.ComparisonOperatorGreaterThanThreshold}
	change(in)
	if _, err := o.cw.PutMetricAlarm(o.t.Context(), in); err != nil {
		o.t.Fatal(err)
	}
}

func (o observer) describe(name string) types.MetricAlarm {
	o.t.Helper()
	out, err := o.cw.DescribeAlarms(o.t.Context(), &cloudwatch.DescribeAlarmsInput{AlarmNames: []string{name}})
	if err != nil || len(out.MetricAlarms) != 1 {
		o.t.Fatal(out, err)
	}
	return out.MetricAlarms[0]
}

// says wants alarms to be in a state.
func (o observer) says(state types.StateValue, names ...string) {
	o.t.Helper()
	for _, name := range names {
		if a := o.describe(name); a.StateValue != state {
			o.t.Errorf("%s is %s, want %s: %s", name, a.StateValue, state, *a.StateReason)
		}
	}
}

func TestAnAlarmGoesOffAndBack(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		o.alarm("errors", func(*cloudwatch.PutMetricAlarmInput) {})
		a := o.describe("errors")
		if a.StateValue != types.StateValueInsufficientData || *a.StateReason != "Unchecked: Initial alarm creation" || *a.AlarmArn != "arn:aws:cloudwatch:us-east-1:"+Account+":alarm:errors" {
			t.Errorf("a new alarm is %s because %s", a.StateValue, *a.StateReason)
		}
		o.put("errors", 4, 5, 6)
		at := time.Now().UTC().Truncate(time.Minute).Format("02/01/06 15:04:05")
		o.pass(time.Minute + 10*time.Second)
		a = o.describe("errors")
		if want := "Threshold Crossed: 1 out of the last 1 datapoints [15.0 (" + at + ")] was greater than the threshold (10.0) (minimum 1 datapoint for OK -> ALARM transition)."; a.StateValue != types.StateValueAlarm || *a.StateReason != want {
			t.Errorf("%s: %s\nwant %s", a.StateValue, *a.StateReason, want)
		}
		var data struct {
			Period           int
			Statistic        string
			Threshold        float64
			RecentDatapoints []float64
		}
		if err := json.Unmarshal([]byte(*a.StateReasonData), &data); err != nil || data.Period != 60 || data.Statistic != "Sum" || data.Threshold != 10 || fmt.Sprint(data.RecentDatapoints) != "[15]" {
			t.Errorf("%s %v", *a.StateReasonData, err)
		}
		if a.StateTransitionedTimestamp.After(time.Now()) || time.Since(*a.StateTransitionedTimestamp) > time.Minute {
			t.Errorf("it says that it went off at %v, and it is %v", a.StateTransitionedTimestamp, time.Now())
		}
		o.put("errors", 10)
		o.pass(time.Minute)
		o.says(types.StateValueOk, "errors")
		o.pass(4 * time.Minute)
		o.says(types.StateValueInsufficientData, "errors")
		if reason := *o.describe("errors").StateReason; reason != "Insufficient Data: 1 datapoint was unknown." {
			t.Error(reason)
		}
		history, err := o.cw.DescribeAlarmHistory(t.Context(), &cloudwatch.DescribeAlarmHistoryInput{AlarmName: new("errors"), ScanBy: types.ScanByTimestampAscending})
		var said []string
		for _, i := range history.AlarmHistoryItems {
			said = append(said, *i.HistorySummary)
			if !json.Valid([]byte(*i.HistoryData)) {
				t.Error(*i.HistoryData)
			}
		}
		want := `Alarm "errors" created, Alarm updated from INSUFFICIENT_DATA to ALARM, Alarm updated from ALARM to OK, Alarm updated from OK to INSUFFICIENT_DATA`
		if got := strings.Join(said, ", "); err != nil || got != want {
			t.Errorf("the history is %s %v", got, err)
		}
	})
}

func TestAnAlarmOnAPercentileLooksAtTheSlowest(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		slow := func(name string, low string) {
			o.alarm(name, func(in *cloudwatch.PutMetricAlarmInput) {
				in.MetricName, in.Statistic, in.ExtendedStatistic, in.Threshold = new("latency"), "", new("p99"), new(0.5)
				in.EvaluateLowSampleCountPercentile = new(low)
			})
		}
		slow("always", "evaluate")
		slow("significant", "ignore")
		o.alarm("trimmed", func(in *cloudwatch.PutMetricAlarmInput) {
			in.MetricName, in.Statistic, in.ExtendedStatistic, in.Threshold = new("latency"), "", new("tm98"), new(0.5)
		})
		few := []float64{2, 2}
		for range 98 {
			few = append(few, 0.1)
		}
		o.put("latency", few...)
		o.pass(70 * time.Second)
		o.says(types.StateValueAlarm, "always") // two of a hundred are slow
		o.says(types.StateValueInsufficientData, "significant")
		o.says(types.StateValueOk, "trimmed")
		for range 10 {
			o.put("latency", few...)
		}
		o.pass(time.Minute)
		o.says(types.StateValueAlarm, "always", "significant")
	})
}

func TestAnAlarmOnMetricMathWatchesARate(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		stat := func(id, metric string) types.MetricDataQuery {
			return types.MetricDataQuery{Id: &id, ReturnData: new(false), MetricStat: &types.MetricStat{Period: new(int32(60)), Stat: new("Sum"), Metric: &types.Metric{Namespace: new("Test"), MetricName: &metric}}}
		}
		o.alarm("rate", func(in *cloudwatch.PutMetricAlarmInput) {
			in.Namespace, in.MetricName, in.Statistic, in.Period = nil, nil, "", nil
			in.Threshold, in.TreatMissingData = new(5.0), new("notBreaching")
			in.Metrics = []types.MetricDataQuery{{Id: new("rate"), Expression: new("errors5xx / requests * 100"), Label: new("5xx")}, stat("errors5xx", "5xx"), stat("requests", "requests")}
		})
		o.put("requests", 100, 100)
		o.put("5xx", 10)
		o.pass(70 * time.Second)
		o.says(types.StateValueOk, "rate") // five percent are not more than five
		o.put("requests", 100)
		o.put("5xx", 6)
		o.pass(time.Minute)
		o.says(types.StateValueAlarm, "rate")
		if reason := *o.describe("rate").StateReason; !strings.HasPrefix(reason, "Threshold Crossed: 1 out of the last 1 datapoints [6.0 (") {
			t.Error(reason)
		}
		o.put("requests", 0)
		o.put("5xx", 0)
		o.pass(4 * time.Minute)
		o.says(types.StateValueOk, "rate") // the division by zero is missing data
	})
}

func TestMissingDataIsTreatedAsTheAlarmSays(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		for _, treat := range []string{"missing", "ignore", "breaching", "notBreaching"} {
			o.alarm(treat, func(in *cloudwatch.PutMetricAlarmInput) { in.TreatMissingData = &treat })
		}
		o.pass(70 * time.Second)
		o.says(types.StateValueInsufficientData, "missing", "ignore")
		o.says(types.StateValueAlarm, "breaching")
		o.says(types.StateValueOk, "notBreaching")
		if reason := *o.describe("breaching").StateReason; reason != "Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as [Breaching]." {
			t.Error(reason)
		}
		o.put("errors", 11)
		o.pass(time.Minute)
		o.says(types.StateValueAlarm, "missing", "ignore", "breaching", "notBreaching")
		o.pass(2 * time.Minute) // the point is still in the evaluation range
		o.says(types.StateValueAlarm, "missing", "ignore", "breaching", "notBreaching")
		o.pass(time.Minute)
		o.says(types.StateValueInsufficientData, "missing")
		o.says(types.StateValueAlarm, "ignore", "breaching")
		o.says(types.StateValueOk, "notBreaching")
	})
}

func TestSomeOfSeveralPointsSuffice(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		o.alarm("two of three", func(in *cloudwatch.PutMetricAlarmInput) {
			in.EvaluationPeriods, in.DatapointsToAlarm = new(int32(3)), new(int32(2))
		})
		o.alarm("three", func(in *cloudwatch.PutMetricAlarmInput) { in.EvaluationPeriods = new(int32(3)) })
		for i, errors := range []float64{0, 20, 0, 20} {
			o.put("errors", errors)
			o.pass([]time.Duration{70 * time.Second, time.Minute}[min(i, 1)])
			want := types.StateValueOk
			if i == 3 {
				want = types.StateValueAlarm
			}
			o.says(want, "two of three")
			o.says(types.StateValueOk, "three")
		}
		o.put("errors", 20)
		o.pass(time.Minute)
		o.put("errors", 20)
		o.pass(time.Minute)
		o.says(types.StateValueAlarm, "two of three", "three")
		if reason := *o.describe("three").StateReason; !strings.HasPrefix(reason, "Threshold Crossed: 3 out of the last 3 datapoints [20.0 (") || !strings.HasSuffix(reason, "were greater than the threshold (10.0) (minimum 3 datapoints for OK -> ALARM transition).") {
			t.Error(reason)
		}
	})
}

func TestAnAlarmOfShortPeriodsIsEvaluatedEveryTenSeconds(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		o.alarm("fast", func(in *cloudwatch.PutMetricAlarmInput) { in.Period = new(int32(10)) })
		if _, err := o.cw.PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{Namespace: new("Test"), MetricData: []types.MetricDatum{{MetricName: new("errors"), Value: new(11.0), StorageResolution: new(int32(1))}}}); err != nil {
			t.Fatal(err)
		}
		o.pass(12 * time.Second)
		o.says(types.StateValueAlarm, "fast")
	})
}

func TestTheWaiterSeesAnAlarm(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		go func() {
			time.Sleep(20 * time.Second)
			o.alarm("late", func(*cloudwatch.PutMetricAlarmInput) {})
		}()
		w := cloudwatch.NewAlarmExistsWaiter(o.cw)
		if err := w.Wait(t.Context(), &cloudwatch.DescribeAlarmsInput{AlarmNames: []string{"late"}}, time.Minute); err != nil {
			t.Error(err)
		}
	})
}

func TestAStateThatWasSetHoldsUntilTheNextEvaluation(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		o.alarm("errors", func(in *cloudwatch.PutMetricAlarmInput) { in.TreatMissingData = new("notBreaching") })
		if _, err := o.cw.SetAlarmState(t.Context(), &cloudwatch.SetAlarmStateInput{AlarmName: new("errors"), StateValue: types.StateValueAlarm, StateReason: new("a drill")}); err != nil {
			t.Fatal(err)
		}
		o.pass(time.Second)
		o.says(types.StateValueAlarm, "errors")
		o.pass(time.Minute + 10*time.Second)
		o.says(types.StateValueOk, "errors")
	})
}

func TestStageTimeThatJumpsIsEvaluatedOver(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		o.alarm("errors", func(*cloudwatch.PutMetricAlarmInput) {})
		o.put("errors", 11)
		o.pass(time.Second)
		if err := o.stage.Clock().Advance(10 * time.Minute); err != nil {
			t.Fatal(err)
		}
		o.pass(time.Second)
		history, err := o.cw.DescribeAlarmHistory(t.Context(), &cloudwatch.DescribeAlarmHistoryInput{AlarmName: new("errors"), HistoryItemType: types.HistoryItemTypeStateUpdate})
		if err != nil || len(history.AlarmHistoryItems) != 2 || *history.AlarmHistoryItems[1].HistorySummary != "Alarm updated from INSUFFICIENT_DATA to ALARM" {
			t.Errorf("%v %v", history.AlarmHistoryItems, err)
		}
		o.says(types.StateValueInsufficientData, "errors")
	})
}

func TestMetricsAreReadBack(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		ctx, start := t.Context(), time.Now().Truncate(time.Minute)
		web := []types.Dimension{{Name: new("Service"), Value: new("web")}}
		_, err := o.cw.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: new("Test"), MetricData: []types.MetricDatum{
			{MetricName: new("latency"), Dimensions: web, Values: []float64{1, 2, 3}, Counts: []float64{1, 2, 1}, Unit: types.StandardUnitSeconds},
			{MetricName: new("latency"), Dimensions: web, Value: new(9.0), Unit: types.StandardUnitSeconds, Timestamp: new(start.Add(-time.Minute))},
			{MetricName: new("requests"), Dimensions: web, StatisticValues: &types.StatisticSet{SampleCount: new(4.0), Sum: new(10.0), Minimum: new(1.0), Maximum: new(7.0)}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.cw.GetMetricStatistics(ctx, &cloudwatch.GetMetricStatisticsInput{Namespace: new("Test"), MetricName: new("latency"), Dimensions: web, StartTime: new(start.Add(-time.Hour)), EndTime: new(start.Add(time.Hour)),
			Period: new(int32(60)), Statistics: []types.Statistic{types.StatisticAverage, types.StatisticSampleCount, types.StatisticMaximum, types.StatisticMinimum, types.StatisticSum}})
		if err != nil || len(got.Datapoints) != 2 || *got.Datapoints[0].Average != 9 {
			t.Fatalf("%v %v", got, err)
		}
		if p := got.Datapoints[1]; *p.Average != 2 || *p.SampleCount != 4 || *p.Maximum != 3 || *p.Minimum != 1 || *p.Sum != 8 || p.Unit != types.StandardUnitSeconds || !p.Timestamp.Equal(start) {
			t.Errorf("%+v", p)
		}
		extended := func(metric string) []types.Datapoint {
			got, err := o.cw.GetMetricStatistics(ctx, &cloudwatch.GetMetricStatisticsInput{Namespace: new("Test"), MetricName: &metric, Dimensions: web, StartTime: &start, EndTime: new(start.Add(time.Hour)),
				Period: new(int32(300)), ExtendedStatistics: []string{"p50", "PR(:1)"}})
			if err != nil {
				t.Fatal(err)
			}
			return got.Datapoints
		}
		if p := extended("latency"); len(p) != 1 || math.Abs(p[0].ExtendedStatistics["p50"]-2) > 0.03 || p[0].ExtendedStatistics["PR(:1)"] != 25 {
			t.Errorf("%+v", p)
		}
		if p := extended("requests"); len(p) != 0 {
			t.Errorf("a set of which only the bounds are known has percentiles: %+v", p)
		}
		list, err := o.cw.ListMetrics(ctx, &cloudwatch.ListMetricsInput{Dimensions: []types.DimensionFilter{{Name: new("Service")}}, RecentlyActive: types.RecentlyActivePt3h})
		if err != nil || len(list.Metrics) != 2 || *list.Metrics[0].MetricName != "latency" || *list.Metrics[0].Dimensions[0].Value != "web" {
			t.Errorf("%v %v", list, err)
		}
		if list, err = o.cw.ListMetrics(ctx, &cloudwatch.ListMetricsInput{Dimensions: []types.DimensionFilter{{Name: new("Service"), Value: new("other")}}}); err != nil || len(list.Metrics) != 0 {
			t.Errorf("%v %v", list, err)
		}
		if err := o.stage.Clock().Advance(15 * 24 * time.Hour); err != nil {
			t.Fatal(err)
		}
		if list, err = o.cw.ListMetrics(ctx, &cloudwatch.ListMetricsInput{}); err != nil || len(list.Metrics) != 0 {
			t.Errorf("after a fortnight %v %v", list, err)
		}
	})
}

func TestGetMetricDataComputesAndPages(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		ctx, start := t.Context(), time.Now().Truncate(time.Minute)
		for i := range 4 {
			o.put("errors", float64(i))
			o.put("requests", 10)
			o.pass(time.Minute)
		}
		query := func(id, metric string, shown bool) types.MetricDataQuery {
			return types.MetricDataQuery{Id: &id, ReturnData: &shown, MetricStat: &types.MetricStat{Period: new(int32(60)), Stat: new("Sum"), Metric: &types.Metric{Namespace: new("Test"), MetricName: &metric}}}
		}
		in := &cloudwatch.GetMetricDataInput{StartTime: &start, EndTime: new(start.Add(time.Hour)), ScanBy: types.ScanByTimestampAscending, MaxDatapoints: new(int32(3)),
			MetricDataQueries: []types.MetricDataQuery{{Id: new("half"), Expression: new("rate / 2")}, {Id: new("rate"), Expression: new("100 * m1 / m2"), Label: new("percent")}, query("m1", "errors", false), query("m2", "requests", false), query("none", "nothing", true)}}
		got := map[string][]float64{}
		p := cloudwatch.NewGetMetricDataPaginator(o.cw, in)
		pages := 0
		for p.HasMorePages() {
			page, err := p.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, r := range page.MetricDataResults {
				got[*r.Id+"/"+*r.Label] = append(got[*r.Id+"/"+*r.Label], r.Values...)
			}
		}
		if want := "map[half/half:[0 5 10 15] none/nothing:[] rate/percent:[0 10 20 30]]"; pages != 3 || fmt.Sprint(got) != want {
			t.Errorf("%d pages of %v", pages, got)
		}
		in.ScanBy, in.MaxDatapoints = "", nil
		if page, err := o.cw.GetMetricData(ctx, in); err != nil || fmt.Sprint(page.MetricDataResults[0].Values) != "[15 10 5 0]" || !page.MetricDataResults[0].Timestamps[3].Equal(start) {
			t.Errorf("the newest first gives %v %v", page, err)
		}
	})
}

func TestWhatCloudWatchCannotDoIsRefusedInItsWords(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		ctx, now := t.Context(), time.Now()
		datum := func(d types.MetricDatum) func() error {
			return func() error {
				d.MetricName = new("m")
				_, err := o.cw.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: new("Test"), MetricData: []types.MetricDatum{d}})
				return err
			}
		}
		alarm := func(change func(*cloudwatch.PutMetricAlarmInput)) func() error {
			return func() error {
				in := &cloudwatch.PutMetricAlarmInput{AlarmName: new("a"), Namespace: new("Test"), MetricName: new("m"), Statistic: types.StatisticSum, Period: new(int32(60)),
					EvaluationPeriods: new(int32(1)), Threshold: new(1.0), ComparisonOperator: types.ComparisonOperatorGreaterThanThreshold}
				change(in)
				_, err := o.cw.PutMetricAlarm(ctx, in)
				return err
			}
		}
		expression := func(e string) func() error {
			return func() error {
				_, err := o.cw.GetMetricData(ctx, &cloudwatch.GetMetricDataInput{StartTime: new(now.Add(-time.Hour)), EndTime: &now, MetricDataQueries: []types.MetricDataQuery{{Id: new("e1"), Expression: &e, Period: new(int32(60))}}})
				return err
			}
		}
		for name, c := range map[string]struct {
			do         func() error
			code, text string
		}{
			"old data":           {datum(types.MetricDatum{Value: new(1.0), Timestamp: new(now.Add(-15 * 24 * time.Hour))}), "InvalidParameterValue", "The parameter MetricData.member.1.Timestamp must specify a time within the past two weeks."},
			"no value":           {datum(types.MetricDatum{}), "MissingParameter", "At least one"},
			"two values":         {datum(types.MetricDatum{Value: new(1.0), StatisticValues: &types.StatisticSet{SampleCount: new(1.0), Sum: new(1.0), Minimum: new(1.0), Maximum: new(1.0)}}), "InvalidParameterCombination", "The parameters MetricData.member.1.Value and MetricData.member.1.StatisticValues are mutually exclusive and you have specified both."},
			"no number":          {datum(types.MetricDatum{Value: new(math.NaN())}), "InvalidParameterValue", "The value NaN for parameter MetricData.member.1.Value is invalid."},
			"counts of nothing":  {datum(types.MetricDatum{Values: []float64{1, 2}, Counts: []float64{1}}), "InvalidParameterCombination", "same size"},
			"another resolution": {datum(types.MetricDatum{Value: new(1.0), StorageResolution: new(int32(300))}), "InvalidParameterValue", "The parameter MetricData.member.1.StorageResolution must be a value in the set [ 1, 60 ]."},
			"no such unit":       {datum(types.MetricDatum{Value: new(1.0), Unit: "Parsec"}), "ValidationError", "Value 'Parsec'"},
			"AWS's namespace": {func() error {
				_, err := o.cw.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: new("AWS/ECS"), MetricData: []types.MetricDatum{{MetricName: new("m"), Value: new(1.0)}}})
				return err
			}, "InvalidParameterValue", "The value AWS/ECS for parameter Namespace is invalid."},
			"an anomaly": {alarm(func(in *cloudwatch.PutMetricAlarmInput) {
				in.ComparisonOperator = types.ComparisonOperatorGreaterThanUpperThreshold
			}), "ValidationError", "anomaly"},
			"a band": {alarm(func(in *cloudwatch.PutMetricAlarmInput) { in.ThresholdMetricId = new("x") }), "ValidationError", "does not perform ThresholdMetricId yet"},
			"PromQL": {alarm(func(in *cloudwatch.PutMetricAlarmInput) {
				in.EvaluationCriteria = &types.EvaluationCriteriaMemberPromQLCriteria{Value: types.AlarmPromQLCriteria{Query: new("up")}}
			}), "SerializationException", "EvaluationCriteria: is not performed by Serin"},
			"a long alarm": {alarm(func(in *cloudwatch.PutMetricAlarmInput) { in.EvaluationPeriods = new(int32(1441)) }), "ValidationError", "Metrics cannot be checked across more than a day (EvaluationPeriods * Period must be <= 86400)."},
			"a bad action": {alarm(func(in *cloudwatch.PutMetricAlarmInput) { in.AlarmActions = []string{"mail me"} }), "ValidationError", "Invalid arn syntax: mail me"},
			"another region": {alarm(func(in *cloudwatch.PutMetricAlarmInput) {
				in.OKActions = []string{"arn:aws:sns:eu-west-1:" + Account + ":t"}
			}), "ValidationError", "Invalid region eu-west-1 specified. Only us-east-1 is supported."},
			"a bad statistic":   {alarm(func(in *cloudwatch.PutMetricAlarmInput) { in.Statistic, in.ExtendedStatistic = "", new("p101") }), "InvalidParameterValue", "p101"},
			"no such treatment": {alarm(func(in *cloudwatch.PutMetricAlarmInput) { in.TreatMissingData = new("sometimes") }), "InvalidParameterValue", "sometimes"},
			"a bad expression":  {expression("1 +"), "ValidationError", "Error in expression 'e1': The expression ends too early"},
			"a search":          {expression("SEARCH('{a}', 'Sum')"), "ValidationError", "Serin does not perform the function SEARCH yet"},
			"a circle":          {expression("e1 + 1"), "ValidationError", "circle"},
			"no such alarm": {func() error {
				_, err := o.cw.DeleteAlarms(ctx, &cloudwatch.DeleteAlarmsInput{AlarmNames: []string{"no"}})
				return err
			}, "ResourceNotFound", "does not exist"},
			"no JSON": {func() error {
				_, err := o.cw.SetAlarmState(ctx, &cloudwatch.SetAlarmStateInput{AlarmName: new("no"), StateReason: new(""), StateReasonData: new("{"), StateValue: types.StateValueOk})
				return err
			}, "InvalidFormat", "JSON"},
			"a token of nobody": {func() error {
				_, err := o.cw.DescribeAlarms(ctx, &cloudwatch.DescribeAlarmsInput{NextToken: new("x")})
				return err
			}, "InvalidNextToken", "invalid"},
			"too many points": {func() error {
				_, err := o.cw.GetMetricStatistics(ctx, &cloudwatch.GetMetricStatisticsInput{Namespace: new("Test"), MetricName: new("m"), Period: new(int32(60)), StartTime: new(now.Add(-48 * time.Hour)), EndTime: &now, Statistics: []types.Statistic{types.StatisticSum}})
				return err
			}, "InvalidParameterCombination", "You have requested up to 2880 datapoints, which exceeds the limit of 1440."},
			"dashboards": {func() error {
				_, err := o.cw.ListDashboards(ctx, &cloudwatch.ListDashboardsInput{})
				return err
			}, "UnknownOperationException", "Serin does not perform cloudwatch:ListDashboards."},
		} {
			err := c.do()
			e, ok := errors.AsType[smithy.APIError](err)
			if !ok || e.ErrorCode() != c.code || !strings.Contains(e.ErrorMessage(), c.text) {
				t.Errorf("%s gives %v", name, err)
			}
		}
		if _, ok := errors.AsType[*types.ValidationException](expression("1 +")()); !ok {
			t.Error("the error has no type")
		}
	})
}

func TestAlarmsAreFoundByEveryFilter(t *testing.T) {
	observe(t, func(t *testing.T, o observer) {
		ctx := t.Context()
		topic := "arn:aws:sns:us-east-1:" + Account + ":pager"
		o.alarm("web-errors", func(in *cloudwatch.PutMetricAlarmInput) {
			in.AlarmActions, in.Tags = []string{topic}, []types.Tag{{Key: new("team"), Value: new("web")}}
		})
		o.alarm("web-latency", func(in *cloudwatch.PutMetricAlarmInput) {
			in.MetricName, in.Statistic, in.ExtendedStatistic = new("latency"), "", new("p99")
		})
		o.alarm("db-errors", func(in *cloudwatch.PutMetricAlarmInput) {
			in.Dimensions = []types.Dimension{{Name: new("Service"), Value: new("db")}}
		})
		names := func(alarms []types.MetricAlarm, err error) string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, a := range alarms {
				out = append(out, *a.AlarmName)
			}
			return strings.Join(out, " ")
		}
		for want, in := range map[string]*cloudwatch.DescribeAlarmsInput{
			"db-errors web-errors web-latency": {},
			"web-errors web-latency":           {AlarmNamePrefix: new("web-")},
			"web-errors":                       {ActionPrefix: new("arn:aws:sns")},
			"db-errors":                        {AlarmNames: []string{"db-errors", "no"}},
			"":                                 {StateValue: types.StateValueAlarm},
		} {
			out, err := o.cw.DescribeAlarms(ctx, in)
			if got := names(out.MetricAlarms, err); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if out, err := o.cw.DescribeAlarms(ctx, &cloudwatch.DescribeAlarmsInput{AlarmTypes: []types.AlarmType{types.AlarmTypeCompositeAlarm}}); err != nil || len(out.MetricAlarms) != 0 {
			t.Errorf("%v %v", out, err)
		}
		first, err := o.cw.DescribeAlarms(ctx, &cloudwatch.DescribeAlarmsInput{MaxRecords: new(int32(2))})
		if err != nil || len(first.MetricAlarms) != 2 || first.NextToken == nil {
			t.Fatalf("%v %v", first, err)
		}
		rest, err := o.cw.DescribeAlarms(ctx, &cloudwatch.DescribeAlarmsInput{NextToken: first.NextToken})
		if got := names(rest.MetricAlarms, err); got != "web-latency" {
			t.Errorf("the second page has %s", got)
		}
		of, err := o.cw.DescribeAlarmsForMetric(ctx, &cloudwatch.DescribeAlarmsForMetricInput{Namespace: new("Test"), MetricName: new("errors")})
		if got := names(of.MetricAlarms, err); got != "web-errors" {
			t.Errorf("on the metric are %s", got)
		}
		arn := first.MetricAlarms[1].AlarmArn
		tags, err := o.cw.ListTagsForResource(ctx, &cloudwatch.ListTagsForResourceInput{ResourceARN: arn})
		if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Value != "web" {
			t.Errorf("%v %v", tags, err)
		}
		if _, err := o.cw.DisableAlarmActions(ctx, &cloudwatch.DisableAlarmActionsInput{AlarmNames: []string{"web-errors", "no"}}); err != nil || *o.describe("web-errors").ActionsEnabled {
			t.Errorf("its actions are enabled, %v", err)
		}
		if _, err := o.cw.DeleteAlarms(ctx, &cloudwatch.DeleteAlarmsInput{AlarmNames: []string{"web-errors", "no"}}); err == nil {
			t.Error("an alarm that is not there was deleted")
		}
		o.says(types.StateValueInsufficientData, "web-errors") // none was
		if _, err := o.cw.DeleteAlarms(ctx, &cloudwatch.DeleteAlarmsInput{AlarmNames: []string{"web-errors"}}); err != nil {
			t.Error(err)
		}
		if _, err := o.cw.ListTagsForResource(ctx, &cloudwatch.ListTagsForResourceInput{ResourceARN: arn}); err == nil {
			t.Error("a deleted alarm has tags")
		}
	})
}
