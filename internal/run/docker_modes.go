package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// A simulated host at the daemon is two addresses. At one of this machine's loopback
// interface the daemon publishes the ports of its tasks, so that this machine reaches
// them, and other tasks do not. The other is that of a container that does nothing,
// whose network tasks share that are to be in their host's.

// onHost notes where a task is whose ports are its host's.
func (t *dockerTask) onHost() {
	switch t.spec.Network {
	case BridgeNetwork:
		t.address = hostAddress(t.runtime.dir, t.spec.Host)
	case HostNetwork:
		t.runtime.hosting.Lock()
		t.runtime.enters(t.spec)
		t.runtime.hosting.Unlock()
	}
}

// holder is the container whose network the task has; empty: each container has its own.
func (t *dockerTask) holder() string {
	switch t.spec.Network {
	case OwnNetwork:
		return t.pause
	case HostNetwork:
		return t.runtime.hostName(t.spec.Host)
	}
	return ""
}

// hostName is the name of the container that holds a host's network.
func (d *Docker) hostName(host string) string {
	sum := sha256.Sum256([]byte(host))
	return d.network + "-host-" + hex.EncodeToString(sum[:8])
}

// startHost starts the container of a task's host, unless it is there.
func (d *Docker) startHost(ctx context.Context, spec Spec) error {
	if err := d.makePause(ctx); err != nil {
		return err
	}
	d.hosting.Lock()
	defer d.hosting.Unlock()
	config, host := d.configs(Spec{}, Container{Image: pauseImage})
	config.StopSignal = "SIGKILL" // it hears no other
	config.Labels[labelHost], host.NetworkMode = spec.Host, container.NetworkMode(d.network)
	_, err := d.api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: config, HostConfig: host, Name: d.hostName(spec.Host)})
	if err == nil || taken(err) {
		_, err = d.api.ContainerStart(ctx, d.hostName(spec.Host), client.ContainerStartOptions{})
	}
	if err != nil {
		return fmt.Errorf("making the network of the task's host: %w", err)
	}
	return nil
}

// enters notes that a task is in its host's network. The caller holds the lock.
func (d *Docker) enters(spec Spec) {
	if d.hosts[spec.Host] == nil {
		d.hosts[spec.Host] = map[string]bool{}
	}
	d.hosts[spec.Host][spec.ID] = true
}

// inUse says that a task is in a host's network.
func (d *Docker) inUse(host string) bool {
	d.hosting.Lock()
	defer d.hosting.Unlock()
	return len(d.hosts[host]) > 0
}

// leaveHost removes the container of the task's host, if the task was the last.
func (t *dockerTask) leaveHost(ctx context.Context) error {
	d, spec := t.runtime, t.spec
	if spec.Network != HostNetwork {
		return nil
	}
	d.hosting.Lock()
	defer d.hosting.Unlock()
	if delete(d.hosts[spec.Host], spec.ID); len(d.hosts[spec.Host]) > 0 {
		return nil
	}
	delete(d.hosts, spec.Host)
	return d.remove(ctx, d.hostName(spec.Host))
}

// isAt notes where a container is; where it has no network of its own, the task is.
func (t *dockerTask) isAt(id string, address netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.spec.Network.apart() {
		t.address = address
	} else if at := slices.Index(t.ids, id); at >= 0 {
		t.state.Containers[at].Address = address
	}
}

// publish is a container's ports as Docker has them.
func (d *Docker) publish(spec Spec, c Container) (network.PortSet, network.PortMap) {
	exposed, bound := network.PortSet{}, network.PortMap{}
	for _, p := range c.Ports {
		protocol := network.TCP
		if p.UDP {
			protocol = network.UDP
		}
		inside, ok := network.PortFrom(p.Inside, protocol)
		if !ok {
			continue // there are no others
		}
		exposed[inside] = struct{}{}
		bound[inside] = append(bound[inside], network.PortBinding{HostIP: hostAddress(d.dir, spec.Host), HostPort: strconv.Itoa(int(p.Host))})
	}
	return exposed, bound
}

// containerName is a container's name at the daemon.
func containerName(spec Spec, name string) string { return "serin-" + spec.ID + "-" + name }

// links are a container's links on the tasks' network.
func (d *Docker) links(spec Spec, c Container) *network.NetworkingConfig {
	if len(c.Links) == 0 {
		return nil
	}
	var list []string
	for _, l := range c.Links {
		list = append(list, containerName(spec, l.To)+":"+l.Alias, containerName(spec, l.To)+":"+l.To)
	}
	return &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{d.network: {Links: list}}}
}
