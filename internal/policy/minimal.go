package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Act is something that was done and must go on being allowed.
type Act struct {
	Action, Resource string
	PassedTo         string // of iam:PassRole: the service that gets the role
}

// Minimal is the smallest identity policy that allows the acts: each action on
// its own resources, roles passed to their own services. Nil when there are none.
func Minimal(acts []Act) *Document {
	type on struct{ resource, passedTo string }
	actions := map[on]map[string]bool{}
	for _, a := range acts {
		k := on{a.Resource, a.PassedTo}
		if actions[k] == nil {
			actions[k] = map[string]bool{}
		}
		actions[k][a.Action] = true
	}
	// Resources on which the same is done share a statement.
	type same struct{ actions, passedTo string }
	resources := map[same][]string{}
	for k, set := range actions {
		s := same{strings.Join(slices.Sorted(maps.Keys(set)), " "), k.passedTo}
		resources[s] = append(resources[s], k.resource)
	}
	var statements []Statement
	for s, list := range resources {
		slices.Sort(list)
		st := Statement{Allow: true, Actions: strings.Fields(s.actions), Resources: list}
		if s.passedTo != "" {
			st.Conditions = []Condition{{Operator: "StringEquals", Key: "iam:PassedToService", Values: []string{s.passedTo}}}
		}
		statements = append(statements, st)
	}
	if statements == nil {
		return nil
	}
	slices.SortFunc(statements, func(a, b Statement) int {
		return cmp.Or(strings.Compare(a.Actions[0], b.Actions[0]), strings.Compare(a.Resources[0], b.Resources[0]))
	})
	return newDocument(statements...)
}

// Entry is a way in that was used: what a trust policy must go on admitting.
type Entry struct {
	Action    string
	Principal Principal
	Keys      map[string]string // keys that must go on having the value: aud of a web identity, sts:ExternalId
	Key       string            // a key that may have the value of any entry alike: sub of a web identity
	Value     string
}

// TightestTrust is the trust policy that admits the entries and nobody else. Nil
// when there are none.
func TightestTrust(entries []Entry) *Document {
	type way struct{ kind, principal, keys, key string }
	admitted := map[way]*Statement{}
	for _, e := range entries {
		kind, value := e.Principal.element()
		var conditions []Condition
		text := ""
		for _, k := range slices.Sorted(maps.Keys(e.Keys)) {
			conditions = append(conditions, Condition{Operator: "StringEquals", Key: k, Values: []string{variables(e.Keys[k])}})
			text += k + "\x00" + e.Keys[k] + "\x00"
		}
		if e.Key != "" {
			conditions = append(conditions, Condition{Operator: "StringEquals", Key: e.Key})
		}
		w := way{kind, value, text, e.Key}
		st := admitted[w]
		if st == nil {
			st = &Statement{Allow: true, Principals: map[string][]string{kind: {value}}, Conditions: conditions}
			admitted[w] = st
		}
		st.Actions = insert(st.Actions, e.Action)
		if e.Key != "" {
			last := &st.Conditions[len(st.Conditions)-1]
			last.Values = insert(last.Values, variables(e.Value))
		}
	}
	var statements []Statement
	for _, st := range admitted {
		statements = append(statements, *st)
	}
	if statements == nil {
		return nil
	}
	slices.SortFunc(statements, func(a, b Statement) int {
		return strings.Compare(principalText(a.Principals)+fmt.Sprint(a.Conditions), principalText(b.Principals)+fmt.Sprint(b.Conditions))
	})
	return newDocument(statements...)
}

// variables keeps a value from being read as one with variables.
func variables(value string) string { return strings.ReplaceAll(value, "${", "${$}{") }

func principalText(p map[string][]string) string {
	for kind, values := range p {
		return kind + values[0]
	}
	return ""
}

// insert adds a value to a sorted list, once.
func insert(list []string, value string) []string {
	i, found := slices.BinarySearch(list, value)
	if found {
		return list
	}
	return slices.Insert(list, i, value)
}
