package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DecodeError says which member of a request could not be read, and why.
type DecodeError struct {
	Member string // path of the member; empty for the body as a whole
	Reason string
}

func (e *DecodeError) Error() string {
	if e.Member == "" {
		return e.Reason
	}
	return e.Member + ": " + e.Reason
}

// All protocols are first read into one tree, map[string]any, []any and
// scalars, which assign then fits to the Go type: in JSON and CBOR the scalars
// are typed, in a form all of them are strings.

// parseJSON reads a JSON object. An empty body is an empty object, as AWS has it.
func parseJSON(body []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, &DecodeError{Reason: "the body is not valid JSON: " + err.Error()}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &DecodeError{Reason: "the body holds more than one JSON value"}
	}
	m, ok := tree.(map[string]any)
	if !ok {
		return nil, &DecodeError{Reason: "the body must be a JSON object"}
	}
	return m, nil
}

// parseForm reads A.member.1.B=v into nested maps; lists stay maps of their
// indices until assign knows that a list is wanted.
func parseForm(form url.Values) (map[string]any, error) {
	root := map[string]any{}
	for key, values := range form {
		if key == "Action" || key == "Version" {
			continue
		}
		if len(values) > 1 {
			return nil, &DecodeError{key, "given more than once"}
		}
		at := root
		parts := strings.Split(key, ".")
		if len(parts) > 64 {
			return nil, &DecodeError{key[:64], "nested too deeply"}
		}
		for _, p := range parts[:len(parts)-1] {
			next, ok := at[p].(map[string]any)
			if !ok {
				if _, taken := at[p]; taken {
					return nil, &DecodeError{key, "is both a value and a structure"}
				}
				next = map[string]any{}
				at[p] = next
			}
			at = next
		}
		last := parts[len(parts)-1]
		if _, taken := at[last]; taken {
			return nil, &DecodeError{key, "is both a value and a structure"}
		}
		at[last] = values[0]
	}
	return root, nil
}

// decoder fits a tree to a Go value.
type decoder struct {
	naming *Naming
	form   bool
}

func (d decoder) assign(node any, v reflect.Value, at *path) error {
	if node == nil {
		return nil // null is absent
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.assign(node, v.Elem(), at)
	}
	s := d.naming.shape(v.Type())
	switch s.kind {
	case kindStruct:
		return d.assignStruct(node, v, s, at)
	case kindList:
		return d.assignList(node, v, at)
	case kindMap:
		return d.assignMap(node, v, at)
	case kindDocument:
		v.Set(reflect.ValueOf(d.naming.Document(node)))
		return nil
	case kindUnion:
		return d.assignUnion(node, v, s, at)
	case kindOpaque:
		return &DecodeError{at.String(), "is not performed by Serin"}
	}
	return d.assignScalar(node, v, s, at)
}

func (d decoder) assignStruct(node any, v reflect.Value, s *shape, at *path) error {
	m, ok := node.(map[string]any)
	if !ok {
		if node == "" && d.form { // an empty structure in a form
			return nil
		}
		return mismatch(at, "a structure", node)
	}
	for name, child := range m {
		f, ok := s.byName[name]
		if !ok {
			return &DecodeError{at.member(name).String(), "is not a member that Serin knows" + nearest(name, s)}
		}
		if err := d.assign(child, v.Field(f.index), at.member(name)); err != nil {
			return err
		}
	}
	return nil
}

func (d decoder) assignUnion(node any, v reflect.Value, s *shape, at *path) error {
	m, ok := node.(map[string]any)
	if !ok {
		return mismatch(at, "a structure", node)
	}
	if len(m) != 1 {
		return &DecodeError{at.String(), fmt.Sprintf("must have exactly one member, got %d", len(m))}
	}
	for name, child := range m {
		f, ok := s.byName[name]
		if !ok {
			return &DecodeError{at.member(name).String(), "is not a member that Serin knows" + nearest(name, s)}
		}
		member := reflect.New(f.member)
		if err := d.assign(child, member.Elem().Field(f.index), at.member(name)); err != nil {
			return err
		}
		v.Set(member)
	}
	return nil
}

