package run

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// usage is what the task has used until now: as its cgroup keeps it or, where
// it has none, as its processes do. Before it has an address it has neither.
func (s *shim) usage() *Usage {
	s.mu.Lock()
	begun := s.state.Address != ""
	s.mu.Unlock()
	if !begun {
		return nil
	}
	u, ok := s.host.usage()
	if !ok {
		mains := map[string]int{}
		s.mu.Lock()
		for name, p := range s.running {
			mains[name] = p.Process.Pid
		}
		s.mu.Unlock()
		u = ofProcesses(mains)
	}
	return &u
}

// tick is the unit of processor time in /proc, on every machine that Go runs on.
const tick = time.Second / 100

// bookkept is one line of the machine's bookkeeping.
type bookkept struct {
	pid, parent int
	session     int
	zombie      bool          // it has ended, and nobody waited for it yet
	cpu         time.Duration // its own and that of its children that were waited for
}

// ofProcesses sums up this process's descendants, those that are there and those
// that were waited for, and apart the descendants of each container's main process.
func ofProcesses(mains map[string]int) (sum Usage) {
	var waited syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &waited) == nil {
		sum.CPU = time.Duration(waited.Utime.Nano() + waited.Stime.Nano())
	}
	all := readProcesses()
	sum.Containers = map[string]Usage{}
	for name, pid := range mains {
		sum.Containers[name] = Usage{}.plus(append(all.below(pid), all.self[pid]))
	}
	return sum.plus(all.below(os.Getpid()))
}

// plus adds what processes use.
func (u Usage) plus(list []bookkept) Usage {
	for _, p := range list {
		u.CPU += p.cpu
		u.Memory += memoryOf(p.pid)
	}
	return u
}

// machineTime is what the machine's processors have spent, and how many they are: the
// first line of /proc/stat without what is counted twice, as Docker reads it.
func machineTime() (spent time.Duration, cpus int) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(raw) {
		f := bytes.Fields(line)
		switch {
		case len(f) < 9 || !bytes.HasPrefix(f[0], []byte("cpu")):
		case len(f[0]) > 3:
			cpus++
		default:
			for _, n := range f[1:9] { // guests' times are in users'
				spent += time.Duration(number(n)) * tick
			}
		}
	}
	return spent, cpus
}

// processes are those of the machine.
type processes struct {
	self     map[int]bookkept
	children map[int][]bookkept
}

func readProcesses() processes {
	all := processes{map[int]bookkept{}, map[int][]bookkept{}}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, file := range stats {
		if p, ok := readProcess(file); ok {
			all.self[p.pid] = p
			all.children[p.parent] = append(all.children[p.parent], p)
		}
	}
	return all
}

// below are the descendants of a process.
func (all processes) below(pid int) (list []bookkept) {
	for next := all.children[pid]; len(next) > 0; {
		p := next[0]
		next = append(next[1:], all.children[p.pid]...)
		list = append(list, p)
	}
	return list
}

// readProcess reads /proc/PID/stat, see proc(5). The name in it may be anything,
// so what counts follows its last parenthesis.
func readProcess(file string) (p bookkept, ok bool) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return p, false // it has ended
	}
	end := bytes.LastIndexByte(raw, ')')
	fields := bytes.Fields(raw[end+1:])
	if end < 0 || len(fields) < 15 {
		return p, false
	}
	if _, err := fmt.Sscanf(file, "/proc/%d/stat", &p.pid); err != nil {
		return p, false
	}
	p.parent, p.session, p.zombie = number(fields[1]), number(fields[3]), fields[0][0] == 'Z'
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		p.cpu += time.Duration(number(f)) * tick
	}
	return p, true
}

func number(text []byte) int {
	n, err := strconv.Atoi(string(text))
	if err != nil {
		return 0
	}
	return n
}

// memoryOf is a process's share of the memory that it uses, for workers share
// much of theirs; where the machine does not tell the share, all of it.
func memoryOf(pid int) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if _, after, ok := bytes.Cut(raw, []byte("\nPss:")); err == nil && ok {
		return int64(number(bytes.Fields(after)[0])) << 10
	}
	raw, err = os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if fields := bytes.Fields(raw); err == nil && len(fields) > 1 {
		return int64(number(fields[1])) * int64(os.Getpagesize())
	}
	return 0
}
