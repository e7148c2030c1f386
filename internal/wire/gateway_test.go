package wire_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"serin/internal/wire"
)

func TestBadRequestsGetAWSsAnswers(t *testing.T) {
	var ecs, iam *wire.Service
	for _, s := range services(t) {
		switch s.Name {
		case "ecs":
			ecs = s
		case "iam":
			iam = s
		}
	}
	const target = "AmazonEC2ContainerServiceV20141113."
	for name, c := range map[string]struct {
		service        *wire.Service
		target, body   string
		status         int
		code, contains string
	}{
		"malformed JSON":         {ecs, target + "ListClusters", `{`, 400, "SerializationException", "not valid JSON"},
		"an array":               {ecs, target + "ListClusters", `[]`, 400, "SerializationException", "must be a JSON object"},
		"two values":             {ecs, target + "ListClusters", `{} {}`, 400, "SerializationException", "more than one"},
		"an unknown operation":   {ecs, target + "CreateUniverse", `{}`, 400, "UnknownOperationException", "ecs:CreateUniverse"},
		"a refused operation":    {ecs, target + "PutAttributes", `{}`, 400, "UnknownOperationException", "Serin does not perform ecs:PutAttributes yet."},
		"a value of no enum":     {ecs, target + "CreateService", `{"deploymentConfiguration":{"lifecycleHooks":[{"targetType":"BELL"}]}}`, 400, "InvalidParameterException", "Invalid targetType. Valid values are: AWS_LAMBDA, PAUSE"},
		"an unknown service":     {ecs, "AmazonOther.List", `{}`, 404, "", "does not serve"},
		"an unknown member":      {ecs, target + "CreateCluster", `{"clustername":"x"}`, 400, "SerializationException", `clustername: is not a member that Serin knows (did you mean \"clusterName\"?)`},
		"a wrong type":           {ecs, target + "DescribeServices", `{"services":"x"}`, 400, "SerializationException", "services: must be a list"},
		"a nested wrong type":    {ecs, target + "CreateService", `{"loadBalancers":[{"containerPort":"80"}]}`, 400, "SerializationException", "loadBalancers[0].containerPort: must be a whole number"},
		"an overflow":            {ecs, target + "CreateService", `{"desiredCount":4294967296}`, 400, "SerializationException", "32 bits"},
		"an unknown enum":        {ecs, target + "RegisterTaskDefinition", `{"family":"f","requiresCompatibilities":["LAMBDA"]}`, 400, "InvalidParameterException", "Value 'LAMBDA' at 'requiresCompatibilities[0]'"},
		"a refused member":       {ecs, target + "CreateService", `{"serviceName":"s","platformVersion":"LATEST"}`, 400, "InvalidParameterException", "does not perform platformVersion"},
		"a nested refused":       {ecs, target + "RegisterTaskDefinition", `{"family":"f","containerDefinitions":[{"name":"c","linuxParameters":{"swappiness":9}}]}`, 400, "InvalidParameterException", "containerDefinitions[0].linuxParameters.swappiness"},
		"a union of two":         {ecs, target + "RegisterTaskDefinition", `{"containerDefinitions":[{"resourceRequirements":[{"sharingStrategy":{"nvidiaMps":{},"x":{}}}]}]}`, 400, "SerializationException", "containerDefinitions[0].resourceRequirements[0].sharingStrategy: must have exactly one member, got 2"},
		"a union of another":     {ecs, target + "RegisterTaskDefinition", `{"containerDefinitions":[{"resourceRequirements":[{"sharingStrategy":{"nvidiamps":{}}}]}]}`, 400, "SerializationException", `sharingStrategy.nvidiamps: is not a member that Serin knows (did you mean \"nvidiaMps\"?)`},
		"a union's wrong type":   {ecs, target + "RegisterTaskDefinition", `{"containerDefinitions":[{"resourceRequirements":[{"sharingStrategy":{"nvidiaMps":{"memory":"much"}}}]}]}`, 400, "SerializationException", "sharingStrategy.nvidiaMps.memory: must be a whole number"},
		"a union that is a list": {ecs, target + "RegisterTaskDefinition", `{"containerDefinitions":[{"resourceRequirements":[{"sharingStrategy":[]}]}]}`, 400, "SerializationException", "sharingStrategy: must be a structure"},
		"an unknown query op":    {iam, "", "Action=Fly&Version=2010-05-08", 400, "InvalidAction", "Could not find operation Fly"},
		"an unknown query input": {iam, "", "Action=GetRole&Version=2010-05-08&Rolename=x", 400, "MalformedQueryString", "did you mean"},
		"a query number":         {iam, "", "Action=ListRoles&Version=2010-05-08&MaxItems=many", 400, "MalformedQueryString", "MaxItems"},
		"another version":        {iam, "", "Action=GetRole&Version=1999-01-01", 404, "", "does not serve"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if c.target != "" {
				r.Header.Set("Content-Type", "application/x-amz-json-1.1")
				r.Header.Set("X-Amz-Target", c.target)
			}
			w := httptest.NewRecorder()
			gateway(c.service).ServeHTTP(w, r)
			if body := w.Body.String(); w.Code != c.status || !strings.Contains(body, c.code) || !strings.Contains(strings.ReplaceAll(body, "&#39;", "'"), c.contains) {
				t.Errorf("got %d %s", w.Code, body)
			}
			if w.Header().Get("X-Amzn-RequestId") == "" || w.Header().Get("Date") == "" {
				t.Error("no request id or date")
			}
		})
	}
}

