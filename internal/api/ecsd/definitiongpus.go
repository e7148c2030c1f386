package ecsd

import (
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// fractions are the parts of a GPU that the types g6f and gr6f have, documented.
var fractions = []string{"0.125", "0.25", "0.5"}

// checkGPUs asks for a number of GPUs or a share of one; the texts are guessed.
func checkGPUs(_ *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	for _, r := range c.ResourceRequirements {
		value, share := aws.ToString(r.Value), mpsOf(r)
		switch {
		case r.Type == "":
			return wrong(*c.Name, "'type' of a resource requirement must be specified.")
		case share != nil && r.Type != types.ResourceTypeGpu:
			return wrong(*c.Name, "'sharingStrategy' is of the resource type GPU, not of %s.", r.Type)
		case share != nil && r.Value != nil:
			return wrong(*c.Name, "A resource requirement has 'value' or 'sharingStrategy', not both.")
		case share == nil && r.Value == nil:
			return wrong(*c.Name, "'value' of the resource requirement %s must be specified.", r.Type)
		case share != nil && aws.ToInt32(share.Memory) < 1:
			return wrong(*c.Name, "'memory' of 'nvidiaMps' must be at least 1 MiB.")
		case share != nil && share.MaxComputePercent != nil && (*share.MaxComputePercent < 1 || *share.MaxComputePercent > 100):
			return wrong(*c.Name, "'maxComputePercent' of 'nvidiaMps' must be between 1 and 100.")
		case r.Type != types.ResourceTypeGpu || share != nil || value == "ALL" || slices.Contains(fractions, value):
			continue
		}
		if n, err := strconv.Atoi(value); err != nil || n < 1 || n > 16 {
			return client("Invalid 'resourceRequirements' setting for container '%s': the GPU value '%s' must be a whole number, or one of %s.", *c.Name, value, strings.Join(fractions, ", "))
		}
	}
	return nil
}

// checkSharing compares the containers.
func checkSharing(in *ecs.RegisterTaskDefinitionInput) error {
	return checkTogether(in.ContainerDefinitions)
}

// checkTogether says whether the containers of a task can have their GPUs together: all
// share one or none does, and with a fraction of one nobody has another, documented.
// That a container has one share is guessed.
func checkTogether(list []types.ContainerDefinition) error {
	kinds, parts, asking := map[bool]string{}, "", []string{}
	for _, c := range list {
		for _, r := range c.ResourceRequirements {
			if r.Type != types.ResourceTypeGpu {
				continue
			}
			shared := mpsOf(r) != nil
			if shared && kinds[shared] == *c.Name {
				return wrong(*c.Name, "A container can have one 'sharingStrategy'.")
			}
			kinds[shared], asking = *c.Name, append(asking, *c.Name)
			if slices.Contains(fractions, aws.ToString(r.Value)) {
				parts = *c.Name
			}
		}
	}
	switch {
	case len(kinds) == 2:
		return wrong(kinds[true], "All containers of a task must share GPUs or none, and '%s' asks for whole ones.", kinds[false])
	case parts != "" && len(asking) > 1:
		return wrong(parts, "A container with a fraction of a GPU must be the only one of its task with a GPU resource requirement; there are %s.", strings.Join(asking, ", "))
	}
	return nil
}

// checkOverriddenGPUs is what GPUs of overrides must be: as in a definition.
func checkOverriddenGPUs(d types.TaskDefinition, o types.TaskOverride) error {
	for _, c := range o.ContainerOverrides {
		if slices.ContainsFunc(c.ResourceRequirements, func(r types.ResourceRequirement) bool { return r.SharingStrategy != nil }) {
			return invalid("Serin does not perform sharingStrategy in an override, which container '%s' has; it can be in the task definition.", *c.Name)
		}
		if err := checkGPUs(nil, types.ContainerDefinition{Name: c.Name, ResourceRequirements: c.ResourceRequirements}); err != nil {
			return err
		}
		if err := resourcesNotDone(*c.Name, c.ResourceRequirements); err != nil {
			return err
		}
	}
	return checkTogether(overridden(d, &o).ContainerDefinitions)
}
