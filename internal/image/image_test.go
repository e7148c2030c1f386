package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var (
	here  = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	other = v1.Platform{OS: "linux", Architecture: map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]}
)

const source = "package main\n\nfunc main() { println(\"hello\") }\n"

// module is the directory of a Go program of two packages.
func module(t *testing.T) string {
	t.Helper()
	return files(t, map[string]string{"go.mod": "module example.com/shop/v2\n\ngo 1.26\n", "main.go": source, "cmd/web/main.go": source, "lib/lib.go": "package lib\n"})
}

// files makes a directory of files.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		write(t, filepath.Join(dir, name), text, 0o644)
	}
	return dir
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	must(t, os.WriteFile(file, []byte(text), mode))
	must(t, os.Chmod(file, mode))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// program is a program for a platform. With mode pie it needs a dynamic loader.
func program(t *testing.T, p v1.Platform, mode string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "web")
	cmd := exec.Command("go", "build", "-buildmode="+mode, "-o", file, ".")
	cmd.Dir = module(t)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+p.Architecture)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

func build(t *testing.T, s Spec) v1.Image {
	t.Helper()
	if s.Platform.OS == "" {
		s.Platform = here
	}
	image, err := s.Build(t.Context(), t.TempDir(), testLog{t})
	must(t, err)
	return image
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) { l.t.Logf("%s", b); return len(b), nil }

func digest(t *testing.T, i v1.Image) string {
	t.Helper()
	d, err := i.Digest()
	must(t, err)
	return d.String()
}

func config(t *testing.T, i v1.Image) v1.Config {
	t.Helper()
	c, err := i.ConfigFile()
	must(t, err)
	return c.Config
}

// unpacked is every entry of an image with its content, in order.
func unpacked(t *testing.T, i v1.Image) (names []string, entries map[string]*tar.Header, content map[string]string) {
	t.Helper()
	entries, content = map[string]*tar.Header{}, map[string]string{}
	layers, err := i.Layers()
	must(t, err)
	for _, l := range layers {
		r, err := l.Uncompressed()
		must(t, err)
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			raw, err := io.ReadAll(tr)
			must(t, err)
			names = append(names, h.Name)
			entries[h.Name], content[h.Name] = h, string(raw)
		}
		r.Close()
	}
	return names, entries, content
}

func TestTheSameInputGivesTheSameDigest(t *testing.T) {
	names := []string{"z", "a/b/c", "a/b.txt", "a-b", "m/n"}
	tree := func(order []string, age time.Duration) string {
		dir := t.TempDir()
		for _, n := range order {
			file := filepath.Join(dir, n)
			write(t, file, n, 0o644)
			must(t, os.Chtimes(file, time.Now().Add(-age), time.Now().Add(-age)))
		}
		return dir
	}
	reversed := slices.Clone(names)
	slices.Reverse(reversed)
	pairs := map[Kind][2]string{
		Directory: {tree(names, 0), tree(reversed, time.Hour)},
		Go:        {module(t), module(t)},
	}
	one := program(t, here, "exe")
	raw, err := os.ReadFile(one)
	must(t, err)
	two := filepath.Join(t.TempDir(), "web")
	write(t, two, string(raw), 0o600)
	pairs[Binary] = [2]string{one, two}
	labels := map[string]string{"a": "1", "b": "2", "c": "3"}
	for kind, pair := range pairs {
		var got []string
		for _, source := range pair {
			got = append(got, digest(t, build(t, Spec{Source: source, Kind: kind, Labels: labels, Ports: []string{"80", "53/udp"}})))
		}
		if got[0] != got[1] {
			t.Errorf("%s: the same input gave %v", kind, got)
		}
		if kind == Directory {
			write(t, filepath.Join(pair[1], "z"), "other", 0o644)
		} else if again := digest(t, build(t, Spec{Source: pair[0], Kind: kind, Env: []string{"A=b"}})); again == got[0] {
			t.Errorf("%s: another environment gave the same digest", kind)
		}
	}
	if dir := pairs[Directory]; digest(t, build(t, Spec{Source: dir[0], Kind: Directory})) == digest(t, build(t, Spec{Source: dir[1], Kind: Directory})) {
		t.Error("another file gave the same digest")
	}
}

