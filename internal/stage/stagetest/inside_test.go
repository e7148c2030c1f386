package stagetest

import (
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"serin/internal/memnet"
	"serin/internal/run"
	"serin/internal/stage"
)

// asking is a container that asks the stage, with the environment that it has.
type asking struct {
	*world
	env map[string]string
}

// inside is the first container of a task that runs.
func (w *world) inside(taskARN string) asking {
	w.t.Helper()
	w.must(nil, ecs.NewTasksRunningWaiter(w.ecs).Wait(w.t.Context(), &ecs.DescribeTasksInput{Tasks: []string{taskARN}}, time.Hour))
	a := asking{w, map[string]string{}}
	_, said := a.ask("GET", "http://"+*w.task(&taskARN).Containers[0].NetworkInterfaces[0].PrivateIpv4Address+":8080/command", "")
	for line := range strings.Lines(said) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		a.env[name] = value
	}
	return a
}

func (a asking) ask(method, url, body string) (int, string) {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, url, strings.NewReader(body))
	a.must(r, err)
	resp, err := a.client.Do(r)
	a.must(resp, err)
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	a.must(said, err)
	return resp.StatusCode, string(said)
}

// tell is what a page says, as JSON has it.
func (a asking) tell(url string) (v any) {
	a.t.Helper()
	code, said := a.ask("GET", url, "")
	if code != http.StatusOK {
		a.t.Fatalf("%s answers %d %s", url, code, said)
	}
	a.must(nil, json.Unmarshal([]byte(said), &v))
	return v
}

// is compares what a page says with JSON.
func (a asking) is(url, want string) {
	a.t.Helper()
	var w any
	a.must(nil, json.Unmarshal([]byte(want), &w))
	if got := a.tell(url); !reflect.DeepEqual(got, w) {
		raw, _ := json.MarshalIndent(got, "", "  ")
		a.t.Errorf("%s says\n%s\nwant\n%s", url, raw, want)
	}
}

func (a asking) v4() string { return a.env["ECS_CONTAINER_METADATA_URI_V4"] }
func (a asking) v3() string { return a.env["ECS_CONTAINER_METADATA_URI"] }

// iso is a time as JSON has it.
func iso(t *time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// using runs a test in a bubble, with a runtime whose tasks use what is said.
func using(t *testing.T, usage func(id string) run.Usage, test func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n, fake := memnet.New(), run.NewFake()
		fake.Listen = n.Listen
		fake.Use(usage)
		l, err := n.Listen("127.0.0.1:4566")
		if err != nil {
			t.Fatal(err)
		}
		client := n.Client()
		t.Cleanup(client.CloseIdleConnections)
		s, c, stop := start(t, l, stage.Config{Endpoint: "127.0.0.1:4566", Speed: 1, Network: n}, fake)
		t.Cleanup(stop)
		c.HTTPClient = client
		test(t, worldOf(t, s, c, client, time.Second, time.Hour))
	})
}

