package ecsd

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/place"
	"serin/internal/run"
	"serin/internal/store"
)

// The network modes bridge, host and none: tasks without an address of their own,
// behind ports of their container instance.

// hostPort is a port of a task's host that leads to one of its containers, or the
// first of a range of them.
type hostPort struct {
	Container    string
	Inside, Host int32 // Host is 0 where there was none that is free
	More         int32 // ports of a range that follow
	UDP          bool
	Fixed        bool // the definition names it, and so reserves it
}

// modeOf is a definition's network mode; without one it is bridge, documented.
func modeOf(d types.TaskDefinition) types.NetworkMode {
	return cmp.Or(d.NetworkMode, types.NetworkModeBridge)
}

// behindHost says that tasks of a definition are reached at their host, if at all.
func behindHost(d types.TaskDefinition) bool { return modeOf(d) != types.NetworkModeAwsvpc }

// The ports that Docker gives where a definition names none; documented:
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html
const firstDynamic, lastDynamic = 32768, 60999

// portsFor is the ports of the host that a task gets, beside those that are taken: as
// its definition names them, or dynamic ones.
func portsFor(d types.TaskDefinition, id string, taken map[place.Port]bool) (list []hostPort) {
	if modeOf(d) != types.NetworkModeBridge && modeOf(d) != types.NetworkModeHost {
		return nil
	}
	for _, p := range namedPorts(d) {
		taken[p] = true
	}
	r := rand.New(rand.NewPCG(seedOf(id), 0))
	for _, c := range d.ContainerDefinitions {
		for _, p := range c.PortMappings {
			h := hostPort{Container: *c.Name, Host: aws.ToInt32(p.HostPort), UDP: p.Protocol == types.TransportProtocolUdp, Fixed: true}
			inside := insideOf(p)
			if h.Inside, h.More = inside.first, inside.last-inside.first; h.Host == 0 {
				h.Host, h.Fixed = dynamic(r, int(h.More)+1, h.UDP, taken), false
			}
			list = append(list, h)
		}
	}
	return list
}

// dynamic is the first of so many ports in a row that are not taken; 0 where there
// are none.
func dynamic(r *rand.Rand, many int, udp bool, taken map[place.Port]bool) int32 {
	const n = lastDynamic - firstDynamic + 1
	from, row := r.IntN(n), 0
	for i := range n + many { // a row that begins before it may end behind it
		at := (from + i) % n
		if at == 0 {
			row = 0 // it does not go around
		}
		p := place.Port{Number: uint16(firstDynamic + at), UDP: udp}
		if row++; taken[p] {
			row = 0
		}
		if row == many {
			first := hostPort{Host: int32(firstDynamic + at - many + 1), More: int32(many - 1), UDP: udp}
			for _, p := range first.ports() {
				taken[p] = true
			}
			return first.Host
		}
	}
	return 0
}

// namedPorts is the ports of a host that tasks of a definition name.
func namedPorts(d types.TaskDefinition) (list []place.Port) {
	if !behindHost(d) {
		return nil
	}
	for _, c := range d.ContainerDefinitions {
		for _, p := range c.PortMappings {
			if aws.ToInt32(p.HostPort) != 0 {
				list = append(list, place.Port{Number: uint16(*p.HostPort), UDP: p.Protocol == types.TransportProtocolUdp})
			}
		}
	}
	return list
}

// takenPorts is the ports of a host that its agent and its tasks have.
func takenPorts(on []task) map[place.Port]bool {
	taken := map[place.Port]bool{}
	for _, n := range agentPorts {
		taken[place.Port{Number: n}] = true
	}
	for _, t := range on {
		for _, p := range t.Ports {
			for _, one := range p.ports() {
				taken[one] = true
			}
		}
	}
	return taken
}

// ports are those of the host.
func (p hostPort) ports() (list []place.Port) {
	if p.Host == 0 {
		return nil
	}
	for i := range p.More + 1 {
		list = append(list, place.Port{Number: uint16(p.Host + i), UDP: p.UDP})
	}
	return list
}

// house gives a task its ports where there are no container instances: those of the
// EXTERNAL launch type are on one host, their cluster's.
func (s *seats) house(t *task) {
	d, _ := s.definitionOf(s.tx, s.scope, *t)
	if !behindHost(d) {
		return
	}
	var on []task
	for _, o := range s.tasks.Scan(s.tx, s.scope.Key(s.cluster+"/")) {
		if o.Last != stopped && o.Instance == "" {
			on = append(on, o)
		}
	}
	t.Ports = portsFor(d, t.ID, takenPorts(on))
}

