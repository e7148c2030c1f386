package stagetest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"
	"github.com/coder/websocket"

	"serin/internal/run"
	"serin/internal/session"
	"serin/internal/stage"
)

// channels is what a task's role needs for ECS Exec, documented.
const channels = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssmmessages:CreateControlChannel","ssmmessages:CreateDataChannel","ssmmessages:OpenControlChannel","ssmmessages:OpenDataChannel","logs:*"],"Resource":"*"}]}`

// runsWithExec runs a task of containers, with a role and an agent, until it runs.
func (w *world) runsWithExec(role string, containers ...types.ContainerDefinition) types.Task {
	w.t.Helper()
	w.must(w.ecs.RegisterTaskDefinition(w.t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("512"), TaskRoleArn: &role, ContainerDefinitions: containers}))
	arn := w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a"), EnableExecuteCommand: true})[0].TaskArn
	w.must(nil, ecs.NewTasksRunningWaiter(w.ecs).Wait(w.t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*arn}}, time.Hour))
	return w.task(arn)
}

// person is the client of a session, as the plugin is: it speaks the protocol and
// keeps what it is shown.
type person struct {
	*world
	conn    *websocket.Conn
	channel *session.Channel
	shown   strings.Builder
	last    string // what it was told as the session closed
	closed  bool
}

// executes makes a session of a command in the task's container web.
func (w *world) executes(task types.Task, command string) *ecs.ExecuteCommandOutput {
	w.t.Helper()
	out, err := w.ecs.ExecuteCommand(w.t.Context(), &ecs.ExecuteCommandInput{Task: task.TaskArn, Container: new("web"), Command: &command, Interactive: true})
	w.must(out, err)
	return out
}

// dials comes for a session with a token.
func (w *world) dials(s *types.Session, token string) *person {
	w.t.Helper()
	conn, _, err := websocket.Dial(w.t.Context(), *s.StreamUrl, &websocket.DialOptions{HTTPClient: w.client})
	w.must(conn, err)
	w.t.Cleanup(func() { conn.CloseNow() })
	raw, err := json.Marshal(map[string]string{"MessageSchemaVersion": "1.0", "RequestId": "r", "TokenValue": token, "ClientId": "c", "ClientVersion": "1.2"})
	w.must(raw, err)
	w.must(nil, conn.Write(w.t.Context(), websocket.MessageText, raw))
	return &person{world: w, conn: conn, channel: session.NewChannel(false)}
}

// begins is a session under way.
func (w *world) begins(s *types.Session) *person {
	w.t.Helper()
	p := w.dials(s, *s.TokenValue)
	p.reads(session.HandshakeRequest)
	p.sends(session.HandshakeResponse, `{"ClientVersion":"1.2","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}`)
	p.reads(session.HandshakeComplete)
	return p
}

func (p *person) sends(kind session.Payload, data string) {
	p.t.Helper()
	p.must(nil, p.conn.Write(p.t.Context(), websocket.MessageBinary, p.channel.Send(kind, []byte(data), time.Now())))
}

// takes reads one message and acknowledges it.
func (p *person) takes() []session.Message {
	p.t.Helper()
	_, raw, err := p.conn.Read(p.t.Context())
	p.must(raw, err)
	turn, answer, err := p.channel.Take(raw, true, time.Now())
	p.must(turn, err)
	if answer != nil {
		p.must(nil, p.conn.Write(p.t.Context(), websocket.MessageBinary, answer))
	}
	for _, m := range turn {
		if m.Type == session.Closed {
			var c session.Closing
			p.must(nil, json.Unmarshal(m.Data, &c))
			p.closed, p.last = true, c.Output
		} else if m.Payload == session.Text {
			p.shown.Write(m.Data)
		}
	}
	return turn
}

func (p *person) reads(kind session.Payload) {
	p.t.Helper()
	for {
		for _, m := range p.takes() {
			if m.Payload == kind {
				return
			}
		}
	}
}

// sees reads until something was shown.
func (p *person) sees(text string) {
	p.t.Helper()
	for !strings.Contains(p.shown.String(), text) {
		if p.takes(); p.closed {
			p.t.Fatalf("it was shown %q and closed with %q", p.shown.String(), p.last)
		}
	}
}

// ends reads until the session closes, and returns what it was told then.
func (p *person) ends() string {
	p.t.Helper()
	for !p.closed {
		p.takes()
	}
	p.conn.Close(websocket.StatusNormalClosure, "")
	return p.last
}

// refused is the code with which the stage closes.
func (p *person) refused() websocket.StatusCode {
	_, _, err := p.conn.Read(p.t.Context())
	return websocket.CloseStatus(err)
}

