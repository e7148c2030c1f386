package stagetest

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"serin/internal/run"
	"serin/internal/stage"
)

// composed runs a test in a bubble whose containers it can end and make speak.
func composed(t *testing.T, c stage.Config, test func(*testing.T, *world, *run.Fake)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fake := run.NewFake()
		s, config, client := inBubble(t, c, fake)
		test(t, worldOf(t, s, config, client, time.Second, 30*24*time.Hour), fake)
	})
}

// of is a container of an image with a tag.
func of(name, tag string, change func(*types.ContainerDefinition)) types.ContainerDefinition {
	c := types.ContainerDefinition{Name: &name, Image: new("example.com/" + name + ":" + tag)}
	if change != nil {
		change(&c)
	}
	return c
}

// after has a container wait for others.
func after(on ...any) func(*types.ContainerDefinition) {
	return func(c *types.ContainerDefinition) {
		for i := 0; i < len(on); i += 2 {
			c.DependsOn = append(c.DependsOn, types.ContainerDependency{ContainerName: new(on[i].(string)), Condition: on[i+1].(types.ContainerCondition)})
		}
	}
}

func helper(change func(*types.ContainerDefinition)) func(*types.ContainerDefinition) {
	return func(c *types.ContainerDefinition) {
		c.Essential = new(false)
		if change != nil {
			change(c)
		}
	}
}

// runTask runs a task of containers and returns its ARN and its id.
func (w *world) runTask(containers ...types.ContainerDefinition) (arn *string, id string) {
	w.t.Helper()
	w.must(w.ecs.RegisterTaskDefinition(w.t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("512"), ContainerDefinitions: containers}))
	arn = w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
	return arn, (*arn)[strings.LastIndexByte(*arn, '/')+1:]
}

// statuses are a task's and its containers'.
func (w *world) statuses(arn *string) string {
	w.t.Helper()
	t := w.task(arn)
	list := []string{*t.LastStatus}
	for _, c := range t.Containers {
		list = append(list, *c.Name+" "+*c.LastStatus)
	}
	return strings.Join(list, ", ")
}

func (w *world) reaches(arn *string, want string) {
	w.t.Helper()
	last := ""
	began := time.Now()
	for time.Since(began) < 24*time.Hour {
		if last = w.statuses(arn); last == want {
			return
		}
		time.Sleep(time.Second)
	}
	w.t.Fatalf("it is %q, want %q: %+v", last, want, w.task(arn))
}

func TestContainersStartInTheirOrder(t *testing.T) {
	composed(t, stage.Config{}, func(t *testing.T, w *world, fake *run.Fake) {
		began := time.Now()
		arn, id := w.runTask(
			of("web", "1", after("migrate", types.ContainerConditionSuccess, "once", types.ContainerConditionComplete)),
			of("migrate", "1", helper(after("db", types.ContainerConditionHealthy))),
			of("once", "exits", helper(after("db", types.ContainerConditionStart))),
			of("db", "1", func(c *types.ContainerDefinition) {
				c.HealthCheck = &types.HealthCheck{Command: []string{"CMD", "ask"}, Interval: new(int32(20))}
			}),
		)
		w.reaches(arn, "ACTIVATING, web PENDING, migrate PENDING, once STOPPED, db RUNNING")
		w.reaches(arn, "ACTIVATING, web PENDING, migrate RUNNING, once STOPPED, db RUNNING")
		if took := time.Since(began); took < 20*time.Second || took > 25*time.Second {
			t.Errorf("it waited %v for a check after 20 s", took)
		}
		time.Sleep(time.Hour)
		w.reaches(arn, "ACTIVATING, web PENDING, migrate RUNNING, once STOPPED, db RUNNING")
		fake.Finish(id, "migrate", 0)
		w.reaches(arn, "RUNNING, web RUNNING, migrate STOPPED, once STOPPED, db RUNNING")
		task := w.task(arn)
		if *task.Containers[1].ExitCode != 0 || *task.Containers[2].ExitCode != 1 || task.Containers[0].ExitCode != nil {
			t.Errorf("exit codes of %+v", task.Containers)
		}
		// The last one first.
		w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: arn}))
		w.reaches(arn, "STOPPED, web STOPPED, migrate STOPPED, once STOPPED, db STOPPED")
	})
}

func TestAContainerStopsBeforeWhatItDependsOn(t *testing.T) {
	composed(t, stage.Config{}, func(t *testing.T, w *world, fake *run.Fake) {
		arn, id := w.runTask(of("web", "stays", after("db", types.ContainerConditionStart)), of("db", "1", nil))
		w.reaches(arn, "RUNNING, web RUNNING, db RUNNING")
		w.must(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: arn}))
		w.reaches(arn, "STOPPING, web RUNNING, db RUNNING")
		time.Sleep(time.Hour)
		w.reaches(arn, "STOPPING, web RUNNING, db RUNNING")
		fake.Finish(id, "web", 0)
		w.reaches(arn, "STOPPED, web STOPPED, db STOPPED")
		task := w.task(arn)
		if task.StopCode != types.TaskStopCodeUserInitiated || *task.Containers[0].ExitCode != 0 || *task.Containers[1].ExitCode != 143 {
			t.Errorf("it ended as %+v", task)
		}
	})
}

