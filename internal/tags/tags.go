// Package tags keeps the tags of resources of every kind in one table for each
// service, keyed by ARN, and checks them as all services do.
//
// Limits documented: https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
package tags

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"serin/internal/arn"
	"serin/internal/store"
)

// Most is how many tags a resource can have.
const Most = 50

// Tag is a key and a value.
type Tag struct{ Key, Value string }

// Problem is what is wrong with tags.
type Problem int

const (
	BadTag Problem = iota
	TooMany
	Duplicate
)

// Error refuses tags; the service puts it into its own words.
type Error struct {
	Problem Problem
	Message string
}

func (e *Error) Error() string { return e.Message }

// Case is whether keys that differ by case are two. They are for ECS, ECR and
// ELB; for IAM and STS they are one, documented.
type Case bool

const (
	Exact   Case = false
	AnyCase Case = true
)

func (c Case) fold(key string) string {
	if c == AnyCase {
		return strings.ToLower(key)
	}
	return key
}

func (c Case) same(a, b string) bool { return a == b || c == AnyCase && strings.EqualFold(a, b) }

// Table is the tags of a service's resources.
type Table struct {
	rows *store.Table[[]Tag]
	keys Case
}

// NewTable adds a table to the store.
func NewTable(s *store.Store, name string, keys Case) *Table {
	return &Table{store.NewTable[[]Tag](s, name), keys}
}

func key(resourceARN string) string {
	a, err := arn.Parse(resourceARN)
	if err != nil {
		return "|" + resourceARN
	}
	return a.Scope().Key(resourceARN)
}

// Of is a resource's tags, in the order in which they were given.
func (t *Table) Of(tx *store.Tx, resourceARN string) []Tag {
	list, _ := t.rows.Get(tx, key(resourceARN))
	return list
}

// Set replaces a resource's tags; none forgets them.
func (t *Table) Set(tx *store.Tx, resourceARN string, list []Tag) {
	if len(list) == 0 {
		t.rows.Delete(tx, key(resourceARN))
		return
	}
	t.rows.Put(tx, key(resourceARN), slices.Clone(list))
}

// Add adds tags, or gives those that are there another value.
func (t *Table) Add(tx *store.Tx, resourceARN string, list []Tag) error {
	merged := slices.DeleteFunc(slices.Clone(t.Of(tx, resourceARN)), func(old Tag) bool {
		return slices.ContainsFunc(list, func(n Tag) bool { return t.keys.same(n.Key, old.Key) })
	})
	merged = append(merged, list...)
	if err := check(merged, t.keys, true); err != nil {
		return err
	}
	t.Set(tx, resourceARN, merged)
	return nil
}

// Remove removes tags by their keys.
func (t *Table) Remove(tx *store.Tx, resourceARN string, keys []string) {
	t.Set(tx, resourceARN, slices.DeleteFunc(slices.Clone(t.Of(tx, resourceARN)), func(old Tag) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return t.keys.same(key, old.Key) })
	}))
}

// Check refuses what no tags of a request may be.
func Check(list []Tag, keys Case) error { return check(list, keys, false) }

// check lets keys pass that only AWS itself sets where those that are there
// already are checked again.
func check(list []Tag, keys Case, reserved bool) error {
	if len(list) > Most {
		return &Error{TooMany, fmt.Sprintf("a resource can have at most %d tags, got %d", Most, len(list))}
	}
	seen := map[string]bool{}
	for _, t := range list {
		switch {
		case t.Key == "" || len([]rune(t.Key)) > 128:
			return &Error{BadTag, fmt.Sprintf("a tag's key must have between 1 and 128 characters, got '%s'", t.Key)}
		case len([]rune(t.Value)) > 256:
			return &Error{BadTag, fmt.Sprintf("the value of tag '%s' can have at most 256 characters", t.Key)}
		case !reserved && strings.HasPrefix(strings.ToLower(t.Key), "aws:"):
			return &Error{BadTag, fmt.Sprintf("tag keys that begin with aws: are reserved, got '%s'", t.Key)}
		case seen[keys.fold(t.Key)]:
			return &Error{Duplicate, fmt.Sprintf("the tag key '%s' is given twice", t.Key)}
		}
		seen[keys.fold(t.Key)] = true
	}
	return nil
}

// In reads an SDK package's tags: structs with *string members Key and Value.
func In[T any](list []T) []Tag {
	out := make([]Tag, 0, len(list))
	for _, item := range list {
		v := reflect.ValueOf(item)
		out = append(out, Tag{text(v.FieldByName("Key")), text(v.FieldByName("Value"))})
	}
	return out
}

func text(v reflect.Value) string {
	if v.IsNil() {
		return ""
	}
	return v.Elem().String()
}

// Out writes tags as an SDK package's, never nil: the services answer a list.
func Out[T any](list []Tag) []T {
	out := make([]T, len(list))
	for i, t := range list {
		v := reflect.ValueOf(&out[i]).Elem()
		v.FieldByName("Key").Set(reflect.ValueOf(new(t.Key)))
		v.FieldByName("Value").Set(reflect.ValueOf(new(t.Value)))
	}
	return out
}

// Map is a resource's tags by their keys, for conditions on aws:ResourceTag.
func (t *Table) Map(tx *store.Tx, resourceARN string) map[string]string {
	out := map[string]string{}
	for _, tag := range t.Of(tx, resourceARN) {
		out[tag.Key] = tag.Value
	}
	return out
}
