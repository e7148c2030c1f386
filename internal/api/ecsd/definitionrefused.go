package ecsd

import (
	"slices"

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
	for _, r := range c.ResourceRequirements {
		value := aws.ToString(r.Value)
		switch {
		case r.Type != types.ResourceTypeGpu:
			return client("Serin performs the resource requirement GPU; '%s' of container '%s' is not performed.", r.Type, *c.Name)
		case mpsOf(r) != nil:
			return client("Serin does not place tasks by shares of GPUs yet; 'sharingStrategy' of container '%s' is not performed.", *c.Name)
		case value == "ALL":
			return client("Serin performs whole numbers of GPUs; 'ALL' of container '%s' is not performed.", *c.Name)
		case slices.Contains(fractions, value):
			return client("Serin's catalogue has no instance type with fractions of a GPU; '%s' of container '%s' is not performed.", value, *c.Name)
		}
	}
	return logsNotPerformed(*c.Name, c.LogConfiguration)
}
