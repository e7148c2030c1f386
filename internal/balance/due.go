package balance

import (
	"container/heap"
	"sync"
	"time"
)

// due is the checks to come, the next first. A target has one at most.
type due struct {
	mu   sync.Mutex
	list dueList
}

type dueCheck struct {
	at time.Time // stage time
	g  *group
	t  *target
}

func (d *due) push(c dueCheck) {
	d.mu.Lock()
	defer d.mu.Unlock()
	heap.Push(&d.list, c)
}

// pop takes out the checks whose time has come.
func (d *due) pop(now time.Time) (list []dueCheck) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.list) > 0 && !d.list[0].at.After(now) {
		list = append(list, heap.Pop(&d.list).(dueCheck))
	}
	return list
}

// hasten makes the checks of a group due by a time at the latest.
func (d *due) hasten(g *group, by time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.list {
		if c := &d.list[i]; c.g == g && c.at.After(by) {
			c.at = by
		}
	}
	heap.Init(&d.list)
}

// next is when the next check is due, zero if there is none.
func (d *due) next() (at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.list) > 0 {
		at = d.list[0].at
	}
	return at
}

type dueList []dueCheck

func (l dueList) Len() int           { return len(l) }
func (l dueList) Less(i, j int) bool { return l[i].at.Before(l[j].at) }
func (l dueList) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *dueList) Push(x any)        { *l = append(*l, x.(dueCheck)) }

func (l *dueList) Pop() any {
	last := len(*l) - 1
	c := (*l)[last]
	(*l)[last] = dueCheck{}
	*l = (*l)[:last]
	return c
}
