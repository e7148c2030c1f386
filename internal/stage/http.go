package stage

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"serin/internal/api/ecrd"
	"serin/internal/oidc"
)

// Handler is the stage's one port: the registry at /v2/, what an ECS
// agent tells its tasks, sessions in containers, the stage's own introspection at /_serin/, and the services
// everywhere else.
func (s *Stage) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v2/", s.ecr)
	mux.HandleFunc("GET "+ecrd.DownloadPath, s.ecr.ServeDownload)
	mux.HandleFunc("GET "+credentialsPath+"{id}", s.taskCredentials) // no repository's path has just one word
	s.agentPages(mux)
	mux.HandleFunc("GET "+sessionPath+"{session}", s.attend)
	mux.HandleFunc("GET /_serin/health", s.health)
	mux.HandleFunc("GET /_localstack/health", s.health)
	mux.HandleFunc("GET /_serin/status", s.status)
	mux.HandleFunc("GET /_serin/decisions", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.decisions.all()) })
	mux.HandleFunc("GET /_serin/decisions/{id}", s.decision)
	mux.HandleFunc("GET /_serin/policy", s.leastPrivilege)
	mux.HandleFunc("GET /_serin/events", s.eventList)
	mux.HandleFunc("GET /_serin/traffic", s.traffic)
	mux.Handle("GET /_serin/metrics", s.metrics())
	mux.HandleFunc("GET /_serin/rollbacks", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.ecs.Rollbacks()) })
	mux.HandleFunc("POST /_serin/time", s.advance)
	mux.HandleFunc("POST /_serin/exec", s.exec)
	mux.HandleFunc("POST /_serin/spot/interrupt", s.interrupt)
	mux.HandleFunc("POST /_serin/instances/impair", s.impair)
	mux.HandleFunc("POST /_serin/capacity/deny", s.setCapacity(true))
	mux.HandleFunc("POST /_serin/capacity/allow", s.setCapacity(false))
	mux.HandleFunc("POST /_serin/reset", s.reset)
	mux.HandleFunc("POST /moto-api/reset", s.reset)
	mux.HandleFunc("POST /_serin/restart", s.restart)
	mux.HandleFunc("POST /_serin/down", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "going down"})
		s.Down()
	})
	mux.HandleFunc("GET /_serin/github/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, oidc.Discovery("http://"+s.config.Endpoint+"/_serin/github"))
	})
	keys := func(rotate bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			keys, err := s.issuerKeys(rotate)
			if err != nil {
				writeJSON(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
				return
			}
			writeJSON(w, http.StatusOK, keys.JWKS())
		}
	}
	mux.HandleFunc("GET /_serin/github/.well-known/jwks", keys(false))
	mux.HandleFunc("POST /_serin/github/rotate", keys(true))
	mux.HandleFunc("GET /_serin/github/token", s.token)
	mux.HandleFunc("/_serin/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "serin has no "+r.Method+" "+r.URL.Path, http.StatusNotFound)
	})
	mux.Handle("/", s.gateway)
	// A browser on this machine must not be made to speak for its user: pages of
	// other origins may not call the stage.
	protection := http.NewCrossOriginProtection()
	return protection.Handler(mux)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.Encode(v)
}

func (s *Stage) health(w http.ResponseWriter, _ *http.Request) {
	services := map[string]string{}
	for _, svc := range []string{"iam", "sts", "ecr", "ecs", "elbv2", "logs", "cloudwatch", "ec2"} {
		services[svc] = "running"
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": "running", "services": services, "version": Version, "started": s.started})
}

// Version is set by whoever builds a release.
var Version = "dev"

// Status is what people ask a stage first.
type Status struct {
	Account   string              `json:"account"`
	Region    string              `json:"region"`
	Endpoint  string              `json:"endpoint"`
	Runtime   string              `json:"runtime"`
	Reason    string              `json:"runtimeReason"`
	Time      time.Time           `json:"stageTime"`
	Speed     float64             `json:"speed"`
	Up        string              `json:"up"`
	IAM       Mode                `json:"iam"`
	Throttle  bool                `json:"throttle"`
	Ephemeral bool                `json:"ephemeral"`
	Directory string              `json:"directory"`
	Balancers map[string][]string `json:"loadBalancers"`
	Authority string              `json:"authority"` // the file of its certificate
	Registry  struct {
		Bytes int64 `json:"bytes"`
		Max   int64 `json:"maxBytes"` // 0: what the disk takes
	} `json:"registry"`
}

func (s *Stage) status(w http.ResponseWriter, _ *http.Request) {
	st := Status{
		Account: s.config.Account, Region: s.config.Region, Endpoint: "http://" + s.config.Endpoint, Runtime: s.runtime.Name(),
		Time: s.clock.Now(), Speed: s.clock.Scale(), Up: time.Since(s.started).Round(time.Second).String(), IAM: s.config.IAM, Throttle: s.config.Throttle,
		Ephemeral: s.config.Ephemeral, Directory: s.config.Dir, Balancers: s.elb.Endpoints(), Authority: s.AuthorityFile(),
	}
	st.Registry.Bytes, st.Registry.Max = s.blobs.Used(), s.config.RegistryMax
	if s.runtime.ready() {
		st.Reason = s.runtime.why
	}
	writeJSON(w, http.StatusOK, st)
}

// decision answers why a request was denied: by its id, or the last one; as text
// where text is asked for.
func (s *Stage) decision(w http.ResponseWriter, r *http.Request) {
	d, ok := s.decisions.find(r.PathValue("id"))
	switch {
	case !ok && r.PathValue("id") == "last":
		writeJSON(w, http.StatusNotFound, map[string]string{"error": "nothing was denied since this stage started"})
	case !ok:
		writeJSON(w, http.StatusNotFound, map[string]string{"error": fmt.Sprintf("the stage denied no request %s; it keeps the last %d since its start", r.PathValue("id"), mostDecisions)})
	case strings.Contains(r.Header.Get("Accept"), "text/plain"):
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, d.Text())
	default:
		writeJSON(w, http.StatusOK, d)
	}
}

