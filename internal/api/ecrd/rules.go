package ecrd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The evaluation of a lifecycle policy: which images go, and by which rule. It is
// pure; lifecycle.go performs it. The rules of the evaluation are documented:
// https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html

// lifecycleRule is a rule in the policy's own JSON, in the order in which ECR
// tells it.
type lifecycleRule struct {
	Priority    int    `json:"rulePriority"`
	Description string `json:"description,omitempty"`
	Selection   struct {
		TagStatus      string   `json:"tagStatus"`
		TagPatternList []string `json:"tagPatternList,omitempty"`
		TagPrefixList  []string `json:"tagPrefixList,omitempty"`
		StorageClass   string   `json:"storageClass,omitempty"`
		CountType      string   `json:"countType"`
		CountUnit      string   `json:"countUnit,omitempty"`
		CountNumber    int      `json:"countNumber"`
	} `json:"selection"`
	Action struct {
		Type               string `json:"type"`
		TargetStorageClass string `json:"targetStorageClass,omitempty"`
	} `json:"action"`
}

type lifecyclePolicy struct {
	Rules []lifecycleRule `json:"rules"`
}

// Limits of a lifecycle policy, documented.
const (
	mostLifecycleText  = 30720 // characters
	leastLifecycleText = 100
	mostRules          = 50
	mostWildcards      = 4 // of one pattern
)

// parseRules reads and validates a policy, and returns its rules in the order of
// their evaluation. The texts of a policy as a whole are as observed; those of a
// single rule are ours, and name the rule and the member where ECR's name a
// schema.
func parseRules(text string) ([]lifecycleRule, error) {
	var policy lifecyclePolicy
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&policy); err != nil {
		return nil, unreadable(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, unreadable(fmt.Errorf("there is something after the policy's end"))
	}
	rules := policy.Rules
	if n := len(rules); n < 1 || n > mostRules {
		return nil, failure("rules must be 1 to %d, got %d", mostRules, n)
	}
	slices.SortStableFunc(rules, func(a, b lifecycleRule) int { return cmp.Compare(a.Priority, b.Priority) })
	selected := map[string]int{}
	for i, r := range rules {
		s := r.Selection
		switch {
		case i > 0 && rules[i-1].Priority == r.Priority:
			return nil, failure("Duplicate priority in multiple rules")
		case s.TagStatus == "tagged" && len(s.TagPatternList)+len(s.TagPrefixList) == 0:
			return nil, failure("Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.")
		case s.TagStatus == "any" && i != len(rules)-1:
			return nil, failure("Rule for tagStatus=ANY must have the lowest priority per storage class")
		}
		if err := r.check(); err != nil {
			return nil, failure("rule of rulePriority %d: %w", r.Priority, err)
		}
		what := fmt.Sprint(s.TagStatus, s.TagPatternList, s.TagPrefixList)
		if same, twice := selected[what]; twice && s.TagStatus == "untagged" {
			return nil, failure("Only one rule can select Untagged images per storage class.")
		} else if twice {
			return nil, failure("rules of rulePriority %d and %d have the same tags", same, r.Priority)
		}
		selected[what] = r.Priority
	}
	return rules, nil
}

// How ECR begins to say what is wrong with a policy, observed.
const (
	notValid    = "Lifecycle policy validation failure: "
	notReadable = "Lifecycle policy parsing failure: Could not map policyString into LifecyclePolicy."
)

func failure(format string, args ...any) error { return fmt.Errorf(notValid+format, args...) }

func unreadable(err error) error { return fmt.Errorf("%s (%w)", notReadable, err) }

// policyText is a policy as ECR tells it, observed: compact, its rules by their
// priority.
func policyText(rules []lifecycleRule) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(lifecyclePolicy{rules})
	return strings.TrimSuffix(b.String(), "\n"), err
}

var (
	tagPattern = regexp.MustCompile(`^[a-zA-Z0-9._*-]+$`)
	tagPrefix  = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)
)

