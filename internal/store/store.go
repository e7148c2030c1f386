// Package store holds the rows of a stage.
//
// Rows live in typed tables in memory; a bbolt file beside them is what
// survives. There is one writer at a time. An Update works on a copy-on-write
// version of the tables; its changes are on disk, synced together with those
// of its neighbours, before the new version is published and the caller hears
// of it. So readers take no lock, see only what is durable, and a failed
// Update leaves nothing behind. A row is immutable once put: to change one,
// put a new one.
//
// Watchers are told that something changed, or, by a Feed, which rows did; they
// look at the rows again. Losing a signal is therefore impossible and doubling
// one is harmless. An Index finds rows by what is in them.
package store

import (
	"encoding"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"serin/internal/clock"
)

// Version is the layout of the file. A file of a newer layout is refused.
const Version = 1

// ErrInUse says that another process holds the data directory.
var ErrInUse = errors.New("the data directory is in use by another stage")

// VersionError says that a file was written by a newer program.
type VersionError struct {
	Path       string
	Have, Know uint64
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s was written in layout %d, this program knows layouts up to %d", e.Path, e.Have, e.Know)
}

// Store is a set of tables with one writer and any number of readers.
type Store struct {
	db      *bbolt.DB // nil for an ephemeral store
	tables  []table   // fixed before the first transaction
	indexes int       // how many there are

	current atomic.Pointer[version]

	mu      sync.Mutex
	queue   []*update
	leading bool

	watchMu  sync.Mutex
	watchers []*watcher
}

// version is one published state: a persistent tree for each table and index.
type version struct {
	trees   []tree
	indexes []*entries
}

// tree is a *rows[R] behind the table that knows R.
type tree any

// rows is a table's rows by key. A row is behind a pointer, for a leaf of the
// tree is copied when one of its many rows is put.
type rows[R any] = btree.Map[string, *R]

type table interface {
	AnyTable
	label() string
	empty() tree
	clone(tree) tree
	load(tx *Tx, key string, raw []byte) error
	encode(row any) ([]byte, error)
}

type update struct {
	fn   func(*Tx) error
	err  error
	done chan struct{}
}

type change struct {
	table int
	key   string
	row   any // a *R; nil deletes
}

type watcher struct {
	tables  map[int]bool // empty: all
	ch      chan<- struct{}
	changed func([]Key) // or nil
}

// Tx is a transaction. It is valid only inside the function it was given to.
type Tx struct {
	store   *Store
	v       *version
	fresh   []bool // trees already cloned by this transaction; nil when read-only
	indexed []bool // and indexes
	changes []change
}

// Ephemeral returns a store that keeps nothing when it ends.
func Ephemeral() *Store {
	s := &Store{}
	s.current.Store(&version{})
	return s
}

// Open opens or makes the store's file in dir.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	path := filepath.Join(dir, "rows.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 200 * time.Millisecond, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("opening %s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	if err := checkVersion(db); err != nil {
		db.Close()
		return nil, err
	}
	s := Ephemeral()
	s.db = db
	return s, nil
}

func checkVersion(db *bbolt.DB) error {
	return db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("meta"))
		if err != nil {
			return fmt.Errorf("reading the layout of %s: %w", db.Path(), err)
		}
		raw := b.Get([]byte("layout"))
		if raw == nil {
			return b.Put([]byte("layout"), binary.BigEndian.AppendUint64(nil, Version))
		}
		if len(raw) != 8 {
			return fmt.Errorf("reading the layout of %s: %d bytes, want 8", db.Path(), len(raw))
		}
		if have := binary.BigEndian.Uint64(raw); have > Version {
			return &VersionError{db.Path(), have, Version}
		}
		return nil
	})
}

// Close ends the store. No transaction may run.
func (s *Store) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// Load reads the file into the tables. It is called once, after the last
// NewTable and before the first transaction.
func (s *Store) Load() error {
	first := s.writing(s.blank())
	s.current.Store(first.v)
	if s.db == nil {
		return nil
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, t := range s.tables {
			b, err := tx.CreateBucketIfNotExists([]byte("t/" + t.label()))
			if err != nil {
				return fmt.Errorf("opening table %s: %w", t.label(), err)
			}
			err = b.ForEach(func(k, raw []byte) error { return t.load(first, string(k), raw) })
			if err != nil {
				return fmt.Errorf("reading table %s: %w", t.label(), err)
			}
		}
		return nil
	})
}

// blank is the state without any row.
func (s *Store) blank() *version {
	v := &version{}
	for _, t := range s.tables {
		v.trees = append(v.trees, t.empty())
	}
	for range s.indexes {
		v.indexes = append(v.indexes, &entries{})
	}
	return v
}

