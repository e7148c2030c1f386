package ecsd

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// definition is a task definition as it is kept. How containers share a GPU is one
// of the SDK's unions, which can be written as JSON but not read; a row's JSON has
// it beside the definition.
type definition struct{ types.TaskDefinition }

type definitionJSON struct {
	types.TaskDefinition
	Shares map[string]types.NvidiaMpsAllocation `json:",omitempty"` // by container and place in its list
}

func shareKey(container, requirement int) string { return fmt.Sprintf("%d.%d", container, requirement) }

func (d definition) MarshalJSON() ([]byte, error) {
	out := definitionJSON{TaskDefinition: d.TaskDefinition}
	out.ContainerDefinitions = slices.Clone(d.ContainerDefinitions)
	for c := range out.ContainerDefinitions {
		at := &out.ContainerDefinitions[c].ResourceRequirements
		*at = slices.Clone(*at)
		for r := range *at {
			share := mpsOf((*at)[r])
			if share == nil {
				continue
			}
			if out.Shares == nil {
				out.Shares = map[string]types.NvidiaMpsAllocation{}
			}
			out.Shares[shareKey(c, r)], (*at)[r].SharingStrategy = *share, nil
		}
	}
	return json.Marshal(out)
}

func (d *definition) UnmarshalJSON(raw []byte) error {
	var in definitionJSON
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	for c := range in.ContainerDefinitions {
		for r := range in.ContainerDefinitions[c].ResourceRequirements {
			if share, ok := in.Shares[shareKey(c, r)]; ok {
				in.ContainerDefinitions[c].ResourceRequirements[r].SharingStrategy = &types.SharingStrategyMemberNvidiaMps{Value: share}
			}
		}
	}
	d.TaskDefinition = in.TaskDefinition
	return nil
}

// mpsOf is the part of a GPU that is asked for, nil where whole ones are.
func mpsOf(r types.ResourceRequirement) *types.NvidiaMpsAllocation {
	if mps, ok := r.SharingStrategy.(*types.SharingStrategyMemberNvidiaMps); ok {
		return &mps.Value
	}
	return nil
}

// unions are the members of unions that are performed.
func unions() []any { return []any{&types.SharingStrategyMemberNvidiaMps{}} }
