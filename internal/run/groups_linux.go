package run

import (
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
)

// groups are a task's cgroups: one for the task and, where several containers
// share it, one below for each. A machine whose cgroups we may not write runs its
// tasks without limits.
type groups struct {
	task  cgroups.Manager
	of    map[string]cgroups.Manager // container
	kills map[string]uint64          // container → what was counted before
}

// limit makes a task's cgroups.
func (g *groups) limit(spec Spec) {
	whole := &cgroups.Resources{Memory: spec.Memory, SkipDevices: true}
	if spec.CPU > 0 {
		whole.CpuPeriod, whole.CpuQuota = 100_000, spec.CPU*100_000/1024
	}
	if len(spec.Containers) == 1 {
		c := spec.Containers[0]
		if whole.Memory == 0 || c.Memory > 0 && c.Memory < whole.Memory {
			whole.Memory = c.Memory
		}
		g.task = newGroup("serin", spec.ID, whole)
		g.of = map[string]cgroups.Manager{c.Name: g.task}
		return
	}
	if g.task = newGroup("serin", spec.ID, whole); g.task == nil {
		return
	}
	g.of = map[string]cgroups.Manager{}
	for _, c := range spec.Containers {
		r := &cgroups.Resources{Memory: c.Memory, SkipDevices: true}
		if c.Shares > 0 {
			r.CpuShares = uint64(max(c.Shares, 2)) // as Docker has it, 2 is the least
			r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(r.CpuShares)
		}
		g.of[c.Name] = newGroup("serin/"+spec.ID, c.Name, r)
	}
}

// newGroup makes one, nil where that is not possible.
func newGroup(parent, name string, r *cgroups.Resources) cgroups.Manager {
	g, err := manager.New(&cgroups.Cgroup{Name: name, Parent: parent, Resources: r})
	if err == nil {
		if err = g.Apply(-1); err == nil {
			err = g.Set(r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "running without limits:", err)
		if g != nil {
			g.Destroy()
		}
		return nil
	}
	return g
}

// join puts a process under a container's limits.
func (g *groups) join(container string, pid int) error {
	own := g.of[container]
	if own == nil {
		return nil
	}
	if err := own.Apply(pid); err != nil {
		return fmt.Errorf("limiting the container: %w", err)
	}
	return nil
}

// oom says whether a limit, its own or the task's, killed something in a container
// since it was last asked: what is killed is counted where it was.
func (g *groups) oom(container string) bool {
	own := g.of[container]
	if own == nil {
		return false
	}
	n, err := own.OOMKillCount()
	if err != nil {
		return false
	}
	before := g.kills[container]
	if g.kills == nil {
		g.kills = map[string]uint64{}
	}
	g.kills[container] = n
	return n > before
}

func (g *groups) usage() (Usage, bool) {
	sum, ok := used(g.task)
	if !ok {
		return Usage{}, false
	}
	sum.Containers = map[string]Usage{}
	for name, own := range g.of {
		if u, ok := used(own); ok {
			sum.Containers[name] = u
		}
	}
	return sum, true
}

// used is what a cgroup's books say; not every machine keeps them.
func used(g cgroups.Manager) (Usage, bool) {
	if g == nil {
		return Usage{}, false
	}
	st, err := g.Stats(&cgroups.StatsOptions{Controllers: cgroups.CPU | cgroups.Memory})
	if err != nil || st.CpuStats.CpuUsage.TotalUsage == 0 || st.MemoryStats.Usage.Usage == 0 {
		return Usage{}, false
	}
	return Usage{CPU: time.Duration(st.CpuStats.CpuUsage.TotalUsage), Memory: withoutFiles(st.MemoryStats.Usage.Usage, st.MemoryStats.Stats)}, true
}

// destroy removes the cgroups, inner ones first.
func (g *groups) destroy() {
	for _, own := range g.of {
		if own != nil && own != g.task {
			own.Destroy()
		}
	}
	if g.task != nil {
		g.task.Destroy()
	}
}