func TestAPersonHasATerminalInAContainer(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		task := w.runsWithExec(w.taskRole("shop", channels), of("web", "1", func(c *types.ContainerDefinition) { c.User = new("joe") }))
		c := task.Containers[0]
		if a := c.ManagedAgents; !task.EnableExecuteCommand || len(a) != 1 || a[0].Name != "ExecuteCommandAgent" || *a[0].LastStatus != "RUNNING" || a[0].LastStartedAt == nil {
			t.Fatalf("its agents are %+v", a)
		}
		out := w.executes(task, "cat")
		if s := out.Session; *out.ClusterArn != *task.ClusterArn || *out.TaskArn != *task.TaskArn || *out.ContainerArn != *c.ContainerArn || *out.ContainerName != "web" || !out.Interactive || c.RuntimeId == nil ||
			!strings.HasPrefix(*s.SessionId, "ecs-execute-command-") || *s.StreamUrl != "ws://127.0.0.1:4566/v1/data-channel/"+*s.SessionId+"?role=publish_subscribe" {
			t.Errorf("answered %+v", out)
		}
		p := w.begins(w.executes(task, "cat").Session)
		p.sends(session.Text, "hello")
		p.sees("hello")
		p.sends(session.Text, "\x04")
		if last := p.ends(); last != "" {
			t.Errorf("it closed with %q", last)
		}
		// The window's sizes come, in their order though the first is late.
		p = w.begins(w.executes(task, "sizes").Session)
		first := p.channel.Send(session.Resize, []byte(`{"cols":80,"rows":24}`), time.Now())
		p.sends(session.Resize, `{"cols":100,"rows":30}`)
		p.must(nil, p.conn.Write(t.Context(), websocket.MessageBinary, first))
		p.sees("100x30")
		p.sends(session.Flag, "\x00\x00\x00\x02") // the person is done
		p.ends()
		// A command is root's and is not read by a shell; what cannot be run is said.
		p = w.begins(w.executes(task, "who").Session)
		if p.ends(); p.shown.String() != "0\n" {
			t.Errorf("it is the user %q", p.shown.String())
		}
		p = w.begins(w.executes(task, `say 'a  b' "c \"d" $HOME`).Session)
		if p.ends(); p.shown.String() != "say a  b c \"d $HOME\n" {
			t.Errorf("it said %q", p.shown.String())
		}
		for command, want := range map[string]string{
			"none": "----------ERROR-------\nUnable to start command: Failed to start pty: exec: \"none\": executable file not found in $PATH", `say "`: "Failed to parse commands input: EOF found when expecting closing quote",
		} {
			if last := w.begins(w.executes(task, command).Session).ends(); last != want {
				t.Errorf("%s closed with %q", command, last)
			}
		}
	})
}

func TestATokenIsGoodOnceAndForAWhile(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		task := w.runsWithExec(w.taskRole("shop", channels), of("web", "1", nil))
		s := w.executes(task, "cat").Session
		if code := w.dials(s, "wrong").refused(); code != websocket.StatusPolicyViolation {
			t.Errorf("a wrong token gives %v", code)
		}
		p := w.dials(s, *s.TokenValue) // that did not cost it
		p.reads(session.HandshakeRequest)
		if code := w.dials(s, *s.TokenValue).refused(); code != websocket.StatusPolicyViolation {
			t.Errorf("a token for the second time gives %v", code)
		}
		other := w.executes(task, "cat").Session
		late := w.executes(task, "cat").Session
		if code := w.dials(other, *late.TokenValue).refused(); code != websocket.StatusPolicyViolation {
			t.Errorf("another session's token gives %v", code)
		}
		time.Sleep(2 * time.Minute)
		if code := w.dials(late, *late.TokenValue).refused(); code != websocket.StatusPolicyViolation {
			t.Errorf("a token after two minutes gives %v", code)
		}
	})
}

