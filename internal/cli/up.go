package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"serin/internal/events"
	"serin/internal/oidc"
	"serin/internal/registry"
	"serin/internal/run"
	"serin/internal/stage"
)

// upFlags are how a stage is started.
type upFlags struct {
	port                              int
	dir, account, region, iam, runner string
	ephemeral, detach, verbose        bool
	throttle                          bool
	spot                              float64
	speed                             float64
	registryMax, eventsTo, secrets    string
	mirrors, functions                []string
}

func (a *app) up() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up",
		Short: "Start the stage, a local AWS region",
		Long: `Start the stage: IAM, STS, ECR, ECS, Elastic Load Balancing, CloudWatch Logs and
the slice of EC2 that a release needs, on one port of the loopback interface.

State is kept in a data directory; tasks go on running when the stage ends and
are found again by the next one. With --ephemeral nothing is kept.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runUp(c.Context(), f) },
	}
	fl := c.Flags()
	fl.IntVar(&f.port, "port", defaultPort, "port on 127.0.0.1; 0 takes a free one")
	fl.StringVar(&f.dir, "data", "", "data directory (default $XDG_STATE_HOME/serin or ~/.local/state/serin)")
	fl.BoolVar(&f.ephemeral, "ephemeral", false, "keep nothing; tasks end with the stage")
	fl.StringVar(&f.account, "account", defaultAccount, "account id of the key test")
	fl.StringVar(&f.region, "default-region", defaultRegion, "region of requests that name none")
	fl.Float64Var(&f.speed, "speed", 1, "stage seconds in a second: 60 makes minutes seconds")
	fl.StringVar(&f.iam, "iam", "enforce", "enforce, report or off")
	fl.Float64Var(&f.spot, "spot-interruptions", 0, "how often Spot takes an instance back by chance: times an hour of the stage's time")
	fl.BoolVar(&f.throttle, "throttle", false, "refuse calls beyond the rates of ECS's API, as AWS does")
	fl.StringVar(&f.runner, "runtime", "auto", "auto, native, rootless, confined or docker")
	fl.StringVar(&f.secrets, "secrets", "", "a JSON file of the secrets and parameters that tasks are given, by name or ARN: {\"prod/db\": {\"password\": \"…\"}, \"/prod/token\": \"…\"}")
	fl.StringVar(&f.registryMax, "registry-max-size", "", "the most that the registry may hold, such as 20GiB (default: what the disk takes)")
	fl.StringArrayVar(&f.mirrors, "upstream", nil, "where the pull through cache finds a registry: HOST=URL, such as public.ecr.aws=http://localhost:5000; may be repeated")
	fl.StringArrayVar(&f.functions, "function", nil, "what stands in for a Lambda function of lifecycle hooks: ARN=URL, or ARN=COMMAND that reads the event and prints the answer; may be repeated")
	fl.StringVar(&f.eventsTo, "events-to", "", "a URL that events are posted to, in EventBridge's form, each until it is taken")
	fl.BoolVarP(&f.detach, "detach", "d", false, "start in the background and return when it answers")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log what happens")
	return c
}

func (a *app) runUp(ctx context.Context, f upFlags) error {
	if f.detach {
		return a.startDetached(ctx, f)
	}
	program, err := os.Executable() // as it is called now: another may take its name
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	network, err := newSockets()
	if err != nil {
		return err
	}
	l, endpoint, err := listen(network.Listen, f.port)
	if err != nil {
		return err
	}
	s, err := newStage(f, endpoint, network, a.err)
	if err != nil {
		l.Close()
		return err
	}
	fmt.Fprintf(a.out, "serin: stage on http://%s, account %s, speed %g, IAM %s\n", endpoint, f.account, f.speed, f.iam)
	fmt.Fprintf(a.out, "serin: HTTPS listeners are trusted with %s (curl --cacert)\n", s.AuthorityFile())
	fmt.Fprintf(a.out, "serin: eval \"$(serin env%s)\" points your tools at it; Ctrl-C ends it\n", portFlag(f.port, endpoint))
	if err := s.Run(ctx, l); err != nil || !s.Restarts() {
		return err
	}
	fmt.Fprintln(a.out, "serin: the stage is started again")
	return network.again(program)
}

func portFlag(port int, endpoint string) string {
	if port == defaultPort {
		return ""
	}
	return " --endpoint-url http://" + endpoint
}

// listen takes the port on loopback. The endpoint says localhost, because
// Docker takes plain HTTP there.
func listen(on func(addr string) (net.Listener, error), port int) (net.Listener, string, error) {
	if port < 0 || port > 65535 {
		return nil, "", usage("--port must be between 0 and 65535, got %d", port)
	}
	l, err := on(fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, "", fmt.Errorf("taking port %d: %w", port, err)
	}
	_, p, err := net.SplitHostPort(l.Addr().String())
	return l, "localhost:" + p, err
}

// newStage makes a stage; one with a network of sockets can be started again in its
// place.
func newStage(f upFlags, endpoint string, network *sockets, log io.Writer) (*stage.Stage, error) {
	mode := stage.Mode(f.iam)
	if mode != stage.Enforce && mode != stage.Report && mode != stage.Off {
		return nil, usage("--iam must be enforce, report or off, got %q", f.iam)
	}
	var most int64
	if f.registryMax != "" {
		var err error
		if most, err = units.RAMInBytes(f.registryMax); err != nil || most <= 0 {
			return nil, usage("--registry-max-size must be a size such as 500MiB or 20GiB, got %q", f.registryMax)
		}
	}
	upstream, err := upstreams(f.mirrors)
	if err != nil {
		return nil, err
	}
	function, err := functions(f.functions)
	if err != nil {
		return nil, err
	}
	if f.spot < 0 {
		return nil, usage("--spot-interruptions must not be less than 0, got %g", f.spot)
	}
	if f.eventsTo != "" {
		if _, err := events.ParseTarget(f.eventsTo); err != nil {
			return nil, usage("--events-to: %v", err)
		}
	}
	var secrets stage.Secrets
	if f.secrets != "" {
		raw, err := os.ReadFile(f.secrets)
		if err == nil {
			secrets, err = stage.ParseSecrets(raw)
		}
		if err != nil {
			return nil, usage("--secrets %s: %v", f.secrets, err)
		}
	}
	dir, err := dataDir(f.dir, f.ephemeral)
	if err != nil {
		return nil, err
	}
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelInfo
	}
	c := stage.Config{
		Dir: dir, Ephemeral: f.ephemeral, Account: f.account, Region: f.region, Endpoint: endpoint, Speed: f.speed, IAM: mode, Throttle: f.throttle, SpotInterruptions: f.spot, RegistryMax: most, Upstream: upstream, Function: function, Secrets: secrets, EventsTo: f.eventsTo,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})),
		Runtime: func(ctx context.Context, c run.Config) (run.Runtime, string, error) {
			return run.Choose(ctx, f.runner, c)
		},
	}
	if network != nil {
		c.Network, c.Restart = network, network.hand
	}
	return stage.New(c)
}

// upstreams is where the pull through cache finds a registry: at its own address,
// or at the mirror that --upstream names. It signs in as docker login did.
func upstreams(mirrors []string) (func(host string) (*registry.Remote, error), error) {
	at := map[string]*url.URL{}
	for _, m := range mirrors {
		host, address, _ := strings.Cut(m, "=")
		u, err := url.Parse(address)
		if err != nil || host == "" || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
			return nil, usage("--upstream must be HOST=URL, such as public.ecr.aws=http://localhost:5000, got %q", m)
		}
		at[host] = u
	}
	return func(host string) (*registry.Remote, error) {
		credentials, err := ociauth.LoadWithEnv(nil, os.Environ())
		if err != nil {
			return nil, fmt.Errorf("reading Docker's configuration: %w", err)
		}
		if u := at[host]; u != nil {
			return registry.NewRemote(u.Host, u.Scheme == "http", credentials)
		}
		return registry.NewRemote(host, false, hub{credentials})
	}, nil
}

// hub is a Docker configuration that knows what docker login calls Docker Hub.
type hub struct{ ociauth.Config }

func (h hub) EntryForRegistry(host string) (ociauth.ConfigEntry, error) {
	if host != "registry-1.docker.io" {
		return h.Config.EntryForRegistry(host)
	}
	for _, name := range []string{"index.docker.io", "https://index.docker.io/v1/"} { // in the file, and in a credential helper
		if e, err := h.Config.EntryForRegistry(name); err == nil && e != (ociauth.ConfigEntry{}) {
			return e, nil
		}
	}
	return ociauth.ConfigEntry{}, nil
}

func dataDir(dir string, ephemeral bool) (string, error) {
	if ephemeral {
		if dir != "" {
			return "", usage("--data and --ephemeral exclude each other")
		}
		return os.MkdirTemp("", "serin-")
	}
	if dir != "" {
		return filepath.Abs(dir)
	}
	if state := os.Getenv("XDG_STATE_HOME"); state != "" {
		return filepath.Join(state, "serin"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding the data directory: %w", err)
	}
	return filepath.Join(home, ".local", "state", "serin"), nil
}

// startDetached starts this program again in the background and waits until it
// answers, or says why it ended.
func (a *app) startDetached(ctx context.Context, f upFlags) error {
	if f.port == 0 {
		return usage("-d needs a --port")
	}
	args := []string{"up", "--port", strconv.Itoa(f.port), "--account", f.account, "--default-region", f.region,
		"--speed", strconv.FormatFloat(f.speed, 'g', -1, 64), "--iam", f.iam, "--runtime", f.runner}
	if f.dir != "" {
		args = append(args, "--data", f.dir)
	}
	if f.ephemeral {
		args = append(args, "--ephemeral")
	}
	if f.secrets != "" {
		args = append(args, "--secrets", f.secrets)
	}
	if f.registryMax != "" {
		args = append(args, "--registry-max-size", f.registryMax)
	}
	if f.eventsTo != "" {
		args = append(args, "--events-to", f.eventsTo)
	}
	for _, m := range f.mirrors {
		args = append(args, "--upstream", m)
	}
	for _, m := range f.functions {
		args = append(args, "--function", m)
	}
	if f.spot != 0 {
		args = append(args, fmt.Sprintf("--spot-interruptions=%g", f.spot))
	}
	if f.throttle {
		args = append(args, "--throttle")
	}
	if f.verbose {
		args = append(args, "--verbose")
	}
	diary, err := os.CreateTemp("", "serin-up-*.log")
	if err != nil {
		return fmt.Errorf("making the stage's log: %w", err)
	}
	defer diary.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = diary, diary
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the stage: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	a.target.endpoint = fmt.Sprintf("http://localhost:%d", f.port)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var health struct{ Status string }
		select {
		case <-ended:
			said, _ := os.ReadFile(diary.Name())
			return fmt.Errorf("the stage ended: %s", strings.TrimPrefix(strings.TrimSpace(string(said)), "serin: error: "))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if a.ask(ctx, "GET", "/_serin/health", "", &health) == nil {
			fmt.Fprintf(a.out, "serin: stage on %s, process %d, log %s\n", a.target.endpoint, cmd.Process.Pid, diary.Name())
			return nil
		}
	}
}

func (a *app) down() *cobra.Command {
	c := &cobra.Command{Use: "down", Short: "End the stage; its tasks go on unless it is ephemeral", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var answer struct{ Status string }
		if err := a.ask(c.Context(), "POST", "/_serin/down", "", &answer); err != nil {
			return err
		}
		u, err := url.Parse(a.target.endpoint)
		if err != nil {
			return err
		}
		for range 600 { // until its port is free
			conn, err := net.DialTimeout("tcp", u.Host, time.Second)
			if err != nil {
				fmt.Fprintln(a.out, "serin: the stage is down")
				return nil
			}
			conn.Close()
			time.Sleep(50 * time.Millisecond)
		}
		return fmt.Errorf("the stage at %s was told to end and still answers", a.target.endpoint)
	}}
	a.endpointFlag(c)
	return c
}

func (a *app) outputFlag(c *cobra.Command) {
	c.Flags().FuncP("output", "o", "json for machines", func(s string) error {
		if s != "json" {
			return fmt.Errorf("must be json, got %q", s)
		}
		a.json = true
		return nil
	})
}

func (a *app) env() *cobra.Command {
	var github string
	var region string
	c := &cobra.Command{
		Use:   "env",
		Short: "Print the environment that points other tools at the stage",
		Long: `Print shell exports that point the AWS CLI, SDKs and GitHub's actions at the stage:

  eval "$(serin env)"
  eval "$(serin env --github repo=OWNER/NAME,ref=refs/heads/main,environment=production)"

