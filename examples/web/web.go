// Package web is the example service that `serin demo` releases: a web server
// that says which version it is.
//
// Its environment: VERSION is what it says; PORT is where it listens, 8080 by
// default; HEALTH=broken makes /health answer 500; DELAY, such as 300ms, is how long
// an answer takes; a SIGTERM lets requests under way end. GET /whoami asks AWS, as any program with the SDK would, whose
// credentials it has.
package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Main serves until SIGTERM.
func Main() error {
	version, port := os.Getenv("VERSION"), os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	delay, err := time.ParseDuration(cmp.Or(os.Getenv("DELAY"), "0s"))
	if err != nil {
		return fmt.Errorf("reading DELAY: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if os.Getenv("HEALTH") == "broken" {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /whoami", whoAmI)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		w.Header().Set("X-Version", version)
		fmt.Fprintf(w, "hello from version %s\n", version)
	})
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Printf("version %s listens on %s\n", version, l.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		fmt.Printf("version %s stops\n", version)
		end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		done <- server.Shutdown(end)
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

func whoAmI(w http.ResponseWriter, r *http.Request) {
	c, err := config.LoadDefaultConfig(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	who, err := sts.NewFromConfig(c).GetCallerIdentity(r.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	fmt.Fprintln(w, *who.Arn)
}
