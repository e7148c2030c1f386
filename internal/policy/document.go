// Package policy evaluates IAM policies and says why.
//
// It is pure: a parsed document, a request with its context keys, and the
// decision that follows, with the statement or condition that made it. It
// knows nothing of HTTP, stores or ARNs beyond their colons. The rules are
// those of the IAM user guide, documented:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Document is a parsed policy.
type Document struct {
	Version    string
	Statements []Statement
}

// Statement is one statement of a document. Exactly one of Actions and
// NotActions is set, and likewise for resources.
type Statement struct {
	Sid           string
	Allow         bool
	Actions       []string
	NotActions    []string
	Resources     []string
	NotResources  []string
	Principals    map[string][]string // AWS, Service, Federated → values; "*" alone is {"AWS": ["*"]}
	NotPrincipals map[string][]string
	Conditions    []Condition

	actions   []pattern // Actions or NotActions, in lower case
	resources []pattern // Resources or NotResources
}

// Condition is one key under one operator; all conditions of a statement must hold.
type Condition struct {
	Operator string // as written: ForAnyValue:StringLikeIfExists
	Key      string
	Values   []string

	op  operator
	key string // in lower case
}

// compile prepares what every evaluation needs.
func (st *Statement) compile(version string) {
	expands := version == "2012-10-17"
	st.actions, st.resources = nil, nil
	for _, a := range slices.Concat(st.Actions, st.NotActions) {
		st.actions = append(st.actions, newPattern(strings.ToLower(a), false))
	}
	for _, r := range slices.Concat(st.Resources, st.NotResources) {
		st.resources = append(st.resources, newPattern(r, expands))
	}
	for i := range st.Conditions {
		c := &st.Conditions[i]
		c.op, _ = parseOperator(c.Operator) // validated
		c.op.expands = c.op.expands && expands
		c.key = strings.ToLower(c.Key)
	}
}

// MaxLength is the most characters that IAM reads of a document, whatever its
// quota; documented for every operation that takes one.
const MaxLength = 131072

// Kind is what a document is for; it decides what must and must not be in it.
type Kind int

const (
	Identity Kind = iota
	Trust
	Resource
)

// SyntaxError is a document that IAM would refuse. Message is IAM's text where
// it is known, observed.
type SyntaxError struct{ Message string }

func (e *SyntaxError) Error() string { return e.Message }

func syntax(format string, args ...any) error { return &SyntaxError{fmt.Sprintf(format, args...)} }

// Parse reads and validates a document of the kind.
func Parse(text string, kind Kind) (*Document, error) {
	if len(text) > MaxLength {
		return nil, syntax("1 validation error detected: Value at 'policyDocument' failed to satisfy constraint: Member must have length less than or equal to %d", MaxLength)
	}
	raw, err := decode(text)
	if err != nil {
		if kind == Trust {
			return nil, syntax("This policy contains invalid Json")
		}
		return nil, syntax("Syntax errors in policy.")
	}
	d := &Document{Version: "2008-10-17"}
	for _, m := range raw {
		switch m.name {
		case "Version":
			if d.Version, _ = m.value.(string); d.Version != "2012-10-17" && d.Version != "2008-10-17" {
				return nil, syntax("The policy must contain a valid version string")
			}
		case "Id":
		case "Statement":
			list, ok := m.value.([]any)
			if !ok {
				list = []any{m.value}
			}
			for _, item := range list {
				st, err := parseStatement(item, kind)
				if err != nil {
					return nil, err
				}
				d.Statements = append(d.Statements, *st)
			}
		default:
			return nil, badSyntax(kind)
		}
	}
	if len(d.Statements) == 0 {
		return nil, syntax("Could not parse the policy: Statement is empty!")
	}
	sids := map[string]bool{}
	for _, st := range d.Statements {
		if st.Sid != "" && sids[st.Sid] {
			if kind == Trust {
				return nil, syntax("The Statement Ids in the policy are not unique")
			}
			return nil, syntax("Statement IDs (SID) in a single policy must be unique.")
		}
		sids[st.Sid] = true
	}
	for i := range d.Statements {
		d.Statements[i].compile(d.Version)
	}
	return d, nil
}

func badSyntax(kind Kind) error {
	if kind == Trust {
		return syntax("Syntax error in policy.")
	}
	return syntax("Syntax errors in policy.")
}

