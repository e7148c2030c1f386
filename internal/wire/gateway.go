package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"serin/internal/arn"
	"serin/internal/id"
)

// MaxBody is the largest request body that is read, in bytes: an ECR layer
// part of 20 MiB in base64, and room.
const MaxBody = 32 << 20

// Gateway routes one port to every service.
type Gateway struct {
	Log *slog.Logger
	// Authenticate says who signed the request. The service is what the
	// request asks for; its Signing name must be the one in the signature.
	Authenticate func(r *http.Request, body []byte, s *Service) (Principal, string, error)
	// Authorize returns the denial, in AWS's words, or nil.
	Authorize func(context.Context, *Call, []Check) error
	// Answered, when set, hears of every call after its answer.
	Answered func(*Call)
	// Region is used where a request names none.
	Region, Account string

	targets  map[string]*Service // X-Amz-Target prefix
	versions map[string]*Service // query API version
}

// Serve adds services.
func (g *Gateway) Serve(services ...*Service) {
	if g.targets == nil {
		g.targets, g.versions = map[string]*Service{}, map[string]*Service{}
	}
	for _, s := range services {
		if s.Protocol == JSON {
			g.targets[s.Target] = s
		} else {
			g.versions[s.Version] = s
		}
	}
}

// ServeHTTP answers one API call.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := g.newCall(r)
	w.Header().Set("X-Amzn-RequestId", call.RequestID)
	w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		status, why := http.StatusBadRequest, "the body could not be read"
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			status, why = http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", MaxBody)
		}
		http.Error(w, why, status)
		return
	}
	s, op, form, err := g.route(r, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	call.Service, call.Operation = s.Name, op
	out, err := g.answer(r, body, form, s, call)
	if err != nil {
		g.writeError(w, s, call, err)
	} else {
		g.writeOutput(w, s, call, out)
	}
	if g.Answered != nil {
		g.Answered(call)
	}
}

func (g *Gateway) newCall(r *http.Request) *Call {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return &Call{
		RequestID: id.UUID(),
		SourceIP:  host,
		UserAgent: r.UserAgent(),
		Secure:    r.TLS != nil,
	}
}

// route finds the service and the operation by exact name, never by guessing.
func (g *Gateway) route(r *http.Request, body []byte) (*Service, string, url.Values, error) {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		prefix, op, ok := strings.Cut(target, ".")
		s := g.targets[prefix]
		if !ok || s == nil {
			return nil, "", nil, fmt.Errorf("serin does not serve the X-Amz-Target %q", target)
		}
		return s, op, nil, nil
	}
	form := r.URL.Query()
	for name := range form { // of a presigned request: they are the signature's
		if strings.HasPrefix(name, "X-Amz-") {
			form.Del(name)
		}
	}
	if r.Method == http.MethodPost {
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if kind != "" && kind != "application/x-www-form-urlencoded" {
			return nil, "", nil, fmt.Errorf("serin does not serve %s %s with content type %q", r.Method, r.URL.Path, kind)
		}
		posted, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, "", nil, fmt.Errorf("the form body is malformed: %w", err)
		}
		form = posted
	}
	s := g.versions[form.Get("Version")]
	if s == nil || form.Get("Action") == "" {
		return nil, "", nil, fmt.Errorf("serin does not serve %s %s (Action %q, Version %q)", r.Method, r.URL.Path, form.Get("Action"), form.Get("Version"))
	}
	return s, form.Get("Action"), form, nil
}

func (g *Gateway) answer(r *http.Request, body []byte, form url.Values, s *Service, call *Call) (any, error) {
	o := s.ops[call.Operation]
	if o != nil && o.Public && r.Header.Get("Authorization") == "" && !r.URL.Query().Has("X-Amz-Signature") {
		call.Scope = arn.Scope{Account: g.Account, Region: g.Region}
	} else {
		principal, region, err := g.Authenticate(r, body, s)
		if err != nil {
			return nil, err
		}
		call.Principal, call.Scope = principal, arn.Scope{Account: principal.Account, Region: region}
	}
	if o == nil {
		return nil, errUnknownOperation(s, call.Operation)
	}
	in, err := s.decode(o, body, form)
	if err != nil {
		return nil, errMalformed(s, err)
	}
	call.Tags, call.TagKeys = requestTags(in)
	if checks := o.Checks(call, in); len(checks) > 0 {
		if err := g.Authorize(r.Context(), call, checks); err != nil {
			return nil, err
		}
	}
	if err := s.checkMembers(o, in); err != nil {
		return nil, err
	}
	return o.call(WithCall(r.Context(), call), in)
}

// requestTags reads the tags of a request for the condition keys that speak of
// them. Every service has them in a member Tags, as a list or a map, or their
// keys in TagKeys.
func requestTags(in any) (tags map[string]string, keys []string) {
	v := reflect.ValueOf(in).Elem()
	switch list := v.FieldByName("Tags"); {
	case !list.IsValid():
	case list.Kind() == reflect.Map:
		for k, value := range list.Seq2() {
			tags, keys = withTag(tags, k.String(), value.String()), append(keys, k.String())
		}
	case list.Kind() == reflect.Slice:
		for i := range list.Len() {
			key, value := list.Index(i).FieldByName("Key"), list.Index(i).FieldByName("Value")
			if key.IsNil() {
				continue
			}
			text := ""
			if !value.IsNil() {
				text = value.Elem().String()
			}
			tags, keys = withTag(tags, key.Elem().String(), text), append(keys, key.Elem().String())
		}
	}
	if list := v.FieldByName("TagKeys"); list.IsValid() {
		for i := range list.Len() {
			keys = append(keys, list.Index(i).String())
		}
	}
	return tags, keys
}

func withTag(tags map[string]string, key, value string) map[string]string {
	if tags == nil {
		tags = map[string]string{}
	}
	tags[key] = value
	return tags
}

func (s *Service) decode(o *Op, body []byte, form url.Values) (any, error) {
	in := reflect.New(o.in)
	var tree map[string]any
	var err error
	if s.Protocol == JSON {
		tree, err = parseJSON(body)
	} else {
		tree, err = parseForm(form)
	}
	if err != nil || tree == nil {
		return in.Interface(), err
	}
	d := decoder{naming: s.Naming, form: s.Protocol != JSON}
	return in.Interface(), d.assign(tree, in.Elem(), nil)
}

func (g *Gateway) writeOutput(w http.ResponseWriter, s *Service, call *Call, out any) {
	kind, body := s.encode(call.Operation, call.RequestID, out)
	w.Header().Set("Content-Type", kind)
	write(w, http.StatusOK, body)
}

// encode writes an output in the service's protocol.
func (s *Service) encode(op, requestID string, out any) (contentType string, body []byte) {
	switch s.Protocol {
	case Query:
		return "text/xml", fmt.Appendf(nil, `<%sResponse xmlns="%s"><%sResult>%s</%sResult><ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>`,
			op, s.Namespace, op, s.Naming.encodeXML(out, "member"), op, requestID, op)
	case EC2:
		return "text/xml;charset=UTF-8", fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8"?><%sResponse xmlns="%s"><requestId>%s</requestId>%s</%sResponse>`,
			op, s.Namespace, requestID, s.Naming.encodeXML(out, "item"), op)
	}
	return "application/x-amz-json-1.1", s.Naming.encodeJSON(out)
}
