package ecsd

import (
	"slices"
	"strconv"

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
			return client("Invalid 'resourceRequirements' setting for container '%s': the GPU value '%s' must be a whole number.", *c.Name, value)
		}
	}
	return nil
}

// checkSharing compares the containers: all share a GPU or none does, and one has a
// fraction of one, documented.
func checkSharing(in *ecs.RegisterTaskDefinitionInput) error {
	kinds, parts := map[bool]string{}, ""
	for _, c := range in.ContainerDefinitions {
		for _, r := range c.ResourceRequirements {
			if r.Type != types.ResourceTypeGpu {
				continue
			}
			kinds[mpsOf(r) != nil] = *c.Name
			if !slices.Contains(fractions, aws.ToString(r.Value)) {
				continue
			}
			if parts != "" {
				return wrong(*c.Name, "One container of a task can have a fraction of a GPU, and '%s' has one.", parts)
			}
			parts = *c.Name
		}
	}
	if len(kinds) == 2 {
		return wrong(kinds[true], "All containers of a task must share GPUs or none, and '%s' asks for whole ones.", kinds[false])
	}
	return nil
}