func parseStatement(item any, kind Kind) (*Statement, error) {
	members, ok := item.(object)
	if !ok {
		return nil, badSyntax(kind)
	}
	st := &Statement{}
	var effect string
	for _, m := range members {
		var err error
		switch m.name {
		case "Sid":
			st.Sid, _ = m.value.(string)
		case "Effect":
			effect, _ = m.value.(string)
		case "Action":
			st.Actions, err = stringList(m.value, kind)
		case "NotAction":
			st.NotActions, err = stringList(m.value, kind)
		case "Resource":
			st.Resources, err = stringList(m.value, kind)
		case "NotResource":
			st.NotResources, err = stringList(m.value, kind)
		case "Principal":
			st.Principals, err = parsePrincipal(m.value, kind)
		case "NotPrincipal":
			st.NotPrincipals, err = parsePrincipal(m.value, kind)
		case "Condition":
			st.Conditions, err = parseConditions(m.value, kind)
		default:
			err = badSyntax(kind)
		}
		if err != nil {
			return nil, err
		}
	}
	switch effect {
	case "Allow":
		st.Allow = true
	case "Deny":
	case "":
		return nil, syntax("Missing required field Effect")
	default:
		return nil, syntax("Invalid effect: %s", effect)
	}
	return st, st.validate(kind)
}

var sidPattern = regexp.MustCompile(`^[0-9A-Za-z]*$`)

func (st *Statement) validate(kind Kind) error {
	for _, p := range []map[string][]string{st.Principals, st.NotPrincipals} {
		for name, values := range p {
			if len(values) == 0 {
				delete(p, name)
			}
		}
		if p != nil && len(p) == 0 {
			return syntax("Missing required field Principal")
		}
	}
	if st.Principals != nil && st.NotPrincipals != nil {
		return badSyntax(kind)
	}
	if st.Sid != "" && kind == Identity && !sidPattern.MatchString(st.Sid) {
		return syntax("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
	}
	if st.Actions != nil && len(st.Actions) == 0 || st.NotActions != nil && len(st.NotActions) == 0 {
		return syntax("Policy statement must contain actions.")
	}
	if st.Resources != nil && len(st.Resources) == 0 || st.NotResources != nil && len(st.NotResources) == 0 {
		return syntax("Policy statement must contain resources.")
	}
	if (st.Actions == nil) == (st.NotActions == nil) {
		if kind == Trust {
			return syntax("Missing required field Action")
		}
		return syntax("Policy statement must contain actions.")
	}
	for _, a := range slices.Concat(st.Actions, st.NotActions) {
		vendor, _, ok := strings.Cut(a, ":")
		if a == "*" && kind != Trust {
			continue
		}
		if kind == Trust {
			if !strings.EqualFold(vendor, "sts") {
				return syntax("AssumeRole policy may only specify STS AssumeRole actions.")
			}
			continue
		}
		if !ok || vendor == "" {
			return syntax("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
		}
		if strings.ContainsAny(vendor, " */") {
			return syntax("Vendor %s is not valid", vendor)
		}
	}
	switch kind {
	case Trust:
		if st.Resources != nil || st.NotResources != nil {
			return syntax("Has prohibited field Resource")
		}
		if st.Principals == nil && st.NotPrincipals == nil {
			return syntax("Missing required field Principal")
		}
		if st.Allow && st.NotPrincipals != nil {
			return syntax("Allow with NotPrincipal is not allowed.")
		}
	case Identity:
		if st.Principals != nil || st.NotPrincipals != nil {
			return syntax("Policy document should not specify a principal.")
		}
		if (st.Resources == nil) == (st.NotResources == nil) {
			return syntax("Policy statement must contain resources.")
		}
	case Resource:
		if st.Principals == nil && st.NotPrincipals == nil {
			return syntax("Missing required field Principal")
		}
	}
	for _, r := range slices.Concat(st.Resources, st.NotResources) {
		if r == "*" {
			continue
		}
		parts := strings.SplitN(r, ":", 6)
		if len(parts) < 6 || parts[0] != "arn" {
			return syntax("Resource %s must be in ARN format or \"*\".", r)
		}
		if p := parts[1]; p != "aws" && p != "*" && !strings.HasPrefix(p, "aws-") {
			return syntax("Partition %q is not valid for resource %q.", p, r)
		}
	}
	for _, c := range st.Conditions {
		if _, err := parseOperator(c.Operator); err != nil {
			return err
		}
	}
	return nil
}

func parsePrincipal(v any, kind Kind) (map[string][]string, error) {
	if v == "*" {
		if kind == Trust {
			return nil, syntax("AssumeRolepolicy contained an invalid principal: \"STAR\":\"*\".")
		}
		return map[string][]string{"AWS": {"*"}}, nil
	}
	members, ok := v.(object)
	if !ok {
		return nil, badSyntax(kind)
	}
	out := map[string][]string{}
	for _, m := range members {
		if !slices.Contains([]string{"AWS", "Service", "Federated", "CanonicalUser"}, m.name) {
			return nil, badSyntax(kind)
		}
		values, err := stringList(m.value, kind)
		if err != nil {
			return nil, err
		}
		out[m.name] = values
	}
	return out, nil
}

func parseConditions(v any, kind Kind) ([]Condition, error) {
	operators, ok := v.(object)
	if !ok {
		return nil, badSyntax(kind)
	}
	var out []Condition
	for _, op := range operators {
		keys, ok := op.value.(object)
		if !ok {
			return nil, badSyntax(kind)
		}
		for _, key := range keys {
			values, err := stringList(key.value, kind)
			if err != nil {
				return nil, err
			}
			out = append(out, Condition{Operator: op.name, Key: key.name, Values: values})
		}
	}
	return out, nil
}

// stringList reads a string or a list of strings; numbers and booleans in
// conditions are read as their text.
func stringList(v any, kind Kind) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		switch item := item.(type) {
		case string:
			out = append(out, item)
		case json.Number:
			out = append(out, item.String())
		case bool:
			out = append(out, fmt.Sprint(item))
		default:
			return nil, badSyntax(kind)
		}
	}
	return out, nil
}

