// tasks starts tasks of a small program on a stage in this process and prints how
// long it takes from the call to the first answer, alone and many at once, and what
// many leave behind. On Docker it says beside it what docker run takes in the same
// minute. The image is present; the program's own start is measured and taken off.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"

	"serin/internal/run"
	"serin/internal/stage"
)

func main() {
	run.Reexec()
	runtimes := flag.String("runtimes", "native,rootless,confined,docker", "which, in order; those that the machine does not have are left out")
	many := flag.String("at-once", "50,200", "how many tasks are started at once, on the first runtime")
	flag.Parse()
	first := true
	for name := range strings.SplitSeq(*runtimes, ",") {
		err := bench(name, *many, first)
		if errors.Is(err, errAbsent) {
			fmt.Printf("%-9s %v\n", name, err)
			continue
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		first = false
	}
}

var errAbsent = errors.New("is not to be had here")

// rounds is how often a single start is measured.
const rounds = 15

func bench(runtime, many string, first bool) error {
	dir, err := os.MkdirTemp("", "serin-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "web")
	build := exec.Command("go", "build", "-o", program, "./bench/tasks/web")
	build.Env, build.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the program: %w", err)
	}
	image, end, err := push(program)
	if err != nil {
		return err
	}
	defer end()
	w, err := begin(filepath.Join(dir, "stage"), runtime, image)
	if err != nil {
		return err
	}
	err = w.measure(runtime, program, image, many, first)
	return errors.Join(err, w.close())
}

// push serves the program as an image.
func push(program string) (ref string, end func(), err error) {
	raw, err := os.ReadFile(program)
	if err != nil {
		return "", nil, err
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		err := w.WriteHeader(&tar.Header{Name: "web", Mode: 0o755, Size: int64(len(raw))})
		if err == nil {
			_, err = w.Write(raw)
		}
		return io.NopCloser(&b), errors.Join(err, w.Close())
	})
	image := v1.Image(empty.Image)
	if err == nil {
		image, err = mutate.AppendLayers(image, layer)
	}
	if err == nil {
		image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/web"}})
	}
	ref = strings.TrimPrefix(server.URL, "http://") + "/web:1"
	if err == nil {
		var parsed name.Reference
		if parsed, err = name.ParseReference(ref); err == nil {
			err = remote.Write(parsed, image)
		}
	}
	return ref, server.Close, err
}

// world is a stage and its client.
type world struct {
	ecs  *ecs.Client
	stop context.CancelFunc
	over chan error
}

func begin(dir, runtime, image string) (*world, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	chosen := make(chan error, 1)
	s, err := stage.New(stage.Config{
		Dir: dir, Ephemeral: true, Account: "000000000000", Region: "us-east-1", Endpoint: l.Addr().String(), Speed: 1, IAM: stage.Enforce, Log: slog.New(slog.DiscardHandler),
		Runtime: func(ctx context.Context, c run.Config) (run.Runtime, string, error) {
			r, why, err := run.Choose(ctx, runtime, c)
			chosen <- err
			return r, why, err
		},
	})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &world{stop: stop, over: make(chan error, 1)}
	go func() { w.over <- s.Run(ctx, l) }()
	if err := <-chosen; err != nil {
		stop()
		<-w.over
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	w.ecs = ecs.NewFromConfig(aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""), BaseEndpoint: new("http://" + l.Addr().String())})
	if _, err := w.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{}); err != nil {
		return nil, err
	}
	_, err = w.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: types.NetworkModeAwsvpc,
		ContainerDefinitions: []types.ContainerDefinition{{Name: new("web"), Image: &image, Memory: new(int32(64)), StopTimeout: new(int32(2)), PortMappings: []types.PortMapping{{ContainerPort: new(int32(8080))}}}}})
	return w, err
}

func (w *world) close() error {
	w.stop()
	return <-w.over
}