func TestATaskWhoseDependenciesFailDoesNotStart(t *testing.T) {
	sick := func(c *types.ContainerDefinition) {
		c.StartTimeout, c.HealthCheck = new(int32(90)), &types.HealthCheck{Command: []string{"CMD", "ask"}, Interval: new(int32(20))}
	}
	for name, c := range map[string]struct {
		on     types.ContainerDefinition
		as     types.ContainerCondition
		why    string
		within time.Duration
	}{
		"it does not end well": {of("dep", "exits", helper(nil)), types.ContainerConditionSuccess, "dependency graph: failed to resolve container ordering dependency [dep] for target [web] as dependency did not exit successfully.", 5 * time.Second},
		"it is not healthy":    {of("dep", "sick", sick), types.ContainerConditionHealthy, "dependency graph: container ordering dependency [dep] for target [web] has timed out.", 95 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			composed(t, stage.Config{}, func(t *testing.T, w *world, _ *run.Fake) {
				began := time.Now()
				arn, _ := w.runTask(of("web", "1", after("dep", c.as)), c.on)
				w.reaches(arn, "STOPPED, web STOPPED, dep STOPPED")
				task := w.task(arn)
				if task.StopCode != types.TaskStopCodeTaskFailedToStart || *task.StoppedReason != "Task failed to start" || *task.Containers[0].Reason != c.why || task.Containers[0].ExitCode != nil || task.StartedAt != nil {
					t.Errorf("it ended as %s, %s: %+v", task.StopCode, *task.StoppedReason, task.Containers[0])
				}
				if took := time.Since(began); took > c.within || took < c.within-6*time.Second {
					t.Errorf("it took %v, want at most %v", took, c.within)
				}
			})
		})
	}
}

// A task of which an essential container ends while another still waits has never
// run: the circuit breaker counts it.
func TestATaskThatNeverRanIsCounted(t *testing.T) {
	composed(t, stage.Config{}, func(t *testing.T, w *world, _ *run.Fake) {
		out, err := w.ecs.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("512"), ContainerDefinitions: []types.ContainerDefinition{
			of("web", "1", after("db", types.ContainerConditionHealthy)),
			of("db", "exits", func(c *types.ContainerDefinition) {
				c.HealthCheck = &types.HealthCheck{Command: []string{"CMD", "ask"}}
			}),
		}})
		w.must(out, err)
		w.ends(w.guardedService(*out.TaskDefinition.TaskDefinitionArn), types.ServiceDeploymentStatusRollbackFailed)
	})
}

func TestAContainerThatCannotStartEndsItsTask(t *testing.T) {
	composed(t, stage.Config{}, func(t *testing.T, w *world, _ *run.Fake) {
		arn, _ := w.runTask(of("web", "1", nil), of("side", "unstartable", helper(nil)))
		w.reaches(arn, "STOPPED, web STOPPED, side STOPPED")
		if task := w.task(arn); task.StopCode != types.TaskStopCodeTaskFailedToStart || *task.StoppedReason != "CannotStartContainerError: exec: not found" || *task.Containers[1].Reason != *task.StoppedReason {
			t.Errorf("it ended as %s, %s: %+v", task.StopCode, *task.StoppedReason, task.Containers[1])
		}
	})
}

// An essential container takes its task with it, another does not.
func TestOnlyEssentialContainersEndTheirTask(t *testing.T) {
	composed(t, stage.Config{}, func(t *testing.T, w *world, fake *run.Fake) {
		arn, id := w.runTask(of("web", "1", nil), of("side", "1", helper(nil)), of("proxy", "stays", nil))
		w.reaches(arn, "RUNNING, web RUNNING, side RUNNING, proxy RUNNING")
		fake.Finish(id, "side", 3)
		w.reaches(arn, "RUNNING, web RUNNING, side STOPPED, proxy RUNNING")
		if c := w.task(arn).Containers[1]; *c.ExitCode != 3 {
			t.Errorf("side ended with %d", *c.ExitCode)
		}
		fake.Finish(id, "web", 4)
		w.reaches(arn, "STOPPING, web STOPPED, side STOPPED, proxy RUNNING")
		task := w.task(arn)
		if *task.DesiredStatus != "STOPPED" || task.StopCode != types.TaskStopCodeEssentialContainerExited || *task.StoppedReason != "Essential container in task exited" || task.ExecutionStoppedAt == nil || task.StoppingAt == nil {
			t.Errorf("while it ends it is %+v", task)
		}
		fake.Finish(id, "proxy", 0)
		w.reaches(arn, "STOPPED, web STOPPED, side STOPPED, proxy STOPPED")
		if c := w.task(arn).Containers[0]; *c.ExitCode != 4 {
			t.Errorf("web ended with %d", *c.ExitCode)
		}
	})
}

