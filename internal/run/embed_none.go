//go:build !helper

package run

// embedded is nothing where serin was built without make: it is its own helper.
var embedded []byte
