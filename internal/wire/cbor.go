package wire

import (
	"encoding/json"
	"reflect"
	"strconv"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
)

// parseCBOR reads a CBOR map into the tree that JSON is read into. An empty
// body is an empty map.
func parseCBOR(body []byte) (map[string]any, error) {
	if len(body) == 0 {
		return nil, nil
	}
	v, err := cbor.Decode(body)
	if err != nil {
		return nil, &DecodeError{Reason: "the body is not valid CBOR: " + err.Error()}
	}
	tree, ok := treeOf(v).(map[string]any)
	if !ok {
		return nil, &DecodeError{Reason: "the body must be a CBOR map"}
	}
	return tree, nil
}

func treeOf(v cbor.Value) any {
	switch v := v.(type) {
	case cbor.Map:
		out := make(map[string]any, len(v))
		for name, item := range v {
			out[name] = treeOf(item)
		}
		return out
	case cbor.List:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = treeOf(item)
		}
		return out
	case cbor.String:
		return string(v)
	case cbor.Slice:
		return []byte(v)
	case cbor.Bool:
		return bool(v)
	case cbor.Uint:
		return json.Number(strconv.FormatUint(uint64(v), 10))
	case cbor.NegInt:
		return json.Number("-" + strconv.FormatUint(uint64(v), 10))
	case cbor.Float32:
		return json.Number(strconv.FormatFloat(float64(v), 'g', -1, 32))
	case cbor.Float64:
		return json.Number(strconv.FormatFloat(float64(v), 'g', -1, 64))
	case *cbor.Tag: // of a time
		return treeOf(v.Value)
	}
	return nil // null and undefined are absent
}

// cborOf is v as CBOR. What is sent and what is left out is as in JSON.
func (n *Naming) cborOf(v reflect.Value, outermost bool) cbor.Value {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return &cbor.Nil{}
		}
		v = v.Elem()
	}
	switch s := n.shape(v.Type()); s.kind {
	case kindString:
		return cbor.String(v.String())
	case kindBool:
		return cbor.Bool(v.Bool())
	case kindInt:
		if i := v.Int(); i < 0 {
			return cbor.NegInt(-i)
		}
		return cbor.Uint(v.Int())
	case kindFloat:
		return cbor.Float64(v.Float())
	case kindTime:
		return &cbor.Tag{ID: 1, Value: cbor.Float64(float64(v.Interface().(time.Time).UnixMilli()) / 1000)}
	case kindBlob:
		return cbor.Slice(v.Bytes())
	case kindList:
		out := make(cbor.List, v.Len())
		for i := range v.Len() {
			out[i] = n.cborOf(v.Index(i), false)
		}
		return out
	case kindMap:
		out := cbor.Map{}
		for _, key := range sortedKeys(v) {
			out[key.String()] = n.cborOf(v.MapIndex(key), false)
		}
		return out
	case kindStruct:
		out := cbor.Map{}
		for i := range s.fields {
			f := &s.fields[i]
			if fv := v.Field(f.index); f.sent(fv, outermost) {
				out[f.name] = n.cborOf(fv, false)
			}
		}
		return out
	}
	return &cbor.Nil{}
}