// A session ends with its container, and without anybody who types.
func TestASessionEndsWithItsContainer(t *testing.T) {
	composed(t, stage.Config{}, func(t *testing.T, w *world, fake *run.Fake) {
		task := w.runsWithExec(w.taskRole("shop", channels), of("web", "1", nil), of("side", "1", helper(nil)))
		side := func(command string) *person {
			out, err := w.ecs.ExecuteCommand(t.Context(), &ecs.ExecuteCommandInput{Task: task.TaskArn, Container: new("side"), Command: &command, Interactive: true})
			w.must(out, err)
			return w.begins(out.Session)
		}
		began := time.Now()
		if last := side("cat").ends(); last != "the session timed out due to inactivity" || time.Since(began).Round(time.Minute) != 20*time.Minute {
			t.Errorf("it closed with %q after %v", last, time.Since(began))
		}
		p := side("cat")
		fake.Finish((*task.TaskArn)[strings.LastIndexByte(*task.TaskArn, '/')+1:], "side", 3)
		began = time.Now()
		if p.ends(); time.Since(began) > time.Minute {
			t.Errorf("it went on for %v", time.Since(began))
		}
		w.until("its agent has stopped", func() bool {
			a := w.task(task.TaskArn).Containers[1].ManagedAgents[0]
			return *a.LastStatus == "STOPPED" && a.LastStartedAt != nil
		})
		_, err := w.ecs.ExecuteCommand(t.Context(), &ecs.ExecuteCommandInput{Task: task.TaskArn, Container: new("side"), Command: new("cat"), Interactive: true})
		if api, ok := errors.AsType[smithy.APIError](err); !ok || !strings.Contains(api.ErrorMessage(), "execute command agent isn’t running") {
			t.Errorf("a command in a container that has stopped: %v", err)
		}
		w.begins(w.executes(task, "cat").Session) // the stage does not wait for it
	})
}

func TestWhatCannotBeExecutedIsSaid(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		role := w.taskRole("shop", channels)
		task := w.runsWithExec(role, of("web", "1", nil), of("side", "1", helper(nil)))
		locked := w.runsWithExec(role, of("web", "1", func(c *types.ContainerDefinition) { c.ReadonlyRootFilesystem = new(true) }))
		bare := w.runsWithExec(w.taskRole("bare", ""), of("web", "1", nil))
		w.define("1")
		plain := w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0]
		w.must(nil, ecs.NewTasksRunningWaiter(w.ecs).Wait(ctx, &ecs.DescribeTasksInput{Tasks: []string{*plain.TaskArn}}, time.Hour))
		if c := w.task(plain.TaskArn).Containers[0]; c.ManagedAgents != nil {
			t.Errorf("a task without an agent has %+v", c.ManagedAgents)
		}
		ask := func(task *string, change func(*ecs.ExecuteCommandInput)) error {
			in := &ecs.ExecuteCommandInput{Task: task, Container: new("web"), Command: new("sh"), Interactive: true}
			if change != nil {
				change(in)
			}
			_, err := w.ecs.ExecuteCommand(ctx, in)
			return err
		}
		const failed = "TargetNotConnectedException: The execute command failed due to an internal error. Try again later."
		const off = "InvalidParameterException: The execute command failed because execute command was not enabled when the task was run or the execute command agent isn’t running. Wait and try again or run a new task with execute command enabled and try again."
		for _, c := range []struct {
			err  error
			want string
		}{
			{ask(task.TaskArn, func(in *ecs.ExecuteCommandInput) { in.Interactive = false }), "InvalidParameterException: Interactive is the only mode supported currently."},
			{ask(task.TaskArn, func(in *ecs.ExecuteCommandInput) { in.Command = new("") }), "InvalidParameterException: command can not be blank."},
			{ask(task.TaskArn, func(in *ecs.ExecuteCommandInput) { in.Cluster = new("none") }), "ClusterNotFoundException: Cluster not found."},
			{ask(task.TaskArn, func(in *ecs.ExecuteCommandInput) { in.Container = nil }), "InvalidParameterException: The task has several containers, and a container must be specified: one of web, side."},
			{ask(task.TaskArn, func(in *ecs.ExecuteCommandInput) { in.Container = new("none") }), "InvalidParameterException: The container none was not found in the task."},
			{ask(new("short"), nil), "InvalidParameterException: task length should be one of [32,36]"},
			{ask(new(strings.Repeat("0", 32)), nil), "InvalidParameterException: The referenced task was not found."},
			{ask(plain.TaskArn, nil), off},
			{ask(locked.TaskArn, nil), failed},
			{ask(bare.TaskArn, nil), failed},
		} {
			if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
				t.Errorf("it says %v, want %q", c.err, c.want)
			}
		}
		// What the role lacks is explained, and given, is enough.
		w.must(w.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("bare"), PolicyName: new("own"), PolicyDocument: new(channels)}))
		if err := ask(bare.TaskArn, nil); err != nil {
			t.Error(err)
		}
		w.must(w.ecs.StopTask(ctx, &ecs.StopTaskInput{Task: bare.TaskArn}))
		w.must(nil, ecs.NewTasksStoppedWaiter(w.ecs).Wait(ctx, &ecs.DescribeTasksInput{Tasks: []string{*bare.TaskArn}}, time.Hour))
		if err := ask(bare.TaskArn, nil); err == nil || !strings.Contains(err.Error(), off) {
			t.Errorf("in a task that has stopped it says %v", err)
		}
	})
}

