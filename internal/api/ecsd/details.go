package ecsd

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/ecs/document"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	smithy "github.com/aws/smithy-go/document"
)

// hookDetails is any JSON object that a lifecycle hook's function is to be told.
// The SDK has it as a document, which can be written and read but not kept; rows
// have it beside the configuration.

// details are JSON objects by the hook's place in its list.
type details map[int]map[string]json.RawMessage

// newDocument makes the SDK's document of a JSON value.
func newDocument(value any) document.Interface { return document.NewLazyDocument(numbered(value)) }

// numbered has the SDK's own numbers, which it writes as they were read.
func numbered(value any) any {
	switch v := value.(type) {
	case json.Number:
		return smithy.Number(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = numbered(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key := range v {
			out[key] = numbered(v[key])
		}
		return out
	}
	return value
}

// objectOf is a document's members, nil where it is no object.
func objectOf(d document.Interface) (object map[string]json.RawMessage) {
	raw, err := d.MarshalSmithyDocument()
	if err != nil || json.Unmarshal(raw, &object) != nil {
		return nil
	}
	return object
}

// detached takes the documents out of a configuration.
func detached(c types.DeploymentConfiguration) (types.DeploymentConfiguration, details) {
	var out details
	c.LifecycleHooks = slices.Clone(c.LifecycleHooks)
	for i := range c.LifecycleHooks {
		h := &c.LifecycleHooks[i]
		if h.HookDetails == nil {
			continue
		}
		if out == nil {
			out = details{}
		}
		out[i], h.HookDetails = objectOf(h.HookDetails), nil
	}
	return c, out
}

// attached puts them in again.
func attached(c types.DeploymentConfiguration, d details) types.DeploymentConfiguration {
	if len(d) == 0 {
		return c
	}
	c.LifecycleHooks = slices.Clone(c.LifecycleHooks)
	for i, object := range d {
		raw, err := json.Marshal(object)
		var value any
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber()
		if err != nil || decoder.Decode(&value) != nil { // they were read from JSON
			panic("ecsd: hook details are not JSON")
		}
		c.LifecycleHooks[i].HookDetails = newDocument(value)
	}
	return c
}

// merged lays members over others.
func merged(under, over map[string]json.RawMessage) map[string]json.RawMessage {
	if len(over) == 0 {
		return under
	}
	out := maps.Clone(under)
	if out == nil {
		out = map[string]json.RawMessage{}
	}
	maps.Copy(out, over)
	return out
}