// Every member that a task of two containers is told, by both versions.
func TestATaskIsToldOfItself(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.must(w.ecs.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("shop"), NetworkMode: types.NetworkModeAwsvpc, Cpu: new("512"), Memory: new("1024"),
			ContainerDefinitions: []types.ContainerDefinition{
				{Name: new("web"), Image: new("example.com/web:1"), Cpu: 256, Memory: new(int32(128)), PortMappings: []types.PortMapping{{ContainerPort: new(int32(8080))}}, DockerLabels: map[string]string{"team": "shop"},
					HealthCheck: &types.HealthCheck{Command: []string{"CMD", "ask"}},
					LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{
						"awslogs-group": "/ecs/shop", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "ecs", "awslogs-create-group": "true"}}},
				{Name: new("once"), Image: new("example.com/once:exits"), Essential: new(false)}}}))
		service, err := w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("shop"), DesiredCount: new(int32(1)), NetworkConfiguration: awsvpc("a")})
		w.must(service, err)
		w.ends(*service.Service.CurrentServiceDeployment, types.ServiceDeploymentStatusSuccessful)
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		one := list.TaskArns[0]
		a := w.inside(one)
		row := w.task(&one)
		web, once, id := row.Containers[0], row.Containers[1], one[strings.LastIndexByte(one, '/')+1:]
		address := *web.NetworkInterfaces[0].PrivateIpv4Address
		labels := func(name string, more string) string {
			return `"Labels": {` + more + `"com.amazonaws.ecs.cluster": "default", "com.amazonaws.ecs.container-name": "` + name + `", "com.amazonaws.ecs.task-arn": "` + one + `",
				"com.amazonaws.ecs.task-definition-family": "shop", "com.amazonaws.ecs.task-definition-version": "1"}`
		}
		created := `"CreatedAt": "` + iso(row.PullStoppedAt) + `", "StartedAt": "` + iso(row.StartedAt) + `"`
		first := `"DockerId": "` + *web.RuntimeId + `", "Name": "web", "DockerName": "web", "Image": "example.com/web:1", "ImageID": "` + *web.ImageDigest + `",
			"Ports": [{"ContainerPort": 8080, "Protocol": "tcp", "HostPort": 8080}], ` + labels("web", `"team": "shop", `) + `, "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING",
			"Limits": {"CPU": 256, "Memory": 128}, ` + created + `, "Type": "NORMAL", "Health": {"status": "HEALTHY"}`
		second := `"DockerId": "` + *once.RuntimeId + `", "Name": "once", "DockerName": "once", "Image": "example.com/once:exits", "ImageID": "` + *once.ImageDigest + `",
			` + labels("once", "") + `, "DesiredStatus": "RUNNING", "KnownStatus": "STOPPED", "ExitCode": 1, "Limits": {"CPU": 2}, ` + created + `, "FinishedAt": "` + iso(row.StartedAt) + `", "Type": "NORMAL"`
		network := `"Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["` + address + `"], "AttachmentIndex": 0}]`
		firstNow := `{` + first + `, ` + network + `, "ContainerARN": "` + *web.ContainerArn + `", "LogDriver": "awslogs",
			"LogOptions": {"awslogs-group": "/ecs/shop", "awslogs-region": "us-east-1", "awslogs-create-group": "true", "awslogs-stream": "ecs/web/` + id + `"}}`
		task := `"Cluster": "default", "TaskARN": "` + one + `", "Family": "shop", "Revision": "1", "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Limits": {"CPU": 0.5, "Memory": 1024},
			"PullStartedAt": "` + iso(row.PullStartedAt) + `", "PullStoppedAt": "` + iso(row.PullStoppedAt) + `"`
		taskNow := task + `, "LaunchType": "EC2", "ServiceName": "s", "FaultInjectionEnabled": false, "Containers": [` + firstNow + `, {` + second + `, ` + network + `, "ContainerARN": "` + *once.ContainerArn + `"}]`
		a.is(a.v4(), firstNow)
		a.is(a.v4()+"/task", `{`+taskNow+`}`)
		network = strings.Replace(network, `, "AttachmentIndex": 0`, "", 1)
		a.is(a.v3(), `{`+first+`, `+network+`}`)
		a.is(a.v3()+"/task", `{`+task+`, "Containers": [{`+first+`, `+network+`}, {`+second+`, `+network+`}]}`)

		w.must(w.ecs.TagResource(t.Context(), &ecs.TagResourceInput{ResourceArn: &one, Tags: []types.Tag{{Key: new("for"), Value: new("7")}}}))
		a.is(a.v4()+"/taskWithTags", `{`+taskNow+`, "TaskTags": {"for": "7"}}`)
	})
}