// bindings are a container's ports as ECS shows them: on bridges alone, once it has
// been started, those of a range as one, behind the others; observed:
// https://github.com/aws/amazon-ecs-agent/pull/3479
func (t task) bindings(d types.TaskDefinition, c container) []types.NetworkBinding {
	list, ranges := []types.NetworkBinding{}, []types.NetworkBinding(nil)
	if modeOf(d) != types.NetworkModeBridge || c.Starts == 0 {
		return list
	}
	for _, p := range t.Ports {
		b := types.NetworkBinding{BindIP: new("0.0.0.0"), Protocol: p.protocol()}
		switch {
		case p.Container != c.Name:
		case p.More > 0:
			b.ContainerPortRange, b.HostPortRange = new(portRange{p.Inside, p.Inside + p.More}.String()), new(portRange{p.Host, p.Host + p.More}.String())
			ranges = append(ranges, b)
		default:
			b.ContainerPort, b.HostPort = new(p.Inside), new(p.Host)
			list = append(list, b)
		}
	}
	return append(list, ranges...)
}

func (p hostPort) protocol() types.TransportProtocol {
	if p.UDP {
		return types.TransportProtocolUdp
	}
	return types.TransportProtocolTcp
}

// networked puts a task where its network mode says, and its containers together
// where its other modes say so.
func networked(spec *run.Spec, d types.TaskDefinition, t task, host string) {
	spec.SharedPIDs, spec.SharedIPC = d.PidMode == types.PidModeTask, d.IpcMode == types.IpcModeTask
	mode := modeOf(d)
	if mode == types.NetworkModeAwsvpc {
		return
	}
	spec.Network, spec.Host = run.Network(mode), host
	for i := range spec.Containers {
		c := &spec.Containers[i]
		for _, p := range t.Ports {
			if p.Container == c.Name {
				for i, host := range p.ports() {
					c.Ports = append(c.Ports, run.Port{Host: host.Number, Inside: uint16(p.Inside) + uint16(i), UDP: p.UDP})
				}
			}
		}
		for _, l := range d.ContainerDefinitions[i].Links {
			to, alias := linkOf(l)
			c.Links = append(c.Links, run.Link{To: to, Alias: alias})
		}
		for _, s := range d.ContainerDefinitions[i].SystemControls {
			if c.Sysctls == nil {
				c.Sysctls = map[string]string{}
			}
			c.Sysctls[*s.Namespace] = *s.Value
		}
	}
	spec.Sysctls = nil
}

// target is a task's place in a target group: its own address, or its instance and a
// port of it.
func (a *API) target(tx *store.Tx, scope arn.Scope, t task, d types.TaskDefinition, group string, lb types.LoadBalancer) (registration, bool) {
	reg := registration{Group: group, Port: aws.ToInt32(lb.ContainerPort)}
	if !behindHost(d) {
		return reg, true
	}
	at := slices.IndexFunc(t.Ports, func(p hostPort) bool {
		return !p.UDP && p.Inside == reg.Port && p.More == 0 && p.Container == aws.ToString(lb.ContainerName)
	})
	i, ok := a.instances.Get(tx, instanceKey(scope, t.Cluster, t.Instance))
	if at < 0 || !ok {
		return reg, false
	}
	reg.Port, reg.Instance = t.Ports[at].Host, i.EC2
	return reg, true
}

// targetOf is a registration of a task as the load balancers know it.
func (t task) targetOf(r registration) Member {
	return Member{ID: cmp.Or(r.Instance, t.Address), Address: t.Address, Port: r.Port}
}

// checkNetwork refuses a network that a task of the definition cannot have, and a
// launch type that the definition is not compatible with, in words that are observed.
func checkNetwork(d types.TaskDefinition, n *types.NetworkConfiguration, launch types.LaunchType) error {
	switch {
	case behindHost(d) && n != nil:
		return invalid("Network Configuration is not valid for the given networkMode of this task definition.")
	case !behindHost(d) && (n == nil || n.AwsvpcConfiguration == nil || len(n.AwsvpcConfiguration.Subnets) == 0):
		return invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
	case launch != "" && !slices.Contains(d.Compatibilities, types.Compatibility(launch)):
		return invalid("Task definition does not support launch_type %s.", launch)
	}
	return nil
}

// takes refuses a target group of a kind of targets that tasks of the definition are
// not; observed.
func (g TargetGroup) takes(groupARN string, d types.TaskDefinition) error {
	want := "ip"
	if behindHost(d) {
		want = "instance"
	}
	if g.Targets != want {
		return invalid("The provided target group %s has target type %s, which is incompatible with the %s network mode specified in the task definition.", groupARN, g.Targets, modeOf(d))
	}
	return nil
}