// A container with a restart policy is started again in its task, once it has run for
// the policy's period.
func TestAContainerIsStartedAgain(t *testing.T) {
	composed(t, stage.Config{}, func(t *testing.T, w *world, fake *run.Fake) {
		arn, id := w.runTask(of("web", "1", func(c *types.ContainerDefinition) {
			c.RestartPolicy = &types.ContainerRestartPolicy{Enabled: new(true), IgnoredExitCodes: []int32{9}, RestartAttemptPeriod: new(int32(120))}
		}))
		w.reaches(arn, "RUNNING, web RUNNING")
		for range 2 {
			time.Sleep(3 * time.Minute)
			fake.Finish(id, "web", 1)
			time.Sleep(time.Second)
			if got := w.statuses(arn); got != "RUNNING, web RUNNING" {
				t.Errorf("after its end it is %s", got)
			}
		}
		time.Sleep(time.Minute) // too soon
		fake.Finish(id, "web", 1)
		w.reaches(arn, "STOPPED, web STOPPED")
		if task := w.task(arn); task.StopCode != types.TaskStopCodeEssentialContainerExited || *task.Containers[0].ExitCode != 1 {
			t.Errorf("it ended as %+v", task)
		}

		arn = w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		w.reaches(arn, "RUNNING, web RUNNING")
		time.Sleep(time.Hour)
		fake.Finish((*arn)[strings.LastIndexByte(*arn, '/')+1:], "web", 9) // ignored
		w.reaches(arn, "STOPPED, web STOPPED")
	})
}

// One that cannot be started again has ended as it did: that is no failure to start.
func TestAContainerThatCannotBeStartedAgainHasEnded(t *testing.T) {
	composed(t, stage.Config{}, func(t *testing.T, w *world, fake *run.Fake) {
		again := func(c *types.ContainerDefinition) {
			c.RestartPolicy = &types.ContainerRestartPolicy{Enabled: new(true), RestartAttemptPeriod: new(int32(60))}
		}
		arn, id := w.runTask(of("web", "once", again), of("side", "once", helper(again)))
		w.reaches(arn, "RUNNING, web RUNNING, side RUNNING")
		time.Sleep(2 * time.Minute)
		fake.Finish(id, "side", 3)
		time.Sleep(time.Minute)
		if got := w.statuses(arn); got != "RUNNING, web RUNNING, side STOPPED" || *w.task(arn).Containers[1].ExitCode != 3 {
			t.Errorf("when one that is not essential is not started again the task is %s", got)
		}
		fake.Finish(id, "web", 4)
		w.reaches(arn, "STOPPED, web STOPPED, side STOPPED")
		if task := w.task(arn); task.StopCode != types.TaskStopCodeEssentialContainerExited || *task.StoppedReason != "Essential container in task exited" || *task.Containers[0].ExitCode != 4 {
			t.Errorf("it ended with %s: %s", task.StopCode, *task.StoppedReason)
		}
	})
}

// Five minutes, where the policy does not say.
func TestAContainerIsStartedAgainAfterFiveMinutes(t *testing.T) {
	for ran, want := range map[time.Duration]string{4 * time.Minute: "STOPPED, web STOPPED", 6 * time.Minute: "RUNNING, web RUNNING"} {
		composed(t, stage.Config{}, func(t *testing.T, w *world, fake *run.Fake) {
			arn, id := w.runTask(of("web", "1", func(c *types.ContainerDefinition) {
				c.RestartPolicy = &types.ContainerRestartPolicy{Enabled: new(true)}
			}))
			w.reaches(arn, "RUNNING, web RUNNING")
			time.Sleep(ran)
			fake.Finish(id, "web", 1)
			time.Sleep(10 * time.Second)
			if got := w.statuses(arn); got != want {
				t.Errorf("one that ran for %v is %s, want %s", ran, got, want)
			}
		})
	}
}

