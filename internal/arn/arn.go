// Package arn parses and builds Amazon Resource Names.
//
// The form is arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE, where the
// resource may itself hold colons and slashes. Documented:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
package arn

import (
	"fmt"
	"regexp"
	"strings"
)

// ARN is a parsed Amazon Resource Name.
type ARN struct {
	Partition, Service, Region, Account, Resource string
}

// Scope is one account in one region; every row of the stage belongs to one.
// Global services (IAM, STS) use the empty region.
type Scope struct {
	Account, Region string
}

// Parse splits an ARN into its six parts. The stage is in the partition aws and
// knows no other: what an ARN of another names must not be taken for its own.
func Parse(s string) (ARN, error) {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[1] != "aws" || parts[2] == "" || parts[5] == "" {
		return ARN{}, fmt.Errorf("%q is not an ARN of the form arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE", s)
	}
	return ARN{parts[1], parts[2], parts[3], parts[4], parts[5]}, nil
}

// Is reports whether s looks like an ARN rather than a name.
func Is(s string) bool { return strings.HasPrefix(s, "arn:") }

func (a ARN) String() string {
	return "arn:" + a.Partition + ":" + a.Service + ":" + a.Region + ":" + a.Account + ":" + a.Resource
}

// Scope is the account and region the ARN names.
func (a ARN) Scope() Scope { return Scope{a.Account, a.Region} }

// Under returns what follows prefix in the resource part, and whether it was there.
func (a ARN) Under(prefix string) (string, bool) { return strings.CutPrefix(a.Resource, prefix) }

// For builds an ARN of service in the scope, in the aws partition.
func (s Scope) For(service, resource string) ARN {
	return ARN{"aws", service, s.Region, s.Account, resource}
}

// Key prefixes id with the scope: the form of every row's key in the store.
func (s Scope) Key(id string) string { return s.Account + "|" + s.Region + "|" + id }

// ParseKey is the inverse of Key.
func ParseKey(key string) (Scope, string) {
	account, rest, _ := strings.Cut(key, "|")
	region, id, _ := strings.Cut(rest, "|")
	return Scope{account, region}, id
}

var accountID = regexp.MustCompile(`^\d{12}$`)

// IsAccount reports whether s is a 12-digit account id.
func IsAccount(s string) bool { return accountID.MatchString(s) }
