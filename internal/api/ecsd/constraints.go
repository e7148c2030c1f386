package ecsd

import (
	"regexp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/place"
)

// mostConstraints is of a task, its definition's included; documented.
const mostConstraints = 10

// managedAttributes are those that constraints can speak of on Managed Instances,
// documented.
var managedAttributes = []string{"ecs.subnet-id", "ecs.availability-zone", "ecs.instance-type", "ecs.cpu-architecture"}

var attributeNames = regexp.MustCompile(`attribute:([A-Za-z0-9_./\\-]+)`)

// checkConstraints refuses constraints that cannot be kept: only container instances
// can keep them.
func checkConstraints(list []types.PlacementConstraint, d types.TaskDefinition, on kind) error {
	if len(list)+len(d.PlacementConstraints) == 0 {
		return nil
	}
	if len(list)+len(d.PlacementConstraints) > mostConstraints {
		return invalid("A task can have at most %d placement constraints, its definition's included.", mostConstraints)
	}
	switch on {
	case onMachine:
		return invalid("Serin performs placement constraints on container instances: with a capacity provider strategy, or with launch type EC2 in a cluster that has instances of an Auto Scaling group; the launch types run on this machine.")
	case onFargate:
		return invalid("Placement constraints are not supported with FARGATE launch type.")
	}
	for _, c := range list {
		if c.Type == types.PlacementConstraintTypeDistinctInstance {
			if c.Expression != nil {
				return invalid("distinctInstance expression should not be specified.")
			}
			continue
		}
		if err := checkExpression(c.Expression, on); err != nil {
			return err
		}
	}
	return nil
}

// checkExpression refuses a memberOf expression that is none, or speaks of what
// Managed Instances do not have; the words are guessed.
func checkExpression(text *string, on kind) error {
	if len(aws.ToString(text)) > 2000 {
		return invalid("A placement constraint's expression can have at most 2000 characters.")
	}
	if _, err := place.ParseExpr(aws.ToString(text)); err != nil {
		return invalid("Invalid placement constraint: %v.", err)
	}
	for _, m := range attributeNames.FindAllStringSubmatch(*text, -1) {
		if on == onManaged && !slices.Contains(managedAttributes, m[1]) {
			return invalid("Invalid placement constraint: Managed Instances support the attributes ecs.subnet-id, ecs.availability-zone, ecs.instance-type and ecs.cpu-architecture, not '%s'.", m[1])
		}
	}
	return nil
}

// checkWhere refuses what cannot run, or cannot be placed so, on what is to run it.
func checkWhere(on kind, d types.TaskDefinition, constraints []types.PlacementConstraint, strategies []types.PlacementStrategy) error {
	if err := checkCapacity(on, d); err != nil {
		return err
	}
	if err := checkConstraints(constraints, d, on); err != nil {
		return err
	}
	return checkPlacement(strategies, on)
}

// place changes how a service's tasks are placed; an empty list removes what was,
// documented.
func (s *service) place(in *ecs.UpdateServiceInput) {
	if in.PlacementConstraints != nil {
		s.Constraints = in.PlacementConstraints
	}
	if in.PlacementStrategy != nil {
		s.Placement = in.PlacementStrategy
	}
}

// mostStrategies is of a task; documented.
const mostStrategies = 5

// checkPlacement refuses strategies that cannot be kept: instances of groups alone
// keep them. The words of Fargate are observed, the others guessed.
func checkPlacement(list []types.PlacementStrategy, on kind) error {
	switch {
	case len(list) == 0:
		return nil
	case on == onFargate:
		return invalid("Placement strategies are not supported with FARGATE launch type.")
	case on == onManaged:
		return invalid("Placement strategies are not supported with MANAGED_INSTANCES launch type.")
	case on == onMachine:
		return invalid("Serin performs placement strategies on container instances: with the capacity provider of an Auto Scaling group, or with launch type EC2 in a cluster that has instances of one; the launch types run on this machine.")
	case len(list) > mostStrategies:
		return invalid("A task can have at most %d placement strategies.", mostStrategies)
	}
	for _, p := range list {
		field := aws.ToString(p.Field)
		switch p.Type {
		case types.PlacementStrategyTypeRandom:
			if field != "" {
				return invalid("The placement strategy random does not have a field.")
			}
		case types.PlacementStrategyTypeBinpack:
			if field != "cpu" && field != "memory" {
				return invalid("The field of the placement strategy binpack must be cpu or memory, got '%s'.", field)
			}
		case types.PlacementStrategyTypeSpread:
			if field != "instanceId" && field != "host" && !spreadFields.MatchString(field) {
				return invalid("The field of the placement strategy spread must be instanceId, host or attribute:NAME, got '%s'.", field)
			}
		default:
			return invalid("A placement strategy must have a type.")
		}
	}
	return nil
}

var spreadFields = regexp.MustCompile(`^attribute:[A-Za-z0-9_./\\-]{1,128}$`)

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
