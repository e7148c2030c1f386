package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"

	"serin/internal/stage"
)

// mostAnswer is how much of a function's answer is read, in bytes: Lambda's own
// limit.
const mostAnswer = 6 << 20

// functions is what stands in for Lambda functions: of each ARN a URL, which is
// sent the event, or a command of the shell, which reads it.
func functions(list []string) (func(context.Context, string, []byte) ([]byte, error), error) {
	at := map[string]string{}
	for _, f := range list {
		name, target, _ := strings.Cut(f, "=")
		if !strings.HasPrefix(name, "arn:") || target == "" {
			return nil, usage("--function must be ARN=URL or ARN=COMMAND, got %q", f)
		}
		at[name] = target
	}
	return func(ctx context.Context, functionARN string, event []byte) ([]byte, error) {
		target, ok := at[functionARN]
		if !ok {
			return nil, fmt.Errorf("%s: %s (serin up --function %s=URL names what stands in for it)", stage.NoFunction, functionARN, functionARN)
		}
		if u, err := url.Parse(target); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
			return post(ctx, target, event)
		}
		return command(ctx, target, event)
	}, nil
}

func post(ctx context.Context, target string, event []byte) ([]byte, error) {
	in, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(event))
	if err != nil {
		return nil, err
	}
	in.Header.Set("Content-Type", "application/json")
	out, err := http.DefaultClient.Do(in)
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(out.Body, mostAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", target, err)
	}
	if out.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s answers %s", target, out.Status)
	}
	return answer, nil
}

func command(ctx context.Context, line string, event []byte) ([]byte, error) {
	var answer, said bytes.Buffer
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(event), &answer, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%q: %w %s", line, err, strings.TrimSpace(said.String()))
	}
	return answer.Bytes(), nil
}
