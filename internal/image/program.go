package image

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Certificates is the file of CA certificates that an image from scratch gets,
// if this machine has it.
const Certificates = "/etc/ssl/certs/ca-certificates.crt"

// programEnv is the environment of a program from scratch.
var programEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SSL_CERT_FILE=" + Certificates}

// program is the image of a static program.
func (s Spec) program(ctx context.Context, scratch, file, name string) (v1.Image, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := s.static(f); err != nil {
		return nil, err
	}
	to := "app/" + name
	layers := []func(context.Context, archive) error{func(ctx context.Context, a archive) error {
		if err := a.dir("app", 0o755); err != nil {
			return err
		}
		return a.file(ctx, to, 0o755, f)
	}}
	if s.Base == nil {
		layers = append([]func(context.Context, archive) error{ground}, layers...)
	}
	return s.assemble(ctx, scratch, []string{"/" + to}, layers...)
}

// ground is what a static program expects of a file system: what
// distroless/static has. It is a layer of its own, the same below every program.
func ground(ctx context.Context, a archive) error {
	dirs := func(names ...string) (err error) {
		for _, name := range names {
			err = errors.Join(err, a.dir(name, 0o755))
		}
		return err
	}
	err := errors.Join(
		dirs("etc"),
		a.text("etc/group", "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n"),
		a.text("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n"))
	f, open := os.Open(Certificates)
	switch {
	case open == nil:
		defer f.Close()
		err = errors.Join(err, dirs("etc/ssl", "etc/ssl/certs"), a.file(ctx, strings.TrimPrefix(Certificates, "/"), 0o644, f))
	case !errors.Is(open, fs.ErrNotExist):
		err = errors.Join(err, open)
	}
	return errors.Join(err, a.dir("tmp", 0o1777))
}

var machines = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64", elf.EM_S390: "s390x", elf.EM_PPC64: "ppc64le"}

// static refuses a file that would not run alone in an image of the platform.
func (s Spec) static(f *os.File) error {
	if info, err := f.Stat(); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return refuse("", "%s is not a file", s.Source)
	}
	start := make([]byte, 4)
	switch n, err := f.ReadAt(start, 0); {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case n == 0:
		return refuse("", "%s is empty", s.Source)
	case string(start[:2]) == "#!":
		return refuse("put it in a directory and give an image that has its interpreter as --base", "%s is a script: it needs an interpreter, which an image of one program does not have", s.Source)
	}
	e, err := elf.NewFile(f)
	if err != nil || e.OSABI != elf.ELFOSABI_NONE && e.OSABI != elf.ELFOSABI_LINUX {
		return refuse("", "%s is not a program for Linux (ELF)", s.Source)
	}
	arch, known := machines[e.Machine]
	if !known {
		arch = strings.ToLower(strings.TrimPrefix(e.Machine.String(), "EM_"))
	}
	if arch != s.Platform.Architecture {
		hint := ""
		if arch == "amd64" || arch == "arm64" {
			hint = "--platform linux/" + arch + " makes an image for it"
		}
		return refuse(hint, "%s is a program for linux/%s, and the image is for %s", s.Source, arch, s.Platform.String())
	}
	needs, err := e.ImportedLibraries()
	if err != nil {
		return refuse("", "%s is not a whole program: %v", s.Source, err)
	}
	loader := slices.ContainsFunc(e.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if loader {
		needs = append([]string{"a dynamic loader"}, needs...)
	}
	flags, _ := e.DynValue(elf.DT_FLAGS_1) // none where nothing is dynamic
	pie := len(flags) > 0 && flags[0]&uint64(elf.DF_1_PIE) != 0
	if e.Type != elf.ET_EXEC && (e.Type != elf.ET_DYN || !loader && !pie) {
		return refuse("", "%s is no program, but an object file, a library or a core dump", s.Source)
	}
	if len(needs) > 0 && s.Base == nil {
		return refuse("link it statically (for Go, build it with CGO_ENABLED=0), or give an image that has these as --base",
			"%s is dynamically linked: it needs %s", s.Source, strings.Join(needs, ", "))
	}
	return nil
}

// major is the last part of an import path that only says a version.
var major = regexp.MustCompile(`^v[0-9]+$`)

// compile builds the main package of the source, as ko does, and returns the
// program, which has the name that go install would give it. The commit is not
// stamped: one that does not change the program does not change its image.
func (s Spec) compile(ctx context.Context, scratch string, log io.Writer) (string, error) {
	if info, err := os.Stat(s.Source); err == nil && !info.IsDir() {
		return "", refuse("", "%s is a file, and a Go package is a directory", s.Source)
	}
	p, err := listGo(ctx, s.Source, s.Platform.Architecture)
	if err != nil {
		return "", err
	}
	if p.Name != "main" {
		return "", refuse("give the directory of a main package, such as ./cmd/web", "%s has package %s, and not main", s.Source, p.Name)
	}
	name := path.Base(p.ImportPath)
	if parent := path.Dir(p.ImportPath); major.MatchString(name) && parent != "." {
		name = path.Base(parent)
	}
	dir, err := os.MkdirTemp(scratch, "go-")
	if err != nil {
		return "", fmt.Errorf("compiling %s: %w", s.Source, err)
	}
	file := filepath.Join(dir, name)
	cmd := command(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", file, ".")
	cmd.Dir = s.Source
	cmd.Env = goEnv(cmd, s.Platform.Architecture)
	cmd.Stdout, cmd.Stderr = log, log
	if err := run(ctx, cmd); err != nil {
		return "", fmt.Errorf("compiling %s: %w", p.ImportPath, err)
	}
	return file, nil
}
