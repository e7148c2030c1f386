package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// result is what one was measured to do.
type result struct{ rate, p50, p99 float64 } // requests a second, milliseconds

func generator() string {
	if _, err := exec.LookPath("wrk"); err == nil {
		return "wrk"
	}
	return "its own load"
}

// load asks for one URL over and over.
func load(url string, connections int, length time.Duration) (result, error) {
	if generator() == "wrk" {
		return wrk(url, connections, length)
	}
	return own(url, connections, length)
}

var (
	wrkRate  = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkShare = regexp.MustCompile(`(50|99)%\s+([0-9.]+)(us|ms|s)`)
	wrkError = regexp.MustCompile(`(?m)^\s+(Socket errors|Non-2xx).*$`)
)

// wrk has one thread: the others of the machine are for what is measured.
func wrk(url string, connections int, length time.Duration) (r result, err error) {
	out, err := exec.Command("wrk", "-t1", "--latency", fmt.Sprint("-c", connections), fmt.Sprintf("-d%.0fs", max(length.Seconds(), 1)), url).CombinedOutput()
	if err != nil {
		return r, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	if bad := wrkError.Find(out); bad != nil {
		return r, fmt.Errorf("wrk: %s", bytes.TrimSpace(bad))
	}
	rate := wrkRate.FindSubmatch(out)
	if rate == nil {
		return r, fmt.Errorf("wrk says no rate:\n%s", out)
	}
	r.rate, err = strconv.ParseFloat(string(rate[1]), 64)
	for _, m := range wrkShare.FindAllSubmatch(out, -1) {
		took, bad := time.ParseDuration(string(m[2]) + string(m[3]))
		if bad != nil {
			return r, bad
		}
		if string(m[1]) == "50" {
			r.p50 = took.Seconds() * 1e3
		} else {
			r.p99 = took.Seconds() * 1e3
		}
	}
	return r, err
}

// own is a load for machines without wrk: it takes more of them.
func own(at string, connections int, length time.Duration) (r result, err error) {
	u, err := url.Parse(at)
	if err != nil {
		return r, err
	}
	end := time.Now().Add(length)
	all := make([][]time.Duration, connections)
	var first atomic.Pointer[error]
	var askers sync.WaitGroup
	for i := range all {
		askers.Go(func() {
			took, err := ask(u, end)
			if err != nil {
				first.CompareAndSwap(nil, &err)
			}
			all[i] = took
		})
	}
	askers.Wait()
	if err := first.Load(); err != nil {
		return r, *err
	}
	list := slices.Concat(all...)
	slices.Sort(list)
	at50, at99 := list[len(list)/2], list[len(list)*99/100]
	return result{float64(len(list)) / length.Seconds(), at50.Seconds() * 1e3, at99.Seconds() * 1e3}, nil
}

// ask is one connection's requests.
func ask(u *url.URL, end time.Time) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 32<<10)
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.Path, u.Host)
	for began := time.Now(); began.Before(end); began = time.Now() {
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		if err := answered(in); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// answered reads one answer and throws it away.
func answered(in *bufio.Reader) error {
	first, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(first, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answered with %q", first)
	}
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		if len(name) == 0 {
			break
		}
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("answered without a length")
	}
	_, err = io.CopyN(io.Discard, in, int64(length))
	return err
}
