// Package stagetest runs a whole stage inside a test: real services, real
// loops, a real load balancer, and a fake runtime whose tasks are handlers on
// loopback addresses.
package stagetest

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"serin/internal/run"
	"serin/internal/stage"
)

// Account is the account of a test's stage.
const Account = "111111111111"

// RunT runs a stage at a speed until the test ends, and returns it with an
// administrator's SDK configuration.
func RunT(t testing.TB, speed float64) (*stage.Stage, aws.Config) {
	t.Helper()
	return RunWith(t, speed, nil)
}

// Function stands in for Lambda functions.
type Function func(ctx context.Context, functionARN string, event []byte) ([]byte, error)

// RunWith is RunT with functions.
func RunWith(t testing.TB, speed float64, f Function) (*stage.Stage, aws.Config) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := stage.New(stage.Config{
		Dir: t.TempDir(), Ephemeral: true, Account: Account, Region: "us-east-1", Endpoint: "localhost:" + port, Speed: speed, IAM: stage.Enforce, Function: f,
		Log:     slog.New(slog.DiscardHandler),
		Runtime: func(context.Context, run.Config) (run.Runtime, string, error) { return run.NewFake(), "a test", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error("the stage ended with", err)
		}
	})
	return s, aws.Config{Region: "us-east-1", BaseEndpoint: new("http://localhost:" + port), Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}
}
