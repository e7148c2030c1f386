package stage

import (
	"encoding/json"
	"net/http"

	"serin/internal/api/ecsd"
	"serin/internal/arn"
)

// ExecLine is a line of what a command says and how it ended: output, then the
// exit code, or an error.
type ExecLine struct {
	Out   []byte `json:"out,omitempty"`
	Code  *int   `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
}

// exec answers POST /_serin/exec: a Command in JSON, and a region. The answer is
// lines of JSON as the command goes on; the end of the request ends the command.
func (s *Stage) exec(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ecsd.Command
		Region string
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "reading the command: " + err.Error()})
		return
	}
	if in.Region == "" {
		in.Region = s.config.Region
	}
	lines := execLines{json.NewEncoder(w), http.NewResponseController(w)}
	code, err := s.ecs.Exec(r.Context(), arn.Scope{Account: s.config.Account, Region: in.Region}, in.Command, lines)
	last := ExecLine{Code: &code}
	if err != nil {
		last = ExecLine{Error: err.Error()}
	}
	lines.say(last)
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
