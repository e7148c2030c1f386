package run

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// A task's network outlives each of its containers, so a container of its own holds
// it, as the pause container of an ECS agent does. Its image has one file, a program
// of some forty bytes that waits for ever, made here: nothing is pulled.

// pauseImage is its name at the daemon.
const pauseImage = "serin/pause:1"

// apart says whether a task's network, or what else its containers share, is to be
// held by a container beside its own.
func apart(spec Spec) bool {
	return spec.SharedPIDs || spec.SharedIPC || spec.Network == OwnNetwork && (len(spec.Containers) > 1 || spec.Containers[0].Again)
}

// startPause starts the container that holds a task's network.
func (d *Docker) startPause(ctx context.Context, spec Spec, raw string) (id string, err error) {
	if err := d.makePause(ctx); err != nil {
		return "", err
	}
	first := Container{}
	for _, c := range spec.Containers { // its names are everybody's
		if len(c.Hosts)+len(c.DNS)+len(c.Search) > 0 || c.Hostname != "" {
			first = c
			break
		}
	}
	config, host := d.configs(Spec{ID: spec.ID}, Container{Image: pauseImage, Hostname: first.Hostname, Hosts: first.Hosts, DNS: first.DNS, Search: first.Search})
	config.StopSignal = "SIGKILL" // it hears no other
	config.Labels[labelAt], config.Labels[labelSpec] = "-1", raw
	host.NetworkMode, host.Sysctls = container.NetworkMode(d.network), spec.Sysctls
	if spec.Network == NoNetwork {
		host.NetworkMode = "none"
	}
	if spec.SharedPIDs { // somebody must reap
		host.Init = new(true)
	}
	if spec.SharedIPC {
		host.IpcMode = "shareable"
		for _, c := range spec.Containers {
			host.ShmSize = max(host.ShmSize, c.SharedMemory)
		}
	}
	created, err := d.api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: config, HostConfig: host, Name: "serin-" + spec.ID})
	if taken(err) {
		return "", ErrExists
	}
	if err != nil {
		return "", err
	}
	_, err = d.api.ContainerStart(ctx, created.ID, client.ContainerStartOptions{})
	return created.ID, err
}

// makePause makes the image, where it is not there.
func (d *Docker) makePause(ctx context.Context) error {
	_, err := d.api.ImageInspect(ctx, pauseImage)
	if cerrdefs.IsNotFound(err) {
		err = d.importPause(ctx)
	}
	if err != nil {
		return fmt.Errorf("making the image of the network's container: %w", err)
	}
	return nil
}

func (d *Docker) importPause(ctx context.Context) error {
	program, err := pauseProgram(d.architecture)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return err
	}
	if _, err := w.Write(program); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	result, err := d.api.ImageImport(ctx, client.ImageImportSource{Source: &archive, SourceName: "-"}, pauseImage, client.ImageImportOptions{Changes: []string{`ENTRYPOINT ["/pause"]`}})
	if err != nil {
		return err
	}
	defer result.Close()
	_, err = io.Copy(io.Discard, result)
	return err
}

// pauseCode waits again and again, for every signal ends a wait: pause(2) or, on
// arm64, which has none, ppoll(2) of nothing.
var pauseCode = map[string]struct {
	machine uint16
	code    []byte
}{
	"amd64": {62, []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}}, // mov eax, 34; syscall; jmp
	"arm64": {183, instructions(0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, 0xd2800928, 0xd4000001, 0x17fffffa)},
}

func instructions(list ...uint32) (code []byte) {
	for _, i := range list {
		code = binary.LittleEndian.AppendUint32(code, i)
	}
	return code
}

// pauseProgram is an executable for a machine: ELF's header, one segment, the code.
func pauseProgram(architecture string) ([]byte, error) {
	p, ok := pauseCode[architecture]
	if !ok {
		return nil, fmt.Errorf("the daemon's machine is of the architecture %s; amd64 and arm64 are known", architecture)
	}
	const at, head, segment = 0x400000, 64, 56
	out := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	size := uint64(head + segment + len(p.code))
	for _, v := range []any{
		uint16(2), p.machine, uint32(1), uint64(at + head + segment), uint64(head), uint64(0), uint32(0), uint16(head), uint16(segment), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(at), uint64(at), size, size, uint64(0x1000),
	} {
		var err error
		if out, err = binary.Append(out, binary.LittleEndian, v); err != nil {
			return nil, err
		}
	}
	return append(out, p.code...), nil
}
