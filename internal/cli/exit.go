package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"serin/internal/image"
	"serin/internal/release"
	"serin/internal/stage"
	"serin/internal/store"
)

// Exit codes, part of the interface.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2
	exitRolledBack = 3
	exitTimedOut   = 4
	exitPaused     = 5
	exitDenied     = 6
)

type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// hintedError is an error with the way out of it.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

// fail prints an error, and the way out where we know it, and returns its code.
func (a *app) fail(err error) int {
	if errors.Is(err, errDetached) {
		return exitTimedOut
	}
	message := err.Error()
	code := exitFailed
	var hint string
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		message = api.ErrorCode() + ": " + api.ErrorMessage()
		if strings.Contains(api.ErrorCode(), "AccessDenied") || strings.Contains(api.ErrorCode(), "Unauthorized") {
			code = exitDenied
			hint = a.why(err)
		}
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		code = exitUsage
	}
	if e, ok := errors.AsType[*image.InputError](err); ok {
		code, hint = exitUsage, e.Hint
	}
	if e, ok := errors.AsType[*image.ToolError](err); ok {
		hint = e.Hint
	}
	if e, ok := errors.AsType[*transport.Error](err); ok && (e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden) {
		code = exitDenied
	}
	if e, ok := errors.AsType[*hintedError](err); ok && e.hint != "" {
		hint = e.hint
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED) && hint == "":
		hint = "no stage answers at " + a.target.endpoint + "; start one with: serin up -d"
	case errors.Is(err, store.ErrInUse):
		hint = "serin down ends the other stage; or give this one a --data directory of its own"
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "listen" && errors.Is(err, syscall.EADDRINUSE) {
		hint = "another program listens there; choose a --port"
	}
	if errors.Is(err, context.Canceled) {
		message = "interrupted"
	}
	fmt.Fprintln(a.err, "serin: error:", message)
	if hint != "" {
		fmt.Fprintln(a.err, "serin: hint:", hint)
	}
	return code
}

// why is what the stage knows of a denied request. On AWS nobody says.
func (a *app) why(err error) string {
	re, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || a.target.name == "aws" {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var d stage.Decision
	if a.ask(ctx, "GET", "/_serin/decisions/"+re.ServiceRequestID(), "", &d) != nil {
		return ""
	}
	return "the stage says why\n" + strings.TrimRight(d.Text(), "\n")
}

func exitOf(v release.Verdict) int {
	switch v {
	case release.Deployed:
		return exitOK
	case release.RolledBack:
		return exitRolledBack
	case release.Running:
		return exitTimedOut
	case release.Paused:
		return exitPaused
	}
	return exitFailed
}
