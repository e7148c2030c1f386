// app is the program in the images of this package's tests.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	verbs[os.Args[1]](os.Args[2:])
}

// verbs are what it can be asked for.
var verbs = map[string]func(args []string){
	"serve": func([]string) {
		fmt.Println("serving", os.Getenv("GREETING"))
		signal.Ignore(syscall.SIGINT)
		err := http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			wd, _ := os.Getwd()
			fmt.Fprintf(w, "%s %s", os.Getenv("GREETING"), wd)
		}))
		fmt.Println(err)
		os.Exit(3)
	},
	"busy": func([]string) { // as much work and memory as it can
		held := make([]byte, 64<<20)
		for i := 0; ; i++ {
			held[i%len(held)]++
		}
	},
	"hog": func([]string) { // memory without end
		var held [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			held = append(held, b)
		}
	},
	"exit": func([]string) {
		fmt.Println("one")
		fmt.Fprintln(os.Stderr, "two")
		fmt.Print("three, unfinished")
		os.Exit(7)
	},
	"where": func(args []string) { // what a command in a container sees
		wd, _ := os.Getwd()
		_, err := os.Stat("/app")
		fmt.Println(os.Getenv("GREETING"), wd, os.Getuid(), err == nil)
		resp, err := http.Get("http://" + args[0] + ":8080/")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		resp.Body.Close()
		os.Exit(5)
	},
	"sleep": func([]string) {
		fmt.Println("asleep")
		time.Sleep(time.Hour)
	},
	"echo": func([]string) { // says its input again, and how it ended
		n, err := io.Copy(os.Stdout, os.Stdin)
		fmt.Println(n, err)
	},
	"terminal": func([]string) { terminal() }, // what a program knows of its terminal; each line is a word to it
	"family": func(args []string) { // a child in a session of its own, and one that has another parent; both have a mark
		for _, verb := range []string{"sleep", "orphan"} {
			c := again(verb, args[0])
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: verb == "sleep"}
			check(c.Start())
			if verb == "orphan" {
				c.Wait()
			}
		}
		fmt.Println("family")
		if len(args) == 1 {
			time.Sleep(time.Hour)
		}
	},
	"orphan": func(args []string) { check(again("sleep", args[0]).Start()) },
	"stubborn": func([]string) {
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	},
	"signal": func([]string) { // says which signal ends it
		got := make(chan os.Signal, 1)
		signal.Notify(got, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1)
		fmt.Println("ready")
		fmt.Println(<-got)
	},
	"ask": func(args []string) { // an address, until it answers
		for {
			resp, err := http.Get("http://" + args[0] + "/")
			if err == nil {
				b, _ := io.ReadAll(resp.Body)
				fmt.Println(string(b))
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	},
	"hear": func([]string) { // one datagram
		c, err := net.ListenPacket("udp", "127.0.0.1:8125")
		check(err)
		fmt.Println("ready")
		b := make([]byte, 100)
		n, _, err := c.ReadFrom(b)
		check(err)
		fmt.Println(string(b[:n]))
	},
	"mirror": func([]string) { // datagrams
		c, err := net.ListenPacket("udp4", ":8125")
		check(err)
		fmt.Println("ready")
		for b := make([]byte, 100); ; {
			n, from, err := c.ReadFrom(b)
			check(err)
			_, err = c.WriteTo(b[:n], from)
			check(err)
		}
	},
	"shout": func(args []string) { // datagrams to localhost, without connecting
		c, err := net.ListenPacket("udp", ":0")
		check(err)
		to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8125}
		for {
			if _, err := c.WriteTo([]byte("heard"), to); err != nil {
				fmt.Println(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	},
	"late": func([]string) { // find at localhost what listens where the system likes
		l, err := net.Listen("tcp", ":0")
		check(err)
		_, port, err := net.SplitHostPort(l.Addr().String())
		check(err)
		_, err = net.Dial("tcp", "localhost:"+port)
		check(err)
		fmt.Println("found")
	},
	"far": func(args []string) { // a datagram to another machine, without connecting
		c, err := net.ListenPacket("udp4", ":0")
		check(err)
		_, err = c.WriteTo([]byte("hello"), &net.UDPAddr{IP: net.ParseIP(args[0]), Port: 53})
		check(err)
		fmt.Println("sent")
	},
	"write": func(args []string) { check(os.WriteFile(args[0], []byte(args[1]), 0o644)) },
	"append": func(args []string) { // a letter, and what there is then
		f, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		check(err)
		_, err = f.WriteString("x")
		check(err)
		check(f.Close())
		read(args[0])
	},
	"read": func(args []string) {
		for _, file := range args {
			read(file)
		}
	},
	"self": func([]string) { // who and what it is
		host, _ := os.Hostname()
		var files syscall.Rlimit
		check(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
		fmt.Println(os.Getpid(), os.Getuid(), os.Getgid(), host, files.Cur, files.Max, status("CapEff"), status("CapBnd"), status("CapInh"), status("NoNewPrivs"))
	},
	"look": func([]string) { // for a process that sleeps, and end it
		for {
			files, _ := os.ReadDir("/proc")
			for _, f := range files {
				line, _ := os.ReadFile("/proc/" + f.Name() + "/cmdline")
				pid, err := strconv.Atoi(f.Name())
				if err == nil && strings.HasSuffix(string(line), "\x00sleep\x00") {
					check(syscall.Kill(pid, syscall.SIGKILL))
					fmt.Println("found")
					return
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	},
	"queues": func(args []string) { // System V queues of messages: makes one, or counts
		if len(args) > 0 {
			_, _, err := syscall.Syscall(syscall.SYS_MSGGET, 77, 0o1666, 0)
			fmt.Println(err == 0)
			return
		}
		b, err := os.ReadFile("/proc/sysvipc/msg")
		check(err)
		fmt.Println(strings.Count(string(b), "\n") - 1)
	},
	"tty": func([]string) { // whether its output is a terminal
		st, err := os.Stdout.Stat()
		check(err)
		fmt.Println(st.Mode()&os.ModeCharDevice != 0)
	},
	"input": func([]string) { // whether its input stays open
		ended := make(chan bool)
		go func() { os.Stdin.Read(make([]byte, 1)); close(ended) }()
		select {
		case <-ended:
			fmt.Println("ended")
		case <-time.After(200 * time.Millisecond):
			fmt.Println("open")
		}
	},
	"fork": func([]string) { // away: a child in a session of its own that stays
		cmd := again("sleep")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		check(cmd.Start())
		fmt.Println("forked")
	},
	"long": func(args []string) { // a line
		n, err := strconv.Atoi(args[0])
		check(err)
		os.Stdout.Write(append(bytes.Repeat([]byte("a"), n), '\n'))
		fmt.Println("end")
	},
	"flood": func(args []string) { // lines
		n, err := strconv.Atoi(args[0])
		check(err)
		w := bufio.NewWriter(os.Stdout)
		for i := range n {
			fmt.Fprintf(w, "line %d of many that are written as fast as can be\n", i)
		}
		w.Flush()
	},
}

// again is this program, which is not everywhere at one place.
func again(verb string, args ...string) *exec.Cmd {
	program := "/app"
	if _, err := os.Stat(program); err != nil {
		program = "/proc/self/exe"
	}
	return exec.Command(program, append([]string{verb}, args...)...)
}

func read(file string) {
	b, err := os.ReadFile(file)
	check(err)
	fmt.Println(strings.TrimSpace(string(b)))
}

// status is a line of /proc/self/status.
func status(name string) string {
	b, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(b), "\n") {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return "-"
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// size is the terminal's, rows and columns.
func size() (s struct{ Rows, Columns, X, Y uint16 }, ok bool) {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&s)))
	return s, errno == 0
}

func terminal() {
	s, ok := size()
	name, err := os.Readlink("/proc/self/fd/0")
	if err != nil {
		name = err.Error()
	}
	fmt.Println(ok, s.Columns, s.Rows, os.Getenv("TERM"), os.Getuid(), name)
	changed, interrupted := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	signal.Notify(interrupted, syscall.SIGINT)
	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
	}()
	for {
		select {
		case <-changed:
			s, _ := size()
			fmt.Println("size", s.Columns, s.Rows)
		case <-interrupted:
			fmt.Println("interrupted")
		case line, more := <-lines:
			if !more {
				fmt.Println("the end")
				os.Exit(9)
			}
			fmt.Println("read " + line)
		}
	}
}
