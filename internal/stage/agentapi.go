package stage

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"serin/internal/api/ecsd"
)

// What a container may ask of an ECS agent: to protect its task from being scaled
// in, and faults in its network. Shapes and texts are the agent's, observed, and
// documented:
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html

// agentPages adds the pages of an ECS agent for its tasks.
func (s *Stage) agentPages(mux *http.ServeMux) {
	mux.HandleFunc("GET /v3/{path...}", s.metadata(3))
	mux.HandleFunc("GET /v4/{path...}", s.metadata(4))
	mux.HandleFunc("GET /api/{key}/task-protection/v1/state", s.taskProtection)
	mux.HandleFunc("PUT /api/{key}/task-protection/v1/state", s.protectTask)
	for _, fault := range []string{"network-blackhole-port", "network-latency", "network-packet-loss"} {
		for _, what := range []string{"start", "stop", "status"} {
			mux.HandleFunc("POST /api/{key}/fault/v1/"+fault+"/"+what, s.fault)
		}
	}
}

// protectionAnswer is one of a protection, a failure and an error.
type protectionAnswer struct {
	RequestID  string               `json:"requestID,omitempty"`
	Protection *types.ProtectedTask `json:"protection,omitempty"`
	Failure    *types.Failure       `json:"failure,omitempty"`
	Error      *protectionError     `json:"error,omitempty"`
}

type protectionError struct {
	Arn           string `json:",omitempty"`
	Code, Message string
}

func refuseProtection(w http.ResponseWriter, status int, e protectionError) {
	writeJSON(w, status, protectionAnswer{Error: &e})
}

// protector is ECS's API as the role of the asker's task calls it; one that is not ok
// was answered. A role that cannot be assumed any more is as good as none.
func (s *Stage) protector(w http.ResponseWriter, q ecsd.Asker) (client *ecs.Client, ok bool) {
	as, ok := s.ecs.TaskRole(q.Credentials)
	if ok {
		var err error
		if client, err = s.ecsAs(q.Credentials, as, q.Scope.Region); err == nil {
			return client, true
		}
		s.log.Warn("a task has no credentials of its role", "task", q.Task, "err", err)
	}
	refuseProtection(w, http.StatusForbidden, protectionError{q.Task, "AccessDeniedException", "Invalid Request: no task IAM role credentials available for task"})
	return nil, false
}

// protecting finds who asks; one that is not ok was answered.
func (s *Stage) protecting(w http.ResponseWriter, r *http.Request) (q ecsd.Asker, ok bool) {
	if q, ok = s.ecs.Asker(r.PathValue("key")); !ok {
		refuseProtection(w, http.StatusNotFound, protectionError{"", "ResourceNotFoundException", "Failed to find a task for the request"})
		return q, false
	}
	return q, s.rates.take(w, q.Task)
}

// taskProtection says whether the asker's task is protected.
func (s *Stage) taskProtection(w http.ResponseWriter, r *http.Request) {
	q, ok := s.protecting(w, r)
	if !ok {
		return
	}
	client, ok := s.protector(w, q)
	if !ok {
		return
	}
	out, err := client.GetTaskProtection(r.Context(), &ecs.GetTaskProtectionInput{Cluster: &q.Cluster, Tasks: []string{q.Task}})
	if err != nil {
		failProtection(w, q, err)
		return
	}
	answerProtection(w, out.ProtectedTasks, out.Failures)
}

// protectTask protects the asker's task, or no longer.
func (s *Stage) protectTask(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ProtectionEnabled *bool
		ExpiresInMinutes  *int32
	}
	d := json.NewDecoder(io.LimitReader(r.Body, 4096))
	d.DisallowUnknownFields()
	if d.Decode(&in) != nil {
		refuseProtection(w, http.StatusBadRequest, protectionError{"", "InvalidParameterException", "UpdateTaskProtection: failed to decode request"})
		return
	}
	q, ok := s.protecting(w, r)
	if !ok {
		return
	}
	if in.ProtectionEnabled == nil {
		refuseProtection(w, http.StatusBadRequest, protectionError{q.Task, "InvalidParameterException", "Invalid request: does not contain 'ProtectionEnabled' field"})
		return
	}
	client, ok := s.protector(w, q)
	if !ok {
		return
	}
	out, err := client.UpdateTaskProtection(r.Context(), &ecs.UpdateTaskProtectionInput{Cluster: &q.Cluster, Tasks: []string{q.Task}, ProtectionEnabled: *in.ProtectionEnabled, ExpiresInMinutes: in.ExpiresInMinutes})
	if err != nil {
		failProtection(w, q, err)
		return
	}
	answerProtection(w, out.ProtectedTasks, out.Failures)
}

func failProtection(w http.ResponseWriter, q ecsd.Asker, err error) {
	f := failureOf(err)
	writeJSON(w, f.status, protectionAnswer{RequestID: f.request, Error: &protectionError{q.Task, f.code, f.message}})
}

// answerProtection answers what ECS said of the one task that it was asked about.
func answerProtection(w http.ResponseWriter, tasks []types.ProtectedTask, failures []types.Failure) {
	if len(failures) > 0 {
		writeJSON(w, http.StatusOK, protectionAnswer{Failure: &failures[0]})
		return
	}
	writeJSON(w, http.StatusOK, protectionAnswer{Protection: &tasks[0]})
}

// fault refuses: no definition has enableFaultInjection, for Serin does not perform
// it yet.
func (s *Stage) fault(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, why string) { writeJSON(w, status, map[string]string{"Error": why}) }
	key := r.PathValue("key")
	q, ok := s.ecs.Asker(key)
	switch {
	case !ok:
		refuse(http.StatusNotFound, fmt.Sprintf("unable to get task arn from request: unable to get task Arn from v3 endpoint ID: %s", key))
	case s.rates.take(w, q.Task):
		refuse(http.StatusBadRequest, "enableFaultInjection is not enabled for task: "+q.Task)
	}
}

// What a task may ask of its agent, documented: requests a second, and at once.
const (
	insideRate  = 40
	insideBurst = 60
)

// rates counts what tasks ask, in wall time, for they wait by their own clocks.
type rates struct {
	mu    sync.Mutex
	tasks map[string]rate
}

type rate struct {
	left float64
	at   time.Time
}

// take counts a request of a task; one too many is answered as the agent does,
// guessed.
func (r *rates) take(w http.ResponseWriter, task string) bool {
	if r.allow(task, time.Now()) {
		return true
	}
	http.Error(w, "You have reached maximum request limit.", http.StatusTooManyRequests)
	return false
}

func (r *rates) allow(task string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks == nil || len(r.tasks) > 10_000 {
		r.tasks = map[string]rate{}
	}
	was, ok := r.tasks[task]
	if !ok {
		was = rate{insideBurst, now}
	}
	left := min(was.left+now.Sub(was.at).Seconds()*insideRate, insideBurst)
	allowed := left >= 1
	if allowed {
		left--
	}
	r.tasks[task] = rate{left, now}
	return allowed
}
