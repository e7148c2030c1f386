package wire

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
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
	errUnknownOperation = func(s *Service, op string) error {
		if s.Protocol == JSON {
			return &Error{"UnknownOperationException", fmt.Sprintf("Serin does not perform %s:%s.", s.Name, op), 400}
		}
		return &Error{"InvalidAction", fmt.Sprintf("Could not find operation %s for version %s", op, s.Version), 400}
	}
	errMalformed = func(s *Service, err error) error {
		if s.Protocol == JSON {
			return &Error{"SerializationException", err.Error(), 400}
		}
		return &Error{"MalformedQueryString", err.Error(), 400}
	}
)

// writeError renders err in the service's protocol. An error that is not
// AWS-shaped is ours: its cause goes to the log, the stranger gets an id.
func (g *Gateway) writeError(w http.ResponseWriter, s *Service, call *Call, err error) {
	code, message, status := s.internalCode(), "", 0
	var extra []byte
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
	if call != nil {
		call.Code = code
	}
	switch s.Protocol {
	case JSON:
		b := append([]byte(`{"__type":`), appendString(nil, code)...)
		b = append(append(b, `,"message":`...), appendString(nil, message)...)
		b = append(append(b, extra...), '}')
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("X-Amzn-ErrorType", code)
		write(w, status, b)
	case Query:
		var b bytes.Buffer
		fmt.Fprintf(&b, `<ErrorResponse xmlns="%s"><Error><Type>%s</Type><Code>%s</Code><Message>`, s.Namespace, blame(status), code)
		xml.EscapeText(&b, []byte(message))
		fmt.Fprintf(&b, `</Message></Error><RequestId>%s</RequestId></ErrorResponse>`, call.RequestID)
		w.Header().Set("Content-Type", "text/xml")
		write(w, status, b.Bytes())
	case EC2:
		var b bytes.Buffer
		fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>%s</Code><Message>`, code)
		xml.EscapeText(&b, []byte(message))
		fmt.Fprintf(&b, `</Message></Error></Errors><RequestID>%s</RequestID></Response>`, call.RequestID)
		w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
		write(w, status, b.Bytes())
	}
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

// errorMembers writes what a typed exception carries besides its message, as
// ",name:value" pairs: ConflictException names resources.
func (s *Service) errorMembers(err apiError) []byte {
	v := reflect.ValueOf(err)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || v.Type() == reflect.TypeFor[*Error]() {
		return nil
	}
	v = v.Elem()
	var b []byte
	for _, f := range s.Naming.shape(v.Type()).fields {
		if f.goTag == "Message" || f.goTag == "ErrorCodeOverride" || isUnset(v.Field(f.index)) {
			continue
		}
		b = append(append(append(b, `,"`...), f.name...), `":`...)
		b = s.Naming.appendJSON(b, v.Field(f.index), false)
	}
	return b
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
