package ecsd

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/wire"
)

// The condition keys of ECS, filled from the request; documented in the service
// authorization reference.

// definitionKeys is what a task definition fills.
func definitionKeys(in *ecs.RegisterTaskDefinitionInput) map[string][]string {
	keys := map[string][]string{}
	for _, c := range in.RequiresCompatibilities {
		keys["ecs:compute-compatibility"] = append(keys["ecs:compute-compatibility"], string(c))
	}
	privileged := false
	for _, c := range in.ContainerDefinitions {
		privileged = privileged || aws.ToBool(c.Privileged)
	}
	keys["ecs:privileged"] = []string{fmt.Sprint(privileged)}
	if size := normalSize(in.Cpu, 1024, "vcpu"); size != nil {
		keys["ecs:task-cpu"] = []string{*size}
	}
	if size := normalSize(in.Memory, 1024, "gb"); size != nil {
		keys["ecs:task-memory"] = []string{*size}
	}
	return keys
}

// serviceKeys is what creating and updating a service fill.
type serviceKeys struct {
	definition                      *string
	capacity                        []types.CapacityProviderStrategyItem
	network                         *types.NetworkConfiguration
	managedTags, exec               *bool
	propagate                       types.PropagateTags
	serviceConnect, lattice, volume bool
}

func (k serviceKeys) fill(c *wire.Call, keys map[string][]string) {
	k.deployed(c, keys)
	if k.network != nil && k.network.AwsvpcConfiguration != nil {
		keys["ecs:subnet"] = k.network.AwsvpcConfiguration.Subnets
		keys["ecs:auto-assign-public-ip"] = []string{fmt.Sprint(k.network.AwsvpcConfiguration.AssignPublicIp == types.AssignPublicIpEnabled)}
	}
	for key, value := range map[string]*bool{
		"ecs:enable-ecs-managed-tags": k.managedTags, "ecs:enable-execute-command": k.exec, "ecs:enable-service-connect": &k.serviceConnect,
		"ecs:enable-vpc-lattice": &k.lattice, "ecs:enable-ebs-volumes": &k.volume,
	} {
		if value != nil {
			keys[key] = []string{fmt.Sprint(*value)}
		}
	}
	if k.propagate != "" {
		keys["ecs:propagate-tags"] = []string{string(k.propagate)}
	}
}

// deployed is the part of them that creating a task set fills too.
func (k serviceKeys) deployed(c *wire.Call, keys map[string][]string) {
	if k.definition != nil {
		keys["ecs:task-definition"] = []string{definitionResource(c, *k.definition)}
	}
	for _, item := range k.capacity {
		name := aws.ToString(item.CapacityProvider)
		if !arn.Is(name) {
			name = c.ARN("capacity-provider/" + name)
		}
		keys["ecs:capacity-provider"] = append(keys["ecs:capacity-provider"], name)
	}
}

// ofService is a check on a deployment or revision, whose ARN names its service.
func ofService(action, resource string) wire.Check {
	check := wire.Check{Action: "ecs:" + action, Resource: resource}
	for _, kind := range []string{"service-deployment", "service-revision"} {
		key, ok := rowKey(resource, kind)
		if !ok {
			continue
		}
		scope, path := arn.ParseKey(key)
		cluster, rest, _ := strings.Cut(path, "/")
		service, _, _ := strings.Cut(rest, "/")
		check.Context = map[string][]string{"ecs:cluster": {clusterARN(scope, cluster)}, "ecs:service": {serviceARN(scope, cluster, service)}}
	}
	return check
}

// setOwner is the service that the task sets of a request are of.
type setOwner struct{ service, cluster *string }

// check is a check on a task set; an ARN names its service itself.
func (o setOwner) check(c *wire.Call, action, set string) wire.Check {
	service := serviceResource(c, aws.ToString(o.service), o.cluster)
	key, _ := rowKey(service, "service")
	scope, path := arn.ParseKey(key)
	cluster, _, _ := strings.Cut(path, "/")
	check := wire.Check{Action: "ecs:" + action, Resource: set, Context: map[string][]string{"ecs:cluster": {clusterARN(scope, cluster)}, "ecs:service": {service}}}
	if !arn.Is(set) {
		check.Resource = scope.For("ecs", "task-set/"+path+"/"+set).String()
	}
	return check
}
