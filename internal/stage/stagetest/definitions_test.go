package stagetest

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A definition with everything that is performed is described as it was registered,
// with what AWS adds.
func TestADefinitionIsDescribedAsItWasRegistered(t *testing.T) {
	_, c := RunT(t, 1)
	e := ecs.NewFromConfig(c)
	role := new("arn:aws:iam::" + Account + ":role/execution")
	web := types.ContainerDefinition{
		Name: new("web"), Image: new("example.com/web:1"), Essential: new(true), Hostname: new("web"), Interactive: new(true), PseudoTerminal: new(false), ReadonlyRootFilesystem: new(true), StartTimeout: new(int32(60)), StopTimeout: new(int32(90)),
		DnsServers: []string{"10.0.0.2"}, DnsSearchDomains: []string{"local"}, ExtraHosts: []types.HostEntry{{Hostname: new("db"), IpAddress: new("10.0.0.9")}}, DockerSecurityOptions: []string{"no-new-privileges"},
		DependsOn: []types.ContainerDependency{{ContainerName: new("side"), Condition: types.ContainerConditionStart}}, RestartPolicy: &types.ContainerRestartPolicy{Enabled: new(true), IgnoredExitCodes: []int32{0}},
		MountPoints: []types.MountPoint{{SourceVolume: new("scratch"), ContainerPath: new("/scratch")}, {SourceVolume: new("kept"), ContainerPath: new("/kept"), ReadOnly: new(true)}}, VolumesFrom: []types.VolumeFrom{{SourceContainer: new("side")}},
		Ulimits: []types.Ulimit{{Name: types.UlimitNameMemlock, SoftLimit: -1, HardLimit: -1}}, Secrets: []types.Secret{{Name: new("KEY"), ValueFrom: new("/team/key")}}, SystemControls: []types.SystemControl{{Namespace: new("net.core.somaxconn"), Value: new("1024")}},
		LinuxParameters: &types.LinuxParameters{InitProcessEnabled: new(true), SharedMemorySize: new(int32(64)), Capabilities: &types.KernelCapabilities{Add: []string{"SYS_PTRACE"}, Drop: []string{"ALL"}},
			Tmpfs: []types.Tmpfs{{ContainerPath: new("/run"), Size: 8, MountOptions: []string{"noexec"}}}},
		ResourceRequirements: []types.ResourceRequirement{mps(1024, 30)}, Environment: []types.KeyValuePair{}, PortMappings: []types.PortMapping{}, Links: []string{}, DockerLabels: map[string]string{},
	}
	side := types.ContainerDefinition{Name: new("side"), Image: new("example.com/side:1"), LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverJsonFile, Options: map[string]string{"max-size": "1m"}, SecretOptions: []types.Secret{}}, ResourceRequirements: []types.ResourceRequirement{mps(2048, 0)}}
	volumes := []types.Volume{{Name: new("scratch")}, {Name: new("kept"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeShared, Autoprovision: new(true), Labels: map[string]string{"a": "b"}}}}
	in := &ecs.RegisterTaskDefinitionInput{Family: new("whole"), NetworkMode: types.NetworkModeBridge, Memory: new("512"), ExecutionRoleArn: role, IpcMode: types.IpcModeNone, Volumes: volumes,
		ContainerDefinitions: []types.ContainerDefinition{web, side}}
	registered, err := e.RegisterTaskDefinition(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.DescribeTaskDefinition(t.Context(), &ecs.DescribeTaskDefinitionInput{TaskDefinition: registered.TaskDefinition.TaskDefinitionArn})
	if err != nil {
		t.Fatal(err)
	}
	side.Essential, side.Environment, side.PortMappings = new(true), []types.KeyValuePair{}, []types.PortMapping{}
	side.MountPoints, side.VolumesFrom, side.SystemControls = []types.MountPoint{}, []types.VolumeFrom{}, []types.SystemControl{}
	volumes[0].Host = &types.HostVolumeProperties{}
	for what, d := range map[string]*types.TaskDefinition{"registered": registered.TaskDefinition, "described": out.TaskDefinition} {
		if got := d.ContainerDefinitions[0]; !reflect.DeepEqual(got, web) {
			t.Errorf("%s, the container is\n%+v\nwant\n%+v", what, plain(reflect.ValueOf(got)), plain(reflect.ValueOf(web)))
		}
		if got := d.ContainerDefinitions[1]; !reflect.DeepEqual(got, side) {
			t.Errorf("%s, its sidecar is\n%+v\nwant\n%+v", what, plain(reflect.ValueOf(got)), plain(reflect.ValueOf(side)))
		}
		if !reflect.DeepEqual(d.Volumes, volumes) || d.IpcMode != types.IpcModeNone {
			t.Errorf("%s, the volumes are %+v, the memory is %s", what, plain(reflect.ValueOf(d.Volumes)), d.IpcMode)
		}
	}

	in.ContainerDefinitions[0].Environment = []types.KeyValuePair{{Name: new("LONG"), Value: new(strings.Repeat("x", 64<<10))}}
	if _, err := e.RegisterTaskDefinition(t.Context(), in); err == nil || !strings.Contains(err.Error(), "Max allowed length is '65536' bytes.") {
		t.Errorf("a long one: %v", err)
	}
}