// object keeps members in order and refuses a name given twice, which
// encoding/json would silently merge.
type object []member

type member struct {
	name  string
	value any
}

func decode(text string) (object, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	v, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	o, ok := v.(object)
	if !ok {
		return nil, errors.New("not an object")
	}
	return o, nil
}

func decodeValue(d *json.Decoder, depth int) (any, error) {
	if depth > 32 {
		return nil, errors.New("nested too deeply")
	}
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		o, seen := object{}, map[string]bool{}
		for d.More() {
			tok, err := d.Token()
			if err != nil {
				return nil, err
			}
			name := tok.(string) // the decoder lets nothing else stand here
			value, err := decodeValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			if seen[name] {
				return nil, fmt.Errorf("%q is given twice", name)
			}
			seen[name] = true
			o = append(o, member{name, value})
		}
		_, err := d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := decodeValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return tok, nil
}

// MarshalJSON writes the document as IAM takes it: a single value stands alone,
// several are a list, and elements come in the usual order.
func (d *Document) MarshalJSON() ([]byte, error) {
	statements := make([]json.RawMessage, len(d.Statements))
	for i := range d.Statements {
		raw, err := d.Statements[i].MarshalJSON()
		if err != nil {
			return nil, err
		}
		statements[i] = raw
	}
	return json.Marshal(struct {
		Version   string
		Statement []json.RawMessage
	}{d.Version, statements})
}

// MarshalJSON writes one statement.
func (st *Statement) MarshalJSON() ([]byte, error) {
	effect := "Deny"
	if st.Allow {
		effect = "Allow"
	}
	return json.Marshal(struct {
		Sid          string         `json:",omitempty"`
		Effect       string         //
		Principal    any            `json:",omitempty"`
		NotPrincipal any            `json:",omitempty"`
		Action       any            `json:",omitempty"`
		NotAction    any            `json:",omitempty"`
		Resource     any            `json:",omitempty"`
		NotResource  any            `json:",omitempty"`
		Condition    map[string]any `json:",omitempty"`
	}{
		st.Sid, effect, principalJSON(st.Principals), principalJSON(st.NotPrincipals), oneOrMany(st.Actions), oneOrMany(st.NotActions),
		oneOrMany(st.Resources), oneOrMany(st.NotResources), conditionJSON(st.Conditions),
	})
}

func oneOrMany(list []string) any {
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return list
}

func principalJSON(p map[string][]string) any {
	if len(p) == 0 {
		return nil
	}
	out := map[string]any{}
	for kind, values := range p {
		out[kind] = oneOrMany(values)
	}
	return out
}

func conditionJSON(conditions []Condition) map[string]any {
	out := map[string]any{}
	for _, c := range conditions {
		keys, ok := out[c.Operator].(map[string]any)
		if !ok {
			keys = map[string]any{}
			out[c.Operator] = keys
		}
		if keys[c.Key] = oneOrMany(c.Values); len(c.Values) == 0 {
			keys[c.Key] = []string{} // meets nothing, but may stand there
		}
	}
	return out
}

// UnmarshalJSON reads a document of any kind.
func (d *Document) UnmarshalJSON(raw []byte) error {
	var first error
	for _, kind := range []Kind{Identity, Trust, Resource} {
		parsed, err := Parse(string(raw), kind)
		if err == nil {
			*d = *parsed
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}
