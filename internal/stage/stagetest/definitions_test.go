package stagetest

import (
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A definition with everything that is performed is described as it was registered,
// with what AWS adds.
func TestADefinitionIsDescribedAsItWasRegistered(t *testing.T) {
	_, c := RunT(t, 1)
	e := ecs.NewFromConfig(c)
	role := new("arn:aws:iam::" + Account + ":role/execution")
	share := func(memory int32) []types.ResourceRequirement {
		return []types.ResourceRequirement{{Type: types.ResourceTypeGpu, SharingStrategy: &types.SharingStrategyMemberNvidiaMps{Value: types.NvidiaMpsAllocation{Memory: &memory, MaxComputePercent: new(int32(50))}}}}
	}
	web := types.ContainerDefinition{
		Name: new("web"), Image: new("example.com/web:1"), Essential: new(true), Hostname: new("web"), Interactive: new(true), PseudoTerminal: new(false), ReadonlyRootFilesystem: new(true), StartTimeout: new(int32(60)), StopTimeout: new(int32(90)),
		DnsServers: []string{"10.0.0.2"}, DnsSearchDomains: []string{"local"}, ExtraHosts: []types.HostEntry{{Hostname: new("db"), IpAddress: new("10.0.0.9")}}, DockerSecurityOptions: []string{"no-new-privileges"},
		DependsOn: []types.ContainerDependency{{ContainerName: new("side"), Condition: types.ContainerConditionStart}}, RestartPolicy: &types.ContainerRestartPolicy{Enabled: new(true), IgnoredExitCodes: []int32{0}},
		MountPoints: []types.MountPoint{{SourceVolume: new("scratch"), ContainerPath: new("/scratch")}, {SourceVolume: new("kept"), ContainerPath: new("/kept"), ReadOnly: new(true)}}, VolumesFrom: []types.VolumeFrom{{SourceContainer: new("side")}},
		Ulimits: []types.Ulimit{{Name: types.UlimitNameMemlock, SoftLimit: -1, HardLimit: -1}}, Secrets: []types.Secret{{Name: new("KEY"), ValueFrom: new("/team/key")}}, SystemControls: []types.SystemControl{{Namespace: new("net.core.somaxconn"), Value: new("1024")}},
		LinuxParameters: &types.LinuxParameters{InitProcessEnabled: new(true), SharedMemorySize: new(int32(64)), Capabilities: &types.KernelCapabilities{Add: []string{"SYS_PTRACE"}, Drop: []string{"ALL"}},
			Tmpfs: []types.Tmpfs{{ContainerPath: new("/run"), Size: 8, MountOptions: []string{"noexec"}}}},
		ResourceRequirements: share(1024), Environment: []types.KeyValuePair{}, PortMappings: []types.PortMapping{}, Links: []string{}, DockerLabels: map[string]string{},
	}
	side := types.ContainerDefinition{Name: new("side"), Image: new("example.com/side:1"), LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverJsonFile, Options: map[string]string{"max-size": "1m"}, SecretOptions: []types.Secret{}}, ResourceRequirements: share(512)}
	volumes := []types.Volume{{Name: new("scratch")}, {Name: new("kept"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeShared, Autoprovision: new(true), Labels: map[string]string{"a": "b"}}}}
	in := &ecs.RegisterTaskDefinitionInput{Family: new("whole"), NetworkMode: types.NetworkModeBridge, Memory: new("512"), ExecutionRoleArn: role, PidMode: types.PidModeTask, IpcMode: types.IpcModeTask, Volumes: volumes,
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
		if !reflect.DeepEqual(d.Volumes, volumes) || d.PidMode != types.PidModeTask || d.IpcMode != types.IpcModeTask {
			t.Errorf("%s, the volumes are %+v, the processes are the %s's, their memory is the %s's", what, plain(reflect.ValueOf(d.Volumes)), d.PidMode, d.IpcMode)
		}
	}

	in.ContainerDefinitions[0].Environment = []types.KeyValuePair{{Name: new("LONG"), Value: new(strings.Repeat("x", 64<<10))}}
	if _, err := e.RegisterTaskDefinition(t.Context(), in); err == nil || !strings.Contains(err.Error(), "Max allowed length is '65536' bytes.") {
		t.Errorf("a long one: %v", err)
	}
}
