// Package wire is the stage's front door: it finds out which operation of
// which service a request asks for, reads its input into the SDK's own struct,
// calls the handler and writes its output, in that service's protocol.
//
// Nothing about the wire is written per operation. Handlers have the shape of
// the SDK's methods; names of members follow a rule per service with a short
// list of exceptions, and a test drives every registered operation through the
// real SDK client in both directions. Three protocols: AWS JSON 1.1, Query
// (XML) and EC2's variant of it.
//
// Every member of every input is performed, recorded or refused; see Members.
package wire

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"serin/internal/arn"
)

// Protocol is how a service is spoken to.
type Protocol int

const (
	JSON Protocol = iota // AWS JSON 1.1
	Query
	EC2
	JSON10 // AWS JSON 1.0 of a service that was a Query service
	CBOR   // RPC v2 CBOR of such a service
)

// Service is a set of operations that share a protocol and a spelling.
type Service struct {
	Name      string // as in an IAM action: ecs
	Signing   string // as in a credential scope
	Protocol  Protocol
	Target    string // what stands before the dot in X-Amz-Target; a Query service with one is spoken to in JSON10 and CBOR, too
	Version   string // query: the API version
	Namespace string // query: the XML namespace
	Global    bool   // one endpoint for all regions: IAM, STS
	Naming    *Naming
	Status    map[string]int // error code → HTTP status, where it is not 400
	// Codes are Query's error codes where they differ from the names of the
	// errors, by which JSON10 and CBOR call them.
	Codes map[string]string
	// Invalid makes the service's own error for a value that is not allowed.
	Invalid func(message string) error
	// Types says what is done with the members of nested structures.
	Types map[string]Members
	// Words is the service's own text for a value that an enum does not have, by
	// the enum's type, where it has one.
	Words map[string]string
	// AnyCase is the enums whose words AWS also takes in small letters.
	AnyCase []string
	// Buckets are the limits of operations, for a stage that throttles.
	Buckets map[string]Bucket
	// Refused are the operations that AWS has and Serin does not perform yet,
	// separated by spaces.
	Refused string

	ops map[string]*Op
}

// Op is one registered operation.
type Op struct {
	Name    string
	Members Members
	Public  bool // needs no signature
	checks  func(*Call, any) []Check
	in, out reflect.Type
	call    func(context.Context, any) (any, error)
}

// New returns a fresh input and output of the operation.
func (o *Op) New() (in, out any) {
	return reflect.New(o.in).Interface(), reflect.New(o.out).Interface()
}

// Checks is what a caller must be allowed before the operation is performed;
// none for an operation that no policy can take away.
func (o *Op) Checks(c *Call, in any) []Check {
	if o.checks == nil {
		return nil
	}
	return o.checks(c, in)
}

// Check is a question to the policies: may the caller do Action to Resource?
type Check struct {
	Action   string              // svc:Action
	Resource string              // an ARN, or *
	Alias    string              // another form in which policies may name it
	Wild     bool                // it ends in a star that is the service's own, not the caller's
	Context  map[string][]string // condition keys that this request fills
}

// WhenTagged is a check that is asked of requests with tags: to create a
// resource with tags takes the permission to tag it.
func WhenTagged[T any](tags []T, c Check) []Check {
	if len(tags) == 0 {
		return nil
	}
	return []Check{c}
}

// Handle makes an operation of a method with the SDK's shape. checks names
// what the caller must be allowed; nil is allowed only with Public.
func Handle[I, O any](name string, fn func(context.Context, *I) (*O, error), checks func(*Call, *I) []Check, m Members) *Op {
	o := &Op{Name: name, Members: m, in: reflect.TypeFor[I](), out: reflect.TypeFor[O]()}
	o.call = func(ctx context.Context, in any) (any, error) {
		out, err := fn(ctx, in.(*I))
		if err != nil {
			return nil, err
		}
		return out, nil
	}
	if checks != nil {
		o.checks = func(c *Call, in any) []Check { return checks(c, in.(*I)) }
	}
	return o
}