With --github the job's token endpoint is there too, as on a runner. A job can
have any claim of GitHub's tokens by its name (ref, environment, event_name or
event, actor, sha, workflow, job_workflow_ref, repository_id, …), and
immutable=true for the subject of repositories made after 15 July 2026,
subject_keys=repo+context+job_workflow_ref for a customised one,
repo_property_NAME=VALUE for custom properties.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			endpoint := a.stageURL()
			lines := [][2]string{{"AWS_ENDPOINT_URL", endpoint}, {"AWS_REGION", region}, {"AWS_DEFAULT_REGION", region}}
			if github == "" {
				lines = append(lines, [2]string{"AWS_ACCESS_KEY_ID", "test"}, [2]string{"AWS_SECRET_ACCESS_KEY", "test"})
			} else {
				q := url.Values{"api-version": {"2.0"}}
				for pair := range strings.SplitSeq(github, ",") {
					k, v, ok := strings.Cut(pair, "=")
					if !ok {
						return usage("--github takes repo=OWNER/NAME and, if wanted, ref=…, environment=… and others, got %q", pair)
					}
					q.Set(k, v)
				}
				if _, err := oidc.JobOf(q); err != nil {
					return usage("--github: %v", err)
				}
				lines = append(lines, [2]string{"ACTIONS_ID_TOKEN_REQUEST_URL", endpoint + "/_serin/github/token?" + q.Encode()}, [2]string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN", "serin"})
			}
			for _, l := range lines {
				fmt.Fprintf(a.out, "export %s='%s'\n", l[0], strings.ReplaceAll(l[1], "'", `'\''`))
			}
			return nil
		},
	}
	a.endpointFlag(c)
	c.Flags().StringVar(&github, "github", "", "the job that tokens speak for: repo=OWNER/NAME,ref=…,environment=…")
	c.Flags().StringVar(&region, "region", defaultRegion, "AWS region")
	return c
}

