package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/events"
	"serin/internal/run"
	"serin/internal/stage"
	"serin/internal/stage/stagetest"
)

// output is written by one goroutine and read by another.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestEventsAreShownAndFollowed(t *testing.T) {
	_, c, stop := stagetest.Start(t, stage.Config{Speed: 600}, run.NewFake())
	client, ctx := ecs.NewFromConfig(c), t.Context()
	var out, said output
	ended := make(chan int, 1)
	go func() { ended <- Main([]string{"events", "--follow", "--endpoint-url", *c.BaseEndpoint}, &out, &said) }()

	if _, err := client.CreateCluster(ctx, &ecs.CreateClusterInput{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: ecstypes.NetworkModeAwsvpc, Memory: new("128"),
		ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("example.com/web:1")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("web"), DesiredCount: new(int32(1)),
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"a"}}}}); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out.String(), " service/default/s SERVICE_STEADY_STATE\n"); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it shows\n%s%s", out.String(), said.String())
		}
	}
	if !strings.Contains(out.String(), " service/default/s SERVICE_DEPLOYMENT_COMPLETED, ECS deployment ecs-svc/") || !strings.Contains(out.String(), " RUNNING\n") {
		t.Errorf("it shows\n%s", out.String())
	}

	var list output
	if code := Main([]string{"events", "--limit", "2", "-o", "json", "--endpoint-url", *c.BaseEndpoint}, &list, &said); code != exitOK {
		t.Fatalf("it ended %d: %s", code, said.String())
	}
	lines := strings.Split(strings.TrimSpace(list.String()), "\n")
	var e events.Event
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil || len(lines) != 2 || e.Source != "aws.ecs" {
		t.Errorf("as JSON it shows %v, %v", lines, err)
	}

	stop()
	if code := <-ended; code != exitOK || !strings.Contains(said.String(), "the stage has ended") {
		t.Errorf("at the end it says %q with %d", said.String(), code)
	}
}