// A key is a secret: nothing that the API tells of a task is one, and it is good for as
// long as the task lives.
func TestAKeyIsGoodForItsContainerAlone(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.define("1")
		one := *w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		a := w.inside(one)
		key := a.v4()[strings.LastIndexByte(a.v4(), '/')+1:]
		row := w.task(&one)
		raw, err := json.Marshal(row)
		w.must(raw, err)
		if len(key) != 36 || strings.Contains(string(raw), key) {
			t.Errorf("the key %s is among what the API tells: %s", key, raw)
		}
		base := strings.TrimSuffix(a.v4(), "/v4/"+key)
		if a.v3() != base+"/v3/"+key || a.env["ECS_AGENT_URI"] != base+"/api/"+key {
			t.Errorf("the environment is %v", a.env)
		}
		id := one[strings.LastIndexByte(one, '/')+1:]
		_, containerID, _ := strings.Cut(*row.Containers[0].ContainerArn, id+"/")
		gone := func(key string) {
			t.Helper()
			for path, want := range map[string]string{
				"/v4/" + key: "V4 container metadata handler: unable to get container ID from request: unable to get docker ID from v3 endpoint ID: ", "/v4/" + key + "/task": "V4 task metadata handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: ",
				"/v4/" + key + "/taskWithTags": "V4 task metadata handler: unable to get task arn", "/v4/" + key + "/stats": "V4 container stats handler: unable to get task arn", "/v4/" + key + "/task/stats": "V4 task stats handler: unable to get task arn",
			} {
				if code, said := a.ask("GET", base+path, ""); code != http.StatusNotFound || !strings.HasPrefix(said, `"`+want) {
					t.Errorf("%s answers %d %s", path, code, said)
				}
			}
			if code, said := a.ask("GET", base+"/v3/"+key, ""); code != http.StatusInternalServerError || !strings.Contains(said, "V3 container metadata handler: unable to get container ID from request") {
				t.Errorf("version 3 answers %d %s", code, said)
			}
			for method, path := range map[string]string{"GET": "task-protection/v1/state", "POST": "fault/v1/network-latency/start"} {
				if code, said := a.ask(method, base+"/api/"+key+"/"+path, ""); code != http.StatusNotFound || !strings.Contains(said, "ind a task") && !strings.Contains(said, "unable to get task") {
					t.Errorf("%s answers %d %s", path, code, said)
				}
			}
		}
		for _, other := range []string{id, id + "-web", containerID, "x", "metadata%20" + key} {
			gone(other)
		}
		if code, said := a.ask("GET", a.v4()+"/nothing", ""); code != http.StatusNotFound || said != "404 page not found\n" {
			t.Errorf("a page that there is not answers %d %s", code, said)
		}
		w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: &one}))
		w.must(nil, ecs.NewTasksStoppedWaiter(w.ecs).Wait(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{one}}, time.Hour))
		gone(key)
	})
}

// What containers use is read once a second, and told beside the reading before.
func TestATaskIsToldWhatItUses(t *testing.T) {
	began := time.Now()
	usage := func(string) run.Usage {
		since := time.Since(began)
		return run.Usage{CPU: since, System: time.Hour + 100*since, CPUs: 2, Memory: 30 << 20, Containers: map[string]run.Usage{"web": {CPU: since / 2, Memory: 10 << 20}, "side": {CPU: since / 4, Memory: 20 << 20}}}
	}
	using(t, usage, func(t *testing.T, w *world) {
		began = time.Now()
		w.must(w.ecs.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("512"), ContainerDefinitions: []types.ContainerDefinition{
			{Name: new("web"), Image: new("example.com/web:1"), Memory: new(int32(64))}, {Name: new("side"), Image: new("example.com/side:1")}, {Name: new("once"), Image: new("example.com/once:done"), Essential: new(false)}}}))
		one := *w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		a := w.inside(one)
		stats := func(name string, read, before time.Time, cpu, was, used, limit float64) map[string]any {
			spent := func(at time.Time, own float64) map[string]any {
				s := map[string]any{"cpu_usage": map[string]any{"total_usage": own}}
				if !at.IsZero() {
					s["system_cpu_usage"], s["online_cpus"] = float64(time.Hour+100*at.Sub(began)), 2.0
				}
				return s
			}
			at := func(t time.Time) any { return t.UTC().Format(time.RFC3339Nano) }
			return map[string]any{"read": at(read), "preread": at(before), "name": name, "id": one[strings.LastIndexByte(one, '/')+1:] + "-" + name, "memory_stats": map[string]any{"usage": used, "limit": limit},
				"cpu_stats": spent(read, cpu), "precpu_stats": spent(before, was)}
		}
		same := func(got any, want map[string]any) {
			t.Helper()
			if !reflect.DeepEqual(got, any(want)) {
				t.Errorf("it is told\n%v\nwant\n%v", got, want)
			}
		}
		first := time.Now()
		half := func(at time.Time, by float64) float64 { return float64(at.Sub(began)) / by }
		same(a.tell(a.v4()+"/stats"), stats("web", first, time.Time{}, half(first, 2), 0, 10<<20, 64<<20))
		time.Sleep(900 * time.Millisecond)
		same(a.tell(a.v3()+"/stats"), stats("web", first, time.Time{}, half(first, 2), 0, 10<<20, 64<<20))
		time.Sleep(600 * time.Millisecond)
		second := time.Now()
		web, side := stats("web", second, first, half(second, 2), half(first, 2), 10<<20, 64<<20), stats("side", second, first, half(second, 4), half(first, 4), 20<<20, 512<<20)
		same(a.tell(a.v4()+"/task/stats"), map[string]any{web["id"].(string): web, side["id"].(string): side, strings.TrimSuffix(web["id"].(string), "web") + "once": map[string]any{}})
	})
}