// advance pushes stage time: {"advance": "10m"} or {"speed": 60}.
func (s *Stage) advance(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Advance string  `json:"advance"`
		Speed   float64 `json:"speed"`
	}
	d := json.NewDecoder(io.LimitReader(r.Body, 4096))
	d.DisallowUnknownFields()
	err := d.Decode(&in)
	if err == nil && in.Advance != "" {
		var by time.Duration
		if by, err = time.ParseDuration(in.Advance); err == nil {
			err = s.clock.Advance(by)
		}
	}
	if err == nil && in.Speed != 0 {
		err = s.clock.SetScale(in.Speed)
	}
	if err == nil { // a crash must not take the jump back
		err = s.remember()
	}
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"stageTime": s.clock.Now(), "speed": s.clock.Scale()})
}

// reset empties an ephemeral stage. One with a data directory refuses: what a
// user keeps is not dropped by a test suite that asks the wrong port.
func (s *Stage) reset(w http.ResponseWriter, _ *http.Request) {
	if !s.config.Ephemeral {
		writeJSON(w, http.StatusConflict, map[string]string{"error": "this stage keeps its state in " + s.config.Dir + "; only one started with --ephemeral can be reset"})
		return
	}
	if err := s.endTasks(); err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
		return
	}
	err := s.store.Reset()
	s.blobs.Abandon(func(string) bool { return true })
	s.balance.Measure() // what was carried before is nobody's
	s.cw.Reset()
	s.decisions.reset()
	s.learned.reset()
	if err == nil {
		err = s.remember()
	}
	if err == nil {
		err = s.showAuthority()
	}
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// token is the runner's token endpoint: it answers as GitHub's does. The job
// that a token speaks for is in the URL; the bearer is the word "serin", for a
// runner always sends one.
func (s *Stage) token(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		http.Error(w, "a bearer token is required", http.StatusUnauthorized)
		return
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() && !ip.IsPrivate() {
		http.Error(w, "tokens are made for this machine only", http.StatusForbidden)
		return
	}
	job, err := oidc.JobOf(r.URL.Query())
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"message": err.Error()})
		return
	}
	keys, err := s.issuerKeys(false)
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"message": err.Error()})
		return
	}
	raw, err := keys[0].Mint(job, r.URL.Query().Get("audience"), time.Now())
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"message": err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"count":%d,"value":%q}`, len(raw), raw) // on one line, as GitHub writes it
}

// HTTPClient calls the stage in this process, without a socket.
func (s *Stage) HTTPClient() *http.Client { return &http.Client{Transport: direct{s.Handler()}} }

type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	w := &pipeWriter{header: http.Header{}, body: pw, ready: make(chan struct{})}
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		defer func() { // as net/http's server does: one request ends, not the program
			if broken := recover(); broken != nil {
				w.WriteHeader(http.StatusInternalServerError)
				pw.CloseWithError(fmt.Errorf("the handler panicked: %v", broken))
			}
		}()
		d.handler.ServeHTTP(w, in)
		w.WriteHeader(http.StatusOK)
		pw.Close()
	}()
	select {
	case <-w.ready:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return &http.Response{Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: pr, ContentLength: -1, Request: r}, nil
}

// pipeWriter is a ResponseWriter whose body is read while it is written.
type pipeWriter struct {
	header, sent http.Header
	status       int
	body         *io.PipeWriter
	ready        chan struct{}
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status, w.sent = status, w.header.Clone()
		close(w.ready)
	}
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
