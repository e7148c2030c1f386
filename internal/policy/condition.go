package policy

import (
	"cmp"
	"encoding/base64"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// operator is a condition operator taken apart.
type operator struct {
	set      string // "", ForAllValues, ForAnyValue
	base     string // StringEquals …
	ifExists bool
	negated  bool
	match    func(want, have string) bool // of the positive form
	expands  bool                         // policy variables in its values
	globs    bool                         // * and ? in its values
}

type baseOperator struct {
	match   func(want, have string) bool
	negated bool
	expands bool
	globs   bool
}

var baseOperators = map[string]baseOperator{
	"StringEquals":              {match: equal, expands: true},
	"StringNotEquals":           {match: equal, negated: true, expands: true},
	"StringEqualsIgnoreCase":    {match: strings.EqualFold, expands: true},
	"StringNotEqualsIgnoreCase": {match: strings.EqualFold, negated: true, expands: true},
	"StringLike":                {match: Glob, expands: true, globs: true},
	"StringNotLike":             {match: Glob, negated: true, expands: true, globs: true},
	"NumericEquals":             {match: numeric(func(c int) bool { return c == 0 })},
	"NumericNotEquals":          {match: numeric(func(c int) bool { return c == 0 }), negated: true},
	"NumericLessThan":           {match: numeric(func(c int) bool { return c < 0 })},
	"NumericLessThanEquals":     {match: numeric(func(c int) bool { return c <= 0 })},
	"NumericGreaterThan":        {match: numeric(func(c int) bool { return c > 0 })},
	"NumericGreaterThanEquals":  {match: numeric(func(c int) bool { return c >= 0 })},
	"DateEquals":                {match: date(func(c int) bool { return c == 0 })},
	"DateNotEquals":             {match: date(func(c int) bool { return c == 0 }), negated: true},
	"DateLessThan":              {match: date(func(c int) bool { return c < 0 })},
	"DateLessThanEquals":        {match: date(func(c int) bool { return c <= 0 })},
	"DateGreaterThan":           {match: date(func(c int) bool { return c > 0 })},
	"DateGreaterThanEquals":     {match: date(func(c int) bool { return c >= 0 })},
	"Bool":                      {match: strings.EqualFold, expands: true},
	"BinaryEquals":              {match: binary},
	"IpAddress":                 {match: address},
	"NotIpAddress":              {match: address, negated: true},
	"ArnEquals":                 {match: arnLike, expands: true, globs: true},
	"ArnLike":                   {match: arnLike, expands: true, globs: true},
	"ArnNotEquals":              {match: arnLike, negated: true, expands: true, globs: true},
	"ArnNotLike":                {match: arnLike, negated: true, expands: true, globs: true},
}

func parseOperator(name string) (operator, error) {
	op := operator{base: name}
	if set, rest, ok := strings.Cut(name, ":"); ok && (set == "ForAllValues" || set == "ForAnyValue") {
		op.set, op.base = set, rest
	}
	if op.base == "Null" {
		return op, nil
	}
	op.base, op.ifExists = strings.CutSuffix(op.base, "IfExists")
	b, ok := baseOperators[op.base]
	if !ok {
		return op, syntax("Invalid Condition type : %s.", name)
	}
	op.match, op.negated, op.expands, op.globs = b.match, b.negated, b.expands, b.globs
	return op, nil
}

// holds reports whether the condition is met by the request.
func (c *Condition) holds(r *Request) bool {
	op := &c.op
	have, present := r.Context[c.key]
	if op.base == "Null" {
		absent := !present || len(have) == 0
		return slices.ContainsFunc(c.Values, func(v string) bool { return strings.EqualFold(v, strconv.FormatBool(absent)) })
	}
	if !present || len(have) == 0 {
		return op.ifExists || op.set == "ForAllValues" || (op.set == "" && op.negated)
	}
	one := func(h string) bool { return op.meets(c.Values, h, r) }
	// Without a set operator a key with several values is not foreseen; taken as
	// ForAnyValue, and for a negated operator as ForAllValues, a guess.
	if op.set == "ForAnyValue" || op.set == "" && !op.negated {
		return slices.ContainsFunc(have, one)
	}
	return !slices.ContainsFunc(have, func(h string) bool { return !one(h) })
}

// meets is OR over the values of a positive operator and NOR of a negated one.
func (op *operator) meets(values []string, have string, r *Request) bool {
	hit := slices.ContainsFunc(values, func(want string) bool {
		if op.expands && strings.Contains(want, "${") {
			expanded, ok := r.expand(want)
			if !ok {
				return false
			}
			if want = expanded; !op.globs {
				want = strings.ReplaceAll(want, string(rune(escape)), "")
			}
		}
		return op.match(want, have)
	})
	return hit != op.negated
}

// pattern is an action or a resource of a statement.
type pattern struct {
	text     string
	wild     bool // * or ? in it
	variable int  // where its first variable may stand, 0 when there is none
}

func newPattern(text string, expands bool) pattern {
	p := pattern{text: text, wild: strings.ContainsAny(text, "*?")}
	if at := strings.Index(text, "${"); expands && at >= 0 {
		// Variables stand in the sixth part of an ARN only, documented.
		if i := sixth(text); i > 0 && strings.Contains(text[i:], "${") {
			p.variable = i
		}
	}
	return p
}

// sixth is where the sixth part of an ARN begins, 0 if there is none.
func sixth(s string) int {
	at := 0
	for range 5 {
		i := strings.IndexByte(s[at:], ':')
		if i < 0 {
			return 0
		}
		at += i + 1
	}
	return at
}

func (p *pattern) match(s string, r *Request) bool {
	if p.variable > 0 {
		tail, ok := r.expand(p.text[p.variable:])
		return ok && Glob(p.text[:p.variable]+tail, s)
	}
	if p.wild {
		return p.text == "*" || Glob(p.text, s)
	}
	return p.text == s
}

func equal(want, have string) bool { return want == have }

// Glob matches * (any run) and ? (any one character), case-sensitively. A
// character behind escape, which expand writes for ${*}, ${?} and ${$}, stands
// for itself. A character may have several bytes.
func Glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == escape && p+1 < len(pattern) && pattern[p+1] == s[i]:
			p, i = p+2, i+1
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == '?':
			_, size := utf8.DecodeRuneInString(s[i:])
			p, i = p+1, i+size
		case p < len(pattern) && pattern[p] != escape && pattern[p] == s[i]:
			p, i = p+1, i+1
		case star >= 0:
			_, size := utf8.DecodeRuneInString(s[mark:])
			mark += size
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

const escape = 0x00

// arnLike compares six colon parts one by one; only the last may hold colons.
func arnLike(want, have string) bool {
	w, h := strings.SplitN(want, ":", 6), strings.SplitN(have, ":", 6)
	if len(w) != 6 || len(h) != 6 {
		return want == "*"
	}
	for i := range w {
		if !Glob(w[i], h[i]) {
			return false
		}
	}
	return true
}

func numeric(is func(int) bool) func(want, have string) bool {
	return func(want, have string) bool {
		w, ok := number(want)
		h, ok2 := number(have)
		return ok && ok2 && is(cmp.Compare(h, w))
	}
}

// number reads a decimal number; Go's other spellings, and what is no number,
// are not JSON's.
func number(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !strings.ContainsAny(s, "xXpPnN_iI")
}

func date(is func(int) bool) func(want, have string) bool {
	return func(want, have string) bool {
		w, ok := moment(want)
		h, ok2 := moment(have)
		return ok && ok2 && is(h.Compare(w))
	}
}

func moment(s string) (time.Time, bool) {
	if sec, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(sec, 0), true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func binary(want, have string) bool {
	w, err := base64.StdEncoding.DecodeString(want)
	h, err2 := base64.StdEncoding.DecodeString(have)
	return err == nil && err2 == nil && string(w) == string(h)
}

func address(want, have string) bool {
	h, err := netip.ParseAddr(have)
	if err != nil {
		return false
	}
	if p, err := netip.ParsePrefix(want); err == nil {
		return p.Contains(h.Unmap())
	}
	w, err := netip.ParseAddr(want)
	return err == nil && w == h.Unmap()
}
