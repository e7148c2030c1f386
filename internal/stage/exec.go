package stage

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"sync"

	"serin/internal/api/ecsd"
	"serin/internal/arn"
	"serin/internal/run"
)

// ExecCall is the first line of a request to run a command: which, where and how.
type ExecCall struct {
	ecsd.Target
	Region   string `json:",omitempty"`
	Args     []string
	User     string   `json:",omitempty"`
	Input    bool     `json:",omitempty"` // it has one
	Terminal bool     `json:",omitempty"`
	Size     run.Size // of the terminal
}

// ExecInput is a line that follows it as the command goes on: input, its end, or the
// terminal's new size.
type ExecInput struct {
	In   []byte    `json:"in,omitempty"`
	End  bool      `json:"end,omitempty"`
	Size *run.Size `json:"size,omitempty"`
}

// ExecLine is a line of what a command says and how it ended: output, then the
// exit code, or an error.
type ExecLine struct {
	Out   []byte `json:"out,omitempty"`
	Code  *int   `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
}

// longestCall is the most bytes of a command.
const longestCall = 1 << 20

// exec answers POST /_serin/exec: an ExecCall, and ExecInputs as the command goes on.
// The answer is ExecLines; the end of the connection ends the command.
func (s *Stage) exec(w http.ResponseWriter, r *http.Request) {
	response := http.NewResponseController(w)
	response.EnableFullDuplex() // a server that cannot reads while it writes anyway
	limit := &io.LimitedReader{R: r.Body, N: longestCall}
	lines := json.NewDecoder(limit)
	var call ExecCall
	if err := lines.Decode(&call); err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "reading the command: " + err.Error()})
		return
	}
	if call.Region == "" {
		call.Region = s.config.Region
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := execLines{json.NewEncoder(w), response}
	command := run.Command{Args: call.Args, User: call.User, Terminal: call.Terminal, Out: out}
	sizes := make(chan run.Size, 1)
	sizes <- call.Size
	command.Resize = sizes
	in, write := io.Pipe()
	if call.Input {
		command.In = in
	}
	var feeding sync.WaitGroup
	defer feeding.Wait()
	defer r.Body.Close()
	defer in.Close()
	feeding.Go(func() { // to its end, or the server does not look whether the client is there
		limit.N = math.MaxInt64
		if err := feed(lines, write, sizes); !errors.Is(err, io.EOF) {
			cancel() // it is gone
		}
	})
	code, err := s.ecs.Exec(ctx, arn.Scope{Account: s.config.Account, Region: call.Region}, call.Target, command)
	last := ExecLine{Code: &code}
	if err != nil {
		last = ExecLine{Error: err.Error()}
	}
	out.say(last)
}

// feed hands on what comes, and returns why there is no more.
func feed(lines *json.Decoder, in *io.PipeWriter, sizes chan run.Size) error {
	for {
		var l ExecInput
		if err := lines.Decode(&l); err != nil {
			return err
		}
		if l.Size != nil {
			select { // only the last one counts
			case <-sizes:
			default:
			}
			sizes <- *l.Size
		}
		in.Write(l.In) // a command that does not read any more is none of the client's
		if l.End {
			in.Close()
		}
	}
}

// execLines makes a line of each write.
type execLines struct {
	*json.Encoder
	response *http.ResponseController
}

func (l execLines) say(line ExecLine) error {
	if err := l.Encode(line); err != nil {
		return err
	}
	return l.response.Flush()
}

func (l execLines) Write(b []byte) (int, error) { return len(b), l.say(ExecLine{Out: b}) }
