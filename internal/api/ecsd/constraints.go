package ecsd

import (
	"regexp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/place"
)

// mostConstraints is of a task, its definition's included; documented.
const mostConstraints = 10

// managedAttributes are those that constraints can speak of on Managed Instances,
// documented.
var managedAttributes = []string{"ecs.subnet-id", "ecs.availability-zone", "ecs.instance-type", "ecs.cpu-architecture"}

var attributeNames = regexp.MustCompile(`attribute:([A-Za-z0-9_./\\-]+)`)

// checkConstraints refuses constraints that cannot be kept. Only container
// instances can keep them, and the stage has those of capacity providers.
func checkConstraints(list []types.PlacementConstraint, d types.TaskDefinition, capacity []types.CapacityProviderStrategyItem) error {
	if len(list)+len(d.PlacementConstraints) == 0 {
		return nil
	}
	if len(list)+len(d.PlacementConstraints) > mostConstraints {
		return invalid("A task can have at most %d placement constraints, its definition's included.", mostConstraints)
	}
	switch {
	case len(capacity) == 0:
		return invalid("Serin performs placement constraints with a capacity provider strategy of Managed Instances; the launch types run on this machine.")
	case isFargate(aws.ToString(capacity[0].CapacityProvider)):
		return invalid("Placement constraints are not supported with FARGATE launch type.")
	}
	for _, c := range list {
		if c.Type == types.PlacementConstraintTypeDistinctInstance {
			if c.Expression != nil {
				return invalid("distinctInstance expression should not be specified.")
			}
			continue
		}
		if err := checkExpression(c.Expression); err != nil {
			return err
		}
	}
	return nil
}

// checkExpression refuses a memberOf expression that is none, or speaks of what
// Managed Instances do not have; the words are guessed.
func checkExpression(text *string) error {
	if len(aws.ToString(text)) > 2000 {
		return invalid("A placement constraint's expression can have at most 2000 characters.")
	}
	if _, err := place.ParseExpr(aws.ToString(text)); err != nil {
		return invalid("Invalid placement constraint: %v.", err)
	}
	for _, m := range attributeNames.FindAllStringSubmatch(*text, -1) {
		if !slices.Contains(managedAttributes, m[1]) {
			return invalid("Invalid placement constraint: Managed Instances support the attributes ecs.subnet-id, ecs.availability-zone, ecs.instance-type and ecs.cpu-architecture, not '%s'.", m[1])
		}
	}
	return nil
}

// checkDefined checks a definition's own constraints.
func checkDefined(list []types.TaskDefinitionPlacementConstraint) error {
	for _, c := range list {
		if c.Type != types.TaskDefinitionPlacementConstraintTypeMemberOf {
			return client("constraint.type '%s' is not supported.", c.Type)
		}
		if _, err := place.ParseExpr(aws.ToString(c.Expression)); err != nil {
			return client("Invalid placement constraint: %v.", err)
		}
	}
	return nil
}

// parsed is an expression that was checked when it was stored.
func parsed(text *string) place.Expr {
	e, err := place.ParseExpr(aws.ToString(text))
	if err != nil {
		panic("ecsd: a broken placement constraint was stored: " + err.Error())
	}
	return e
}
