"""A stranger's client measures, asks, and meets the errors, each by its class in boto3."""
import datetime
import json

import boto3

cw = boto3.client("cloudwatch")


def refused(error, part, call, **kw):
    try:
        call(**kw)
    except getattr(cw.exceptions, error) as e:
        assert part in e.response["Error"]["Message"], f"wanted {error} with {part!r}, got {e.response['Error']}"
        return e.response["Error"]["Code"]
    raise AssertionError(f"{error} was wanted and the call went through")


dims = [{"Name": "Service", "Value": "web"}]
# So much that boto3 compresses it.
cw.put_metric_data(Namespace="Shop", MetricData=[
    {"MetricName": "latency", "Dimensions": dims, "Unit": "Milliseconds", "Values": [float(v) for v in range(1, 101)], "Counts": [1.0] * 100}
    for _ in range(20)
])
cw.put_metric_data(Namespace="Shop", MetricData=[
    {"MetricName": "requests", "Dimensions": dims, "StatisticValues": {"SampleCount": 10, "Sum": 40, "Minimum": 1, "Maximum": 9}},
    {"MetricName": "errors", "Dimensions": dims, "Value": 4},
])

names = sorted(m["MetricName"] for page in cw.get_paginator("list_metrics").paginate(Namespace="Shop", Dimensions=dims) for m in page["Metrics"])
assert names == ["errors", "latency", "requests"], names


def window():
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"StartTime": now - datetime.timedelta(hours=3), "EndTime": now + datetime.timedelta(days=10)}


def stat(id, name, stat, **kw):
    return {"Id": id, "MetricStat": {"Metric": {"Namespace": "Shop", "MetricName": name, "Dimensions": dims}, "Period": 86400, "Stat": stat}, **kw}


results = {}
for page in cw.get_paginator("get_metric_data").paginate(**window(), MetricDataQueries=[
    stat("e", "errors", "Sum", ReturnData=False), stat("r", "requests", "Sum", ReturnData=False),
    {"Id": "rate", "Expression": "e / r * 100", "Label": "percent"}, stat("p90", "latency", "p90")]):
    for r in page["MetricDataResults"]:
        results[r["Id"]] = r
assert results["rate"]["Values"] == [10.0] and results["rate"]["Label"] == "percent", results
assert abs(results["p90"]["Values"][0] - 90) < 1, results

points = cw.get_metric_statistics(Namespace="Shop", MetricName="latency", Dimensions=dims, Period=86400, Statistics=["Average", "SampleCount"], **window())["Datapoints"]
assert len(points) == 1 and points[0]["SampleCount"] == 2000 and abs(points[0]["Average"] - 50.5) < 0.001, points

cw.put_metric_alarm(AlarmName="slow", Namespace="Shop", MetricName="latency", Dimensions=dims, ExtendedStatistic="p99", Period=60, EvaluationPeriods=1,
                    Threshold=50.0, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore", Tags=[{"Key": "team", "Value": "web"}])
cw.get_waiter("alarm_exists").wait(AlarmNames=["slow"], WaiterConfig={"Delay": 1, "MaxAttempts": 3})
alarm = cw.describe_alarms(AlarmNames=["slow"])["MetricAlarms"][0]
assert alarm["ExtendedStatistic"] == "p99" and alarm["Dimensions"] == dims, alarm
assert cw.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"] == [{"Key": "team", "Value": "web"}]
cw.set_alarm_state(AlarmName="slow", StateValue="ALARM", StateReason="a drill", StateReasonData=json.dumps({"a": 1}))
history = cw.describe_alarm_history(AlarmName="slow", HistoryItemType="StateUpdate")["AlarmHistoryItems"]
assert history[-1]["HistorySummary"] == "Alarm updated from INSUFFICIENT_DATA to ALARM", history

assert refused("ResourceNotFound", "does not exist", cw.delete_alarms, AlarmNames=["none"]) == "ResourceNotFound"
assert refused("InvalidParameterValueException", "within the past two weeks", cw.put_metric_data, Namespace="Shop",
               MetricData=[{"MetricName": "m", "Value": 1, "Timestamp": datetime.datetime(2020, 1, 1)}]) == "InvalidParameterValue"
assert refused("InvalidParameterCombinationException", "mutually exclusive", cw.put_metric_data, Namespace="Shop",
               MetricData=[{"MetricName": "m", "Value": 1, "Values": [2]}]) == "InvalidParameterCombination"
assert refused("InvalidFormatFault", "JSON", cw.set_alarm_state, AlarmName="slow", StateValue="OK", StateReason="", StateReasonData="{") == "InvalidFormat"
cw.delete_alarms(AlarmNames=["slow"])
print("ok")