func TestADirectoryBecomesTheFileSystem(t *testing.T) {
	outside := files(t, map[string]string{"secret": "secret"})
	dir := files(t, map[string]string{"etc/app.conf": "x=1", "README": "read me", ".hidden": "h"})
	write(t, filepath.Join(dir, "bin", "run"), "#!/bin/sh\n", 0o755)
	must(t, os.Chmod(filepath.Join(dir, "bin", "run"), 0o755|os.ModeSetuid))
	must(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o755))
	must(t, os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky))
	must(t, os.Symlink("run", filepath.Join(dir, "bin", "walk")))
	must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "leak")))
	must(t, os.Symlink(outside, filepath.Join(dir, "outside")))
	must(t, os.Symlink("../../../etc/shadow", filepath.Join(dir, "up")))
	names, entries, content := unpacked(t, build(t, Spec{Source: dir, Kind: Directory}))
	if want := []string{".hidden", "README", "bin/", "bin/run", "bin/walk", "etc/", "etc/app.conf", "leak", "outside", "tmp/", "up"}; !slices.Equal(names, want) {
		t.Errorf("the image has %q, want %q", names, want)
	}
	for name, mode := range map[string]int64{"README": 0o644, "bin/": 0o755, "bin/run": 0o4755, "tmp/": 0o1777} {
		if entries[name].Mode != mode {
			t.Errorf("%s has mode %o, want %o", name, entries[name].Mode, mode)
		}
	}
	for name, target := range map[string]string{"bin/walk": "run", "leak": filepath.Join(outside, "secret"), "outside": outside, "up": "../../../etc/shadow"} {
		if h := entries[name]; h.Typeflag != tar.TypeSymlink || h.Linkname != target || content[name] != "" {
			t.Errorf("%s is %c to %q with %q, want a link to %q", name, h.Typeflag, h.Linkname, content[name], target)
		}
	}
	if content["etc/app.conf"] != "x=1" {
		t.Errorf("etc/app.conf has %q", content["etc/app.conf"])
	}
	for name, h := range entries {
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(epoch) {
			t.Errorf("%s is of %d:%d (%s:%s) at %s", name, h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime)
		}
	}
	names, _, content = unpacked(t, build(t, Spec{Source: dir, Kind: Directory, To: "/srv/www/", Entrypoint: []string{"/srv/www/bin/run"}}))
	if !slices.Equal(names[:3], []string{"srv/", "srv/www/", "srv/www/.hidden"}) || content["srv/www/README"] != "read me" {
		t.Errorf("below /srv/www the image has %q", names)
	}
}

func TestAProgramFindsWhatItExpects(t *testing.T) {
	file := program(t, here, "exe")
	raw, err := os.ReadFile(file)
	must(t, err)
	image := build(t, Spec{Source: file, Kind: Binary, Cmd: []string{"-v"}, Env: []string{"PATH=/app", "A=b=c"}, Ports: []string{"8080", "53/udp"}, User: "nonroot", Workdir: "/tmp", Labels: map[string]string{"team": "shop"}})
	_, entries, content := unpacked(t, image)
	for name, want := range map[string]string{"etc/passwd": "\nnonroot:x:65532:65532:", "etc/group": "\nnonroot:x:65532:", "app/web": string(raw)} {
		if !strings.Contains(content[name], want) {
			t.Errorf("%s has %.200q", name, content[name])
		}
	}
	if entries["app/web"].Mode != 0o755 || entries["tmp/"].Mode != 0o1777 {
		t.Errorf("the modes are %o and %o", entries["app/web"].Mode, entries["tmp/"].Mode)
	}
	certificates, err := os.ReadFile(Certificates)
	if name := strings.TrimPrefix(Certificates, "/"); err == nil && content[name] != string(certificates) || err != nil && entries[name] != nil {
		t.Errorf("the image has CA certificates of %d bytes, this machine %d", len(content[name]), len(certificates))
	}
	c := config(t, image)
	if !slices.Equal(c.Entrypoint, []string{"/app/web"}) || !slices.Equal(c.Cmd, []string{"-v"}) || !slices.Equal(c.Env, []string{"PATH=/app", "SSL_CERT_FILE=" + Certificates, "A=b=c"}) {
		t.Errorf("it runs %q %q with %q", c.Entrypoint, c.Cmd, c.Env)
	}
	if ports := slices.Sorted(maps.Keys(c.ExposedPorts)); !slices.Equal(ports, []string{"53/udp", "8080/tcp"}) || c.User != "nonroot" || c.WorkingDir != "/tmp" || c.Labels["team"] != "shop" {
		t.Errorf("it is configured %+v", c)
	}
	if media, err := image.MediaType(); err != nil || media != types.OCIManifestSchema1 {
		t.Errorf("it is of type %s, %v", media, err)
	}
	one, err := image.Layers()
	must(t, err)
	two, err := build(t, Spec{Source: module(t), Kind: Go}).Layers()
	must(t, err)
	if a, _ := one[0].Digest(); len(two) != 2 || a.String() == "" {
		t.Fatalf("it has %d layers", len(two))
	} else if b, _ := two[0].Digest(); a != b {
		t.Error("two programs do not share the layer below them")
	}
}