// CloudWatch is spoken to in three protocols; its errors are told by the name of
// their type and by Query's code.
func TestOneServiceAnswersInTheProtocolThatItIsAskedIn(t *testing.T) {
	var cw *wire.Service
	for _, s := range services(t) {
		if s.Name == "cloudwatch" {
			cw = s
		}
	}
	packed := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		io.WriteString(w, s)
		w.Close()
		return b.String()
	}
	const target = "GraniteServiceVersion20100801"
	form, json10, rpc := map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, map[string]string{"Content-Type": "application/x-amz-json-1.0"}, map[string]string{"Content-Type": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor"}
	with := func(of map[string]string, more ...string) map[string]string {
		out := maps.Clone(of)
		out[more[0]] = more[1]
		return out
	}
	for name, c := range map[string]struct {
		path, body string
		header     map[string]string
		status     int
		kind, code string // Content-Type and X-Amzn-Query-Error of the answer
		contains   string
	}{
		"a form":                {"/", "Action=ListMetrics&Version=2010-08-01&Namespace=a", form, 200, "text/xml", "", `<ListMetricsResponse xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/"><ListMetricsResult><Metrics></Metrics>`},
		"a packed form":         {"/", packed("Action=ListMetrics&Version=2010-08-01"), with(form, "Content-Encoding", "gzip"), 200, "text/xml", "", "<ListMetricsResult>"},
		"a form that fails":     {"/", "Action=GetMetricStatistics&Version=2010-08-01", form, 400, "text/xml", "", "<Code>MissingParameter</Code>"},
		"a form of nothing":     {"/", "Action=Fly&Version=2010-08-01", form, 400, "text/xml", "", "<Code>InvalidAction</Code>"},
		"JSON":                  {"/", `{"Namespace":"a"}`, with(json10, "X-Amz-Target", target+".ListMetrics"), 200, "application/x-amz-json-1.0", "", `{"Metrics":[]`},
		"packed JSON":           {"/", packed(`{"Namespace":"a"}`), with(with(json10, "X-Amz-Target", target+".ListMetrics"), "Content-Encoding", "gzip"), 200, "application/x-amz-json-1.0", "", `{"Metrics":[]`},
		"JSON that fails":       {"/", `{}`, with(json10, "X-Amz-Target", target+".GetMetricStatistics"), 400, "application/x-amz-json-1.0", "MissingParameter;Sender", `{"__type":"MissingRequiredParameterException","message":"The parameter StartTime is required."}`},
		"JSON of wrong words":   {"/", `{"AlarmName":""}`, with(json10, "X-Amz-Target", target+".PutMetricAlarm"), 400, "application/x-amz-json-1.0", "ValidationError;Sender", `{"__type":"ValidationException","message":"1 validation error detected`},
		"malformed JSON":        {"/", `{`, with(json10, "X-Amz-Target", target+".ListMetrics"), 400, "application/x-amz-json-1.0", "SerializationException;Sender", "not valid JSON"},
		"CBOR":                  {"/service/" + target + "/operation/ListMetrics", "\xa1\x69Namespace\x61a", rpc, 200, "application/cbor", "", "gMetrics\x80"},
		"no CBOR at all":        {"/service/" + target + "/operation/ListMetrics", "", rpc, 200, "application/cbor", "", "gMetrics\x80"},
		"CBOR that fails":       {"/service/" + target + "/operation/GetMetricStatistics", "\xa0", rpc, 400, "application/cbor", "MissingParameter;Sender", "MissingRequiredParameterException"},
		"malformed CBOR":        {"/service/" + target + "/operation/ListMetrics", "\xa1", rpc, 400, "application/cbor", "SerializationException;Sender", "not valid CBOR"},
		"CBOR that is no map":   {"/service/" + target + "/operation/ListMetrics", "\x80", rpc, 400, "application/cbor", "SerializationException;Sender", "must be a CBOR map"},
		"CBOR of nothing":       {"/service/" + target + "/operation/Fly", "", rpc, 400, "application/cbor", "UnknownOperationException;Sender", "cloudwatch:Fly"},
		"CBOR of nobody":        {"/service/Other/operation/ListMetrics", "", rpc, 404, "", "", "does not serve"},
		"another Smithy":        {"/service/" + target + "/operation/ListMetrics", "", with(rpc, "Smithy-Protocol", "rpc-v2-json"), 404, "", "", `does not serve the Smithy-Protocol "rpc-v2-json"`},
		"another compression":   {"/", "x", with(form, "Content-Encoding", "br"), 404, "", "", `does not serve the content encoding "br"`},
		"a broken compression":  {"/", "x", with(form, "Content-Encoding", "gzip"), 404, "", "", "unpacking the body"},
		"a body that is a bomb": {"/", packed(strings.Repeat("x", wire.MaxBody+1)), with(form, "Content-Encoding", "gzip"), 404, "", "", "when it is unpacked"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, c.path, strings.NewReader(c.body))
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			gateway(cw).ServeHTTP(w, r)
			if body := w.Body.String(); w.Code != c.status || !strings.Contains(body, c.contains) || c.kind != "" && w.Header().Get("Content-Type") != c.kind || w.Header().Get("X-Amzn-Query-Error") != c.code {
				t.Errorf("got %d %v\n%q", w.Code, w.Header(), body)
			}
			if c.kind == "application/cbor" && w.Header().Get("Smithy-Protocol") != "rpc-v2-cbor" {
				t.Error("it does not say that it is RPC v2")
			}
		})
	}
}

func TestAPageGoesOnAfterItsLastKey(t *testing.T) {
	items := []string{"c", "a", "d", "b"}
	key := func(s string) string { return s }
	first, next, err := wire.Page(items, key, "", 2)
	if err != nil || strings.Join(first, "") != "ab" || next == "" {
		t.Fatalf("%v %q %v", first, next, err)
	}
	second, next, err := wire.Page([]string{"a", "c", "bb", "d"}, key, next, 3)
	if err != nil || strings.Join(second, "") != "bbcd" || next != "" {
		t.Errorf("after b came: %v %q %v", second, next, err)
	}
	if _, _, err := wire.Page(items, key, "nonsense", 2); err == nil {
		t.Error("a token that was never given out was taken")
	}
}
