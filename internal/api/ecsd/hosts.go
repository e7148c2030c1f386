package ecsd

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/arn"
	"serin/internal/catalogue"
	"serin/internal/id"
	"serin/internal/store"
)

// Container instances that no capacity provider of ECS has bought: instances of
// Auto Scaling groups, whose ECS agent registers them. Each is taken for one of
// an image with the agent on it.

// host is the row of such an instance as its agent has brought it.
type host struct {
	Cluster  string
	Instance string    // id of the container instance; empty: not registered
	Retry    time.Time // not registered before: it was refused
}

// registerAgain is when an agent that may not register tries again; guessed.
const registerAgain = time.Minute

// agentConfig is what user data tells the agent.
type agentConfig struct {
	Cluster    string
	Attributes map[string]string
}

var (
	shellCluster    = regexp.MustCompile(`ECS_CLUSTER=\\?["']?([A-Za-z0-9_-]+)`)
	tomlCluster     = regexp.MustCompile(`(?s)\[settings\.ecs\][^\[]*?\bcluster\s*=\s*"([^"]+)"`) // Bottlerocket's
	shellAttributes = regexp.MustCompile(`ECS_INSTANCE_ATTRIBUTES=\\?["']?(\{[^}]*\})`)
)

// configOf reads the agent's configuration out of user data: a script that writes
// /etc/ecs/ecs.config, or Bottlerocket's settings. Without a name the cluster is
// "default", documented.
func configOf(userData string) agentConfig {
	c := agentConfig{Cluster: "default"}
	for _, re := range []*regexp.Regexp{tomlCluster, shellCluster} {
		if m := re.FindStringSubmatch(userData); m != nil {
			c.Cluster = m[1]
		}
	}
	if m := shellAttributes.FindStringSubmatch(userData); m != nil {
		var attributes map[string]string
		if json.Unmarshal([]byte(strings.ReplaceAll(m[1], `\`, "")), &attributes) == nil {
			c.Attributes = attributes
		}
	}
	return c
}

// keepHosts registers the cluster's instances of groups that have booted, where
// their role may, and notes who is there.
func (k *keeping) keepHosts() {
	k.hosts = map[string]Host{}
	c, ok := k.clusters.Get(k.tx, k.scope.Key(k.cluster))
	for _, h := range k.deps.Groups.Hosts(k.tx, k.scope) {
		config := configOf(h.UserData)
		if config.Cluster != k.cluster {
			continue
		}
		k.hosts[h.ID] = h
		row, _ := k.API.hosts.Get(k.tx, k.scope.Key(h.ID))
		if !ok || c.Status != "ACTIVE" || row.Instance != "" || h.Leaving || !k.due(h.Launched.Add(booting)) || row.Retry.After(k.now) && !k.due(row.Retry) {
			continue
		}
		if err := k.deps.Roles.MayRegister(k.scope, h.Profile, h.ID, clusterARN(k.scope, k.cluster)); err != nil {
			k.log.Warn("an instance could not register", "cluster", k.cluster, "instance", h.ID, "err", err)
			row.Cluster, row.Retry = k.cluster, k.now.Add(registerAgain)
			k.API.hosts.Put(k.tx, k.scope.Key(h.ID), row)
			k.later(row.Retry)
			continue
		}
		i := k.register(h, config)
		k.API.hosts.Put(k.tx, k.scope.Key(h.ID), host{Cluster: k.cluster, Instance: i.ID})
		if !c.Hosts {
			c.Hosts = true
			k.clusters.Put(k.tx, k.scope.Key(k.cluster), c)
		}
	}
}

// register makes a host a container instance of the cluster.
func (k *keeping) register(h Host, config agentConfig) instance {
	t, _ := catalogue.Find(h.Type)
	i := instance{
		ID: id.Hex(32), Cluster: k.cluster, Group: h.Group, EC2: h.ID, Type: h.Type, Zone: h.Zone, Subnet: h.Subnet, Status: types.ContainerInstanceStatusActive,
		Launched: h.Launched, Registered: k.now, Changed: k.now, Attributes: config.Attributes, Provider: k.providerOfGroup(h.Group),
	}
	for range t.GPUs {
		i.GPUs = append(i.GPUs, "GPU-"+id.UUID())
	}
	k.log.Info("an instance has registered", "cluster", k.cluster, "instance", i.EC2, "type", i.Type, "zone", i.Zone)
	return k.putInstance(k.tx, k.scope, i, k.now)
}

// providerOfGroup is the cluster's capacity provider of a group. That it is of those
// that registered before it was associated, too, is guessed.
func (k *keeping) providerOfGroup(group string) string {
	for _, name := range slices.Sorted(maps.Keys(k.providers)) {
		p := k.providers[name]
		if p.Group == nil {
			continue
		}
		if g, ok := k.deps.Groups.Find(k.tx, k.scope, *p.Group.AutoScalingGroupArn); ok && g.Name == group {
			return name
		}
	}
	return ""
}

// keepHost brings a group's container instance to its next state: it is drained when
// its group waits for that, and gone when EC2 has ended it.
func (k *keeping) keepHost(i instance) instance {
	h, alive := k.hosts[i.EC2]
	if !alive {
		return k.part(k.tx, k.scope, i, types.TaskStopCodeTerminationNotice, "Host EC2 (instance "+i.EC2+") terminated.")
	}
	if p := k.providerOfGroup(i.Group); p != i.Provider {
		i.Provider = p
		i = k.putInstance(k.tx, k.scope, i, k.now)
	}
	if h.Waiting && i.Status == types.ContainerInstanceStatusActive {
		i = k.drain(i, "")
	}
	i, on := k.noteTasks(i)
	if h.Waiting && on == 0 {
		k.deps.Groups.Drained(k.tx, k.scope, i.EC2)
	}
	return i
}

// part ends a container instance at once; tasks that are on it stop, for a reason.
func (a *API) part(tx *store.Tx, scope arn.Scope, i instance, code types.TaskStopCode, reason string) instance {
	now := a.clock.Now()
	for _, t := range a.tasksOn(tx, i.ID) {
		a.stopFor(tx, instanceKey(scope, i.Cluster, i.ID), t, now, code, reason)
	}
	i.Status, i.Ended = inactiveInstance, now
	return a.putInstance(tx, scope, i, now)
}

// forgetHosts lets go of the rows of hosts that EC2 has ended, whether or not they
// were registered then.
func (k *keeping) forgetHosts() {
	for key, h := range k.API.hosts.Scan(k.tx, k.scope.Key("")) {
		_, ec2 := arn.ParseKey(key)
		if _, alive := k.hosts[ec2]; h.Cluster == k.cluster && !alive {
			k.API.hosts.Delete(k.tx, key)
		}
	}
}