// A deleted revision is there while something uses it, and an hour; its number and
// its family's are not given again.
func TestADeletedDefinitionIsForgottenWhenNothingUsesIt(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		first, err := w.create("1", nil)
		w.must(nil, err)
		w.ends(first, types.ServiceDeploymentStatusSuccessful)
		status := func(name string) string {
			out, err := w.ecs.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &name})
			if err != nil {
				return err.Error()
			}
			return string(out.TaskDefinition.Status)
		}
		deleted := func(names ...string) *ecs.DeleteTaskDefinitionsOutput {
			out, err := w.ecs.DeleteTaskDefinitions(ctx, &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: names})
			w.must(nil, err)
			return out
		}
		unused := new("unused")
		w.must(w.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: unused, Memory: new("128"), ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("i")}}, Tags: []types.Tag{{Key: new("a"), Value: new("b")}}}))
		out := deleted("web", "web:7", "web:1")
		for i, want := range []string{"The specified task definition identifier is invalid.", "The specified task definition does not exist.", "The specified task definition is still in ACTIVE status."} {
			if len(out.Failures) != 3 || !strings.HasPrefix(*out.Failures[i].Reason, want) || !strings.HasPrefix(*out.Failures[i].Arn, "arn:aws:ecs:us-east-1:"+Account+":task-definition/web") {
				t.Fatalf("failures are %+v, want %q", plain(reflect.ValueOf(out.Failures)), want)
			}
		}
		for _, name := range []string{"web:1", "unused:1"} {
			w.must(w.ecs.DeregisterTaskDefinition(ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &name}))
		}
		out = deleted("web:1", "unused:1")
		if len(out.TaskDefinitions) != 2 || out.TaskDefinitions[0].Status != types.TaskDefinitionStatusDeleteInProgress || out.TaskDefinitions[0].DeleteRequestedAt == nil {
			t.Errorf("two revisions were deleted, and the answer is %+v", plain(reflect.ValueOf(out)))
		}
		if again := deleted("unused:1"); !again.TaskDefinitions[0].DeleteRequestedAt.Equal(*out.TaskDefinitions[1].DeleteRequestedAt) {
			t.Error("it was deleted twice")
		}
		if _, err := w.ecs.CreateService(ctx, w.serviceOfDefinition("t", "web:1")); err == nil || !strings.Contains(err.Error(), "TaskDefinition is inactive") {
			t.Errorf("a deleted revision can be used: %v", err)
		}

		time.Sleep(30 * time.Minute)
		if got := status("unused:1"); got != "DELETE_IN_PROGRESS" {
			t.Errorf("after half an hour it is %s", got)
		}
		time.Sleep(2 * time.Hour)
		if got := status("unused:1"); !strings.Contains(got, "Unable to describe task definition.") {
			t.Errorf("after hours it is %s", got)
		}
		if got := status("web:1"); got != "DELETE_IN_PROGRESS" {
			t.Errorf("what a service uses is %s", got)
		}
		families, err := w.ecs.ListTaskDefinitionFamilies(ctx, &ecs.ListTaskDefinitionFamiliesInput{})
		w.must(nil, err)
		if got := strings.Join(families.Families, " "); got != "web" {
			t.Errorf("the families are %s", got)
		}
		// A service that uses it can still be scaled.
		w.must(w.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(3))}))
		w.until("three tasks run", func() bool { return w.service().RunningCount == 3 })

		w.ends(w.update("2"), types.ServiceDeploymentStatusSuccessful)
		time.Sleep(3 * time.Hour)
		if got := status("web:1"); !strings.Contains(got, "Unable to describe task definition.") {
			t.Errorf("what no service uses any more is %s", got)
		}
		again, err := w.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: unused, Memory: new("128"), ContainerDefinitions: []types.ContainerDefinition{{Name: new("c"), Image: new("i")}}})
		w.must(nil, err)
		if again.TaskDefinition.Revision != 2 {
			t.Errorf("the next revision is %d", again.TaskDefinition.Revision)
		}
		if labels, err := w.ecs.ListTagsForResource(ctx, &ecs.ListTagsForResourceInput{ResourceArn: again.TaskDefinition.TaskDefinitionArn}); err != nil || len(labels.Tags) != 0 {
			t.Errorf("it has the tags %v, %v", labels, err)
		}
		for want, names := range map[string][]string{"must be greater than 0": {}, "cannot exceed 10": make([]string, 11)} {
			if _, err := w.ecs.DeleteTaskDefinitions(ctx, &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: names}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d revisions: %v", len(names), err)
			}
		}
	})
}

// serviceOfDefinition is a service of one task of a definition, to be made.
func (w *world) serviceOfDefinition(name, definition string) *ecs.CreateServiceInput {
	return &ecs.CreateServiceInput{ServiceName: &name, TaskDefinition: &definition, DesiredCount: new(int32(1)), NetworkConfiguration: awsvpc("a")}
}
