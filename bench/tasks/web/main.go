// web answers on port 8080, as soon as a program can.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	err := http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
