package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"serin/internal/api/ecsd"
	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/wire"
)

// Secrets are the values of Parameter Store and Secrets Manager that tasks are
// given: by a parameter's or a secret's name, or by its ARN. A value is a text, or
// an object of texts for secrets of which tasks take single keys. The stage has
// neither service; what a role may read is evaluated.
type Secrets map[string]json.RawMessage

// ParseSecrets reads a JSON object of names and values.
func ParseSecrets(raw []byte) (Secrets, error) {
	var s Secrets
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("a JSON object of names and values is wanted: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		var text string
		var object map[string]any
		if json.Unmarshal(s[name], &text) != nil && json.Unmarshal(s[name], &object) != nil {
			return nil, fmt.Errorf("the value of %q must be a text or an object", name)
		}
	}
	return s, nil
}

// find is the value by any of its names.
func (s Secrets) find(names ...string) (value string, ok bool) {
	for _, name := range names {
		raw, ok := s[name]
		if !ok {
			continue
		}
		if json.Unmarshal(raw, &value) != nil {
			value = string(raw)
		}
		return value, true
	}
	return "", false
}

// secrets is Parameter Store and Secrets Manager as ECS's agent asks them.
type secrets struct{ s *Stage }

// errNoSecret is in Secrets Manager's words, observed.
var errNoSecret = &wire.Error{Code: "ResourceNotFoundException", Message: "Secrets Manager can't find the specified secret."}

// randomEnd is what Secrets Manager adds to a secret's name in its ARN.
var randomEnd = regexp.MustCompile(`-[A-Za-z0-9]{6}$`)

func (x secrets) Secret(ctx context.Context, secretARN string, as ecsd.Actor) (string, error) {
	a, err := arn.Parse(secretARN)
	if err != nil {
		return "", err
	}
	if a.Service == "ssm" {
		name := strings.TrimPrefix(a.Resource, "parameter/")
		if err := x.may(ctx, a, as, "ssm:GetParameters", secretARN); err != nil {
			return "", err
		}
		if value, ok := x.s.config.Secrets.find(secretARN, "/"+name, name); ok {
			return value, nil
		}
		return "", x.missing(fmt.Errorf("invalid ssm parameters: %s", a.Resource[len("parameter"):]))
	}
	parts := strings.Split(a.Resource, ":") // secret:NAME[:KEY[:STAGE[:VERSION]]]
	if len(parts) < 2 || a.Service != "secretsmanager" {
		return "", fmt.Errorf("the ARN %s is no secret's", secretARN)
	}
	whole := a.Scope().For("secretsmanager", strings.Join(parts[:2], ":")).String()
	fetching := func(err error) error {
		return fmt.Errorf("failed to fetch secret %s from secrets manager: %w", whole, err)
	}
	if err := x.may(ctx, a, as, "secretsmanager:GetSecretValue", whole); err != nil {
		return "", fetching(err)
	}
	value, ok := x.s.config.Secrets.find(whole, parts[1], randomEnd.ReplaceAllString(parts[1], ""))
	if !ok {
		return "", fetching(x.missing(denial(errNoSecret)))
	}
	if len(parts) < 3 || parts[2] == "" {
		return value, nil
	}
	var object map[string]any
	if json.Unmarshal([]byte(value), &object) != nil || object[parts[2]] == nil {
		return "", fmt.Errorf("retrieved secret from Secrets Manager did not contain json key %s", parts[2])
	}
	if text, ok := object[parts[2]].(string); ok {
		return text, nil
	}
	raw, err := json.Marshal(object[parts[2]])
	return string(raw), err
}

// missing says where values come from, on a stage that was given none.
func (x secrets) missing(err error) error {
	if x.s.config.Secrets == nil {
		return fmt.Errorf("%w (serin up --secrets FILE gives the stage its values)", err)
	}
	return err
}

// may asks whether the task's execution role may read.
func (x secrets) may(ctx context.Context, a arn.ARN, as ecsd.Actor, action, resource string) error {
	if as.Role == "" || x.s.config.IAM == Off {
		return nil
	}
	p, err := x.s.serviceSession(as)
	if err != nil {
		return err
	}
	service, operation, _ := strings.Cut(action, ":")
	call := &wire.Call{Service: service, Operation: operation, RequestID: id.UUID(), Scope: a.Scope(), Principal: p}
	return denial(x.s.authorize(ctx, call, []wire.Check{{Action: action, Resource: resource}}))
}
