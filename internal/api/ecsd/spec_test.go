package ecsd

import (
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/run"
)

// Every member of a definition that the runtime performs gets there.
func TestADefinitionIsGivenToTheRuntime(t *testing.T) {
	d := types.TaskDefinition{
		Cpu: new("512"), Memory: new("1024"), NetworkMode: types.NetworkModeAwsvpc,
		Volumes: []types.Volume{{Name: new("own")}, {Name: new("host"), Host: &types.HostVolumeProperties{SourcePath: new("/var/lib/x")}}, {Name: new("all"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeShared}},
			{Name: new("its"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeTask}}},
		ContainerDefinitions: []types.ContainerDefinition{
			{
				Name: new("web"), Cpu: 256, Memory: new(int32(512)), EntryPoint: []string{"/in"}, Command: []string{"up"}, User: new("joe"), WorkingDirectory: new("/w"), StopTimeout: new(int32(7)),
				Environment: []types.KeyValuePair{{Name: new("A"), Value: new("1")}}, MountPoints: []types.MountPoint{{SourceVolume: new("own"), ContainerPath: new("/own"), ReadOnly: new(true)}, {SourceVolume: new("all"), ContainerPath: new("/all")}},
				Ulimits: []types.Ulimit{{Name: types.UlimitNameNofile, SoftLimit: 1, HardLimit: 2}}, ReadonlyRootFilesystem: new(true), PseudoTerminal: new(true), Interactive: new(true),
				Hostname: new("h"), DnsServers: []string{"10.0.0.1"}, DnsSearchDomains: []string{"x.y"}, ExtraHosts: []types.HostEntry{{Hostname: new("db"), IpAddress: new("10.0.0.2")}},
				DockerSecurityOptions: []string{"no-new-privileges:true"}, RestartPolicy: &types.ContainerRestartPolicy{Enabled: new(true)},
				SystemControls:       []types.SystemControl{{Namespace: new("net.core.somaxconn"), Value: new("9")}},
				ResourceRequirements: []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: new("2")}},
				LinuxParameters: &types.LinuxParameters{InitProcessEnabled: new(true), SharedMemorySize: new(int32(3)), Tmpfs: []types.Tmpfs{{ContainerPath: new("/t"), Size: 4, MountOptions: []string{"ro"}}},
					Capabilities: &types.KernelCapabilities{Add: []string{"NET_ADMIN"}, Drop: []string{"ALL"}}},
			},
			{Name: new("side"), VolumesFrom: []types.VolumeFrom{{SourceContainer: new("web"), ReadOnly: new(true)}}},
		},
	}
	g := &agent{API: &API{deps: Deps{Inside: func(Keys) []string { return []string{"INSIDE=1"} }}}}
	own := task{ID: "t", Cluster: "c", Instance: "i", LaunchType: types.LaunchTypeFargate, Containers: []container{{Name: "web"}, {Name: "side"}}}
	scope := arn.Scope{Account: "111111111111", Region: "us-east-1"}
	key, host := scope.Key("c/t"), scope.Key("c/i")
	got := g.spec(key, own, d, []run.Image{{Ref: "w"}, {Ref: "s"}}, map[string][]string{"web": {"S=2"}})
	env := []string{"AWS_EXECUTION_ENV=AWS_ECS_FARGATE", "AWS_REGION=us-east-1", "INSIDE=1"}
	want := run.Spec{
		ID: "t", Labels: map[string]string{labelKey: key}, CPU: 512, Memory: 1024 << 20, Sysctls: map[string]string{"net.core.somaxconn": "9"},
		Volumes: []run.Volume{{Name: "own"}, {Name: "host", Shared: "host " + host + " /var/lib/x"}, {Name: "all", Shared: "docker " + host + " all"}, {Name: "its"}},
		Containers: []run.Container{
			{
				Name: "web", Image: "w", Entrypoint: []string{"/in"}, Command: []string{"up"}, Env: append(env[:3:3], "A=1", "S=2"), Workdir: "/w", User: "joe", Memory: 512 << 20, Shares: 256, StopTimeout: 7 * time.Second,
				Mounts: []run.Mount{{Volume: "own", Path: "/own", ReadOnly: true}, {Volume: "all", Path: "/all"}}, Tmpfs: []run.Tmpfs{{Path: "/t", Size: 4 << 20, Options: []string{"ro"}}}, SharedMemory: 3 << 20, ReadOnly: true,
				Ulimits: []run.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}, Add: []string{"NET_ADMIN"}, Drop: []string{"ALL"}, NoNewRights: true, Init: true, Terminal: true, Input: true, Again: true, Hostname: "h",
				Hosts: []string{"10.0.0.2 db"}, DNS: []string{"10.0.0.1"}, Search: []string{"x.y"}, GPUs: 2,
			},
			{Name: "side", Image: "s", Env: env, StopTimeout: 30 * time.Second, Mounts: []run.Mount{{Volume: "own", Path: "/own", ReadOnly: true}, {Volume: "all", Path: "/all", ReadOnly: true}}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it is given\n%+v\nwant\n%+v", got, want)
	}
	// Through a second container; a path is mounted once.
	d.ContainerDefinitions[1].MountPoints = []types.MountPoint{{SourceVolume: new("host"), ContainerPath: new("/all/")}}
	last := types.ContainerDefinition{VolumesFrom: []types.VolumeFrom{{SourceContainer: new("side")}, {SourceContainer: new("web")}}, MountPoints: []types.MountPoint{{SourceVolume: new("its"), ContainerPath: new("/own")}}}
	if got, want := mountsOf(d, last), []run.Mount{{Volume: "all", Path: "/all"}, {Volume: "its", Path: "/own"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("it mounts %v, want %v", got, want)
	}
	last.VolumesFrom = last.VolumesFrom[:1]
	if got, want := mountsOf(d, last), []run.Mount{{Volume: "host", Path: "/all/"}, {Volume: "its", Path: "/own"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("it mounts %v, want %v", got, want)
	}
	// Behind its instance.
	d.PidMode, d.IpcMode = types.PidModeTask, types.IpcModeTask
	d.NetworkMode, d.ContainerDefinitions[0].Links = "", []string{"side:beside"} // bridge
	own.Ports = []hostPort{{Container: "web", Inside: 80, Host: 32768}, {Container: "side", Inside: 53, Host: 53, UDP: true}}
	behind := g.spec(key, own, d, []run.Image{{Ref: "w"}, {Ref: "s"}}, nil)
	if c := behind.Containers; behind.Network != run.BridgeNetwork || behind.Host != host || behind.Sysctls != nil || !reflect.DeepEqual(c[0].Ports, []run.Port{{Host: 32768, Inside: 80}}) || !reflect.DeepEqual(c[1].Ports, []run.Port{{Host: 53, Inside: 53, UDP: true}}) ||
		!reflect.DeepEqual(c[0].Links, []run.Link{{To: "side", Alias: "beside"}}) || c[0].Sysctls["net.core.somaxconn"] != "9" {
		t.Errorf("behind its instance it is given %+v", behind)
	}
	for name, v := range map[string][2]reflect.Value{"Spec": {reflect.ValueOf(got), reflect.ValueOf(behind)}, "Container": {reflect.ValueOf(got.Containers[0]), reflect.ValueOf(behind.Containers[0])}} {
		for i := range v[0].NumField() {
			if v[0].Field(i).IsZero() && v[1].Field(i).IsZero() {
				t.Errorf("%s.%s is never set", name, v[0].Type().Field(i).Name)
			}
		}
	}
}

// Who shares a GPU is told how much of it is his, whatever he says himself; the machine
// is asked for one. What the others get is said of whole ones.
func TestASharesLimitsAreInTheEnvironment(t *testing.T) {
	g := &agent{API: &API{deps: Deps{Inside: func(Keys) []string { return nil }}}}
	for _, c := range []struct {
		name string
		ask  []types.ResourceRequirement
		env  []string
		gpus int
	}{
		{"nothing", nil, nil, 0},
		{"whole ones", []types.ResourceRequirement{gpu("2")}, nil, 2},
		{"a part", []types.ResourceRequirement{gpu("0.125")}, nil, 1},
		{"a share", []types.ResourceRequirement{mps(1024, 0)}, []string{"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=1024M"}, 1},
		{"a share with a limit", []types.ResourceRequirement{mps(5, 40)}, []string{"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=5M", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=40"}, 1},
	} {
		own := types.KeyValuePair{Name: new("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"), Value: new("100")}
		d := types.TaskDefinition{ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), ResourceRequirements: c.ask, Environment: []types.KeyValuePair{own}}}}
		got := g.spec(arn.Scope{Account: "111111111111", Region: "us-east-1"}.Key("c/t"), task{ID: "t", Cluster: "c", Containers: []container{{Name: "web"}}}, d, []run.Image{{Ref: "w"}}, nil).Containers[0]
		want := append([]string{"AWS_EXECUTION_ENV=AWS_ECS_EC2", "AWS_REGION=us-east-1", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=100"}, c.env...)
		if !reflect.DeepEqual(got.Env, want) || got.GPUs != c.gpus {
			t.Errorf("%s: %v and %d GPUs, want %v and %d", c.name, got.Env, got.GPUs, want, c.gpus)
		}
	}
}
