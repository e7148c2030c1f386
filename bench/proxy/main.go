// proxy measures the stage's balancer beside the proxies that people run: HAProxy,
// nginx, Caddy and net/http's ReverseProxy, before the same two targets, in rounds
// that follow each other, so that all have had the same machine. It prints what each
// carries, how long the median and the slowest hundredth took, and what Serin
// carries for each that the other does. Then it opens idle connections and prints
// what each costs.
//
// What is not installed is not compared, and it says so.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	role := flag.String("role", "", "what this process is: target, serin, reverse; by itself it is the one that measures")
	listen := flag.String("listen", "", "where that listens")
	to := flag.String("to", "", "the targets that it forwards to, with commas")
	length := flag.Duration("d", 2*time.Second, "how long a round of one proxy takes")
	rounds := flag.Int("rounds", 3, "how many rounds there are")
	connections := flag.String("c", "1,64,512", "how many connections")
	only := flag.String("only", "", "names of proxies, with commas; all, if empty")
	idle := flag.Int("idle", 10000, "how many idle connections; 0: none")
	flag.Parse()
	err := raise()
	switch {
	case err != nil:
	case *role != "":
		err = play(*role, *listen, strings.Split(*to, ","))
	default:
		b := &bench{length: *length, rounds: *rounds, idle: *idle, missing: map[string]bool{}}
		for c := range strings.SplitSeq(*connections, ",") {
			n, bad := strconv.Atoi(c)
			err = cmp.Or(err, bad)
			b.connections = append(b.connections, n)
		}
		if err == nil {
			err = b.run(strings.FieldsFunc(*only, func(r rune) bool { return r == ',' }))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// raise takes as many descriptors as this machine gives.
func raise() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

type bench struct {
	length      time.Duration
	rounds      int
	connections []int
	idle        int
	work        string // a directory
	running     []*exec.Cmd
	proxies     []*proxy
	missing     map[string]bool // those that are not here
}

// proxy is one that runs.
type proxy struct {
	name string
	addr string
	cmd  *exec.Cmd // nil: the target itself
	most int       // connections that it can have at one time; 0: as many as there are
}

const serin, straight = "serin", "straight"

func (b *bench) run(only []string) (err error) {
	if b.work, err = os.MkdirTemp("", "serin-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	defer b.end()
	if b.idle > 0 { // by itself: who has carried a load keeps its memory
		if err := b.launch(only); err != nil {
			return err
		}
		if err := b.idling(); err != nil {
			return err
		}
		b.end()
	}
	if err := b.launch(only); err != nil {
		return err
	}
	for _, size := range sizes() {
		for _, c := range b.connections {
			if err := b.compare(size, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// sizes are those of the answers.
func sizes() []int { return []int{512, 64 << 10} }

// launch starts the targets and the proxies that are there.
func (b *bench) launch(only []string) error {
	targets := []string{"127.0.0.1:4751", "127.0.0.1:4752"}
	for _, t := range targets {
		if err := b.self(&proxy{name: "target", addr: t}, "-role", "target", "-listen", t); err != nil {
			return err
		}
	}
	b.proxies = []*proxy{{name: straight, addr: targets[0]}}
	for i, k := range kinds() {
		if len(only) > 0 && !slices.Contains(only, k.name) || b.missing[k.name] {
			continue
		}
		p := &proxy{name: k.name, addr: fmt.Sprint("127.0.0.1:", 4760+i)}
		why, err := k.start(b, p, targets)
		if err != nil {
			return fmt.Errorf("starting %s: %w", k.name, err)
		}
		if why != "" {
			fmt.Printf("%s is not compared: %s\n", k.name, why)
			b.missing[k.name] = true
			continue
		}
		b.proxies = append(b.proxies, p)
	}
	return nil
}

// compare prints a table for one size of answers and one number of connections.
func (b *bench) compare(size, connections int) error {
	got := map[string][]result{}
	for range b.rounds {
		for _, p := range b.proxies {
			r, err := load(fmt.Sprintf("http://%s/%d", p.addr, size), connections, b.length)
			if err != nil {
				return fmt.Errorf("%s, %d connections: %w", p.name, connections, err)
			}
			got[p.name] = append(got[p.name], r)
		}
	}
	fmt.Printf("\n%d connections, answers of %d bytes, medians of %d rounds of %s by %s\n", connections, size, b.rounds, b.length, generator())
	fmt.Printf("  %-10s %10s %10s %10s   %s\n", "", "requests/s", "p50 ms", "p99 ms", "serin's share of it: requests/s, p99")
	ours := middle(got[serin])
	for _, p := range b.proxies {
		r := middle(got[p.name])
		fmt.Printf("  %-10s %10.0f %10.3f %10.3f", p.name, r.rate, r.p50, r.p99)
		if p.name != serin && ours.rate > 0 {
			fmt.Printf("   %.2f %.2f", ours.rate/r.rate, ours.p99/r.p99)
		}
		fmt.Println()
	}
	return nil
}

// middle is the median of each number.
func middle(all []result) result {
	if len(all) == 0 {
		return result{}
	}
	of := func(get func(result) float64) float64 {
		var list []float64
		for _, r := range all {
			list = append(list, get(r))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	return result{
		of(func(r result) float64 { return r.rate }), of(func(r result) float64 { return r.p50 }), of(func(r result) float64 { return r.p99 }),
	}
}

// end ends what was started, the last first.
func (b *bench) end() {
	for _, c := range slices.Backward(b.running) {
		c.Process.Signal(syscall.SIGTERM)
		killed := time.AfterFunc(5*time.Second, func() { c.Process.Kill() })
		c.Wait()
		killed.Stop()
	}
	b.running = nil
}
