package ec2d

import (
	"strings"
	"testing"

	"serin/internal/arn"
	"serin/internal/store"
)

// Of a subnet's addresses the first four and the last are AWS's.
func TestASubnetHasAsManyInstancesAsAddresses(t *testing.T) {
	s := store.Ephemeral()
	a := New(s)
	scope := arn.Scope{Account: "111111111111", Region: "us-east-1"}
	seen := map[string]bool{}
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	err := s.Update(func(tx *store.Tx) error {
		a.subnets.Put(tx, scope.Key("subnet-1"), subnet{ID: "subnet-1", VPC: "vpc-1", CIDR: "10.0.0.16/28", Zone: "us-east-1a"})
		for {
			if _, err := a.Launch(tx, scope, Machine{Subnet: "subnet-1"}); err != nil {
				if !strings.Contains(err.Error(), "There are not enough free addresses in subnet 'subnet-1' to satisfy the requested number of instances.") {
					t.Error(err)
				}
				break
			}
		}
		for key, m := range a.machines.Scan(tx, "") {
			seen[m.Address] = true
			m.Ended = m.Launched.Add(1)
			a.machines.Put(tx, key, m)
		}
		_, err := a.Launch(tx, scope, Machine{Subnet: "subnet-1"}) // their addresses are free again
		return err
	})
	if err != nil || len(seen) != 11 || !seen["10.0.0.20"] || !seen["10.0.0.30"] {
		t.Errorf("%v; the instances have %v", err, seen)
	}
}
