package elbd

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/tags"
)

// Attributes are settings by name of load balancers, listeners and target groups.
// A row has those that somebody set; the rest are what they are at first. Names,
// values and defaults are documented; of the texts those about keys are observed,
// the rest guessed.

// attribute is what is known of one.
type attribute struct {
	first   string // when nobody has set it
	allowed func(value string) bool
	says    string   // what it must be
	only    []string // what Serin performs of it; nil: all
}

// performing limits an attribute to what Serin performs.
func (a attribute) performing(values ...string) attribute {
	a.only = values
	return a
}

// oneOf is one of some words, the first at first.
func oneOf(values ...string) attribute {
	return attribute{first: values[0], allowed: func(v string) bool { return slices.Contains(values, v) }, says: "one of '" + strings.Join(values, ", ") + "'"}
}

// number is a whole number within a range, or one of some words.
func number(first string, low, high int, words ...string) attribute {
	return attribute{first: first, says: strings.Join(append([]string{fmt.Sprintf("between '%d-%d' inclusive", low, high)}, words...), " or "), allowed: func(v string) bool {
		n, err := strconv.Atoi(v)
		return slices.Contains(words, v) || err == nil && low <= n && n <= high && strconv.Itoa(n) == v
	}}
}

// text is at most so long and what a pattern matches, nothing at first.
func text(pattern string, most int, says string) attribute {
	p := regexp.MustCompile(pattern)
	return attribute{allowed: func(v string) bool { return v == "" || len(v) <= most && p.MatchString(v) }, says: says}
}

// attributeTable is the attributes of one kind of resource.
type attributeTable struct {
	what   string // Load balancer
	of     string // load balancers with type 'network'
	own    map[string]attribute
	others []map[string]attribute // of its neighbours
}

// value is an attribute as it is set, or as it is at first.
func (t attributeTable) value(set map[string]string, key string) string {
	if v, ok := set[key]; ok {
		return v
	}
	return t.own[key].first
}

// with is what is set once a request has set some more.
func (t attributeTable) with(set map[string]string, in []tags.Tag) (map[string]string, error) {
	set = maps.Clone(set)
	if set == nil {
		set = map[string]string{}
	}
	for _, at := range in {
		a, ok := t.own[at.Key]
		switch {
		case !ok && slices.ContainsFunc(t.others, func(o map[string]attribute) bool { _, has := o[at.Key]; return has }):
			return nil, badAttribute("%s attribute key '%s' is not supported on %s", t.what, at.Key, t.of)
		case !ok:
			return nil, invalid("%s attribute key '%s' is not recognized", t.what, at.Key)
		case !a.allowed(at.Value):
			return nil, badAttribute("The value of '%s' must be %s", at.Key, a.says)
		case a.only != nil && !slices.Contains(a.only, at.Value):
			return nil, invalid("Serin performs '%s' as %s; '%s' is not performed yet", at.Key, strings.Join(a.only, ", "), at.Value)
		}
		set[at.Key] = at.Value
	}
	return set, nil
}

func badAttribute(format string, args ...any) error {
	return &types.InvalidConfigurationRequestException{Message: new(fmt.Sprintf(format, args...))}
}

// all is every attribute with its value, by name.
func (t attributeTable) all(set map[string]string) (list []tags.Tag) {
	for _, key := range slices.Sorted(maps.Keys(t.own)) {
		list = append(list, tags.Tag{Key: key, Value: t.value(set, key)})
	}
	return list
}

const switchedOn = "true"

var (
	offAtFirst = oneOf("false", switchedOn)
	onAtFirst  = oneOf(switchedOn, "false")
)
