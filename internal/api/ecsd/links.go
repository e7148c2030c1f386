package ecsd

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Links of bridges: a container finds another by a name, and is started after it.
// What Docker once set in the environment for them is not set.

// linkOf reads NAME or NAME:ALIAS.
func linkOf(link string) (to, alias string) {
	to, alias, named := strings.Cut(link, ":")
	if !named {
		alias = to
	}
	return to, alias
}

// checkLinks: the text of a network of its own is observed, that of others guessed.
func checkLinks(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition) error {
	if mode := in.NetworkMode; len(c.Links) > 0 && mode != "" && mode != types.NetworkModeBridge {
		return client("Links are not supported when networkMode=%s.", mode)
	}
	for _, l := range c.Links {
		to, alias := linkOf(l)
		if !hostNames.MatchString(alias) || !slices.ContainsFunc(in.ContainerDefinitions, func(o types.ContainerDefinition) bool { return *o.Name == to && to != *c.Name }) {
			return wrong(*c.Name, "'links' has '%s', which must be another container's name, or that with an alias: NAME:ALIAS.", l)
		}
	}
	return nil
}

// waitsFor is the containers that a container is started after: by its dependencies,
// and those that it has links to.
func waitsFor(c types.ContainerDefinition) []types.ContainerDependency {
	list := slices.Clone(c.DependsOn)
	for _, l := range c.Links {
		to, _ := linkOf(l)
		if !slices.ContainsFunc(c.DependsOn, func(d types.ContainerDependency) bool { return aws.ToString(d.ContainerName) == to }) {
			list = append(list, types.ContainerDependency{ContainerName: &to, Condition: types.ContainerConditionStart})
		}
	}
	return list
}
