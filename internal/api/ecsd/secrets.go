package ecsd

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
)

// Secrets is Parameter Store and Secrets Manager, as far as the stage has them.
type Secrets interface {
	// Secret reads a secret, or a parameter, by its ARN as a role that must be
	// allowed to. Errors are in AWS's words.
	Secret(ctx context.Context, secretARN string, as Actor) (string, error)
}

// secrets reads the secrets of a definition as its execution role: NAME=value by
// container. The texts around the service's own are observed.
func (g *agent) secrets(ctx context.Context, scope arn.Scope, d types.TaskDefinition, role Actor) (map[string][]string, error) {
	out := map[string][]string{}
	for _, c := range d.ContainerDefinitions {
		for _, s := range c.Secrets {
			from := aws.ToString(s.ValueFrom)
			if !arn.Is(from) { // a parameter of the same region, by its name
				from = scope.For("ssm", "parameter/"+strings.TrimPrefix(from, "/")).String()
			}
			value, err := g.deps.Secrets.Secret(ctx, from, role)
			if err != nil {
				how := "unable to retrieve secrets from ssm"
				if parsed, bad := arn.Parse(from); bad == nil && parsed.Service == "secretsmanager" {
					how = "unable to retrieve secret from asm"
				}
				return nil, configurationError{fmt.Errorf("ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: %s: service call has been retried 1 time(s): %w", how, err)}
			}
			out[*c.Name] = append(out[*c.Name], aws.ToString(s.Name)+"="+value)
		}
	}
	return out, nil
}
