package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// encodeJSON writes v as AWS JSON 1.1 does: absent pointers and lists are left
// out, present scalars are sent even when zero (ECS sends "runningCount":0),
// times are epoch seconds. The lists of the outermost structure are always
// sent, because clients index them without asking.
func (n *Naming) encodeJSON(v any) []byte {
	out := n.appendJSON(make([]byte, 0, 512), reflect.ValueOf(v), true)
	if len(out) == 0 {
		return []byte("{}")
	}
	return out
}

// JSON writes v where it is not the answer of an operation: lists that are absent
// are left out of the outermost structure, too.
func (n *Naming) JSON(v any) []byte {
	return n.appendJSON(make([]byte, 0, 2048), reflect.ValueOf(v), false)
}

// ISO is a time as AWS writes it in XML and in events.
func ISO(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func (n *Naming) appendJSON(b []byte, v reflect.Value, outermost bool) []byte {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return append(b, "null"...)
		}
		v = v.Elem()
	}
	s := n.shape(v.Type())
	switch s.kind {
	case kindString:
		return appendString(b, v.String())
	case kindBool:
		return strconv.AppendBool(b, v.Bool())
	case kindInt:
		return strconv.AppendInt(b, v.Int(), 10)
	case kindFloat:
		return appendFloat(b, v.Float(), v.Type().Bits())
	case kindTime:
		if n.ISO {
			return appendString(b, ISO(v.Interface().(time.Time)))
		}
		return appendEpoch(b, v.Interface().(time.Time))
	case kindDocument:
		return appendDocument(b, v.Interface().(marshaler))
	case kindBlob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"')
	case kindList:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = n.appendJSON(b, v.Index(i), false)
		}
		return append(b, ']')
	case kindMap:
		b = append(b, '{')
		for i, key := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, key.String()), ':')
			b = n.appendJSON(b, v.MapIndex(key), false)
		}
		return append(b, '}')
	case kindStruct:
		b = append(b, '{')
		first := true
		for i := range s.fields {
			f := &s.fields[i]
			fv := v.Field(f.index)
			if !f.sent(fv, outermost) {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(append(append(b, '"'), f.name...), '"', ':')
			b = n.appendJSON(b, fv, false)
		}
		return append(b, '}')
	case kindUnion:
		if f, value := s.chosen(v); f != nil {
			b = append(append(append(b, '{', '"'), f.name...), '"', ':')
			return append(n.appendJSON(b, value, false), '}')
		}
	}
	return append(b, "null"...)
}

func appendDocument(b []byte, m marshaler) []byte {
	raw, err := m.MarshalSmithyDocument()
	if err != nil { // it was read from JSON
		panic(err)
	}
	return append(b, raw...)
}

// sent reports whether a member of an output is written.
func (f *field) sent(v reflect.Value, outermost bool) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return !v.IsNil() || outermost && f.shape.kind == kindList
	case reflect.String:
		return v.Len() > 0 // an enum that was not set is empty
	}
	return true
}

func sortedKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

// appendFloat writes a number, 4 as 4.0 as AWS has it; what JSON has none for is
// a string.
func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	return append(b, decimal(f, bits)...)
}

func decimal(f float64, bits int) string {
	s := strconv.FormatFloat(f, 'g', -1, bits)
	if f == math.Trunc(f) && !strings.ContainsAny(s, ".eIN") {
		s += ".0"
	}
	return s
}

// appendEpoch writes seconds with milliseconds: AWS's precision on the wire.
func appendEpoch(b []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	b = strconv.AppendInt(b, ms/1000, 10)
	if frac := ms % 1000; frac != 0 {
		b = append(b, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	plain := utf8.ValidString(s)
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= 0x20 && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		return append(append(append(b, '"'), s...), '"')
	}
	quoted, err := json.Marshal(s)
	if err != nil { // a string always marshals
		panic(err)
	}
	return append(b, quoted...)
}

// encodeXML writes the members of v, without an element around them, as the
// query protocols do: lists of item elements, maps of entry elements.
func (n *Naming) encodeXML(v any, item string) []byte {
	var b bytes.Buffer
	rv := reflect.ValueOf(v)
	for rv.Kind() == reflect.Pointer {
		if rv.IsNil() {
			return nil
		}
		rv = rv.Elem()
	}
	n.writeMembers(&b, rv, item, true)
	return b.Bytes()
}

func (n *Naming) writeMembers(b *bytes.Buffer, v reflect.Value, item string, outermost bool) {
	s := n.shape(v.Type())
	for i := range s.fields {
		f := &s.fields[i]
		fv := v.Field(f.index)
		if !f.sent(fv, outermost) {
			continue
		}
		n.writeElement(b, f.name, fv, item)
	}
}

func (n *Naming) writeElement(b *bytes.Buffer, name string, v reflect.Value, item string) {
	b.WriteString("<" + name + ">")
	n.writeValue(b, v, item)
	b.WriteString("</" + name + ">")
}

func (n *Naming) writeValue(b *bytes.Buffer, v reflect.Value, item string) {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch s := n.shape(v.Type()); s.kind {
	case kindString:
		xml.EscapeText(b, []byte(v.String()))
	case kindBool:
		b.WriteString(strconv.FormatBool(v.Bool()))
	case kindInt:
		b.WriteString(strconv.FormatInt(v.Int(), 10))
	case kindFloat:
		b.WriteString(decimal(v.Float(), v.Type().Bits()))
	case kindTime:
		b.WriteString(ISO(v.Interface().(time.Time)))
	case kindBlob:
		b.WriteString(base64.StdEncoding.EncodeToString(v.Bytes()))
	case kindList:
		for i := range v.Len() {
			n.writeElement(b, item, v.Index(i), item)
		}
	case kindMap:
		for _, key := range sortedKeys(v) {
			b.WriteString("<entry><key>")
			xml.EscapeText(b, []byte(key.String()))
			b.WriteString("</key>")
			n.writeElement(b, "value", v.MapIndex(key), item)
			b.WriteString("</entry>")
		}
	case kindStruct:
		n.writeMembers(b, v, item, false)
	}
}
