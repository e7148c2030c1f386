package arn

import "testing"

func TestAnARNReadsBackAsWritten(t *testing.T) {
	for _, s := range []string{
		"arn:aws:ecs:ap-northeast-2:000000000000:service/c/s",
		"arn:aws:iam::000000000000:role/path/name",
		"arn:aws:ecs:us-east-1:1:task-definition/web:3",
	} {
		a, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if a.String() != s {
			t.Errorf("%q read back as %q", s, a)
		}
	}
	for _, s := range []string{"", "web", "arn:aws:ecs", "urn:aws:ecs:r:a:x", "arn:aws::r:a:x", "arn:aws:ecs:r:a:", "arn:aws-x:ecs:r:a:service/c/s"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("%q was taken for an ARN", s)
		}
	}
}

func TestAKeyReadsBackAsWritten(t *testing.T) {
	s := Scope{"000000000000", "us-east-1"}
	got, id := ParseKey(s.Key("a|b/c"))
	if got != s || id != "a|b/c" {
		t.Errorf("got %v %q", got, id)
	}
}
