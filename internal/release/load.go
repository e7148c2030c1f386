// Package release deploys to Amazon ECS. It holds ordinary AWS SDK clients and
// nothing of the stage: pointed at a stage it rehearses, pointed at AWS it
// performs, with the same code.
package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// readOnly are the fields of a described task definition that registering it
// does not take.
var readOnly = []string{"taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt", "registeredBy", "deregisteredAt", "deleteRequestedAt"}

// Definition reads a task definition in AWS's own shape, as describe prints it:
// read-only fields, nulls and empty lists are dropped, and the answer of
// DescribeTaskDefinition may be given whole. image, if not empty, replaces that
// of the container, or of the only one.
func Definition(raw []byte, container, image string) (*ecs.RegisterTaskDefinitionInput, error) {
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("reading the task definition: %w", err)
	}
	if inner, ok := doc["taskDefinition"].(map[string]any); ok {
		doc = inner
	}
	for _, name := range readOnly {
		delete(doc, name)
	}
	prune(doc)
	shares, err := takeShares(doc)
	if err != nil {
		return nil, fmt.Errorf("reading the task definition: %w", err)
	}
	clean, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("reading the task definition: %w", err)
	}
	in := &ecs.RegisterTaskDefinitionInput{}
	d := json.NewDecoder(bytes.NewReader(clean))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return nil, fmt.Errorf("reading the task definition: %w", err)
	}
	for at, share := range shares {
		in.ContainerDefinitions[at.container].ResourceRequirements[at.requirement].SharingStrategy = share
	}
	if image == "" {
		return in, nil
	}
	i := slices.IndexFunc(in.ContainerDefinitions, func(c containerDefinition) bool { return c.Name != nil && *c.Name == container })
	if container == "" && len(in.ContainerDefinitions) == 1 {
		i = 0
	}
	if i < 0 {
		return nil, fmt.Errorf("the task definition has no container %q to give the image to", container)
	}
	in.ContainerDefinitions[i].Image = &image
	return in, nil
}

// place is a resource requirement of a container.
type place struct{ container, requirement int }

// takeShares takes out of a document how containers share a GPU: the SDK has it as
// a union, which JSON cannot be read into.
func takeShares(doc map[string]any) (map[place]types.SharingStrategy, error) {
	shares := map[place]types.SharingStrategy{}
	containers, _ := doc["containerDefinitions"].([]any)
	for c := range containers {
		container, _ := containers[c].(map[string]any)
		requirements, _ := container["resourceRequirements"].([]any)
		for r := range requirements {
			requirement, _ := requirements[r].(map[string]any)
			sharing, ok := requirement["sharingStrategy"]
			if !ok {
				continue
			}
			delete(requirement, "sharingStrategy")
			var union struct{ NvidiaMps *types.NvidiaMpsAllocation }
			raw, err := json.Marshal(sharing)
			if err == nil {
				d := json.NewDecoder(bytes.NewReader(raw))
				d.DisallowUnknownFields()
				err = d.Decode(&union)
			}
			if err == nil && union.NvidiaMps == nil {
				err = errors.New("nvidiaMps is missing")
			}
			if err != nil {
				return nil, fmt.Errorf("sharingStrategy of container %v: %w", container["name"], err)
			}
			shares[place{c, r}] = &types.SharingStrategyMemberNvidiaMps{Value: *union.NvidiaMps}
		}
	}
	return shares, nil
}

// prune drops nulls, empty strings and empty lists, as the official action does.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			p := prune(child)
			if p == nil {
				delete(v, key)
				continue
			}
			v[key] = p
		}
		return v
	case []any:
		out := v[:0]
		for _, child := range v {
			if p := prune(child); p != nil {
				out = append(out, p)
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case string:
		if v == "" {
			return nil
		}
	case nil:
		return nil
	}
	return v
}
