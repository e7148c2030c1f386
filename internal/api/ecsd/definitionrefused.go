package ecsd

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// notDone is what AWS takes and the stage does not perform, in plain words and
// with why. A switch that says no asks for nothing, and is kept.
func notDone(in *ecs.RegisterTaskDefinitionInput) error {
	switch {
	case in.PidMode == types.PidModeHost:
		return client("Serin does not perform the pidMode 'host': a task would see and end the processes of this machine.")
	case in.IpcMode == types.IpcModeHost:
		return client("Serin does not perform the ipcMode 'host': a task would share the memory of this machine's processes.")
	case aws.ToBool(in.EnableFaultInjection):
		return client("Serin does not perform enableFaultInjection: it has no endpoint for faults inside a task.")
	}
	for _, v := range in.Volumes {
		if aws.ToBool(v.ConfiguredAtLaunch) {
			return client("Serin does not perform configuredAtLaunch of volume '%s': it has no Amazon EBS.", *v.Name)
		}
		if d := v.DockerVolumeConfiguration; d != nil && aws.ToString(d.Driver) != "" && *d.Driver != "local" {
			return client("Serin performs the volume driver local; '%s' of volume '%s' is not performed.", *d.Driver, *v.Name)
		}
	}
	for _, c := range in.ContainerDefinitions {
		if err := notDoneOf(c); err != nil {
			return err
		}
	}
	return nil
}

func notDoneOf(c types.ContainerDefinition) error {
	switch {
	case aws.ToBool(c.Privileged):
		return client("Serin does not perform privileged, which container '%s' has: it would be root of this machine.", *c.Name)
	case aws.ToBool(c.DisableNetworking):
		return client("Serin does not perform disableNetworking, which container '%s' has.", *c.Name)
	}
	for _, o := range c.DockerSecurityOptions {
		if o != "no-new-privileges" && o != "no-new-privileges:true" {
			return client("Serin performs the security option no-new-privileges; '%s' of container '%s' is not performed.", o, *c.Name)
		}
	}
	for _, s := range c.SystemControls {
		if ofIPC(*s.Namespace) {
			return client("Serin performs system controls of the network; '%s' of container '%s' is not performed.", *s.Namespace, *c.Name)
		}
	}
	if err := resourcesNotDone(*c.Name, c.ResourceRequirements); err != nil {
		return err
	}
	return logsNotPerformed(*c.Name, c.LogConfiguration)
}

func resourcesNotDone(container string, list []types.ResourceRequirement) error {
	for _, r := range list {
		switch {
		case r.Type != types.ResourceTypeGpu:
			return client("Serin performs the resource requirement GPU; '%s' of container '%s' is not performed.", r.Type, container)
		case aws.ToString(r.Value) == "ALL":
			return client("Serin performs numbers of GPUs; 'ALL' of container '%s' is not performed.", container)
		}
	}
	return nil
}
