package run

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const probeVerb = "serin-probe"

// Choose opens the runtime that is asked for or, for "auto", the first that
// can start a task here: native for root, Docker where a daemon answers, rootless,
// else confined; the local ones have really started one then. why says how it was
// chosen.
func Choose(ctx context.Context, name string, c Config) (r Runtime, why string, err error) {
	open := map[string]func(Config) (Runtime, error){
		"native":   func(c Config) (Runtime, error) { return opened(NewNative(c)) },
		"rootless": func(c Config) (Runtime, error) { return opened(NewRootless(c)) },
		"confined": func(c Config) (Runtime, error) { return opened(NewConfined(c)) },
		"docker": func(c Config) (Runtime, error) {
			d, err := NewDocker(ctx, c)
			if err != nil {
				return nil, err
			}
			return d, nil
		},
	}
	if name != "auto" {
		make, ok := open[name]
		if !ok {
			return nil, "", fmt.Errorf("there is no runtime %q; there are auto, native, rootless, confined and docker", name)
		}
		r, err := make(c)
		if err != nil {
			return nil, "", fmt.Errorf("the runtime %s cannot be used here: %w", name, err)
		}
		return r, "asked for", nil
	}
	var tried []error
	for _, candidate := range []string{"native", "docker", "rootless", "confined"} {
		if candidate == "native" && os.Geteuid() != 0 {
			continue
		}
		r, err := open[candidate](c)
		if l, local := r.(*Local); err == nil && local {
			if err = l.probe(ctx); err != nil {
				l.Close()
			}
		}
		if err == nil {
			return r, "the first of native, docker, rootless and confined that can start a task", nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", candidate, err))
	}
	return nil, "", fmt.Errorf("no runtime can start a task here: %w", errors.Join(tried...))
}

func opened(l *Local, err error) (Runtime, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// probe runs this program as a task that says ok: the whole way, once. It takes
// milliseconds and is not cut short: nothing of it must be left.
func (l *Local) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	image := filepath.Join(l.dir, "images", "probe")
	if err := probeImage(image); err != nil {
		return err
	}
	id := fmt.Sprintf("probe-%d", os.Getpid())
	task, err := l.Create(ctx, Spec{ID: id, Containers: []Container{{Name: "probe", Image: image, Entrypoint: []string{"/serin", probeVerb}}}})
	if err != nil {
		return err
	}
	if err := startAll(ctx, task); err != nil {
		return err
	}
	for st, changed := task.State(); !st.Idle() && ctx.Err() == nil; st, changed = task.State() {
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	task.End(ctx)
	again, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	if err := errors.Join(ctx.Err(), untilEnded(again, task)); err != nil {
		return errors.Join(err, task.Remove(again))
	}
	said := ""
	err = task.Logs("probe", 0, func(l Line) bool { said = l.Text; return true })
	if err == nil && said != "ok" {
		err = fmt.Errorf("a task that should say ok said %q", said)
	}
	return errors.Join(err, task.Remove(ctx))
}

// probeImage is this program as an image.
func probeImage(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	rootfs := filepath.Join(dir, "rootfs")
	if err := addFile(self, filepath.Join(rootfs, "serin")); err != nil {
		return err
	}
	if err := addLoader(self, rootfs); err != nil {
		return fmt.Errorf("finding what %s is linked with: %w", self, err)
	}
	return writeFile(filepath.Join(dir, "config"), []byte("{}"))
}

// addLoader adds what a program that was linked dynamically needs, as one is that
// Go built with cgo: its loader, under the name that it asks for, and its libraries,
// which lie beside the loader where the C library was installed with it.
func addLoader(program, rootfs string) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	interp := f.Section(".interp")
	if interp == nil {
		return nil
	}
	b, err := interp.Data()
	if err != nil {
		return err
	}
	loader := string(bytes.TrimRight(b, "\x00"))
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	if err := addFile(loader, filepath.Join(rootfs, loader)); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(loader)
	if err != nil {
		return err
	}
	for _, name := range libraries {
		from := filepath.Join(filepath.Dir(real), name)
		if err := addFile(from, filepath.Join(rootfs, from)); err != nil {
			return err
		}
	}
	return nil
}

// addFile adds a file to an image's, linked where the file system lets us.
func addFile(from, to string) error {
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	return copyFile(from, to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
