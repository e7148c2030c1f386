package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/coder/websocket"

	"serin/internal/session"
)

// Command is one to be run in a container of a task that runs.
type Command struct {
	Cluster, Task string
	Container     string // empty: the only one in which commands can be run
	Args          []string
}

// ErrNoExec is that a task was started without ECS Exec.
var ErrNoExec = errors.New("execute command is not enabled")

// Execution is a session of ECS Exec for one command.
type Execution struct {
	ID     string
	conn   *websocket.Conn
	socket session.Socket
}

// Execute makes a session for a command and dials it. What keeps a task from it is
// looked for first, as AWS says little of it.
func Execute(ctx context.Context, config aws.Config, c Command) (*Execution, error) {
	client := ecs.NewFromConfig(config)
	out, err := client.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &c.Cluster, Tasks: []string{c.Task}})
	if err != nil {
		return nil, fmt.Errorf("reading task %s: %w", c.Task, err)
	}
	if len(out.Tasks) == 0 {
		return nil, fmt.Errorf("there is no task %s in cluster %s", c.Task, c.Cluster)
	}
	container, err := executable(out.Tasks[0], c.Container)
	if err != nil {
		return nil, err
	}
	made, err := client.ExecuteCommand(ctx, &ecs.ExecuteCommandInput{Cluster: &c.Cluster, Task: &c.Task, Container: &container, Command: new(commandLine(c.Args)), Interactive: true})
	if err != nil {
		return nil, fmt.Errorf("executing a command in container %s: %w", container, err)
	}
	s := made.Session
	conn, err := dial(ctx, config, aws.ToString(s.StreamUrl))
	if err != nil {
		return nil, fmt.Errorf("dialing session %s: %w", aws.ToString(s.SessionId), err)
	}
	e := &Execution{aws.ToString(s.SessionId), conn, session.NewSocket(conn)}
	if err := e.socket.Open(ctx, aws.ToString(s.TokenValue)); err != nil {
		conn.CloseNow()
		return nil, err
	}
	return e, nil
}

// Attend gives the command what a person types and shows them what it shows, until
// it ends. code is nil where AWS does not tell how it ended.
func (e *Execution) Attend(ctx context.Context, person session.Terminal) (code *int, err error) {
	defer e.conn.CloseNow()
	alive, stop := context.WithCancel(ctx)
	var pinging sync.WaitGroup
	defer pinging.Wait()
	defer stop()
	pinging.Go(func() { e.socket.KeepAlive(alive) })
	if code, err = session.Attend(ctx, e.socket, person); err != nil {
		return code, fmt.Errorf("session %s: %w", e.ID, err)
	}
	e.conn.Close(websocket.StatusNormalClosure, "")
	return code, nil
}

// executable is the container of a task in which a command can be run, or why there
// is none.
func executable(t types.Task, name string) (string, error) {
	id := aws.ToString(t.TaskArn)
	id = id[strings.LastIndexByte(id, '/')+1:]
	switch last := aws.ToString(t.LastStatus); {
	case last != "RUNNING":
		return "", fmt.Errorf("the task %s is %s; commands are run in tasks that are RUNNING", id, last)
	case !t.EnableExecuteCommand:
		return "", fmt.Errorf("the task %s: %w", id, ErrNoExec)
	}
	var with []string // an agent
	for _, c := range t.Containers {
		if execAgent(c) != nil {
			with = append(with, aws.ToString(c.Name))
		}
	}
	switch {
	case name == "" && len(with) == 1:
		name = with[0]
	case name == "" && len(with) > 1:
		return "", fmt.Errorf("the task has several containers; one of %s must be named", strings.Join(with, ", "))
	case name == "":
		return "", fmt.Errorf("no container of the task %s has an agent of ECS Exec", id)
	}
	at := slices.IndexFunc(t.Containers, func(c types.Container) bool { return aws.ToString(c.Name) == name })
	if at < 0 {
		return "", fmt.Errorf("the task has no container %s, but %s", name, strings.Join(with, ", "))
	}
	c, agent := t.Containers[at], execAgent(t.Containers[at])
	switch {
	case aws.ToString(c.LastStatus) != "RUNNING" || c.RuntimeId == nil:
		return "", fmt.Errorf("the container %s is %s; commands are run in containers that are RUNNING", name, aws.ToString(c.LastStatus))
	case agent == nil:
		return "", fmt.Errorf("the container %s has no agent of ECS Exec", name)
	case aws.ToString(agent.LastStatus) != "RUNNING":
		return "", fmt.Errorf("the agent of ECS Exec in the container %s is %s%s", name, aws.ToString(agent.LastStatus), because(agent.Reason))
	}
	return name, nil
}

func execAgent(c types.Container) *types.ManagedAgent {
	at := slices.IndexFunc(c.ManagedAgents, func(a types.ManagedAgent) bool { return a.Name == types.ManagedAgentNameExecuteCommandAgent })
	if at < 0 {
		return nil
	}
	return &c.ManagedAgents[at]
}

func because(reason *string) string {
	if aws.ToString(reason) == "" {
		return ""
	}
	return ": " + *reason
}

// commandLine is arguments as the agent splits them, at blanks and quotes; observed.
func commandLine(args []string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"
	words := make([]string, len(args))
	for i, arg := range args {
		if words[i] = arg; arg == "" || strings.Trim(arg, plain) != "" {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// dial opens a session's WebSocket. Its request is signed, unless the URL is, as the
// plugin does.
func dial(ctx context.Context, config aws.Config, stream string) (*websocket.Conn, error) {
	options := &websocket.DialOptions{HTTPClient: http.DefaultClient}
	switch c := config.HTTPClient.(type) {
	case *http.Client:
		options.HTTPClient = c
	case *awshttp.BuildableClient: // with the certificates and the proxy that are configured
		options.HTTPClient = &http.Client{Transport: c.GetTransport()}
	}
	u, err := url.Parse(stream)
	if err != nil {
		return nil, err
	}
	if !u.Query().Has("X-Amz-Signature") {
		if options.HTTPHeader, err = signed(ctx, config, *u); err != nil {
			return nil, err
		}
	}
	conn, _, err := websocket.Dial(ctx, stream, options)
	return conn, err
}

// signed is the headers of a request for a session's WebSocket; observed in the
// source of the plugin.
func signed(ctx context.Context, config aws.Config, u url.URL) (http.Header, error) {
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	credentials, err := config.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading credentials: %w", err)
	}
	nothing := sha256.Sum256(nil)
	if err := v4.NewSigner().SignHTTP(ctx, credentials, r, hex.EncodeToString(nothing[:]), "ssmmessages", config.Region, time.Now()); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return r.Header, nil
}
