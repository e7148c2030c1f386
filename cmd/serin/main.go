// Command serin rehearses an Amazon ECS release on one machine, then performs
// it on AWS.
package main

import (
	"os"

	"serin/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
