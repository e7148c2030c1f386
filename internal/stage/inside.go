package stage

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"serin/internal/api/ecsd"
	"serin/internal/api/stsd"
	"serin/internal/run"
)

// credentialsPath is where a task's role has its credentials; the id behind it
// is the task's secret.
const credentialsPath = "/v2/credentials/"

// openDoor serves the tasks of a runtime. Where there is no door a task runs
// without its role's credentials, and the log says so.
func (s *Stage) openDoor(ctx context.Context, g *errgroup.Group, r run.Runtime) error {
	door, err := r.Door(ctx)
	if err != nil {
		s.doorClosed = err.Error()
		s.log.Warn("tasks cannot reach the stage: they have no credentials of their roles", "runtime", r.Name(), "err", err)
		return nil
	}
	s.door = door
	if door.Listener == nil {
		return nil
	}
	all := s.Handler()
	inside := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_serin/") || strings.HasPrefix(r.URL.Path, "/moto-api/") { // a task is not to end or reset the stage
			http.Error(w, "the stage's own pages are not for its tasks", http.StatusForbidden)
			return
		}
		all.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: inside, ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	g.Go(func() error {
		if err := server.Serve(door.Listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return nil
}

// inside is a container's environment, as an ECS agent sets it, and where AWS is for
// it: here.
func (s *Stage) inside(keys ecsd.Keys) []string {
	if s.doorClosed != "" {
		return nil
	}
	url := s.door.URL
	if url == "" {
		_, port, _ := strings.Cut(s.config.Endpoint, ":")
		url = "http://127.0.0.1:" + port // a task's root directory may know no localhost
	}
	env := []string{"AWS_ENDPOINT_URL=" + url}
	if keys.Metadata != "" {
		env = append(env, "ECS_CONTAINER_METADATA_URI="+url+"/v3/"+keys.Metadata, "ECS_CONTAINER_METADATA_URI_V4="+url+"/v4/"+keys.Metadata, "ECS_AGENT_URI="+url+"/api/"+keys.Metadata)
	}
	switch {
	case keys.Credentials == "":
	case s.door.URL != "":
		env = append(env, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="+credentialsPath+keys.Credentials)
	default:
		env = append(env, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+url+credentialsPath+keys.Credentials)
	}
	return env
}

// taskSession is how long a task's credentials last; they are renewed before.
// Documented as six hours.
const (
	taskSession = 6 * time.Hour
	renewBefore = time.Hour
)

// taskSets are the credentials handed out, by the id that they were asked with.
type taskSets struct {
	mu   sync.Mutex
	sets map[string]stsd.Session
}

func (t *taskSets) find(id string) (stsd.Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set, ok := t.sets[id]
	return set, ok && time.Until(set.Expires) > renewBefore
}

func (t *taskSets) put(id string, set stsd.Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sets == nil || len(t.sets) > 10_000 {
		t.sets = map[string]stsd.Session{}
	}
	t.sets[id] = set
}

// taskCredentials answers a container that asks for its role's credentials.
func (s *Stage) taskCredentials(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code, message string) {
		writeJSON(w, status, map[string]any{"code": code, "message": message, "HTTPErrorCode": status})
	}
	id := r.PathValue("id")
	as, ok := s.ecs.TaskRole(id)
	if !ok {
		refuse(http.StatusBadRequest, "InvalidIdInRequest", "CredentialsV2Request: Credentials not found")
		return
	}
	if !s.rates.take(w, as.Source) {
		return
	}
	set, err := s.sessionFor(id, as)
	if err != nil {
		refuse(http.StatusInternalServerError, "InternalServerError", err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{
		"RoleArn": set.RoleARN, "AccessKeyId": set.AccessKey, "SecretAccessKey": set.Secret, "Token": set.Token, "Expiration": set.Expires.Format(time.RFC3339),
	})
}

// sessionFor is a session of a service as a role that is good for a while yet; it is
// kept by an id.
func (s *Stage) sessionFor(id string, as ecsd.Actor) (stsd.Session, error) {
	set, ok := s.taskSets.find(id)
	if ok {
		return set, nil
	}
	p, err := s.serviceSession(as)
	if err != nil {
		return set, err
	}
	if set, err = s.sts.Issue(stsd.Session{Account: p.Account, RoleARN: p.Role, RoleID: p.RoleID, Name: as.Session}, taskSession); err == nil {
		s.taskSets.put(id, set)
	}
	return set, err
}