func TestAGoPackageIsCompiledForThePlatform(t *testing.T) {
	dir := module(t)
	for _, c := range []struct{ source, program string }{{dir, "/app/shop"}, {filepath.Join(dir, "cmd", "web"), "/app/web"}} {
		image := build(t, Spec{Source: c.source, Kind: Go, Platform: other})
		if got := config(t, image).Entrypoint; !slices.Equal(got, []string{c.program}) {
			t.Errorf("%s runs %q, want %s", c.source, got, c.program)
		}
		if file, err := image.ConfigFile(); err != nil || file.Architecture != other.Architecture {
			t.Errorf("%s is for %s, want %s (%v)", c.source, file.Architecture, other.Architecture, err)
		}
	}
	write(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() { nothing() }\n", 0o644)
	var said strings.Builder
	_, err := Spec{Source: dir, Kind: Go, Platform: here}.Build(t.Context(), t.TempDir(), &said)
	if err == nil || !strings.Contains(err.Error(), "compiling example.com/shop/v2: go build: exit status 1") || !strings.Contains(said.String(), "undefined: nothing") {
		t.Errorf("what does not compile gives %v and says %s", err, said.String())
	}
}

func TestTheKindIsSeenFromTheContent(t *testing.T) {
	dir := module(t)
	docker := module(t)
	write(t, filepath.Join(docker, "Dockerfile"), "FROM scratch\n", 0o644)
	tests := files(t, map[string]string{"main_test.go": "package main\n", "go.mod": "module x\n"})
	for source, want := range map[string]Kind{docker: Dockerfile, dir: Go, filepath.Join(dir, "cmd", "web"): Go, filepath.Join(dir, "lib"): Directory, filepath.Join(dir, "cmd"): Directory, tests: Directory, filepath.Join(dir, "go.mod"): Binary} {
		if got, err := KindOf(t.Context(), source); err != nil || got != want {
			t.Errorf("%s is of kind %q, %v; want %s", source, got, err, want)
		}
	}
}

func TestWhatNoImageIsMadeOfIsRefused(t *testing.T) {
	static, dir := program(t, here, "exe"), module(t)
	special := func(make func(name string) error) string {
		d := files(t, map[string]string{"file": "x"})
		must(t, make(filepath.Join(d, "odd")))
		return d
	}
	socket := special(func(name string) error {
		l, err := net.Listen("unix", name)
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	text := files(t, map[string]string{"script": "#!/bin/sh\n", "text": "hello", "nothing": ""})
	alone := files(t, map[string]string{"main.go": source})
	otherBase := build(t, Spec{Source: text, Kind: Directory, Platform: other})
	for _, c := range []struct {
		spec       Spec
		want, hint string
	}{
		{Spec{Source: "/nowhere"}, "there is no /nowhere", ""},
		{Spec{Source: "/nowhere", Kind: Directory}, "there is no /nowhere", ""},
		{Spec{Source: "/dev/null"}, "/dev/null is a device", ""},
		{Spec{Source: t.TempDir()}, "is empty", ""},
		{Spec{Source: socket}, "odd: it is a socket", ""},
		{Spec{Source: special(func(name string) error { return syscall.Mkfifo(name, 0o600) })}, "odd: it is a named pipe", ""},
		{Spec{Source: files(t, map[string]string{"a/.wh.b": ""})}, "a/.wh.b: a name that begins with .wh.", ""},
		{Spec{Source: filepath.Join(text, "script")}, "script is a script", "--base"},
		{Spec{Source: filepath.Join(text, "text")}, "text is not a program for Linux", ""},
		{Spec{Source: filepath.Join(text, "nothing")}, "nothing is empty", ""},
		{Spec{Source: program(t, here, "pie")}, "is dynamically linked: it needs a dynamic loader", "CGO_ENABLED=0"},
		{Spec{Source: program(t, other, "exe")}, "is a program for " + other.String() + ", and the image is for " + here.String(), "--platform " + other.String()},
		{Spec{Source: alone}, "has Go files, and go list says: go: go.mod file not found", "--kind directory"},
		{Spec{Source: filepath.Join(dir, "lib"), Kind: Go}, "has package lib, and not main", "./cmd/web"},
		{Spec{Source: static, Kind: Go}, "is a file, and a Go package is a directory", ""},
		{Spec{Source: static, Kind: Directory}, "is not a directory", ""},
		{Spec{Source: dir, Kind: Binary}, "is not a file", ""},
		{Spec{Source: dir, Kind: Dockerfile}, "there is no " + filepath.Join(dir, "Dockerfile"), ""},
		{Spec{Source: dir, Kind: "cake"}, `kind must be one of dockerfile, binary, go, directory, got "cake"`, ""},
		{Spec{Source: static, To: "/srv"}, "to goes with kind directory", ""},
		{Spec{Source: static, Ports: []string{"http"}}, `port must be a number from 1 to 65535, with /tcp or /udp if wanted, got "http"`, ""},
		{Spec{Source: static, Ports: []string{"70000"}}, `got "70000"`, ""},
		{Spec{Source: static, Ports: []string{"80/sctp"}}, `got "80/sctp"`, ""},
		{Spec{Source: static, Env: []string{"A"}}, `env must be NAME=value, got "A"`, ""},
		{Spec{Source: static, Env: []string{"=b"}}, `env must be NAME=value, got "=b"`, ""},
		{Spec{Source: static, User: "joe"}, `user "joe" is not in an image from scratch`, ""},
		{Spec{Source: static, Workdir: "tmp"}, `workdir must be an absolute path, got "tmp"`, ""},
		{Spec{Source: static, Platform: v1.Platform{OS: "linux", Architecture: "mips"}}, `platform must be one of linux/amd64, linux/arm64, got "linux/mips"`, ""},
		{Spec{Source: static, Base: otherBase}, "the base is for " + other.String() + ", and the image is for " + here.String(), ""},
		{Spec{Source: text, Kind: Dockerfile, Base: otherBase}, "base does not go with kind dockerfile", ""},
	} {
		s := c.spec
		if s.Platform.OS == "" {
			s.Platform = here
		}
		var err error
		if s.Kind == "" {
			s.Kind, err = KindOf(t.Context(), s.Source)
		}
		if err == nil {
			_, err = s.Build(t.Context(), t.TempDir(), testLog{t})
		}
		input, ok := errors.AsType[*InputError](err)
		if !ok || !strings.Contains(err.Error(), c.want) || !strings.Contains(input.Hint, c.hint) || c.hint == "" && input.Hint != "" {
			t.Errorf("%s (%s): %v (%#v); want %q with the hint %q", s.Source, s.Kind, err, input, c.want, c.hint)
		}
	}
}

func TestABaseStaysBelow(t *testing.T) {
	below, err := mutate.AppendLayers(empty.Image, layerOf(t, "below"))
	must(t, err)
	file, err := below.ConfigFile()
	must(t, err)
	file = file.DeepCopy()
	file.OS, file.Architecture = here.OS, here.Architecture
	file.Config = v1.Config{Entrypoint: []string{"/old"}, Cmd: []string{"old"}, Env: []string{"A=old", "B=old"}, User: "joe"}
	below, err = mutate.ConfigFile(below, file)
	must(t, err)
	image := build(t, Spec{Source: program(t, here, "pie"), Kind: Binary, Base: below, Env: []string{"A=new"}})
	names, _, _ := unpacked(t, image)
	if !slices.Equal(names, []string{"below", "app/", "app/web"}) {
		t.Errorf("the image has %q", names)
	}
	c := config(t, image)
	if !slices.Equal(c.Entrypoint, []string{"/app/web"}) || c.Cmd != nil || c.User != "joe" || !slices.Equal(c.Env, []string{"A=new", "B=old"}) {
		t.Errorf("it is configured %+v", c)
	}
	m, err := image.Manifest()
	must(t, err)
	if m.MediaType != types.DockerManifestSchema2 || m.Layers[1].MediaType != types.DockerLayer {
		t.Errorf("on a base of Docker's types there is a layer of %s in a %s", m.Layers[1].MediaType, m.MediaType)
	}
	files := files(t, map[string]string{"x": ""})
	if c := config(t, build(t, Spec{Source: files, Kind: Directory, Base: below})); !slices.Equal(c.Entrypoint, []string{"/old"}) || !slices.Equal(c.Cmd, []string{"old"}) {
		t.Errorf("files alone change what is run: %+v", c)
	}
	if got := config(t, below); got.Env[0] != "A=old" {
		t.Errorf("the base itself has %q now", got.Env)
	}
}

func layerOf(t *testing.T, name string) v1.Layer {
	t.Helper()
	l, err := pack(t.Context(), t.TempDir(), types.DockerLayer, func(_ context.Context, a archive) error { return a.text(name, name) })
	must(t, err)
	return l
}

func TestABuildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for kind, source := range map[Kind]string{Binary: program(t, here, "exe"), Go: module(t), Directory: files(t, map[string]string{"a": "b"})} {
		if _, err := (Spec{Source: source, Kind: kind, Platform: here}).Build(ctx, t.TempDir(), testLog{t}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestADockerfileNeedsABuilder(t *testing.T) {
	dir := files(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	spec := Spec{Source: dir, Kind: Dockerfile, Platform: here, Name: Name{Repository: "web", Tag: "1"}}
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	_, err := spec.Build(t.Context(), t.TempDir(), testLog{t})
	if tool, ok := errors.AsType[*ToolError](err); !ok || !strings.Contains(tool.Text, "Dockerfile needs Docker or BuildKit") || !strings.Contains(tool.Hint, "--kind go") {
		t.Errorf("without both: %v", err)
	}
	// A buildctl that writes what BuildKit would.
	saved := build(t, Spec{Source: files(t, map[string]string{"hello": "world"}), Kind: Directory})
	image := filepath.Join(bin, "image.tar")
	must(t, tarball.WriteToFile(image, nil, saved))
	script := fmt.Sprintf("#!/bin/sh\necho \"$*\" >%[1]s/args\nfor a; do case $a in type=docker,dest=*) /bin/cp %[1]s/image.tar ${a#type=docker,dest=};; esac; done\n", bin)
	write(t, filepath.Join(bin, "buildctl"), script, 0o755)
	spec.Env = []string{"A=b"}
	built := build(t, spec)
	if _, _, content := unpacked(t, built); content["hello"] != "world" || !slices.Equal(config(t, built).Env, []string{"A=b"}) {
		t.Errorf("BuildKit's image has %v, %+v", content, config(t, built))
	}
	args, err := os.ReadFile(filepath.Join(bin, "args"))
	must(t, err)
	for _, want := range []string{"build --frontend dockerfile.v0", "context=" + dir, "dockerfile=" + dir, "platform=" + here.String()} {
		if !strings.Contains(string(args), want) {
			t.Errorf("buildctl was told %s, without %s", args, want)
		}
	}
	spec.Platform = other
	if _, err := spec.Build(t.Context(), t.TempDir(), testLog{t}); err == nil || !strings.Contains(err.Error(), "Dockerfile is for "+here.String()+", and the image is for "+other.String()) {
		t.Errorf("an image of another platform: %v", err)
	}
}

func TestNamesAreRead(t *testing.T) {
	sum := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for in, want := range map[string]Name{
		"web": {"web", "latest", ""}, "team/web:1.2-rc_3": {"team/web", "1.2-rc_3", ""}, "web@" + sum: {"web", "", sum}, "my.team/web__x:A": {"my.team/web__x", "A", ""},
	} {
		if got, err := ParseName(in); err != nil || got != want {
			t.Errorf("%s is %+v, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"": "name must", "w": "name must", "Web": `got "Web"`, "web:": "tag must", "web:-x": "tag must", "web:" + strings.Repeat("x", 129): "tag must", "a//b": "name must", "web:1@" + sum: "name must",
		"web@sha256:12": "digest must", "web@": "digest must", "localhost/web": "registry in it", "localhost:4566/web:1": "registry in it", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/web": "registry in it", strings.Repeat("x", 257): "name must",
	} {
		_, err := ParseName(in)
		if _, ok := errors.AsType[*InputError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, want %s", in, err, want)
		}
	}
}

func TestManyKeepAtOnce(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for n := range 8 {
		image := build(t, Spec{Source: files(t, map[string]string{"n": fmt.Sprint(n)}), Kind: Directory})
		all.Go(func() {
			if err := NewStore(dir).Put(Name{Repository: "web", Tag: fmt.Sprint(n)}, image); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	list, err := NewStore(dir).List()
	if err != nil || len(list) != 8 {
		t.Fatalf("%d images are kept, %v", len(list), err)
	}
	for n, k := range list {
		if k.Name.Tag != fmt.Sprint(n) || k.Platform != here.String() || k.MediaType != string(types.OCIManifestSchema1) || k.Size == 0 || k.Time.IsZero() {
			t.Errorf("kept %d: %+v", n, k)
		}
	}
}
