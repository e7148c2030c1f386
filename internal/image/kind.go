package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kind is what an image is made of.
type Kind string

const (
	Dockerfile Kind = "dockerfile" // a directory with a Dockerfile
	Binary     Kind = "binary"     // a static ELF program
	Go         Kind = "go"         // the directory of a main package in a module
	Directory  Kind = "directory"  // files
)

// Kinds are all kinds, in the order in which KindOf looks for them.
var Kinds = []Kind{Dockerfile, Binary, Go, Directory}

func joined(kinds []Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// KindOf says of what kind a source is, by its content.
func KindOf(ctx context.Context, source string) (Kind, error) {
	info, err := os.Stat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return "", refuse("", "there is no %s", source)
	}
	if err != nil {
		return "", err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return Binary, nil
	case !mode.IsDir():
		return "", refuse("", "%s is %s; an image is made of a file or a directory", source, special(mode))
	}
	if hasDockerfile(source) {
		return Dockerfile, nil
	}
	if !hasGo(source) {
		return Directory, nil
	}
	p, err := listGo(ctx, source, "")
	if err != nil {
		return "", err
	}
	if p.Name == "main" {
		return Go, nil
	}
	return Directory, nil
}

// special names what is neither a file, a directory nor a link.
func special(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "no ordinary file"
}

func hasDockerfile(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "Dockerfile"))
	return err == nil && info.Mode().IsRegular()
}

// hasGo says whether a directory has Go files that are not tests.
func hasGo(dir string) bool {
	entries, _ := os.ReadDir(dir) // one that cannot be read is refused when it is packed
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			return true
		}
	}
	return false
}

// goPackage is what go list says of a package.
type goPackage struct {
	Name, ImportPath string
	Error            *struct{ Err string }
}

// listGo asks go of the package in a directory, for an architecture or, if
// that is "", for this machine's.
func listGo(ctx context.Context, dir, arch string) (goPackage, error) {
	var p goPackage
	if _, err := exec.LookPath("go"); err != nil {
		return p, &ToolError{dir + " has Go files, and there is no go command here", "install Go; or --kind directory takes the files as they are"}
	}
	cmd := command(ctx, "go", "list", "-e", "-find", "-json=Name,ImportPath,Error", ".")
	cmd.Dir = dir
	cmd.Env = goEnv(cmd, arch)
	var said bytes.Buffer
	cmd.Stderr = &said
	raw, err := cmd.Output()
	if ctx.Err() != nil {
		return p, ctx.Err()
	}
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err == nil && p.Error != nil {
		said.WriteString(p.Error.Err)
	}
	if err != nil || p.Error != nil {
		return p, refuse("--kind directory takes the files as they are", "%s has Go files, and go list says: %s", dir, strings.TrimSpace(said.String()))
	}
	return p, nil
}

// goEnv is the environment of a build for Linux without C.
func goEnv(cmd *exec.Cmd, arch string) []string {
	env := append(cmd.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	if arch != "" {
		env = append(env, "GOARCH="+arch)
	}
	return env
}