// writing is a transaction that changes what follows v.
func (s *Store) writing(v *version) *Tx {
	next := &version{trees: slices.Clone(v.trees), indexes: slices.Clone(v.indexes)}
	return &Tx{store: s, v: next, fresh: make([]bool, len(next.trees)), indexed: make([]bool, len(next.indexes))}
}

// index is an index to be changed.
func (tx *Tx) index(at int) *entries {
	if !tx.indexed[at] {
		tx.v.indexes[at], tx.indexed[at] = tx.v.indexes[at].Copy(), true
	}
	return tx.v.indexes[at]
}

// Reset empties every table, in memory and on disk.
func (s *Store) Reset() error {
	return s.Update(func(tx *Tx) error {
		for i, t := range s.tables {
			for _, k := range t.keys(tx.v.trees[i]) {
				tx.changes = append(tx.changes, change{table: i, key: k})
			}
		}
		*tx.v = *s.blank()
		for i := range tx.fresh {
			tx.fresh[i] = true
		}
		for i := range tx.indexed {
			tx.indexed[i] = true
		}
		return nil
	})
}

// View runs fn over the latest published rows. It never waits for a writer.
func (s *Store) View(fn func(*Tx)) { fn(&Tx{store: s, v: s.current.Load()}) }

// Update runs fn as the only writer and returns when its changes are durable.
// When fn or the disk fails, nothing of it remains.
func (s *Store) Update(fn func(*Tx) error) error { return s.enqueue(fn, false) }

// UpdateFirst is Update before those that wait: for the few loops that everybody
// waits for.
func (s *Store) UpdateFirst(fn func(*Tx) error) error { return s.enqueue(fn, true) }

func (s *Store) enqueue(fn func(*Tx) error, first bool) error {
	u := &update{fn: fn, done: make(chan struct{})}
	s.mu.Lock()
	if first {
		s.queue = slices.Insert(s.queue, 0, u)
	} else {
		s.queue = append(s.queue, u)
	}
	lead := !s.leading
	s.leading = true
	s.mu.Unlock()
	if lead {
		s.lead()
	}
	<-u.done
	return u.err
}

// mostInGroup bounds how long one waits who comes while a group is committed.
const mostInGroup = 32

// lead runs the first of the queued updates as one group. Whoever finds nobody leading leads,
// once: those that came meanwhile are led by a goroutine, so that no caller waits
// for more than its own group.
func (s *Store) lead() {
	s.mu.Lock()
	n := min(len(s.queue), mostInGroup)
	group := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	s.mu.Unlock()
	s.commit(group)
	s.mu.Lock()
	s.leading = len(s.queue) > 0
	more := s.leading
	s.mu.Unlock()
	if more {
		go s.lead()
	}
}

// commit applies a group in order, writes it in one synced transaction and
// publishes it. An update whose fn fails is left out; a failing disk fails all.
func (s *Store) commit(group []*update) {
	v := s.current.Load()
	var changes []change
	for _, u := range group {
		tx := s.writing(v)
		if u.err = run(u.fn, tx); u.err == nil {
			v = tx.v
			changes = append(changes, tx.changes...)
		}
	}
	err := s.write(changes)
	for _, u := range group {
		if u.err == nil {
			u.err = err
		}
	}
	if err == nil && len(changes) > 0 {
		s.current.Store(v)
		s.notify(changes)
	}
	for _, u := range group {
		close(u.done)
	}
}

// run turns a panic of fn into an error, so that one caller's broken invariant
// does not strand its neighbours in the group.
func run(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("an update broke an invariant: %v", p)
		}
	}()
	return fn(tx)
}