// Also adds checks to an operation's own.
func Also[I any](o *Op, more func(*Call, *I) []Check) *Op {
	with := *o
	with.checks = func(c *Call, in any) []Check { return append(o.checks(c, in), more(c, in.(*I))...) }
	return &with
}

// Public marks an operation that is called without a signature, or, like
// GetCallerIdentity, that no policy can take away.
func Public(o *Op) *Op {
	o.Public = true
	return o
}

// Register adds operations. It panics on what a programmer got wrong.
func (s *Service) Register(ops ...*Op) {
	if s.ops == nil {
		s.ops = map[string]*Op{}
	}
	for _, o := range ops {
		if s.ops[o.Name] != nil {
			panic("wire: " + s.Name + ":" + o.Name + " is registered twice")
		}
		if o.checks == nil && !o.Public {
			panic("wire: " + s.Name + ":" + o.Name + " names no permission")
		}
		s.ops[o.Name] = o
	}
}

// Ops is the operations by name.
func (s *Service) Ops() map[string]*Op { return s.ops }

// Principal is who makes a call.
type Principal struct {
	Account string
	ARN     string // the caller's ARN as AWS prints it: of the session, for a role
	UserID  string // aws:userid
	Type    string // aws:PrincipalType: Account, User, AssumedRole
	Role    string // ARN of the role, with its path; empty for others
	RoleID  string // a role that was deleted and made anew is another
	User    string // name of the IAM user; empty for others
	Session string // role session name
	Admin   bool   // the stage's built-in administrator
	Service string // the AWS service that acts as the role, if one does

	AccessKey      string
	Provider       string            // aws:FederatedProvider
	Claims         map[string]string // condition keys that a session carries on: provider-qualified aud, sub, amr
	Tags           map[string]string // aws:PrincipalTag: the session's own and its role's or user's
	SourceIdentity string
	Issued         time.Time // of temporary credentials
	MFA            *bool     // aws:MultiFactorAuthPresent; nil for long-term keys
}

// Call is one request on its way through the house.
type Call struct {
	Service   string
	Operation string
	Protocol  Protocol
	RequestID string
	Scope     arn.Scope
	Principal Principal
	SourceIP  string
	UserAgent string
	Secure    bool
	Tags      map[string]string // tags that the request sets: aws:RequestTag
	TagKeys   []string          // keys of tags that the request sets or removes: aws:TagKeys
	Code      string            // error code of the answer, empty when it succeeded
}

// ARN builds an ARN of the called service in the caller's account and region.
func (c *Call) ARN(resource string) string { return c.Scope.For(c.Service, resource).String() }

type callKey struct{}

// WithCall puts the call into a context; handlers read it with From.
func WithCall(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// From is the call that a handler answers. It panics outside of one.
func From(ctx context.Context) *Call {
	c, ok := ctx.Value(callKey{}).(*Call)
	if !ok {
		panic("wire: no call in the context")
	}
	return c
}

// Members sorts the members of a structure by what Serin does with them.
// Names are the wire's, separated by spaces.
type Members struct {
	Performed string // it has its effect
	Recorded  string // stored and echoed, without effect
	Refused   string // a clear error when it is sent
	Ignored   string // read-only in AWS's own shape, or paging of a list that fits a page: no effect is right
}

type disposition int

const (
	unlisted disposition = iota
	performed
	recorded
	refused
	ignored
)

var parsedMembers sync.Map // Members → map[string]disposition

func (m Members) table() map[string]disposition {
	if t, ok := parsedMembers.Load(m); ok {
		return t.(map[string]disposition)
	}
	t := map[string]disposition{}
	for d, names := range map[disposition]string{performed: m.Performed, recorded: m.Recorded, refused: m.Refused, ignored: m.Ignored} {
		for _, name := range words(names) {
			if _, twice := t[name]; twice {
				panic(fmt.Sprintf("wire: member %s is listed twice", name))
			}
			t[name] = d
		}
	}
	parsedMembers.Store(m, t)
	return t
}
