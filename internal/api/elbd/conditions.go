package elbd

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"serin/internal/balance"
)

// The conditions of a rule: what they may be is documented, the texts are guessed
// but for that about the number of values, which is observed:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html

const (
	hostField   = "host-header"
	pathField   = "path-pattern"
	headerField = "http-header"
	methodField = "http-request-method"
	queryField  = "query-string"
	sourceField = "source-ip"
)

// conditionField is what is known of a field.
type conditionField struct {
	config string // the structure that describes its condition
	short  bool   // Values of the condition itself will do
	regex  bool   // it has regular expressions
	once   bool   // a rule has one such condition at most
	check  func(value string) error
}

var conditionFields = map[string]conditionField{
	hostField:   {config: "HostHeaderConfig", short: true, regex: true, once: true, check: checkHost},
	pathField:   {config: "PathPatternConfig", short: true, regex: true, once: true, check: checkPath},
	headerField: {config: "HttpHeaderConfig", regex: true, check: func(v string) error { return checkLength(headerField, v, 128) }},
	methodField: {config: "HttpRequestMethodConfig", once: true, check: checkMethod},
	queryField:  {config: "QueryStringConfig"},
	sourceField: {config: "SourceIpConfig", once: true, check: checkSource},
}

// conditionsIn reads the conditions of a rule.
func conditionsIn(in []types.RuleCondition) ([]balance.Condition, error) {
	if len(in) == 0 {
		return nil, invalid("A condition must be specified")
	}
	var out []balance.Condition
	values, wildcards := 0, 0
	for _, c := range in {
		b, err := conditionIn(c)
		if err != nil {
			return nil, err
		}
		if conditionFields[b.Field].once && slices.ContainsFunc(out, func(o balance.Condition) bool { return o.Field == b.Field }) {
			return nil, invalid("A rule can only have one '%s' condition", b.Field)
		}
		values += len(b.Values) + len(b.Regexes) + len(b.Query)
		wildcards += wildcardsOf(b)
		out = append(out, b)
	}
	if values > mostValues {
		return nil, invalid("A rule can only have '%d' condition values", mostValues)
	}
	if wildcards > mostWildcards {
		return nil, invalid("A rule can only have '%d' condition wildcards", mostWildcards)
	}
	return out, nil
}

// conditionIn reads one condition: what its structure says or, in short, its own
// values.
func conditionIn(c types.RuleCondition) (b balance.Condition, err error) {
	configs := configsOf(c)
	b = balance.Condition{Field: aws.ToString(c.Field)}
	if b.Field == "" && len(configs) == 1 {
		b.Field = configs[0].Field
	}
	f, ok := conditionFields[b.Field]
	if !ok {
		return b, invalid("Condition field '%s' must be one of '[path-pattern, host-header, http-header, http-request-method, query-string, source-ip]'", b.Field)
	}
	short := len(c.Values)+len(c.RegexValues) > 0
	switch {
	case len(configs) > 1 || len(configs) == 1 && configs[0].Field != b.Field:
		return b, invalid("Only '%s' can be specified with '%s'", f.config, b.Field)
	case len(configs) == 0 && !f.short && !(b.Field == headerField && short):
		return b, invalid("A '%s' must be specified with '%s'", f.config, b.Field)
	case len(configs) == 1:
		b = configs[0]
	}
	if short {
		switch {
		case len(b.Values)+len(b.Regexes)+len(b.Query) > 0:
			return b, invalid("You cannot specify values in both the condition and its '%s'", f.config)
		case len(c.Values) > 0 && !f.short:
			return b, invalid("A '%s' must be specified with '%s'", f.config, b.Field)
		case len(c.Values) > 1:
			return b, invalid("The '%s' field contains too many values; the limit is '1'", b.Field)
		}
		b.Values, b.Regexes = c.Values, c.RegexValues
	}
	return b, checkCondition(b, f)
}

// configsOf is what the structures of a condition say.
func configsOf(c types.RuleCondition) (list []balance.Condition) {
	if v := c.HostHeaderConfig; v != nil {
		list = append(list, balance.Condition{Field: hostField, Values: v.Values, Regexes: v.RegexValues})
	}
	if v := c.PathPatternConfig; v != nil {
		list = append(list, balance.Condition{Field: pathField, Values: v.Values, Regexes: v.RegexValues})
	}
	if v := c.HttpHeaderConfig; v != nil {
		list = append(list, balance.Condition{Field: headerField, Header: aws.ToString(v.HttpHeaderName), Values: v.Values, Regexes: v.RegexValues})
	}
	if v := c.HttpRequestMethodConfig; v != nil {
		list = append(list, balance.Condition{Field: methodField, Values: v.Values})
	}
	if v := c.SourceIpConfig; v != nil {
		list = append(list, balance.Condition{Field: sourceField, Values: v.Values})
	}
	if v := c.QueryStringConfig; v != nil {
		b := balance.Condition{Field: queryField}
		for _, pair := range v.Values {
			b.Query = append(b.Query, balance.Pair{Key: aws.ToString(pair.Key), Value: aws.ToString(pair.Value)})
		}
		list = append(list, b)
	}
	return list
}