func (d decoder) assignList(node any, v reflect.Value, at *path) error {
	items, ok := node.([]any)
	if !ok && d.form {
		var err error
		if items, err = formList(node, at); err != nil {
			return err
		}
		ok = true
	}
	if !ok {
		return mismatch(at, "a list", node)
	}
	list := reflect.MakeSlice(v.Type(), 0, len(items))
	for i, item := range items {
		if item == nil {
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if err := d.assign(item, e, at.item(i)); err != nil {
			return err
		}
		list = reflect.Append(list, e)
	}
	v.Set(list)
	return nil
}

// formList turns {member: {1: a, 2: b}} or {1: a, 2: b} into [a b].
func formList(node any, at *path) ([]any, error) {
	m, ok := node.(map[string]any)
	if !ok {
		if node == "" {
			return nil, nil
		}
		return nil, mismatch(at, "a list", node)
	}
	for _, word := range []string{"member", "item"} { // the second in one list of Auto Scaling
		if inner, ok := m[word]; ok && len(m) == 1 {
			return formList(inner, at)
		}
	}
	indices := make([]int, 0, len(m))
	for k := range m {
		i, err := strconv.Atoi(k)
		if err != nil || i < 1 {
			return nil, &DecodeError{at.String(), fmt.Sprintf("%q is not a list index", k)}
		}
		indices = append(indices, i)
	}
	slices.Sort(indices)
	items := make([]any, 0, len(m))
	for _, i := range indices {
		items = append(items, m[strconv.Itoa(i)])
	}
	return items, nil
}

func (d decoder) assignMap(node any, v reflect.Value, at *path) error {
	m, ok := node.(map[string]any)
	if !ok {
		return mismatch(at, "a map", node)
	}
	if entries, is := m["entry"]; d.form && is {
		items, err := formList(entries, at)
		if err != nil {
			return err
		}
		m = map[string]any{}
		for _, item := range items {
			pair, _ := item.(map[string]any)
			key, ok := pair["key"].(string)
			if !ok {
				return &DecodeError{at.String(), "an entry has no key"}
			}
			m[key] = pair["value"]
		}
	}
	out := reflect.MakeMapWithSize(v.Type(), len(m))
	for key, child := range m {
		e := reflect.New(v.Type().Elem()).Elem()
		if err := d.assign(child, e, at.member(key)); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), e)
	}
	v.Set(out)
	return nil
}

func (d decoder) assignScalar(node any, v reflect.Value, s *shape, at *path) error {
	text, isText := node.(string)
	number, isNumber := node.(json.Number)
	if d.form && isText {
		number, isNumber = json.Number(text), true
	}
	switch s.kind {
	case kindString:
		if !isText {
			return mismatch(at, "a string", node)
		}
		v.SetString(text)
	case kindBool:
		b, ok := node.(bool)
		if d.form && (text == "true" || text == "false") {
			b, ok = text == "true", true
		}
		if !ok {
			return mismatch(at, "a boolean", node)
		}
		v.SetBool(b)
	case kindInt:
		if !isNumber {
			return mismatch(at, "a whole number", node)
		}
		i, err := wholeNumber(number)
		if err != nil || v.OverflowInt(i) {
			return mismatch(at, fmt.Sprintf("a whole number of %d bits", v.Type().Bits()), node)
		}
		v.SetInt(i)
	case kindFloat:
		if text == "NaN" || text == "Infinity" || text == "-Infinity" { // as JSON has them
			number, isNumber = json.Number(text), true
		}
		f, err := number.Float64()
		if !isNumber || err != nil {
			return mismatch(at, "a number", node)
		}
		v.SetFloat(f)
	case kindTime:
		t, ok := parseTime(text, number, isNumber)
		if !ok {
			return mismatch(at, "a time", node)
		}
		v.Set(reflect.ValueOf(t))
	case kindBlob:
		if raw, ok := node.([]byte); ok {
			v.SetBytes(raw)
			return nil
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if !isText || err != nil {
			return mismatch(at, "base64 data", node)
		}
		v.SetBytes(raw)
	}
	return nil
}

func wholeNumber(n json.Number) (int64, error) {
	if i, err := n.Int64(); err == nil {
		return i, nil
	}
	f, err := n.Float64() // 1.0 and 1e3 are whole too
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, fmt.Errorf("%q is not a whole number", n)
	}
	return int64(f), nil
}

func parseTime(text string, number json.Number, isNumber bool) (time.Time, bool) {
	if f, err := number.Float64(); isNumber && err == nil {
		sec, frac := math.Modf(f)
		// Milliseconds: what a float64 of today's seconds carries exactly enough of.
		return time.Unix(int64(sec), int64(math.Round(frac*1000))*int64(time.Millisecond)).UTC(), true
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return t.UTC(), err == nil
}

func mismatch(at *path, want string, got any) error {
	kind := "a value of another kind"
	switch got := got.(type) {
	case string:
		kind = strconv.Quote(shorten(got))
	case json.Number:
		kind = got.String()
	case bool:
		kind = strconv.FormatBool(got)
	case []any:
		kind = "a list"
	case map[string]any:
		kind = "a structure"
	}
	return &DecodeError{at.String(), "must be " + want + ", got " + kind}
}

func shorten(s string) string {
	if len(s) > 64 {
		return s[:61] + "..."
	}
	return s
}

// nearest hints at a member spelled almost like name.
func nearest(name string, s *shape) string {
	for _, f := range s.fields {
		if strings.EqualFold(f.name, name) {
			return fmt.Sprintf(" (did you mean %q?)", f.name)
		}
	}
	return ""
}
