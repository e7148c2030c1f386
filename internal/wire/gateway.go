package wire

import (
	"bytes"
	"compress/gzip"
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

	"github.com/aws/smithy-go/encoding/cbor"

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
	// Throttle, when set, refuses calls beyond their service's buckets.
	Throttle *Throttle
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
		if s.Target != "" {
			g.targets[s.Target] = s
		}
		if s.Protocol != JSON {
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
	in, err := g.route(r, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	s := in.service
	call.Service, call.Operation, call.Protocol = s.Name, in.op, in.protocol
	out, err := g.answer(r, in, call)
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

// request is what a request asks for, and in what protocol.
type request struct {
	service  *Service
	protocol Protocol
	op       string
	signed   []byte // the body as it was sent
	body     []byte // unpacked
	form     url.Values
}

// route finds the service and the operation by exact name, never by guessing.
func (g *Gateway) route(r *http.Request, body []byte) (in *request, err error) {
	in = &request{signed: body}
	if in.body, err = unpack(r.Header.Get("Content-Encoding"), body); err != nil {
		return nil, err
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		prefix, op, ok := strings.Cut(target, ".")
		if in.service, in.op = g.targets[prefix], op; !ok || in.service == nil {
			return nil, fmt.Errorf("serin does not serve the X-Amz-Target %q", target)
		}
		if in.service.Protocol != JSON {
			in.protocol = JSON10
		}
		return in, nil
	}
	if r.Header.Get("Smithy-Protocol") != "" {
		return in, g.routeRPC(r, in)
	}
	return in, g.routeForm(r, in)
}

// unpack undoes the compression of a request: clients compress long ones of
// PutMetricData.
func unpack(encoding string, body []byte) ([]byte, error) {
	switch encoding {
	case "", "identity":
		return body, nil
	case "gzip":
		packed, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("unpacking the body: %w", err)
		}
		plain, err := io.ReadAll(io.LimitReader(packed, MaxBody+1))
		if err != nil {
			return nil, fmt.Errorf("unpacking the body: %w", err)
		}
		if len(plain) > MaxBody {
			return nil, fmt.Errorf("the body is larger than %d bytes when it is unpacked", MaxBody)
		}
		return plain, nil
	}
	return nil, fmt.Errorf("serin does not serve the content encoding %q", encoding)
}

// routeRPC reads the path of RPC v2: /service/TARGET/operation/OPERATION.
func (g *Gateway) routeRPC(r *http.Request, in *request) error {
	if p := r.Header.Get("Smithy-Protocol"); p != "rpc-v2-cbor" {
		return fmt.Errorf("serin does not serve the Smithy-Protocol %q", p)
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/service/")
	target, op, cut := strings.Cut(rest, "/operation/")
	if in.service = g.targets[target]; !ok || !cut || in.service == nil || in.service.Protocol == JSON || r.Method != http.MethodPost {
		return fmt.Errorf("serin does not serve %s %s in RPC v2", r.Method, r.URL.Path)
	}
	in.op, in.protocol = op, CBOR
	return nil
}

func (g *Gateway) routeForm(r *http.Request, in *request) error {
	in.form = r.URL.Query()
	for name := range in.form { // of a presigned request: they are the signature's
		if strings.HasPrefix(name, "X-Amz-") {
			in.form.Del(name)
		}
	}
	if r.Method == http.MethodPost {
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if kind != "" && kind != "application/x-www-form-urlencoded" {
			return fmt.Errorf("serin does not serve %s %s with content type %q", r.Method, r.URL.Path, kind)
		}
		posted, err := url.ParseQuery(string(in.body))
		if err != nil {
			return fmt.Errorf("the form body is malformed: %w", err)
		}
		in.form = posted
	}
	in.op, in.service = in.form.Get("Action"), g.versions[in.form.Get("Version")]
	if in.service == nil || in.op == "" {
		return fmt.Errorf("serin does not serve %s %s (Action %q, Version %q)", r.Method, r.URL.Path, in.op, in.form.Get("Version"))
	}
	in.protocol = in.service.Protocol
	return nil
}

func (g *Gateway) answer(r *http.Request, req *request, call *Call) (any, error) {
	s := req.service
	o := s.ops[call.Operation]
	if o != nil && o.Public && r.Header.Get("Authorization") == "" && !r.URL.Query().Has("X-Amz-Signature") {
		call.Scope = arn.Scope{Account: g.Account, Region: g.Region}
	} else {
		principal, region, err := g.Authenticate(r, req.signed, s)
		if err != nil {
			return nil, err
		}
		call.Principal, call.Scope = principal, arn.Scope{Account: principal.Account, Region: region}
	}
	if o == nil {
		return nil, errUnknownOperation(s, call)
	}
	if !g.Throttle.take(s, call, time.Now()) { // before the policies are asked; guessed
		return nil, errThrottled
	}
	in, err := s.decode(o, req.protocol, req.body, req.form)
	if err != nil {
		return nil, errMalformed(call, err)
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

func (s *Service) decode(o *Op, p Protocol, body []byte, form url.Values) (any, error) {
	in := reflect.New(o.in)
	var tree map[string]any
	var err error
	switch p {
	case JSON, JSON10:
		tree, err = parseJSON(body)
	case CBOR:
		tree, err = parseCBOR(body)
	default:
		tree, err = parseForm(form)
	}
	if err != nil || tree == nil {
		return in.Interface(), err
	}
	d := decoder{naming: s.Naming, form: form != nil}
	return in.Interface(), d.assign(tree, in.Elem(), nil)
}

func (g *Gateway) writeOutput(w http.ResponseWriter, s *Service, call *Call, out any) {
	kind, body := s.encode(call.Protocol, call.Operation, call.RequestID, out)
	writeAs(w, call.Protocol, http.StatusOK, kind, body)
}

// encode writes an output in one of the service's protocols.
func (s *Service) encode(p Protocol, op, requestID string, out any) (contentType string, body []byte) {
	switch p {
	case Query:
		return "text/xml", fmt.Appendf(nil, `<%sResponse xmlns="%s"><%sResult>%s</%sResult><ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>`,
			op, s.Namespace, op, s.Naming.encodeXML(out, "member"), op, requestID, op)
	case EC2:
		return "text/xml;charset=UTF-8", fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8"?><%sResponse xmlns="%s"><requestId>%s</requestId>%s</%sResponse>`,
			op, s.Namespace, requestID, s.Naming.encodeXML(out, "item"), op)
	case CBOR:
		return "application/cbor", cbor.Encode(s.Naming.cborOf(reflect.ValueOf(out), true))
	}
	return jsonTypes[p], s.Naming.encodeJSON(out)
}

var jsonTypes = map[Protocol]string{JSON: "application/x-amz-json-1.1", JSON10: "application/x-amz-json-1.0"}