// check validates a rule by itself.
func (r lifecycleRule) check() error {
	s, tags := r.Selection, len(r.Selection.TagPatternList)+len(r.Selection.TagPrefixList)
	switch {
	case r.Priority < 1:
		return fmt.Errorf("rulePriority must be 1 or more")
	case !slices.Contains([]string{"tagged", "untagged", "any"}, s.TagStatus):
		return fmt.Errorf("selection.tagStatus must be tagged, untagged or any, got '%s'", s.TagStatus)
	case s.TagStatus != "tagged" && tags > 0:
		return fmt.Errorf("selection.tagPatternList and tagPrefixList go with tagStatus 'tagged' only")
	case s.TagPatternList != nil && s.TagPrefixList != nil:
		return fmt.Errorf("selection can have a tagPatternList or a tagPrefixList, not both")
	case s.StorageClass == "archive" || s.CountType == "sinceImageTransitioned" || r.Action.Type == "transition":
		return fmt.Errorf("images cannot be archived here: action.type must be expire, and selection.storageClass standard")
	case s.StorageClass != "" && s.StorageClass != "standard":
		return fmt.Errorf("selection.storageClass must be standard or archive, got '%s'", s.StorageClass)
	case !slices.Contains([]string{"imageCountMoreThan", "sinceImagePushed", "sinceImagePulled"}, s.CountType):
		return fmt.Errorf("selection.countType must be imageCountMoreThan, sinceImagePushed or sinceImagePulled, got '%s'", s.CountType)
	case s.CountType == "imageCountMoreThan" && s.CountUnit != "":
		return fmt.Errorf("selection.countUnit goes with a countType in days only")
	case s.CountType != "imageCountMoreThan" && s.CountUnit != "days":
		return fmt.Errorf("selection.countUnit must be days with countType %s, got '%s'", s.CountType, s.CountUnit)
	case s.CountNumber < 1:
		return fmt.Errorf("selection.countNumber must be 1 or more")
	case r.Action.Type != "expire":
		return fmt.Errorf("action.type must be expire, got '%s'", r.Action.Type)
	case r.Action.TargetStorageClass != "":
		return fmt.Errorf("action.targetStorageClass goes with action.type transition only")
	}
	for _, p := range s.TagPatternList {
		if !tagPattern.MatchString(p) || strings.Count(p, "*") > mostWildcards {
			return fmt.Errorf("selection.tagPatternList: '%s' must satisfy %s and have at most %d wildcards", p, tagPattern, mostWildcards)
		}
	}
	for _, p := range s.TagPrefixList {
		if !tagPrefix.MatchString(p) {
			return fmt.Errorf("selection.tagPrefixList: '%s' must satisfy %s", p, tagPrefix)
		}
	}
	return nil
}

// identifies says that an image has the tags that a rule selects: all of its
// patterns or prefixes must be met, each by some tag.
func (r lifecycleRule) identifies(t tagged) bool {
	s := r.Selection
	switch s.TagStatus {
	case "untagged":
		return len(t.Tags) == 0
	case "any":
		return true
	}
	for _, p := range s.TagPatternList {
		if !slices.ContainsFunc(t.Tags, func(tag string) bool {
			matches, _ := path.Match(p, tag) // neither has a slash or another wildcard
			return matches
		}) {
			return false
		}
	}
	for _, p := range s.TagPrefixList {
		if !slices.ContainsFunc(t.Tags, func(tag string) bool { return strings.HasPrefix(tag, p) }) {
			return false
		}
	}
	return len(t.Tags) > 0
}

// expiry is an image that goes, and the priority of the rule that it goes by.
type expiry struct {
	tagged
	Rule int
}

// expire evaluates rules over a repository's images, at a stage time. An image is
// only expired by the first rule that identifies it; the rules after it count it
// none the less. What an index refers to stays until the index is gone.
func expire(rules []lifecycleRule, images []tagged, now time.Time) (gone []expiry) {
	images = slices.Clone(images)
	slices.SortStableFunc(images, func(a, b tagged) int { return b.Pushed.Compare(a.Pushed) }) // the youngest first
	children := map[string]bool{}
	for _, t := range images {
		for _, digest := range t.Children {
			children[digest] = true
		}
	}
	settled := map[string]bool{} // by a rule before
	for _, r := range rules {
		var identified []tagged
		for _, t := range images {
			if r.identifies(t) {
				identified = append(identified, t)
			}
		}
		for i, t := range identified {
			if r.counts(i, t, now) && !settled[t.Digest] && !children[t.Digest] {
				gone = append(gone, expiry{t, r.Priority})
			}
		}
		for _, t := range identified {
			settled[t.Digest] = true
		}
	}
	return gone
}

// mostDays is a time that no image is as old as; a Duration holds little more.
const mostDays = 100_000

// counts says that an image, the i-th youngest, is one too many or too old.
func (r lifecycleRule) counts(i int, t tagged, now time.Time) bool {
	days := time.Duration(min(r.Selection.CountNumber, mostDays)) * 24 * time.Hour
	switch r.Selection.CountType {
	case "sinceImagePushed":
		return now.Sub(t.Pushed) > days
	case "sinceImagePulled":
		used := t.Pushed
		if t.Pulled.After(used) {
			used = t.Pulled
		}
		return now.Sub(used) > days
	}
	return i >= r.Selection.CountNumber
}