// New tasks of a service have an agent when the service says so; others keep what
// they have.
func TestAServiceGivesItsTasksAgents(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.define("1")
		in := &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(1)), NetworkConfiguration: awsvpc("a"), EnableExecuteCommand: true}
		_, err := w.ecs.CreateService(ctx, in)
		if want := "InvalidParameterException: The service couldn't be created because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again."; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without a role it says %v", err)
		}
		_, err = w.ecs.RunTask(ctx, &ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a"), EnableExecuteCommand: true})
		if want := "InvalidParameterException: The execute command failed because a valid task role is not being used. Specify a valid task role in your task definition or as a task override and try again."; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without a role a task says %v", err)
		}
		in.EnableExecuteCommand = false
		w.must(w.ecs.CreateService(ctx, in))
		change := func(in *ecs.UpdateServiceInput) error {
			in.Service = new("s")
			out, err := w.ecs.UpdateService(ctx, in)
			if err == nil && len(out.Service.Deployments) != 1 {
				t.Errorf("it has %d deployments", len(out.Service.Deployments))
			}
			return err
		}
		if err := change(&ecs.UpdateServiceInput{EnableExecuteCommand: new(true)}); err == nil || !strings.Contains(err.Error(), "The service couldn't be updated because a valid taskRoleArn is not being used.") {
			t.Errorf("without a role an update says %v", err)
		}
		role := w.taskRole("shop", channels)
		w.must(w.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("128"), TaskRoleArn: &role, ContainerDefinitions: []types.ContainerDefinition{of("web", "1", nil)}}))
		in.ServiceName, in.TaskDefinition = new("s2"), new("web")
		w.must(w.ecs.CreateService(ctx, in))
		w.must(nil, ecs.NewServicesStableWaiter(w.ecs).Wait(ctx, &ecs.DescribeServicesInput{Services: []string{"s2"}}, time.Hour))
		agents := func() (enabled []bool) {
			list, err := w.ecs.ListTasks(ctx, &ecs.ListTasksInput{ServiceName: new("s2")})
			w.must(list, err)
			for _, arn := range list.TaskArns {
				enabled = append(enabled, w.task(&arn).EnableExecuteCommand)
			}
			return enabled
		}
		out, err := w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s2"), EnableExecuteCommand: new(true)})
		w.must(out, err)
		if !out.Service.EnableExecuteCommand || len(out.Service.Deployments) != 1 {
			t.Errorf("the service is %+v", out.Service)
		}
		if a := agents(); len(a) != 1 || a[0] {
			t.Errorf("a task that runs has %v", a)
		}
		w.must(w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s2"), ForceNewDeployment: true}))
		w.must(nil, ecs.NewServicesStableWaiter(w.ecs).Wait(ctx, &ecs.DescribeServicesInput{Services: []string{"s2"}}, time.Hour))
		if a := agents(); len(a) != 1 || !a[0] {
			t.Errorf("its new task has %v", a)
		}
	})
}

