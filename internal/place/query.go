package place

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Expr is an expression of the cluster query language, parsed.
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html
type Expr struct {
	text string
	node func(attribute func(string) (string, bool)) bool
}

func (e Expr) String() string { return e.text }

// Holds says whether the expression is true of something with these attributes.
func (e Expr) Holds(attribute func(string) (string, bool)) bool { return e.node(attribute) }

// ParseExpr parses an expression, such as attribute:ecs.instance-type =~ m5.*
func ParseExpr(text string) (Expr, error) {
	p := &parser{left: text}
	node, err := p.or()
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("unexpected %q", p.peek())
	}
	if err != nil {
		return Expr{}, fmt.Errorf("the expression %q: %w", text, err)
	}
	return Expr{text, node}, nil
}

type node = func(attribute func(string) (string, bool)) bool

type parser struct{ left string }

// peek is the next word: a parenthesis, a bracket, a comma, an operator or a name.
func (p *parser) peek() string {
	p.left = strings.TrimLeft(p.left, " \t\r\n")
	if p.left == "" {
		return ""
	}
	for _, sign := range []string{"==", "!=", "=~", "!~", ">=", "<=", "&&", "||", "(", ")", "[", "]", ",", ">", "<", "!"} {
		if strings.HasPrefix(p.left, sign) {
			return sign
		}
	}
	end := strings.IndexAny(p.left, " \t\r\n()[],=!<>&|")
	if end < 0 {
		end = len(p.left)
	}
	return p.left[:max(end, 1)]
}

func (p *parser) next() string {
	word := p.peek()
	p.left = p.left[len(word):]
	return word
}

func (p *parser) accept(words ...string) bool {
	if slices.Contains(words, strings.ToLower(p.peek())) {
		p.next()
		return true
	}
	return false
}

func (p *parser) or() (node, error) {
	left, err := p.and()
	for err == nil && p.accept("or", "||") {
		var right node
		if right, err = p.and(); err == nil {
			first := left
			left = func(a func(string) (string, bool)) bool { return first(a) || right(a) }
		}
	}
	return left, err
}

func (p *parser) and() (node, error) {
	left, err := p.not()
	for err == nil && p.accept("and", "&&") {
		var right node
		if right, err = p.not(); err == nil {
			first := left
			left = func(a func(string) (string, bool)) bool { return first(a) && right(a) }
		}
	}
	return left, err
}

func (p *parser) not() (node, error) {
	if p.accept("not", "!") {
		inner, err := p.not()
		return func(a func(string) (string, bool)) bool { return !inner(a) }, err
	}
	if p.accept("(") {
		inner, err := p.or()
		if err == nil && !p.accept(")") {
			err = fmt.Errorf("a parenthesis is open")
		}
		return inner, err
	}
	return p.compare()
}

func (p *parser) compare() (node, error) {
	subject := p.next()
	name, ok := strings.CutPrefix(subject, "attribute:")
	if !ok || name == "" {
		return nil, fmt.Errorf("the subject must be attribute:NAME, got %q", subject)
	}
	operator := strings.ToLower(p.next())
	switch operator {
	case "exists":
		return func(a func(string) (string, bool)) bool { _, has := a(name); return has }, nil
	case "!exists", "not_exists":
		return func(a func(string) (string, bool)) bool { _, has := a(name); return !has }, nil
	case "!":
		switch word := strings.ToLower(p.next()); word {
		case "exists":
			return func(a func(string) (string, bool)) bool { _, has := a(name); return !has }, nil
		case "in":
			operator = "!in"
		default:
			return nil, fmt.Errorf("unknown operator %q", "!"+word)
		}
	}
	switch operator {
	case "in", "!in", "not_in":
		list, err := p.list()
		return func(a func(string) (string, bool)) bool {
			v, _ := a(name)
			return slices.Contains(list, v) == (operator == "in")
		}, err
	}
	value := strings.Trim(p.value(), `"'`)
	if value == "" {
		return nil, fmt.Errorf("a value is missing")
	}
	return comparison(name, operator, value)
}

func comparison(name, operator, value string) (node, error) {
	test := map[string]func(v string) bool{
		"==": func(v string) bool { return v == value }, "equals": func(v string) bool { return v == value },
		"!=": func(v string) bool { return v != value }, "not_equals": func(v string) bool { return v != value },
		">": number(value, func(x, y float64) bool { return x > y }), "greater_than": number(value, func(x, y float64) bool { return x > y }),
		">=": number(value, func(x, y float64) bool { return x >= y }), "greater_than_equal": number(value, func(x, y float64) bool { return x >= y }),
		"<": number(value, func(x, y float64) bool { return x < y }), "less_than": number(value, func(x, y float64) bool { return x < y }),
		"<=": number(value, func(x, y float64) bool { return x <= y }), "less_than_equal": number(value, func(x, y float64) bool { return x <= y }),
	}[operator]
	switch operator {
	case "=~", "matches", "!~", "not_matches":
		re, err := regexp.Compile("^(?:" + value + ")$")
		if err != nil {
			return nil, fmt.Errorf("the pattern %q: %w", value, err)
		}
		yes := operator == "=~" || operator == "matches"
		test = func(v string) bool { return re.MatchString(v) == yes }
	}
	if test == nil {
		return nil, fmt.Errorf("unknown operator %q", operator)
	}
	return func(a func(string) (string, bool)) bool { v, _ := a(name); return test(v) }, nil
}

// number compares with a value as numbers; what is none is not comparable.
func number(value string, compare func(x, y float64) bool) func(string) bool {
	y, err := strconv.ParseFloat(value, 64)
	return func(v string) bool {
		x, err2 := strconv.ParseFloat(v, 64)
		return err == nil && err2 == nil && compare(x, y)
	}
}

// value is the rest of a comparison up to a space or a closing parenthesis: a
// pattern may hold any sign.
func (p *parser) value() string {
	p.left = strings.TrimLeft(p.left, " \t\r\n")
	depth := 0
	for i, r := range p.left {
		switch {
		case r == '(':
			depth++
		case r == ')' && depth > 0:
			depth--
		case r == ')' || strings.ContainsRune(" \t\r\n", r):
			value := p.left[:i]
			p.left = p.left[i:]
			return value
		}
	}
	value := p.left
	p.left = ""
	return value
}

// list is [a, b].
func (p *parser) list() ([]string, error) {
	if !p.accept("[") {
		return nil, fmt.Errorf("a list in brackets is missing")
	}
	var list []string
	for {
		word := strings.Trim(p.next(), `"'`)
		if word == "" || word == "]" {
			return nil, fmt.Errorf("a bracket is open")
		}
		list = append(list, word)
		if p.accept("]") {
			return list, nil
		}
		if !p.accept(",") {
			return nil, fmt.Errorf("a comma is missing in a list")
		}
	}
}
