package ecsd

import (
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
)

// impairment is a check of a container instance's health that fails.
type impairment struct {
	Type types.InstanceHealthCheckType
	At   time.Time
}

func (i instance) impaired(check types.InstanceHealthCheckType) bool {
	return slices.ContainsFunc(i.Impaired, func(p impairment) bool { return p.Type == check })
}

// checks is what is checked of an instance: of accelerators where it has some, of the
// agent's connection on Managed Instances; which is where, is guessed.
func (i instance) checks() []types.InstanceHealthCheckType {
	list := []types.InstanceHealthCheckType{types.InstanceHealthCheckTypeContainerRuntime}
	if len(i.GPUs) > 0 {
		list = append(list, types.InstanceHealthCheckTypeAcceleratedCompute)
	}
	return append(list, types.InstanceHealthCheckTypeAgentConnectivity)
}

// health is an instance's health in ECS's words: the worst of its checks, documented.
func (i instance) health() *types.ContainerInstanceHealthStatus {
	h := &types.ContainerInstanceHealthStatus{OverallStatus: types.InstanceHealthCheckStateOk}
	if i.Registered.IsZero() {
		h.OverallStatus = types.InstanceHealthCheckStateInitializing
	}
	for _, check := range i.checks() {
		r := types.InstanceHealthCheckResult{Type: check, Status: types.InstanceHealthCheckStateOk, LastUpdated: pointer(i.Registered), LastStatusChange: pointer(i.Registered)}
		if i.Registered.IsZero() {
			r.Status = types.InstanceHealthCheckStateInitializing
		}
		for _, p := range i.Impaired {
			if p.Type == check {
				r.Status, r.LastUpdated, r.LastStatusChange = types.InstanceHealthCheckStateImpaired, pointer(p.At), pointer(p.At)
				h.OverallStatus = types.InstanceHealthCheckStateImpaired
			}
		}
		h.Details = append(h.Details, r)
	}
	return h
}

// Impair has a check of an instance's health fail from now on. Empty: that of its
// container runtime.
func (a *API) Impair(scope arn.Scope, ec2, check string) error {
	if check == "" {
		check = string(types.InstanceHealthCheckTypeContainerRuntime)
	}
	return a.changeInstance(scope, ec2, func(i *instance) error {
		if !slices.Contains(i.checks(), types.InstanceHealthCheckType(check)) {
			return fmt.Errorf("the health of %s has the checks %v, not %q", ec2, i.checks(), check)
		}
		if !i.registered() {
			return fmt.Errorf("the instance %s is %s", ec2, i.Status)
		}
		if !i.impaired(types.InstanceHealthCheckType(check)) {
			i.Impaired = append(slices.Clone(i.Impaired), impairment{types.InstanceHealthCheckType(check), a.clock.Now()})
		}
		return nil
	})
}

// repair drains an impaired instance of a provider that repairs; it ends when its
// tasks have been replaced. That a provider which does not say repairs is guessed.
func (k *keeping) repair(i instance) instance {
	if len(i.Impaired) == 0 || i.Status != types.ContainerInstanceStatusActive {
		return i
	}
	c := k.providers[i.Provider].Managed.AutoRepairConfiguration
	if c != nil && c.ActionsStatus == types.AutoRepairActionsStatusDisabled {
		return i
	}
	return k.drain(i, "Auto repair: "+string(i.Impaired[0].Type)+" is IMPAIRED")
}
