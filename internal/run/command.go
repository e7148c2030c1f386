package run

import (
	"io"
	"slices"
	"strings"
)

// Command is a command to run in a container.
type Command struct {
	Args []string
	User string   // empty: the container's own
	Env  []string // beside the container's, and instead of what has the same name
	// In is what the command reads, nil: nothing. It is closed when the command has
	// ended, and a Read of it must end then. Its end is that of the command's input;
	// on a terminal it is what Ctrl-D says.
	In  io.ReadCloser
	Out io.Writer
	// Terminal gives the command a terminal of its own.
	Terminal bool
	// Resize says the terminal's size; one that waits in it at the start is the first.
	Resize <-chan Size
}

// Size is a terminal's, in characters.
type Size struct{ Columns, Rows uint16 }

// first is the size that a terminal has at its start; ok is false where none is said.
func (c Command) first() (s Size, ok bool) {
	select {
	case s, ok = <-c.Resize:
	default:
	}
	return s, ok
}

// endOfInput is Ctrl-D.
const endOfInput = "\x04"

func closeInput(in io.Closer) {
	if in != nil {
		in.Close()
	}
}

// instead is an environment with variables set anew.
func instead(env, set []string) []string {
	env = slices.Clone(env)
	for _, kv := range set {
		name, _, _ := strings.Cut(kv, "=")
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
	}
	return append(env, set...)
}
