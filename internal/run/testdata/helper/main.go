// helper is what a runtime starts beside and inside tasks, linked so that it runs
// inside any image: the tests' own program may need a loader.
package main

import "serin/internal/run"

func main() { run.Reexec() }
