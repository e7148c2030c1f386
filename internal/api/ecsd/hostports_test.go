package ecsd

import (
	"math/rand/v2"
	"testing"

	"serin/internal/place"
)

// Whatever is taken, a row of ports is free, in the range, and taken afterwards.
func TestARowOfPortsIsFound(t *testing.T) {
	const all = lastDynamic - firstDynamic + 1
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		taken := map[place.Port]bool{}
		for n := uint16(firstDynamic); n <= lastDynamic; n += 100 { // leaves rows of 99
			taken[place.Port{Number: n}] = true
		}
		before := len(taken)
		if first := dynamic(r, 100, false, taken); first != 0 {
			t.Fatalf("a row of 100 begins at %d", first)
		}
		first := dynamic(r, 99, false, taken)
		if first < firstDynamic || first+98 > lastDynamic || (first-firstDynamic)%100 != 1 || len(taken) != before+99 {
			t.Fatalf("a row of 99 begins at %d, and %d more are taken", first, len(taken)-before)
		}
		if first := dynamic(r, all, true, taken); first != firstDynamic {
			t.Fatalf("all of UDP begin at %d", first)
		}
		if first := dynamic(r, 1, true, taken); first != 0 {
			t.Fatalf("behind all of UDP is %d", first)
		}
	}
	if first := dynamic(rand.New(rand.NewPCG(0, 0)), all+1, false, map[place.Port]bool{}); first != 0 {
		t.Errorf("more than there are begin at %d", first)
	}
}
