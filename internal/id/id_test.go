package id

import (
	"regexp"
	"testing"
)

func TestIdentifiersHaveTheirForm(t *testing.T) {
	for name, c := range map[string]struct{ got, want string }{
		"uuid":    {UUID(), `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`},
		"hex":     {Hex(32), `^[0-9a-f]{32}$`},
		"decimal": {Decimal(19), `^[1-9][0-9]{18}$`},
		"nano":    {Nano(21), `^[A-Za-z0-9_-]{21}$`},
		"unique":  {Unique("AROA"), `^AROA[A-Z2-7]{17}$`},
	} {
		if !regexp.MustCompile(c.want).MatchString(c.got) {
			t.Errorf("%s: %q does not match %s", name, c.got, c.want)
		}
	}
	if first, second := Hex(32), Hex(32); first == second {
		t.Error("two identifiers are equal")
	}
}
