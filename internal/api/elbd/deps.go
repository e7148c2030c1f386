package elbd

import (
	"crypto/tls"

	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// Deps is what ELB asks of other services.
type Deps struct {
	// LinkedRole makes ELB's own role in the caller's account, where the caller may.
	LinkedRole   func(*wire.Call) error
	Network      Network
	Certificates Certificates
	LogDir       string // where access logs are, by buckets
}

// Certificates is Certificate Manager's certificates.
type Certificates interface {
	// Certificate is a certificate with its key, if there is one and it was issued.
	Certificate(tx *store.Tx, certificateARN string) (tls.Certificate, bool)
	// Table is the table whose rows, by ARN, change what is said above.
	Table() store.AnyTable
}

// Network is EC2's instances and subnets.
type Network interface {
	// State is an instance's state in EC2's words, "" if there is none.
	State(tx *store.Tx, scope arn.Scope, id string) string
	// Subnet is a subnet's zone and VPC, of which it knows.
	Subnet(tx *store.Tx, scope arn.Scope, id string) (zone, vpc string)
}
