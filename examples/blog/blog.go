// Package blog holds the two files that this project began from, as their
// author pasted them: a GitHub workflow and a task definition with the
// console's read-only fields still in it. Both must work as they stand, once
// their placeholders are filled.
package blog

import _ "embed"

// TaskDefinition is task-definition.json.
//
//go:embed task-definition.json
var TaskDefinition []byte

// Workflow is deploy.yml.
//
//go:embed deploy.yml
var Workflow []byte
