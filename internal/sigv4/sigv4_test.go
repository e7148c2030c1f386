package sigv4

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

var (
	now  = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	body = []byte(`{"cluster":"défault"}`)
)

func lookup(key, token string) (string, error) {
	switch {
	case key == "AKIDEXAMPLE" && token == "", key == "ASIAEXAMPLE" && token == "TOKEN/+==":
		return "secret", nil
	case key == "ASIAEXPIRED":
		return "", ErrExpired
	}
	return "", ErrUnknown
}

func signed(t *testing.T, c aws.Credentials, at time.Time) *http.Request {
	t.Helper()
	r, err := http.NewRequest("POST", "http://localhost:4566/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.ListServices")
	if err := v4.NewSigner().SignHTTP(context.Background(), c, r, hash(body), "ecs", "eu-west-1", at); err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	longLived = aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}
	session   = aws.Credentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "secret", SessionToken: "TOKEN/+=="}
)

func TestARequestSignedByTheSDKVerifies(t *testing.T) {
	for _, c := range []aws.Credentials{longLived, session} {
		sig, err := Verify(signed(t, c, now), body, "ecs", now, lookup)
		if err != nil {
			t.Fatal(err)
		}
		if sig.AccessKey != c.AccessKeyID || sig.Region != "eu-west-1" || sig.Token != c.SessionToken {
			t.Errorf("read %+v", sig)
		}
	}
}

func TestAPresignedRequestVerifies(t *testing.T) {
	r, _ := http.NewRequest("GET", "http://localhost:4566/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60", nil)
	u, _, err := v4.NewSigner().PresignHTTP(context.Background(), session, r, hash(nil), "sts", "us-east-1", now)
	if err != nil {
		t.Fatal(err)
	}
	r.URL, _ = url.Parse(u)
	if _, err := Verify(r, nil, "sts", now.Add(30*time.Second), lookup); err != nil {
		t.Error(err)
	}
	if _, err := Verify(r, nil, "sts", now.Add(2*time.Minute), lookup); err == nil {
		t.Error("a presigned request outlived its expiry")
	}
	q := r.URL.Query()
	q.Set("Action", "GetSessionToken")
	r.URL.RawQuery = q.Encode()
	if _, err := Verify(r, nil, "sts", now, lookup); err == nil {
		t.Error("a presigned request was altered and taken")
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		alter func(*http.Request)
		creds aws.Credentials
		at    time.Time
		body  []byte
		want  Kind
		text  string
	}{
		"no signature":      {alter: func(r *http.Request) { r.Header.Del("Authorization") }, want: Missing, text: "missing Authentication Token"},
		"another scheme":    {alter: func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, want: Incomplete, text: "algorithm"},
		"no parameters":     {alter: func(r *http.Request) { r.Header.Set("Authorization", algorithm+" x") }, want: Incomplete, text: "requires 'Credential' parameter"},
		"wrong secret":      {creds: aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "other"}, want: Mismatch, text: "does not match"},
		"unknown key":       {creds: aws.Credentials{AccessKeyID: "AKIDNOBODY", SecretAccessKey: "x"}, want: Unknown, text: "invalid"},
		"expired session":   {creds: aws.Credentials{AccessKeyID: "ASIAEXPIRED", SecretAccessKey: "x", SessionToken: "t"}, want: Expired, text: "expired"},
		"altered body":      {body: []byte(`{}`), want: Mismatch, text: "does not match"},
		"altered header":    {alter: func(r *http.Request) { r.Header.Set("X-Amz-Target", "x.DeleteCluster") }, want: Mismatch, text: "does not match"},
		"a header removed":  {alter: func(r *http.Request) { r.Header.Del("X-Amz-Target") }, want: Mismatch, text: "does not match"},
		"a replay":          {at: now.Add(-15 * time.Minute), want: Skewed, text: "Signature expired"},
		"an old date":       {at: now.Add(-6 * time.Minute), want: Skewed, text: "Signature expired"},
		"a date to come":    {at: now.Add(6 * time.Minute), want: Skewed, text: "not yet current"},
		"a malformed scope": {alter: func(r *http.Request) { replace(r, "/ecs/", "/") }, want: Incomplete, text: "5 slash-delimited"},
		"another service":   {alter: func(r *http.Request) { replace(r, "/ecs/", "/iam/") }, want: Mismatch, text: "correct service: 'ecs'"},
		"host not signed":   {alter: func(r *http.Request) { replace(r, ";host;", ";") }, want: Mismatch, text: "'Host'"},
	} {
		t.Run(name, func(t *testing.T) {
			creds, at, b := longLived, now, body
			if c.creds.AccessKeyID != "" {
				creds = c.creds
			}
			if !c.at.IsZero() {
				at = c.at
			}
			if c.body != nil {
				b = c.body
			}
			r := signed(t, creds, at)
			if c.alter != nil {
				c.alter(r)
			}
			_, err := Verify(r, b, "ecs", now, lookup)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Kind != c.want || !strings.Contains(e.Message, c.text) {
				t.Errorf("got %v, want kind %d with %q", err, c.want, c.text)
			}
		})
	}
}

func replace(r *http.Request, old, new string) {
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
}