func (a *app) time() *cobra.Command {
	var speed float64
	c := &cobra.Command{
		Use:   "time [+10m]",
		Short: "Show stage time, push it forward, or change its speed",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in := map[string]any{}
			if len(args) == 1 {
				by, ok := strings.CutPrefix(args[0], "+")
				if _, err := time.ParseDuration(by); !ok || err != nil {
					return usage("stage time is pushed by a length such as +10m, got %q", args[0])
				}
				in["advance"] = by
			}
			if speed != 0 {
				in["speed"] = speed
			}
			body, err := json.Marshal(in)
			if err != nil {
				return err
			}
			var answer struct {
				StageTime time.Time
				Speed     float64
			}
			if err := a.ask(c.Context(), "POST", "/_serin/time", string(body), &answer); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s, %g seconds a second\n", answer.StageTime.Format(time.RFC3339), answer.Speed)
			return nil
		},
	}
	a.endpointFlag(c)
	c.Flags().Float64Var(&speed, "speed", 0, "stage seconds in a second from now on")
	return c
}

func (a *app) reset() *cobra.Command {
	c := &cobra.Command{Use: "reset", Short: "Empty an ephemeral stage", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var answer struct{ Status string }
		if err := a.ask(c.Context(), "POST", "/_serin/reset", "", &answer); err != nil {
			return err
		}
		fmt.Fprintln(a.out, "serin: the stage is empty")
		return nil
	}}
	a.endpointFlag(c)
	return c
}
