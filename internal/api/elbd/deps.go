package elbd

import (
	"serin/internal/arn"
	"serin/internal/store"
	"serin/internal/wire"
)

// Deps is what ELB asks of other services.
type Deps struct {
	// LinkedRole makes ELB's own role in the caller's account, where the caller may.
	LinkedRole func(*wire.Call) error
	Instances  Instances
}

// Instances is EC2's instances.
type Instances interface {
	// State is an instance's state in EC2's words, "" if there is none.
	State(tx *store.Tx, scope arn.Scope, id string) string
}
