package wire

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/aws/smithy-go/encoding/cbor"
)

// Error is an answer that no SDK type describes: what the gateway itself
// refuses. Code and Message are in AWS's words where we know them.
type Error struct {
	Code    string
	Message string
	Status  int // 0: the service's usual one
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// ErrorCode and ErrorMessage make Error a smithy.APIError in all but the fault.
func (e *Error) ErrorCode() string    { return e.Code }
func (e *Error) ErrorMessage() string { return e.Message }

// apiError is what the SDK's typed exceptions and Error have in common.
type apiError interface {
	error
	ErrorCode() string
	ErrorMessage() string
}

// Errors a gateway gives for every service have a name in each protocol: JSON
// services add "Exception" and answer 400, query services say 403.
var (
	errUnknownOperation = func(s *Service, call *Call) error {
		switch {
		case slices.Contains(words(s.Refused), call.Operation):
			return &Error{"UnknownOperationException", fmt.Sprintf("Serin does not perform %s:%s yet. What is performed is listed in docs/support.md.", s.Name, call.Operation), 400}
		case call.Protocol == Query || call.Protocol == EC2:
			return &Error{"InvalidAction", fmt.Sprintf("Could not find operation %s for version %s", call.Operation, s.Version), 400}
		}
		return &Error{"UnknownOperationException", fmt.Sprintf("Serin does not perform %s:%s.", s.Name, call.Operation), 400}
	}
	errMalformed = func(call *Call, err error) error {
		if call.Protocol == Query || call.Protocol == EC2 {
			return &Error{"MalformedQueryString", err.Error(), 400}
		}
		return &Error{"SerializationException", err.Error(), 400}
	}
)

// writeError renders err in the service's protocol. An error that is not
// AWS-shaped is ours: its cause goes to the log, the stranger gets an id.
func (g *Gateway) writeError(w http.ResponseWriter, s *Service, call *Call, err error) {
	code, message, status := s.internalCode(), "", 0
	extra := map[string]reflect.Value{}
	api, known := errors.AsType[apiError](err)
	if known {
		code, message = api.ErrorCode(), api.ErrorMessage()
		status = s.Status[code]
		if own, ok := errors.AsType[*Error](err); ok && own.Status != 0 {
			status = own.Status
		}
		if status == 0 {
			status = http.StatusBadRequest
		}
		extra = s.errorMembers(api)
	} else {
		status = http.StatusInternalServerError
		message = "Serin broke an invariant of its own while answering request " + call.RequestID + "; its log says more."
		g.Log.Error("request failed", "service", s.Name, "operation", call.Operation, "request", call.RequestID, "err", err)
	}
	call.Code = cmp.Or(s.Codes[code], code) // what clients of every protocol are told
	switch call.Protocol {
	case JSON, JSON10:
		b := append([]byte(`{"__type":`), appendString(nil, s.typeOf(code))...)
		b = append(append(append(b, `,"`...), s.messageName(api)...), `":`...)
		b = appendString(b, message)
		for _, name := range slices.Sorted(maps.Keys(extra)) {
			b = append(append(append(b, `,"`...), name...), `":`...)
			b = s.Naming.appendJSON(b, extra[name], false)
		}
		if call.Protocol == JSON {
			w.Header().Set("X-Amzn-ErrorType", code)
		}
		g.writeFault(w, call, status, jsonTypes[call.Protocol], append(b, '}'))
	case CBOR:
		fault := cbor.Map{"__type": cbor.String(s.typeOf(code)), "message": cbor.String(message), s.messageName(api): cbor.String(message)}
		for name, v := range extra {
			fault[name] = s.Naming.cborOf(v, false)
		}
		g.writeFault(w, call, status, "application/cbor", cbor.Encode(fault))
	case Query:
		var b bytes.Buffer
		fmt.Fprintf(&b, `<ErrorResponse xmlns="%s"><Error><Type>%s</Type><Code>%s</Code><Message>`, s.Namespace, blame(status), call.Code)
		xml.EscapeText(&b, []byte(message))
		fmt.Fprintf(&b, `</Message></Error><RequestId>%s</RequestId></ErrorResponse>`, call.RequestID)
		g.writeFault(w, call, status, "text/xml", b.Bytes())
	case EC2:
		var b bytes.Buffer
		fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>%s</Code><Message>`, code)
		xml.EscapeText(&b, []byte(message))
		fmt.Fprintf(&b, `</Message></Error></Errors><RequestID>%s</RequestID></Response>`, call.RequestID)
		g.writeFault(w, call, status, "text/xml;charset=UTF-8", b.Bytes())
	}
}

// writeFault writes an error. The successors of Query say Query's code, too,
// because that is what programs have always been told.
func (g *Gateway) writeFault(w http.ResponseWriter, call *Call, status int, kind string, body []byte) {
	if call.Protocol == JSON10 || call.Protocol == CBOR {
		w.Header().Set("X-Amzn-Query-Error", call.Code+";"+blame(status))
	}
	writeAs(w, call.Protocol, status, kind, body)
}

// typeOf is the name of the type of an error, which may have been given by
// Query's code.
func (s *Service) typeOf(code string) string {
	for name, query := range s.Codes {
		if query == code {
			return name
		}
	}
	return code
}

// messageName is how an error spells its message: some say Message.
func (s *Service) messageName(err apiError) string {
	if fields, ok := s.errorFields(err); ok {
		for f := range fields {
			if f.goTag == "Message" {
				return f.name
			}
		}
	}
	return "message"
}

func blame(status int) string {
	if status >= 500 {
		return "Receiver"
	}
	return "Sender"
}

func (s *Service) internalCode() string {
	if s.Protocol == JSON {
		return "ServerException"
	}
	return "InternalFailure"
}

// errorFields is the members of a typed exception; of no other error.
func (s *Service) errorFields(err apiError) (iter.Seq2[field, reflect.Value], bool) {
	v := reflect.ValueOf(err)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || v.Type() == reflect.TypeFor[*Error]() {
		return nil, false
	}
	v = v.Elem()
	return func(yield func(field, reflect.Value) bool) {
		for _, f := range s.Naming.shape(v.Type()).fields {
			if !yield(f, v.Field(f.index)) {
				return
			}
		}
	}, true
}

// errorMembers is what a typed exception carries besides its message:
// ConflictException names resources.
func (s *Service) errorMembers(err apiError) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	if fields, ok := s.errorFields(err); ok {
		for f, v := range fields {
			if f.goTag != "Message" && f.goTag != "ErrorCodeOverride" && !isUnset(v) {
				out[f.name] = v
			}
		}
	}
	return out
}

func writeAs(w http.ResponseWriter, p Protocol, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	if p == CBOR {
		w.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	}
	write(w, status, body)
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
