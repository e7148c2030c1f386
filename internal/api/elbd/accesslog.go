package elbd

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"serin/internal/balance"
	"serin/internal/clock"
)

// Access logs of application load balancers. The stage has no S3: what AWS puts into
// a bucket lies below a directory, by the same names. Lines are ALB's, documented:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html
//
// A file is of five minutes of stage time, as AWS's are; but it is plain, so that one
// can follow it while it grows, where AWS packs it when the minutes are over.

// logEvery is how much time a file is of.
const logEvery = 5 * time.Minute

// accessLogs keeps the files open that are being written.
type accessLogs struct {
	dir   string
	clock *clock.Clock

	mu    sync.Mutex
	files map[string]*logFile // by load balancer
}

type logFile struct {
	path string
	f    *os.File
	line []byte
}

// logged is what the lines of a listener say that its requests do not.
type logged struct {
	balancer   loadBalancer
	priorities map[string]int      // of rules
	chosen     func(string) string // the certificate for a name
}

// path is where the line of a request that ended at a time goes.
func (l *accessLogs) path(lb loadBalancer, at time.Time) string {
	scope := scopeOf(lb.ARN)
	end := at.Truncate(logEvery).Add(logEvery)
	id := strings.ReplaceAll(last(lb.ARN), "/", ".")
	name := fmt.Sprintf("%s_elasticloadbalancing_%s_%s_%s_%s_%s.log", scope.Account, scope.Region, id, end.Format("20060102T1504Z"), lb.Address, id[strings.LastIndexByte(id, '.')+1:][:8])
	return filepath.Join(l.dir, lb.setting(bucketAttribute), filepath.FromSlash(lb.setting(prefixAttribute)), "AWSLogs", scope.Account, "elasticloadbalancing", scope.Region, end.Format("2006/01/02"), name)
}

// write adds the line of a request that is over. Its times are stage time.
func (l *accessLogs) write(about logged, e *balance.Entry) error {
	now := l.clock.Now().UTC()
	path := l.path(about.balancer, now)
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[about.balancer.ARN]
	if f == nil || f.path != path {
		if f != nil {
			f.f.Close()
			delete(l.files, about.balancer.ARN)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		f = &logFile{path: path, f: file}
		l.files[about.balancer.ARN] = f
	}
	f.line = append(about.line(f.line[:0], e, now), '\n')
	_, err := f.f.Write(f.line)
	return err
}

// close closes the files.
func (l *accessLogs) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for lb, f := range l.files {
		f.f.Close()
		delete(l.files, lb)
	}
}

const logTime = "2006-01-02T15:04:05.000000Z"

// line is a request's line. What Serin knows nothing of is a hyphen, as where it does
// not apply: classification, trace of the connection, transforms.
func (about logged) line(b []byte, e *balance.Entry, ended time.Time) []byte {
	word := func(s string) { b = append(append(b, or(s)...), ' ') }
	quoted := func(s string) { b = append(appendQuoted(b, or(s)), ' ') }
	number := func(n int64) { b = append(strconv.AppendInt(b, n, 10), ' ') }
	code := func(n int) {
		if n < 0 {
			word("")
			return
		}
		number(int64(n))
	}
	word(e.Kind)
	word(ended.Format(logTime))
	word(last(about.balancer.ARN))
	word(port(e.Client))
	word(port(e.Target))
	for _, d := range []time.Duration{e.Receiving, e.Processing, e.Responding} {
		word(took(d))
	}
	code(e.Code)
	code(e.TargetCode)
	number(e.Received)
	number(e.Sent)
	quoted(e.Method + " " + e.URL + " " + e.Proto)
	quoted(e.UserAgent)
	word(e.Cipher)
	word(e.TLSVersion)
	word(e.Group)
	quoted(e.Trace)
	quoted(e.ServerName)
	certificate := ""
	if e.TLSVersion != "" {
		certificate = about.chosen(e.ServerName)
	}
	quoted(certificate)
	if priority, ok := about.priorities[e.Rule]; ok {
		number(int64(priority))
	} else { // no rule was asked, observed
		word("")
	}
	word(ended.Add(-e.Ended.Sub(e.Began)).Format(logTime))
	quoted(e.Action)
	quoted(e.RedirectURL)
	quoted(e.Failure)
	quoted(port(e.Target))
	targetCode := ""
	if e.TargetCode >= 0 {
		targetCode = strconv.Itoa(e.TargetCode)
	}
	quoted(targetCode)
	quoted("") // classification
	quoted("") // and its reason
	word("")   // trace of the connection
	quoted("") // host and URI as they were transformed,
	quoted("")
	quoted("") // and whether they could be
	return b[:len(b)-1]
}

func or(s string) string { return cmp.Or(s, "-") }

// port is an address, or nothing where there is none.
func port(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// took is a time in seconds, -1 where it does not apply.
func took(d time.Duration) string {
	if d < 0 {
		return "-1"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 3, 64)
}

// appendQuoted adds a field in quotation marks, those within it and all that is not
// printable written as \x and two digits.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			b = fmt.Appendf(b, `\x%02X`, c)
		} else {
			b = append(b, c)
		}
	}
	return append(b, '"')
}
