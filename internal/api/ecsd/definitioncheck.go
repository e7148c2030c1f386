package ecsd

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// What RegisterTaskDefinition refuses, in the words that were observed on AWS where
// a comment does not say otherwise. The first fault is told, and the order of a
// container's memory before Fargate's sizes is observed, too. What AWS takes and the
// stage does not is told last.

var (
	imageNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]*$`)
	privateECR = regexp.MustCompile(`^\d{12}\.dkr\.ecr\.`)
)

// checkDefinition refuses a definition of an account.
func checkDefinition(account string, in *ecs.RegisterTaskDefinitionInput) error {
	family := aws.ToString(in.Family)
	switch {
	case family == "":
		return client("Family should not be null or empty.")
	case !familyName.MatchString(family):
		return client("Family contains invalid characters.")
	case len(in.ContainerDefinitions) == 0:
		return client("Container list cannot be empty.")
	case len(in.ContainerDefinitions) > 10:
		return client("Too many containers.")
	}
	for _, size := range []struct {
		name string
		text *string
	}{{"cpu", normalSize(in.Cpu, 1024, "vcpu")}, {"memory", normalSize(in.Memory, 1024, "gb")}} {
		if n, err := strconv.Atoi(aws.ToString(size.text)); size.text != nil && (err != nil || n <= 0) {
			return wrongSize(size.name)
		}
	}
	names, essential := map[string]bool{}, false
	for _, c := range in.ContainerDefinitions {
		if err := checkContainer(in, c); err != nil {
			return err
		}
		if names[*c.Name] {
			return client("Container names must be unique within a task definition.")
		}
		names[*c.Name] = true
		essential = essential || c.Essential == nil || *c.Essential
	}
	if !essential {
		return client("Task definition doesn't have any essential container.")
	}
	for _, check := range []func(*ecs.RegisterTaskDefinitionInput) error{
		checkSums, checkPorts, checkRanges, checkVolumes, checkOrder, checkSharing, checkStorage, checkPlaces,
		func(in *ecs.RegisterTaskDefinitionInput) error { return checkSecrets(account, in) },
		checkKinds, notDone,
	} {
		if err := check(in); err != nil {
			return err
		}
	}
	return nil
}

func wrongSize(name string) error {
	return client("Invalid '%s' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.", name)
}

func checkStorage(in *ecs.RegisterTaskDefinitionInput) error {
	switch s := in.EphemeralStorage; {
	case s == nil:
	case s.SizeInGiB < 21:
		return client("EphemeralStorage size should be at least 21")
	case s.SizeInGiB > 200:
		return client("EphemeralStorage size should be at most 200")
	}
	return nil
}

// checkPlaces: the text of their number is guessed.
func checkPlaces(in *ecs.RegisterTaskDefinitionInput) error {
	if len(in.PlacementConstraints) > 10 {
		return client("A task definition can have at most 10 placement constraints.")
	}
	return checkDefined(in.PlacementConstraints)
}

func checkContainer(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	name, image := aws.ToString(c.Name), aws.ToString(c.Image)
	switch {
	case name == "":
		return client("Container.name should not be null or empty.")
	case !familyName.MatchString(name):
		return client("Container.name contains invalid characters.")
	case image == "":
		return client("Container.image should not be null or empty.")
	case !imageNames.MatchString(image):
		return client("Container.image contains invalid characters.")
	case in.Memory == nil && c.Memory == nil && c.MemoryReservation == nil:
		return client("Invalid setting for container '%s'. At least one of 'memory' or 'memoryReservation' must be specified.", name)
	case c.Memory != nil && *c.Memory < 6:
		return client("Invalid setting for container '%s'. 'memory' must be at least 6 MiB.", name)
	case c.Memory != nil && c.MemoryReservation != nil && *c.Memory < *c.MemoryReservation:
		return client("Invalid setting for container '%s'. 'memory' must be greater than or equal to 'memoryReservation'.", name)
	case c.MemoryReservation != nil && *c.MemoryReservation < 1: // documented, in words that are guessed
		return wrong(name, "'memoryReservation' must be at least 1 MiB.")
	case c.Cpu < 0: // guessed
		return wrong(name, "'cpu' must not be negative.")
	}
	if err := checkHealth(name, c.HealthCheck); err != nil {
		return err
	}
	if err := checkLogs(name, c.LogConfiguration); err != nil {
		return err
	}
	for _, check := range partChecks {
		if err := check(in, c); err != nil {
			return err
		}
	}
	return nil
}

// checkSums compares the containers with the task.
func checkSums(in *ecs.RegisterTaskDefinitionInput) error {
	cpu, memory := units(in.Cpu, "vcpu"), units(in.Memory, "gb")
	sum := int32(0)
	for _, c := range in.ContainerDefinitions {
		sum += c.Cpu
		if most := max(aws.ToInt32(c.Memory), aws.ToInt32(c.MemoryReservation)); in.Memory != nil && int(most) > memory {
			return client("The 'memory' setting for container '%s' is greater than for the task.", *c.Name)
		}
	}
	if in.Cpu != nil && int(sum) > cpu {
		return client("The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.")
	}
	return nil
}

// units is a size in ECS's whole units.
func units(size *string, unit string) int {
	n, _ := strconv.Atoi(aws.ToString(normalSize(size, 1024, unit)))
	return n
}

func checkPorts(in *ecs.RegisterTaskDefinitionInput) error {
	taken, named := map[string]bool{}, map[string]bool{}
	shared := in.NetworkMode == types.NetworkModeAwsvpc || in.NetworkMode == types.NetworkModeHost
	for _, c := range in.ContainerDefinitions {
		for _, p := range c.PortMappings {
			port, host := aws.ToInt32(p.ContainerPort), aws.ToInt32(p.HostPort)
			switch {
			case in.NetworkMode == types.NetworkModeNone: // guessed
				return client("When networkMode=none, port mappings are not supported, and container '%s' has one.", *c.Name)
			case p.ContainerPortRange != nil: // see checkRanges
			case port < 1 || port > 65535:
				return client("Invalid 'containerPort' setting for container '%s'.", *c.Name)
			case host < 0 || host > 65535:
				return client("Invalid 'hostPort' setting for container '%s'.", *c.Name)
			case shared && host != 0 && host != port:
				return client("When networkMode=%s, the host ports and container ports in port mappings must match.", in.NetworkMode)
			}
			if shared {
				host = port
			}
			key := fmt.Sprintf("%s host port '%d'", strings.ToUpper(string(cmp.Or(p.Protocol, types.TransportProtocolTcp))), host)
			if host != 0 && taken[key] {
				return client("%s is mapped multiple times in task.", key)
			}
			taken[key] = true
			if name := aws.ToString(p.Name); name != "" {
				if named[name] {
					return client("When networkMode=%s, port mapping name is already used", in.NetworkMode)
				}
				named[name] = true
			}
		}
	}
	return nil
}
