package wire_test

import (
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
		"an unknown service":     {ecs, "AmazonOther.List", `{}`, 404, "", "does not serve"},
		"an unknown member":      {ecs, target + "CreateCluster", `{"clustername":"x"}`, 400, "SerializationException", `clustername: is not a member that Serin knows (did you mean \"clusterName\"?)`},
		"a wrong type":           {ecs, target + "DescribeServices", `{"services":"x"}`, 400, "SerializationException", "services: must be a list"},
		"a nested wrong type":    {ecs, target + "CreateService", `{"loadBalancers":[{"containerPort":"80"}]}`, 400, "SerializationException", "loadBalancers[0].containerPort: must be a whole number"},
		"an overflow":            {ecs, target + "CreateService", `{"desiredCount":4294967296}`, 400, "SerializationException", "32 bits"},
		"an unknown enum":        {ecs, target + "RegisterTaskDefinition", `{"family":"f","requiresCompatibilities":["LAMBDA"]}`, 400, "InvalidParameterException", "Value 'LAMBDA' at 'requiresCompatibilities[0]'"},
		"a refused member":       {ecs, target + "CreateService", `{"serviceName":"s","enableExecuteCommand":true}`, 400, "InvalidParameterException", "does not perform enableExecuteCommand"},
		"a nested refused":       {ecs, target + "RegisterTaskDefinition", `{"family":"f","containerDefinitions":[{"name":"c","privileged":true}]}`, 400, "InvalidParameterException", "containerDefinitions[0].privileged"},
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
