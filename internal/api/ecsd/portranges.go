package ecsd

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/run"
)

// Ranges of ports: a container's ports that follow each other, behind as many of the
// host where that is a bridge; documented:
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html

// portRange is from a port to another, both included.
type portRange struct{ first, last int32 }

func (r portRange) String() string { return fmt.Sprintf("%d-%d", r.first, r.last) }

// parseRange reads FIRST-LAST, of which the first must be less.
func parseRange(s string) (r portRange, ok bool) {
	from, to, _ := strings.Cut(s, "-")
	first, err := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	return portRange{int32(first), int32(last)}, err == nil && err2 == nil && first > 0 && first < last
}

// insideOf is the ports of its container that a mapping of a registered definition
// names.
func insideOf(p types.PortMapping) portRange {
	if p.ContainerPortRange == nil {
		return portRange{aws.ToInt32(p.ContainerPort), aws.ToInt32(p.ContainerPort)}
	}
	r, _ := parseRange(*p.ContainerPortRange)
	return r
}

// mostRanges is of a container; documented.
const mostRanges = 100

// checkRanges refuses ranges in words that are observed, but for those of a host's
// network and of their number:
// https://github.com/badmintoncryer/cdk-preflight/tree/main/rules/ecs
func checkRanges(in *ecs.RegisterTaskDefinitionInput) error {
	used := map[string][]portRange{}
	for _, c := range in.ContainerDefinitions {
		count := 0
		for _, p := range c.PortMappings {
			own := insideOf(p)
			if p.ContainerPortRange != nil {
				count++
				if err := checkRange(in, c, p); err != nil {
					return err
				}
			}
			key := strings.ToUpper(string(cmp.Or(p.Protocol, types.TransportProtocolTcp)))
			if in.NetworkMode != types.NetworkModeAwsvpc {
				key += " " + *c.Name // each has ports of its own
			}
			for _, other := range used[key] {
				both := max(own.first, other.first)
				if both <= min(own.last, other.last) && (own.first < own.last || other.first < other.last) {
					return client("%.3s container port '%d' is used multiple times in task when networkMode=%s.", key, both, cmp.Or(in.NetworkMode, types.NetworkModeBridge))
				}
			}
			used[key] = append(used[key], own)
		}
		if count > mostRanges {
			return client("Too many port ranges for container '%s': %d, of at most %d.", *c.Name, count, mostRanges)
		}
	}
	return nil
}

func checkRange(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition, p types.PortMapping) error {
	_, ok := parseRange(*p.ContainerPortRange)
	switch {
	case p.ContainerPort != nil || p.HostPort != nil:
		return client("Invalid port mapping for container '%s', cannot specify both single port and port range.", *c.Name)
	case !ok:
		return client("Invalid 'containerPortRange' setting for container '%s'.", *c.Name)
	case in.NetworkMode == types.NetworkModeHost: // documented
		return client("Invalid port mapping for container '%s', cannot specify port range when networkMode=host.", *c.Name)
	}
	return nil
}

// hostConfig is the agent's kind of an error of what a container gets of its host.
const hostConfig run.Kind = "HostConfigError"

// missesPorts is why a task has not got its ports, in the agent's words; observed:
// https://github.com/aws/amazon-ecs-agent/pull/3569
func (t task) missesPorts() error {
	for _, p := range t.Ports {
		if p.Host != 0 {
			continue
		}
		what := "a host port is unavailable"
		if p.More > 0 {
			what = fmt.Sprintf("%d contiguous host ports are unavailable", p.More+1)
		}
		return &run.Error{Kind: hostConfig, Err: fmt.Errorf("error retrieving docker port map: %s", what)}
	}
	return nil
}