// checkCondition refuses values that the field cannot have.
func checkCondition(b balance.Condition, f conditionField) error {
	if len(b.Values)+len(b.Regexes)+len(b.Query) == 0 {
		return invalid("A condition value must be specified")
	}
	if len(b.Regexes) > 0 && (len(b.Values) > 0 || !f.regex) {
		return invalid("Regex values of a '%s' condition cannot be specified with other values", b.Field)
	}
	if b.Field == headerField {
		if err := checkHeaderName(b.Header); err != nil {
			return err
		}
	}
	for _, v := range b.Values {
		if v == "" {
			return invalid("A condition value cannot be empty")
		}
		if err := f.check(v); err != nil {
			return err
		}
	}
	for _, p := range b.Query {
		if p.Value == "" {
			return invalid("A 'Value' must be specified in 'QueryStringKeyValuePair'")
		}
		if err := cmp.Or(checkLength("Key", p.Key, 128), checkLength("Value", p.Value, 128)); err != nil {
			return err
		}
	}
	for _, r := range b.Regexes {
		if err := checkLength(b.Field, r, 128); err != nil {
			return err
		}
		if _, err := regexp.Compile(r); r == "" || err != nil {
			return invalid("The regex value '%s' of a '%s' condition is not valid", r, b.Field)
		}
	}
	return nil
}

func checkLength(what, value string, most int) error {
	if utf8.RuneCountInString(value) > most {
		return invalid("The '%s' value is too long; the limit is '%d'", what, most)
	}
	return nil
}

// Characters of patterns, documented.
var (
	hostPattern   = regexp.MustCompile(`^[A-Za-z0-9_.*?-]+$`)
	lastLabel     = regexp.MustCompile(`\.[A-Za-z*?]+$`)
	pathPattern   = regexp.MustCompile(`^[A-Za-z0-9_.$/~"'@:+&*?-]+$`)
	methodPattern = regexp.MustCompile(`^[A-Z_-]+$`)
	headerPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
)

func checkHost(v string) error {
	if err := checkLength(hostField, v, 128); err != nil {
		return err
	}
	if !hostPattern.MatchString(v) || !lastLabel.MatchString(v) {
		return invalid("The 'host-header' value '%s' is not valid: it must have at least one '.' with only alphabetical characters after the last, and besides them characters of A-Z, a-z, 0-9, '-', '_', '*' and '?'", v)
	}
	return nil
}

func checkPath(v string) error {
	if err := checkLength(pathField, v, 128); err != nil {
		return err
	}
	if !pathPattern.MatchString(v) {
		return invalid("Condition value '%s' contains a character that is not valid", v)
	}
	return nil
}

func checkMethod(v string) error {
	if err := checkLength(methodField, v, 40); err != nil {
		return err
	}
	if !methodPattern.MatchString(v) {
		return invalid("The 'http-request-method' value is invalid; the allowed characters are A-Z, hyphen and underscore")
	}
	return nil
}

func checkHeaderName(name string) error {
	switch {
	case name == "":
		return invalid("A 'HttpHeaderName' must be specified in 'HttpHeaderConfig'")
	case !headerPattern.MatchString(name) || strings.EqualFold(name, "host"):
		return invalid("The 'HttpHeaderName' value '%s' is not valid", name)
	}
	return checkLength("HttpHeaderName", name, 40)
}

// checkSource wants a block of addresses; all ones is the one that is not allowed,
// documented.
func checkSource(v string) error {
	if p, err := netip.ParsePrefix(v); err != nil || p.Addr().Zone() != "" || v == "255.255.255.255/32" {
		return invalid("The 'source-ip' value '%s' is not a valid CIDR block", v)
	}
	return nil
}

// wildcardsOf counts the wildcards of a condition's patterns; those of a query that
// a backslash takes by the word are none.
func wildcardsOf(b balance.Condition) (n int) {
	switch b.Field {
	case hostField, pathField, headerField:
		for _, v := range b.Values {
			n += strings.Count(v, "*") + strings.Count(v, "?")
		}
	case queryField:
		for _, p := range b.Query {
			for _, v := range []string{p.Key, p.Value} {
				v = strings.NewReplacer(`\\`, "", `\*`, "", `\?`, "").Replace(v)
				n += strings.Count(v, "*") + strings.Count(v, "?")
			}
		}
	}
	return n
}

// conditionView is a condition as it is described. What a host or a path is to be
// is told twice, observed; regular expressions likewise, guessed.
func conditionView(c balance.Condition) types.RuleCondition {
	v := types.RuleCondition{Field: new(c.Field)}
	switch c.Field {
	case hostField:
		v.Values, v.RegexValues, v.HostHeaderConfig = c.Values, c.Regexes, &types.HostHeaderConditionConfig{Values: c.Values, RegexValues: c.Regexes}
	case pathField:
		v.Values, v.RegexValues, v.PathPatternConfig = c.Values, c.Regexes, &types.PathPatternConditionConfig{Values: c.Values, RegexValues: c.Regexes}
	case headerField:
		v.RegexValues, v.HttpHeaderConfig = c.Regexes, &types.HttpHeaderConditionConfig{HttpHeaderName: new(c.Header), Values: c.Values, RegexValues: c.Regexes}
	case methodField:
		v.HttpRequestMethodConfig = &types.HttpRequestMethodConditionConfig{Values: c.Values}
	case sourceField:
		v.SourceIpConfig = &types.SourceIpConditionConfig{Values: c.Values}
	case queryField:
		v.QueryStringConfig = &types.QueryStringConditionConfig{}
		for _, p := range c.Query {
			pair := types.QueryStringKeyValuePair{Value: new(p.Value)}
			if p.Key != "" {
				pair.Key = new(p.Key)
			}
			v.QueryStringConfig.Values = append(v.QueryStringConfig.Values, pair)
		}
	}
	return v
}
