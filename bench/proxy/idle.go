package main

import (
	"bufio"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// few is how many idle connections each has before they are counted.
const few = 100

// idling prints what an idle connection costs each proxy: the memory that it takes
// more with many than with few. Each has carried one request.
func (b *bench) idling() error {
	fmt.Printf("\nmemory with %d idle connections and with many\n", few)
	for _, p := range b.proxies {
		if p.cmd == nil {
			continue
		}
		many := b.idle
		if p.most > 0 {
			many = min(many, p.most-few)
		}
		at, err := p.idle(many)
		if err != nil {
			fmt.Printf("  %-10s not measured: %v\n", p.name, err)
			continue
		}
		fmt.Printf("  %-10s %6.1f MiB, with %d %.1f MiB: %.2f KiB each\n", p.name, mib(at[0]), many, mib(at[1]), (float64(at[1])-float64(at[0]))/float64(many-few)/1024)
	}
	return nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// idle is the memory with few connections and with all.
func (p *proxy) idle(all int) (at [2]int64, err error) {
	u := &url.URL{Host: p.addr, Path: "/512"}
	open := make([]net.Conn, 0, all)
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for len(open) < all {
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			return at, err
		}
		open = append(open, conn)
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.Path, u.Host)
		if err := answered(bufio.NewReaderSize(conn, 1024)); err != nil {
			return at, fmt.Errorf("connection %d: %w", len(open), err)
		}
		if len(open) == few {
			if at[0], err = memory(p.cmd.Process.Pid); err != nil {
				return at, err
			}
		}
	}
	at[1], err = memory(p.cmd.Process.Pid)
	return at, err
}

// memory is what a process and its children have in the machine, each page
// shared among those that have it.
func memory(pid int) (bytes int64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, err
			}
			bytes += kib << 10
		}
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			return 0, err
		}
		for _, c := range strings.Fields(string(children)) {
			id, err := strconv.Atoi(c)
			if err != nil {
				return 0, err
			}
			more, err := memory(id)
			if err != nil {
				return 0, err
			}
			bytes += more
		}
	}
	return bytes, nil
}
