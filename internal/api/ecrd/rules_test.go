package ecrd

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var today = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// ago is an image pushed some days ago.
func ago(name string, days int, tags ...string) tagged {
	return tagged{image{Digest: name, Pushed: today.AddDate(0, 0, -days)}, tags}
}

func rule(priority int, selection string) string {
	return fmt.Sprintf(`{"rulePriority":%d,"description":"a rule that the test is about","selection":{%s},"action":{"type":"expire"}}`, priority, selection)
}

func rules(list ...string) string { return `{"rules":[` + strings.Join(list, ",") + `]}` }

// The examples of ECR's user guide, with their outcome, and what its rules say.
func TestWhatALifecyclePolicyExpires(t *testing.T) {
	three := []tagged{ago("A", 10, "beta-1", "prod-1"), ago("B", 9, "beta-2", "prod-2"), ago("C", 8, "beta-3")}
	index := ago("index", 20, "v1")
	index.Children = []string{"amd64", "arm64"}
	pulled := ago("pulled", 30, "old")
	pulled.Pulled = today.AddDate(0, 0, -1)
	for _, c := range []struct {
		name, policy string
		images       []tagged
		want         string
	}{
		{"an image is kept by a rule before", rules(
			rule(1, `"tagStatus":"tagged","tagPrefixList":["prod"],"countType":"imageCountMoreThan","countNumber":1`),
			rule(2, `"tagStatus":"tagged","tagPrefixList":["beta"],"countType":"imageCountMoreThan","countNumber":1`)), three, "A:1"},
		{"the other order", rules(
			rule(1, `"tagStatus":"tagged","tagPrefixList":["beta"],"countType":"imageCountMoreThan","countNumber":1`),
			rule(2, `"tagStatus":"tagged","tagPrefixList":["prod"],"countType":"imageCountMoreThan","countNumber":1`)), three, "A:1 B:1"},
		{"all prefixes must be met", rules(rule(1, `"tagStatus":"tagged","tagPrefixList":["alpha","beta"],"countType":"sinceImagePushed","countUnit":"days","countNumber":5`)),
			[]tagged{ago("A", 12, "alpha-1"), ago("B", 11, "beta-1"), ago("C", 10, "alpha-2", "beta-2"), ago("D", 4, "alpha-3", "beta-3")}, "C:1"},
		{"patterns", rules(rule(1, `"tagStatus":"tagged","tagPatternList":["v*.*-rc*"],"countType":"sinceImagePushed","countUnit":"days","countNumber":5`)),
			[]tagged{ago("A", 12, "v1.0"), ago("B", 11, "v1.0-rc1"), ago("C", 11, "1.0-rc1")}, "B:1"},
		{"untagged", rules(rule(1, `"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14`)),
			[]tagged{ago("A", 15), ago("B", 14), ago("C", 15, "v1")}, "A:1"},
		{"any counts what a rule before took", rules(
			rule(1, `"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1`),
			rule(2, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":2`)),
			[]tagged{ago("A", 5), ago("B", 4), ago("C", 3, "c"), ago("D", 2, "d"), ago("E", 1, "e")}, "A:1 C:2"},
		{"what an index has stays with it", rules(rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":10`)),
			[]tagged{index, ago("amd64", 20), ago("arm64", 20), ago("alone", 20)}, "alone:1 index:1"},
		{"a pulled image is in use", rules(rule(1, `"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":10`)),
			[]tagged{pulled, ago("never", 30, "n")}, "never:1"},
		{"never", rules(rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":999999999`)),
			[]tagged{ago("A", 5000)}, ""},
		{"one day is more than 24 hours", rules(rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":1`)),
			[]tagged{ago("A", 1), {image{Digest: "B", Pushed: today.Add(-24*time.Hour - time.Second)}, nil}}, "B:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parsed, err := parseRules(c.policy)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range expire(parsed, c.images, today) {
				got = append(got, fmt.Sprintf("%s:%d", e.Digest, e.Rule))
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("expires %v, want %s", got, c.want)
			}
		})
	}
}

func TestALifecyclePolicyIsToldInOneForm(t *testing.T) {
	read, err := parseRules(`{ "rules": [
		{"action": {"type": "expire"}, "rulePriority": 7, "selection": {"countNumber": 3, "countType": "imageCountMoreThan", "tagStatus": "any"}},
		{"rulePriority": 2, "description": "<old> & untagged", "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14}, "action": {"type": "expire"}}
	]}`)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"rules":[{"rulePriority":2,"description":"<old> & untagged","selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}},` +
		`{"rulePriority":7,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":3},"action":{"type":"expire"}}]}`
	if got, err := policyText(read); err != nil || got != want {
		t.Errorf("the policy reads\n%s %v\nwant\n%s", got, err, want)
	}
}

func TestALifecyclePolicyThatIsNotOne(t *testing.T) {
	days := `"countType":"sinceImagePushed","countUnit":"days","countNumber":14`
	for _, c := range []struct{ policy, want string }{
		{`{"rules":[]}`, "rules"},
		{`{"rules":[{"rulePriority":1,"selektion":{}}]}`, "selektion"},
		{rules(rule(1, `"tagStatus":"untagged",`+days)) + "}", "after the policy's end"},
		{rules(rule(0, `"tagStatus":"untagged",`+days)), "rulePriority"},
		{rules(rule(1, `"tagStatus":"untagged",`+days), rule(1, `"tagStatus":"any",`+days)), "Duplicate priority in multiple rules"},
		{rules(rule(1, `"tagStatus":"any",`+days), rule(2, `"tagStatus":"untagged",`+days)), "Rule for tagStatus=ANY must have the lowest priority"},
		{rules(rule(1, `"tagStatus":"untagged",`+days), rule(2, `"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1`)), "Only one rule can select Untagged images"},
		{rules(rule(1, `"tagStatus":"sometimes",`+days)), "tagStatus"},
		{rules(rule(1, `"tagStatus":"tagged",`+days)), "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED."},
		{rules(rule(1, `"tagStatus":"untagged","tagPrefixList":["v"],`+days)), "tagPrefixList"},
		{rules(rule(1, `"tagStatus":"tagged","tagPrefixList":["v"],"tagPatternList":["v*"],`+days)), "not both"},
		{rules(rule(1, `"tagStatus":"tagged","tagPatternList":["*a*b*c*d*"],`+days)), "wildcards"},
		{rules(rule(1, `"tagStatus":"tagged","tagPrefixList":["v*"],`+days)), "tagPrefixList"},
		{rules(rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countUnit":"days","countNumber":1`)), "countUnit"},
		{rules(rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countNumber":1`)), "countUnit"},
		{rules(rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":0`)), "countNumber"},
		{rules(rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1.5`)), "countNumber"},
		{rules(rule(1, `"tagStatus":"any","countType":"since","countNumber":1`)), "countType"},
		{strings.Replace(rules(rule(1, `"tagStatus":"untagged",`+days)), "expire", "transition", 1), "archived"},
		{strings.Replace(rules(rule(1, `"tagStatus":"untagged",`+days)), "expire", "delete", 1), "action.type"},
	} {
		if _, err := parseRules(c.policy); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n gives %v, want something about %s", c.policy, err, c.want)
		}
	}
}

// Signatures go with what they are of, and what is attached to them with them; an
// image whose subject was never here, or that an index has, stays.
func TestWhatGoesWithAnExpiredImage(t *testing.T) {
	of := func(name, subject string) tagged { return tagged{image{Digest: name, Subject: subject}, nil} }
	index := tagged{image{Digest: "index", Children: []string{"child"}}, nil}
	images := []tagged{of("app", ""), of("signature", "app"), of("countersignature", "signature"), of("early", "not-yet-here"), of("child", "app"), index, of("other", "stays"), of("stays", "")}
	var gone []string
	for _, t := range withReferrers([]expiry{{images[0], 1}}, images) {
		gone = append(gone, t.Digest)
	}
	if got := strings.Join(gone, " "); got != "app signature countersignature" {
		t.Errorf("%s go", got)
	}
}
