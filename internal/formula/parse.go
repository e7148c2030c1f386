package formula

import (
	"slices"
	"strconv"
	"strings"
)

// node is a part of an expression.
type node interface {
	eval(*Env) (value, error)
}

type (
	literal float64
	text    string // a string or a word, as an argument
	ref     string
	list    []node
	unary   struct{ of node }
	binary  struct {
		op   string
		x, y node
	}
	call struct {
		name string
		args []node
	}
)

// longest is the most characters of an expression, documented; deepest bounds
// what the parser recurses into.
const (
	longest = 2048
	deepest = 100
)

// Parse reads an expression.
func Parse(s string) (*Expr, error) {
	if len(s) > longest {
		return nil, problem("The expression has more than %d characters", longest)
	}
	if word, _, _ := strings.Cut(strings.TrimSpace(s), " "); strings.EqualFold(word, "SELECT") {
		return nil, problem("Serin does not perform queries of Metrics Insights (SELECT) yet")
	}
	p := &parser{in: s}
	if err := p.next(); err != nil {
		return nil, err
	}
	root, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if p.token != "" {
		return nil, problem("Unexpected '%s'", p.token)
	}
	e := &Expr{root: root}
	e.collect(root)
	return e, nil
}

// collect finds the names in an expression.
func (e *Expr) collect(n node) {
	switch n := n.(type) {
	case ref:
		if !slices.Contains(e.refs, string(n)) {
			e.refs = append(e.refs, string(n))
		}
	case list:
		for _, item := range n {
			e.collect(item)
		}
	case unary:
		e.collect(n.of)
	case binary:
		e.collect(n.x)
		e.collect(n.y)
	case call:
		e.all = e.all || n.name == "METRICS"
		for _, arg := range n.args {
			e.collect(arg)
		}
	}
}

type sort int

const (
	end sort = iota
	isNumber
	isName
	isString
	isSymbol
)

type parser struct {
	in    string
	token string
	sort  sort
	depth int
}

