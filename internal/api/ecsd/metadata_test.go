package ecsd

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/run"
)

// homeless is a task that has no address yet.
type homeless struct{ run.Task }

func (homeless) Address() netip.Addr { return netip.Addr{} }

// What is known of a container comes from its runtime before its row has it, and a
// time only from the row, which has the stage's.
func TestAContainerIsToldItsPresentState(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	wall := time.Now()
	up, ended := run.ContainerState{Starts: 1, Started: wall}, run.ContainerState{Starts: 1, Started: wall, Finished: wall, ExitCode: 3}
	again := run.ContainerState{Starts: 3, Started: wall}
	for _, c := range []struct {
		name     string
		pulled   time.Time
		row      container
		live     *run.ContainerState
		known    string
		started  bool
		finished bool
		restarts int
	}{
		{"it is being pulled", time.Time{}, container{Status: pending}, nil, "NONE", false, false, 0},
		{"it waits for another", at, container{Status: pending}, &run.ContainerState{}, "PULLED", false, false, 0},
		{"it runs, and its row has not heard", at, container{Status: pending}, &up, "RUNNING", false, false, 0},
		{"it runs", at, container{Status: running, Starts: 1, Began: at}, &up, "RUNNING", true, false, 0},
		{"it ended, and its row has not heard", at, container{Status: running, Starts: 1, Began: at}, &ended, "STOPPED", true, false, 0},
		{"it ended", at, container{Status: stopped, Starts: 1, Began: at, Ended: at, Exit: new(int32(3))}, &ended, "STOPPED", true, true, 0},
		{"it was started again, and its row has not heard", at, container{Status: stopped, Starts: 2, Began: at, Ended: at, Exit: new(int32(3))}, &again, "RUNNING", false, false, 2},
		{"an earlier stage ran it", at, container{Status: running, Starts: 2, Began: at}, nil, "RUNNING", true, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.row.Name = "web"
			q := Asker{row: task{ID: "1", Desired: running, Containers: []container{c.row}, Times: times{PullStopped: c.pulled}},
				definition: types.TaskDefinition{ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), RestartPolicy: &types.ContainerRestartPolicy{Enabled: new(true)}}}}}
			if c.live != nil {
				q.handle, q.state = homeless{}, run.State{Containers: []run.ContainerState{*c.live}}
			}
			m := q.Container(4)
			if m.KnownStatus != c.known || (m.StartedAt != nil) != c.started || (m.FinishedAt != nil) != c.finished || (m.ExitCode != nil) != c.finished || *m.RestartCount != c.restarts || (m.CreatedAt != nil) != (c.live != nil) || m.Networks != nil {
				t.Errorf("it is told %+v", m)
			}
			if task := q.Metadata(4); task.KnownStatus != c.known {
				t.Errorf("its task is %s", task.KnownStatus)
			}
			if q.Container(3).RestartCount != nil {
				t.Error("version 3 counts restarts")
			}
		})
	}
}

func TestATaskIsAsFarAsTheLastOfItsContainers(t *testing.T) {
	q := Asker{row: task{Times: times{PullStopped: time.Now()}, Containers: []container{{Status: stopped}, {Status: running}, {Status: pending}}}, definition: types.TaskDefinition{ContainerDefinitions: make([]types.ContainerDefinition, 3)}}
	for i, name := range []string{"a", "b", "c"} {
		q.row.Containers[i].Name, q.definition.ContainerDefinitions[i].Name = name, &name
	}
	if known := q.Metadata(4).KnownStatus; known != "PULLED" {
		t.Errorf("while one waits it is %s", known)
	}
	q.row.Containers[2].Status = running
	if known := q.Metadata(4).KnownStatus; known != "RUNNING" {
		t.Errorf("while one runs it is %s", known)
	}
}

// A directory that the stage has made up for a volume is nobody's to know.
func TestAContainerIsToldWhereItsVolumesAre(t *testing.T) {
	q := Asker{definition: types.TaskDefinition{
		Volumes: []types.Volume{{Name: new("own")}, {Name: new("host"), Host: &types.HostVolumeProperties{SourcePath: new("/srv")}}},
		ContainerDefinitions: []types.ContainerDefinition{
			{Name: new("a"), MountPoints: []types.MountPoint{{SourceVolume: new("own"), ContainerPath: new("/data")}, {SourceVolume: new("host"), ContainerPath: new("/www")}}},
			{Name: new("b"), VolumesFrom: []types.VolumeFrom{{SourceContainer: new("a")}}},
		}}}
	want := []VolumeMetadata{{Destination: "/data"}, {"/srv", "/www"}}
	for _, d := range q.definition.ContainerDefinitions {
		if got := q.volumes(d); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is told %+v", *d.Name, got)
		}
	}
}

// The key of a container is a secret; what else its task is found by is not.
func TestAContainerIsFoundByItsKeyAlone(t *testing.T) {
	row := task{Cluster: "c", Service: "web", Revision: "arn:revision", TaskDefinition: "arn:aws:ecs:eu-west-1:111111111111:task-definition/d:1", Last: running, Credentials: "c0ffee",
		Containers: []container{{Name: "a", ID: "ida", Metadata: "keya"}, {Name: "b", ID: "idb", Metadata: "keyb"}, {Name: "old", ID: "idc"}}}
	a, _ := tasksOf(t, map[string]task{"1": row}, map[string]types.TaskDefinition{"d:1": {ContainerDefinitions: []types.ContainerDefinition{{Name: new("a")}, {Name: new("b")}, {Name: new("old")}}}})
	if q, ok := a.Asker("keyb"); !ok || q.RuntimeID() != "1-b" {
		t.Errorf("the key of b finds %+v %t", q, ok)
	}
	for _, key := range []string{"", "1", "ida", "c0ffee", "arn:revision", "metadata keya", "keya\x00", "keya\x00" + here.Key("c/1")[:5]} {
		if q, ok := a.Asker(key); ok {
			t.Errorf("%q finds %+v", key, q)
		}
	}
}