func (w *world) measure(runtime, program, image, many string, first bool) error {
	own, err := alone(program)
	if err != nil {
		return err
	}
	if _, err := w.starts(1); err != nil { // pulls the image
		return err
	}
	var times []time.Duration
	for range rounds {
		t, err := w.starts(1)
		if err != nil {
			return err
		}
		times = append(times, t)
	}
	line := fmt.Sprintf("%-9s from the call to the first answer %.0f ms, beyond the program's own start (%.0f ms) %.0f ms", runtime, ms(median(times)), ms(own), ms(median(times)-own))
	if runtime == "docker" {
		theirs, err := dockerRun(image)
		if err != nil {
			return err
		}
		line += fmt.Sprintf("; docker run takes %.0f ms: %+.0f ms", ms(theirs), ms(median(times)-theirs))
	}
	fmt.Println(line)
	if !first {
		return nil
	}
	for n := range strings.SplitSeq(many, ",") {
		var count int
		if _, err := fmt.Sscan(n, &count); err != nil {
			return fmt.Errorf("at-once: %w", err)
		}
		before := left()
		t, err := w.starts(count)
		if err != nil {
			return err
		}
		fmt.Printf("          %d at once: all answer after %.2f s; processes, network devices and mounts after their end: %v, before: %v\n", count, t.Seconds(), left(), before)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// starts starts tasks, waits until all have answered, and stops them; it returns how
// long the answers took.
func (w *world) starts(count int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	var g errgroup.Group
	arns := make(chan string, count)
	for left := count; left > 0; left -= 10 {
		g.Go(func() error {
			out, err := w.ecs.RunTask(ctx, &ecs.RunTaskInput{TaskDefinition: new("web"), Count: new(int32(min(left, 10))), NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"subnet-1"}}}})
			if err != nil {
				return err
			}
			for _, t := range out.Tasks {
				arns <- *t.TaskArn
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	close(arns)
	var list []string
	for a := range arns {
		list = append(list, a)
	}
	for _, some := range chunks(list) {
		g.Go(func() error { return w.answered(ctx, some) })
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	for _, a := range list {
		g.Go(func() error {
			_, err := w.ecs.StopTask(ctx, &ecs.StopTaskInput{Task: &a})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	for _, some := range chunks(list) {
		if err := w.until(ctx, some, func(t types.Task) bool { return *t.LastStatus == "STOPPED" }); err != nil {
			return 0, err
		}
	}
	return took, nil
}

func chunks(list []string) (out [][]string) {
	for some := range slices.Chunk(list, 100) {
		out = append(out, some)
	}
	return out
}

// until waits until all tasks are as they should be.
func (w *world) until(ctx context.Context, arns []string, is func(types.Task) bool) error {
	for {
		out, err := w.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{Tasks: arns})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(out.Tasks, func(t types.Task) bool { return !is(t) }) {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// answered waits until every task has answered a request.
func (w *world) answered(ctx context.Context, arns []string) error {
	var out *ecs.DescribeTasksOutput
	err := w.until(ctx, arns, func(t types.Task) bool { return len(t.Attachments) > 0 || *t.LastStatus == "STOPPED" })
	if err == nil {
		out, err = w.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{Tasks: arns})
	}
	if err != nil {
		return err
	}
	for _, t := range out.Tasks {
		if len(t.Attachments) == 0 {
			return fmt.Errorf("a task stopped: %s", aws.ToString(t.StoppedReason))
		}
		for _, d := range t.Attachments[0].Details {
			if *d.Name == "privateIPv4Address" {
				answer(*d.Value)
			}
		}
	}
	return nil
}

// answer waits for an answer of an address.
func answer(host string) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 100 * time.Millisecond}
	for {
		if resp, err := client.Get("http://" + host + ":8080/"); err == nil {
			resp.Body.Close()
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// alone is the program's own start, from the fork to the first answer.
func alone(program string) (time.Duration, error) {
	var times []time.Duration
	for range rounds {
		began := time.Now()
		cmd := exec.Command(program)
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		answer("127.0.0.1")
		times = append(times, time.Since(began))
		if err := cmd.Process.Kill(); err != nil {
			return 0, err
		}
		cmd.Wait()
	}
	return median(times), nil
}

// dockerRun is what docker run takes to the first answer.
func dockerRun(image string) (time.Duration, error) {
	var times []time.Duration
	for range rounds {
		began := time.Now()
		id, err := exec.Command("docker", "run", "-d", image).Output()
		if err != nil {
			return 0, fmt.Errorf("docker run: %w", err)
		}
		where := strings.TrimSpace(string(id))
		address, err := exec.Command("docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", where).Output()
		if err != nil {
			return 0, fmt.Errorf("docker inspect: %w", err)
		}
		answer(strings.TrimSpace(string(address)))
		times = append(times, time.Since(began))
		if err := exec.Command("docker", "rm", "-f", where).Run(); err != nil {
			return 0, fmt.Errorf("docker rm: %w", err)
		}
	}
	return median(times), nil
}

// left counts what tasks could leave: processes, network devices, mounts.
func left() [3]int {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	devices, _ := filepath.Glob("/sys/class/net/*")
	mounts, _ := os.ReadFile("/proc/self/mounts")
	return [3]int{len(processes), len(devices), bytes.Count(mounts, []byte("\n"))}
}
