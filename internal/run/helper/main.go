// helper is what a runtime starts beside and inside tasks: small, so that it starts
// in a fifth of the time that serin takes, and static, so that it runs inside any
// image. make builds it into serin (embed.go).
package main

import "serin/internal/run"

func main() { run.Reexec() }
