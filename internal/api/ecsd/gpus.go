package ecsd

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/catalogue"
	"serin/internal/place"
)

// GPUs of container instances and of tasks. A container has whole ones, or the part of
// one that its instance has, or shares one by NVIDIA's Multi-Process Service (MPS) with
// others. ECS places by memory; the part of its processors is a limit, documented.

// gpusWanted is what a container takes of GPUs: thousandths of them, or MiB of one that
// it shares.
func gpusWanted(c types.ContainerDefinition) (thousandths, shared int) {
	for _, r := range c.ResourceRequirements {
		if share := mpsOf(r); share != nil {
			shared += int(aws.ToInt32(share.Memory))
			continue
		}
		n, _ := strconv.ParseFloat(aws.ToString(r.Value), 64)
		thousandths += int(n * place.Whole)
	}
	return thousandths, shared
}

// gpusOf is how many GPUs a container sees: whole ones, or the one that it has a part or
// a share of.
func gpusOf(c types.ContainerDefinition) int {
	thousandths, shared := gpusWanted(c)
	if shared > 0 {
		return 1
	}
	return (thousandths + place.Whole - 1) / place.Whole
}

// gpuIDs is the GPUs of each of a task's containers, by name. Those that share have the
// same one, documented.
func (t task) gpuIDs(d types.TaskDefinition) map[string][]string {
	ids, left := map[string][]string{}, t.GPUs
	for _, c := range d.ContainerDefinitions {
		own := min(gpusOf(c), len(left))
		ids[*c.Name] = left[:own:own]
		if _, shared := gpusWanted(c); shared == 0 {
			left = left[own:]
		}
	}
	return ids
}

// mpsEnv is what ECS tells a container that shares a GPU, which is the only one that it
// sees. The names are documented; the value of the first is as NVIDIA reads it.
func mpsEnv(c types.ContainerDefinition) (env []string) {
	for _, r := range c.ResourceRequirements {
		share := mpsOf(r)
		if share == nil {
			continue
		}
		env = append(env, fmt.Sprintf("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=%dM", *share.Memory))
		if share.MaxComputePercent != nil {
			env = append(env, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="+itoa(*share.MaxComputePercent))
		}
	}
	return env
}

// room is what an instance of a type offers to tasks. That every whole GPU can be
// shared is guessed; that no part of one can be is documented.
func room(t catalogue.Type) place.Room {
	r := place.Room{CPU: t.VCPU * 1024, Memory: int(t.Registered()), GPUs: t.GPUs * int(t.GPUPart), Interfaces: t.TaskInterfaces()}
	if t.GPUPart == catalogue.Whole {
		r.Shared = t.GPUs * int(t.GPUMemory)
	}
	return r
}

// seated puts a task, that is on an instance, on the instance as placement sees it.
func (i instance) seated(space *place.Instance, t task, n *place.Need) {
	var on []int
	for _, id := range t.GPUs {
		if at := slices.Index(i.GPUs, id); at >= 0 {
			on = append(on, at)
		}
	}
	space.PutOn(n, on)
}

// gpusFor is which of an instance's GPUs another task gets, beside those that are on it.
func (k *keeping) gpusFor(n *place.Need, i instance, on []task) (ids []string) {
	if n.GPUs == 0 && n.Shared == 0 {
		return nil
	}
	space := k.spaceOf(i, on)
	for _, at := range space.Choose(n) {
		ids = append(ids, i.GPUs[at])
	}
	return ids
}

// gpuUse is what an instance's containers have of one of its GPUs.
type gpuUse struct {
	containers int32
	shared     int32 // MiB; 0: one has it for itself
}

func (u gpuUse) mode() types.GpuSharingMode {
	switch {
	case u.containers == 0:
		return types.GpuSharingModeIdle
	case u.shared > 0:
		return types.GpuSharingModeNvidiaMps
	}
	return types.GpuSharingModeDedicated
}

// useGPUs counts a task's containers on their GPUs.
func (t task) useGPUs(use map[string]gpuUse, d types.TaskDefinition) {
	ids := t.gpuIDs(d)
	for _, c := range d.ContainerDefinitions {
		_, shared := gpusWanted(c)
		for _, id := range ids[*c.Name] {
			u := use[id]
			use[id] = gpuUse{u.containers + 1, u.shared + int32(shared)}
		}
	}
}

// gpuDevices is an instance's GPUs as they are told. Of one that a container has for
// itself no memory is left to share.
func (i instance) gpuDevices(use map[string]gpuUse) (list []types.GpuDevice) {
	t, _ := catalogue.Find(i.Type)
	all := int32(t.GPUMemory)
	for _, id := range i.GPUs {
		u := use[id]
		left := all - u.shared
		if u.mode() == types.GpuSharingModeDedicated {
			left = 0
		}
		list = append(list, types.GpuDevice{GpuId: &id, SharingMode: u.mode(), ContainerCount: &u.containers, TotalMemoryInMiB: &all, RemainingMemoryInMiB: &left})
	}
	return list
}
