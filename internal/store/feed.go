package store

import (
	"slices"
	"sync"
)

// Key names a row.
type Key struct {
	Table AnyTable
	Row   string
}

// Feed gathers the keys of rows that changed, until they are taken. It forgets
// none and names each once, however often it changed: who takes a key looks at
// the row as it is then.
type Feed struct {
	watcher
	mu   sync.Mutex
	keys map[Key]struct{}
	stop func()
}

// Follow begins a feed of the tables, with every row that they have now. ch is
// signalled as by Watch.
func (s *Store) Follow(ch chan<- struct{}, tables ...AnyTable) *Feed {
	f := &Feed{keys: map[Key]struct{}{}}
	f.watcher = watcher{tables: map[int]bool{}, ch: ch, changed: f.add}
	for _, t := range tables {
		f.tables[t.index()] = true
	}
	f.stop = s.watch(&f.watcher)
	s.View(func(tx *Tx) {
		for _, t := range tables {
			for _, key := range t.keys(tx.v.trees[t.index()]) {
				f.keys[Key{t, key}] = struct{}{}
			}
		}
	})
	f.signal()
	return f
}

func (f *Feed) add(keys []Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range keys {
		if f.tables[k.Table.index()] {
			f.keys[k] = struct{}{}
		}
	}
}

// Take returns the keys of all rows that changed since the last Take, in no
// order. The rows that are seen after it are at least as new.
func (f *Feed) Take() []Key {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := make([]Key, 0, len(f.keys))
	for k := range f.keys {
		keys = append(keys, k)
	}
	clear(f.keys)
	return keys
}

// Stop ends the feed.
func (f *Feed) Stop() { f.stop() }

// watch adds a watcher and returns what removes it.
func (s *Store) watch(w *watcher) (stop func()) {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	s.watchers = append(s.watchers, w)
	return func() {
		s.watchMu.Lock()
		defer s.watchMu.Unlock()
		if i := slices.Index(s.watchers, w); i >= 0 {
			s.watchers = slices.Delete(s.watchers, i, i+1)
		}
	}
}
