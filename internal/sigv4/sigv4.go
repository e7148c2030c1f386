// Package sigv4 verifies AWS Signature Version 4 on the server's side.
//
// It rebuilds the request from exactly the headers that were signed, signs it
// with the stored secret through the SDK's own signer and compares. Header and
// query (presigned) signatures are understood. Error codes and texts are those
// of the documented troubleshooting page; the JSON services' names for them
// end in "Exception".
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
package sigv4

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Window is how far a request's date may be from the server's clock. AWS's
// messages speak of five minutes; documented.
const Window = 5 * time.Minute

const (
	algorithm = "AWS4-HMAC-SHA256"
	basic     = "20060102T150405Z"
)

// Kind is what is wrong with a signature.
type Kind int

const (
	Missing    Kind = iota // no signature at all
	Incomplete             // malformed
	Unknown                // no such access key, or not with this token
	Expired                // the session has ended
	Mismatch               // signed with another secret, or altered since
	Skewed                 // the request's date is off
)

// Error is a refusal. Message is AWS's text.
type Error struct {
	Kind    Kind
	Message string
}

func (e *Error) Error() string { return e.Message }

const (
	textUnknown  = "The security token included in the request is invalid."
	textExpired  = "The security token included in the request is expired"
	textMismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)

// ErrUnknown and ErrExpired are what a Lookup returns.
var (
	ErrUnknown = &Error{Unknown, textUnknown}
	ErrExpired = &Error{Expired, textExpired}
)

// Lookup finds the secret of an access key. token is the session token that
// came with it, empty when none did.
type Lookup func(accessKey, token string) (secret string, err error)

// Signature is the parsed and verified claim of a request.
type Signature struct {
	AccessKey string
	Token     string
	Region    string
	Service   string
	Date      time.Time

	scopeDay      string
	terminator    string
	signedHeaders []string
	signature     string
	presigned     bool
	expires       time.Duration
}

// Verify checks the signature of r, whose body has been read into body, for
// the service, against now.
func Verify(r *http.Request, body []byte, service string, now time.Time, lookup Lookup) (*Signature, error) {
	sig, err := parse(r)
	if err != nil {
		return nil, err
	}
	if err := sig.checkScope(service); err != nil {
		return nil, err
	}
	if err := sig.checkDate(now); err != nil {
		return nil, err
	}
	if sent := r.Header.Get("X-Amz-Content-Sha256"); sent != "" && sent != "UNSIGNED-PAYLOAD" && sent != hash(body) {
		return nil, &Error{Mismatch, textMismatch}
	}
	secret, err := lookup(sig.AccessKey, sig.Token)
	if err != nil {
		return nil, err
	}
	want, err := sig.sign(r, body, secret)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(want), []byte(sig.signature)) != 1 {
		return nil, &Error{Mismatch, textMismatch}
	}
	return sig, nil
}

