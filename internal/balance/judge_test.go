package balance_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// judge is a target that reads as RFC 9112 is written and forgives nothing. What
// it finds in the bytes is what every other server must find in them, too.
type judge struct {
	addr   netip.AddrPort
	mu     sync.Mutex
	seen   []*seen
	faults []error
}

// seen is a request as it came.
type seen struct {
	method, target string
	fields         []field
	body           string
	trailers       []field
}

type field struct{ name, value string }

// values is what a field has, in any spelling of its name.
func values(fields []field, name string) (out []string) {
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			out = append(out, f.value)
		}
	}
	return out
}

// folded is what one of the request's fields has.
func (s *seen) folded(name string) []string { return values(s.fields, name) }

// judged starts a judge. It answers each request with its method, its
// target and its body.
func judged(t testing.TB) *judge {
	j := &judge{}
	j.addr = raw(t, func(p *peer) {
		for p.any() {
			r, err := strictly(p.in)
			j.mu.Lock()
			if err != nil {
				j.faults = append(j.faults, err)
			} else {
				j.seen = append(j.seen, r)
			}
			j.mu.Unlock()
			if err != nil {
				return
			}
			body := r.method + " " + r.target + "\n" + r.body
			length := fmt.Sprintf("Content-Length: %d", len(body))
			if r.method == "HEAD" {
				body = ""
			}
			p.say(crlf("HTTP/1.1 200 OK", length), body)
		}
	})
	return j
}

// requests is what has come whole until now, and what was wrong.
func (j *judge) requests() ([]*seen, []error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.seen), slices.Clone(j.faults)
}

// last is the newest request.
func (j *judge) last(t testing.TB) *seen {
	t.Helper()
	all, faults := j.requests()
	for _, f := range faults {
		t.Errorf("the target was sent %v", f)
	}
	if len(all) == 0 {
		t.Fatal("the target was sent nothing")
	}
	return all[len(all)-1]
}

// strictly reads one request.
func strictly(in *bufio.Reader) (*seen, error) {
	line, err := strictLine(in)
	if err != nil {
		return nil, fmt.Errorf("a request line: %w", err)
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !token(parts[0]) || parts[1] == "" || parts[2] != "HTTP/1.1" || !visible(parts[1]) {
		return nil, fmt.Errorf("the request line %q", line)
	}
	r := &seen{method: parts[0], target: parts[1]}
	if r.fields, err = strictFields(in); err != nil {
		return nil, err
	}
	if hosts := r.folded("Host"); len(hosts) != 1 || strings.ContainsAny(hosts[0], " \t/@") {
		return nil, fmt.Errorf("the hosts %q", hosts)
	}
	lengths, codings := r.folded("Content-Length"), r.folded("Transfer-Encoding")
	switch {
	case len(lengths)+len(codings) > 1:
		return nil, fmt.Errorf("the lengths %q with the codings %q", lengths, codings)
	case len(codings) == 1:
		if !strings.EqualFold(codings[0], "chunked") {
			return nil, fmt.Errorf("the coding %q", codings[0])
		}
		err = r.chunks(in)
	case len(lengths) == 1:
		var n int64
		if n, err = digits(lengths[0], 10); err == nil {
			body := make([]byte, n)
			_, err = io.ReadFull(in, body)
			r.body = string(body)
		}
	}
	return r, err
}

func (r *seen) chunks(in *bufio.Reader) error {
	var body strings.Builder
	for {
		line, err := strictLine(in)
		if err != nil {
			return fmt.Errorf("a chunk's size: %w", err)
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := digits(size, 16)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(&body, in, n); err != nil {
			return fmt.Errorf("a chunk: %w", err)
		}
		if line, err := strictLine(in); err != nil || line != "" {
			return fmt.Errorf("after a chunk %q: %w", line, err)
		}
	}
	r.body = body.String()
	var err error
	r.trailers, err = strictFields(in)
	return err
}

func strictFields(in *bufio.Reader) (fields []field, err error) {
	for {
		line, err := strictLine(in)
		if err != nil {
			return nil, fmt.Errorf("a field: %w", err)
		}
		if line == "" {
			return fields, nil
		}
		name, value, colon := strings.Cut(line, ":")
		if !colon || !token(name) {
			return nil, fmt.Errorf("the field %q", line)
		}
		fields = append(fields, field{name, strings.Trim(value, " \t")})
	}
}

// strictLine reads to CR LF; no other CR, LF or NUL may be before it.
func strictLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return line, fmt.Errorf("%q breaks off: %w", line, err)
	}
	text, ended := strings.CutSuffix(line, "\r\n")
	if !ended || strings.ContainsAny(text, "\r\n\x00") {
		return line, fmt.Errorf("the line %q", line)
	}
	return text, nil
}

func digits(s string, base int) (int64, error) {
	if s == "" || strings.Trim(strings.ToLower(s), "0123456789abcdef") != "" {
		return 0, fmt.Errorf("the number %q", s)
	}
	n, err := strconv.ParseInt(s, base, 64)
	if err == nil && n > 1<<30 {
		err = errors.New("a body of more than a gigabyte")
	}
	return n, err
}

func token(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	}) < 0
}

func visible(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0
}
