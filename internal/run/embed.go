//go:build helper

package run

import _ "embed"

// embedded is the program of package helper, compressed.
//
//go:embed serin-helper.gz
var embedded []byte