func letter(c byte) bool { return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

// next reads a token. A string keeps no quotes.
func (p *parser) next() error {
	p.in = strings.TrimLeft(p.in, " \t\r\n")
	if p.token, p.sort = "", end; p.in == "" {
		return nil
	}
	n := 1
	switch c := p.in[0]; {
	case digit(c) || c == '.' && len(p.in) > 1 && digit(p.in[1]):
		n, p.sort = numeral(p.in), isNumber
	case letter(c):
		for n < len(p.in) && (letter(p.in[n]) || digit(p.in[n])) {
			n++
		}
		p.sort = isName
	case c == '"' || c == '\'':
		closing := strings.IndexByte(p.in[1:], c)
		if closing < 0 {
			return problem("A quote is not closed")
		}
		p.token, p.sort, p.in = p.in[1:closing+1], isString, p.in[closing+2:]
		return nil
	default:
		p.sort = isSymbol
		if len(p.in) > 1 && slices.Contains([]string{"<=", ">=", "==", "!=", "&&", "||"}, p.in[:2]) {
			n = 2
		} else if !strings.ContainsRune("+-*/^<>()[],", rune(c)) {
			return problem("Unexpected character '%c'", []rune(p.in)[0])
		}
	}
	p.token, p.in = p.in[:n], p.in[n:]
	return nil
}

// numeral is the length of the number that s begins with.
func numeral(s string) int {
	n := 0
	digits := func() {
		for n < len(s) && digit(s[n]) {
			n++
		}
	}
	if digits(); n < len(s) && s[n] == '.' {
		n++
		digits()
	}
	if n+1 < len(s) && (s[n] == 'e' || s[n] == 'E') {
		mantissa := n
		if n++; s[n] == '+' || s[n] == '-' {
			n++
		}
		exponent := n
		if digits(); n == exponent {
			return mantissa
		}
	}
	return n
}

func (p *parser) symbol(s string) bool { return p.sort == isSymbol && p.token == s }

func (p *parser) expect(s string) error {
	if !p.symbol(s) {
		if p.sort == end {
			return problem("Expected '%s' at the end of the expression", s)
		}
		return problem("Expected '%s', got '%s'", s, p.token)
	}
	return p.next()
}

// binds is how tightly the operators bind: those of a row bind alike.
var binds = [][]string{{"OR", "||"}, {"AND", "&&"}, {"==", "!="}, {"<", ">", "<=", ">="}, {"+", "-"}, {"*", "/"}}

// operator is the operator of a level that the parser stands before, or nothing.
func (p *parser) operator(level int) string {
	word := p.token
	if p.sort == isName {
		word = strings.ToUpper(word)
	} else if p.sort != isSymbol {
		return ""
	}
	if !slices.Contains(binds[level], word) {
		return ""
	}
	switch word {
	case "||":
		return "OR"
	case "&&":
		return "AND"
	}
	return word
}

func (p *parser) expression(level int) (node, error) {
	if level == len(binds) {
		return p.sign()
	}
	if p.depth++; p.depth > deepest*len(binds) {
		return nil, problem("The expression is nested too deeply")
	}
	defer func() { p.depth-- }()
	x, err := p.expression(level + 1)
	for err == nil {
		op := p.operator(level)
		if op == "" {
			return x, nil
		}
		if err = p.next(); err != nil {
			break
		}
		var y node
		y, err = p.expression(level + 1)
		x = binary{op, x, y}
	}
	return nil, err
}

// sign reads a minus, which binds less tightly than a power does.
func (p *parser) sign() (node, error) {
	minus := false
	for p.symbol("-") || p.symbol("+") {
		minus = minus != (p.token == "-")
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	x, err := p.primary()
	if err != nil {
		return nil, err
	}
	if p.symbol("^") {
		if p.depth++; p.depth > deepest*len(binds) {
			return nil, problem("The expression is nested too deeply")
		}
		defer func() { p.depth-- }()
		if err := p.next(); err != nil {
			return nil, err
		}
		y, err := p.sign() // a power binds to the right
		if err != nil {
			return nil, err
		}
		x = binary{"^", x, y}
	}
	if minus {
		return unary{x}, nil
	}
	return x, nil
}

func (p *parser) primary() (node, error) {
	token := p.token
	switch {
	case p.sort == isNumber:
		f, err := strconv.ParseFloat(token, 64)
		if err != nil {
			return nil, problem("'%s' is not a number", token)
		}
		return literal(f), p.next()
	case p.sort == isString:
		return text(token), p.next()
	case p.sort == isName:
		return p.name()
	case p.symbol("("):
		if err := p.next(); err != nil {
			return nil, err
		}
		x, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		return x, p.expect(")")
	case p.symbol("["):
		items, err := p.items("]")
		return list(items), err
	case p.sort == end:
		return nil, problem("The expression ends too early")
	}
	return nil, problem("Unexpected '%s'", token)
}

// name reads an id, a function, or a word that is an argument of some.
func (p *parser) name() (node, error) {
	name := p.token
	if err := p.next(); err != nil {
		return nil, err
	}
	if !p.symbol("(") {
		if slices.Contains([]string{"REPEAT", "LINEAR"}, name) {
			return text(name), nil
		}
		if 'a' > name[0] || name[0] > 'z' {
			return nil, problem("'%s' is not an id: ids begin with a small letter", name)
		}
		return ref(name), nil
	}
	name = strings.ToUpper(name)
	f, ok := functions[name]
	if !ok {
		if slices.Contains(refused, name) {
			return nil, problem("Serin does not perform the function %s yet", name)
		}
		return nil, problem("Function '%s' not found", name)
	}
	args, err := p.items(")")
	if err != nil {
		return nil, err
	}
	if len(args) < f.least || len(args) > f.most {
		return nil, problem("The function %s does not take %d arguments", name, len(args))
	}
	return call{name, args}, nil
}

// items reads what stands between brackets.
func (p *parser) items(closing string) (items []node, err error) {
	if err := p.next(); err != nil {
		return nil, err
	}
	if p.symbol(closing) {
		return nil, p.next()
	}
	for {
		x, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		items = append(items, x)
		if !p.symbol(",") {
			return items, p.expect(closing)
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
}

// refused are functions of CloudWatch that are not performed.
var refused = []string{"ANOMALY_DETECTION_BAND", "DB_PERF_INSIGHTS", "INSIGHT_RULE_METRIC", "LAMBDA", "SEARCH", "SERVICE_QUOTA", "SLICE", "SORT"}
