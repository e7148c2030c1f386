package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
)

type row struct{ N int }

func open(t *testing.T, dir string) (*Store, *Table[row]) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	rows := NewTable[row](s, "rows")
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return s, rows
}

func put(s *Store, rows *Table[row], key string, n int) error {
	return s.Update(func(tx *Tx) error { rows.Put(tx, key, row{n}); return nil })
}

func TestWhatWasCommittedIsThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	s, rows := open(t, dir)
	if err := put(s, rows, "a", 1); err != nil {
		t.Fatal(err)
	}
	if err := put(s, rows, "b", 2); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(func(tx *Tx) error { rows.Delete(tx, "a"); return nil }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, rows = open(t, dir)
	defer s.Close()
	s.View(func(tx *Tx) {
		if _, ok := rows.Get(tx, "a"); ok {
			t.Error("a deleted row came back")
		}
		if r, _ := rows.Get(tx, "b"); r.N != 2 {
			t.Errorf("b is %v", r)
		}
	})
}

func TestAFailedUpdateLeavesNothingBehind(t *testing.T) {
	s := Ephemeral()
	rows := NewTable[row](s, "rows")
	s.Load()
	boom := errors.New("boom")
	err := s.Update(func(tx *Tx) error {
		rows.Put(tx, "a", row{1})
		if r, ok := rows.Get(tx, "a"); !ok || r.N != 1 {
			t.Error("an update does not see its own write")
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := s.Update(func(tx *Tx) error { panic("invariant") }); err == nil {
		t.Error("a panic was no error")
	}
	s.View(func(tx *Tx) {
		if rows.Len(tx) != 0 {
			t.Error("a failed update left a row")
		}
	})
}

func TestAReaderKeepsItsVersion(t *testing.T) {
	s := Ephemeral()
	rows := NewTable[row](s, "rows")
	s.Load()
	put(s, rows, "a", 1)
	s.View(func(tx *Tx) {
		put(s, rows, "a", 2)
		put(s, rows, "b", 3)
		if r, _ := rows.Get(tx, "a"); r.N != 1 || rows.Len(tx) != 1 {
			t.Errorf("a reader saw a later write: %v", r)
		}
	})
}

func TestScanSeesTheTableAsItWas(t *testing.T) {
	s := Ephemeral()
	rows := NewTable[row](s, "rows")
	s.Load()
	for _, k := range []string{"a/2", "a/1", "b/1", "a0"} {
		put(s, rows, k, 1)
	}
	var seen []string
	s.Update(func(tx *Tx) error {
		for k := range rows.Scan(tx, "a/") {
			seen = append(seen, k)
			rows.Put(tx, k+"x", row{9})
			rows.Delete(tx, k)
		}
		return nil
	})
	if fmt.Sprint(seen) != "[a/1 a/2]" {
		t.Errorf("scanned %v", seen)
	}
}

func TestManyWritersLoseNothing(t *testing.T) {
	s, rows := open(t, t.TempDir())
	defer s.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				s.Update(func(tx *Tx) error {
					r, _ := rows.Get(tx, "sum")
					rows.Put(tx, "sum", row{r.N + 1})
					return nil
				})
			}
		})
	}
	wg.Wait()
	s.View(func(tx *Tx) {
		if r, _ := rows.Get(tx, "sum"); r.N != 160 {
			t.Errorf("160 increments gave %d", r.N)
		}
	})
}

func TestAWatcherIsToldOfItsTablesOnly(t *testing.T) {
	s := Ephemeral()
	a, b := NewTable[row](s, "a"), NewTable[row](s, "b")
	s.Load()
	ch := make(chan struct{}, 1)
	stop := s.Watch(ch, a)
	<-ch
	put(s, b, "k", 1)
	select {
	case <-ch:
		t.Error("told of a table it does not watch")
	default:
	}
	put(s, a, "k", 1)
	put(s, a, "k", 2)
	<-ch
	stop()
	put(s, a, "k", 3)
	select {
	case <-ch:
		t.Error("told after it stopped")
	default:
	}
}

func TestANewerLayoutIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("layout"), binary.BigEndian.AppendUint64(nil, Version+1))
	})
	s.Close()
	_, err := Open(dir)
	if _, ok := errors.AsType[*VersionError](err); !ok {
		t.Errorf("a newer file gave %v", err)
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	defer s.Close()
	if _, err := Open(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("a second opening gave %v", err)
	}
}

func TestResetEmptiesMemoryAndDisk(t *testing.T) {
	dir := t.TempDir()
	s, rows := open(t, dir)
	put(s, rows, "a", 1)
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	s.View(func(tx *Tx) {
		if rows.Len(tx) != 0 {
			t.Error("rows in memory")
		}
	})
	s.Close()
	s, rows = open(t, dir)
	defer s.Close()
	s.View(func(tx *Tx) {
		if rows.Len(tx) != 0 {
			t.Error("rows on disk")
		}
	})
}

// A child writes rows and says after each commit which one is durable; it is
// killed in the middle; every row it spoke of must be there.
func TestAnAnsweredCommitSurvivesAKill(t *testing.T) {
	if dir := os.Getenv("SERIN_STORE_CHILD"); dir != "" {
		s, rows := open(t, dir)
		for i := 0; ; i++ {
			if err := put(s, rows, "n", i); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(os.Stderr, i)
		}
	}
	dir := t.TempDir()
	for range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAnAnsweredCommitSurvivesAKill$")
		cmd.Env = append(os.Environ(), "SERIN_STORE_CHILD="+dir)
		pipe, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last, buf, line := -1, make([]byte, 4096), ""
		deadline := time.Now().Add(20 * time.Second)
		for last < 30 && time.Now().Before(deadline) {
			n, err := pipe.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range buf[:n] {
				if c != '\n' {
					line += string(c)
					continue
				}
				if v, err := strconv.Atoi(line); err == nil {
					last = v
				}
				line = ""
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		s, rows := open(t, dir)
		s.View(func(tx *Tx) {
			if r, _ := rows.Get(tx, "n"); r.N < last {
				t.Errorf("row %d was answered, %d is on disk", last, r.N)
			}
		})
		s.Close()
	}
}

func TestARangeBeginsAtItsKeyAndTheLastRowIsKnown(t *testing.T) {
	s, rows := open(t, t.TempDir())
	defer s.Close()
	s.View(func(tx *Tx) {
		if _, _, ok := rows.Last(tx); ok {
			t.Error("an empty table has a last row")
		}
	})
	for n, key := range []string{"a", "b", "d"} {
		if err := put(s, rows, key, n); err != nil {
			t.Fatal(err)
		}
	}
	s.View(func(tx *Tx) {
		var got []string
		for key := range rows.From(tx, "b") {
			got = append(got, key)
		}
		key, last, ok := rows.Last(tx)
		if fmt.Sprint(got) != "[b d]" || key != "d" || last.N != 2 || !ok {
			t.Errorf("from b come %v; the last is %s, %v", got, key, last)
		}
	})
}

func TestWhoGoesFirstWaitsForTheGroupUnderWayAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Ephemeral()
		if err := s.Load(); err != nil {
			t.Fatal(err)
		}
		var order []int
		note := func(n int) func(*Tx) error { return func(*Tx) error { order = append(order, n); return nil } }
		release := make(chan struct{})
		go s.Update(func(*Tx) error { <-release; return nil })
		synctest.Wait()
		for n := range 2 * mostInGroup {
			go s.Update(note(n))
			synctest.Wait() // it is in the queue
		}
		go s.UpdateFirst(note(-1))
		synctest.Wait()
		close(release)
		synctest.Wait()
		if len(order) != 2*mostInGroup+1 || order[0] != -1 {
			t.Fatalf("the order is %v", order)
		}
		for i, n := range order[1:] {
			if n != i {
				t.Fatalf("the order is %v", order)
			}
		}
	})
}
