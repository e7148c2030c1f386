package stage

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"serin/internal/api/stsd"
	"serin/internal/arn"
	"serin/internal/policy"
	"serin/internal/wire"
)

// learned is what users and roles did on this stage, for the least privilege
// that would have sufficed. It is kept in memory, whatever --iam says: a run
// where everything is allowed is the best one to learn from.
type learned struct {
	mu      sync.Mutex
	acts    map[act]time.Time   // → last done
	entries map[entry]time.Time // → last used
}

// act is one thing done: by whom, and what.
type act struct {
	Principal, Session string // ARN of the user or role; name of the session
	policy.Act
}

// entry is one way into a role.
type entry struct {
	Role, Session, Action string
	Principal             policy.Principal
	PinKey, Pin           string // a key that must go on having its value: aud of a web identity, sts:ExternalId
	Key, Value            string // a key that varies: sub of a web identity
}

const mostLearned = 20_000

func (l *learned) note(call *wire.Call, r *policy.Request) {
	p := call.Principal
	a := act{Principal: cmp.Or(p.Role, p.ARN), Session: p.Session, Act: policy.Act{Action: r.Action, Resource: general(cmp.Or(r.Alias, r.Resource), r.Wild)}}
	if to := r.Context.Get("iam:PassedToService"); len(to) == 1 {
		a.PassedTo = to[0]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acts == nil || len(l.acts) > mostLearned {
		l.acts = map[act]time.Time{}
	}
	l.acts[a] = time.Now()
	if resource, err := arn.Parse(r.Resource); err == nil && strings.HasPrefix(r.Action, "sts:") && resource.Service == "iam" {
		e := entry{Role: r.Resource, Session: first(r.Context.Get("sts:RoleSessionName")), Action: r.Action, Principal: r.Principal}
		if id := first(r.Context.Get("sts:ExternalId")); id != "" {
			e.PinKey, e.Pin = "sts:ExternalId", id
		}
		l.enter(e)
	}
}

// admitted notes that a web identity got in.
func (l *learned) admitted(role stsd.Role, requests []*policy.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range requests {
		_, issuer, _ := strings.Cut(r.Principal.Federated, ":oidc-provider/")
		e := entry{Role: role.ARN, Session: first(r.Context.Get("sts:RoleSessionName")), Action: r.Action, Principal: r.Principal, PinKey: issuer + ":aud", Key: issuer + ":sub"}
		e.Pin, e.Value = first(r.Context.Get(e.PinKey)), first(r.Context.Get(e.Key))
		l.enter(e)
	}
}

// service notes that an AWS service acted as a role.
func (l *learned) service(role, session, service string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enter(entry{Role: role, Session: session, Action: "sts:AssumeRole", Principal: policy.Principal{Service: service}})
}

func (l *learned) enter(e entry) {
	if l.entries == nil || len(l.entries) > mostLearned {
		l.entries = map[entry]time.Time{}
	}
	l.entries[e] = time.Now()
}

func (l *learned) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acts, l.entries = nil, nil
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// general writes an ARN for a policy, wider where its last part is made anew each
// time: the next run has another task, deployment and revision.
func general(resource string, wild bool) string {
	a, err := arn.Parse(resource)
	if err != nil {
		return policy.Literal(resource, wild)
	}
	kind, _, _ := strings.Cut(a.Resource, "/")
	end := -1 // where the star goes
	switch {
	case a.Service == "ecs" && kind == "task-definition":
		end = strings.LastIndexByte(a.Resource, ':')
	case a.Service == "ecs" && slices.Contains([]string{"task", "service-deployment", "service-revision", "container-instance", "task-set"}, kind):
		end = strings.LastIndexByte(a.Resource, '/')
	case a.Service == "logs":
		if i := strings.Index(a.Resource, ":log-stream:"); i >= 0 {
			end = i + len(":log-stream:") - 1
		}
	}
	if end >= 0 {
		a.Resource, wild = a.Resource[:end+1]+"*", true
	}
	return policy.Literal(a.String(), wild)
}

// LeastPrivilege is what would have sufficed for one user or role.
type LeastPrivilege struct {
	Principal string           `json:"principal"`
	Identity  *policy.Document `json:"identityPolicy,omitempty"`
	Trust     *policy.Document `json:"trustPolicy,omitempty"`
}

// least is the least privilege of everybody who did something since, in one
// session where one is named.
func (l *learned) least(session string, since time.Time) []LeastPrivilege {
	l.mu.Lock()
	defer l.mu.Unlock()
	acts, entries := map[string][]policy.Act{}, map[string][]policy.Entry{}
	for a, at := range l.acts {
		if !at.Before(since) && (session == "" || a.Session == session) {
			acts[a.Principal] = append(acts[a.Principal], a.Act)
		}
	}
	for e, at := range l.entries {
		if at.Before(since) || session != "" && e.Session != session {
			continue
		}
		x := policy.Entry{Action: e.Action, Principal: e.Principal, Key: e.Key, Value: e.Value}
		if e.PinKey != "" {
			x.Keys = map[string]string{e.PinKey: e.Pin}
		}
		entries[e.Role] = append(entries[e.Role], x)
	}
	out := []LeastPrivilege{}
	seen := map[string]bool{}
	add := func(who string) {
		if !seen[who] {
			seen[who] = true
			out = append(out, LeastPrivilege{who, policy.Minimal(acts[who]), policy.TightestTrust(entries[who])})
		}
	}
	for who := range acts {
		add(who)
	}
	for who := range entries {
		add(who)
	}
	slices.SortFunc(out, func(a, b LeastPrivilege) int { return strings.Compare(a.Principal, b.Principal) })
	return out
}

// leastPrivilege answers /_serin/policy?session=NAME&since=TIME.
func (s *Stage) leastPrivilege(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var since time.Time
	if text := q.Get("since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": "since must be a time like 2026-11-25T08:00:00Z, got " + text})
			return
		}
	}
	writeJSON(w, http.StatusOK, s.learned.least(q.Get("session"), since))
}
