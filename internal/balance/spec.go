package balance

import (
	"crypto/tls"
	"net/netip"
	"time"
)

// Listener is the wanted state of one listener.
type Listener struct {
	ID    string
	Bind  string // host:port asked for
	TCP   bool   // carries connections, by its one rule's Forward, and looks into none
	TLS   *TLS   // nil: it speaks plain HTTP, or carries connections as they are
	Rules []Rule // in the order they are tried; the last matches everything

	// Wall time:
	Idle time.Duration // after which a connection with nothing on it is closed; 0: 60 s, 350 s if it carries connections, documented
	Life time.Duration // after which a client's connection takes no more requests; 0: an hour, documented

	Headers Headers
	Log     func(*Entry) // is told of every request when it is over; nil: nobody is. The entry is its until it returns.
}

// TLS is what a listener shows. What changes holds for the next handshake.
type TLS struct {
	Certificates []tls.Certificate // the first where no other has the name that is asked for
	Min          uint16            // the oldest version; 0: TLS 1.2
	Max          uint16            // the newest; 0: TLS 1.3
	Suites       []uint16          // of TLS 1.2 and older; nil: those of crypto/tls
	Next         []string          // of a TCP listener: the protocols that ALPN offers, the first preferred; nil: ALPN is not answered
}

// Headers is what a listener does to the headers of requests and answers, by the
// attributes of a load balancer or a listener.
type Headers struct {
	ForwardedFor string // "" or "append", "preserve", "remove"
	ClientPort   bool   // X-Forwarded-For has the client's port, too
	KeepHost     bool   // Host goes to the target as it came; otherwise it has the listener's port where that is not its protocol's own
	DropInvalid  bool   // names with characters but letters, digits and hyphens are dropped
	TLSInfo      bool   // x-amzn-tls-version and x-amzn-tls-cipher-suite
	Desync       string // "" or "defensive", "strictest", "monitor"
	NoHTTP2      bool   // HTTP/2 is not offered
	NoServer     bool   // the balancer's own answers do not name it
	Answers      []Header
}

// Header is put into every answer, unless the target has set it.
type Header struct{ Name, Value string }

// Rule is a match and what to do: one of Forward, Redirect and Fixed.
type Rule struct {
	ID       string
	Match    []Condition // all must hold
	Forward  []Weighted
	Sticky   time.Duration // of Forward: a client stays with the group that it was given for so long (wall time); 0: it does not
	Redirect *Redirect
	Fixed    *Fixed
}

// Weighted is a group's share among its neighbours: its weight over their sum.
type Weighted struct {
	Group  string
	Weight int
}

// Redirect is an answer that sends the client elsewhere. Each part may be empty,
// which leaves it as it was, or contain #{protocol}, #{host}, #{port}, #{path} and
// #{query}, documented; the path begins with a slash, the query has no question
// mark.
type Redirect struct {
	Code                              int // 301 or 302
	Protocol, Host, Port, Path, Query string
}

// Fixed is an answer without a target.
type Fixed struct {
	Code        int
	Body        string
	ContentType string
}

// Condition is one condition of a rule; one of its values must match. Host, path,
// header and query patterns know * and ?, as documented for listener rules.
type Condition struct {
	Field   string // host-header, path-pattern, http-header, http-request-method, query-string, source-ip
	Header  string // http-header: its name
	Values  []string
	Regexes []string `json:",omitempty"` // host-header, path-pattern, http-header: instead of Values
	Query   []Pair   `json:",omitempty"` // query-string: instead of Values
}

// Pair is a key and a value of a query; a pair without a key matches any key.
type Pair struct{ Key, Value string }

// Group is the wanted state of a target group.
type Group struct {
	ID      string
	Targets []Target
	Check   Check
	Version Version // what its targets speak
	TLS     bool    // over TLS; whose certificate it is is not asked, documented

	Algorithm  Algorithm
	SlowStart  time.Duration // stage time in which a target that became healthy gets its full share; 0: at once
	Sticky     *Sticky       // nil: clients do not stay with targets
	MinHealthy int           // with fewer healthy targets all get requests; 0: one

	// Of connections, not of requests:
	Draining     []netip.AddrPort // taken out; until they are not here either they keep theirs
	Cut          bool             // a target that has drained loses those that it still has
	CutUnhealthy bool             // so does one that is unhealthy while another is healthy
	StickyIP     bool             // clients of one address go to one target, as long as it is healthy
	ProxyHeader  bool             // a connection begins with version 2 of the PROXY protocol
}

// Version is the protocol version of a target group.
type Version string

const (
	HTTP1 Version = ""
	HTTP2 Version = "HTTP2"
	GRPC  Version = "GRPC"
)

// Algorithm is how a target is chosen in its group.
type Algorithm string

const (
	RoundRobin       Algorithm = ""
	LeastOutstanding Algorithm = "least_outstanding_requests"
	WeightedRandom   Algorithm = "weighted_random"
)

// Sticky keeps clients with their targets.
type Sticky struct {
	Cookie string        // the application's own; "": the balancer's
	Life   time.Duration // wall time
}

// Target is an address in a group. The same address with another generation is
// another target: its health begins anew.
type Target struct {
	Addr       netip.AddrPort
	Generation int64
	Was        HealthState // what it is taken for until it is checked, if it is new here; "": Initial
}

// Entry is a request that is over, for an access log. Times that do not apply are
// -1, as are codes that nobody gave; strings are the request's own and are not to
// be kept.
type Entry struct {
	Kind                              string // http, https, h2, grpcs, ws, wss
	Began, Ended                      time.Time
	Client, Target                    netip.AddrPort
	Receiving, Processing, Responding time.Duration
	Code, TargetCode                  int
	Received, Sent                    int64 // bytes from and to the client; of HTTP/2 without heads
	Method, URL, Proto, UserAgent     string
	Cipher, TLSVersion, ServerName    string // of TLS
	Rule, Group                       string
	Trace                             string // X-Amzn-Trace-Id
	Action                            string // forward, redirect, fixed-response
	RedirectURL, Failure              string // where to; why no target answered, in ALB's words
}
