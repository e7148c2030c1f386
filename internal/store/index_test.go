package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

type labelled struct{ Labels []string }

func labelsOf(_ string, r labelled) []string { return r.Labels }

func TestAnIndexIsInStepWithItsTable(t *testing.T) {
	dir := t.TempDir()
	open := func() (*Store, *Table[labelled], *Index[labelled]) {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		rows := NewTable[labelled](s, "rows")
		by := NewIndex(s, rows, labelsOf)
		if err := s.Load(); err != nil {
			t.Fatal(err)
		}
		return s, rows, by
	}
	s, rows, by := open()
	r := rand.New(rand.NewPCG(1, 2))
	check := func(tx *Tx) {
		t.Helper()
		want := map[string][]string{}
		for key, row := range rows.Scan(tx, "") {
			for _, l := range row.Labels {
				want[l] = append(want[l], key)
			}
		}
		for _, l := range []string{"a", "b", "ab", "c"} {
			if got := slices.Collect(maps.Keys(maps.Collect(by.Scan(tx, l)))); len(got) != len(want[l]) {
				t.Fatalf("label %s: %v, want %v", l, got, want[l])
			}
			for key, row := range by.Scan(tx, l) {
				if !slices.Contains(row.Labels, l) || !slices.Contains(want[l], key) {
					t.Fatalf("label %s has %s %v", l, key, row)
				}
			}
		}
	}
	for range 200 {
		fail := r.IntN(4) == 0
		s.Update(func(tx *Tx) error {
			for range r.IntN(5) {
				key := fmt.Sprint(r.IntN(20))
				if r.IntN(3) == 0 {
					rows.Delete(tx, key)
				} else {
					rows.Put(tx, key, labelled{[][]string{nil, {"a"}, {"b", "a"}, {"ab"}}[r.IntN(4)]})
				}
			}
			check(tx)
			if fail {
				return fmt.Errorf("no")
			}
			return nil
		})
		s.View(check)
	}
	s.Close()
	s, rows, by = open()
	defer s.Close()
	s.View(check)
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	s.View(check)
}

func TestAFeedNamesEveryRowThatChanged(t *testing.T) {
	s := Ephemeral()
	rows, others := NewTable[row](s, "rows"), NewTable[row](s, "others")
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	if err := put(s, rows, "before", 1); err != nil {
		t.Fatal(err)
	}
	ch := make(chan struct{}, 1)
	f := s.Follow(ch, rows)
	taken := func() []string {
		var names []string
		for _, k := range f.Take() {
			if k.Table != AnyTable(rows) {
				t.Errorf("a key of another table: %v", k)
			}
			names = append(names, k.Row)
		}
		slices.Sort(names)
		return names
	}
	<-ch
	if got := taken(); !slices.Equal(got, []string{"before"}) {
		t.Errorf("at first: %v", got)
	}
	put(s, rows, "a", 1)
	put(s, rows, "a", 2)
	put(s, others, "b", 1)
	s.Update(func(tx *Tx) error { rows.Delete(tx, "before"); return nil })
	<-ch
	if got := taken(); !slices.Equal(got, []string{"a", "before"}) {
		t.Errorf("then: %v", got)
	}
	if got := taken(); got != nil {
		t.Errorf("twice: %v", got)
	}
	f.Stop()
	put(s, rows, "c", 1)
	if got := taken(); got != nil {
		t.Errorf("after the end: %v", got)
	}
}