func TestWhatASessionShowsIsLoggedAsTheClusterSays(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx, l := t.Context(), logs.NewFromConfig(w.config)
		for _, group := range []string{"own", "audit"} {
			w.must(l.CreateLogGroup(ctx, &logs.CreateLogGroupInput{LogGroupName: &group}))
		}
		config := func(logging types.ExecuteCommandLogging, group string) *types.ClusterConfiguration {
			c := &types.ExecuteCommandConfiguration{Logging: logging}
			if group != "" {
				c.LogConfiguration = &types.ExecuteCommandLogConfiguration{CloudWatchLogGroupName: &group}
			}
			return &types.ClusterConfiguration{ExecuteCommandConfiguration: c}
		}
		task := w.runsWithExec(w.taskRole("shop", channels), of("web", "1", func(c *types.ContainerDefinition) {
			c.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{"awslogs-group": "own", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "w"}}
		}))
		logged := func(group string) (all string) {
			out := w.executes(task, "say one")
			w.begins(out.Session).ends()
			synctest.Wait()
			got, err := l.GetLogEvents(ctx, &logs.GetLogEventsInput{LogGroupName: &group, LogStreamName: out.Session.SessionId})
			if err != nil {
				return "-"
			}
			for _, e := range got.Events {
				all += *e.Message + "\n"
			}
			return all
		}
		for _, c := range []struct {
			config           *types.ClusterConfiguration
			own, audit, here string
		}{
			{nil, "say one\n", "-", ""},
			{config(types.ExecuteCommandLoggingNone, ""), "-", "-", "NONE"},
			{config(types.ExecuteCommandLoggingDefault, ""), "say one\n", "-", "DEFAULT"},
			{config(types.ExecuteCommandLoggingOverride, "audit"), "-", "say one\n", "OVERRIDE"},
			{config(types.ExecuteCommandLoggingOverride, "none"), "-", "-", "OVERRIDE"},
		} {
			if c.config != nil {
				w.must(w.ecs.UpdateCluster(ctx, &ecs.UpdateClusterInput{Cluster: new("default"), Configuration: c.config}))
			}
			if own, audit := logged("own"), logged("audit"); own != c.own || audit != c.audit {
				t.Errorf("%v: the groups have %q and %q", c.here, own, audit)
			}
			d, err := w.ecs.DescribeClusters(ctx, &ecs.DescribeClustersInput{Include: []types.ClusterField{types.ClusterFieldConfigurations}})
			w.must(d, err)
			if got := d.Clusters[0].Configuration; c.here == "" && got != nil || c.here != "" && string(got.ExecuteCommandConfiguration.Logging) != c.here {
				t.Errorf("the cluster says %+v, want %s", got, c.here)
			}
		}
		for want, c := range map[string]*types.ClusterConfiguration{
			"You must set logging to 'OVERRIDE' when you supply a log configuration.": config(types.ExecuteCommandLoggingDefault, "audit"),
			"You must supply a log configuration":                                     config(types.ExecuteCommandLoggingOverride, ""),
			"does not perform configuration.executeCommandConfiguration.kmsKeyId":     {ExecuteCommandConfiguration: &types.ExecuteCommandConfiguration{KmsKeyId: new("k")}},
			"does not perform configuration.executeCommandConfiguration.logConfiguration.s3BucketName": {ExecuteCommandConfiguration: &types.ExecuteCommandConfiguration{
				Logging: types.ExecuteCommandLoggingOverride, LogConfiguration: &types.ExecuteCommandLogConfiguration{CloudWatchLogGroupName: new("audit"), S3BucketName: new("b")}}},
		} {
			if _, err := w.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("other"), Configuration: c}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("it says %v, want %q", err, want)
			}
		}
	})
}

// Who may execute what: on the cluster and on the task, and by a container's name.
func TestACommandIsAllowedByClusterTaskAndContainer(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		task := w.runsWithExec(w.taskRole("shop", channels), of("web", "1", nil), of("side", "1", helper(nil)))
		w.must(w.iam.CreateUser(ctx, &iam.CreateUserInput{UserName: new("dev")}))
		key, err := w.iam.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: new("dev")})
		w.must(key, err)
		dev := w.config.Copy()
		dev.Credentials = credentials.NewStaticCredentialsProvider(*key.AccessKey.AccessKeyId, *key.AccessKey.SecretAccessKey, "")
		e := ecs.NewFromConfig(dev)
		for _, c := range []struct {
			resource, condition string
			denied              string // on what
		}{
			{`"*"`, ``, ""},
			{`["` + *task.ClusterArn + `","` + *task.TaskArn + `"]`, ``, ""},
			{`"` + *task.TaskArn + `"`, ``, "cluster/default"},
			{`"` + *task.ClusterArn + `"`, ``, "task/default/"},
			{`"*"`, `"ecs:container-name":"web","ecs:cluster":"` + *task.ClusterArn + `","ecs:task":"` + *task.TaskArn + `"`, ""},
			{`"*"`, `"ecs:container-name":"side"`, "cluster/default"},
		} {
			condition := ""
			if c.condition != "" {
				condition = `,"Condition":{"StringEquals":{` + c.condition + `}}`
			}
			w.must(w.iam.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: new("dev"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:ExecuteCommand","Resource":` + c.resource + condition + `}]}`)}))
			_, err := e.ExecuteCommand(ctx, &ecs.ExecuteCommandInput{Task: task.TaskArn, Container: new("web"), Command: new("sh"), Interactive: true})
			if c.denied == "" && err != nil || c.denied != "" && (err == nil || !strings.Contains(err.Error(), "is not authorized to perform: ecs:ExecuteCommand on resource: arn:aws:ecs:us-east-1:"+Account+":"+c.denied)) {
				t.Errorf("%s%s: %v, want a denial on %q", c.resource, condition, err, c.denied)
			}
		}
	})
}