// Lines that belong together are one event, by a pattern or a time at their start.
func TestEventsOfSeveralLines(t *testing.T) {
	for option, lines := range map[string][]string{
		"awslogs-multiline-pattern=^INFO":              {"INFO one", " more of it", "INFO two"},
		"awslogs-datetime-format=[%b %d, %Y %H:%M:%S]": {"[Nov 28, 2026 05:00:00] one", " more of it", "[Nov 28, 2026 05:00:01] two"},
	} {
		name, value, _ := strings.Cut(option, "=")
		t.Run(name, func(t *testing.T) {
			composed(t, stage.Config{}, func(t *testing.T, w *world, fake *run.Fake) {
				log := logs.NewFromConfig(w.config)
				w.must(log.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: new("g")}))
				arn, id := w.runTask(of("web", "1", func(c *types.ContainerDefinition) {
					c.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p", name: value}}
				}))
				w.reaches(arn, "RUNNING, web RUNNING")
				for _, l := range lines {
					fake.Say(id, "web", l)
				}
				read := func() (events []string) {
					out, err := log.GetLogEvents(t.Context(), &logs.GetLogEventsInput{LogGroupName: new("g"), LogStreamName: new("p/web/" + id), StartFromHead: new(true)})
					w.must(out, err)
					for _, e := range out.Events {
						events = append(events, *e.Message)
					}
					return events
				}
				time.Sleep(time.Second)
				want := []string{"serving", lines[0] + "\n" + lines[1]}
				if got := read(); strings.Join(got, "|") != strings.Join(want, "|") {
					t.Errorf("at once there is %q, want %q", got, want)
				}
				time.Sleep(10 * time.Second) // nothing more belongs to the last
				if got := read(); strings.Join(got, "|") != strings.Join(append(want, lines[2]), "|") {
					t.Errorf("in the end there is %q", got)
				}
			})
		})
	}
}

func TestSecretsAreReadAsTheExecutionRole(t *testing.T) {
	secrets := stage.Secrets{"prod/db": json.RawMessage(`{"password": "swordfish", "port": 5432}`), "/prod/token": json.RawMessage(`"t0ken"`)}
	composed(t, stage.Config{Secrets: secrets}, func(t *testing.T, w *world, fake *run.Fake) {
		role := "arn:aws:iam::" + Account + ":role/exec"
		w.must(w.iam.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: new("exec"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
		secret := "arn:aws:secretsmanager:us-east-1:" + Account + ":secret:prod/db-AbCdEf"
		run := func(from string) *string {
			w.must(w.ecs.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc, Memory: new("512"), ExecutionRoleArn: &role,
				ContainerDefinitions: []types.ContainerDefinition{of("web", "1", func(c *types.ContainerDefinition) {
					c.Secrets = []types.Secret{{Name: new("SECRET"), ValueFrom: &from}}
				})}}))
			return w.runs(&ecs.RunTaskInput{TaskDefinition: new("web"), NetworkConfiguration: awsvpc("a")})[0].TaskArn
		}
		denied := run(secret)
		w.reaches(denied, "STOPPED, web STOPPED")
		task := w.task(denied)
		want := "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm: service call has been retried 1 time(s): failed to fetch secret " + secret +
			" from secrets manager: AccessDeniedException: User: arn:aws:sts::" + Account + ":assumed-role/exec/" + (*denied)[strings.LastIndexByte(*denied, '/')+1:] + " is not authorized to perform: secretsmanager:GetSecretValue on resource: " + secret
		if task.StopCode != types.TaskStopCodeTaskFailedToStart || !strings.HasPrefix(*task.StoppedReason, want) {
			t.Errorf("without permission it says\n%s, want\n%s", *task.StoppedReason, want)
		}
		w.must(w.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("exec"), PolicyName: new("secrets"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["secretsmanager:GetSecretValue","ssm:GetParameters"],"Resource":"*"}]}`)}))
		for from, want := range map[string]string{
			secret: `{"password": "swordfish", "port": 5432}`, secret + ":password::": "swordfish", secret + ":port::": "5432",
			"/prod/token": "t0ken", "arn:aws:ssm:us-east-1:" + Account + ":parameter/prod/token": "t0ken",
		} {
			arn := run(from)
			w.reaches(arn, "RUNNING, web RUNNING")
			resp, err := w.client.Get("http://" + *w.task(arn).Containers[0].NetworkInterfaces[0].PrivateIpv4Address + ":8080/command")
			w.must(nil, err)
			raw, err := io.ReadAll(resp.Body)
			w.must(nil, errors.Join(err, resp.Body.Close()))
			said := string(raw)
			if !strings.Contains("\n"+said, "\nSECRET="+want+"\n") {
				t.Errorf("from %s it was told %q", from, said)
			}
		}
		for from, want := range map[string]string{
			"arn:aws:secretsmanager:us-east-1:" + Account + ":secret:none-AbCdEf": "ResourceNotFoundException: Secrets Manager can't find the specified secret.",
			secret + ":user::": "did not contain json key user",
			"/prod/none":       "invalid ssm parameters: /prod/none",
		} {
			arn := run(from)
			w.reaches(arn, "STOPPED, web STOPPED")
			if said := *w.task(arn).StoppedReason; !strings.Contains(said, want) {
				t.Errorf("%s gave %s", from, said)
			}
		}
	})
}
