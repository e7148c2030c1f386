// Shell serves and, as "shell talk", answers what is typed, knows the size of its
// terminal and ends as it is told.
package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

func main() {
	if os.Args[len(os.Args)-1] != "talk" {
		fmt.Println(http.ListenAndServe(":8080", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		os.Exit(1)
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		for range changed {
			fmt.Println("now", size())
		}
	}()
	fmt.Println("hello", size())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var code int
		if n, _ := fmt.Sscanf(in.Text(), "exit %d", &code); n == 1 {
			os.Exit(code)
		}
		fmt.Println("you said", strings.ToUpper(in.Text()))
	}
	fmt.Println("no more")
}

func size() string {
	w, h, err := term.GetSize(0)
	if err != nil {
		return "no terminal"
	}
	return fmt.Sprintf("%dx%d", w, h)
}