// Where a runtime does not know containers apart, one alone is its task, and of several
// nothing is made up.
func TestATaskIsNotToldWhatIsNotKnown(t *testing.T) {
	using(t, func(string) run.Usage { return run.Usage{CPU: time.Second, Memory: 1 << 20} }, func(t *testing.T, w *world) {
		w.define("1")
		a := w.inside(*w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn)
		if used := a.tell(a.v4() + "/stats").(map[string]any)["memory_stats"]; !reflect.DeepEqual(used, map[string]any{"usage": float64(1 << 20), "limit": float64(128 << 20)}) {
			t.Errorf("one alone is told %v", used)
		}
		w.must(w.ecs.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("two"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("512"),
			ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1")}, {Name: new("side"), Image: new("example.com/side:1")}}}))
		one := *w.runs(&ecs.RunTaskInput{TaskDefinition: new("two"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		a = w.inside(one)
		id := one[strings.LastIndexByte(one, '/')+1:] + "-web"
		if code, said := a.ask("GET", a.v4()+"/stats", ""); code != http.StatusInternalServerError || said != `"Unable to get container stats for: `+id+"\"\n" {
			t.Errorf("one of two is answered %d %s", code, said)
		}
		if all := a.tell(a.v4() + "/task/stats").(map[string]any); len(all) != 2 || !reflect.DeepEqual(all[id], map[string]any{}) {
			t.Errorf("the two are told %v", all)
		}
		if all := a.tell(a.v3() + "/task/stats").(map[string]any); len(all) != 2 || all[id] != nil {
			t.Errorf("by version 3 they are told %v", all)
		}
	})
}

// As many requests as a task may make at once, and then so many a second; another
// task has its own.
func TestATaskIsThrottled(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.define("1")
		tasks := w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a"), Count: new(int32(2))})
		a, b := w.inside(*tasks[0].TaskArn), w.inside(*tasks[1].TaskArn)
		many := func(n int) (answered int) {
			t.Helper()
			for range n {
				code, said := a.ask("GET", a.v4(), "")
				switch {
				case code == http.StatusOK:
					answered++
				case code != http.StatusTooManyRequests || said != "You have reached maximum request limit.\n":
					t.Fatalf("answered %d %q", code, said)
				}
			}
			return answered
		}
		if n := many(100); n != 60 {
			t.Errorf("of a hundred at once %d were answered", n)
		}
		b.tell(b.v4())
		if code, _ := a.ask("GET", a.env["ECS_AGENT_URI"]+"/task-protection/v1/state", ""); code != http.StatusTooManyRequests {
			t.Errorf("another page answers %d", code)
		}
		time.Sleep(time.Second)
		if n := many(100); n != 40 {
			t.Errorf("a second later %d were answered", n)
		}
	})
}

// taskRole makes a role that tasks may have, with or without a policy.
func (w *world) taskRole(name, policy string) string {
	w.t.Helper()
	w.must(w.iam.CreateRole(w.t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
	if policy != "" {
		w.must(w.iam.PutRolePolicy(w.t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: new("own"), PolicyDocument: &policy}))
	}
	return "arn:aws:iam::" + Account + ":role/" + name
}

// A task protects itself, where its role may; ECS says then that it is protected.
func TestATaskProtectsItself(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		role := w.taskRole("shop", "")
		w.must(w.ecs.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("128"), TaskRoleArn: &role,
			ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1")}}}))
		w.must(w.ecs.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(1)), NetworkConfiguration: awsvpc("a")}))
		w.until("it runs", func() bool { return w.service().RunningCount == 1 })
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		one := list.TaskArns[0]
		a := w.inside(one)
		type answer struct {
			RequestID  string `json:"requestID"`
			Protection *struct {
				ExpirationDate    *time.Time
				ProtectionEnabled bool
				TaskArn           string
			} `json:"protection"`
			Failure *types.Failure `json:"failure"`
			Error   *struct{ Arn, Code, Message string }
		}
		state := func(method, body string, status int) (v answer) {
			t.Helper()
			code, said := a.ask(method, a.env["ECS_AGENT_URI"]+"/task-protection/v1/state", body)
			if code != status {
				t.Errorf("%s %s answers %d %s", method, body, code, said)
			}
			w.must(nil, json.Unmarshal([]byte(said), &v))
			return v
		}
		for _, method := range []string{"GET", "PUT"} {
			action := map[string]string{"GET": "Get", "PUT": "Update"}[method] + "TaskProtection"
			v := state(method, `{"ProtectionEnabled":true}`, http.StatusBadRequest)
			if v.Error == nil || v.Error.Code != "AccessDeniedException" || v.Error.Arn != one || v.RequestID == "" ||
				!strings.HasPrefix(v.Error.Message, "User: arn:aws:sts::"+Account+":assumed-role/shop/"+one[strings.LastIndexByte(one, '/')+1:]+" is not authorized to perform: ecs:"+action+" on resource: "+one) {
				t.Errorf("without a policy it is answered %+v %+v", v, v.Error)
			}
		}
		w.must(w.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("shop"), PolicyName: new("own"),
			PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecs:GetTaskProtection","ecs:UpdateTaskProtection"],"Resource":"` + one + `"}]}`)}))
		for body, want := range map[string]string{
			`{"ProtectionEnabled":`: "UpdateTaskProtection: failed to decode request", `{"ProtectionEnabled":true,"For":1}`: "UpdateTaskProtection: failed to decode request", `{"ProtectionEnabled":"yes"}`: "UpdateTaskProtection: failed to decode request",
			`{}`: "Invalid request: does not contain 'ProtectionEnabled' field", `{"ProtectionEnabled":true,"ExpiresInMinutes":0}`: "got 0", `{"ProtectionEnabled":true,"ExpiresInMinutes":2881}`: "got 2881",
		} {
			if v := state("PUT", body, http.StatusBadRequest); v.Error == nil || v.Error.Code != "InvalidParameterException" || !strings.Contains(v.Error.Message, want) {
				t.Errorf("%s is answered %+v", body, v.Error)
			}
		}
		now := time.Now()
		for _, v := range []answer{state("PUT", `{"ProtectionEnabled":true,"ExpiresInMinutes":60}`, http.StatusOK), state("GET", "", http.StatusOK)} {
			if p := v.Protection; p == nil || !p.ProtectionEnabled || p.TaskArn != one || p.ExpirationDate.Sub(now.Add(time.Hour)).Abs() > time.Second {
				t.Errorf("it is protected by %+v", p)
			}
		}
		out, err := w.ecs.GetTaskProtection(t.Context(), &ecs.GetTaskProtectionInput{Cluster: new("default"), Tasks: []string{one}})
		w.must(out, err)
		if !out.ProtectedTasks[0].ProtectionEnabled {
			t.Errorf("ECS does not know of it: %+v", out)
		}
		if v := state("PUT", `{"ProtectionEnabled":false}`, http.StatusOK); v.Protection == nil || v.Protection.ProtectionEnabled || v.Protection.ExpirationDate != nil {
			t.Errorf("it is let go by %+v", v.Protection)
		}

		w.must(w.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("shop"), PolicyName: new("own"),
			PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:*TaskProtection","Resource":"*"}]}`)}))
		alone := *w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		a = w.inside(alone)
		if v := state("PUT", `{"ProtectionEnabled":true}`, http.StatusOK); v.Failure == nil || aws.ToString(v.Failure.Reason) != "TASK_NOT_VALID" || aws.ToString(v.Failure.Arn) != alone {
			t.Errorf("a task of nobody's is answered %+v", v)
		}
	})
}

func TestATaskWithoutARoleCannotProtectItselfNorAskForFaults(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.define("1")
		one := *w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		a := w.inside(one)
		said := func(method, path, body string, status int, want string) {
			t.Helper()
			var v any
			code, said := a.ask(method, a.env["ECS_AGENT_URI"]+path, body)
			if json.Unmarshal([]byte(said), &v) != nil || code != status || !strings.Contains(said, want) {
				t.Errorf("%s %s answers %d %s", method, path, code, said)
			}
		}
		said("PUT", "/task-protection/v1/state", `{"ProtectionEnabled":true}`, http.StatusForbidden, `"Invalid Request: no task IAM role credentials available for task"`)
		for _, fault := range []string{"network-blackhole-port/start", "network-latency/status", "network-packet-loss/stop"} {
			said("POST", "/fault/v1/"+fault, `{}`, http.StatusBadRequest, `"Error": "enableFaultInjection is not enabled for task: `+one+`"`)
		}
	})
}

