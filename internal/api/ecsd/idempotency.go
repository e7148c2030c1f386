package ecsd

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// clientTokens are up to 36 printing ASCII characters, documented.
var clientTokens = regexp.MustCompile(`^[!-~]{1,36}$`)

func checkToken(token *string) error {
	if token != nil && !clientTokens.MatchString(*token) {
		return invalid("clientToken must have between 1 and 36 characters, each of the ASCII range 33-126.")
	}
	return nil
}

// requestOf tells requests for a service apart: by the token, and by everything
// that is asked for.
func requestOf(in ecs.CreateServiceInput) (string, error) {
	in.Cluster = new(clusterName(in.Cluster)) // a name and its ARN are the same
	var hooks details
	if in.DeploymentConfiguration != nil {
		var config types.DeploymentConfiguration
		config, hooks = detached(*in.DeploymentConfiguration)
		in.DeploymentConfiguration = &config
	}
	raw, err := json.Marshal([]any{in, hooks})
	if err != nil {
		return "", fmt.Errorf("reading a request for service %s: %w", aws.ToString(in.ServiceName), err)
	}
	sum := sha256.Sum256(raw)
	return base64.RawStdEncoding.EncodeToString(sum[:]), nil
}

// again answers a request for a service that is there already: the same request
// is answered as it was, another is refused; the words are observed, that a
// request without a token can be repeated is a guess.
func (s service) again(request string) error {
	switch {
	case s.Status == "DRAINING":
		return invalid("Unable to Start a service that is still Draining.")
	case s.Request != request:
		return invalid("Creation of service was not idempotent.")
	}
	return nil
}