func (s *Store) write(changes []change) error {
	if s.db == nil || len(changes) == 0 {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, c := range changes {
			b := tx.Bucket([]byte("t/" + s.tables[c.table].label()))
			if c.row == nil {
				if err := b.Delete([]byte(c.key)); err != nil {
					return err
				}
				continue
			}
			raw, err := s.tables[c.table].encode(c.row)
			if err != nil {
				return err
			}
			if err := b.Put([]byte(c.key), raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing rows: %w", err)
	}
	return nil
}

func (s *Store) notify(changes []change) {
	keys := make([]Key, len(changes))
	touched := map[int]bool{}
	for i, c := range changes {
		keys[i] = Key{s.tables[c.table], c.key}
		touched[c.table] = true
	}
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	for _, w := range s.watchers {
		for t := range touched {
			if len(w.tables) > 0 && !w.tables[t] {
				continue
			}
			if w.changed != nil {
				w.changed(keys)
			}
			w.signal()
			break
		}
	}
}

// AnyTable is a table whatever its rows, for Watch and Follow.
type AnyTable interface {
	index() int
	keys(tree) []string
}

// Watch sends a signal to ch, without waiting, whenever one of the tables (any,
// if none is named) has changed. ch wants a buffer of one: a signal that waits
// stands for all that come after it. The first is sent at once, so that a loop
// looks. The function returned ends the watch.
func (s *Store) Watch(ch chan<- struct{}, tables ...AnyTable) (stop func()) {
	w := &watcher{tables: map[int]bool{}, ch: ch}
	for _, t := range tables {
		w.tables[t.index()] = true
	}
	w.signal()
	return s.watch(w)
}

func (w *watcher) signal() { clock.Poke(w.ch) }

// Table is a typed, ordered table of rows R.
type Table[R any] struct {
	name    string
	at      int
	indexed []*Index[R]
}

// NewTable adds a table to the store. Names are part of the file's layout. Rows
// are JSON on disk, unless their type is a binary marshaler and unmarshaler.
func NewTable[R any](s *Store, name string) *Table[R] {
	for _, t := range s.tables {
		if t.label() == name {
			panic("store: table " + name + " exists")
		}
	}
	t := &Table[R]{name: name, at: len(s.tables)}
	s.tables = append(s.tables, t)
	return t
}

func (t *Table[R]) label() string         { return t.name }
func (t *Table[R]) index() int            { return t.at }
func (t *Table[R]) empty() tree           { return &rows[R]{} }
func (t *Table[R]) clone(in tree) tree    { return in.(*rows[R]).Copy() }
func (t *Table[R]) keys(in tree) []string { return in.(*rows[R]).Keys() }

func (t *Table[R]) load(tx *Tx, key string, raw []byte) error {
	row := new(R)
	var err error
	if own, ok := any(row).(encoding.BinaryUnmarshaler); ok {
		err = own.UnmarshalBinary(raw)
	} else {
		err = json.Unmarshal(raw, row)
	}
	if err != nil {
		return fmt.Errorf("row %q: %w", key, err)
	}
	t.set(tx, key, row)
	return nil
}

func (t *Table[R]) encode(row any) ([]byte, error) {
	encode := json.Marshal
	if own, ok := row.(encoding.BinaryMarshaler); ok {
		encode = func(any) ([]byte, error) { return own.MarshalBinary() }
	}
	raw, err := encode(row)
	if err != nil {
		return nil, fmt.Errorf("encoding a row of %s: %w", t.name, err)
	}
	return raw, nil
}

func (t *Table[R]) read(tx *Tx) *rows[R] { return tx.v.trees[t.at].(*rows[R]) }

func (t *Table[R]) write(tx *Tx) *rows[R] {
	if tx.fresh == nil {
		panic("store: a write to " + t.name + " in a View")
	}
	if !tx.fresh[t.at] {
		tx.v.trees[t.at], tx.fresh[t.at] = t.clone(tx.v.trees[t.at]), true
	}
	return t.read(tx)
}

// Get returns the row at key.
func (t *Table[R]) Get(tx *Tx, key string) (row R, ok bool) {
	p, ok := t.read(tx).Get(key)
	if ok {
		row = *p
	}
	return row, ok
}

// Put sets the row at key.
func (t *Table[R]) Put(tx *Tx, key string, row R) {
	t.set(tx, key, &row)
	tx.changes = append(tx.changes, change{t.at, key, &row})
}

func (t *Table[R]) set(tx *Tx, key string, row *R) {
	was, _ := t.write(tx).Set(key, row)
	for _, x := range t.indexed {
		x.change(tx, key, was, row)
	}
}

// Delete removes the row at key; there need not be one.
func (t *Table[R]) Delete(tx *Tx, key string) {
	was, had := t.write(tx).Delete(key)
	if !had {
		return
	}
	for _, x := range t.indexed {
		x.change(tx, key, was, nil)
	}
	tx.changes = append(tx.changes, change{table: t.at, key: key})
}

// Scan yields the rows whose key starts with prefix, in the order of their keys.
// The table may be written while it is scanned; the scan sees it as it was.
func (t *Table[R]) Scan(tx *Tx, prefix string) iter.Seq2[string, R] {
	return func(yield func(string, R) bool) {
		for key, row := range t.From(tx, prefix) {
			if !strings.HasPrefix(key, prefix) || !yield(key, row) {
				return
			}
		}
	}
}

// From yields the rows from key on, in the order of their keys, as Scan does.
func (t *Table[R]) From(tx *Tx, key string) iter.Seq2[string, R] {
	all := t.read(tx)
	if tx.fresh != nil {
		all = all.Copy()
	}
	return func(yield func(string, R) bool) {
		all.Ascend(key, func(key string, row *R) bool { return yield(key, *row) })
	}
}

// Last returns the row with the greatest key.
func (t *Table[R]) Last(tx *Tx) (key string, row R, ok bool) {
	key, p, ok := t.read(tx).Max()
	if ok {
		row = *p
	}
	return key, row, ok
}

// Len is the number of rows.
func (t *Table[R]) Len(tx *Tx) int { return t.read(tx).Len() }