func parse(r *http.Request) (*Signature, error) {
	if r.URL.Query().Get("X-Amz-Algorithm") != "" {
		return parseQuery(r)
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, &Error{Missing, "Request is missing Authentication Token"}
	}
	rest, ok := strings.CutPrefix(header, algorithm)
	if !ok {
		return nil, &Error{Incomplete, fmt.Sprintf("Unsupported AWS 'algorithm': '%s'.", strings.SplitN(header, " ", 2)[0])}
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	var missing []string
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[name] == "" {
			missing = append(missing, fmt.Sprintf("Authorization header requires '%s' parameter.", name))
		}
	}
	date := r.Header.Get("X-Amz-Date")
	if date == "" {
		missing = append(missing, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	if missing != nil {
		return nil, &Error{Incomplete, strings.Join(missing, " ")}
	}
	sig := &Signature{Token: r.Header.Get("X-Amz-Security-Token"), signature: fields["Signature"]}
	return sig, sig.fill(fields["Credential"], fields["SignedHeaders"], date)
}

func parseQuery(r *http.Request) (*Signature, error) {
	q := r.URL.Query()
	if q.Get("X-Amz-Algorithm") != algorithm {
		return nil, &Error{Incomplete, fmt.Sprintf("Unsupported AWS 'algorithm': '%s'.", q.Get("X-Amz-Algorithm"))}
	}
	for _, name := range []string{"X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if q.Get(name) == "" {
			return nil, &Error{Incomplete, fmt.Sprintf("AWS query-string parameters must include '%s'. Re-examine the query-string parameters.", name)}
		}
	}
	expires := 15 * time.Minute
	if s := q.Get("X-Amz-Expires"); s != "" {
		d, err := time.ParseDuration(s + "s")
		if err != nil || d < 0 || d > 7*24*time.Hour {
			return nil, &Error{Incomplete, "X-Amz-Expires must be a number of seconds between 0 and 604800"}
		}
		expires = d
	}
	sig := &Signature{Token: q.Get("X-Amz-Security-Token"), signature: q.Get("X-Amz-Signature"), presigned: true, expires: expires}
	return sig, sig.fill(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Date"))
}

func (s *Signature) fill(credential, headers, date string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 {
		return &Error{Incomplete, fmt.Sprintf("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", credential)}
	}
	s.AccessKey, s.scopeDay, s.Region, s.Service, s.terminator = parts[0], parts[1], parts[2], parts[3], parts[4]
	t, err := time.Parse(basic, date)
	if err != nil {
		return &Error{Incomplete, fmt.Sprintf("Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", date)}
	}
	s.Date = t
	s.signedHeaders = strings.Split(strings.ToLower(headers), ";")
	if !slices.Contains(s.signedHeaders, "host") {
		return &Error{Mismatch, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."}
	}
	return nil
}

func (s *Signature) checkScope(service string) error {
	switch {
	case s.Service != service:
		return &Error{Mismatch, fmt.Sprintf("Credential should be scoped to correct service: '%s'.", service)}
	case s.terminator != "aws4_request":
		return &Error{Mismatch, fmt.Sprintf("Credential should be scoped with a valid terminator: 'aws4_request', not '%s'.", s.terminator)}
	case s.scopeDay != s.Date.Format("20060102"):
		return &Error{Mismatch, fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.", s.scopeDay, s.Date.Format("20060102"), s.Date.Format(basic))}
	}
	return nil
}

func (s *Signature) checkDate(now time.Time) error {
	now = now.UTC()
	early, late := now.Add(-Window), now.Add(Window)
	if s.presigned {
		if s.Date.After(late) {
			return &Error{Skewed, fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)", s.Date.Format(basic), late.Format(basic), now.Format(basic))}
		}
		if now.After(s.Date.Add(s.expires)) {
			return &Error{Skewed, fmt.Sprintf("Signature expired: %s is now later than %s (%s + %d s.)", now.Format(basic), s.Date.Add(s.expires).Format(basic), s.Date.Format(basic), int(s.expires.Seconds()))}
		}
		return nil
	}
	if s.Date.Before(early) {
		return &Error{Skewed, fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)", s.Date.Format(basic), early.Format(basic), now.Format(basic))}
	}
	if s.Date.After(late) {
		return &Error{Skewed, fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)", s.Date.Format(basic), late.Format(basic), now.Format(basic))}
	}
	return nil
}

// sign signs a copy of r that has only the signed headers, and returns the
// signature.
func (s *Signature) sign(r *http.Request, body []byte, secret string) (string, error) {
	u := *r.URL
	u.Scheme, u.Host = "http", r.Host
	clean, err := http.NewRequest(r.Method, u.String(), nil)
	if err != nil {
		return "", &Error{Incomplete, "the request line is malformed"}
	}
	clean.URL = &u
	clean.Host = r.Host
	for _, name := range s.signedHeaders {
		switch name {
		case "host", "x-amz-date", "x-amz-security-token":
		case "content-length":
			clean.ContentLength = r.ContentLength
			clean.Body = io.NopCloser(bytes.NewReader(body))
		default:
			clean.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	credentials := aws.Credentials{AccessKeyID: s.AccessKey, SecretAccessKey: secret}
	if slices.Contains(s.signedHeaders, "x-amz-security-token") || s.presigned {
		credentials.SessionToken = s.Token
	}
	if !s.presigned {
		err := v4.NewSigner().SignHTTP(context.Background(), credentials, clean, s.payloadHash(r, body), s.Service, s.Region, s.Date)
		if err != nil {
			return "", fmt.Errorf("signing the request again: %w", err)
		}
		_, signature, _ := strings.Cut(clean.Header.Get("Authorization"), "Signature=")
		return signature, nil
	}
	q := clean.URL.Query()
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token"} {
		q.Del(name)
	}
	clean.URL.RawQuery = q.Encode()
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), credentials, clean, s.payloadHash(r, body), s.Service, s.Region, s.Date)
	if err != nil {
		return "", fmt.Errorf("signing the request again: %w", err)
	}
	again, err := url.Parse(signed)
	if err != nil {
		return "", fmt.Errorf("reading the request signed again: %w", err)
	}
	return again.Query().Get("X-Amz-Signature"), nil
}

func (s *Signature) payloadHash(r *http.Request, body []byte) string {
	if r.Header.Get("X-Amz-Content-Sha256") == "UNSIGNED-PAYLOAD" {
		return "UNSIGNED-PAYLOAD"
	}
	return hash(body)
}

func hash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
