package wire

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Constraints collects everything that a request's members violate, in the
// words of AWS's own front end, observed.
type Constraints struct{ problems []string }

func (c *Constraints) add(value, member, must string) {
	c.problems = append(c.problems, fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: Member must %s", value, member, must))
}

// Required wants a member to be there.
func (c *Constraints) Required(member string, v *string) {
	if v == nil {
		c.add("null", member, "not be null")
	}
}

// Length wants a string, if there is one, to have between low and high characters.
func (c *Constraints) Length(member string, v *string, low, high int) {
	if v == nil {
		return
	}
	switch n := utf8.RuneCountInString(*v); {
	case n < low:
		c.add("'"+*v+"'", member, fmt.Sprintf("have length greater than or equal to %d", low))
	case n > high:
		c.add("'"+short(*v)+"'", member, fmt.Sprintf("have length less than or equal to %d", high))
	}
}

// short keeps an answer from repeating what is far too long.
func short(s string) string {
	if len(s) <= 256 {
		return s
	}
	return s[:256] + "..."
}

// Pattern wants a string, if there is one, to match as a whole.
func (c *Constraints) Pattern(member string, v *string, p *regexp.Regexp) {
	if v != nil && !p.MatchString(*v) {
		text := strings.TrimSuffix(strings.TrimPrefix(p.String(), "^"), "$")
		c.add("'"+short(*v)+"'", member, "satisfy regular expression pattern: "+text)
	}
}

// Range wants a number, if there is one, to be between low and high.
func (c *Constraints) Range(member string, v *int32, low, high int32) {
	switch {
	case v == nil:
	case *v < low:
		c.add(fmt.Sprintf("'%d'", *v), member, fmt.Sprintf("have value greater than or equal to %d", low))
	case *v > high:
		c.add(fmt.Sprintf("'%d'", *v), member, fmt.Sprintf("have value less than or equal to %d", high))
	}
}

// Count wants a list to have at most high items.
func (c *Constraints) Count(member string, n, high int) {
	if n > high {
		c.add(fmt.Sprintf("with %d items", n), member, fmt.Sprintf("have length less than or equal to %d", high))
	}
}

// Err is a ValidationError of all that was found, or nil.
func (c *Constraints) Err() error {
	switch len(c.problems) {
	case 0:
		return nil
	case 1:
		return &Error{Code: "ValidationError", Message: "1 validation error detected: " + c.problems[0]}
	}
	return &Error{Code: "ValidationError", Message: fmt.Sprintf("%d validation errors detected: %s", len(c.problems), strings.Join(c.problems, "; "))}
}
