// app is the program in the images of this package's tests.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	switch os.Args[1] {
	case "serve":
		fmt.Println("serving", os.Getenv("GREETING"))
		signal.Ignore(syscall.SIGINT)
		err := http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			wd, _ := os.Getwd()
			fmt.Fprintf(w, "%s %s", os.Getenv("GREETING"), wd)
		}))
		fmt.Println(err)
		os.Exit(3)
	case "busy": // as much work and memory as it can
		held := make([]byte, 64<<20)
		for i := 0; ; i++ {
			held[i%len(held)]++
		}
	case "exit":
		fmt.Println("one")
		fmt.Fprintln(os.Stderr, "two")
		fmt.Print("three, unfinished")
		os.Exit(7)
	case "where": // what a command in a container sees
		wd, _ := os.Getwd()
		_, err := os.Stat("/app")
		fmt.Println(os.Getenv("GREETING"), wd, os.Getuid(), err == nil)
		resp, err := http.Get("http://" + os.Args[2] + ":8080/")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		resp.Body.Close()
		os.Exit(5)
	case "sleep":
		fmt.Println("asleep")
		time.Sleep(time.Hour)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	}
}
