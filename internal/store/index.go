package store

import (
	"iter"
	"slices"
	"strings"

	"github.com/tidwall/btree"
)

// Index finds the rows of a table by labels that follow from them. It is kept
// in memory, in step with the table, and is of the same version that a
// transaction sees.
type Index[R any] struct {
	table  *Table[R]
	at     int
	labels func(key string, row R) []string
}

// entries are the pairs of label and key that an index has.
type entries = btree.Map[string, struct{}]

// NewIndex adds an index to a table, before Load. labels must depend on
// nothing but the row; a label has no NUL.
func NewIndex[R any](s *Store, t *Table[R], labels func(key string, row R) []string) *Index[R] {
	x := &Index[R]{table: t, at: s.indexes, labels: labels}
	s.indexes++
	t.indexed = append(t.indexed, x)
	return x
}

// Scan yields the rows that have the label, in the order of their keys. The
// table may be written meanwhile; the scan sees it as it was.
func (x *Index[R]) Scan(tx *Tx, label string) iter.Seq2[string, R] {
	type found struct {
		key string
		row *R
	}
	var list []found
	all, prefix := x.table.read(tx), label+"\x00"
	tx.v.indexes[x.at].Ascend(prefix, func(entry string, _ struct{}) bool {
		key, ok := strings.CutPrefix(entry, prefix)
		if ok {
			row, _ := all.Get(key)
			list = append(list, found{key, row})
		}
		return ok
	})
	return func(yield func(string, R) bool) {
		for _, f := range list {
			if !yield(f.key, *f.row) {
				return
			}
		}
	}
}

// change brings the index from what the row was to what it is; nil is no row.
func (x *Index[R]) change(tx *Tx, key string, was, is *R) {
	var old, now []string
	if was != nil {
		old = x.labels(key, *was)
	}
	if is != nil {
		now = x.labels(key, *is)
	}
	if slices.Equal(old, now) {
		return
	}
	all := tx.index(x.at)
	for _, label := range old {
		all.Delete(label + "\x00" + key)
	}
	for _, label := range now {
		all.Set(label+"\x00"+key, struct{}{})
	}
}
