//go:build helper

package run

import _ "embed"

// embedded is the program of package helper.
//
//go:embed serin-helper
var embedded []byte
