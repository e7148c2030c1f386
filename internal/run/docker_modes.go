package run

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/network"
)

// A simulated host at the daemon: an address of this machine's loopback interface, at
// which the daemon publishes the ports of its tasks. So this machine reaches them,
// and other tasks do not.

// errNoHost refuses what the daemon has no place for.
var errNoHost = errors.New("the runtime docker has no network of a simulated host, as the network mode host asks")

// onHost notes where a task is whose ports are its host's.
func (t *dockerTask) onHost() {
	if t.spec.Network == BridgeNetwork {
		t.address = hostAddress(t.runtime.dir, t.spec.Host)
	}
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
