// Package stagetest runs a whole stage inside a test: real services, real
// loops, a real load balancer, and a fake runtime whose tasks are handlers on
// addresses of their own.
//
// RunT runs it on this machine's sockets. In a bubble of testing/synctest, Bubble
// runs it on a network in memory: there time passes when nobody has anything to
// do, so that a fortnight's pause takes no longer than the work around it.
package stagetest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"serin/internal/memnet"
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
	s, c, stop := Start(t, stage.Config{Speed: speed, Function: f}, run.NewFake())
	t.Cleanup(stop)
	return s, c
}

// Start runs a stage on this machine's sockets until the function returned is
// called. It keeps its state where the configuration has a directory.
func Start(t testing.TB, c stage.Config, r run.Runtime) (s *stage.Stage, admin aws.Config, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Endpoint = "localhost:" + port
	return start(t, l, c, r)
}

// Bubble runs a stage inside the test's bubble until the test ends. The client
// reaches what listens inside: load balancers and tasks.
func Bubble(t testing.TB, f Function) (*stage.Stage, aws.Config, *http.Client) {
	t.Helper()
	return inBubble(t, stage.Config{Function: f}, run.NewFake())
}

// inBubble is Bubble with what a test says itself of the stage and its tasks.
func inBubble(t testing.TB, config stage.Config, fake *run.Fake) (*stage.Stage, aws.Config, *http.Client) {
	t.Helper()
	return inBubbleOn(t, config, fake, fake)
}

// inBubbleOn is inBubble with a runtime around the fake one.
func inBubbleOn(t testing.TB, config stage.Config, fake *run.Fake, r run.Runtime) (*stage.Stage, aws.Config, *http.Client) {
	t.Helper()
	n := memnet.New()
	fake.Listen = n.Listen
	l, err := n.Listen("127.0.0.1:4566")
	if err != nil {
		t.Fatal(err)
	}
	client := n.Client()
	t.Cleanup(client.CloseIdleConnections)
	config.Endpoint, config.Speed, config.Network = "127.0.0.1:4566", 1, n
	s, c, stop := start(t, l, config, r)
	t.Cleanup(stop)
	c.HTTPClient = client
	return s, c, client
}

// start runs a stage with what is the same for all tests.
func start(t testing.TB, l net.Listener, c stage.Config, r run.Runtime) (s *stage.Stage, admin aws.Config, stop func()) {
	t.Helper()
	if c.Dir == "" {
		c.Dir, c.Ephemeral = t.TempDir(), true
	}
	c.Account, c.Region, c.IAM, c.Log = Account, "us-east-1", stage.Enforce, slog.New(slog.DiscardHandler)
	c.Runtime = func(context.Context, run.Config) (run.Runtime, string, error) { return r, "a test", nil }
	s, err := stage.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("the stage ended with", err)
		}
	}
	return s, aws.Config{Region: "us-east-1", BaseEndpoint: new("http://" + c.Endpoint), Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}, stop
}
