// Asker answers with what the agent of its task tells it: GET /NAME/PATH asks for PATH
// at the URL that the variable NAME of its environment has; ?put= is a body to put there.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	http.HandleFunc("GET /{name}/{path...}", func(w http.ResponseWriter, r *http.Request) {
		method, body := http.MethodGet, r.URL.Query().Get("put")
		if body != "" {
			method = http.MethodPut
		}
		url := strings.TrimSuffix(os.Getenv(r.PathValue("name"))+"/"+r.PathValue("path"), "/")
		ask, err := http.NewRequestWithContext(r.Context(), method, url, strings.NewReader(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		resp, err := http.DefaultClient.Do(ask)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	})
	fmt.Println(http.ListenAndServe(":8080", nil))
	os.Exit(1)
}