// On an instance a task is told its zone, its network and, where the instance's role
// may read them, tags.
func TestATaskOnAnInstanceIsToldOfIt(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hours(2)
		zones := w.managed(w.subnets()[:1])
		w.on("s", w.taskOf("web", "256", "512", nil), 1, zones, "mi")
		w.until("it runs", func() bool { return w.service().RunningCount == 1 })
		list, err := w.ecs.ListTasks(t.Context(), &ecs.ListTasksInput{})
		w.must(list, err)
		one, host := list.TaskArns[0], w.fleet()[0]
		w.must(w.ecs.TagResource(t.Context(), &ecs.TagResourceInput{ResourceArn: &one, Tags: []types.Tag{{Key: new("for"), Value: new("7")}}}))
		w.must(w.ecs.TagResource(t.Context(), &ecs.TagResourceInput{ResourceArn: host.ContainerInstanceArn, Tags: []types.Tag{{Key: new("rack"), Value: new("b")}}}))
		a := w.inside(one)
		type answer struct {
			Cluster, AvailabilityZone, LaunchType, VPCID string
			TaskTags, ContainerInstanceTags              map[string]string
			Errors                                       []struct {
				ErrorField, ErrorCode, ErrorMessage, RequestId, ResourceARN string
				StatusCode                                                  int
			}
		}
		tags := func(of string) (v answer) {
			t.Helper()
			_, said := a.ask("GET", of+"/taskWithTags", "")
			w.must(nil, json.Unmarshal([]byte(said), &v))
			return v
		}
		w.must(w.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("ecsInstanceRole"), PolicyName: new("tags"),
			PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ecs:ListTagsForResource","Resource":"*"}]}`)}))
		v := tags(a.v4())
		if v.Cluster != "arn:aws:ecs:us-east-1:"+Account+":cluster/default" || v.AvailabilityZone != "us-east-1a" || v.LaunchType != "MANAGED_INSTANCES" || !strings.HasPrefix(v.VPCID, "vpc-") {
			t.Errorf("it is told %+v", v)
		}
		if len(v.Errors) != 2 || v.TaskTags != nil || v.ContainerInstanceTags != nil {
			t.Fatalf("a role that may not read tags is told %+v", v)
		}
		for n, of := range []struct{ field, arn string }{{"ContainerInstanceTags", *host.ContainerInstanceArn}, {"TaskTags", one}} {
			e := v.Errors[n]
			if e.ErrorField != of.field || e.ErrorCode != "AccessDeniedException" || e.ResourceARN != of.arn || e.StatusCode != 400 || e.RequestId == "" ||
				!strings.HasPrefix(e.ErrorMessage, "User: arn:aws:sts::"+Account+":assumed-role/ecsInstanceRole/"+*host.Ec2InstanceId+" is not authorized to perform: ecs:ListTagsForResource on resource: "+of.arn) {
				t.Errorf("the error is %+v", e)
			}
		}
		if v := tags(a.v3()); v.Errors != nil || v.TaskTags != nil {
			t.Errorf("version 3 says %+v", v)
		}
		w.must(w.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("ecsInstanceRole"), PolicyName: new("tags"),
			PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:ListTagsForResource","Resource":"*"}]}`)}))
		if v = tags(a.v4()); v.Errors != nil || v.TaskTags["for"] != "7" || v.ContainerInstanceTags["rack"] != "b" {
			t.Errorf("a role that may is told %+v", v)
		}
	})
}

// A container keeps its key while the stage is started anew.
func TestAKeyOutlastsTheStage(t *testing.T) {
	dir, fake := t.TempDir(), run.NewFake()
	begin := func() (*world, func()) {
		s, c, stop := Start(t, stage.Config{Dir: dir, Speed: 600}, fake)
		return &world{t: t, stage: s, config: c, client: http.DefaultClient, tick: 5 * time.Millisecond, limit: time.Minute, ecs: ecs.NewFromConfig(c)}, stop
	}
	w, stop := begin()
	w.must(w.ecs.CreateCluster(t.Context(), &ecs.CreateClusterInput{}))
	w.define("1")
	one := *w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
	w.must(nil, w.eventually("it runs", func() bool { return *w.task(&one).LastStatus == "RUNNING" }))
	a := w.inside(one)
	key := a.v4()[strings.LastIndexByte(a.v4(), '/')+1:]
	stop()
	w, stop = begin()
	defer stop()
	said := asking{w, nil}.tell(*w.config.BaseEndpoint + "/v4/" + key + "/task")
	if arn := said.(map[string]any)["TaskARN"]; arn != one {
		t.Errorf("the next stage says %v of %s", arn, one)
	}
}
