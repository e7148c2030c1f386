package wire

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Naming says how a service spells the members that the SDK calls by their Go
// names. Checked for every registered operation against the SDK's own clients.
type Naming struct {
	// Lower makes the first letter small, as the JSON services do.
	Lower bool
	// Except maps "Type.Field" to a spelling that the rule misses.
	Except map[string]string
	// ISO writes times as events have them, in place of epoch seconds.
	ISO bool
	// Document makes the service's own document of a JSON value, where it has
	// members that are one; numbers come as json.Number.
	Document func(value any) any
	// Unions are the members of the service's unions, as pointers to the SDK's
	// structs: of SharingStrategy, SharingStrategyMemberNvidiaMps is the member nvidiaMps.
	Unions []any

	shapes sync.Map // reflect.Type → *shape
}

type kind int

const (
	kindString kind = iota
	kindBool
	kindInt
	kindFloat
	kindTime
	kindBlob
	kindList
	kindMap
	kindStruct
	kindDocument // any JSON
	kindUnion    // a structure of which one member is set
	kindOpaque   // unions without a member that is performed: always refused
)

// shape is what the codec knows of a Go type: found once, by reflection.
type shape struct {
	kind   kind
	typ    reflect.Type
	name   string // Go type name, for the member lists
	elem   *shape // list element or map value
	fields []field
	byName map[string]*field
	enum   []string // allowed values of a string, nil when any
}

type field struct {
	index  int
	goTag  string // Go name
	name   string // wire name
	shape  *shape
	member reflect.Type // of a union: the struct whose field Value is the member
}

var timeType = reflect.TypeFor[time.Time]()

// marshaler is what the SDK's documents are.
type marshaler interface {
	MarshalSmithyDocument() ([]byte, error)
}

// shape returns the shape of t; pointers are looked through.
func (n *Naming) shape(t reflect.Type) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s, ok := n.shapes.Load(t); ok {
		return s.(*shape)
	}
	return n.build(t, map[reflect.Type]*shape{})
}

// build makes the shape of t. Types refer to each other in circles, so shapes
// under construction are found in open.
func (n *Naming) build(t reflect.Type, open map[reflect.Type]*shape) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s, ok := n.shapes.Load(t); ok {
		return s.(*shape)
	}
	if s, ok := open[t]; ok {
		return s
	}
	s := &shape{typ: t, name: t.Name()}
	open[t] = s
	switch t.Kind() {
	case reflect.String:
		s.kind, s.enum = kindString, enumValues(t)
	case reflect.Bool:
		s.kind = kindBool
	case reflect.Int32, reflect.Int64, reflect.Int, reflect.Int16, reflect.Int8:
		s.kind = kindInt
	case reflect.Float32, reflect.Float64:
		s.kind = kindFloat
	case reflect.Interface:
		s.kind = kindOpaque
		if n.Document != nil && t.Implements(reflect.TypeFor[marshaler]()) {
			s.kind = kindDocument
		} else {
			n.buildUnion(s, open)
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			s.kind = kindBlob
			break
		}
		s.kind, s.elem = kindList, n.build(t.Elem(), open)
	case reflect.Map:
		s.kind, s.elem = kindMap, n.build(t.Elem(), open)
	case reflect.Struct:
		if t == timeType {
			s.kind = kindTime
			break
		}
		s.kind, s.byName = kindStruct, map[string]*field{}
		for i := range t.NumField() {
			f := t.Field(i)
			if !f.IsExported() || f.Name == "ResultMetadata" {
				continue
			}
			s.fields = append(s.fields, field{index: i, goTag: f.Name, name: n.memberName(t.Name(), f), shape: n.build(f.Type, open)})
		}
		for i := range s.fields {
			s.byName[s.fields[i].name] = &s.fields[i]
		}
	default:
		panic(fmt.Sprintf("wire: no shape for %v", t))
	}
	n.shapes.Store(t, s)
	return s
}

// buildUnion finds the members of a union among those that the service named.
func (n *Naming) buildUnion(s *shape, open map[reflect.Type]*shape) {
	s.byName = map[string]*field{}
	for _, u := range n.Unions {
		if t := reflect.TypeOf(u); t.Implements(s.typ) {
			_, name, _ := strings.Cut(t.Elem().Name(), "Member")
			value := t.Elem().Field(0)
			s.kind = kindUnion
			s.fields = append(s.fields, field{goTag: name, name: n.memberName("", reflect.StructField{Name: name}), shape: n.build(value.Type, open), member: t.Elem()})
		}
	}
	for i := range s.fields {
		s.byName[s.fields[i].name] = &s.fields[i]
	}
}

// chosen is the member of a union that is set, and its value.
func (s *shape) chosen(v reflect.Value) (*field, reflect.Value) {
	for i := range s.fields {
		if f := &s.fields[i]; !v.IsNil() && v.Elem().Type().Elem() == f.member {
			return f, v.Elem().Elem().Field(f.index)
		}
	}
	return nil, reflect.Value{}
}

func (n *Naming) memberName(typ string, f reflect.StructField) string {
	if tag := f.Tag.Get("wire"); tag != "" {
		return tag
	}
	if name, ok := n.Except[typ+"."+f.Name]; ok {
		return name
	}
	if !n.Lower {
		return f.Name
	}
	r, size := utf8.DecodeRuneInString(f.Name)
	return string(unicode.ToLower(r)) + f.Name[size:]
}

// enumValues asks an SDK enum for its values. A plain string has none.
func enumValues(t reflect.Type) []string {
	m, ok := t.MethodByName("Values")
	if !ok || m.Type.NumOut() != 1 {
		return nil
	}
	out := m.Func.Call([]reflect.Value{reflect.Zero(t)})[0]
	values := make([]string, out.Len())
	for i := range values {
		values[i] = out.Index(i).String()
	}
	return values
}

// isUnset reports whether a member was not sent, as far as Go can tell: the
// SDK itself does not send zero scalars that it has no pointer for.
func isUnset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

// path names a member inside an input, for error texts: loadBalancers[0].containerPort.
type path struct {
	up   *path
	name string
	at   int
}

func (p *path) member(name string) *path { return &path{p, name, -1} }
func (p *path) item(i int) *path         { return &path{p, "", i} }

func (p *path) String() string {
	if p == nil {
		return ""
	}
	var b strings.Builder
	p.write(&b)
	return b.String()
}

func (p *path) write(b *strings.Builder) {
	if p.up != nil {
		p.up.write(b)
	}
	if p.name == "" {
		fmt.Fprintf(b, "[%d]", p.at)
		return
	}
	if b.Len() > 0 {
		b.WriteByte('.')
	}
	b.WriteString(p.name)
}
