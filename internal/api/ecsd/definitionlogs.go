package ecsd

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// logOptions are the options of each driver that is performed, and whether they
// are performed, too.
var logOptions = map[types.LogDriver]map[string]bool{
	types.LogDriverAwslogs: {
		"awslogs-group": true, "awslogs-region": true, "awslogs-stream-prefix": true, "awslogs-create-group": true, "mode": true, "max-buffer-size": true,
		"awslogs-datetime-format": true, "awslogs-multiline-pattern": true, "awslogs-endpoint": false, "awslogs-credentials-endpoint": false, "awslogs-format": false,
	},
	types.LogDriverJsonFile: {
		"max-size": true, "max-file": true, "mode": false, "max-buffer-size": false, "compress": false, "labels": false, "labels-regex": false, "env": false, "env-regex": false, "tag": false,
	},
}

// logValues are what the values of options must be, as Docker reads them.
var logValues = map[string]*regexp.Regexp{
	"mode":            regexp.MustCompile(`^(blocking|non-blocking)$`),
	"max-buffer-size": regexp.MustCompile(`^[1-9]\d*[kKmMgG]?[bB]?$`),
	"max-size":        regexp.MustCompile(`^[1-9]\d*[kKmMgG]?[bB]?$`),
	"max-file":        regexp.MustCompile(`^[1-9]\d{0,3}$`),
}

// checkLogs refuses options that a driver has not, or that are not what they must
// be; the texts of values, and of options that exclude each other, are guessed.
func checkLogs(name string, l *types.LogConfiguration) error {
	if l == nil {
		return nil
	}
	if l.LogDriver == "" {
		return client("Invalid setting for container '%s'. 'logDriver' of 'logConfiguration' must be specified.", name)
	}
	known := logOptions[l.LogDriver]
	if known == nil {
		return nil // it is not performed, which is told last
	}
	var missing, unknown []string
	for _, option := range []string{"awslogs-region", "awslogs-group"} {
		if l.LogDriver == types.LogDriverAwslogs && l.Options[option] == "" {
			missing = append(missing, option)
		}
	}
	for option := range l.Options {
		if _, ok := known[option]; !ok {
			unknown = append(unknown, option)
		}
	}
	slices.Sort(unknown)
	switch {
	case len(missing) > 0:
		return client("Log driver awslogs requires options: %s", strings.Join(missing, ", "))
	case len(unknown) > 0:
		return client("Log driver %s disallows options: %s", l.LogDriver, strings.Join(unknown, ", "))
	}
	if create, ok := l.Options["awslogs-create-group"]; ok && create != "true" {
		return client("Log driver awslogs option 'awslogs-create-group' should only be set to 'true', else omit option.")
	}
	if l.Options["awslogs-datetime-format"] != "" && l.Options["awslogs-multiline-pattern"] != "" {
		return client("Invalid setting for container '%s'. Log driver awslogs takes 'awslogs-datetime-format' or 'awslogs-multiline-pattern', not both.", name)
	}
	for _, option := range slices.Sorted(maps.Keys(l.Options)) {
		if p := logValues[option]; p != nil && !p.MatchString(l.Options[option]) {
			return client("Invalid setting for container '%s'. Log driver %s: the option '%s' cannot be '%s'.", name, l.LogDriver, option, l.Options[option])
		}
	}
	if l.Options["max-file"] != "" && l.Options["max-size"] == "" {
		return client("Invalid setting for container '%s'. Log driver json-file takes 'max-file' with 'max-size' only.", name)
	}
	return nil
}

// logsNotPerformed is why the stage does not keep these logs, in plain words.
func logsNotPerformed(name string, l *types.LogConfiguration) error {
	if l == nil {
		return nil
	}
	known := logOptions[l.LogDriver]
	if known == nil {
		return client("Serin performs the log drivers awslogs and json-file; '%s' of container '%s' is not performed.", l.LogDriver, name)
	}
	for _, option := range slices.Sorted(maps.Keys(l.Options)) {
		if !known[option] {
			return client("Log driver %s: the option '%s' of container '%s' is not performed by Serin.", l.LogDriver, option, name)
		}
	}
	return nil
}
