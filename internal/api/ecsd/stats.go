package ecsd

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"serin/internal/run"
)

// What containers use, in the shape of Docker's statistics, as far as it is known:
// https://docs.docker.com/reference/api/engine/version/v1.30/#tag/Container/operation/ContainerStats

// Stats are one container's. All times are wall time, for what is used is real.
type Stats struct {
	Read    time.Time   `json:"read"`
	PreRead time.Time   `json:"preread"`
	CPU     CPUStats    `json:"cpu_stats"`
	PreCPU  CPUStats    `json:"precpu_stats"`
	Memory  MemoryStats `json:"memory_stats"`
	Name    string      `json:"name"`
	ID      string      `json:"id"`
}

// CPUStats is processor time since the container started, and of the machine since it
// did.
type CPUStats struct {
	Usage struct {
		Total time.Duration `json:"total_usage"` // nanoseconds
	} `json:"cpu_usage"`
	System time.Duration `json:"system_cpu_usage,omitempty"` // of all processors together, idling too
	Online int           `json:"online_cpus,omitempty"`
}

// MemoryStats are bytes.
type MemoryStats struct {
	Usage int64 `json:"usage"`
	Limit int64 `json:"limit,omitempty"`
}

// readEvery is how often an agent reads what containers use.
const readEvery = time.Second

// observed keeps the last two readings of each task that was asked about: the
// difference of two is what rates are made of.
type observed struct {
	mu   sync.Mutex
	last map[string][2]observation // by the task's key; the newer second
}

type observation struct {
	at   time.Time // wall time
	used run.Usage
}

// observe is the last two readings of the asker's task, the newer of this second.
func (a *API) observe(ctx context.Context, q Asker) ([2]observation, error) {
	o := &a.observed
	fresh := func(pair [2]observation) bool { return time.Since(pair[1].at) < readEvery }
	o.mu.Lock()
	pair := o.last[q.key]
	o.mu.Unlock()
	if fresh(pair) {
		return pair, nil
	}
	if q.handle == nil {
		return pair, fmt.Errorf("task %s does not run", q.row.ID)
	}
	used, err := q.handle.Usage(ctx)
	if err != nil {
		return pair, err
	}
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if pair = o.last[q.key]; fresh(pair) { // somebody else was faster
		return pair, nil
	}
	if pair[1].at.IsZero() { // a new one: the place of those that are gone is free
		g := a.agent.Load()
		maps.DeleteFunc(o.last, func(key string, _ [2]observation) bool {
			h, _ := g.handle(key)
			return h == nil
		})
	}
	if o.last == nil {
		o.last = map[string][2]observation{}
	}
	pair = [2]observation{pair[1], {now, used}}
	o.last[q.key] = pair
	return pair, nil
}

// of is what one of n containers used.
func (o observation) of(name string, n int) (u run.Usage, ok bool) {
	if u, ok = o.used.Containers[name]; !ok && n == 1 {
		return o.used, true // there is nobody else
	}
	return u, ok
}

// TaskStats are what the containers of the asker's task use, by what they are known
// by below ECS; nil for one that does not run or that is not known apart.
func (a *API) TaskStats(ctx context.Context, q Asker) (map[string]*Stats, error) {
	pair, err := a.observe(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("reading what task %s uses: %w", q.row.ID, err)
	}
	all := map[string]*Stats{}
	for at, c := range q.row.Containers {
		id := runtimeID(q.row, c.Name)
		all[id] = nil
		now, ok := pair[1].of(c.Name, len(q.row.Containers))
		if !ok || q.known(at) != running {
			continue
		}
		s := &Stats{Read: pair[1].at.UTC(), PreRead: pair[0].at.UTC(), Name: c.Name, ID: id}
		before, _ := pair[0].of(c.Name, len(q.row.Containers))
		s.CPU.Usage.Total, s.PreCPU.Usage.Total = now.CPU, before.CPU
		s.CPU.System, s.CPU.Online = pair[1].used.System, pair[1].used.CPUs
		s.PreCPU.System, s.PreCPU.Online = pair[0].used.System, pair[0].used.CPUs
		s.Memory = MemoryStats{now.Memory, q.memoryLimit(at)}
		all[id] = s
	}
	return all, nil
}

// Stats are what the asker itself uses.
func (a *API) Stats(ctx context.Context, q Asker) (*Stats, error) {
	all, err := a.TaskStats(ctx, q)
	if err != nil {
		return nil, err
	}
	s := all[q.RuntimeID()]
	if s == nil {
		return nil, fmt.Errorf("what container %s uses is not known", q.RuntimeID())
	}
	return s, nil
}

// RuntimeID is what the asker is known by below ECS.
func (q Asker) RuntimeID() string { return runtimeID(q.row, q.row.Containers[q.at].Name) }

// memoryLimit is a container's own or its task's, in bytes; 0: there is none.
func (q Asker) memoryLimit(at int) int64 {
	if own := aws.ToInt32(q.definition.ContainerDefinitions[at].Memory); own > 0 {
		return int64(own) * mib
	}
	if l := taskLimits(q.definition); l != nil {
		return l.Memory * mib
	}
	return 0
}
